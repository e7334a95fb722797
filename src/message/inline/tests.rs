use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::id::{BrandId, ContentId, TopicId};
use crate::message::html::{Piece, Pieces};
use crate::message::{Compiled, Frozen, Partial};

fn done(main: &str) -> String {
    inline(main, &BTreeMap::new()).applied("", main)
}

fn left(main: &str) -> Vec<String> {
    inline(main, &BTreeMap::new()).left
}

#[test]
fn rules_are_written_at_the_elements_that_they_match_and_own_styles_still_win() {
    let html = "<style>p{color:red;margin:0}.a{color:blue}p{margin:4px}</style>\
                <p class=\"a\" style=\"margin:1px\">x</p><p>{{name}}</p><img src=x alt=y>";
    let inlined = done(html);
    assert!(inlined.contains("<p class=\"a\" style=\"margin:4px;color:blue;margin:1px\">"), "{inlined}");
    assert!(inlined.contains("<p style=\"color:red;margin:4px\">{{name}}</p>"), "{inlined}");
    assert!(inlined.starts_with("<style>p{color:red"), "{inlined}");
    assert_eq!(left(html), Vec::<String>::new());
}

#[test]
fn tags_of_the_template_stay_wherever_they_stand() {
    let html = "<style>td{color:red}a{color:blue}</style><table>{{#each data.rows}}<tr>{{#if this.a}}<td title=\"{{this.a}}\">\
                {{{this.b}}}</td>{{else}}<td>-</td>{{/if}}</tr>{{/each}}</table>{{! note }}\
                <a href=\"{{#if data.u}}{{data.u}}{{else}}https://x.example/?a=1&b=2{{/if}}\" style=\"width:{{data.w}}px\">x</a>";
    let inlined = done(html);
    assert_eq!(inlined.replace(" style=\"color:red\"", "").replace("color:blue;", ""), html);
    assert_eq!(inlined.matches("style=\"color:red\"").count(), 2);
    assert!(inlined.contains("style=\"color:blue;width:{{data.w}}px\""), "{inlined}");
}

#[test]
fn what_another_rule_may_set_too_stays_in_style_and_is_said() {
    for (css, html) in [
        ("p{color:red}@media (max-width:9px){p{color:blue}}", "<p>x</p>"),
        ("p{color:red}p:hover{color:blue}", "<p>x</p>"),
        ("li{color:red}li:first-child{color:blue}", "{{#each data.x}}<li>{{this}}</li>{{/each}}"),
        ("p{color:red}.a{color:blue}", "<p class=\"{{data.c}}\">x</p>"),
        ("p{color:red}.a p{color:blue}", "<div class=\"{{#if data.c}}a{{/if}}\"><p>x</p></div>"),
        ("p{color:red}p{color:{{data.c}}}", "<p>x</p>"),
        ("p{border-top:0}@media print{p{border:1px solid}}", "<p>x</p>"),
    ] {
        let html = format!("<style>{css}</style>{html}");
        assert_eq!(done(&html), html);
        assert_eq!(left(&html).len(), 1, "{css}: {:?}", left(&html));
        let loud =
            html.replace("color:blue", "color:blue!important").replace("1px solid", "1px solid !important");
        let loud = loud.replace("{{data.c}}}", "{{data.c}} !important}");
        assert_ne!(done(&loud), loud, "{css}");
        assert_eq!(left(&loud), Vec::<String>::new(), "{css}");
    }
}

#[test]
fn where_the_nesting_depends_on_data_nothing_is_written() {
    for html in [
        "{{#if data.x}}<div class=a>{{/if}}<p>x</p>{{#if data.x}}</div>{{/if}}",
        "<div class=a>{{#if data.x}}</div><div>{{/if}}<p>x</p></div>",
        "<p>x{{#if data.x}}<div>y</div>{{/if}}z</p>",
        "<!-- {{#if data.x}} --><p>x</p><!-- {{/if}} -->",
        "<p id=\"{{data.x}}\">x</p>",
    ] {
        let html = format!("<style>p{{color:red}}.a p{{color:blue}}</style>{html}");
        assert_eq!(done(&html), html);
        assert_eq!(left(&html).len(), 1, "{html}");
    }
    for css in ["{{#if data.x}}p{color:red}{{/if}}", "p{color:red}{{{data.css}}}"] {
        let html = format!("<style>{css}</style><p>x</p>");
        assert_eq!(done(&html), html);
        assert_eq!(left(&html).len(), 1, "{html}");
    }
    let named = "<style>p{color:red}</style><h{{data.n}}><p>x</p></h{{data.n}}>";
    assert_eq!((done(named), left(named).len()), (named.to_owned(), 1));
    let after = "<style>td{color:red}</style><table>{{#each data.x}}<tr{{#if @first}} class=\"a\"{{/if}}><td>x</td></tr>{{/each}}</table>";
    assert_eq!(done(after), after.replace("<td>", "<td style=\"color:red\">"));
    let bare = "<style>p{color:red}</style><p {{#if data.x}}style=\"color:blue\"{{/if}}>x</p>";
    assert_eq!((done(bare), left(bare).len()), (bare.to_owned(), 1));
}

