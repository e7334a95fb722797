//! From texts to settings: every value is checked here, and an error names the setting and never a secret.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ipnet::IpNet;
use lettre::transport::smtp::extension::ClientId;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::sources::{Given, Sources};
use super::{ConfigError, Settings, Timeouts, dkim, is_loopback};

pub(super) const WORKER_CONNECTIONS: u16 = 16;
pub(super) const OPT_OUT_WAIT: Duration = Duration::from_secs(5);
pub(super) const LEASE: Duration = Duration::from_secs(90);
pub(super) const RELAY_SILENCE: Duration = Duration::from_secs(360);

/// Longest base URL in octets: a link of at most 300 more stands in one line of a header, which takes 998.
pub(crate) const MAX_BASE_URL: usize = 500;

/// Fewest octets of the address key.
const MIN_ADDRESS_KEY: usize = 32;

/// Reads every setting.
pub(super) fn settings(sources: &Sources) -> Result<Settings, ConfigError> {
    let listen = address(sources, "listen", "127.0.0.1:8080 or [::1]:8080")?
        .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    Ok(Settings {
        database_url: secret(sources, "database_url", database_url)?
            .unwrap_or_else(|| SecretString::from("sqlite://tidings.db")),
        listen,
        base_url: base_url(sources, listen)?,
        relay_url: secret(sources, "relay_url", relay_url)?.unwrap_or_else(|| SecretString::from("mailbox:")),
        link_keys: secret(sources, "link_keys", link_keys)?,
        address_key: secret(sources, "address_key", address_key)?,
        admin_key: secret(sources, "admin_key", admin_key)?,
        worker_connections: number(sources, "worker_connections", 1, 500)?
            .and_then(|n| u16::try_from(n).ok())
            .unwrap_or(WORKER_CONNECTIONS),
        opt_out_wait: number(sources, "opt_out_wait", 0, 60)?.map_or(OPT_OUT_WAIT, Duration::from_secs),
        lease: number(sources, "lease_seconds", 2, 3_600)?.map_or(LEASE, Duration::from_secs),
        relay_silence: number(sources, "relay_silence", 1, 86_400)?
            .map_or(RELAY_SILENCE, Duration::from_secs),
        relay_timeouts: Timeouts::from_settings(sources)?,
        helo_name: domain(sources, "helo_name")?.unwrap_or_else(own_name),
        bounce_domain: domain(sources, "bounce_domain")?,
        inbound_listen: inbound_listen(sources)?,
        inbound_domain: domain(sources, "inbound_domain")?,
        trusted_proxies: networks(sources)?,
        dkim: dkim::entries(&sources.dkim)?,
        limits: sources.limits.clone(),
    })
}

/// What this machine calls itself in EHLO.
pub(super) fn own_name() -> String {
    ClientId::default().to_string()
}

/// The base URL of somebody who sets none.
pub(super) fn base_url_of(listen: SocketAddr) -> Url {
    #[expect(clippy::expect_used, reason = "a socket address is always a URL's authority")]
    Url::parse(&format!("http://{listen}")).expect("an address and a port make a URL")
}

fn unusable(given: &Given, what: &str) -> ConfigError {
    ConfigError(format!("{} {what}", given.called))
}

fn text(given: &Given) -> Result<&str, ConfigError> {
    let text = given.value.expose_secret().trim();
    if text.is_empty() {
        return Err(unusable(given, "is empty; give it a value, or leave it out for its default"));
    }
    Ok(text)
}

fn secret(
    sources: &Sources,
    name: &str,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Result<Option<SecretString>, ConfigError> {
    let Some(given) = sources.get(name) else { return Ok(None) };
    let text = text(given)?;
    check(text).map_err(|what| unusable(given, what))?;
    Ok(Some(SecretString::from(text.to_owned())))
}

fn database_url(text: &str) -> Result<(), &'static str> {
    if ["sqlite:", "postgres://", "postgresql://"].iter().any(|start| text.starts_with(start)) {
        return Ok(());
    }
    Err("must begin with sqlite: or postgres://, such as sqlite://tidings.db")
}

