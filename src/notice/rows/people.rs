//! Who could not be told, and who was told another way.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use serde_json::json;

use super::{Notice, Round, evidence, number, telling_round, told};
use crate::address::AddressHash;
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::Write;
use crate::decision::Reason;
use crate::delivery::fate::mailbox_gone;
use crate::id::{DeliveryId, NoticeId, RecipientId};
use crate::notice::ToldBy;
use crate::notice::evidence::{Kind, body};

/// Somebody who could not be told by mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// The delivery that did not reach them; they are listed in the order of these.
    pub delivery: DeliveryId,
    /// Who.
    pub recipient: RecipientId,
    /// Their address; none once erased.
    pub email: Option<String>,
    /// Their name.
    pub name: Option<String>,
    /// The company's own id of them.
    pub external_id: Option<String>,
    /// What else the company keeps of them.
    pub attributes: Json,
    /// The state of the delivery, or why it is in it: `address_dead` also where the relay said that there is no such
    /// mailbox, `bounced` when the message came back.
    pub reason: String,
    /// Whether it came back.
    pub came_back: bool,
    /// The enhanced status (RFC 3463) with which it was refused or came back, where one was given.
    pub status: Option<String>,
    /// The relay's words, where it said any; of a message that came back, those of the mail server that refused it.
    pub reply: Option<String>,
    /// How they were told after all.
    pub told_by: Option<ToldBy>,
    /// When that was recorded.
    pub told_at: Option<Timestamp>,
}

#[derive(FromQueryResult)]
struct Row {
    id: DeliveryId,
    recipient_id: RecipientId,
    reason: String,
    came_back: bool,
    status: Option<String>,
    reply: Option<String>,
    address: Option<String>,
    name: Option<String>,
    external_id: Option<String>,
    attributes: Json,
    told_by: Option<ToldBy>,
    told_at: Option<Timestamp>,
}

/// Why somebody could not be told. A relay refuses a mailbox that is gone as it refuses what it does not like; the enhanced
/// status tells the one from the other.
fn why(reason: String, status: Option<&str>) -> String {
    if reason == "refused" && mailbox_gone(status) { Reason::AddressDead.as_str().to_owned() } else { reason }
}

/// What tells of a delivery that it did not reach the person, as far as the relay knew.
const MISSED: &str = "unsent IN ('suppressed', 'failed', 'unknown', 'expired')";

/// Those who could not be told of the change as it stands, after this delivery; those who were told another way included.
/// Accounts that are deactivated or erased by now are left out: nobody needs to tell them.
///
/// # Errors
/// The database's own.
pub async fn unreached(
    on: &impl ConnectionTrait,
    notice: &Notice,
    after: Option<DeliveryId>,
    limit: u64,
) -> Result<Vec<Unreached>, DbErr> {
    let Some(round) = telling_round(on, notice.id).await? else { return Ok(Vec::new()) };
    let missed = missed();
    let sql = format!(
        "SELECT d.id, d.recipient_id, CASE WHEN b.at IS NULL THEN COALESCE(d.reason, d.state) ELSE 'bounced' END AS reason, \
         CASE WHEN b.at IS NULL THEN FALSE ELSE TRUE END AS came_back, \
         CASE WHEN b.at IS NULL THEN d.enhanced ELSE b.status END AS status, CASE WHEN b.at IS NULL THEN d.reply ELSE COALESCE(b.words, b.status) END AS reply, \
         r.address, r.name, r.external_id, r.attributes, t.told_by, t.told_at \
         FROM {missed} ORDER BY d.id LIMIT {limit}"
    );
    let after = after.map_or(Uuid::nil(), |after| after.0);
    let values: [Value; 3] = [round.id.0.into(), notice.id.0.into(), after.into()];
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let rows = Row::find_by_statement(statement).all(on).await?;
    let unreached = rows.into_iter().map(|row| Unreached {
        delivery: row.id,
        recipient: row.recipient_id,
        email: row.address,
        name: row.name,
        external_id: row.external_id,
        attributes: row.attributes,
        reason: why(row.reason, row.status.as_deref()),
        came_back: row.came_back,
        status: row.status,
        reply: row.reply,
        told_by: row.told_by,
        told_at: row.told_at,
    });
    Ok(unreached.collect())
}

