//! What a notice's template may not hold, where the change stands besides, what consent is, and what proves that people were
//! told.

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::json;
use tidings::address::EmailAddress;
use tidings::notice::rows::verify;

use crate::evidence::{PEOPLE, approval_link, command, evidence_of, run_sql, told};
use crate::harness::{Database, Tidings, eventually, said};

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// All that a notice must say.
const GOOD: &str = "<p>{{data.summary}} {{data.effective_date}} {{data.effective_utc}} <a href=\"{{data.url}}\">new</a> \
    <a href=\"{{data.old_url}}\">old</a> <a href=\"{{approve_url}}\">answer</a> {{data.rights}} {{brand.postal_address}}</p>";

async fn ready(database: Database) -> Tidings {
    let tidings = Tidings::start(database).await;
    tidings.ready_to_send().await;
    tidings.recipients(3).await;
    tidings
}

on_both! {
    async fn pn3_pn12_a_template_that_advertises_tracks_or_leaves_it_to_people_is_refused_or_warned_of(database: Database) {
        let tidings = ready(database).await;
        let policy = json!({ "brand": "acme", "title": "Privacy policy", "template": "notice" });
        for (html, words) in [
            (GOOD.to_owned(), None),
            (GOOD.replace("{{data.effective_date}}", ""), Some("the date")),
            (format!("{GOOD}<img src=\"https://acme.example.com/p.gif\">"), Some("images")),
            (format!("{GOOD}<a href=\"https://shop.example/?utm_source=mail\">Sale</a>"), Some("utm_")),
            (format!("{GOOD}<a href=\"&#104;ttps:\\\\acme.example.com/sale\">Sale</a>"), Some("/sale")),
            (format!("<p>Hello</p><!-- {GOOD} -->"), Some("the date")),
            (format!("<p>Hello</p>{{{{#if data.never}}}}{GOOD}{{{{/if}}}}"), Some("the date")),
            (format!("<div style=\"display:none\">{GOOD}</div>"), Some("display:none")),
            (format!("{GOOD}{{{{#if (eq name \"Ada\")}}}}<object data=\"//t.example\"></object>{{{{/if}}}}"), Some("<object>")),
            (format!("{GOOD}{{{{#if attributes.promo}}}}{{{{attributes.promo}}}}{{{{/if}}}}"), Some("attributes")),
        ] {
            let template = json!({ "subject": "{{data.policy}} changes", "html": html, "classes": ["notice"] });
            tidings.put("/templates/notice", template).await.ok();
            let answer = tidings.put("/policies/privacy", policy.clone()).await;
            match words {
                None => drop(answer.ok()),
                Some(words) => {
                    let reason = answer.refuses("/template");
                    assert!(reason.contains(words), "{reason}");
                }
            }
        }
        let template = json!({ "subject": "Great news", "html": GOOD, "classes": ["notice"] });
        tidings.put("/templates/notice", template).await.ok();
        let reason = tidings.put("/policies/privacy", policy.clone()).await.refuses("/template");
        assert!(reason.contains("subject"), "{reason}");
        let html = format!("{GOOD}<p>Please check this page from time to time.</p>");
        let template = json!({ "subject": "{{data.policy}} changes", "html": html, "classes": ["notice"] });
        tidings.put("/templates/notice", template).await.ok();
        let put = tidings.put("/policies/privacy", policy).await.ok();
        assert!(put["warnings"][0]["reason"].as_str().unwrap().contains("check this page"), "{put}");
        tidings.policy(json!({ "template": "notice" })).await;
        tidings.announce("material", json!({})).await;
        let mail = tidings.smtp.wait_for_message_to("p0@people.example.com").await;
        assert_eq!(mail.parsed().subject(), Some("Privacy policy changes"));
        tidings.stop().await;
    }

    async fn pn5_silence_is_no_consent_and_only_a_button_is(database: Database) {
        let tidings = ready(database).await;
        tidings.policy(json!({})).await;
        tidings.announce("adverse", json!({})).await;
        let person = async |n: usize| {
            let found = tidings.get(&format!("/recipients?email=p{n}@people.example.com")).await.ok();
            let id = found["items"][0]["id"].as_str().unwrap().to_owned();
            tidings.get(&format!("/recipients/{id}/policies")).await.ok()["items"][0].clone()
        };
        for (n, decision) in [(0, "approve"), (1, "decline")] {
            let mail = tidings.smtp.wait_for_message_to(&format!("p{n}@people.example.com")).await;
            let text = mail.parsed().body_text(0).unwrap().into_owned();
            let link = text.split_whitespace().find(|word| word.contains("/a/")).unwrap().to_owned();
            let path = link.split_once("/a/").map(|(_, token)| format!("/a/{token}")).unwrap();
            tidings.anonymous().page(&path).await.is(200);
            assert!(person(n).await["pending"][0]["answer"].is_null());
            tidings.anonymous().submit(&path, &[("decision", decision)]).await.is(200);
            assert_eq!(person(n).await["pending"][0]["answer"], decision);
        }
        tidings.advance(DAY * 41);
        for (n, version, because) in [(0, 2, "approved"), (1, 1, "declined"), (2, 1, "silence")] {
            let stands = person(n).await;
            assert_eq!((&stands["version"], &stands["because"]), (&json!(version), &json!(because)), "{stands}");
        }
        tidings.stop().await;
    }

    async fn pn6_the_site_tells_of_a_change_from_its_publication_on(database: Database) {
        let tidings = ready(database).await;
        tidings.policy(json!({ "banner_days_after": 3 })).await;
        let told = async || tidings.anonymous().page("/notices/current.json?brand=acme").await.json()["notices"].clone();
        tidings.announce("material", json!({})).await;
        let notices = told().await;
        let one = notices.as_array().unwrap().iter().find(|one| one["version"] == 2).unwrap().clone();
        assert_eq!((&one["policy"], &one["change"]), (&json!("privacy"), &json!("material")), "{one}");
        tidings.advance(DAY * 42);
        assert!(told().await.as_array().unwrap().iter().any(|one| one["version"] == 2));
        tidings.advance(DAY * 2);
        assert!(!told().await.as_array().unwrap().iter().any(|one| one["version"] == 2));
        tidings.stop().await;
    }

    async fn pn7_what_was_sent_to_whom_is_in_evidence_and_a_changed_row_is_named(database: Database) {
        let tidings = ready(database).await;
        tidings.policy(json!({})).await;
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap().to_owned();
        let people = eventually("everyone in evidence", async || {
            let text = tidings.get(&format!("/notices/{id}/evidence")).await.text;
            (text.lines().count() == 3).then_some(text)
        })
        .await;
        let mail = tidings.smtp.wait_for_message_to("p0@people.example.com").await;
        let message_id = mail.header("Message-ID").unwrap();
        let named = people.contains(message_id.trim_matches(['<', '>']));
        assert!(named && !people.contains("people.example.com"), "{people}");
        let app = tidings.app();
        let notice = id.parse().unwrap();
        assert!(verify(&app.db, notice).await.unwrap().is_ok());
        let txn = app.db.begin().await.unwrap();
        let sql = "UPDATE evidence SET body = replace(body, 'sent', 'lost') WHERE seq = 3";
        txn.execute_raw(Statement::from_string(app.db.backend(), sql)).await.unwrap();
        txn.commit().await.unwrap();
        let broken = verify(&app.db, notice).await.unwrap().unwrap_err();
        assert!(format!("{broken:?}").contains('3'), "{broken:?}");
        tidings.stop().await;
    }

    async fn pn7_the_proof_survives_the_erasure_of_a_person_under_the_hash_of_their_address(database: Database) {
        let tidings = Tidings::start(database).await;
        let notice = told(&tidings).await;
        let mail = tidings.smtp.wait_for_message_to("p0@people.example.com").await;
        let link = approval_link(&mail.parsed().body_text(0).unwrap());
        tidings.submit(&link, &[("decision", "approve")]).await.is(200);
        let before = evidence_of(&tidings, &notice, PEOPLE).await;
        // One who answered and one who was refused; all that names them goes.
        let erased = "UPDATE recipients SET standing = 'erased', address = NULL, folded = NULL, name = NULL, locale = NULL, \
            external_id = NULL, attributes = '{}' WHERE folded LIKE 'p0@%' OR folded LIKE 'p2@%'";
        run_sql(&tidings, &[erased]).await;
        let found = tidings.get("/recipients?email=p0@people.example.com").await.ok();
        assert_eq!(found["items"][0]["standing"], "erased", "{found}");
        assert_eq!(found["items"][0]["email"], json!(null));
        assert_eq!(evidence_of(&tidings, &notice, PEOPLE).await, before);
        let here = tempfile::tempdir().unwrap();
        for arguments in [
            &["evidence", "verify"][..],
            &["evidence", "export", "--notice", &notice, "--output", "proof.tar.gz"],
            &["evidence", "verify", "proof.tar.gz"],
        ] {
            let output = command(&tidings, here.path(), arguments);
            assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        }
        let address = EmailAddress::parse("p0@people.example.com").unwrap();
        let hash = tidings.app().address_key.hash(&address).0;
        let hash: String = hash.iter().map(|octet| format!("{octet:02x}")).collect();
        let proved = before.iter().find(|line| line["person"] == hash).unwrap();
        assert_eq!(proved["approval"]["decision"], "approve", "{proved}");
        tidings.stop().await;
    }
}
