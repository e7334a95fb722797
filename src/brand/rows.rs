//! Brands and topics in the database.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, IntoActiveModel, QueryOrder, QuerySelect};

use super::{Image, Logo};
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::decision::Class;
use crate::id::{BrandId, TopicId};

/// A brand as stored.
pub type Brand = brand::Model;
/// A topic as stored.
pub type Topic = topic::Model;

/// The table of brands.
pub mod brand {
    use super::*;

    /// A brand: a sender that recipients know.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "brands")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: BrandId,
        /// Its name in paths.
        pub slug: String,
        /// Its name in mail.
        pub name: String,
        /// `Name <address>`: sends what can be refused.
        pub from_mailbox: String,
        /// `Name <address>`: sends the service side; `from_mailbox` when absent.
        pub notice_from: Option<String>,
        /// `Name <address>` of Reply-To.
        pub reply_to: Option<String>,
        /// The postal address that the law asks for; empty when not given, and then no campaign starts.
        pub postal_address: String,
        /// Telephone.
        pub phone: Option<String>,
        /// Web site.
        pub website: Option<String>,
        /// What this brand's links begin with, when not the program's own base URL.
        pub base_url: Option<String>,
        /// Domain of this brand's envelope senders.
        pub bounce_domain: Option<String>,
        /// Colour of its pages and mail, `#rrggbb`.
        pub color: Option<String>,
        /// The name of its logo, read through `Brand::logo`.
        pub logo: Option<String>,
        /// Origins of its own web pages.
        pub origins: Json,
        /// What one click stops: `all`, `brand` or `topic`.
        pub one_click_scope: String,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it was changed.
        pub updated_at: Timestamp,
        /// When it was archived.
        pub archived_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of topics.
pub mod topic {
    use super::*;

    /// A topic: a stream of messages within a brand, of one class.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "topics")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: TopicId,
        /// Its brand.
        pub brand_id: BrandId,
        /// Its name in paths.
        pub slug: String,
        /// Its name in mail.
        pub name: String,
        /// Its class, fixed once anything was sent.
        pub class: Class,
        /// What it is about.
        pub description: Option<String>,
        /// `opt_out`, or `opt_in` when only those who confirmed get it.
        pub consent: String,
        /// Whether customers keep getting it after a wider opt-out.
        pub customers_keep: bool,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it was changed.
        pub updated_at: Timestamp,
        /// When it was archived.
        pub archived_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of logos.
mod logos {
    use super::*;

