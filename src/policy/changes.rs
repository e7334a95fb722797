//! What changed between two texts, for people to read: block by block, and inside of a block word by word. Pure.
//!
//! Whatever differs in words or in where links lead is shown; stretches without a change are folded away, and nothing is
//! left out. It takes a bounded time: what could not be compared by then is shown as taken out and put in.

use std::time::Duration;

use serde::Serialize;
use similar::{ChangeTag, DiffOp, TextDiff};
use tokio::sync::Semaphore;

use super::markdown::{Block, blocks};
use crate::clock::Instant;

/// How long comparing may take.
const TIME: Duration = Duration::from_secs(1);
/// How many are compared at the same time: it takes what a processor has, and anybody may ask for it.
static TURNS: Semaphore = Semaphore::const_new(2);
/// Blocks without a change that are shown before and after one with a change.
const AROUND: usize = 1;
/// Blocks that have less than this in common are shown one after the other.
const ALIKE: f32 = 0.3;
/// What no text holds: marks a heading while words are compared.
const HEADING: char = '\u{1}';

/// Some of what two texts say together, in the order of the newer one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ChangedPart)]
pub struct Part {
    /// Whether nothing changed here and nobody needs to look.
    pub folded: bool,
    /// Its paragraphs, entries of lists, rows of tables.
    pub lines: Vec<Line>,
}

/// A paragraph, an entry of a list or a row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ChangedLine)]
pub struct Line {
    /// Whether it is a heading.
    pub heading: bool,
    /// Its words.
    pub pieces: Vec<Piece>,
}

/// Words that stand in both texts or in one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ChangedPiece)]
pub struct Piece {
    /// Where they stand.
    pub kind: Kind,
    /// The words.
    pub text: String,
}

/// Where words stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ChangedKind)]
pub enum Kind {
    /// In both texts.
    Same,
    /// In the newer one alone.
    Added,
    /// In the older one alone.
    Removed,
}

/// Compares two texts, both Markdown, away from whatever else is served. Nothing when they say the same.
pub async fn compare(old: String, new: String) -> Vec<Part> {
    let _turn = TURNS.acquire().await;
    let compared = tokio::task::spawn_blocking(move || between(&old, &new)).await;
    compared.unwrap_or_else(|error| {
        tracing::error!(%error, "two texts could not be compared");
        Vec::new()
    })
}

fn between(old: &str, new: &str) -> Vec<Part> {
    let end = Instant::now().plus(TIME);
    let (old, new) = (blocks(old), blocks(new));
    let (old, new): (Vec<String>, Vec<String>) =
        (old.into_iter().map(marked).collect(), new.into_iter().map(marked).collect());
    let (old, new): (Vec<&str>, Vec<&str>) =
        (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
    let diff = TextDiff::configure().timeout(end.remaining()).diff_slices(&old, &new);
    let mut lines = Vec::new();
    for op in diff.ops() {
        match *op {
            DiffOp::Equal { new_index, len, .. } => {
                lines.extend(whole(&new[new_index..new_index + len], Kind::Same));
            }
            DiffOp::Delete { old_index, old_len, .. } => {
                lines.extend(whole(&old[old_index..old_index + old_len], Kind::Removed));
            }
            DiffOp::Insert { new_index, new_len, .. } => {
                lines.extend(whole(&new[new_index..new_index + new_len], Kind::Added));
            }
            DiffOp::Replace { old_index, old_len, new_index, new_len } => lines.extend(replaced(
                &old[old_index..old_index + old_len],
                &new[new_index..new_index + new_len],
                end.remaining(),
            )),
        }
    }
    folded(lines)
}

fn marked(block: Block) -> String {
    let Block { heading, text } = block;
    if heading { format!("{HEADING}{text}") } else { text }
}

fn whole<'t>(texts: &'t [&'t str], kind: Kind) -> impl Iterator<Item = Line> + 't {
    texts.iter().map(move |text| line(vec![(kind, (*text).to_owned())]))
}

/// Blocks in the place of others: word by word where they are alike.
fn replaced(old: &[&str], new: &[&str], time: Duration) -> Vec<Line> {
    let (old_words, new_words) = (words(old), words(new));
    let diff = TextDiff::configure().timeout(time).diff_slices(&old_words, &new_words);
    if diff.ratio() < ALIKE {
        return whole(old, Kind::Removed).chain(whole(new, Kind::Added)).collect();
    }
    let mut lines = Vec::new();
    let mut pieces: Vec<(Kind, String)> = Vec::new();
    for change in diff.iter_all_changes() {
        let kind = match change.tag() {
            ChangeTag::Equal => Kind::Same,
            ChangeTag::Insert => Kind::Added,
            ChangeTag::Delete => Kind::Removed,
        };
        match change.value() {
            // Where blocks were joined or parted, the newer text's ends count.
            END if kind == Kind::Removed && pieces.iter().any(|(kind, _)| *kind != Kind::Removed) => {}
            END => lines.push(line(std::mem::take(&mut pieces))),
            word => match pieces.last_mut() {
                Some((last, text)) if *last == kind => text.push_str(&format!("{word} ")),
                _ => pieces.push((kind, format!("{word} "))),
            },
        }
    }
    if !pieces.is_empty() {
        lines.push(line(pieces));
    }
    lines
}

/// The end of a block among words.
const END: &str = "\n";

/// Words and the ends of blocks.
fn words<'t>(texts: &[&'t str]) -> Vec<&'t str> {
    texts.iter().flat_map(|text| text.split(' ').chain([END])).collect()
}

