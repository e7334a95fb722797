//! What templates may call: blocks that count their steps, `lookup`, comparisons and `and`, `or`, `not`.
//!
//! Nothing here reads files, the environment or the clock, or writes a log. A name that is missing fails the message
//! wherever its value is needed; `if`, `unless`, `and`, `or` and `not` only ask.

use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicUsize};

use handlebars::template::{HelperTemplate, Parameter, TemplateElement};
use handlebars::{
    BlockContext, BlockParams, Context, Handlebars, Helper, HelperDef, HelperResult, JsonTruthy, Output,
    PathAndJson, RenderContext, RenderError, RenderErrorReason, Renderable, ScopedJson, Template, to_json,
};
use serde_json::Value as Json;

/// Blocks and how many values each takes.
pub(super) const BLOCKS: [&str; 4] = ["if", "unless", "each", "with"];
/// Inline helpers with the least and the most values that each takes.
pub(super) const INLINE: [(&str, usize, usize); 10] = [
    ("lookup", 2, 2),
    ("eq", 2, 2),
    ("ne", 2, 2),
    ("gt", 2, 2),
    ("gte", 2, 2),
    ("lt", 2, 2),
    ("lte", 2, 2),
    ("not", 1, 1),
    ("and", 2, 8),
    ("or", 2, 8),
];

/// How many steps a rendering may still take. A step is an element of a template, or a value given to a helper.
pub(super) struct Steps(AtomicUsize);

impl Steps {
    pub(super) fn new(most: usize) -> Self {
        Self(AtomicUsize::new(most))
    }

    pub(super) fn are_used_up(&self) -> bool {
        self.0.load(atomic::Ordering::Relaxed) == 0
    }

    pub(super) fn take(&self, steps: usize) -> Result<(), RenderError> {
        let left = self.0.load(atomic::Ordering::Relaxed).saturating_sub(steps);
        self.0.store(left, atomic::Ordering::Relaxed);
        if left == 0 { Err(RenderErrorReason::Other("too many steps".into()).into()) } else { Ok(()) }
    }

    fn render<'reg: 'rc, 'rc>(
        &self,
        body: &'rc Template,
        r: &'reg Handlebars<'reg>,
        ctx: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        self.take(1 + weight(body))?;
        body.render(r, ctx, rc, out)
    }
}

/// What rendering these elements costs, what stands in their blocks left out: blocks count for themselves.
pub(super) fn weight(template: &Template) -> usize {
    template
        .elements
        .iter()
        .map(|element| match element {
            TemplateElement::Expression(helper)
            | TemplateElement::HtmlExpression(helper)
            | TemplateElement::HelperBlock(helper) => 1 + values(helper),
            _ => 1,
        })
        .sum()
}

fn values(helper: &HelperTemplate) -> usize {
    helper
        .params
        .iter()
        .map(|param| match param {
            Parameter::Subexpression(inner) => match inner.as_element() {
                TemplateElement::Expression(inner) => 1 + values(inner),
                _ => 1,
            },
            _ => 1,
        })
        .sum()
}

/// Makes the helpers of a registry that all renderings share.
pub(super) fn registry(escape: impl Fn(&str) -> String + Send + Sync + 'static) -> Handlebars<'static> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.set_prevent_indent(true);
    registry.register_escape_fn(escape);
    for name in ["log", "raw", "len", "if", "unless", "each", "with"] {
        registry.unregister_helper(name);
    }
    registry.register_helper("lookup", Box::new(Lookup));
    for (name, holds) in COMPARISONS {
        registry.register_helper(name, Box::new(Compare(holds)));
    }
    for (name, answer) in QUESTIONS {
        registry.register_helper(name, Box::new(Ask(answer)));
    }
    registry
}

