//! `POST /recipients/import`: a file of people, streamed.

use axum::extract::State;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::rows::record;
use crate::app::App;
use crate::recipient::rows::{ImportFailure, ImportReport, import_all};
use crate::web::{Caller, Json, Problem, Role, Upload};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(import))
}

/// Stores a file of people, at most 2 GiB, in bounded memory. A line that cannot be used is reported and the rest goes
/// in; of several lines with one address the first counts. A file can be sent again after any failure: it changes
/// nothing that it stored before. Nothing in it lifts an opt-out.
#[utoipa::path(
    post, path = "/recipients/import", tag = "recipients",
    request_body(
        description = "CSV has a header `email,name,external_id,locale,tags` in any order, tags parted by `;`; besides \
            `brands`, the slugs of those that the person belongs to and of no others, such as `acme;beta`, and `policies`, what \
            was accepted at sign-up, such as `privacy=3;terms=1`; any other column is `attributes.<column>`. NDJSON has the same \
            names, `tags` and `brands` arrays, `policies` and `attributes` objects. An empty field leaves what is stored. \
            What was accepted has to be published; of somebody stored a key of role marketer does not change it.",
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
    upload: Upload,
) -> Result<Json<ImportReport>, Problem> {
    caller.must_be(&[Role::Accounts, Role::Marketer])?;
    let format = upload.format()?;
    let db = &app.db;
    let audit = async |action, detail| {
        let txn = db.begin().await?;
        record(&*txn, db, &caller.actor, action, "recipients", detail).await?;
        txn.commit().await
    };
    // Before the first line and after the last: a file that breaks off leaves its trace too.
    audit("recipients.import", json!({ "brand": caller.brand })).await?;
    let bound = super::bound(db.reads(), &caller).await?;
    let report =
        import_all(db, &app.address_key, upload.into_reader(), format, bound, super::by(&caller), |_| {})
            .await?;
    let counts = json!({
        "received": report.received, "created": report.created, "updated": report.updated,
        "unchanged": report.unchanged, "duplicates": report.duplicates, "rejected": report.rejections.rejected,
    });
    audit("recipients.imported", counts).await?;
    Ok(Json(report))
}

impl From<ImportFailure> for Problem {
    fn from(failure: ImportFailure) -> Self {
        match failure {
            ImportFailure::Db(error) => error.into(),
            ImportFailure::File(error) => error.into(),
        }
    }
}
