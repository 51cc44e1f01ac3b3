use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use poem_openapi::types::{Example, ParseFromJSON, ToJSON};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    completions::CompletionRequest,
    docs_page,
    errors::{self, ErrorResponse, MessageError},
    page,
    schema::parses,
    specification,
};
use crate::domain::budget::calendar::Period;
use crate::domain::budget::refusal::{BudgetRefusal, Reason};
use crate::domain::budget::{Budget, BudgetId, BudgetScope, BudgetTerms, Enforcement, Unpriced};
use crate::domain::call::{Dialect, ErrorClass};
use crate::domain::error::{AttemptFailure, GatewayError};
use crate::domain::ids::{OrganizationId, RequestId};
use crate::domain::key::Revision;
use crate::domain::limit::{LimitKind, LimitOwner, LimitScope, Reached};
use crate::domain::money::NanoUsd;
use crate::http::error;

const MESSAGES: &str = "POST /v1/messages";
const COUNT: &str = "POST /v1/messages/count_tokens";
const SERVER: &str = "https://llm.example.com/";

fn document() -> Value {
    serde_json::from_str(&specification(SERVER)).expect("the document is JSON")
}

/// Every operation with its name, `POST /v1/chat/completions`.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap();
        methods
            .iter()
            .map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
    });
    operations.collect()
}

fn operation<'a>(document: &'a Value, name: &str) -> &'a Value {
    operations(document)
        .into_iter()
        .find(|(found, _)| found == name)
        .expect("the operation is documented")
        .1
}

/// Whether an operation has a model answer it.
fn asks_a_model(name: &str) -> bool {
    name.starts_with("POST") && name != COUNT && !name.contains("/v1/files") && !name.contains("/v1/batches")
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Calls `visit` with every object in the document.
fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a serde_json::Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            visit(fields);
            fields.values().for_each(|value| walk(value, visit));
        }
        Value::Array(values) => values.iter().for_each(|value| walk(value, visit)),
        _ => {}
    }
}

#[test]
fn it_is_an_openapi_3_document_that_says_what_it_is_about() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert_eq!(document["info"]["title"], "Bonito Gateway: inference API");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["info"]["license"]["name"], "Apache-2.0");
    assert_eq!(document["servers"], json!([{ "url": "https://llm.example.com" }]));
    assert!(
        document["info"]["description"]
            .as_str()
            .unwrap()
            .contains("OPENAI_BASE_URL=https://llm.example.com/v1\n")
    );
}

#[test]
fn it_is_the_same_every_time() {
    assert_eq!(specification(SERVER), specification(SERVER));
}

