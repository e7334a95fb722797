//! Opt-outs, opt-ins, lists and explanations over the API.

use serde_json::{Value, json};
use std::time::Duration;
use tidings::access;
use tidings::brand;
use tidings::id::BrandId;
use tidings::web::Role;

use crate::harness::{Api, Database, Tidings};
use crate::unsubscribe_page::{ADA, decision, events, path, said, set_up};

/// A caller with a key of this role, bound to `acme` if asked.
async fn key(tidings: &Tidings, role: Role, bound: bool) -> Api {
    let app = tidings.app();
    let brand = brand::rows::find(app.db.reads(), "acme").await.unwrap().unwrap();
    let bound: Option<BrandId> = bound.then_some(brand.id);
    let created = access::rows::create_key(&app.db, role.as_str(), role, bound, "test").await.unwrap();
    tidings.with_key(secrecy::ExposeSecret::expose_secret(&created.key))
}

fn by_phone(email: &str, scope: Value) -> Value {
    json!({ "email": email, "scope": scope, "channel": "phone", "note": "called at noon" })
}

on_both! {
    async fn an_opt_out_by_telephone_is_recorded_once_with_who_recorded_it_and_when(database: Database) {
        let tidings = set_up(database).await;
        let operator = key(&tidings, Role::Operator, false).await;
        let mut body = by_phone(ADA, json!({ "brand": "acme", "topic": "marketing" }));
        body["requested_at"] = json!("2026-01-31T12:00:00Z");
        let first = operator.post("/opt-outs", body.clone()).await.is(201).json();
        assert_eq!(first["scope"], json!({ "brand": "acme", "topic": "marketing" }));
        assert_eq!((&first["channel"], &first["settled"], &first["in_flight"]), (&json!("phone"), &json!(true), &json!([])));
        let again = operator.post("/opt-outs", body).await.is(200).json();
        assert_eq!((&again["id"], &again["recorded_at"]), (&first["id"], &first["recorded_at"]));
        let said = said(&tidings, ADA).await;
        assert_eq!(said["items"].as_array().unwrap().len(), 1, "{said}");
        let event = &said["items"][0];
        assert_eq!(event["note"], "called at noon");
        assert_eq!(event["requested_at"], "2026-01-31T12:00:00Z");
        assert!(event["recorded_by"].as_str().unwrap().starts_with("key:operator/"), "{event}");
        assert_eq!(said["stands"][0]["said"], "opt_out");
        assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
        assert_eq!(decision(&tidings, "reminder", ADA).await, "send");
        tidings.stop().await;
    }

    async fn an_opt_out_of_somebody_never_seen_holds_when_they_become_known(database: Database) {
        let tidings = set_up(database).await;
        tidings.post("/opt-outs", by_phone("New.Person@Example.org", json!("all"))).await.is(201);
        tidings.post("/recipients", json!({ "email": "new.person@example.ORG" })).await.ok();
        assert_eq!(decision(&tidings, "marketing", "new.person@example.org").await, "suppress");
        tidings.stop().await;
    }

    async fn what_is_wrong_with_an_opt_out_is_named(database: Database) {
        let tidings = set_up(database).await;
        let with = |change: &dyn Fn(&mut Value)| {
            let mut body = by_phone(ADA, json!("all"));
            change(&mut body);
            body
        };
        for (pointer, body) in [
            ("/email", with(&|b| b["email"] = json!("ada"))),
            ("/email", with(&|b| b["email"] = json!("ada@example.org\r\nBcc: x@y.z"))),
            ("/scope", with(&|b| b["scope"] = json!("everything"))),
            ("/scope", with(&|b| b["scope"] = json!({ "topic": "marketing" }))),
            ("/scope/brand", with(&|b| b["scope"] = json!({ "brand": "nobody" }))),
            ("/scope/topic", with(&|b| b["scope"] = json!({ "brand": "acme", "topic": "nothing" }))),
            ("/channel", with(&|b| b["channel"] = json!("one_click"))),
            ("/note", with(&|b| b["note"] = json!("x".repeat(5000)))),
            ("/note", with(&|b| b["note"] = json!("a\u{0}b"))),
            ("/requested_at", with(&|b| b["requested_at"] = json!("2999-01-01T00:00:00Z"))),
            ("/colour", with(&|b| b["colour"] = json!("red"))),
        ] {
            tidings.post("/opt-outs", body).await.refuses(pointer);
        }
        assert_eq!(events(&tidings, ADA).await, 0);
        tidings.stop().await;
    }

    async fn roles_and_bound_keys_may_do_what_is_theirs(database: Database) {
        let tidings = set_up(database).await;
        tidings.brand("bee").await;
        let opt_in = json!({ "email": ADA, "scope": { "brand": "acme" }, "evidence": "form 12" });
        for (role, out, back, look) in [
            (Role::Admin, true, true, true),
            (Role::Operator, true, true, true),
            (Role::Accounts, true, false, true),
            (Role::Auditor, false, false, true),
            (Role::Marketer, false, false, false),
            (Role::Sender, false, false, false),
        ] {
            let caller = key(&tidings, role, false).await;
            let ok = |answer: crate::harness::Answer| answer.status.is_success();
            let scope = json!({ "brand": "acme" });
            assert_eq!(ok(caller.post("/opt-outs", by_phone(ADA, scope)).await), out, "{role}");
            assert_eq!(ok(caller.post("/opt-ins", opt_in.clone()).await), back, "{role}");
            assert_eq!(ok(caller.get(&format!("/opt-outs?email={ADA}")).await), look, "{role}");
            let explain = format!("/explain?email={ADA}&brand=acme&topic=marketing");
            assert_eq!(ok(caller.get(&explain).await), look, "{role}");
        }
        let bound = key(&tidings, Role::Operator, true).await;
        bound.post("/opt-outs", by_phone(ADA, json!({ "brand": "acme" }))).await.ok();
        bound.post("/opt-outs", by_phone(ADA, json!("all"))).await.problem(403);
        bound.post("/opt-outs", by_phone(ADA, json!({ "brand": "bee" }))).await.refuses("/scope/brand");
        tidings.anonymous().post("/opt-outs", by_phone(ADA, json!("all"))).await.problem(401);
        tidings.stop().await;
    }

    async fn a_key_bound_to_a_brand_learns_nothing_of_the_people_of_others(database: Database) {
        let tidings = set_up(database).await;
        tidings.brand("bee").await;
        let mine = "mine@people.example";
        for (email, brand) in [(ADA, "bee"), (mine, "acme")] {
            let person = json!({
                "email": email, "brands": [brand], "name": "Somebody Known", "attributes": { "plan": "gold" },
            });
            tidings.post("/recipients", person).await.ok();
            let mut said = by_phone(email, json!("all"));
            said["note"] = json!("told us why");
            tidings.post("/opt-outs", said).await.is(201);
            tidings.post("/opt-outs", by_phone(email, json!({ "brand": "acme" }))).await.is(201);
        }
        let bound = key(&tidings, Role::Admin, true).await;
        let scopes = async |email: &str| {
            let said = bound.get(&format!("/opt-outs?email={email}")).await.ok();
            (said["items"].as_array().unwrap().len(), said["stands"].as_array().unwrap().len())
        };
        assert_eq!((scopes(mine).await, scopes(ADA).await), ((2, 2), (1, 1)));
        bound.get(&format!("/explain?email={mine}&brand=acme&topic=marketing")).await.ok();
        for email in [ADA, "nobody@people.example"] {
            bound.get(&format!("/explain?email={email}&brand=acme&topic=marketing")).await.problem(404);
        }
        for how in ["false", "true"] {
            let list = bound.get(&format!("/opt-outs/export?addresses={how}")).await.is(200).text.clone();
            assert_eq!(list.lines().count(), 1 + 3, "{list}");
            assert_eq!(list.lines().filter(|line| line.contains(",all,")).count(), 1, "{list}");
            assert!(!list.contains(ADA) && list.contains(mine) == (how == "true"), "{list}");
        }
        let template = json!({ "subject": "Hello {{name}}", "html": "{{#if attributes.plan}}known{{/if}}", "brand": "acme" });
        bound.put("/templates/look", template).await.is(201);
        let draft = json!({ "brand": "acme", "topic": "marketing", "template": "look" });
        let campaign = bound.post("/campaigns", draft).await.id();
        let preview = async |email: &str| {
            bound.get(&format!("/campaigns/{campaign}/preview?email={email}")).await.ok().to_string()
        };
        let (ours, theirs) = (preview(mine).await, preview(ADA).await);
        assert!(ours.contains("Somebody Known") && ours.contains("known"), "{ours}");
        assert!(!theirs.contains("Somebody Known") && !theirs.contains("known"), "{theirs}");
        tidings.stop().await;
    }

    async fn an_opt_in_needs_evidence_and_counts_from_its_commit_on(database: Database) {
        let tidings = set_up(database).await;
        tidings.post("/opt-outs", by_phone(ADA, json!("all"))).await.is(201);
        for evidence in ["", "  \n"] {
            let body = json!({ "email": ADA, "scope": "all", "evidence": evidence });
            tidings.post("/opt-ins", body).await.refuses("/evidence");
        }
        let body = json!({ "email": ADA, "scope": { "brand": "acme", "topic": "marketing" }, "evidence": "form 12" });
        tidings.post("/opt-ins", body).await.is(201);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
        assert_eq!(decision(&tidings, "reminder", ADA).await, "suppress");
        let said = said(&tidings, ADA).await;
        assert_eq!(said["items"][0]["evidence"], "form 12");
        // Whoever opted out before and says so again after an opt-in is heard.
        tidings.post("/opt-outs", by_phone(ADA, json!("all"))).await.is(201);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
        tidings.stop().await;
    }

    async fn explain_gives_the_words_of_the_decision(database: Database) {
        let tidings = set_up(database).await;
        let because = async |topic: &str| {
            let path = format!("/explain?email={ADA}&brand=acme&topic={topic}");
            tidings.get(&path).await.ok()["because"].clone()
        };
        assert_eq!(because("marketing").await, json!(["no_objection"]));
        assert_eq!(because("service").await, json!(["cannot_be_refused"]));
        tidings.post("/opt-outs", by_phone(ADA, json!("all"))).await.ok();
        tidings.post("/opt-outs", by_phone(ADA, json!({ "brand": "acme", "topic": "marketing" }))).await.ok();
        assert_eq!(because("marketing").await, json!(["opted_out_of_topic", "opted_out_of_all"]));
        assert_eq!(because("service").await, json!(["cannot_be_refused"]));
        tidings.get(&format!("/explain?email={ADA}&brand=acme&topic=nothing")).await.refuses("topic");
        tidings.get(&format!("/explain?email={ADA}&brand=nobody&topic=x")).await.refuses("brand");
        tidings.get("/explain?email=ada&brand=acme&topic=marketing").await.refuses("email");
        tidings.stop().await;
    }

    async fn what_a_person_said_is_listed_newest_first_and_in_pages(database: Database) {
        let tidings = set_up(database).await;
        for topic in ["marketing", "reminder", "relationship"] {
            tidings.post("/opt-outs", by_phone(ADA, json!({ "brand": "acme", "topic": topic }))).await.is(201);
        }
        let first = tidings.get(&format!("/opt-outs?email={ADA}&limit=2")).await.ok();
        assert_eq!(first["items"][0]["scope"]["topic"], "relationship");
        let next = first["next"].as_str().unwrap();
        let second = tidings.get(&format!("/opt-outs?email={ADA}&limit=2&after={next}")).await.ok();
        assert_eq!(second["items"].as_array().unwrap().len(), 1);
        assert_eq!(second["items"][0]["scope"]["topic"], "marketing");
        assert_eq!(second["next"], Value::Null);
        let nobody = tidings.get("/opt-outs?email=nobody@example.org").await.ok();
        assert_eq!((&nobody["items"], &nobody["stands"]), (&json!([]), &json!([])));
        tidings.stop().await;
    }

    async fn an_exported_list_brings_the_refusals_back_after_a_restored_backup(database: Database) {
        let tidings = set_up(database).await;
        // Before the backup; taken back later by the person.
        let path = path(&tidings, "reminder", "bob@example.org").await;
        tidings.submit(&path, &[("page", "1"), ("scope", "topic")]).await.is(200);
        for n in 0..30 {
            let scope = if n % 2 == 0 { json!("all") } else { json!({ "brand": "acme", "topic": "marketing" }) };
            tidings.post("/opt-outs", by_phone(&format!("p{n}@example.org"), scope)).await.is(201);
        }
        let lifted = json!({ "email": "p0@example.org", "scope": "all", "evidence": "form 12" });
        tidings.post("/opt-ins", lifted).await.is(201);
        let export = tidings.get("/opt-outs/export").await;
        export.is(200);
        assert_eq!(export.header("content-type"), "text/csv; charset=utf-8");
        assert!(!export.text.contains('@') && export.text.starts_with("address,scope,channel,time\r\n"), "{}", export.text);
        // All but the one that was lifted.
        assert_eq!(export.text.lines().count(), 1 + 30, "{}", export.text);
        let with_addresses = tidings.get("/opt-outs/export?addresses=true").await;
        assert!(!with_addresses.text.contains("p1@"), "nobody's address is kept for an opt-out alone");

        tidings.submit(&path, &[("undo", "1")]).await.is(200);
        let again = tidings.post_text("/opt-outs/import", "text/csv", export.text.clone()).await.ok();
        assert_eq!((&again["received"], &again["already_there"]), (&json!(30), &json!(30)), "{again}");
        assert_eq!(decision(&tidings, "reminder", "bob@example.org").await, "send", "the undo came later");

        // As if the backup were older: what was said is gone.
        let db = &tidings.app().db;
        let txn = db.begin().await.unwrap();
        for table in ["suppressions", "opt_events", "addresses"] {
            sea_orm::ConnectionTrait::execute_unprepared(&*txn, &format!("DELETE FROM {table}")).await.unwrap();
        }
        txn.commit().await.unwrap();
        assert_eq!(decision(&tidings, "marketing", "p1@example.org").await, "send");
        let report = tidings.post_text("/opt-outs/import", "text/csv", export.text.clone()).await.ok();
        assert_eq!((&report["added"], &report["rejected"]), (&json!(30), &json!(0)), "{report}");
        assert_eq!(decision(&tidings, "marketing", "p1@example.org").await, "suppress");
        let event = &said(&tidings, "p1@example.org").await["items"][0];
        assert_eq!(event["channel"], "phone");
        assert!(event["requested_at"].is_string(), "{event}");
        tidings.stop().await;
    }

    async fn a_plain_list_is_taken_in_line_by_line_with_a_report(database: Database) {
        let tidings = set_up(database).await;
        let list = "a@example.org\r\n\r\nnot an address\nb@example.org,brand:acme,letter,2025-05-05T00:00:00Z\n\
                    c@example.org,brand:nobody\nc@example.org,all,pigeon\na@example.org\nd@example.org,all,phone,2999-01-01T00:00:00Z\n\
                    AAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
        let report = tidings.post_text("/opt-outs/import?scope=topic:acme/marketing", "text/plain", list).await.ok();
        assert_eq!((&report["received"], &report["added"]), (&json!(8), &json!(2)), "{report}");
        assert_eq!((&report["already_there"], &report["rejected"]), (&json!(1), &json!(5)), "{report}");
        let lines: Vec<u64> =
            report["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64().unwrap()).collect();
        assert_eq!(lines, [3, 5, 6, 8, 9], "{report}");
        assert!(!report.to_string().contains('@'), "{report}");
        assert_eq!(decision(&tidings, "marketing", "a@example.org").await, "suppress");
        assert_eq!(decision(&tidings, "reminder", "a@example.org").await, "send");
        assert_eq!(decision(&tidings, "reminder", "b@example.org").await, "suppress");
        tidings.post_text("/opt-outs/import", "application/json", "{}").await.problem(415);
        tidings.post_text("/opt-outs/import", "text/csv", "email,colour\n").await.problem(422);
        tidings.post_text("/opt-outs/import?scope=some", "text/csv", "").await.refuses("scope");
        tidings.stop().await;
    }

    async fn a_dead_address_is_lifted_for_one_or_for_a_window(database: Database) {
        let tidings = set_up(database).await;
        let app = tidings.app();
        let hash = |email: &str| {
            app.address_key.hash(&tidings::address::EmailAddress::parse(email).unwrap())
        };
        for email in [ADA, "bob@example.org"] {
            let txn = app.db.begin().await.unwrap();
            tidings::opt_out::rows::record_failure(&txn, &app.db, &hash(email)).await.unwrap();
            txn.commit().await.unwrap();
            assert_eq!(decision(&tidings, "marketing", email).await, "suppress");
        }
        let operator = key(&tidings, Role::Operator, false).await;
        let one = operator.post("/addresses/revive", json!({ "email": ADA })).await.ok();
        assert_eq!(one["revived"], 1);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
        let now = app.db.read_clock(app.db.reads()).await.unwrap();
        let hour = Duration::from_secs(3600);
        let since = tidings::clock::Timestamp(now.0 - 3_600_000_000);
        let window = json!({ "since": since, "until": now.plus(hour) });
        operator.post("/addresses/revive", window.clone()).await.problem(403);
        assert_eq!(tidings.post("/addresses/revive", window).await.ok()["revived"], 1);
        assert_eq!(decision(&tidings, "marketing", "bob@example.org").await, "send");
        tidings.post("/addresses/revive", json!({})).await.problem(422);
        tidings.stop().await;
    }
}
