//! The steps of the demo, each of which holds or ends it.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::super::CliError;
use super::super::out::{self, Out};
use super::announcement::{announce, approve};
use super::client::{Client, Listed};
use crate::address::EmailAddress;

const RECIPIENTS: &str = include_str!("../../../templates/demo/recipients.csv");
const OFFERS: &str = include_str!("../../../templates/demo/offers.html");
const SECURITY: &str = include_str!("../../../templates/demo/security.html");
/// The line of the file whose person unsubscribes.
const WHO: usize = 21;
/// Without a message handed over for so long, sending has failed.
const PATIENCE: Duration = Duration::from_secs(8);

/// Prints each step with a tick.
pub(super) struct Tally {
    out: Out,
    number: u8,
}

impl Tally {
    pub(super) fn new(out: Out) -> Self {
        Self { out, number: 0 }
    }

    /// Does one step; when it does not hold, the error names it.
    pub(super) async fn step<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, CliError> {
        self.number += 1;
        match work.await {
            Ok(done) => {
                self.out.line(format!("  ✓ {}", name));
                Ok(done)
            }
            Err(why) => {
                self.out.line(format!("  ✗ {}", name));
                Err(CliError::Failed(format!("step {} of the demo failed ({name}): {why}", self.number)))
            }
        }
    }

    fn remark(&self, text: &str) {
        self.out.line(format!("      {text}"));
    }
}

/// What there is to look at afterwards.
pub(super) struct Shown {
    email: String,
    name: String,
    mail: Listed,
    link: String,
    campaign: String,
    notice: Listed,
    approval: String,
}

impl Shown {
    pub(super) fn where_to_look(&self, base: &str, key: &str) -> String {
        format!(
            "\nIt keeps serving. Where to look:\n\
             \nAll mail (open any message and click Unsubscribe):\n  {base}/mailbox\
             \n\nThe message to {name}, who unsubscribed, and the page behind its link:\n  {base}{mail}\n  {link}\
             \n\nThe notice of the change, the policy, and the page where it is answered:\n  {base}{notice}\n  {base}/policies/privacy/2/changes\n  {approval}\
             \n\nWhat became of the second campaign, and why {name} gets no more of it:\
             \n  curl -H 'Authorization: Bearer {key}' {base}/api/v1/campaigns/{campaign}\
             \n  curl -H 'Authorization: Bearer {key}' '{base}/api/v1/explain?email={email}&brand=harbour&topic=news'\
             \n\nThe whole API:\n  {base}/api/openapi.json\
             \n\nCtrl-C ends it and removes its folder.",
            name = self.name,
            mail = self.mail.page,
            notice = self.notice.page,
            approval = self.approval,
            link = self.link,
            campaign = self.campaign,
            email = self.email,
        )
    }
}

/// The colours of the two brands, in their mail and on their pages.
const HARBOUR: &str = "#7a4a21";
const NORDLICHT: &str = "#243a5e";

/// Does them all.
pub(super) async fn all(tally: &mut Tally, client: &Client) -> Result<Shown, CliError> {
    tally.step("Make two brands with topics and templates", prepare(client)).await?;
    let people = tally.step("Import the recipients", import(client)).await?;
    tally.remark(&format!("{} people, from {} to {}", people.len(), people[0].1, people[people.len() - 1].1));
    let (email, name) = people[WHO.min(people.len() - 1)].clone();

    let first = tally.step("Send a campaign to everyone", send(client, spring())).await?;
    tally.step("See that each of them got it once", all_got(client, &first, people.len(), None)).await?;
    let (mail, link) = tally.step("Find the one-click link in a message", find_link(client, &email)).await?;
    tally.remark(&format!("{name}: “{}”", mail.subject));
    tally.step("Unsubscribe with one click, as a mailbox provider does", unsubscribe(client, &link)).await?;

    let second = tally.step("Send the next campaign", send(client, summer())).await?;
    let rest = people.len() - 1;
    tally.step("See that it left that person out", all_got(client, &second, rest, Some(&email))).await?;
    tally.remark(&format!("{rest} got it; {name} did not"));
    let third = tally.step("Send a campaign of the other brand", send(client, books())).await?;
    tally.step("See that it left them out, too", all_got(client, &third, rest, Some(&email))).await?;

    tally.step("See that a service message still arrives", service_message(client, &email)).await?;
    let told = announce(client, people.len());
    let told = tally.step("Announce a change of the privacy policy to everyone", told).await?;
    tally.remark(&format!("all {} people were told, {name} too", people.len()));
    let (notice, approval) =
        tally.step("Agree to it by the link in a message", approve(client, &email, &told)).await?;
    let campaign = second["id"].as_str().unwrap_or_default().to_owned();
    Ok(Shown { email, name, mail, link, campaign, notice, approval })
}