/// Those whom round `$1` of notice `$2` did not reach, after delivery `$3`, with what there is to know of them: who is
/// deactivated or erased by now is left out.
fn missed() -> String {
    format!(
        "(SELECT id FROM deliveries WHERE mailing_id = $1 AND {MISSED} AND id > $3 \
         UNION ALL SELECT s.id FROM bounces k JOIN deliveries s ON s.id = k.delivery_id \
         WHERE k.mailing_id = $1 AND k.delivery_id > $3 AND s.state = 'sent') AS u \
         JOIN deliveries d ON d.id = u.id JOIN recipients r ON r.id = d.recipient_id AND r.standing NOT IN ('deactivated', 'erased') \
         LEFT JOIN bounces b ON b.delivery_id = d.id \
         LEFT JOIN notice_told t ON t.notice_id = $2 AND t.recipient_id = d.recipient_id AND t.round_id = $1"
    )
}

/// How many of them were not told another way either.
pub(super) async fn count_unreached(on: &impl ConnectionTrait, round: &Round) -> Result<u64, DbErr> {
    let sql = format!("SELECT COUNT(*) AS n FROM {} WHERE t.recipient_id IS NULL", missed());
    let values: [Value; 3] = [round.id.0.into(), round.notice_id.0.into(), Uuid::nil().into()];
    number(on, &sql, values).await
}

/// Why somebody cannot be marked as told another way.
#[derive(Debug, thiserror::Error)]
pub enum ToldFailure {
    /// They are not among those whom the notice is for.
    #[error("is not among those whom this notice could not reach")]
    NotAddressed,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbErr),
}

/// The message that told somebody of the change as it stands, or was to tell them; none where none was made.
///
/// # Errors
/// The database's own.
pub async fn telling(
    on: &impl ConnectionTrait,
    notice: NoticeId,
    recipient: RecipientId,
) -> Result<Option<DeliveryId>, DbErr> {
    let Some(round) = telling_round(on, notice).await? else { return Ok(None) };
    let sql = "SELECT id FROM deliveries WHERE mailing_id = $1 AND recipient_id = $2";
    let values: [Value; 2] = [round.id.0.into(), recipient.0.into()];
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    on.query_one_raw(statement).await?.map(|row| row.try_get("", "id")).transpose()
}

/// Notes that somebody whom the mail could not reach was told by letter or telephone. The first time counts. Says whether it
/// was the first.
///
/// # Errors
/// That they were not among the unreached, or the database's own.
pub async fn tell_otherwise(
    txn: &Write,
    app: &App,
    id: NoticeId,
    recipient: RecipientId,
    by: ToldBy,
    note: Option<&str>,
    actor: &str,
) -> Result<bool, ToldFailure> {
    let Some(round) = telling_round(&**txn, id).await? else { return Err(ToldFailure::NotAddressed) };
    let sql = format!(
        "SELECT address_hash FROM deliveries d WHERE mailing_id = $1 AND recipient_id = $2 \
         AND ({MISSED} OR (state = 'sent' AND EXISTS (SELECT 1 FROM bounces b WHERE b.delivery_id = d.id)))"
    );
    let values: [Value; 2] = [round.id.0.into(), recipient.0.into()];
    let statement = Statement::from_sql_and_values(app.db.backend(), sql, values);
    let Some(row) = txn.query_one_raw(statement).await? else { return Err(ToldFailure::NotAddressed) };
    let person = AddressHash(row.try_get("", "address_hash")?);
    let now = app.db.read_clock(&**txn).await?;
    let row = told::Model {
        notice_id: id,
        round_id: round.id,
        recipient_id: recipient,
        told_by: by,
        note: note.map(str::to_owned),
        told_at: now,
        recorded_by: actor.to_owned(),
    };
    let once =
        OnConflict::columns([told::Column::NoticeId, told::Column::RecipientId, told::Column::RoundId])
            .do_nothing()
            .to_owned();
    let made = told::Entity::insert_many([told::ActiveModel::from(row)])
        .on_conflict(once)
        .exec_without_returning(&**txn)
        .await?;
    if made == 1 {
        let body = body::Told {
            recipient,
            told_by: by,
            has_note: note.is_some(),
            note_seal: evidence::note_seal(&app.db, id, &person, note),
            recorded_by: actor.to_owned(),
        };
        evidence::append(txn, &app.db, id, Kind::Told, Some(&person), &body).await?;
    }
    Ok(made == 1)
}

