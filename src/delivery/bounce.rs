//! What a report about a delivery says that comes after the relay took its message over (RFC 3464). Pure.
//!
//! It promises: only a delivery status notification counts, and in it only that the message could not be delivered; a delay,
//! a vacation and a person's answer are no bounce. Whatever octets come are read to an answer, and no more is kept of
//! them than the bounds here allow. Nothing that is kept names a person.

use mail_parser::{Message, MessageParser, MimeHeaders, PartType};

use super::fate::mailbox_gone;
use crate::address::nameless;

/// Most octets of a report's fields that are read.
const MAX_FIELDS: usize = 64 * 1024;
/// Most recipients that a report speaks of.
const MAX_RECIPIENTS: usize = 100;
/// Longest field in characters, unfolded.
const MAX_FIELD: usize = 4_096;
/// Longest words kept, in characters; as many as of a relay's reply.
const MAX_WORDS: usize = 500;

/// What a mail to an envelope sender says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is no report about a delivery: a vacation, an automatic answer, a person's own.
    NoReport,
    /// It is a report, and says of nobody that the message could not be delivered.
    NoFailure(Action),
    /// The message could not be delivered.
    Failed(Failures),
}

/// What a report says that was done (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The message could not be delivered.
    Failed,
    /// It is still being tried.
    Delayed,
    /// It was delivered.
    Delivered,
    /// It was passed on to where nobody reports.
    Relayed,
    /// It was passed on to several.
    Expanded,
    /// A word that is not known, or none.
    Other,
}

impl Action {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
            Self::Other => "other",
        }
    }

    fn of(value: &str) -> Self {
        match first_word(value).to_ascii_lowercase().as_str() {
            "failed" => Self::Failed,
            "delayed" => Self::Delayed,
            "delivered" => Self::Delivered,
            "relayed" => Self::Relayed,
            "expanded" => Self::Expanded,
            _ => Self::Other,
        }
    }
}

/// Whom a report says that the message did not reach; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures(Vec<Group>);

impl Failures {
    /// The failure to deliver to whom `fits` knows, told an address as the report spells it; else the first one. `own` is
    /// their address, which is left out of the words.
    pub fn of(self, fits: impl Fn(&str) -> bool, own: Option<&str>) -> Failure {
        let found = self.0.iter().position(|group| group.addresses.iter().any(|address| fits(address)));
        let group = self.0.into_iter().nth(found.unwrap_or(0)).unwrap_or_default();
        group.failure(own)
    }
}

/// That a message could not be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The enhanced status (RFC 3463), the more telling one where the report and the mail server that it quotes give two.
    pub status: Option<String>,
    /// What the mail server said, without any address; at most 500 characters.
    pub words: Option<String>,
    /// Whether it was refused for good (class 5); otherwise it was tried for too long.
    pub permanent: bool,
    /// Whether that says that the mailbox is gone, as it would of a refusal by the relay.
    pub mailbox_gone: bool,
}

/// What a report says of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    action: Option<Action>,
    status: Option<String>,
    /// What another mail server said, and whether it said so by SMTP.
    diagnostic: Option<(String, bool)>,
    /// The recipient, as the sender and as the last mail server knew it, in each way to read it.
    addresses: Vec<String>,
}

/// Reads a mail.
pub fn read(mail: &[u8]) -> Said {
    let Some(message) = MessageParser::default().parse(mail) else { return Said::NoReport };
    let Some(fields) = fields_of(&message) else { return Said::NoReport };
    let groups = groups(fields);
    let first = groups.first().and_then(|group| group.action).unwrap_or(Action::Other);
    let failed: Vec<Group> =
        groups.into_iter().filter(|group| group.action == Some(Action::Failed)).collect();
    if failed.is_empty() { Said::NoFailure(first) } else { Said::Failed(Failures(failed)) }
}

/// The fields of a report about a delivery, were this one (RFC 6522 §3, RFC 6533 §3).
fn fields_of<'a>(message: &'a Message<'_>) -> Option<&'a [u8]> {
    let root = message.parts.first()?;
    let kind = root.content_type()?;
    let is = |given: Option<&str>, word: &str| given.is_some_and(|given| given.eq_ignore_ascii_case(word));
    let reports = is(Some(kind.ctype()), "multipart")
        && is(kind.subtype(), "report")
        && is(kind.attribute("report-type").map(str::trim), "delivery-status");
    let PartType::Multipart(parts) = &root.body else { return None };
    let parts = parts.iter().filter_map(|part| message.parts.get(usize::try_from(*part).ok()?));
    let mut status = parts.filter(|part| {
        part.content_type().is_some_and(|kind| {
            let names = ["delivery-status", "global-delivery-status"];
            is(Some(kind.ctype()), "message") && names.iter().any(|name| is(kind.subtype(), name))
        })
    });
    let fields = status.next()?.contents();
    reports.then(|| &fields[..fields.len().min(MAX_FIELDS)])
}

/// What is said of each recipient: fields in groups, which empty lines part.
fn groups(fields: &[u8]) -> Vec<Group> {
    let text = String::from_utf8_lossy(fields);
    let mut groups = vec![Group::default()];
    let mut field = String::new();
    for line in text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).chain([""]) {
        if line.starts_with([' ', '\t']) && !line.trim().is_empty() {
            field.push(' ');
            field.extend(line.trim().chars().take(MAX_FIELD.saturating_sub(field.len())));
            continue;
        }
        if let Some(group) = groups.last_mut() {
            group.take(&field);
        }
        field = line.chars().take(MAX_FIELD).collect();
        let ends = line.trim().is_empty() && groups.last().is_some_and(|group| group.action.is_some());
        if ends && groups.len() < MAX_RECIPIENTS {
            groups.push(Group::default());
        }
    }
    // What is said of the report as a whole says of nobody what was done.
    groups.retain(|group| group.action.is_some());
    groups
}

