//! What answers come from says what the evidence says, and whoever changes it is found out.

use std::path::Path;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend};
use serde_json::{Value, json};

use crate::approvals::presses;
use crate::evidence::{PEOPLE, approval_link, command, run_sql, told};
use crate::harness::{Act, Database, Stage, Tidings, eventually, said};
use crate::policies::in_days;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The whole output of `evidence verify`, which has to find nothing wrong.
#[track_caller]
pub(crate) fn whole(tidings: &Tidings, folder: &Path, entries: &str) {
    let found = command(tidings, folder, &["evidence", "verify"]);
    assert!(found.status.success() && said(&found).contains(entries), "{}", said(&found));
}

/// Waits until nothing is due for evidence.
pub(crate) async fn recorded(tidings: &Tidings) {
    eventually("all of it recorded", async || {
        // What was deferred is tried again.
        tidings.advance(Duration::from_secs(60));
        let on = tidings.app().db.reads();
        let due = on.query_all_raw(sea_orm::Statement::from_string(
            tidings.app().db.backend(),
            "SELECT d.id FROM deliveries d LEFT JOIN evidence_due e ON e.delivery_id = d.id \
             WHERE d.mailing_id IS NOT NULL AND (d.state = 'open' OR e.delivery_id IS NOT NULL)",
        ));
        due.await.unwrap().is_empty().then_some(())
    })
    .await;
}

