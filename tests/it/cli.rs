//! The command line: what it prints, what it refuses, with which status.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tidings::clock::Timestamp;

use crate::harness::{
    ADMIN_KEY, Act, Database, LINK_KEYS, Process, SmtpServer, Stage, free_address, program, run_in, said,
    wait_until,
};
use crate::promises::make_ready;

fn in_empty_folder(arguments: &[&str], env: &[(&str, &str)]) -> std::process::Output {
    run_in(tempfile::tempdir().unwrap().path(), arguments, env)
}

/// Asserts a failure of this status whose complaint is one line and holds these words.
#[track_caller]
fn refused(arguments: &[&str], env: &[(&str, &str)], status: i32, words: &str) {
    let output = in_empty_folder(arguments, env);
    assert_eq!(output.status.code(), Some(status), "{arguments:?} {}", said(&output));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(complaint.lines().count(), 1, "one sentence, not: {complaint}");
    assert!(complaint.contains(words), "{words:?} is not in: {complaint}");
    assert!(output.stdout.is_empty(), "{}", said(&output));
}

#[test]
fn wrong_use_is_one_sentence_and_status_2() {
    refused(&["frobnicate"], &[], 2, "frobnicate");
    refused(&["opt-out", "a@example.com"], &[], 2, "--channel");
    refused(&["opt-out", "a@example.com", "--channel", "pigeon"], &[], 2, "pigeon");
    refused(&["opt-out", "nonsense", "--channel", "phone"], &[], 2, "name@example.com");
    refused(&["opt-out", "a@example.com", "--channel", "one_click"], &[], 2, "--channel");
    refused(&["opt-out", "a@example.com", "--topic", "t", "--channel", "phone"], &[], 2, "--brand");
    refused(&["import", "people.xlsx"], &[], 2, ".csv");
    let send = ["campaign", "send", "--brand", "b", "--topic", "t", "--template", "x"];
    refused(&send, &[], 2, "--recipients <FILE>|--all");
    refused(&send, &[], 2, "see `tidings campaign send --help`");
    refused(&["api-key", "create", "--name", "n", "--role", "king"], &[], 2, "king");
    for command in ["status", "unreachable"] {
        refused(&["notice", command, "abc"], &[], 2, "'abc' for '<ID>': it is no id; one has 36 characters");
    }
}

#[test]
fn a_failure_is_one_sentence_that_says_what_to_do_and_status_1() {
    refused(&["serve"], &[("TIDINGS_LISTN", "x")], 1, "TIDINGS_LISTN");
    refused(&["serve"], &[("TIDINGS_LISTEN", "here")], 1, "TIDINGS_LISTEN");
    refused(&["serve"], &[("TIDINGS_LINK_KEYS", "k:short")], 1, "TIDINGS_LINK_KEYS");
    refused(&["serve", "--only", "worker"], &[], 1, "TIDINGS_RELAY_URL");
    refused(&["serve", "--no-migrate"], &[("TIDINGS_LISTEN", &free_address())], 1, "tidings migrate");
    refused(
        &["serve"],
        &[("TIDINGS_DATABASE_URL", "sqlite:///no/such/folder/t.db")],
        1,
        "TIDINGS_DATABASE_URL",
    );
    refused(&["import", "absent.csv"], &[], 1, "tidings migrate");
    refused(&["migrate", "--config", "absent.toml"], &[], 1, "absent.toml");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_refuses_this_program_ends_its_start() {
    for (stage, words) in [(Stage::Greeting, "greeting: 554"), (Stage::Ehlo, "ehlo: 554")] {
        let relay = SmtpServer::start().await;
        relay.on(stage, Act::reply(554, "5.7.1 not from you"));
        let url = relay.url();
        let listen = free_address();
        tokio::task::block_in_place(|| {
            let env = [("TIDINGS_RELAY_URL", url.as_str()), ("TIDINGS_LISTEN", listen.as_str())];
            let output = in_empty_folder(&["serve"], &env);
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = complaint.lines().last().unwrap_or_default();
            assert!(last.contains(words) && last.contains("check TIDINGS_RELAY_URL"), "{complaint}");
        });
    }
}

#[test]
fn a_postgresql_that_has_no_such_database_says_so_in_its_own_words() {
    let server =
        std::env::var("TIDINGS_TEST_POSTGRES").expect("TIDINGS_TEST_POSTGRES is not set: run tests/run");
    let url = format!("{server}/no_such_database");
    refused(&["migrate"], &[("TIDINGS_DATABASE_URL", &url)], 1, "\"no_such_database\" does not exist;");
}

#[test]
fn a_port_in_use_and_a_relay_that_cannot_be_are_errors_that_say_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&["serve"], &[("TIDINGS_LISTEN", &address)], 1, &address);
    let env = [("TIDINGS_LISTEN", &*free_address()), ("TIDINGS_RELAY_URL", "smtp://mail.example.com")];
    refused(&["serve"], &env, 1, "plaintext=yes");
}