impl Group {
    fn take(&mut self, field: &str) {
        let Some((name, value)) = field.split_once(':') else { return };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "action" if self.action.is_none() => self.action = Some(Action::of(value)),
            "status" if self.status.is_none() => self.status = first_status(value),
            "diagnostic-code" if self.diagnostic.is_none() => self.diagnostic = Some(diagnostic(value)),
            "final-recipient" | "original-recipient" if self.addresses.len() < 8 => {
                self.addresses.extend(spellings(value));
            }
            _ => {}
        }
    }

    fn failure(self, own: Option<&str>) -> Failure {
        let quoted = self.diagnostic.as_ref().filter(|(_, by_smtp)| *by_smtp);
        let (code, inner) = quoted.map_or((None, None), |(words, _)| code_and_status(words));
        // `5.0.0` says no more than that it failed.
        let telling = |status: &&String| !status.ends_with(".0.0");
        let statuses = [self.status.as_ref(), inner.as_ref()];
        let mut told = statuses.into_iter().flatten().filter(telling).peekable();
        // Where two speak of it, each has to say so: nobody is taken for gone by mistake.
        let gone = told.peek().is_some() && told.all(|status| mailbox_gone(Some(status)));
        let status = statuses.into_iter().flatten().find(telling).or(self.status.as_ref()).or(inner.as_ref());
        let permanent = match status {
            Some(status) => status.starts_with('5'),
            None => code.is_some_and(|code| code >= 500),
        };
        let words = self.diagnostic.as_ref().map(|(words, _)| self.without_names(words, own));
        Failure {
            status: status.cloned(),
            words: words.filter(|words| !words.is_empty()),
            permanent,
            mailbox_gone: gone,
        }
    }

    /// These words without the person's address and those that the report itself names.
    fn without_names(&self, words: &str, own: Option<&str>) -> String {
        let named = self.addresses.iter().map(String::as_str).filter(|address| !address.starts_with('@'));
        let mut kept = nameless(words, own);
        for address in named {
            kept = nameless(&kept, Some(address));
        }
        let clean: String = kept.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        clean.trim().chars().take(MAX_WORDS).collect()
    }
}

/// Up to a comment or whatever else follows.
fn first_word(value: &str) -> &str {
    value.split(|c: char| c.is_whitespace() || c == '(' || c == ';').next().unwrap_or_default()
}

/// The status that a field begins with.
fn first_status(value: &str) -> Option<String> {
    let word = first_word(value);
    is_status(word).then(|| word.to_owned())
}

/// RFC 3463 §2: class, subject and detail; of a success nobody reports a failure.
fn is_status(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    let digits = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    parts.len() == 3 && ["4", "5"].contains(&parts[0]) && parts.iter().all(digits)
}

/// What was said, and whether by SMTP: `smtp; 550 5.1.1 nobody there`. Words without a type are taken for SMTP's.
fn diagnostic(value: &str) -> (String, bool) {
    match value.split_once(';') {
        Some((kind, words)) if first_word(kind) == kind.trim() => {
            (words.trim().to_owned(), kind.trim().eq_ignore_ascii_case("smtp"))
        }
        _ => (value.to_owned(), true),
    }
}

/// The reply code and the enhanced status at the beginning of an SMTP reply: `550 5.1.1 …`, `550-5.1.1 …`, `550 #5.1.1 …`.
fn code_and_status(words: &str) -> (Option<u16>, Option<String>) {
    let code = words.get(..3).and_then(|code| code.parse::<u16>().ok()).filter(|code| *code >= 400);
    let rest = if code.is_some() { words.get(3..).unwrap_or_default() } else { words };
    let rest = rest.trim_start_matches([' ', '-', '#', '(', '[']);
    let status = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    let status = status.trim_end_matches('.');
    (code, is_status(status).then(|| status.to_owned()))
}

/// The address of a field such as `rfc822; ann@people.example`, in each way to read it: as it stands, with the octets that
/// xtext writes as `+2B` (RFC 3461 §4), and with the characters that RFC 6533 §3 writes as `\x{FC}`.
fn spellings(value: &str) -> Vec<String> {
    let address = value.split_once(';').map_or(value, |(_, address)| address).trim();
    let address = address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(address);
    let mut ways = vec![address.to_owned()];
    for way in [of_xtext(address), of_unitext(address)].into_iter().flatten() {
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    ways.retain(|way| way.contains('@'));
    ways
}

fn of_xtext(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        let two = after.get(..2).filter(|two| octet == b'+' && two.iter().all(u8::is_ascii_hexdigit));
        let two = two.and_then(|two| std::str::from_utf8(two).ok());
        match two.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(meant) => {
                octets.push(meant);
                rest = &after[2..];
            }
            None => {
                octets.push(octet);
                rest = after;
            }
        }
    }
    String::from_utf8(octets).ok()
}

fn of_unitext(text: &str) -> Option<String> {
    let mut pieces = text.split("\\x{");
    let mut read = pieces.next()?.to_owned();
    for piece in pieces {
        let (point, rest) = piece.split_once('}')?;
        read.push(u32::from_str_radix(point, 16).ok().and_then(char::from_u32)?);
        read.push_str(rest);
    }
    Some(read)
}

#[cfg(test)]
mod tests;
