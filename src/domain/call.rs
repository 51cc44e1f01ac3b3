//! The closed sets that describe a call: what was asked for, in whose dialect, and how an attempt failed.
//!
//! They are columns, metric labels and log fields alike, so their text forms are part of the product.

use std::fmt;

/// No model writes a longer answer, in tokens; beyond it a number is a mistake.
pub const MAX_OUTPUT_TOKENS: u64 = 100_000_000;

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every member, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text form used in the database, in metrics and in logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

closed_set! {
    /// What a caller asks for. The text forms are OpenTelemetry's `gen_ai.operation.name` values.
    Operation {
        /// `POST /v1/chat/completions`.
        Chat = "chat",
        /// `POST /v1/completions`.
        Completion = "text_completion",
        /// `POST /v1/embeddings`.
        Embedding = "embeddings",
    }
}

closed_set! {
    /// What becomes of a parameter that a provider cannot express.
    ParameterPolicy {
        /// The request goes to a provider that can, or is refused.
        Reject = "reject",
        /// It is dropped.
        Drop = "drop",
        /// It is dropped, and the answer's headers say so.
        Warn = "warn",
    }
}

impl ParameterPolicy {
    /// The policy of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|policy| policy.as_str() == name)
    }

    /// The one of two that loses less in silence.
    pub fn stricter(self, other: Self) -> Self {
        let strictness = |policy| match policy {
            Self::Drop => 0,
            Self::Warn => 1,
            Self::Reject => 2,
        };
        if strictness(other) > strictness(self) {
            other
        } else {
            self
        }
    }
}

closed_set! {
    /// Why a request is turned away that could be served at another time.
    ShedReason {
        /// As many are under way, and as many wait, as may.
        Full = "full",
        /// The processor cannot keep up.
        Late = "late",
        /// The journal has no place.
        Journal = "journal",
        /// Every credential that could serve it has as many requests under way as it may.
        Credential = "credential",
    }
}

closed_set! {
    /// What a request had to do with the response cache.
    CacheStatus {
        /// The answer came out of it.
        Hit = "hit",
        /// There was none that could be used.
        Miss = "miss",
        /// It was not asked.
        Bypass = "bypass",
    }
}

closed_set! {
    /// How deployments that may serve a request are ordered.
    Strategy {
        /// The cheapest for this request first.
        CostOptimized = "cost-optimized",
        /// The fastest of two random ones first.
        LatencyOptimized = "latency-optimized",
        /// By a score of cost, latency, failures and load.
        Balanced = "balanced",
        /// In a fixed order.
        Failover = "failover",
    }
}

impl Strategy {
    /// The strategy with a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|strategy| strategy.as_str() == text)
    }
}

impl serde::Serialize for Strategy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

closed_set! {
    /// The dialect a caller speaks.
    Dialect {
        /// OpenAI's.
        OpenAi = "openai",
        /// Anthropic's.
        Anthropic = "anthropic",
    }
}

closed_set! {
    /// Why a request or an attempt did not end well. Behaviour and status follow from it.
    ErrorClass {
        /// The caller's request is at fault.
        InvalidRequest = "invalid_request",
        /// The provider cannot express the request; another one may.
        Unsupported = "unsupported_parameter",
        /// The model is unknown here, or to the provider.
        ModelNotFound = "model_not_found",
        /// The key's scope does not cover it.
        ModelNotAllowed = "model_not_allowed",
        /// A budget does not have enough for it.
        Budget = "budget",
        /// The prompt does not fit the model.
        ContextLength = "context_length_exceeded",
        /// The provider's content policy refused it.
        ContentFilter = "content_filter",
        /// The request body is too large.
        TooLarge = "too_large",
        /// The caller was too slow to send its request.
        CallerTimeout = "caller_timeout",
        /// The provider refused the gateway's credential.
        ProviderAuth = "provider_auth",
        /// The caller has reached a limit of ours.
        LimitReached = "limit_reached",
        /// The provider limits our rate.
        RateLimited = "rate_limited",
        /// The provider says that our account has no money left.
        ProviderQuota = "provider_quota",
        /// The provider says that it is overloaded.
        Overloaded = "overloaded",
        /// The provider failed.
        ServerError = "server_error",
        /// No connection could be made.
        Connect = "connect",
        /// The provider took too long.
        Timeout = "timeout",
        /// The provider's answer was cut.
        Cut = "cut",
        /// The provider's answer could not be understood.
        Malformed = "malformed",
        /// The caller left.
        Cancelled = "cancelled",
        /// The gateway is shedding load or stopping.
        Shed = "shed",
        /// The process was ended under it, and found it in its journal at its next start.
        Interrupted = "interrupted",
        /// Our own fault.
        Internal = "internal",
    }
}

impl ErrorClass {
    /// Whether the same request may succeed on another deployment.
    pub fn worth_another_attempt(self) -> bool {
        match self {
            Self::ProviderAuth
            | Self::RateLimited
            | Self::ProviderQuota
            | Self::Overloaded
            | Self::ServerError
            | Self::Connect
            | Self::Timeout
            | Self::Cut
            | Self::Malformed => true,
            // A deployment that does not know the model is misconfigured; another one may serve it.
            Self::ModelNotFound | Self::Unsupported => true,
            Self::InvalidRequest
            | Self::ModelNotAllowed
            | Self::Budget
            | Self::ContextLength
            | Self::ContentFilter
            | Self::TooLarge
            | Self::CallerTimeout
            | Self::LimitReached
            | Self::Cancelled
            | Self::Shed
            | Self::Interrupted
            | Self::Internal => false,
        }
    }

    /// Whether the same request may succeed on the same deployment a moment later, without having been paid for.
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::Overloaded | Self::ServerError | Self::Connect
        )
    }

    /// Whether it says something bad about the provider's health, as opposed to the request or our account.
    pub fn blames_the_provider(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::ServerError
                | Self::Connect
                | Self::Timeout
                | Self::Cut
                | Self::Malformed
                | Self::ProviderAuth
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_policies_the_stricter_holds_whoever_says_it() {
        use ParameterPolicy::{Drop, Reject, Warn};
        for (one, other, expected) in [(Drop, Warn, Warn), (Drop, Reject, Reject), (Warn, Reject, Reject)] {
            assert_eq!((one.stricter(other), other.stricter(one)), (expected, expected));
        }
        for &policy in ParameterPolicy::ALL {
            assert_eq!(policy.stricter(policy), policy);
            assert_eq!(ParameterPolicy::of(policy.as_str()), Some(policy));
        }
        assert_eq!(ParameterPolicy::of("ignore"), None);
    }
}
