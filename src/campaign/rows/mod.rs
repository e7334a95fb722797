//! Campaigns in the database.
//!
//! Whatever changes a campaign first takes its row's lock, so that changes and the worker's steps come one after the
//! other; on SQLite every writing transaction is alone anyway.

mod life;
mod lines;
mod steps;
mod upkeep;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::LockType;
use sea_orm::{ActiveValue, ConnectionTrait, QueryOrder, QuerySelect};

use super::draft::{check, check_stream, check_template};
use super::{CampaignError, Change, Draft, State};
use crate::brand::{self, Brand, Topic};
use crate::clock::Timestamp;
use crate::db::{Db, Write};
use crate::delivery::limit::Limit;
use crate::delivery::rows::{Lane, Mailing, limits};
use crate::id::{BrandId, CampaignId, ContentId, MailingId, RecipientId, TopicId};
use crate::message;
use crate::recipient::Audience;

pub use campaign::Model as Campaign;
pub use life::{cancel, freeze_aside, pause, resume, retry, start};
pub use lines::{Line, LinesFailure, LinesReport, add_all, add_lines};
pub(super) use steps::{Work, act, waiting};
pub use upkeep::{delete, move_deadline};

/// The table of campaigns.
pub mod campaign {
    use super::*;

    /// A campaign.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "campaigns")]
    pub struct Model {
        /// Its id; as a [`MailingId`], what its deliveries carry.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: CampaignId,
        /// What those who run it call it.
        pub name: Option<String>,
        /// Its brand.
        pub brand_id: BrandId,
        /// Its topic.
        pub topic_id: TopicId,
        /// The slug of its template.
        pub template: String,
        /// What templates see as `data`: an object.
        pub data: Json,
        /// Whom of the brand's people it is for; nobody but those added by lines when absent.
        pub audience: Option<Json>,
        /// Not before; at once when absent.
        pub send_at: Option<Timestamp>,
        /// Not after.
        pub not_after: Option<Timestamp>,
        /// `Name <address>` of Reply-To.
        pub reply_to: Option<String>,
        /// How far it has come.
        pub state: State,
        /// What its deliveries point to; frozen by the start, held unless it runs.
        pub content_id: ContentId,
        /// The last of the brand's people that the fan-out has looked at.
        pub fan_out_after: Option<RecipientId>,
        /// Whether the fan-out has looked at everyone.
        pub fanned_out: bool,
        /// Who made it.
        pub created_by: String,
        /// When it was made.
        pub created_at: Timestamp,
        /// When its first message could go.
        pub started_at: Option<Timestamp>,
        /// When nothing was left to do.
        pub finished_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}

    impl Model {
        /// Under which its deliveries are found.
        pub fn mailing(&self) -> MailingId {
            MailingId(self.id.0)
        }

        /// Whom it is for.
        ///
        /// # Errors
        /// When what is stored cannot be read.
        pub fn audience(&self) -> Result<Option<Audience>, DbErr> {
            let read = self.audience.clone().map(serde_json::from_value).transpose();
            read.map_err(|error| DbErr::Custom(format!("the audience of campaign {}: {error}", self.id)))
        }
    }
}

