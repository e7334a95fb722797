//! What becomes of a message: promises 1 and 2 over real SMTP, retries, the relay's moods, a stop in the middle.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings::serve::Parts;

use crate::harness::{
    Act, Database, Gate, Options, Process, SmtpServer, Stage, Tidings, one_click_link, wait_until,
};

const ADA: &str = "ada@people.example.com";
const MINUTE: Duration = Duration::from_secs(60);

/// Opts this address out of everything and gives the answer.
async fn opt_out(tidings: &Tidings, email: &str) -> Value {
    tidings.post("/opt-outs", json!({ "email": email, "scope": "all", "channel": "phone" })).await.ok()
}

async fn wait_state(tidings: &Tidings, message: &str, state: &str) {
    wait_until(&format!("a delivery that is {state}"), async || {
        tidings.get(&format!("/messages/{message}")).await.ok()["state"] == state
    })
    .await;
}

async fn attempts(tidings: &Tidings, message: &str) -> Vec<Value> {
    let message = tidings.get(&format!("/messages/{message}")).await.ok();
    message["attempts"].as_array().unwrap().clone()
}

/// Waits until the delivery has had so many attempts and waits for its next.
async fn wait_attempts(tidings: &Tidings, message: &str, count: usize) {
    wait_until(&format!("{count} attempts"), async || {
        let view = tidings.get(&format!("/messages/{message}")).await.ok();
        view["attempts"].as_array().unwrap().len() == count && view["state"] == "queued"
    })
    .await;
}

