//! `/api/gateway/providers`: who serves, and how they are doing.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::Value;
use uuid::Uuid;

use super::Section;
use super::auth::access::ProviderState;
use super::auth::providers::Which;
use super::auth::{May, ReadProviders, WriteConfig, WriteProviders};
use super::config::replaced;
use super::examples::example;
use super::limits::Deleted;
use super::problem::{Act, Read, Refusal, Refused, Write, WriteIf};
use super::schema::UnlistedModels;
use crate::config::{CredentialPath, Unlisted};
use crate::domain::health::{PastChange, Reason, Word};
use crate::domain::measurement::Measured;
use crate::domain::scope::canonical_provider;
use crate::pipeline::route::WatchedCredential;
use crate::routing::plan::Readiness;

/// How much is repeated of what a provider says about a failed test.
const MAX_MESSAGE_CHARS: usize = 1_000;

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
#[oai(example)]
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
    /// Whether requests can go there; `false` for an endpoint of the organization's own that has no credential for the
    /// address it is at now.
    usable: bool,
    /// Where it is, if it is an endpoint of the organization's own.
    #[oai(skip_serializing_if_is_none)]
    endpoint: Option<OwnEndpoint>,
}

example!(Provider, {
    "id": "openai", "enabled": true, "health": "passing", "deployments": 3,
    "measured": [{"deployment": "openai/gpt-5-mini", "first_token_ms": 310.5, "tokens_per_second": 62.0,
    "error_rate": 0.01, "cached_share": 0.2, "in_flight": 3}], "usable": true
});

/// An endpoint of an organization's own.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct OwnEndpoint {
    /// What paths are appended to, such as `https://llm.example.com/v1`.
    base_url: String,
    /// What is particular about its format. Default: `openai`, the plain form.
    dialect: Option<String>,
    /// What becomes of models that are not listed for it. Default: `forward`.
    unlisted_models: Option<UnlistedModels>,
    /// Whether it is asked without a credential, as long as there is none. Default: false.
    keyless: Option<bool>,
    /// How many requests may be under way with each of its credentials. Default: any number.
    #[oai(skip_serializing_if_is_none)]
    max_concurrent: Option<u32>,
    /// Whether the organization's requests may go there. Default: true.
    enabled: Option<bool>,
}

example!(OwnEndpoint, {
    "base_url": "https://llm.example.com/v1", "dialect": "openai", "unlisted_models": "refuse", "keyless": false,
    "max_concurrent": 16, "enabled": true
});

/// A credential, without what is in it.
#[derive(Object)]
struct ProviderCredential {
    /// Which of several; absent: the one without a name.
    #[oai(skip_serializing_if_is_none)]
    name: Option<String>,
    /// Whether it is one that other organizations use, too.
    shared: bool,
    /// Whether the provider refused it lately, so that it is left out for a while. Seen from the replica that answers.
    resting: bool,
    /// The region of AWS or the location of Google that it is for.
    #[oai(skip_serializing_if_is_none)]
    region: Option<String>,
    /// How the provider is doing with it for the organization's requests, seen from the replica that answers. Another
    /// credential, another region and another organization may find it otherwise.
    health: Health,
    /// Until when it is out of the rotation.
    #[oai(skip_serializing_if_is_none)]
    ejected_until: Option<DateTime<Utc>>,
    /// What the gateway's own probes with it came to, since its health is kept by the replica that answers.
    #[oai(skip_serializing_if_is_none)]
    probes: Option<Probes>,
    /// How many requests may be under way with it; absent: any number.
    #[oai(skip_serializing_if_is_none)]
    max_concurrent: Option<u32>,
}

/// The gateway's own probes, of which no ledger has anything.
#[derive(Object)]
struct Probes {
    /// How many were made.
    made: u64,
    /// How many of them failed.
    failed: u64,
    /// Tokens they asked with.
    input_tokens: u64,
    /// Tokens they were answered with.
    output_tokens: u64,
    /// What they cost in nano-dollars, as far as there are prices.
    cost_nanousd: i64,
    /// When the last one ended.
    #[oai(skip_serializing_if_is_none)]
    last: Option<DateTime<Utc>>,
}

