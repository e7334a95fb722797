//! A template made ready for many messages: what is the same in all of them stands there worked out, plain names and
//! plain questions are answered without Handlebars, and it does the rest.
//!
//! It promises the octets that Handlebars would write for the whole template, in pieces: which of them are the same in
//! every message that takes the same way through the template, and which are somebody's values.

use std::borrow::Cow;
use std::cell::OnceCell;

use handlebars::template::{HelperTemplate, Parameter, TemplateElement};
use handlebars::{Context, JsonRender, JsonTruthy, Output, Path, PathSeg, Template, html_escape};
use serde_json::{Map, Value as Json};

use super::blocks::{Steps, weight};
use super::{MAX_STEPS, Ready, VALUE, render_elements};
use crate::message::{ComposeError, Part};

/// A piece of what a template says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::message) enum Piece<'m> {
    /// The same wherever this number comes.
    Fixed(u32, &'m str),
    /// What a template says without escaping it, or says in a loop.
    Given(Cow<'m, str>),
    /// A value: escaped, or one that escaping would leave as it is. It may be empty.
    Value(Cow<'m, str>),
}

impl Piece<'_> {
    /// What it says.
    pub(in crate::message) fn as_str(&self) -> &str {
        match self {
            Self::Fixed(_, text) => text,
            Self::Given(text) | Self::Value(text) => text,
        }
    }
}

/// What the names of a template mean in one message.
pub(in crate::message) struct Names<'m> {
    pub(in crate::message) email: &'m str,
    pub(in crate::message) name: &'m str,
    pub(in crate::message) locale: &'m str,
    pub(in crate::message) external_id: &'m str,
    pub(in crate::message) customer: bool,
    pub(in crate::message) attributes: &'m Json,
    /// What lies over the campaign's data.
    pub(in crate::message) own_data: Option<&'m Map<String, Json>>,
    /// The unsubscribe URL.
    pub(in crate::message) url: &'m str,
    /// Where mail that can be refused is refused.
    pub(in crate::message) preferences_url: &'m str,
    /// Where a change is approved or declined.
    pub(in crate::message) approve_url: &'m str,
}

/// The `@names` and what they are in one message.
pub(in crate::message) type Locals<'m> = [(&'static str, Cow<'m, str>)];

/// What is the same in all messages.
pub(in crate::message) struct Constants<'c> {
    /// The campaign's data.
    pub(in crate::message) data: &'c Json,
    /// Names with dots in them, and what they are.
    pub(in crate::message) names: &'c [(&'static str, String)],
    /// Those of the `@names` that are the same.
    pub(in crate::message) locals: &'c [(&'static str, String)],
}

/// A template made ready.
pub(in crate::message) struct Program {
    steps: Vec<Step>,
    part: Part,
}

enum Step {
    Fixed(u32, Box<str>),
    Value { number: u32, name: Name, escaped: bool, usual: Option<Usual> },
    If { name: Name, wanted: bool, usual: Option<Usual>, then: Option<Body>, otherwise: Option<Body> },
    Other(Template),
}

/// What the campaign's data says where nothing lies over it: the text, and whether it holds.
type Usual = Result<Option<(Box<str>, bool)>, ComposeError>;

struct Body {
    steps: Vec<Step>,
    weight: usize,
}

/// A plain name.
struct Name {
    root: Root,
    path: Vec<String>,
    raw: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Email,
    Name,
    Locale,
    ExternalId,
    Customer,
    Url,
    PreferencesUrl,
    ApproveUrl,
    Attributes,
    Data,
    Local,
}

impl Root {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "email" => Self::Email,
            "name" => Self::Name,
            "locale" => Self::Locale,
            "external_id" => Self::ExternalId,
            "customer" => Self::Customer,
            "unsubscribe_url" => Self::Url,
            "preferences_url" => Self::PreferencesUrl,
            "approve_url" => Self::ApproveUrl,
            "attributes" => Self::Attributes,
            "data" => Self::Data,
            _ => return None,
        })
    }
}

