//! Recipients added to a campaign by lines.
//!
//! A line never changes somebody who is stored already, and says nothing about what they refused.

use sea_orm::{DbBackend, DbErr};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::AsyncRead;
use tokio_util::task::AbortOnDropHandle;

use super::{locked, steps};
use crate::address::{AddressKey, EmailAddress};
use crate::campaign::{CampaignError, Change};
use crate::db::{Db, Write};
use crate::delivery::{self, NewDelivery};
use crate::id::{CampaignId, DeliveryId};
use crate::recipient;
use crate::recipient::import::{self, Extra, Format, ImportError, Lines, Rejections};
use crate::recipient::rows::Newcomer;

/// Most octets of one line's data, written as JSON.
const MAX_DATA: usize = 16 * 1024;

/// One person to be written to.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The address; somebody not known yet becomes a recipient of the campaign's brand.
    pub address: EmailAddress,
    /// The name, for somebody not known yet.
    pub name: Option<String>,
    /// Laid over the campaign's data, key by key.
    pub data: Map<String, Value>,
}

/// What became of a file of lines; `received` is the sum of `added`, `already_there` and `rejected`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LinesReport {
    /// Lines in the file, without the header and empty ones.
    pub received: u64,
    /// People who are in the campaign now and were not before.
    pub added: u64,
    /// People who were in the campaign already; the first line counts.
    pub already_there: u64,
    /// Lines that could not be used.
    #[serde(flatten)]
    pub rejections: Rejections,
}

/// Why a file of lines was not added whole. What was added before stays; the same file can be sent again.
#[derive(Debug, thiserror::Error)]
pub enum LinesFailure {
    /// The file.
    #[error(transparent)]
    File(#[from] ImportError),
    /// The campaign, or the database.
    #[error(transparent)]
    Campaign(#[from] CampaignError),
}

impl From<DbErr> for LinesFailure {
    fn from(error: DbErr) -> Self {
        Self::Campaign(error.into())
    }
}

/// Adds every line of a file, in bounded memory and one transaction a chunk. `progress` is told how far it has come.
///
/// # Errors
/// See [`LinesFailure`].
pub async fn add_all(
    db: &Db,
    key: &AddressKey,
    id: CampaignId,
    source: impl AsyncRead + Unpin,
    format: Format,
    mut progress: impl FnMut(&LinesReport),
) -> Result<LinesReport, LinesFailure> {
    let most = if db.backend() == DbBackend::Postgres { 4000 } else { 1000 };
    let mut report = LinesReport::default();
    let mut file = Lines::open(source, format, Extra::Data).await?;
    // An empty file, too, is told when the campaign takes no lines.
    add_chunk(db.clone(), key.clone(), id, Chunk::default()).await?;
    let mut adding: Option<AbortOnDropHandle<Result<Added, CampaignError>>> = None;
    loop {
        // The next lines are read and checked here while a task of its own and the database add those before.
        let read = file.next(most).await;
        if let Some(added) = adding.take() {
            let added = added.await.map_err(|error| DbErr::Custom(format!("a task ended: {error}")))??;
            report.count(added);
            progress(&report);
        }
        let chunk = Chunk::new(read?);
        if chunk.received == 0 {
            return Ok(report);
        }
        adding = Some(AbortOnDropHandle::new(tokio::spawn(add_chunk(db.clone(), key.clone(), id, chunk))));
    }
}

impl LinesReport {
    fn count(&mut self, Added { chunk, added }: Added) {
        self.received += chunk.received;
        self.added += added;
        self.already_there += chunk.lines.len() as u64 - added;
        for (number, reason) in chunk.rejected {
            self.rejections.add(number, reason);
        }
    }
}

/// Lines of a file, ready to be added.
#[derive(Default)]
struct Chunk {
    received: u64,
    rejected: Vec<(u64, String)>,
    lines: Vec<Line>,
}

impl Chunk {
    fn new(read: Vec<import::Line>) -> Self {
        let mut chunk = Self { received: read.len() as u64, ..Self::default() };
        for import::Line { number, record } in read {
            match record {
                Ok(record) if too_large(&record.extra) => {
                    let reason = format!("the data is longer than {MAX_DATA} octets as JSON");
                    chunk.rejected.push((number, reason));
                }
                Ok(record) => {
                    chunk.lines.push(Line { address: record.email, name: record.name, data: record.extra });
                }
                Err(reason) => chunk.rejected.push((number, reason)),
            }
        }
        chunk
    }
}

/// A chunk, and how many of its people were not in the campaign before.
struct Added {
    chunk: Chunk,
    added: u64,
}

fn too_large(data: &Map<String, Value>) -> bool {
    !data.is_empty() && serde_json::to_vec(data).map_or(true, |json| json.len() > MAX_DATA)
}

async fn add_chunk(db: Db, key: AddressKey, id: CampaignId, chunk: Chunk) -> Result<Added, CampaignError> {
    let txn = db.begin().await?;
    let added = add_lines(&txn, &db, &key, id, &chunk.lines).await?;
    txn.commit().await?;
    Ok(Added { chunk, added })
}

/// Adds these people and says how many were not in the campaign before. Some thousand at a time: until the transaction
/// ends the campaign and whoever is new stay locked.
///
/// # Errors
/// The state that forbids it.
pub async fn add_lines(
    txn: &Write,
    db: &Db,
    key: &AddressKey,
    id: CampaignId,
    lines: &[Line],
) -> Result<u64, CampaignError> {
    let campaign = locked(txn, id).await?;
    Change::AddLines.permit(campaign.state)?;
    if lines.is_empty() {
        return Ok(0);
    }
    let newcomers: Vec<Newcomer> = lines
        .iter()
        .map(|line| Newcomer { address: line.address.clone(), name: line.name.clone() })
        .collect();
    let people = recipient::rows::ensure_lines(txn, db, key, &newcomers, campaign.brand_id).await?;
    let new: Vec<NewDelivery> = lines
        .iter()
        .zip(people)
        .map(|(line, (recipient, address_hash))| NewDelivery {
            id: DeliveryId::new(),
            recipient,
            address_hash,
            data: (!line.data.is_empty()).then(|| Value::Object(line.data.clone())),
        })
        .collect();
    let stream = steps::stream(txn, &campaign).await?;
    Ok(delivery::rows::enqueue(txn, db, &stream, &new).await?)
}
