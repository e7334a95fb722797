//! An archive verified: every file and everything in the manifest against the chain.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::chain::NOTHING;
use super::super::{Account, Break, Entry, Fault, Head, Verifier};
use super::{CHAIN, FORMAT, HeadSum, MANIFEST, Manifest, Sum, Summing};
use crate::id::NoticeId;

/// Longest manifest in octets.
const MAX_MANIFEST: u64 = 64 * 1024 * 1024;
/// Longest line of the chain in octets.
const MAX_LINE: u64 = 4 * 1024 * 1024;
/// Most files of an archive.
const MAX_FILES: usize = 100_000;

/// Why an archive is no proof.
#[derive(Debug, thiserror::Error)]
pub enum Unsound {
    /// It cannot be read to its end as what it should be.
    #[error("it is no whole archive of evidence: {0}")]
    Archive(String),
    /// It was made by another version of the program.
    #[error(
        "its form is {0}, not {FORMAT}: verify it with the version of Tidings that made it, or export it anew"
    )]
    Form(u32),
    /// The chain breaks.
    #[error("the evidence of notice {notice} breaks: {broken}")]
    Chain {
        /// Of which notice.
        notice: NoticeId,
        /// Where.
        broken: Break,
    },
    /// The chain is whole and lacks what every archive has.
    #[error("the evidence of notice {notice} breaks: {what}")]
    Lacks {
        /// Of which notice.
        notice: NoticeId,
        /// Where.
        what: String,
    },
    /// A file is missing, does not belong there, or is not what the chain says.
    #[error("the evidence of notice {notice} breaks: {file} {what}")]
    File {
        /// Of which notice.
        notice: NoticeId,
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// The manifest is not what the chain and the files amount to.
    #[error("the evidence of notice {notice} breaks: {MANIFEST} does not say what the entries say: {what}")]
    Manifest {
        /// Of which notice.
        notice: NoticeId,
        /// Which field.
        what: String,
    },
}

impl From<io::Error> for Unsound {
    fn from(error: io::Error) -> Self {
        Self::Archive(error.to_string())
    }
}

/// Reads an archive to its end and verifies it: the chain by itself, every file and the manifest by the chain. Needs nothing
/// but the archive, and so cannot tell one that was written anew as a whole: compare the head that it gives.
///
/// # Errors
/// What is wrong with it first, the chain before all else.
pub fn verify(archive: impl Read) -> Result<Manifest, Unsound> {
    let mut read = Contents::default();
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(archive)));
    // As they stand: whatever would say otherwise of a file than its own header is no plain file.
    for file in tar.entries()?.raw(true) {
        let mut file = file?;
        let name = String::from_utf8_lossy(&file.path_bytes()).into_owned();
        if !file.header().entry_type().is_file() {
            return Err(Unsound::Archive(format!("{name:?} is no plain file")));
        }
        if read.files.contains_key(&name) || read.files.len() == MAX_FILES {
            return Err(Unsound::Archive(format!("{name:?} is in it twice, or there are too many files")));
        }
        let mut file = Summing { from: &mut file, sum: Sha256::new(), octets: 0 };
        match name.as_str() {
            CHAIN => read.chain(&mut file)?,
            MANIFEST => read.manifest(&mut file)?,
            _ => {}
        }
        io::copy(&mut file, &mut io::sink())?;
        let sum = file.sum();
        read.files.insert(name, sum);
    }
    nothing_more(tar.into_inner())?;
    read.judge()
}

/// After the last file come zeros, the sum of the compressed data, and the end.
fn nothing_more<R: BufRead>(mut rest: GzDecoder<R>) -> Result<(), Unsound> {
    let mut piece = [0; 4096];
    let more = || Unsound::Archive("something follows the last file".to_owned());
    loop {
        match rest.read(&mut piece)? {
            0 => break,
            read if piece[..read].iter().any(|octet| *octet != 0) => return Err(more()),
            _ => {}
        }
    }
    let mut rest = rest.into_inner();
    if rest.fill_buf()?.is_empty() { Ok(()) } else { Err(more()) }
}

