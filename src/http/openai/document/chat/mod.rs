//! `POST /v1/chat/completions`.

mod answer;
mod message;
mod request;
mod tool;

use poem::http::Method;

use self::{
    answer::{ChatCompletion, ChatCompletionChunk},
    request::ChatCompletionRequest,
};
use super::{
    errors, headers,
    operation::{Answer, Operation, Sample, events, held_stream, json, stream_of},
    schema,
};
use crate::domain::call::Dialect;

/// The section of the documentation.
pub const TAG: &str = "Chat";

/// The operation.
pub fn create() -> Operation {
    Operation {
        method: Method::POST,
        path: "/v1/chat/completions",
        id: "createChatCompletion",
        tag: TAG,
        summary: "Answer a conversation",
        description: DESCRIPTION,
        parameters: vec![],
        request: Some(json::<ChatCompletionRequest>()),
        answer: Answer {
            description: "The answer: whole as JSON, or with `stream: true` as a stream of events.",
            content: vec![
                json::<ChatCompletion>(),
                events::<ChatCompletionChunk>(stream_of!("ChatCompletionChunk"), &answer::chunks()),
            ],
            headers: headers::inference(),
        },
        refusals: errors::INFERENCE,
        dialect: Dialect::OpenAi,
        samples: SAMPLES,
    }
}

const DESCRIPTION: &str = concat!(
    "Sends a conversation to a model and answers with what the model says next. The gateway checks the request and \
     hands it on to the provider. A field that this page does not list is passed through to the provider unchanged.\n\n\
     When a provider fails before anything was answered, the gateway tries the next one that serves the model; the \
     header `x-bonito-attempts` counts them. Once a stream has begun to say something, it is never moved or mixed with \
     another.\n\n\
     ### Streaming\n\n\
     With `stream: true` the answer comes as server-sent events. ",
    stream_of!("ChatCompletionChunk"),
    r#"

```text
data: {"id":"chatcmpl-1",…,"choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}]}

: keep-alive

data: {"id":"chatcmpl-1",…,"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":null}]}

data: {"id":"chatcmpl-1",…,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]
```

"#,
    held_stream!(),
);

const SAMPLES: &[Sample] = &[
    Sample::curl(
        r#"curl "$OPENAI_BASE_URL/chat/completions" \
  -H "Authorization: Bearer $OPENAI_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}]
  }'"#,
    ),
    Sample {
        language: "Shell",
        label: "curl, streamed",
        source: r#"curl -N "$OPENAI_BASE_URL/chat/completions" \
  -H "Authorization: Bearer $OPENAI_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "azure/gpt-4o",
    "stream": true,
    "stream_options": {"include_usage": true},
    "messages": [{"role": "user", "content": "Why is the sky blue?"}]
  }'"#,
    },
    Sample {
        language: "Python",
        label: "Python",
        source: r#"from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY

completion = client.chat.completions.create(
    model="gpt-4o",
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
)
print(completion.choices[0].message.content)"#,
    },
    Sample {
        language: "Python",
        label: "Python, with a tool",
        source: r#"from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY

completion = client.chat.completions.create(
    model="gpt-4o",
    messages=[{"role": "user", "content": "What is the weather in Paris?"}],
    tools=[{
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }],
)
for call in completion.choices[0].message.tool_calls or []:
    print(call.function.name, call.function.arguments)"#,
    },
    Sample {
        language: "JavaScript",
        label: "JavaScript, streamed",
        source: r#"import OpenAI from "openai";

const client = new OpenAI(); // reads OPENAI_BASE_URL and OPENAI_API_KEY

const stream = await client.chat.completions.create({
  model: "gpt-4o",
  messages: [{ role: "user", content: "Why is the sky blue?" }],
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}"#,
    },
];
