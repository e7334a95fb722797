//! How the parts of a message travel: lines that end in CRLF, of ASCII alone.
//!
//! It promises the octets that lettre's `Body` makes, faster where mail is mostly made of them: in `7bit` and
//! quoted-printable (RFC 2045 §6.7).

use std::borrow::Cow;

use email_encoding::body::{Encoding, base64};

/// Longest line of quoted-printable without its CRLF; one that goes on ends in `=`.
const LINE: usize = 76;

/// Writes a part: its type, how it is encoded, an empty line, the text, a line end.
pub(super) fn write_part(out: &mut Vec<u8>, media_type: &str, text: &str) {
    let text = lines(text);
    let encoding = Encoding::choose(&*text, false);
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

/// Encodes lines that end in LF.
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

/// Whether an octet must be written as `=XX` wherever it stands.
fn must_be_escaped(octet: u8) -> bool {
    !(b' '..=b'~').contains(&octet) && octet != b'\t' || octet == b'='
}

fn encode_line(out: &mut Vec<u8>, line: &[u8]) {
    // A space at the end would be lost on its way.
    let kept = line.len() - usize::from(matches!(line.last(), Some(b' ' | b'\t')));
    let (mut at, mut column) = (0, 0);
    while at < line.len() {
        // One place less than a line has: it may have to end in `=`.
        let most = kept.min(at + (LINE - 1 - column));
        let run = plain_run(&line[at..most.max(at)]);
        out.extend_from_slice(&line[at..at + run]);
        at += run;
        column += run;
        let Some(octet) = line.get(at).copied() else { break };
        let escapes = at >= kept || must_be_escaped(octet);
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

/// How many octets at the beginning can stand as they are.
fn plain_run(octets: &[u8]) -> usize {
    // Without a way out it is compiled to a few wide instructions.
    if !octets.iter().fold(false, |any, octet| any | must_be_escaped(*octet)) {
        return octets.len();
    }
    octets.iter().position(|octet| must_be_escaped(*octet)).unwrap_or(octets.len())
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
