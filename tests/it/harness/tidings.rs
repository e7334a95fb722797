//! Tidings in the test's own process: web and worker, an admin key, the scripted SMTP server as its relay, a clock that
//! jumps. What stands on a database can be stopped and started again.

use std::ops::Deref;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use tidings::app::App;
use tidings::clock::Clock;
use tidings::config::Settings;
use tidings::relay::Timeouts;
use tidings::serve::{self, Parts, Running};

use super::database::ADMIN_KEY;
use super::{Api, Database, SmtpServer, Transaction, eventually, wait_until};

/// A running Tidings; as an [`Api`] it asks with the admin key. Ends with [`Tidings::stop`].
pub(crate) struct Tidings {
    running: Option<Running>,
    api: Api,
    /// What its messages are handed to.
    pub(crate) smtp: SmtpServer,
    pub(crate) database: Database,
    settings: Settings,
    parts: Parts,
}

impl Deref for Tidings {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Tidings {
    /// Starts web and worker on this database.
    pub(crate) async fn start(database: Database) -> Self {
        Self::start_with(database, |_| {}).await
    }

    /// As [`Tidings::start`], with settings of the test's own.
    pub(crate) async fn start_with(database: Database, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_parts(database, Parts::default(), change).await
    }

    /// Starts the web service alone: nothing is sent.
    pub(crate) async fn start_web(database: Database) -> Self {
        Self::start_parts(database, Parts { worker: false, ..Parts::default() }, |_| {}).await
    }

    /// Starts these parts. Each step of the relay may take 5 s unless `change` says otherwise.
    pub(crate) async fn start_parts(
        database: Database,
        parts: Parts,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let smtp = SmtpServer::start().await;
        let mut settings = database.settings();
        settings.relay_url = SecretString::from(smtp.url());
        change(&mut settings);
        if settings.relay_timeouts == Timeouts::default() {
            settings.relay_timeouts = Timeouts::each(Duration::from_secs(5));
        }
        let running = serve::start(settings.clone(), parts.clone()).await.unwrap();
        let api = Api::new(format!("http://{}", running.addr), Some(ADMIN_KEY));
        Self { running: Some(running), api, smtp, database, settings, parts }
    }

    /// Another process on the same database, as far as one process can play two: same settings, same clock, same
    /// relay, a port of its own.
    pub(crate) async fn another(&self, parts: Parts) -> Running {
        let parts = Parts { clock: self.parts.clock.clone(), ..parts };
        serve::start(self.settings.clone(), parts).await.unwrap()
    }

    /// What the program's parts share: for looking into the database.
    pub(crate) fn app(&self) -> &App {
        &self.running.as_ref().unwrap().app
    }

    /// Where it takes mail that unsubscribes.
    pub(crate) fn inbound(&self) -> std::net::SocketAddr {
        self.running.as_ref().unwrap().inbound.expect("the settings name no place where mail is taken")
    }

    /// The database's clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.parts.clock
    }

    /// Lets the database's time jump forward.
    pub(crate) fn advance(&self, by: Duration) {
        self.parts.clock.advance(by);
    }

