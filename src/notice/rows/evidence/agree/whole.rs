//! What concerns a notice as a whole: that it is there, its dates and state, its version and the texts, its rounds.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use sha2::{Digest, Sha256};

use super::{LEEWAY, differs};
use crate::id::{NoticeId, VersionId};
use crate::message;
use crate::notice::RoundKind;
use crate::notice::evidence::body::{Published, Round, Text, Version};
use crate::notice::evidence::{Story, parts};
use crate::notice::rows::{Notice, RoundText, approvals, rounds, texts};
use crate::policy;
use crate::policy::State as VersionState;

#[derive(FromQueryResult)]
struct Known {
    id: NoticeId,
}

/// The first notice after `after` of which anything is there: its row, a round, an entry or a head.
///
/// # Errors
/// The database's own.
pub async fn notices(on: &impl ConnectionTrait, after: Option<NoticeId>) -> Result<Option<NoticeId>, DbErr> {
    let sources = [
        ("notices", "id"),
        ("notice_rounds", "notice_id"),
        ("evidence", "notice_id"),
        ("evidence_heads", "notice_id"),
    ];
    let mut first = None;
    for (table, column) in sources {
        let sql = format!("SELECT {column} AS id FROM {table} WHERE {column} > $1 ORDER BY {column} LIMIT 1");
        let values: [Value; 1] = [after.map_or(uuid::Uuid::nil(), |after| after.0).into()];
        let statement = Statement::from_sql_and_values(on.get_database_backend(), sql, values);
        let found = Known::find_by_statement(statement).one(on).await?.map(|known| known.id);
        first = first.into_iter().chain(found).min();
    }
    Ok(first)
}

/// A published version of which people had to be told, and that has no notice.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Untold {
    /// The policy's name in paths.
    pub policy: String,
    /// The version.
    pub number: i64,
    /// Its id.
    pub id: VersionId,
}

/// The published versions of which people had to be told, and that have no notice; up to 100.
///
/// # Errors
/// The database's own.
pub async fn untold(on: &impl ConnectionTrait) -> Result<Vec<Untold>, DbErr> {
    // The first one that a policy ever published is the baseline.
    let sql = "SELECT p.slug AS policy, v.number, v.id FROM policy_versions v JOIN policies p ON p.id = v.policy_id \
        WHERE v.state IN ('published', 'withdrawn') AND v.change <> 'minor' \
        AND EXISTS (SELECT 1 FROM policy_versions b WHERE b.policy_id = v.policy_id AND b.number < v.number \
        AND b.state IN ('published', 'withdrawn')) \
        AND NOT EXISTS (SELECT 1 FROM notices n WHERE n.version_id = v.id) ORDER BY p.slug, v.number LIMIT 100";
    Untold::find_by_statement(Statement::from_string(on.get_database_backend(), sql)).all(on).await
}

/// Where the rows of a notice disagree with what its chain says of it as a whole.
pub(super) async fn compare(
    on: &impl ConnectionTrait,
    id: NoticeId,
    row: Option<&Notice>,
    story: &Story,
) -> Result<Vec<String>, DbErr> {
    let Some(published) = &story.published else {
        return Ok(vec!["entry 1, which tells what was published, is missing".to_owned()]);
    };
    let Some(row) = row else {
        return Ok(vec![format!("notices does not hold notice {id}, of which there is evidence")]);
    };
    let mut said = Vec::new();
    if let Some((effective_at, complete_by)) = story.dates {
        said.extend(differs("effective_at", &effective_at, &row.effective_at));
        said.extend(differs("complete_by", &complete_by, &row.complete_by));
    }
    said.extend(differs("state", &story.state().to_string(), &row.state.to_string()));
    if let Some(two_person) = published.two_person {
        said.extend(differs("two_person", &two_person, &row.two_person));
    }
    if row.late_since.is_some() && story.late.is_none() {
        said.push("late_since is set, and no entry tells that it would be late".to_owned());
    }
    let counted = approvals::counts(on, row.version_id).await?;
    let kept = (u64::try_from(row.approved).unwrap_or(0), u64::try_from(row.declined).unwrap_or(0));
    said.extend(differs("(approved, declined)", &counted, &kept));
    let mut said: Vec<String> = said.into_iter().map(|how| says("notices", &how)).collect();
    said.extend(compare_versions(on, row, published, story).await?);
    said.extend(compare_rounds(on, row, published, story).await?);
    said.extend(compare_corrections(on, row, story).await?);
    Ok(said)
}

