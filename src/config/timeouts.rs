//! How long each step of a dialogue with the relay may take.

use std::time::Duration;

use super::ConfigError;
use super::sources::Sources;
use super::values::number;

/// How long each step of a dialogue may take. The defaults are those of RFC 5321 §4.5.3.2 where it names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `TIDINGS_RELAY_CONNECT_SECONDS`: opening the connection, and the TLS handshake.
    pub connect: Duration,
    /// `TIDINGS_RELAY_GREETING_SECONDS`: until the 220.
    pub greeting: Duration,
    /// `TIDINGS_RELAY_HELLO_SECONDS`: EHLO, STARTTLS, and AUTH with its challenges, each.
    pub hello: Duration,
    /// `TIDINGS_RELAY_MAIL_SECONDS`: MAIL.
    pub mail: Duration,
    /// `TIDINGS_RELAY_RCPT_SECONDS`: RCPT.
    pub rcpt: Duration,
    /// `TIDINGS_RELAY_DATA_SECONDS`: DATA, up to 354.
    pub data: Duration,
    /// `TIDINGS_RELAY_BLOCK_SECONDS`: until the socket takes more of what is written.
    pub block: Duration,
    /// `TIDINGS_RELAY_FINAL_DOT_SECONDS`: from the final dot to its answer.
    pub final_dot: Duration,
    /// RSET and QUIT; no setting, since no message hangs on them.
    pub farewell: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n| Duration::from_mins(n);
        Self {
            connect: minutes(1),
            greeting: minutes(5),
            hello: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            final_dot: minutes(10),
            farewell: Duration::from_secs(20),
        }
    }
}

impl Timeouts {
    /// The same for every step.
    pub fn each(step: Duration) -> Self {
        Self {
            connect: step,
            greeting: step,
            hello: step,
            mail: step,
            rcpt: step,
            data: step,
            block: step,
            final_dot: step,
            farewell: step,
        }
    }

    /// What is set, and the defaults for the rest.
    pub(super) fn from_settings(sources: &Sources) -> Result<Self, ConfigError> {
        let mut timeouts = Self::default();
        for (name, step) in [
            ("relay_connect_seconds", &mut timeouts.connect),
            ("relay_greeting_seconds", &mut timeouts.greeting),
            ("relay_hello_seconds", &mut timeouts.hello),
            ("relay_mail_seconds", &mut timeouts.mail),
            ("relay_rcpt_seconds", &mut timeouts.rcpt),
            ("relay_data_seconds", &mut timeouts.data),
            ("relay_block_seconds", &mut timeouts.block),
            ("relay_final_dot_seconds", &mut timeouts.final_dot),
        ] {
            if let Some(seconds) = number(sources, name, 1, 3_600)? {
                *step = Duration::from_secs(seconds);
            }
        }
        Ok(timeouts)
    }
}
