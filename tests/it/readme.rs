//! The README's commands, taken from its text and run against a real process.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Database, Process, source, wait_until};

/// The shell blocks that stand under a `<!-- run -->` mark.
fn marked_blocks() -> Vec<String> {
    let readme = fs::read_to_string(source().join("README.md")).unwrap();
    let blocks: Vec<String> = readme
        .split("<!-- run -->\n```sh\n")
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap().to_owned())
        .collect();
    assert!(blocks.len() >= 2, "README.md has lost its marks");
    blocks
}

on_both! {
    async fn the_commands_of_the_readme_do_what_it_says(database: Database) {
        let process = Process::serve(&database, &[], &[]).await;
        let folder = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_tidings")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let base = process.api.base.clone();
        let script = format!("set -euo pipefail\n{}", marked_blocks().join("\n"));
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(script).current_dir(folder.path()).env_clear();
        bash.env("PATH", path).env("TIDINGS", &base).env("KEY", crate::harness::ADMIN_KEY);
        bash.env("TIDINGS_DATABASE_URL", database.url()).env("TIDINGS_LINK_KEYS", crate::harness::LINK_KEYS);
        let output = tokio::task::spawn_blocking(move || bash.output().unwrap()).await.unwrap();
        let said = crate::harness::said(&output);
        assert!(output.status.success(), "{said}\n{}", process.logs());
        assert!(said.contains("\"decision\":\"suppress\""), "the telephone call must count: {said}");
        assert!(said.contains("suppress: "), "the command line must count: {said}");

        wait_until("Ann's service message in the mailbox", async || {
            let listing = process.api.page("/mailbox/messages.json?q=ann@example.com").await.ok();
            let items = listing["items"].as_array().cloned().unwrap_or_default();
            items.iter().any(|item| item["subject"] == "A new device signed in")
        })
        .await;
    }
}
