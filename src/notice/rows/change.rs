//! What an administrator changes about a running notice: corrected, postponed, withdrawn. Each tells people again.

use std::collections::BTreeMap;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::LockType;
use sea_orm::{ActiveValue, IntoActiveModel, QueryOrder, QuerySelect};

use super::open::{Words, begin_round};
use super::steps::walk_again;
use super::{By, Notice, approvals, evidence, locked, notice, round, said};
use crate::app::App;
use crate::clock::Local;
use crate::db::Write;
use crate::id::{NoticeId, PolicyId};
use crate::message;
use crate::notice::clock::complete_by;
use crate::notice::evidence::{Kind, body};
use crate::notice::question::Question;
use crate::notice::{NoticeError, RoundKind, RoundState, State};
use crate::policy;
use crate::policy::rows::{Policy, Version};

/// Why people are told again.
#[derive(Clone, Debug)]
pub struct Reasons {
    /// In the policy's own language.
    pub own: String,
    /// In the other languages of the version. Who reads one that is not named gets the own one.
    pub others: BTreeMap<String, String>,
}

/// Tells people anew what changes, where what they were told was wrong. `summaries` go by language; a language that is not
/// named keeps what it says. Who approved the version did so on wrong words: those approvals count no longer, and whoever
/// gave them is asked anew. What the newest correction said already is not told again.
///
/// # Errors
/// The state that forbids it, a language that the version has no text in, or what the messages cannot be made from.
pub async fn correct(
    txn: &Write,
    app: &App,
    id: NoticeId,
    summaries: BTreeMap<String, String>,
    reasons: Reasons,
    by: By<'_>,
) -> Result<Notice, NoticeError> {
    let (mut notice, policy, version) = running(txn, app, id, "corrected").await?;
    let texts = policy::rows::texts(&**txn, version.id).await?;
    if let Some(language) = summaries.keys().find(|key| !texts.iter().any(|text| text.language == **key)) {
        let reason = format!("the version has no text in {language:?}");
        return Err(NoticeError::Flaw(format!("/translations/{language}"), reason));
    }
    // What an earlier correction said stands unless it is corrected too.
    let mut told = said(&**txn, notice.id).await?;
    if says_so_already(txn, &notice, &policy.language, (&told, &summaries), &reasons).await? {
        return Ok(notice);
    }
    let now = app.db.read_clock(&**txn).await?;
    policy::rows::correct(txn, version.id, &summaries, now).await?;
    told.extend(summaries);
    stop_rounds(txn, &notice).await?;
    let mut lapsed = 0;
    // What is said of a use is about the use, whatever was said of the change.
    if Question::of(&version) == Question::Approval {
        lapsed = approvals::lapse(txn, &notice).await?;
        notice.approved = 0;
    }
    changed(txn, app, Kind::Corrected, (&notice, &version), lapsed, &reasons.own, by).await?;
    let Reasons { own, others } = reasons;
    let words = Words {
        kind: RoundKind::Correction,
        reason: Some(&own),
        reasons: others,
        summaries: told,
        actor: by.actor,
    };
    begin_round(txn, app, &notice, &policy, &version, words).await?;
    txn.tell();
    Ok(notice)
}

/// Whether the newest telling is a correction to these words for these reasons: whoever asks for it again, because no answer
/// came, gets what came of it.
async fn says_so_already(
    txn: &Write,
    notice: &Notice,
    own: &str,
    (told, summaries): (&BTreeMap<String, String>, &BTreeMap<String, String>),
    reasons: &Reasons,
) -> Result<bool, DbErr> {
    let rounds = super::rounds(&**txn, notice.id).await?;
    let Some(newest) = rounds.last().filter(|round| round.kind == RoundKind::Correction) else {
        return Ok(false);
    };
    let why = |language: &str| match language == own {
        true => Some(&reasons.own),
        false => reasons.others.get(language).or(Some(&reasons.own)),
    };
    let texts = super::texts(&**txn, newest.id).await?;
    Ok(texts.iter().all(|text| text.reason.as_ref() == why(&text.language))
        && summaries.iter().all(|(language, summary)| told.get(language) == Some(summary)))
}

