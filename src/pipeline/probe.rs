//! One small real call to a provider, to see whether it answers: for admins who test a credential.
//!
//! It takes the way of any attempt but for the parts that belong to a caller: it is counted against no limit, reserves
//! nothing and has no record. It asks for a handful of tokens.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::Pipeline;
use super::attempt::{target, too_slow, understood};
use crate::chat::request::Request;
use crate::domain::call::{Dialect, ErrorClass, Operation};
use crate::domain::ids::{DeploymentId, OrganizationId, ProviderId};
use crate::providers::adapter::{Failure, MediaLibrary, WireAnswer};
use crate::upstream::Propagated;
use crate::upstream::answer::Answer;
use crate::upstream::endpoints::Tenant;
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
            let fits = |name: &str| model.is_none_or(|model| model == name);
            let price = |rates: &crate::domain::pricing::Rates| rates.input.0.saturating_add(rates.output.0);
            let listed = catalog
                .deployments()
                .filter(|deployment| deployment.provider == *provider && deployment.serves(Operation::Chat))
                .filter(|deployment| fits(deployment.model.as_str()) || deployment.names.iter().any(|name| fits(name)))
                .min_by_key(|deployment| deployment.price.as_ref().map_or(i64::MAX, |cost| price(&cost.rates)))
                .cloned();
            // One that forwards what it is not known to have can be asked for a name.
            let forwarded = || {
                let resolved = catalog.resolve(&format!("{provider}/{}", model?), Operation::Chat)?;
                resolved.deployments.into_iter().next()
            };
            listed.or_else(forwarded).ok_or(NotProbed::NoModel)?
        };
        let keyed = {
            let endpoints = self.endpoints.now();
            endpoints.pick(tenant, provider, &deployment.id, &[], rand::random(), Instant::now())
        };
        let keyed = keyed.ok_or(NotProbed::NoCredential)?;
        let body = json!({
            "model": deployment.model.as_str(),
            "messages": [{"role": "user", "content": "Say ok."}],
            "max_tokens": OUTPUT_TOKENS,
        });
        let body = Bytes::from(body.to_string());
        let began = Instant::now();
        let work = async {
            let request = Request::parse(Operation::Chat, Dialect::OpenAi, body, &self.limits.body)
                .map_err(|fault| Failure::new(ErrorClass::Internal, fault.problem))?;
            let endpoint = &keyed.endpoint;
            let media = MediaLibrary::default();
            let encoded = endpoint.adapter.encode(&request, &target(&deployment, &media));
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
            exchange.reader.whole(answers).map(drop)
        };
        let outcome = timeout(PATIENCE, work)
            .await
            .unwrap_or_else(|_| Err(too_slow(PATIENCE)));
        match &outcome {
            Ok(()) => keyed.was_accepted(),
            Err(failure) if matches!(failure.class, ErrorClass::ProviderAuth) => keyed.was_refused(Instant::now()),
            Err(_) => {}
        }
        Ok(Probed {
            deployment: deployment.id.clone(),
            took: began.elapsed(),
            failure: outcome.err(),
        })
    }
}
