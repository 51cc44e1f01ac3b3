//! The seal of prompts and answers at rest: [`Sealer`]'s, under a key of the organization's own, which derives from the
//! master key. A sealed payload opens for its organization and its request, and for nothing else.

use secrecy::zeroize::Zeroizing;

use super::master_key::MasterKey;
use super::sealing::Sealer;
use crate::domain::ids::{OrganizationId, RequestId};

/// Seals payloads and opens them.
#[derive(Clone)]
pub struct PayloadSeal(MasterKey);

impl std::fmt::Debug for PayloadSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PayloadSeal")
    }
}

impl PayloadSeal {
    /// The seal of an installation.
    pub fn new(master_key: &MasterKey) -> Self {
        Self(master_key.clone())
    }

    /// A payload, sealed.
    pub fn seal(&self, organization: OrganizationId, request: RequestId, body: &[u8]) -> Vec<u8> {
        self.of(organization).seal(request.0.as_bytes(), body)
    }

    /// What a sealed payload holds; `None`: it is damaged, or another's.
    pub fn open(&self, organization: OrganizationId, request: RequestId, sealed: &[u8]) -> Option<Vec<u8>> {
        self.of(organization).open(request.0.as_bytes(), sealed).ok()
    }

    fn of(&self, organization: OrganizationId) -> Sealer {
        Sealer::of_key(&Zeroizing::new(self.0.payload_sealing_key(organization)))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use uuid::Uuid;

    use super::*;
    use crate::secrets::master_key::MasterKeySources;

    #[test]
    fn a_payload_opens_for_its_organization_and_request_and_for_nothing_else() {
        let value = STANDARD.encode([7; 32]);
        let sources = MasterKeySources {
            value: Some(&value),
            ..MasterKeySources::default()
        };
        let seal = PayloadSeal::new(&MasterKey::find(&sources).unwrap());
        let of = |number| {
            (
                OrganizationId(Uuid::from_u128(number)),
                RequestId(Uuid::from_u128(number)),
            )
        };
        let ((ours, request), (theirs, other)) = (of(1), of(2));
        let sealed = seal.seal(ours, request, b"a secret");
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(seal.open(ours, request, &sealed).as_deref(), Some(&b"a secret"[..]));
        assert_eq!(seal.open(theirs, request, &sealed), None);
        assert_eq!(seal.open(ours, other, &sealed), None);
        let mut damaged = sealed.clone();
        damaged[20] ^= 1;
        assert_eq!(seal.open(ours, request, &damaged), None);
        assert_eq!(seal.open(ours, request, &sealed[..5]), None);
    }
}
