//! Changes of a notice that one key asked for and another one has to release, where the policy wants two people.
//!
//! Whether something waits is looked at under the notice's lock, so that what waits is carried out once.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue, IntoActiveModel};

use super::{Notice, request};
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::id::NoticeId;
use crate::notice::{NoticeError, Request, State};
use crate::policy;

/// What somebody asked for, as stored.
pub type Waiting = request::Model;

/// Who carries a change out.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// With which key.
    pub actor: &'a str,
    /// Who asked for it, where that was somebody else.
    pub asked_by: Option<&'a str>,
}

/// Whether a change of this notice takes two people: as its policy said when it was published, or says now.
///
/// # Errors
/// The database's own.
pub async fn takes_two(on: &impl ConnectionTrait, notice: &Notice) -> Result<bool, DbErr> {
    if notice.two_person {
        return Ok(true);
    }
    Ok(policy::rows::by_id(on, notice.policy_id).await?.is_some_and(|policy| policy.two_person))
}

/// What waits to be released; none while nothing does, and once the notice's day has come.
///
/// # Errors
/// The database's own.
pub async fn requested(on: &impl ConnectionTrait, notice: &Notice) -> Result<Option<Waiting>, DbErr> {
    let found = request::Entity::find_by_id(notice.id).one(on).await?;
    Ok(found.filter(|found| found.released_at.is_none() && notice.state == State::Running))
}

/// Keeps what somebody asks for until somebody else releases it. It takes the place of what was asked before; asked for
/// again by the same key, it stays as it is. Says whether it is new.
///
/// # Errors
/// That there is no such notice, or the database's own.
pub async fn ask(
    txn: &Write,
    db: &Db,
    id: NoticeId,
    change: Request,
    asked: Json,
    actor: &str,
) -> Result<bool, NoticeError> {
    let notice = super::locked(txn, id).await?.ok_or(NoticeError::Gone)?;
    if notice.state != State::Running {
        return Err(NoticeError::Conflict(
            "The notice has ended meanwhile: nothing about it changes any more.".to_owned(),
        ));
    }
    if let Some(waits) = requested(&**txn, &notice).await?
        && (waits.change, &waits.request, waits.asked_by.as_str()) == (change, &asked, actor)
    {
        return Ok(false);
    }
    let made = Waiting {
        notice_id: id,
        change,
        request: asked,
        asked_by: actor.to_owned(),
        asked_at: db.read_clock(&**txn).await?,
        released_by: None,
        released_at: None,
    };
    let all = [
        request::Column::Change,
        request::Column::Request,
        request::Column::AskedBy,
        request::Column::AskedAt,
        request::Column::ReleasedBy,
        request::Column::ReleasedAt,
    ];
    request::Entity::insert(request::ActiveModel::from(made))
        .on_conflict(OnConflict::column(request::Column::NoticeId).update_columns(all).to_owned())
        .exec_without_returning(&**txn)
        .await?;
    Ok(true)
}

/// Takes up what waits, for somebody else than who asked for it, and of a certain moment where one is named. Whatever keeps
/// it from being carried out leaves it waiting, with the transaction. None when it was released before.
///
/// # Errors
/// That nothing waits, or something else, or for somebody else.
pub async fn take_up(
    txn: &Write,
    db: &Db,
    id: NoticeId,
    asked_at: Option<Timestamp>,
    actor: &str,
) -> Result<Option<Waiting>, NoticeError> {
    // The policy first, as whoever changes the notice does.
    super::change::locked_after_its_policy(txn, id).await?;
    let found = request::Entity::find_by_id(id).one(&**txn).await?;
    let Some(waits) = found else {
        return Err(NoticeError::Conflict("Nothing about this notice waits to be released.".to_owned()));
    };
    if asked_at.is_some_and(|asked_at| asked_at != waits.asked_at) {
        let (at, stands) =
            (waits.asked_at, if waits.released_at.is_some() { "was released" } else { "waits" });
        return Err(NoticeError::Conflict(format!(
            "What was asked for at {at} {stands} by now: look at it, and release what waits if you agree."
        )));
    }
    if waits.released_at.is_some() {
        return Ok(None);
    }
    let what = format!("To {} the notice was asked for", waits.change);
    policy::must_be_another(&what, Some(&waits.asked_by), actor).map_err(NoticeError::SomebodyElse)?;
    let mut row = waits.clone().into_active_model();
    row.released_by = ActiveValue::Set(Some(actor.to_owned()));
    row.released_at = ActiveValue::Set(Some(db.read_clock(&**txn).await?));
    request::Entity::update(row).exec(&**txn).await?;
    Ok(Some(waits))
}

/// Takes back what waits to be released; gives it, if anything did.
///
/// # Errors
/// That there is no such notice, or the database's own.
pub async fn take_back(txn: &Write, id: NoticeId) -> Result<Option<Waiting>, NoticeError> {
    super::locked(txn, id).await?.ok_or(NoticeError::Gone)?;
    let found = request::Entity::find_by_id(id).one(&**txn).await?;
    let Some(waits) = found.filter(|found| found.released_at.is_none()) else { return Ok(None) };
    request::Entity::delete_by_id(id).exec(&**txn).await?;
    Ok(Some(waits))
}
