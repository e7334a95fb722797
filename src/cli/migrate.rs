//! `tidings migrate`: brings the database up to date.

use clap::Args;
use serde_json::json;

use super::{CliError, Context};
use crate::app::App;

/// Brings the database up to date
///
/// `serve` does so by itself unless it is started with --no-migrate. Several processes may do it at once: one of them
/// works, the others wait for it.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Migrate {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        App::migrate(&context.settings()?).await.map_err(CliError::failed)?;
        context.out.result(self.json, &json!({ "up_to_date": true }), "The database is up to date.");
        Ok(())
    }
}
