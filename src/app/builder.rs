//! Builds a gateway out of its settings and its database, and starts its actors.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use ractor::{Actor, ActorRef};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::budgets::DatabaseBank;
use super::control::Control;
use super::first_start::{self, OpenError, Opened};
use super::inference::PipelineInference;
use super::notices::{StoredNotices, WRITING};
use super::payloads::{self, SealedPayloads};
use super::probes::Probes;
use super::spend::LedgerAndJournal;
use super::webhooks::{self, StoredWebhooks};
use crate::actors::budgets::BudgetsArgs;
use crate::actors::catalog::{CatalogArgs, CatalogHandle};
use crate::actors::configs::ConfigsArgs;
use crate::actors::keys::{KeysArgs, KeysHandle};
use crate::actors::ledger::{LedgerArgs, LedgerHandle};
use crate::actors::provider::{ProbeTerms, WatchTerms};
use crate::actors::providers::ProvidersArgs;
use crate::actors::replicas::ReplicasArgs;
use crate::actors::root::{Root, RootArgs, RootMsg};
use crate::actors::secrets::SecretsArgs;
use crate::actors::secrets::keeper::{Keeper, KeeperArgs};
use crate::actors::snapshot::SnapshotArgs;
use crate::analytics::Analytics;
use crate::cache::shared::{Seal, Shared};
use crate::cache::{CacheBounds, ResponseCache};
use crate::chat::request::BodyLimits;
use crate::cluster::Limiter;
use crate::cluster::redis::RedisOptions;
use crate::config::{JournalSettings, Settings, TracingSettings};
use crate::domain::address::AddressRules;
use crate::domain::caching::CachePolicy;
use crate::domain::error::BoxError;
use crate::domain::health::HealthPolicy;
use crate::domain::ids::OrganizationId;
use crate::domain::overload::LagPolicy;
use crate::domain::retry_budget::RetryPolicy;
use crate::domain::throttle::ThrottlePolicy;
use crate::gates::budgets::{BudgetLimits, Budgets};
use crate::gates::health_board::HealthBoard;
use crate::gates::keyring::{Keyring, Lifetimes};
use crate::gates::load_gate::{CredentialGates, LagGate, LoadGate, LoadPolicy};
use crate::gates::measurements::SlowCalls;
use crate::gates::payloads::PayloadGate;
use crate::gates::people::Sessions;
use crate::gates::policies::Policies;
use crate::gates::price_memory::PriceMemory;
use crate::gates::retry_gate::RetryGate;
use crate::gates::secrets_board::SecretsBoard;
use crate::gates::sign_in_gate::{SignInGate, SignInPolicy};
use crate::http::HttpState;
use crate::http::management::{BrowserSessions, CredentialDesk, KeyDesk, Management, People, SignInLifetimes};
use crate::http::operations::Operations;
use crate::jobs::batch::BatchRules;
use crate::jobs::export::{self, Exports};
use crate::jobs::files::{self, Files};
use crate::jobs::{self, BatchArgs, JobsArgs, Keep, WebhookArgs};
use crate::journal::{self, Journal, JournalOptions};
use crate::pipeline::counting::Places;
use crate::pipeline::{Again, BudgetRules, Pipeline, PipelineLimits};
use crate::providers::adapter::StreamLimits;
use crate::queue::census::Census;
use crate::queue::worker::{Worker, WorkerOptions};
use crate::routing::catalog::Catalog;
use crate::routing::document::Policy;
use crate::secrets::cache_seal::CacheSeal;
use crate::secrets::csrf::CsrfProofs;
use crate::secrets::management_token::ManagementTokens;
use crate::secrets::master_key::MasterKey;
use crate::secrets::oidc::Oidc;
use crate::secrets::password::Passwords;
use crate::secrets::payload_seal::PayloadSeal;
use crate::secrets::refresh_token::RefreshTokens;
use crate::secrets::sealing::Sealer;
use crate::secrets::source::SecretSource;
use crate::store::Store;
use crate::store::budgets::SliceTerms;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Tracer;
use crate::telemetry::trace::export::Exporter;
use crate::upstream::Upstream;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::fetcher::{FetchPolicy, Fetcher};
use crate::upstream::rest::RestPolicy;

