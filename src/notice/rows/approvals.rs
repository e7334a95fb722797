//! What people answer: every answer is kept and never changed, and the newest one of each person stands.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, IntoActiveModel,
    QueryFilter, Statement,
};

use super::{Notice, TELLING, append, approval, approval_standing, evidence, locked, notice};
use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::id::{ApprovalId, DeliveryId, NoticeId, PolicyId, RecipientId, VersionId};
use crate::notice::evidence::{Kind, body};
use crate::notice::question::{Asked, Closed, Question, shown};
use crate::notice::{Decision, RoundKind, State, ToldBy};
use crate::policy::{self, OnSilence, OnUntold};

/// An answer as stored.
pub type Answer = approval::Model;
/// What a person's answer is now, as stored.
pub type StandingAnswer = approval_standing::Model;

/// An answer to be recorded.
#[derive(Clone, Debug)]
pub struct Given<'a> {
    /// To which notice.
    pub notice: NoticeId,
    /// Whose.
    pub recipient: RecipientId,
    /// Whether the person was erased. What else decides whether an answer is taken is asked under the lock of the notice's row.
    pub gone: bool,
    /// The keyed hash of their address.
    pub address_hash: &'a AddressHash,
    /// What it says.
    pub decision: Decision,
    /// In which language the change was shown.
    pub language: &'a str,
    /// SHA-256 of the text that was shown.
    pub sha256: &'a [u8],
    /// What the version itself says that changes, in that language.
    pub summary: &'a str,
    /// By what it is known which words were shown, as [`shown`] has it; none where the answer does not say.
    pub shown: Option<&'a str>,
    /// The message by whose link it came; of one that came another way, the one that told of the change, if there was one.
    pub delivery: Option<DeliveryId>,
    /// How it came, if not on the page.
    pub otherwise: Option<Otherwise<'a>>,
}

/// How an answer came that was not given on the page.
#[derive(Clone, Copy, Debug)]
pub struct Otherwise<'a> {
    /// The way.
    pub by: ToldBy,
    /// The number of the round whose words it answers, as far as that was said.
    pub round: Option<i64>,
    /// What there is to say about it.
    pub note: &'a str,
    /// Who records it.
    pub actor: &'a str,
}

/// What became of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is recorded.
    New(Answer),
    /// It stood already.
    Stood(StandingAnswer),
    /// No answer is taken any more.
    Closed(Closed),
    /// What the person was shown was corrected meanwhile.
    Corrected,
}

/// Records an answer, moves the notice's counts and appends to its evidence, under the lock of the notice's row.
///
/// # Errors
/// The database's own.
pub async fn record(txn: &Write, db: &Db, given: &Given<'_>) -> Result<Recorded, DbErr> {
    let notice = locked(txn, given.notice).await?;
    let notice = notice.ok_or_else(|| DbErr::RecordNotFound("the notice of an answer".into()))?;
    let now = db.read_clock(&**txn).await?;
    let versions = policy::rows::versions(&**txn, notice.policy_id).await?;
    let version = versions.iter().find(|version| version.id == notice.version_id);
    let version = version.ok_or_else(|| DbErr::RecordNotFound("the version of an answer".into()))?;
    let asked = Asked::of(&notice, version, &versions, given.gone);
    if let Some(closed) = asked.closed_to(given.decision, now) {
        return Ok(Recorded::Closed(closed));
    }
    // What is said of a use took effect already, and is about the use, whatever was said of the change.
    if asked.question == Question::Approval && !is_as_shown(&**txn, &notice, given).await? {
        return Ok(Recorded::Corrected);
    }
    let before = standing(&**txn, notice.version_id, given.recipient).await?;
    if let Some(before) = &before
        && before.decision == given.decision
    {
        return Ok(Recorded::Stood(before.clone()));
    }
    let answer = Answer {
        id: ApprovalId::new(),
        version_id: notice.version_id,
        recipient_id: given.recipient,
        address_hash: given.address_hash.clone(),
        decision: given.decision,
        language: given.language.to_owned(),
        sha256: given.sha256.to_vec(),
        delivery_id: given.delivery,
        decided_at: now,
        given_by: given.otherwise.map(|otherwise| otherwise.by),
        note: given.otherwise.map(|otherwise| otherwise.note.to_owned()),
        recorded_by: given.otherwise.map(|otherwise| otherwise.actor.to_owned()),
    };
    answer.clone().into_active_model().insert(&**txn).await?;
    let stands = approval_standing::Model {
        version_id: notice.version_id,
        recipient_id: given.recipient,
        approval_id: answer.id,
        decision: given.decision,
        decided_at: now,
    };
    let key = [approval_standing::Column::VersionId, approval_standing::Column::RecipientId];
    let newest = [
        approval_standing::Column::ApprovalId,
        approval_standing::Column::Decision,
        approval_standing::Column::DecidedAt,
    ];
    approval_standing::Entity::insert(stands.into_active_model())
        .on_conflict(OnConflict::columns(key).update_columns(newest).to_owned())
        .exec_without_returning(&**txn)
        .await?;
    let by = |decision| {
        let now = i64::from(given.decision == decision);
        now - i64::from(before.as_ref().is_some_and(|before| before.decision == decision))
    };
    notice::Entity::update_many()
        .col_expr(notice::Column::Approved, Expr::col(notice::Column::Approved).add(by(Decision::Approve)))
        .col_expr(notice::Column::Declined, Expr::col(notice::Column::Declined).add(by(Decision::Decline)))
        .filter(notice::Column::Id.eq(notice.id))
        .exec(&**txn)
        .await?;
    let said = body::Answer {
        approval: answer.id,
        recipient: answer.recipient_id,
        decision: answer.decision,
        before: before.map(|before| before.decision),
        version: version.number,
        language: answer.language.clone(),
        sha256: hex::encode(&answer.sha256),
        delivery: answer.delivery_id,
        by: answer.given_by,
        has_note: answer.note.is_some(),
        note_seal: evidence::note_seal(db, notice.id, given.address_hash, answer.note.as_deref()),
        recorded_by: answer.recorded_by.clone(),
    };
    append(txn, db, notice.id, Kind::Approval, Some(given.address_hash), &said).await?;
    Ok(Recorded::New(answer))
}

