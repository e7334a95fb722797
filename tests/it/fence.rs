//! The fence, step by step: claims, opt-outs and settlings in every order that matters, on both databases.
//!
//! These tests call the steps that a worker takes, so that each order is certain; whole journeys over SMTP stand in
//! `promises.rs`.

use std::time::Duration;

use sea_orm::{ConnectionTrait, Statement};
use tidings::address::{AddressHash, EmailAddress};
use tidings::app::App;
use tidings::brand::{self, Topic};
use tidings::clock::{Clock, Instant};
use tidings::decision::{Class, Reason, Standing};
use tidings::delivery::rows::{self, Ask, Attempt, Beginning, Claimed, Fate, Lane, Settling, Trail};
use tidings::delivery::{NewDelivery, State, Stream};
use tidings::fence::{self, Answer};
use tidings::id::{BrandId, ContentId, DeliveryId, LeaseToken, MailingId, RecipientId, TopicId};
use tidings::opt_out::{Channel, OptIn, OptOut, Scope};
use tidings::recipient::{Upsert, rows as recipients};

use crate::harness::{Database, wait_until};

const LEASE: Duration = Duration::from_secs(60);

/// A brand with a topic of each class and one person, and no worker but the test.
struct Desk {
    app: App,
    brand: BrandId,
    person: RecipientId,
    hash: AddressHash,
}

impl Desk {
    async fn set_up(database: &Database) -> Self {
        let mut settings = database.settings();
        settings.opt_out_wait = Duration::from_secs(20);
        Self::with(settings).await
    }

    async fn with(settings: tidings::config::Settings) -> Self {
        let app = App::open_with_clock(settings, true, Clock::default()).await.unwrap();
        let brand = BrandId::new();
        let txn = app.db.begin().await.unwrap();
        let sql = "INSERT INTO brands (id, slug, name, from_mailbox, postal_address, origins, one_click_scope, \
                   created_at, updated_at) VALUES ($1, 'b', 'B', 'B <b@b.example>', 'Street 1', '[]', 'all', 0, 0)";
        run(&app, &*txn, sql, vec![brand.0.into()]).await;
        for class in Class::ALL {
            let sql = "INSERT INTO topics (id, brand_id, slug, name, class, consent, customers_keep, created_at, \
                       updated_at) VALUES ($1, $2, $3, $3, $3, 'opt_out', FALSE, 0, 0)";
            let values = vec![TopicId::new().0.into(), brand.0.into(), class.as_str().into()];
            run(&app, &*txn, sql, values).await;
        }
        let address = EmailAddress::parse("ada@example.org").unwrap();
        let hash = app.address_key.hash(&address);
        let made = recipients::upsert(
            &txn,
            &app.db,
            &app.address_key,
            &Upsert::new(address),
            recipients::By::Keeper,
        )
        .await
        .unwrap()
        .unwrap();
        txn.commit().await.unwrap();
        Self { app, brand, person: made.id, hash }
    }

    async fn topic(&self, class: Class) -> Topic {
        brand::rows::find_topic(self.app.db.reads(), self.brand, class.as_str()).await.unwrap().unwrap()
    }

    /// A queued delivery of this class to the one person.
    async fn enqueue(&self, class: Class) -> DeliveryId {
        let topic = self.topic(class).await;
        let content = ContentId::new();
        let txn = self.app.db.begin().await.unwrap();
        let sql = "INSERT INTO contents (id, brand_id, topic_id, template, subject, html, text, partials, data, \
                   held, created_at, frozen_at) VALUES ($1, $2, $3, 't', 's', 'h', 't', '{}', '{}', FALSE, 0, 0)";
        run(&self.app, &*txn, sql, vec![content.0.into(), self.brand.0.into(), topic.id.0.into()]).await;
        let stream =
            Stream { content, mailing: None, brand: self.brand, topic: topic.id, class, not_after: None };
        let id = DeliveryId::new();
        let one = NewDelivery { id, recipient: self.person, address_hash: self.hash.clone(), data: None };
        assert_eq!(rows::enqueue(&txn, &self.app.db, &stream, &[one]).await.unwrap(), 1);
        txn.commit().await.unwrap();
        id
    }

