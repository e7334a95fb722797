//! `tidings notice publish`, `notice status`, `notice unreachable`: announcing a change of a policy.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::json;

use super::out;
use super::{CliError, Context, actor, no_worker};
use crate::access::rows::record;
use crate::app::App;
use crate::clock::{Local, Timestamp};
use crate::id::{NoticeId, VersionId};
use crate::notice::State;
use crate::notice::rows::{self, Forecast, Notice, RoundView, UNREACHED_HEADER, View};
use crate::policy::rows::Version;
use crate::policy::{self, Approval, Change, Draft, Flaw, PolicyError, Translation};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// People read at once for a list.
const PIECE: u64 = 1_000;

/// Announce a change of a policy, and see who was told
#[derive(Debug, Args)]
pub(super) struct Notices {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Publish(Publish),
    Status(Status),
    Unreachable(Unreachable),
}

/// Publish a version of a policy; everyone whom it concerns is told
///
/// The first version of a policy is the baseline, of which nobody is told. A minor change shows on the policy's page and
/// mails nobody.
#[derive(Debug, Args)]
struct Publish {
    /// The policy, by its slug; it was made with PUT /api/v1/policies/{policy}
    #[arg(long, value_name = "POLICY")]
    policy: String,
    /// The whole text as it is to be, Markdown
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// minor, material, adverse or new_use
    #[arg(long, value_name = "KIND")]
    change: Change,
    /// From when it holds, such as 2027-01-31T00:00:00+01:00, whose day people then read; the first version may leave it
    /// out
    #[arg(long, value_name = "TIME")]
    effective: Option<Local>,
    /// What changes and what it means, in plain words
    #[arg(long, value_name = "TEXT")]
    summary: String,
    /// What it says in another language: a tag such as de, the whole text, what the policy is called, and what changes;
    /// once for each language
    #[arg(long, num_args = 4, value_names = ["LANGUAGE", "FILE", "TITLE", "SUMMARY"])]
    translation: Vec<String>,
    /// Whether people are asked to agree, required or none; an adverse change that asks nobody needs --override-reason
    #[arg(long, value_name = "APPROVAL")]
    approval: Option<Approval>,
    /// For new_use: the topic, by its slug, that stands for the new use and that people can refuse
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Why less time than the policy's lead time is left, or why nobody is asked; it is kept
    #[arg(long, value_name = "TEXT")]
    override_reason: Option<String>,
    /// Show whom it would be told to and when that would be done, and publish nothing
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// Show progress until everyone is told, or was tried once and is tried again later
    #[arg(long)]
    watch: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How far a notice has come, and when the last one will be told
#[derive(Debug, Args)]
struct Status {
    /// The notice, by the id that `notice publish` printed
    id: NoticeId,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Who could not be told by mail, and why
#[derive(Debug, Args)]
struct Unreachable {
    /// The notice, by the id that `notice publish` printed
    id: NoticeId,
    /// Print them as CSV, for a letter
    #[arg(long)]
    csv: bool,
    /// Print them as JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
}

impl Notices {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self.command {
            Command::Publish(publish) => publish.run(context).await,
            Command::Status(status) => status.run(context).await,
            Command::Unreachable(unreachable) => unreachable.run(context).await,
        }
    }
}

impl Publish {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        let body = text_of(&self.file)?;
        let translations = translations(&self.translation)?;
        let app = context.app().await?;
        let found = policy::rows::find(app.db.reads(), &self.policy).await?;
        let policy = found.ok_or_else(|| {
            let slug = &self.policy;
            CliError::Failed(format!("there is no policy {slug:?}; make it with PUT /api/v1/policies/{slug}"))
        })?;
        let draft = Draft {
            body_markdown: body,
            change: self.change,
            summary: self.summary.clone(),
            effective_at: self.effective,
            approval: self.approval,
            override_reason: self.override_reason.clone(),
            translations,
            topic: self.topic.clone(),
        };
        let actor = actor();
        let txn = app.db.begin().await?;
        if let Some(twin) = policy::rows::twin(&txn, &policy, &draft).await.map_err(in_flags)? {
            let notice = rows::of_version(&*txn, twin.id).await?;
            txn.rollback().await?;
            if !self.json {
                context
                    .out
                    .line(format!("Version {} of {} says just this already.", twin.number, self.policy));
            }
            return self.show(context, &app, &twin, notice).await;
        }
        let made = policy::rows::create(&txn, &app.db, policy.id, VersionId::new(), &draft, &actor);
        let made = made.await.map_err(in_flags)?;
        let done = policy::rows::publish(&txn, &app.db, policy.id, made.number, None, &actor).await;
        let done = done.map_err(in_flags)?;
        let ahead = rows::forecast(&*txn, &app, &policy, &done.version).await?;
        if self.dry_run {
            txn.rollback().await?;
            let found =
                json!({ "version": { "policy": self.policy, "number": made.number }, "forecast": ahead });
            context.out.result(self.json, &found, foreseen(&self.policy, made.number, ahead.as_ref()));
            return Ok(());
        }
        if let Some(ahead) = &ahead
            && !self.json
        {
            context.out.line(foreseen(&self.policy, made.number, Some(ahead)));
        }
        let notice = match done.opens {
            true => {
                let opened = rows::open(&txn, &app, &policy, &done.version, &actor).await;
                Some(opened.map_err(CliError::failed)?)
            }
            false => None,
        };
        let detail = json!({ "version": made.number, "notice": notice.as_ref().map(|notice| notice.id) });
        record(&*txn, &app.db, &actor, "policy.publish", &format!("policy:{}", policy.slug), detail).await?;
        txn.commit().await?;
        self.show(context, &app, &done.version, notice).await
    }

