//! Tables as CSV (RFC 4180) that spreadsheets cannot be made to run.
//!
//! A cell that begins like a formula is executed when the file is opened, and a model's name or a tag is what somebody
//! else wrote. Such a cell gets an apostrophe in front, which spreadsheets take for "this is text".
//!
//! # Source
//! OWASP, "CSV Injection" (<https://owasp.org/www-community/attacks/CSV_Injection>): the characters, and the apostrophe.

/// A table under way.
#[derive(Default, Debug)]
pub struct Csv(String);

impl Csv {
    /// Adds a line.
    pub fn line<'c>(&mut self, cells: impl IntoIterator<Item = Cell<'c>>) {
        let mut first = true;
        for cell in cells {
            if !first {
                self.0.push(',');
            }
            first = false;
            match cell {
                Cell::Empty => {}
                Cell::Number(number) => self.0.push_str(&number.to_string()),
                Cell::Share(share) => self.0.push_str(&format!("{share:.6}")),
                Cell::Text(text) => self.text(text),
                Cell::Owned(text) => self.text(&text),
            }
        }
        self.0.push_str("\r\n");
    }

    fn text(&mut self, text: &str) {
        let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
        let quoted = formula || text.contains([',', '"', '\r', '\n', ';', '\t']);
        if !quoted {
            self.0.push_str(text);
            return;
        }
        self.0.push('"');
        if formula {
            self.0.push('\'');
        }
        self.0.push_str(&text.replace('"', "\"\""));
        self.0.push('"');
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.0)
    }
}

/// One cell.
#[derive(Clone, Debug)]
pub enum Cell<'c> {
    /// Nothing.
    Empty,
    /// A whole number.
    Number(i64),
    /// A part of one.
    Share(f64),
    /// Text.
    Text(&'c str),
    /// Text of its own.
    Owned(String),
}

impl<'c> From<&'c str> for Cell<'c> {
    fn from(text: &'c str) -> Self {
        Self::Text(text)
    }
}

impl<'c> From<&'c String> for Cell<'c> {
    fn from(text: &'c String) -> Self {
        Self::Text(text)
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text)
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for Cell<'_> {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<f64> for Cell<'_> {
    fn from(share: f64) -> Self {
        Self::Share(share)
    }
}

impl From<bool> for Cell<'_> {
    fn from(yes: bool) -> Self {
        Self::Text(if yes { "true" } else { "false" })
    }
}

impl<'c, T: Into<Cell<'c>>> From<Option<T>> for Cell<'c> {
    fn from(maybe: Option<T>) -> Self {
        maybe.map_or(Self::Empty, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> String {
        let mut csv = Csv::default();
        csv.line([text.into(), 7_i64.into()]);
        csv.take()
    }

    /// The first cell of a line, as RFC 4180 reads it.
    fn read(line: &str) -> String {
        let Some(rest) = line.strip_prefix('"') else {
            return line.split(',').next().unwrap().to_owned();
        };
        let mut cell = String::new();
        let mut chars = rest.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if chars.peek() == Some(&'"') => cell.push(chars.next().unwrap()),
                '"' => return cell,
                c => cell.push(c),
            }
        }
        panic!("{line:?} does not end")
    }

    #[test]
    fn what_begins_like_a_formula_is_text() {
        assert_eq!(line("=1+1"), "\"'=1+1\",7\r\n");
        for text in ["=cmd|' /C calc'!A0", "+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "＝1"] {
            assert!(read(&line(text)).starts_with('\''), "{text}");
        }
        assert_eq!(line("gpt-4o"), "gpt-4o,7\r\n");
        assert_eq!(line("a \"b\", c"), "\"a \"\"b\"\", c\",7\r\n");
    }

    proptest! {
        #[test]
        fn every_text_is_read_as_it_was_and_never_as_a_formula(text in "\\PC{0,20}|[=+@\\-\t\r\n,;\"a]{0,8}") {
            let cell = read(&line(&text));
            prop_assert_eq!(cell.strip_prefix('\'').filter(|_| !text.starts_with('\'')).unwrap_or(&cell), &text);
            prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']));
        }
    }
}
