//! Google's credential files: what a JSON document says about how tokens are had.
//!
//! The file's `type` decides. The document is read here, when the settings are, so that a truncated key is a fault at
//! the start and not of the first request.
//!
//! # Sources
//! "Application Default Credentials", <https://docs.cloud.google.com/docs/authentication/application-default-credentials>;
//! AIP-4110 to AIP-4117, <https://google.aip.dev/auth/4110>.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Uri};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use crate::config::checks;

/// What proves an identity of AWS's.
const AWS_TOKEN_TYPE: &str = "urn:ietf:params:aws:token-type:aws4_request";
/// Where AWS's metadata service is. Nothing else is believed to be it, but what listens on this machine.
const AWS_METADATA_HOSTS: [&str; 2] = ["169.254.169.254", "[fd00:ec2::254]"];
/// The questions that may be signed: who we are, at a region's own service.
const AWS_QUESTIONS: [&str; 2] = [
    "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
    "https://sts.{region}.amazonaws.com.cn?Action=GetCallerIdentity&Version=2011-06-15",
];
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// What impersonated tokens last, unless the document says otherwise.
const IMPERSONATED_SECONDS: u64 = 3600;

/// How requests to Vertex AI are authorized.
#[derive(Debug, Clone)]
pub enum GcpAuth {
    /// A service account's own key.
    ServiceAccount(ServiceAccountKey),
    /// A person's consent.
    AuthorizedUser(AuthorizedUser),
    /// A token of another identity provider.
    External(Box<ExternalAccount>),
    /// Another credential that may act as a service account.
    Impersonated {
        /// The credential.
        source: Box<GcpAuth>,
        /// The account it acts as.
        target: Impersonation,
    },
    /// The metadata service of a machine or pod in Google Cloud.
    Metadata {
        /// Its address.
        url: Uri,
    },
}

/// A service account's key.
#[derive(Debug, Clone)]
pub struct ServiceAccountKey {
    /// The account.
    pub client_email: String,
    /// The key's id, where the document names it.
    pub private_key_id: Option<String>,
    /// PEM.
    pub private_key: SecretString,
    /// Where its assertions are exchanged for tokens.
    pub token_url: Uri,
}

/// What remains of a person's consent.
#[derive(Debug, Clone)]
pub struct AuthorizedUser {
    /// The application that asked for it.
    pub client_id: String,
    /// The application's secret.
    pub client_secret: SecretString,
    /// The consent.
    pub refresh_token: SecretString,
    /// Where it is exchanged for tokens.
    pub token_url: Uri,
    /// The project that is charged for quota.
    pub quota_project_id: Option<String>,
}

/// Workload identity federation.
#[derive(Debug, Clone)]
pub struct ExternalAccount {
    /// The identity pool's provider.
    pub audience: String,
    /// What kind of token is exchanged.
    pub subject_token_type: String,
    /// Where it comes from.
    pub subject: SubjectSource,
    /// How it lies there.
    pub format: SubjectFormat,
    /// Where it is exchanged.
    pub token_url: Uri,
    /// The account the result acts as.
    pub impersonation: Option<Impersonation>,
}

/// Where a subject token comes from.
#[derive(Debug, Clone)]
pub enum SubjectSource {
    /// A file, read for each exchange.
    File(PathBuf),
    /// An address.
    Url {
        /// The address.
        url: String,
        /// What the question carries.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// The machine of AWS's that this is: a question to AWS who it is, signed with its keys.
    Aws(AwsIdentity),
}

/// How a machine of AWS's proves which one it is.
#[derive(Debug, Clone)]
pub struct AwsIdentity {
    /// The origin of its metadata service, which knows its region and has its keys.
    pub metadata_url: Uri,
    /// The question that is signed, with `{region}` in it. It is not asked from here.
    pub verification_url: String,
}

/// How a subject token lies in its source.
#[derive(Debug, Clone)]
pub enum SubjectFormat {
    /// It is all there is.
    Text,
    /// It is this field of a JSON object.
    Json {
        /// The field.
        field: String,
    },
}

/// A service account that is acted as.
#[derive(Debug, Clone)]
pub struct Impersonation {
    /// `…:generateAccessToken`
    pub url: Uri,
    /// How long its tokens last, in seconds.
    pub lifetime_s: u64,
    /// The accounts in between.
    pub delegates: Vec<String>,
}

/// Who wrote a credential document, and so what it may make this process do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenBy {
    /// Who runs the gateway: every type, any address.
    Operator,
    /// Somebody who uses it. A document can name addresses to be called and files to be read, so only Google's own
    /// addresses are followed, and no file is read.
    Tenant,
}

/// What a credential document says, and the project it names.
#[derive(Debug, Clone)]
pub struct GoogleCredentials {
    /// How tokens are had.
    pub auth: GcpAuth,
    /// The project the document belongs to.
    pub project_id: Option<String>,
}

