//! What a start freezes: a template, all that it includes, the text part and the data, copied.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sea_orm::ActiveValue::Set;
use sea_orm::DbErr;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sha2::{Digest, Sha256};

use super::{Template, content, find};
use crate::brand::{self, Brand, Topic};
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::decision::Class;
use crate::id::{BrandId, ContentId, TopicId};
use crate::message::content::{LAYOUT, MAX_PARTIALS, includes};
use crate::message::{Compiled, Frozen, Partial, TemplateError, text_part};

/// Longest data of a campaign in octets, as JSON.
pub const MAX_DATA: usize = 64 * 1024;
/// Most octets of a template and all that it includes.
const MAX_OCTETS: usize = 2 * 1024 * 1024;

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
    /// With all that it includes it is too large.
    #[error("template {0:?} and all that it includes are too large; shorten them")]
    TooLarge(String),
    /// The data is no object or too large.
    #[error("the data {0}")]
    Data(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbErr),
}

/// Copies template, every template that it includes, text part and data into the place, so that later changes of the
/// templates change nothing. It stays as held as it was. Freezing again writes it anew.
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
    let data = checked_data(data)?;
    let place = content::Entity::find_by_id(id).one(&**txn).await?.ok_or(FreezeError::NoContent)?;
    let topic = brand::rows::topic_by_id(&**txn, place.topic_id).await?.ok_or(FreezeError::NoContent)?;
    let sources = gather(txn, template_slug, place.brand_id, topic.class).await?;
    let frozen = sources.freeze(id, place.brand_id, place.topic_id, data, reply_to).await?;
    let now = db.read_clock(&**txn).await?;
    let row = content::ActiveModel {
        id: Set(id),
        template: Set(frozen.template),
        subject: Set(frozen.subject),
        html: Set(frozen.html),
        text: Set(frozen.text),
        partials: Set(partials_json(&frozen.partials)?),
        data: Set(frozen.data),
        reply_to: Set(frozen.reply_to),
        frozen_at: Set(Some(now)),
        ..Default::default()
    };
    content::Entity::update(row).exec(&**txn).await?;
    Ok(())
}

pub(super) fn checked_data(data: &Json) -> Result<Json, FreezeError> {
    if data.is_null() {
        return Ok(Json::Object(Default::default()));
    }
    if !data.is_object() {
        return Err(FreezeError::Data("must be an object".into()));
    }
    if data.to_string().len() > MAX_DATA {
        return Err(FreezeError::Data(format!("is longer than {MAX_DATA} octets")));
    }
    Ok(data.clone())
}

pub(super) fn partials_json(partials: &BTreeMap<String, Partial>) -> Result<Json, DbErr> {
    serde_json::to_value(partials).map_err(|error| DbErr::Custom(error.to_string()))
}

/// A template and all that it includes, as they stand now.
pub(super) struct Sources {
    pub(super) template: Template,
    pub(super) partials: BTreeMap<String, Template>,
}

/// Reads a template and all that it includes, each of which must be free for this brand and class.
pub(super) async fn gather(
    txn: &Write,
    slug: &str,
    brand: BrandId,
    class: Class,
) -> Result<Sources, FreezeError> {
    let template = find(&**txn, slug).await?.ok_or_else(|| FreezeError::NoTemplate(slug.to_owned()))?;
    let mut partials = BTreeMap::new();
    let mut wanted = vec![];
    let mut octets = 0;
    let mut next = Some(template.clone());
    while let Some(template) = next.take() {
        must_be_free(&template, brand, class)?;
        octets += template.html.len() + template.text.as_ref().map_or(0, String::len);
        if octets > MAX_OCTETS || partials.len() > MAX_PARTIALS {
            return Err(FreezeError::TooLarge(template.slug));
        }
        let text = template.text.as_deref();
        for name in includes(&template.slug, &template.subject, &template.html, text)? {
            wanted.push((template.slug.clone(), name));
        }
        while let Some((by, name)) = wanted.pop() {
            if let Entry::Vacant(place) = partials.entry(name) {
                let missing = || FreezeError::NoPartial { template: by, partial: place.key().clone() };
                let found = find(&**txn, place.key()).await?.ok_or_else(missing)?;
                next = Some(place.insert(found).clone());
                break;
            }
        }
    }
    Ok(Sources { template, partials })
}

