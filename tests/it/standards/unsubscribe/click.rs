//! U4, U5, U6, U7, U20: the click itself, as each provider sends it.
//!
//! Every form goes through a message of its own: a campaign is captured, each person's provider sends its form, and the
//! next campaign leaves all of them out while everybody else still gets it.

use serde_json::json;

use super::super::provider::{self, HOST, ONE_CLICK, OneClick, Request, URLENCODED, person, read_by_others};
use crate::harness::Database;

/// A multipart/form-data body with the one field; `part` are further headers of the part, with line ends.
fn multipart(boundary: &str, part: &str) -> String {
    format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n{part}\r\nOne-Click\r\n--{boundary}--\r\n"
    )
}

/// Sends each form for a person of its own and shows that it worked, now and for the next campaign.
async fn each_unsubscribes(database: Database, forms: &[Request]) {
    let tidings = provider::start(database).await;
    tidings.recipients(forms.len() + 1).await;
    tidings.send_to_all("acme", "marketing").await;
    for (n, form) in forms.iter().enumerate() {
        let mail = tidings.smtp.wait_for_message_to(&person(n)).await;
        let link = OneClick::of(&mail);
        form.send(&tidings, link.path()).await.honours_a_click(&form.name);
        let path = format!("/explain?email={}&brand=acme&topic=marketing", person(n));
        let said = tidings.get(&path).await.ok();
        assert_eq!(said["decision"], "suppress", "{}: {said}", form.name);
        let kept = tidings.get(&format!("/opt-outs?email={}", person(n))).await.ok();
        assert_eq!(kept["items"][0]["channel"], "one_click", "{}: {kept}", form.name);
    }
    let next = tidings.send_to_all("acme", "marketing").await;
    assert_eq!(next["counts"]["suppressed"], forms.len(), "{next}");
    assert_eq!(next["counts"]["sent"], 1, "who did not click still gets it: {next}");
    for n in 0..=forms.len() {
        let expected = if n == forms.len() { 2 } else { 1 };
        assert_eq!(tidings.smtp.messages_to(&person(n)).len(), expected, "person {n}");
    }
    tidings.stop().await;
}

