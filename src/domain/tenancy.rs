//! Organizations and the teams in them, as people manage them.

use chrono::{DateTime, Utc};

use super::call::ParameterPolicy;
use super::ids::{OrganizationId, TeamId};
use super::scope::Scope;

/// Requests per minute that a key may have at most, unless its organization has another ceiling.
pub const DEFAULT_RATE_LIMIT_CEILING: u32 = 10_000;
/// The highest ceiling an organization can be given.
pub const MAX_RATE_LIMIT_CEILING: u32 = 10_000_000;
/// Longest short name, in characters.
pub const MAX_SLUG_CHARS: usize = 64;
/// Longest name for people, in characters.
pub const MAX_NAME_CHARS: usize = 128;

/// An organization.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Its short name, which stays: paths of its credentials hold it.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// What its keys may use.
    pub scope: Scope,
    /// What becomes of parameters that a provider cannot express; `None`: what the gateway's setting says.
    pub parameter_policy: Option<ParameterPolicy>,
    /// Whether it may use the shared credentials.
    pub shared_credentials: bool,
    /// The most requests per minute that its keys may have; `None`: [`DEFAULT_RATE_LIMIT_CEILING`].
    pub rate_limit_ceiling: Option<u32>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// An organization to be created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewOrganization {
    /// Its id.
    pub id: OrganizationId,
    /// Its short name.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// What its keys may use.
    pub scope: Scope,
    /// What becomes of parameters that a provider cannot express.
    pub parameter_policy: Option<ParameterPolicy>,
    /// Whether it may use the shared credentials.
    pub shared_credentials: bool,
    /// The most requests per minute that its keys may have.
    pub rate_limit_ceiling: Option<u32>,
}

/// What is to be changed about an organization; `None`: stays as it is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OrganizationChange {
    /// Its name for people.
    pub name: Option<String>,
    /// What its keys may use.
    pub scope: Option<Scope>,
    /// What becomes of parameters that a provider cannot express.
    pub parameter_policy: Option<Option<ParameterPolicy>>,
    /// Whether it may use the shared credentials. A platform admin's.
    pub shared_credentials: Option<bool>,
    /// The most requests per minute that its keys may have. A platform admin's.
    pub rate_limit_ceiling: Option<Option<u32>>,
}

/// What became of creating, changing or deleting an organization.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OrganizationChanged {
    /// It was done; this is what it is, or was.
    Done(Organization),
    /// There is none.
    NoSuchOrganization,
    /// Another one has that short name.
    SlugTaken,
    /// So many of its things are in the way of deleting it.
    Needed(Vec<Needed>),
}

/// A team.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Team {
    /// Its id.
    pub id: TeamId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Its short name, unique in the organization, which stays: rules hold it.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// What its keys may use.
    pub scope: Scope,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// What is to be changed about a team; `None`: stays as it is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TeamChange {
    /// Its name for people.
    pub name: Option<String>,
    /// What its keys may use.
    pub scope: Option<Scope>,
}

/// What became of creating, changing or deleting a team.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TeamChanged {
    /// It was done; this is what it is, or was.
    Done(Team),
    /// The organization has no such team.
    NoSuchTeam,
    /// There is no such organization.
    NoSuchOrganization,
    /// Another one of the organization has that short name.
    SlugTaken,
    /// So many things are in the way of deleting it.
    Needed(Vec<Needed>),
}

/// Things that need what was to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needed {
    /// What they are: `keys that are not revoked`.
    pub what: &'static str,
    /// How many; 0: some.
    pub count: u64,
}

/// What is wrong with a short name, without its subject; `None`: nothing.
pub fn slug_problem(slug: &str) -> Option<&'static str> {
    let of_slugs = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edges = slug.starts_with('-') || slug.ends_with('-');
    (slug.is_empty() || slug.len() > MAX_SLUG_CHARS || edges || !slug.chars().all(of_slugs))
        .then_some("must have 1 to 64 lower-case letters, digits and hyphens, without a hyphen at either end")
}

/// What is wrong with a name for people, without its subject; `None`: nothing.
pub fn name_problem(name: &str) -> Option<&'static str> {
    let wrong = name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control);
    wrong.then_some("must have 1 to 128 printable characters")
}

/// What is in the way of deleting something, in words: `2 teams and 1 budget`.
pub fn in_words(needed: &[Needed]) -> String {
    let each = needed.iter().map(|needed| match needed.count {
        0 => needed.what.to_owned(),
        count => format!("{count} {}", needed.what),
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_fits_into_a_path() {
        for good in ["a", "team-7", "0", &"x".repeat(64)] {
            assert_eq!(slug_problem(good), None, "{good}");
        }
        for bad in ["", "A", "a b", "-a", "a-", "ä", "a/b", "..", &"x".repeat(65)] {
            assert!(slug_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_for_people() {
        assert_eq!(name_problem("Größere Sache (2)"), None);
        for bad in ["", "  ", "a\nb", &"x".repeat(129)] {
            assert!(name_problem(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_in_the_way_is_counted() {
        let needed = [
            Needed {
                what: "teams",
                count: 2,
            },
            Needed {
                what: "other things",
                count: 0,
            },
        ];
        assert_eq!(in_words(&needed), "2 teams, other things");
    }
}
