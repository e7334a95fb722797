//! The management API: who may do what, what is refused and how, what the OpenAPI document says.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use tidings::access;
use tidings::brand;
use tidings::web::Role;

use crate::harness::*;
use crate::logo::LOGO;

/// A key of this role, bound to this brand if one is given.
async fn key(tidings: &Tidings, role: Role, bound_to: Option<&str>) -> Api {
    use secrecy::ExposeSecret as _;
    let db = &tidings.app().db;
    let mut id = None;
    if let Some(slug) = bound_to {
        id = Some(brand::rows::find(db.reads(), slug).await.unwrap().unwrap().id);
    }
    let made = access::rows::create_key(db, &format!("test {role}"), role, id, "test").await.unwrap();
    tidings.with_key(made.key.expose_secret())
}

fn brand_body() -> Value {
    json!({
        "name": "Acme", "from": "Acme <news@acme.example>", "notice_from": "Acme Service <service@acme.example>",
        "reply_to": "help@acme.example", "postal_address": "1 Main Street, 12345 Springfield",
        "phone": "+1 555 0100", "website": "https://acme.example/", "base_url": "https://news.acme.example/",
        "bounce_domain": "bounce.acme.example", "color": "#336699", "logo": LOGO,
        "origins": ["https://acme.example"], "one_click_scope": "brand",
    })
}

/// A POST to `/campaigns` with this `Idempotency-Key`.
async fn keyed(api: &Api, key: &str, body: &Value) -> Answer {
    let request = api.request(Method::POST, "/api/v1/campaigns").header("idempotency-key", key).json(body);
    Answer::of(request).await
}

