//! People in the database.
//!
//! Nothing here writes to the tables of opt-outs, and only `fence` changes a standing.

mod accounts;
mod audience;
mod file;
mod upsert;

use std::collections::HashMap;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{ExprTrait, Query};
use sea_orm::{Condition, ConnectionTrait, FromQueryResult, QueryOrder, QuerySelect, Statement};

use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::db::{Kind, List};
use crate::decision::Standing;
use crate::id::{BrandId, RecipientId};

pub use accounts::{
    Accounts, Span, Told, accounts_by_domain, before_any_change, by_domain, count_accounts, domain_of,
    end_of_changes, settled_until,
};
pub use audience::{Selection, end_of_step, meant};
pub use file::{Bound, ImportFailure, ImportReport, import_all};
pub use upsert::{Answer, By, Line, Newcomer, ensure_lines, ensure_stranger, upsert, upsert_lines};

/// A person as stored.
pub type Recipient = recipient::Model;
/// What ties a person to a brand, as stored.
pub type RecipientBrand = recipient_brand::Model;

/// The table of people.
pub mod recipient {
    use super::*;

    /// A person: an address with what is known of its owner.
    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "recipients")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: RecipientId,
        /// The address as first spelt, in NFC; none once erased.
        pub address: Option<String>,
        /// The address in its folded form; none once erased.
        pub folded: Option<String>,
        /// The keyed hash of the folded form, which outlives erasure.
        pub address_hash: AddressHash,
        /// The name.
        pub name: Option<String>,
        /// The id in the company's own system.
        pub external_id: Option<String>,
        /// The language tag.
        pub locale: Option<String>,
        /// The standing; only `fence::change_standing` writes it.
        pub standing: Standing,
        /// Whether the person belongs to every brand.
        pub every_brand: bool,
        /// Since when, where that was said later than the person was stored.
        pub every_brand_since: Option<Timestamp>,
        /// Tags: an array of strings.
        pub tags: Json,
        /// Attributes: an object.
        pub attributes: Json,
        /// Which version of which policy was accepted at sign-up: an object of numbers.
        pub policies: Json,
        /// When the person was first stored.
        pub created_at: Timestamp,
        /// When anything about the person last changed.
        pub updated_at: Timestamp,
    }

    /// None: ideas are joined by id.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}

    impl std::fmt::Debug for Model {
        /// The id and the standing: no address, no name.
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Recipient")
                .field("id", &self.id)
                .field("standing", &self.standing)
                .finish_non_exhaustive()
        }
    }
}

/// The table of who belongs to which brand.
pub mod recipient_brand {
    use super::*;

    /// What ties a person to a brand.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "recipient_brands")]
    pub struct Model {
        /// The person.
        #[sea_orm(primary_key, auto_increment = false)]
        pub recipient_id: RecipientId,
        /// The brand.
        #[sea_orm(primary_key, auto_increment = false)]
        pub brand_id: BrandId,
        /// Whether the person belongs to the brand by name; a person of every brand does so anyway.
        pub belongs: bool,
        /// Since when by name, where that is later than the person was stored.
        pub joined_at: Option<Timestamp>,
        /// Whether the person is the brand's customer.
        pub customer: bool,
    }

    /// None: an idea's tables know no other idea's.
    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// A person as one brand sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The person.
    pub recipient: Recipient,
    /// Whether the person is the brand's customer.
    pub customer: bool,
}

/// The person behind this address.
///
/// # Errors
/// The database's own.
pub async fn find(on: &impl ConnectionTrait, hash: &AddressHash) -> Result<Option<Recipient>, DbErr> {
    recipient::Entity::find().filter(recipient::Column::AddressHash.eq(hash.clone())).one(on).await
}

/// The addresses of these hashes, as far as they are known; at most 1,000 at a time.
///
/// # Errors
/// The database's own.
pub async fn addresses_of(
    on: &impl ConnectionTrait,
    hashes: &[AddressHash],
) -> Result<HashMap<AddressHash, String>, DbErr> {
    let people = recipient::Entity::find()
        .filter(recipient::Column::AddressHash.is_in(hashes.iter().cloned()))
        .all(on)
        .await?;
    Ok(people.into_iter().filter_map(|person| Some((person.address_hash, person.address?))).collect())
}

/// Those of these hashes who belong to this brand, with their addresses; of somebody erased, with an empty one. At most
/// 1,000 at a time.
///
/// # Errors
/// The database's own.
pub async fn members_among(
    on: &impl ConnectionTrait,
    hashes: &[AddressHash],
    brand: BrandId,
) -> Result<HashMap<AddressHash, String>, DbErr> {
    let people = recipient::Entity::find()
        .filter(recipient::Column::AddressHash.is_in(hashes.iter().cloned()))
        .all(on)
        .await?;
    let ids: Vec<RecipientId> = people.iter().map(|person| person.id).collect();
    let ties = ties(on, &ids).await?;
    let belongs = |person: &Recipient| {
        let tied = |tie: &RecipientBrand| tie.brand_id == brand && tie.belongs;
        person.every_brand || ties.get(&person.id).is_some_and(|ties| ties.iter().any(tied))
    };
    let people = people.into_iter().filter(belongs);
    Ok(people.map(|person| (person.address_hash, person.address.unwrap_or_default())).collect())
}

