//! Tokens guessed from text, for the places where no provider has counted them yet, or ever will.
//!
//! Four ASCII characters are about one token for every tokenizer in use; other scripts cost more. The factors follow the
//! length of a character in UTF-8, which needs no table and runs at the speed of memory. A real tokenizer is 1,000 times
//! slower and still wrong for every provider but its own.

/// Text seen so far, in quarters of a token.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TextTally {
    quarters: u64,
}

impl TextTally {
    /// Counts a text.
    pub fn add(&mut self, text: &str) {
        if text.is_ascii() {
            self.quarters += text.len() as u64;
            return;
        }
        for byte in text.bytes() {
            self.quarters += quarters_of_lead(byte);
        }
    }

    /// Counts the inside of a JSON string as it stands in the document, where `\n` is one character and not two.
    ///
    /// Expects valid JSON; on anything else it counts wrongly, but never fails.
    pub fn add_json_escaped(&mut self, raw: &[u8]) {
        let mut at = 0;
        while at < raw.len() {
            let byte = raw[at];
            if byte == b'\\' {
                // `\uXXXX` is mostly used for other scripts by writers that keep to ASCII.
                let unicode = raw.get(at + 1) == Some(&b'u');
                self.quarters += if unicode { 3 } else { 1 };
                at += if unicode { 6 } else { 2 };
            } else {
                self.quarters += quarters_of_lead(byte);
                at += 1;
            }
        }
    }

    /// Adds what another tally counted.
    pub fn merge(&mut self, other: Self) {
        self.quarters += other.quarters;
    }

    /// Adds whole tokens, for what costs tokens without being text.
    pub fn add_tokens(&mut self, tokens: u64) {
        self.quarters += tokens * 4;
    }

    /// The estimate in tokens, rounded up.
    pub fn tokens(&self) -> u64 {
        self.quarters.div_ceil(4)
    }
}

/// Quarters of a token that a character costs, by its first byte; its other bytes cost nothing.
fn quarters_of_lead(byte: u8) -> u64 {
    match byte {
        0x00..=0x7f => 1,
        // Continuation bytes.
        0x80..=0xbf => 0,
        // Two bytes: accented Latin, Greek, Cyrillic, Hebrew, Arabic.
        0xc0..=0xdf => 2,
        // Three bytes: mostly Chinese, Japanese, Korean, where a character is about a token.
        0xe0..=0xef => 4,
        // Four bytes: emoji and rare scripts.
        0xf0..=0xff => 8,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(text: &str) -> u64 {
        let mut tally = TextTally::default();
        tally.add(text);
        tally.tokens()
    }

    #[test]
    fn scripts_have_their_own_weight() {
        assert_eq!(tokens("four char acter s..."), 5);
        assert_eq!(tokens("привет"), 3);
        assert_eq!(tokens("東京都"), 3);
        assert_eq!(tokens("🦀"), 2);
        assert_eq!(tokens(""), 0);
    }

    #[test]
    fn an_escape_counts_as_the_character_it_stands_for() {
        let mut tally = TextTally::default();
        tally.add_json_escaped(br#"a\nb\"c\u6771"#);
        assert_eq!(tally.quarters, 5 + 3);
    }

    proptest! {
        #[test]
        fn text_without_escapes_counts_alike_raw_and_decoded(text in "[a-zа-я東京🦀 ]{0,40}") {
            let (mut decoded, mut raw) = (TextTally::default(), TextTally::default());
            decoded.add(&text);
            raw.add_json_escaped(text.as_bytes());
            prop_assert_eq!(decoded, raw);
        }

        #[test]
        fn no_bytes_make_the_raw_count_panic(raw: Vec<u8>) {
            TextTally::default().add_json_escaped(&raw);
        }
    }
}
