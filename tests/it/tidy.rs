//! Holds the house: which module may use which, which file may do what, how long things may become.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::harness::source;

/// The ideas, each of which uses only those before it.
const IDEAS: [&str; 12] = [
    "address",
    "decision",
    "link",
    "brand",
    "recipient",
    "opt_out",
    "message",
    "delivery",
    "fence",
    "campaign",
    "policy",
    "notice",
];
/// What stands below every idea and knows none.
const BASE: [&str; 12] = [
    "clock",
    "colour",
    "config",
    "db",
    "guesses",
    "id",
    "language",
    "receiver",
    "telemetry",
    "under_way",
    "word",
    "migrations",
];
const MAX_FILE: usize = 600;
const MAX_FUNCTION: usize = 120;

/// A source file of the program, its tests cut off.
struct File {
    /// Below `src/`, such as `brand/rows.rs`.
    path: String,
    text: String,
    /// Without its test module.
    code: String,
}

impl File {
    /// The first part of the path without `.rs`: `brand` of `brand/rows.rs`, `fence` of `fence.rs`.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// The rôle that the name gives: `rows` for `brand/rows.rs` and `brand/rows/find.rs`.
    fn role(&self) -> Option<&str> {
        let inside = self.path.split('/').nth(1)?.trim_end_matches(".rs");
        ["rows", "api", "pages", "worker"].into_iter().find(|role| *role == inside)
    }

    /// The names of this crate's top modules that the code uses.
    fn uses(&self) -> Vec<String> {
        let mut used = Vec::new();
        let mut rest = self.code.as_str();
        while let Some(at) = rest.find("crate::") {
            rest = &rest[at + "crate::".len()..];
            if let Some(list) = rest.strip_prefix('{') {
                let end = closing_brace(list);
                let mut depth = 0_usize;
                let mut name = String::new();
                for c in list[..end].chars().chain([',']) {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            used.push(name.trim().split("::").next().unwrap().to_owned());
                            name.clear();
                        }
                        _ if depth == 0 => name.push(c),
                        _ => {}
                    }
                }
            } else {
                used.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
        }
        used.retain(|name| !name.is_empty());
        used.sort();
        used.dedup();
        used
    }
}

fn closing_brace(text: &str) -> usize {
    let mut depth = 1_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn files_below(folder: &Path, ending: &str, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, ending, into);
        } else if path.to_string_lossy().ends_with(ending) {
            into.push(path);
        }
    }
    into.sort();
}

fn program() -> Vec<File> {
    let root = source().join("src");
    let mut paths = Vec::new();
    files_below(&root, ".rs", &mut paths);
    paths
        .into_iter()
        // Modules of tests alone, declared under #[cfg(test)] by their parents.
        .filter(|path| {
            !path.ends_with("tests.rs") && !path.components().any(|part| part.as_os_str() == "tests")
        })
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            let code = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            File { path, text, code }
        })
        .collect()
}

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn an_idea_uses_only_those_before_it() {
    let rank: BTreeMap<&str, usize> = IDEAS.iter().enumerate().map(|(n, idea)| (*idea, n)).collect();
    let mut found = Vec::new();
    for file in program() {
        let Some(own) = rank.get(file.module()) else { continue };
        if matches!(file.role(), Some("api" | "pages" | "worker")) {
            continue;
        }
        for used in file.uses() {
            if rank.get(used.as_str()).is_some_and(|other| other > own) {
                found.push(format!("{} uses {used}", file.path));
            }
        }
    }
    none("an idea uses a later one", found);
}

#[test]
fn what_stands_below_knows_no_idea() {
    let mut found = Vec::new();
    for file in program().iter().filter(|file| BASE.contains(&file.module())) {
        for used in
            file.uses().into_iter().filter(|used| !BASE.contains(&used.as_str()) && used != "ConfigError")
        {
            found.push(format!("{} uses {used}", file.path));
        }
    }
    none("a module below the ideas knows one", found);
}

#[test]
fn delivery_knows_no_campaign_and_the_relay_no_database() {
    let mut found = Vec::new();
    for file in program() {
        let forbidden: &[&str] = match file.module() {
            "delivery" => &["campaign", "policy", "notice"],
            "relay" | "message" | "decision" | "link" | "address" if file.role().is_none() => {
                &["db", "app", "web", "access", "serve"]
            }
            _ => continue,
        };
        let used = file.uses();
        found.extend(
            used.iter()
                .filter(|used| forbidden.contains(&used.as_str()))
                .map(|used| format!("{} uses {used}", file.path)),
        );
    }
    none("a module knows what it must not", found);
}

