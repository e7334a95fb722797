//! How the parts of a message travel: lines that end in CRLF, of ASCII alone.
//!
//! It promises the octets that lettre's `Body` makes, and makes them faster: lines without control characters hold little
//! that must be escaped, and it is looked for many octets at a time.

use std::borrow::Cow;

use email_encoding::body::{Encoding, base64};

/// Longest line of quoted-printable without its CRLF; one that goes on ends in `=`.
const LINE: usize = 76;

/// Writes a part: its type, how it is encoded, an empty line, the text, a line end.
pub(super) fn write_part(out: &mut Vec<u8>, media_type: &str, text: &str) {
    let text = lines(text);
    let encoding = choose(text.as_bytes());
    let name = match encoding {
        Encoding::SevenBit | Encoding::EightBit => "7bit",
        Encoding::QuotedPrintable => "quoted-printable",
        Encoding::Base64 => "base64",
    };
    for piece in ["Content-Type: ", media_type, "; charset=utf-8\r\nContent-Transfer-Encoding: ", name] {
        out.extend_from_slice(piece.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
    match encoding {
        Encoding::SevenBit | Encoding::EightBit => with_crlf(out, text.as_bytes()),
        Encoding::QuotedPrintable => quoted_printable(out, text.as_bytes()),
        Encoding::Base64 => {
            let mut crlf = Vec::with_capacity(text.len() + 64);
            with_crlf(&mut crlf, text.as_bytes());
            let mut encoded = String::with_capacity(base64::encoded_len(crlf.len()));
            // Writing to a string does not fail.
            let _ = base64::encode(&crlf, &mut encoded);
            out.extend_from_slice(encoded.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Lines that end in LF alone, without control characters, the last one ended, none empty after it.
fn lines(text: &str) -> Cow<'_, str> {
    let octets = text.as_bytes();
    let is_odd = |b: u8| b < b' ' && b != b'\n' && b != b'\t' || b == 0x7f;
    // 0xc2 0x80 to 0xc2 0x9f are the control characters beyond ASCII.
    let is_clean = !octets.iter().fold(false, |odd, b| odd | is_odd(*b))
        && memchr::memchr_iter(0xc2, octets).all(|at| octets[at + 1] >= 0xa0);
    let end = text.trim_end().len();
    if is_clean && text[end..].starts_with('\n') {
        return Cow::Borrowed(&text[..=end]);
    }
    let mut clean = if is_clean { text.to_owned() } else { cleaned(text) };
    clean.truncate(clean.trim_end().len());
    clean.push('\n');
    Cow::Owned(clean)
}

fn cleaned(text: &str) -> String {
    let unix = text.replace("\r\n", "\n").replace('\r', "\n");
    unix.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

fn with_crlf(out: &mut Vec<u8>, text: &[u8]) {
    for line in text.split_inclusive(|b| *b == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(line),
        }
    }
}

/// What is shortest, of clean lines.
fn choose(text: &[u8]) -> Encoding {
    let mut last = 0;
    let is_long = memchr::memchr_iter(b'\n', text).any(|at| at - std::mem::replace(&mut last, at) >= LINE)
        || text.len() - last >= LINE;
    let is_ascii = text.is_ascii();
    if is_ascii && !is_long {
        return Encoding::SevenBit;
    }
    let beyond = if is_ascii { 0 } else { text.iter().filter(|octet| !octet.is_ascii()).count() };
    // As lettre counts: line ends too.
    if beyond + memchr::memchr_iter(b'\n', text).count() <= text.len() / 3 {
        Encoding::QuotedPrintable
    } else {
        Encoding::Base64
    }
}

/// Encodes clean lines (RFC 2045 §6.7).
fn quoted_printable(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + text.len() / 8);
    let mut rest = text;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        encode_line(out, &rest[..end]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[end + 1..];
    }
    encode_line(out, rest);
}

fn encode_line(out: &mut Vec<u8>, line: &[u8]) {
    // A space at the end would be lost on its way.
    let kept = line.len() - usize::from(matches!(line.last(), Some(b' ' | b'\t')));
    let is_ascii = line.is_ascii();
    let (mut at, mut column) = (0, 0);
    while at < line.len() {
        // One place less than a line has: it may have to end in `=`.
        let most = kept.min(at + (LINE - 1 - column));
        let run = plain_run(&line[at..most.max(at)], is_ascii);
        out.extend_from_slice(&line[at..at + run]);
        at += run;
        column += run;
        let Some(octet) = line.get(at).copied() else { break };
        let escapes = at >= kept || octet == b'=' || !octet.is_ascii();
        let width = if escapes { 3 } else { 1 };
        let room = if at + 1 == line.len() { LINE } else { LINE - 1 };
        if column + width > room {
            out.extend_from_slice(b"=\r\n");
            column = 0;
            continue;
        }
        if escapes {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.extend([b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
        } else {
            out.push(octet);
        }
        at += 1;
        column += width;
    }
}

/// How many octets at the beginning can stand as they are; of a clean line all but `=` and what is beyond ASCII.
fn plain_run(octets: &[u8], is_ascii: bool) -> usize {
    let stop = match is_ascii {
        true => memchr::memchr(b'=', octets),
        false => octets.iter().position(|octet| *octet == b'=' || !octet.is_ascii()),
    };
    stop.unwrap_or(octets.len())
}

#[cfg(test)]
mod tests {
    use lettre::message::SinglePart;
    use proptest::prelude::*;

    use super::*;

    fn as_before(text: &str) -> String {
        let mut clean = cleaned(text);
        clean.truncate(clean.trim_end().len());
        clean.push('\n');
        String::from_utf8(SinglePart::html(clean).formatted()).unwrap()
    }

    proptest! {
        #[test]
        fn a_part_has_the_octets_that_lettre_writes(
            text in prop_oneof![
                "(([ -~]{0,8}|[a-z]{60,80}|=|\t| |é|€|\u{80}|\u{85}|\u{0}){0,30}(\n|\r\n|\r)?){0,12}",
                "([a-z =é]{70,80}\n?){0,6}",
                "[א-ת =\n]{0,300}",
                any::<String>(),
            ]
        ) {
            let mut part = Vec::new();
            write_part(&mut part, "text/html", &text);
            prop_assert_eq!(String::from_utf8(part).unwrap(), as_before(&text));
        }
    }
}
