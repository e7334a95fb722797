//! `send`: a campaign from its start until it is finished, its lines added before.

use crate::campaign::{Campaign, stream};
use crate::chain;
use crate::letter::Keys;
use crate::measure::{Limit, Line, Trial, Unit, Values};
use crate::program::Program;
use crate::sink::Sink;
use crate::stage::Stage;
use crate::store::Store;
use crate::yardstick::{openssl, smtp_source};
use crate::{Outcome, people};

/// On which database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Postgres,
    Sqlite,
}

/// A campaign whose lines wait in a database that is copied for each run.
pub(super) struct Send<'a> {
    stage: &'a Stage,
    store: Store<'a>,
    backend: Backend,
    signed: bool,
    program: Program,
    campaign: Campaign,
    messages: u64,
}

/// The database that is copied, and its copy.
const FILLED: &str = "send_filled";
const COPY: &str = "send_run";

impl<'a> Send<'a> {
    pub(super) async fn prepare(
        stage: &'a Stage,
        backend: Backend,
        signed: bool,
        messages: u64,
    ) -> Outcome<Self> {
        let store = match backend {
            Backend::Postgres => stage.on_postgres(),
            Backend::Sqlite => stage.on_sqlite(),
        };
        let keys = if signed { Some(Keys::new()?.setting(stage.folder())?) } else { None };
        let program = stage.program.signing(keys);
        store.drop(FILLED)?;
        let url = store.create(FILLED)?;
        println!("\nadding {messages} lines");
        let tidings = program.serve(&url, "smtp://127.0.0.1:9").await?;
        stream(&tidings).await?;
        let campaign = Campaign::draft(&tidings, None).await?;
        campaign.add(&tidings, &people::lines(stage.folder(), messages)?, messages).await?;
        tidings.stop()?;
        store.rest(FILLED)?;
        Ok(Self { stage, store, backend, signed, program, campaign, messages })
    }
}

impl Trial for Send<'_> {
    fn name(&self) -> String {
        let database = if self.backend == Backend::Postgres { "PostgreSQL" } else { "SQLite" };
        let signed = if self.signed { ", signed" } else { "" };
        format!("send {} on {database}{signed}", self.messages)
    }

    fn lines(&self) -> Vec<Line> {
        let rate = Line::plain("messages, from start to finished", "messages", Unit::PerSecond);
        let mut cpu =
            Line::plain("CPU a message, with the database's", "CPU", Unit::Micros).against("chain CPU");
        let rate = match (self.signed, self.backend) {
            (true, _) => rate.against("openssl rsa2048").limit(Limit::Least(0.5)),
            (false, Backend::Sqlite) => rate.against("smtp-source").limit(Limit::Least(0.6)),
            (false, Backend::Postgres) => rate.against("smtp-source").limit(Limit::Least(0.5)),
        };
        if (self.signed, self.backend) == (false, Backend::Postgres) {
            cpu = cpu.limit(Limit::Most(2.4));
        }
        vec![
            rate,
            cpu,
            Line::plain("of which Tidings'", "CPU Tidings", Unit::Micros),
            Line::plain("of which PostgreSQL's", "CPU PostgreSQL", Unit::Micros),
            Line::plain("peak memory of Tidings", "peak", Unit::Megabytes).limit(Limit::Most(100.0)),
            Line::plain("start to first message", "first", Unit::Seconds).limit(Limit::Most(0.2)),
        ]
    }

    async fn run(&mut self) -> Outcome<Values> {
        let url = self.store.copy(FILLED, COPY)?;
        let sink = Sink::start(self.stage.folder())?;
        let tidings = self.program.serve(&url, &sink.relay_url()).await?;
        let before = (tidings.cpu(), self.store.cpu(), sink.cpu());
        let ran = self.campaign.run(&tidings, &sink, self.messages).await?;
        let after = (tidings.cpu(), self.store.cpu(), sink.cpu());
        let peak = tidings.peak_mb()?;
        tidings.stop()?;
        if sink.count()? != self.messages {
            return Err("messages came after the campaign was finished".into());
        }
        self.store.drop(COPY)?;
        let each = self.messages as f64;
        let us = |before: f64, after: f64| (after - before) * 1e6 / each;
        let (own, database) = (us(before.0, after.0), us(before.1, after.1));
        Ok(Values::from([
            ("messages", each / ran.took.as_secs_f64()),
            ("CPU", own + database),
            ("CPU Tidings", own),
            ("CPU PostgreSQL", database),
            ("CPU smtp-sink", us(before.2, after.2)),
            ("peak", peak),
            ("first", ran.first.as_secs_f64()),
        ]))
    }

    async fn yardsticks(&mut self) -> Outcome<Values> {
        let sink = Sink::start(self.stage.folder())?;
        let messages = self.stage.yardstick_messages() / if self.signed { 5 } else { 1 };
        let chained = chain::measured(&sink.relay_url(), messages, self.signed)?;
        let mut values = Values::from([("chain CPU", chained.cpu_us)]);
        if self.signed {
            values.insert("openssl rsa2048", openssl("rsa2048")?);
        } else {
            values.insert("smtp-source", smtp_source(self.stage)?);
        }
        Ok(values)
    }
}
