//! Errors of the management API: problem details (RFC 9457) that name the field at fault.

use std::marker::PhantomData;
use std::time::Duration;

use poem::http::StatusCode;
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::{ApiResponse, Object};

use super::examples::example;
use crate::domain::authority::FieldFault;
use crate::domain::error::BoxError;
use crate::routing::document::ConfigFault;

/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What is wrong with a request, as RFC 9457 has it.
#[derive(Object, Clone, PartialEq, Eq, Debug)]
#[oai(example)]
pub struct Problem {
    /// Identifies the kind of problem; `about:blank` where the status says all.
    #[oai(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong in this case.
    pub detail: String,
    /// Everything that is wrong with the body, each with its place.
    #[oai(default, skip_serializing_if_is_empty)]
    pub errors: Vec<FieldProblem>,
}

example!(Problem, {
    "type": "about:blank", "title": "Unprocessable Entity", "status": 422,
    "detail": "/amount_usd: must be an amount such as 12.50", "errors": [{"pointer": "/amount_usd",
    "problem": "must be an amount such as 12.50"}]
});

/// Something that is wrong with a field.
#[derive(Object, Clone, PartialEq, Eq, Debug)]
pub struct FieldProblem {
    /// Where, as a JSON pointer (RFC 6901) into the body.
    pub pointer: String,
    /// What is wrong there.
    pub problem: String,
}

impl Problem {
    /// A problem of a status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// The problem as an answer.
    pub fn response(&self) -> poem::Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        poem::Response::builder()
            .status(status)
            .content_type(PROBLEM_JSON)
            .body(poem_openapi::types::ToJSON::to_json_string(self))
    }
}

/// Why a request was refused.
#[derive(ApiResponse, Debug)]
pub enum Refusal {
    /// The request is not as it must be.
    #[oai(status = 400, content_type = "application/problem+json")]
    BadRequest(Json<Problem>),
    /// There is no valid token.
    #[oai(status = 401, content_type = "application/problem+json")]
    Unauthorized(Json<Problem>, #[oai(header = "WWW-Authenticate")] String),
    /// The token's role lacks the right.
    #[oai(status = 403, content_type = "application/problem+json")]
    Forbidden(Json<Problem>),
    /// There is no such thing in the caller's organization.
    #[oai(status = 404, content_type = "application/problem+json")]
    NotFound(Json<Problem>),
    /// The body did not arrive in time.
    #[oai(status = 408, content_type = "application/problem+json")]
    TimedOut(Json<Problem>),
    /// What is asked for and what there is do not go together; `detail` says why.
    #[oai(status = 409, content_type = "application/problem+json")]
    Conflict(Json<Problem>),
    /// Somebody else changed it since it was read.
    #[oai(status = 412, content_type = "application/problem+json")]
    PreconditionFailed(Json<Problem>),
    /// The body is too large.
    #[oai(status = 413, content_type = "application/problem+json")]
    TooLarge(Json<Problem>),
    /// The body is not JSON by its header.
    #[oai(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(Json<Problem>),
    /// The body is understood, and something in it is wrong.
    #[oai(status = 422, content_type = "application/problem+json")]
    Unprocessable(Json<Problem>),
    /// The request must say what it was made from.
    #[oai(status = 428, content_type = "application/problem+json")]
    PreconditionRequired(Json<Problem>),
    /// Too many attempts; another is allowed after `Retry-After` seconds.
    #[oai(status = 429, content_type = "application/problem+json")]
    TooManyRequests(Json<Problem>, #[oai(header = "Retry-After")] u64),
    /// The database, or something else that is needed, does not answer.
    #[oai(status = 503, content_type = "application/problem+json")]
    Unavailable(Json<Problem>),
}

/// How an operation is called, as a type: which refusals it can have.
pub trait Call: Send + Sync + 'static {
    /// Their statuses.
    const STATUSES: &'static [u16];
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $($status:literal)+;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl Call for $name {
            const STATUSES: &'static [u16] = &[$($status),+];
        }
    )+};
}

calls! {
    /// Something is read.
    Read: 400 401 403 404 503;
    /// The same, where what somebody wrote may be of a form that is not read any more.
    ReadWritten: 400 401 403 404 409 503;
    /// Something is done that needs no body.
    Act: 400 401 403 404 409 503;
    /// Something is asked that needs a body, and nothing is changed.
    Ask: 400 401 403 404 408 413 415 422 503;
    /// Something is written.
    Write: 400 401 403 404 408 409 413 415 422 503;
    /// Something is written only if it still is what it was made from, where the caller says what that was.
    WriteIf: 400 401 403 404 408 409 412 413 415 422 503;
    /// The config is replaced by what is sent, and the caller has to say what that was made from.
    Replace: 400 401 403 404 408 412 413 415 422 428 503;
    /// The config is replaced by an earlier one.
    Restore: 400 401 403 404 412 422 428 503;
    /// Somebody signs in, or changes what they sign in with.
    SignIn: 400 401 403 404 408 409 413 415 422 429 503;
    /// Somebody signs in by a link.
    SignInByLink: 400 401 403 404 409 429 503;
}

/// A refusal of a kind of call. The document has the refusals of each kind, and no others.
pub struct Refused<C>(Refusal, PhantomData<fn() -> C>);

impl<C: Call> From<Refusal> for Refused<C> {
    fn from(refusal: Refusal) -> Self {
        debug_assert!(
            C::STATUSES.contains(&refusal.problem().status),
            "{} is not in the document: {refusal:?}",
            refusal.problem().status
        );
        Self(refusal, PhantomData)
    }
}

