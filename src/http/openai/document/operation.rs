//! What one operation needs to say about itself, and how that becomes an entry of the document.

use poem::http::Method;
use poem_openapi::{
    registry::{
        MetaCodeSample, MetaHeader, MetaMediaType, MetaOperation, MetaOperationParam, MetaPath, MetaRequest,
        MetaResponse, MetaResponses, MetaSchema, Registry,
    },
    types::{ToJSON, Type},
};
use serde_json::Value;

use super::{
    errors::{ErrorResponse, MessageError, Refusal},
    schema::inline,
    security,
};
use crate::domain::call::Dialect;

/// The content type of every request and of every whole answer.
pub const JSON: &str = "application/json";

/// The content type of a stream.
pub const EVENT_STREAM: &str = "text/event-stream";

/// How a stream of `$record` looks.
macro_rules! stream_of {
    ($record:literal) => {
        concat!(
            "Each record is one line `data: <",
            $record,
            ">` and an empty line; there are no `event:` or `id:` lines. The end is `data: [DONE]`, which is always the \
             provider's own; the few providers that send none leave it out. Lines that begin with a colon, such as \
             `: keep-alive`, are comments and may occur at any time; SDKs skip them. A failure after the first event \
             is a record `data: {\"error\":{…}}`, and no `[DONE]` follows: what was sent before it is not a whole \
             answer."
        )
    };
}

/// What becomes of a stream's headers while there is nothing to stream, as a paragraph for an operation.
macro_rules! held_stream {
    () => {
        "Status and headers of a stream wait for its first event, so that a failure before it has a status of its own. \
         After 15 s, unless configured otherwise, they leave without it. The answer then has none of the headers \
         `x-bonito-…`, a failure is a record of the stream under status 200, and a whole answer says in a comment at \
         its very end who gave it: `: x-bonito-provider=azure x-bonito-model=gpt-4o x-bonito-attempts=2`. What the \
         provider could not express stands behind that: ` x-bonito-dropped-params=seed, logit_bias`."
    };
}

pub(super) use {held_stream, stream_of};

/// One operation, without what is the same for all of them.
pub struct Operation {
    /// The HTTP method.
    pub method: Method,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// The name that generated clients give to the call.
    pub id: &'static str,
    /// The section of the documentation it belongs to.
    pub tag: &'static str,
    /// The title of the operation.
    pub summary: &'static str,
    /// The rest of what there is to say, in Markdown.
    pub description: &'static str,
    /// Parameters in the path.
    pub parameters: Vec<MetaOperationParam>,
    /// The body, where there is one.
    pub request: Option<Content>,
    /// What a 200 answers.
    pub answer: Answer,
    /// The other statuses.
    pub refusals: &'static [Refusal],
    /// In whose words they are said.
    pub dialect: Dialect,
    /// Calls to copy, in several languages.
    pub samples: &'static [Sample],
}

/// The answer with status 200. It is one response however many content types it has: the document can hold each status
/// only once.
pub struct Answer {
    /// What is in it.
    pub description: &'static str,
    /// One entry per content type.
    pub content: Vec<Content>,
    /// The headers it carries.
    pub headers: Vec<MetaHeader>,
}

/// A body: its content type, its schema, and how to add what the schema refers to.
pub struct Content {
    /// What it is.
    pub media: MetaMediaType,
    /// Adds the schemas it refers to.
    pub register: fn(&mut Registry),
}

/// A call to copy.
pub struct Sample {
    /// The language, which also chooses the colours.
    pub language: &'static str,
    /// The title of the sample.
    pub label: &'static str,
    /// The code.
    pub source: &'static str,
}

impl Sample {
    /// A call by curl, in a shell.
    pub const fn curl(source: &'static str) -> Self {
        Self {
            language: "Shell",
            label: "curl",
            source,
        }
    }
}

impl Operation {
    /// Adds the schemas the operation refers to.
    pub fn register(&self, registry: &mut Registry) {
        match self.dialect {
            Dialect::OpenAi => ErrorResponse::register(registry),
            Dialect::Anthropic => MessageError::register(registry),
        }
        for content in self.request.iter().chain(&self.answer.content) {
            (content.register)(registry);
        }
    }

    /// The operation as the document holds it.
    pub fn into_path(self) -> MetaPath {
        let answer = MetaResponse {
            description: self.answer.description,
            status: Some(200),
            status_range: None,
            content: self.answer.content.into_iter().map(|content| content.media).collect(),
            headers: self.answer.headers,
        };
        let refusals = self.refusals.iter().map(|refusal| refusal.response(self.dialect));
        let operation = MetaOperation {
            method: self.method,
            tags: vec![self.tag],
            summary: Some(self.summary),
            description: Some(self.description),
            external_docs: None,
            params: self.parameters,
            request: self.request.map(|content| MetaRequest {
                description: None,
                content: vec![content.media],
                required: true,
            }),
            responses: MetaResponses {
                responses: std::iter::once(answer).chain(refusals).collect(),
            },
            deprecated: false,
            security: security::requirement(),
            operation_id: Some(self.id),
            code_samples: self.samples.iter().map(Sample::meta).collect(),
        };
        MetaPath {
            path: self.path.to_owned(),
            operations: vec![operation],
        }
    }
}

impl Sample {
    fn meta(&self) -> MetaCodeSample {
        MetaCodeSample {
            lang: self.language,
            label: Some(self.label),
            source: self.source,
        }
    }
}

/// A body that is one JSON value of type `T`.
pub fn json<T: Type>() -> Content {
    Content {
        media: MetaMediaType {
            content_type: JSON,
            schema: T::schema_ref(),
        },
        register: T::register,
    }
}

/// A stream whose records hold `T`, or in the end an error.
///
/// OpenAPI 3.0 cannot describe a stream. An array stands for the sequence of records, as poem-openapi does it.
pub fn events<T: Type + ToJSON>(description: &'static str, example: &[T]) -> Content {
    events_or::<T, ErrorResponse>(description, example)
}

/// A stream whose records hold `T`, or in the end an error of type `E`.
pub fn events_or<T: Type + ToJSON, E: Type>(description: &'static str, example: &[T]) -> Content {
    let record = MetaSchema {
        any_of: vec![T::schema_ref(), E::schema_ref()],
        ..MetaSchema::ANY
    };
    let schema = MetaSchema {
        description: Some(description),
        items: Some(Box::new(inline(record))),
        example: Some(Value::Array(example.iter().filter_map(T::to_json).collect())),
        ..MetaSchema::new_with_format("array", "event-stream")
    };
    Content {
        media: MetaMediaType {
            content_type: EVENT_STREAM,
            schema: inline(schema),
        },
        register: T::register,
    }
}
