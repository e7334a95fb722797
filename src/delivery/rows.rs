//! Deliveries in the database: enqueued, claimed, begun, settled, looked at.

mod enqueue;
mod entities;
mod hold;
mod look;
mod mailing;
mod single;
mod view;

pub use enqueue::{cancel_some, enqueue, expire_some, retry_failed};
pub use entities::delivery;
pub use hold::{Attempt, Claimed, Fate, begin, claim, claimed_by, give_back, renew, settle};
pub use look::{Covered, InFlight, Look, look, take_back};
pub use mailing::{delete_some, is_settled, move_deadline};
pub use single::{Single, SingleError, accept, data_of, forecast, rehearse};
pub use view::{
    AttemptView, DeliveryFilter, DeliveryView, beat, counts, get, last_beat, list, suppressed_by,
};
