//! U16: in every message that can be refused a person finds the link, in both parts; Chromium says what a person sees.

use serde_json::{Value, json};

use super::super::provider::{self, OneClick, person, read_by_others};
use crate::harness::{Database, Tidings, Transaction, tools};

/// Sends one message of each template; gives those that the relay got. What cannot be shown is refused, and says why.
async fn sent(tidings: &Tidings, templates: &[(&str, String)]) -> Vec<(String, Transaction)> {
    let mut sent = Vec::new();
    for (n, (name, html)) in templates.iter().enumerate() {
        let template = json!({ "subject": "Hello", "html": html, "text": "Hello" });
        tidings.put("/templates/hello", template).await.ok();
        let to = json!({ "email": person(n) });
        let asked = json!({ "brand": "acme", "topic": "marketing", "to": to, "template": "hello" });
        let answer = tidings.post("/messages", asked).await;
        if answer.status == 422 {
            let reason = answer.refuses("/template");
            assert!(MAY_FAIL.contains(name) && reason.contains("unsubscribe link"), "{name}: {reason}");
            continue;
        }
        answer.is(202);
        sent.push(((*name).to_owned(), tidings.smtp.wait_for_message_to(&person(n)).await));
    }
    sent
}

/// Templates whose end nobody can see: for these it is right not to send.
const MAY_FAIL: [&str; 4] = ["an unclosed comment", "a tag that is cut", "plaintext", "frames"];