/// A provider with the credentials that the organization uses there.
#[derive(Object)]
#[oai(example)]
struct ProviderDetails {
    #[oai(flatten)]
    provider: Provider,
    /// Its credentials, the organization's own first.
    credentials: Vec<ProviderCredential>,
}

example!(ProviderDetails, {
    "id": "openai", "enabled": true, "health": "passing", "deployments": 3,
    "measured": [{"deployment": "openai/gpt-5-mini", "first_token_ms": 310.5, "tokens_per_second": 62.0,
    "error_rate": 0.01, "cached_share": 0.2, "in_flight": 3}], "usable": true, "credentials": [{"name": "eu",
    "shared": false, "resting": false, "region": "eu-central-1", "health": "passing", "max_concurrent": 32}]
});

/// How a provider is doing.
#[derive(Object)]
#[oai(example)]
struct ProviderHealth {
    /// How it is doing for the organization's requests, seen from the replica that answers: as well as the best of its
    /// credentials.
    health: Health,
    /// Whether every credential was refused lately.
    credentials_refused: bool,
    /// How it is doing with each credential, the organization's own first.
    credentials: Vec<ProviderCredential>,
    /// What requests have measured since the replica that answers was started.
    measured: Vec<MeasuredDeployment>,
    /// What became of its health in the last 30 days, newest first, at most 200 changes. Each replica keeps a health of its
    /// own, and writes down what it sees.
    history: Vec<ProviderHealthChange>,
}

/// A change of a provider's health.
#[derive(Object)]
struct ProviderHealthChange {
    /// When.
    at: DateTime<Utc>,
    /// Which of several credentials; absent: the one without a name.
    #[oai(skip_serializing_if_is_none)]
    credential: Option<String>,
    /// The region of AWS or the location of Google that is for.
    #[oai(skip_serializing_if_is_none)]
    region: Option<String>,
    /// Whether it is of all organizations that have no place of their own there.
    shared: bool,
    /// What it was.
    from: Health,
    /// What it is since.
    to: Health,
    /// Until when it was to be out of the rotation.
    #[oai(skip_serializing_if_is_none)]
    until: Option<DateTime<Utc>>,
    /// Why.
    reason: HealthReason,
    /// The replica that saw it.
    replica: Uuid,
}

/// Why a provider's health changed.
#[derive(Enum)]
#[oai(rename_all = "snake_case")]
enum HealthReason {
    /// So many requests failed one after the other as may not (`health.failures_in_a_row`).
    FailuresInARow,
    /// Too many of the last seconds' requests failed (`health.failure_percent`), or the first one since it came back.
    TooManyFailures,
    /// Too many of the last seconds' requests took many times as long as usual (`health.slow_percent`).
    TooSlow,
    /// A probe failed, or took many times as long as usual.
    ProbeFailed,
    /// A probe was turned away by a limit of the provider's.
    ProbeLimited,
    /// It has been out of the rotation for long enough to be asked again.
    TimeOver,
    /// A probe was answered.
    ProbeAnswered,
}

impl From<PastChange> for ProviderHealthChange {
    fn from(past: PastChange) -> Self {
        let word = |word| match word {
            Word::Passing => Health::Passing,
            Word::Ejected => Health::Ejected,
            Word::Probing => Health::Probing,
        };
        Self {
            at: past.change.at,
            credential: past.credential,
            region: past.region,
            shared: past.shared,
            from: word(past.change.from),
            to: word(past.change.to),
            until: past.change.until,
            reason: match past.change.reason {
                Reason::FailuresInARow => HealthReason::FailuresInARow,
                Reason::TooManyFailures => HealthReason::TooManyFailures,
                Reason::TooSlow => HealthReason::TooSlow,
                Reason::ProbeFailed => HealthReason::ProbeFailed,
                Reason::ProbeLimited => HealthReason::ProbeLimited,
                Reason::TimeOver => HealthReason::TimeOver,
                Reason::ProbeAnswered => HealthReason::ProbeAnswered,
            },
            replica: past.replica,
        }
    }
}

