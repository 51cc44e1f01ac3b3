//! Claims about signatures: known vectors, and the same result as AWS's own crate for any request.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use proptest::prelude::*;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "EXAMPLESESSIONTOKEN//////////abc=";
const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"Hi"}]}],"inferenceConfig":{"maxTokens":16}}"#;
const CLAUDE: &str = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse";
const PROFILE: &str = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2F\
                       abcd1234efgh/converse-stream";

fn noon() -> DateTime<Utc> {
    "2026-01-15T12:00:00Z".parse().unwrap()
}

fn keys(session: Option<&str>) -> Arc<AccessKeys> {
    Arc::new(AccessKeys {
        id: "AKIDEXAMPLE".into(),
        secret: SECRET.into(),
        session_token: session.map(|token| HeaderValue::try_from(token).unwrap()),
    })
}

/// The headers of `path` after signing, the body cut into slices.
fn signed(signer: &Signer, path: &str, keys: &Arc<AccessKeys>, now: DateTime<Utc>) -> HeaderMap {
    let uri: Uri = format!("https://bedrock-runtime.us-east-1.amazonaws.com{path}")
        .parse()
        .unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("user-agent", HeaderValue::from_static("bonito"));
    headers.insert("accept", HeaderValue::from_static("application/json"));
    let payload = [
        Bytes::from_static(&BODY.as_bytes()[..7]),
        Bytes::from_static(&BODY.as_bytes()[7..80]),
        Bytes::from_static(&BODY.as_bytes()[80..]),
    ];
    let mut request = Unsigned {
        method: &Method::POST,
        uri: &uri,
        headers: &mut headers,
        payload: &payload,
    };
    signer.sign(&mut request, keys, now).unwrap();
    headers
}

fn authorization(headers: &HeaderMap) -> &str {
    headers[AUTHORIZATION].to_str().unwrap()
}

#[test]
fn the_known_vectors_are_met() {
    let scope = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260115/us-east-1/bedrock/aws4_request, SignedHeaders=";
    for (path, session, names, signature) in [
        (
            CLAUDE,
            None,
            "content-type;host;x-amz-date",
            "24fe0ff7e96c8e3edf4dd45c418768c252ed6509d7727a5bf90274e5de70ac38",
        ),
        (
            CLAUDE,
            Some(SESSION),
            "content-type;host;x-amz-date;x-amz-security-token",
            "65e6742a5f9b93724def51be05d5d87ecb3cd5f8e8af7023cd4f0fc84a2b2831",
        ),
        (
            PROFILE,
            None,
            "content-type;host;x-amz-date",
            "e1acffa75351dd936afc251b6e09a9de70c59e3491d0c708e98a34415eaf6af8",
        ),
    ] {
        let signer = Signer::new("us-east-1", "bedrock");
        let headers = signed(&signer, path, &keys(session), noon());
        assert_eq!(
            authorization(&headers),
            format!("{scope}{names}, Signature={signature}")
        );
        assert_eq!(headers["x-amz-date"], "20260115T120000Z");
        assert_eq!(
            headers.get("x-amz-security-token").map(HeaderValue::as_bytes),
            session.map(str::as_bytes)
        );
        assert!(headers[AUTHORIZATION].is_sensitive());
    }
}

#[test]
fn the_signing_key_is_kept_for_the_day_and_the_keys_it_was_derived_for() {
    let signer = Signer::new("us-east-1", "bedrock");
    let first = keys(None);
    let morning = signed(&signer, CLAUDE, &first, noon());
    let kept = signer.derived.load_full().unwrap();
    assert_eq!(
        hex(&kept.key),
        "61dbb1faa6f55b130699b28cdab1ec8b5ae1f3cf97e5c05fc56c3e887ba13586"
    );
    let evening = signed(&signer, CLAUDE, &first, noon() + chrono::Duration::hours(11));
    assert_ne!(authorization(&morning), authorization(&evening));
    assert!(Arc::ptr_eq(&kept, &signer.derived.load_full().unwrap()));

    // The next day and other keys each have their own, and coming back is as it was.
    let fresh = |keys: &Arc<AccessKeys>, now| {
        let headers = signed(&Signer::new("us-east-1", "bedrock"), CLAUDE, keys, now);
        authorization(&headers).to_owned()
    };
    let other = Arc::new(AccessKeys {
        id: "AKIDOTHER".into(),
        secret: "other".into(),
        session_token: None,
    });
    for (keys, now) in [
        (&first, noon() + chrono::Duration::days(1)),
        (&other, noon()),
        (&first, noon()),
    ] {
        assert_eq!(authorization(&signed(&signer, CLAUDE, keys, now)), fresh(keys, now));
    }
}