/// Makes a draft. Repeated with the same id it changes nothing and gives what is there.
///
/// # Errors
/// Which fields are wrong.
pub async fn create(
    txn: &Write,
    db: &Db,
    id: CampaignId,
    draft: &Draft,
    actor: &str,
) -> Result<Campaign, CampaignError> {
    if let Some(made) = find(&**txn, id).await? {
        return Ok(made);
    }
    let now = db.read_clock(&**txn).await?;
    let mut flaws = check(draft, now);
    let found = stream(txn, draft).await?;
    match &found {
        Ok((brand, topic)) => {
            flaws.extend(check_stream(brand, topic));
            let template = message::rows::find(&**txn, &draft.template).await?;
            flaws.extend(check_template(&draft.template, template.as_ref(), brand, topic));
        }
        Err(CampaignError::Flaws(missing)) => flaws.extend(missing.iter().cloned()),
        Err(_) => {}
    }
    let (brand, topic) = match found {
        Ok(found) if flaws.is_empty() => found,
        _ => return Err(CampaignError::Flaws(flaws)),
    };
    let content = ContentId::new();
    message::rows::place(txn, db, content, brand.id, topic.id, &draft.template).await?;
    let row = campaign::ActiveModel {
        id: ActiveValue::Set(id),
        name: ActiveValue::Set(draft.name.clone()),
        brand_id: ActiveValue::Set(brand.id),
        topic_id: ActiveValue::Set(topic.id),
        template: ActiveValue::Set(draft.template.clone()),
        data: ActiveValue::Set(Json::Object(draft.data.clone())),
        audience: ActiveValue::Set(audience_json(draft.audience.as_ref())?),
        send_at: ActiveValue::Set(draft.send_at),
        not_after: ActiveValue::Set(draft.not_after),
        reply_to: ActiveValue::Set(draft.reply_to.clone()),
        state: ActiveValue::Set(State::Draft),
        content_id: ActiveValue::Set(content),
        fan_out_after: ActiveValue::Set(None),
        fanned_out: ActiveValue::Set(draft.audience.is_none()),
        created_by: ActiveValue::Set(actor.to_owned()),
        created_at: ActiveValue::Set(now),
        started_at: ActiveValue::Set(None),
        finished_at: ActiveValue::Set(None),
    };
    campaign::Entity::insert(row).exec_without_returning(&**txn).await?;
    find(&**txn, id).await?.ok_or(CampaignError::Gone)
}

async fn stream(txn: &Write, draft: &Draft) -> Result<Result<(Brand, Topic), CampaignError>, DbErr> {
    let Some(brand) = brand::rows::find(&**txn, &draft.brand).await? else {
        let reason = format!("there is no brand {:?}", draft.brand);
        return Ok(Err(CampaignError::flaw("/brand", reason)));
    };
    let Some(topic) = brand::rows::find_topic(&**txn, brand.id, &draft.topic).await? else {
        let reason = format!("brand {:?} has no topic {:?}", draft.brand, draft.topic);
        return Ok(Err(CampaignError::flaw("/topic", reason)));
    };
    Ok(Ok((brand, topic)))
}

fn audience_json(audience: Option<&Audience>) -> Result<Option<Json>, DbErr> {
    audience
        .map(serde_json::to_value)
        .transpose()
        .map_err(|error| DbErr::Custom(format!("the audience: {error}")))
}

/// The brand and the topic of a campaign.
///
/// # Errors
/// The database's own.
pub async fn stream_of(on: &impl ConnectionTrait, campaign: &Campaign) -> Result<(Brand, Topic), DbErr> {
    let gone = |what: &str| DbErr::RecordNotFound(format!("the {what} of campaign {}", campaign.id));
    let brand = brand::rows::by_id(on, campaign.brand_id).await?.ok_or_else(|| gone("brand"))?;
    let topic = brand::rows::topic_by_id(on, campaign.topic_id).await?.ok_or_else(|| gone("topic"))?;
    Ok((brand, topic))
}

/// A campaign as its deliveries know it.
pub(super) async fn mailing_of(txn: &Write, campaign: &Campaign) -> Result<Mailing, DbErr> {
    let (_, topic) = stream_of(&**txn, campaign).await?;
    Ok(Mailing { id: campaign.mailing(), content: campaign.content_id, lane: Lane::of(topic.class) })
}

