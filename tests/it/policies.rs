//! Policies and their versions over HTTP: what may be written when, and what publishing does.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tidings::clock::Timestamp;
use tidings::web::Role;

use crate::harness::{Api, Database, Tidings};

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn policy() -> Value {
    json!({ "brand": "acme", "title": "Privacy policy" })
}

/// Fields of a version that takes effect in so many days.
pub(crate) fn version(tidings: &Tidings, change: &str, days: u32) -> Value {
    json!({
        "body_markdown": format!("# Privacy\n\nWe keep data for {days} days."),
        "change": change, "summary": "We keep data for another time.",
        "effective_at": in_days(tidings, days),
    })
}

pub(crate) fn in_days(tidings: &Tidings, days: u32) -> Timestamp {
    tidings.clock().now().plus(DAY * days + Duration::from_secs(600))
}

pub(crate) fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A brand `acme` with a policy `privacy` whose baseline is published and holds since 2025.
async fn scene(database: Database) -> Tidings {
    let tidings = Tidings::start_web(database).await;
    tidings.brand("acme").await;
    tidings.put("/policies/privacy", policy()).await.is(201);
    let baseline = json!({
        "body_markdown": "# Privacy\n\nWe keep data.", "change": "material", "summary": "The first text.",
        "effective_at": "2025-01-01T00:00:00Z",
    });
    tidings.post(VERSIONS, baseline).await.is(201);
    let published = tidings.post_empty("/policies/privacy/versions/1/publish").await.ok();
    assert_eq!(published["version"]["state"], "published");
    assert!(published["notice"].is_null(), "a baseline is told to nobody: {published}");
    tidings
}

const VERSIONS: &str = "/policies/privacy/versions";

pub(crate) async fn key(tidings: &Tidings, name: &str) -> Api {
    let db = &tidings.app().db;
    let made = tidings::access::rows::create_key(db, name, Role::Admin, None, "test").await.unwrap();
    tidings.with_key(made.key.expose_secret())
}

/// Asserts that it is the same version with the same notice, which meanwhile may have come further.
#[track_caller]
fn same(again: &Value, first: &Value) {
    assert_eq!(again["version"], first["version"]);
    for field in ["id", "effective_at", "complete_by", "created_at"] {
        assert_eq!(again["notice"][field], first["notice"][field], "{field}");
    }
}

/// Publishes this version, which is taken to be the next one; gives its number.
async fn published(tidings: &Tidings, body: Value) -> i64 {
    let made = tidings.post(VERSIONS, body.clone()).await.ok();
    let number = made["number"].as_i64().unwrap();
    let tells = body["change"] != "minor";
    let answer = tidings.post_empty(&format!("{VERSIONS}/{number}/publish")).await.ok();
    assert_eq!(answer["notice"]["id"].is_string(), tells, "a minor change is told to nobody: {answer}");
    assert_eq!(answer["version"]["state"], "published", "{answer}");
    number
}

