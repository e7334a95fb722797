//! Deliveries in the database: enqueued, claimed, begun, settled, looked at.
//!
//! | table | holds | written by |
//! |---|---|---|
//! | `deliveries` | the record: one row a message from the first moment to the last | enqueueing, and the end of an attempt |
//! | `queue` | what is unfinished: queued, or sending under a claim's token | everything here |
//! | `leases` | one row a claim: until when it counts, and what it took | claims |
//! | `doubts` | hand-overs whose outcome is unknown and that may still reach the relay | the end of an attempt |
//! | `limits`, `permits`, … | what was used of each limit, and who waits for it ([`limits`]) | a worker that asks |
//! | `bounces` | what came back after the relay took it over: the first report of a delivery | the intake |
//! | `tally` | how many deliveries of a content are in which state | everything here, last in its transaction |

mod bounces;
mod claim;
mod enqueue;
mod entities;
mod fan_out;
pub mod limits;
pub mod lines;
mod look;
mod mailing;
mod single;
mod tally;
mod turn;
mod view;

use sea_orm::DbBackend;

pub use bounces::{Bounced, record_bounce};
pub use claim::{Ask, Claimed, Lane, Trail, claim, claimed_by, end_overdue, give_back, load, release, renew};
pub use enqueue::{cancel_some, enqueue, expire_some, reopen_suppressed, retry_failed};
pub use fan_out::enqueue_selected;
pub use look::{Covered, InFlight, Look, look, take_back, unfinished_among};
pub use mailing::{Mailing, delete_some, move_deadline};
pub use single::{Single, SingleError, accept, data_of, forecast, rehearse};
pub use tally::{Depth, any_untried, counts, depths, is_settled, suppressed_by};
pub use turn::{Attempt, Beginning, Fate, Proof, Settling, Turn, begin, settle, turn};
pub use view::{
    AttemptView, BounceView, DeliveryFilter, DeliveryView, anything_waits, beat, get, handed_over, last_beat,
    list, these,
};

/// `FOR UPDATE SKIP LOCKED` where there are row locks; SQLite has one writer at a time.
fn skip_locked(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Postgres { " FOR UPDATE SKIP LOCKED" } else { "" }
}

/// `FOR UPDATE OF table` where there are row locks.
fn lock_of(backend: DbBackend, table: &str) -> String {
    if backend == DbBackend::Postgres { format!(" FOR UPDATE OF {table}") } else { String::new() }
}