/// The header line of [`unreached_as_csv`].
pub const UNREACHED_HEADER: &str = "recipient,email,name,external_id,reason,told_by,told_at,reply,attributes";

/// What a spreadsheet takes for a formula is made a text.
fn harmless(cell: Option<String>) -> String {
    let cell = cell.unwrap_or_default();
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell }
}

/// The unreached as lines of CSV (RFC 4180); the reason of a message that came back is followed by its status, and
/// attributes are JSON. What a spreadsheet would take for a formula, be it an address, a name, an id or a relay's words,
/// begins with an apostrophe.
///
/// # Errors
/// When a line cannot be written.
pub fn unreached_as_csv(people: Vec<Unreached>) -> Result<String, DbErr> {
    let failed = |error: csv::Error| DbErr::Custom(error.to_string());
    let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for one in people {
        csv.write_record([
            one.recipient.to_string(),
            harmless(one.email),
            harmless(one.name),
            harmless(one.external_id),
            match one.status.filter(|_| one.came_back) {
                Some(status) => format!("{} {status}", one.reason),
                None => one.reason,
            },
            one.told_by.map(|by| by.to_string()).unwrap_or_default(),
            one.told_at.map(|at| at.to_string()).unwrap_or_default(),
            harmless(one.reply),
            if one.attributes == json!({}) { String::new() } else { one.attributes.to_string() },
        ])
        .map_err(failed)?;
    }
    let text = csv.into_inner().map_err(|error| DbErr::Custom(error.to_string()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> String {
        let one = Unreached {
            delivery: DeliveryId::new(),
            recipient: RecipientId(Uuid::nil()),
            email: Some("a@b.example".into()),
            name: Some(name.into()),
            external_id: None,
            attributes: json!({ "street": "=1" }),
            reason: "refused".into(),
            came_back: false,
            status: Some("5.7.1".into()),
            reply: Some("-550 no".into()),
            told_by: None,
            told_at: None,
        };
        unreached_as_csv(vec![one]).unwrap()
    }

    #[test]
    fn a_mailbox_that_is_gone_is_told_from_what_was_refused_by_policy() {
        for (reason, status, is) in [
            ("refused", Some("5.1.1"), "address_dead"),
            ("refused", Some("5.2.1"), "address_dead"),
            ("refused", Some("5.7.1"), "refused"),
            ("refused", None, "refused"),
            ("deferred_too_long", Some("4.1.1"), "deferred_too_long"),
            ("bounced", Some("5.1.1"), "bounced"),
        ] {
            assert_eq!(why(reason.to_owned(), status), is, "{reason} {status:?}");
        }
    }

    #[test]
    fn what_would_be_a_formula_is_a_text_and_what_parts_cells_is_quoted() {
        for (name, cell) in [
            ("Ada", "Ada"),
            ("=1", "'=1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@a", "'@a"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("A \"B\"", "\"A \"\"B\"\"\""),
            ("A,B", "\"A,B\""),
            ("A\nB", "\"A\nB\""),
            ("A\r\n=B", "\"A\r\n=B\""),
            ("1=1", "1=1"),
        ] {
            let attributes = r#""{""street"":""=1""}""#;
            let expected = format!(
                "00000000-0000-0000-0000-000000000000,a@b.example,{cell},,refused,,,'-550 no,{attributes}\r\n"
            );
            assert_eq!(line(name), expected, "{name:?}");
        }
    }
}
