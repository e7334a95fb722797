use super::places::{Places, URL, mark};
use super::*;

impl Shapes {
    /// How many pages are kept, and in how many octets all that is.
    pub(in crate::message) fn kept(&self) -> (usize, usize) {
        let known = self.0.read().unwrap();
        (known.shapes.values().filter(|shape| matches!(shape, Shape::Page(_))).count(), known.octets)
    }
}

/// Most that may be kept.
pub(in crate::message) const MOST: usize = MAX_KEPT;

/// The places of values, each written `¤`, and of the URL, written `§`.
fn places(html: &str) -> Option<Places> {
    let mut shape = String::new();
    let mut marks = (0..).map_while(mark);
    for c in html.chars() {
        shape.push(match c {
            '¤' => marks.next().unwrap(),
            '§' => URL,
            other => other,
        });
    }
    Places::of(&shape)
}

#[test]
fn values_in_text_and_between_quotes_change_nothing_else() {
    for html in [
        "<p>¤</p> ¤ x &amp; ¤; a & ¤",
        "<a href=\"¤\" title='¤ ¤'>¤</a><a href=\"§\">§</a>",
        "<a href='https://x.example/?a=¤&b=¤'>",
        "<!-- ¤ --><!--[if mso]>¤<![endif]-->",
        "<title>¤ ¤</title><textarea>¤",
        "<meta content=\"a¤\"><img alt=\"¤\" width=\"¤\">",
    ] {
        assert_eq!(places(html).unwrap().elsewhere, [0; 0], "{html}");
    }
}

#[test]
fn values_anywhere_else_are_part_of_the_shape() {
    for html in [
        "<p class=\"¤\">",
        "<p STYLE='color:¤'>",
        "<p id=\"¤\">",
        "<link rel=\"¤\">",
        "<p ¤>",
        "<p a=¤>",
        "<p a=\"x\"¤>",
        "<p \"¤\">",
        "<p ='¤>'>",
        "<p¤>",
        "<¤",
        "< ¤",
        "</¤>",
        "<!¤>",
        "<!-¤-->",
        "<!--¤>",
        "<!--¤->",
        "<!-- ¤-->",
        "<!doctype¤>",
        "&¤",
        "&#¤",
        "&#X1¤",
        "&am¤",
        "<a title=\"&n¤\">",
        "<style>.a{color:¤}</style>",
        "<title></ti¤tle>",
        "<a href=\"¤",
        "<svg><![CDATA[¤",
    ] {
        assert_eq!(places(html).unwrap().elsewhere, [0], "{html}");
    }
    for html in ["<p §>", "<a href=§>", "<p class=\"§\">", "<style>§</style>", "<!-- §-->"] {
        assert!(places(html).is_none(), "{html}");
    }
}

#[test]
fn what_leads_somewhere_is_asked_about_where_its_beginning_is_a_value() {
    let urls = |html: &str| places(html).unwrap().urls.len();
    for html in
        ["<a href=\"¤\">", "<img SRC='java¤'>", "<a href=\" da¤\">", "<a href=\"¤§\">", "<a href='&#106;¤'>"]
    {
        assert_eq!(urls(html), 1, "{html}");
    }
    for html in
        ["<a href=\"https:¤\">", "<a href=\"/¤\">", "<a href=\"§¤\">", "<a title=\"¤\">", "<a href=\"x¤\">"]
    {
        assert_eq!(urls(html), 0, "{html}");
    }
}
