//! The container files: what can be said of them without a container engine.

use std::fs;

use tidings::config::NAMES;

use crate::harness::source;

#[test]
fn the_compose_file_sets_only_settings_that_there_are_and_names_every_process() {
    let compose = fs::read_to_string(source().join("docker-compose.yml")).unwrap();
    assert!(!compose.contains('\t'), "YAML takes no tabs");
    for line in compose.lines().filter(|line| line.trim_start().starts_with("TIDINGS_")) {
        let name = line.trim().split(':').next().unwrap().trim_start_matches("TIDINGS_").to_ascii_lowercase();
        assert!(NAMES.contains(&name.as_str()), "{name} is no setting");
    }
    for service in ["postgres", "mail", "migrate", "web", "worker"] {
        assert!(compose.contains(&format!("\n  {service}:\n")), "{service}");
    }
    assert!(compose.contains("replicas: 2"));
}

#[test]
fn the_compose_file_is_yaml_where_a_parser_is_at_hand() {
    let script = "import sys\ntry:\n  import yaml\nexcept ImportError:\n  sys.exit(0)\nyaml.safe_load(open(sys.argv[1]))";
    let file = source().join("docker-compose.yml");
    // Without Python there is no parser; the other test still looks at the words.
    let Ok(status) = std::process::Command::new("python3").args(["-c", script]).arg(file).status() else {
        return;
    };
    assert!(status.success());
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
