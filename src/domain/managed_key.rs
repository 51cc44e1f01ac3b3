//! Keys as those see them who manage them: what is shown of a key, what can be changed of it, and how lists are narrowed.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::authority::FieldFault;
use super::call::{MAX_OUTPUT_TOKENS, ParameterPolicy};
use super::ids::{KeyId, TeamId, UserId};
use super::key::Named;
use super::restraint::Restraints;
use super::scope::Scope;

/// Longest name of a key, in characters.
pub const MAX_NAME_CHARS: usize = 128;
/// Most tags of a key.
pub const MAX_TAGS: usize = 64;
/// Longest name of a tag, in bytes.
pub const MAX_TAG_NAME_BYTES: usize = 64;
/// Longest value of a tag, in bytes.
pub const MAX_TAG_VALUE_BYTES: usize = 256;
/// Most entries of each of a scope's lists.
pub const MAX_SCOPE_ENTRIES: usize = 256;
/// Longest entry of a scope, in bytes, as in requests.
pub const MAX_SCOPE_ENTRY_BYTES: usize = 256;
/// The longest a secret may work after its key was rotated.
pub const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long it does unless somebody says otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 3_600);
/// The longest its answers may be kept.
pub const MAX_CACHE_TTL: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Whether a key works.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum KeyState {
    /// It does.
    Active,
    /// It is switched off for the time being.
    Disabled,
    /// Its time is over.
    Expired,
    /// It was revoked, for good.
    Revoked,
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Active, Self::Disabled, Self::Expired, Self::Revoked];

    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    /// The state with a text form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The state of a key of which this is known. What is final comes first.
    pub fn of(
        disabled: bool,
        expires_at: Option<DateTime<Utc>>,
        revoked_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Self {
        if revoked_at.is_some() {
            Self::Revoked
        } else if expires_at.is_some_and(|end| end <= now) {
            Self::Expired
        } else if disabled {
            Self::Disabled
        } else {
            Self::Active
        }
    }
}

/// A key without its secret.
#[derive(Clone, PartialEq, Debug)]
pub struct ManagedKey {
    /// Its id.
    pub id: KeyId,
    /// Name for people.
    pub name: String,
    /// The first characters, for display.
    pub prefix: String,
    /// Its team.
    pub team: Option<Named<TeamId>>,
    /// The user it belongs to.
    pub owner: Option<UserId>,
    /// Its own scope.
    pub scope: Scope,
    /// Requests per minute.
    pub rate_limit: u32,
    /// What it says about parameters that a provider cannot express.
    pub parameter_policy: Option<ParameterPolicy>,
    /// How long answers are kept for it; zero: not at all; `None`: as everywhere.
    pub cache_ttl: Option<Duration>,
    /// The longest answer it may ask for, in tokens; `None`: as long as the model can.
    pub max_output_tokens: Option<u64>,
    /// Its tags: an object.
    pub metadata: Value,
    /// The networks it may be used from; none: from everywhere.
    pub allowed_ips: Vec<IpNet>,
    /// Whether it is switched off for the time being.
    pub disabled: bool,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Until when the secret before the last rotation works.
    pub previous_until: Option<DateTime<Utc>>,
    /// When it was last used.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// Who set what holds it back.
    pub restraints: Restraints,
}

impl ManagedKey {
    /// Whether it works.
    pub fn state(&self, now: DateTime<Utc>) -> KeyState {
        KeyState::of(self.disabled, self.expires_at, self.revoked_at, now)
    }

    /// The key as the audit log keeps it.
    pub fn recorded(&self) -> Value {
        let time = |time: Option<DateTime<Utc>>| time.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
        json!({
            "name": self.name,
            "prefix": self.prefix,
            "team_id": self.team.as_ref().map(|team| team.id.0),
            "owner_id": self.owner.map(|owner| owner.0),
            "allowed_models": {"models": self.scope.models(), "providers": self.scope.providers()},
            "rate_limit": self.rate_limit,
            "parameter_policy": self.parameter_policy.map(ParameterPolicy::as_str),
            "cache_seconds": self.cache_ttl.map(|ttl| ttl.as_secs()),
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata,
            "allowed_ips": self.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "disabled": self.disabled,
            "expires_at": time(self.expires_at),
            "revoked_at": time(self.revoked_at),
            "previous_until": time(self.previous_until),
        })
    }
}

