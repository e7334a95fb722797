//! H6: pages that everyone can use, whatever they see, hear, press or run.

use std::process::Command;

use serde_json::{Value, json};

use super::answers;
use super::states::{self, Shown};
use crate::harness::*;
use crate::unsubscribe_page::{ADA, decision, path, set_up};

/// What the script needs to show a page as it was answered.
fn as_json(shown: &Shown) -> Value {
    let header = |name: &str| shown.answer.header(name).to_owned();
    json!({
        "name": shown.name, "lang": shown.lang, "button": shown.button, "status": shown.answer.status.as_u16(),
        "headers": { "content-type": header("content-type"), "content-security-policy": header("content-security-policy") },
        "body": shown.answer.text,
    })
}

/// The logo that a page shows, as its path and its image.
fn images(pages: &[Shown]) -> Value {
    let logo = crate::logo::LOGO.split_once(',').unwrap().1;
    let sources =
        pages.iter().filter_map(|page| page.answer.text.split_once("<img src=\"")?.1.split('"').next());
    sources.map(|path| (path.to_owned(), json!(logo))).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h6_every_page_in_every_state_and_language_is_accessible_narrow_and_wide_by_day_and_by_night() {
    let mut pages = states::link_pages(Database::sqlite()).await;
    pages.extend(states::policy_pages().await);
    pages.extend(states::mailbox_pages().await);
    assert!(!images(&pages).as_object().unwrap().is_empty(), "no page shows a logo");
    are_accessible(&pages);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h6_the_page_of_an_answer_is_accessible_in_every_state_as_the_others_are() {
    are_accessible(&answers::approval_pages(Database::sqlite()).await);
}

/// Two independent programs find nothing wrong with these pages.
fn are_accessible(pages: &[Shown]) {
    for page in pages.iter().filter(|page| !page.name.starts_with("mailbox")) {
        let lang = format!("lang=\"{}\"", page.lang);
        assert!(page.answer.text.contains(&lang), "{} {}", page.name, page.lang);
        assert_eq!(page.answer.header("content-language"), page.lang, "{}", page.name);
    }
    let given = json!({ "pages": pages.iter().map(as_json).collect::<Vec<_>>(), "images": images(pages) });
    let judged = tools::run_json(tools::node("pages.cjs"), given.to_string());
    assert_eq!(judged["looks"], pages.len() * 4);
    let findings: Vec<&str> =
        judged["findings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));

    let folder = tempfile::tempdir().unwrap();
    for (n, page) in pages.iter().enumerate() {
        std::fs::write(
            folder.path().join(format!("{n}-{}-{}.html", page.name, page.lang)),
            &page.answer.text,
        )
        .unwrap();
    }
    let mut validator = Command::new("java");
    validator.arg("-jar").arg(tools::folder().join("node_modules/vnu-jar/build/dist/vnu.jar"));
    let said = tools::feed(validator.arg("--no-langdetect").arg(folder.path()), b"");
    let said = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(said, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h6_the_keyboard_alone_unsubscribes_and_takes_it_back_without_javascript() {
    let tidings = set_up(Database::sqlite()).await;
    let link = path(&tidings, "marketing", ADA).await;
    let mut browser = tools::node("journey.cjs");
    browser.arg(format!("{}{link}", tidings.base));
    let seen = tokio::task::spawn_blocking(move || tools::run_json(browser, "")).await.unwrap();
    let headings = ["Stop these messages?", "You are unsubscribed", "Undone", "You are unsubscribed"];
    assert_eq!(seen["headings"], json!(headings.map(|heading| format!("200 {heading}"))));
    assert_eq!(seen["cookies"], 0);
    assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
    tidings.stop().await;
}

/// What a text browser makes of a page, and what it says when the page's form is sent.
fn lynx(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("lynx");
    command
        .args(["-nocolor", "-width=72", "-assume_charset=utf-8", "-display_charset=utf-8"])
        .args(arguments);
    let output = tokio::task::block_in_place(|| tools::run(command, input));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h6_a_text_browser_shows_all_that_matters_and_sends_the_form() {
    let tidings = set_up(Database::sqlite()).await;
    let link = path(&tidings, "marketing", ADA).await;
    let url = format!("{}{link}", tidings.base);
    let page = lynx(&["-dump", &url], "");
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
    assert!(
        at("Stop these messages?") < at("a…e@e….org") && at("a…e@e….org") < at("(BUTTON) Unsubscribe"),
        "{page}"
    );
    assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
    let done = lynx(&["-dump", "-post_data", &url], "page=1\n---\n");
    for said in ["You are unsubscribed", "What has stopped", "What still comes", "(BUTTON) Undo"] {
        assert!(done.contains(said), "{said}: {done}");
    }
    assert_eq!(decision(&tidings, "marketing", ADA).await, "suppress");
    let undone = lynx(&["-dump", "-post_data", &url], "page=1&undo=1\n---\n");
    assert!(undone.contains("Undone"), "{undone}");
    assert_eq!(decision(&tidings, "marketing", ADA).await, "send");
    tidings.stop().await;
}
