//! The export: one `.tar.gz` that holds the chain and all that its hashes speak of, written and verified as a stream.
//!
//! | file | holds |
//! |---|---|
//! | `README.txt` | what this is, and how to verify it, with this program or without |
//! | `summary.html` | what it amounts to, in words |
//! | `texts/{version}.{language}.md` | the version and the one before it, Markdown |
//! | `sample.eml` | the message as somebody made up would get it; its links lead nowhere |
//! | `evidence.ndjson` | the chain, an entry a line |
//! | `manifest.json` | what the archive is of, the head, and the SHA-256 of each file |

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::body::{Published, Version};
use super::chain::NOTHING;
use super::summary::{Summary, read};
use super::{Break, Entry, Fault, Head, Kind, Verifier, hex, unhex};
use crate::clock::Timestamp;
use crate::id::NoticeId;

/// The chain's file.
pub const CHAIN: &str = "evidence.ndjson";
/// The file that names the others.
pub const MANIFEST: &str = "manifest.json";
/// What explains the archive.
pub const README: &str = include_str!("../../../templates/evidence/README.txt");
/// The form of archives that is written and read here.
const FORMAT: u32 = 1;
/// Longest manifest in octets.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Longest line of the chain in octets.
const MAX_LINE: u64 = 4 * 1024 * 1024;
/// Most files of an archive.
const MAX_FILES: usize = 10_000;

/// The file of a text.
pub fn text_file(version: i64, language: &str) -> String {
    let safe: String =
        language.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("texts/{version}.{safe}.md")
}

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Its length in octets.
    pub octets: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// A brand or policy by its name in paths and the one for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What an archive is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When it was made.
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

/// What a manifest says beside what the files themselves tell.
#[derive(Clone, Debug)]
pub struct About {
    /// Of which notice.
    pub notice: NoticeId,
    /// What was published.
    pub published: Published,
    /// When the archive is made.
    pub made_at: Timestamp,
    /// By which program.
    pub made_by: String,
    /// The chain's last entry.
    pub head: Head,
    /// What the chain amounts to.
    pub counts: Summary,
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
        let sha256 = hex(&from.sum.finalize());
        self.files.insert(name.to_owned(), Sum { octets, sha256 });
        Ok(())
    }

    /// Adds the manifest and ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, about: About) -> io::Result<W> {
        let About { notice, published, made_at, made_by, head, counts } = about;
        let manifest = Manifest {
            format: FORMAT,
            notice,
            policy: Named { slug: published.policy, title: published.title },
            brand: Named { slug: published.brand, title: published.brand_name },
            version: published.version.number,
            before: published.before.map(|before| before.number),
            made_at,
            made_by,
            head: HeadSum { seq: head.seq, hash: hex(&head.hash) },
            counts,
            files: std::mem::take(&mut self.files),
        };
        let mut text = serde_json::to_vec_pretty(&manifest)?;
        text.push(b'\n');
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

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.sum.update(&into[..read]);
        self.octets += read as u64;
        Ok(read)
    }
}

/// Why an archive is no proof.
#[derive(Debug, thiserror::Error)]
pub enum Unsound {
    /// It cannot be read to its end as what it should be.
    #[error("it is no whole archive of evidence: {0}")]
    Archive(String),
    /// The chain breaks.
    #[error("the evidence of notice {notice} breaks: {broken}")]
    Chain {
        /// Of which notice.
        notice: NoticeId,
        /// Where.
        broken: Break,
    },
    /// A text is not what was published.
    #[error("the evidence of notice {notice} breaks: {file} is not the text that entry {seq} names")]
    Text {
        /// Of which notice.
        notice: NoticeId,
        /// The file.
        file: String,
        /// The entry that tells of the publication.
        seq: i64,
    },
    /// A file is not what the manifest says.
    #[error("in the evidence of notice {notice}, {file} {what}")]
    File {
        /// Of which notice.
        notice: NoticeId,
        /// The file.
        file: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What the manifest says is not what the chain amounts to.
    #[error("the manifest of notice {notice} says what the chain does not: its {what}")]
    Manifest {
        /// Of which notice.
        notice: NoticeId,
        /// What it says.
        what: &'static str,
    },
}

impl From<io::Error> for Unsound {
    fn from(error: io::Error) -> Self {
        Self::Archive(error.to_string())
    }
}

/// Reads an archive to its end and verifies it: the chain, the texts against the hashes in the chain, the manifest against
/// chain and files. Needs nothing but the archive.
///
/// # Errors
/// What is wrong with it first, the chain before all else.
pub fn verify(archive: impl Read) -> Result<Manifest, Unsound> {
    let mut read = Contents::default();
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    for file in tar.entries()? {
        let mut file = file?;
        let name = String::from_utf8_lossy(&file.path_bytes()).into_owned();
        if !file.header().entry_type().is_file() {
            return Err(Unsound::Archive(format!("{name} is no plain file")));
        }
        if read.files.contains_key(&name) || read.files.len() == MAX_FILES {
            return Err(Unsound::Archive(format!("{name} is in it twice, or there are too many files")));
        }
        let mut file = Summing { from: &mut file, sum: Sha256::new(), octets: 0 };
        match name.as_str() {
            CHAIN => read.chain(&mut file)?,
            MANIFEST => read.manifest(&mut file)?,
            _ => {}
        }
        io::copy(&mut file, &mut io::sink())?;
        read.files.insert(name, Sum { octets: file.octets, sha256: hex(&file.sum.finalize()) });
    }
    // To the end of the compressed data, which has a sum of its own.
    io::copy(&mut tar.into_inner(), &mut io::sink())?;
    read.judge()
}

/// What there is in an archive.
#[derive(Default)]
struct Contents {
    files: BTreeMap<String, Sum>,
    manifest: Option<Manifest>,
    verifier: Verifier,
    notice: Option<NoticeId>,
    /// The line that is none, counted as entries are.
    unreadable: Option<i64>,
    published: Option<(i64, Published)>,
    counts: Summary,
}

impl Contents {
    fn manifest(&mut self, from: impl Read) -> Result<(), Unsound> {
        let manifest = serde_json::from_reader(from.take(MAX_MANIFEST));
        let manifest: Manifest =
            manifest.map_err(|error| Unsound::Archive(format!("{MANIFEST} cannot be read ({error})")))?;
        if manifest.format != FORMAT {
            return Err(Unsound::Archive(format!("its form is {}, not {FORMAT}", manifest.format)));
        }
        self.manifest = Some(manifest);
        Ok(())
    }

