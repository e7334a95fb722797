//! D5: signatures hold after a real relay has carried the mail on.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use secrecy::SecretString;
use serde_json::json;

use super::Keys;
use crate::harness::{Database, SmtpServer, Tidings, free_address, source};

/// Debian's Postfix on a port of its own. It stops when its standard input ends: when this is dropped, and also when the
/// tests are killed.
struct Postfix {
    child: Child,
    url: String,
}

impl Postfix {
    /// Starts one that hands everything on to `next`.
    fn before(next: &SmtpServer) -> Self {
        let address = free_address();
        let port = address.rsplit(':').next().unwrap();
        let mut command = Command::new(source().join("tests/tools/relay_postfix"));
        command.args([port, &next.addr().port().to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(
            line.trim(),
            "ready",
            "Postfix does not start: install it, and as an ordinary user allow sudo"
        );
        Self { child, url: format!("smtp://{address}") }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_signatures_hold_behind_a_real_postfix() {
    let sink = SmtpServer::start().await;
    let postfix = Postfix::before(&sink);
    let keys = Keys::both();
    let tidings = Tidings::start_with(Database::sqlite(), |settings| {
        settings.dkim = keys.entries.clone();
        settings.relay_url = SecretString::from(postfix.url.clone());
    })
    .await;
    tidings.ready_to_send().await;
    let long = "ein sehr langer Absatz für alle, ohne Umbruch ".repeat(60);
    let template = json!({
        "subject": "Grüße an {{name}}: neue Bücher, alte Bücher und was sonst noch im Regal steht, für alle, die lesen",
        "html": format!("<h1>Grüße</h1>\n.\n..\n<p>.{long}</p>\n\n  \n<p>Schluss</p>\n\n"),
        "classes": ["service", "marketing"],
    });
    tidings.put("/templates/hello", template).await.ok();
    let mut carried = Vec::new();
    for class in ["marketing", "service"] {
        let address = format!("{class}@people.example.com");
        tidings.message("acme", class, &address).await;
        let mail = sink.wait_for_message_to(&address).await;
        assert!(mail.header("Received").unwrap().contains("relay.example.com (Postfix)"), "{}", mail.text());
        carried.push(mail.data);
    }
    keys.all_pass(&carried, &["r1", "e1"]);
    tidings.stop().await;
}
