//! A content beside another one, and the end of one that nothing points to.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, DbErr, IntoActiveModel};

use super::content;
use crate::db::{Db, Write};
use crate::id::ContentId;

/// Makes a copy of frozen content under a new id, not held: what a test send hands over while the campaign itself waits.
/// Returns false when there is nothing frozen under `from`.
///
/// # Errors
/// The database's own.
pub async fn copy(txn: &Write, db: &Db, from: ContentId, to: ContentId) -> Result<bool, DbErr> {
    let Some(frozen) =
        content::Entity::find_by_id(from).filter(content::Column::FrozenAt.is_not_null()).one(&**txn).await?
    else {
        return Ok(false);
    };
    let now = db.read_clock(&**txn).await?;
    let mut row = frozen.into_active_model().reset_all();
    row.id = ActiveValue::Set(to);
    row.digest = ActiveValue::Set(None);
    row.held = ActiveValue::Set(false);
    row.created_at = ActiveValue::Set(now);
    content::Entity::insert(row).exec_without_returning(&**txn).await?;
    Ok(true)
}

/// Deletes content that no delivery and no campaign points to.
///
/// # Errors
/// The database's own; what something points to stays.
pub async fn remove(txn: &Write, id: ContentId) -> Result<(), DbErr> {
    content::Entity::delete_by_id(id).exec(&**txn).await?;
    Ok(())
}
