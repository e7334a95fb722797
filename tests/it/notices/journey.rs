//! A change for ten thousand accounts, with workers that are killed on the way, people who refuse everything, people who
//! complained, dead addresses, people who join, answers, and the day on which it takes effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use tidings::app::App;
use tidings::clock::Instant;
use tidings::fence;
use tidings::opt_out::{Channel, OptOut, Scope};
use tidings::recipient;
use tidings::serve::Parts;

use crate::harness::{
    Act, Database, Mood, Options, Process, SmtpServer, Stage, Tidings, eventually_within, wait_until,
};

const PEOPLE: usize = 10_000;
const JOINING: usize = 20;
const DAY: Duration = Duration::from_secs(24 * 3600);
const LONG: Duration = Duration::from_secs(240);

fn address(person: usize) -> String {
    format!("p{person}@people.example.com")
}

/// 30 of 100 refuse everything, 5 complained, 1 has a dead address.
fn refuses(person: usize) -> bool {
    person % 100 < 30
}

fn complained(person: usize) -> bool {
    (30..35).contains(&(person % 100))
}

fn is_dead(person: usize) -> bool {
    person % 100 == 99
}

/// Everyone is stored, and says or is what is told of them.
async fn populate(tidings: &Tidings) {
    let lines: String = (0..PEOPLE).map(|n| format!("{},Person {n}\n", address(n))).collect();
    let report =
        tidings.post_text("/recipients/import", "text/csv", format!("email,name\n{lines}")).await.ok();
    assert_eq!(report["created"], PEOPLE, "{report}");
    let lines: String =
        (0..PEOPLE).filter(|n| refuses(*n)).map(|n| format!("{},all\n", address(n))).collect();
    tidings.post_text("/opt-outs/import", "text/csv", format!("email,scope\n{lines}")).await.ok();
    let app = tidings.app();
    let brand = tidings::brand::rows::find(app.db.reads(), "acme").await.unwrap().unwrap();
    for n in (0..PEOPLE).filter(|n| complained(*n)) {
        let asked = OptOut {
            address_hash: hash(app, n),
            scopes: vec![Scope::Brand(brand.id)],
            channel: Channel::Email,
            complaint: true,
            note: None,
            requested_at: None,
            delivery: None,
            actor: "provider".to_owned(),
        };
        fence::opt_out(app, &asked, Instant::now()).await.unwrap();
    }
    let txn = app.db.begin().await.unwrap();
    for n in (0..PEOPLE).filter(|n| is_dead(*n)) {
        tidings::opt_out::rows::record_failure(&txn, &app.db, &hash(app, n)).await.unwrap();
    }
    // The second failure of each came more than a day after the first.
    let sql = "UPDATE addresses SET first_failed_at = first_failed_at - 200000000000 WHERE failures > 0";
    txn.execute_raw(Statement::from_string(app.db.backend(), sql)).await.unwrap();
    txn.commit().await.unwrap();
}

fn hash(app: &App, person: usize) -> tidings::address::AddressHash {
    app.address_key.hash(&tidings::address::EmailAddress::parse(&address(person)).unwrap())
}

/// The addresses of those whose message was once handed over with an unknown outcome.
async fn in_doubt(app: &App) -> BTreeSet<String> {
    let sql = "SELECT r.address FROM deliveries d JOIN recipients r ON r.id = d.recipient_id WHERE d.doubted";
    let rows = app.db.reads().query_all_raw(Statement::from_string(app.db.backend(), sql)).await.unwrap();
    rows.iter().map(|row| row.try_get("", "address").unwrap()).collect()
}

fn letters(relay: &SmtpServer) -> BTreeMap<String, usize> {
    let mut letters = BTreeMap::new();
    for mail in relay.messages() {
        *letters.entry(mail.recipient().to_owned()).or_default() += 1;
    }
    letters
}

/// The page behind the link of this person's message.
fn answer_path(relay: &SmtpServer, person: usize) -> String {
    let mail = relay.messages_to(&address(person)).remove(0);
    let text = mail.parsed().body_text(0).unwrap().into_owned();
    let link = text.split_whitespace().find(|word| word.contains("/a/")).unwrap().to_owned();
    link.split_once("/a/").map(|(_, token)| format!("/a/{token}")).unwrap()
}

async fn standing(tidings: &Tidings, person: usize) -> Value {
    let person = recipient::rows::find(tidings.app().db.reads(), &hash(tidings.app(), person)).await.unwrap();
    let all = tidings.get(&format!("/recipients/{}/policies", person.unwrap().id)).await.ok();
    all["items"][0].clone()
}