fn line(pieces: Vec<(Kind, String)>) -> Line {
    let heading = pieces.iter().any(|(_, text)| text.contains(HEADING));
    let last = pieces.len().saturating_sub(1);
    let piece = |(n, (kind, text)): (usize, (Kind, String))| {
        let text = if heading { text.replace(HEADING, "") } else { text };
        Piece { kind, text: if n == last { text.trim_end().to_owned() } else { text } }
    };
    Line { heading, pieces: pieces.into_iter().enumerate().map(piece).collect() }
}

/// Folds what is far from any change.
fn folded(lines: Vec<Line>) -> Vec<Part> {
    let changed = |line: &Line| line.pieces.iter().any(|piece| piece.kind != Kind::Same);
    if !lines.iter().any(changed) {
        return Vec::new();
    }
    let mut shown = vec![false; lines.len()];
    for (n, _) in lines.iter().enumerate().filter(|(_, line)| changed(line)) {
        let end = (n + AROUND + 1).min(lines.len());
        shown[n.saturating_sub(AROUND)..end].fill(true);
    }
    let mut parts: Vec<Part> = Vec::new();
    for (line, shown) in lines.into_iter().zip(shown) {
        match parts.last_mut() {
            Some(part) if part.folded != shown => part.lines.push(line),
            _ => parts.push(Part { folded: !shown, lines: vec![line] }),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The parts as text: `[-taken out-]`, `{+put in+}`, folded stretches as how many lines they have.
    fn shown(old: &str, new: &str) -> Vec<String> {
        let piece = |piece: &Piece| match piece.kind {
            Kind::Same => piece.text.clone(),
            Kind::Added => format!("{{+{}+}}", piece.text.trim_end()),
            Kind::Removed => format!("[-{}-]", piece.text.trim_end()),
        };
        let line = |line: &Line| {
            let heading = if line.heading { "# " } else { "" };
            format!("{heading}{}", line.pieces.iter().map(piece).collect::<String>())
        };
        let part = |part: Part| match part.folded {
            true => vec![format!("({})", part.lines.len())],
            false => part.lines.iter().map(line).collect(),
        };
        between(old, new).into_iter().flat_map(part).collect()
    }

    #[test]
    fn a_changed_word_is_shown_in_its_sentence() {
        let old = "# Privacy\n\nWe keep your data for 30 days.\n";
        let new = "# Privacy\n\nWe keep your\ndata for 60 days.\n";
        assert_eq!(shown(old, new), ["# Privacy", "We keep your data for [-30-]{+60+}days."]);
    }

    #[test]
    fn what_is_far_from_a_change_is_folded() {
        let text = |n: u32, word: &str| -> String {
            (1..=9)
                .map(|m| if m == n { format!("This is {word}.\n\n") } else { format!("Line {m}.\n\n") })
                .collect()
        };
        assert_eq!(
            shown(&text(5, "old"), &text(5, "new")),
            ["(3)", "Line 4.", "This is [-old.-]{+new.+}", "Line 6.", "(3)"]
        );
        assert!(between(&text(5, "same"), &text(5, "same")).is_empty());
        assert!(between("a  b", "a\nb").is_empty(), "only the form changed");
        assert!(between("", "").is_empty());
    }

    #[test]
    fn what_has_little_in_common_is_shown_one_after_the_other() {
        let old = "We never share anything with anybody.";
        let new = "Advertisers get what you read, where you are and whom you know.";
        assert_eq!(shown(old, new), [format!("[-{old}-]"), format!("{{+{new}+}}")]);
        assert_eq!(shown("", "# New"), ["# {+New+}"]);
        assert_eq!(shown("Old.", ""), ["[-Old.-]"]);
    }

    #[test]
    fn a_paragraph_that_went_stands_by_itself_and_where_a_link_leads_counts() {
        let old = "First we say who we are.\n\nThen we say what we keep of you for long.";
        let new = "Then we say what we keep of you for ever.";
        assert_eq!(
            shown(old, new),
            ["[-First we say who we are.-]", "Then we say what we keep of you for [-long.-]{+ever.+}"]
        );
        let link = |url: &str| format!("For more about how to ask us anything see [terms]({url}).");
        assert!(
            shown(&link("https://a.example"), &link("https://b.example"))[0]
                .contains("{+(https://b.example).+}")
        );
    }

    #[test]
    fn the_greatest_texts_are_compared_soon() {
        let text = |seed: u32| -> String {
            (0..40_000_u32)
                .map(|n| format!("w{} {}", n.wrapping_mul(seed) % 977, if n % 11 == 0 { "\n\n" } else { "" }))
                .collect()
        };
        let begun = std::time::Instant::now();
        assert!(!between(&text(7), &text(13)).is_empty());
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }

    /// The words of one side, with nothing of how they were laid out.
    fn side(parts: &[Part], without: Kind) -> String {
        let pieces = parts.iter().flat_map(|part| &part.lines).flat_map(|line| &line.pieces);
        let kept = pieces.filter(|piece| piece.kind != without).map(|piece| format!("{} ", piece.text));
        kept.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn plain(markdown: &str) -> String {
        blocks(markdown).into_iter().map(|block| block.text).collect::<Vec<_>>().join(" ")
    }

    proptest! {
        #[test]
        fn nothing_of_either_text_is_lost(old in "([a-c]{1,2}[ \n#-]{0,3}){0,30}", new in "([a-c]{1,2}[ \n#-]{0,3}){0,30}") {
            let parts = between(&old, &new);
            if parts.is_empty() {
                prop_assert_eq!(plain(&old), plain(&new));
            } else {
                prop_assert_eq!(side(&parts, Kind::Removed), plain(&new));
                prop_assert_eq!(side(&parts, Kind::Added), plain(&old));
            }
        }
    }
}
