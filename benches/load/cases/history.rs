//! `history`: what a message costs beside ten million finished deliveries, and without them; progress polled throughout.
//!
//! The yardstick is the same campaign in a database that holds one finished campaign and no more.

use std::time::Duration;

use crate::campaign::{Campaign, stream};
use crate::measure::{Limit, Line, Trial, Unit, Values};
use crate::sink::Sink;
use crate::stage::Stage;
use crate::store::Store;
use crate::{Outcome, filled, people};

const EMPTY: &str = "history_empty";
const FULL: &str = "history_full";
/// How often somebody looks at the campaign's progress.
const LOOK: Duration = Duration::from_millis(500);
/// Copies of the finished campaign that one statement makes.
const AT_A_TIME: u64 = 10;

pub(super) struct History<'a> {
    stage: &'a Stage,
    store: Store<'a>,
    messages: u64,
}

impl<'a> History<'a> {
    pub(super) async fn prepare(stage: &'a Stage) -> Outcome<Self> {
        let messages = (stage.options.messages / 4).max(1);
        let store = stage.on_postgres();
        store.create(EMPTY)?;
        let history = Self { stage, store, messages };
        println!("\nsending {messages} messages, and copying them until there are {}", stage.options.history);
        history.campaign(EMPTY).await?;
        history.store.copy(EMPTY, FULL)?;
        history.multiply(stage.options.history.div_ceil(messages))?;
        history.store.rest(EMPTY)?;
        history.store.rest(FULL)?;
        let count = stage.postgres.psql(FULL, "SELECT count(*) FROM deliveries WHERE state = 'sent'")?;
        println!("  {} finished deliveries, in {}", count.trim(), size(stage)?);
        Ok(history)
    }

    /// Copies all that the one finished campaign left, so many times, each copy a day older.
    fn multiply(&self, copies: u64) -> Outcome<()> {
        let server = &self.stage.postgres;
        server.psql(FULL, OLDER)?;
        let there = filled::counts(server, FULL)?;
        for table in TABLES.iter().filter(|table| there.get(**table).is_some_and(|count| *count > 0)) {
            let pairs = server.psql(FULL, &columns_of(table))?;
            let (names, values) = pairs.trim().split_once('|').ok_or("a table without columns")?;
            // The copies of the rows alone, since the copies stand in the same table.
            server.psql(FULL, &format!("CREATE UNLOGGED TABLE pattern AS SELECT * FROM {table}"))?;
            for from in (1..=copies).step_by(usize::try_from(AT_A_TIME)?) {
                let to = (from + AT_A_TIME - 1).min(copies);
                server.psql(
                    FULL,
                    &format!(
                        "SET session_replication_role = replica;\n\
                         INSERT INTO {table} ({names}) SELECT {values} FROM generate_series({from}, {to}) AS k, pattern"
                    ),
                )?;
            }
            server.psql(FULL, "DROP TABLE pattern")?;
        }
        Ok(())
    }

    /// Sends one campaign and returns microseconds of CPU a message.
    async fn campaign(&self, database: &str) -> Outcome<f64> {
        let url = self.store.url(database);
        let tidings = self.stage.program.serve(&url, "smtp://127.0.0.1:9").await?;
        stream(&tidings).await?;
        let campaign = Campaign::draft(&tidings, None).await?;
        campaign.add(&tidings, &people::lines(self.stage.folder(), self.messages)?, self.messages).await?;
        tidings.stop()?;
        self.store.rest(database)?;
        let sink = Sink::start(self.stage.folder())?;
        let tidings = self.stage.program.serve(&url, &sink.relay_url()).await?;
        let before = tidings.cpu() + self.store.cpu();
        campaign.start(&tidings).await?;
        let end = campaign.finished(&tidings, LOOK).await?;
        let used = tidings.cpu() + self.store.cpu() - before;
        tidings.stop()?;
        if sink.count()? != self.messages {
            return Err(format!("{} of {} messages arrived: {end}", sink.count()?, self.messages).into());
        }
        Ok(used * 1e6 / self.messages as f64)
    }
}

fn size(stage: &Stage) -> Outcome<String> {
    let size = stage.postgres.psql(FULL, "SELECT pg_size_pretty(pg_total_relation_size('deliveries'))")?;
    Ok(size.trim().to_owned())
}

/// What a finished campaign leaves, those first to which the others point. A table that is not there is passed over.
const TABLES: [&str; 5] = ["contents", "campaigns", "deliveries", "attempts", "tally"];

/// The same id as many days earlier: it begins with a time, and so old rows stand where old rows stand.
const OLDER: &str = "
CREATE FUNCTION older(id uuid, days bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (lpad(to_hex(('x0000' || left(replace(id::text, '-', ''), 12))::bit(64)::bigint - days * 86400000), 12, '0')
          || substr(replace(id::text, '-', ''), 13))::uuid
$$";

/// The names of a table's columns, and what each is in the copy of the day `k`.
fn columns_of(table: &str) -> String {
    format!(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum),
                string_agg(CASE WHEN attname IN ('id', 'content_id', 'mailing_id', 'campaign_id', 'delivery_id')
                                THEN format('older(%I, k)', attname)
                                WHEN attname = 'digest' THEN 'NULL'
                                ELSE quote_ident(attname) END, ', ' ORDER BY attnum)
           FROM pg_attribute
          WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
    )
}

impl Trial for History<'_> {
    fn name(&self) -> String {
        format!("send {} beside {} finished", self.messages, self.stage.options.history)
    }

    fn lines(&self) -> Vec<Line> {
        vec![
            Line::plain("CPU a message, with PostgreSQL's", "CPU", Unit::Micros)
                .against("without them")
                .limit(Limit::Most(1.2)),
        ]
    }

    async fn run(&mut self) -> Outcome<Values> {
        Ok(Values::from([("CPU", self.campaign(FULL).await?)]))
    }

    async fn yardsticks(&mut self) -> Outcome<Values> {
        Ok(Values::from([("without them", self.campaign(EMPTY).await?)]))
    }
}
