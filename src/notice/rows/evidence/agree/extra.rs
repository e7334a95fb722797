//! Rows of which no entry tells. They are counted first, and looked for one by one only where the count is not right.

use std::collections::HashSet;

use sea_orm::entity::prelude::*;
use sea_orm::{
    ConnectionTrait, DbErr, FromQueryResult, PaginatorTrait, QueryOrder, QuerySelect, Statement, Value,
};

use super::people::entries_of;
use super::{Agreement, PIECE, person};
use crate::address::AddressHash;
use crate::id::{ApprovalId, DeliveryId, MailingId, RecipientId};
use crate::notice::evidence::Kind;
use crate::notice::evidence::body::{Answer, Bounce, Delivery, Told};
use crate::notice::rows::{approval, approval_standing, told};

/// Of a delivery that has ended and is not due.
const SETTLED: &str = "FROM deliveries d LEFT JOIN evidence_due w ON w.mailing_id = d.mailing_id AND w.delivery_id = d.id \
    WHERE d.mailing_id = $1 AND d.state <> 'open' AND w.delivery_id IS NULL";

/// Of a delivery that came back and is not due.
const BACK: &str = "FROM bounces b JOIN deliveries d ON d.id = b.delivery_id \
    LEFT JOIN evidence_due w ON w.mailing_id = b.mailing_id AND w.delivery_id = b.delivery_id \
    WHERE b.mailing_id = $1 AND d.state <> 'open' AND w.delivery_id IS NULL";

/// Names those of a notice.
pub(super) async fn name(with: &mut Agreement, on: &impl ConnectionTrait) -> Result<(), DbErr> {
    let Some(row) = with.row.clone() else { return Ok(()) };
    let rounds = crate::notice::rows::rounds(on, row.id).await?;
    let (mut settled, mut back) = (0, 0);
    for round in &rounds {
        settled += count(on, SETTLED, round.id).await?;
        back += count(on, BACK, round.id).await?;
    }
    for round in &rounds {
        if settled != with.ended {
            deliveries(with, on, SETTLED, round.id).await?;
        }
        if back != with.bounced {
            deliveries(with, on, BACK, round.id).await?;
        }
    }
    let of_version = approval::Entity::find().filter(approval::Column::VersionId.eq(row.version_id));
    if of_version.count(on).await? != with.answers {
        answers(with, on).await?;
    }
    let stands =
        approval_standing::Entity::find().filter(approval_standing::Column::VersionId.eq(row.version_id));
    if stands.count(on).await? != with.standing {
        standing(with, on).await?;
    }
    if told::Entity::find().filter(told::Column::NoticeId.eq(row.id)).count(on).await? != with.told {
        people_told(with, on).await?;
    }
    Ok(())
}

async fn count(on: &impl ConnectionTrait, which: &str, round: MailingId) -> Result<u64, DbErr> {
    let sql = format!("SELECT COUNT(*) AS n {which}");
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [round.0.into()]);
    let n: i64 = on.query_one_raw(statement).await?.map_or(Ok(0), |row| row.try_get("", "n"))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

#[derive(FromQueryResult)]
struct Settled {
    id: DeliveryId,
    address_hash: AddressHash,
    state: String,
}

async fn deliveries(
    with: &mut Agreement,
    on: &impl ConnectionTrait,
    which: &str,
    round: MailingId,
) -> Result<(), DbErr> {
    let kind = if which == BACK { Kind::Bounced } else { Kind::Delivery };
    let told_of = |body: &str| match kind {
        Kind::Bounced => Some(serde_json::from_str::<Bounce>(body).ok()?.delivery),
        _ => Some(serde_json::from_str::<Delivery>(body).ok()?.delivery),
    };
    let mut after = Uuid::nil();
    loop {
        let sql =
            format!("SELECT d.id, d.address_hash, d.state {which} AND d.id > $2 ORDER BY d.id LIMIT {PIECE}");
        let values: [Value; 2] = [round.0.into(), after.into()];
        let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
        let rows = Settled::find_by_statement(statement).all(on).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id.0;
        let people = rows.iter().map(|row| row.address_hash.0.clone());
        let entries = entries_of(on, with.notice, kind, people).await?;
        let told: HashSet<DeliveryId> = entries.iter().filter_map(|entry| told_of(&entry.body)).collect();
        for row in rows.iter().filter(|row| !told.contains(&row.id)) {
            let (id, who) = (row.id, person(&row.address_hash.0));
            with.say(match kind {
                Kind::Bounced => {
                    format!("no entry tells that delivery {id} came back, as bounces says; {who}")
                }
                _ => format!("no entry tells that delivery {id} is {}, as deliveries says; {who}", row.state),
            });
        }
    }
}

