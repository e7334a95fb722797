//! Who is told in a round: everyone is walked through once by id, then whoever was changed meanwhile is looked at.

use sea_orm::{DbBackend, DbErr, FromQueryResult, Statement, Value};

use super::{Notice, Round, RoundText, topic_of};
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::Write;
use crate::delivery::rows::{Lane, Mailing};
use crate::delivery::{self, Stream};
use crate::id::{ContentId, DeliveryId, MailingId, NoticeId};
use crate::notice::{RoundKind, State};
use crate::policy::rows::{Policy, Version};
use crate::recipient::rows::{Accounts, Selection, Span, Told};

/// What is being told to whom.
pub(super) struct Telling {
    pub(super) notice: Notice,
    pub(super) policy: Policy,
    pub(super) version: Version,
    pub(super) round: Round,
    /// Every round of the notice.
    pub(super) rounds: Vec<Round>,
    pub(super) texts: Vec<RoundText>,
    /// The number of the policy's newest version that is published.
    pub(super) newest: i64,
    /// Of a reminder, the version that people had to agree to for the text to hold for them.
    pub(super) agreed: Option<Version>,
    /// Of a reminder, the rounds that told of the text, or of what it follows, where that holds for nobody whom they missed.
    pub(super) heard: Option<(NoticeId, Vec<MailingId>)>,
}

/// For whom of a span a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Everyone,
    /// Those who were told of the change by an earlier round.
    Heard,
    /// Those who were not.
    Newcomers,
    /// Those of the first who have not answered.
    Unanswered,
    /// Those who agreed.
    Agreed,
    /// Those for whom the text holds though they were never asked.
    Unasked,
}

impl Telling {
    /// Makes the deliveries of those of this span who are to be told and have none in this round yet. Returns how many.
    pub(super) async fn address(&self, txn: &Write, app: &App, span: Span) -> Result<u64, DbErr> {
        let tags: Vec<&str> = self.texts.iter().map(|text| text.language.as_str()).collect();
        let backend = app.db.backend();
        let mut made = 0;
        for text in &self.texts {
            let told = Told { tag: &text.language, default: &self.policy.language, all: &tags };
            for (content, part) in self.parts(text) {
                let Selection { sql, values } = self.accounts(span, part).selection(backend, Some(told));
                let (sql, values) = self.narrowed(part, sql, values);
                let stream = self.stream(txn, content).await?;
                made += delivery::rows::enqueue_selected(txn, &app.db, &stream, &sql, values).await?;
            }
        }
        Ok(made)
    }

    /// Takes up again what was not sent because the account was closed, of those whose account was opened again between these
    /// moments. Returns how many.
    pub(super) async fn take_up_again(
        &self,
        txn: &Write,
        app: &App,
        after: Timestamp,
        upto: Timestamp,
    ) -> Result<u64, DbErr> {
        let sql = "SELECT d.id, d.content_id FROM deliveries d JOIN recipients r ON r.id = d.recipient_id \
            WHERE d.mailing_id = $1 AND d.unsent = 'suppressed' AND d.reason = 'deactivated' \
            AND r.standing NOT IN ('deactivated', 'erased') AND r.updated_at > $2 AND r.updated_at <= $3 ORDER BY d.id";
        let values = [self.round.id.0.into(), after.0.into(), upto.0.into()];
        let closed = Closed::find_by_statement(Statement::from_sql_and_values(app.db.backend(), sql, values));
        let closed = closed.all(&**txn).await?;
        for content in self.texts.iter().flat_map(RoundText::contents) {
            let of_it = closed.iter().filter(|one| one.content_id == content);
            let ids: Vec<DeliveryId> = of_it.map(|one| one.id).collect();
            let mailing = Mailing { id: self.round.id, content, lane: Lane::ServiceSide };
            delivery::rows::reopen_suppressed(txn, &app.db, mailing, &ids, "deactivated").await?;
        }
        Ok(closed.len() as u64)
    }

    /// What is told in a language, and to whom.
    fn parts(&self, text: &RoundText) -> Vec<(ContentId, Part)> {
        let content = text.content_id;
        match (self.round.kind, text.newcomer_content_id) {
            (_, Some(first)) => vec![(content, Part::Heard), (first, Part::Newcomers)],
            (RoundKind::Withdrawal, _) => vec![(content, Part::Heard)],
            (RoundKind::ApprovalReminder, _) => vec![(content, Part::Unanswered)],
            (RoundKind::Reminder, _) if self.agreed.is_some() => {
                vec![(content, Part::Agreed), (content, Part::Unasked)]
            }
            _ => vec![(content, Part::Everyone)],
        }
    }

