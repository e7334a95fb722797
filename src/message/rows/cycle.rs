//! Templates that would include themselves: told when they are written, not first when a campaign starts.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbErr};

use super::{Wanted, find};
use crate::message::Part;
use crate::message::content::{MAX_PARTIALS, includes};

/// The part through which this template would come to include itself, and the template that it includes for it. Those
/// that are not there are left out, and so is whatever no start would reach for their number.
///
/// # Errors
/// The database's own.
pub async fn includes_itself(
    on: &impl ConnectionTrait,
    wanted: &Wanted,
) -> Result<Option<(Part, String)>, DbErr> {
    for part in [Part::Html, Part::Text] {
        let mut seen = BTreeSet::new();
        for first in included(part, &wanted.html, wanted.text.as_deref()) {
            let mut open = vec![first.clone()];
            while let Some(name) = open.pop() {
                if name == wanted.slug {
                    return Ok(Some((part, first)));
                }
                if seen.len() > MAX_PARTIALS || !seen.insert(name.clone()) {
                    continue;
                }
                if let Some(template) = find(on, &name).await? {
                    open.extend(included(part, &template.html, template.text.as_deref()));
                }
            }
        }
    }
    Ok(None)
}

/// What one part includes; the text part that is made from the HTML includes what that does.
fn included(part: Part, html: &str, text: Option<&str>) -> BTreeSet<String> {
    let source = if part == Part::Text { text.unwrap_or(html) } else { html };
    includes("", "", source, None).unwrap_or_default()
}