/// The journal's directory in the data directory.
const JOURNAL_DIR: &str = "journal";

/// How long a call to anything but a model may take: tokens today, webhooks later.
const CONTROL_CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// The answers that are kept: in memory, and in Redis where there is one.
fn response_cache(settings: &Settings, limiter: &Limiter, master_key: &MasterKey) -> Arc<ResponseCache> {
    let bounds = CacheBounds {
        max_bytes: settings.cache.max_bytes,
        max_entry_bytes: settings.cache.max_entry_bytes,
        wait: settings.cache.wait,
    };
    let redis = limiter.redis().filter(|_| settings.cache.shared);
    let shared = redis.map(|redis| Shared::new(redis.clone(), Arc::new(CacheSeal::new(master_key))));
    Arc::new(ResponseCache::new(bounds, shared))
}

impl Seal for CacheSeal {
    fn name(&self, organization: OrganizationId, digest: &[u8; 32]) -> String {
        self.name(organization, digest)
    }

    fn seal(&self, organization: OrganizationId, name: &str, plain: &[u8]) -> Vec<u8> {
        self.seal(organization, name, plain)
    }

    fn open(&self, organization: OrganizationId, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open(organization, name, sealed)
    }
}

/// Where endpoints may be that organizations chose themselves.
fn allowed_addresses(settings: &Settings) -> AddressRules {
    FetchPolicy::from(&settings.fetch).addresses
}

/// The gate of a thread that is in time.
fn lag_gate(settings: &Settings) -> Arc<LagGate> {
    Arc::new(LagGate::new(LagPolicy {
        target: settings.overload.lag,
    }))
}

/// A gateway whose actors run and whose listeners do not yet.
pub struct Gateway {
    /// The settings, with the providers there are now.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Keeps the providers up with the secrets and the configuration file.
    pub keeper: Arc<Keeper>,
    /// For the main listener.
    pub http: Arc<HttpState>,
    /// For the operations listener.
    pub operations: Arc<Operations>,
    /// The database.
    pub store: Store,
    /// The records that wait.
    pub journal: Arc<Journal>,
    /// Writes them.
    pub ledger: LedgerHandle,
    /// The open keys.
    pub keys: KeysHandle,
    /// How providers are doing.
    pub board: Arc<HealthBoard>,
    /// Counts requests against their limits.
    pub limiter: Arc<Limiter>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Sends the spans of traces, where there is somewhere to send them.
    pub exporter: Option<Exporter>,
    /// Set when the process begins to stop.
    pub stopping: Arc<AtomicBool>,
    /// Cancelled when streams must end.
    pub cut_streams: CancellationToken,
    /// Writes prompts and answers that are to be kept.
    pub keeping: AbortOnDropHandle<()>,
    /// What jobs work with.
    pub jobs: JobsArgs,
    /// Tells organizations how providers are doing.
    pub notices: Arc<StoredNotices>,
    /// The last good snapshot, and where it is written.
    pub snapshot: SnapshotArgs,
    /// Waits for the database, where the start went on without it.
    pub catching_up: Option<JoinHandle<Result<(), OpenError>>>,
    /// The top of the actors, and its end.
    pub root: (ActorRef<RootMsg>, JoinHandle<()>),
}

impl Gateway {
    /// What a worker's endpoints work with: everything is shared but the connections to providers.
    pub fn http_for_another_worker(&self, settings: &Settings) -> Arc<HttpState> {
        let upstream = Upstream::new(&settings.upstream, &settings.timeouts, allowed_addresses(settings));
        let pipeline = Pipeline {
            upstream,
            lag: lag_gate(settings),
            ..Pipeline::clone(&self.http.pipeline)
        };
        Arc::new(HttpState {
            pipeline: Arc::new(pipeline),
            ..HttpState::clone(&self.http)
        })
    }

    /// Starts a worker that does every job.
    pub fn start_worker(&self, settings: &Settings) -> Worker {
        let options = WorkerOptions {
            lease: settings.jobs.lease,
            poll: settings.jobs.poll,
            drain: settings.jobs.drain,
        };
        let (metrics, tracer) = (self.metrics.clone(), self.http.pipeline.tracer.clone());
        Worker::start(self.store.clone(), jobs::all(&self.jobs), metrics, tracer, options)
    }

