//! Where the actors say what organizations may want to be told of.

use crate::domain::ids::ProviderId;

/// Tells organizations.
pub trait Notices: Send + Sync {
    /// A provider was taken out of the rotation, or is back. Returns at once; telling may fail.
    fn provider(&self, provider: &ProviderId, serves: bool);
}
