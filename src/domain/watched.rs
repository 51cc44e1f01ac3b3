//! What health is kept for: one credential of a provider in one region, as the requests of one organization meet it.
//!
//! A provider is not up or down for everybody. An account may be closed, a region may be away, and what one organization
//! sends may fail where nothing of another's does. So each has a health of its own, and none of them takes the provider
//! from anybody else.

use std::fmt;
use std::sync::Arc;

use super::ids::ProviderId;

/// Tells spots apart. A credential whose values changed is a new spot: what was known of the old values says nothing of
/// the new ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpotId(pub u64);

/// A credential of a provider, in the region it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spot {
    /// Tells it apart from others in this process.
    pub id: SpotId,
    /// The provider.
    pub provider: ProviderId,
    /// Whose the credential is, by slug; `None`: it is shared.
    pub owner: Option<String>,
    /// Which of several credentials; `None`: the one without a name.
    pub credential: Option<String>,
    /// A region of AWS or a location of Google, where the provider has such.
    pub region: Option<String>,
    /// The host that is asked; `None` for what is asked in this process.
    pub host: Option<String>,
    /// Whether an organization chose the address: then it has a provider of its own, which is nobody else's.
    pub own_endpoint: bool,
}

impl Spot {
    /// Whether requests with another credential go elsewhere: to another region, or to another host.
    pub fn is_elsewhere(&self, other: &Self) -> bool {
        self.region != other.region || self.host != other.host
    }
}

impl fmt::Display for Spot {
    /// As people name it: `aws`, `aws/second in us-east-1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.provider)?;
        if let Some(credential) = &self.credential {
            write!(f, "/{credential}")?;
        }
        self.region.as_ref().map_or(Ok(()), |region| write!(f, " in {region}"))
    }
}

/// What one health is kept for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watched {
    /// Whose requests, by slug; `None`: those of every organization that has no place of its own.
    pub organization: Option<Arc<str>>,
    /// Where they go, and with what.
    pub spot: Arc<Spot>,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.organization {
            Some(organization) => write!(f, "{} for {organization}", self.spot),
            None => write!(f, "{} for all others", self.spot),
        }
    }
}
