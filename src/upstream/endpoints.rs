//! The providers that can be called now, each with its credentials.
//!
//! A snapshot behind an `ArcSwap`, which the Secrets actor replaces when a secret changed. A request under way keeps the
//! [`Keyed`] endpoint it began with; only those whose values changed are built anew, so that the others keep their
//! tokens and what is known about them. Among several credentials the choice is by weight, leaving out those that rest
//! because the provider refused them, and those that the health board says are not well where they go; when none is left,
//! one is used all the same, because a wrong guess must not be an outage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::allowance::Allowances;
use super::endpoint::Endpoint;
use super::rest::{Rest, RestPolicy};
use crate::config::{CredentialPath, CredentialSettings, Fingerprint, OwnEndpoint, ProviderKind, ProviderSettings};
use crate::domain::ids::{DeploymentId, ProviderId};
use crate::domain::watched::{Spot, SpotId};
use crate::routing::plan::Readiness;
use crate::secrets::credential::CredentialError;

/// An endpoint with one of its credentials, and how that is doing.
#[derive(Debug)]
pub struct Keyed {
    /// What is called.
    pub endpoint: Endpoint,
    /// The credential's name in the secret store.
    pub path: CredentialPath,
    /// What its health is kept for; `None` for the provider in this process, which is always well.
    pub spot: Option<Arc<Spot>>,
    /// How many requests may be under way with it; `None`: any number.
    pub max_concurrent: Option<u32>,
    weight: u32,
    fingerprint: Fingerprint,
    policy: RestPolicy,
    rest: Mutex<Rest>,
    /// Whether the provider refused it since it last took it; read before the lock is taken.
    refused: AtomicBool,
    /// Whether the store was asked since, and had nothing newer.
    confirmed: AtomicBool,
    allowances: Allowances,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug)]
pub struct Tenant<'a> {
    /// The organization's slug.
    pub organization: &'a str,
    /// Whether it may use the shared credentials.
    pub shared: bool,
}

/// A credential as those see it who may use it: never what is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialState {
    /// Which of several; `None`: the one without a name.
    pub name: Option<String>,
    /// Whether it is one that others use, too.
    pub shared: bool,
    /// Whether the provider refused it lately, so that it is left out for a while.
    pub resting: bool,
    /// What its health is kept for.
    pub spot: Option<Arc<Spot>>,
    /// How many requests may be under way with it; `None`: any number.
    pub max_concurrent: Option<u32>,
}

/// What a credential is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whom it is for.
    pub provider: &'a ProviderId,
    /// What will be asked with it.
    pub deployment: &'a DeploymentId,
    /// Those that this request does not come with again.
    pub tried: &'a [Arc<Keyed>],
    /// Any number.
    pub random: u32,
    /// The present time.
    pub now: Instant,
}

/// The credentials of one provider for one owner.
type Pool = Vec<Arc<Keyed>>;

/// Everything that can be called, at one moment.
#[derive(Default, Debug)]
pub struct Snapshot {
    shared: BTreeMap<String, Pool>,
    /// By organization and provider.
    own: BTreeMap<String, BTreeMap<String, Pool>>,
    /// By organization the ids of its own endpoints, whether or not they have a credential.
    endpoints: BTreeMap<String, BTreeSet<String>>,
}

/// Asks for the secrets to be read now; the channel hears when a reading that began afterwards is done.
pub type ReadNow = Box<dyn Fn(oneshot::Sender<()>) + Send + Sync>;

/// The providers that can be called.
pub struct Endpoints {
    current: ArcSwap<Snapshot>,
    http: reqwest::Client,
    policy: RestPolicy,
    renewal_wait: Duration,
    read_now: ArcSwapOption<ReadNow>,
    /// Spots so far, which gives each its id.
    spots: AtomicU64,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}

impl Endpoints {
    /// None yet.
    pub fn new(http: reqwest::Client, policy: RestPolicy, renewal_wait: Duration) -> Self {
        Self {
            current: ArcSwap::default(),
            http,
            policy,
            renewal_wait,
            read_now: ArcSwapOption::empty(),
            spots: AtomicU64::new(1),
        }
    }

