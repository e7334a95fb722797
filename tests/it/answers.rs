//! Answers that people give by letter or telephone: recorded by an operator, they count as those given on the page.

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tidings::access::rows::create_key;
use tidings::web::Role;

use crate::approvals::{
    ADA, BOB, DAY, announced, answers as pressed, as_json, in_effect, link, person, scene, stands, tallied,
    told,
};
use crate::evidence::{command, evidence_of, run_sql};
use crate::harness::{Act, Api, Database, Stage, Tidings, said};
use crate::policies::{version, with};

async fn operator(tidings: &Tidings) -> Api {
    let made = create_key(&tidings.app().db, "desk", Role::Operator, None, "test").await.unwrap();
    tidings.with_key(made.key.expose_secret())
}

async fn id_of(tidings: &Tidings, email: &str) -> String {
    person(tidings, email).await["id"].as_str().unwrap().to_owned()
}

fn letter(recipient: &str, decision: &str) -> Value {
    json!({ "recipient": recipient, "decision": decision, "by": "letter", "note": "Letter of the 3rd." })
}

/// What `evidence verify` says, which has to find nothing wrong.
#[track_caller]
fn whole(tidings: &Tidings, folder: &std::path::Path) {
    let found = command(tidings, folder, &["evidence", "verify"]);
    assert!(found.status.success() && said(&found).contains("Whole: "), "{}", said(&found));
}

