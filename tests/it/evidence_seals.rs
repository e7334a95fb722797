//! The seals on chains of evidence: what was begun before there were any gets one, and none that is taken away is forgotten.

use std::path::Path;

use sea_orm::{ConnectionTrait as _, Statement};

use crate::evidence::{command, run_sql, told};
use crate::evidence_tables::{answer, recorded, whole};
use crate::harness::{Database, Tidings, eventually, said};

const NOT_YET: &str = "not sealed yet";
const BROKEN: &str = "the seal on its head is missing or wrong";
const NO_SEALS: &str = "UPDATE evidence_heads SET seal = NULL";
const NOT_DONE: &str = "DELETE FROM settings WHERE name = 'evidence_sealed'";
const LATER: &str =
    "UPDATE seaql_migrations SET applied_at = applied_at + 1000000 WHERE version = 'm0011_evidence'";

/// Waits until a server that started has sealed what was to be sealed.
async fn looked_after(tidings: &Tidings) {
    eventually("a look at seals", async || {
        let db = &tidings.app().db;
        let sql = "SELECT name FROM settings WHERE name = 'evidence_sealed'";
        let found = db.reads().query_one_raw(Statement::from_string(db.backend(), sql)).await;
        found.unwrap().map(|_| ())
    })
    .await;
}

/// What `evidence verify` says when it finds the seal broken.
#[track_caller]
fn broken(tidings: &Tidings, folder: &Path) -> String {
    let found = command(tidings, folder, &["evidence", "verify"]);
    let words = said(&found);
    assert!(found.status.code() == Some(1) && words.contains(BROKEN) && !words.contains(NOT_YET), "{words}");
    words
}

on_both! {
    async fn evidence_from_before_there_were_seals_is_sealed_once_when_a_server_starts(database: Database) {
        let mut tidings = Tidings::start(database).await;
        let notice = told(&tidings).await;
        recorded(&tidings).await;
        looked_after(&tidings).await;
        let here = tempfile::tempdir().unwrap();
        run_sql(&tidings, &[NOT_DONE, NO_SEALS, LATER]).await;
        whole(&tidings, here.path(), NOT_YET);
        // What is added meanwhile makes it no more and no less.
        answer(&tidings, "p0@people.example.com", "decline").await;
        whole(&tidings, here.path(), NOT_YET);
        let exported = command(&tidings, here.path(), &["evidence", "export", "--notice", &notice]);
        assert!(exported.status.success(), "{}", said(&exported));

        tidings.restart_with(|_| ()).await;
        looked_after(&tidings).await;
        let found = command(&tidings, here.path(), &["evidence", "verify"]);
        assert!(found.status.success() && !said(&found).contains(NOT_YET), "{}", said(&found));
        let audit = tidings.get("/audit").await.ok();
        assert!(audit["items"].as_array().unwrap().iter().any(|one| one["action"] == "notice.sealed"), "{audit}");

        run_sql(&tidings, &[NO_SEALS]).await;
        broken(&tidings, here.path());
        tidings.restart_with(|_| ()).await;
        looked_after(&tidings).await;
        answer(&tidings, "p3@people.example.com", "approve").await;
        broken(&tidings, here.path());
        tidings.stop().await;
    }

    async fn a_chain_that_breaks_is_not_sealed_and_one_with_seals_since_its_beginning_neither(database: Database) {
        let mut tidings = Tidings::start(database).await;
        told(&tidings).await;
        recorded(&tidings).await;
        looked_after(&tidings).await;
        let here = tempfile::tempdir().unwrap();
        // Whoever takes away the row of it too is told from an older installation by the age of the chain.
        run_sql(&tidings, &[NOT_DONE, NO_SEALS]).await;
        broken(&tidings, here.path());
        tidings.restart_with(|_| ()).await;
        looked_after(&tidings).await;
        broken(&tidings, here.path());

        run_sql(&tidings, &[NOT_DONE, LATER, "UPDATE evidence SET body = body || ' ' WHERE seq = 5"]).await;
        tidings.restart_with(|_| ()).await;
        looked_after(&tidings).await;
        assert!(broken(&tidings, here.path()).contains("entry 5 was changed"));
        tidings.stop().await;
    }

    async fn who_cuts_off_the_end_of_a_chain_is_found_out_after_more_was_added_too(database: Database) {
        let tidings = Tidings::start(database).await;
        told(&tidings).await;
        recorded(&tidings).await;
        let here = tempfile::tempdir().unwrap();
        run_sql(&tidings, &[
            "DELETE FROM evidence WHERE seq = 8",
            "DELETE FROM evidence WHERE seq > 8",
            "UPDATE evidence_heads SET seq = 7, hash = (SELECT hash FROM evidence WHERE seq = 7)",
        ]).await;
        broken(&tidings, here.path());
        answer(&tidings, "p0@people.example.com", "decline").await;
        answer(&tidings, "p3@people.example.com", "approve").await;
        broken(&tidings, here.path());
        tidings.stop().await;
    }
}
