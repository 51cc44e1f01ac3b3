//! What is wrong with a configuration, collected so that one start shows everything there is to repair.
//!
//! Every fault names its place, says what is wrong there and, where it can, what to write instead. A fault never
//! carries the value of a setting that may hold a secret; callers keep to that, because only they know which do.

use std::fmt;

/// One thing to repair in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: a dotted path (`server.listen`), the name of a variable, or `file:line` for a mistake in the TOML itself.
    pub at: String,
    /// What is wrong there, as a phrase that follows the place and a colon.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault at `at` without advice.
    pub fn new(at: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            at: at.into(),
            problem: problem.into(),
            hint: None,
        }
    }

    /// The same fault with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault as one of the credential at `place`, which its own place may not name.
    #[must_use]
    pub(super) fn under(mut self, place: &str) -> Self {
        if !self.at.starts_with(place) {
            self.at = format!("{place} in the secret store, read as {}", self.at);
        }
        self
    }

    /// The same fault, with advice if there is any.
    #[must_use]
    pub fn hint_if(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Every fault of a configuration, in the order they were found.
///
/// Displayed as a list for a person: a line with the count, then one line for each fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The faults, in the order they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to repair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one more.
    pub fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }
}

impl Extend<Fault> for Faults {
    fn extend<I: IntoIterator<Item = Fault>>(&mut self, faults: I) {
        self.0.extend(faults);
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            1 => write!(f, "the configuration has one fault:")?,
            count => write!(f, "the configuration has {count} faults:")?,
        }
        for fault in self {
            write!(f, "\n  - {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The known name that `wrong` was probably meant to be, if one is near enough to be worth saying.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // About one slip in three characters; past that a suggestion is a guess and sends people the wrong way.
    let allowed = (wrong.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|name| (slips(wrong, name), name))
        .filter(|(slips, _)| *slips <= allowed)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

/// `did you mean …?` for the nearest known name.
pub fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(wrong, known).map(|name| format!("did you mean {name}?"))
}

/// How many characters must be inserted, removed, replaced or swapped with their neighbour to turn one name into the
/// other. Swaps count once, because they are what fast fingers do.
fn slips(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    // `rows[i][j]`: the slips between the first `i` characters of one name and the first `j` of the other.
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
                let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
                if swapped {
                    best.min(rows[i - 2][j - 2] + 1)
                } else {
                    best
                }
            };
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_read_as_a_list_with_place_problem_and_advice() {
        let mut faults = Faults::from(Fault::new("server.listen", "not an address").hint("write one"));
        faults.push(Fault::new("BONITO_X", "unknown"));
        assert_eq!(
            faults.to_string(),
            "the configuration has 2 faults:\n  - server.listen: not an address; write one\n  - BONITO_X: unknown"
        );
    }

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let known = ["listen", "public_url", "max_connections"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("max_conections", known), Some("max_connections"));
        assert_eq!(nearest("colour", known), None);
    }

    #[test]
    fn slips_are_counted_in_both_directions() {
        assert_eq!(slips("kitten", "sitting"), 3);
        assert_eq!(slips("sitting", "kitten"), 3);
        assert_eq!(slips("", "abc"), 3);
        assert_eq!(slips("same", "same"), 0);
        assert_eq!(slips("modle", "model"), 1);
    }
}
