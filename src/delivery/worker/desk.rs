//! From a claimed delivery to its message: brand and topic, content, person.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sea_orm::{ConnectionTrait, DbErr};

use super::claims::Job;
use crate::address::EmailAddress;
use crate::app::App;
use crate::brand::{self, Brand, Topic};
use crate::clock::Timestamp;
use crate::decision::Reason;
use crate::delivery::off_the_way;
use crate::delivery::rows::{Claimed, Fate};
use crate::id::ContentId;
use crate::message::{Addressee, Compiled, Message, Prepared, Sender};

/// Contents kept ready at most; the next one after that starts afresh.
const CONTENTS_KEPT: usize = 64;

/// From whom, about what; read with each claim.
pub(super) struct Stream {
    pub(super) brand: Brand,
    pub(super) topic: Topic,
}

impl Stream {
    /// Brand and topic of this delivery; none when one of them is gone.
    pub(super) async fn load(on: &impl ConnectionTrait, held: &Claimed) -> Result<Option<Self>, DbErr> {
        let Some(topic) = brand::rows::topic_by_id(on, held.topic_id).await? else { return Ok(None) };
        let brand = brand::rows::by_id(on, held.brand_id).await?;
        Ok(brand.map(|brand| Self { brand, topic }))
    }
}

/// A delivery whose message is ready.
pub(super) struct Parcel {
    pub(super) job: Job,
    pub(super) message: Message,
    /// The message's Date.
    pub(super) date: Timestamp,
    /// Until when it is tried again at least.
    pub(super) retry_until: Option<Timestamp>,
}

impl Parcel {
    /// The domain that it goes to.
    pub(super) fn domain(&self) -> &str {
        self.message.envelope_to.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

/// Makes messages.
pub(super) struct Desk {
    app: App,
    ready: Mutex<HashMap<ContentId, Ready>>,
}

#[derive(Clone)]
struct Ready {
    prepared: Arc<Prepared>,
    heavy: bool,
    retry_until: Option<Timestamp>,
}

/// Why there is no message.
enum Hitch {
    /// It ends here.
    Ends(Fate),
    /// The database failed.
    Db(DbErr),
}

impl From<DbErr> for Hitch {
    fn from(error: DbErr) -> Self {
        Self::Db(error)
    }
}

fn ends(why: impl Into<String>) -> Hitch {
    Hitch::Ends(Fate::Failed(why.into()))
}

impl Desk {
    pub(super) fn new(app: App) -> Self {
        Self { app, ready: Mutex::default() }
    }

    /// Makes the message, or says how the delivery ends without one.
    ///
    /// # Errors
    /// The database's own, with the job.
    pub(super) async fn make(&self, job: Job) -> Result<Result<Parcel, (Job, Fate)>, (Job, DbErr)> {
        let date = job.held.dated_at.unwrap_or_else(|| self.app.db.clock().now());
        match self.compose(&job, date).await {
            Ok((message, retry_until)) => Ok(Ok(Parcel { job, message, date, retry_until })),
            Err(Hitch::Ends(fate)) => Ok(Err((job, fate))),
            Err(Hitch::Db(error)) => Err((job, error)),
        }
    }

    /// The message, and until when it is tried again at least.
    async fn compose(&self, job: &Job, date: Timestamp) -> Result<(Message, Option<Timestamp>), Hitch> {
        let held = &job.held;
        let Some(member) = &job.person else { return Err(ends("no_recipient")) };
        let person = &member.recipient;
        let Some(address) = person.address.as_deref().and_then(|text| EmailAddress::parse(text).ok()) else {
            return Err(Hitch::Ends(Fate::Suppressed(Reason::Erased)));
        };
        if self.app.address_key.hash(&address) != held.address_hash {
            return Err(ends("another_address"));
        }
        let ready = self.ready(job).await?;
        let addressee = Addressee {
            recipient: held.recipient_id,
            address: &address,
            address_hash: &held.address_hash,
            name: person.name.as_deref(),
            locale: person.locale.as_deref(),
            external_id: person.external_id.as_deref(),
            customer: member.customer,
            attributes: &person.attributes,
            data: held.data.as_ref(),
        };
        let make = || ready.prepared.compose(&addressee, held.id, date);
        let made = if ready.heavy { off_the_way(make) } else { make() };
        Ok((made.map_err(|error| ends(error.to_string()))?, ready.retry_until))
    }

    /// The content made ready for brand and topic as they are.
    async fn ready(&self, job: &Job) -> Result<Ready, Hitch> {
        let Stream { brand, topic } = &*job.stream;
        let id = job.held.content_id;
        let kept = self.kept().get(&id).cloned();
        let kept = kept.filter(|ready| ready.prepared.is_for(brand, topic));
        if let Some(ready) = kept {
            return Ok(ready);
        }
        let Some(frozen) = crate::message::rows::load(self.app.db.reads(), id).await? else {
            return Err(ends("no_content"));
        };
        let retry_until = crate::message::rows::retry_until(self.app.db.reads(), id).await?;
        let heavy = frozen.is_heavy();
        let sender = Sender {
            brand,
            topic,
            base_url: &self.app.settings.base_url,
            link_keys: &self.app.link_keys,
            default_bounce_domain: self.app.settings.bounce_domain.as_deref(),
            inbound_domain: self.app.settings.inbound_domain.as_deref(),
            dkim: &self.app.dkim_keys,
        };
        let prepare = || {
            let compiled = Compiled::new(&frozen).map_err(|error| ends(error.to_string()))?;
            Prepared::new(&compiled, &sender).map_err(|error| ends(error.to_string()))
        };
        let prepared = if heavy { off_the_way(prepare) } else { prepare() }?;
        let ready = Ready { prepared: Arc::new(prepared), heavy, retry_until };
        let mut kept = self.kept();
        if kept.len() >= CONTENTS_KEPT {
            kept.clear();
        }
        kept.insert(id, ready.clone());
        Ok(ready)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<ContentId, Ready>> {
        // A panic while holding it leaves at worst a content less.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
