//! Content that is frozen by itself: what a notice says in one language.

use std::collections::BTreeMap;

use sea_orm::ActiveValue::Set;
use sea_orm::DbErr;
use sea_orm::entity::prelude::*;

use super::freezing::{FreezeError, Sources, checked_data, gather, row_of};
use super::{Template, content};
use crate::brand::Topic;
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::decision::Class;
use crate::id::{BrandId, ContentId, TemplateId, TopicId};
use crate::message::Frozen;

/// What a message is made from that belongs to no campaign.
#[derive(Clone, Copy, Debug)]
pub enum Source<'s> {
    /// The stored template of this slug.
    Stored(&'s str),
    /// Handlebars of the program's own.
    BuiltIn {
        /// What it is called.
        name: &'s str,
        /// The subject.
        subject: &'s str,
        /// The HTML part.
        html: &'s str,
        /// The text part.
        text: &'s str,
    },
}

/// Content that is frozen by itself.
#[derive(Clone, Debug)]
pub struct Apart<'a> {
    /// The id that it gets.
    pub id: ContentId,
    /// The sender.
    pub brand: BrandId,
    /// The stream of messages.
    pub topic: &'a Topic,
    /// What it is made from.
    pub source: Source<'a>,
    /// What the template sees as `data`: an object.
    pub data: Json,
    /// Until when its deliveries are tried again at least.
    pub retry_until: Option<Timestamp>,
}

/// Freezes content by itself, not held.
///
/// # Errors
/// Which template is missing or may not be used, and why.
pub async fn freeze_apart(txn: &Write, db: &Db, apart: Apart<'_>) -> Result<(), FreezeError> {
    let data = checked_data(&apart.data)?;
    let now = db.read_clock(&**txn).await?;
    let sources = match apart.source {
        Source::Stored(slug) => gather(txn, slug, apart.brand, apart.topic.class).await?,
        Source::BuiltIn { name, subject, html, text } => Sources {
            template: Template {
                id: TemplateId::new(),
                slug: name.to_owned(),
                subject: subject.to_owned(),
                html: html.to_owned(),
                text: Some(text.to_owned()),
                brand_id: None,
                classes: Json::Array(vec![Json::from(apart.topic.class.as_str())]),
                created_at: now,
                updated_at: now,
            },
            partials: BTreeMap::new(),
        },
    };
    let frozen = sources.freeze(apart.id, apart.brand, apart.topic.id, data, None).await?;
    let row = content::ActiveModel {
        retry_until: Set(apart.retry_until),
        ..row_of(frozen, apart.brand, apart.topic.id, now)?
    };
    content::Entity::insert(row).exec_without_returning(&**txn).await?;
    Ok(())
}

/// A template and all that it includes, as they stand now and would be frozen, without data: for whoever judges them.
///
/// # Errors
/// Which template is missing or may not be used, and why.
pub async fn as_it_stands(
    txn: &Write,
    slug: &str,
    brand: BrandId,
    class: Class,
) -> Result<Frozen, FreezeError> {
    let sources = gather(txn, slug, brand, class).await?;
    let nothing = Json::Object(Default::default());
    let work = move || sources.whole(ContentId::new(), brand, TopicId::new(), nothing, None);
    // Long templates take a while: no other request should wait for them.
    Ok(tokio::task::spawn_blocking(work).await.map_err(|error| DbErr::Custom(error.to_string()))?)
}