    /// What there is now: the version and how far its notice has come.
    async fn show(
        &self,
        context: &Context,
        app: &App,
        version: &Version,
        notice: Option<Notice>,
    ) -> Result<(), CliError> {
        let (number, state) = (version.number, version.state);
        if !self.json {
            context.out.line(said(&self.policy, number, state, notice.as_ref()));
        }
        if let Some(notice) = &notice {
            if self.watch {
                watch(app, notice.id).await?;
            } else if let Some(warning) = no_worker(app).await? {
                out::remark(warning);
            }
        }
        let shown = match &notice {
            Some(notice) => Some(look(app, notice.id).await?),
            None => None,
        };
        if self.json {
            let version = json!({ "policy": self.policy, "number": number, "state": state });
            context.out.json(&json!({ "version": version, "notice": shown }));
        } else if let Some(shown) = shown {
            context.out.line(in_words(&shown));
        }
        Ok(())
    }
}

/// What publishing would bring, said before it is done.
fn foreseen(policy: &str, number: i64, ahead: Option<&Forecast>) -> String {
    let Some(ahead) = ahead else {
        return format!("Version {number} of {policy} would be mailed to nobody.");
    };
    let end = match ahead.projected_end {
        Some(end) => format!("the last one at {end}"),
        None => "nobody knows when, as no worker sends".to_owned(),
    };
    let time = if ahead.on_time { "in time" } else { "LATE" };
    let supersedes: String = ahead
        .supersedes
        .iter()
        .map(|asking| {
            format!("\nVersion {asking} takes no answers any more from then on: this one asks too.")
        })
        .collect();
    let (people, rate, by) = (ahead.people, ahead.messages_per_second, ahead.complete_by);
    format!(
        "Version {number} of {policy} is for {people} people, told at {rate:.0} a second, {end}; everyone is to be told by \
         {by}: {time}.{supersedes}"
    )
}

fn said(policy: &str, number: i64, state: policy::State, notice: Option<&Notice>) -> String {
    match (state, notice) {
        (policy::State::AwaitingRelease, _) => format!(
            "Version {number} of {policy} waits for a second person: POST /api/v1/policies/{policy}/versions/{number}/release"
        ),
        (_, Some(notice)) => {
            let stage = match notice.state {
                State::Running => "is running",
                State::InEffect => "has taken effect",
                State::Withdrawn => "was withdrawn",
            };
            format!("Version {number} of {policy} is published. Notice {} {stage}.", notice.id)
        }
        (_, None) => format!("Version {number} of {policy} is published. Nobody is mailed."),
    }
}

fn text_of(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file)
        .map_err(|error| CliError::Failed(format!("{} cannot be read: {error}", file.display())))
}

