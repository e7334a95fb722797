//! Recipients added to a campaign by lines.
//!
//! A line never changes somebody who is stored already, and says nothing about what they refused.

use sea_orm::DbErr;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::AsyncRead;

use super::{locked, steps};
use crate::address::{AddressKey, EmailAddress};
use crate::campaign::{CampaignError, Change};
use crate::db::{Db, Write};
use crate::delivery::{self, NewDelivery};
use crate::id::{CampaignId, DeliveryId};
use crate::recipient;
use crate::recipient::import::{Extra, Format, ImportError, Lines, Rejections};
use crate::recipient::rows::Newcomer;

/// Lines of one transaction.
const CHUNK: usize = 500;
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
    let mut report = LinesReport::default();
    let mut file = Lines::open(source, format, Extra::Data).await?;
    // An empty file, too, is told when the campaign takes no lines.
    add_chunk(db, key, id, &[], &mut report).await?;
    loop {
        let read = file.next(CHUNK).await?;
        if read.is_empty() {
            return Ok(report);
        }
        let mut lines = Vec::with_capacity(read.len());
        for line in read {
            report.received += 1;
            match line.record {
                Ok(record) if too_large(&record.extra) => {
                    let reason = format!("the data is longer than {MAX_DATA} octets as JSON");
                    report.rejections.add(line.number, reason);
                }
                Ok(record) => {
                    lines.push(Line { address: record.email, name: record.name, data: record.extra });
                }
                Err(reason) => report.rejections.add(line.number, reason),
            }
        }
        add_chunk(db, key, id, &lines, &mut report).await?;
        progress(&report);
    }
}

fn too_large(data: &Map<String, Value>) -> bool {
    serde_json::to_vec(data).map_or(true, |json| json.len() > MAX_DATA)
}

async fn add_chunk(
    db: &Db,
    key: &AddressKey,
    id: CampaignId,
    lines: &[Line],
    report: &mut LinesReport,
) -> Result<(), LinesFailure> {
    let txn = db.begin().await?;
    let added = add_lines(&txn, db, key, id, lines).await?;
    txn.commit().await?;
    report.added += added;
    report.already_there += lines.len() as u64 - added;
    Ok(())
}

/// Adds these people, at most 1,000 at a time, and says how many were not in the campaign before.
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
        .map(|(line, person)| NewDelivery {
            id: DeliveryId::new(),
            recipient: person.id,
            address_hash: key.hash(&line.address),
            data: (!line.data.is_empty()).then(|| Value::Object(line.data.clone())),
        })
        .collect();
    let stream = steps::stream(txn, &campaign).await?;
    Ok(delivery::rows::enqueue(txn, db, &stream, &new).await?)
}
