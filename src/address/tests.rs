use proptest::prelude::*;

use super::*;

fn folded(text: &str) -> String {
    EmailAddress::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}")).folded()
}

#[test]
fn addresses_that_mail_can_be_sent_to() {
    let long_local = "l".repeat(64);
    let table = [
        ("ann@example.org", "ann@example.org"),
        ("Ann@Example.ORG", "ann@example.org"),
        (" ann@example.org\t", "ann@example.org"),
        ("ann.o.smith@example.org", "ann.o.smith@example.org"),
        ("ann+news@example.org", "ann+news@example.org"),
        ("a@example.org", "a@example.org"),
        ("1234567890@example.org", "1234567890@example.org"),
        ("_______@example.org", "_______@example.org"),
        ("ann-smith@example-one.org", "ann-smith@example-one.org"),
        ("!#$%&'*+-/=?^_`{|}~@example.org", "!#$%&'*+-/=?^_`{|}~@example.org"),
        ("o'brien@example.ie", "o'brien@example.ie"),
        ("ann@mail.eu.example.co.uk", "ann@mail.eu.example.co.uk"),
        ("ann@1.example.org", "ann@1.example.org"),
        ("ann@123.example", "ann@123.example"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@BÜCHER.example", "ann@xn--bcher-kva.example"),
        ("ann@bu\u{308}cher.example", "ann@xn--bcher-kva.example"),
        ("ann@straße.example", "ann@xn--strae-oqa.example"),
        ("ann@例え.テスト", "ann@xn--r8jz45g.xn--zckzah"),
        ("ann@例え。テスト", "ann@xn--r8jz45g.xn--zckzah"),
        ("ann@ｅｘａｍｐｌｅ.org", "ann@example.org"),
        ("josé@example.org", "josé@example.org"),
        ("JOSE\u{301}@example.org", "josé@example.org"),
        ("Ärzte@example.org", "ärzte@example.org"),
        ("用户@example.org", "用户@example.org"),
        ("Ω@example.org", "ω@example.org"),
    ];
    for (text, expected) in table {
        assert_eq!(folded(text), expected, "{text:?}");
    }
    assert!(EmailAddress::parse(&format!("{long_local}@example.org")).is_ok());
}

#[test]
fn texts_that_are_no_address_and_why() {
    use AddressError::{Control, Domain, Empty, Form, Local, Long, LongLocal, Space};
    let label = "d".repeat(63);
    let table = [
        ("", Empty),
        ("  \t", Empty),
        ("ann", Form),
        ("example.org", Form),
        ("@example.org", Form),
        ("ann@", Form),
        ("@", Form),
        ("ann@example.org\n", Control),
        ("ann\r\nBcc: eve@example.org", Control),
        ("ann\0@example.org", Control),
        ("ann@exam\u{7f}ple.org", Control),
        ("ann@example.org\u{85}", Control),
        ("ann smith@example.org", Space),
        ("ann@exam ple.org", Space),
        ("ann@example.org,eve@example.org", Local),
        ("ann@example.org eve@example.org", Space),
        ("ann\u{a0}@example.org", Space),
        ("ann\u{200b}@example.org", Space),
        ("ann@exam\u{ad}ple.org", Space),
        ("\u{feff}ann@example.org", Space),
        ("\u{202e}ann@example.org", Space),
        ("ann@@example.org", Local),
        ("ann@eve@example.org", Local),
        (".ann@example.org", Local),
        ("ann.@example.org", Local),
        ("ann..smith@example.org", Local),
        ("\"ann smith\"@example.org", Space),
        ("\"ann\"@example.org", Local),
        ("ann(comment)@example.org", Local),
        ("<ann@example.org>", Local),
        ("a\\b@example.org", Local),
        ("ann;eve@example.org", Local),
        ("mailto:ann@example.org", Local),
        ("=?utf-8?q?ann?=@example.org", Local),
        ("ann@localhost", Domain),
        ("ann@example", Domain),
        ("ann@example.org.", Domain),
        ("ann@.example.org", Domain),
        ("ann@example..org", Domain),
        ("ann@-example.org", Domain),
        ("ann@example-.org", Domain),
        ("ann@exa_mple.org", Domain),
        ("ann@[192.0.2.1]", Domain),
        ("ann@[IPv6:2001:db8::1]", Domain),
        ("ann@192.0.2.1", Domain),
        ("ann@example.123", Domain),
        ("ann@example.org>", Domain),
        ("ann@exam%70le.org", Domain),
        ("ann@example.org:25", Domain),
        ("ann@xn--.example", Domain),
        ("ann@xn--zzzzzz--.example", Domain),
        ("ann@\u{301}a.example", Domain),
    ];
    for (text, expected) in table {
        let error = EmailAddress::parse(text).err();
        assert_eq!(error, Some(expected), "{text:?}");
        if text.len() > 2 {
            assert!(!expected.to_string().contains(text), "an error repeats no address");
        }
    }
    let parse = |text: String| EmailAddress::parse(&text).err();
    assert_eq!(parse(format!("{}@example.org", "l".repeat(65))), Some(LongLocal));
    assert_eq!(parse(format!("{}@example.org", "é".repeat(33))), Some(LongLocal));
    // U+023A takes two octets, and three in lower case.
    assert_eq!(parse(format!("{}@example.org", "Ⱥ".repeat(32))), Some(LongLocal));
    assert_eq!(parse(format!("{}@example.org", "Ⱥ".repeat(21))), None);
    assert_eq!(parse(format!("ann@{label}d.example")), Some(Domain));
    let domain = format!("{label}.{label}.{label}.example");
    assert_eq!(domain.len(), 199);
    assert_eq!(parse(format!("{}@{domain}", "l".repeat(55))), Some(Long));
    assert!(parse(format!("{}@{domain}", "l".repeat(54))).is_none());
}

#[test]
fn an_address_is_mailed_as_spelt_and_goes_out_in_ascii_where_it_can() {
    let address = EmailAddress::parse("Ann.O@BÜCHER.example").unwrap();
    assert_eq!(address.as_str(), "Ann.O@BÜCHER.example");
    assert_eq!((address.local(), address.domain()), ("Ann.O", "xn--bcher-kva.example"));
    assert_eq!(address.to_wire(), "Ann.O@xn--bcher-kva.example");
}

#[test]
fn a_masked_address_is_known_by_its_owner_alone() {
    assert_eq!(mask("ann.smith@example.com"), "a…h@e….com");
    assert_eq!(mask("ann@example.com"), "a…@e….com");
    assert_eq!(mask("a@example.co.uk"), "a…@e….uk");
    assert_eq!(mask("no address"), "…");
    assert_eq!(mask(""), "…");
    assert_eq!(mask("@"), "…@…");
    assert_eq!(format!("{:?}", EmailAddress::parse("ann.smith@example.com").unwrap()), "a…h@e….com");
}

#[test]
fn the_hash_depends_on_the_key_and_the_folded_form_alone() {
    let (key, other) = (AddressKey::new(vec![1; 32]).unwrap(), AddressKey::new(vec![2; 32]).unwrap());
    let hash = |key: &AddressKey, text: &str| key.hash(&EmailAddress::parse(text).unwrap());
    assert_eq!(hash(&key, "u@BÜCHER.example"), hash(&key, "U@xn--bcher-kva.EXAMPLE"));
    assert_ne!(hash(&key, "u@example.org"), hash(&other, "u@example.org"));
    assert_ne!(hash(&key, "u@example.org"), hash(&key, "v@example.org"));
    assert_ne!(key.check_value(), other.check_value());
    assert_ne!(key.check_value(), hash(&key, "u@example.org").0);
    let text = hash(&key, "u@example.org").to_text();
    assert_eq!(AddressHash::from_text(&text), Some(hash(&key, "u@example.org")));
    assert_eq!(AddressHash::from_text(&text[1..]), None);
    assert_eq!(AddressHash::from_text("ann@example.org"), None);
    assert!(AddressKey::new(vec![1; 31]).is_none());
    assert_eq!(format!("{key:?}"), "AddressKey(…)");
    assert_ne!(AddressKey::generate().bytes(), AddressKey::generate().bytes());
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_without_a_panic(text in "\\PC{0,80}|.{0,40}@.{0,40}") {
        let _ = mask(&text);
        if let Ok(address) = EmailAddress::parse(&text) {
            prop_assert!(!address.as_str().chars().any(|c| c.is_control() || c.is_whitespace()));
            prop_assert!(address.domain().is_ascii() && address.domain().contains('.'));
            prop_assert!(address.to_wire().len() <= 254);
        }
    }

    #[test]
    fn folding_what_is_folded_changes_nothing(local in "[a-zA-ZäÖßéÅΣσςİıǅﬁ.+]{1,20}", domain in "[a-zäöß]{1,10}\\.[a-z]{2,6}") {
        if let Ok(address) = EmailAddress::parse(&format!("{local}@{domain}")) {
            let once = address.folded();
            prop_assert_eq!(EmailAddress::parse(&once).map(|again| again.folded()), Ok(once));
        }
    }

    #[test]
    fn whatever_is_an_address_is_known_by_one_form_and_hash_however_it_is_written_again(
        local in "[^\\p{Z}\\p{C}@\"(),:;<>\\[\\]\\\\]{1,30}",
        domain in "[^\\p{Z}\\p{C}@]{1,20}\\.(example|例え|xn--p1ai|рф)",
    ) {
        let key = AddressKey::new(vec![3; 32]).unwrap();
        if let Ok(address) = EmailAddress::parse(&format!("{local}@{domain}")) {
            for other in [address.as_str().to_owned(), address.to_wire(), address.folded(), format!("{local}@{}", address.domain())] {
                let again = EmailAddress::parse(&other);
                prop_assert!(again.is_ok(), "{other:?} {again:?}");
                let again = again.unwrap();
                prop_assert_eq!(again.folded(), address.folded());
                prop_assert_eq!(key.hash(&again), key.hash(&address));
            }
            let wire = address.to_wire();
            prop_assert!(!wire.contains(|c: char| c.is_control() || c.is_whitespace() || "<>\"(),:;".contains(c)), "{wire:?}");
        }
    }

    #[test]
    fn case_and_composition_make_no_difference(local in "[a-zäöüéàñ]{1,12}", domain in "[a-zäöü]{1,10}\\.[a-z]{2,6}") {
        use unicode_normalization::UnicodeNormalization;
        let plain = format!("{local}@{domain}");
        if let Ok(address) = EmailAddress::parse(&plain) {
            for other in [plain.to_uppercase(), plain.nfd().collect(), plain.to_uppercase().nfd().collect()] {
                prop_assert_eq!(EmailAddress::parse(&other).map(|other| other.folded()), Ok(address.folded()));
            }
        }
    }

    #[test]
    fn a_mask_shows_two_letters_of_the_name_at_most(local in "[a-z]{2,20}", domain in "[a-z]{2,10}") {
        let masked = mask(&format!("{local}@{domain}.example"));
        let shown = masked.split('@').next().unwrap().replace('…', "");
        prop_assert!(shown.len() <= 2 && (shown.len() < local.len()));
        // The top-level domain is shown, and may hold the same letters.
        prop_assert!(!masked.trim_end_matches("example").contains(&domain));
    }
}
