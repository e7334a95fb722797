//! Coming in: TLS, STARTTLS and AUTH.

use tidings::relay::{Outcome, Phase, Relay, Timeouts};

use super::{LONG, certificate, cleared, give, message};
use crate::harness::{Act, Options, SmtpServer, Stage};

fn over(scheme: &str, host: &str, server: &SmtpServer) -> Relay {
    let url = format!("{scheme}://me:s%20ecret@{host}:{}", server.addr().port());
    Relay::from_url(&url, "here.example", Timeouts::each(LONG)).unwrap()
}

async fn refused_by_us(relay: Relay) -> String {
    match relay.connect().await {
        Ok(_) => panic!("the connection was taken for safe"),
        Err(Outcome::NotSent(_, why)) => why,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tls_and_starttls_carry_login_and_mail() {
    let (tls, authority) = certificate(&["localhost"]);
    let extensions = vec!["AUTH PLAIN"];
    for (scheme, options) in [
        ("smtps", Options { tls: Some(tls.clone()), extensions: extensions.clone(), ..Options::default() }),
        ("smtp+starttls", Options { starttls: Some(tls), extensions, ..Options::default() }),
    ] {
        let server = SmtpServer::with(options).await;
        let relay = over(scheme, "localhost", &server).trusting(authority.clone()).unwrap();
        let mut connection = relay.connect().await.unwrap_or_else(|outcome| panic!("{outcome:?}"));
        let outcome = give(&mut connection, &message("a@b.example", "hello"), &cleared()).await;
        assert!(matches!(outcome, Outcome::Sent(_)), "{outcome:?}");
        connection.quit().await;
        let lines = server.lines(0);
        let position = |wanted: &str| lines.iter().position(|line| line.starts_with(wanted));
        assert!(position("AUTH PLAIN AG1lAHMgZWNyZXQ=").unwrap() > position("STARTTLS").unwrap_or(0));
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn login_is_used_where_plain_is_not_offered() {
    let server = SmtpServer::with(Options { extensions: vec!["AUTH LOGIN"], ..Options::default() }).await;
    let connection = over("smtp", "127.0.0.1", &server).connect().await;
    connection.unwrap_or_else(|outcome| panic!("{outcome:?}")).quit().await;
    assert_eq!(server.lines(0)[1..], ["AUTH LOGIN", "bWU=", "cyBlY3JldA==", "QUIT"]);
    let server = SmtpServer::with(Options { extensions: vec!["AUTH GSSAPI"], ..Options::default() }).await;
    let why = refused_by_us(over("smtp", "127.0.0.1", &server)).await;
    assert!(why.contains("AUTH PLAIN"), "{why}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    for scheme in ["smtps", "smtp+starttls"] {
        let (tls, authority) = certificate(&["other.example"]);
        let options = if scheme == "smtps" {
            Options { tls: Some(tls), ..Options::default() }
        } else {
            Options { starttls: Some(tls), ..Options::default() }
        };
        let server = SmtpServer::with(options).await;
        let why = refused_by_us(over(scheme, "localhost", &server)).await;
        assert!(why.contains("certificate"), "{why}");
        let why = refused_by_us(over(scheme, "localhost", &server).trusting(authority).unwrap()).await;
        assert!(why.contains("certificate") && why.contains("localhost"), "{why}");
        assert!((0..server.connections()).all(|n| server.lines(n).iter().all(|line| !line.contains("AUTH"))));
    }
}

#[tokio::test]
async fn a_stripped_starttls_sends_nothing() {
    let server = SmtpServer::with(Options { extensions: vec!["AUTH PLAIN"], ..Options::default() }).await;
    let why = refused_by_us(over("smtp+starttls", "localhost", &server)).await;
    assert!(why.contains("STARTTLS"), "{why}");
    assert_eq!(server.lines(0), ["EHLO here.example"]);
}

#[tokio::test]
async fn what_is_slipped_in_after_the_reply_to_starttls_is_not_believed() {
    let (tls, authority) = certificate(&["localhost"]);
    let options = Options { starttls: Some(tls), extensions: vec!["AUTH PLAIN"], ..Options::default() };
    let server = SmtpServer::with(options).await;
    let injected =
        "220 go ahead\r\n250-fake\r\n250 AUTH PLAIN\r\n235 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n";
    server.on(Stage::StartTls, Act::raw(injected));
    let why = refused_by_us(over("smtp+starttls", "localhost", &server).trusting(authority).unwrap()).await;
    assert!(why.contains("clear text"), "{why}");
    assert_eq!(server.lines(0), ["EHLO here.example", "STARTTLS"]);
}

#[tokio::test]
async fn a_refused_login_is_for_now_and_names_no_password() {
    let server =
        SmtpServer::with(Options { extensions: vec!["AUTH LOGIN PLAIN"], ..Options::default() }).await;
    server.on(Stage::Auth, Act::reply(535, "5.7.8 bad credentials"));
    let relay = over("smtp", "127.0.0.1", &server);
    match relay.connect().await {
        Err(Outcome::Deferred(Phase::Auth, reply)) => assert_eq!(reply.code, 535),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("let in"),
    }
    assert!(!format!("{relay:?}").contains("ecret"));
}