/// The words of a disagreement.
fn says(table: &str, how: &str) -> String {
    format!("{table} says otherwise than the entries: {how}")
}

async fn compare_versions(
    on: &impl ConnectionTrait,
    row: &Notice,
    published: &Published,
    story: &Story,
) -> Result<Vec<String>, DbErr> {
    let mut said = Vec::new();
    let number = published.version.number;
    let named = |how: String| says("policy_versions", &format!("of version {number}, {how}"));
    let Some(version) = policy::rows::version_by_id(on, row.version_id).await? else {
        return Ok(vec![named("there is nothing".to_owned())]);
    };
    let mut differ = Vec::new();
    differ.extend(differs("number", &number, &version.number));
    differ.extend(differs("policy_id", &row.policy_id, &version.policy_id));
    differ.extend(differs("change", &published.change, &version.change));
    differ.extend(differs("approval", &published.approval, &version.approval));
    differ.extend(differs("override_reason", &published.override_reason, &version.override_reason));
    differ.extend(differs("created_by", &published.written_by, &version.created_by));
    differ.extend(differs("published_by", &published.published_by, &version.published_by));
    differ.extend(differs("released_by", &published.released_by, &version.released_by));
    let state = if story.withdrawn.is_some() { VersionState::Withdrawn } else { VersionState::Published };
    differ.extend(differs("state", &state.to_string(), &version.state.to_string()));
    if let Some((from, _)) = story.dates {
        // A baseline without a date holds from its publication.
        let publication = version.effective_at.is_none()
            && version.published_at.is_some_and(|at| at.0.abs_diff(from.0) <= LEEWAY.unsigned_abs());
        if !publication {
            differ.extend(differs("effective_at", &Some(from), &version.effective_at));
            differ.extend(differs("effective_offset", &story.effective_offset, &version.effective_offset));
        }
    }
    said.extend(differ.into_iter().map(named));
    for recorded in std::iter::once(&published.version).chain(&published.before) {
        said.extend(compare_texts(on, row, recorded).await?);
    }
    Ok(said)
}

async fn compare_texts(
    on: &impl ConnectionTrait,
    row: &Notice,
    recorded: &Version,
) -> Result<Vec<String>, DbErr> {
    let stored = match policy::rows::version(on, row.policy_id, recorded.number).await? {
        Some(version) => policy::rows::texts(on, version.id).await?,
        None => Vec::new(),
    };
    let number = recorded.number;
    let mut said = Vec::new();
    for text in &recorded.texts {
        let Text { language, title, summary, sha256 } = text;
        let of = format!("of version {number} in {language:?}");
        let Some(stored) = stored.iter().find(|stored| stored.language == *language) else {
            said.push(says("policy_texts", &format!("{of}, there is nothing")));
            continue;
        };
        let how = differs("title", title, &stored.title)
            .or_else(|| differs("summary", summary, &stored.summary))
            .or_else(|| differs("sha256", sha256, &hex::encode(&stored.sha256)))
            .or_else(|| {
                differs(
                    "SHA-256 of body_markdown",
                    sha256,
                    &hex::encode(Sha256::digest(&stored.body_markdown)),
                )
            });
        said.extend(how.map(|how| says("policy_texts", &format!("{of}, {how}"))));
    }
    for more in
        stored.iter().filter(|stored| recorded.texts.iter().all(|text| text.language != stored.language))
    {
        let how =
            format!("of version {number}, there is a text in {:?} that was not published", more.language);
        said.push(says("policy_texts", &how));
    }
    Ok(said)
}

