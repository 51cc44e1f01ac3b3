//! Requests that come from a job, not over HTTP: served like any other of their key, at its limits and budgets.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::batch::Holder;
use crate::domain::call::Operation;
use crate::domain::error::BoxError;
use crate::domain::ids::RequestId;

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Served {
    /// An answer, or an error that does not pass by waiting.
    Answered {
        /// The id it has in the ledger.
        id: RequestId,
        /// The status a caller would have got.
        status: u16,
        /// The body: JSON.
        body: Bytes,
        /// Whether another try may have another result: providers failed, and may be well again later.
        may_pass: bool,
    },
    /// Nothing yet: a limit is reached, or there is too much to do. It is worth asking again after this time.
    Wait(Duration),
}

/// Serves requests.
#[async_trait::async_trait]
pub trait Inference: Send + Sync {
    /// Serves one request of a key, whole, in OpenAI's dialect.
    ///
    /// # Errors
    /// It cannot be found out right now what the key may do.
    async fn serve(&self, holder: Holder, operation: Operation, body: Bytes) -> Result<Served, BoxError>;
}