async fn prepare(client: &Client) -> Result<(), String> {
    let brands = [
        (
            "harbour",
            "Harbour Coffee",
            HARBOUR,
            "12 Quay Street, Bristol BS1 4DB, United Kingdom",
            "+44 117 496 0000",
        ),
        (
            "nordlicht",
            "Nordlicht Books",
            NORDLICHT,
            "Speicherweg 3, 20457 Hamburg, Germany",
            "+49 40 5550 0000",
        ),
    ];
    for (slug, name, color, postal_address, phone) in brands {
        let from = format!("{name} <news@{slug}.example.com>");
        let brand = json!({
            "name": name, "from": from, "color": color, "postal_address": postal_address, "phone": phone,
        });
        client.call(Method::PUT, &format!("/brands/{slug}"), Some(brand)).await?;
        for (topic, name, class) in
            [("news", "News and offers", "marketing"), ("account", "Your account", "service")]
        {
            let body = json!({ "name": name, "class": class });
            client.call(Method::PUT, &format!("/brands/{slug}/topics/{topic}"), Some(body)).await?;
        }
    }
    let offers = json!({ "subject": "{{data.headline}}", "html": OFFERS });
    client.call(Method::PUT, "/templates/offers", Some(offers)).await?;
    let security = json!({ "subject": "{{data.what}}", "html": SECURITY, "classes": ["service"] });
    client.call(Method::PUT, "/templates/security", Some(security)).await.map(drop)
}

/// Imports the shipped file and gives its people's addresses, as an envelope spells them, and names.
async fn import(client: &Client) -> Result<Vec<(String, String)>, String> {
    let mut people = Vec::new();
    for record in csv::Reader::from_reader(RECIPIENTS.as_bytes()).records() {
        let record = record.map_err(|error| error.to_string())?;
        let address = EmailAddress::parse(&record[0]).map_err(|error| error.to_string())?;
        people.push((address.to_wire(), record[1].to_owned()));
    }
    let report = client.upload("/recipients/import", RECIPIENTS).await?;
    if people.is_empty() || report["created"] != people.len() {
        return Err(format!("not every recipient was created: {report}"));
    }
    Ok(people)
}

fn campaign(brand: &str, headline: &str, intro: &str, button: &str, items: [(&str, &str); 3]) -> Value {
    let items: Vec<Value> =
        items.iter().map(|(title, text)| json!({ "title": title, "text": text })).collect();
    json!({
        "name": headline, "brand": brand, "topic": "news", "template": "offers", "audience": { "all": true },
        "data": { "headline": headline, "preheader": intro, "intro": intro, "button": button, "items": items },
    })
}

fn spring() -> Value {
    let intro =
        "Three things that came off our roaster this month, picked by the people who drink them all day.";
    let items = [
        ("Quayside blend", "Hazelnut and cocoa, the bag we open first in the morning."),
        ("Santa Rosa, washed", "Back after many of you asked. Forty bags, then no more until autumn."),
        ("A small surprise", "Every order before Sunday brings a sample of next month’s roast."),
    ];
    campaign("harbour", "New this month at Harbour Coffee", intro, "See the roasts", items)
}

fn summer() -> Value {
    let intro = "The first beans of the new harvest are here, and they are bright, light and very good cold.";
    let items = [
        ("Yirgacheffe, natural", "Blueberry and jasmine. Brew it cool and slowly."),
        ("Cold brew bags", "Ten of them in a tin; a jug of water and a night are all they ask for."),
        ("Open evening", "On Thursday from six we roast with the doors open. Come and smell it."),
    ];
    campaign("harbour", "Summer beans have landed", intro, "See the harvest", items)
}