/// Changes the fields of a draft or a scheduled campaign; `edit` gets the campaign as it stands, as a draft of itself.
/// Brand and topic stay. A scheduled campaign is frozen anew when template, data or reply_to changed.
///
/// # Errors
/// Which fields are wrong, or the state that forbids it.
pub async fn edit(
    txn: &Write,
    db: &Db,
    id: CampaignId,
    edit: impl FnOnce(&mut Draft) + Send,
) -> Result<Campaign, CampaignError> {
    let before = locked(txn, id).await?;
    Change::Edit.permit(before.state)?;
    let (brand, topic) = stream_of(&**txn, &before).await?;
    let mut draft = as_draft(&before, &brand, &topic)?;
    edit(&mut draft);
    let now = db.read_clock(&**txn).await?;
    let mut flaws = check(&draft, now);
    if draft.template != before.template {
        let template = message::rows::find(&**txn, &draft.template).await?;
        flaws.extend(check_template(&draft.template, template.as_ref(), &brand, &topic));
    }
    if !flaws.is_empty() {
        return Err(CampaignError::Flaws(flaws));
    }
    let after = Campaign {
        name: draft.name,
        template: draft.template,
        data: Json::Object(draft.data),
        audience: audience_json(draft.audience.as_ref())?,
        send_at: draft.send_at,
        not_after: draft.not_after,
        reply_to: draft.reply_to,
        fanned_out: draft.audience.is_none(),
        ..before.clone()
    };
    let mut row = campaign::ActiveModel::from(after.clone());
    row = row.reset_all();
    campaign::Entity::update(row).exec(&**txn).await?;
    let frozen = (&before.template, &before.data, &before.reply_to);
    if before.state == State::Scheduled && frozen != (&after.template, &after.data, &after.reply_to) {
        life::freeze(txn, db, &after).await?;
    }
    Ok(after)
}

/// Sets the limit of a campaign, or takes it away. It counts from here on, for what waits because of it too.
///
/// # Errors
/// The state that forbids it.
pub async fn limit(txn: &Write, db: &Db, id: CampaignId, limit: Option<&Limit>) -> Result<(), CampaignError> {
    let campaign = locked(txn, id).await?;
    Change::Limit.permit(campaign.state)?;
    Ok(limits::limit_content(txn, db, campaign.content_id, limit).await?)
}

fn as_draft(campaign: &Campaign, brand: &Brand, topic: &Topic) -> Result<Draft, DbErr> {
    Ok(Draft {
        name: campaign.name.clone(),
        brand: brand.slug.clone(),
        topic: topic.slug.clone(),
        template: campaign.template.clone(),
        data: campaign.data.as_object().cloned().unwrap_or_default(),
        audience: campaign.audience()?,
        send_at: campaign.send_at,
        not_after: campaign.not_after,
        reply_to: campaign.reply_to.clone(),
    })
}

/// The campaign of this id.
///
/// # Errors
/// The database's own.
pub async fn find(on: &impl ConnectionTrait, id: CampaignId) -> Result<Option<Campaign>, DbErr> {
    campaign::Entity::find_by_id(id).one(on).await
}

/// Campaigns, the newest first, those older than `after`; of one brand or of all.
///
/// # Errors
/// The database's own.
pub async fn list(
    on: &impl ConnectionTrait,
    brand: Option<BrandId>,
    state: Option<State>,
    after: Option<CampaignId>,
    limit: u64,
) -> Result<Vec<Campaign>, DbErr> {
    let mut query = campaign::Entity::find();
    if let Some(brand) = brand {
        query = query.filter(campaign::Column::BrandId.eq(brand));
    }
    if let Some(state) = state {
        query = query.filter(campaign::Column::State.eq(state));
    }
    if let Some(after) = after {
        query = query.filter(campaign::Column::Id.lt(after));
    }
    query.order_by_desc(campaign::Column::Id).limit(limit).all(on).await
}

/// The campaign with its row's lock, until the transaction ends.
async fn locked(txn: &Write, id: CampaignId) -> Result<Campaign, CampaignError> {
    let found = campaign::Entity::find_by_id(id).lock(LockType::Update).one(&**txn).await?;
    found.ok_or(CampaignError::Gone)
}