    /// Everyone of the brand who is to hear of the version, of this span.
    fn accounts(&self, span: Span, part: Part) -> Accounts<'_> {
        // Of what holds already, or does not come, those are told too who accepted it.
        let accepted = match self.round.kind {
            RoundKind::Reminder | RoundKind::Withdrawal => self.newest + 1,
            _ => self.version.number,
        };
        let joined_before = (self.notice.state == State::InEffect).then_some(self.notice.effective_at);
        let joined_before = joined_before.filter(|_| self.round.kind != RoundKind::Reminder);
        Accounts {
            brand: self.policy.brand_id,
            accepted: (&self.policy.slug, accepted, self.newest),
            span,
            joined_before,
            bound_by: self.agreed.as_ref().filter(|_| part == Part::Unasked).map(|agreed| {
                // What is published holds from some moment.
                (agreed.number, agreed.holds_from().unwrap_or(Timestamp(i64::MAX)))
            }),
        }
    }

    /// Of these people those whom this part of the round is for.
    fn narrowed(&self, part: Part, sql: String, mut values: Vec<Value>) -> (String, Vec<Value>) {
        let mut bind = |value: Value| {
            values.push(value);
            format!("${}", values.len())
        };
        let standing = |version: String, more: &str| {
            format!(
                "EXISTS (SELECT 1 FROM approvals_standing a \
                 WHERE a.version_id = {version} AND a.recipient_id = people.id{more})"
            )
        };
        let agreed = self.agreed.as_ref().map_or(self.version.id, |agreed| agreed.id);
        let mut condition = match part {
            Part::Everyone => "TRUE".to_owned(),
            Part::Heard => self.heard(&mut bind),
            Part::Newcomers => format!("NOT {}", self.heard(&mut bind)),
            Part::Unanswered => {
                let heard = self.heard(&mut bind);
                format!("{heard} AND NOT {}", standing(bind(self.version.id.0.into()), ""))
            }
            Part::Agreed => standing(bind(agreed.0.into()), " AND a.decision = 'approve'"),
            Part::Unasked => {
                format!("NOT {}", standing(bind(agreed.0.into()), " AND a.decision = 'decline'"))
            }
        };
        if let Some((notice, rounds)) = &self.heard {
            let rounds: Vec<String> = rounds.iter().map(|round| bind(round.0.into())).collect();
            let (rounds, notice) = (rounds.join(", "), bind(notice.0.into()));
            condition += &format!(
                " AND (NOT {MESSAGE} d.mailing_id IN ({rounds})) OR {})",
                reached(&notice, &rounds, "'sent'")
            );
        }
        (format!("SELECT id, address_hash FROM ({sql}) AS people WHERE {condition}"), values)
    }

    /// Whether somebody was told of the change by an earlier round, as SQL; by letter or telephone, too, where what they were
    /// told is taken back or put right.
    fn heard(&self, bind: &mut impl FnMut(Value) -> String) -> String {
        let earlier = |round: &&Round| round.kind.tells_of_the_change() && round.number < self.round.number;
        let earlier: Vec<String> =
            self.rounds.iter().filter(earlier).map(|round| bind(round.id.0.into())).collect();
        if earlier.is_empty() {
            return "FALSE".to_owned();
        }
        let earlier = earlier.join(", ");
        if self.round.kind == RoundKind::ApprovalReminder {
            return by_mail(&earlier, "'sent', 'unknown'");
        }
        reached(&bind(self.notice.id.0.into()), &earlier, "'sent', 'unknown'")
    }

    async fn stream(&self, txn: &Write, content: ContentId) -> Result<Stream, DbErr> {
        let topic = topic_of(&**txn, &self.policy, self.round.kind).await?;
        Ok(Stream {
            content,
            mailing: Some(self.round.id),
            brand: self.policy.brand_id,
            topic: topic.id,
            class: topic.class,
            // A request to answer is worth nothing once nobody can answer.
            not_after: (self.round.kind == RoundKind::ApprovalReminder).then_some(self.notice.effective_at),
        })
    }
}

/// The beginning of a condition about messages to somebody.
const MESSAGE: &str = "EXISTS (SELECT 1 FROM deliveries d WHERE d.recipient_id = people.id AND";

/// Whether a message of one of these rounds reached somebody, as SQL, that ended in one of these states.
fn by_mail(rounds: &str, states: &str) -> String {
    format!(
        "{MESSAGE} d.mailing_id IN ({rounds}) AND d.state IN ({states}) \
         AND NOT EXISTS (SELECT 1 FROM bounces b WHERE b.delivery_id = d.id))"
    )
}

/// The same, or somebody told them by letter or telephone.
fn reached(notice: &str, rounds: &str, states: &str) -> String {
    format!(
        "({} OR EXISTS (SELECT 1 FROM notice_told t WHERE t.notice_id = {notice} AND t.round_id IN ({rounds}) \
         AND t.recipient_id = people.id))",
        by_mail(rounds, states)
    )
}

#[derive(FromQueryResult)]
struct Closed {
    id: DeliveryId,
    content_id: ContentId,
}

/// Whether anybody was changed after this moment.
pub(super) async fn anybody_changed(
    on: &impl sea_orm::ConnectionTrait,
    after: Timestamp,
) -> Result<bool, DbErr> {
    let backend: DbBackend = on.get_database_backend();
    let sql = "SELECT 1 AS one FROM recipients WHERE updated_at > $1 LIMIT 1";
    let statement = Statement::from_sql_and_values(backend, sql, [after.0.into()]);
    Ok(on.query_one_raw(statement).await?.is_some())
}
