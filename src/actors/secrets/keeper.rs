//! Keeps the last good secrets, and publishes what follows from them: endpoints, catalogue, health board.
//!
//! A store that cannot be asked changes nothing. A credential that is there and cannot be read or understood stays as it
//! was; one that was taken away is gone. So a mistake in one secret takes nothing else down.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::actors::catalog::CatalogHandle;
use crate::config::{CredentialSettings, ProviderSettings, Settings, Stored, Unlisted};
use crate::gates::health_board::HealthBoard;
use crate::gates::policies::{EndpointsSink, Policies};
use crate::gates::secrets_board::SecretsBoard;
use crate::secrets::source::{Contents, SecretSource, SourceError, Wait};
use crate::snapshot::{Moment, Snapshot};
use crate::telemetry::metrics::Metrics;
use crate::upstream::endpoints::{Endpoints, ReadNow};

/// After a failed reading the next one comes sooner than usual.
const RETRY: Duration = Duration::from_secs(5);
/// How long a start waits for the store that goes on from the last good snapshot: the database is away already.
const HURRIED: Duration = Duration::from_millis(500);
/// The least time between two readings that nobody asked for.
const LEAST: Duration = Duration::from_millis(50);

/// What the keeper works with.
pub struct KeeperArgs {
    /// Where the secrets are.
    pub source: SecretSource,
    /// The settings as they are now; their providers follow the secrets.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Where the endpoints are published.
    pub endpoints: Arc<Endpoints>,
    /// Hears of other providers.
    pub catalog: CatalogHandle,
    /// Where credentials are watched, as long as they are there.
    pub board: Arc<HealthBoard>,
    /// Where it is told how the secrets are.
    pub secrets: Arc<SecretsBoard>,
    /// Knows the endpoints of organizations' own.
    pub policies: Arc<Policies>,
    /// Remembers what was read, for a start at which it cannot be.
    pub snapshot: Arc<Snapshot>,
    /// Whether the start goes on from that, because the database is away.
    pub from_snapshot: bool,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// The last good secrets, and what they are published to.
pub struct Keeper {
    args: KeeperArgs,
    held: Mutex<Held>,
    failed: AtomicBool,
}

#[derive(Default)]
struct Held {
    stored: Stored,
    /// What was published of them; `None`: nothing yet of what the configuration says now.
    providers: Option<Vec<ProviderSettings>>,
    /// What was said already, so that it is not said with every reading.
    said: BTreeSet<String>,
}

impl Keeper {
    /// A keeper that has read nothing yet.
    pub fn new(args: KeeperArgs) -> Self {
        Self {
            args,
            held: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    /// The first reading. A store that is down is waited for, `secrets.start_wait_ms` in all; then the start goes on with
    /// what the last good snapshot has of it, or else without what only it has.
    pub async fn read_first(&self) {
        let settings = self.args.settings.load_full();
        let expected = settings.reader.expected();
        let patience = match self.args.from_snapshot {
            true => settings.secrets.start_wait.min(HURRIED),
            false => settings.secrets.start_wait,
        };
        let last_good = self.args.snapshot.credentials(Instant::now());
        let reading = Wait::new(patience).until(async || self.args.source.read(&expected).await);
        let read = match &last_good {
            // One call may take longer than there is time for.
            Some(_) => tokio::time::timeout(patience, reading).await.unwrap_or_else(|_| {
                let name = self.args.source.name().to_owned();
                Err(SourceError::Unreachable(name))
            }),
            None => reading.await,
        };
        match (&read, last_good) {
            (Err(error), Some((stored, age))) => {
                tracing::error!(
                    %error, store = self.args.source.name(), age_s = age.as_secs(),
                    "the secret store cannot be read; starting with what it said when the last good snapshot was made"
                );
                self.args.secrets.was_read(Instant::now(), age);
                self.held.lock().await.stored = Stored::clone(&stored);
            }
            (Err(error), None) => tracing::error!(
                %error, store = self.args.source.name(),
                "the secret store cannot be read; starting without the providers that only it has a credential for"
            ),
            (Ok(_), _) => {}
        }
        self.take_in(read).await;
    }

    /// The configuration file says something else of providers, models and aliases, and it was checked. Whatever was good of
    /// the providers before and is not in it is gone.
    pub async fn follow(&self, file: Settings) {
        {
            let mut held = self.held.lock().await;
            held.providers = None;
            let mut settings = Settings::clone(&self.args.settings.load());
            settings.models = file.models;
            settings.aliases = file.aliases;
            settings.reader = file.reader;
            self.args.settings.store(Arc::new(settings));
        }
        self.read_again().await;
    }

    /// Reads the store again and publishes what changed.
    pub async fn read_again(&self) {
        if let Err(error) = self.args.source.renew().await {
            tracing::warn!(%error, "the session with the secret store could not be renewed");
        }
        let expected = self.args.settings.load().reader.expected();
        let read = self.args.source.read(&expected).await;
        if let Err(error) = &read {
            tracing::warn!(
                %error, store = self.args.source.name(),
                "the secret store cannot be read; the last good values are used"
            );
        }
        self.take_in(read).await;
    }

    /// When the next reading is due.
    pub async fn next_reading(&self) -> Duration {
        let usual = self.args.settings.load().secrets.refresh;
        let usual = if self.failed.load(Ordering::Acquire) {
            usual.min(RETRY)
        } else {
            usual
        };
        let renewal = self.args.source.renewal_due().await;
        let renewal = renewal.map(|due| due.saturating_duration_since(Instant::now()).max(LEAST));
        renewal.map_or(usual, |renewal| renewal.min(usual))
    }

    /// Tells who hears that organizations' own endpoints are others.
    pub fn announce_endpoints_to(&self, sink: EndpointsSink) {
        self.args.policies.announce_endpoints_to(sink);
    }

    /// Tells requests how the secrets are read at once.
    pub fn read_by(&self, read_now: ReadNow) {
        self.args.endpoints.read_by(read_now);
    }

    async fn take_in(&self, read: Result<Contents, SourceError>) {
        let at = Moment::now();
        let mut held = self.held.lock().await;
        let mut problems = BTreeSet::new();
        let mut warnings = BTreeSet::new();
        self.failed.store(read.is_err(), Ordering::Release);
        match read {
            Ok(contents) => {
                self.args.secrets.read(Instant::now());
                let mut stored = contents.stored;
                for (path, why) in contents.failed {
                    // A path that was only guessed, and never was there, is not missed.
                    if let Some(fields) = held.stored.credentials.get(&path) {
                        stored.credentials.insert(path, fields.clone());
                        problems.insert(format!("{why}; its last good value is used"));
                    } else {
                        warnings.insert(why);
                    }
                }
                warnings.extend(contents.warnings);
                self.publish(&mut held, stored, &mut problems, &mut warnings);
                self.args.snapshot.credentials_are(&held.stored, at);
            }
            Err(error) => {
                self.args.metrics.secret_refresh_failures.inc();
                self.args
                    .secrets
                    .failed(format!("the {} cannot be read: {error}", self.args.source.name()));
                let stored = held.stored.clone();
                self.publish(&mut held, stored, &mut problems, &mut warnings);
            }
        }
        for text in problems
            .iter()
            .chain(&warnings)
            .filter(|text| !held.said.contains(*text))
        {
            tracing::warn!("{text}");
        }
        self.args.secrets.has_problems(problems.iter().cloned().collect());
        held.said = problems.into_iter().chain(warnings).collect();
    }

    fn publish(
        &self,
        held: &mut Held,
        stored: Stored,
        problems: &mut BTreeSet<String>,
        warnings: &mut BTreeSet<String>,
    ) {
        let endpoints = self.args.policies.own_endpoints();
        let reading = self.args.settings.load().reader.read(&stored, &endpoints);
        let mut providers = reading.providers;
        keep_last_good(&mut providers, held, &stored);
        warnings.extend(reading.warnings);
        problems.extend(reading.problems.into_iter().map(|problem| problem.fault.to_string()));
        for (path, error) in self.args.endpoints.replace(&providers, &endpoints, &reading.own) {
            problems.insert(format!("{path}: {error}"));
        }
        let now = self.args.endpoints.now();
        let spots = now.spots();
        self.args.board.keep(|spot| spots.contains(&spot));
        self.args.metrics.announce(now.gateway_providers().iter());
        drop(now);
        let differs = held.providers.as_deref().map(served) != Some(served(&providers));
        held.stored = stored;
        held.providers = Some(providers.clone());
        if differs {
            let mut settings = Settings::clone(&self.args.settings.load());
            settings.providers = providers;
            self.args.settings.store(Arc::new(settings));
            self.args.catalog.rebuild();
        }
    }
}

/// What of the providers the catalogue depends on.
fn served(providers: &[ProviderSettings]) -> Vec<(&str, bool, Unlisted)> {
    let of = |provider: &'_ ProviderSettings| (provider.enabled, provider.unlisted_models);
    let pairs = providers.iter().map(|provider| (provider.id.as_str(), of(provider)));
    pairs.map(|(id, (enabled, unlisted))| (id, enabled, unlisted)).collect()
}

/// Puts back credentials that are at fault now and were good before; not those that were taken away.
fn keep_last_good(providers: &mut Vec<ProviderSettings>, held: &Held, stored: &Stored) {
    for before in held.providers.iter().flatten() {
        let good: Vec<CredentialSettings> = before
            .credentials
            .iter()
            .filter(|credential| {
                let path = &credential.path;
                let taken_away = held.stored.credentials.contains_key(path) && !stored.credentials.contains_key(path);
                let now = providers.iter().find(|provider| provider.id == before.id);
                let there = now.is_some_and(|now| now.credentials.iter().any(|other| other.path == *path));
                !there && !taken_away
            })
            .cloned()
            .collect();
        if good.is_empty() {
            continue;
        }
        match providers.iter_mut().find(|provider| provider.id == before.id) {
            Some(now) => now.credentials.extend(good),
            None => providers.push(ProviderSettings {
                credentials: good,
                ..before.clone()
            }),
        }
    }
    providers.sort_by(|a, b| a.id.cmp(&b.id));
}
