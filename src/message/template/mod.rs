//! Templates: parsed, checked, put together with their partials, rendered.
//!
//! A template comes from somebody else and must never take the process down, nor keep it busy. So: its size, tags and
//! depth are bounded before it is parsed ([`scan`]); partials are put in place when a content is compiled, which
//! refuses cycles and bounds what they amount to, so that nothing is included while rendering; rendering counts its
//! steps, loops over nothing included, and stops at a limit of octets.

mod blocks;
pub(super) mod program;
pub(super) mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use handlebars::template::{DecoratorTemplate, HelperTemplate, Parameter, TemplateElement, TemplateMapping};
use handlebars::{
    Context, Handlebars, Output, RenderContext, RenderError, RenderErrorReason, Renderable, Template,
};

use super::{ComposeError, Part};
use blocks::{BLOCKS, INLINE, Steps};
use program::Locals;

/// Most steps that a part of one message may take.
pub(super) const MAX_STEPS: usize = 100_000;
/// Most elements of a part with its partials in place.
const MAX_ELEMENTS: usize = 20_000;
/// Most octets of a part with its partials in place.
const MAX_OCTETS: usize = 1024 * 1024;
/// How deep partials may include partials.
const MAX_PARTIALS_DEEP: usize = 12;
/// How deep blocks may be nested with partials in place; measured, see the tests.
const MAX_BLOCKS_DEEP: usize = 100;

/// Escapes, and sets [`VALUE`] before what it escaped.
static HTML: LazyLock<Handlebars<'static>> =
    LazyLock::new(|| blocks::registry(|text| [VALUE.as_str(), &handlebars::html_escape(text)].concat()));
static PLAIN: LazyLock<Handlebars<'static>> = LazyLock::new(|| blocks::registry(handlebars::no_escape));
/// Tells an escaped value from all else that is written: nobody can know it, so nobody can write it.
static VALUE: LazyLock<String> = LazyLock::new(|| format!("\u{1}{:032x}\u{2}", rand::random::<u128>()));

/// What is wrong with a template and where, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) reason: String,
}

impl Flaw {
    fn at(mapping: Option<&TemplateMapping>, reason: impl Into<String>) -> Self {
        let (line, column) = mapping.map_or((1, 1), |at| (at.0, at.1));
        Self { line, column, reason: reason.into() }
    }
}

/// A template that was parsed and does only what templates may.
#[derive(Clone, Debug)]
pub(super) struct Parsed(Template);

impl Parsed {
    /// Parses and checks a template.
    pub(super) fn new(source: &str) -> Result<Self, Flaw> {
        scan::scan(source).map_err(|fault| {
            let (line, column) = fault.position(source);
            Flaw { line, column, reason: fault.reason }
        })?;
        // The parser has panicked on odd input before (handlebars issue 766).
        let parsed = catch_unwind(AssertUnwindSafe(|| Template::compile(source)))
            .map_err(|_| Flaw::at(None, "the parser cannot read this template; simplify its tags"))?;
        let template = parsed.map_err(|error| {
            let (line, column) = error.pos().unwrap_or((1, 1));
            let reason = error.reason().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            Flaw { line, column, reason }
        })?;
        check(&template)?;
        Ok(Self(template))
    }

    /// The names of the templates that it includes.
    pub(super) fn partials(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        collect_partials(&self.0, &mut names);
        names
    }
}

fn check(template: &Template) -> Result<(), Flaw> {
    for (i, element) in template.elements.iter().enumerate() {
        let at = template.mapping.get(i);
        let flaw = |reason: String| Flaw::at(at, reason);
        match element {
            TemplateElement::RawString(_) | TemplateElement::Comment(_) => {}
            TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag) => {
                check_expression(tag, false).map_err(flaw)?;
            }
            TemplateElement::HelperBlock(block) => {
                check_block(block).map_err(flaw)?;
                for body in block.template.iter().chain(&block.inverse) {
                    check(body)?;
                }
            }
            TemplateElement::PartialExpression(partial) => {
                partial_name(partial).map_err(flaw)?;
            }
            _ => return Err(flaw("this kind of tag is not available".into())),
        }
    }
    Ok(())
}