#[test]
fn every_endpoint_is_there_with_a_name_of_its_own() {
    let document = document();
    let named: BTreeSet<_> = operations(&document)
        .into_iter()
        .map(|(name, operation)| (name, operation["operationId"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ("DELETE /v1/files/{id}", "deleteFile"),
        ("GET /v1/batches", "listBatches"),
        ("GET /v1/batches/{id}", "retrieveBatch"),
        ("GET /v1/capabilities", "listCapabilities"),
        ("GET /v1/files", "listFiles"),
        ("GET /v1/files/{id}", "retrieveFile"),
        ("GET /v1/files/{id}/content", "downloadFile"),
        ("GET /v1/key", "retrieveKey"),
        ("GET /v1/models", "listModels"),
        ("GET /v1/models/{id}", "retrieveModel"),
        ("POST /v1/batches", "createBatch"),
        ("POST /v1/batches/{id}/cancel", "cancelBatch"),
        ("POST /v1/chat/completions", "createChatCompletion"),
        ("POST /v1/completions", "createCompletion"),
        ("POST /v1/embeddings", "createEmbedding"),
        ("POST /v1/files", "uploadFile"),
        ("POST /v1/messages", "createMessage"),
        ("POST /v1/messages/count_tokens", "countMessageTokens"),
    ];
    assert_eq!(
        named,
        expected.map(|(name, id)| (name.to_owned(), id.to_owned())).into()
    );
}

#[test]
fn every_operation_says_what_it_does_and_shows_how() {
    let document = document();
    let tags: BTreeSet<_> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    for (name, operation) in operations(&document) {
        for field in ["summary", "description"] {
            assert!(
                !operation[field].as_str().unwrap_or_default().is_empty(),
                "{name} has no {field}"
            );
        }
        assert!(
            !operation["x-code-samples"].as_array().unwrap().is_empty(),
            "{name} has no sample"
        );
        let tag = operation["tags"][0].as_str().unwrap();
        assert!(tags.contains(tag), "{name} is tagged {tag}, which is not described");
    }
}

#[test]
fn every_operation_takes_the_key_in_either_header() {
    let document = document();
    for (name, operation) in operations(&document) {
        assert_eq!(
            operation["security"],
            json!([{ "bearer": [] }, { "apiKeyHeader": [] }]),
            "{name}"
        );
    }
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["bearer"]["scheme"], "bearer");
    assert_eq!(schemes["apiKeyHeader"]["in"], "header");
    assert_eq!(schemes["apiKeyHeader"]["name"], "x-api-key");
}

#[test]
fn a_chat_or_completion_is_one_response_with_two_content_types() {
    // The text is searched too, because a parser keeps only one of two equal keys and would hide the other.
    assert_eq!(
        specification(SERVER).matches("\"200\":").count(),
        operations(&document()).len()
    );
    let document = document();
    for name in ["POST /v1/chat/completions", "POST /v1/completions", MESSAGES] {
        let answer = &operation(&document, name)["responses"]["200"];
        assert_eq!(
            keys(&answer["content"]),
            ["application/json", "text/event-stream"].into(),
            "{name}"
        );
    }
}

#[test]
fn every_operation_lists_the_statuses_that_can_occur() {
    let inference = [
        "200", "400", "401", "403", "404", "408", "413", "415", "429", "500", "502", "503", "504",
    ];
    let messages = inference.map(|status| if status == "503" { "529" } else { status });
    let expected: [(&str, &[&str]); 12] = [
        ("POST /v1/chat/completions", &inference),
        (MESSAGES, &messages),
        (COUNT, &["200", "400", "401", "403", "404", "408", "413", "415", "500"]),
        ("POST /v1/completions", &inference),
        ("POST /v1/embeddings", &inference),
        ("GET /v1/models", &["200", "400", "401", "500"]),
        ("GET /v1/models/{id}", &["200", "401", "403", "404", "500"]),
        ("GET /v1/key", &["200", "401", "500"]),
        ("POST /v1/files", &["200", "400", "401", "408", "413", "500"]),
        ("GET /v1/files/{id}/content", &["200", "401", "404", "500"]),
        ("GET /v1/batches", &["200", "400", "401", "500"]),
        ("POST /v1/batches/{id}/cancel", &["200", "400", "401", "404", "500"]),
    ];
    let document = document();
    for (name, statuses) in expected {
        assert_eq!(
            keys(&operation(&document, name)["responses"]),
            statuses.iter().copied().collect(),
            "{name}"
        );
    }
}

#[test]
fn every_refusal_has_the_error_schema_an_example_and_its_headers() {
    let document = document();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let headers = keys(&response["headers"]);
            assert!(headers.contains("x-request-id"), "{name} {status}");
            if status == "200" {
                continue;
            }
            let schema = &response["content"]["application/json"]["schema"];
            let (expected, fields) = if name.starts_with(MESSAGES) {
                assert!(headers.contains("request-id"), "{name} {status}");
                ("MessageError", ["details", "message", "type"].as_slice())
            } else {
                ("ErrorResponse", ["code", "message", "param", "type"].as_slice())
            };
            let reference = format!("#/components/schemas/{expected}");
            assert_eq!(schema["allOf"][0]["$ref"], reference.as_str(), "{name} {status}");
            let error = keys(&schema["example"]["error"]);
            assert!(fields.iter().all(|field| error.contains(field)), "{name} {status}");
            assert_eq!(
                error.contains("attempts"),
                ["502", "504"].contains(&status.as_str()),
                "{name} {status}"
            );
        }
    }
}

fn budget() -> Budget {
    Budget {
        id: BudgetId(Uuid::nil()),
        organization: OrganizationId(Uuid::nil()),
        scope: BudgetScope::Organization,
        label: "organization \"test\"".into(),
        terms: BudgetTerms {
            amount: NanoUsd(1),
            period: Period::Total,
            zone: chrono_tz::UTC,
            enforcement: Enforcement::Hard,
            unpriced: Unpriced::Refuse,
            default_output_tokens: None,
            thresholds: [100].into_iter().collect(),
            enabled: true,
        },
        revision: Revision(1),
    }
}

