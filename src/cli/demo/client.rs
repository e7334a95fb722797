//! The demo's view from outside: the API, the pages and the mailbox over HTTP.

use mail_parser::{Message, MessageParser};
use reqwest::Method;
use serde_json::Value;

/// Asks the running demo with its admin key. Errors are sentences.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

/// A message in the mailbox.
#[derive(Clone)]
pub(super) struct Listed {
    /// Its page.
    pub(super) page: String,
    source: String,
    /// The envelope recipient.
    pub(super) to: String,
    pub(super) subject: String,
}

impl Client {
    pub(super) fn new(base: &str, key: &str) -> Result<Self, String> {
        let http = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
        Ok(Self { http, base: base.to_owned(), key: key.to_owned() })
    }

    /// A call of the API; `path` follows `/api/v1`.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, String> {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.base)).bearer_auth(&self.key);
        json(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    /// Uploads a CSV file.
    pub(super) async fn upload(&self, path: &str, csv: &'static str) -> Result<Value, String> {
        let request = self.http.post(format!("{}/api/v1{path}", self.base)).bearer_auth(&self.key);
        json(request.header("content-type", "text/csv").body(csv)).await
    }

    /// What a mailbox provider sends when its user clicks unsubscribe (RFC 8058 §3.2); the answer as JSON.
    pub(super) async fn one_click(&self, url: &str) -> Result<Value, String> {
        let request = self.http.post(url).header("accept", "application/json");
        let form = "application/x-www-form-urlencoded";
        json(request.header("content-type", form).body("List-Unsubscribe=One-Click")).await
    }

    /// What the mailbox holds of these words, the newest first, at most 1,000.
    pub(super) async fn mailbox(&self, words: &str) -> Result<Vec<Listed>, String> {
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("q", words).finish();
        let url = format!("{}/mailbox/messages.json?limit=1000&{query}", self.base);
        let listing = json(self.http.get(url)).await?;
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let items = listing["items"].as_array().cloned().unwrap_or_default();
        Ok(items
            .iter()
            .map(|item| Listed {
                page: text(item, "page"),
                source: text(item, "source"),
                to: item["to"][0].as_str().unwrap_or_default().to_owned(),
                subject: text(item, "subject"),
            })
            .collect())
    }

    /// The https link of a message's List-Unsubscribe header, and whether one click suffices (RFC 8058).
    pub(super) async fn unsubscribe_link(&self, mail: &Listed) -> Result<String, String> {
        let answer = self.http.get(format!("{}{}", self.base, mail.source)).send().await;
        let source = answer.map_err(sentence)?.bytes().await.map_err(sentence)?;
        let message = MessageParser::default().parse(&source[..]).ok_or("the message cannot be parsed")?;
        let header = raw_header(&message, "List-Unsubscribe").ok_or("it has no List-Unsubscribe header")?;
        let one_click = raw_header(&message, "List-Unsubscribe-Post").unwrap_or_default();
        if one_click.trim() != "List-Unsubscribe=One-Click" {
            return Err("it has no List-Unsubscribe-Post header".to_owned());
        }
        let link = header.split(['<', '>']).nth(1).ok_or("its List-Unsubscribe header names no link")?;
        let html = message.body_html(0).unwrap_or_default();
        let text = message.body_text(0).unwrap_or_default();
        if !html.contains(link) || !text.contains(link) {
            return Err("its unsubscribe link is not in both parts".to_owned());
        }
        Ok(link.to_owned())
    }
}

impl Client {
    /// The link in a notice by which it is answered; it stands in both parts.
    pub(super) async fn approval_link(&self, mail: &Listed) -> Result<String, String> {
        let answer = self.http.get(format!("{}{}", self.base, mail.source)).send().await;
        let source = answer.map_err(sentence)?.bytes().await.map_err(sentence)?;
        let message = MessageParser::default().parse(&source[..]).ok_or("the message cannot be parsed")?;
        if message.header_raw("List-Unsubscribe").is_some() {
            return Err("it can be unsubscribed from".to_owned());
        }
        let text = message.body_text(0).unwrap_or_default();
        let begin = format!("{}/a/", self.base);
        let link = text
            .split_whitespace()
            .find(|word| word.starts_with(&begin))
            .ok_or("it has no link to answer by")?;
        match message.body_html(0).unwrap_or_default().contains(link) {
            true => Ok(link.to_owned()),
            false => Err("its link is not in both parts".to_owned()),
        }
    }

    /// Opens a page.
    pub(super) async fn open(&self, url: &str) -> Result<(), String> {
        let answer = self.http.get(url).send().await.map_err(sentence)?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(format!("the page answers {}", answer.status()))
        }
    }

    /// Answers as the button of its page does.
    pub(super) async fn answer(&self, url: &str, decision: &str) -> Result<Value, String> {
        let request = self.http.post(url).header("accept", "application/json");
        let form = "application/x-www-form-urlencoded";
        json(request.header("content-type", form).body(format!("decision={decision}"))).await
    }
}

fn raw_header(message: &Message<'_>, name: &str) -> Option<String> {
    message.header_raw(name).map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
}

async fn json(request: reqwest::RequestBuilder) -> Result<Value, String> {
    let answer = request.send().await.map_err(sentence)?;
    let status = answer.status();
    let body: Value = answer.json().await.map_err(sentence)?;
    if status.is_success() {
        return Ok(body);
    }
    Err(format!("{status}: {}", body["detail"].as_str().unwrap_or("no detail")))
}

fn sentence(error: reqwest::Error) -> String {
    // The URL may hold a link's token.
    format!("no answer over HTTP: {}", error.without_url())
}