    /// What can be called now.
    pub fn now(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Takes over the providers as they are configured now, and organizations' own endpoints with their credentials.
    /// Answers the credentials that cannot be used, and why; what was known of each of those before stays, but not at an
    /// endpoint of one's own: its address may have changed.
    pub fn replace(
        &self,
        providers: &[ProviderSettings],
        endpoints: &[OwnEndpoint],
        own: &[CredentialSettings],
    ) -> Vec<(CredentialPath, CredentialError)> {
        let before = self.current.load_full();
        let mut next = Snapshot::default();
        let mut unusable = Vec::new();
        for endpoint in endpoints {
            let ids = next.endpoints.entry(endpoint.organization.clone()).or_default();
            ids.insert(endpoint.id.clone());
        }
        let shared = providers.iter().filter(|provider| provider.enabled);
        let shared =
            shared.flat_map(|provider| provider.credentials.iter().map(|credential| (&provider.id, credential)));
        let own = own.iter().map(|credential| (&credential.path.provider, credential));
        for (id, credential) in shared.chain(own) {
            let known = before.at(&credential.path);
            let keyed = match known {
                Some(known) if known.is_like(credential) => known.clone(),
                known => match Endpoint::build(id, &credential.kind, &self.http) {
                    Ok(endpoint) => Arc::new(Keyed {
                        spot: self.spot_of(&endpoint, credential),
                        endpoint,
                        path: credential.path.clone(),
                        max_concurrent: credential.max_concurrent,
                        weight: credential.weight,
                        fingerprint: credential.fingerprint,
                        policy: self.policy,
                        rest: Mutex::default(),
                        refused: AtomicBool::new(false),
                        confirmed: AtomicBool::new(false),
                        allowances: Allowances::default(),
                    }),
                    Err(error) => {
                        unusable.push((credential.path.clone(), error));
                        match known {
                            Some(known) if !known.endpoint.is_guarded => known.clone(),
                            _ => continue,
                        }
                    }
                },
            };
            next.add(keyed);
        }
        self.current.store(Arc::new(next));
        unusable
    }

    fn spot_of(&self, endpoint: &Endpoint, credential: &CredentialSettings) -> Option<Arc<Spot>> {
        if endpoint.is_builtin {
            return None;
        }
        Some(Arc::new(Spot {
            id: SpotId(self.spots.fetch_add(1, Ordering::Relaxed)),
            provider: endpoint.id.clone(),
            owner: credential.path.organization.clone(),
            credential: credential.path.name.clone(),
            region: credential.kind.region().map(ToOwned::to_owned),
            host: endpoint.origin.address().map(|(host, port)| format!("{host}:{port}")),
            own_endpoint: endpoint.is_guarded,
        }))
    }

    /// Tells how the secrets are read at once.
    pub fn read_by(&self, read_now: ReadNow) {
        self.read_now.store(Some(Arc::new(read_now)));
    }

    /// Hears that a provider refused a credential, and that nothing else is left to try: a newer one may be in the store.
    /// Asks for it and waits for the answer, once for each version of a credential.
    pub async fn look_for_newer(&self, refused: &Keyed) {
        if refused.confirmed.load(Ordering::Acquire) {
            return;
        }
        let (done, read) = oneshot::channel();
        if !self.ask(done) {
            return;
        }
        if let Ok(Ok(())) = tokio::time::timeout(self.renewal_wait, read).await {
            // A newer version is another object; this one is known to be refused and to be the latest.
            refused.confirmed.store(true, Ordering::Release);
        }
    }

    /// The same without waiting, where another credential serves meanwhile.
    pub fn hint_at_newer(&self, refused: &Keyed) {
        if !refused.confirmed.swap(true, Ordering::AcqRel) {
            self.ask(oneshot::channel().0);
        }
    }

    /// Has the secrets read now, and waits until they are, for so long at most.
    pub async fn read_soon(&self, patience: Duration) {
        let (done, read) = oneshot::channel();
        if self.ask(done) {
            let _ = tokio::time::timeout(patience, read).await;
        }
    }

    fn ask(&self, done: oneshot::Sender<()>) -> bool {
        match &*self.read_now.load() {
            Some(read_now) => {
                read_now(done);
                true
            }
            None => false,
        }
    }
}

impl Snapshot {
    fn add(&mut self, keyed: Arc<Keyed>) {
        let pools = match &keyed.path.organization {
            None => &mut self.shared,
            Some(organization) => self.own.entry(organization.clone()).or_default(),
        };
        pools.entry(keyed.path.provider.clone()).or_default().push(keyed);
    }

