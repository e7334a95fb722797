//! Colours and whether they can be read: relative luminance and contrast as WCAG 2.2 defines them.
//!
//! Pure, and knows no idea: pages and mail take their colours from here.

use std::fmt;

/// The ground of a page's card by day.
pub const LIGHT_GROUND: Colour = Colour([0xf4, 0xf4, 0xf1]);
/// The ground of a page's card by night.
pub const DARK_GROUND: Colour = Colour([0x1e, 0x1e, 0x1c]);
/// What WCAG asks of text (1.4.3, level AA).
const READABLE: f64 = 4.5;

/// A colour in sRGB. Written as `#rrggbb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

impl Colour {
    /// For brands without a colour of their own.
    pub const CALM: Self = Self([0x1f, 0x4e, 0x8c]);
    const BLACK: Self = Self([0, 0, 0]);
    const WHITE: Self = Self([255, 255, 255]);

    /// Reads `#rrggbb`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii())?;
        let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
        Some(Self([octet(0)?, octet(2)?, octet(4)?]))
    }

    /// Black or white, whichever reads better on this colour; one of them always reaches 4.5.
    pub fn lettering(self) -> Self {
        if self.contrast(Self::WHITE) >= READABLE { Self::WHITE } else { Self::BLACK }
    }

    /// This colour, darkened or lightened no more than it takes to be read on `ground`.
    pub fn readable_on(self, ground: Self) -> Self {
        let towards = ground.lettering();
        (0..=20)
            .map(|step| self.mixed(towards, f64::from(step) / 20.0))
            .find(|colour| colour.contrast(ground) >= READABLE)
            .unwrap_or(towards)
    }

    /// The contrast of the two, 1 to 21 (WCAG 2.2).
    pub fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    fn luminance(self) -> f64 {
        let [r, g, b] = self.0.map(|octet| {
            let c = f64::from(octet) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    fn mixed(self, other: Self, share: f64) -> Self {
        let mut mixed = self.0;
        for (own, theirs) in mixed.iter_mut().zip(other.0) {
            let value = f64::from(*own) * (1.0 - share) + f64::from(theirs) * share;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between two octets lies an octet"
            )]
            {
                *own = value.round() as u8;
            }
        }
        Self(mixed)
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.0;
        write!(f, "#{r:02x}{g:02x}{b:02x}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_six_digits_after_a_hash_are_a_colour() {
        assert_eq!(Colour::parse("#ff8000"), Some(Colour([255, 128, 0])));
        for wrong in ["", "#", "#fff", "ff8000", "#ff800g", "#ff80000", "#é8000", "red"] {
            assert_eq!(Colour::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_brand_colour_can_be_read(rgb in any::<[u8; 3]>()) {
            let colour = Colour(rgb);
            prop_assert!(colour.contrast(colour.lettering()) >= READABLE);
            for ground in [LIGHT_GROUND, DARK_GROUND] {
                prop_assert!(colour.readable_on(ground).contrast(ground) >= READABLE);
            }
        }

        #[test]
        fn a_colour_reads_what_it_writes(rgb in any::<[u8; 3]>()) {
            prop_assert_eq!(Colour::parse(&Colour(rgb).to_string()), Some(Colour(rgb)));
        }
    }
}
