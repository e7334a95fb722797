//! Files of people: the same ones every time.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::Outcome;

/// Somebody's address, the same for the same number.
pub(crate) fn address(n: u64) -> String {
    format!("reader.{n}@d{}.example.com", n % 5_000)
}

/// Somebody's name.
pub(crate) fn name(n: u64) -> String {
    format!("Reader Number {n}")
}

/// Where somebody lives.
pub(crate) fn city(n: u64) -> String {
    format!("City {}", n % 300)
}

/// A CSV file of so many lines of a campaign.
pub(crate) fn lines(folder: &Path, count: u64) -> Outcome<PathBuf> {
    written(folder, "lines.csv", "email,name,city,number", count, |n| {
        format!("{},{},{},{n}", address(n), name(n), city(n))
    })
}

/// A CSV file of so many recipients, each with the tag `news`.
pub(crate) fn recipients(folder: &Path, count: u64) -> Outcome<PathBuf> {
    written(folder, "people.csv", "email,name,locale,tags,city", count, |n| {
        format!("{},{},en,news;group-{},{}", address(n), name(n), n % 10, city(n))
    })
}

fn written(
    folder: &Path,
    name: &str,
    head: &str,
    count: u64,
    line: impl Fn(u64) -> String,
) -> Outcome<PathBuf> {
    let path = folder.join(name);
    let mut file = BufWriter::new(fs::File::create(&path)?);
    writeln!(file, "{head}")?;
    for n in 0..count {
        writeln!(file, "{}", line(n))?;
    }
    file.flush()?;
    Ok(path)
}
