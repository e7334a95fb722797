//! One-click POSTs as mailbox providers send them, by a client that costs as little as it can: the harness shares its cores
//! with what it measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Outcome;

/// Clients, each with one connection that it keeps.
pub(crate) const CLIENTS: usize = 32;

/// What the clicks came to. Every one was answered 200.
pub(crate) struct Clicked {
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// Answers that said anything but `"settled": true`; none when nobody asked for JSON.
    pub(crate) unsettled: usize,
    /// How long each waited, the shortest first.
    waits: Vec<Duration>,
}

impl Clicked {
    /// Clicks a second.
    pub(crate) fn rate(&self) -> f64 {
        self.waits.len() as f64 / self.took.as_secs_f64()
    }

    /// The wait that so many of a thousand did not exceed, in milliseconds.
    pub(crate) fn wait_ms(&self, thousandths: usize) -> f64 {
        at_share(&self.waits, thousandths).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    }
}

/// The value that so many of a thousand of these do not exceed; they are in order.
pub(crate) fn at_share<T: Copy>(ordered: &[T], thousandths: usize) -> Option<T> {
    ordered.get(ordered.len() * thousandths / 1000).or(ordered.last()).copied()
}

/// How an answer is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// For nothing, as mailbox providers do.
    Nothing,
    /// For JSON, which says whether it is settled.
    Json,
}

/// Follows each link once.
pub(crate) async fn click(listen: &str, links: &Arc<Vec<String>>, asks: Asks) -> Outcome<Clicked> {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(listen.to_owned(), Arc::clone(links), Arc::clone(&next), asks));
    }
    let (mut waits, mut unsettled) = (Vec::new(), 0);
    while let Some(done) = clients.join_next().await {
        let (own, not_settled) = done??;
        waits.extend(own);
        unsettled += not_settled;
    }
    let took = begun.elapsed();
    waits.sort_unstable();
    Ok(Clicked { took, unsettled, waits })
}

async fn client(
    listen: String,
    links: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    asks: Asks,
) -> Outcome<(Vec<Duration>, usize)> {
    let mut stream = connect(&listen).await?;
    let mut answer = Vec::new();
    let (mut waits, mut unsettled) = (Vec::new(), 0);
    loop {
        let Some(link) = links.get(next.fetch_add(1, Ordering::Relaxed)) else {
            return Ok((waits, unsettled));
        };
        let accept = if asks == Asks::Json { "Accept: application/json\r\n" } else { "" };
        let path = link.find("/u/").map_or("/", |at| &link[at..]);
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {listen}\r\n{accept}Content-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: 26\r\n\r\nList-Unsubscribe=One-Click"
        );
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let body = read_answer(&mut stream, &mut answer).await?;
        waits.push(begun.elapsed());
        let (head, body) = answer.split_at(body);
        if !head.starts_with(b"HTTP/1.1 200") {
            let line = String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned();
            return Err(format!("a click was answered {line}").into());
        }
        let settled = String::from_utf8_lossy(body).replace(' ', "").contains("\"settled\":true");
        if asks == Asks::Json && !settled {
            unsettled += 1;
        }
        if names_value(head, "connection", "close").is_some() {
            stream = connect(&listen).await?;
        }
    }
}

async fn connect(listen: &str) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(listen).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer whole and says where its body begins.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Outcome<usize> {
    answer.clear();
    let mut body = None;
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err("the connection was closed in the middle of an answer".into());
        }
        if body.is_none()
            && let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let length =
                header(&answer[..end], "content-length").ok_or("an answer without Content-Length")?;
            body = Some((end + 4, length.parse::<usize>()?));
        }
        if let Some((begins, length)) = body
            && answer.len() >= begins + length
        {
            return Ok(begins);
        }
    }
}

fn header(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut values = fields.filter(|(is, _)| is.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    values.next().map(str::to_owned)
}

fn names_value(head: &[u8], name: &str, value: &str) -> Option<()> {
    header(head, name)?.eq_ignore_ascii_case(value).then_some(())
}
