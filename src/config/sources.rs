//! Where settings come from: file, environment, flags. Each value keeps the name under which its giver knows it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use secrecy::SecretString;

use super::{ConfigError, FILE, LimitEntry, dkim, limits};

/// The names of all settings as the file spells them; a variable is `TIDINGS_` and the name in capitals.
pub const NAMES: [&str; 26] = [
    "database_url",
    "listen",
    "base_url",
    "relay_url",
    "link_keys",
    "address_key",
    "admin_key",
    "worker_connections",
    "opt_out_wait",
    "lease_seconds",
    "relay_silence",
    "relay_connect_seconds",
    "relay_greeting_seconds",
    "relay_hello_seconds",
    "relay_mail_seconds",
    "relay_rcpt_seconds",
    "relay_data_seconds",
    "relay_block_seconds",
    "relay_final_dot_seconds",
    "helo_name",
    "bounce_domain",
    "inbound_listen",
    "inbound_domain",
    "trusted_proxies",
    "dkim",
    "limits",
];

/// Variables that begin alike and are no settings: what is logged, and what the tests are told.
const OTHER_VARIABLES: [&str; 5] = [
    "TIDINGS_LOG",
    "TIDINGS_TEST_POSTGRES",
    "TIDINGS_TEST_TOOLS",
    "TIDINGS_CHAOS_SECONDS",
    "TIDINGS_CHAOS_SEED",
];

/// A value and what its giver calls it.
pub(super) struct Given {
    pub(super) value: SecretString,
    pub(super) called: String,
}

/// What was given, the last one that speaks wins.
#[derive(Default)]
pub(super) struct Sources {
    values: BTreeMap<&'static str, Given>,
    /// The settings that are lists of tables.
    pub(super) dkim: Vec<dkim::Raw>,
    pub(super) limits: Vec<LimitEntry>,
}

impl Sources {
    pub(super) fn get(&self, name: &str) -> Option<&Given> {
        self.values.get(name)
    }

    pub(super) fn add_file(&mut self, file: Option<&Path>) -> Result<(), ConfigError> {
        let path = file.unwrap_or(Path::new(FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(ConfigError(format!(
                    "the settings file {} cannot be read: {error}; check the path and who may read it",
                    path.display()
                )));
            }
        };
        let shown = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // The parser's own text repeats the line, which may hold a secret.
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            ConfigError(format!("line {line} of {shown} is not TOML: {}; mend it", error.message()))
        })?;
        for (key, value) in table {
            let Some(name) = NAMES.into_iter().find(|name| *name == key) else {
                return Err(ConfigError(format!(
                    "{shown} has a setting {key:?} that Tidings does not know; see tidings.example.toml for those it knows"
                )));
            };
            if name == "dkim" {
                self.dkim = dkim::from_file(&shown, &value)?;
                continue;
            }
            if name == "limits" {
                self.limits = limits::from_file(&shown, &value)?;
                continue;
            }
            let called = format!("{name} in {shown} ({})", variable(name));
            let value = plain(name, &value).ok_or_else(|| {
                ConfigError(format!(
                    "{called} cannot be used: it must be a text or a number, and only trusted_proxies a list"
                ))
            })?;
            self.values.insert(name, Given { value: SecretString::from(value), called });
        }
        Ok(())
    }

    pub(super) fn add_env(
        &mut self,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        for (key, value) in env {
            let Some(key) = key.to_str().filter(|key| key.starts_with("TIDINGS_")) else { continue };
            if OTHER_VARIABLES.contains(&key) {
                continue;
            }
            let Some(name) = NAMES.into_iter().find(|name| variable(name) == key) else {
                return Err(ConfigError(format!(
                    "the environment has {key}, which Tidings does not know; unset it, or see tidings.example.toml for \
                     the settings it knows"
                )));
            };
            let value =
                value.into_string().map_err(|_| ConfigError(format!("{key} is not UTF-8; set it again")))?;
            if name == "dkim" {
                self.dkim = dkim::from_variable(key, &value)?;
                continue;
            }
            if name == "limits" {
                return Err(ConfigError(format!(
                    "{key} cannot be used: limits stand in the settings file alone, each as a table [[limits]]; unset it"
                )));
            }
            self.values.insert(name, Given { value: SecretString::from(value), called: key.to_owned() });
        }
        Ok(())
    }

    pub(super) fn add_flags(&mut self, flags: &[(&'static str, String)]) {
        for (name, value) in flags {
            let called = format!("--{}", name.replace('_', "-"));
            self.values.insert(name, Given { value: SecretString::from(value.clone()), called });
        }
    }
}

fn variable(name: &str) -> String {
    format!("TIDINGS_{}", name.to_ascii_uppercase())
}

fn plain(name: &str, value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(items) if name == "trusted_proxies" => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}
