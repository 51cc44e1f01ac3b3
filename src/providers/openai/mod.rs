//! OpenAI itself, and the format that half of the world has copied.
//!
//! A caller that speaks OpenAI's dialect is forwarded byte for byte; only what the gateway must decide is changed: the
//! model's name, and that usage is reported. `azure` and `compatible` build on the same pieces with their own rules.
//!
//! # Source
//! OpenAI's API reference, <https://platform.openai.com/docs/api-reference>.

pub mod decode;
pub mod encode;
pub mod events;
pub mod failure;
pub mod wire;
pub mod write;

use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use crate::chat::param::{Dropped, Param};
use crate::chat::request::Request;
use crate::config::ProviderKind;
use crate::domain::call::{Dialect, Operation};
use crate::providers::adapter::{
    Adapter, AnswerForm, AuthScheme, Exchange, Failure, Listing, Payload, Support, Target, Unencodable, WireRequest,
};
use crate::providers::choices::{self, Calls};
use crate::providers::translate::Translated;
use decode::{Forwarded, StreamRules};
use encode::{Edits, Paths};
use events::OpenAiTranslator;
use write::Manner;

/// How OpenAI itself streams.
const RULES: StreamRules = StreamRules {
    done_marker: true,
    merges_filter_records: false,
};

/// OpenAI's adapter.
#[derive(Debug)]
pub struct OpenAi {
    paths: Paths,
}

/// The adapter for a configured OpenAI account.
pub fn build(kind: &ProviderKind) -> OpenAi {
    let ProviderKind::OpenAi { base_url, .. } = kind else {
        unreachable!("the registration pairs kinds and adapters")
    };
    OpenAi {
        paths: Paths::below(base_url),
    }
}

impl Adapter for OpenAi {
    fn encode(&self, request: &Request, target: &Target<'_>) -> Result<Exchange, Unencodable> {
        let edits = Edits {
            model: Some(target.wire_name),
            report_usage: true,
            modern_max_tokens: target.reasoning,
        };
        let path = |operation| self.paths.of(operation);
        exchange(
            request,
            target,
            path,
            &edits,
            AuthScheme::Bearer,
            RULES,
            Manner::GENUINE,
        )
    }

    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        failure::read(status, headers, body)
    }

    fn request_id<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        headers.get("x-request-id").and_then(|id| id.to_str().ok())
    }

    fn listing(&self) -> Option<Listing> {
        Some(Listing::at(self.paths.models(), AuthScheme::Bearer))
    }

    fn support(&self, _param: Param) -> Support {
        Support::Forwarded
    }

    fn serves(&self, _operation: Operation) -> bool {
        true
    }
}

/// The exchange for a request at a provider that speaks OpenAI's dialect: forwarded with a few edits where the caller does,
/// too, and written anew where it does not, or where a legacy completion is asked of a model that only chats.
///
/// # Errors
/// A message holds something that OpenAI's dialect has no place for.
pub fn exchange(
    request: &Request,
    target: &Target<'_>,
    path: impl Fn(Operation) -> PathAndQuery,
    edits: &Edits<'_>,
    auth: AuthScheme,
    rules: StreamRules,
    manner: Manner,
) -> Result<Exchange, Unencodable> {
    let only_chats = request.operation == Operation::Completion && target.only_chats;
    let mut call = WireRequest {
        path: path(if only_chats { Operation::Chat } else { request.operation }),
        payload: Payload::default(),
        auth,
        headers: SmallVec::new(),
        answer: AnswerForm::of(request.stream),
    };
    if request.dialect == Dialect::OpenAi && !only_chats {
        let (mut cuts, dropped) = encode::refused_fields(request, manner);
        let (marks, marked) = encode::foreign_marks(request, manner);
        cuts.extend(marks);
        call.payload = encode::splice(request, edits, cuts);
        return Ok(Exchange {
            dropped: dropped.and(&marked),
            ..Exchange::whole(call, Forwarded::new(request, rules))
        });
    }
    let conversation = request.conversation()?;
    // Where `n` is refused, it is dropped and named.
    let each = conversation.sampling.choices.filter(|_| !manner.refuses(Param::N));
    let calls = Calls::with_choices(conversation, each.unwrap_or(1))?;
    let stream = request.stream && calls.is_one();
    call.answer = AnswerForm::of(stream);
    let mut made = SmallVec::new();
    let mut dropped = Dropped::default();
    for question in choices::questions(conversation) {
        let (body, left) = write::body(&question, target, manner, stream)?;
        made.push(WireRequest {
            payload: body.into(),
            ..call.clone()
        });
        // They differ in nothing but the prompt.
        dropped = left;
    }
    request.headers.drop_betas(&mut dropped, |_| false);
    let translator = OpenAiTranslator::new(conversation, rules, calls);
    Ok(Exchange {
        calls: made,
        reader: Box::new(Translated::new(request, translator)),
        dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::ModelTraits;
    use crate::providers::conformance::{Model, conformance};
    use crate::providers::testing::secret;

    fn openai() -> OpenAi {
        build(&ProviderKind::OpenAi {
            base_url: http::Uri::from_static("https://api.openai.com/v1"),
            api_key: secret(),
            organization: None,
            project: None,
        })
    }

    fn reasoning() -> Model {
        Model {
            reasoning: true,
            ..Model::of(ModelTraits::default())
        }
    }

    conformance!(conformance: adapter = openai(), fixtures = "openai/fixtures",
        models = vec![Model::of(ModelTraits::default()), reasoning()]);
}
