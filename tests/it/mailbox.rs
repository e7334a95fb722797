//! The embedded mailbox: real SMTP in, harmless pages out.

use std::time::Duration;

use tidings::clock::{Deadline, Instant};
use tidings::decision::{Class, Facts, Lease, decide};
use tidings::id::{DeliveryId, LeaseToken};
use tidings::mailbox::Mailbox;
use tidings::message::Message;
use tidings::relay::{Outcome, Parcel, Relay, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A mailbox and its pages over real HTTP.
struct Shown {
    mailbox: Mailbox,
    base: String,
}

async fn shown() -> Shown {
    let mailbox = Mailbox::start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = mailbox.router::<()>();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Shown { mailbox, base }
}

impl Shown {
    async fn get(&self, path: &str) -> (u16, String, reqwest::header::HeaderMap) {
        let answer = reqwest::get(format!("{}{path}", self.base)).await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, answer.text().await.unwrap(), headers)
    }

    async fn page(&self, path: &str) -> String {
        let (status, body, headers) = self.get(path).await;
        assert_eq!(status, 200, "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        body
    }

    async fn deliver(&self, to: &str, message: &[u8]) -> u64 {
        deliver(&self.mailbox, to, message).await
    }
}

/// Hands a message over as it is, dots stuffed, and waits until it is kept.
pub(crate) async fn deliver(mailbox: &Mailbox, to: &str, message: &[u8]) -> u64 {
    let mut count = mailbox.count();
    let before = *count.borrow();
    let mut talk = Talk::open(mailbox).await;
    talk.said("220").await;
    talk.ask(format!("EHLO t\r\nMAIL FROM:<s@x.example>\r\nRCPT TO:<{to}>\r\nDATA\r\n").as_bytes()).await;
    talk.said("354").await;
    let mut stuffed = Vec::new();
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    talk.ask(&stuffed).await;
    talk.ask(b"\r\n.\r\nQUIT\r\n").await;
    talk.said("221").await;
    tokio::time::timeout(Duration::from_secs(10), count.wait_for(|&now| now > before))
        .await
        .unwrap()
        .unwrap();
    before + 1
}

struct Talk(TcpStream, String);

impl Talk {
    async fn open(mailbox: &Mailbox) -> Self {
        Self(TcpStream::connect(mailbox.smtp_addr()).await.unwrap(), String::new())
    }

    async fn ask(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Reads until a line of this code ends a reply.
    async fn said(&mut self, code: &str) -> String {
        let wanted = format!("{code} ");
        loop {
            if let Some(at) = self.1.lines().position(|line| line.starts_with(&wanted)) {
                let lines: Vec<String> = self.1.lines().map(str::to_owned).collect();
                self.1 = lines[at + 1..].iter().map(|line| format!("{line}\r\n")).collect();
                return lines[at].clone();
            }
            let mut buffer = [0; 4096];
            let read = tokio::time::timeout(Duration::from_secs(10), self.0.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("no {code} in {:?}", self.1)).unwrap();
            assert!(read > 0, "closed before {code}, after {:?}", self.1);
            self.1.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    }

    async fn closed(&mut self) {
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), self.0.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}

pub(crate) const MAIL: &str = "From: =?utf-8?q?B=C3=BCcher_AG?= <news@books.example>\r\n\
To: Ada <ada@b.example>\r\n\
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_=3Cb=3E?=\r\n\
List-Unsubscribe: <http://127.0.0.1:8080/u/abc>,\r\n <mailto:u@x.example>\r\n\
List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\
MIME-Version: 1.0\r\n\
Content-Type: multipart/alternative; boundary=b\r\n\r\n\
--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nthe plain words & more\r\n..dots\r\n\
--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<!doctype html><p>the <b>rich</b> words</p><script>alert(1)</script>\r\n--b--\r\n";

#[tokio::test]
async fn what_is_sent_is_listed_and_shown() {
    let shown = shown().await;
    assert!(shown.page("/mailbox").await.contains("No mail yet"));
    let id = shown.deliver("ada@b.example", MAIL.as_bytes()).await;
    let list = shown.page("/mailbox").await;
    assert!(list.contains("Grüße &lt;b&gt;") && list.contains("ada@b.example") && list.contains("Bücher AG"));
    let page = shown.page(&format!("/mailbox/{id}")).await;
    assert!(
        page.contains("<iframe") && page.contains("sandbox=\"allow-popups allow-popups-to-escape-sandbox\"")
    );
    assert!(page.contains("action=\"http://127.0.0.1:8080/u/abc\""), "{page}");
    assert!(!page.contains("the <b>rich</b>"), "the HTML stands in its frame alone");
    let (_, part, headers) = shown.get(&format!("/mailbox/{id}/part")).await;
    assert!(
        part.starts_with("<!doctype html><base target=\"_blank\"><p>the <b>rich</b> words</p>"),
        "{part}"
    );
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("sandbox allow-popups") && !policy.contains("script"), "{policy}");
    let text = shown.page(&format!("/mailbox/{id}/text")).await;
    assert!(
        text.contains("the plain words &amp; more\n..dots")
            || text.contains("the plain words &amp; more\r\n..dots")
    );
    assert!(shown.page(&format!("/mailbox/{id}/headers")).await.contains("List-Unsubscribe-Post"));
    assert!(shown.page(&format!("/mailbox/{id}/source")).await.contains("&lt;script&gt;alert(1)"));
    let (_, source, _) = shown.get(&format!("/mailbox/messages/{id}/source")).await;
    assert_eq!(source, MAIL.to_owned() + "\r\n");
    assert_eq!(shown.mailbox.messages_to("ADA@b.example").len(), 1);
    assert_eq!(shown.mailbox.find(id).unwrap().bytes, source.as_bytes());
}

#[tokio::test]
async fn the_list_is_searched_and_paged() {
    let shown = shown().await;
    for n in 0..60 {
        let subject = if n % 2 == 0 { "even" } else { "odd" };
        shown
            .deliver(&format!("u{n}@b.example"), format!("Subject: {subject}\r\n\r\nx\r\n").as_bytes())
            .await;
    }
    let first = shown.page("/mailbox").await;
    assert!(first.contains("u59@") && first.contains("u10@") && !first.contains("u9@"));
    assert!(first.contains("/mailbox?before&#x3D;11") || first.contains("/mailbox?before=11"), "{first}");
    let second = shown.page("/mailbox?before=11").await;
    assert!(second.contains("u9@") && second.contains("u0@") && !second.contains("Older"));
    let odd = shown.page("/mailbox?q=ODD").await;
    assert!(odd.contains("u59@") && !odd.contains("u58@"));
    let (_, json, _) = shown.get("/mailbox/messages.json?q=u5%40b&limit=5").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["items"].as_array().unwrap().len(), &json["received"]), (1, &60.into()));
    assert_eq!(json["items"][0]["to"][0], "u5@b.example");
    assert!(shown.page("/mailbox?q=%3Cscript%3E").await.contains("&lt;script&gt;"));
}