example!(ProviderHealth, {
    "health": "passing", "credentials_refused": false, "credentials": [{"name": "eu", "shared": false,
    "resting": false, "region": "eu-central-1", "health": "passing", "max_concurrent": 32}],
    "measured": [{"deployment": "openai/gpt-5-mini", "first_token_ms": 310.5, "tokens_per_second": 62.0,
    "error_rate": 0.01, "cached_share": 0.2, "in_flight": 3}], "history": [{"at": "2026-11-30T08:15:42Z", "credential": "eu",
    "region": "eu-central-1", "shared": false, "from": "passing", "to": "ejected", "until": "2026-11-30T08:15:44Z",
    "reason": "failures_in_a_row", "replica": "0199e1c2-1a02-7d19-a6e0-4b8f7c2d3e95"}]
});

/// What is to become different about a provider.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct ProviderPatch {
    /// Whether the organization's requests may go there.
    enabled: bool,
}

example!(ProviderPatch, {"enabled": false});

/// A credential to be stored.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct NewCredential {
    /// Which of several; left out: the one without a name.
    name: Option<String>,
    /// Its values, such as `api_key`. They are stored and never shown again.
    values: HashMap<String, String>,
    /// Whether it is for every organization that was granted the shared credentials. Platform admins alone. Default: false.
    shared: Option<bool>,
}

example!(NewCredential, {"name": "eu", "values": {"api_key": "sk-of-the-account"}});

/// A credential that was stored.
#[derive(Object)]
#[oai(example)]
struct StoredCredential {
    /// The provider.
    provider: String,
    /// Which of several; absent: the one without a name.
    #[oai(skip_serializing_if_is_none)]
    name: Option<String>,
    /// Whether it is shared.
    shared: bool,
}

example!(StoredCredential, {"provider": "openai", "name": "eu", "shared": false});

/// What to test.
#[derive(Object)]
#[oai(deny_unknown_fields, example)]
struct ProviderTest {
    /// The model to ask. Default: the cheapest of the provider's.
    model: Option<String>,
}

example!(ProviderTest, {"model": "gpt-5-mini"});

/// What came of a test.
#[derive(Object)]
#[oai(example)]
struct ProviderTested {
    /// Whether the provider answered as it should.
    ok: bool,
    /// The deployment that was asked.
    deployment: String,
    /// Milliseconds it took.
    latency_ms: u64,
    /// The provider's status, where it answered with another one than 200.
    #[oai(skip_serializing_if_is_none)]
    status: Option<u16>,
    /// What kind of failure it was, in one word: `provider_auth`, `connect`, `timeout`, …
    #[oai(skip_serializing_if_is_none)]
    reason: Option<String>,
    /// What the provider said, or what went wrong.
    #[oai(skip_serializing_if_is_none)]
    message: Option<String>,
}

