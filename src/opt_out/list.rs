//! Lists of opt-outs as text: CSV lines read one by one in bounded memory.
//!
//! Pure but for the stream it reads. No reason repeats an address.

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::events::Channel;
use super::words::ScopeWords;
use crate::address::{AddressHash, AddressKey, EmailAddress};
use crate::clock::Timestamp;

/// Longest line in octets.
const MAX_LINE: u64 = 4096;
/// Characters that tell which key made a hash.
const CHECK: usize = 8;

/// A hash as an export writes it: eight characters of the address key's check value, a dot, the hash.
pub fn write_hash(key: &AddressKey, hash: &AddressHash) -> String {
    format!("{}.{}", check(key), hash.to_text())
}

fn check(key: &AddressKey) -> String {
    let mut text = AddressHash(key.check_value()).to_text();
    text.truncate(CHECK);
    text
}

/// A hash whose key is not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedHash {
    check: String,
    hash: AddressHash,
}

impl KeyedHash {
    fn parse(text: &str) -> Option<Self> {
        let (check, hash) = text.split_once('.')?;
        let hash = AddressHash::from_text(hash)?;
        (check.len() == CHECK).then(|| Self { check: check.to_owned(), hash })
    }

    /// The hash, if this key made it.
    ///
    /// # Errors
    /// When another key did: then it would match nobody here.
    pub fn read(self, key: &AddressKey) -> Result<AddressHash, String> {
        if self.check == check(key) {
            return Ok(self.hash);
        }
        Err("the hash was made with another address key; use a list with addresses".to_owned())
    }
}

/// Whom a line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// By address.
    Address(EmailAddress),
    /// By hash.
    Hash(KeyedHash),
}

/// An opt-out of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub whose: Whose,
    /// Of what, when the line says so.
    pub scope: Option<ScopeWords>,
    /// How it was said, when the line says so.
    pub channel: Option<Channel>,
    /// When it was said, when the line says so.
    pub time: Option<Timestamp>,
}

/// Which column holds what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    address: usize,
    scope: Option<usize>,
    channel: Option<usize>,
    time: Option<usize>,
}

impl Layout {
    /// The layout that the first line tells, and whether that line is a header.
    ///
    /// # Errors
    /// When it is a header with a column that is not known, or without the address.
    pub fn of(first: &[String]) -> Result<(Self, bool), String> {
        let names: Vec<String> = first.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        let at = |wanted: &[&str]| names.iter().position(|name| wanted.contains(&name.as_str()));
        let (scope, channel, time) = (at(&["scope"]), at(&["channel"]), at(&["time"]));
        let Some(address) = at(&["address", "email"]) else {
            if [scope, channel, time].iter().any(Option::is_some) {
                return Err("the header has no column address or email".to_owned());
            }
            return Ok((Self { address: 0, scope: Some(1), channel: Some(2), time: Some(3) }, false));
        };
        let known = ["address", "email", "scope", "channel", "time"];
        if let Some(n) = names.iter().position(|name| !known.contains(&name.as_str())) {
            return Err(format!("column {} of the header is none of {}", n + 1, known.join(", ")));
        }
        Ok((Self { address, scope, channel, time }, true))
    }

    /// What a line says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, fields: &[String]) -> Result<Entry, String> {
        let field = |at: Option<usize>| {
            at.and_then(|at| fields.get(at)).map(|field| field.trim()).filter(|field| !field.is_empty())
        };
        let whose = field(Some(self.address)).ok_or("the address is missing")?;
        let whose = match KeyedHash::parse(whose).filter(|_| !whose.contains('@')) {
            Some(hash) => Whose::Hash(hash),
            None => Whose::Address(EmailAddress::parse(whose).map_err(|error| error.to_string())?),
        };
        let channel = field(self.channel).map(str::parse).transpose();
        Ok(Entry {
            whose,
            scope: field(self.scope).map(str::parse).transpose()?,
            channel: channel.map_err(|_| "the channel is not known".to_owned())?,
            time: field(self.time)
                .map(str::parse)
                .transpose()
                .map_err(|_| "the time must be of the form 2027-01-31T00:00:00Z".to_owned())?,
        })
    }
}

/// A line that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number from 1.
    pub number: u64,
    /// Its fields, or why it has none.
    pub fields: Result<Vec<String>, String>,
}

/// Lines as they arrive. A field has no line ends in it.
pub struct Lines<R> {
    source: R,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Of this source.
    pub fn new(source: R) -> Self {
        Self { source, number: 0 }
    }