#[tokio::test]
async fn hostile_mail_breaks_no_page() {
    let shown = shown().await;
    let script = "</pre></textarea></title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let nested = |levels: usize| {
        let mut mail = format!("Subject: deep {levels}\r\n");
        for n in 0..levels {
            mail.push_str(&format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"));
        }
        mail.push_str("Content-Type: text/html\r\n\r\n<p>bottom</p>\r\n");
        mail
    };
    let forwarded = |levels: usize| {
        "Subject: m\r\nContent-Type: message/rfc822\r\n\r\n".repeat(levels)
            + "Subject: inner\r\n\r\nbottom\r\n"
    };
    let mails: Vec<Vec<u8>> = vec![
        format!("Subject: {script}\r\nFrom: {script}\r\nTo: {script}\r\n\r\n{script}\r\n").into(),
        format!("Subject: h\r\nContent-Type: text/html; charset=\"{script}\"\r\n\r\n{script}\r\n").into(),
        format!("{script}: {script}\r\n\r\n").into(),
        b"Subject: \xff\xfe\x00\x1b[31m\r\nContent-Type: text/plain; charset=utf-7\r\n\r\n+ADw-script+AD4-\xc3\x28\r\n".to_vec(),
        b"Content-Type: text/html; charset=utf-16\r\n\r\n\xd8\x00<\x00s\r\n".to_vec(),
        b"\r\n".to_vec(),
        b"".to_vec(),
        b"no header at all".to_vec(),
        b"Subject: x\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!====\r\n".to_vec(),
        nested(1_000).into(),
        nested(60_000).into(),
        forwarded(1_000).into(),
        forwarded(100_000).into(),
        nested(150).into(),
        forwarded(150).into(),
        format!("Subject: {}\r\n\r\nx\r\n", "long ".repeat(100_000)).into(),
        b"List-Unsubscribe: <javascript:alert(1)>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\nx".to_vec(),
        b"List-Unsubscribe: <https://x.example/;script-src%20*\"'>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\nx".to_vec(),
    ];
    for mail in &mails {
        let id = shown.deliver("victim@b.example", mail).await;
        for tab in ["", "/html", "/text", "/headers", "/source"] {
            let page = shown.page(&format!("/mailbox/{id}{tab}")).await;
            assert!(
                !page.contains("<script")
                    && !page.contains("<img")
                    && !page.contains("javascript:alert(1)\"")
            );
            assert!(page.contains("</html>"));
        }
        let (status, _, headers) = shown.get(&format!("/mailbox/{id}/part")).await;
        assert!(status == 200 || status == 404);
        if status == 200 {
            assert!(headers["content-security-policy"].to_str().unwrap().contains("sandbox"));
        }
        let (_, _, headers) = shown.get(&format!("/mailbox/messages/{id}/source")).await;
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }
    let list = shown.page("/mailbox").await;
    assert!(!list.contains("<script") && !list.contains("<img"));
    let (_, json, _) = shown.get("/mailbox/messages.json").await;
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
    for path in ["/mailbox/0", "/mailbox/99999", "/mailbox/x", "/mailbox/-1", "/mailbox/18446744073709551615"]
    {
        assert_eq!(shown.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn nothing_inside_a_message_is_taken_for_a_command() {
    let shown = shown().await;
    for smuggled in ["\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\n.\r"] {
        let before = *shown.mailbox.count().borrow();
        let mut talk = Talk::open(&shown.mailbox).await;
        talk.ask(b"EHLO t\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n").await;
        talk.said("354").await;
        let body = format!(
            "Subject: s\r\n\r\nx{smuggled}MAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@x.example>\r\nDATA\r\nevil"
        );
        talk.ask(body.as_bytes()).await;
        talk.ask(b"\r\n.\r\nQUIT\r\n").await;
        talk.said("221").await;
        assert_eq!(*shown.mailbox.count().borrow(), before + 1, "{smuggled:?}");
        assert!(shown.mailbox.messages_to("victim@x.example").is_empty());
    }
}

#[tokio::test]
async fn limits_hold() {
    let shown = shown().await;
    let mut talk = Talk::open(&shown.mailbox).await;
    talk.ask(b"EHLO t\r\nMAIL FROM:<a@x.example> SIZE=99999999\r\n").await;
    talk.said("552").await;
    talk.ask(b"DATA\r\n").await;
    talk.said("503").await;
    talk.ask(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n").await;
    talk.said("354").await;
    let line = [b'x'; 1022].iter().copied().chain(*b"\r\n").collect::<Vec<u8>>();
    for _ in 0..10_300 {
        talk.ask(&line).await;
    }
    talk.ask(b".\r\n").await;
    assert!(talk.said("552").await.contains("5.3.4"));
    // The connection is as good as before, and a dot at once is an empty message.
    talk.ask(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n.\r\n").await;
    talk.said("250").await;
    talk.ask(b"NOOP\r\n").await;
    talk.said("354").await;
    assert_eq!(shown.mailbox.messages().len(), 1);
    for _ in 0..101 {
        talk.ask(b"RCPT TO:<b@x.example>\r\n").await;
    }
    talk.said("421").await;
    talk.closed().await;
    let mut talk = Talk::open(&shown.mailbox).await;
    talk.ask(&[b'x'; 10_000]).await;
    talk.said("500").await;
    let mut talk = Talk::open(&shown.mailbox).await;
    talk.ask(b"EHLO t\r\nMAIL FROM:<>\r\n").await;
    for _ in 0..101 {
        talk.ask(b"RCPT TO:<b@x.example>\r\n").await;
    }
    talk.said("452").await;
}

/// Every message of up to three lines that dots could spoil, on one connection. Without TCP_NODELAY each would wait
/// 40 ms for a delayed ACK.
#[tokio::test]
async fn what_the_relay_client_hands_over_arrives_octet_by_octet_and_at_once() {
    let mailbox = Mailbox::start().await.unwrap();
    let relay = Relay::from_url(&mailbox.relay_url(), "here.example", Timeouts::default()).unwrap();
    let mut connection = relay.connect().await.unwrap_or_else(|outcome| panic!("{outcome:?}"));
    let until = Deadline::at(Instant::now().plus(Duration::from_secs(600)));
    let lines = ["", ".", "..", "a", ".a", "a."];
    let mut bodies: Vec<String> = vec![String::new()];
    for length in 1..=3 {
        let shorter: Vec<String> =
            bodies.iter().filter(|b| b.matches("\r\n").count() == length - 1).cloned().collect();
        bodies.extend(shorter.iter().flat_map(|body| lines.map(|line| format!("{body}{line}\r\n"))));
    }
    assert_eq!(bodies.len(), 1 + 6 + 36 + 216);
    let begun = std::time::Instant::now();
    for (n, body) in bodies.iter().enumerate() {
        let message = Message {
            envelope_from: format!("b.{n}@bounces.example"),
            envelope_to: "a@b.example".into(),
            message_id: format!("{n}@bounces.example"),
            bytes: format!("Subject: {n}\r\n\r\n{body}").into_bytes(),
        };
        let lease = Lease {
            delivery: DeliveryId::new(),
            token: LeaseToken::new(),
            until: until.clone(),
            asked: Instant::now(),
        };
        let clearance = decide(Class::Service, &Facts::default(), lease).unwrap();
        let outcome = connection.hand_over(Parcel { message: &message, clearance: &clearance }, None).await;
        assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
        assert_eq!(mailbox.find(n as u64 + 1).unwrap().bytes, message.bytes);
    }
    let each = begun.elapsed() / u32::try_from(bodies.len()).unwrap();
    assert!(each < Duration::from_millis(35), "{each:?} a message");
    connection.quit().await;
}

#[tokio::test]
async fn it_stops_with_its_last_handle() {
    let mailbox = Mailbox::start().await.unwrap();
    let addr = mailbox.smtp_addr();
    let mut talk = Talk::open(&mailbox).await;
    talk.said("220").await;
    drop(mailbox);
    talk.closed().await;
    assert!(TcpStream::connect(addr).await.is_err());
}
