//! Campaigns: a marketer's mailing, from its draft to its last message.
//!
//! A campaign promises that each person is written to once, however often its lines are uploaded, its steps are
//! repeated or workers compete: the unique pair of mailing and recipient carries it. It decides about nobody: people who
//! opted out get their delivery like everyone else, and the worker decides right before the hand-over.
//!
//! What may be sent is frozen at the start, and what waits is *held*: deliveries of a draft, a scheduled, a paused or a
//! cancelled campaign point to content that no worker claims from.

pub mod api;
mod draft;
mod life;
pub mod rows;
pub mod worker;

pub use draft::{CampaignError, Draft, Flaw};
pub use life::{Change, State, WrongState};
