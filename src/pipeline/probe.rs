//! Small calls to a provider that nobody asked for by a request, to see whether it answers: for admins who test a
//! credential, and for the gateway's own probes.
//!
//! They take the way of any attempt but for the parts that belong to a caller: they are counted against no limit, reserve
//! nothing and have no record.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::Pipeline;
use super::attempt::{target, too_slow, understood};
use crate::chat::request::Request;
use crate::domain::call::{Dialect, ErrorClass, Operation};
use crate::domain::health::Outcome;
use crate::domain::ids::{DeploymentId, OrganizationId, ProviderId};
use crate::domain::money::NanoUsd;
use crate::domain::pricing::Rates;
use crate::domain::usage::TokenUsage;
use crate::providers::adapter::{Failure, MediaLibrary, WireAnswer};
use crate::routing::catalog::{Catalog, Deployment};
use crate::upstream::Propagated;
use crate::upstream::answer::Answer;
use crate::upstream::endpoints::{Keyed, Tenant};
use crate::upstream::payload::SentMark;

/// How long the call may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tokens of the answer. Some models take no less.
const OUTPUT_TOKENS: u32 = 16;
/// Bytes of the answer that are read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// What came of the call.
#[derive(Debug)]
pub struct Probed {
    /// The deployment that was asked.
    pub deployment: DeploymentId,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// What came of asking for one token.
#[derive(Clone, Copy, Debug)]
pub struct Completed {
    /// What it says about the provider.
    pub outcome: Outcome,
    /// What it took.
    pub usage: TokenUsage,
    /// What that costs, as far as there is a price.
    pub cost: NanoUsd,
}

/// Why nothing was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotProbed {
    /// There is no credential that could be used.
    NoCredential,
    /// The catalogue has no model of it that could be asked, or not the one that was named.
    NoModel,
}

impl Pipeline {
    /// Asks a provider for a few words: by the model that is named, or else by its cheapest one.
    ///
    /// # Errors
    /// There is nobody to ask, or nothing to ask for.
    pub async fn probe(
        &self,
        organization: OrganizationId,
        tenant: Tenant<'_>,
        provider: &ProviderId,
        model: Option<&str>,
    ) -> Result<Probed, NotProbed> {
        let deployment = {
            let catalog = self.catalog_of(organization);
            // One that forwards what it is not known to have can be asked for a name.
            let forwarded = || {
                let resolved = catalog.resolve(&format!("{provider}/{}", model?), Operation::Chat)?;
                resolved.deployments.into_iter().next()
            };
            let listed = cheapest(&catalog, provider, model);
            listed.or_else(forwarded).ok_or(NotProbed::NoModel)?
        };
        let keyed = self.pick(tenant, &deployment, &[]).ok_or(NotProbed::NoCredential)?;
        let began = Instant::now();
        let outcome = self.ask_briefly(&deployment, &keyed, OUTPUT_TOKENS, PATIENCE).await;
        Ok(Probed {
            deployment: deployment.id.clone(),
            took: began.elapsed(),
            failure: outcome.err(),
        })
    }

    /// Asks what a credential's provider costs nothing to say.
    ///
    /// `None`: there is nothing to ask, or the answer says nothing about how the provider is doing. That a key may not list
    /// models is no fault of either.
    pub async fn probe_by_listing(&self, keyed: &Keyed, patience: Duration) -> Option<Outcome> {
        let listing = keyed.endpoint.adapter.listing()?;
        let answer = timeout(patience, self.upstream.list(&keyed.endpoint, listing)).await;
        let Ok(answer) = answer else {
            return Some(Outcome::Failed);
        };
        let status = match answer {
            Ok(answer) => answer.status,
            // The reason is a token that could not be had.
            Err(failure) if failure.class == ErrorClass::ProviderAuth => return None,
            Err(_) => return Some(Outcome::Failed),
        };
        match status.as_u16() {
            401 | 403 | 429 => None,
            500.. => Some(Outcome::Failed),
            _ => Some(Outcome::Listed),
        }
    }

