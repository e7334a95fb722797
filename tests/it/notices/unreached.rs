//! Those who could not be told: listed with the reason, in a file that does no harm, and nobody waits for them.

use reqwest::Method;
use serde_json::json;
use tidings::address::EmailAddress;
use tidings::opt_out;
use tidings::serve::Parts;

use crate::approvals::{DAY, announced, in_effect, link, scene, stands, told};
use crate::harness::{Act, Answer, Database, Stage, Tidings};
use crate::policies::version;
use crate::promises::sql;

/// All that a notice must say.
const GOOD: &str = "<p>{{data.summary}} {{data.effective_date}} {{data.effective_utc}} <a href=\"{{data.url}}\">new</a> \
    <a href=\"{{data.old_url}}\">old</a> <a href=\"{{approve_url}}\">answer</a> {{data.rights}} {{brand.postal_address}}</p>";

on_both! {
    async fn who_accepted_a_version_that_is_called_off_is_told_of_the_one_before_it(database: Database) {
        let tidings = scene(database).await;
        let second = announced(&tidings, version(&tidings, "adverse", 40)).await;
        let third = announced(&tidings, version(&tidings, "material", 60)).await;
        told(&tidings, &second, 2).await;
        told(&tidings, &third, 2).await;
        let carol = "carol@example.org";
        tidings.post("/recipients", json!({ "email": carol, "policies": { "privacy": 3 } })).await.is(201);
        // Whoever comes after her was looked at, and so was she.
        tidings.recipient("dave@example.org").await;
        told(&tidings, &second, 3).await;
        told(&tidings, &third, 3).await;
        assert!(tidings.smtp.messages_to(carol).is_empty());
        tidings.post(&format!("/notices/{third}/withdraw"), json!({ "reason": "It does not come." })).await.ok();
        told(&tidings, &second, 4).await;
        link(&tidings, carol, 1).await;
        tidings.advance(DAY * 41);
        in_effect(&tidings, &second).await;
        let found = stands(&tidings, carol).await;
        assert_eq!((&found["version"], &found["because"]), (&json!(1), &json!("silence")), "{found}");
        let rounds = tidings.get(&format!("/notices/{second}")).await.ok()["rounds"].clone();
        assert_eq!(rounds[0]["counts"]["sent"], 4, "nobody is told twice: {rounds}");
        tidings.stop().await;
    }

    async fn the_list_for_letters_is_csv_in_which_nothing_is_a_formula(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let names = ["=1+1", "+1", "-1", "@SUM(A1)", "Ada, \"A.\" = Byron", "Bob"];
        for (n, name) in names.iter().enumerate() {
            let person = json!({ "email": format!("p{n}@people.example.com"), "name": name, "external_id": format!("={n}") });
            tidings.post("/recipients", person).await.is(201);
        }
        // All of these stand in addresses as they may be.
        let formula = "=cmd|'/calc'!a0@people.example.com";
        tidings.post("/recipients", json!({ "email": formula })).await.is(201);
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 not here"));
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        tidings.notice_when("told nobody", id, |notice| notice["counts"]["unreachable"] == names.len() + 1).await;
        let csv = tidings.call(Method::GET, &format!("/notices/{id}/unreachable")).header("accept", "text/csv");
        let csv = Answer::of(csv).await;
        assert!(csv.text.starts_with("recipient,email,name,external_id,reason,told_by,told_at,reply,attributes\r\n"), "{}", csv.text);
        assert!(csv.text.contains(",\"Ada, \"\"A.\"\" = Byron\","), "{}", csv.text);
        let mut reader = csv::Reader::from_reader(csv.text.as_bytes());
        let mut lines: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        lines.sort_by(|one, other| one[1].cmp(&other[1]));
        let named: Vec<[&str; 3]> = lines.iter().map(|line| [&line[1], &line[2], &line[3]]).collect();
        assert_eq!(named[0], ["'=cmd|'/calc'!a0@people.example.com", "", ""]);
        let expected = ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "Ada, \"A.\" = Byron", "Bob"];
        for (n, name) in expected.iter().enumerate() {
            assert_eq!(named[n + 1], [&format!("p{n}@people.example.com"), *name, &format!("'={n}")]);
        }
        let formulas = |cell: &str| cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        assert!(!lines.iter().flat_map(csv::StringRecord::iter).any(formulas), "{}", csv.text);
        tidings.stop().await;
    }

    async fn whoever_writes_the_letters_reads_why_and_all_that_is_kept_of_the_person(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        for (who, status) in [("gone", "5.1.1 no such user"), ("policy", "5.7.1 =not from you"), ("plain", "no")] {
            let email = format!("{who}@people.example.com");
            let person = json!({ "email": email, "attributes": { "street": "1, Main \"St\"", "who": who } });
            tidings.post("/recipients", person).await.is(201);
            tidings.smtp.on(Stage::Rcpt, Act::reply(550, status)).to(&email);
        }
        tidings.recipient("bare@people.example.com").await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 no")).to("bare@people.example.com");
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        tidings.notice_when("told nobody", id, |notice| notice["counts"]["unreachable"] == 4).await;
        let list = tidings.get(&format!("/notices/{id}/unreachable")).await.ok();
        let of = |who: &str| {
            let email = format!("{who}@people.example.com");
            list["items"].as_array().unwrap().iter().find(|one| one["email"] == email).unwrap().clone()
        };
        for (who, reason, status) in [("gone", "address_dead", json!("5.1.1")), ("policy", "refused", json!("5.7.1")), ("plain", "refused", json!(null))] {
            let one = of(who);
            assert_eq!((&one["reason"], &one["status"]), (&json!(reason), &status), "{one}");
            assert_eq!(one["attributes"], json!({ "street": "1, Main \"St\"", "who": who }), "{one}");
        }
        let csv = tidings.call(Method::GET, &format!("/notices/{id}/unreachable")).header("accept", "text/csv");
        let csv = Answer::of(csv).await;
        let mut reader = csv::Reader::from_reader(csv.text.as_bytes());
        let lines: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let line = |who: &str| lines.iter().find(|line| line[1].starts_with(who)).unwrap();
        assert_eq!((&line("gone")[4], &line("policy")[4], &line("bare")[8]), ("address_dead", "refused", ""), "{}", csv.text);
        assert!(line("gone")[7].contains("no such user") && line("policy")[7].contains("not from you"), "{}", csv.text);
        let attributes: serde_json::Value = serde_json::from_str(&line("gone")[8]).unwrap();
        assert_eq!(attributes, of("gone")["attributes"]);
        tidings.stop().await;
    }

    async fn dead_addresses_are_listed_before_anything_is_tried(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(3).await;
        let (app, dead) = (tidings.app(), EmailAddress::parse("p1@people.example.com").unwrap());
        let txn = app.db.begin().await.unwrap();
        opt_out::rows::record_failure(&txn, &app.db, &app.address_key.hash(&dead)).await.unwrap();
        txn.commit().await.unwrap();
        // The second failure came more than a day after the first.
        sql(&tidings, "UPDATE addresses SET first_failed_at = first_failed_at - 200000000000 WHERE failures > 0").await;
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        let told = tidings.notice_when("was tried", id, |notice| notice["counts"]["pending"] == 0 && notice["counts"]["total"] == 3);
        assert_eq!(told.await["counts"]["unreachable"], 1);
        let list = tidings.get(&format!("/notices/{id}/unreachable")).await.ok();
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
        let one = &list["items"][0];
        assert_eq!((&one["email"], &one["reason"]), (&json!("p1@people.example.com"), &json!("address_dead")), "{list}");
        assert!(tidings.smtp.messages_to("p1@people.example.com").is_empty());
        tidings.stop().await;
    }

    async fn those_for_whom_the_template_cannot_be_made_are_listed_and_hold_nobody_up(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        // A subject that holds ten times a long name is too long.
        let subject = format!("{{{{data.policy}}}} changes{}", " {{name}}".repeat(10));
        let template = |html: &str| json!({ "subject": subject, "html": html, "classes": ["notice"] });
        tidings.put("/templates/name", template("<p>Your name is {{name}}.</p>")).await.ok();
        tidings.put("/templates/notice", template(&format!("{GOOD}{{{{> name}}}}"))).await.ok();
        for n in 0..6 {
            let name = if n % 3 == 0 { "x".repeat(200) } else { "Ann".to_owned() };
            let person = json!({ "email": format!("p{n}@people.example.com"), "name": name });
            tidings.post("/recipients", person).await.is(201);
        }
        tidings.policy(json!({ "template": "notice" })).await;
        let notice = tidings.announce("adverse", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        // What becomes of the template afterwards concerns nobody of this round.
        tidings.put("/templates/name", template("<p>{{attributes.nobody_has_it}}</p>")).await.ok();
        let worker = tidings.another(Parts { web: false, ..Parts::default() }).await;
        let late = json!({ "email": "late@people.example.com", "name": "Small" });
        tidings.post("/recipients", late).await.is(201);
        let told = tidings.notice_when("was tried for everyone", id, |notice| {
            notice["counts"]["total"] == 7 && notice["rounds"][0]["completed_at"].is_string()
        })
        .await;
        assert_eq!(told["counts"], json!({ "total": 7, "told": 5, "pending": 0, "unreachable": 2 }), "{told}");
        let text = tidings.smtp.wait_for_message_to("late@people.example.com").await.text();
        assert!(text.contains("Your name is Small."), "{text}");
        let list = tidings.get(&format!("/notices/{id}/unreachable")).await.ok();
        let mut listed: Vec<&str> = Vec::new();
        for one in list["items"].as_array().unwrap() {
            assert!(one["reason"].as_str().unwrap().contains("subject is longer than 2000 octets"), "{one}");
            listed.push(one["email"].as_str().unwrap());
        }
        listed.sort_unstable();
        assert_eq!(listed, ["p0@people.example.com", "p3@people.example.com"]);
        worker.stop().await;
        tidings.stop().await;
    }
}
