//! The demo's last steps: a policy changes, everyone is told, and somebody answers.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::super::out;
use super::client::{Client, Listed};
use crate::clock::Timestamp;

const OLD: &str = include_str!("../../../templates/demo/privacy-1.md");
const NEW: &str = include_str!("../../../templates/demo/privacy-2.md");
/// How far ahead the change takes effect: the lead time, and ten days more.
const AHEAD: Duration = Duration::from_secs(40 * 24 * 3600);
/// Without a person told for so long, it has failed.
const PATIENCE: Duration = Duration::from_secs(8);

/// Makes a policy with a text in force, publishes one that people have to approve, and waits until everyone is told. Gives
/// the notice.
pub(super) async fn announce(client: &Client, people: usize) -> Result<Value, String> {
    let policy = json!({ "brand": "harbour", "title": "Privacy policy" });
    client.call(Method::PUT, "/policies/privacy", Some(policy)).await?;
    let first = json!({ "body_markdown": OLD, "change": "minor", "summary": "The text in force." });
    publish(client, first).await?;
    let second = json!({
        "body_markdown": NEW, "change": "adverse", "effective_at": Timestamp::now().plus(AHEAD),
        "summary": "We want to keep what you bought for three years instead of one, to recommend roasts to you. \
            Your address still goes to nobody.",
    });
    let published = publish(client, second).await?;
    let path = format!("/notices/{}", published["notice"]["id"].as_str().ok_or("it made no notice")?);
    let bar = out::message_bar();
    let mut moved = (0, Instant::now());
    let told = loop {
        let notice = client.call(Method::GET, &path, None).await?;
        let told = notice["counts"]["told"].as_u64().unwrap_or(0);
        out::show_sent(&bar, told, people as u64);
        if told == people as u64 && notice["on_time"] == true {
            break Ok(notice);
        }
        if told > moved.0 {
            moved = (told, Instant::now());
        }
        if moved.1.elapsed() > PATIENCE {
            break Err(format!("{told} of {people} people were told, then nobody: {}", notice["counts"]));
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    };
    bar.finish_and_clear();
    told
}

async fn publish(client: &Client, version: Value) -> Result<Value, String> {
    let made = client.call(Method::POST, "/policies/privacy/versions", Some(version)).await?;
    let path = format!("/policies/privacy/versions/{}/publish", made["number"]);
    client.call(Method::POST, &path, None).await
}

/// Finds the link in this person's notice, opens its page, which changes nothing, and agrees by its button. Gives the
/// message and the link.
pub(super) async fn approve(
    client: &Client,
    email: &str,
    notice: &Value,
) -> Result<(Listed, String), String> {
    let mails = client.mailbox(email).await?;
    let mail = mails.into_iter().find(|mail| mail.to == email && mail.subject.contains("Privacy policy"));
    let mail = mail.ok_or("the mailbox has no notice to them")?;
    let link = client.approval_link(&mail).await?;
    client.open(&link).await?;
    let path = format!("/notices/{}", notice["id"].as_str().unwrap_or_default());
    let opened = client.call(Method::GET, &path, None).await?;
    if opened["approvals"]["approved"] != 0 {
        return Err("opening the page counted as an answer".to_owned());
    }
    client.answer(&link, "approve").await?;
    let answered = client.call(Method::GET, &path, None).await?;
    match answered["approvals"]["approved"] == 1 {
        true => Ok((mail, link)),
        false => Err(format!("the answer was not counted: {}", answered["approvals"])),
    }
}
