//! Answers to heads that never became a request: too slow, too large, or no HTTP.
//!
//! hyper answers such heads by itself, with a status and nothing else, or hangs up. Callers get the same shape from us as
//! for every other error, with an id to ask about.

use http::StatusCode;
use uuid::Uuid;

use super::boundary::X_REQUEST_ID;
use super::error;
use crate::domain::ids::RequestId;

/// The whole answer to a head that did not arrive in time.
pub fn too_slow() -> Vec<u8> {
    let message = "the request's headers did not arrive in time; send them faster";
    answer(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
}

/// What to send in place of an answer that hyper gave by itself; `None` for the answers of our endpoints, which have an id
/// and are never empty.
pub fn instead_of(written: &[u8]) -> Option<Vec<u8>> {
    let rest = written.strip_prefix(b"HTTP/1.1 4")?;
    let head = std::str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    if head.contains(X_REQUEST_ID.as_str()) || !head.contains("content-length: 0") {
        return None;
    }
    match rest.get(..2)? {
        b"00" => {
            let message = "this is not a request of HTTP/1.1: its first line or a header is malformed";
            Some(answer(StatusCode::BAD_REQUEST, "invalid_request_error", message))
        }
        b"14" => {
            let message = "the request's address is too long";
            Some(answer(StatusCode::URI_TOO_LONG, "uri_too_long", message))
        }
        b"31" => {
            let message = "the request's headers are too large; send fewer or shorter ones";
            Some(answer(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                message,
            ))
        }
        _ => None,
    }
}

fn answer(status: StatusCode, code: &str, message: &str) -> Vec<u8> {
    let body = error::refused_head(code, message);
    let id = RequestId(Uuid::now_v7()).header();
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{X_REQUEST_ID}: {id}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_answers_are_replaced() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let ours = String::from_utf8(instead_of(own).unwrap()).unwrap();
        assert!(
            ours.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"),
            "{ours}"
        );
        assert!(instead_of(ours.as_bytes()).is_none(), "ours is not replaced again");
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nx-request-id: req_1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "data: HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            "",
        ] {
            assert!(instead_of(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn an_answer_has_the_length_it_says() {
        let text = String::from_utf8(too_slow()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
}
