//! What an approval link is about, as it stands now.

use sea_orm::{ConnectionTrait, DbErr};
use url::Url;

use crate::address::mask;
use crate::app::App;
use crate::brand::{self, Brand, Topic};
use crate::clock::{Local, Timestamp};
use crate::decision::{Reason, Standing};
use crate::language::Choice;
use crate::link::Link;
use crate::notice::question::{self, Asked, Closed, Question, newer};
use crate::notice::rows::{self, Notice, approvals, site};
use crate::notice::{Decision, text};
use crate::policy::State;
use crate::policy::rows::{Policy, Text, Version};
use crate::recipient;
use crate::web::page::Look;

/// What a link is about.
pub(super) struct Subject {
    pub(super) brand: Brand,
    pub(super) policy: Policy,
    pub(super) version: Version,
    /// What the version says in the language of the message.
    pub(super) text: Text,
    /// What people are told of it now.
    pub(super) summary: String,
    pub(super) notice: Notice,
    /// The earlier version without whose approval this one holds for nobody who had to give it.
    pub(super) needs: Option<i64>,
    /// The version before it.
    pub(super) before: Option<Version>,
    /// What that one says and what this one says, in one language as far as they have one in common.
    pub(super) compared: Option<(Text, Text)>,
    /// The newest version after it that people are told of, and from when it holds.
    pub(super) newer: Option<Version>,
    /// What stands for the new use.
    pub(super) use_topic: Option<Topic>,
    pub(super) asked: Asked,
    /// Why no answer is taken.
    pub(super) closed: Option<Closed>,
    /// What the person answers now, and since when.
    pub(super) answer: Option<(Decision, Timestamp)>,
    /// The masked address; none after erasure.
    pub(super) address: Option<String>,
    /// What else the person refused that covers the use, whatever they answered here.
    pub(super) refused: Vec<Reason>,
    pub(super) now: Timestamp,
    pub(super) look: Look,
    /// The person's language, or what their browser asks for.
    pub(super) choice: Choice,
    pub(super) https: bool,
    /// What the paths of the program's pages begin with.
    prefix: String,
}

impl Subject {
    /// What this link is about; none when its message is of no notice.
    pub(super) async fn load(
        app: &App,
        link: &Link,
        accept_language: &str,
        https: bool,
    ) -> Result<Option<Self>, DbErr> {
        let on = app.db.reads();
        let Some((notice, language)) = approvals::about(on, link.delivery).await? else { return Ok(None) };
        let missing = |what: &str| DbErr::RecordNotFound(format!("the {what} of an approval link"));
        let notice = rows::find(on, notice).await?.ok_or_else(|| missing("notice"))?;
        let brand = brand::rows::by_id(on, notice.brand_id).await?.ok_or_else(|| missing("brand"))?;
        let policy = crate::policy::rows::by_id(on, notice.policy_id).await?;
        let policy = policy.ok_or_else(|| missing("policy"))?;
        let versions = crate::policy::rows::versions(on, policy.id).await?;
        let is_it = |version: &&Version| version.id == notice.version_id;
        let version = versions.iter().find(is_it).cloned().ok_or_else(|| missing("version"))?;
        let published = |other: &&Version| other.state == State::Published;
        let before = versions.iter().filter(published).rfind(|other| other.number < version.number).cloned();
        let (text, summary) = text_and_summary(on, &version, &policy.language, &language).await?;
        let text = text.ok_or_else(|| missing("text"))?;
        let compared = match &before {
            Some(before) => {
                let (language, default) = (&text.language, &policy.language);
                crate::policy::rows::texts_alike(on, before, &version, language, default).await?
            }
            None => None,
        };
        let use_topic = match version.use_topic_id {
            Some(topic) => brand::rows::topic_by_id(on, topic).await?,
            None => None,
        };
        let person = recipient::rows::by_id(on, link.recipient).await?;
        let gone = person.as_ref().is_none_or(|person| person.standing == Standing::Erased);
        let newer = newer(&versions, &version).0.cloned();
        let asked = Asked::of(&notice, &version, &versions, gone);
        let now = app.db.read_clock(on).await?;
        let answer = approvals::standing(on, version.id, link.recipient).await?;
        let locale = person.as_ref().and_then(|person| person.locale.as_deref());
        let base = Url::parse(brand.base(&app.settings.base_url));
        let prefix = base.as_ref().map_or("", Url::path).trim_end_matches('/').to_owned();
        Ok(Some(Self {
            look: Look::of(&brand, &app.settings.base_url),
            choice: Choice::new(locale, accept_language),
            address: person.as_ref().and_then(|person| person.address.as_deref()).map(mask),
            closed: asked.closed(now),
            answer: answer.map(|answer| (answer.decision, answer.decided_at)),
            summary: summary.unwrap_or_else(|| text.summary.clone()),
            needs: crate::policy::rows::owed_before(on, &version).await?,
            notice,
            brand,
            policy,
            version,
            text,
            before,
            compared,
            newer,
            use_topic,
            refused: Vec::new(),
            asked,
            now,
            https,
            prefix,
        }))
    }

    /// Looks which refusals still stand that cover the use: of everything, of the brand, or said in another way than by
    /// a link of this notice.
    pub(super) async fn look_what_is_refused(&mut self, app: &App, link: &Link) -> Result<(), DbErr> {
        let Some(topic) = self.allowed() else { return Ok(()) };
        self.refused = rows::still_refused(app.db.reads(), &link.address_hash, topic).await?;
        Ok(())
    }

    /// The topic of the new use, when the person allows it.
    pub(super) fn allowed(&self) -> Option<&Topic> {
        let allows = matches!(self.answer, Some((Decision::Approve, _)));
        self.use_topic.as_ref().filter(|_| allows && self.asked.question == Question::Use)
    }

    /// From when the change holds, by the clock by which that was named.
    pub(super) fn effective(&self) -> Local {
        self.version.there(self.asked.effective_at)
    }

    /// By what it is known again which words the page shows.
    pub(super) fn shown(&self) -> String {
        let text = &self.text;
        question::shown(self.version.id, &text.language, &text.sha256, &self.summary)
    }

    /// SHA-256 of the text, hexadecimal.
    pub(super) fn sha256(&self) -> String {
        hex::encode(&self.text.sha256)
    }

    /// The path of the policy's page, or of one below it, in the language of the message.
    pub(super) fn path(&self, below: &str) -> String {
        let (prefix, slug, language) = (&self.prefix, &self.policy.slug, &self.text.language);
        let asked =
            if *language == self.policy.language { String::new() } else { format!("?lang={language}") };
        format!("{prefix}/policies/{slug}{below}{asked}")
    }
}

/// What a version says in this language, or in the policy's own, and what people are told of it in that one.
async fn text_and_summary(
    on: &impl ConnectionTrait,
    version: &Version,
    default: &str,
    language: &str,
) -> Result<(Option<Text>, Option<String>), DbErr> {
    let texts = site::texts(on, &[version.id]).await?;
    let text = text::pick(&texts, |text| &text.language, language, default).cloned();
    let tellings = site::tellings(on, &[version.id]).await?;
    let summary = text.as_ref().and_then(|text| {
        tellings.into_iter().find(|telling| telling.language == text.language).map(|telling| telling.summary)
    });
    Ok((text, summary))
}
