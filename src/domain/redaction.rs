//! What is taken out of prompts and answers before they are kept.
//!
//! Found by their form alone: an address of a person, the number of a payment card. What does not look like one stays.

use std::borrow::Cow;

/// What stands in the place of an address.
const EMAIL: &str = "[email]";
/// What stands in the place of a card's number.
const CARD: &str = "[card]";
/// Digits of a card's number (ISO/IEC 7812-1).
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// What is taken out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Redaction {
    /// Addresses of e-mail.
    pub emails: bool,
    /// Numbers of payment cards.
    pub card_numbers: bool,
}

impl Redaction {
    /// Whether anything is.
    pub fn is_any(self) -> bool {
        self.emails || self.card_numbers
    }

    /// A text without what is taken out.
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        let mut text = Cow::Borrowed(text);
        if self.emails {
            text = replaced(text, next_email, EMAIL);
        }
        if self.card_numbers {
            text = replaced(text, next_card, CARD);
        }
        text
    }
}

/// A text with everything that `next` finds replaced.
fn replaced<'t>(text: Cow<'t, str>, next: fn(&str, usize) -> Option<(usize, usize)>, with: &str) -> Cow<'t, str> {
    let Some(first) = next(&text, 0) else { return text };
    let (mut out, mut at, mut found) = (String::with_capacity(text.len()), 0, Some(first));
    while let Some((start, end)) = found {
        out.push_str(&text[at..start]);
        out.push_str(with);
        at = end;
        found = next(&text, end);
    }
    out.push_str(&text[at..]);
    Cow::Owned(out)
}

/// The first address from a place on. Linear: every byte is looked at a bounded number of times.
fn next_email(text: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let local = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte);
    let domain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let mut search = from;
    loop {
        let sign = search + memchr::memchr(b'@', &bytes[search..])?;
        let start = bytes[search..sign]
            .iter()
            .rposition(|&byte| !local(byte))
            .map_or(search, |place| search + place + 1);
        let mut end = sign + 1 + bytes[sign + 1..].iter().take_while(|&&byte| domain(byte)).count();
        while end > sign + 1 && b".-".contains(&bytes[end - 1]) {
            end -= 1;
        }
        let name = &text[sign + 1..end];
        let ends_in_letters = name.rsplit_once('.').is_some_and(|(host, top)| {
            !host.is_empty() && top.len() >= 2 && top.bytes().all(|b| b.is_ascii_alphabetic())
        });
        if start < sign && ends_in_letters {
            return Some((start, end));
        }
        search = sign + 1;
    }
}

/// The first card's number from a place on: digits, perhaps with single spaces or hyphens between them, whose last one is
/// right by Luhn's formula.
fn next_card(text: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let (start, mut end, mut digits) = (at, at, Vec::new());
        while at < bytes.len() {
            match bytes[at] {
                byte if byte.is_ascii_digit() => {
                    digits.push(byte - b'0');
                    at += 1;
                    end = at;
                }
                b' ' | b'-' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => at += 1,
                _ => break,
            }
        }
        if CARD_DIGITS.contains(&digits.len()) && is_luhn(&digits) {
            return Some((start, end));
        }
    }
    None
}

fn is_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| {
            let digit = u32::from(digit);
            match (place % 2, digit * 2) {
                (0, _) => digit,
                (_, doubled) if doubled > 9 => doubled - 9,
                (_, doubled) => doubled,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Redaction = Redaction {
        emails: true,
        card_numbers: true,
    };

    #[test]
    fn what_looks_like_one_is_taken_out_and_the_rest_stays() {
        for (text, expected) in [
            ("write to ada.l+x@mail.example.com, please", "write to [email], please"),
            ("a@b.co a@b a@b.c @x.com x@.com", "[email] a@b a@b.c @x.com x@.com"),
            ("{\"to\":\"ada@example.com.\"}", "{\"to\":\"[email].\"}"),
            ("card 4111 1111 1111 1111 ok", "card [card] ok"),
            ("4111-1111-1111-1111", "[card]"),
            ("4111111111111112 1234 2026-11-29", "4111111111111112 1234 2026-11-29"),
            ("zażółć ada@example.com gęślą", "zażółć [email] gęślą"),
        ] {
            assert_eq!(ALL.apply(text), expected);
        }
        assert_eq!(Redaction::default().apply("ada@example.com"), "ada@example.com");
    }

    proptest! {
        #[test]
        fn any_text_survives_and_nothing_is_found_a_second_time(text in "[a-z0-9@. -]{0,60}|\\PC{0,40}") {
            let once = ALL.apply(&text).into_owned();
            prop_assert_eq!(ALL.apply(&once), once.as_str());
        }
    }
}
