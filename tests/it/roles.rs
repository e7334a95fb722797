//! Every call with every role: allowed or refused as `interface` says and as the OpenAPI document tells.

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tidings::access::rows::{create_key, revoke_key};
use tidings::brand;
use tidings::web::Role;

use crate::harness::{Answer, Api, Database, Tidings};

const EVERYONE: &str = "admin accounts marketer sender operator auditor";
const ROLES: [Role; 6] =
    [Role::Admin, Role::Accounts, Role::Marketer, Role::Sender, Role::Operator, Role::Auditor];
const ADA: &str = "ada@people.example.com";
const NOBODY: &str = "01890000-0000-7000-8000-000000000000";

/// Method and path of each call, and who may make it.
const CALLS: [(&str, &str, &str); 64] = [
    ("post", "/addresses/revive", "admin operator"),
    ("get", "/audit", "admin auditor"),
    ("get", "/brands", EVERYONE),
    ("get", "/brands/{brand}", EVERYONE),
    ("put", "/brands/{brand}", "admin"),
    ("delete", "/brands/{brand}", "admin"),
    ("get", "/brands/{brand}/topics", EVERYONE),
    ("get", "/brands/{brand}/topics/{topic}", EVERYONE),
    ("put", "/brands/{brand}/topics/{topic}", "admin"),
    ("delete", "/brands/{brand}/topics/{topic}", "admin"),
    ("get", "/campaigns", "admin marketer auditor"),
    ("post", "/campaigns", "admin marketer"),
    ("get", "/campaigns/{id}", "admin marketer auditor"),
    ("patch", "/campaigns/{id}", "admin marketer"),
    ("delete", "/campaigns/{id}", "admin marketer"),
    ("post", "/campaigns/{id}/recipients", "admin marketer"),
    ("post", "/campaigns/{id}/start", "admin marketer"),
    ("post", "/campaigns/{id}/pause", "admin marketer"),
    ("post", "/campaigns/{id}/resume", "admin marketer"),
    ("post", "/campaigns/{id}/cancel", "admin marketer"),
    ("post", "/campaigns/{id}/retry", "admin marketer"),
    ("post", "/campaigns/{id}/test", "admin marketer"),
    ("get", "/campaigns/{id}/preview", "admin marketer auditor"),
    ("get", "/campaigns/{id}/deliveries", "admin marketer auditor"),
    ("get", "/explain", "admin accounts operator auditor"),
    ("post", "/messages", "admin marketer sender"),
    ("get", "/messages/{id}", EVERYONE),
    ("get", "/notices", "admin operator auditor"),
    ("get", "/notices/{id}", "admin operator auditor"),
    ("post", "/notices/{id}/postpone", "admin"),
    ("post", "/notices/{id}/correct", "admin"),
    ("post", "/notices/{id}/withdraw", "admin"),
    ("post", "/notices/{id}/release", "admin"),
    ("delete", "/notices/{id}/waiting", "admin"),
    ("get", "/notices/{id}/evidence", "admin auditor"),
    ("get", "/notices/{id}/unreachable", "admin operator auditor"),
    ("post", "/notices/{id}/told", "admin operator"),
    ("post", "/notices/{id}/answers", "admin operator"),
    ("post", "/opt-ins", "admin operator"),
    ("get", "/opt-outs", "admin accounts operator auditor"),
    ("post", "/opt-outs", "admin accounts operator"),
    ("get", "/opt-outs/export", "admin auditor"),
    ("post", "/opt-outs/import", "admin accounts"),
    ("get", "/policies", "admin auditor"),
    ("get", "/policies/{policy}", "admin auditor"),
    ("put", "/policies/{policy}", "admin"),
    ("get", "/policies/{policy}/versions", "admin auditor"),
    ("post", "/policies/{policy}/versions", "admin"),
    ("get", "/policies/{policy}/versions/{n}", "admin auditor"),
    ("delete", "/policies/{policy}/versions/{n}", "admin"),
    ("get", "/policies/{policy}/versions/{n}/preview", "admin auditor"),
    ("post", "/policies/{policy}/versions/{n}/publish", "admin"),
    ("post", "/policies/{policy}/versions/{n}/release", "admin"),
    ("get", "/recipients", "admin accounts marketer operator auditor"),
    ("post", "/recipients", "admin accounts marketer"),
    ("post", "/recipients/import", "admin accounts marketer"),
    ("get", "/recipients/{id}", "admin accounts marketer operator auditor"),
    ("patch", "/recipients/{id}", "admin accounts marketer"),
    ("get", "/recipients/{id}/deliveries", "admin accounts marketer operator auditor"),
    ("get", "/recipients/{id}/policies", "admin accounts operator auditor"),
    ("get", "/templates", EVERYONE),
    ("get", "/templates/{template}", EVERYONE),
    ("put", "/templates/{template}", "admin marketer"),
    ("delete", "/templates/{template}", "admin marketer"),
];

