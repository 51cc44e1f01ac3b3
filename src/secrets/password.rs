//! Passwords: hashed with Argon2id, never for two many people at a time.
//!
//! Hashing takes 19 MiB and tens of milliseconds of a processor, which is the point: so it happens on threads that serve
//! nobody, a few at a time, and whoever finds too many waiting is turned away. Whoever does not exist is hashed for like
//! anybody else, so that the time of an answer says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use argon2::{PasswordHasher as _, PasswordVerifier as _};
use rand::{Rng as _, RngCore as _};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

/// Memory of one hash in KiB, passes over it and lanes: OWASP's first choice for Argon2id
/// (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes at a time.
const AT_ONCE: usize = 2;
/// Those that may wait for their turn: some seconds' worth.
const MAX_WAITING: usize = 64;
/// Bytes of randomness that keep two people with one password apart.
const SALT_BYTES: usize = 16;
/// The hash of what nobody knows, with the same cost as everybody's.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGtub3dzIGl0$AnvkBjfVvMS0nWl4wVd6EEbFqn0Xzeo2mPzVxQ7Jh3c";
/// Letters and digits of generated passwords, without those that look like others.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Length of generated passwords: 116 bits.
const GENERATED_CHARS: usize = 20;

/// Why a password was neither hashed nor compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait for their turn.
    #[error("too many people are signing in at the same time")]
    Busy,
    /// The library refuses.
    #[error("the password cannot be hashed")]
    Library,
}

/// Hashes passwords and compares them.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::default(),
        }
    }
}

impl Passwords {
    /// The hash of a password, in the text form that holds its salt and its cost.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        self.in_turn(move || {
            let mut salt = [0; SALT_BYTES];
            rand::rng().fill_bytes(&mut salt);
            let hashed = argon2()?.hash_password_with_salt(password.expose_secret().as_bytes(), &salt);
            hashed.map(|hash| hash.to_string()).map_err(|_| PasswordError::Library)
        })
        .await
    }

    /// Whether a password has a hash. Without one it takes as long, and has it never.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn matches(&self, password: SecretString, hash: Option<String>) -> Result<bool, PasswordError> {
        self.in_turn(move || {
            let known = hash.as_deref().and_then(|hash| PasswordHash::new(hash).ok());
            let somebodys = known.is_some();
            let hash = match known {
                Some(hash) => hash,
                None => PasswordHash::new(NOBODYS).map_err(|_| PasswordError::Library)?,
            };
            let same = argon2()?
                .verify_password(password.expose_secret().as_bytes(), &hash)
                .is_ok();
            Ok(same && somebodys)
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _place = Place::take(&self.waiting)?;
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.map_err(|_| PasswordError::Library)?;
        // The turn goes with the work: a caller who leaves does not make room for another hash beside it.
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        work.await.map_err(|_| PasswordError::Library)?
    }
}

/// A password that nobody can guess and somebody can type.
pub fn generated() -> SecretString {
    let mut rng = rand::rng();
    let characters = (0..GENERATED_CHARS).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    characters.collect::<String>().into()
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::Library)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// A place among those who wait or are served.
struct Place<'p>(&'p AtomicUsize);

impl<'p> Place<'p> {
    fn take(waiting: &'p AtomicUsize) -> Result<Self, PasswordError> {
        let taken = waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            (waiting < MAX_WAITING + AT_ONCE).then_some(waiting + 1)
        });
        taken.map(|_| Self(waiting)).map_err(|_| PasswordError::Busy)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_has_its_own_hash_and_no_other() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse battery".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let again = passwords.hash("correct horse battery".into()).await.unwrap();
        assert_ne!(hash, again, "a salt each");
        for (password, stored, expected) in [
            ("correct horse battery", Some(hash.clone()), true),
            ("correct horse batterz", Some(hash.clone()), false),
            ("", Some(hash), false),
            ("correct horse battery", None, false),
            ("correct horse battery", Some("not a hash".to_owned()), false),
        ] {
            assert_eq!(
                passwords.matches(password.into(), stored).await,
                Ok(expected),
                "{password}"
            );
        }
    }

    #[test]
    fn nobodys_hash_costs_as_much_as_anybodys() {
        let hash = PasswordHash::new(NOBODYS).unwrap();
        assert_eq!(hash.algorithm.as_str(), "argon2id");
        assert_eq!(hash.params.to_string(), format!("m={MEMORY_KIB},t={PASSES},p={LANES}"));
    }

    #[tokio::test]
    async fn whoever_finds_too_many_waiting_is_turned_away_and_nothing_is_left_over() {
        let passwords = Passwords::default();
        let all = passwords.turns.clone().acquire_many_owned(2).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..MAX_WAITING + AT_ONCE {
            let passwords = passwords.clone();
            waiting.push(tokio::spawn(async move { passwords.matches("x".into(), None).await }));
        }
        while passwords.waiting.load(Ordering::Acquire) < MAX_WAITING + AT_ONCE {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.matches("x".into(), None).await, Err(PasswordError::Busy));
        // Those who leave make room.
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        for left in waiting {
            assert!(left.await.is_err());
        }
        drop(all);
        assert_eq!(passwords.matches("x".into(), None).await, Ok(false));
        assert_eq!(passwords.waiting.load(Ordering::Acquire), 0);
    }

    #[test]
    fn generated_passwords_differ_and_are_long() {
        let [one, other] = [generated(), generated()];
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert_eq!(one.expose_secret().len(), GENERATED_CHARS);
    }
}
