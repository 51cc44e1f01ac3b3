//! What is fetched and expires: tokens and temporary keys, kept fresh in one way for all clouds.
//!
//! One fetch is in flight at a time, and all requests that need its outcome wait for it. While what there is is still
//! good, it serves, and is replaced in the background before its end; a token service that is down in the meantime costs
//! nothing but a line in the log. A service that fails is left alone for a while that doubles, so that it is never asked
//! once per request. What a provider refused is dropped, but only if it is still what would be sent next.
//!
//! Where tokens come from is a [`TokenSource`]; nothing here knows any.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::credential::CredentialError;

/// How long one fetch may take, however many calls it is made of.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// What lasts shorter than this is as good as expired.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(10);
/// What claims to last longer is fetched anew after this all the same.
const LONGEST_LIFETIME: Duration = Duration::from_secs(86_400);
/// How long a token service is left alone after a failure; each further one in a row doubles it.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Refusals in a row after which they are honoured less and less often: fetching anew does not help then.
const FREE_REFUSALS: u32 = 2;
const LONGEST_REFUSAL_GAP: Duration = Duration::from_secs(60);
/// Time without a refusal after which they are counted from the beginning.
const REFUSALS_FORGOTTEN: Duration = Duration::from_secs(300);

/// Where tokens of one kind come from.
#[async_trait::async_trait]
pub trait TokenSource: fmt::Debug + Send + Sync + 'static {
    /// What it hands out.
    type Token: Send + Sync + 'static;

    /// What is fetched, for the log: "Entra token".
    fn what(&self) -> &'static str;

    /// How long before its end a token is replaced. One that lives shorter than twice this is replaced at half its life.
    fn refresh_before(&self) -> Duration;

    /// Fetches one. May be cut off at any point.
    ///
    /// # Errors
    /// None could be had.
    async fn fetch(&self) -> Result<Fetched<Self::Token>, CredentialError>;
}

/// What a source handed out.
#[derive(Debug)]
pub struct Fetched<T> {
    /// The token.
    pub token: T,
    /// How long it lasts, counted from when it was asked for.
    pub lifetime: Duration,
}

/// A token that is in use. Two of them are the same only if they came from the same fetch.
pub struct Held<T> {
    token: T,
    refresh_at: Instant,
    expires_at: Instant,
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.token
    }
}

impl<T> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

/// The present token of one source.
pub struct TokenCell<T>(Arc<Inner<T>>);

struct Inner<T> {
    source: Box<dyn TokenSource<Token = T>>,
    current: ArcSwapOption<Held<T>>,
    /// Whoever holds it fetches.
    turn: Arc<tokio::sync::Mutex<()>>,
    history: Mutex<History>,
}

/// What went wrong lately.
#[derive(Default)]
struct History {
    /// Failed fetches in a row.
    failures: u32,
    /// The last of them, and when the next fetch may be tried.
    failed: Option<(CredentialError, Instant)>,
    /// Refusals that were honoured lately.
    refusals: u32,
    last_refusal: Option<Instant>,
}