/// The errors that inference can be answered with, one of each kind.
fn real_errors() -> Vec<GatewayError> {
    let mut errors = vec![
        GatewayError::Unauthenticated,
        GatewayError::invalid("model", "is required"),
        GatewayError::invalid_body("is not JSON"),
        GatewayError::TooLarge { limit_bytes: 1 },
        GatewayError::TooSlow,
        GatewayError::UnsupportedMediaType,
        GatewayError::ModelNotAllowed { model: "m".into() },
        GatewayError::Denied {
            model: "m".into(),
            reason: "a test".into(),
        },
        GatewayError::ModelNotFound { model: "m".into() },
        GatewayError::Overloaded {
            retry_after: Duration::from_secs(1),
        },
        GatewayError::Limited(Box::new(Reached {
            kind: LimitKind::Tokens,
            scope: LimitScope {
                owner: LimitOwner::Organization,
                model: None,
            },
            limit: 10,
            used: 10,
            need: 1,
            retry_after: Some(Duration::from_millis(1_500)),
        })),
        GatewayError::Uncounted {
            retry_after: Duration::from_secs(1),
        },
        GatewayError::KeyUnchecked {
            retry_after: Duration::from_secs(1),
        },
        GatewayError::internal("a test"),
    ];
    let (provider, model) = ("azure".into(), "gpt-4o".into());
    let (worst, fits) = (NanoUsd(2), Some(1));
    let reasons = [
        Reason::UsedUp { worst, fits },
        Reason::TooLarge { worst, fits },
        Reason::Held,
        Reason::Unpriced { provider, model },
        Reason::Unknown,
    ];
    let refused = reasons.map(|reason| BudgetRefusal::new(&budget(), reason, NanoUsd(1), None));
    errors.extend(refused.map(|refusal| GatewayError::Budget(Box::new(refusal))));
    let exhausted = ErrorClass::ALL.iter().map(|&class| {
        let answered = AttemptFailure {
            provider: "azure".into(),
            model: "gpt-4o".into(),
            class,
            status: Some(429),
            code: Some("code".into()),
            message: "what the provider said".into(),
            param: Some("messages".into()),
            inner: Some(serde_json::value::to_raw_value(&json!({ "code": "ResponsibleAIPolicyViolation" })).unwrap()),
            request_id: Some("id".into()),
            retry_after: Some(Duration::from_millis(1_500)),
        };
        let silent = AttemptFailure {
            status: None,
            code: None,
            request_id: None,
            ..answered.clone()
        };
        GatewayError::Exhausted {
            attempts: vec![silent, answered],
        }
    });
    errors.extend(exhausted);
    errors
}

/// The headers of real errors by their status, with the ids that every answer of the dialect carries.
fn real_headers(dialect: Dialect, ids: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let mut real: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for error in real_errors() {
        let response = error::response_in(dialect, &error, RequestId(Uuid::nil()));
        let headers = response.headers().keys().filter(|name| *name != "content-type");
        real.entry(response.status().as_str().to_owned()).or_default().extend(
            headers
                .map(ToString::to_string)
                .chain(ids.iter().map(ToString::to_string)),
        );
    }
    real
}

#[test]
fn the_documented_headers_of_every_status_are_those_of_real_errors() {
    let of_openai = real_headers(Dialect::OpenAi, &["x-request-id"]);
    let ids = ["request-id", "x-request-id"];
    let of_anthropic = real_headers(Dialect::Anthropic, &ids);
    let document = document();
    for (name, operation) in operations(&document) {
        let refusals = operation["responses"].as_object().unwrap().iter();
        let documented: BTreeMap<String, BTreeSet<String>> = refusals
            .filter(|(status, _)| *status != "200")
            .map(|(status, response)| {
                let names = keys(&response["headers"]).into_iter().map(str::to_lowercase);
                // Those of the limits are added to an answer after its error was written.
                let names = names.filter(|name| !name.starts_with("x-ratelimit-"));
                (status.clone(), names.collect())
            })
            .collect();
        if name == COUNT {
            let only_ids: BTreeSet<String> = ids.map(ToOwned::to_owned).into();
            assert!(documented.values().all(|headers| *headers == only_ids), "{name}");
        } else if name == MESSAGES {
            assert_eq!(documented, of_anthropic, "{name}");
        } else if asks_a_model(&name) {
            assert_eq!(documented, of_openai, "{name}");
        } else {
            let only_the_id: BTreeSet<String> = ["x-request-id".to_owned()].into();
            assert!(documented.values().all(|headers| *headers == only_the_id), "{name}");
        }
    }
}

#[test]
fn every_field_of_a_real_error_is_documented() {
    for error in real_errors() {
        let body = errors::body(&error, Dialect::OpenAi);
        let read = ErrorResponse::parse_from_json(Some(body.clone())).expect("an error is what its schema says");
        assert_eq!(read.to_json(), Some(body), "reading leaves out what is not documented");
        let body = errors::body(&error, Dialect::Anthropic);
        let read = MessageError::parse_from_json(Some(body.clone())).expect("an error is what its schema says");
        assert_eq!(read.to_json(), Some(body), "reading leaves out what is not documented");
    }
}

