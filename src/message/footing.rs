//! What a message must carry for those who want no more of it: the unsubscribe link and the postal address, both
//! visible, in both parts. A body that lacks them is completed; none is sent without.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use handlebars::Handlebars;
use serde_json::json;
use url::Url;

use super::hiding::{self, Sheets};
use super::template::program::Piece;
use super::{ComposeError, Part, Sender, html};
use crate::brand::{Brand, Topic};
use crate::config::{MAX_BASE_URL, is_loopback};
use crate::decision::Class;
use crate::language::{Language, Locale};
use crate::link::{KeyRing, Link, Purpose, UNSUBSCRIBE};

/// The page by which one person stops one message: only made from a signed link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnsubscribeLink {
    url: String,
    mailto: Option<String>,
}

impl UnsubscribeLink {
    fn new(link: &Link, base: &str, keys: &KeyRing, inbound_domain: Option<&str>) -> Self {
        let token = link.to_token(keys);
        let url = [base, "/u/", &token].concat();
        Self { url, mailto: inbound_domain.map(|domain| mailto(domain, &token)) }
    }

    /// The page's URL.
    pub(super) fn as_str(&self) -> &str {
        &self.url
    }

    /// The value of `List-Unsubscribe` (RFC 2369 §3.2, RFC 8058 §3.1): the page, then the way by mail on a line of its
    /// own, so that neither line comes near 998 octets.
    pub(super) fn header_value(&self) -> String {
        match &self.mailto {
            Some(mailto) => format!("<{}>,\r\n <{mailto}>", self.url),
            None => format!("<{}>", self.url),
        }
    }
}

/// The URI that unsubscribes by mail (RFC 6068). A token and an A-label need no escapes; what else a domain might hold
/// gets them.
fn mailto(domain: &str, token: &str) -> String {
    let escaped = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("mailto:{UNSUBSCRIBE}@{}?subject={}", escaped(domain), escaped(token))
}

/// What links begin with, without a slash at its end.
fn base_url(sender: &Sender<'_>) -> Result<String, ComposeError> {
    let unusable = |reason: &str| ComposeError::Brand { field: "base_url", reason: reason.into() };
    let base = match &sender.brand.base_url {
        Some(own) => Url::parse(own).map_err(|_| unusable("it is no URL"))?,
        None => sender.base_url.clone(),
    };
    if base.as_str().len() > MAX_BASE_URL || base.query().is_some() || base.fragment().is_some() {
        return Err(unusable("it must be short, without query and fragment"));
    }
    if base.scheme() == "https" || base.scheme() == "http" && is_loopback(&base) {
        return Ok(base.as_str().trim_end_matches('/').to_owned());
    }
    Err(unusable("it must begin with https:"))
}

/// How the messages of a topic stand to refusal.
pub(super) enum Terms {
    /// People may refuse them, by links that begin so; they carry this address.
    Refusable { base: String, address: PostalAddress },
    /// People must be told; they may answer, and refuse other mail, by links that begin so.
    Notice { base: String },
    /// People get them whatever they said.
    ServiceSide,
}

impl Terms {
    /// What the topic's class asks for.
    pub(super) fn new(sender: &Sender<'_>) -> Result<Self, ComposeError> {
        if sender.topic.class == Class::Notice {
            return Ok(Self::Notice { base: base_url(sender)? });
        }
        if !sender.topic.class.can_be_refused() {
            return Ok(Self::ServiceSide);
        }
        let empty = || ComposeError::Brand { field: "postal_address", reason: "it is empty".into() };
        let address = PostalAddress::new(&sender.brand.postal_address).ok_or_else(empty)?;
        Ok(Self::Refusable { base: base_url(sender)?, address })
    }

    /// For one message, whose link this is.
    pub(super) fn footing(&self, link: &Link, keys: &KeyRing, inbound_domain: Option<&str>) -> Footing {
        match self {
            Self::ServiceSide => Footing::ServiceSide,
            Self::Notice { base } => {
                let approve = Link { purpose: Purpose::Approve, ..link.clone() };
                let approve = [base, "/a/", &approve.to_token(keys)].concat();
                Footing::Notice { refusing: [base, "/u/", &link.to_token(keys)].concat(), approve }
            }
            Self::Refusable { base, .. } => {
                Footing::Refusable(UnsubscribeLink::new(link, base, keys, inbound_domain))
            }
        }
    }

