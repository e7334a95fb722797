use proptest::prelude::*;

use super::*;
use crate::clock::{Deadline, Instant};

const CUSTOMER: Facts = Facts {
    standing: Standing::Active,
    health: Health::Alive,
    customer: true,
    customers_keep: true,
    consent_required: false,
    all: None,
    brand: None,
    topic: None,
};

fn no(seq: i64) -> Option<Stand> {
    Some(Stand { said: Said::OptOut, seq, complaint: false })
}

fn yes(seq: i64) -> Option<Stand> {
    Some(Stand { said: Said::OptIn, seq, complaint: false })
}

fn complaint(seq: i64) -> Option<Stand> {
    Some(Stand { said: Said::OptOut, seq, complaint: true })
}

fn stopped(class: Class, facts: Facts) -> bool {
    !objections(class, &facts).is_empty()
}

/// One row a fact, one column a class in the order of `Class::ALL`; `x` is not sent.
fn table() -> Vec<(&'static str, Facts, &'static str)> {
    let plain = Facts::default();
    let standing = |standing| Facts { standing, ..plain };
    let consent = Facts { consent_required: true, ..plain };
    vec![
        //                                                                                           rsnlmm
        ("nothing", plain, "......"),
        ("restricted", standing(Standing::Restricted), "...xxx"),
        ("deactivated", standing(Standing::Deactivated), ".xxxxx"),
        ("contact ban", standing(Standing::ContactBan), ".x.xxx"),
        ("erased", standing(Standing::Erased), "xxxxxx"),
        ("one failure", Facts { health: Health::DeadForRefusable, ..plain }, "...xxx"),
        ("dead", Facts { health: Health::Dead, ..plain }, "xxxxxx"),
        ("no to the topic", Facts { topic: no(1), ..plain }, "...xxx"),
        ("no to the brand", Facts { brand: no(1), ..plain }, "...xxx"),
        ("no to all", Facts { all: no(1), ..plain }, "...xxx"),
        ("yes to the topic", Facts { topic: yes(1), ..plain }, "......"),
        ("no, then yes to the topic", Facts { brand: no(1), topic: yes(2), ..plain }, "......"),
        ("yes to the topic, then no", Facts { brand: no(2), topic: yes(1), ..plain }, "...xxx"),
        ("no to the topic, then yes to all", Facts { topic: no(1), all: yes(2), ..plain }, "......"),
        ("yes to all, then no to the topic", Facts { topic: no(2), all: yes(1), ..plain }, "...xxx"),
        (
            "no to all, yes to the brand, no to the topic",
            Facts { all: no(1), brand: yes(2), topic: no(3), ..plain },
            "...xxx",
        ),
        ("complaint", Facts { brand: complaint(1), ..plain }, "...xxx"),
        ("complaint, then yes", Facts { brand: complaint(1), topic: yes(2), ..plain }, "......"),
        ("a customer's no to the brand", Facts { brand: no(1), ..CUSTOMER }, "....xx"),
        ("a customer's no to all", Facts { all: no(1), ..CUSTOMER }, "....xx"),
        ("a customer's no to the topic", Facts { topic: no(1), ..CUSTOMER }, "...xxx"),
        ("a customer's complaint", Facts { brand: complaint(1), ..CUSTOMER }, "...xxx"),
        ("a customer, restricted", Facts { standing: Standing::Restricted, ..CUSTOMER }, "...xxx"),
        (
            "a customer, topic keeps nobody",
            Facts { brand: no(1), customers_keep: false, ..CUSTOMER },
            "...xxx",
        ),
        ("no customer, topic keeps them", Facts { brand: no(1), customer: false, ..CUSTOMER }, "...xxx"),
        ("no consent", consent, ".....x"),
        ("consent to the topic", Facts { topic: yes(1), ..consent }, "......"),
        ("consent to the brand", Facts { brand: yes(1), ..consent }, "......"),
        ("consent, then no", Facts { topic: yes(1), all: no(2), ..consent }, "...xxx"),
    ]
}

