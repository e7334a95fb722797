//! Two transactions open at once, where the database has row locks: a claim that is stopped right before its COMMIT while
//! people refuse, and a refusal that is stopped right before its COMMIT while mail is fanned out and a worker goes on.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tidings::db::Write;
use tidings::delivery::rows::{self, Ask, Lane};
use tidings::fence;
use tidings::id::LeaseToken;
use uuid::Uuid;

use super::Sim;
use super::world::COMMITS_REFUSALS;
use crate::harness::wait_until;

impl Sim<'_> {
    pub(super) fn windows_open(&self) -> bool {
        self.world.app.db.backend() == DbBackend::Postgres && !self.drains
    }

    /// Locks what every claim of this program writes last, so that it stands still with all it did uncommitted.
    async fn bar(&self) -> Write {
        let txn = self.world.app.db.begin().await.unwrap();
        let sql = "INSERT INTO tally (content_id, shard, state, reason, n) \
                   SELECT c.id, s.shard, w.word, '', 0 FROM contents c, generate_series(0, 15) AS s (shard), \
                   (VALUES ('sending'), ('queued')) AS w (word) ORDER BY c.id, w.word \
                   ON CONFLICT (content_id, shard, state, reason) DO UPDATE SET n = tally.n";
        txn.execute_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
        txn
    }

    /// Waits until this task is done, or stands at a lock.
    async fn stands<T>(&self, task: &tokio::task::JoinHandle<T>) {
        wait_until("a transaction to stand at a lock", async || {
            let sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock'";
            let asked = Statement::from_string(DbBackend::Postgres, sql);
            let row = self.world.app.db.reads().query_one_raw(asked).await.unwrap().unwrap();
            task.is_finished() || row.try_get::<i64>("", "n").unwrap() > 0
        })
        .await;
    }

    /// A worker claims and is stopped before its COMMIT; people refuse meanwhile; then it goes on. Says no when the worker
    /// is busy.
    pub(super) async fn claim_is_stopped(&mut self) -> bool {
        let w = self.below(self.workers.len());
        if self.clients.is_empty() || self.workers[w].asleep > 0 || !self.workers[w].is_idle() {
            return false;
        }
        let bar = self.bar().await;
        let settings = &self.world.app.settings;
        self.tokens += 1;
        let token = LeaseToken(Uuid::from_u128((u128::from(self.seed) << 32) | u128::from(self.tokens)));
        let (lease, silence) = (settings.lease, settings.relay_silence);
        let ask = Ask { token, lease, silence, lanes: &Lane::ALL, limit: 4 };
        let until = self.now + settings.lease_trusted().as_secs();
        let db = self.world.app.db.clone();
        let claim = tokio::spawn(async move { rows::claim(&db, ask, &mut rows::Trail::default()).await });
        self.stands(&claim).await;
        self.tell(format!("worker {w} claims under {token} and is stopped before its COMMIT"));
        for _ in 0..2 + self.below(6) {
            let n = self.below(self.clients.len());
            self.step += 1;
            let asked = tokio::time::timeout(Duration::from_secs(30), self.ask(n)).await;
            asked.expect("a client waits for a claim that is stopped");
        }
        bar.rollback().await.unwrap();
        let ids = claim.await.unwrap().unwrap();
        self.step += 1;
        self.tell(format!("worker {w} goes on and has claimed {ids:?}"));
        // It was committed now: what the refusals meanwhile answered, they did not name it.
        self.claimed(w, token, ids, until, self.step);
        true
    }

    /// A refusal is stopped at its COMMIT, after everything else that it does before; somebody mails its person meanwhile,
    /// and a worker claims and begins; then it goes on. Says no when nobody is about to refuse or no worker is idle.
    pub(super) async fn refusal_is_stopped(&mut self) -> bool {
        let w = self.below(self.workers.len());
        if self.workers[w].asleep > 0 || !self.workers[w].is_idle() {
            return false;
        }
        if self.clients.len() < 6 {
            self.refuses();
        }
        let mut asking = self.clients.iter().enumerate().filter_map(|(n, one)| Some((n, one.asks()?)));
        let Some((n, (person, classes, asked))) = asking.next_back() else { return false };
        let class = classes[self.step as usize % classes.len()];
        let (app, asked) = (self.world.app.clone(), asked.clone());
        let bar = self.world.app.db.begin().await.unwrap();
        let sql = format!("SELECT pg_advisory_xact_lock({COMMITS_REFUSALS})");
        bar.execute_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
        let refusal = tokio::spawn(async move { fence::record(&app, &asked).await });
        self.stands(&refusal).await;
        self.tell(format!("client {n} is stopped before its COMMIT"));
        if self.deliveries.len() < 12 {
            self.step += 1;
            self.fan_out_to(person, class).await;
        }
        for _ in 0..3 + self.below(5) {
            self.step += 1;
            let worked = tokio::time::timeout(Duration::from_secs(30), self.work(w)).await;
            worked.expect("a worker waits for a refusal that is stopped");
            self.look_at_rows().await;
        }
        bar.rollback().await.unwrap();
        self.step += 1;
        self.touched = true;
        // Where the steps between took long the database has given it up, as it would for anybody who keeps a lock.
        let recorded = refusal.await.unwrap();
        self.tell(format!("client {n} goes on and is recorded: {}", recorded.is_ok()));
        if let Ok((_, wait)) = recorded {
            self.clients[n].waits(wait, self.step);
        }
        true
    }
}
