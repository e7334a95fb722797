//! Settings: `tidings.toml`, then the environment (wins), then flags (win).
//!
//! A key that is not known and a value that cannot be used are errors that name the setting and say what to do. None
//! of them repeats a secret, and no secret shows in a `Debug` form.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

mod dkim;
mod limits;
mod sources;
mod timeouts;
mod values;

pub use dkim::DkimEntry;
pub use limits::{LimitEntry, Limited};
pub use sources::NAMES;
pub use timeouts::Timeouts;
pub(crate) use values::{MAX_BASE_URL, decode_key};

/// The file that is read when `--config` names no other.
pub const FILE: &str = "tidings.toml";

/// Why the settings cannot be used: one sentence that names the setting and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `TIDINGS_DATABASE_URL`; holds a password on PostgreSQL.
    pub database_url: SecretString,
    /// `TIDINGS_LISTEN`: address of the HTTP server; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `TIDINGS_BASE_URL`: what links in mail begin with; use [`Settings::link`].
    pub base_url: Url,
    /// `TIDINGS_RELAY_URL`; may hold a password.
    pub relay_url: SecretString,
    /// `TIDINGS_LINK_KEYS`.
    pub link_keys: Option<SecretString>,
    /// `TIDINGS_ADDRESS_KEY`: base64 of 32 octets or more.
    pub address_key: Option<SecretString>,
    /// `TIDINGS_ADMIN_KEY`.
    pub admin_key: Option<SecretString>,
    /// `TIDINGS_WORKER_CONNECTIONS`: SMTP connections per worker process.
    pub worker_connections: u16,
    /// `TIDINGS_OPT_OUT_WAIT`: longest time an opt-out waits for messages already begun.
    pub opt_out_wait: Duration,
    /// `TIDINGS_LEASE_SECONDS`: how long a worker's claim lasts unless it is renewed.
    pub lease: Duration,
    /// `TIDINGS_RELAY_SILENCE`: how long until the relay must have hung up on a silent peer.
    pub relay_silence: Duration,
    /// `TIDINGS_RELAY_*_SECONDS`: how long the relay may take for each step.
    pub relay_timeouts: Timeouts,
    /// `TIDINGS_HELO_NAME`.
    pub helo_name: String,
    /// `TIDINGS_BOUNCE_DOMAIN`: domain of the envelope sender where a brand sets none; the From domain when absent.
    pub bounce_domain: Option<String>,
    /// `TIDINGS_INBOUND_LISTEN`: where web processes take mail that unsubscribes, and bounces; never without a domain.
    pub inbound_listen: Option<SocketAddr>,
    /// `TIDINGS_INBOUND_DOMAIN`: the domain of that mail, an A-label; messages offer it exactly when it is set.
    pub inbound_domain: Option<String>,
    /// `TIDINGS_TRUSTED_PROXIES`: addresses or networks whose `X-Forwarded-For` counts when wrong links and keys
    /// are counted for each client.
    pub trusted_proxies: Vec<IpNet>,
    /// `[[dkim]]`, `TIDINGS_DKIM`: the keys that sign mail.
    pub dkim: Vec<DkimEntry>,
    /// `[[limits]]`: how much the relay and the destinations behind it get; in the file alone.
    pub limits: Vec<LimitEntry>,
}

