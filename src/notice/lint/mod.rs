//! Whether a template may serve notices: it must say what a notice must say, and nothing else. Pure.
//!
//! The template is judged by what it would send. It is rendered as it is for real, without the layout, for each case that
//! a notice can be and in each language, with values that stand nowhere else; and once more for each branch of its
//! conditions, whatever they ask for, so that nothing hides behind one; conditions that take a tag apart are refused. What comes out is read as browsers read it: elements,
//! attributes and styles are those of a list that can neither load anything nor hide anything, each link is one that the
//! program gives, and what must be said is seen in both parts.

mod links;
mod page;
mod samples;
mod styles;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use url::Url;

use crate::address::{AddressHash, EmailAddress};
use crate::brand::Brand;
use crate::clock::Timestamp;
use crate::id::{DeliveryId, RecipientId};
use crate::link::KeyRing;
use crate::message::{
    Addressee, Compiled, ComposeError, DkimKeys, Frozen, MAX_CONDITIONS, Prepared, Rendered, Sender,
    blocks_marked, branches, names,
};
use links::Ours;
use page::Page;
use samples::Case;

/// Most findings of a template; who mends them finds the rest.
const MAX_FINDINGS: usize = 30;
/// What is said of a person; nobody judges what it will be.
const OF_ONE_PERSON: [&str; 3] = ["attributes", "external_id", "customer"];

/// What is wrong with a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Each of these keeps it from serving notices.
    pub refused: Vec<String>,
    /// What could be better.
    pub warnings: Vec<String>,
}

/// Looks at what a template would send for this brand, whose links begin as those of the `program` where it has none of
/// its own. Where the notice `asks` people to answer, it must link to where they do. It takes some time: keep it from
/// threads that serve others.
pub fn check(template: &Frozen, brand: &Brand, program: &Url, asks: bool) -> Findings {
    let mut judge = Judge::default();
    for word in names(template).iter().filter(|word| OF_ONE_PERSON.contains(&word.as_str())) {
        judge.refuse(format!("it names {word}, but a notice says the same to everyone; take that out"));
    }
    if names(template).contains("unsubscribe_url") {
        judge.refuse(
            "it names unsubscribe_url, but nobody can refuse a notice; use {{preferences_url}}".to_owned(),
        );
    }
    let whole = samples::complete(brand);
    let told = if samples::has_contact(brand) { brand } else { &whole };
    judge.real(template, told, program, asks);
    if blocks_marked(template, page::MARK).is_some_and(|html| page::is_torn(&html)) {
        judge.refuse(
            "it has a condition inside of an element's tag or a comment, so that no reading of one branch shows what is sent; \
             put conditions around whole elements"
                .to_owned(),
        );
    }
    match branches(template) {
        Some(all) => judge.branches(&all, &whole, program),
        None => judge.refuse(format!(
            "it is too long to be judged, or has more than {MAX_CONDITIONS} conditions; make it simpler"
        )),
    }
    judge.findings()
}

/// What has been found so far.
#[derive(Default)]
struct Judge {
    refused: Vec<String>,
    warnings: BTreeSet<String>,
    /// What is not said, by what it is and how it is written: in which parts, and where that was seen first.
    missing: BTreeMap<(&'static str, &'static str), (BTreeSet<&'static str>, String)>,
}

impl Judge {
    fn refuse(&mut self, finding: String) {
        if self.refused.len() < MAX_FINDINGS && !self.refused.contains(&finding) {
            self.refused.push(finding);
        }
    }

    fn findings(mut self) -> Findings {
        for ((what, tag), (parts, first)) in std::mem::take(&mut self.missing) {
            let parts = parts.into_iter().collect::<Vec<_>>().join(" and in ");
            self.refuse(format!("it does not say {what} in {parts}{first}; write {tag} there, to be seen"));
        }
        Findings { refused: self.refused, warnings: self.warnings.into_iter().collect() }
    }

    /// Renders it for each case that may come.
    fn real(&mut self, template: &Frozen, brand: &Brand, program: &Url, asks: bool) {
        let cases = Case::all(asks);
        let stage = match Stage::new(template, brand, program) {
            Ok(stage) => stage,
            Err(reason) => return self.refuse(reason),
        };
        for (n, case) in cases.iter().enumerate() {
            // What is wrong in one language is wrong in the others.
            let is_next = n > 0 && cases[n - 1].language() != case.language();
            if is_next && !(self.refused.is_empty() && self.missing.is_empty()) {
                return;
            }
            let data = case.data(brand, &stage.base);
            let rendered = match stage.render(case, &data) {
                Ok(rendered) => rendered,
                Err(error) => return self.refuse(unrendered(&error)),
            };
            let place = if n == 0 { String::new() } else { format!(" when it tells of a {case}") };
            self.whole(&rendered, case, &data, &stage, &place);
        }
    }

