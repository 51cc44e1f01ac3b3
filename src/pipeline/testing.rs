//! What the tests of several steps share: a pipeline with the echo model and nobody to call, and requests on it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::meter::Meter;
use super::{Again, BudgetRules, Call, Pipeline, PipelineLimits, Voice};
use crate::cache::{CacheBounds, ResponseCache};
use crate::chat::request::{BodyLimits, DialectHeaders};
use crate::cluster::Limiter;
use crate::config::{self, KnownDialect, Sources};
use crate::domain::address::AddressRules;
use crate::domain::budget::BudgetId;
use crate::domain::budget::purse::Heard;
use crate::domain::caching::{CacheControl, CachePolicy};
use crate::domain::call::{Dialect, Operation, ParameterPolicy};
use crate::domain::error::BoxError;
use crate::domain::ids::{KeyId, OrganizationId, RequestId};
use crate::domain::key::{KeyHash, KeyRow, Named, Revision};
use crate::domain::limit::WhenApart;
use crate::domain::money::NanoUsd;
use crate::domain::overload::LagPolicy;
use crate::domain::record::UsageRecord;
use crate::domain::retry_budget::RetryPolicy;
use crate::domain::scope::Scope;
use crate::gates::budgets::{Ask, Bank, BudgetLimits, Budgets};
use crate::gates::health_board::HealthBoard;
use crate::gates::key_gate::KeyGate;
use crate::gates::load_gate::{CredentialGates, LagGate, LoadGate, LoadPolicy};
use crate::gates::measurements::SlowCalls;
use crate::gates::payloads::PayloadGate;
use crate::gates::policies::Policies;
use crate::gates::retry_gate::RetryGate;
use crate::journal;
use crate::providers::adapter::StreamLimits;
use crate::routing::catalog::{Catalog, Deployment};
use crate::routing::document::Policy;
use crate::routing::strategy::Strategy;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Tracer;
use crate::upstream::Upstream;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::fetcher::{FetchPolicy, Fetcher};
use crate::upstream::rest::RestPolicy;

const VOICE: Voice = Voice {
    dialect: Dialect::OpenAi,
    status: |_| 500,
    event: |_, _| Bytes::from_static(b"error"),
    keep_alive: b": still here\n\n",
};

/// The bank of a pipeline without budgets.
struct NoBank;

#[async_trait::async_trait]
impl Bank for NoBank {
    async fn exchange(&self, _ask: Ask) -> Result<Option<Heard>, BoxError> {
        Err("there is no bank".into())
    }

    async fn spent(&self, _budget: BudgetId, _start: DateTime<Utc>) -> Result<NanoUsd, BoxError> {
        Err("there is no bank".into())
    }
}

/// A pipeline of which nothing is shared with anybody.
pub(super) fn pipeline() -> Arc<Pipeline> {
    pipeline_of("")
}

