//! Of what sums are kept: of everything together, by each dimension, and by all of them.
//!
//! Every cut has each request in exactly one cell. A question is answered from the coarsest cut that can: who asks for a
//! month by model reads a few hundred cells, however many keys there are.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::figures::{Counted, Figures};

/// By what requests are told apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cut {
    /// By nothing but their organization.
    Nothing,
    /// By key.
    Key,
    /// By team.
    Team,
    /// By provider.
    Provider,
    /// By model.
    Model,
    /// By all of these.
    Everything,
}

impl Cut {
    /// Every cut but the finest, from which they are made.
    pub const COARSE: [Self; 5] = [Self::Nothing, Self::Key, Self::Team, Self::Provider, Self::Model];

    /// The text form, in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Key => "key",
            Self::Team => "team",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Everything => "everything",
        }
    }

    /// The cut with a text form.
    pub fn parse(text: &str) -> Option<Self> {
        let all = Self::COARSE.into_iter().chain([Self::Everything]);
        all.into_iter().find(|cut| cut.as_str() == text)
    }

    /// The coarsest cut that tells apart what both do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, cut) | (cut, Self::Nothing) => cut,
            (one, other) if one == other => one,
            _ => Self::Everything,
        }
    }
}

/// What the requests of a cell have in common. What its cut does not tell apart is nil or empty, and so is what a request
/// does not have: a team, a provider that served it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// Whose they are.
    pub organization: Uuid,
    /// By what they were told apart.
    pub cut: Cut,
    /// Their key.
    pub key: Uuid,
    /// Their key's team at the time.
    pub team: Uuid,
    /// Who served them.
    pub provider: String,
    /// Which model.
    pub model: String,
}

impl Cell {
    /// The cell of a coarser cut that this one belongs to.
    #[must_use]
    pub fn in_cut(&self, cut: Cut) -> Self {
        let any = |of: Cut| cut == of || cut == Cut::Everything;
        Self {
            organization: self.organization,
            cut,
            key: if any(Cut::Key) { self.key } else { Uuid::nil() },
            team: if any(Cut::Team) { self.team } else { Uuid::nil() },
            provider: if any(Cut::Provider) {
                self.provider.clone()
            } else {
                String::new()
            },
            model: if any(Cut::Model) {
                self.model.clone()
            } else {
                String::new()
            },
        }
    }
}

/// The sums of a span of time.
#[derive(Clone, Default, Debug)]
pub struct Cells(BTreeMap<Cell, Figures>);

impl Cells {
    /// Counts a request in its finest cell; [`Cells::complete`] makes the others.
    pub fn count(&mut self, cell: Cell, one: &Counted) {
        self.0.entry(cell).or_default().count(one);
    }

    /// Adds sums to a cell.
    pub fn merge(&mut self, cell: Cell, figures: &Figures) {
        self.0.entry(cell).or_default().merge(figures);
    }

    /// Makes the coarse cuts out of the finest one.
    #[must_use]
    pub fn complete(self) -> Self {
        let mut all = Self::default();
        for (cell, figures) in self.0 {
            for cut in Cut::COARSE {
                all.merge(cell.in_cut(cut), &figures);
            }
            all.merge(cell, &figures);
        }
        all
    }

    /// Every cell with its sums.
    pub fn iter(&self) -> impl Iterator<Item = (&Cell, &Figures)> {
        self.0.iter()
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there was no request.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests() -> impl Strategy<Value = Vec<(u8, u8, u8, u8, i64, bool)>> {
        prop::collection::vec(
            (0..3_u8, 0..4_u8, 0..3_u8, 0..3_u8, 0..1_000_000_i64, any::<bool>()),
            0..60,
        )
    }

    proptest! {
        #[test]
        fn every_cut_has_every_request_once(requests in requests()) {
            let mut cells = Cells::default();
            let mut all = Figures::default();
            for (organization, key, provider, model, cost, failed) in requests {
                let one = Counted {
                    error_class: failed.then(|| "timeout".to_owned()),
                    cost_nanousd: cost, input_tokens: 3, latency_us: cost, attempts: 1, ..Counted::default()
                };
                let cell = Cell {
                    organization: Uuid::from_u128(organization.into()), cut: Cut::Everything,
                    key: Uuid::from_u128(key.into()), team: Uuid::from_u128((key / 2).into()),
                    provider: provider.to_string(), model: model.to_string(),
                };
                all.count(&one);
                cells.count(cell, &one);
            }
            let cells = cells.complete();
            for cut in Cut::COARSE.into_iter().chain([Cut::Everything]) {
                let mut sum = Figures::default();
                cells.iter().filter(|(cell, _)| cell.cut == cut).for_each(|(_, figures)| sum.merge(figures));
                prop_assert_eq!(sum.sums(), all.sums());
                prop_assert_eq!(&sum.errors, &all.errors);
                prop_assert_eq!(sum.latency.quantile(0.95), all.latency.quantile(0.95));
            }
        }
    }

    #[test]
    fn two_dimensions_need_the_finest_cut() {
        assert_eq!(Cut::Nothing.and(Cut::Key), Cut::Key);
        assert_eq!(Cut::Key.and(Cut::Key), Cut::Key);
        assert_eq!(Cut::Key.and(Cut::Model), Cut::Everything);
        for cut in Cut::COARSE.into_iter().chain([Cut::Everything]) {
            assert_eq!(Cut::parse(cut.as_str()), Some(cut));
        }
    }
}
