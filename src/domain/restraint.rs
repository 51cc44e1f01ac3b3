//! What holds a key back, who set it, and who may let it go.
//!
//! A key can be changed by people who hold differently much: a member has their own keys, a team admin those of a team, an
//! admin all. What somebody with more has set, those with less make stricter and never looser ([`Restraints::after`]). What
//! one has set oneself one takes back. So an owner does not shed the end, the networks, the tags or the limits that an admin
//! gave a key, and does not switch on again what an admin switched off.
//!
//! What a key may be given at all is another question, which `authority` answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::authority::{FieldFault, covers};
use super::key::NewKey;
use super::managed_key::{KeyChange, ManagedKey};
use super::role::Role;

/// Who sets something, from those with least to those with most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hand {
    /// Somebody with keys of their own.
    Member,
    /// Somebody with the keys of a team.
    TeamAdmin,
    /// Somebody with all keys of the organization, or a command on the gateway's machine.
    Admin,
}

impl Hand {
    /// The hand of somebody with a role; `None`: of a command.
    pub fn of(role: Option<Role>) -> Self {
        match role {
            None | Some(Role::PlatformAdmin | Role::Owner | Role::Admin) => Self::Admin,
            Some(Role::TeamAdmin) => Self::TeamAdmin,
            Some(Role::Member | Role::Viewer) => Self::Member,
        }
    }

    /// The text form.
    fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::TeamAdmin => "team_admin",
            Self::Admin => "admin",
        }
    }

    /// The hand with a text form. What is not known is taken for the one with most.
    fn parse(text: &str) -> Self {
        let known = [Self::Member, Self::TeamAdmin];
        known
            .into_iter()
            .find(|hand| hand.as_str() == text)
            .unwrap_or(Self::Admin)
    }

    /// Who that is, in a sentence.
    fn words(self) -> &'static str {
        match self {
            Self::Member => "a member",
            Self::TeamAdmin => "a team admin",
            Self::Admin => "an admin",
        }
    }
}

/// Who set what holds a key back, by the pointers of its members. What is not named was set by an admin.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Restraints {
    set_by: BTreeMap<String, Hand>,
}

impl Restraints {
    /// Those of a key that somebody creates.
    pub fn at_creation(key: &NewKey, hand: Hand) -> Self {
        let mut restraints = Self::default();
        let tags = key.metadata.as_object().into_iter().flatten();
        let fields = [
            "/expires_at",
            "/allowed_ips",
            "/rate_limit",
            "/max_output_tokens",
            MODELS,
            PROVIDERS,
        ]
        .map(str::to_owned);
        for pointer in fields.into_iter().chain(tags.map(|(name, _)| tag_at(name))) {
            restraints.set(pointer, hand);
        }
        restraints
    }

    /// Reads them as they are stored.
    pub fn read(stored: Option<&Value>) -> Self {
        let members = stored.and_then(Value::as_object).into_iter().flatten();
        let mut restraints = Self::default();
        for (pointer, hand) in members {
            restraints.set(pointer.clone(), Hand::parse(hand.as_str().unwrap_or_default()));
        }
        restraints
    }

    /// As they are stored; `None`: everything was set by an admin.
    pub fn stored(&self) -> Option<Value> {
        let members = self.set_by.iter();
        let members: Map<String, Value> = members
            .map(|(pointer, hand)| (pointer.clone(), hand.as_str().into()))
            .collect();
        (!members.is_empty()).then(|| members.into())
    }

