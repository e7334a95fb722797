//! What is worked out once for many messages changes none of them.

use super::*;
use crate::message::shapes::tests as shapes;
use crate::message::template::Parsed;

/// What templates are made of: whole, broken and hostile.
const PIECES: [&str; 92] = [
    "<p>",
    "</p>",
    "<div>",
    "</div>",
    "text ",
    "\n",
    "<a href=\"{{unsubscribe_url}}\">",
    "<a href='{{data.a}}{{unsubscribe_url}}{{data.b}}'>",
    "<a href=\"&{{data.a}}{{unsubscribe_url}}\">",
    "<a href={{unsubscribe_url}}>",
    "<a href=\"{{data.a}}\">",
    "<a href=\"java{{data.b}}\">",
    "<a href=\"https://x.example/?a={{data.a}}&b={{data.b}}\">",
    "<a style=\"{{data.a}}\" href=\"{{{unsubscribe_url}}}\">",
    "<a class=\"{{data.b}}\" href=\"{{preferences_url}}\">",
    "<a {{data.a}} href=\"{{preferences_url}}\">",
    "</a>",
    "Stop",
    "<a href=\"{{unsubscribe_url}}\">Stop</a>",
    "{{brand.name}} {{brand.postal_address}}",
    "{{brand.postal_address}}",
    "<p>{{name}}, {{brand.postal_address}}</p>",
    "Acme GmbH ",
    "Hauptstraße 1 ",
    "12345 Berlin",
    "Acme GmbH{{data.a}}Hauptstra{{data.b}} 1, 12345 Berlin",
    "{{name}}",
    "{{data.a}}",
    "{{data.b}}",
    "{{data.c}}",
    "{{attributes.city}}",
    "{{{data.a}}}",
    "{{{data.b}}}",
    "{{{unsubscribe_url}}}",
    "{{unsubscribe_url}}",
    "{{data.a}}{{data.b}}",
    "{{data}}",
    "{{data.list.[0]}}",
    "{{data.list.x}}",
    "{{lookup data 'a'}}",
    "{{#if data.a}}",
    "{{#if data.list.x}}",
    "{{#if data.c}}",
    "{{#unless name}}",
    "{{else}}",
    "{{/if}}",
    "{{/unless}}",
    "{{#if brand.phone}}phone{{else}}<b>{{/if}}",
    "{{#if (eq data.a data.b)}}",
    "{{#each data.list}}{{this}}<br>{{@index}}{{@root.name}}{{/each}}",
    "{{#each data.list}}<a href=\"{{@root.unsubscribe_url}}\">{{{this}}}</a>{{/each}}",
    "{{#with data.o}}{{k}}{{../name}}{{@subject}}{{/with}}",
    "{{@subject}}{{@lang}}{{@accent}}",
    "{{> sig}}",
    "<!-- ",
    " -->",
    "<!--{{data.a}}-->",
    "<!--{{data.a}}->",
    "<!--{{data.a}}>",
    "<!-{{data.a}}>",
    "<!{{data.a}}{{data.b}}>",
    "<{{data.a}}>",
    "</{{data.b}}>",
    "<",
    "&",
    "&#",
    "&am{{data.a}}",
    "&#x{{data.b}}",
    "<style>",
    "</style>",
    "<style>.x{{{data.a}}}.foot{display:{{data.b}}}</style>",
    "<style>.foot{display:none}</style>",
    "<style>a{color:red!important}</style>",
    "<style>p{display:none}@media (prefers-color-scheme:dark){}</style>",
    "prefers-{{data.a}}",
    "<title>",
    "</title>",
    "<title>{{data.a}}</{{data.b}}title>",
    "<textarea>",
    "<p class=\"{{data.a}}\">",
    "<p class={{data.a}}>",
    "<p id='{{data.b}}' style=\"display:{{data.a}}\">",
    "<p title=\"{{data.a}}\" {{data.b}}>",
    "<div hidden>",
    "<div style=\"position:absolute\">",
    "<img src=\"{{data.a}}\" alt='{{data.b}}'>",
    "<table><tr><td>",
    "<svg><![CDATA[{{data.a}}",
    "<html><body>",
    "</body>",
    "</html>",
    "<plaintext>",
];

