//! Reminders of what is in force, every so many months, to all who have not refused them and for whom it holds: who did not
//! agree to a text that needs it is not reminded of it.

use std::collections::BTreeMap;

use chrono::Months;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::LockType;
use sea_orm::{ActiveValue, ConnectionTrait, IntoActiveModel, QuerySelect};

use super::open::{Words, begin_round, insert};
use super::{evidence, list, locked, notice, of_version, rounds};
use crate::app::App;
use crate::clock::Timestamp;
use crate::id::PolicyId;
use crate::notice::{NoticeError, RoundKind, State};
use crate::policy;
use crate::policy::rows::{Policy, Version};

/// Notices of a policy that are looked at for their reminders.
const MOST: u64 = 10_000;

/// Reminds people of every policy of which that is due. Says of how many it was.
///
/// # Errors
/// The database's own, or what a reminder cannot be made from.
pub async fn remind(app: &App) -> Result<usize, NoticeError> {
    let on = app.db.reads();
    let now = app.db.read_clock(on).await?;
    let mut reminded = 0;
    for policy in policy::rows::with_reminders(on).await? {
        if due(on, &policy, now).await?.is_some() {
            reminded += usize::from(begin(app, policy.id).await?);
        }
    }
    Ok(reminded)
}

async fn begin(app: &App, id: PolicyId) -> Result<bool, NoticeError> {
    let txn = app.db.begin().await?;
    // Of many processes that look at the same moment one goes on.
    let found = policy::rows::policy::Entity::find_by_id(id).lock(LockType::Update).one(&*txn).await?;
    let Some(policy) = found else { return Ok(false) };
    let now = app.db.read_clock(&*txn).await?;
    let Some(version) = due(&*txn, &policy, now).await? else { return Ok(false) };
    let notice = match of_version(&*txn, version.id).await? {
        Some(notice) => locked(&txn, notice.id).await?.ok_or(NoticeError::Gone)?,
        None => {
            let since = version.holds_from().unwrap_or(now);
            let made = insert(&txn, &policy, &version, since, State::InEffect, now, "worker").await?;
            evidence::published(&txn, &app.db, &made, &policy, &version).await?;
            made
        }
    };
    let mut row = notice.clone().into_active_model();
    row.closed_at = ActiveValue::Set(None);
    notice::Entity::update(row).exec(&*txn).await?;
    let summaries = policy::rows::texts(&*txn, version.id).await?;
    let summaries: BTreeMap<String, String> =
        summaries.into_iter().map(|text| (text.language, String::new())).collect();
    let words = Words {
        kind: RoundKind::Reminder,
        reason: None,
        reasons: BTreeMap::new(),
        summaries,
        actor: "worker",
    };
    begin_round(&txn, app, &notice, &policy, &version, words).await?;
    txn.commit().await?;
    tracing::info!(policy = policy.slug, version = version.number, "reminding people of what is in force");
    Ok(true)
}

/// The version in force of which people are to be reminded now; none when they are not.
async fn due(on: &impl ConnectionTrait, policy: &Policy, now: Timestamp) -> Result<Option<Version>, DbErr> {
    let (Some(months), Some(_)) = (policy.reminder_months, policy.reminder_topic_id) else { return Ok(None) };
    let versions = policy::rows::versions(on, policy.id).await?;
    let in_force = versions.into_iter().rfind(|version| {
        version.state == policy::State::Published && version.holds_from().is_some_and(|since| since <= now)
    });
    let Some(version) = in_force else { return Ok(None) };
    let mut last = version.holds_from().max(version.published_at);
    for notice in list(on, None, Some(policy.id), None, MOST).await? {
        for round in rounds(on, notice.id).await? {
            if round.kind == RoundKind::Reminder {
                last = last.max(Some(round.created_at));
            }
        }
    }
    let months = Months::new(u32::try_from(months).unwrap_or(u32::MAX));
    let next = last.and_then(|last| last.to_datetime().checked_add_months(months));
    Ok(next.is_some_and(|next| next.timestamp_micros() <= now.0).then_some(version))
}