/// What a name is found to be.
enum Found<'m> {
    Text(&'m str),
    Json(&'m Json),
    Bool(bool),
}

impl<'m> Found<'m> {
    fn holds(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Json(json) => json.is_truthy(false),
            Self::Bool(bool) => *bool,
        }
    }

    fn text(self) -> Cow<'m, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Json(Json::String(text)) => Cow::Borrowed(text),
            Self::Json(json) => Cow::Owned(json.render()),
            Self::Bool(bool) => Cow::Borrowed(if bool { "true" } else { "false" }),
        }
    }
}

/// Whether escaping leaves it as it is.
pub(in crate::message) fn is_plain(text: &str) -> bool {
    !text.bytes().any(|b| matches!(b, b'<' | b'>' | b'"' | b'&' | b'\'' | b'`' | b'='))
}

fn escaped(text: Cow<'_, str>) -> Cow<'_, str> {
    if is_plain(&text) { text } else { Cow::Owned(html_escape(&text)) }
}

/// Under what the parts of `path` lead to; none when it leads nowhere.
fn lead<'j>(from: Option<&'j Json>, path: &[String]) -> Result<Option<&'j Json>, ComposeError> {
    path.iter().try_fold(from, |at, name| match at {
        Some(Json::Array(items)) => {
            let index = name.parse::<usize>();
            Ok(items.get(index.map_err(|_| ComposeError::Variable { name: name.clone() })?))
        }
        Some(Json::Object(items)) => Ok(items.get(name)),
        _ => Ok(None),
    })
}

impl Program {
    /// Makes a template ready.
    pub(in crate::message) fn new(ready: &Ready, constants: &Constants<'_>) -> Self {
        let mut maker = Maker { constants, escapes: ready.part == Part::Html, numbers: 0 };
        Self { steps: maker.steps(&ready.template), part: ready.part }
    }

    /// Says it for one message, in at most `limit` octets. `context` is asked for what only Handlebars can say.
    pub(in crate::message) fn pieces<'m>(
        &'m self,
        names: &'m Names<'m>,
        locals: &'m Locals<'m>,
        context: &dyn Fn() -> Context,
        limit: usize,
    ) -> Result<Vec<Piece<'m>>, ComposeError> {
        let mut saying = Saying {
            part: self.part,
            names,
            locals,
            make_context: context,
            context: OnceCell::new(),
            steps: Steps::new(MAX_STEPS),
            pieces: Vec::with_capacity(64),
            octets: 0,
            limit,
        };
        saying.say(&self.steps)?;
        Ok(saying.pieces)
    }
}

struct Maker<'c> {
    constants: &'c Constants<'c>,
    escapes: bool,
    numbers: u32,
}

impl<'c> Maker<'c> {
    fn steps(&mut self, template: &Template) -> Vec<Step> {
        let mut steps = Vec::new();
        for element in &template.elements {
            self.add(element, &mut steps);
        }
        steps
    }

    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn fixed(&mut self, text: &str, steps: &mut Vec<Step>) {
        if let Some(Step::Fixed(_, before)) = steps.last_mut() {
            *before = [before, text].concat().into();
        } else if !text.is_empty() {
            steps.push(Step::Fixed(self.number(), text.into()));
        }
    }

