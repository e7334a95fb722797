//! Every public page in every state that a person can meet it in.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tidings::mailbox::Mailbox;
use tokio::net::TcpListener;

use crate::harness::*;
use crate::logo::LOGO;
use crate::unsubscribe_page::path;

/// The languages of the pages.
pub(super) const LANGUAGES: [&str; 5] = ["en", "de", "fr", "es", "ar"];

/// A page as it was answered.
pub(super) struct Shown {
    /// What the person met.
    pub(super) name: String,
    pub(super) lang: &'static str,
    pub(super) answer: Answer,
    /// Whether its one button is what it is there for.
    pub(super) button: bool,
}

/// A person who meets pages in a language of theirs.
struct Person<'a> {
    tidings: &'a Tidings,
    lang: &'static str,
    shown: &'a mut Vec<Shown>,
}

impl Person<'_> {
    async fn meets(&mut self, name: &str, status: u16, request: reqwest::RequestBuilder) {
        let answer = Answer::of(request.header("accept-language", self.lang)).await;
        answer.is(status);
        let button = name.starts_with("ask");
        self.shown.push(Shown { name: name.to_owned(), lang: self.lang, answer, button });
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.tidings.anonymous().request(method, path)
    }

    async fn opens(&mut self, name: &str, path: &str) {
        self.meets(name, 200, self.request(Method::GET, path)).await;
    }

    async fn presses(&mut self, name: &str, path: &str, form: &'static str) {
        let request = self.request(Method::POST, path).body(format!("page=1{form}"));
        self.meets(name, 200, request.header("content-type", "application/x-www-form-urlencoded")).await;
    }
}

/// What the pages' brand is called, looks like and stops.
async fn brand(tidings: &Tidings, name: &str, color: Option<&str>, logo: bool) {
    let body = json!({
        "name": name, "from": "acme <news@acme.example.com>", "postal_address": "1 Main Street, 12345 Springfield",
        "color": color, "logo": if logo { json!(LOGO) } else { Value::Null },
    });
    tidings.put("/brands/acme", body).await.ok();
}

/// All pages behind a link, in every language.
pub(super) async fn link_pages(database: Database) -> Vec<Shown> {
    let tidings =
        Tidings::start_with(database, |settings| settings.opt_out_wait = Duration::from_millis(50)).await;
    tidings.ready_to_send().await;
    brand(&tidings, "Meadow & Fields", None, false).await;
    tidings.topic_with("acme", "kept", json!({ "class": "relationship", "customers_keep": true })).await;
    let gate = Gate::new();
    tidings.recipient("begun@example.org").await;
    let begun = one_click_link(&tidings.mail_of("acme", "marketing", "begun@example.org").await);
    tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).to("begun@example.org").once();
    let held = tidings.message("acme", "marketing", "begun@example.org").await;
    gate.reached().await;
    let mut shown = Vec::new();
    for lang in LANGUAGES {
        let mut person = Person { tidings: &tidings, lang, shown: &mut shown };
        ordinary(&mut person).await;
        person.presses("done-in-flight", &begun, "").await;
        refusals(&mut person).await;
    }
    for lang in ["en", "ar"].into_iter().filter(|lang| LANGUAGES.contains(lang)) {
        hostile(&mut Person { tidings: &tidings, lang, shown: &mut shown }).await;
    }
    gate.open();
    tidings.settled(&held).await;
    unavailable(&tidings, &mut shown).await;
    tidings.stop().await;
    shown
}

/// What most people meet.
async fn ordinary(person: &mut Person<'_>) {
    let tidings = person.tidings;
    let email = format!("ada@{}.example.org", person.lang);
    tidings.post("/recipients", json!({ "email": email, "customer_of": ["acme"] })).await.ok();
    let link = path(tidings, "marketing", &email).await;
    person.opens("ask", &link).await;
    person.presses("done-all", &link, "").await;
    person.opens("ask-stands", &link).await;
    person.presses("done-brand", &link, "&scope=brand&undo=1").await;
    person.presses("done-topic", &link, "&scope=topic&undo=1").await;
    person.presses("undone", &link, "&undo=1").await;
    person.presses("undone-nothing", &link, "&undo=1").await;
    let in_person = json!({ "email": email, "scope": { "brand": "acme" }, "channel": "phone" });
    tidings.post("/opt-outs", in_person).await.ok();
    person.presses("done-twice", &link, "").await;
    person.presses("undone-still", &link, "&undo=1").await;
    let again = json!({ "email": email, "scope": "all", "evidence": "asked for it at the fair, form 12" });
    tidings.post("/opt-ins", again).await.ok();
    person.opens("ask-newer", &link).await;
    person.presses("done-newer", &link, "").await;
    let service = path(tidings, "service", &email).await;
    person.opens("other-service", &service).await;
    let fresh = path(tidings, "service", &format!("fresh@{}.example.org", person.lang)).await;
    person.opens("other-choice", &fresh).await;
    person.presses("done-service", &service, "").await;
    let stranger = path(tidings, "marketing", &format!("gone@{}.example.org", person.lang)).await;
    person.opens("ask-unnamed", &stranger).await;
    person.presses("done-unnamed", &stranger, "").await;
    person.presses("undone-unnamed", &stranger, "&undo=1").await;
}

/// What goes wrong on the person's side of the line.
async fn refusals(person: &mut Person<'_>) {
    let link = path(person.tidings, "marketing", "eve@example.org").await;
    person.meets("unknown", 404, person.request(Method::GET, "/u/unknown")).await;
    person.meets("method", 405, person.request(Method::DELETE, &link)).await;
    person
        .meets(
            "large",
            413,
            person.request(Method::POST, &link).header("connection", "close").body(vec![b'x'; 70_000]),
        )
        .await;
}