    /// The address that they must carry.
    pub(super) fn address(&self) -> Option<&PostalAddress> {
        match self {
            Self::Refusable { address, .. } => Some(address),
            Self::Notice { .. } | Self::ServiceSide => None,
        }
    }
}

/// How a message stands to refusal. What can be refused cannot be without its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Footing {
    /// People may refuse it, by this link.
    Refusable(UnsubscribeLink),
    /// People get it whatever they said, and may answer it. It carries no unsubscribe header; a link in it leads to where
    /// mail that can be refused is refused.
    Notice { refusing: String, approve: String },
    /// People get it whatever they said; it carries no unsubscribe link or header.
    ServiceSide,
}

impl Footing {
    /// The link's URL; empty for the service side.
    pub(super) fn url(&self) -> &str {
        match self {
            Self::Refusable(link) => link.as_str(),
            Self::Notice { .. } | Self::ServiceSide => "",
        }
    }

    /// The URL of the page where mail that can be refused is refused; empty where the message may not lead there.
    pub(super) fn preferences_url(&self) -> &str {
        match self {
            Self::Notice { refusing, .. } => refusing,
            other => other.url(),
        }
    }

    /// The URL of the page where the change is approved or declined; empty where the message tells of none.
    pub(super) fn approve_url(&self) -> &str {
        match self {
            Self::Notice { approve, .. } => approve,
            Self::Refusable(_) | Self::ServiceSide => "",
        }
    }
}

static FOOTERS: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut footers = Handlebars::new();
    footers.set_strict_mode(true);
    // The tests render both; a footer that did not parse would fail every message loudly.
    let _ = footers.register_template_string("html", include_str!("../../templates/mail/footer.html.hbs"));
    let _ = footers.register_template_string("text", include_str!("../../templates/mail/footer.txt.hbs"));
    footers
});

/// What a page must carry, and what is added where it does not.
pub(super) struct Must<'m> {
    /// The unsubscribe link's URL.
    pub(super) url: &'m str,
    /// The brand's postal address.
    pub(super) address: &'m PostalAddress,
    /// Of the brand and the topic.
    pub(super) brand: &'m Brand,
    /// Why one gets it.
    pub(super) topic: &'m Topic,
    /// The language of what is added.
    pub(super) language: Language,
}

impl Must<'_> {
    /// Adds to the HTML part what it lacks: before `</body>`, or at the end.
    pub(super) fn complete_html(&self, html: String) -> Result<String, ComposeError> {
        let sight = Sight::of(&html, self.url);
        let has_address = sight.trusted && self.address.stands_in(&sight.text);
        if sight.has_link && has_address {
            return Ok(html);
        }
        let hard = sight.asks_for_a_hard_footer(&html);
        let night = hard.then(|| knows_night(&html));
        let footer = self.html_footer(self.url, (sight.has_link, has_address), night)?;
        insert(html, self.url, &sight.sheets, &footer)
    }

    /// The footer of the HTML part, hardened where it must hold against style sheets that know the night or do not.
    pub(super) fn html_footer(
        &self,
        url: &str,
        has: (bool, bool),
        hard: Option<bool>,
    ) -> Result<String, ComposeError> {
        let footer = self.footer(Part::Html, url, has)?;
        Ok(hard.map(|night| hiding::harden(&footer, night)).unwrap_or(footer))
    }

    /// What is added to a text part that lacks the link, the address or both.
    pub(super) fn footer(
        &self,
        part: Part,
        url: &str,
        (has_link, has_address): (bool, bool),
    ) -> Result<String, ComposeError> {
        let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let plain = part == Part::Text;
        let quiet = |text: &str| if plain { text.to_owned() } else { handlebars::html_escape(text) };
        let values = [("topic", self.topic.name.as_str().into()), ("brand", self.brand.name.as_str().into())];
        let locale = Locale::from(self.language);
        let because = if plain {
            locale.fill("mail.because", &values)
        } else {
            locale.fill_html("mail.because", &values)
        };
        let language = self.language;
        let address = lines(&self.brand.postal_address);
        let context = json!({
            "lang": language.code(),
            "dir": language.direction(),
            "url": (!has_link).then(|| quiet(url)),
            "because": because,
            "unsubscribe": language.text(if plain { "mail.unsubscribe.here" } else { "mail.unsubscribe" }),
            "brand": quiet(&self.brand.name),
            "address": (!has_address).then(|| address.iter().map(|line| quiet(line)).collect::<Vec<_>>()),
        });
        FOOTERS.render(part.as_str(), &context).map_err(|error| ComposeError::Build(error.to_string()))
    }
}