/// What people and systems give, also what would change a page if it were not escaped.
const VALUES: [&str; 49] = [
    "",
    " ",
    "\n",
    "x",
    "Zoë & \"Co\" <b>",
    "</a>",
    "</title>",
    "-->",
    "--",
    "-",
    "!--",
    ">",
    "javascript:alert(1)",
    "script:x",
    "data:text/html,x",
    "data:image/png;base64,x",
    "https://x.example/?a=b&c",
    "display:none",
    "none",
    "hidden",
    "x hidden",
    "x style",
    "foot",
    "{} .foot{display:none",
    "p;",
    "#32;",
    "20;",
    "nbsp;",
    "amp;",
    "lt;",
    "1",
    "\u{df}e",
    "Hauptstraße 1",
    "Acme GmbH, Hauptstraße 1, 12345 Berlin",
    "Berlin",
    "color-scheme",
    "prefers-color-scheme",
    "\r",
    "a\r\nb\u{0}\u{85}c",
    "\u{f0000}",
    "\u{f0001}\u{100000}",
    "\u{a0}",
    "\u{200b}",
    "URL",
    "URL?x",
    "{{name}}",
    "é=\t",
    "div",
    "/title",
];

fn value() -> impl Strategy<Value = Json> {
    prop_oneof![
        8 => proptest::sample::select(&VALUES[..]).prop_map(Json::from),
        2 => "[ -~é\u{2028}]{0,100}".prop_map(Json::from),
        1 => proptest::sample::select(vec![json!(0), json!(1.5), json!(true), json!(false), json!(null), json!([]), json!(["<", 2]), json!({"k": 1})]),
    ]
}

/// What one person has: a name, and data laid over the campaign's; some of it may be missing.
fn person() -> impl Strategy<Value = (Json, Option<Json>, Option<Json>, Json, &'static str)> {
    let locale = proptest::sample::select(vec!["de-DE", "ar", "xx", ""]);
    (value(), proptest::option::of(value()), proptest::option::of(value()), value(), locale)
}

proptest! {
    // Each makes some dozen messages, most of them the plain way too.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn many_messages_of_a_content_are_as_each_would_be_by_itself(
        html in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..16),
        text in proptest::option::of(proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..4)),
        campaign in (value(), value(), value()),
        people in proptest::collection::vec(person(), 1..5),
        class in proptest::sample::select(vec![Class::Marketing, Class::Marketing, Class::Marketing, Class::Service]),
        odd_brand in proptest::bool::weighted(0.1),
        path in proptest::sample::select(vec!["", "", "", "/a=b"]),
    ) {
        let html: String = html.concat();
        let text = text.map(|text| text.concat()).filter(|text| Parsed::new(text).is_ok());
        prop_assume!(Parsed::new(&html).is_ok());
        let mut world = world(class);
        if odd_brand {
            world.brand.name = "A\u{f0000}\u{0}\u{100000}<b>".into();
        }
        world.brand.base_url = Some(format!("https://mail.acme.example{path}"));
        let data = json!({"a": campaign.0, "b": campaign.1, "list": ["x", campaign.2], "o": {"k": "v"}});
        let content = content_of("{{name}} {{data.a}}", &html, text.as_deref(), data);
        let sender = world.sender(None);
        let prepared = Prepared::new(&content, &sender).unwrap();
        for round in 0..6 {
            for (name, a, b, city, locale) in &people {
                let delivery = if round < 3 { world.delivery } else { DeliveryId::new() };
                let nobody = Value::default();
                let own = own_data(a.as_ref(), b.as_ref());
                let name = name.as_str().unwrap_or("Ann").to_owned();
                let attributes = json!({ "city": city });
                let mut addressee = Addressee { locale: Some(locale), ..world.addressee(&name, Some(&own)) };
                addressee.attributes = if name.is_empty() { &nobody.0 } else { &attributes };
                let url = prepared.footing(&addressee, delivery, world.date).url().to_owned();
                let own = named(&own, &url);
                addressee.data = Some(&own);
                let made = prepared.compose(&addressee, delivery, world.date);
                let expected = reference::compose(&content, &sender, &addressee, delivery, world.date);
                let readable = |made: Result<Message, ComposeError>| made.map(|made| String::from_utf8(made.bytes).unwrap());
                prop_assert_eq!(readable(made), readable(expected), "round {} of {:?}", round, html);
            }
        }
    }
}

