//! Whoever's notice came back was not told: they are listed, told another way, and all of it is in evidence.

use serde_json::{Value, json};
use tidings::notice::rows::verify;

use crate::bounces::{Report, sender_of};
use crate::harness::{Answer, Database, LINK_KEYS, Tidings, eventually, run_in, said};
use crate::intake::takes_mail;

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// A change of which three people, `p0` to `p2`, were told; gives the notice.
async fn told(database: Database, change: &str) -> (Tidings, String) {
    let tidings = Tidings::start_with(database, takes_mail).await;
    tidings.ready_to_send().await;
    tidings.recipients(3).await;
    tidings.policy(json!({ "on_untold": "earlier_version_stands" })).await;
    let id = tidings.announce(change, json!({})).await["id"].as_str().unwrap().to_owned();
    tidings
        .notice_when("everyone was told of", &id, |notice| notice["rounds"][0]["completed_at"].is_string())
        .await;
    (tidings, id)
}

/// The evidence, once this holds of it: a line a person.
async fn evidence(tidings: &Tidings, notice: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually("evidence", async || {
        let text = tidings.get(&format!("/notices/{notice}/evidence")).await.text;
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        holds(&lines).then_some(lines)
    })
    .await
}

fn bounces(lines: &[Value]) -> usize {
    lines.iter().map(|line| line["bounces"].as_array().unwrap().len()).sum()
}

async fn counts(tidings: &Tidings, notice: &str) -> Value {
    tidings.get(&format!("/notices/{notice}")).await.ok()["counts"].clone()
}

/// The id of a person.
async fn person(tidings: &Tidings, email: &str) -> String {
    let found = tidings.get(&format!("/recipients?email={email}")).await.ok();
    found["items"][0]["id"].as_str().unwrap().to_owned()
}

/// Which version of the policy stands for a person, and why.
async fn stands(tidings: &Tidings, recipient: &str) -> (Value, Value) {
    let standing = tidings.get(&format!("/recipients/{recipient}/policies")).await.ok()["items"][0].clone();
    (standing["version"].clone(), standing["because"].clone())
}

