//! Versions from the draft to their end.
//!
//! Whatever changes a version first takes its policy's lock, so that there is never more than one that is not published,
//! and what is published comes in the order of the numbers.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::LockType;
use sea_orm::{ConnectionTrait, ExprTrait as _, IntoActiveModel, QueryOrder, QuerySelect};
use sha2::{Digest, Sha256};

use super::{Policy, Text, Version, before, policy, text, version, version_by_id};
use crate::brand::{self, Topic};
use crate::clock::{Local, Timestamp};
use crate::db::{Db, Write};
use crate::id::{PolicyId, TopicId, VersionId};
use crate::policy::draft::{Calendar, approval_of, bad_reason, check, language_tag};
use crate::policy::{Change, Draft, Flaw, PolicyError, State, must_be_another};

/// What became of a version that somebody published or released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The version as it now stands.
    pub version: Version,
    /// Whether this very call made it public and people are to be told of it: whoever published opens the notice in the
    /// same transaction.
    pub opens: bool,
}

impl Version {
    /// From when it holds: its own date, or that of its publication. None before either.
    pub fn holds_from(&self) -> Option<Timestamp> {
        self.effective_at.or(self.published_at)
    }

    /// The same by the clock by which it was named.
    pub fn holds_from_there(&self) -> Option<Local> {
        self.holds_from().map(|at| self.there(at))
    }

    /// The date from which it holds, by the clock by which that was named.
    pub fn there(&self, at: Timestamp) -> Local {
        Local { at, east: self.effective_offset }
    }

    /// When something happened to it, by the clock by which its date was named first: days that have passed stay as they are
    /// told, however its date moves.
    pub fn happened(&self, at: Timestamp) -> Local {
        Local { at, east: self.named_offset }
    }
}

impl Text {
    /// SHA-256 of its Markdown, hexadecimal.
    pub fn hash(&self) -> String {
        hex::encode(&self.sha256)
    }
}

/// Writes the next version of a policy, as a draft. Repeated with the same id it changes nothing and gives what is there.
///
/// # Errors
/// Which fields are wrong, or that another version waits to be published.
pub async fn create(
    txn: &Write,
    db: &Db,
    policy: PolicyId,
    id: VersionId,
    draft: &Draft,
    actor: &str,
) -> Result<Version, PolicyError> {
    let policy = locked(txn, policy).await?;
    if let Some(made) = version_by_id(&**txn, id).await? {
        return Ok(made);
    }
    let newest = newest(txn, policy.id).await?;
    let preceding = match &newest {
        Some(open) if !open.state.is_public() => {
            return Err(PolicyError::Conflict(format!(
                "Version {} is not published yet ({}); publish or delete it before writing the next one.",
                open.number, open.state
            )));
        }
        Some(newest) if newest.state == State::Published => Some(newest.clone()),
        Some(newest) => before(&**txn, newest).await?,
        None => None,
    };
    let mut flaws = check(draft, &policy.language);
    let approval = approval_of(draft, preceding.is_none()).map_err(|flaw| flaws.push(flaw));
    let use_topic_id = topic_of(txn, &policy, draft).await?.unwrap_or_else(|flaw| {
        flaws.push(flaw);
        None
    });
    let now = db.read_clock(&**txn).await?;
    let overridden = draft.override_reason.is_some();
    let calendar = calendar(&policy, draft.change, preceding.as_ref(), now, overridden);
    if let Err(reason) = calendar.check(draft.effective_at.map(|named| named.at)) {
        flaws.push(Flaw::new("/effective_at", reason));
    }
    let Ok(approval) = approval else { return Err(PolicyError::Flaws(flaws)) };
    if !flaws.is_empty() {
        return Err(PolicyError::Flaws(flaws));
    }
    let made = Version {
        id,
        policy_id: policy.id,
        number: newest.map_or(1, |newest| newest.number + 1),
        state: State::Draft,
        change: draft.change,
        approval,
        use_topic_id,
        effective_at: draft.effective_at.map(|named| named.at),
        effective_offset: draft.offset(),
        named_offset: draft.offset(),
        override_reason: draft.override_reason.clone(),
        created_by: actor.to_owned(),
        created_at: now,
        published_by: None,
        published_at: None,
        released_by: None,
        withdrawn_at: None,
    };
    version::Entity::insert(version::ActiveModel::from(made.clone())).exec_without_returning(&**txn).await?;
    let texts = texts_of(&policy, id, draft).into_iter().map(text::ActiveModel::from);
    text::Entity::insert_many(texts).exec_without_returning(&**txn).await?;
    Ok(made)
}