#[test]
fn api_pages_worker_and_commands_use_none_of_one_another() {
    let mut found = Vec::new();
    for file in program() {
        let outer = matches!(file.role(), Some("api" | "pages" | "worker")) || file.module() == "cli";
        if !outer {
            continue;
        }
        for other in IDEAS.iter().chain(&["access"]) {
            for role in ["api", "pages", "worker"] {
                if *other != file.module() && file.code.contains(&format!("{other}::{role}::")) {
                    found.push(format!("{} uses {other}::{role}", file.path));
                }
            }
        }
    }
    none("an outer file uses another one", found);
}

#[test]
fn only_rows_speak_sql() {
    // The derives that make a type a column, and errors of the database, are no SQL.
    let harmless = ["DeriveValueType", "DbErr", "JsonValue", "DbBackend", "TryFromU64", "ConnectionTrait"];
    let may = ["db.rs", "db/", "clock.rs", "id.rs", "web/idempotency"];
    let mut found = Vec::new();
    for file in program() {
        let speaks = file.role() == Some("rows") || may.iter().any(|path| file.path.starts_with(path));
        if speaks {
            continue;
        }
        let words = ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM"];
        let in_text =
            file.code.lines().any(|line| words.iter().any(|word| line.contains(&format!("\"{word}"))));
        let entity =
            ["EntityTrait", "QueryFilter", "Statement::", "execute_raw", "query_one_raw", "sea_query"];
        if in_text || entity.iter().any(|word| file.code.contains(word)) {
            found.push(format!("{} speaks SQL", file.path));
        }
        for line in file.code.lines().filter(|line| line.contains("sea_orm::")) {
            if !harmless.iter().any(|word| line.contains(word)) && !line.contains("derive") {
                found.push(format!("{}: {}", file.path, line.trim()));
            }
        }
    }
    none("SQL outside of rows.rs", found);
}

#[test]
fn only_the_worker_hands_messages_over() {
    let mut found = Vec::new();
    for file in program() {
        let own = file.module() == "relay" || file.path.starts_with("delivery/worker");
        let handing = file.code.contains(".hand_over(");
        let reaching = file.uses().contains(&"relay".to_owned());
        let may_reach = own
            || ["delivery", "serve", "lib"].contains(&file.module())
            || file.path.starts_with("cli/demo/")
            || file.path.starts_with("campaign/api/trial");
        if (handing && !own) || (reaching && !may_reach) {
            found.push(file.path.clone());
        }
    }
    none("a file outside of delivery/worker.rs can reach a relay", found);
}

#[test]
fn only_serve_and_the_demo_know_the_mailbox() {
    let found = program()
        .into_iter()
        .filter(|file| file.uses().contains(&"mailbox".to_owned()))
        .filter(|file| {
            !["mailbox", "serve", "lib"].contains(&file.module())
                && file.path != "web/router.rs"
                && !file.path.starts_with("cli/demo/")
        })
        .map(|file| file.path)
        .collect();
    none("a file knows the mailbox", found);
}

#[test]
fn every_module_says_what_it_promises_and_files_and_functions_are_short() {
    let mut found = Vec::new();
    let mut files: Vec<(String, String)> =
        program().into_iter().map(|file| (file.path.clone(), file.text)).collect();
    for folder in ["tests/it", "migrations"] {
        let mut paths = Vec::new();
        files_below(&source().join(folder), ".rs", &mut paths);
        files.extend(
            paths.into_iter().map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())),
        );
    }
    for (path, text) in files {
        if !text.starts_with("//! ") {
            found.push(format!("{path} does not begin with //!"));
        }
        let lines = text.lines().count();
        if lines > MAX_FILE {
            found.push(format!("{path} has {lines} lines"));
        }
        let mut open: Option<(usize, usize, String)> = None;
        for (n, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let begins = line.trim_start();
            let is_function = begins.contains("fn ")
                && ["fn ", "pub ", "pub(", "async ", "const fn"].iter().any(|word| begins.starts_with(word));
            if open.is_none() && is_function && !begins.ends_with(';') {
                open = Some((n, indent, begins.to_owned()));
            } else if let Some((start, at, name)) = &open
                && indent == *at
                && begins.starts_with('}')
            {
                if n - start > MAX_FUNCTION {
                    found.push(format!("{path}: {name} has {} lines", n - start));
                }
                open = None;
            }
        }
    }
    none("too long, or without a word of its own", found);
}

