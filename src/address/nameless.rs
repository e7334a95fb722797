//! What a mail server said, without whatever could name the person. Pure.

/// What a mail server said, with whatever could name the person left out: anything that looks like an address, however it is
/// quoted or encoded, and the part of their own address before the @ where it stands as a word.
pub fn nameless(words: &str, own: Option<&str>) -> String {
    let own = own.map(str::to_lowercase);
    let own = own.as_deref().and_then(|own| own.rsplit_once('@'));
    let apart = |c: char| c.is_whitespace() || "<>()[]{}\"'`,;:|".contains(c);
    let mut out = String::with_capacity(words.len());
    let mut rest = words;
    while let Some(first) = rest.chars().next() {
        let end = if apart(first) { first.len_utf8() } else { rest.find(apart).unwrap_or(rest.len()) };
        let (word, after) = rest.split_at(end);
        let small = word.to_lowercase();
        let bare = small.trim_end_matches(['.', '!', '?']);
        let address = small.len() > 1 && ["@", "%40", "=40"].iter().any(|at| small.contains(at));
        let theirs = own.is_some_and(|(local, domain)| {
            bare == local
                || holds(bare, local)
                || bare.contains(domain) && bare.replace(domain, "").contains(local)
        });
        out.push_str(if address || theirs { "…" } else { word });
        rest = after;
    }
    out
}

/// Whether a part of an address stands in a longer word, as where `=` or `+` join it to others. One or two letters stand
/// everywhere and name nobody.
fn holds(word: &str, local: &str) -> bool {
    local.chars().count() > 2
        && word.match_indices(local).any(|(at, _)| {
            let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
            !joined(word[..at].chars().next_back()) && !joined(word[at + local.len()..].chars().next())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_relay_says_names_the_person() {
        let own = Some("Ann.Lee@people.example.com");
        for (said, kept) in [
            ("250 2.0.0 Ok: queued as 4F1", "250 2.0.0 Ok: queued as 4F1"),
            ("550 5.1.1 <ann.lee@people.example.com>: unknown", "550 5.1.1 <…>: unknown"),
            ("no user 'Ann.Lee' here", "no user '…' here"),
            ("no user ann.lee.", "no user …"),
            ("ann.lee=people.example.com@srs.example said no", "… said no"),
            ("see https://x.example/?to=ann.lee%40people.example.com", "see https:…"),
            ("rcpt=ann.lee;x", "…;x"),
            ("call other@b.example, please", "call …, please"),
            ("an @ alone", "an @ alone"),
        ] {
            assert_eq!(nameless(said, own), kept);
        }
        assert_eq!(nameless("550 a user is gone", Some("a@b.example")), "550 … user is gone");
        assert_eq!(nameless("a=b.example busy at b.example", Some("a@b.example")), "… busy at b.example");
        assert_eq!(nameless("leeward", Some("lee@b.example")), "leeward");
    }
}