/// The newest version of a policy when it is public, or waits for its release, and says just what this draft says: whoever
/// asks twice for one thing gets it once.
///
/// # Errors
/// The database's own.
pub async fn twin(txn: &Write, policy: &Policy, draft: &Draft) -> Result<Option<Version>, PolicyError> {
    let policy = locked(txn, policy.id).await?;
    let stands = |newest: &Version| matches!(newest.state, State::AwaitingRelease | State::Published);
    let Some(newest) = newest(txn, policy.id).await?.filter(stands) else { return Ok(None) };
    let topic = topic_of(txn, &policy, draft).await?.ok().flatten();
    let approval = approval_of(draft, newest.number == 1).ok();
    let same = newest.change == draft.change
        && newest.effective_at == draft.effective_at.map(|named| named.at)
        && newest.effective_offset == draft.offset()
        && newest.use_topic_id == topic
        && Some(newest.approval) == approval;
    let mut said = texts_of(&policy, newest.id, draft);
    said.sort_by(|one, other| one.language.cmp(&other.language));
    Ok((same && super::texts(&**txn, newest.id).await? == said).then_some(newest))
}

fn texts_of(policy: &Policy, version_id: VersionId, draft: &Draft) -> Vec<Text> {
    let text = |language: &str, title: &str, summary: &str, body: &str| Text {
        version_id,
        language: language.to_owned(),
        title: title.to_owned(),
        summary: summary.to_owned(),
        body_markdown: body.to_owned(),
        sha256: Sha256::digest(body).to_vec(),
    };
    let own = text(&policy.language, &policy.title, &draft.summary, &draft.body_markdown);
    let others = draft.translations.iter().filter_map(|(tag, other)| {
        let title = other.title.as_ref().unwrap_or(&policy.title);
        Some(text(&language_tag(tag)?, title, &other.summary, &other.body_markdown))
    });
    std::iter::once(own).chain(others).collect()
}

/// The topic that stands for a new use, if the draft names one.
async fn topic_of(
    txn: &Write,
    policy: &Policy,
    draft: &Draft,
) -> Result<Result<Option<TopicId>, Flaw>, DbErr> {
    let Some(slug) = draft.topic.as_deref().filter(|_| draft.change == Change::NewUse) else {
        return Ok(Ok(None));
    };
    let flaw = |reason: String| Ok(Err(Flaw::new("/topic", reason)));
    match brand::rows::find_topic(&**txn, policy.brand_id, slug).await? {
        Some(topic) if topic.archived_at.is_some() => flaw(format!("topic {slug:?} is archived")),
        Some(topic) if !topic.class.can_be_refused() => flaw(format!(
            "topic {slug:?} is of class {}, which nobody can refuse; choose one of class relationship, reminder or \
             marketing",
            topic.class
        )),
        Some(topic) => Ok(must_not_ask_first(&topic).map(|()| Some(topic.id))),
        None => flaw(format!("the policy's brand has no topic {slug:?}; PUT it first")),
    }
}

/// Of a topic that is for those alone who opted in, nobody's data may be used for what they allow by the link of a notice.
fn must_not_ask_first(topic: &Topic) -> Result<(), Flaw> {
    if topic.consent != "opt_in" {
        return Ok(());
    }
    let slug = &topic.slug;
    Err(Flaw::new(
        "/topic",
        format!(
            "topic {slug:?} is for those alone who opted in to it (consent opt_in), so that nobody could allow the use by \
             answering the notice; name one whose consent is opt_out, with approval \"required\" if people are to agree first, \
             or publish another kind of change and ask for opt-ins"
        ),
    ))
}

fn calendar(
    policy: &Policy,
    change: Change,
    preceding: Option<&Version>,
    now: Timestamp,
    overridden: bool,
) -> Calendar {
    Calendar {
        now,
        before: preceding.and_then(Version::holds_from),
        lead_time_days: policy.lead_time_days,
        tells: change.makes_a_notice(),
        overridden,
    }
}

