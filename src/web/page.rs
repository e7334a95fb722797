//! Pages for people: layout, language, a brand's look, and the headers that every page behind a token carries.
//!
//! Pure. A page has no script, sets no cookie and loads nothing but its brand's logo, from where it came itself;
//! everything put into it is escaped. The words are those of [`crate::language`], in the reader's language. A brand's
//! colour is used as far as it can be read: lettering on it is black or white, and where it stands on the page's own
//! ground it is darkened or lightened until it reaches a contrast of 4.5 (WCAG 2.2, 1.4.3).

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use handlebars::{Context, Handlebars, Helper, HelperResult, Output, RenderContext, RenderErrorReason};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::has_it;
use crate::brand::Brand;
use crate::colour::{Colour, DARK_GROUND, LIGHT_GROUND};
use crate::language::{Choice, Language, Locale, Value as Given};

const STYLE: &str = include_str!("../../templates/pages/style.css");
/// What pages of texts have besides.
const TEXT_STYLE: &str = include_str!("../../templates/pages/policy.css");
/// What pages have besides that show what changed in a text.
const CHANGES_STYLE: &str = include_str!("../../templates/pages/changes.css");
/// For how long a page that is there for everyone may be kept.
const PUBLIC_CACHE: &str = "public, max-age=300";
/// The whole style of the page that must stay within 1 kB.
const SMALL_STYLE: &str = ":root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:2rem auto;padding:0 1.25rem;overflow-wrap:anywhere}";

/// Widest and highest that a logo is shown, in CSS pixels.
const LOGO_WIDTH: u32 = 200;
const LOGO_HEIGHT: u32 = 48;

/// The templates: what a page is called and what it is made of.
const TEMPLATES: [(&str, &str); 12] = [
    ("layout", include_str!("../../templates/pages/layout.html")),
    ("ask", include_str!("../../templates/pages/ask.html")),
    ("other", include_str!("../../templates/pages/other.html")),
    ("done", include_str!("../../templates/pages/done.html")),
    ("undone", include_str!("../../templates/pages/undone.html")),
    ("approve", include_str!("../../templates/pages/approve.html")),
    ("policy", include_str!("../../templates/pages/policy.html")),
    ("changes", include_str!("../../templates/pages/changes.html")),
    ("changed", include_str!("../../templates/pages/changed.html")),
    ("change_line", include_str!("../../templates/pages/change_line.html")),
    ("message", include_str!("../../templates/pages/message.html")),
    ("unknown", include_str!("../../templates/pages/unknown.html")),
];

/// How a brand's pages look.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The brand's name, shown at the top; none leaves the top out.
    pub name: Option<String>,
    /// Its colour, `#rrggbb`; a calm blue when absent or unreadable.
    pub color: Option<String>,
    /// Its logo, shown in place of the name, which it carries as its alternative text.
    pub logo: Option<Picture>,
}

/// A logo at the size at which it is shown, so that nothing moves when it arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// Its path on the host of the page.
    pub src: String,
    /// Width in CSS pixels.
    pub width: u32,
    /// Height in CSS pixels.
    pub height: u32,
}

impl Look {
    /// How this brand's pages look, reached below its own base URL or else the program's.
    pub fn of(brand: &Brand, program: &Url) -> Self {
        let base = Url::parse(brand.base(program));
        let path = base.as_ref().map_or("", Url::path);
        let logo = brand.logo().map(|logo| {
            let (width, height) = logo.fitted(LOGO_WIDTH, LOGO_HEIGHT);
            Picture { src: logo.under(path), width, height }
        });
        Self { name: Some(brand.name.clone()), color: brand.color.clone(), logo }
    }
}

/// A page to be rendered.
pub struct Page<'a> {
    /// Its template, one of `templates/pages/`.
    pub template: &'a str,
    /// The key of its title.
    pub title: &'a str,
    /// The brand's look.
    pub look: &'a Look,
    /// Its language, and what that hangs on.
    pub choice: Choice,
    /// What the template and its texts name; an object.
    pub data: Value,
}

static PAGES: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut pages = Handlebars::new();
    pages.set_strict_mode(true);
    pages.register_helper("t", Box::new(translate));
    for (name, text) in TEMPLATES {
        #[expect(clippy::expect_used, reason = "the templates are part of the program; a test parses them")]
        pages.register_template_string(name, text).expect("the page's template parses");
    }
    pages
});

/// Renders a page with the headers of a page behind a token. `https` says whether it was reached that way, as far as
/// the settings tell; then browsers are told to stay with it.
pub fn respond(status: StatusCode, page: Page<'_>, https: bool) -> Response<Body> {
    let changes = if page.template == "approve" { CHANGES_STYLE } else { "" };
    let style = format!("{}{STYLE}{changes}", palette(page.look));
    let language = page.choice.locale.language();
    let data = framed(language.text(page.title), page.look, page.data, language, false);
    finish(status, page.template, data, &style, page.choice, https)
}

