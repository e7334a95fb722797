//! D4, U3: whatever is changed or added on the way makes every signature fail in both verifiers.

use serde_json::json;

use super::Keys;
use crate::harness::Database;

/// The header's fields, folds included, and the body with the empty line before it.
fn apart(message: &[u8]) -> (Vec<String>, String) {
    let text = String::from_utf8(message.to_vec()).unwrap();
    let end = text.find("\r\n\r\n").unwrap();
    let mut fields: Vec<String> = Vec::new();
    for line in text[..end].split("\r\n") {
        match fields.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push_str("\r\n");
                last.push_str(line);
            }
            _ => fields.push(line.to_owned()),
        }
    }
    (fields, text[end + 2..].to_owned())
}

fn together(fields: &[String], body: &str) -> Vec<u8> {
    format!("{}\r\n{body}", fields.join("\r\n")).into_bytes()
}

fn name(field: &str) -> &str {
    field.split(':').next().unwrap()
}

/// Another letter or digit in place of the last one.
fn one_octet_other(text: &str) -> String {
    let at = text.rfind(|c: char| c.is_ascii_alphanumeric()).unwrap();
    let other = match text.as_bytes()[at] {
        b'9' => '8',
        b'a' => 'b',
        b'0'..=b'8' => '9',
        _ => 'a',
    };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

/// Every change that must not pass: what it is, and the message.
fn changes(message: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (fields, body) = apart(message);
    let mut changed = Vec::new();
    for (place, field) in fields.iter().enumerate().filter(|(_, field)| name(field) != "DKIM-Signature") {
        let mut other = fields.clone();
        other[place] = one_octet_other(field);
        changed.push((format!("another octet in {}", name(field)), together(&other, &body)));
        let mut without = fields.clone();
        without.remove(place);
        changed.push((format!("no {}", name(field)), together(&without, &body)));
        // A second one, another and the same again, before and after all others.
        for second in [one_octet_other(field), field.clone()] {
            let mut before = fields.clone();
            before.insert(0, second.clone());
            changed.push((format!("a second {} on top", name(field)), together(&before, &body)));
            let mut after = fields.clone();
            after.push(second);
            changed.push((format!("a second {} at the bottom", name(field)), together(&after, &body)));
        }
    }
    for added in ["Cc: victim@example.org", "Reply-To: thief@example.org"] {
        if !fields.iter().any(|field| name(field) == name(added)) {
            let with = [&[added.to_owned()], &fields[..]].concat();
            changed.push((format!("{added} added"), together(&with, &body)));
        }
    }
    let middle = body.len() / 2;
    let body_with = |at: usize| format!("{}{}", one_octet_other(&body[..at]), &body[at..]);
    changed.push(("another octet in the body".into(), together(&fields, &body_with(middle))));
    changed.push(("another octet at the body's end".into(), together(&fields, &body_with(body.len()))));
    changed.push(("more at the end".into(), together(&fields, &format!("{body}more\r\n"))));
    changed.push(("less at the end".into(), together(&fields, &body[..body.trim_end().len() - 3])));
    changed
}

#[tokio::test]
async fn d4_u3_no_changed_field_no_second_field_and_no_changed_body_passes() {
    let keys = Keys::both();
    let tidings = keys.start(Database::sqlite()).await;
    let mut seen = Vec::new();
    for class in ["marketing", "service"] {
        let mail = tidings.mail_of("acme", class, "zoe@people.example.com").await.data;
        keys.all_pass(std::slice::from_ref(&mail), &["r1", "e1"]);
        let (names, messages): (Vec<_>, Vec<_>) = changes(&mail).into_iter().unzip();
        for (judged, name) in keys.judge(&messages).iter().zip(&names) {
            assert_eq!(judged.len(), 2, "{name}");
            for one in judged {
                assert!(one.fails_in_both(), "{name} passes: {one:?}");
            }
        }
        seen.extend(names);
    }
    for expected in [
        "another octet in List-Unsubscribe",
        "another octet in List-Unsubscribe-Post",
        "a second From on top",
        "a second From at the bottom",
        "a second Subject on top",
        "a second To at the bottom",
        "a second Date on top",
        "another octet in Auto-Submitted",
        "Reply-To: thief@example.org added",
    ] {
        assert!(seen.iter().any(|name| name == expected), "{expected} was not tried");
    }
    tidings.stop().await;
}

#[tokio::test]
async fn d5_what_those_who_carry_a_message_add_leaves_the_signatures_whole() {
    let keys = Keys::both();
    let tidings = keys.start(Database::sqlite()).await;
    let brand = json!({
        "name": "Ärzte & Söhne, \"Bücher\"", "from": "\"Ärzte, Söhne\" <news@acme.example.com>",
        "reply_to": "Hilfe für alle, die sehr lange Namen haben und gern weiterlesen <help@acme.example.com>",
        "postal_address": "1 Main Street",
    });
    tidings.put("/brands/acme", brand).await.ok();
    let mail = tidings.mail_of("acme", "marketing", "zoe@people.example.com").await.data;
    let (fields, body) = apart(&mail);
    let carried = [
        "Return-Path: <bounce@acme.example.com>",
        "Delivered-To: zoe@people.example.com",
        "Received: from mail.acme.example.com by mx.example.org with ESMTPS;\r\n\tMon, 1 Jan 2029 00:00:00 +0000",
        "X-Spam-Status: No",
    ];
    let carried = [&carried.map(str::to_owned)[..], &fields[..]].concat();
    // What relaxed forms forgive: other folds, other case of names, spaces at line ends, empty lines at the end.
    let unfolded: Vec<String> = fields.iter().map(|field| field.replace("\r\n", "")).collect();
    let shouted: Vec<String> =
        fields.iter().map(|field| field.replacen(name(field), &name(field).to_uppercase(), 1)).collect();
    let messages = [
        together(&carried, &body),
        together(&unfolded, &body),
        together(&shouted, &body),
        together(&fields, &body.replace("\r\n", " \r\n")[1..]),
        together(&fields, &format!("{body}\r\n\r\n")),
    ];
    keys.all_pass(&messages, &["r1", "e1"]);
    tidings.stop().await;
}