#[test]
fn every_cell_of_the_table_is_as_written() {
    for (what, facts, row) in table() {
        let found: String =
            Class::ALL.into_iter().map(|class| if stopped(class, facts) { 'x' } else { '.' }).collect();
        assert_eq!(found, row, "{what}");
    }
}

#[test]
fn every_reason_and_every_ground_has_its_case() {
    let reasons = |class, facts: Facts| objections(class, &facts);
    let plain = Facts::default();
    assert_eq!(
        reasons(Class::Marketing, Facts { all: no(1), brand: no(2), topic: no(3), ..plain }),
        [Reason::OptedOutOfTopic, Reason::OptedOutOfBrand, Reason::OptedOutOfAll]
    );
    assert_eq!(
        reasons(Class::Reminder, Facts { brand: complaint(1), ..plain }),
        [Reason::Complaint, Reason::OptedOutOfBrand]
    );
    assert_eq!(reasons(Class::Marketing, Facts { consent_required: true, ..plain }), [Reason::NoConsent]);
    let gone = Facts { standing: Standing::Erased, health: Health::Dead, ..plain };
    assert_eq!(reasons(Class::Requested, gone), [Reason::Erased, Reason::AddressDead]);
    assert_eq!(ground(Class::Service, &Facts { all: no(1), ..plain }), Ground::CannotBeRefused);
    assert_eq!(ground(Class::Marketing, &plain), Ground::NoObjection);
    assert_eq!(ground(Class::Marketing, &Facts { topic: yes(1), ..plain }), Ground::OptedIn);
    assert_eq!(ground(Class::Relationship, &Facts { all: no(1), ..CUSTOMER }), Ground::CustomerKeeps);
}

#[test]
fn a_clearance_names_its_delivery_and_lapses_with_its_lease() {
    let soon = Instant::now().plus(Duration::from_secs(60));
    let open = Lease {
        delivery: DeliveryId::new(),
        token: LeaseToken::new(),
        until: Deadline::at(soon),
        asked: Instant::now(),
    };
    let clearance = decide(Class::Marketing, &Facts::default(), open.clone()).unwrap();
    assert_eq!((clearance.delivery(), clearance.token()), (open.delivery, open.token));
    assert!(clearance.is_valid());
    open.until.move_to(Instant::now());
    assert!(!clearance.is_valid());
    let refused = decide(Class::Marketing, &Facts { all: no(1), ..Facts::default() }, open);
    assert_eq!(refused.unwrap_err(), Reason::OptedOutOfAll);
}

/// The table of the design once more, said another way.
fn by_the_book(class: Class, facts: &Facts) -> bool {
    let is = |standing: &[Standing]| standing.contains(&facts.standing);
    let words: Vec<Stand> = [facts.all, facts.brand, facts.topic].into_iter().flatten().collect();
    let newest = |words: &[Stand]| words.iter().max_by_key(|word| word.seq).copied();
    let says_no = |word: Option<Stand>| word.is_some_and(|word| word.said == Said::OptOut);
    let last_yes = words.iter().filter(|word| word.said == Said::OptIn).map(|word| word.seq).max();
    let after_yes = |word: &Stand| last_yes.is_none_or(|yes| word.seq > yes);
    let dead = match class {
        Class::Requested | Class::Service | Class::Notice => facts.health == Health::Dead,
        _ => facts.health != Health::Alive,
    };
    let as_service = is(&[Standing::Deactivated, Standing::Erased, Standing::ContactBan]) || dead;
    let restricted = is(&[Standing::Restricted]);
    let complained = words.iter().any(|word| word.said == Said::OptOut && word.complaint && after_yes(word));
    let reminder = as_service || restricted || complained || says_no(newest(&words));
    match class {
        Class::Requested => is(&[Standing::Erased]) || dead,
        Class::Service => as_service,
        Class::Notice => is(&[Standing::Deactivated, Standing::Erased]) || dead,
        Class::Relationship if facts.customers_keep && facts.customer => {
            let very_topic = facts.topic.is_some_and(|word| word.said == Said::OptOut && after_yes(&word));
            as_service || restricted || complained || very_topic
        }
        Class::Relationship | Class::Reminder => reminder,
        Class::Marketing => {
            let consented = newest(&words).is_some_and(|word| word.said == Said::OptIn);
            reminder || (facts.consent_required && !consented)
        }
    }
}

