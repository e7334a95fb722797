//! H2: nothing about a person in a URL or a log. H3: the link is the authority, and nothing else that a browser brings.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tidings::link::{KeyRing, Link, Purpose};

use crate::harness::{
    ADMIN_KEY, Answer, Database, LINK_KEYS, Process, SmtpServer, Tidings, eventually, one_click_link,
};

const ADA: &str = "ada.lovelace@people.example.com";
const NAME: &str = "Augusta King";

/// Whether these octets say who is meant: as text, or as a hash of the address that anybody could make.
fn names_ada(octets: &[u8]) -> bool {
    let text = String::from_utf8_lossy(octets).to_lowercase();
    let words = ["lovelace", "people.example", "augusta", "king"];
    let hash = Sha256::digest(ADA);
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    words.iter().any(|word| text.contains(word))
        || text.contains(&hex)
        || octets.windows(16).any(|window| window == &hash[..16])
}

/// Every reading of a text that anybody would try.
fn readings(text: &str) -> Vec<Vec<u8>> {
    let mut readings = vec![text.as_bytes().to_vec()];
    for start in 0..4.min(text.len()) {
        let part: String =
            text[start..].chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
        let whole = &part[..part.len() / 4 * 4];
        readings.extend(URL_SAFE_NO_PAD.decode(whole).ok());
        let digits: Vec<u32> = part.chars().map_while(|c| c.to_digit(16)).collect();
        readings
            .push(digits.chunks_exact(2).map(|two| u8::try_from(two[0] * 16 + two[1]).unwrap()).collect());
    }
    readings
}