example!(ProviderTested, {"ok": true, "deployment": "openai/gpt-5-mini", "latency_ms": 412, "status": 200});

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
    async fn list(&self, may: May<ReadProviders>) -> Result<Json<Providers>, Refused<Read>> {
        let states = may.providers().await?.into_iter();
        Ok(Json(Providers {
            data: states.map(Provider::from).collect(),
        }))
    }

    /// One provider
    ///
    /// With the credentials that the organization's requests go with; never what is in them.
    #[oai(path = "/:id", method = "get", operation_id = "getProvider")]
    async fn get(
        &self,
        may: May<ReadProviders>,
        /// Its id.
        id: Path<String>,
    ) -> Result<Json<ProviderDetails>, Refused<Read>> {
        let mut state = may.provider(&id.0).await?;
        let credentials = std::mem::take(&mut state.credentials);
        Ok(Json(ProviderDetails {
            provider: state.into(),
            credentials: credentials.into_iter().map(ProviderCredential::from).collect(),
        }))
    }

    /// How a provider is doing
    ///
    /// As this replica sees it for the organization's requests: the provider as a whole, each of its credentials, and what was
    /// measured of its deployments since the gateway started. With that, what became of its health lately, as every replica saw
    /// it.
    #[oai(path = "/:id/health", method = "get", operation_id = "getProviderHealth")]
    async fn health(
        &self,
        may: May<ReadProviders>,
        /// Its id.
        id: Path<String>,
    ) -> Result<Json<ProviderHealth>, Refused<Read>> {
        let mut state = may.provider(&id.0).await?;
        let history = may.health_history(&state).await?;
        let credentials = std::mem::take(&mut state.credentials);
        let provider = Provider::from(state);
        let refused = |one: &WatchedCredential| one.credential.resting;
        Ok(Json(ProviderHealth {
            health: provider.health,
            credentials_refused: !credentials.is_empty() && credentials.iter().all(refused),
            credentials: credentials.into_iter().map(ProviderCredential::from).collect(),
            measured: provider.measured,
            history: history.into_iter().map(ProviderHealthChange::from).collect(),
        }))
    }

    /// Switch a provider on or off
    ///
    /// For the organization's requests, by its gateway config, of which this makes a new version. Whatever else is said of
    /// it there stays.
    #[oai(path = "/:id", method = "patch", operation_id = "updateProvider")]
    async fn update(
        &self,
        may: May<WriteConfig>,
        /// Its id.
        id: Path<String>,
        body: Json<ProviderPatch>,
    ) -> Result<Json<ProviderPatch>, Refused<Write>> {
        let (id, enabled) = (canonical_provider(&id.0).to_owned(), body.0.enabled);
        let switched = |before: Option<&Value>| {
            let mut providers = before.and_then(Value::as_object).cloned().unwrap_or_default();
            // It may stand there by its other name.
            let known = providers.keys().find(|name| canonical_provider(name) == id).cloned();
            let said = known.and_then(|name| providers.remove(&name));
            let mut said = said.and_then(|said| said.as_object().cloned()).unwrap_or_default();
            said.insert("enabled".to_owned(), enabled.into());
            providers.insert(id.clone(), said.into());
            Ok(Some(providers.into()))
        };
        may.change_member("providers", None, switched).await?;
        Ok(body)
    }

    /// Put an endpoint of the organization's own
    ///
    /// One that speaks OpenAI's format, at an address of the organization's choice, for its requests alone. It becomes the
    /// member `providers` of the gateway config, of which this makes a new version. Only addresses of the public internet
    /// are connected to, and those that whoever runs the gateway allows (`[fetch]`), whatever a name resolves to.
    ///
    /// Its credentials are stored with `PUT …/credentials` afterwards, and each is bound to the address that holds then:
    /// scheme, host and port. When another address is written they are not used any more, until they are entered again or
    /// the address is the old one again.
    #[oai(path = "/:id", method = "put", operation_id = "putProvider")]
    async fn put(
        &self,
        may: May<WriteConfig>,
        /// Its id: at most 32 lower-case letters, digits, `_` and `-`; none of a vendor or of the gateway's configuration.
        id: Path<String>,
        /// The `ETag` of the config that this changes; without it, whatever there is.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: Json<OwnEndpoint>,
    ) -> Result<Json<OwnEndpoint>, Refused<WriteIf>> {
        let id = canonical_provider(&id.0);
        if !CredentialPath::is_part(id) {
            return Err(
                Refusal::bad_request("the id of a provider holds lower-case letters, digits, _ and - only").into(),
            );
        }
        let replaces = if_match.0.as_deref().map(replaced).transpose()?.flatten();
        let mut said = body.0.to_json().unwrap_or_default();
        if let Some(members) = said.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        may.put_endpoint(id, &said, replaces).await?;
        Ok(body)
    }

    /// Take an endpoint of the organization's own away
    ///
    /// With its credentials. As long as the config names it, or models at it, elsewhere, the answer is 409 and says where.
    #[oai(path = "/:id", method = "delete", operation_id = "deleteProvider")]
    async fn delete(
        &self,
        may: May<WriteConfig>,
        /// Its id.
        id: Path<String>,
    ) -> Result<Deleted, Refused<Act>> {
        may.delete_endpoint(canonical_provider(&id.0)).await?;
        Ok(Deleted::Done)
    }

    /// Store a credential
    ///
    /// Of the organization's own, in the place of the one it had. At an endpoint of its own it is bound to the address of
    /// now. Its values are checked, and never shown again. It is in
    /// force on the replica that answers, and on others within `secrets.refresh_ms`. Where credentials are kept in Vault,
    /// the answer is 409 and names the path to write to.
    #[oai(path = "/:id/credentials", method = "put", operation_id = "putProviderCredential")]
    async fn set_credential(
        &self,
        may: May<WriteProviders>,
        /// The provider's id.
        id: Path<String>,
        body: Json<NewCredential>,
    ) -> Result<Json<StoredCredential>, Refused<Write>> {
        let which = Which {
            provider: id.0,
            name: body.0.name,
            shared: body.0.shared.unwrap_or(false),
        };
        let values: BTreeMap<String, String> = body.0.values.into_iter().collect();
        may.set_credential(&which, values).await?;
        Ok(Json(StoredCredential {
            provider: canonical_provider(&which.provider).to_owned(),
            name: which.name,
            shared: which.shared,
        }))
    }

    /// Take a credential away
    ///
    /// It is deleted from the store, and requests stop using it. `name` and `shared` say which one is
    /// meant where there are several.
    #[oai(
        path = "/:id/credentials",
        method = "delete",
        operation_id = "deleteProviderCredential"
    )]
    async fn remove_credential(
        &self,
        may: May<WriteProviders>,
        /// The provider's id.
        id: Path<String>,
        /// Which of several; left out: the one without a name.
        name: Query<Option<String>>,
        /// Whether it is the one that is shared. Platform admins alone.
        shared: Query<Option<bool>>,
    ) -> Result<Deleted, Refused<Act>> {
        let which = Which {
            provider: id.0,
            name: name.0,
            shared: shared.0.unwrap_or(false),
        };
        may.remove_credential(&which).await?;
        Ok(Deleted::Done)
    }

    /// Test a provider
    ///
    /// Makes one small real call, for which the provider charges a handful of tokens. It counts against no limit or
    /// budget and is in no log of requests.
    #[oai(path = "/:id/test", method = "post", operation_id = "testProvider")]
    async fn test(
        &self,
        may: May<WriteProviders>,
        /// Its id.
        id: Path<String>,
        body: Json<ProviderTest>,
    ) -> Result<Json<ProviderTested>, Refused<Write>> {
        let probed = may.test(&id.0, body.0.model.as_deref()).await?;
        Ok(Json(ProviderTested {
            ok: probed.failure.is_none(),
            deployment: probed.deployment.to_string(),
            latency_ms: u64::try_from(probed.took.as_millis()).unwrap_or(u64::MAX),
            status: probed.failure.as_ref().and_then(|failure| failure.status),
            reason: probed.failure.as_ref().map(|failure| failure.class.as_str().to_owned()),
            message: probed
                .failure
                .map(|failure| failure.message.chars().take(MAX_MESSAGE_CHARS).collect()),
        }))
    }
}

