//! H1, H5, H9, H10: headers, methods, and what is served beside the pages.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::*;
use crate::unsubscribe_page::{ADA, decision, events, link_made, path, set_up};

/// The headers that every answer behind a token carries (H1).
#[track_caller]
fn has_the_headers(what: &str, answer: &Answer, https: bool) {
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-robots-tag", "noindex"),
        ("strict-transport-security", if https { "max-age=31536000" } else { "" }),
        ("set-cookie", ""),
        ("location", ""),
    ] {
        assert_eq!(answer.header(name), value, "{what}: {name}");
    }
    let policy = answer.header("content-security-policy");
    let parts: Vec<&str> = policy.split("; ").collect();
    for part in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(parts.contains(&part), "{what}: {policy}");
    }
    // Nothing beyond these, a style by its hash, and pictures only where one is shown.
    for part in parts {
        let style = part == "style-src 'none'" || part.starts_with("style-src 'sha256-");
        let image = part == "img-src 'self'" && (answer.text.is_empty() || answer.text.contains("<img "));
        let known = ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"];
        assert!(style || image || known.contains(&part), "{what}: {part}");
    }
    for foreign in ["http:", "https:", "//", "<script", "<link", "<iframe", "url(", "@import"] {
        assert!(!answer.text.contains(foreign), "{what} holds {foreign}: {}", answer.text);
    }
}

