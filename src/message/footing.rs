//! What a message must carry for those who want no more of it: the unsubscribe link and the postal address, both
//! visible, in both parts. A body that lacks them is completed; none is sent without.

use std::sync::LazyLock;

use handlebars::Handlebars;
use serde_json::json;
use url::Url;

use super::hiding::{self, Sheets};
use super::{Addressee, ComposeError, Part, Sender, html};
use crate::clock::Timestamp;
use crate::config::{MAX_BASE_URL, is_loopback};
use crate::id::DeliveryId;
use crate::language::Locale;
use crate::link::{Link, Purpose, UNSUBSCRIBE};

/// The page by which one person stops one message: only made from a signed link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnsubscribeLink {
    url: String,
    mailto: Option<String>,
}

impl UnsubscribeLink {
    fn new(
        sender: &Sender<'_>,
        addressee: &Addressee<'_>,
        delivery: DeliveryId,
        made_at: Timestamp,
    ) -> Result<Self, ComposeError> {
        let link = Link {
            purpose: Purpose::Unsubscribe,
            address_hash: addressee.address_hash.clone(),
            recipient: addressee.recipient,
            brand: sender.brand.id,
            topic: sender.topic.id,
            delivery,
            made_at,
        };
        let base = base_url(sender)?;
        let token = link.to_token(sender.link_keys);
        let url = format!("{}/u/{token}", base.as_str().trim_end_matches('/'));
        Ok(Self { url, mailto: sender.inbound_domain.map(|domain| mailto(domain, &token)) })
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

fn base_url(sender: &Sender<'_>) -> Result<Url, ComposeError> {
    let unusable = |reason: &str| ComposeError::Brand { field: "base_url", reason: reason.into() };
    let base = match &sender.brand.base_url {
        Some(own) => Url::parse(own).map_err(|_| unusable("it is no URL"))?,
        None => sender.base_url.clone(),
    };
    match base.scheme() {
        _ if base.as_str().len() > MAX_BASE_URL || base.query().is_some() || base.fragment().is_some() => {
            Err(unusable("it must be short, without query and fragment"))
        }
        "https" => Ok(base),
        "http" if is_loopback(&base) => Ok(base),
        _ => Err(unusable("it must begin with https:")),
    }
}

/// How a message stands to refusal. What can be refused cannot be without its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Footing {
    /// People may refuse it, by this link.
    Refusable(UnsubscribeLink),
    /// People get it whatever they said; it carries no unsubscribe link or header.
    ServiceSide,
}

impl Footing {
    /// What the topic's class asks for.
    pub(super) fn new(
        sender: &Sender<'_>,
        addressee: &Addressee<'_>,
        delivery: DeliveryId,
        made_at: Timestamp,
    ) -> Result<Self, ComposeError> {
        if !sender.topic.class.can_be_refused() {
            return Ok(Self::ServiceSide);
        }
        if bare(&sender.brand.postal_address).is_empty() {
            return Err(ComposeError::Brand { field: "postal_address", reason: "it is empty".into() });
        }
        Ok(Self::Refusable(UnsubscribeLink::new(sender, addressee, delivery, made_at)?))
    }

    /// The link's URL; empty for the service side.
    pub(super) fn url(&self) -> &str {
        match self {
            Self::Refusable(link) => link.as_str(),
            Self::ServiceSide => "",
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

/// Adds to the HTML part what it lacks: before `</body>`, or at the end, in the language of this locale.
pub(super) fn complete_html(
    html: String,
    footing: &Footing,
    sender: &Sender<'_>,
    locale: Locale,
) -> Result<String, ComposeError> {
    let Footing::Refusable(link) = footing else { return Ok(html) };
    let sheets = Sheets::of(&html);
    // What a style sheet may hide is not counted as seen.
    let seen = html::visible(&html, link.as_str(), &sheets);
    let trusted = !sheets.may_hide_anything();
    let has_address = trusted && bare(&seen.text).contains(&bare(&sender.brand.postal_address));
    let has_link = trusted && seen.has_link;
    if has_link && has_address {
        return Ok(html);
    }
    let footer = footer(Part::Html, link, sender, locale, (has_link, has_address))?;
    let doubt = sheets.may_hide_footer();
    let footer = if doubt || hiding::may_paint(&html) {
        hiding::harden(&footer, html.contains("prefers-color-scheme"))
    } else {
        footer
    };
    let html = if doubt { hiding::open_up(html) } else { html };
    let body_ends = end_of_body(&html);
    // Inside of something hidden the footer would be hidden too; then try where less encloses it. Asked with a bare link,
    // which no other one before it stands in for.
    let probe = format!("<a href=\"{}\">.</a>", handlebars::html_escape(link.as_str()));
    for at in [body_ends, html.len()] {
        let (before, after) = html.split_at(at);
        let Some(closers) = hiding::closers(before) else { break };
        let others = before.replace(link.as_str(), "#");
        let probed = [&others, &closers, &probe, after].concat();
        if html::visible(&probed, link.as_str(), &Sheets::default()).has_link {
            return Ok([before, &closers, &footer, after].concat());
        }
    }
    Err(ComposeError::Hidden)
}

/// Adds to the text part what it lacks, at its end, in the language of this locale.
pub(super) fn complete_text(
    mut text: String,
    footing: &Footing,
    sender: &Sender<'_>,
    locale: Locale,
) -> Result<String, ComposeError> {
    let Footing::Refusable(link) = footing else { return Ok(text) };
    let has_link = text.contains(link.as_str());
    let has_address = bare(&text).contains(&bare(&sender.brand.postal_address));
    if has_link && has_address {
        return Ok(text);
    }
    let footer = footer(Part::Text, link, sender, locale, (has_link, has_address))?;
    text.truncate(text.trim_end().len());
    text.push('\n');
    text.push_str(&footer);
    Ok(text)
}

fn footer(
    part: Part,
    link: &UnsubscribeLink,
    sender: &Sender<'_>,
    locale: Locale,
    (has_link, has_address): (bool, bool),
) -> Result<String, ComposeError> {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let plain = part == Part::Text;
    let quiet = |text: &str| if plain { text.to_owned() } else { handlebars::html_escape(text) };
    let values = [("topic", sender.topic.name.as_str().into()), ("brand", sender.brand.name.as_str().into())];
    let because =
        if plain { locale.fill("mail.because", &values) } else { locale.fill_html("mail.because", &values) };
    let language = locale.language();
    let context = json!({
        "lang": language.code(),
        "dir": language.direction(),
        "url": (!has_link).then(|| quiet(link.as_str())),
        "because": because,
        "unsubscribe": language.text(if plain { "mail.unsubscribe.here" } else { "mail.unsubscribe" }),
        "brand": quiet(&sender.brand.name),
        "address": (!has_address).then(|| lines(&sender.brand.postal_address).iter().map(|l| quiet(l)).collect::<Vec<_>>()),
    });
    FOOTERS.render(part.as_str(), &context).map_err(|error| ComposeError::Build(error.to_string()))
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

/// Letters and digits alone, in lower case: an address is the same whatever its lines and commas.
fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
