//! Checks of what callers write into fields. Each adds what is wrong to a list, so that a caller learns all of it at once.

use serde_json::Value;
use url::Url;

use super::{FieldError, Problem};
use crate::brand::{Mailbox, lint};
use crate::config::{MAX_BASE_URL, is_loopback};

/// Longest URL taken, in characters.
const MAX_URL: usize = 2000;

/// 422 with everything that was found, if anything was.
///
/// # Errors
/// When `errors` is not empty.
pub fn done(errors: Vec<FieldError>) -> Result<(), Problem> {
    if errors.is_empty() { Ok(()) } else { Err(Problem::fields(errors)) }
}

/// Notes that the field at `pointer` is wrong.
pub fn wrong(pointer: &str, reason: impl Into<String>, errors: &mut Vec<FieldError>) {
    errors.push(FieldError { pointer: pointer.to_owned(), reason: reason.into() });
}

/// One line that is not empty: at most `max_chars` characters, none of them CR, LF, NUL or another control character.
pub fn one_line(pointer: &str, text: &str, max_chars: usize, errors: &mut Vec<FieldError>) {
    if text.trim().is_empty() {
        wrong(pointer, "must not be empty", errors);
    } else if text.chars().any(is_control) {
        wrong(pointer, "must be one line without CR, LF, NUL or other control characters", errors);
    } else {
        at_most(pointer, text, max_chars, errors);
    }
}

/// As [`one_line`], when it is there.
pub fn optional_line(pointer: &str, text: Option<&str>, max_chars: usize, errors: &mut Vec<FieldError>) {
    if let Some(text) = text {
        one_line(pointer, text, max_chars, errors);
    }
}

/// Text of several lines, which may be empty: line feeds and tabs are welcome, other control characters are not.
pub fn lines(pointer: &str, text: &str, max_chars: usize, errors: &mut Vec<FieldError>) {
    let unwelcome = |c: char| is_control(c) && !matches!(c, '\n' | '\t');
    if text.replace("\r\n", "\n").chars().any(unwelcome) {
        wrong(pointer, "must not hold NUL or other control characters", errors);
    } else {
        at_most(pointer, text, max_chars, errors);
    }
}

/// A name in paths: 1 to 63 of a-z, 0-9 and -.
pub fn slug(pointer: &str, text: &str, errors: &mut Vec<FieldError>) {
    if !is_slug(text) {
        wrong(pointer, "must be 1 to 63 of a-z, 0-9 and -", errors);
    }
}

