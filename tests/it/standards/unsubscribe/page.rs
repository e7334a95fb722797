//! U15: a click stops the list of the message; the page offers every scope and "stop all"; service mail still comes.

use serde_json::json;

use super::super::provider::{self, OneClick, Request, person};
use super::decision;
use crate::harness::{Database, Tidings};

const SCOPES: [&str; 3] = ["topic", "brand", "all"];

async fn one_click_stops(tidings: &Tidings, scope: &str) {
    let brand = json!({
        "name": "ACME", "from": "acme <news@acme.example.com>", "postal_address": "1 Main Street", "one_click_scope": scope,
    });
    tidings.put("/brands/acme", brand).await.ok();
}

/// The forms of a page: the fields that each would send when its button is pressed.
fn forms(html: &str) -> Vec<Vec<(String, String)>> {
    let attribute = |tag: &str, name: &str| {
        let (_, value) = tag.split_once(&format!(" {name}=\""))?;
        Some(value.split('"').next().unwrap().to_owned())
    };
    let fields = |form: &str| {
        let inside = form.split("</form>").next().unwrap();
        let tags = inside.split('<').filter(|tag| tag.starts_with("input") || tag.starts_with("button"));
        tags.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?))).collect()
    };
    html.split("<form").skip(1).map(fields).collect()
}

/// What of acme and of bee this person would still get: marketing of acme, its reminders, marketing of bee, service.
async fn still_gets(tidings: &Tidings, email: &str) -> [bool; 4] {
    let mut still = [false; 4];
    let asked = [("acme", "marketing"), ("acme", "reminder"), ("bee", "marketing"), ("acme", "service")];
    for (still, (brand, topic)) in still.iter_mut().zip(asked) {
        *still = decision(tidings, brand, topic, email).await == "send";
    }
    still
}

on_both! {
    async fn u15_the_page_offers_every_scope_and_each_stops_what_it_says_and_no_service_mail(database: Database) {
        let tidings = provider::start(database).await;
        tidings.brand_with_every_class("bee").await;
        let stopped = |scope: &str| match scope {
            "topic" => [false, true, true, true],
            "brand" => [false, false, true, true],
            _ => [false, false, false, true],
        };
        let mut all_out = Vec::new();
        for default in SCOPES {
            one_click_stops(&tidings, default).await;
            // The button of the first page stops what the brand says.
            let email = format!("{default}@people.example.com");
            let link = OneClick::of(&tidings.mail_of("acme", "marketing", &email).await);
            let asks = tidings.page(link.path()).await;
            let ask = forms(&asks.is(200).text);
            assert!(ask.len() == 1 || ask.iter().any(|form| form.iter().any(|(name, _)| name == "scope")), "{}", asks.text);
            let first: Vec<(&str, &str)> = ask[0].iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let done = tidings.submit(link.path(), &first).await;
            assert_eq!(still_gets(&tidings, &email).await, stopped(default), "{default}");
            // From there every other scope is one press away, the widest among them.
            for wanted in SCOPES.into_iter().filter(|scope| *scope != default) {
                let offered = forms(&done.is(200).text);
                let form = offered.iter().find(|form| form.iter().any(|(name, value)| name == "scope" && value == wanted));
                let form = form.unwrap_or_else(|| panic!("{default}: no way to {wanted}: {}", done.text));
                let email = format!("{default}-{wanted}@people.example.com");
                let link = OneClick::of(&tidings.mail_of("acme", "marketing", &email).await);
                Request::one_click("first").send(&tidings, link.path()).await.honours_a_click("first");
                let fields: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                tidings.submit(link.path(), &fields).await.is(200);
                assert_eq!(still_gets(&tidings, &email).await, stopped(wanted), "{default}, then {wanted}");
                if wanted == "all" {
                    all_out.push(email);
                }
            }
            if default == "all" {
                all_out.push(email);
            }
        }
        // Who stopped all gets nothing more that can be refused, from any brand; what cannot be refused still comes.
        let heard: Vec<usize> = all_out.iter().map(|email| tidings.smtp.messages_to(email).len()).collect();
        for brand in ["acme", "bee"] {
            for class in ["relationship", "reminder", "marketing"] {
                tidings.send_to_all(brand, class).await;
            }
        }
        for (email, heard) in all_out.iter().zip(heard) {
            assert_eq!(tidings.smtp.messages_to(email).len(), heard, "{email}");
            tidings.mail_of("acme", "service", email).await;
            tidings.mail_of("bee", "requested", email).await;
        }
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u15_a_click_from_the_mail_program_stops_the_list_of_the_message() {
    let tidings = provider::start(Database::sqlite()).await;
    tidings.recipients(1).await;
    for (n, scope) in SCOPES.into_iter().enumerate() {
        one_click_stops(&tidings, scope).await;
        let link = OneClick::of(&tidings.mail_of("acme", "reminder", &person(n)).await);
        Request::one_click(scope).send(&tidings, link.path()).await.honours_a_click(scope);
        assert_eq!(decision(&tidings, "acme", "reminder", &person(n)).await, "suppress");
        tidings.mail_of("acme", "service", &person(n)).await;
    }
    tidings.stop().await;
}