impl From<ProviderState> for Provider {
    fn from(state: ProviderState) -> Self {
        Self {
            id: state.id,
            enabled: state.enabled,
            health: state.readiness.into(),
            deployments: state.deployments as u64,
            measured: state
                .measured
                .into_iter()
                .map(|(id, measured)| shown(id, measured))
                .collect(),
            usable: state.usable,
            endpoint: state.own.map(|own| OwnEndpoint {
                base_url: own.base_url.to_string(),
                dialect: Some(own.dialect),
                unlisted_models: Some(match own.unlisted {
                    Unlisted::Forward => UnlistedModels::Forward,
                    Unlisted::Refuse => UnlistedModels::Refuse,
                }),
                keyless: Some(own.keyless),
                max_concurrent: own.max_concurrent,
                enabled: Some(state.enabled),
            }),
        }
    }
}

impl From<WatchedCredential> for ProviderCredential {
    fn from(watched: WatchedCredential) -> Self {
        let WatchedCredential {
            credential,
            readiness,
            ejected_until,
            probes,
        } = watched;
        Self {
            region: credential.spot.as_ref().and_then(|spot| spot.region.clone()),
            name: credential.name,
            shared: credential.shared,
            resting: credential.resting,
            health: readiness.into(),
            ejected_until,
            probes: (probes.made > 0).then_some(Probes {
                made: probes.made,
                failed: probes.failed,
                input_tokens: probes.input_tokens,
                output_tokens: probes.output_tokens,
                cost_nanousd: probes.cost.0,
                last: probes.last,
            }),
            max_concurrent: credential.max_concurrent,
        }
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
