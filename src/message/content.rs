//! What a start freezes, and what a worker keeps of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::inline::{Inlined, inline};
use super::template::{Assembly, Flaw, Parsed, Ready};
use super::{Part, TemplateError, html};
use crate::id::{BrandId, ContentId, TopicId};

/// A template that another one includes, as frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// Its HTML, Handlebars.
    pub html: String,
    /// Its text, Handlebars.
    pub text: String,
}

/// What a start froze: all that a message is made of but the person.
#[derive(Clone, Debug, PartialEq)]
pub struct Frozen {
    /// Its id.
    pub id: ContentId,
    /// The brand it is sent for.
    pub brand_id: BrandId,
    /// The topic it is sent in.
    pub topic_id: TopicId,
    /// The slug of the template.
    pub template: String,
    /// The subject, Handlebars.
    pub subject: String,
    /// The HTML part, Handlebars.
    pub html: String,
    /// The text part, Handlebars.
    pub text: String,
    /// Every template that can be reached from it, by slug.
    pub partials: BTreeMap<String, Partial>,
    /// The campaign's data: an object.
    pub data: serde_json::Value,
    /// `Name <address>` of Reply-To, before the brand's.
    pub reply_to: Option<String>,
}

impl Frozen {
    /// Whether compiling it, or making a message of it, may keep a thread busy for long: it loops, or is long.
    pub fn is_heavy(&self) -> bool {
        let partials = self.partials.values().flat_map(|partial| [&partial.html, &partial.text]);
        let sources: Vec<&String> =
            [&self.subject, &self.html, &self.text].into_iter().chain(partials).collect();
        sources.iter().map(|source| source.len()).sum::<usize>() > LIGHT
            || sources.iter().any(|source| source.contains("each"))
    }
}

impl Frozen {
    /// Puts it into the layout if it is no document of its own, and writes its styles at its elements where that is
    /// possible; says what stays in `<style>` alone. What could be compiled before can be compiled still.
    pub(super) fn inlined(self) -> (Self, Vec<String>) {
        let mut whole = self;
        if whole.needs_layout() {
            let source = std::mem::replace(&mut whole.html, LAYOUT.to_owned());
            let (styles, body) = source.split_at(leading_styles(&source));
            for (place, html) in [(STYLES, styles), (BODY, body)] {
                whole
                    .partials
                    .insert(place.to_owned(), Partial { html: html.to_owned(), text: String::new() });
            }
        }
        let inlined = whole.inline();
        let mut done = whole.clone();
        done.html = inlined.applied("", &whole.html);
        for (slug, partial) in &mut done.partials {
            partial.html = inlined.applied(slug, &partial.html);
        }
        if Compiled::new(&done).is_ok() {
            return (done, inlined.left);
        }
        (whole, vec!["with its styles at its elements the template would be too large".into()])
    }

    /// What stays in `<style>` alone, and why.
    pub(super) fn left_in_style(&self) -> Vec<String> {
        self.inline().left
    }

    fn inline(&self) -> Inlined {
        let partials = self.partials.iter().map(|(slug, partial)| (slug.as_str(), partial.html.as_str()));
        inline(&self.html, &partials.collect())
    }

    fn needs_layout(&self) -> bool {
        !is_document(&self.html) && !self.partials.values().any(|partial| is_document(&partial.html))
    }
}

/// Most templates that one may reach by including them.
pub(super) const MAX_PARTIALS: usize = 100;
/// Where the layout takes the body in; no slug begins with @.
const BODY: &str = "@body";
/// Where it takes the styles in with which a template begins: `<style>` belongs into the head, and Gmail reads it nowhere
/// else.
const STYLES: &str = "@styles";
/// Longest sources, in octets, of which a message is made in no time unless they loop.
const LIGHT: usize = 32 * 1024;
pub(super) const LAYOUT: &str = include_str!("../../templates/mail/layout.html.hbs");

/// Frozen content, parsed and ready for [`compose`](super::compose()). A clone is the same one.
#[derive(Clone)]
pub struct Compiled {
    frozen: Arc<Frozen>,
    pub(super) subject: Arc<Ready>,
    pub(super) html: Arc<Ready>,
    pub(super) text: Arc<Ready>,
}