    /// Asks for one token of the cheapest model that an organization has at a credential's provider.
    ///
    /// `None`: there is no model to ask.
    pub async fn probe_by_completion(
        &self,
        organization: Option<&str>,
        keyed: &Keyed,
        patience: Duration,
    ) -> Option<Completed> {
        let policy = organization.map_or_else(
            || self.policies.default_policy().clone(),
            |slug| self.policies.of_slug(slug),
        );
        let deployment = cheapest(&policy.catalog(&self.catalog.load()), &keyed.endpoint.id, None)?;
        let answered = self.ask_briefly(&deployment, keyed, 1, patience).await;
        let usage = answered.as_ref().ok().copied().flatten().unwrap_or_default();
        let price = deployment.price.as_ref();
        Some(Completed {
            usage,
            cost: price.and_then(|price| price.cost(&usage).ok()).unwrap_or(NanoUsd::ZERO),
            outcome: match answered {
                Ok(_) => Outcome::Answered,
                Err(failure) => match failure.class {
                    ErrorClass::RateLimited | ErrorClass::ProviderQuota => Outcome::Limited {
                        retry_after: failure.retry_after,
                    },
                    class if class.blames_the_provider() => Outcome::Failed,
                    // It found fault with the question: it is there.
                    _ => Outcome::Answered,
                },
            },
        })
    }

    /// Asks a deployment for a few words, and says what that took.
    async fn ask_briefly(
        &self,
        deployment: &Deployment,
        keyed: &Keyed,
        tokens: u32,
        patience: Duration,
    ) -> Result<Option<TokenUsage>, Failure> {
        let body = json!({
            "model": deployment.model.as_str(),
            "messages": [{"role": "user", "content": "Say ok."}],
            "max_tokens": tokens,
        });
        let body = Bytes::from(body.to_string());
        let work = async {
            let request = Request::parse(Operation::Chat, Dialect::OpenAi, body, &self.limits.body)
                .map_err(|fault| Failure::new(ErrorClass::Internal, fault.problem))?;
            let endpoint = &keyed.endpoint;
            let media = MediaLibrary::default();
            let encoded = endpoint.adapter.encode(&request, &target(deployment, &media));
            let exchange =
                encoded.map_err(|_| Failure::new(ErrorClass::Unsupported, "cannot express a question this small"))?;
            let mut answers = Vec::new();
            for call in exchange.calls {
                let form = call.answer;
                let answer = match endpoint.adapter.builtin(&request) {
                    Some(body) => Answer::builtin(body, form),
                    None => {
                        let answer = self
                            .upstream
                            .send(endpoint, call, SentMark::default(), &Propagated::default())
                            .await?;
                        understood(answer, endpoint).await?
                    }
                };
                let body = answer.body.whole(MAX_ANSWER_BYTES).await?;
                answers.push(WireAnswer {
                    headers: answer.headers,
                    body,
                });
            }
            exchange.reader.whole(answers).map(|answer| answer.usage)
        };
        let outcome = timeout(patience, work)
            .await
            .unwrap_or_else(|_| Err(too_slow(patience)));
        match &outcome {
            Ok(_) => keyed.was_accepted(),
            Err(failure) if matches!(failure.class, ErrorClass::ProviderAuth) => keyed.was_refused(Instant::now()),
            Err(_) => {}
        }
        outcome
    }
}

/// The cheapest model of a provider that chats, or the one that is named.
fn cheapest(catalog: &Catalog, provider: &ProviderId, model: Option<&str>) -> Option<Arc<Deployment>> {
    let fits = |name: &str| model.is_none_or(|model| model == name);
    let price = |rates: &Rates| rates.input.0.saturating_add(rates.output.0);
    catalog
        .deployments()
        .filter(|deployment| deployment.provider == *provider && deployment.serves(Operation::Chat))
        .filter(|deployment| fits(deployment.model.as_str()) || deployment.names.iter().any(|name| fits(name)))
        .min_by_key(|deployment| deployment.price.as_ref().map_or(i64::MAX, |cost| price(&cost.rates)))
        .cloned()
}
