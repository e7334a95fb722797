//! The middleware around a handler that counts how often it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tower::ServiceExt as _;

use super::*;
use crate::config::Settings;
use crate::web::Json;

struct Scene {
    app: App,
    router: Router,
    runs: Arc<AtomicUsize>,
    go_on: Arc<Notify>,
    _folder: TempDir,
}

impl Scene {
    async fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("t.db").display());
        let mut settings = Settings::local(&url);
        settings.admin_key = Some(SecretString::from("the-admin-key"));
        let app = App::open(settings, true).await.unwrap();
        let (runs, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let counted = runs.clone();
        let waited = go_on.clone();
        let make = move |NewId(id): NewId, Json(body): Json<Value>| async move {
            let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
            match body["do"].as_str() {
                Some("wait") => waited.notified().await,
                Some("panic") => panic!("as asked"),
                Some("fail once") if run == 1 => return Problem::unavailable().into_response(),
                Some("refuse") => return Problem::conflict(format!("run {run}")).into_response(),
                _ => {}
            }
            (StatusCode::CREATED, Json(json!({ "id": id, "run": run }))).into_response()
        };
        let router = Router::new()
            .route("/things", post(make.clone()))
            .route("/others", post(make))
            .route_layer(axum::middleware::from_fn_with_state(app.clone(), layer))
            .with_state(app.clone());
        Self { app, router, runs, go_on, _folder: folder }
    }

    async fn post(&self, path: &str, key: &str, body: Value) -> (u16, Value, bool) {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, "Bearer the-admin-key")
            .header(header::CONTENT_TYPE, "application/json")
            .header(KEY, key)
            .body(Body::from(body.to_string()))
            .unwrap();
        self.send(request).await
    }

    async fn send(&self, request: Request) -> (u16, Value, bool) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let replayed = response.headers().contains_key(REPLAYED);
        let body = to_bytes(response.into_body(), MAX_BODY).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default(), replayed)
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    fn call(key: &str) -> Call {
        Call { api_key: "key:admin".into(), path: "/things".into(), key: key.into() }
    }
}

#[tokio::test]
async fn twenty_equal_calls_make_one_thing() {
    let scene = Scene::set().await;
    let calls = (0..20).map(|_| scene.post("/things", "k", json!({ "a": 1 })));
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(scene.runs(), 1);
    let first = scene.post("/things", "k", json!({ "a": 1 })).await;
    assert_eq!((first.0, first.2), (201, true));
    for (status, body, _) in answers {
        assert!(status == 409 || (status == 201 && body == first.1), "{status} {body}");
    }
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_another_body_or_path_does_not() {
    let scene = Scene::set().await;
    let first = scene.post("/things", "k", json!({ "a": 1 })).await;
    assert_eq!(scene.post("/things", "k", json!({ "a": 1 })).await, (201, first.1.clone(), true));
    let other = scene.post("/things", "k", json!({ "a": 2 })).await;
    assert_eq!((other.0, &other.1["errors"][0]["pointer"]), (422, &json!("idempotency-key")));
    assert_ne!(scene.post("/others", "k", json!({ "a": 1 })).await.1, first.1);
    assert_ne!(scene.post("/things", "l", json!({ "a": 1 })).await.1, first.1);
    assert_eq!(scene.runs(), 3);
}

#[tokio::test]
async fn refusals_are_kept_and_failures_are_not() {
    let scene = Scene::set().await;
    let refused = scene.post("/things", "r", json!({ "do": "refuse" })).await;
    assert_eq!(refused.0, 409);
    assert_eq!(scene.post("/things", "r", json!({ "do": "refuse" })).await, (409, refused.1, true));

    let scene = Scene::set().await;
    assert_eq!(scene.post("/things", "f", json!({ "do": "fail once" })).await.0, 503);
    let second = scene.post("/things", "f", json!({ "do": "fail once" })).await;
    assert_eq!((second.0, second.2), (201, false));
    assert_eq!(scene.post("/things", "p", json!({ "do": "panic" })).await.0, 500);
    assert_eq!(scene.post("/things", "p", json!({ "do": "panic" })).await.0, 500);
}

#[tokio::test]
async fn a_call_while_the_first_runs_is_a_conflict_and_one_that_hung_up_is_answered_later() {
    let scene = Scene::set().await;
    let body = json!({ "do": "wait" });
    let begun = async {
        while scene.runs() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = scene.post("/things", "w", body.clone()) => panic!("answered {answer:?}"),
        () = begun => {} // and hangs up
    }
    assert_eq!(scene.post("/things", "w", body.clone()).await.0, 409);
    scene.go_on.notify_one();
    loop {
        let (status, _, replayed) = scene.post("/things", "w", body.clone()).await;
        if status == 201 {
            assert!(replayed && scene.runs() == 1);
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_whose_runner_died_is_taken_over_with_the_same_id() {
    let scene = Scene::set().await;
    let body = json!({ "a": 1 });
    let hash = Sha256::digest(body.to_string());
    let Claim::Ours { resource_id, .. } = rows::claim(&scene.app.db, &Scene::call("c"), &hash).await.unwrap()
    else {
        panic!("not ours")
    };
    assert_eq!(scene.post("/things", "c", body.clone()).await.0, 409);
    scene.app.db.clock().advance(rows::LEASE + Duration::from_secs(1));
    let (status, made, _) = scene.post("/things", "c", body).await;
    assert_eq!((status, &made["id"]), (201, &json!(resource_id)));
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day() {
    let scene = Scene::set().await;
    let first = scene.post("/things", "d", json!({})).await;
    scene.app.db.clock().advance(rows::KEPT - Duration::from_secs(60));
    assert_eq!(scene.post("/things", "d", json!({})).await.1, first.1);
    scene.app.db.clock().advance(Duration::from_secs(120));
    // Another call sweeps as well.
    assert_eq!(scene.post("/things", "e", json!({})).await.0, 201);
    let again = scene.post("/things", "d", json!({ "other": "body" })).await;
    assert_eq!((again.0, again.2), (201, false));
}

#[tokio::test]
async fn only_who_has_a_key_and_gives_a_usable_idempotency_key_is_served() {
    let scene = Scene::set().await;
    for (authorization, key, status) in [
        ("Bearer wrong", "k", 401),
        ("Basic the-admin-key", "k", 401),
        ("Bearer the-admin-key", "", 422),
        ("Bearer the-admin-key", "two words", 422),
    ] {
        let request = Request::post("/things")
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .header(KEY, key)
            .body(Body::from("{}"))
            .unwrap();
        assert_eq!(scene.send(request).await.0, status, "{authorization} {key:?}");
    }
    assert_eq!(scene.post("/things", &"k".repeat(256), json!({})).await.0, 422);
    assert_eq!(scene.post("/things", "big", json!("x".repeat(MAX_BODY * 2))).await.0, 413);
    assert_eq!(scene.runs(), 0);
}
