//! What takes two people: changing a notice, and ending that it takes two.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::approvals::{DAY, announced, scene, told};
use crate::evidence::command;
use crate::harness::{Api, Database, Tidings, said};
use crate::policies::{key, policy, version, with};

/// A policy that wants two people, the keys of three, and a notice that two of them published.
async fn published_by_two(tidings: &Tidings) -> ([Api; 3], String) {
    tidings.put("/policies/privacy", with(policy(), json!({ "two_person": true }))).await.ok();
    let keys = [key(tidings, "ann").await, key(tidings, "ben").await, key(tidings, "cid").await];
    assert_eq!(announced(&keys[0], version(tidings, "adverse", 40)).await, "");
    let released = keys[1].post_empty("/policies/privacy/versions/2/release").await.ok();
    let notice = released["notice"]["id"].as_str().unwrap().to_owned();
    told(tidings, &notice, 2).await;
    (keys, notice)
}

fn corrected() -> Value {
    json!({ "summary": "We keep data longer.", "reason": "It said the wrong time." })
}

/// Who did what, the first thing first, as far as it is about this.
async fn done(tidings: &Tidings, subject: &str) -> Vec<(String, String)> {
    let audit = tidings.get("/audit?limit=200").await.ok();
    let of = audit["items"].as_array().unwrap().iter().rev().filter(|entry| entry["subject"] == subject).map(
        |entry| {
            let who = entry["actor"].as_str().unwrap().split('/').next().unwrap();
            (who.to_owned(), entry["action"].as_str().unwrap().to_owned())
        },
    );
    of.collect()
}