    fn at(&self, path: &CredentialPath) -> Option<&Arc<Keyed>> {
        let pools = match &path.organization {
            None => &self.shared,
            Some(organization) => self.own.get(organization)?,
        };
        pools.get(&path.provider)?.iter().find(|keyed| keyed.path == *path)
    }

    /// What health can be kept for.
    pub fn spots(&self) -> BTreeSet<SpotId> {
        let own = self.own.values().flat_map(BTreeMap::values);
        let all = self.shared.values().chain(own).flatten();
        all.filter_map(|keyed| Some(keyed.spot.as_ref()?.id)).collect()
    }

    /// The gateway's providers, and not organizations' own endpoints.
    pub fn gateway_providers(&self) -> BTreeSet<ProviderId> {
        let of_own = self.own.iter().flat_map(|(organization, pools)| {
            let here = pools.keys().filter(move |id| !self.is_own(organization, id));
            here.map(|id| ProviderId::from(id.as_str()))
        });
        let shared = self.shared.keys().map(|id| ProviderId::from(id.as_str()));
        shared.chain(of_own).collect()
    }

    /// Whether a provider is an endpoint of an organization's own.
    pub fn is_own(&self, organization: &str, provider: &str) -> bool {
        let ids = self.endpoints.get(organization);
        ids.is_some_and(|ids| ids.contains(provider))
    }

    /// The providers that anybody can call.
    pub fn providers(&self) -> impl Iterator<Item = ProviderId> {
        let all = self.own.values().flat_map(BTreeMap::keys).chain(self.shared.keys());
        let ids: std::collections::BTreeSet<&String> = all.collect();
        ids.into_iter().map(|id| ProviderId::from(id.as_str()))
    }

    /// Whether a tenant's requests may go to a provider: with a credential of its own, or with a shared one where it may
    /// use those. The built-in provider has no credential to grant.
    pub fn may_use(&self, tenant: Tenant<'_>, provider: &ProviderId) -> bool {
        self.pools(tenant, provider).next().is_some()
    }

    /// The providers a tenant's requests may go to, in the order of their ids, each with one of its credentials.
    pub fn usable(&self, tenant: Tenant<'_>) -> impl Iterator<Item = (ProviderId, &Arc<Keyed>)> {
        self.providers().filter_map(move |provider| {
            let first = self.pools(tenant, &provider).next()?.first()?;
            Some((provider, first))
        })
    }

    /// The credentials that a tenant's requests to a provider may go with, its own first.
    pub fn credentials(&self, tenant: Tenant<'_>, provider: &ProviderId) -> Vec<CredentialState> {
        let now = Instant::now();
        let all = self
            .pools(tenant, provider)
            .flatten()
            .filter(|keyed| !keyed.endpoint.is_builtin);
        let state = |keyed: &Arc<Keyed>| CredentialState {
            name: keyed.path.name.clone(),
            shared: keyed.path.organization.is_none(),
            resting: keyed.is_resting(now),
            spot: keyed.spot.clone(),
            max_concurrent: keyed.max_concurrent,
        };
        all.map(state).collect()
    }

