//! The table of attempts after which a delivery was tried again.

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
