//! A brand's logo: which images are taken, what they are called, and where they are shown.
//!
//! Pure. A logo is kept and served by Tidings, because a page behind a token loads nothing from elsewhere. Its name says
//! what it holds and how large it is, `{digest}-{width}x{height}.{kind}`, so that a brand's row is enough to show it, an
//! answer may be kept for ever, and two brands with one image share it. SVG is never taken: it can hold a program.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use imagesize::ImageType;
use sha2::{Digest, Sha256};
use url::Url;

use super::Brand;

/// Largest image in octets.
const MAX_OCTETS: usize = 256 * 1024;
/// Smallest and largest width and height in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 8..=2000;
/// Hexadecimal digits of SHA-256 in a name: 128 bits.
const DIGITS: usize = 32;
/// The kinds of image: how a name ends, and the media type.
const KINDS: [(&str, &str); 4] =
    [("png", "image/png"), ("jpg", "image/jpeg"), ("gif", "image/gif"), ("webp", "image/webp")];
/// Where logos are served, below the base URL.
const FOLDER: &str = "/logo/";

/// A logo that is kept here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logo {
    name: String,
    /// Width of the image in pixels.
    pub width: u32,
    /// Height of the image in pixels.
    pub height: u32,
}

impl Logo {
    /// The logo of this name; none when it is no name of ours.
    pub fn named(name: &str) -> Option<Self> {
        let (digest, rest) = name.split_once('-')?;
        let (size, kind) = rest.split_once('.')?;
        let (width, height) = size.split_once('x')?;
        let (width, height) = (width.parse().ok()?, height.parse().ok()?);
        let ours = Self::new(digest, width, height, kind);
        let known = digest.len() == DIGITS
            && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && KINDS.iter().any(|(end, _)| *end == kind)
            && SIDES.contains(&width)
            && SIDES.contains(&height);
        (known && ours.name == name).then_some(ours)
    }

    fn new(digest: &str, width: u32, height: u32, kind: &str) -> Self {
        Self { name: format!("{digest}-{width}x{height}.{kind}"), width, height }
    }

    /// Its name, the last part of its URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL below this base URL, be that a whole one or only its path.
    pub fn under(&self, base: &str) -> String {
        format!("{}{FOLDER}{}", base.trim_end_matches('/'), self.name)
    }

    /// The logo that a URL made by [`Logo::under`] names; none when it is not below any of these.
    pub fn at(url: &str, bases: &[&str]) -> Option<Self> {
        let (base, name) = url.rsplit_once(FOLDER)?;
        if bases.iter().any(|known| known.trim_end_matches('/') == base) { Self::named(name) } else { None }
    }

    /// The media type of the image.
    pub fn media_type(&self) -> &'static str {
        let end = self.name.rsplit('.').next().unwrap_or_default();
        KINDS.iter().find(|(kind, _)| *kind == end).map_or("application/octet-stream", |(_, media)| media)
    }

    /// Width and height, never enlarged, at which it fits into so many pixels.
    pub fn fitted(&self, width: u32, height: u32) -> (u32, u32) {
        // In thousandths: the smaller of the two shares decides, and 1 leaves it as it is.
        let share = (1000 * width / self.width).min(1000 * height / self.height).min(1000);
        let scaled = |side: u32| (side * share / 1000).max(1);
        (scaled(self.width), scaled(self.height))
    }
}

/// A logo as it comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it will be known as.
    pub logo: Logo,
    /// The image itself.
    pub octets: Vec<u8>,
}

impl Image {
    /// Reads `data:image/png;base64,…`; JPEG, GIF and WebP likewise. The octets must be what the type says.
    ///
    /// # Errors
    /// What is wrong with it and what to do, in words that follow a field's name.
    pub fn from_data_uri(text: &str) -> Result<Self, String> {
        const HOW: &str = "must be the image itself, as data:image/png;base64,… (or jpeg, gif, webp), since pages load nothing from elsewhere; or the URL that a GET of this brand shows; or null for none";
        let (media, data) = text
            .strip_prefix("data:")
            .and_then(|rest| rest.split_once(";base64,"))
            .ok_or_else(|| HOW.to_owned())?;
        let media = if media.eq_ignore_ascii_case("image/jpg") { "image/jpeg" } else { media };
        let (kind, _) = KINDS
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(media))
            .ok_or("must be PNG, JPEG, GIF or WebP; make a PNG of it and send that")?;
        if data.len() > MAX_OCTETS.div_ceil(3) * 4 {
            return Err(too_large());
        }
        let octets =
            STANDARD.decode(data).map_err(|_| "is not base64 after the comma; encode the whole file")?;
        if octets.len() > MAX_OCTETS {
            return Err(too_large());
        }
        let found = match imagesize::image_type(&octets) {
            Ok(ImageType::Png) => "png",
            Ok(ImageType::Jpeg) => "jpg",
            Ok(ImageType::Gif) => "gif",
            Ok(ImageType::Webp) => "webp",
            _ => "",
        };
        if found != *kind {
            return Err(format!("does not begin as {media} does; name the type that the file has"));
        }
        let size = imagesize::blob_size(&octets).map_err(|_| "is damaged: its size cannot be read")?;
        let side = |side: usize| u32::try_from(side).ok().filter(|side| SIDES.contains(side));
        let (Some(width), Some(height)) = (side(size.width), side(size.height)) else {
            return Err(format!(
                "must be {} to {} pixels wide and high; this one is {} by {}",
                SIDES.start(),
                SIDES.end(),
                size.width,
                size.height
            ));
        };
        let digest = hex::encode(Sha256::digest(&octets));
        Ok(Self { logo: Logo::new(&digest[..DIGITS], width, height, kind), octets })
    }
}

