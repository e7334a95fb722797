//! `banner.js`: the script that shows changes of policies on a brand's own pages. Pure.
//!
//! It needs nothing but a browser; it keeps nothing there, sends nothing back but the question for
//! `/notices/current.json`, and shows nothing when anything fails. Its words are those of `templates/languages/`, put in
//! when the program is built up, so that a page of any of the languages gets its own.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::language::Language;

const SOURCE: &str = include_str!("../../templates/banner.js");

/// The script as it is served.
pub static SCRIPT: LazyLock<String> = LazyLock::new(|| {
    let words: Map<String, Value> = Language::ALL
        .into_iter()
        .map(|language| {
            let words = [
                "banner.label",
                "banner.ahead",
                "banner.since",
                "banner.link",
                "banner.close",
                "banner.approval",
                "banner.use",
            ];
            (language.code().to_owned(), json!(words.map(|key| language.text(key))))
        })
        .collect();
    let lines = SOURCE.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let bare: String = lines.map(|line| format!("{line}\n")).collect();
    bare.replace("'WORDS'", &Value::Object(words).to_string())
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_names_the_size_that_the_script_has() {
        let tenths = (SCRIPT.len() + 50) / 100;
        let size = format!("The script has {}.{} kB", tenths / 10, tenths % 10);
        assert!(include_str!("../../README.md").contains(&size), "{size}");
    }

    #[test]
    fn the_script_is_small_and_names_nothing_that_keeps_or_tracks() {
        assert!(SCRIPT.len() < 4_096, "{} octets", SCRIPT.len());
        assert!(!SCRIPT.contains("WORDS") && SCRIPT.contains("Was sich ändert"));
        for forbidden in
            ["cookie", "Storage", "sendBeacon", "innerHTML", "eval", "http:", "https:", "<style", "import"]
        {
            assert!(!SCRIPT.contains(forbidden), "{forbidden}");
        }
    }
}