/// What is to become different about a key; `None`: stays as it is.
#[derive(Clone, Default, Debug)]
pub struct KeyChange {
    /// Name for people.
    pub name: Option<String>,
    /// Its team.
    pub team: Option<Option<TeamId>>,
    /// The user it belongs to.
    pub owner: Option<Option<UserId>>,
    /// Its own scope.
    pub scope: Option<Scope>,
    /// Requests per minute.
    pub rate_limit: Option<u32>,
    /// What it says about parameters that a provider cannot express.
    pub parameter_policy: Option<Option<ParameterPolicy>>,
    /// How long answers are kept for it.
    pub cache_ttl: Option<Option<Duration>>,
    /// The longest answer it may ask for.
    pub max_output_tokens: Option<Option<u64>>,
    /// Its tags.
    pub metadata: Option<Value>,
    /// The networks it may be used from.
    pub allowed_ips: Option<Vec<IpNet>>,
    /// Whether it is switched off.
    pub disabled: Option<bool>,
    /// When it stops working.
    pub expires_at: Option<Option<DateTime<Utc>>>,
}

/// What came of issuing or changing a key.
#[derive(Clone, PartialEq, Debug)]
pub enum KeyOutcome {
    /// It is done; the key as it is now.
    Done(Box<ManagedKey>),
    /// There is no such key, or it is out of reach.
    NoSuchKey,
    /// It is revoked, which is for good.
    Revoked,
    /// The organization has no such team.
    NoSuchTeam,
    /// The organization has no such user.
    NoSuchOwner,
    /// It would loosen what somebody with more has set.
    Held(Vec<FieldFault>),
}

/// Which keys are wanted.
#[derive(Clone, Default, Debug)]
pub struct KeyFilter {
    /// Of this team.
    pub team: Option<TeamId>,
    /// Of this user.
    pub owner: Option<UserId>,
    /// With this tag, by its name and its value.
    pub tag: Option<(String, String)>,
    /// In this state.
    pub state: Option<KeyState>,
    /// With this in its name, in large or small letters, or at the beginning of what is shown of its secret.
    pub search: Option<String>,
    /// Older than this one.
    pub after: Option<KeyId>,
    /// So many.
    pub limit: u64,
}

/// Whose keys somebody may see or change. Every query of theirs is narrowed by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyReach {
    /// Those of the whole organization.
    Organization,
    /// Those of a team.
    Team(TeamId),
    /// Those that belong to a user.
    Own(UserId),
}

/// Says what is wrong with a key's name.
///
/// # Errors
/// As a sentence without its subject.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Err(format!("must have 1 to {MAX_NAME_CHARS} printable characters"));
    }
    Ok(())
}

/// Says what is wrong with the longest answer that a key may ask for.
///
/// # Errors
/// As a sentence without its subject.
pub fn check_max_output_tokens(tokens: Option<u64>) -> Result<(), String> {
    match tokens {
        Some(tokens) if !(1..=MAX_OUTPUT_TOKENS).contains(&tokens) => {
            Err(format!("must be 1 to {MAX_OUTPUT_TOKENS} tokens"))
        }
        _ => Ok(()),
    }
}

/// Says what is wrong with the name of a tag. It stands in filters, budgets and limits as `name=value`.
///
/// # Errors
/// As a sentence without its subject.
pub fn check_tag_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:".contains(&byte);
    if name.is_empty() || name.len() > MAX_TAG_NAME_BYTES || !name.bytes().all(plain) {
        return Err(format!(
            "the name of a tag has 1 to {MAX_TAG_NAME_BYTES} letters, digits and _ - . / :"
        ));
    }
    Ok(())
}

/// Says what is wrong with an entry of a scope.
///
/// # Errors
/// As a sentence without its subject.
pub fn check_scope_entry(entry: &str) -> Result<(), String> {
    if entry.trim().is_empty() || entry.len() > MAX_SCOPE_ENTRY_BYTES || entry.chars().any(char::is_control) {
        return Err(format!("must have 1 to {MAX_SCOPE_ENTRY_BYTES} printable characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_state_and_the_final_ones_come_first() {
        let now = Utc::now();
        let past = Some(now);
        let future = Some(now + chrono::TimeDelta::seconds(1));
        assert_eq!(KeyState::of(true, past, past, now), KeyState::Revoked);
        assert_eq!(KeyState::of(true, past, None, now), KeyState::Expired);
        assert_eq!(KeyState::of(true, future, None, now), KeyState::Disabled);
        assert_eq!(KeyState::of(false, future, None, now), KeyState::Active);
        for state in KeyState::ALL {
            assert_eq!(KeyState::parse(state.as_str()), Some(state));
        }
    }

    #[test]
    fn names_and_entries_have_bounds() {
        assert!(check_name("search service").is_ok());
        for bad in ["", "  ", "a\nb", &"x".repeat(MAX_NAME_CHARS + 1)] {
            assert!(check_name(bad).is_err());
        }
        assert!(check_tag_name("cost-center").is_ok());
        for bad in ["", "a=b", "$x", "a\"b", &"x".repeat(MAX_TAG_NAME_BYTES + 1)] {
            assert!(check_tag_name(bad).is_err());
        }
        assert!(check_scope_entry("claude-*").is_ok() && check_scope_entry(" ").is_err());
    }
}
