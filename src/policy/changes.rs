//! What changed between two texts, for people to read: block by block, and inside of a block word by word. Pure.
//!
//! Whatever differs in words or in where links lead is shown; stretches without a change are folded away, and nothing is
//! left out. It takes a bounded time: what could not be compared by then is shown as taken out and put in.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use similar::{ChangeTag, DiffOp, TextDiff};
use tokio::sync::Semaphore;

use super::markdown::{Block, BlockKind, blocks};
use crate::clock::Instant;

/// How long comparing may take.
const TIME: Duration = Duration::from_secs(1);
/// How many are compared at the same time: it takes what a processor has, and anybody may ask for it.
static TURNS: Semaphore = Semaphore::const_new(2);
/// Blocks without a change that are shown before and after one with a change.
const AROUND: usize = 1;
/// Blocks that have less than this in common are shown one after the other.
const ALIKE: f32 = 0.3;
/// So many comparisons are kept: when everyone is told of a change, everyone looks at the same one.
const KEPT: usize = 8;
/// Changes of at most so many lines and characters are short.
const SHORT: (usize, usize) = (12, 1_500);

/// SHA-256 of the older text and of the newer one.
type Pair = [[u8; 32]; 2];
/// What was compared lately, the newest last.
type Compared = VecDeque<(Pair, Arc<Vec<Part>>)>;
static COMPARED: LazyLock<Mutex<Compared>> = LazyLock::new(Mutex::default);

