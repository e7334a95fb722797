//! The database of a simulation: brand, topics and contents once, people and deliveries anew for each schedule. Ids are
//! made from the seed and time stands still unless it is moved, so that a schedule runs alike each time.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, Statement, Value};
use tidings::address::{AddressHash, EmailAddress};
use tidings::app::App;
use tidings::clock::{Clock, Timestamp};
use tidings::db::Write;
use tidings::decision::Class;
use tidings::delivery::rows::{self, Lane, Mailing};
use tidings::delivery::{NewDelivery, Stream};
use tidings::id::{BrandId, ContentId, DeliveryId, MailingId, RecipientId, TopicId};
use tidings::recipient::{Upsert, rows as recipients};
use uuid::Uuid;

use crate::harness::Database;

/// When every schedule begins.
const BEGINNING: Timestamp = Timestamp(1_800_000_000_000_000);
/// The lock at which the COMMIT of every refusal stands still, on PostgreSQL, while somebody else has it.
pub(super) const COMMITS_REFUSALS: i64 = 1;
/// Classes that are sent here, those that can be refused more often.
pub(super) const CLASSES: [Class; 5] =
    [Class::Marketing, Class::Marketing, Class::Reminder, Class::Relationship, Class::Notice];
/// The same where most cannot be refused.
pub(super) const SERVICE_SIDE: [Class; 5] =
    [Class::Notice, Class::Notice, Class::Service, Class::Service, Class::Marketing];

/// A person of one schedule.
pub(super) struct Person {
    pub(super) id: RecipientId,
    pub(super) hash: AddressHash,
}

/// A database, and what every schedule finds there.
pub(super) struct World {
    pub(super) app: App,
    pub(super) brand: BrandId,
    topics: Vec<(Class, TopicId, ContentId)>,
    _database: Database,
}

/// How a delivery stands in the database.
#[derive(FromQueryResult)]
pub(super) struct Standing {
    pub(super) id: DeliveryId,
    pub(super) state: String,
    pub(super) doubted: bool,
    queued: bool,
    homeless: bool,
    active: bool,
}

impl World {
    pub(super) async fn set_up(database: Database) -> Self {
        let app = App::open_with_clock(database.settings(), true, Clock::standing(BEGINNING)).await.unwrap();
        let brand = BrandId::new();
        let mut world = Self { app, brand, topics: Vec::new(), _database: database };
        let txn = world.app.db.begin().await.unwrap();
        let sql = "INSERT INTO brands (id, slug, name, from_mailbox, postal_address, origins, one_click_scope, \
                   created_at, updated_at) VALUES ($1, 'b', 'B', 'B <b@b.example>', 'Street 1', '[]', 'all', 0, 0)";
        world.run(&txn, sql, vec![brand.0.into()]).await;
        for (n, class) in Class::ALL.into_iter().enumerate() {
            let (topic, content) = (TopicId::new(), ContentId(Uuid::from_u128(n as u128 + 1)));
            let sql = "INSERT INTO topics (id, brand_id, slug, name, class, consent, customers_keep, created_at, \
                       updated_at) VALUES ($1, $2, $3, $3, $3, 'opt_out', FALSE, 0, 0)";
            world.run(&txn, sql, vec![topic.0.into(), brand.0.into(), class.as_str().into()]).await;
            let sql = "INSERT INTO contents (id, brand_id, topic_id, template, subject, html, text, partials, data, \
                       held, created_at, frozen_at) VALUES ($1, $2, $3, 't', 's', 'h', 't', '{}', '{}', FALSE, 0, 0)";
            world.run(&txn, sql, vec![content.0.into(), brand.0.into(), topic.0.into()]).await;
            world.topics.push((class, topic, content));
        }
        if world.app.db.backend() == DbBackend::Postgres {
            let sql = format!(
                "CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN PERFORM pg_advisory_xact_lock_shared({COMMITS_REFUSALS}); RETURN NULL; END $$"
            );
            world.run(&txn, &sql, Vec::new()).await;
            let sql = "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON opt_events \
                       DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()";
            world.run(&txn, sql, Vec::new()).await;
        }
        txn.commit().await.unwrap();
        world
    }

    async fn run(&self, on: &Write, sql: &str, values: Vec<Value>) {
        on.execute_raw(Statement::from_sql_and_values(self.app.db.backend(), sql, values)).await.unwrap();
    }

    pub(super) fn topic(&self, class: Class) -> (TopicId, ContentId) {
        let (_, topic, content) = self.topics.iter().find(|one| one.0 == class).unwrap();
        (*topic, *content)
    }

    /// Forgets what the last schedule left, and makes new people.
    pub(super) async fn begin(&self, seed: u64, people: usize) -> Vec<Person> {
        let txn = self.app.db.begin().await.unwrap();
        for table in ["queue", "leases", "doubts", "tally", "attempts", "deliveries"] {
            self.run(&txn, &format!("DELETE FROM {table}"), Vec::new()).await;
        }
        self.run(&txn, "UPDATE contents SET active = FALSE", Vec::new()).await;
        let mut made = Vec::new();
        for n in 0..people {
            let address = EmailAddress::parse(&format!("p{n}.{seed}@example.org")).unwrap();
            let hash = self.app.address_key.hash(&address);
            let upsert = Upsert::new(address);
            let key = &self.app.address_key;
            let person = recipients::upsert(&txn, &self.app.db, key, &upsert, recipients::By::Keeper)
                .await
                .unwrap()
                .unwrap();
            made.push(Person { id: person.id, hash });
        }
        txn.commit().await.unwrap();
        made
    }

