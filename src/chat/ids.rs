//! Ids of tool calls: made to fit a provider, and made to carry a signature through clients that know only OpenAI's fields.
//!
//! Gemini wants to see a signature again with each call, and a client that rebuilds its history from a stream keeps nothing
//! but id, name and arguments. So the signature travels inside the id and is taken out when the history comes back. The
//! rest of the id is the provider's own, or ours where it has none.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::conversation::{Issuer, Signature};

/// Stands between the id and the signature. No provider's ids hold it.
pub const SEPARATOR: &str = "__sig_";
/// Hexadecimal digits of an id that had to be replaced: 96 bits, so that two never meet.
const DIGITS: usize = 24;

/// The id with a signature inside.
pub fn with_signature(id: &str, signature: &Signature) -> String {
    let issuer = signature.issuer.as_str();
    let value = URL_SAFE_NO_PAD.encode(&signature.value);
    format!("{id}{SEPARATOR}{issuer}__{value}")
}

/// The id without its signature, and the signature. What only looks like one stays part of the id.
pub fn split(id: &str) -> (&str, Option<Signature>) {
    let Some((bare, rest)) = id.split_once(SEPARATOR) else {
        return (id, None);
    };
    let signature = rest.split_once("__").and_then(|(issuer, value)| {
        let value = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
        let issuer = Issuer::of(issuer)?;
        Some(Signature { value, issuer })
    });
    match signature {
        Some(signature) => (bare, Some(signature)),
        None => (id, None),
    }
}

/// The id if a provider takes it, or one made from it: the same for the call and for its result.
pub fn fitting(id: &str, max_bytes: usize, allowed: impl Fn(u8) -> bool) -> Cow<'_, str> {
    if !id.is_empty() && id.len() <= max_bytes && id.bytes().all(allowed) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(derived(id))
}

/// An id made from any text, `call_` and hexadecimal digits.
pub fn derived(from: &str) -> String {
    let mut id = "call_".to_owned();
    for byte in &Sha256::digest(from)[..DIGITS / 2] {
        write!(id, "{byte:02x}").expect("writing to a string cannot fail");
    }
    id
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_signature_comes_back_as_it_went(id in "[a-zA-Z0-9_.:-]{1,40}", value in "\\PC{0,200}") {
            prop_assume!(!id.contains(SEPARATOR) && !id.ends_with('_'));
            let signature = Signature { value, issuer: Issuer::Google };
            let carried = with_signature(&id, &signature);
            prop_assert!(carried[id.len()..].bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            prop_assert_eq!(split(&carried), (id.as_str(), Some(signature)));
        }

        #[test]
        fn any_id_can_be_split_and_made_to_fit(id in "\\PC{0,100}") {
            let (bare, _) = split(&id);
            let fitted = fitting(bare, 64, |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
            prop_assert!(!fitted.is_empty() && fitted.len() <= 64);
        }
    }

    #[test]
    fn an_id_that_fits_stays_and_another_is_replaced_the_same_way_each_time() {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        assert_eq!(fitting("toolu_01A", 64, allowed), "toolu_01A");
        let replaced = fitting("call:1", 64, allowed);
        assert!(replaced.starts_with("call_") && replaced.len() == 29, "{replaced}");
        assert_eq!(replaced, fitting("call:1", 64, allowed));
        assert_ne!(replaced, fitting("call:2", 64, allowed));
    }
}