/// Whether what somebody agrees to is what people are told now. Agreeing without saying to which words counts as long as
/// nothing was ever corrected; by letter or telephone it counts then if it says that it answers the newest correction.
/// Declining always counts: whoever refuses the wrong words refuses, until they say otherwise.
///
/// # Errors
/// The database's own.
pub async fn is_as_shown(
    on: &impl ConnectionTrait,
    notice: &Notice,
    given: &Given<'_>,
) -> Result<bool, DbErr> {
    if given.decision == Decision::Decline {
        return Ok(true);
    }
    let rounds = super::rounds(on, notice.id).await?;
    if let Some(otherwise) = given.otherwise {
        let corrected = rounds.iter().rev().find(|round| round.kind == RoundKind::Correction);
        return Ok(corrected.is_none_or(|round| otherwise.round.is_some_and(|said| said >= round.number)));
    }
    let Some(seen) = given.shown else {
        return Ok(rounds.iter().all(|round| round.kind != RoundKind::Correction));
    };
    let texts = match rounds.iter().rev().find(|round| round.kind.tells_of_the_change()) {
        Some(round) => super::texts(on, round.id).await?,
        None => Vec::new(),
    };
    let told = texts.iter().find(|text| text.language == given.language);
    let summary = told.map_or(given.summary, |told| &told.summary);
    Ok(seen == shown(notice.version_id, given.language, given.sha256, summary))
}

/// Lets the approvals given so far count no longer: whoever gave them has not answered. Every answer is kept all the same.
/// The caller holds the notice's lock. Returns how many.
///
/// # Errors
/// The database's own.
pub(super) async fn lapse(txn: &Write, notice: &Notice) -> Result<i64, DbErr> {
    let lapsed = approval_standing::Entity::delete_many()
        .filter(approval_standing::Column::VersionId.eq(notice.version_id))
        .filter(approval_standing::Column::Decision.eq(Decision::Approve))
        .exec(&**txn)
        .await?;
    notice::Entity::update_many()
        .col_expr(notice::Column::Approved, Expr::value(0_i64))
        .filter(notice::Column::Id.eq(notice.id))
        .exec(&**txn)
        .await?;
    Ok(i64::try_from(lapsed.rows_affected).unwrap_or(i64::MAX))
}

/// What a person answers to a version, as things stand.
///
/// # Errors
/// The database's own.
pub async fn standing(
    on: &impl ConnectionTrait,
    version: VersionId,
    recipient: RecipientId,
) -> Result<Option<StandingAnswer>, DbErr> {
    approval_standing::Entity::find_by_id((version, recipient)).one(on).await
}

/// The answer of this id.
///
/// # Errors
/// The database's own.
pub async fn answer(on: &impl ConnectionTrait, id: ApprovalId) -> Result<Option<Answer>, DbErr> {
    approval::Entity::find_by_id(id).one(on).await
}

