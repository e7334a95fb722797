//! What may keep a reader from seeing a part of the HTML part, and what keeps the footer in sight.
//!
//! It knows styles by what they may do, not by what they match: whoever cannot tell says that something may be hidden,
//! and the message gets a footer too many rather than one too few. What it adds stands in `style` attributes and is
//! `!important`: no rule of a template's author, in whatever layer and of whatever weight, wins over that (CSS Cascade 5
//! §6.1). It never fails and loads nothing.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::html::{OPAQUE, Piece, Pieces, Tag, VOID};

/// Whether a style sheet in it, or what `<html>` and `<body>` say of themselves, may hide something.
pub(super) fn may_hide(html: &str) -> bool {
    any_sheet(html, sheet_may_hide)
        || Pieces::new(html).any(|piece| {
            let Piece::Tag(tag) = piece else { return false };
            let is_sheet = tag.is("link")
                && tag.attribute("rel").is_some_and(|rel| rel.to_ascii_lowercase().contains("stylesheet"));
            !tag.closing && (is_sheet || is_root(&tag) && hides(&tag))
        })
}

/// `<html>` or `<body>`: what hides one of them hides everything.
pub(super) fn is_root(tag: &Tag<'_>) -> bool {
    tag.is("html") || tag.is("body")
}

/// Whether a tag says of itself that it is not shown.
pub(super) fn hides(tag: &Tag<'_>) -> bool {
    let style = tag.attribute("style").unwrap_or_default();
    style.contains('\\')
        || block_may_hide(&style, cuts_off(&style))
        || tag
            .attributes
            .iter()
            .any(|a| ["hidden", "popover"].iter().any(|name| a.name.eq_ignore_ascii_case(name)))
}

/// Whether a style sheet in it may colour the footer's own elements against their `style`, or an element may lie on them.
pub(super) fn may_paint(html: &str) -> bool {
    let lies_on = |tag: &Tag<'_>| {
        let style = tag.attribute("style").unwrap_or_default();
        declarations(&style)
            .any(|(name, value)| name == "position" && value != "static" && value != "relative")
    };
    Pieces::new(html).any(|piece| matches!(piece, Piece::Tag(tag) if lies_on(&tag)))
        || any_sheet(html, |css| {
            let plain = without_comments(css);
            rules(&plain).any(|(selectors, block)| {
                let paints = declarations(block)
                    .any(|(name, _)| name.contains("color") || name.starts_with("background"))
                    && block.contains('!');
                paints && selectors.split(',').any(|selector| may_match_footer(selector, css))
            })
        })
}

/// Whether a selector may match an element of the footer: it asks for no class and no id, or for the footer's own one, and
/// the sheet is not that of our layout.
fn may_match_footer(selector: &str, css: &str) -> bool {
    const OWN: &str = "t-foot";
    const LAYOUT: &str = include_str!("../../templates/mail/layout.html.hbs");
    let subject = selector.trim().rsplit([' ', '>', '+', '~', '\n']).next().unwrap_or_default();
    if selector.contains(OWN) {
        return css.matches(OWN).count() != LAYOUT.matches(OWN).count();
    }
    !subject.contains(['.', '#']) && !["body", "html", ":root"].contains(&subject)
}

fn any_sheet(html: &str, holds: impl Fn(&str) -> bool) -> bool {
    let mut in_style = false;
    Pieces::new(html).any(|piece| match piece {
        Piece::Tag(tag) => {
            in_style = !tag.closing && tag.is("style");
            false
        }
        Piece::Hidden(css) => std::mem::take(&mut in_style) && holds(css),
        Piece::Text(_) => false,
    })
}

