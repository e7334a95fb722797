//! The promises of the front page, each by its number, as whole journeys.

use std::time::Duration;

use reqwest::Method;
use sea_orm::{ConnectionTrait, Statement};
use secrecy::SecretString;
use serde_json::json;
use tidings::link::KeyRing;

use crate::harness::{
    Act, Answer, Api, Database, Gate, Process, SmtpServer, Stage, Tidings, one_click_link, wait_until,
};
use crate::unsubscribe_page::{ADA, decision, said};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The path of a link, whatever host it names.
fn path_of(link: &str) -> String {
    url::Url::parse(link).unwrap().path().to_owned()
}

pub(crate) async fn sql(tidings: &Tidings, statement: &str) {
    let txn = tidings.app().db.begin().await.unwrap();
    txn.execute_unprepared(statement).await.unwrap();
    txn.commit().await.unwrap();
}

/// How many rows a table has.
pub(crate) async fn count(tidings: &Tidings, table: &str) -> i64 {
    let db = &tidings.app().db;
    let statement = Statement::from_string(db.backend(), format!("SELECT count(*) AS n FROM {table}"));
    db.reads().query_one_raw(statement).await.unwrap().unwrap().try_get("", "n").unwrap()
}

on_both! {
    async fn promise_1_a_click_during_a_campaign_names_what_was_begun_and_nothing_begins_after_its_answer(database: Database) {
        let tidings = Tidings::start_with(database, |settings| settings.opt_out_wait = Duration::from_millis(300)).await;
        tidings.ready_to_send().await;
        tidings.recipient(ADA).await;
        let link = one_click_link(&tidings.mail_of("acme", "marketing", ADA).await);
        let gate = Gate::new();
        tidings.smtp.on(Stage::FinalDot, Act::Stall(gate.clone())).once();
        let begun = tidings.message("acme", "marketing", ADA).await;
        gate.reached().await;
        let queued = tidings.draft("acme", "reminder").await;
        // The relay has the message and does not answer: the bound passes, and the answer names it.
        let click = tidings.anonymous().request(Method::POST, &link).header("accept", "application/json");
        let answer = Answer::of(click).await.is(200).json();
        assert_eq!(answer["settled"], false, "{answer}");
        assert_eq!(answer["in_flight"][0]["delivery"], begun, "{answer}");
        assert_eq!(answer["in_flight"][0]["topic"], "marketing", "{answer}");
        let page = tidings.submit(&link, &[("page", "1")]).await;
        assert!(page.is(200).text.contains("On its way already"), "{}", page.text);
        gate.open();
        assert_eq!(tidings.settled(&begun).await["state"], "sent");
        // From here on the same answer is a clean one, and a campaign leaves the person out.
        let again = tidings.anonymous().request(Method::POST, &link).header("accept", "application/json");
        assert_eq!(Answer::of(again).await.is(200).json()["settled"], true);
        tidings.post_empty(&format!("/campaigns/{queued}/start")).await.ok();
        let campaign = tidings.finished(&queued).await;
        assert_eq!(campaign["counts"]["suppressed"], 1, "{campaign}");
        tidings.mail_of("acme", "service", ADA).await;
        assert_eq!(tidings.smtp.messages_to(ADA).len(), 3);
        tidings.stop().await;
    }

    async fn promise_1_what_was_begun_behind_a_slow_message_is_asked_about_again_before_its_envelope(database: Database) {
        let tidings = Tidings::start_with(database, |settings| {
            settings.opt_out_wait = Duration::from_secs(2);
            settings.worker_connections = 1;
        })
        .await;
        tidings.ready_to_send().await;
        tidings.recipients(5).await;
        let (first, slow) = (Gate::new(), Gate::new());
        tidings.smtp.on(Stage::FinalDot, Act::Stall(first.clone())).once();
        let campaign = tidings.draft("acme", "marketing").await;
        tidings.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        first.reached().await;
        tidings.smtp.on(Stage::FinalDot, Act::Stall(slow.clone())).once();
        first.open();
        slow.reached().await;
        let under_way = tidings.smtp.transactions().last().unwrap().to[0].clone();
        let begun = "SELECT r.address FROM queue q JOIN deliveries d ON d.id = q.delivery_id \
                     JOIN recipients r ON r.id = d.recipient_id WHERE q.begun AND r.address <> $1";
        let db = &tidings.app().db;
        let begun = Statement::from_sql_and_values(db.backend(), begun, [under_way.into()]);
        let behind: String = db.reads().query_one_raw(begun).await.unwrap().unwrap().try_get("", "address").unwrap();
        let answer = tidings.post("/opt-outs", json!({ "email": behind, "scope": "all", "channel": "phone" })).await;
        let answer = answer.is(201).json();
        assert_eq!((&answer["settled"], &answer["in_flight"][0]["state"]), (&json!(false), &json!("sending")), "{answer}");
        slow.open();
        let counts = tidings.finished(&campaign).await["counts"].clone();
        assert_eq!((&counts["sent"], &counts["suppressed"]), (&json!(4), &json!(1)), "{counts}");
        assert!(tidings.smtp.transactions().iter().all(|one| !one.to.contains(&behind)), "no envelope after the answer");
        tidings.stop().await;
    }

    async fn promise_4_get_and_head_of_every_public_page_change_nothing_and_links_work_again_and_again(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipient(ADA).await;
        let mail = tidings.mail_of("acme", "marketing", ADA).await;
        let link = one_click_link(&mail);
        let tables = ["opt_events", "suppressions", "addresses", "recipients", "deliveries", "audit"];
        let mut before = Vec::new();
        for table in tables {
            before.push(count(&tidings, table).await);
        }
        for path in [link.as_str(), "/u/forged", "/healthz", "/readyz"] {
            for method in [Method::GET, Method::HEAD] {
                Answer::of(tidings.anonymous().request(method, path)).await;
            }
        }
        let mut after = Vec::new();
        for table in tables {
            after.push(count(&tidings, table).await);
        }
        assert_eq!(before, after);
        for _ in 0..3 {
            tidings.one_click(&link).await.is(200);
            tidings.page(&link).await.is(200);
        }
        tidings.stop().await;
    }

    async fn promise_5_a_link_works_after_three_rotations_two_years_and_the_loss_of_every_row_about_the_person(database: Database) {
        let mut tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let people = ["one@example.org", "two@example.org", "three@example.org"];
        let mut links = Vec::new();
        let mut keys = crate::harness::LINK_KEYS.to_owned();
        for email in people {
            tidings.recipient(email).await;
            links.push(path_of(&one_click_link(&tidings.mail_of("acme", "marketing", email).await)));
            keys = format!("{},{keys}", KeyRing::new_key());
            let ring = keys.clone();
            tidings.restart_with(|settings| settings.link_keys = Some(SecretString::from(ring))).await;
        }
        tidings.advance(2 * 365 * DAY);
        // Erased: only the hash of the address is left of the first; of the second not even the row.
        sql(&tidings, "UPDATE recipients SET address = NULL, folded = NULL, name = NULL, standing = 'erased' WHERE folded = 'one@example.org'").await;
        for statement in [
            "DELETE FROM attempts",
            "DELETE FROM deliveries",
            "DELETE FROM recipient_brands WHERE recipient_id IN (SELECT id FROM recipients WHERE folded = 'two@example.org')",
            "DELETE FROM recipients WHERE folded = 'two@example.org'",
        ] {
            sql(&tidings, statement).await;
        }
        for (email, link) in people.iter().zip(&links) {
            tidings.page(link).await.is(200);
            tidings.one_click(link).await.is(200);
            assert_eq!(decision(&tidings, "marketing", email).await, "suppress", "{email}");
        }
        tidings.stop().await;
    }

    async fn promise_6_forgetting_a_person_does_not_forget_their_no(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        tidings.recipient(ADA).await;
        tidings.post("/opt-outs", json!({ "email": ADA, "scope": "all", "channel": "letter" })).await.is(201);
        sql(&tidings, "DELETE FROM recipient_brands").await;
        sql(&tidings, "DELETE FROM recipients").await;
        tidings.recipient(ADA).await;
        assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
        let campaign = tidings.send_to_all("acme", "marketing").await;
        assert_eq!(campaign["counts"]["suppressed"], 1, "{campaign}");
        assert_eq!(tidings.smtp.count(), 0);
        tidings.stop().await;
    }

    async fn promise_7_no_import_upsert_or_campaign_line_lifts_an_opt_out(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        let id = tidings.recipient(ADA).await;
        tidings.post("/opt-outs", json!({ "email": ADA, "scope": "all", "channel": "phone" })).await.is(201);
        let said_before = said(&tidings, ADA).await;
        let upsert = json!({ "email": "ADA.lovelace@EXAMPLE.org", "name": "Ada", "brands": ["acme"], "tags": ["vip"], "attributes": { "opted_in": "yes" } });
        tidings.post("/recipients", upsert).await.ok();
        tidings.post_text("/recipients/import", "text/csv", format!("email,name,consent\n{ADA},Ada,yes\n")).await.ok();
        tidings.patch(&format!("/recipients/{id}"), json!({ "name": "Ada L." })).await.ok();
        tidings.post_text("/opt-outs/import", "text/csv", format!("{ADA}\n")).await.ok();
        let draft = json!({ "brand": "acme", "topic": "marketing", "template": "hello" });
        let campaign = tidings.post("/campaigns", draft).await.id();
        let lines = format!("{{\"email\": \"{ADA}\"}}\n");
        tidings.post_text(&format!("/campaigns/{campaign}/recipients"), "application/x-ndjson", lines).await.ok();
        tidings.post_empty(&format!("/campaigns/{campaign}/start")).await.ok();
        let campaign = tidings.finished(&campaign).await;
        assert_eq!(campaign["counts"]["suppressed"], 1, "{campaign}");
        assert_eq!(said(&tidings, ADA).await, said_before);
        assert_eq!(tidings.smtp.count(), 0);
        tidings.mail_of("acme", "service", ADA).await;
        tidings.stop().await;
    }

    async fn promise_8_a_store_that_cannot_commit_is_a_503_and_never_a_success(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.brand_with_every_class("acme").await;
        tidings.recipient(ADA).await;
        let path = crate::unsubscribe_page::path(&tidings, "marketing", ADA).await;
        let body = json!({ "email": ADA, "scope": "all", "channel": "phone" });
        let store = Store::take_away(&tidings.database).await;
        let click = tidings.one_click(&path).await;
        assert!(click.is(503).text.contains("not saved"), "{}", click.text);
        assert!(!click.header("retry-after").is_empty());
        let json = tidings.anonymous().request(Method::POST, &path).header("accept", "application/json");
        Answer::of(json).await.problem(503);
        tidings.post("/opt-outs", body.clone()).await.problem(503);
        store.give_back().await;
        wait_until("the store to be found again", async || {
            tidings.get(&format!("/opt-outs?email={ADA}")).await.status == 200
        })
        .await;
        tidings.one_click(&path).await.is(200);
        assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
        tidings.stop().await;
    }

    async fn promise_8_a_kill_right_after_the_answer_loses_nothing(database: Database) {
        let smtp = SmtpServer::start().await;
        let url = smtp.url();
        let env = [("TIDINGS_RELAY_URL", url.as_str())];
        let mut process = Process::serve(&database, &[], &env).await;
        make_ready(&process.api).await;
        let mut ids = Vec::new();
        for n in 0..4 {
            let email = format!("p{n}@example.org");
            let message = json!({ "brand": "acme", "topic": "offers", "to": { "email": email }, "template": "hello" });
            process.api.post("/messages", message).await.ok();
            let link = path_of(&one_click_link(&smtp.wait_for_message_to(&email).await));
            let click = process.api.anonymous().request(Method::POST, &link).header("accept", "application/json");
            ids.push((email.clone(), Answer::of(click).await.is(200).id()));
            process.kill();
            process = Process::serve(&database, &[], &env).await;
            for (email, id) in &ids {
                let said = process.api.get(&format!("/opt-outs?email={email}")).await.ok();
                let known: Vec<_> = said["items"].as_array().unwrap().iter().map(|event| &event["id"]).collect();
                assert!(known.contains(&&json!(id)), "{said}");
            }
        }
        assert!(process.terminate().await.success());
    }
}

