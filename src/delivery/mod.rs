//! Deliveries: one message to one recipient, a row from the first moment to the last.
//!
//! ```text
//!            ┌────────────── deferred, not sent, given back ──────────────┐
//!            ▼                                                            │
//! queued ──claim──▶ sending ──begin──▶ (begun) ──hand-over──▶ settle ─────┤
//!   │                  │                                                  ├──▶ sent
//!   │                  └── decision says no ──▶ suppressed                ├──▶ failed
//!   ├── cancelled                                                         └──▶ unknown
//!   └── expired
//! ```
//!
//! What the relay took over may come back ([`bounce`]): the delivery stays `sent` and carries its bounce beside it.
//!
//! A delivery that was once in doubt keeps the mark: it never ends as plainly refused or suppressed, but as `unknown`.
//! Nothing here knows campaigns or notices; a row carries the id of frozen content. Only [`worker`] sends.

pub mod api;
pub mod bounce;
pub mod fate;
pub mod limit;
pub mod retry;
pub mod rows;
mod state;
pub mod worker;

pub use state::{Counts, State};

use sea_orm::JsonValue;

use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::decision::Class;
use crate::id::{BrandId, ContentId, DeliveryId, MailingId, RecipientId, TopicId};
use crate::message::Frozen;

/// What the deliveries of one enqueueing have in common.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The frozen (or, while a campaign is a draft, still held) content.
    pub content: ContentId,
    /// The campaign or notice that reaches a person only once; none for a single message.
    pub mailing: Option<MailingId>,
    /// The sender.
    pub brand: BrandId,
    /// The stream of messages.
    pub topic: TopicId,
    /// The topic's class.
    pub class: Class,
    /// After this moment it is not sent any more.
    pub not_after: Option<Timestamp>,
}

/// A delivery to be made.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// To whom.
    pub recipient: RecipientId,
    /// The hash of their address.
    pub address_hash: AddressHash,
    /// What is laid over the content's data, key by key; an object.
    pub data: Option<JsonValue>,
}

/// Does work with this content. What may keep a thread busy for long does not keep other tasks waiting for the thread: an
/// opt-out must be answered whatever template is rendered meanwhile.
fn aside<T>(content: &Frozen, work: impl FnOnce() -> T) -> T {
    if content.is_heavy() { off_the_way(work) } else { work() }
}

/// Does heavy work so that no other task waits for its thread.
fn off_the_way<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let many_threads =
        Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if many_threads { tokio::task::block_in_place(work) } else { work() }
}
