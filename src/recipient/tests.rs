use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::change::{lay_over, lay_ties};
use super::rows::RecipientBrand;
use super::*;
use crate::address::{AddressKey, EmailAddress};
use crate::clock::Timestamp;
use crate::decision::Standing;
use crate::id::{BrandId, RecipientId};

fn ann() -> EmailAddress {
    EmailAddress::parse("ann@example.org").unwrap()
}

fn member(tags: Value, locale: Option<&str>, customer: bool, attributes: Value) -> Member {
    let recipient = Recipient {
        id: RecipientId::new(),
        address: Some(ann().as_str().to_owned()),
        folded: Some(ann().folded()),
        address_hash: AddressKey::generate().hash(&ann()),
        name: None,
        external_id: None,
        locale: locale.map(str::to_owned),
        standing: Standing::Active,
        every_brand: false,
        every_brand_since: None,
        tags,
        attributes,
        policies: json!({}),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    };
    Member { recipient, customer }
}

fn audience(spelt: Value) -> Audience {
    serde_json::from_value(spelt).unwrap()
}

#[test]
fn an_audience_is_everybody_or_conditions_that_must_all_hold() {
    let who =
        member(json!(["vip", "beta"]), Some("de-AT"), true, json!({ "plan": "pro", "seats": 3, "x": null }));
    for spelt in [
        json!({ "all": true }),
        json!({ "tags": ["none", "beta"] }),
        json!({ "locale": "de" }),
        json!({ "locale": "DE_at" }),
        json!({ "customer": true }),
        json!({ "attributes": { "plan": "pro", "seats": 3.0 } }),
        json!({ "attributes": { "x": null } }),
        json!({ "tags": ["vip"], "locale": "de-AT", "customer": true, "attributes": { "plan": "pro" } }),
    ] {
        assert!(audience(spelt.clone()).matches(&who), "{spelt}");
        assert_eq!(
            serde_json::to_value(audience(spelt.clone())).unwrap(),
            spelt,
            "it is written as it was read"
        );
    }
    for spelt in [
        json!({ "tags": ["vi"] }),
        json!({ "locale": "d" }),
        json!({ "locale": "de-DE" }),
        json!({ "customer": false }),
        json!({ "attributes": { "plan": "pro", "seats": "3" } }),
        json!({ "attributes": { "y": null } }),
        json!({ "tags": ["vip"], "customer": false }),
        json!({ "tags": ["vip"], "locale": "en" }),
    ] {
        assert!(!audience(spelt.clone()).matches(&who), "{spelt}");
    }
    let bare = member(json!([]), None, false, json!({}));
    assert!(audience(json!({ "all": true })).matches(&bare));
    assert!(!audience(json!({ "locale": "de" })).matches(&bare));
}

#[test]
fn an_audience_that_means_nobody_knows_what_is_refused() {
    let refused = |spelt: Value| serde_json::from_value::<Audience>(spelt).unwrap_err().to_string();
    assert!(refused(json!({})).contains("\"all\": true"));
    assert!(refused(json!({ "all": false })).contains("only be true"));
    assert!(refused(json!({ "all": true, "tags": ["a"] })).contains("not both"));
    assert!(refused(json!({ "tags": [] })).contains("nobody"));
    assert!(refused(json!({ "attributes": {} })).contains("attributes"));
    assert!(refused(json!({ "locale": "" })).contains("language"));
    assert!(refused(json!({ "tag": ["a"] })).contains("unknown field"));
    assert!(refused(json!({ "tags": vec!["a"; 101] })).contains("at most 100"));
}

#[test]
fn what_is_not_said_changes_nothing() {
    let before = member(json!(["a"]), Some("de"), true, json!({ "k": 1 })).recipient;
    let mut after = before.clone();
    let tie = RecipientBrand {
        recipient_id: before.id,
        brand_id: BrandId::new(),
        belongs: true,
        joined_at: None,
        customer: true,
    };
    assert!(!lay_over(&mut after, &Upsert::new(ann())));
    assert!(lay_ties(&mut after, &[tie], &Upsert::new(ann()), Timestamp(9)).is_empty());
    assert_eq!(after, before);
}

