//! Exports: tables that a job writes, because they are too large to wait for.
//!
//! What is exported is fixed when it is asked for: whose, which requests, and up to when. So it does not matter when its job
//! runs, how often it is begun, or by whom. Pure.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::OrganizationId;
use super::report::hour::time_of;
use super::report::log::LogFilter;
use super::report::usage::UsageQuestion;

/// What an export has in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "of", content = "question", rename_all = "snake_case")]
pub enum ExportQuestion {
    /// Single requests, newest first.
    Requests(LogFilter),
    /// Figures.
    Usage(UsageQuestion),
}

impl ExportQuestion {
    /// What to call it, in names of files.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Requests(_) => "logs",
            Self::Usage(_) => "usage",
        }
    }

    /// The time that it is about; without a beginning: from the first request on.
    pub fn span(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        match self {
            Self::Requests(filter) => (filter.from, filter.to),
            Self::Usage(question) => (Some(question.from.start()), Some(question.to.start())),
        }
    }
}

/// How far an export is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportState {
    /// Its job is waiting, under way, or was given up.
    Running,
    /// It is whole.
    Done,
    /// It cannot be written.
    Failed,
}

impl ExportState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Failed];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The state of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// An export, and how far it is.
#[derive(Clone, Debug)]
pub struct Export {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub organization: OrganizationId,
    /// What is in it.
    pub question: ExportQuestion,
    /// How far it is.
    pub state: ExportState,
    /// Why it cannot be written, where it cannot.
    pub failure: Option<String>,
    /// The job that writes it.
    pub job: Uuid,
    /// Who asked for it.
    pub author: String,
    /// Lines that are written, without the line of names.
    pub rows: u64,
    /// Bytes that are written.
    pub bytes: u64,
    /// Pieces that are written.
    pub pieces: u32,
    /// Where requests go on: those that are written have this id or a higher one.
    pub position: Option<Uuid>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
    /// When it is forgotten.
    pub expires_at: DateTime<Utc>,
}

impl Export {
    /// How far back the requests are written.
    pub fn reached(&self) -> Option<DateTime<Utc>> {
        self.position.map(time_of)
    }

    /// How much of its time is written, from 0 to 1, where that can be said.
    pub fn share(&self) -> Option<f64> {
        if self.state == ExportState::Done {
            return Some(1.0);
        }
        let ((Some(from), Some(to)), Some(reached)) = (self.question.span(), self.reached()) else {
            return None;
        };
        #[expect(clippy::cast_precision_loss, reason = "a share of a time, for a bar")]
        let share = (to - reached).num_milliseconds() as f64 / (to - from).num_milliseconds().max(1) as f64;
        Some(share.clamp(0.0, 1.0))
    }

    /// Its name as a file, without the ending.
    pub fn file_name(&self) -> String {
        let at = self.created_at.format("%Y-%m-%dT%H-%M-%SZ");
        format!("bonito-{}-{at}", self.question.noun())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::report::hour::{Hour, first_id};
    use crate::domain::report::usage::{Granularity, GroupBy, UsageFilter};

    fn export(question: ExportQuestion) -> Export {
        Export {
            id: Uuid::from_u128(1),
            organization: OrganizationId(Uuid::from_u128(2)),
            question,
            state: ExportState::Running,
            failure: None,
            job: Uuid::from_u128(3),
            author: "ada".into(),
            rows: 0,
            bytes: 0,
            pieces: 0,
            position: None,
            created_at: DateTime::UNIX_EPOCH,
            finished_at: None,
            expires_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn how_far_an_export_is_follows_from_the_time_it_is_about() {
        let from = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let to = from + TimeDelta::days(4);
        let filter = LogFilter {
            from: Some(from),
            to: Some(to),
            ..LogFilter::all(OrganizationId(Uuid::nil()))
        };
        let mut begun = export(ExportQuestion::Requests(filter.clone()));
        assert_eq!(begun.share(), None);
        begun.position = Some(first_id(to - TimeDelta::days(1)));
        assert_eq!(begun.share(), Some(0.25));
        begun.question = ExportQuestion::Requests(LogFilter { from: None, ..filter });
        assert_eq!(begun.share(), None, "nobody knows how far back it goes");
        begun.state = ExportState::Done;
        assert_eq!(begun.share(), Some(1.0));
        assert_eq!(begun.file_name(), "bonito-logs-1970-01-01T00-00-00Z");
    }

    #[test]
    fn what_is_asked_for_is_read_as_it_was_written() {
        let organization = OrganizationId(Uuid::from_u128(7));
        let requests = ExportQuestion::Requests(LogFilter {
            keys: Some([Uuid::from_u128(8)].into()),
            model: Some("m".into()),
            failed: Some(true),
            to: Some(DateTime::UNIX_EPOCH),
            ..LogFilter::all(organization)
        });
        let usage = ExportQuestion::Usage(UsageQuestion {
            organization: Some(organization),
            from: Hour(1),
            to: Hour(25),
            granularity: Granularity::Day,
            group_by: Some(GroupBy::Tag),
            most_groups: 5,
            filter: UsageFilter::default(),
            now: DateTime::UNIX_EPOCH,
        });
        for question in [requests, usage] {
            let text = serde_json::to_string(&question).unwrap();
            let read: ExportQuestion = serde_json::from_str(&text).unwrap();
            assert_eq!(format!("{read:?}"), format!("{question:?}"), "{text}");
        }
    }

    #[test]
    fn every_state_is_found_by_its_name() {
        for state in ExportState::ALL {
            assert_eq!(ExportState::parse(state.as_str()), Some(state));
        }
        assert_eq!(ExportState::parse(""), None);
    }
}