on_both! {
    async fn a_brand_is_made_changed_archived_and_brought_back(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let made = tidings.put("/brands/acme", brand_body()).await.is(201).json();
        assert_eq!(made["brand"], "acme");
        assert_eq!(made["base_url"], "https://news.acme.example");
        for (field, value) in brand_body().as_object().unwrap() {
            // Two come back as they are used.
            if field != "base_url" && field != "logo" {
                assert_eq!(&made[field], value, "{field}");
            }
        }
        assert!(made["logo"].as_str().unwrap().starts_with("https://news.acme.example/logo/"), "{made}");
        assert_eq!(tidings.get("/brands/acme").await.ok(), made);

        let bare = json!({ "name": "Acme 2", "from": "news@acme.example", "postal_address": "" });
        let changed = tidings.put("/brands/acme", bare).await.is(200).json();
        assert_eq!((&changed["name"], &changed["phone"], &changed["one_click_scope"]), (&json!("Acme 2"), &Value::Null, &json!("all")));
        assert_eq!(changed["created_at"], made["created_at"]);

        let topic = json!({ "name": "News", "class": "marketing", "consent": "opt_in" });
        assert_eq!(tidings.put("/brands/acme/topics/news", topic.clone()).await.is(201).json()["consent"], "opt_in");
        tidings.put("/brands/acme/topics/news", topic.clone()).await.is(200);
        assert_eq!(tidings.get("/brands/acme/topics").await.ok()["items"].as_array().unwrap().len(), 1);
        tidings.delete("/brands/acme/topics/news").await.is(204);
        tidings.delete("/brands/acme/topics/news").await.problem(404);
        tidings.get("/brands/acme/topics/news").await.problem(404);
        assert_eq!(tidings.get("/brands/acme/topics").await.ok()["items"], json!([]));
        tidings.put("/brands/acme/topics/news", topic).await.is(200);
        tidings.get("/brands/acme/topics/news").await.is(200);

        tidings.delete("/brands/acme").await.is(204);
        tidings.get("/brands/acme").await.problem(404);
        assert_eq!(tidings.get("/brands").await.ok()["items"], json!([]));
        tidings.put("/brands/acme/topics/news", json!({ "name": "N", "class": "service" })).await.problem(404);
        tidings.put("/brands/acme", brand_body()).await.is(200);
        tidings.get("/brands/acme/topics/news").await.is(200);

        let audit = tidings.get("/audit?limit=500").await.ok();
        let actions: Vec<_> = audit["items"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
        assert_eq!(actions.first(), Some(&"brand.put"));
        assert!(actions.contains(&"brand.archive") && actions.contains(&"topic.archive"), "{actions:?}");
        assert!(audit["items"].as_array().unwrap().iter().all(|entry| entry["actor"] == "key:admin"));
        tidings.stop().await;
    }

    async fn line_ends_and_nul_are_refused_in_every_field_of_text(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.put("/brands/acme", brand_body()).await.is(201);
        for bad in ["\r", "\n", "\0", "\r\nBcc: x@y.example"] {
            for field in ["name", "from", "notice_from", "reply_to", "postal_address", "phone", "website", "base_url",
                "bounce_domain", "color", "logo"] {
                let mut body = brand_body();
                body[field] = json!(format!("{}{bad}x", body[field].as_str().unwrap()));
                tidings.put("/brands/acme", body).await.refuses(&format!("/{field}"));
            }
            let mut body = brand_body();
            body["origins"] = json!([format!("https://acme.example{bad}")]);
            tidings.put("/brands/acme", body).await.refuses("/origins/0");
            for field in ["name", "description"] {
                let mut body = json!({ "name": "News", "class": "marketing", "description": "d" });
                body[field] = json!(format!("a{bad}b"));
                tidings.put("/brands/acme/topics/news", body).await.refuses(&format!("/{field}"));
            }
            for field in ["email", "name", "external_id", "locale"] {
                let mut body = json!({ "email": "ann@people.example", "name": "Ann", "external_id": "1", "locale": "en" });
                body[field] = json!(format!("{}{bad}x", body[field].as_str().unwrap()));
                tidings.post("/recipients", body).await.refuses(&format!("/{field}"));
            }
        }
        tidings.stop().await;
    }

    async fn nul_is_refused_in_every_place_and_never_reaches_the_database(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        let campaign = tidings.draft("acme", "marketing").await;
        let base = json!({ "brand": "acme", "topic": "marketing", "template": "hello" });
        for (field, value, pointer) in [
            ("data", json!({ "x": "a\0" }), "/data/x"),
            ("data", json!({ "a\0": 1 }), "/data"),
            ("audience", json!({ "tags": ["a\0"] }), "/audience/tags/0"),
            ("audience", json!({ "attributes": { "a": "\0" } }), "/audience/attributes/a"),
            ("audience", json!({ "locale": "\0" }), "/audience/locale"),
            ("brand", json!("a\0"), "/brand"),
        ] {
            let mut body = base.clone();
            body[field] = value.clone();
            tidings.post("/campaigns", body).await.refuses(pointer);
            if field != "brand" {
                let request = tidings.request(Method::PATCH, &format!("/api/v1/campaigns/{campaign}"));
                Answer::of(request.json(&json!({ field: value }))).await.refuses(pointer);
            }
        }
        let to = json!({ "to": ["ann@people.example"], "data": { "x": "\0" } });
        tidings.post(&format!("/campaigns/{campaign}/test"), to).await.refuses("/data/x");
        let mut message = base.clone();
        message["to"] = json!({ "email": "ann@people.example" });
        message["data"] = json!({ "x": ["\0"] });
        tidings.post("/messages", message).await.refuses("/data/x/0");
        for field in ["brands", "customer_of"] {
            let body = json!({ "email": "ann@people.example", field: ["a\0"] });
            tidings.post("/recipients", body).await.refuses(&format!("/{field}/0"));
        }
        let scope = json!({ "email": "ann@people.example", "channel": "phone", "scope": { "brand": "a\0" } });
        tidings.post("/opt-outs", scope).await.refuses("/scope/brand");
        for path in ["/brands/%00", "/templates/a%00", "/brands/acme/topics/%00", "/recipients/%00"] {
            tidings.get(path).await.problem(404);
        }
        tidings.get("/explain?email=a@b.example&brand=acme%00&topic=x").await.refuses("brand");
        tidings.get("/campaigns?brand=%00").await.refuses("brand");
        let list = "email,scope\na@b.example,brand:a\0b\nc@b.example,brand:acme\n".to_owned();
        let report = tidings.post_text("/opt-outs/import", "text/csv", list).await.ok();
        assert_eq!((&report["added"], &report["errors"][0]["line"]), (&json!(1), &json!(2)), "{report}");
        tidings.stop().await;
    }

    async fn a_template_that_would_include_itself_is_refused_when_it_is_written(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let put = async |slug: &str, html: &str, text: Option<&str>| {
            tidings.put(&format!("/templates/{slug}"), json!({ "subject": "s", "html": html, "text": text })).await
        };
        put("a", "<p>{{> a}}</p>", None).await.refuses("/html");
        put("a", "<p>{{> b}}</p>", None).await.is(201);
        put("b", "<p>{{> c}}</p>", None).await.is(201);
        let reason = put("c", "{{#if data.x}}{{> a}}{{/if}}", None).await.refuses("/html");
        assert!(reason.contains("\"a\""), "{reason}");
        put("c", "plain", Some("{{> a}}")).await.refuses("/text");
        put("c", "plain", Some("plain")).await.is(201);
        // Parts include the like parts of others: no circle here.
        put("a", "{{> b}}", Some("plain")).await.is(200);
        put("c", "plain", Some("{{> a}}")).await.is(200);
        tidings.stop().await;
    }

    async fn what_cannot_be_used_is_refused_by_name_all_at_once(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let answer = tidings
            .put("/brands/Acme_1", json!({ "name": "", "from": "nobody", "postal_address": "", "color": "red", "logo": "http://x.example/l.png" }))
            .await;
        for pointer in ["brand", "/name", "/from", "/color", "/logo"] {
            answer.refuses(pointer);
        }
        let reason = tidings.put("/brands/acme", json!({ "name": "A", "nmae": "B" })).await.refuses("/nmae");
        assert!(reason.contains("not known"), "{reason}");
        tidings.put("/brands/acme", json!({ "name": "A", "from": "a@b.example" })).await.refuses("/postal_address");
        tidings.put("/brands/acme", json!({ "name": 1 })).await.refuses("/name");
        tidings.put("/brands/acme", brand_body()).await.is(201);
        for (body, pointer) in [
            (json!({ "name": "N", "class": "spam" }), "/class"),
            (json!({ "name": "N", "class": "service", "consent": "opt_in" }), "/consent"),
            (json!({ "name": "N", "class": "marketing", "customers_keep": true }), "/customers_keep"),
            (json!({ "name": "N".repeat(201), "class": "marketing" }), "/name"),
        ] {
            tidings.put("/brands/acme/topics/news", body).await.refuses(pointer);
        }

        let put = |body: &'static str, kind: &'static str| {
            let request = tidings.request(Method::PUT, "/api/v1/brands/acme").header("content-type", kind).body(body);
            Answer::of(request)
        };
        put("{}", "text/plain").await.problem(415);
        let detail = put("{\"name\":\n  oops", "application/json").await.problem(400)["detail"].to_string();
        assert!(detail.contains("line 2 column 3"), "{detail}");
        put("", "application/json").await.problem(400);
        put("{}", "application/json; charset=utf-8").await.problem(422);
        let mut large = brand_body();
        large["name"] = json!("x".repeat(1024 * 1024));
        tidings.put("/brands/acme", large).await.problem(413);
        tidings.stop().await;
    }

    async fn whatever_fails_under_api_is_a_problem(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let nobody = tidings.anonymous();
        for answer in [
            nobody.get("/brands").await,
            tidings.with_key("wrong").get("/brands").await,
            tidings.with_key("tk_0123456789_wrong").get("/brands").await,
            nobody.put("/brands/acme", brand_body()).await,
        ] {
            answer.problem(401);
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        tidings.get("/nowhere").await.problem(404);
        let answer = tidings.post("/brands/acme", json!({})).await;
        answer.problem(405);
        let allowed: BTreeSet<&str> = answer.header("allow").split(',').map(str::trim).collect();
        assert!(["GET", "PUT", "DELETE"].iter().all(|method| allowed.contains(method)), "{allowed:?}");
        tidings.get("/brands?limit=0").await.refuses("limit");
        tidings.get("/brands?limit=501").await.refuses("limit");
        tidings.get("/brands?limit=x").await.refuses("limit");
        tidings.get("/brands?after=%20").await.refuses("after");
        let answer = tidings.get("/brands").await;
        assert_eq!((answer.header("cache-control"), answer.header("x-content-type-options")), ("no-store", "nosniff"));
        assert!(!answer.header("x-request-id").is_empty());
        tidings.stop().await;
    }

    async fn a_key_may_do_what_its_role_says_until_it_is_revoked(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.put("/brands/acme", brand_body()).await.is(201);
        let topic = json!({ "name": "News", "class": "marketing" });
        for role in Role::ALL {
            let api = key(&tidings, role, None).await;
            let admin = role == Role::Admin;
            api.get("/brands").await.is(200);
            api.get("/brands/acme").await.is(200);
            for answer in [
                api.put("/brands/acme", brand_body()).await,
                api.put("/brands/acme/topics/news", topic.clone()).await,
                api.delete("/brands/acme/topics/news").await,
            ] {
                if admin { answer.ok(); } else { answer.problem(403); }
            }
            let audit = api.get("/audit").await;
            if admin || role == Role::Auditor { audit.is(200); } else { audit.problem(403); }
        }
        let db = &tidings.app().db;
        let keys = access::rows::list_keys(db.reads()).await.unwrap();
        assert_eq!(keys.len(), Role::ALL.len());
        let api = key(&tidings, Role::Marketer, None).await;
        let made = access::rows::list_keys(db.reads()).await.unwrap().pop().unwrap();
        api.get("/brands").await.is(200);
        assert!(access::rows::revoke_key(db, &made.prefix, "test").await.unwrap().unwrap().revoked_at.is_some());
        api.get("/brands").await.problem(401);
        assert!(access::rows::revoke_key(db, "nothing", "test").await.unwrap().is_none());
        tidings.stop().await;
    }

    async fn a_key_bound_to_a_brand_sees_no_other(database: Database) {
        let tidings = Tidings::start_web(database).await;
        for brand in ["acme", "other"] {
            tidings.put(&format!("/brands/{brand}"), brand_body()).await.is(201);
            tidings.put(&format!("/brands/{brand}/topics/news"), json!({ "name": "N", "class": "marketing" })).await.is(201);
        }
        let api = key(&tidings, Role::Admin, Some("acme")).await;
        let seen = api.get("/brands").await.ok();
        assert_eq!(seen["items"].as_array().unwrap().len(), 1);
        assert_eq!(seen["items"][0]["brand"], "acme");
        api.get("/brands/acme/topics/news").await.is(200);
        api.put("/brands/acme", brand_body()).await.is(200);
        for brand in ["other", "not-there"] {
            api.get(&format!("/brands/{brand}")).await.problem(404);
            api.get(&format!("/brands/{brand}/topics")).await.problem(404);
            api.put(&format!("/brands/{brand}"), brand_body()).await.problem(404);
            api.put(&format!("/brands/{brand}/topics/news"), json!({ "name": "N", "class": "marketing" })).await.problem(404);
            api.delete(&format!("/brands/{brand}")).await.problem(404);
        }
        api.get("/audit").await.problem(403);
        tidings.stop().await;
    }

    async fn lists_are_paged_without_gaps_or_repeats(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.put("/brands/acme", brand_body()).await.is(201);
        for n in 0..7 {
            let path = format!("/brands/acme/topics/t{n}");
            tidings.put(&path, json!({ "name": "N", "class": "marketing" })).await.is(201);
        }
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let page = tidings.get(&format!("/brands/acme/topics?limit=3{after}")).await.ok();
            seen.extend(page["items"].as_array().unwrap().iter().map(|t| t["topic"].as_str().unwrap().to_owned()));
            if seen.len() == 3 {
                // What comes in before the cursor moves nothing.
                tidings.put("/brands/acme/topics/a", json!({ "name": "N", "class": "marketing" })).await.is(201);
            }
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(seen, (0..7).map(|n| format!("t{n}")).collect::<Vec<_>>());
        tidings.stop().await;
    }

    async fn twenty_equal_calls_with_one_idempotency_key_make_one_campaign(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        let body = json!({ "brand": "acme", "topic": "marketing", "template": "hello" });
        let answers = futures_util::future::join_all((0..20).map(|_| keyed(&tidings, "once", &body))).await;
        let made = keyed(&tidings, "once", &body).await;
        assert_eq!(made.header("idempotency-replayed"), "true");
        for answer in answers {
            if answer.status != 409 {
                assert_eq!(answer.is(201).id(), made.id());
            }
        }
        assert_eq!(tidings.get("/campaigns").await.ok()["items"].as_array().unwrap().len(), 1);

        let other = json!({ "brand": "acme", "topic": "reminder", "template": "hello" });
        keyed(&tidings, "once", &other).await.refuses("idempotency-key");
        assert_ne!(keyed(&tidings, "twice", &body).await.is(201).id(), made.id());
        let marketer = key(&tidings, Role::Marketer, None).await;
        assert_ne!(keyed(&marketer, "once", &body).await.is(201).id(), made.id());

        let wrong = json!({ "brand": "nobody", "topic": "marketing", "template": "hello" });
        let refused = keyed(&tidings, "wrong", &wrong).await;
        assert!(refused.status.is_client_error(), "{refused:?}");
        let again = keyed(&tidings, "wrong", &wrong).await;
        assert_eq!((again.status, &again.text, again.header("idempotency-replayed")), (refused.status, &refused.text, "true"));
        tidings.stop().await;
    }

    async fn a_call_that_a_crash_cut_off_makes_the_same_campaign_when_it_is_repeated(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        let body = json!({ "brand": "acme", "topic": "marketing", "template": "hello" });
        let made = keyed(&tidings, "crash", &body).await.is(201).id();
        // As if the process had died between the campaign's commit and the keeping of the answer.
        let txn = tidings.app().db.begin().await.unwrap();
        let cut = "UPDATE idempotency SET status = NULL, body = NULL, content_type = NULL";
        txn.execute_unprepared(cut).await.unwrap();
        txn.commit().await.unwrap();
        keyed(&tidings, "crash", &body).await.problem(409);
        tidings.advance(Duration::from_secs(61));
        let repeated = keyed(&tidings, "crash", &body).await;
        assert_eq!((repeated.ok()["id"].as_str(), repeated.header("idempotency-replayed")), (Some(made.as_str()), ""));
        assert_eq!(tidings.get("/campaigns").await.ok()["items"].as_array().unwrap().len(), 1);
        tidings.stop().await;
    }

    async fn health_says_what_is_ready(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.page("/healthz").await.is(200);
        let ready = tidings.page("/readyz").await;
        assert_eq!((ready.is(200).json()["database"].clone(), ready.json()["migrations"].clone()), (json!("ok"), json!("ok")));
        assert!(ready.json()["relay"].is_string());
        tidings.get("/brands").await.is(200);
        let metrics = tidings.page("/metrics").await;
        assert!(metrics.is(200).text.contains("tidings_http_requests_total"), "{}", metrics.text);
        assert!(metrics.text.contains("/api/v1/brands"), "{}", metrics.text);
        assert!(tidings.page("/nowhere").await.status == 404);
        tidings.stop().await;
    }

    async fn a_lone_worker_serves_health_and_metrics_and_says_that_its_relay_is_away(database: Database) {
        let env = [("TIDINGS_RELAY_URL", "smtp://127.0.0.1:1")];
        let worker = Process::serve(&database, &["--only", "worker"], &env).await;
        worker.api.page("/healthz").await.is(200);
        let ready = worker.api.page("/readyz").await.is(200).json();
        assert_eq!((&ready["ready"], &ready["relay"]), (&json!(true), &json!("unreachable")), "{ready}");
        let metrics = worker.api.page("/metrics").await;
        assert!(metrics.is(200).text.contains("tidings_relay_reachable 0"), "{}", metrics.text);
        for path in ["/api/openapi.json", "/api/v1/brands", "/u/x"] {
            worker.api.page(path).await.is(404);
        }
    }
}

/// Part 1 of the interface: what stands here must be in the document, and nothing else may be but `ALSO`.
const CALLS: &[&str] = &[
    "GET /notices/{id}",
    "POST /notices/{id}/postpone",
    "POST /notices/{id}/correct",
    "POST /notices/{id}/withdraw",
    "POST /notices/{id}/release",
    "DELETE /notices/{id}/waiting",
    "GET /notices/{id}/evidence",
    "GET /notices/{id}/unreachable",
    "POST /notices/{id}/told",
    "POST /notices/{id}/answers",
    "GET /recipients/{id}/policies",
    "PUT /policies/{policy}",
    "POST /policies/{policy}/versions",
    "POST /policies/{policy}/versions/{n}/publish",
    "POST /policies/{policy}/versions/{n}/release",
    "PUT /brands/{brand}",
    "PUT /brands/{brand}/topics/{topic}",
    "DELETE /brands/{brand}",
    "DELETE /brands/{brand}/topics/{topic}",
    "POST /recipients",
    "POST /recipients/import",
    "GET /recipients",
    "GET /recipients/{id}",
    "PATCH /recipients/{id}",
    "GET /recipients/{id}/deliveries",
    "PUT /templates/{template}",
    "POST /campaigns",
    "POST /campaigns/{id}/recipients",
    "POST /campaigns/{id}/start",
    "POST /campaigns/{id}/pause",
    "POST /campaigns/{id}/resume",
    "POST /campaigns/{id}/cancel",
    "POST /campaigns/{id}/retry",
    "GET /campaigns",
    "GET /campaigns/{id}",
    "PATCH /campaigns/{id}",
    "DELETE /campaigns/{id}",
    "GET /campaigns/{id}/deliveries",
    "POST /campaigns/{id}/test",
    "GET /campaigns/{id}/preview",
    "POST /messages",
    "GET /messages/{id}",
    "GET /explain",
    "POST /opt-outs",
    "GET /opt-outs",
    "GET /opt-outs/export",
    "POST /opt-outs/import",
    "POST /opt-ins",
];
/// What users of such software expect besides.
const ALSO: &[&str] = &[
    "GET /notices",
    "GET /policies",
    "GET /policies/{policy}",
    "GET /policies/{policy}/versions",
    "GET /policies/{policy}/versions/{n}",
    "DELETE /policies/{policy}/versions/{n}",
    "GET /policies/{policy}/versions/{n}/preview",
    "GET /brands",
    "GET /brands/{brand}",
    "GET /brands/{brand}/topics",
    "GET /brands/{brand}/topics/{topic}",
    "GET /templates",
    "GET /templates/{template}",
    "DELETE /templates/{template}",
    "GET /audit",
    "POST /addresses/revive",
];

#[tokio::test]
async fn the_openapi_document_holds_every_call_and_nothing_else() {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    let document = tidings.page("/api/openapi.json").await.is(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert_eq!(document["info"]["title"], "Tidings");
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let mut found = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut faults = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let call = format!("{} {}", method.to_uppercase(), path.strip_prefix("/api/v1").unwrap());
            faults.extend(faults_of(&call, method, operation));
            if !ids.insert(operation["operationId"].as_str().unwrap_or_default().to_owned()) {
                faults.push(format!("{call}: its operationId is taken"));
            }
            served(&tidings, method, path).await;
            found.insert(call);
        }
    }
    let wanted: BTreeSet<String> = CALLS.iter().map(|call| (*call).to_owned()).collect();
    let known: BTreeSet<String> = CALLS.iter().chain(ALSO).map(|call| (*call).to_owned()).collect();
    faults.extend(wanted.difference(&found).map(|call| format!("{call}: missing")));
    faults.extend(found.difference(&known).map(|call| format!("{call}: not in the interface")));
    faults.extend(dangling(&document, &document));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // Two types of one name would overwrite each other.
    for (schema, word) in [("Campaign", "draft"), ("Delivery", "queued")] {
        let state = &document["components"]["schemas"][schema]["properties"]["state"];
        let to =
            [state, &state["allOf"][0]].iter().find_map(|part| part["$ref"].as_str()).unwrap_or_default();
        let words = document.pointer(&format!("{}/enum", to.trim_start_matches('#')));
        let words = words.and_then(Value::as_array).unwrap_or_else(|| panic!("{schema}: {state}"));
        assert!(words.contains(&json!(word)), "{schema}: {words:?}");
    }
    tidings.stop().await;
}

fn faults_of(call: &str, method: &str, operation: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            faults.push(format!("{call}: {what}"));
        }
    };
    must(operation["operationId"].as_str().is_some_and(|id| !id.is_empty()), "no operationId");
    must(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "no summary");
    if matches!(method, "put" | "patch") {
        must(operation["requestBody"]["content"].is_object(), "no request body");
    }
    let responses = operation["responses"].as_object().cloned().unwrap_or_default();
    let well = responses.iter().filter(|(status, _)| status.starts_with('2'));
    must(well.clone().count() > 0, "no success");
    for (status, response) in &responses {
        let described = response["description"].as_str().is_some_and(|text| !text.is_empty());
        must(described, &format!("{status} without a description"));
    }
    for (status, response) in well {
        must(status == "204" || response["content"].is_object(), "a success without a schema");
    }
    must(responses.contains_key("401") && responses.contains_key("422"), "no 401 or 422");
    for (status, response) in responses.iter().filter(|(status, _)| status.starts_with('4')) {
        must(response["content"]["application/problem+json"].is_object(), &format!("{status} is no problem"));
    }
    faults
}

/// References that lead nowhere.
fn dangling(document: &Value, part: &Value) -> Vec<String> {
    match part {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value.as_str().filter(|_| name == "$ref") {
                Some(to) if document.pointer(to.trim_start_matches('#')).is_none() => {
                    vec![format!("{to}: dangling")]
                }
                _ => dangling(document, value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| dangling(document, item)).collect(),
        _ => Vec::new(),
    }
}

/// Without a key every documented call is 401: it is there, and it asks who calls before anything else.
async fn served(tidings: &Tidings, method: &str, path: &str) {
    let path = path.replace(['{', '}'], "");
    let method: Method = method.to_uppercase().parse().unwrap();
    let request =
        tidings.anonymous().request(method, &path).header("content-type", "application/json").body("{}");
    Answer::of(request).await.problem(401);
}