prop_compose! {
    fn any_facts()(
        standing in proptest::sample::select(&Standing::ALL[..]),
        health in proptest::sample::select(&[Health::Alive, Health::DeadForRefusable, Health::Dead][..]),
        customer in any::<bool>(),
        customers_keep in any::<bool>(),
        consent_required in any::<bool>(),
        words in proptest::array::uniform3(proptest::option::of((any::<bool>(), any::<bool>()))),
        order in Just([1_i64, 2, 3]).prop_shuffle(),
    ) -> Facts {
        let word = |n: usize| words[n].map(|(out, complaint)| Stand {
            said: if out { Said::OptOut } else { Said::OptIn },
            seq: order[n],
            complaint: out && complaint,
        });
        Facts {
            standing, health, customer, customers_keep, consent_required,
            all: word(0), brand: word(1), topic: word(2),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(4000), ..ProptestConfig::default() })]

    #[test]
    fn the_decision_is_the_one_in_the_book(facts in any_facts()) {
        for class in Class::ALL {
            prop_assert_eq!(stopped(class, facts), by_the_book(class, &facts), "{} {:?}", class, facts);
        }
    }

    #[test]
    fn the_service_side_never_consults_opt_outs(facts in any_facts()) {
        let silent = Facts { all: None, brand: None, topic: None, consent_required: false, ..facts };
        for class in Class::ALL.into_iter().filter(|class| !class.can_be_refused()) {
            prop_assert_eq!(objections(class, &facts), objections(class, &silent));
        }
    }

    #[test]
    fn a_refusal_of_the_topic_always_wins_until_a_later_yes(facts in any_facts()) {
        let refused = Facts { topic: no(9), ..facts };
        let taken_back = Facts { topic: yes(9), ..facts };
        for class in Class::ALL.into_iter().filter(|class| class.can_be_refused()) {
            prop_assert!(stopped(class, refused));
            let only_facts = Facts { all: None, brand: None, topic: yes(9), ..facts };
            prop_assert_eq!(stopped(class, taken_back), stopped(class, only_facts));
        }
    }

    #[test]
    fn one_more_refusal_never_lets_anything_through(facts in any_facts(), scope in 0..3) {
        let mut worse = facts;
        match scope {
            0 => worse.all = no(9),
            1 => worse.brand = no(9),
            _ => worse.topic = no(9),
        }
        for class in Class::ALL {
            // A standing complaint is never replaced by a plain refusal: whoever records it sees to that.
            prop_assert!(facts.complained() || !stopped(class, facts) || stopped(class, worse));
        }
    }

    #[test]
    fn what_is_sent_has_a_ground_that_fits(facts in any_facts()) {
        for class in Class::ALL.into_iter().filter(|class| !stopped(*class, facts)) {
            match ground(class, &facts) {
                Ground::CannotBeRefused => prop_assert!(!class.can_be_refused()),
                Ground::NoObjection => prop_assert!(facts.newest().is_none()),
                Ground::OptedIn => prop_assert_eq!(facts.newest(), Some(Said::OptIn)),
                Ground::CustomerKeeps => {
                    prop_assert!(class == Class::Relationship && facts.customer && facts.customers_keep);
                }
            }
        }
    }
}

#[test]
fn words_are_read_as_they_are_written() {
    for class in Class::ALL {
        assert_eq!(class.as_str().parse::<Class>().unwrap(), class);
        assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
    }
    for standing in Standing::ALL {
        assert_eq!(standing.as_str().parse::<Standing>().unwrap(), standing);
        assert_eq!(serde_json::to_value(standing).unwrap(), standing.as_str());
    }
    assert!("promo".parse::<Class>().unwrap_err().to_string().contains("marketing"));
    assert!("banned".parse::<Standing>().is_err());
}
