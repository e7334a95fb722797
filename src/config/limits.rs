//! `[[limits]]`: how many messages and connections the relay and the destinations behind it get, over all workers.
//!
//! Only what an entry says is checked here; what it means stands in `delivery::limit`.

use std::time::Duration;

use chrono::NaiveDate;
use toml::{Table, Value};

use super::ConfigError;
use super::dkim::ascii_domain;

/// Most entries, most domains of one entry, most days of a warm-up.
const MAX_ENTRIES: usize = 1_000;
const MAX_DOMAINS: usize = 1_000;
const MAX_DAYS: usize = 366;
/// Most messages and connections.
const MAX_MESSAGES: i64 = 1_000_000_000;
const MAX_CONNECTIONS: i64 = 10_000;
/// Longest window in seconds: a week.
const MAX_SECONDS: i64 = 604_800;

const FIELDS: [&str; 8] =
    ["domain", "domains", "relay", "messages", "per_seconds", "connections", "warm_up", "warm_up_from"];

/// What an entry limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Everything that goes to the relay.
    Relay,
    /// What goes to these recipient domains taken together: A-labels in lower case, at least one.
    Domains(Vec<String>),
    /// What goes to each domain that no other entry names, each by itself.
    OtherDomains,
}

/// A limit as it was set; at least one of the three is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitEntry {
    /// What is limited.
    pub limited: Limited,
    /// At most so many messages in any window of this length.
    pub rate: Option<(u32, Duration)>,
    /// The relay: at most so many connections. A domain: at most so many messages under way at once.
    pub connections: Option<u32>,
    /// At most so many messages on the first, second … UTC day from this one on; no such limit once the list is over.
    pub warm_up: Option<(NaiveDate, Vec<u32>)>,
}