/// What of a manifest is looked at before it is compared as a whole.
#[derive(Deserialize)]
struct Claim {
    format: u32,
    notice: NoticeId,
    head: HeadSum,
}

/// What there is in an archive.
#[derive(Default)]
struct Contents {
    files: BTreeMap<String, Sum>,
    manifest: Option<Vec<u8>>,
    verifier: Verifier,
    account: Option<Account>,
    /// The line that is none, counted as entries are.
    unreadable: Option<i64>,
}

impl Contents {
    fn manifest(&mut self, from: impl Read) -> Result<(), Unsound> {
        let mut text = Vec::new();
        from.take(MAX_MANIFEST).read_to_end(&mut text)?;
        self.manifest = Some(text);
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
            self.account.get_or_insert_with(|| Account::new(entry.notice)).take(&entry);
            self.verifier.push(entry);
        }
    }

    fn judge(self) -> Result<Manifest, Unsound> {
        let Self { files, manifest: written, verifier, account, unreadable } = self;
        let written = written.ok_or_else(|| Unsound::Archive(format!("{MANIFEST} is missing")))?;
        let unread =
            |error: serde_json::Error| Unsound::Archive(format!("{MANIFEST} cannot be read ({error})"));
        let said: Value = serde_json::from_slice(&written).map_err(unread)?;
        let Claim { format, notice, head } = Claim::deserialize(&said).map_err(unread)?;
        if format != FORMAT {
            return Err(Unsound::Form(format));
        }
        let wrong =
            |file: &str, what: &str| Unsound::File { notice, file: file.to_owned(), what: what.to_owned() };
        if !files.contains_key(CHAIN) {
            return Err(wrong(CHAIN, "is missing"));
        }
        let head = Head { seq: head.seq, hash: hex::decode(&head.hash).unwrap_or_else(|_| NOTHING.to_vec()) };
        let chain = |broken| Unsound::Chain { notice, broken };
        match (unreadable, verifier.finish(Some(&head))) {
            (Some(seq), Ok(_)) => return Err(chain(Break { seq, fault: Fault::Changed })),
            (Some(seq), Err(broken)) if broken.seq >= seq => {
                return Err(chain(Break { seq, fault: Fault::Changed }));
            }
            (_, Err(broken)) => return Err(chain(broken)),
            (None, Ok(_)) => {}
        }
        let account = account.unwrap_or_else(|| Account::new(notice));
        let bound = account.files().map_err(|what| Unsound::Lacks { notice, what })?;
        for (file, bound) in &bound {
            match files.get(file) {
                None => return Err(wrong(file, "is missing")),
                Some(found) if found.sha256 != bound.sha256 => return Err(wrong(file, &bound.otherwise)),
                Some(_) => {}
            }
        }
        let mut files = files;
        files.remove(MANIFEST);
        let known = |file: &String| *file == CHAIN || bound.contains_key(file);
        if let Some(unknown) = files.keys().find(|file| !known(file)) {
            return Err(wrong(&format!("{unknown:?}"), "does not belong into it"));
        }
        let manifest = Manifest::new(&account, files).map_err(|what| Unsound::Lacks { notice, what })?;
        if manifest.to_file().map_err(unread)? != written {
            let true_one = serde_json::to_value(&manifest).map_err(unread)?;
            let what = differs("", &said, &true_one).unwrap_or_else(|| "how it is written".to_owned());
            return Err(Unsound::Manifest { notice, what });
        }
        Ok(manifest)
    }
}

/// The first field in which two values differ, by its path.
fn differs(path: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let all = other.keys().chain(one.keys().filter(|key| !other.contains_key(*key)));
            all.into_iter().find_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (one.get(key), other.get(key)) {
                    (Some(one), Some(other)) => differs(&path, one, other),
                    _ => Some(path),
                }
            })
        }
        _ => (one != other).then(|| path.to_owned()),
    }
}
