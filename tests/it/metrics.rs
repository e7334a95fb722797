//! What `/metrics` counts is what happened: a process of its own, so that nothing of others is counted with it.

use serde_json::json;

use crate::harness::{
    Act, Api, Database, Gate, Process, SmtpServer, Stage, Tidings, eventually, one_click_link, wait_until,
};

/// What a process shows for Prometheus.
pub(crate) async fn scrape(api: &Api) -> String {
    api.page("/metrics").await.is(200).text.clone()
}

/// The sum of a metric over all series that have these labels; none when there is no such series.
pub(crate) fn value(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let series = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (called, of) = series.split_once('{').unwrap_or((series, ""));
        let has = |(label, word): &(&str, &str)| of.contains(&format!("{label}=\"{word}\""));
        (called == name && labels.iter().all(has)).then(|| value.parse::<f64>().unwrap())
    });
    series.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn address(name: &str) -> String {
    format!("{name}@people.example.com")
}

async fn state(tidings: &Tidings, message: &str) -> String {
    tidings.get(&format!("/messages/{message}")).await.ok()["state"].as_str().unwrap().to_owned()
}

async fn opt_out(api: &Api, name: &str) -> serde_json::Value {
    api.post("/opt-outs", json!({ "email": address(name), "scope": "all", "channel": "phone" })).await.ok()
}

async fn wait_attempts(tidings: &Tidings, message: &str, count: usize) {
    wait_until("an attempt", async || {
        let view = tidings.get(&format!("/messages/{message}")).await.ok();
        view["attempts"].as_array().unwrap().len() == count
    })
    .await;
}

