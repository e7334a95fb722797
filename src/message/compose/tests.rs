use std::collections::{BTreeMap, BTreeSet};

use mail_parser::{HeaderName, MessageParser, MimeHeaders};
use proptest::prelude::*;
use serde_json::json;
use unicode_normalization::UnicodeNormalization;

use super::*;
use crate::brand::{Brand, Topic};
use crate::decision::Class;
use crate::id::{BrandId, ContentId, TopicId};
use crate::link::{Link, Purpose, delivery_of_envelope};
use crate::message::{Frozen, Partial, text_part};

mod reference;
mod same;
mod signed;

const POSTAL: &str = "Acme GmbH\nHauptstraße 1\n12345 Berlin";

struct World {
    brand: Brand,
    topic: Topic,
    base_url: Url,
    keys: KeyRing,
    dkim: DkimKeys,
    date: Timestamp,
    address: EmailAddress,
    hash: AddressHash,
    recipient: RecipientId,
    delivery: DeliveryId,
    attributes: Json,
}

fn world(class: Class) -> World {
    let at = Timestamp(1_800_000_000_000_000);
    let brand_id = BrandId::new();
    let brand = Brand {
        id: brand_id,
        slug: "acme".into(),
        name: "Acme & Söhne".into(),
        from_mailbox: "Acme <news@bücher.example>".into(),
        notice_from: Some("Acme Notices <notices@acme.example>".into()),
        reply_to: Some("help@acme.example".into()),
        postal_address: POSTAL.into(),
        phone: None,
        website: Some("https://acme.example".into()),
        base_url: None,
        bounce_domain: Some("bounce.acme.example".into()),
        color: Some("#aa0000".into()),
        logo: None,
        origins: json!([]),
        one_click_scope: "all".into(),
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    let topic = Topic {
        id: TopicId::new(),
        brand_id,
        slug: "offers".into(),
        name: "Angebote für alle".into(),
        class,
        description: None,
        consent: "opt_out".into(),
        customers_keep: false,
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    World {
        brand,
        topic,
        base_url: Url::parse("https://mail.acme.example/").unwrap(),
        keys: KeyRing::parse(&KeyRing::new_key()).unwrap(),
        dkim: DkimKeys::default(),
        date: at,
        address: EmailAddress::parse("Zoë.Q@BÜCHER.example".replace('ë', "e").as_str()).unwrap(),
        hash: AddressHash(vec![7; AddressHash::LEN]),
        recipient: RecipientId::new(),
        delivery: DeliveryId::new(),
        attributes: json!({"city": "Köln"}),
    }
}

fn content(subject: &str, html: &str, data: Json) -> Compiled {
    content_of(subject, html, None, data)
}

fn content_of(subject: &str, html: &str, text: Option<&str>, data: Json) -> Compiled {
    let frozen = Frozen {
        id: ContentId::new(),
        brand_id: BrandId::new(),
        topic_id: TopicId::new(),
        template: "t".into(),
        subject: subject.into(),
        html: html.into(),
        text: text.map_or_else(|| text_part::from_html(html), str::to_owned),
        partials: BTreeMap::from([(
            "sig".into(),
            Partial { html: "<i>Yours</i>".into(), text: "Yours".into() },
        )]),
        data,
        reply_to: None,
    };
    Compiled::new(&frozen).unwrap()
}

impl World {
    fn compose(&self, content: &Compiled, name: &str, data: Option<&Json>) -> Result<Message, ComposeError> {
        self.compose_with(None, content, name, data)
    }

    fn compose_with(
        &self,
        inbound_domain: Option<&str>,
        content: &Compiled,
        name: &str,
        data: Option<&Json>,
    ) -> Result<Message, ComposeError> {
        let (sender, addressee) = (self.sender(inbound_domain), self.addressee(name, data));
        let message = compose(content, &sender, &addressee, self.delivery, self.date);
        let plain = reference::compose(content, &sender, &addressee, self.delivery, self.date);
        assert!(message == plain, "not what it is when it is made the plain way");
        message
    }

    fn sender<'w>(&'w self, inbound_domain: Option<&'w str>) -> Sender<'w> {
        Sender {
            brand: &self.brand,
            topic: &self.topic,
            base_url: &self.base_url,
            link_keys: &self.keys,
            default_bounce_domain: None,
            inbound_domain,
            dkim: &self.dkim,
        }
    }

    fn addressee<'w>(&'w self, name: &'w str, data: Option<&'w Json>) -> Addressee<'w> {
        Addressee {
            recipient: self.recipient,
            address: &self.address,
            address_hash: &self.hash,
            name: Some(name),
            locale: Some("de-DE"),
            external_id: None,
            customer: false,
            attributes: &self.attributes,
            data,
        }
    }
}

