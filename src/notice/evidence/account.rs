//! What a chain says of its notice as a whole, and what an archive of it therefore has to hold. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::archive::{README, text_file};
use super::body::{Exported, Published};
use super::summary::{Summary, page, read};
use super::{Entry, Head, Kind, Story, part_file};
use crate::clock::{Local, Timestamp};
use crate::id::NoticeId;

/// What a chain says, entry by entry, in memory that grows with the rounds and not with the people.
#[derive(Clone, Debug)]
pub struct Account {
    /// Of which notice.
    pub notice: NoticeId,
    /// What became of it.
    pub story: Story,
    /// What it amounts to.
    pub counts: Summary,
    /// The last entry, by number and hash.
    pub head: Head,
    /// When it was made.
    pub at: Timestamp,
    /// What it says, where it tells of an export.
    pub exported: Option<Exported>,
}

/// A file that an archive has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// What one is that has another: "README.txt …".
    pub otherwise: String,
}

impl Account {
    /// Of a chain without entries.
    pub fn new(notice: NoticeId) -> Self {
        Self {
            notice,
            story: Story::default(),
            counts: Summary::default(),
            head: Head::start(),
            at: Timestamp(0),
            exported: None,
        }
    }

    /// Takes the next entry into account.
    pub fn take(&mut self, entry: &Entry) {
        self.story.take(entry);
        self.counts.take(entry);
        self.head = Head { seq: entry.seq, hash: entry.hash.clone() };
        self.at = entry.at;
        self.exported = if entry.kind == Kind::Exported.as_str() { read(entry) } else { None };
    }

    /// What was published, and the export that ended the chain.
    ///
    /// # Errors
    /// Which entry does not tell of it.
    pub fn ends(&self) -> Result<(&Published, &Exported), String> {
        let published = self.story.published.as_ref();
        let published = published.ok_or("entry 1 does not tell what was published")?;
        let exported = self.exported.as_ref();
        let exported = exported.ok_or_else(|| {
            format!("entry {}, the last one, does not tell that it was exported", self.head.seq)
        })?;
        Ok((published, exported))
    }

    /// Every file that an archive has to hold beside the chain and the manifest: nothing else belongs into it.
    ///
    /// # Errors
    /// What of the chain no archive can be made of.
    pub fn files(&self) -> Result<BTreeMap<String, Bound>, String> {
        let (published, exported) = self.ends()?;
        let mut files = BTreeMap::new();
        let mut add = |file: String, sha256: &str, otherwise: String| {
            files.insert(file, Bound { sha256: sha256.to_owned(), otherwise });
        };
        let sum = |text: &str| hex::encode(Sha256::digest(text));
        add("README.txt".to_owned(), &sum(README), "is not what Tidings writes there".to_owned());
        let summary = self.summary()?;
        add("summary.html".to_owned(), &sum(&summary), "is not what the entries amount to".to_owned());
        for version in std::iter::once(&published.version).chain(&published.before) {
            for text in &version.texts {
                let otherwise = "is not the text that entry 1 names".to_owned();
                add(text_file(version.number, &text.language), &text.sha256, otherwise);
            }
        }
        for (seq, round) in &self.story.rounds {
            for (_, sha256) in round.told.iter().flat_map(|told| told.hashes()) {
                add(part_file(sha256), sha256, format!("is not what entry {seq} names"));
            }
        }
        if let Some(sha256) = &exported.sample_sha256 {
            let otherwise = format!("is not the sample that entry {} names", self.head.seq);
            add("sample.eml".to_owned(), sha256, otherwise);
        }
        Ok(files)
    }

    /// `summary.html`.
    ///
    /// # Errors
    /// As [`Account::files`].
    pub fn summary(&self) -> Result<String, String> {
        let (published, exported) = self.ends()?;
        page(&self.seen(published, exported))
    }

    /// What the summary's page shows.
    fn seen(&self, published: &Published, exported: &Exported) -> Value {
        let Published { policy, title, brand_name, version, before, change, approval, .. } = published;
        let (effective_at, complete_by) =
            self.story.dates.unwrap_or((published.effective_at, published.complete_by));
        let texts = std::iter::once(version).chain(before).flat_map(|version| {
            let named = |text| (version.number, text);
            version.texts.iter().map(named)
        });
        let texts: Vec<Value> = texts
            .map(|(n, text)| json!({ "file": text_file(n, &text.language), "sha256": text.sha256 }))
            .collect();
        json!({
            "policy": { "slug": policy, "title": title },
            "brand": { "name": brand_name },
            "version": version.number,
            "before": before.as_ref().map(|before| before.number),
            "change": change,
            "approval": approval,
            "effective_at": Local { at: effective_at, east: self.story.effective_offset },
            "complete_by": complete_by,
            "state": self.story.state(),
            "notice": self.notice,
            "summaries": version.texts,
            "counts": self.counts,
            "texts": texts,
            "sample": exported.sample_sha256,
            "head": { "seq": self.head.seq, "hash": hex::encode(&self.head.hash) },
            "made_at": self.at,
            "made_by": exported.program,
        })
    }
}
