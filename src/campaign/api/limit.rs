//! The limit that a campaign sets itself, over HTTP.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::delivery::limit::{Limit, Rate};
use crate::web::{FieldError, check};

/// Longest window in seconds: a week.
const MAX_SECONDS: u32 = 604_800;
/// Most messages in a window, and under way at once.
const MAX_MESSAGES: u32 = 1_000_000_000;
const MAX_CONNECTIONS: u32 = 10_000;

/// How fast a campaign may go at most, over all workers: messages in any window of so many seconds, messages under way
/// at once, or both.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CampaignLimit {
    /// At most so many messages in any `per_seconds` seconds; given with it or not at all.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    messages: Option<u32>,
    /// The length of the window in seconds, at most a week.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 604_800)]
    per_seconds: Option<u32>,
    /// At most so many messages under way at once.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 10_000)]
    connections: Option<u32>,
}

impl CampaignLimit {
    /// What it means; what is wrong with it goes to `errors`.
    pub(super) fn checked(self, errors: &mut Vec<FieldError>) -> Limit {
        let within = |pointer: &str, value: Option<u32>, most: u32, errors: &mut Vec<FieldError>| {
            if value.is_some_and(|value| value == 0 || value > most) {
                check::wrong(pointer, format!("must be from 1 to {most}"), errors);
            }
        };
        within("/limit/messages", self.messages, MAX_MESSAGES, errors);
        within("/limit/per_seconds", self.per_seconds, MAX_SECONDS, errors);
        within("/limit/connections", self.connections, MAX_CONNECTIONS, errors);
        match (self.messages, self.per_seconds) {
            (Some(_), None) => check::wrong("/limit/per_seconds", "is missing; messages needs it", errors),
            (None, Some(_)) => check::wrong("/limit/messages", "is missing; per_seconds needs it", errors),
            (None, None) if self.connections.is_none() => {
                check::wrong("/limit", "must say messages and per_seconds, connections, or both", errors);
            }
            _ => {}
        }
        Limit {
            rate: self.messages.zip(self.per_seconds).map(|(messages, seconds)| Rate {
                messages,
                window: Duration::from_secs(u64::from(seconds)),
            }),
            at_once: self.connections,
            warm_up: None,
        }
    }

    /// What the database keeps, as it was given.
    pub(super) fn of(limit: &Limit) -> Self {
        Self {
            messages: limit.rate.map(|rate| rate.messages),
            per_seconds: limit.rate.and_then(|rate| u32::try_from(rate.window.as_secs()).ok()),
            connections: limit.at_once,
        }
    }
}