/// How many approve and how many decline a version, counted one by one; the notice's row keeps the same numbers.
///
/// # Errors
/// The database's own.
pub async fn counts(on: &impl ConnectionTrait, version: VersionId) -> Result<(u64, u64), DbErr> {
    let sql =
        "SELECT decision, COUNT(*) AS n FROM approvals_standing WHERE version_id = $1 GROUP BY decision";
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [version.0.into()]);
    let (mut approved, mut declined) = (0, 0);
    for row in on.query_all_raw(statement).await? {
        let n = u64::try_from(row.try_get::<i64>("", "n")?).unwrap_or(0);
        match row.try_get("", "decision")? {
            Decision::Approve => approved = n,
            Decision::Decline => declined = n,
        }
    }
    Ok((approved, declined))
}

/// The notice that a message belongs to, and the language in which it was written.
///
/// # Errors
/// The database's own.
pub async fn about(
    on: &impl ConnectionTrait,
    delivery: DeliveryId,
) -> Result<Option<(NoticeId, String)>, DbErr> {
    let sql = "SELECT r.notice_id, t.language FROM deliveries d JOIN notice_rounds r ON r.id = d.mailing_id \
               JOIN notice_texts t ON t.round_id = r.id AND d.content_id IN (t.content_id, t.newcomer_content_id) WHERE d.id = $1";
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [delivery.0.into()]);
    let Some(row) = on.query_one_raw(statement).await? else { return Ok(None) };
    Ok(Some((row.try_get("", "notice_id")?, row.try_get("", "language")?)))
}

/// What a person has to do with a version of which people are told.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Concern {
    /// The version.
    pub version_id: VersionId,
    /// From when the change holds.
    pub effective_at: Timestamp,
    /// How far its notice has come.
    pub state: State,
    /// What holds for who does not answer.
    pub on_silence: OnSilence,
    /// What holds for who cannot be told.
    pub on_untold: OnUntold,
    /// When the first message that tells of it was handed over, of those that did not come back.
    pub mailed_at: Option<Timestamp>,
    /// When it was recorded that the person was told by letter or telephone.
    pub told_at: Option<Timestamp>,
    /// What the person answers.
    pub decision: Option<Decision>,
    /// What they answered until the change took effect, which decides whether the version stands: what came later is about
    /// the use alone.
    pub in_time: Option<Decision>,
    /// When they answered.
    pub decided_at: Option<Timestamp>,
    /// How, if not on the page.
    pub given_by: Option<ToldBy>,
}

/// What a person has to do with the versions of a policy, of those that have a notice.
///
/// # Errors
/// The database's own.
pub async fn concerns(
    on: &impl ConnectionTrait,
    policy: PolicyId,
    recipient: RecipientId,
) -> Result<HashMap<VersionId, Concern>, DbErr> {
    let sql = format!(
        "SELECT n.version_id, n.effective_at, n.state, n.on_silence, n.on_untold, a.decision, a.decided_at, p.given_by, \
        CASE WHEN a.decided_at < n.effective_at THEN a.decision ELSE (SELECT e.decision FROM approvals e \
         WHERE e.version_id = a.version_id AND e.recipient_id = a.recipient_id AND e.decided_at < n.effective_at \
         ORDER BY e.id DESC LIMIT 1) END AS in_time, \
        (SELECT MIN(t.told_at) FROM notice_told t WHERE t.notice_id = n.id AND t.recipient_id = $2) AS told_at, \
        (SELECT MIN(d.settled_at) FROM notice_rounds r JOIN deliveries d ON d.mailing_id = r.id AND d.recipient_id = $2 \
         WHERE r.notice_id = n.id AND r.kind IN {TELLING} AND d.state = 'sent' \
         AND NOT EXISTS (SELECT 1 FROM bounces b WHERE b.delivery_id = d.id)) AS mailed_at \
        FROM notices n LEFT JOIN approvals_standing a ON a.version_id = n.version_id AND a.recipient_id = $2 \
        LEFT JOIN approvals p ON p.id = a.approval_id WHERE n.policy_id = $1"
    );
    let values = [policy.0.into(), recipient.0.into()];
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let concerns = Concern::find_by_statement(statement).all(on).await?;
    Ok(concerns.into_iter().map(|concern| (concern.version_id, concern)).collect())
}

#[derive(FromQueryResult)]
struct Message {
    id: DeliveryId,
}

/// The messages of a notice to a person, of all its rounds.
///
/// # Errors
/// The database's own.
pub async fn messages(
    on: &impl ConnectionTrait,
    notice: NoticeId,
    recipient: RecipientId,
) -> Result<Vec<DeliveryId>, DbErr> {
    let sql = "SELECT d.id FROM notice_rounds r JOIN deliveries d ON d.mailing_id = r.id AND d.recipient_id = $2 \
        WHERE r.notice_id = $1 ORDER BY d.id";
    let values = [notice.0.into(), recipient.0.into()];
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    Ok(Message::find_by_statement(statement).all(on).await?.into_iter().map(|message| message.id).collect())
}