async fn id_of(tidings: &Tidings, email: &str) -> String {
    let found = tidings.get(&format!("/recipients?email={email}")).await.ok();
    found["items"][0]["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn answer(tidings: &Tidings, email: &str, decision: &str) {
    let mail = tidings.smtp.messages_to(email).into_iter().rfind(|mail| mail.answer == Some(250)).unwrap();
    let link = approval_link(&mail.parsed().body_text(0).unwrap());
    presses(tidings, &link, decision).await.is(200);
}

/// A notice of which one was told by letter and two answered, one of them twice.
async fn answered(tidings: &Tidings) -> String {
    let notice = told(tidings).await;
    answer(tidings, "p0@people.example.com", "decline").await;
    answer(tidings, "p3@people.example.com", "approve").await;
    answer(tidings, "p3@people.example.com", "decline").await;
    let refused = id_of(tidings, "p2@people.example.com").await;
    let letter = json!({ "recipient": refused, "by": "letter", "note": "Sent on the 3rd." });
    tidings.post(&format!("/notices/{notice}/told"), letter).await.ok();
    recorded(tidings).await;
    notice
}

const KEPT: [&str; 13] = [
    "contents",
    "evidence",
    "evidence_heads",
    "evidence_due",
    "approvals",
    "approvals_standing",
    "notice_told",
    "notice_texts",
    "notice_rounds",
    "notices",
    "policy_texts",
    "policy_versions",
    "deliveries",
];

on_both! {
    async fn a_row_that_answers_come_from_and_that_says_otherwise_than_the_chain_is_named(database: Database) {
        let tidings = Tidings::start(database).await;
        let notice = answered(&tidings).await;
        let here = tempfile::tempdir().unwrap();
        whole(&tidings, here.path(), &format!("Whole: {} entries", 2 + PEOPLE + 4));
        for table in KEPT {
            run_sql(&tidings, &[&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")]).await;
        }
        let back = |table: &str, column: &str, key: &str| {
            format!("UPDATE {table} SET {column} = (SELECT k.{column} FROM kept_{table} k WHERE k.{key} = {table}.{key})")
        };
        let again = |table: &str, key: &str| {
            format!("INSERT INTO {table} SELECT * FROM kept_{table} k WHERE k.{key} NOT IN (SELECT {key} FROM {table})")
        };
        let both = "UPDATE deliveries SET state = (SELECT k.state FROM kept_deliveries k WHERE k.id = deliveries.id), \
            unsent = (SELECT k.unsent FROM kept_deliveries k WHERE k.id = deliveries.id)".to_owned();
        let one_sent = "id = (SELECT id FROM kept_deliveries WHERE state = 'sent' ORDER BY id LIMIT 1)";
        let earlier = "UPDATE approvals_standing SET decision = 'approve', approval_id = (SELECT id FROM approvals WHERE decision = 'approve') \
            WHERE recipient_id = (SELECT recipient_id FROM approvals WHERE decision = 'approve')";
        let second = "(SELECT id FROM kept_policy_versions WHERE number = 2)";
        let bytes = if tidings.app().db.backend() == DbBackend::Sqlite { "x'00'" } else { "'\\x00'" };
        let cases: Vec<(String, Vec<String>, &str)> = vec![
            ("UPDATE approvals_standing SET decision = 'approve' WHERE decision = 'decline'".into(),
                vec![back("approvals_standing", "decision", "recipient_id")], "approvals_standing says otherwise than entry"),
            (earlier.into(), vec![back("approvals_standing", "decision", "recipient_id"),
                back("approvals_standing", "approval_id", "recipient_id")], "an answer given earlier stands"),
            ("DELETE FROM approvals_standing WHERE decision = 'decline'".into(), vec![again("approvals_standing", "recipient_id")], "no answer stands"),
            ("UPDATE approvals_standing SET decided_at = decided_at - 86400000000".into(),
                vec![back("approvals_standing", "decided_at", "recipient_id")], "decided_at"),
            ("UPDATE approvals SET decision = 'approve'".into(), vec![back("approvals", "decision", "id")], "approvals says otherwise than entry"),
            ("UPDATE notices SET approved = approved + 1".into(), vec![back("notices", "approved", "id")], "(approved, declined)"),
            ("UPDATE notices SET effective_at = effective_at + 1".into(), vec![back("notices", "effective_at", "id")], "notices says otherwise than the entries: effective_at"),
            ("UPDATE notices SET complete_by = complete_by + 1".into(), vec![back("notices", "complete_by", "id")], "complete_by"),
            ("UPDATE notices SET state = 'withdrawn'".into(), vec![back("notices", "state", "id")], "state is \"withdrawn\""),
            ("UPDATE notice_told SET told_by = 'phone'".into(), vec![back("notice_told", "told_by", "recipient_id")], "notice_told says otherwise than entry"),
            ("UPDATE notice_told SET note = 'Nobody told them.'".into(), vec![back("notice_told", "note", "recipient_id")], "note is another one than when it was recorded"),
            ("UPDATE notices SET two_person = TRUE".into(), vec![back("notices", "two_person", "id")], "two_person"),
            ("DELETE FROM notice_told".into(), vec![again("notice_told", "recipient_id")], "notice_told says otherwise than entry"),
            (format!("INSERT INTO notice_told SELECT notice_id, round_id, (SELECT recipient_id FROM deliveries WHERE {one_sent}), told_by, note, told_at, \
                recorded_by FROM kept_notice_told"),
                vec!["DELETE FROM notice_told WHERE recipient_id NOT IN (SELECT recipient_id FROM kept_notice_told)".into()], "of somebody of whom no entry tells"),
            ("UPDATE notice_texts SET summary = 'Nothing changes.' WHERE language = 'de'".into(),
                vec![back("notice_texts", "summary", "content_id")], "notice_texts says otherwise than entry 2"),
            ("UPDATE contents SET html = html || '<p>Nothing changes.</p>'".into(),
                vec![back("contents", "html", "id")], "contents says otherwise than entry 2: in \"en\", the HTML part is another"),
            ("UPDATE policy_texts SET summary = 'Nothing changes.' WHERE language = 'de'".into(),
                vec!["UPDATE policy_texts SET summary = (SELECT k.summary FROM kept_policy_texts k \
                    WHERE k.version_id = policy_texts.version_id AND k.language = policy_texts.language)".into()], "policy_texts says otherwise"),
            (format!("INSERT INTO policy_texts SELECT version_id, 'fr', title, summary, body_markdown, sha256 FROM kept_policy_texts WHERE language = 'de' AND version_id = {second}"),
                vec!["DELETE FROM policy_texts WHERE language = 'fr'".into()], "there is a text in \"fr\" that was not published"),
            (format!("UPDATE policy_versions SET effective_at = effective_at + 1 WHERE id = {second}"),
                vec![back("policy_versions", "effective_at", "id")], "policy_versions says otherwise than the entries: of version 2, effective_at"),
            (format!("UPDATE policy_versions SET change = 'material' WHERE id = {second}"),
                vec![back("policy_versions", "change", "id")], "of version 2, change"),
            ("UPDATE deliveries SET state = 'sent', unsent = NULL WHERE state = 'failed'".into(),
                vec![both.clone()], "deliveries says otherwise than entry"),
            (format!("UPDATE deliveries SET state = 'failed', unsent = 'failed' WHERE {one_sent}"),
                vec![both.clone(), "DELETE FROM evidence_due".into()], "deliveries says otherwise than entry"),
            (format!("UPDATE deliveries SET message_sha256 = {bytes} WHERE {one_sent}"), vec![back("deliveries", "message_sha256", "id")], "message_sha256"),
            (format!("UPDATE deliveries SET message_id = 'other' WHERE {one_sent}"), vec![back("deliveries", "message_id", "id")], "message_id"),
            (format!("UPDATE deliveries SET settled_at = settled_at - 1 WHERE {one_sent}"), vec![back("deliveries", "settled_at", "id")], "settled_at"),
            ("UPDATE notice_rounds SET kind = 'correction'".into(), vec![back("notice_rounds", "kind", "id")], "notice_rounds says otherwise than entry 2"),
            ("DELETE FROM evidence".into(), vec![again("evidence", "seq")], "is missing"),
        ];
        for (tampering, undo, words) in &cases {
            run_sql(&tidings, &[tampering.as_str()]).await;
            let found = command(&tidings, here.path(), &["evidence", "verify"]);
            assert_eq!(found.status.code(), Some(1), "{tampering} {}", said(&found));
            let complaint = String::from_utf8_lossy(&found.stderr).into_owned();
            assert!(complaint.contains(&notice), "{tampering} {complaint}");
            assert!(said(&found).contains(words), "{tampering} {}", said(&found));
            assert_eq!(complaint.lines().count(), 1, "{complaint}");
            let undo: Vec<&str> = undo.iter().map(String::as_str).collect();
            run_sql(&tidings, &undo).await;
        }
        whole(&tidings, here.path(), "Whole: ");
        tidings.stop().await;
    }

    async fn who_cuts_off_the_end_of_a_chain_and_names_another_head_is_found_out(database: Database) {
        let tidings = Tidings::start(database).await;
        let notice = answered(&tidings).await;
        let here = tempfile::tempdir().unwrap();
        let last = 2 + PEOPLE + 4;
        for (from, words) in [(last, "no entry tells that"), (last - 1, "of which no entry tells"), (3, "no entry tells that delivery")] {
            run_sql(&tidings, &[
                &format!("DELETE FROM evidence WHERE seq >= {from}"),
                &format!("UPDATE evidence_heads SET seq = {0}, hash = (SELECT hash FROM evidence WHERE seq = {0})", from - 1),
            ]).await;
            let found = command(&tidings, here.path(), &["evidence", "verify"]);
            assert_eq!(found.status.code(), Some(1), "{}", said(&found));
            let all = said(&found);
            assert!(all.contains(&notice) && all.contains("the seal on its head is missing or wrong"), "{all}");
            assert!(all.contains(words) || from == last, "{all}");
            let exported = command(&tidings, here.path(), &["evidence", "export", "--notice", &notice]);
            assert_eq!(exported.status.code(), Some(1), "{}", said(&exported));
        }
        tidings.stop().await;
    }

    async fn a_notice_or_its_evidence_that_is_gone_is_missed(database: Database) {
        let tidings = Tidings::start(database).await;
        let notice = answered(&tidings).await;
        let here = tempfile::tempdir().unwrap();
        run_sql(&tidings, &["DELETE FROM evidence", "DELETE FROM evidence_heads"]).await;
        let found = command(&tidings, here.path(), &["evidence", "verify"]);
        assert_eq!(found.status.code(), Some(1), "{}", said(&found));
        assert!(said(&found).contains(&notice) && said(&found).contains("entry 1, which tells what was published, is missing"), "{}", said(&found));
        run_sql(&tidings, &["DELETE FROM notice_told", "DELETE FROM notice_texts", "DELETE FROM notice_rounds", "DELETE FROM notices"]).await;
        let found = command(&tidings, here.path(), &["evidence", "verify"]);
        assert_eq!(found.status.code(), Some(1), "{}", said(&found));
        assert!(said(&found).contains("version 2 of \"privacy\" was published, and its notice is missing"), "{}", said(&found));
        tidings.stop().await;
    }

    async fn a_notice_to_which_much_happened_is_whole(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.brand("acme").await;
        let here = tempfile::tempdir().unwrap();
        let notice = answered(&tidings).await;
        whole(&tidings, here.path(), "Whole: ");
        let correction = json!({ "reason": "A wrong number.", "summary": "We keep data for 40 days.",
            "translations": { "de": { "summary": "40 Tage.", "reason": "Eine falsche Zahl." } } });
        tidings.post(&format!("/notices/{notice}/correct"), correction).await.ok();
        recorded(&tidings).await;
        whole(&tidings, here.path(), "Whole: ");
        answer(&tidings, "p0@people.example.com", "approve").await;
        whole(&tidings, here.path(), "Whole: ");
        let reminds = json!({ "brand": "acme", "title": "Privacy policy", "remind_days_before": [7] });
        tidings.put("/policies/privacy", reminds).await.ok();
        let put_off = json!({ "effective_at": in_days(&tidings, 100), "reason": "It takes longer.",
            "translations": { "de": { "reason": "Es dauert." } } });
        tidings.post(&format!("/notices/{notice}/postpone"), put_off).await.ok();
        recorded(&tidings).await;
        whole(&tidings, here.path(), "Whole: ");
        tidings.advance(DAY * 95);
        tidings.notice_when("reminds", &notice, |notice| notice["rounds"][3].is_object()).await;
        recorded(&tidings).await;
        whole(&tidings, here.path(), "Whole: ");
        tidings.post(&format!("/notices/{notice}/withdraw"), json!({ "reason": "Not at all.", "translations": { "de": { "reason": "Doch nicht." } } })).await.ok();
        recorded(&tidings).await;
        whole(&tidings, here.path(), "Whole: ");
        let exported = command(&tidings, here.path(), &["evidence", "export", "--notice", &notice, "--output", "e.tar.gz"]);
        assert!(exported.status.success(), "{}", said(&exported));
        let verified = crate::harness::run_in(here.path(), &["evidence", "verify", "e.tar.gz"], &[]);
        assert!(verified.status.success(), "{}", said(&verified));
        tidings.stop().await;
    }

    async fn what_takes_effect_and_is_told_again_for_months_is_whole(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(3).await;
        tidings.policy(json!({ "reminder_months": 6 })).await;
        let here = tempfile::tempdir().unwrap();
        tidings.advance(DAY * 190);
        eventually("a reminder of the baseline", async || (tidings.smtp.count() == 3).then_some(())).await;
        recorded(&tidings).await;
        whole(&tidings, here.path(), "Whole: 5 entries");
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        eventually("everyone told", async || (tidings.smtp.count() == 6).then_some(())).await;
        recorded(&tidings).await;
        tidings.advance(DAY * 41);
        tidings.notice_when("is in effect", id, |notice| notice["state"] == "in_effect").await;
        whole(&tidings, here.path(), "Whole: 6 entries");
        tidings.stop().await;
    }

    async fn a_notice_that_is_still_under_way_is_whole(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(40).await;
        tidings.policy(json!({})).await;
        for n in 0..45 {
            let email = format!("p{n}@people.example.com");
            tidings.smtp.on(Stage::Rcpt, Act::Reply(450, "4.2.1 later".into())).to(&email).once();
        }
        let here = tempfile::tempdir().unwrap();
        // Somebody whose account is closed, and opened again later.
        let closed = id_of(&tidings, "p7@people.example.com").await;
        let notice = tidings.announce("adverse", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        tidings.patch(&format!("/recipients/{closed}"), json!({ "standing": "deactivated" })).await.ok();
        for _ in 0..3 {
            whole(&tidings, here.path(), "Whole: ");
            tidings.recipients(45).await;
        }
        tidings.patch(&format!("/recipients/{closed}"), json!({ "standing": "active" })).await.ok();
        whole(&tidings, here.path(), "Whole: ");
        tidings.advance(Duration::from_secs(3600));
        whole(&tidings, here.path(), "Whole: ");
        recorded(&tidings).await;
        whole(&tidings, here.path(), "Whole: ");
        let shown: Value = tidings.get(&format!("/notices/{id}")).await.ok();
        assert_eq!(shown["counts"]["told"], 45, "{shown}");
        tidings.stop().await;
    }
}
