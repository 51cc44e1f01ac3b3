//! What proves that a page of ours sends a request, and not somebody else's page with our visitor's cookie.
//!
//! The proof is a keyed hash of the session: every replica can check it, nothing is kept, and it is over with the session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::master_key::MasterKey;

/// Makes proofs and checks them.
#[derive(Clone)]
pub struct CsrfProofs(Hmac<Sha256>);

impl std::fmt::Debug for CsrfProofs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CsrfProofs")
    }
}

impl CsrfProofs {
    /// The proofs of a master key.
    pub fn new(master_key: &MasterKey) -> Self {
        Self(master_key.purpose("bonito dashboard csrf v1"))
    }

    /// The proof of a session.
    pub fn of(&self, session: Uuid) -> String {
        let mut mac = self.0.clone();
        mac.update(session.as_bytes());
        BASE64.encode(mac.finalize().into_bytes())
    }

    /// Whether something is the proof of a session.
    pub fn is_of(&self, session: Uuid, presented: &str) -> bool {
        self.of(session).as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::master_key::MasterKeySources;

    #[test]
    fn a_proof_is_good_for_its_own_session_alone() {
        let sources = MasterKeySources {
            value: Some(&base64::engine::general_purpose::STANDARD.encode([7; 32])),
            ..MasterKeySources::default()
        };
        let proofs = CsrfProofs::new(&MasterKey::find(&sources).unwrap());
        let [one, other] = [1, 2].map(Uuid::from_u128);
        assert!(proofs.is_of(one, &proofs.of(one)));
        assert!(!proofs.is_of(one, &proofs.of(other)));
        assert!(!proofs.is_of(one, ""));
    }
}
