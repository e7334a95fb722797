//! The export: one `.tar.gz` that holds the chain and all that its hashes speak of, written and verified as a stream.
//!
//! | file | holds | is bound by |
//! |---|---|---|
//! | `evidence.ndjson` | the chain, an entry a line | itself, as far as its head is known |
//! | `texts/{version}.{language}.md` | the version and the one before it, Markdown | entry 1 |
//! | `parts/{sha256}.txt` | what the messages were made from | the entry `round` that names it |
//! | `sample.eml` | a message as somebody made up would get it; its links lead nowhere | the last entry, `exported` |
//! | `summary.html` | what it amounts to, in words | the chain, from which it is written anew |
//! | `README.txt` | what this is, and how to verify it, with this program or without | this program |
//! | `manifest.json` | what the archive is of, the head, and the SHA-256 of each file | all of these, from which it is written anew |
//!
//! So nothing in an archive is believed for its own sake, and nothing else belongs into it. What nobody can see offline is
//! whether all of it, every entry included, was written anew: that shows the hash of the head, noted elsewhere. What the
//! headers of tar and gzip say of times and owners is nothing that is proved.
//!
//! A form is for good: whoever changes what is written here raises [`FORMAT`] and keeps what verifies the former one. Form 1 bound
//! less to the entries and was never released: what it holds is exported again.

mod verify;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Account;
use super::summary::Summary;
use crate::clock::Timestamp;
use crate::id::NoticeId;

pub use verify::{Unsound, verify};

/// The chain's file.
pub const CHAIN: &str = "evidence.ndjson";
/// The file that names the others.
pub const MANIFEST: &str = "manifest.json";
/// What explains the archive.
pub const README: &str = include_str!("../../../templates/evidence/README.txt");
/// The form of archives that is written and read here.
pub const FORMAT: u32 = 2;

/// The file of a text.
pub fn text_file(version: i64, language: &str) -> String {
    let safe: String =
        language.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("texts/{version}.{safe}.md")
}

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// Its length in octets.
    pub octets: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// A brand or policy by its name in paths and the one for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// In paths.
    pub slug: String,
    /// For people.
    pub title: String,
}

/// The last entry of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadSum {
    /// Its number.
    pub seq: i64,
    /// Its hash, hexadecimal.
    pub hash: String,
}

/// What an archive is of: nothing but what its chain and files say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The form of the archive.
    pub format: u32,
    /// Of which notice.
    pub notice: NoticeId,
    /// Of which policy.
    pub policy: Named,
    /// Of which brand.
    pub brand: Named,
    /// The version.
    pub version: i64,
    /// The version before it.
    pub before: Option<i64>,
    /// When it was exported.
    pub made_at: Timestamp,
    /// By which program.
    pub made_by: String,
    /// The chain's last entry.
    pub head: HeadSum,
    /// What the chain amounts to.
    pub counts: Summary,
    /// Every other file.
    pub files: BTreeMap<String, Sum>,
}

impl Manifest {
    /// What the chain says of an archive that holds these files.
    ///
    /// # Errors
    /// What the chain does not say.
    pub fn new(account: &Account, files: BTreeMap<String, Sum>) -> Result<Self, String> {
        let (published, exported) = account.ends()?;
        Ok(Self {
            format: FORMAT,
            notice: account.notice,
            policy: Named { slug: published.policy.clone(), title: published.title.clone() },
            brand: Named { slug: published.brand.clone(), title: published.brand_name.clone() },
            version: published.version.number,
            before: published.before.as_ref().map(|before| before.number),
            made_at: account.at,
            made_by: exported.program.clone(),
            head: HeadSum { seq: account.head.seq, hash: hex::encode(&account.head.hash) },
            counts: account.counts.clone(),
            files,
        })
    }

    /// It as a file.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn to_file(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// An archive that is being written.
pub struct Writer<W: Write> {
    tar: tar::Builder<GzEncoder<W>>,
    files: BTreeMap<String, Sum>,
    made_at: Timestamp,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    pub fn new(to: W, made_at: Timestamp) -> Self {
        let tar = tar::Builder::new(GzEncoder::new(to, Compression::default()));
        Self { tar, files: BTreeMap::new(), made_at }
    }

    /// Adds a file of so many octets.
    ///
    /// # Errors
    /// When it cannot be read or written, or is shorter.
    pub fn add(&mut self, name: &str, octets: u64, from: impl Read) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(octets);
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(self.made_at.0 / 1_000_000).unwrap_or(0));
        let mut from = Summing { from: from.take(octets), sum: Sha256::new(), octets: 0 };
        self.tar.append_data(&mut header, name, &mut from)?;
        if from.octets != octets {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{name} is shorter than it was"),
            ));
        }
        self.files.insert(name.to_owned(), from.sum());
        Ok(())
    }

    /// Adds the manifest and ends the archive.
    ///
    /// # Errors
    /// When it cannot be written; what the chain does not say.
    pub fn finish(mut self, account: &Account) -> io::Result<W> {
        let manifest = Manifest::new(account, std::mem::take(&mut self.files)).map_err(io::Error::other)?;
        let text = manifest.to_file()?;
        self.add(MANIFEST, text.len() as u64, text.as_slice())?;
        self.tar.into_inner()?.finish()
    }
}

/// A reader that sums up what passes through.
struct Summing<R> {
    from: R,
    sum: Sha256,
    octets: u64,
}

impl<R> Summing<R> {
    fn sum(self) -> Sum {
        Sum { octets: self.octets, sha256: hex::encode(self.sum.finalize()) }
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.sum.update(&into[..read]);
        self.octets += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
