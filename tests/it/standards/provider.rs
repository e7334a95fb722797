//! A mailbox provider, as Gmail, Yahoo and Outlook act towards a sender, and the scanners before them.
//!
//! It knows nothing of Tidings but the mail that came. It checks the unsubscribe fields as RFC 8058 §3.1 asks, and speaks
//! HTTP over a bare socket, so that nothing is sent but what stands in the test. Links in mail are `https:`; as in every
//! installation a proxy has ended TLS, and what arrives is the plain request with the link's own host.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tidings::config::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use crate::harness::{Api, Database, Tidings, Transaction, tools};

/// The host of every link.
pub(crate) const HOST: &str = "mail.example.com";
/// The body that RFC 8058 §3.1 asks for; 26 octets.
pub(crate) const ONE_CLICK: &str = "List-Unsubscribe=One-Click";
pub(crate) const URLENCODED: &str = "application/x-www-form-urlencoded";

/// Links that begin with `https:`, as in every installation that people can reach.
pub(crate) fn public(settings: &mut Settings) {
    settings.base_url = Url::parse(&format!("https://{HOST}")).unwrap();
}

/// Tidings with links as the world sees them and everything that is needed to send.
pub(crate) async fn start(database: Database) -> Tidings {
    let tidings = Tidings::start_with(database, public).await;
    tidings.ready_to_send().await;
    tidings
}

/// The address of one of `Tidings::recipients`.
pub(crate) fn person(n: usize) -> String {
    format!("p{n}@people.example.com")
}

/// What Python's `email` and listunsub read in these messages: `names`, `text`, `html`, `problems`, `clicks` of each.
pub(crate) fn read_by_others(mails: &[Transaction]) -> Vec<Value> {
    let raw: Vec<String> = mails.iter().map(|mail| STANDARD.encode(&mail.data)).collect();
    let read = tools::run_json(tools::python("read_unsubscribe.py"), serde_json::to_vec(&raw).unwrap());
    let read = read.as_array().unwrap().clone();
    assert_eq!(read.len(), mails.len());
    read
}

/// The one-click link of a message, found and checked as a receiver does it.
#[derive(Clone, Debug)]
pub(crate) struct OneClick(Url);

impl OneClick {
    /// Reads the raw octets: one field of each name, one `https:` URI, the other field octet for octet.
    #[track_caller]
    pub(crate) fn of(mail: &Transaction) -> Self {
        let text = mail.text();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let named = |name: &str| {
            let mut found = Vec::new();
            for line in head.split("\r\n") {
                if line.starts_with([' ', '\t']) {
                    continue;
                }
                if line.split(':').next().is_some_and(|field| field.eq_ignore_ascii_case(name)) {
                    found.push(line);
                }
            }
            found
        };
        assert_eq!(named("List-Unsubscribe").len(), 1, "{head}");
        // Octet for octet, on one line, no encoded word.
        assert_eq!(
            named("List-Unsubscribe-Post"),
            ["List-Unsubscribe-Post: List-Unsubscribe=One-Click"],
            "{head}"
        );
        let after = head.split("List-Unsubscribe-Post: List-Unsubscribe=One-Click").nth(1).unwrap();
        assert!(!after.starts_with("\r\n ") && !after.starts_with("\r\n\t"), "the field is folded: {head}");
        let value = mail.header("List-Unsubscribe").unwrap();
        let uris: Vec<&str> = value
            .split(',')
            .map(|uri| {
                let inner = uri.trim().strip_prefix('<').and_then(|uri| uri.strip_suffix('>'));
                inner.unwrap_or_else(|| panic!("no angle brackets around {uri:?}"))
            })
            .collect();
        assert!(!uris.iter().any(|uri| uri.contains(char::is_whitespace)), "{value}");
        let of_scheme = |scheme: &str| uris.iter().filter(|uri| uri.starts_with(scheme)).count();
        assert_eq!((of_scheme("https://"), of_scheme("http:")), (1, 0), "{value}");
        let url = uris.iter().find(|uri| uri.starts_with("https://")).unwrap();
        Self(Url::parse(url).unwrap())
    }

    /// The whole link.
    pub(crate) fn url(&self) -> &str {
        self.0.as_str()
    }

    /// The path, which is all that a request line names of it.
    pub(crate) fn path(&self) -> &str {
        self.0.path()
    }

    /// The token: what stands after the last slash.
    pub(crate) fn token(&self) -> &str {
        self.0.path().rsplit('/').next().unwrap()
    }
}

