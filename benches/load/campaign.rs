//! A campaign through the API: made, filled, started, watched to its end.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::program::Serving;
use super::sink::Sink;
use super::{Outcome, letter};

/// A campaign of which nothing more arrives for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the sink is looked at until the first message is there, and afterwards.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_millis(20);

/// The brand, topic and template of every campaign here.
pub(crate) async fn stream(tidings: &Serving) -> Outcome<()> {
    let brand =
        json!({ "name": letter::BRAND, "from": letter::FROM, "postal_address": letter::POSTAL_ADDRESS });
    tidings.call(Method::PUT, "/brands/load", brand).await?;
    let topic = json!({ "name": letter::TOPIC, "class": "marketing" });
    tidings.call(Method::PUT, "/brands/load/topics/news", topic).await?;
    let template = json!({ "subject": letter::SUBJECT, "html": letter::HTML, "text": letter::TEXT });
    tidings.call(Method::PUT, "/templates/letter", template).await?;
    Ok(())
}

/// A campaign's place in the API.
#[derive(Clone, Debug)]
pub(crate) struct Campaign(String);

impl Campaign {
    /// A draft; `audience` finds people, lines may be added.
    pub(crate) async fn draft(tidings: &Serving, audience: Option<Value>) -> Outcome<Self> {
        let mut campaign =
            json!({ "brand": "load", "topic": "news", "template": "letter", "data": letter::data() });
        if let Some(audience) = audience {
            campaign["audience"] = audience;
        }
        let made = tidings.call(Method::POST, "/campaigns", campaign).await?;
        Ok(Self(format!("/campaigns/{}", made["id"].as_str().unwrap_or_default())))
    }

    /// Adds the lines of a file, all of which must be new.
    pub(crate) async fn add(&self, tidings: &Serving, file: &Path, lines: u64) -> Outcome<()> {
        let filled = tidings.upload(&format!("{}/recipients", self.0), file).await?;
        if filled["added"] == lines {
            Ok(())
        } else {
            Err(format!("not every line was added: {filled}").into())
        }
    }

    /// The campaign and its counts.
    pub(crate) async fn look(&self, tidings: &Serving) -> Outcome<Value> {
        tidings.get(&self.0).await
    }

    /// Starts it.
    pub(crate) async fn start(&self, tidings: &Serving) -> Outcome<()> {
        tidings.call(Method::POST, &format!("{}/start", self.0), json!({})).await?;
        Ok(())
    }

    /// Waits until it is finished, and returns it then.
    pub(crate) async fn finished(&self, tidings: &Serving, every: Duration) -> Outcome<Value> {
        let mut progress = Progress::new();
        loop {
            let now = self.look(tidings).await?;
            if now["state"] == "finished" {
                return Ok(now);
            }
            let waiting = now["counts"]["queued"].as_u64().unwrap_or(0)
                + now["counts"]["sending"].as_u64().unwrap_or(0);
            progress.at(waiting).map_err(|()| format!("the campaign stands still: {now}"))?;
            tokio::time::sleep(every).await;
        }
    }

    /// Starts it and waits until the sink holds so many messages and it is finished.
    pub(crate) async fn run(&self, tidings: &Serving, sink: &Sink, messages: u64) -> Outcome<Ran> {
        let begun = Instant::now();
        self.start(tidings).await?;
        let mut progress = Progress::new();
        let mut first = None;
        loop {
            let count = sink.count()?;
            if count > 0 && first.is_none() {
                first = Some(begun.elapsed());
            }
            if count >= messages {
                break;
            }
            if progress.at(count).is_err() {
                let now = self.look(tidings).await?;
                return Err(format!("{count} of {messages} messages arrived and no more: {now}").into());
            }
            tokio::time::sleep(if first.is_some() { LOOK } else { LOOK_FIRST }).await;
        }
        let end = self.finished(tidings, LOOK).await?;
        let took = begun.elapsed();
        let count = sink.count()?;
        if count != messages || end["counts"]["sent"] != messages {
            return Err(format!("{messages} messages were to arrive, {count} did: {end}").into());
        }
        Ok(Ran { took, first: first.unwrap_or(took) })
    }
}

/// How long a campaign took.
pub(crate) struct Ran {
    /// From the call that starts it until it is finished.
    pub(crate) took: Duration,
    /// From that call until the relay has its first message.
    pub(crate) first: Duration,
}

/// Notices when a number stops changing.
struct Progress {
    last: u64,
    since: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { last: 0, since: Instant::now() }
    }

    fn at(&mut self, now: u64) -> Result<(), ()> {
        if now != self.last {
            *self = Self { last: now, since: Instant::now() };
        }
        if self.since.elapsed() > PATIENCE { Err(()) } else { Ok(()) }
    }
}
