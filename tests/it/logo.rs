//! A brand's logo: sent as an image, kept, and served to pages and mail.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Database, Tidings};

/// A PNG of 320 by 80 pixels, as a brand's `logo`.
pub(crate) const LOGO: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAUAAAABQAgMAAAAVX0QWAAAADFBMVEX///8SPC7ZbCwAAAC0TatkAAAAAXRSTlMAQObYZgAAATNJREFUeNrtmEEOgjAQRalJN+7nEp6CI3TB3MejuCQ9pYLAtEKjgbdoDLMxhfgy/S3Tzm+aM7DwqgHmoUSnY7QYUN7ADk6QS1FmYAcnSKXoDRjYGVNz1iRgCRkRfQoMrISMiKqsiG7OTCAR/ZIYJKJVLqiGiSnHrIoYRRBgshIOWeYUQgBdOk0B9k0BmO30Hwe2a8J6cAzYpulWB5RpcOsnTscALzHeMeCAuMXY2wgAxlcwQP0E6vS4sd/s8ym/WYBhlHAU0VcLvA7Axwn8b2Dl+5D99IrFIftbVg9Kb76UrwPA7QJ7ELg+AvYCi4dUVcDNg34vsHgVgYEVXef4Cyd+JcYv7XhbgTc+eGuGN498e4s34LhFgJsYvM2CG0G4VYWbabzdhxuSvGWKm7q87XzG/ngCHiTqQqnW6MwAAAAASUVORK5CYII=";

fn body(logo: &Value) -> Value {
    json!({ "name": "Acme", "from": "news@acme.example", "postal_address": "1 Main Street", "logo": logo })
}

/// The path of a URL that the API gave.
fn path(url: &str) -> String {
    url::Url::parse(url).unwrap().path().to_owned()
}

on_both! {
    async fn a_logo_is_served_by_its_digest_for_ever_and_can_do_nothing_but_be_shown(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let made = tidings.put("/brands/acme", body(&json!(LOGO))).await.is(201).json();
        let logo = path(made["logo"].as_str().unwrap());
        assert!(logo.starts_with("/logo/") && logo.ends_with("-320x80.png"), "{made}");

        let ask = |method: Method| tidings.anonymous().request(method, &logo);
        let answer = ask(Method::GET).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let headers = answer.headers().clone();
        let octets = answer.bytes().await.unwrap();
        assert!(octets.starts_with(b"\x89PNG\r\n\x1a\n"));
        for (name, value) in [
            ("content-type", "image/png"),
            ("cache-control", "public, max-age=31536000, immutable"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
        ] {
            assert_eq!(headers[name], value);
        }
        assert!(!headers.contains_key("set-cookie"));
        let head = Answer::of(ask(Method::HEAD)).await;
        head.is(200);
        assert_eq!(head.header("content-length"), octets.len().to_string());

        let tag = headers["etag"].to_str().unwrap();
        for known in [tag.to_owned(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = Answer::of(ask(Method::GET).header("if-none-match", known)).await;
            again.is(304);
            assert_eq!((again.text.as_str(), again.header("etag")), ("", tag));
        }
        Answer::of(ask(Method::GET).header("if-none-match", "\"x\"")).await.is(200);
        let refused = Answer::of(ask(Method::POST)).await;
        refused.is(405);
        assert_eq!(refused.header("allow"), "GET,HEAD");
        for unknown in ["/logo/x", "/logo/00000000000000000000000000000000-320x80.png", "/logo/..%2f..%2fetc%2fpasswd"] {
            let answer = tidings.page(unknown).await;
            answer.is(404);
            assert_eq!(answer.header("cache-control"), "no-store");
        }
        tidings.stop().await;
    }

    async fn what_a_get_shows_can_be_put_again_and_null_takes_the_logo_away(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let made = tidings.put("/brands/acme", body(&json!(LOGO))).await.is(201).json();
        let again = tidings.put("/brands/acme", body(&made["logo"])).await.is(200).json();
        assert_eq!(again["logo"], made["logo"]);
        // It follows the brand to another base URL.
        let mut moved = body(&made["logo"]);
        moved["base_url"] = json!("https://news.acme.example/mail");
        let moved = tidings.put("/brands/acme", moved).await.is(200).json();
        let url = moved["logo"].as_str().unwrap();
        assert!(url.starts_with("https://news.acme.example/mail/logo/"), "{url}");
        assert_eq!(tidings.put("/brands/acme", body(&moved["logo"])).await.is(200).json()["logo"], made["logo"]);

        let none = tidings.put("/brands/acme", body(&Value::Null)).await.is(200).json();
        assert_eq!(none["logo"], Value::Null);
        // Mail that was sent still shows it.
        tidings.page(&path(made["logo"].as_str().unwrap())).await.is(200);
        tidings.stop().await;
    }

    async fn a_logo_of_elsewhere_or_of_another_kind_is_refused_with_what_to_do(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let unknown = format!("{}/logo/00000000000000000000000000000000-320x80.png", tidings.base);
        for wrong in [
            "https://acme.example/logo.png",
            "http://acme.example/logo.png",
            "javascript:alert(1)",
            "data:image/svg+xml;base64,PHN2Zy8+",
            "data:image/png;base64,PHN2Zy8+",
            "",
            &unknown,
        ] {
            let reason = tidings.put("/brands/acme", body(&json!(wrong))).await.refuses("/logo");
            assert!(reason.contains("PNG") || reason.contains("data:image/png") || reason.contains("name the type"), "{wrong}: {reason}");
        }
        tidings.get("/brands/acme").await.problem(404);
        tidings.stop().await;
    }
}
