//! Runs between yardsticks: one to warm up, then as many as asked for, each with a yardstick right before and right after.
//!
//! A run whose yardsticks drifted by more than a tenth is void and is done again, up to as many times as there are runs;
//! when even that leaves none that counts, the void ones are shown and called so.

use std::collections::BTreeMap;

use super::Outcome;

/// Most that a yardstick may drift over a run, as a share.
const DRIFT: f64 = 0.10;

/// Figures by name.
pub(crate) type Values = BTreeMap<&'static str, f64>;

/// What can be measured again and again.
pub(crate) trait Trial {
    /// What is said of it while it runs.
    fn name(&self) -> String;
    /// What the table shows of it.
    fn lines(&self) -> Vec<Line>;
    /// One run.
    async fn run(&mut self) -> Outcome<Values>;
    /// What the machine does at this moment; there was a run before.
    async fn yardsticks(&mut self) -> Outcome<Values>;
}

/// A line of the table.
pub(crate) struct Line {
    /// What is measured, in words.
    pub(crate) words: &'static str,
    /// Its name among a run's values.
    pub(crate) figure: &'static str,
    /// What its numbers are.
    pub(crate) unit: Unit,
    /// The yardstick's name among a run's values or the yardsticks, in words and figures.
    pub(crate) against: Option<&'static str>,
    /// Of the ratio to the yardstick; without one, of the figure itself.
    pub(crate) limit: Option<Limit>,
}

impl Line {
    /// A line that says a number and holds it against nothing.
    pub(crate) fn plain(words: &'static str, figure: &'static str, unit: Unit) -> Self {
        Self { words, figure, unit, against: None, limit: None }
    }

    /// The same, held against a yardstick.
    pub(crate) fn against(mut self, yardstick: &'static str) -> Self {
        self.against = Some(yardstick);
        self
    }

    /// The same, with a limit.
    pub(crate) fn limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// What must be reached.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    /// This or more.
    Least(f64),
    /// This or less.
    Most(f64),
}

impl Limit {
    /// Whether it is.
    pub(crate) fn reached(self, value: f64) -> bool {
        match self {
            Self::Least(least) => value >= least,
            Self::Most(most) => value <= most,
        }
    }
}

/// What a number counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// So many a second.
    PerSecond,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// Megabytes of 2^20 octets.
    Megabytes,
    /// A number of things.
    Count,
}

/// One run and what the yardsticks said around it.
pub(crate) struct Run {
    /// Its figures.
    pub(crate) values: Values,
    /// Right before it.
    pub(crate) before: Values,
    /// Right after it.
    pub(crate) after: Values,
}

impl Run {
    /// A yardstick over this run: the mean of before and after, or what the run itself measured.
    pub(crate) fn yardstick(&self, name: &str) -> Option<f64> {
        match (self.before.get(name), self.after.get(name)) {
            (Some(before), Some(after)) => Some(f64::midpoint(*before, *after)),
            _ => self.values.get(name).copied(),
        }
    }

    /// The name of a yardstick that drifted too far, and how far.
    fn drift(&self) -> Option<(&'static str, f64)> {
        // How long the slowest wait differs from run to run on the quietest machine.
        let mut steady =
            self.before.iter().filter(|(name, _)| !name.ends_with(" p50") && !name.ends_with(" p99"));
        steady.find_map(|(name, before)| {
            let after = self.after.get(name)?;
            let drift = (before - after).abs() / f64::midpoint(*before, *after);
            (drift > DRIFT).then_some((*name, drift))
        })
    }
}

/// All runs of a trial.
pub(crate) struct Measured {
    /// What was measured.
    pub(crate) name: String,
    /// What to show of it.
    pub(crate) lines: Vec<Line>,
    /// The runs that count, unless all are void.
    pub(crate) runs: Vec<Run>,
    /// How many were void.
    pub(crate) void: usize,
    /// Whether the runs above are void themselves, since none counts.
    pub(crate) all_void: bool,
}

/// Warms up, and measures so many runs.
pub(crate) async fn measure(trial: &mut impl Trial, runs: usize) -> Outcome<Measured> {
    let name = trial.name();
    println!("\n{name}: one run to warm up");
    said(&trial.run().await?);
    let mut before = trial.yardsticks().await?;
    let (mut counted, mut void) = (Vec::new(), Vec::new());
    while counted.len() < runs && counted.len() + void.len() < 2 * runs {
        println!("{name}: run {} of {runs}", counted.len() + 1);
        let values = trial.run().await?;
        said(&values);
        let after = trial.yardsticks().await?;
        let run = Run { values, before, after: after.clone() };
        before = after;
        match run.drift() {
            Some((yardstick, drift)) => {
                println!("  void: {yardstick} drifted by {:.0} %", drift * 100.0);
                void.push(run);
            }
            None => counted.push(run),
        }
    }
    let (void_count, all_void) = (void.len(), counted.is_empty());
    let runs = if all_void { void } else { counted };
    Ok(Measured { name, lines: trial.lines(), runs, void: void_count, all_void })
}

fn said(values: &Values) {
    let words: Vec<String> = values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
    println!("  {}", words.join(", "));
}
