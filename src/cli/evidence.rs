//! `tidings evidence`: the proof of a notice as one archive, and whether it is whole.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sea_orm::DbErr;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{CliError, Context, actor};
use crate::access;
use crate::address::EmailAddress;
use crate::app::App;
use crate::brand;
use crate::delivery::rows::{Single, rehearse};
use crate::id::{DeliveryId, NoticeId};
use crate::link::KeyRing;
use crate::message;
use crate::notice::evidence::archive::{CHAIN, Manifest, README, Writer, text_file, verify};
use crate::notice::evidence::body::{Exported, Published};
use crate::notice::evidence::{Account, Entry, Head, Kind};
use crate::notice::rows::{self, Notice, Read, Reading, Untold};
use crate::policy;

/// What is said of a chain that an earlier version of the program left.
const NOT_YET: &str = " It is not sealed yet: the next worker that starts seals it (`tidings serve`). Until then nobody can see whether entries were \
    cut off from its end.";

/// Who the sample message is for: nobody.
const SAMPLE: &str = "somebody@example.invalid";

/// What a verification without the database shows, and what it does not.
const LIMITS: &str = "Each file in it is what its entries say or name. Nobody can see offline whether all of it was written anew, \
    every entry included: compare that hash with the one that was noted at the export, or that the audit trail of the \
    installation keeps of it (notice.evidence).";

/// Exports and verifies the proof of who was told what
#[derive(Debug, Args)]
pub(super) struct Evidence {
    #[command(subcommand)]
    command: EvidenceCommand,
}

#[derive(Debug, Subcommand)]
enum EvidenceCommand {
    Export(Export),
    Verify(Verify),
}

/// Writes the proof of a notice as one archive
///
/// It holds the chain of evidence, the texts, what the messages were made from, a sample message and a summary in words, and
/// names nobody. It is verified anywhere with `tidings evidence verify FILE`. The chain keeps that it was exported.
#[derive(Debug, Args)]
struct Export {
    /// The notice
    #[arg(long, value_name = "ID")]
    notice: NoticeId,
    /// Where to; a file that is there is left alone [default: evidence-POLICY-VERSION.tar.gz in this folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Verifies the evidence of every notice in the database, or an archive
///
/// An archive is verified by itself, without settings and without a database: every file in it by the entries, and these
/// by each other. The exit status is 1 when something was changed, removed, inserted or moved, and the notice and the entry
/// or file are named. Whether all of an archive was written anew only the last entry's hash shows, noted elsewhere.
#[derive(Debug, Args)]
struct Verify {
    /// An archive that `tidings evidence export` wrote
    file: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Evidence {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self.command {
            EvidenceCommand::Export(export) => export.run(context).await,
            EvidenceCommand::Verify(Verify { file: Some(file), json }) => verify_file(context, &file, json),
            EvidenceCommand::Verify(Verify { file: None, json }) => verify_all(context, json).await,
        }
    }
}

impl Export {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        let app = context.app().await?;
        let id = self.notice;
        let notice = rows::find(app.db.reads(), id).await?.ok_or_else(|| {
            CliError::Failed(format!("there is no notice {id}; GET /api/v1/notices lists those there are"))
        })?;
        let mut chain = Chain::read(&app, id).await?;
        let published = chain.account.story.published.as_ref().ok_or_else(|| {
            CliError::Failed(format!("the evidence of notice {id} does not say what was published"))
        })?;
        let default =
            || PathBuf::from(format!("evidence-{}-{}.tar.gz", published.policy, published.version.number));
        let output = self.output.unwrap_or_else(default);
        if output.exists() {
            let name = output.display();
            return Err(CliError::Failed(format!(
                "{name} is there already; name another file with --output"
            )));
        }
        let sample = sample(&app, &notice).await?;
        let told = Exported {
            sample_sha256: sample.as_ref().map(|sample| hex::encode(Sha256::digest(sample))),
            program: format!("Tidings {}", env!("CARGO_PKG_VERSION")),
            by: actor(),
        };
        let txn = app.db.begin().await?;
        rows::append(&txn, &app.db, id, Kind::Exported, None, &told).await?;
        let head = rows::head(&*txn, id).await?.unwrap_or_else(Head::start);
        let detail = json!({ "entries": head.seq, "head": hex::encode(&head.hash) });
        access::rows::record(&*txn, &app.db, &actor(), "notice.evidence", &id.to_string(), detail).await?;
        txn.commit().await?;
        chain.read_to(&app, &head).await?;
        let manifest = write(&app, &notice, chain, sample.as_deref(), &output).await?;
        let file = output.display().to_string();
        let words = format!(
            "{file}: {} entries of notice {id}. The last one's hash is {}: write it down elsewhere, so that nothing can be \
             made anew unnoticed.",
            manifest.head.seq, manifest.head.hash
        );
        let result = json!({ "file": file, "notice": id, "head": manifest.head, "counts": manifest.counts });
        context.out.result(self.json, &result, words);
        Ok(())
    }
}