/// Some of what two texts say together, in the order of the newer one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ChangedPart)]
pub struct Part {
    /// Whether nothing changed here and nobody needs to look. The headings above a change, and the row that names the
    /// columns of a table, are never folded away.
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
    /// How deep the heading stands, 1 where none is above it; null when it is none.
    pub level: Option<u8>,
    /// Whether it is the row of a table that names its columns.
    pub columns: bool,
    /// Whether it is another row of a table.
    pub row: bool,
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
pub async fn compare(old: &str, new: &str) -> Arc<Vec<Part>> {
    let pair: Pair = [Sha256::digest(old).into(), Sha256::digest(new).into()];
    if let Some(known) = known(&pair) {
        return known;
    }
    let _turn = TURNS.acquire().await;
    // Somebody before may have asked for the same.
    if let Some(known) = known(&pair) {
        return known;
    }
    let (old, new) = (old.to_owned(), new.to_owned());
    let begun = Instant::now();
    let compared = tokio::task::spawn_blocking(move || between(&old, &new)).await;
    let Ok(parts) = compared.map(Arc::new).inspect_err(|error| {
        tracing::error!(%error, "two texts could not be compared");
    }) else {
        return Arc::default();
    };
    // What ran out of time may come out better when less is to be done.
    if begun.elapsed() < TIME {
        let mut kept = COMPARED.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front((pair, Arc::clone(&parts)));
    }
    parts
}

fn known(pair: &Pair) -> Option<Arc<Vec<Part>>> {
    let kept = COMPARED.lock().unwrap_or_else(PoisonError::into_inner);
    kept.iter().find(|(of, _)| of == pair).map(|(_, parts)| Arc::clone(parts))
}

/// The parts as a page's template names them; headings begin at this level.
pub fn for_page(parts: &[Part], top: u8) -> Value {
    let piece = |piece: &Piece| {
        json!({
            "added": piece.kind == Kind::Added,
            "removed": piece.kind == Kind::Removed,
            "text": piece.text.trim_end(),
            "space": piece.text.ends_with(' '),
        })
    };
    let line = |line: &Line| {
        let level = line.level.map(|level| level.saturating_add(top).saturating_sub(1).min(6));
        json!({
            "tag": level.map_or_else(|| "p".to_owned(), |level| format!("h{level}")),
            "columns": line.columns,
            "pieces": line.pieces.iter().map(piece).collect::<Vec<_>>(),
        })
    };
    let part = |part: &Part| {
        json!({
            "folded": part.folded,
            "n": part.lines.len(),
            "lines": part.lines.iter().map(line).collect::<Vec<_>>(),
        })
    };
    parts.iter().map(part).collect()
}

/// Whether so little is to be read that it need not be folded away.
pub fn are_short(parts: &[Part]) -> bool {
    let lines = parts.iter().filter(|part| !part.folded).flat_map(|part| &part.lines);
    let (n, length) = lines.fold((0, 0), |(n, length), line| {
        let words: usize = line.pieces.iter().map(|piece| piece.text.chars().count()).sum();
        (n + 1, length + words)
    });
    n <= SHORT.0 && length <= SHORT.1
}

fn between(old: &str, new: &str) -> Vec<Part> {
    let end = Instant::now().plus(TIME);
    let (old, new) = (blocks(old), blocks(new));
    let texts = |blocks: &'_ [Block]| blocks.iter().map(|block| block.text.clone()).collect::<Vec<_>>();
    let (old_texts, new_texts) = (texts(&old), texts(&new));
    let (old_texts, new_texts): (Vec<&str>, Vec<&str>) =
        (old_texts.iter().map(String::as_str).collect(), new_texts.iter().map(String::as_str).collect());
    let diff = TextDiff::configure().timeout(end.remaining()).diff_slices(&old_texts, &new_texts);
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

fn whole(blocks: &[Block], kind: Kind) -> impl Iterator<Item = Line> + '_ {
    blocks.iter().map(move |block| line(block.kind, vec![(kind, block.text.clone())]))
}

/// Blocks in the place of others: word by word where they are alike.
fn replaced(old: &[Block], new: &[Block], time: Duration) -> Vec<Line> {
    let (old_words, new_words) = (words(old), words(new));
    let diff = TextDiff::configure().timeout(time).diff_slices(&old_words, &new_words);
    if diff.ratio() < ALIKE {
        return whole(old, Kind::Removed).chain(whole(new, Kind::Added)).collect();
    }
    let mut lines = Vec::new();
    let mut pieces: Vec<(Kind, String)> = Vec::new();
    // What the blocks are whose ends come next.
    let (mut old, mut new) = (old.iter().map(|block| block.kind), new.iter().map(|block| block.kind));
    for change in diff.iter_all_changes() {
        let kind = match change.tag() {
            ChangeTag::Equal => Kind::Same,
            ChangeTag::Insert => Kind::Added,
            ChangeTag::Delete => Kind::Removed,
        };
        match change.value() {
            END => {
                let was = if kind == Kind::Added { None } else { old.next() };
                let is = if kind == Kind::Removed { None } else { new.next() };
                // Where blocks were joined or parted, the newer text's ends count.
                if kind == Kind::Removed && pieces.iter().any(|(kind, _)| *kind != Kind::Removed) {
                    continue;
                }
                let block = is.or(was).unwrap_or(BlockKind::Words);
                lines.push(line(block, std::mem::take(&mut pieces)));
            }
            word => match pieces.last_mut() {
                Some((last, text)) if *last == kind => text.push_str(&format!("{word} ")),
                _ => pieces.push((kind, format!("{word} "))),
            },
        }
    }
    if !pieces.is_empty() {
        lines.push(line(BlockKind::Words, pieces));
    }
    lines
}

/// The end of a block among words.
const END: &str = "\n";

/// Words and the ends of blocks.
fn words(blocks: &[Block]) -> Vec<&str> {
    blocks.iter().flat_map(|block| block.text.split(' ').chain([END])).collect()
}

fn line(block: BlockKind, pieces: Vec<(Kind, String)>) -> Line {
    let last = pieces.len().saturating_sub(1);
    let piece = |(n, (kind, text)): (usize, (Kind, String))| Piece {
        kind,
        text: if n == last { text.trim_end().to_owned() } else { text },
    };
    let level = match block {
        BlockKind::Heading(level) => Some(level),
        BlockKind::Words | BlockKind::TableHead | BlockKind::TableRow => None,
    };
    Line {
        heading: level.is_some(),
        level,
        columns: block == BlockKind::TableHead,
        row: block == BlockKind::TableRow,
        pieces: pieces.into_iter().enumerate().map(piece).collect(),
    }
}

/// Folds what is far from any change.
fn folded(mut lines: Vec<Line>) -> Vec<Part> {
    let changed = |line: &Line| line.pieces.iter().any(|piece| piece.kind != Kind::Same);
    if !lines.iter().any(changed) {
        return Vec::new();
    }
    let mut shown = vec![false; lines.len()];
    for (n, _) in lines.iter().enumerate().filter(|(_, line)| changed(line)) {
        let end = (n + AROUND + 1).min(lines.len());
        shown[n.saturating_sub(AROUND)..end].fill(true);
    }
    show_where(&mut lines, &mut shown);
    let mut parts: Vec<Part> = Vec::new();
    for (line, shown) in lines.into_iter().zip(shown) {
        match parts.last_mut() {
            Some(part) if part.folded != shown => part.lines.push(line),
            _ => parts.push(Part { folded: !shown, lines: vec![line] }),
        }
    }
    parts
}

/// Shows the headings above whatever is shown, and what the columns of its table are called. The two texts being one now,
/// no heading is left out between two.
fn show_where(lines: &mut [Line], shown: &mut [bool]) {
    // The headings above, each with the level that it had in its own text.
    let mut above: Vec<(usize, u8)> = Vec::new();
    let mut columns = None;
    for n in 0..lines.len() {
        let line = &mut lines[n];
        match (line.level, line.columns, line.row) {
            (Some(level), ..) => {
                while above.last().is_some_and(|&(_, other)| other >= level) {
                    above.pop();
                }
                above.push((n, level));
                line.level = u8::try_from(above.len()).ok();
                columns = None;
            }
            (None, true, _) => columns = Some(n),
            (None, false, true) => {}
            (None, false, false) => columns = None,
        }
        if shown[n] {
            let names = columns.filter(|_| lines[n].row);
            above.iter().map(|&(at, _)| at).chain(names).for_each(|at| shown[at] = true);
        }
    }
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
            let heading = "#".repeat(line.level.unwrap_or_default().into());
            let space = if heading.is_empty() { "" } else { " " };
            format!("{heading}{space}{}", line.pieces.iter().map(piece).collect::<String>())
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
    fn a_change_is_shown_below_its_headings_and_the_names_of_its_columns() {
        let text = |entry: &str, row: &str| {
            format!(
                "# Privacy\n\nHello.\n\n## Partners\n\nWe share with these.\n\n### In Europe\n\n- One\n- Two\n{entry}\n\n\
                 # Times\n\nFirst.\n\n| Data | Time |\n|---|---|\n| Names | one year |\n| Orders | ten years |\n{row}\n"
            )
        };
        assert_eq!(
            shown(&text("", ""), &text("- Three", "| Letters | two years |")),
            [
                "# Privacy",
                "(1)",
                "## Partners",
                "(1)",
                "### In Europe",
                "(1)",
                "• Two",
                "{+• Three+}",
                "# Times",
                "(1)",
                "Data | Time",
                "(1)",
                "Orders | ten years",
                "{+Letters | two years+}"
            ]
        );
        // Whatever a heading was before, its level is that of what stands around it.
        assert_eq!(
            shown("## A\n\n### B\n\nOld words here.", "# A\n\n#### B\n\nNew words here."),
            ["# A", "## B", "[-Old-]{+New+}words here."]
        );
        assert_eq!(shown("# A\n\n## B", "# A\n\n## B c d"), ["# A", "## B {+c d+}"]);
    }

    #[tokio::test]
    async fn what_was_compared_is_kept_and_what_is_short_is_known() {
        let first = compare("We keep it.", "We sell it.").await;
        assert!(Arc::ptr_eq(&first, &compare("We keep it.", "We sell it.").await) && are_short(&first));
        for n in 0..KEPT {
            assert_ne!(compare("We keep it.", &format!("We keep {n}.")).await, first);
        }
        assert!(COMPARED.lock().unwrap().len() <= KEPT);
        assert_eq!(compare("We keep it.", "We sell it.").await, first);
        assert!(!are_short(&compare("Old.", &"Much more. ".repeat(200)).await));
        let lines: String = (0..13).map(|n| format!("- {n}\n")).collect();
        assert!(!are_short(&compare("Old.", &lines).await));
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