async fn compare_rounds(
    on: &impl ConnectionTrait,
    row: &Notice,
    published: &Published,
    story: &Story,
) -> Result<Vec<String>, DbErr> {
    let stored = rounds(on, row.id).await?;
    let mut said = Vec::new();
    for (seq, round) in &story.rounds {
        let Some(stored) = stored.iter().find(|stored| stored.id == round.round) else {
            said.push(format!(
                "notice_rounds says otherwise than entry {seq}: there is no round {}",
                round.number
            ));
            continue;
        };
        let how = differs("number", &round.number, &stored.number)
            .or_else(|| differs("kind", &round.kind.to_string(), &stored.kind.to_string()))
            .or_else(|| differs("reason", &round.reason, &stored.reason))
            .or_else(|| differs("created_by", &round.by, &stored.created_by));
        said.extend(how.map(|how| format!("notice_rounds says otherwise than entry {seq}: {how}")));
        let stored = texts(on, round.round).await?;
        for how in made_from(on, round, &stored).await? {
            said.push(format!("contents says otherwise than entry {seq}: {how}"));
        }
        let told: BTreeMap<&str, &str> =
            stored.iter().map(|text| (text.language.as_str(), text.summary.as_str())).collect();
        if let Some(how) = told_otherwise(round, published, &told) {
            said.push(format!("notice_texts says otherwise than entry {seq}: {how}"));
        }
    }
    for more in stored.iter().filter(|stored| story.rounds.iter().all(|(_, round)| round.round != stored.id))
    {
        said.push(format!("no entry tells of round {} in notice_rounds", more.number));
    }
    Ok(said)
}

/// How what the messages of a round are made from differs from what its entry names.
async fn made_from(
    on: &impl ConnectionTrait,
    round: &Round,
    stored: &[RoundText],
) -> Result<Vec<String>, DbErr> {
    let mut said = Vec::new();
    for told in &round.told {
        let language = &told.language;
        let text = stored.iter().find(|text| text.language == *language);
        let content = text.and_then(|text| match told.newcomers {
            true => text.newcomer_content_id,
            false => Some(text.content_id),
        });
        let frozen = match content {
            Some(content) => message::rows::load(on, content).await?,
            None => None,
        };
        let Some(frozen) = frozen else {
            said.push(format!("in {language:?}, there is nothing"));
            continue;
        };
        let parts = parts(&frozen).map_err(|error| DbErr::Json(error.to_string()))?;
        for (part, (what, sha256)) in parts.iter().zip(told.hashes()) {
            if hex::encode(Sha256::digest(part)) != sha256 {
                said.push(format!("in {language:?}, {what} is another"));
            }
        }
    }
    Ok(said)
}

/// The words that count now are those of the newest correction.
async fn compare_corrections(
    on: &impl ConnectionTrait,
    row: &Notice,
    story: &Story,
) -> Result<Vec<String>, DbErr> {
    let newest = story.rounds.iter().rev().find(|(_, round)| round.kind == RoundKind::Correction);
    let mut said = Vec::new();
    let all = policy::rows::corrections(on, &[row.version_id]).await?;
    for told in newest.iter().flat_map(|(_, round)| &round.told) {
        if all.iter().all(|stored| stored.language != told.language) {
            said.push(says("policy_corrections", &format!("in {:?}, it was not corrected", told.language)));
        }
    }
    for stored in all {
        let told =
            newest.and_then(|(_, round)| round.told.iter().find(|told| told.language == stored.language));
        let how = match told {
            Some(told) => differs("the summary", &told.summary, &stored.summary),
            None => Some("it was not corrected".to_owned()),
        };
        let language = &stored.language;
        said.extend(how.map(|how| says("policy_corrections", &format!("in {language:?}, {how}"))));
    }
    Ok(said)
}

/// How the summaries of a round differ from those that the entries tell of, where they do.
fn told_otherwise(round: &Round, published: &Published, told: &BTreeMap<&str, &str>) -> Option<String> {
    let languages: Vec<&str> = told.keys().copied().collect();
    let mut said: Vec<&str> = round.languages.iter().map(String::as_str).collect();
    said.sort_unstable();
    differs("languages", &said, &languages).or_else(|| {
        said.iter().find_map(|language| {
            let of_version = published.version.texts.iter().find(|text| text.language == **language);
            let words = round.told.iter().find(|text| text.language == **language);
            let summary = match (words, round.kind) {
                (Some(words), _) => words.summary.as_str(),
                (None, RoundKind::Change) => of_version.map_or("", |text| text.summary.as_str()),
                (None, RoundKind::Withdrawal | RoundKind::Reminder) => "",
                (None, _) => return None,
            };
            let found = told.get(*language).copied().unwrap_or_default();
            differs(&format!("the summary in {language:?}"), &summary, &found)
        })
    })
}
