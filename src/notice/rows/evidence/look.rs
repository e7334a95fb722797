//! Evidence read: from end to end and verified on the way, or person by person.

use std::fmt;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use sha2::{Digest, Sha256};

use super::{Row, entries, head};
use crate::id::NoticeId;
use crate::notice::evidence::body::{Published, Version};
use crate::notice::evidence::{Break, Entry, Head, Kind, Verifier, hex};
use crate::notice::rows::find;
use crate::policy;

/// Entries read at once.
const PIECE: u64 = 1_000;

/// What does not fit in a notice's evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The chain.
    Chain(Break),
    /// A text is not the one that was recorded.
    Text {
        /// Of which version.
        version: i64,
        /// In which language.
        language: String,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(broken) => broken.fmt(f),
            Self::Text { version, language } => {
                write!(f, "the text of version {version} in {language:?} is not the one that was recorded")
            }
        }
    }
}

/// A chain that is read from end to end, piece by piece, and verified on the way.
#[derive(Debug)]
pub struct Reading {
    notice: NoticeId,
    after: i64,
    again: bool,
    verifier: Verifier,
    published: Option<Published>,
    head: Option<Head>,
}

impl Reading {
    /// From the first entry of this notice on.
    pub fn new(notice: NoticeId) -> Self {
        let verifier = Verifier::default();
        Self { notice, after: i64::MIN, again: false, verifier, published: None, head: None }
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
                for entry in &found {
                    if self.published.is_none() && entry.kind == Kind::Published.as_str() {
                        self.published = serde_json::from_str(&entry.body).ok();
                    }
                    self.verifier.push(entry.clone());
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

    /// Says whether the chain is whole: its head, and what its first entry says was published.
    ///
    /// # Errors
    /// Where it breaks.
    pub fn finish(self) -> Result<(Head, Option<Published>), Break> {
        let head = self.verifier.finish(self.head.as_ref())?;
        Ok((head, self.published))
    }
}

/// Whether the evidence of a notice is whole, and the texts are those that it speaks of. Gives the head.
///
/// # Errors
/// The database's own; what does not fit is the answer.
pub async fn verify(on: &impl ConnectionTrait, notice: NoticeId) -> Result<Result<Head, Unfit>, DbErr> {
    let mut reading = Reading::new(notice);
    while reading.piece(on).await?.is_some() {}
    let (head, published) = match reading.finish() {
        Ok(found) => found,
        Err(broken) => return Ok(Err(Unfit::Chain(broken))),
    };
    let Some(published) = published else { return Ok(Ok(head)) };
    Ok(verify_texts(on, notice, &published).await?.map(|()| head))
}

/// Whether the texts of a notice's version, and of the one before it, are those that its evidence speaks of.
///
/// # Errors
/// The database's own; what does not fit is the answer.
pub async fn verify_texts(
    on: &impl ConnectionTrait,
    notice: NoticeId,
    published: &Published,
) -> Result<Result<(), Unfit>, DbErr> {
    for version in std::iter::once(&published.version).chain(&published.before) {
        if let Err(language) = texts_fit(on, notice, version).await? {
            return Ok(Err(Unfit::Text { version: version.number, language }));
        }
    }
    Ok(Ok(()))
}

/// Whether the texts of a version are those recorded; otherwise the language of the first that is not.
async fn texts_fit(
    on: &impl ConnectionTrait,
    notice: NoticeId,
    recorded: &Version,
) -> Result<Result<(), String>, DbErr> {
    let texts = match find(on, notice).await? {
        Some(notice) => match policy::rows::version(on, notice.policy_id, recorded.number).await? {
            Some(version) => policy::rows::texts(on, version.id).await?,
            None => Vec::new(),
        },
        None => Vec::new(),
    };
    for text in &recorded.texts {
        let stored = texts.iter().find(|stored| stored.language == text.language);
        if stored.is_none_or(|stored| hex(&Sha256::digest(&stored.body_markdown)) != text.sha256) {
            return Ok(Err(text.language.clone()));
        }
    }
    Ok(Ok(()))
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
