//! The tables of opt-outs.

/// Events: inserted, never updated, never deleted.
pub mod event {
    use sea_orm::entity::prelude::*;

    use crate::address::AddressHash;
    use crate::clock::Timestamp;
    use crate::id::{BrandId, DeliveryId, OptEventId, TopicId};

    /// What somebody said about mail.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "opt_events")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: OptEventId,
        /// Whose.
        pub address_hash: AddressHash,
        /// Its place among the person's events.
        pub seq: i64,
        /// `opt_out`, `opt_in` or `undo`.
        pub said: String,
        /// `all`, `brand` or `topic`.
        pub scope_kind: String,
        /// The brand of the scope.
        pub brand_id: Option<BrandId>,
        /// The topic of the scope.
        pub topic_id: Option<TopicId>,
        /// How it was said.
        pub channel: String,
        /// Whether it came as a complaint.
        pub complaint: bool,
        /// A note.
        pub note: Option<String>,
        /// What proves an opt-in.
        pub evidence: Option<String>,
        /// The opt-out that an undo takes back.
        pub undoes: Option<OptEventId>,
        /// The message through which it was made.
        pub delivery_id: Option<DeliveryId>,
        /// When the person said it, where that was earlier.
        pub requested_at: Option<Timestamp>,
        /// When it was recorded.
        pub recorded_at: Timestamp,
        /// Who recorded it.
        pub recorded_by: String,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// What the events amount to: one row a person and scope.
pub(super) mod suppression {
    use sea_orm::entity::prelude::*;
    use sea_orm::sea_query::OnConflict;

    use crate::address::AddressHash;
    use crate::id::{BrandId, OptEventId, TopicId};

    /// The newest word about one scope.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "suppressions")]
    pub(in crate::opt_out::rows) struct Model {
        /// Whose.
        #[sea_orm(primary_key, auto_increment = false)]
        pub address_hash: AddressHash,
        /// Which scope.
        #[sea_orm(primary_key, auto_increment = false)]
        pub scope_key: String,
        pub scope_kind: String,
        pub brand_id: Option<BrandId>,
        pub topic_id: Option<TopicId>,
        /// `opt_out` or `opt_in`.
        pub said: String,
        pub seq: i64,
        pub complaint: bool,
        pub event_id: OptEventId,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub(in crate::opt_out::rows) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}

    /// What a newer word does to the row of its scope.
    pub(in crate::opt_out::rows) fn newest_wins() -> OnConflict {
        OnConflict::columns([Column::AddressHash, Column::ScopeKey])
            .update_columns([Column::Said, Column::Seq, Column::Complaint, Column::EventId])
            .to_owned()
    }
}