#[test]
fn h2_the_readings_would_find_a_name() {
    let told = URL_SAFE_NO_PAD.encode(format!("x{ADA}"));
    assert!(readings(&told).iter().any(|octets| names_ada(octets)), "{told}");
    let hex: String = ADA.bytes().map(|b| format!("{b:02x}")).collect();
    assert!(readings(&hex).iter().any(|octets| names_ada(octets)), "{hex}");
    assert!(names_ada(&Sha256::digest(ADA)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_no_link_and_no_header_that_travels_names_the_person() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    tidings.post("/recipients", json!({ "email": ADA, "name": NAME })).await.ok();
    let mail = tidings.mail_of("acme", "marketing", ADA).await;
    let link = one_click_link(&mail);
    let mut travels = vec![link.rsplit('/').next().unwrap().to_owned(), link];
    for header in ["Message-ID", "List-Id", "List-Unsubscribe", "Feedback-ID"] {
        travels.extend(mail.header(header));
    }
    assert!(travels.len() >= 5, "{travels:?}");
    for text in travels {
        for octets in readings(&text) {
            assert!(!names_ada(&octets), "{text}: {}", String::from_utf8_lossy(&octets));
        }
    }
    tidings.stop().await;
}

/// Whether any part of this text is a link that works.
fn holds_a_usable_token(text: &str, ring: &KeyRing) -> bool {
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let usable = |purpose, part: &str| Link::from_token(part, purpose, ring).is_ok();
    parts
        .filter(|part| part.len() >= 40)
        .any(|part| usable(Purpose::Unsubscribe, part) || usable(Purpose::Preferences, part))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_logs_at_trace_hold_no_address_no_name_and_no_usable_token() {
    let smtp = SmtpServer::start().await;
    let url = smtp.url();
    let env = [("TIDINGS_RELAY_URL", url.as_str()), ("TIDINGS_LOG", "trace"), ("RUST_LOG", "trace")];
    let database = Database::sqlite();
    let mut process = Process::serve(&database, &[], &env).await;
    let api = &process.api;
    crate::promises::make_ready(api).await;
    api.post("/recipients", json!({ "email": ADA, "name": NAME })).await.ok();
    let campaign =
        json!({ "brand": "acme", "topic": "offers", "template": "hello", "audience": { "all": true } });
    let campaign = api.post("/campaigns", campaign).await.id();
    api.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
    let link = one_click_link(&smtp.wait_for_message_to(ADA).await);
    let token = link.rsplit('/').next().unwrap();
    api.page(&link).await.is(200);
    api.page(&format!("{link}?utm_source={ADA}")).await.is(200);
    api.page(&format!("{link}{ADA}")).await.is(404);
    api.one_click(&link).await.is(200);
    api.get(&format!("/explain?email={ADA}&brand=acme&topic=offers")).await.ok();
    eventually("a finished campaign", async || {
        let seen = api.get(&format!("/campaigns/{campaign}")).await.ok();
        (seen["state"] == "finished").then_some(())
    })
    .await;
    assert!(process.terminate().await.success());

    let (logs, ring) = (process.logs(), KeyRing::parse(LINK_KEYS).unwrap());
    assert!(holds_a_usable_token(&format!("GET /u/{token} HTTP"), &ring), "the search would find nothing");
    assert!(logs.contains("/u/{token}"), "no visit was logged:\n{logs}");
    assert!(!holds_a_usable_token(&logs, &ring), "a token that works stands in the log:\n{logs}");
    for secret in [ADA, "ada.lovelace", "people.example.com", NAME, &token[..40], ADMIN_KEY] {
        let found = logs.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "{secret} stands in a log line: {}", found.unwrap_or_default());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h3_the_confirming_post_needs_no_cookie_and_takes_none_from_wherever_it_comes() {
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let foreign = [
        ("origin", "https://mail.provider.example"),
        ("referer", "https://mail.provider.example/inbox"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("cookie", "session=of-somebody-else"),
    ];
    for (n, with) in [&foreign[..0], &foreign[..]].into_iter().enumerate() {
        let email = format!("p{n}@people.example.com");
        tidings.recipient(&email).await;
        let link = one_click_link(&tidings.mail_of("acme", "marketing", &email).await);
        let shown = tidings.page(&link).await;
        assert_eq!(shown.header("set-cookie"), "");
        assert!(!shown.text.contains("csrf"), "{}", shown.text);
        let mut request = tidings.anonymous().request(Method::POST, &link).body("List-Unsubscribe=One-Click");
        for (name, value) in with {
            request = request.header(*name, *value);
        }
        let answer = Answer::of(request.header("content-type", "application/x-www-form-urlencoded")).await;
        assert_eq!(answer.is(200).header("set-cookie"), "");
        let stands = tidings.get(&format!("/explain?email={email}&brand=acme&topic=marketing")).await.ok();
        assert_eq!(stands["decision"], "suppress");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h3_no_page_elsewhere_can_make_a_browser_change_anything_or_read_an_answer() {
    let tidings = Tidings::start_with(Database::sqlite(), |settings| {
        settings.relay_url = SecretString::from("mailbox:");
    })
    .await;
    tidings.brand("acme").await;
    // The mailbox only shows.
    for path in [
        "/",
        "/mailbox",
        "/mailbox/1",
        "/mailbox/1/part",
        "/mailbox/messages.json",
        "/mailbox/messages/1/source",
    ] {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = Answer::of(tidings.anonymous().request(method.clone(), path)).await;
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
        }
    }
    // The API is opened by a header that no form can send, and by nothing that a browser adds by itself.
    for kind in [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
        "text/plain",
        "application/json",
    ] {
        for path in ["/api/v1/opt-outs", "/api/v1/campaigns", "/api/v1/recipients"] {
            let request =
                tidings.anonymous().request(Method::POST, &format!("{path}?access_token={ADMIN_KEY}"));
            let request = request.header("content-type", kind).header("origin", "https://evil.example");
            let request = request.header("cookie", format!("Authorization=Bearer {ADMIN_KEY}")).body("{}");
            Answer::of(request.basic_auth("admin", Some(ADMIN_KEY))).await.problem(401);
        }
    }
    // No answer is for other origins to read, and no preflight is granted.
    for path in
        ["/api/v1/opt-outs", "/api/v1/brands/acme", "/mailbox", "/u/x", "/api/openapi.json", "/metrics"]
    {
        for method in [Method::OPTIONS, Method::GET] {
            let request = tidings.request(method.clone(), path).header("origin", "https://evil.example");
            let request = request.header("access-control-request-method", "POST");
            let answer = Answer::of(request.header("access-control-request-headers", "authorization")).await;
            let granted = answer.headers.keys().any(|name| name.as_str().starts_with("access-control-"));
            assert!(!granted, "{method} {path}: {answer:?}");
        }
    }
    // Nor does a page elsewhere get to show ours in a frame or send its form for it.
    let page = tidings.anonymous().request(Method::GET, "/mailbox");
    let policy = Answer::of(page).await.header("content-security-policy").to_owned();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"), "{policy}");
    tidings.stop().await;
}