on_both! {
    async fn a_notice_is_changed_by_two_where_its_policy_wants_two(database: Database) {
        let tidings = scene(database).await;
        let ([ann, ben, _], notice) = published_by_two(&tidings).await;
        let path = format!("/notices/{notice}");
        let [correct, postpone, withdraw, release, waiting] =
            ["correct", "postpone", "withdraw", "release", "waiting"].map(|what| format!("{path}/{what}"));
        ben.post_empty(&release).await.problem(409);
        let asked = ann.post(&correct, corrected()).await.is(202).json();
        let waits = &asked["waiting"];
        assert_eq!((&waits["change"], &waits["request"]["reason"]), (&json!("correct"), &json!("It said the wrong time.")), "{asked}");
        assert!(waits["asked_by"].as_str().unwrap().starts_with("key:ann/") && waits["asked_at"].is_string(), "{asked}");
        assert_eq!((&asked["state"], asked["rounds"].as_array().unwrap().len()), (&json!("running"), 1), "{asked}");
        let seen = async || tidings.get(&path).await.ok();
        assert_eq!(seen().await["waiting"], *waits);
        // Asked for again, it is what waits already.
        assert_eq!(ann.post(&correct, corrected()).await.is(202).json()["waiting"], *waits);
        let refused = ann.post_empty(&release).await.problem(403);
        assert!(refused["detail"].as_str().unwrap().contains("with this key; its policy asks that another one releases it"), "{refused}");
        ben.post(&release, json!({ "asked_at": "2026-01-01T00:00:00Z" })).await.problem(409);
        // What could not be done is not asked for.
        ann.post(&postpone, json!({ "effective_at": tidings.in_days(20), "reason": "r" })).await.refuses("/effective_at");
        ann.post(&correct, json!({ "reason": "r" })).await.refuses("/summary");
        assert_eq!(seen().await["waiting"], *waits);

        // What is asked for later takes the place of what waits.
        let later = tidings.in_days(50);
        let asked = ben.post(&postpone, json!({ "effective_at": later, "reason": "Not ready." })).await.is(202).json();
        assert_eq!(asked["waiting"]["change"], "postpone");
        ben.post_empty(&release).await.problem(403);
        let guarded = json!({ "asked_at": asked["waiting"]["asked_at"] });
        let moved = ann.post(&release, guarded.clone()).await.is(200).json();
        assert_eq!((&moved["effective_at"], &moved["waiting"]), (&json!(later), &Value::Null), "{moved}");
        assert_eq!(moved["rounds"][1]["kind"], "postponement", "{moved}");
        assert_eq!(moved["rounds"].as_array().unwrap().len(), 2, "{moved}");
        // Released again, it is released.
        assert_eq!(ann.post(&release, guarded).await.ok()["rounds"].as_array().unwrap().len(), 2);

        ann.post(&withdraw, json!({ "reason": "Never mind." })).await.is(202);
        ben.delete(&waiting).await.is(204);
        ben.delete(&waiting).await.is(204);
        assert_eq!(seen().await["waiting"], Value::Null);
        ben.post_empty(&release).await.problem(409);
        // All is looked at again when it is released.
        ann.post(&correct, corrected()).await.is(202);
        let policy_row = done(&tidings, &notice).await;
        let by = |who: &str, what: &str| (format!("key:{who}"), format!("notice.{what}"));
        let (asks, releases) = (by("ann", "ask"), by("ann", "release"));
        assert_eq!(policy_row, [asks.clone(), asks.clone(), by("ben", "ask"), releases, asks.clone(), by("ben", "take_back"), asks]);
        tidings.advance(DAY * 51);
        let late = ben.post_empty(&release).await.problem(409);
        assert!(late["detail"].as_str().unwrap().contains("has taken effect"), "{late}");
        tidings.notice_when("took effect", &notice, |notice| notice["state"] == "in_effect" && notice["waiting"].is_null()).await;
        let here = tempfile::tempdir().unwrap();
        let found = command(&tidings, here.path(), &["evidence", "verify"]);
        assert!(found.status.success(), "{}", said(&found));
        let archive = here.path().join("proof.tar.gz");
        let out = archive.to_str().unwrap();
        let export = command(&tidings, here.path(), &["evidence", "export", "--notice", &notice, "--output", out]);
        assert!(export.status.success(), "{}", said(&export));
        let manifest = crate::evidence::files_of(&archive).into_iter().find(|(name, _)| name == "manifest.json").unwrap().1;
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let acts = manifest["counts"]["acts"].as_array().unwrap();
        let act = acts.iter().find(|act| act["what"].as_str().unwrap().starts_with("The change was postponed")).unwrap();
        let by = act["by"].as_str().unwrap();
        assert!(by.starts_with("key:ben/") && by.contains(", released by key:ann/"), "{by}");
        tidings.stop().await;
    }

    async fn what_many_release_at_once_is_carried_out_once(database: Database) {
        let tidings = scene(database).await;
        let ([ann, ben, cid], notice) = published_by_two(&tidings).await;
        ann.post(&format!("/notices/{notice}/correct"), corrected()).await.is(202);
        let release = format!("/notices/{notice}/release");
        let releases = (0..8).map(|n| if n % 2 == 0 { ben.post_empty(&release) } else { cid.post_empty(&release) });
        for answer in join_all(releases).await {
            assert_eq!(answer.ok()["rounds"].as_array().unwrap().len(), 2, "{answer:?}");
        }
        let audit = done(&tidings, &notice).await;
        assert_eq!(audit.iter().filter(|(_, action)| action == "notice.release").count(), 1, "{audit:?}");
        // Whoever releases while something else is asked for releases the one or the other, whole.
        let mut other = corrected();
        other["summary"] = json!("We keep nothing but your name.");
        ann.post(&format!("/notices/{notice}/correct"), other).await.is(202);
        let (path, later) = (format!("/notices/{notice}/postpone"), tidings.in_days(60));
        let postpone = ann.post(&path, json!({ "effective_at": later, "reason": "Not ready." }));
        let (asked, released) = tokio::join!(postpone, ben.post_empty(&release));
        asked.is(202);
        let after = tidings.get(&format!("/notices/{notice}")).await.ok();
        let kinds: Vec<&str> = after["rounds"].as_array().unwrap().iter().map(|round| round["kind"].as_str().unwrap()).collect();
        match kinds.as_slice() {
            ["change", "correction", "correction"] => assert_eq!(after["waiting"]["change"], "postpone", "{after}"),
            ["change", "correction", "postponement"] => assert_eq!(after["waiting"], Value::Null, "{after}"),
            other => panic!("{other:?}: {released:?}"),
        }
        tidings.stop().await;
    }

    async fn that_two_people_are_wanted_is_ended_by_two(database: Database) {
        let tidings = scene(database).await;
        let (ann, ben) = (key(&tidings, "ann").await, key(&tidings, "ben").await);
        let notice = announced(&ann, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        let correct = format!("/notices/{notice}/correct");
        let two = |whether: bool| with(policy(), json!({ "two_person": whether }));
        let put = async |who: &Api, body: Value| who.put("/policies/privacy", body).await.ok();
        put(&ann, two(true)).await;
        // It was published by one, and is changed by two from now on.
        ann.post(&correct, corrected()).await.is(202);
        let asked = put(&ann, two(false)).await;
        let wish = asked["two_person_off_asked"].clone();
        assert_eq!(asked["two_person"], true, "{asked}");
        assert!(wish["asked_by"].as_str().unwrap().starts_with("key:ann/") && wish["asked_at"].is_string(), "{asked}");
        assert_eq!(tidings.get("/policies/privacy").await.ok()["two_person_off_asked"], wish);
        // However often the same key asks, and whatever else is put.
        assert_eq!(put(&ann, two(false)).await["two_person_off_asked"], wish);
        assert_eq!(put(&ben, policy()).await["two_person_off_asked"], wish);
        ann.post(&correct, corrected()).await.is(202);
        // Whoever wants two takes the wish back.
        let kept = put(&ben, two(true)).await;
        assert_eq!((&kept["two_person"], &kept["two_person_off_asked"]), (&json!(true), &Value::Null), "{kept}");
        assert_eq!(put(&ben, two(false)).await["two_person"], true);
        let off = put(&ann, two(false)).await;
        assert_eq!((&off["two_person"], &off["two_person_off_asked"]), (&json!(false), &Value::Null), "{off}");
        // What waited has been overtaken by what one may do alone.
        let done = ann.post(&correct, corrected()).await.is(200).json();
        assert_eq!((&done["waiting"], &done["rounds"][1]["kind"]), (&Value::Null, &json!("correction")), "{done}");
        tidings.stop().await;
    }

    async fn a_notice_that_two_published_takes_two_whatever_its_policy_says_by_now(database: Database) {
        let tidings = scene(database).await;
        let ([ann, ben, _], notice) = published_by_two(&tidings).await;
        for who in [&ann, &ben] {
            who.put("/policies/privacy", with(policy(), json!({ "two_person": false }))).await.ok();
        }
        assert_eq!(tidings.get("/policies/privacy").await.ok()["two_person"], false);
        ann.post(&format!("/notices/{notice}/withdraw"), json!({ "reason": "r" })).await.is(202);
        let withdrawn = ben.post_empty(&format!("/notices/{notice}/release")).await.ok();
        assert_eq!(withdrawn["state"], "withdrawn", "{withdrawn}");
        tidings.stop().await;
    }
}