impl GcpAuth {
    /// The project that is charged for quota, for the header `x-goog-user-project`.
    pub fn quota_project(&self) -> Option<&str> {
        match self {
            Self::AuthorizedUser(user) => user.quota_project_id.as_deref(),
            Self::Impersonated { source, .. } => source.quota_project(),
            Self::ServiceAccount(_) | Self::External(_) | Self::Metadata { .. } => None,
        }
    }
}

impl GoogleCredentials {
    /// Reads a credential document.
    ///
    /// # Errors
    /// What is wrong with it, in words that repeat nothing of it but names of fields.
    pub fn from_json(text: &str, by: WrittenBy) -> Result<Self, String> {
        let document: Document = serde_json::from_str(text).map_err(|error| {
            // The parser's own words can quote the document.
            match error.classify() {
                serde_json::error::Category::Data => "a field of the credentials has the wrong type".to_owned(),
                _ => format!("is not JSON (line {}, column {})", error.line(), error.column()),
            }
        })?;
        let project_id = document.project_id.clone();
        let auth = read(document, by, 0)?;
        Ok(Self { auth, project_id })
    }
}

/// Fields of all types of documents.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "type")]
    kind: Option<String>,
    project_id: Option<String>,
    client_email: Option<String>,
    private_key_id: Option<String>,
    private_key: Option<SecretString>,
    token_uri: Option<String>,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    refresh_token: Option<SecretString>,
    quota_project_id: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    credential_source: Option<Value>,
    service_account_impersonation_url: Option<String>,
    service_account_impersonation: Option<ImpersonationOptions>,
    source_credentials: Option<Box<Document>>,
    #[serde(default)]
    delegates: Vec<String>,
}

#[derive(Deserialize)]
struct ImpersonationOptions {
    token_lifetime_seconds: Option<u64>,
}

fn read(document: Document, by: WrittenBy, depth: usize) -> Result<GcpAuth, String> {
    let kind = given(document.kind.as_ref(), "type")?.clone();
    match kind.as_str() {
        "service_account" => Ok(GcpAuth::ServiceAccount(ServiceAccountKey {
            client_email: given(document.client_email, "client_email")?,
            private_key_id: document.private_key_id,
            private_key: given(document.private_key, "private_key")?,
            token_url: address(document.token_uri.as_deref().unwrap_or(TOKEN_URL), "token_uri", by)?,
        })),
        "authorized_user" => Ok(GcpAuth::AuthorizedUser(AuthorizedUser {
            client_id: given(document.client_id, "client_id")?,
            client_secret: given(document.client_secret, "client_secret")?,
            refresh_token: given(document.refresh_token, "refresh_token")?,
            token_url: address(document.token_uri.as_deref().unwrap_or(TOKEN_URL), "token_uri", by)?,
            quota_project_id: document.quota_project_id,
        })),
        "external_account" if by == WrittenBy::Operator => external(document),
        "impersonated_service_account" if depth == 0 => {
            let target = impersonation(&document, by)?;
            let source = given(document.source_credentials, "source_credentials")?;
            Ok(GcpAuth::Impersonated {
                source: Box::new(read(*source, by, depth + 1)?),
                target: given(target, "service_account_impersonation_url")?,
            })
        }
        "external_account" | "impersonated_service_account" => {
            Err("this \"type\" of credentials is not accepted here".to_owned())
        }
        _ => Err(
            "the \"type\" of the credentials must be service_account, authorized_user, external_account or \
             impersonated_service_account"
                .to_owned(),
        ),
    }
}

fn external(document: Document) -> Result<GcpAuth, String> {
    let impersonation = impersonation(&document, WrittenBy::Operator)?;
    let (subject, format) = subject(&given(document.credential_source, "credential_source")?)?;
    let token_type = given(document.subject_token_type, "subject_token_type")?;
    if matches!(subject, SubjectSource::Aws(_)) && token_type != AWS_TOKEN_TYPE {
        return Err(format!("its \"subject_token_type\" must be {AWS_TOKEN_TYPE} with AWS"));
    }
    let token_url = given(document.token_url, "token_url")?;
    Ok(GcpAuth::External(Box::new(ExternalAccount {
        audience: given(document.audience, "audience")?,
        subject_token_type: token_type,
        subject,
        format,
        token_url: address(&token_url, "token_url", WrittenBy::Operator)?,
        impersonation,
    })))
}

fn impersonation(document: &Document, by: WrittenBy) -> Result<Option<Impersonation>, String> {
    let Some(url) = &document.service_account_impersonation_url else {
        return Ok(None);
    };
    let options = document.service_account_impersonation.as_ref();
    let lifetime_s = options
        .and_then(|options| options.token_lifetime_seconds)
        .unwrap_or(IMPERSONATED_SECONDS);
    if !(600..=43_200).contains(&lifetime_s) {
        return Err("its \"token_lifetime_seconds\" must be 600 to 43200".to_owned());
    }
    Ok(Some(Impersonation {
        url: address(url, "service_account_impersonation_url", by)?,
        lifetime_s,
        delegates: document.delegates.clone(),
    }))
}

