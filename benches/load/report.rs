//! The table at the end.

use super::measure::{Limit, Line, Measured, Run, Unit};

/// Prints one line a figure.
pub(crate) fn print(all: &[Measured]) {
    let head = ["figure", "median [range]", "yardstick before / after", "ratio [range]", "limit", ""];
    let mut rows: Vec<[String; 6]> = vec![head.map(str::to_owned)];
    for measured in all {
        rows.extend(measured.lines.iter().map(|line| row(measured, line)));
    }
    let widths: [usize; 6] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    println!();
    for (n, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if n == 0 {
            println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
        }
    }
}

fn row(measured: &Measured, line: &Line) -> [String; 6] {
    let runs = &measured.runs;
    let values: Vec<f64> = runs.iter().filter_map(|run| run.values.get(line.figure).copied()).collect();
    let shown = Spread::of(values).map_or("not measured".to_owned(), |spread| spread.words(line.unit));
    let mut row = [
        format!("{}: {}", measured.name, line.words),
        shown,
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    ];
    let mut judged = runs.iter().filter_map(|run| run.values.get(line.figure).copied()).collect::<Vec<_>>();
    if let Some(name) = line.against {
        row[2] = around(runs, name, line.unit);
        judged =
            runs.iter().filter_map(|run| Some(run.values.get(line.figure)? / run.yardstick(name)?)).collect();
        row[3] = Spread::of(judged.clone()).map_or(String::new(), |ratio| {
            format!("{:.3} [{:.3}, {:.3}]", ratio.median, ratio.least, ratio.most)
        });
    }
    if let (Some(limit), Some(spread)) = (line.limit, Spread::of(judged)) {
        let shown =
            |limit| if line.against.is_some() { format!("{limit}") } else { number(limit, line.unit) };
        row[4] = match limit {
            Limit::Least(least) => format!("at least {}", shown(least)),
            Limit::Most(most) => format!("at most {}", shown(most)),
        };
        row[5] = if limit.reached(spread.median) { "reached" } else { "NOT REACHED" }.to_owned();
    }
    if measured.all_void {
        row[5] = format!("{} (VOID: yardsticks drifted)", row[5]);
    } else if measured.void > 0 {
        row[5] = format!("{} ({} runs, {} void)", row[5], runs.len(), measured.void);
    }
    row
}

/// A yardstick before and after, or as the runs measured it themselves.
fn around(runs: &[Run], name: &str, unit: Unit) -> String {
    let median = |values: Vec<f64>| Spread::of(values).map(|spread| number(spread.median, unit));
    let before = median(runs.iter().filter_map(|run| run.before.get(name).copied()).collect());
    let after = median(runs.iter().filter_map(|run| run.after.get(name).copied()).collect());
    let during = median(runs.iter().filter_map(|run| run.values.get(name).copied()).collect());
    match (before, after, during) {
        (Some(before), Some(after), _) => format!("{name} {before} / {after}"),
        (_, _, Some(during)) => format!("{name} {during}"),
        _ => name.to_owned(),
    }
}

struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            f64::midpoint(*values.get(middle - 1)?, *values.get(middle)?)
        };
        Some(Self { median, least, most })
    }

    fn words(&self, unit: Unit) -> String {
        format!("{} [{}, {}]", number(self.median, unit), bare(self.least, unit), bare(self.most, unit))
    }
}

fn number(value: f64, unit: Unit) -> String {
    let name = match unit {
        Unit::PerSecond => "/s",
        Unit::Micros => " us",
        Unit::Millis => " ms",
        Unit::Seconds => " s",
        Unit::Megabytes => " MB",
        Unit::Count => "",
    };
    format!("{}{name}", bare(value, unit))
}

fn bare(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond | Unit::Megabytes | Unit::Count => format!("{value:.0}"),
        Unit::Micros | Unit::Millis => format!("{value:.1}"),
        Unit::Seconds => format!("{value:.3}"),
    }
}
