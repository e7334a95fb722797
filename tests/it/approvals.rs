//! Answering a change: the page behind the link, what is recorded, and which version stands for whom afterwards.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tidings::id::NoticeId;
use tidings::link::{Link, Purpose};
use tidings::notice::rows;
use tidings::web::Role;

use crate::harness::{Act, Answer, Api, Database, Stage, Tidings, eventually, wait_until};
use crate::policies::{policy, version, with};
use crate::promises::{count, sql};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const ADA: &str = "ada.lovelace@example.org";
pub(crate) const BOB: &str = "bob@example.org";
const VERSIONS: &str = "/policies/privacy/versions";

/// A brand `acme` with the policy `privacy`, whose baseline holds since 2025, and two people.
pub(crate) async fn scene(database: Database) -> Tidings {
    let tidings = Tidings::start(database).await;
    tidings.brand("acme").await;
    scene_of(&tidings, json!({})).await;
    for email in [ADA, BOB] {
        tidings.recipient(email).await;
    }
    tidings
}

/// The policy with settings of the test's own, and its baseline.
pub(crate) async fn scene_of(tidings: &Tidings, settings: Value) {
    scene_settings(tidings, settings).await;
    let baseline = json!({
        "body_markdown": "# Privacy\n\nWe keep data.", "change": "material", "summary": "The first text.",
        "effective_at": "2025-01-01T00:00:00Z",
    });
    announced(tidings, baseline).await;
}

/// Changes the policy's settings.
async fn scene_settings(tidings: &Tidings, settings: Value) {
    tidings.put("/policies/privacy", with(policy(), settings)).await.ok();
}

/// Publishes a version; gives its notice's id, empty when it has none.
pub(crate) async fn announced(tidings: &Api, body: Value) -> String {
    let number = tidings.post(VERSIONS, body).await.ok()["number"].as_i64().unwrap();
    let published = tidings.post_empty(&format!("{VERSIONS}/{number}/publish")).await.ok();
    published["notice"]["id"].as_str().unwrap_or_default().to_owned()
}

/// The path of the approval link in the newest message to this address, once there are so many.
pub(crate) async fn link(tidings: &Tidings, email: &str, messages: usize) -> String {
    let mail =
        eventually("a notice", async || tidings.smtp.messages_to(email).into_iter().nth(messages - 1)).await;
    let text = mail.parsed().body_text(0).unwrap().into_owned();
    let (_, rest) = text.split_once("/a/").unwrap_or_else(|| panic!("no approval link: {text}"));
    let token: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    format!("/a/{token}")
}

/// By what the page is known again that this button stands on.
pub(crate) fn shown_on(page: &Answer) -> String {
    let (_, rest) =
        page.text.split_once("name=\"shown\" value=\"").unwrap_or_else(|| panic!("{}", page.text));
    rest.chars().take_while(char::is_ascii_hexdigit).collect()
}

/// Opens the page of a link and presses a button on it.
pub(crate) async fn presses(tidings: &Tidings, path: &str, decision: &str) -> Answer {
    let page = tidings.page(path).await;
    tidings.submit(path, &[("decision", decision), ("shown", &shown_on(&page))]).await
}

pub(crate) async fn answers(tidings: &Tidings, path: &str, decision: &str) -> Answer {
    tidings.submit(path, &[("decision", decision)]).await
}

pub(crate) async fn as_json(tidings: &Tidings, method: Method, path: &str, body: &'static str) -> Answer {
    let request = tidings.anonymous().request(method, path).header("accept", "application/json");
    Answer::of(request.header("content-type", "application/x-www-form-urlencoded").body(body)).await
}

pub(crate) async fn person(tidings: &Tidings, email: &str) -> Value {
    tidings.get(&format!("/recipients?email={email}")).await.ok()["items"][0].clone()
}

/// What stands for somebody of the policy `privacy`.
pub(crate) async fn stands(tidings: &Tidings, email: &str) -> Value {
    let id = person(tidings, email).await["id"].as_str().unwrap().to_owned();
    tidings.get(&format!("/recipients/{id}/policies")).await.ok()["items"][0].clone()
}

