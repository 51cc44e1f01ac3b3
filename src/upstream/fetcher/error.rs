//! Why something was not fetched, in words for the caller who named the URL.
//!
//! The words tell nothing about the network the gateway is in: a name that does not exist and a name of a private host
//! read the same, and no resolved address is ever part of them. The log and the metrics have the difference, by
//! [`FetchError::reason`].

use std::fmt;
use std::time::Duration;

use crate::chat::media::MediaType;
use crate::domain::address::AddressKind;
use crate::domain::error::GatewayError;

/// How long a caller should wait when all turns are taken.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why something was not fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchError {
    /// It is not a URL with a host.
    Malformed,
    /// Neither http nor https.
    Scheme,
    /// It holds a user name or a password.
    Userinfo,
    /// The port is not one of those that may be asked.
    Port(u16),
    /// At least one address of the host is not one to connect to.
    NotPublic(AddressKind),
    /// The host's name has no address. To callers the same as [`Self::NotPublic`].
    Unresolved,
    /// No connection, though the address is right.
    Unreachable,
    /// No secure connection: mostly, a certificate that cannot be verified.
    Tls,
    /// More redirects than are followed.
    Redirects {
        /// How many are.
        limit: usize,
    },
    /// A redirect from https to http.
    Downgrade,
    /// A redirect led to something that cannot be fetched.
    Redirected(Box<FetchError>),
    /// Another status than 200.
    Status(u16),
    /// More bytes than are read.
    TooLarge {
        /// How many are.
        limit_bytes: usize,
    },
    /// It did not end in time.
    Timeout {
        /// The time it had.
        limit: Duration,
    },
    /// It is compressed, which was not offered.
    Encoded,
    /// Its bytes are not of a kind that is wanted here.
    WrongKind {
        /// What they are, where that can be told.
        found: Option<MediaType>,
        /// What was wanted.
        wanted: Vec<MediaType>,
    },
    /// The connection broke, or what came was not HTTP.
    Cut,
    /// All turns were taken for as long as the fetch could have lasted.
    Busy,
}

impl FetchError {
    /// The error for a caller whose request has the URL at `field`, such as
    /// `messages[3].content[1].image_url.url`.
    pub fn at(&self, field: impl Into<String>) -> GatewayError {
        match self {
            Self::Busy => GatewayError::Overloaded {
                retry_after: RETRY_AFTER,
            },
            other => GatewayError::invalid(field, other.to_string()),
        }
    }

    /// Its word in metrics and logs. For a redirect, that of what it led to.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Scheme => "scheme",
            Self::Userinfo => "userinfo",
            Self::Port(_) => "port",
            Self::NotPublic(_) => "not_public",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Redirects { .. } => "redirects",
            Self::Downgrade => "downgrade",
            Self::Redirected(inner) => inner.reason(),
            Self::Status(_) => "status",
            Self::TooLarge { .. } => "too_large",
            Self::Timeout { .. } => "timeout",
            Self::Encoded => "encoded",
            Self::WrongKind { .. } => "wrong_kind",
            Self::Cut => "cut",
            Self::Busy => "busy",
        }
    }

    /// What the address is instead of public, where that was the reason.
    pub fn address_kind(&self) -> Option<AddressKind> {
        match self {
            Self::NotPublic(kind) => Some(*kind),
            Self::Redirected(inner) => inner.address_kind(),
            _ => None,
        }
    }

    /// The same error, met behind a redirect.
    pub(super) fn redirected(self) -> Self {
        match self {
            // These are about the way as a whole.
            Self::Redirects { .. } | Self::Downgrade | Self::Redirected(_) | Self::Timeout { .. } | Self::Busy => self,
            other => Self::Redirected(Box::new(other)),
        }
    }
}

/// What is wrong and what would be right, as words that follow the field's name.
impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => {
                f.write_str("is not a URL that can be fetched; write one such as https://example.com/a.png")
            }
            Self::Scheme => f.write_str("must begin with https:// or http://, or be a data: URL"),
            Self::Userinfo => f.write_str("holds a user name or a password; the gateway fetches only what needs none"),
            Self::Port(port) => write!(f, "names port {port}, which this gateway does not fetch from"),
            Self::NotPublic(_) | Self::Unresolved => {
                f.write_str("the address is not public or does not exist; send the content itself, as a data: URL")
            }
            Self::Unreachable => f.write_str("the host cannot be reached"),
            Self::Tls => f.write_str("no secure connection to the host can be made; is its certificate valid?"),
            Self::Redirects { limit } => write!(f, "is redirected more than {limit} times; name the last URL"),
            Self::Downgrade => f.write_str("is redirected from https to http, which the gateway does not follow"),
            Self::Redirected(inner) => write!(f, "is redirected to a URL that cannot be fetched: {inner}"),
            Self::Status(status) => write!(f, "was answered with status {status} instead of 200"),
            Self::TooLarge { limit_bytes } => write!(f, "is larger than {limit_bytes} bytes, the most that is fetched"),
            Self::Timeout { limit } => write!(f, "could not be fetched within {} ms", limit.as_millis()),
            Self::Encoded => f.write_str("was sent compressed although the gateway does not take that"),
            Self::WrongKind { found, wanted } => {
                match found {
                    Some(found) => write!(f, "holds {found}")?,
                    None => f.write_str("holds something else than it should")?,
                }
                f.write_str("; expected ")?;
                for (index, kind) in wanted.iter().enumerate() {
                    f.write_str(if index > 0 { " or " } else { "" })?;
                    kind.fmt(f)?;
                }
                Ok(())
            }
            Self::Cut => f.write_str("the host broke off its answer, or does not speak HTTP"),
            Self::Busy => f.write_str("too much is being fetched right now; try again"),
        }
    }
}

impl std::error::Error for FetchError {}
