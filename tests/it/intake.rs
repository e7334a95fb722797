//! The intake: refusals by mail, over SMTP and LMTP, sent by swaks and by clients that mean no good.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidings::config::Settings;
use tidings::mailbox::Mailbox;
use tidings::receiver::Limits;
use tidings::serve::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Database, Tidings, UnsubscribeMail, one_click_link, swaks, wait_until};
use crate::promises::{Store, count};

const DOMAIN: &str = "lists.example.com";
const TO: &str = "unsubscribe@lists.example.com";
const ADA: &str = "ada@people.example.com";
const BOB: &str = "bob@people.example.com";

/// Mail that unsubscribes is taken for [`DOMAIN`].
pub(crate) fn takes_mail(settings: &mut Settings) {
    settings.inbound_domain = Some(DOMAIN.to_owned());
    settings.inbound_listen = Some("127.0.0.1:0".parse().unwrap());
}

async fn start(database: Database) -> Tidings {
    start_with(database, Parts::default()).await
}

async fn start_with(database: Database, parts: Parts) -> Tidings {
    let tidings = Tidings::start_parts(database, parts, takes_mail).await;
    tidings.ready_to_send().await;
    for email in [ADA, BOB] {
        tidings.recipient(email).await;
    }
    tidings
}

/// What was said about an address: scope and channel, the newest first.
async fn said(tidings: &Tidings, email: &str) -> Vec<(Value, Value)> {
    let events = tidings.get(&format!("/opt-outs?email={email}")).await.ok();
    let of = |event: &Value| (event["scope"].clone(), event["channel"].clone());
    events["items"].as_array().unwrap().iter().map(of).collect()
}

/// `sent` or `suppressed`: how a message of this topic ends.
async fn fate(tidings: &Tidings, topic: &str, email: &str) -> String {
    let id = tidings.message("acme", topic, email).await;
    tidings.settled(&id).await["state"].as_str().unwrap().to_owned()
}

/// A client that says what a test wants.
struct Caller(TcpStream);

impl Caller {
    async fn call(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn say(&mut self, words: &[u8]) {
        self.0.write_all(words).await.unwrap();
    }

    /// Everything up to the end of the connection.
    async fn rest(mut self) -> String {
        let mut heard = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), self.0.read_to_end(&mut heard)).await;
        assert!(end.is_ok(), "it does not hang up, after {}", String::from_utf8_lossy(&heard));
        String::from_utf8(heard).unwrap()
    }

    /// Everything up to an answer of this code.
    async fn hear(&mut self, code: &str) -> String {
        let mut heard = Vec::new();
        let mut octets = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&heard).into_owned();
            if text.ends_with("\r\n") && text.lines().any(|line| line.starts_with(&format!("{code} "))) {
                return text;
            }
            let read = tokio::time::timeout(Duration::from_secs(20), self.0.read(&mut octets)).await;
            let read = read.unwrap_or_else(|_| panic!("no {code} in {text}")).unwrap();
            assert!(read > 0, "closed before {code}, after {text}");
            heard.extend_from_slice(&octets[..read]);
        }
    }
}

