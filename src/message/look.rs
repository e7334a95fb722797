//! How a message looks: the brand's colour, made readable wherever it stands, its logo, the person's language. The layout
//! reads these as `@names`; a started campaign keeps the layout that it was frozen with, so a name stays once it is there.

use std::borrow::Cow;

use super::{Addressee, Sender, locale};
use crate::colour::Colour;

/// The card of a message by day.
const LIGHT: Colour = Colour([0xff, 0xff, 0xff]);
/// The card of a message by night.
const DARK: Colour = Colour([0x1d, 0x20, 0x25]);
/// The space that a logo may take, in pixels.
const LOGO: (u32, u32) = (240, 64);

/// Those of the names that are the same in all messages of a brand, and their values.
pub(super) fn of_brand(sender: &Sender<'_>) -> Vec<(&'static str, String)> {
    let accent = sender.brand.color.as_deref().and_then(Colour::parse).unwrap_or(Colour::CALM);
    let logo = sender.brand.logo();
    let (width, height) = logo.as_ref().map_or((0, 0), |logo| logo.fitted(LOGO.0, LOGO.1));
    let logo = sender.brand.logo_url(sender.base_url);
    vec![
        ("accent", accent.to_string()),
        ("on_accent", accent.lettering().to_string()),
        ("link", accent.readable_on(LIGHT).to_string()),
        ("link_dark", accent.readable_on(DARK).to_string()),
        ("logo", logo.unwrap_or_default()),
        ("logo_width", width.to_string()),
        ("logo_height", height.to_string()),
    ]
}

/// Those that are one message's own.
pub(super) fn of_message<'m>(
    addressee: &Addressee<'_>,
    subject: &'m str,
) -> [(&'static str, Cow<'m, str>); 3] {
    let lang = locale::tag(addressee.locale);
    [
        ("dir", Cow::Borrowed(locale::direction(&lang))),
        ("lang", Cow::Owned(lang)),
        ("subject", Cow::Borrowed(subject)),
    ]
}
