//! What the journeys stand on: a database of their own, Tidings in this process or as a process of its own, an HTTP
//! client, captured mail, waiting for a condition instead of sleeping.
#![expect(dead_code, reason = "each journey uses a part of it")]

mod api;
mod database;
mod postfix;
mod postgres;
mod process;
pub(crate) mod readers;
mod smtp;
mod swaks;
mod tidings;
pub(crate) mod tools;
mod wait;

pub(crate) use self::tidings::{Tidings, one_click_link};
pub(crate) use api::{Answer, Api};
pub(crate) use database::{ADMIN_KEY, Database, LINK_KEYS};
pub(crate) use postfix::Postfix;
pub(crate) use postgres::PostgresServer;
pub(crate) use process::{Process, free_address, run_in, said, send_signal, source, tidings as program};
pub(crate) use smtp::{Act, Gate, Mood, Options, Pace, SmtpServer, Stage, Transaction};
pub(crate) use swaks::{UnsubscribeMail, swaks};
pub(crate) use wait::{eventually, eventually_within, wait_until};

/// Makes each journey a module of two tests, `on_sqlite` and `on_postgres`.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($database:ident: Database) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn journey($database: Database) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                journey(Database::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                journey(Database::postgres().await).await;
            }
        }
    )*};
}
