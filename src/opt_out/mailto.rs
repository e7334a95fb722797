//! What a mail to the unsubscribe address asks for. Pure.
//!
//! It promises: a token is found wherever mail programs leave it, in a subject with `Re:` before it, encoded, folded or in
//! brackets, or in the address behind a plus; nothing that a program wrote by itself, a bounce, a vacation or a mailing
//! list's copy, opts anyone out; and a token that is not ours is no different from none.

use std::borrow::Cow;

use mail_parser::{HeaderName, MessageParser};

use crate::address::unquoted;
use crate::link::{KeyRing, Link, Purpose, UNSUBSCRIBE};
use crate::receiver::{Mail, Reply};

/// Most fields named Subject that are looked into; there should be one.
const MAX_SUBJECTS: usize = 4;
/// Most pieces that a subject is cut into.
const MAX_WORDS: usize = 64;
/// So many pieces are put together again at most.
const MAX_JOINED: usize = 8;
/// Most links of one mail that are followed.
const MAX_LINKS: usize = 8;
/// Shortest piece a token may begin with.
const MIN_PIECE: usize = 8;

/// What is answered where nobody has the address.
pub(crate) const NO_SUCH: &str = "550 5.1.1 no such address here";

/// Why a mail asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// A bounce or another report, or from the null sender.
    Bounce,
    /// An automatic answer (RFC 3834), such as a vacation.
    Automatic,
    /// It came over a mailing list.
    List,
    /// It holds no token of ours, or one that was changed.
    NoToken,
}

impl Idle {
    /// The word in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Automatic => "automatic",
            Self::List => "list",
            Self::NoToken => "no_token",
        }
    }
}

/// Whether mail to this address is taken: `unsubscribe@` the domain, or `unsubscribe+TOKEN@` it. Gives the token.
///
/// # Errors
/// The answer that refuses it: for another domain, that nothing is relayed.
pub(crate) fn token_of<'a>(address: &'a str, domain: &str) -> Result<Option<&'a str>, Reply> {
    let no_such = Reply::Borrowed(NO_SUCH);
    let (local, at) = address.rsplit_once('@').ok_or_else(|| no_such.clone())?;
    let is_ours = idna::domain_to_ascii(at).is_ok_and(|at| at.eq_ignore_ascii_case(domain));
    if !is_ours {
        return Err("550 5.7.1 nothing is relayed here".into());
    }
    let local = unquoted(local);
    match local.split_once('+') {
        Some((name, token)) if name.eq_ignore_ascii_case(UNSUBSCRIBE) => Ok(Some(token)),
        None if local.eq_ignore_ascii_case(UNSUBSCRIBE) => Ok(None),
        _ => Err(no_such),
    }
}

/// The links that this mail follows, each once.
///
/// # Errors
/// Why there are none.
pub(crate) fn read(mail: &Mail, domain: &str, keys: &KeyRing) -> Result<Vec<Link>, Idle> {
    if mail.from.is_empty() {
        return Err(Idle::Bounce);
    }
    let parsed = MessageParser::default().parse_headers(&mail.bytes);
    let mut links = Vec::new();
    let mut subjects = 0;
    let mut add = |link: Link| {
        if links.len() < MAX_LINKS && !links.contains(&link) {
            links.push(link);
        }
    };
    for to in &mail.to {
        if let Ok(Some(token)) = token_of(to, domain) {
            find(token, keys).into_iter().for_each(&mut add);
        }
    }
    for header in parsed.iter().flat_map(|message| message.headers()) {
        let raw = usize::try_from(header.offset_start).unwrap_or_default()
            ..usize::try_from(header.offset_end).unwrap_or_default();
        let raw = String::from_utf8_lossy(mail.bytes.get(raw).unwrap_or_default());
        if let Some(idle) = idle(header.name.as_str(), &raw) {
            return Err(idle);
        }
        if header.name == HeaderName::Subject && subjects < MAX_SUBJECTS {
            subjects += 1;
            let decoded = header.value.as_text().unwrap_or_default();
            find(decoded, keys).into_iter().for_each(&mut add);
            // Should the decoding have spoilt it.
            find(&raw, keys).into_iter().for_each(&mut add);
        }
    }
    if links.is_empty() { Err(Idle::NoToken) } else { Ok(links) }
}