on_both! {
    async fn an_address_that_is_not_ascii_gets_its_mail_where_the_relay_can_and_fails_once_where_not(database: Database) {
        const ZOE: &str = "zoë@bücher.example";
        const WIRE: &str = "zoë@xn--bcher-kva.example";
        let able = Options { extensions: vec!["8BITMIME", "SMTPUTF8"], ..Options::default() };
        let able = SmtpServer::with(able).await;
        let mut tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let failed = tidings.message("acme", "service", ZOE).await;
        let failed = tidings.settled(&failed).await;
        assert_eq!((&failed["state"], &failed["reason"]), (&json!("failed"), &json!("refused")), "{failed}");
        let tried = failed["attempts"].as_array().unwrap();
        assert_eq!((tried.len(), &tried[0]["enhanced"]), (1, &json!("5.6.7")), "{failed}");
        assert_eq!(tidings.smtp.count(), 0);
        tidings.restart_with(|settings| settings.relay_url = able.url().into()).await;
        for topic in ["service", "marketing"] {
            let sent = tidings.message("acme", topic, ZOE).await;
            assert_eq!(tidings.settled(&sent).await["state"], "sent");
        }
        for mail in able.wait_for(2).await {
            assert_eq!(mail.recipient(), WIRE);
            let to = mail.header("To").unwrap();
            assert!(to == WIRE || to.ends_with(&format!("<{WIRE}>")), "{to}");
        }
        tidings.stop().await;
    }

    async fn promise_1_an_opt_out_waits_for_the_message_that_has_begun_and_then_says_settled(database: Database) {
        let tidings = Tidings::start_with(database, |s| s.opt_out_wait = Duration::from_secs(20)).await;
        tidings.ready_to_send().await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        let message = tidings.message("acme", "marketing", ADA).await;
        gate.reached().await;

        let asking = opt_out(&tidings, ADA);
        let mut asking = Box::pin(asking);
        // The opt-out is recorded while it waits, and it does wait.
        let recorded = wait_until("the opt-out to be recorded", async || {
            let standing = tidings.get(&format!("/opt-outs?email={ADA}")).await.ok();
            standing.to_string().contains("phone")
        });
        tokio::select! {
            answer = asking.as_mut() => panic!("answered while the message was open: {answer}"),
            () = recorded => {}
        }
        gate.open();
        let answer = asking.await;
        assert_eq!(answer["settled"], true);
        assert_eq!(answer["in_flight"], json!([]));
        assert_eq!(tidings.settled(&message).await["state"], "sent");
        tidings.stop().await;
    }

    async fn promise_1_what_is_still_open_at_the_bound_is_named(database: Database) {
        let tidings = Tidings::start_with(database, |s| s.opt_out_wait = Duration::from_millis(300)).await;
        tidings.ready_to_send().await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        let message = tidings.message("acme", "marketing", ADA).await;
        gate.reached().await;
        let answer = opt_out(&tidings, ADA).await;
        assert_eq!(answer["settled"], false);
        assert_eq!(answer["in_flight"][0]["delivery"], message.as_str());
        assert_eq!(answer["in_flight"][0]["topic"], "marketing");
        assert_eq!(answer["in_flight"][0]["state"], "sending");
        gate.open();
        tidings.settled(&message).await;
        let again = opt_out(&tidings, ADA).await;
        assert_eq!((&again["settled"], &again["id"]), (&json!(true), &answer["id"]));
        tidings.stop().await;
    }

    async fn promise_1_nothing_begins_after_the_answer_in_the_middle_of_a_campaign(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        const PEOPLE: usize = 400;
        tidings.recipients(PEOPLE).await;
        let campaign = tidings.draft("acme", "marketing").await;
        tidings.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        tidings.relay_has(20).await;

        let mut answered = Vec::new();
        for n in (0..PEOPLE).rev().step_by(7) {
            let email = format!("p{n}@people.example.com");
            let answer = opt_out(&tidings, &email).await;
            answered.push((email, Instant::now(), answer["settled"] == true));
        }
        let campaign = tidings.finished(&campaign).await;

        assert!(campaign["counts"]["suppressed"].as_u64().unwrap() > 0, "too late to stop any: {campaign}");
        let transactions = tidings.smtp.transactions();
        for (email, at, settled) in answered {
            assert!(settled, "nothing stalls here, so all is settled");
            let late = transactions.iter().filter(|t| t.recipient() == email && t.mail_at > at).count();
            assert_eq!(late, 0, "a message began after its opt-out was answered");
        }
        let counts = &campaign["counts"];
        let total: u64 = ["queued", "sending", "sent", "suppressed", "failed", "unknown", "expired", "cancelled"]
            .iter()
            .map(|state| counts[state].as_u64().unwrap())
            .sum();
        assert_eq!(counts["total"], total);
        assert_eq!(total, PEOPLE as u64);
        assert_eq!(counts["sent"], tidings.smtp.count() as u64);
        tidings.stop().await;
    }

    async fn promise_1_a_new_connection_in_place_of_a_stale_one_asks_for_the_facts_again(database: Database) {
        let tidings = Tidings::start_with(database, |s| {
            s.opt_out_wait = Duration::from_millis(300);
            s.worker_connections = 1;
        })
        .await;
        tidings.ready_to_send().await;
        tidings.mail_of("acme", "service", "bob@people.example.com").await;
        // The relay has closed the connection that was kept, and is slow to greet on the next.
        let gate = Gate::new();
        tidings.smtp.on(Stage::Mail, Act::HangUp).once();
        tidings.smtp.on(Stage::Greeting, Act::Stall(gate.clone())).once();
        let message = tidings.message("acme", "marketing", ADA).await;
        gate.reached().await;
        let answer = opt_out(&tidings, ADA).await;
        let answered = Instant::now();
        assert_eq!(answer["in_flight"][0]["delivery"], message.as_str(), "it has begun");
        gate.open();
        let message = tidings.settled(&message).await;
        assert_eq!((&message["state"], &message["reason"]), (&json!("suppressed"), &json!("opted_out_of_all")));
        assert_eq!(message["attempts"], json!([]), "a connection that was closed before counts as no attempt");
        assert_eq!(tidings.smtp.transactions().iter().filter(|one| one.mail_at > answered).count(), 0);
        tidings.mail_of("acme", "service", ADA).await;
        tidings.stop().await;
    }

    async fn promise_2_what_can_be_refused_is_never_sent_again_when_its_outcome_is_unknown(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.smtp.on(Stage::FinalDot, Act::HangUp).to(ADA);
        for class in ["relationship", "reminder", "marketing"] {
            let message = tidings.message("acme", class, ADA).await;
            wait_state(&tidings, &message, "unknown").await;
            let attempts = attempts(&tidings, &message).await;
            assert_eq!(attempts.len(), 1);
            assert_eq!((&attempts[0]["outcome"], &attempts[0]["phase"]), (&json!("unknown"), &json!("final_dot")));
        }
        // An opt-out now names what may still reach the relay, until the relay must have hung up.
        let answer = opt_out(&tidings, ADA).await;
        assert_eq!(answer["settled"], false);
        let states: Vec<_> = answer["in_flight"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
        assert_eq!(states, ["in_doubt", "in_doubt", "in_doubt"]);
        tidings.advance(Duration::from_secs(26 * 3600));
        assert_eq!(opt_out(&tidings, ADA).await["settled"], true);
        assert_eq!(tidings.smtp.transactions().len(), 3, "nothing was tried again");
        tidings.stop().await;
    }

    async fn promise_2_the_service_side_is_sent_again_with_the_same_message_id_and_date(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        for class in ["requested", "service"] {
            let before = tidings.smtp.transactions().len();
            tidings.smtp.on(Stage::FinalDot, Act::HangUp).to(ADA).once();
            let message = tidings.message("acme", class, ADA).await;
            wait_attempts(&tidings, &message, 1).await;
            tidings.advance(MINUTE + Duration::from_secs(5));
            assert_eq!(tidings.settled(&message).await["state"], "sent");
            let tried = tidings.smtp.transactions().split_off(before);
            assert_eq!(tried.len(), 2);
            for header in ["Message-ID", "Date"] {
                assert!(tried[0].header(header).is_some());
                assert_eq!(tried[0].header(header), tried[1].header(header));
            }
            assert_eq!(tried[0].from, tried[1].from, "its bounces name the same delivery");
            let outcomes: Vec<_> =
                attempts(&tidings, &message).await.iter().map(|one| one["outcome"].clone()).collect();
            assert_eq!(outcomes, ["unknown", "sent"]);
        }
        tidings.stop().await;
    }

    async fn a_deferral_is_tried_again_after_1_5_15_and_60_minutes_and_a_refusal_never(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(451, "4.3.0 try later")).to(ADA).times(4);
        let message = tidings.message("acme", "marketing", ADA).await;
        for (tried, minutes) in [(1, 1), (2, 5), (3, 15), (4, 60)] {
            wait_attempts(&tidings, &message, tried).await;
            tidings.advance(MINUTE * minutes - Duration::from_secs(20));
            // Not yet due: another message passes it by.
            let other = tidings.message("acme", "service", "other@people.example.com").await;
            tidings.settled(&other).await;
            assert_eq!(attempts(&tidings, &message).await.len(), tried);
            tidings.advance(Duration::from_secs(25));
        }
        assert_eq!(tidings.settled(&message).await["state"], "sent");
        let tried = attempts(&tidings, &message).await;
        assert_eq!(tried.len(), 5);
        assert_eq!(tried[0]["reply"], "4.3.0 try later");
        assert_eq!((&tried[0]["code"], &tried[0]["enhanced"]), (&json!(451), &json!("4.3.0")));

        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.7.1 not wanted")).to("bob@people.example.com");
        let message = tidings.message("acme", "marketing", "bob@people.example.com").await;
        assert_eq!(tidings.settled(&message).await["state"], "failed");
        tidings.advance(Duration::from_secs(30 * 3600));
        let other = tidings.message("acme", "service", "other@people.example.com").await;
        tidings.settled(&other).await;
        assert_eq!(attempts(&tidings, &message).await.len(), 1);
        tidings.stop().await;
    }

    async fn what_can_be_refused_is_given_up_after_a_day_and_the_service_side_after_five(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.smtp.on(Stage::Mail, Act::reply(421, "4.3.2 come back later"));
        let marketing = tidings.message("acme", "marketing", ADA).await;
        let service = tidings.message("acme", "service", ADA).await;
        wait_attempts(&tidings, &marketing, 1).await;
        wait_attempts(&tidings, &service, 1).await;
        tidings.advance(Duration::from_secs(24 * 3600));
        assert_eq!(tidings.settled(&marketing).await["state"], "failed");
        wait_attempts(&tidings, &service, 2).await;
        tidings.advance(Duration::from_secs(5 * 24 * 3600));
        assert_eq!(tidings.settled(&service).await["state"], "failed");
        tidings.stop().await;
    }

    async fn a_dead_address_stops_what_can_be_refused(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.smtp.on(Stage::Rcpt, Act::reply(550, "5.1.1 no such user")).to(ADA).once();
        let first = tidings.message("acme", "marketing", ADA).await;
        assert_eq!(tidings.settled(&first).await["state"], "failed");
        let second = tidings.message("acme", "marketing", ADA).await;
        let second = tidings.settled(&second).await;
        assert_eq!((&second["state"], &second["reason"]), (&json!("suppressed"), &json!("address_dead")));
        let service = tidings.message("acme", "service", ADA).await;
        assert_eq!(tidings.settled(&service).await["state"], "sent");
        tidings.stop().await;
    }

    async fn a_relay_that_hangs_up_anywhere_before_the_dot_costs_nothing_but_time(database: Database) {
        // Each message goes over a connection of its own, so that none is excused by having been kept too long.
        let relay = SmtpServer::with(Options { close_after: Some(1), ..Options::default() }).await;
        let url = relay.url();
        let tidings = Tidings::start_with(database, |s| s.relay_url = url.into()).await;
        tidings.ready_to_send().await;
        let stages = [
            (Stage::Greeting, None),
            (Stage::Ehlo, None),
            (Stage::Mail, Some("mail")),
            (Stage::Rcpt, Some("rcpt")),
            (Stage::Data, Some("data")),
        ];
        for (n, (stage, phase)) in stages.into_iter().enumerate() {
            relay.on(stage, Act::HangUp).once();
            let message = tidings.message("acme", "marketing", ADA).await;
            if phase.is_some() {
                wait_attempts(&tidings, &message, 1).await;
                assert_eq!(relay.count(), n, "an attempt before it was hung up on at {stage:?}");
                tidings.advance(2 * MINUTE);
            }
            assert_eq!(tidings.settled(&message).await["state"], "sent", "after {stage:?}");
            assert_eq!(relay.acts_left(), 0, "it was not hung up on at {stage:?}");
            assert_eq!((relay.count(), relay.messages_to(ADA).len()), (n + 1, n + 1), "after {stage:?}");
            // Until MAIL nothing was tried of the message.
            let tried = attempts(&tidings, &message).await;
            let told: Vec<_> = tried.iter().map(|one| (one["outcome"].as_str(), one["phase"].as_str())).collect();
            let failed = phase.map(|phase| (Some("not_sent"), Some(phase)));
            assert_eq!(told, failed.into_iter().chain([(Some("sent"), None)]).collect::<Vec<_>>(), "after {stage:?}");
        }
        tidings.stop().await;
    }

    async fn a_one_click_link_from_the_mail_stops_the_next_campaign_and_no_service_message(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipients(5).await;
        tidings.send_to_all("acme", "marketing").await;
        let mail = tidings.smtp.wait_for_message_to("p3@people.example.com").await;
        tidings.one_click(&one_click_link(&mail)).await.is(200);
        let second = tidings.send_to_all("acme", "marketing").await;
        assert_eq!(second["counts"]["sent"], 4);
        assert_eq!(second["counts"]["suppressed"], 1);
        assert_eq!(tidings.smtp.messages_to("p3@people.example.com").len(), 1);
        tidings.mail_of("acme", "service", "p3@people.example.com").await;
        tidings.stop().await;
    }

    async fn a_stop_finishes_what_is_in_flight_and_gives_the_rest_back(database: Database) {
        let mut tidings = Tidings::start_with(database, |s| s.worker_connections = 2).await;
        tidings.ready_to_send().await;
        tidings.recipients(30).await;
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone()));
        let campaign = tidings.draft("acme", "marketing").await;
        tidings.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        gate.reached_by(2).await;
        let opener = gate.clone();
        let (restarted, ()) = tokio::join!(tidings.restart_with(|_| {}), async move { opener.open() });
        let () = restarted;
        let campaign = tidings.finished(&campaign).await;
        assert_eq!(campaign["counts"]["sent"], 30);
        assert_eq!(tidings.smtp.count(), 30, "nothing lost, nothing twice");
        tidings.stop().await;
    }

    async fn promise_2_holds_through_a_kill_in_the_middle_of_a_hand_over(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        let relay = SmtpServer::start().await;
        let gate = Gate::new();
        relay.on(Stage::FinalDot, Act::Stall(gate.clone()));
        let relay_url = relay.url();
        let mut process =
            Process::serve(&tidings.database, &["--only", "worker"], &[("TIDINGS_RELAY_URL", relay_url.as_str())])
                .await;
        let marketing = tidings.message("acme", "marketing", ADA).await;
        let service = tidings.message("acme", "service", ADA).await;
        gate.reached_by(2).await;
        process.kill();

        // The lease ends, and another worker decides what the killed one left.
        let another = tidings.another(Parts { web: false, ..Parts::default() }).await;
        tidings.advance(Duration::from_secs(120));
        assert_eq!(tidings.settled(&service).await["state"], "sent");
        assert_eq!(tidings.settled(&marketing).await["state"], "unknown");
        let first = relay.transactions().into_iter().find(|one| one.header("List-Unsubscribe").is_none()).unwrap();
        let again = tidings.smtp.transactions();
        assert_eq!(again.len(), 1, "what can be refused was not tried again");
        assert_eq!(again[0].header("Message-ID"), first.header("Message-ID"));
        let answer = opt_out(&tidings, ADA).await;
        assert_eq!(answer["in_flight"][0]["delivery"], marketing.as_str());
        assert_eq!(answer["in_flight"][0]["state"], "in_doubt");
        another.stop().await;
        tidings.stop().await;
    }
}