on_both! {
    async fn metrics_count_hand_overs_phases_refusals_and_what_waits(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        let relay = SmtpServer::start().await;
        let url = relay.url();
        let env = [
            ("TIDINGS_RELAY_URL", url.as_str()),
            ("TIDINGS_WORKER_CONNECTIONS", "1"),
            ("TIDINGS_OPT_OUT_WAIT", "1"),
        ];
        let process = Process::serve(&tidings.database, &[], &env).await;

        // Sent: one of each lane, the second late.
        let service = tidings.message("acme", "service", &address("sent")).await;
        assert_eq!(tidings.settled(&service).await["state"], "sent");
        relay.on(Stage::FinalDot, Act::Late(std::time::Duration::from_millis(400))).once();
        let marketing = tidings.message("acme", "marketing", &address("late")).await;
        assert_eq!(tidings.settled(&marketing).await["state"], "sent");
        // Deferred and refused over the same connection.
        relay.on(Stage::Rcpt, Act::reply(450, "4.2.1 later")).to(&address("deferred")).once();
        let deferred = tidings.message("acme", "service", &address("deferred")).await;
        wait_attempts(&tidings, &deferred, 1).await;
        relay.on(Stage::Rcpt, Act::reply(550, "5.7.1 no")).to(&address("refused")).once();
        let refused = tidings.message("acme", "service", &address("refused")).await;
        assert_eq!(tidings.settled(&refused).await["state"], "failed");
        // A connection lost between the dot and its answer, and another one before MAIL was answered.
        relay.on(Stage::FinalDot, Act::HangUp).to(&address("unknown")).once();
        let unknown = tidings.message("acme", "marketing", &address("unknown")).await;
        assert_eq!(tidings.settled(&unknown).await["state"], "unknown");
        relay.on(Stage::Mail, Act::HangUp).once();
        let not_sent = tidings.message("acme", "requested", &address("not_sent")).await;
        wait_attempts(&tidings, &not_sent, 1).await;
        // Refusals: by phone, once more, by a click; and one that waits for what is under way until its bound is over.
        for _ in 0..2 {
            assert_eq!(opt_out(&process.api, "nobody").await["settled"], true);
        }
        let link = one_click_link(&relay.wait_for_message_to(&address("late")).await);
        let path = &link[link.find("/u/").unwrap()..];
        process.api.one_click(&format!("{}{path}", process.api.base)).await.is(200);
        let gate = Gate::new();
        relay.on(Stage::FinalDot, Act::Stall(gate.clone())).to(&address("open")).once();
        let open = tidings.message("acme", "marketing", &address("open")).await;
        gate.reached().await;
        assert_eq!(opt_out(&process.api, "open").await["settled"], false);
        let all = [("service", 1.0, 0.0), ("requested", 1.0, 0.0), ("marketing", 0.0, 1.0), ("reminder", 0.0, 0.0)];
        eventually("metrics that tell what waits and what is under way", async || {
            let seen = scrape(&process.api).await;
            let of = |class, state| value(&seen, "tidings_queue_deliveries", &[("class", class), ("state", state)]);
            all.iter()
                .all(|(class, queued, sending)| {
                    (of(class, "queued"), of(class, "sending")) == (Some(*queued), Some(*sending))
                })
                .then_some(())
        })
        .await;
        gate.open();
        assert_eq!(tidings.settled(&open).await["state"], "sent");

        let seen = scrape(&process.api).await;
        let handed = |outcome, class| {
            value(&seen, "tidings_hand_overs_total", &[("outcome", outcome), ("class", class)]).unwrap_or(0.0)
        };
        let told = [
            ("sent", "service", 1.0),
            ("sent", "marketing", 2.0),
            ("deferred", "service", 1.0),
            ("refused", "service", 1.0),
            ("unknown", "marketing", 1.0),
            ("not_sent", "requested", 1.0),
        ];
        for (outcome, class, count) in told {
            assert_eq!(handed(outcome, class), count, "{outcome} {class}");
        }
        assert_eq!(value(&seen, "tidings_hand_overs_total", &[]), Some(7.0), "and no other");
        // Each connection once, each body that was asked for once; the late answer's wait is in the sum.
        let phase = |what: &str, phase| value(&seen, &format!("tidings_smtp_phase_seconds_{what}"), &[("phase", phase)]);
        for of_connections in ["connect", "greeting", "hello"] {
            assert_eq!(phase("count", of_connections), Some(relay.connections() as f64), "{of_connections}");
        }
        let bodies = relay.transactions().iter().filter(|one| one.dot_at.is_some()).count() as f64;
        assert_eq!((phase("count", "envelope"), phase("count", "body")), (Some(bodies), Some(bodies)));
        assert!(phase("sum", "body") > Some(1.4), "{:?}", phase("sum", "body"));
        let channel = |name: &str, channel| value(&seen, name, &[("channel", channel)]);
        for (channel_of, count) in [("phone", 3.0), ("one_click", 1.0)] {
            assert_eq!(channel("tidings_opt_outs_total", channel_of), Some(count));
            assert_eq!(channel("tidings_opt_out_wait_seconds_count", channel_of), Some(count));
        }
        assert_eq!(value(&seen, "tidings_opt_outs_total", &[]), Some(4.0));
        assert!(channel("tidings_opt_out_wait_seconds_sum", "phone") >= Some(1.0));
        assert_eq!(value(&seen, "tidings_opt_out_waits_cut_off_total", &[]), Some(1.0));
        tidings.stop().await;
    }

    async fn metrics_count_what_was_lost_with_its_worker(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.ready_to_send().await;
        let relay = SmtpServer::start().await;
        let gate = Gate::new();
        relay.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        let url = relay.url();
        let relay_url = ("TIDINGS_RELAY_URL", url.as_str());
        let env = [relay_url, ("TIDINGS_WORKER_CONNECTIONS", "1"), ("TIDINGS_LEASE_SECONDS", "4")];
        let mut lost = Process::serve(&tidings.database, &["--only", "worker"], &env).await;
        let begun = tidings.message("acme", "marketing", &address("begun")).await;
        gate.reached().await;
        // Claimed while the connection waits for the answer.
        let mut unbegun = Vec::new();
        for name in ["first", "second"] {
            unbegun.push(tidings.message("acme", "marketing", &address(name)).await);
        }
        wait_until("both to be claimed", async || {
            state(&tidings, &unbegun[0]).await == "sending" && state(&tidings, &unbegun[1]).await == "sending"
        })
        .await;
        lost.kill();
        let another = Process::serve(&tidings.database, &["--only", "worker"], &[relay_url]).await;
        for message in &unbegun {
            assert_eq!(tidings.settled(message).await["state"], "sent");
        }
        assert_eq!(tidings.settled(&begun).await["state"], "unknown");
        let seen = scrape(&another.api).await;
        let of = |begun| value(&seen, "tidings_leases_lost_total", &[("begun", begun)]);
        assert_eq!((of("true"), of("false")), (Some(1.0), Some(2.0)));
        tidings.stop().await;
    }
}