/// Deletes a version that was never published.
///
/// # Errors
/// That there is none, or that it was published.
pub async fn discard(txn: &Write, policy: PolicyId, number: i64) -> Result<Version, PolicyError> {
    let (_, found) = version_locked(txn, policy, number).await?;
    if found.state.is_public() {
        return Err(PolicyError::Conflict(format!(
            "Version {number} was published, and what was published stays; withdraw its notice or publish the next version."
        )));
    }
    version::Entity::delete_by_id(found.id).exec(&**txn).await?;
    Ok(found)
}

/// Publishes a draft; when the policy wants two people, it then waits for the second one. Repeated, it changes nothing.
///
/// # Errors
/// Which rule it breaks by now.
pub async fn publish(
    txn: &Write,
    db: &Db,
    policy: PolicyId,
    number: i64,
    override_reason: Option<String>,
    actor: &str,
) -> Result<Published, PolicyError> {
    let (policy, mut version) = version_locked(txn, policy, number).await?;
    if version.state != State::Draft {
        return Ok(Published { version, opens: false });
    }
    version.published_by = Some(actor.to_owned());
    if policy.two_person {
        judge(txn, db, &policy, &mut version, override_reason).await?;
        version.state = State::AwaitingRelease;
        store(txn, &version).await?;
        return Ok(Published { version, opens: false });
    }
    make_public(txn, db, &policy, version, override_reason).await
}

/// Releases what somebody else published. Repeated, it changes nothing.
///
/// # Errors
/// That it waits for nobody or for somebody else, or which rule it breaks by now.
pub async fn release(
    txn: &Write,
    db: &Db,
    policy: PolicyId,
    number: i64,
    override_reason: Option<String>,
    actor: &str,
) -> Result<Published, PolicyError> {
    let (policy, mut version) = version_locked(txn, policy, number).await?;
    match version.state {
        State::Draft => Err(PolicyError::Conflict(format!(
            "Version {number} is a draft: somebody has to publish it before somebody else releases it."
        ))),
        State::Published | State::Withdrawn if version.released_by.is_none() => Err(PolicyError::Conflict(
            format!("Version {number} was published by one person alone; nothing waits to be released."),
        )),
        State::Published | State::Withdrawn => Ok(Published { version, opens: false }),
        State::AwaitingRelease => {
            let what = format!("Version {number} was published");
            must_be_another(&what, version.published_by.as_deref(), actor)
                .map_err(PolicyError::SomebodyElse)?;
            version.released_by = Some(actor.to_owned());
            make_public(txn, db, &policy, version, override_reason).await
        }
    }
}

async fn make_public(
    txn: &Write,
    db: &Db,
    policy: &Policy,
    mut version: Version,
    override_reason: Option<String>,
) -> Result<Published, PolicyError> {
    let (now, baseline) = judge(txn, db, policy, &mut version, override_reason).await?;
    version.state = State::Published;
    version.published_at = Some(now);
    store(txn, &version).await?;
    let opens = !baseline && version.change.makes_a_notice();
    Ok(Published { version, opens })
}

/// Whether the date still keeps the rules, perhaps thanks to a reason given now. Gives the time, and whether it is the
/// baseline.
async fn judge(
    txn: &Write,
    db: &Db,
    policy: &Policy,
    version: &mut Version,
    override_reason: Option<String>,
) -> Result<(Timestamp, bool), PolicyError> {
    if let Some(reason) = override_reason {
        if let Some(wrong) = bad_reason(&reason) {
            return Err(PolicyError::Flaws(vec![Flaw::new("/override_reason", wrong)]));
        }
        version.override_reason = Some(reason);
    }
    if let Some(topic) = version.use_topic_id
        && let Some(topic) = brand::rows::topic_by_id(&**txn, topic).await?
    {
        must_not_ask_first(&topic).map_err(|flaw| PolicyError::Flaws(vec![flaw]))?;
    }
    let now = db.read_clock(&**txn).await?;
    let preceding = before(&**txn, version).await?;
    let overridden = version.override_reason.is_some();
    let calendar = calendar(policy, version.change, preceding.as_ref(), now, overridden);
    let checked = calendar.check(version.effective_at);
    checked.map_err(|reason| PolicyError::Flaws(vec![Flaw::new("/effective_at", reason)]))?;
    Ok((now, preceding.is_none()))
}

