//! H8: bodies that nobody wants, and the next request on their connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::*;
use crate::unsubscribe_page::{ADA, decision, path, set_up};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The status and the head, in lower case, of each answer on one connection to these words, until the server hangs up or
/// has answered the last request, for `/healthz`.
async fn answers(tidings: &Tidings, head: &str, body: &[u8]) -> Vec<String> {
    let mut stream = TcpStream::connect(tidings.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // Apart from the head, as many clients send it; the server may have hung up already.
    let _ = stream.write_all(body).await;
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut said = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    let _ = read.expect("the connection is kept");
    let said = String::from_utf8_lossy(&said).to_ascii_lowercase();
    said.split("http/1.1 ").skip(1).map(str::to_owned).collect()
}

/// Which statuses came, whether the first answer announces that it is the last one.
async fn told(tidings: &Tidings, head: &str, body: &[u8]) -> (Vec<String>, bool) {
    let answers = answers(tidings, head, body).await;
    let last = answers.first().is_some_and(|first| first.contains("\r\nconnection: close\r\n"));
    (answers.iter().map(|answer| answer[..3].to_owned()).collect(), last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h8_a_body_that_was_not_read_never_spoils_the_next_request() {
    let tidings = set_up(Database::sqlite()).await;
    let link = path(&tidings, "marketing", ADA).await;
    let with_length = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
    };
    let large = vec![b'x'; 70_000];
    let chunked = |pieces: usize| {
        let mut body = Vec::new();
        for _ in 0..pieces {
            body.extend_from_slice(format!("{:x}\r\n", large.len()).as_bytes());
            body.extend_from_slice(&large);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        body
    };
    let in_chunks = format!("POST {link} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (what, status, head, body) in [
        ("too large", "413", with_length(&link, large.len()), large.clone()),
        ("too large in chunks", "413", in_chunks.clone(), chunked(1)),
        ("for no link", "404", with_length("/u/unknown", 26), b"List-Unsubscribe=One-Click".to_vec()),
        ("large for no link", "404", with_length("/u/unknown", large.len()), large.clone()),
        ("for another method", "405", with_length(&link, 5).replace("POST", "PUT"), b"a=b&c".to_vec()),
        ("for nothing", "404", with_length("/nowhere", 5), b"a=b&c".to_vec()),
        ("without a key", "401", with_length("/api/v1/campaigns", large.len()), large.clone()),
    ] {
        let told = told(&tidings, &head, &body).await;
        assert_eq!(told, (vec![status.to_owned(), "200".to_owned()], false), "{what}");
    }
    // One without end is not read to its end; that the connection is over is said.
    for (what, head, body) in [
        ("huge", with_length(&link, 1 << 30), Vec::new()),
        (
            "asked about",
            with_length(&link, 70_000).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"),
            Vec::new(),
        ),
    ] {
        assert_eq!(told(&tidings, &head, &body).await, (vec!["413".to_owned()], true), "{what}");
    }
    assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
    tidings.stop().await;
}
