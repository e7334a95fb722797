//! What stands, for a list that can be carried elsewhere or taken back in after a restored backup.

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use std::collections::HashMap;

use super::entities::{event, suppression};
use super::to_stood;
use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::decision::Said;
use crate::id::BrandId;
use crate::opt_out::events::{Scope, Stood};

/// An opt-out that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose.
    pub address_hash: AddressHash,
    /// Of what.
    pub scope: Scope,
    /// How it was said.
    pub channel: String,
    /// When it was said, as far as known; else when it was recorded.
    pub at: Timestamp,
}

/// Where a page of the list ended: give it to get the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(AddressHash, String);

/// The opt-outs that stand, by address hash, `limit` rows looked at a call (at most 1,000); with a brand only those
/// that touch it. The cursor is none after the last page.
///
/// # Errors
/// The database's own.
pub async fn standing_after(
    on: &impl ConnectionTrait,
    after: Option<&Cursor>,
    brand: Option<BrandId>,
    limit: u64,
) -> Result<(Vec<Standing>, Option<Cursor>), DbErr> {
    use suppression::Column;
    let mut query = suppression::Entity::find()
        .filter(Column::Said.eq("opt_out"))
        .order_by_asc(Column::AddressHash)
        .order_by_asc(Column::ScopeKey)
        .limit(limit);
    if let Some(Cursor(hash, key)) = after {
        let further =
            Condition::all().add(Column::AddressHash.eq(hash.clone())).add(Column::ScopeKey.gt(key));
        query = query.filter(Condition::any().add(Column::AddressHash.gt(hash.clone())).add(further));
    }
    if let Some(brand) = brand {
        query = query.filter(Condition::any().add(Column::BrandId.is_null()).add(Column::BrandId.eq(brand)));
    }
    let rows = query.all(on).await?;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok((Vec::new(), None)) };
    let full = u64::try_from(rows.len()).is_ok_and(|len| len == limit);
    let next = full.then(|| Cursor(last.address_hash.clone(), last.scope_key.clone()));
    let opt_ins = opt_ins_between(on, &first.address_hash, &last.address_hash).await?;
    let events: HashMap<_, _> = event::Entity::find()
        .filter(event::Column::Id.is_in(rows.iter().map(|row| row.event_id)))
        .all(on)
        .await?
        .into_iter()
        .map(|event| (event.id, event))
        .collect();
    let mut standing = Vec::with_capacity(rows.len());
    for row in rows {
        let address_hash = row.address_hash.clone();
        let stood = to_stood(row)?;
        let lifted = opt_ins.get(&address_hash).is_some_and(|said| lifted_by(said, &stood));
        if let Some(event) = events.get(&stood.event).filter(|_| !lifted) {
            let at = event.requested_at.unwrap_or(event.recorded_at);
            standing.push(Standing { address_hash, scope: stood.scope, channel: event.channel.clone(), at });
        }
    }
    Ok((standing, next))
}

/// Whether the store knows this very opt-out, standing or not: one of this scope, said or recorded at this moment.
///
/// # Errors
/// The database's own.
pub async fn knows(
    on: &impl ConnectionTrait,
    hash: &AddressHash,
    scope: Scope,
    at: Timestamp,
) -> Result<bool, DbErr> {
    use event::Column;
    let mut query = event::Entity::find()
        .filter(Column::AddressHash.eq(hash.clone()))
        .filter(Column::Said.eq("opt_out"))
        .filter(Column::ScopeKind.eq(scope.kind()))
        .filter(Condition::any().add(Column::RequestedAt.eq(at)).add(Column::RecordedAt.eq(at)));
    if let Some(brand) = scope.brand() {
        query = query.filter(Column::BrandId.eq(brand));
    }
    if let Some(topic) = scope.topic() {
        query = query.filter(Column::TopicId.eq(topic));
    }
    Ok(query.one(on).await?.is_some())
}

async fn opt_ins_between(
    on: &impl ConnectionTrait,
    first: &AddressHash,
    last: &AddressHash,
) -> Result<HashMap<AddressHash, Vec<Stood>>, DbErr> {
    use suppression::Column;
    let rows = suppression::Entity::find()
        .filter(Column::Said.eq("opt_in"))
        .filter(Column::AddressHash.gte(first.clone()))
        .filter(Column::AddressHash.lte(last.clone()))
        .all(on)
        .await?;
    let mut said: HashMap<AddressHash, Vec<Stood>> = HashMap::new();
    for row in rows {
        let hash = row.address_hash.clone();
        said.entry(hash).or_default().push(to_stood(row)?);
    }
    Ok(said)
}

fn lifted_by(opt_ins: &[Stood], opt_out: &Stood) -> bool {
    opt_ins.iter().any(|other| {
        other.said == Said::OptIn && other.seq > opt_out.seq && other.scope.covers(opt_out.scope)
    })
}
