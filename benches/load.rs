//! The load harness: how fast messages are composed, a file is imported, a campaign is handed over.
//!
//! What it measures and how to run it stands in `benches/README.md`. It drives the built program from outside, checks
//! that everything arrived, and prints numbers; it judges none of them.
#![expect(clippy::print_stdout, reason = "numbers are all it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tidings::address::{AddressKey, EmailAddress};
use tidings::brand::{Brand, Topic};
use tidings::clock::Timestamp;
use tidings::decision::Class;
use tidings::id::{BrandId, ContentId, DeliveryId, RecipientId, TopicId};
use tidings::link::KeyRing;
use tidings::mailbox::Mailbox;
use tidings::message::{Addressee, Compiled, DkimKeys, Frozen, Sender, compose};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ADMIN_KEY: &str = "load-harness";
/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A campaign of which nothing more arrives for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Most clicks, and how many are under way at a time.
const CLICKS: usize = 5_000;
const CLICKS_AT_A_TIME: usize = 32;
/// Clients beside them that begin a request and never end it.
const STALLED: usize = 500;

/// How much of it, and where.
struct Load {
    lines: u64,
    messages: u64,
    database: Option<String>,
}

impl Load {
    fn from_arguments() -> Outcome<Self> {
        let mut load = Self { lines: 1_000_000, messages: 20_000, database: None };
        // Cargo itself adds --bench.
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--lines" => load.lines = value.parse()?,
                "--messages" => load.messages = value.parse()?,
                "--database" => load.database = Some(value),
                _ => return Err(format!("{name} is not known; see benches/README.md").into()),
            }
        }
        Ok(load)
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let load = Load::from_arguments()?;
    composing("messages composed", &DkimKeys::default())?;
    composing("messages composed and signed", &both_keys()?)?;
    let place = Place::new(load.database)?;
    importing(&place, load.lines).await?;
    handing_over(&place, load.messages).await
}

/// A folder and a database of its own, and the program run in it.
struct Place {
    folder: tempfile::TempDir,
    database: String,
    link_keys: String,
}

impl Place {
    fn new(database: Option<String>) -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("tidings-load-").tempdir()?;
        let own = || format!("sqlite://{}", folder.path().join("load.db").display());
        let database = database.unwrap_or_else(own);
        let place = Self { folder, database, link_keys: KeyRing::new_key() };
        let migrated = place.program(&["migrate"]).stdout(Stdio::null()).status()?;
        succeeded("tidings migrate", migrated)?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_"))
        {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TIDINGS_DATABASE_URL", &self.database)
            .env("TIDINGS_LINK_KEYS", &self.link_keys)
            .env("TIDINGS_ADMIN_KEY", ADMIN_KEY)
            .env("TIDINGS_LOG", "warn");
        command
    }

    /// A CSV file of so many people, none of whom stands in a file of another name.
    fn people(&self, name: &str, count: u64) -> Outcome<PathBuf> {
        let path = self.path(&format!("{name}.csv"));
        let mut file = BufWriter::new(fs::File::create(&path)?);
        writeln!(file, "email,name,city")?;
        for n in 0..count {
            writeln!(file, "{name}.{n}@d{}.example.com,Person {n},City {}", n % 5_000, n % 300)?;
        }
        file.flush()?;
        Ok(path)
    }
}

fn succeeded(what: &str, status: ExitStatus) -> Outcome<()> {
    if status.success() { Ok(()) } else { Err(format!("{what} ended with {status}").into()) }
}

