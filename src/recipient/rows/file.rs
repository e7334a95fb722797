//! Storing a whole file of people.

use std::collections::HashSet;

use sea_orm::{DbErr, RuntimeErr};
use serde::Serialize;
use tokio::io::AsyncRead;

use super::upsert_lines;
use crate::address::{AddressHash, AddressKey};
use crate::db::Db;
use crate::id::BrandId;
use crate::recipient::change::{Membership, Outcome, Upsert, Upserted};
use crate::recipient::import::{Extra, Format, ImportError, Line, Lines, Record, Rejections};

/// Lines stored in one transaction. Fourteen columns a row stay under SQLite's limit of 32,766 values.
const CHUNK: usize = 1000;
/// How often a chunk is tried when uploads collide.
const TRIES: u32 = 5;
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
    let mut lines = Lines::open(source, format, Extra::Attributes).await?;
    let mut seen = Seen::default();
    let mut report = ImportReport::default();
    let mut chunk = sort_out(lines.next(CHUNK).await?, key, brand, &mut seen, &mut report);
    loop {
        // The next lines are read while the database stores these.
        let (stored, next) = tokio::join!(store(db, key, &chunk), lines.next(CHUNK));
        for (said, answer) in chunk.iter().zip(stored?) {
            report.count(said.line, answer.outcome);
        }
        progress(&report);
        let next = next?;
        if next.is_empty() {
            return Ok(report);
        }
        chunk = sort_out(next, key, brand, &mut seen, &mut report);
    }
}

impl ImportReport {
    fn count(&mut self, line: u64, outcome: Outcome) {
        match outcome {
            Outcome::Created => self.created += 1,
            Outcome::Updated => self.updated += 1,
            Outcome::Unchanged => self.unchanged += 1,
            Outcome::Erased => {
                self.rejections
                    .add(line, "the person behind this address was erased; nothing was stored".to_owned());
            }
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

/// What one line says, ready to be stored.
struct Said {
    line: u64,
    upsert: Upsert,
}

fn sort_out(
    lines: Vec<Line>,
    key: &AddressKey,
    brand: Option<BrandId>,
    seen: &mut Seen,
    report: &mut ImportReport,
) -> Vec<Said> {
    let mut chunk = Vec::with_capacity(lines.len());
    for Line { number, record } in lines {
        report.received += 1;
        match record {
            Err(reason) => report.rejections.add(number, reason),
            Ok(record) if !seen.is_new(&key.hash(&record.email)) => report.duplicates += 1,
            Ok(record) => chunk.push(Said { line: number, upsert: as_upsert(record, brand) }),
        }
    }
    chunk
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

async fn store(db: &Db, key: &AddressKey, chunk: &[Said]) -> Result<Vec<Upserted>, DbErr> {
    if chunk.is_empty() {
        return Ok(Vec::new());
    }
    let said: Vec<Upsert> = chunk.iter().map(|said| said.upsert.clone()).collect();
    let mut tries = 1;
    loop {
        match store_once(db, key, &said).await {
            Err(error) if tries < TRIES && is_collision(&error) => tries += 1,
            done => return done,
        }
    }
}

async fn store_once(db: &Db, key: &AddressKey, said: &[Upsert]) -> Result<Vec<Upserted>, DbErr> {
    let txn = db.begin().await?;
    let answers = upsert_lines(&txn, db, key, said).await?;
    txn.commit().await?;
    Ok(answers)
}

/// Whether PostgreSQL gave the transaction up because another wanted the same rows the other way round.
fn is_collision(error: &DbErr) -> bool {
    let (DbErr::Query(RuntimeErr::SqlxError(error)) | DbErr::Exec(RuntimeErr::SqlxError(error))) = error
    else {
        return false;
    };
    error
        .as_database_error()
        .and_then(|error| error.code())
        .is_some_and(|code| code == "40P01" || code == "40001")
}