/// The header as lines, unfolded: name and value.
fn header_of(message: &Message) -> Vec<(String, String)> {
    let text = String::from_utf8(message.bytes.clone()).unwrap();
    let header = text.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ").replace("\r\n\t", " ");
    header
        .split("\r\n")
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn value<'h>(header: &'h [(String, String)], name: &str) -> &'h str {
    let mut found = header.iter().filter(|(given, _)| given == name);
    let value = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "two of {name}");
    &value.1
}

fn parts(message: &Message) -> (String, String) {
    let parsed = MessageParser::default().parse(&message.bytes).unwrap();
    let text = parsed.parts[parsed.text_body[0] as usize].text_contents().unwrap().to_owned();
    let html = parsed.parts[parsed.html_body[0] as usize].text_contents().unwrap().to_owned();
    (text, html)
}

fn check_octets(message: &Message) {
    let bytes = &message.bytes;
    assert!(bytes.is_ascii() && !bytes.contains(&0));
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "bare CR or LF");
    assert!(text.split("\r\n").all(|line| line.len() <= 998));
    for word in text.split([' ', '\r', '\n']).filter(|word| word.starts_with("=?")) {
        assert!(word.len() <= 75, "{word}");
    }
}

#[test]
fn the_way_by_mail_stands_after_the_link_on_a_line_of_its_own_and_bears_the_same_token() {
    let long = format!("{0}.{0}.{0}.example", "a".repeat(63));
    let mut world = world(Class::Marketing);
    world.brand.base_url = Some(format!("https://mail.acme.example/{}", "p".repeat(470)));
    for domain in ["lists.acme.example", "xn--bcher-kva.example", &long] {
        let content = content("Hello", "<p>Hi</p>", json!({}));
        let message = world.compose_with(Some(domain), &content, "Ann", None).unwrap();
        check_octets(&message);
        let header = header_of(&message);
        let (page, mail) = value(&header, "List-Unsubscribe").split_once(", ").unwrap();
        let page = page.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap();
        let mail =
            Url::parse(mail.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap()).unwrap();
        assert_eq!((mail.scheme(), mail.path()), ("mailto", format!("unsubscribe@{domain}").as_str()));
        let fields: Vec<_> = mail.query_pairs().collect();
        assert_eq!(fields, [("subject".into(), page.rsplit('/').next().unwrap().into())]);
    }
    let world = self::world(Class::Service);
    let message =
        world.compose_with(Some("lists.acme.example"), &content("s", "<p>x</p>", json!({})), "Ann", None);
    assert!(!String::from_utf8(message.unwrap().bytes).unwrap().contains("nsubscribe"));
}