/// Gives one rendering its blocks.
pub(super) fn register<'rc>(rc: &mut RenderContext<'_, 'rc>, steps: &'rc Steps) {
    rc.register_local_helper("if", Box::new(If { steps, wanted: true }));
    rc.register_local_helper("unless", Box::new(If { steps, wanted: false }));
    rc.register_local_helper("each", Box::new(Each(steps)));
    rc.register_local_helper("with", Box::new(With(steps)));
}

fn param<'h, 'rc>(h: &'h Helper<'rc>, index: usize) -> Result<&'h PathAndJson<'rc>, RenderError> {
    h.param(index).ok_or_else(|| RenderErrorReason::Other(format!("{} lacks a value", h.name())).into())
}

fn present<'h, 'rc>(h: &'h Helper<'rc>, index: usize) -> Result<&'h PathAndJson<'rc>, RenderError> {
    let value = param(h, index)?;
    if value.is_value_missing() { Err(RenderError::strict_error(value.relative_path())) } else { Ok(value) }
}

struct If<'s> {
    steps: &'s Steps,
    wanted: bool,
}

impl HelperDef for If<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        r: &'reg Handlebars<'reg>,
        ctx: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let holds = param(h, 0)?.value().is_truthy(false) == self.wanted;
        match if holds { h.template() } else { h.inverse() } {
            Some(body) => self.steps.render(body, r, ctx, rc, out),
            None => Ok(()),
        }
    }
}

struct With<'s>(&'s Steps);

impl HelperDef for With<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        r: &'reg Handlebars<'reg>,
        ctx: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let value = present(h, 0)?;
        if !value.value().is_truthy(false) {
            return match h.inverse() {
                Some(body) => self.0.render(body, r, ctx, rc, out),
                None => Ok(()),
            };
        }
        let Some(body) = h.template() else { return Ok(()) };
        let mut block = BlockContext::new();
        if let Some(parent) = rc.block() {
            block.local_variables_mut().clone_from(parent.local_variables());
        }
        stand_on(&mut block, h, value.context_path().cloned(), value.value(), None)?;
        rc.push_block(block);
        let done = self.0.render(body, r, ctx, rc, out);
        rc.pop_block();
        done
    }
}

struct Each<'s>(&'s Steps);

impl HelperDef for Each<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        r: &'reg Handlebars<'reg>,
        ctx: &'rc Context,
        rc: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let over = present(h, 0)?;
        let entries: Box<dyn Iterator<Item = (String, bool, &Json)>> = match over.value() {
            Json::Array(items) if !items.is_empty() => {
                Box::new(items.iter().enumerate().map(|(i, item)| (i.to_string(), false, item)))
            }
            Json::Object(items) if !items.is_empty() => {
                Box::new(items.iter().map(|(key, item)| (key.clone(), true, item)))
            }
            _ => {
                return match h.inverse() {
                    Some(body) => self.0.render(body, r, ctx, rc, out),
                    None => Ok(()),
                };
            }
        };
        let Some(body) = h.template() else { return Ok(()) };
        let mut entries = entries.enumerate().peekable();
        while let Some((index, (key, named, item))) = entries.next() {
            let mut block = BlockContext::new();
            if let Some(parent) = rc.block() {
                block.local_variables_mut().clone_from(parent.local_variables());
            }
            block.set_local_var("index", to_json(index));
            block.set_local_var("first", Json::Bool(index == 0));
            block.set_local_var("last", Json::Bool(entries.peek().is_none()));
            let name = if named { Json::String(key.clone()) } else { to_json(index) };
            block.set_local_var("key", name.clone());
            let path = over.context_path().map(|path| path.iter().cloned().chain([key]).collect());
            stand_on(&mut block, h, path, item, Some(name))?;
            rc.push_block(block);
            let done = self.0.render(body, r, ctx, rc, out);
            rc.pop_block();
            done?;
        }
        Ok(())
    }
}