fn check_block(block: &HelperTemplate) -> Result<(), String> {
    let name = block.name.as_name().unwrap_or_default();
    if !BLOCKS.contains(&name) {
        return Err(format!("{name:?} is no block; use {}", BLOCKS.join(", ")));
    }
    if block.params.len() != 1 || !block.hash.is_empty() {
        return Err(format!("{name} takes one value; put a question in parentheses"));
    }
    check_values(&block.params)
}

fn check_expression(tag: &HelperTemplate, must_be_helper: bool) -> Result<(), String> {
    if tag.params.is_empty() && tag.hash.is_empty() && !must_be_helper {
        return match &tag.name {
            Parameter::Subexpression(inner) => check_subexpression(inner.as_element()),
            _ => Ok(()),
        };
    }
    let name = tag.name.as_name().unwrap_or_default();
    let Some((_, least, most)) = INLINE.iter().find(|(known, ..)| *known == name) else {
        let known: Vec<&str> = INLINE.iter().map(|(known, ..)| *known).collect();
        return Err(format!("{name:?} is no helper; use {}", known.join(", ")));
    };
    if !(*least..=*most).contains(&tag.params.len()) || !tag.hash.is_empty() {
        return Err(format!("{name} takes {least} to {most} values"));
    }
    check_values(&tag.params)
}

fn check_values(values: &[Parameter]) -> Result<(), String> {
    values.iter().try_for_each(|value| match value {
        Parameter::Subexpression(inner) => check_subexpression(inner.as_element()),
        _ => Ok(()),
    })
}

fn check_subexpression(element: &TemplateElement) -> Result<(), String> {
    match element {
        TemplateElement::Expression(tag) => check_expression(tag, true),
        _ => Err("this cannot stand in parentheses".into()),
    }
}

fn partial_name(partial: &DecoratorTemplate) -> Result<&str, String> {
    match partial.name.as_name() {
        Some(_) if !partial.params.is_empty() || !partial.hash.is_empty() => {
            Err("a partial takes no values: it sees what the template around it sees".into())
        }
        Some(name) => Ok(name),
        None => Err("a partial is included by its name".into()),
    }
}

fn collect_partials(template: &Template, names: &mut BTreeSet<String>) {
    for element in &template.elements {
        match element {
            TemplateElement::PartialExpression(partial) => {
                names.extend(partial_name(partial).ok().map(str::to_owned));
            }
            TemplateElement::HelperBlock(block) => {
                for body in block.template.iter().chain(&block.inverse) {
                    collect_partials(body, names);
                }
            }
            _ => {}
        }
    }
}

/// A template with its partials in place, ready to be rendered.
pub(super) struct Ready {
    template: Template,
    part: Part,
}

/// Puts partials in place, each worked out once.
pub(super) struct Assembly<'p> {
    partials: &'p BTreeMap<String, Parsed>,
    done: BTreeMap<String, Template>,
    open: Vec<String>,
}

impl<'p> Assembly<'p> {
    /// Over these partials.
    pub(super) fn new(partials: &'p BTreeMap<String, Parsed>) -> Self {
        Self { partials, done: BTreeMap::new(), open: Vec::new() }
    }

    /// Puts the partials of a template in place.
    pub(super) fn assemble(&mut self, parsed: &Parsed, part: Part) -> Result<Ready, Flaw> {
        let template = self.expand(&parsed.0)?;
        if depth(&template) > MAX_BLOCKS_DEEP {
            let reason =
                format!("with its partials in place, blocks are nested more than {MAX_BLOCKS_DEEP} deep");
            return Err(Flaw::at(None, reason));
        }
        Ok(Ready { template, part })
    }

