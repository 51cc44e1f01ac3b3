//! Scripts by name: the refusals of real providers, and every way of going wrong we know of.
//!
//! Whoever wants another one edits [`Script::faithful`] or writes an [`Answer`]. Those made of the faithful answer bill
//! what it bills; the others are free.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    answer::{Answer, DONE, Step},
    azure,
    openai::error_body,
    script::Script,
};

/// A number of bytes large enough to be many pieces, small enough to be one.
const FLOOD_PIECE_BYTES: usize = 16 * 1024;

/// Refusals.
impl Script {
    /// Any status with an error in OpenAI's shape.
    pub fn error(status: u16, message: &str, code: Option<&str>) -> Self {
        Answer::error(status, &error_body(status, message, None, code)).into()
    }

    /// 429 with `retry-after` as given, which may be whatever a provider might send.
    pub fn rate_limited(retry_after: &str) -> Self {
        let error = error_body(
            429,
            "Rate limit reached for requests",
            None,
            Some("rate_limit_exceeded"),
        );
        Answer::error(429, &error).header("retry-after", retry_after).into()
    }

    /// 429 because the provider wants money: no retry will help.
    pub fn out_of_quota() -> Self {
        let message = "You exceeded your current quota, please check your plan and billing details.";
        let kind = "insufficient_quota";
        Answer::error(
            429,
            &json!({ "message": message, "type": kind, "param": null, "code": kind }),
        )
        .into()
    }

    pub fn unauthorized() -> Self {
        Self::error(401, "Incorrect API key provided: sk-mock.", Some("invalid_api_key"))
    }

    pub fn server_error() -> Self {
        Self::error(500, "The server had an error while processing your request.", None)
    }

    pub fn overloaded() -> Self {
        Self::error(
            503,
            "The engine is currently overloaded, please try again later.",
            Some("server_is_overloaded"),
        )
    }

    /// 502 with a web page, as a proxy in front of the provider sends it.
    pub fn bad_gateway_page() -> Self {
        let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
        Answer::whole(502, "text/html", page).into()
    }

    /// 307 to the same path at another origin: following it would carry the credentials there.
    pub fn redirected_to(origin: &str) -> Self {
        let origin = origin.to_owned();
        Self::written(move |received| {
            Answer::whole(307, "text/plain", "").header("location", &format!("{origin}{}", received.path))
        })
    }
}

/// Azure's refusals.
impl Script {
    pub fn azure_wrong_key() -> Self {
        azure::wrong_key().into()
    }

    pub fn azure_no_such_deployment() -> Self {
        let message = "The API deployment for this resource does not exist. If you created the deployment within the \
                       last 5 minutes, please wait a moment and try again.";
        Answer::error(404, &json!({ "code": "DeploymentNotFound", "message": message })).into()
    }

    pub fn azure_rate_limited(retry_after_s: u32) -> Self {
        let message = format!(
            "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded \
             token rate limit of your current OpenAI S0 pricing tier. Please retry after {retry_after_s} seconds."
        );
        Answer::error(429, &json!({ "code": "429", "message": message }))
            .header("retry-after", &retry_after_s.to_string())
            .header("retry-after-ms", &(retry_after_s * 1000).to_string())
            .into()
    }

    /// 400 because the content filter stopped the prompt.
    pub fn azure_filtered_prompt() -> Self {
        let safe = json!({ "filtered": false, "severity": "safe" });
        let verdicts = json!({
            "hate": { "filtered": true, "severity": "high" },
            "jailbreak": { "filtered": false, "detected": false },
            "self_harm": safe, "sexual": safe, "violence": safe,
        });
        let error = json!({
            "message": "The response was filtered due to the prompt triggering Azure's content management policy.",
            "type": null,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": { "code": "ResponsibleAIPolicyViolation", "content_filter_result": verdicts },
        });
        Answer::error(400, &error).into()
    }

    /// 401 from the API gateway before the service, whose error has no `error`.
    pub fn azure_gateway_unauthorized() -> Self {
        let message = "Unauthorized. Access token is missing, invalid, audience is incorrect \
                       (https://cognitiveservices.azure.com), or have expired.";
        Answer::json(401, &json!({ "statusCode": 401, "message": message })).into()
    }

    /// A refusal of the token endpoint, for `script_token`.
    pub fn entra_error(status: u16, error: &str) -> Self {
        Answer::json(
            status,
            &json!({ "error": error, "error_description": "AADSTS: refused by the script." }),
        )
        .into()
    }
}

/// Silence.
impl Script {
    pub fn stalled_before_headers() -> Self {
        Answer::wire([Step::Stall]).into()
    }

    pub fn stalled_after_headers() -> Self {
        Self::stalled_after_events(0)
    }

    pub fn stalled_after_events(count: usize) -> Self {
        Self::faithful().edited(move |answer| answer.stall_after_events(count))
    }

    /// The faithful answer, late.
    pub fn slow_to_begin(delay: Duration) -> Self {
        Self::faithful().edited(move |answer| answer.after(delay))
    }

    /// The faithful answer with a pause between any two events.
    pub fn slow_events(pause: Duration) -> Self {
        Self::faithful().edited(move |answer| answer.paced(pause))
    }

    /// The faithful answer, one byte at a time.
    pub fn dripping(pause: Duration) -> Self {
        Self::faithful().edited(move |answer| answer.drip(pause))
    }
}

/// Broken connections.
impl Script {
    pub fn cut_before_headers() -> Self {
        Answer::wire([Step::Cut]).into()
    }

    pub fn reset_before_headers() -> Self {
        Answer::wire([Step::Reset]).into()
    }

