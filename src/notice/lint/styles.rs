//! Styles that neither hide anything nor load anything, and how text looks in them. Pure.
//!
//! A property that is not known here is refused: it is easier to name those that are harmless.

use cssparser::color::{parse_hash_color, parse_named_color};

use crate::colour::Colour;

/// Properties of which every value that is not a function is harmless.
const HARMLESS: [&str; 49] = [
    "-ms-text-size-adjust",
    "-webkit-text-size-adjust",
    "border",
    "border-bottom",
    "border-bottom-color",
    "border-bottom-style",
    "border-bottom-width",
    "border-collapse",
    "border-color",
    "border-left",
    "border-radius",
    "border-right",
    "border-spacing",
    "border-style",
    "border-top",
    "border-top-color",
    "border-top-style",
    "border-top-width",
    "border-width",
    "box-sizing",
    "caption-side",
    "clear",
    "direction",
    "font-family",
    "font-style",
    "font-variant",
    "font-weight",
    "height",
    "hyphens",
    "letter-spacing",
    "list-style",
    "list-style-position",
    "list-style-type",
    "max-width",
    "min-width",
    "mso-line-height-rule",
    "mso-table-lspace",
    "mso-table-rspace",
    "overflow-wrap",
    "table-layout",
    "text-align",
    "text-decoration",
    "text-decoration-color",
    "vertical-align",
    "white-space",
    "width",
    "word-break",
    "word-spacing",
    "word-wrap",
];
/// Properties that move text, which must stay near.
const MOVING: [&str; 10] = [
    "margin",
    "margin-bottom",
    "margin-left",
    "margin-right",
    "margin-top",
    "padding",
    "padding-bottom",
    "padding-left",
    "padding-right",
    "padding-top",
];
const DISPLAYS: [&str; 7] =
    ["block", "inline", "inline-block", "list-item", "table", "table-cell", "table-row"];
/// Most pixels by which something is moved.
const FAR: f64 = 200.0;
/// Fewest pixels of letters and of lines.
const SMALL: f64 = 8.0;
/// Least contrast of letters with their ground that is seen at all.
const CONTRAST: f64 = 1.9;

/// How text looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    letters: Colour,
    ground: Colour,
    /// The size of letters in pixels.
    size: f64,
}

impl Default for Look {
    /// As in the layout.
    fn default() -> Self {
        Self { letters: Colour([0x1b, 0x21, 0x2b]), ground: Colour([0xff; 3]), size: 16.0 }
    }
}

impl Look {
    /// The layout's button in the colour of a brand.
    pub(super) fn of_button(brand: Option<&str>) -> Self {
        let ground = brand.and_then(Colour::parse).unwrap_or(Colour::CALM);
        Self { letters: ground.lettering(), ground, ..Self::default() }
    }

    /// With the size of letters of another.
    pub(super) fn sized(self, other: Self) -> Self {
        Self { size: other.size, ..self }
    }

    /// As a link looks that has no colour of its own.
    pub(super) fn of_link(self) -> Self {
        Self { letters: Colour::CALM.readable_on(self.ground), ..self }
    }

    pub(super) fn is_readable(self) -> bool {
        self.letters.contrast(self.ground) >= CONTRAST
    }

    /// With these declarations laid over it.
    ///
    /// # Errors
    /// What may not stand there.
    pub(super) fn styled(self, style: &str) -> Result<Self, String> {
        let style = style.to_lowercase();
        if let Some(odd) = ["\\", "@", "{", "}", "<", "/*", "&"].iter().find(|odd| style.contains(**odd)) {
            return Err(format!("{odd:?}"));
        }
        let mut look = self;
        for one in style.split(';').map(str::trim).filter(|one| !one.is_empty()) {
            let (name, value) = one.split_once(':').ok_or_else(|| format!("{one:?}"))?;
            let value =
                value.trim().trim_end_matches("important").trim_end().trim_end_matches('!').trim_end();
            look = look.declared(self, name.trim(), value).ok_or_else(|| format!("{:?}", one.trim()))?;
        }
        Ok(look)
    }

