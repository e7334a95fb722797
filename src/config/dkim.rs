//! `[[dkim]]`: for which domains mail is signed, and with which keys.
//!
//! Only names are looked at here; the key files are read when the program starts, which also refuses what they hold
//! when it cannot sign.

use std::path::PathBuf;

use super::ConfigError;

/// Most entries.
const MAX_ENTRIES: usize = 200;
/// Longest domain name in octets.
const MAX_NAME: usize = 253;

/// The names of an entry's fields.
pub(super) const FIELDS: [&str; 3] = ["domain", "selector", "key_file"];

/// An entry as it was given, and where.
pub(super) struct Raw {
    pub(super) place: Place,
    /// In the order of [`FIELDS`].
    pub(super) fields: [String; 3],
}

/// Which entry, counted from 1, and what holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: usize,
    pub(super) source: String,
}

impl Place {
    /// What an error calls a field: `dkim[1].key_file in tidings.toml`.
    pub(super) fn field(&self, name: &str) -> String {
        format!("dkim[{}].{name} in {}", self.number, self.source)
    }
}

/// A key that signs for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimEntry {
    /// The domain that signs, `d=` (RFC 6376 §3.5): A-labels in lower case.
    pub domain: String,
    /// The selector, `s=`: the public key stands in DNS at `selector._domainkey.domain`.
    pub selector: String,
    /// The file of the private key in PEM form.
    pub key_file: PathBuf,
    place: Place,
}

impl DkimEntry {
    /// An entry of somebody who reads no settings file.
    pub fn new(domain: &str, selector: &str, key_file: impl Into<PathBuf>) -> Self {
        let place = Place { number: 1, source: "the settings".to_owned() };
        Self { domain: domain.to_owned(), selector: selector.to_owned(), key_file: key_file.into(), place }
    }

    /// What an error calls its key file: `dkim[1].key_file in tidings.toml`.
    pub fn key_file_name(&self) -> String {
        self.place.field("key_file")
    }
}

/// Reads the form of the environment: `domain:selector:key_file`, parted by commas.
pub(super) fn from_variable(name: &str, value: &str) -> Result<Vec<Raw>, ConfigError> {
    let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let raw = entries.enumerate().map(|(index, entry)| {
        let mut parts = entry.splitn(3, ':').map(|part| part.trim().to_owned());
        let (Some(domain), Some(selector), Some(key_file)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ConfigError(format!(
                "entry {} of {name} must be domain:selector:key_file, such as example.com:s1:/etc/tidings/s1.pem",
                index + 1
            )));
        };
        let place = Place { number: index + 1, source: name.to_owned() };
        Ok(Raw { place, fields: [domain, selector, key_file] })
    });
    raw.collect()
}

/// Reads the form of the file: a list of tables.
pub(super) fn from_file(file: &str, value: &toml::Value) -> Result<Vec<Raw>, ConfigError> {
    let malformed =
        || ConfigError(format!("dkim in {file} must be a list of tables; begin each with [[dkim]]"));
    let entries = value.as_array().ok_or_else(malformed)?;
    let raw = entries.iter().enumerate().map(|(index, entry)| {
        let place = Place { number: index + 1, source: file.to_owned() };
        let table = entry.as_table().ok_or_else(malformed)?;
        if let Some(unknown) = table.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            return Err(ConfigError(format!(
                "dkim[{}] in {file} has a field {unknown:?} that Tidings does not know; it knows domain, selector and \
                 key_file",
                place.number
            )));
        }
        let text = |name: &str| match table.get(name) {
            Some(toml::Value::String(text)) => Ok(text.trim().to_owned()),
            Some(_) => Err(ConfigError(format!("{} must be a text", place.field(name)))),
            None => Err(ConfigError(format!("{} is missing; give it", place.field(name)))),
        };
        let fields = [text(FIELDS[0])?, text(FIELDS[1])?, text(FIELDS[2])?];
        Ok(Raw { place, fields })
    });
    raw.collect()
}

/// Checks the entries.
pub(super) fn entries(raw: &[Raw]) -> Result<Vec<DkimEntry>, ConfigError> {
    if raw.len() > MAX_ENTRIES {
        return Err(ConfigError(format!(
            "there are more than {MAX_ENTRIES} entries of dkim; leave some out"
        )));
    }
    let mut entries: Vec<DkimEntry> = Vec::with_capacity(raw.len());
    for Raw { place, fields: [domain, selector, key_file] } in raw {
        let refuse = |field: &str, what: &str| ConfigError(format!("{} {what}", place.field(field)));
        let domain = ascii_domain(domain).ok_or_else(|| {
            refuse("domain", "must be a domain name of at least two parts, such as example.com")
        })?;
        let selector = selector.to_ascii_lowercase();
        if !is_host_name(&selector) {
            return Err(refuse(
                "selector",
                "must be of letters, digits and hyphens, such as s1: it stands in DNS before ._domainkey",
            ));
        }
        if selector.len() + "._domainkey.".len() + domain.len() > MAX_NAME {
            return Err(refuse(
                "selector",
                "is too long: with the domain it makes no name that DNS can hold",
            ));
        }
        if key_file.is_empty() {
            return Err(refuse("key_file", "is empty; name the file of the private key"));
        }
        if entries.iter().any(|other| other.domain == domain && other.selector == selector) {
            return Err(refuse(
                "selector",
                "stands there twice for this domain; give each key a selector of its own, or leave one out",
            ));
        }
        entries.push(DkimEntry { domain, selector, key_file: key_file.into(), place: place.clone() });
    }
    Ok(entries)
}