impl Settings {
    /// Every setting at its default but the database, and a free port of loopback to listen on: for the demo and for
    /// tests, which ignore file and environment.
    ///
    /// Whoever binds calls [`Settings::bound_to`], so that links carry the port.
    pub fn local(database_url: &str) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            database_url: SecretString::from(database_url.to_owned()),
            listen,
            base_url: values::base_url_of(listen),
            relay_url: SecretString::from("mailbox:"),
            link_keys: None,
            address_key: None,
            admin_key: None,
            worker_connections: values::WORKER_CONNECTIONS,
            opt_out_wait: values::OPT_OUT_WAIT,
            lease: values::LEASE,
            relay_silence: values::RELAY_SILENCE,
            relay_timeouts: Timeouts::default(),
            helo_name: values::own_name(),
            bounce_domain: None,
            inbound_listen: None,
            inbound_domain: None,
            trusted_proxies: Vec::new(),
            dkim: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Reads `file` (or, when none is named, `tidings.toml` in the working folder if it is there), then the variables
    /// `TIDINGS_*` among `env`, then `flags`: pairs of a name of [`NAMES`] and a value.
    ///
    /// # Errors
    /// The first setting that is not known or cannot be used.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
        flags: &[(&'static str, String)],
    ) -> Result<Self, ConfigError> {
        let mut sources = sources::Sources::default();
        sources.add_file(file)?;
        sources.add_env(env)?;
        sources.add_flags(flags);
        values::settings(&sources)
    }

    /// The URL of `path` (which begins with a slash) below the base URL.
    pub fn link(&self, path: &str) -> String {
        format!("{}{path}", self.base_url.as_str().trim_end_matches('/'))
    }

    /// Takes in the address that was bound: a base URL that stands at port 0 gets the real port.
    pub fn bound_to(&mut self, address: SocketAddr) {
        self.listen = address;
        if self.base_url.port() == Some(0) {
            // Only a URL without a host refuses a port, and this one has a port already.
            let _ = self.base_url.set_port(Some(address.port()));
        }
    }

    /// How long a worker trusts a claim of its own: a sixth less than the database does.
    pub fn lease_trusted(&self) -> Duration {
        self.lease - self.lease / 6
    }

    /// Whether messages go to the embedded mailbox instead of a relay.
    pub fn uses_mailbox(&self) -> bool {
        self.relay_url.expose_secret().starts_with("mailbox:")
    }

    /// Refuses the embedded mailbox where it would show people's mail to others or lie in another process.
    ///
    /// `one_process` says whether web and worker run in this process.
    ///
    /// # Errors
    /// What to set instead.
    pub fn check_mailbox(&self, one_process: bool) -> Result<(), ConfigError> {
        if !self.uses_mailbox() {
            return Ok(());
        }
        let refuse = |why: &str| {
            Err(ConfigError(format!(
                "TIDINGS_RELAY_URL is mailbox:, the embedded mailbox for trying out, but {why}; set TIDINGS_RELAY_URL to \
                 your relay, such as smtp+starttls://user:password@relay.example:587"
            )))
        };
        if !one_process {
            return refuse("it works only where web and worker run in one process, without --only");
        }
        if !self.listen.ip().is_loopback() {
            return refuse("TIDINGS_LISTEN is not a loopback address, so others could read the mail");
        }
        if !is_loopback(&self.base_url) {
            return refuse("TIDINGS_BASE_URL is not a loopback address");
        }
        Ok(())
    }
}

/// Whether a URL's host is this machine and nothing else.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::Write as _;

    use super::*;