/// A text, cut where something goes in.
type Pieces = Arc<[Box<str>]>;

/// What text parts have in common: where in them an address may stand, and what is added to those that lack something.
#[derive(Default)]
pub(super) struct TextEnds {
    /// By the number of the piece.
    kept: RwLock<HashMap<u32, Arc<Kept>>>,
    /// Cut where the link's URL goes.
    footers: RwLock<HashMap<(Language, bool, bool), Pieces>>,
}

/// Stands for the link's URL where a footer is made for many messages.
const URL: &str = "\u{0}";

impl TextEnds {
    /// The text of these pieces, with what it lacks at its end.
    pub(super) fn text(&self, pieces: &[Piece<'_>], must: Option<&Must<'_>>) -> Result<String, ComposeError> {
        let mut text: String = pieces.iter().map(Piece::as_str).collect();
        let Some(must) = must else { return Ok(text) };
        let has_link = text.contains(must.url);
        let has_address = self.shows_address(pieces, must.address);
        if has_link && has_address {
            return Ok(text);
        }
        let footer = self.footer(must, has_link, has_address)?;
        text.truncate(text.trim_end().len());
        text.push('\n');
        for (n, part) in footer.iter().enumerate() {
            text.push_str(if n > 0 { must.url } else { "" });
            text.push_str(part);
        }
        Ok(text)
    }

    fn shows_address(&self, pieces: &[Piece<'_>], address: &PostalAddress) -> bool {
        let known = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<_> = pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Fixed(number, text) if !known.contains_key(number) => {
                    Some((*number, Arc::new(address.keep(text))))
                }
                _ => None,
            })
            .collect();
        drop(known);
        if !new.is_empty() {
            self.kept.write().unwrap_or_else(PoisonError::into_inner).extend(new);
        }
        let known = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        address.stands_in_all(pieces.iter().map(|piece| match piece {
            Piece::Fixed(number, text) => match known.get(number) {
                Some(kept) => Seen::Kept(kept),
                None => Seen::New(Cow::Borrowed(text)),
            },
            other => Seen::New(Cow::Borrowed(other.as_str())),
        }))
    }

    fn footer(
        &self,
        must: &Must<'_>,
        has_link: bool,
        has_address: bool,
    ) -> Result<Arc<[Box<str>]>, ComposeError> {
        let key = (must.language, has_link, has_address);
        if let Some(footer) = self.footers.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(footer.clone());
        }
        let footer = must.footer(Part::Text, URL, (has_link, has_address))?;
        if footer.matches(URL).count() != usize::from(!has_link) {
            let footer = must.footer(Part::Text, must.url, (has_link, has_address))?;
            return Ok(Arc::new([footer.into()]));
        }
        let parts: Arc<[Box<str>]> = footer.split(URL).map(Box::from).collect();
        self.footers.write().unwrap_or_else(PoisonError::into_inner).insert(key, parts.clone());
        Ok(parts)
    }
}

/// What can be seen of a page.
pub(super) struct Sight {
    pub(super) sheets: Sheets,
    /// Whether nothing in it may hide just anything.
    pub(super) trusted: bool,
    /// Whether the link can be seen.
    pub(super) has_link: bool,
    /// The text that can be seen, where it is trusted.
    pub(super) text: String,
}

impl Sight {
    /// What a style sheet may hide is not counted as seen.
    pub(super) fn of(html: &str, url: &str) -> Self {
        let sheets = Sheets::of(html);
        let seen = html::visible(html, url, &sheets);
        let trusted = !sheets.may_hide_anything();
        Self { sheets, trusted, has_link: trusted && seen.has_link, text: seen.text }
    }