/// Colours that nobody would choose, with a logo; and names that never end.
async fn hostile(person: &mut Person<'_>) {
    let tidings = person.tidings;
    let link = path(tidings, "marketing", &format!("eve@{}.example.org", person.lang)).await;
    for color in ["#ffff00", "#ffffff", "#000000", "#808080", "#ff0000", "#1e1e1c", "#f4f4f1", "#00ff90"] {
        brand(tidings, "Meadow & Fields", Some(color), true).await;
        person.opens(&format!("ask-{color}"), &link).await;
        person.presses(&format!("done-{color}"), &link, "").await;
        person.presses(&format!("undone-{color}"), &link, "&undo=1").await;
    }
    let endless = "Donaudampfschifffahrtsgesellschaftskapitänsmützen".repeat(2);
    brand(tidings, &endless, None, false).await;
    tidings.put("/brands/acme/topics/marketing", json!({ "name": endless, "class": "marketing" })).await.ok();
    person.opens("endless-ask", &link).await;
    person.presses("endless-done", &link, "").await;
    tidings
        .put("/brands/acme/topics/marketing", json!({ "name": "MARKETING", "class": "marketing" }))
        .await
        .ok();
    brand(tidings, "Meadow & Fields", None, false).await;
}

/// What a person meets while the store cannot be asked, and who shares an address with somebody that guesses links.
async fn unavailable(tidings: &Tidings, shown: &mut Vec<Shown>) {
    let link = path(tidings, "marketing", "ada@example.org").await;
    crate::promises::sql(tidings, "ALTER TABLE topics RENAME TO topics_away").await;
    for lang in LANGUAGES {
        let mut person = Person { tidings, lang, shown };
        person.meets("unavailable-ask", 503, person.request(Method::GET, &link)).await;
        person.meets("unavailable-done", 503, person.request(Method::POST, &link)).await;
    }
    crate::promises::sql(tidings, "ALTER TABLE topics_away RENAME TO topics").await;
    for lang in LANGUAGES {
        let answer = eventually("a client that is told to slow down", async || {
            let request =
                tidings.anonymous().request(Method::GET, "/u/unknown").header("accept-language", lang);
            let answer = Answer::of(request).await;
            (answer.status.as_u16() == 429).then_some(answer)
        });
        shown.push(Shown { name: "limited".to_owned(), lang, answer: answer.await, button: false });
    }
}

/// The pages of policies, which anybody may read.
pub(super) async fn policy_pages() -> Vec<Shown> {
    let tidings = crate::policy_pages::scene(Database::sqlite()).await;
    brand(&tidings, "Meadow & Fields", None, true).await;
    let mut shown = Vec::new();
    for lang in LANGUAGES {
        let mut person = Person { tidings: &tidings, lang, shown: &mut shown };
        person.opens("policy-current", "/policies/privacy").await;
        person.opens("policy-withdrawn", "/policies/privacy/3").await;
        person.opens("policy-changes", "/policies/privacy/4/changes").await;
        person.opens("policy-changes-from", "/policies/privacy/4/changes?from=1").await;
        person.opens("policy-first-changes", "/policies/privacy/1/changes").await;
        let unknown = person.request(Method::GET, "/policies/nothing");
        person.meets("policy-unknown", 404, unknown).await;
    }
    for (color, name) in [("#ffff00", "yellow"), ("#000000", "black")] {
        brand(&tidings, "Meadow & Fields", Some(color), false).await;
        let mut person = Person { tidings: &tidings, lang: "en", shown: &mut shown };
        person.opens(&format!("policy-{name}"), "/policies/privacy").await;
        person.opens(&format!("policy-changes-{name}"), "/policies/privacy/4/changes").await;
    }
    tidings.stop().await;
    shown
}

/// The pages of the embedded mailbox, which speak English.
pub(super) async fn mailbox_pages() -> Vec<Shown> {
    let mailbox = Mailbox::start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = Api::new(format!("http://{}", listener.local_addr().unwrap()), None);
    let router = mailbox.router::<()>();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut shown = Vec::new();
    let mut open = async |name: &str, path: &str, status: u16| {
        let answer = api.page(path).await;
        answer.is(status);
        shown.push(Shown { name: format!("mailbox-{name}"), lang: "en", answer, button: false });
    };
    open("empty", "/mailbox", 200).await;
    crate::mailbox::deliver(&mailbox, "ada@people.example", crate::mailbox::MAIL.as_bytes()).await;
    crate::mailbox::deliver(&mailbox, "bob@people.example", b"Subject: Only text\r\n\r\nHello Bob.\r\n")
        .await;
    let endless = "x".repeat(300);
    let long = format!(
        "From: {endless} <a@b.example>\r\nSubject: {endless}\r\nX-{endless}: {endless}\r\n\r\n{endless}\r\n"
    );
    crate::mailbox::deliver(&mailbox, &format!("{}@people.example", "y".repeat(60)), long.as_bytes()).await;
    open("list", "/mailbox", 200).await;
    open("found", "/mailbox?q=ada", 200).await;
    open("nothing-found", "/mailbox?q=nobody", 200).await;
    for id in 1..=3 {
        for tab in ["", "/text", "/html", "/headers", "/source"] {
            open(&format!("message-{id}{}", tab.replace('/', "-")), &format!("/mailbox/{id}{tab}"), 200)
                .await;
        }
    }
    open("gone", "/mailbox/77", 404).await;
    server.abort();
    shown
}