    /// The pools a tenant may use, its own first.
    fn pools(&self, tenant: Tenant<'_>, provider: &ProviderId) -> impl Iterator<Item = &Pool> {
        let own = (!self.own.is_empty())
            .then(|| self.own.get(tenant.organization)?.get(provider.as_str()))
            .flatten();
        let shared = self
            .shared
            .get(provider.as_str())
            .filter(|pool| tenant.shared || pool.iter().all(|keyed| keyed.endpoint.is_builtin))
            // What is shared by a provider of the same id is not meant for an endpoint of one's own.
            .filter(|_| self.endpoints.is_empty() || !self.is_own(tenant.organization, provider.as_str()));
        own.into_iter().chain(shared)
    }

    /// How a provider looks to a tenant's requests: as well as the best of the credentials that they may go with. Where
    /// `deployment` is given, those that have nothing left there are no help. `health` says how each is doing.
    pub fn readiness(
        &self,
        tenant: Tenant<'_>,
        provider: &ProviderId,
        deployment: Option<&DeploymentId>,
        now: Instant,
        health: &dyn Fn(&Spot) -> Readiness,
    ) -> Readiness {
        let mut best = None;
        let mut all_rest = true;
        for keyed in self.pools(tenant, provider).flatten() {
            // What was refused is no way in, unless there is no other.
            let rests = keyed.is_resting(now);
            let used_up = || deployment.is_some_and(|id| keyed.allowances.until(id.as_str(), now).is_some());
            let readiness = match keyed.health(health) {
                Readiness::Passing if used_up() => Readiness::Resting,
                readiness => readiness,
            };
            if best.is_none() || (all_rest && !rests) || (all_rest == rests && is_better(readiness, best)) {
                best = Some(readiness);
            }
            all_rest &= rests;
        }
        best.unwrap_or(Readiness::Passing)
    }

    /// The credential for a tenant's next attempt at a deployment, leaving out those that were `tried` by this request.
    /// Those that are well go before those that are not, and those that have something left there before those that have
    /// not; where nobody is well, somebody is asked all the same, because a wrong guess must not be an outage.
    ///
    /// `random` is any number; over many of them each credential gets its share.
    pub fn pick(
        &self,
        tenant: Tenant<'_>,
        wanted: &Wanted<'_>,
        health: &dyn Fn(&Spot) -> Readiness,
    ) -> Option<Arc<Keyed>> {
        let Wanted {
            provider,
            deployment,
            tried,
            random,
            now,
        } = *wanted;
        let untried = |keyed: &&Arc<Keyed>| !tried.iter().any(|other| Arc::ptr_eq(other, keyed));
        for pool in self.pools(tenant, provider) {
            // By far the most common: one credential, and nothing against it.
            if let [only] = pool.as_slice()
                && !only.refused.load(Ordering::Acquire)
                && tried.is_empty()
                && only.health(health) == Readiness::Passing
            {
                return Some(only.clone());
            }
            let well = || {
                let awake = pool.iter().filter(untried).filter(|keyed| !keyed.is_resting(now));
                awake.filter(|keyed| keyed.health(health) != Readiness::Ejected)
            };
            let has_left = |keyed: &&Arc<Keyed>| keyed.allowances.until(deployment.as_str(), now).is_none();
            if let Some(keyed) = by_weight(|| well().filter(has_left), random).or_else(|| by_weight(well, random)) {
                return Some(keyed.clone());
            }
        }
        for pool in self.pools(tenant, provider) {
            let awake = || pool.iter().filter(untried).filter(|keyed| !keyed.is_resting(now));
            if let Some(keyed) = by_weight(awake, random) {
                return Some(keyed.clone());
            }
        }
        let left = self.pools(tenant, provider).flatten().filter(untried);
        left.min_by_key(|keyed| keyed.rest.lock().until()).cloned()
    }

