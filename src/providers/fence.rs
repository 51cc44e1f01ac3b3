//! JSON without the Markdown fence that models like to put around it.

/// White space and backticks that are held back at most: behind them a fence is no longer expected, or does not end.
const MAX_BLANKS: usize = 256;
/// What Markdown puts around code.
const FENCE: &str = "```";

/// Takes the fence off a text that may have one around it, as it comes in pieces.
#[derive(Debug)]
pub enum Fence {
    /// There is none to take off.
    None,
    /// Nothing but the beginning of one was seen.
    Before(String),
    /// One was opened, and its first line is not complete.
    Opening,
    /// Inside one; what may be its end is held back.
    Inside(String),
}

impl Fence {
    /// `expected` where there may be one.
    pub fn new(expected: bool) -> Self {
        if expected {
            Self::Before(String::new())
        } else {
            Self::None
        }
    }

    /// What can be said after one more piece.
    pub fn take(&mut self, piece: &str) -> String {
        match self {
            Self::None => piece.to_owned(),
            Self::Before(seen) => {
                seen.push_str(piece);
                let start = seen.trim_start();
                if let Some(rest) = start.strip_prefix(FENCE) {
                    let rest = rest.to_owned();
                    *self = Self::Opening;
                    return self.take(&rest);
                }
                if FENCE.starts_with(start) && seen.len() <= MAX_BLANKS {
                    return String::new();
                }
                let said = std::mem::take(seen);
                *self = Self::None;
                said
            }
            // The name of the language, unless the content begins on the same line.
            Self::Opening => match piece.find(['\n', '{', '[']) {
                Some(at) => {
                    let at = at + usize::from(piece[at..].starts_with('\n'));
                    *self = Self::Inside(String::new());
                    self.take(&piece[at..])
                }
                None => String::new(),
            },
            Self::Inside(held) => {
                held.push_str(piece);
                // Everything that ends in something other than white space and backticks is inside for certain.
                let end = held
                    .trim_end_matches(|c: char| c.is_ascii_whitespace() || c == '`')
                    .len();
                let end = if held.len() - end > MAX_BLANKS { held.len() } else { end };
                held.drain(..end).collect()
            }
        }
    }

    /// What is left at the end.
    pub fn end(&mut self) -> String {
        match std::mem::replace(self, Self::None) {
            Self::None | Self::Opening => String::new(),
            Self::Before(seen) => seen,
            Self::Inside(held) => {
                let rest = held.trim_end();
                rest.strip_suffix(FENCE).unwrap_or(rest).trim_end().to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unfenced(pieces: &[&str]) -> String {
        let mut fence = Fence::new(true);
        let mut text: String = pieces.iter().map(|piece| fence.take(piece)).collect();
        text.push_str(&fence.end());
        text
    }

    #[test]
    fn a_fence_is_taken_off_and_everything_else_stays() {
        assert_eq!(unfenced(&["```json\n{\"a\":1}\n```"]), "{\"a\":1}");
        assert_eq!(unfenced(&["\n```\n{\"a\":\"`b` \"}\n```\n"]), "{\"a\":\"`b` \"}");
        assert_eq!(unfenced(&["{\"a\":\"```\"}"]), "{\"a\":\"```\"}");
        assert_eq!(unfenced(&["  {}  "]), "  {}  ");
        assert_eq!(unfenced(&["```{\"a\":1}```"]), "{\"a\":1}");
        assert_eq!(unfenced(&["```{\n\"a\":1}\n```"]), "{\n\"a\":1}");
        assert_eq!(unfenced(&["``"]), "``");
        assert_eq!(unfenced(&[""]), "");
    }

    proptest! {
        #[test]
        fn how_the_text_was_cut_changes_nothing(
            text in "(\n| )?(```(json)?\n)?[{}\"a`\n ]{0,12}(\n?```)?",
            cuts in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let pieces: Vec<&str> = crate::providers::testing::cut(text.as_bytes(), &cuts)
                .into_iter()
                .map(|piece| std::str::from_utf8(piece).unwrap())
                .collect();
            prop_assert_eq!(unfenced(&pieces), unfenced(&[&text]));
        }
    }
}