impl<C: Call> From<Refused<C>> for poem::Error {
    fn from(refused: Refused<C>) -> Self {
        refused.0.into()
    }
}

impl<C: Call> ApiResponse for Refused<C> {
    fn meta() -> MetaResponses {
        let mut meta = Refusal::meta();
        let has = |status: Option<u16>| status.is_some_and(|status| C::STATUSES.contains(&status));
        meta.responses.retain(|response| has(response.status));
        meta
    }

    fn register(registry: &mut Registry) {
        Refusal::register(registry);
    }
}

impl Refusal {
    /// What is said.
    pub fn problem(&self) -> &Problem {
        match self {
            Self::BadRequest(Json(problem))
            | Self::Unauthorized(Json(problem), _)
            | Self::Forbidden(Json(problem))
            | Self::NotFound(Json(problem))
            | Self::TimedOut(Json(problem))
            | Self::Conflict(Json(problem))
            | Self::PreconditionFailed(Json(problem))
            | Self::TooLarge(Json(problem))
            | Self::UnsupportedMediaType(Json(problem))
            | Self::Unprocessable(Json(problem))
            | Self::PreconditionRequired(Json(problem))
            | Self::TooManyRequests(Json(problem), _)
            | Self::Unavailable(Json(problem)) => problem,
        }
    }

    /// A request that is not as it must be.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::BadRequest(Json(Problem::new(StatusCode::BAD_REQUEST, detail)))
    }

    /// No valid token.
    pub fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer …` with a token of this gateway that is not over; POST /api/auth/login gives one";
        Self::Unauthorized(
            Json(Problem::new(StatusCode::UNAUTHORIZED, detail)),
            "Bearer realm=\"bonito management\"".to_owned(),
        )
    }

    /// Not who they say they are, or nobody who may sign in. Whoever tries is not told which.
    pub fn wrong_credentials(detail: &str) -> Self {
        Self::Unauthorized(
            Json(Problem::new(StatusCode::UNAUTHORIZED, detail)),
            "Bearer realm=\"bonito management\"".to_owned(),
        )
    }

    /// A role without the right.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::Forbidden(Json(Problem::new(StatusCode::FORBIDDEN, detail)))
    }

    /// Nothing there.
    pub fn not_found(what: &str) -> Self {
        Self::NotFound(Json(Problem::new(
            StatusCode::NOT_FOUND,
            format!("there is no such {what}"),
        )))
    }

    /// What is asked for does not go together with what there is.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::Conflict(Json(Problem::new(StatusCode::CONFLICT, detail)))
    }

    /// A field of the body that is wrong, by its JSON pointer; `problem` is a sentence without its subject.
    pub fn field(pointer: &str, problem: impl Into<String>) -> Self {
        let fault = ConfigFault {
            pointer: pointer.to_owned(),
            problem: problem.into(),
        };
        Self::faults(vec![fault], "")
    }

    /// Too many attempts.
    pub fn too_many(detail: impl Into<String>, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self::TooManyRequests(
            Json(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)),
            seconds.max(1),
        )
    }

    /// Fields of the body that are wrong.
    pub fn fields(faults: Vec<FieldFault>) -> Self {
        let faults = faults
            .into_iter()
            .map(|FieldFault { pointer, problem }| ConfigFault { pointer, problem });
        Self::faults(faults.collect(), "")
    }

    /// Somebody was faster.
    pub fn changed(version: i64) -> Self {
        let detail = format!("version {version} is in force, not the one that If-Match names; read it and try again");
        Self::PreconditionFailed(Json(Problem::new(StatusCode::PRECONDITION_FAILED, detail)))
    }

    /// The request does not say what it was made from.
    pub fn needs_if_match() -> Self {
        let detail =
            "send If-Match with the ETag of the config that this one replaces, or * to replace whatever there is";
        Self::PreconditionRequired(Json(Problem::new(StatusCode::PRECONDITION_REQUIRED, detail)))
    }

    /// Faults of a document, whose place in the body is `at`.
    pub fn faults(faults: Vec<ConfigFault>, at: &str) -> Self {
        let errors: Vec<FieldProblem> = faults
            .into_iter()
            .map(|fault| FieldProblem {
                pointer: format!("{at}{}", fault.pointer),
                problem: fault.problem,
            })
            .collect();
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.pointer, only.problem),
            all => format!("{} things are wrong; errors names them", all.len()),
        };
        Self::Unprocessable(Json(Problem {
            errors,
            ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }))
    }

    /// The same where the body is only a part of the document that was checked, at this place of it.
    #[must_use]
    pub fn seen_from(self, place: &str) -> Self {
        let Self::Unprocessable(Json(problem)) = self else {
            return self;
        };
        let faults = problem.errors.into_iter().map(|error| ConfigFault {
            pointer: error.pointer.strip_prefix(place).unwrap_or(&error.pointer).to_owned(),
            problem: error.problem,
        });
        Self::faults(faults.collect(), "")
    }

    /// Something that is needed does not work right now.
    pub fn unavailable_because(detail: &str) -> Self {
        Self::Unavailable(Json(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)))
    }

    /// The database does not answer, which is in the log.
    pub fn unavailable(error: &BoxError) -> Self {
        tracing::warn!(%error, "the management API could not ask the database");
        let detail = "the database does not answer right now; try again later";
        Self::Unavailable(Json(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)))
    }
}
