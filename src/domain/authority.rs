//! How far somebody's hand reaches over keys, limits and budgets, and that nobody gives out more than they hold.
//!
//! `role` says who may do such a thing at all; here is to which keys they may do it ([`Authority`]), and what they may
//! give to a key ([`Holdings`]). What a key may really do is decided for each request by all scopes and limits above it;
//! this is so that nobody writes down what would never be true, or would become true by somebody else's change.

use super::budget::calendar::Period;
use super::ids::{TeamId, UserId};
use super::limit::{LimitKind, LimitValues};
use super::managed_key::KeyReach;
use super::money::NanoUsd;
use super::role::Role;
use super::scope::{Scope, matches};
use super::tenancy::DEFAULT_RATE_LIMIT_CEILING;

/// Who somebody is, as far as keys, limits and budgets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Authority {
    /// What they are in the organization.
    pub role: Role,
    /// Which user they are; `None`: a token without one.
    pub user: Option<UserId>,
    /// The team they belong to.
    pub team: Option<TeamId>,
}

impl Authority {
    /// Whose keys they may see; `None`: nobody's.
    pub fn sees(&self) -> Option<KeyReach> {
        match self.role {
            Role::PlatformAdmin | Role::Owner | Role::Admin | Role::Viewer => Some(KeyReach::Organization),
            Role::TeamAdmin => self.team.map(KeyReach::Team),
            Role::Member => self.user.map(KeyReach::Own),
        }
    }

    /// Whose keys they may change; `None`: nobody's.
    pub fn changes(&self) -> Option<KeyReach> {
        match self.role {
            Role::Viewer => None,
            _ => self.sees(),
        }
    }

    /// Whether what they may give is bounded by what their team holds.
    pub fn is_bounded(&self) -> bool {
        matches!(self.role, Role::TeamAdmin | Role::Member)
    }
}

/// What those who are bounded hold, and so the most they can give.
#[derive(Clone, PartialEq, Debug)]
pub struct Holdings {
    /// What they may use, each scope with whose it is: `team`, `organization`.
    pub scopes: Vec<(&'static str, Scope)>,
    /// What limits them all together; the strictest of team and organization.
    pub limits: LimitValues,
    /// The hard budgets that hold for all of them, by their period.
    pub budgets: Vec<(Period, NanoUsd)>,
    /// The most requests per minute of any key of the organization.
    pub max_rate_limit: u32,
}

impl Default for Holdings {
    fn default() -> Self {
        Self {
            scopes: Vec::new(),
            limits: LimitValues::default(),
            budgets: Vec::new(),
            max_rate_limit: DEFAULT_RATE_LIMIT_CEILING,
        }
    }
}

/// Something that is given to a key.
#[derive(Clone, Debug)]
pub enum Given<'g> {
    /// What it may use.
    Scope(&'g Scope),
    /// Its requests per minute.
    RateLimit(u32),
    /// What limits it besides.
    Limits(&'g LimitValues),
    /// A budget of its own: its place in the list, its period and its amount.
    Budget(usize, Period, NanoUsd),
}

/// Something in a body that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldFault {
    /// Where, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong, as a sentence without its subject.
    pub problem: String,
}

impl FieldFault {
    /// A fault at a place.
    pub fn new(pointer: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            problem: problem.into(),
        }
    }
}

impl Holdings {
    /// What of `given` is more than they hold.
    pub fn exceeded_by(&self, given: &Given<'_>) -> Vec<FieldFault> {
        match given {
            Given::Scope(scope) => self.exceeded_by_scope(scope),
            Given::RateLimit(requests) => {
                let requests = u64::from(*requests);
                let ceiling = u64::from(self.max_rate_limit);
                let team = self.limits.requests;
                let problem = if requests > ceiling {
                    format!("a key of this organization may have at most {ceiling} requests per minute")
                } else if let Some(most) = team.filter(|most| requests > *most) {
                    format!("is more than the {most} requests per minute that you may give")
                } else {
                    return Vec::new();
                };
                vec![FieldFault::new("/rate_limit", problem)]
            }
            Given::Limits(values) => LimitKind::ALL
                .into_iter()
                .filter_map(|kind| {
                    let (given, most) = (values.of(kind)?, self.limits.of(kind)?);
                    let problem = format!("is more than the {most} {} that you may give", kind.words());
                    (given > most).then(|| FieldFault::new(format!("/limits/{}", kind.field()), problem))
                })
                .collect(),
            Given::Budget(place, period, amount) => {
                let above = self
                    .budgets
                    .iter()
                    .filter(|(same, most)| same == period && most < amount);
                let least = above.map(|(_, most)| *most).min();
                let problem =
                    |most: NanoUsd| format!("is more than the {most} USD {} that you may give", period.spoken());
                least
                    .map(|most| FieldFault::new(format!("/budgets/{place}/amount_usd"), problem(most)))
                    .into_iter()
                    .collect()
            }
        }
    }

