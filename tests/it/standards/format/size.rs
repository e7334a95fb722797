//! F15: what is larger than the relay takes is refused for good, without a word of it going out.

use secrecy::SecretString;
use serde_json::json;

use crate::harness::{Database, Options, SmtpServer, Tidings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_message_over_the_relays_size_fails_once_and_without_data() {
    let relay = SmtpServer::with(Options { extensions: vec!["SIZE 20000"], ..Options::default() }).await;
    let url = SecretString::from(relay.url());
    let tidings = Tidings::start_with(Database::sqlite(), |settings| settings.relay_url = url).await;
    tidings.ready_to_send().await;
    tidings.put("/templates/hello", json!({ "subject": "s", "html": "<p>{{data.a}}</p>" })).await.ok();
    let send = async |email: &str, octets: usize| {
        let body = json!({
            "brand": "acme", "topic": "marketing", "template": "hello", "to": { "email": email },
            "data": { "a": "x".repeat(octets) },
        });
        tidings.post("/messages", body).await.id()
    };
    // Text and HTML both hold it.
    let large = send("large@people.example.com", 15_000).await;
    let settled = tidings.settled(&large).await;
    assert_eq!((&settled["state"], &settled["reason"]), (&json!("failed"), &json!("refused")), "{settled}");
    let attempts = settled["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "{settled}");
    assert_eq!((&attempts[0]["code"], &attempts[0]["enhanced"]), (&json!(552), &json!("5.3.4")), "{settled}");
    let small = send("small@people.example.com", 1_000).await;
    assert_eq!(tidings.settled(&small).await["state"], "sent");
    assert_eq!(relay.transactions().len(), 1, "the large one was never begun");
    assert!(relay.messages()[0].mail_parameters.contains("SIZE="));
    // What speaks of size says nothing about the address: it is still mailed.
    let again = send("large@people.example.com", 1_000).await;
    assert_eq!(tidings.settled(&again).await["state"], "sent");
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_the_size_of_a_message_is_bounded_without_a_relay_that_says_so() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let html = "{{#each data.a}}{{../data.b}}{{/each}}";
    tidings.put("/templates/hello", json!({ "subject": "s", "html": html, "text": "t" })).await.ok();
    let body = json!({
        "brand": "acme", "topic": "marketing", "template": "hello", "to": { "email": "p@people.example.com" },
        "data": { "a": vec![1; 400], "b": "x".repeat(900) },
    });
    assert_eq!(tidings.post("/messages", body).await.status.as_u16(), 202);
    let body = json!({
        "brand": "acme", "topic": "marketing", "template": "hello", "to": { "email": "p@people.example.com" },
        "data": { "a": vec![1; 400], "b": "x".repeat(10_000) },
    });
    let answer = tidings.post("/messages", body).await;
    assert!(answer.problem(422).to_string().contains("octets"), "{}", answer.text);
    tidings.stop().await;
}
