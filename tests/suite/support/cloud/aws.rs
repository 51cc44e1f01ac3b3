//! AWS's token service, its container endpoint and the metadata service of its machines.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::json;

use super::{Arrived, CANARY, LIFETIME_S, Reply, Stage};

/// What a container shows.
pub const CONTAINER_TOKEN: &str = "hunter2-container";
/// What a cluster's token file holds.
pub const WEB_TOKEN: &str = "hunter2-web-identity";
/// The keys that are written down.
pub const WRITTEN_ID: &str = "AKIDWRITTEN";
const MACHINE_TOKEN: &str = "hunter2-imds";
const REGION: &str = "/latest/meta-data/placement/region";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

pub(super) fn answer(stage: &Stage, asked: &Arrived) -> Option<Reply> {
    let path = asked.uri.path();
    match path {
        "/sts/" | "/sts" => Some(sts(stage, asked)),
        "/container" if asked.header("authorization") == CONTAINER_TOKEN => Some(keys(stage)),
        "/container" => Some(Reply::json(401, &json!({"code": "NotAuthorized", "message": CANARY}))),
        "/latest/api/token" if asked.method == "PUT" => {
            let ttl = asked.header("x-aws-ec2-metadata-token-ttl-seconds");
            Some(if ttl == "21600" {
                Reply::text(200, MACHINE_TOKEN)
            } else {
                Reply::text(400, "")
            })
        }
        _ if (path.starts_with(ROLES) || path == REGION)
            && asked.header("x-aws-ec2-metadata-token") != MACHINE_TOKEN =>
        {
            Some(Reply::text(401, ""))
        }
        REGION => Some(Reply::text(200, "us-east-1")),
        ROLES => Some(Reply::text(200, "gateway-role\n")),
        "/latest/meta-data/iam/security-credentials/gateway-role" => Some(keys(stage)),
        _ => None,
    }
}

/// The secret of an access key that was issued here, or of the one that is written down.
pub fn secret_of(id: &str) -> String {
    format!("{CANARY}/secret+of/{id}")
}

/// The session token that belongs to an access key.
pub fn session_of(id: &str) -> String {
    format!("{CANARY}//session-of/{id}==")
}

fn expiration() -> String {
    let end = Utc::now() + chrono::Duration::seconds(LIFETIME_S);
    end.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn keys(stage: &Stage) -> Reply {
    let id = format!("ASIA{}", stage.next());
    Reply::json(
        200,
        &json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": id, "SecretAccessKey": secret_of(&id),
                "Token": session_of(&id), "Expiration": expiration()}),
    )
}

fn sts(stage: &Stage, asked: &Arrived) -> Reply {
    let field = |name| asked.field(name).unwrap_or_default();
    let action = field("Action");
    let refused = |status, code: &str| {
        let body = format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{CANARY}</Message></Error>\
             <RequestId>1</RequestId></ErrorResponse>"
        );
        Reply::text(status, body)
    };
    let allowed = match action.as_str() {
        "AssumeRole" => is_signed(asked, "us-east-1", "sts") && field("ExternalId") == "customer-7",
        "AssumeRoleWithWebIdentity" => {
            asked.header("authorization").is_empty() && field("WebIdentityToken") == WEB_TOKEN
        }
        _ => return refused(400, "InvalidAction"),
    };
    if !allowed || field("Version") != "2011-06-15" || !field("RoleArn").contains(":role/") {
        return refused(403, "AccessDenied");
    }
    let id = format!("ASIA{}", stage.next());
    let (secret, session) = (secret_of(&id), session_of(&id));
    let body = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\n  <Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{session}</SessionToken><Expiration>{}</Expiration></Credentials>\n</{action}Result>\
         </{action}Response>",
        expiration()
    );
    Reply::text(200, body)
}

/// Whether the signature is what AWS's own crate makes of the request, with the secret that belongs to its key's id.
pub fn is_signed(asked: &Arrived, region: &str, service: &str) -> bool {
    let stamp = asked.header("x-amz-date");
    let Ok(at) = NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ") else {
        return false;
    };
    let at: DateTime<Utc> = at.and_utc();
    if (Utc::now() - at).num_minutes().abs() >= 5 {
        return false;
    }
    let id = access_key_of(asked);
    let session = asked.headers.get("x-amz-security-token");
    let session = session.map(|token| token.to_str().unwrap().to_owned());
    let right_session = session.as_ref().is_none_or(|session| *session == session_of(&id));
    let identity = Credentials::new(&id, secret_of(&id), session, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(SystemTime::from(at))
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let uri = format!("http://{}{}", asked.header("host"), asked.uri);
    let headers = ["content-type", "x-goog-cloud-target-resource"].map(|name| (name, asked.header(name)));
    let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
    let body = SignableBody::Bytes(&asked.body);
    let request = SignableRequest::new(asked.method.as_str(), uri, headers, body).unwrap();
    let (instructions, _) = sign(request, &params).unwrap().into_parts();
    let (added, _) = instructions.into_parts();
    let wanted = added.iter().find(|header| header.name() == "authorization").unwrap();
    right_session && asked.header("authorization") == wanted.value()
}

/// The id of the access key a request was signed with.
pub fn access_key_of(asked: &Arrived) -> String {
    let credential = asked.header("authorization").split_once("Credential=");
    let id = credential.and_then(|(_, rest)| rest.split('/').next());
    id.unwrap_or_default().to_owned()
}