    /// Whether style sheets may hide or paint the footer.
    pub(super) fn asks_for_a_hard_footer(&self, html: &str) -> bool {
        self.sheets.may_hide_footer() || hiding::may_paint(html)
    }
}

/// Whether a page looks otherwise by night.
pub(super) fn knows_night(html: &str) -> bool {
    html.contains("prefers-color-scheme")
}

/// Puts the footer where a reader sees it.
pub(super) fn insert(html: String, url: &str, sheets: &Sheets, footer: &str) -> Result<String, ComposeError> {
    let html = if sheets.may_hide_footer() { hiding::open_up(html) } else { html };
    let body_ends = end_of_body(&html);
    // Inside of something hidden the footer would be hidden too; then try where less encloses it. Asked with a bare link,
    // which no other one before it stands in for.
    let probe = format!("<a href=\"{}\">.</a>", handlebars::html_escape(url));
    for at in [body_ends, html.len()] {
        let (before, after) = html.split_at(at);
        let Some(closers) = hiding::closers(before) else { break };
        let others = before.replace(url, "#");
        let probed = [&others, &closers, &probe, after].concat();
        if html::visible(&probed, url, &Sheets::default()).has_link {
            return Ok([before, &closers, footer, after].concat());
        }
    }
    Err(ComposeError::Hidden)
}

/// Where `</body>` stands that ends the body, or `</html>`, or the end.
fn end_of_body(source: &str) -> usize {
    let mut end = None;
    for piece in html::Pieces::new(source) {
        if let html::Piece::Tag(tag) = piece
            && tag.closing
            && (tag.is("body") || (tag.is("html") && end.is_none()))
        {
            end = Some(tag.span.start);
        }
    }
    end.unwrap_or(source.len())
}

/// A postal address, known again whatever its lines and commas: by its letters and digits in lower case.
pub(super) struct PostalAddress(String);

impl PostalAddress {
    /// None when nothing of it is left.
    pub(super) fn new(text: &str) -> Option<Self> {
        Some(Self(bare(text))).filter(|address| !address.0.is_empty())
    }

    /// Whether this text has it.
    pub(super) fn stands_in(&self, text: &str) -> bool {
        bare(text).contains(&self.0)
    }

    /// Whether these texts, one after the other, have it.
    pub(super) fn stands_in_all<'t>(&self, texts: impl Iterator<Item = Seen<'t>>) -> bool {
        let mut near = String::new();
        for text in texts {
            match text {
                Seen::Kept(kept) if kept.has_it => return true,
                Seen::Kept(Kept { start, end: None, .. }) => near.push_str(start),
                // Whoever looks for letters and digits does not find this.
                Seen::Kept(Kept { start, end: Some(end), .. }) => near.extend([&**start, "\0", &**end]),
                Seen::New(text) => push_bare(&text, &mut near),
            }
        }
        near.contains(&self.0)
    }

    /// Of a text that comes in many messages what matters to them.
    pub(super) fn keep(&self, text: &str) -> Kept {
        let text = bare(text);
        let has_it = text.contains(&self.0);
        let most = self.0.len();
        if text.len() <= 2 * most {
            return Kept { start: text.into(), end: None, has_it };
        }
        let start = text.floor_char_boundary(most);
        let end = text.ceil_char_boundary(text.len() - most);
        Kept { start: text[..start].into(), end: Some(text[end..].into()), has_it }
    }
}

/// A text of a message, in which an address may stand.
pub(super) enum Seen<'t> {
    Kept(&'t Kept),
    New(Cow<'t, str>),
}

/// Of a text what an address that begins or ends in it could share with it.
pub(super) struct Kept {
    start: Box<str>,
    /// None when `start` is all of it.
    end: Option<Box<str>>,
    has_it: bool,
}

impl Kept {
    pub(super) fn octets(&self) -> usize {
        self.start.len() + self.end.as_ref().map_or(0, |end| end.len())
    }
}

/// Letters and digits alone, in lower case.
fn bare(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    push_bare(text, &mut bare);
    bare
}

fn push_bare(text: &str, bare: &mut String) {
    bare.extend(text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase));
}
