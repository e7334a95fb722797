//! What a statement costs does not grow with what lies in the tables: no statement of sending, opting out or looking on
//! reads a table from end to end.
//!
//! A program with every part at work is told on by its own database handle: each statement that it runs is planned
//! again, for any values, and its plan looked at.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::{Value, json};
use tidings::config::{LimitEntry, Limited};
use tidings::db::Observer;
use tidings::serve::Parts;

use crate::bounces::{Report, sender_of};
use crate::harness::{Act, Database, Gate, Stage, Tidings, wait_until};
use crate::intake::takes_mail;

/// The tables that grow with people and messages.
const LARGE: [&str; 15] = [
    "deliveries",
    "queue",
    "permits",
    "attempts",
    "doubts",
    "tally",
    "contents",
    "recipients",
    "recipient_brands",
    "addresses",
    "opt_events",
    "suppressions",
    "evidence",
    "evidence_due",
    "bounces",
];

/// Parts of statements that are rare, each of which must have been heard of.
const HEARD: [(&str, &str); 16] = [
    ("a permit is asked for", "INSERT INTO permits"),
    ("permits end", "DELETE FROM permits"),
    ("what finds no room is set aside", "aside = l.name"),
    ("it is called up", "UPDATE queue SET aside = NULL"),
    ("is there anybody who waits", "SELECT 1 AS one FROM queue WHERE aside = $1"),
    ("a deadline moves", "UPDATE queue SET not_after"),
    ("what failed or expired is opened again", "AND unsent = $2"),
    ("it is queued again", "INSERT INTO queue"),
    ("what is cancelled ends", "q.token IS NULL AND q.content_id = $1"),
    ("what ended is put into evidence", "DELETE FROM evidence_due"),
    ("what expires ends", "q.token IS NULL AND q.not_after <="),
    ("a message comes back", "INSERT INTO bounces"),
    ("who was not told is listed", "FROM bounces k JOIN"),
    ("and counted", "COUNT(*) AS n FROM bounces"),
    ("and told otherwise", "INSERT INTO \"notice_told\""),
    ("a withdrawal is told to who was told", "AND d.state IN ('sent', 'unknown')"),
];

/// Statements that go through a table on purpose, a bounded number of rows at a time, in the order of its key.
const PAGES: [&str; 0] = [];

on_both! {
    async fn no_statement_reads_a_large_table_from_end_to_end(database: Database) {
        let statements: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let told = statements.clone();
        let observer = Observer(Arc::new(move |sql| {
            told.lock().unwrap().insert(sql.to_owned());
        }));
        let parts = Parts { observer: Some(observer), ..Parts::default() };
        let tidings = Tidings::start_parts(database, parts, |settings| {
            let limited = Limited::Domains(vec!["slow.example.com".into()]);
            takes_mail(settings);
            settings.limits.push(LimitEntry { limited, rate: None, connections: Some(1), warm_up: None });
        })
        .await;
        leave_statistics_alone(&tidings).await;
        exercise(&tidings).await;
        limits_and_deadlines(&tidings).await;
        evidence(&tidings).await;
        for (what, part) in HEARD {
            wait_until(what, async || statements.lock().unwrap().iter().any(|sql| sql.contains(part))).await;
        }
        let statements: Vec<String> = statements.lock().unwrap().iter().cloned().collect();
        assert!(statements.len() > 60, "only {} statements were heard of", statements.len());
        let mut faults = Vec::new();
        for sql in statements.iter().filter(|sql| concerns_sending(sql)) {
            for fault in faults_of(&tidings, sql).await {
                faults.push(format!("{fault}\n    {sql}"));
            }
        }
        assert!(faults.is_empty(), "{} plans read too much:\n{}", faults.len(), faults.join("\n"));
        tidings.stop().await;
    }
}

/// Whatever PostgreSQL learnt of the few rows here while the test runs would make it prefer plans for few rows.
async fn leave_statistics_alone(tidings: &Tidings) {
    let db = &tidings.app().db;
    if db.backend() == DbBackend::Postgres {
        for table in LARGE {
            let sql = format!("ALTER TABLE {table} SET (autovacuum_enabled = false)");
            db.reads().execute_unprepared(&sql).await.unwrap();
        }
    }
}

