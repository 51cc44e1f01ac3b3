//! Where the actors say what organizations may want to be told of.

use crate::domain::watched::Watched;

/// Tells organizations.
pub trait Notices: Send + Sync {
    /// A provider was taken out of the rotation of an organization's requests, or is back. Returns at once; telling may fail.
    fn provider(&self, watched: &Watched, serves: bool);
}