/// What the calls are about.
struct Scene {
    tidings: Tidings,
    recipient: String,
    message: String,
    campaign: String,
    notice: String,
}

impl Scene {
    async fn set() -> Self {
        let tidings = Tidings::start_web(Database::sqlite()).await;
        tidings.brand("acme").await;
        tidings.brand("other").await;
        tidings.topic("acme", "offers", "marketing").await;
        tidings.topic("acme", "alerts", "service").await;
        tidings.put("/templates/hello", json!({ "subject": "Hi", "html": "<p>Hi</p>" })).await.ok();
        tidings.put("/templates/alert", alert()).await.ok();
        let recipient = tidings.post("/recipients", json!({ "email": ADA, "brands": ["acme"] })).await.id();
        let message = tidings.post("/messages", message(Role::Sender)).await.id();
        let campaign = tidings.post("/campaigns", campaign("offers")).await.id();
        tidings.put("/policies/privacy", policy()).await.ok();
        tidings.post("/policies/privacy/versions", version()).await.ok();
        tidings.put("/policies/terms", policy()).await.ok();
        let mut notice = Value::Null;
        for fields in [json!({}), json!({ "change": "material", "effective_at": tidings.in_days(40) })] {
            let mut terms = version();
            for (name, value) in fields.as_object().unwrap() {
                terms[name] = value.clone();
            }
            let number = tidings.post("/policies/terms/versions", terms).await.ok()["number"].clone();
            let published =
                tidings.post_empty(&format!("/policies/terms/versions/{number}/publish")).await.ok();
            notice = published["notice"]["id"].clone();
        }
        let notice = notice.as_str().unwrap().to_owned();
        Self { tidings, recipient, message, campaign, notice }
    }

    async fn key(&self, role: Role, bound_to: Option<&str>) -> Api {
        let db = &self.tidings.app().db;
        let mut bound = None;
        if let Some(slug) = bound_to {
            bound = Some(brand::rows::find(db.reads(), slug).await.unwrap().unwrap().id);
        }
        let made = create_key(db, "matrix", role, bound, "test").await.unwrap();
        self.tidings.with_key(made.key.expose_secret())
    }

    async fn revoked_key(&self) -> Api {
        let db = &self.tidings.app().db;
        let made = create_key(db, "revoked", Role::Admin, None, "test").await.unwrap();
        revoke_key(db, &made.row.prefix, "test").await.unwrap();
        self.tidings.with_key(made.key.expose_secret())
    }

    /// Makes this call about what is there.
    async fn call(&self, api: &Api, role: Role, method: &str, path: &str) -> Answer {
        // What goes away is made for it.
        let doomed = method == "delete";
        let [brand, topic, template] =
            if doomed { ["doomed", "doomed", "doomed"] } else { ["acme", "offers", "hello"] };
        let id = match path {
            _ if path.starts_with("/recipients") => &self.recipient,
            _ if path.starts_with("/messages") => &self.message,
            _ if path.starts_with("/notices") => &self.notice,
            _ => &self.campaign,
        };
        let brand = if path.contains("{topic}") { "acme" } else { brand };
        let query = match (method, path) {
            ("get", "/explain") => format!("?email={ADA}&brand=acme&topic=offers"),
            ("get", "/opt-outs" | "/recipients" | "/campaigns/{id}/preview") => format!("?email={ADA}"),
            _ => String::new(),
        };
        let full = path.replace("{brand}", brand).replace("{topic}", topic).replace("{template}", template);
        let full = full.replace("{policy}", if doomed { "doomed" } else { "privacy" }).replace("{n}", "1");
        let full = format!("/api/v1{}{query}", full.replace("{id}", id));
        let request = api.request(method.to_uppercase().parse::<Method>().unwrap(), &full);
        let request = match body(role, method, path) {
            Some((kind, body)) => request.header("content-type", kind).body(body),
            None => request,
        };
        Answer::of(request).await
    }

    /// Makes anew what a call before may have taken away or brought on.
    async fn renew(&mut self) {
        let api = &self.tidings;
        api.brand("doomed").await;
        api.topic("acme", "doomed", "marketing").await;
        api.put("/templates/doomed", json!({ "subject": "Hi", "html": "<p>Hi</p>" })).await.ok();
        api.put("/policies/doomed", policy()).await.ok();
        if api.get("/policies/doomed/versions/1").await.status == 404 {
            api.post("/policies/doomed/versions", version()).await.ok();
        }
        self.campaign = api.post("/campaigns", campaign("offers")).await.id();
    }
}