on_both! {
    async fn ten_thousand_are_told_and_answer_while_workers_are_killed(database: Database) {
        let mood: Mood = Arc::new(|stage, _| (stage == Stage::FinalDot).then_some(Act::Late(Duration::from_millis(2))));
        let relay = SmtpServer::with(Options { mood: Some(mood), ..Options::default() }).await;
        let url = relay.url();
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        populate(&tidings).await;
        tidings.policy(json!({})).await;
        let notice = tidings.announce("adverse", json!({})).await;
        let id = notice["id"].as_str().unwrap().to_owned();

        // Three workers one after the other, each on what the one before left; two of them are killed in the midst.
        let env = [("TIDINGS_RELAY_URL", url.as_str()), ("TIDINGS_LEASE_SECONDS", "5"), ("TIDINGS_RELAY_SILENCE", "6")];
        let only = ["--only", "worker"];
        let mut worker = Process::serve(&tidings.database, &only, &env).await;
        for killed in 1..=2 {
            wait_until("messages on their way", async || relay.count() >= killed * 1_500).await;
            worker.kill();
            worker = Process::serve(&tidings.database, &only, &env).await;
        }
        let joining: String = (PEOPLE..PEOPLE + JOINING).map(|n| format!("{}\n", address(n))).collect();
        tidings.post_text("/recipients/import", "text/csv", format!("email\n{joining}")).await.ok();
        let told = eventually_within(LONG, "a notice that told everyone", async || {
            let notice = tidings.get(&format!("/notices/{id}")).await.ok();
            let counts = &notice["counts"];
            (counts["total"] == PEOPLE + JOINING && counts["pending"] == 0).then_some(notice)
        })
        .await;
        assert!(worker.terminate().await.success());

        // Told are exactly all but the dead, each once save those whose outcome was once unknown.
        let letters = letters(&relay);
        let meant: BTreeSet<String> = (0..PEOPLE + JOINING).filter(|n| *n >= PEOPLE || !is_dead(*n)).map(address).collect();
        assert_eq!(letters.keys().cloned().collect::<BTreeSet<_>>(), meant);
        let twice: BTreeSet<String> = letters.into_iter().filter(|(_, n)| *n > 1).map(|(who, _)| who).collect();
        let doubted = in_doubt(tidings.app()).await;
        assert!(twice.is_subset(&doubted), "{:?} got it twice without a doubt", twice.difference(&doubted));
        assert!(!doubted.is_empty() && doubted.len() <= 2 * 16 * 5, "{} in doubt", doubted.len());
        let dead = (0..PEOPLE).filter(|n| is_dead(*n)).count();
        assert_eq!(told["counts"]["unreachable"], dead, "{told}");
        assert_eq!(told["on_time"], true, "{told}");
        let list = tidings.get(&format!("/notices/{id}/unreachable?limit=500")).await.ok();
        let listed: BTreeSet<&str> = list["items"].as_array().unwrap().iter().map(|one| one["email"].as_str().unwrap()).collect();
        assert_eq!(listed.len(), dead);
        assert!((0..PEOPLE).filter(|n| is_dead(*n)).all(|n| listed.contains(address(n).as_str())));
        assert!(list["items"].as_array().unwrap().iter().all(|one| one["reason"] == "address_dead"), "{list}");

        // Scanners follow every link, and nothing comes of it; people answer with the buttons.
        let anonymous = tidings.anonymous();
        for n in 40..60 {
            let path = answer_path(&relay, n);
            anonymous.page(&path).await.is(200);
            crate::harness::Answer::of(anonymous.request(reqwest::Method::HEAD, &path)).await.is(200);
        }
        assert_eq!(tidings.get(&format!("/notices/{id}")).await.ok()["approvals"]["approved"], 0);
        for n in 40..50 {
            anonymous.submit(&answer_path(&relay, n), &[("decision", "approve")]).await.is(200);
        }
        for n in 45..55 {
            anonymous.submit(&answer_path(&relay, n), &[("decision", "decline")]).await.is(200);
        }
        let answered = tidings.get(&format!("/notices/{id}")).await.ok();
        let open = PEOPLE + JOINING - dead - 15;
        assert_eq!(answered["approvals"], json!({ "approved": 5, "declined": 10, "open": open }), "{answered}");
        assert_eq!(standing(&tidings, 40).await["version"], 1);

        // The day comes.
        tidings.advance(DAY * 41);
        let worker = tidings.another(Parts { web: false, ..Parts::default() }).await;
        tidings.notice_when("is closed", &id, |notice| notice["closed_at"].is_string()).await;
        worker.stop().await;
        for (person, version, because) in [(40, 2, "approved"), (47, 1, "declined"), (52, 1, "declined"), (60, 1, "silence"), (99, 1, "not_told")] {
            let stands = standing(&tidings, person).await;
            assert_eq!((&stands["version"], &stands["because"]), (&json!(version), &json!(because)), "{person}: {stands}");
        }
        let late = anonymous.submit(&answer_path(&relay, 60), &[("decision", "approve")]).await;
        late.is(200);
        assert_eq!(standing(&tidings, 60).await["version"], 1);
        tidings.stop().await;
    }
}
