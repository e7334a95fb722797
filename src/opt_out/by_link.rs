//! What a link in a message opts out of, whichever way it is followed. Pure.

use super::form::AskedScope;
use super::{Channel, OptOut, Scope};
use crate::brand::Brand;
use crate::link::Link;

/// Who is recorded: whoever holds the link.
pub(crate) const ACTOR: &str = "link";

/// What one click in a mail of this brand covers.
pub(crate) fn one_click_scope(brand: &Brand) -> AskedScope {
    AskedScope::from_word(&brand.one_click_scope).unwrap_or(AskedScope::All)
}

/// What an opt-out through this link covers: what is asked, and always the topic of the message.
pub(crate) fn scopes(link: &Link, asked: AskedScope) -> Vec<Scope> {
    let topic = Scope::Topic(link.brand, link.topic);
    match asked {
        AskedScope::All => vec![Scope::All, topic],
        AskedScope::Brand => vec![Scope::Brand(link.brand), topic],
        AskedScope::Topic => vec![topic],
    }
}

/// The opt-out to be recorded.
pub(crate) fn opt_out(link: &Link, asked: AskedScope, channel: Channel) -> OptOut {
    OptOut {
        address_hash: link.address_hash.clone(),
        scopes: scopes(link, asked),
        channel,
        complaint: false,
        note: None,
        requested_at: None,
        delivery: Some(link.delivery),
        actor: ACTOR.to_owned(),
    }
}