/// Renders a page that is there for everyone: it may be kept for a while and found by search. `title` is what it is called,
/// in the words of others; whoever has it already, by what was `asked`, is told so.
pub fn respond_public(page: Page<'_>, title: &str, asked: &HeaderMap, https: bool) -> Response<Body> {
    let style = format!("{}{STYLE}{TEXT_STYLE}{CHANGES_STYLE}", palette(page.look));
    let data = framed(title, page.look, page.data, page.choice.locale.language(), true);
    let html = rendered(page.template, data, &style, page.choice);
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(html.as_bytes())[..16]));
    let image = page.look.logo.is_some();
    let mut response = if has_it(asked, &tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        secure(&mut response, Some(&style), image, https);
        response
    } else {
        as_html(StatusCode::OK, html, &style, page.choice, image, https)
    };
    let headers = response.headers_mut();
    headers.insert("x-robots-tag", HeaderValue::from_static("all"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(PUBLIC_CACHE));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Language"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// What every page names beside its own data.
fn framed(title: &str, look: &Look, data: Value, language: Language, public: bool) -> Map<String, Value> {
    let mut data = object(data);
    let title = match &look.name {
        Some(name) => format!("{} · {}", language.isolate(title), language.isolate(name)),
        None => title.to_owned(),
    };
    data.insert("title".into(), title.into());
    data.insert("name".into(), look.name.clone().into());
    data.insert("logo".into(), json!(look.logo));
    data.insert("public".into(), public.into());
    data
}

/// The page for a token that does not verify: at most 1 kB and, in one language, the same octets for every cause.
/// `text` is the key of what helps.
pub fn unknown_link(choice: Choice, text: &str, https: bool) -> Response<Body> {
    let title = choice.locale.language().text("unknown.title");
    let data = object(json!({ "title": title, "text": text }));
    finish(StatusCode::NOT_FOUND, "unknown", data, SMALL_STYLE, choice, https)
}

/// Puts the headers on that every answer behind a token carries, whatever its status and type.
///
/// `style` is the style that the page holds, and `image` whether it shows one of ours.
pub fn secure(response: &mut Response<Body>, style: Option<&str>, image: bool, https: bool) {
    let style_source = style.map_or_else(
        || "'none'".to_owned(),
        |style| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(style.as_bytes()))),
    );
    let image_source = if image { " img-src 'self';" } else { "" };
    let policy = format!(
        "default-src 'none'; style-src {style_source};{image_source} form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CACHE_CONTROL, "no-store");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(HeaderName::from_static("x-robots-tag"), "noindex");
    if https {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}

fn finish(
    status: StatusCode,
    template: &str,
    data: Map<String, Value>,
    style: &str,
    choice: Choice,
    https: bool,
) -> Response<Body> {
    let image = data.get("logo").is_some_and(Value::is_object);
    let html = rendered(template, data, style, choice);
    as_html(status, html, style, choice, image, https)
}

fn rendered(template: &str, mut data: Map<String, Value>, style: &str, choice: Choice) -> String {
    let language = choice.locale.language();
    data.insert("locale".into(), choice.locale.to_string().into());
    data.insert("lang".into(), language.code().into());
    data.insert("dir".into(), language.direction().into());
    data.insert("style".into(), style.into());
    PAGES.render(template, &Value::Object(data)).unwrap_or_else(|error| {
        // What was done is done: a page that cannot be drawn must not look like a failure of the act.
        tracing::error!(template, %error, "a page could not be rendered");
        String::new()
    })
}

fn as_html(
    status: StatusCode,
    html: String,
    style: &str,
    choice: Choice,
    image: bool,
    https: bool,
) -> Response<Body> {
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let language = choice.locale.language();
    headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.code()));
    if choice.by_request {
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Language"));
    }
    secure(&mut response, Some(style), image, https);
    response
}

