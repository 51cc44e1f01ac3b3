//! Work that is done later: its kinds, their terms, and the arithmetic of when.
//!
//! A kind is known to everybody, because whoever enqueues a job and whoever runs it have to mean the same; what it does
//! is in `jobs`. Pure: the time is handed in.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::ids::OrganizationId;

/// A job's id, which sorts by when it was enqueued.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// That a worker has a job: good until somebody else is given it, whatever that worker knows of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The job.
    pub job: JobId,
    /// The number of the claim, which rises each time the job is given to somebody.
    pub number: i64,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum JobKind {
    /// Forgets what is no longer kept.
    Retention,
    /// Sends an event to a webhook.
    WebhookDelivery,
    /// Looks for keys that expire soon.
    KeyExpiry,
    /// Looks for failures that are unusual and models without a price.
    Anomalies,
    /// Serves a batch of requests.
    Batch,
    /// Brings the sums over requests up to date.
    UsageRollup,
    /// Charges past calls by other prices.
    Reprice,
    /// Compares what was spent of budgets with the ledger.
    BudgetReconciliation,
    /// Writes a table that somebody asked for.
    Export,
}

/// How jobs of a kind are run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Terms {
    /// How many of them one process runs at a time.
    pub at_once: usize,
    /// How many of them that share a lane one process runs at a time.
    pub at_once_in_lane: usize,
    /// How many of one organization's one process runs at a time, in all their lanes.
    pub at_once_of_one: usize,
    /// How often one is begun before it is given up. A worker that dies has begun it.
    pub max_attempts: u32,
    /// How long one may take.
    pub timeout: Duration,
    /// How long to wait after a failure.
    pub backoff: Backoff,
    /// When it is due by itself.
    pub every: Option<Every>,
    /// Whether one that is done stays in the list for a while.
    pub kept: bool,
}

/// Waits that double after each failure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub most: Duration,
}

/// A time that comes again and again, the same for every process: so long after midnight UTC of 1970, and then every so
/// often. Whole seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Every {
    /// How often; at least a second.
    pub period: Duration,
    /// How long after the beginning of a period.
    pub offset: Duration,
}

/// What is known of a job's progress.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum JobState {
    /// It is to be run, now or later.
    Waiting,
    /// A worker has it.
    Running,
    /// It is done.
    Done,
    /// It was given up.
    Dead,
}

/// A job to be enqueued.
#[derive(Clone, PartialEq, Debug)]
pub struct NewJob {
    /// What is to be done.
    pub kind: JobKind,
    /// For whom; `None`: for the installation.
    pub organization: Option<OrganizationId>,
    /// What the job needs to know. It is readable in the database: no secrets, no prompts.
    pub payload: serde_json::Value,
    /// While a job of the kind with this key is not over, another one is not enqueued; where it is running already, it is
    /// run once more afterwards, so that it sees whatever came before this one was enqueued.
    pub key: Option<String>,
    /// Jobs of a kind in one lane cannot take all the places of their kind.
    pub lane: Option<Uuid>,
    /// How long from now it is due.
    pub after: Duration,
}

impl NewJob {
    /// A job that is due at once.
    pub fn new(kind: JobKind, payload: serde_json::Value) -> Self {
        Self {
            kind,
            organization: None,
            payload,
            key: None,
            lane: None,
            after: Duration::ZERO,
        }
    }
}

