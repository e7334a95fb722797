use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// Escapes and sets no marks.
static HTML: LazyLock<Handlebars<'static>> = LazyLock::new(|| blocks::registry(handlebars::html_escape));

/// The whole template by Handlebars: what a [`Program`](program::Program) must say.
impl Ready {
    pub(in crate::message) fn render(
        &self,
        context: &Context,
        locals: &[(&'static str, String)],
        limit: usize,
    ) -> Result<String, ComposeError> {
        let registry = if self.part == Part::Html { &HTML } else { &PLAIN };
        let steps = Steps::new(MAX_STEPS);
        let mut out = Capped { text: String::new(), limit, is_over: false };
        let done = catch_unwind(AssertUnwindSafe(|| {
            let mut rc = RenderContext::new(None);
            blocks::register(&mut rc, &steps);
            for (name, value) in locals {
                rc.block_mut().unwrap().set_local_var(name, value.as_str().into());
            }
            self.template.render(registry, context, &mut rc, &mut out)
        }));
        match done.unwrap() {
            Ok(()) => Ok(out.text),
            Err(_) if steps.are_used_up() => Err(ComposeError::TooMuchWork(MAX_STEPS)),
            Err(_) if out.is_over => Err(ComposeError::TooLong { part: self.part, limit }),
            Err(error) => Err(explain(&error)),
        }
    }
}

/// Where a part is written, up to its limit.
struct Capped {
    text: String,
    limit: usize,
    is_over: bool,
}

impl Output for Capped {
    fn write(&mut self, segment: &str) -> Result<(), std::io::Error> {
        if self.text.len() + segment.len() > self.limit {
            self.is_over = true;
            return Err(std::io::Error::other("over the limit"));
        }
        self.text.push_str(segment);
        Ok(())
    }
}

fn parsed(partials: &[(&str, &str)]) -> BTreeMap<String, Parsed> {
    partials.iter().map(|(name, source)| ((*name).to_owned(), Parsed::new(source).unwrap())).collect()
}

fn ready(source: &str, partials: &[(&str, &str)]) -> Result<Ready, Flaw> {
    let partials = parsed(partials);
    Assembly::new(&partials).assemble(&Parsed::new(source)?, Part::Html)
}

fn render(source: &str, data: &Json) -> Result<String, ComposeError> {
    ready(source, &[]).unwrap().render(&Context::from(data.clone()), &[], 1024 * 1024)
}

fn missing(source: &str, data: &Json) -> String {
    match render(source, data) {
        Err(ComposeError::Variable { name }) => name,
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn a_missing_key_fails_and_is_named_but_may_be_asked_for() {
    let data = json!({"name": "", "data": {"x": null, "list": [], "n": 1, "s": "t"}});
    assert_eq!(missing("{{data.y}}", &data), "data.y");
    assert_eq!(missing("{{data.s.y}}", &data), "data.s.y");
    assert_eq!(missing("{{nobody}}", &data), "nobody");
    assert_eq!(missing("{{#each data.y}}{{/each}}", &data), "data.y");
    assert_eq!(missing("{{#with data.y}}{{/with}}", &data), "data.y");
    assert_eq!(missing("{{lookup data 'y'}}", &data), "data.y");
    assert_eq!(missing("{{#if (eq data.y 1)}}{{/if}}", &data), "data.y");
    assert_eq!(
        render("{{#if data.y}}a{{else}}b{{/if}}{{#unless data.y.z}}c{{/unless}}", &data).unwrap(),
        "bc"
    );
    assert_eq!(
        render("{{#if (or data.y data.n)}}a{{/if}}{{#if (not data.y)}}b{{/if}}", &data).unwrap(),
        "ab"
    );
    assert_eq!(
        render("[{{name}}{{data.x}}]{{#each data.list}}x{{else}}none{{/each}}", &data).unwrap(),
        "[]none"
    );
}

#[test]
fn blocks_do_what_they_say() {
    let data = json!({"a": [{"n": 1}, {"n": 2}], "o": {"k": "v", "l": "w"}, "t": "<b>"});
    let same =
        |source: &str, expected: &str| assert_eq!(render(source, &data).unwrap(), expected, "{source}");
    same(
        "{{#each a}}{{@index}}{{n}}{{this.n}}{{#if @last}}!{{/if}}{{#if @first}}?{{/if}}{{/each}}",
        "011?122!",
    );
    same("{{#each a as |x i|}}{{i}}:{{x.n}};{{../t}}{{/each}}", "0:1;&lt;b&gt;1:2;&lt;b&gt;");
    same("{{#each o}}{{@key}}={{this}},{{/each}}", "k=v,l=w,");
    same("{{#with o}}{{k}}{{/with}}{{#with a.[0] as |y|}}{{y.n}}{{/with}}", "v1");
    same("{{#if (gt a.[1].n 1)}}big{{else if (eq 1 2)}}odd{{else}}small{{/if}}", "big");
    same("{{lookup (lookup a 1) 'n'}}{{{t}}}", "2<b>");
    same("{{#each a}}{{#each ../a}}{{n}}{{../n}} {{/each}}{{/each}}", "11 21 12 22 ");
    same("{{#if (and (lt 1 2) (lte 2 2) (gte 2 2) (ne 'a' 'b'))}}y{{/if}}", "y");
}

#[test]
fn what_templates_may_not_do_is_refused_with_its_place() {
    let flaw = |source: &str| Parsed::new(source).unwrap_err();
    let unclosed = flaw("line one\n  {{#if a}}x");
    assert_eq!(unclosed.line, 2, "{unclosed:?}");
    assert!(flaw("{{#if a}}{{/each}}").reason.contains("closing"));
    assert!(flaw("a\nb {{log data}}").reason.contains("no helper"));
    assert_eq!((flaw("a\nb {{log data}}").line, flaw("a\nb {{log data}}").column), (2, 3));
    assert!(flaw("{{#block a}}{{/block}}").reason.contains("no block"));
    assert!(flaw("{{> p x=1}}").reason.contains("takes no values"));
    assert!(flaw("{{> (lookup a b)}}").reason.contains("name"), "{:?}", flaw("{{> (lookup a b)}}"));
    assert!(flaw("{{#if a b}}{{/if}}").reason.contains("one value"));
    assert!(flaw("{{lookup a}}").reason.contains("2 to 2"));
    assert!(flaw(&"x".repeat(scan::MAX_SOURCE + 1)).reason.contains("longer"));
}

#[test]
fn partials_are_put_in_place_and_cannot_include_themselves() {
    let partials = [("head", "<h1>{{name}}</h1>"), ("row", "{{@index}}{{this}} "), ("outer", "[{{> head}}]")];
    let whole = ready("{{> outer}}{{#each a}}{{> row}}{{/each}}", &partials).unwrap();
    let context = Context::from(json!({"name": "N", "a": ["x", "y"]}));
    assert_eq!(whole.render(&context, &[], 1_000).unwrap(), "[<h1>N</h1>]0x 1y ");
    let cycle = [("a", "{{> b}}"), ("b", "{{#if x}}{{> a}}{{/if}}")];
    assert!(ready("{{> a}}", &cycle).err().unwrap().reason.contains("includes itself"));
    assert!(ready("{{> gone}}", &[]).err().unwrap().reason.contains("no template"));
    let chain: Vec<(String, String)> =
        (0..40).map(|n| (format!("p{n}"), format!("{{{{> p{}}}}}", n + 1))).collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert!(ready("{{> p0}}", &chain).err().unwrap().reason.contains("deep"));
}

#[test]
fn partials_that_double_at_each_level_are_refused_at_once() {
    let bomb: Vec<(String, String)> =
        (0..10).map(|n| (format!("p{n}"), format!("{{{{> p{}}}}}", n + 1).repeat(20))).collect();
    let mut bomb: Vec<(&str, &str)> = bomb.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    bomb.push(("p10", "x{{name}}"));
    let started = Instant::now();
    assert!(ready("{{> p0}}", &bomb).err().unwrap().reason.contains("too large"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn loops_over_loops_end_after_their_steps() {
    let big: Vec<usize> = (0..5_000).collect();
    let data = json!({"data": {"a": big}, "name": "N"});
    let empty = format!("{}{}", "{{#each @root.data.a}}".repeat(5), "{{/each}}".repeat(5));
    let asking = "{{#each data.a}}{{#each ../data.a}}{{#if (eq this 1)}}{{/if}}{{/each}}{{/each}}";
    let looking =
        "{{#each data.a}}{{#each @root.data.a}}{{#if (lookup @root.data 'a')}}{{/if}}{{/each}}{{/each}}";
    for source in [empty.as_str(), asking, looking] {
        let started = Instant::now();
        assert_eq!(render(source, &data), Err(ComposeError::TooMuchWork(MAX_STEPS)), "{source}");
        assert!(started.elapsed() < Duration::from_secs(10), "{source}: {:?}", started.elapsed());
    }
    let writing =
        "{{#each data.a}}{{#each @root.data.a}}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{{/each}}{{/each}}";
    let over = render(writing, &data);
    assert_eq!(over, Err(ComposeError::TooLong { part: Part::Html, limit: 1024 * 1024 }));
}

#[test]
fn the_deepest_template_allowed_fits_a_small_stack() {
    // Three levels of partials as deep as one template may be would exceed the bound; two do not.
    let deep = |n: usize, inner: &str| format!("{}{inner}{}", "{{#if a}}".repeat(n), "{{/if}}".repeat(n));
    let work = move || {
        let partials = parsed(&[("p", &deep(48, "x")), ("q", &deep(48, "{{> p}}"))]);
        let template = Parsed::new(&deep(4, "{{> q}}")).unwrap();
        let ready = Assembly::new(&partials).assemble(&template, Part::Html).unwrap();
        assert_eq!(ready.render(&Context::from(json!({"a": 1})), &[], 100).unwrap(), "x");
        let too_deep = Parsed::new(&deep(5, "{{> q}}")).unwrap();
        assert!(Assembly::new(&partials).assemble(&too_deep, Part::Html).is_err());
        let parens = format!("{{{{#if {}a{}}}}}x{{{{/if}}}}", "(not ".repeat(6), ")".repeat(6));
        assert!(Parsed::new(&parens).is_ok());
    };
    // Half of what a worker's thread has, in an unoptimised build.
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(work).unwrap().join().unwrap();
}

#[test]
fn the_largest_templates_parse_soon() {
    let tags = "{{a}}".repeat(5_000);
    let values = format!("{{{{or {}}}}}", "a ".repeat(8)).repeat(2_000);
    let text = "x<p>".repeat(scan::MAX_SOURCE / 4);
    let spread = format!("{{{{name}}}}{}\n", "x".repeat(400)).repeat(480);
    for source in [tags, values, text, spread, "{{".to_owned().repeat(60_000), "\\".repeat(200_000)] {
        let started = Instant::now();
        let done = Parsed::new(&source);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{} octets took {took:?}: {:?}", source.len(), done.err());
    }
}

/// Pieces that templates are made of, whole and broken.
const PIECES: &str = "(\\{\\{|\\}\\}|\\{\\{\\{|\\}\\}\\}|\\{\\{#if |\\{\\{#each |\\{\\{#with |\\{\\{#unless |\\{\\{/if\\}\\}|\\{\\{/each\\}\\}|\\{\\{/with\\}\\}|\\{\\{else\\}\\}|\\{\\{> p\\}\\}|\\{\\{!--|--\\}\\}|\\{\\{~|~\\}\\}|data|data\\.list|data\\.s|this|\\.\\.|/|@index|@root|as \\|x i\\||\\(|\\)|eq |or |lookup |\"a\"|'|\\[|\\]|\\\\|[0-9]|\\PC|\n| ){0,40}";

proptest! {
    #[test]
    fn any_text_is_a_template_or_refused_where_it_is_wrong(source in prop_oneof![PIECES, ".{0,200}"]) {
        let data = json!({ "name": "n", "data": { "list": [[1, 2], { "a": "<b>" }], "s": "text", "a": true } });
        let lines = source.split('\n').count();
        match ready(&source, &[("p", "{{name}}")]) {
            Err(flaw) => {
                prop_assert!((1..=lines + 1).contains(&flaw.line) && flaw.column >= 1, "{flaw:?}");
                prop_assert!(!flaw.reason.is_empty());
            }
            Ok(ready) => {
                if let Ok(rendered) = ready.render(&Context::from(data), &[], 10_000) {
                    prop_assert!(rendered.len() <= 10_000);
                }
            }
        }
    }

    #[test]
    fn what_is_filled_in_is_escaped_and_never_read_as_a_template(value in ".{0,80}|[{}<>&\"'#/a ]{0,40}") {
        let rendered = render("[{{data.s}}]", &json!({ "data": { "s": value } })).unwrap();
        prop_assert!(!rendered.contains(['<', '>', '"']), "{rendered}");
        let shown = rendered.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#x27;", "'");
        let shown = shown.replace("&#x60;", "`").replace("&#x3D;", "=").replace("&amp;", "&");
        prop_assert_eq!(shown, format!("[{value}]"));
    }
}
