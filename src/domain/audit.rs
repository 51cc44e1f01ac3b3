//! What was done through management, by whom and from where: the rows of the audit log.
//!
//! A deed holds what it changed from and to, as JSON. Secrets have no business there: whoever describes a deed leaves
//! them out, and [`Deed::without_secrets`] takes out what looks like one all the same.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::ids::RequestId;
use super::role::Role;

/// Longest `before` or `after` that is kept, in bytes of JSON.
pub const MAX_STATE_BYTES: usize = 64 * 1024;
/// What stands in the place of a secret.
const NOT_RECORDED: &str = "(not recorded)";
/// Names of members that hold secrets, and the ends of such names.
const SECRET_NAMES: [&str; 8] = [
    "password",
    "secret",
    "token",
    "api_key",
    "private_key",
    "access_key",
    "authorization",
    "hash",
];
/// Members that are described as a whole by being there.
const SECRET_OBJECTS: [&str; 2] = ["credentials", "service_account"];

/// How somebody proved who they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Via {
    /// They signed in with a password.
    Password,
    /// An external issuer vouches for them.
    Oidc,
    /// By a token that was made on the gateway's machine.
    Token,
    /// The gateway itself, or a command on its machine.
    System,
}

impl Via {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Password, Self::Oidc, Self::Token, Self::System];

    /// The text form, in tokens, in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Oidc => "oidc",
            Self::Token => "token",
            Self::System => "system",
        }
    }

    /// The way with a text form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|via| via.as_str() == text)
    }
}

/// Who does something, and from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Author {
    /// Who: the subject of their token, or the command.
    pub subject: String,
    /// What they are; `None`: no role was needed.
    pub role: Option<Role>,
    /// How they proved who they are.
    pub via: Via,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// The request it was done by.
    pub request: Option<RequestId>,
}

impl Author {
    /// A command on the gateway's machine, or a task of the gateway itself.
    pub fn system(what: &str) -> Self {
        Self {
            subject: what.to_owned(),
            role: None,
            via: Via::System,
            address: None,
            request: None,
        }
    }
}

/// Something that was done.
#[derive(Clone, PartialEq, Debug)]
pub struct Deed {
    /// What, as `resource.verb`: `key.create`.
    pub action: &'static str,
    /// The id of what it was done to.
    pub id: String,
    /// What that was before; `None`: it was not there.
    pub before: Option<Value>,
    /// What it is now; `None`: it is not there any more.
    pub after: Option<Value>,
}

impl Deed {
    /// Something that was done to a thing. `action` is `resource.verb`.
    pub fn new(action: &'static str, id: impl ToString) -> Self {
        Self {
            action,
            id: id.to_string(),
            before: None,
            after: None,
        }
    }

    /// What it was before, without secrets.
    #[must_use]
    pub fn before(self, state: Value) -> Self {
        Self {
            before: Some(state),
            ..self
        }
    }

    /// What it is now, without secrets.
    #[must_use]
    pub fn after(self, state: Value) -> Self {
        Self {
            after: Some(state),
            ..self
        }
    }

    /// The kind of thing it was done to.
    pub fn resource(&self) -> &'static str {
        self.action
            .split_once('.')
            .map_or(self.action, |(resource, _)| resource)
    }

    /// The same without what looks like a secret by its name, and without states that are too long to keep.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        for state in [&mut self.before, &mut self.after].into_iter().flatten() {
            hide(state);
            let bytes = state.to_string().len();
            if bytes > MAX_STATE_BYTES {
                *state = serde_json::json!({"omitted_bytes": bytes});
            }
        }
        self
    }
}

/// A row of the audit log.
#[derive(Clone, PartialEq, Debug)]
pub struct AuditRow {
    /// Its id; later rows have higher ones.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// What they were.
    pub actor_role: Option<String>,
    /// How they proved who they are.
    pub via: String,
    /// Where the request came from.
    pub address: Option<String>,
    /// What.
    pub action: String,
    /// To what kind of thing.
    pub resource: String,
    /// To which.
    pub resource_id: String,
    /// What it was before.
    pub before: Option<Value>,
    /// What it was then.
    pub after: Option<Value>,
    /// The request it was done by, as `x-request-id` has it.
    pub request_id: Option<String>,
}

/// Which rows of the audit log are wanted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AuditFilter {
    /// Of this actor.
    pub actor: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// About this kind of thing.
    pub resource: Option<String>,
    /// About the thing with this id.
    pub resource_id: Option<String>,
    /// At this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Before this time.
    pub to: Option<DateTime<Utc>>,
    /// Before the row with this id.
    pub before: Option<Uuid>,
    /// So many.
    pub limit: u64,
}

/// Whether a member of this name holds a secret: `secret`, `client_secret`, but not `tokens` or `secret_path`.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let of_kind = |kind: &str| {
        name.strip_suffix(kind)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '-']))
    };
    SECRET_NAMES.into_iter().any(of_kind) || SECRET_OBJECTS.contains(&name.as_str())
}

/// Takes out the secrets of a state. Its depth is that of a parsed document, which is bounded.
fn hide(state: &mut Value) {
    match state {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::Null | Value::Bool(_) => {}
                    value if is_secret(name) => *value = NOT_RECORDED.into(),
                    value => hide(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_not_recorded_wherever_it_stands() {
        let deed = Deed::new("webhook.create", 7)
            .before(json!([{"password": "a"}]))
            .after(json!({
                "url": "https://example.com", "Signing-Secret": "b", "client_secret": {"value": "c"}, "hash": "d",
                "list": [{"api_key": "e", "refresh_token": "f"}], "credentials": {"aws": {"access_key": "g"}},
                "input_tokens": 5, "secret_path": "providers/aws", "token": null, "password": true
            }));
        let deed = deed.without_secrets();
        assert_eq!((deed.resource(), deed.id.as_str()), ("webhook", "7"));
        assert_eq!(deed.before, Some(json!([{"password": NOT_RECORDED}])));
        assert_eq!(
            deed.after.unwrap(),
            json!({
                "url": "https://example.com", "Signing-Secret": NOT_RECORDED, "client_secret": NOT_RECORDED,
                "hash": NOT_RECORDED, "list": [{"api_key": NOT_RECORDED, "refresh_token": NOT_RECORDED}],
                "credentials": NOT_RECORDED, "input_tokens": 5, "secret_path": "providers/aws", "token": null,
                "password": true
            })
        );
    }

    #[test]
    fn a_state_that_is_too_long_leaves_its_length() {
        let deed = Deed::new("config.replace", 1).after(json!("x".repeat(MAX_STATE_BYTES)));
        assert_eq!(
            deed.without_secrets().after,
            Some(json!({"omitted_bytes": MAX_STATE_BYTES + 2}))
        );
    }

    #[test]
    fn every_way_is_found_by_its_name() {
        for via in Via::ALL {
            assert_eq!(Via::parse(via.as_str()), Some(via));
        }
        assert_eq!(Via::parse("telepathy"), None);
    }
}
