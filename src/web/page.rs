//! Pages for people: layout, language, a brand's look, and the headers that every page behind a token carries.
//!
//! Pure. A page has no script, sets no cookie and loads nothing from anywhere; everything put into it is escaped. The
//! words stand in `templates/languages/`, a file a language, and a word that is missing there fails a test. A brand's
//! colour is used as far as it can be read: lettering on it is black or white, and where it stands on the page's own
//! ground it is darkened or lightened until it reaches a contrast of 4.5 (WCAG 2.2, 1.4.3).

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use handlebars::{Context, Handlebars, Helper, HelperResult, Output, RenderContext, RenderErrorReason};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::colour::{Colour, DARK_GROUND, LIGHT_GROUND};

/// The one language so far.
const LANGUAGE: &str = "en";
const STYLE: &str = include_str!("../../templates/pages/style.css");
/// The whole style of the page that must stay within 1 kB.
const SMALL_STYLE: &str = ":root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:2rem auto;padding:0 1.25rem}";

/// The templates: what a page is called and what it is made of.
const TEMPLATES: [(&str, &str); 6] = [
    ("layout", include_str!("../../templates/pages/layout.html")),
    ("ask", include_str!("../../templates/pages/ask.html")),
    ("done", include_str!("../../templates/pages/done.html")),
    ("undone", include_str!("../../templates/pages/undone.html")),
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
}

/// A page to be rendered.
pub struct Page<'a> {
    /// Its template, one of `templates/pages/`.
    pub template: &'a str,
    /// The key of its title.
    pub title: &'a str,
    /// The brand's look.
    pub look: &'a Look,
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

static TEXTS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the texts are part of the program; a test reads them")]
    serde_json::from_str(include_str!("../../templates/languages/en.json")).expect("the texts are JSON")
});

/// Renders a page with the headers of a page behind a token. `https` says whether it was reached that way, as far as
/// the settings tell; then browsers are told to stay with it.
pub fn respond(status: StatusCode, page: Page<'_>, https: bool) -> Response<Body> {
    let style = format!("{}{STYLE}", palette(page.look));
    let mut data = object(page.data);
    let title = match &page.look.name {
        Some(name) => format!("{} · {name}", text(page.title)),
        None => text(page.title).to_owned(),
    };
    data.insert("title".into(), title.into());
    data.insert("name".into(), page.look.name.clone().into());
    finish(status, page.template, data, &style, https)
}

/// The page for a token that does not verify: at most 1 kB and the same octets for every cause.
pub fn unknown_link(https: bool) -> Response<Body> {
    let data = object(json!({ "title": text("unknown.title") }));
    finish(StatusCode::NOT_FOUND, "unknown", data, SMALL_STYLE, https)
}

/// The words of this key; empty when there are none, which a test forbids.
pub fn text(key: &str) -> &'static str {
    TEXTS.get(key).map(String::as_str).unwrap_or_default()
}

/// A day as people write it, in UTC: `22 November 2026`.
pub fn day(at: Timestamp) -> String {
    use chrono::Datelike;
    let date = at.to_datetime();
    text("date")
        .replace("{day}", &date.day().to_string())
        .replace("{month}", text(&format!("month.{}", date.month())))
        .replace("{year}", &date.year().to_string())
}

/// Puts the headers on that every answer behind a token carries, whatever its status and type.
pub fn secure(response: &mut Response<Body>, style: Option<&str>, https: bool) {
    let style_source = style.map_or_else(
        || "'none'".to_owned(),
        |style| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(style.as_bytes()))),
    );
    let policy = format!(
        "default-src 'none'; style-src {style_source}; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
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
    mut data: Map<String, Value>,
    style: &str,
    https: bool,
) -> Response<Body> {
    data.insert("lang".into(), LANGUAGE.into());
    data.insert("dir".into(), "ltr".into());
    data.insert("style".into(), style.into());
    let html = PAGES.render(template, &Value::Object(data)).unwrap_or_else(|error| {
        // What was done is done: a page that cannot be drawn must not look like a failure of the act.
        tracing::error!(template, %error, "a page could not be rendered");
        String::new()
    });
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response.headers_mut().insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(LANGUAGE));
    secure(&mut response, Some(style), https);
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

