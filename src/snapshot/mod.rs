//! The last good snapshot: what a replica needs to serve the keys it knows, for as long as its database is away.
//!
//! It has the keys that this replica has opened (their hashes, never their secrets) with their limits and budgets, the
//! organizations' configs, how many replicas there are, and what was read from Vault. Prices and the catalogue are not in
//! it: they are in the binary, the configuration file and those configs. Nor is money: a hard budget is refused until the
//! database sets a part of it aside.
//!
//! [`Snapshot`] is the copy in memory. Actors write into it what they hear from the database and read from it when they
//! hear nothing; [`mod@file`] is the sealed copy on the disk, from which a start goes on. Nothing here waits.
//!
//! **How old it may be.** Whatever is in it is as good as the last look for changes that went well: [`Snapshot::heard`]. From
//! then on it may be used for [`Rules::max_age`], and not a moment longer, whatever was restarted in between. While the
//! process runs its own clock counts; across a restart, the calendar's. A snapshot from the future is not used.

pub mod file;
mod format;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::config::Stored;
use crate::domain::config::ConfigVersion;
use crate::domain::ids::{KeyId, OrganizationId};
use crate::domain::key::{KeyHash, KeyRow, Revision};

/// How far the calendar may have gone back, before a snapshot counts as one from the future.
const CLOCK_SLACK: TimeDelta = TimeDelta::seconds(10);
/// How often a snapshot that does not change is written, to say that it still holds.
const STAMP_EVERY: TimeDelta = TimeDelta::seconds(30);
/// A writing may come so many times as long after another one as that kept the processor.
const REST_TIMES: u32 = 20;
/// Where there is no room for another key, so many parts of those that are there go: the longest known.
const DROPPED_PART: usize = 8;

/// A moment by both clocks: the steady one for what happens in this process, the calendar's for what outlives it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the clock that others have too.
    pub calendar: DateTime<Utc>,
    steady: Instant,
    /// By how much it was before that. A steady clock may not reach back beyond the start of the machine.
    before: Duration,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self {
            calendar: Utc::now(),
            steady: Instant::now(),
            before: Duration::ZERO,
        }
    }

    /// The moment of a calendar's date that is past.
    fn at(calendar: DateTime<Utc>, now: Self) -> Self {
        Self {
            calendar,
            steady: now.steady,
            before: (now.calendar - calendar).to_std().unwrap_or_default(),
        }
    }

    /// How long ago it was.
    fn age(self, now: Instant) -> Duration {
        self.before + now.saturating_duration_since(self.steady)
    }
}

/// What is in a snapshot, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long after the last look that went well it may be used.
    pub max_age: Duration,
    /// The time between two writings at least.
    pub write: Duration,
    /// Keys in it; 0: it has none, and nothing of the database.
    pub max_keys: usize,
    /// Whether what was read from Vault is in it.
    pub credentials: bool,
}

/// A config in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownConfig {
    /// Whose.
    pub organization: OrganizationId,
    /// Its name in paths.
    pub slug: String,
    /// What it says.
    pub config: ConfigVersion,
}

/// How a replica stands with its database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It hears of changes.
    InTouch,
    /// It does not, and serves by what it knows.
    CutOff {
        /// How old that is.
        age: Duration,
        /// How much longer it may be used.
        left: Duration,
    },
    /// It has not for so long that what it knows is too old to be used.
    AgedOut {
        /// How old it is.
        age: Duration,
    },
}

/// The last good snapshot, in memory.
pub struct Snapshot {
    rules: Rules,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    facts: Facts,
    by_key: HashMap<KeyId, SmallVec<[KeyHash; 2]>>,
    /// Whether the last look for changes failed.
    cut_off: bool,
    /// Whether somebody was told that it has aged out since it was last heard of.
    said_aged_out: bool,
    /// Whether something is not in the file.
    changed: bool,
    /// Drafts that were taken.
    drafts: u64,
    /// When the file was last written, how long that kept the processor, and what it says of the last look.
    written: Option<(Instant, Duration)>,
    stamped: Option<DateTime<Utc>>,
}

/// What is in the file.
#[derive(Clone, Default)]
pub(crate) struct Facts {
    /// The last look for changes of keys that went well.
    heard: Option<Moment>,
    /// Every change up to this one is in the keys.
    keys_revision: Option<Revision>,
    /// Every change up to this one is in the configs.
    configs_revision: Option<Revision>,
    replicas: u64,
    keys: HashMap<KeyHash, Known>,
    configs: HashMap<OrganizationId, KnownConfig>,
    credentials: Option<(Arc<Stored>, Moment)>,
}

