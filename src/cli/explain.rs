//! `tidings explain`: would a message be sent to this address, and why.

use clap::Args;
use serde_json::Value;

use super::{CliError, Context, address, brand_of, topic_of};
use crate::opt_out::rows::explain;

/// Says whether a message of this topic would be sent to this address now, and why
///
/// The answer comes from the very decision that the worker asks before each message.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The address
    email: String,
    /// The brand
    #[arg(long)]
    brand: String,
    /// The topic
    #[arg(long)]
    topic: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let email = address(&self.email)?;
        let app = context.app().await?;
        let brand = brand_of(&app, &self.brand).await?;
        let topic = topic_of(&app, &brand, &self.topic).await?;
        let explained = explain(app.db.reads(), &app.address_key.hash(&email), &topic).await?;
        let shown = serde_json::to_value(&explained).map_err(CliError::failed)?;
        let because: Vec<&str> =
            shown["because"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let decision = shown["decision"].as_str().unwrap_or_default();
        context.out.result(self.json, &shown, format!("{decision}: {}", because.join(", ")));
        Ok(())
    }
}