/// Reads the list of tables and checks every entry.
pub(super) fn from_file(file: &str, value: &Value) -> Result<Vec<LimitEntry>, ConfigError> {
    let malformed =
        || ConfigError(format!("limits in {file} must be a list of tables; begin each with [[limits]]"));
    let tables = value.as_array().ok_or_else(malformed)?;
    if tables.len() > MAX_ENTRIES {
        return Err(ConfigError(format!(
            "there are more than {MAX_ENTRIES} entries of limits; leave some out"
        )));
    }
    let mut entries: Vec<LimitEntry> = Vec::with_capacity(tables.len());
    for (index, table) in tables.iter().enumerate() {
        let place = Place { number: index + 1, file, table: table.as_table().ok_or_else(malformed)? };
        let entry = place.entry()?;
        if entries.iter().any(|other| overlap(&other.limited, &entry.limited)) {
            let field = if entry.limited == Limited::Relay { "relay" } else { "domain" };
            return Err(place.refuse(field, "names what another entry limits already; make them one entry"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn overlap(one: &Limited, other: &Limited) -> bool {
    match (one, other) {
        (Limited::Domains(one), Limited::Domains(other)) => one.iter().any(|domain| other.contains(domain)),
        _ => one == other,
    }
}

/// An entry, and where it stands.
struct Place<'a> {
    number: usize,
    file: &'a str,
    table: &'a Table,
}

impl Place<'_> {
    fn refuse(&self, field: &str, what: &str) -> ConfigError {
        ConfigError(format!("limits[{}].{field} in {} {what}", self.number, self.file))
    }

    fn entry(&self) -> Result<LimitEntry, ConfigError> {
        if let Some(unknown) = self.table.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            return Err(ConfigError(format!(
                "limits[{}] in {} has a field {unknown:?} that Tidings does not know; it knows {}",
                self.number,
                self.file,
                FIELDS.join(", ")
            )));
        }
        let entry = LimitEntry {
            limited: self.limited()?,
            rate: self.rate()?,
            connections: self.number("connections", MAX_CONNECTIONS)?,
            warm_up: self.warm_up()?,
        };
        if entry.rate.is_none() && entry.connections.is_none() && entry.warm_up.is_none() {
            return Err(self.refuse(
                "messages",
                "is missing, and so is every other limit; give messages and per_seconds, connections, or warm_up and \
                 warm_up_from",
            ));
        }
        Ok(entry)
    }

    fn limited(&self) -> Result<Limited, ConfigError> {
        let named: Vec<&str> = ["domain", "domains", "relay"]
            .into_iter()
            .filter(|name| self.table.contains_key(*name))
            .collect();
        match named[..] {
            ["relay"] if self.table["relay"] == Value::Boolean(true) => Ok(Limited::Relay),
            ["relay"] => Err(self.refuse("relay", "must be true, or the entry must name a domain")),
            ["domain"] => match self.table["domain"].as_str() {
                Some("*") => Ok(Limited::OtherDomains),
                Some(name) => Ok(Limited::Domains(vec![self.domain("domain", name)?])),
                None => Err(self.refuse("domain", "must be a text, such as \"gmail.com\" or \"*\"")),
            },
            ["domains"] => self.domains(),
            _ => Err(self.refuse(
                "domain",
                "must say what is limited: give exactly one of domain, domains and relay = true",
            )),
        }
    }

    fn domains(&self) -> Result<Limited, ConfigError> {
        let what = "must be a list of domains, such as [\"outlook.com\", \"hotmail.com\"]";
        let list = self.table["domains"].as_array().filter(|list| (1..=MAX_DOMAINS).contains(&list.len()));
        let list = list.ok_or_else(|| self.refuse("domains", what))?;
        let mut names = Vec::with_capacity(list.len());
        for item in list {
            let name = self.domain("domains", item.as_str().ok_or_else(|| self.refuse("domains", what))?)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(Limited::Domains(names))
    }

    fn domain(&self, field: &str, name: &str) -> Result<String, ConfigError> {
        ascii_domain(name.trim()).ok_or_else(|| {
            self.refuse(
                field,
                "must be of domain names of at least two parts, such as gmail.com, or \"*\" alone",
            )
        })
    }

    fn number(&self, field: &str, most: i64) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.table.get(field) else { return Ok(None) };
        let number = value.as_integer().filter(|number| (1..=most).contains(number));
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.refuse(field, &format!("must be a whole number from 1 to {most}"))),
        }
    }

    fn rate(&self) -> Result<Option<(u32, Duration)>, ConfigError> {
        match (self.number("messages", MAX_MESSAGES)?, self.number("per_seconds", MAX_SECONDS)?) {
            (Some(messages), Some(seconds)) => Ok(Some((messages, Duration::from_secs(u64::from(seconds))))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(self.refuse("per_seconds", "is missing; messages needs it")),
            (None, Some(_)) => Err(self.refuse("messages", "is missing; per_seconds needs it")),
        }
    }

    fn warm_up(&self) -> Result<Option<(NaiveDate, Vec<u32>)>, ConfigError> {
        let Some(list) = self.table.get("warm_up") else {
            if self.table.contains_key("warm_up_from") {
                return Err(self.refuse("warm_up", "is missing; warm_up_from needs it"));
            }
            return Ok(None);
        };
        let what = "must be a list of messages a day, such as [50, 100, 500, 1000], none of them fewer than the day \
                    before";
        let list = list.as_array().filter(|list| (1..=MAX_DAYS).contains(&list.len()));
        let mut days: Vec<u32> = Vec::new();
        for item in list.ok_or_else(|| self.refuse("warm_up", what))? {
            let cap = item.as_integer().filter(|cap| (1..=MAX_MESSAGES).contains(cap));
            let cap = cap.and_then(|cap| u32::try_from(cap).ok());
            // A smaller cap than yesterday's could not be kept by what was let go right before midnight.
            match cap.filter(|cap| days.last().is_none_or(|before| before <= cap)) {
                Some(cap) => days.push(cap),
                None => return Err(self.refuse("warm_up", what)),
            }
        }
        let from = self.table.get("warm_up_from").and_then(|value| match value {
            Value::Datetime(at) => at.date.map(|date| date.to_string()),
            Value::String(text) => Some(text.clone()),
            _ => None,
        });
        let from = from.and_then(|text| text.parse::<NaiveDate>().ok());
        match from {
            Some(from) => Ok(Some((from, days))),
            None => Err(self.refuse("warm_up_from", "must be the first day of warm_up, such as 2026-12-01")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(text: &str) -> Result<Vec<LimitEntry>, String> {
        let table: Table = text.parse().unwrap();
        from_file("tidings.toml", &table["limits"]).map_err(|error| error.to_string())
    }

    #[test]
    fn an_entry_limits_the_relay_some_domains_together_or_each_other_domain() {
        let entries = of_file(
            "[[limits]]\ndomain = \"BÜCHER.example\"\nmessages = 1000\nper_seconds = 3600\n\
             [[limits]]\ndomains = [\"outlook.com\", \"hotmail.com\"]\nconnections = 5\n\
             [[limits]]\ndomain = \"*\"\nwarm_up = [50, 100]\nwarm_up_from = 2026-12-01\n\
             [[limits]]\nrelay = true\nconnections = 20\nwarm_up = [1]\nwarm_up_from = \"2026-12-01\"",
        )
        .unwrap();
        assert_eq!(entries[0].limited, Limited::Domains(vec!["xn--bcher-kva.example".into()]));
        assert_eq!(entries[0].rate, Some((1000, Duration::from_secs(3600))));
        assert_eq!(entries[1].limited, Limited::Domains(vec!["outlook.com".into(), "hotmail.com".into()]));
        assert_eq!(entries[1].connections, Some(5));
        assert_eq!(entries[2].limited, Limited::OtherDomains);
        let first = NaiveDate::from_ymd_opt(2026, 12, 1).unwrap();
        assert_eq!(entries[2].warm_up, Some((first, vec![50, 100])));
        assert_eq!((&entries[3].limited, entries[3].connections), (&Limited::Relay, Some(20)));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_the_name_of_its_entry_and_field() {
        let rate = "messages = 1\nper_seconds = 1";
        for (entry, field) in [
            (format!("{rate}\n"), "domain"),
            (format!("{rate}\ndomain = \"gmail.com\"\nrelay = true"), "domain"),
            (format!("{rate}\nrelay = false"), "relay"),
            (format!("{rate}\ndomain = \"gmail\""), "domain"),
            (format!("{rate}\ndomain = 1"), "domain"),
            (format!("{rate}\ndomains = []"), "domains"),
            (format!("{rate}\ndomains = [\"*\"]"), "domains"),
            ("relay = true".to_owned(), "messages"),
            ("relay = true\nmessages = 1".to_owned(), "per_seconds"),
            ("relay = true\nper_seconds = 1".to_owned(), "messages"),
            ("relay = true\nmessages = 0\nper_seconds = 1".to_owned(), "messages"),
            ("relay = true\nmessages = 1\nper_seconds = 604801".to_owned(), "per_seconds"),
            ("relay = true\nconnections = \"5\"".to_owned(), "connections"),
            ("relay = true\nwarm_up_from = 2026-12-01".to_owned(), "warm_up"),
            ("relay = true\nwarm_up = [2, 1]\nwarm_up_from = 2026-12-01".to_owned(), "warm_up"),
            ("relay = true\nwarm_up = []\nwarm_up_from = 2026-12-01".to_owned(), "warm_up"),
            ("relay = true\nwarm_up = [1]".to_owned(), "warm_up_from"),
            ("relay = true\nwarm_up = [1]\nwarm_up_from = \"soon\"".to_owned(), "warm_up_from"),
        ] {
            let error = of_file(&format!("[[limits]]\ndomain = \"a.example\"\n{rate}\n[[limits]]\n{entry}"));
            let error = error.unwrap_err();
            assert!(error.starts_with(&format!("limits[2].{field} in tidings.toml ")), "{entry}: {error}");
        }
        assert!(of_file("limits = 1").unwrap_err().contains("[[limits]]"));
        assert!(of_file("[[limits]]\nmessage = 1").unwrap_err().contains("\"message\""));
    }

    #[test]
    fn nothing_is_limited_by_two_entries() {
        let twice = |one: &str, other: &str| {
            of_file(&format!("[[limits]]\n{one}\nconnections = 1\n[[limits]]\n{other}\nconnections = 2"))
        };
        assert!(twice("relay = true", "relay = true").unwrap_err().starts_with("limits[2].relay"));
        assert!(twice("domain = \"*\"", "domain = \"*\"").unwrap_err().starts_with("limits[2].domain"));
        let shared = twice("domain = \"a.example\"", "domains = [\"b.example\", \"A.example\"]");
        assert!(shared.unwrap_err().starts_with("limits[2].domain"));
        assert_eq!(twice("domain = \"*\"", "domain = \"a.example\"").unwrap().len(), 2);
    }
}
