//! Tidings sends the mail that people must get and stops the mail that people refuse.
//!
//! One program: a worker that hands policy notices, service messages and marketing mail to an SMTP relay, and a small web
//! service that records opt-outs and, from that moment, keeps every message that can be refused from who made them.
//!
//! # Promises
//!
//! Each is tested by its number in `tests/it/promises.rs` or beside the code that keeps it.
//!
//! 1. **An opt-out's answer is a fence.** Answered with success, it is committed, and no worker on any machine begins
//!    (writes MAIL for) a message within its scope afterwards, through crash and restart. Messages already begun are
//!    waited for, up to a bound. `settled: true` means that none reaches the relay after the answer; `settled: false`
//!    names those still open or in doubt. The guarantee ends at the relay. ([`fence`])
//! 2. **What can be refused at most once; the service side at least once.** When the outcome of a hand-over stays
//!    unknown, the class decides: relationship, reminder and marketing are never tried again and counted `unknown`;
//!    requested, service and notice are tried again with the same Message-ID. In no other case is anything sent twice,
//!    and nothing accepted leaves the counts. ([`delivery`])
//! 3. **Whoever must be told is told, or is on a list.** A notice reaches everyone of the brand at its start and everyone
//!    who joins before the change takes effect, opted out or not; whoever cannot be reached is named in time for another
//!    way. Nobody who was addressed drops out of the counts. ([`notice`], [`delivery`], [`decision`])
//! 4. **`GET` and `HEAD` change nothing about a person**, since mail scanners follow every link. Links can be used
//!    again and again. ([`opt_out`])
//! 5. **Unsubscribe links work for ever.** A token carries what it needs and depends on no row that is ever deleted;
//!    keys rotate in a ring. Links by which a change is approved show the current version once another one has taken its
//!    place. ([`link`])
//! 6. **Forgetting a person does not forget their no.** What is kept about a refusal is kept under a keyed hash of the
//!    address. ([`address`])
//! 7. **No import, API upsert or campaign line lifts an opt-out.** Only the person's own act does: on a page reached
//!    by their link, or an opt-in that an operator or administrator records with evidence. ([`opt_out`])
//! 8. **No success without a committed record.** When the store cannot commit the answer is 503 and the caller tries
//!    again. ([`db`])
//! 9. **No address in a link, a log line, a trace or a metric.** ([`telemetry`], [`link`])
//!
//! # The journey of a message
//!
//! ```text
//!  campaign ── start freezes content ──▶ deliveries, one row a person        campaign, message
//!  single message ─────────────────────▶ one delivery                         delivery
//!  policy ── publish freezes content ──▶ deliveries, one row a person         policy, notice
//!                                             │
//!                       claim ── committed ───┤                               delivery::rows
//!                       facts, read fresh ────┤                               opt_out::rows
//!                       decide ── no ─▶ suppressed, with the reason           decision
//!                       compose, sign links ──┤                               message, link
//!                       begin ── committed ───┤                               delivery::rows
//!                       SMTP, no lock held ───┤                               relay
//!                       settle ── committed ──┴─▶ sent · failed · unknown · queued again
//!
//!  recipient ── POST /u/{token} ──▶ record ── committed ──▶ take back, look, wait ──▶ answer      fence
//!  mail server ── report to b+…@ ──▶ bounce ── committed ──▶ 250                           intake, delivery
//! ```
//!
//! # Invariants
//!
//! * Only [`delivery::worker`] sends, and nothing is handed over without a [`decision::Clearance`], which only
//!   [`decision::decide`] makes, which names its delivery and which lapses with its lease.
//! * The service side never consults opt-outs.
//! * Events are never updated or deleted; erasure replaces an address by its keyed hash.
//! * Enqueueing happens in the transaction of the fact that causes it.
//! * No lock or transaction is held during SMTP.
//! * A delivery row exists for every person addressed, suppressed ones included.
//!
//! # The house
//!
//! One folder for each idea, and inside it the file's name says what may be done there: `rows` alone speaks SQL, `api`
//! JSON, `pages` HTML, `worker` loops; the rest is pure. Ideas import only those before them, in the order below;
//! `api`, `pages`, `worker` and [`cli`] may use any idea but never one another's.

pub mod app;
pub mod clock;
pub mod colour;
pub mod config;
pub mod db;
pub mod guesses;
pub mod id;
pub mod language;
pub mod receiver;
pub mod telemetry;
pub mod under_way;
pub mod word;

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

pub mod policy;

pub mod notice;

pub mod access;
pub mod cli;
pub mod intake;
pub mod mailbox;
pub mod serve;
pub mod web;

#[path = "../migrations/mod.rs"]
mod migrations;