#[test]
fn every_command_explains_itself_and_names_nothing_that_is_not_built() {
    let output = in_empty_folder(&["--help"], &[]);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for command in [
        "demo", "serve", "migrate", "import", "campaign", "notice", "evidence", "opt-out", "explain", "key",
        "api-key",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing: {help}");
        assert!(in_empty_folder(&[command, "--help"], &[]).status.success(), "{command} --help");
    }
    for later in ["doctor", "inbound", "dkim"] {
        assert!(!help.contains(&format!("\n  {later}")), "{later} is not built");
    }
}

#[test]
fn a_new_link_key_is_printed_and_usable() {
    let output = in_empty_folder(&["key", "new", "--json"], &[]);
    let key: Value = serde_json::from_slice(&output.stdout).unwrap();
    tidings::link::KeyRing::parse(key["key"].as_str().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let migrated =
        run_in(folder.path(), &["migrate"], &[("TIDINGS_LINK_KEYS", key["key"].as_str().unwrap())]);
    assert!(migrated.status.success(), "{}", said(&migrated));
}

on_both! {
    async fn an_administrator_does_a_days_work_on_the_command_line(database: Database) {
        let process = Process::serve(&database, &[], &[]).await;
        let api = &process.api;
        let brand = serde_json::json!({
            "name": "Acme", "from": "Acme <news@acme.example.com>", "postal_address": "1 Main Street",
        });
        api.put("/brands/acme", brand).await.ok();
        api.put("/brands/acme/topics/offers", serde_json::json!({ "name": "Offers", "class": "marketing" })).await.ok();
        let template = serde_json::json!({ "subject": "{{data.what}}", "html": "<p>{{name}}: {{data.what}}</p>" });
        api.put("/templates/hello", template).await.ok();

        let folder = tempfile::tempdir().unwrap();
        let url = database.url();
        let env = [("TIDINGS_DATABASE_URL", url.as_str()), ("TIDINGS_LINK_KEYS", LINK_KEYS), ("USER", "dora")];
        let run = async |arguments: &[&str]| {
            let mut command = program();
            command.args(arguments).envs(env).current_dir(folder.path());
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
        };
        let json = async |arguments: &[&str]| -> Value {
            let output = run(arguments).await;
            assert!(output.status.success(), "{arguments:?} {}", said(&output));
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", said(&output)))
        };

        std::fs::write(folder.path().join("people.csv"), "email,name\na@example.com,A\nbroken,B\nc@example.com,C\n").unwrap();
        let report = json(&["import", "people.csv", "--json"]).await;
        assert_eq!((&report["created"], &report["rejected"]), (&2.into(), &1.into()), "{report}");
        assert_eq!(report["errors"][0]["line"], 3);

        let out = json(&["opt-out", "a@example.com", "--channel", "phone", "--note", "by telephone", "--json"]).await;
        assert_eq!((&out["settled"], &out["scope"]), (&true.into(), &"all".into()), "{out}");
        let why = json(&["explain", "A@Example.com", "--brand", "acme", "--topic", "offers", "--json"]).await;
        assert_eq!(why["decision"], "suppress", "{why}");
        let why = json(&["explain", "c@example.com", "--brand", "acme", "--topic", "offers", "--json"]).await;
        assert_eq!(why["decision"], "send", "{why}");

        let send = ["campaign", "send", "--brand", "acme", "--topic", "offers", "--template", "hello"];
        let all = [&send[..], &["--all", "--data", r#"{"what": "Sale"}"#, "--watch", "--json"]].concat();
        let sent = json(&all).await;
        assert_eq!((&sent["state"], &sent["counts"]["sent"]), (&"finished".into(), &1.into()), "{sent}");
        assert_eq!(sent["counts"]["suppressed"], 1, "{sent}");
        std::fs::write(folder.path().join("some.csv"), "email,name,what\nd@example.com,D,Yours\na@example.com,A,Theirs\n").unwrap();
        let some = json(&[&send[..], &["--recipients", "some.csv", "--watch", "--json"]].concat()).await;
        assert_eq!((&some["counts"]["sent"], &some["counts"]["suppressed"]), (&1.into(), &1.into()), "{some}");

        let made = json(&["api-key", "create", "--name", "shop", "--role", "marketer", "--brand", "acme", "--json"]).await;
        let key = made["key"].as_str().unwrap();
        api.with_key(key).get("/campaigns").await.ok();
        let listed = json(&["api-key", "list", "--json"]).await;
        assert_eq!((&listed[0]["name"], &listed[0]["created_by"]), (&"shop".into(), &"cli:dora".into()), "{listed}");
        assert!(!listed.to_string().contains(key), "a list shows no secret");
        json(&["api-key", "revoke", made["id"].as_str().unwrap(), "--json"]).await;
        api.with_key(key).get("/campaigns").await.problem(401);
        let again = run(&["api-key", "revoke", "nobody"]).await;
        assert_eq!(again.status.code(), Some(1), "{}", said(&again));
        assert!(!process.logs().contains(ADMIN_KEY) && !process.logs().contains("example.com"), "{}", process.logs());
    }

    async fn a_watched_campaign_says_that_no_worker_is_alive_and_ends_when_one_has_sent_it(database: Database) {
        let smtp = SmtpServer::start().await;
        let relay = smtp.url();
        let web = Process::serve(&database, &["--only", "web"], &[("TIDINGS_RELAY_URL", &relay)]).await;
        make_ready(&web.api).await;
        web.api.post("/recipients", serde_json::json!({ "email": "a@example.com" })).await.ok();
        let mut command = program();
        command.args(["campaign", "send", "--brand", "acme", "--topic", "offers", "--template", "hello", "--all", "--watch"]);
        command.env("TIDINGS_DATABASE_URL", database.url()).env("TIDINGS_LINK_KEYS", LINK_KEYS);
        let folder = tempfile::tempdir().unwrap();
        let mut child = command.current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = child.stderr.take().unwrap();
        let first = tokio::task::spawn_blocking(move || BufReader::new(said).lines().next());
        let first = first.await.unwrap().unwrap().unwrap();
        assert!(first.contains("No worker is alive") && first.contains("tidings serve"), "{first}");
        let worker = Process::serve(&database, &["--only", "worker"], &[("TIDINGS_RELAY_URL", &relay)]).await;
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && words.contains("finished: 1 messages, 1 sent"), "{words}");
        drop((web, worker));
    }

    async fn a_watched_notice_ends_once_everyone_was_tried(database: Database) {
        let smtp = SmtpServer::start().await;
        smtp.on(Stage::Rcpt, Act::reply(450, "4.2.1 later")).to("p1@example.com");
        let process = Process::serve(&database, &[], &[("TIDINGS_RELAY_URL", &smtp.url())]).await;
        let api = &process.api;
        make_ready(api).await;
        api.put("/policies/privacy", serde_json::json!({ "brand": "acme", "title": "Privacy" })).await.ok();
        for n in 0..3 {
            api.post("/recipients", serde_json::json!({ "email": format!("p{n}@example.com") })).await.ok();
        }
        let folder = tempfile::tempdir().unwrap();
        let publish = async |text: &str, more: &[&str]| {
            std::fs::write(folder.path().join("privacy.md"), text).unwrap();
            let mut command = program();
            command.args(["notice", "publish", "--policy", "privacy", "--file", "privacy.md", "--summary", "Data is kept."]);
            command.args(["--change", "material"]).args(more).current_dir(folder.path());
            command.env("TIDINGS_DATABASE_URL", database.url()).env("TIDINGS_LINK_KEYS", LINK_KEYS);
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            assert!(output.status.success(), "{}", said(&output));
            output
        };
        publish("# Privacy", &[]).await;
        let output = publish("# Privacy\n\nMore.", &["--effective", "2040-01-31T00:00:00+01:00", "--watch"]).await;
        let words = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(words.0.contains("2 of 3 people told, 1 wait"), "{words:?}");
        assert!(words.1.contains("Everyone was tried once; 1 of them could not be told yet"), "{words:?}");
    }

    async fn a_change_is_looked_at_and_announced_on_the_command_line(database: Database) {
        let process = Process::serve(&database, &[], &[]).await;
        let api = &process.api;
        make_ready(api).await;
        api.put("/policies/privacy", serde_json::json!({ "brand": "acme", "title": "Privacy" })).await.ok();
        for n in 0..3 {
            api.post("/recipients", serde_json::json!({ "email": format!("p{n}@example.com") })).await.ok();
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("privacy.md"), "# Privacy\n\nWe keep data.\n").unwrap();
        let publish = async |more: &[&str]| {
            let mut command = program();
            command.args(["notice", "publish", "--policy", "privacy", "--file", "privacy.md", "--summary", "Data is kept."]);
            command.args(more).current_dir(folder.path());
            command.env("TIDINGS_DATABASE_URL", database.url()).env("TIDINGS_LINK_KEYS", LINK_KEYS);
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
        };
        let words = |output: &std::process::Output| {
            assert!(output.status.success(), "{}", said(output));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        words(&publish(&["--change", "material"]).await);
        let adverse = ["--change", "adverse", "--effective", "2040-01-31T00:00:00Z"];

        let looked = words(&publish(&[&adverse[..], &["--dry-run"]].concat()).await);
        assert!(looked.contains("Version 2 of privacy is for 3 people") && looked.contains("in time"), "{looked}");
        let looked = words(&publish(&[&adverse[..], &["--dry-run", "--json"]].concat()).await);
        let looked: Value = serde_json::from_str(&looked).unwrap();
        assert_eq!((&looked["forecast"]["people"], &looked["version"]["number"]), (&3.into(), &2.into()), "{looked}");
        assert_eq!(api.get("/notices").await.ok()["items"], serde_json::json!([]), "looking publishes nothing");
        assert_eq!(api.get("/policies/privacy/versions").await.ok()["items"].as_array().unwrap().len(), 1);

        let told = words(&publish(&[&adverse[..], &["--watch"]].concat()).await);
        assert!(told.starts_with("Version 2 of privacy is for 3 people"), "{told}");
        assert!(told.contains("3 of 3 people told") && told.contains("in time"), "{told}");
        // Asked for twice, it is there once.
        let again = words(&publish(&[&adverse[..], &["--watch"]].concat()).await);
        assert!(again.starts_with("Version 2 of privacy says just this already") && again.contains("3 of 3 people told"), "{again}");
        assert!(again.contains("is running"), "{again}");
        assert_eq!(api.get("/notices").await.ok()["items"].as_array().unwrap().len(), 1);
        std::fs::write(folder.path().join("privacy.md"), "# Privacy\n\nWe keep more data.\n").unwrap();
        let looked = words(&publish(&[&adverse[..], &["--dry-run"]].concat()).await);
        assert!(looked.contains("Version 2 takes no answers any more"), "{looked}");
        let minor = ["--change", "minor", "--effective", "2040-01-31T00:00:00Z", "--dry-run"];
        assert!(words(&publish(&minor).await).contains("would be mailed to nobody"));

        std::fs::write(folder.path().join("privacy.de.md"), "# Datenschutz").unwrap();
        let german = ["--translation", "de", "privacy.de.md", "Datenschutz", ""];
        let lacking = publish(&[&adverse[..], &german].concat()).await;
        assert!(String::from_utf8_lossy(&lacking.stderr).contains("--translation de, summary: "), "{}", said(&lacking));
        let twice = publish(&[&adverse[..], &german, &german].concat()).await;
        assert!(said(&twice).contains("--translation de is there twice"), "{}", said(&twice));
        let silent = [&adverse[..], &["--approval", "none"]].concat();
        let unasked = publish(&silent).await;
        assert!(String::from_utf8_lossy(&unasked.stderr).contains("--override-reason"), "{}", said(&unasked));
        let german = ["--translation", "de", "privacy.de.md", "Datenschutz", "Daten bleiben.", "--override-reason", "The law asks."];
        let said_of_it = words(&publish(&[&silent[..], &german].concat()).await);
        assert!(said_of_it.contains("is running.") && said_of_it.contains("takes effect on 2040-01-31"), "{said_of_it}");
        let third = api.get("/policies/privacy/versions/3").await.ok();
        assert_eq!((&third["approval"], &third["texts"]["de"]["title"]), (&"none".into(), &"Datenschutz".into()), "{third}");
        assert_eq!(third["texts"]["de"]["summary"], "Daten bleiben.");

        let near = publish(&["--change", "material", "--effective", "2026-01-01T00:00:00Z", "--dry-run"]).await;
        let complaint = String::from_utf8_lossy(&near.stderr).into_owned();
        assert_eq!(near.status.code(), Some(1), "{}", said(&near));
        assert!(complaint.contains("--effective"), "{complaint}");
    }

    async fn what_is_said_of_a_notice_fits_how_it_stands(database: Database) {
        let process = Process::serve(&database, &[], &[]).await;
        let api = &process.api;
        make_ready(api).await;
        let policy = serde_json::json!({ "brand": "acme", "title": "Privacy", "lead_time_days": 0 });
        api.put("/policies/privacy", policy).await.ok();
        let folder = tempfile::tempdir().unwrap();
        let run = async |args: &[&str]| {
            let mut command = program();
            command.arg("notice").args(args).current_dir(folder.path());
            command.env("TIDINGS_DATABASE_URL", database.url()).env("TIDINGS_LINK_KEYS", LINK_KEYS);
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            assert!(output.status.success(), "{}", said(&output));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let publish = async |text: &str, more: &[&str]| {
            std::fs::write(folder.path().join("privacy.md"), text).unwrap();
            let all = ["publish", "--policy", "privacy", "--file", "privacy.md", "--summary", "S", "--change", "material"];
            run(&[&all[..], more].concat()).await
        };
        publish("# One", &[]).await;
        let soon = Timestamp::now().plus(Duration::from_secs(6)).to_string();
        let effective = ["--effective", &soon];
        publish("# Two", &effective).await;
        wait_until("the day", async || api.get("/notices").await.ok()["items"][0]["state"] == "in_effect").await;
        let again = publish("# Two", &effective).await;
        assert!(again.contains("has taken effect.") && again.contains("in_effect: took effect"), "{again}");
        publish("# Three", &["--effective", "2040-01-31T00:00:00Z"]).await;
        let notices = api.get("/notices").await.ok()["items"].as_array().unwrap().clone();
        let id = notices.iter().find(|notice| notice["state"] == "running").unwrap()["id"].as_str().unwrap();
        api.post(&format!("/notices/{id}/withdraw"), serde_json::json!({ "reason": "Not at all." })).await.ok();
        let status = run(&["status", id]).await;
        assert!(status.contains("withdrawn: was to take effect on 2040-01-31"), "{status}");
        assert!(!status.contains("in time") && !status.contains("is to be told"), "{status}");
    }
}
