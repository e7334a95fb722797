//! F16: the HTML of every kind of mail, in three languages, is valid and can be read: with a contrast of 4.5, narrow and
//! wide, by day and by night, without its images and without its styles. F15: what Gmail would cut off is said.

use serde_json::json;

use crate::harness::{Database, Tidings};
use crate::html_mail::{Mail, chromium, every_mail, images, start, vnu};

#[tokio::test(flavor = "multi_thread")]
async fn f16_every_mail_is_valid_html() {
    let tidings = start().await;
    let mails = every_mail(&tidings).await;
    assert_eq!(vnu(&mails), Vec::<String>::new());
    let broken = Mail { name: "broken".into(), html: mails[0].html.replacen("<h1", "<h1 colour=red", 1) };
    assert_eq!(vnu(&[broken]).len(), 1, "vnu finds nothing in a broken mail");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_every_mail_can_be_read_by_everybody_at_any_width_by_day_and_by_night() {
    let tidings = start().await;
    let mails = every_mail(&tidings).await;
    let images = images(&tidings).await;
    assert_eq!(chromium(&mails, &images), Vec::<String>::new());
    let pale = Mail { name: "pale".into(), html: mails[0].html.replace("color:#1b212b", "color:#c0c0c0") };
    assert!(!chromium(&[pale], &images).is_empty(), "axe finds nothing in a mail that nobody can read");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f15_a_preview_says_from_102_kb_on_that_gmail_cuts_the_html_off() {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    tidings.ready_to_send().await;
    for (octets, clipped) in [(60_000, false), (101_000, true)] {
        let template =
            json!({ "subject": "s", "html": "<br>a text\n".repeat(octets / 11), "text": "a text" });
        tidings.put("/templates/hello", template).await.ok();
        let id = tidings.draft("acme", "marketing").await;
        let preview = tidings.get(&format!("/campaigns/{id}/preview?email=a@people.example.com")).await.ok();
        let says = preview["warnings"].as_array().unwrap().iter().any(|warning| warning["kind"] == "clipped");
        assert_eq!(says, clipped, "{}", preview["warnings"]);
    }
    tidings.stop().await;
}
