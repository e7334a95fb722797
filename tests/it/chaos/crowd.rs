//! People who refuse mail by every way, again and again, and take it back later.
//!
//! Each person belongs to one task, so that what was answered to them has an order.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fleet::{Door, INBOUND_DOMAIN, PATIENCE};
use super::ledger::delivery_of;
use super::{PEOPLE, REFUSABLE, address};
use crate::harness::{SmtpServer, eventually_within, one_click_link};

/// Tasks that share the people among them.
pub(super) const PARTS: usize = 4;
/// People of one task who refuse at a time.
const AT_ONCE: usize = PEOPLE / PARTS / 3;

const EVERY_REFUSABLE: &[&str] = &REFUSABLE;
const BANNED: &[&str] = &["offers", "nudges", "news", "alerts"];

/// A refusal that was answered with success.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) person: usize,
    pub(super) way: &'static str,
    /// The topics that it covers.
    pub(super) topics: Vec<&'static str>,
    pub(super) asked: Instant,
    pub(super) answered: Instant,
    /// When it began to be taken back.
    pub(super) lifted: Option<Instant>,
    /// Absent where the answer does not say.
    pub(super) settled: Option<bool>,
    /// The deliveries that the answer named.
    pub(super) named: HashSet<Uuid>,
    /// The deliveries to this person that were open at the relay when it was asked.
    pub(super) open: Vec<Uuid>,
}

/// How somebody refuses.
#[derive(Clone, Debug)]
enum How {
    /// The link of a message, as mailbox providers follow it.
    Click(String),
    /// The `mailto` of a message, with this token.
    Mail(String),
    /// On the telephone, with this scope.
    Phone(Value),
    Standing(&'static str),
}

pub(super) struct Crowd {
    door: Door,
    relay: Arc<SmtpServer>,
    ids: Arc<Vec<String>>,
    pub(super) refusals: Mutex<Vec<Refusal>>,
}

impl Crowd {
    pub(super) fn new(door: Door, relay: Arc<SmtpServer>, ids: Arc<Vec<String>>) -> Self {
        Self { door, relay, ids, refusals: Mutex::default() }
    }

    /// One task's people refuse and take it back until it is over.
    pub(super) async fn refuse(&self, part: usize, mut rng: StdRng, over: &CancellationToken) {
        let mut refused: HashMap<usize, (How, Instant)> = HashMap::new();
        while !over.is_cancelled() {
            let due = refused.iter().find(|(_, (_, until))| Instant::now() >= *until).map(|(n, _)| *n);
            if let Some(person) = due {
                let (how, _) = refused.remove(&person).unwrap();
                self.lift(person, &how).await;
            } else if refused.len() < AT_ONCE
                && let Some(person) = self.somebody(part, &refused, &mut rng)
            {
                let how = self.way(person, &mut rng);
                let twice = rng.random_bool(0.15);
                futures_util::future::join(self.say(person, &how), async {
                    if twice {
                        self.say(person, &how).await;
                    }
                })
                .await;
                // Some never take it back.
                let keeps = if rng.random_bool(0.1) { 3_600_000 } else { rng.random_range(500..7_000) };
                refused.insert(person, (how, Instant::now() + Duration::from_millis(keeps)));
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(20..120))).await;
        }
    }

    /// Somebody of this part who refuses nothing now: mostly one whose message is open at the relay.
    fn somebody(
        &self,
        part: usize,
        refused: &HashMap<usize, (How, Instant)>,
        rng: &mut StdRng,
    ) -> Option<usize> {
        let free = |n: &usize| n % PARTS == part && !refused.contains_key(n);
        if rng.random_bool(0.7) {
            let open = self.relay.open_transactions();
            let mut people = open.iter().filter_map(|(_, t)| person_of(t.to.first()?));
            return people.find(free);
        }
        Some(rng.random_range(0..PEOPLE)).filter(free)
    }

    fn way(&self, person: usize, rng: &mut StdRng) -> How {
        let has_link = |t: &crate::harness::Transaction| t.header("List-Unsubscribe").is_some();
        let mail = self.relay.newest_to(&address(person), has_link);
        let link = mail.map(|mail| url::Url::parse(&one_click_link(&mail)).unwrap().path().to_owned());
        match (rng.random_range(0..100), link) {
            (0..45, Some(path)) => How::Click(path),
            (45..65, Some(path)) => How::Mail(path.rsplit('/').next().unwrap().to_owned()),
            (65..71, _) => How::Standing("restricted"),
            (71..75, _) => How::Standing("contact_ban"),
            (75..79, _) => How::Standing("deactivated"),
            (79..86, _) => How::Phone(json!("all")),
            (86..91, _) => How::Phone(json!({ "brand": "acme" })),
            _ => How::Phone(
                json!({ "brand": "acme", "topic": REFUSABLE[rng.random_range(0..REFUSABLE.len())] }),
            ),
        }
    }