    fn add(&mut self, element: &TemplateElement, steps: &mut Vec<Step>) {
        match element {
            TemplateElement::Comment(_) => return,
            TemplateElement::RawString(text) => return self.fixed(text, steps),
            TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag) => {
                let escapes = self.escapes && matches!(element, TemplateElement::Expression(_));
                if let Some(path) = value(tag) {
                    if let Some(constant) = self.constant(path) {
                        let text = Cow::Borrowed(constant);
                        return self.fixed(&if escapes { escaped(text) } else { text }, steps);
                    }
                    if let Some(name) = plain_name(path) {
                        let usual = self.usual(&name, escapes);
                        steps.push(Step::Value { number: self.number(), name, escaped: escapes, usual });
                        return;
                    }
                }
            }
            TemplateElement::HelperBlock(block) if self.question(block, steps) => return,
            _ => {}
        }
        let mut other = Template::new();
        other.elements.push(element.clone());
        steps.push(Step::Other(other));
    }

    /// Takes `if` and `unless` of plain names; whether it did.
    fn question(&mut self, block: &HelperTemplate, steps: &mut Vec<Step>) -> bool {
        let wanted = match block.name.as_name() {
            Some("if") => true,
            Some("unless") => false,
            _ => return false,
        };
        let [Parameter::Path(path)] = &block.params[..] else { return false };
        if let Some(constant) = self.constant(path) {
            let holds = constant.is_empty() != wanted;
            let body = if holds { &block.template } else { &block.inverse };
            for element in body.iter().flat_map(|body| &body.elements) {
                self.add(element, steps);
            }
            return true;
        }
        let Some(name) = plain_name(path) else { return false };
        let usual = self.usual(&name, false);
        let mut body = |template: &Template| Body { steps: self.steps(template), weight: weight(template) };
        let then = block.template.as_ref().map(&mut body);
        let otherwise = block.inverse.as_ref().map(body);
        steps.push(Step::If { name, wanted, usual, then, otherwise });
        true
    }

    fn constant(&self, path: &Path) -> Option<&'c str> {
        let find = |known: &'c [(&str, String)], is_it: &dyn Fn(&str) -> bool| {
            known.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value.as_str())
        };
        match path {
            Path::Local((0, name, _)) => find(self.constants.locals, &|known| known == name),
            Path::Local(_) => None,
            Path::Relative((segments, _)) => {
                let names = named(segments)?;
                find(self.constants.names, &|known| known.split('.').eq(names.iter().copied()))
            }
        }
    }

    /// Only `data` has it.
    fn usual(&self, name: &Name, escapes: bool) -> Option<Usual> {
        let said = |json| {
            let found = Found::Json(json);
            let holds = found.holds();
            let text = if escapes { escaped(found.text()) } else { found.text() };
            (text.into(), holds)
        };
        let found = || lead(Some(self.constants.data), &name.path).map(|found| found.map(said));
        (name.root == Root::Data).then(found)
    }
}

/// The path of a tag that is nothing but a name.
fn value(tag: &HelperTemplate) -> Option<&Path> {
    match &tag.name {
        Parameter::Path(path) if !tag.block && tag.params.is_empty() && tag.hash.is_empty() => Some(path),
        _ => None,
    }
}

fn named(segments: &[PathSeg]) -> Option<Vec<&str>> {
    fn name(segment: &PathSeg) -> Option<&str> {
        match segment {
            PathSeg::Named(name) => Some(name),
            _ => None,
        }
    }
    segments.iter().map(name).collect()
}

/// A name that needs no Handlebars outside of `each` and `with`.
fn plain_name(path: &Path) -> Option<Name> {
    match path {
        Path::Local((0, name, raw)) if ["lang", "dir", "subject"].contains(&name.as_str()) => {
            Some(Name { root: Root::Local, path: vec![name.clone()], raw: raw.clone() })
        }
        Path::Local(_) => None,
        Path::Relative((segments, raw)) => {
            let names = named(segments)?;
            let (first, rest) = names.split_first()?;
            let root = Root::of(first)?;
            // `data` and `attributes` as a whole, and what stands below a text, is left to Handlebars.
            let leads = matches!(root, Root::Data | Root::Attributes);
            let path = rest.iter().map(|name| (*name).to_owned()).collect();
            (leads != rest.is_empty()).then(|| Name { root, path, raw: raw.clone() })
        }
    }
}

/// One message being said.
struct Saying<'m, 'c> {
    part: Part,
    names: &'m Names<'m>,
    locals: &'m Locals<'m>,
    make_context: &'c dyn Fn() -> Context,
    context: OnceCell<Context>,
    steps: Steps,
    pieces: Vec<Piece<'m>>,
    octets: usize,
    limit: usize,
}

