//! Templates and frozen contents in the database.

mod apart;
mod copies;
mod cycle;
mod freezing;

pub use apart::{Apart, Source, as_it_stands, freeze_apart};
pub use copies::{copy, remove};
pub use cycle::includes_itself;
pub use freezing::{FreezeError, MAX_DATA, freeze, shared};

use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::{Condition, ConnectionTrait, DbErr, QueryOrder, QuerySelect};

use super::Frozen;
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

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The table of contents.
pub mod content {
    use super::*;

    /// What a start freezes.
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
        /// Until when its deliveries are tried again at least.
        pub retry_until: Option<Timestamp>,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it was frozen.
        pub frozen_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

impl Template {
    /// The classes that it may serve.
    pub fn classes(&self) -> Vec<Class> {
        let words = self.classes.as_array().map(Vec::as_slice).unwrap_or_default();
        words.iter().filter_map(|word| word.as_str()?.parse().ok()).collect()
    }
}

/// A template as it is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its slug.
    pub slug: String,
    /// The subject.
    pub subject: String,
    /// The HTML part.
    pub html: String,
    /// The text part.
    pub text: Option<String>,
    /// The one brand that may use it.
    pub brand: Option<BrandId>,
    /// The classes it may serve.
    pub classes: Vec<Class>,
}

/// Makes or changes a template; says whether it was made.
///
/// # Errors
/// The database's own.
pub async fn put(txn: &Write, db: &Db, wanted: Wanted) -> Result<(Template, bool), DbErr> {
    let stored = find(&**txn, &wanted.slug).await?;
    let now = db.read_clock(&**txn).await?;
    let words = wanted.classes.iter().map(|class| Json::from(class.as_str())).collect();
    let row = template::ActiveModel {
        id: Set(stored.as_ref().map_or_else(TemplateId::new, |stored| stored.id)),
        slug: Set(wanted.slug),
        subject: Set(wanted.subject),
        html: Set(wanted.html),
        text: Set(wanted.text),
        brand_id: Set(wanted.brand),
        classes: Set(Json::Array(words)),
        created_at: Set(stored.as_ref().map_or(now, |stored| stored.created_at)),
        updated_at: Set(now),
    };
    match stored {
        Some(_) => Ok((template::Entity::update(row).exec(&**txn).await?, false)),
        None => Ok((template::Entity::insert(row).exec_with_returning(&**txn).await?, true)),
    }
}

/// Removes a template. What was frozen of it stays.
///
/// # Errors
/// The database's own.
pub async fn delete(txn: &Write, id: TemplateId) -> Result<(), DbErr> {
    template::Entity::delete_by_id(id).exec(&**txn).await?;
    Ok(())
}

/// Templates by slug, after this one; those of every brand, or only what one brand may use.
///
/// # Errors
/// The database's own.
pub async fn list(
    on: &impl ConnectionTrait,
    brand: Option<BrandId>,
    after: Option<&str>,
    limit: u64,
) -> Result<Vec<Template>, DbErr> {
    let mut query = template::Entity::find().order_by_asc(template::Column::Slug).limit(limit);
    if let Some(brand) = brand {
        let own = template::Column::BrandId.eq(brand);
        query = query.filter(Condition::any().add(own).add(template::Column::BrandId.is_null()));
    }
    if let Some(after) = after {
        query = query.filter(template::Column::Slug.gt(after));
    }
    query.all(on).await
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
        id: Set(id),
        digest: Set(None),
        brand_id: Set(brand),
        topic_id: Set(topic),
        template: Set(template_slug.to_owned()),
        subject: Set(String::new()),
        html: Set(String::new()),
        text: Set(String::new()),
        partials: Set(Json::Object(Default::default())),
        data: Set(Json::Object(Default::default())),
        reply_to: Set(None),
        held: Set(true),
        retry_until: Set(None),
        created_at: Set(now),
        frozen_at: Set(None),
    };
    content::Entity::insert(row).exec_without_returning(&**txn).await?;
    Ok(())
}

/// Lets the deliveries that point to this content go.
///
/// # Errors
/// The database's own.
pub async fn release(txn: &Write, id: ContentId) -> Result<(), DbErr> {
    txn.tell();
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

/// Until when deliveries that point to this content are tried again at least.
///
/// # Errors
/// The database's own.
pub async fn retry_until(on: &impl ConnectionTrait, id: ContentId) -> Result<Option<Timestamp>, DbErr> {
    Ok(content::Entity::find_by_id(id).one(on).await?.and_then(|row| row.retry_until))
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
