//! T11, T12, T15: what protects the stream, and the credentials that go over it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidings::relay::{Outcome, Relay, Timeouts};

use crate::harness::{Act, Database, Options, Process, SmtpServer, Stage};
use crate::promises::make_ready;
use crate::relay::{Item, LONG, certificate};

fn over(scheme: &str, server: &SmtpServer) -> Relay {
    let url = format!("{scheme}://me:secret@localhost:{}", server.addr().port());
    Relay::from_url(&url, "here.example", Timeouts::each(LONG)).unwrap()
}

/// Why a relay was not trusted; nothing that matters was said to it.
async fn refused(relay: Relay, server: &SmtpServer) -> String {
    let why = match relay.connect().await {
        Err(Outcome::NotSent(_, why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was taken for safe"),
    };
    for connection in 0..server.connections() {
        let lines = server.lines(connection);
        assert!(lines.iter().all(|line| !line.starts_with("MAIL") && !line.starts_with("AUTH")), "{lines:?}");
    }
    why
}

#[tokio::test]
async fn t11_a_stream_to_another_machine_is_protected_by_tls_whose_certificate_holds_or_nothing_is_sent() {
    for url in ["smtp://relay.example", "smtp://10.1.2.3:25", "smtp://me:secret@relay.example"] {
        let error = Relay::from_url(url, "here.example", Timeouts::default()).unwrap_err().to_string();
        assert!(error.contains("clear text"), "{error}");
    }
    // STARTTLS that somebody took out of the reply to EHLO.
    let stripped = SmtpServer::with(Options { extensions: vec!["AUTH PLAIN"], ..Options::default() }).await;
    assert!(refused(over("smtp+starttls", &stripped), &stripped).await.contains("STARTTLS"));
    // STARTTLS that is offered and refused.
    let (tls, authority) = certificate(&["localhost"]);
    let options = Options { starttls: Some(tls.clone()), ..Options::default() };
    let refusing = SmtpServer::with(options.clone()).await;
    refusing.on(Stage::StartTls, Act::reply(454, "4.7.0 not now"));
    let outcome = over("smtp+starttls", &refusing).connect().await.err();
    assert!(matches!(outcome, Some(Outcome::Deferred(..))), "{outcome:?}");
    assert!(refusing.lines(0).iter().all(|line| !line.starts_with("MAIL") && !line.starts_with("AUTH")));
    // Nobody vouches for it; or it names another.
    let (other, other_authority) = certificate(&["other.example"]);
    for (scheme, options) in [
        ("smtps", Options { tls: Some(tls.clone()), ..Options::default() }),
        ("smtp+starttls", options.clone()),
    ] {
        let server = SmtpServer::with(options).await;
        assert!(refused(over(scheme, &server), &server).await.contains("certificate"));
        let trusted = over(scheme, &server).trusting(authority.clone()).unwrap();
        assert!(
            matches!(trusted.connect().await, Err(Outcome::NotSent(..))),
            "AUTH is not offered, but TLS holds"
        );
    }
    let server = SmtpServer::with(Options { tls: Some(other), ..Options::default() }).await;
    let named_otherwise = over("smtps", &server).trusting(other_authority).unwrap();
    assert!(refused(named_otherwise, &server).await.contains("certificate"));
}

#[tokio::test]
async fn t12_what_was_said_before_the_handshake_is_believed_by_nobody() {
    let (tls, authority) = certificate(&["localhost"]);
    for (slipped_in, taken) in [("250-fake\r\n250 AUTH PLAIN\r\n235 ok\r\n", false), ("x", false), ("", true)]
    {
        let options =
            Options { starttls: Some(tls.clone()), extensions: vec!["AUTH PLAIN"], ..Options::default() };
        let server = SmtpServer::with(options).await;
        server.on(Stage::StartTls, Act::raw(format!("220 go ahead\r\n{slipped_in}")));
        let relay = over("smtp+starttls", &server).trusting(authority.clone()).unwrap();
        if taken {
            let mut connection = relay.connect().await.unwrap_or_else(|outcome| panic!("{outcome:?}"));
            let outcome = connection.hand_over(Item::new("a@b.example").parcel(), None).await;
            assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
        } else {
            assert!(refused(relay, &server).await.contains("clear text"));
            assert_eq!(server.lines(0), ["EHLO here.example", "STARTTLS"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t15_no_credential_of_the_relay_is_ever_logged() {
    let secrets = ["relay-user", "relay-password"];
    for (mechanism, answer) in [
        ("AUTH PLAIN", Act::reply(235, "welcome")),
        ("AUTH PLAIN", Act::reply(535, "5.7.8 relay-user relay-password is wrong")),
        ("AUTH LOGIN", Act::reply(535, "5.7.8 relay-user relay-password is wrong")),
    ] {
        let smtp = SmtpServer::with(Options { extensions: vec![mechanism], ..Options::default() }).await;
        let database = Database::sqlite();
        let url = smtp.url().replace("://", "://relay-user:relay-password@");
        let env = [("TIDINGS_RELAY_URL", url.as_str()), ("TIDINGS_LOG", "trace"), ("RUST_LOG", "trace")];
        let mut process = Process::serve(&database, &[], &env).await;
        smtp.on(Stage::Auth, answer);
        make_ready(&process.api).await;
        let body = serde_json::json!({
            "brand": "acme", "topic": "alerts", "template": "hello", "to": { "email": "ada@people.example.com" },
        });
        process.api.post("/messages", body).await.id();
        crate::harness::wait_until("AUTH at the start and for the message", async || {
            let lines = (0..smtp.connections()).flat_map(|n| smtp.lines(n));
            lines.filter(|line| line.starts_with("AUTH")).count() > 1
        })
        .await;
        assert!(process.terminate().await.success());
        let logs = process.logs();
        assert!(logs.contains("/api/v1/messages"), "it logs at all");
        let both = STANDARD.encode("\0relay-user\0relay-password");
        let spelt = secrets.iter().map(|secret| STANDARD.encode(secret)).chain([both]);
        for secret in spelt.chain(secrets.map(str::to_owned)) {
            assert!(!logs.contains(&secret), "{mechanism}: a log line holds a credential");
        }
    }
}