    /// An image under its name; never changed and never deleted, since mail that was sent shows it.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "logos")]
    pub(super) struct Model {
        /// The last part of its URL.
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        /// The image.
        pub octets: Vec<u8>,
        /// When it came.
        pub created_at: Timestamp,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The image of this logo.
///
/// # Errors
/// The database's own.
pub async fn logo(on: &impl ConnectionTrait, logo: &Logo) -> Result<Option<Vec<u8>>, DbErr> {
    Ok(logos::Entity::find_by_id(logo.name()).one(on).await?.map(|row| row.octets))
}

/// Keeps this image, for ever.
///
/// # Errors
/// The database's own.
pub async fn keep_logo(txn: &Write, db: &Db, image: Image) -> Result<(), DbErr> {
    let created_at = db.read_clock(&**txn).await?;
    let row = logos::Model { name: image.logo.name().to_owned(), octets: image.octets, created_at };
    logos::Entity::insert_many([logos::ActiveModel::from(row)])
        .on_conflict(OnConflict::column(logos::Column::Name).do_nothing().to_owned())
        .exec_without_returning(&**txn)
        .await?;
    Ok(())
}

/// The brand of this slug, archived ones included.
///
/// # Errors
/// The database's own.
pub async fn find(on: &impl ConnectionTrait, slug: &str) -> Result<Option<Brand>, DbErr> {
    brand::Entity::find().filter(brand::Column::Slug.eq(slug)).one(on).await
}

/// The brand of this id.
///
/// # Errors
/// The database's own.
pub async fn by_id(on: &impl ConnectionTrait, id: BrandId) -> Result<Option<Brand>, DbErr> {
    brand::Entity::find_by_id(id).one(on).await
}

/// The topic of this slug, archived ones included.
///
/// # Errors
/// The database's own.
pub async fn find_topic(
    on: &impl ConnectionTrait,
    brand: BrandId,
    slug: &str,
) -> Result<Option<Topic>, DbErr> {
    topic::Entity::find()
        .filter(topic::Column::BrandId.eq(brand))
        .filter(topic::Column::Slug.eq(slug))
        .one(on)
        .await
}

/// The topic of this id.
///
/// # Errors
/// The database's own.
pub async fn topic_by_id(on: &impl ConnectionTrait, id: TopicId) -> Result<Option<Topic>, DbErr> {
    topic::Entity::find_by_id(id).one(on).await
}

/// The brands by slug, archived ones left out: up to `limit` that come after `after`, of them only the one that a key is
/// bound to.
///
/// # Errors
/// The database's own.
pub async fn list(
    on: &impl ConnectionTrait,
    only: Option<BrandId>,
    after: Option<&str>,
    limit: u64,
) -> Result<Vec<Brand>, DbErr> {
    let mut brands = brand::Entity::find().filter(brand::Column::ArchivedAt.is_null());
    if let Some(only) = only {
        brands = brands.filter(brand::Column::Id.eq(only));
    }
    if let Some(after) = after {
        brands = brands.filter(brand::Column::Slug.gt(after));
    }
    brands.order_by_asc(brand::Column::Slug).limit(limit).all(on).await
}

/// The topics of a brand by slug, archived ones left out: up to `limit` that come after `after`.
///
/// # Errors
/// The database's own.
pub async fn topics_after(
    on: &impl ConnectionTrait,
    brand: BrandId,
    after: Option<&str>,
    limit: u64,
) -> Result<Vec<Topic>, DbErr> {
    let mut topics = topic::Entity::find()
        .filter(topic::Column::BrandId.eq(brand))
        .filter(topic::Column::ArchivedAt.is_null());
    if let Some(after) = after {
        topics = topics.filter(topic::Column::Slug.gt(after));
    }
    topics.order_by_asc(topic::Column::Slug).limit(limit).all(on).await
}

/// Makes the brand, or writes all of it anew under the id it has: an archived one is back. Gives it as it now stands,
/// and whether it was made.
///
/// # Errors
/// The database's own.
pub async fn put(txn: &Write, db: &Db, mut wanted: Brand) -> Result<(Brand, bool), DbErr> {
    let now = db.read_clock(&**txn).await?;
    (wanted.created_at, wanted.updated_at, wanted.archived_at) = (now, now, None);
    let made = brand::Entity::insert_many([brand::ActiveModel::from(wanted.clone())])
        .on_conflict(OnConflict::column(brand::Column::Slug).do_nothing().to_owned())
        .exec_without_returning(&**txn)
        .await?;
    if made == 1 {
        return Ok((wanted, true));
    }
    let stored = brand::Entity::find().filter(brand::Column::Slug.eq(&wanted.slug));
    let stored = stored.lock_exclusive().one(&**txn).await?.ok_or_else(|| gone("brand"))?;
    (wanted.id, wanted.created_at) = (stored.id, stored.created_at);
    brand::Entity::update(wanted.clone().into_active_model().reset_all()).exec(&**txn).await?;
    Ok((wanted, false))
}

/// The topic of this slug under a lock that lasts as long as the transaction.
///
/// # Errors
/// The database's own.
pub async fn lock_topic(txn: &Write, brand: BrandId, slug: &str) -> Result<Option<Topic>, DbErr> {
    topic::Entity::find()
        .filter(topic::Column::BrandId.eq(brand))
        .filter(topic::Column::Slug.eq(slug))
        .lock_exclusive()
        .one(&**txn)
        .await
}

/// As [`put`], for a topic. Whether its class may change is the caller's to ask first.
///
/// # Errors
/// The database's own.
pub async fn put_topic(txn: &Write, db: &Db, mut wanted: Topic) -> Result<(Topic, bool), DbErr> {
    let now = db.read_clock(&**txn).await?;
    (wanted.created_at, wanted.updated_at, wanted.archived_at) = (now, now, None);
    let made = topic::Entity::insert_many([topic::ActiveModel::from(wanted.clone())])
        .on_conflict(
            OnConflict::columns([topic::Column::BrandId, topic::Column::Slug]).do_nothing().to_owned(),
        )
        .exec_without_returning(&**txn)
        .await?;
    if made == 1 {
        return Ok((wanted, true));
    }
    let stored = lock_topic(txn, wanted.brand_id, &wanted.slug).await?.ok_or_else(|| gone("topic"))?;
    (wanted.id, wanted.created_at) = (stored.id, stored.created_at);
    topic::Entity::update(wanted.clone().into_active_model().reset_all()).exec(&**txn).await?;
    Ok((wanted, false))
}

/// Archives the brand: it is not shown and not used any more, and its opt-outs stay.
///
/// # Errors
/// The database's own.
pub async fn archive(txn: &Write, db: &Db, id: BrandId) -> Result<(), DbErr> {
    brand::Entity::update_many()
        .col_expr(brand::Column::ArchivedAt, db.now())
        .filter(brand::Column::Id.eq(id))
        .exec(&**txn)
        .await?;
    Ok(())
}

/// As [`archive`], for a topic.
///
/// # Errors
/// The database's own.
pub async fn archive_topic(txn: &Write, db: &Db, id: TopicId) -> Result<(), DbErr> {
    topic::Entity::update_many()
        .col_expr(topic::Column::ArchivedAt, db.now())
        .filter(topic::Column::Id.eq(id))
        .exec(&**txn)
        .await?;
    Ok(())
}

fn gone(what: &str) -> DbErr {
    // Rows of brands and topics are never deleted.
    DbErr::RecordNotFound(what.to_owned())
}
