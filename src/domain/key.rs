//! A key as it is stored: everything about it but its secret.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde_json::Value;

use super::budget::Budget;
use super::call::ParameterPolicy;
use super::ids::{KeyId, OrganizationId, TeamId, UserId};
use super::limit::LimitRule;
use super::scope::Scope;

/// A key to be created. The secret is not part of it.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Its team, by id.
    pub team: Option<TeamId>,
    /// The user it belongs to.
    pub owner: Option<UserId>,
    /// Name for people.
    pub name: String,
    /// The first characters, for display.
    pub prefix: String,
    /// Keyed hash of the whole key.
    pub hash: KeyHash,
    /// Its scope.
    pub scope: Scope,
    /// Requests per minute.
    pub rate_limit: u32,
    /// What becomes of parameters that a provider cannot express; `None` where its organization is to say.
    pub parameter_policy: Option<ParameterPolicy>,
    /// How long answers are kept for it; zero: not at all; `None`: as everywhere.
    pub cache_ttl: Option<Duration>,
    /// The longest answer it may ask for, in tokens; `None`: as long as the model can.
    pub max_output_tokens: Option<u64>,
    /// What its owner wants to remember about it: an object. Its pairs are the key's tags.
    pub metadata: Value,
    /// The networks it may be used from; none: from everywhere.
    pub allowed_ips: Vec<IpNet>,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A team to be created.
#[derive(Clone, Debug)]
pub struct NewTeam {
    /// Its id.
    pub id: TeamId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Short name, unique in the organization.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// What its keys may use at most.
    pub scope: Scope,
}

/// The number of a change to keys, to teams or to organizations. A later change has a higher one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Revision(pub i64);

/// The keyed hash of a key's secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The form the database keeps.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// The hash of that form; `None`: it is not one.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// A name and an id: an organization or a team as a key's owner sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named<Id> {
    /// Its id.
    pub id: Id,
    /// Its short name.
    pub slug: String,
    /// Its name for people.
    pub name: String,
}

/// A key as it is stored, with the scopes that apply to it.
#[derive(Clone, Debug)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub organization: Named<OrganizationId>,
    /// Whether its organization may use the credentials that are shared by all.
    pub shared_credentials: bool,
    /// Its team.
    pub team: Option<Named<TeamId>>,
    /// The user it belongs to.
    pub owner: Option<UserId>,
    /// Name for people.
    pub name: String,
    /// The first characters, for display.
    pub prefix: String,
    /// The key's own scope.
    pub scope: Scope,
    /// Every scope a request has to satisfy: the key's, its team's, its organization's; without those that allow all.
    pub scopes: Vec<Arc<Scope>>,
    /// Requests per minute.
    pub rate_limit: u32,
    /// The budgets its calls count against, in the order of their ids.
    pub budgets: Vec<Arc<Budget>>,
    /// What the key itself says about parameters that a provider cannot express.
    pub parameter_policy: Option<ParameterPolicy>,
    /// What holds for them: the stricter of what the key and its organization say; `None` where neither says anything.
    pub parameters: Option<ParameterPolicy>,
    /// How long answers are kept for it; zero: not at all; `None`: as everywhere.
    pub cache_ttl: Option<Duration>,
    /// The longest answer it may ask for, in tokens; `None`: as long as the model can.
    pub max_output_tokens: Option<u64>,
    /// The limits in force for its requests besides: its own, its team's, its organization's.
    pub limits: Vec<LimitRule>,
    /// What its owner wants to remember about it.
    pub metadata: Value,
    /// The networks it may be used from; none: from everywhere.
    pub allowed_ips: Vec<IpNet>,
    /// Whether it is switched off for the time being.
    pub disabled: bool,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// The secret before the last rotation: its hash, and until when it works.
    pub previous: Option<(KeyHash, DateTime<Utc>)>,
    /// Every change up to this one is in here: of the key, its team and its organization.
    pub revision: Revision,
}

/// A key as routing sees it: what rules may know of it, and what it may use.
#[derive(Clone, Debug)]
pub struct RoutedKey {
    /// Its id.
    pub id: KeyId,
    /// Name for people.
    pub name: String,
    /// Its team's short name.
    pub team: Option<String>,
    /// What its owner wants to remember about it.
    pub metadata: Value,
    /// Every scope a request has to satisfy.
    pub scopes: Vec<Arc<Scope>>,
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_hash_survives_being_written_and_read(bytes: [u8; 32], other in "[0-9a-fé]{0,66}") {
            let hash = KeyHash(bytes);
            prop_assert_eq!(KeyHash::from_hex(&hash.to_hex()), Some(hash));
            let read = KeyHash::from_hex(&other);
            prop_assert!(read.is_none_or(|read| read.to_hex() == other));
        }
    }
}
