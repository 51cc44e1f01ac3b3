//! Reads organizations' gateway configs, compiles them and publishes them; looks for changes now and then, and whenever
//! Postgres tells of one.
//!
//! A config that cannot be read, because a newer version of the gateway wrote it, leaves the last good one in force, which a
//! start looks for among the versions before it. Where there is none, the organization's requests are refused: rules and
//! residency that cannot be read are not to be done without. A start without the database has those of the last good
//! [`Snapshot`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use super::Handled;
use crate::domain::call::Strategy;
use crate::domain::config::ConfigVersion;
use crate::domain::ids::OrganizationId;
use crate::domain::key::Revision;
use crate::gates::policies::{Policies, Published};
use crate::routing::document::{self, Policy};
use crate::snapshot::{KnownConfig, Snapshot};
use crate::store::configs::ConfigChanges;
use crate::store::{Store, StoreError, within};
use crate::telemetry::metrics::Metrics;

/// How long a look for changes may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Versions before one that cannot be read that are tried.
const VERSIONS_TRIED: u64 = 20;

/// The actor.
pub struct ConfigsActor;

/// What it works with.
#[derive(Clone)]
pub struct ConfigsArgs {
    /// Where configs are.
    pub store: Store,
    /// Where they are published.
    pub policies: Arc<Policies>,
    /// How often to look for changes.
    pub poll: Duration,
    /// The strategy of configs that name none.
    pub default_strategy: Strategy,
    /// What was in force when the database last answered.
    pub snapshot: Arc<Snapshot>,
    /// Whether the start goes on from that, because the database is away.
    pub from_snapshot: bool,
    /// Shows which change is in force.
    pub metrics: Arc<Metrics>,
}

/// What the actor hears.
pub enum ConfigsMsg {
    /// Time to look for changes, or the database said that there are some.
    LookForChanges,
    /// The database was asked for changes; what it said, or why it did not.
    Changed(Result<Found, StoreError>),
}

/// The configs that changed.
pub struct Found {
    /// Everything up to this change is in here.
    revision: Revision,
    configs: Vec<FoundConfig>,
}

struct FoundConfig {
    organization: OrganizationId,
    slug: String,
    /// The newest that can be read, if there is any.
    good: Option<(ConfigVersion, Policy)>,
    /// Whether that is the one that should be in force.
    is_newest: bool,
}

/// What it knows.
pub struct ConfigsState {
    args: ConfigsArgs,
    /// Organizations whose config cannot be read.
    unreadable: HashSet<OrganizationId>,
    /// Everything up to this change is published. `None`: nothing yet.
    seen: Option<Revision>,
    looking: bool,
    /// Whether there was a reason to look while a look was under way, which may have come too late for it.
    look_again: bool,
    /// Passes on what the database says by itself.
    _watch: Option<AbortOnDropHandle<()>>,
}

impl Actor for ConfigsActor {
    type Msg = ConfigsMsg;
    type State = ConfigsState;
    type Arguments = ConfigsArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<ConfigsMsg>,
        args: ConfigsArgs,
    ) -> Result<ConfigsState, ActorProcessingErr> {
        myself.send_interval(args.poll, || ConfigsMsg::LookForChanges);
        let watch = args.store.watch_configs().map(|mut watch| {
            let configs = myself.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    watch.changed().await;
                    let _ = configs.cast(ConfigsMsg::LookForChanges);
                }
            }))
        });
        let mut state = ConfigsState {
            args,
            unreadable: HashSet::new(),
            seen: None,
            looking: false,
            look_again: false,
            _watch: watch,
        };
        if state.args.from_snapshot && !state.args.policies.were_read() {
            state.publish_last_good();
            state.look(&myself);
            return Ok(state);
        }
        // The first request must not be routed by a default where somebody wrote a rule. After a failure of this actor the
        // last good ones are still in force, and a database that is down is no reason to fail again.
        match within(
            LOOK_TIMEOUT,
            found(&state.args.store, None, state.args.default_strategy),
        )
        .await
        {
            Ok(all) => state.publish(all),
            Err(error) if state.args.policies.were_read() => {
                tracing::warn!(%error, "configs cannot be read again, the last good ones stay");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<ConfigsMsg>, message: ConfigsMsg, state: &mut ConfigsState) -> Handled {
        match message {
            ConfigsMsg::LookForChanges => state.look(&myself),
            ConfigsMsg::Changed(changes) => {
                state.looking = false;
                match changes {
                    Ok(changes) => state.publish(changes),
                    Err(error) => tracing::warn!(%error, "looking for changed configs failed"),
                }
                if std::mem::take(&mut state.look_again) {
                    state.look(&myself);
                }
            }
        }
        Ok(())
    }
}

