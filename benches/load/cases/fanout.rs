//! `fanout`: a campaign's audience turned into deliveries, against `INSERT ... SELECT` of the same rows.
//!
//! The relay takes connections and says nothing, so that nothing is sent meanwhile.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::campaign::{Campaign, stream};
use crate::measure::{Limit, Line, Trial, Unit, Values};
use crate::stage::Stage;
use crate::store::Store;
use crate::{Outcome, filled, people};

const FILLED: &str = "fanout_filled";
const COPY: &str = "fanout_run";
const LOOK: Duration = Duration::from_millis(100);
/// A fan-out that takes longer is broken.
const PATIENCE: Duration = Duration::from_hours(2);

pub(super) struct FanOut<'a> {
    stage: &'a Stage,
    store: Store<'a>,
    campaign: Campaign,
    /// The tables that the last run filled; its database stands until the next.
    tables: Vec<String>,
}

impl<'a> FanOut<'a> {
    pub(super) async fn prepare(stage: &'a Stage) -> Outcome<Self> {
        let store = stage.on_postgres();
        let people = stage.options.people;
        let url = store.create(FILLED)?;
        stage.program.migrate(&url)?;
        println!("\nimporting {people} people");
        stage.program.import(&url, &people::recipients(stage.folder(), people)?, people).await?;
        let tidings = stage.program.serve(&url, "smtp://127.0.0.1:9").await?;
        stream(&tidings).await?;
        let campaign = Campaign::draft(&tidings, Some(json!({ "tags": ["news"] }))).await?;
        tidings.stop()?;
        store.rest(FILLED)?;
        Ok(Self { stage, store, campaign, tables: Vec::new() })
    }
}

impl Trial for FanOut<'_> {
    fn name(&self) -> String {
        format!("fan-out of {} by filter", self.stage.options.people)
    }

    fn lines(&self) -> Vec<Line> {
        vec![
            Line::plain("deliveries", "deliveries", Unit::PerSecond)
                .against("INSERT ... SELECT")
                .limit(Limit::Least(0.5)),
            Line::plain("peak memory of Tidings", "peak", Unit::Megabytes),
        ]
    }

    async fn run(&mut self) -> Outcome<Values> {
        let people = self.stage.options.people;
        let url = self.store.copy(FILLED, COPY)?;
        let before = filled::counts(&self.stage.postgres, COPY)?;
        let silent = TcpListener::bind("127.0.0.1:0")?;
        let relay = format!("smtp://{}", silent.local_addr()?);
        let tidings = self.stage.program.serve(&url, &relay).await?;
        let begun = Instant::now();
        self.campaign.start(&tidings).await?;
        let end = loop {
            let now = self.campaign.look(&tidings).await?;
            if now["fanned_out"] == true {
                break now;
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("the fan-out does not end: {now}").into());
            }
            tokio::time::sleep(LOOK).await;
        };
        let took = begun.elapsed();
        let peak = tidings.peak_mb()?;
        drop(silent);
        tidings.stop()?;
        if end["counts"]["total"] != people {
            return Err(format!("{people} were to be found: {end}").into());
        }
        let after = filled::counts(&self.stage.postgres, COPY)?;
        self.tables = filled::filled(&before, &after, people / 2);
        println!("  tables filled: {}", self.tables.join(", "));
        Ok(Values::from([("deliveries", people as f64 / took.as_secs_f64()), ("peak", peak)]))
    }

    async fn yardsticks(&mut self) -> Outcome<Values> {
        let took = filled::inserted(&self.stage.postgres, COPY, &self.tables)?;
        let rate = self.stage.options.people as f64 / took.as_secs_f64();
        Ok(Values::from([("INSERT ... SELECT", rate)]))
    }
}
