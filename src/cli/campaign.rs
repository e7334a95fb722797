//! `tidings campaign send`: creates, fills and starts a campaign, and watches it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use sea_orm::ConnectionTrait;
use serde_json::{Map, Value, json};

use super::import::{format_of, in_words as lines_in_words, open};
use super::{CliError, Context, actor, brand_of, no_worker, out, topic_of};
use crate::access;
use crate::app::App;
use crate::campaign::rows::{Campaign as Stored, LinesReport, add_all, create, find, start};
use crate::campaign::{Draft, State};
use crate::delivery::Counts;
use crate::delivery::rows::{counts, suppressed_by};
use crate::id::CampaignId;
use crate::recipient::Audience;

/// How often a watched campaign is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Sends campaigns
#[derive(Debug, Args)]
pub(super) struct Campaign {
    #[command(subcommand)]
    command: CampaignCommand,
}

#[derive(Debug, Subcommand)]
enum CampaignCommand {
    Send(Send),
}

/// Creates, fills and starts a campaign
///
/// The messages are sent by a worker: `tidings serve`. People who opted out are left out, whatever the file says.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true))]
struct Send {
    /// The brand
    #[arg(long)]
    brand: String,
    /// The topic
    #[arg(long)]
    topic: String,
    /// The template
    #[arg(long)]
    template: String,
    /// The people in this .csv, .ndjson or .jsonl file: email, name; any other column is data for that person's message
    #[arg(long, value_name = "FILE", group = "whom")]
    recipients: Option<PathBuf>,
    /// Everyone of the brand
    #[arg(long, group = "whom")]
    all: bool,
    /// What the template sees as data: a JSON object
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// Stay, show progress, and end when the campaign has ended
    #[arg(long)]
    watch: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Campaign {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let CampaignCommand::Send(send) = self.command;
        send.run(context).await
    }
}

impl Send {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        let data = object(self.data.as_deref())?;
        let format = self.recipients.as_deref().map(format_of).transpose()?;
        let app = context.app().await?;
        let brand = brand_of(&app, &self.brand).await?;
        topic_of(&app, &brand, &self.topic).await?;
        let draft = Draft {
            name: None,
            brand: self.brand,
            topic: self.topic,
            template: self.template,
            data,
            audience: self.all.then_some(Audience::All),
            send_at: None,
            not_after: None,
            reply_to: None,
        };
        let id = make(&app, &draft).await?;
        let mut lines = None;
        if let (Some(file), Some(format)) = (&self.recipients, format) {
            let report = fill(&app, id, file, format).await?;
            if report.added == 0 {
                return Err(CliError::Failed(format!(
                    "no line of {} could be used, so campaign {id} stays a draft; {}",
                    file.display(),
                    said_of(&report)
                )));
            }
            if !self.json {
                context.out.line(said_of(&report));
            }
            lines = Some(report);
        }
        set_off(&app, id).await?;
        if !self.json {
            context.out.line(format!("Campaign {id} is started."));
        }
        if self.watch {
            watch(&app, id).await?;
        } else if let Some(warning) = no_worker(&app).await? {
            out::remark(warning);
        }
        print_result(context, &app, id, lines, self.json, self.watch).await
    }
}

fn object(text: Option<&str>) -> Result<Map<String, Value>, CliError> {
    let Some(text) = text else { return Ok(Map::new()) };
    serde_json::from_str(text).map_err(|error| {
        CliError::Use(format!("--data must be a JSON object such as '{{\"sale\": 20}}': {error}"))
    })
}

async fn make(app: &App, draft: &Draft) -> Result<CampaignId, CliError> {
    let id = CampaignId::new();
    let txn = app.db.begin().await?;
    let made = create(&txn, &app.db, id, draft, &actor()).await.map_err(CliError::failed)?;
    record(&*txn, app, "campaign.create", made.id).await?;
    txn.commit().await?;
    Ok(made.id)
}

async fn fill(
    app: &App,
    id: CampaignId,
    file: &Path,
    format: crate::recipient::import::Format,
) -> Result<LinesReport, CliError> {
    let (source, bytes) = open(file).await?;
    let bar = out::file_bar(bytes);
    let said = bar.clone();
    let report = add_all(&app.db, &app.address_key, id, bar.wrap_async_read(source), format, move |so_far| {
        said.set_message(format!("{} people, {} rejected", so_far.received, so_far.rejections.rejected));
    })
    .await;
    bar.finish_and_clear();
    report.map_err(CliError::failed)
}

async fn set_off(app: &App, id: CampaignId) -> Result<(), CliError> {
    let txn = app.db.begin().await?;
    start(&txn, &app.db, id).await.map_err(CliError::failed)?;
    record(&*txn, app, "campaign.start", id).await?;
    Ok(txn.commit().await?)
}

async fn record(txn: &impl ConnectionTrait, app: &App, action: &str, id: CampaignId) -> Result<(), CliError> {
    Ok(access::rows::record(txn, &app.db, &actor(), action, &id.to_string(), json!({})).await?)
}

/// Shows progress until the campaign has ended.
async fn watch(app: &App, id: CampaignId) -> Result<(), CliError> {
    let bar = out::message_bar();
    let mut warned = false;
    loop {
        let (campaign, counts) = look(app, id).await?;
        out::show_sent(&bar, counts.settled(), counts.total);
        if matches!(campaign.state, State::Finished | State::Cancelled) {
            bar.finish_and_clear();
            return Ok(());
        }
        let warning = no_worker(app).await?;
        if let Some(warning) = warning
            && !warned
        {
            bar.suspend(|| out::remark(warning));
        }
        warned = warning.is_some();
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(app: &App, id: CampaignId) -> Result<(Stored, Counts), CliError> {
    let campaign = find(app.db.reads(), id).await?;
    let campaign = campaign.ok_or_else(|| CliError::Failed(format!("campaign {id} was deleted")))?;
    let counts = counts(app.db.reads(), campaign.content_id).await?;
    Ok((campaign, counts))
}

async fn print_result(
    context: &Context,
    app: &App,
    id: CampaignId,
    lines: Option<LinesReport>,
    as_json: bool,
    watched: bool,
) -> Result<(), CliError> {
    let (campaign, counts) = look(app, id).await?;
    let state = campaign.state;
    if as_json {
        let by = suppressed_by(app.db.reads(), campaign.content_id).await?;
        let result = json!({
            "id": id, "state": state, "counts": counts, "suppressed_by": by, "recipients": lines,
        });
        context.out.json(&result);
    } else if watched {
        context.out.line(format!(
            "{state}: {} messages, {} sent, {} suppressed, {} failed, {} unknown, {} expired, {} cancelled.",
            counts.total,
            counts.sent,
            counts.suppressed,
            counts.failed,
            counts.unknown,
            counts.expired,
            counts.cancelled
        ));
    }
    Ok(())
}

fn said_of(report: &LinesReport) -> String {
    let head = format!(
        "{} lines: {} added, {} there already, {} rejected.",
        report.received, report.added, report.already_there, report.rejections.rejected
    );
    lines_in_words(head, &report.rejections)
}
