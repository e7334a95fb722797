//! H8: clients that say, send or take nothing, and what they cost everybody else.

use std::time::Duration;

use tidings::serve::Parts;
use tidings::serve::http::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{ADMIN_KEY, Answer, Database, Tidings, one_click_link, wait_until};

/// Far longer than anything here takes; only a server that waits for ever is slower.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a connection and says this much.
async fn begin(tidings: &Tidings, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(tidings.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    stream
}

/// What the server says before it hangs up.
async fn until_hung_up_on(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    assert!(ended.is_ok(), "the connection is kept: {}", String::from_utf8_lossy(&said));
    String::from_utf8_lossy(&said).into_owned()
}

/// What clients begin with and never end: nothing, heads, bodies for a link and for the API.
fn beginnings(path: &str) -> [String; 6] {
    [
        String::new(),
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ".to_owned(),
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-"),
        format!("POST {path}x HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nList-Uns"),
        format!(
            "POST /api/v1/opt-outs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"email\": "
        ),
        format!(
            "POST /api/v1/recipients/import HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
             Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nemail\n\r\n"
        ),
    ]
}

async fn a_link(tidings: &Tidings) -> (String, String) {
    tidings.ready_to_send().await;
    tidings.recipient("ada@people.example.com").await;
    let link = one_click_link(&tidings.mail_of("acme", "marketing", "ada@people.example.com").await);
    let path = url::Url::parse(&link).unwrap().path().to_owned();
    (link, path)
}

fn parts(limits: Limits) -> Parts {
    Parts { http: limits, ..Parts::default() }
}

on_both! {
    async fn h8_hundreds_of_stalled_clients_make_room_for_a_click(database: Database) {
        // Only the want of room ends these: each has an hour.
        let hour = Duration::from_secs(3600);
        let limits = Limits { connections: 64, head: hour, body: hour, answer: hour, grace: Duration::from_millis(100) };
        let tidings = Tidings::start_parts(database, parts(limits), |_| {}).await;
        let (link, path) = a_link(&tidings).await;
        let mut stalled = Vec::new();
        for n in 0..300 {
            // Not those that the database is asked for: it has fewer connections than there are clients here.
            stalled.push(begin(&tidings, &beginnings(&path)[n % 3]).await);
        }
        let click = tokio::time::timeout(PATIENCE, tidings.one_click(&link)).await;
        click.expect("a click waits for ever").is(200);
        let oldest = stalled.drain(..300 - limits.connections);
        for stream in oldest {
            assert_eq!(until_hung_up_on(stream).await, "");
        }
        let counted = Answer::of(tidings.request(reqwest::Method::GET, "/metrics")).await.text;
        assert!(counted.contains("tidings_http_connections_shed_total"), "{counted}");
        drop(stalled);
        tidings.stop().await;
    }

    async fn h8_two_hundred_slow_clients_are_hung_up_on_while_clicks_are_answered(database: Database) {
        let limits = Limits { head: Duration::from_secs(2), body: Duration::from_secs(2), ..Limits::default() };
        let tidings = Tidings::start_parts(database, parts(limits), |_| {}).await;
        let (link, path) = a_link(&tidings).await;
        let mut slow = Vec::new();
        for n in 0..200 {
            slow.push(begin(&tidings, &beginnings(&path)[n % 6]).await);
        }
        let click = tokio::time::timeout(PATIENCE, tidings.one_click(&link)).await;
        click.expect("a click waits for ever").is(200);
        for stream in slow {
            let said = until_hung_up_on(stream).await;
            assert!(!said.starts_with("HTTP/1.1 2"), "{said}");
        }
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h8_a_client_that_takes_no_answer_is_hung_up_on() {
    let limits = Limits { answer: Duration::from_secs(1), ..Limits::default() };
    let tidings = Tidings::start_parts(Database::sqlite(), parts(limits), |_| {}).await;
    let request = "GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut greedy = begin(&tidings, &request.repeat(400)).await;
    // A server that has hung up refuses what is sent to it after that.
    wait_until("a client that takes nothing to be hung up on", async || {
        greedy.write_all(b"\r\n").await.is_err()
    })
    .await;
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h8_little_is_kept_for_clients_that_take_no_answer() {
    let limits = Limits { answer: Duration::from_secs(1), ..Limits::default() };
    let tidings = Tidings::start_parts(Database::sqlite(), parts(limits), |_| {}).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = tidings.base.trim_start_matches("http://").parse().unwrap();
    let mut greedy = socket.connect(address).await.unwrap();
    let request = "GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    greedy.write_all(request.repeat(100).as_bytes()).await.unwrap();
    wait_until("a client that takes nothing to be hung up on", async || {
        greedy.write_all(b"\r\n").await.is_err()
    })
    .await;
    let mut kept = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, greedy.read_to_end(&mut kept)).await.unwrap();
    assert!(kept.len() < 600_000, "{} octets were kept for it", kept.len());
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h8_a_head_without_end_is_refused_before_it_costs_much() {
    let tidings = Tidings::start_parts(Database::sqlite(), Parts::default(), |_| {}).await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: {}", "a".repeat(100_000));
    let said = until_hung_up_on(begin(&tidings, &head).await).await;
    assert!(said.starts_with("HTTP/1.1 431"), "{said}");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h8_a_click_whose_body_stalls_counts() {
    let limits = Limits { body: Duration::from_secs(1), ..Limits::default() };
    let tidings = Tidings::start_parts(Database::sqlite(), parts(limits), |_| {}).await;
    let (_, path) = a_link(&tidings).await;
    let words = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nList-Uns");
    let said = until_hung_up_on(begin(&tidings, &words).await).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let stands = tidings.get("/explain?email=ada@people.example.com&brand=acme&topic=marketing").await.ok();
    assert_eq!(stands["decision"], "suppress", "{stands}");
    tidings.stop().await;
}
