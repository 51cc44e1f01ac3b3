//! The providers that can be called now, each with its credentials.
//!
//! A snapshot behind an `ArcSwap`, which the Secrets actor replaces when a secret changed. A request under way keeps the
//! [`Keyed`] endpoint it began with; only those whose values changed are built anew, so that the others keep their
//! tokens and what is known about them. Among several credentials the choice is by weight, leaving out those that rest
//! because the provider refused them; when all rest, the one that rests the shortest is used, because a wrong guess must
//! not be an outage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::routing::own;
use crate::secrets::credential::CredentialError;

/// An endpoint with one of its credentials, and how that is doing.
#[derive(Debug)]
pub struct Keyed {
    /// What is called.
    pub endpoint: Endpoint,
    /// The credential's name in the secret store.
    pub path: CredentialPath,
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
    /// How many requests may be under way with it; `None`: any number.
    pub max_concurrent: Option<u32>,
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

    /// What is watched: the gateway's providers by their ids, and organizations' own endpoints apart from each other.
    pub fn watched(&self) -> BTreeSet<ProviderId> {
        let mut ids: BTreeSet<ProviderId> = self.shared.keys().map(|id| ProviderId::from(id.as_str())).collect();
        for (organization, pools) in &self.own {
            ids.extend(pools.iter().filter(|(_, pool)| !pool.is_empty()).map(|(id, _)| {
                if self.is_own(organization, id) {
                    own::watched(organization, id)
                } else {
                    ProviderId::from(id.as_str())
                }
            }));
        }
        ids
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

    /// Whether none of a tenant's credentials has anything left of what their provider allows them at a deployment.
    pub fn is_used_up(
        &self,
        tenant: Tenant<'_>,
        provider: &ProviderId,
        deployment: &DeploymentId,
        now: Instant,
    ) -> bool {
        let mut all = self.pools(tenant, provider).flatten().peekable();
        all.peek().is_some() && all.all(|keyed| keyed.allowances.until(deployment.as_str(), now).is_some())
    }

    /// The credential for a tenant's next attempt at a deployment, leaving out those that `refused` this request. One that
    /// has something left there goes before one that has not.
    ///
    /// `random` is any number; over many of them each credential gets its share.
    pub fn pick(
        &self,
        tenant: Tenant<'_>,
        provider: &ProviderId,
        deployment: &DeploymentId,
        refused: &[Arc<Keyed>],
        random: u32,
        now: Instant,
    ) -> Option<Arc<Keyed>> {
        let mut soonest: Option<(Option<Instant>, &Arc<Keyed>)> = None;
        for pool in self.pools(tenant, provider) {
            // By far the most common: one credential, and nothing against it.
            if let [only] = pool.as_slice()
                && !only.refused.load(Ordering::Acquire)
                && refused.is_empty()
            {
                return Some(only.clone());
            }
            let usable = || {
                pool.iter()
                    .filter(|keyed| !refused.iter().any(|other| Arc::ptr_eq(other, keyed)))
            };
            let awake = || usable().filter(|keyed| !keyed.is_resting(now));
            let has_left = |keyed: &&Arc<Keyed>| keyed.allowances.until(deployment.as_str(), now).is_none();
            let chosen = by_weight(|| awake().filter(has_left), random).or_else(|| by_weight(awake, random));
            if let Some(keyed) = chosen {
                return Some(keyed.clone());
            }
            for keyed in usable() {
                let until = keyed.rest.lock().until();
                if soonest.is_none_or(|(other, _)| until < other) {
                    soonest = Some((until, keyed));
                }
            }
        }
        soonest.map(|(_, keyed)| keyed.clone())
    }
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

    fn pick(endpoints: &Endpoints, tenant: Tenant<'_>, random: u32) -> Option<String> {
        let picked = endpoints.now().pick(
            tenant,
            &"openai".into(),
            &"openai/m".into(),
            &[],
            random,
            Instant::now(),
        );
        picked.map(|keyed| keyed.path.to_string())
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
            let mut refused = Vec::new();
            while let Some(next) = endpoints.now().pick(FIRST, &"openai".into(), &"openai/m".into(), &refused, random, now) {
                prop_assert!(!refused.iter().any(|other| Arc::ptr_eq(other, &next)));
                refused.push(next);
            }
            prop_assert_eq!(refused.len(), weights.len());
        }
    }
}
