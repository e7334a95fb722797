//! `tidings serve`: the web service and the worker.

use clap::{Args, ValueEnum};

use super::{CliError, Context};
use crate::serve::{self, Parts};

/// Runs the web service and the worker, in one process or apart
///
/// Without --only, both run in this process. SIGTERM and SIGINT stop it: what is being handed over is finished first. A
/// lone worker serves /healthz, /readyz and /metrics on its listen address.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Run one of the two alone
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Do not migrate the database; refuse to start when it is not up to date
    #[arg(long)]
    no_migrate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    /// The HTTP server alone
    Web,
    /// The worker alone
    Worker,
}

impl Serve {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let parts = Parts {
            web: self.only != Some(Only::Worker),
            worker: self.only != Some(Only::Web),
            migrate: !self.no_migrate,
            ..Parts::default()
        };
        serve::run(context.settings()?, parts).await.map_err(CliError::failed)
    }
}