/// How many approve, decline and have not answered, as the API tells and as they are when counted.
pub(crate) async fn tallied(tidings: &Tidings, notice: &str) -> [u64; 3] {
    let answers = tidings.get(&format!("/notices/{notice}")).await.ok()["approvals"].clone();
    let on = tidings.app().db.reads();
    let row = rows::find(on, notice.parse::<NoticeId>().unwrap()).await.unwrap().unwrap();
    let counted = rows::approvals::counts(on, row.version_id).await.unwrap();
    let told = ["approved", "declined", "open"].map(|name| answers[name].as_u64().unwrap());
    assert_eq!((told[0], told[1]), counted, "{answers}");
    told
}

/// So many people are told of a change.
pub(crate) async fn told(tidings: &Tidings, notice: &str, people: u64) {
    let path = format!("/notices/{notice}");
    wait_until("everyone told", async || tidings.get(&path).await.ok()["counts"]["told"] == people).await;
}

pub(crate) async fn in_effect(tidings: &Tidings, notice: &str) {
    let path = format!("/notices/{notice}");
    wait_until("a change in effect", async || tidings.get(&path).await.ok()["state"] == "in_effect").await;
}

/// A link of this purpose to the message of this notice to somebody.
async fn made_link(tidings: &Tidings, email: &str, purpose: Purpose) -> String {
    let id = person(tidings, email).await["id"].as_str().unwrap().to_owned();
    let deliveries = tidings.get(&format!("/recipients/{id}/deliveries")).await.ok();
    let delivery = deliveries["items"].as_array().unwrap().last().unwrap().clone();
    let app = tidings.app();
    let on = app.db.reads();
    let brand = tidings::brand::rows::find(on, "acme").await.unwrap().unwrap();
    let topic = tidings::brand::rows::find_topic(on, brand.id, "policy-notices").await.unwrap().unwrap();
    let link = Link {
        purpose,
        address_hash: app.address_key.hash(&tidings::address::EmailAddress::parse(email).unwrap()),
        recipient: id.parse().unwrap(),
        brand: brand.id,
        topic: topic.id,
        delivery: delivery["id"].as_str().unwrap().parse().unwrap(),
        made_at: app.db.clock().now(),
    };
    link.to_token(&app.link_keys)
}

