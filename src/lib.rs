//! Tidings sends the mail that people must get and stops the mail that people refuse.

pub mod app;
pub mod clock;
pub mod config;
pub mod db;
pub mod id;
pub mod telemetry;

pub mod address;
pub mod decision;
pub mod link;

pub mod brand;
pub mod recipient;

pub mod opt_out;

pub mod message;
pub mod relay;

pub mod delivery;
pub mod fence;

pub mod campaign;

pub mod access;
pub mod cli;
pub mod mailbox;
pub mod serve;
pub mod web;

#[path = "../migrations/mod.rs"]
mod migrations;