fn alert() -> Value {
    json!({ "subject": "Alert", "html": "<p>Alert</p>", "classes": ["service"] })
}

fn policy() -> Value {
    json!({ "brand": "acme", "title": "Privacy" })
}

fn version() -> Value {
    json!({ "body_markdown": "# Privacy", "change": "material", "summary": "How we keep data." })
}

fn campaign(topic: &str) -> Value {
    json!({ "brand": "acme", "topic": topic, "template": "hello", "audience": { "all": true } })
}

/// A message that this role may send: marketers on topics that can be refused, senders on the others.
fn message(role: Role) -> Value {
    let [topic, template] = if role == Role::Marketer { ["offers", "hello"] } else { ["alerts", "alert"] };
    json!({ "brand": "acme", "topic": topic, "to": { "email": ADA }, "template": template })
}

fn body(role: Role, method: &str, path: &str) -> Option<(&'static str, String)> {
    let json = match (method, path) {
        ("post", "/addresses/revive") => json!({ "email": ADA }),
        ("put", "/brands/{brand}") => {
            json!({ "name": "A", "from": "a@acme.example.com", "postal_address": "1" })
        }
        ("put", "/brands/{brand}/topics/{topic}") => json!({ "name": "O", "class": "marketing" }),
        ("post", "/campaigns") => campaign("offers"),
        ("patch", "/campaigns/{id}") => json!({ "name": "Renamed" }),
        ("post", "/campaigns/{id}/test") => json!({ "to": [ADA] }),
        ("post", "/messages") => message(role),
        ("post", "/opt-ins") => json!({ "email": ADA, "scope": "all", "evidence": "asked by letter" }),
        ("post", "/opt-outs") => json!({ "email": ADA, "scope": "all", "channel": "phone" }),
        ("put", "/policies/{policy}") => policy(),
        ("post", "/policies/{policy}/versions") => version(),
        ("post", "/recipients") => json!({ "email": ADA, "name": "Ada" }),
        ("post", "/notices/{id}/postpone") => {
            json!({ "effective_at": "2100-01-01T00:00:00Z", "reason": "r" })
        }
        ("post", "/notices/{id}/correct") => json!({ "summary": "s", "reason": "r" }),
        ("post", "/notices/{id}/withdraw") => json!({ "reason": "r" }),
        ("post", "/notices/{id}/answers") => {
            json!({ "recipient": NOBODY, "decision": "approve", "by": "letter", "note": "n" })
        }
        ("post", "/notices/{id}/told") => json!({ "recipient": NOBODY, "by": "letter" }),
        ("patch", "/recipients/{id}") => json!({ "name": "Ada" }),
        ("put", "/templates/{template}") => json!({ "subject": "Hi", "html": "<p>Hi</p>" }),
        ("post", "/campaigns/{id}/recipients" | "/recipients/import") => {
            return Some(("text/csv", format!("email\n{ADA}\n")));
        }
        ("post", "/opt-outs/import") => return Some(("text/csv", format!("email,scope\n{ADA},all\n"))),
        _ => return None,
    };
    Some(("application/json", json.to_string()))
}

