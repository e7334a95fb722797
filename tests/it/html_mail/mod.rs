//! HTML mail as its readers get it: valid, readable by everybody, in their language, by day and by night, with images
//! blocked and with styles dropped (which the standards tests ask, as F16); and what a preview says could be better.

mod judges;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Database, Tidings, Transaction, eventually};
use crate::logo::LOGO;
pub(crate) use judges::{Mail, chromium, vnu};

const ARTICLE: &str = include_str!("article.html");
const NEWSLETTER: &str = include_str!("newsletter.html");
const OFFERS: &str = include_str!("../../../templates/demo/offers.html");
const SECURITY: &str = include_str!("../../../templates/demo/security.html");
/// The locales of the readers.
const READERS: [&str; 3] = ["en", "de-DE", "ar-EG"];

/// A brand with a logo and a colour, another with a colour that nobody could read on white, and the templates.
pub(crate) async fn start() -> Tidings {
    let tidings = Tidings::start(Database::sqlite()).await;
    for (brand, color, logo) in [("acme", "#7a4a21", Some(LOGO)), ("sun", "#ffe600", None)] {
        let body = json!({
            "name": brand.to_uppercase(), "from": format!("{brand} <news@{brand}.example.com>"), "color": color, "logo": logo,
            "postal_address": "1 Main Street, 12345 Springfield", "phone": "+1 555 0100",
        });
        tidings.put(&format!("/brands/{brand}"), body).await.ok();
        tidings.topic(brand, "news", "marketing").await;
        tidings.topic(brand, "account", "service").await;
    }
    let end = "<tr><td class=\"end\">{{brand.name}}, {{brand.postal_address}}</td></tr>";
    for (template, html) in [
        ("end", end),
        ("article", ARTICLE),
        ("newsletter", NEWSLETTER),
        ("offers", OFFERS),
        ("security", SECURITY),
    ] {
        let classes = if template == "security" { json!(["service"]) } else { json!(["marketing"]) };
        let body = json!({ "subject": "{{data.heading}}", "html": html, "classes": classes });
        let answer = tidings.put(&format!("/templates/{template}"), body).await.ok();
        assert_eq!(answer["warnings"], json!([]), "{template}");
    }
    for locale in READERS {
        let person = json!({ "email": reader(locale), "name": "Nour Haddad", "locale": locale, "attributes": { "city": "Leipzig" } });
        tidings.post("/recipients", person).await.ok();
    }
    tidings
}

fn reader(locale: &str) -> String {
    format!("{}@people.example.com", locale.to_lowercase())
}

/// What a campaign would say in this language.
fn words(locale: &str) -> Value {
    let (heading, second, text, link, what) = match locale {
        "de-DE" => (
            "Neues aus der Rösterei",
            "Was es diesen Monat gibt",
            "diese Woche kamen drei Säcke an, auf die wir lange gewartet haben. Donaudampfschifffahrtsgesellschaftskapitän!",
            "Zur ganzen Auswahl",
            "Hausmischung",
        ),
        "ar-EG" => (
            "جديدنا هذا الشهر",
            "ما يتوفر الآن",
            "وصلتنا هذا الأسبوع ثلاثة أكياس انتظرناها طويلا، وحمصناها برفق كي تبقى نكهتها.",
            "إلى كل الأصناف",
            "خلطة الدار",
        ),
        _ => (
            "News from the roastery",
            "What there is this month",
            "three sacks came in this week that we had been waiting for, and we roasted them gently.",
            "See the whole range",
            "House blend",
        ),
    };
    json!({
        "heading": heading, "headline": heading, "what": heading, "second": second, "text": text, "details": text, "intro": text,
        "link": link, "button": link, "preheader": text,
        "rows": [{ "what": what, "price": "12.50" }, { "what": what, "price": "9.80" }],
        "items": [{ "title": what, "text": text }, { "title": what, "text": text }],
    })
}

/// Sends a single message and gives what the relay took.
async fn mail(tidings: &Tidings, brand: &str, topic: &str, template: &str, locale: &str) -> Transaction {
    let to = reader(locale);
    let before = tidings.smtp.messages_to(&to).len();
    let body = json!({
        "brand": brand, "topic": topic, "template": template, "to": { "email": to }, "data": words(locale),
    });
    tidings.post("/messages", body).await.ok();
    eventually("a message", async || tidings.smtp.messages_to(&to).into_iter().nth(before)).await
}

fn html(mail: &Transaction) -> String {
    mail.parsed().body_html(0).unwrap().into_owned()
}

fn text(mail: &Transaction) -> String {
    mail.parsed().body_text(0).unwrap().into_owned()
}

/// Every kind of mail in every language of the readers.
pub(crate) async fn every_mail(tidings: &Tidings) -> Vec<Mail> {
    let kinds = [
        ("acme", "news", "article"),
        ("sun", "news", "article"),
        ("acme", "news", "offers"),
        ("acme", "account", "security"),
        ("acme", "news", "newsletter"),
    ];
    let mut mails = Vec::new();
    for locale in READERS {
        for (brand, topic, template) in kinds {
            // The second brand tells of colours alone, German of long words.
            if brand == "sun" && locale != "en" || template != "article" && locale == "de-DE" {
                continue;
            }
            let html = html(&mail(tidings, brand, topic, template, locale).await);
            mails.push(Mail { name: format!("{template}-{brand}-{locale}"), html });
        }
    }
    mails
}

