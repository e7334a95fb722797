//! Clients that mean no good: those that come by a name that is not ours, those that ask for what is not there.

use reqwest::Method;

use crate::harness::{Answer, Database, Tidings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_says_that_nothing_of_it_may_be_run_kept_or_framed() {
    let tidings = Tidings::start_with(Database::sqlite(), |settings| {
        settings.relay_url = secrecy::SecretString::from("mailbox:");
    })
    .await;
    for (method, path, status) in [
        (Method::GET, "/", 307),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/u/", 404),
        (Method::GET, "/u/nonsense", 404),
        (Method::GET, "/u/a/b", 404),
        (Method::POST, "/u/%ff", 404),
        (Method::PUT, "/u/nonsense", 405),
        (Method::GET, "/healthz", 200),
        (Method::POST, "/healthz", 405),
        (Method::GET, "/api/v1/brands", 401),
        (Method::GET, "/api/v1/nothing", 404),
        (Method::GET, "/api/openapi.json", 200),
        (Method::GET, "/mailbox", 200),
        (Method::GET, "/mailbox/77", 404),
        (Method::GET, "/mailbox?before=x", 400),
        (Method::DELETE, "/mailbox", 405),
    ] {
        let answer = Answer::of(tidings.anonymous().request(method.clone(), path)).await;
        answer.is(status);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{method} {path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{method} {path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{method} {path}: {policy}");
        assert_eq!(answer.header("x-robots-tag"), "noindex", "{method} {path}");
        assert_eq!(answer.header("set-cookie"), "", "{method} {path}");
        assert_eq!(status == 405, !answer.header("allow").is_empty(), "{method} {path}");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mailbox_is_shown_to_nobody_who_comes_by_another_name() {
    let tidings = Tidings::start_with(Database::sqlite(), |settings| {
        settings.relay_url = secrecy::SecretString::from("mailbox:");
    })
    .await;
    for path in ["/mailbox", "/mailbox/1", "/mailbox/messages.json", "/mailbox/messages/1/source"] {
        for (host, shown) in [
            ("localhost:8080", true),
            ("127.0.0.1", true),
            ("[::1]:8080", true),
            ("demo.localhost", true),
            ("rebound.example", false),
            ("127.0.0.1.example", false),
            ("localhost@rebound.example", false),
            ("10.0.0.1", false),
        ] {
            let request = tidings.anonymous().request(Method::GET, path).header("host", host);
            let answer = Answer::of(request).await;
            assert_eq!(answer.status != 421, shown, "{path} {host}: {answer:?}");
        }
    }
    tidings.stop().await;
}
