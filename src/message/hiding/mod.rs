//! What may keep a reader from seeing a part of the HTML part, and what keeps the footer in sight.
//!
//! It knows styles by what they may do, under whatever media, and what they match by the last name in a selector alone:
//! whoever cannot tell says that something may be hidden, and the message gets a footer too many rather than one too few.
//! It never fails and loads nothing.

mod firm;
mod sheets;

use std::fmt::Write as _;

pub(super) use firm::{harden, open_up};
pub(super) use sheets::Sheets;

use super::html::{OPAQUE, Piece, Pieces, Tag};
use super::nesting::Nesting;
use sheets::{any_sheet, plain, rules};

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

/// Whether a style sheet in it may colour the footer's own elements against their `style`.
pub(super) fn may_paint(html: &str) -> bool {
    any_sheet(html, |css| {
        let Some(plain) = plain(css) else { return true };
        rules(&plain).any(|(before, block)| {
            let paints = declarations(block)
                .any(|(name, _)| name.contains("color") || name.starts_with("background"))
                && block.contains('!');
            let list = before.rsplit(['{', ';']).next().unwrap_or_default();
            paints && list.split(',').any(|selector| may_match_footer(selector, css))
        })
    })
}

/// Whether a selector may match an element of the footer: it asks for no class and no id, or for the footer's own one, and
/// the sheet is not that of our layout.
fn may_match_footer(selector: &str, css: &str) -> bool {
    const OWN: &str = "t-foot";
    const LAYOUT: &str = include_str!("../../../templates/mail/layout.html.hbs");
    let subject = selector.trim().rsplit([' ', '>', '+', '~', '\n']).next().unwrap_or_default();
    if selector.contains(OWN) {
        return css.matches(OWN).count() != LAYOUT.matches(OWN).count();
    }
    !subject.contains(['.', '#']) && !["body", "html", ":root"].contains(&subject)
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

/// Whether a property with this value may lay an element over others, or push others away.
fn moves(name: &str, value: &str) -> bool {
    let name = name.trim_start_matches("-webkit-").trim_start_matches("-moz-");
    let far = |least: f64| {
        let words = value.split([' ', '/', ',']);
        words.filter_map(length).any(|size| size < -least || size > least && !name.starts_with("margin"))
            || value.contains('(')
            || value.contains('-') && value.contains('%')
    };
    match name {
        "position" | "transform" | "translate" | "scale" | "rotate" | "offset" | "offset-path"
        | "animation" | "animation-name" => may_hide_by(name, value),
        "margin" | "margin-top" | "margin-left" | "margin-right" | "margin-bottom" | "margin-inline"
        | "margin-block" | "top" | "left" | "right" | "bottom" | "inset" => far(NEAR),
        _ => false,
    }
}

/// How many pixels an element may be moved by without anybody taking it for hidden or hiding.
const NEAR: f64 = 24.0;

/// Whether these declarations may lay what they apply to over other elements.
fn block_moves(block: &str) -> bool {
    declarations(block).any(|(name, value)| moves(&name, &value))
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
    let mut nesting = Nesting::default();
    let mut in_opaque = false;
    for piece in Pieces::new(html) {
        let tag = match piece {
            Piece::Tag(tag) => tag,
            Piece::Hidden(text) => {
                // In a drawing these are read otherwise than in HTML.
                let is_foreign = nesting.is_foreign()
                    && (in_opaque && text.contains('<') || text.starts_with("<![CDATA["));
                if is_foreign || is_cut(text) && !in_opaque {
                    return None;
                }
                in_opaque = false;
                continue;
            }
            Piece::Text(_) => {
                in_opaque = false;
                continue;
            }
        };
        in_opaque = !tag.closing && tag.is_one_of(&OPAQUE);
        if tag.is("frameset") || tag.is("plaintext") {
            return None;
        }
        nesting.take(&tag);
    }
    let mut closers = String::new();
    // A paragraph ends by itself where the footer begins; to close one that has ended would begin another.
    for name in nesting.inside_out().filter(|name| *name != "p") {
        let _ = write!(closers, "</{name}>");
    }
    Some(closers)
}

/// A tag or comment that the source ends in: what follows would be swallowed.
fn is_cut(hidden: &str) -> bool {
    let is_tag = hidden.strip_prefix('<').is_some_and(|rest| !rest.starts_with(['!', '?']));
    is_tag || hidden.starts_with("<!") && !hidden.ends_with('>')
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
            "a::after{content:\"x\";position:absolute}",
            "a{margin:0 0 0 -900px}",
            "*{color:#fff!important;background:#FFF}",
            "body{display:grid;place-content:end}",
        ] {
            let sheets = Sheets::of(&format!("<style>{css}</style>x"));
            assert!(sheets.may_hide_anything() || sheets.may_hide_footer(), "{css}");
        }
        for html in [
            "<body hidden>",
            "<html style='display:none'>",
            "<link rel=stylesheet href=x>",
            "<body style=opacity:0>",
        ] {
            assert!(Sheets::of(html).may_hide_anything(), "{html}");
        }
    }

    #[test]
    fn the_style_sheets_of_ordinary_mail_hide_nothing() {
        let ordinary = "@media only screen and (max-width:600px){.box{width:100%!important;padding:0 12px!important;display:block!important} \
            h1{font-size:22px!important;line-height:1.3} img{max-width:100%!important;height:auto!important}} \
            @media (prefers-color-scheme:dark){body,.box{background:#101828!important;color:#f2f4f7!important} a{color:#9ec5fe}} \
            a:hover{text-decoration:none} body{margin:0;-webkit-text-size-adjust:100%} :root{color-scheme:light dark} p{margin:0 0 16px}";
        let sheets = Sheets::of(&format!(
            "<html><head><style>{ordinary}</style></head><body style=\"margin:0;padding:0\">x"
        ));
        assert_eq!(sheets, Sheets::default());
    }

    #[test]
    fn our_own_layout_and_footer_hide_and_paint_nothing_and_others_may() {
        // As it is sent: with colours for their names.
        let layout = include_str!("../../../templates/mail/layout.html.hbs");
        let layout = layout.replace("{{@", "#").replace("}}", "");
        assert!(Sheets::of(&layout) == Sheets::default() && !may_paint(&layout));
        for css in [
            "a{color:#fff!important}",
            "*{background:#fff !important}",
            ".t-foot a{color:#eef0f3!important}",
            "p > a , .x {color:red!important}",
        ] {
            assert!(may_paint(&format!("{layout}<style>{css}</style>")), "{css}");
        }
        assert!(Sheets::of("<div style='position: fixed; inset:0'>").may_hide_anything());
        for css in ["a{color:#fff}", ".button{color:#fff!important}", "body{background:#000!important}"] {
            assert!(!may_paint(&format!("<style>{css}</style>")), "{css}");
        }
    }

    #[test]
    fn what_is_open_is_closed_from_the_inside_out() {
        assert_eq!(closers("<html><body><table><tr><td>x").unwrap(), "</td></tr></table>");
        assert_eq!(closers("<div><B><i>x</b></div><br><img><p>").unwrap(), "</i></b></div>");
        assert_eq!(closers("<template><style>x").unwrap(), "</style></template>");
        assert_eq!(closers("<div></div></div>").unwrap(), "");
        for cut in [
            "<frameset>",
            "x<!-- y",
            "<p><a href=\"",
            "<plaintext>x",
            "<svg><![CDATA[>",
            "<svg><title><b hidden>",
        ] {
            assert_eq!(closers(cut), None, "{cut}");
        }
        assert_eq!(closers("<title><b</title>").unwrap(), "");
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_read(html in "(<style>|</style>|<body |<html|style=|[<>a-z\"'=/!;:{}*]| ){0,40}") {
            let _ = Sheets::of(&html);
            let _ = may_paint(&html);
            let _ = closers(&html);
            let _ = open_up(html);
        }
    }
}