#[derive(Default)]
struct Value(Json);

fn own_data(a: Option<&Json>, b: Option<&Json>) -> Json {
    let mut own = serde_json::Map::new();
    for (key, value) in [("a", a), ("b", b), ("c", a.and(b))] {
        own.extend(value.map(|value| (key.to_owned(), value.clone())));
    }
    Json::Object(own)
}

/// With the link itself where `URL` stands.
fn named(own: &Json, url: &str) -> Json {
    serde_json::from_str(&own.to_string().replace("URL", url)).unwrap()
}

/// Templates as people write them.
const ORDINARY: [&str; 6] = [
    "<h1>Hello {{name}}</h1><p>{{data.a}}</p><p><a href=\"https://x.example/?n={{name}}&c={{attributes.city}}\">More</a></p>",
    "<html><body><p>{{name}}</p><a href=\"{{unsubscribe_url}}\">Stop</a> {{brand.postal_address}}</body></html>",
    "<ul>{{#each data.list}}<li>{{this}}{{/each}}</ul>{{#if name}}Dear {{name}}{{else}}Hello{{/if}}",
    "<style>@media (prefers-color-scheme:dark){a{color:#fff!important}}</style><p class=\"{{data.a}}\">{{name}}</p>",
    "<style>p{display:none}</style><p style='color:{{data.b}}'>{{name}} {{{data.a}}}</p>",
    "<a href=\"{{data.url}}\"><img src=\"{{data.url}}/x.png\" alt=\"{{name}}\"></a>",
];

#[test]
fn messages_of_ordinary_templates_are_drawn_from_one_shape() {
    for class in [Class::Marketing, Class::Service] {
        for html in ORDINARY {
            let world = world(class);
            let data = json!({"a": "x", "b": "red", "list": ["x", "y"], "url": "https://x.example"});
            let content = content("{{name}}", html, data);
            let sender = world.sender(None);
            let prepared = Prepared::new(&content, &sender).unwrap();
            for n in 0..8 {
                let name = format!("Ann <{n}> & Söhne");
                let own = json!({"a": "y", "url": "https://y.example"});
                let addressee = world.addressee(&name, Some(&own));
                let made = prepared.compose(&addressee, world.delivery, world.date).unwrap();
                let plain = reference::compose(&content, &sender, &addressee, world.delivery, world.date);
                assert!(made == plain.unwrap(), "{html}");
            }
            assert_eq!(prepared.shapes.kept().0, 1, "{html}");
        }
    }
}

#[test]
fn however_many_shapes_there_are_few_are_kept() {
    let world = world(Class::Marketing);
    let content = content("s", "<p>{{{data.a}}}</p>", json!({}));
    let prepared = Prepared::new(&content, &world.sender(None)).unwrap();
    let mut most = 0;
    for n in 0..200 {
        let own = json!({"a": format!("<b>{n}</b>").repeat(400)});
        prepared.compose(&world.addressee("Ann", Some(&own)), world.delivery, world.date).unwrap();
        most = most.max(prepared.shapes.kept().1);
    }
    assert!((100_000..=shapes::MOST).contains(&most), "{most}");
}
