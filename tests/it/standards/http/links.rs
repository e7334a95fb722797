//! H7: links as mail programs, scanners and people mangle them.

use reqwest::Method;

use crate::harness::*;
use crate::unsubscribe_page::{decision, path, raw, set_up};

/// What becomes of a link on its way.
type Mangle = Box<dyn Fn(&str) -> String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h7_links_that_were_mangled_on_their_way_still_unsubscribe() {
    let tidings = set_up(Database::sqlite()).await;
    let hung_on = [
        ">",
        ".",
        ",",
        ")",
        "]",
        ";",
        "\"",
        "'",
        "%22",
        "%3E",
        "%3D",
        "=",
        "=3D",
        "%3D%3D",
        ").",
        "/",
        "//",
        "?",
        "#top",
        "?utm_source=mail&utm_medium=email",
        "?utm_source=mail&amp;utm_medium=email",
        "&amp;utm_source=mail",
        "&utm_source=mail",
        "?data=05%7C02%7C%7C08dc&sdata=x%2By%3D&reserved=0",
        "?url=https%3A%2F%2Fx.example%2F&e=1",
        "?=",
        "%20",
        "%0D%0A",
        "%C2%A0",
        "%E2%80%8B",
        "%EF%BB%BF",
        "/index.html",
        "/?mkt_tok=x",
    ];
    let mut mangled: Vec<Mangle> = Vec::new();
    for junk in hung_on {
        mangled.push(Box::new(move |path| format!("{path}{junk}")));
    }
    // Soft line breaks of quoted-printable and folded text, left in by whoever copied it.
    for broken in ["=%0D%0A", "=%0A", "=", "%0A", "%20", "%0D%0A%20", "%E2%80%8B", "%C2%AD"] {
        mangled.push(Box::new(move |path| format!("{}{broken}{}", &path[..76], &path[76..])));
    }
    mangled.push(Box::new(|path| format!("/{path}")));
    mangled.push(Box::new(|path| path.replacen("/u/", "/u//", 1)));
    mangled.push(Box::new(|path| path.replacen("/u/", "/U/", 1)));
    mangled.push(Box::new(|path| path.replacen("/u/", "/u/%20", 1)));
    for (n, mangle) in mangled.iter().enumerate() {
        let email = format!("p{n}@example.org");
        let link = mangle(&path(&tidings, "marketing", &email).await);
        let page = Answer::of(tidings.anonymous().request(Method::GET, &link)).await;
        assert_eq!((page.status.as_u16(), page.text.contains("<button")), (200, true), "{link}");
        assert_eq!(decision(&tidings, "marketing", &email).await, "send", "{link}");
        let click = tidings.one_click(&link).await;
        assert_eq!((click.status.as_u16(), click.header("location")), (200, ""), "{link}");
        assert_eq!(decision(&tidings, "marketing", &email).await, "suppress", "{link}");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h7_a_host_in_another_spelling_is_the_same_host() {
    let tidings = set_up(Database::sqlite()).await;
    for (n, host) in ["NEWS.ACME.EXAMPLE", "news.acme.example:443", "news.acme.example."].iter().enumerate() {
        let email = format!("p{n}@example.org");
        let link = path(&tidings, "marketing", &email).await;
        let click =
            format!("POST {link} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let answer = raw(&tidings, click.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        assert_eq!(decision(&tidings, "marketing", &email).await, "suppress", "{host}");
    }
    tidings.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h7_what_cannot_be_mended_gets_a_page_that_says_how_to_be_left_alone() {
    let tidings = set_up(Database::sqlite()).await;
    let link = path(&tidings, "marketing", "p@example.org").await;
    let cut = link[..link.len() - 9].to_owned();
    for broken in [
        cut.as_str(),
        &link.to_lowercase(),
        "/u",
        "/u/",
        "/u/%FF",
        "/U/x",
        "//u/x",
        "/u/x/y/z",
        "/u/%3Ctoken%3E",
    ] {
        for method in [Method::GET, Method::POST] {
            let page = Answer::of(tidings.anonymous().request(method, broken)).await;
            page.is(404);
            assert_eq!(page.header("location"), "", "{broken}");
            assert!(
                page.text.contains("reply to the message and ask the sender to stop"),
                "{broken}: {}",
                page.text
            );
        }
    }
    assert_eq!(decision(&tidings, "marketing", "p@example.org").await, "send");
    tidings.stop().await;
}