on_both! {
    async fn an_answer_is_kept_can_be_changed_until_the_day_and_decides_which_version_stands(database: Database) {
        let tidings = scene(database).await;
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, ADA, 1).await;
        let page = tidings.page(&path).await;
        page.is(200);
        for named in ["Do you agree to this change?", "Privacy policy", "We keep data for another time.", "a…e@e….org",
            "You have not answered yet.", "/policies/privacy/2/changes", "/policies/privacy/1\"", "/policies/privacy/2\""] {
            assert!(page.text.contains(named), "{named}: {}", page.text);
        }
        assert_eq!(page.text.matches("<button>").count(), 2, "{}", page.text);
        // The change itself, before the buttons, without anything that runs.
        let at = |words: &str| page.text.find(words).unwrap_or_else(|| panic!("{words}: {}", page.text));
        assert!(at("We keep data for another time.") < at("<details open>") && at("<details open>") < at("<ins>"));
        assert!(at("<del>") < at("<button>") && at("<ins>") < at("<button>"));
        assert!(!page.text.contains(ADA) && !page.text.contains("<script"));
        assert_eq!(tallied(&tidings, &notice).await, [0, 0, 2]);

        let agreed = answers(&tidings, &path, "approve").await;
        assert!(agreed.is(200).text.contains("Saved: you agree"));
        for (mark, words) in [("true", "I agree · your answer</button>"), ("false", ">I decline</button>")] {
            let button = agreed.text.split("<button").find(|button| button.contains(&format!("aria-pressed=\"{mark}\"")));
            assert!(button.is_some_and(|button| button.contains(words)), "{words}: {}", agreed.text);
        }
        answers(&tidings, &path, "approve").await.is(200);
        assert_eq!((tallied(&tidings, &notice).await, count(&tidings, "approvals").await), ([1, 0, 1], 1));
        let pending = stands(&tidings, ADA).await["pending"][0].clone();
        assert_eq!((&pending["version"], &pending["answer"]), (&json!(2), &json!("approve")));
        assert!(answers(&tidings, &path, "decline").await.is(200).text.contains("Saved: you decline"));
        assert_eq!((tallied(&tidings, &notice).await, count(&tidings, "approvals").await), ([0, 1, 1], 2));
        assert!(tidings.page(&path).await.text.contains("You declined on "));
        answers(&tidings, &path, "approve").await.is(200);

        assert_eq!(stands(&tidings, ADA).await["because"], "baseline");
        tidings.advance(DAY * 41);
        in_effect(&tidings, &notice).await;
        let late = answers(&tidings, &path, "decline").await;
        assert!(late.is(200).text.contains("The change has taken effect"), "{}", late.text);
        let late_json = as_json(&tidings, Method::POST, &path, "decision=decline").await.is(200).json();
        assert_eq!((&late_json["recorded"], &late_json["closed"], &late_json["answer"]["decision"]),
            (&json!(false), &json!("in_effect"), &json!("approve")));
        let looked = as_json(&tidings, Method::GET, &path, "").await.is(200).json();
        assert!(looked.get("recorded").is_none(), "{looked}");
        assert!(!late.text.contains("<button") && late.text.contains("You agreed on "), "{}", late.text);
        assert_eq!((tallied(&tidings, &notice).await, count(&tidings, "approvals").await), ([1, 0, 1], 3));
        let (ada, bob) = (stands(&tidings, ADA).await, stands(&tidings, BOB).await);
        assert_eq!((&ada["version"], &ada["because"], &ada["flagged"]), (&json!(2), &json!("approved"), &json!(false)));
        assert_eq!((&bob["version"], &bob["because"]), (&json!(1), &json!("silence")));
        let texts = tidings.get("/policies/privacy/versions/2").await.ok();
        assert_eq!(ada["sha256"], texts["texts"]["en"]["sha256"]);
        assert_eq!((&ada["policy"], &ada["brand"], &ada["title"]), (&json!("privacy"), &json!("acme"), &json!("Privacy policy")));
        assert!(ada["pending"] == json!([]) && ada["since"].is_string(), "{ada}");
        tidings.stop().await;
    }

    async fn what_a_companys_system_says_of_a_sign_up_does_not_overtake_a_refusal(database: Database) {
        let tidings = scene(database).await;
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        answers(&tidings, &link(&tidings, ADA, 1).await, "decline").await.is(200);
        for email in [ADA, BOB] {
            tidings.post("/recipients", json!({ "email": email, "policies": { "privacy": 2 } })).await.ok();
        }
        tidings.advance(DAY * 41);
        in_effect(&tidings, &notice).await;
        let (ada, bob) = (stands(&tidings, ADA).await, stands(&tidings, BOB).await);
        assert_eq!((&ada["version"], &ada["because"]), (&json!(1), &json!("declined")), "{ada}");
        assert_eq!((&bob["version"], &bob["because"]), (&json!(2), &json!("accepted_at_sign_up")), "{bob}");
        tidings.stop().await;
    }

    async fn what_somebody_declined_does_not_hold_when_they_leave_the_brand_and_come_back(database: Database) {
        let tidings = scene(database).await;
        tidings.brand("bee").await;
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        answers(&tidings, &link(&tidings, ADA, 1).await, "decline").await.is(200);
        tidings.advance(DAY * 41);
        in_effect(&tidings, &notice).await;
        for email in [ADA, BOB] {
            for brand in ["bee", "acme"] {
                tidings.post("/recipients", json!({ "email": email, "brands": [brand] })).await.ok();
            }
        }
        let (ada, bob) = (stands(&tidings, ADA).await, stands(&tidings, BOB).await);
        assert_eq!((&ada["version"], &ada["because"]), (&json!(1), &json!("declined")), "{ada}");
        assert_eq!((&bob["version"], &bob["because"]), (&json!(2), &json!("joined_after")), "{bob}");
        tidings.stop().await;
    }

    async fn scanners_that_follow_the_link_answer_nothing(database: Database) {
        let tidings = scene(database).await;
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, ADA, 1).await;
        let methods = [Method::GET, Method::HEAD, Method::OPTIONS];
        let mut pages = Vec::new();
        for method in methods.iter().cycle().take(60) {
            let path = format!("{path}?decision=approve");
            pages.push(Answer::of(tidings.anonymous().request(method.clone(), &path)).await);
        }
        pages[0].is(200);
        pages[1].is(200);
        pages[2].is(204);
        assert!(pages[1].text.is_empty());
        assert_eq!(pages[2].header("allow"), "GET, HEAD, OPTIONS, POST");
        for name in ["content-type", "content-security-policy", "cache-control", "content-length"] {
            assert_eq!(pages[0].header(name), pages[1].header(name), "{name}");
        }
        assert_eq!((tallied(&tidings, &notice).await, count(&tidings, "approvals").await), ([0, 0, 2], 0));
        tidings.stop().await;
    }

    async fn fifty_answers_at_once_are_one_record_and_fifty_successes(database: Database) {
        let tidings = scene(database).await;
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, ADA, 1).await;
        for answer in join_all((0..50).map(|_| answers(&tidings, &path, "decline"))).await {
            answer.is(200);
        }
        assert_eq!((tallied(&tidings, &notice).await, count(&tidings, "approvals").await), ([0, 1, 1], 1));
        tidings.stop().await;
    }

    async fn what_names_no_decision_and_what_is_no_link_records_nothing(database: Database) {
        let tidings = scene(database).await;
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, ADA, 1).await;
        for (body, kind) in [
            ("", ""),
            ("decision=maybe", "application/x-www-form-urlencoded"),
            ("decision=approve&decision=decline", "application/x-www-form-urlencoded"),
            ("List-Unsubscribe=One-Click", "application/x-www-form-urlencoded"),
            ("{\"decision\":\"approve\"}", "application/json"),
        ] {
            let request = tidings.anonymous().request(Method::POST, &path).header("content-type", kind).body(body);
            let page = Answer::of(request).await;
            assert!(page.is(422).text.contains("Please press one of the two buttons"), "{body}: {}", page.text);
        }
        as_json(&tidings, Method::POST, &path, "decision=x").await.refuses("/decision");
        Answer::of(tidings.anonymous().request(Method::POST, &path).body(vec![b'x'; 70_000])).await.is(413);
        Answer::of(tidings.anonymous().request(Method::DELETE, &path)).await.is(405);
        let unsubscribe = format!("/a/{}", made_link(&tidings, ADA, Purpose::Unsubscribe).await);
        let first = tidings.page("/a/x").await;
        assert!(first.is(404).text.len() <= 1024 && first.text.contains("reply to the message with your answer"));
        for wrong in [unsubscribe, path[..path.len() - 4].to_owned(), format!("{path}AAAA")] {
            for method in [Method::GET, Method::POST] {
                let answer = Answer::of(tidings.anonymous().request(method, &wrong).body("decision=approve")).await;
                assert_eq!(answer.is(404).text, first.text, "{wrong}");
            }
        }
        let approve = format!("/u/{}", made_link(&tidings, ADA, Purpose::Approve).await);
        tidings.page(&approve).await.is(404);
        for end in [">", ".", "%3D", "/", "?utm_source=mail"] {
            tidings.page(&format!("{path}{end}")).await.is(200);
        }
        assert_eq!((tallied(&tidings, &notice).await, count(&tidings, "approvals").await), ([0, 0, 2], 0));
        tidings.stop().await;
    }

    async fn an_answer_that_cannot_be_kept_is_503_and_leaves_no_trace(database: Database) {
        let tidings = scene(database).await;
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, ADA, 1).await;
        // The last thing that an answer writes is its evidence.
        sql(&tidings, "ALTER TABLE evidence_heads RENAME TO heads_away").await;
        let page = answers(&tidings, &path, "approve").await;
        assert!(page.is(503).text.contains("name=\"decision\" value=\"approve\""), "{}", page.text);
        assert!(!page.header("retry-after").is_empty());
        as_json(&tidings, Method::POST, &path, "decision=approve").await.problem(503);
        sql(&tidings, "ALTER TABLE heads_away RENAME TO evidence_heads").await;
        assert_eq!((tallied(&tidings, &notice).await, count(&tidings, "approvals").await), ([0, 0, 2], 0));
        answers(&tidings, &path, "approve").await.is(200);
        assert_eq!(tallied(&tidings, &notice).await, [1, 0, 1]);
        tidings.stop().await;
    }

    async fn an_answer_is_bound_to_the_text_of_the_messages_language_and_goes_into_evidence(database: Database) {
        let tidings = scene(database).await;
        tidings.patch(&format!("/recipients/{}", person(&tidings, ADA).await["id"].as_str().unwrap()), json!({ "locale": "de" })).await.ok();
        let german = json!({ "translations": { "de": { "title": "Datenschutz", "summary": "Wir speichern kürzer.", "body_markdown": "# Datenschutz" } } });
        let notice = announced(&tidings, with(version(&tidings, "adverse", 40), german)).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, ADA, 1).await;
        let page = tidings.page(&path).await;
        for named in ["lang=\"de\"", "Datenschutz", "Wir speichern kürzer.", "/policies/privacy/2?lang&#x3D;de", "Ich lehne ab"] {
            assert!(page.text.contains(named), "{named}: {}", page.text);
        }
        // The version before is not there in German: what changed is shown in the language that both have.
        assert!(page.text.contains("steht hier in einer anderen: \u{2068}English\u{2069}") || page.text.contains(">English<"), "{}", page.text);
        assert!(page.text.contains("class=\"changes\" lang=\"en\"") && page.text.contains("<ins>"), "{}", page.text);
        let answer = as_json(&tidings, Method::POST, &path, "decision=decline").await.is(200).json();
        let texts = tidings.get("/policies/privacy/versions/2").await.ok();
        let sha256 = &texts["texts"]["de"]["sha256"];
        assert_eq!((&answer["language"], &answer["sha256"], &answer["recorded"]), (&json!("de"), sha256, &json!(true)));
        assert_eq!(answer["answer"]["decision"], "decline");
        let on = tidings.app().db.reads();
        let entries = rows::entries(on, notice.parse().unwrap(), i64::MIN, 100).await.unwrap();
        let said: Vec<Value> = entries.iter().filter(|entry| entry.kind == "approval")
            .map(|entry| serde_json::from_str(&entry.body).unwrap()).collect();
        assert_eq!(said.len(), 1);
        assert_eq!((&said[0]["decision"], &said[0]["sha256"], &said[0]["version"]), (&json!("decline"), sha256, &json!(2)));
        tidings.stop().await;
    }

    async fn a_change_that_was_called_off_or_overtaken_shows_what_there_is_now_and_takes_no_answer(database: Database) {
        let tidings = scene(database).await;
        let first = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &first, 2).await;
        let path = link(&tidings, ADA, 1).await;
        // A minor version after it changes nothing about the question.
        announced(&tidings, version(&tidings, "minor", 41)).await;
        answers(&tidings, &path, "approve").await.is(200);
        let second = announced(&tidings, version(&tidings, "adverse", 50)).await;
        let page = answers(&tidings, &path, "decline").await;
        assert!(page.is(200).text.contains("There is a newer change") && !page.text.contains("<button"), "{}", page.text);
        assert!(page.text.contains("/policies/privacy/4\"") && page.text.contains("You agreed on"), "{}", page.text);
        let answer = as_json(&tidings, Method::POST, &path, "decision=decline").await.is(200).json();
        assert_eq!((&answer["closed"], &answer["newer"], &answer["recorded"]), (&json!("superseded"), &json!(4), &json!(false)));
        assert_eq!(tallied(&tidings, &first).await, [1, 0, 1]);
        // Once the newer one is called off, the earlier one counts again.
        told(&tidings, &second, 2).await;
        let newer = link(&tidings, ADA, 2).await;
        tidings.post(&format!("/notices/{second}/withdraw"), json!({ "reason": "A mistake." })).await.ok();
        let page = answers(&tidings, &newer, "approve").await;
        assert!(page.is(200).text.contains("This change was called off") && !page.text.contains("<button"), "{}", page.text);
        assert_eq!(tallied(&tidings, &second).await[..2], [0, 0]);
        answers(&tidings, &path, "decline").await.is(200);
        assert_eq!(tallied(&tidings, &first).await, [0, 1, 1]);
        tidings.stop().await;
    }

    async fn a_later_change_that_asks_nothing_ends_no_question_before_its_day(database: Database) {
        let tidings = scene(database).await;
        let first = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &first, 2).await;
        let path = link(&tidings, ADA, 1).await;
        let second = announced(&tidings, version(&tidings, "material", 50)).await;
        told(&tidings, &second, 2).await;
        let page = answers(&tidings, &path, "approve").await;
        assert!(page.is(200).text.contains("You agreed on") && page.text.contains("/policies/privacy/3\""), "{}", page.text);
        assert_eq!(tallied(&tidings, &first).await, [1, 0, 1]);
        tidings.advance(DAY * 41);
        in_effect(&tidings, &first).await;
        let page = answers(&tidings, &path, "decline").await;
        assert!(page.is(200).text.contains("There is a newer change") && !page.text.contains("<button"), "{}", page.text);
        tidings.advance(DAY * 10);
        in_effect(&tidings, &second).await;
        // Who agreed is bound by what followed, who said nothing is not.
        for (email, version, because) in [(ADA, 3, "told"), (BOB, 1, "earlier_not_approved")] {
            let found = stands(&tidings, email).await;
            assert_eq!((&found["version"], &found["because"]), (&json!(version), &json!(because)), "{email}: {found}");
        }
        tidings.stop().await;
    }

    async fn who_joins_the_brand_after_the_day_joined_under_it_however_old_the_account(database: Database) {
        let tidings = scene(database).await;
        tidings.brand("bee").await;
        for email in ["early@example.org", "late@example.org"] {
            tidings.post("/recipients", json!({ "email": email, "brands": ["bee"] })).await.ok();
        }
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        told(&tidings, &notice, 2).await;
        let join = async |email: &str| {
            tidings.post("/recipients", json!({ "email": email, "brands": ["bee", "acme"] })).await.ok();
        };
        join("early@example.org").await;
        told(&tidings, &notice, 3).await;
        tidings.advance(DAY * 41);
        in_effect(&tidings, &notice).await;
        join("late@example.org").await;
        for (email, version, because) in [("early@example.org", 1, "silence"), ("late@example.org", 2, "joined_after")] {
            let found = stands(&tidings, email).await;
            assert_eq!((&found["version"], &found["because"]), (&json!(version), &json!(because)), "{email}: {found}");
        }
        // Being named again is no joining, and nor is belonging to every brand from now on.
        join("early@example.org").await;
        let every = json!({ "email": "early@example.org", "brands": null });
        tidings.post("/recipients", every).await.ok();
        assert_eq!(stands(&tidings, "early@example.org").await["because"], "silence");
        wait_until("the notice closed", async || {
            let rounds = tidings.get(&format!("/notices/{notice}")).await.ok()["rounds"].clone();
            rounds.as_array().unwrap().iter().all(|round| round["state"] == "closed")
        })
        .await;
        assert!(tidings.smtp.messages_to("late@example.org").is_empty(), "who joined under it is told of nothing");
        tidings.stop().await;
    }

    async fn a_new_use_is_refused_and_allowed_by_its_link_at_any_time(database: Database) {
        let tidings = scene(database).await;
        tidings.topic("acme", "profiling", "marketing").await;
        let body = with(version(&tidings, "new_use", 40), json!({ "topic": "profiling" }));
        let notice = announced(&tidings, body).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, ADA, 1).await;
        let page = tidings.page(&path).await;
        assert!(page.text.contains("Do you allow this new use?") && page.text.contains("PROFILING"), "{}", page.text);
        let decided = async || {
            tidings.get(&format!("/explain?email={ADA}&brand=acme&topic=profiling")).await.ok()["decision"].clone()
        };
        assert!(answers(&tidings, &path, "decline").await.is(200).text.contains("Saved: you refuse it"));
        assert_eq!((decided().await, tallied(&tidings, &notice).await), (json!("suppress"), [0, 1, 1]));
        let opt_outs = tidings.get(&format!("/opt-outs?email={ADA}")).await.ok();
        assert_eq!(opt_outs["items"][0]["scope"], json!({ "brand": "acme", "topic": "profiling" }), "{opt_outs}");
        assert_eq!(opt_outs["items"][0]["channel"], "page");
        let allowed = answers(&tidings, &path, "approve").await;
        assert!(allowed.is(200).text.contains("Saved: you allow it") && !allowed.text.contains("still stands"), "{}", allowed.text);
        let allowed = as_json(&tidings, Method::POST, &path, "decision=approve").await.is(200).json();
        assert_eq!(allowed["still_refused"], json!([]), "{allowed}");
        assert_eq!((decided().await, tallied(&tidings, &notice).await), (json!("send"), [1, 0, 1]));
        for email in [ADA, BOB] {
            assert_eq!(stands(&tidings, email).await["uses"][0]["allowed"], false, "the change lies ahead");
        }
        // The change holds for everyone; the use can be refused later on too.
        tidings.advance(DAY * 41);
        in_effect(&tidings, &notice).await;
        assert_eq!(stands(&tidings, BOB).await["because"], "told");
        answers(&tidings, &path, "decline").await.is(200);
        assert_eq!(decided().await, "suppress");
        let found = stands(&tidings, ADA).await;
        assert_eq!(found["version"], 2);
        assert_eq!(found["uses"], json!([{ "version": 2, "topic": "profiling", "allowed": false }]), "{found}");
        assert_eq!(stands(&tidings, BOB).await["uses"][0]["allowed"], true);
        // What was said by another way is not taken back by the link.
        let by_phone = json!({ "email": ADA, "scope": "all", "channel": "phone" });
        tidings.post("/opt-outs", by_phone).await.ok();
        // What that means is said.
        for page in [answers(&tidings, &path, "approve").await, tidings.page(&path).await] {
            for words in ["every other brand here. That still stands", "your data is not used for “<bdi>PROFILING</bdi>”"] {
                assert!(page.is(200).text.contains(words), "{words}: {}", page.text);
            }
        }
        let allowed = as_json(&tidings, Method::POST, &path, "decision=approve").await.is(200).json();
        assert_eq!((&allowed["still_refused"], &allowed["answer"]["decision"]), (&json!(["opted_out_of_all"]), &json!("approve")));
        let refused = as_json(&tidings, Method::POST, &path, "decision=decline").await.is(200).json();
        assert!(refused.get("still_refused").is_none(), "{refused}");
        answers(&tidings, &path, "approve").await.is(200);
        assert_eq!(decided().await, "suppress");
        tidings.stop().await;
    }

    async fn a_new_use_is_allowed_through_any_message_of_its_notice_and_nothing_else_is_with_it(database: Database) {
        let tidings = scene(database).await;
        tidings.topic("acme", "profiling", "marketing").await;
        let body = with(version(&tidings, "new_use", 40), json!({ "topic": "profiling" }));
        let notice = announced(&tidings, body).await;
        told(&tidings, &notice, 2).await;
        answers(&tidings, &link(&tidings, ADA, 1).await, "decline").await.is(200);
        // By the footer of the same message she refuses all that can be refused.
        let text = tidings.smtp.messages_to(ADA)[0].parsed().body_text(0).unwrap().into_owned();
        let footer = text.split_whitespace().find(|word| word.contains("/u/")).unwrap().to_owned();
        let footer = footer.split_once("/u/").map(|(_, token)| format!("/u/{token}")).unwrap();
        tidings.anonymous().submit(&footer, &[("page", "1"), ("scope", "all")]).await.is(200);
        let because = async || {
            tidings.get(&format!("/explain?email={ADA}&brand=acme&topic=profiling")).await.ok()["because"].clone()
        };
        assert_eq!(because().await, json!(["opted_out_of_topic", "opted_out_of_all"]));
        let correction = json!({ "reason": "We were not clear.", "summary": "Clearer." });
        tidings.post(&format!("/notices/{notice}/correct"), correction).await.ok();
        presses(&tidings, &link(&tidings, ADA, 2).await, "approve").await.is(200);
        assert_eq!(because().await, json!(["opted_out_of_all"]));
        tidings.stop().await;
    }

    async fn a_change_that_asks_nothing_is_shown_without_buttons_and_the_erased_are_asked_nothing(database: Database) {
        let tidings = scene(database).await;
        let notice = announced(&tidings, version(&tidings, "material", 40)).await;
        told(&tidings, &notice, 2).await;
        let path = format!("/a/{}", made_link(&tidings, ADA, Purpose::Approve).await);
        for page in [tidings.page(&path).await, answers(&tidings, &path, "decline").await] {
            assert!(page.is(200).text.contains("This is what changes") && !page.text.contains("<button"), "{}", page.text);
        }
        let notice = announced(&tidings, version(&tidings, "adverse", 50)).await;
        told(&tidings, &notice, 2).await;
        let path = link(&tidings, BOB, 2).await;
        sql(&tidings, "UPDATE recipients SET standing = 'erased', address = NULL, folded = NULL WHERE folded = 'bob@example.org'").await;
        let page = answers(&tidings, &path, "approve").await;
        assert!(page.is(200).text.contains("This account no longer exists") && !page.text.contains("<button"), "{}", page.text);
        assert_eq!(count(&tidings, "approvals").await, 0);
        tidings.stop().await;
    }

    async fn what_stands_for_whom_and_why_is_told_to_those_who_may_know(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.brand("acme").await;
        tidings.brand("bee").await;
        scene_of(&tidings, json!({ "on_silence": "account_flagged", "on_untold": "earlier_version_stands" })).await;
        tidings.recipient(ADA).await;
        tidings.post("/recipients", json!({ "email": BOB, "brands": ["bee"] })).await.ok();
        let gone = "gone@example.org";
        tidings.recipient(gone).await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.1.1 no such user")).to(gone);
        let notice = announced(&tidings, version(&tidings, "adverse", 40)).await;
        let accepted = json!({ "email": "accepted@example.org", "policies": { "privacy": 2 } });
        tidings.post("/recipients", accepted).await.ok();
        told(&tidings, &notice, 1).await;
        tidings.advance(DAY * 41);
        in_effect(&tidings, &notice).await;
        tidings.recipient("late@example.org").await;
        // What the policy says from now on is about what is published from now on.
        scene_settings(&tidings, json!({ "on_silence": "earlier_version_stands", "on_untold": "takes_effect" })).await;
        for (email, version, because, flagged) in [
            (ADA, 1, "silence", true),
            (gone, 1, "not_told", false),
            ("accepted@example.org", 2, "accepted_at_sign_up", false),
            ("late@example.org", 2, "joined_after", false),
        ] {
            let found = stands(&tidings, email).await;
            let named = (&found["version"], &found["because"], &found["flagged"]);
            assert_eq!(named, (&json!(version), &json!(because), &json!(flagged)), "{email}: {found}");
        }
        let minor = announced(&tidings, version(&tidings, "minor", 1)).await;
        assert!(minor.is_empty());
        tidings.advance(DAY * 2);
        let found = stands(&tidings, ADA).await;
        assert_eq!((&found["version"], &found["because"]), (&json!(1), &json!("earlier_not_approved")), "{found}");

        let path = async |email: &str| format!("/recipients/{}/policies", person(&tidings, email).await["id"].as_str().unwrap());
        let (ada, bob) = (path(ADA).await, path(BOB).await);
        assert_eq!(tidings.get(&bob).await.ok()["items"], json!([]));
        tidings.get("/recipients/00000000-0000-0000-0000-000000000000/policies").await.problem(404);
        let app = tidings.app();
        for (brand, seen) in [("acme", ada.as_str()), ("bee", bob.as_str())] {
            let id = tidings::brand::rows::find(app.db.reads(), brand).await.unwrap().unwrap().id;
            let key = tidings::access::rows::create_key(&app.db, brand, Role::Operator, Some(id), "test").await.unwrap();
            let bound = tidings.with_key(key.key.expose_secret());
            bound.get(seen).await.ok();
            if brand == "acme" {
                bound.get(&bob).await.problem(404);
            } else {
                assert_eq!(bound.get(&ada).await.ok()["items"], json!([]), "what it sees of Ada is of its own brand");
            }
        }
        tidings.stop().await;
    }
}
