//! `slow`: over a relay that answers after 5 ms a message can take no less than one answer: one round trip.

use std::time::{Duration, Instant};

use crate::campaign::{Campaign, stream};
use crate::chain::CONNECTIONS;
use crate::measure::{Limit, Line, Trial, Unit, Values};
use crate::relay::OwnRelay;
use crate::stage::Stage;
use crate::store::Store;
use crate::{Outcome, people};

const FILLED: &str = "slow_filled";
const COPY: &str = "slow_run";
const AFTER: Duration = Duration::from_millis(5);
/// How often it is asked whether it is finished.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Slow<'a> {
    stage: &'a Stage,
    store: Store<'a>,
    campaign: Campaign,
    messages: u64,
}

impl<'a> Slow<'a> {
    pub(super) async fn prepare(stage: &'a Stage) -> Outcome<Self> {
        let store = stage.on_postgres();
        let messages = (stage.options.messages / 5).max(1);
        let url = store.create(FILLED)?;
        let tidings = stage.program.serve(&url, "smtp://127.0.0.1:9").await?;
        stream(&tidings).await?;
        let campaign = Campaign::draft(&tidings, None).await?;
        campaign.add(&tidings, &people::lines(stage.folder(), messages)?, messages).await?;
        tidings.stop()?;
        store.rest(FILLED)?;
        Ok(Self { stage, store, campaign, messages })
    }
}

impl Trial for Slow<'_> {
    fn name(&self) -> String {
        "slow relay".to_owned()
    }

    fn lines(&self) -> Vec<Line> {
        vec![
            Line::plain("messages, answers after 5 ms", "messages", Unit::PerSecond)
                .against("connections by reply time")
                .limit(Limit::Least(0.9)),
            Line::plain("reply time that the relay measured", "reply time", Unit::Millis),
        ]
    }

    async fn run(&mut self) -> Outcome<Values> {
        let url = self.store.copy(FILLED, COPY)?;
        let relay = OwnRelay::slow(AFTER).await?;
        let tidings = self.stage.program.serve(&url, &relay.relay_url()).await?;
        let begun = Instant::now();
        self.campaign.start(&tidings).await?;
        let end = self.campaign.finished(&tidings, LOOK).await?;
        let took = begun.elapsed();
        tidings.stop()?;
        self.store.drop(COPY)?;
        if relay.count() != self.messages || end["counts"]["sent"] != self.messages {
            return Err(format!("{} messages came of {}: {end}", relay.count(), self.messages).into());
        }
        let reply = relay.reply_time().as_secs_f64();
        Ok(Values::from([
            ("messages", self.messages as f64 / took.as_secs_f64()),
            ("connections by reply time", CONNECTIONS as f64 / reply),
            ("reply time", reply * 1e3),
        ]))
    }

    async fn yardsticks(&mut self) -> Outcome<Values> {
        Ok(Values::new())
    }
}
