//! U9, U10: whoever only looks changes nothing.

use futures_util::future::join_all;
use serde_json::json;

use super::super::provider::{self, OneClick, Request, person};
use super::rows_about_people;
use crate::harness::{Database, tools};

/// How those that look at every link in a mail, or show what lies behind it, call themselves.
const SCANNERS: [&str; 10] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0.5993.70 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0) Microsoft Office/16.0 (SafeLinks)",
    "BarracudaCentral/1.0 (Barracuda Sentinel EE)",
    "Proofpoint URL Defense",
    "Mimecast Targeted Threat Protection",
    "Mozilla/5.0 (compatible; GoogleImageProxy; via ggpht.com)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "facebookexternalhit/1.1",
    "python-requests/2.31.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/119.0.0.0 Safari/537.36",
];

/// How they ask, besides.
const MANNERS: [&[&str]; 10] = [
    &[],
    &["Purpose: prefetch", "Sec-Purpose: prefetch;prerender", "X-Moz: prefetch"],
    &["Range: bytes=0-1023", "Accept: */*"],
    &["If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT", "If-None-Match: *"],
    &["X-HTTP-Method-Override: POST", "X-Method-Override: POST", "X-HTTP-Method: POST"],
    &["Referer: https://outlook.office.com/", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"],
    &["Accept: application/json", "Content-Type: application/json"],
    &["Origin: https://mail.google.com", "Access-Control-Request-Method: POST"],
    &["Connection: close"],
    &["Accept-Encoding: gzip, deflate, br", "Accept-Language: ar, de;q=0.8"],
];

/// What they add to the link.
const QUERIES: [&str; 5] =
    ["", "?List-Unsubscribe=One-Click", "?scope=all&page=1", "?_method=POST", "?undo=1&utm_source=x"];

/// A hundred requests of this method, each as another scanner makes it.
fn looks(method: &'static str) -> Vec<(Request, &'static str)> {
    let looks = (0..100).map(|n| {
        let agent = format!("User-Agent: {}", SCANNERS[n % 10]);
        let look =
            Request::bare(method, &format!("{method} {n}")).with(MANNERS[(n / 10 + n) % 10]).with(&[&agent]);
        (look, QUERIES[n % 5])
    });
    looks.collect()
}

on_both! {
    async fn u9_three_hundred_looks_at_a_link_in_scanners_manner_change_nothing(database: Database) {
        let tidings = provider::start(database).await;
        tidings.recipients(1).await;
        tidings.send_to_all("acme", "marketing").await;
        let link = OneClick::of(&tidings.smtp.wait_for_message_to(&person(0)).await);
        let before = rows_about_people(&tidings).await;
        for method in ["GET", "HEAD", "OPTIONS"] {
            let wanted = if method == "OPTIONS" { 204 } else { 200 };
            // Fifty connections at a time; a scanner that asks with a body is the oddest of all.
            for some in looks(method).chunks(50) {
                let replies = join_all(some.iter().map(async |(look, query)| {
                    look.send(&tidings, &format!("{}{query}", link.path())).await
                }));
                for (reply, (look, _)) in replies.await.iter().zip(some) {
                    assert_eq!(reply.status, wanted, "{}: {}", look.name, reply.head);
                    assert!(reply.header("Set-Cookie").is_none() && reply.header("Location").is_none(), "{}", reply.head);
                }
            }
            let mut bodied = Request::one_click(method);
            bodied.method = method;
            bodied.send(&tidings, link.path()).await;
        }
        assert_eq!(rows_about_people(&tidings).await, before);
        let next = tidings.send_to_all("acme", "marketing").await;
        assert_eq!((&next["counts"]["sent"], &next["counts"]["suppressed"]), (&json!(1), &json!(0)), "{next}");
        // What they saw was the page with the button, which works.
        Request::one_click("a click at last").send(&tidings, link.path()).await.honours_a_click("a click at last");
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u9_head_answers_with_the_headers_of_get_and_no_body() {
    let tidings = provider::start(Database::sqlite()).await;
    tidings.recipients(1).await;
    let link = OneClick::of(&tidings.mail_of("acme", "marketing", &person(0)).await);
    for path in [link.path(), "/u/x"] {
        let ask = async |method| {
            Request::bare(method, method).with(&["Connection: close"]).send(&tidings, path).await
        };
        let (get, head) = (ask("GET").await, ask("HEAD").await);
        assert_eq!(get.lasting_headers(), head.lasting_headers());
        assert_eq!(get.header("content-length").unwrap(), get.body.len().to_string());
        assert!(head.body.is_empty() && !get.body.is_empty(), "{}", String::from_utf8_lossy(&head.body));
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u10_every_state_of_the_page_left_open_for_half_a_minute_in_a_browser_with_scripts_does_nothing_by_itself()
 {
    let tidings = provider::start(Database::sqlite()).await;
    // What a person did before the page was left open; none: it was only opened.
    let states = [
        ("asks", ""),
        ("done", "once"),
        ("narrower", "scope"),
        ("taken back", "undo"),
        ("asks again", "before"),
    ];
    tidings.recipients(states.len()).await;
    tidings.send_to_all("acme", "marketing").await;
    let mut pages = Vec::new();
    for (n, (name, acts)) in states.iter().enumerate() {
        let link = OneClick::of(&tidings.smtp.wait_for_message_to(&person(n)).await);
        if *acts == "before" {
            tidings.one_click(link.path()).await.is(200);
        }
        pages.push(json!({ "name": name, "url": format!("{}{}", tidings.base, link.path()), "acts": acts }));
    }
    pages.push(json!({ "name": "forged", "url": format!("{}/u/x", tidings.base), "acts": "" }));
    let mail = tidings.smtp.messages_to(&person(0)).remove(0);
    let html =
        mail.parsed().body_html(0).unwrap().replace(&format!("https://{}", provider::HOST), &tidings.base);
    pages.push(json!({ "name": "the mail itself", "html": html, "acts": "" }));

    // The browser acts first, then says so and leaves everything open; here the rows are counted in between.
    let input = json!({ "pages": pages, "seconds": 30 }).to_string();
    let base = tidings.base.clone();
    let report = tokio::task::spawn_blocking(move || tools::run_json(tools::node("left_open.cjs"), input))
        .await
        .unwrap();
    for page in report["pages"].as_array().unwrap() {
        assert_eq!(page["scripts"], 0, "{page}");
        assert_eq!(page["handlers"], json!([]), "{page}");
        assert_eq!(page["refresh"], 0, "{page}");
        assert_eq!(page["requests_while_open"], json!([]), "{page}");
        assert_eq!(page["foreign"], json!([]), "nothing but {base}: {page}");
        assert_eq!(page["left_for"], 30, "{page}");
    }
    let said = |n: usize| format!("/explain?email={}&brand=acme&topic=marketing", person(n));
    let expected = ["send", "suppress", "suppress", "send", "suppress"];
    for (n, expected) in expected.into_iter().enumerate() {
        assert_eq!(tidings.get(&said(n)).await.ok()["decision"], expected, "{}", states[n].0);
    }
    for (n, events) in [(0, 0), (4, 2)] {
        let kept = tidings.get(&format!("/opt-outs?email={}", person(n))).await.ok();
        assert_eq!(kept["items"].as_array().unwrap().len(), events, "{}: {kept}", states[n].0);
    }
    tidings.stop().await;
}
