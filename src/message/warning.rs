//! What could be better about a message: told to who writes it, never a reason not to send.

use serde::Serialize;
use utoipa::ToSchema;

use super::hiding::Sheets;
use super::html::{Piece, Pieces, Tag, visible};
use super::inline::DECORATIVE;
use super::template::scan::{Kind, scan};
use super::{Frozen, Message};
use crate::config::is_loopback;

/// From how many octets on Gmail cuts an HTML part off.
const CLIPPED: usize = 102_000;

/// What kind of thing could be better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// The HTML part is so long that Gmail cuts it off, and with it the unsubscribe link at its end.
    Clipped,
    /// Images have no `alt`. They are sent with an empty one: as decoration, which is not read out.
    ImageWithoutAlt,
    /// Links have neither text nor an image with an `alt`, so nobody is told where they lead.
    LinkWithoutText,
    /// Links or images are reached by `http:`; some programs warn of them or leave them out.
    NotEncrypted,
    /// Styles are to be loaded from elsewhere, which mail programs do not do.
    LoadsStyles,
    /// Styles that could not be written at the elements: who reads mail without `<style>` does not see them.
    StylesNotInlined,
    /// The HTML part says something, the text part of the template nothing.
    NoText,
}

/// Something that could be better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Warning {
    /// What kind of thing.
    pub kind: WarningKind,
    /// How many, where, and what to do.
    pub detail: String,
}

impl Warning {
    fn new(kind: WarningKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// What could be better about a message that was made of this content.
pub fn warnings(frozen: &Frozen, message: &Message) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let parsed = mail_parser::MessageParser::default().parse(&message.bytes);
    if let Some(parsed) = &parsed {
        let html = parsed.html_body.first().and_then(|part| parsed.parts.get(*part as usize));
        let octets = html.map_or(0, |part| (part.raw_end_offset() - part.raw_body_offset()) as usize);
        if octets >= CLIPPED {
            let detail =
                format!("the HTML part has {octets} octets; Gmail shows what comes before {CLIPPED}");
            warnings.push(Warning::new(WarningKind::Clipped, detail));
        }
        let html = parsed.body_html(0).unwrap_or_default();
        if frozen.text.trim().is_empty() && !visible(&html, "", &Sheets::default()).text.trim().is_empty() {
            warnings.push(Warning::new(WarningKind::NoText, "give the template a text"));
        }
        warnings.extend(of_html(&html));
    }
    let left = frozen.left_in_style();
    warnings.extend(left.into_iter().map(|why| Warning::new(WarningKind::StylesNotInlined, why)));
    warnings
}

/// What could be better about the HTML part of a template, whatever it includes.
pub(super) fn of_template(source: &str) -> Vec<Warning> {
    // Tags of the template may hold quotes; what they stand for is taken to be there.
    let Ok(tags) = scan(source) else { return Vec::new() };
    let mut masked = String::with_capacity(source.len());
    let mut from = 0;
    for tag in tags {
        masked.push_str(&source[from..tag.span.start]);
        masked.push_str(if tag.kind == Kind::Value { "x" } else { " " });
        from = tag.span.end;
    }
    masked.push_str(&source[from..]);
    of_html(&masked)
}

/// What stands in HTML that could be better.
fn of_html(html: &str) -> Vec<Warning> {
    let (mut images, mut links, mut plain, mut sheets) = (0, 0, 0, 0);
    // Whether the link that is open says something.
    let mut link: Option<bool> = None;
    let mut in_style = false;
    for piece in Pieces::new(html) {
        match piece {
            Piece::Text(text) if !text.trim().is_empty() => link = link.map(|_| true),
            Piece::Text(_) => {}
            Piece::Hidden(text) => sheets += usize::from(in_style && text.contains("@import")),
            Piece::Tag(tag) => {
                plain += usize::from(!tag.closing && is_plain(&tag));
                if tag.is("img") {
                    let alt = tag.attribute("alt");
                    images +=
                        usize::from(alt.is_none() || html[tag.span.clone()][4..].starts_with(DECORATIVE));
                    link = link.map(|says| says || alt.is_some_and(|alt| !alt.trim().is_empty()));
                } else if tag.is("a") {
                    links += usize::from(link == Some(false));
                    let labelled = tag.attribute("aria-label").is_some_and(|label| !label.trim().is_empty());
                    let opens = !tag.closing && tag.attribute("href").is_some();
                    link = opens.then_some(labelled);
                } else if tag.is("link") && tag.attribute("rel").is_some_and(|rel| rel.contains("stylesheet"))
                {
                    sheets += 1;
                }
                in_style = tag.is("style") && !tag.closing;
            }
        }
    }
    [
        (
            images,
            WarningKind::ImageWithoutAlt,
            "without alt; write what they show, or alt=\"\" for decoration",
        ),
        (links, WarningKind::LinkWithoutText, "without text; write where they lead"),
        (plain, WarningKind::NotEncrypted, "by http:; write https:"),
        (sheets, WarningKind::LoadsStyles, "loaded from elsewhere; write the rules into <style>"),
    ]
    .into_iter()
    .filter(|(count, ..)| *count > 0)
    .map(|(count, kind, what)| Warning::new(kind, format!("{count} {what}")))
    .collect()
}

fn is_plain(tag: &Tag<'_>) -> bool {
    ["href", "src", "background"].into_iter().filter_map(|name| tag.attribute(name)).any(|url| {
        let plain = url.trim().get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"));
        plain && !url::Url::parse(url.trim()).is_ok_and(|url| is_loopback(&url))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(html: &str) -> Vec<WarningKind> {
        of_template(html).into_iter().map(|warning| warning.kind).collect()
    }

    #[test]
    fn what_could_be_better_is_told_by_its_kind() {
        use WarningKind::{ImageWithoutAlt, LinkWithoutText, LoadsStyles, NotEncrypted};
        for (html, expected) in [
            ("<p>{{name}} <img src=\"https://x.example/a\" alt=\"\"></p>", vec![]),
            ("<img src=\"https://x.example/{{data.a}}\">", vec![ImageWithoutAlt]),
            ("<img alt='' src=a><img src=b alt=''>", vec![ImageWithoutAlt]),
            ("<a href=\"{{lookup data \"u\"}}\">{{name}}</a>", vec![]),
            ("<a href=x><img src=y alt=\"\"></a><a href=x> </a><a href=x>x</a>", vec![LinkWithoutText]),
            ("<a href=x aria-label=Home></a><a name=top></a>", vec![]),
            ("<a href=\"HTTP://x.example\">x</a>", vec![NotEncrypted]),
            ("<a href=\"http://127.0.0.1:8080/x\">x</a><a href=\"{{data.u}}\">x</a>", vec![]),
            ("<style>@import url(x);</style><link rel=stylesheet href=x>", vec![LoadsStyles]),
        ] {
            assert_eq!(kinds(html), expected, "{html}");
        }
    }
}
