//! One key as requests see it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use subtle::ConstantTimeEq as _;

use super::budgets::BudgetGate;
use crate::domain::key::{KeyHash, KeyRow};
use crate::domain::limit::{Applied, LimitOwner, applied};
use crate::domain::network;
use crate::domain::record::Owner;

/// One key: what it may do, and what it has done since it was opened.
pub struct KeyGate {
    /// What the database says about it.
    pub row: Arc<KeyRow>,
    /// The budgets its calls count against.
    pub budgets: Box<[Arc<BudgetGate>]>,
    /// What limits its requests. The first of them is about the key alone and all models.
    pub limits: Vec<Applied>,
    /// Whether a limit was set for it besides its requests per minute, so that what its organization says of keys without
    /// one is not about it.
    pub has_own_limit: bool,
    hash: KeyHash,
    /// When the secret with this hash stops working: with the key, or earlier if it is the one before a rotation.
    ends: Option<DateTime<Utc>>,
    closed: AtomicBool,
    /// Milliseconds since 1970 of the last use; 0 before the first.
    last_used_ms: AtomicI64,
    /// The last use that is in the database, likewise.
    written_ms: AtomicI64,
}

impl std::fmt::Debug for KeyGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyGate")
            .field("id", &self.row.id)
            .finish_non_exhaustive()
    }
}

impl KeyGate {
    /// The gate of a key, for callers whose secret has this hash.
    pub fn new(row: impl Into<Arc<KeyRow>>, hash: KeyHash) -> Self {
        let row = row.into();
        let previous = row.previous.filter(|(previous, _)| *previous == hash);
        let ends = match (row.expires_at, previous) {
            (Some(end), Some((_, until))) => Some(end.min(until)),
            (end, previous) => end.or(previous.map(|(_, until)| until)),
        };
        Self {
            ends,
            limits: applied(row.id, row.rate_limit, &row.limits),
            has_own_limit: row.limits.iter().any(|rule| {
                let own = matches!(rule.scope.owner, LimitOwner::Key(_) | LimitOwner::EachKey);
                rule.enabled && own && rule.scope.model.is_none()
            }),
            row,
            budgets: Box::default(),
            hash,
            closed: AtomicBool::new(false),
            last_used_ms: AtomicI64::new(0),
            written_ms: AtomicI64::new(0),
        }
    }

    /// The same gate with the key's budgets.
    #[must_use]
    pub fn with_budgets(mut self, budgets: Box<[Arc<BudgetGate>]>) -> Self {
        self.budgets = budgets;
        self
    }

    /// Whether a request with this hash may pass now.
    ///
    /// The hash was looked up already; comparing it once more, in constant time, keeps a faulty look-up from letting
    /// anybody in.
    pub fn admits(&self, hash: &KeyHash, now: DateTime<Utc>) -> bool {
        let open = !self.closed.load(Ordering::Acquire) && !self.row.disabled && self.row.revoked_at.is_none();
        let in_time = self.ends.is_none_or(|end| now < end);
        bool::from(self.hash.0.ct_eq(&hash.0)) && open && in_time
    }

    /// Whether the key may be used from an address; `None`: nobody knows which it is.
    pub fn admits_from(&self, address: Option<IpAddr>) -> bool {
        let networks = &self.row.allowed_ips;
        networks.is_empty() || address.is_some_and(|address| network::within(networks, address))
    }

    /// Whether the key changed since this gate was opened: whoever holds it must look again.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Notes a use.
    pub fn used(&self, now: DateTime<Utc>) {
        self.last_used_ms.store(now.timestamp_millis(), Ordering::Relaxed);
    }

    /// When it was last used since it was opened.
    pub fn last_used(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.last_used_ms.load(Ordering::Relaxed)).filter(|t| t.timestamp() != 0)
    }

    /// Its last use, if that is not in the database yet.
    pub fn unwritten_use(&self) -> Option<DateTime<Utc>> {
        self.last_used()
            .filter(|used| used.timestamp_millis() != self.written_ms.load(Ordering::Relaxed))
    }

    /// Its last use is in the database.
    pub fn wrote_use(&self, used: DateTime<Utc>) {
        self.written_ms.store(used.timestamp_millis(), Ordering::Relaxed);
    }

    /// Lets nobody pass any more: the key changed, and whoever comes next must look again.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whom its requests belong to.
    pub fn owner(&self) -> Owner {
        Owner {
            organization: self.row.organization.id,
            team: self.row.team.as_ref().map(|team| team.id),
            key: self.row.id,
        }
    }
}