    /// Starts counting jobs, whoever does them.
    pub fn start_census(&self) -> Census {
        Census::start(self.store.clone(), self.metrics.clone())
    }

    /// Builds everything and starts the actors.
    ///
    /// # Errors
    /// A credential cannot be used, or an actor does not start.
    pub async fn start(settings: Arc<Settings>, opened: &Opened) -> Result<Self, BoxError> {
        let control = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(CONTROL_CALL_TIMEOUT)
            .build()?;
        let rest = RestPolicy {
            first: settings.secrets.rest,
            most: settings.secrets.max_rest,
        };
        let outgoing = control.clone();
        let endpoints = Arc::new(Endpoints::new(control, rest, settings.secrets.renewal_wait));
        let metrics = Arc::new(Metrics::default());
        opened.store.count_with(metrics.clone());
        let (tracer, exporter) = tracing_of(&settings.tracing, &outgoing, &metrics);
        let board = Arc::new(HealthBoard::new(settings.health.max_watched));
        let probing = &settings.health.probe;
        let probes = probing.by.map(|by| Arc::new(Probes::new(by, probing)));
        let secrets = Arc::new(SecretsBoard::default());
        let live = Arc::new(ArcSwap::from(settings.clone()));
        let catalog_handle = CatalogHandle::default();
        let policies = Arc::new(Policies::new(Policy::of_strategy(settings.routing.default_strategy)));
        let from_snapshot = opened.snapshot.is_start;
        let snapshot = SnapshotArgs {
            snapshot: opened.snapshot.snapshot.clone(),
            file: opened.snapshot.file.clone(),
            every: settings.snapshot.write,
            metrics: metrics.clone(),
        };
        if from_snapshot {
            metrics.snapshot_starts.inc();
        }
        let keeper = Arc::new(Keeper::new(KeeperArgs {
            source: SecretSource::open(&settings, &opened.master_key)?,
            settings: live.clone(),
            endpoints: endpoints.clone(),
            catalog: catalog_handle.clone(),
            board: board.clone(),
            secrets: secrets.clone(),
            policies: policies.clone(),
            snapshot: snapshot.snapshot.clone(),
            from_snapshot,
            metrics: metrics.clone(),
        }));
        keeper.read_first().await;
        let journal = open_journal(&settings, &metrics).await?;
        let catalog = Arc::new(ArcSwap::from_pointee(Catalog::default()));
        let (keys, ledger) = (KeysHandle::default(), LedgerHandle::default());
        let keyring = Arc::new(Keyring::new(
            settings.keys.cache_entries,
            Lifetimes {
                idle: settings.keys.idle,
                most: settings.keys.max_age,
            },
            Arc::new(keys.clone()),
        ));
        let slices = SliceTerms {
            lease: settings.budgets.lease,
            grace: settings.budgets.grace,
        };
        let bank = DatabaseBank {
            store: opened.store.clone(),
            terms: slices,
        };
        let waiting = BudgetLimits {
            wait: settings.budgets.wait,
            max_waiting: settings.budgets.max_waiting,
            lease: settings.budgets.lease,
        };
        let budgets = Arc::new(Budgets::new(Arc::new(bank), waiting, metrics.clone()));
        let cut_streams = CancellationToken::new();
        let stopping = Arc::new(AtomicBool::new(false));

        let replica = Uuid::now_v7();
        let when_apart = settings.rate_limits.when_redis_is_away;
        let limiter = match &settings.redis.url {
            None => Limiter::alone(when_apart, metrics.limits.clone()),
            Some(url) => {
                let redis = RedisOptions {
                    url: url.clone(),
                    prefix: settings.redis.prefix.clone(),
                    replica: replica.to_string(),
                    patience: settings.redis.timeout,
                };
                Limiter::together(redis, when_apart, metrics.limits.clone()).await?
            }
        };

        let notices = Arc::new(StoredNotices {
            store: opened.store.clone(),
            endpoints: endpoints.clone(),
            writing: Arc::new(Semaphore::new(WRITING)),
        });
        let root = RootArgs {
            keys: KeysArgs {
                store: opened.store.clone(),
                keyring: keyring.clone(),
                poll: settings.keys.poll,
                idle: settings.keys.idle,
                budgets: budgets.clone(),
                snapshot: snapshot.snapshot.clone(),
                metrics: metrics.clone(),
            },
            providers: ProvidersArgs {
                board: board.clone(),
                terms: WatchTerms {
                    policy: HealthPolicy {
                        failures_in_a_row: settings.health.failures_in_a_row,
                        failure_percent: settings.health.failure_percent,
                        slow_percent: settings.health.slow_percent,
                        failure_percent_attempts: settings.health.failure_percent_attempts,
                        eject: settings.health.eject,
                        max_eject: settings.health.max_eject,
                    },
                    idle: settings.health.idle,
                    probes: probes.clone().map(|prober| ProbeTerms {
                        every: probing.every,
                        passing: probing.passing,
                        prober,
                    }),
                    notices: notices.clone(),
                    metrics: metrics.clone(),
                },
            },
            budgets: BudgetsArgs {
                budgets: budgets.clone(),
                store: opened.store.clone(),
                terms: slices,
                metrics: metrics.clone(),
            },
            ledger: LedgerArgs {
                budgets: budgets.clone(),
                prices: Arc::new(PriceMemory::new(catalog.clone(), policies.clone())),
                journal: journal.clone(),
                store: opened.store.clone(),
                metrics: metrics.clone(),
                tracer: tracer.clone(),
                batch_rows: settings.ledger.batch_rows,
                flush: settings.ledger.flush,
            },
            catalog: CatalogArgs {
                settings: live.clone(),
                catalog: catalog.clone(),
            },
            configs: ConfigsArgs {
                store: opened.store.clone(),
                policies: policies.clone(),
                poll: settings.keys.poll,
                default_strategy: settings.routing.default_strategy,
                snapshot: snapshot.snapshot.clone(),
                from_snapshot,
                metrics: metrics.clone(),
            },
            secrets: SecretsArgs { keeper: keeper.clone() },
            replicas: ReplicasArgs {
                // The embedded database belongs to one process, unless somebody says otherwise by naming a Redis.
                store: (limiter.redis().is_some() || !first_start::store_options(&settings).is_sqlite())
                    .then(|| opened.store.clone()),
                replica,
                beat: settings.rate_limits.heartbeat,
                limiter: limiter.clone(),
                snapshot: snapshot.snapshot.clone(),
                from_snapshot,
            },
            snapshot: snapshot.clone(),
            catalog_handle,
            ledger_handle: ledger.clone(),
            keys_handle: keys.clone(),
            metrics: metrics.clone(),
        };
        let root = Actor::spawn(None, Root, root).await?;

        let catching_up = from_snapshot.then(|| {
            let (store, master_key) = (opened.store.clone(), opened.master_key.clone());
            tokio::spawn(async move { first_start::catch_up(&store, &master_key).await })
        });

        let (payloads, to_keep) = PayloadGate::new(metrics.clone());
        let seal = PayloadSeal::new(&opened.master_key);
        let keeping = payloads::keep(to_keep, opened.store.clone(), seal.clone(), metrics.clone());
        let pipeline = Arc::new(Pipeline {
            catalog,
            endpoints,
            upstream: Upstream::new(&settings.upstream, &settings.timeouts, allowed_addresses(&settings)),
            fetcher: Fetcher::new(FetchPolicy::from(&settings.fetch), metrics.clone()),
            board: board.clone(),
            measurements: Arc::default(),
            policies,
            budgets,
            limiter: limiter.clone(),
            load: Arc::new(LoadGate::new(LoadPolicy {
                places: settings.overload.max_in_flight,
                queue: settings.overload.max_queued,
                patience: settings.overload.queue_wait,
            })),
            lag: lag_gate(&settings),
            credentials: Arc::new(CredentialGates::new(
                settings.overload.credential_queue,
                settings.overload.queue_wait,
            )),
            cache: response_cache(&settings, &limiter, &opened.master_key),
            counting: Places::default(),
            retries: Arc::new(RetryGate::new(RetryPolicy {
                percent: settings.failover.retry_percent,
                floor_per_second: settings.failover.retry_floor_per_second,
            })),
            payloads: Arc::new(payloads),
            journal: journal.clone(),
            metrics: metrics.clone(),
            tracer: tracer.clone(),
            limits: PipelineLimits {
                body: BodyLimits {
                    depth: settings.limits.json_depth,
                    messages: settings.limits.messages,
                    embedding_inputs: settings.limits.embedding_inputs,
                },
                stream: StreamLimits {
                    max_event_bytes: settings.upstream.max_event_bytes,
                },
                max_answer_bytes: settings.upstream.max_answer_bytes,
                max_attempts: settings.failover.max_attempts,
                again: Again {
                    enabled: settings.failover.same_deployment,
                    base: settings.failover.backoff,
                    most: settings.failover.max_backoff,
                },
                slow_calls: SlowCalls::new(settings.health.slow_times, settings.health.slow_least),
                caching: CachePolicy {
                    ttl: settings.cache.ttl,
                    unpredictable: settings.cache.unpredictable,
                    tools: settings.cache.tools,
                },
                parameters: settings.parameters.policy,
                keep_alive: settings.stream.keep_alive,
                budgets: BudgetRules {
                    default_output_tokens: settings.budgets.default_output_tokens,
                    image_tokens: settings.budgets.image_tokens,
                },
                assumed_output_tokens: settings.rate_limits.assumed_output_tokens,
            },
            stop: cut_streams.clone(),
        });
        if let Some(probes) = &probes {
            probes.ask_by(&pipeline);
        }
        let control = Arc::new(Control {
            store: opened.store.clone(),
        });
        let sealer = Sealer::new(&opened.master_key, webhooks::PURPOSE);
        let webhooks = Arc::new(StoredWebhooks {
            store: opened.store.clone(),
            sealer: sealer.clone(),
            fetcher: pipeline.fetcher.clone(),
            allow_http: settings.webhooks.allow_http,
        });
        let files = Files {
            store: opened.store.clone(),
            sealer: Sealer::new(&opened.master_key, files::PURPOSE),
            keep: settings.batches.keep_files,
        };
        let exports = Exports {
            store: opened.store.clone(),
            sealer: Sealer::new(&opened.master_key, export::PURPOSE),
            max_bytes: settings.usage.max_export_bytes,
            keep: settings.usage.keep_exports,
        };
        let jobs = JobsArgs {
            exports: exports.clone(),
            store: opened.store.clone(),
            metrics: pipeline.metrics.clone(),
            keep: Keep {
                done_jobs: settings.jobs.keep_done,
                dead_jobs: settings.jobs.keep_dead,
                deliveries: settings.webhooks.keep,
                requests_days: settings.usage.keep_requests_days,
            },
            batches: BatchArgs {
                files: files.clone(),
                inference: Arc::new(PipelineInference {
                    pipeline: pipeline.clone(),
                    keyring: keyring.clone(),
                    store: opened.store.clone(),
                }),
                rules: BatchRules {
                    concurrency: settings.batches.concurrency,
                    max_requests: settings.batches.max_requests,
                    max_line_bytes: settings.limits.chat_body_bytes,
                },
            },
            webhooks: WebhookArgs {
                fetcher: pipeline.fetcher.clone(),
                sealer: sealer.clone(),
                timeout: settings.webhooks.timeout,
                patience: settings.webhooks.patience,
                tracer,
            },
        };
        let public_url = settings
            .server
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://{}", settings.server.listen));
        Ok(Self {
            settings: live.clone(),
            keeper,
            http: Arc::new(HttpState {
                management: Arc::new(Management {
                    tokens: ManagementTokens::new(&opened.master_key),
                    browsers: BrowserSessions {
                        tokens: ManagementTokens::of_dashboard(&opened.master_key),
                        proofs: CsrfProofs::new(&opened.master_key),
                        secure: public_url.starts_with("https://"),
                    },
                    configs: control.clone(),
                    directory: control.clone(),
                    audit: control.clone(),
                    repricings: control.clone(),
                    exports: Arc::new(exports),
                    batches: control.clone(),
                    jobs: Arc::new(opened.store.clone()),
                    keys: KeyDesk {
                        control: control.clone(),
                        limits: control.clone(),
                        budgets: control.clone(),
                        hasher: opened.master_key.key_hasher(),
                        keyring: keyring.clone(),
                    },
                    webhooks,
                    analytics: Arc::new(Analytics {
                        store: opened.store.clone(),
                    }),
                    people: people(&settings, &opened.master_key, control, outgoing, &public_url),
                    payloads: Arc::new(SealedPayloads {
                        store: opened.store.clone(),
                        seal,
                    }),
                    credentials: CredentialDesk {
                        source: Arc::new(SecretSource::open(&settings, &opened.master_key)?),
                        settings: live.clone(),
                    },
                    pipeline: pipeline.clone(),
                }),
                pipeline,
                keyring,
                files,
                spend: Arc::new(LedgerAndJournal {
                    store: opened.store.clone(),
                    journal: journal.clone(),
                }),
                hasher: opened.master_key.key_hasher(),
                metrics: metrics.clone(),
                settings,
                public_url,
                stopping: stopping.clone(),
            }),
            operations: Arc::new(Operations {
                metrics: metrics.clone(),
                journal: journal.clone(),
                board: board.clone(),
                secrets,
                limiter: limiter.clone(),
                store: opened.store.clone(),
                snapshot: snapshot.snapshot.clone(),
                stopping: stopping.clone(),
            }),
            store: opened.store.clone(),
            journal,
            ledger,
            keys,
            board,
            limiter,
            metrics,
            exporter,
            stopping,
            cut_streams,
            keeping: AbortOnDropHandle::new(keeping),
            jobs,
            notices,
            snapshot,
            catching_up,
            root,
        })
    }
}

