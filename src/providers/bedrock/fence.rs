//! Takes JSON out of the Markdown fence that models like to put around it.

/// A text that may stand in a fence, as it arrives.
#[derive(Default, Debug)]
pub struct Unfenced {
    state: State,
    /// What may be part of a fence, or is not known yet to be none.
    held: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum State {
    /// Nothing but white space and the beginning of a fence so far.
    #[default]
    Before,
    /// In the line that opens the fence.
    Opening,
    /// Behind it.
    Inside,
    /// There is no fence.
    None,
}

const FENCE: &str = "```";

impl Unfenced {
    /// Takes a piece and gives back what is known to belong to the text.
    pub fn push(&mut self, piece: &str) -> String {
        if self.state == State::None {
            return piece.to_owned();
        }
        self.held.push_str(piece);
        if self.state == State::Before {
            let begun = self.held.trim_start();
            if begun.starts_with(FENCE) {
                self.state = State::Opening;
            } else if !FENCE.starts_with(begun) {
                self.state = State::None;
                return std::mem::take(&mut self.held);
            }
        }
        if self.state == State::Opening
            && let Some(fence) = self.held.find(FENCE)
            && let Some(line) = self.held[fence..].find('\n')
        {
            self.held.drain(..=fence + line);
            self.state = State::Inside;
        }
        if self.state != State::Inside {
            return String::new();
        }
        // What ends in white space and backticks may be the end of the fence.
        let kept = self
            .held
            .trim_end_matches(|c: char| c == '`' || c.is_whitespace())
            .len();
        self.held.drain(..kept).collect()
    }

    /// Bytes held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What was held back and is no fence.
    pub fn finish(self) -> String {
        match self.state {
            State::Inside => String::new(),
            State::Before | State::Opening | State::None => self.held,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unfenced(pieces: &[&str]) -> String {
        let mut fence = Unfenced::default();
        let mut text: String = pieces.iter().map(|piece| fence.push(piece)).collect();
        text.push_str(&fence.finish());
        text
    }

    #[test]
    fn a_fence_is_taken_off_and_everything_else_stays() {
        assert_eq!(unfenced(&["```json\n{\"a\":1}\n```"]), "{\"a\":1}");
        assert_eq!(unfenced(&["\n```\n{\"a\":\"`b` \"}\n```\n"]), "{\"a\":\"`b` \"}");
        assert_eq!(unfenced(&["{\"a\":\"```\"}"]), "{\"a\":\"```\"}");
        assert_eq!(unfenced(&["  {}  "]), "  {}  ");
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
