//! Making and changing policies.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{LockType, OnConflict};
use sea_orm::{ConnectionTrait, IntoActiveModel, QueryOrder, QuerySelect};

use super::{Policy, policy, version};
use crate::brand::rows::{lock_topic, put_topic};
use crate::brand::{Brand, Topic};
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::decision::Class;
use crate::id::{BrandId, PolicyId, TopicId};
use crate::policy::{OnSilence, OnUntold, PolicyError, State};

/// The topic of each brand in which notices of its policies go out: slug and name.
const NOTICES: (&str, &str) = ("policy-notices", "Policy notices");
/// The one in which people are reminded of what is in force.
const REMINDERS: (&str, &str) = ("policy-reminders", "Reminders of policies");

/// A policy as it is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name in paths.
    pub slug: String,
    /// What it is called.
    pub title: String,
    /// The language tag of its texts unless a translation says otherwise.
    pub language: String,
    /// The slug of the template of its notices.
    pub template: Option<String>,
    /// Days that people must have between being told and the date.
    pub lead_time_days: u32,
    /// Whether what one key publishes another one must release; as it was when none.
    pub two_person: Option<bool>,
    /// What holds for who does not answer.
    pub on_silence: OnSilence,
    /// What holds for who could not be told.
    pub on_untold: OnUntold,
    /// Days before the date on which those who have not answered are asked again.
    pub remind_days_before: Vec<u32>,
    /// Months between two reminders of what is in force.
    pub reminder_months: Option<u32>,
    /// Days after the date for which the banner is shown.
    pub banner_days_after: u32,
    /// Where on the brand's pages the banner is shown.
    pub placements: Vec<String>,
}

/// Makes the policy, or writes all of it anew under the id it has, with the topics that it needs. Gives it as it now
/// stands, and whether it was made. Where it takes two people, that one be enough is asked for by one and done by another.
///
/// # Errors
/// That it belongs to another brand, that its texts are in another language, or that a topic of the name that it needs is
/// of another class.
pub async fn put(
    txn: &Write,
    db: &Db,
    brand: &Brand,
    wanted: Wanted,
    actor: &str,
) -> Result<(Policy, bool), PolicyError> {
    let now = db.read_clock(&**txn).await?;
    // The policy before its topics, as whoever changes one of its notices locks them.
    locked(txn, &wanted.slug).await?;
    let topic_id = ensure_topic(txn, db, brand, NOTICES, Class::Notice).await?;
    let reminder_topic_id = match wanted.reminder_months {
        Some(_) => Some(ensure_topic(txn, db, brand, REMINDERS, Class::Reminder).await?),
        None => None,
    };
    let mut row = Policy {
        id: PolicyId::new(),
        slug: wanted.slug,
        brand_id: brand.id,
        topic_id,
        reminder_topic_id,
        title: wanted.title,
        language: wanted.language,
        template: wanted.template,
        lead_time_days: wanted.lead_time_days.into(),
        two_person: wanted.two_person.unwrap_or(false),
        one_person_asked_by: None,
        one_person_asked_at: None,
        on_silence: wanted.on_silence,
        on_untold: wanted.on_untold,
        remind_days_before: wanted.remind_days_before.into(),
        reminder_months: wanted.reminder_months.map(Into::into),
        banner_days_after: wanted.banner_days_after.into(),
        placements: wanted.placements.into(),
        created_at: now,
        updated_at: now,
    };
    let made = policy::Entity::insert_many([policy::ActiveModel::from(row.clone())])
        .on_conflict(OnConflict::column(policy::Column::Slug).do_nothing().to_owned())
        .exec_without_returning(&**txn)
        .await?;
    if made == 1 {
        return Ok((row, true));
    }
    let stored = locked(txn, &row.slug).await?.ok_or(PolicyError::Gone)?;
    if stored.brand_id != brand.id {
        return Err(PolicyError::Conflict(format!(
            "Policy {:?} is of another brand, for ever; choose another name for this one.",
            row.slug
        )));
    }
    if stored.language != row.language && has_versions(&**txn, stored.id).await? {
        return Err(PolicyError::Conflict(format!(
            "The language of policy {:?} is fixed as {}, because it has a version; others are translations.",
            row.slug, stored.language
        )));
    }
    let off = stored.two_person && wanted.two_person == Some(false);
    if off && has_open_version(&**txn, stored.id).await? {
        return Err(PolicyError::Conflict(format!(
            "A version of policy {:?} was written for two people to publish; publish or delete it before one may do it alone.",
            row.slug
        )));
    }
    row.two_person = wanted.two_person.unwrap_or(stored.two_person);
    let asked = (stored.one_person_asked_by, stored.one_person_asked_at);
    if off && asked.0.as_deref().is_none_or(|asked_by| asked_by == actor) {
        // What takes two people takes two people to end.
        row.two_person = true;
        let asked = if asked.0.is_some() { asked } else { (Some(actor.to_owned()), Some(now)) };
        (row.one_person_asked_by, row.one_person_asked_at) = asked;
    } else if stored.two_person && wanted.two_person.is_none() {
        (row.one_person_asked_by, row.one_person_asked_at) = asked;
    }
    (row.id, row.created_at) = (stored.id, stored.created_at);
    row.reminder_topic_id = row.reminder_topic_id.or(stored.reminder_topic_id);
    policy::Entity::update(row.clone().into_active_model().reset_all()).exec(&**txn).await?;
    Ok((row, false))
}

