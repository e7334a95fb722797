//! Which of the texts of a version is for whom. Pure.

use crate::language::nearest;

/// Of these texts the one [`nearest`] to the wanted language, or the one in the default one, or any.
pub fn pick<'t, T>(
    texts: &'t [T],
    language: impl Fn(&T) -> &str,
    wanted: &str,
    default: &str,
) -> Option<&'t T> {
    let tags: Vec<&str> = texts.iter().map(&language).collect();
    let tag = nearest(&tags, default, wanted).unwrap_or(default);
    texts.iter().find(|text| language(text).eq_ignore_ascii_case(tag)).or_else(|| texts.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_nearest_to_what_is_wanted_is_picked() {
        let texts = ["en", "de", "de-AT", "pt-BR"];
        for (wanted, is) in [
            ("de", "de"),
            ("DE-at", "de-AT"),
            ("de-CH", "de"),
            ("de-AT-1996", "de-AT"),
            ("pt", "pt-BR"),
            ("pt_PT", "pt-BR"),
            ("fr", "en"),
            ("", "en"),
        ] {
            assert_eq!(pick(&texts, |text| text, wanted, "en"), Some(&is), "{wanted}");
        }
        assert_eq!(pick(&texts[1..2], |text| text, "fr", "en"), Some(&"de"));
        assert_eq!(pick(&[] as &[&str], |text| text, "fr", "en"), None);
    }
}