    /// What they are after a change that somebody makes.
    ///
    /// # Errors
    /// What of the change would loosen what somebody with more has set.
    pub fn after(&self, before: &ManagedKey, change: &KeyChange, hand: Hand) -> Result<Self, Vec<FieldFault>> {
        let mut weighing = Weighing {
            restraints: self.clone(),
            hand,
            faults: Vec::new(),
        };
        if let Some(end) = change.expires_at {
            let turn = Turn {
                same: end == before.expires_at,
                held: before.expires_at.is_some(),
                loosened: before.expires_at.is_some_and(|old| end.is_none_or(|end| end > old)),
            };
            weighing.weigh("/expires_at", turn, "an earlier time can take its place");
        }
        if let Some(networks) = &change.allowed_ips {
            let old = &before.allowed_ips;
            let outside = networks.iter().any(|new| !old.iter().any(|old| old.contains(new)));
            let turn = Turn {
                same: networks == old,
                held: !old.is_empty(),
                loosened: !old.is_empty() && (networks.is_empty() || outside),
            };
            weighing.weigh("/allowed_ips", turn, "networks inside of these can take their place");
        }
        if let Some(disabled) = change.disabled {
            let turn = Turn {
                // Whoever has more and switches off what is off already wants it to stay so.
                same: !disabled && !before.disabled,
                held: before.disabled,
                loosened: before.disabled && !disabled,
            };
            weighing.weigh("/disabled", turn, "they can switch it on");
        }
        if let Some(rate_limit) = change.rate_limit {
            let turn = Turn {
                same: rate_limit == before.rate_limit,
                held: true,
                loosened: rate_limit > before.rate_limit,
            };
            weighing.weigh("/rate_limit", turn, "a lower one can take its place");
        }
        if let Some(most) = change.max_output_tokens {
            let turn = Turn {
                same: most == before.max_output_tokens,
                held: before.max_output_tokens.is_some(),
                loosened: before
                    .max_output_tokens
                    .is_some_and(|old| most.is_none_or(|most| most > old)),
            };
            weighing.weigh("/max_output_tokens", turn, "a lower one can take its place");
        }
        if let Some(scope) = &change.scope {
            let lists = [
                (MODELS, before.scope.models(), scope.models()),
                (PROVIDERS, before.scope.providers(), scope.providers()),
            ];
            for (pointer, old, new) in lists {
                let outside = new.iter().any(|new| !old.iter().any(|old| covers(old, new)));
                let turn = Turn {
                    same: old == new,
                    held: !old.is_empty(),
                    loosened: !old.is_empty() && (new.is_empty() || outside),
                };
                weighing.weigh(pointer, turn, "entries within these can take their place");
            }
        }
        if let Some(metadata) = &change.metadata {
            for (name, old) in before.metadata.as_object().into_iter().flatten() {
                let new = metadata.get(name);
                let turn = Turn {
                    same: new.is_some_and(|new| text_of(new) == text_of(old)),
                    held: true,
                    loosened: true,
                };
                weighing.weigh(&tag_at(name), turn, "it has to stay as it is");
            }
            let added = metadata.as_object().into_iter().flatten();
            for (name, _) in added.filter(|(name, _)| before.metadata.get(name).is_none()) {
                weighing.restraints.set(tag_at(name), hand);
            }
            // Nobody has set a tag that is not there.
            let tags: BTreeSet<String> = metadata
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| tag_at(name))
                .collect();
            let set_by = &mut weighing.restraints.set_by;
            set_by.retain(|pointer, _| !pointer.starts_with(TAGS) || tags.contains(pointer));
        }
        match weighing.faults.is_empty() {
            true => Ok(weighing.restraints),
            false => Err(weighing.faults),
        }
    }

    fn of(&self, pointer: &str) -> Hand {
        self.set_by.get(pointer).copied().unwrap_or(Hand::Admin)
    }

    fn set(&mut self, pointer: String, hand: Hand) {
        if hand == Hand::Admin {
            self.set_by.remove(&pointer);
        } else {
            self.set_by.insert(pointer, hand);
        }
    }
}

/// The lists of a scope.
const MODELS: &str = "/allowed_models/models";
const PROVIDERS: &str = "/allowed_models/providers";
/// Where tags are.
const TAGS: &str = "/metadata/";

/// A change on its way through the members of a key.
struct Weighing {
    restraints: Restraints,
    hand: Hand,
    faults: Vec<FieldFault>,
}

/// What a change makes of one member.
struct Turn {
    /// It stays what it was, and so whose it was.
    same: bool,
    /// It held the key back before.
    held: bool,
    /// It holds less back than it did.
    loosened: bool,
}

impl Weighing {
    fn weigh(&mut self, pointer: &str, turn: Turn, instead: &str) {
        if turn.same {
            return;
        }
        let whose = self.restraints.of(pointer);
        if !turn.held || self.hand >= whose {
            self.restraints.set(pointer.to_owned(), self.hand);
        } else if turn.loosened {
            let problem = format!("was set by {}; {instead}", whose.words());
            self.faults.push(FieldFault::new(pointer, problem));
        }
        // What is made stricter by those with less stays with whoever set it: they could not take it back otherwise.
    }
}