/// `{{t "key"}}`: the words of that key, escaped, with each `{name}` taken from the helper's own arguments or from what
/// the page was given, and set apart from the direction of the words around it.
fn translate(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    context: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let missing = |what: String| RenderErrorReason::Other(format!("no text or value for {what}"));
    let key = helper.param(0).and_then(|param| param.value().as_str()).unwrap_or_default();
    let words = TEXTS.get(key).ok_or_else(|| missing(key.to_owned()))?;
    for (n, part) in words.split('{').enumerate() {
        let Some((name, rest)) = part.split_once('}').filter(|_| n > 0) else {
            out.write(&handlebars::html_escape(part))?;
            continue;
        };
        let value = helper
            .hash_get(name)
            .map(|given| given.value())
            .or_else(|| context.data().get(name))
            .and_then(Value::as_str)
            .ok_or_else(|| missing(format!("{key}: {name}")))?;
        out.write("<bdi>")?;
        out.write(&handlebars::html_escape(value))?;
        out.write("</bdi>")?;
        out.write(&handlebars::html_escape(rest))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn body(response: Response<Body>) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn data() -> Value {
        json!({
            "address": "a…z@e….org", "topic": "Offers", "brand": "Acme", "date": "1 May 2027", "stands": true,
            "scope_text": "ask.scope.all", "stopped": ["done.stopped.all"], "comes": [{ "text": "done.comes.service" }, { "text": "done.comes.kept", "topic": "News", "brand": "Bee" }],
            "flights": [{ "topic": "News" }, {}], "nothing": false, "still": true, "heading": "large.heading",
            "text": "large.text", "again": [{ "name": "scope", "value": "all" }],
            "choices": [{ "undo": true, "scope": "topic", "text": "done.only.topic" }],
        })
    }

    #[tokio::test]
    async fn every_page_renders_and_is_well_formed_enough_to_have_one_main_heading() {
        let look = Look { name: Some("Acme".into()), color: Some("#ffee00".into()) };
        for (template, _) in TEMPLATES.into_iter().filter(|(name, _)| !matches!(*name, "layout" | "unknown"))
        {
            let page = Page { template, title: "ask.title", look: &look, data: data() };
            let html = body(respond(StatusCode::OK, page, true)).await;
            assert_eq!(html.matches("<h1").count(), 1, "{template}: {html}");
            assert!(html.trim_end().ends_with("</html>"), "{template}");
            assert!(!html.contains("{{") && !html.contains("<script"), "{template}");
        }
    }

    #[test]
    fn every_text_that_a_template_or_a_page_names_is_there_and_none_is_left_over() {
        let sources = [include_str!("../opt_out/pages.rs"), include_str!("page.rs")];
        let all: Vec<&str> = TEMPLATES.iter().map(|(_, text)| *text).chain(sources).collect();
        for text in &all {
            for named in text.split("{{t \"").skip(1) {
                let key = named.split('"').next().unwrap();
                assert!(key == "key" || TEXTS.contains_key(key), "no text for {key}");
            }
        }
        for key in TEXTS.keys().filter(|key| !key.starts_with("month.")) {
            assert!(all.iter().any(|text| text.contains(&format!("\"{key}\""))), "nobody uses {key}");
        }
        for key in (1..=12).map(|n| format!("month.{n}")) {
            assert!(TEXTS.contains_key(&key));
        }
    }

    #[tokio::test]
    async fn the_page_for_a_bad_link_stays_within_a_kilobyte() {
        let html = body(unknown_link(true)).await;
        assert!(html.len() <= 1024 && html.contains("</h1>"), "{} octets", html.len());
    }

    #[tokio::test]
    async fn the_policy_allows_the_style_that_is_on_the_page_and_nothing_else() {
        let look = Look::default();
        let page = Page { template: "message", title: "large.title", look: &look, data: data() };
        let response = respond(StatusCode::OK, page, false);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        let html = body(response).await;
        let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let hash = STANDARD.encode(Sha256::digest(style.as_bytes()));
        assert!(policy.starts_with(&format!("default-src 'none'; style-src 'sha256-{hash}'; ")), "{policy}");
    }

    #[test]
    fn a_day_is_written_out() {
        assert_eq!(day("2026-11-02T23:59:59Z".parse().unwrap()), "2 November 2026");
    }

    proptest! {
        #[test]
        fn nothing_that_is_put_into_a_page_becomes_markup(value in "[\\PC<>&\"'{}]{0,40}") {
            let mut given = data();
            for name in ["address", "topic", "brand", "date"] {
                given[name] = format!("<i>{value}").into();
            }
            let look = Look { name: Some(format!("<i>{value}")), color: Some(value) };
            for template in ["ask", "done", "undone"] {
                let page = Page { template, title: "ask.title", look: &look, data: given.clone() };
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let html = runtime.block_on(body(respond(StatusCode::OK, page, false)));
                prop_assert!(html.contains("</html>") && !html.contains("<i>"));
            }
        }
    }
}