/// Whether a field of the header says that no person wrote this.
fn idle(name: &str, raw: &str) -> Option<Idle> {
    let name = name.to_ascii_lowercase();
    // Up to a parameter or a comment; RFC 3834 §5 puts none before the keyword.
    let word =
        raw.trim().split([';', '(', ' ', '\t', '\r', '\n']).next().unwrap_or_default().to_ascii_lowercase();
    match name.as_str() {
        "auto-submitted" if !matches!(word.as_str(), "" | "no") => Some(Idle::Automatic),
        // `bulk`, `junk` and `list` alone do not tell an answering machine from a person behind an odd gateway, and
        // RFC 3834 §3.1.8 gives them no meaning. Not to heed a person's signed refusal is the worse error.
        "precedence" if matches!(word.as_str(), "auto_reply" | "auto-reply") => Some(Idle::Automatic),
        "x-auto-response-suppress" if !matches!(word.as_str(), "" | "none") => Some(Idle::Automatic),
        "x-autoreply" | "x-auto-reply" | "x-autorespond" | "x-autoresponder"
            if !matches!(word.as_str(), "" | "no") =>
        {
            Some(Idle::Automatic)
        }
        "content-type" if matches!(word.as_str(), "multipart/report" | "message/delivery-status") => {
            Some(Idle::Bounce)
        }
        "return-path" if word == "<>" => Some(Idle::Bounce),
        "x-failed-recipients" => Some(Idle::Bounce),
        _ if name.starts_with("list-") => Some(Idle::List),
        _ => None,
    }
}

