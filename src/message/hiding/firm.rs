//! What keeps the footer in sight whatever a template's style sheets say.
//!
//! What it adds stands in `style` attributes and is `!important`: no rule of a template's author, in whatever layer and of
//! whatever weight, wins over that (CSS Cascade 5 §6.1).

use std::fmt::Write as _;

use super::super::html::{Piece, Pieces, Tag, VOID};
use super::sheets::{plain, rules};
use super::{block_may_hide, block_moves, is_root};

/// What keeps `<html>` and `<body>` shown whatever the template's style sheets say.
const SHOWN: &str = "display:block!important;visibility:visible!important;opacity:1!important;position:static!important;\
float:none!important;width:auto!important;height:auto!important;max-width:none!important;max-height:none!important;\
margin-top:0!important;margin-left:0!important;overflow:visible!important;clip:auto!important;clip-path:none!important;\
-webkit-mask:none!important;mask:none!important;filter:none!important;transform:none!important;translate:none!important;\
rotate:none!important;scale:none!important;zoom:1!important;perspective:none!important;offset:none!important;\
contain:none!important;content:normal!important;content-visibility:visible!important;mix-blend-mode:normal!important;\
columns:auto!important;writing-mode:horizontal-tb!important;animation:none!important;transition:none!important";

/// Takes from `<html>` and `<body>` all power to hide what stands in them, and from elements what pulls others out of
/// sight; drops style sheets that do so or lay something over everything, which no attribute can keep away, and those that
/// cannot be read.
pub(in crate::message) fn open_up(html: String) -> String {
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
            Piece::Tag(tag) if !tag.closing && pulls(&tag.attribute("style").unwrap_or_default()) => {
                let own = tag.attribute("style").unwrap_or_default();
                let kept: Vec<&str> = own.split(';').filter(|one| !pulls(one)).collect();
                let style = handlebars::html_escape(&kept.join(";"));
                let there = tag.attributes.iter().find(|a| a.name.eq_ignore_ascii_case("style"));
                changes.extend(there.map(|there| (there.span.clone(), format!("\"{style}\""))));
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

/// Whether these declarations may pull what follows over other elements, or out of sight.
fn pulls(style: &str) -> bool {
    style.split(';').any(|one| one.to_ascii_lowercase().contains("margin") && block_moves(one))
}

fn lays_over(css: &str) -> bool {
    if plain(css).is_none_or(|plain| rules(&plain).any(|(_, block)| pulls(block))) {
        return true;
    }
    let css = css.to_ascii_lowercase();
    let generates = ["before", "after", "backdrop", "\\"].iter().any(|word| css.contains(word));
    let moves =
        ["position", "margin", "transform", "translate", "inset", "\\"].iter().any(|word| css.contains(word));
    generates && moves
}

/// The footer's colours by day and by night.
const NIGHT: [(&str, &str); 3] = [("#eef0f3", "#121417"), ("#475160", "#b4bcc8"), ("#1d4f91", "#9dbdf0")];

/// Writes at each element of a footer's template that nothing but its own style applies to it; that of the night too where
/// the message `has_night`.
pub(in crate::message) fn harden(footer: &str, has_night: bool) -> String {
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
        // What follows a link does not look like one.
        let own_colour = of("color").or_else(|| colour.clone());
        if !tag.is("a") {
            colour.clone_from(&own_colour);
        }
        let mut style = String::from("all:initial!important");
        let mut say = |name: &str, value: &str| {
            let _ = write!(style, ";{name}:{value}!important");
            if let Some((day, night)) = NIGHT.iter().find(|(day, _)| has_night && *day == value) {
                let _ = write!(style, ";{name}:light-dark({day},{night})!important");
            }
        };
        if has_night {
            say("color-scheme", "light dark");
        }
        for (name, value) in standard(&tag) {
            if of(name).is_none() {
                say(name, value);
            }
        }
        for (name, value) in [("font", &font), ("color", &own_colour)] {
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
    fn nothing_but_its_own_style_applies_to_a_hardened_footer() {
        let hard = harden(
            "<div lang=\"{{lang}}\" style=\"font:13px Arial;color:#475467\">\n<a href=\"{{{url}}}\" style=\"color:#1d4f91\">{{t}}</a><br></div>",
            false,
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
    fn a_hardened_footer_is_dark_by_night_and_its_address_does_not_look_like_a_link() {
        let footer = include_str!("../../../templates/mail/footer.html.hbs");
        let hard = harden(footer, true);
        for (day, night) in NIGHT {
            assert!(hard.contains(&format!("light-dark({day},{night})!important")), "{day}: {hard}");
        }
        assert!(!harden(footer, false).contains("light-dark"));
        let address = hard.rsplit("<bdi").next().unwrap();
        assert!(address.contains("color:#475160!important") && !address.contains("#1d4f91"), "{address}");
    }

    #[test]
    fn body_and_html_lose_what_hides_them_and_keep_the_rest() {
        let opened = open_up("<html><body hidden style='margin:9px;display:none;color:red'>x".into());
        assert!(opened.contains("<html style=\"display:block!important"), "{opened}");
        assert!(
            opened.contains("<body hidden style=\"margin:9px;color:red;display:block!important"),
            "{opened}"
        );
        let pulled = open_up("<body><div style='margin:0 0 -900px;color:red'>x".into());
        assert!(pulled.contains("<div style=\"color:red\">x"), "{pulled}");
        assert!(open_up("<style>.a{margin-top:-900px}</style>".into()).contains("<style></style>"));
        assert!(open_up("x".into()).contains("x<body style="));
        let over = "<style>body::after{content:'';position:fixed;inset:0;background:#fff}</style>";
        assert!(open_up(over.into()).contains("<style></style>"));
    }
}