#[test]
fn a_partial_is_styled_by_what_is_around_it_and_left_alone_where_that_differs() {
    let partials = BTreeMap::from([("cell", "<td>{{name}}</td>"), ("end", "</tr></table>")]);
    let same = "<style>.a td{color:red}</style><table class=a><tr>{{> cell}}{{> cell}}{{> end}}";
    let inlined = inline(same, &partials);
    assert_eq!(inlined.applied("cell", partials["cell"]), "<td style=\"color:red\">{{name}}</td>");
    assert_eq!(inlined.applied("", same), same);
    let differs =
        "<style>.a td{color:red}</style><table class=a><tr>{{> cell}}{{> end}}<table><tr>{{> cell}}{{> end}}";
    let inlined = inline(differs, &partials);
    assert_eq!(inlined.applied("cell", partials["cell"]), partials["cell"]);
    assert_eq!(inlined.left.len(), 1);
}

#[test]
fn a_document_gets_language_and_direction_and_images_an_alt() {
    assert_eq!(
        done("<html><img src=a></html>"),
        "<html lang=\"{{@lang}}\" dir=\"{{@dir}}\"><img alt='' src=a></html>"
    );
    assert_eq!(done("<html lang=\"he\"><img alt src=a>"), "<html dir=\"rtl\" lang=\"he\"><img alt src=a>");
    let whole = "<html lang=\"de\" dir=\"ltr\"><img alt=\"Tree\" src=a>";
    assert_eq!(done(whole), whole);
}

#[test]
fn nothing_is_loaded_and_comments_for_outlook_stay() {
    let html = "<link rel=\"stylesheet\" href=\"http://127.0.0.1:1/x.css\"><style>@import url(http://127.0.0.1:1/y.css);\
                td{color:red}</style><!--[if mso]><table><tr><td><![endif]--><table><tr><td>x</td></tr></table>\
                <!--[if mso]></td></tr></table><![endif]-->";
    assert_eq!(done(html).replace(" style=\"color:red\"", ""), html);
    assert_eq!(done(html).matches(" style=").count(), 1);
}

fn frozen(html: &str, data: serde_json::Value) -> Frozen {
    Frozen {
        id: ContentId::new(),
        brand_id: BrandId::new(),
        topic_id: TopicId::new(),
        template: "t".into(),
        subject: "s".into(),
        html: html.into(),
        text: "t".into(),
        partials: BTreeMap::from([(
            "part".into(),
            Partial { html: "<td class=\"a\">{{name}}</td>".into(), text: String::new() },
        )]),
        data,
        reply_to: None,
    }
}

fn rendered(frozen: &Frozen) -> Option<String> {
    let data = json!({ "name": "Zoë & <b>", "data": frozen.data });
    let compiled = Compiled::new(frozen).ok()?;
    let locals = [("lang", "en".to_owned()), ("dir", "ltr".to_owned())];
    compiled.html.render(&handlebars::Context::from(data), &locals, 1 << 20).ok()
}

/// What a piece is but for its style, and its style.
fn bare(html: &str) -> Vec<(String, String)> {
    let bare = |piece: Piece<'_>| match piece {
        Piece::Text(text) | Piece::Hidden(text) => (text.to_owned(), String::new()),
        Piece::Tag(tag) => {
            let others: Vec<String> = tag
                .attributes
                .iter()
                .filter(|a| !a.name.eq_ignore_ascii_case("style"))
                .map(|a| format!("{}={}", a.name, a.value))
                .collect();
            let style = tag.attribute("style").unwrap_or_default().into_owned();
            (format!("<{}{} {}>", if tag.closing { "/" } else { "" }, tag.name, others.join(" ")), style)
        }
    };
    Pieces::new(html).map(bare).collect()
}

const FRAGMENTS: [&str; 36] = [
    "<style>p{color:red}.a{color:blue!important}td > b{margin:0}#i{top:0}</style>",
    "<style>@media print{p{color:green}}.b td{padding:1px}</style>",
    "<style>a:hover{color:red}a{color:{{data.c}}}</style>",
    "<p>",
    "</p>",
    "<p class=\"a {{data.c}}\">",
    "<p style=\"color:{{data.c}}\" class=a>",
    "<table class=\"b\">",
    "</table>",
    "<tr>",
    "</tr>",
    "<td>",
    "</td>",
    "<td {{#if data.x}}class=\"a\"{{/if}}>",
    "<b id=i>",
    "</b>",
    "<div class='a'>",
    "</div>",
    "{{name}}",
    "{{{data.raw}}}",
    "{{#if data.x}}",
    "{{else}}",
    "{{/if}}",
    "{{#each data.rows}}",
    "{{this}}",
    "{{/each}}",
    "{{> part}}",
    "<a href=\"{{data.c}}\">",
    "</a>",
    "\n",
    "{{~#if data.x~}} ",
    "<!-- {{name}} -->",
    "<br>",
    " text ",
    "<img src=x alt=\"\">",
    "&amp;",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_message_differs_in_nothing_but_added_styles(
        html in proptest::collection::vec(proptest::sample::select(FRAGMENTS.to_vec()), 1..28),
        x in any::<bool>(),
    ) {
        let html = format!("<html lang=en dir=ltr>{}", html.concat());
        let data = json!({ "x": x, "c": "a\"b", "raw": "<i class=a>", "rows": ["1", "<2>"] });
        let before = frozen(&html, data);
        if Compiled::new(&before).is_err() {
            return Ok(());
        }
        let (after, _) = before.clone().inlined();
        match (rendered(&before), rendered(&after)) {
            (Some(before), Some(after)) => {
                let (before, after) = (bare(&before), bare(&after));
                prop_assert_eq!(before.len(), after.len());
                for (before, after) in before.iter().zip(&after) {
                    prop_assert_eq!(&before.0, &after.0);
                    prop_assert!(after.1.ends_with(&before.1), "{:?} {:?}", before, after);
                }
            }
            (before, after) => prop_assert_eq!(before, after),
        }
    }
}