    fn load(file: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Settings, String> {
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(file.as_bytes()).unwrap();
        let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let flags: Vec<_> = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Settings::load(Some(on_disk.path()), env.collect::<Vec<_>>(), &flags).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_win_over_the_environment_and_the_environment_over_the_file() {
        let file = "listen = \"127.0.0.1:1\"\nopt_out_wait = 1\nworker_connections = 2";
        let env = [("TIDINGS_LISTEN", "127.0.0.1:2"), ("TIDINGS_OPT_OUT_WAIT", "7"), ("HOME", "/x")];
        let settings = load(file, &env, &[("listen", "127.0.0.1:3")]).unwrap();
        assert_eq!(settings.listen.port(), 3);
        assert_eq!(settings.opt_out_wait, Duration::from_secs(7));
        assert_eq!(settings.worker_connections, 2);
        assert_eq!(settings.link("/u/x"), "http://127.0.0.1:3/u/x");
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        assert!(load("", &[("TIDINGS_LISTN", "x")], &[]).unwrap_err().contains("TIDINGS_LISTN"));
        assert!(load("listn = 1", &[], &[]).unwrap_err().contains("\"listn\""));
        assert!(load("listen =", &[], &[]).unwrap_err().contains("line 1"));
    }

    #[test]
    fn every_unusable_value_is_an_error_that_names_the_setting() {
        for (name, value) in [
            ("TIDINGS_DATABASE_URL", "mysql://x"),
            ("TIDINGS_LISTEN", "localhost"),
            ("TIDINGS_BASE_URL", "mail.example.com"),
            ("TIDINGS_BASE_URL", "http://mail.example.com"),
            ("TIDINGS_BASE_URL", "https://user:pw@mail.example.com"),
            ("TIDINGS_BASE_URL", "https://mail.example.com/?a=b"),
            ("TIDINGS_RELAY_URL", "relay.example.com"),
            ("TIDINGS_LINK_KEYS", "nonsense"),
            ("TIDINGS_ADDRESS_KEY", "c2hvcnQ="),
            ("TIDINGS_ADMIN_KEY", "has a space"),
            ("TIDINGS_WORKER_CONNECTIONS", "0"),
            ("TIDINGS_WORKER_CONNECTIONS", "many"),
            ("TIDINGS_OPT_OUT_WAIT", "-1"),
            ("TIDINGS_LEASE_SECONDS", "1"),
            ("TIDINGS_RELAY_SILENCE", "1e3"),
            ("TIDINGS_RELAY_FINAL_DOT_SECONDS", "0"),
            ("TIDINGS_RELAY_DATA_SECONDS", "2m"),
            ("TIDINGS_HELO_NAME", "two words"),
            ("TIDINGS_BOUNCE_DOMAIN", "no_domain"),
            ("TIDINGS_INBOUND_DOMAIN", "no_domain"),
            ("TIDINGS_INBOUND_LISTEN", "25"),
            ("TIDINGS_TRUSTED_PROXIES", "10.0.0.0/99"),
            ("TIDINGS_DKIM", "example.com:s1"),
            ("TIDINGS_LIMITS", "gmail.com:5"),
            ("TIDINGS_LISTEN", ""),
        ] {
            let error = load("", &[(name, value)], &[]).unwrap_err();
            assert!(error.contains(name), "{name}={value}: {error}");
        }
    }

    #[test]
    fn no_error_and_no_debug_form_shows_a_secret() {
        let secret = "k1-c2VjcmV0c2VjcmV0";
        assert!(!load("", &[("TIDINGS_LINK_KEYS", secret)], &[]).unwrap_err().contains("c2VjcmV0"));
        let env =
            [("TIDINGS_ADMIN_KEY", "topsecretkey"), ("TIDINGS_DATABASE_URL", "postgres://u:hidden@h/d")];
        let shown = format!("{:?}", load("", &env, &[]).unwrap());
        assert!(!shown.contains("topsecretkey") && !shown.contains("hidden"), "{shown}");
        let bad = load("admin_key = [\"topsecretkey\"]", &[], &[]).unwrap_err();
        assert!(!bad.contains("topsecretkey") && bad.contains("admin_key"), "{bad}");
        let broken = load("admin_key = \"topsecretkey", &[], &[]).unwrap_err();
        assert!(!broken.contains("topsecretkey"), "{broken}");
    }

    #[test]
    fn the_mailbox_is_refused_where_others_could_read_it() {
        let mut settings = Settings::local("sqlite::memory:");
        assert!(settings.check_mailbox(true).is_ok());
        assert!(settings.check_mailbox(false).is_err());
        settings.listen = "0.0.0.0:80".parse().unwrap();
        assert!(settings.check_mailbox(true).unwrap_err().to_string().contains("TIDINGS_LISTEN"));
        settings.relay_url = SecretString::from("smtp://127.0.0.1:25");
        assert!(settings.check_mailbox(false).is_ok());
        assert!(load("", &[("TIDINGS_LISTEN", "0.0.0.0:80")], &[]).unwrap_err().contains("TIDINGS_BASE_URL"));
    }

    #[test]
    fn mail_is_taken_in_for_a_domain_alone_and_a_domain_may_be_somebody_elses_to_take_in() {
        let error = load("", &[("TIDINGS_INBOUND_LISTEN", "127.0.0.1:25")], &[]).unwrap_err();
        assert!(
            error.contains("TIDINGS_INBOUND_LISTEN") && error.contains("TIDINGS_INBOUND_DOMAIN"),
            "{error}"
        );
        let domain = ("TIDINGS_INBOUND_DOMAIN", "BÜCHER.example");
        let settings = load("", &[domain, ("TIDINGS_INBOUND_LISTEN", "127.0.0.1:25")], &[]).unwrap();
        assert_eq!(settings.inbound_domain.as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(settings.inbound_listen, Some("127.0.0.1:25".parse().unwrap()));
        assert_eq!(load("", &[domain], &[]).unwrap().inbound_listen, None);
    }

    #[test]
    fn a_base_url_at_port_0_takes_the_port_that_was_bound() {
        let mut settings = Settings::local("sqlite::memory:");
        settings.bound_to("127.0.0.1:4321".parse().unwrap());
        assert_eq!(settings.link("/mailbox"), "http://127.0.0.1:4321/mailbox");
    }

    #[test]
    fn the_example_file_is_usable_and_names_every_setting() {
        let example = include_str!("../tidings.example.toml");
        load(example, &[], &[]).unwrap();
        for name in NAMES {
            let there = example.contains(&format!("{name} = ")) || example.contains(&format!("[[{name}]]"));
            assert!(there, "{name} is missing from tidings.example.toml");
        }
    }
}
