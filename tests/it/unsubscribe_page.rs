//! The page and endpoint behind the unsubscribe link, as mailbox providers, scanners and annoyed people use them.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tidings::address::EmailAddress;
use tidings::brand;
use tidings::clock::Timestamp;
use tidings::id::{DeliveryId, RecipientId};
use tidings::link::{Link, Purpose};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Answer, Database, Tidings};

pub(crate) const ADA: &str = "ada.lovelace@example.org";

/// A web service with brand `acme`, a topic of every class, and Ada.
pub(crate) async fn set_up(database: Database) -> Tidings {
    let tidings = Tidings::start_web(database).await;
    tidings.brand_with_every_class("acme").await;
    tidings.recipient(ADA).await;
    tidings
}

/// What a message of this topic to this address would carry, made `ago`.
pub(crate) async fn link_made(tidings: &Tidings, topic: &str, email: &str, ago: Duration) -> Link {
    let app = tidings.app();
    let on = app.db.reads();
    let brand = brand::rows::find(on, "acme").await.unwrap().unwrap();
    let topic = brand::rows::find_topic(on, brand.id, topic).await.unwrap().unwrap();
    let now = app.db.read_clock(on).await.unwrap();
    Link {
        purpose: Purpose::Unsubscribe,
        address_hash: app.address_key.hash(&EmailAddress::parse(email).unwrap()),
        recipient: RecipientId::new(),
        brand: brand.id,
        topic: topic.id,
        delivery: DeliveryId::new(),
        made_at: Timestamp(now.0 - i64::try_from(ago.as_micros()).unwrap()),
    }
}

/// The path of a fresh unsubscribe link.
pub(crate) async fn path(tidings: &Tidings, topic: &str, email: &str) -> String {
    let link = link_made(tidings, topic, email, Duration::from_secs(60)).await;
    format!("/u/{}", link.to_token(&tidings.app().link_keys))
}

/// What stands and what was ever said.
pub(crate) async fn said(tidings: &Tidings, email: &str) -> Value {
    tidings.get(&format!("/opt-outs?email={email}")).await.ok()
}

/// How many things were ever said.
pub(crate) async fn events(tidings: &Tidings, email: &str) -> usize {
    said(tidings, email).await["items"].as_array().unwrap().len()
}

/// `send` or `suppress`.
pub(crate) async fn decision(tidings: &Tidings, topic: &str, email: &str) -> String {
    let explained = tidings.get(&format!("/explain?email={email}&brand=acme&topic={topic}")).await.ok();
    explained["decision"].as_str().unwrap().to_owned()
}

/// Writes octets to the server and reads what it answers until it hangs up.
pub(crate) async fn raw(tidings: &Tidings, octets: &[u8]) -> String {
    let address = tidings.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(octets).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn post_raw(tidings: &Tidings, path: &str, headers: &str, body: &str) -> String {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}");
    raw(tidings, format!("{head}\r\n{body}").as_bytes()).await
}

fn with_length(content_type: &str, body: &str) -> String {
    format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len())
}

fn multipart(boundary: &str, part_header: &str) -> String {
    format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n{part_header}\r\nOne-Click\r\n--{boundary}--\r\n"
    )
}

