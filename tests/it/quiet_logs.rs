//! Promise 9: no address in a link, a log line or a metric; no token and no key in a log line either.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::json;

use crate::harness::{
    ADMIN_KEY, Act, Answer, Database, LINK_KEYS, Options, Process, SmtpServer, Stage, eventually,
    one_click_link,
};
use crate::promises::make_ready;

on_both! {
    async fn promise_9_every_journey_at_trace_writes_no_address_token_or_key(database: Database) {
        let options = Options { extensions: vec!["AUTH PLAIN"], ..Options::default() };
        let smtp = SmtpServer::with(options).await;
        smtp.on(Stage::Rcpt, Act::reply(550, "5.1.1 <gone.girl@example.org> unknown")).to("gone.girl@example.org");
        let url = smtp.url().replace("://", "://relay-user:relay-password@");
        // A server that trusts this machine takes any password.
        let store = database.url().replace("postgres@", "postgres:store-password@");
        let env = [("TIDINGS_RELAY_URL", url.as_str()), ("TIDINGS_DATABASE_URL", store.as_str()), ("TIDINGS_LOG", "trace"), ("RUST_LOG", "trace")];
        let mut process = Process::serve(&database, &[], &env).await;
        let api = &process.api;
        make_ready(api).await;
        let people = ["ada.quiet@example.org", "gone.girl@example.org", "Bücher.Wurm@bücher.example", "never.seen@example.org"];
        for email in &people[..3] {
            api.post("/recipients", json!({ "email": email, "name": "Quiet Person" })).await;
        }
        api.post_text("/recipients/import", "text/csv", "email,name\nimported.one@example.org,Im Ported\nbroken address@x\n").await.ok();
        api.post_text("/recipients/import", "application/x-ndjson", "{\"email\": \"nd.json@example.org\"}\nnonsense nd2.json@example.org\n").await;
        let campaign = json!({ "brand": "acme", "topic": "offers", "template": "hello", "audience": { "all": true } });
        let campaign = api.post("/campaigns", campaign).await.id();
        api.post_text(&format!("/campaigns/{campaign}/recipients"), "text/csv", "email\nline.one@example.org\n").await.ok();
        api.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        eventually("a finished campaign", async || {
            let seen = api.get(&format!("/campaigns/{campaign}")).await.ok();
            (seen["state"] == "finished").then_some(())
        })
        .await;
        // What cannot be made names the variable; the data around it is nobody's business.
        let wants = json!({ "subject": "{{data.there}}", "html": "<p>{{data.not_there}}</p>", "classes": ["marketing", "service"] });
        api.put("/templates/wants", wants).await.ok();
        let data = json!({ "there": "data-secret" });
        let wanting = json!({ "brand": "acme", "topic": "alerts", "to": { "email": people[0] }, "template": "wants", "data": data });
        let refused = api.post("/messages", wanting).await;
        assert!(refused.is(422).text.contains("data.not_there"), "{}", refused.text);
        let wanting = json!({ "brand": "acme", "topic": "offers", "template": "wants", "data": data, "audience": { "all": true } });
        let wanting = api.post("/campaigns", wanting).await.id();
        api.get(&format!("/campaigns/{wanting}/preview?email={}", people[0])).await;
        api.post(&format!("/campaigns/{wanting}/test"), json!({ "to": [people[0]] })).await;
        api.post_empty(&format!("/campaigns/{wanting}/start")).await.ok();
        eventually("a campaign that fails", async || {
            let seen = api.get(&format!("/campaigns/{wanting}")).await.ok();
            (seen["state"] == "finished").then_some(())
        })
        .await;
        let failed = api.get(&format!("/campaigns/{wanting}/deliveries?state=failed")).await;
        assert!(failed.text.contains("data.not_there") && !failed.text.contains("data-secret"), "{}", failed.text);
        api.get(&format!("/campaigns/{campaign}/preview?email={}", people[0])).await.ok();
        api.post(&format!("/campaigns/{campaign}/test"), json!({ "to": [people[0]] })).await.is(202);
        let message = json!({ "brand": "acme", "topic": "alerts", "to": { "email": people[0] }, "template": "hello" });
        api.post("/messages", message).await.ok();
        let link = one_click_link(&smtp.wait_for_message_to(people[0]).await);
        let token = link.rsplit('/').next().unwrap().to_owned();
        api.page(&link).await.is(200);
        api.submit(&link, &[("page", "1")]).await.is(200);
        api.submit(&link, &[("page", "1"), ("undo", "1")]).await.is(200);
        api.one_click(&link).await.is(200);
        api.page(&format!("{}x?email={}", link, people[0])).await;
        for method in [Method::PUT, Method::DELETE, Method::OPTIONS] {
            Answer::of(api.anonymous().request(method, &link)).await;
        }
        for email in people {
            let body = json!({ "email": email, "scope": "all", "channel": "phone", "note": format!("{email} called") });
            api.post("/opt-outs", body).await;
            api.get(&format!("/opt-outs?email={email}")).await;
            api.get(&format!("/explain?email={email}&brand=acme&topic=offers")).await;
            api.get(&format!("/recipients?email={email}")).await;
            api.post("/opt-ins", json!({ "email": email, "scope": "all", "evidence": format!("mail of {email}") })).await;
            api.post("/opt-outs", json!({ "email": format!("{email}\r\n"), "scope": "all" })).await;
        }
        let export = api.get("/opt-outs/export?addresses=true").await;
        api.post_text("/opt-outs/import", "text/csv", export.text).await;
        let stray = "tk_strayprefix_straysecretstraysecret";
        api.with_key(stray).get("/campaigns").await.is(401);
        let metrics = Answer::of(api.request(Method::GET, "/metrics")).await.text;
        assert!(process.terminate().await.success());

        let logs = process.logs();
        assert!(logs.contains("TRACE") || logs.contains("DEBUG") || logs.contains("INFO"), "nothing was logged:\n{logs}");
        // No terminal: a line is a JSON object, and what is said of a delivery names it by its id and class alone.
        let lines: Vec<serde_json::Value> = logs.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let mut spans = lines.iter().map(|line| &line["span"]).filter(|span| span["name"] == "delivery");
        let span = spans.next().expect("a span a delivery");
        assert_eq!(span.as_object().unwrap().keys().collect::<Vec<_>>(), ["class", "id", "name"], "{span}");
        let link_secret = LINK_KEYS.split_once(':').unwrap().1;
        let mut secrets: Vec<&str> = people.to_vec();
        secrets.extend([
            "imported.one@", "broken address", "nd.json@", "nd2.json@", "line.one@", "gone.girl", "ada.quiet", "never.seen",
            "xn--bcher-kva", "Bücher.Wurm", "Quiet Person", token.as_str(), &token[..60], ADMIN_KEY, link_secret, stray,
            "straysecret", "relay-password", "AHJlbGF5", "store-password", "data-secret",
        ]);
        for secret in secrets {
            let found = logs.lines().find(|line| line.contains(secret));
            assert!(found.is_none(), "{secret} stands in a log line:\n{}", found.unwrap_or_default());
            assert!(!metrics.contains(secret), "{secret} stands in the metrics");
        }
        // The link says nothing readable about whom it concerns.
        let octets = URL_SAFE_NO_PAD.decode(&token).unwrap();
        let readable = String::from_utf8_lossy(&octets).to_lowercase();
        assert!(!readable.contains("quiet") && !readable.contains("example"), "{readable}");
    }
}
