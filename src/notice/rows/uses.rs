//! What somebody says of a new use of their data takes effect: as a refusal of the topic that stands for it.

use sea_orm::{ConnectionTrait, DbErr};

use super::approvals::messages;
use crate::address::AddressHash;
use crate::app::App;
use crate::brand::Topic;
use crate::clock::Instant;
use crate::decision::Reason;
use crate::fence;
use crate::id::{DeliveryId, NoticeId, RecipientId, TopicId};
use crate::notice::Decision;
use crate::opt_out::rows::explain;
use crate::opt_out::words::Because;
use crate::opt_out::{Channel, OptOut, Scope};

/// What somebody says of a new use.
#[derive(Clone, Copy, Debug)]
pub struct OfUse<'a> {
    /// To which notice.
    pub notice: NoticeId,
    /// The topic in which the notice goes out.
    pub told_in: TopicId,
    /// Who.
    pub recipient: RecipientId,
    /// The keyed hash of their address.
    pub address_hash: &'a AddressHash,
    /// What they say.
    pub decision: Decision,
    /// The message by which they do, or which told them.
    pub delivery: Option<DeliveryId>,
    /// How they say it.
    pub channel: Channel,
    /// What there is to say about that; none on the page.
    pub note: Option<&'a str>,
    /// Who records it.
    pub actor: &'a str,
}

/// Refuses the use that a topic stands for, or takes back what was refused through messages of the notice. What was refused
/// in another way stays refused by who answers on the page; by letter or telephone one takes back what one said so too, of
/// this use alone. Gives what may still arrive of what is refused.
///
/// # Errors
/// The database's own; it may be said again.
pub async fn heed(
    app: &App,
    topic: &Topic,
    said: &OfUse<'_>,
    arrived: Instant,
) -> Result<fence::Rest, DbErr> {
    match said.decision {
        Decision::Decline => {
            let refused = OptOut {
                address_hash: said.address_hash.clone(),
                scopes: vec![Scope::Topic(topic.brand_id, topic.id)],
                channel: said.channel,
                complaint: false,
                note: said.note.map(str::to_owned),
                requested_at: None,
                delivery: said.delivery,
                actor: said.actor.to_owned(),
            };
            Ok(fence::opt_out(app, &refused, arrived).await?.rest)
        }
        Decision::Approve => {
            // Whichever message of the notice they refused it by; what else they refused by its footer stays refused.
            let brand = topic.brand_id;
            let keep = [Scope::All, Scope::Brand(brand), Scope::Topic(brand, said.told_in)];
            for message in messages(app.db.reads(), said.notice, said.recipient).await? {
                fence::undo(app, said.address_hash, message, &keep, said.channel, said.actor).await?;
            }
            // Who got no message refused it by none.
            if said.channel != Channel::Page {
                let scope = Scope::Topic(brand, topic.id);
                fence::undo_said(app, said.address_hash, scope, said.channel, said.actor).await?;
            }
            Ok(fence::Rest::default())
        }
    }
}

/// Which refusals still stand that cover a use: of everything, of the brand, or said in another way than through the notice.
///
/// # Errors
/// The database's own.
pub async fn still_refused(
    on: &impl ConnectionTrait,
    person: &AddressHash,
    topic: &Topic,
) -> Result<Vec<Reason>, DbErr> {
    let said = |because: Because| match because {
        Because::Reason(
            reason @ (Reason::OptedOutOfAll
            | Reason::OptedOutOfBrand
            | Reason::OptedOutOfTopic
            | Reason::Complaint),
        ) => Some(reason),
        Because::Reason(_) | Because::Ground(_) => None,
    };
    Ok(explain(on, person, topic).await?.because.into_iter().filter_map(said).collect())
}
