//! The mail as another program reads it: Python's `email`, which names every defect that it finds.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Database, Tidings};

/// Reads a message on standard input and writes what it says as JSON; fails on any defect.
const READER: &str = r#"
import email, email.policy, email.utils, json, sys
raw = sys.stdin.buffer.read()
assert all(len(line) <= 998 for line in raw.split(b"\r\n")), "a line is too long"
assert raw.replace(b"\r\n", b"").count(b"\n") == raw.replace(b"\r\n", b"").count(b"\r") == raw.count(b"\0") == 0
mail = email.message_from_bytes(raw, policy=email.policy.default)
for part in mail.walk():
    assert not part.defects, part.defects
    for name, value in part.items():
        assert not value.defects, (name, value.defects)
email.utils.parsedate_to_datetime(mail["Date"])
(to,) = mail["To"].addresses
(sender,) = mail["From"].addresses
json.dump({
    "names": sorted(name.lower() for name in mail.keys()),
    "subject": str(mail["Subject"]),
    "to": to.addr_spec, "to_name": to.display_name, "from": sender.addr_spec, "from_name": sender.display_name,
    "parts": [part.get_content_type() for part in mail.iter_parts()],
    "text": mail.get_body(("plain",)).get_content().replace("\r\n", "\n"), "html": mail.get_body(("html",)).get_content(),
    "unsubscribe": str(mail["List-Unsubscribe"]), "post": str(mail["List-Unsubscribe-Post"]),
}, sys.stdout)
"#;

fn has_python() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success())
}

fn read(mail: &[u8]) -> Value {
    let mut python = Command::new("python3");
    python.args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut python = python.spawn().unwrap();
    python.stdin.take().unwrap().write_all(mail).unwrap();
    let output = python.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(mail));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_parser_reads_of_each_class_what_was_meant_and_finds_no_defect() {
    if !has_python() {
        eprintln!("left out: there is no python3");
        return;
    }
    let tidings = Tidings::start(Database::sqlite()).await;
    tidings.brand_with_every_class("acme").await;
    let name = "Açme, \"the\" (Inc.) <x@y.example>; 🙈";
    let brand = json!({
        "name": name, "from": "\"Acme, (Inc.) 🙈\" <news@acme.example.com>", "postal_address": "1 Main <b>Street</b>",
    });
    tidings.put("/brands/acme", brand).await.ok();
    let template = json!({
        "subject": "{{data.said}}", "html": "<p>{{data.said}}</p>", "text": "{{data.said}}\n.\n..\nFrom here\n",
        "classes": ["requested", "service", "relationship", "reminder", "marketing"],
    });
    tidings.put("/templates/hello", template).await.ok();
    let long = "x".repeat(1_500);
    let emoji = "🙈".repeat(300);
    let said = [
        "a\r\nBcc: evil@x.example",
        "=?utf-8?b?DQpCY2M6IGE=?=",
        "مرحبا بالعالم",
        "<script>&amp;\"'",
        "{{name}}",
        "\n.\r\nQUIT",
        "\u{2028}sep\u{2029}",
        long.as_str(),
        emoji.as_str(),
    ];
    for (n, class) in
        ["requested", "service", "relationship", "reminder", "marketing"].into_iter().enumerate()
    {
        for (m, said) in said.into_iter().enumerate() {
            let email = format!("p{n}-{m}@bücher.example");
            let body = json!({
                "brand": "acme", "topic": class, "template": "hello", "data": { "said": said },
                "to": { "email": email, "name": "Zoë \"Z\", <a@b.example> 🙈" },
            });
            tidings.post("/messages", body).await.is(202);
            let wire = format!("p{n}-{m}@xn--bcher-kva.example");
            let mail = read(&tidings.smtp.wait_for_message_to(&wire).await.data);
            let refusable = n > 1;
            let mut names =
                vec!["content-type", "date", "from", "message-id", "mime-version", "subject", "to"];
            if refusable {
                names.extend(["list-id", "list-unsubscribe", "list-unsubscribe-post"]);
            } else {
                names.push("auto-submitted");
            }
            names.sort_unstable();
            assert_eq!(mail["names"], json!(names), "{class} {said:?}");
            let subject: Vec<&str> = said.split(|c: char| c.is_whitespace() || c.is_control()).collect();
            let subject = subject.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
            assert_eq!(mail["subject"], subject, "{class}");
            assert_eq!(
                (&mail["to"], &mail["to_name"]),
                (&json!(wire), &json!("Zoë \"Z\", <a@b.example> 🙈"))
            );
            assert_eq!(
                (&mail["from"], &mail["from_name"]),
                (&json!("news@acme.example.com"), &json!("Acme, (Inc.) 🙈"))
            );
            assert_eq!(mail["parts"], json!(["text/plain", "text/html"]));
            let (text, html) = (mail["text"].as_str().unwrap(), mail["html"].as_str().unwrap());
            assert!(text.contains("\n.\n..\nFrom here"), "{text}");
            assert!(!html.contains("<script") && !html.contains("<b>Street"), "{html}");
            let link = mail["unsubscribe"].as_str().unwrap().trim_matches(['<', '>']);
            if refusable {
                assert_eq!(mail["post"], "List-Unsubscribe=One-Click");
                assert!(text.contains(link) && html.contains(link) && link.starts_with("http"), "{link}");
                assert!(
                    text.contains("1 Main <b>Street</b>") && html.contains("1 Main &lt;b&gt;Street"),
                    "{text}\n{html}"
                );
            } else {
                assert_eq!(link, "None");
                assert!(!text.contains("/u/") && !html.contains("/u/"), "{text}\n{html}");
            }
        }
    }
    tidings.stop().await;
}
