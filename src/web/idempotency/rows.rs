//! Claims and answers of calls with an `Idempotency-Key`, in the database.

use std::time::Duration;

use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, OnConflict, Query};
use sea_orm::{ConnectionTrait, QuerySelect};

use crate::clock::Timestamp;
use crate::db::{Db, Write};

/// How long an answer is kept, by the database's clock.
pub(super) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a call counts as running when it is not renewed.
pub(super) const LEASE: Duration = Duration::from_secs(60);
/// Old rows removed by one call.
const SWEPT: u64 = 100;

/// The table.
mod call {
    use super::*;

    /// A call.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "idempotency")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub api_key: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub path: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub key: String,
        pub body_sha256: Vec<u8>,
        pub resource_id: Uuid,
        pub owner: Uuid,
        pub started_at: Timestamp,
        pub lease_until: Timestamp,
        pub status: Option<i16>,
        pub content_type: Option<String>,
        pub body: Option<Vec<u8>>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// By what a call is known again.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Whose key: [`Caller::actor`](crate::web::Caller).
    pub(super) api_key: String,
    /// The path, without query.
    pub(super) path: String,
    /// The `Idempotency-Key`.
    pub(super) key: String,
}

/// An answer that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What became of an attempt to claim a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is ours to run, and what it makes must bear this id.
    Ours { owner: Uuid, resource_id: Uuid },
    /// It was answered.
    Answered(Answer),
    /// It came with another body.
    OtherBody,
    /// It is running.
    Running,
}

/// Claims a call and commits; a call whose runner died is taken over with the id that it was given.
pub(super) async fn claim(db: &Db, call: &Call, body_sha256: &[u8]) -> Result<Claim, DbErr> {
    let txn = db.begin().await?;
    let now = db.read_clock(&*txn).await?;
    sweep(&txn, now, Some(call)).await?;
    let (owner, resource_id) = (Uuid::now_v7(), Uuid::now_v7());
    let row = call::ActiveModel {
        api_key: Set(call.api_key.clone()),
        path: Set(call.path.clone()),
        key: Set(call.key.clone()),
        body_sha256: Set(body_sha256.to_vec()),
        resource_id: Set(resource_id),
        owner: Set(owner),
        started_at: Set(now),
        lease_until: Set(now.plus(LEASE)),
        status: Set(None),
        content_type: Set(None),
        body: Set(None),
    };
    let columns = [call::Column::ApiKey, call::Column::Path, call::Column::Key];
    let inserted = call::Entity::insert_many([row])
        .on_conflict(OnConflict::columns(columns).do_nothing().to_owned())
        .exec_without_returning(&*txn)
        .await?;
    let claim = if inserted == 1 {
        sweep(&txn, now, None).await?;
        Claim::Ours { owner, resource_id }
    } else {
        take_over(&txn, call, body_sha256, owner, now).await?
    };
    txn.commit().await?;
    Ok(claim)
}

/// What a call that was there already is to us.
async fn take_over(
    txn: &Write,
    call: &Call,
    body_sha256: &[u8],
    owner: Uuid,
    now: Timestamp,
) -> Result<Claim, DbErr> {
    let row = call::Entity::find().filter(this(call)).lock_exclusive().one(&**txn).await?;
    // It can only be gone when its runner gave it up just now: the caller may try again.
    let Some(row) = row else { return Ok(Claim::Running) };
    if row.body_sha256 != body_sha256 {
        return Ok(Claim::OtherBody);
    }
    if let Some(status) = row.status {
        return Ok(Claim::Answered(Answer {
            status: u16::try_from(status).unwrap_or(500),
            content_type: row.content_type,
            body: row.body.unwrap_or_default(),
        }));
    }
    if row.lease_until > now {
        return Ok(Claim::Running);
    }
    call::Entity::update_many()
        .col_expr(call::Column::Owner, Expr::value(owner))
        .col_expr(call::Column::LeaseUntil, Expr::value(now.plus(LEASE)))
        .filter(this(call))
        .exec(&**txn)
        .await?;
    Ok(Claim::Ours { owner, resource_id: row.resource_id })
}

/// Says that the call is still running.
pub(super) async fn renew(db: &Db, call: &Call, owner: Uuid) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    let until = db.read_clock(&*txn).await?.plus(LEASE);
    call::Entity::update_many()
        .col_expr(call::Column::LeaseUntil, Expr::value(until))
        .filter(ours(call, owner))
        .exec(&*txn)
        .await?;
    txn.commit().await
}

/// Keeps the answer, unless another has taken the call over.
pub(super) async fn keep(db: &Db, call: &Call, owner: Uuid, answer: &Answer) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    let status = i16::try_from(answer.status).unwrap_or(500);
    call::Entity::update_many()
        .col_expr(call::Column::Status, Expr::value(status))
        .col_expr(call::Column::ContentType, Expr::value(answer.content_type.clone()))
        .col_expr(call::Column::Body, Expr::value(answer.body.clone()))
        .filter(ours(call, owner))
        .exec(&*txn)
        .await?;
    txn.commit().await
}

/// Ends the lease, so that the next call runs anew, with the same id: what failed may have been made all the same.
pub(super) async fn give_up(db: &Db, call: &Call, owner: Uuid) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    call::Entity::update_many()
        .col_expr(call::Column::LeaseUntil, Expr::value(0_i64))
        .filter(ours(call, owner))
        .exec(&*txn)
        .await?;
    txn.commit().await
}

fn this(call: &Call) -> sea_orm::Condition {
    sea_orm::Condition::all()
        .add(call::Column::ApiKey.eq(&call.api_key))
        .add(call::Column::Path.eq(&call.path))
        .add(call::Column::Key.eq(&call.key))
}

fn ours(call: &Call, owner: Uuid) -> sea_orm::Condition {
    this(call).add(call::Column::Owner.eq(owner)).add(call::Column::Status.is_null())
}

/// Removes rows that are over: this one, or some of all.
async fn sweep(txn: &Write, now: Timestamp, only: Option<&Call>) -> Result<(), DbErr> {
    let old = Timestamp(now.0.saturating_sub(crate::clock::micros(KEPT)));
    let over =
        sea_orm::Condition::all().add(call::Column::StartedAt.lt(old)).add(call::Column::LeaseUntil.lt(now));
    if let Some(call) = only {
        call::Entity::delete_many().filter(over).filter(this(call)).exec(&**txn).await?;
        return Ok(());
    }
    let columns = [call::Column::ApiKey, call::Column::Path, call::Column::Key];
    let some = Query::select()
        .columns(columns)
        .from(call::Entity)
        .cond_where(over)
        .order_by(call::Column::StartedAt, sea_orm::Order::Asc)
        .limit(SWEPT)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned();
    let delete = Query::delete()
        .from_table(call::Entity)
        .and_where(ExprTrait::in_subquery(Expr::tuple(columns.map(Expr::col)), some))
        .to_owned();
    (**txn).execute(&delete).await?;
    Ok(())
}
