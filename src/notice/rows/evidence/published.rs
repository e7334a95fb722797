//! The first entry of a chain: what was published, by its hashes. And what the messages of rounds are made from, whose hashes
//! are in the entries of the rounds.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr};
use sha2::{Digest, Sha256};

use super::append;
use crate::brand;
use crate::db::{Db, Write};
use crate::id::NoticeId;
use crate::message;
use crate::notice::evidence::body::{Published, Text, Version};
use crate::notice::evidence::{Kind, part_file, parts};
use crate::notice::rows::{Notice, RoundText, rounds, texts};
use crate::policy;
use crate::policy::rows::{Policy, Version as Stored};

/// Begins the evidence of a notice: the version with the hashes of its texts, and those of the version before it.
///
/// # Errors
/// The database's own.
pub async fn published(
    txn: &Write,
    db: &Db,
    notice: &Notice,
    policy: &Policy,
    version: &Stored,
) -> Result<(), DbErr> {
    let brand = brand::rows::by_id(&**txn, policy.brand_id).await?;
    let brand = brand.ok_or_else(|| DbErr::RecordNotFound("the brand of a policy".into()))?;
    let before = policy::rows::before(&**txn, version).await?;
    let body = Published {
        policy: policy.slug.clone(),
        title: policy.title.clone(),
        brand: brand.slug,
        brand_name: brand.name,
        version: by_hash(&**txn, version).await?,
        before: match before {
            Some(before) => Some(by_hash(&**txn, &before).await?),
            None => None,
        },
        change: version.change,
        approval: version.approval,
        effective_at: notice.effective_at,
        effective_offset: version.effective_offset,
        complete_by: notice.complete_by,
        on_silence: Some(notice.on_silence),
        on_untold: Some(notice.on_untold),
        two_person: Some(notice.two_person),
        override_reason: version.override_reason.clone(),
        written_by: version.created_by.clone(),
        published_by: version.published_by.clone(),
        released_by: version.released_by.clone(),
    };
    append(txn, db, notice.id, Kind::Published, None, &body).await
}

/// A version by the hashes of its texts.
async fn by_hash(on: &impl ConnectionTrait, version: &Stored) -> Result<Version, DbErr> {
    let texts = policy::rows::texts(on, version.id).await?;
    let text = |text: policy::rows::Text| Text {
        language: text.language,
        title: text.title,
        summary: text.summary,
        sha256: hex::encode(&text.sha256),
    };
    Ok(Version { number: version.number, texts: texts.into_iter().map(text).collect() })
}

/// What the messages of all rounds of a notice are made from, each piece once, by the name of its file in an archive.
///
/// # Errors
/// The database's own.
pub async fn made_from(
    on: &impl ConnectionTrait,
    notice: NoticeId,
) -> Result<BTreeMap<String, String>, DbErr> {
    let mut found = BTreeMap::new();
    for round in rounds(on, notice).await? {
        for content in texts(on, round.id).await?.iter().flat_map(RoundText::contents) {
            let Some(frozen) = message::rows::load(on, content).await? else { continue };
            let parts = parts(&frozen).map_err(|error| DbErr::Json(error.to_string()))?;
            let named = |part: String| (part_file(&hex::encode(Sha256::digest(&part))), part);
            found.extend(parts.map(named));
        }
    }
    Ok(found)
}
