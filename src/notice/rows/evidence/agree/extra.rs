//! Rows of which no entry tells. They are counted first, and looked for one by one only where the count is not right.

use std::collections::HashSet;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::people::entries_of;
use super::{Agreement, PIECE, person};
use crate::notice::evidence::Kind;
use crate::notice::evidence::body::{Answer, Bounce, Delivery, Told};

/// Rows of which entries have to tell.
struct Source {
    /// Of what: those of `$1`.
    rows: &'static str,
    /// The id by which they are walked through, the one that an entry names, the keyed hash of whose they are, and what
    /// they say.
    columns: [&'static str; 4],
    /// The kind of entry that tells of them.
    kind: Kind,
    /// The id that the body of such an entry names.
    named: fn(&str) -> Option<Uuid>,
    /// What there is to say of one of which no entry tells.
    words: fn(&Row) -> String,
}

/// Deliveries that have ended and are not due, of a round.
const SETTLED: Source = Source {
    rows: "deliveries d LEFT JOIN evidence_due w ON w.mailing_id = d.mailing_id AND w.delivery_id = d.id \
        WHERE d.mailing_id = $1 AND d.state <> 'open' AND w.delivery_id IS NULL",
    columns: ["d.id", "d.id", "d.address_hash", "d.state"],
    kind: Kind::Delivery,
    named: |body| Some(read::<Delivery>(body)?.delivery.0),
    words: |row| {
        let Row { id, says, .. } = row;
        format!("no entry tells that delivery {id} is {says}, as deliveries says; {}", row.whose())
    },
};

/// Deliveries that came back and are not due, of a round.
const BACK: Source = Source {
    rows: "bounces b JOIN deliveries d ON d.id = b.delivery_id \
        LEFT JOIN evidence_due w ON w.mailing_id = b.mailing_id AND w.delivery_id = b.delivery_id \
        WHERE b.mailing_id = $1 AND d.state <> 'open' AND w.delivery_id IS NULL",
    columns: ["d.id", "d.id", "d.address_hash", "d.state"],
    kind: Kind::Bounced,
    named: |body| Some(read::<Bounce>(body)?.delivery.0),
    words: |row| {
        format!("no entry tells that delivery {} came back, as bounces says; {}", row.id, row.whose())
    },
};

/// Answers to a version.
const ANSWERS: Source = Source {
    rows: "approvals a WHERE a.version_id = $1",
    columns: ["a.id", "a.id", "a.address_hash", "a.decision"],
    kind: Kind::Approval,
    named: |body| Some(read::<Answer>(body)?.approval.0),
    words: |row| format!("approvals holds answer {} of which no entry tells; {}", row.id, row.whose()),
};

/// Answers that stand, to a version.
const STANDING: Source = Source {
    rows: "approvals_standing s \
        LEFT JOIN approvals a ON a.id = s.approval_id AND a.recipient_id = s.recipient_id WHERE s.version_id = $1",
    columns: ["s.recipient_id", "a.id", "a.address_hash", "s.decision"],
    kind: Kind::Approval,
    named: |body| Some(read::<Answer>(body)?.approval.0),
    words: |row| format!("approvals_standing holds an answer of which no entry tells; recipient {}", row.id),
};

/// People told another way, of a notice. One who was told in several rounds has as many rows, next to each other.
const TOLD: Source = Source {
    rows: "notice_told t \
        LEFT JOIN deliveries d ON d.mailing_id = t.round_id AND d.recipient_id = t.recipient_id WHERE t.notice_id = $1",
    columns: ["t.recipient_id", "t.recipient_id", "d.address_hash", "t.told_by"],
    kind: Kind::Told,
    named: |body| Some(read::<Told>(body)?.recipient.0),
    words: |row| {
        let Row { id, says, .. } = row;
        format!("notice_told says {says} of somebody of whom no entry tells; recipient {id}")
    },
};

#[derive(FromQueryResult)]
struct Row {
    id: Uuid,
    named: Option<Uuid>,
    person: Option<Vec<u8>>,
    says: String,
}

impl Row {
    fn whose(&self) -> String {
        person(self.person.as_deref().unwrap_or_default())
    }
}

fn read<T: DeserializeOwned>(body: &str) -> Option<T> {
    serde_json::from_str(body).ok()
}

/// Names those of a notice.
pub(super) async fn name(with: &mut Agreement, on: &impl ConnectionTrait) -> Result<(), DbErr> {
    let Some(row) = with.row.clone() else { return Ok(()) };
    let rounds = crate::notice::rows::rounds(on, row.id).await?;
    let rounds: Vec<Uuid> = rounds.iter().map(|round| round.id.0).collect();
    let (version, notice) = ([row.version_id.0], [row.id.0]);
    let all: [(&Source, &[Uuid], u64); 5] = [
        (&SETTLED, &rounds, with.ended),
        (&BACK, &rounds, with.bounced),
        (&ANSWERS, &version, with.answers),
        (&STANDING, &version, with.standing),
        (&TOLD, &notice, with.told),
    ];
    for (source, of, known) in all {
        let mut found = 0;
        for of in of {
            found += source.count(on, *of).await?;
        }
        if found == known {
            continue;
        }
        for of in of {
            source.name(with, on, *of).await?;
        }
    }
    Ok(())
}

impl Source {
    async fn count(&self, on: &impl ConnectionTrait, of: Uuid) -> Result<u64, DbErr> {
        let sql = format!("SELECT COUNT(*) AS n FROM {}", self.rows);
        let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, [of.into()]);
        let n: i64 = on.query_one_raw(statement).await?.map_or(Ok(0), |row| row.try_get("", "n"))?;
        Ok(u64::try_from(n).unwrap_or(0))
    }

    /// Names those of which no entry tells, a piece at a time.
    async fn name(&self, with: &mut Agreement, on: &impl ConnectionTrait, of: Uuid) -> Result<(), DbErr> {
        let [id, named, person, says] = self.columns;
        let sql = format!(
            "SELECT {id} AS id, {named} AS named, {person} AS person, {says} AS says FROM {} AND {id} > $2 \
             ORDER BY {id} LIMIT {PIECE}",
            self.rows
        );
        let mut after = Uuid::nil();
        loop {
            let values: [Value; 2] = [of.into(), after.into()];
            let statement = Statement::from_sql_and_values(on.get_database_backend(), &sql, values);
            let rows = Row::find_by_statement(statement).all(on).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.id;
            let people = rows.iter().filter_map(|row| row.person.clone());
            let entries = entries_of(on, with.notice, self.kind, people).await?;
            let told: HashSet<Uuid> = entries.iter().filter_map(|entry| (self.named)(&entry.body)).collect();
            for row in rows.iter().filter(|row| row.named.is_none_or(|id| !told.contains(&id))) {
                with.say((self.words)(row));
            }
        }
    }
}
