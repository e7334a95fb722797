//! Campaigns from the draft to the last message.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use tidings::app::App;
use tidings::campaign::worker;
use tidings::serve::Parts;
use tidings::web::Role;

use crate::harness::{Act, Api, Database, Gate, Stage, Tidings, one_click_link, wait_until};
use crate::promises::sql;

const HOUR: Duration = Duration::from_secs(3600);

fn fields(topic: &str) -> Value {
    json!({ "brand": "acme", "topic": topic, "template": "hello" })
}

fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A draft with these fields besides; gives its path.
async fn draft(tidings: &Api, more: Value) -> String {
    format!("/campaigns/{}", tidings.post("/campaigns", with(fields("marketing"), more)).await.id())
}

async fn add(tidings: &Api, campaign: &str, lines: &str) -> Value {
    tidings.post_text(&format!("{campaign}/recipients"), "text/csv", lines.to_owned()).await.ok()
}

async fn act(tidings: &Api, campaign: &str, what: &str) -> Value {
    tidings.post_empty(&format!("{campaign}/{what}")).await.ok()
}

fn id_of(campaign: &str) -> &str {
    campaign.trim_start_matches("/campaigns/")
}

/// The counts of a campaign, after checking that they add up.
#[track_caller]
fn counts(campaign: &Value) -> Value {
    let counts = campaign["counts"].clone();
    let of = |name: &str| counts[name].as_u64().unwrap_or_else(|| panic!("no count of {name}: {counts}"));
    let parts = ["queued", "sending", "sent", "suppressed", "failed", "unknown", "expired", "cancelled"];
    assert_eq!(parts.into_iter().map(of).sum::<u64>(), of("total"), "{counts}");
    let reasons = campaign["suppressed_by"].as_object().unwrap();
    assert_eq!(reasons.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), of("suppressed"), "{campaign}");
    counts
}

fn in_an(hours: u32, tidings: &Tidings) -> String {
    tidings.clock().now().plus(HOUR * hours).to_string()
}

/// Proves that nothing more was sent: a service message overtakes whatever is due.
async fn nothing_else_is_sent(tidings: &Tidings, count: usize) {
    let probe = tidings.message("acme", "service", "probe@people.example.com").await;
    assert_eq!(tidings.settled(&probe).await["state"], "sent");
    let others = tidings.smtp.messages().into_iter().filter(|mail| !mail.recipient().starts_with("probe@"));
    assert_eq!(others.count(), count);
}

async fn key(tidings: &Tidings, role: Role, brand: Option<&str>) -> Api {
    let db = &tidings.app().db;
    let brand = match brand {
        Some(slug) => Some(tidings::brand::rows::find(db.reads(), slug).await.unwrap().unwrap().id),
        None => None,
    };
    let name = format!("test {role}");
    let made = tidings::access::rows::create_key(db, &name, role, brand, "test").await.unwrap();
    tidings.with_key(secrecy::ExposeSecret::expose_secret(&made.key))
}

