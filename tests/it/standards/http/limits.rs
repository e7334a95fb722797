//! H4: limits that never stop a real click.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::json;
use tidings::address::AddressHash;
use tidings::clock::Timestamp;
use tidings::guesses::BURST;
use tidings::id::{BrandId, DeliveryId, RecipientId, TopicId};
use tidings::link::{Link, Purpose};

use crate::harness::{Answer, Database, Tidings};

/// How many requests are under way at a time.
const AT_A_TIME: usize = 24;
/// Links that verify, as many as a mailbox provider sends after a large mailing.
const VALID: usize = 5_000;
const FORGED: usize = 10_000;

/// The brand `acme` with a topic, and unsubscribe links of so many people in mail of it.
async fn links(tidings: &Tidings, count: usize) -> Vec<String> {
    tidings.brand("acme").await;
    tidings.topic("acme", "offers", "marketing").await;
    let db = tidings.app().db.reads();
    let query = "SELECT t.id, t.brand_id FROM topics t JOIN brands b ON b.id = t.brand_id";
    let row =
        db.query_one_raw(Statement::from_string(db.get_database_backend(), query)).await.unwrap().unwrap();
    let (topic, brand) = (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap());
    let link = |n: usize| Link {
        purpose: Purpose::Unsubscribe,
        address_hash: AddressHash(n.to_be_bytes().repeat(4)),
        recipient: RecipientId::new(),
        brand: BrandId(brand),
        topic: TopicId(topic),
        delivery: DeliveryId::new(),
        made_at: Timestamp::now(),
    };
    (0..count).map(|n| format!("/u/{}", link(n).to_token(&tidings.app().link_keys))).collect()
}

/// A link that looks like one and was never made.
fn forged(link: &str, n: usize) -> String {
    let (start, end) = link.split_at(link.len() - 8);
    format!("{start}{:0>8}", n % 10_000_000).replace(end, "AAAAAAAA")
}

on_both! {
    async fn h4_five_thousand_clicks_from_one_address_are_taken_among_ten_thousand_forged_ones(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let links = links(&tidings, VALID).await;
        let [unknown, limited] = [const { AtomicUsize::new(0) }; 2];
        stream::iter(0..VALID + FORGED)
            .for_each_concurrent(AT_A_TIME, async |n| {
                let link = &links[n / 3];
                if n % 3 == 0 {
                    tidings.one_click(link).await.is(200);
                    return;
                }
                let answer = tidings.one_click(&forged(link, n)).await;
                match answer.status.as_u16() {
                    404 => unknown.fetch_add(1, Ordering::Relaxed),
                    429 => {
                        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{answer:?}");
                        limited.fetch_add(1, Ordering::Relaxed)
                    }
                    status => panic!("{status}: {answer:?}"),
                };
            })
            .await;
        let [unknown, limited] = [unknown, limited].map(AtomicUsize::into_inner);
        assert!(unknown >= BURST as usize && limited > FORGED / 2, "404: {unknown}, 429: {limited}");
        let counted = Answer::of(tidings.request(Method::GET, "/metrics")).await.text;
        assert!(counted.contains("tidings_wrong_guesses_total{what=\"link\",limited=\"true\"}"), "{counted}");
        tidings.stop().await;
    }
}

/// Sends wrong links in the name of this client until one is limited; gives that answer.
async fn until_limited(tidings: &Tidings, forwarded_for: &str) -> Answer {
    for n in 0..10 * BURST {
        let request = tidings.anonymous().request(Method::GET, &format!("/u/wrong{n}"));
        let answer = Answer::of(request.header("x-forwarded-for", forwarded_for)).await;
        if answer.status != 404 {
            return answer;
        }
    }
    panic!("{forwarded_for} is never limited");
}

async fn one_more(tidings: &Tidings, forwarded_for: &str) -> u16 {
    let request =
        tidings.anonymous().request(Method::GET, "/u/wrong").header("x-forwarded-for", forwarded_for);
    Answer::of(request).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_a_trusted_proxy_tells_clients_apart_and_nobody_else_does() {
    let trusting = Tidings::start_with(Database::sqlite(), |settings| {
        settings.trusted_proxies = vec![IpAddr::from([127, 0, 0, 1]).into(), "10.0.0.0/8".parse().unwrap()];
    })
    .await;
    until_limited(&trusting, "198.51.100.1").await.is(429);
    // Whatever stands left of the address that the proxy saw is the client's own invention.
    assert_eq!(one_more(&trusting, "203.0.113.200, 198.51.100.1, 10.1.2.3").await, 429);
    assert_eq!(one_more(&trusting, "198.51.100.2").await, 404);
    until_limited(&trusting, "2001:db8:7:7::1").await.is(429);
    assert_eq!(one_more(&trusting, "2001:db8:7:7:ffff::2").await, 429);
    assert_eq!(one_more(&trusting, "2001:db8:7:8::1").await, 404);
    trusting.stop().await;

    let trusting_nobody = Tidings::start_web(Database::sqlite()).await;
    until_limited(&trusting_nobody, "198.51.100.1").await.is(429);
    assert_eq!(one_more(&trusting_nobody, "198.51.100.2").await, 429);
    trusting_nobody.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_whoever_is_limited_is_told_when_to_come_again_in_what_they_asked_for() {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    let link = links(&tidings, 1).await.remove(0);
    let page = until_limited(&tidings, "").await;
    assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
    assert!(page.text.len() < 8 * 1024 && page.text.contains("<h1"), "{}", page.text);
    assert_eq!(page.header("cache-control"), "no-store");
    let wrong = tidings.anonymous().request(Method::POST, "/u/wrong").header("accept", "application/json");
    let problem = Answer::of(wrong).await;
    assert_eq!(problem.problem(429)["type"], "/problems/too-many");
    assert!(problem.header("retry-after").parse::<u64>().unwrap() >= 1);
    // What verifies, or asks nothing of the link, is served all the same.
    tidings.page(&link).await.is(200);
    tidings.one_click(&link).await.is(200);
    Answer::of(tidings.anonymous().request(Method::OPTIONS, "/u/wrong")).await.is(204);
    tidings.get("/brands").await.is(200);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_wrong_keys_are_limited_and_a_right_one_is_taken_from_the_same_address() {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    let mut first_limited = None;
    for n in 0..10 * BURST {
        let key = if n % 2 == 0 { format!("tk_0123456789_{n}") } else { format!("wrong{n}") };
        let answer = tidings.with_key(&key).get("/brands").await;
        if answer.status != 401 {
            first_limited = Some(answer);
            break;
        }
    }
    let limited = first_limited.expect("wrong keys are never limited");
    assert_eq!(limited.problem(429)["type"], "/problems/too-many");
    assert!(limited.header("retry-after").parse::<u64>().unwrap() >= 1);
    // No key at all is no guess.
    tidings.anonymous().get("/brands").await.is(401);
    tidings.get("/brands").await.is(200);
    tidings
        .put("/brands/acme", json!({ "name": "A", "from": "A <a@a.example>", "postal_address": "1" }))
        .await
        .ok();
    tidings.stop().await;
}