/// Every call of the document, as `(method, path, roles)`.
async fn described(tidings: &Tidings) -> Vec<(String, String, String)> {
    let document = Answer::of(tidings.request(Method::GET, "/api/openapi.json")).await.json();
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let roles = operation["x-roles"].as_array().unwrap();
            let roles: Vec<&str> = roles.iter().map(|role| role.as_str().unwrap()).collect();
            let path = path.strip_prefix("/api/v1").unwrap().to_owned();
            calls.push((method.clone(), path, roles.join(" ")));
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_is_described_with_the_roles_it_takes() {
    let scene = Scene::set().await;
    let described = described(&scene.tidings).await;
    for (method, path, roles) in &described {
        let known = CALLS.iter().find(|(m, p, _)| m == method && p == path);
        let (_, _, may) = known.unwrap_or_else(|| panic!("{method} {path} is in no line of CALLS: who may?"));
        assert_eq!(roles, may, "{method} {path}");
    }
    for (method, path, _) in CALLS {
        let there = described.iter().any(|(m, p, _)| m == method && p == path);
        assert!(there, "{method} {path} is not described");
    }
    scene.tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_is_allowed_to_its_roles_and_to_no_other() {
    let mut scene = Scene::set().await;
    for role in ROLES {
        let api = scene.key(role, None).await;
        for (method, path, may) in CALLS {
            let allowed = may.split(' ').any(|word| word == role.to_string());
            if allowed {
                scene.renew().await;
            }
            let answer = scene.call(&api, role, method, path).await;
            let status = answer.status.as_u16();
            if allowed {
                // Nobody was out of reach yet, and nobody is nobody: said to those alone who may say what people were told
                // and answered.
                let about = path.ends_with("/told") || path.ends_with("/answers");
                let done = matches!(status, 200..=204 | 409) || (about && status == 422);
                assert!(done, "{role} may not {method} {path}: {answer:?}");
            } else {
                assert_eq!(status, 403, "{role} may {method} {path}: {answer:?}");
                answer.problem(403);
            }
        }
    }
    scene.tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_that_counts_nothing_is_allowed() {
    let scene = Scene::set().await;
    for api in [scene.tidings.anonymous(), scene.revoked_key().await] {
        for (method, path, _) in CALLS {
            let answer = scene.call(&api, Role::Admin, method, path).await;
            answer.problem(401);
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{method} {path}");
        }
    }
    scene.tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_brand_sees_and_changes_nothing_of_this_one() {
    let scene = Scene::set().await;
    let api = scene.key(Role::Admin, Some("other")).await;
    let before = everything(&scene).await;
    for (method, path, _) in CALLS {
        // A person is one address, whom every brand may write to and stop writing to.
        if matches!(
            (method, path),
            ("post", "/recipients" | "/recipients/import" | "/opt-outs" | "/opt-outs/import")
        ) {
            continue;
        }
        let answer = scene.call(&api, Role::Admin, method, path).await;
        let status = answer.status.as_u16();
        if method == "get" && status == 200 {
            assert!(!answer.text.contains(ADA) && !answer.text.contains("acme"), "{path}: {}", answer.text);
        } else {
            assert!(matches!(status, 403 | 404 | 422), "{method} {path}: {answer:?}");
        }
    }
    assert_eq!(everything(&scene).await, before);
    scene.tidings.stop().await;
}

/// What a key of another brand must leave as it is.
async fn everything(scene: &Scene) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "/brands".to_owned(),
        "/brands/acme/topics".to_owned(),
        "/templates/hello".to_owned(),
        format!("/campaigns/{}", scene.campaign),
        format!("/messages/{}", scene.message),
        format!("/notices/{}", scene.notice),
        "/policies/privacy".to_owned(),
        "/policies/privacy/versions/1".to_owned(),
        format!("/recipients/{}", scene.recipient),
        format!("/opt-outs?email={ADA}"),
    ] {
        all.push(scene.tidings.get(&path).await.ok());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_other_roles_are_refused() {
    let scene = Scene::set().await;
    let [accounts, marketer, sender, operator, auditor] = [
        scene.key(Role::Accounts, None).await,
        scene.key(Role::Marketer, None).await,
        scene.key(Role::Sender, None).await,
        scene.key(Role::Operator, None).await,
        scene.key(Role::Auditor, None).await,
    ];
    let person = format!("/recipients/{}", scene.recipient);
    for body in [json!({ "standing": "restricted" }), json!({ "customer_of": ["acme"] })] {
        marketer.patch(&person, body.clone()).await.problem(403);
        accounts.patch(&person, body).await.ok();
    }
    let customer = json!({ "email": ADA, "customer_of": ["acme"] });
    marketer.post("/recipients", customer.clone()).await.problem(403);
    accounts.post("/recipients", customer).await.ok();
    let csv = "email,customer_of\nnew@people.example.com,acme\n";
    let report = marketer.post_text("/recipients/import", "text/csv", csv).await;
    let made = scene.tidings.get("/recipients?email=new@people.example.com").await.ok();
    assert!(made["items"][0]["customer_of"].as_array().is_none_or(Vec::is_empty), "{report:?} {made}");

    marketer.put("/templates/alert", json!({ "subject": "Mine", "html": "<p>Mine</p>" })).await.problem(403);
    marketer.put("/templates/mine", alert()).await.problem(403);
    marketer.delete("/templates/alert").await.problem(403);
    marketer.post("/campaigns", campaign("alerts")).await.problem(403);
    marketer.post("/messages", message(Role::Sender)).await.problem(403);
    sender.post("/messages", message(Role::Marketer)).await.problem(403);

    // One person at a time.
    operator.get("/recipients").await.problem(403);
    let window = json!({ "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z" });
    operator.post("/addresses/revive", window.clone()).await.problem(403);
    scene.tidings.post("/addresses/revive", window).await.ok();
    // Hashes prove what addresses need not.
    auditor.get("/opt-outs/export").await.is(200);
    auditor.get("/opt-outs/export?addresses=true").await.problem(403);
    scene.tidings.stop().await;
}