/// The policy of this slug, if there is one, locked.
async fn locked(txn: &Write, slug: &str) -> Result<Option<Policy>, DbErr> {
    policy::Entity::find().filter(policy::Column::Slug.eq(slug)).lock(LockType::Update).one(&**txn).await
}

async fn has_open_version(on: &impl ConnectionTrait, policy: PolicyId) -> Result<bool, DbErr> {
    let found = version::Entity::find().filter(version::Column::PolicyId.eq(policy));
    let open = found.filter(version::Column::State.is_in([State::Draft, State::AwaitingRelease]));
    Ok(open.one(on).await?.is_some())
}

async fn has_versions(on: &impl ConnectionTrait, policy: PolicyId) -> Result<bool, DbErr> {
    let any = version::Entity::find().filter(version::Column::PolicyId.eq(policy)).limit(1).one(on).await?;
    Ok(any.is_some())
}

/// Makes sure that the brand has this topic and that it is not archived.
async fn ensure_topic(
    txn: &Write,
    db: &Db,
    brand: &Brand,
    (slug, name): (&str, &str),
    class: Class,
) -> Result<TopicId, PolicyError> {
    let wanted = match lock_topic(txn, brand.id, slug).await? {
        Some(stored) if stored.class != class => {
            return Err(PolicyError::Conflict(format!(
                "Policies send in a topic {slug:?} of class {class}, but brand {:?} has one of that name of class {}; \
                 make that one anew under another name and give this one class {class}.",
                brand.slug, stored.class
            )));
        }
        Some(stored) if stored.archived_at.is_none() => return Ok(stored.id),
        Some(archived) => archived,
        None => Topic {
            id: TopicId::new(),
            brand_id: brand.id,
            slug: slug.to_owned(),
            name: name.to_owned(),
            class,
            description: None,
            consent: "opt_out".to_owned(),
            customers_keep: false,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            archived_at: None,
        },
    };
    Ok(put_topic(txn, db, wanted).await?.0.id)
}

/// Policies by slug: up to `limit` that come after `after`, of them only those of one brand.
///
/// # Errors
/// The database's own.
pub async fn list(
    on: &impl ConnectionTrait,
    brand: Option<BrandId>,
    after: Option<&str>,
    limit: u64,
) -> Result<Vec<Policy>, DbErr> {
    let mut found = policy::Entity::find();
    if let Some(brand) = brand {
        found = found.filter(policy::Column::BrandId.eq(brand));
    }
    if let Some(after) = after {
        found = found.filter(policy::Column::Slug.gt(after));
    }
    found.order_by_asc(policy::Column::Slug).limit(limit).all(on).await
}