/// The most memory that a process ever held, in kB, as Linux tells while it runs.
fn peak_kb(process: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

fn report(what: &str, count: u64, took: Duration, rest: &str) {
    let seconds = took.as_secs_f64();
    println!("{what}: {count} in {seconds:.2} s, {:.0} a second{rest}", count as f64 / seconds);
}

async fn importing(place: &Place, lines: u64) -> Outcome<()> {
    let file = place.people("people", lines)?;
    let result = fs::File::create(place.path("import.json"))?;
    let begun = Instant::now();
    let mut process = place.program(&["import", &file.to_string_lossy(), "--json"]).stdout(result).spawn()?;
    let mut peak = 0;
    let status = loop {
        peak = peak_kb(&process).unwrap_or(0).max(peak);
        if let Some(status) = process.try_wait()? {
            break status;
        }
        tokio::time::sleep(LOOK).await;
    };
    let took = begun.elapsed();
    succeeded("tidings import", status)?;
    let result: Value = serde_json::from_slice(&fs::read(place.path("import.json"))?)?;
    if result["created"] != lines {
        return Err(format!("not every line made a recipient: {result}").into());
    }
    report("import, lines", lines, took, &format!(", at most {} MB held", peak / 1024));
    Ok(())
}

/// A process that is ended when the harness is done with it, whichever way.
struct Serving {
    process: Child,
    base: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn serve(place: &Place, relay: &str) -> Outcome<Serving> {
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let process = place
        .program(&["serve", "--listen", &listen.to_string(), "--relay-url", relay])
        .stdout(Stdio::null())
        .spawn()?;
    let mut serving = Serving { process, base: format!("http://{listen}") };
    let ready = format!("{}/readyz", serving.base);
    while !reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
        if let Some(status) = serving.process.try_wait()? {
            succeeded("tidings serve", status)?;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(serving)
}

impl Serving {
    async fn call(&self, method: Method, path: &str, body: Value) -> Outcome<Value> {
        self.send(self.request(method, path).json(&body)).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/api/v1{path}", self.base);
        reqwest::Client::new().request(method, url).bearer_auth(ADMIN_KEY)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Outcome<Value> {
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}").into()) }
    }
}

async fn handing_over(place: &Place, messages: u64) -> Outcome<()> {
    let sink = Mailbox::start().await?;
    let tidings = serve(place, &sink.relay_url()).await?;
    let brand =
        json!({ "name": "Load", "from": "Load <load@load.example.com>", "postal_address": "1 Load Street" });
    tidings.call(Method::PUT, "/brands/load", brand).await?;
    tidings
        .call(Method::PUT, "/brands/load/topics/news", json!({ "name": "News", "class": "marketing" }))
        .await?;
    let template = json!({ "subject": SUBJECT, "html": html() });
    tidings.call(Method::PUT, "/templates/news", template).await?;
    let campaign = json!({ "brand": "load", "topic": "news", "template": "news", "data": { "x": "y" } });
    let campaign = tidings.call(Method::POST, "/campaigns", campaign).await?;
    let path = format!("/campaigns/{}", campaign["id"].as_str().unwrap_or_default());

    let file = fs::read(place.people("addressed", messages)?)?;
    let begun = Instant::now();
    let upload = tidings.request(Method::POST, &format!("{path}/recipients"));
    let filled = tidings.send(upload.header("content-type", "text/csv").body(file)).await?;
    if filled["added"] != messages {
        return Err(format!("not every line was added: {filled}").into());
    }
    report("campaign, lines added", messages, begun.elapsed(), "");

    let mut count = sink.count();
    let begun = Instant::now();
    tidings.call(Method::POST, &format!("{path}/start"), json!({})).await?;
    while *count.borrow_and_update() < messages {
        tokio::time::timeout(PATIENCE, count.changed()).await??;
    }
    let peak = peak_kb(&tidings.process).unwrap_or(0) / 1024;
    report("campaign, messages handed over", messages, begun.elapsed(), &format!(", at most {peak} MB held"));
    clicking(&tidings, &sink).await
}

/// Clicks on the link of every message that the sink still has, and on two forged ones beside each, while clients that
/// never end what they begin hold connections open.
async fn clicking(tidings: &Serving, sink: &Mailbox) -> Outcome<()> {
    let links: Vec<String> = sink.messages().iter().filter_map(|message| one_click(&message.bytes)).collect();
    let links: Vec<String> = links.into_iter().take(CLICKS).collect();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut client = TcpStream::connect(tidings.base.trim_start_matches("http://")).await?;
        client.write_all(b"POST /u/x HTTP/1.1\r\nHost: load\r\nContent-").await?;
        stalled.push(client);
    }
    let client = reqwest::Client::new();
    let click = async |link: String| {
        let begun = Instant::now();
        let request = client.post(link).header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body("List-Unsubscribe=One-Click").send().await?;
        let word = match answer.status().as_u16() {
            429 if !answer.headers().contains_key("retry-after") => 0,
            status => status,
        };
        answer.bytes().await?;
        Ok::<_, reqwest::Error>((word, begun.elapsed()))
    };
    let requests = links.iter().flat_map(|link| {
        let forged = |n| format!("{}{n}", &link[..link.len() - 8]);
        [link.clone(), forged(1), forged(2)]
    });
    let begun = Instant::now();
    let answers: Vec<_> =
        stream::iter(requests).map(click).buffer_unordered(CLICKS_AT_A_TIME).collect().await;
    let took = begun.elapsed();
    let count = |status| answers.iter().flatten().filter(|(answered, _)| *answered == status).count();
    let [taken, unknown, limited] = [200, 404, 429].map(count);
    if taken != links.len() || taken + unknown + limited != answers.len() {
        let clicks = links.len();
        return Err(
            format!("of {clicks} clicks {taken} were taken, of {unknown} and {limited} forged").into()
        );
    }
    let waits =
        answers.iter().flatten().filter(|(status, _)| *status == 200).map(|(_, wait)| wait.as_millis());
    let mut waits: Vec<_> = waits.collect();
    waits.sort_unstable();
    let wait = |share: usize| waits.get(waits.len() * share / 1000).or(waits.last()).copied().unwrap_or(0);
    let waiting = |client: &&TcpStream| matches!(client.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    let kept = stalled.iter().filter(waiting).count();
    let rest = format!(
        ", among {unknown} forged ones unknown and {limited} limited, with {kept} of {STALLED} stalled connections \
         still open; half within {} ms, 99 % within {} ms, all within {} ms",
        wait(500),
        wait(990),
        wait(1000),
    );
    report("clicks", taken as u64, took, &rest);
    Ok(())
}

/// The link of the List-Unsubscribe header, which is folded.
fn one_click(mail: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(mail);
    let (_, rest) = text.split_once("\nList-Unsubscribe:")?;
    let (link, _) = rest.split_once('<')?.1.split_once('>')?;
    Some(link.split_whitespace().collect())
}

const SUBJECT: &str = "Hello {{name}}";

/// About 5 kB, as a newsletter has.
fn html() -> String {
    "<p>Hello {{name}}, {{#if data.x}}{{data.x}}{{/if}} some words about what is new.</p>\n".repeat(60)
}

/// An RSA key of 2,048 bits and an Ed25519 key of the From domain.
fn both_keys() -> Outcome<DkimKeys> {
    let mut keys = DkimKeys::default();
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    keys.add("load.example.com", "r", rsa.serialize_pem().as_bytes())?;
    keys.add("load.example.com", "e", ed25519.serialize_pem().as_bytes())?;
    Ok(keys)
}

fn composing(what: &str, dkim: &DkimKeys) -> Outcome<()> {
    const ROUNDS: u32 = 2_000;
    let (brand, topic) = stream();
    let content = Compiled::new(&Frozen {
        id: ContentId::new(),
        brand_id: brand.id,
        topic_id: topic.id,
        template: "load".into(),
        subject: SUBJECT.into(),
        html: html(),
        text: "Hello {{name}}, some words about what is new.\n".repeat(60),
        partials: BTreeMap::new(),
        data: json!({ "x": "y" }),
        reply_to: None,
    })?;
    let base_url = "https://mail.example.com/".parse()?;
    let link_keys = KeyRing::parse(&KeyRing::new_key())?;
    let sender = Sender {
        brand: &brand,
        topic: &topic,
        base_url: &base_url,
        link_keys: &link_keys,
        default_bounce_domain: None,
        inbound_domain: None,
        dkim,
    };
    let address = EmailAddress::parse("zoe@people.example.com")?;
    let address_hash = AddressKey::generate().hash(&address);
    let attributes = json!({});
    let addressee = Addressee {
        recipient: RecipientId::new(),
        address: &address,
        address_hash: &address_hash,
        name: Some("Zoë"),
        locale: Some("en"),
        external_id: None,
        customer: false,
        attributes: &attributes,
        data: None,
    };
    let begun = Instant::now();
    let mut octets = 0;
    for _ in 0..ROUNDS {
        octets += compose(&content, &sender, &addressee, DeliveryId::new(), Timestamp::now())?.bytes.len();
    }
    let size = octets / ROUNDS as usize;
    report(what, ROUNDS.into(), begun.elapsed(), &format!(" on one core, {size} octets each"));
    Ok(())
}

fn stream() -> (Brand, Topic) {
    let at = Timestamp::now();
    let brand = Brand {
        id: BrandId::new(),
        slug: "load".into(),
        name: "Load".into(),
        from_mailbox: "Load <load@load.example.com>".into(),
        notice_from: None,
        reply_to: None,
        postal_address: "1 Load Street".into(),
        phone: None,
        website: None,
        base_url: None,
        bounce_domain: None,
        color: None,
        logo: None,
        origins: json!([]),
        one_click_scope: "all".into(),
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    let topic = Topic {
        id: TopicId::new(),
        brand_id: brand.id,
        slug: "news".into(),
        name: "News".into(),
        class: Class::Marketing,
        description: None,
        consent: "opt_out".into(),
        customers_keep: false,
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    (brand, topic)
}
