//! `tidings key new`: a key for the ring that signs links.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CliError, Context};
use crate::link::KeyRing;

/// Makes keys that sign links
#[derive(Debug, Args)]
pub(super) struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes a new key and prints it, once, as id:base64
    ///
    /// To rotate, put the new key before the others in TIDINGS_LINK_KEYS (on SQLite: in the file beside the database) and
    /// start Tidings again. Keep the old ones: links in mail already sent are verified with them.
    New {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Key {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let KeyCommand::New { json } = self.command;
        let key = KeyRing::new_key();
        context.out.result(json, &json!({ "key": key }), &key);
        Ok(())
    }
}