#[test]
fn nothing_is_called_by_a_name_that_says_nothing() {
    let empty = ["utils", "util", "common", "manager", "service", "helpers", "helper", "misc"];
    let mut found = Vec::new();
    for file in program() {
        let named = file.path.split('/').map(|part| part.trim_end_matches(".rs"));
        if named.into_iter().any(|part| empty.contains(&part)) {
            found.push(file.path.clone());
        }
        if file.text.contains("#[allow(") || file.text.contains("#![allow(") {
            found.push(format!("{} allows instead of expecting", file.path));
        }
    }
    none("a name that says nothing, or a lint switched off", found);
}

#[test]
fn the_documents_name_what_there_is() {
    let read = |path: &str| fs::read_to_string(source().join(path)).unwrap();
    let (readme, contributing) = (read("README.md"), read("CONTRIBUTING.md"));
    for command in ["cargo run --locked -- demo", "tests/run"] {
        assert!(readme.contains(command) && contributing.contains(command), "{command} is not explained");
    }
    for name in tidings::config::NAMES {
        let variable = format!("TIDINGS_{}", name.to_ascii_uppercase());
        assert!(readme.contains(&variable), "README.md does not name {variable}");
    }
    let mut missing = Vec::new();
    for text in [&readme, &contributing] {
        for quoted in text.split('`').skip(1).step_by(2) {
            let a_path = ["src/", "tests/", "benches/", ".ci/", "migrations/", "templates/"]
                .iter()
                .any(|at| quoted.starts_with(at));
            let path = quoted.split_whitespace().next().unwrap_or_default();
            if a_path && !source().join(path).exists() {
                missing.push(path.to_owned());
            }
        }
    }
    none("a document names what is not there", missing);
}

/// Every `tidings_…` in a text that is a metric's name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = text.match_indices("tidings_").map(|(at, _)| {
        let rest = &text[at..];
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        name.strip_suffix("_bucket").unwrap_or(name).to_owned()
    });
    names.collect()
}

#[test]
fn the_dashboard_shows_every_metric_and_none_besides() {
    let dashboard = fs::read_to_string(source().join("grafana.json")).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = parsed["panels"].as_array().unwrap();
    assert!(
        panels.iter().all(|panel| panel["type"] == "row" || !panel["targets"].as_array().unwrap().is_empty())
    );
    let mut counted = BTreeSet::new();
    let mut files = Vec::new();
    files_below(&source().join("src"), "rs", &mut files);
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        if text.contains("metrics::") || text.contains("/// Metric") {
            let literals = text.match_indices("\"tidings_").map(|(at, _)| &text[at..]);
            counted.extend(
                literals.filter_map(|literal| metrics_in(literal.split('"').nth(1)?).into_iter().next()),
            );
        }
    }
    assert!(counted.len() > 15, "{counted:?}");
    assert_eq!(metrics_in(&dashboard), counted);
}

/// The requirements of standards, providers and law that concern mail and pages: a letter, and how many there are.
const REQUIREMENTS: [(&str, usize); 7] =
    [("u", 21), ("f", 17), ("i", 5), ("d", 9), ("t", 16), ("h", 10), ("pn", 13)];

/// The requirements that a test's name begins with: `u4` and `u5` of `u4_u5_the_requests_…`.
fn requirements(name: &str) -> Vec<&str> {
    let is_id = |word: &&str| {
        let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
        letters.len() < word.len() && REQUIREMENTS.iter().any(|(known, _)| *known == letters)
    };
    name.split('_').take_while(is_id).collect()
}

