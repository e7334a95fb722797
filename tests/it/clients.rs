//! Clients that mean no good: slow ones, those that come by a name that is not ours, those that ask for what is not there.

use std::time::Duration;

use reqwest::Method;
use tidings::serve::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Answer, Database, Tidings, one_click_link};

/// Opens a connection and says this much.
async fn begin(tidings: &Tidings, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(tidings.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    stream
}

on_both! {
    async fn two_hundred_slow_clients_keep_nobody_from_opting_out_and_are_hung_up_on(database: Database) {
        let parts = Parts { head_within: Duration::from_secs(2), ..Parts::default() };
        let tidings = Tidings::start_parts(database, parts, |_| {}).await;
        tidings.ready_to_send().await;
        tidings.recipient("ada@people.example.com").await;
        let link = one_click_link(&tidings.mail_of("acme", "marketing", "ada@people.example.com").await);
        let path = url::Url::parse(&link).unwrap().path().to_owned();
        let mut slow = Vec::new();
        for n in 0..200 {
            let words = match n % 4 {
                0 => String::new(),
                1 => "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ".to_owned(),
                2 => format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-"),
                _ => "POST /api/v1/opt-outs HTTP/1.1\r\n".to_owned(),
            };
            slow.push(begin(&tidings, &words).await);
        }
        let asked = std::time::Instant::now();
        tidings.one_click(&link).await.is(200);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        for mut stream in slow {
            let mut answer = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "a client that says nothing keeps its connection");
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
        }
        tidings.stop().await;
    }
}

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
