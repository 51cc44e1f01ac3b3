//! Files of callers and batches of requests, as OpenAI has them, and the reading of a batch's lines.
//!
//! # Source
//! <https://platform.openai.com/docs/api-reference/batch> and <https://platform.openai.com/docs/api-reference/files>.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::call::Operation;
use super::ids::{KeyId, OrganizationId};

/// Whose a file or a batch is: a key's, and nobody else's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The organization.
    pub organization: OrganizationId,
    /// The key.
    pub key: KeyId,
}

/// A file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredFile {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub holder: Holder,
    /// What it is for.
    pub purpose: String,
    /// What its owner calls it.
    pub filename: String,
    /// Its length.
    pub bytes: u64,
    /// How many pieces it has.
    pub chunks: u32,
    /// When it was begun.
    pub created_at: DateTime<Utc>,
    /// When it is forgotten.
    pub expires_at: DateTime<Utc>,
}

/// How far a batch is, in OpenAI's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchStatus {
    /// Its file is read.
    Validating,
    /// Its file is not one.
    Failed,
    /// Its requests are served.
    InProgress,
    /// Its files are written.
    Finalizing,
    /// It is done.
    Completed,
    /// Its time was over before all were served.
    Expired,
    /// It was cancelled, and requests under way end.
    Cancelling,
    /// It was cancelled.
    Cancelled,
}

impl BatchStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Validating,
        Self::Failed,
        Self::InProgress,
        Self::Finalizing,
        Self::Completed,
        Self::Expired,
        Self::Cancelling,
        Self::Cancelled,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether nothing comes after it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }
}

/// A batch.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch {
    /// Its id.
    pub id: Uuid,
    /// Whose it is, and who pays.
    pub holder: Holder,
    /// What is asked for, by its path.
    pub endpoint: String,
    /// Within which time; `24h`.
    pub completion_window: String,
    /// The requests.
    pub input_file: Uuid,
    /// The answers.
    pub output_file: Option<Uuid>,
    /// The errors.
    pub error_file: Option<Uuid>,
    /// How far it is.
    pub status: BatchStatus,
    /// What is wrong with it: OpenAI's list.
    pub errors: Option<Value>,
    /// What its owner says of it.
    pub metadata: Value,
    /// Requests.
    pub total: u32,
    /// Those that were answered.
    pub completed: u32,
    /// Those that failed.
    pub failed: u32,
    /// What it becomes once its files are written.
    pub ending: Option<BatchStatus>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it is given up.
    pub expires_at: DateTime<Utc>,
    /// When its first request could begin.
    pub in_progress_at: Option<DateTime<Utc>>,
    /// When its files were begun.
    pub finalizing_at: Option<DateTime<Utc>>,
    /// When somebody cancelled it.
    pub cancelling_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

impl Batch {
    /// Its id as callers see it.
    pub fn public_id(&self) -> String {
        format!("batch_{}", self.id.simple())
    }

    /// What was wrong first, for a batch that failed.
    pub fn failure(&self) -> Option<String> {
        let faults = self.errors.as_ref()?["data"].as_array()?;
        let first = faults.first()?;
        let message = first["message"].as_str()?;
        let more = match faults.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(match first["line"].as_u64() {
            Some(line) => format!("line {line}: {message}{more}"),
            None => format!("{message}{more}"),
        })
    }
}

/// Which batches of an organization are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BatchFilter {
    /// Only those of this key.
    pub key: Option<KeyId>,
    /// Only those that are so far.
    pub status: Option<BatchStatus>,
    /// Only those that were created before this one.
    pub before: Option<Uuid>,
}

/// The operation behind a batch's endpoint.
pub fn operation(endpoint: &str) -> Option<Operation> {
    match endpoint {
        "/v1/chat/completions" => Some(Operation::Chat),
        "/v1/completions" => Some(Operation::Completion),
        "/v1/embeddings" => Some(Operation::Embedding),
        _ => None,
    }
}

/// A line of a batch's input.
#[derive(Deserialize, Debug)]
pub struct Line<'l> {
    /// The caller's own name for it.
    #[serde(borrow)]
    pub custom_id: std::borrow::Cow<'l, str>,
    /// `POST`.
    #[serde(borrow)]
    pub method: std::borrow::Cow<'l, str>,
    /// The batch's endpoint.
    #[serde(borrow)]
    pub url: std::borrow::Cow<'l, str>,
    /// The request.
    #[serde(borrow)]
    pub body: &'l RawValue,
}

/// What is wrong with a line of a batch's input, in OpenAI's form.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LineFault {
    /// A code.
    pub code: &'static str,
    /// The line, from 1.
    pub line: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// The field.
    pub param: Option<&'static str>,
}

impl LineFault {
    fn new(code: &'static str, line: u32, param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            code,
            line: Some(line),
            message: message.into(),
            param,
        }
    }
}

