//! Endpoints that answer a key's question from what the gateway knows: `GET` alone, and nothing before the key is known.

use poem::Request;

use crate::http::auth::CallerKey;
use crate::http::boundary::Arrival;

/// A question, and whose it is.
pub(super) struct Asked<'r> {
    /// How it was asked.
    pub(super) request: &'r Request,
    /// Whose key came with it.
    pub(super) caller: &'r CallerKey,
    /// When it came.
    pub(super) arrival: Arrival,
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
                Ok(answer.unwrap_or_else(|refusal| crate::http::error::response(&refusal, arrival.id)))
            }
        }
    };
}

pub(super) use lookup;
