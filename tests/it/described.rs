//! The API against its own description: judged by a validator, by a linter, and by calls without number that schemathesis
//! makes up from it.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Answer, Database, Tidings, said, source, tools};

/// What is there to be called about; gives the configuration that names it.
async fn seeded(tidings: &Tidings) -> String {
    tidings.brand("acme").await;
    tidings.brand("doomed").await;
    tidings.topic("acme", "offers", "marketing").await;
    tidings.topic("acme", "alerts", "service").await;
    tidings.topic("doomed", "doomed", "marketing").await;
    let template = json!({ "subject": "Hi", "html": "<p>Hi</p>" });
    tidings.put("/templates/hello", template.clone()).await.ok();
    tidings.put("/templates/doomed", template).await.ok();
    let alert = json!({ "subject": "Hi", "html": "<p>Hi</p>", "classes": ["service"] });
    tidings.put("/templates/alert", alert).await.ok();
    tidings.put("/policies/privacy", json!({ "brand": "acme", "title": "Privacy" })).await.ok();
    let version =
        json!({ "body_markdown": "# Privacy", "change": "material", "summary": "How we keep data." });
    tidings.post("/policies/privacy/versions", version).await.ok();
    let recipient = tidings.recipient("ada@people.example.com").await;
    tidings.recipients(20).await;
    let message = json!({
        "brand": "acme", "topic": "alerts", "to": { "email": "ada@people.example.com" }, "template": "alert",
    });
    let message = tidings.post("/messages", message).await.id();
    let campaign = tidings.draft("acme", "offers").await;
    tidings
        .post_text(
            &format!("/campaigns/{campaign}/recipients"),
            "text/csv",
            "email\nada@people.example.com\n",
        )
        .await
        .ok();
    let told = std::fs::read_to_string(source().join("tests/tools/schemathesis.toml")).unwrap();
    let ids = [("campaigns", campaign), ("messages", message), ("recipients", recipient)];
    let mut config = told;
    for (what, id) in ids {
        // What is deleted is what schemathesis makes itself.
        config += &format!(
            "\n[dictionaries.{what}]\nvalues = [\"{id}\"]\n\n[[operations]]\ninclude-path-regex = \"/{what}/\\\\{{id\\\\}}\"\n\
             exclude-method = \"DELETE\"\nparameters.\"path.id\" = {{ dictionary = \"{what}\", probability = 0.6 }}\n"
        );
    }
    config
}

on_both! {
    async fn the_api_does_what_its_description_says_whatever_is_sent(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("schemathesis.toml");
        std::fs::write(&config, seeded(&tidings).await).unwrap();
        let mut command = Command::new(tools::folder().join("venv/bin/st"));
        command
            .arg("--config-file").arg(&config)
            .args(["run", &format!("{}/api/openapi.json", tidings.base), "--no-color"])
            .args(["--header", &format!("Authorization: Bearer {ADMIN_KEY}")])
            .env("PYTHONPATH", source().join("tests/tools"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(folder.path());
        let run = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let words = said(&run);
        assert!(run.status.success(), "{words}");
        // Every phase, and every call of the description.
        for phase in ["Coverage", "Fuzzing", "Stateful"] {
            assert!(words.contains(&format!("✅ {phase}")), "{phase} did not run: {words}");
        }
        tidings.stop().await;
    }
}

/// The description as it is served, and where it lies for a tool to read.
async fn description(folder: &Path) -> (Value, std::path::PathBuf) {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    let answer = Answer::of(tidings.request(Method::GET, "/api/openapi.json")).await;
    let file = folder.join("openapi.json");
    std::fs::write(&file, &answer.text).unwrap();
    tidings.stop().await;
    (answer.json(), file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_and_a_linter_find_nothing_in_the_description() {
    let folder = tempfile::tempdir().unwrap();
    let (_, file) = description(folder.path()).await;
    let mut validator = Command::new(tools::folder().join("venv/bin/openapi-spec-validator"));
    validator.args(["--errors", "all"]).arg(&file);
    tools::run(validator, "");
    let mut linter = Command::new(tools::folder().join("bin/node"));
    linter
        .arg(tools::folder().join("node_modules/@redocly/cli/bin/cli.js"))
        .arg("lint")
        .arg("--config")
        .arg(source().join("tests/tools/redocly.yaml"))
        .arg(&file)
        .env("REDOCLY_TELEMETRY", "off")
        .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true")
        .current_dir(folder.path());
    let words = said(&tools::run(linter, ""));
    assert!(words.contains("is valid") && !words.contains("warning"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_that_is_written_down_is_in_the_description() {
    let folder = tempfile::tempdir().unwrap();
    let (described, _) = description(folder.path()).await;
    let limits: Value = serde_json::from_str(include_str!("../../src/web/openapi/fields.json")).unwrap();
    for (schema, fields) in limits["schemas"].as_object().unwrap() {
        for (path, kind) in fields.as_object().unwrap() {
            let field = &described["components"]["schemas"][schema].pointer(&format!("/{path}"));
            let field = field.unwrap_or_else(|| panic!("{schema} has no {path}"));
            let kind = limits["kinds"][kind.as_str().unwrap()].as_object().expect("a kind that is there");
            for (name, value) in kind {
                assert_eq!(&field[name], value, "{schema} {path}");
            }
        }
    }
    let text = described.to_string();
    for (name, _) in limits["parameters"].as_object().unwrap() {
        assert!(text.contains(&format!("\"name\":\"{name}\"")), "no call takes {name}");
    }
}
