//! What the pages show of a message.
//!
//! Pure. A message is taken apart only when it is looked at, and never when it has so many parts that taking it apart
//! could cost the program's stack; its source can always be read.

use mail_parser::{MessageParser, PartType};
use url::Url;

/// Most parts of a message that is taken apart. Counted by their `Content-Type`, so nothing nests deeper.
const MAX_PARTS: usize = 200;
/// Most characters of a subject or a sender kept for the list.
const MAX_LINE: usize = 300;
/// Most characters of a text or source shown on a page.
const MAX_SHOWN: usize = 1_000_000;

/// A message taken apart for people.
#[derive(Default)]
pub(super) struct View {
    /// The HTML part, for the sandboxed frame.
    pub(super) html: Option<String>,
    /// The text part.
    pub(super) text: Option<String>,
    /// The To field.
    pub(super) to: String,
    /// The header fields as they came, unfolded.
    pub(super) headers: Vec<(String, String)>,
    /// Where a one-click unsubscription is posted to, when the message offers one (RFC 8058).
    pub(super) one_click: Option<Url>,
    /// Whether it has too many parts to be taken apart.
    pub(super) too_deep: bool,
}

impl View {
    /// Takes a message apart.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let too_deep = parts(bytes) > MAX_PARTS;
        let parser = MessageParser::default();
        let parsed = if too_deep { parser.parse_headers(bytes) } else { parser.parse(bytes) };
        let Some(message) = parsed else { return Self { too_deep, ..Self::default() } };
        let headers: Vec<(String, String)> =
            message.headers_raw().map(|(name, value)| (name.to_owned(), unfold(value))).collect();
        let mut view = Self {
            to: addresses(message.to()),
            one_click: one_click(&headers),
            headers,
            too_deep,
            ..Self::default()
        };
        if !too_deep {
            view.html = message.html_bodies().find_map(|part| match &part.body {
                PartType::Html(html) => Some(html.clone().into_owned()),
                _ => None,
            });
            view.text = message.text_bodies().find_map(|part| match &part.body {
                PartType::Text(text) => Some(cut(text, MAX_SHOWN)),
                _ => None,
            });
        }
        view
    }
}

/// Subject and sender for the list.
pub(super) fn summary(bytes: &[u8]) -> (String, String) {
    let Some(message) = MessageParser::default().parse_headers(bytes) else { return Default::default() };
    (line(message.subject().unwrap_or_default()), line(&addresses(message.from())))
}

/// The source as text.
pub(super) fn source(bytes: &[u8]) -> String {
    cut(&String::from_utf8_lossy(bytes), MAX_SHOWN)
}

/// The HTML part as a document of its own, whose links open in a new tab: inside the frame, a page that forbids being
/// framed would stay blank.
pub(super) fn document(html: &str) -> String {
    const BASE: &str = "<base target=\"_blank\">";
    let start = html.len() - html.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').len();
    let (before, rest) = html.split_at(start);
    let doctype = rest.get(..9).is_some_and(|word| word.eq_ignore_ascii_case("<!doctype"));
    match rest.find('>') {
        Some(end) if doctype => format!("{before}{}{BASE}{}", &rest[..=end], &rest[end + 1..]),
        _ => format!("{BASE}{html}"),
    }
}

fn parts(bytes: &[u8]) -> usize {
    const NAME: &[u8] = b"content-type";
    bytes.windows(NAME.len()).filter(|window| window.eq_ignore_ascii_case(NAME)).count()
}

fn addresses(field: Option<&mail_parser::Address<'_>>) -> String {
    let Some(field) = field else { return String::new() };
    let each: Vec<String> = field
        .iter()
        .take(100)
        .map(|one| match (one.name(), one.address()) {
            (Some(name), Some(address)) => format!("{name} <{address}>"),
            (name, address) => address.or(name).unwrap_or_default().to_owned(),
        })
        .collect();
    each.join(", ")
}

fn one_click(headers: &[(String, String)]) -> Option<Url> {
    let field = |name: &str| {
        headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    field("List-Unsubscribe-Post").filter(|value| value.trim() == "List-Unsubscribe=One-Click")?;
    field("List-Unsubscribe")?.split('<').skip(1).find_map(|rest| {
        let url = Url::parse(rest.split_once('>')?.0.trim()).ok()?;
        matches!(url.scheme(), "http" | "https").then_some(url)
    })
}

fn unfold(value: &str) -> String {
    value.replace("\r\n", "").replace(['\r', '\n'], " ").trim().to_owned()
}

/// One line for a list.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_LINE).collect()
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