    async fn change(&self, sql: &str, values: Vec<sea_orm::Value>) {
        let txn = self.app.db.begin().await.unwrap();
        run(&self.app, &*txn, sql, values).await;
        txn.commit().await.unwrap();
    }

    /// Holds the content of this delivery, as a pause does.
    async fn hold(&self, id: DeliveryId) {
        let sql =
            "UPDATE contents SET held = TRUE WHERE id = (SELECT content_id FROM deliveries WHERE id = $1)";
        self.change(sql, vec![id.0.into()]).await;
    }

    async fn claim(&self) -> (LeaseToken, Vec<Claimed>) {
        let token = LeaseToken::new();
        (token, self.claim_up_to(token, 100).await)
    }

    async fn claim_up_to(&self, token: LeaseToken, limit: usize) -> Vec<Claimed> {
        let silence = self.app.settings.relay_silence;
        let ask = Ask { token, lease: LEASE, silence, lanes: &Lane::ALL, limit };
        let ids = rows::claim(&self.app.db, ask, &mut Trail::default()).await.unwrap();
        rows::load(&self.app.db, &ids).await.unwrap()
    }

    async fn claim_one(&self) -> (LeaseToken, Claimed) {
        let (token, mut claimed) = self.claim().await;
        assert_eq!(claimed.len(), 1);
        (token, claimed.remove(0))
    }

    async fn begin(&self, held: &Claimed, token: LeaseToken) -> bool {
        let beginning = Beginning { held: held.clone(), token, date: self.app.db.clock().now() };
        rows::begin(&self.app.db, &beginning).await.unwrap().is_some()
    }

    async fn settle(&self, held: &Claimed, token: LeaseToken, fate: Fate) -> bool {
        let attempt = Attempt { outcome: "sent", reply: "250 ok".into(), ..Attempt::default() };
        let silence = self.app.settings.relay_silence;
        let settling = Settling { held: held.clone(), token, fate, attempt: Some(attempt) };
        rows::settle(&self.app.db, &settling, silence).await.unwrap()
    }

    async fn state(&self, id: DeliveryId) -> (State, Option<String>) {
        let view = rows::get(self.app.db.reads(), id).await.unwrap().unwrap();
        (view.state, view.reason)
    }

    fn asked(&self, scopes: Vec<Scope>) -> OptOut {
        OptOut {
            address_hash: self.hash.clone(),
            scopes,
            channel: Channel::Phone,
            complaint: false,
            note: None,
            requested_at: None,
            delivery: None,
            actor: "test".into(),
        }
    }

    async fn opt_out(&self, scope: Scope) -> Answer {
        fence::opt_out(&self.app, &self.asked(vec![scope]), Instant::now()).await.unwrap()
    }

    async fn opt_in(&self, scope: Scope) {
        let asked = OptIn {
            address_hash: self.hash.clone(),
            scope,
            channel: Channel::Phone,
            evidence: "signed form 7".into(),
            actor: "test".into(),
        };
        fence::opt_in(&self.app, &asked).await.unwrap();
    }
}

async fn run(app: &App, on: &impl ConnectionTrait, sql: &str, values: Vec<sea_orm::Value>) {
    // JSON literals are text; PostgreSQL casts them by the column.
    on.execute_raw(Statement::from_sql_and_values(app.db.backend(), sql, values)).await.unwrap();
}

