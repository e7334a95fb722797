//! `tidings demo`: the main job from an empty folder, and each way in which it must not succeed.

use std::process::Output;
use std::time::{Duration, Instant};

use tidings::config::NAMES;

use crate::harness::{Act, SmtpServer, Stage, program, said};

async fn demo(arguments: &[&str]) -> (Output, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["demo", "--exit"]).args(arguments).current_dir(folder.path());
    // Settings of another Tidings, all unusable: the demo must not read them.
    std::fs::write(folder.path().join("tidings.toml"), "nonsense = ").unwrap();
    for name in NAMES {
        command.env(format!("TIDINGS_{}", name.to_ascii_uppercase()), "nonsense");
    }
    let began = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let took = began.elapsed();
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tidings.toml"], "the demo must leave nothing behind");
    (output, took)
}

fn fails_at(output: &Output, step: &str) {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains(&format!("({step})")), "{}", said(output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_holds_from_an_empty_folder_within_30_seconds() {
    let (output, took) = demo(&[]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(said(&output).contains("Every step held"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_refuses_ends_it_with_the_steps_name() {
    let smtp = SmtpServer::start().await;
    smtp.on(Stage::Greeting, Act::reply_and_hang_up(554, "5.7.1 not you"));
    let (output, _) = demo(&["--relay", &smtp.url()]).await;
    fails_at(&output, "Start web service, worker and mailbox on SQLite");

    let smtp = SmtpServer::start().await;
    smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 not them"));
    let (output, _) = demo(&["--relay", &smtp.url()]).await;
    fails_at(&output, "Send a campaign to everyone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_hangs_up_ends_it_with_the_steps_name() {
    let smtp = SmtpServer::start().await;
    smtp.on(Stage::FinalDot, Act::HangUp);
    let (output, _) = demo(&["--relay", &smtp.url()]).await;
    fails_at(&output, "Send a campaign to everyone");

    let smtp = SmtpServer::start().await;
    smtp.on(Stage::Greeting, Act::HangUp);
    let (output, took) = demo(&["--relay", &smtp.url()]).await;
    fails_at(&output, "Send a campaign to everyone");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_ends_it_with_the_steps_name() {
    // Nobody can write there, not even root.
    let (output, _) = demo(&["--folder", "/proc"]).await;
    fails_at(&output, "Find a folder");
}
