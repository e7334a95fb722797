//! Events, suppressions and the facts of the decision, in the database.

mod entities;
mod export;
mod facts;
mod health;
mod named;
mod record;
mod refuse;
mod subject;

pub use entities::event;
pub use export::{Cursor, Standing, knows, standing_after};
pub use facts::{FACTS, Wanted, facts_of, facts_of_p, known_among, scope_keys, to_facts};
pub use health::{record_failure, revive, revive_window, set_standing};
pub use named::{UnknownName, explain, flights_in_words, kept_for_customer, scope_of, topic_of, words_of};
pub use record::{Undone, record_opt_in, undo, undo_said};
pub use refuse::{Recorded, Refused, record_opt_outs};
pub use subject::{Subject, subjects_of};

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};

use super::events::{Scope, Stood};
use crate::address::AddressHash;
use crate::decision::Said;
use crate::id::{BrandId, TopicId};

/// What stands for this person, one entry a scope.
///
/// # Errors
/// The database's own.
pub async fn standing_words(on: &impl ConnectionTrait, hash: &AddressHash) -> Result<Vec<Stood>, DbErr> {
    let rows = entities::suppression::Entity::find()
        .filter(entities::suppression::Column::AddressHash.eq(hash.clone()))
        .all(on)
        .await?;
    rows.into_iter().map(to_stood).collect()
}

/// Every event of this person, oldest first.
///
/// # Errors
/// The database's own.
pub async fn history(on: &impl ConnectionTrait, hash: &AddressHash) -> Result<Vec<event::Model>, DbErr> {
    event::Entity::find()
        .filter(event::Column::AddressHash.eq(hash.clone()))
        .order_by_asc(event::Column::Seq)
        .all(on)
        .await
}

fn to_stood(row: entities::suppression::Model) -> Result<Stood, DbErr> {
    Ok(Stood {
        scope: to_scope(&row.scope_kind, row.brand_id, row.topic_id)?,
        said: to_said(&row.said)?,
        seq: row.seq,
        complaint: row.complaint,
        event: row.event_id,
    })
}

/// The scope that a row's three columns name.
///
/// # Errors
/// When they name none; that cannot be written.
pub fn to_scope(kind: &str, brand: Option<BrandId>, topic: Option<TopicId>) -> Result<Scope, DbErr> {
    match (kind, brand, topic) {
        ("all", None, None) => Ok(Scope::All),
        ("brand", Some(brand), None) => Ok(Scope::Brand(brand)),
        ("topic", Some(brand), Some(topic)) => Ok(Scope::Topic(brand, topic)),
        _ => Err(DbErr::Type(format!("no scope of kind {kind:?} with these ids"))),
    }
}

fn to_said(word: &str) -> Result<Said, DbErr> {
    match word {
        "opt_out" => Ok(Said::OptOut),
        "opt_in" => Ok(Said::OptIn),
        _ => Err(DbErr::Type(format!("nothing is said by {word:?}"))),
    }
}