    /// A status line and half a header, and then nothing.
    pub fn cut_inside_headers() -> Self {
        Answer::wire([Step::send("HTTP/1.1 200 OK\r\ncontent-ty"), Step::Cut]).into()
    }

    pub fn cut_after_events(count: usize) -> Self {
        Self::faithful().edited(move |answer| answer.cut_after_events(count))
    }

    pub fn reset_after_events(count: usize) -> Self {
        Self::faithful().edited(move |answer| answer.reset_after_events(count))
    }

    pub fn cut_after_bytes(count: usize) -> Self {
        Self::faithful().edited(move |answer| answer.cut_after_bytes(count))
    }

    pub fn reset_after_bytes(count: usize) -> Self {
        Self::faithful().edited(move |answer| answer.reset_after_bytes(count))
    }

    /// A cut that HTTP cannot see: the answer has neither length nor chunks, so it ends when the connection does.
    pub fn cut_unseen_after_events(count: usize) -> Self {
        Self::faithful().edited(move |answer| answer.cut_after_events(count).on_the_wire())
    }

    /// Announces more than it sends, and hangs up.
    pub fn length_too_long() -> Self {
        Self::faithful().edited(|answer| answer.misstating_length(10))
    }

    /// Announces less than it sends.
    pub fn length_too_short() -> Self {
        Self::faithful().edited(|answer| answer.misstating_length(-10))
    }
}

/// Errors that look like success at first.
impl Script {
    /// 200 with an error in the body.
    pub fn error_in_ok_body() -> Self {
        Answer::json(200, &json!({ "error": server_error() })).into()
    }

    pub fn error_as_first_record() -> Self {
        Answer::stream([Step::event(&json!({ "error": server_error() }))]).into()
    }

    pub fn error_after_events(count: usize) -> Self {
        Self::faithful().edited(move |answer| answer.error_after_events(count, &server_error()))
    }

    /// A stream that ends in good order, but without `[DONE]`.
    pub fn without_done() -> Self {
        Self::faithful().edited(Answer::without_done)
    }

    pub fn without_usage() -> Self {
        Self::faithful().edited(Answer::without_usage)
    }
}

/// Bytes nobody expects.
impl Script {
    /// 200 and `application/json`, and no JSON.
    pub fn junk_body() -> Self {
        Answer::whole(200, "application/json", &b"\x00\x01{\"choices\": [\xff\xfe junk"[..]).into()
    }

    /// 200 and an event stream of records that are no JSON.
    pub fn junk_stream() -> Self {
        Answer::stream([
            Step::send("data: {\"choices\": [\n\n"),
            Step::send("data: junk\n\n"),
            Step::send(DONE),
        ])
        .into()
    }

    /// Not even HTTP.
    pub fn junk_on_the_wire() -> Self {
        Answer::wire([Step::send("SSH-2.0-OpenSSH_9.2\r\n"), Step::Stall]).into()
    }

    /// A `data:` line of `bytes` bytes that never ends; then the stream does.
    pub fn endless_line(bytes: usize) -> Self {
        let mut steps = vec![Step::send("data: ")];
        steps.extend(flood(bytes));
        Answer::stream(steps).into()
    }

    /// The faithful stream with one event among the others whose text is `bytes` long.
    pub fn huge_event(bytes: usize) -> Self {
        Self::faithful().edited(move |answer| {
            let text = "x".repeat(bytes);
            let choice = json!({ "index": 0, "delta": { "content": text }, "logprobs": null, "finish_reason": null });
            let chunk = json!({
                "id": "chatcmpl-mock",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "mock",
                "choices": [choice],
            });
            answer.insert_after_events(1, Step::event(&chunk))
        })
    }

    /// A whole answer of `bytes` bytes of blanks and then nothing that could be an answer.
    pub fn huge_body(bytes: usize) -> Self {
        Answer::chunked(200, "application/json", flood(bytes)).into()
    }

    /// Compressed though nobody asked for it.
    pub fn gzipped() -> Self {
        Self::faithful().edited(Answer::gzipped)
    }

    /// The faithful answer with bytes in its text that are not UTF-8.
    pub fn invalid_utf8() -> Self {
        Self::faithful().edited(|answer| answer.replacing("said:", b"said\xff\xfe\xc3"))
    }

    pub fn crlf() -> Self {
        Self::faithful().edited(Answer::crlf)
    }

    pub fn with_comments() -> Self {
        Self::faithful().edited(Answer::with_comments)
    }

    /// The faithful answer cut into pieces of these lengths, over and over.
    pub fn sliced(lengths: &[usize]) -> Self {
        let lengths = lengths.to_vec();
        Self::faithful().edited(move |answer| answer.sliced(&lengths))
    }

    /// The faithful stream as Azure sends it, on whatever path it was asked for.
    pub fn azure_stream() -> Self {
        Self::faithful().edited(azure::dress)
    }

    /// The same with the asynchronous filter's records, one of them after the finish.
    pub fn azure_async_filter() -> Self {
        Self::faithful().edited(|answer| azure::with_async_verdicts(azure::dress(answer)))
    }
}

fn server_error() -> Value {
    error_body(
        500,
        "The server had an error while processing your request.",
        None,
        None,
    )
}

/// `bytes` bytes of blanks, in pieces.
fn flood(bytes: usize) -> Vec<Step> {
    let piece = bytes::Bytes::from(vec![b' '; FLOOD_PIECE_BYTES]);
    let whole_pieces = std::iter::repeat_n(Step::send(piece.clone()), bytes / FLOOD_PIECE_BYTES);
    whole_pieces
        .chain([Step::send(piece.slice(..bytes % FLOOD_PIECE_BYTES))])
        .collect()
}