on_both! {
    async fn an_ended_lease_is_decided_by_class_and_never_leased_as_it_is(database: Database) {
        let desk = Desk::set_up(&database).await;
        let unbegun = desk.enqueue(Class::Marketing).await;
        let (old, held) = desk.claim_one().await;
        assert_eq!(held.id, unbegun);
        let marketing = desk.enqueue(Class::Marketing).await;
        let (token, held) = desk.claim_one().await;
        assert!(desk.begin(&held, token).await);
        let notice = desk.enqueue(Class::Notice).await;
        let (token_of_notice, held_notice) = desk.claim_one().await;
        assert!(desk.begin(&held_notice, token_of_notice).await);

        desk.app.db.clock().advance(LEASE + Duration::from_secs(1));
        let (new, again) = desk.claim().await;

        let mut ids: Vec<_> = again.iter().map(|held| held.id).collect();
        ids.sort();
        let mut expected = vec![unbegun, notice];
        expected.sort();
        assert_eq!(ids, expected, "what was begun and can be refused is not claimed again");
        assert_eq!(desk.state(marketing).await.0, State::Unknown);
        assert!(again.iter().find(|held| held.id == notice).unwrap().doubted);
        // The sleeper wakes: nothing of its old claim counts any more.
        assert_ne!(old, new);
        let sleeper = Claimed { id: unbegun, ..held.clone() };
        assert!(!desk.begin(&sleeper, old).await);
        assert!(!desk.settle(&sleeper, old, Fate::Sent).await);
        assert!(!rows::renew(&desk.app.db, old, LEASE).await.unwrap());
        rows::give_back(&desk.app.db, &[unbegun], old).await.unwrap();
        assert_eq!(desk.state(unbegun).await.0, State::Sending, "it is another claim's now");
        assert!(!desk.settle(&held, token, Fate::Sent).await);
        assert_eq!(desk.state(marketing).await.0, State::Unknown);
        let view = rows::get(desk.app.db.reads(), marketing).await.unwrap().unwrap();
        assert_eq!(view.attempts.len(), 1);
        assert_eq!(view.attempts[0].outcome.as_deref(), Some("unknown"));
    }

    async fn a_claim_is_found_again_by_its_token(database: Database) {
        let desk = Desk::set_up(&database).await;
        desk.enqueue(Class::Service).await;
        let (token, held) = desk.claim_one().await;
        let found = rows::claimed_by(&desk.app.db, token).await.unwrap();
        assert_eq!(found, [held.id]);
        // A begin whose COMMIT stayed unanswered is repeated and counts once.
        assert!(desk.begin(&held, token).await);
        assert!(desk.begin(&held, token).await);
        assert!(desk.settle(&held, token, Fate::Again(Duration::from_secs(60))).await);
        let view = rows::get(desk.app.db.reads(), held.id).await.unwrap().unwrap();
        assert_eq!(view.attempts.len(), 1);
    }

    async fn a_claim_takes_the_service_side_first_and_the_longest_due_and_passes_over_what_is_held(database: Database) {
        let desk = Desk::set_up(&database).await;
        let mut ids = Vec::new();
        for class in [Class::Marketing, Class::Marketing, Class::Reminder, Class::Service, Class::Notice] {
            ids.push(desk.enqueue(class).await);
            desk.app.db.clock().advance(Duration::from_secs(1));
        }
        desk.hold(ids[0]).await;
        let claim = async |limit: usize| {
            let claimed = desk.claim_up_to(LeaseToken::new(), limit).await;
            let mut claimed: Vec<_> = claimed.iter().map(|held| held.id).collect();
            claimed.sort();
            claimed
        };
        assert_eq!(claim(1).await, [ids[3]]);
        assert_eq!(claim(2).await, [ids[1], ids[4]]);
        assert_eq!(claim(100).await, [ids[2]]);
        assert_eq!(desk.state(ids[0]).await.0, State::Queued);
    }

    async fn however_many_contents_have_something_unfinished_one_pass_over_them_finds_what_is_due(database: Database) {
        let desk = Desk::set_up(&database).await;
        let mut ids = Vec::new();
        for _ in 0..140 {
            ids.push(desk.enqueue(Class::Marketing).await);
        }
        let later = "UPDATE queue SET due_at = 9000000000000000 WHERE delivery_id <> $1";
        desk.change(later, vec![ids[137].0.into()]).await;
        let (silence, mut trail, mut passes) = (desk.app.settings.relay_silence, Trail::default(), Vec::new());
        for _ in 0..2 {
            let mut found = Vec::new();
            loop {
                let ask = Ask { token: LeaseToken::new(), lease: LEASE, silence, lanes: &Lane::ALL[1..], limit: 100 };
                found.extend(rows::claim(&desk.app.db, ask, &mut trail).await.unwrap());
                if !trail.goes_on() {
                    break;
                }
            }
            passes.push(found);
        }
        assert_eq!(passes, [vec![ids[137]], Vec::new()]);
    }

    async fn nothing_begins_whose_campaign_was_held_or_whose_time_is_over_since_it_was_claimed(database: Database) {
        let desk = Desk::set_up(&database).await;
        let held_back = desk.enqueue(Class::Marketing).await;
        let begun = desk.enqueue(Class::Marketing).await;
        let late = desk.enqueue(Class::Marketing).await;
        let (token, claimed) = desk.claim().await;
        let one = |id: DeliveryId| claimed.iter().find(|held| held.id == id).unwrap();
        assert!(desk.begin(one(begun), token).await);
        desk.hold(held_back).await;
        desk.hold(begun).await;
        desk.change("UPDATE queue SET not_after = 1 WHERE delivery_id = $1", vec![late.0.into()]).await;
        assert!(!desk.begin(one(held_back), token).await);
        assert!(!desk.begin(one(late), token).await);
        assert!(desk.begin(one(begun), token).await, "a begin whose COMMIT stayed unanswered counts all the same");
        rows::give_back(&desk.app.db, &[held_back, late, begun], token).await.unwrap();
        assert_eq!(desk.state(held_back).await.0, State::Queued);
        assert_eq!(desk.state(begun).await.0, State::Sending);
        assert!(desk.claim().await.1.is_empty());
        assert_eq!(desk.state(late).await.0, State::Expired);
    }

    async fn a_begin_that_nobody_waits_for_leaves_no_transaction_open(database: Database) {
        let app = App::open_with_clock(database.settings(), true, Clock::default()).await.unwrap();
        for n in 0..100 {
            let mut begin = Box::pin(app.db.begin());
            // Given up after so long: before, within and after the round trip to the server.
            let since = std::time::Instant::now();
            while since.elapsed() < Duration::from_micros(20) * n
                && futures_util::poll!(begin.as_mut()).is_pending()
            {
                tokio::task::yield_now().await;
            }
            drop(begin);
            if app.db.backend() == sea_orm::DbBackend::Sqlite {
                app.db.begin().await.unwrap().rollback().await.unwrap();
                continue;
            }
            // PostgreSQL itself would end it after ten seconds.
            let closed = wait_until("every connection to be outside a transaction", async || {
                let sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() \
                           AND state LIKE 'idle in transaction%'";
                let asked = Statement::from_string(app.db.backend(), sql);
                let row = app.db.opt_out_reads().query_one_raw(asked).await.unwrap().unwrap();
                row.try_get::<i64>("", "n").unwrap() == 0
            });
            tokio::time::timeout(Duration::from_secs(5), closed).await.expect("no transaction left open");
        }
    }

    async fn an_opt_out_takes_back_what_is_queued_or_claimed_and_not_begun(database: Database) {
        let desk = Desk::set_up(&database).await;
        let claimed = desk.enqueue(Class::Marketing).await;
        let (token, held) = desk.claim_one().await;
        let queued = desk.enqueue(Class::Relationship).await;
        let service = desk.enqueue(Class::Service).await;

        let answer = desk.opt_out(Scope::Brand(desk.brand)).await;

        assert!(answer.new && answer.rest.settled());
        let reason = Some(Reason::OptedOutOfBrand.as_str().to_owned());
        assert_eq!(desk.state(claimed).await, (State::Suppressed, reason.clone()));
        assert_eq!(desk.state(queued).await, (State::Suppressed, reason));
        assert_eq!(desk.state(service).await.0, State::Queued);
        assert!(!desk.begin(&held, token).await, "no byte may be written for what was taken back");
    }

    async fn an_opt_out_waits_for_what_has_begun(database: Database) {
        let desk = Desk::set_up(&database).await;
        let id = desk.enqueue(Class::Marketing).await;
        let (token, held) = desk.claim_one().await;
        assert!(desk.begin(&held, token).await);

        let app = desk.app.clone();
        let asked = desk.asked(vec![Scope::All]);
        let hash = desk.hash.clone();
        let waiting = tokio::spawn(async move { fence::opt_out(&app, &asked, Instant::now()).await.unwrap() });
        wait_until("the opt-out is recorded", async || {
            !tidings::opt_out::rows::history(desk.app.db.reads(), &hash).await.unwrap().is_empty()
        })
        .await;
        assert!(!waiting.is_finished());
        assert!(desk.settle(&held, token, Fate::Sent).await);

        let answer = waiting.await.unwrap();
        assert!(answer.rest.settled());
        assert_eq!(desk.state(id).await.0, State::Sent);
    }

    async fn an_opt_out_sees_what_was_claimed_while_it_waited_to_be_recorded(database: Database) {
        let mut settings = database.settings();
        settings.opt_out_wait = Duration::from_millis(50);
        let desk = Desk::with(settings).await;
        if desk.app.db.backend() == sea_orm::DbBackend::Sqlite {
            return; // One writer at a time: nothing is claimed meanwhile.
        }
        let sql = "INSERT INTO addresses (address_hash, last_seq, failures) VALUES ($1, 0, 0)";
        desk.change(sql, vec![desk.hash.0.clone().into()]).await;
        let id = desk.enqueue(Class::Marketing).await;
        let locker = desk.app.db.begin().await.unwrap();
        let sql = "UPDATE addresses SET failures = 0 WHERE address_hash = $1";
        run(&desk.app, &*locker, sql, vec![desk.hash.0.clone().into()]).await;
        let (app, asked) = (desk.app.clone(), desk.asked(vec![Scope::All]));
        let opt_out = tokio::spawn(async move { fence::opt_out(&app, &asked, Instant::now()).await.unwrap() });
        wait_until("the opt-out to wait for the person's lock", async || {
            let sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock'";
            let asked = Statement::from_string(desk.app.db.backend(), sql);
            let row = desk.app.db.reads().query_one_raw(asked).await.unwrap().unwrap();
            row.try_get::<i64>("", "n").unwrap() == 1
        })
        .await;
        let (token, held) = desk.claim_one().await;
        assert!(desk.begin(&held, token).await);
        locker.rollback().await.unwrap();
        let topic = desk.topic(Class::Marketing).await;
        assert_eq!(opt_out.await.unwrap().rest.deliveries(), [(id, topic.id, "sending")]);
    }

    async fn what_the_bound_cuts_off_and_what_is_in_doubt_is_named_until_the_doubt_ends(database: Database) {
        let mut settings = database.settings();
        settings.opt_out_wait = Duration::from_millis(50);
        let desk = Desk::with(settings).await;
        let topic = desk.topic(Class::Marketing).await;
        let id = desk.enqueue(Class::Marketing).await;
        let (token, held) = desk.claim_one().await;
        assert!(desk.begin(&held, token).await);

        let first = desk.opt_out(Scope::Topic(desk.brand, topic.id)).await;
        assert!(first.new && !first.rest.settled());
        assert_eq!(first.rest.deliveries(), [(id, topic.id, "sending")]);

        // The lease's end proves nothing: a repeated opt-out looks again and names it still.
        desk.app.db.clock().advance(LEASE + Duration::from_secs(1));
        let second = desk.opt_out(Scope::Topic(desk.brand, topic.id)).await;
        assert_eq!((second.id, second.new), (first.id, false));
        assert_eq!(second.rest.deliveries(), [(id, topic.id, "sending")]);

        // The next claim decides it: nobody knows, so it is in doubt.
        assert!(desk.claim().await.1.is_empty());
        let third = desk.opt_out(Scope::All).await;
        assert_eq!(third.rest.deliveries(), [(id, topic.id, "in_doubt")]);

        desk.app.db.clock().advance(desk.app.settings.relay_silence + Duration::from_secs(1));
        assert!(desk.opt_out(Scope::All).await.rest.settled());
        assert_eq!(desk.state(id).await.0, State::Unknown);
    }

    async fn an_opt_out_waits_for_nothing_outside_its_scope(database: Database) {
        let desk = Desk::set_up(&database).await;
        desk.enqueue(Class::Service).await;
        desk.enqueue(Class::Notice).await;
        desk.enqueue(Class::Reminder).await;
        let (token, claimed) = desk.claim().await;
        assert_eq!(claimed.len(), 3);
        for held in &claimed {
            assert!(desk.begin(held, token).await);
        }
        let marketing = desk.topic(Class::Marketing).await;
        let answer = desk.opt_out(Scope::Topic(desk.brand, marketing.id)).await;
        assert!(answer.rest.settled());
    }

    async fn a_delivery_once_in_doubt_never_ends_as_plainly_refused_or_suppressed(database: Database) {
        let desk = Desk::set_up(&database).await;
        let refused = desk.enqueue(Class::Service).await;
        let (token, held) = desk.claim_one().await;
        assert!(desk.begin(&held, token).await);
        assert!(desk.settle(&held, token, Fate::Unknown(Duration::ZERO)).await);
        let (token, held) = desk.claim_one().await;
        assert!(held.doubted, "the service side is tried again");
        assert!(desk.settle(&held, token, Fate::Failed("refused".into())).await);
        assert_eq!(desk.state(refused).await.0, State::Unknown);

        let stopped = desk.enqueue(Class::Notice).await;
        let (token, held) = desk.claim_one().await;
        assert!(desk.begin(&held, token).await);
        assert!(desk.settle(&held, token, Fate::Unknown(Duration::ZERO)).await);
        fence::change_standing(&desk.app, desk.person, Standing::Deactivated, Instant::now()).await.unwrap();
        assert_eq!(desk.state(stopped).await.0, State::Unknown);
    }

    async fn a_change_of_standing_is_a_fence_too(database: Database) {
        let mut settings = database.settings();
        settings.opt_out_wait = Duration::from_millis(50);
        let desk = Desk::with(settings).await;
        let begun = desk.enqueue(Class::Service).await;
        let (token, held) = desk.claim_one().await;
        assert!(desk.begin(&held, token).await);
        let queued = desk.enqueue(Class::Service).await;
        let notice = desk.enqueue(Class::Notice).await;
        let rest = fence::change_standing(&desk.app, desk.person, Standing::ContactBan, Instant::now())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rest.open.iter().map(|one| one.delivery).collect::<Vec<_>>(), [begun]);
        assert_eq!(desk.state(queued).await.1.as_deref(), Some("contact_ban"));
        assert_eq!(desk.state(notice).await.0, State::Queued, "a notice reaches them all the same");
    }

    async fn the_newest_word_counts_and_an_undo_brings_back_what_stood_before(database: Database) {
        let desk = Desk::set_up(&database).await;
        let topic = desk.topic(Class::Marketing).await;
        let sends = async || {
            let id = desk.enqueue(Class::Marketing).await;
            let people = [desk.hash.clone()];
            let wanted = tidings::opt_out::rows::Wanted { people: &people, topic: &topic };
            let facts = tidings::opt_out::rows::facts_of(desk.app.db.reads(), wanted).await.unwrap();
            let _ = id;
            tidings::decision::objections(Class::Marketing, &facts[&desk.hash]).is_empty()
        };
        assert!(sends().await);
        desk.opt_out(Scope::All).await;
        assert!(!sends().await);
        desk.opt_in(Scope::Brand(desk.brand)).await;
        assert!(sends().await);

        // The same words again are news now, since the opt-in came between.
        let link = DeliveryId::new();
        let mut asked = desk.asked(vec![Scope::All, Scope::Topic(desk.brand, topic.id)]);
        asked.delivery = Some(link);
        let again = fence::opt_out(&desk.app, &asked, Instant::now()).await.unwrap();
        assert!(again.new);
        assert_eq!(again.overruled.len(), 1);
        assert!(!sends().await);

        let undone = fence::undo(&desk.app, &desk.hash, link, &[], Channel::Page, "recipient").await.unwrap();
        assert_eq!(undone.scopes.len(), 2);
        assert!(sends().await, "the opt-in stands again");
        let nothing = fence::undo(&desk.app, &desk.hash, link, &[], Channel::Page, "recipient").await.unwrap();
        assert!(nothing.scopes.is_empty());
        // Narrowing keeps the narrower refusal in force without a gap.
        fence::opt_out(&desk.app, &asked, Instant::now()).await.unwrap();
        let narrow = [Scope::Topic(desk.brand, topic.id)];
        let undone = fence::undo(&desk.app, &desk.hash, link, &narrow, Channel::Page, "recipient").await.unwrap();
        assert_eq!(undone.scopes, [Scope::All]);
        assert!(!sends().await);
        fence::undo(&desk.app, &desk.hash, link, &[], Channel::Page, "recipient").await.unwrap();
        // What was said by another way is not this link's to take back, not even where the link said it first.
        fence::opt_out(&desk.app, &asked, Instant::now()).await.unwrap();
        let by_phone = desk.opt_out(Scope::All).await;
        assert!(!by_phone.new, "it stood already");
        fence::undo(&desk.app, &desk.hash, link, &[], Channel::Page, "recipient").await.unwrap();
        assert!(!sends().await);
    }

    async fn fifty_opt_outs_at_once_make_one_event(database: Database) {
        let desk = Desk::set_up(&database).await;
        let asked = desk.asked(vec![Scope::All]);
        let all = (0..50).map(|_| {
            let (app, asked) = (desk.app.clone(), asked.clone());
            tokio::spawn(async move { fence::opt_out(&app, &asked, Instant::now()).await.unwrap() })
        });
        let mut new = 0;
        for one in all.collect::<Vec<_>>() {
            new += u32::from(one.await.unwrap().new);
        }
        assert_eq!(new, 1);
        assert_eq!(tidings::opt_out::rows::history(desk.app.db.reads(), &desk.hash).await.unwrap().len(), 1);
    }

    async fn two_permanent_failures_a_day_apart_stop_the_service_side(database: Database) {
        let desk = Desk::set_up(&database).await;
        let gone = Attempt {
            outcome: "refused",
            code: Some(550),
            enhanced: Some("5.1.1".into()),
            reply: "no such user".into(),
            mailbox_gone: true,
            ..Attempt::default()
        };
        let fail = async || {
            desk.enqueue(Class::Service).await;
            let (token, held) = desk.claim_one().await;
            let silence = desk.app.settings.relay_silence;
            let fate = Fate::Failed("refused".into());
            let settling = Settling { held, token, fate, attempt: Some(gone.clone()) };
            assert!(rows::settle(&desk.app.db, &settling, silence).await.unwrap());
        };
        let objections = async |class: Class| {
            let topic = desk.topic(class).await;
            let people = [desk.hash.clone()];
            let wanted = tidings::opt_out::rows::Wanted { people: &people, topic: &topic };
            let facts = tidings::opt_out::rows::facts_of(desk.app.db.reads(), wanted).await.unwrap();
            tidings::decision::objections(class, &facts[&desk.hash])
        };
        fail().await;
        assert_eq!(objections(Class::Marketing).await, [Reason::AddressDead]);
        fail().await;
        assert!(objections(Class::Service).await.is_empty(), "twice within a day is one bad day");
        desk.app.db.clock().advance(Duration::from_secs(25 * 3600));
        fail().await;
        assert_eq!(objections(Class::Notice).await, [Reason::AddressDead]);
        let txn = desk.app.db.begin().await.unwrap();
        assert_eq!(tidings::opt_out::rows::revive(&txn, &desk.hash).await.unwrap(), 1);
        txn.commit().await.unwrap();
        assert!(objections(Class::Notice).await.is_empty());
    }
}