fn too_large() -> String {
    format!("is larger than {} kB; make it smaller, it is shown at most 200 pixels wide", MAX_OCTETS / 1024)
}

impl Brand {
    /// Its logo. None when it has none, or when a version of Tidings wrote a URL of elsewhere there.
    pub fn logo(&self) -> Option<Logo> {
        self.logo.as_deref().and_then(Logo::named)
    }

    /// What this brand's links begin with, without a slash at the end: its own base URL, or the program's.
    pub fn base<'a>(&'a self, program: &'a Url) -> &'a str {
        self.base_url.as_deref().unwrap_or(program.as_str()).trim_end_matches('/')
    }

    /// The whole URL of its logo.
    pub fn logo_url(&self, program: &Url) -> Option<String> {
        self.logo().map(|logo| logo.under(self.base(program)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The head of a PNG of this size.
    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut octets = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        octets.extend_from_slice(&width.to_be_bytes());
        octets.extend_from_slice(&height.to_be_bytes());
        octets.extend_from_slice(b"\x08\x06\0\0\0");
        octets
    }

    fn uri(media: &str, octets: &[u8]) -> String {
        format!("data:{media};base64,{}", STANDARD.encode(octets))
    }

    #[test]
    fn an_image_is_named_by_what_it_holds_and_its_size() {
        let image = Image::from_data_uri(&uri("image/png", &png(320, 80))).unwrap();
        assert_eq!((image.logo.width, image.logo.height, image.logo.media_type()), (320, 80, "image/png"));
        assert!(image.logo.name().ends_with("-320x80.png"));
        assert_eq!(Logo::named(image.logo.name()), Some(image.logo.clone()));
        let other = Image::from_data_uri(&uri("image/png", &png(320, 81))).unwrap();
        assert_ne!(image.logo, other.logo);
        let gif = Image::from_data_uri(&uri("image/gif", b"GIF89a\x10\0\x20\0\0\0\0")).unwrap();
        assert_eq!((gif.logo.width, gif.logo.height, gif.logo.media_type()), (16, 32, "image/gif"));
    }

    #[test]
    fn what_is_no_image_of_these_kinds_is_refused_with_what_to_do() {
        let png = png(320, 80);
        let large = [png.clone(), vec![0; MAX_OCTETS]].concat();
        for (text, said) in [
            ("https://acme.example/logo.png".to_owned(), "data:image/png;base64,"),
            (String::new(), "data:image/png;base64,"),
            ("data:image/png,abc".to_owned(), "data:image/png;base64,"),
            (uri("image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "make a PNG"),
            (uri("text/html", b"<script>"), "make a PNG"),
            (uri("image/png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "does not begin"),
            (uri("image/gif", &png), "does not begin"),
            (uri("image/png", &png[..18]), "damaged"),
            (uri("image/png", b""), "does not begin"),
            ("data:image/png;base64,a\r\nb".to_owned(), "base64"),
            (uri("image/png", &self::png(7, 80)), "pixels"),
            (uri("image/png", &self::png(320, 2001)), "pixels"),
            (uri("image/png", &self::png(u32::MAX, u32::MAX)), "pixels"),
            (uri("image/png", &large), "larger than 256 kB"),
        ] {
            let error = Image::from_data_uri(&text).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn a_url_is_known_again_below_its_own_base_alone() {
        let logo = Image::from_data_uri(&uri("image/png", &png(9, 8))).unwrap().logo;
        let url = logo.under("https://news.acme.example/mail/");
        assert_eq!(url, format!("https://news.acme.example/mail/logo/{}", logo.name()));
        assert_eq!(
            Logo::at(&url, &["https://x.example", "https://news.acme.example/mail"]),
            Some(logo.clone())
        );
        assert_eq!(Logo::at(&url, &["https://x.example", "https://news.acme.example"]), None);
        for name in ["", "x", "../x.png", &logo.name().to_uppercase(), &logo.name().replace("9x", "09x")] {
            assert_eq!(Logo::named(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn it_is_shown_in_its_own_proportion_and_never_larger(width in SIDES, height in SIDES) {
            let logo = Logo::new("", width, height, "png");
            let (w, h) = logo.fitted(200, 48);
            prop_assert!(w <= 200.min(width) && h <= 48.min(height) && w > 0 && h > 0);
            prop_assert!(w == width || w.abs_diff(h * width / height) <= width / height + 1 || h.abs_diff(w * height / width) <= height / width + 1);
        }

        #[test]
        fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_usize..4) {
            let magic: [&[u8]; 4] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 "];
            let octets = [magic[kind], &octets].concat();
            let _ = Image::from_data_uri(&uri(KINDS[kind].1, &octets));
        }
    }
}
