//! What mailbox providers and people distrust in who a message is from.
//!
//! Pure. [`distrusted`] is refused when a brand or campaign is written; [`unanswered`] is only pointed out, since a
//! company may have its reasons. What was stored before is left alone.

use unicode_security::restriction_level::{RestrictionLevel, RestrictionLevelDetection};

use super::Mailbox;
use crate::address::EmailAddress;

/// Longest domain of a sender in octets. With a topic's id before it, it makes a `List-Id` of 255 (RFC 2919 §2).
const MAX_DOMAIN: usize = 222;

/// Why providers would distrust a sender of this name and domain, if they would: the display name is to say who sends
/// and nothing else (Gmail's sender guidelines), and a domain must not mix scripts (UTS #39 §5.2).
pub fn distrusted(mailbox: &Mailbox) -> Option<&'static str> {
    let name = &mailbox.name;
    if shows_other_address(mailbox) {
        return Some("the name shows an address that is not the sender's own; name the sender there");
    }
    if name.contains("{{") || name.contains("}}") {
        return Some("the name holds template tags, which are not filled in there; name the sender");
    }
    if shows_count(name) {
        return Some("the name ends like a count of messages, such as (2); name the sender alone");
    }
    if name.contains("=?") || name.chars().any(is_deceptive) {
        return Some("the name holds =? or characters that cannot be seen or turn the direction of writing");
    }
    if mailbox.address.domain().len() > MAX_DOMAIN {
        return Some("the domain is longer than 222 octets");
    }
    if mixes_scripts(mailbox.address.domain()) {
        return Some("the domain mixes scripts, as look-alikes do; use the letters of one");
    }
    None
}

/// Whether the part before the @ says that nobody reads what is sent there.
pub fn unanswered(address: &EmailAddress) -> bool {
    let local: String = address.local().to_lowercase().replace(['.', '_', '+'], "-");
    let said = format!("-{local}-");
    ["noreply", "no-reply", "donotreply", "do-not-reply", "dontreply", "dont-reply", "unattended"]
        .iter()
        .any(|word| said.contains(&format!("-{word}-")))
}

/// Characters that cannot be seen or that turn the direction of what follows.
pub fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn shows_other_address(mailbox: &Mailbox) -> bool {
    let own = mailbox.address.folded();
    let words = mailbox.name.split(|c: char| c.is_whitespace() || "<>()[]{},;:\"'|/".contains(c));
    words.map(|word| word.trim_matches('.')).any(|word| {
        let Some((_, domain)) = word.rsplit_once('@') else { return false };
        let is_own = EmailAddress::parse(word).is_ok_and(|address| address.folded() == own);
        // `@acme` is how a company calls itself elsewhere; `@gmail.com` is a domain.
        !is_own && domain.trim_matches('.').contains('.')
    })
}

/// `(2)`, `[12]`: no more than three digits, so that a year may stand there.
fn shows_count(name: &str) -> bool {
    let name = name.trim_end();
    [('(', ')'), ('[', ']')].into_iter().any(|(open, close)| {
        name.strip_suffix(close).and_then(|head| head.rsplit_once(open)).is_some_and(|(_, inside)| {
            (1..=3).contains(&inside.len()) && inside.bytes().all(|b| b.is_ascii_digit())
        })
    })
}

fn mixes_scripts(domain: &str) -> bool {
    // What cannot be shown in its own letters is shown as an A-label, and looks like nobody.
    let (shown, _) = idna::domain_to_unicode(domain);
    shown
        .split('.')
        .filter(|label| !label.is_ascii())
        .any(|label| !label.check_restriction_level(RestrictionLevel::HighlyRestrictive))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<&'static str> {
        distrusted(&Mailbox::parse(text).unwrap())
    }

    #[test]
    fn a_name_that_says_who_sends_is_fine() {
        for fine in [
            "news@acme.example",
            "Acme <news@acme.example>",
            "\"Acme, Inc. (Köln)\" <news@acme.example>",
            "\"news@acme.example\" <news@acme.example>",
            "\"Acme (NEWS@acme.example)\" <news@acme.example>",
            "\"Meet us @ Acme\" <news@acme.example>",
            "\"@acme\" <news@acme.example>",
            "Studio 54 <news@acme.example>",
            "\"Fair (2027)\" <news@acme.example>",
            "\"Route 66 (Nevada)\" <news@acme.example>",
            "Acme 🙈 <news@acme.example>",
            "مكتبة <news@acme.example>",
            "booking.acme.example <news@acme.example>",
        ] {
            assert_eq!(said(fine), None, "{fine}");
        }
    }

    #[test]
    fn a_name_that_says_something_else_is_not() {
        for (bad, why) in [
            ("\"support@gmail.com\" <news@acme.example>", "address"),
            ("\"Acme via @gmail.com\" <news@acme.example>", "address"),
            ("\"Acme (security@bank.example)\" <news@acme.example>", "address"),
            ("\"ann@other.example, Acme\" <news@acme.example>", "address"),
            ("\"Acme {{name}}\" <news@acme.example>", "template"),
            ("\"Acme (2)\" <news@acme.example>", "count"),
            ("\"Acme [12] \" <news@acme.example>", "count"),
            ("Acme =?utf-8?q?x?= <news@acme.example>", "=?"),
            ("Acme\u{202e}moc <news@acme.example>", "seen"),
        ] {
            assert!(said(bad).is_some_and(|said| said.contains(why)), "{bad}: {:?}", said(bad));
        }
    }

    #[test]
    fn a_domain_is_of_one_script() {
        for fine in ["bücher.example", "例え.テスト", "пример.example", "مثال.example", "日本語ab.example"]
        {
            assert_eq!(said(&format!("n@{fine}")), None, "{fine}");
        }
        // Cyrillic а and о among Latin letters; Greek among Latin; Cyrillic with Greek.
        for bad in ["аcme.example", "gооgle.example", "αcme.example", "пαример.example"] {
            assert!(said(&format!("n@{bad}")).is_some_and(|said| said.contains("scripts")), "{bad}");
        }
        let long =
            format!("n@{}.{}.{}.{}.example", "a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(34));
        assert_eq!(said(&long).map(|said| said.contains("222")), Some(true));
    }

    #[test]
    fn an_address_says_that_nobody_reads_it() {
        let says = |text: &str| unanswered(&EmailAddress::parse(text).unwrap());
        for nobody in
            ["noreply", "No-Reply", "no_reply", "do.not.reply", "noreply+7", "acme-noreply", "DoNotReply"]
        {
            assert!(says(&format!("{nobody}@acme.example")), "{nobody}");
        }
        for somebody in ["reply", "casinoreply", "news", "noreplyers", "notreply"] {
            assert!(!says(&format!("{somebody}@acme.example")), "{somebody}");
        }
    }
}