/// A brand `acme`, its topics `offers` and `alerts`, and a template.
pub(crate) async fn make_ready(api: &Api) {
    let brand =
        json!({ "name": "Acme", "from": "Acme <news@acme.example.com>", "postal_address": "1 Main Street" });
    api.put("/brands/acme", brand).await.ok();
    api.put("/brands/acme/topics/offers", json!({ "name": "Offers", "class": "marketing" })).await.ok();
    api.put("/brands/acme/topics/alerts", json!({ "name": "Alerts", "class": "service" })).await.ok();
    let template = json!({
        "subject": "Hello {{name}}", "html": "<p>Hello {{name}}</p>", "classes": ["marketing", "service"],
    });
    api.put("/templates/hello", template).await.ok();
}

/// A store that somebody else has locked (SQLite), or that takes no connections (PostgreSQL).
pub(crate) enum Store {
    Sqlite(sea_orm::DatabaseConnection),
    Postgres(sea_orm::DatabaseConnection, String),
}

impl Store {
    pub(crate) async fn take_away(database: &Database) -> Self {
        let connect = async |url: String| {
            let mut options = sea_orm::ConnectOptions::new(url);
            options.max_connections(1).sqlx_logging(false);
            sea_orm::Database::connect(options).await.unwrap()
        };
        match database {
            Database::Sqlite(_) => {
                let connection = connect(database.url()).await;
                connection.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
                Self::Sqlite(connection)
            }
            Database::Postgres { url, name } => {
                let mut server = url::Url::parse(url).unwrap();
                server.set_path("postgres");
                let server = connect(server.into()).await;
                let cut = format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false");
                server.execute_unprepared(&cut).await.unwrap();
                let end = format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
                );
                server.execute_unprepared(&end).await.unwrap();
                Self::Postgres(server, name.clone())
            }
        }
    }

    pub(crate) async fn give_back(self) {
        match self {
            Self::Sqlite(connection) => {
                connection.execute_unprepared("ROLLBACK").await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres(server, name) => {
                let allow = format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true");
                server.execute_unprepared(&allow).await.unwrap();
                server.close().await.unwrap();
            }
        }
    }
}
