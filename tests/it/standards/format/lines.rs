//! Octets on the wire: the length of lines, their ends, dots, and that no text ends a message before its time: F1, F2.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use secrecy::SecretString;
use serde_json::{Value, json};

use crate::harness::readers::read_all;
use crate::harness::{Database, Tidings, Transaction, free_address, one_click_link, wait_until};

/// What has made two messages of one at servers that take less than CRLF for a line's end.
const SMUGGLING: [&str; 9] = [
    "\r\n.\r\n",
    "\n.\n",
    "\r.\r",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r\n",
    "\r\n.\r",
    "\n\n.\r\r\n",
    "\u{85}.\u{85}\u{2028}.\u{2028}",
];
const SMUGGLED: &str = "MAIL FROM:<evil@evil.example>\r\nRCPT TO:<victim@people.example.com>\r\nDATA\r\nSubject: evil\r\n\r\nevil";

/// Whether every CR and LF is one of a CRLF and nothing is NUL or over 7 bits.
fn has_whole_lines(octets: &[u8]) -> bool {
    let rest = String::from_utf8(octets.to_vec()).unwrap().replace("\r\n", "");
    rest.is_ascii() && !rest.contains(['\r', '\n', '\0'])
}

async fn single(tidings: &Tidings, topic: &str, email: &str, data: Value) {
    let body = json!({
        "brand": "acme", "topic": topic, "template": "hello", "to": { "email": email, "name": "Ann" }, "data": data,
    });
    tidings.post("/messages", body).await.is(202);
}

async fn template(tidings: &Tidings, subject: &str, html: &str, text: &str) {
    let body = json!({ "subject": subject, "html": html, "text": text, "classes": ["service", "marketing"] });
    tidings.put("/templates/hello", body).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_no_line_is_longer_than_998_octets_whatever_is_given() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let long = "x".repeat(1_500);
    let with_spaces = "wörd ".repeat(300);
    let html = format!("<p>{long}</p><p>{with_spaces}{{{{data.a}}}}</p>");
    template(&tidings, "{{data.a}}", &html, &format!("{long}\n{with_spaces}{{{{data.a}}}}\n")).await;
    // As long as each may be: names, and what links begin with.
    let base = format!("https://mail.example.com/{}", "p".repeat(470));
    let brand = json!({
        "name": "n".repeat(200), "from": format!("\"{}\" <news@acme.example.com>", "A, ".repeat(66)), "base_url": base,
        "reply_to": format!("{} <help@acme.example.com>", "w".repeat(200)), "postal_address": "x".repeat(400),
    });
    tidings.put("/brands/acme", brand).await.ok();
    tidings.topic_with("acme", "marketing", json!({ "class": "marketing" })).await;
    let token = "t".repeat(300);
    for (n, value) in [token, "x".repeat(1_900), "é".repeat(900), "a b ".repeat(400)].into_iter().enumerate()
    {
        single(&tidings, "marketing", &format!("p{n}@people.example.com"), json!({ "a": value })).await;
    }
    let mails = tidings.smtp.wait_for(4).await;
    for mail in &mails {
        let longest = mail.raw.split(|&octet| octet == b'\n').map(|line| line.len().saturating_sub(1)).max();
        assert!(longest.is_some_and(|longest| longest <= 998), "{longest:?}");
        assert!(one_click_link(mail).starts_with(&base));
        // What can be folded is within what RFC 5322 recommends: a link or another long word cannot.
        for line in mail.text().split("\r\n").filter(|line| line.trim().split(' ').count() > 2) {
            assert!(line.len() <= 78, "{line}");
        }
    }
    read_all(mails.iter().map(|mail| mail.data.as_slice()));
    let brand = json!({
        "name": "n", "from": "news@acme.example.com", "postal_address": "1 Main Street",
        "base_url": format!("https://mail.example.com/{}", "p".repeat(500)),
    });
    assert!(tidings.put("/brands/acme", brand).await.refuses("/base_url").contains("500"));
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_lines_end_in_crlf_alone_whatever_ends_them_in_what_is_given() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let ends = ["\n", "\r\n", "\r", "\n\r", "\r\r\n", "\n\n", "\u{2028}", "\u{85}"];
    let mut count = 0;
    for end in ends {
        let lines = format!("{{{{data.a}}}}one{end}two{end}{end}three{end}");
        let body = json!({ "subject": "s", "html": format!("<p>{lines}</p>"), "text": lines });
        // A CR by itself is refused in a template; in data it is taken.
        if tidings.put("/templates/hello", body).await.status.is_success() {
            single(&tidings, "marketing", &format!("t{count}@people.example.com"), json!({ "a": "" })).await;
            count += 1;
        }
    }
    assert!(count > 0);
    template(&tidings, "{{data.a}}", "<p>{{data.a}}</p>", "{{data.a}}").await;
    for end in ends {
        let lines = format!("one{end}two{end}{end}three{end}");
        single(&tidings, "marketing", &format!("d{count}@people.example.com"), json!({ "a": lines })).await;
        count += 1;
    }
    let mails = tidings.smtp.wait_for(count).await;
    for mail in &mails {
        assert!(has_whole_lines(&mail.raw), "{}", mail.text());
        assert!(mail.raw.ends_with(b"\r\n.\r\n") && !mail.mail_parameters.contains("8BITMIME"));
    }
    for reading in read_all(mails.iter().map(|mail| mail.data.as_slice())) {
        let words: Vec<&str> =
            reading.text().split(['\n', '\u{2028}', ' ']).filter(|word| !word.is_empty()).collect();
        assert!(words.concat().starts_with("onetwothree"), "{}", reading.text());
    }
    let nul = json!({ "brand": "acme", "topic": "marketing", "template": "hello", "to": { "email": "n@people.example.com" }, "data": { "a": "a\0b" } });
    tidings.post("/messages", nul).await.refuses("/data/a");
    tidings.stop().await;
}