    /// A credential in use by its spot.
    pub fn by_spot(&self, spot: SpotId) -> Option<Arc<Keyed>> {
        let own = self.own.values().flat_map(BTreeMap::values);
        let mut all = self.shared.values().chain(own).flatten();
        all.find(|keyed| keyed.spot.as_ref().is_some_and(|known| known.id == spot))
            .cloned()
    }
}

/// Whether a readiness is better than the best so far.
fn is_better(readiness: Readiness, best: Option<Readiness>) -> bool {
    let rank = |readiness| match readiness {
        Readiness::Passing => 0,
        // A probe finds out for all deployments; what is used up passes by itself.
        Readiness::Probing => 1,
        Readiness::Resting => 2,
        Readiness::Ejected => 3,
    };
    best.is_none_or(|best| rank(readiness) < rank(best))
}

/// One of some credentials, each as often as its weight says; those of weight 0 only where there are no others.
fn by_weight<'k, I: Iterator<Item = &'k Arc<Keyed>>>(all: impl Fn() -> I, random: u32) -> Option<&'k Arc<Keyed>> {
    let total: u32 = all().map(|keyed| keyed.weight).sum();
    if total == 0 {
        return all().next();
    }
    let mut place = random % total;
    all().find(|keyed| match place.checked_sub(keyed.weight) {
        None => true,
        Some(left) => {
            place = left;
            false
        }
    })
}

impl Keyed {
    /// Whether nothing about it has changed.
    fn is_like(&self, settings: &CredentialSettings) -> bool {
        self.fingerprint == settings.fingerprint
            && self.weight == settings.weight
            && self.max_concurrent == settings.max_concurrent
    }

    /// The provider refused this credential, or its account has no money left.
    pub fn was_refused(&self, now: Instant) {
        self.refused.store(true, Ordering::Release);
        self.rest.lock().refused(now, &self.policy);
    }

    /// The provider took it.
    pub fn was_accepted(&self) {
        if self.refused.load(Ordering::Acquire) {
            self.refused.store(false, Ordering::Release);
            self.confirmed.store(false, Ordering::Release);
            self.rest.lock().accepted();
        }
    }

    /// The provider says that nothing is left at a deployment of what it allows this credential. It rests there for as
    /// long as that lasts, but not longer than any credential rests: a provider that says "tomorrow" may change its mind.
    pub fn was_used_up(&self, deployment: &DeploymentId, lasts: Duration, now: Instant) {
        let until = now + lasts.min(self.policy.most);
        self.allowances.used_up(deployment.as_str(), until, now);
    }

    fn health(&self, health: &dyn Fn(&Spot) -> Readiness) -> Readiness {
        self.spot.as_ref().map_or(Readiness::Passing, |spot| health(spot))
    }

    fn is_resting(&self, now: Instant) -> bool {
        self.refused.load(Ordering::Acquire) && self.rest.lock().is_resting(now)
    }
}

