//! The tables of deliveries.

/// One message to one recipient.
pub mod delivery {
    use sea_orm::entity::prelude::*;

    use crate::address::AddressHash;
    use crate::clock::Timestamp;
    use crate::decision::Class;
    use crate::delivery::State;
    use crate::id::{BrandId, ContentId, DeliveryId, LeaseToken, MailingId, RecipientId, TopicId};

    /// A delivery as stored.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "deliveries")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: DeliveryId,
        /// What is sent.
        pub content_id: ContentId,
        /// The campaign or notice.
        pub mailing_id: Option<MailingId>,
        /// The sender.
        pub brand_id: BrandId,
        /// The stream of messages.
        pub topic_id: TopicId,
        /// The class at enqueueing.
        pub class: Class,
        /// 0 for the service side, which goes first; 1 for what can be refused.
        pub lane: i16,
        /// To whom.
        pub recipient_id: RecipientId,
        /// The hash of the address it goes to, and of no other.
        pub address_hash: AddressHash,
        /// Laid over the content's data.
        pub data: Option<Json>,
        /// Where it is.
        pub state: State,
        /// Why, in a word of the API or a sentence.
        pub reason: Option<String>,
        /// Not before.
        pub due_at: Timestamp,
        /// Not after.
        pub not_after: Option<Timestamp>,
        /// When the first attempt began: the message's Date.
        pub first_begun_at: Option<Timestamp>,
        /// The claim under which it is sending.
        pub token: Option<LeaseToken>,
        /// When that claim's lease ends.
        pub lease_until: Option<Timestamp>,
        /// Whether the hand-over may have begun under this claim.
        pub begun: bool,
        /// Until when an unknown hand-over may still reach the relay.
        pub doubt_until: Option<Timestamp>,
        /// Whether the outcome of some attempt stayed unknown.
        pub doubted: bool,
        /// How many attempts there were.
        pub attempts: i64,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it came to its final state.
        pub settled_at: Option<Timestamp>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// One attempt to hand a delivery over, with the relay's words.
pub(super) mod attempt {
    use sea_orm::entity::prelude::*;

    use crate::clock::Timestamp;
    use crate::id::{AttemptId, DeliveryId, LeaseToken};

    /// An attempt as stored.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "attempts")]
    pub(in crate::delivery::rows) struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: AttemptId,
        /// Of which delivery.
        pub delivery_id: DeliveryId,
        /// Under which claim.
        pub token: LeaseToken,
        pub begun_at: Timestamp,
        pub ended_at: Option<Timestamp>,
        pub outcome: Option<String>,
        pub phase: Option<String>,
        pub code: Option<i64>,
        pub enhanced: Option<String>,
        pub reply: Option<String>,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub(in crate::delivery::rows) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