impl<T: Send + Sync + 'static> TokenCell<T> {
    /// A cell that has fetched nothing yet.
    pub fn new(source: impl TokenSource<Token = T>) -> Self {
        Self::new_boxed(Box::new(source))
    }

    /// [`TokenCell::new`] for a source whose type was chosen at run time.
    pub fn new_boxed(source: Box<dyn TokenSource<Token = T>>) -> Self {
        Self(Arc::new(Inner {
            source,
            current: ArcSwapOption::empty(),
            turn: Arc::default(),
            history: Mutex::default(),
        }))
    }

    /// The present token, if there is one that has not expired. Starts its replacement when that is due.
    ///
    /// Must be called within a runtime.
    pub fn ready(&self) -> Option<Arc<Held<T>>> {
        let held = self.0.good()?;
        if Instant::now() >= held.refresh_at {
            self.refresh_in_background();
        }
        Some(held)
    }

    /// A token that is good now, fetched if need be.
    ///
    /// # Errors
    /// None could be had, or none could be had a moment ago.
    pub async fn get(&self) -> Result<Arc<Held<T>>, CredentialError> {
        if let Some(held) = self.ready() {
            return Ok(held);
        }
        let turn = Arc::clone(&self.0.turn).lock_owned().await;
        // Whoever had the turn before may have fetched it, or found out that it cannot be had.
        if let Some(held) = self.0.good() {
            return Ok(held);
        }
        self.0.may_fetch()?;
        // A task of its own, because the one who asks may leave while others wait for the outcome.
        let inner = Arc::clone(&self.0);
        let fetch = tokio::spawn(async move {
            let _turn = turn;
            inner.fetch().await
        });
        fetch.await.unwrap_or(Err(CredentialError::Timeout))
    }

    /// Hears that `token` was refused. Says whether another try would carry another token.
    pub fn refused(&self, token: &Arc<Held<T>>) -> bool {
        let current = self.0.current.load_full();
        if current.is_none_or(|current| !Arc::ptr_eq(&current, token)) {
            return true;
        }
        if !self.0.honours_refusal(Instant::now()) {
            return false;
        }
        // Somebody may have replaced it since; then it stays replaced.
        let none: Option<Arc<Held<T>>> = None;
        self.0.current.compare_and_swap(token, none);
        true
    }

    fn refresh_in_background(&self) {
        if self.0.may_fetch().is_err() {
            return;
        }
        let Ok(turn) = Arc::clone(&self.0.turn).try_lock_owned() else {
            return;
        };
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let _turn = turn;
            let due = inner.good().is_none_or(|held| Instant::now() >= held.refresh_at);
            if due && inner.may_fetch().is_ok() {
                // The error is in the log, and those who wait are told when there is nothing left to serve.
                let _outcome = inner.fetch().await;
            }
        });
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    fn good(&self) -> Option<Arc<Held<T>>> {
        self.current.load_full().filter(|held| Instant::now() < held.expires_at)
    }

    /// Whether the source has been left alone long enough since it last failed.
    fn may_fetch(&self) -> Result<(), CredentialError> {
        match &self.history.lock().failed {
            Some((error, until)) if Instant::now() < *until => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Fetches. The caller has the turn.
    async fn fetch(&self) -> Result<Arc<Held<T>>, CredentialError> {
        let asked_at = Instant::now();
        let outcome = tokio::time::timeout(FETCH_TIMEOUT, self.source.fetch()).await;
        let outcome = outcome.unwrap_or(Err(CredentialError::Timeout));
        let outcome = outcome.and_then(|fetched| {
            let gone = asked_at.elapsed() + SHORTEST_LIFETIME;
            if fetched.lifetime < gone {
                return Err(CredentialError::Expired);
            }
            Ok(fetched)
        });
        match outcome {
            Ok(Fetched { token, lifetime }) => {
                let lifetime = lifetime.min(LONGEST_LIFETIME);
                let until_refresh = lifetime.saturating_sub(self.source.refresh_before()).max(lifetime / 2);
                let held = Arc::new(Held {
                    token,
                    refresh_at: asked_at + until_refresh,
                    expires_at: asked_at + lifetime,
                });
                self.current.store(Some(Arc::clone(&held)));
                let mut history = self.history.lock();
                history.failures = 0;
                history.failed = None;
                Ok(held)
            }
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    fn failed(&self, error: &CredentialError) {
        let now = Instant::now();
        let mut history = self.history.lock();
        let wait = doubled(FIRST_BACKOFF, history.failures).min(LONGEST_BACKOFF);
        history.failures = history.failures.saturating_add(1);
        history.failed = Some((error.clone(), now + wait));
        let failures = history.failures;
        drop(history);
        let what = self.source.what();
        let retry_ms = wait.as_millis();
        if self.good().is_some() {
            tracing::warn!(%error, failures, retry_ms, "fetching the next {what} failed; the present one still serves");
        } else {
            tracing::warn!(%error, failures, retry_ms, "fetching the {what} failed");
        }
    }

    fn honours_refusal(&self, now: Instant) -> bool {
        let mut history = self.history.lock();
        let quiet = history.last_refusal.map(|last| now.duration_since(last));
        if quiet.is_some_and(|quiet| quiet >= REFUSALS_FORGOTTEN) {
            history.refusals = 0;
        }
        if history.refusals >= FREE_REFUSALS {
            let gap = doubled(FIRST_BACKOFF, history.refusals - FREE_REFUSALS).min(LONGEST_REFUSAL_GAP);
            if quiet.is_some_and(|quiet| quiet < gap) {
                return false;
            }
        }
        history.refusals = history.refusals.saturating_add(1);
        history.last_refusal = Some(now);
        true
    }
}

/// `first`, doubled so many times.
fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times.min(16)).unwrap_or(u32::MAX))
}

impl<T> Clone for TokenCell<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for TokenCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCell")
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
