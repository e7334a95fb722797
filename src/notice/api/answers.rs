//! Answers that people give by letter or telephone, over HTTP.

use axum::extract::State as Shared;
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::seen;
use crate::access::rows::record;
use crate::app::App;
use crate::brand::Topic;
use crate::brand::rows::topic_by_id;
use crate::clock::{Instant, Timestamp};
use crate::decision::{Reason, Standing};
use crate::fence::Rest;
use crate::id::{DeliveryId, NoticeId, RecipientId};
use crate::notice::question::{Asked, Closed, Question};
use crate::notice::rows::{self, Notice, OfUse, ToldFailure, approvals, site};
use crate::notice::{AnsweredBy, Decision, ToldBy, text};
use crate::opt_out::Channel;
use crate::policy;
use crate::policy::rows::{Policy, Text, Version};
use crate::recipient::rows::{Recipient, belongs, by_id};
use crate::web::{Caller, Json, Path, Problem, Role, check};

/// Longest note in characters.
const MAX_NOTE: usize = 2_000;

/// An answer that came by letter or telephone.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenAnswer {
    /// Whose.
    #[schema(value_type = String, format = Uuid)]
    recipient: RecipientId,
    /// What it says: they agree or do not; of a new use, they allow it or do not.
    decision: Decision,
    /// How it came.
    by: ToldBy,
    /// The number of the round whose words they agree to. Where a notice was corrected it must be that of the newest
    /// correction or a later one; what was agreed to before does not count.
    #[serde(default)]
    round: Option<i64>,
    /// What proves it, such as the day of the letter or the words of the call; at most 2,000 characters.
    note: String,
}

/// The answer that stands.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct RecordedAnswer {
    /// Whose.
    recipient: RecipientId,
    /// What it says.
    decision: Decision,
    /// How it came.
    by: AnsweredBy,
    /// When it was given.
    answered_at: Timestamp,
    /// The version that it answers.
    version: i64,
    /// The language of the text that it is bound to.
    language: String,
    /// SHA-256 of that text, hexadecimal.
    sha256: String,
    /// Whether it is new; the same answer, however it came, is recorded once.
    recorded: bool,
    /// Whether nothing can arrive any more of a use that was refused.
    settled: bool,
    /// Of a use that was allowed: what else the person refused that covers it, and that keeps mail of it from them.
    still_refused: Vec<Reason>,
}

/// What an answer is about.
struct Subject {
    policy: Policy,
    version: Version,
    asked: Asked,
    person: Recipient,
    /// What the person was told, or would be: the text in their language.
    text: Text,
    /// The message that told them, if there was one.
    delivery: Option<DeliveryId>,
}

impl Subject {
    /// What somebody answers to a notice; none when it is not for them.
    async fn load(app: &App, notice: &Notice, recipient: RecipientId) -> Result<Option<Self>, DbErr> {
        let on = app.db.reads();
        let missing = |what: &str| DbErr::RecordNotFound(format!("the {what} of notice {}", notice.id));
        let Some(person) = by_id(on, recipient).await? else { return Ok(None) };
        let known = belongs(on, &person, notice.brand_id).await?
            || !approvals::messages(on, notice.id, recipient).await?.is_empty();
        if !known {
            return Ok(None);
        }
        let policy = policy::rows::by_id(on, notice.policy_id).await?.ok_or_else(|| missing("policy"))?;
        let versions = policy::rows::versions(on, policy.id).await?;
        let version = versions.iter().find(|version| version.id == notice.version_id).cloned();
        let version = version.ok_or_else(|| missing("version"))?;
        let delivery = rows::telling(on, notice.id, recipient).await?;
        let told = match delivery {
            Some(delivery) => approvals::about(on, delivery).await?.map(|(_, language)| language),
            None => None,
        };
        let language = told.or_else(|| person.locale.clone()).unwrap_or_default();
        let texts = site::texts(on, &[version.id]).await?;
        let text = text::pick(&texts, |text| &text.language, &language, &policy.language).cloned();
        let asked = Asked::of(notice, &version, &versions, person.standing == Standing::Erased);
        Ok(Some(Self {
            text: text.ok_or_else(|| missing("text"))?,
            policy,
            version,
            asked,
            person,
            delivery,
        }))
    }
}

/// Why no answer is taken, for whoever wants to record one.
fn refused(closed: Closed) -> Problem {
    Problem::conflict(match closed {
        Closed::Withdrawn => "The change was withdrawn: there is nothing left to answer.",
        Closed::Superseded => {
            "A newer version was published, which takes this one's place: record what the person says to its notice."
        }
        Closed::InEffect => "The change has taken effect: answers were taken until then.",
        Closed::Gone => return Problem::field("/recipient", "was erased"),
        Closed::NotAsked => "The notice asks for no answer: its change holds for whoever was told.",
    })
}

/// That an answer agrees to words that were corrected since.
fn corrected() -> Problem {
    Problem::conflict(
        "What people are told of this change was corrected, and the answer does not say that it agrees to the corrected words. \
         If it does, name in `round` the number of the correction, which GET /notices/{id} shows.",
    )
}

