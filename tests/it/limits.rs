//! Limits hold over all workers on one database, whoever asks, whatever breaks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sea_orm::DbBackend;
use serde_json::{Value, json};
use tidings::clock::Timestamp;
use tidings::config::{LimitEntry, Limited};
use tidings::db::Db;
use tidings::delivery::limit::{Limit, Name, Plan, Rate};
use tidings::delivery::rows::limits::{Share, Wanted, ask, feed, leave, share, watch};
use tidings::delivery::rows::{self, Ask, Lane, Trail};
use tidings::id::{DeliveryId, LeaseToken};
use tidings::serve::Parts;
use uuid::Uuid;

use crate::harness::{Act, Database, Stage, Tidings, wait_until};
use crate::promises::sql;

const LEASE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn entry(domain: &str, rate: Option<(u32, Duration)>, connections: Option<u32>) -> LimitEntry {
    LimitEntry { limited: Limited::Domains(vec![domain.into()]), rate, connections, warm_up: None }
}

fn people() -> Name {
    Name::Domain("people.example.com".into())
}

/// A web process alone and so many messages waiting to `people.example.com`.
async fn waiting(database: Database, messages: usize) -> Tidings {
    let tidings = Tidings::start_web(database).await;
    tidings.ready_to_send().await;
    for n in 0..messages {
        tidings.message("acme", "service", &format!("p{n}@people.example.com")).await;
    }
    tidings
}

/// One more handle on the same database and clock.
async fn handle(tidings: &Tidings) -> Db {
    Db::open_with_clock(&tidings.database.url(), tidings.clock().clone()).await.unwrap()
}

async fn claim(db: &Db, lease: Duration, limit: usize) -> (LeaseToken, Vec<DeliveryId>) {
    let token = LeaseToken::new();
    let asked = Ask { token, lease, silence: HOUR, lanes: &Lane::ALL, limit };
    (token, rows::claim(db, asked, &mut Trail::default()).await.unwrap())
}

async fn ask_for(db: &Db, token: LeaseToken, ids: &[DeliveryId], limit: &Limit) -> Vec<DeliveryId> {
    let wanted: Vec<Wanted> = ids
        .iter()
        .map(|id| Wanted { delivery: *id, lane: Lane::ServiceSide, limits: vec![people()] })
        .collect();
    let limits = BTreeMap::from([(people(), limit.clone())]);
    let answers = ask(db, token, &wanted, &limits).await.unwrap();
    ids.iter().zip(answers).filter(|(_, kept)| kept.is_none()).map(|(id, _)| *id).collect()
}

async fn now(db: &Db) -> Timestamp {
    db.read_clock(db.reads()).await.unwrap()
}

/// From when to when an envelope may have been written, by the database's clock.
#[derive(Clone, Copy, Debug)]
struct Use {
    from: Timestamp,
    to: Timestamp,
}

/// Takes, holds, gives back and sometimes is lost, until everybody together has had `enough` permits.
async fn worker(
    db: Db,
    limit: Limit,
    plan: Plan,
    number: usize,
    had: Arc<AtomicUsize>,
    enough: usize,
) -> Vec<Use> {
    let mut uses = Vec::new();
    let mut turn = number;
    while had.load(Ordering::SeqCst) < enough {
        turn += 1;
        feed(&db, &plan).await.unwrap();
        let is_lost = turn.is_multiple_of(7);
        let lease = if is_lost { Duration::from_millis(200) } else { LEASE };
        let (token, ids) = claim(&db, lease, 1 + turn % 9).await;
        let granted = ask_for(&db, token, &ids, &limit).await;
        let from = now(&db).await;
        had.fetch_add(granted.len(), Ordering::SeqCst);
        if is_lost {
            // It wrote its envelopes at once and is not heard of again; its lease's end gives them back.
            uses.extend(granted.iter().map(|_| Use { from, to: from }));
            continue;
        }
        let hold = Duration::from_millis(u64::try_from(turn * 37 % 120).unwrap());
        while now(&db).await.since(from) < hold {}
        let to = now(&db).await;
        rows::give_back(&db, &granted, token).await.unwrap();
        uses.extend(granted.iter().map(|_| Use { from, to }));
    }
    uses
}