    /// The lines of the source are left behind: nothing asks for them while rendering.
    fn expand(&mut self, template: &Template) -> Result<Template, Flaw> {
        let mut expanded = Template::new();
        let mut so_far = (0, 0);
        for (i, element) in template.elements.iter().enumerate() {
            let at = template.mapping.get(i);
            let from = expanded.elements.len();
            match element {
                TemplateElement::PartialExpression(partial) => {
                    let name = partial_name(partial).map_err(|reason| Flaw::at(at, reason))?;
                    expanded.elements.extend(self.partial(name, at)?.elements.iter().cloned());
                }
                TemplateElement::HelperBlock(block) => {
                    let mut block = block.clone();
                    block.template = block.template.as_ref().map(|body| self.expand(body)).transpose()?;
                    block.inverse = block.inverse.as_ref().map(|body| self.expand(body)).transpose()?;
                    expanded.elements.push(TemplateElement::HelperBlock(block));
                }
                other => expanded.elements.push(other.clone()),
            }
            let added = size(&expanded.elements[from..]);
            so_far = (so_far.0 + added.0, so_far.1 + added.1);
            if so_far.0 > MAX_ELEMENTS || so_far.1 > MAX_OCTETS {
                return Err(Flaw::at(at, "with its partials in place, the template is too large"));
            }
        }
        Ok(expanded)
    }

    fn partial(&mut self, name: &str, at: Option<&TemplateMapping>) -> Result<&Template, Flaw> {
        if !self.done.contains_key(name) {
            if self.open.iter().any(|open| open == name) {
                return Err(Flaw::at(at, format!("{name:?} includes itself, directly or through others")));
            }
            if self.open.len() == MAX_PARTIALS_DEEP {
                return Err(Flaw::at(
                    at,
                    format!("partials include partials more than {MAX_PARTIALS_DEEP} deep"),
                ));
            }
            let parsed = self
                .partials
                .get(name)
                .ok_or_else(|| Flaw::at(at, format!("there is no template {name:?}")))?;
            self.open.push(name.to_owned());
            let body = self.expand(&parsed.0)?;
            self.open.pop();
            self.done.insert(name.to_owned(), body);
        }
        self.done.get(name).ok_or_else(|| Flaw::at(at, "the partial is lost"))
    }
}

/// Elements and octets.
fn size(elements: &[TemplateElement]) -> (usize, usize) {
    elements.iter().fold((0, 0), |so_far, element| {
        let more = match element {
            TemplateElement::RawString(text) => (1, text.len()),
            TemplateElement::HelperBlock(block) => {
                let bodies = block.template.iter().chain(&block.inverse);
                bodies.map(|body| size(&body.elements)).fold((1, 0), |a, b| (a.0 + b.0, a.1 + b.1))
            }
            _ => (1, 0),
        };
        (so_far.0 + more.0, so_far.1 + more.1)
    })
}

fn depth(template: &Template) -> usize {
    template
        .elements
        .iter()
        .map(|element| match element {
            TemplateElement::HelperBlock(block) => {
                1 + block.template.iter().chain(&block.inverse).map(depth).max().unwrap_or(0)
            }
            _ => 0,
        })
        .max()
        .unwrap_or(0)
}

/// Has Handlebars write a template, in at most as many steps as are left. `locals` are seen as `@name` outside of `each`
/// and `with`.
fn render_elements(
    template: &Template,
    part: Part,
    context: &Context,
    locals: &Locals<'_>,
    steps: &Steps,
    out: &mut dyn Output,
) -> Result<(), ComposeError> {
    let registry = if part == Part::Html { &HTML } else { &PLAIN };
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut rc = RenderContext::new(None);
        blocks::register(&mut rc, steps);
        if let Some(block) = rc.block_mut() {
            for (name, value) in locals {
                block.set_local_var(name, value.as_ref().into());
            }
        }
        template.render(registry, context, &mut rc, out)
    }))
    .unwrap_or_else(|_| Err(RenderErrorReason::Other("the template cannot be evaluated".into()).into()));
    done.map_err(|error| match error {
        _ if steps.are_used_up() => ComposeError::TooMuchWork(MAX_STEPS),
        error => explain(&error),
    })
}

fn explain(error: &RenderError) -> ComposeError {
    match error.reason() {
        RenderErrorReason::MissingVariable(name) => {
            ComposeError::Variable { name: name.clone().unwrap_or_else(|| "a value".into()) }
        }
        RenderErrorReason::InvalidJsonIndex(name) => ComposeError::Variable { name: name.clone() },
        reason => ComposeError::Render(reason.to_string()),
    }
}

#[cfg(test)]
mod tests;