#[derive(Clone)]
struct Known {
    row: Arc<KeyRow>,
    /// When it was looked up.
    since: DateTime<Utc>,
}

/// What is to be written, taken out in a moment; writing it takes longer.
pub struct Draft {
    /// Later ones have higher numbers.
    number: u64,
    facts: Facts,
}

impl Draft {
    /// The bytes to be sealed.
    fn written_out(&self) -> Zeroizing<Vec<u8>> {
        format::write(&self.facts)
    }
}

/// Why a snapshot cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It is of another version, or damaged within its seal.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The clock says so.
    #[error("it is from {0}, which is in the future: the clock was set back")]
    FromTheFuture(DateTime<Utc>),
    /// It is too old.
    #[error("it is {} s old, and may be used for {} s", age.as_secs(), max_age.as_secs())]
    TooOld {
        /// How old.
        age: Duration,
        /// How old it may be.
        max_age: Duration,
    },
}

impl Snapshot {
    /// An empty one.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            began: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// One that nothing is ever in.
    pub fn off() -> Self {
        Self::new(Rules {
            max_age: Duration::ZERO,
            write: Duration::ZERO,
            max_keys: 0,
            credentials: false,
        })
    }

    /// Takes over what a file says, as far as it is young enough. A part that is too old is left out: of keys it is what the
    /// error tells of, of credentials nobody misses it who is not told of missing ones anyway.
    ///
    /// # Errors
    /// Why nothing of the database was taken over.
    pub fn take_over(&self, bytes: &[u8], now: Moment) -> Result<(), NotTaken> {
        let read = format::read(bytes, now).map_err(NotTaken::Unreadable)?;
        let mut state = self.state.lock();
        if let Some((stored, at)) = read.credentials
            && self.rules.credentials
            && self.age_in_file(at, now).is_ok()
        {
            state.facts.credentials = Some((stored, at));
        }
        let Some(heard) = read.heard.filter(|_| self.rules.max_keys > 0) else {
            return Ok(());
        };
        self.age_in_file(heard, now)?;
        state.stamped = Some(heard.calendar);
        state.facts = Facts {
            credentials: state.facts.credentials.take(),
            ..read
        };
        state.by_key = HashMap::new();
        let pairs: Vec<(KeyId, KeyHash)> = state
            .facts
            .keys
            .iter()
            .map(|(hash, known)| (known.row.id, *hash))
            .collect();
        for (id, hash) in pairs {
            state.by_key.entry(id).or_default().push(hash);
        }
        Ok(())
    }

    fn age_in_file(&self, at: Moment, now: Moment) -> Result<(), NotTaken> {
        if at.calendar > now.calendar + CLOCK_SLACK {
            return Err(NotTaken::FromTheFuture(at.calendar));
        }
        let age = at.age(now.steady);
        match age > self.rules.max_age {
            true => Err(NotTaken::TooOld {
                age,
                max_age: self.rules.max_age,
            }),
            false => Ok(()),
        }
    }

    /// Whether keys are kept.
    pub fn keeps_keys(&self) -> bool {
        self.rules.max_keys > 0
    }

    /// Whether a start can go on from it without the database.
    pub fn can_start(&self, now: Instant) -> bool {
        self.keeps_keys() && self.state.lock().facts.heard.is_some() && self.age(now) <= self.rules.max_age
    }

    // Keys.

    /// The database says this of a key.
    pub fn learn(&self, hash: KeyHash, row: Arc<KeyRow>, now: DateTime<Utc>) {
        if !self.keeps_keys() {
            return;
        }
        let mut state = self.state.lock();
        if state.facts.keys.len() >= self.rules.max_keys && !state.facts.keys.contains_key(&hash) {
            state.drop_longest_known();
        }
        let hashes = state.by_key.entry(row.id).or_default();
        if !hashes.contains(&hash) {
            hashes.push(hash);
        }
        state.facts.keys.insert(hash, Known { row, since: now });
        state.changed = true;
    }

    /// What is known of a key, unless that is too old to be used.
    pub fn known(&self, hash: &KeyHash, now: Instant) -> Option<Arc<KeyRow>> {
        if !self.keeps_keys() || self.age(now) > self.rules.max_age {
            return None;
        }
        self.state.lock().facts.keys.get(hash).map(|known| known.row.clone())
    }

    /// Whether this is still what is known of a key, and may be used.
    pub fn holds(&self, hash: &KeyHash, row: &Arc<KeyRow>, now: Instant) -> bool {
        self.known(hash, now).is_some_and(|known| Arc::ptr_eq(&known, row))
    }

