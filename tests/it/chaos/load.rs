//! What is to be sent: one campaign after the other of each class that can be refused, and single messages.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fleet::{Door, Fleet, PATIENCE};
use super::{PEOPLE, REFUSABLE, TOPICS, address};
use crate::harness::{Answer, eventually, eventually_within};

/// Campaigns with much to do at a time.
const CAMPAIGNS_AT_ONCE: usize = 2;
/// A campaign with less left than this lets the next one begin.
const NEARLY_DONE: u64 = 30;

pub(super) struct Load {
    pub(super) door: Door,
    /// The ids of the people, by number.
    pub(super) ids: Arc<Vec<String>>,
    /// The campaigns that were started.
    pub(super) started: Mutex<Vec<String>>,
    /// The single messages that were taken on.
    pub(super) taken_on: Mutex<HashSet<Uuid>>,
}

impl Load {
    /// Brand, topics, template, people.
    pub(super) async fn set_up(door: Door) -> Self {
        let api = door.next().api;
        let brand = json!({ "name": "Acme", "from": "Acme <news@acme.example.com>", "postal_address": "1 Main Street" });
        api.put("/brands/acme", brand).await.ok();
        for (topic, class) in TOPICS {
            let body = json!({ "name": topic, "class": class });
            api.put(&format!("/brands/acme/topics/{topic}"), body).await.ok();
        }
        let classes: Vec<&str> = TOPICS.iter().map(|(_, class)| *class).collect();
        let template =
            json!({ "subject": "Hello {{name}}", "html": "<p>Hello {{name}}</p>", "classes": classes });
        api.put("/templates/hello", template).await.ok();
        let lines: String = (0..PEOPLE).map(|n| format!("{},Person {n}\n", address(n))).collect();
        let report =
            api.post_text("/recipients/import", "text/csv", format!("email,name\n{lines}")).await.ok();
        assert_eq!(report["created"], PEOPLE, "{report}");
        let mut ids = Vec::new();
        for n in 0..PEOPLE {
            let found = api.get(&format!("/recipients?email={}", address(n))).await.ok();
            ids.push(found["items"][0]["id"].as_str().unwrap().to_owned());
        }
        Self { door, ids: Arc::new(ids), started: Mutex::default(), taken_on: Mutex::default() }
    }

    /// Starts one campaign after the other.
    pub(super) async fn campaigns(&self, mut rng: StdRng, over: &CancellationToken) {
        while !over.is_cancelled() {
            let topic = REFUSABLE[rng.random_range(0..REFUSABLE.len())];
            self.start_campaign(topic).await;
            eventually_within(PATIENCE, "room for another campaign", async || {
                let mut busy = 0;
                let campaigns = self.started.lock().unwrap().clone();
                for id in campaigns.iter().rev().take(CAMPAIGNS_AT_ONCE) {
                    let campaign = self.campaign(id).await;
                    let left = number(&campaign["counts"]["queued"]) + number(&campaign["counts"]["sending"]);
                    busy += usize::from(campaign["fanned_out"] == false || left >= NEARLY_DONE);
                }
                (busy < CAMPAIGNS_AT_ONCE || over.is_cancelled()).then_some(())
            })
            .await;
        }
    }

    /// A campaign to everyone. What was drafted without an answer stays a draft.
    async fn start_campaign(&self, topic: &str) {
        let body =
            json!({ "brand": "acme", "topic": topic, "template": "hello", "audience": { "all": true } });
        let made = self.door.insist("a campaign", |way| way.api.call(Method::POST, "/campaigns").json(&body));
        let id = made.await.id();
        eventually_within(PATIENCE, "a campaign that runs", async || {
            let start = format!("/campaigns/{id}/start");
            self.door.ask(self.door.next().api.call(Method::POST, &start)).await;
            (self.campaign(&id).await["state"] != "draft").then_some(())
        })
        .await;
        self.started.lock().unwrap().push(id);
    }

    pub(super) async fn campaign(&self, id: &str) -> Value {
        let path = format!("/campaigns/{id}");
        self.door.insist("a campaign's counts", |way| way.api.call(Method::GET, &path)).await.ok()
    }

    /// Sends single messages of the service side now and then. One that got no answer may be sent all the same.
    pub(super) async fn messages(&self, mut rng: StdRng, over: &CancellationToken) {
        while !over.is_cancelled() {
            let topic = if rng.random_bool(0.5) { "alerts" } else { "receipts" };
            let to = address(rng.random_range(0..PEOPLE));
            let body = json!({ "brand": "acme", "topic": topic, "to": { "email": to }, "template": "hello" });
            let send = self.door.next().api.call(Method::POST, "/messages").json(&body);
            if let Some(answer) = self.door.ask(send).await {
                self.taken_on.lock().unwrap().insert(answer.id().parse().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(40..200))).await;
        }
    }

    /// Waits until nothing is left to do.
    pub(super) async fn drain(&self, fleet: &Fleet) {
        let campaigns = self.started.lock().unwrap().clone();
        for id in campaigns {
            eventually_within(PATIENCE, "a campaign that is finished", async || {
                fleet.hurry().await;
                (self.campaign(&id).await["state"] == "finished").then_some(())
            })
            .await;
        }
        for person in 0..PEOPLE {
            eventually("a person with nothing on the way", async || {
                let on_the_way =
                    |one: &Value| ["queued", "sending"].contains(&one["state"].as_str().unwrap());
                let open = self.deliveries(person).await.iter().any(on_the_way);
                if open {
                    fleet.hurry().await;
                }
                (!open).then_some(())
            })
            .await;
        }
    }

    /// Everything that was ever to be sent to a person.
    pub(super) async fn deliveries(&self, person: usize) -> Vec<Value> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/recipients/{}/deliveries?limit=200{after}", self.ids[person]);
            let listed =
                self.door.insist("a person's deliveries", |way| way.api.call(Method::GET, &path)).await;
            let listed: Value = Answer::ok(&listed);
            all.extend(listed["items"].as_array().unwrap().iter().cloned());
            match listed["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }
}

pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}
