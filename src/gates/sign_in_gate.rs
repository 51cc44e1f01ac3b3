//! How often somebody may try to sign in: counted for each account and for each address, in this process.
//!
//! Whoever knows an address could keep its owner out by failing all the time. So those who come from where the account
//! was signed in from before have attempts of their own, which nobody else uses up; and attempts come back one by one, so
//! that even a stranger's wait ends. What is remembered is bounded; who is forgotten starts anew.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::throttle::{Throttle, ThrottlePolicy};
use crate::domain::user::Email;

/// Accounts, addresses and familiar pairs that are remembered.
const MAX_REMEMBERED: u64 = 50_000;
/// How long an address is familiar to an account.
const FAMILIAR_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How often, for each kind of counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignInPolicy {
    /// For an account.
    pub account: ThrottlePolicy,
    /// For an address.
    pub address: ThrottlePolicy,
}

/// An account, and whether it is asked for from where it was signed in from before.
type Account = (Arc<str>, Option<IpAddr>);

/// Counts attempts to sign in.
#[derive(Debug)]
pub struct SignInGate {
    policy: SignInPolicy,
    since: Instant,
    accounts: Cache<Account, Arc<Mutex<Throttle>>>,
    addresses: Cache<IpAddr, Arc<Mutex<Throttle>>>,
    familiar: Cache<(Arc<str>, IpAddr), ()>,
}

/// An attempt that counts, until it is said to have succeeded.
#[derive(Debug)]
pub struct Attempt<'g> {
    gate: &'g SignInGate,
    email: Arc<str>,
    from: Option<IpAddr>,
    account: Arc<Mutex<Throttle>>,
    address: Option<Arc<Mutex<Throttle>>>,
}

impl SignInGate {
    /// A gate nobody has come to yet.
    pub fn new(policy: SignInPolicy) -> Self {
        // What has recovered need not be remembered.
        let whole = |policy: ThrottlePolicy| policy.recovery * policy.burst.max(1);
        let remembered = |policy| {
            Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .time_to_idle(whole(policy))
        };
        Self {
            policy,
            since: Instant::now(),
            accounts: remembered(policy.account).build(),
            addresses: Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .time_to_idle(whole(policy.address))
                .build(),
            familiar: Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .time_to_idle(FAMILIAR_FOR)
                .build(),
        }
    }

    /// Lets somebody try to sign in to an account.
    ///
    /// # Errors
    /// Not now; after the time.
    pub fn enter(&self, email: &Email, from: Option<IpAddr>) -> Result<Attempt<'_>, Duration> {
        let now = self.since.elapsed();
        let email: Arc<str> = email.as_str().into();
        let from = from.map(network);
        let address = from.map(|from| self.addresses.get_with(from, Arc::default));
        if let Some(address) = &address {
            address.lock().take(now, &self.policy.address)?;
        }
        let familiar = from.filter(|from| self.familiar.contains_key(&(email.clone(), *from)));
        let account = self.accounts.get_with((email.clone(), familiar), Arc::default);
        if let Err(wait) = account.lock().take(now, &self.policy.account) {
            if let Some(address) = &address {
                address.lock().give_back(&self.policy.address);
            }
            return Err(wait);
        }
        Ok(Attempt {
            gate: self,
            email,
            from,
            account,
            address,
        })
    }

    /// Lets somebody try something else that costs as much from an address.
    ///
    /// # Errors
    /// Not now; after the time.
    pub fn enter_from(&self, from: Option<IpAddr>) -> Result<(), Duration> {
        let Some(from) = from.map(network) else { return Ok(()) };
        let address = self.addresses.get_with(from, Arc::default);
        address.lock().take(self.since.elapsed(), &self.policy.address)
    }
}

impl Attempt<'_> {
    /// It was not in vain: it does not count, and this address is familiar from now on.
    pub fn succeeded(self) {
        self.account.lock().give_back(&self.gate.policy.account);
        if let Some(address) = &self.address {
            address.lock().give_back(&self.gate.policy.address);
        }
        if let Some(from) = self.from {
            self.gate.familiar.insert((self.email, from), ());
        }
    }
}

/// Whom an address stands for: with IPv6 everybody has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> SignInGate {
        SignInGate::new(SignInPolicy {
            account: ThrottlePolicy {
                burst: 3,
                recovery: Duration::from_secs(30),
            },
            address: ThrottlePolicy {
                burst: 5,
                recovery: Duration::from_secs(2),
            },
        })
    }

    fn email(text: &str) -> Email {
        Email::parse(text).unwrap()
    }

    fn from(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_too_often_waits_and_is_let_in_again() {
        let gate = gate();
        let ada = email("ada@example.com");
        for last in 1..=3 {
            assert!(gate.enter(&ada, from(&format!("192.0.2.{last}"))).is_ok());
        }
        let wait = gate.enter(&ada, from("192.0.2.4")).unwrap_err();
        assert!(wait <= Duration::from_secs(30), "{wait:?}");
        tokio::time::advance(wait).await;
        assert!(gate.enter(&ada, from("192.0.2.4")).is_ok());
        // Nobody else is concerned.
        assert!(gate.enter(&email("bob@example.com"), from("192.0.2.1")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_keeps_the_owner_of_an_account_out_where_they_have_signed_in_before() {
        let gate = gate();
        let ada = email("ada@example.com");
        gate.enter(&ada, from("192.0.2.1")).unwrap().succeeded();
        for last in 10..40 {
            let _ = gate.enter(&ada, from(&format!("198.51.100.{last}")));
        }
        assert!(gate.enter(&ada, from("198.51.100.99")).is_err());
        assert!(gate.enter(&ada, from("192.0.2.1")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_tries_so_many_accounts_and_no_more() {
        let gate = gate();
        // All of these are one household's.
        let tries = (0..20).map(|n| {
            let address = from(&format!("2001:db8:0:1::{n:x}"));
            gate.enter(&email(&format!("user{n}@example.com")), address).is_ok()
        });
        assert_eq!(tries.filter(|let_in| *let_in).count(), 5);
        assert!(gate.enter(&email("user@example.com"), from("2001:db8:0:2::1")).is_ok());
        assert!(gate.enter_from(from("2001:db8:0:1::1")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_succeeds_has_used_nothing_up() {
        let gate = gate();
        for _ in 0..100 {
            gate.enter(&email("ada@example.com"), from("192.0.2.1"))
                .unwrap()
                .succeeded();
        }
    }
}
