//! `clicks`: one-click POSTs over distinct people, against pgbench running the same statements; and while a campaign runs.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::campaign::{Campaign, stream};
use crate::clicker::{Asks, CLIENTS, at_share, click};
use crate::machine::output;
use crate::measure::{Limit, Line, Trial, Unit, Values};
use crate::relay::OwnRelay;
use crate::sink::Sink;
use crate::stage::Stage;
use crate::store::Store;
use crate::yardstick::rate_of;
use crate::{Outcome, people};

/// Where everybody has got a message, and where another campaign waits besides.
const SENT: &str = "clicks_sent";
const WAITING: &str = "clicks_waiting";
const COPY: &str = "clicks_run";
/// The statements of one click.
const SCRIPT: &str = include_str!("../../clicks.sql");

/// People each of whom has a message with a link.
pub(super) struct Clicks<'a> {
    stage: &'a Stage,
    store: Store<'a>,
    links: Arc<Vec<String>>,
    waiting: Campaign,
}

impl<'a> Clicks<'a> {
    pub(super) async fn prepare(stage: &'a Stage) -> Outcome<Self> {
        let store = stage.on_postgres();
        let (clicks, messages) = (stage.options.clicks, stage.options.messages);
        let url = store.create(SENT)?;
        let relay = OwnRelay::keeping_links().await?;
        println!("\nsending {clicks} messages to click on");
        let tidings = stage.program.serve(&url, &relay.relay_url()).await?;
        stream(&tidings).await?;
        let sent = Campaign::draft(&tidings, None).await?;
        sent.add(&tidings, &people::lines(stage.folder(), clicks)?, clicks).await?;
        sent.start(&tidings).await?;
        sent.finished(&tidings, Duration::from_millis(500)).await?;
        tidings.stop()?;
        store.rest(SENT)?;
        let links = relay.links();
        if links.len() as u64 != clicks {
            return Err(format!("{clicks} messages were sent and {} had a link", links.len()).into());
        }
        let tidings = stage.program.serve(&store.copy(SENT, WAITING)?, "smtp://127.0.0.1:9").await?;
        let waiting = Campaign::draft(&tidings, None).await?;
        waiting.add(&tidings, &people::lines(stage.folder(), messages)?, messages).await?;
        tidings.stop()?;
        store.rest(WAITING)?;
        Ok(Self { stage, store, links: Arc::new(links), waiting })
    }

    /// The same while another campaign runs.
    pub(super) fn beside_a_campaign(&mut self) -> Beside<'_, 'a> {
        Beside { clicks: self }
    }
}

impl Trial for Clicks<'_> {
    fn name(&self) -> String {
        format!("{} clicks", self.links.len())
    }

    fn lines(&self) -> Vec<Line> {
        vec![
            Line::plain("clicks", "clicks", Unit::PerSecond).against("pgbench").limit(Limit::Least(0.6)),
            Line::plain("clicks, by themselves", "clicks", Unit::PerSecond).limit(Limit::Least(5_000.0)),
            Line::plain("half answered within", "p50", Unit::Millis).against("pgbench p50"),
            Line::plain("99 % answered within", "p99", Unit::Millis)
                .against("pgbench p99")
                .limit(Limit::Most(4.0)),
            Line::plain("CPU a click, with PostgreSQL's", "CPU", Unit::Micros),
        ]
    }

    async fn run(&mut self) -> Outcome<Values> {
        let url = self.store.copy(SENT, COPY)?;
        let sink = Sink::start(self.stage.folder())?;
        let tidings = self.stage.program.serve(&url, &sink.relay_url()).await?;
        let before = tidings.cpu() + self.store.cpu();
        let clicked = click(tidings.listen(), &self.links, Asks::Nothing).await?;
        let used = tidings.cpu() + self.store.cpu() - before;
        tidings.stop()?;
        let opted_out =
            self.stage.postgres.psql(COPY, "SELECT count(DISTINCT address_hash) FROM opt_events")?;
        if opted_out.trim() != self.links.len().to_string() {
            return Err(format!("{} clicks left {} opt-outs", self.links.len(), opted_out.trim()).into());
        }
        Ok(Values::from([
            ("clicks", clicked.rate()),
            ("p50", clicked.wait_ms(500)),
            ("p99", clicked.wait_ms(990)),
            ("CPU", used * 1e6 / self.links.len() as f64),
        ]))
    }

    async fn yardsticks(&mut self) -> Outcome<Values> {
        self.store.copy(SENT, COPY)?;
        let server = &self.stage.postgres;
        server.psql(COPY, PEOPLE)?;
        let script = server.folder().join("clicks.sql");
        fs::write(&script, SCRIPT)?;
        let log = server.folder().join("pgbench");
        let mut pgbench = server.client("pgbench", COPY);
        let each = (self.links.len() / CLIENTS).max(1);
        pgbench.args([
            "-n",
            "-M",
            "prepared",
            "-j",
            "2",
            "-c",
            &CLIENTS.to_string(),
            "-t",
            &each.to_string(),
        ]);
        pgbench.args(["-D", "i=0", "-D", &format!("each={each}"), "-l"]);
        pgbench.arg(format!("--log-prefix={}", log.display())).arg("-f").arg(&script);
        let rate = rate_of(&output(&mut pgbench)?)?;
        let mut waits = Vec::new();
        for entry in fs::read_dir(server.folder())? {
            let path = entry?.path();
            if path.to_string_lossy().starts_with(&format!("{}.", log.display())) {
                // client, transaction, microseconds, ...
                let log = fs::read_to_string(&path)?;
                let third = |line: &str| line.split_whitespace().nth(2).and_then(|us| us.parse::<f64>().ok());
                waits.extend(log.lines().filter_map(third));
                fs::remove_file(path)?;
            }
        }
        waits.sort_by(f64::total_cmp);
        let wait = |share| at_share(&waits, share).unwrap_or(0.0) / 1e3;
        Ok(Values::from([("pgbench", rate), ("pgbench p50", wait(500)), ("pgbench p99", wait(990))]))
    }
}

