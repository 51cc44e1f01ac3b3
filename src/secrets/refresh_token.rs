//! Refresh tokens: `bnr_` and 91 characters that hold a session's id, how often it was refreshed, randomness and a tag.
//!
//! The tag is ours alone to make, so a token that we never gave out is refused without asking the database, and one that
//! is old is known to have been good: that is how a stolen one is noticed. The database has a keyed hash of the newest.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, Mac as _};
use rand::RngCore as _;
use secrecy::SecretString;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::master_key::MasterKey;
use crate::domain::key::hex;

/// What every token begins with, so that one that leaks is recognised.
const PREFIX: &str = "bnr_";
/// Session, generation and randomness.
const BODY_BYTES: usize = 16 + 4 + 16;
const TAG_BYTES: usize = 32;

/// Makes refresh tokens and recognises them.
#[derive(Clone)]
pub struct RefreshTokens {
    tag: Hmac<Sha256>,
    hash: Hmac<Sha256>,
}

/// A token that is one of ours, good or not any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recognised {
    /// The session it is of.
    pub session: Uuid,
    /// How often the session had been refreshed before the token was made.
    pub generation: u32,
    /// Its keyed hash.
    pub hash: String,
}

/// A token that was just made.
pub struct Made {
    /// The token, for its user alone.
    pub token: SecretString,
    /// Its keyed hash, for the database.
    pub hash: String,
}

impl std::fmt::Debug for RefreshTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshTokens")
    }
}

impl RefreshTokens {
    /// The tokens of a master key.
    pub fn new(master_key: &MasterKey) -> Self {
        Self {
            tag: master_key.purpose("bonito refresh token tag v1"),
            hash: master_key.purpose("bonito refresh token hash v1"),
        }
    }

    /// Makes a token of a session.
    pub fn make(&self, session: Uuid, generation: u32) -> Made {
        let mut bytes = [0; BODY_BYTES + TAG_BYTES];
        bytes[..16].copy_from_slice(session.as_bytes());
        bytes[16..20].copy_from_slice(&generation.to_be_bytes());
        rand::rng().fill_bytes(&mut bytes[20..BODY_BYTES]);
        let tag = self.tag_of(&bytes[..BODY_BYTES]);
        bytes[BODY_BYTES..].copy_from_slice(&tag);
        Made {
            token: format!("{PREFIX}{}", BASE64.encode(bytes)).into(),
            hash: self.hash_of(&bytes),
        }
    }

    /// A token that was presented; `None`: it is not one of ours.
    pub fn recognise(&self, token: &str) -> Option<Recognised> {
        let bytes: [u8; BODY_BYTES + TAG_BYTES] = BASE64.decode(token.strip_prefix(PREFIX)?).ok()?.try_into().ok()?;
        let (body, tag) = bytes.split_at(BODY_BYTES);
        if !bool::from(self.tag_of(body).ct_eq(tag)) {
            return None;
        }
        Some(Recognised {
            session: Uuid::from_slice(&body[..16]).ok()?,
            generation: u32::from_be_bytes(body[16..20].try_into().ok()?),
            hash: self.hash_of(&bytes),
        })
    }

    fn tag_of(&self, body: &[u8]) -> [u8; TAG_BYTES] {
        let mut mac = self.tag.clone();
        mac.update(body);
        mac.finalize().into_bytes().into()
    }

    fn hash_of(&self, token: &[u8]) -> String {
        let mut mac = self.hash.clone();
        mac.update(token);
        hex(&mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::secrets::master_key::MasterKeySources;

    fn tokens(byte: u8) -> RefreshTokens {
        let value = STANDARD.encode([byte; 32]);
        let sources = MasterKeySources {
            value: Some(&value),
            ..MasterKeySources::default()
        };
        RefreshTokens::new(&MasterKey::find(&sources).unwrap())
    }

    proptest! {
        #[test]
        fn a_token_is_recognised_by_who_made_it_alone(session: u128, generation: u32, place in 0..90_usize) {
            let session = Uuid::from_u128(session);
            let made = tokens(1).make(session, generation);
            let token = made.token.expose_secret();
            let expected = Recognised { session, generation, hash: made.hash.clone() };
            prop_assert_eq!(tokens(1).recognise(token), Some(expected));
            prop_assert_eq!(tokens(2).recognise(token), None);
            let mut changed = token.to_owned().into_bytes();
            let at = PREFIX.len() + place;
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(tokens(1).recognise(std::str::from_utf8(&changed).unwrap()), None);
        }

        #[test]
        fn whatever_is_presented_nothing_panics(text in ".{0,120}") {
            prop_assert_eq!(tokens(1).recognise(&text), None);
            let prefixed = format!("{}{}", PREFIX, text);
            prop_assert_eq!(tokens(1).recognise(&prefixed), None);
        }
    }

    #[test]
    fn no_two_tokens_are_the_same() {
        let session = Uuid::from_u128(7);
        let made = [tokens(1).make(session, 0), tokens(1).make(session, 0)];
        assert_ne!(made[0].hash, made[1].hash);
        assert_eq!(made[0].token.expose_secret().len(), PREFIX.len() + 91);
    }
}