on_both! {
    async fn a_policy_has_its_defaults_and_makes_the_topics_that_it_needs(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        let made = tidings.put("/policies/privacy", policy()).await.is(201).json();
        let expected = json!({
            "policy": "privacy", "brand": "acme", "title": "Privacy policy", "language": "en", "template": null,
            "lead_time_days": 30, "two_person": false, "on_silence": "earlier_version_stands",
            "on_untold": "takes_effect", "remind_days_before": [], "reminder_months": null, "banner_days_after": 14,
            "placements": ["policy", "homepage"], "in_force": null, "warnings": [],
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&made[name], value, "{name}");
        }
        assert!(made["url"].as_str().unwrap().ends_with("/policies/privacy"), "{made}");
        let topic = tidings.get("/brands/acme/topics/policy-notices").await.ok();
        assert_eq!((&topic["class"], &topic["name"]), (&json!("notice"), &json!("Policy notices")));
        tidings.get("/brands/acme/topics/policy-reminders").await.is(404);

        let all = json!({
            "language": "de", "lead_time_days": 14, "two_person": true, "on_silence": "account_flagged",
            "on_untold": "earlier_version_stands", "remind_days_before": [7, 1], "reminder_months": 12,
            "banner_days_after": 0, "placements": [],
        });
        let changed = tidings.put("/policies/privacy", with(policy(), all.clone())).await.is(200).json();
        for (name, value) in all.as_object().unwrap() {
            assert_eq!(&changed[name], value, "{name}");
        }
        let topic = tidings.get("/brands/acme/topics/policy-reminders").await.ok();
        assert_eq!((&topic["class"], &topic["name"]), (&json!("reminder"), &json!("Reminders of policies")));
        // What is absent is as its default says again.
        let again = tidings.put("/policies/privacy", policy()).await.is(200).json();
        assert_eq!((&again["lead_time_days"], &again["language"]), (&json!(30), &json!("en")));
        assert_eq!(tidings.get("/policies/privacy").await.ok()["created_at"], made["created_at"]);

        tidings.put("/policies/terms", policy()).await.is(201);
        let list = tidings.get("/policies?limit=1").await.ok();
        assert_eq!(list["items"][0]["policy"], "privacy");
        let next = format!("/policies?limit=1&after={}", list["next"].as_str().unwrap());
        assert_eq!(tidings.get(&next).await.ok()["items"][0]["policy"], "terms");
        let audit = tidings.get("/audit").await.ok();
        assert_eq!(audit["items"][0]["action"], "policy.put", "{audit}");
        tidings.stop().await;
    }

    async fn what_a_policy_cannot_be_is_named(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        tidings.brand("other").await;
        for (pointer, more) in [
            ("/brand", json!({ "brand": "nobody" })),
            ("/title", json!({ "title": "a\nb" })),
            ("/language", json!({ "language": "deutsch!" })),
            ("/template", json!({ "template": "nothing" })),
            ("/lead_time_days", json!({ "lead_time_days": 366 })),
            ("/remind_days_before/1", json!({ "remind_days_before": [7, 0] })),
            ("/remind_days_before", json!({ "remind_days_before": [7, 7] })),
            ("/reminder_months", json!({ "reminder_months": 0 })),
            ("/banner_days_after", json!({ "banner_days_after": 400 })),
            ("/placements/0", json!({ "placements": ["Home Page"] })),
            ("/on_silence", json!({ "on_silence": "consent" })),
        ] {
            tidings.put("/policies/privacy", with(policy(), more)).await.refuses(pointer);
        }
        tidings.get("/policies/privacy").await.problem(404);

        tidings.put("/policies/privacy", policy()).await.is(201);
        tidings.put("/policies/privacy", with(policy(), json!({ "brand": "other" }))).await.problem(409);
        for (slug, more) in [("policy-notices", json!({})), ("policy-reminders", json!({ "reminder_months": 6 }))] {
            let brand = format!("b-{slug}");
            tidings.brand(&brand).await;
            tidings.topic(&brand, slug, "marketing").await;
            let body = with(with(policy(), more), json!({ "brand": brand }));
            let problem = tidings.put(&format!("/policies/{slug}"), body).await.problem(409);
            assert!(problem["detail"].as_str().unwrap().contains(slug), "{problem}");
        }
        // The language of texts that are there does not change under them.
        let body = with(version(&tidings, "material", 40), json!({ "effective_at": null }));
        tidings.post(VERSIONS, body).await.is(201);
        tidings.put("/policies/privacy", with(policy(), json!({ "language": "de" }))).await.problem(409);
        tidings.stop().await;
    }

    async fn a_template_of_notices_says_all_that_a_notice_must_and_nothing_else(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        let good = "<p>{{data.summary}} {{data.effective_date}} ({{data.effective_utc}}) <a href=\"{{data.url}}\">new</a> \
            <a href=\"{{data.old_url}}\">old</a> {{data.rights}} {{brand.postal_address}}</p>\
            {{#if approve_url}}<a href=\"{{approve_url}}\">Answer</a>{{/if}}";
        let put = async |html: String, classes: &[&str]| {
            let body = json!({ "subject": "News of {{data.policy}}", "html": html, "classes": classes });
            tidings.put("/templates/own", body).await.ok();
            tidings.put("/policies/privacy", with(policy(), json!({ "template": "own" }))).await
        };
        let reason = put(good.to_owned(), &["marketing"]).await.refuses("/template");
        assert!(reason.contains("notice"), "{reason}");
        let answer = put("<p>Hi <a href=\"https://shop.example/sale\">Sale</a></p>".to_owned(), &["notice"]).await;
        let problem = answer.problem(422);
        let reasons: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().map(|error| error["reason"].as_str().unwrap()).collect();
        for words in ["what changes", "date", "old text", "shop.example", "approve_url"] {
            assert!(reasons.iter().any(|reason| reason.contains(words)), "{words}: {reasons:?}");
        }
        tidings.get("/policies/privacy").await.problem(404);
        let stored = put(format!("{good}<p>Please check this page often.</p>"), &["notice"]).await.is(201).json();
        assert_eq!(stored["warnings"][0]["pointer"], "/template", "{stored}");
        assert_eq!(stored["template"], "own");
        tidings.stop().await;
    }

    async fn a_version_is_a_draft_until_it_is_published_and_then_stays_as_it_is(database: Database) {
        let tidings = scene(database).await;
        tidings.topic("acme", "profiling", "marketing").await;
        let body = with(version(&tidings, "new_use", 40), json!({
            "topic": "profiling",
            "translations": { "de": { "title": "Datenschutz", "summary": "Kurz.", "body_markdown": "# Datenschutz" },
                "PT-br": { "summary": "Breve.", "body_markdown": "# Privacidade" } },
        }));
        let draft = tidings.post(VERSIONS, body.clone()).await.is(201).json();
        assert_eq!((&draft["number"], &draft["state"]), (&json!(2), &json!("draft")));
        assert_eq!(draft["languages"], json!(["de", "en", "pt-BR"]));
        assert_eq!(draft["topic"], "profiling");
        let whole = tidings.get("/policies/privacy/versions/2").await.ok();
        let digest = <sha2::Sha256 as sha2::Digest>::digest(body["body_markdown"].as_str().unwrap());
        let digest: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!((&draft["sha256"], &whole["texts"]["en"]["sha256"]), (&json!(digest), &json!(digest)));
        assert_eq!(whole["texts"]["de"]["title"], "Datenschutz");
        assert_eq!(whole["texts"]["pt-BR"]["title"], "Privacy policy");
        assert_eq!(whole["texts"]["de"]["body_markdown"], "# Datenschutz");

        // One at a time; a draft makes room when it is deleted.
        tidings.post(VERSIONS, version(&tidings, "material", 40)).await.problem(409);
        tidings.delete("/policies/privacy/versions/2").await.is(204);
        tidings.get("/policies/privacy/versions/2").await.problem(404);
        tidings.delete("/policies/privacy/versions/2").await.problem(404);
        assert_eq!(published(&tidings, body).await, 2);
        tidings.delete("/policies/privacy/versions/2").await.problem(409);
        let list = tidings.get(VERSIONS).await.ok();
        let numbers: Vec<i64> =
            list["items"].as_array().unwrap().iter().map(|one| one["number"].as_i64().unwrap()).collect();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(tidings.get("/policies/privacy").await.ok()["in_force"], 1);
        tidings.clock().advance(DAY * 41);
        assert_eq!(tidings.get("/policies/privacy").await.ok()["in_force"], 2);
        tidings.stop().await;
    }

    async fn the_first_version_is_the_baseline_and_needs_no_date(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        tidings.put("/policies/privacy", policy()).await.is(201);
        let body = json!({ "body_markdown": "# Privacy", "change": "adverse", "summary": "The first text." });
        let asks = with(body.clone(), json!({ "approval": "required" }));
        tidings.post(VERSIONS, asks).await.refuses("/approval");
        let draft = tidings.post(VERSIONS, body).await.is(201).json();
        assert_eq!((&draft["approval"], &draft["effective_at"]), (&json!("none"), &Value::Null));
        let published = tidings.post_empty("/policies/privacy/versions/1/publish").await.ok();
        let version = &published["version"];
        assert!(published["notice"].is_null() && version["published_at"].is_string(), "{published}");
        assert_eq!(version["effective_at"], version["published_at"]);
        assert_eq!(tidings.get("/policies/privacy").await.ok()["in_force"], 1);
        tidings.stop().await;
    }

    async fn a_later_date_is_refused_for_a_reason_that_says_which(database: Database) {
        let tidings = scene(database).await;
        let date = |at: Value| with(version(&tidings, "material", 0), json!({ "effective_at": at }));
        let now = tidings.clock().now();
        let yesterday = Timestamp(now.0 - 86_400_000_000).to_string();
        for (at, words) in [
            (json!("2027-01-31T00:00:00"), "no time zone"),
            (json!("2027-01-31"), "no time zone"),
            (json!("soon"), "RFC 3339"),
            (json!(yesterday), "in the past"),
            (Value::Null, "is missing"),
        ] {
            let reason = tidings.post(VERSIONS, date(at)).await.refuses("/effective_at");
            assert!(reason.contains(words), "{reason}");
        }
        // Nearer than the lead time: the reason names the earliest date, which is one.
        let reason = tidings.post(VERSIONS, version(&tidings, "material", 29)).await.refuses("/effective_at");
        assert!(reason.contains("30 days"), "{reason}");
        let earliest = reason.split("choose ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let draft = tidings.post(VERSIONS, date(json!(earliest))).await.is(201).json();
        assert_eq!(draft["effective_at"], earliest);
        tidings.post_empty("/policies/privacy/versions/2/publish").await.ok();

        // A minor change needs no lead time, but comes no earlier than what comes before; at the same time is right.
        let reason = tidings.post(VERSIONS, version(&tidings, "minor", 3)).await.refuses("/effective_at");
        assert!(reason.contains("the version before"), "{reason}");
        let minor = with(version(&tidings, "minor", 0), json!({ "effective_at": earliest }));
        assert_eq!(published(&tidings, minor).await, 3);

        // With a reason, which is kept, people get less time.
        tidings.clock().advance(DAY * 40);
        let body = with(version(&tidings, "material", 3), json!({ "override_reason": "The law changed." }));
        assert_eq!(published(&tidings, body).await, 4);
        let kept = tidings.get("/policies/privacy/versions/4").await.ok();
        assert_eq!(kept["override_reason"], "The law changed.");
        tidings.stop().await;
    }

    async fn the_date_is_judged_again_when_it_is_published(database: Database) {
        let tidings = scene(database).await;
        tidings.post(VERSIONS, version(&tidings, "material", 31)).await.is(201);
        tidings.clock().advance(DAY * 2);
        let publish = "/policies/privacy/versions/2/publish";
        let reason = tidings.post_empty(publish).await.refuses("/effective_at");
        assert!(reason.contains("30 days"), "{reason}");
        tidings.post(publish, json!({ "override_reason": " " })).await.refuses("/override_reason");
        let reason = json!({ "override_reason": "We were ill." });
        let answer = tidings.post(publish, reason).await.ok();
        assert_eq!(answer["version"]["override_reason"], "We were ill.");
        tidings.post(VERSIONS, version(&tidings, "material", 31)).await.is(201);
        tidings.clock().advance(DAY * 32);
        let past = json!({ "override_reason": "We were ill." });
        let reason = tidings.post("/policies/privacy/versions/3/publish", past).await.refuses("/effective_at");
        assert!(reason.contains("in the past"), "{reason}");
        tidings.stop().await;
    }

    async fn what_a_version_lacks_is_named(database: Database) {
        let tidings = scene(database).await;
        tidings.topic("acme", "alerts", "service").await;
        let body = || version(&tidings, "material", 40);
        let translation = |fields: Value| with(body(), json!({ "translations": { "de": fields } }));
        let long = "x".repeat(256 * 1024 + 1);
        for (pointer, fields) in [
            ("/translations/de/summary", translation(json!({ "body_markdown": "# D" }))),
            ("/translations/de/summary", translation(json!({ "body_markdown": "# D", "summary": " " }))),
            ("/translations/de/body_markdown", translation(json!({ "summary": "D" }))),
            ("/translations/de_DE", with(body(), json!({ "translations":
                { "de_DE": { "summary": "D", "body_markdown": "D" } } }))),
            ("/translations/EN", with(body(), json!({ "translations":
                { "EN": { "summary": "D", "body_markdown": "D" } } }))),
            ("/summary", with(body(), json!({ "summary": "" }))),
            ("/summary", with(body(), json!({ "summary": "x".repeat(5_001) }))),
            ("/body_markdown", with(body(), json!({ "body_markdown": long }))),
            ("/change", with(body(), json!({ "change": "huge" }))),
            ("/topic", with(body(), json!({ "topic": "alerts" }))),
            ("/topic", with(body(), json!({ "change": "new_use" }))),
            ("/topic", with(body(), json!({ "change": "new_use", "topic": "alerts" }))),
            ("/topic", with(body(), json!({ "change": "new_use", "topic": "nothing" }))),
            ("/approval", with(body(), json!({ "change": "adverse", "approval": "none" }))),
            ("/approval", with(body(), json!({ "change": "minor", "approval": "required" }))),
        ] {
            tidings.post(VERSIONS, fields).await.refuses(pointer);
        }
        let silent = json!({ "change": "adverse", "approval": "none", "override_reason": "A court says so." });
        let draft = tidings.post(VERSIONS, with(body(), silent)).await.is(201).json();
        assert_eq!(draft["approval"], "none");
        tidings.delete("/policies/privacy/versions/2").await.is(204);
        let adverse = tidings.post(VERSIONS, with(body(), json!({ "change": "adverse" }))).await.is(201).json();
        assert_eq!(adverse["approval"], "required");
        tidings.stop().await;
    }

    async fn a_use_has_a_topic_that_people_are_in_until_they_refuse(database: Database) {
        let tidings = scene(database).await;
        let topic = |consent: &str| json!({ "name": "AI", "class": "marketing", "consent": consent });
        tidings.put("/brands/acme/topics/ai", topic("opt_in")).await.is(201);
        let body = with(version(&tidings, "new_use", 40), json!({ "topic": "ai" }));
        let reason = tidings.post(VERSIONS, body.clone()).await.refuses("/topic");
        assert!(reason.contains("opt_in") && reason.contains("name one whose consent is opt_out"), "{reason}");
        tidings.put("/brands/acme/topics/ai", topic("opt_out")).await.ok();
        tidings.post(VERSIONS, body).await.is(201);
        tidings.put("/brands/acme/topics/ai", topic("opt_in")).await.ok();
        tidings.post_empty("/policies/privacy/versions/2/publish").await.refuses("/topic");
        tidings.put("/brands/acme/topics/ai", topic("opt_out")).await.ok();
        tidings.post_empty("/policies/privacy/versions/2/publish").await.ok();
        tidings.stop().await;
    }

    async fn publishing_twice_is_the_same_answer(database: Database) {
        let tidings = scene(database).await;
        tidings.post(VERSIONS, version(&tidings, "material", 40)).await.is(201);
        let publish = "/policies/privacy/versions/2/publish";
        let first = tidings.post_empty(publish).await.ok();
        assert!(first["notice"]["id"].is_string(), "{first}");
        assert_eq!(first["notice"]["effective_at"], first["version"]["effective_at"]);
        assert_eq!(tidings.get("/notices").await.ok()["items"].as_array().unwrap().len(), 1);
        tidings.clock().advance(DAY * 60);
        same(&tidings.post_empty(publish).await.ok(), &first);
        let late = json!({ "override_reason": "Too late to say." });
        same(&tidings.post(publish, late).await.ok(), &first);
        let together = futures_util::future::join_all((0..4).map(|_| tidings.post_empty(publish))).await;
        together.iter().for_each(|answer| same(&answer.json(), &first));
        assert_eq!(tidings.get("/notices").await.ok()["items"].as_array().unwrap().len(), 1);
        tidings.post_empty("/policies/privacy/versions/3/publish").await.problem(404);
        tidings.post_empty("/policies/privacy/versions/2/release").await.problem(409);
        tidings.stop().await;
    }

    async fn two_people_publish_where_the_policy_says_so(database: Database) {
        let tidings = scene(database).await;
        tidings.put("/policies/privacy", with(policy(), json!({ "two_person": true }))).await.ok();
        let (ann, ben) = (key(&tidings, "ann").await, key(&tidings, "ben").await);
        ann.post(VERSIONS, version(&tidings, "material", 40)).await.is(201);
        let [publish, release] = ["publish", "release"].map(|what| format!("{VERSIONS}/2/{what}"));
        ann.post_empty(&release).await.problem(409);
        let waiting = ann.post_empty(&publish).await.ok();
        assert_eq!(waiting["version"]["state"], "awaiting_release");
        assert!(waiting["version"]["published_at"].is_null() && waiting["notice"].is_null(), "{waiting}");
        // What is not said stays as it was.
        tidings.put("/policies/privacy", policy()).await.ok();
        assert_eq!(ann.post_empty(&publish).await.ok(), waiting);
        assert_eq!(ben.post_empty(&publish).await.ok(), waiting);
        ann.post_empty(&release).await.problem(403);
        ann.post(VERSIONS, version(&tidings, "material", 40)).await.problem(409);
        let released = ben.post_empty(&release).await.ok();
        let version = &released["version"];
        assert_eq!(version["state"], "published");
        assert!(released["notice"]["id"].is_string(), "{released}");
        let by = |field: &str| version[field].as_str().unwrap().split('/').next().unwrap().to_owned();
        assert_eq!((by("published_by"), by("released_by")), ("key:ann".into(), "key:ben".into()));
        same(&ben.post_empty(&release).await.ok(), &released);
        same(&ann.post_empty(&publish).await.ok(), &released);

        // What waits too long can be taken back, or released with a reason.
        tidings.put("/policies/privacy", with(policy(), json!({ "two_person": true }))).await.ok();
        let next = crate::policies::version(&tidings, "material", 41);
        ann.post(VERSIONS, next.clone()).await.is(201);
        ann.post_empty(&format!("{VERSIONS}/3/publish")).await.ok();
        tidings.clock().advance(DAY * 20);
        ben.post_empty(&format!("{VERSIONS}/3/release")).await.refuses("/effective_at");
        ann.delete(&format!("{VERSIONS}/3")).await.is(204);
        ann.post(VERSIONS, crate::policies::version(&tidings, "material", 31)).await.is(201);
        ann.post_empty(&format!("{VERSIONS}/3/publish")).await.ok();
        tidings.clock().advance(DAY * 2);
        let reason = json!({ "override_reason": "Ben was away." });
        let late = ben.post(&format!("{VERSIONS}/3/release"), reason).await.ok();
        assert_eq!(late["version"]["override_reason"], "Ben was away.");
        tidings.stop().await;
    }

    async fn two_people_stay_two_whatever_a_policys_settings_leave_out_and_whatever_key_is_revoked(database: Database) {
        let tidings = scene(database).await;
        let two = |whether: bool| with(policy(), json!({ "two_person": whether }));
        tidings.put("/policies/privacy", two(true)).await.ok();
        let (ann, ben) = (key(&tidings, "ann").await, key(&tidings, "ben").await);
        let db = &tidings.app().db;
        let made = tidings::access::rows::create_key(db, "eve", Role::Admin, None, "test").await.unwrap();
        let eve = tidings.with_key(made.key.expose_secret());
        let settings = async || tidings.get("/policies/privacy").await.ok()["two_person"].clone();
        // What is not said stays, before there is a draft, while there is one, and while it waits to be released.
        assert_eq!(ann.put("/policies/privacy", policy()).await.ok()["two_person"], true);
        ann.post(VERSIONS, version(&tidings, "material", 40)).await.is(201);
        ann.put("/policies/privacy", policy()).await.ok();
        ann.put("/policies/privacy", two(false)).await.problem(409);
        let [publish, release] = ["publish", "release"].map(|what| format!("{VERSIONS}/2/{what}"));
        assert_eq!(ann.post_empty(&publish).await.ok()["version"]["state"], "awaiting_release");
        ann.put("/policies/privacy", policy()).await.ok();
        ann.put("/policies/privacy", two(false)).await.problem(409);
        assert_eq!(settings().await, true);
        ann.post_empty(&release).await.problem(403);
        ann.post_empty(&publish).await.ok();
        tidings::access::rows::revoke_key(db, &made.row.prefix, "test").await.unwrap().unwrap();
        eve.post_empty(&release).await.problem(401);
        let waits = tidings.get(&format!("{VERSIONS}/2")).await.ok();
        assert_eq!((&waits["state"], &waits["released_by"]), (&json!("awaiting_release"), &Value::Null));
        assert_eq!(tidings.get("/notices").await.ok()["items"], json!([]));
        ben.post_empty(&release).await.ok();
        // Nothing waits any more: now it may be said, by two.
        assert_eq!(ann.put("/policies/privacy", two(false)).await.ok()["two_person"], true);
        assert_eq!(ben.put("/policies/privacy", two(false)).await.ok()["two_person"], false);
        assert_eq!(ann.put("/policies/privacy", policy()).await.ok()["two_person"], false);
        tidings.stop().await;
    }

    async fn a_draft_is_previewed_and_compared_before_it_is_published(database: Database) {
        let tidings = scene(database).await;
        let first = tidings.get("/policies/privacy/versions/1/preview").await.ok();
        assert!(first["changes"].is_null(), "{first}");
        let body = with(version(&tidings, "material", 40), json!({
            "body_markdown": "# Privacy\n\nWe keep no data. <script>alert(1)</script>[x](javascript:alert(1))",
            "translations": { "de": { "summary": "Kurz.", "body_markdown": "Wir *behalten* nichts." } },
        }));
        tidings.post(VERSIONS, body).await.is(201);
        let preview = "/policies/privacy/versions/2/preview";
        let shown = tidings.get(preview).await.ok();
        let html = shown["html"].as_str().unwrap();
        assert!(html.contains("<h2>Privacy</h2>") && html.contains("We keep no data."), "{html}");
        assert!(!html.contains("<script") && !html.contains("javascript:"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(1)"), "what is no formatting is shown as it was written: {html}");
        let pieces = &shown["changes"][0]["lines"][1]["pieces"];
        assert_eq!(pieces[0], json!({ "kind": "same", "text": "We keep " }));
        assert_eq!(pieces[1], json!({ "kind": "added", "text": "no " }));
        assert_eq!(shown["texts"]["de"]["summary"], "Kurz.");
        let german = tidings.get(&format!("{preview}?language=DE")).await.ok();
        assert_eq!(german["html"], "<p>Wir <em>behalten</em> nichts.</p>\n");
        // Nothing to compare with in that language but the policy's own.
        assert_eq!((&german["language"], german["changes"].is_array()), (&json!("de"), true));
        tidings.get(&format!("{preview}?language=fr")).await.refuses("language");
        tidings.stop().await;
    }
}
