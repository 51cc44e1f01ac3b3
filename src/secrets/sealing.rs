//! Sealing what the database keeps: AES-256-GCM under a key that derives from the master key, one for each purpose.
//!
//! What is sealed is bound to where it is kept: opened in another place, it is not opened at all. So nobody who can write
//! into the database can put one tenant's secret in the place of another's.

use aws_lc_rs::aead::{AES_256_GCM, Aad, MAX_TAG_LEN, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::zeroize::Zeroizing;

use super::master_key::{KEY_BYTES, MasterKey};

/// Seals and opens for one purpose.
#[derive(Clone)]
pub struct Sealer(std::sync::Arc<RandomizedNonceKey>);

/// What is sealed cannot be opened: it is damaged, from another place, or of another master key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what is sealed is damaged, belongs elsewhere, or was sealed with another master key")]
pub struct Unsealable;

/// Bytes by which sealing makes something longer.
pub const OVERHEAD: usize = NONCE_LEN + MAX_TAG_LEN;

impl Sealer {
    /// The sealer of a purpose.
    pub fn new(master_key: &MasterKey, purpose: &str) -> Self {
        Self::of_key(&Zeroizing::new(master_key.sealing_key(purpose)))
    }

    /// The sealer with a key of its own.
    pub(super) fn of_key(key: &[u8; KEY_BYTES]) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).expect("the key has 32 bytes");
        Self(std::sync::Arc::new(key))
    }

    /// Seals something for a place.
    pub fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut body = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(place), &mut body)
            .expect("less is sealed than AES-GCM can take");
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut body);
        sealed
    }

    /// Opens what was sealed for a place.
    ///
    /// # Errors
    /// It was not sealed for this place by this master key, or was changed since.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(Unsealable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealable)?;
        let mut body = body.to_vec();
        let plain = self.0.open_in_place(nonce, Aad::from(place), &mut body);
        let length = plain.map_err(|_| Unsealable)?.len();
        body.truncate(length);
        Ok(body)
    }

    /// The same as text.
    pub fn seal_text(&self, place: &[u8], plain: &str) -> String {
        BASE64.encode(self.seal(place, plain.as_bytes()))
    }

    /// The same as text.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_text(&self, place: &[u8], sealed: &str) -> Result<Zeroizing<String>, Unsealable> {
        let sealed = BASE64.decode(sealed).map_err(|_| Unsealable)?;
        let plain = self.open(place, &sealed)?;
        String::from_utf8(plain).map(Zeroizing::new).map_err(|_| Unsealable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::master_key::MasterKeySources;

    fn key(text: &str) -> MasterKey {
        MasterKey::find(&MasterKeySources {
            value: Some(text),
            file: None,
            vault: None,
            generate_in: None,
        })
        .unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let (one, other) = (
            key("dGVzdHMtb25seS1tYXN0ZXIta2V5LTMyLWJ5dGVzISE="),
            key("b3RoZXJzLW9ubHktbWFzdGVyLWtleS0zMi1ieXRlcyE="),
        );
        let sealer = Sealer::new(&one, "a");
        let sealed = sealer.seal(b"here", b"CANARY");
        assert_eq!(sealed.len(), 6 + OVERHEAD);
        assert!(!sealed.windows(6).any(|part| part == b"CANARY"));
        assert_ne!(sealed, sealer.seal(b"here", b"CANARY"), "never the same twice");
        assert_eq!(sealer.open(b"here", &sealed).unwrap(), b"CANARY");
        assert_eq!(sealer.open(b"there", &sealed), Err(Unsealable));
        assert_eq!(Sealer::new(&one, "b").open(b"here", &sealed), Err(Unsealable));
        assert_eq!(Sealer::new(&other, "a").open(b"here", &sealed), Err(Unsealable));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(sealer.open(b"here", &changed), Err(Unsealable), "{at}");
            assert_eq!(sealer.open(b"here", &sealed[..at]), Err(Unsealable), "{at}");
        }
        let text = sealer.seal_text(b"x", "whsec_1");
        assert_eq!(sealer.open_text(b"x", &text).unwrap().as_str(), "whsec_1");
        assert_eq!(sealer.open_text(b"x", "?"), Err(Unsealable));
    }
}
