//! Sentences that leave it to people to find out by themselves (WP260 rev.01 ¶29). Pure.

/// Longest sentence that a warning repeats, in characters.
const SHOWN: usize = 100;
/// Which leave it to them whatever else is said.
const PLAIN: [&str; 6] = [
    "check this page",
    "check back",
    "check our website",
    "review this policy",
    "review this page",
    "visit this page",
];
/// How often somebody is to look, in the languages of notices.
const OFTEN: [&str; 23] = [
    "regularly",
    "periodically",
    "from time to time",
    "frequently",
    "often",
    "every now and then",
    "regelmäßig",
    "von zeit zu zeit",
    "ab und zu",
    "gelegentlich",
    "hin und wieder",
    "régulièrement",
    "périodiquement",
    "de temps en temps",
    "de temps à autre",
    "regularmente",
    "periódicamente",
    "de vez en cuando",
    "con regularidad",
    "بانتظام",
    "من وقت لآخر",
    "من حين لآخر",
    "بشكل دوري",
];
/// What they are to do.
const LOOK: [&str; 19] = [
    "check",
    "visit",
    "review",
    "look at",
    "consult",
    "besuch",
    "prüf",
    "schau",
    "nachseh",
    "sehen sie",
    "informier",
    "vérifi",
    "revis",
    "comprueb",
    "compruebe",
    "راجع",
    "مراجعة",
    "زيارة",
    "زر ",
];

/// What to say of each such sentence in a text.
pub(super) fn left_to_people(text: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let holds = |sentence: &str, any: &[&str]| any.iter().any(|words| sentence.contains(words));
    text.split(['.', '!', '?', '؟', ':', ';'])
        .map(str::trim)
        .filter(|sentence| holds(sentence, &PLAIN) || holds(sentence, &OFTEN) && holds(sentence, &LOOK))
        .map(|sentence| {
            let at = PLAIN.iter().chain(&OFTEN).filter_map(|words| sentence.find(words)).min().unwrap_or(0);
            let before = sentence[..at].chars().count().saturating_sub(SHOWN / 2);
            let shown: String = sentence.chars().skip(before).take(SHOWN).collect();
            format!("it says {shown:?}: telling people to look for themselves is no notice; take that out")
        })
        .collect()
}
