//! The cases, one file each.

mod clicks;
mod fanout;
mod first;
mod history;
mod import;
mod machine;
mod memory;
mod send;
mod slow;

use super::measure::{Measured, measure};
use super::options::Options;
use super::postgres::SETTINGS;
use super::stage::Stage;
use super::{Outcome, report};
use send::{Backend, Send};

/// Runs the cases asked for, one after another, and prints the table of all, or of those before the one that broke.
pub(crate) async fn run(options: &Options) -> Outcome<()> {
    println!("PostgreSQL with {}; everything on cores 0 and 1", SETTINGS.join(" "));
    let stage = Stage::new(options.clone())?;
    let mut done = Vec::new();
    let outcome = all(&stage, &mut done).await;
    report::print(&done);
    if outcome.is_err() {
        println!("\nthe last that Tidings had to say:\n{}", stage.program.last_words());
    }
    outcome
}

async fn all(stage: &Stage, done: &mut Vec<Measured>) -> Outcome<()> {
    let options = &stage.options;
    let runs = options.runs;
    if options.wants("machine") {
        done.push(measure(&mut machine::Machine::new(stage), runs).await?);
    }
    if options.wants("send") {
        for (backend, signed) in sends(options) {
            done.push(
                measure(&mut Send::prepare(stage, backend, signed, options.messages).await?, runs).await?,
            );
        }
    }
    if options.wants("first") {
        done.push(measure(&mut first::First::prepare(stage).await?, runs).await?);
    }
    if options.wants("memory") {
        done.push(memory::measured(stage).await?);
    }
    if options.wants("slow") {
        done.push(measure(&mut slow::Slow::prepare(stage).await?, runs).await?);
    }
    if options.wants("fanout") {
        done.push(measure(&mut fanout::FanOut::prepare(stage).await?, runs).await?);
    }
    if options.wants("import") {
        done.push(measure(&mut import::Import::prepare(stage)?, runs).await?);
    }
    if options.wants("clicks") {
        let mut clicks = clicks::Clicks::prepare(stage).await?;
        done.push(measure(&mut clicks, runs).await?);
        done.push(measure(&mut clicks.beside_a_campaign(), runs).await?);
    }
    if options.wants("history") {
        done.push(measure(&mut history::History::prepare(stage).await?, runs).await?);
    }
    Ok(())
}

/// On which database, signed or not: what the flags say, or all that the table asks for.
fn sends(options: &Options) -> Vec<(Backend, bool)> {
    let backend = if options.sqlite { Backend::Sqlite } else { Backend::Postgres };
    if options.sqlite || options.signed {
        return vec![(backend, options.signed)];
    }
    if options.cases.is_empty() {
        return vec![(Backend::Postgres, false), (Backend::Sqlite, false), (Backend::Postgres, true)];
    }
    vec![(Backend::Postgres, false)]
}
