//! The limit that a campaign sets itself, over HTTP.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::delivery::limit::{Limit, Rate};
use crate::web::{FieldError, check, whole, whole_or_none};

/// Longest window in seconds: a week.
const MAX_SECONDS: u32 = 604_800;
/// Most messages in a window, and under way at once.
const MAX_MESSAGES: u32 = 1_000_000_000;
const MAX_CONNECTIONS: u32 = 10_000;

/// How fast a campaign may go at most, over all workers.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CampaignLimit {
    /// At most so many messages in any `per_seconds` seconds.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    #[serde(deserialize_with = "whole")]
    messages: u32,
    /// The length of the window in seconds, at most a week.
    #[schema(minimum = 1, maximum = 604_800)]
    #[serde(deserialize_with = "whole")]
    per_seconds: u32,
    /// At most so many messages under way at once.
    #[serde(default, deserialize_with = "whole_or_none")]
    #[schema(minimum = 1, maximum = 10_000)]
    connections: Option<u32>,
}

impl CampaignLimit {
    /// What it means; what is wrong with it goes to `errors`.
    pub(super) fn checked(self, errors: &mut Vec<FieldError>) -> Limit {
        let mut within = |pointer: &str, value: u32, most: u32| {
            if value == 0 || value > most {
                check::wrong(pointer, format!("must be from 1 to {most}"), errors);
            }
        };
        within("/limit/messages", self.messages, MAX_MESSAGES);
        within("/limit/per_seconds", self.per_seconds, MAX_SECONDS);
        within("/limit/connections", self.connections.unwrap_or(1), MAX_CONNECTIONS);
        let window = Duration::from_secs(u64::from(self.per_seconds));
        Limit {
            rate: Some(Rate { messages: self.messages, window }),
            at_once: self.connections,
            warm_up: None,
        }
    }

    /// What the database keeps, as it was given.
    pub(super) fn of(limit: &Limit) -> Option<Self> {
        let rate = limit.rate?;
        Some(Self {
            messages: rate.messages,
            per_seconds: u32::try_from(rate.window.as_secs()).unwrap_or(MAX_SECONDS),
            connections: limit.at_once,
        })
    }
}
