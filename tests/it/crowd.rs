//! Many opt-outs, opt-ins and undos at once, through several processes as far as handles of their own can play them.

use std::collections::HashMap;
use std::time::Duration;

use sea_orm::{ConnectionTrait, Statement};
use tidings::address::AddressHash;
use tidings::app::App;
use tidings::clock::{Clock, Instant};
use tidings::decision::Said;
use tidings::fence::{self, Answer};
use tidings::id::{BrandId, DeliveryId, OptEventId, TopicId};
use tidings::opt_out::events::stands_already;
use tidings::opt_out::{Channel, OptIn, OptOut, Scope, Stood, rows};

use crate::harness::{Database, wait_until};

/// A brand with a topic, and as many handles on the database as there are processes.
struct Crowd {
    apps: Vec<App>,
    topic: Scope,
}

impl Crowd {
    async fn on(database: &Database, processes: usize) -> Self {
        let mut apps = Vec::new();
        for _ in 0..processes {
            apps.push(App::open_with_clock(database.settings(), true, Clock::default()).await.unwrap());
        }
        let (brand, topic) = (BrandId::new(), TopicId::new());
        let crowd = Self { apps, topic: Scope::Topic(brand, topic) };
        let sql = "INSERT INTO brands (id, slug, name, from_mailbox, postal_address, origins, one_click_scope, \
                   created_at, updated_at) VALUES ($1, 'b', 'B', 'B <b@b.example>', 'Street 1', '[]', 'all', 0, 0)";
        crowd.change(sql, vec![brand.0.into()]).await;
        let sql = "INSERT INTO topics (id, brand_id, slug, name, class, consent, customers_keep, created_at, \
                   updated_at) VALUES ($1, $2, 't', 'T', 'marketing', 'opt_out', FALSE, 0, 0)";
        crowd.change(sql, vec![topic.0.into(), brand.0.into()]).await;
        crowd
    }

    async fn change(&self, sql: &str, values: Vec<sea_orm::Value>) {
        let db = &self.apps[0].db;
        let txn = db.begin().await.unwrap();
        txn.execute_raw(Statement::from_sql_and_values(db.backend(), sql, values)).await.unwrap();
        txn.commit().await.unwrap();
    }

    fn asked(&self, person: u8, scopes: Vec<Scope>, link: Option<DeliveryId>) -> OptOut {
        OptOut {
            address_hash: hash(person),
            scopes,
            channel: if link.is_some() { Channel::OneClick } else { Channel::Phone },
            complaint: false,
            note: None,
            requested_at: None,
            delivery: link,
            actor: "test".into(),
        }
    }

    /// What the person's events amount to, told in their order; fails where an event should not be there.
    async fn retold(&self, person: u8) -> Vec<Stood> {
        let history = rows::history(self.apps[0].db.reads(), &hash(person)).await.unwrap();
        let mut stands: Vec<Vec<Stood>> = Vec::new();
        let mut undone: Vec<OptEventId> = Vec::new();
        let mut by_link: HashMap<OptEventId, bool> = HashMap::new();
        let mut now: Vec<Stood> = Vec::new();
        for (n, event) in history.iter().enumerate() {
            assert_eq!(event.seq, n as i64 + 1, "the places of a person's events are dense");
            let scope = rows::to_scope(&event.scope_kind, event.brand_id, event.topic_id).unwrap();
            // The scopes of one opt-out are all held against what stood before it.
            let same = |other: &rows::event::Model| {
                (&other.said, other.delivery_id, other.recorded_at)
                    == (&event.said, event.delivery_id, event.recorded_at)
                    && other.scope_kind == "all"
                    && event.scope_kind == "topic"
            };
            if n == 0 || !same(&history[n - 1]) {
                now = newest(&stands, &undone);
            }
            by_link.insert(event.id, event.delivery_id.is_some());
            match event.said.as_str() {
                "opt_out" => {
                    let stood = stands_already(&now, scope);
                    let again =
                        stood.is_none_or(|first| by_link[&first.event] && event.delivery_id.is_none());
                    assert!(again, "an opt-out that stood already was recorded once more");
                }
                "undo" => {
                    let taken_back = event.undoes.unwrap();
                    assert!(now.iter().any(|stood| stood.event == taken_back), "what is undone stood");
                    undone.push(taken_back);
                    continue;
                }
                _ => {}
            }
            let said = if event.said == "opt_in" { Said::OptIn } else { Said::OptOut };
            let one = Stood { scope, said, seq: event.seq, complaint: false, event: event.id };
            match stands.iter_mut().find(|of| of[0].scope == scope) {
                Some(of) => of.push(one),
                None => stands.push(vec![one]),
            }
        }
        let mut stands = newest(&stands, &undone);
        stands.sort_by_key(|stood| stood.seq);
        let sql = "SELECT last_seq FROM addresses WHERE address_hash = $1";
        let db = &self.apps[0].db;
        let asked = Statement::from_sql_and_values(db.backend(), sql, [hash(person).0.into()]);
        let last: i64 =
            db.reads().query_one_raw(asked).await.unwrap().unwrap().try_get("", "last_seq").unwrap();
        assert_eq!(last, history.len() as i64);
        stands
    }
}

/// Of each scope the newest that was not undone.
fn newest(stands: &[Vec<Stood>], undone: &[OptEventId]) -> Vec<Stood> {
    let newest = |of: &Vec<Stood>| of.iter().rfind(|stood| !undone.contains(&stood.event)).cloned();
    stands.iter().filter_map(newest).collect()
}