#[test]
fn every_kind_type_and_code_of_an_error_is_named() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let described = |name: &str, field: &str| schemas[name]["properties"][field]["description"].as_str().unwrap();
    let reasons = described("ErrorAttempt", "reason");
    for class in ErrorClass::ALL {
        // Of an attempt that failed these are never said to a caller.
        let known = ![
            ErrorClass::ModelNotAllowed,
            ErrorClass::CallerTimeout,
            ErrorClass::LimitReached,
            ErrorClass::Cancelled,
            ErrorClass::Interrupted,
            ErrorClass::Budget,
        ]
        .contains(class);
        assert_eq!(reasons.contains(&format!("`{class}`")), known, "{class}");
    }
    let types = described("Error", "type");
    let types_of_anthropic = described("MessageErrorDetail", "type");
    let responses = &operation(&document, "POST /v1/chat/completions")["responses"];
    for error in real_errors() {
        let (status, body) = (error::status(&error).to_string(), errors::body(&error, Dialect::OpenAi));
        let kind = body["error"]["type"].as_str().unwrap();
        assert!(types.contains(&format!("`{kind}`")), "{kind}");
        let of_anthropic = errors::body(&error, Dialect::Anthropic);
        let kind = of_anthropic["error"]["type"].as_str().unwrap();
        assert!(types_of_anthropic.contains(&format!("`{kind}`")), "{kind}");
        let code = body["error"]["code"].as_str().unwrap();
        let meaning = responses[&status]["description"].as_str().unwrap();
        assert!(
            code == "code" || meaning.contains(&format!("`{code}`")),
            "{status} does not name {code}"
        );
    }
}

/// The text names defaults that the configuration sets.
#[test]
fn the_limits_it_names_are_the_defaults() {
    let defaults: toml::Table = include_str!("../../../../config/default.toml").parse().unwrap();
    let number = |table: &str, key: &str| defaults[table][key].as_integer().unwrap();
    assert_eq!(number("limits", "chat_body_bytes"), 16 << 20);
    assert_eq!(number("limits", "completion_body_bytes"), 4 << 20);
    assert_eq!(number("limits", "embedding_body_bytes"), 16 << 20);
    assert_eq!(number("limits", "json_depth"), 64);
    assert_eq!(number("limits", "messages"), 10_000);
    assert_eq!(number("limits", "embedding_inputs"), 2_048);
    assert_eq!(number("failover", "max_attempts"), 3);
    assert_eq!(number("server", "body_read_timeout_ms"), 30_000);
    assert_eq!(number("stream", "keep_alive_ms"), 15_000);
    let document = document();
    let introduction = document["info"]["description"].as_str().unwrap();
    let introduction = introduction.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = [
        "16 MiB",
        "4 MiB",
        "64 levels",
        "10,000 messages",
        "2,048 prompts",
        "3 attempts",
    ];
    for words in words {
        assert!(introduction.contains(words), "{words}");
    }
}

#[test]
fn a_stream_that_was_held_back_is_described() {
    let document = document();
    for name in ["POST /v1/chat/completions", "POST /v1/completions", MESSAGES] {
        let description = operation(&document, name)["description"].as_str().unwrap();
        assert!(
            description.contains(": x-bonito-provider=azure x-bonito-model=gpt-4o x-bonito-attempts=2"),
            "{name}"
        );
    }
}