/// Puts the change off and tells people so.
///
/// # Errors
/// The state that forbids it, or a date that cannot be used.
pub async fn postpone(
    txn: &Write,
    app: &App,
    id: NoticeId,
    to: Local,
    reasons: Reasons,
    by: By<'_>,
) -> Result<Notice, NoticeError> {
    let (notice, policy, version) = running(txn, app, id, "postponed").await?;
    let effective_at = to.at;
    let now = app.db.read_clock(&**txn).await?;
    let flaw = |reason: String| NoticeError::Flaw("/effective_at".to_owned(), reason);
    if effective_at <= notice.effective_at {
        let at = notice.effective_at;
        return Err(flaw(format!("must be later than {at}, when the change takes effect as things stand")));
    }
    let announced = version.there(notice.effective_at).date();
    if to.date() < announced {
        return Err(flaw(format!("is on {}, and people were told {announced}; name a later day", to.date())));
    }
    if let Some(next) = policy::rows::versions(&**txn, policy.id).await?.into_iter().find(|other| {
        other.number > version.number
            && other.state == policy::State::Published
            && other.effective_at.is_some_and(|at| at < effective_at)
    }) {
        let number = next.number;
        return Err(flaw(format!("is after version {number} takes effect; postpone that one first")));
    }
    // That the change comes later is to be known before the day on which it would have come.
    let complete_by = complete_by(effective_at, policy.lead_time_days, now).min(notice.effective_at);
    policy::rows::set_effective(txn, version.id, to).await?;
    let mut row = notice.into_active_model();
    row.effective_at = ActiveValue::Set(effective_at);
    row.complete_by = ActiveValue::Set(complete_by);
    row.late_since = ActiveValue::Set(None);
    let notice = notice::Entity::update(row).exec(&**txn).await?;
    stop_rounds(txn, &notice).await?;
    let version = Version { effective_at: Some(effective_at), effective_offset: to.east, ..version };
    changed(txn, app, Kind::Postponed, (&notice, &version), 0, &reasons.own, by).await?;
    let Reasons { own, others } = reasons;
    let words = Words {
        kind: RoundKind::Postponement,
        reason: Some(&own),
        reasons: others,
        summaries: said(&**txn, notice.id).await?,
        actor: by.actor,
    };
    begin_round(txn, app, &notice, &policy, &version, words).await?;
    txn.tell();
    Ok(notice)
}

/// Calls the change off. `tell` tells those who had been told.
///
/// # Errors
/// The state that forbids it.
pub async fn withdraw(
    txn: &Write,
    app: &App,
    id: NoticeId,
    reasons: Reasons,
    tell: bool,
    by: By<'_>,
) -> Result<Notice, NoticeError> {
    let others = locked_with_others(txn, id).await?;
    let (notice, policy, version) = running(txn, app, id, "withdrawn").await?;
    let now = app.db.read_clock(&**txn).await?;
    policy::rows::withdraw(txn, version.id, now).await?;
    // Who accepted it at sign-up, and so was told of none before it, is told now.
    for other in others {
        let rounds = super::rounds(&**txn, other).await?;
        walk_again(txn, rounds.iter().filter(|round| round.kind.tells_of_the_change())).await?;
    }
    stop_rounds(txn, &notice).await?;
    let mut row = notice.into_active_model();
    row.state = ActiveValue::Set(State::Withdrawn);
    row.late_since = ActiveValue::Set(None);
    let notice = notice::Entity::update(row).exec(&**txn).await?;
    changed(txn, app, Kind::Withdrawn, (&notice, &version), 0, &reasons.own, by).await?;
    if tell {
        let Reasons { own, others } = reasons;
        let words = Words {
            kind: RoundKind::Withdrawal,
            reason: Some(&own),
            reasons: others,
            summaries: texts_without_summaries(txn, &version).await?,
            actor: by.actor,
        };
        begin_round(txn, app, &notice, &policy, &version, words).await?;
    }
    txn.tell();
    Ok(notice)
}

