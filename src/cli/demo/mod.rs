//! `tidings demo`: the main job on real input, in one process with nothing installed.
//!
//! It has a folder and a port of its own and reads neither `tidings.toml` nor the environment. What it does, it does over
//! HTTP and SMTP as anybody else would; a step holds only when its result was seen from outside. Every step that does not
//! hold ends it with status 1 and the step's name.

mod announcement;
mod client;
mod steps;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use secrecy::SecretString;
use tempfile::TempDir;

use self::client::Client;
use super::{CliError, Context};
use crate::config::Settings;
use crate::relay::Timeouts;
use crate::serve::{self, Parts, Running};

/// How long a relay may take for each step of a dialogue in the demo.
const RELAY_STEP: std::time::Duration = std::time::Duration::from_secs(5);

/// Shows the main job on real input, in one process with nothing installed
///
/// Sends a campaign to some two hundred invented people into an embedded mailbox, follows a one-click unsubscribe link,
/// shows that the next campaigns leave that person out and that a service message still arrives, announces a change of a
/// policy to everyone and agrees to it by a link. Then it keeps serving and says where to look, until you press Ctrl-C. It uses a temporary folder and a free port of this machine.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// End after the last step, with status 0 only if every step held
    #[arg(long)]
    exit: bool,
    /// Hand over to this relay instead of the embedded mailbox
    #[arg(long, hide = true, value_name = "URL")]
    relay: Option<String>,
    /// Keep the database in this folder instead of a temporary one
    #[arg(long, hide = true, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// The demo's database, and the temporary folder that goes with it.
struct Place {
    url: String,
    _temporary: Option<TempDir>,
}

impl Demo {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let began = Instant::now();
        let out = context.out;
        out.line("Tidings shows its main job. Everything stays on this machine.");
        let mut tally = steps::Tally::new(out);
        let place = tally.step("Find a folder", place(self.folder)).await?;
        let admin_key = random_key();
        let running = tally
            .step(
                "Start web service, worker and mailbox on SQLite",
                start(&place, self.relay.as_deref(), &admin_key),
            )
            .await?;
        let base = format!("http://{}", running.addr);
        let shown = match Client::new(&base, &admin_key) {
            Ok(client) => steps::all(&mut tally, &client).await,
            Err(error) => Err(CliError::Failed(error)),
        };
        let shown = match shown {
            Ok(shown) => shown,
            Err(error) => {
                running.stop().await;
                return Err(error);
            }
        };
        out.line(format!("\nEvery step held, in {:.1} s.", began.elapsed().as_secs_f64()));
        if !self.exit {
            out.line(shown.where_to_look(&base, &admin_key));
            serve::until_signal().await;
        }
        running.stop().await;
        Ok(())
    }
}

async fn place(folder: Option<PathBuf>) -> Result<Place, String> {
    let (folder, temporary) = match folder {
        Some(folder) => (folder, None),
        None => {
            let made = tempfile::Builder::new().prefix("tidings-demo-").tempdir();
            let made = made.map_err(|error| {
                format!("no temporary folder can be made ({error}); set TMPDIR to one that can be written")
            })?;
            (made.path().to_owned(), Some(made))
        }
    };
    let probe = folder.join(".tidings-demo");
    let written = tokio::fs::write(&probe, b"").await;
    written.map_err(|error| {
        format!("{} cannot be written ({error}); choose a folder that can", folder.display())
    })?;
    // Whether the file can be removed shows nothing more.
    let _ = tokio::fs::remove_file(&probe).await;
    let url = format!("sqlite://{}", folder.join("demo.db").display());
    Ok(Place { url, _temporary: temporary })
}

async fn start(place: &Place, relay: Option<&str>, admin_key: &str) -> Result<Running, String> {
    let mut settings = Settings::local(&place.url);
    settings.admin_key = Some(SecretString::from(admin_key));
    if let Some(relay) = relay {
        settings.relay_url = SecretString::from(relay);
    }
    settings.relay_timeouts = Timeouts::each(RELAY_STEP);
    serve::start(settings, Parts::default()).await.map_err(|error| error.to_string())
}

fn random_key() -> String {
    format!("demo-{}", hex::encode(rand::random::<[u8; 16]>()))
}
