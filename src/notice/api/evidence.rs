//! `/notices/{id}/evidence`: what each person was told and answered, streamed.

use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use sea_orm::DbErr;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::seen;
use crate::access::rows::record;
use crate::app::App;
use crate::id::NoticeId;
use crate::notice::evidence::Line;
use crate::notice::rows;
use crate::web::{Caller, Path, Problem, Role};

/// Entries read for one piece.
const PIECE: u64 = 1_000;

/// The calls about evidence.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_notice_evidence))
}

/// The evidence of a notice: one line a person, as NDJSON.
///
/// Each line is an `EvidenceLine`: every message to the person that came to its end, with the version's and the message's
/// SHA-256, its Message-ID and each attempt with the relay's words; what they answered; how else they were told. Nobody's
/// address is in it. It shows what the chain of evidence holds: whoever's message is still under way is missing. For the
/// proof itself use `tidings evidence export`. For admins and auditors.
#[utoipa::path(get, path = "/notices/{id}/evidence", tag = "notices",
    params(("id" = NoticeId, Path, description = "The notice")),
    responses(
        (status = 200, description = "A line a person", body = Line, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such notice", body = Problem),
    ))]
async fn get_notice_evidence(
    Shared(app): Shared<App>,
    caller: Caller,
    Path(id): Path<NoticeId>,
) -> Result<Response, Problem> {
    let notice = seen(&app, &caller, id, &[Role::Auditor]).await?.id;
    let txn = app.db.begin().await?;
    record(&*txn, &app.db, &caller.actor, "notice.evidence", &notice.to_string(), json!({})).await?;
    txn.commit().await?;
    let mut reader = Reader { app, notice, after: None, line: None, done: false };
    // The first piece is read before anything is answered, so that a database that is away is a 503.
    let first = reader.piece().await?;
    let rest = stream::try_unfold((reader, first.is_some()), |(mut reader, more)| async move {
        if !more {
            return Ok::<_, DbErr>(None);
        }
        let piece = reader.piece().await?;
        let more = piece.is_some();
        Ok(Some((Bytes::from(piece.unwrap_or_default()), (reader, more))))
    });
    let pieces = stream::once(async { Ok(Bytes::from(first.unwrap_or_default())) }).chain(rest);
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"evidence.ndjson\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

struct Reader {
    app: App,
    notice: NoticeId,
    after: Option<(Vec<u8>, i64)>,
    /// Of the person whose entries are being read.
    line: Option<(Vec<u8>, Line)>,
    done: bool,
}

impl Reader {
    /// The next lines, perhaps none of them complete yet; none after the last.
    async fn piece(&mut self) -> Result<Option<String>, DbErr> {
        if self.done {
            return Ok(None);
        }
        let found = rows::by_person(self.app.db.reads(), self.notice, self.after.clone(), PIECE).await?;
        let mut text = String::new();
        for entry in &found {
            let Some(person) = &entry.person else { continue };
            if self.line.as_ref().is_none_or(|(whose, _)| whose != person) {
                self.end_line(&mut text)?;
                self.line = Some((person.clone(), Line::new(person)));
            }
            if let Some((_, line)) = &mut self.line {
                line.take(entry);
            }
            self.after = Some((person.clone(), entry.seq));
        }
        if !found.is_empty() {
            return Ok(Some(text));
        }
        self.done = true;
        self.end_line(&mut text)?;
        Ok(Some(text))
    }

    fn end_line(&mut self, text: &mut String) -> Result<(), DbErr> {
        if let Some((_, line)) = self.line.take() {
            let line = serde_json::to_string(&line).map_err(|error| DbErr::Json(error.to_string()))?;
            text.push_str(&line);
            text.push('\n');
        }
        Ok(())
    }
}
