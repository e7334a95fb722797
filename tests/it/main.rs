//! The integration tests: whole journeys over real HTTP and real SMTP, on both databases, in one binary.
//!
//! One file an area; each test is a sentence. [`on_both!`] runs a journey on SQLite and on PostgreSQL.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking; clippy knows only functions that are tests themselves"
)]

#[macro_use]
mod harness;

mod answers;
mod api;
mod approvals;
mod berths;
mod bounces;
mod campaigns;
mod chaos;
mod cli;
mod clients;
mod compose;
mod config;
mod crowd;
mod demo;
mod described;
mod evidence;
mod evidence_seals;
mod evidence_tables;
mod fence;
mod html_mail;
mod import;
mod intake;
mod languages;
mod limits;
mod logo;
mod mailbox;
mod message;
mod messages;
mod metrics;
mod notices;
mod opt_outs;
mod outage;
mod plans;
mod policies;
mod policy_pages;
mod processes;
mod promises;
mod quiet_logs;
mod readme;
mod recipients;
mod relay;
mod roles;
mod sending;
mod simulation;
mod site_notice;
mod standards;
mod stopping;
mod tidy;
mod two_people;
mod unsubscribe_page;
mod worker;
