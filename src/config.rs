//! Settings: `tidings.toml`, then the environment (wins), then flags (win).

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `TIDINGS_DATABASE_URL`; holds a password on PostgreSQL.
    pub database_url: SecretString,
    /// `TIDINGS_LISTEN`: address of the HTTP server.
    pub listen: SocketAddr,
    /// `TIDINGS_BASE_URL`: what links in mail begin with; never ends with a slash when printed by [`Settings::link`].
    pub base_url: Url,
    /// `TIDINGS_RELAY_URL`; may hold a password.
    pub relay_url: SecretString,
    /// `TIDINGS_LINK_KEYS`.
    pub link_keys: Option<SecretString>,
    /// `TIDINGS_ADDRESS_KEY`.
    pub address_key: Option<SecretString>,
    /// `TIDINGS_ADMIN_KEY`.
    pub admin_key: Option<SecretString>,
    /// `TIDINGS_WORKER_CONNECTIONS`: SMTP connections per worker process.
    pub worker_connections: u16,
    /// `TIDINGS_OPT_OUT_WAIT`: longest time an opt-out waits for messages already begun.
    pub opt_out_wait: Duration,
    /// `TIDINGS_RELAY_SILENCE`: how long until the relay must have hung up on a silent peer.
    pub relay_silence: Duration,
    /// `TIDINGS_HELO_NAME`.
    pub helo_name: String,
    /// `TIDINGS_BOUNCE_DOMAIN`: domain of the envelope sender where a brand sets none; the From domain when absent.
    pub bounce_domain: Option<String>,
    /// `TIDINGS_TRUSTED_PROXIES`: addresses or networks whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<String>,
}
