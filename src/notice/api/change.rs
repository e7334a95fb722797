//! Postpone, correct, withdraw over HTTP: what each may say, and what it comes to once it is carried out.

use std::collections::BTreeMap;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::second::Asked;
use crate::app::App;
use crate::clock::Local;
use crate::db::Write;
use crate::id::NoticeId;
use crate::notice::rows::{self, By, Notice, Reasons, View};
use crate::policy;
use crate::web::{Caller, FieldError, Json, Path, Problem, check, given};

/// Longest reason in characters.
const MAX_REASON: usize = 2_000;
/// Longest summary in characters.
const MAX_SUMMARY: usize = 5_000;

/// A later date.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Postponement {
    /// From when the change holds now; later than before. People read the day on which it is by the clock of its offset.
    effective_at: Local,
    /// Why, as people are told in the policy's own language; at most 2,000 characters.
    reason: String,
    /// Why, in every other language of the version, by its tag; needed where it has others.
    #[serde(default)]
    translations: BTreeMap<String, TranslatedReason>,
}

/// What was wrong.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Correction {
    /// What changes, in plain words, in the policy's own language; null where what was said in it stays, which takes a
    /// translation that does not. At most 5,000 characters.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = true)]
    summary: Option<Option<String>>,
    /// The same in every other language of the version, by its tag; needed where it has others.
    #[serde(default)]
    translations: BTreeMap<String, CorrectedText>,
    /// What was wrong, as people are told in the policy's own language; at most 2,000 characters.
    reason: String,
}

/// What changes, in another language.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CorrectedText {
    /// In plain words, at most 5,000 characters; null where what was said in this language stays.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = true)]
    summary: Option<Option<String>>,
    /// What was wrong, as people are told in this language; at most 2,000 characters.
    #[serde(default)]
    #[schema(value_type = String, required = true)]
    reason: Option<String>,
}

/// Why, in another language.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TranslatedReason {
    /// As people are told in this language; at most 2,000 characters.
    #[serde(default)]
    #[schema(value_type = String, required = true)]
    reason: Option<String>,
}

/// Why the change does not come.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Withdrawal {
    /// Why, as people are told in the policy's own language; at most 2,000 characters.
    reason: String,
    /// Why, in every other language of the version, by its tag; needed where it has others and people are told.
    #[serde(default)]
    translations: BTreeMap<String, TranslatedReason>,
    /// Whether those who were told of the change are told that it does not come; true when absent.
    #[serde(default)]
    tell: Option<bool>,
}

fn text(pointer: &str, text: &str, longest: usize, errors: &mut Vec<FieldError>) {
    if text.trim().is_empty() {
        check::wrong(pointer, "must not be empty", errors);
    }
    check::lines(pointer, text, longest, errors);
}

/// The languages of a notice's version: the policy's own, and the others.
struct Languages {
    own: String,
    others: Vec<String>,
}

impl Languages {
    async fn of(on: &impl ConnectionTrait, notice: &Notice) -> Result<Self, Problem> {
        let policy = policy::rows::by_id(on, notice.policy_id).await?;
        let own = policy.ok_or_else(|| Problem::not_found("policy"))?.language;
        let texts = policy::rows::texts(on, notice.version_id).await?;
        let others = texts.into_iter().map(|text| text.language).filter(|language| *language != own);
        Ok(Self { others: others.collect(), own })
    }