impl Compiled {
    /// Parses and checks it. HTML without `<html>` is put into the base layout.
    ///
    /// # Errors
    /// Where a template cannot be used and why.
    pub fn new(frozen: &Frozen) -> Result<Self, TemplateError> {
        Self::within(frozen, frozen.needs_layout())
    }

    /// As [`new`](Self::new), but never in the base layout: for whoever judges what the template itself says.
    ///
    /// # Errors
    /// Where a template cannot be used and why.
    pub fn bare(frozen: &Frozen) -> Result<Self, TemplateError> {
        Self::within(frozen, false)
    }

    fn within(frozen: &Frozen, layout: bool) -> Result<Self, TemplateError> {
        let own = |part: Part| move |flaw: Flaw| TemplateError::new(&frozen.template, part, flaw);
        let parse = |part: Part, source: &str| Parsed::new(source).map_err(own(part));
        let mut html_partials = BTreeMap::new();
        let mut text_partials = BTreeMap::new();
        for (slug, partial) in &frozen.partials {
            let theirs = |part: Part| move |flaw: Flaw| TemplateError::new(slug, part, flaw);
            html_partials.insert(slug.clone(), Parsed::new(&partial.html).map_err(theirs(Part::Html))?);
            text_partials.insert(slug.clone(), Parsed::new(&partial.text).map_err(theirs(Part::Text))?);
        }
        let mut html = parse(Part::Html, &frozen.html)?;
        if layout {
            let (styles, body) = frozen.html.split_at(leading_styles(&frozen.html));
            for (place, source) in [(STYLES, styles), (BODY, body)] {
                html_partials.insert(place.to_owned(), parse(Part::Html, source)?);
            }
            html = parse(Part::Html, LAYOUT)?;
        }
        let html = Assembly::new(&html_partials).assemble(&html, Part::Html).map_err(own(Part::Html))?;
        let mut plain = Assembly::new(&text_partials);
        let text = parse(Part::Text, &frozen.text)?;
        let text = plain.assemble(&text, Part::Text).map_err(own(Part::Text))?;
        let subject = parse(Part::Subject, &frozen.subject)?;
        let subject = plain.assemble(&subject, Part::Subject).map_err(own(Part::Subject))?;
        Ok(Self {
            frozen: Arc::new(frozen.clone()),
            subject: Arc::new(subject),
            html: Arc::new(html),
            text: Arc::new(text),
        })
    }

    /// What it was made from.
    pub fn frozen(&self) -> &Frozen {
        &self.frozen
    }
}

/// Where the `<style>` elements end with which a template begins; 0 when it begins with none.
fn leading_styles(source: &str) -> usize {
    let mut end = 0;
    let mut inside = false;
    for piece in html::Pieces::new(source) {
        match piece {
            html::Piece::Text(text) if text.trim().is_empty() => {}
            html::Piece::Hidden(_) if inside => {}
            html::Piece::Tag(tag) if tag.is("style") => {
                inside = !tag.closing;
                if tag.closing {
                    end = tag.span.end;
                }
            }
            _ => break,
        }
    }
    // A block of the template that begins in a style and ends after it is not cut.
    let (styles, body) = source.split_at(end);
    if Parsed::new(styles).is_ok() && Parsed::new(body).is_ok() { end } else { 0 }
}

fn is_document(source: &str) -> bool {
    html::Pieces::new(source).any(|piece| matches!(piece, html::Piece::Tag(tag) if tag.is("html")))
}

/// Whether one part of a template can be used by itself.
///
/// # Errors
/// Where it cannot and why.
pub(super) fn check_part(slug: &str, part: Part, source: &str) -> Result<(), TemplateError> {
    Parsed::new(source).map(|_| ()).map_err(|flaw| TemplateError::new(slug, part, flaw))
}

/// The templates that this one includes, by name.
///
/// # Errors
/// Where it cannot be used and why.
pub(super) fn includes(
    slug: &str,
    subject: &str,
    html: &str,
    text: Option<&str>,
) -> Result<BTreeSet<String>, TemplateError> {
    let mut names = BTreeSet::new();
    for (part, source) in [(Part::Subject, Some(subject)), (Part::Html, Some(html)), (Part::Text, text)] {
        if let Some(source) = source {
            let parsed = Parsed::new(source).map_err(|flaw| TemplateError::new(slug, part, flaw))?;
            names.extend(parsed.partials());
        }
    }
    Ok(names)
}