#[test]
fn brands_are_set_joined_or_left() {
    let (one, two) = (BrandId::new(), BrandId::new());
    let mut person = member(json!([]), None, false, json!({})).recipient;
    let tie = |brand_id, belongs, customer| RecipientBrand {
        recipient_id: person.id,
        brand_id,
        belongs,
        joined_at: None,
        customer,
    };
    let joined = |tie| RecipientBrand { joined_at: Some(Timestamp(9)), ..tie };
    let (in_one, in_two) = (tie(one, true, true), joined(tie(two, true, false)));
    let (out_of_one, no_customer) = (tie(one, false, true), tie(one, true, false));
    let mut said = Upsert::new(ann());

    said.membership = Membership::Only(vec![two]);
    assert_eq!(
        lay_ties(&mut person, std::slice::from_ref(&in_one), &said, Timestamp(9)),
        [out_of_one, in_two.clone()]
    );
    said.membership = Membership::Join(two);
    assert_eq!(lay_ties(&mut person, std::slice::from_ref(&in_one), &said, Timestamp(9)), [in_two]);
    said.membership = Membership::Every;
    assert!(lay_ties(&mut person, std::slice::from_ref(&in_one), &said, Timestamp(9)).is_empty());
    assert!(person.every_brand);
    said.membership = Membership::Join(two);
    assert!(
        lay_ties(&mut person, &[], &said, Timestamp(9)).is_empty(),
        "who belongs to every brand need not join one"
    );
    said.membership = Membership::Unsaid;
    said.customer_of = CustomerOf::Only(vec![]);
    assert_eq!(lay_ties(&mut person, std::slice::from_ref(&in_one), &said, Timestamp(9)), [no_customer]);
    said.customer_of = CustomerOf::One(two, false);
    assert!(lay_ties(&mut person, std::slice::from_ref(&in_one), &said, Timestamp(9)).is_empty());
    said.customer_of = CustomerOf::Only(vec![one]);
    assert!(lay_ties(&mut person, &[in_one], &said, Timestamp(9)).is_empty());
}

#[test]
fn who_belongs_to_a_brand_already_does_not_join_it_again() {
    let (one, two) = (BrandId::new(), BrandId::new());
    let mut person = member(json!([]), None, false, json!({})).recipient;
    person.created_at = Timestamp(1);
    let mut say = |ties: &[RecipientBrand], membership, at| {
        let said = Upsert { membership, ..Upsert::new(ann()) };
        let changed = lay_ties(&mut person, ties, &said, Timestamp(at));
        let since = |brand| {
            let tie = changed.iter().chain(ties).find(|tie| tie.brand_id == brand);
            person.belongs_since(tie).map(|since| since.0)
        };
        (changed.clone(), since(one), since(two))
    };
    let (ties, of_one, of_two) = say(&[], Membership::Only(vec![one]), 1);
    assert_eq!((of_one, of_two), (Some(1), None), "who is new belongs from the first moment");
    assert_eq!(ties[0].joined_at, None);
    let (_, of_one, of_two) = say(&ties, Membership::Every, 5);
    assert_eq!((of_one, of_two), (Some(1), Some(5)));
    let (_, of_one, of_two) = say(&ties, Membership::Every, 6);
    assert_eq!((of_one, of_two), (Some(1), Some(5)), "saying it again changes nothing");
    let (named, of_one, of_two) = say(&ties, Membership::Only(vec![one, two]), 7);
    assert_eq!((of_one, of_two), (Some(1), Some(5)), "nobody joins by being named");
    let mut both = ties.clone();
    both.extend(named);
    let (left, of_one, _) = say(&both, Membership::Only(vec![two]), 8);
    assert_eq!(of_one, None);
    both.retain(|tie| tie.brand_id == two);
    both.extend(left);
    let (_, of_one, of_two) = say(&both, Membership::Join(one), 9);
    assert_eq!((of_one, of_two), (Some(9), Some(5)), "who comes back joins anew");
}

proptest! {
    #[test]
    fn what_is_said_twice_changes_nothing_the_second_time(
        name in proptest::option::of(proptest::option::of("[a-z]{0,5}")),
        tags in proptest::option::of(proptest::collection::vec("[a-c]", 0..4)),
        keys in proptest::collection::btree_map("[a-c]", proptest::option::of(0..3), 0..4),
    ) {
        let mut said = Upsert::new(ann());
        said.name = name;
        said.tags = tags;
        said.attributes = keys.into_iter().map(|(key, value)| (key, json!(value))).collect::<Map<_, _>>();
        let mut person = member(json!(["a"]), None, false, json!({ "a": 1, "z": 2 })).recipient;
        lay_over(&mut person, &said);
        let once = person.clone();
        prop_assert!(!lay_over(&mut person, &said));
        prop_assert_eq!(&person, &once);
        prop_assert_eq!(&person.attributes["z"], &json!(2));
        prop_assert!(person.attributes.as_object().unwrap().values().all(|value| !value.is_null()));
        prop_assert_eq!(person.standing, Standing::Active);
    }
}
