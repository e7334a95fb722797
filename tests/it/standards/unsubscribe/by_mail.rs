//! U17: a `mailto:` after the https link, and what it asks for is done.

use super::super::provider::{OneClick, public, read_by_others};
use super::decision;
use crate::harness::{Database, Tidings, UnsubscribeMail};
use crate::intake::takes_mail;
use crate::promises::count;

on_both! {
    async fn u17_the_mailto_after_the_https_link_unsubscribes_and_a_forged_one_does_not(database: Database) {
        let tidings = Tidings::start_with(database, |settings| {
            public(settings);
            takes_mail(settings);
        })
        .await;
        tidings.ready_to_send().await;
        tidings.recipient("ada@example.org").await;
        let mail = tidings.mail_of("acme", "marketing", "ada@example.org").await;
        // Providers find one https link as before, and listunsub has nothing to say against the mailto.
        let link = OneClick::of(&mail);
        assert_eq!(read_by_others(std::slice::from_ref(&mail))[0]["problems"], serde_json::json!([]));
        let field = mail.header("List-Unsubscribe").unwrap();
        assert_eq!(
            field,
            format!("<{}>, <mailto:unsubscribe@lists.example.com?subject={}>", link.url(), link.token())
        );
        let unsubscribe = UnsubscribeMail::of(&mail);
        let mut forged = UnsubscribeMail::of(&mail);
        let (kept, last) = forged.token.split_at(forged.token.len() - 1);
        let subject = format!("Subject: {kept}{}", if last == "A" { "B" } else { "A" });
        forged.message = format!("From: ada@example.org\n{subject}\n\n");
        forged.send(tidings.inbound(), "ESMTP", "ada@example.org").await.ok();
        assert_eq!(count(&tidings, "opt_events").await, 0);
        assert_eq!(decision(&tidings, "acme", "marketing", "ada@example.org").await, "send");
        unsubscribe.send(tidings.inbound(), "ESMTP", "ada@example.org").await.ok();
        assert_eq!(decision(&tidings, "acme", "marketing", "ada@example.org").await, "suppress");
        assert_eq!(decision(&tidings, "acme", "service", "ada@example.org").await, "send");
        tidings.stop().await;
    }
}