/// The chain of a notice, found whole, in a file without a name.
struct Chain {
    lines: BufWriter<File>,
    octets: u64,
    account: Account,
}

impl Chain {
    async fn read(app: &App, notice: NoticeId) -> Result<Self, CliError> {
        let lines = BufWriter::new(tempfile::tempfile()?);
        let mut chain = Self { lines, octets: 0, account: Account::new(notice) };
        let on = app.db.reads();
        let mut reading = Reading::new(&app.db, on, notice).await?;
        while let Some(piece) = reading.piece(on).await? {
            chain.keep(&piece)?;
        }
        let kept = |piece: &[Entry]| chain.keep(piece).map_err(|error| DbErr::Custom(error.to_string()));
        let Read { unfit, .. } =
            reading.finish(on, kept).await?.map_err(|found| broken(notice, &rows::Unfit::Chain(found)))?;
        if let Some(unfit) = unfit.first() {
            return Err(broken(notice, unfit));
        }
        if rows::seal(&app.db, notice).await? == rows::Seal::Broken {
            return Err(broken(notice, &rows::Unfit::Seal));
        }
        Ok(chain)
    }

    fn keep(&mut self, piece: &[Entry]) -> std::io::Result<()> {
        for entry in piece {
            self.account.take(entry);
            let line = entry.to_line();
            self.octets += line.len() as u64 + 1;
            writeln!(self.lines, "{line}")?;
        }
        Ok(())
    }

    /// Reads on to the entry that tells of the export: whatever comes later belongs to the next one.
    async fn read_to(&mut self, app: &App, last: &Head) -> Result<(), CliError> {
        let mut more = last.seq - self.account.head.seq;
        while more > 0 {
            let after = self.account.head.seq;
            let piece =
                rows::entries(app.db.reads(), self.account.notice, after, more.unsigned_abs().min(1_000));
            let piece = piece.await?;
            self.keep(&piece)?;
            more = if piece.is_empty() { 0 } else { last.seq - self.account.head.seq };
        }
        Ok(())
    }
}

/// Writes the archive beside where it belongs, verifies it and puts it there.
async fn write(
    app: &App,
    notice: &Notice,
    chain: Chain,
    sample: Option<&[u8]>,
    output: &Path,
) -> Result<Manifest, CliError> {
    let Chain { lines, octets, account } = chain;
    let (published, _) = account.ends().map_err(CliError::Failed)?;
    let texts = texts(app, notice, published).await?;
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)?;
    let mut writer = Writer::new(BufWriter::new(file), account.at);
    let mut add = |name: &str, octets: &[u8]| writer.add(name, octets.len() as u64, octets);
    add("README.txt", README.as_bytes())?;
    add("summary.html", account.summary().map_err(CliError::Failed)?.as_bytes())?;
    for (name, text) in &texts {
        add(name, text.as_bytes())?;
    }
    let bound = account.files().map_err(CliError::Failed)?;
    for (name, part) in rows::made_from(app.db.reads(), notice.id).await? {
        // A round that began meanwhile belongs to the next export.
        if bound.contains_key(&name) {
            add(&name, part.as_bytes())?;
        }
    }
    if let Some(sample) = sample {
        add("sample.eml", sample)?;
    }
    let mut lines = lines.into_inner().map_err(|error| CliError::failed(error.error()))?;
    lines.seek(SeekFrom::Start(0))?;
    writer.add(CHAIN, octets, BufReader::new(lines))?;
    let written = writer.finish(&account)?.into_inner().map_err(|error| CliError::failed(error.error()))?;
    written.as_file().sync_all()?;
    let manifest = verify(BufReader::new(written.reopen()?)).map_err(CliError::failed)?;
    written.persist_noclobber(output).map_err(|error| CliError::failed(error.error))?;
    Ok(manifest)
}

/// The texts that the chain speaks of, by file.
async fn texts(app: &App, notice: &Notice, published: &Published) -> Result<Vec<(String, String)>, CliError> {
    let on = app.db.reads();
    let mut found = Vec::new();
    for version in std::iter::once(&published.version).chain(&published.before) {
        let Some(stored) = policy::rows::version(on, notice.policy_id, version.number).await? else {
            continue;
        };
        for text in policy::rows::texts(on, stored.id).await? {
            if version.texts.iter().any(|recorded| recorded.language == text.language) {
                found.push((text_file(version.number, &text.language), text.body_markdown));
            }
        }
    }
    Ok(found)
}

