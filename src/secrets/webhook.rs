//! Secrets of webhooks, and what they sign (Standard Webhooks, <https://www.standardwebhooks.com/>, version 1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::RngCore as _;
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;
use uuid::Uuid;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret; the specification asks for 24 to 64.
const BYTES: usize = 32;

/// A new secret, as its owner sees it once.
pub fn new_secret() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    rand::rng().fill_bytes(&mut *bytes);
    Zeroizing::new(format!("{PREFIX}{}", BASE64.encode(*bytes)))
}

/// The name of an event, the same wherever and however often it is sent.
pub fn message_id(event: Uuid) -> String {
    format!("msg_{}", event.simple())
}

/// The `webhook-signature` of a message: one signature for each secret, newest first. A secret that is none signs nothing.
///
/// `timestamp` is in seconds since 1970.
pub fn signatures<'s>(
    secrets: impl IntoIterator<Item = &'s str>,
    message_id: &str,
    timestamp: i64,
    body: &str,
) -> String {
    let signed = secrets.into_iter().filter_map(|secret| {
        let key = Zeroizing::new(BASE64.decode(secret.strip_prefix(PREFIX)?).ok()?);
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(format!("{message_id}.{timestamp}.").as_bytes());
        mac.update(body.as_bytes());
        Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
    });
    signed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn the_specifications_example_is_signed_as_it_says() {
        let signed = signatures(
            ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_of_their_length_and_never_the_same() {
        let (one, other) = (new_secret(), new_secret());
        assert_ne!(*one, *other);
        assert_eq!(BASE64.decode(one.strip_prefix("whsec_").unwrap()).unwrap().len(), 32);
        let both = signatures([one.as_str(), other.as_str()], "msg_1", 1, "{}");
        assert_eq!(both.split(' ').count(), 2);
        assert_eq!(signatures(["nothing"], "msg_1", 1, "{}"), "");
    }
}