fn without_comments(css: &str) -> String {
    let mut rest = css;
    let mut plain = String::with_capacity(css.len());
    while let Some((before, comment)) = rest.split_once("/*") {
        plain.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

/// What stands before the inmost braces and what in them.
fn rules(css: &str) -> impl Iterator<Item = (&str, &str)> {
    css.split('}').map(|chunk| {
        let (before, block) = chunk.rsplit_once('{').unwrap_or(("", chunk));
        (before.rsplit(['{', ';']).next().unwrap_or_default(), block)
    })
}

fn sheet_may_hide(css: &str) -> bool {
    let plain = without_comments(css);
    // What is small hides something only where what is too large for it is cut off.
    let cuts = cuts_off(&plain);
    plain.contains('\\')
        || plain.to_ascii_lowercase().contains("@import")
        || rules(&plain).any(|(_, block)| block_may_hide(block, cuts))
}

fn cuts_off(style: &str) -> bool {
    let plain: String = style.to_ascii_lowercase().split_whitespace().collect();
    plain.replace("overflow-wrap", "").replace("overflow:visible", "").contains("overflow")
}

/// Whether declarations hide what they apply to: each by itself, or the colours of ground and letters together.
fn block_may_hide(block: &str, cuts: bool) -> bool {
    let value_of = |wanted: &[&str]| {
        declarations(block).filter(|(name, _)| wanted.contains(&name.as_str())).last().map(|(_, value)| value)
    };
    let ground = value_of(&["background", "background-color"]);
    declarations(block).any(|(name, value)| may_hide_by(&name, &value) || cuts && is_small(&name, &value))
        || ground.is_some() && ground == value_of(&["color"])
}

/// Names and values in lower case, without `!important`.
fn declarations(style: &str) -> impl Iterator<Item = (String, String)> {
    style.split(';').filter_map(|declaration| {
        let (name, value) = declaration.split_once(':')?;
        let value = value.split('!').next().unwrap_or_default();
        Some((name.trim().to_ascii_lowercase(), value.trim().to_ascii_lowercase()))
    })
}

/// Whether a property with this value may make something invisible, tiny, or lie elsewhere.
fn may_hide_by(name: &str, value: &str) -> bool {
    const SAFE: [&str; 11] = [
        "auto",
        "normal",
        "static",
        "relative",
        "visible",
        "initial",
        "inherit",
        "unset",
        "currentcolor",
        "1",
        "100%",
    ];
    if SAFE.contains(&value) || value == "none" && name != "display" {
        return false;
    }
    let smallest = value.split([' ', '/', ',']).find_map(length).unwrap_or(f64::MAX);
    match name.trim_start_matches("-webkit-").trim_start_matches("-moz-") {
        "display" => {
            let flows = ["block", "inline", "list-item", "flow-root", "-webkit-box"];
            !value.starts_with("table") && !value.starts_with("inline-") && !flows.contains(&value)
        }
        "opacity" => smallest < 0.6 || value.contains('('),
        "color" | "text-fill-color" => {
            value == "transparent"
                || value.ends_with(",0)")
                || value.ends_with(", 0)")
                || value.ends_with("/ 0)")
        }
        "font-size" | "zoom" => smallest < 7.0 || value.contains('('),
        "font" => value.split(' ').filter_map(|word| length(word.split('/').next()?)).any(|size| size < 7.0),
        "line-height" => smallest < 0.6,
        "margin" | "margin-top" | "margin-left" | "margin-right" | "margin-bottom" | "letter-spacing"
        | "word-spacing" | "z-index" | "margin-inline" | "margin-block" | "text-indent" => {
            value.contains('-') || value.contains('(') || name == "text-indent" && smallest > 100.0
        }
        "top" | "left" | "right" | "bottom" | "inset" => smallest != 0.0,
        "visibility" | "position" | "clip" | "clip-path" | "mask" | "mask-image" | "mask-size" | "filter"
        | "backdrop-filter" | "transform" | "translate" | "rotate" | "scale" | "offset" | "offset-path"
        | "perspective" | "content" | "content-visibility" | "contain" | "animation" | "animation-name"
        | "text-security" | "mix-blend-mode" | "all" | "mso-hide" | "grid" | "grid-template"
        | "place-content" | "justify-content" | "align-content" | "columns" | "column-count"
        | "writing-mode" => true,
        _ => false,
    }
}

/// Whether a property with this value leaves next to no room.
fn is_small(name: &str, value: &str) -> bool {
    const SIZES: [&str; 8] = [
        "height",
        "max-height",
        "width",
        "max-width",
        "block-size",
        "inline-size",
        "max-block-size",
        "max-inline-size",
    ];
    SIZES.contains(&name) && length(value).is_some_and(|size| size < 6.0)
}

/// A length in about as many pixels: of `em` and of what has no unit, the least that is usual.
fn length(word: &str) -> Option<f64> {
    let digits =
        word.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+')).unwrap_or(word.len());
    let (number, unit) = word.split_at(digits);
    let number: f64 = number.parse().ok()?;
    Some(match unit {
        "em" | "rem" | "vw" | "vh" | "ch" | "ex" => number * 12.0,
        "%" => number * 0.12,
        _ => number,
    })
}

/// What closes all that is open at the end of this HTML, innermost first, so that what follows stands in the body. None
/// when nothing can follow: frames, text that has no end, a comment or a tag that is cut.
pub(super) fn closers(html: &str) -> Option<String> {
    let mut open: Vec<Option<String>> = Vec::new();
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    let mut in_opaque = false;
    for piece in Pieces::new(html) {
        let tag = match piece {
            Piece::Tag(tag) => tag,
            Piece::Hidden(text) if is_cut(text) && !in_opaque => return None,
            _ => {
                in_opaque = false;
                continue;
            }
        };
        in_opaque = !tag.closing && tag.is_one_of(&OPAQUE);
        let name = tag.name.to_ascii_lowercase();
        if name == "frameset" || name == "plaintext" {
            return None;
        }
        // A paragraph ends by itself where the footer begins; to close one that has ended would begin another.
        if is_root(&tag) || name == "p" || VOID.contains(&name.as_str()) {
            continue;
        }
        if tag.closing {
            if let Some(place) = places.get_mut(&name).and_then(Vec::pop) {
                open[place] = None;
            }
        } else {
            places.entry(name.clone()).or_default().push(open.len());
            open.push(Some(name));
        }
    }
    let mut closers = String::new();
    for name in open.iter().rev().flatten() {
        let _ = write!(closers, "</{name}>");
    }
    Some(closers)
}

/// A tag or comment that the source ends in: what follows would be swallowed.
fn is_cut(hidden: &str) -> bool {
    let is_tag = hidden.strip_prefix('<').is_some_and(|rest| !rest.starts_with(['!', '?']));
    is_tag || hidden.starts_with("<!") && !hidden.ends_with('>')
}

/// What keeps `<html>` and `<body>` shown whatever the template's style sheets say.
const SHOWN: &str = "display:block!important;visibility:visible!important;opacity:1!important;position:static!important;\
float:none!important;width:auto!important;height:auto!important;max-width:none!important;max-height:none!important;\
margin-top:0!important;margin-left:0!important;overflow:visible!important;clip:auto!important;clip-path:none!important;\
-webkit-mask:none!important;mask:none!important;filter:none!important;transform:none!important;translate:none!important;\
rotate:none!important;scale:none!important;zoom:1!important;perspective:none!important;offset:none!important;\
contain:none!important;content:normal!important;content-visibility:visible!important;mix-blend-mode:normal!important;\
columns:auto!important;writing-mode:horizontal-tb!important;animation:none!important;transition:none!important";

/// Takes from `<html>` and `<body>` all power to hide what stands in them, and drops style sheets that lay something over
/// everything: a generated box cannot be kept away by any attribute.
pub(super) fn open_up(html: String) -> String {
    let mut changes: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    let mut style_from = None;
    let mut has_body = false;
    for piece in Pieces::new(&html) {
        match piece {
            Piece::Tag(tag) if !tag.closing && is_root(&tag) => {
                has_body |= tag.is("body");
                let own = tag.attribute("style").unwrap_or_default();
                let kept: Vec<&str> = own
                    .split(';')
                    .filter(|one| !block_may_hide(one, true))
                    .filter(|one| !one.trim().is_empty() && !one.contains('\\'))
                    .collect();
                let style = handlebars::html_escape(&[&kept[..], &[SHOWN]].concat().join(";"));
                match tag.attributes.iter().find(|a| a.name.eq_ignore_ascii_case("style")) {
                    Some(there) if there.span.is_empty() => {
                        changes.push((there.span.clone(), format!("=\"{style}\"")))
                    }
                    Some(there) => changes.push((there.span.clone(), format!("\"{style}\""))),
                    None => {
                        let after_name = tag.span.start + 1 + tag.name.len();
                        changes.push((after_name..after_name, format!(" style=\"{style}\"")));
                    }
                }
            }
            Piece::Tag(tag) => style_from = (!tag.closing && tag.is("style")).then_some(tag.span.end),
            Piece::Hidden(css) => {
                if let Some(from) = style_from.take().filter(|_| lays_over(css)) {
                    changes.push((from..from + css.len(), String::new()));
                }
            }
            Piece::Text(_) => {}
        }
    }
    let mut opened = html;
    for (span, text) in changes.into_iter().rev() {
        opened.replace_range(span, &text);
    }
    if !has_body {
        // In the middle of a body a browser takes over what the body does not say yet.
        let _ = write!(opened, "<body style=\"{SHOWN}\">");
    }
    opened
}

fn lays_over(css: &str) -> bool {
    let css = css.to_ascii_lowercase();
    let generates = ["before", "after", "backdrop", "\\"].iter().any(|word| css.contains(word));
    let moves =
        ["position", "margin", "transform", "translate", "inset", "\\"].iter().any(|word| css.contains(word));
    generates && moves
}

/// Writes at each element of a footer's template that nothing but its own style applies to it.
pub(super) fn harden(footer: &str) -> String {
    let mut hard = String::with_capacity(footer.len() * 4);
    let (mut from, mut font, mut colour) = (0, None, None);
    for piece in Pieces::new(footer) {
        let Piece::Tag(tag) = piece else { continue };
        if tag.closing || VOID.contains(&tag.name) {
            continue;
        }
        let own = tag.attribute("style").unwrap_or_default().into_owned();
        let said: Vec<(&str, &str)> = own.split(';').filter_map(|one| one.split_once(':')).collect();
        let of = |name: &str| {
            said.iter().find(|(said, _)| said.trim() == name).map(|(_, value)| value.trim().to_owned())
        };
        // What stands in the outermost element is said again within: `::first-line` could come between.
        font = of("font").or(font);
        colour = of("color").or(colour);
        let mut style = String::from("all:initial!important");
        let mut say = |name: &str, value: &str| {
            let _ = write!(style, ";{name}:{value}!important");
        };
        for (name, value) in standard(&tag) {
            if of(name).is_none() {
                say(name, value);
            }
        }
        for (name, value) in [("font", &font), ("color", &colour)] {
            if let Some(value) = value.as_deref().filter(|_| of(name).is_none()) {
                say(name, value);
            }
        }
        for (name, value) in &said {
            say(name.trim(), value.trim());
        }
        let after_name = tag.span.start + 1 + tag.name.len();
        hard.push_str(&footer[from..after_name]);
        let _ = write!(hard, " style=\"{style}\"");
        from = match tag.attributes.iter().find(|a| a.name.eq_ignore_ascii_case("style")) {
            Some(there) => {
                let before = footer[after_name..there.span.start].trim_end_matches("style=");
                hard.push_str(before.trim_end());
                there.span.end
            }
            None => after_name,
        };
    }
    hard.push_str(&footer[from..]);
    hard
}

/// What an element of the footer is, whatever anybody says: also for programs that do not know `all`.
fn standard(tag: &Tag<'_>) -> Vec<(&'static str, &'static str)> {
    let is_link = tag.is("a");
    let is_inline = is_link || ["span", "bdi", "b", "strong", "em", "i"].iter().any(|name| tag.is(name));
    let mut all = vec![
        ("display", if is_inline { "inline" } else { "block" }),
        ("visibility", "visible"),
        ("opacity", "1"),
        ("position", "relative"),
        ("z-index", "2147483647"),
        ("width", "auto"),
        ("height", "auto"),
        ("max-height", "none"),
        ("max-width", "none"),
        ("overflow", "visible"),
        ("clip-path", "none"),
        ("transform", "none"),
        ("filter", "none"),
        ("text-indent", "0"),
        ("letter-spacing", "normal"),
        ("animation", "none"),
        ("-webkit-text-fill-color", "currentcolor"),
    ];
    if is_link {
        all.extend([("text-decoration", "underline"), ("cursor", "pointer")]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hide_something_is_known_in_sheets_and_attributes() {
        for css in [
            "*{display:none!important}",
            "a{color:#fff!important;font-size:0}",
            "div:last-child{visibility:hidden}",
            "@media all{ p > a { OPACITY : .01 } }",
            "a{position:absolute;left:-9999px}",
            "a{text-indent:-9999px}",
            "a{d\\69splay:none}",
            "@import url(x.css);",
            "a{/* x */display/* y */:/* z */none}",
            "a{height:1px;overflow:hidden}",
            "a{transform:scale(0)}",
            "@layer x{a{clip-path:inset(50%)}}",
            "a{color:transparent}",
            "a{font:0/0 a}",
            "a::after{content:\"x\"}",
            "a{margin:0 0 0 -900px}",
            "*{color:#fff!important;background:#FFF}",
            "body{display:grid;place-content:end}",
        ] {
            assert!(may_hide(&format!("<style>{css}</style>x")), "{css}");
        }
        for html in [
            "<body hidden>",
            "<html style='display:none'>",
            "<link rel=stylesheet href=x>",
            "<body style=opacity:0>",
        ] {
            assert!(may_hide(html), "{html}");
        }
    }

    #[test]
    fn the_style_sheets_of_ordinary_mail_hide_nothing() {
        let ordinary = "@media only screen and (max-width:600px){.box{width:100%!important;padding:0 12px!important;display:block!important} \
            h1{font-size:22px!important;line-height:1.3} img{max-width:100%!important;height:auto!important}} \
            @media (prefers-color-scheme:dark){body,.box{background:#101828!important;color:#f2f4f7!important} a{color:#9ec5fe}} \
            a:hover{text-decoration:none} body{margin:0;-webkit-text-size-adjust:100%} :root{color-scheme:light dark} p{margin:0 0 16px}";
        assert!(!may_hide(&format!(
            "<html><head><style>{ordinary}</style></head><body style=\"margin:0;padding:0\">x"
        )));
    }

    #[test]
    fn our_own_layout_and_footer_hide_and_paint_nothing_and_others_may() {
        let layout = include_str!("../../templates/mail/layout.html.hbs");
        assert!(!may_hide(layout) && !may_paint(layout));
        for css in [
            "a{color:#fff!important}",
            "*{background:#fff !important}",
            ".t-foot a{color:#eef0f3!important}",
            "p > a , .x {color:red!important}",
        ] {
            assert!(may_paint(&format!("{layout}<style>{css}</style>")), "{css}");
        }
        assert!(may_paint("<div style='position: fixed; inset:0'>"));
        for css in ["a{color:#fff}", ".button{color:#fff!important}", "body{background:#000!important}"] {
            assert!(!may_paint(&format!("<style>{css}</style>")), "{css}");
        }
    }

    #[test]
    fn what_is_open_is_closed_from_the_inside_out() {
        assert_eq!(closers("<html><body><table><tr><td>x").unwrap(), "</td></tr></table>");
        assert_eq!(closers("<div><B><i>x</b></div><br><img><p>").unwrap(), "</i>");
        assert_eq!(closers("<template><style>x").unwrap(), "</style></template>");
        assert_eq!(closers("<div></div></div>").unwrap(), "");
        for cut in ["<frameset>", "x<!-- y", "<p><a href=\"", "<plaintext>x"] {
            assert_eq!(closers(cut), None, "{cut}");
        }
        assert_eq!(closers("<title><b</title>").unwrap(), "");
    }

    #[test]
    fn nothing_but_its_own_style_applies_to_a_hardened_footer() {
        let hard = harden(
            "<div lang=\"{{lang}}\" style=\"font:13px Arial;color:#475467\">\n<a href=\"{{{url}}}\" style=\"color:#1d4f91\">{{t}}</a><br></div>",
        );
        assert!(hard.starts_with("<div style=\"all:initial!important;display:block!important;"), "{hard}");
        assert!(
            hard.contains("font:13px Arial!important;color:#475467!important\" lang=\"{{lang}}\">"),
            "{hard}"
        );
        let link = hard.split("<a ").nth(1).unwrap();
        assert!(
            link.contains("font:13px Arial!important")
                && link.contains("color:#1d4f91!important\" href=\"{{{url}}}\">{{t}}</a><br></div>"),
            "{hard}"
        );
        assert_eq!(hard.matches(" style=").count(), 2, "{hard}");
    }

    #[test]
    fn body_and_html_lose_what_hides_them_and_keep_the_rest() {
        let opened = open_up("<html><body hidden style='margin:9px;display:none;color:red'>x".into());
        assert!(opened.contains("<html style=\"display:block!important"), "{opened}");
        assert!(
            opened.contains("<body hidden style=\"margin:9px;color:red;display:block!important"),
            "{opened}"
        );
        assert!(open_up("x".into()).contains("x<body style="));
        let over = "<style>body::after{content:'';position:fixed;inset:0;background:#fff}</style>";
        assert!(open_up(over.into()).contains("<style></style>"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_read(html in "(<style>|</style>|<body |<html|style=|[<>a-z\"'=/!;:{}*]| ){0,40}") {
            let _ = may_hide(&html);
            let _ = closers(&html);
            let _ = open_up(html);
        }
    }
}