/// The first round's message as somebody made up would get it; none when its content is gone.
async fn sample(app: &App, notice: &Notice) -> Result<Option<Vec<u8>>, CliError> {
    let on = app.db.reads();
    let policy = policy::rows::by_id(on, notice.policy_id).await?;
    let brand = brand::rows::by_id(on, notice.brand_id).await?;
    let round = rows::rounds(on, notice.id).await?.into_iter().next();
    let (Some(policy), Some(brand), Some(round)) = (policy, brand, round) else { return Ok(None) };
    let Some(topic) = brand::rows::topic_by_id(on, policy.topic_id).await? else { return Ok(None) };
    let texts = rows::texts(on, round.id).await?;
    let text = texts.iter().find(|text| text.language == policy.language).or(texts.first());
    let Some(text) = text else { return Ok(None) };
    let Some(frozen) = message::rows::load(on, text.content_id).await? else { return Ok(None) };
    let keys = KeyRing::parse(&KeyRing::new_key()).map_err(CliError::failed)?;
    let address = EmailAddress::parse(SAMPLE).map_err(CliError::failed)?;
    let single = Single {
        id: DeliveryId::new(),
        brand: &brand,
        topic: &topic,
        content: text.content_id,
        address: &address,
        name: Some("Somebody"),
        data: None,
    };
    let made = rehearse(on, app, &keys, &frozen, &single, Some(brand.id)).await;
    Ok(Some(made.map_err(|error| CliError::Failed(format!("no sample message can be made: {error}")))?.bytes))
}

fn broken(notice: NoticeId, unfit: &rows::Unfit) -> CliError {
    CliError::Failed(format!("the evidence of notice {notice} breaks: {unfit}"))
}

fn verify_file(context: &Context, file: &Path, as_json: bool) -> Result<(), CliError> {
    let name = file.display();
    let opened = File::open(file);
    let opened = opened.map_err(|error| CliError::Failed(format!("{name} cannot be read: {error}")))?;
    match verify(BufReader::new(opened)) {
        Ok(manifest) => {
            let Manifest { notice, policy, brand, version, head, .. } = &manifest;
            let words = format!(
                "Whole: {} entries of notice {notice}, version {version} of {:?} of {:?}. The last one's hash is {}.\n{LIMITS}",
                head.seq, policy.title, brand.title, head.hash
            );
            let result = json!({ "whole": true, "notice": notice, "policy": policy.slug, "version": version,
                "head": head, "counts": manifest.counts, "limits": LIMITS });
            context.out.result(as_json, &result, words);
            Ok(())
        }
        Err(unsound) => {
            if as_json {
                context.out.json(&json!({ "whole": false, "because": unsound.to_string() }));
            }
            Err(CliError::Failed(format!("{name}: {unsound}")))
        }
    }
}

async fn verify_all(context: &Context, as_json: bool) -> Result<(), CliError> {
    let app = context.app().await?;
    let on = app.db.reads();
    let (mut results, mut first, mut after) = (Vec::new(), None, None);
    while let Some(id) = rows::known_notices(on, after).await? {
        after = Some(id);
        let (head, mut unfit) = match rows::examine(&app.db, id).await? {
            Ok(read) => (Some(read.head), read.unfit),
            Err(broken) => (None, vec![rows::Unfit::Chain(broken)]),
        };
        let seal = rows::seal(&app.db, id).await?;
        if seal == rows::Seal::Broken {
            unfit.push(rows::Unfit::Seal);
        }
        let head = head.map(|head| (head.seq, hex::encode(&head.hash)));
        let shown = head.as_ref().map(|(seq, hash)| json!({ "seq": seq, "hash": hash }));
        let mut result = json!({ "notice": id, "whole": unfit.is_empty(), "head": shown,
            "sealed": seal == rows::Seal::Whole });
        if let Some(one) = unfit.first() {
            first.get_or_insert_with(|| broken(id, one));
            result["because"] = json!(one.to_string());
            result["all"] = unfit.iter().map(ToString::to_string).collect();
        }
        results.push(result);
        if as_json {
            continue;
        }
        for one in &unfit {
            context.out.line(format!("Broken: notice {id}: {one}."));
        }
        if let (Some((seq, hash)), true) = (head, unfit.is_empty()) {
            let so_far = if seal == rows::Seal::NotYet { NOT_YET } else { "" };
            context
                .out
                .line(format!("Whole: {seq} entries of notice {id}. The last one's hash is {hash}.{so_far}"));
        }
    }
    let untold = rows::untold(on).await?;
    for Untold { policy, number, .. } in &untold {
        let words = format!("version {number} of {policy:?} was published, and its notice is missing");
        if !as_json {
            context.out.line(format!("Broken: {words}."));
        }
        first.get_or_insert(CliError::Failed(words));
    }
    if as_json {
        let untold: Vec<_> =
            untold.iter().map(|one| json!({ "policy": one.policy, "version": one.number })).collect();
        context.out.json(&json!({ "whole": first.is_none(), "notices": results, "missing": untold }));
    } else if after.is_none() && untold.is_empty() {
        context.out.line("There is no notice yet.");
    }
    first.map_or(Ok(()), Err)
}
