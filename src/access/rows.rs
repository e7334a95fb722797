//! API keys and the audit log in the database.
//!
//! Of a key only its prefix and the SHA-256 of its secret are kept: 256 random bits need no slower hash.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait, QueryOrder, QuerySelect};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::clock::Timestamp;
use crate::db::Db;
use crate::id::{ApiKeyId, AuditId, BrandId};
use crate::web::Role;

/// Longest name of a key in characters.
const MAX_NAME: usize = 100;

/// An API key as stored.
pub type ApiKey = api_key::Model;
/// An entry of the audit log.
pub type Entry = audit::Model;

/// The table of API keys.
pub mod api_key {
    use super::*;

    /// An API key; its secret is not in here.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "api_keys")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: ApiKeyId,
        /// What it is called by people.
        pub name: String,
        /// The word of its [`Role`].
        pub role: String,
        /// The one brand whose people it sees.
        pub brand_id: Option<BrandId>,
        /// The part of the key by which it is found; no secret.
        pub prefix: String,
        /// SHA-256 of the secret part.
        pub secret_sha256: Vec<u8>,
        /// Who made it.
        pub created_by: String,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it was revoked.
        pub revoked_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of who did what.
pub mod audit {
    use super::*;

    /// An entry; never changed and never removed.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit")]
    pub struct Model {
        /// Its id; ids sort by time.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: AuditId,
        /// When, by the database's clock.
        pub at: Timestamp,
        /// Who, such as `key:crm/1f2e3d4c5b` or `cli`.
        pub actor: String,
        /// What was done, such as `brand.put`.
        pub action: String,
        /// To what, such as `brand:acme`; ids and slugs, never an address.
        pub subject: String,
        /// What else there is to know.
        pub detail: Json,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Adds to the audit log, inside the caller's transaction. `actor` is [`Caller::actor`](crate::web::Caller) or `cli`;
/// `action` is a word such as `campaign.start`; `subject` an id or slug, never an address.
///
/// # Errors
/// The database's own.
pub async fn record(
    on: &impl ConnectionTrait,
    db: &Db,
    actor: &str,
    action: &str,
    subject: &str,
    detail: Json,
) -> Result<(), DbErr> {
    let entry = audit::ActiveModel {
        id: Set(AuditId::new()),
        at: Set(db.read_clock(on).await?),
        actor: Set(actor.to_owned()),
        action: Set(action.to_owned()),
        subject: Set(subject.to_owned()),
        detail: Set(detail),
    };
    audit::Entity::insert(entry).exec_without_returning(on).await?;
    Ok(())
}

/// Up to `limit` entries, newest first, before the one of this id.
///
/// # Errors
/// The database's own.
pub async fn entries_before(
    on: &impl ConnectionTrait,
    before: Option<AuditId>,
    limit: u64,
) -> Result<Vec<Entry>, DbErr> {
    let mut entries = audit::Entity::find();
    if let Some(before) = before {
        entries = entries.filter(audit::Column::Id.lt(before));
    }
    entries.order_by_desc(audit::Column::Id).limit(limit).all(on).await
}

/// Why a key cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateKeyError {
    /// The name is empty, too long or not one line.
    #[error("the name of a key must be one line of 1 to 100 characters")]
    Name,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbErr),
}

/// A key just made. What the caller must give to its user now: it cannot be read again.
#[derive(Clone, Debug)]
pub struct CreatedKey {
    /// What is stored of it.
    pub row: ApiKey,
    /// The key itself, `tk_<prefix>_<secret>`.
    pub key: SecretString,
}

/// Makes a key.
///
/// # Errors
/// [`CreateKeyError`].
pub async fn create_key(
    db: &Db,
    name: &str,
    role: Role,
    brand: Option<BrandId>,
    actor: &str,
) -> Result<CreatedKey, CreateKeyError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(CreateKeyError::Name);
    }
    let prefix = hex::encode(rand::random::<[u8; 5]>());
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let txn = db.begin().await?;
    let row = api_key::Model {
        id: ApiKeyId::new(),
        name: name.to_owned(),
        role: role.as_str().to_owned(),
        brand_id: brand,
        prefix: prefix.clone(),
        secret_sha256: Sha256::digest(&secret).to_vec(),
        created_by: actor.to_owned(),
        created_at: db.read_clock(&*txn).await?,
        revoked_at: None,
    };
    let insert = api_key::ActiveModel::from(row.clone());
    api_key::Entity::insert(insert).exec_without_returning(&*txn).await?;
    let detail = serde_json::json!({ "name": row.name, "role": row.role, "brand": brand });
    record(&*txn, db, actor, "api_key.create", &format!("api_key:{}", row.id), detail).await?;
    txn.commit().await?;
    Ok(CreatedKey { row, key: SecretString::from(format!("tk_{prefix}_{secret}")) })
}

/// Every key, revoked ones included, oldest first.
///
/// # Errors
/// The database's own.
pub async fn list_keys(on: &impl ConnectionTrait) -> Result<Vec<ApiKey>, DbErr> {
    api_key::Entity::find().order_by_asc(api_key::Column::Id).all(on).await
}

/// Revokes the key of this id or prefix for ever and gives it back; none when there is no such key.
///
/// # Errors
/// The database's own.
pub async fn revoke_key(db: &Db, which: &str, actor: &str) -> Result<Option<ApiKey>, DbErr> {
    let txn = db.begin().await?;
    let by_which = match which.parse::<ApiKeyId>() {
        Ok(id) => api_key::Column::Id.eq(id),
        Err(_) => api_key::Column::Prefix.eq(which),
    };
    let Some(mut row) = api_key::Entity::find().filter(by_which).one(&*txn).await? else { return Ok(None) };
    if row.revoked_at.is_none() {
        let now = db.read_clock(&*txn).await?;
        api_key::Entity::update_many()
            .col_expr(api_key::Column::RevokedAt, Expr::value(now))
            .filter(api_key::Column::Id.eq(row.id))
            .exec(&*txn)
            .await?;
        record(
            &*txn,
            db,
            actor,
            "api_key.revoke",
            &format!("api_key:{}", row.id),
            serde_json::json!({ "name": row.name }),
        )
        .await?;
        row.revoked_at = Some(now);
    }
    txn.commit().await?;
    Ok(Some(row))
}

/// The row of a key that is whole, right and not revoked. The secret is compared in constant time.
///
/// # Errors
/// The database's own.
pub async fn key_of(on: &impl ConnectionTrait, key: &str) -> Result<Option<ApiKey>, DbErr> {
    let parts = key.strip_prefix("tk_").and_then(|rest| rest.split_once('_'));
    let Some((prefix, secret)) = parts.filter(|(prefix, secret)| prefix.len() <= 32 && secret.len() <= 128)
    else {
        return Ok(None);
    };
    let row = api_key::Entity::find().filter(api_key::Column::Prefix.eq(prefix)).one(on).await?;
    Ok(row.filter(|row| {
        let right: bool = Sha256::digest(secret).as_slice().ct_eq(&row.secret_sha256).into();
        right && row.revoked_at.is_none()
    }))
}
