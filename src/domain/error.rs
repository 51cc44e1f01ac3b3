//! Why a request could not be served, grouped by what the caller can do next.
//!
//! Knows nothing of HTTP: `http::error` is the one place that turns these into a status and a body.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use super::budget::refusal::{BudgetRefusal, Reason};
use super::call::ErrorClass;
use super::ids::{ModelName, ProviderId};
use super::limit::Reached;

/// Anything that may have caused an internal error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request could not be served.
#[derive(Debug)]
pub enum GatewayError {
    /// No key, or none that is valid. Callers are never told which.
    Unauthenticated,
    /// The key may not be used from where the caller is.
    AddressNotAllowed {
        /// Where that is; `None` where a proxy says something that is no address.
        address: Option<IpAddr>,
    },
    /// The caller must change the request.
    Invalid(InvalidRequest),
    /// The request body is larger than the endpoint takes.
    TooLarge {
        /// The endpoint's limit in bytes.
        limit_bytes: usize,
    },
    /// The caller took too long to send its request.
    TooSlow,
    /// The body is not JSON by its own header.
    UnsupportedMediaType,
    /// There is no such endpoint.
    UnknownPath {
        /// Those there are, in words.
        endpoints: &'static str,
    },
    /// The key has no such thing.
    NoSuchThing {
        /// What kind of thing: `file`, `batch`.
        kind: &'static str,
    },
    /// The endpoint exists, but not for this method.
    MethodNotAllowed {
        /// The method it takes.
        allowed: &'static str,
    },
    /// The key may not use the model, or none of the providers that serve it.
    ModelNotAllowed {
        /// What was asked for.
        model: String,
    },
    /// The organization's config lets nothing serve the request: a rule refuses it, or leaves nothing.
    Denied {
        /// What was asked for.
        model: String,
        /// Why, in words for the caller.
        reason: String,
    },
    /// Nobody here serves the model.
    ModelNotFound {
        /// What was asked for.
        model: String,
    },
    /// A budget does not have enough for the request.
    Budget(Box<BudgetRefusal>),
    /// Every attempt failed; `attempts` says what each answered. Never empty.
    Exhausted {
        /// What each provider answered, in order.
        attempts: Vec<AttemptFailure>,
    },
    /// The caller should come back later: the gateway cannot take more now.
    Overloaded {
        /// When a retry can succeed.
        retry_after: Duration,
    },
    /// The caller has reached a limit of its key, its team or its organization.
    Limited(Box<Reached>),
    /// Whether a limit is reached cannot be found out now, and it is to hold all the same.
    Uncounted {
        /// When a retry may succeed.
        retry_after: Duration,
    },
    /// Whose key it is cannot be found out now.
    KeyUnchecked {
        /// When a retry may succeed.
        retry_after: Duration,
    },
    /// Our fault. `detail` is for the log and never for the caller.
    Internal {
        /// What happened, without prompts or secrets.
        detail: Cow<'static, str>,
        /// What caused it.
        source: Option<BoxError>,
    },
}

impl GatewayError {
    /// A fault of the request at `field`, a path such as `messages[2].content`.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid(InvalidRequest {
            field: Some(field.into()),
            problem: problem.into(),
            kind: InvalidKind::Value,
        })
    }

    /// A fault of the body as a whole.
    pub fn invalid_body(problem: impl Into<String>) -> Self {
        Self::Invalid(InvalidRequest {
            field: None,
            problem: problem.into(),
            kind: InvalidKind::Json,
        })
    }

    /// An error that should not have been possible.
    pub fn internal(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Internal {
            detail: detail.into(),
            source: None,
        }
    }

    /// The class the error is recorded under.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unauthenticated
            | Self::AddressNotAllowed { .. }
            | Self::Invalid(_)
            | Self::UnsupportedMediaType
            | Self::UnknownPath { .. }
            | Self::NoSuchThing { .. }
            | Self::MethodNotAllowed { .. } => ErrorClass::InvalidRequest,
            Self::TooLarge { .. } => ErrorClass::TooLarge,
            Self::TooSlow => ErrorClass::CallerTimeout,
            Self::ModelNotAllowed { .. } | Self::Denied { .. } => ErrorClass::ModelNotAllowed,
            Self::ModelNotFound { .. } => ErrorClass::ModelNotFound,
            Self::Exhausted { attempts } => attempts.last().map_or(ErrorClass::Internal, |last| last.class),
            Self::Budget(refusal) => match refusal.reason {
                Reason::Unknown => ErrorClass::Shed,
                Reason::UsedUp { .. } | Reason::TooLarge { .. } | Reason::Held | Reason::Unpriced { .. } => {
                    ErrorClass::Budget
                }
            },
            Self::Overloaded { .. } | Self::Uncounted { .. } | Self::KeyUnchecked { .. } => ErrorClass::Shed,
            Self::Limited(_) => ErrorClass::LimitReached,
            Self::Internal { .. } => ErrorClass::Internal,
        }
    }
}

/// A fault of the request itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidRequest {
    /// Where, as a path such as `messages[2].content`; `None` where the body as a whole is at fault.
    pub field: Option<String>,
    /// What is wrong and what would be right, as a sentence without a full stop.
    pub problem: String,
    /// Which of OpenAI's error codes fits.
    pub kind: InvalidKind,
}

/// The kinds of faults that OpenAI's error codes tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidKind {
    /// The body is not JSON.
    Json,
    /// A required field is missing.
    Missing,
    /// A field has the wrong type.
    Type,
    /// A value is out of its range.
    Value,
    /// A field that callers may not set.
    Forbidden,
}

/// How one attempt failed, in terms every provider shares.
#[derive(Clone, Debug)]
pub struct AttemptFailure {
    /// Who was asked.
    pub provider: ProviderId,
    /// For which model.
    pub model: ModelName,
    /// What kind of failure it was.
    pub class: ErrorClass,
    /// The provider's status, if it answered.
    pub status: Option<u16>,
    /// The provider's own error code, if it gave one.
    pub code: Option<String>,
    /// The provider's own words. Only shown for classes that are about the caller's request.
    pub message: String,
    /// The field the provider complained about.
    pub param: Option<String>,
    /// Further detail in the provider's own shape that callers rely on: Azure's `innererror`, as JSON.
    pub inner: Option<Box<serde_json::value::RawValue>>,
    /// The provider's id for the request.
    pub request_id: Option<String>,
    /// How long the provider asked us to stay away.
    pub retry_after: Option<Duration>,
}
