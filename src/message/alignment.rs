//! Whether mail would pass DMARC (RFC 9989): the domain of the envelope sender, or one that signs, must be aligned with
//! the From domain. Relaxed alignment, which is the default: both have the same organizational domain.
//!
//! Receivers find that domain by asking DNS; here the public suffix list decides, which leads to the same answer unless
//! somebody publishes a DMARC record of their own below their organization's domain. Whether a relay signs is not known
//! here, so mail that only the relay signs needs an envelope domain that is aligned: any name below the organization's
//! serves.

use std::fmt;

use super::DkimKeys;
use crate::brand::{Brand, Mailbox};

/// Whether DMARC in relaxed mode takes these two domains (A-labels, lower case) as one organization's.
pub fn are_aligned(one: &str, other: &str) -> bool {
    one == other
        || psl::domain_str(one).is_some_and(|organization| psl::domain_str(other) == Some(organization))
}

/// A From domain for which neither the envelope domain nor a signature speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misaligned {
    /// The From domain.
    pub from: String,
    /// The envelope domain that is not aligned with it.
    pub envelope: String,
    /// Whether the envelope domain is the brand's own, not the one of the settings.
    pub own: bool,
}

impl fmt::Display for Misaligned {
    /// What follows the name of the field or setting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, envelope, .. } = self;
        write!(
            f,
            "{envelope} is not aligned with the From domain {from}, for which no [[dkim]] key signs either, so receivers would \
             refuse the mail (DMARC); take a domain such as bounce.{from}, or add a key that signs for {from}"
        )
    }
}

/// What of a brand's mail would fail DMARC. `default` is the envelope domain of brands that have none; without any the
/// From domain is used, which is always aligned.
pub fn check(brand: &Brand, default: Option<&str>, keys: &DkimKeys) -> Result<(), Misaligned> {
    let own = brand.bounce_domain.as_deref();
    let Some(envelope) = own.or(default) else { return Ok(()) };
    let Ok(envelope) = idna::domain_to_ascii(envelope) else { return Ok(()) };
    for mailbox in [Some(&brand.from_mailbox), brand.notice_from.as_ref()].into_iter().flatten() {
        let Ok(mailbox) = Mailbox::parse(mailbox) else { continue };
        let from = mailbox.address.domain();
        if !are_aligned(from, &envelope) && !keys.signs(from) {
            return Err(Misaligned { from: from.to_owned(), envelope, own: own.is_some() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_of_one_organization_are_aligned_and_others_are_not() {
        for (one, other) in [
            ("acme.example", "acme.example"),
            ("news.acme.example", "acme.example"),
            ("acme.example", "bounce.acme.example"),
            ("a.b.acme.co.uk", "bounce.acme.co.uk"),
            ("xn--bcher-kva.example", "b.xn--bcher-kva.example"),
            ("acme", "acme"),
        ] {
            assert!(are_aligned(one, other) && are_aligned(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("acme.example", "acme2.example"),
            ("acme.co.uk", "other.co.uk"),
            ("acme.example", "acme.example.net"),
            ("notacme.example", "acme.example"),
            ("acme.example", "example"),
            ("one", "other"),
        ] {
            assert!(!are_aligned(one, other) && !are_aligned(other, one), "{one} {other}");
        }
    }
}