fn must_be_free(template: &Template, brand: BrandId, class: Class) -> Result<(), FreezeError> {
    if template.brand_id.is_some_and(|own| own != brand) {
        return Err(FreezeError::OtherBrand(template.slug.clone()));
    }
    if !template.classes().contains(&class) {
        return Err(FreezeError::Class { template: template.slug.clone(), class });
    }
    Ok(())
}

impl Sources {
    /// The whole as it is written, with the text parts that are absent made.
    pub(super) fn whole(
        self,
        id: ContentId,
        brand_id: BrandId,
        topic_id: TopicId,
        data: Json,
        reply_to: Option<String>,
    ) -> Frozen {
        let text_of = |template: &Template| {
            template.text.clone().unwrap_or_else(|| text_part::from_html(&template.html))
        };
        let partials = self.partials.iter().map(|(slug, template)| {
            (slug.clone(), Partial { html: template.html.clone(), text: text_of(template) })
        });
        Frozen {
            id,
            brand_id,
            topic_id,
            partials: partials.collect(),
            text: text_of(&self.template),
            template: self.template.slug,
            subject: self.template.subject,
            html: self.template.html,
            data,
            reply_to,
        }
    }

    /// Makes the text parts that are absent, tries whether the whole can be used, and writes its styles at its elements.
    pub(super) async fn freeze(
        self,
        id: ContentId,
        brand_id: BrandId,
        topic_id: TopicId,
        data: Json,
        reply_to: Option<&str>,
    ) -> Result<Frozen, FreezeError> {
        let reply_to = reply_to.map(str::to_owned);
        let work = move || {
            let frozen = self.whole(id, brand_id, topic_id, data, reply_to);
            Compiled::new(&frozen)?;
            Ok(frozen.inlined().0)
        };
        // Long templates take a while: no other request should wait for them.
        tokio::task::spawn_blocking(work).await.map_err(|error| DbErr::Custom(error.to_string()))?
    }

    /// By which the same sources for the same topic are known again.
    fn digest(&self, brand: BrandId, topic: TopicId) -> Vec<u8> {
        let mut hasher = Sha256::new();
        let mut add = |text: &[u8]| {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        };
        add(LAYOUT.as_bytes());
        add(brand.0.as_bytes());
        add(topic.0.as_bytes());
        for template in std::iter::once(&self.template).chain(self.partials.values()) {
            add(template.slug.as_bytes());
            add(template.subject.as_bytes());
            add(template.html.as_bytes());
            add(&[u8::from(template.text.is_some())]);
            add(template.text.as_deref().unwrap_or_default().as_bytes());
        }
        hasher.finalize().to_vec()
    }
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
    let sources = gather(txn, template_slug, brand.id, topic.class).await?;
    let digest = sources.digest(brand.id, topic.id);
    if let Some(id) = by_digest(txn, &digest).await? {
        return Ok(id);
    }
    let nothing = Json::Object(Default::default());
    let frozen = sources.freeze(ContentId::new(), brand.id, topic.id, nothing, None).await?;
    let now = db.read_clock(&**txn).await?;
    let row = content::ActiveModel {
        digest: Set(Some(digest.clone())),
        ..row_of(frozen, brand.id, topic.id, now)?
    };
    let once = OnConflict::column(content::Column::Digest).do_nothing().to_owned();
    content::Entity::insert(row).on_conflict(once).exec_without_returning(&**txn).await?;
    by_digest(txn, &digest).await?.ok_or(FreezeError::NoContent)
}

/// The row of content that is frozen as it is made, not held.
pub(super) fn row_of(
    frozen: Frozen,
    brand: BrandId,
    topic: TopicId,
    now: Timestamp,
) -> Result<content::ActiveModel, DbErr> {
    Ok(content::ActiveModel {
        id: Set(frozen.id),
        digest: Set(None),
        brand_id: Set(brand),
        topic_id: Set(topic),
        template: Set(frozen.template),
        subject: Set(frozen.subject),
        html: Set(frozen.html),
        text: Set(frozen.text),
        partials: Set(partials_json(&frozen.partials)?),
        data: Set(frozen.data),
        reply_to: Set(frozen.reply_to),
        held: Set(false),
        retry_until: Set(None),
        created_at: Set(now),
        frozen_at: Set(Some(now)),
    })
}

async fn by_digest(txn: &Write, digest: &[u8]) -> Result<Option<ContentId>, DbErr> {
    let row = content::Entity::find().filter(content::Column::Digest.eq(digest.to_vec())).one(&**txn).await?;
    Ok(row.map(|row| row.id))
}
