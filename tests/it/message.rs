//! Templates over HTTP: what is refused and where, who may change which, and what a start freezes.

use secrecy::ExposeSecret as _;
use serde_json::json;
use tidings::web::Role;
use tidings::{access, brand};

use crate::harness::{Api, Database, Tidings};

async fn key(tidings: &Tidings, role: Role, bound_to: Option<&str>) -> Api {
    let db = &tidings.app().db;
    let mut id = None;
    if let Some(slug) = bound_to {
        id = Some(brand::rows::find(db.reads(), slug).await.unwrap().unwrap().id);
    }
    let made = access::rows::create_key(db, "test", role, id, "test").await.unwrap();
    tidings.with_key(made.key.expose_secret())
}

on_both! {
    async fn a_template_that_cannot_be_used_is_refused_with_line_and_column(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let put = |body| tidings.put("/templates/t", body);
        let refused = put(json!({ "subject": "s", "html": "<p>\n  {{#if a}}x" })).await.refuses("/html");
        assert!(refused.starts_with("line 2, column"), "{refused}");
        let refused = put(json!({ "subject": "{{log name}}", "html": "<p>x</p>" })).await.refuses("/subject");
        assert!(refused.contains("line 1, column 1") && refused.contains("no helper"), "{refused}");
        put(json!({ "subject": "a\r\nBcc: x@y.example", "html": "x" })).await.refuses("/subject");
        put(json!({ "subject": "s", "html": "{{#if a}}".repeat(2_000) })).await.refuses("/html");
        put(json!({ "subject": "s", "html": "x".repeat(300_000) })).await.refuses("/html");
        put(json!({ "subject": "s", "html": "x", "brand": "nobody" })).await.refuses("/brand");
        put(json!({ "subject": "s", "html": "x", "classes": [] })).await.refuses("/classes");
        tidings.get("/templates/t").await.is(404);
        tidings.stop().await;
    }

    async fn a_template_is_written_read_listed_and_deleted(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let body = json!({ "subject": "Hi {{name}}", "html": "<p>{{name}}</p>" });
        tidings.put("/templates/b", body.clone()).await.is(201);
        let made = tidings.put("/templates/a", body.clone()).await.ok();
        assert_eq!(made["classes"], json!(["relationship", "reminder", "marketing"]));
        assert_eq!(tidings.put("/templates/a", body).await.is(200).json()["text"], json!(null));
        let first = tidings.get("/templates?limit=1").await.ok();
        assert_eq!(first["items"][0]["template"], "a");
        let next = first["next"].as_str().unwrap();
        let second = tidings.get(&format!("/templates?limit=1&after={next}")).await.ok();
        assert_eq!((&second["items"][0]["template"], &second["next"]), (&json!("b"), &json!(null)));
        tidings.delete("/templates/a").await.is(204);
        tidings.get("/templates/a").await.is(404);
        tidings.stop().await;
    }

    async fn templates_that_include_each_other_are_refused_and_a_missing_one_keeps_a_campaign_from_starting(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        tidings.put("/templates/x", json!({ "subject": "s", "html": "{{> hello}}" })).await.ok();
        let circle = json!({ "subject": "s", "html": "{{> x}}" });
        let refused = tidings.put("/templates/hello", circle).await.refuses("/html");
        assert!(refused.contains("include itself"), "{refused}");
        tidings.put("/templates/hello", json!({ "subject": "s", "html": "{{> gone}}" })).await.ok();
        let id = tidings.draft("acme", "marketing").await;
        let refused = tidings.post_empty(&format!("/campaigns/{id}/start")).await.refuses("/template");
        assert!(refused.contains("gone"), "{refused}");
        tidings.stop().await;
    }

    async fn what_cannot_be_refused_is_written_by_admin_alone_and_a_bound_key_writes_its_brands(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand("acme").await;
        tidings.brand("other").await;
        let offer = json!({ "subject": "s", "html": "x" });
        let receipt = json!({ "subject": "s", "html": "x", "classes": ["requested"] });
        tidings.put("/templates/receipt", receipt.clone()).await.ok();
        let marketer = key(&tidings, Role::Marketer, None).await;
        marketer.put("/templates/offer", offer.clone()).await.is(201);
        // Neither into such a template, nor out of one.
        marketer.put("/templates/offer", receipt.clone()).await.problem(403);
        marketer.put("/templates/receipt", offer.clone()).await.problem(403);
        marketer.delete("/templates/receipt").await.problem(403);
        key(&tidings, Role::Sender, None).await.put("/templates/offer", offer.clone()).await.problem(403);
        let bound = key(&tidings, Role::Marketer, Some("acme")).await;
        bound.put("/templates/own", offer.clone()).await.refuses("/brand");
        let own = json!({ "subject": "s", "html": "x", "brand": "acme" });
        bound.put("/templates/own", own.clone()).await.is(201);
        bound.put("/templates/own2", json!({ "subject": "s", "html": "x", "brand": "other" })).await.refuses("/brand");
        bound.put("/templates/offer", own).await.problem(409);
        bound.delete("/templates/offer").await.problem(403);
        bound.get("/templates/offer").await.is(200);
        let elsewhere = key(&tidings, Role::Marketer, Some("other")).await;
        elsewhere.get("/templates/own").await.problem(404);
        elsewhere.delete("/templates/own").await.problem(404);
        tidings.stop().await;
    }
}
