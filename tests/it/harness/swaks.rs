//! Debian's swaks, an SMTP and LMTP client, and what a mail program does whose user unsubscribes by mail.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::{Transaction, tools};

/// What swaks made of a dialogue.
#[derive(Debug)]
pub(crate) struct Sent {
    /// 0 when the message was taken; swaks has a status for each step that can fail.
    pub(crate) status: i32,
    /// The whole dialogue.
    pub(crate) said: String,
}

impl Sent {
    /// Asserts that the message was taken.
    #[track_caller]
    pub(crate) fn ok(&self) {
        assert_eq!(self.status, 0, "{}", self.said);
    }

    /// Asserts that it was not, and that an answer began so.
    #[track_caller]
    pub(crate) fn refused(&self, answer: &str) {
        assert_ne!(self.status, 0, "{}", self.said);
        let heard = self
            .said
            .lines()
            .any(|line| line.strip_prefix("<** ").is_some_and(|line| line.starts_with(answer)));
        assert!(heard, "no {answer}: {}", self.said);
    }
}

/// Sends this message, LF or CRLF lines, with these further arguments.
pub(crate) async fn swaks(server: SocketAddr, arguments: &[&str], message: &str) -> Sent {
    let mut command = Command::new("swaks");
    command.args(["--server", &server.ip().to_string(), "--port", &server.port().to_string()]);
    command.args(["--helo", "client.example", "--timeout", "20", "--data", "-"]).args(arguments);
    // A user's own file of options would make a test depend on the machine.
    command.env_remove("SWAKS_HOME").env("HOME", "/nonexistent");
    let message = message.to_owned();
    let output =
        tokio::task::spawn_blocking(move || tools::feed(&mut command, message.as_bytes())).await.unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Sent { status: output.status.code().unwrap_or(-1), said }
}

/// The mail that a message's `mailto:` asks for, as listunsub reads and writes it.
pub(crate) struct UnsubscribeMail {
    pub(crate) to: String,
    /// The token: what the subject says.
    pub(crate) token: String,
    /// Header and body.
    pub(crate) message: String,
}

impl UnsubscribeMail {
    pub(crate) fn of(mail: &Transaction) -> Self {
        let read = tools::run_json(tools::python("unsubscribe_mail.py"), &mail.data);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        assert_eq!(read["fields"].as_array().unwrap().len(), 1, "a subject and no more: {read}");
        assert_eq!(read["fields"][0][0], "subject");
        Self { to: text(&read["to"]), token: text(&read["fields"][0][1]), message: text(&read["message"]) }
    }

    /// Sends it from this address by `ESMTP`, `SMTP` or `LMTP`.
    pub(crate) async fn send(&self, server: SocketAddr, protocol: &str, from: &str) -> Sent {
        swaks(server, &["--protocol", protocol, "--from", from, "--to", &self.to], &self.message).await
    }
}
