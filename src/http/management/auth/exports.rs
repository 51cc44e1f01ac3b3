//! What proofs are good for where exports are concerned. Whoever has one of these sees all of the organization's requests.

use chrono::Utc;
use uuid::Uuid;

use super::{Asked, Export, May, ReadJobs};
use crate::domain::export::{self, ExportQuestion};
use crate::gates::exports::Exports;
use crate::http::management::problem::Refusal;

impl May<Export> {
    /// Begins an export of what a question and what was asked for come to now.
    pub async fn begin_export(&self, asked: &Asked, question: ExportQuestion) -> Result<export::Export, Refusal> {
        self.facts().await?;
        let (team, keys) = self.narrowed(asked, Some(self.organization)).await?;
        let question = match question {
            ExportQuestion::Requests(mut filter) => {
                let now = Utc::now();
                filter.organization = self.organization;
                (filter.team, filter.keys) = (team, keys);
                // What comes later is not in it, however long it takes.
                filter.to = Some(filter.to.map_or(now, |to| to.min(now)));
                ExportQuestion::Requests(filter)
            }
            ExportQuestion::Usage(mut question) => {
                question.organization = Some(self.organization);
                (question.filter.team, question.filter.keys) = (team, keys);
                ExportQuestion::Usage(question)
            }
        };
        let begun = self
            .management
            .exports
            .begin(self.organization, &question, &self.author)
            .await
            .map_err(|error| Refusal::unavailable(&error))?;
        begun.ok_or_else(|| {
            Refusal::conflict("there are as many exports as are kept at a time; delete one that is no longer needed")
        })
    }

    /// Deletes an export.
    pub async fn delete_export(&self, id: Uuid) -> Result<(), Refusal> {
        let deleted = self
            .management
            .exports
            .delete(self.organization, id, &self.author)
            .await;
        if deleted.map_err(|error| Refusal::unavailable(&error))? {
            return Ok(());
        }
        Err(Refusal::not_found("export"))
    }
}

impl May<ReadJobs> {
    /// An export.
    pub async fn export(&self, id: Uuid) -> Result<export::Export, Refusal> {
        let found = self.management.exports.export(self.organization, id).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found.ok_or_else(|| Refusal::not_found("export"))
    }

    /// Exports, newest first.
    pub async fn exports(&self, before: Option<Uuid>, most: u64) -> Result<Vec<export::Export>, Refusal> {
        let found = self.management.exports.exports(self.organization, before, most).await;
        found.map_err(|error| Refusal::unavailable(&error))
    }

    /// What the pieces of an export are read from after the answer has begun. Whose they are is asked for with each.
    pub fn export_pieces(&self) -> std::sync::Arc<dyn Exports> {
        self.management.exports.clone()
    }
}
