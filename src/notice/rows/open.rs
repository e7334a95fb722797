//! Opening a notice with its first round, and the rounds after it.

use std::collections::BTreeMap;

use sea_orm::ActiveValue::Set;
use sea_orm::DbErr;
use sea_orm::entity::prelude::*;

use super::{Notice, Round, evidence, notice, of_version, round, round_text, topic_of};
use crate::app::App;
use crate::brand::{self, Brand, Topic};
use crate::clock::{Local, Timestamp};
use crate::db::Write;
use crate::decision::Class;
use crate::id::{ContentId, MailingId, NoticeId};
use crate::message;
use crate::message::rows::{Apart, FreezeError, Source, as_it_stands, freeze_apart};
use crate::notice::clock::complete_by;
use crate::notice::evidence::{Kind, body};
use crate::notice::lint;
use crate::notice::message::{HTML, NAME, SUBJECT, Said, TEXT};
use crate::notice::{NoticeError, RoundKind, RoundState, State};
use crate::policy::rows::{Policy, Text, Version};
use crate::policy::{self, Approval, Change};
use crate::recipient::rows::before_any_change;

/// What a round is to say.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    /// What is told.
    pub(super) kind: RoundKind,
    /// Why people are told again, in the policy's own language.
    pub(super) reason: Option<&'a str>,
    /// The same in the other languages.
    pub(super) reasons: BTreeMap<String, String>,
    /// What changes, by language, where it is not what the version says.
    pub(super) summaries: BTreeMap<String, String>,
    /// Who wants it told.
    pub(super) actor: &'a str,
}

/// Makes the notice of a version that was just published, and its first round. A version that has one already keeps it.
///
/// # Errors
/// What its messages cannot be made from.
pub async fn open(
    txn: &Write,
    app: &App,
    policy: &Policy,
    version: &Version,
    actor: &str,
) -> Result<Notice, NoticeError> {
    if let Some(made) = of_version(&**txn, version.id).await? {
        return Ok(made);
    }
    let now = app.db.read_clock(&**txn).await?;
    let effective_at = version.effective_at.unwrap_or(now);
    let made = insert(txn, policy, version, effective_at, State::Running, now, actor).await?;
    evidence::published(txn, &app.db, &made, policy, version).await?;
    let words = Words {
        kind: RoundKind::Change,
        reason: None,
        reasons: BTreeMap::new(),
        summaries: BTreeMap::new(),
        actor,
    };
    begin_round(txn, app, &made, policy, version, words).await?;
    txn.tell();
    Ok(made)
}

/// Makes the row of a notice.
pub(super) async fn insert(
    txn: &Write,
    policy: &Policy,
    version: &Version,
    effective_at: Timestamp,
    state: State,
    now: Timestamp,
    actor: &str,
) -> Result<Notice, DbErr> {
    let made = Notice {
        id: NoticeId::new(),
        policy_id: policy.id,
        version_id: version.id,
        brand_id: policy.brand_id,
        state,
        effective_at,
        complete_by: complete_by(effective_at, policy.lead_time_days, now),
        late_since: None,
        approved: 0,
        declined: 0,
        on_silence: policy.on_silence,
        on_untold: policy.on_untold,
        two_person: policy.two_person,
        created_by: actor.to_owned(),
        created_at: now,
        closed_at: None,
    };
    notice::Entity::insert(notice::ActiveModel::from(made.clone())).exec_without_returning(&**txn).await?;
    Ok(made)
}

