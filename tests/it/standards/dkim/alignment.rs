//! D6: the envelope domain or a signature is aligned with From, or the sender is refused by the name of the field.

use serde_json::{Value, json};
use tidings::serve::{self, Parts};

use super::{DOMAIN, Keys};
use crate::harness::{Database, Tidings};

fn brand(from: &str, bounce_domain: Option<&str>) -> Value {
    json!({
        "name": "Acme", "from": format!("Acme <news@{from}>"), "postal_address": "1 Main Street",
        "bounce_domain": bounce_domain,
    })
}

#[tokio::test]
async fn d6_what_is_sent_is_aligned_by_its_envelope_and_by_its_signature() {
    let keys = Keys::both();
    let tidings = keys.start(Database::sqlite()).await;
    for bounce in [None, Some("bounce.acme.example.com"), Some("mail.example.com"), Some("elsewhere.example")]
    {
        tidings.put("/brands/acme", brand(DOMAIN, bounce)).await.ok();
        let mail = tidings.mail_of("acme", "service", "zoe@people.example.com").await;
        assert!(mail.from.ends_with(&format!("@{}", bounce.unwrap_or(DOMAIN))), "{}", mail.from);
        for one in &keys.judge(&[mail.data])[0] {
            assert!(one.passes_in_both());
            // mailauth looks the organization up in a list of its own.
            assert_eq!(one.mailauth["aligned"], one.mailauth["domain"], "{one:?}");
        }
    }
    tidings.stop().await;
}

#[tokio::test]
async fn d6_a_brand_that_is_aligned_by_neither_is_refused() {
    let mut keys = Keys::none();
    keys.rsa("signed.example", "s1");
    let tidings = keys.start(Database::sqlite()).await;
    for (from, bounce, taken) in [
        ("acme.example", None, true),
        ("acme.example", Some("acme.example"), true),
        ("news.acme.example", Some("acme.example"), true),
        ("acme.example", Some("BOUNCE.Acme.Example"), true),
        ("a.acme.co.uk", Some("b.acme.co.uk"), true),
        ("bücher.example", Some("b.xn--bcher-kva.example"), true),
        ("signed.example", Some("elsewhere.example"), true),
        ("sub.signed.example", Some("elsewhere.example"), true),
        ("acme.example", Some("elsewhere.example"), false),
        ("acme.co.uk", Some("other.co.uk"), false),
        ("acme.example", Some("notacme.example"), false),
        ("notsigned.example", Some("elsewhere.example"), false),
    ] {
        let answer = tidings.put("/brands/acme", brand(from, bounce)).await;
        assert_eq!(answer.status.is_success(), taken, "{from} {bounce:?}: {}", answer.text);
        if !taken {
            let reason = answer.refuses("/bounce_domain");
            assert!(reason.contains(&format!("bounce.{from}")), "it says what to do: {reason}");
        }
    }
    // Notices have a From of their own.
    let mut both = brand("signed.example", Some("elsewhere.example"));
    both["notice_from"] = json!("Acme <notices@acme.example>");
    let reason = tidings.put("/brands/acme", both).await.refuses("/bounce_domain");
    assert!(reason.contains("From domain acme.example"), "{reason}");
    tidings.stop().await;
}

on_both! {
    async fn d6_an_envelope_domain_of_the_settings_that_is_not_aligned_ends_the_start(database: Database) {
        let mut tidings = Tidings::start(database).await;
        tidings.brand("acme").await;
        tidings.brand("zeta").await;
        let keys = Keys::both();
        // One brand is signed for, the other is not.
        let refused = |settings: &mut tidings::config::Settings| {
            settings.bounce_domain = Some("elsewhere.example".into());
            settings.dkim = keys.entries.clone();
        };
        let mut settings = tidings.app().settings.clone();
        refused(&mut settings);
        settings.listen.set_port(0);
        let error = serve::start(settings, Parts::default()).await.err().expect("a start").to_string();
        assert!(error.contains("TIDINGS_BOUNCE_DOMAIN") && error.contains("zeta"), "{error}");
        tidings.delete("/brands/zeta").await.ok();
        tidings.restart_with(refused).await;
        let answer = tidings.put("/brands/zeta", brand("zeta.example.com", None)).await;
        assert!(answer.refuses("/bounce_domain").contains("TIDINGS_BOUNCE_DOMAIN"));
        tidings.put("/brands/zeta", brand("zeta.example.com", Some("b.zeta.example.com"))).await.ok();
        // A brand's own is changed through the API, so it keeps nothing from starting.
        tidings.put("/brands/acme", brand(DOMAIN, Some("elsewhere.example"))).await.ok();
        tidings.restart_with(|settings| {
            settings.bounce_domain = None;
            settings.dkim.clear();
        })
        .await;
        tidings.stop().await;
    }
}