/// Reads a line of a batch for an endpoint.
///
/// # Errors
/// What is wrong with it. The words repeat nothing of it.
pub fn read_line<'l>(text: &'l str, number: u32, endpoint: &str) -> Result<Line<'l>, LineFault> {
    #[derive(Deserialize)]
    struct Peek {
        #[serde(default)]
        stream: Option<bool>,
        model: Option<Value>,
    }
    let line: Line<'l> = serde_json::from_str(text).map_err(|error| {
        let at = error.column();
        let what = match error.classify() {
            serde_json::error::Category::Data => "custom_id, method, url and body must be there, and of their types",
            _ => "this line is not JSON",
        };
        LineFault::new("invalid_json_line", number, None, format!("{what} (column {at})"))
    })?;
    if line.custom_id.is_empty() || line.custom_id.len() > 512 {
        let message = "custom_id must have from 1 to 512 bytes";
        return Err(LineFault::new("invalid_custom_id", number, Some("custom_id"), message));
    }
    if line.method != "POST" {
        let message = "method must be POST";
        return Err(LineFault::new("invalid_method", number, Some("method"), message));
    }
    if line.url != endpoint {
        let message = format!("url must be the batch's endpoint, {endpoint}");
        return Err(LineFault::new("mismatched_url", number, Some("url"), message));
    }
    let peek: Peek = serde_json::from_str(line.body.get()).map_err(|_| {
        LineFault::new(
            "invalid_body",
            number,
            Some("body"),
            "body must be an object, and stream a boolean",
        )
    })?;
    if peek.stream == Some(true) {
        let message = "a batch has no streams";
        return Err(LineFault::new(
            "stream_not_supported",
            number,
            Some("body.stream"),
            message,
        ));
    }
    if !peek.model.is_some_and(|model| model.is_string()) {
        let message = "body.model must name a model";
        return Err(LineFault::new(
            "missing_required_parameter",
            number,
            Some("body.model"),
            message,
        ));
    }
    Ok(line)
}

/// Cuts bytes that come in pieces into lines, whose ends are not part of them.
#[derive(Default, Debug)]
pub struct Lines {
    rest: Vec<u8>,
}

/// A line that is longer than it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl Lines {
    /// The lines that a piece completes.
    ///
    /// # Errors
    /// A line is longer than `most` bytes.
    pub fn push(&mut self, piece: &[u8], most: usize) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut lines = Vec::new();
        for byte in piece.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(byte);
            if self.rest.last() == Some(&b'\n') {
                let mut line = std::mem::take(&mut self.rest);
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                if line.len() > most {
                    return Err(TooLong);
                }
                lines.push(line);
            } else if self.rest.len() > most {
                return Err(TooLong);
            }
        }
        Ok(lines)
    }

    /// What comes after the last end of a line.
    pub fn finish(self) -> Vec<u8> {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHAT: &str = "/v1/chat/completions";

    #[test]
    fn statuses_are_found_by_their_names() {
        for status in BatchStatus::ALL {
            assert_eq!(BatchStatus::parse(status.as_str()), Some(status));
        }
    }

    #[test]
    fn a_line_is_read_or_its_fault_has_its_number() {
        let good = r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","x": 1.0}}"#;
        let line = read_line(good, 3, CHAT).unwrap();
        assert_eq!(
            (line.custom_id.as_ref(), line.body.get()),
            ("a", r#"{"model":"m","x": 1.0}"#)
        );
        for (text, code) in [
            ("{", "invalid_json_line"),
            ("[]", "invalid_json_line"),
            (
                r#"{"custom_id":1,"method":"POST","url":"u","body":{}}"#,
                "invalid_json_line",
            ),
            (&good.replace("\"a\"", "\"\""), "invalid_custom_id"),
            (&good.replace("POST", "GET"), "invalid_method"),
            (&good.replace("chat/completions", "embeddings"), "mismatched_url"),
            (&good.replace(r#"{"model":"m","x": 1.0}"#, "[]"), "invalid_body"),
            (&good.replace("\"x\": 1.0", "\"stream\":true"), "stream_not_supported"),
            (&good.replace("\"model\":\"m\",", ""), "missing_required_parameter"),
        ] {
            let fault = read_line(text, 3, CHAT).unwrap_err();
            assert_eq!((fault.code, fault.line), (code, Some(3)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_way_of_cutting_gives_the_same_lines(text in "[ab\r\n]{0,60}", cuts in prop::collection::vec(0_usize..60, 0..6)) {
            let whole: Vec<String> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
            let mut lines = Lines::default();
            let mut found = Vec::new();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for to in cuts.into_iter().chain([text.len()]) {
                found.extend(lines.push(&text.as_bytes()[from..to], 100).unwrap());
                from = to;
            }
            let rest = lines.finish();
            prop_assert_eq!(rest.as_slice(), text.rsplit('\n').next().unwrap_or_default().as_bytes());
            let found: Vec<String> = found.into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
            prop_assert_eq!(&found[..], &whole[..whole.len() - 1]);
        }
    }

    #[test]
    fn a_line_that_never_ends_is_refused_before_it_is_kept() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&[b'a'; 11], 10), Err(TooLong));
        assert_eq!(Lines::default().push(b"aaaaaaaaaaa\n", 10), Err(TooLong));
        assert_eq!(Lines::default().push(b"aaaaaaaaaa\n", 11).unwrap().len(), 1);
    }
}
