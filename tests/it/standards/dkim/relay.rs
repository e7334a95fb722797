//! D5: signatures hold after a real relay has carried the mail on.

use secrecy::SecretString;
use serde_json::json;

use super::Keys;
use crate::harness::{Database, Postfix, SmtpServer, Tidings};

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