on_both! {
    async fn pn7_a_notice_that_comes_back_is_in_evidence_and_in_the_export_and_once(database: Database) {
        let (tidings, id) = told(database, "material").await;
        evidence(&tidings, &id, |lines| lines.len() == 3).await;
        let email = "p1@people.example.com";
        let sender = sender_of(&tidings, email).await;
        let words = "550 5.1.1 <p1@people.example.com>: P1 is unknown at people.example.com";
        Report { said: words, ..Report::nobody(email) }.send(&tidings, &sender).await;
        let lines = evidence(&tidings, &id, |lines| bounces(lines) == 1).await;
        let line = lines.iter().find(|line| line["bounces"][0].is_object()).unwrap();
        let (delivery, bounce) = (&line["deliveries"][0], &line["bounces"][0]);
        assert_eq!((&delivery["state"], &delivery["delivery"]), (&json!("sent"), &bounce["delivery"]), "{line}");
        assert_eq!((&bounce["message_id"], &bounce["recipient"]), (&delivery["message_id"], &line["recipient"]), "{line}");
        assert_eq!((&bounce["status"], &bounce["round"]), (&json!("5.1.1"), &json!(1)));
        assert_eq!(bounce["words"], "550 5.1.1 <…>: … is unknown at people.example.com");
        assert!(bounce["bounced_at"].is_string() && line["entries"].as_array().unwrap().len() == 2, "{line}");
        // The same again, and another one: nothing new.
        let head = verify(&tidings.app().db, id.parse().unwrap()).await.unwrap().unwrap();
        for status in ["5.1.1", "5.7.1"] {
            Report { status, ..Report::nobody(email) }.send(&tidings, &sender).await;
        }
        // What comes next would have come after them.
        Report { status: "4.4.7", said: "too long", ..Report::nobody("p2@people.example.com") }
            .send(&tidings, &sender_of(&tidings, "p2@people.example.com").await)
            .await;
        let lines = evidence(&tidings, &id, |lines| bounces(lines) == 2).await;
        assert!(lines.iter().all(|line| line["deliveries"].as_array().unwrap().len() == 1), "{lines:?}");
        let db = &tidings.app().db;
        let now = verify(db, id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(now.seq, head.seq + 1);

        let here = tempfile::tempdir().unwrap();
        let url = tidings.database.url();
        let env = [("TIDINGS_DATABASE_URL", url.as_str()), ("TIDINGS_LINK_KEYS", LINK_KEYS)];
        let exported = run_in(here.path(), &["evidence", "export", "--notice", &id, "--json", "--output", "proof.tar.gz"], &env);
        assert!(exported.status.success(), "{}", said(&exported));
        let exported: Value = serde_json::from_slice(&exported.stdout).unwrap();
        let round = &exported["counts"]["rounds"][0];
        assert_eq!((&round["ended"]["sent"], &round["bounced"]), (&json!(3), &json!(2)), "{round}");
        let verified = run_in(here.path(), &["evidence", "verify", "proof.tar.gz"], &[]);
        assert!(verified.status.success(), "{}", said(&verified));
        let archive = std::fs::File::open(here.path().join("proof.tar.gz")).unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        for file in tar.entries().unwrap() {
            let mut file = file.unwrap();
            let (name, mut text) = (file.path().unwrap().display().to_string(), String::new());
            std::io::Read::read_to_string(&mut file, &mut text).unwrap();
            assert!(!text.contains("p1@") && !text.contains("p2@"), "{name} names a person");
            match name.as_str() {
                "summary.html" => assert!(text.contains("3 sent; 2 of them came back"), "{text}"),
                "evidence.ndjson" => assert_eq!(text.matches("\"kind\":\"bounced\"").count(), 2),
                _ => {}
            }
        }
        tidings.stop().await;
    }

    async fn pn1_whoever_s_notice_came_back_is_listed_until_they_are_told_another_way(database: Database) {
        let (tidings, id) = told(database, "material").await;
        let email = "p0@people.example.com";
        assert_eq!(counts(&tidings, &id).await, json!({ "total": 3, "told": 3, "pending": 0, "unreachable": 0 }));
        let sender = sender_of(&tidings, email).await;
        for _ in 0..2 {
            Report { status: "5.2.2", said: "552 5.2.2 full", ..Report::nobody(email) }.send(&tidings, &sender).await;
        }
        let notice = tidings.get(&format!("/notices/{id}")).await.ok();
        assert_eq!(notice["counts"], json!({ "total": 3, "told": 2, "pending": 0, "unreachable": 1 }));
        assert_eq!(notice["rounds"][0]["counts"]["sent"], 3, "nothing accepted leaves the counts");
        let ada = person(&tidings, email).await;
        let list = format!("/notices/{id}/unreachable");
        let listed = tidings.get(&list).await.ok();
        let one = &listed["items"][0];
        assert_eq!((listed["items"].as_array().unwrap().len(), &one["recipient"], &one["reason"], &one["reply"]),
            (1, &json!(ada), &json!("bounced"), &json!("552 5.2.2 full")), "{listed}");
        let csv = Answer::of(tidings.call(reqwest::Method::GET, &list).header("accept", "text/csv")).await;
        let line = csv.text.lines().nth(1).unwrap();
        assert!(csv.text.lines().count() == 2 && line.contains(&format!("{email},Person 0,,bounced 5.2.2,")), "{}", csv.text);

        let other = person(&tidings, "p1@people.example.com").await;
        let tell = format!("/notices/{id}/told");
        tidings.post(&tell, json!({ "recipient": other, "by": "phone" })).await.refuses("/recipient");
        tidings.advance(DAY * 41);
        tidings.notice_when("is in effect", &id, |notice| notice["state"] == "in_effect").await;
        assert_eq!(stands(&tidings, &ada).await, (json!(1), json!("not_told")));
        assert_eq!(stands(&tidings, &other).await, (json!(2), json!("told")));
        assert_eq!(tidings.post(&tell, json!({ "recipient": ada, "by": "letter" })).await.ok()["recorded"], true);
        assert_eq!(counts(&tidings, &id).await, json!({ "total": 3, "told": 3, "pending": 0, "unreachable": 0 }));
        assert_eq!(tidings.get(&list).await.ok()["items"][0]["told_by"], "letter");
        assert_eq!(stands(&tidings, &ada).await, (json!(2), json!("told")));
        // Long after all is done another one comes back.
        tidings.notice_when("is closed", &id, |notice| notice["closed_at"].is_string()).await;
        Report::nobody("p1@people.example.com").send(&tidings, &sender_of(&tidings, "p1@people.example.com").await).await;
        evidence(&tidings, &id, |lines| bounces(lines) == 2).await;
        assert_eq!(counts(&tidings, &id).await, json!({ "total": 3, "told": 2, "pending": 0, "unreachable": 1 }));
        tidings.stop().await;
    }

    async fn pn1_a_correction_that_arrives_tells_whom_the_first_message_did_not_reach(database: Database) {
        let (tidings, id) = told(database, "material").await;
        let email = "p0@people.example.com";
        Report { status: "4.4.1", ..Report::nobody(email) }.send(&tidings, &sender_of(&tidings, email).await).await;
        assert_eq!(counts(&tidings, &id).await["unreachable"], 1);
        tidings.post(&format!("/notices/{id}/correct"), json!({ "reason": "r", "summary": "Something else." })).await.ok();
        let again = tidings.notice_when("was corrected", &id, |notice| notice["rounds"][1]["completed_at"].is_string()).await;
        assert_eq!(again["counts"], json!({ "total": 3, "told": 3, "pending": 0, "unreachable": 0 }), "{again}");
        tidings.advance(DAY * 41);
        let ada = person(&tidings, email).await;
        assert_eq!(stands(&tidings, &ada).await, (json!(2), json!("told")));
        tidings.stop().await;
    }

    async fn pn10_whoever_was_not_told_since_it_came_back_is_not_told_of_the_withdrawal(database: Database) {
        let (tidings, id) = told(database, "material").await;
        let email = "p0@people.example.com";
        Report { status: "5.7.1", ..Report::nobody(email) }.send(&tidings, &sender_of(&tidings, email).await).await;
        tidings.post(&format!("/notices/{id}/withdraw"), json!({ "reason": "We thought again." })).await.ok();
        tidings.notice_when("is closed", &id, |notice| notice["closed_at"].is_string()).await;
        for (n, letters) in [(0, 1), (1, 2), (2, 2)] {
            assert_eq!(tidings.smtp.messages_to(&format!("p{n}@people.example.com")).len(), letters, "p{n}");
        }
        tidings.stop().await;
    }
}
