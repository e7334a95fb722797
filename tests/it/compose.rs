//! The container files: what can be said of them without a container engine.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tidings::config::NAMES;

use crate::harness::{source, tools};

/// What the compose file says.
fn compose() -> Value {
    let mut parser = Command::new(tools::folder().join("venv/bin/python"));
    parser.args(["-c", "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"]);
    tools::run_json(parser, fs::read(source().join("docker-compose.yml")).unwrap())
}

fn names(of: &Value) -> Vec<&String> {
    of.as_object().unwrap().keys().collect()
}

#[test]
fn the_compose_file_sets_only_settings_that_there_are() {
    let compose = compose();
    let mut set = 0;
    for (service, is) in compose["services"].as_object().unwrap() {
        for name in is["environment"].as_object().map(|all| all.keys()).into_iter().flatten() {
            if let Some(name) = name.strip_prefix("TIDINGS_") {
                assert!(
                    NAMES.contains(&name.to_ascii_lowercase().as_str()),
                    "{service}: {name} is no setting"
                );
                set += 1;
            }
        }
    }
    assert!(set >= 15, "{set} settings");
}

#[test]
fn the_compose_file_starts_each_service_when_those_it_needs_are_ready() {
    let compose = compose();
    let services = &compose["services"];
    assert_eq!(names(services), ["mail", "migrate", "postgres", "proxy", "web", "worker"]);
    for (service, is) in services.as_object().unwrap() {
        for (needed, on) in is["depends_on"].as_object().into_iter().flatten() {
            let needed = &services[needed];
            match on["condition"].as_str().unwrap() {
                "service_healthy" => assert!(needed["healthcheck"]["test"].is_array(), "{service}: {on}"),
                "service_completed_successfully" => assert_eq!(needed["restart"], "no", "{service}: {on}"),
                other => panic!("{service}: {other}"),
            }
        }
        for volume in is["volumes"].as_array().into_iter().flatten() {
            let name = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(compose["volumes"].as_object().unwrap().contains_key(name), "{service}: {name}");
        }
        for config in is["configs"].as_array().into_iter().flatten() {
            assert!(
                compose["configs"][config["source"].as_str().unwrap()]["content"].is_string(),
                "{service}"
            );
        }
    }
}

#[test]
fn the_compose_file_lets_web_and_worker_be_scaled() {
    let compose = compose();
    for service in ["web", "worker"] {
        let service = &compose["services"][service];
        assert!(service["deploy"]["replicas"].as_u64().unwrap() >= 2);
        // A name or a port of this machine can be had once.
        assert!(service["container_name"].is_null() && service["ports"].is_null(), "{service}");
        assert!(service["command"].as_array().unwrap().contains(&json!("--no-migrate")), "{service}");
        assert_eq!(service["stop_grace_period"], "11m", "the relay may take ten minutes");
    }
    // Whoever comes through the proxy is told apart by what it says, and it alone is believed.
    let trusted = &compose["services"]["web"]["environment"]["TIDINGS_TRUSTED_PROXIES"];
    assert_eq!(trusted, &compose["networks"]["default"]["ipam"]["config"][0]["subnet"]);
    let proxy = compose["configs"]["proxy"]["content"].as_str().unwrap();
    assert!(proxy.contains("$$web") && !proxy.replace("$$", "").contains('$'), "compose takes $ for itself");
    assert!(proxy.contains("access_log off"), "paths below /u/ are personal");
    assert_eq!(proxy.matches('{').count(), proxy.matches('}').count());
}

#[test]
fn the_image_copies_only_what_is_there_and_runs_as_nobody_special() {
    let dockerfile = fs::read_to_string(source().join("Dockerfile")).unwrap();
    let ignored = fs::read_to_string(source().join(".dockerignore")).unwrap();
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        for from in &words[..words.len() - 1] {
            assert!(source().join(from).exists(), "{from} is not there");
            assert!(ignored.contains(&format!("!{from}")), "{from} is ignored");
        }
    }
    let last = dockerfile.rsplit("FROM ").next().unwrap();
    assert!(last.contains("USER tidings"), "the program must not run as root");
}
