use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::address::AddressHash;
use crate::clock::Timestamp;
use crate::id::{BrandId, DeliveryId, RecipientId, TopicId};

fn ring(ids: &[&str]) -> KeyRing {
    let pair = |id: &&str| format!("{id}:{}", STANDARD.encode(format!("{id:-<32}")));
    KeyRing::parse(&ids.iter().map(pair).collect::<Vec<_>>().join(",")).unwrap()
}

fn link(purpose: Purpose) -> Link {
    Link {
        purpose,
        address_hash: AddressHash((0..32).collect()),
        recipient: RecipientId(Uuid::from_u128(1)),
        brand: BrandId(Uuid::from_u128(2)),
        topic: TopicId(Uuid::from_u128(3)),
        delivery: DeliveryId(Uuid::from_u128(4)),
        made_at: Timestamp(1_763_777_777_000_001),
    }
}

fn read(token: &str, ring: &KeyRing) -> Result<Link, LinkError> {
    Link::from_token(token, Purpose::Unsubscribe, ring)
}

#[test]
fn a_token_says_what_it_was_given() {
    let ring = ring(&["a"]);
    for purpose in [Purpose::Unsubscribe, Purpose::Preferences] {
        let token = link(purpose).to_token(&ring);
        assert_eq!(Link::from_token(&token, purpose, &ring), Ok(link(purpose)));
        assert!(token.len() < 230, "{}", token.len());
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    }
}

#[test]
fn a_token_of_one_purpose_is_worth_nothing_for_another() {
    let ring = ring(&["a"]);
    let token = link(Purpose::Preferences).to_token(&ring);
    assert_eq!(read(&token, &ring), Err(LinkError));
    let token = link(Purpose::Unsubscribe).to_token(&ring);
    assert_eq!(Link::from_token(&token, Purpose::Preferences, &ring), Err(LinkError));
}

#[test]
fn every_character_counts() {
    let ring = ring(&["a"]);
    let token = link(Purpose::Unsubscribe).to_token(&ring);
    for at in 0..token.len() {
        for other in "AQgw05_-".chars().filter(|&c| !token[at..].starts_with(c)) {
            let flipped = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            assert_eq!(read(&flipped, &ring), Err(LinkError), "character {at} as {other}");
        }
        assert_eq!(read(&token[..at], &ring), Err(LinkError), "cut to {at}");
        assert_eq!(read(&token[at + 1..], &ring), Err(LinkError), "beheaded by {}", at + 1);
        let without = format!("{}{}", &token[..at], &token[at + 1..]);
        assert_eq!(read(&without, &ring), Err(LinkError), "without character {at}");
        let doubled = format!("{}{}", &token[..=at], &token[at..]);
        assert_eq!(read(&doubled, &ring), Err(LinkError), "character {at} twice");
    }
    for more in ["A", "AA", "AAA", "AAAA", &token] {
        assert_eq!(read(&format!("{token}{more}"), &ring), Err(LinkError));
        assert_eq!(read(&format!("{more}{token}"), &ring), Err(LinkError));
    }
    assert_eq!(read(&token.to_uppercase(), &ring), Err(LinkError));
}

#[test]
fn parts_of_two_tokens_make_no_third() {
    let ring = ring(&["a"]);
    let mine = link(Purpose::Unsubscribe).to_token(&ring);
    let mut other = link(Purpose::Unsubscribe);
    other.address_hash = AddressHash(vec![9; 32]);
    other.recipient = RecipientId(Uuid::from_u128(77));
    let theirs = other.to_token(&ring);
    for at in 1..mine.len() {
        let spliced = format!("{}{}", &mine[..at], &theirs[at..]);
        if spliced != mine && spliced != theirs {
            assert_eq!(read(&spliced, &ring), Err(LinkError), "spliced at {at}");
        }
    }
}

#[test]
fn other_spellings_of_the_same_octets_are_refused() {
    // 147 octets need no padding; with a key id of two characters there are 141, with three 142: both kinds are tried.
    for id in ["a", "ab", "abc"] {
        let ring = ring(&[id]);
        let token = link(Purpose::Unsubscribe).to_token(&ring);
        let octets = URL_SAFE_NO_PAD.decode(&token).unwrap();
        let standard = STANDARD.encode(&octets);
        if standard.trim_end_matches('=') != token {
            assert_eq!(read(&standard, &ring), Err(LinkError), "the other alphabet");
        }
        // The unused bits of the last character.
        if !octets.len().is_multiple_of(3) {
            let last = token.chars().last().unwrap();
            let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let at = alphabet.find(last).unwrap();
            let next = alphabet.chars().nth(at + 1).unwrap();
            assert_eq!(read(&format!("{}{next}", &token[..token.len() - 1]), &ring), Err(LinkError));
        }
        assert!(read(&format!("{token}=="), &ring).is_ok(), "padding is forgiven");
    }
}

