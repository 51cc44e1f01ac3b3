//! Bad input: a 4xx in OpenAI's shape that names the field, and no call to any provider.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{ScriptedProvider, TestGateway};

#[tokio::test]
async fn every_fault_names_its_field_and_reaches_no_provider() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let messages = r#""messages":[{"role":"user","content":"CANARY hi"}]"#;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"not json".to_vec(), ""),
        (b"".to_vec(), ""),
        (b"[]".to_vec(), ""),
        (
            b"{\"model\":\"mock-chat\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}".to_vec(),
            "",
        ),
        (format!(r#"{{"model":"mock-chat",{messages}"#).into(), ""),
        (format!(r#"{{"model":"mock-chat",{messages}}} x"#).into(), ""),
        (format!(r#"{{{messages}}}"#).into(), "model"),
        (r#"{"model":"mock-chat"}"#.into(), "messages"),
        (r#"{"model":"mock-chat","messages":[]}"#.into(), "messages"),
        (r#"{"model":"mock-chat","messages":"CANARY"}"#.into(), "messages"),
        (
            r#"{"model":"mock-chat","messages":[{"role":"user"}]}"#.into(),
            "messages[0].content",
        ),
        (
            r#"{"model":"mock-chat","messages":[{"role":"CANARY","content":"x"}]}"#.into(),
            "messages[0].role",
        ),
        (
            format!(r#"{{"model":"mock-chat","model":"other",{messages}}}"#).into(),
            "model",
        ),
        (
            format!(r#"{{"model":"mock-chat","mod\u0065l":"other",{messages}}}"#).into(),
            "model",
        ),
        (format!(r#"{{"model":7,{messages}}}"#).into(), "model"),
        (format!(r#"{{"model":"a\u0000b",{messages}}}"#).into(), "model"),
        (
            format!(r#"{{"model":"mock-chat","temperature":"CANARY",{messages}}}"#).into(),
            "temperature",
        ),
        (
            format!(r#"{{"model":"mock-chat","temperature":1e999,{messages}}}"#).into(),
            "temperature",
        ),
        (
            format!(r#"{{"model":"mock-chat","max_tokens":-5,{messages}}}"#).into(),
            "max_tokens",
        ),
        (
            format!(r#"{{"model":"mock-chat","max_tokens":99999999999999999999,{messages}}}"#).into(),
            "max_tokens",
        ),
        (format!(r#"{{"model":"mock-chat","n":1000000,{messages}}}"#).into(), "n"),
        (
            format!(r#"{{"model":"mock-chat","unknown":{deep},{messages}}}"#).into(),
            "unknown",
        ),
        (
            format!(r#"{{"model":"mock-chat","messages":[{{"role":"user","content":{deep}}}]}}"#).into(),
            "messages[0].content[0]",
        ),
        (
            format!(r#"{{"model":"mock-chat","base_url":"http://evil","x":1,{messages}}}"#).into(),
            "base_url",
        ),
        (
            format!(r#"{{"model":"mock-chat","api_key":"sk-CANARY",{messages}}}"#).into(),
            "api_key",
        ),
    ];
    for (body, field) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let reply = gateway.send("/v1/chat/completions", &gateway.key, body).await;
        assert_eq!(reply.status, 400, "{shown}: {}", reply.text);
        let error = reply.json()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error", "{shown}");
        assert_eq!(error["param"].as_str().unwrap_or_default(), field, "{shown}: {error}");
        assert!(
            !reply.text.contains("CANARY"),
            "the caller's text is not repeated: {}",
            reply.text
        );
        assert_eq!(
            gateway.row(&reply).await.error_class.as_deref(),
            Some("invalid_request")
        );
    }
    assert_eq!(provider.requests().len(), 0);
    gateway.finish().await;
}

#[tokio::test]
async fn embeddings_and_completions_are_checked_as_well() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-embed", "mock-completion"])
        .start()
        .await;
    let many = vec!["x"; 2_049];
    for (path, body, field) in [
        ("/v1/embeddings", json!({"model": "mock-embed"}), "input"),
        ("/v1/embeddings", json!({"model": "mock-embed", "input": []}), "input"),
        (
            "/v1/embeddings",
            json!({"model": "mock-embed", "input": ["a", 1]}),
            "input[1]",
        ),
        ("/v1/embeddings", json!({"model": "mock-embed", "input": many}), "input"),
        (
            "/v1/embeddings",
            json!({"model": "mock-embed", "input": "a", "encoding_format": "hex"}),
            "encoding_format",
        ),
        (
            "/v1/embeddings",
            json!({"model": "mock-embed", "input": "a", "dimensions": 0}),
            "dimensions",
        ),
        (
            "/v1/completions",
            json!({"model": "mock-completion", "prompt": {}}),
            "prompt",
        ),
        (
            "/v1/completions",
            json!({"model": "mock-completion", "prompt": [[1], []]}),
            "prompt[1]",
        ),
    ] {
        let reply = gateway.post(path, &body).await;
        assert_eq!(
            (reply.status, reply.json()["error"]["param"].as_str()),
            (400, Some(field)),
            "{}",
            reply.text
        );
    }
    assert_eq!(provider.requests().len(), 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_held() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder().openai(&provider, &["mock-chat"]).start().await;
    let body = format!(
        r#"{{"model":"mock-chat","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(20_000_000)
    );
    let reply = gateway.send("/v1/chat/completions", &gateway.key, body.clone()).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "request_too_large"));
    assert_eq!(gateway.row(&reply).await.error_class.as_deref(), Some("too_large"));

    // The same without a length in front.
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> = body.as_bytes().chunks(65_536).map(|c| Ok(c.to_vec())).collect();
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let reply = gateway.send("/v1/chat/completions", &gateway.key, stream).await;
    assert_eq!(reply.status, 413);
    assert_eq!(provider.requests().len(), 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_wrong_content_type_is_refused() {
    let gateway = TestGateway::builder().start().await;
    for (kind, status) in [
        ("text/plain", 415),
        ("multipart/form-data", 415),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.x+json", 200),
    ] {
        let request = gateway
            .client
            .post(format!("{}/v1/chat/completions", gateway.api))
            .bearer_auth(&gateway.key);
        let body = r#"{"model":"echo","messages":[{"role":"user","content":"hi"}]}"#;
        let response = request.header("content-type", kind).body(body).send().await.unwrap();
        assert_eq!(response.status(), status, "{kind}");
    }
    gateway.finish().await;
}

/// Sends bytes and reads what comes back until the connection ends.
async fn raw(gateway: &TestGateway, bytes: &[u8], pause: Option<Duration>) -> (String, Duration) {
    let begun = Instant::now();
    let mut socket = TcpStream::connect(gateway.api.trim_start_matches("http://"))
        .await
        .unwrap();
    let (mut reading, mut writing) = socket.split();
    let write = async {
        for byte in bytes.chunks(if pause.is_some() { 1 } else { bytes.len().max(1) }) {
            if writing.write_all(byte).await.is_err() {
                return;
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let read = async { reading.read_to_end(&mut answer).await };
    tokio::select! {
        () = write => {}
        _ = read => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("the gateway never hung up"),
    }
    (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

#[tokio::test]
async fn headers_and_bodies_sent_one_byte_at_a_time_are_given_up_on() {
    let provider = ScriptedProvider::start().await;
    let gateway = TestGateway::builder()
        .openai(&provider, &["mock-chat"])
        .set("server.header_read_timeout_ms", 1_500)
        .set("server.body_read_timeout_ms", 1_000)
        .start()
        .await;
    let drip = Some(Duration::from_millis(50));
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Long: {}",
        "a".repeat(400)
    );
    let (answer, took) = raw(&gateway, head.as_bytes(), drip).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(early(&answer)["code"], "request_timeout");
    assert!(took < Duration::from_secs(8), "{took:?}");

    let mut socket = TcpStream::connect(gateway.api.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 500\r\nConnection: close\r\n\r\n{{\"model\"",
        gateway.key
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), socket.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"),
        "{answer}"
    );

    // A body that never stands still and never ends.
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 500\r\nConnection: close\r\n\r\n",
        gateway.key
    );
    let dripping = format!("{head}{{\"model\":\"mock-chat\",\"user\":\"{}", "a".repeat(400));
    let (answer, took) = dripped(&gateway, &dripping, head.len()).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"),
        "{answer}"
    );
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(provider.requests().len(), 0);
    gateway.finish().await;
}

/// Sends the first bytes at once and the others one by one, and says what was answered when.
async fn dripped(gateway: &TestGateway, text: &str, at_once: usize) -> (String, Duration) {
    let begun = Instant::now();
    let mut socket = TcpStream::connect(gateway.api.trim_start_matches("http://"))
        .await
        .unwrap();
    let (mut reading, mut writing) = socket.split();
    let write = async {
        writing.write_all(&text.as_bytes()[..at_once]).await.unwrap();
        for byte in &text.as_bytes()[at_once..] {
            if writing.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the gateway read it to its end");
    };
    let mut answer = vec![0; 4_096];
    let read = async { reading.read(&mut answer).await.expect("there is an answer") };
    let len = tokio::select! {
        () = write => 0,
        len = read => len,
    };
    answer.truncate(len);
    (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

/// The error of an answer to a head that never became a request; it has an id like every other.
fn early(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").expect("the answer has a head");
    assert!(head.contains("\r\nx-request-id: req_"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/json"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {body:?}"));
    assert_eq!(body["error"]["type"], "invalid_request_error");
    body["error"].clone()
}

#[tokio::test]
async fn heads_that_cannot_be_read_are_refused_in_openais_shape() {
    let gateway = TestGateway::builder().start().await;
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n", "x".repeat(900_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(66_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
    for (head, status, code) in [
        (large.as_str(), "431", "headers_too_large"),
        (long.as_str(), "414", "uri_too_long"),
        (many.as_str(), "431", "headers_too_large"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "400", "invalid_request_error"),
        ("GET / HTTP/1.1\r\nHo st: a\r\n\r\n", "400", "invalid_request_error"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            "400",
            "invalid_request_error",
        ),
    ] {
        let (answer, _) = raw(&gateway, head.as_bytes(), None).await;
        let shown = &answer[..answer.len().min(300)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}");
        assert_eq!(early(&answer)["code"], code, "{shown}");
    }
    gateway.finish().await;
}

/// Sends a whole request before it reads a byte of the answer, as many clients do.
async fn sent_first(gateway: &TestGateway, head: &str, body_bytes: usize) -> String {
    let mut socket = TcpStream::connect(gateway.api.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {body_bytes}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b' '; 64 * 1024];
    for _ in 0..body_bytes / piece.len() {
        socket
            .write_all(&piece)
            .await
            .expect("the gateway takes the whole body");
    }
    let mut answer = String::new();
    socket
        .read_to_string(&mut answer)
        .await
        .expect("the connection ends in order");
    answer
}

#[tokio::test]
async fn a_large_body_that_nobody_reads_does_not_cost_the_caller_its_answer() {
    let gateway = TestGateway::builder().set("journal.max_records", 1).start().await;
    let authorized = format!("Authorization: Bearer {}", gateway.key);
    let large = 24 * 1024 * 1024;
    for (head, status) in [
        ("POST /v1/chat/completions HTTP/1.1".to_owned(), "401"),
        ("POST /v1/no-such-path HTTP/1.1".to_owned(), "404"),
        (format!("PUT /v1/chat/completions HTTP/1.1\r\n{authorized}"), "405"),
        (
            format!("POST /v1/chat/completions HTTP/1.1\r\n{authorized}\r\nContent-Type: text/plain"),
            "415",
        ),
        (
            format!("POST /v1/chat/completions HTTP/1.1\r\n{authorized}\r\nContent-Type: application/json"),
            "413",
        ),
    ] {
        let answer = sent_first(&gateway, &head, large).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        // The one place in the journal is free again once the record is in the database.
        let written = async {
            while gateway.journal_places() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), written)
            .await
            .expect("the record is written");
    }
    // Somebody else's upload holds the only place in the journal.
    let mut holder = TcpStream::connect(gateway.api.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\n{authorized}");
    let slow = format!("{head}\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{");
    holder.write_all(slow.as_bytes()).await.unwrap();
    let full = async {
        loop {
            let answer = sent_first(&gateway, &head, large).await;
            if answer.starts_with("HTTP/1.1 503 ") {
                return;
            }
            assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        }
    };
    tokio::time::timeout(Duration::from_secs(10), full)
        .await
        .expect("the journal is full");
    drop(holder);
    gateway.finish().await;
}

#[tokio::test]
async fn a_caller_who_waits_to_be_asked_for_its_body_is_not_asked_in_vain() {
    let gateway = TestGateway::builder().start().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n";
    let (answer, took) = raw(&gateway, head.as_bytes(), None).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn heads_that_two_servers_could_read_differently_are_refused() {
    let gateway = TestGateway::builder().start().await;
    let tail = "Connection: close\r\n\r\n";
    for (head, status) in [
        (format!("GET /v1/models HTTP/1.1\r\n{tail}"), "400"),
        (
            format!("GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n{tail}"),
            "400",
        ),
        (format!("GET /v1/models HTTP/1.1\r\nHost: a/b\r\n{tail}"), "400"),
        (
            format!(
                "GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n{tail}",
                "x".repeat(300_000)
            ),
            "431",
        ),
        (format!("GET /v1/models HTTP/1.1\r\nHost: a\r\n{tail}"), "401"),
    ] {
        let (answer, _) = raw(&gateway, head.as_bytes(), None).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {}",
            &answer[..answer.len().min(200)]
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_answer_in_openais_shape() {
    let gateway = TestGateway::builder().start().await;
    for path in ["/v1/responses", "/v1", "/v1/", "/v1/chat", "/v2/x", "/v1/models/"] {
        let reply = gateway.get(path, &gateway.key).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text);
        assert!(reply.json()["error"]["message"].is_string(), "{path}");
    }
    let reply = gateway.get("/v1/chat/completions", &gateway.key).await;
    assert_eq!((reply.status, reply.code().as_str()), (405, "method_not_allowed"));
    gateway.finish().await;
}