/// Whether it is 1 to 63 of a-z, 0-9 and -.
pub fn is_slug(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// `Name <address>` or a bare address that providers trust; none, and the reason noted, when it cannot be used.
pub fn mailbox(pointer: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<Mailbox> {
    let mailbox = match Mailbox::parse(text) {
        Ok(mailbox) => mailbox,
        Err(error) => {
            wrong(pointer, error.to_string(), errors);
            return None;
        }
    };
    if let Some(reason) = lint::distrusted(&mailbox) {
        wrong(pointer, reason, errors);
        return None;
    }
    Some(mailbox)
}

/// An https URL, or http on loopback, without user and password.
pub fn https_or_loopback(pointer: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<Url> {
    let url = url(pointer, text, errors)?;
    if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) {
        return Some(url);
    }
    wrong(pointer, "must begin with https://; http:// is for loopback alone", errors);
    None
}

/// As [`https_or_loopback`], for what links begin with: no query, no fragment. Given without a slash at its end.
pub fn base_url(pointer: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<String> {
    let url = https_or_loopback(pointer, text, errors)?;
    if url.query().is_some() || url.fragment().is_some() {
        wrong(pointer, "must have no query and no fragment: links begin with it", errors);
        return None;
    }
    if url.as_str().len() > MAX_BASE_URL {
        wrong(pointer, format!("is longer than {MAX_BASE_URL} characters"), errors);
        return None;
    }
    Some(url.as_str().trim_end_matches('/').to_owned())
}

/// An origin such as `https://example.com`: scheme, host and perhaps a port, nothing more.
pub fn origin(pointer: &str, text: &str, errors: &mut Vec<FieldError>) {
    if let Some(url) = https_or_loopback(pointer, text, errors)
        && url.origin().ascii_serialization() != text.trim_end_matches('/')
    {
        wrong(pointer, "must be an origin such as https://example.com", errors);
    }
}

/// An http or https URL without user and password.
pub fn web(pointer: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<Url> {
    url(pointer, text, errors)
}

/// A colour `#rrggbb`.
pub fn color(pointer: &str, text: &str, errors: &mut Vec<FieldError>) {
    let digits = text.strip_prefix('#').unwrap_or("");
    if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        wrong(pointer, "must be a colour of the form #rrggbb", errors);
    }
}

/// A domain name of at least two labels.
pub fn domain(pointer: &str, text: &str, errors: &mut Vec<FieldError>) {
    // What an address takes as its domain is what an envelope sender takes.
    let usable = !text.contains('@') && crate::address::EmailAddress::parse(&format!("x@{text}")).is_ok();
    if !usable {
        wrong(pointer, "must be a domain name such as bounce.example.com", errors);
    }
}

/// A JSON value whose text is at most `max_bytes` octets.
pub fn json_size(pointer: &str, value: &Value, max_bytes: usize, errors: &mut Vec<FieldError>) {
    if value.to_string().len() > max_bytes {
        wrong(pointer, format!("is longer than {max_bytes} octets as JSON"), errors);
    }
}

fn at_most(pointer: &str, text: &str, max_chars: usize, errors: &mut Vec<FieldError>) {
    if text.chars().count() > max_chars {
        wrong(pointer, format!("is longer than {max_chars} characters"), errors);
    }
}

/// Control characters, and the two separators that some programs take for a line's end.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn url(pointer: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<Url> {
    if text.chars().any(|c| is_control(c) || c.is_whitespace()) || text.len() > MAX_URL {
        wrong(pointer, format!("must be a URL of at most {MAX_URL} characters without white space"), errors);
        return None;
    }
    let url = Url::parse(text).ok().filter(|url| {
        url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && matches!(url.scheme(), "http" | "https")
    });
    if url.is_none() {
        wrong(pointer, "must be a whole URL such as https://example.com/, without user and password", errors);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(check: impl FnOnce(&mut Vec<FieldError>)) -> bool {
        let mut errors = Vec::new();
        check(&mut errors);
        errors.is_empty()
    }

    #[test]
    fn a_line_holds_no_line_ends_and_no_control_characters() {
        assert!(ok(|e| one_line("/name", "Ärger & Söhne", 20, e)));
        for bad in ["", "  ", "a\rb", "a\nb", "a\0b", "a\u{7f}b", "a\u{2028}b", "a\u{85}b"] {
            assert!(!ok(|e| one_line("/name", bad, 20, e)), "{bad:?}");
        }
        assert!(ok(|e| one_line("/name", &"é".repeat(20), 20, e)));
        assert!(!ok(|e| one_line("/name", &"é".repeat(21), 20, e)));
        assert!(ok(|e| lines("/p", "a\r\nb\n\tc", 20, e)) && !ok(|e| lines("/p", "a\rb", 20, e)));
        assert!(!ok(|e| lines("/p", "a\0b", 20, e)));
    }

    #[test]
    fn urls_are_https_unless_loopback() {
        assert!(ok(|e| drop(https_or_loopback("/u", "https://a.example/x", e))));
        assert!(ok(|e| drop(https_or_loopback("/u", "http://127.0.0.1:8080", e))));
        assert!(ok(|e| drop(https_or_loopback("/u", "http://[::1]/", e))));
        for bad in
            ["http://a.example", "ftp://a.example", "a.example", "https://u:p@a.example", "https://a\n.b"]
        {
            assert!(!ok(|e| drop(https_or_loopback("/u", bad, e))), "{bad:?}");
        }
    }

    #[test]
    fn slugs_colours_and_domains() {
        assert!(is_slug("a-1") && is_slug(&"a".repeat(63)));
        assert!(!is_slug("") && !is_slug(&"a".repeat(64)) && !is_slug("A") && !is_slug("a_b"));
        assert!(ok(|e| color("/c", "#00aAff", e)) && !ok(|e| color("/c", "00aaff", e)));
        assert!(!ok(|e| color("/c", "#00aaf", e)));
        assert!(ok(|e| domain("/d", "bounce.example.com", e)));
        assert!(!ok(|e| domain("/d", "localhost", e)) && !ok(|e| domain("/d", "a@b.example", e)));
        assert!(!ok(|e| domain("/d", "a.example\r\nX", e)));
    }
}
