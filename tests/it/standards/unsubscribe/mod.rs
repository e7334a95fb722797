//! One-click unsubscribe (U).

mod by_mail;
mod click;
mod fields;
mod lasting;
mod page;
mod scanners;
mod token;
mod visible;

use crate::harness::Tidings;
use crate::promises::count;

/// How many rows each table has that says something about people.
async fn rows_about_people(tidings: &Tidings) -> Vec<(&'static str, i64)> {
    let mut rows = Vec::new();
    for table in ["opt_events", "suppressions", "addresses", "recipients", "deliveries", "attempts", "audit"]
    {
        rows.push((table, count(tidings, table).await));
    }
    rows
}

/// `send` or `suppress`: what the worker would do.
async fn decision(tidings: &Tidings, brand: &str, topic: &str, email: &str) -> String {
    let said = tidings.get(&format!("/explain?email={email}&brand={brand}&topic={topic}")).await.ok();
    said["decision"].as_str().unwrap().to_owned()
}
