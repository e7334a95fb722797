//! Deliveries that came to their end, put into evidence in bounded steps.
//!
//! Whichever way a delivery of a notice ends, a trigger notes in the same transaction that it is due, so that a step finds
//! exactly those, in any order, and costs nothing when there is none. One that is taken up again and ends again is
//! recorded again. A message that came back is due likewise, and its bounce recorded after its end.

use std::collections::{HashMap, HashSet};

use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Statement};

use super::{NewEntry, append_many, share};
use crate::address::{AddressHash, nameless};
use crate::db::{Db, Write};
use crate::delivery::State;
use crate::delivery::rows::{AttemptView, DeliveryView, these};
use crate::id::{ContentId, DeliveryId, MailingId};
use crate::notice::evidence::Kind;
use crate::notice::evidence::body::{Attempt, Bounce, Delivery};
use crate::notice::rows::{Round, find, texts};
use crate::{policy, recipient};

/// Deliveries recorded in one transaction at most.
pub const RECORDED_AT_ONCE: u64 = 500;

#[derive(FromQueryResult)]
struct Due {
    mailing_id: MailingId,
}

/// The first round after `after` of which something is due.
///
/// # Errors
/// The database's own.
pub async fn due(on: &impl ConnectionTrait, after: Option<MailingId>) -> Result<Option<MailingId>, DbErr> {
    // Every id is greater than the nil one.
    let after = after.map_or(uuid::Uuid::nil(), |after| after.0);
    let sql = "SELECT mailing_id FROM evidence_due WHERE mailing_id > $1 ORDER BY mailing_id LIMIT 1";
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [after.into()]);
    Ok(Due::find_by_statement(statement).one(on).await?.map(|due| due.mailing_id))
}

/// Whether anything of this round is due.
///
/// # Errors
/// The database's own.
pub(in crate::notice::rows) async fn is_due(
    on: &impl ConnectionTrait,
    round: MailingId,
) -> Result<bool, DbErr> {
    let sql = "SELECT mailing_id FROM evidence_due WHERE mailing_id = $1 LIMIT 1";
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [round.0.into()]);
    Ok(on.query_one_raw(statement).await?.is_some())
}

#[derive(FromQueryResult)]
struct Ended {
    delivery_id: DeliveryId,
    /// Otherwise only its bounce is not in evidence.
    ended: bool,
}

/// Records up to 500 deliveries of a round that have ended, or came back, and are not in evidence so. Returns how many.
///
/// # Errors
/// The database's own.
pub async fn record_deliveries(txn: &Write, db: &Db, round: &Round) -> Result<u64, DbErr> {
    // First of all: whoever changes the notice may end deliveries, which makes them due.
    share(txn, db, round.notice_id).await?;
    let lock = if db.backend() == DbBackend::Postgres { " FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "DELETE FROM evidence_due WHERE mailing_id = $1 AND delivery_id IN (SELECT delivery_id FROM evidence_due \
         WHERE mailing_id = $1 ORDER BY delivery_id LIMIT {RECORDED_AT_ONCE}{lock}) RETURNING delivery_id, ended"
    );
    let statement = Statement::from_sql_and_values(db.backend(), sql, [round.id.0.into()]);
    let ended = Ended::find_by_statement(statement).all(&**txn).await?;
    if ended.is_empty() {
        return Ok(0);
    }
    let ids: Vec<DeliveryId> = ended.iter().map(|one| one.delivery_id).collect();
    let anew: HashSet<DeliveryId> = ended.iter().filter(|due| due.ended).map(|due| due.delivery_id).collect();
    let telling = Telling::load(&**txn, round).await?;
    let found = these(&**txn, &ids).await?;
    let people: Vec<AddressHash> = found.iter().map(|one| one.address_hash.clone()).collect();
    let addresses = recipient::rows::addresses_of(&**txn, &people).await?;
    let mut new = Vec::with_capacity(found.len());
    // What was taken up again meanwhile is due again once it ends.
    for one in found.into_iter().filter(|one| !matches!(one.state, State::Queued | State::Sending)) {
        let person = one.address_hash.clone();
        let bounce = telling.bounce(&one);
        if anew.contains(&one.id) {
            let body = telling.body(one, addresses.get(&person).map(String::as_str));
            new.push(NewEntry::new(Kind::Delivery, Some(&person), &body)?);
        }
        if let Some(bounce) = bounce {
            new.push(NewEntry::new(Kind::Bounced, Some(&person), &bounce)?);
        }
    }
    append_many(txn, db, round.notice_id, new).await?;
    Ok(ids.len() as u64)
}

/// What all deliveries of a round share.
struct Telling<'a> {
    round: &'a Round,
    version: i64,
    /// The language of a content.
    languages: HashMap<ContentId, String>,
    /// The hash of the version's text in a language.
    hashes: HashMap<String, String>,
}

impl<'a> Telling<'a> {
    async fn load(on: &impl ConnectionTrait, round: &'a Round) -> Result<Self, DbErr> {
        let gone = |what: &str| DbErr::RecordNotFound(format!("the {what} of round {}", round.id));
        let notice = find(on, round.notice_id).await?.ok_or_else(|| gone("notice"))?;
        let version =
            policy::rows::version_by_id(on, notice.version_id).await?.ok_or_else(|| gone("version"))?;
        let said = texts(on, round.id).await?;
        let written = policy::rows::texts(on, version.id).await?;
        Ok(Self {
            round,
            version: version.number,
            languages: said
                .iter()
                .flat_map(|text| text.contents().map(|content| (content, text.language.clone())))
                .collect(),
            hashes: written.into_iter().map(|text| (text.language, hex::encode(&text.sha256))).collect(),
        })
    }

    /// What there is to say of a delivery; `own` is the person's address, which stays out.
    fn body(&self, one: DeliveryView, own: Option<&str>) -> Delivery {
        let language = self.languages.get(&one.content).cloned().unwrap_or_default();
        Delivery {
            delivery: one.id,
            recipient: one.recipient,
            round: self.round.number,
            round_kind: self.round.kind,
            version: self.version,
            text_sha256: self.hashes.get(&language).cloned(),
            language,
            state: one.state,
            reason: one.reason.map(|reason| nameless(&reason, own)),
            message_id: one.message_id,
            message_sha256: one.message_sha256.as_deref().map(hex::encode),
            queued_at: one.created_at,
            settled_at: one.settled_at,
            attempts: one.attempts.into_iter().map(|attempt| of_attempt(attempt, own)).collect(),
        }
    }

    /// What there is to say of how it came back, if it did.
    fn bounce(&self, one: &DeliveryView) -> Option<Bounce> {
        let bounced = one.bounced.clone()?;
        Some(Bounce {
            delivery: one.id,
            recipient: one.recipient,
            round: self.round.number,
            round_kind: self.round.kind,
            message_id: one.message_id.clone(),
            bounced_at: bounced.at,
            status: bounced.status,
            words: bounced.words,
        })
    }
}

fn of_attempt(attempt: AttemptView, own: Option<&str>) -> Attempt {
    Attempt {
        begun_at: attempt.begun_at,
        ended_at: attempt.ended_at,
        outcome: attempt.outcome,
        phase: attempt.phase,
        code: attempt.code,
        enhanced: attempt.enhanced,
        reply: attempt.reply.map(|reply| nameless(&reply, own)),
    }
}
