//! Names for things: one type for each, so that a key's id cannot be passed where an organization's is wanted.
//!
//! Ids made here are UUIDs of version 7, which sort by creation time. Names that come from people or providers are
//! shared strings, because one name is carried by many records.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

uuid_ids! {
    /// An organization: the tenant that everything belongs to.
    OrganizationId,
    /// A team inside an organization.
    TeamId,
    /// Somebody who signs in to manage the gateway.
    UserId,
    /// A `bn-…` key, never its secret.
    KeyId,
    /// One request of a caller, however many attempts it takes.
    RequestId,
}

impl RequestId {
    /// The form callers see in `x-request-id`: `req_` and 32 hexadecimal digits, as OpenAI writes its own.
    pub fn header(self) -> String {
        let mut text = String::with_capacity(36);
        text.push_str("req_");
        text.push_str(self.0.simple().encode_lower(&mut Uuid::encode_buffer()));
        text
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )+};
}

names! {
    /// A cloud or vendor as people see it: `openai`, `azure`, `groq`, …
    ProviderId,
    /// The name of a model, as clients ask for it.
    ModelName,
    /// A deployment: `provider/model`, one model as one provider serves it.
    DeploymentId,
    /// The version of a price row, stored with every cost that was computed from it.
    PriceVersion,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_reads_like_openais() {
        let id = RequestId(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_00ff));
        assert_eq!(id.header(), "req_019300000000700080000000000000ff");
    }
}