/// Everything that happens while messages go out and people refuse them.
async fn exercise(tidings: &Tidings) {
    tidings.ready_to_send().await;
    tidings.recipients(30).await;
    tidings.smtp.on(Stage::Rcpt, Act::Reply(450, "4.2.1 later".into())).once();
    tidings.smtp.on(Stage::Rcpt, Act::Reply(550, "5.1.1 nobody there".into())).once();
    tidings.smtp.on(Stage::FinalDot, Act::HangUp).once();
    let campaign = tidings.draft("acme", "marketing").await;
    let path = format!("/campaigns/{campaign}");
    tidings.post_empty(&format!("{path}/start")).await.ok();
    tidings
        .campaign_when("has met a moody relay", &campaign, |campaign| campaign["counts"]["queued"] == 1)
        .await;
    tidings
        .post("/opt-outs", json!({ "email": "p5@people.example.com", "scope": "all", "channel": "phone" }))
        .await
        .is(201);
    tidings.advance(Duration::from_secs(120));
    tidings.finished(&campaign).await;
    for state in ["sent", "failed", "unknown", "queued", "sending", "suppressed"] {
        tidings.get(&format!("{path}/deliveries?state={state}")).await.ok();
    }
    tidings.get(&format!("{path}/deliveries")).await.ok();
    tidings.get(&path).await.ok();
    tidings.post_empty(&format!("{path}/retry")).await.ok();
    tidings.finished(&campaign).await;
    tidings.message("acme", "service", "p7@people.example.com").await;
    let again = tidings.send_to_all("acme", "marketing").await;
    assert!(again["counts"]["suppressed"].as_u64() > Some(0), "{again}");
    let id = tidings.recipient("p9@people.example.com").await;
    tidings.patch(&format!("/recipients/{id}"), json!({ "standing": "restricted" })).await.ok();
    tidings.get(&format!("/recipients/{id}/deliveries")).await.ok();
    tidings.get("/explain?email=p9@people.example.com&brand=acme&topic=marketing").await.ok();
    tidings.get("/opt-outs?email=p5@people.example.com").await.ok();
    let late = tidings.draft("acme", "marketing").await;
    tidings.patch(&format!("/campaigns/{late}"), json!({ "not_after": "2099-01-01T00:00:00Z" })).await.ok();
    tidings.delete(&format!("/campaigns/{late}")).await;
}

/// A destination that takes one message at a time, a deadline that passes and is moved, a campaign that is cancelled.
async fn limits_and_deadlines(tidings: &Tidings) {
    let gate = Gate::new();
    tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).to("p0@slow.example.com").once();
    let mut messages = Vec::new();
    for n in 0..4 {
        messages.push(tidings.message("acme", "service", &format!("p{n}@slow.example.com")).await);
        gate.reached().await;
    }
    gate.open();
    for message in &messages {
        assert_eq!(tidings.settled(message).await["state"], "sent");
    }
    let in_an_hour = |tidings: &Tidings| {
        let at = tidings.clock().now().plus(Duration::from_secs(3600));
        json!({ "not_after": at.to_string() })
    };
    let campaign = tidings.draft("acme", "relationship").await;
    let path = format!("/campaigns/{campaign}");
    let lines = "email\na@people.example.com\nb@people.example.com\n";
    tidings.patch(&path, in_an_hour(tidings)).await.ok();
    tidings.post_text(&format!("{path}/recipients"), "text/csv", lines).await.ok();
    tidings.advance(Duration::from_secs(2 * 3600));
    tidings.campaign_when("has expired", &campaign, |campaign| campaign["counts"]["expired"] == 2).await;
    tidings.patch(&path, in_an_hour(tidings)).await.ok();
    tidings.post_empty(&format!("{path}/cancel")).await.ok();
    tidings.campaign_when("is cancelled", &campaign, |campaign| campaign["counts"]["cancelled"] == 2).await;
}

/// A notice whose evidence is recorded, looked at and verified.
async fn evidence(tidings: &Tidings) {
    let notice = crate::evidence::told_to_all(tidings).await;
    let lines = tidings.get(&format!("/notices/{notice}/evidence")).await.is(200).text.clone();
    assert!(lines.lines().count() > 0);
    let whole = tidings::notice::rows::verify(&tidings.app().db, notice.parse().unwrap()).await.unwrap();
    whole.unwrap();
    let email = "p8@people.example.com";
    Report::nobody(email).send(tidings, &sender_of(tidings, email).await).await;
    let list = tidings.get(&format!("/notices/{notice}/unreachable")).await.ok();
    let recipient = list["items"].as_array().unwrap().iter().find(|one| one["reason"] == "bounced").unwrap();
    let recipient = recipient["recipient"].as_str().unwrap();
    tidings.get(&format!("/recipients/{recipient}/policies")).await.ok();
    tidings.get(&format!("/notices/{notice}")).await.ok();
    tidings
        .post(&format!("/notices/{notice}/told"), json!({ "recipient": recipient, "by": "letter" }))
        .await
        .ok();
    tidings.post(&format!("/notices/{notice}/withdraw"), json!({ "reason": "r" })).await.ok();
}