    /// What is said in each of the other languages, by the tag of the version's text; none where nothing is.
    fn each<T>(
        &self,
        said: BTreeMap<String, T>,
        errors: &mut Vec<FieldError>,
    ) -> Vec<(String, String, Option<T>)> {
        let mut found: BTreeMap<&String, (String, T)> = BTreeMap::new();
        for (tag, one) in said {
            let pointer = format!("/translations/{tag}");
            match self.others.iter().find(|other| other.eq_ignore_ascii_case(&tag)) {
                Some(language) if found.contains_key(language) => {
                    check::wrong(&pointer, format!("{language:?} is there twice"), errors);
                }
                Some(language) => {
                    found.insert(language, (pointer, one));
                }
                None if tag.eq_ignore_ascii_case(&self.own) => {
                    let reason = "is the policy's own language: say it in summary and reason themselves";
                    check::wrong(&pointer, reason, errors);
                }
                None => {
                    check::wrong(&pointer, format!("the version has no text in {tag:?}"), errors);
                }
            }
        }
        let each = self.others.iter().map(|language| match found.remove(language) {
            Some((pointer, one)) => (language.clone(), pointer, Some(one)),
            None => (language.clone(), format!("/translations/{language}"), None),
        });
        each.collect()
    }
}

/// Why, in each language of a notice's version. Nobody is told why in a language that they may not read.
async fn reasons(
    on: &impl ConnectionTrait,
    notice: &Notice,
    own: String,
    said: BTreeMap<String, TranslatedReason>,
    told: bool,
) -> Result<Reasons, Problem> {
    let mut errors = Vec::new();
    let languages = Languages::of(on, notice).await?;
    text("/reason", &own, MAX_REASON, &mut errors);
    let mut others = BTreeMap::new();
    for (language, pointer, one) in languages.each(said, &mut errors) {
        let reason = one.and_then(|one| one.reason);
        if told || reason.is_some() {
            others.extend(reason_in(&language, &pointer, reason, &mut errors));
        }
    }
    check::done(errors)?;
    Ok(Reasons { own, others })
}

fn reason_in(
    language: &str,
    pointer: &str,
    reason: Option<String>,
    errors: &mut Vec<FieldError>,
) -> Option<(String, String)> {
    let pointer = format!("{pointer}/reason");
    match reason {
        Some(reason) => {
            text(&pointer, &reason, MAX_REASON, errors);
            Some((language.to_owned(), reason))
        }
        None => {
            let words = format!(
                "is missing: the version has a text in {language:?}, whose readers are told why in it"
            );
            check::wrong(&pointer, &words, errors);
            None
        }
    }
}

fn summary_in(
    language: &str,
    pointer: &str,
    summary: Option<Option<String>>,
    errors: &mut Vec<FieldError>,
) -> Option<(String, String)> {
    match summary {
        Some(Some(summary)) => {
            text(pointer, &summary, MAX_SUMMARY, errors);
            Some((language.to_owned(), summary))
        }
        Some(None) => None,
        None => {
            let words = format!(
                "is missing: say what people are to be told in {language:?} instead, or null where what was said stays"
            );
            check::wrong(pointer, &words, errors);
            None
        }
    }
}

impl Postponement {
    /// Postpones a change that has not taken effect.
    pub(super) async fn carry_out(
        self,
        txn: &Write,
        app: &App,
        notice: &Notice,
        by: By<'_>,
    ) -> Result<(Notice, Value), Problem> {
        let reasons = reasons(&**txn, notice, self.reason, self.translations, true).await?;
        let detail = json!({ "effective_at": self.effective_at, "reason": reasons.own });
        Ok((rows::postpone(txn, app, notice.id, self.effective_at, reasons, by).await?, detail))
    }
}

impl Correction {
    /// Corrects what people were told.
    pub(super) async fn carry_out(
        self,
        txn: &Write,
        app: &App,
        notice: &Notice,
        by: By<'_>,
    ) -> Result<(Notice, Value), Problem> {
        let mut errors = Vec::new();
        let languages = Languages::of(&**txn, notice).await?;
        text("/reason", &self.reason, MAX_REASON, &mut errors);
        let mut summaries = BTreeMap::new();
        summaries.extend(summary_in(&languages.own, "/summary", self.summary, &mut errors));
        let mut others = BTreeMap::new();
        for (language, pointer, one) in languages.each(self.translations, &mut errors) {
            let (summary, reason) = one.map_or((None, None), |one| (one.summary, one.reason));
            summaries.extend(summary_in(&language, &format!("{pointer}/summary"), summary, &mut errors));
            others.extend(reason_in(&language, &pointer, reason, &mut errors));
        }
        if summaries.is_empty() && errors.is_empty() {
            check::wrong("/summary", "is missing: say what people are to be told instead", &mut errors);
        }
        check::done(errors)?;
        let corrected: Vec<&String> = summaries.keys().collect();
        let detail = json!({ "languages": corrected, "reason": self.reason });
        let reasons = Reasons { own: self.reason, others };
        Ok((rows::correct(txn, app, notice.id, summaries, reasons, by).await?, detail))
    }
}