    fn exceeded_by_scope(&self, scope: &Scope) -> Vec<FieldFault> {
        let mut faults = Vec::new();
        for (whose, above) in &self.scopes {
            let lists = [
                ("models", scope.models(), above.models()),
                ("providers", scope.providers(), above.providers()),
            ];
            for (list, given, held) in lists {
                let outside = |entry: &&String| !held.is_empty() && !held.iter().any(|own| covers(own, entry));
                for (place, entry) in given.iter().enumerate().filter(|(_, entry)| outside(entry)) {
                    let problem = format!("{entry:?} is outside of what the {whose} may use");
                    faults.push(FieldFault::new(format!("/allowed_models/{list}/{place}"), problem));
                }
            }
        }
        faults
    }
}

/// Whether everything that `inner` matches is matched by `outer`, both being names or globs. A star of the inner one can
/// only be matched by one of the outer one, so comparing them as texts never says yes too often.
pub fn covers(outer: &str, inner: &str) -> bool {
    matches(outer, inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn scope(models: &[&str], providers: &[&str]) -> Scope {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Scope::new(list(models), list(providers))
    }

    #[test]
    fn everybody_reaches_as_far_as_their_role_says() {
        let (user, team) = (UserId(Uuid::from_u128(1)), TeamId(Uuid::from_u128(2)));
        let of = |role| Authority {
            role,
            user: Some(user),
            team: Some(team),
        };
        use KeyReach::{Organization, Own, Team};
        for (role, sees, changes) in [
            (Role::PlatformAdmin, Some(Organization), Some(Organization)),
            (Role::Owner, Some(Organization), Some(Organization)),
            (Role::Admin, Some(Organization), Some(Organization)),
            (Role::TeamAdmin, Some(Team(team)), Some(Team(team))),
            (Role::Member, Some(Own(user)), Some(Own(user))),
            (Role::Viewer, Some(Organization), None),
        ] {
            assert_eq!((of(role).sees(), of(role).changes()), (sees, changes), "{role}");
        }
        let nobody = |role| Authority {
            role,
            user: None,
            team: None,
        };
        assert_eq!(
            nobody(Role::TeamAdmin).sees(),
            None,
            "a team admin without a team has none"
        );
        assert_eq!(nobody(Role::Member).sees(), None);
    }

    #[test]
    fn nobody_gives_more_than_they_hold() {
        let holdings = Holdings {
            scopes: vec![
                ("team", scope(&["claude-*", "gpt-4o"], &[])),
                ("organization", scope(&[], &["aws", "openai"])),
            ],
            limits: LimitValues {
                requests: Some(100),
                concurrency: Some(5),
                ..LimitValues::default()
            },
            budgets: vec![(Period::Monthly, NanoUsd(50)), (Period::Monthly, NanoUsd(70))],
            max_rate_limit: 10_000,
        };
        fn faults(holdings: &Holdings, given: &Given<'_>) -> Vec<String> {
            holdings
                .exceeded_by(given)
                .into_iter()
                .map(|fault| fault.pointer)
                .collect()
        }
        let faults = |given: Given<'_>| faults(&holdings, &given);
        assert!(
            faults(Given::Scope(&scope(&[], &[]))).is_empty(),
            "what is not narrowed follows those above"
        );
        assert!(faults(Given::Scope(&scope(&["claude-3*", "gpt-4o"], &["bedrock"]))).is_empty());
        assert_eq!(
            faults(Given::Scope(&scope(&["claude-opus", "gpt-*", "*"], &["azure"]))),
            [
                "/allowed_models/models/1",
                "/allowed_models/models/2",
                "/allowed_models/providers/0"
            ]
        );
        assert!(faults(Given::RateLimit(100)).is_empty());
        assert_eq!(faults(Given::RateLimit(101)), ["/rate_limit"]);
        let limits = LimitValues {
            concurrency: Some(6),
            tokens: Some(1_000_000),
            ..LimitValues::default()
        };
        assert_eq!(faults(Given::Limits(&limits)), ["/limits/concurrency"]);
        assert!(faults(Given::Budget(0, Period::Monthly, NanoUsd(50))).is_empty());
        assert_eq!(
            faults(Given::Budget(1, Period::Monthly, NanoUsd(51))),
            ["/budgets/1/amount_usd"]
        );
        assert!(
            faults(Given::Budget(0, Period::Daily, NanoUsd(51))).is_empty(),
            "the month's holds all the same"
        );
        assert_eq!(Holdings::default().exceeded_by(&Given::RateLimit(10_001)).len(), 1);
    }

    proptest! {
        #[test]
        fn a_glob_that_covers_another_matches_whatever_that_one_matches(
            outer in "[ab*]{0,5}", inner in "[ab*]{0,5}", name in "[ab]{0,6}",
        ) {
            if covers(&outer, &inner) && matches(&inner, &name) {
                prop_assert!(matches(&outer, &name), "{} {} {}", outer, inner, name);
            }
        }
    }
}