/// What begins traces, and what sends their spans.
fn tracing_of(
    settings: &TracingSettings,
    client: &reqwest::Client,
    metrics: &Arc<Metrics>,
) -> (Tracer, Option<Exporter>) {
    let Some(url) = settings.url.clone() else {
        return (Tracer::off(), None);
    };
    let (outbox, exporter) = Exporter::start(settings, url, client.clone(), metrics.clone());
    (Tracer::new(settings, outbox), Some(exporter))
}

/// What management works with where people are concerned.
fn people(
    settings: &Settings,
    master_key: &MasterKey,
    control: Arc<Control>,
    outgoing: reqwest::Client,
    public_url: &str,
) -> People {
    let auth = &settings.auth;
    let oidc = settings.oidc.clone();
    People {
        sign_ins: control.clone(),
        users: control.clone(),
        tenants: control.clone(),
        sessions: Sessions::new(control, auth.recheck),
        passwords: Passwords::default(),
        refresh_tokens: RefreshTokens::new(master_key),
        gate: SignInGate::new(SignInPolicy {
            account: ThrottlePolicy {
                burst: auth.account_attempts,
                recovery: auth.account_recovery,
            },
            address: ThrottlePolicy {
                burst: auth.address_attempts,
                recovery: auth.address_recovery,
            },
        }),
        oidc: oidc.is_set().then(|| Oidc::new(oidc, public_url, outgoing, master_key)),
        trusted_proxies: settings.server.trusted_proxies.clone(),
        lifetimes: SignInLifetimes {
            access: auth.access_token,
            refresh: auth.refresh_token,
            session: auth.session,
        },
    }
}

/// Opens the journal. That reads what an earlier process left in it, which must not hold up a runtime.
async fn open_journal(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Arc<Journal>, BoxError> {
    let JournalSettings {
        dir,
        max_records,
        max_bytes,
        sync,
        sync_interval,
    } = settings.journal.clone();
    let options = JournalOptions {
        dir: dir.unwrap_or_else(|| settings.data.dir.join(JOURNAL_DIR)),
        max_records,
        max_bytes,
        sync,
        sync_interval,
    };
    let metrics = metrics.clone();
    let opened = tokio::task::spawn_blocking(move || Journal::open(options, metrics)).await?;
    Ok(opened.map_err(|error: journal::OpenError| Box::new(error))?)
}