/// Record what somebody answered by letter or telephone.
///
/// As if they had pressed a button of the page: bound to the version, to its text in their language and to the hash of that,
/// in evidence, and changeable in either way until the change takes effect; a new use can be refused after that too. One of the unreachable counts as told in the
/// same way, since they answered. For operators and admins. Repeated, it changes nothing.
#[utoipa::path(post, path = "/notices/{id}/answers", tag = "notices", request_body = GivenAnswer,
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "It stands", body = RecordedAnswer),
        (status = 404, description = "There is no such notice", body = Problem),
        (status = 409, description = "The notice asks nothing, was withdrawn, was corrected since, has taken effect, or a newer version asks", body = Problem),
        (status = 422, description = "The notice is not for this person, or a field is wrong", body = Problem),
    ))]
pub(super) async fn answer_otherwise(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    Json(body): Json<GivenAnswer>,
) -> Result<Json<RecordedAnswer>, Problem> {
    let arrived = Instant::now();
    let notice = seen(&app, &caller, id, &[Role::Operator]).await?;
    let mut errors = Vec::new();
    if body.note.trim().is_empty() {
        check::wrong("/note", "must say what proves the answer, such as the day of the letter", &mut errors);
    }
    check::lines("/note", &body.note, MAX_NOTE, &mut errors);
    check::done(errors)?;
    let newest = rows::rounds(app.db.reads(), id).await?.last().map_or(0, |round| round.number);
    if body.round.is_some_and(|round| !(1..=newest).contains(&round)) {
        return Err(Problem::field("/round", "is the number of no round of this notice"));
    }
    let subject = Subject::load(&app, &notice, body.recipient).await?;
    let none = || Problem::field("/recipient", "is nobody whom this notice is for");
    let subject = subject.ok_or_else(none)?;
    if let Some(closed) = subject.asked.closed_to(body.decision, app.db.read_clock(app.db.reads()).await?) {
        return Err(refused(closed));
    }
    let given = approvals::Given {
        notice: id,
        gone: subject.asked.gone,
        recipient: body.recipient,
        address_hash: &subject.person.address_hash,
        decision: body.decision,
        language: &subject.text.language,
        sha256: &subject.text.sha256,
        summary: &subject.text.summary,
        shown: None,
        delivery: subject.delivery,
        otherwise: Some(approvals::Otherwise {
            by: body.by,
            round: body.round,
            note: &body.note,
            actor: &caller.actor,
        }),
    };
    if !approvals::is_as_shown(app.db.reads(), &notice, &given).await? {
        return Err(corrected());
    }
    let topic = match subject.version.use_topic_id.filter(|_| subject.asked.question == Question::Use) {
        Some(topic) => topic_by_id(app.db.reads(), topic).await?,
        None => None,
    };
    let rest = match &topic {
        Some(topic) => of_use(&app, &caller, id, &subject, (topic, &body), arrived).await?,
        None => Rest::default(),
    };
    let txn = app.db.begin().await?;
    let (stands, recorded) = match approvals::record(&txn, &app.db, &given).await? {
        approvals::Recorded::New(answer) => (Some(answer), true),
        approvals::Recorded::Stood(stood) => (approvals::answer(&*txn, stood.approval_id).await?, false),
        approvals::Recorded::Closed(closed) => return Err(refused(closed)),
        approvals::Recorded::Corrected => return Err(corrected()),
    };
    let stands = stands.ok_or_else(Problem::internal)?;
    match rows::tell_otherwise(&txn, &app, id, body.recipient, body.by, Some(&body.note), &caller.actor).await
    {
        // Whoever was told by mail, or will be, needs no other way.
        Ok(_) | Err(ToldFailure::NotAddressed) => {}
        Err(ToldFailure::Db(error)) => return Err(error.into()),
    }
    let detail =
        json!({ "recipient": body.recipient, "decision": body.decision, "by": body.by, "new": recorded });
    record(&*txn, &app.db, &caller.actor, "notice.answer", &id.to_string(), detail).await?;
    txn.commit().await?;
    let still_refused = match topic {
        Some(topic) if body.decision == Decision::Approve => {
            rows::still_refused(app.db.reads(), &subject.person.address_hash, &topic).await?
        }
        _ => Vec::new(),
    };
    Ok(Json(RecordedAnswer {
        recipient: body.recipient,
        decision: stands.decision,
        by: stands.given_by.into(),
        answered_at: stands.decided_at,
        version: subject.version.number,
        language: stands.language,
        sha256: hex::encode(&stands.sha256),
        recorded,
        settled: rest.settled(),
        still_refused,
    }))
}

/// Lets what is said of a new use take effect before it is recorded, as the page does.
async fn of_use(
    app: &App,
    caller: &Caller,
    notice: NoticeId,
    subject: &Subject,
    (topic, body): (&Topic, &GivenAnswer),
    arrived: Instant,
) -> Result<Rest, DbErr> {
    let said = OfUse {
        notice,
        told_in: subject.policy.topic_id,
        recipient: body.recipient,
        address_hash: &subject.person.address_hash,
        decision: body.decision,
        delivery: subject.delivery,
        channel: match body.by {
            ToldBy::Letter => Channel::Letter,
            ToldBy::Phone => Channel::Phone,
        },
        note: Some(&body.note),
        actor: &caller.actor,
    };
    rows::heed(app, topic, &said, arrived).await
}
