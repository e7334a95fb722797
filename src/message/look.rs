//! How a message looks: the brand's colour, made readable wherever it stands, its logo, the person's language. The layout
//! reads these as `@names`; a started campaign keeps the layout that it was frozen with, so a name stays once it is there.

use super::{Addressee, Sender, locale};
use crate::colour::Colour;

/// The card of a message by day.
const LIGHT: Colour = Colour([0xff, 0xff, 0xff]);
/// The card of a message by night.
const DARK: Colour = Colour([0x1d, 0x20, 0x25]);
/// The space that a logo may take, in pixels.
const LOGO: (u32, u32) = (240, 64);

/// The names and their values.
pub(super) fn locals(
    sender: &Sender<'_>,
    addressee: &Addressee<'_>,
    subject: &str,
) -> Vec<(&'static str, String)> {
    let accent = sender.brand.color.as_deref().and_then(Colour::parse).unwrap_or(Colour::CALM);
    let lang = locale::tag(addressee.locale);
    let logo = sender.brand.logo();
    let (width, height) = logo.as_ref().map_or((0, 0), |logo| logo.fitted(LOGO.0, LOGO.1));
    let logo = sender.brand.logo_url(sender.base_url);
    vec![
        ("dir", locale::direction(&lang).to_owned()),
        ("lang", lang),
        ("subject", subject.to_owned()),
        ("accent", accent.to_string()),
        ("on_accent", accent.lettering().to_string()),
        ("link", accent.readable_on(LIGHT).to_string()),
        ("link_dark", accent.readable_on(DARK).to_string()),
        ("logo", logo.unwrap_or_default()),
        ("logo_width", width.to_string()),
        ("logo_height", height.to_string()),
    ]
}