impl<'m> Saying<'m, '_> {
    fn say(&mut self, steps: &'m [Step]) -> Result<(), ComposeError> {
        for step in steps {
            match step {
                Step::Fixed(number, text) => self.push(Piece::Fixed(*number, text))?,
                Step::Value { number, name, escaped: escapes, usual } => {
                    let missing = || ComposeError::Variable { name: name.raw.clone() };
                    if let Some(usual) = usual.as_ref().filter(|_| !self.lies_over(name)) {
                        let (text, _) = usual.as_ref().map_err(Clone::clone)?.as_ref().ok_or_else(missing)?;
                        self.push(Piece::Fixed(*number, text))?;
                        continue;
                    }
                    let text = self.find(name)?.ok_or_else(missing)?.text();
                    self.push(match self.part {
                        Part::Html if *escapes => Piece::Value(escaped(text)),
                        Part::Html if !is_plain(&text) => Piece::Given(text),
                        _ => Piece::Value(text),
                    })?;
                }
                Step::If { name, wanted, usual, then, otherwise } => {
                    let holds = match usual {
                        Some(usual) if !self.lies_over(name) => {
                            usual.as_ref().map_err(Clone::clone)?.as_ref().is_some_and(|(_, holds)| *holds)
                        }
                        _ => self.find(name)?.is_some_and(|found| found.holds()),
                    };
                    if let Some(body) = if holds == *wanted { then } else { otherwise } {
                        self.steps.take(1 + body.weight).map_err(|_| ComposeError::TooMuchWork(MAX_STEPS))?;
                        self.say(&body.steps)?;
                    }
                }
                Step::Other(template) => self.ask_handlebars(template)?,
            }
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece<'m>) -> Result<(), ComposeError> {
        self.octets += piece.as_str().len();
        if self.octets > self.limit {
            return Err(ComposeError::TooLong { part: self.part, limit: self.limit });
        }
        self.pieces.push(piece);
        Ok(())
    }

    /// Whether the message's own data has the first part of this name.
    fn lies_over(&self, name: &Name) -> bool {
        self.names.own_data.is_some_and(|own| name.path.first().is_some_and(|first| own.contains_key(first)))
    }

    fn find(&self, name: &Name) -> Result<Option<Found<'m>>, ComposeError> {
        let names = self.names;
        Ok(Some(match name.root {
            Root::Email => Found::Text(names.email),
            Root::Name => Found::Text(names.name),
            Root::Locale => Found::Text(names.locale),
            Root::ExternalId => Found::Text(names.external_id),
            Root::Customer => Found::Bool(names.customer),
            Root::Url => Found::Text(names.url),
            Root::PreferencesUrl => Found::Text(names.preferences_url),
            Root::ApproveUrl => Found::Text(names.approve_url),
            Root::Local => {
                let local = self.locals.iter().find(|(known, _)| name.path.iter().eq([known]));
                return Ok(local.map(|(_, text)| Found::Text(text)));
            }
            Root::Attributes => return Ok(lead(Some(names.attributes), &name.path)?.map(Found::Json)),
            Root::Data => {
                let Some((first, rest)) = name.path.split_first() else { return Ok(None) };
                let from = names.own_data.and_then(|own| own.get(first));
                return Ok(lead(from, rest)?.map(Found::Json));
            }
        }))
    }

    fn ask_handlebars(&mut self, template: &Template) -> Result<(), ComposeError> {
        let context = self.context.get_or_init(self.make_context);
        let mut written =
            Written { pieces: Vec::new(), octets: self.octets, limit: self.limit, is_over: false };
        let done = render_elements(template, self.part, context, self.locals, &self.steps, &mut written);
        done.map_err(|error| match error {
            _ if written.is_over => ComposeError::TooLong { part: self.part, limit: self.limit },
            error => error,
        })?;
        self.octets = written.octets;
        self.pieces.append(&mut written.pieces);
        Ok(())
    }
}

/// What Handlebars writes, values told apart by the mark that escaping sets before them.
struct Written<'m> {
    pieces: Vec<Piece<'m>>,
    octets: usize,
    limit: usize,
    is_over: bool,
}

impl Output for Written<'_> {
    fn write(&mut self, segment: &str) -> Result<(), std::io::Error> {
        let value = segment.strip_prefix(VALUE.as_str());
        self.octets += value.unwrap_or(segment).len();
        if self.octets > self.limit {
            self.is_over = true;
            return Err(std::io::Error::other("over the limit"));
        }
        self.pieces.push(match value {
            Some(value) => Piece::Value(Cow::Owned(value.to_owned())),
            None => Piece::Given(Cow::Owned(segment.to_owned())),
        });
        Ok(())
    }
}