/// A request, written as it goes over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// What it shows, for messages of failed assertions.
    pub(crate) name: String,
    pub(crate) method: &'static str,
    pub(crate) version: &'static str,
    /// The headers after `Host`, one a line, without line ends.
    pub(crate) headers: Vec<String>,
    /// What stands for `Host`; nothing leaves it out.
    pub(crate) host: Option<String>,
    /// The body in the pieces in which it is written.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Whether to wait for `100 Continue` before the body.
    pub(crate) waits: bool,
}

impl Request {
    /// A request without a body.
    pub(crate) fn bare(method: &'static str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            method,
            version: "HTTP/1.1",
            headers: Vec::new(),
            host: Some(HOST.to_owned()),
            pieces: Vec::new(),
            waits: false,
        }
    }

    /// A POST of this body with nothing but Host, Content-Type and Content-Length.
    pub(crate) fn post(name: &str, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let headers =
            vec![format!("Content-Type: {content_type}"), format!("Content-Length: {}", body.len())];
        Self { headers, pieces: vec![body.to_vec()], ..Self::bare("POST", name) }
    }

    /// What Gmail publishes: 26 octets, urlencoded.
    pub(crate) fn one_click(name: &str) -> Self {
        Self::post(name, URLENCODED, ONE_CLICK)
    }

    /// The body in chunks of these lengths in turn, each written by itself.
    pub(crate) fn chunked(name: &str, content_type: &str, body: &str, lengths: &[usize]) -> Self {
        let mut pieces = Vec::new();
        let mut rest = body.as_bytes();
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*length).min(rest.len()));
            let mut piece = format!("{:x};part={}\r\n", chunk.len(), pieces.len()).into_bytes();
            piece.extend_from_slice(chunk);
            piece.extend_from_slice(b"\r\n");
            pieces.push(piece);
            rest = after;
        }
        pieces.push(b"0\r\nX-Trailer: 1\r\n\r\n".to_vec());
        let headers = vec![format!("Content-Type: {content_type}"), "Transfer-Encoding: chunked".to_owned()];
        Self { headers, pieces, ..Self::bare("POST", name) }
    }

    /// With these headers before its own.
    pub(crate) fn with(mut self, headers: &[&str]) -> Self {
        self.headers.splice(0..0, headers.iter().map(|header| (*header).to_owned()));
        self
    }

    /// Sends it to this target of the request line and reads the whole answer.
    pub(crate) async fn send(&self, to: &Api, target: &str) -> Reply {
        let address = to.base.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut wire = Wire { stream, read: Vec::new() };
        let mut head = format!("{} {target} {}\r\n", self.method, self.version);
        for header in self.host.iter().map(|host| format!("Host: {host}")).chain(self.headers.iter().cloned())
        {
            head.push_str(&header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        wire.stream.write_all(head.as_bytes()).await.unwrap();
        if self.waits {
            let interim = wire.head().await;
            assert!(interim.starts_with("HTTP/1.1 100 "), "{}: {interim}", self.name);
        }
        for piece in &self.pieces {
            wire.stream.write_all(piece).await.unwrap();
            wire.stream.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        wire.reply(self.method).await
    }
}

/// A connection, and what was read of it and not looked at yet.
struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    async fn more(&mut self) -> bool {
        self.stream.read_buf(&mut self.read).await.unwrap_or(0) > 0
    }

    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|octets| octets == b"\r\n\r\n") {
                let rest = self.read.split_off(end + 4);
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
            }
            assert!(self.more().await, "no answer: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    async fn reply(mut self, method: &str) -> Reply {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        let mut reply = Reply { status, head, body: Vec::new() };
        let closes = reply.header("connection").is_some_and(|word| word.eq_ignore_ascii_case("close"));
        let length = reply.header("content-length").and_then(|length| length.parse::<usize>().ok());
        match length {
            Some(length) if !closes && method != "HEAD" => {
                while self.read.len() < length && self.more().await {}
            }
            _ if !closes && (method == "HEAD" || status == 204) => {}
            // To the end of the connection: nothing that follows is missed.
            _ => while self.more().await {},
        }
        reply.body = self.read;
        reply
    }
}

/// An answer, as it came over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The headers but those that differ from answer to answer: lines in order.
    pub(crate) fn lasting_headers(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.head.split("\r\n").filter(|line| !line.is_empty()).collect();
        lines.retain(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            !["date", "x-request-id"].contains(&name.as_str())
        });
        lines
    }

    /// Asserts what RFC 8058 §3.1 asks of the answer to a click: success, nowhere else to go, nothing to remember.
    #[track_caller]
    pub(crate) fn honours_a_click(&self, what: &str) {
        assert_eq!(self.status, 200, "{what}: {}{}", self.head, String::from_utf8_lossy(&self.body));
        for header in ["Location", "Refresh", "Set-Cookie", "WWW-Authenticate"] {
            assert_eq!(self.header(header), None, "{what}: {}", self.head);
        }
    }
}
