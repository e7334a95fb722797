//! Addresses and internationalisation (I). I4 stands beside F9, which it extends.
//! More of I5 stands in `tests/it/languages.rs`.

use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use tidings::address::EmailAddress;
use tidings::language::Language;

use crate::harness::{Act, Answer, Database, Options, SmtpServer, Stage, Tidings, readers, tools};
use crate::unsubscribe_page::{ADA, path, set_up};

on_both! {
    async fn i1_an_address_at_an_idn_goes_out_in_ascii_and_is_refused_under_either_form(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        // The relay offers neither SMTPUTF8 nor 8BITMIME.
        let mail = tidings.mail_of("acme", "marketing", "u@xn--bcher-kva.example").await;
        assert_eq!(mail.recipient(), "u@xn--bcher-kva.example");
        let spellings =
            ["u@BÜCHER.example", "u@bu\u{308}cher.EXAMPLE", "U@xn--bcher-kva.EXAMPLE", "u@XN--BCHER-KVA.example", "u@bücher。example"];
        for (n, said) in spellings.into_iter().enumerate() {
            let person = tidings.post("/recipients", json!({ "email": said })).await.ok();
            assert_eq!(person["id"], tidings.post("/recipients", json!({ "email": spellings[0] })).await.id(), "{said}");
            let before = tidings.smtp.messages().len();
            let id = tidings.message("acme", "marketing", said).await;
            assert_eq!(tidings.settled(&id).await["state"], "sent", "{said}");
            let mail = tidings.smtp.messages().remove(before);
            assert!(mail.recipient().eq_ignore_ascii_case("u@xn--bcher-kva.example"), "{said}");
            assert!(mail.data.is_ascii() && mail.mail_parameters.is_empty(), "{said}: {}", mail.mail_parameters);
            // Refused under one form, it is refused under every other; then taken back.
            let other = spellings[(n + 1) % spellings.len()];
            let scope = json!({ "brand": "acme", "topic": "marketing" });
            tidings.post("/opt-outs", json!({ "email": said, "scope": scope, "channel": "phone" })).await.ok();
            let id = tidings.message("acme", "marketing", other).await;
            assert_eq!(tidings.settled(&id).await["state"], "suppressed", "{said} {other}");
            let evidence = "asked for it again by telephone";
            tidings.post("/opt-ins", json!({ "email": other, "scope": scope, "evidence": evidence })).await.ok();
        }
        tidings.stop().await;
    }

    async fn i5_pages_are_in_the_language_asked_for_and_name_it_and_its_direction(database: Database) {
        let tidings = set_up(database).await;
        let path = path(&tidings, "marketing", ADA).await;
        let page = async |tidings: &Tidings, path: &str, asked: &str| {
            let request = tidings.anonymous().request(Method::GET, path).header("accept-language", asked);
            Answer::of(request).await
        };
        for language in Language::ALL {
            let asked = page(&tidings, &path, language.code()).await;
            let broken = page(&tidings, "/u/broken", language.code()).await;
            for (answer, status, key) in [(&asked, 200, "ask.heading"), (&broken, 404, "unknown.title")] {
                answer.is(status);
                let root = format!("<html lang=\"{}\" dir=\"{}\"", language.code(), language.direction());
                assert!(answer.text.contains(&root), "{language:?}: {}", answer.text);
                assert!(answer.text.contains(language.text(key)), "{language:?}: {}", answer.text);
                assert_eq!(answer.header("content-language"), language.code());
            }
        }
        // What the company knows of the person comes first.
        tidings.post("/recipients", json!({ "email": ADA, "locale": "ar-EG" })).await.ok();
        let own = page(&tidings, &path, "de").await;
        assert!(own.text.contains("<html lang=\"ar\" dir=\"rtl\""), "{}", own.text);
        tidings.stop().await;
    }

    async fn i5_mail_names_the_recipients_language_and_adds_to_it_in_that_language(database: Database) {
        let tidings = Tidings::start(database).await;
        tidings.ready_to_send().await;
        for (locale, language) in [("de-AT", Language::German), ("ar-EG", Language::Arabic)] {
            let email = format!("{locale}@example.org");
            tidings.post("/recipients", json!({ "email": email, "locale": locale })).await.ok();
            let mail = tidings.mail_of("acme", "marketing", &email).await;
            let read = readers::read(&mail.data);
            let root = format!("<html lang=\"{locale}\" dir=\"{}\"", language.direction());
            assert!(read.html().contains(&root), "{}", read.html());
            for part in [read.html(), read.text()] {
                assert!(part.contains(language.text("mail.unsubscribe")), "{locale}: {part}");
            }
        }
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_local_part_beyond_ascii_goes_to_a_relay_that_takes_it_and_says_so_in_mail() {
    let relay =
        SmtpServer::with(Options { extensions: vec!["SMTPUTF8", "8BITMIME"], ..Options::default() }).await;
    let url = SecretString::from(relay.url());
    let tidings = Tidings::start_with(Database::sqlite(), |settings| settings.relay_url = url).await;
    tidings.ready_to_send().await;
    let id = tidings.message("acme", "marketing", "josé@bücher.example").await;
    assert_eq!(tidings.settled(&id).await["state"], "sent");
    let [mail] = &relay.messages()[..] else { panic!("not one message") };
    assert_eq!(mail.recipient(), "josé@xn--bcher-kva.example");
    let words: Vec<&str> = mail.mail_parameters.split_whitespace().collect();
    assert!(words.contains(&"SMTPUTF8") && words.contains(&"BODY=8BITMIME"), "{words:?}");
    assert!(mail.text().contains("\r\nTo: josé@xn--bcher-kva.example\r\n"), "{}", mail.text());
    // Whoever does not need it is mailed without it, over the same connection.
    let id = tidings.message("acme", "marketing", "jose@bücher.example").await;
    assert_eq!(tidings.settled(&id).await["state"], "sent");
    assert!(!relay.messages()[1].mail_parameters.contains("SMTPUTF8"));
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_relay_that_does_not_take_it_is_not_asked_and_the_delivery_fails_once_for_good() {
    for extensions in [vec![], vec!["8BITMIME"]] {
        let relay = SmtpServer::with(Options { extensions, ..Options::default() }).await;
        let url = SecretString::from(relay.url());
        let tidings = Tidings::start_with(Database::sqlite(), |settings| settings.relay_url = url).await;
        tidings.ready_to_send().await;
        for class in ["requested", "service", "marketing"] {
            let id = tidings.message("acme", class, "josé@bücher.example").await;
            let settled = tidings.settled(&id).await;
            assert_eq!(
                (&settled["state"], &settled["due_at"]),
                (&json!("failed"), &Value::Null),
                "{settled}"
            );
            let [attempt] = &settled["attempts"].as_array().unwrap()[..] else { panic!("{settled}") };
            assert_eq!((&attempt["code"], &attempt["enhanced"]), (&json!(553), &json!("5.6.7")), "{settled}");
        }
        assert!(relay.transactions().is_empty(), "nothing was begun");
        // The mailbox may well be there: nothing is held against the address.
        let explained =
            tidings.get("/explain?email=jos%C3%A9@b%C3%BCcher.example&brand=acme&topic=marketing").await.ok();
        assert_eq!(explained["decision"], "send", "{explained}");
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_relay_that_offers_it_and_refuses_it_nevertheless_is_not_asked_again() {
    let relay =
        SmtpServer::with(Options { extensions: vec!["SMTPUTF8", "8BITMIME"], ..Options::default() }).await;
    relay.on(Stage::Rcpt, Act::reply(553, "5.6.7 the next hop does not take it"));
    let url = SecretString::from(relay.url());
    let tidings = Tidings::start_with(Database::sqlite(), |settings| settings.relay_url = url).await;
    tidings.ready_to_send().await;
    let id = tidings.message("acme", "service", "josé@bücher.example").await;
    let settled = tidings.settled(&id).await;
    assert_eq!(settled["state"], "failed", "{settled}");
    assert_eq!(settled["attempts"].as_array().unwrap().len(), 1, "{settled}");
    tidings.stop().await;
}

/// What we and email-validator see alike: the texts that both take and that both refuse.
fn alike() -> Vec<String> {
    let label = "d".repeat(63);
    let plain = [
        "ann@example.org",
        "Ann.Smith@Example.ORG",
        "ann+news@example.org",
        "a@example.org",
        "1234567890@example.org",
        "_______@example.org",
        "ann-smith@example-one.org",
        "!#$%&'*+-/=?^_`{|}~@example.org",
        "o'brien@example.ie",
        "ann@mail.eu.example.co.uk",
        "ann@1.example.org",
        "ann@xn--bcher-kva.example",
        "ann@XN--BCHER-KVA.example",
        "ann@bücher.example",
        "ann@BÜCHER.example",
        "ann@bu\u{308}cher.example",
        "ann@straße.example",
        "ann@例え.テスト",
        "ann@例え。テスト",
        "ann@ｅｘａｍｐｌｅ.org",
        "josé@example.org",
        "JOSE\u{301}@example.org",
        "用户@example.org",
        "пример@пример.example",
        "ann@παράδειγμα.example",
        "ann@مثال.example",
        "",
        "ann",
        "example.org",
        "@example.org",
        "ann@",
        "@",
        "ann@example.org\n",
        "ann\r\nBcc: eve@example.org",
        "ann\0@example.org",
        "ann@exam\u{7f}ple.org",
        "ann@example.org\u{85}",
        "ann smith@example.org",
        "ann@exam ple.org",
        "ann@example.org,eve@example.org",
        "ann@example.org eve@example.org",
        "ann@@example.org",
        "ann@eve@example.org",
        ".ann@example.org",
        "ann.@example.org",
        "ann..smith@example.org",
        "\"ann smith\"@example.org",
        "\"ann\"@example.org",
        "ann(comment)@example.org",
        "<ann@example.org>",
        "Ann <ann@example.org>",
        "a\\b@example.org",
        "ann;eve@example.org",
        "mailto:ann@example.org",
        "ann@localhost",
        "ann@example",
        "ann@example.org.",
        "ann@.example.org",
        "ann@example..org",
        "ann@-example.org",
        "ann@example-.org",
        "ann@exa_mple.org",
        "ann@[192.0.2.1]",
        "ann@[IPv6:2001:db8::1]",
        "ann@192.0.2.1",
        "ann@example.123",
        "ann@example.org>",
        "ann@exam%70le.org",
        "ann@example.org:25",
        "ann@xn--.example",
        "ann@\u{301}a.example",
        "\u{202e}ann@example.org",
        "ann\u{2028}@example.org",
        "ann\u{a0}@example.org",
        "ann\u{200b}@example.org",
        "ann@exam\u{ad}ple.org",
        "ann@\u{660}.example",
    ];
    let mut all: Vec<String> = plain.map(str::to_owned).into();
    all.extend([
        format!("{}@example.org", "l".repeat(64)),
        format!("{}@example.org", "l".repeat(65)),
        format!("ann@{label}.example"),
        format!("ann@{label}d.example"),
        format!("{}@{label}.{label}.{label}.example", "l".repeat(54)),
        format!("{}@{label}.{label}.{label}.example", "l".repeat(56)),
        format!("a@{label}.{label}.{label}.{label}.example"),
    ]);
    all
}

/// Where we differ, on purpose: the text, whether we take it, and why.
const DIFFERENT: [(&str, bool, &str); 5] = [
    ("ann@example.test", true, "a name for tests goes nowhere, and trying out needs one"),
    ("ann@mail.local", true, "a company's own relay may know it"),
    ("ann@🙈.example", true, "registered under IDNA 2003 and UTS 46, and mail goes there"),
    ("ann@xn--ls8h.example", true, "the same as an A-label"),
    ("=?utf-8?q?ann?=@example.org", false, "some programs decode it, and what it then says is not checked"),
];

#[test]
fn i3_addresses_are_taken_and_refused_as_email_validator_does() {
    let mut texts = alike();
    assert!(texts.len() >= 60);
    let of_both = texts.len();
    texts.extend(DIFFERENT.iter().map(|(text, ..)| (*text).to_owned()));
    let judged = tools::run_json(tools::python("judge_addresses.py"), json!(texts).to_string());
    let judged = judged.as_array().unwrap();
    assert_eq!(judged.len(), texts.len());
    let mut wrong = Vec::new();
    for (n, (text, judged)) in texts.iter().zip(judged).enumerate() {
        let ours = EmailAddress::parse(text);
        let agreed = match (&ours, judged.get("domain")) {
            // Taken by both: the same octets go out.
            (Ok(ours), Some(domain)) => {
                ours.local() == judged["local"] && ours.domain() == domain.as_str().unwrap().to_lowercase()
            }
            (Err(_), None) => true,
            _ => false,
        };
        let expected = if n < of_both { agreed } else { !agreed && ours.is_ok() == DIFFERENT[n - of_both].1 };
        if !expected {
            wrong.push(format!("{text:?}: {ours:?}, {judged}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_what_is_no_address_is_refused_wherever_one_is_given() {
    let tidings = Tidings::start_web(Database::sqlite()).await;
    tidings.ready_to_send().await;
    let bad = [
        "a@localhost",
        "a@[192.0.2.1]",
        "a@example.org.",
        "a b@example.org",
        "\"a b\"@example.org",
        "a@exa mple.org",
        "",
        "a@@example.org",
        "=?utf-8?q?a?=@example.org",
    ];
    let import = bad.map(|email| format!("{}\n", json!({ "email": email }))).concat();
    for email in bad {
        tidings.post("/recipients", json!({ "email": email })).await.refuses("/email");
        let body =
            json!({ "brand": "acme", "topic": "marketing", "template": "hello", "to": { "email": email } });
        tidings.post("/messages", body).await.refuses("/to/email");
        tidings
            .post("/opt-outs", json!({ "email": email, "scope": "all", "channel": "phone" }))
            .await
            .refuses("/email");
    }
    let report = tidings.post_text("/recipients/import", "application/x-ndjson", import).await.ok();
    assert_eq!((&report["rejected"], &report["created"]), (&json!(bad.len()), &json!(0)), "{report}");
    tidings.stop().await;
}