/// The people whom the script numbers: pgbench cannot read a link.
const PEOPLE: &str = "
CREATE TABLE load_people AS
  SELECT row_number() OVER (ORDER BY d.id) - 1 AS n, d.id AS delivery_id, d.recipient_id, d.address_hash, d.brand_id,
         d.topic_id
    FROM deliveries d;
ALTER TABLE load_people ADD PRIMARY KEY (n);
VACUUM (ANALYZE) load_people;
CHECKPOINT";

/// Clicks while a campaign to the same people runs.
pub(super) struct Beside<'c, 'a> {
    clicks: &'c mut Clicks<'a>,
}

impl Trial for Beside<'_, '_> {
    fn name(&self) -> String {
        format!("{} clicks beside a campaign", self.clicks.links.len())
    }

    fn lines(&self) -> Vec<Line> {
        vec![
            Line::plain("clicks", "clicks", Unit::PerSecond),
            Line::plain("half answered within", "p50", Unit::Millis),
            Line::plain("99 % answered within", "p99", Unit::Millis).limit(Limit::Most(1_000.0)),
            Line::plain("all answered within", "all", Unit::Millis),
            Line::plain("answers not settled", "unsettled", Unit::Count).limit(Limit::Most(0.0)),
            Line::plain("messages still to be sent after the last click", "left", Unit::Count),
        ]
    }

    async fn run(&mut self) -> Outcome<Values> {
        let Clicks { stage, store, links, waiting } = &*self.clicks;
        let url = store.copy(WAITING, COPY)?;
        let sink = Sink::start(stage.folder())?;
        let tidings = stage.program.serve(&url, &sink.relay_url()).await?;
        waiting.start(&tidings).await?;
        while sink.count()? == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let clicked = click(tidings.listen(), links, Asks::Json).await?;
        let then = waiting.look(&tidings).await?;
        let end = waiting.finished(&tidings, Duration::from_millis(200)).await?;
        tidings.stop()?;
        let counts = &end["counts"];
        let (sent, suppressed) =
            (counts["sent"].as_u64().unwrap_or(0), counts["suppressed"].as_u64().unwrap_or(0));
        if sink.count()? != sent || sent + suppressed != stage.options.messages {
            return Err(format!("{} messages arrived: {end}", sink.count()?).into());
        }
        Ok(Values::from([
            ("clicks", clicked.rate()),
            ("p50", clicked.wait_ms(500)),
            ("p99", clicked.wait_ms(990)),
            ("all", clicked.wait_ms(1000)),
            ("unsettled", clicked.unsettled as f64),
            ("left", then["counts"]["queued"].as_f64().unwrap_or(0.0)),
            ("suppressed", suppressed as f64),
        ]))
    }

    async fn yardsticks(&mut self) -> Outcome<Values> {
        Ok(Values::new())
    }
}