#[test]
fn what_can_be_refused_carries_its_list_headers_octet_for_octet() {
    let world = world(Class::Marketing);
    let content = content("Hello {{name}}", "<p>Hi {{name}} {{> sig}}</p>", json!({}));
    let message = world.compose(&content, "Zoë", None).unwrap();
    check_octets(&message);
    let raw = String::from_utf8(message.bytes.clone()).unwrap();
    assert!(raw.contains("\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"));
    let header = header_of(&message);
    let link = value(&header, "List-Unsubscribe");
    let url = link.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap();
    assert!(raw.contains(&format!("\r\nList-Unsubscribe: <{url}>\r\n")), "it is folded");
    let token = url.strip_prefix("https://mail.acme.example/u/").unwrap();
    let said = Link::from_token(token, Purpose::Unsubscribe, &world.keys).unwrap();
    assert_eq!(
        (said.delivery, said.topic, said.recipient),
        (world.delivery, world.topic.id, world.recipient)
    );
    assert!(value(&header, "List-Id").ends_with(" <offers.acme.xn--bcher-kva.example>"));
    assert!(!header.iter().any(|(name, _)| name == "Auto-Submitted"));
    assert_eq!(value(&header, "From"), "Acme <news@xn--bcher-kva.example>");
    assert_eq!(value(&header, "Message-ID"), format!("<{}@xn--bcher-kva.example>", world.delivery));
    assert_eq!(value(&header, "Reply-To"), "help@acme.example");
    assert_eq!(message.envelope_to, "Zoe.Q@xn--bcher-kva.example");
    let (local, domain) = message.envelope_from.split_once('@').unwrap();
    assert_eq!(domain, "bounce.acme.example");
    assert_eq!(delivery_of_envelope(local, &world.keys), Some(world.delivery));
    let (text, html) = parts(&message);
    for part in [&text, &html] {
        assert!(part.contains(url) && part.contains("Hauptstraße 1") && part.contains("Yours"), "{part}");
    }
    assert!(html.contains("<html lang=\"de-DE\" dir=\"ltr\">") && html.contains("#aa0000"));
    assert_eq!(world.compose(&content, "Zoë", None).unwrap().bytes, message.bytes, "not the same on a retry");
}

#[test]
fn the_service_side_carries_no_unsubscribe_link_or_header() {
    for class in [Class::Requested, Class::Service, Class::Notice] {
        let world = world(class);
        let refusal = content("s", "<p>[{{unsubscribe_url}}]</p>", json!({}));
        let message = world.compose(&refusal, "", None).unwrap();
        let header = header_of(&message);
        assert!(!header.iter().any(|(name, _)| name.starts_with("List-")));
        assert_eq!(value(&header, "Auto-Submitted"), "auto-generated");
        assert_eq!(value(&header, "From"), "Acme Notices <notices@acme.example>");
        let (text, html) = parts(&message);
        assert!(text.contains("[]") && html.contains("[]"));
        // A notice may lead to where other mail is refused, and does not by itself.
        assert!(!text.contains("/u/") && !html.contains("/u/"));
        let choice = content("s", "<p>[{{preferences_url}}]</p>", json!({}));
        let (text, _) = parts(&world.compose(&choice, "", None).unwrap());
        assert_eq!(text.contains("/u/"), class == Class::Notice, "{text}");
    }
}

#[test]
fn the_names_of_the_interface_are_always_defined_and_empty_when_not_known() {
    let names = [
        "name",
        "external_id",
        "locale",
        "brand.phone",
        "brand.website",
        "email",
        "customer",
        "brand.id",
        "brand.name",
        "brand.postal_address",
        "topic.id",
        "topic.name",
        "unsubscribe_url",
        "preferences_url",
    ];
    let html: String = names.iter().map(|name| format!("<p>{name}=[{{{{{name}}}}}]</p>")).collect();
    for class in [Class::Marketing, Class::Service] {
        let mut world = world(class);
        world.brand.website = None;
        let addressee = Addressee {
            recipient: world.recipient,
            address: &world.address,
            address_hash: &world.hash,
            name: None,
            locale: None,
            external_id: None,
            customer: false,
            attributes: &world.attributes,
            data: None,
        };
        let sender = Sender {
            brand: &world.brand,
            topic: &world.topic,
            base_url: &world.base_url,
            link_keys: &world.keys,
            default_bounce_domain: None,
            inbound_domain: None,
            dkim: &world.dkim,
        };
        let at = Timestamp(1_800_000_000_000_000);
        let message =
            compose(&content("s", &html, json!({})), &sender, &addressee, world.delivery, at).unwrap();
        let (text, html) = parts(&message);
        for (place, name) in names.iter().enumerate() {
            assert_eq!(
                html.contains(&format!("{name}=[]")),
                place < 5 || name.ends_with("_url") && class == Class::Service,
                "{name}: {html}"
            );
            assert!(text.contains(&format!("{name}=[")), "{name}: {text}");
        }
    }
}

