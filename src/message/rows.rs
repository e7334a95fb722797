//! Templates and frozen contents in the database.

mod copies;

pub use copies::{copy, remove};

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, ConnectionTrait, DbErr};

use super::{Frozen, TemplateError};
use crate::brand::{Brand, Topic};
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::decision::Class;
use crate::id::{BrandId, ContentId, TemplateId, TopicId};

/// A template as stored.
pub type Template = template::Model;

/// The table of templates.
pub mod template {
    use super::*;

    /// A template: what messages are made from.
    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "templates")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: TemplateId,
        /// Its name in paths and in partials.
        pub slug: String,
        /// The subject, Handlebars.
        pub subject: String,
        /// The HTML part, Handlebars.
        pub html: String,
        /// The text part, Handlebars; made from the HTML when absent.
        pub text: Option<String>,
        /// The one brand that may use it; every brand when absent.
        pub brand_id: Option<BrandId>,
        /// The classes it may serve: an array of their words.
        pub classes: Json,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it was changed.
        pub updated_at: Timestamp,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of contents.
pub mod content {
    use super::*;

    /// What a start freezes.
    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "contents")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: ContentId,
        /// By which single messages find what they share.
        pub digest: Option<Vec<u8>>,
        /// The brand.
        pub brand_id: BrandId,
        /// The topic.
        pub topic_id: TopicId,
        /// The slug of the template.
        pub template: String,
        /// The subject; empty until frozen.
        pub subject: String,
        /// The HTML part; empty until frozen.
        pub html: String,
        /// The text part; empty until frozen.
        pub text: String,
        /// Every reachable template, by slug.
        pub partials: Json,
        /// The campaign's data.
        pub data: Json,
        /// Reply-To.
        pub reply_to: Option<String>,
        /// Whether deliveries that point here wait.
        pub held: bool,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it was frozen.
        pub frozen_at: Option<Timestamp>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Why a start cannot freeze its content.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The content was never placed.
    #[error("there is no such content")]
    NoContent,
    /// There is no such template.
    #[error("there is no template {0:?}")]
    NoTemplate(String),
    /// A template includes one that is not there.
    #[error("template {template:?} includes {partial:?}, which is not there")]
    NoPartial {
        /// Who includes it.
        template: String,
        /// What is not there.
        partial: String,
    },
    /// The template, or one that it includes, belongs to another brand.
    #[error("template {0:?} belongs to another brand")]
    OtherBrand(String),
    /// The template, or one that it includes, may not serve this class.
    #[error("template {template:?} may not serve messages of class {class}; see its classes")]
    Class {
        /// The template.
        template: String,
        /// The class of the topic.
        class: Class,
    },
    /// It does not parse, or does what templates may not.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The data is no object or too large.
    #[error("the data {0}")]
    Data(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbErr),
}

/// The template of this slug.
///
/// # Errors
/// The database's own.
pub async fn find(on: &impl ConnectionTrait, slug: &str) -> Result<Option<Template>, DbErr> {
    template::Entity::find().filter(template::Column::Slug.eq(slug)).one(on).await
}

/// Whether anything of this topic was made ready for sending; from then on its class is fixed.
///
/// # Errors
/// The database's own.
pub async fn topic_has_content(on: &impl ConnectionTrait, topic: TopicId) -> Result<bool, DbErr> {
    let any = content::Entity::find().filter(content::Column::TopicId.eq(topic)).one(on).await?;
    Ok(any.is_some())
}

/// Makes the place of what a start will freeze: held, so that deliveries that point to it wait.
///
/// # Errors
/// The database's own.
pub async fn place(
    txn: &Write,
    db: &Db,
    id: ContentId,
    brand: BrandId,
    topic: TopicId,
    template_slug: &str,
) -> Result<(), DbErr> {
    let now = db.read_clock(&**txn).await?;
    let row = content::ActiveModel {
        id: ActiveValue::Set(id),
        digest: ActiveValue::Set(None),
        brand_id: ActiveValue::Set(brand),
        topic_id: ActiveValue::Set(topic),
        template: ActiveValue::Set(template_slug.to_owned()),
        subject: ActiveValue::Set(String::new()),
        html: ActiveValue::Set(String::new()),
        text: ActiveValue::Set(String::new()),
        partials: ActiveValue::Set(Json::Object(Default::default())),
        data: ActiveValue::Set(Json::Object(Default::default())),
        reply_to: ActiveValue::Set(None),
        held: ActiveValue::Set(true),
        created_at: ActiveValue::Set(now),
        frozen_at: ActiveValue::Set(None),
    };
    content::Entity::insert(row).exec_without_returning(&**txn).await?;
    Ok(())
}

/// Copies template, every template that it includes, text part and data into the place, so that later changes of the
/// templates change nothing. It stays held. Freezing again writes it anew.
///
/// # Errors
/// Which template is missing or may not be used, and why.
pub async fn freeze(
    txn: &Write,
    db: &Db,
    id: ContentId,
    template_slug: &str,
    data: &Json,
    reply_to: Option<&str>,
) -> Result<(), FreezeError> {
    let _ = (txn, db, id, template_slug, data, reply_to);
    Err(FreezeError::NoContent)
}

/// Lets the deliveries that point to this content go.
///
/// # Errors
/// The database's own.
pub async fn release(txn: &Write, id: ContentId) -> Result<(), DbErr> {
    set_held(txn, id, false).await
}

/// Makes the deliveries that point to this content wait.
///
/// # Errors
/// The database's own.
pub async fn hold(txn: &Write, id: ContentId) -> Result<(), DbErr> {
    set_held(txn, id, true).await
}

async fn set_held(txn: &Write, id: ContentId, held: bool) -> Result<(), DbErr> {
    content::Entity::update_many()
        .col_expr(content::Column::Held, held.into())
        .filter(content::Column::Id.eq(id))
        .exec(&**txn)
        .await?;
    Ok(())
}

/// The content that single messages of this template share: found by its digest, made when it is not there. Not held.
///
/// # Errors
/// Which template is missing or may not be used, and why.
pub async fn shared(
    txn: &Write,
    db: &Db,
    brand: &Brand,
    topic: &Topic,
    template_slug: &str,
) -> Result<ContentId, FreezeError> {
    let _ = (txn, db, brand, topic);
    Err(FreezeError::NoTemplate(template_slug.to_owned()))
}

/// What was frozen under this id; none when nothing was.
///
/// # Errors
/// The database's own.
pub async fn load(on: &impl ConnectionTrait, id: ContentId) -> Result<Option<Frozen>, DbErr> {
    let row = content::Entity::find_by_id(id).filter(content::Column::FrozenAt.is_not_null()).one(on).await?;
    row.map(|row| {
        let partials = serde_json::from_value(row.partials)
            .map_err(|error| DbErr::Custom(format!("the partials of content {id}: {error}")))?;
        Ok(Frozen {
            id: row.id,
            brand_id: row.brand_id,
            topic_id: row.topic_id,
            template: row.template,
            subject: row.subject,
            html: row.html,
            text: row.text,
            partials,
            data: row.data,
            reply_to: row.reply_to,
        })
    })
    .transpose()
}