    /// Renders each branch once, as if all that is conditional were there.
    fn branches(&mut self, all: &[Frozen], brand: &Brand, program: &Url) {
        let case = Case::full();
        for template in all {
            let rendered = Stage::new(template, brand, program).and_then(|stage| {
                Ok((
                    stage
                        .render(&case, &case.data(brand, &stage.base))
                        .map_err(|error| unrendered(&error))?,
                    stage,
                ))
            });
            match rendered {
                Ok((rendered, stage)) => drop(self.alone(&rendered, &case, &stage)),
                Err(reason) => return self.refuse(reason),
            }
        }
    }

    /// What it may not hold, whatever else it says.
    fn alone(&mut self, rendered: &Rendered, case: &Case, stage: &Stage<'_>) -> (Page, Ours) {
        let ours = stage.ours(rendered, case);
        let page = page::read(&rendered.html, stage.brand.color.as_deref());
        let mut found: Vec<String> = page.refused.clone();
        found.extend(page.links.iter().filter_map(|link| ours.refuses(&link.href)));
        found.extend(ours.refused_in_text(&page.text));
        found.extend(ours.refused_in_text(&rendered.text));
        found.into_iter().for_each(|finding| self.refuse(finding));
        let said = [&page.text, &rendered.text];
        self.warnings.extend(said.iter().flat_map(|text| words::left_to_people(text)));
        (page, ours)
    }

    /// That, and what it must say.
    fn whole(&mut self, rendered: &Rendered, case: &Case, data: &Json, stage: &Stage<'_>, place: &str) {
        let (page, ours) = self.alone(rendered, case, stage);
        let mut miss = |part, what, tag| {
            let (parts, _) =
                self.missing.entry((what, tag)).or_insert_with(|| (BTreeSet::new(), place.to_owned()));
            parts.insert(part);
        };
        if !one_spaced(&rendered.subject).contains(&one_spaced(samples::TITLE)) {
            miss("its subject", "which policy changes", "{{data.policy}} or {{data.words.subject}}");
        }
        let must = case.words(stage.brand, data);
        let linked: Vec<&str> =
            page.links.iter().filter(|link| link.is_seen).map(|link| link.href.as_str()).collect();
        for (part, text, hrefs) in
            [("its HTML part", &page.text, &linked[..]), ("its text part", &rendered.text, &[])]
        {
            let seen = one_spaced(text);
            for (what, tag, any) in &must {
                if !any.iter().any(|words| seen.contains(&one_spaced(words))) {
                    miss(part, *what, *tag);
                }
            }
            let leads = ours.leading(text, hrefs);
            for (what, tag, url) in [
                ("where the new text stands", "{{data.url}}", ours.new.as_str()),
                ("where the old text stands", "{{data.old_url}}", ours.old.as_str()),
            ] {
                if !leads.contains(url) {
                    miss(part, what, tag);
                }
            }
            if case.answers() && !leads.contains(ours.approve.as_str()) {
                miss(part, "where people answer", "{{approve_url}}");
            }
        }
    }
}

fn unrendered(error: &ComposeError) -> String {
    match error {
        ComposeError::Variable { name } => {
            format!("it names {name}, which not every notice has; take that out")
        }
        other => format!("no message can be made of it: {other}"),
    }
}

/// With one space wherever there is any, as it is seen.
fn one_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A template ready to be rendered for anybody.
struct Stage<'b> {
    prepared: Prepared,
    brand: &'b Brand,
    base: String,
    address: EmailAddress,
}

impl<'b> Stage<'b> {
    fn new(template: &Frozen, brand: &'b Brand, program: &Url) -> Result<Self, String> {
        let unusable = |why: String| format!("no message can be made of it: {why}");
        let compiled = Compiled::bare(template).map_err(|error| unusable(error.to_string()))?;
        // It signs links that lead to nobody.
        let keys = KeyRing::parse(&KeyRing::new_key()).map_err(|error| unusable(error.to_string()))?;
        let sender = Sender {
            brand,
            topic: &samples::topic(brand),
            base_url: program,
            link_keys: &keys,
            default_bounce_domain: None,
            inbound_domain: None,
            dkim: &DkimKeys::default(),
        };
        Ok(Self {
            prepared: Prepared::new(&compiled, &sender).map_err(|error| unusable(error.to_string()))?,
            brand,
            base: brand.base(program).trim_end_matches('/').to_owned(),
            address: EmailAddress::parse("somebody@people.example")
                .map_err(|error| unusable(error.to_string()))?,
        })
    }

    fn render(&self, case: &Case, data: &Json) -> Result<Rendered, ComposeError> {
        let nothing = json!({});
        let addressee = Addressee {
            recipient: RecipientId::new(),
            address: &self.address,
            address_hash: &AddressHash(vec![0; AddressHash::LEN]),
            name: case.name(),
            locale: Some(case.language()),
            external_id: None,
            customer: false,
            attributes: &nothing,
            data: Some(data),
        };
        self.prepared.rendered(&addressee, DeliveryId::new(), Timestamp(samples::NOW))
    }

    fn ours(&self, rendered: &Rendered, case: &Case) -> Ours {
        let (new, old, changes) = case.urls(&self.base);
        Ours::new(self.brand, [new, old, changes], &rendered.approve_url, &rendered.preferences_url)
    }
}

#[cfg(test)]
mod tests;