#[tokio::test]
async fn what_is_queued_again_beside_a_claim_is_found_by_the_next_one() {
    let database = Database::postgres().await;
    let desk = Desk::set_up(&database).await;
    let late = desk.enqueue(Class::Marketing).await;
    let mailing = MailingId(late.0);
    desk.change("UPDATE deliveries SET mailing_id = id, not_after = 1 WHERE id = $1", vec![late.0.into()])
        .await;
    desk.change("UPDATE queue SET not_after = 1 WHERE delivery_id = $1", vec![late.0.into()]).await;
    let txn = desk.app.db.begin().await.unwrap();
    assert_eq!(rows::expire_some(&txn, &desk.app.db, 10).await.unwrap(), 1);
    txn.commit().await.unwrap();
    let content = rows::load(&desk.app.db, &[late]).await.unwrap()[0].content_id;
    let mailing = rows::Mailing { id: mailing, content, lane: Lane::CanBeRefused };
    let txn = desk.app.db.begin().await.unwrap();
    assert_eq!(rows::move_deadline(&txn, &desk.app.db, mailing, None, 10).await.unwrap(), 1);
    // It sees nothing of what is not committed, and must not put the content to rest for that.
    assert!(desk.claim().await.1.is_empty());
    txn.commit().await.unwrap();
    assert_eq!(desk.claim_one().await.1.id, late);
}
