//! Endpoints that answer a key's question from what the gateway knows: `GET` alone, and nothing before the key is known.
//!
//! The SDKs of both dialects ask at the same paths. Anthropic's say which version they speak, and hear of errors in its
//! shape.

use http::HeaderValue;
use poem::{Request, Response};

use crate::domain::call::Dialect;
use crate::domain::error::GatewayError;
use crate::http::auth::CallerKey;
use crate::http::boundary::Arrival;
use crate::http::error;
use crate::http::inference::{ANTHROPIC_VERSION, REQUEST_ID};

/// A question, and whose it is.
pub(super) struct Asked<'r> {
    /// How it was asked.
    pub(super) request: &'r Request,
    /// Whose key came with it.
    pub(super) caller: &'r CallerKey,
    /// When it came.
    pub(super) arrival: Arrival,
}

impl Asked<'_> {
    /// In whose words the answer is understood.
    pub(super) fn dialect(&self) -> Dialect {
        dialect_of(self.request)
    }
}

fn dialect_of(request: &Request) -> Dialect {
    if request.headers().contains_key(ANTHROPIC_VERSION) {
        Dialect::Anthropic
    } else {
        Dialect::OpenAi
    }
}

/// The answer as its caller understands it.
pub(super) fn said(request: &Request, arrival: Arrival, answer: Result<Response, GatewayError>) -> Response {
    let dialect = dialect_of(request);
    let mut response = answer.unwrap_or_else(|refusal| error::response_in(dialect, &refusal, arrival.id));
    if dialect == Dialect::Anthropic
        && let Ok(id) = HeaderValue::try_from(arrival.id.header())
    {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Defines such an endpoint. Its type has `async fn answer(&self, asked: Asked<'_>)`.
macro_rules! lookup {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name {
            state: std::sync::Arc<crate::http::HttpState>,
        }

        impl $name {
            /// The endpoint.
            pub fn new(state: std::sync::Arc<crate::http::HttpState>) -> Self {
                Self { state }
            }

            async fn asked(
                &self,
                request: &poem::Request,
                arrival: crate::http::boundary::Arrival,
            ) -> Result<poem::Response, crate::domain::error::GatewayError> {
                crate::http::inference::require(request, &http::Method::GET)?;
                let caller = crate::http::auth::CallerKey::check(&self.state, request, arrival.at).await?;
                let asked = super::lookup::Asked {
                    request,
                    caller: &caller,
                    arrival,
                };
                self.answer(asked).await
            }
        }

        impl poem::Endpoint for $name {
            type Output = poem::Response;

            async fn call(&self, request: poem::Request) -> poem::Result<poem::Response> {
                let arrival = crate::http::boundary::Arrival::of(&request);
                let answer = self.asked(&request, arrival).await;
                Ok(super::lookup::said(&request, arrival, answer))
            }
        }
    };
}

pub(super) use lookup;