impl Withdrawal {
    /// Calls a change off before it takes effect.
    pub(super) async fn carry_out(
        self,
        txn: &Write,
        app: &App,
        notice: &Notice,
        by: By<'_>,
    ) -> Result<(Notice, Value), Problem> {
        let tell = self.tell.unwrap_or(true);
        let reasons = reasons(&**txn, notice, self.reason, self.translations, tell).await?;
        let detail = json!({ "reason": reasons.own, "tell": tell });
        Ok((rows::withdraw(txn, app, notice.id, reasons, tell, by).await?, detail))
    }
}

/// Postpone a change that has not taken effect.
///
/// Everyone is told of the new date; what waits of the former message is not sent any more. Where the policy wants two
/// people, it waits to be released with another key. For admins.
#[utoipa::path(post, path = "/notices/{id}/postpone", tag = "notices", request_body = Postponement,
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "The notice with its new date", body = View),
        (status = 202, description = "It waits for a second key: see `waiting`", body = View),
        (status = 404, description = "There is no such notice", body = Problem),
        (status = 409, description = "It has taken effect or was withdrawn", body = Problem),
        (status = 422, description = "The date is not later, or a field is wrong", body = Problem),
    ))]
pub(super) async fn postpone_notice(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    Json(body): Json<Postponement>,
) -> Result<(StatusCode, Json<View>), Problem> {
    Asked::Postpone(body).take(&app, &caller, id).await
}

/// Correct what people were told.
///
/// Everyone is told anew, also who was told already, and the policy's pages say the new words and on which day they were
/// corrected. Approvals given before were given to wrong words: they count no longer, and those who gave them are asked
/// anew; who declined has declined, and what was said of a new use stands. The text of the version itself never changes:
/// what is wrong there takes a new version. Where the policy wants two people, it waits to be released with another key. For
/// admins.
#[utoipa::path(post, path = "/notices/{id}/correct", tag = "notices", request_body = Correction,
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "The notice", body = View),
        (status = 202, description = "It waits for a second key: see `waiting`", body = View),
        (status = 404, description = "There is no such notice", body = Problem),
        (status = 409, description = "It has taken effect or was withdrawn", body = Problem),
        (status = 422, description = "Nothing is corrected, or a field is wrong", body = Problem),
    ))]
pub(super) async fn correct_notice(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    Json(body): Json<Correction>,
) -> Result<(StatusCode, Json<View>), Problem> {
    Asked::Correct(body).take(&app, &caller, id).await
}

/// Call a change off before it takes effect.
///
/// What waits is not sent any more, and those who were told are told that it does not come. Where the policy wants two
/// people, it waits to be released with another key. For admins.
#[utoipa::path(post, path = "/notices/{id}/withdraw", tag = "notices", request_body = Withdrawal,
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "The notice, withdrawn", body = View),
        (status = 202, description = "It waits for a second key: see `waiting`", body = View),
        (status = 404, description = "There is no such notice", body = Problem),
        (status = 409, description = "It has taken effect, or was withdrawn before", body = Problem),
        (status = 422, description = "A field is wrong", body = Problem),
    ))]
pub(super) async fn withdraw_notice(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
    Json(body): Json<Withdrawal>,
) -> Result<(StatusCode, Json<View>), Problem> {
    Asked::Withdraw(body).take(&app, &caller, id).await
}