fn books() -> Value {
    let intro = "It gets dark early again. Three of the ten books that our booksellers take home these days:";
    let items = [
        ("The Lightship Keeper", "A novel about a woman, a storm and forty years of letters."),
        ("Bread and Salt", "A cookery book to read like a travel diary, and to use until it falls apart."),
        ("North by Night Train", "Eleven journeys, none of them by air, each with a timetable that works."),
    ];
    campaign("nordlicht", "Ten books for long evenings", intro, "All ten books", items)
}

/// Creates and starts a campaign and waits, with a progress bar, until it is finished.
async fn send(client: &Client, campaign: Value) -> Result<Value, String> {
    let made = client.call(Method::POST, "/campaigns", Some(campaign)).await?;
    let path = format!("/campaigns/{}", made["id"].as_str().unwrap_or_default());
    client.call(Method::POST, &format!("{path}/start"), None).await?;
    let bar = out::message_bar();
    let mut moved = (0, Instant::now());
    let ended = loop {
        let campaign = client.call(Method::GET, &path, None).await?;
        let count = |state: &str| campaign["counts"][state].as_u64().unwrap_or(0);
        let done = count("total") - count("queued").min(count("total")) - count("sending");
        out::show_sent(&bar, done, count("total"));
        let lost = count("failed") + count("unknown") + count("expired") + count("cancelled");
        if lost > 0 {
            break Err(format!("{lost} messages were not sent; the relay refused them or hung up"));
        }
        if campaign["state"] == "finished" {
            break Ok(campaign);
        }
        if done > moved.0 {
            moved = (done, Instant::now());
        }
        if moved.1.elapsed() > PATIENCE {
            break Err(format!(
                "nothing was handed over for {} s; the relay does not take messages",
                PATIENCE.as_secs()
            ));
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    };
    bar.finish_and_clear();
    ended
}

/// Looks in the mailbox: `count` messages of this campaign, each to another address and none to `left_out`.
async fn all_got(
    client: &Client,
    campaign: &Value,
    count: usize,
    left_out: Option<&str>,
) -> Result<(), String> {
    let headline = campaign["name"].as_str().unwrap_or_default();
    let mails: Vec<Listed> =
        client.mailbox("").await?.into_iter().filter(|mail| mail.subject == headline).collect();
    let addresses: BTreeSet<&str> = mails.iter().map(|mail| mail.to.as_str()).collect();
    if mails.len() != count || addresses.len() != count {
        return Err(format!(
            "{count} people should have got one message each; there are {} to {} people",
            mails.len(),
            addresses.len()
        ));
    }
    let Some(left_out) = left_out else { return Ok(()) };
    if addresses.contains(left_out) {
        return Err("the person who unsubscribed got it".to_owned());
    }
    if campaign["counts"]["suppressed"] != 1 {
        return Err(format!("one message should have been suppressed: {}", campaign["counts"]));
    }
    Ok(())
}

async fn find_link(client: &Client, email: &str) -> Result<(Listed, String), String> {
    let mails = client.mailbox(email).await?;
    let mail = mails.into_iter().find(|mail| mail.to == email).ok_or("the mailbox has no message to them")?;
    let link = client.unsubscribe_link(&mail).await?;
    Ok((mail, link))
}

async fn unsubscribe(client: &Client, link: &str) -> Result<(), String> {
    let answer = client.one_click(link).await?;
    if answer["settled"] == true { Ok(()) } else { Err(format!("the answer is not settled: {answer}")) }
}

async fn service_message(client: &Client, email: &str) -> Result<(), String> {
    let what = "A new device signed in to your account";
    let body = json!({
        "brand": "harbour", "topic": "account", "template": "security", "to": { "email": email },
        "data": { "what": what, "details": "Somebody signed in from a telephone that we had not seen before." },
    });
    client.call(Method::POST, "/messages", Some(body)).await?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let found = client.mailbox(email).await?;
        if found.iter().any(|mail| mail.to == email && mail.subject == what) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    Err("it did not arrive".to_owned())
}
