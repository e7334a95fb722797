//! Which of the texts of a version is for whom. Pure.

/// Of these texts the one in the wanted language (a tag of RFC 5646, in any case), or in another form of that language, or
/// in the default one, or any.
pub fn pick<'t, T>(
    texts: &'t [T],
    language: impl Fn(&T) -> &str,
    wanted: &str,
    default: &str,
) -> Option<&'t T> {
    let first = |tag: &str| tag.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    let exactly = |tag: &str| texts.iter().find(|text| language(text).eq_ignore_ascii_case(tag));
    let kin = texts.iter().find(|text| !wanted.is_empty() && first(language(text)) == first(wanted));
    exactly(wanted).or(kin).or_else(|| exactly(default)).or_else(|| texts.first())
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