fn hash(person: u8) -> AddressHash {
    AddressHash(vec![person; AddressHash::LEN])
}

on_both! {
    async fn whatever_people_say_at_once_takes_effect_in_the_order_in_which_it_is_kept(database: Database) {
        let crowd = Crowd::on(&database, 3).await;
        let link = DeliveryId::new();
        let people = 4_u8;
        let mut said = Vec::new();
        for n in 0..96_usize {
            let app = crowd.apps[n % 3].clone();
            let person = u8::try_from(n / 3 % usize::from(people)).unwrap();
            let asked = match n % 5 {
                0 | 1 => Some(crowd.asked(person, vec![Scope::All, crowd.topic], Some(link))),
                2 => Some(crowd.asked(person, vec![crowd.topic], None)),
                _ => None,
            };
            let scope = if n % 2 == 0 { Scope::All } else { crowd.topic };
            said.push(tokio::spawn(async move {
                if let Some(asked) = asked {
                    let answer = fence::opt_out(&app, &asked, Instant::now()).await.unwrap();
                    return Some((person, asked.scopes[0], answer));
                }
                if n % 5 == 3 {
                    fence::undo(&app, &hash(person), link, &[], Channel::Page, "test").await.unwrap();
                } else {
                    let evidence = "signed".to_owned();
                    let asked = OptIn { address_hash: hash(person), scope, channel: Channel::Phone, evidence, actor: "test".into() };
                    fence::opt_in(&app, &asked).await.unwrap();
                }
                None
            }));
        }
        let mut answers: Vec<(u8, Scope, Answer)> = Vec::new();
        for one in said {
            answers.extend(one.await.unwrap());
        }
        let mut new: HashMap<OptEventId, usize> = HashMap::new();
        for (person, scope, answer) in &answers {
            let history = rows::history(crowd.apps[0].db.reads(), &hash(*person)).await.unwrap();
            assert!(history.iter().any(|event| event.id == answer.id && event.recorded_at == answer.recorded_at));
            assert!(stands_already(&answer.standing, *scope).is_some(), "what was refused stands when it is answered");
            *new.entry(answer.id).or_default() += usize::from(answer.new);
        }
        assert!(new.values().all(|&times| times <= 1), "one event is new to one caller");
        for person in 0..people {
            let mut standing = rows::standing_words(crowd.apps[0].db.reads(), &hash(person)).await.unwrap();
            standing.sort_by_key(|stood| stood.seq);
            assert_eq!(standing, crowd.retold(person).await, "what is kept as standing is what the events amount to");
        }
    }

    async fn an_opt_out_of_several_scopes_keeps_no_place_for_what_stood_already(database: Database) {
        let crowd = Crowd::on(&database, 1).await;
        let asked = [vec![crowd.topic], vec![Scope::All, crowd.topic], vec![Scope::All, crowd.topic, Scope::All]];
        for (n, scopes) in asked.into_iter().enumerate() {
            let asked = crowd.asked(1, scopes, None);
            let answer = fence::opt_out(&crowd.apps[0], &asked, Instant::now()).await.unwrap();
            assert_eq!(answer.new, n < 2);
        }
        assert_eq!(crowd.retold(1).await.len(), 2);
    }

    async fn a_person_whom_somebody_keeps_locked_holds_up_nobody_else(database: Database) {
        let crowd = Crowd::on(&database, 1).await;
        let app = &crowd.apps[0];
        if app.db.backend() == sea_orm::DbBackend::Sqlite {
            return; // One writer at a time: whoever writes holds up everybody.
        }
        let sql = "INSERT INTO addresses (address_hash, last_seq, failures) VALUES ($1, 0, 0)";
        crowd.change(sql, vec![hash(1).0.into()]).await;
        let locker = app.db.begin().await.unwrap();
        let sql = "UPDATE addresses SET failures = 0 WHERE address_hash = $1";
        let locked = Statement::from_sql_and_values(app.db.backend(), sql, [hash(1).0.into()]);
        locker.execute_raw(locked).await.unwrap();
        let opt_out = |person: u8| {
            let (app, asked) = (app.clone(), crowd.asked(person, vec![Scope::All], None));
            tokio::spawn(async move { fence::opt_out(&app, &asked, Instant::now()).await })
        };
        let kept_waiting = opt_out(1);
        let all: Vec<_> = (2..40).map(opt_out).collect();
        for one in all {
            let answered = tokio::time::timeout(Duration::from_secs(4), one).await;
            assert!(answered.expect("an opt-out waits for another person's lock").unwrap().unwrap().new);
        }
        assert!(!kept_waiting.is_finished());
        locker.rollback().await.unwrap();
        assert!(kept_waiting.await.unwrap().unwrap().new);
    }

    async fn an_opt_out_whose_caller_left_is_recorded_all_the_same(database: Database) {
        let crowd = Crowd::on(&database, 1).await;
        let app = &crowd.apps[0];
        for person in 0..20 {
            let asked = crowd.asked(person, vec![Scope::All], None);
            let mut opt_out = Box::pin(fence::opt_out(app, &asked, Instant::now()));
            assert!(futures_util::poll!(opt_out.as_mut()).is_pending());
            drop(opt_out);
        }
        wait_until("every opt-out to be recorded", async || {
            for person in 0..20 {
                if rows::history(app.db.reads(), &hash(person)).await.unwrap().len() != 1 {
                    return false;
                }
            }
            true
        })
        .await;
    }
}