async fn attempts_of(tidings: &Tidings, campaign: &str, state: &str) -> Vec<usize> {
    let list = tidings.get(&format!("/campaigns/{campaign}/deliveries?state={state}&limit=100")).await.ok();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|one| one["attempts"].as_array().unwrap().len()).collect()
}

/// A campaign to these addresses with more fields, started.
async fn campaign(tidings: &Tidings, addresses: &[String], more: Value) -> String {
    let mut body = json!({ "brand": "acme", "topic": "marketing", "template": "hello" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let id = tidings.post("/campaigns", body).await.id();
    let lines = format!("email\n{}\n", addresses.join("\n"));
    tidings.post_text(&format!("/campaigns/{id}/recipients"), "text/csv", lines).await.ok();
    tidings.post_empty(&format!("/campaigns/{id}/start")).await.ok();
    id
}

/// Waits until no permit is open: from then on what was used counts from when it was.
async fn nobody_is_under_way(tidings: &Tidings) {
    use sea_orm::{ConnectionTrait, Statement};
    let on = tidings.app().db.reads();
    wait_until("every permit to have ended", async || {
        let sql = "SELECT 1 AS one FROM permits LIMIT 1";
        let found = on.query_one_raw(Statement::from_string(on.get_database_backend(), sql)).await;
        found.unwrap().is_none()
    })
    .await;
}

/// Has the database take in no word of a destination's, and everything else; or all again.
async fn be_deaf(tidings: &Tidings, deaf: bool) {
    let said = match (tidings.app().db.backend(), deaf) {
        (DbBackend::Sqlite, true) => {
            "CREATE TRIGGER deaf BEFORE UPDATE ON limits WHEN NEW.heed_until IS NOT NULL \
             BEGIN SELECT RAISE(ABORT, 'deaf'); END"
        }
        (DbBackend::Sqlite, false) => "DROP TRIGGER deaf",
        (_, true) => "ALTER TABLE limits ADD CONSTRAINT deaf CHECK (heed_until IS NULL)",
        (_, false) => "ALTER TABLE limits DROP CONSTRAINT deaf",
    };
    sql(tidings, said).await;
}

fn addresses(domain: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("p{n}@{domain}")).collect()
}

async fn counts(tidings: &Tidings, campaign: &str) -> Value {
    tidings.get(&format!("/campaigns/{campaign}")).await.ok()["counts"].clone()
}

/// A campaign uses up what it may of twenty an hour; service mail has the rest at once, and not one message more.
async fn service_mail_does_not_wait_behind_a_campaign(database: Database, limited: Limited) {
    let tidings = Tidings::start_with(database, |settings| {
        settings.limits =
            vec![LimitEntry { limited, rate: Some((20, HOUR)), connections: None, warm_up: None }];
    })
    .await;
    tidings.ready_to_send().await;
    let campaign = campaign(&tidings, &addresses("people.example.com", 30), json!({})).await;
    wait_until("the campaign's part", async || counts(&tidings, &campaign).await["sent"] == 18).await;
    wait_until("the others to wait", async || counts(&tidings, &campaign).await["queued"] == 12).await;
    for n in 0..2 {
        let id = tidings.message("acme", "service", &format!("s{n}@people.example.com")).await;
        assert_eq!(tidings.settled(&id).await["state"], "sent");
    }
    let third = tidings.message("acme", "service", "s2@people.example.com").await;
    nobody_is_under_way(&tidings).await;
    assert_eq!((tidings.smtp.count(), &counts(&tidings, &campaign).await["sent"]), (20, &json!(18)));
    tidings.advance(HOUR + HOUR / 50 + Duration::from_secs(10));
    assert_eq!(tidings.settled(&third).await["state"], "sent");
    assert_eq!(tidings.finished(&campaign).await["counts"]["sent"], 30);
    tidings.stop().await;
}

on_both! {
    async fn no_window_and_no_moment_has_one_more_than_the_limit_however_many_ask_and_are_lost(database: Database) {
        const MESSAGES: u32 = 10;
        const WINDOW: Duration = Duration::from_secs(1);
        const AT_ONCE: u32 = 6;
        let tidings = waiting(database, 40).await;
        let plan =
            Plan::new(&[entry("people.example.com", Some((MESSAGES, WINDOW)), Some(AT_ONCE))]);
        let limit = Limit {
            rate: Some(Rate { messages: MESSAGES, window: WINDOW }),
            at_once: Some(AT_ONCE),
            warm_up: None,
        };
        let had = Arc::new(AtomicUsize::new(0));
        let mut workers = Vec::new();
        for number in 0..4 {
            let db = handle(&tidings).await;
            let work = worker(db, limit.clone(), plan.clone(), number * 3, had.clone(), 60);
            workers.push(tokio::spawn(work));
        }
        let uses: Vec<Use> = join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
        assert!(uses.len() >= 60);
        for start in uses.iter().map(|one| one.to) {
            let end = start.plus(WINDOW);
            let within = uses.iter().filter(|one| one.from <= end && one.to >= start).count();
            assert!(within <= MESSAGES as usize, "{within} in the window from {start}");
        }
        for moment in uses.iter().map(|one| one.from) {
            let under_way = uses.iter().filter(|one| one.from <= moment && one.to > moment).count();
            assert!(under_way <= AT_ONCE as usize, "{under_way} at {moment}");
        }
        tidings.stop().await;
    }

    async fn who_gets_no_permit_waits_without_an_attempt_and_is_called_up_once_there_is_room(database: Database) {
        let tidings = waiting(database, 5).await;
        let db = handle(&tidings).await;
        let plan = Plan::new(&[entry("people.example.com", Some((2, HOUR)), None)]);
        let limit = plan.limit(&people()).unwrap().clone();
        let (token, ids) = claim(&db, LEASE, 10).await;
        assert_eq!(ids.len(), 5);
        let granted = ask_for(&db, token, &ids, &limit).await;
        assert_eq!(granted, ids[..2], "the first come first");
        assert!(claim(&db, LEASE, 10).await.1.is_empty(), "nobody is claimed again before there is room");
        rows::give_back(&db, &granted, token).await.unwrap();
        // These two count as used, whatever became of them, and are in the queue like everybody.
        let (token, again) = claim(&db, LEASE, 10).await;
        assert_eq!(again.len(), 2);
        assert!(ask_for(&db, token, &again, &limit).await.is_empty());
        tidings.advance(HOUR - Duration::from_secs(10));
        assert_eq!(feed(&db, &plan).await.unwrap(), 0);
        // Nobody comes due by themselves first, and as many are called up as there is room for, the first first.
        tidings.advance(Duration::from_secs(10) + HOUR / 50);
        assert_eq!(feed(&db, &plan).await.unwrap(), 2);
        let (token, next) = claim(&db, LEASE, 10).await;
        assert_eq!(next, ids[2..4]);
        assert_eq!(ask_for(&db, token, &next, &limit).await, next);
        for id in ids {
            assert!(rows::get(db.reads(), id).await.unwrap().unwrap().attempts.is_empty());
        }
        tidings.stop().await;
    }

    async fn a_permit_whose_worker_is_lost_counts_until_its_lease_was_decided_and_a_window_after(database: Database) {
        let tidings = waiting(database, 3).await;
        let db = handle(&tidings).await;
        let limit = Limit { rate: Some(Rate { messages: 1, window: HOUR }), ..Limit::default() };
        let (token, ids) = claim(&db, LEASE, 1).await;
        assert_eq!(ask_for(&db, token, &ids, &limit).await, ids);
        // Nobody hears of it for two hours: its lease has ended, but nobody has decided that, so it still may send.
        tidings.advance(2 * HOUR);
        let wanted = Wanted { delivery: DeliveryId::new(), lane: Lane::ServiceSide, limits: vec![people()] };
        let limits = BTreeMap::from([(people(), limit.clone())]);
        let refused = |answers: Vec<Option<Name>>| answers == [Some(people())];
        assert!(refused(ask(&db, LeaseToken::new(), std::slice::from_ref(&wanted), &limits).await.unwrap()));
        // Now a claim decides it: its permit counts as used from now on.
        let (token, again) = claim(&db, LEASE, 3).await;
        assert_eq!(again.len(), 3);
        assert!(ask_for(&db, token, &again, &limit).await.is_empty());
        tidings.advance(HOUR + HOUR / 50);
        assert!(!refused(ask(&db, LeaseToken::new(), &[wanted], &limits).await.unwrap()));
        tidings.stop().await;
    }

    async fn who_asks_twice_under_one_claim_has_one_permit(database: Database) {
        let tidings = waiting(database, 2).await;
        let db = handle(&tidings).await;
        let limit = Limit { at_once: Some(2), ..Limit::default() };
        let (token, ids) = claim(&db, LEASE, 2).await;
        for _ in 0..3 {
            assert_eq!(ask_for(&db, token, &ids, &limit).await, ids);
        }
        tidings.stop().await;
    }

    async fn the_relays_connections_are_shared_evenly_and_never_one_more(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let db = handle(&tidings).await;
        let mine = |process, open| Share { process, open, wanted: 16, lease: LEASE };
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(share(&db, 20, mine(one, 0)).await.unwrap(), 16);
        // The other one gets what is left until the first has closed what is over its part.
        assert_eq!(share(&db, 20, mine(two, 0)).await.unwrap(), 4);
        assert_eq!(share(&db, 20, mine(one, 16)).await.unwrap(), 10);
        assert_eq!(share(&db, 20, mine(two, 4)).await.unwrap(), 4);
        assert_eq!(share(&db, 20, mine(one, 10)).await.unwrap(), 10);
        assert_eq!(share(&db, 20, mine(two, 4)).await.unwrap(), 10);
        // Who leaves, or is lost, leaves everything to the others.
        leave(&db, one).await.unwrap();
        assert_eq!(share(&db, 20, mine(two, 10)).await.unwrap(), 16);
        tidings.advance(LEASE);
        assert_eq!(share(&db, 20, mine(one, 0)).await.unwrap(), 16);
        tidings.stop().await;
    }

    async fn a_campaign_keeps_to_its_limit_over_two_workers_and_a_change_of_it_counts_at_once(database: Database) {
        let tidings = Tidings::start(database).await;
        let other = tidings.another(Parts { web: false, ..Parts::default() }).await;
        tidings.ready_to_send().await;
        let free = campaign(&tidings, &addresses("free.example.com", 30), json!({})).await;
        let limit = json!({ "messages": 5, "per_seconds": 3600 });
        let slow = campaign(&tidings, &addresses("people.example.com", 20), json!({ "limit": limit })).await;
        assert_eq!(tidings.get(&format!("/campaigns/{slow}")).await.ok()["limit"]["messages"], 5);
        tidings.finished(&free).await;
        wait_until("what the limit lets go", async || counts(&tidings, &slow).await["sent"] == 5).await;
        wait_until("the others to be back in the queue", async || {
            counts(&tidings, &slow).await["queued"] == 15
        })
        .await;
        assert_eq!(attempts_of(&tidings, &slow, "queued").await, [0; 15]);
        nobody_is_under_way(&tidings).await;
        tidings.advance(HOUR + HOUR / 50 + Duration::from_secs(10));
        wait_until("the next window", async || counts(&tidings, &slow).await["sent"] == 10).await;
        tidings.patch(&format!("/campaigns/{slow}"), json!({ "limit": null })).await.ok();
        let done = tidings.finished(&slow).await;
        assert_eq!(done["counts"]["sent"], 20);
        assert_eq!(tidings.smtp.count(), 50);
        other.stop().await;
        tidings.stop().await;
    }

    async fn one_slow_destination_keeps_no_other_waiting(database: Database) {
        let tidings = Tidings::start_with(database, |settings| {
            settings.limits = vec![entry("slow.example.com", Some((3, HOUR)), None)];
        })
        .await;
        tidings.ready_to_send().await;
        let mut people = addresses("slow.example.com", 40);
        people.extend(addresses("free.example.com", 40));
        let campaign = campaign(&tidings, &people, json!({})).await;
        wait_until("all but what is limited", async || counts(&tidings, &campaign).await["sent"] == 43).await;
        wait_until("the others to be back in the queue", async || {
            counts(&tidings, &campaign).await["queued"] == 37
        })
        .await;
        let slow = |to: &str| to.ends_with("@slow.example.com");
        assert_eq!(tidings.smtp.messages().iter().filter(|mail| slow(mail.recipient())).count(), 3);
        tidings.stop().await;
    }

    async fn a_warm_up_lets_each_day_have_its_number(database: Database) {
        // From noon of tomorrow on, so that no midnight comes in between.
        let now = Timestamp::now().to_datetime();
        let noon = now.date_naive().succ_opt().unwrap().and_hms_opt(12, 0, 0).unwrap().and_utc();
        let parts = Parts::default();
        parts.clock.advance(Duration::from_secs(u64::try_from((noon - now).num_seconds()).unwrap()));
        let tidings = Tidings::start_parts(database, parts, |settings| {
            settings.limits = vec![LimitEntry {
                limited: Limited::OtherDomains,
                rate: None,
                connections: None,
                warm_up: Some((noon.date_naive(), vec![2, 5])),
            }];
        })
        .await;
        tidings.ready_to_send().await;
        let campaign = campaign(&tidings, &addresses("new.example.com", 20), json!({})).await;
        for sent in [2, 7, 20] {
            wait_until("a day's number", async || counts(&tidings, &campaign).await["sent"] == sent).await;
            wait_until("the others to be back in the queue", async || {
                counts(&tidings, &campaign).await["queued"] == 20 - sent
            })
            .await;
            nobody_is_under_way(&tidings).await;
            tidings.advance(24 * HOUR);
        }
        tidings.stop().await;
    }

    async fn a_campaign_leaves_the_last_tenth_of_a_destinations_window_to_service_mail(database: Database) {
        service_mail_does_not_wait_behind_a_campaign(database, Limited::Domains(vec!["people.example.com".into()])).await;
    }

    async fn a_campaign_leaves_the_last_tenth_of_the_relays_window_to_service_mail(database: Database) {
        service_mail_does_not_wait_behind_a_campaign(database, Limited::Relay).await;
    }

    async fn the_relays_rate_holds_over_two_workers_and_all_is_sent_in_the_end(database: Database) {
        let tidings = Tidings::start_with(database, |settings| {
            let rate = Some((5, HOUR));
            settings.limits = vec![LimitEntry { limited: Limited::Relay, rate, connections: None, warm_up: None }];
        })
        .await;
        let other = tidings.another(Parts { web: false, ..Parts::default() }).await;
        tidings.ready_to_send().await;
        let mut people = addresses("one.example.com", 6);
        people.extend(addresses("two.example.com", 6));
        let campaign = campaign(&tidings, &people, json!({})).await;
        for sent in [5, 10, 12] {
            wait_until("what the window lets go", async || counts(&tidings, &campaign).await["sent"] == sent).await;
            wait_until("nobody to hold anything", async || counts(&tidings, &campaign).await["sending"] == 0).await;
            nobody_is_under_way(&tidings).await;
            assert_eq!(tidings.smtp.count(), sent);
            tidings.advance(HOUR + HOUR / 50 + Duration::from_secs(10));
        }
        assert_eq!(attempts_of(&tidings, &campaign, "sent").await, [1; 12]);
        other.stop().await;
        tidings.stop().await;
    }

    async fn a_rest_that_the_database_did_not_take_in_at_once_is_known_to_all_as_soon_as_it_does(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        be_deaf(&tidings, true).await;
        let words = "4.7.28 Gmail has detected an unusual rate of mail";
        tidings.smtp.on(Stage::Rcpt, Act::reply_and_hang_up(421, words)).once();
        let first = tidings.message("acme", "service", "p0@people.example.com").await;
        wait_until("its first attempt", async || {
            let message = tidings.get(&format!("/messages/{first}")).await.ok();
            message["attempts"].as_array().unwrap().len() == 1
        })
        .await;
        let second = tidings.message("acme", "service", "p1@people.example.com").await;
        assert!(watch(&tidings.app().db).await.unwrap().backing_off.is_empty());
        be_deaf(&tidings, false).await;
        wait_until("all to know of the rest", async || {
            watch(&tidings.app().db).await.unwrap().backing_off.contains_key(&people())
        })
        .await;
        let elsewhere = tidings.message("acme", "service", "a@elsewhere.example.com").await;
        assert_eq!(tidings.settled(&elsewhere).await["state"], "sent");
        assert_eq!(tidings.smtp.transactions().len(), 2, "nothing goes to who asked to be left alone");
        tidings.advance(Duration::from_secs(15 * 60));
        for id in [&first, &second] {
            assert_eq!(tidings.settled(id).await["state"], "sent");
        }
        tidings.stop().await;
    }
}