    /// The next line that is not empty; none at the end.
    ///
    /// # Errors
    /// When the source breaks off.
    pub async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.source).take(MAX_LINE + 1).read_until(b'\n', &mut line).await?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.len() as u64 > MAX_LINE && line.last() != Some(&b'\n') {
                self.skip_line().await?;
                let reason = format!("the line is longer than {MAX_LINE} octets");
                return Ok(Some(Line { number: self.number, fields: Err(reason) }));
            }
            if self.number == 1 && line.starts_with(b"\xef\xbb\xbf") {
                line.drain(..3);
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return Ok(Some(Line { number: self.number, fields: fields(&line) }));
        }
    }

    async fn skip_line(&mut self) -> std::io::Result<()> {
        loop {
            let mut rest = Vec::new();
            let read = (&mut self.source).take(MAX_LINE).read_until(b'\n', &mut rest).await?;
            if read == 0 || rest.last() == Some(&b'\n') {
                return Ok(());
            }
        }
    }
}

fn fields(line: &[u8]) -> Result<Vec<String>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?;
    let mut csv = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line.as_bytes());
    match csv.records().next() {
        Some(Ok(record)) => Ok(record.iter().map(str::to_owned).collect()),
        _ => Err("the line is not CSV".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(fields: &[&str]) -> Vec<String> {
        fields.iter().map(|field| (*field).to_owned()).collect()
    }

    #[test]
    fn a_header_may_come_in_any_order_or_not_at_all() {
        let (layout, header) = Layout::of(&row(&["time", "Email"])).unwrap();
        assert!(header);
        let entry = layout.read(&row(&["2026-01-01T00:00:00Z", " ann@example.org "])).unwrap();
        assert_eq!(entry.time, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        let (layout, header) = Layout::of(&row(&["ann@example.org"])).unwrap();
        assert!(!header);
        assert_eq!(layout.read(&row(&["ann@example.org"])).unwrap().scope, None);
        assert!(Layout::of(&row(&["email", "colour"])).unwrap_err().contains("column 2"));
        assert!(Layout::of(&row(&["scope", "time"])).is_err());
    }

    #[test]
    fn a_hash_is_taken_only_under_the_key_that_made_it() {
        let (key, other) = (AddressKey::generate(), AddressKey::generate());
        let hash = key.hash(&EmailAddress::parse("ann@example.org").unwrap());
        let (layout, _) = Layout::of(&row(&["address"])).unwrap();
        let entry = layout.read(&row(&[&write_hash(&key, &hash)])).unwrap();
        let Whose::Hash(read) = entry.whose else { panic!("a hash") };
        assert_eq!(read.clone().read(&key), Ok(hash));
        assert!(read.read(&other).is_err());
    }

    #[test]
    fn no_reason_repeats_what_stood_there() {
        let (layout, _) = Layout::of(&row(&["address", "scope", "channel", "time"])).unwrap();
        for fields in [
            row(&["ada example.org"]),
            row(&["ada@example.org", "ada@x.org"]),
            row(&["ada@example.org", "all", "ada@x.org"]),
            row(&["ada@example.org", "all", "phone", "ada@x.org"]),
        ] {
            assert!(!layout.read(&fields).unwrap_err().contains("ada"), "{fields:?}");
        }
    }

    #[tokio::test]
    async fn lines_are_counted_and_long_or_broken_ones_do_not_end_the_list() {
        let long = "x".repeat(10_000);
        let text = format!("\u{feff}a,b\r\n\r\n{long}\n\"c\",d\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(b"\xff\xfe\nlast");
        let mut lines = Lines::new(bytes.as_slice());
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            seen.push((line.number, line.fields.map_err(|_| ())));
        }
        let ok = |fields: &[&str]| Ok(row(fields));
        assert_eq!(
            seen,
            [(1, ok(&["a", "b"])), (3, Err(())), (4, ok(&["c", "d"])), (5, Err(())), (6, ok(&["last"]))]
        );
    }

    proptest! {
        #[test]
        fn any_octets_are_read_to_their_end_without_a_panic(
            octets in prop::collection::vec(any::<u8>(), 0..300),
            text in "(email|scope|ann@b.example|all|\\{\"brand\":\"a\"\\}|phone|[,\"\n\r:.]|2026-01-01T00:00:00Z){0,20}",
            header in any::<bool>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for file in [octets, text.into_bytes()] {
                let mut whole = if header { b"address,scope,channel,time\n".to_vec() } else { Vec::new() };
                whole.extend(file);
                let most = whole.iter().filter(|&&octet| octet == b'\n').count() as u64 + 1;
                let mut lines = Lines::new(whole.as_slice());
                let mut layout = None;
                let mut last = 0;
                while let Some(line) = runtime.block_on(lines.next()).unwrap() {
                    prop_assert!(line.number > last && line.number <= most);
                    last = line.number;
                    let Ok(fields) = line.fields else { continue };
                    if layout.is_none() {
                        layout = Layout::of(&fields).ok();
                    }
                    if let Some((layout, _)) = &layout {
                        let _ = layout.read(&fields);
                    }
                }
            }
        }
    }
}