/// The person of this id.
///
/// # Errors
/// The database's own.
pub async fn by_id(on: &impl ConnectionTrait, id: RecipientId) -> Result<Option<Recipient>, DbErr> {
    recipient::Entity::find_by_id(id).one(on).await
}

/// People by id, from the first after `after`; of one brand or of all, the erased included.
///
/// # Errors
/// The database's own.
pub async fn list(
    on: &impl ConnectionTrait,
    brand: Option<BrandId>,
    after: Option<RecipientId>,
    limit: u64,
) -> Result<Vec<Recipient>, DbErr> {
    let mut query = recipient::Entity::find().order_by_asc(recipient::Column::Id).limit(limit);
    if let Some(brand) = brand {
        query = query.filter(belongs_to(brand));
    }
    if let Some(after) = after {
        query = query.filter(recipient::Column::Id.gt(after));
    }
    query.all(on).await
}

/// These people as the brand sees them, whether they belong to it or not. At most 10,000 at a time.
///
/// # Errors
/// The database's own.
pub async fn people(
    on: &impl ConnectionTrait,
    ids: &[RecipientId],
    brand: BrandId,
) -> Result<HashMap<RecipientId, Member>, DbErr> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let list = List::of("id", Kind::Uuid, ids.iter().map(|id| id.0));
    let backend = on.get_database_backend();
    let mut values = vec![brand.into()];
    let list = list.relation(backend, "l", &mut values);
    let sql = format!(
        "SELECT r.*, m.customer FROM {list} JOIN recipients r ON r.id = l.id \
         LEFT JOIN recipient_brands m ON m.recipient_id = r.id AND m.brand_id = $1"
    );
    let rows = on.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    let member = |row: &QueryResult| {
        let recipient = Recipient::from_query_result(row, "")?;
        let customer = row.try_get::<Option<bool>>("", "customer")?.unwrap_or(false);
        Ok((recipient.id, Member { recipient, customer }))
    };
    rows.iter().map(member).collect()
}

/// Whether the person belongs to the brand.
///
/// # Errors
/// The database's own.
pub async fn belongs(on: &impl ConnectionTrait, person: &Recipient, brand: BrandId) -> Result<bool, DbErr> {
    if person.every_brand {
        return Ok(true);
    }
    let tie = recipient_brand::Entity::find_by_id((person.id, brand)).one(on).await?;
    Ok(tie.is_some_and(|tie| tie.belongs))
}

/// Since when the person belongs to the brand; none when they do not.
///
/// # Errors
/// The database's own.
pub async fn joined(
    on: &impl ConnectionTrait,
    person: &Recipient,
    brand: BrandId,
) -> Result<Option<Timestamp>, DbErr> {
    let tie = recipient_brand::Entity::find_by_id((person.id, brand)).one(on).await?;
    Ok(person.belongs_since(tie.as_ref()))
}

impl Recipient {
    /// Since when the person belongs to the brand of this tie, or of none; none when they do not.
    pub fn belongs_since(&self, tie: Option<&RecipientBrand>) -> Option<Timestamp> {
        let of_all = self.every_brand.then(|| self.every_brand_since.unwrap_or(self.created_at));
        let of_this = tie.filter(|tie| tie.belongs).map(|tie| tie.joined_at.unwrap_or(self.created_at));
        of_all.into_iter().chain(of_this).min()
    }
}

/// What ties these people to brands. At most 10,000 at a time.
///
/// # Errors
/// The database's own.
pub async fn ties(
    on: &impl ConnectionTrait,
    ids: &[RecipientId],
) -> Result<HashMap<RecipientId, Vec<RecipientBrand>>, DbErr> {
    let mut ties: HashMap<RecipientId, Vec<RecipientBrand>> = HashMap::new();
    if ids.is_empty() {
        return Ok(ties);
    }
    let rows = recipient_brand::Entity::find()
        .filter(recipient_brand::Column::RecipientId.is_in(ids.iter().copied()))
        .order_by_asc(recipient_brand::Column::BrandId)
        .all(on)
        .await?;
    for row in rows {
        ties.entry(row.recipient_id).or_default().push(row);
    }
    Ok(ties)
}

fn belongs_to(brand: BrandId) -> Condition {
    let named = Query::select()
        .expr(Expr::value(1))
        .from(recipient_brand::Entity)
        .and_where(
            Expr::col((recipient_brand::Entity, recipient_brand::Column::RecipientId))
                .equals((recipient::Entity, recipient::Column::Id)),
        )
        .and_where(Expr::col((recipient_brand::Entity, recipient_brand::Column::BrandId)).eq(brand))
        .and_where(Expr::col((recipient_brand::Entity, recipient_brand::Column::Belongs)).eq(true))
        .to_owned();
    Condition::any().add(recipient::Column::EveryBrand.eq(true)).add(Expr::exists(named))
}
