//! Messages that come back after the relay took them over: reports over SMTP and LMTP to the envelope senders.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Statement};
use secrecy::SecretString;
use serde_json::{Value, json};
use tidings::id::DeliveryId;
use tidings::link::envelope_local;
use tidings::notice::rows::verify;

use crate::harness::{
    Act, Database, Gate, Postfix, SmtpServer, Stage, Tidings, UnsubscribeMail, eventually, free_address,
    swaks,
};
use crate::intake::takes_mail;
use crate::metrics::{scrape, value};
use crate::promises::{Store, count};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a mail server reports.
pub(crate) struct Report<'a> {
    pub(crate) action: &'a str,
    pub(crate) status: &'a str,
    pub(crate) to: &'a str,
    pub(crate) said: &'a str,
}

impl Report<'_> {
    /// That this address is not known.
    pub(crate) fn nobody(to: &str) -> Report<'_> {
        Report { action: "failed", status: "5.1.1", to, said: "550 5.1.1 no such user" }
    }

    /// The report as a mail of its own.
    pub(crate) fn mail(&self) -> String {
        let Self { action, status, to, said } = self;
        format!(
            "From: MAILER-DAEMON@mx.example\nTo: somebody\nSubject: Undelivered Mail Returned to Sender\nMIME-Version: 1.0\n\
             Auto-Submitted: auto-replied\nContent-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\n\n\
             --b\nContent-Type: text/plain\n\nI am sorry.\n\n\
             --b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example\n\n\
             Final-Recipient: rfc822; {to}\nAction: {action}\nStatus: {status}\nDiagnostic-Code: smtp; {said}\n\n\
             --b\nContent-Type: message/rfc822\n\nSubject: Hello\n\nHello\n\n--b--\n"
        )
    }

    /// Reports it to an envelope sender.
    pub(crate) async fn send(&self, tidings: &Tidings, sender: &str) {
        swaks(tidings.inbound(), &["--from", "<>", "--to", sender], &self.mail()).await.ok();
    }
}

/// The envelope sender of the newest message to an address.
pub(crate) async fn sender_of(tidings: &Tidings, email: &str) -> String {
    tidings.smtp.wait_for_message_to(email).await;
    tidings.smtp.messages_to(email).pop().unwrap().from
}

async fn start(database: Database) -> Tidings {
    let tidings = Tidings::start_with(database, takes_mail).await;
    tidings.ready_to_send().await;
    tidings
}