/// What it says in other languages, of four words each.
fn translations(words: &[String]) -> Result<BTreeMap<String, Translation>, CliError> {
    let mut all = BTreeMap::new();
    for four in words.chunks(4) {
        let [language, file, title, summary] = four else { break };
        let translation = Translation {
            title: Some(title.clone()),
            summary: summary.clone(),
            body_markdown: text_of(Path::new(file))?,
        };
        if all.insert(language.clone(), translation).is_some() {
            return Err(CliError::Failed(format!(
                "--translation {language} is there twice; give each language once"
            )));
        }
    }
    Ok(all)
}

/// What is wrong, by the flag that it was given with.
fn in_flags(error: PolicyError) -> CliError {
    let PolicyError::Flaws(flaws) = &error else { return CliError::failed(error) };
    let flag = |pointer: &str| match pointer {
        "/body_markdown" => "--file".to_owned(),
        "/effective_at" => "--effective".to_owned(),
        "/summary" => "--summary".to_owned(),
        "/topic" => "--topic".to_owned(),
        "/approval" => "--approval".to_owned(),
        "/override_reason" => "--override-reason".to_owned(),
        _ => match pointer.strip_prefix("/translations/") {
            Some(rest) => format!("--translation {}:", rest.replacen('/', ", ", 1)),
            None => "--change".to_owned(),
        },
    };
    let reason = |flaw: &Flaw| flaw.reason.replace("override_reason", "--override-reason");
    let all: Vec<String> =
        flaws.iter().map(|flaw| format!("{} {}", flag(&flaw.pointer), reason(flaw))).collect();
    CliError::Failed(all.join("; "))
}

impl Status {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        let app = context.app().await?;
        let shown = look(&app, self.id).await?;
        context.out.result(self.json, &shown, in_words(&shown));
        if let Some(warning) = no_worker(&app).await?
            && shown.counts.pending > 0
        {
            out::remark(warning);
        }
        Ok(())
    }
}

impl Unreachable {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        let app = context.app().await?;
        let notice = rows::find(app.db.reads(), self.id).await?.ok_or_else(|| none(self.id))?;
        let (mut after, mut all) = (None, Vec::new());
        if self.csv {
            raw(&format!("{UNREACHED_HEADER}\r\n"))?;
        }
        loop {
            let found = rows::unreached(app.db.reads(), &notice, after, PIECE).await?;
            let more = found.len() as u64 == PIECE;
            after = found.last().map(|one| one.delivery);
            if self.csv {
                raw(&rows::unreached_as_csv(found)?)?;
            } else {
                for one in found {
                    let told = one.told_by.map(|by| format!(", told by {by}")).unwrap_or_default();
                    if self.json {
                        all.push(json!({
                            "recipient": one.recipient, "email": one.email, "name": one.name,
                            "external_id": one.external_id, "attributes": one.attributes, "reason": one.reason,
                            "status": one.status, "reply": one.reply,
                            "told_by": one.told_by, "told_at": one.told_at,
                        }));
                    } else {
                        let who = one.email.unwrap_or_else(|| one.recipient.to_string());
                        context.out.line(format!("{who}: {}{told}", one.reason));
                    }
                }
            }
            if !more {
                break;
            }
        }
        if self.json {
            context.out.json(&all);
        }
        Ok(())
    }
}

/// Octets as they are; a reader that has gone away is no failure.
fn raw(text: &str) -> Result<(), CliError> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn none(id: NoticeId) -> CliError {
    CliError::Failed(format!("there is no notice {id}"))
}

async fn look(app: &App, id: NoticeId) -> Result<View, CliError> {
    rows::look(app, id).await?.ok_or_else(|| none(id))
}