/// A job as people see it.
#[derive(Clone, PartialEq, Debug)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// What it does. A text, because a newer version may have enqueued it.
    pub kind: String,
    /// For whom.
    pub organization: Option<OrganizationId>,
    /// How far it is.
    pub state: JobState,
    /// What it was told.
    pub payload: serde_json::Value,
    /// How often it was begun.
    pub attempts: u32,
    /// When it is or was due.
    pub run_at: DateTime<Utc>,
    /// Why it failed the last time.
    pub last_error: Option<String>,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Which jobs are asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct JobFilter {
    /// Those of an organization, or else those of the installation.
    pub organization: Option<OrganizationId>,
    /// Those of a kind.
    pub kind: Option<String>,
    /// Those in a state.
    pub state: Option<JobState>,
    /// Those that were enqueued before this one.
    pub before: Option<JobId>,
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

impl JobKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Retention,
        Self::WebhookDelivery,
        Self::KeyExpiry,
        Self::Anomalies,
        Self::Batch,
        Self::UsageRollup,
        Self::Reprice,
        Self::BudgetReconciliation,
        Self::Export,
    ];

    /// Its name in the database, in metrics and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::WebhookDelivery => "webhook_delivery",
            Self::KeyExpiry => "key_expiry",
            Self::Anomalies => "anomalies",
            Self::Batch => "batch",
            Self::UsageRollup => "usage_rollup",
            Self::Reprice => "reprice",
            Self::BudgetReconciliation => "budget_reconciliation",
            Self::Export => "export",
        }
    }

    /// The kind of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }

    /// How jobs of this kind are run.
    pub fn terms(self) -> Terms {
        /// Housekeeping: one at a time, for as long as it takes, and again soon.
        const USUAL: Terms = Terms {
            at_once: 1,
            at_once_in_lane: 1,
            at_once_of_one: 1,
            max_attempts: 10,
            timeout: HOUR,
            backoff: Backoff {
                first: Duration::from_secs(5),
                most: HOUR,
            },
            every: None,
            kept: true,
        };
        match self {
            Self::Retention => Terms {
                every: Some(Every {
                    period: HOUR,
                    offset: MINUTE.saturating_mul(7),
                }),
                ..USUAL
            },
            // An endpoint that hangs takes its own lane's places for as long as an attempt may last, and no more. An
            // organization may have many such endpoints, so what it takes in all is bounded too: others find room.
            Self::WebhookDelivery => Terms {
                at_once: 256,
                at_once_in_lane: 4,
                at_once_of_one: 64,
                max_attempts: super::webhook::MAX_ATTEMPTS,
                timeout: MINUTE,
                kept: false,
                ..USUAL
            },
            Self::KeyExpiry => Terms {
                every: Some(Every {
                    period: MINUTE.saturating_mul(10),
                    offset: MINUTE,
                }),
                ..USUAL
            },
            // Being put back by a worker that stops counts anew, so attempts are failures and deaths.
            Self::Batch => Terms {
                at_once: 8,
                at_once_in_lane: 2,
                at_once_of_one: 2,
                timeout: HOUR.saturating_mul(26),
                ..USUAL
            },
            Self::Anomalies => Terms {
                timeout: MINUTE,
                every: Some(Every {
                    period: MINUTE,
                    offset: Duration::from_secs(20),
                }),
                kept: false,
                ..USUAL
            },
            // An hour is summed up two minutes after its end; requests that end later are counted within a minute.
            Self::UsageRollup => Terms {
                every: Some(Every {
                    period: MINUTE,
                    offset: Duration::ZERO,
                }),
                kept: false,
                ..USUAL
            },
            // Each organization's goes on by itself; one that takes long is no reason for others to wait.
            Self::Reprice | Self::Export => Terms { at_once: 2, ..USUAL },
            Self::BudgetReconciliation => Terms {
                every: Some(Every {
                    period: HOUR.saturating_mul(6),
                    offset: MINUTE.saturating_mul(31),
                }),
                ..USUAL
            },
        }
    }
}

impl Backoff {
    /// How long to wait after a failure, if it was the n-th in a row; up to a fifth more, by `chance` of 0 to 1, so that
    /// what failed together does not come back together.
    pub fn after(self, failures: u32, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let wait = self.first.saturating_mul(1 << doublings).min(self.most);
        wait + wait.mul_f64(0.2 * chance.clamp(0.0, 1.0))
    }
}

impl Every {
    /// The number of the period that a time is in: it rises by one whenever the job is due.
    pub fn tick(self, at: DateTime<Utc>) -> i64 {
        (at.timestamp() - seconds(self.offset)).div_euclid(seconds(self.period).max(1))
    }

    /// How long from a time until it is due.
    pub fn wait(self, at: DateTime<Utc>) -> Duration {
        let period = seconds(self.period).max(1);
        let next = (self.tick(at) + 1) * period + seconds(self.offset);
        let millis = next.saturating_mul(1_000).saturating_sub(at.timestamp_millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Done, Self::Dead];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// The state of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_and_states_are_found_by_their_names() {
        for &kind in JobKind::ALL {
            assert_eq!(JobKind::parse(kind.as_str()), Some(kind));
            let terms = kind.terms();
            assert!(
                terms.at_once > 0 && terms.at_once_in_lane > 0 && terms.max_attempts > 0,
                "{kind:?}"
            );
            assert!(
                terms.at_once_in_lane <= terms.at_once_of_one,
                "{kind:?}: a lane is an organization's"
            );
            assert!(
                terms.at_once == 1 || terms.at_once_of_one <= terms.at_once / 2,
                "{kind:?}: one organization leaves room"
            );
        }
        for state in JobState::ALL {
            assert_eq!(JobState::parse(state.as_str()), Some(state));
        }
        assert_eq!((JobKind::parse("no such"), JobState::parse("")), (None, None));
    }

    #[test]
    fn waits_double_up_to_a_most() {
        let backoff = Backoff {
            first: Duration::from_secs(5),
            most: Duration::from_secs(60),
        };
        let waits: Vec<u64> = (1..=6).map(|n| backoff.after(n, 0.0).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        assert_eq!(backoff.after(u32::MAX, 1.0), Duration::from_secs(72));
    }

    proptest! {
        #[test]
        fn what_is_due_every_so_often_is_due_once_in_each_period(
            at in 0_i64..4_000_000_000, period in 1_u64..100_000, offset in 0_u64..100_000,
        ) {
            let every = Every { period: Duration::from_secs(period), offset: Duration::from_secs(offset) };
            let at = DateTime::from_timestamp(at, 0).unwrap();
            let wait = TimeDelta::from_std(every.wait(at)).unwrap();
            prop_assert!(wait > TimeDelta::zero() && wait <= TimeDelta::seconds(period as i64));
            prop_assert_eq!(every.tick(at + wait), every.tick(at) + 1);
            prop_assert_eq!(every.tick(at + wait - TimeDelta::milliseconds(1)), every.tick(at));
        }
    }
}
