//! Who judges HTML mail: the Nu HTML checker, and axe-core in Chromium.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::tools;

/// An HTML part under a name.
pub(crate) struct Mail {
    pub(crate) name: String,
    pub(crate) html: String,
}

/// What the Nu HTML checker says that applies to mail.
const NOT_FOR_MAIL: [&str; 0] = [];

/// What the Nu HTML checker finds, as `name: words`.
pub(crate) fn vnu(mails: &[Mail]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut java = Command::new("java");
    java.arg("-jar").arg(tools::folder().join("node_modules/vnu-jar/build/dist/vnu.jar"));
    java.args(["--format", "json", "--exit-zero-always"]);
    for (n, mail) in mails.iter().enumerate() {
        let file = folder.path().join(format!("{n}.html"));
        std::fs::write(&file, &mail.html).unwrap();
        java.arg(file);
    }
    let output = java.stdin(Stdio::null()).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stderr)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let of = |message: &Value| {
        let url = message["url"].as_str().unwrap_or_default();
        let name = mails.iter().enumerate().find(|(n, _)| url.ends_with(&format!("/{n}.html")));
        let words = message["message"].as_str().unwrap_or_default();
        let extract = message["extract"].as_str().unwrap_or_default();
        format!("{}: {words} {extract}", name.map_or("", |(_, mail)| &mail.name))
    };
    let messages = said["messages"].as_array().unwrap().iter().map(of);
    messages.filter(|message| !NOT_FOR_MAIL.iter().any(|words| message.contains(words))).collect()
}

/// What axe-core and `tests/tools/mail.cjs` find in Chromium, where these images are shown.
pub(crate) fn chromium(mails: &[Mail], images: &Value) -> Vec<String> {
    let shown: Vec<Value> =
        mails.iter().map(|mail| json!({ "name": mail.name, "html": mail.html })).collect();
    let said =
        tools::run_json(tools::node("mail.cjs"), json!({ "mails": shown, "images": images }).to_string());
    // Whole: two widths, two colours; without images: once; without styles: two widths, two colours.
    assert_eq!(said["looks"], 9 * mails.len());
    said["findings"].as_array().unwrap().iter().map(|finding| finding.as_str().unwrap().to_owned()).collect()
}
