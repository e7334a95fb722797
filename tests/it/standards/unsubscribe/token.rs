//! U8, U14: what a link says, for how long, and that nobody else can write one.

use std::collections::HashSet;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use tidings::link::KeyRing;

use super::super::provider::{self, OneClick, Reply, Request, person, public};
use super::{decision, rows_about_people};
use crate::harness::{Database, LINK_KEYS, Tidings};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Sends a forged link as somebody from another address each time, so that no limit on guessing answers in place of the
/// page.
async fn try_forged(tidings: &Tidings, n: usize, method: &'static str, token: &str) -> Reply {
    let from = format!("X-Forwarded-For: 10.{}.{}.7", n / 256 % 256, n % 256);
    let mut request = Request::one_click("forged").with(&[&from]);
    request.method = method;
    request.send(tidings, &format!("/u/{token}")).await
}

/// Every token one change away from this one, and some that are further.
fn changed(token: &str) -> HashSet<String> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut changed = HashSet::new();
    for at in 0..token.len() {
        let (start, rest) = token.split_at(at);
        let (this, rest) = (rest.as_bytes()[0], &rest[1..]);
        let place = ALPHABET.iter().position(|&letter| letter == this).unwrap();
        // The lowest bit, the highest one, a neighbour.
        for other in [place ^ 1, place ^ 32, (place + 7) % 64] {
            changed.insert(format!("{start}{}{rest}", ALPHABET[other] as char));
        }
        let flipped =
            if this.is_ascii_uppercase() { this.to_ascii_lowercase() } else { this.to_ascii_uppercase() };
        changed.insert(format!("{start}{}{rest}", flipped as char));
        changed.insert(format!("{start}.{}{rest}", this as char));
        changed.insert(format!("{start}{rest}"));
        changed.insert(start.to_owned());
        changed.insert(token[at..].to_owned());
    }
    for more in ["A", "AAAA", "-", "_", "%20A", "A="] {
        changed.insert(format!("{token}{more}"));
        changed.insert(format!("{more}{token}"));
    }
    // Behind a token they are forgiven, as what a mail program hung on to it.
    for more in ["%00", "+", "é", "%C3%A9"] {
        changed.insert(format!("{more}{token}"));
    }
    changed.insert(format!("{token}{token}"));
    changed.insert(token.to_uppercase());
    changed.insert(token.to_lowercase());
    changed.insert(token.chars().rev().collect());
    changed.insert(token.replace(['-', '_'], "+"));
    changed.remove(token);
    changed.remove("");
    changed
}

on_both! {
    async fn u8_a_token_changed_in_any_place_is_refused_with_one_page_and_changes_nothing(database: Database) {
        let proxied = |settings: &mut tidings::config::Settings| {
            public(settings);
            settings.trusted_proxies = vec!["127.0.0.0/8".parse::<IpNet>().unwrap()];
        };
        let tidings = Tidings::start_with(database, proxied).await;
        tidings.ready_to_send().await;
        tidings.brand_with_every_class("bee").await;
        tidings.recipients(2).await;
        // Two people, two topics, two brands; four tokens that hold.
        let mut links = Vec::new();
        for (brand, topic, n) in [("acme", "marketing", 0), ("acme", "marketing", 1), ("acme", "reminder", 0), ("bee", "marketing", 0)] {
            links.push(OneClick::of(&tidings.mail_of(brand, topic, &person(n)).await).token().to_owned());
        }
        let mut forged = changed(&links[0]);
        for one in &links {
            for other in &links {
                // Parts of one with parts of another, cut at every fourth letter: where octets and fields begin.
                for at in (4..one.len().min(other.len())).step_by(4) {
                    forged.insert(format!("{}{}", &one[..at], &other[at..]));
                    forged.insert(format!("{}{}{}", &one[..at - 4], &other[at - 4..at], &one[at..]));
                }
            }
        }
        for link in &links {
            forged.remove(link);
        }
        let before = rows_about_people(&tidings).await;
        let fixed = try_forged(&tidings, 0, "GET", "nobody").await;
        assert!(fixed.body.len() <= 1024, "{} octets", fixed.body.len());
        for (n, token) in forged.iter().enumerate() {
            for method in if n % 10 == 0 { &["POST", "GET"][..] } else { &["POST"][..] } {
                let reply = try_forged(&tidings, n, method, token).await;
                assert_eq!(reply.status, 404, "{token}");
                assert_eq!(reply.body, fixed.body, "{token}");
                assert_eq!(reply.lasting_headers(), fixed.lasting_headers(), "{token}");
            }
        }
        assert_eq!(rows_about_people(&tidings).await, before);
        // All four still hold, each for its own person, brand and topic; padding at the end says nothing else.
        for (link, padding) in links.iter().zip(["", "=", "==", "%3D"]) {
            Request::one_click("unchanged").send(&tidings, &format!("/u/{link}{padding}")).await.honours_a_click(padding);
        }
        tidings.stop().await;
    }

    async fn u14_links_work_after_61_days_and_2_years_and_3_rotations_until_their_key_is_revoked(database: Database) {
        let mut tidings = provider::start(database).await;
        tidings.recipients(4).await;
        tidings.send_to_all("acme", "marketing").await;
        let mut links = Vec::new();
        for n in 0..4 {
            links.push(OneClick::of(&tidings.smtp.wait_for_message_to(&person(n)).await));
        }
        let click = async |tidings: &Tidings, n: usize| {
            let page = Request::bare("GET", "page").send(tidings, links[n].path()).await;
            let reply = Request::one_click("late").send(tidings, links[n].path()).await;
            assert_eq!(page.status, reply.status);
            reply
        };
        tidings.advance(61 * DAY);
        click(&tidings, 0).await.honours_a_click("after 61 days");
        assert_eq!(decision(&tidings, "acme", "marketing", &person(0)).await, "suppress");
        tidings.advance(2 * 365 * DAY);
        click(&tidings, 1).await.honours_a_click("after two years");
        assert_eq!(decision(&tidings, "acme", "marketing", &person(1)).await, "suppress");
        let mut ring = LINK_KEYS.to_owned();
        for _ in 0..3 {
            ring = format!("{},{ring}", KeyRing::new_key());
            let keys = SecretString::from(ring.clone());
            tidings.restart_with(|settings| settings.link_keys = Some(keys)).await;
        }
        click(&tidings, 2).await.honours_a_click("after three rotations");
        assert_eq!(decision(&tidings, "acme", "marketing", &person(2)).await, "suppress");
        // A key that fell into other hands is taken out of the ring: its links are worth nothing from then on.
        let without = ring.rsplit_once(',').unwrap().0.to_owned();
        tidings.restart_with(|settings| settings.link_keys = Some(SecretString::from(without))).await;
        let before = rows_about_people(&tidings).await;
        assert_eq!(click(&tidings, 3).await.status, 404);
        assert_eq!(rows_about_people(&tidings).await, before);
        assert_eq!(decision(&tidings, "acme", "marketing", &person(3)).await, "send");
        tidings.stop().await;
    }
}
