//! Yardsticks: what this machine does at the same moment, by programs that others wrote.

use std::process::Command;
use std::time::Instant;

use super::Outcome;
use super::chain::CONNECTIONS;
use super::letter::FROM;
use super::machine::{on_core, output};
use super::people;
use super::postgres::Postgres;
use super::sink::Sink;
use super::stage::Stage;

/// Messages a second that Debian postfix's `smtp-source` gets into `smtp-sink`, each on a core of its own: the very octets
/// of our letter, over as many connections, each used again and again (`-d`). It does not pipeline.
pub(crate) fn smtp_source(stage: &Stage) -> Outcome<f64> {
    let messages = stage.yardstick_messages();
    let letter = stage.path("letter.eml");
    if !letter.exists() {
        output(Command::new(std::env::current_exe()?).args(["chain", "sample"]).arg(&letter))?;
    }
    let sink = Sink::pinned(stage.folder(), 0)?;
    let from = FROM.rsplit_once('<').map_or(FROM, |(_, from)| from.trim_end_matches('>'));
    let mut source = on_core(1, "smtp-source");
    source.args(["-d", "-s", &CONNECTIONS.to_string(), "-m", &messages.to_string(), "-F"]).arg(&letter);
    source.args(["-f", from, "-t", &people::address(0), &format!("127.0.0.1:{}", sink.port())]);
    let begun = Instant::now();
    output(&mut source)?;
    let took = begun.elapsed();
    let count = sink.count()?;
    if count != messages {
        return Err(format!("smtp-source sent {messages} messages and smtp-sink took {count}").into());
    }
    Ok(messages as f64 / took.as_secs_f64())
}

/// Signatures a second of `openssl speed -multi 2` with this algorithm: the last line's last number but one.
pub(crate) fn openssl(algorithm: &str) -> Outcome<f64> {
    let mut openssl = Command::new("openssl");
    let said = output(openssl.args(["speed", "-seconds", "3", "-multi", "2", algorithm]))?;
    let numbers = said.lines().rev().find(|line| line.contains("bits")).unwrap_or_default();
    let numbers: Vec<f64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [.., signs, _verifies] => Ok(signs),
        _ => Err(format!("openssl speed said {said:?}").into()),
    }
}

/// Rows that PostgreSQL commits a second, one by one, at 32 clients.
pub(crate) fn single_rows(server: &Postgres) -> Outcome<f64> {
    server.psql("postgres", "DROP TABLE IF EXISTS single_rows")?;
    server
        .psql("postgres", "CREATE TABLE single_rows (id bigserial PRIMARY KEY, at timestamptz, what text)")?;
    let script = server.folder().join("single_rows.sql");
    std::fs::write(&script, "INSERT INTO single_rows (at, what) VALUES (now(), 'a row of some words');\n")?;
    let mut pgbench = server.client("pgbench", "postgres");
    pgbench.args(["-n", "-M", "prepared", "-c", "32", "-j", "2", "-T", "5", "-f"]).arg(&script);
    rate_of(&output(&mut pgbench)?)
}

/// Rows a second that COPY writes into a table with a primary key.
pub(crate) fn copied_rows(server: &Postgres, rows: u64) -> Outcome<f64> {
    server.psql("postgres", "DROP TABLE IF EXISTS copied_rows")?;
    server.psql("postgres", "CREATE TABLE copied_rows (id bigint PRIMARY KEY, address text, name text)")?;
    let file = server.folder().join("copied_rows.csv");
    let lines: Vec<String> =
        (0..rows).map(|n| format!("{n},{},{}\n", people::address(n), people::name(n))).collect();
    std::fs::write(&file, lines.concat())?;
    let took = server.timed("postgres", &format!("\\copy copied_rows FROM '{}' CSV", file.display()))?;
    server.psql("postgres", "DROP TABLE copied_rows")?;
    std::fs::remove_file(file)?;
    Ok(rows as f64 / took.as_secs_f64())
}

/// Transactions a second, as pgbench says.
pub(crate) fn rate_of(said: &str) -> Outcome<f64> {
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.and_then(|rate| rate.split_whitespace().next()).and_then(|rate| rate.parse().ok());
    rate.ok_or_else(|| format!("pgbench said {said:?}").into())
}
