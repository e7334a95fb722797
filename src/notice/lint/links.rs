//! Where a notice may lead: where the program says, and nowhere else. Pure.

use std::collections::BTreeSet;

use url::Url;

use crate::brand::{Brand, Mailbox};

/// Longest part of a link that a finding repeats, in characters.
const SHOWN: usize = 100;
/// Against which links are resolved that name no host of their own.
const NOWHERE: &str = "https://nowhere.invalid/";

/// The links of one notice.
#[derive(Debug)]
pub(super) struct Ours {
    /// Where the new text stands.
    pub(super) new: String,
    /// Where the old one does.
    pub(super) old: String,
    /// Where people answer.
    pub(super) approve: String,
    /// All pages to which it may lead.
    pages: BTreeSet<String>,
    /// Their hosts, and the brand's own.
    hosts: BTreeSet<String>,
    /// The brand's addresses, folded.
    mail: BTreeSet<String>,
    /// The digits of its telephone.
    phone: String,
    /// All that the brand says of itself.
    facts: String,
}

impl Ours {
    /// Of this brand: where the new text, the old one and the changes stand, where people answer, and where they refuse
    /// other mail.
    pub(super) fn new(brand: &Brand, texts: [String; 3], approve: &str, preferences: &str) -> Self {
        let read = |url: &str| Url::parse(url).ok();
        let written = |url: &str| read(url).map_or_else(|| url.to_owned(), String::from);
        let [new, old, changes] = texts;
        let website = brand.website.as_deref().unwrap_or_default();
        let pages: BTreeSet<String> = [&new, &old, &changes, approve, preferences, website]
            .into_iter()
            .filter(|url| !url.is_empty())
            .map(written)
            .collect();
        let origins = brand.origins.as_array().map(Vec::as_slice).unwrap_or_default();
        let origins = origins.iter().filter_map(serde_json::Value::as_str);
        let hosts = pages.iter().map(String::as_str).chain(origins);
        let mailboxes = [Some(&brand.from_mailbox), brand.notice_from.as_ref(), brand.reply_to.as_ref()];
        let mailboxes = mailboxes.into_iter().flatten().filter_map(|text| Mailbox::parse(text).ok());
        let phone = brand.phone.as_deref().unwrap_or_default();
        Self {
            hosts: hosts.filter_map(|url| read(url)?.host_str().map(str::to_owned)).collect(),
            mail: mailboxes.map(|mailbox| mailbox.address.folded()).collect(),
            phone: digits(phone),
            facts: [&brand.name, &brand.postal_address, phone, website].join("\n").to_lowercase(),
            new: written(&new),
            old: written(&old),
            approve: written(approve),
            pages,
        }
    }

    /// Why a link may not stand in a notice, where it may not.
    pub(super) fn refuses(&self, href: &str) -> Option<String> {
        let bare = href.trim();
        if bare.starts_with('#') && bare.len() > 1 {
            return None;
        }
        if bare.is_empty() || bare == "#" {
            return Some("it holds a link that leads nowhere; give it its URL, or take it out".into());
        }
        let base = Url::parse(NOWHERE).ok();
        let Ok(url) = Url::options().base_url(base.as_ref()).parse(bare) else {
            return Some(format!("it links to {}, which is no URL; take it out", shown(bare)));
        };
        match url.scheme() {
            "mailto" => self.refuses_mail(&url),
            "tel" => (self.phone.is_empty() || digits(url.path()) != self.phone).then(|| {
                format!(
                    "it links to {}, which is not the brand's telephone; use {{{{brand.phone}}}}",
                    shown(bare)
                )
            }),
            _ if self.pages.contains(url.as_str()) => None,
            _ => Some(self.elsewhere(&url)),
        }
    }

    fn refuses_mail(&self, url: &Url) -> Option<String> {
        let address: Vec<u8> =
            url::form_urlencoded::parse(format!("a={}", url.path().replace('+', "%2B")).as_bytes())
                .flat_map(|(_, address)| address.into_owned().into_bytes())
                .collect();
        let address = String::from_utf8_lossy(&address).into_owned();
        let known = Mailbox::parse(&address)
            .is_ok_and(|mailbox| mailbox.name.is_empty() && self.mail.contains(&mailbox.address.folded()));
        let fair =
            url.query_pairs().all(|(key, _)| ["subject", "body"].contains(&&*key.to_ascii_lowercase()));
        (!known || !fair).then(|| {
            format!(
                "it links to {}, which is no address of the brand alone; use the one that its mail is answered at",
                shown(url.as_str())
            )
        })
    }

    fn elsewhere(&self, url: &Url) -> String {
        let shown = shown(url.as_str());
        let host = url.host_str().unwrap_or_default();
        if url.as_str().starts_with(NOWHERE) {
            return format!(
                "it holds the link {:?}, which names no host; use {{{{data.url}}}} or another URL that the notice has",
                shown.trim_start_matches(NOWHERE)
            );
        }
        let why = if self.hosts.contains(host) {
            "a promotional link or at least none that belongs to the notice"
        } else {
            "which is not the brand's own"
        };
        format!(
            "it links to {shown}, {why}; a notice links to {{{{data.url}}}}, {{{{data.old_url}}}}, \
             {{{{data.changes_url}}}}, {{{{approve_url}}}}, {{{{preferences_url}}}} and {{{{brand.website}}}} as they are"
        )
    }

    /// Why parts of a text may not stand in a notice that mail programs make links of.
    pub(super) fn refused_in_text(&self, text: &str) -> Vec<String> {
        let known = |word: &str| self.facts.contains(&word.to_lowercase());
        let mut found: Vec<String> =
            urls_in(text).filter(|url| !known(url)).filter_map(|url| self.refuses(url)).collect();
        for word in text.split_whitespace().map(trimmed) {
            if !word.contains("://") && is_linked_by_programs(word) && !known(word) {
                found.extend(self.refuses(&format!("https://{word}")));
            }
        }
        found
    }

    /// Which URLs a reader of this part can follow.
    pub(super) fn leading(&self, text: &str, hrefs: &[&str]) -> BTreeSet<String> {
        let all = urls_in(text).chain(hrefs.iter().copied());
        all.filter_map(|url| Url::parse(url.trim()).ok()).map(String::from).collect()
    }
}

/// What is written with its scheme in a text, without what ends the sentence.
fn urls_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("://").filter_map(move |(at, _)| {
        let scheme = text[..at].chars().rev().take_while(char::is_ascii_alphanumeric).count();
        let rest = &text[at - scheme..];
        let end = rest.find(|c: char| c.is_whitespace() || "\"<>".contains(c)).unwrap_or(rest.len());
        (scheme > 0).then(|| trimmed(&rest[..end]))
    })
}

fn trimmed(word: &str) -> &str {
    word.trim_start_matches(['(', '[', '"', '\'', '<'])
        .trim_end_matches([')', ']', '"', '\'', '>', '.', ',', ';', ':', '!', '?'])
}

/// Whether mail programs make a link of a word that has no scheme.
fn is_linked_by_programs(word: &str) -> bool {
    let (host, path) = word.split_once('/').map_or((word, false), |(host, _)| (host, true));
    let is_name = host.contains('.') && !host.contains('@') && !host.contains("..");
    let is_known = psl::suffix(host.to_lowercase().as_bytes())
        .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes().len() < host.len());
    is_name && (host.to_ascii_lowercase().starts_with("www.") || path && is_known)
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn shown(link: &str) -> String {
    let mut shown: String = link.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if link.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}
