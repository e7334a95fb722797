//! Debian's Postfix, a mail server as others run it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::{SmtpServer, free_address, source};

/// Debian's Postfix on a port of its own. It stops when its standard input ends: when this is dropped, and also when the
/// tests are killed.
pub(crate) struct Postfix {
    child: Child,
    /// For the settings of whoever sends through it.
    pub(crate) url: String,
}

impl Postfix {
    /// Starts one that hands everything on to `next`.
    pub(crate) fn before(next: &SmtpServer) -> Self {
        Self::start(next, None)
    }

    /// The same, but that what is for envelope senders of ours goes to the intake at this address.
    pub(crate) fn between(next: &SmtpServer, intake: &str) -> Self {
        Self::start(next, Some(intake))
    }

    fn start(next: &SmtpServer, intake: Option<&str>) -> Self {
        let address = free_address();
        let port = address.rsplit(':').next().unwrap();
        let mut command = Command::new(source().join("tests/tools/relay_postfix"));
        command
            .args([port, &next.addr().port().to_string()])
            .args(intake.and_then(|to| to.rsplit(':').next()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(
            line.trim(),
            "ready",
            "Postfix does not start: install it, and as an ordinary user allow sudo"
        );
        Self { child, url: format!("smtp://{address}") }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