    /// The delivery number `n` of a schedule, of a mailing of its own.
    pub(super) fn delivery(seed: u64, n: usize) -> DeliveryId {
        DeliveryId(Uuid::from_u128((u128::from(seed) << 32) | (n as u128 + 1)))
    }

    /// Fans a delivery out.
    pub(super) async fn enqueue(&self, id: DeliveryId, class: Class, to: &Person) {
        let (topic, content) = self.topic(class);
        let mailing = Some(MailingId(id.0));
        let stream = Stream { content, mailing, brand: self.brand, topic, class, not_after: None };
        let one = NewDelivery { id, recipient: to.id, address_hash: to.hash.clone(), data: None };
        let txn = self.app.db.begin().await.unwrap();
        assert_eq!(rows::enqueue(&txn, &self.app.db, &stream, &[one]).await.unwrap(), 1);
        txn.commit().await.unwrap();
    }

    /// Takes a failed delivery up again, as an operator may. Returns whether it had failed.
    pub(super) async fn retry_failed(&self, id: DeliveryId, class: Class) -> bool {
        let (_, content) = self.topic(class);
        let txn = self.app.db.begin().await.unwrap();
        let mailing = Mailing { id: MailingId(id.0), content, lane: Lane::of(class) };
        let again = rows::retry_failed(&txn, &self.app.db, mailing).await.unwrap();
        txn.commit().await.unwrap();
        again > 0
    }

    pub(super) fn tick(&self, by: Duration) {
        self.app.db.clock().advance(by);
    }

    /// How every delivery stands, once it is seen that the tables agree: every token has its lease, nothing final is
    /// queued and nothing open is not, and claims look at every content of which something is queued.
    pub(super) async fn standings(&self) -> Vec<Standing> {
        let sql = "SELECT d.id, d.state, d.doubted, q.delivery_id IS NOT NULL AS queued, \
                   q.token IS NOT NULL AND l.token IS NULL AS homeless, c.active \
                   FROM deliveries d JOIN contents c ON c.id = d.content_id \
                   LEFT JOIN queue q ON q.delivery_id = d.id LEFT JOIN leases l ON l.token = q.token";
        let asked = Statement::from_string(self.app.db.backend(), sql);
        let rows = Standing::find_by_statement(asked).all(self.app.db.reads()).await.unwrap();
        for row in &rows {
            assert!(!row.homeless, "{}: a claim without a lease never ends", row.id);
            assert_eq!(
                row.queued,
                row.state == "open",
                "{} is {} and in the queue or not",
                row.id,
                row.state
            );
            assert!(row.active || !row.queued, "claims pass over the content of {}, which is queued", row.id);
        }
        rows
    }

    /// The counts that are kept are those of the rows.
    pub(super) async fn counts_are_true(&self) {
        for (class, _, content) in &self.topics {
            let sql = "SELECT COALESCE(SUM(CASE WHEN d.state = 'sent' THEN 1 ELSE 0 END), 0) AS sent, \
                       COALESCE(SUM(CASE WHEN d.state = 'suppressed' THEN 1 ELSE 0 END), 0) AS suppressed, \
                       COALESCE(SUM(CASE WHEN d.state = 'failed' THEN 1 ELSE 0 END), 0) AS failed, \
                       COALESCE(SUM(CASE WHEN d.state = 'unknown' THEN 1 ELSE 0 END), 0) AS unknown, \
                       COALESCE(SUM(CASE WHEN q.delivery_id IS NOT NULL AND q.token IS NULL THEN 1 ELSE 0 END), 0) \
                       AS queued, \
                       COALESCE(SUM(CASE WHEN q.token IS NOT NULL THEN 1 ELSE 0 END), 0) AS sending, \
                       COUNT(*) AS total \
                       FROM deliveries d LEFT JOIN queue q ON q.delivery_id = d.id WHERE d.content_id = $1";
            let asked = Statement::from_sql_and_values(self.app.db.backend(), sql, [Value::from(content.0)]);
            let row = self.app.db.reads().query_one_raw(asked).await.unwrap().unwrap();
            let of = |name: &str| u64::try_from(row.try_get::<i64>("", name).unwrap()).unwrap();
            let counts = rows::counts(self.app.db.reads(), *content).await.unwrap();
            let kept = [
                counts.sent,
                counts.suppressed,
                counts.failed,
                counts.unknown,
                counts.queued,
                counts.sending,
                counts.total,
            ];
            let names = ["sent", "suppressed", "failed", "unknown", "queued", "sending", "total"];
            assert_eq!(kept, names.map(of), "the counts kept of {class} ({names:?}) are those of its rows");
        }
    }
}
