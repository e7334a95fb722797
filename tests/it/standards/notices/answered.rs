//! To which words an answer was given, and what is said to those for whom an earlier version stays.

use serde_json::json;

use crate::approvals::{ADA, announced, link, presses, scene, shown_on, told};
use crate::harness::{Answer, Database, Tidings};
use crate::policies::{version, with};
use crate::promises::count;

const MEANWHILE: &str = "has been corrected in the meantime";

/// The answer to what was posted that was meant for other words than those that stand now.
#[track_caller]
fn asked_anew(answer: &Answer) {
    for words in [MEANWHILE, "role=\"alert\"", "We keep it for ever.", "name=\"decision\""] {
        assert!(answer.is(409).text.contains(words), "{words}: {}", answer.text);
    }
    assert!(!answer.text.contains("Saved:"), "{}", answer.text);
}

async fn corrected(tidings: &Tidings, notice: &str) {
    let words = json!({ "reason": "It was too short.", "summary": "We keep it for ever." });
    tidings.post(&format!("/notices/{notice}/correct"), words).await.ok();
}

on_both! {
    async fn pn5_an_answer_counts_for_the_words_that_stood_above_its_button(database: Database) {
        let tidings = scene(database).await;
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, ADA, 1).await;
        let opened = tidings.page(&path).await;
        let before = shown_on(&opened);
        let answer = async |decision: &str, shown: &str| {
            tidings.submit(&path, &[("shown", shown), ("decision", decision)]).await
        };
        // Until something is corrected whoever says nothing of what they were shown was shown what stands.
        tidings.submit(&path, &[("decision", "decline")]).await.is(200);
        asked_anew_not(&answer("approve", &before).await);
        corrected(&tidings, &notice).await;
        assert_eq!(count(&tidings, "approvals").await, 2);
        asked_anew(&answer("approve", &before).await);
        asked_anew(&answer("approve", "").await);
        asked_anew(&tidings.submit(&path, &[("decision", "approve")]).await);
        let request = tidings.anonymous().request(reqwest::Method::POST, &path).header("accept", "application/json");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        Answer::of(request.body(format!("decision=approve&shown={before}"))).await.problem(409);
        assert_eq!(count(&tidings, "approvals").await, 2);
        let found = tidings.get(&format!("/notices/{notice}")).await.ok();
        assert_eq!(found["approvals"]["approved"], 0, "{found}");

        // The page that asks anew can be answered, as often as one likes.
        let now = shown_on(&answer("approve", &before).await);
        assert_ne!(now, before);
        let request = tidings.anonymous().request(reqwest::Method::GET, &path).header("accept", "application/json");
        assert_eq!(Answer::of(request).await.is(200).json()["shown"], now);
        for _ in 0..2 {
            assert!(answer("approve", &now).await.is(200).text.contains("Saved: you agree"));
        }
        assert_eq!(count(&tidings, "approvals").await, 3);
        assert!(presses(&tidings, &path, "decline").await.is(200).text.contains("Saved: you decline"));
        tidings.stop().await;
    }

    async fn pn5_a_use_is_refused_and_allowed_on_the_words_that_stand(database: Database) {
        let tidings = scene(database).await;
        tidings.topic("acme", "profiling", "marketing").await;
        let body = with(version(&tidings, "new_use", 40), json!({ "topic": "profiling" }));
        let notice = announced(&tidings, body).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, ADA, 1).await;
        let before = shown_on(&tidings.page(&path).await);
        corrected(&tidings, &notice).await;
        let decided = async || {
            tidings.get(&format!("/explain?email={ADA}&brand=acme&topic=profiling")).await.ok()["decision"].clone()
        };
        // Who refuses the wrong words refuses.
        tidings.submit(&path, &[("decision", "decline"), ("shown", &before)]).await.is(200);
        assert_eq!(decided().await, "suppress");
        asked_anew(&tidings.submit(&path, &[("decision", "approve"), ("shown", &before)]).await);
        assert_eq!((decided().await, count(&tidings, "approvals").await), (json!("suppress"), 1));
        tidings.stop().await;
    }

    async fn pn4_pn5_nobody_is_told_that_a_change_holds_for_them_whom_an_earlier_one_keeps_from_it(database: Database) {
        let tidings = scene(database).await;
        let words = "If version 2 needs your agreement and you have not given it, this change does not apply to you either";
        let adverse = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &adverse, 2).await;
        let material = announced(&tidings, version(&tidings, "material", 50)).await;
        told(&tidings, &material, 2).await;
        let mails = tidings.smtp.messages_to(ADA);
        assert_eq!(mails.len(), 2);
        for (mail, says) in mails.iter().zip([false, true]) {
            let parsed = mail.parsed();
            for body in [parsed.body_text(0).unwrap(), parsed.body_html(0).unwrap()] {
                let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
                assert_eq!(body.contains(words), says, "{body}");
            }
        }
        let page = tidings.page("/policies/privacy/3/changes").await;
        assert!(page.text.contains("needs your agreement"), "{}", page.text);
        assert!(!tidings.page("/policies/privacy/2/changes").await.text.contains("needs your agreement"));
        // Whoever agrees to a later one is bound by it, whatever they said before.
        let asks = announced(&tidings, version(&tidings, "adverse", 60)).await;
        told(&tidings, &asks, 2).await;
        let text = tidings.smtp.messages_to(ADA).remove(2).parsed().body_text(0).unwrap().into_owned();
        assert!(!text.contains("needs your agreement"), "{text}");
        tidings.stop().await;
    }
}

/// The answer counts.
#[track_caller]
fn asked_anew_not(answer: &Answer) {
    assert!(answer.is(200).text.contains("Saved: ") && !answer.text.contains(MEANWHILE), "{}", answer.text);
}
