//! `/api/gateway/providers`: who serves, and how they are doing.

use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};

use super::Section;
use super::auth::{May, ReadProviders};
use super::problem::Refusal;
use crate::domain::measurement::Measured;
use crate::routing::plan::Readiness;

/// The handlers.
pub struct ProvidersApi;

/// Providers.
#[derive(Object)]
struct Providers {
    /// Those the organization can use, by id.
    data: Vec<Provider>,
}

/// How a provider is doing.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
pub(super) enum Health {
    /// It gets traffic.
    Passing,
    /// One request at a time finds out whether it is back.
    Probing,
    /// It is out of the rotation.
    Ejected,
}

/// A provider.
#[derive(Object)]
struct Provider {
    /// Its id.
    id: String,
    /// Whether the organization's config has not switched it off.
    enabled: bool,
    /// How it is doing, seen from the replica that answers.
    health: Health,
    /// Its deployments in the catalogue.
    deployments: u64,
    /// Those that were asked since the replica that answers was started.
    measured: Vec<MeasuredDeployment>,
}

/// What was measured of a deployment.
#[derive(Object)]
struct MeasuredDeployment {
    /// The deployment.
    deployment: String,
    /// Milliseconds to its first token, as a peak-sensitive average.
    #[oai(skip_serializing_if_is_none)]
    first_token_ms: Option<f64>,
    /// Tokens a second after the first one.
    #[oai(skip_serializing_if_is_none)]
    tokens_per_second: Option<f64>,
    /// The share of attempts that failed by its fault, from 0 to 1.
    error_rate: f64,
    /// The share of its prompts that came out of a prompt cache, from 0 to 1.
    cached_share: f64,
    /// Attempts under way.
    in_flight: u32,
}

#[OpenApi(prefix_path = "/api/gateway/providers", tag = "Section::Providers")]
impl ProvidersApi {
    /// List providers
    ///
    /// The providers the organization has credentials for, with their health and what the requests of this replica have
    /// measured.
    #[oai(path = "/", method = "get", operation_id = "listProviders")]
    async fn list(&self, may: May<ReadProviders>) -> Result<Json<Providers>, Refusal> {
        let states = may.providers().await?.into_iter();
        let data = states.map(|state| Provider {
            id: state.id,
            enabled: state.enabled,
            health: state.readiness.into(),
            deployments: state.deployments as u64,
            measured: state
                .measured
                .into_iter()
                .map(|(id, measured)| shown(id, measured))
                .collect(),
        });
        Ok(Json(Providers { data: data.collect() }))
    }
}

impl From<Readiness> for Health {
    fn from(readiness: Readiness) -> Self {
        match readiness {
            // What rests is one deployment; its provider is well.
            Readiness::Passing | Readiness::Resting => Self::Passing,
            Readiness::Probing => Self::Probing,
            Readiness::Ejected => Self::Ejected,
        }
    }
}

fn shown(deployment: String, measured: Measured) -> MeasuredDeployment {
    let rounded = |number: f64| (number * 1_000.0).round() / 1_000.0;
    MeasuredDeployment {
        deployment,
        first_token_ms: measured.first_token_ms.map(rounded),
        tokens_per_second: measured.tokens_per_second.map(rounded),
        error_rate: rounded(measured.error_rate),
        cached_share: rounded(measured.cached_share),
        in_flight: measured.in_flight,
    }
}