/// Sends one message for each place where a text could smuggle one in, and gives how many.
async fn send_smuggling(tidings: &Tidings) -> usize {
    let mut count = 0;
    for (n, sequence) in SMUGGLING.into_iter().enumerate() {
        let evil = format!("before{sequence}{SMUGGLED}{sequence}QUIT\r\n");
        // In a template, where it may stand there.
        let subject = evil.replace(['\r', '\n', '\u{85}', '\u{2028}'], " ");
        let body = json!({ "subject": subject, "html": format!("<pre>{evil}</pre>"), "text": evil });
        if tidings.put("/templates/hello", body).await.status.is_success() {
            single(tidings, "marketing", &format!("t{n}@people.example.com"), json!({})).await;
            count += 1;
        }
        // In data, by way of subject, HTML and text.
        template(tidings, "{{data.a}}", "<pre>{{data.a}}{{{data.a}}}</pre>", "{{data.a}}").await;
        single(tidings, "marketing", &format!("d{n}@people.example.com"), json!({ "a": evil })).await;
        count += 1;
        // In a name: refused.
        let to = json!({ "email": format!("n{n}@people.example.com"), "name": evil });
        let body = json!({ "brand": "acme", "topic": "marketing", "template": "hello", "to": to, "data": { "a": "" } });
        tidings.post("/messages", body).await.problem(422);
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_what_would_end_a_message_elsewhere_arrives_as_text_of_one_message() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let count = send_smuggling(&tidings).await;
    let mails = tidings.smtp.wait_for(count).await;
    assert_eq!(tidings.smtp.transactions().len(), count, "one transaction each");
    for (mail, reading) in mails.iter().zip(read_all(mails.iter().map(|mail| mail.data.as_slice()))) {
        assert!(has_whole_lines(&mail.raw), "{}", mail.text());
        // The only lone dot is the last: all others are stuffed or encoded, however lines are told apart.
        let raw = String::from_utf8(mail.raw.clone()).unwrap();
        let lone = raw.split(['\r', '\n']).filter(|line| *line == ".").count();
        assert_eq!(lone, 1, "{raw}");
        assert!(
            mail.from.ends_with("@acme.example.com") && mail.recipient().ends_with("@people.example.com")
        );
        assert!(
            reading.text().contains("MAIL FROM:<evil@evil.example>")
                && reading.html().contains("Subject: evil")
        );
        assert!(!reading.names().contains(&"bcc"));
    }
    assert!(tidings.smtp.messages_to("victim@people.example.com").is_empty());
    tidings.stop().await;
}

/// Postfix's `smtp-sink`, which keeps each message in a file of its own.
struct Sink {
    child: Child,
    folder: tempfile::TempDir,
    url: String,
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sink {
    async fn start() -> Self {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut command = Command::new("/usr/sbin/smtp-sink");
        // It refuses to run as root, and gives the right to be it away.
        if std::fs::metadata(folder.path()).unwrap().uid() == 0 {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
            command.args(["-u", "nobody"]);
        }
        command.arg("-d").arg(folder.path().join("mail.")).arg(&address).arg("100");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("smtp-sink to listen", async || TcpStream::connect(&address).is_ok()).await;
        Self { child, folder, url: format!("smtp://{address}") }
    }

    /// What it has taken so far.
    fn mails(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().path());
        let mails = files.map(|file| String::from_utf8(std::fs::read(file).unwrap()).unwrap());
        mails.filter(|mail| mail.contains("X-Rcpt-Args: ")).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_postfix_reads_one_message_where_another_is_smuggled_in() {
    let sink = Sink::start().await;
    let tidings = Tidings::start_with(Database::sqlite(), |settings| {
        settings.relay_url = SecretString::from(sink.url.clone())
    })
    .await;
    tidings.ready_to_send().await;
    let count = send_smuggling(&tidings).await;
    wait_until("every delivery to be sent", async || sink.mails().len() >= count).await;
    tidings.stop().await;
    let mails = sink.mails();
    assert_eq!(mails.len(), count);
    for mail in mails {
        let head: Vec<&str> = mail.lines().take_while(|line| line.starts_with("X-")).collect();
        assert_eq!(head.iter().filter(|line| line.starts_with("X-Mail-Args: ")).count(), 1, "{mail}");
        assert!(!head.iter().any(|line| line.contains("<evil@") || line.contains("<victim@")), "{mail}");
    }
}

/// The body of a message between the header and the first part's end, as the relay has it after unstuffing.
fn text_of(mail: &Transaction) -> String {
    let reading = read_all([mail.data.as_slice()]).remove(0);
    reading.text().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t8_dots_that_begin_lines_arrive_as_they_were() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let bodies =
        [".", "..", "...", ".\n.\n", "a\n.\nb", ".a\n..b\n", "a\n\n.", &format!("{}.\n.b", "x".repeat(76))];
    for (n, body) in bodies.into_iter().enumerate() {
        template(&tidings, "s", "<p>.</p>", body).await;
        single(&tidings, "service", &format!("p{n}@people.example.com"), json!({})).await;
        let mail = tidings.smtp.wait_for_message_to(&format!("p{n}@people.example.com")).await;
        let text = text_of(&mail);
        assert!(text.starts_with(body.trim_end()), "{body:?}: {text:?}");
    }
    assert_eq!(tidings.smtp.transactions().len(), bodies.len(), "one message each");
    tidings.stop().await;
}