/// Begins the next round of a notice, whose row is locked or new.
pub(super) async fn begin_round(
    txn: &Write,
    app: &App,
    notice: &Notice,
    policy: &Policy,
    version: &Version,
    words: Words<'_>,
) -> Result<Round, NoticeError> {
    let now = app.db.read_clock(&**txn).await?;
    let number = super::rounds(&**txn, notice.id).await?.last().map_or(1, |last| last.number + 1);
    let made = Round {
        id: MailingId::new(),
        notice_id: notice.id,
        number,
        kind: words.kind,
        reason: words.reason.map(str::to_owned),
        state: RoundState::Walking,
        walk_after: None,
        swept_to: before_any_change(now),
        created_by: words.actor.to_owned(),
        created_at: now,
        completed_at: None,
        closed_at: None,
    };
    round::Entity::insert(round::ActiveModel::from(made.clone())).exec_without_returning(&**txn).await?;
    let mut subject = Subject::load(txn, app, notice, policy, version, words.kind).await?;
    let (mut languages, mut told) = (Vec::new(), Vec::new());
    match must_be_fit(txn, app, policy, version, &subject.brand, words.kind).await {
        // Nobody is there to mend it, and people were promised to be asked again.
        Err(NoticeError::Template(why)) if words.kind == RoundKind::ApprovalReminder => {
            tracing::warn!(notice = %notice.id, why, "the policy's template cannot be used any more; reminding with the built-in one");
            subject.built_in = true;
        }
        fit => fit?,
    }
    for text in policy::rows::texts(&**txn, version.id).await? {
        languages.push(text.language.clone());
        let summary = words.summaries.get(&text.language).unwrap_or(&text.summary);
        let reason = words.reasons.get(&text.language).map(String::as_str).or(words.reason);
        let piece = Piece { kind: words.kind, newcomers: false, reason, summary };
        let (content, said) = subject.freeze(txn, app, policy, &text, piece).await?;
        told.push(said);
        let mut newcomer_content_id = None;
        if matches!(words.kind, RoundKind::Correction | RoundKind::Postponement) {
            // Who heard nothing of what was wrong, or of the former date, is told of the change for the first time.
            let first = Piece { kind: RoundKind::Change, newcomers: true, reason: None, summary };
            let (content, said) = subject.freeze(txn, app, policy, &text, first).await?;
            told.push(said);
            newcomer_content_id = Some(content);
        }
        let row = round_text::ActiveModel {
            round_id: Set(made.id),
            content_id: Set(content),
            newcomer_content_id: Set(newcomer_content_id),
            summary: Set(summary.clone()),
            reason: Set(reason.map(str::to_owned)),
            language: Set(text.language),
        };
        round_text::Entity::insert(row).exec_without_returning(&**txn).await?;
    }
    let body = body::Round {
        round: made.id,
        number,
        kind: made.kind,
        reason: made.reason.clone(),
        languages,
        told,
        by: made.created_by.clone(),
    };
    evidence::append(txn, &app.db, notice.id, Kind::Round, None, &body).await?;
    Ok(made)
}

/// What is told in one language, as it is put into evidence: the words, and the hashes of all that its messages are made from.
async fn as_told(
    txn: &Write,
    content: ContentId,
    language: &str,
    piece: Piece<'_>,
) -> Result<body::ToldText, DbErr> {
    let frozen = message::rows::load(&**txn, content).await?;
    let frozen = frozen.ok_or_else(|| DbErr::RecordNotFound("what a round says".into()))?;
    body::ToldText::new(&frozen, language, piece.newcomers, piece.summary, piece.reason)
        .map_err(|error| DbErr::Json(error.to_string()))
}

/// The template may have been changed since the policy chose it.
async fn must_be_fit(
    txn: &Write,
    app: &App,
    policy: &Policy,
    version: &Version,
    brand: &Brand,
    kind: RoundKind,
) -> Result<(), NoticeError> {
    let Source::Stored(slug) = source(policy, kind) else { return Ok(()) };
    let template = as_it_stands(txn, slug, brand.id, Class::Notice).await.map_err(unusable)?;
    let answers = version.approval == Approval::Required || version.change == Change::NewUse;
    let (brand, base) = (brand.clone(), app.settings.base_url.clone());
    let look = move || lint::check(&template, &brand, &base, answers);
    let findings = tokio::task::spawn_blocking(look).await;
    let findings = findings.map_err(|error| DbErr::Custom(error.to_string()))?;
    match findings.refused.is_empty() {
        true => Ok(()),
        false => Err(NoticeError::Template(findings.refused.join("; "))),
    }
}

fn unusable(error: FreezeError) -> NoticeError {
    match error {
        FreezeError::Db(error) => NoticeError::Db(error),
        other => NoticeError::Template(other.to_string()),
    }
}

/// The policy's own template where it tells of a change; what a withdrawal and a reminder say is the same everywhere.
fn source(policy: &Policy, kind: RoundKind) -> Source<'_> {
    match &policy.template {
        Some(slug) if !matches!(kind, RoundKind::Withdrawal | RoundKind::Reminder) => Source::Stored(slug),
        _ => BUILT_IN,
    }
}

const BUILT_IN: Source<'static> = Source::BuiltIn { name: NAME, subject: SUBJECT, html: HTML, text: TEXT };

/// What some of the people are told in one language.
#[derive(Clone, Copy)]
struct Piece<'a> {
    kind: RoundKind,
    /// Whether it is for those who heard nothing of the rounds before.
    newcomers: bool,
    reason: Option<&'a str>,
    summary: &'a str,
}

