//! `tidings opt-out`: what a person at the telephone uses. The answer is the same fence as the API's.

use clap::Args;

use super::{CliError, Context, actor, address};
use crate::clock::Instant;
use crate::fence;
use crate::opt_out::rows::{flights_in_words, scope_of};
use crate::opt_out::words::{OptOutAnswer, ScopeWords};
use crate::opt_out::{Channel, OptOut as Refusal};

/// Longest note in characters.
const MAX_NOTE: usize = 2000;

/// Records that a person refuses, and waits until no such message can be begun any more
///
/// Without --brand it covers everything of every brand that can be refused; with --brand everything of that brand; with
/// --topic besides, that topic alone. What a person must get, such as security notices, still comes.
#[derive(Debug, Args)]
pub(super) struct OptOut {
    /// The person's address; it need not be known
    email: String,
    /// Of this brand only
    #[arg(long)]
    brand: Option<String>,
    /// Of this topic of the brand only
    #[arg(long, requires = "brand")]
    topic: Option<String>,
    /// How the person said so: phone, letter, email, in_person or api
    #[arg(long)]
    channel: Channel,
    /// What to keep beside it, such as who took the call
    #[arg(long)]
    note: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn in_words(scope: &ScopeWords) -> String {
    match scope {
        ScopeWords::All => "everything that can be refused".to_owned(),
        ScopeWords::Brand(brand) => format!("everything of the brand {brand} that can be refused"),
        ScopeWords::Topic(brand, topic) => format!("the topic {topic} of the brand {brand}"),
    }
}

impl OptOut {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let arrived = Instant::now();
        let email = address(&self.email)?;
        let by_operator = [Channel::Phone, Channel::Letter, Channel::Email, Channel::InPerson, Channel::Api];
        if !by_operator.contains(&self.channel) {
            return Err(CliError::Use("--channel must be phone, letter, email, in_person or api".to_owned()));
        }
        let unusable = |note: &String| {
            note.chars().count() > MAX_NOTE || note.chars().any(|c| c.is_control() && c != '\n')
        };
        if self.note.as_ref().is_some_and(unusable) {
            return Err(CliError::Use(format!(
                "--note must be at most {MAX_NOTE} characters and hold no control characters"
            )));
        }
        let app = context.app().await?;
        let scope = ScopeWords::from_parts(self.brand, self.topic).map_err(CliError::Use)?;
        let found = scope_of(app.db.reads(), &scope).await?.map_err(|error| {
            CliError::Failed(format!("{error}; check how it is spelt, since nothing was recorded"))
        })?;
        let refusal = Refusal {
            address_hash: app.address_key.hash(&email),
            scopes: vec![found],
            channel: self.channel,
            complaint: false,
            note: self.note,
            requested_at: None,
            delivery: None,
            actor: actor(),
        };
        let answer = fence::opt_out(&app, &refusal, arrived).await?;
        let settled = answer.rest.settled();
        let in_flight = flights_in_words(app.db.reads(), answer.rest.deliveries()).await?;
        let result = OptOutAnswer {
            id: answer.id,
            scope,
            channel: self.channel,
            recorded_at: answer.recorded_at,
            settled,
            in_flight,
        };
        let mut words = format!(
            "{} {}, recorded {} ({}).",
            if answer.new { "Opted out of" } else { "Already opted out of" },
            in_words(&result.scope),
            result.recorded_at,
            result.id
        );
        for flight in &result.in_flight {
            words += &format!(
                "\nMay still arrive: {} of topic {} ({}).",
                flight.delivery, flight.topic, flight.state
            );
        }
        context.out.result(self.json, &result, words);
        Ok(())
    }
}