    /// Stops it and starts it again on the same database, with settings changed.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut Settings)) {
        self.running.take().unwrap().stop().await;
        change(&mut self.settings);
        let running = serve::start(self.settings.clone(), self.parts.clone()).await.unwrap();
        self.api.base = format!("http://{}", running.addr);
        self.running = Some(running);
    }

    /// Stops it; fails the test when a task is left over.
    pub(crate) async fn stop(mut self) {
        let running = self.running.take().unwrap();
        tokio::time::timeout(Duration::from_secs(30), running.stop()).await.expect("a task does not end");
    }

    /// A brand with a postal address.
    pub(crate) async fn brand(&self, brand: &str) {
        let body = json!({
            "name": brand.to_uppercase(), "from": format!("{brand} <news@{brand}.example.com>"),
            "postal_address": "1 Main Street, 12345 Springfield", "phone": "+1 555 0100",
        });
        self.put(&format!("/brands/{brand}"), body).await.ok();
    }

    /// A topic of this class; its slug is `topic`.
    pub(crate) async fn topic(&self, brand: &str, topic: &str, class: &str) {
        self.topic_with(brand, topic, json!({ "class": class })).await;
    }

    /// A topic with more than a class.
    pub(crate) async fn topic_with(&self, brand: &str, topic: &str, mut body: Value) {
        body["name"] = json!(topic.to_uppercase());
        self.put(&format!("/brands/{brand}/topics/{topic}"), body).await.ok();
    }

    /// The brand with a topic of every class, each named as its class.
    pub(crate) async fn brand_with_every_class(&self, brand: &str) {
        self.brand(brand).await;
        for class in ["requested", "service", "notice", "relationship", "reminder", "marketing"] {
            self.topic(brand, class, class).await;
        }
    }

    /// A template that greets by name and may serve every class.
    pub(crate) async fn template(&self, template: &str) {
        let body = json!({
            "subject": "Hello {{name}}", "html": "<h1>Hello {{name}}</h1><p>From {{brand.name}}.</p>",
            "classes": ["requested", "service", "notice", "relationship", "reminder", "marketing"],
        });
        self.put(&format!("/templates/{template}"), body).await.ok();
    }

    /// The brand `acme` with a topic of every class and the template `hello`: enough to send.
    pub(crate) async fn ready_to_send(&self) {
        self.brand_with_every_class("acme").await;
        self.template("hello").await;
    }

    /// The policy `privacy` of the brand `acme`, with these settings besides, and its first version in force.
    pub(crate) async fn policy(&self, mut settings: Value) {
        settings["brand"] = json!("acme");
        settings["title"] = json!("Privacy policy");
        self.put("/policies/privacy", settings).await.ok();
        let baseline = json!({
            "body_markdown": "# What we keep\n\nYour address.\n\nNothing else.\n", "change": "minor",
            "summary": "The first text.",
        });
        let version = self.post("/policies/privacy/versions", baseline).await.ok();
        self.post_empty(&format!("/policies/privacy/versions/{}/publish", version["number"])).await.ok();
    }

    /// A policy of a brand with so many versions published, of which nobody is told.
    pub(crate) async fn published(&self, brand: &str, policy: &str, versions: u64) {
        self.put(&format!("/policies/{policy}"), json!({ "brand": brand, "title": policy })).await.ok();
        for n in 1..=versions {
            let path = format!("/policies/{policy}/versions");
            let version = json!({
                "body_markdown": "# T", "change": "minor", "summary": "S.", "effective_at": self.in_days(n),
            });
            self.post(&path, version).await.is(201);
            self.post_empty(&format!("{path}/{n}/publish")).await.ok();
        }
    }

    /// So many days from now, by the database's clock.
    pub(crate) fn in_days(&self, days: u64) -> String {
        self.clock().now().plus(Duration::from_secs(days * 24 * 3600)).to_string()
    }

    /// Publishes a version of the policy `privacy` that takes effect in 40 days, of this kind of change and with these
    /// fields besides; gives the notice.
    pub(crate) async fn announce(&self, change: &str, fields: Value) -> Value {
        let mut version = json!({
            "body_markdown": "# What we keep\n\nYour address and your name.\n\nNothing else.\n", "change": change,
            "summary": "From now on we keep your name too.", "effective_at": self.in_days(40),
        });
        for (name, value) in fields.as_object().unwrap() {
            version[name] = value.clone();
        }
        let made = self.post("/policies/privacy/versions", version).await.ok();
        let published = format!("/policies/privacy/versions/{}/publish", made["number"]);
        self.post_empty(&published).await.ok()["notice"].clone()
    }

    /// Waits until a notice is as `holds` says; gives it.
    pub(crate) async fn notice_when(
        &self,
        what: &str,
        notice: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(&format!("a notice that {what}"), async || {
            let notice = self.get(&format!("/notices/{notice}")).await.ok();
            holds(&notice).then_some(notice)
        })
        .await
    }

    /// A recipient; gives the id.
    pub(crate) async fn recipient(&self, email: &str) -> String {
        self.post("/recipients", json!({ "email": email, "name": "Someone" })).await.id()
    }

    /// `count` recipients, `p0@people.example.com` and so on.
    pub(crate) async fn recipients(&self, count: usize) {
        let lines: String = (0..count).map(|n| format!("p{n}@people.example.com,Person {n}\n")).collect();
        let report =
            self.post_text("/recipients/import", "text/csv", format!("email,name\n{lines}")).await.ok();
        assert_eq!(report["rejected"], 0, "{report}");
    }

    /// A campaign of template `hello` to everyone of the brand, still a draft; gives the id.
    pub(crate) async fn draft(&self, brand: &str, topic: &str) -> String {
        let body =
            json!({ "brand": brand, "topic": topic, "template": "hello", "audience": { "all": true } });
        self.post("/campaigns", body).await.id()
    }

    /// Sends a campaign of template `hello` to everyone of the brand and waits until it is finished; gives the campaign.
    pub(crate) async fn send_to_all(&self, brand: &str, topic: &str) -> Value {
        let id = self.draft(brand, topic).await;
        self.post_empty(&format!("/campaigns/{id}/start")).await.ok();
        self.finished(&id).await
    }

    /// Waits until this campaign is finished; gives it.
    pub(crate) async fn finished(&self, campaign: &str) -> Value {
        self.campaign_when("is finished", campaign, |campaign| campaign["state"] == "finished").await
    }

    /// Waits until a campaign is as `holds` says; gives it.
    pub(crate) async fn campaign_when(
        &self,
        what: &str,
        campaign: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(&format!("a campaign that {what}"), async || {
            let campaign = self.get(&format!("/campaigns/{campaign}")).await.ok();
            holds(&campaign).then_some(campaign)
        })
        .await
    }

    /// Enqueues a single message of template `hello`; gives its id.
    pub(crate) async fn message(&self, brand: &str, topic: &str, email: &str) -> String {
        let body = json!({ "brand": brand, "topic": topic, "to": { "email": email }, "template": "hello" });
        self.post("/messages", body).await.id()
    }

    /// Waits until this delivery is in a final state; gives it.
    pub(crate) async fn settled(&self, message: &str) -> Value {
        eventually("a delivery that is settled", async || {
            let message = self.get(&format!("/messages/{message}")).await.ok();
            (!["queued", "sending"].contains(&message["state"].as_str().unwrap())).then_some(message)
        })
        .await
    }

    /// Sends a message of this topic and gives what the relay took.
    pub(crate) async fn mail_of(&self, brand: &str, topic: &str, email: &str) -> Transaction {
        let before = self.smtp.messages_to(email).len();
        self.message(brand, topic, email).await;
        eventually("a message to an address", async || self.smtp.messages_to(email).into_iter().nth(before))
            .await
    }

    /// Waits until the relay has accepted so many messages, and no less than all of them.
    pub(crate) async fn relay_has(&self, count: usize) {
        wait_until("messages at the relay", async || self.smtp.count() >= count).await;
    }
}

impl Drop for Tidings {
    fn drop(&mut self) {
        if self.running.is_some() && !std::thread::panicking() {
            panic!("end the journey with tidings.stop().await, which looks for tasks left over");
        }
    }
}

/// What stands between `<` and `>` in the List-Unsubscribe header of a message: its one-click link.
#[track_caller]
pub(crate) fn one_click_link(mail: &Transaction) -> String {
    let header =
        mail.header("List-Unsubscribe").unwrap_or_else(|| panic!("no List-Unsubscribe:\n{}", mail.text()));
    let link = header.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(link, _)| link);
    link.unwrap_or_else(|| panic!("no link in {header}")).to_owned()
}
