//! Brands and topics in the database.

use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, QueryOrder};

use crate::clock::Timestamp;
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
    #[sea_orm::model]
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
        /// Its logo, an https URL.
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

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of topics.
pub mod topic {
    use super::*;

    /// A topic: a stream of messages within a brand, of one class.
    #[sea_orm::model]
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

    impl ActiveModelBehavior for ActiveModel {}
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

/// The topics of a brand by slug, archived ones left out.
///
/// # Errors
/// The database's own.
pub async fn topics_of(on: &impl ConnectionTrait, brand: BrandId) -> Result<Vec<Topic>, DbErr> {
    topic::Entity::find()
        .filter(topic::Column::BrandId.eq(brand))
        .filter(topic::Column::ArchivedAt.is_null())
        .order_by_asc(topic::Column::Slug)
        .all(on)
        .await
}