fn object(data: Value) -> Map<String, Value> {
    match data {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The colours of a page as CSS variables, light and dark.
fn palette(look: &Look) -> String {
    let brand = look.color.as_deref().and_then(Colour::parse).unwrap_or(Colour::CALM);
    format!(
        ":root{{--brand:{brand};--on-brand:{};--accent:{}}}@media(prefers-color-scheme:dark){{:root{{--accent:{}}}}}",
        brand.lettering(),
        brand.readable_on(LIGHT_GROUND),
        brand.readable_on(DARK_GROUND),
    )
}

/// `{{t "key"}}`: the words of that key in the page's language, escaped, with each `{name}` taken from the helper's own
/// arguments or from what the page was given, and set apart from the direction of the words around it. A number given
/// as `n` chooses the plural form.
fn translate(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    context: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let missing = |what: String| RenderErrorReason::Other(format!("no text or value for {what}"));
    let of_page = |name: &str| context.data().get(name);
    let locale = of_page("locale").and_then(Value::as_str).and_then(Locale::of).unwrap_or_default();
    let key = helper.param(0).and_then(|param| param.value().as_str()).unwrap_or_default();
    if !locale.language().has(key) {
        return Err(missing(key.to_owned()).into());
    }
    let mut values = Vec::new();
    let own = helper.hash_get("n").map(|_| "n");
    for name in locale.language().names(key).chain(own) {
        let value = match helper.hash_get(name).map(|given| given.value()).or_else(|| of_page(name)) {
            Some(Value::String(words)) => Given::Words(words),
            Some(Value::Number(count)) => Given::Count(count.as_u64().unwrap_or_default()),
            _ => return Err(missing(format!("{key}: {name}")).into()),
        };
        values.push((name, value));
    }
    Ok(out.write(&locale.fill_html(key, &values))?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn body(response: Response<Body>) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn logo() -> Option<Picture> {
        Some(Picture { src: "/logo/x.png".into(), width: 200, height: 48 })
    }

    fn data() -> Value {
        json!({
            "address": "a…z@e….org", "topic": "Offers", "brand": "Acme", "date": "1 May 2027", "stands": true,
            "scope_text": "ask.scope.all", "stopped": ["ask.scope.all"], "comes": [{ "text": "done.comes.service" }, { "text": "done.comes.kept", "topic": "News", "brand": "Bee" }],
            "flights": [{ "topic": "News", "n": 2 }, { "n": 1 }], "nothing": false, "still": true, "heading": "large.heading",
            "text": "large.text", "again": [{ "name": "scope", "value": "all" }],
            "again_scope": "brand", "button": "undone.button", "names": ["News"],
            "choices": [{ "undo": true, "first": true, "scope": "topic", "text": "done.only.topic" }],
            "in_flight": 2, "policy": "Privacy", "lead": "approve.when", "lead_date": "1 May 2027", "saved": true, "alert": "approve.press", "shown": "00", "needs": "1",
            "standing": { "text": "approve.stands.agree", "date": "1 May 2027" },
            "refused": "approve.still.all",
            "approval": true, "summary": ["We share less."], "language": "en", "links": [{ "href": "/p", "text": "notice.new" }],
            "buttons": [{ "decision": "approve", "text": "approve.button.agree", "answered": true, "stands": true }],
        })
    }

    /// What the pages of policies name.
    fn text_data() -> Value {
        json!({
            "policy": "Privacy", "language": "en",
            "direction": "ltr", "html": "<p>We share less.</p>", "version": "2", "status": "policy.status.in_force", "mark": true,
            "facts": [{ "name": "policy.updated", "date": "1 May 2027", "time": "2027-05-01T00:00:00Z" }], "sha256": "00",
            "paragraphs": ["We share less."], "url": "/p", "current_url": "/p", "changes_url": "/p", "old": "1", "old_url": "/p",
            "changes": [{ "folded": true, "n": 3, "lines": [] }, { "folded": false, "n": 1, "lines": [{ "tag": "h3", "columns": true, "pieces": [
                { "added": true, "removed": false, "text": "new", "space": true }, { "added": false, "removed": true, "text": "old", "space": false },
            ] }] }],
            "changes_language": "en", "changes_direction": "ltr", "changes_in": "English", "others": [{ "version": "1", "label": "Version 1", "chosen": true }],
            "asked_language": "en", "steps": [{ "version": "2", "language": "en", "direction": "ltr", "paragraphs": ["We share less."] }],
            "same": false, "short": true, "next": { "date": "1 May 2027", "paragraphs": ["We share less."], "language": "en", "direction": "ltr", "url": "/p", "changes_url": "/p" },
            "versions": [{ "version": "2", "status": "policy.status.past", "here": false, "from": "1 May 2027", "time": "2027-05-01T00:00:00Z",
                "language": "en", "direction": "ltr", "paragraphs": ["We share less."], "url": "/p", "changes_url": "/p" }],
            "languages": [{ "language": "ar", "name": "العربية", "direction": "rtl", "url": "/p?lang=ar" }],
        })
    }

    fn every_choice() -> impl Iterator<Item = Choice> {
        Language::ALL.into_iter().map(|language| Choice { locale: language.into(), by_request: true })
    }

    #[tokio::test]
    async fn every_page_renders_in_every_language_with_one_main_heading_and_nothing_left_open() {
        let look = Look { name: Some("Acme".into()), color: Some("#ffee00".into()), logo: logo() };
        for choice in every_choice() {
            let language = choice.locale.language();
            for (template, _) in TEMPLATES
                .into_iter()
                .filter(|(name, _)| !matches!(*name, "layout" | "changed" | "change_line" | "unknown"))
            {
                let mut data = data();
                data.as_object_mut().unwrap().extend(object(text_data()));
                let page = Page { template, title: "ask.title", look: &look, choice, data };
                let response = respond(StatusCode::OK, page, true);
                assert_eq!(response.headers()[header::CONTENT_LANGUAGE], language.code());
                let html = body(response).await;
                assert_eq!(html.matches("<h1").count(), 1, "{template}: {html}");
                assert!(html.trim_end().ends_with("</html>"), "{template}");
                let open = format!("<html lang=\"{}\" dir=\"{}\"", language.code(), language.direction());
                assert!(html.contains(&open), "{template}: {html}");
                let words = html.split("</style>").nth(1).unwrap();
                assert!(!words.contains(['{', '}']) && !html.contains("<script"), "{template}: {words}");
            }
        }
    }

    #[tokio::test]
    async fn the_page_for_a_bad_link_stays_within_a_kilobyte_in_every_language() {
        for choice in every_choice() {
            for text in ["unknown.text", "approve.unknown"] {
                let html = body(unknown_link(choice, text, true)).await;
                assert!(html.len() <= 1024 && html.contains("</h1>"), "{choice:?}: {} octets", html.len());
            }
        }
    }

    #[tokio::test]
    async fn the_policy_allows_the_style_that_is_on_the_page_and_nothing_else() {
        let look = Look::default();
        let page = Page {
            template: "message",
            title: "large.title",
            look: &look,
            choice: Choice::default(),
            data: data(),
        };
        let response = respond(StatusCode::OK, page, false);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let html = body(response).await;
        let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let hash = STANDARD.encode(Sha256::digest(style.as_bytes()));
        assert!(policy.starts_with(&format!("default-src 'none'; style-src 'sha256-{hash}'; ")), "{policy}");
    }

    /// The values of a variable in a style, in the order of the page: by day, then by night.
    fn values(style: &str, name: &str) -> Vec<Colour> {
        let name = format!("{name}:");
        let digits = style.split(&name).skip(1).filter_map(|rest| rest.get(..7));
        digits.filter_map(Colour::parse).collect()
    }

    #[track_caller]
    fn can_be_read(brand: Colour) {
        let look = Look { color: Some(brand.to_string()), ..Look::default() };
        let palette = palette(&look);
        let (fill, lettering) = (values(&palette, "--brand")[0], values(&palette, "--on-brand")[0]);
        assert_eq!(fill, brand);
        assert!(fill.contrast(lettering) >= 4.5, "{brand}: {lettering}");
        let accents = values(&palette, "--accent");
        assert_eq!(accents.len(), 2);
        for (n, accent) in accents.into_iter().enumerate() {
            for (ground, asked) in [("--page", 4.5), ("--card", 4.5), ("--quiet", 3.0)] {
                // By day a card is #fff, written short.
                let ground = values(&STYLE.replace(":#fff;", ":#ffffff;"), ground)[n];
                assert!(accent.contrast(ground) >= asked, "{brand}: {accent} on {ground}");
            }
        }
    }

    #[test]
    fn whatever_colour_a_brand_picks_its_button_and_name_can_be_read_by_day_and_by_night() {
        for n in 0..16_u32.pow(3) {
            let octet = |shift: u32| u8::try_from((n >> shift & 15) * 17).unwrap();
            can_be_read(Colour([octet(8), octet(4), octet(0)]));
        }
    }

    proptest! {
        #[test]
        fn every_colour_can_be_read(rgb in any::<[u8; 3]>()) {
            can_be_read(Colour(rgb));
        }

        #[test]
        fn nothing_that_is_put_into_a_page_becomes_markup(value in "[\\PC<>&\"'{}]{0,40}") {
            let mut given = data();
            for name in ["address", "topic", "brand", "date"] {
                given[name] = format!("<i>{value}").into();
            }
            let look = Look { name: Some(format!("<i>{value}")), color: Some(value), logo: logo() };
            for template in ["ask", "done", "undone"] {
                let page = Page { template, title: "ask.title", look: &look, choice: Choice::default(), data: given.clone() };
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let html = runtime.block_on(body(respond(StatusCode::OK, page, false)));
                prop_assert!(html.contains("</html>") && !html.contains("<i>"));
            }
        }
    }
}
