//! U11, U12, U13, U19, U21: what was said once stays said.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tidings::clock::Timestamp;
use tidings::serve::Parts;

use super::super::provider::{self, HOST, OneClick, Request, person};
use super::{decision, rows_about_people};
use crate::harness::{Act, Database, Process, SmtpServer, Stage, Tidings};
use crate::promises::{Store, count, make_ready};

/// A click opts out of the topic alone: one click, one event.
async fn stop_the_topic_alone(tidings: &Tidings) {
    let brand = json!({
        "name": "ACME", "from": "acme <news@acme.example.com>", "postal_address": "1 Main Street", "one_click_scope": "topic",
    });
    tidings.put("/brands/acme", brand).await.ok();
}

on_both! {
    async fn u11_fifty_clicks_at_once_are_one_event_and_later_ones_keep_the_time_of_the_first(database: Database) {
        let tidings = provider::start(database).await;
        stop_the_topic_alone(&tidings).await;
        tidings.recipients(1).await;
        let link = OneClick::of(&tidings.mail_of("acme", "marketing", &person(0)).await);
        let click = Request::one_click("one of fifty").with(&["Accept: application/json"]);
        let replies = join_all((0..50).map(|_| click.send(&tidings, link.path()))).await;
        let mut first = None;
        for reply in replies {
            reply.honours_a_click("one of fifty");
            let said: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            let event = (said["id"].clone(), said["recorded_at"].clone());
            assert_eq!(*first.get_or_insert_with(|| event.clone()), event);
        }
        assert_eq!(count(&tidings, "opt_events").await, 1);
        tidings.advance(Duration::from_secs(24 * 3600));
        let later = click.send(&tidings, link.path()).await;
        let later: serde_json::Value = serde_json::from_slice(&later.body).unwrap();
        assert_eq!((later["id"].clone(), later["recorded_at"].clone()), first.unwrap());
        assert_eq!(count(&tidings, "opt_events").await, 1);
        tidings.stop().await;
    }

    async fn u12_a_click_that_was_answered_is_there_after_a_kill_and_one_that_cannot_be_kept_is_no_success(database: Database) {
        let smtp = SmtpServer::start().await;
        let (relay, base) = (smtp.url(), format!("https://{HOST}"));
        let env = [("TIDINGS_RELAY_URL", relay.as_str()), ("TIDINGS_BASE_URL", base.as_str())];
        let mut process = Process::serve(&database, &[], &env).await;
        make_ready(&process.api).await;
        let mut links = Vec::new();
        for n in 0..4 {
            let message = json!({ "brand": "acme", "topic": "offers", "to": { "email": person(n) }, "template": "hello" });
            process.api.post("/messages", message).await.ok();
            links.push(OneClick::of(&smtp.wait_for_message_to(&person(n)).await));
        }
        let decision = async |process: &Process, n: usize| {
            process.api.get(&format!("/explain?email={}&brand=acme&topic=offers", person(n))).await.ok()["decision"].clone()
        };
        for (n, link) in links.iter().take(3).enumerate() {
            Request::one_click("before a kill").send(&process.api, link.path()).await.honours_a_click("before a kill");
            process.kill();
            process = Process::serve(&database, &[], &env).await;
            for earlier in 0..=n {
                assert_eq!(decision(&process, earlier).await, "suppress", "person {earlier} after kill {n}");
            }
        }
        let store = Store::take_away(&database).await;
        let reply = Request::one_click("without a store").send(&process.api, links[3].path()).await;
        assert_eq!(reply.status, 503, "{}", reply.head);
        store.give_back().await;
        crate::harness::wait_until("the store to be there again", async || {
            Request::one_click("again").send(&process.api, links[3].path()).await.status == 200
        })
        .await;
        assert_eq!(decision(&process, 3).await, "suppress");
        assert!(process.terminate().await.success());
    }

    async fn u13_a_click_stops_what_was_queued_deferred_or_scheduled_before_with_every_worker(database: Database) {
        const PEOPLE: usize = 200;
        const DEFERRED: usize = 3;
        let tidings = provider::start(database).await;
        let mut others = Vec::new();
        for _ in 0..2 {
            others.push(tidings.another(Parts { web: false, ..Parts::default() }).await);
        }
        tidings.recipients(PEOPLE).await;
        let mut links = Vec::new();
        tidings.send_to_all("acme", "reminder").await;
        for n in 0..PEOPLE {
            links.push(OneClick::of(&tidings.smtp.messages_to(&person(n))[0]));
        }
        // Deferred before the click, scheduled before it, queued before it.
        for n in 0..DEFERRED {
            tidings.smtp.on(Stage::Rcpt, Act::reply(451, "4.3.0 later")).to(&person(n)).once();
        }
        let now = tidings.app().db.read_clock(tidings.app().db.reads()).await.unwrap();
        let at = Timestamp(now.0 + 3_600_000_000).to_string();
        let scheduled = json!({
            "brand": "acme", "topic": "relationship", "template": "hello", "audience": { "all": true }, "send_at": at,
        });
        let scheduled = tidings.post("/campaigns", scheduled).await.id();
        tidings.post_empty(&format!("/campaigns/{scheduled}/start")).await.ok();
        let campaign = tidings.draft("acme", "marketing").await;
        tidings.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        tidings.relay_has(PEOPLE + 10).await;

        let mut answered = Vec::new();
        for n in (0..DEFERRED).chain((DEFERRED..PEOPLE).rev().step_by(9)) {
            Request::one_click("mid-run").send(&tidings, links[n].path()).await.honours_a_click("mid-run");
            answered.push((person(n), Instant::now()));
        }
        tidings.advance(Duration::from_secs(2 * 3600));
        let finished = tidings.finished(&campaign).await;
        let later = tidings.finished(&scheduled).await;
        assert!(finished["counts"]["suppressed"].as_u64().unwrap() > 0, "too late to stop any: {finished}");
        assert_eq!(later["counts"]["suppressed"], answered.len(), "{later}");
        let transactions = tidings.smtp.transactions();
        for (email, at) in answered {
            let late = transactions.iter().filter(|t| t.recipient() == email && t.data_at.is_some_and(|data| data > at));
            assert_eq!(late.count(), 0, "DATA began after the answer");
        }
        for other in others {
            other.stop().await;
        }
        tidings.stop().await;
    }

    async fn u19_each_way_of_opting_out_leaves_its_evidence(database: Database) {
        let tidings = provider::start(database).await;
        stop_the_topic_alone(&tidings).await;
        tidings.recipients(2).await;
        let before = tidings.app().db.read_clock(tidings.app().db.reads()).await.unwrap();
        let mut expected = Vec::new();
        for (n, channel) in ["one_click", "page"].into_iter().enumerate() {
            let message = tidings.message("acme", "marketing", &person(n)).await;
            let link = OneClick::of(&tidings.smtp.wait_for_message_to(&person(n)).await);
            let form = if channel == "page" { "page=1" } else { provider::ONE_CLICK };
            Request::post(channel, provider::URLENCODED, form).send(&tidings, link.path()).await.honours_a_click(channel);
            expected.push((person(n), channel, Some(message), "link"));
        }
        for channel in ["phone", "letter", "email", "in_person", "api"] {
            let email = format!("{channel}@people.example.com");
            let scope = json!({ "brand": "acme", "topic": "marketing" });
            let asked = json!({ "email": email, "scope": scope, "channel": channel, "note": "line 7", "requested_at": "2026-01-02T03:04:05Z" });
            tidings.post("/opt-outs", asked).await.is(201);
            expected.push((email, channel, None, ""));
        }
        let list = "address,scope,time\nimport@people.example.com,topic:acme/marketing,2026-01-02T03:04:05Z\n";
        let report = tidings.post_text("/opt-outs/import", "text/csv", list).await.ok();
        assert_eq!(report["rejected"], 0, "{report}");
        expected.push(("import@people.example.com".to_owned(), "import", None, ""));
        for (email, channel, message, actor) in expected {
            let said = tidings.get(&format!("/opt-outs?email={email}")).await.ok();
            let event = &said["items"][0];
            assert_eq!(said["items"].as_array().unwrap().len(), 1, "{said}");
            assert_eq!(event["channel"], channel, "{said}");
            assert_eq!(event["scope"], json!({ "brand": "acme", "topic": "marketing" }), "{said}");
            let at: Timestamp = event["recorded_at"].as_str().unwrap().parse().unwrap();
            assert!(at >= before, "{said}");
            assert!(event["recorded_by"].as_str().is_some_and(|by| !by.is_empty() && (actor.is_empty() || by == actor)), "{said}");
            if let Some(message) = message {
                // The message leads to when it was sent, and so to how long after that the click came.
                assert_eq!(event["delivery"], message, "{said}");
                let sent = tidings.get(&format!("/messages/{message}")).await.ok();
                let begun: Timestamp = sent["attempts"][0]["begun_at"].as_str().unwrap().parse().unwrap();
                assert!(before <= begun && begun <= at, "{sent}");
            }
        }
        tidings.stop().await;
    }

    async fn u21_neither_import_nor_upsert_nor_a_line_of_a_campaign_lifts_an_opt_out(database: Database) {
        let tidings = provider::start(database).await;
        tidings.recipients(1).await;
        let link = OneClick::of(&tidings.mail_of("acme", "marketing", &person(0)).await);
        Request::one_click("once").send(&tidings, link.path()).await.honours_a_click("once");
        let events = count(&tidings, "opt_events").await;
        let email = person(0);
        for csv in [format!("email,name\n{email},Again\n"), format!("email,tags\n{},vip;subscribed\n", email.to_uppercase())] {
            let report = tidings.post_text("/recipients/import", "text/csv", csv).await.ok();
            assert_eq!(report["rejected"], 0, "{report}");
        }
        let upsert = json!({ "email": email, "brands": ["acme"], "customer_of": ["acme"], "tags": ["subscribed"], "attributes": { "consent": "yes" } });
        tidings.post("/recipients", upsert).await.ok();
        let draft = json!({ "brand": "acme", "topic": "marketing", "template": "hello" });
        let campaign = tidings.post("/campaigns", draft).await.id();
        tidings.post_text(&format!("/campaigns/{campaign}/recipients"), "text/csv", format!("email\n{email}\n")).await.ok();
        tidings.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        let finished = tidings.finished(&campaign).await;
        assert_eq!(finished["counts"]["suppressed"], 1, "the campaign says so: {finished}");
        assert_eq!(decision(&tidings, "acme", "marketing", &email).await, "suppress");
        assert_eq!(count(&tidings, "opt_events").await, events);
        assert_eq!(tidings.smtp.messages_to(&email).len(), 1);
        // Only the person's own act does, on the page of their link.
        tidings.submit(link.path(), &[("page", "1"), ("undo", "1")]).await.is(200);
        assert_eq!(decision(&tidings, "acme", "marketing", &email).await, "send");
        let rows = rows_about_people(&tidings).await;
        assert!(rows.iter().any(|(table, n)| *table == "opt_events" && *n > events), "the undo is an event too: {rows:?}");
        tidings.stop().await;
    }
}
