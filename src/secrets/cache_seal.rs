//! The seal of answers that replicas share in Redis: under a key of the organization's own, and by names that tell nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;

use super::master_key::MasterKey;
use super::sealing::Sealer;
use crate::domain::ids::OrganizationId;

/// Seals answers and opens them.
#[derive(Clone)]
pub struct CacheSeal(MasterKey);

impl std::fmt::Debug for CacheSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CacheSeal")
    }
}

impl CacheSeal {
    /// The seal of an installation.
    pub fn new(master_key: &MasterKey) -> Self {
        Self(master_key.clone())
    }

    /// The name of an answer, from the digest of its request.
    pub fn name(&self, organization: OrganizationId, digest: &[u8; 32]) -> String {
        let mut mac = self.0.purpose("cache names");
        mac.update(organization.0.as_bytes());
        mac.update(digest);
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// An answer, sealed for its organization and name.
    pub fn seal(&self, organization: OrganizationId, name: &str, plain: &[u8]) -> Vec<u8> {
        self.sealer(organization).seal(name.as_bytes(), plain)
    }

    /// What was sealed; `None`: it is damaged, or another's.
    pub fn open(&self, organization: OrganizationId, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        self.sealer(organization).open(name.as_bytes(), sealed).ok()
    }

    fn sealer(&self, organization: OrganizationId) -> Sealer {
        Sealer::new(&self.0, &format!("response cache of {organization}"))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use uuid::Uuid;

    use super::*;
    use crate::secrets::master_key::MasterKeySources;

    fn seal(byte: u8) -> CacheSeal {
        let value = STANDARD.encode([byte; 32]);
        let sources = MasterKeySources {
            value: Some(&value),
            ..MasterKeySources::default()
        };
        CacheSeal::new(&MasterKey::find(&sources).unwrap())
    }

    #[test]
    fn an_answer_opens_for_its_organization_and_name_alone() {
        let (seal, other) = (seal(7), seal(8));
        let (ours, theirs) = (OrganizationId(Uuid::from_u128(1)), OrganizationId(Uuid::from_u128(2)));
        let name = seal.name(ours, &[1; 32]);
        assert_ne!(name, seal.name(theirs, &[1; 32]));
        assert_ne!(name, seal.name(ours, &[2; 32]));
        assert_ne!(name, other.name(ours, &[1; 32]));
        let sealed = seal.seal(ours, &name, b"an answer");
        assert!(!sealed.windows(6).any(|part| part == b"answer"));
        assert_eq!(seal.open(ours, &name, &sealed).as_deref(), Some(&b"an answer"[..]));
        assert_eq!(seal.open(theirs, &name, &sealed), None);
        assert_eq!(seal.open(ours, "another", &sealed), None);
        assert_eq!(other.open(ours, &name, &sealed), None);
        assert_eq!(seal.open(ours, &name, &sealed[..sealed.len() - 1]), None);
    }
}