/// A message of this topic that was sent; gives its id and its envelope sender.
async fn sent(tidings: &Tidings, topic: &str, email: &str) -> (String, String) {
    let id = tidings.message("acme", topic, email).await;
    assert_eq!(tidings.settled(&id).await["state"], "sent");
    (id, sender_of(tidings, email).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_real_postfix_reports_is_taken() {
    let sink = SmtpServer::start().await;
    let intake = free_address();
    let postfix = Postfix::between(&sink, &intake);
    let tidings = Tidings::start_with(Database::sqlite(), |settings| {
        takes_mail(settings);
        settings.inbound_listen = Some(intake.parse().unwrap());
        settings.relay_url = SecretString::from(postfix.url.clone());
    })
    .await;
    tidings.ready_to_send().await;
    for (name, stage, refusal, words) in [
        ("gone", Stage::Rcpt, (550, "5.1.1 <gone@people.example.com> is nobody here"), "is nobody here"),
        ("filtered", Stage::FinalDot, (554, "5.7.1 looks like spam"), "looks like spam"),
    ] {
        let email = format!("{name}@people.example.com");
        sink.on(stage, Act::reply(refusal.0, refusal.1)).to(&email);
        let id = tidings.message("acme", "service", &email).await;
        let back = eventually("a message that comes back", async || {
            let message = tidings.get(&format!("/messages/{id}")).await.ok();
            message["bounced"].is_object().then_some(message)
        })
        .await;
        let bounced = &back["bounced"];
        assert_eq!((&back["state"], &bounced["status"]), (&json!("sent"), &json!(refusal.1[..5])), "{back}");
        let said = bounced["words"].as_str().unwrap();
        assert!(said.contains(words) && !said.contains(name), "{said}");
    }
    assert_eq!(failures(&tidings).await, 1);
    tidings.message("acme", "service", "fine@people.example.com").await;
    sink.wait_for_message_to("fine@people.example.com").await;
    assert_eq!((count(&tidings, "bounces").await, sink.count()), (2, 1), "no report went elsewhere");
    tidings.stop().await;
}

/// How a new message of this topic ends, and why.
async fn fate(tidings: &Tidings, topic: &str, email: &str) -> (Value, Value) {
    let id = tidings.message("acme", topic, email).await;
    let settled = tidings.settled(&id).await;
    (settled["state"].clone(), settled["reason"].clone())
}

async fn failures(tidings: &Tidings) -> i64 {
    let db = &tidings.app().db;
    let sql = "SELECT CAST(COALESCE(SUM(failures), 0) AS bigint) AS n FROM addresses";
    let row = db.reads().query_one_raw(Statement::from_string(db.backend(), sql)).await.unwrap().unwrap();
    row.try_get("", "n").unwrap()
}

on_both! {
    async fn a_message_that_comes_back_shows_how_and_stays_in_the_counts(database: Database) {
        let tidings = start(database).await;
        tidings.recipients(3).await;
        let campaign = tidings.send_to_all("acme", "marketing").await;
        let id = campaign["id"].as_str().unwrap();
        let email = "p1@people.example.com";
        let report = Report { said: "550 5.7.1 <p1@people.example.com> is spam, P1", status: "5.7.1", ..Report::nobody(email) };
        report.send(&tidings, &sender_of(&tidings, email).await).await;
        let deliveries = tidings.get(&format!("/campaigns/{id}/deliveries")).await.ok();
        let (mut back, mut others) = (Vec::new(), 0);
        for one in deliveries["items"].as_array().unwrap() {
            assert_eq!(one["state"], "sent");
            match one.get("bounced") {
                Some(bounced) => back.push((one.clone(), bounced.clone())),
                None => others += 1,
            }
        }
        let [(delivery, bounced)] = &back[..] else { panic!("{deliveries}") };
        assert_eq!((others, &delivery["email"]), (2, &json!(email)));
        assert_eq!((&bounced["status"], &bounced["words"]), (&json!("5.7.1"), &json!("550 5.7.1 <…> is spam, …")));
        assert!(bounced["at"].is_string());
        let one = tidings.get(&format!("/messages/{}", delivery["id"].as_str().unwrap())).await.ok();
        let of_person = format!("/recipients/{}/deliveries", delivery["recipient"].as_str().unwrap());
        let of_person = tidings.get(&of_person).await.ok();
        assert_eq!((&one["bounced"], &of_person["items"][0]["bounced"]), (bounced, bounced));
        assert_eq!(tidings.get(&format!("/campaigns/{id}")).await.ok()["counts"], campaign["counts"]);
        tidings.stop().await;
    }

    async fn only_what_speaks_of_the_mailbox_counts_against_the_address_and_once(database: Database) {
        let tidings = start(database).await;
        let email = "ann@people.example.com";
        for (status, said) in [("5.7.1", "550 5.7.1 blocked"), ("4.4.1", "timed out"), ("5.2.2", "552 5.2.2 full"), ("5.0.0", "550 no")] {
            let (id, sender) = sent(&tidings, "marketing", email).await;
            Report { status, said, ..Report::nobody(email) }.send(&tidings, &sender).await;
            assert_eq!(tidings.get(&format!("/messages/{id}")).await.ok()["bounced"]["status"], status);
            assert_eq!(failures(&tidings).await, 0, "{status}");
        }
        let (id, sender) = sent(&tidings, "marketing", email).await;
        for status in ["5.1.1", "5.1.1", "5.2.1", "5.7.1"] {
            Report { status, said: "550 no", ..Report::nobody(email) }.send(&tidings, &sender).await;
        }
        assert_eq!((failures(&tidings).await, count(&tidings, "bounces").await), (1, 5));
        assert_eq!(tidings.get(&format!("/messages/{id}")).await.ok()["bounced"]["status"], "5.1.1");
        let (state, reason) = fate(&tidings, "marketing", email).await;
        assert_eq!((state, reason), (json!("suppressed"), json!("address_dead")));
        // The service side stops after a second one, a day later.
        let (_, sender) = sent(&tidings, "service", email).await;
        tidings.advance(2 * DAY);
        Report::nobody(email).send(&tidings, &sender).await;
        let (state, reason) = fate(&tidings, "service", email).await;
        assert_eq!((state, reason), (json!("suppressed"), json!("address_dead")));
        tidings.stop().await;
    }

    async fn what_reports_no_failure_of_a_message_that_was_sent_changes_nothing(database: Database) {
        let tidings = start(database).await;
        let email = "ann@people.example.com";
        let (id, sender) = sent(&tidings, "service", email).await;
        let before = (tidings.get(&format!("/messages/{id}")).await.ok(), tidings.smtp.count());
        let report = |action| Report { action, ..Report::nobody(email) }.mail();
        let failed = Report::nobody(email).mail();
        let vacation = format!("From: {email}\nAuto-Submitted: auto-replied\nSubject: Away\n\nAction: failed\nStatus: 5.1.1\n");
        let answer = format!("From: {email}\nSubject: Re: Hello\n\nThank you.\n");
        for (n, mail) in [report("delayed"), report("delivered"), report("relayed"), report("expanded"), vacation, answer,
            failed.replace("multipart/report", "multipart/mixed")].into_iter().enumerate() {
            let from = ["<>", email][n % 2];
            let arguments = ["--protocol", ["ESMTP", "LMTP", "SMTP"][n % 3], "--from", from, "--to", &sender];
            swaks(tidings.inbound(), &arguments, &mail).await.ok();
        }
        // Of nobody: signed, and never made; refused by the relay; suppressed.
        let keys = &tidings.app().link_keys;
        let never = format!("{}@acme.example.com", envelope_local(DeliveryId::new(), keys));
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 no")).to("refused@people.example.com");
        let refused = tidings.message("acme", "service", "refused@people.example.com").await;
        assert_eq!(tidings.settled(&refused).await["state"], "failed");
        tidings.recipient("no@people.example.com").await;
        tidings.post("/opt-outs", json!({ "email": "no@people.example.com", "scope": "all", "channel": "phone" })).await.is(201);
        let suppressed = tidings.message("acme", "marketing", "no@people.example.com").await;
        assert_eq!(tidings.settled(&suppressed).await["state"], "suppressed");
        for delivery in [&refused, &suppressed] {
            let sender = format!("{}@acme.example.com", envelope_local(delivery.parse().unwrap(), keys));
            Report::nobody(email).send(&tidings, &sender).await;
        }
        Report::nobody(email).send(&tidings, &never).await;
        // Forged, at any domain.
        let (local, domain) = sender.split_once('@').unwrap();
        let other = if local.ends_with('0') { '1' } else { '0' };
        let forged = format!("{}{other}", &local[..local.len() - 1]);
        for to in [format!("{forged}@{domain}"), format!("{forged}@lists.example.com"), format!("b+{}@{domain}", &local[3..]), "b+@x.example".into()] {
            swaks(tidings.inbound(), &["--from", "<>", "--to", &to], &failed).await.refused("550 5.1.1");
        }
        assert_eq!((tidings.get(&format!("/messages/{id}")).await.ok(), tidings.smtp.count()), before);
        assert_eq!((count(&tidings, "bounces").await, failures(&tidings).await), (0, 0));
        let seen = scrape(&tidings).await;
        for outcome in ["delayed", "delivered", "relayed", "expanded", "no_report", "not_sent"] {
            assert!(value(&seen, "tidings_bounces_total", &[("outcome", outcome)]) >= Some(1.0), "{outcome}");
        }
        // And nothing is spoilt, in whatever letters and at whatever domain the address comes.
        let shouted = format!("{}@elsewhere.example", local.to_uppercase());
        swaks(tidings.inbound(), &["--protocol", "LMTP", "--from", email, "--to", &shouted], &failed).await.ok();
        assert_eq!((count(&tidings, "bounces").await, failures(&tidings).await, tidings.smtp.count()), (1, 1, before.1));
        tidings.stop().await;
    }

    async fn while_the_store_is_away_reports_are_to_come_again(database: Database) {
        let tidings = start(database).await;
        let email = "ann@people.example.com";
        let (id, sender) = sent(&tidings, "service", email).await;
        let mail = Report::nobody(email).mail();
        let store = Store::take_away(&tidings.database).await;
        for protocol in ["ESMTP", "LMTP"] {
            swaks(tidings.inbound(), &["--protocol", protocol, "--from", "<>", "--to", &sender], &mail).await.refused("451 4.3.0");
        }
        store.give_back().await;
        assert_eq!(count(&tidings, "bounces").await, 0);
        Report::nobody(email).send(&tidings, &sender).await;
        assert_eq!(tidings.get(&format!("/messages/{id}")).await.ok()["bounced"]["status"], "5.1.1");
        tidings.stop().await;
    }

    async fn a_report_to_several_senders_is_recorded_of_each_and_refuses_nothing(database: Database) {
        let tidings = start(database).await;
        let (ann, bob) = ("ann@people.example.com", "bob@people.example.com");
        let unsubscribe = UnsubscribeMail::of(&tidings.mail_of("acme", "marketing", ann).await);
        let (_, second) = sent(&tidings, "service", bob).await;
        let first = sender_of(&tidings, ann).await;
        let to = format!("{first},unsubscribe+{}@lists.example.com,nobody@x.example,{second}", unsubscribe.token);
        // Whoever sends it, a report unsubscribes nobody.
        let mail = Report::nobody(bob).mail().replace("Auto-Submitted: auto-replied\n", "");
        swaks(tidings.inbound(), &["--protocol", "LMTP", "--from", ann, "--to", &to], &mail).await;
        assert_eq!((count(&tidings, "bounces").await, count(&tidings, "opt_events").await), (2, 0));
        tidings.stop().await;
    }

    async fn a_bounce_that_overtakes_the_relays_own_answer_comes_after_it_in_evidence(database: Database) {
        let tidings = start(database).await;
        let email = "p0@people.example.com";
        tidings.recipients(1).await;
        tidings.policy(json!({})).await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).to(email).once();
        let notice = tidings.announce("material", json!({})).await;
        let id = notice["id"].as_str().unwrap();
        gate.reached().await;
        let (_, open) = tidings.smtp.open_transactions().pop().unwrap();
        Report::nobody(email).send(&tidings, &open.from).await;
        assert_eq!(count(&tidings, "bounces").await, 1);
        let waiting = tidings.get(&format!("/notices/{id}")).await.ok();
        assert_eq!(waiting["counts"], json!({ "total": 1, "told": 0, "pending": 1, "unreachable": 0 }), "{waiting}");
        gate.open();
        let line = eventually("a bounce in evidence", async || {
            let text = tidings.get(&format!("/notices/{id}/evidence")).await.text;
            text.lines().next().map(|line| serde_json::from_str::<Value>(line).unwrap())
        })
        .await;
        assert_eq!((&line["deliveries"][0]["state"], &line["bounces"][0]["status"]), (&json!("sent"), &json!("5.1.1")), "{line}");
        let seqs: Vec<i64> = line["entries"].as_array().unwrap().iter().map(|seq| seq.as_i64().unwrap()).collect();
        let kinds = "SELECT kind FROM evidence WHERE person IS NOT NULL ORDER BY seq";
        let db = &tidings.app().db;
        let rows = db.reads().query_all_raw(Statement::from_string(db.backend(), kinds)).await.unwrap();
        let kinds: Vec<String> = rows.iter().map(|row| row.try_get("", "kind").unwrap()).collect();
        assert_eq!((kinds, seqs.len()), (vec!["delivery".to_owned(), "bounced".to_owned()], 2));
        assert!(verify(db, id.parse().unwrap()).await.unwrap().is_ok());
        let now = tidings.get(&format!("/notices/{id}")).await.ok();
        assert_eq!(now["counts"], json!({ "total": 1, "told": 0, "pending": 0, "unreachable": 1 }), "{now}");
        tidings.stop().await;
    }
}