#[test]
fn signing_again_replaces_the_signature_and_a_token_that_is_gone() {
    let signer = Signer::new("us-east-1", "bedrock");
    let uri: Uri = "http://127.0.0.1:9000/x".parse().unwrap();
    let mut headers = HeaderMap::new();
    for keys in [keys(Some(SESSION)), keys(None)] {
        let mut request = Unsigned {
            method: &Method::POST,
            uri: &uri,
            headers: &mut headers,
            payload: &[],
        };
        signer.sign(&mut request, &keys, noon()).unwrap();
    }
    assert!(!headers.contains_key("x-amz-security-token"));
    assert_eq!(headers.get_all(AUTHORIZATION).iter().count(), 1);
    assert_eq!(headers["host"], "127.0.0.1:9000");
}

#[test]
fn nothing_shows_a_key() {
    let signer = Signer::new("us-east-1", "bedrock");
    let keys = keys(Some(SESSION));
    let headers = signed(&signer, CLAUDE, &keys, noon());
    let shown = format!("{signer:?} {keys:?} {:?}", headers[AUTHORIZATION]);
    for secret in [SECRET, SESSION, "Signature="] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// What AWS's own crate makes of the same request.
fn reference(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8], session: Option<&str>) -> String {
    let identity = Credentials::new("AKIDEXAMPLE", SECRET, session.map(ToOwned::to_owned), None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("bedrock")
        .time(SystemTime::from(noon()))
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let covered = headers
        .iter()
        .filter(|(name, _)| name.as_str() == "content-type" || name.as_str().starts_with("x-amz-meta"));
    let covered = covered.map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    let uri = uri.to_string();
    let request = SignableRequest::new(method.as_str(), uri, covered, SignableBody::Bytes(body)).unwrap();
    let (instructions, _) = sign(request, &params).unwrap().into_parts();
    let (added, _) = instructions.into_parts();
    let authorization = added.iter().find(|header| header.name() == "authorization").unwrap();
    authorization.value().to_owned()
}

proptest! {
    #[test]
    fn any_request_is_signed_as_aws_s_own_crate_signs_it(
        path in "(/|(/[A-Za-z0-9._~%:@!$&'()*+,;=-]{0,8}){1,5})",
        query in prop::option::of("[a-z]{1,3}=[a-z0-9%-]{0,4}(&[a-z]{1,3}=[a-z0-9-]{0,4}){0,3}"),
        body in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..200,
        meta in prop::option::of("[a-z]([a-z ]{0,10}[a-z])?"),
        with_session in any::<bool>(),
        port in prop::option::of(prop::sample::select(vec![443_u16, 8443])),
    ) {
        // A percent sign that begins no escape is no path.
        let path = path.replace('%', "%41");
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let query = query.map_or_else(String::new, |query| format!("?{}", query.replace('%', "")));
        let uri: Uri = format!("https://host.example{port}{path}{query}").parse().unwrap();
        let session = with_session.then_some(SESSION);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(meta) = &meta {
            headers.insert("x-amz-meta-note", HeaderValue::try_from(meta).unwrap());
        }
        let wanted = reference(&Method::POST, &uri, &headers, &body, session);
        let (left, right) = body.split_at(cut.min(body.len()));
        let payload = [Bytes::copy_from_slice(left), Bytes::copy_from_slice(right)];
        let mut request = Unsigned { method: &Method::POST, uri: &uri, headers: &mut headers, payload: &payload };
        Signer::new("us-east-1", "bedrock").sign(&mut request, &keys(session), noon()).unwrap();
        prop_assert_eq!(authorization(&headers), wanted);
    }
}