#[test]
fn nothing_is_promised_that_is_not_there() {
    let text = specification(SERVER).to_lowercase();
    for word in ["alias", "fallback chain", "shutdown_date"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn an_answer_of_a_model_says_where_it_came_from_and_what_it_cost() {
    let document = document();
    for (name, operation) in operations(&document).into_iter().filter(|(name, _)| asks_a_model(name)) {
        let mut headers = keys(&operation["responses"]["200"]["headers"]);
        assert_eq!(headers.remove("request-id"), name == MESSAGES, "{name}");
        let expected = [
            "age",
            "x-bonito-cache",
            "x-bonito-attempts",
            "x-bonito-cost-usd",
            "x-bonito-dropped-params",
            "x-bonito-model",
            "x-bonito-overhead-ms",
            "x-bonito-provider",
            "x-ratelimit-limit-requests",
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-requests",
            "x-ratelimit-reset-tokens",
            "x-request-id",
        ];
        assert_eq!(headers, expected.into(), "{name}");
    }
}

#[test]
fn requests_admit_fields_they_do_not_know() {
    let document = document();
    for name in [
        "ChatCompletionRequest",
        "CompletionRequest",
        "EmbeddingRequest",
        "MessageRequest",
    ] {
        let schema = &document["components"]["schemas"][name];
        assert_eq!(schema["additionalProperties"], json!({}), "{name}");
        assert!(
            schema["description"].as_str().unwrap().contains("passed through"),
            "{name}"
        );
        assert!(!schema["example"].is_null(), "{name}");
    }
    walk(&document, &mut |object| {
        assert_ne!(object.get("additionalProperties"), Some(&Value::Bool(false)))
    });
}

#[test]
fn no_reference_dangles_and_no_schema_is_unused() {
    let document = document();
    let mut used = BTreeSet::new();
    let mut note = |reference: &str| {
        let pointer = reference
            .strip_prefix('#')
            .expect("references stay inside the document");
        assert!(document.pointer(pointer).is_some(), "{reference} dangles");
        used.insert(pointer.trim_start_matches("/components/schemas/").to_owned());
    };
    walk(&document, &mut |object| {
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            note(reference);
        }
        if let Some(mapping) = object
            .get("discriminator")
            .and_then(|discriminator| discriminator["mapping"].as_object())
        {
            mapping.values().filter_map(Value::as_str).for_each(&mut note);
        }
    });
    assert_eq!(
        used,
        keys(&document["components"]["schemas"])
            .into_iter()
            .map(str::to_owned)
            .collect()
    );
}

#[test]
fn every_field_is_described() {
    walk(&document()["components"]["schemas"], &mut |object| {
        let (Some(title), Some(properties)) = (object.get("title"), object.get("properties")) else {
            return;
        };
        assert!(object.contains_key("description"), "{title} is not described");
        for (field, schema) in properties.as_object().unwrap() {
            assert!(schema["description"].is_string(), "{title}.{field} is not described");
        }
    });
}

#[test]
fn null_is_said_where_a_validator_looks_for_it() {
    let document = document();
    let field = |name: &str| document["components"]["schemas"]["ChatCompletionRequest"]["properties"][name].clone();
    assert_eq!(field("temperature")["nullable"], true);
    assert!(
        field("reasoning_effort")["enum"]
            .as_array()
            .unwrap()
            .contains(&Value::Null)
    );
    let alternatives = field("stream_options")["anyOf"].as_array().unwrap().clone();
    assert_eq!(alternatives[0]["$ref"], "#/components/schemas/StreamOptions");
    assert_eq!(alternatives[1]["nullable"], true);
}

#[test]
fn an_example_is_checked_by_the_type_it_shows() {
    assert!(parses::<CompletionRequest>(
        &json!({ "model": "m", "prompt": [[1, 2], [3]], "stop": null, "top_k": 40 })
    ));
    assert!(!parses::<CompletionRequest>(
        &json!({ "model": "m", "prompt": "p", "temperature": 3 })
    ));
    assert!(!parses::<CompletionRequest>(
        &json!({ "model": "m", "prompt": { "text": "p" } })
    ));
    let shown = CompletionRequest::example().to_json();
    assert!(CompletionRequest::parse_from_json(shown).is_ok());
}

#[test]
fn the_page_loads_the_document_and_nothing_from_another_host() {
    let page = docs_page();
    assert!(page.contains("<title>Bonito Gateway: inference API</title>"));
    assert!(page.contains(r#"data-url="/openapi/inference.json""#));
    assert!(page.contains("connect-src 'self'"));

    let (frame, script) = page
        .split_once("<script>")
        .expect("only Scalar is a script without attributes");
    assert!(!frame.contains("//"), "the page itself names a host");
    // What would make a browser fetch something; links to click and names of XML and JSON schemas do not.
    for fetch in [
        "fetch(\"http",
        "url(http",
        "url(\"http",
        "url('http",
        "src=\"http",
        "@import \"http",
    ] {
        for (at, _) in script.match_indices(fetch) {
            let host = script[at + fetch.len()..].split('/').nth(2).unwrap_or_default();
            assert!(host.ends_with(".invalid"), "the script fetches something from {host}");
        }
    }
    assert!(
        !page.contains("scalar.com"),
        "the fonts, the proxy and the client of Scalar's maker"
    );
}

#[test]
fn the_page_names_the_alternatives_of_a_union() {
    let page = docs_page();
    let (theirs, ours) = page::ALTERNATIVE_WITHOUT_NAME;
    assert!(
        page.contains(ours) && !page.contains(theirs),
        "Scalar changed: see whether it still needs the correction"
    );
}