    /// None where it may not stand.
    fn declared(self, parent: Self, name: &str, value: &str) -> Option<Self> {
        if ["inherit", "initial"].contains(&value) && name != "display" {
            return Some(self);
        }
        let functions = value.matches('(').count();
        if functions != value.matches("rgb(").count() || has_negative(value) {
            return None;
        }
        match name {
            "color" if value == "currentcolor" => Some(self),
            "color" => Some(Self { letters: colour(value)?, ..self }),
            "background" | "background-color" if ["none", "transparent"].contains(&value) => Some(self),
            "background" | "background-color" => Some(Self { ground: colour(value)?, ..self }),
            "font-size" => Some(Self { size: size(value, parent.size)?, ..self }),
            "font" => {
                let mut words = value.split(' ').filter(|word| !word.is_empty());
                let (letters, line) = words.find_map(|word| {
                    let (letters, line) = word.split_once('/').map_or((word, None), |(a, b)| (a, Some(b)));
                    // The weight is a number without a unit.
                    let bare = letters.parse::<f64>().is_ok();
                    Some((size(letters, parent.size).filter(|_| !bare)?, line))
                })?;
                line.is_none_or(is_line).then_some(Self { size: letters, ..self })
            }
            "line-height" => is_line(value).then_some(self),
            "display" => DISPLAYS.contains(&value).then_some(self),
            "float" => ["left", "right", "none"].contains(&value).then_some(self),
            _ if MOVING.contains(&name) => value.split(' ').all(is_near).then_some(self),
            "letter-spacing" | "word-spacing" => is_near(value).then_some(self),
            _ => HARMLESS.contains(&name).then_some(self),
        }
        .filter(|look| look.size >= SMALL)
    }
}

/// Whether a number below zero stands in it.
fn has_negative(value: &str) -> bool {
    value.split([' ', ',', '/', '(']).any(|word| {
        word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
    })
}

/// Pixels of a length, a share of `whole` where it is relative.
fn pixels(value: &str, whole: f64) -> Option<f64> {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = value[..value.len() - unit.len()].parse().ok()?;
    Some(match unit {
        "px" => number,
        "" if number == 0.0 => 0.0,
        "pt" => number * 4.0 / 3.0,
        "em" => number * whole,
        "rem" => number * 16.0,
        "%" => number * whole / 100.0,
        _ => return None,
    })
}

/// The size of letters in pixels.
fn size(value: &str, parent: f64) -> Option<f64> {
    let size = match value {
        "x-small" => 10.0,
        "small" => 13.0,
        "medium" => 16.0,
        "large" => 18.0,
        "x-large" => 24.0,
        "xx-large" => 32.0,
        "smaller" => parent / 1.2,
        "larger" => parent * 1.2,
        _ => pixels(value, parent)?,
    };
    (SMALL..=FAR).contains(&size).then_some(size)
}

fn is_line(value: &str) -> bool {
    let number = value.parse::<f64>().ok().map(|lines| lines * 16.0);
    value == "normal"
        || number.or_else(|| pixels(value, 16.0)).is_some_and(|line| (SMALL..=FAR).contains(&line))
}

fn is_near(value: &str) -> bool {
    ["", "auto", "normal"].contains(&value)
        || pixels(value, FAR * 2.0).is_some_and(|far| far <= FAR)
        || is_em(value)
}

/// Ems are of the letters, of which some are near.
fn is_em(value: &str) -> bool {
    let number = value.strip_suffix("rem").or_else(|| value.strip_suffix("em"));
    number.and_then(|number| number.parse::<f64>().ok()).is_some_and(|ems| (0.0..=10.0).contains(&ems))
}

/// Whether it is a colour that can be worked with: no word for one that comes from elsewhere, none that is seen through.
pub(super) fn is_colour(value: &str) -> bool {
    colour(value).is_some()
}

fn colour(value: &str) -> Option<Colour> {
    let value = value.trim().to_ascii_lowercase();
    if let Some(digits) = value.strip_prefix('#') {
        let (red, green, blue, alpha) = parse_hash_color(digits.as_bytes()).ok()?;
        return (alpha >= 1.0).then_some(Colour([red, green, blue]));
    }
    if let Some(inner) = value.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) {
        let octets: Vec<u8> = inner.split(',').map_while(|octet| octet.trim().parse().ok()).collect();
        return (inner.matches(',').count() == 2).then(|| octets.try_into().ok().map(Colour)).flatten();
    }
    parse_named_color(&value).ok().map(|(red, green, blue)| Colour([red, green, blue]))
}
