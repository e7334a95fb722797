//! Storing a whole file of people.

use std::collections::{BTreeSet, HashMap, HashSet};

use sea_orm::{DbBackend, DbErr};
use serde::Serialize;
use tokio::io::AsyncRead;
use tokio_util::task::AbortOnDropHandle;

use super::{Answer, By, Line, upsert_lines};
use crate::address::{AddressHash, AddressKey};
use crate::brand;
use crate::db::Db;
use crate::id::BrandId;
use crate::recipient::change::{Membership, Outcome, Upsert};
use crate::recipient::import::{self, Extra, Format, ImportError, Lines, Record, Rejections};

/// How many addresses of a file are remembered: 64 MB at most.
const MAX_SEEN: usize = 3_600_000;

/// Brands read at once.
const PIECE: u64 = 1_000;

/// What a key may say of people that is bound to one brand.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The brand.
    pub brand: BrandId,
    /// The slugs of its policies: which others people accepted is not for this key to say.
    pub policies: BTreeSet<String>,
}

impl Bound {
    /// The first of these policies that is none of the brand's.
    pub fn strange<'p>(&self, accepted: impl IntoIterator<Item = &'p String>) -> Option<&'p String> {
        accepted.into_iter().find(|slug| !self.policies.contains(*slug))
    }
}

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

/// Stores every line of a file, in bounded memory and one transaction a chunk. With a key that is `bound` to a
/// brand somebody new belongs to it alone, somebody known joins it, and a line that names other brands or their policies is
/// refused; with another one somebody new of whom nothing else is said belongs to every brand. Refused is also a line that names
/// a version which is not published, and one by which a marketer changes what somebody stored accepted.
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
    bound: Option<Bound>,
    by: By,
    mut progress: impl FnMut(&ImportReport),
) -> Result<ImportReport, ImportFailure> {
    let most = most_lines(db);
    let mut lines = Lines::open(source, format, Extra::Attributes).await?;
    let mut seen = Seen::default();
    let brands = Brands::read(db, bound).await?;
    let mut report = ImportReport::default();
    let mut storing: Option<AbortOnDropHandle<Result<Stored, DbErr>>> = None;
    loop {
        // The next lines are read, checked and hashed here while a task of its own and the database store those before.
        let read = lines.next(most).await;
        let chunk = match read {
            Ok(lines) if lines.is_empty() => Ok(None),
            Ok(lines) => Ok(Some(Chunk::new(lines, key, &brands, &mut seen))),
            Err(error) => Err(error),
        };
        if let Some(stored) = storing.take() {
            let stored = stored.await.map_err(|error| DbErr::Custom(format!("a task ended: {error}")))??;
            report.count(stored);
            progress(&report);
        }
        let Some(chunk) = chunk? else { return Ok(report) };
        storing = Some(AbortOnDropHandle::new(tokio::spawn(store(db.clone(), chunk, by))));
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
            match answer.map(|answer| answer.outcome) {
                Err(refused) => rejected.push((number, format!("`policies` {refused}"))),
                Ok(Outcome::Created) => self.created += 1,
                Ok(Outcome::Updated) => self.updated += 1,
                Ok(Outcome::Unchanged) => self.unchanged += 1,
                Ok(Outcome::Erased) => {
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

/// The brands that lines may name, as they are when the file begins, and what a key may say.
struct Brands {
    bound: Option<Bound>,
    all: HashMap<String, BrandId>,
}

impl Brands {
    async fn read(db: &Db, bound: Option<Bound>) -> Result<Self, DbErr> {
        let mut all = HashMap::new();
        let mut after: Option<String> = None;
        loop {
            let piece = brand::rows::list(db.reads(), None, after.as_deref(), PIECE).await?;
            after = piece.last().map(|brand| brand.slug.clone());
            all.extend(piece.into_iter().map(|brand| (brand.slug, brand.id)));
            if after.is_none() {
                return Ok(Self { bound, all });
            }
        }
    }

    /// Which brands a line says that its person belongs to.
    fn of(&self, named: Option<&[String]>) -> Result<Membership, String> {
        let own = self.bound.as_ref().map(|bound| bound.brand);
        let Some(named) = named else { return Ok(own.map_or(Membership::Unsaid, Membership::Join)) };
        let ids: Option<Vec<BrandId>> = named.iter().map(|slug| self.all.get(slug).copied()).collect();
        match (own, ids) {
            (None, Some(ids)) => Ok(Membership::Only(ids)),
            (None, None) => Err("`brands` names a brand that there is not; PUT it first".to_owned()),
            (Some(own), Some(ids)) if ids == [own] => Ok(Membership::Join(own)),
            (Some(_), _) => {
                Err("`brands` must name the key's own brand; this key cannot take people out of it"
                    .to_owned())
            }
        }
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
    fn new(read: Vec<import::Line>, key: &AddressKey, brands: &Brands, seen: &mut Seen) -> Self {
        let mut chunk = Self::default();
        for import::Line { number, record } in read {
            chunk.received += 1;
            match record.and_then(|record| as_upsert(record, brands)).map(|said| Line::new(said, key)) {
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
    answers: Vec<Answer>,
}

/// What a line says, or why it cannot be used.
fn as_upsert(record: Record, of: &Brands) -> Result<Upsert, String> {
    let Record { email, name, external_id, locale, tags, brands, policies, extra } = record;
    let mut said = Upsert::new(email);
    said.name = name.map(Some);
    said.external_id = external_id.map(Some);
    said.locale = locale.map(Some);
    said.tags = tags;
    said.attributes = extra;
    if let Some(bound) = &of.bound
        && let Some(strange) = bound.strange(policies.keys())
    {
        return Err(format!("`policies` names {strange:?}, which is no policy of the key's own brand"));
    }
    said.policies = policies;
    said.membership = of.of(brands.as_deref())?;
    Ok(said)
}

async fn store(db: Db, chunk: Chunk, by: By) -> Result<Stored, DbErr> {
    if chunk.lines.is_empty() {
        return Ok(Stored { chunk, answers: Vec::new() });
    }
    let txn = db.begin().await?;
    let answers = upsert_lines(&txn, &db, &chunk.lines, by).await?;
    txn.commit().await?;
    Ok(Stored { chunk, answers })
}