#[test]
fn a_body_with_its_own_link_and_address_gets_no_second_one() {
    let world = world(Class::Reminder);
    let own = "<html><body><p>x</p><a href=\"{{unsubscribe_url}}\">Stop</a><p>{{brand.postal_address}}</p></body></html>";
    let (text, html) = parts(&world.compose(&content("s", own, json!({})), "", None).unwrap());
    assert_eq!(html.matches("/u/").count(), 1, "{html}");
    assert_eq!(text.matches("/u/").count(), 1, "{text}");
    let hidden = own.replace("<a ", "<a style=\"display:none\" ");
    let (_, html) = parts(&world.compose(&content("s", &hidden, json!({})), "", None).unwrap());
    assert_eq!(html.matches("/u/").count(), 2);
    assert!(html.find("Abbestellen</a>").unwrap() < html.find("</body>").unwrap());
    let swallowed = "<html><body>x<!-- unclosed";
    assert!(matches!(
        world.compose(&content("s", swallowed, json!({})), "", None),
        Err(ComposeError::Hidden)
    ));
    let mut poor = world;
    poor.brand.postal_address = " \n".into();
    let refused = poor.compose(&content("s", own, json!({})), "", None);
    assert!(matches!(refused, Err(ComposeError::Brand { field: "postal_address", .. })));
}

#[test]
fn a_lines_data_lies_over_the_campaigns_and_what_is_missing_fails() {
    let world = world(Class::Marketing);
    let content =
        content("{{data.a}}{{data.b}}", "<p>{{attributes.city}}{{data.c}}</p>", json!({"a": 1, "b": 1}));
    let with = world.compose(&content, "", Some(&json!({"b": 2, "c": "<3"}))).unwrap();
    assert_eq!(value(&header_of(&with), "Subject"), "12");
    assert!(parts(&with).1.contains("Köln&lt;3"));
    assert!(parts(&with).0.contains("Köln<3"));
    let without = world.compose(&content, "", None);
    assert!(matches!(without, Err(ComposeError::Variable { name }) if name == "data.c"));
}

#[test]
fn links_that_run_something_are_made_harmless() {
    let world = world(Class::Marketing);
    let content = content("s", "<p><a href=\"{{data.u}}\">x</a></p>", json!({"u": "JavaScript:alert(1)"}));
    let (_, html) = parts(&world.compose(&content, "", None).unwrap());
    assert!(html.contains("href=\"#\"") && !html.to_lowercase().contains("javascript"));
}

#[test]
fn links_begin_with_http_on_this_machine_alone() {
    let mut world = world(Class::Marketing);
    let content = content("s", "<p>x</p>", json!({}));
    for own in ["http://localhost:8080", "http://shop.localhost:8080", "http://127.0.0.1", "http://[::1]:1"] {
        world.brand.base_url = Some(own.into());
        assert!(parts(&world.compose(&content, "", None).unwrap()).1.contains(&format!("{own}/u/")), "{own}");
    }
    world.brand.base_url = Some("http://shop.example".into());
    let refused = world.compose(&content, "", None);
    assert!(matches!(refused, Err(ComposeError::Brand { field: "base_url", .. })));
}

#[test]
fn a_local_part_that_is_not_ascii_stands_in_the_header_as_it_is() {
    let mut world = world(Class::Service);
    world.address = EmailAddress::parse("zoë@bücher.example").unwrap();
    let message = world.compose(&content("s", "x", json!({})), "Zoë, \"the\" one", None).unwrap();
    assert_eq!(message.envelope_to, "zoë@xn--bcher-kva.example");
    let header = header_of(&message);
    assert!(value(&header, "To").ends_with("<zoë@xn--bcher-kva.example>"), "{header:?}");
    assert!(header.iter().all(|(name, value)| name == "To" || value.is_ascii()), "{header:?}");
    assert!(message.envelope_from.is_ascii());
}