on_both! {
    async fn a_providers_post_unsubscribes_in_every_form_it_takes_with_nothing_but_host_type_and_length(database: Database) {
        let tidings = set_up(database).await;
        let click = "List-Unsubscribe=One-Click";
        let preamble = format!("Nothing to see here.\r\n{}", multipart("b1", ""));
        let typed = multipart("b1", "Content-Type: text/plain; charset=us-ascii\r\n");
        let urlencoded = "application/x-www-form-urlencoded";
        let chunked = "Content-Type: multipart/form-data; boundary=b1\r\nTransfer-Encoding: chunked\r\n".to_owned();
        let pieces: String = multipart("b1", "")
            .as_bytes()
            .chunks(7)
            .map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap()))
            .collect();
        let forms = [
            (with_length(urlencoded, click), click.to_owned()),
            (with_length("application/x-www-form-urlencoded; charset=UTF-8", click), click.to_owned()),
            (with_length("multipart/form-data; boundary=b1", &multipart("b1", "")), multipart("b1", "")),
            (with_length("multipart/form-data; boundary=\"b 1\"", &multipart("b 1", "")), multipart("b 1", "")),
            (with_length("multipart/form-data; charset=utf-8; boundary=b1", &typed), typed.clone()),
            (with_length("multipart/form-data; boundary=b1", &preamble), preamble.clone()),
            (chunked, format!("{pieces}0\r\n\r\n")),
            ("Origin: null\r\nSec-Fetch-Site: cross-site\r\n".to_owned() + &with_length(urlencoded, click), click.to_owned()),
        ];
        for (n, (headers, body)) in forms.into_iter().enumerate() {
            let email = format!("p{n}@example.org");
            let path = path(&tidings, "marketing", &email).await;
            let answer = post_raw(&tidings, &path, &headers, &body).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{headers}{answer}");
            let lower = answer.to_ascii_lowercase();
            assert!(!lower.contains("\r\nset-cookie:") && !lower.contains("\r\nlocation:"), "{answer}");
            assert_eq!(decision(&tidings, "marketing", &email).await, "suppress", "{headers}");
            assert_eq!(said(&tidings, &email).await["items"][0]["channel"], "one_click", "{headers}");
        }
        tidings.stop().await;
    }

    async fn an_odd_body_still_unsubscribes_and_one_that_is_too_large_is_413(database: Database) {
        let tidings = set_up(database).await;
        let long = "x".repeat(60_000);
        let odd: [(&str, &[u8]); 8] = [
            ("", b""),
            ("application/x-www-form-urlencoded", b"list-unsubscribe=one-click"),
            ("application/x-www-form-urlencoded", b"a=1&b=2&List-Unsubscribe=One-Click&scope=nonsense"),
            ("application/json", b"{\"scope\":"),
            ("multipart/form-data", b"--"),
            ("multipart/form-data; boundary=", b"\r\n\r\n"),
            ("text/", b"\xff\xfe\x00"),
            ("text/plain", long.as_bytes()),
        ];
        for (n, (content_type, body)) in odd.into_iter().enumerate() {
            let email = format!("p{n}@example.org");
            let path = path(&tidings, "marketing", &email).await;
            let mut request = tidings.anonymous().request(Method::POST, &path).body(body.to_vec());
            if !content_type.is_empty() {
                request = request.header("content-type", content_type);
            }
            Answer::of(request).await.is(200);
            assert_eq!(decision(&tidings, "reminder", &email).await, "suppress", "{content_type}");
        }
        let path = path(&tidings, "marketing", ADA).await;
        let large = |body: reqwest::Body| tidings.anonymous().request(Method::POST, &path).body(body);
        Answer::of(large(vec![b'x'; 70_000].into())).await.is(413);
        let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", 70_000, "x".repeat(70_000));
        let answer = post_raw(&tidings, &path, "Transfer-Encoding: chunked\r\n", &body).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert_eq!(events(&tidings, ADA).await, 0);
        tidings.stop().await;
    }

    async fn scanners_that_follow_every_link_change_nothing_about_a_person(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "marketing", ADA).await;
        let methods = [Method::GET, Method::HEAD, Method::OPTIONS];
        let mut pages = Vec::new();
        for method in methods.iter().cycle().take(99) {
            let request = tidings.anonymous().request(method.clone(), &path);
            let request = request.header("purpose", "prefetch").header("user-agent", "BarracudaCentral/1.0 scanner");
            pages.push(Answer::of(request).await);
        }
        let (get, head) = (&pages[0], &pages[1]);
        get.is(200);
        head.is(200);
        pages[2].is(204);
        assert!(head.text.is_empty());
        for name in ["content-type", "content-security-policy", "cache-control", "content-length"] {
            assert_eq!(get.header(name), head.header(name), "{name}");
        }
        assert_eq!(events(&tidings, ADA).await, 0);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
        tidings.stop().await;
    }

    async fn fifty_clicks_at_once_are_one_record_and_fifty_successes(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "marketing", ADA).await;
        let clicks = join_all((0..50).map(|_| tidings.one_click(&path))).await;
        for click in clicks {
            click.is(200);
        }
        let said = said(&tidings, ADA).await;
        // Everything, and the topic of the message besides.
        assert_eq!(said["items"].as_array().unwrap().len(), 2, "{said}");
        tidings.stop().await;
    }

    async fn the_page_names_the_masked_address_the_brand_and_the_topic_and_has_one_button(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "marketing", ADA).await;
        let page = tidings.page(&path).await;
        page.is(200);
        for named in ["a…e@e….org", "ACME", "MARKETING"] {
            assert!(page.text.contains(named), "{named}: {}", page.text);
        }
        assert_eq!(page.text.matches("<button").count(), 1);
        assert!(!page.text.contains(ADA) && !page.text.contains("<script") && !page.text.contains("http"));
        // Somebody of whom nothing is known any more gets the page too.
        let stranger = self::path(&tidings, "marketing", "gone@example.org").await;
        let page = tidings.page(&stranger).await;
        page.is(200);
        assert!(page.text.contains("MARKETING") && page.text.contains("<button"), "{}", page.text);
        tidings.stop().await;
    }

    async fn every_answer_carries_the_headers_of_a_page_behind_a_token(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "marketing", ADA).await;
        let anonymous = tidings.anonymous();
        let json = anonymous.request(Method::POST, &path).header("accept", "application/json");
        let answers = [
            (200, Answer::of(anonymous.request(Method::GET, &path)).await),
            (200, tidings.one_click(&path).await),
            (200, Answer::of(json).await),
            (204, Answer::of(anonymous.request(Method::OPTIONS, &path)).await),
            (404, tidings.page("/u/nothing").await),
            (405, Answer::of(anonymous.request(Method::DELETE, &path)).await),
            (405, Answer::of(anonymous.request(Method::PUT, &path)).await),
            (413, Answer::of(anonymous.request(Method::POST, &path).body(vec![b'x'; 70_000])).await),
        ];
        for (status, answer) in answers {
            answer.is(status);
            assert_eq!(answer.header("cache-control"), "no-store", "{status}");
            assert_eq!(answer.header("referrer-policy"), "no-referrer", "{status}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{status}");
            assert_eq!(answer.header("x-robots-tag"), "noindex", "{status}");
            let policy = answer.header("content-security-policy");
            for part in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
                assert!(policy.contains(part), "{status}: {policy}");
            }
            assert_eq!(answer.header("set-cookie"), "", "{status}");
            assert_eq!(answer.header("location"), "", "{status}");
            if status == 405 || status == 204 {
                assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS, POST", "{status}");
            }
        }
        tidings.stop().await;
    }

    async fn a_token_that_does_not_verify_is_one_page_for_every_cause(database: Database) {
        let tidings = set_up(database).await;
        let link = link_made(&tidings, "marketing", ADA, Duration::ZERO).await;
        let token = link.to_token(&tidings.app().link_keys);
        let preferences = Link { purpose: Purpose::Preferences, ..link }.to_token(&tidings.app().link_keys);
        let mut wrong = vec![
            "x".to_owned(),
            "A".repeat(5000),
            "%00".to_owned(),
            "%FF%FE".to_owned(),
            token[..token.len() - 4].to_owned(),
            format!("{token}AAAA"),
            token.to_uppercase(),
            preferences,
        ];
        for at in (0..token.len()).step_by(5) {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            wrong.push(String::from_utf8(changed).unwrap());
        }
        let first = tidings.page("/u/x").await;
        assert!(first.text.len() <= 1024, "{} octets", first.text.len());
        for token in wrong {
            for method in [Method::GET, Method::POST] {
                let answer = Answer::of(tidings.anonymous().request(method, &format!("/u/{token}"))).await;
                answer.is(404);
                assert_eq!(answer.text, first.text, "{token}");
            }
        }
        assert_eq!(events(&tidings, ADA).await, 0);
        tidings.stop().await;
    }

    async fn what_mail_programs_do_to_links_is_forgiven(database: Database) {
        let tidings = set_up(database).await;
        for (n, end) in [">", ".", "%3D", "=", "%3E", "/", "?utm_source=mail&x=y", "?a=b&amp;c=d", ").", "%22"].iter().enumerate() {
            let email = format!("p{n}@example.org");
            let mangled = format!("{}{end}", path(&tidings, "marketing", &email).await);
            assert_eq!(tidings.page(&mangled).await.status.as_u16(), 200, "{end}");
            tidings.one_click(&mangled).await.is(200);
            assert_eq!(decision(&tidings, "marketing", &email).await, "suppress", "{end}");
        }
        tidings.stop().await;
    }

    async fn a_click_stops_what_the_brand_says_and_always_the_topic_of_the_message(database: Database) {
        let tidings = set_up(database).await;
        tidings.brand("bee").await;
        tidings.topic("bee", "marketing", "marketing").await;
        tidings.topic_with("acme", "kept", json!({ "class": "relationship", "customers_keep": true })).await;
        let customer = json!({ "email": ADA, "customer_of": ["acme"] });
        tidings.post("/recipients", customer).await.ok();
        let elsewhere = async |email: &str| {
            tidings.get(&format!("/explain?email={email}&brand=bee&topic=marketing")).await.ok()["decision"].clone()
        };
        // Everywhere, unless the brand says otherwise; a customer keeps what customers keep.
        tidings.one_click(&path(&tidings, "marketing", ADA).await).await.is(200);
        assert_eq!(elsewhere(ADA).await, "suppress");
        assert_eq!(decision(&tidings, "kept", ADA).await, "send");
        assert_eq!(decision(&tidings, "service", ADA).await, "send");
        // Through such a message itself it stops.
        let page = tidings.submit(&path(&tidings, "kept", ADA).await, &[]).await;
        page.is(200);
        assert_eq!(decision(&tidings, "kept", ADA).await, "suppress");
        for (scope, others, far) in [("brand", "suppress", "send"), ("topic", "send", "send")] {
            let email = format!("{scope}@example.org");
            let body = json!({
                "name": "ACME", "from": "acme <news@acme.example.com>", "postal_address": "1 Main Street",
                "one_click_scope": scope,
            });
            tidings.put("/brands/acme", body).await.ok();
            tidings.one_click(&path(&tidings, "marketing", &email).await).await.is(200);
            assert_eq!(decision(&tidings, "marketing", &email).await, "suppress");
            assert_eq!(decision(&tidings, "reminder", &email).await, others);
            assert_eq!(elsewhere(&email).await, far);
        }
        tidings.stop().await;
    }

    async fn the_done_page_offers_narrower_and_wider_scopes_and_the_undo(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "marketing", ADA).await;
        let done = tidings.submit(&path, &[("page", "1")]).await;
        done.is(200);
        assert!(done.text.contains("You are unsubscribed") && done.text.contains("What still comes"), "{}", done.text);
        assert_eq!(done.text.matches("<form").count(), 3, "{}", done.text);
        assert_eq!(said(&tidings, ADA).await["items"][0]["channel"], "page");
        // Narrower: what the button sends.
        tidings.submit(&path, &[("page", "1"), ("undo", "1"), ("scope", "topic")]).await.is(200);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
        assert_eq!(decision(&tidings, "reminder", ADA).await, "send");
        // Wider again.
        tidings.submit(&path, &[("page", "1"), ("scope", "brand")]).await.is(200);
        assert_eq!(decision(&tidings, "reminder", ADA).await, "suppress");
        // And back.
        let undone = tidings.submit(&path, &[("page", "1"), ("undo", "1")]).await;
        assert!(undone.is(200).text.contains(">Undone</h1>"), "{}", undone.text);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
        assert_eq!(said(&tidings, ADA).await["stands"], json!([]));
        // The same link works again after that, and a mail program's click takes nothing back.
        tidings.submit(&path, &[("List-Unsubscribe", "One-Click"), ("undo", "1")]).await.is(200);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
        tidings.stop().await;
    }

    async fn an_undo_takes_back_only_what_its_own_link_did(database: Database) {
        let tidings = set_up(database).await;
        let by_phone = json!({ "email": ADA, "scope": { "brand": "acme" }, "channel": "phone" });
        tidings.post("/opt-outs", by_phone).await.is(201);
        let path = path(&tidings, "marketing", ADA).await;
        tidings.submit(&path, &[("page", "1")]).await.is(200);
        let undone = tidings.submit(&path, &[("page", "1"), ("undo", "1")]).await;
        assert!(undone.is(200).text.contains("said no in another way"), "{}", undone.text);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
        let another = self::path(&tidings, "marketing", ADA).await;
        let nothing = tidings.submit(&another, &[("page", "1"), ("undo", "1")]).await;
        assert!(nothing.is(200).text.contains("Nothing has changed"), "{}", nothing.text);
        tidings.stop().await;
    }

    async fn a_program_that_asks_for_json_gets_the_answer_of_the_api(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "marketing", ADA).await;
        let ask = |form: &'static str| {
            let request = tidings.anonymous().request(Method::POST, &path).header("accept", "application/json");
            request.header("content-type", "application/x-www-form-urlencoded").body(form)
        };
        let answer = Answer::of(ask("List-Unsubscribe=One-Click")).await.is(200).json();
        assert_eq!(answer["scope"], "all");
        assert_eq!(answer["channel"], "one_click");
        assert_eq!(answer["settled"], true);
        assert_eq!(answer["in_flight"], json!([]));
        let again = Answer::of(ask("List-Unsubscribe=One-Click")).await.is(200).json();
        assert_eq!((&again["id"], &again["recorded_at"]), (&answer["id"], &answer["recorded_at"]));
        let undone = Answer::of(ask("undo=1")).await.is(200).json();
        assert_eq!(undone["taken_back"].as_array().unwrap().len(), 2, "{undone}");
        assert_eq!(undone["still_opted_out_of"], json!([]));
        tidings.stop().await;
    }

    async fn a_link_older_than_a_later_opt_in_opts_out_again_and_the_page_says_so(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "marketing", ADA).await;
        tidings.one_click(&path).await.is(200);
        let again = json!({ "email": ADA, "scope": "all", "evidence": "asked for it at the fair, form 12" });
        tidings.post("/opt-ins", again).await.is(201);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
        let page = tidings.page(&path).await;
        assert!(page.text.contains("signed up again on"), "{}", page.text);
        let done = tidings.submit(&path, &[("page", "1")]).await;
        assert!(done.is(200).text.contains("had signed up again on"), "{}", done.text);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
        tidings.stop().await;
    }

    async fn a_link_in_what_cannot_be_refused_asks_which_other_mail_is_wanted(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "notice", ADA).await;
        let page = tidings.page(&path).await;
        let at = |words: &str| page.text.find(words).unwrap_or_else(|| panic!("{words}: {}", page.text));
        assert!(page.is(200).text.contains("Which other mail do you want?") && !page.text.contains("Stop these messages?"));
        assert!(at("cannot be stopped, because") < at("What you can stop") && at("<bdi>MARKETING</bdi></li>") < at("<form"));
        assert!(!page.text.contains("<bdi>SERVICE</bdi></li>"), "{}", page.text);
        // The narrower choice first, and neither is left to a default.
        assert!(at("value=\"brand\"") < at("value=\"all\"") && page.text.matches("<button").count() == 2, "{}", page.text);
        let done = tidings.submit(&path, &[("page", "1"), ("scope", "brand")]).await;
        assert!(done.is(200).text.contains("cannot be refused") && !done.text.contains("Stop only"), "{}", done.text);
        assert_eq!((decision(&tidings, "marketing", ADA).await, decision(&tidings, "notice", ADA).await), ("suppress".into(), "send".into()));
        assert!(!said(&tidings, ADA).await["stands"].to_string().contains("\"all\""));
        let page = tidings.page(&path).await;
        assert!(page.text.contains("What has stopped") && !page.text.contains("What you can stop") && page.text.matches("<button").count() == 1, "{}", page.text);
        let undone = tidings.submit(&path, &[("page", "1"), ("undo", "1")]).await;
        assert!(undone.is(200).text.contains("name=\"scope\" value=\"brand\""), "{}", undone.text);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
        tidings.stop().await;
    }

    async fn a_link_from_the_service_side_works_and_says_what_still_comes(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "service", ADA).await;
        let done = tidings.one_click(&path).await;
        assert!(done.is(200).text.contains("cannot be refused"), "{}", done.text);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
        assert_eq!(decision(&tidings, "service", ADA).await, "send");
        tidings.stop().await;
    }
}