fn relay_url(text: &str) -> Result<(), &'static str> {
    let known = ["mailbox:", "smtp://", "smtps://", "smtp+starttls://"];
    if known.iter().any(|start| text.starts_with(start)) {
        return Ok(());
    }
    Err("must be mailbox: or begin with smtp://, smtps:// or smtp+starttls://")
}

fn link_keys(text: &str) -> Result<(), &'static str> {
    if text.contains(':') {
        return Ok(());
    }
    Err("must be id:base64 pairs parted by commas; make one with `tidings key new`")
}

fn address_key(text: &str) -> Result<(), &'static str> {
    match decode_key(text) {
        Some(key) if key.len() >= MIN_ADDRESS_KEY => Ok(()),
        _ => Err("must be base64 of 32 octets or more, such as `openssl rand -base64 32` prints"),
    }
}

/// The octets of a base64 text of either alphabet.
pub(crate) fn decode_key(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('='))).ok()
}

fn admin_key(text: &str) -> Result<(), &'static str> {
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err("must be of visible ASCII characters without spaces")
}

fn base_url(sources: &Sources, listen: SocketAddr) -> Result<Url, ConfigError> {
    let Some(given) = sources.get("base_url") else {
        if listen.ip().is_loopback() {
            return Ok(base_url_of(listen));
        }
        return Err(ConfigError(
            "TIDINGS_BASE_URL must be set when TIDINGS_LISTEN is not a loopback address: it is what links in mail begin \
             with, such as https://mail.example.com"
                .to_owned(),
        ));
    };
    let url = Url::parse(text(given)?)
        .ok()
        .filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| unusable(given, "must be a URL such as https://mail.example.com"))?;
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(unusable(given, "must begin with https:// unless it is a loopback address"));
    }
    let extra = !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some();
    if extra {
        return Err(unusable(given, "must have no user, password, query or fragment"));
    }
    if url.as_str().len() > MAX_BASE_URL {
        return Err(unusable(given, &format!("must not be longer than {MAX_BASE_URL} characters")));
    }
    Ok(url)
}

pub(super) fn number(
    sources: &Sources,
    name: &str,
    least: u64,
    most: u64,
) -> Result<Option<u64>, ConfigError> {
    let Some(given) = sources.get(name) else { return Ok(None) };
    match text(given)?.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(unusable(given, &format!("must be a whole number from {least} to {most}"))),
    }
}

fn address(sources: &Sources, name: &str, such_as: &str) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(given) = sources.get(name) else { return Ok(None) };
    let parsed = text(given)?.parse();
    parsed
        .map(Some)
        .map_err(|_| unusable(given, &format!("must be an IP address and a port, such as {such_as}")))
}

fn inbound_listen(sources: &Sources) -> Result<Option<SocketAddr>, ConfigError> {
    let listen = address(sources, "inbound_listen", "127.0.0.1:2525 or [::]:25")?;
    match sources.get("inbound_listen") {
        Some(given) if sources.get("inbound_domain").is_none() => Err(unusable(
            given,
            "says where mail that unsubscribes comes in, but not for which domain; set TIDINGS_INBOUND_DOMAIN too",
        )),
        _ => Ok(listen),
    }
}

fn domain(sources: &Sources, name: &str) -> Result<Option<String>, ConfigError> {
    let Some(given) = sources.get(name) else { return Ok(None) };
    let ascii = idna::domain_to_ascii_strict(text(given)?)
        .ok()
        .filter(|name| !name.is_empty() && name.len() <= 253)
        .ok_or_else(|| unusable(given, "must be a domain name, such as mail.example.com"))?;
    Ok(Some(ascii))
}

fn networks(sources: &Sources) -> Result<Vec<IpNet>, ConfigError> {
    let Some(given) = sources.get("trusted_proxies") else { return Ok(Vec::new()) };
    let entries = given.value.expose_secret().split([',', ' ']).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            entry.parse::<IpNet>().or_else(|_| entry.parse::<std::net::IpAddr>().map(IpNet::from)).map_err(
                |_| {
                    unusable(
                        given,
                        "must be IP addresses or networks parted by commas, such as 10.0.0.0/8, ::1",
                    )
                },
            )
        })
        .collect()
}