/// The version that holds at a time: the one of the highest number that was published, not withdrawn, and whose date has
/// come.
///
/// # Errors
/// The database's own.
pub async fn in_force(
    on: &impl ConnectionTrait,
    policy: PolicyId,
    at: Timestamp,
) -> Result<Option<Version>, DbErr> {
    let date = Expr::col(version::Column::EffectiveAt).if_null(Expr::col(version::Column::PublishedAt));
    version::Entity::find()
        .filter(version::Column::PolicyId.eq(policy))
        .filter(version::Column::State.eq(State::Published))
        .filter(date.lte(at))
        .order_by_desc(version::Column::Number)
        .limit(1)
        .one(on)
        .await
}

/// What everyone may read: the versions that were published, withdrawn ones included, by number.
///
/// # Errors
/// The database's own.
pub async fn public(on: &impl ConnectionTrait, policy: PolicyId) -> Result<Vec<Version>, DbErr> {
    version::Entity::find()
        .filter(version::Column::PolicyId.eq(policy))
        .filter(version::Column::State.is_in([State::Published, State::Withdrawn]))
        .order_by_asc(version::Column::Number)
        .all(on)
        .await
}

/// Versions of a policy by number, from the one after `after` on.
///
/// # Errors
/// The database's own.
pub async fn versions_after(
    on: &impl ConnectionTrait,
    policy: PolicyId,
    after: Option<i64>,
    limit: u64,
) -> Result<Vec<Version>, DbErr> {
    version::Entity::find()
        .filter(version::Column::PolicyId.eq(policy))
        .filter(version::Column::Number.gt(after.unwrap_or(0)))
        .order_by_asc(version::Column::Number)
        .limit(limit)
        .all(on)
        .await
}

/// The text of a version in this language, or in the default one when it has none in it.
///
/// # Errors
/// The database's own.
pub async fn text_for(
    on: &impl ConnectionTrait,
    version: &Version,
    language: &str,
    default: &str,
) -> Result<Option<Text>, DbErr> {
    let in_language = |tag: &str| text::Entity::find_by_id((version.id, tag.to_owned()));
    match in_language(language).one(on).await? {
        Some(found) => Ok(Some(found)),
        None => in_language(default).one(on).await,
    }
}

/// What two versions say, for the one to be compared with the other: both in this language, or both in the default one, or
/// each as far as it can be had. In two languages they would have no word in common.
///
/// # Errors
/// The database's own.
pub async fn texts_alike(
    on: &impl ConnectionTrait,
    old: &Version,
    new: &Version,
    language: &str,
    default: &str,
) -> Result<Option<(Text, Text)>, DbErr> {
    let mut found = None;
    for language in [language, default] {
        let texts =
            (text_for(on, old, language, default).await?, text_for(on, new, language, default).await?);
        let (Some(old), Some(new)) = texts else { continue };
        let alike = old.language == new.language;
        found = Some((old, new));
        if alike {
            break;
        }
    }
    Ok(found)
}

async fn newest(txn: &Write, policy: PolicyId) -> Result<Option<Version>, DbErr> {
    version::Entity::find()
        .filter(version::Column::PolicyId.eq(policy))
        .order_by_desc(version::Column::Number)
        .limit(1)
        .one(&**txn)
        .await
}

async fn store(txn: &Write, version: &Version) -> Result<(), DbErr> {
    version::Entity::update(version.clone().into_active_model().reset_all()).exec(&**txn).await?;
    Ok(())
}

async fn locked(txn: &Write, policy: PolicyId) -> Result<Policy, PolicyError> {
    let found = policy::Entity::find_by_id(policy).lock(LockType::Update).one(&**txn).await?;
    found.ok_or(PolicyError::Gone)
}

async fn version_locked(
    txn: &Write,
    policy: PolicyId,
    number: i64,
) -> Result<(Policy, Version), PolicyError> {
    let policy = locked(txn, policy).await?;
    let found = version(&**txn, policy.id, number).await?.ok_or(PolicyError::Gone)?;
    Ok((policy, found))
}
