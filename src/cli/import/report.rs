//! What became of everything in a file that was imported.

use std::fmt;

/// What became of one thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// It has to be done by a person before the configuration works as before.
    ToDo,
    /// It has no counterpart here, or none that could be found by itself.
    Left,
    /// It is here, and means something slightly different.
    Changed,
    /// It is here.
    Carried,
}

impl Fate {
    /// Every one, in the order a reader wants them.
    const ALL: [Self; 4] = [Self::ToDo, Self::Left, Self::Changed, Self::Carried];

    fn heading(self) -> &'static str {
        match self {
            Self::ToDo => "To be done by you",
            Self::Left => "Not carried over",
            Self::Changed => "Carried over, and different here",
            Self::Carried => "Carried over",
        }
    }
}

/// Where something stood in the file, and what became of it. Never what it said, which may be a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// What became of it.
    pub fate: Fate,
    /// Its place: `model_list[2].litellm_params.rpm`.
    pub at: String,
    /// The sentence about it.
    pub said: String,
}

/// Everything of a file, in its order.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// The lines.
    pub lines: Vec<Line>,
}

impl Report {
    /// Adds a line.
    pub fn add(&mut self, fate: Fate, at: impl Into<String>, said: impl Into<String>) {
        let (at, said) = (at.into(), said.into());
        self.lines.push(Line { fate, at, said });
    }

    /// How many lines have this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.lines.iter().filter(|line| line.fate == fate).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fate in Fate::ALL {
            let mut lines = self.lines.iter().filter(|line| line.fate == fate).peekable();
            if lines.peek().is_none() {
                continue;
            }
            writeln!(f, "## {}\n", fate.heading())?;
            for line in lines {
                writeln!(f, "* `{}`: {}", line.at, line.said)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
