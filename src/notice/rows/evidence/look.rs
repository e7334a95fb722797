//! Evidence read: from end to end and verified on the way, or person by person.

use std::fmt;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};

use super::agree::Agreement;
use super::{Row, entries, head};
use crate::db::Db;
use crate::id::NoticeId;
use crate::notice::evidence::body::Published;
use crate::notice::evidence::{Break, Entry, Head, Verifier};

/// Entries read at once.
const PIECE: u64 = 1_000;
/// How often the end of a chain is waited for that grows meanwhile.
const LOOKS: usize = 20;

/// What does not fit in a notice's evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The chain.
    Chain(Break),
    /// The head was written by somebody else.
    Seal,
    /// A table says otherwise than the chain.
    Table(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(broken) => broken.fmt(f),
            Self::Seal => f.write_str(
                "the seal on its head is missing or wrong: entries may have been cut off from its end",
            ),
            Self::Table(how) => how.fmt(f),
        }
    }
}

/// A chain that is read from end to end, piece by piece, verified on the way and compared with the tables.
#[derive(Debug)]
pub struct Reading {
    notice: NoticeId,
    after: i64,
    again: bool,
    verifier: Verifier,
    agreement: Agreement,
    head: Option<Head>,
}

/// What became of it.
#[derive(Debug)]
pub struct Read {
    /// The chain's head.
    pub head: Head,
    /// What its first entry says was published.
    pub published: Option<Published>,
    /// What disagrees with it, up to 100 times.
    pub unfit: Vec<Unfit>,
}

impl Reading {
    /// From the first entry of this notice on.
    ///
    /// # Errors
    /// The database's own.
    pub async fn new(db: &Db, on: &impl ConnectionTrait, notice: NoticeId) -> Result<Self, DbErr> {
        let agreement = Agreement::new(db, on, notice).await?;
        let verifier = Verifier::default();
        Ok(Self { notice, after: i64::MIN, again: false, verifier, agreement, head: None })
    }

    /// The next entries; none when all were read, those included that were appended meanwhile.
    ///
    /// # Errors
    /// The database's own.
    pub async fn piece(&mut self, on: &impl ConnectionTrait) -> Result<Option<Vec<Entry>>, DbErr> {
        loop {
            let found = entries(on, self.notice, self.after, PIECE).await?;
            if let Some(last) = found.last() {
                self.after = last.seq;
                self.again = false;
                let mut whole = true;
                for entry in &found {
                    whole = self.verifier.push(entry.clone());
                }
                if whole {
                    self.agreement.take(on, &found).await?;
                }
                return Ok(Some(found));
            }
            // The head moves with each entry: one that it names and that was not there a moment ago is looked for again.
            self.head = head(on, self.notice).await?;
            if self.again || self.head.as_ref().is_none_or(|head| head.seq <= self.after) {
                return Ok(None);
            }
            self.again = true;
        }
    }

    /// Says whether the chain is whole, and what disagrees with it. Every piece that is still appended meanwhile goes to
    /// `more`.
    ///
    /// # Errors
    /// The database's own; where the chain breaks is the answer.
    pub async fn finish(
        mut self,
        on: &impl ConnectionTrait,
        mut more: impl FnMut(&[Entry]) -> Result<(), DbErr>,
    ) -> Result<Result<Read, Break>, DbErr> {
        let mut whole = Vec::new();
        for _ in 0..LOOKS {
            let count = self.verifier.count();
            whole = self.agreement.whole(on).await?;
            while let Some(piece) = self.piece(on).await? {
                more(&piece)?;
            }
            if whole.is_empty() || self.verifier.count() == count {
                break;
            }
        }
        let head = match self.verifier.finish(self.head.as_ref()) {
            Ok(head) => head,
            Err(broken) => return Ok(Err(broken)),
        };
        let (unfit, story) = self.agreement.finish(on, whole).await?;
        let unfit = unfit.into_iter().map(Unfit::Table).collect();
        Ok(Ok(Read { head, published: story.published, unfit }))
    }
}

/// Whether the evidence of a notice is whole, and the tables say what it says. Gives the head, and what disagrees with it.
///
/// # Errors
/// The database's own; where the chain breaks is the answer.
pub async fn examine(db: &Db, notice: NoticeId) -> Result<Result<Read, Break>, DbErr> {
    let on = db.reads();
    let mut reading = Reading::new(db, on, notice).await?;
    while reading.piece(on).await?.is_some() {}
    reading.finish(on, |_| Ok(())).await
}

/// Whether the evidence of a notice is whole, and the tables say what it says. Gives the head.
///
/// # Errors
/// The database's own; the first thing that does not fit is the answer.
pub async fn verify(db: &Db, notice: NoticeId) -> Result<Result<Head, Unfit>, DbErr> {
    Ok(match examine(db, notice).await? {
        Err(broken) => Err(Unfit::Chain(broken)),
        Ok(Read { head, unfit, .. }) => unfit.into_iter().next().map_or(Ok(head), Err),
    })
}

/// Up to `limit` entries about people, by person and in their order, from the one after `after` on.
///
/// # Errors
/// The database's own.
pub async fn by_person(
    on: &impl ConnectionTrait,
    notice: NoticeId,
    after: Option<(Vec<u8>, i64)>,
    limit: u64,
) -> Result<Vec<Entry>, DbErr> {
    let (person, seq) = after.unwrap_or((Vec::new(), 0));
    let sql = format!(
        "SELECT seq, at, kind, person, body, previous, hash FROM evidence \
         WHERE notice_id = $1 AND person IS NOT NULL AND (person, seq) > ($2, $3) ORDER BY person, seq LIMIT {limit}"
    );
    let values: [Value; 3] = [notice.0.into(), person.into(), seq.into()];
    let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
    let rows = Row::find_by_statement(statement).all(on).await?;
    Ok(rows.into_iter().map(|row| row.entry(notice)).collect())
}