#[test]
fn every_requirement_has_a_test_in_the_table_or_a_reason_why_not() {
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut paths = Vec::new();
    files_below(&source().join("tests/it/standards"), ".rs", &mut paths);
    for text in paths.iter().map(|path| fs::read_to_string(path).unwrap()) {
        for line in text.lines() {
            let line = line.trim_start().trim_start_matches("async ");
            let Some(rest) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("mod ")) else { continue };
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            for id in requirements(name) {
                tests.entry(id.to_owned()).or_default().push(name.to_owned());
            }
        }
    }
    let table = fs::read_to_string(source().join("CONTRIBUTING.md")).unwrap();
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in table.lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [id, _, shown] = cells[..] else { continue };
        let id = id.trim_start_matches("| ").to_ascii_lowercase();
        if requirements(&id) != [id.as_str()] {
            continue;
        }
        let named = shown.split('`').skip(1).step_by(2).filter(|name| !requirements(name).is_empty());
        let named: Vec<String> = named.map(str::to_owned).collect();
        if named.is_empty() && shown.trim_end_matches(" |").len() < 20 {
            wrong.push(format!("{id}: neither a test nor a reason"));
        }
        if told.insert(id.clone(), named).is_some() {
            wrong.push(format!("{id} stands twice in the table"));
        }
    }
    for id in
        REQUIREMENTS.iter().flat_map(|(letters, count)| (1..=*count).map(move |n| format!("{letters}{n}")))
    {
        let (mut named, mut there) = (told.remove(&id), tests.remove(&id).unwrap_or_default());
        there.sort();
        named.iter_mut().for_each(|named| named.sort());
        if named.as_ref() != Some(&there) {
            wrong.push(format!("{id}: the table names {named:?}, the tests are {there:?}"));
        }
    }
    wrong.extend(told.into_keys().chain(tests.into_keys()).map(|id| format!("nobody knows {id}")));
    none("what the table of requirements says is not so", wrong);
}

#[test]
fn no_file_tells_of_the_machine_it_was_written_on() {
    // Put together here, so that this file does not hold them itself.
    let paths = ["/wo", "/ro", "/ho", "/Us"].iter().zip(["rk/", "ot/", "me/", "ers/"]);
    let paths: Vec<String> = paths.map(|(first, rest)| format!("{first}{rest}")).collect();
    let mut files = Vec::new();
    for folder in ["src", "tests", "migrations", "templates", ".ci", "proptest-regressions"] {
        files_below(&source().join(folder), "", &mut files);
    }
    for entry in fs::read_dir(source()).unwrap() {
        let path = entry.unwrap().path();
        // `.git` is a file in a second checkout.
        if path.is_file() && path.file_name().is_some_and(|name| name != ".git" && name != "Cargo.lock") {
            files.push(path);
        }
    }
    let mut found = Vec::new();
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (n, line) in text.lines().enumerate() {
            let a_path = paths.iter().any(|word| {
                line.match_indices(word.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "-_.*}".contains(c))
                })
            });
            if a_path {
                found.push(format!("{}:{}: {}", path.display(), n + 1, line.trim()));
            }
        }
    }
    none("a file tells of the machine it was written on", found);
}

#[test]
fn every_mutation_applies_names_a_test_and_stands_in_the_list() {
    let folder = source().join("tests/mutations");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    let mut patches = Vec::new();
    files_below(&folder, ".patch", &mut patches);
    assert!(patches.len() >= 20, "mutations are gone");
    let mut tests = Vec::new();
    files_below(&source().join("tests/it"), ".rs", &mut tests);
    let tests: String = tests.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut found = Vec::new();
    for path in patches {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !list.contains(&format!("`{name}`")) {
            found.push(format!("{name} does not stand in tests/mutations/README.md"));
        }
        let patch = fs::read_to_string(&path).unwrap();
        let test = patch.lines().find_map(|line| line.strip_prefix("Caught by: ")).unwrap_or_default();
        let of_both = test.trim_end_matches("::on_postgres").trim_end_matches("::on_sqlite");
        if !tests.contains(&format!("fn {}(", of_both.rsplit("::").next().unwrap())) {
            found.push(format!("{name} names no test that there is"));
        }
        for file in patch.split("\n--- a/").skip(1) {
            let (path, hunks) = file.split_once('\n').unwrap();
            let text = fs::read_to_string(source().join(path)).unwrap_or_default();
            for hunk in hunks.split("\n@@ ").skip(1) {
                let lines = hunk.lines().skip(1).take_while(|line| line.starts_with([' ', '-', '+']));
                let before: Vec<&str> =
                    lines.filter(|line| !line.starts_with('+')).map(|line| &line[1..]).collect();
                if !text.contains(&before.join("\n")) {
                    found.push(format!("{name} does not apply to {path} any more: make it anew"));
                }
            }
        }
    }
    none("a mutation shows nothing any more", found);
}