fn in_words(shown: &View) -> String {
    let counts = shown.counts;
    let end = match shown.projected_end {
        Some(end) if counts.pending > 0 => format!("the last one will be told at {end}"),
        Some(end) => format!("the last one was told at {end}"),
        None => "nobody sends, so nobody knows when the last one will be told".to_owned(),
    };
    let time = if shown.on_time { "in time" } else { "LATE" };
    // Nothing has to be in time any more for a change that was called off.
    let clock = match shown.state {
        State::Withdrawn => String::new(),
        State::Running | State::InEffect => {
            format!(" Everyone is to be told by {}; {end}: {time}.", shown.complete_by)
        }
    };
    let asked = shown.approvals;
    let answers = match asked.approved + asked.declined + asked.open {
        0 => String::new(),
        _ => format!(
            "\n{} agree, {} decline, {} have not answered.",
            asked.approved, asked.declined, asked.open
        ),
    };
    let waiting = shown.waiting.as_ref().map_or(String::new(), |waits| {
        format!(
            "\nTo {} it was asked for by {} at {}; a second person must release that: POST /api/v1/notices/{}/release",
            waits.change, waits.asked_by, waits.asked_at, shown.id
        )
    });
    format!(
        "{} version {}, {}: {} effect on {}, at {}.\n{} of {} people told, {} wait, {} could not be \
         reached.{clock}{answers}{waiting}",
        shown.policy,
        shown.version,
        shown.state,
        match shown.state {
            State::Running => "takes",
            State::InEffect => "took",
            State::Withdrawn => "was to take",
        },
        shown.effective_date,
        shown.effective_at,
        counts.told,
        counts.total,
        counts.pending,
        counts.unreachable,
    )
}

/// When the last one will be told, in few words; none while nobody knows.
fn until(end: Option<Timestamp>, on_time: bool) -> String {
    let late = if on_time { "" } else { ", LATE" };
    end.map_or_else(String::new, |end| format!("until {}{late}", Local::from(end).in_figures()))
}

/// Whether the newest round that tells of the change has come to its end, whatever an earlier one did.
fn has_told_all(rounds: &[RoundView]) -> bool {
    let newest = rounds.iter().rev().find(|round| round.kind.tells_of_the_change());
    newest.is_some_and(|round| round.completed_at.is_some())
}

/// Shows progress, with the projected end, until everyone was told, given up or tried once: who is put off by a mail server
/// is tried again for as long as there is time, which may be weeks.
async fn watch(app: &App, id: NoticeId) -> Result<(), CliError> {
    let bar: ProgressBar = out::message_bar();
    let mut warned = false;
    loop {
        let shown = look(app, id).await?;
        let done = shown.counts.told + shown.counts.unreachable;
        out::show_sent(&bar, done, shown.counts.total);
        out::show_words(&bar, &until(shown.projected_end, shown.on_time));
        if has_told_all(&shown.rounds) || shown.state != State::Running {
            bar.finish_and_clear();
            return Ok(());
        }
        let left = shown.counts.pending;
        if left > 0 && !rows::anybody_untried(app.db.reads(), id).await? {
            bar.finish_and_clear();
            out::remark(&format!(
                "Everyone was tried once; {left} of them could not be told yet and are being tried again. `tidings notice \
                 status {id}` shows how far that has come."
            ));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Counts;
    use crate::notice::{RoundKind, RoundState};

    fn round(kind: RoundKind, completed_at: Option<Timestamp>) -> RoundView {
        RoundView {
            number: 1,
            kind,
            reason: None,
            state: RoundState::Open,
            counts: Counts::default(),
            created_by: "test".to_owned(),
            created_at: Timestamp(0),
            completed_at,
        }
    }

    #[test]
    fn all_are_told_when_the_newest_round_that_tells_of_the_change_is_over() {
        let over = Some(Timestamp(1));
        assert!(!has_told_all(&[]));
        let mut rounds = vec![round(RoundKind::Change, None)];
        assert!(!has_told_all(&rounds));
        rounds[0].completed_at = over;
        assert!(has_told_all(&rounds));
        for kind in [RoundKind::Correction, RoundKind::Postponement] {
            rounds.push(round(kind, None));
            assert!(!has_told_all(&rounds), "{kind}");
            rounds.last_mut().unwrap().completed_at = over;
            assert!(has_told_all(&rounds), "{kind}");
        }
        // Reminding tells nobody of the change.
        rounds.push(round(RoundKind::ApprovalReminder, None));
        assert!(has_told_all(&rounds));
    }

    #[test]
    fn the_projected_end_is_said_in_few_words() {
        let end: Timestamp = "2027-01-31T00:00:00.123456Z".parse().unwrap();
        assert_eq!(until(Some(end), true), "until 2027-01-31 00:00 UTC");
        assert_eq!(until(Some(end), false), "until 2027-01-31 00:00 UTC, LATE");
        assert_eq!(until(None, false), "");
    }
}