/// Puts into evidence what was changed.
async fn changed(
    txn: &Write,
    app: &App,
    kind: Kind,
    (notice, version): (&Notice, &Version),
    approvals_lapsed: i64,
    reason: &str,
    by: By<'_>,
) -> Result<(), DbErr> {
    let stands = notice.state == State::Running;
    let body = body::Changed {
        reason: Some(reason.to_owned()),
        effective_at: stands.then_some(notice.effective_at),
        effective_offset: if stands { version.effective_offset } else { 0 },
        complete_by: stands.then_some(notice.complete_by),
        approvals_lapsed,
        by: by.actor.to_owned(),
        asked_by: by.asked_by.map(str::to_owned),
    };
    evidence::append(txn, &app.db, notice.id, kind, None, &body).await
}

/// A withdrawal says nothing of what would have changed.
async fn texts_without_summaries(txn: &Write, version: &Version) -> Result<BTreeMap<String, String>, DbErr> {
    let texts = policy::rows::texts(&**txn, version.id).await?;
    Ok(texts.into_iter().map(|text| (text.language, String::new())).collect())
}

async fn running(
    txn: &Write,
    app: &App,
    id: NoticeId,
    done: &'static str,
) -> Result<(Notice, Policy, Version), NoticeError> {
    let notice = locked_after_its_policy(txn, id).await?;
    // Its day may have come while no worker was there to see it.
    let has_come = notice.effective_at <= app.db.read_clock(&**txn).await?;
    match notice.state {
        State::Running if !has_come => {}
        State::Running | State::InEffect => {
            return Err(NoticeError::WrongState { state: State::InEffect, done });
        }
        state @ State::Withdrawn => return Err(NoticeError::WrongState { state, done }),
    }
    let gone = |what: &str| DbErr::RecordNotFound(format!("the {what} of notice {id}"));
    let policy = policy::rows::by_id(&**txn, notice.policy_id).await?.ok_or_else(|| gone("policy"))?;
    let version = policy::rows::version_by_id(&**txn, notice.version_id).await?;
    Ok((notice, policy, version.ok_or_else(|| gone("version"))?))
}

/// The notice, locked after its policy, as whoever publishes the policy's next version locks them: dates stay in the order of
/// the versions.
pub(super) async fn locked_after_its_policy(txn: &Write, id: NoticeId) -> Result<Notice, NoticeError> {
    lock_its_policy(txn, id).await?;
    locked(txn, id).await?.ok_or(NoticeError::Gone)
}

async fn lock_its_policy(txn: &Write, id: NoticeId) -> Result<PolicyId, NoticeError> {
    let found = super::find(&**txn, id).await?.ok_or(NoticeError::Gone)?;
    policy::rows::policy::Entity::find_by_id(found.policy_id).lock(LockType::Update).one(&**txn).await?;
    Ok(found.policy_id)
}

/// Locks a notice's policy and every notice of it that is not closed, in the order of their ids. Gives the others.
async fn locked_with_others(txn: &Write, id: NoticeId) -> Result<Vec<NoticeId>, NoticeError> {
    let policy = lock_its_policy(txn, id).await?;
    let all = notice::Entity::find()
        .filter(notice::Column::PolicyId.eq(policy))
        .filter(notice::Column::ClosedAt.is_null())
        .order_by_asc(notice::Column::Id)
        .lock(LockType::Update)
        .all(&**txn)
        .await?;
    let others = all.into_iter().filter(|other| other.id != id && other.state != State::Withdrawn);
    Ok(others.map(|other| other.id).collect())
}

/// Lets what waits in earlier rounds be cancelled: a later round takes their place. From here on nothing of them begins.
async fn stop_rounds(txn: &Write, notice: &Notice) -> Result<(), DbErr> {
    for round in super::rounds(&**txn, notice.id).await? {
        if matches!(round.state, RoundState::Stopping | RoundState::Closed) {
            continue;
        }
        for text in super::texts(&**txn, round.id).await? {
            for content in text.contents() {
                message::rows::hold(txn, content).await?;
            }
        }
        let mut row = round.into_active_model();
        row.state = ActiveValue::Set(RoundState::Stopping);
        round::Entity::update(row).exec(&**txn).await?;
    }
    Ok(())
}
