//! `tidings api-key`: keys of the management API.

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{CliError, Context, actor, brand_of};
use crate::access::rows::{ApiKey as Row, create_key, list_keys, revoke_key};
use crate::brand;
use crate::web::Role;

/// Makes, lists and revokes keys of the management API
#[derive(Debug, Args)]
pub(super) struct ApiKey {
    #[command(subcommand)]
    command: ApiKeyCommand,
}

#[derive(Debug, Subcommand)]
enum ApiKeyCommand {
    /// Makes a key and prints it, once: it is stored as a hash and cannot be read again
    Create {
        /// A name by which you know it; it stands beside every change made with the key
        #[arg(long)]
        name: String,
        /// admin, accounts, marketer, sender, operator or auditor
        #[arg(long)]
        role: Role,
        /// Bind the key to this brand: it sees that brand's people alone
        #[arg(long)]
        brand: Option<String>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Lists the keys, revoked ones included, without their secrets
    List {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Revokes a key for ever
    Revoke {
        /// The key's id, or its prefix: the part between the first two underscores
        key: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

impl ApiKey {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let app = context.app().await?;
        match self.command {
            ApiKeyCommand::Create { name, role, brand, json } => {
                let bound = match &brand {
                    Some(slug) => Some(brand_of(&app, slug).await?.id),
                    None => None,
                };
                let made =
                    create_key(&app.db, &name, role, bound, &actor()).await.map_err(CliError::failed)?;
                let key = made.key.expose_secret();
                let result = json!({
                    "id": made.row.id, "name": made.row.name, "role": made.row.role, "brand": brand, "key": key,
                });
                context.out.result(json, &result, key);
            }
            ApiKeyCommand::List { json } => {
                let mut shown = Vec::new();
                for row in list_keys(app.db.reads()).await? {
                    shown.push(about(&app, row).await?);
                }
                if json {
                    context.out.json(&shown);
                } else {
                    shown.iter().for_each(|key| context.out.line(in_words(key)));
                }
            }
            ApiKeyCommand::Revoke { key, json } => {
                let revoked = revoke_key(&app.db, &key, &actor()).await?.ok_or_else(|| {
                    CliError::Failed("there is no such key; `tidings api-key list` shows them".to_owned())
                })?;
                let result = about(&app, revoked).await?;
                context.out.result(json, &result, format!("Revoked {}.", in_words(&result)));
            }
        }
        Ok(())
    }
}

async fn about(app: &crate::app::App, row: Row) -> Result<serde_json::Value, CliError> {
    let bound = match row.brand_id {
        Some(id) => brand::rows::by_id(app.db.reads(), id).await?.map(|brand| brand.slug),
        None => None,
    };
    Ok(json!({
        "id": row.id, "name": row.name, "role": row.role, "brand": bound, "prefix": row.prefix,
        "created_by": row.created_by, "created_at": row.created_at, "revoked_at": row.revoked_at,
    }))
}

fn in_words(key: &serde_json::Value) -> String {
    let word = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
    let mut words = format!("{}  {}  {}", word("prefix"), word("role"), word("name"));
    if !key["brand"].is_null() {
        words += &format!("  (brand {})", word("brand"));
    }
    if !key["revoked_at"].is_null() {
        words += &format!("  revoked {}", word("revoked_at"));
    }
    words
}
