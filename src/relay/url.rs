//! `TIDINGS_RELAY_URL`, read and checked.
//!
//! Pure. An error never repeats the URL, which may hold a password.

use std::fmt;
use std::net::IpAddr;

use secrecy::SecretString;
use url::Url;

/// How the stream to the relay is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// Not at all: within the machine, or asked for by name.
    Plain,
    /// TLS from the first octet (RFC 8314 §3).
    Tls,
    /// STARTTLS, required (RFC 3207).
    StartTls,
}

/// Where the relay is and how to come in.
#[derive(Clone)]
pub(super) struct Target {
    /// A domain name as an A-label, or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) login: Option<(String, SecretString)>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why a relay URL cannot be used: one plain sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayUrlError {
    /// Not a URL, or of another kind.
    #[error(
        "TIDINGS_RELAY_URL is not usable: it must read smtp://HOST, smtps://HOST, smtp+starttls://HOST or mailbox:"
    )]
    Form,
    /// A part that has no meaning there.
    #[error("TIDINGS_RELAY_URL is not usable: {0}")]
    Part(&'static str),
    /// Clear text to another machine.
    #[error(
        "TIDINGS_RELAY_URL would send mail in clear text to another machine: use smtps:// or smtp+starttls://, or add ?plaintext=yes if that is meant"
    )]
    ClearText,
    /// The certificates to trust could not be read, or the name cannot be checked against one.
    #[error("the relay's TLS cannot be set up: {0}")]
    Tls(String),
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, RelayUrlError> {
        let url = Url::parse(text).map_err(|_| RelayUrlError::Form)?;
        let (security, port) = match url.scheme() {
            "smtp" => (Security::Plain, 25),
            "smtps" => (Security::Tls, 465),
            "smtp+starttls" => (Security::StartTls, 587),
            _ => return Err(RelayUrlError::Form),
        };
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(RelayUrlError::Part("nothing but ?plaintext=yes may follow the host"));
        }
        let host = host(&url)?;
        let mut plaintext = false;
        for (key, value) in url.query_pairs() {
            match (&*key, &*value) {
                ("plaintext", "yes") => plaintext = true,
                _ => return Err(RelayUrlError::Part("the only parameter it knows is plaintext=yes")),
            }
        }
        match (security, plaintext) {
            (Security::Plain, false) if !is_loopback(&host) => return Err(RelayUrlError::ClearText),
            (Security::Tls | Security::StartTls, true) => {
                return Err(RelayUrlError::Part("plaintext=yes goes with smtp:// only"));
            }
            _ => {}
        }
        Ok(Self { host, port: url.port().unwrap_or(port), security, login: login(&url)? })
    }
}

fn host(url: &Url) -> Result<String, RelayUrlError> {
    const HOST: RelayUrlError = RelayUrlError::Part("its host is not a host name or an IP address");
    let spelt = url.host_str().filter(|host| !host.is_empty()).ok_or(HOST)?;
    let bare = spelt.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(spelt);
    if bare.parse::<IpAddr>().is_ok() {
        return Ok(bare.to_owned());
    }
    let decoded = decode(spelt).ok_or(HOST)?;
    idna::domain_to_ascii_strict(&decoded).ok().filter(|host| !host.is_empty()).ok_or(HOST)
}

fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().map_or(host == "localhost" || host.ends_with(".localhost"), |ip| ip.is_loopback())
}

fn login(url: &Url) -> Result<Option<(String, SecretString)>, RelayUrlError> {
    const BOTH: RelayUrlError = RelayUrlError::Part("user and password go together");
    const CODING: RelayUrlError =
        RelayUrlError::Part("user and password must be percent-encoded UTF-8 without control characters");
    match (url.username(), url.password().unwrap_or_default()) {
        ("", "") => Ok(None),
        ("", _) | (_, "") => Err(BOTH),
        (user, password) => {
            let user = decode(user).ok_or(CODING)?;
            let password = decode(password).ok_or(CODING)?;
            Ok(Some((user, SecretString::from(password))))
        }
    }
}

/// Percent-decodes; `None` when what comes out is not UTF-8 or holds a control character.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            let digits =
                std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_three_kinds_have_their_ports_and_their_protection() {
        let target = Target::parse("smtps://relay.example").unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.security),
            ("relay.example", 465, Security::Tls)
        );
        let target = Target::parse("smtp+starttls://relay.example/").unwrap();
        assert_eq!((target.port, target.security), (587, Security::StartTls));
        let target = Target::parse("smtp://127.0.0.1:2525").unwrap();
        assert_eq!((target.port, target.security), (2525, Security::Plain));
        assert_eq!(Target::parse("smtp://[::1]:26").unwrap().host, "::1");
        assert_eq!(Target::parse("smtps://bücher.example").unwrap().host, "xn--bcher-kva.example");
    }

    #[test]
    fn user_and_password_are_percent_decoded() {
        let target = Target::parse("smtps://me%40here.example:p%2Fa+s%25s@relay.example").unwrap();
        let (user, password) = target.login.unwrap();
        assert_eq!(user, "me@here.example");
        assert_eq!(password.expose_secret(), "p/a+s%s");
    }

    #[test]
    fn clear_text_beyond_the_machine_must_be_asked_for() {
        assert_eq!(Target::parse("smtp://relay.example").unwrap_err(), RelayUrlError::ClearText);
        assert_eq!(Target::parse("smtp://10.0.0.1").unwrap_err(), RelayUrlError::ClearText);
        assert!(Target::parse("smtp://relay.example?plaintext=yes").is_ok());
        assert!(Target::parse("smtp://localhost").is_ok());
        assert!(Target::parse("smtps://relay.example?plaintext=yes").is_err());
    }

    #[test]
    fn a_bad_url_is_refused_in_one_sentence_without_its_password() {
        for bad in [
            "",
            "relay.example",
            "http://u:hunter2@relay.example",
            "smtps://u:hunter2@",
            "smtps://u:hunter2@relay.example/path",
            "smtps://u:hunter2@relay.example?tls=no",
            "smtps://:hunter2@relay.example",
            "smtps://u@relay.example",
            "smtps://u:hunter2%0d@relay.example",
            "smtps://u:hunter2%zz@relay.example",
            "smtps://u:hunter2@relay.example:99999",
            "smtps://u:hunter2@relay example",
        ] {
            let error = Target::parse(bad).unwrap_err().to_string();
            assert!(error.contains("TIDINGS_RELAY_URL"), "{bad}: {error}");
            assert!(!error.contains("hunter2") && !error.contains('\n'), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_relay_or_refused_without_a_panic(
            text in ".{0,80}|smtps?(\\+starttls)?://([a-z%:0-9]{0,12}@)?[a-z0-9.\\[\\]:]{0,20}(\\?[a-z=&]{0,20})?",
        ) {
            if let Ok(target) = Target::parse(&text) {
                prop_assert!(!target.host.is_empty() && !target.host.contains(|c: char| c.is_control() || c.is_whitespace()));
            }
        }
    }
}