/// The same with the providers of a configuration file besides.
pub(super) fn pipeline_of(file: &str) -> Arc<Pipeline> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let sources = Sources {
        file: Some(("test.toml".into(), file.to_owned())),
        ..Sources::default()
    };
    let plain = KnownDialect {
        name: "openai",
        base_url: None,
        api_key_variable: None,
    };
    let settings = config::load(&sources, &[plain])
        .unwrap_or_else(|faults| panic!("{faults}"))
        .settings;
    let catalog = Catalog::build(&settings);
    let rest = RestPolicy {
        first: settings.secrets.rest,
        most: settings.secrets.max_rest,
    };
    let endpoints = Endpoints::new(reqwest::Client::new(), rest, settings.secrets.renewal_wait);
    assert!(endpoints.replace(&settings.providers, &[], &[]).is_empty());
    let waiting = BudgetLimits {
        wait: Duration::ZERO,
        max_waiting: 0,
        lease: Duration::from_secs(20),
    };
    Arc::new(Pipeline {
        board: Arc::new(HealthBoard::default()),
        payloads: Arc::new(PayloadGate::new(Arc::default()).0),
        budgets: Arc::new(Budgets::new(Arc::new(NoBank), waiting, Arc::default())),
        load: Arc::new(LoadGate::new(LoadPolicy {
            places: 100,
            queue: 0,
            patience: Duration::ZERO,
        })),
        lag: Arc::new(LagGate::new(LagPolicy { target: Duration::ZERO })),
        credentials: Arc::new(CredentialGates::new(1, Duration::from_secs(1))),
        cache: Arc::new(ResponseCache::new(
            CacheBounds {
                max_bytes: 1 << 20,
                max_entry_bytes: 1 << 16,
                wait: Duration::from_secs(1),
            },
            None,
        )),
        counting: super::counting::Places::default(),
        retries: Arc::new(RetryGate::new(RetryPolicy {
            percent: 20,
            floor_per_second: 10,
        })),
        catalog: Arc::new(ArcSwap::from_pointee(catalog)),
        endpoints: Arc::new(endpoints),
        upstream: Upstream::new(&settings.upstream, &settings.timeouts, AddressRules::default()),
        fetcher: Fetcher::new(FetchPolicy::from(&settings.fetch), Arc::default()),
        measurements: Arc::default(),
        policies: Arc::new(Policies::new(Policy::of_strategy(Strategy::Failover))),
        limiter: Limiter::alone(WhenApart::Local, Arc::default()),
        journal: journal::testing::in_memory(10),
        metrics: Arc::new(Metrics::default()),
        tracer: Tracer::off(),
        limits: PipelineLimits {
            body: BodyLimits {
                depth: 64,
                messages: 100,
                embedding_inputs: 100,
            },
            stream: StreamLimits {
                max_event_bytes: 1 << 20,
            },
            max_answer_bytes: 1 << 20,
            max_attempts: 3,
            again: Again {
                enabled: false,
                base: Duration::from_millis(100),
                most: Duration::from_secs(2),
            },
            slow_calls: SlowCalls::new(5, Duration::from_secs(1)),
            caching: CachePolicy {
                ttl: Duration::ZERO,
                unpredictable: false,
                tools: false,
            },
            parameters: ParameterPolicy::Warn,
            keep_alive: Duration::from_secs(15),
            budgets: BudgetRules {
                default_output_tokens: None,
                image_tokens: 1_000,
            },
            assumed_output_tokens: 1_000,
        },
        stop: CancellationToken::new(),
    })
}

/// The echo model's deployment.
pub(super) fn deployment(pipeline: &Pipeline) -> Arc<Deployment> {
    let catalog = pipeline.catalog.load();
    catalog.resolve("echo", Operation::Chat).unwrap().deployments.remove(0)
}

/// The meter of a request that was just let in.
pub(super) fn meter(pipeline: &Arc<Pipeline>) -> Meter {
    let row = KeyRow {
        id: KeyId(Uuid::now_v7()),
        organization: Named {
            id: OrganizationId(Uuid::now_v7()),
            slug: "test".into(),
            name: "Test".into(),
        },
        team: None,
        owner: None,
        name: "test".into(),
        prefix: "bn-test".into(),
        scope: Scope::default(),
        scopes: Vec::new(),
        rate_limit: 60,
        budgets: Vec::new(),
        parameter_policy: None,
        parameters: None,
        cache_ttl: None,
        max_output_tokens: None,
        limits: Vec::new(),
        metadata: serde_json::json!({}),
        allowed_ips: Vec::new(),
        shared_credentials: true,
        disabled: false,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        created_at: Utc::now(),
        previous: None,
        revision: Revision(0),
    };
    let call = Call {
        id: RequestId(Uuid::now_v7()),
        received: Instant::now(),
        admitted_at: Utc::now(),
        gate: Arc::new(KeyGate::new(row, KeyHash([0; 32]))),
        operation: Operation::Chat,
        voice: VOICE,
        headers: DialectHeaders::default(),
        visible_headers: Vec::new(),
        cache_control: CacheControl::default(),
    };
    pipeline.admit(call).unwrap()
}

/// The records of everything that has ended; each is handed out once.
pub(super) fn records(pipeline: &Pipeline) -> Vec<UsageRecord> {
    let Some(Some(batch)) = pipeline.journal.batch(100).now_or_never() else {
        return Vec::new();
    };
    let records = batch.records().to_vec();
    batch.commit();
    records
}