/// Every kind of answer behind a token.
async fn answers(tidings: &Tidings) -> Vec<(String, Answer)> {
    let link = path(tidings, "marketing", ADA).await;
    let forged = format!("{}x", &link[..link.len() - 1]);
    let mut answers = Vec::new();
    let client = tidings.anonymous();
    let form = |body: &'static str| {
        client
            .request(Method::POST, &link)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    };
    for (status, what, request) in [
        (200, "the page", client.request(Method::GET, &link)),
        (200, "the page's head", client.request(Method::HEAD, &link)),
        (200, "a click", form("List-Unsubscribe=One-Click")),
        (200, "the button", form("page=1")),
        (200, "a narrower scope", form("page=1&scope=topic&undo=1")),
        (200, "the undo", form("page=1&undo=1")),
        (200, "JSON", form("").header("accept", "application/json")),
        (204, "what may be asked", client.request(Method::OPTIONS, &link)),
        (404, "an unknown link", client.request(Method::GET, "/u/unknown")),
        (404, "a forged link", client.request(Method::POST, &forged)),
        (405, "another method", client.request(Method::DELETE, &link)),
        (405, "another method on an unknown link", client.request(Method::PATCH, "/u/unknown")),
        (
            413,
            "a large body",
            client.request(Method::POST, &link).header("connection", "close").body(vec![b'x'; 70_000]),
        ),
    ] {
        let answer = Answer::of(request).await;
        answer.is(status);
        answers.push((what.to_owned(), answer));
    }
    crate::promises::sql(tidings, "ALTER TABLE topics RENAME TO topics_away").await;
    for method in [Method::GET, Method::POST] {
        let answer = Answer::of(client.request(method.clone(), &link)).await;
        answer.is(503);
        answers.push((format!("{method} without the store"), answer));
    }
    let json = Answer::of(form("").header("accept", "application/json")).await;
    json.is(503);
    answers.push(("JSON without the store".to_owned(), json));
    crate::promises::sql(tidings, "ALTER TABLE topics_away RENAME TO topics").await;
    let limited = eventually("a client that is told to slow down", async || {
        let answer = Answer::of(client.request(Method::GET, "/u/unknown")).await;
        (answer.status.as_u16() == 429).then_some(answer)
    });
    answers.push(("too many".to_owned(), limited.await));
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h1_every_answer_behind_a_token_carries_its_headers_and_loads_nothing_from_elsewhere() {
    let mut tidings = set_up(Database::sqlite()).await;
    for (what, answer) in answers(&tidings).await {
        has_the_headers(&what, &answer, false);
    }
    let logo = json!({
        "name": "ACME", "from": "news@acme.example.com", "postal_address": "1 Main Street", "logo": crate::logo::LOGO,
    });
    tidings.put("/brands/acme", logo).await.ok();
    tidings.restart_with(|settings| settings.base_url = "https://news.acme.example".parse().unwrap()).await;
    let answers = answers(&tidings).await;
    assert_eq!(
        answers
            .iter()
            .filter(|(_, answer)| answer.header("content-security-policy").contains("img-src 'self'"))
            .count(),
        6
    );
    for (what, answer) in answers {
        has_the_headers(&what, &answer, true);
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h5_another_method_is_405_and_names_those_that_are_allowed() {
    let tidings = set_up(Database::sqlite()).await;
    let link = path(&tidings, "marketing", ADA).await;
    for method in ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "FOO"] {
        for path in [link.as_str(), "/u/unknown"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = Answer::of(tidings.anonymous().request(method, path)).await;
            answer.is(405);
            assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS, POST");
        }
    }
    for (method, path) in [
        (Method::POST, "/healthz"),
        (Method::DELETE, "/readyz"),
        (Method::PUT, "/logo/x"),
        (Method::PATCH, "/api/v1/brands"),
    ] {
        let answer = Answer::of(tidings.request(method, path)).await;
        answer.is(405);
        assert!(answer.header("allow").contains("GET"), "{path}: {:?}", answer.headers);
    }
    assert_eq!(events(&tidings, ADA).await, 0);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h5_unknown_and_forged_links_are_told_apart_by_nothing() {
    let tidings = set_up(Database::sqlite()).await;
    let link = link_made(&tidings, "marketing", ADA, Duration::ZERO).await;
    let token = link.to_token(&tidings.app().link_keys);
    let flipped = format!("{}{}", if token.starts_with('A') { 'B' } else { 'A' }, &token[1..]);
    let first = tidings.page("/u/unknown").await;
    assert!(first.is(404).text.len() <= 1024);
    for wrong in
        [&flipped, &token[..40], &token[1..], &format!("{token}A"), &"A".repeat(token.len()), "%00", "~"]
    {
        let answer = tidings.page(&format!("/u/{wrong}")).await;
        answer.is(404);
        assert_eq!(answer.text, first.text, "{wrong}");
        let but_for_its_id = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            headers.remove("x-request-id");
            headers.remove("date");
            headers
        };
        assert_eq!(but_for_its_id(&answer), but_for_its_id(&first), "{wrong}");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h9_health_says_that_the_process_lives_and_that_its_store_is_there() {
    let tidings = set_up(Database::sqlite()).await;
    let alive = tidings.page("/healthz").await;
    assert_eq!(alive.is(200).json()["status"], "ok");
    let ready = tidings.page("/readyz").await.is(200).json();
    assert_eq!(
        (&ready["ready"], &ready["database"], &ready["migrations"]),
        (&json!(true), &json!("ok"), &json!("ok"))
    );
    crate::promises::sql(&tidings, "DELETE FROM seaql_migrations WHERE version LIKE 'm0002%'").await;
    let unready = tidings.page("/readyz").await.is(503).json();
    assert_eq!((&unready["ready"], &unready["migrations"]), (&json!(false), &json!("not current")));
    tidings.page("/healthz").await.is(200);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h10_the_done_page_offers_an_undo_which_is_kept_as_an_event_of_its_own() {
    let tidings = set_up(Database::sqlite()).await;
    let link = path(&tidings, "marketing", ADA).await;
    let done = tidings.submit(&link, &[("page", "1")]).await;
    assert!(done.is(200).text.contains("name=\"undo\" value=\"1\""), "{}", done.text);
    let before = events(&tidings, ADA).await;
    tidings.submit(&link, &[("page", "1"), ("undo", "1")]).await.is(200);
    assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
    assert!(events(&tidings, ADA).await > before, "an undo is a record, not a deletion");
    tidings.stop().await;
}