on_both! {
    async fn who_was_told_by_letter_answers_by_letter_or_telephone(database: Database) {
        let tidings = scene(database).await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.1.1 no such user")).to(ADA);
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 1).await;
        tidings.notice_when("missed somebody", &notice, |notice| notice["counts"]["unreachable"] == 1).await;
        let (desk, answers) = (operator(&tidings).await, format!("/notices/{notice}/answers"));
        let (ada, bob) = (id_of(&tidings, ADA).await, id_of(&tidings, BOB).await);
        let called = json!({ "recipient": ada, "decision": "approve", "by": "phone", "note": "Call of the 4th, 10:20." });
        let first = desk.post(&answers, called.clone()).await.ok();
        let sha256 = tidings.get("/policies/privacy/versions/2").await.ok()["sha256"].clone();
        assert_eq!(first, json!({
            "recipient": ada, "decision": "approve", "by": "phone", "answered_at": first["answered_at"], "version": 2, "still_refused": [],
            "language": "en", "sha256": sha256, "recorded": true, "settled": true,
        }));
        let again = desk.post(&answers, called).await.ok();
        assert_eq!(again, with(first.clone(), json!({ "recorded": false })));
        assert_eq!(tallied(&tidings, &notice).await, [1, 0, 1]);
        // Who answered was told.
        let counts = tidings.get(&format!("/notices/{notice}")).await.ok()["counts"].clone();
        assert_eq!((&counts["told"], &counts["unreachable"]), (&json!(2), &json!(0)), "{counts}");
        let unreachable = tidings.get(&format!("/notices/{notice}/unreachable")).await.ok();
        assert_eq!(unreachable["items"][0]["told_by"], "phone", "{unreachable}");
        let found = stands(&tidings, ADA).await;
        let answer = json!({ "version": 2, "decision": "approve", "answered_at": first["answered_at"], "by": "phone" });
        assert_eq!((&found["answers"], &found["pending"][0]["answer"]), (&json!([answer]), &json!("approve")), "{found}");

        // A later answer takes the place of an earlier one, whichever way each came.
        let page = link(&tidings, BOB, 1).await;
        tidings.submit(&page, &[("decision", "approve")]).await.is(200);
        assert_eq!(desk.post(&answers, letter(&bob, "decline")).await.ok()["recorded"], true);
        assert_eq!(tallied(&tidings, &notice).await, [1, 1, 0]);
        let by = async || stands(&tidings, BOB).await["answers"][0].clone();
        assert_eq!(by().await["by"], "letter");
        tidings.submit(&page, &[("decision", "approve")]).await.is(200);
        let now = by().await;
        assert_eq!((&now["by"], &now["decision"]), (&json!("page"), &json!("approve")), "{now}");
        // The same answer is there already.
        let stood = desk.post(&answers, letter(&bob, "approve")).await.ok();
        assert_eq!((&stood["recorded"], &stood["by"]), (&json!(false), &json!("page")), "{stood}");

        let lines = evidence_of(&tidings, &notice, 2).await;
        let of = |id: &str| lines.iter().find(|line| line["recipient"] == id).unwrap()["approval"].clone();
        let (by_phone, by_page) = (of(&ada), of(&bob));
        assert_eq!((&by_phone["by"], &by_phone["sha256"]), (&json!("phone"), &sha256), "{by_phone}");
        assert!(by_phone["recorded_by"].as_str().unwrap().starts_with("key:desk/"), "{by_phone}");
        assert_eq!((&by_page["by"], &by_page["recorded_by"]), (&json!("page"), &Value::Null), "{by_page}");
        let here = tempfile::tempdir().unwrap();
        whole(&tidings, here.path());
        let archive = here.path().join("proof.tar.gz");
        let out = archive.to_str().unwrap();
        let export = command(&tidings, here.path(), &["evidence", "export", "--notice", &notice, "--output", out]);
        assert!(export.status.success(), "{}", said(&export));
        let verified = command(&tidings, here.path(), &["evidence", "verify", out]);
        assert!(verified.status.success(), "{}", said(&verified));
        // Whoever changes how it came is found out.
        run_sql(&tidings, &["UPDATE approvals SET given_by = 'letter' WHERE given_by = 'phone'"]).await;
        let found = command(&tidings, here.path(), &["evidence", "verify"]);
        assert!(!found.status.success() && said(&found).contains("given_by"), "{}", said(&found));
        let audit = tidings.get("/audit").await.ok();
        let kept = audit["items"].as_array().unwrap().iter().filter(|entry| entry["action"] == "notice.answer").count();
        assert_eq!(kept, 4, "{audit}");

        tidings.advance(DAY * 41);
        in_effect(&tidings, &notice).await;
        assert!(desk.post(&answers, letter(&bob, "decline")).await.problem(409)["detail"].as_str().unwrap().contains("has taken effect"));
        for email in [ADA, BOB] {
            let found = stands(&tidings, email).await;
            assert_eq!((&found["version"], &found["because"]), (&json!(2), &json!("approved")), "{found}");
        }
        tidings.stop().await;
    }

    async fn an_answer_by_letter_is_refused_as_the_page_refuses_it_and_says_why(database: Database) {
        let tidings = scene(database).await;
        let (desk, ada) = (operator(&tidings).await, id_of(&tidings, ADA).await);
        let path = |notice: &str| format!("/notices/{notice}/answers");
        let detail = |answer: crate::harness::Answer| answer.problem(409)["detail"].as_str().unwrap().to_owned();
        let told = announced(&tidings, version(&tidings, "material", 40)).await;
        assert!(detail(desk.post(&path(&told), letter(&ada, "approve")).await).contains("asks for no answer"));
        let first = announced(&tidings, version(&tidings, "adverse", 50)).await;
        for (pointer, wrong) in [
            ("/note", json!({ "note": " " })),
            ("/recipient", json!({ "recipient": "01890000-0000-7000-8000-000000000000" })),
        ] {
            desk.post(&path(&first), with(letter(&ada, "approve"), wrong)).await.refuses(pointer);
        }
        for wrong in [json!({ "decision": "maybe" }), json!({ "by": "page" }), json!({ "note": null })] {
            desk.post(&path(&first), with(letter(&ada, "approve"), wrong)).await.problem(422);
        }
        tidings.brand("other").await;
        let stranger = json!({ "email": "eve@example.org", "brands": ["other"] });
        let stranger = tidings.post("/recipients", stranger).await.id();
        desk.post(&path(&first), letter(&stranger, "approve")).await.refuses("/recipient");
        desk.post(&path(&first), letter(&ada, "approve")).await.ok();
        let second = announced(&tidings, version(&tidings, "adverse", 60)).await;
        assert!(detail(desk.post(&path(&first), letter(&ada, "decline")).await).contains("newer version"));
        assert_eq!(tallied(&tidings, &first).await[..2], [1, 0]);
        let never = json!({ "reason": "It does not come." });
        tidings.post(&format!("/notices/{second}/withdraw"), never).await.ok();
        assert!(detail(desk.post(&path(&second), letter(&ada, "decline")).await).contains("withdrawn"));
        assert_eq!(tallied(&tidings, &second).await[..2], [0, 0]);
        tidings.stop().await;
    }

    async fn who_has_got_no_message_can_answer_all_the_same(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        crate::approvals::scene_of(&tidings, json!({})).await;
        let german = json!({ "email": ADA, "locale": "de-AT" });
        let ada = tidings.post("/recipients", german).await.id();
        let translation = json!({ "de": { "summary": "Anders.", "body_markdown": "# Datenschutz" } });
        let body = with(version(&tidings, "adverse", 40), json!({ "translations": translation }));
        let notice = announced(&tidings, body).await;
        let desk = operator(&tidings).await;
        let given = desk.post(&format!("/notices/{notice}/answers"), letter(&ada, "approve")).await.ok();
        let texts = tidings.get("/policies/privacy/versions/2").await.ok();
        assert_eq!(given["language"], "de", "{given}");
        assert_eq!(given["sha256"], texts["texts"]["de"]["sha256"], "{texts}");
        assert_eq!(tallied(&tidings, &notice).await[..2], [1, 0]);
        let lines = evidence_of(&tidings, &notice, 1).await;
        let answer = &lines[0]["approval"];
        assert_eq!((&answer["by"], &answer["delivery"]), (&json!("letter"), &Value::Null), "{answer}");
        whole(&tidings, tempfile::tempdir().unwrap().path());
        tidings.stop().await;
    }

    async fn a_new_use_is_refused_and_allowed_by_telephone_too(database: Database) {
        let tidings = scene(database).await;
        tidings.topic("acme", "profiling", "marketing").await;
        let body = with(version(&tidings, "new_use", 40), json!({ "topic": "profiling" }));
        let notice = announced(&tidings, body).await;
        told(&tidings, &notice, 2).await;
        let (desk, ada) = (operator(&tidings).await, id_of(&tidings, ADA).await);
        let answers = format!("/notices/{notice}/answers");
        let decided = async || {
            tidings.get(&format!("/explain?email={ADA}&brand=acme&topic=profiling")).await.ok()["decision"].clone()
        };
        let call = |decision: &str| with(letter(&ada, decision), json!({ "by": "phone" }));
        desk.post(&answers, call("decline")).await.ok();
        assert_eq!((decided().await, tallied(&tidings, &notice).await), (json!("suppress"), [0, 1, 1]));
        let newest = async || tidings.get(&format!("/opt-outs?email={ADA}")).await.ok()["items"][0].clone();
        let refusal = newest().await;
        assert_eq!((&refusal["channel"], &refusal["note"]), (&json!("phone"), &json!("Letter of the 3rd.")), "{refusal}");
        desk.post(&answers, call("approve")).await.ok();
        assert_eq!((decided().await, tallied(&tidings, &notice).await), (json!("send"), [1, 0, 1]));
        let back = newest().await;
        assert_eq!((&back["said"], &back["channel"]), (&json!("undo"), &json!("phone")), "{back}");
        // What was refused by letter is allowed again on the page, and the other way round.
        desk.post(&answers, letter(&ada, "decline")).await.ok();
        let page = link(&tidings, ADA, 1).await;
        tidings.submit(&page, &[("decision", "approve")]).await.is(200);
        assert_eq!(decided().await, "send");
        tidings.submit(&page, &[("decision", "decline")]).await.is(200);
        desk.post(&answers, letter(&ada, "approve")).await.ok();
        assert_eq!(decided().await, "send");
        tidings.stop().await;
    }

    async fn a_use_that_needs_approval_is_refused_after_the_day_too_and_allowed_no_more(database: Database) {
        let tidings = scene(database).await;
        tidings.topic("acme", "profiling", "marketing").await;
        let body = with(version(&tidings, "new_use", 40), json!({ "topic": "profiling", "approval": "required" }));
        let notice = announced(&tidings, body).await;
        told(&tidings, &notice, 2).await;
        let (ada, bob) = (link(&tidings, ADA, 1).await, link(&tidings, BOB, 1).await);
        pressed(&tidings, &ada, "approve").await.is(200);
        assert!(tidings.page(&ada).await.text.contains("I allow it"));
        tidings.advance(DAY * 41);
        in_effect(&tidings, &notice).await;
        let found = async |email: &str| {
            let found = stands(&tidings, email).await;
            (found["version"].clone(), found["because"].clone(), found["uses"][0]["allowed"].clone())
        };
        assert_eq!(found(ADA).await, (json!(2), json!("approved"), json!(true)));
        assert_eq!(found(BOB).await, (json!(1), json!("silence"), json!(false)));
        // Nobody agrees to it any more.
        let late = as_json(&tidings, Method::POST, &bob, "decision=approve").await.is(200).json();
        assert_eq!((&late["recorded"], &late["closed"]), (&json!(false), &json!("in_effect")), "{late}");
        assert!(pressed(&tidings, &bob, "approve").await.is(200).text.contains("The change has taken effect"));
        let bob_id = id_of(&tidings, BOB).await;
        let path = format!("/notices/{notice}/answers");
        tidings.post(&path, letter(&bob_id, "approve")).await.problem(409);
        assert_eq!(tallied(&tidings, &notice).await, [1, 0, 1]);
        // Everybody refuses the use, and what else they agreed to stays.
        let page = tidings.page(&ada).await;
        assert!(page.text.contains("at any time later") && page.text.contains("I refuse it"), "{}", page.text);
        assert!(!page.text.contains("You could answer") && page.text.matches("<button").count() == 1, "{}", page.text);
        assert!(pressed(&tidings, &ada, "decline").await.is(200).text.contains("Saved: you refuse it"));
        assert_eq!(tidings.post(&path, letter(&bob_id, "decline")).await.ok()["recorded"], true);
        for email in [ADA, BOB] {
            let decided = tidings.get(&format!("/explain?email={email}&brand=acme&topic=profiling")).await.ok();
            assert_eq!(decided["decision"], "suppress", "{email}");
        }
        assert_eq!(tallied(&tidings, &notice).await, [0, 2, 0]);
        assert_eq!(found(ADA).await, (json!(2), json!("approved"), json!(false)));
        assert_eq!(stands(&tidings, ADA).await["answers"][0]["decision"], "decline");
        assert_eq!(found(BOB).await, (json!(1), json!("silence"), json!(false)));
        tidings.stop().await;
    }

    async fn a_letter_that_agrees_to_words_that_were_corrected_counts_only_if_it_answers_the_correction(database: Database) {
        let tidings = scene(database).await;
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        let (desk, ada, bob) = (operator(&tidings).await, id_of(&tidings, ADA).await, id_of(&tidings, BOB).await);
        let answers = format!("/notices/{notice}/answers");
        desk.post(&answers, with(letter(&ada, "approve"), json!({ "round": 2 }))).await.refuses("/round");
        for decision in ["decline", "approve"] {
            desk.post(&answers, letter(&ada, decision)).await.ok();
        }
        let corrected = json!({ "summary": "We keep your data for five years.", "reason": "A number was wrong." });
        tidings.post(&format!("/notices/{notice}/correct"), corrected).await.ok();
        told(&tidings, &notice, 2).await;
        whole(&tidings, tempfile::tempdir().unwrap().path());
        for round in [json!({}), json!({ "round": 1 })] {
            let refused = desk.post(&answers, with(letter(&ada, "approve"), round)).await.problem(409);
            assert!(refused["detail"].as_str().unwrap().contains("corrected"), "{refused}");
        }
        assert_eq!(tallied(&tidings, &notice).await, [0, 0, 2]);
        // Who declined the wrong words declines.
        desk.post(&answers, letter(&bob, "decline")).await.ok();
        desk.post(&answers, with(letter(&ada, "approve"), json!({ "round": 2 }))).await.ok();
        assert_eq!(tallied(&tidings, &notice).await, [1, 1, 0]);
        // Whoever answers without having been told leaves nobody less to wait for.
        let carol = json!({ "email": "carol@example.org", "policies": { "privacy": 2 } });
        let carol = tidings.post("/recipients", carol).await.id();
        tidings.post(&format!("/notices/{notice}/postpone"), json!({ "effective_at": tidings.in_days(60), "reason": "Later." })).await.ok();
        told(&tidings, &notice, 2).await;
        desk.post(&answers, with(letter(&carol, "approve"), json!({ "round": 3 }))).await.ok();
        assert_eq!(tallied(&tidings, &notice).await, [2, 1, 0]);
        // A note may be taken away, since it may say more of a person than is to be kept; another one may not come.
        let here = tempfile::tempdir().unwrap();
        run_sql(&tidings, &["UPDATE approvals SET note = note || ' Perhaps.'"]).await;
        let found = command(&tidings, here.path(), &["evidence", "verify"]);
        assert!(!found.status.success() && said(&found).contains("note is another one than when"), "{}", said(&found));
        run_sql(&tidings, &["UPDATE approvals SET note = NULL"]).await;
        whole(&tidings, here.path());
        // The pages say what was corrected; whoever takes that away is found out.
        run_sql(&tidings, &["DELETE FROM policy_corrections"]).await;
        let found = command(&tidings, here.path(), &["evidence", "verify"]);
        assert!(!found.status.success() && said(&found).contains("policy_corrections"), "{}", said(&found));
        tidings.stop().await;
    }

    async fn a_use_that_somebody_refused_who_got_no_message_is_allowed_by_letter_again(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        crate::approvals::scene_of(&tidings, json!({})).await;
        tidings.topic("acme", "profiling", "marketing").await;
        tidings.recipient(ADA).await;
        let body = with(version(&tidings, "new_use", 40), json!({ "topic": "profiling" }));
        let notice = announced(&tidings, body).await;
        let (desk, ada) = (operator(&tidings).await, id_of(&tidings, ADA).await);
        let answers = format!("/notices/{notice}/answers");
        for (decision, refused) in [("decline", true), ("approve", false), ("approve", false), ("decline", true)] {
            desk.post(&answers, letter(&ada, decision)).await.ok();
            let found = tidings.get(&format!("/opt-outs?email={ADA}")).await.ok();
            let stands = found["items"][0]["said"] == "opt_out";
            assert_eq!(stands, refused, "{decision}: {found}");
        }
        tidings.post("/opt-outs", json!({ "email": ADA, "scope": "all", "channel": "letter" })).await.is(201);
        let allowed = desk.post(&answers, letter(&ada, "approve")).await.ok();
        assert_eq!(allowed["still_refused"], json!(["opted_out_of_all"]), "{allowed}");
        tidings.stop().await;
    }
}