#[test]
fn three_hundred_characters_of_any_kind_fit_into_a_subject() {
    let world = world(Class::Service);
    let subject = "🙈".repeat(300);
    let message = world.compose(&content(&subject, "x", json!({})), "", None).unwrap();
    let parsed = MessageParser::default().parse(&message.bytes).unwrap();
    assert_eq!(parsed.subject(), Some(subject.as_str()));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,300}",
        "[äöü€😀שלום \r\n\0=?\"(),;<>@\\\\.\u{2028}\u{202e}]{0,120}",
        Just("\r\nBcc: evil@x.example\r\n\r\nbody".to_owned()),
        Just("=?utf-8?b?DQpCY2M6IGE=?=".to_owned()),
        Just("x".repeat(700)),
    ]
}

proptest! {
    // Each makes a whole message: a quarter of the usual number of cases.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn no_text_of_anybody_breaks_a_message(name in text(), subject in text(), body in text()) {
        let world = world(Class::Marketing);
        let content = content("{{data.s}}", "<p>{{name}}: {{data.b}}</p>", json!({}));
        let composed = world.compose(&content, &name, Some(&json!({"s": subject, "b": body})));
        let message = match composed {
            Err(ComposeError::TooLong { .. }) => return Ok(()),
            other => other.unwrap(),
        };
        check_octets(&message);
        let names: BTreeSet<String> = header_of(&message).into_iter().map(|(name, _)| name).collect();
        let allowed = [
            "Date", "From", "To", "Message-ID", "Subject", "Reply-To", "List-Unsubscribe", "List-Unsubscribe-Post",
            "List-Id", "MIME-Version", "Content-Type", "Feedback-ID",
        ];
        prop_assert_eq!(names, allowed.iter().map(|name| (*name).to_owned()).collect());
        let parsed = MessageParser::default().parse(&message.bytes).unwrap();
        prop_assert_eq!(parsed.subject().unwrap_or_default(), one_line(&subject));
        let to = parsed.to().unwrap().first().unwrap();
        prop_assert_eq!(to.address().unwrap(), "Zoe.Q@xn--bcher-kva.example");
        if let Some(shown) = to.name() {
            let given: String = name.trim().nfc().collect();
            prop_assert_eq!(shown, given);
        }
        prop_assert_eq!(parsed.header_values(HeaderName::Bcc).count(), 0);
        prop_assert_eq!(parsed.attachments().filter(|part| part.attachment_name().is_some()).count(), 0);
        let (text, html) = parts(&message);
        for part in [&text, &html] {
            prop_assert!(part.contains("https://mail.acme.example/u/") && part.contains("12345 Berlin"));
        }
    }

    #[test]
    fn no_name_of_a_brand_or_topic_breaks_a_message(brand in text(), from in "[^\\p{C}\u{2028}\u{2029}]{0,120}", topic in text()) {
        let mut world = world(Class::Marketing);
        world.brand.name = brand;
        let own = EmailAddress::parse("news@acme.example").unwrap();
        let mailbox = crate::brand::Mailbox { name: from.trim().to_owned(), address: own };
        world.brand.from_mailbox = mailbox.to_string();
        world.brand.reply_to = Some(mailbox.to_string());
        world.topic.name = topic;
        let message = world.compose(&content("s", "<p>x</p>", json!({})), "n", None).unwrap();
        check_octets(&message);
        prop_assert_eq!(header_of(&message).len(), 12);
        let parsed = MessageParser::default().parse(&message.bytes).unwrap();
        let sender = parsed.from().unwrap().first().unwrap();
        prop_assert_eq!(sender.address().unwrap(), "news@acme.example");
        let given: String = mailbox.name.nfc().collect();
        prop_assert!(sender.name().is_none_or(|shown| shown == given), "{sender:?} {given:?}");
        let header = header_of(&message);
        prop_assert!(value(&header, "List-Id").ends_with("<offers.acme.acme.example>"));
    }
}