/// What all languages of a round share.
struct Subject {
    brand: Brand,
    topic: Topic,
    version: Version,
    effective_at: Local,
    retry_until: Timestamp,
    /// When another change takes effect that was announced, where this one is called off.
    next: Option<Local>,
    /// The version without whose approval this one holds for nobody who had to give it.
    needs: Option<i64>,
    before: Option<Version>,
    new_use: Option<Topic>,
    base: String,
    /// Whether the policy's own template is left aside.
    built_in: bool,
}

impl Subject {
    async fn load(
        txn: &Write,
        app: &App,
        notice: &Notice,
        policy: &Policy,
        version: &Version,
        kind: RoundKind,
    ) -> Result<Self, DbErr> {
        let brand = brand::rows::by_id(&**txn, policy.brand_id).await?;
        let brand = brand.ok_or_else(|| DbErr::RecordNotFound("the brand of a policy".into()))?;
        let new_use = match version.use_topic_id {
            Some(topic) => brand::rows::topic_by_id(&**txn, topic).await?,
            None => None,
        };
        let next = match kind {
            RoundKind::Withdrawal => next(txn, app, policy, version).await?,
            _ => None,
        };
        Ok(Self {
            topic: topic_of(&**txn, policy, kind).await?,
            retry_until: notice.complete_by,
            next,
            base: format!("{}/policies/{}", brand.base(&app.settings.base_url), policy.slug),
            before: policy::rows::before(&**txn, version).await?,
            version: version.clone(),
            effective_at: version.there(notice.effective_at),
            needs: needs(txn, version, kind).await?,
            new_use,
            brand,
            built_in: false,
        })
    }

    /// Freezes what is told in the language of a text; gives also what there is to prove of it.
    async fn freeze(
        &self,
        txn: &Write,
        app: &App,
        policy: &Policy,
        text: &Text,
        piece: Piece<'_>,
    ) -> Result<(ContentId, body::ToldText), NoticeError> {
        let id = ContentId::new();
        let apart = Apart {
            id,
            brand: policy.brand_id,
            topic: &self.topic,
            source: if self.built_in { BUILT_IN } else { source(policy, piece.kind) },
            data: self.data(policy, text, piece),
            retry_until: Some(self.retry_until),
        };
        freeze_apart(txn, &app.db, apart).await.map_err(unusable)?;
        Ok((id, as_told(txn, id, &text.language, piece).await?))
    }

    fn data(&self, policy: &Policy, text: &Text, piece: Piece<'_>) -> Json {
        let Piece { kind, reason, summary, .. } = piece;
        let language =
            if text.language == policy.language { String::new() } else { format!("?lang={}", text.language) };
        let url = match kind {
            // What is called off is no text to read as the one in force.
            RoundKind::Withdrawal => format!("{}{language}", self.base),
            _ => format!("{}/{}{language}", self.base, self.version.number),
        };
        let changes = format!("{}/{}/changes{language}", self.base, self.version.number);
        let old = self.before.as_ref().map(|before| format!("{}/{}{language}", self.base, before.number));
        Said {
            kind,
            language: &text.language,
            brand: &self.brand.name,
            title: &text.title,
            version: self.version.number,
            change: self.version.change.as_str(),
            summary,
            reason,
            effective_at: self.effective_at,
            next: self.next,
            needs: self.needs,
            sha256: &text.hash(),
            url: &url,
            before: old.as_deref().map(|old| (old, changes.as_str())),
            approval: self.version.approval == Approval::Required,
            new_use: self.new_use.as_ref().map(|topic| topic.name.as_str()),
        }
        .data()
    }
}

/// When the next change takes effect that was announced, beside this version.
async fn next(txn: &Write, app: &App, policy: &Policy, version: &Version) -> Result<Option<Local>, DbErr> {
    let now = app.db.read_clock(&**txn).await?;
    let others = policy::rows::versions(&**txn, policy.id).await?.into_iter();
    let ahead = others
        .filter(|other| other.id != version.id && other.state == policy::State::Published)
        .filter(|other| other.change.makes_a_notice())
        .filter_map(|other| other.holds_from_there())
        .filter(|from| from.at > now);
    Ok(ahead.min_by_key(|from| from.at))
}

/// Without whose approval the change does not hold for who had to give it; none where it is not told that it holds.
async fn needs(txn: &Write, version: &Version, kind: RoundKind) -> Result<Option<i64>, DbErr> {
    match kind {
        RoundKind::Withdrawal | RoundKind::Reminder => Ok(None),
        _ => policy::rows::owed_before(&**txn, version).await,
    }
}