/// Whether a statement can be planned and is about the large tables; the schema's own history is not.
fn concerns_sending(sql: &str) -> bool {
    let lower = sql.to_lowercase();
    let planned = ["select", "insert", "update", "delete", "with"].iter().any(|word| lower.starts_with(word));
    let schema =
        ["seaql_migrations", "information_schema", "pg_", "sqlite_"].iter().any(|word| lower.contains(word));
    planned
        && !schema
        && LARGE.iter().any(|table| lower.contains(table))
        && !PAGES.iter().any(|page| sql.contains(page))
}

async fn faults_of(tidings: &Tidings, sql: &str) -> Vec<String> {
    let db = &tidings.app().db;
    if db.backend() == DbBackend::Sqlite {
        let explained = Statement::from_string(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = db.reads().query_all_raw(explained).await.unwrap();
        let steps = rows.iter().map(|row| row.try_get::<String>("", "detail").unwrap());
        let names = aliases(sql);
        return steps
            .filter(|step| {
                let mut words = step.split_whitespace();
                words.next() == Some("SCAN")
                    && words.next().is_some_and(|name| names.contains(&name.to_lowercase()))
            })
            .collect();
    }
    // A plan for any values, as a statement that was prepared long ago has; statistics of small tables play no part.
    let txn = db.begin().await.unwrap();
    let run = async |sql: String| txn.execute_unprepared(&sql).await.map(|_| ());
    run("SET LOCAL plan_cache_mode = force_generic_plan".into()).await.unwrap();
    run("SET LOCAL enable_seqscan = off".into()).await.unwrap();
    run(format!("PREPARE planned AS {sql}")).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
    let count = (1..).take_while(|n| sql.contains(&format!("${n}"))).count();
    let nulls = if count == 0 { String::new() } else { format!("({})", vec!["NULL"; count].join(", ")) };
    let explained = format!("EXPLAIN (FORMAT JSON) EXECUTE planned{nulls}");
    let row =
        txn.query_one_raw(Statement::from_string(DbBackend::Postgres, explained)).await.unwrap().unwrap();
    let plan: Value = row.try_get_by_index(0).unwrap();
    run("DEALLOCATE planned".into()).await.unwrap();
    txn.rollback().await.unwrap();
    let mut faults = Vec::new();
    walk(&plan[0]["Plan"], &mut faults);
    faults
}

fn walk(node: &Value, faults: &mut Vec<String>) {
    let table = node["Relation Name"].as_str().unwrap_or_default();
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let whole = match kind {
        "Seq Scan" => true,
        "Index Scan" | "Index Only Scan" => node["Index Cond"].is_null() && node["Order By"].is_null(),
        _ => false,
    };
    // A partial index that holds nothing but what is wanted is read whole: the few contents that are active.
    let narrow = node["Index Name"].as_str().is_some_and(|index| index == "contents_active");
    if whole && !narrow && LARGE.contains(&table) {
        faults.push(format!("{kind} of {table}"));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, faults);
    }
}

/// The names under which a statement speaks of the large tables.
fn aliases(sql: &str) -> BTreeSet<String> {
    let lower = sql.to_lowercase().replace(['"', '(', ')', ','], " ");
    let words: Vec<&str> = lower.split_whitespace().collect();
    let mut names = BTreeSet::new();
    for (n, word) in words.iter().enumerate().filter(|(_, word)| LARGE.contains(word)) {
        names.insert((*word).to_owned());
        let next = words.get(n + 1).copied().unwrap_or_default();
        let alias = if next == "as" { words.get(n + 2).copied().unwrap_or_default() } else { next };
        let keyword =
            ["where", "set", "on", "join", "left", "order", "limit", "select", "values", "using", "from"];
        if !alias.is_empty() && !keyword.contains(&alias) {
            names.insert(alias.to_owned());
        }
    }
    names
}