    /// Says it again and again until it is answered with success.
    async fn say(&self, person: usize, how: &How) {
        let open = self.relay.open_transactions();
        let open = open.iter().filter(|(_, t)| t.to.contains(&address(person)));
        let open = open.filter_map(|(_, t)| delivery_of(t)).collect();
        let (asked, answer) = eventually_within(PATIENCE, "an opt-out that is answered", async || {
            let asked = Instant::now();
            Some((asked, self.say_once(person, how).await?))
        })
        .await;
        let named = answer["in_flight"].as_array().cloned().unwrap_or_default();
        self.refusals.lock().unwrap().push(Refusal {
            person,
            way: how.word(),
            topics: how.covers(),
            asked,
            answered: Instant::now(),
            lifted: None,
            settled: answer["settled"].as_bool(),
            named: named.iter().map(|one| one["delivery"].as_str().unwrap().parse().unwrap()).collect(),
            open,
        });
    }

    /// The answer, if it is a success; null where it says nothing more.
    async fn say_once(&self, person: usize, how: &How) -> Option<Value> {
        let way = self.door.next();
        let answer = match how {
            How::Mail(token) => {
                return mail(way.inbound, &address(person), token).await.then_some(Value::Null);
            }
            How::Click(path) => {
                let click = way.api.anonymous().request(Method::POST, path);
                self.door.ask(click.header("accept", "application/json")).await?
            }
            How::Phone(scope) => {
                let body = json!({ "email": address(person), "scope": scope, "channel": "phone" });
                self.door.ask(way.api.call(Method::POST, "/opt-outs").json(&body)).await?
            }
            How::Standing(standing) => {
                let path = format!("/recipients/{}", self.ids[person]);
                let change = way.api.call(Method::PATCH, &path).json(&json!({ "standing": standing }));
                self.door.ask(change).await?
            }
        };
        Some(answer.ok())
    }

    /// Takes back what this person refused.
    async fn lift(&self, person: usize, how: &How) {
        let now = Instant::now();
        for refusal in self.refusals.lock().unwrap().iter_mut().filter(|one| one.person == person) {
            refusal.lifted.get_or_insert(now);
        }
        let (method, path, body) = match how {
            How::Standing(_) => {
                (Method::PATCH, format!("/recipients/{}", self.ids[person]), json!({ "standing": "active" }))
            }
            How::Click(_) | How::Mail(_) => {
                let body = json!({ "email": address(person), "scope": "all", "evidence": "said so" });
                (Method::POST, "/opt-ins".to_owned(), body)
            }
            How::Phone(scope) => {
                let body = json!({ "email": address(person), "scope": scope, "evidence": "said so" });
                (Method::POST, "/opt-ins".to_owned(), body)
            }
        };
        let request = |way: &super::fleet::Way| way.api.call(method.clone(), &path).json(&body);
        self.door.insist("somebody who comes back", request).await.ok();
    }
}

impl How {
    fn word(&self) -> &'static str {
        match self {
            Self::Click(_) => "click",
            Self::Mail(_) => "mailto",
            Self::Phone(_) => "phone",
            Self::Standing(_) => "standing",
        }
    }

    fn covers(&self) -> Vec<&'static str> {
        match self {
            Self::Standing("restricted") | Self::Click(_) | Self::Mail(_) => EVERY_REFUSABLE.to_vec(),
            Self::Standing(_) => BANNED.to_vec(),
            Self::Phone(scope) => match scope["topic"].as_str() {
                Some(topic) => REFUSABLE.into_iter().filter(|one| *one == topic).collect(),
                None => EVERY_REFUSABLE.to_vec(),
            },
        }
    }
}

/// The number of the person with this address.
pub(super) fn person_of(address: &str) -> Option<usize> {
    address.strip_prefix('p')?.split('@').next()?.parse().ok()
}

/// Sends a mail that unsubscribes; whether it was taken.
async fn mail(to: SocketAddr, from: &str, token: &str) -> bool {
    let dialogue = async {
        let mut server = BufReader::new(tokio::net::TcpStream::connect(to).await?);
        let lines = [
            ("220", "EHLO client.example\r\n".to_owned()),
            ("250", format!("MAIL FROM:<{from}>\r\n")),
            ("250", format!("RCPT TO:<unsubscribe@{INBOUND_DOMAIN}>\r\n")),
            ("250", "DATA\r\n".to_owned()),
            ("354", format!("From: <{from}>\r\nSubject: {token}\r\n\r\n.\r\n")),
            ("250", "QUIT\r\n".to_owned()),
        ];
        for (wanted, says) in lines {
            let mut reply = String::new();
            // The last line of a reply has no hyphen.
            while reply.as_bytes().get(3) != Some(&b' ') {
                reply.clear();
                if server.read_line(&mut reply).await? == 0 {
                    return Ok(false);
                }
            }
            if !reply.starts_with(wanted) {
                return Ok(false);
            }
            server.get_mut().write_all(says.as_bytes()).await?;
        }
        Ok::<bool, std::io::Error>(true)
    };
    matches!(tokio::time::timeout(Duration::from_secs(20), dialogue).await, Ok(Ok(true)))
}
