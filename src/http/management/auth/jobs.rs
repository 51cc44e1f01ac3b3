//! What proofs about jobs are good for.

use super::{Grant, May, ReadJobs, RetryJobs};
use crate::domain::ids::OrganizationId;
use crate::domain::job::{JobFilter, JobId, JobView};
use crate::http::management::problem::Refusal;

impl<G: Grant> May<G> {
    /// Whose jobs are meant: the organization's, or those of the installation, which are nobody else's business.
    fn whose_jobs(&self, installation: bool) -> Result<Option<OrganizationId>, Refusal> {
        match (installation, self.bearer.role.everywhere()) {
            (false, _) => Ok(Some(self.organization)),
            (true, true) => Ok(None),
            (true, false) => Err(Refusal::forbidden(
                "the jobs of the installation are for platform admins",
            )),
        }
    }
}

impl May<ReadJobs> {
    /// Jobs, newest first.
    pub async fn jobs(&self, installation: bool, filter: JobFilter, most: u64) -> Result<Vec<JobView>, Refusal> {
        let organization = self.whose_jobs(installation)?;
        let filter = JobFilter { organization, ..filter };
        let found = self.management.jobs.list(&filter, most).await;
        found.map_err(|error| Refusal::unavailable(&error))
    }
}

impl May<RetryJobs> {
    /// Lets a dead job begin anew.
    pub async fn retry(&self, installation: bool, id: JobId) -> Result<JobView, Refusal> {
        let organization = self.whose_jobs(installation)?;
        let retried = self
            .management
            .jobs
            .retry(organization, id, (self.organization, &self.author))
            .await;
        let (job, was_dead) = retried
            .map_err(|error| Refusal::unavailable(&error))?
            .ok_or_else(|| Refusal::not_found("job"))?;
        if !was_dead {
            let detail = format!("the job is {}; only a dead one can be retried", job.state.as_str());
            return Err(Refusal::conflict(detail));
        }
        Ok(job)
    }
}