#[test]
fn what_mail_programs_hang_on_is_forgiven() {
    let ring = ring(&["a"]);
    let token = link(Purpose::Unsubscribe).to_token(&ring);
    for junk in [
        ">",
        ".",
        "%3D",
        "%3d",
        "=",
        ">.",
        ".>",
        "%3E",
        "%3e.",
        ")",
        "],",
        "\"",
        "'",
        " ",
        ".%3D>",
        "\r\n",
        "=3D",
        "%",
        "/",
        "?x=1",
        "&amp;utm=x",
        "=3D&x",
    ] {
        assert!(read(&format!("{token}{junk}"), &ring).is_ok(), "{junk:?}");
    }
    assert!(read(&format!(" {token}"), &ring).is_ok());
    let (head, tail) = token.split_at(70);
    for broken in ["=\r\n", "=\n", "\n", " ", "\u{200b}", "="] {
        assert!(read(&format!("{head}{broken}{tail}"), &ring).is_ok(), "{broken:?}");
    }
    assert_eq!(read(&format!("{head}>{tail}"), &ring), Err(LinkError));
    for junk in ["x", "A=", "-", "_>"] {
        assert_eq!(read(&format!("{token}{junk}"), &ring), Err(LinkError), "{junk:?}");
    }
}

#[test]
fn three_rotations_change_nothing_for_a_link() {
    let token = link(Purpose::Unsubscribe).to_token(&ring(&["a"]));
    for ids in [&["b", "a"][..], &["c", "b", "a"], &["d", "c", "b", "a"]] {
        let ring = ring(ids);
        assert_eq!(read(&token, &ring), Ok(link(Purpose::Unsubscribe)), "{ids:?}");
        assert_eq!(read(&link(Purpose::Unsubscribe).to_token(&ring), &ring), Ok(link(Purpose::Unsubscribe)));
    }
    assert_eq!(read(&token, &ring(&["b"])), Err(LinkError), "a key that was taken out verifies nothing");
    // Another secret under the same id.
    let other = KeyRing::parse(&format!("a:{}", STANDARD.encode([7; 32]))).unwrap();
    assert_eq!(read(&token, &other), Err(LinkError));
}

#[test]
fn a_token_names_nobody() {
    let hash = crate::address::AddressKey::generate()
        .hash(&crate::address::EmailAddress::parse("ann@example.org").unwrap());
    let token = Link { address_hash: hash, ..link(Purpose::Unsubscribe) }.to_token(&ring(&["a"]));
    let octets = URL_SAFE_NO_PAD.decode(&token).unwrap();
    for part in [&b"ann"[..], b"example", b"@"] {
        assert!(part.len() == 1 || !octets.windows(part.len()).any(|window| window == part));
        assert!(!token.as_bytes().windows(part.len()).any(|window| part.len() > 3 && window == part));
    }
}

