//! Where the actors say what organizations may want to be told of, or to look up later.

use crate::domain::health::HealthChange;
use crate::domain::watched::Watched;

/// Tells organizations, and writes down what they may look up.
pub trait Notices: Send + Sync {
    /// A provider was taken out of the rotation of an organization's requests, or is back. Returns at once; telling may fail.
    fn provider(&self, watched: &Watched, serves: bool);
    /// Health has changed. Returns at once; writing it down may fail.
    fn health(&self, watched: &Watched, change: HealthChange);
}