    fn chain(&mut self, from: impl Read) -> Result<(), Unsound> {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
            let Some(entry) = text.and_then(Entry::from_line) else {
                // Where it stands is its number, as far as all fitted before.
                self.unreadable = Some(self.verifier.count() + 1);
                return Ok(());
            };
            self.notice.get_or_insert(entry.notice);
            self.counts.take(&entry);
            if self.published.is_none() && entry.kind == Kind::Published.as_str() {
                self.published = read_published(&entry);
            }
            self.verifier.push(entry);
        }
    }

    fn judge(self) -> Result<Manifest, Unsound> {
        let Self { files, manifest, verifier, notice: found, unreadable, published, counts } = self;
        let manifest = manifest.ok_or_else(|| Unsound::Archive(format!("{MANIFEST} is missing")))?;
        let notice = manifest.notice;
        let chain = |broken| Unsound::Chain { notice, broken };
        let head = unhex(&manifest.head.hash).unwrap_or_else(|| NOTHING.to_vec());
        let head = Head { seq: manifest.head.seq, hash: head };
        match (unreadable, verifier.finish(Some(&head))) {
            (Some(seq), Ok(_)) => return Err(chain(Break { seq, fault: Fault::Changed })),
            (Some(seq), Err(broken)) if broken.seq >= seq => {
                return Err(chain(Break { seq, fault: Fault::Changed }));
            }
            (_, Err(broken)) => return Err(chain(broken)),
            (None, Ok(_)) => {}
        }
        if found.is_some_and(|found| found != notice) {
            return Err(Unsound::Manifest { notice, what: "notice" });
        }
        let (seq, published) = published.ok_or(Unsound::Manifest { notice, what: "version" })?;
        for version in std::iter::once(&published.version).chain(&published.before) {
            texts_fit(version, &files).map_err(|file| Unsound::Text { notice, file, seq })?;
        }
        let said = (manifest.version, manifest.before, manifest.policy.slug.as_str());
        let before = published.before.as_ref().map(|before| before.number);
        if said != (published.version.number, before, published.policy.as_str()) {
            return Err(Unsound::Manifest { notice, what: "version" });
        }
        if manifest.counts != counts {
            return Err(Unsound::Manifest { notice, what: "counts" });
        }
        files_fit(&manifest, &files).map_err(|(file, what)| Unsound::File { notice, file, what })?;
        Ok(manifest)
    }
}

fn read_published(entry: &Entry) -> Option<(i64, Published)> {
    Some((entry.seq, read(entry)?))
}

/// Otherwise the file that does not fit.
fn texts_fit(version: &Version, files: &BTreeMap<String, Sum>) -> Result<(), String> {
    for text in &version.texts {
        let file = text_file(version.number, &text.language);
        if files.get(&file).is_none_or(|sum| sum.sha256 != text.sha256) {
            return Err(file);
        }
    }
    Ok(())
}

/// Otherwise the first file that is not as the manifest says, and what is wrong.
fn files_fit(manifest: &Manifest, files: &BTreeMap<String, Sum>) -> Result<(), (String, &'static str)> {
    for (name, sum) in &manifest.files {
        match files.get(name) {
            None => return Err((name.clone(), "is missing")),
            Some(found) if found != sum => return Err((name.clone(), "is not what the manifest says")),
            Some(_) => {}
        }
    }
    let unknown = files.keys().find(|name| *name != MANIFEST && !manifest.files.contains_key(*name));
    unknown.map_or(Ok(()), |name| Err((name.clone(), "is not in the manifest")))
}

#[cfg(test)]
mod tests;
