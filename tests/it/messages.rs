//! Single messages.

use reqwest::Method;
use serde_json::{Value, json};
use tidings::web::Role;

use crate::harness::{Act, Answer, Api, Database, Stage, Tidings};

fn message(topic: &str, email: &str) -> Value {
    json!({ "brand": "acme", "topic": topic, "to": { "email": email, "name": "Ada" }, "template": "hello" })
}

async fn key(tidings: &Tidings, role: Role) -> Api {
    let made =
        tidings::access::rows::create_key(&tidings.app().db, "test", role, None, "test").await.unwrap();
    tidings.with_key(secrecy::ExposeSecret::expose_secret(&made.key))
}

on_both! {
    async fn a_message_goes_to_an_address_nobody_knew_and_into_no_audience(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let accepted = tidings.post("/messages", message("requested", "ada@people.example.com")).await;
        let accepted = accepted.is(202).ok();
        assert!(accepted.get("because").is_none(), "{accepted}");
        let shown = tidings.settled(accepted["id"].as_str().unwrap()).await;
        assert_eq!((&shown["state"], &shown["topic"], &shown["class"]), (&json!("sent"), &json!("requested"), &json!("requested")));
        assert_eq!(shown["attempts"][0]["code"], 250, "{shown}");
        let mail = tidings.smtp.messages_to("ada@people.example.com");
        assert_eq!(mail[0].header("Subject").unwrap(), "Hello Ada");
        assert_eq!(mail[0].header("List-Unsubscribe"), None);
        assert_eq!(tidings.send_to_all("acme", "marketing").await["counts"]["total"], 0);

        let person = shown["recipient"].as_str().unwrap();
        let list = tidings.get(&format!("/recipients/{person}/deliveries")).await.ok();
        assert_eq!(list["items"][0]["id"], accepted["id"]);
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        let none = tidings.get(&format!("/recipients/{person}/deliveries?state=failed")).await.ok();
        assert_eq!(none["items"], json!([]));
        tidings.stop().await;
    }

    async fn a_message_that_an_opt_out_stops_says_so_at_once(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let no = json!({ "email": "ada@people.example.com", "scope": { "brand": "acme" }, "channel": "phone" });
        tidings.post("/opt-outs", no).await.ok();
        let accepted = tidings.post("/messages", message("marketing", "ADA@people.example.com")).await.is(202).ok();
        assert_eq!(accepted["because"], json!(["opted_out_of_brand"]));
        let shown = tidings.settled(accepted["id"].as_str().unwrap()).await;
        assert_eq!((&shown["state"], &shown["reason"]), (&json!("suppressed"), &json!("opted_out_of_brand")));
        let accepted = tidings.post("/messages", message("service", "ada@people.example.com")).await.ok();
        assert_eq!(tidings.settled(accepted["id"].as_str().unwrap()).await["state"], "sent");
        assert_eq!(tidings.smtp.count(), 1);
        tidings.stop().await;
    }

    async fn what_is_missing_or_wrong_is_told_at_once_and_nothing_is_kept(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let all = ["requested", "service", "notice", "relationship", "reminder", "marketing"];
        tidings.put("/templates/reset", json!({
            "subject": "Your code", "html": "<p>{{data.code}} {{#if data.extra}}{{data.extra}}{{/if}}</p>", "classes": all,
        })).await.ok();
        let with = |more: Value| {
            let mut body = message("requested", "ada@people.example.com");
            for (name, value) in more.as_object().unwrap() {
                body[name] = value.clone();
            }
            body
        };
        let reason = tidings.post("/messages", with(json!({ "template": "reset" }))).await.refuses("/data/code");
        assert!(reason.contains("data.code"), "{reason}");
        let fine = with(json!({ "template": "reset", "data": { "code": 123 } }));
        tidings.post("/messages", fine).await.is(202);
        for (more, pointer) in [
            (json!({ "topic": "notice" }), "/topic"),
            (json!({ "topic": "none" }), "/topic"),
            (json!({ "brand": "none" }), "/brand"),
            (json!({ "template": "none" }), "/template"),
            (json!({ "to": { "email": "nobody" } }), "/to/email"),
            (json!({ "to": { "email": "a@b.example\r\nBcc: c@d.example" } }), "/to/email"),
            (json!({ "to": { "email": "a@b.example", "name": "A\r\nBcc: c@d.example" } }), "/to/name"),
            (json!({ "to": { "email": "a@b.example", "name": "A\u{0}" } }), "/to/name"),
            (json!({ "to": { "email": "a@b.example", "cc": "c@d.example" } }), "/to/cc"),
            (json!({ "data": { "long": "x".repeat(70_000) } }), "/data"),
        ] {
            tidings.post("/messages", with(more)).await.refuses(pointer);
        }
        let found = tidings.get("/recipients?email=a@b.example").await.ok();
        assert_eq!(found["items"], json!([]), "a refused message makes nobody known");
        tidings.get("/messages/0198c0de-0000-7000-8000-000000000000").await.problem(404);
        tidings.stop().await;
    }

    async fn a_repeated_key_sends_once(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let send = async |body: Value| {
            let request = tidings.request(Method::POST, "/api/v1/messages").header("Idempotency-Key", "order-1");
            Answer::of(request.json(&body)).await
        };
        let first = send(message("requested", "ada@people.example.com")).await.id();
        let again = send(message("requested", "ada@people.example.com")).await.id();
        assert_eq!(first, again);
        send(message("requested", "bob@people.example.com")).await.problem(422);
        assert_eq!(tidings.settled(&first).await["state"], "sent");
        assert_eq!(tidings.smtp.count(), 1);
        tidings.stop().await;
    }

    async fn the_role_decides_which_classes_may_be_sent(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        for (role, allowed) in [
            (Role::Sender, &["requested", "service"][..]),
            (Role::Marketer, &["relationship", "reminder", "marketing"]),
            (Role::Admin, &["requested", "service", "relationship", "reminder", "marketing"]),
            (Role::Operator, &[]),
            (Role::Accounts, &[]),
            (Role::Auditor, &[]),
        ] {
            let caller = key(&tidings, role).await;
            for class in ["requested", "service", "relationship", "reminder", "marketing"] {
                let answer = caller.post("/messages", message(class, "ada@people.example.com")).await;
                let expected = if allowed.contains(&class) { 202 } else { 403 };
                assert_eq!(answer.status.as_u16(), expected, "{role} {class}: {}", answer.text);
            }
        }
        tidings.stop().await;
    }

    async fn the_relays_words_are_kept_for_every_attempt(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(451, "4.7.1 come back later")).once();
        let id = tidings.message("acme", "service", "ada@people.example.com").await;
        crate::harness::wait_until("a first attempt", async || {
            let shown = tidings.get(&format!("/messages/{id}")).await.ok();
            shown["state"] == "queued" && shown["attempts"].as_array().unwrap().len() == 1
        })
        .await;
        tidings.advance(std::time::Duration::from_secs(120));
        let shown = tidings.settled(&id).await;
        let attempts = shown["attempts"].as_array().unwrap();
        assert_eq!((&attempts[0]["outcome"], &attempts[0]["code"]), (&json!("deferred"), &json!(451)), "{shown}");
        assert!(attempts[0]["reply"].as_str().unwrap().contains("come back later"), "{shown}");
        assert_eq!((&attempts[1]["outcome"], &shown["state"]), (&json!("sent"), &json!("sent")), "{shown}");
        tidings.stop().await;
    }

    async fn the_class_of_a_topic_is_fixed_once_a_message_was_made(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let as_class = |class: &str| json!({ "name": "Offers", "class": class });
        tidings.put("/brands/acme/topics/offers", as_class("service")).await.is(201);
        tidings.put("/brands/acme/topics/offers", as_class("marketing")).await.is(200);
        tidings.message("acme", "offers", "ada@people.example.com").await;
        let fixed = tidings.put("/brands/acme/topics/offers", as_class("service")).await.problem(409);
        assert_eq!(fixed["errors"][0]["pointer"], "/class", "{fixed}");
        tidings.delete("/brands/acme/topics/offers").await.is(204);
        tidings.put("/brands/acme/topics/offers", as_class("service")).await.problem(409);
        let kept = tidings.put("/brands/acme/topics/offers", as_class("marketing")).await.is(200).json();
        assert_eq!(kept["class"], "marketing");
        tidings.stop().await;
    }

    async fn nothing_new_is_sent_with_what_is_archived_and_its_opt_outs_stay(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let draft = tidings.draft("acme", "marketing").await;
        let ada = "ada@people.example.com";
        let no = json!({ "email": ada, "scope": { "brand": "acme", "topic": "marketing" }, "channel": "phone" });
        tidings.post("/opt-outs", no.clone()).await.is(201);
        for (path, pointer) in [("/brands/acme/topics/marketing", "/topic"), ("/brands/acme", "/brand")] {
            let stored = tidings.get(path).await.ok();
            tidings.delete(path).await.is(204);
            tidings.post("/messages", message("marketing", ada)).await.refuses(pointer);
            tidings.post("/campaigns", json!({ "brand": "acme", "topic": "marketing", "template": "hello" })).await.refuses(pointer);
            tidings.post(&format!("/campaigns/{draft}/test"), json!({ "to": ["me@office.example.com"] })).await.refuses(pointer);
            tidings.post_empty(&format!("/campaigns/{draft}/start")).await.refuses(pointer);
            // People go on refusing what lies in their mailboxes.
            tidings.post("/opt-outs", no.clone()).await.is(200);
            if pointer == "/topic" {
                tidings.put(path, json!({ "name": stored["name"], "class": stored["class"] })).await.is(200);
            } else {
                tidings.brand("acme").await;
            }
        }
        let why = tidings.get(&format!("/explain?email={ada}&brand=acme&topic=marketing")).await.ok();
        assert_eq!(why["decision"], "suppress", "{why}");
        assert_eq!(tidings.smtp.count(), 0);
        tidings.stop().await;
    }
}
