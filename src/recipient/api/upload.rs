//! `POST /recipients/import`: a file of people, streamed.

use std::io;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use futures_util::TryStreamExt;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::rows::record;
use crate::app::App;
use crate::recipient::import::{Format, ImportError};
use crate::recipient::rows::{ImportFailure, ImportReport, import_all};
use crate::web::{Caller, Json, Problem, Role};

/// Longest upload, in octets: 2 GiB.
const MAX_UPLOAD: usize = 2 * 1024 * 1024 * 1024;

pub(super) fn router() -> OpenApiRouter<App> {
    // The limit on bodies is for those that are held in memory; this one is counted as it streams.
    OpenApiRouter::new().routes(routes!(import)).layer(axum::extract::DefaultBodyLimit::disable())
}

/// Stores a file of people, at most 2 GiB, in bounded memory. A line that cannot be used is reported and the rest goes
/// in; of several lines with one address the first counts. A file can be sent again after any failure: it changes
/// nothing that it stored before. Nothing in it lifts an opt-out.
#[utoipa::path(
    post, path = "/recipients/import", tag = "recipients",
    request_body(
        description = "CSV has a header `email,name,external_id,locale,tags` in any order, tags parted by `;`; any other \
            column is `attributes.<column>`. NDJSON has the same names, `tags` an array, `attributes` an object. An empty \
            field leaves what is stored.",
        content((String = "text/csv"), (String = "application/x-ndjson")),
    ),
    responses(
        (status = 200, description = "What became of the file", body = ImportReport),
        (status = 413, description = "Longer than 2 GiB", body = Problem),
        (status = 415, description = "Neither CSV nor NDJSON", body = Problem),
        (status = 422, description = "The header cannot be used", body = Problem),
    )
)]
async fn import(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<Json<ImportReport>, Problem> {
    caller.must_be(&[Role::Accounts, Role::Marketer])?;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let format = kind
        .and_then(Format::from_content_type)
        .ok_or_else(|| Problem::unsupported("text/csv or application/x-ndjson"))?;
    let db = &app.db;
    let audit = async |action, detail| {
        let txn = db.begin().await?;
        record(&*txn, db, &caller.actor, action, "recipients", detail).await?;
        txn.commit().await
    };
    // Before the first line and after the last: a file that breaks off leaves its trace too.
    audit("recipients.import", json!({ "brand": caller.brand })).await?;
    let source = bounded(request.into_body(), MAX_UPLOAD);
    let report = import_all(db, &app.address_key, source, format, caller.brand, |_| {}).await?;
    let counts = json!({
        "received": report.received, "created": report.created, "updated": report.updated,
        "unchanged": report.unchanged, "duplicates": report.duplicates, "rejected": report.rejected,
    });
    audit("recipients.imported", counts).await?;
    Ok(Json(report))
}

/// The body as a stream of octets that fails after `max` of them.
fn bounded(body: Body, max: usize) -> impl AsyncRead + Send + Unpin {
    let mut left = max;
    let counted = body.into_data_stream().map_err(io::Error::other).and_then(move |octets| {
        let fits = octets.len() <= left;
        left = left.saturating_sub(octets.len());
        std::future::ready(if fits { Ok(octets) } else { Err(io::ErrorKind::FileTooLarge.into()) })
    });
    StreamReader::new(counted)
}

impl From<ImportFailure> for Problem {
    fn from(failure: ImportFailure) -> Self {
        match failure {
            ImportFailure::Db(error) => error.into(),
            ImportFailure::File(ImportError::Header(reason)) => Self::field("", reason),
            ImportFailure::File(ImportError::Broken(error))
                if error.kind() == io::ErrorKind::FileTooLarge =>
            {
                Self::too_large(MAX_UPLOAD)
            }
            ImportFailure::File(ImportError::Broken(_)) => Self::malformed(
                "The upload broke off. What came before is stored; send the file again, it changes nothing twice.",
            ),
        }
    }
}