fn subject(source: &Value) -> Result<(SubjectSource, SubjectFormat), String> {
    let text = |field: &str| source.get(field).and_then(Value::as_str);
    if source.get("executable").is_some() {
        return Err(
            "its \"credential_source\" is an executable, and the gateway starts no programs: whoever could write this \
             document would have them run with its rights; let the program write its token into a \"file\""
                .to_owned(),
        );
    }
    if source.get("certificate").is_some() {
        return Err(
            "its \"credential_source\" is a certificate, which is not supported; use \"file\", \"url\" or AWS"
                .to_owned(),
        );
    }
    if let Some(environment) = text("environment_id") {
        if environment != "aws1" {
            return Err("its \"environment_id\" must be aws1".to_owned());
        }
        return Ok((SubjectSource::Aws(aws(source)?), SubjectFormat::Text));
    }
    let format = source.get("format");
    let format_text = |field: &str| format.and_then(|format| format.get(field)).and_then(Value::as_str);
    let format = match format_text("type").unwrap_or("text") {
        "text" => SubjectFormat::Text,
        "json" => SubjectFormat::Json {
            field: given(format_text("subject_token_field_name"), "subject_token_field_name")?.to_owned(),
        },
        _ => return Err("its \"format\" must be text or json".to_owned()),
    };
    let subject = match (text("file"), text("url")) {
        (Some(file), None) => SubjectSource::File(PathBuf::from(file)),
        (None, Some(url)) => {
            let has_host = url
                .parse()
                .is_ok_and(|url: Uri| url.host().is_some() && url.scheme().is_some());
            if !has_host {
                return Err("its \"credential_source\" has a \"url\" that is none".to_owned());
            }
            let mut headers = Vec::new();
            for (name, value) in source.get("headers").and_then(Value::as_object).into_iter().flatten() {
                let name = HeaderName::try_from(name.as_str()).ok();
                let value = value.as_str().and_then(|value| HeaderValue::try_from(value).ok());
                let (Some(name), Some(mut value)) = (name, value) else {
                    return Err("its \"credential_source\" has \"headers\" that cannot be sent".to_owned());
                };
                value.set_sensitive(true);
                headers.push((name, value));
            }
            SubjectSource::Url {
                url: url.to_owned(),
                headers,
            }
        }
        _ => return Err("its \"credential_source\" needs either \"file\" or \"url\"".to_owned()),
    };
    Ok((subject, format))
}

/// A source that is AWS. Its addresses are only compared with what they must be: what is asked there is known.
fn aws(source: &Value) -> Result<AwsIdentity, String> {
    let text = |field: &str| source.get(field).and_then(Value::as_str);
    let metadata = aws_metadata(given(text("url"), "url")?, "url")?;
    for field in ["region_url", "imdsv2_session_token_url"] {
        let Some(url) = text(field) else { continue };
        if aws_metadata(url, field)? != metadata {
            return Err(format!(
                "its \"{field}\" and its \"url\" must be of the same metadata service"
            ));
        }
    }
    let question = given(text("regional_cred_verification_url"), "regional_cred_verification_url")?;
    if !AWS_QUESTIONS.contains(&question) {
        return Err(format!(
            "its \"regional_cred_verification_url\" must be {}",
            AWS_QUESTIONS[0]
        ));
    }
    Ok(AwsIdentity {
        metadata_url: metadata,
        verification_url: question.to_owned(),
    })
}

/// The origin of AWS's metadata service.
fn aws_metadata(text: &str, field: &str) -> Result<Uri, String> {
    let url = checks::base_url(text).map_err(|problem| format!("its \"{field}\" {problem}"))?;
    let host = url.host().unwrap_or_default();
    let known = AWS_METADATA_HOSTS.contains(&host) && url.scheme_str() == Some("http") && url.port().is_none();
    if !known && !checks::is_here(&url) {
        return Err(format!(
            "its \"{field}\" must be of AWS's metadata service: http://{}",
            AWS_METADATA_HOSTS[0]
        ));
    }
    let authority = url.authority().expect("a checked URL has a host");
    let origin = format!("{}://{authority}", url.scheme_str().unwrap_or("http"));
    origin.parse().map_err(|_| format!("its \"{field}\" is not a URL"))
}

fn given<T>(value: Option<T>, field: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("its \"{field}\" is missing"))
}

/// A URL that is called with what is secret in the document.
fn address(text: &str, field: &str, by: WrittenBy) -> Result<Uri, String> {
    let url = checks::base_url(text).map_err(|problem| format!("its \"{field}\" {problem}"))?;
    if checks::is_plain_http_elsewhere(&url) {
        return Err(format!("its \"{field}\" must begin with https://"));
    }
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let googles = host.ends_with(".googleapis.com") && url.scheme_str() == Some("https") && url.port().is_none();
    if by == WrittenBy::Tenant && !googles {
        return Err(format!("its \"{field}\" must be an address of Google's"));
    }
    Ok(url)
}
