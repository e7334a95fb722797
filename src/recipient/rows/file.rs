//! Storing a whole file of people.

use std::collections::HashSet;

use sea_orm::{DbBackend, DbErr};
use serde::Serialize;
use tokio::io::AsyncRead;
use tokio_util::task::AbortOnDropHandle;

use super::{Line, upsert_lines};
use crate::address::{AddressHash, AddressKey};
use crate::db::Db;
use crate::id::BrandId;
use crate::recipient::change::{Membership, Outcome, Upsert, Upserted};
use crate::recipient::import::{self, Extra, Format, ImportError, Lines, Record, Rejections};

/// How many addresses of a file are remembered: 64 MB at most.
const MAX_SEEN: usize = 3_600_000;

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ImportReport {
    /// Records in the file, without the header and empty lines.
    pub received: u64,
    /// People who are new.
    pub created: u64,
    /// People of whom something changed.
    pub updated: u64,
    /// People of whom all was stored already.
    pub unchanged: u64,
    /// Records whose address stood further up in the file; the first counts.
    pub duplicates: u64,
    /// Records that could not be used.
    #[serde(flatten)]
    pub rejections: Rejections,
}

/// Why a file was not stored whole. What was stored before stays stored; the same file can be sent again.
#[derive(Debug, thiserror::Error)]
pub enum ImportFailure {
    /// The file.
    #[error(transparent)]
    File(#[from] ImportError),
    /// The database.
    #[error("the database failed: {0}")]
    Db(#[from] DbErr),
}

/// Stores every line of a file, in bounded memory and one transaction a chunk. `brand` is that of a key bound to one:
/// somebody new belongs to it alone, somebody known joins it; without it somebody new belongs to every brand.
/// `progress` is told after each chunk what became of the file so far.
///
/// Of several records with one address the first counts and the others are `duplicates`. So that memory stays bounded
/// this holds for the first 3,600,000 addresses of a file; a later one that comes again is stored again, which changes
/// nothing but the count.
///
/// # Errors
/// See [`ImportFailure`].
pub async fn import_all(
    db: &Db,
    key: &AddressKey,
    source: impl AsyncRead + Unpin,
    format: Format,
    brand: Option<BrandId>,
    mut progress: impl FnMut(&ImportReport),
) -> Result<ImportReport, ImportFailure> {
    let most = most_lines(db);
    let mut lines = Lines::open(source, format, Extra::Attributes).await?;
    let mut seen = Seen::default();
    let mut report = ImportReport::default();
    let mut storing: Option<AbortOnDropHandle<Result<Stored, DbErr>>> = None;
    loop {
        // The next lines are read, checked and hashed here while a task of its own and the database store those before.
        let read = lines.next(most).await;
        let chunk = read.map(|lines| (!lines.is_empty()).then(|| Chunk::new(lines, key, brand, &mut seen)));
        if let Some(stored) = storing.take() {
            let stored = stored.await.map_err(|error| DbErr::Custom(format!("a task ended: {error}")))??;
            report.count(stored);
            progress(&report);
        }
        let Some(chunk) = chunk? else { return Ok(report) };
        storing = Some(AbortOnDropHandle::new(tokio::spawn(store(db.clone(), chunk))));
    }
}

/// Lines stored in one transaction. On SQLite whoever opts out meanwhile waits for it.
fn most_lines(db: &Db) -> usize {
    if db.backend() == DbBackend::Postgres { 4000 } else { 1000 }
}

impl ImportReport {
    fn count(&mut self, stored: Stored) {
        let Chunk { received, duplicates, mut rejected, numbers, .. } = stored.chunk;
        self.received += received;
        self.duplicates += duplicates;
        for (number, answer) in numbers.into_iter().zip(stored.answers) {
            match answer.outcome {
                Outcome::Created => self.created += 1,
                Outcome::Updated => self.updated += 1,
                Outcome::Unchanged => self.unchanged += 1,
                Outcome::Erased => {
                    let reason = "the person behind this address was erased; nothing was stored";
                    rejected.push((number, reason.to_owned()));
                }
            }
        }
        rejected.sort_by_key(|(number, _)| *number);
        for (number, reason) in rejected {
            self.rejections.add(number, reason);
        }
    }
}

/// The addresses that a file has held so far, as half-length hashes: 64 bits of a keyed HMAC, so that nobody can make
/// two addresses meet on purpose and two of a million meet by chance once in thirty million files.
#[derive(Default)]
struct Seen(HashSet<u64>);

impl Seen {
    fn is_new(&mut self, hash: &AddressHash) -> bool {
        let short = hash.0.iter().take(8).fold(0, |short, &octet| short << 8 | u64::from(octet));
        if self.0.len() < MAX_SEEN { self.0.insert(short) } else { !self.0.contains(&short) }
    }
}

/// What some lines of a file say, ready to be stored.
#[derive(Default)]
struct Chunk {
    received: u64,
    duplicates: u64,
    rejected: Vec<(u64, String)>,
    /// The number of each of `lines` in the file.
    numbers: Vec<u64>,
    lines: Vec<Line>,
}

impl Chunk {
    fn new(read: Vec<import::Line>, key: &AddressKey, brand: Option<BrandId>, seen: &mut Seen) -> Self {
        let mut chunk = Self::default();
        for import::Line { number, record } in read {
            chunk.received += 1;
            match record.map(|record| Line::new(as_upsert(record, brand), key)) {
                Err(reason) => chunk.rejected.push((number, reason)),
                Ok(line) if !seen.is_new(line.hash()) => chunk.duplicates += 1,
                Ok(line) => {
                    chunk.numbers.push(number);
                    chunk.lines.push(line);
                }
            }
        }
        chunk
    }
}

/// A chunk with what became of each line.
struct Stored {
    chunk: Chunk,
    answers: Vec<Upserted>,
}

fn as_upsert(record: Record, brand: Option<BrandId>) -> Upsert {
    let Record { email, name, external_id, locale, tags, extra } = record;
    let mut said = Upsert::new(email);
    said.name = name.map(Some);
    said.external_id = external_id.map(Some);
    said.locale = locale.map(Some);
    said.tags = tags;
    said.attributes = extra;
    said.membership = brand.map_or(Membership::Unsaid, Membership::Join);
    said
}

async fn store(db: Db, chunk: Chunk) -> Result<Stored, DbErr> {
    if chunk.lines.is_empty() {
        return Ok(Stored { chunk, answers: Vec::new() });
    }
    let txn = db.begin().await?;
    let answers = upsert_lines(&txn, &db, &chunk.lines).await?;
    txn.commit().await?;
    Ok(Stored { chunk, answers })
}
