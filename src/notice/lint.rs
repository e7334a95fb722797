//! Whether a template may serve notices: it must say what a notice must say, and nothing else. Pure.

use serde_json::Value as Json;
use url::Url;

use crate::brand::Brand;

/// What a template has to name, any of each line, and what is missing without it.
const MUST: [(&[&str], &str); 5] = [
    (&["data.summary"], "what changes: {{data.summary}}"),
    (
        &["data.effective_date", "data.effective_at", "data.effective_utc", "data.words.when_text"],
        "the date from which it holds: {{data.effective_date}}",
    ),
    (&["data.url"], "where the new text stands: {{data.url}}"),
    (&["data.old_url", "data.changes_url"], "where the old text stands: {{data.old_url}}"),
    (&["data.rights"], "what rights people have: {{data.rights}}"),
];
const CONTACT: [&str; 3] = ["brand.phone", "brand.postal_address", "brand.website"];
/// What tells advertisers and trackers who read a message or whence somebody comes.
const TRACKING: [&str; 7] = ["utm_", "gclid", "fbclid", "mc_eid", "url(", "background=", "srcset="];
/// Parts of sentences that leave it to people to find out by themselves.
const LEFT_TO_THEM: [&str; 4] =
    ["check this page", "check back", "review this policy regularly", "review this policy periodically"];

/// What is wrong with a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Each of these keeps it from serving notices.
    pub refused: Vec<String>,
    /// What could be better.
    pub warnings: Vec<String>,
}

/// Looks at the sources of a template and all that it includes. `hosts` are those of the brand itself, to which alone a
/// notice may link.
pub fn check(sources: &[String], hosts: &[String], asks_approval: bool) -> Findings {
    let mut findings = Findings::default();
    let whole = sources.join("\n");
    let small = whole.to_lowercase();
    for (names, what) in MUST {
        if !names.iter().any(|name| names_it(&whole, name)) {
            findings.refused.push(format!("it does not say {what}"));
        }
    }
    if !CONTACT.iter().any(|name| names_it(&whole, name)) {
        findings.refused.push("it does not say whom to ask: {{brand.postal_address}}".to_owned());
    }
    if asks_approval && !names_it(&whole, "approve_url") {
        findings.refused.push("it does not link to where people answer: {{approve_url}}".to_owned());
    }
    if small.contains("<img") || small.contains("<script") || small.contains("<iframe") {
        findings
            .refused
            .push("it loads images or programs, which can track; the brand's logo is shown by itself".into());
    }
    for mark in TRACKING.iter().filter(|mark| small.contains(**mark)) {
        findings.refused.push(format!("it holds {mark:?}, which serves tracking"));
    }
    if names_it(&whole, "unsubscribe_url") {
        findings.refused.push(
            "it links to {{unsubscribe_url}}, but nobody can refuse a notice; use {{preferences_url}}".into(),
        );
    }
    let mut elsewhere = foreign_hosts(&whole, hosts);
    elsewhere.dedup();
    for host in elsewhere {
        findings.refused.push(format!("it links to {host}, which is not the brand's own"));
    }
    for words in LEFT_TO_THEM.iter().filter(|words| small.contains(**words)) {
        findings
            .warnings
            .push(format!("it says {words:?}: telling people to look for themselves is no notice"));
    }
    findings
}

/// The hosts that are the brand's own: of its website, of what its links begin with, of its pages.
pub fn hosts_of(brand: &Brand, program: &Url) -> Vec<String> {
    let origins = brand.origins.as_array().map(Vec::as_slice).unwrap_or_default();
    let origins = origins.iter().filter_map(Json::as_str);
    let urls = origins.chain(brand.website.as_deref()).chain([brand.base(program)]);
    urls.filter_map(|url| Url::parse(url).ok()?.host_str().map(str::to_owned)).collect()
}

/// Whether a Handlebars tag names it.
fn names_it(source: &str, name: &str) -> bool {
    source.match_indices(name).any(|(at, _)| {
        let before = source[..at].chars().next_back();
        let after = source[at + name.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
        !part(before) && !part(after) && source[..at].rfind("{{") > source[..at].rfind("}}")
    })
}

/// The hosts of links that stand in it as they are and are not the brand's own.
fn foreign_hosts(source: &str, own: &[String]) -> Vec<String> {
    let mut found: Vec<String> = ["http://", "https://"]
        .iter()
        .flat_map(|scheme| source.match_indices(scheme))
        .filter_map(|(at, _)| {
            let rest = &source[at..];
            let end = rest.find(|c: char| c.is_whitespace() || "\"'<>{})".contains(c)).unwrap_or(rest.len());
            Url::parse(&rest[..end]).ok()?.host_str().map(str::to_owned)
        })
        .filter(|host| !own.iter().any(|own| host == own || host.ends_with(&format!(".{own}"))))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::message::{HTML, TEXT};

    fn refused(html: &str) -> Vec<String> {
        check(&[html.to_owned()], &["acme.example".to_owned()], false).refused
    }

    const GOOD: &str = "<p>{{data.summary}} {{data.effective_date}} <a href=\"{{data.url}}\">new</a> \
        <a href=\"{{data.old_url}}\">old</a> {{data.rights}} {{brand.postal_address}}</p>";

    #[test]
    fn the_built_in_template_may_serve() {
        for source in [HTML, TEXT] {
            assert_eq!(check(&[source.to_owned()], &[], true), Findings::default());
        }
        assert!(refused(GOOD).is_empty());
    }

    #[test]
    fn each_thing_that_is_missing_is_named() {
        for (name, words) in [
            ("{{data.summary}}", "what changes"),
            ("{{data.effective_date}}", "date"),
            ("{{data.url}}", "new text"),
            ("{{data.old_url}}", "old text"),
            ("{{data.rights}}", "rights"),
            ("{{brand.postal_address}}", "whom to ask"),
        ] {
            let bare = name.trim_matches(['{', '}']);
            let found = refused(&GOOD.replace(name, bare));
            assert!(found.len() == 1 && found[0].contains(words), "{name}: {found:?}");
        }
        assert!(check(&[GOOD.to_owned()], &[], true).refused[0].contains("approve_url"));
    }

    #[test]
    fn tracking_and_advertising_are_refused() {
        for bad in [
            "<img src=\"{{data.pixel}}\">",
            "<script>1</script>",
            "<a href=\"{{data.url}}?utm_source=mail\">x</a>",
            "<p style=\"background:url(x)\">x</p>",
            "<a href=\"https://shop.example/sale\">Sale</a>",
            "<a href=\"{{unsubscribe_url}}\">x</a>",
        ] {
            assert_eq!(refused(&format!("{GOOD}{bad}")).len(), 1, "{bad}");
        }
        assert!(refused(&format!("{GOOD}<a href=\"https://www.acme.example/x\">ours</a>")).is_empty());
        let found = check(&[format!("{GOOD} Please check this page often.")], &[], false);
        assert!(found.refused.is_empty() && found.warnings.len() == 1);
    }
}