/// Sets what `this` is in a block, and the names that `as |value key|` gives.
fn stand_on<'rc>(
    block: &mut BlockContext<'rc>,
    h: &Helper<'rc>,
    path: Option<Vec<String>>,
    value: &Json,
    key: Option<Json>,
) -> Result<(), RenderError> {
    let by_path = path.is_some();
    match path {
        Some(path) => *block.base_path_mut() = path,
        None => block.set_base_value(value.clone()),
    }
    let (value_name, key_name) = match (h.block_param(), h.block_param_pair()) {
        (Some(value), _) => (Some(value), None),
        (None, Some((value, key))) => (Some(value), Some(key)),
        (None, None) => (None, None),
    };
    let mut params = BlockParams::new();
    if let Some(name) = value_name {
        if by_path {
            params.add_path(name, Vec::new())?;
        } else {
            params.add_value(name, value.clone())?;
        }
    }
    if let (Some(name), Some(key)) = (key_name, key) {
        params.add_value(name, key)?;
    }
    block.set_block_params(params);
    Ok(())
}

struct Lookup;

impl HelperDef for Lookup {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        ctx: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let (collection, key) = (present(h, 0)?, present(h, 1)?);
        let key = match key.value() {
            Json::String(key) => key.clone(),
            Json::Number(index) => index.to_string(),
            _ => return Err(RenderErrorReason::Other("lookup takes a key or an index".into()).into()),
        };
        let missing = || {
            let name = collection.relative_path().map_or_else(|| "lookup".into(), Clone::clone);
            RenderError::strict_error(Some(&format!("{name}.{key}")))
        };
        // A value that stands in the context is borrowed from it: a copy of a large one at each step would cost.
        if let Some(path) = collection.context_path() {
            let mut at = ctx.data();
            for name in path.iter().chain([&key]) {
                at = child(at, name).ok_or_else(missing)?;
            }
            return Ok(ScopedJson::Context(at, path.iter().cloned().chain([key.clone()]).collect()));
        }
        child(collection.value(), &key).map(|value| ScopedJson::Derived(value.clone())).ok_or_else(missing)
    }
}

fn child<'v>(value: &'v Json, key: &str) -> Option<&'v Json> {
    match value {
        Json::Array(items) => items.get(key.parse::<usize>().ok()?),
        Json::Object(items) => items.get(key),
        _ => None,
    }
}

type Holds = fn(Option<Ordering>) -> bool;

const COMPARISONS: [(&str, Holds); 6] = [
    ("eq", |order| order == Some(Ordering::Equal)),
    ("ne", |order| order != Some(Ordering::Equal)),
    ("gt", |order| order == Some(Ordering::Greater)),
    ("gte", |order| matches!(order, Some(Ordering::Greater | Ordering::Equal))),
    ("lt", |order| order == Some(Ordering::Less)),
    ("lte", |order| matches!(order, Some(Ordering::Less | Ordering::Equal))),
];

struct Compare(Holds);

impl HelperDef for Compare {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let order = match (present(h, 0)?.value(), present(h, 1)?.value()) {
            (Json::Null, Json::Null) => Some(Ordering::Equal),
            (Json::Bool(a), Json::Bool(b)) => Some(a.cmp(b)),
            (Json::String(a), Json::String(b)) => Some(a.cmp(b)),
            (Json::Number(a), Json::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
            },
            _ => None,
        };
        Ok(ScopedJson::Derived(Json::Bool((self.0)(order))))
    }
}

type Answer = fn(&[bool]) -> bool;

const QUESTIONS: [(&str, Answer); 3] = [
    ("and", |values| values.iter().all(|value| *value)),
    ("or", |values| values.iter().any(|value| *value)),
    ("not", |values| !values.iter().any(|value| *value)),
];

struct Ask(Answer);

impl HelperDef for Ask {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        h: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let values: Vec<bool> = h.params().iter().map(|value| value.value().is_truthy(false)).collect();
        Ok(ScopedJson::Derived(Json::Bool((self.0)(&values))))
    }
}