/// The answers of which entries about these people tell.
async fn answered(
    with: &Agreement,
    on: &impl ConnectionTrait,
    people: impl Iterator<Item = Vec<u8>>,
) -> Result<HashSet<ApprovalId>, DbErr> {
    let entries = entries_of(on, with.notice, Kind::Approval, people).await?;
    let id = |body: &str| Some(serde_json::from_str::<Answer>(body).ok()?.approval);
    Ok(entries.iter().filter_map(|entry| id(&entry.body)).collect())
}

async fn answers(with: &mut Agreement, on: &impl ConnectionTrait) -> Result<(), DbErr> {
    let Some(version) = with.row.as_ref().map(|row| row.version_id) else { return Ok(()) };
    let mut after = ApprovalId(Uuid::nil());
    loop {
        let rows = approval::Entity::find()
            .filter(approval::Column::VersionId.eq(version))
            .filter(approval::Column::Id.gt(after))
            .order_by_asc(approval::Column::Id)
            .limit(PIECE)
            .all(on)
            .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        let told = answered(with, on, rows.iter().map(|row| row.address_hash.0.clone())).await?;
        for row in rows.iter().filter(|row| !told.contains(&row.id)) {
            let who = person(&row.address_hash.0);
            with.say(format!("approvals holds answer {} of which no entry tells; {who}", row.id));
        }
    }
}

async fn standing(with: &mut Agreement, on: &impl ConnectionTrait) -> Result<(), DbErr> {
    let Some(version) = with.row.as_ref().map(|row| row.version_id) else { return Ok(()) };
    let mut after = RecipientId(Uuid::nil());
    loop {
        let rows = approval_standing::Entity::find()
            .filter(approval_standing::Column::VersionId.eq(version))
            .filter(approval_standing::Column::RecipientId.gt(after))
            .order_by_asc(approval_standing::Column::RecipientId)
            .limit(PIECE)
            .all(on)
            .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.recipient_id;
        let ids = rows.iter().map(|row| row.approval_id);
        let given = approval::Entity::find().filter(approval::Column::Id.is_in(ids)).all(on).await?;
        let told = answered(with, on, given.iter().map(|row| row.address_hash.0.clone())).await?;
        let theirs = |row: &approval_standing::Model| {
            told.contains(&row.approval_id)
                && given.iter().any(|one| one.id == row.approval_id && one.recipient_id == row.recipient_id)
        };
        for row in rows.iter().filter(|row| !theirs(row)) {
            let who = row.recipient_id;
            with.say(format!("approvals_standing holds an answer of which no entry tells; recipient {who}"));
        }
    }
}

async fn people_told(with: &mut Agreement, on: &impl ConnectionTrait) -> Result<(), DbErr> {
    let mut after = None;
    loop {
        let mut found = told::Entity::find().filter(told::Column::NoticeId.eq(with.notice));
        if let Some(after) = after {
            found = found.filter(told::Column::RecipientId.gt(after));
        }
        // All rows of a person stand together; a person has as many as there are rounds at most.
        let rows = found.order_by_asc(told::Column::RecipientId).limit(PIECE).all(on).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.recipient_id);
        let theirs = told_of(with, on, &rows).await?;
        for row in &rows {
            if !theirs.contains(&row.recipient_id) {
                let (by, who) = (row.told_by, row.recipient_id);
                with.say(format!(
                    "notice_told says {by} of somebody of whom no entry tells; recipient {who}"
                ));
            }
        }
    }
}

/// Those of whom entries tell that they were told another way.
async fn told_of(
    with: &Agreement,
    on: &impl ConnectionTrait,
    rows: &[told::Model],
) -> Result<HashSet<RecipientId>, DbErr> {
    let mut people = Vec::new();
    for row in rows {
        let sql =
            "SELECT id, address_hash, state FROM deliveries WHERE mailing_id = $1 AND recipient_id = $2";
        let values: [Value; 2] = [row.round_id.0.into(), row.recipient_id.0.into()];
        let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
        let found = Settled::find_by_statement(statement).one(on).await?;
        people.extend(found.map(|found| found.address_hash.0));
    }
    let entries = entries_of(on, with.notice, Kind::Told, people.into_iter()).await?;
    let who = |body: &str| Some(serde_json::from_str::<Told>(body).ok()?.recipient);
    Ok(entries.iter().filter_map(|entry| who(&entry.body)).collect())
}