/// Whether calling a provider of this kind takes no credential and no network.
pub(super) fn is_builtin(kind: &ProviderKind) -> bool {
    matches!(kind, ProviderKind::Echo)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Fields, Stored};

    const POLICY: RestPolicy = RestPolicy {
        first: Duration::from_secs(5),
        most: Duration::from_secs(60),
    };

    const ACME: Tenant<'_> = Tenant {
        organization: "acme",
        shared: false,
    };
    const FIRST: Tenant<'_> = Tenant {
        organization: "default",
        shared: true,
    };

    fn stored(credentials: &[(&str, &str, u32)]) -> Stored {
        let entry = |&(path, key, weight): &(&str, &str, u32)| {
            let fields: Fields = [("api_key", key.to_owned()), ("weight", weight.to_string())]
                .into_iter()
                .collect();
            (CredentialPath::parse(path).unwrap(), fields)
        };
        Stored {
            credentials: credentials.iter().map(entry).collect(),
        }
    }

    fn replace(endpoints: &Endpoints, credentials: &[(&str, &str, u32)]) {
        let loaded = crate::config::load(&crate::config::Sources::default(), &[]).unwrap();
        let reading = loaded.settings.reader.read(&stored(credentials), &[]);
        assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        assert!(endpoints.replace(&reading.providers, &[], &[]).is_empty());
    }

    fn endpoints(credentials: &[(&str, &str, u32)]) -> Endpoints {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let endpoints = Endpoints::new(reqwest::Client::new(), POLICY, Duration::from_secs(1));
        replace(&endpoints, credentials);
        endpoints
    }

    fn pick_where(
        endpoints: &Endpoints,
        tenant: Tenant<'_>,
        random: u32,
        health: &dyn Fn(&Spot) -> Readiness,
    ) -> Option<String> {
        let wanted = Wanted {
            provider: &"openai".into(),
            deployment: &"openai/m".into(),
            tried: &[],
            random,
            now: Instant::now(),
        };
        let picked = endpoints.now().pick(tenant, &wanted, health);
        picked.map(|keyed| keyed.path.to_string())
    }

    fn pick(endpoints: &Endpoints, tenant: Tenant<'_>, random: u32) -> Option<String> {
        pick_where(endpoints, tenant, random, &|_| Readiness::Passing)
    }

    const TWO: [(&str, &str, u32); 2] = [("providers/openai/a", "sk-a", 3), ("providers/openai/b", "sk-b", 1)];

    #[test]
    fn traffic_is_shared_by_weight() {
        let endpoints = endpoints(&TWO);
        let to_a = (0..400)
            .filter(|&n| pick(&endpoints, FIRST, n).unwrap().ends_with("/a"))
            .count();
        assert_eq!(to_a, 300);
    }

    #[test]
    fn a_weight_of_zero_serves_only_when_the_others_rest() {
        let endpoints = endpoints(&[("providers/openai/a", "sk-a", 1), ("providers/openai/b", "sk-b", 0)]);
        assert!((0..10).all(|n| pick(&endpoints, FIRST, n).unwrap().ends_with("/a")));
        let a = endpoints
            .now()
            .at(&CredentialPath::parse("providers/openai/a").unwrap())
            .unwrap()
            .clone();
        a.was_refused(Instant::now());
        assert!((0..10).all(|n| pick(&endpoints, FIRST, n).unwrap().ends_with("/b")));
    }

    #[test]
    fn shared_credentials_serve_where_they_are_granted_and_an_organizations_own_come_first() {
        let endpoints = endpoints(&[
            ("providers/openai", "sk-shared", 1),
            ("organizations/acme/providers/openai", "sk-acme", 1),
        ]);
        let other = Tenant {
            organization: "other",
            shared: false,
        };
        assert_eq!(pick(&endpoints, FIRST, 7).as_deref(), Some("providers/openai"));
        assert_eq!(
            pick(&endpoints, ACME, 7).as_deref(),
            Some("organizations/acme/providers/openai")
        );
        assert_eq!(pick(&endpoints, other, 7), None);
        assert!(!endpoints.now().may_use(other, &"openai".into()));
        assert!(endpoints.now().may_use(other, &"echo".into()));
    }

    #[test]
    fn a_region_that_is_out_leaves_the_traffic_to_the_other_and_the_provider_is_as_well_as_its_best() {
        let endpoints = endpoints(&TWO);
        let (provider, now) = ("openai".into(), Instant::now());
        let spot = |path: &str| {
            let keyed = endpoints.now().at(&CredentialPath::parse(path).unwrap()).cloned();
            keyed.unwrap().spot.clone().unwrap().id
        };
        let a = spot("providers/openai/a");
        for (of_a, of_b, whole) in [
            (Readiness::Ejected, Readiness::Passing, Readiness::Passing),
            (Readiness::Ejected, Readiness::Probing, Readiness::Probing),
            (Readiness::Ejected, Readiness::Ejected, Readiness::Ejected),
        ] {
            let health = |spot: &Spot| if spot.id == a { of_a } else { of_b };
            let seen = endpoints.now().readiness(FIRST, &provider, None, now, &health);
            assert_eq!(seen, whole);
            let to_b = |n| pick_where(&endpoints, FIRST, n, &health).unwrap().ends_with("/b");
            let share = (0..400).filter(|&n| to_b(n)).count();
            // Where both are out they are asked by their weights: somebody has to be.
            assert_eq!(share, if of_b == Readiness::Ejected { 100 } else { 400 });
        }
        let nothing_left = |path: &str| {
            let keyed = endpoints.now().at(&CredentialPath::parse(path).unwrap()).cloned();
            keyed
                .unwrap()
                .was_used_up(&"openai/m".into(), Duration::from_secs(9), now);
        };
        let seen = || {
            let health = |spot: &Spot| {
                if spot.id == a {
                    Readiness::Ejected
                } else {
                    Readiness::Passing
                }
            };
            endpoints
                .now()
                .readiness(FIRST, &provider, Some(&"openai/m".into()), now, &health)
        };
        nothing_left("providers/openai/a");
        assert_eq!(seen(), Readiness::Passing);
        nothing_left("providers/openai/b");
        assert_eq!(seen(), Readiness::Resting);
        // A credential that was refused is no way in as long as another is not.
        let b = endpoints
            .now()
            .at(&CredentialPath::parse("providers/openai/b").unwrap())
            .cloned();
        b.unwrap().was_refused(now);
        assert_eq!(seen(), Readiness::Ejected);
    }

    #[test]
    fn only_what_changed_is_built_anew() {
        let endpoints = endpoints(&TWO);
        let at = |path: &str| endpoints.now().at(&CredentialPath::parse(path).unwrap()).cloned();
        let (a, b) = (at("providers/openai/a").unwrap(), at("providers/openai/b").unwrap());
        a.was_refused(Instant::now());
        replace(&endpoints, &[TWO[0], ("providers/openai/b", "sk-new", 1)]);
        assert!(Arc::ptr_eq(&a, &at("providers/openai/a").unwrap()));
        assert!(!Arc::ptr_eq(&b, &at("providers/openai/b").unwrap()));
        replace(&endpoints, &[TWO[0]]);
        assert!(at("providers/openai/b").is_none());
    }

    proptest! {
        // Each case makes an HTTP client, which reads certificates.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn as_long_as_one_is_not_refused_by_this_request_there_is_one_to_try(
            weights in prop::collection::vec(0u32..5, 1..5),
            resting in prop::collection::vec(any::<bool>(), 5),
            states in prop::collection::vec(prop::sample::select(&[Readiness::Passing, Readiness::Probing, Readiness::Ejected][..]), 5),
            random in any::<u32>(),
        ) {
            let names: Vec<String> = (0..weights.len()).map(|n| format!("providers/openai/c{n}")).collect();
            let credentials: Vec<_> = names.iter().zip(&weights).map(|(name, &weight)| (name.as_str(), "sk", weight)).collect();
            let endpoints = endpoints(&credentials);
            let now = Instant::now();
            for (name, rests) in names.iter().zip(resting) {
                if rests {
                    endpoints.now().at(&CredentialPath::parse(name).unwrap()).unwrap().was_refused(now);
                }
            }
            let health = |spot: &Spot| states[usize::try_from(spot.id.0).unwrap() % states.len()];
            let (mut tried, mut last) = (Vec::new(), 0);
            loop {
                let (provider, deployment) = ("openai".into(), "openai/m".into());
                let wanted = Wanted { provider: &provider, deployment: &deployment, tried: &tried, random, now };
                let Some(next) = endpoints.now().pick(FIRST, &wanted, &health) else { break };
                prop_assert!(!tried.iter().any(|other| Arc::ptr_eq(other, &next)));
                // The well before those that are out, and these before those that were refused.
                let place = match (next.is_resting(now), next.health(&health)) {
                    (false, Readiness::Ejected) => 1,
                    (false, _) => 0,
                    (true, _) => 2,
                };
                prop_assert!(place >= last);
                last = place;
                tried.push(next);
            }
            prop_assert_eq!(tried.len(), weights.len());
        }
    }
}
