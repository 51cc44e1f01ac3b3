//! The format of a gateway key: `bn-`, 40 base62 characters of randomness, 6 base62 characters of checksum.
//!
//! The checksum lets a mistyped or foreign key be refused without a look-up, and lets secret scanners tell a real key
//! from a look-alike. It proves nothing about who made the key; only the keyed hash in the database does.

use secrecy::{ExposeSecret, SecretString};

/// What every key starts with.
pub const KEY_PREFIX: &str = "bn-";
/// Characters of randomness: 40 × log2(62) ≈ 238 bits.
const RANDOM_LEN: usize = 40;
const CHECKSUM_LEN: usize = 6;
const KEY_LEN: usize = KEY_PREFIX.len() + RANDOM_LEN + CHECKSUM_LEN;
/// Characters that are kept in clear to tell keys apart: `bn-` and eight more.
const DISPLAY_LEN: usize = 11;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed key with its secret. It exists while it is created or checked, and is never stored or printed again.
pub struct ApiKey(SecretString);

impl ApiKey {
    /// Makes a key out of random bytes, drawing more as long as it needs them.
    pub fn generate(mut random_byte: impl FnMut() -> u8) -> Self {
        let mut text = String::with_capacity(KEY_LEN);
        text.push_str(KEY_PREFIX);
        while text.len() < KEY_PREFIX.len() + RANDOM_LEN {
            // 248 is the largest multiple of 62 in a byte; what is above would favour the first characters.
            let byte = random_byte();
            if byte < 248 {
                text.push(BASE62[usize::from(byte % 62)] as char);
            }
        }
        let sum = checksum(text.as_bytes());
        text.extend(sum.iter().map(|&b| b as char));
        Self(text.into())
    }

    /// Checks the format and the checksum of what a caller sent.
    ///
    /// # Errors
    /// Tells foreign keys from mistyped ones, for the log; callers get the same answer for both.
    pub fn parse(text: &str) -> Result<Self, KeyFormatError> {
        if !text.starts_with(KEY_PREFIX) {
            return Err(KeyFormatError::Foreign);
        }
        let (body, sum) = text
            .as_bytes()
            .split_at_checked(KEY_LEN - CHECKSUM_LEN)
            .ok_or(KeyFormatError::Length)?;
        if sum.len() != CHECKSUM_LEN {
            return Err(KeyFormatError::Length);
        }
        if sum != checksum(body).as_slice() {
            return Err(KeyFormatError::Checksum);
        }
        Ok(Self(text.to_owned().into()))
    }

    /// The secret itself, to be hashed or shown once.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The part that may be shown and stored: enough to recognise a key, far too little to guess it.
    pub fn display_prefix(&self) -> &str {
        &self.expose()[..DISPLAY_LEN]
    }
}

/// Why a text cannot be one of our keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyFormatError {
    /// It does not begin with `bn-`.
    #[error("keys of this gateway begin with bn-")]
    Foreign,
    /// It is too short or too long.
    #[error("keys of this gateway have {KEY_LEN} characters")]
    Length,
    /// Its last six characters do not fit the rest.
    #[error("the key is mistyped or cut")]
    Checksum,
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(body);
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> ApiKey {
        let mut next = seed;
        ApiKey::generate(move || {
            next = next.wrapping_mul(31).wrapping_add(17);
            next
        })
    }

    #[test]
    fn a_generated_key_has_the_documented_form_and_is_accepted() {
        let made = key(3);
        assert_eq!(made.expose().len(), 49);
        assert!(made.expose().starts_with("bn-"));
        assert_eq!(made.display_prefix().len(), 11);
        assert!(ApiKey::parse(made.expose()).is_ok());
    }

    #[test]
    fn foreign_and_cut_keys_are_told_apart() {
        assert_eq!(ApiKey::parse("sk-abcdef").err(), Some(KeyFormatError::Foreign));
        assert_eq!(ApiKey::parse("bn-abc").err(), Some(KeyFormatError::Length));
        let longer = format!("{}x", key(1).expose());
        assert_eq!(ApiKey::parse(&longer).err(), Some(KeyFormatError::Length));
        assert_eq!(
            ApiKey::parse("bn-ключ-который-не-похож-на-настоящий-ключ-вовсе").err(),
            Some(KeyFormatError::Length)
        );
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_always_noticed(seed: u8, at in 3..49usize, with in "[0-9A-Za-z]") {
            let good = key(seed).expose().to_owned();
            let mut bad = good.clone();
            bad.replace_range(at..=at, &with);
            prop_assert_eq!(ApiKey::parse(&bad).is_ok(), bad == good);
        }

        #[test]
        fn no_text_makes_the_check_panic(text in "\\PC{0,60}") {
            let _ = ApiKey::parse(&text);
        }
    }
}
