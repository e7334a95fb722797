//! `memory`: the most that Tidings holds while it sends a campaign, and one five times as large.

use crate::Outcome;
use crate::measure::{Limit, Line, Measured, Run, Trial as _, Unit, Values};
use crate::stage::Stage;

use super::send::{Backend, Send};

/// One run each: a peak is a peak.
pub(super) async fn measured(stage: &Stage) -> Outcome<Measured> {
    let messages = stage.options.messages;
    let mut values = Values::new();
    for (name, messages) in [("peak", messages), ("peak of five times", messages * 5)] {
        let mut send = Send::prepare(stage, Backend::Postgres, false, messages).await?;
        println!("{}: one run", send.name());
        let run = send.run().await?;
        values.insert(name, run.get("peak").copied().unwrap_or(0.0));
    }
    let line = |words, figure| Line::plain(words, figure, Unit::Megabytes).limit(Limit::Most(100.0));
    Ok(Measured {
        name: format!("memory, {messages} messages"),
        lines: vec![
            line("peak of Tidings", "peak"),
            line("peak of Tidings, five times as many messages", "peak of five times"),
        ],
        runs: vec![Run { values, before: Values::new(), after: Values::new() }],
        void: 0,
        all_void: false,
    })
}