/// Asserts that both parts carry the link and that a person sees the one in HTML: narrow and light, with two views wide
/// and dark too, with three wide and light besides.
async fn everybody_sees(mails: Vec<(String, Transaction)>, views: usize) {
    let transactions: Vec<Transaction> = mails.iter().map(|(_, mail)| mail.clone()).collect();
    let mut messages = Vec::new();
    for ((name, mail), read) in mails.iter().zip(read_by_others(&transactions)) {
        let link = OneClick::of(mail);
        let text = read["text"].as_str().unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(words.contains(&link.url()), "{name}: no link of its own in the text part: {text}");
        messages.push(json!({ "name": name, "html": read["html"], "url": link.url() }));
    }
    let input = Value::Array(messages).to_string();
    let judged = tokio::task::spawn_blocking(move || {
        let mut judge = tools::node("visible_links.cjs");
        judge.arg(views.to_string());
        tools::run_json(judge, input)
    })
    .await
    .unwrap();
    let unseen: Vec<&Value> =
        judged.as_array().unwrap().iter().filter(|message| message["seen"] != true).collect();
    assert_eq!(judged.as_array().unwrap().len(), mails.len());
    assert!(unseen.is_empty(), "a person sees no link: {unseen:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u16_a_person_sees_the_link_in_both_parts_of_every_message_that_can_be_refused() {
    let tidings = provider::start(Database::sqlite()).await;
    let locales = ["en", "de", "fr", "es", "ar", "xx"];
    for locale in locales {
        let person =
            json!({ "email": format!("{locale}@people.example.com"), "name": "Someone", "locale": locale });
        tidings.post("/recipients", person).await.ok();
    }
    let mut mails = Vec::new();
    for class in ["relationship", "reminder", "marketing"] {
        for locale in locales {
            let mail = tidings.mail_of("acme", class, &format!("{locale}@people.example.com")).await;
            mails.push((format!("{class} in {locale}"), mail));
        }
    }
    everybody_sees(mails, 3).await;
    tidings.stop().await;
}

/// What ordinary templates look like, with a link of their own and without.
fn ordinary() -> Vec<(&'static str, String)> {
    let own = "<p style=\"color:#475467\">ACME, {{brand.postal_address}}. <a href=\"{{unsubscribe_url}}\" style=\"color:#1d4f91\">Unsubscribe</a></p>";
    let responsive = "<style>@media (max-width:600px){.box{width:100%!important;padding:0 12px!important} .wide{display:none!important}}</style>";
    vec![
        ("a fragment", "<p>Hello</p>".to_owned()),
        ("a fragment with its own link", format!("<p>Hello</p>{own}")),
        (
            "a document",
            "<!doctype html><html><head><title>x</title></head><body><p>Hello</p></body></html>".to_owned(),
        ),
        ("a document with its own link", format!("<html><body><p>Hello</p>{own}</body></html>")),
        (
            "a responsive one",
            format!("<html><head>{responsive}</head><body><div class=box>Hello {own}</div></body></html>"),
        ),
        (
            "a dark one",
            "<html><body style=\"background:#000000;color:#ffffff\"><p>Hello</p></body></html>".to_owned(),
        ),
        (
            "a table",
            "<html><body><table width=600 align=center><tr><td>Hello</td></tr></table></body></html>"
                .to_owned(),
        ),
        ("no end tags", "<html><body><p>Hello<p>again<ul><li>one<li>two".to_owned()),
        (
            "what a newsletter's style sheet hides elsewhere, with its own link",
            format!(
                "<html><head><style>.preheader{{display:none!important;visibility:hidden;opacity:0;color:transparent;height:0;width:0;\
                 max-height:0;overflow:hidden;mso-hide:all}} .clear:after{{content:\"\";display:table}} #outlook a{{padding:0}} \
                 .dark-logo{{display:none}} @media (max-width:600px){{.hide-mobile{{display:none!important}} .col{{width:100%!important}}}}\
                 </style></head><body><div class=preheader>Before</div><div class=hide-mobile>Wide</div>\
                 <table role=presentation class=col><tr><td>Hello {own}</td></tr></table></body></html>"
            ),
        ),
        (
            "its own link hidden for narrow screens",
            format!("<html><head>{responsive}</head><body><div class=wide>Hello {own}</div></body></html>"),
        ),
    ]
}

/// A document with this in its head and this in its body.
fn page(head: &str, body: &str) -> String {
    format!("<!doctype html><html><head><title>x</title>{head}</head><body>{body}</body></html>")
}

/// Templates whose style sheets mean to hide it.
fn hostile_styles() -> Vec<(&'static str, String)> {
    let own = "<p class=x>ACME, {{brand.postal_address}} <a class=x href=\"{{unsubscribe_url}}\">Unsubscribe</a></p>";
    let styles = [
        ("everything gone", "*{display:none!important}"),
        ("everything hidden", "html body *{visibility:hidden!important}"),
        ("white and tiny", "a{color:#fff!important;font-size:0}"),
        ("the last one hidden", "div:last-child{visibility:hidden}body>*:last-child{display:none!important}"),
        (
            "no size",
            "body *{height:0!important;max-height:0!important;width:0!important;overflow:hidden!important}",
        ),
        ("moved away", "*{position:absolute!important;left:-9999px!important;top:-9999px!important}"),
        ("clipped", "*{clip-path:inset(50%)!important;clip:rect(0 0 0 0)!important;position:absolute}"),
        ("seen through", "body,a,p,div{opacity:0!important}"),
        ("scaled", "html,body,div,p,a{transform:scale(0)!important}"),
        ("translated", "*{translate:-9999px 0!important;rotate:90deg;scale:0}"),
        (
            "indented",
            "*{text-indent:-9999px!important;letter-spacing:-1em!important;line-height:0!important}",
        ),
        (
            "filtered",
            "*{filter:opacity(0)!important;-webkit-mask:linear-gradient(transparent,transparent)!important}",
        ),
        ("layered", "@layer a,b;@layer a{*{display:none!important}}@layer b{a{visibility:hidden!important}}"),
        ("animated", "@keyframes h{to{opacity:0;visibility:hidden}}*{animation:h 1ms forwards!important}"),
        (
            "transparent letters",
            "*{color:transparent!important;-webkit-text-fill-color:transparent!important}",
        ),
        (
            "the first line",
            "*::first-line{font-size:0!important;color:#fff!important;line-height:0!important}",
        ),
        ("white on white", "*{color:#fff!important;background:#fff!important}"),
        (
            "not laid out",
            "body{content-visibility:hidden!important;contain:strict!important;display:contents!important}",
        ),
        ("cannot scroll", "html,body{height:0!important;overflow:hidden!important;max-height:0!important}"),
        ("laid over", "body::after{content:'';position:fixed;inset:0;background:#fff;z-index:2147483647}"),
        (
            "laid over the link",
            "a{position:relative}a::after{content:'';position:absolute;inset:-9px;background:#fff}",
        ),
        ("replaced", "a{content:url(data:image/png;base64,x)!important}div{content:''!important}"),
        ("for narrow and wide alike", "@media all{@supports (display:none){a,div{display:none!important}}}"),
        ("escaped", "*{d\\69splay:n\\6fne!important}"),
        ("hidden by attribute", "[style*=important],[href*='/u/']{display:none!important}"),
        (
            "vertical columns",
            "html,body{columns:40!important;writing-mode:vertical-rl!important;zoom:.01!important}",
        ),
        ("margins", "body{margin:-9999px 0 0 -9999px!important}div{margin-left:-9999px!important}"),
        (
            "a grid of nothing",
            "body{display:grid!important;grid:0/0!important;place-content:end}body>*{overflow:hidden!important;min-height:0!important}",
        ),
        ("pulled away by a class", ".x{margin-bottom:-9999px}p{margin-top:-9999px}"),
        ("behind a comment in a string", ".a{content:\"/*\"} *{display:none!important} .b{content:\"*/\"}"),
        ("behind a comment in a URL", ".a{background:url(/*)} *{display:none!important} /**/"),
        ("in a nested rule", "body{& *{display:none!important}} .x{.y{color:red} display:none}"),
        ("dots for letters", "*{-webkit-text-security:disc!important;font:0/0 a!important}"),
    ];
    let mut all = Vec::new();
    for (name, css) in styles {
        all.push((name, page(&format!("<style>{css}</style>"), &format!("<p>Hello</p>{own}"))));
        // In the layout of ours.
        all.push((name, format!("<style>{css}</style><p>Hello</p>")));
    }
    all
}

/// Templates whose elements mean to hide it, or do so by accident.
fn hostile_bodies() -> Vec<(&'static str, String)> {
    let own = "<p class=x>ACME, {{brand.postal_address}} <a class=x href=\"{{unsubscribe_url}}\">Unsubscribe</a></p>";
    let hidden = "style=\"display:none\"";
    let bodies = [
        ("an unclosed hidden division", format!("<div {hidden}><p>Hello</p>")),
        (
            "many unclosed ones",
            format!("<div {hidden}><span {hidden}><b {hidden}><font style=\"font-size:0\">Hello"),
        ),
        ("details", "<details><summary>Hello</summary><p>more".to_owned()),
        ("a dialog", "<dialog><p>Hello".to_owned()),
        ("a template", "<p>Hello<template><p>x".to_owned()),
        ("noscript", "<p>Hello<noscript><p>x".to_owned()),
        ("an unclosed style", "<p>Hello<style>p{color:red".to_owned()),
        ("an unclosed title", "<p>Hello<title>x".to_owned()),
        ("an unclosed textarea", "<p>Hello<textarea>x".to_owned()),
        ("an unclosed select", "<p>Hello<select><option>x".to_owned()),
        ("an unclosed object", "<p>Hello<object><video><audio><canvas>x".to_owned()),
        ("an unclosed drawing", "<p>Hello<svg width=0 height=0><g><desc>x".to_owned()),
        ("a table around nothing", "<table style=\"display:none\"><tr><td>Hello<table><caption>x".to_owned()),
        (
            "a tiny table",
            "<table width=1 style=\"width:1px;height:1px;overflow:hidden;display:block\"><tr><td>Hello"
                .to_owned(),
        ),
        (
            "a hidden link that is open",
            "<a href=\"https://www.example.com\" style=\"display:none\">Hello".to_owned(),
        ),
        ("an unclosed comment", "<p>Hello<!-- x".to_owned()),
        ("an odd comment", format!("<p>Hello<!--><div {hidden}>-->x")),
        ("another odd comment", format!("<p>Hello<!-- --!><div {hidden}><!-- -->x")),
        ("a tag that is cut", "<p>Hello<a href=\"".to_owned()),
        ("plaintext", "<p>Hello<plaintext>".to_owned()),
        ("its own link hidden", format!("<p>Hello</p><div {hidden}>{own}</div>")),
        (
            "its own link far away",
            format!("<p>Hello</p><div style=\"position:absolute;left:-9999px\">{own}</div>"),
        ),
        (
            "its own link clipped",
            format!(
                "<p>Hello</p><div style=\"height:1px;overflow:hidden;clip-path:inset(100%)\">{own}</div>"
            ),
        ),
        (
            "its own link tiny",
            format!("<p>Hello</p><div style=\"font-size:1px;line-height:1px\">{own}</div>"),
        ),
        ("its own link see-through", format!("<p>Hello</p><div style=\"opacity:.05\">{own}</div>")),
        ("what follows pulled away", format!("<div style=\"margin-bottom:-9999px\">Hello</div>{own}")),
        ("its own link ended where no end is", format!("<div {hidden}><table><tr><td></div>{own}")),
        ("a hidden part ended where no end is", format!("<div {hidden}><table><tr><td>Hello</div>")),
        ("bold letters that are hidden", format!("<p><b {hidden}>Hello</p>{own}")),
        ("a drawing that reads on", "<p>Hello<svg><title>x</title></svg>".to_owned()),
        (
            "something laid over everything",
            "<p>Hello</p><div style=\"position:fixed;inset:0;background:#fff;z-index:2147483647\"></div>"
                .to_owned(),
        ),
    ];
    let mut all = Vec::new();
    for (n, (name, body)) in bodies.into_iter().enumerate() {
        all.push((name, if n % 2 == 0 { page("", &body) } else { format!("<html><body>{body}") }));
    }
    all.push(("a hidden body", "<html><body hidden><p>Hello</p></body></html>".to_owned()));
    all.push((
        "a hidden body of style",
        "<html style=\"opacity:0\"><body style=\"display:none;margin:0\"><p>Hello</p></body></html>"
            .to_owned(),
    ));
    all.push(("a popover of a body", "<html><body popover><p>Hello</p></body></html>".to_owned()));
    all.push((
        "two bodies",
        "<html><body><p>Hello</p><body hidden style=\"display:none\"></body></html>".to_owned(),
    ));
    all.push((
        "no body",
        "<html><style>html,body{display:none!important}</style><p>Hello</p></html>".to_owned(),
    ));
    all.push(("frames", "<html><frameset><frame></frameset></html>".to_owned()));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u16_whatever_a_template_looks_like_a_person_sees_the_link_or_nothing_is_sent() {
    let tidings = provider::start(Database::sqlite()).await;
    let templates: Vec<_> = ordinary().into_iter().chain(hostile_styles()).chain(hostile_bodies()).collect();
    tidings.recipients(templates.len()).await;
    let mails = sent(&tidings, &templates).await;
    assert!(mails.len() >= templates.len() - MAY_FAIL.len());
    everybody_sees(mails, 2).await;
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u16_a_template_that_shows_its_own_link_gets_no_second_one() {
    let tidings = provider::start(Database::sqlite()).await;
    let templates: Vec<_> =
        ordinary().into_iter().filter(|(name, _)| name.ends_with("its own link")).collect();
    tidings.recipients(templates.len()).await;
    let mails = sent(&tidings, &templates).await;
    assert_eq!(mails.len(), templates.len());
    for (name, mail) in mails {
        let html = mail.parsed().body_html(0).unwrap().into_owned();
        assert_eq!(html.matches(OneClick::of(&mail).url()).count(), 1, "{name}: {html}");
    }
    tidings.stop().await;
}
