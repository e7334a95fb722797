//! A relay of the harness's own: it answers each batch of what it read after a while, measures how long its answers
//! really took, and keeps the unsubscribe links of what it takes over.
//!
//! It offers PIPELINING and understands as much of SMTP as a client that is well needs.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::Outcome;

const END: &[u8] = b"\r\n.\r\n";
const EHLO: &str = "250-relay.example.com\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 26214400\r\n250 ENHANCEDSTATUSCODES\r\n";

/// The running relay. It stops when dropped.
pub(crate) struct OwnRelay {
    port: u16,
    seen: Arc<Seen>,
    task: AbortHandle,
}

#[derive(Default)]
struct Seen {
    messages: AtomicU64,
    replies: AtomicU64,
    reply_nanos: AtomicU64,
    links: Mutex<Vec<String>>,
}

/// How it answers.
#[derive(Clone, Copy)]
struct Manners {
    after: Option<Duration>,
    keeps_links: bool,
}

impl OwnRelay {
    /// A relay that answers each batch after so long.
    pub(crate) async fn slow(after: Duration) -> Outcome<Self> {
        Self::start(Manners { after: Some(after), keeps_links: false }).await
    }

    /// A relay that answers at once and keeps the links.
    pub(crate) async fn keeping_links() -> Outcome<Self> {
        Self::start(Manners { after: None, keeps_links: true }).await
    }

    async fn start(manners: Manners) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // How a connection ends does not matter: messages are counted.
                tokio::spawn(serve(client, manners, Arc::clone(&shared)));
            }
        });
        Ok(Self { port, seen, task: task.abort_handle() })
    }

    /// Where Tidings reaches it.
    pub(crate) fn relay_url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    /// How many messages it took over.
    pub(crate) fn count(&self) -> u64 {
        self.seen.messages.load(Ordering::Relaxed)
    }

    /// How long its answers took on average: from having read a batch until its answers were written.
    pub(crate) fn reply_time(&self) -> Duration {
        let replies = self.seen.replies.load(Ordering::Relaxed).max(1);
        Duration::from_nanos(self.seen.reply_nanos.load(Ordering::Relaxed) / replies)
    }

    /// The unsubscribe links of all messages so far.
    pub(crate) fn links(&self) -> Vec<String> {
        self.seen.links.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for OwnRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, manners: Manners, seen: Arc<Seen>) -> Outcome<()> {
    client.set_nodelay(true)?;
    client.write_all(b"220 relay.example.com ESMTP\r\n").await?;
    let mut dialogue = Dialogue { heard: Vec::new(), in_body: false, searched: 0 };
    loop {
        if client.read_buf(&mut dialogue.heard).await? == 0 {
            return Ok(());
        }
        read_the_rest(&client, &mut dialogue.heard)?;
        let read = Instant::now();
        let (answers, leaves) = dialogue.answers(manners, &seen);
        if answers.is_empty() {
            continue;
        }
        if let Some(after) = manners.after {
            tokio::time::sleep(after).await;
        }
        client.write_all(answers.as_bytes()).await?;
        let took = u64::try_from(read.elapsed().as_nanos())?;
        seen.reply_nanos.fetch_add(took, Ordering::Relaxed);
        seen.replies.fetch_add(1, Ordering::Relaxed);
        if leaves {
            return Ok(());
        }
    }
}

/// What came in one write may take several reads.
fn read_the_rest(client: &TcpStream, heard: &mut Vec<u8>) -> Outcome<()> {
    loop {
        match client.try_read_buf(heard) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

struct Dialogue {
    heard: Vec<u8>,
    in_body: bool,
    /// How far the body was searched for its end.
    searched: usize,
}

impl Dialogue {
    /// The answers to all that is complete, and whether the client takes leave.
    fn answers(&mut self, manners: Manners, seen: &Seen) -> (String, bool) {
        let mut answers = String::new();
        loop {
            if self.in_body {
                let Some(end) = self.end_of_body() else { return (answers, false) };
                if manners.keeps_links
                    && let Some(link) = one_click(&self.heard[..end])
                {
                    seen.links.lock().unwrap_or_else(PoisonError::into_inner).push(link);
                }
                self.heard.drain(..end + END.len());
                self.in_body = false;
                seen.messages.fetch_add(1, Ordering::Relaxed);
                answers.push_str("250 2.0.0 taken over\r\n");
            }
            let Some(end) = self.heard.windows(2).position(|two| two == b"\r\n") else {
                return (answers, false);
            };
            let line = String::from_utf8_lossy(&self.heard[..end]).to_ascii_uppercase();
            self.heard.drain(..end + 2);
            match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => answers.push_str(EHLO),
                "HELO" | "NOOP" | "RSET" | "MAIL" | "RCPT" => answers.push_str("250 2.0.0 well\r\n"),
                "DATA" => {
                    self.in_body = true;
                    self.searched = 0;
                    answers.push_str("354 go on\r\n");
                }
                "QUIT" => {
                    answers.push_str("221 2.0.0 until soon\r\n");
                    return (answers, true);
                }
                _ => answers.push_str("500 5.5.2 not understood\r\n"),
            }
        }
    }

    fn end_of_body(&mut self) -> Option<usize> {
        let from = self.searched.saturating_sub(END.len());
        let found = self.heard[from..].windows(END.len()).position(|five| five == END);
        self.searched = self.heard.len();
        found.map(|at| from + at)
    }
}

/// The link of the List-Unsubscribe header, which is folded.
fn one_click(mail: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(mail);
    let (_, rest) = text.split_once("\nList-Unsubscribe:")?;
    let (link, _) = rest.split_once('<')?.1.split_once('>')?;
    Some(link.split_whitespace().collect())
}