/// A domain as A-labels (RFC 5890), when it is one that mail could be from.
pub(super) fn ascii_domain(text: &str) -> Option<String> {
    let ascii = idna::domain_to_ascii_strict(text).ok()?;
    let last_is_a_name =
        ascii.rsplit_once('.').is_some_and(|(_, last)| last.bytes().any(|b| !b.is_ascii_digit()));
    (last_is_a_name && ascii.len() <= MAX_NAME && is_host_name(&ascii)).then_some(ascii)
}

/// Labels of letters, digits and hyphens (RFC 6376 §3.1 takes its sub-domains from RFC 5321 §4.1.2).
fn is_host_name(text: &str) -> bool {
    text.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(text: &str) -> Result<Vec<DkimEntry>, String> {
        let table: toml::Table = text.parse().unwrap();
        from_file("tidings.toml", &table["dkim"])
            .and_then(|raw| entries(&raw))
            .map_err(|error| error.to_string())
    }

    fn of_variable(text: &str) -> Result<Vec<DkimEntry>, String> {
        from_variable("TIDINGS_DKIM", text).and_then(|raw| entries(&raw)).map_err(|error| error.to_string())
    }

    #[test]
    fn entries_are_read_from_file_and_environment() {
        let file = "[[dkim]]\ndomain = \"Bücher.example\"\nselector = \"s1\"\nkey_file = \"a.pem\"\n\
                    [[dkim]]\ndomain = \"b.example\"\nselector = \"x.S2\"\nkey_file = \"/k/b.pem\"";
        let entries = of_file(file).unwrap();
        assert_eq!(entries[0].domain, "xn--bcher-kva.example");
        assert_eq!(
            (entries[1].selector.as_str(), entries[1].key_file.to_str().unwrap()),
            ("x.s2", "/k/b.pem")
        );
        assert_eq!(entries[1].key_file_name(), "dkim[2].key_file in tidings.toml");
        let same = of_variable(" bücher.example:s1:a.pem , b.example:x.s2:/k/b.pem,").unwrap();
        assert_eq!((&same[0].domain, &same[1].key_file), (&entries[0].domain, &entries[1].key_file));
        assert_eq!(
            of_variable("a.example:s:/odd:name.pem").unwrap()[0].key_file.to_str().unwrap(),
            "/odd:name.pem"
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_the_name_of_its_entry_and_field() {
        for (domain, selector, key_file, field) in [
            ("localhost", "s", "k", "domain"),
            ("10.0.0.1", "s", "k", "domain"),
            ("a b.example", "s", "k", "domain"),
            ("a.example\\r\\nX", "s", "k", "domain"),
            ("a..example", "s", "k", "domain"),
            ("a.example.", "s", "k", "domain"),
            ("a.example", "", "k", "selector"),
            ("a.example", "s_1", "k", "selector"),
            ("a.example", "-s", "k", "selector"),
            ("a.example", "s..t", "k", "selector"),
            ("a.example", "s;d=b", "k", "selector"),
            ("a.example", "sélecteur", "k", "selector"),
            ("a.example", "s", " ", "key_file"),
        ] {
            let good = "[[dkim]]\ndomain = \"b.example\"\nselector = \"s\"\nkey_file = \"k\"\n";
            let bad = format!(
                "[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nkey_file = \"{key_file}\"\n"
            );
            let error = of_file(&format!("{good}{bad}")).unwrap_err();
            assert!(
                error.starts_with(&format!("dkim[2].{field} in tidings.toml")),
                "{domain:?} {selector:?}: {error}"
            );
        }
        let long = format!("{}.example:{}:k", ["a".repeat(60).as_str(); 3].join("."), "s".repeat(60));
        assert!(of_variable(&long).unwrap_err().starts_with("dkim[1].selector in TIDINGS_DKIM is too long"));
        assert!(of_variable("a.example:s").unwrap_err().contains("entry 1 of TIDINGS_DKIM"));
        assert!(of_file("dkim = 1").unwrap_err().contains("[[dkim]]"));
        assert!(of_file("[[dkim]]\ndomain = \"a.example\"").unwrap_err().contains("dkim[1].selector"));
        assert!(of_file("[[dkim]]\ndomain = 1").unwrap_err().contains("dkim[1].domain"));
        assert!(of_file("[[dkim]]\nkeyfile = \"k\"").unwrap_err().contains("\"keyfile\""));
    }

    #[test]
    fn a_domain_and_selector_stand_there_once() {
        let error = of_variable("a.example:s1:k,A.example:S1:other").unwrap_err();
        assert!(error.starts_with("dkim[2].selector"), "{error}");
        assert_eq!(of_variable("a.example:s1:k,a.example:s2:k,b.example:s1:k").unwrap().len(), 3);
    }
}