    /// A key has changed: what was known of it is forgotten. Gives the hashes it was known by.
    pub fn forget_key(&self, id: KeyId) -> SmallVec<[KeyHash; 2]> {
        let mut state = self.state.lock();
        let hashes = state.by_key.remove(&id).unwrap_or_default();
        for hash in &hashes {
            state.facts.keys.remove(hash);
        }
        state.changed |= !hashes.is_empty();
        hashes
    }

    /// The same for keys that have changed since they were looked up.
    pub fn forget_changed(&self, changes: &[(KeyId, Revision)]) -> Vec<KeyHash> {
        let older = |(id, revision): &&(KeyId, Revision)| {
            let state = self.state.lock();
            let hashes = state.by_key.get(id).into_iter().flatten();
            let mut rows = hashes.filter_map(|hash| state.facts.keys.get(hash));
            rows.any(|known| known.row.revision < *revision)
        };
        let changed: Vec<KeyId> = changes.iter().filter(older).map(|(id, _)| *id).collect();
        changed.into_iter().flat_map(|id| self.forget_key(id)).collect()
    }

    /// Forgets every key.
    pub fn forget_keys(&self) {
        let mut state = self.state.lock();
        state.changed |= !state.facts.keys.is_empty();
        state.facts.keys.clear();
        state.by_key.clear();
    }

    /// The keys that are known.
    pub fn keys(&self) -> Vec<KeyId> {
        self.state.lock().by_key.keys().copied().collect()
    }

    /// How many there are, each with as many secrets as are in use.
    pub fn known_keys(&self) -> usize {
        self.state.lock().facts.keys.len()
    }

    // The database.

    /// A look for changes that began then went well: all up to this revision are in here.
    pub fn heard(&self, at: Moment, revision: Revision) {
        let mut state = self.state.lock();
        state.changed |= state.facts.keys_revision != Some(revision);
        state.facts.heard = Some(at);
        state.facts.keys_revision = Some(revision);
        state.cut_off = false;
        state.said_aged_out = false;
    }

