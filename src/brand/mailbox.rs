//! `Name <address>`: who a message is from.

use std::fmt;

use crate::address::{AddressError, EmailAddress};

/// Longest display name in characters.
const MAX_NAME: usize = 200;

/// Why a text is no mailbox. None of these repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// CR, LF, NUL or another control character.
    #[error("must be one line without CR, LF, NUL or other control characters")]
    Control,
    /// Angle brackets that do not fit together.
    #[error("must be of the form Name <address>")]
    Form,
    /// The name is too long.
    #[error("the name is longer than 200 characters")]
    LongName,
    /// The address cannot be used.
    #[error("{0}")]
    Address(#[from] AddressError),
}

/// A display name, which may be empty, and an address. Shown as `Name <address>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name without quotes; empty when there is none.
    pub name: String,
    /// The address.
    pub address: EmailAddress,
}

impl Mailbox {
    /// Reads `Name <address>`, `"Name" <address>` or a bare address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, MailboxError> {
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            return Err(MailboxError::Control);
        }
        let text = text.trim();
        let Some(head) = text.strip_suffix('>') else {
            if text.contains(['<', '"']) {
                return Err(MailboxError::Form);
            }
            return Ok(Self { name: String::new(), address: EmailAddress::parse(text)? });
        };
        let (name, address) = head.rsplit_once('<').ok_or(MailboxError::Form)?;
        let name = unquoted(name.trim()).ok_or(MailboxError::Form)?;
        if name.chars().count() > MAX_NAME {
            return Err(MailboxError::LongName);
        }
        Ok(Self { name, address: EmailAddress::parse(address)? })
    }
}

/// The name without its quotes (RFC 5322 §3.2.4); none when quotes or angle brackets do not fit together.
fn unquoted(name: &str) -> Option<String> {
    let Some(inner) = name.strip_prefix('"') else {
        return (!name.contains(['<', '>', '"'])).then(|| name.to_owned());
    };
    let mut out = String::new();
    let mut chars = inner.chars();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => out.push(chars.next()?),
            c => out.push(c),
        }
    }
    chars.as_str().is_empty().then(|| out.trim().to_owned())
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.as_str();
        if self.name.is_empty() {
            return f.write_str(address);
        }
        if self.name.contains(['"', '\\', '<', '>', '(', ')', '[', ']', ':', ';', '@', ',']) {
            let quoted = self.name.replace('\\', "\\\\").replace('"', "\\\"");
            return write!(f, "\"{quoted}\" <{address}>");
        }
        write!(f, "{} <{address}>", self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_addresses_are_read() {
        let read = |text: &str| {
            let mailbox = Mailbox::parse(text).unwrap();
            (mailbox.name.clone(), mailbox.address.as_str().to_owned())
        };
        assert_eq!(read("Acme <news@acme.example>"), ("Acme".into(), "news@acme.example".into()));
        assert_eq!(read("\"Acme, Inc.\" <n@acme.example>").0, "Acme, Inc.");
        assert_eq!(read("\"A \\\"B\\\" <c>\" <n@acme.example>").0, "A \"B\" <c>");
        assert_eq!(read("Acme, Inc. <n@acme.example>").0, "Acme, Inc.");
        assert_eq!(read(" n@acme.example "), (String::new(), "n@acme.example".into()));
        assert_eq!(read("<n@acme.example>").0, "");
    }

    #[test]
    fn what_could_break_a_header_is_refused() {
        for bad in [
            "A\r\nBcc: x@y.example <n@acme.example>",
            "A\n<n@acme.example>",
            "A\0 <n@acme.example>",
            "n@acme.example\r\n",
            "A <n@acme.example> <m@acme.example>",
            "A <n@acme.example",
            "n@acme.example>",
            "A <>",
            "A <nobody>",
            "\"A <n@acme.example>",
            "\"A\" B <n@acme.example>",
            "",
        ] {
            assert!(Mailbox::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(name in "[^\\p{C}\u{2028}\u{2029}]{0,60}") {
            let name = name.trim().to_owned();
            let mailbox = Mailbox { name, address: EmailAddress::parse("n@acme.example").unwrap() };
            prop_assert_eq!(Mailbox::parse(&mailbox.to_string()).unwrap(), mailbox);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = Mailbox::parse(&text);
        }
    }
}
