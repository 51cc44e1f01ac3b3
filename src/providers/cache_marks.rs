//! What holds for the marks of a cache wherever prompts are cached by Claude's rules: by Anthropic, and by Bedrock, whose
//! points mean the same.
//!
//! # Source
//! "Prompt caching" of Anthropic's documentation, <https://platform.claude.com/docs/en/build-with-claude/prompt-caching>,
//! and of the Amazon Bedrock user guide, <https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html>.

use crate::chat::conversation::CacheMark;

/// The most marks that a request may hold.
pub const MAX_MARKS: usize = 4;

/// What becomes of a prompt's marks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Each mark in the order of the prompt; `None` where it has to go.
    pub marks: Vec<Option<CacheMark>>,
    /// Whether there are too many of them.
    pub has_surplus: bool,
    /// Whether one for an hour has become one for minutes.
    pub has_shortened: bool,
}

/// Holds marks to the rules. Of too many the last are kept, since they cover the most; and none for an hour may stand behind
/// one for minutes.
pub fn held(marks: &[CacheMark]) -> Held {
    let surplus = marks.len().saturating_sub(MAX_MARKS);
    let mut minutes = false;
    let mut has_shortened = false;
    let kept = marks.iter().enumerate().map(|(at, &mark)| {
        if at < surplus {
            return None;
        }
        let shortened = minutes && mark == CacheMark::OneHour;
        has_shortened |= shortened;
        minutes |= mark == CacheMark::FiveMinutes;
        Some(if shortened { CacheMark::FiveMinutes } else { mark })
    });
    Held {
        marks: kept.collect(),
        has_surplus: surplus > 0,
        has_shortened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_marks_stay_the_last_ones_and_no_hour_stands_behind_minutes() {
        let (hour, minutes) = (CacheMark::OneHour, CacheMark::FiveMinutes);
        let of = |marks: &[CacheMark]| held(marks).marks;
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[hour, hour, minutes]), [Some(hour), Some(hour), Some(minutes)]);
        // What goes counts no more: behind it an hour may stand.
        assert_eq!(
            held(&[minutes, hour, minutes, hour, minutes]),
            Held {
                marks: vec![None, Some(hour), Some(minutes), Some(minutes), Some(minutes)],
                has_surplus: true,
                has_shortened: true,
            }
        );
        let fine = held(&[hour, minutes]);
        assert!(!fine.has_surplus && !fine.has_shortened);
    }
}