/// The images that these mails show, by URL.
pub(crate) async fn images(tidings: &Tidings) -> Value {
    let picture = LOGO.split_once(',').unwrap().1;
    let brand = tidings.get("/brands/acme").await.ok();
    let logo = brand["logo"].as_str().unwrap().to_owned();
    let served = tidings.anonymous().request(reqwest::Method::GET, &logo).send().await.unwrap();
    let served = STANDARD.encode(served.bytes().await.unwrap());
    json!({ logo: served, "https://shop.example.com/picture.png": picture })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_has_the_language_direction_logo_and_colour_that_are_its_readers_and_its_brands() {
    let tidings = start().await;
    let arabic = html(&mail(&tidings, "acme", "news", "article", "ar-EG").await);
    assert!(arabic.contains("<html lang=\"ar-EG\" dir=\"rtl\">"), "{arabic}");
    let brand = tidings.get("/brands/acme").await.ok();
    let logo =
        format!("src=\"{}\" width=\"240\" height=\"60\" alt=\"ACME\"", brand["logo"].as_str().unwrap());
    assert!(arabic.contains(&logo), "{arabic}");
    // At the element, and not in <style> alone.
    assert!(arabic.contains("background-color:#7a4a21;color:#ffffff"), "{arabic}");
    let own = html(&mail(&tidings, "acme", "news", "newsletter", "de-DE").await);
    assert!(own.contains("<html lang=\"de-DE\" dir=\"ltr\">"), "{own}");
    let yellow = html(&mail(&tidings, "sun", "news", "article", "en").await);
    assert!(yellow.contains("background-color:#ffe600;color:#000000"), "{yellow}");
    assert!(yellow.contains(">SUN</div>"), "{yellow}");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_footer_speaks_the_readers_language_in_both_parts() {
    let tidings = start().await;
    for (locale, link, colon, because) in [
        ("en", "Unsubscribe", ":", "You get this message because"),
        ("de-DE", "Abbestellen", ":", "Sie erhalten diese Nachricht, weil"),
        // Typographers of French set a no-break space before it.
        ("fr", "Me désabonner", "\u{a0}:", "Vous recevez ce message parce que"),
        ("es-MX", "Cancelar la suscripción", ":", "Recibe este mensaje porque"),
        ("ar-EG", "إلغاء الاشتراك", ":", "تتلقون هذه الرسالة لأن"),
        ("pl", "Unsubscribe", ":", "You get this message because"),
    ] {
        tidings.post("/recipients", json!({ "email": reader(locale), "locale": locale })).await.ok();
        let mail = mail(&tidings, "acme", "news", "article", locale).await;
        let (html, text) = (html(&mail), text(&mail));
        assert!(html.contains(&format!(">{link}</a>")) && html.contains(because), "{html}");
        let url = crate::harness::one_click_link(&mail);
        assert!(text.contains(&format!("{link}{colon} {url}")) && text.contains(because), "{text}");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn styles_are_written_at_the_elements_when_a_campaign_starts_and_in_its_preview() {
    let tidings = start().await;
    let template = json!({
        "subject": "s", "html": "<style>.a td{color:#123456}</style><table class=\"a\">{{#each data.rows}}<tr><td>{{this}}</td></tr>{{/each}}</table>",
    });
    tidings.put("/templates/rows", template).await.ok();
    let campaign = json!({
        "brand": "acme", "topic": "news", "template": "rows", "audience": { "all": true }, "data": { "rows": ["<1>", "2"] },
    });
    let id = tidings.post("/campaigns", campaign).await.id();
    let preview = tidings.get(&format!("/campaigns/{id}/preview?email={}", reader("en"))).await.ok();
    let rows =
        "<tr><td style=\"color:#123456\">&lt;1&gt;</td></tr><tr><td style=\"color:#123456\">2</td></tr>";
    assert!(preview["html"].as_str().unwrap().contains(rows), "{preview}");
    assert_eq!(preview["warnings"], json!([]));
    tidings.post_empty(&format!("/campaigns/{id}/start")).await.ok();
    tidings.finished(&id).await;
    // What was frozen stays, whatever becomes of the template.
    tidings.delete("/templates/rows").await.is(204);
    let sent = tidings.smtp.messages_to(&reader("en"));
    assert!(html(&sent[0]).contains(rows));
    // In the head, where Gmail reads it.
    let (head, _) = html(&sent[0]).split_once("</head>").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(head.contains("<style>.a td{color:#123456}</style>"));
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_says_what_could_be_better() {
    let tidings = start().await;
    let html = "<style>p{color:#111}@media print{p{color:#000}}</style><p>x<img src=\"https://x.example/a.png\"></p>\
                <a href=\"http://x.example/\"><img src=\"https://x.example/b.png\" alt=\"\"></a>";
    let put = tidings.put("/templates/poor", json!({ "subject": "s", "html": html })).await.ok();
    let kinds = |warnings: &Value| -> Vec<String> {
        warnings.as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect()
    };
    let of_template = ["image_without_alt", "link_without_text", "not_encrypted"];
    assert_eq!(kinds(&put["warnings"]), of_template);
    let campaign = json!({ "brand": "acme", "topic": "news", "template": "poor" });
    let id = tidings.post("/campaigns", campaign).await.id();
    let preview = tidings.get(&format!("/campaigns/{id}/preview?email=a@people.example.com")).await.ok();
    let mut expected = of_template.to_vec();
    expected.push("styles_not_inlined");
    assert_eq!(kinds(&preview["warnings"]), expected, "{}", preview["warnings"]);
    assert!(preview["html"].as_str().unwrap().contains("<img alt='' "));
    tidings.stop().await;
}
