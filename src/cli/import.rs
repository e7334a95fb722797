//! `tidings import`: recipients from a file.

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::io::AsyncRead;

use super::{CliError, Context, actor, out};
use crate::access;
use crate::recipient::import::{Format, Rejections};
use crate::recipient::rows::{By, ImportReport, import_all};

/// Imports recipients from CSV or NDJSON
///
/// A CSV file has a header: email,name,external_id,locale,tags (tags parted by ;), besides brands (acme;beta) and policies
/// accepted at sign-up (privacy=3;terms=1), and any other column is an attribute.
/// A line of an NDJSON file is an object with the same names. A line that cannot be used is reported with its number and
/// the rest goes in; the same file can be imported again. No opt-out is ever lifted by an import.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// A .csv, .ndjson or .jsonl file
    file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Import {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let format = format_of(&self.file)?;
        let app = context.app().await?;
        let (file, bytes) = open(&self.file).await?;
        let bar = out::file_bar(bytes);
        let counting = bar.wrap_async_read(file);
        let said = bar.clone();
        let report =
            import_all(&app.db, &app.address_key, counting, format, None, By::Keeper, move |so_far| {
                said.set_message(format!(
                    "{} people, {} rejected",
                    so_far.received, so_far.rejections.rejected
                ));
            })
            .await;
        bar.finish_and_clear();
        let report = report.map_err(CliError::failed)?;
        record(&app, &report).await?;
        context.out.result(self.json, &report, said_of(&report));
        Ok(())
    }
}

async fn record(app: &crate::app::App, report: &ImportReport) -> Result<(), CliError> {
    let txn = app.db.begin().await?;
    let detail = serde_json::json!({
        "received": report.received, "created": report.created, "updated": report.updated, "rejected": report.rejections.rejected,
    });
    access::rows::record(&*txn, &app.db, &actor(), "recipients.import", "recipients", detail).await?;
    Ok(txn.commit().await?)
}

/// The file and its size in octets.
pub(super) async fn open(path: &Path) -> Result<(impl AsyncRead + Unpin + use<>, u64), CliError> {
    let failed = |error: std::io::Error| {
        CliError::Failed(format!("{} cannot be read: {error}; check the path", path.display()))
    };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let about = file.metadata().await.map_err(failed)?;
    if about.is_dir() {
        return Err(CliError::Failed(format!("{} is a folder; name a file in it", path.display())));
    }
    Ok((tokio::io::BufReader::with_capacity(256 * 1024, file), about.len()))
}

/// Tells the format by the file's name.
pub(super) fn format_of(path: &Path) -> Result<Format, CliError> {
    match path.extension().and_then(|end| end.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("csv") => Ok(Format::Csv),
        Some("ndjson" | "jsonl") => Ok(Format::Ndjson),
        _ => Err(CliError::Use("the file's name must end in .csv, .ndjson or .jsonl".to_owned())),
    }
}

fn said_of(report: &ImportReport) -> String {
    let head = format!(
        "{} records: {} created, {} updated, {} unchanged, {} duplicates, {} rejected.",
        report.received,
        report.created,
        report.updated,
        report.unchanged,
        report.duplicates,
        report.rejections.rejected
    );
    in_words(head, &report.rejections)
}

/// `head`, and a line for each line that could not be used.
pub(super) fn in_words(head: String, rejections: &Rejections) -> String {
    let mut words = head;
    for error in &rejections.errors {
        words += &format!("\nline {}: {}", error.line, error.reason);
    }
    if rejections.errors_left_out > 0 {
        words += &format!("\nand {} more", rejections.errors_left_out);
    }
    words
}