    /// A look for changes failed. Says whether the one before went well.
    pub fn lost(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().cut_off, true)
    }

    /// Whether the last look for changes failed.
    pub fn is_cut_off(&self) -> bool {
        self.state.lock().cut_off
    }

    /// Up to which change the keys are known.
    pub fn keys_revision(&self) -> Option<Revision> {
        self.state.lock().facts.keys_revision
    }

    /// How old what is known is. Before the first look, nothing is older than the process.
    pub fn age(&self, now: Instant) -> Duration {
        let heard = self.state.lock().facts.heard;
        heard.map_or_else(|| now.saturating_duration_since(self.began), |heard| heard.age(now))
    }

    /// How this replica stands with its database.
    pub fn standing(&self, now: Instant) -> Standing {
        let age = self.age(now);
        match self.rules.max_age.checked_sub(age) {
            _ if !self.keeps_keys() => Standing::InTouch,
            None => Standing::AgedOut { age },
            Some(left) if self.is_cut_off() => Standing::CutOff { age, left },
            Some(_) => Standing::InTouch,
        }
    }

    /// Whether it has just aged out: true once, until the database was heard of again.
    pub fn has_aged_out(&self, now: Instant) -> bool {
        let aged_out = matches!(self.standing(now), Standing::AgedOut { .. });
        aged_out && !std::mem::replace(&mut self.state.lock().said_aged_out, true)
    }

    // What else there is.

    /// The configs that changed, up to this revision; all there are, if `replaces` says so.
    pub fn configs_are(&self, revision: Revision, configs: impl IntoIterator<Item = KnownConfig>, replaces: bool) {
        if !self.keeps_keys() {
            return;
        }
        let mut state = self.state.lock();
        if replaces {
            state.facts.configs.clear();
        }
        for known in configs {
            state.facts.configs.insert(known.organization, known);
        }
        state.changed |= state.facts.configs_revision != Some(revision);
        state.facts.configs_revision = Some(revision);
    }

    /// The configs in force, and up to which change.
    pub fn configs(&self) -> Option<(Revision, Vec<KnownConfig>)> {
        let state = self.state.lock();
        let revision = state.facts.configs_revision?;
        Some((revision, state.facts.configs.values().cloned().collect()))
    }

    /// So many replicas are alive.
    pub fn replicas_are(&self, count: u64) {
        let mut state = self.state.lock();
        state.changed |= self.keeps_keys() && state.facts.replicas != count;
        state.facts.replicas = count;
    }

    /// How many replicas were alive when somebody last counted.
    pub fn replicas(&self) -> u64 {
        self.state.lock().facts.replicas
    }

    /// What was read from Vault.
    pub fn credentials_are(&self, stored: &Stored, at: Moment) {
        if !self.rules.credentials {
            return;
        }
        let mut state = self.state.lock();
        let known = state.facts.credentials.take().map(|(known, _)| known);
        let (kept, changed) = match known.filter(|known| same(known, stored)) {
            Some(known) => (known, false),
            None => (Arc::new(stored.clone()), true),
        };
        state.changed |= changed;
        state.facts.credentials = Some((kept, at));
    }

    /// What was last read from Vault and how long ago, unless that is too long.
    pub fn credentials(&self, now: Instant) -> Option<(Arc<Stored>, Duration)> {
        let (stored, at) = self.state.lock().facts.credentials.clone()?;
        let age = at.age(now);
        (age <= self.rules.max_age).then_some((stored, age))
    }

    // Writing.

    /// What is to be written now, if anything is. Whoever takes it says how long it took ([`Self::wrote`]), or that it
    /// failed ([`Self::not_written`]).
    pub fn draft(&self, now: Instant) -> Option<Draft> {
        let mut state = self.state.lock();
        let due = match state.written {
            None => true,
            Some((at, took)) => now.saturating_duration_since(at) >= self.rules.write.max(took * REST_TIMES),
        };
        let stamp = state.stamp();
        // Either way: a clock that was set back makes what is written come from the future.
        let apart = |stamped: DateTime<Utc>| stamp.is_some_and(|stamp| (stamp - stamped).abs() >= STAMP_EVERY);
        let newer = state.stamped.is_none_or(apart);
        if !due || stamp.is_none() || !(state.changed || newer) {
            return None;
        }
        Some(state.begin_writing(stamp))
    }

    /// What is not written yet, for the end of the process.
    pub fn last_draft(&self) -> Option<Draft> {
        let mut state = self.state.lock();
        let stamp = state.stamp();
        (stamp.is_some() && (state.changed || stamp != state.stamped)).then(|| state.begin_writing(stamp))
    }

    /// A draft is on the disk, and kept the processor for so long.
    pub fn wrote(&self, now: Instant, took: Duration) {
        self.state.lock().written = Some((now, took));
    }

    /// It is not.
    pub fn not_written(&self, now: Instant) {
        let mut state = self.state.lock();
        state.changed = true;
        state.written = Some((now, Duration::ZERO));
    }
}

impl State {
    /// The last moment that something in here was known to hold; `None`: nothing is in here.
    fn stamp(&self) -> Option<DateTime<Utc>> {
        let credentials = self.facts.credentials.as_ref().map(|(_, at)| at.calendar);
        let heard = self.facts.heard.map(|heard| heard.calendar);
        heard.max(credentials)
    }

    fn begin_writing(&mut self, stamp: Option<DateTime<Utc>>) -> Draft {
        self.changed = false;
        self.stamped = stamp;
        self.drafts += 1;
        Draft {
            number: self.drafts,
            facts: self.facts.clone(),
        }
    }

    fn drop_longest_known(&mut self) {
        let mut since: Vec<(DateTime<Utc>, KeyHash)> = self
            .facts
            .keys
            .iter()
            .map(|(hash, known)| (known.since, *hash))
            .collect();
        let count = (since.len() / DROPPED_PART).max(1).min(since.len());
        if count == 0 {
            return;
        }
        since.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        let gone: HashSet<KeyHash> = since[..count].iter().map(|(_, hash)| *hash).collect();
        for hash in &gone {
            let Some(known) = self.facts.keys.remove(hash) else {
                continue;
            };
            let id = known.row.id;
            if let Some(hashes) = self.by_key.get_mut(&id) {
                hashes.retain(|other| other != hash);
                if hashes.is_empty() {
                    self.by_key.remove(&id);
                }
            }
        }
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// Whether two readings of Vault say the same.
fn same(one: &Stored, other: &Stored) -> bool {
    let values = |stored: &Stored| -> Vec<(String, String, String)> {
        let fields = stored.credentials.iter().flat_map(|(path, fields)| {
            let of = |(name, value): (&str, &secrecy::SecretString)| {
                (path.to_string(), name.to_owned(), value.expose_secret().to_owned())
            };
            fields.iter().map(of)
        });
        fields.collect()
    };
    one.credentials.keys().eq(other.credentials.keys()) && values(one) == values(other)
}