fn tag_at(name: &str) -> String {
    format!("{TAGS}{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A tag's value as people see it: commands may have stored a number.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::KeyId;
    use crate::domain::scope::Scope;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(days)
    }

    fn key() -> ManagedKey {
        ManagedKey {
            id: KeyId(Uuid::nil()),
            name: "bo's".into(),
            prefix: "bn-00000000".into(),
            team: None,
            owner: None,
            scope: Scope::new(vec!["claude-*".into()], vec![]),
            rate_limit: 60,
            parameter_policy: None,
            cache_ttl: None,
            max_output_tokens: Some(1_000),
            metadata: json!({"env": "prod", "number": 5}),
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
            disabled: true,
            expires_at: Some(at(10)),
            revoked_at: None,
            previous_until: None,
            last_used_at: None,
            created_at: at(0),
            updated_at: at(0),
            restraints: Restraints::default(),
        }
    }

    fn faults(restraints: &Restraints, change: &KeyChange, hand: Hand) -> Vec<String> {
        let after = restraints.after(&key(), change, hand).err().unwrap_or_default();
        after.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn what_somebody_with_more_has_set_is_made_stricter_and_never_looser() {
        let looser = KeyChange {
            expires_at: Some(None),
            allowed_ips: Some(vec![]),
            disabled: Some(false),
            rate_limit: Some(61),
            max_output_tokens: Some(None),
            scope: Some(Scope::default()),
            metadata: Some(json!({})),
            ..KeyChange::default()
        };
        let all = [
            "/expires_at",
            "/allowed_ips",
            "/disabled",
            "/rate_limit",
            "/max_output_tokens",
            "/allowed_models/models",
            "/metadata/env",
            "/metadata/number",
        ];
        for hand in [Hand::Member, Hand::TeamAdmin] {
            assert_eq!(faults(&Restraints::default(), &looser, hand), all);
        }
        assert_eq!(faults(&Restraints::default(), &looser, Hand::Admin), [""; 0]);
        let sideways = KeyChange {
            expires_at: Some(Some(at(11))),
            allowed_ips: Some(vec!["10.1.0.0/16".parse().unwrap(), "192.0.2.1/32".parse().unwrap()]),
            scope: Some(Scope::new(vec!["claude-3".into(), "gpt-4o".into()], vec![])),
            metadata: Some(json!({"env": "test", "number": "5"})),
            ..KeyChange::default()
        };
        assert_eq!(
            faults(&Restraints::default(), &sideways, Hand::Member),
            ["/expires_at", "/allowed_ips", "/allowed_models/models", "/metadata/env"]
        );
        let stricter = KeyChange {
            expires_at: Some(Some(at(9))),
            allowed_ips: Some(vec!["10.1.0.0/16".parse().unwrap()]),
            disabled: Some(true),
            rate_limit: Some(10),
            max_output_tokens: Some(Some(999)),
            scope: Some(Scope::new(vec!["claude-3".into()], vec!["aws".into()])),
            metadata: Some(json!({"env": "prod", "number": "5", "more": "x"})),
            ..KeyChange::default()
        };
        let after = Restraints::default().after(&key(), &stricter, Hand::Member).unwrap();
        assert_eq!(
            after.stored(),
            Some(json!({"/allowed_models/providers": "member", "/metadata/more": "member"})),
            "what was made stricter stays with whoever set it, what is new is theirs"
        );
        assert_eq!(Restraints::read(after.stored().as_ref()), after);
    }

    #[test]
    fn what_one_has_set_oneself_one_takes_back_until_somebody_with_more_sets_it() {
        let set = |hand: Hand| {
            let mut own = Restraints::default();
            for pointer in ["/expires_at", "/disabled", "/metadata/env"] {
                own.set(pointer.into(), hand);
            }
            own
        };
        let back = KeyChange {
            expires_at: Some(None),
            disabled: Some(false),
            metadata: Some(json!({"number": 5})),
            ..KeyChange::default()
        };
        assert_eq!(faults(&set(Hand::Member), &back, Hand::Member), [""; 0]);
        assert_eq!(faults(&set(Hand::Member), &back, Hand::TeamAdmin), [""; 0]);
        let all = ["/expires_at", "/disabled", "/metadata/env"];
        assert_eq!(faults(&set(Hand::TeamAdmin), &back, Hand::Member), all);
        // An admin switches off what its owner had switched off, and says the same time once more.
        let again = KeyChange {
            expires_at: Some(Some(at(10))),
            disabled: Some(true),
            ..KeyChange::default()
        };
        let taken = set(Hand::Member).after(&key(), &again, Hand::Admin).unwrap();
        assert_eq!(faults(&taken, &back, Hand::Member), ["/disabled"]);
    }

    proptest! {
        #[test]
        fn no_row_of_changes_by_those_with_less_lets_a_key_last_longer_than_somebody_with_more_said(
            ends in proptest::collection::vec(proptest::option::of(0_i64..20), 1..12),
        ) {
            let mut key = key();
            for end in ends {
                let change = KeyChange { expires_at: Some(end.map(at)), ..KeyChange::default() };
                if let Ok(restraints) = key.restraints.after(&key, &change, Hand::Member) {
                    (key.restraints, key.expires_at) = (restraints, end.map(at));
                }
                prop_assert!(key.expires_at.is_some_and(|end| end <= at(10)));
            }
        }
    }
}
