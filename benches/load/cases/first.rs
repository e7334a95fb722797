//! `first`: from the start of a large campaign to its first message, its people added by lines or found by filter.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::campaign::{Campaign, stream};
use crate::measure::{Limit, Line, Trial, Unit, Values};
use crate::program::Serving;
use crate::sink::Sink;
use crate::stage::Stage;
use crate::store::Store;
use crate::{Outcome, people};

const FILLED: &str = "first_filled";
const COPY: &str = "first_run";
/// How long a first message may take before something is broken.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct First<'a> {
    stage: &'a Stage,
    store: Store<'a>,
    by_lines: Campaign,
    by_filter: Campaign,
}

impl<'a> First<'a> {
    pub(super) async fn prepare(stage: &'a Stage) -> Outcome<Self> {
        let store = stage.on_postgres();
        let (people, messages) = (stage.options.people, stage.options.messages);
        let url = store.create(FILLED)?;
        stage.program.migrate(&url)?;
        println!("\nimporting {people} people and adding {messages} lines");
        stage.program.import(&url, &people::recipients(stage.folder(), people)?, people).await?;
        let tidings = stage.program.serve(&url, "smtp://127.0.0.1:9").await?;
        stream(&tidings).await?;
        let by_lines = Campaign::draft(&tidings, None).await?;
        by_lines.add(&tidings, &people::lines(stage.folder(), messages)?, messages).await?;
        let by_filter = Campaign::draft(&tidings, Some(json!({ "tags": ["news"] }))).await?;
        tidings.stop()?;
        store.rest(FILLED)?;
        Ok(Self { stage, store, by_lines, by_filter })
    }

    async fn first_of(&self, campaign: &Campaign) -> Outcome<Duration> {
        let url = self.store.copy(FILLED, COPY)?;
        let sink = Sink::start(self.stage.folder())?;
        let tidings = self.stage.program.serve(&url, &sink.relay_url()).await?;
        let took = first(&tidings, campaign, &sink).await?;
        // Nobody waits for the others.
        tidings.stop()?;
        self.store.drop(COPY)?;
        Ok(took)
    }
}

async fn first(tidings: &Serving, campaign: &Campaign, sink: &Sink) -> Outcome<Duration> {
    // A program that has been idle for a second, as most have when somebody starts a campaign.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    campaign.start(tidings).await?;
    while sink.count()? == 0 {
        if begun.elapsed() > PATIENCE {
            return Err("no message came".into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(begun.elapsed())
}

impl Trial for First<'_> {
    fn name(&self) -> String {
        "first".to_owned()
    }

    fn lines(&self) -> Vec<Line> {
        vec![
            Line::plain("start to first message, by lines", "lines", Unit::Seconds).limit(Limit::Most(0.2)),
            Line::plain("start to first message, by filter", "filter", Unit::Seconds).limit(Limit::Most(0.2)),
        ]
    }

    async fn run(&mut self) -> Outcome<Values> {
        let lines = self.first_of(&self.by_lines).await?;
        let filter = self.first_of(&self.by_filter).await?;
        Ok(Values::from([("lines", lines.as_secs_f64()), ("filter", filter.as_secs_f64())]))
    }

    async fn yardsticks(&mut self) -> Outcome<Values> {
        Ok(Values::new())
    }
}
