//! The last look at a line before it is written: what looks like a secret is taken out.
//!
//! Nothing should come so far; nobody logs headers or bodies. This is for the error text of a library, or of a server, that
//! quotes what it was sent. It knows the shapes of our own secrets and of the usual providers', and of bearer tokens.

use std::borrow::Cow;

/// What stands for a secret.
const HIDDEN: &str = "[hidden]";

/// How a secret begins, and how many characters of a secret follow at least. Shorter ones are the beginnings that people see
/// in lists, such as `bn-3f2a…`.
const SHAPES: [(&str, usize); 14] = [
    // Ours: keys of callers, webhooks' secrets, tokens of people.
    ("bn-", 16),
    ("whsec_", 16),
    ("bnr_", 16),
    // JWTs.
    ("eyJ", 24),
    // Providers'. https://docs.github.com/en/code-security/secret-scanning has most of them.
    ("sk-", 12),
    ("gsk_", 16),
    ("xai-", 16),
    ("AIza", 20),
    ("AKIA", 12),
    ("ASIA", 12),
    ("ya29.", 12),
    ("hvs.", 12),
    // In headers and URLs.
    ("earer ", 8),
    ("asic ", 12),
];

/// Whether a secret may begin with a byte.
const BEGINS: [bool; 256] = {
    let mut begins = [false; 256];
    let mut shape = 0;
    while shape < SHAPES.len() {
        begins[SHAPES[shape].0.as_bytes()[0] as usize] = true;
        shape += 1;
    }
    begins
};

/// A line without what looks like a secret.
pub fn redacted(line: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let mut done = 0;
    let mut at = 0;
    while at < line.len() {
        if let Some(length) = secret_at(line, at) {
            kept.push_str(&line[done..at]);
            kept.push_str(HIDDEN);
            at += length;
            done = at;
            continue;
        }
        at += line[at..].chars().next().map_or(1, char::len_utf8);
    }
    if done == 0 {
        return Cow::Borrowed(line);
    }
    kept.push_str(&line[done..]);
    Cow::Owned(kept)
}

/// The length of the secret that begins here, if one does.
fn secret_at(line: &str, at: usize) -> Option<usize> {
    let rest = &line.as_bytes()[at..];
    // Most bytes begin none.
    if !BEGINS[usize::from(*rest.first()?)] {
        return password_at(line, at);
    }
    let (start, least) = SHAPES.iter().find(|(start, _)| rest.starts_with(start.as_bytes()))?;
    // In the middle of a word it is none; a scheme's own first letter may be of either case.
    let before = line[..at].bytes().next_back();
    let inside_a_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric());
    if inside_a_word && !start.ends_with(' ') {
        return None;
    }
    let body = rest[start.len()..].iter().take_while(|byte| is_secret(**byte)).count();
    (body >= *least).then_some(start.len() + body)
}

/// `user:password@` of a URL: the password and the sign behind it.
fn password_at(line: &str, at: usize) -> Option<usize> {
    let rest = line[at..].strip_prefix("://")?;
    let authority = &rest[..rest
        .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace())
        .unwrap_or(rest.len())];
    let (login, _) = authority.rsplit_once('@')?;
    login.contains(':').then_some("://".len() + login.len())
}

fn is_secret(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'/' | b'=' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_taken_out_wherever_it_stands() {
        for (line, expected) in [
            ("key bn-3f2aA9kd83hDkq02kd93hd was refused", "key [hidden] was refused"),
            (
                r#"{"error":"Incorrect API key provided: sk-proj-abcdefghijkl."}"#,
                r#"{"error":"Incorrect API key provided: [hidden]"}"#,
            ),
            ("authorization: Bearer abc.def-ghi_jkl", "authorization: B[hidden]"),
            (
                "postgres://bonito:hunter2@db:5432/bonito is down",
                "postgres[hidden]@db:5432/bonito is down",
            ),
            ("token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "token=[hidden]"),
        ] {
            assert_eq!(redacted(line), expected);
        }
    }

    #[test]
    fn what_does_not_stays() {
        for line in [
            "prefix bn-3f2a is not a key",
            "task-scheduling was late",
            "http://127.0.0.1:8001/v1 answers",
            "the basic form of a bearer",
            "deployment openai/gpt-4o failed 3 times in a row",
        ] {
            assert_eq!(redacted(line), line);
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(line in ".{0,200}") {
            let _ = redacted(&line);
        }

        #[test]
        fn no_key_of_ours_is_left(before in "[ -~]{0,20}", key in "[A-Za-z0-9]{24,48}") {
            let line = format!("{before} bn-{key} after");
            prop_assert!(!redacted(&line).contains(&key));
        }
    }
}