#[test]
fn a_ring_that_cannot_be_used_says_which_key_and_never_shows_it() {
    let good = STANDARD.encode([1; 32]);
    let short = STANDARD.encode([1; 31]);
    assert_eq!(KeyRing::parse(" , \n").unwrap_err(), KeyRingError::Empty);
    assert_eq!(KeyRing::parse("nocolon").unwrap_err(), KeyRingError::Form(1));
    assert_eq!(KeyRing::parse(&format!("a:{good},b:!!!")).unwrap_err(), KeyRingError::Form(2));
    assert_eq!(KeyRing::parse(&format!("A:{good}")).unwrap_err(), KeyRingError::Id(1));
    assert_eq!(KeyRing::parse(&format!(":{good}")).unwrap_err(), KeyRingError::Id(1));
    assert_eq!(KeyRing::parse(&format!("{}:{good}", "a".repeat(17))).unwrap_err(), KeyRingError::Id(1));
    assert_eq!(KeyRing::parse(&format!("a:{short}")).unwrap_err(), KeyRingError::Short("a".into()));
    assert_eq!(KeyRing::parse(&format!("a:{good},a:{good}")).unwrap_err(), KeyRingError::Twice("a".into()));
    let made = KeyRing::new_key();
    assert!(KeyRing::parse(&format!("{made}\n{}", KeyRing::new_key())).is_ok());
    let secret = made.split_once(':').unwrap().1;
    assert!(!format!("{:?}", KeyRing::parse(&made).unwrap()).contains(secret));
    let error = KeyRing::parse(&format!("{made},{made}")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(secret));
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic_and_refused(text in ".{0,300}") {
        prop_assert_eq!(read(&text, &ring(&["a"])), Err(LinkError));
    }

    #[test]
    fn any_octets_are_read_without_a_panic_and_refused(
        octets in proptest::collection::vec(any::<u8>(), 0..300),
        id_len in any::<u8>(),
    ) {
        // The head of a token of ours, then anything.
        let mut whole = vec![1, b'u', id_len];
        whole.extend(octets);
        prop_assert_eq!(read(&URL_SAFE_NO_PAD.encode(whole), &ring(&["a"])), Err(LinkError));
    }

    #[test]
    fn a_token_that_was_changed_anyhow_never_verifies(
        at in any::<prop::sample::Index>(),
        with in "[A-Za-z0-9_-]{0,8}",
        cut in 0..8_usize,
    ) {
        let ring = ring(&["a", "b"]);
        let token = link(Purpose::Unsubscribe).to_token(&ring);
        let at = at.index(token.len());
        let end = (at + cut).min(token.len());
        let changed = format!("{}{with}{}", &token[..at], &token[end..]);
        prop_assume!(changed != token);
        prop_assert_eq!(read(&changed, &ring), Err(LinkError));
    }

    #[test]
    fn octets_of_a_token_that_were_changed_never_verify(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let ring = ring(&["a"]);
        let octets = URL_SAFE_NO_PAD.decode(link(Purpose::Unsubscribe).to_token(&ring)).unwrap();
        let mut changed = octets.clone();
        for (at, to) in changes {
            let at = at.index(changed.len());
            changed[at] = to;
        }
        prop_assume!(changed != octets);
        prop_assert_eq!(read(&URL_SAFE_NO_PAD.encode(changed), &ring), Err(LinkError));
    }

    #[test]
    fn an_envelope_sender_names_its_delivery_in_any_case_and_nothing_else_names_one(
        id in any::<u128>(),
        at in any::<prop::sample::Index>(),
        with in "[a-z0-9+.]{0,3}",
        upper in any::<bool>(),
        text in ".{0,80}|b\\+[0-9a-f]{32}\\.[0-9a-f]{20}",
    ) {
        let ring = ring(&["a", "b"]);
        let delivery = DeliveryId(Uuid::from_u128(id));
        let local = envelope_local(delivery, &ring);
        prop_assert!(local.len() <= 64 && local.is_ascii());
        let seen = if upper { local.to_uppercase() } else { local.clone() };
        prop_assert_eq!(delivery_of_envelope(&seen, &ring), Some(delivery));
        prop_assert_eq!(delivery_of_envelope(&text, &ring), None);
        let at = at.index(local.len());
        let changed = format!("{}{with}{}", &local[..at], &local[at + 1..]);
        prop_assume!(changed != local);
        prop_assert_eq!(delivery_of_envelope(&changed, &ring), None);
    }

    #[test]
    fn any_text_is_read_as_a_ring_or_refused_without_a_panic(text in ".{0,80}|([a-z]{0,17}:[A-Za-z0-9+/=]{0,60}[, \n]?){0,4}") {
        if let Err(error) = KeyRing::parse(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_link_is_read_back_by_any_ring_that_holds_its_key(
        hash in proptest::array::uniform32(any::<u8>()),
        ids in proptest::array::uniform4(any::<u128>()),
        made_at in any::<i64>(),
        place in 0..3_usize,
    ) {
        let made = Link {
            purpose: Purpose::Unsubscribe,
            address_hash: AddressHash(hash.to_vec()),
            recipient: RecipientId(Uuid::from_u128(ids[0])),
            brand: BrandId(Uuid::from_u128(ids[1])),
            topic: TopicId(Uuid::from_u128(ids[2])),
            delivery: DeliveryId(Uuid::from_u128(ids[3])),
            made_at: Timestamp(made_at),
        };
        let token = made.to_token(&ring(&["old"]));
        let mut keys = vec!["k1", "k2"];
        keys.insert(place, "old");
        prop_assert_eq!(read(&token, &ring(&keys)), Ok(made));
    }
}