on_both! {
    async fn u4_twenty_six_octets_urlencoded_unsubscribe_with_no_other_step(database: Database) {
        assert_eq!(ONE_CLICK.len(), 26);
        let octets: Vec<Vec<u8>> = ONE_CLICK.bytes().map(|octet| vec![octet]).collect();
        let old = |name: &str, host: Option<String>| Request { version: "HTTP/1.0", host, ..Request::one_click(name) };
        let forms = [
            Request::one_click("as Gmail publishes it"),
            Request::post("with a charset", "application/x-www-form-urlencoded; charset=UTF-8", ONE_CLICK),
            Request::post("in capitals", "APPLICATION/X-WWW-FORM-URLENCODED", ONE_CLICK),
            Request::post("escaped", URLENCODED, "List%2DUnsubscribe=One%2DClick"),
            Request::post("with a line end", URLENCODED, "List-Unsubscribe=One-Click\r\n"),
            Request::chunked("in chunks", URLENCODED, ONE_CLICK, &[1, 3, 5, 2]),
            Request { pieces: octets, ..Request::one_click("an octet at a time") },
            Request { waits: true, ..Request::one_click("asks first") }.with(&["Expect: 100-continue"]),
            old("HTTP/1.0", Some(HOST.to_owned())),
            old("HTTP/1.0 without a host", None),
            Request::one_click("hangs up afterwards").with(&["Connection: close"]),
        ];
        each_unsubscribes(database, &forms).await;
    }

    async fn u5_multipart_form_data_unsubscribes_whatever_its_boundary_and_headers(database: Database) {
        let form = |name: &str, kind: &str, body: String| Request::post(name, kind, body);
        let all_kinds = "b'()+_,-./:=? 1";
        let longest = "b".repeat(70);
        // RFC 8058 §8.2 prints its boundary without the two hyphens before it; some read that as it stands.
        let printed = "---FormBoundaryjWmhtjORrn\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n---FormBoundaryjWmhtjORrn--\r\n";
        let typed = "Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n";
        let before_and_after = format!("Not for forms.\r\n{}\r\nNor is this.", multipart("b1", ""));
        let others = format!("--b1\r\nContent-Disposition: form-data; name=\"x\"; filename=\"List-Unsubscribe\"\r\n\r\n--b\r\n{}", multipart("b1", ""));
        let mut forms = vec![
            form("plain", "multipart/form-data; boundary=b1", multipart("b1", "")),
            form("quoted", "multipart/form-data; boundary=\"b1\"", multipart("b1", "")),
            form("every character", &format!("multipart/form-data; boundary=\"{all_kinds}\""), multipart(all_kinds, "")),
            form("70 octets", &format!("multipart/form-data; boundary={longest}"), multipart(&longest, "")),
            form("the standard's own", "multipart/form-data; boundary=---FormBoundaryjWmhtjORrn", multipart("---FormBoundaryjWmhtjORrn", "")),
            form("the standard's own as printed", "multipart/form-data; boundary=---FormBoundaryjWmhtjORrn", printed.to_owned()),
            form("charset after", "multipart/form-data; boundary=b1; charset=utf-8", multipart("b1", "")),
            form("charset before", "multipart/form-data;charset=\"utf-8\";boundary=b1", multipart("b1", "")),
            form("in capitals", "Multipart/Form-Data; Boundary=B1", multipart("B1", "")),
            form("a part with a type", "multipart/form-data; boundary=b1", multipart("b1", typed)),
            form("preamble and epilogue", "multipart/form-data; boundary=b1", before_and_after),
            form("other parts", "multipart/form-data; boundary=b1", others),
            form("no line end at the end", "multipart/form-data; boundary=b1", multipart("b1", "").trim_end().to_owned()),
            form("bare line feeds", "multipart/form-data; boundary=b1", multipart("b1", "").replace("\r\n", "\n")),
            Request::chunked("in odd chunks", "multipart/form-data; boundary=b1", &multipart("b1", ""), &[7, 1, 13, 2]),
        ];
        forms.push(Request { waits: true, ..form("asks first", "multipart/form-data; boundary=b1", multipart("b1", "")) }.with(&["Expect: 100-continue"]));
        each_unsubscribes(database, &forms).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u4_u5_the_requests_that_another_library_builds_from_the_mail_unsubscribe() {
    let tidings = provider::start(Database::sqlite()).await;
    tidings.recipients(4).await;
    tidings.send_to_all("acme", "marketing").await;
    let mails = tidings.smtp.messages();
    for (n, (mail, read)) in mails.iter().zip(read_by_others(&mails)).enumerate() {
        let click = &read["clicks"][n % 2];
        let url = url::Url::parse(click["url"].as_str().unwrap()).unwrap();
        let mut form = Request::bare("POST", "listunsub");
        for (name, value) in click["headers"].as_object().unwrap() {
            form.headers.push(format!("{name}: {}", value.as_str().unwrap()));
        }
        form.pieces.push(click["body"].as_str().unwrap().as_bytes().to_vec());
        form.send(&tidings, url.path()).await.honours_a_click("listunsub");
        let path = format!("/explain?email={}&brand=acme&topic=marketing", mail.recipient());
        assert_eq!(tidings.get(&path).await.ok()["decision"], "suppress");
    }
    assert_eq!(tidings.send_to_all("acme", "marketing").await["counts"]["suppressed"], 4);
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u6_a_click_is_never_sent_elsewhere_whatever_its_way_was() {
    let tidings = provider::start(Database::sqlite()).await;
    type Change = fn(&str) -> String;
    let targets: [(&str, Change); 9] = [
        ("as it stands", |path| path.to_owned()),
        ("a slash at the end", |path| format!("{path}/")),
        ("a query", |path| format!("{path}?utm_source=mail&lang=de")),
        ("an empty query", |path| format!("{path}?")),
        ("a full stop", |path| format!("{path}.")),
        ("the whole URL", |path| format!("https://{HOST}{path}")),
        ("the whole URL in clear text", |path| format!("http://{HOST}{path}")),
        ("the whole URL in capitals", |path| format!("HTTPS://{}{path}", HOST.to_uppercase())),
        ("an escaped letter", |path| {
            let (start, token) = path.split_at(3);
            format!("{start}%{:02X}{}", token.as_bytes()[0], &token[1..])
        }),
    ];
    let ways: [(&str, Option<&str>, &[&str]); 7] = [
        ("the host of the link", Some(HOST), &[]),
        ("the host in capitals", Some("MAIL.EXAMPLE.COM"), &[]),
        ("the host with a port", Some("mail.example.com:443"), &[]),
        ("another host", Some("www.example.net"), &[]),
        (
            "clear text, as the proxy says",
            Some(HOST),
            &["X-Forwarded-Proto: http", "Forwarded: proto=http;host=x.example"],
        ),
        ("another language", Some(HOST), &["Accept-Language: de-AT, ar;q=0.5"]),
        (
            "an upgrade",
            Some(HOST),
            &[
                "Upgrade-Insecure-Requests: 1",
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABkAAQAAP__",
            ],
        ),
    ];
    tidings.recipients(targets.len() * ways.len()).await;
    tidings.send_to_all("acme", "marketing").await;
    let mut n = 0;
    for (target, change) in targets {
        for (way, host, headers) in ways {
            let name = format!("{target}, {way}");
            let mail = tidings.smtp.wait_for_message_to(&person(n)).await;
            let form = Request { host: host.map(str::to_owned), ..Request::one_click(&name) }.with(headers);
            let reply = form.send(&tidings, &change(OneClick::of(&mail).path())).await;
            reply.honours_a_click(&name);
            let path = format!("/explain?email={}&brand=acme&topic=marketing", person(n));
            assert_eq!(tidings.get(&path).await.ok()["decision"], "suppress", "{name}");
            n += 1;
        }
    }
    // A forged one is not sent elsewhere either.
    for path in ["/u/x", "/u/x/", "/u/", "/u"] {
        let reply = Request::one_click(path).send(&tidings, path).await;
        assert!(reply.status == 404 && reply.header("Location").is_none(), "{path}: {}", reply.head);
    }
    tidings.stop().await;
}

on_both! {
    async fn u7_a_click_needs_nothing_that_a_browser_would_bring_and_leaves_nothing_behind(database: Database) {
        let forms = [
            Request::one_click("nothing but host, type and length"),
            Request::one_click("no origin").with(&["Origin: null"]),
            Request::one_click("from elsewhere").with(&[
                "Origin: https://mail.yahoo.com", "Referer: https://mail.yahoo.com/d/folders/1", "Sec-Fetch-Site: cross-site",
                "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document",
            ]),
            Request::one_click("no origin, from elsewhere").with(&["Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"]),
            Request::one_click("somebody's cookies").with(&["Cookie: session=1; __Host-csrf=2"]),
            Request::one_click("somebody's credentials").with(&["Authorization: Bearer nonsense"]),
            Request::one_click("somebody's user agent").with(&["User-Agent: Mozilla/5.0 (compatible; YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html)"]),
            Request::one_click("an empty user agent").with(&["User-Agent:", "Accept-Encoding: gzip, deflate, br", "Accept: */*"]),
            Request::one_click("through proxies").with(&["Via: 1.1 google", "X-Forwarded-For: 203.0.113.7, 10.0.0.1", "Max-Forwards: 0"]),
            Request::one_click("names in lower case").with(&["x-a: 1", "x-a: 2", "accept-language: "]),
            Request::one_click("a condition").with(&["If-None-Match: *", "If-Match: \"x\"", "Range: bytes=0-1", "Cache-Control: only-if-cached"]),
            Request::one_click("a prefetch").with(&["Purpose: prefetch", "Sec-Purpose: prefetch;prerender"]),
        ];
        each_unsubscribes(database, &forms).await;
    }

    async fn u20_an_odd_body_still_unsubscribes(database: Database) {
        let long = format!("x={}", "y".repeat(10 * 1024 - 2));
        let longest = "z".repeat(64 * 1024);
        let forms = [
            Request::bare("POST", "no body, and nothing said of it"),
            Request::bare("POST", "no body").with(&["Content-Length: 0"]),
            Request::post("no body of a form", URLENCODED, ""),
            Request::post("lower case", URLENCODED, "list-unsubscribe=one-click"),
            Request::post("another word", URLENCODED, "List-Unsubscribe=Maybe"),
            Request::post("more fields", URLENCODED, "a=1&List-Unsubscribe=One-Click&scope=nonsense&=&&%zz=%"),
            Request::post("with an undo", URLENCODED, "List-Unsubscribe=One-Click&undo=1"),
            Request::post("10 kB", URLENCODED, long),
            Request::post("64 kB", "text/plain", longest),
            Request::post("JSON", "application/json", "{\"scope\":"),
            Request::post("no text", "application/octet-stream", b"\0\xff\xfe\r\n"),
            Request::post("a type that is none", "nonsense; boundary", ONE_CLICK),
            Request::post("multipart without a boundary", "multipart/form-data", multipart("b1", "")),
            Request::post("multipart that breaks off", "multipart/form-data; boundary=b1", "--b1\r\nContent-Disposition: form-da"),
            Request::post("another boundary", "multipart/form-data; boundary=b2", multipart("b1", "")),
            Request::post("no Content-Disposition", "multipart/form-data; boundary=b1", "--b1\r\n\r\nOne-Click\r\n--b1--"),
            Request::post("a type with odd octets", "multipart/form-data; boundary=\"\u{fc}", multipart("b1", "")),
        ];
        each_unsubscribes(database, &forms).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u20_a_body_over_64_kb_is_413_and_changes_nothing() {
    let tidings = provider::start(Database::sqlite()).await;
    tidings.recipients(2).await;
    tidings.send_to_all("acme", "marketing").await;
    let too_long = "x".repeat(64 * 1024 + 1);
    for (n, form) in [
        Request::post("said in advance", URLENCODED, &too_long),
        Request::chunked("found out", URLENCODED, &too_long, &[8_191]),
    ]
    .into_iter()
    .enumerate()
    {
        let link = OneClick::of(&tidings.smtp.wait_for_message_to(&person(n)).await);
        let reply = form.send(&tidings, link.path()).await;
        assert_eq!(reply.status, 413, "{}: {}", form.name, reply.head);
        let kept = tidings.get(&format!("/opt-outs?email={}", person(n))).await.ok();
        assert_eq!(kept["items"], json!([]), "{}", form.name);
        Request::one_click("the same link afterwards")
            .send(&tidings, link.path())
            .await
            .honours_a_click(&form.name);
    }
    tidings.stop().await;
}