on_both! {
    async fn a_campaign_that_cannot_be_brought_on_keeps_no_other_from_it(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(3).await;
        let everybody = json!({ "audience": { "all": true } });
        draft(&tidings, everybody.clone()).await;
        sql(&tidings, "UPDATE campaigns SET audience = '\"nobody knows\"', state = 'running'").await;
        let other = draft(&tidings, everybody).await;
        act(&tidings, &other, "start").await;
        assert_eq!(counts(&tidings.finished(id_of(&other)).await)["sent"], 3);
        tidings.stop().await;
    }

    async fn a_fan_out_held_between_its_steps_goes_on_where_it_was_and_reaches_everyone_once(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(1200).await;
        let campaign = draft(&tidings, json!({ "audience": { "all": true } })).await;
        add(&tidings, &campaign, "email\np3@people.example.com\nlate@people.example.com\n").await;
        act(&tidings, &campaign, "start").await;
        let app = tidings.app();
        assert!(worker::step(app).await.unwrap());
        let total = async || counts(&tidings.get(&campaign).await.ok())["total"].as_u64().unwrap();
        let first = total().await;
        assert!((100..=502).contains(&first), "a first step is small: {first}");
        act(&tidings, &campaign, "pause").await;
        assert!(!worker::step(app).await.unwrap(), "a paused campaign takes no step");
        assert_eq!(total().await, first);
        act(&tidings, &campaign, "resume").await;
        wait_until("the last step", async || !worker::step(app).await.unwrap()).await;
        assert_eq!(total().await, 1201, "one each, those added by lines included");
        let sql = Statement::from_string(app.db.backend(), "SELECT id FROM deliveries");
        let ids = app.db.reads().query_all_raw(sql).await.unwrap();
        let ids: std::collections::BTreeSet<uuid::Uuid> = ids.iter().map(|row| row.try_get("", "id").unwrap()).collect();
        assert_eq!(ids.len(), 1201);
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        let made = |id: &uuid::Uuid| id.get_timestamp().map(|at| at.to_unix().0).unwrap();
        let (oldest, newest) = (ids.first().map(made).unwrap(), ids.last().map(made).unwrap());
        assert!(newest.abs_diff(oldest) < 600, "made between {oldest} and {newest}");
        tidings.stop().await;
    }

    async fn lines_arrive_once_each_with_their_own_data_and_the_counts_add_up(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.put("/templates/offer", json!({
            "subject": "{{data.coupon}} for {{name}}", "html": "<p>{{data.greeting}}, use {{data.coupon}}.</p>",
        })).await.ok();
        let opted_out = json!({ "email": "no@people.example.com", "scope": "all", "channel": "phone" });
        tidings.post("/opt-outs", opted_out).await.ok();

        let body = json!({ "template": "offer", "name": "Spring", "data": { "greeting": "Hello", "coupon": "NONE" } });
        let campaign = draft(&tidings, body).await;
        let lines = "email,name,coupon\nada@people.example.com,Ada,SPRING\nbob@people.example.com,Bob,\n\
                     not an address,Nobody,X\nADA@people.example.com,Ada,TWICE\nno@people.example.com,No,X\n";
        let report = add(&tidings, &campaign, lines).await;
        assert_eq!(report["received"], 5, "{report}");
        assert_eq!((&report["added"], &report["already_there"], &report["rejected"]), (&json!(3), &json!(1), &json!(1)));
        assert_eq!(report["errors"][0]["line"], 4, "{report}");
        let more = "{\"email\":\"cy@people.example.com\",\"data\":{\"coupon\":\"JSON\"}}\n{\"email\":\"bob@people.example.com\"}\n";
        let report = tidings.post_text(&format!("{campaign}/recipients"), "application/x-ndjson", more).await.ok();
        assert_eq!((&report["added"], &report["already_there"]), (&json!(1), &json!(1)), "{report}");

        let shown = tidings.get(&campaign).await.ok();
        assert_eq!((&shown["state"], &shown["counts"]["queued"]), (&json!("draft"), &json!(4)), "{shown}");
        nothing_else_is_sent(&tidings, 0).await;
        act(&tidings, &campaign, "start").await;
        let done = tidings.finished(id_of(&campaign)).await;
        let counted = counts(&done);
        assert_eq!((&counted["total"], &counted["sent"], &counted["suppressed"]), (&json!(4), &json!(3), &json!(1)));
        assert_eq!(done["suppressed_by"], json!({ "opted_out_of_all": 1 }));

        let ada = tidings.smtp.messages_to("ada@people.example.com");
        assert_eq!(ada.len(), 1);
        assert_eq!(ada[0].header("Subject").unwrap(), "SPRING for Ada");
        assert!(ada[0].parsed().body_text(0).unwrap().contains("Hello, use SPRING."));
        assert_eq!(tidings.smtp.messages_to("cy@people.example.com").len(), 1);
        assert!(tidings.smtp.messages_to("no@people.example.com").is_empty());
        tidings.post_text(&format!("{campaign}/recipients"), "text/csv", "email\nlate@people.example.com\n")
            .await.problem(409);
        tidings.stop().await;
    }

    async fn a_scheduled_campaign_waits_for_its_time_and_what_was_frozen_stays(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(3).await;
        let body = json!({ "audience": { "all": true }, "send_at": in_an(1, &tidings) });
        let campaign = draft(&tidings, body).await;
        let started = act(&tidings, &campaign, "start").await;
        assert_eq!((&started["state"], &started["started_at"]), (&json!("scheduled"), &Value::Null));
        add(&tidings, &campaign, "email\nlate@people.example.com\n").await;
        nothing_else_is_sent(&tidings, 0).await;
        tidings.put("/templates/hello", json!({ "subject": "Changed", "html": "<p>Changed</p>" })).await.ok();
        tidings.advance(HOUR * 2);
        let done = tidings.finished(id_of(&campaign)).await;
        assert_eq!(counts(&done)["sent"], 4);
        assert!(done["started_at"].is_string());
        for mail in tidings.smtp.messages() {
            assert!(mail.header("Subject").unwrap().starts_with("Hello"), "{}", mail.text());
        }
        tidings.stop().await;
    }

    async fn a_deadline_expires_what_waits_also_while_paused(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let campaign = draft(&tidings, json!({ "not_after": in_an(5, &tidings) })).await;
        add(&tidings, &campaign, "email\na@people.example.com\nb@people.example.com\n").await;
        // The lines follow when the deadline moves.
        tidings.patch(&campaign, json!({ "not_after": in_an(1, &tidings) })).await.ok();
        tidings.smtp.on(Stage::Rcpt, Act::reply(451, "4.7.1 later"));
        act(&tidings, &campaign, "start").await;
        wait_until("two attempts", async || tidings.smtp.transactions().len() >= 2).await;
        act(&tidings, &campaign, "pause").await;
        tidings.smtp.behave();
        tidings.advance(HOUR * 2);
        let seen = tidings.campaign_when("has expired", id_of(&campaign), |c| c["counts"]["expired"] == 2).await;
        assert_eq!(seen["state"], "paused");
        counts(&seen);
        act(&tidings, &campaign, "resume").await;
        tidings.finished(id_of(&campaign)).await;
        nothing_else_is_sent(&tidings, 0).await;
        tidings.stop().await;
    }

    async fn a_draft_whose_deadline_passed_gets_its_lines_back_with_a_later_one(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let campaign = draft(&tidings, json!({ "not_after": in_an(1, &tidings) })).await;
        add(&tidings, &campaign, "email\na@people.example.com\nb@people.example.com\n").await;
        tidings.advance(HOUR * 2);
        tidings.campaign_when("has expired", id_of(&campaign), |c| c["counts"]["expired"] == 2).await;
        let changed = tidings.patch(&campaign, json!({ "not_after": in_an(1, &tidings) })).await.ok();
        assert_eq!(changed["counts"]["queued"], 2, "{changed}");
        act(&tidings, &campaign, "start").await;
        let seen = tidings.finished(id_of(&campaign)).await;
        assert_eq!(seen["counts"]["sent"], 2, "{seen}");
        counts(&seen);
        tidings.stop().await;
    }

    async fn a_pause_holds_what_is_not_under_way_and_resuming_sends_it(database: Database) {
        let tidings = Tidings::start_with(database, |settings| settings.worker_connections = 2).await;
        tidings.ready_to_send().await;
        tidings.recipients(40).await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone()));
        let campaign = draft(&tidings, json!({ "audience": { "all": true } })).await;
        act(&tidings, &campaign, "start").await;
        gate.reached().await;
        assert_eq!(act(&tidings, &campaign, "pause").await["state"], "paused");
        tidings.post_empty(&format!("{campaign}/pause")).await.problem(409);
        gate.open();
        let held = tidings.campaign_when("has nothing under way", id_of(&campaign), |c| c["counts"]["sending"] == 0).await;
        let sent = counts(&held)["sent"].as_u64().unwrap();
        assert!(sent < 40, "{held}");
        nothing_else_is_sent(&tidings, usize::try_from(sent).unwrap()).await;
        assert_eq!(act(&tidings, &campaign, "resume").await["state"], "running");
        assert_eq!(counts(&tidings.finished(id_of(&campaign)).await)["sent"], 40);
        for n in 0..40 {
            assert_eq!(tidings.smtp.messages_to(&format!("p{n}@people.example.com")).len(), 1);
        }
        tidings.stop().await;
    }

    async fn a_cancelled_campaign_sends_nothing_more_and_counts_what_it_left(database: Database) {
        let tidings = Tidings::start_with(database, |settings| settings.worker_connections = 2).await;
        tidings.ready_to_send().await;
        tidings.recipients(30).await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone()));
        let campaign = draft(&tidings, json!({ "audience": { "all": true } })).await;
        act(&tidings, &campaign, "start").await;
        gate.reached().await;
        assert_eq!(act(&tidings, &campaign, "cancel").await["state"], "cancelled");
        gate.open();
        let ended = tidings.campaign_when("has ended", id_of(&campaign), |c| c["finished_at"].is_string()).await;
        let counted = counts(&ended);
        let sent = counted["sent"].as_u64().unwrap();
        assert!(sent >= 1 && counted["cancelled"].as_u64().unwrap() >= 1, "{counted}");
        nothing_else_is_sent(&tidings, usize::try_from(sent).unwrap()).await;
        let problem = tidings.post_empty(&format!("{campaign}/resume")).await.problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("cancelled"), "{problem}");
        tidings.delete(&campaign).await.problem(409);
        tidings.stop().await;
    }

    async fn a_retry_takes_up_what_failed_and_never_what_is_unknown(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 not from you")).to("failed@people.example.com");
        tidings.smtp.on(Stage::FinalDot, Act::HangUp).to("unknown@people.example.com");
        let campaign = draft(&tidings, json!({})).await;
        add(&tidings, &campaign, "email\nfailed@people.example.com\nunknown@people.example.com\nsent@people.example.com\n").await;
        act(&tidings, &campaign, "start").await;
        let done = tidings.finished(id_of(&campaign)).await;
        let counted = counts(&done);
        assert_eq!((&counted["failed"], &counted["unknown"], &counted["sent"]), (&json!(1), &json!(1), &json!(1)));

        let failed = tidings.get(&format!("{campaign}/deliveries?state=failed")).await.ok();
        let failed = &failed["items"][0];
        assert_eq!(failed["email"], "failed@people.example.com");
        let attempt = &failed["attempts"][0];
        assert_eq!((&attempt["code"], &attempt["enhanced"], &attempt["phase"]), (&json!(550), &json!("5.7.1"), &json!("rcpt")));
        assert!(attempt["reply"].as_str().unwrap().contains("not from you"), "{attempt}");

        tidings.smtp.behave();
        assert_eq!(act(&tidings, &campaign, "retry").await["state"], "running");
        let counted = counts(&tidings.finished(id_of(&campaign)).await);
        assert_eq!((&counted["failed"], &counted["unknown"], &counted["sent"]), (&json!(0), &json!(1), &json!(2)));
        assert_eq!(act(&tidings, &campaign, "retry").await["state"], "finished", "nothing had failed");
        assert_eq!(tidings.smtp.messages_to("failed@people.example.com").len(), 1);
        tidings.stop().await;
    }

    async fn an_audience_is_all_conditions_of_the_brands_own_people(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.brand_with_every_class("other").await;
        for (email, more) in [
            ("match", json!({ "tags": ["vip", "x"], "locale": "de-AT", "customer_of": ["acme"], "attributes": { "plan": "pro" } })),
            ("tag", json!({ "tags": ["y"], "locale": "de", "customer_of": ["acme"], "attributes": { "plan": "pro" } })),
            ("locale", json!({ "tags": ["vip"], "locale": "en", "customer_of": ["acme"], "attributes": { "plan": "pro" } })),
            ("stranger", json!({ "tags": ["vip"], "locale": "de", "attributes": { "plan": "pro" } })),
            ("plan", json!({ "tags": ["vip"], "locale": "de", "customer_of": ["acme"], "attributes": { "plan": "free" } })),
            ("elsewhere", json!({ "tags": ["vip"], "locale": "de", "brands": ["other"], "attributes": { "plan": "pro" } })),
        ] {
            let body = with(more, json!({ "email": format!("{email}@people.example.com") }));
            tidings.post("/recipients", body).await.ok();
        }
        for (audience, expected) in [
            (json!({ "all": true }), 5),
            (json!({ "tags": ["vip"] }), 4),
            (json!({ "locale": "de" }), 4),
            (json!({ "customer": false }), 1),
            (json!({ "tags": ["vip", "z"], "locale": "de", "customer": true, "attributes": { "plan": "pro" } }), 1),
        ] {
            let campaign = draft(&tidings, json!({ "audience": audience })).await;
            act(&tidings, &campaign, "start").await;
            let done = tidings.finished(id_of(&campaign)).await;
            assert_eq!(counts(&done)["total"], expected, "{audience}");
            assert_eq!(done["audience"], audience);
        }
        for wrong in [json!({}), json!({ "all": false }), json!({ "age": 7 }), json!({ "all": true, "tags": ["a"] })] {
            tidings.post("/campaigns", with(fields("marketing"), json!({ "audience": wrong }))).await.problem(422);
        }
        tidings.stop().await;
    }

    async fn workers_that_step_at_once_write_to_everyone_once(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(3500).await;
        let campaign = tidings.draft("acme", "marketing").await;
        let path = format!("/campaigns/{campaign}");
        add(&tidings, &path, "email\np7@people.example.com\nnew@people.example.com\n").await;
        act(&tidings, &path, "start").await;
        let other = tidings.another(Parts { worker: false, ..Parts::default() }).await;
        let steps = |app: App| async move {
            while !matches!(worker::step(&app).await, Ok(false)) {}
        };
        let apps = [tidings.app(), tidings.app(), &other.app, &other.app];
        futures_util::future::join_all(apps.map(|app| tokio::spawn(steps(app.clone())))).await;
        // Whoever met a lock passed on: look until nobody has anything to do.
        steps(tidings.app().clone()).await;
        let shown = tidings.get(&path).await.ok();
        assert_eq!((&shown["fanned_out"], &shown["state"]), (&json!(true), &json!("running")));
        assert_eq!(counts(&shown)["total"], 3501, "p7 was there already, new joined by its line");
        let cancelled = act(&tidings, &path, "cancel").await;
        assert_eq!(cancelled["state"], "cancelled");
        futures_util::future::join_all(apps.map(|app| tokio::spawn(steps(app.clone())))).await;
        steps(tidings.app().clone()).await;
        let shown = tidings.get(&path).await.ok();
        assert_eq!(counts(&shown)["cancelled"], 3501);
        assert!(shown["finished_at"].is_string());
        other.stop().await;
        tidings.stop().await;
    }

    async fn of_two_starts_at_once_one_is_told_that_it_runs(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(20).await;
        let campaign = draft(&tidings, json!({ "audience": { "all": true } })).await;
        let start = format!("{campaign}/start");
        let answers = futures_util::future::join_all((0..6).map(|_| tidings.post_empty(&start))).await;
        let count = |status: u16| answers.iter().filter(|answer| answer.status.as_u16() == status).count();
        assert_eq!((count(200), count(409)), (1, 5), "{answers:?}");
        assert_eq!(counts(&tidings.finished(id_of(&campaign)).await)["sent"], 20);
        assert_eq!(tidings.smtp.count(), 20);
        tidings.stop().await;
    }

    async fn a_test_send_is_real_mail_outside_of_the_counts(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let campaign = draft(&tidings, json!({ "audience": { "all": true } })).await;
        let test = format!("{campaign}/test");
        let sent = tidings.post(&test, json!({ "to": ["me@office.example.com"] })).await.is(202).ok();
        let message = sent["messages"][0]["id"].as_str().unwrap();
        assert_eq!(tidings.settled(message).await["state"], "sent");
        let mail = tidings.smtp.messages_to("me@office.example.com");
        assert_eq!(mail[0].header("Subject").unwrap().trim(), "Hello");

        // Its links are real, and who opted out gets no test.
        tidings.one_click(&one_click_link(&mail[0])).await.is(200);
        let again = tidings.post(&test, json!({ "to": ["me@office.example.com", "you@office.example.com"] })).await.ok();
        assert_eq!(again["messages"][0]["because"], json!(["opted_out_of_topic", "opted_out_of_all"]), "{again}");
        assert!(again["messages"][1].get("because").is_none(), "{again}");

        for (wrong, pointer) in [
            (json!({ "to": [] }), "/to"),
            (json!({ "to": ["a@b.example", "x\r\nBcc: y@z.example"] }), "/to/1"),
            (json!({ "to": vec!["a@b.example"; 21] }), "/to"),
        ] {
            tidings.post(&test, wrong).await.refuses(pointer);
        }
        assert_eq!(counts(&tidings.get(&campaign).await.ok())["total"], 0);
        // Testers are in nobody's audience.
        act(&tidings, &campaign, "start").await;
        assert_eq!(counts(&tidings.finished(id_of(&campaign)).await)["total"], 0);
        tidings.stop().await;
    }

    async fn a_preview_shows_the_message_stores_nothing_and_has_no_live_link(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.put("/templates/offer", json!({
            "subject": "{{data.coupon}} for {{name}}", "html": "<p>Use {{data.coupon}} <a href=\"{{unsubscribe_url}}\">stop</a></p>",
        })).await.ok();
        let campaign = draft(&tidings, json!({ "template": "offer", "data": { "coupon": "ALL" } })).await;
        add(&tidings, &campaign, "email,name,coupon\nada@people.example.com,Ada,SPRING\n").await;
        let preview = format!("{campaign}/preview");
        let shown = tidings.get(&format!("{preview}?email=ada@people.example.com")).await.ok();
        assert_eq!(shown["subject"], "SPRING for Ada");
        assert!(shown["html"].as_str().unwrap().contains("Use SPRING"), "{shown}");
        assert!(shown["text"].as_str().unwrap().contains("Use SPRING"), "{shown}");
        let header = |name: &str| {
            let headers = shown["headers"].as_array().unwrap();
            headers.iter().find(|header| header["name"] == name).map(|header| header["value"].as_str().unwrap().to_owned())
        };
        let list = header("List-Unsubscribe").unwrap();
        let link = list.trim_start_matches('<').split('>').next().unwrap();
        assert!(link.contains("/u/"), "{list}");
        let token = &link[link.find("/u/").unwrap()..];
        tidings.page(token).await.is(404);
        tidings.one_click(token).await.is(404);

        let stranger = tidings.get(&format!("{preview}?email=nobody@people.example.com")).await.ok();
        assert_eq!(stranger["subject"], "ALL for");
        let found = tidings.get("/recipients?email=nobody@people.example.com").await.ok();
        assert_eq!(found["items"], json!([]));
        tidings.get(&format!("{preview}?email=nobody")).await.refuses("email");
        tidings.get(&preview).await.refuses("email");
        nothing_else_is_sent(&tidings, 0).await;
        tidings.stop().await;
    }

    async fn what_cannot_be_sent_is_refused_by_field(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.put("/templates/foreign", json!({ "subject": "s", "html": "<p>h</p>", "classes": ["service"] })).await.ok();
        let refused = async |more: Value, pointer: &str| {
            tidings.post("/campaigns", with(fields("marketing"), more)).await.refuses(pointer)
        };
        let reason = refused(json!({ "topic": "notice" }), "/topic").await;
        assert!(reason.contains("policies"), "{reason}");
        refused(json!({ "topic": "nothing" }), "/topic").await;
        refused(json!({ "brand": "nobody" }), "/brand").await;
        refused(json!({ "template": "nothing" }), "/template").await;
        let reason = refused(json!({ "template": "foreign" }), "/template").await;
        assert!(reason.contains("marketing"), "{reason}");
        for name in ["a\r\nBcc: b@c.example", "a\nb", "a\u{0}b"] {
            refused(json!({ "name": name }), "/name").await;
            refused(json!({ "reply_to": format!("{name} <a@b.example>") }), "/reply_to").await;
        }
        refused(json!({ "reply_to": "nobody" }), "/reply_to").await;
        refused(json!({ "not_after": "2020-01-01T00:00:00Z" }), "/not_after").await;
        refused(json!({ "send_at": "tomorrow" }), "/send_at").await;
        refused(json!({ "colour": "red" }), "/colour").await;

        tidings.put("/brands/bare", json!({ "name": "Bare", "from": "Bare <b@bare.example.com>", "postal_address": "" })).await;
        if tidings.get("/brands/bare").await.status.is_success() {
            tidings.topic("bare", "marketing", "marketing").await;
            let reason = refused(json!({ "brand": "bare" }), "/brand").await;
            assert!(reason.contains("postal address"), "{reason}");
        }
        // What was fine when it was made may not be when it starts.
        let campaign = draft(&tidings, json!({})).await;
        tidings.delete("/brands/acme/topics/marketing").await.ok();
        tidings.post_empty(&format!("{campaign}/start")).await.refuses("/topic");
        tidings.stop().await;
    }

    async fn a_draft_is_changed_and_deleted_and_a_running_campaign_is_not(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let body = json!({ "name": "One", "data": { "a": 1 }, "reply_to": "Help <help@acme.example.com>" });
        let campaign = draft(&tidings, body).await;
        let changed = tidings.patch(&campaign, json!({ "name": "Two", "reply_to": null })).await.ok();
        assert_eq!((&changed["name"], &changed["reply_to"]), (&json!("Two"), &Value::Null));
        assert_eq!(changed["data"], json!({ "a": 1 }), "what is absent stays");
        tidings.patch(&campaign, json!({ "brand": "other" })).await.refuses("/brand");
        tidings.patch(&campaign, json!({ "template": null })).await;
        add(&tidings, &campaign, "email\na@people.example.com\nb@people.example.com\n").await;
        tidings.delete(&campaign).await.is(204);
        tidings.get(&campaign).await.problem(404);

        let campaign = draft(&tidings, json!({ "send_at": in_an(1, &tidings) })).await;
        act(&tidings, &campaign, "start").await;
        tidings.delete(&campaign).await.problem(409);
        // Frozen at the start, and anew when its template is named.
        tidings.put("/templates/second", json!({ "subject": "Second", "html": "<p>2</p>" })).await.ok();
        // Lines first: without send_at it runs at once, and may have finished before any line comes.
        add(&tidings, &campaign, "email\na@people.example.com\n").await;
        tidings.patch(&campaign, json!({ "template": "second", "send_at": null })).await.ok();
        let done = tidings.finished(id_of(&campaign)).await;
        assert_eq!(done["template"], "second");
        tidings.patch(&campaign, json!({ "name": "late" })).await.problem(409);
        tidings.delete(&campaign).await.problem(409);
        tidings.stop().await;
    }

    async fn marketers_run_what_can_be_refused_and_a_bound_key_sees_its_brand_alone(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.brand_with_every_class("other").await;
        let marketer = key(&tidings, Role::Marketer, None).await;
        marketer.post("/campaigns", fields("service")).await.problem(403);
        let campaign = draft(&marketer, json!({})).await;
        let by_admin = format!("/campaigns/{}", tidings.post("/campaigns", fields("service")).await.id());
        marketer.post_empty(&format!("{by_admin}/start")).await.problem(403);

        let auditor = key(&tidings, Role::Auditor, None).await;
        assert_eq!(auditor.get("/campaigns").await.ok()["items"].as_array().unwrap().len(), 2);
        auditor.post_empty(&format!("{campaign}/start")).await.problem(403);
        auditor.post("/campaigns", fields("marketing")).await.problem(403);
        for role in [Role::Sender, Role::Operator, Role::Accounts] {
            let other = key(&tidings, role, None).await;
            other.get(&campaign).await.problem(403);
            other.post("/campaigns", fields("marketing")).await.problem(403);
        }
        let bound = key(&tidings, Role::Marketer, Some("other")).await;
        bound.get(&campaign).await.problem(404);
        bound.post_empty(&format!("{campaign}/start")).await.problem(404);
        bound.post("/campaigns", fields("marketing")).await.refuses("/brand");
        assert_eq!(bound.get("/campaigns").await.ok()["items"], json!([]));
        draft(&bound, json!({ "brand": "other" })).await;
        assert_eq!(bound.get("/campaigns").await.ok()["items"].as_array().unwrap().len(), 1);
        tidings.stop().await;
    }

    async fn lists_of_campaigns_and_deliveries_are_paged(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        for n in 0..5 {
            draft(&tidings, json!({ "name": format!("n{n}") })).await;
        }
        let mut names = Vec::new();
        let mut after = String::new();
        loop {
            let page = tidings.get(&format!("/campaigns?state=draft&brand=acme&limit=2{after}")).await.ok();
            names.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(names, ["n4", "n3", "n2", "n1", "n0"], "the newest first");
        tidings.get("/campaigns?state=asleep").await.problem(422);

        tidings.recipients(7).await;
        let done = tidings.send_to_all("acme", "marketing").await;
        let path = format!("/campaigns/{}/deliveries", done["id"].as_str().unwrap());
        let first = tidings.get(&format!("{path}?state=sent&limit=4")).await.ok();
        let rest = tidings.get(&format!("{path}?state=sent&limit=4&after={}", first["next"].as_str().unwrap())).await.ok();
        let mut who: Vec<String> = [&first, &rest]
            .into_iter()
            .flat_map(|page| page["items"].as_array().unwrap())
            .map(|item| item["email"].as_str().unwrap().to_owned())
            .collect();
        who.sort();
        assert_eq!(who, (0..7).map(|n| format!("p{n}@people.example.com")).collect::<Vec<_>>());
        assert_eq!(rest["next"], Value::Null);
        tidings.stop().await;
    }
}