impl ConfigsState {
    /// Asks the database for changes, beside the mailbox; one question at a time.
    fn look(&mut self, myself: &ActorRef<ConfigsMsg>) {
        if self.looking {
            self.look_again = true;
            return;
        }
        self.looking = true;
        let (store, myself, since) = (self.args.store.clone(), myself.clone(), self.seen);
        let strategy = self.args.default_strategy;
        tokio::spawn(async move {
            let changes = within(LOOK_TIMEOUT, found(&store, since, strategy)).await;
            let _ = myself.cast(ConfigsMsg::Changed(changes));
        });
    }

    /// Publishes what the snapshot has. What changed since is asked for.
    fn publish_last_good(&mut self) {
        let Some((revision, known)) = self.args.snapshot.configs() else {
            return;
        };
        let strategy = self.args.default_strategy;
        let configs = known.into_iter().map(|known| {
            let policy = compile(known.organization, &known.config, strategy);
            FoundConfig {
                organization: known.organization,
                slug: known.slug,
                is_newest: policy.is_some(),
                good: policy.map(|policy| (known.config, policy)),
            }
        });
        self.publish(Found {
            revision,
            configs: configs.collect(),
        });
    }

    fn publish(&mut self, found: Found) {
        let replaces = self.seen.is_none();
        self.seen = Some(found.revision);
        if replaces {
            self.unreadable.clear();
        }
        let (mut known, mut published) = (Vec::new(), Vec::new());
        for config in found.configs {
            let FoundConfig {
                organization,
                slug,
                good,
                is_newest,
            } = config;
            if is_newest {
                self.unreadable.remove(&organization);
            } else {
                self.unreadable.insert(organization);
            }
            // Of a version that comes before all others, it takes the place of nothing that is in force.
            let policy = match good {
                Some((config, policy)) => {
                    known.push(KnownConfig {
                        organization,
                        slug: slug.clone(),
                        config,
                    });
                    policy
                }
                None => refusing(self.args.default_strategy),
            };
            published.push(Published {
                organization,
                slug: slug.into(),
                policy: Arc::new(policy),
            });
        }
        self.args.snapshot.configs_are(found.revision, known, replaces);
        self.args.policies.publish(published);
        self.args.policies.are_read();
        let metrics = &self.args.metrics;
        metrics
            .configs_unreadable
            .set(i64::try_from(self.unreadable.len()).unwrap_or(i64::MAX));
        if self.unreadable.is_empty() {
            metrics.config_revision.set(found.revision.0);
        }
    }
}

/// The configs that changed, each as the newest of its versions that can be read.
async fn found(store: &Store, since: Option<Revision>, strategy: Strategy) -> Result<Found, StoreError> {
    let ConfigChanges { revision, configs } = store.configs_changed_since(since).await?;
    let mut found = Vec::with_capacity(configs.len());
    for (organization, slug, config) in configs {
        let newest = config.version;
        let mut good = compile(organization, &config, strategy).map(|policy| (config, policy));
        if good.is_none() {
            let before = store.configs_before(organization, newest, VERSIONS_TRIED).await?;
            good = before
                .into_iter()
                .find_map(|config| compile(organization, &config, strategy).map(|policy| (config, policy)));
        }
        found.push(FoundConfig {
            organization,
            slug,
            is_newest: good.as_ref().is_some_and(|(config, _)| config.version == newest),
            good,
        });
    }
    Ok(Found {
        revision,
        configs: found,
    })
}

/// What holds for an organization none of whose configs can be read.
fn refusing(strategy: Strategy) -> Policy {
    let document = json!({"rules": [{"name": "unreadable-config", "then": {"deny":
        "this version of the gateway cannot read the organization's gateway config; its log says why"}}]});
    document::read(&document, strategy).expect("it is a config")
}

/// The policy of a stored config; `None`: it cannot be read, which is in the log.
fn compile(organization: OrganizationId, config: &ConfigVersion, strategy: Strategy) -> Option<Policy> {
    let version = config.version;
    let read = match serde_json::from_str(&config.document) {
        Ok(value) => document::read(&value, strategy).map_err(|faults| {
            let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
            all.join("; ")
        }),
        Err(error) => Err(error.to_string()),
    };
    match read {
        Ok(policy) => {
            tracing::debug!(%organization, version, "routing by another config");
            Some(Policy { version, ..policy })
        }
        Err(faults) => {
            tracing::error!(%organization, version, faults, "a stored config cannot be read, the last good one stays");
            None
        }
    }
}