on_both! {
    async fn the_mailto_of_a_message_is_followed_and_only_what_must_be_got_still_arrives(database: Database) {
        let tidings = start(database).await;
        for (email, protocol) in [(ADA, "ESMTP"), (BOB, "LMTP"), ("cy@people.example.com", "SMTP")] {
            tidings.recipient(email).await;
            let mail = tidings.mail_of("acme", "marketing", email).await;
            let unsubscribe = UnsubscribeMail::of(&mail);
            assert_eq!(unsubscribe.to, TO);
            // The same token as the link's.
            assert!(one_click_link(&mail).ends_with(&unsubscribe.token));
            unsubscribe.send(tidings.inbound(), protocol, email).await.ok();
            let before = tidings.smtp.count();
            assert_eq!(fate(&tidings, "marketing", email).await, "suppressed");
            assert_eq!(fate(&tidings, "relationship", email).await, "suppressed");
            assert_eq!(fate(&tidings, "service", email).await, "sent");
            assert_eq!(tidings.smtp.count(), before + 1, "nothing is mailed back");
            let once = said(&tidings, email).await;
            let topic = json!({ "brand": "acme", "topic": "marketing" });
            for scope in [json!("all"), topic] {
                assert!(once.contains(&(scope, json!("mailto"))), "{once:?}");
            }
            // From any address, and as often as one likes.
            unsubscribe.send(tidings.inbound(), protocol, "else@elsewhere.example").await.ok();
            assert_eq!(said(&tidings, email).await, once);
        }
        tidings.stop().await;
    }

    async fn a_refusal_by_mail_covers_what_one_click_covers(database: Database) {
        let tidings = start(database).await;
        for (n, scope) in ["topic", "brand", "all"].into_iter().enumerate() {
            let brand = json!({
                "name": "ACME", "from": "acme <news@acme.example.com>", "postal_address": "1 Main Street",
                "one_click_scope": scope,
            });
            tidings.put("/brands/acme", brand).await.ok();
            let (clicks, writes) = (format!("c{n}@people.example.com"), format!("w{n}@people.example.com"));
            for email in [&clicks, &writes] {
                tidings.recipient(email).await;
            }
            tidings.one_click(&one_click_link(&tidings.mail_of("acme", "marketing", &clicks).await)).await.is(200);
            let mail = UnsubscribeMail::of(&tidings.mail_of("acme", "marketing", &writes).await);
            mail.send(tidings.inbound(), "ESMTP", &writes).await.ok();
            let scopes = async |email: &str| -> Vec<Value> {
                said(&tidings, email).await.into_iter().map(|(scope, _)| scope).collect()
            };
            assert_eq!(scopes(&writes).await, scopes(&clicks).await, "{scope}");
            assert!(!scopes(&writes).await.is_empty());
        }
        tidings.stop().await;
    }

    async fn what_is_no_persons_own_refusal_is_taken_and_changes_nothing(database: Database) {
        let tidings = start(database).await;
        let mail = UnsubscribeMail::of(&tidings.mail_of("acme", "marketing", ADA).await);
        let token = &mail.token;
        let before = tidings.smtp.count();
        let with = |field: &str| format!("From: {ADA}\nTo: {TO}\nSubject: {token}\n{field}\n\nbye\n");
        let plain = |subject: &str| format!("From: {ADA}\nTo: {TO}\nSubject: {subject}\n\nbye\n");
        let other = if token.ends_with('A') { 'B' } else { 'A' };
        let flipped = format!("{}{other}", &token[..token.len() - 1]);
        for (n, (from, message)) in [
            (ADA, plain(&flipped)),
            (ADA, plain(&token[..token.len() - 1])),
            (ADA, plain(&token[1..])),
            (ADA, plain(&token.to_lowercase())),
            (ADA, plain("unsubscribe")),
            (ADA, plain("")),
            ("<>", plain(token)),
            (ADA, with("Auto-Submitted: auto-replied")),
            (ADA, with("Auto-Submitted: auto-generated")),
            (ADA, with("X-Auto-Response-Suppress: All")),
            (ADA, with("Precedence: auto_reply")),
            (ADA, with("Content-Type: multipart/report; report-type=delivery-status; boundary=x")),
            (ADA, with("List-Id: <dev.lists.example.com>")),
        ]
        .into_iter()
        .enumerate()
        {
            let arguments = ["--protocol", ["ESMTP", "LMTP"][n % 2], "--from", from, "--to", TO];
            let sent = swaks(tidings.inbound(), &arguments, &message).await;
            sent.ok();
            // No answer tells a forged token from another.
            assert!(sent.said.contains("250 2.0.0 ok"), "{}", sent.said);
        }
        assert_eq!((count(&tidings, "opt_events").await, tidings.smtp.count()), (0, before));
        let metrics = tidings.page("/metrics").await.text;
        for outcome in ["no_token", "bounce", "automatic", "list"] {
            let counted = format!("tidings_inbound_mails_total{{outcome=\"{outcome}\"}}");
            assert!(metrics.contains(&counted), "{counted}");
        }
        // And nothing is spoilt: the person's own mail, odd as mail programs are, is heeded.
        let odd = format!("From: {ADA}\nTo: {TO}\nAuto-Submitted: no\nPrecedence: bulk\nSubject: Re: {token}\n\n");
        swaks(tidings.inbound(), &["--from", ADA, "--to", TO], &odd).await.ok();
        assert_eq!(fate(&tidings, "marketing", ADA).await, "suppressed");
        tidings.stop().await;
    }

    async fn a_token_in_the_address_is_heeded_and_one_recipient_refused_keeps_no_other_out(database: Database) {
        let tidings = start(database).await;
        let mail = UnsubscribeMail::of(&tidings.mail_of("acme", "marketing", ADA).await);
        let address = format!("Unsubscribe+{}@LISTS.example.com", mail.token);
        let to = format!("nobody@{DOMAIN},{address},root@elsewhere.example");
        let message = format!("From: {ADA}\nSubject: please stop\n\n");
        swaks(tidings.inbound(), &["--protocol", "LMTP", "--from", ADA, "--to", &to], &message).await;
        assert_eq!(fate(&tidings, "marketing", ADA).await, "suppressed");
        tidings.stop().await;
    }

    async fn while_the_store_is_away_senders_are_told_to_come_again(database: Database) {
        let tidings = start(database).await;
        let mail = UnsubscribeMail::of(&tidings.mail_of("acme", "marketing", ADA).await);
        let store = Store::take_away(&tidings.database).await;
        for protocol in ["ESMTP", "LMTP"] {
            mail.send(tidings.inbound(), protocol, ADA).await.refused("451 4.3.0");
        }
        store.give_back().await;
        assert_eq!(count(&tidings, "opt_events").await, 0);
        mail.send(tidings.inbound(), "ESMTP", ADA).await.ok();
        assert_eq!(fate(&tidings, "marketing", ADA).await, "suppressed");
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_relayed_and_nobody_else_has_a_mailbox_here() {
    let tidings = start(Database::sqlite()).await;
    let message = format!("From: {ADA}\nSubject: hello\n\n");
    for (n, (to, answer)) in [
        ("victim@elsewhere.example", "550 5.7.1"),
        ("unsubscribe@elsewhere.example", "550 5.7.1"),
        ("unsubscribe@lists.example.com.elsewhere.example", "550 5.7.1"),
        ("victim%elsewhere.example@lists.example.com", "550 5.1.1"),
        ("\"victim@elsewhere.example\"@lists.example.com", "550 5.1.1"),
        ("@lists.example.com:victim@elsewhere.example", "550 5.7.1"),
        ("elsewhere.example!victim@lists.example.com", "550 5.1.1"),
        ("root@lists.example.com", "550 5.1.1"),
        ("postmaster", "550 5.1.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let (protocol, from) = [("ESMTP", ADA), ("LMTP", ADA), ("ESMTP", "<>"), ("SMTP", TO)][n % 4];
        let arguments = ["--protocol", protocol, "--from", from, "--to", to];
        swaks(tidings.inbound(), &arguments, &message).await.refused(answer);
    }
    assert_eq!(tidings.smtp.count(), 0);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_or_too_slow_or_too_much_is_shed_while_a_refusal_gets_through() {
    let limits = Limits {
        message: 20_000,
        connections: 16,
        command_within: Duration::from_millis(1_500),
        message_within: Duration::from_millis(1_500),
        ..tidings::intake::LIMITS
    };
    let tidings = start_with(Database::sqlite(), Parts { inbound_limits: limits, ..Parts::default() }).await;
    let inbound = tidings.inbound();
    let large = format!("From: {ADA}\nSubject: x\n\n{}", "a line of text\n".repeat(2_000));
    swaks(inbound, &["--from", ADA, "--to", TO], &large).await.refused("552 5.3.4");
    // Silent, slow with a command, and slow with a message: each is told and hung up on.
    let silent = Caller::call(inbound).await;
    let mut drips = Caller::call(inbound).await;
    let mut dawdles = Caller::call(inbound).await;
    dawdles
        .say(format!("EHLO c\r\nMAIL FROM:<{ADA}>\r\nRCPT TO:<{TO}>\r\nDATA\r\nSubject: x\r\n").as_bytes())
        .await;
    let mut dripping = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..12 {
        dripping.tick().await;
        drips.say(b"N").await;
        dawdles.say(b"x").await;
    }
    for caller in [silent, drips, dawdles] {
        let heard = caller.rest().await;
        assert!(heard.ends_with("421 4.4.2 that took too long\r\n"), "{heard}");
    }
    // More callers than places: the last ones are told to come again, and once the silent ones are shed all is well.
    let mut callers = Vec::new();
    for _ in 0..20 {
        callers.push(Caller::call(inbound).await);
    }
    let mut refused = 0;
    for caller in callers {
        let heard = caller.rest().await;
        refused += usize::from(heard.starts_with("421 4.3.2"));
    }
    assert!(refused >= 4, "{refused} were refused");
    let mail = UnsubscribeMail::of(&tidings.mail_of("acme", "marketing", ADA).await);
    mail.send(inbound, "ESMTP", ADA).await.ok();
    assert_eq!(fate(&tidings, "marketing", ADA).await, "suppressed");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_begin_messages_and_never_end_them_make_room_when_there_is_none() {
    let limits =
        Limits { connections: 16, in_a_crowd: Duration::from_millis(200), ..tidings::intake::LIMITS };
    let tidings = start_with(Database::sqlite(), Parts { inbound_limits: limits, ..Parts::default() }).await;
    let mut callers = Vec::new();
    for _ in 0..limits.connections {
        let mut caller = Caller::call(tidings.inbound()).await;
        caller.say(format!("EHLO c\r\nMAIL FROM:<{ADA}>\r\nRCPT TO:<{TO}>\r\nDATA\r\n").as_bytes()).await;
        callers.push(caller);
    }
    let mut shed = callers.remove(0);
    let heard = shed.hear("421").await;
    assert!(heard.ends_with("421 4.4.2 that took too long\r\n"), "{heard}");
    drop((shed, callers));
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_takes_no_answer_does_not_keep_the_process_from_ending() {
    let tidings = start(Database::sqlite()).await;
    let mut deaf = Caller::call(tidings.inbound()).await;
    let mail = format!("MAIL FROM:<{ADA}>\r\nRCPT TO:<{TO}>\r\nDATA\r\n.\r\n").repeat(1_000);
    deaf.say(b"HELO c\r\n").await;
    // Once nothing more can be said, the other side is stuck with its answers.
    while tokio::time::timeout(Duration::from_secs(2), deaf.say(mail.as_bytes())).await.is_ok() {}
    let stopped = tokio::time::timeout(Duration::from_secs(20), tidings.stop()).await;
    assert!(stopped.is_ok(), "the process does not end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_tells_those_who_are_connected_to_come_again() {
    let tidings = start(Database::sqlite()).await;
    let mut idle = Caller::call(tidings.inbound()).await;
    idle.say(b"NOOP\r\n").await;
    idle.hear("250").await;
    let mut halfway = Caller::call(tidings.inbound()).await;
    halfway
        .say(format!("LHLO c\r\nMAIL FROM:<{ADA}>\r\nRCPT TO:<{TO}>\r\nDATA\r\nSubject: x\r\n").as_bytes())
        .await;
    halfway.hear("354").await;
    tidings.stop().await;
    for caller in [idle, halfway] {
        let heard = caller.rest().await;
        assert!(heard.ends_with("421 4.3.2 going down, come again\r\n"), "{heard}");
    }
}

#[tokio::test]
async fn mail_is_offered_and_taken_as_the_settings_say() {
    // The domain alone: offered, and taken elsewhere.
    let database = Database::sqlite();
    let offers = |settings: &mut Settings| settings.inbound_domain = Some(DOMAIN.to_owned());
    let mut tidings = Tidings::start_with(database, offers).await;
    tidings.ready_to_send().await;
    tidings.recipient(ADA).await;
    assert!(
        tidings
            .mail_of("acme", "marketing", ADA)
            .await
            .header("List-Unsubscribe")
            .unwrap()
            .contains("mailto:")
    );
    assert!(!tidings.mail_of("acme", "service", ADA).await.text().contains("mailto:"));
    // An address that somebody else has is an error at the start that names the setting.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = tidings.database.settings();
    takes_mail(&mut settings);
    settings.inbound_listen = Some(taken.local_addr().unwrap());
    let refused = tidings::serve::start(settings, Parts::default()).await.err().unwrap().to_string();
    assert!(refused.contains("TIDINGS_INBOUND_LISTEN"), "{refused}");
    // A process without the web service takes none, whatever the settings.
    tidings.restart_with(takes_mail).await;
    let worker = tidings.another(Parts { web: false, ..Parts::default() }).await;
    assert_eq!(worker.inbound, None);
    worker.stop().await;
    tidings.restart_with(|settings| (settings.inbound_domain, settings.inbound_listen) = (None, None)).await;
    assert!(!tidings.mail_of("acme", "marketing", ADA).await.text().contains("mailto:"));
    tidings.stop().await;
}

/// Octets over a real connection: everything is said, then everything heard.
async fn whole_talk(address: SocketAddr, octets: &[u8]) -> String {
    let mut caller = Caller::call(address).await;
    // It may have hung up before the end.
    let _ = caller.0.write_all(octets).await;
    let _ = caller.0.shutdown().await;
    let mut heard = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), caller.0.read_to_end(&mut heard)).await;
    assert!(end.is_ok(), "no end after {octets:?}");
    String::from_utf8(heard).unwrap()
}

#[test]
fn the_intake_and_the_mailbox_outlive_whatever_octets_come() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (tidings, mailbox) =
        runtime.block_on(async { (start(Database::sqlite()).await, Mailbox::start().await.unwrap()) });
    let sayings = prop::sample::select(
        &[
            "EHLO c\r\n",
            "LHLO c\r\n",
            "MAIL FROM:<a@b.example>\r\n",
            "MAIL FROM:<>\r\n",
            "RCPT TO:<unsubscribe@lists.example.com>\r\n",
            "RCPT TO:<a@b.example>\r\n",
            "DATA\r\n",
            "Subject: x\r\n",
            "\r\n.\r\n",
            "\n.\n",
            ".\r\n",
            "RSET\r\n",
            "QUIT\r\n",
            "BDAT 3\r\n",
            "\r",
            "\n",
        ][..],
    );
    let octets = prop_oneof![
        4 => sayings.prop_map(|said| said.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ];
    let talks = prop::collection::vec(octets, 0..25).prop_map(|pieces| pieces.concat());
    // A quick look, unless the environment asks for a longer one.
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { 64 };
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..asked });
    let (inbound, smtp) = (tidings.inbound(), mailbox.smtp_addr());
    runner
        .run(&talks, |talk| {
            for address in [inbound, smtp] {
                let heard = runtime.block_on(whole_talk(address, &talk));
                prop_assert!(heard.starts_with("220 ") && heard.ends_with("\r\n"), "{heard:?}");
                prop_assert!(
                    heard.lines().all(|line| line.len() > 3 && line[..3].bytes().all(|b| b.is_ascii_digit()))
                );
            }
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        assert_eq!((count(&tidings, "opt_events").await, tidings.smtp.count()), (0, 0));
        for address in [inbound, smtp] {
            assert!(
                whole_talk(address, b"NOOP\r\nQUIT\r\n").await.ends_with("250 2.0.0 ok\r\n221 2.0.0 bye\r\n")
            );
        }
        wait_until("a message in the mailbox", async || {
            whole_talk(smtp, b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nx\r\n.\r\n").await;
            mailbox.messages().first().is_some_and(|mail| mail.bytes == b"x\r\n")
        })
        .await;
        tidings.stop().await;
    });
}