/// The link in a text: a piece of the characters that tokens are made of, or some in a row, where folding has broken it.
fn find(text: &str, keys: &KeyRing) -> Option<Link> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let pieces: Vec<&str> =
        text.split(|c| !is_token(c)).filter(|piece| !piece.is_empty()).take(MAX_WORDS).collect();
    let read = |token: &str| Link::from_token(token, Purpose::Unsubscribe, keys).ok();
    for begin in (0..pieces.len()).filter(|&at| pieces[at].len() >= MIN_PIECE) {
        let mut token = Cow::Borrowed(pieces[begin]);
        for more in pieces[begin + 1..].iter().copied().map(Some).chain([None]).take(MAX_JOINED) {
            if let Some(link) = read(&token) {
                return Some(link);
            }
            token.to_mut().push_str(more.unwrap_or_default());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::address::AddressHash;
    use crate::clock::Timestamp;
    use crate::id::{BrandId, DeliveryId, RecipientId, TopicId};

    const DOMAIN: &str = "lists.example.com";

    fn keys() -> KeyRing {
        KeyRing::parse(&format!("k1:{}", STANDARD.encode([3; 32]))).unwrap()
    }

    fn link() -> Link {
        Link {
            purpose: Purpose::Unsubscribe,
            address_hash: AddressHash((0..32).collect()),
            recipient: RecipientId::new(),
            brand: BrandId::new(),
            topic: TopicId::new(),
            delivery: DeliveryId::new(),
            made_at: Timestamp(1_763_777_777_000_001),
        }
    }

    fn mail(header: &str) -> Mail {
        let bytes = format!("From: Ann <ann@people.example>\r\n{header}\r\n\r\nunsubscribe\r\n").into_bytes();
        Mail { from: "ann@people.example".into(), to: vec![format!("unsubscribe@{DOMAIN}")], bytes }
    }

    fn said(header: &str) -> Result<Vec<Link>, Idle> {
        read(&mail(header), DOMAIN, &keys())
    }

    #[test]
    fn the_token_is_found_wherever_mail_programs_leave_it() {
        let link = link();
        let t = link.to_token(&keys());
        let (a, rest) = t.split_at(60);
        let (b, c) = rest.split_at(70);
        let word = |text: &str| format!("=?utf-8?B?{}?=", STANDARD.encode(text));
        let quoted = t.replace('_', "=5F");
        let (quoted_a, quoted_b) = quoted.split_at(
            quoted
                .char_indices()
                .map(|(at, _)| at)
                .find(|&at| at > 60 && !quoted[at - 2..at].contains('='))
                .unwrap(),
        );
        for subject in [
            format!("Subject: {t}"),
            format!("SUBJECT:{t}"),
            format!("Subject: {t} \t"),
            format!("Subject: Re: {t}"),
            format!("Subject: AW: WG: Re[2]: {t}"),
            format!("Subject: =?utf-8?Q?R=C3=A9f=3A_?= {t}"),
            format!("Subject: unsubscribe {t} please"),
            format!("Subject: \"{t}\""),
            format!("Subject: <{t}>."),
            format!("Subject: subject={t}"),
            format!("Subject: {t}%3D"),
            format!("Subject: https://mail.example.com/u/{t}"),
            format!("Subject:\r\n {t}"),
            format!("Subject: {a}\r\n {b}\r\n\t{c}"),
            format!("Subject: {a} {b} {c} thanks"),
            format!("Subject: {}", word(&t)),
            format!("Subject: Re: {}\r\n {}\r\n {}", word(a), word(b), word(c)),
            format!("Subject: =?us-ascii?Q?{quoted_a}?=\r\n =?us-ascii?q?{quoted_b}?="),
            format!("Subject: nothing\r\nSubject: {t}"),
            format!("X-Odd: \r\nAuto-Submitted: no\r\nSubject: {t}"),
            format!(
                "Auto-Submitted: no (a person)\r\nPrecedence: bulk\r\nX-Auto-Response-Suppress: None\r\nSubject: {t}"
            ),
            format!("Content-Type: multipart/alternative; boundary=x\r\nSubject: {t}"),
        ] {
            assert_eq!(said(&subject), Ok(vec![link.clone()]), "{subject}");
        }
    }

    #[test]
    fn the_token_is_taken_from_the_address_too_and_several_count_each_once() {
        let (one, two) = (link(), link());
        let mut mail = mail(&format!("Subject: {}", two.to_token(&keys())));
        mail.to = [&one, &one, &two]
            .map(|link| format!("Unsubscribe+{}@LISTS.example.com", link.to_token(&keys())))
            .into();
        assert_eq!(read(&mail, DOMAIN, &keys()), Ok(vec![one.clone(), two]));
        mail.bytes.clear();
        mail.to.truncate(1);
        assert_eq!(read(&mail, DOMAIN, &keys()), Ok(vec![one]));
    }

    #[test]
    fn what_no_person_wrote_asks_for_nothing() {
        let t = link().to_token(&keys());
        for (field, why) in [
            ("Auto-Submitted: auto-replied", Idle::Automatic),
            ("auto-submitted: Auto-Replied; owner-email=\"a@b.example\"", Idle::Automatic),
            ("Auto-Submitted:\r\n auto-generated", Idle::Automatic),
            ("Precedence: auto_reply", Idle::Automatic),
            ("X-Auto-Response-Suppress: All", Idle::Automatic),
            ("X-Autoreply: yes", Idle::Automatic),
            ("X-Autorespond: Out of office", Idle::Automatic),
            ("Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=x", Idle::Bounce),
            (
                "Content-Type: Multipart/Report; report-type=disposition-notification; boundary=x",
                Idle::Bounce,
            ),
            ("Return-Path: <>", Idle::Bounce),
            ("X-Failed-Recipients: a@b.example", Idle::Bounce),
            ("List-Id: <dev.lists.example>", Idle::List),
            ("List-Unsubscribe: <mailto:x@y.example>", Idle::List),
        ] {
            for header in [format!("{field}\r\nSubject: {t}"), format!("Subject: {t}\r\n{field}")] {
                assert_eq!(said(&header), Err(why), "{header}");
            }
        }
        let null = Mail { from: String::new(), ..mail(&format!("Subject: {t}")) };
        assert_eq!(read(&null, DOMAIN, &keys()), Err(Idle::Bounce));
    }

    #[test]
    fn a_token_that_was_changed_is_none() {
        let t = link().to_token(&keys());
        let flipped = format!("{}{}", &t[..t.len() - 1], if t.ends_with('A') { 'B' } else { 'A' });
        let other = link().to_token(&KeyRing::parse(&format!("k1:{}", STANDARD.encode([4; 32]))).unwrap());
        let page = Link { purpose: Purpose::Preferences, ..link() }.to_token(&keys());
        for subject in [
            &t.to_lowercase(),
            &t.to_uppercase(),
            &t[1..],
            &t[..t.len() - 1],
            &flipped,
            &other,
            &page,
            "",
            "unsubscribe",
        ] {
            assert_eq!(said(&format!("Subject: {subject}")), Err(Idle::NoToken), "{subject}");
        }
        assert_eq!(said(&format!("X-Subject: {t}\r\n\r\nSubject: {t}")), Err(Idle::NoToken));
        let mut mail = mail("");
        mail.to = vec![format!("unsubscribe+{}@{DOMAIN}", t.to_lowercase())];
        assert_eq!(read(&mail, DOMAIN, &keys()), Err(Idle::NoToken));
    }

    #[test]
    fn a_mail_of_nothing_but_subjects_is_not_searched_to_its_end() {
        let t = link().to_token(&keys());
        let after = |others: usize| format!("{}Subject: {t}", "Subject: x\r\n".repeat(others));
        assert_eq!(said(&after(MAX_SUBJECTS - 1)).map(|links| links.len()), Ok(1));
        assert_eq!(said(&after(MAX_SUBJECTS)), Err(Idle::NoToken));
    }

    #[test]
    fn only_the_unsubscribe_addresses_of_the_domain_are_taken() {
        for address in [
            "unsubscribe@lists.example.com",
            "UnSubscribe@Lists.Example.COM",
            "\"unsubscribe\"@lists.example.com",
        ] {
            assert_eq!(token_of(address, DOMAIN), Ok(None), "{address}");
        }
        assert_eq!(token_of("unsubscribe@BÜCHER.example", "xn--bcher-kva.example"), Ok(None));
        assert_eq!(token_of("unsubscribe+aBc@lists.example.com", DOMAIN), Ok(Some("aBc")));
        for (address, code) in [
            ("unsubscribe@example.com", "550 5.7.1"),
            ("unsubscribe@lists.example.com.evil.example", "550 5.7.1"),
            ("unsubscribe@lists.example.com@evil.example", "550 5.7.1"),
            ("ann@people.example", "550 5.7.1"),
            ("unsubscribe%people.example@lists.example.com", "550 5.1.1"),
            ("ann@people.example@lists.example.com", "550 5.1.1"),
            ("\"ann@people.example\"@lists.example.com", "550 5.1.1"),
            ("people.example!ann@lists.example.com", "550 5.1.1"),
            ("ann@lists.example.com", "550 5.1.1"),
            ("unsubscribes@lists.example.com", "550 5.1.1"),
            ("un+subscribe@lists.example.com", "550 5.1.1"),
            ("postmaster", "550 5.1.1"),
            ("unsubscribe", "550 5.1.1"),
            ("", "550 5.1.1"),
        ] {
            assert!(token_of(address, DOMAIN).unwrap_err().starts_with(code), "{address}");
        }
    }

    proptest! {
        #[test]
        fn no_mail_is_too_odd(octets in prop::collection::vec(any::<u8>(), 0..300), to in "\\PC{0,30}") {
            let mail = Mail { from: "a@b.example".into(), to: vec![to.clone(), format!("unsubscribe+{to}@{DOMAIN}")], bytes: octets };
            let _ = read(&mail, DOMAIN, &keys());
            let header = Mail { bytes: [b"Subject: ", &mail.bytes[..]].concat(), ..mail };
            let _ = read(&header, DOMAIN, &keys());
        }

        #[test]
        fn a_token_is_found_among_any_words_that_do_not_touch_it(before in "[^A-Za-z0-9_-]{0,20}", after in "\\PC{0,20}") {
            let link = link();
            let text = format!("{before}{} {after}", link.to_token(&keys()));
            prop_assert_eq!(find(&text, &keys()), Some(link));
        }
    }
}
