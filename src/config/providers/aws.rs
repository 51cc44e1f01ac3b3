//! `[providers.aws]` (Amazon Bedrock) and the variables of AWS's own SDKs.
//!
//! Where the table says nothing about credentials, the usual variables are followed in the order of the SDKs: Bedrock's
//! bearer key, access keys, web identity, a container's endpoint. The metadata service of a machine is asked only where
//! the table says `credentials = "instance"`, because nothing tells apart a machine that merely has a role from one
//! whose role is meant for this. Shared files (`~/.aws/…`) and single sign-on are not read.
//!
//! # Source
//! "Standardized credential providers",
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.

use std::net::IpAddr;
use std::path::PathBuf;

use http::Uri;
use secrecy::SecretString;

use super::ProviderKind;
use super::form::{Form, Secret, SecretKeys};
use super::hosts::{AwsHosts, is_region};
use crate::config::checks;
use crate::config::faults::Fault;

/// Set, it configures this provider by itself.
pub(super) const BEARER_VARIABLE: &str = "AWS_BEARER_TOKEN_BEDROCK";
pub(super) const ACCESS_KEY_VARIABLE: &str = "AWS_ACCESS_KEY_ID";
pub(super) const SECRET_KEY_VARIABLE: &str = "AWS_SECRET_ACCESS_KEY";
/// The region; the first that is set.
pub(super) const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

const SESSION_TOKEN_VARIABLE: &str = "AWS_SESSION_TOKEN";
const ROLE_VARIABLE: &str = "AWS_ROLE_ARN";
const SESSION_NAME_VARIABLE: &str = "AWS_ROLE_SESSION_NAME";
const TOKEN_FILE_VARIABLE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
const CONTAINER_FULL_VARIABLE: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const CONTAINER_RELATIVE_VARIABLE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const CONTAINER_TOKEN_VARIABLE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const CONTAINER_TOKEN_FILE_VARIABLE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

pub(super) const KEYS: [&str; 21] = [
    "base_url",
    "region",
    "fips",
    "dual_stack",
    "credentials",
    "bearer_token_env",
    "bearer_token_file",
    "access_key_id",
    "secret_access_key_env",
    "secret_access_key_file",
    "session_token_env",
    "session_token_file",
    "role_arn",
    "external_id",
    "role_session_name",
    "web_identity_token_file",
    "container_url",
    "container_token_env",
    "container_token_file",
    "metadata_url",
    "sts_url",
];

const BEARER: SecretKeys = SecretKeys {
    inline: "bearer_token",
    variable: "bearer_token_env",
    file: "bearer_token_file",
};
const SECRET_KEY: SecretKeys = SecretKeys {
    inline: "secret_access_key",
    variable: "secret_access_key_env",
    file: "secret_access_key_file",
};
const SESSION_TOKEN: SecretKeys = SecretKeys {
    inline: "session_token",
    variable: "session_token_env",
    file: "session_token_file",
};
const CONTAINER_TOKEN: SecretKeys = SecretKeys {
    inline: "container_token",
    variable: "container_token_env",
    file: "container_token_file",
};

/// Where containers of ECS find their credentials, below a path of their own.
const CONTAINER_HOST: &str = "http://169.254.170.2";
/// Hosts a container's credentials may be asked of over plain http: ECS, and EKS's pod identity.
const CONTAINER_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];
const METADATA_URL: &str = "http://169.254.169.254";
const SESSION_NAME: &str = "bonito-gateway";

/// How requests to Bedrock are authorized.
#[derive(Debug, Clone)]
pub enum AwsAuth {
    /// Bedrock's own API key, sent as a bearer token.
    Bearer(SecretString),
    /// Access keys, with which each request is signed.
    Signed {
        /// Where the keys come from.
        source: AwsSource,
        /// The role that is assumed with them.
        role: Option<AwsRole>,
    },
}

/// Where access keys come from.
#[derive(Debug, Clone)]
pub enum AwsSource {
    /// They are written down.
    Keys(AwsKeys),
    /// A token of another identity provider is exchanged for them, as in Kubernetes.
    WebIdentity {
        /// The role it is exchanged for.
        role_arn: String,
        /// Holds the token; read again for each exchange, because it is renewed.
        token_file: PathBuf,
        /// Shown in the account's audit log.
        session_name: String,
    },
    /// The endpoint of a container of ECS or EKS.
    Container {
        /// What is asked.
        url: Uri,
        /// What the question carries.
        authorization: Option<ContainerToken>,
    },
    /// The metadata service of an EC2 machine, version 2.
    Instance {
        /// Its address.
        url: Uri,
    },
}

/// An access key and what belongs to it.
#[derive(Debug, Clone)]
pub struct AwsKeys {
    /// The key's id, which is no secret.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: SecretString,
    /// With temporary keys, what makes them valid.
    pub session_token: Option<SecretString>,
}

/// A role that is assumed.
#[derive(Debug, Clone)]
pub struct AwsRole {
    /// `arn:aws:iam::…:role/…`
    pub role_arn: String,
    /// What its trust policy asks for.
    pub external_id: Option<String>,
    /// Shown in the account's audit log.
    pub session_name: String,
}

/// What a container shows to be given its credentials.
#[derive(Debug, Clone)]
pub enum ContainerToken {
    /// This.
    Value(SecretString),
    /// What the file holds at the time.
    File(PathBuf),
}

pub(super) fn read(form: &mut Form<'_>) -> Option<ProviderKind> {
    let region = region(form);
    let hosts = AwsHosts {
        fips: wish(form, "fips", "AWS_USE_FIPS_ENDPOINT"),
        dual_stack: wish(form, "dual_stack", "AWS_USE_DUALSTACK_ENDPOINT"),
    };
    let stated = form.url("base_url", &["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"]);
    let stated_sts = form.url("sts_url", &["AWS_ENDPOINT_URL_STS"]);
    let auth = auth(form);
    let region = region?;
    let base_url = stated.ok()?.or_else(|| hosts.bedrock_runtime(&region))?;
    let sts_url = stated_sts.ok()?.or_else(|| hosts.sts(&region))?;
    form.warn_if_in_the_clear(&base_url);
    if matches!(
        auth,
        Some(
            AwsAuth::Signed { role: Some(_), .. }
                | AwsAuth::Signed {
                    source: AwsSource::WebIdentity { .. },
                    ..
                }
        )
    ) {
        form.warn_if_in_the_clear(&sts_url);
    }
    Some(ProviderKind::Aws {
        base_url,
        region,
        auth: auth?,
        sts_url,
    })
}

fn region(form: &mut Form<'_>) -> Option<String> {
    let faults_before = form.faults.len();
    let Some(found) = form.text("region", &REGION_VARIABLES) else {
        if form.faults.len() == faults_before {
            let fault = Fault::new(form.at("region"), "Bedrock's region is missing");
            let hint = format!("write one such as us-east-1, or set {}", REGION_VARIABLES[0]);
            form.missing.push(fault.hint(hint));
        }
        return None;
    };
    if is_region(&found.value) {
        return Some(found.value);
    }
    let problem = format!("{} is not a region", checks::shown(&found.value));
    form.faults
        .push(Fault::new(found.at, problem).hint("write one such as us-east-1"));
    None
}

/// A truth value at `key`, or `true` in the SDKs' variable.
fn wish(form: &mut Form<'_>, key: &str, usual: &'static str) -> bool {
    if form.states(&[key]) {
        return form.flag(key).unwrap_or_default();
    }
    let Some((name, value)) = form.peek(&[usual]) else {
        return false;
    };
    form.used_variables.push(name);
    value.trim().eq_ignore_ascii_case("true")
}

fn auth(form: &mut Form<'_>) -> Option<AwsAuth> {
    if form.states(&["external_id"]) && !form.states(&["role_arn"]) {
        let fault = Fault::new(form.at("external_id"), "goes with role_arn, which is not written");
        form.faults.push(fault);
    }
    match way(form)? {
        Way::Bearer => match form.secret(&BEARER, &[BEARER_VARIABLE]) {
            Secret::Found(token) => Some(AwsAuth::Bearer(token)),
            Secret::Faulty => None,
            Secret::Absent => {
                missing(form, "bearer_token_env", "the bearer key is missing", BEARER_VARIABLE);
                None
            }
        },
        Way::Keys => {
            let keys = keys(form);
            let role = role(form).ok();
            Some(AwsAuth::Signed {
                source: AwsSource::Keys(keys?),
                role: role?,
            })
        }
        Way::WebIdentity => web_identity(form),
        Way::Container => {
            let source = container(form);
            let role = role(form).ok();
            Some(AwsAuth::Signed {
                source: source?,
                role: role?,
            })
        }
        Way::Instance => {
            let url = form.url_or("metadata_url", &["AWS_EC2_METADATA_SERVICE_ENDPOINT"], METADATA_URL);
            let role = role(form).ok();
            Some(AwsAuth::Signed {
                source: AwsSource::Instance { url: url? },
                role: role?,
            })
        }
    }
}

/// Where the credential comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Bearer,
    Keys,
    WebIdentity,
    Container,
    Instance,
}

/// The keys of the table that belong to one way and to no other.
const WAYS: [(Way, &str, &[&str]); 5] = [
    (
        Way::Bearer,
        "bearer",
        &["bearer_token", "bearer_token_env", "bearer_token_file"],
    ),
    (
        Way::Keys,
        "keys",
        &[
            "access_key_id",
            "secret_access_key",
            "secret_access_key_env",
            "secret_access_key_file",
            "session_token",
            "session_token_env",
            "session_token_file",
        ],
    ),
    (Way::WebIdentity, "web_identity", &["web_identity_token_file"]),
    (
        Way::Container,
        "container",
        &["container_url", "container_token_env", "container_token_file"],
    ),
    (Way::Instance, "instance", &["metadata_url"]),
];

/// The way: as `credentials` says, or else as the other keys imply, or else as the usual variables do.
fn way(form: &mut Form<'_>) -> Option<Way> {
    let faults_before = form.faults.len();
    let named = form.text("credentials", &[]);
    if form.faults.len() > faults_before {
        return None;
    }
    let implied: Vec<_> = WAYS.iter().filter(|(.., keys)| form.states(keys)).collect();
    let named = match named {
        None => None,
        Some(found) => match WAYS.iter().find(|(_, name, _)| *name == found.value) {
            Some((way, ..)) => Some(*way),
            None => {
                let problem = format!("{} is no source of credentials", checks::shown(&found.value));
                let names: Vec<&str> = WAYS.iter().map(|(_, name, _)| *name).collect();
                let hint = format!("write one of {}", names.join(", "));
                form.faults.push(Fault::new(found.at, problem).hint(hint));
                return None;
            }
        },
    };
    let ways = implied.iter().map(|(way, ..)| *way).chain(named);
    let mut chosen = None;
    for way in ways {
        if chosen.is_some_and(|other| other != way) {
            let names: Vec<&str> = implied.iter().map(|(_, name, _)| *name).collect();
            let problem = format!("more than one source of credentials is written ({})", names.join(", "));
            form.faults
                .push(Fault::new(&form.path, problem).hint("keep the keys of one of them"));
            return None;
        }
        chosen = Some(way);
    }
    if chosen == Some(Way::Bearer) && form.states(&["role_arn"]) {
        let problem = "a role cannot be assumed with a bearer key";
        let hint = "remove it, or write access_key_id and secret_access_key_env";
        form.faults.push(Fault::new(form.at("role_arn"), problem).hint(hint));
        return None;
    }
    chosen.or_else(|| way_of_variables(form))
}

fn way_of_variables(form: &mut Form<'_>) -> Option<Way> {
    let is_set = |name| form.peek(&[name]).is_some();
    let has_keys = is_set(ACCESS_KEY_VARIABLE) || is_set(SECRET_KEY_VARIABLE);
    if is_set(BEARER_VARIABLE) && !form.states(&["role_arn"]) {
        if has_keys {
            form.warnings.push(format!(
                "{BEARER_VARIABLE} is used for Bedrock; {ACCESS_KEY_VARIABLE} is set too and ignored"
            ));
        }
        return Some(Way::Bearer);
    }
    if has_keys {
        return Some(Way::Keys);
    }
    if is_set(TOKEN_FILE_VARIABLE) {
        return Some(Way::WebIdentity);
    }
    if is_set(CONTAINER_FULL_VARIABLE) || is_set(CONTAINER_RELATIVE_VARIABLE) {
        return Some(Way::Container);
    }
    let fault = Fault::new(form.at("credentials"), "this provider has no credential");
    form.missing.push(fault.hint(format!(
        "set {BEARER_VARIABLE}, or {ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE}, or on an EC2 machine with a role \
         write credentials = \"instance\""
    )));
    None
}

fn missing(form: &mut Form<'_>, key: &str, problem: &str, usual: &str) {
    let fault = Fault::new(form.at(key), problem);
    form.missing.push(fault.hint(format!("write it, or set {usual}")));
}

fn keys(form: &mut Form<'_>) -> Option<AwsKeys> {
    let faults_before = form.faults.len();
    let access_key_id = form.plain_text("access_key_id", &[ACCESS_KEY_VARIABLE]);
    if access_key_id.is_none() && form.faults.len() == faults_before {
        missing(
            form,
            "access_key_id",
            "the access key's id is missing",
            ACCESS_KEY_VARIABLE,
        );
    }
    let access_key_id = access_key_id.and_then(|found| {
        if found.value.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Some(found.value);
        }
        // Perhaps the secret half, written into the wrong place, so it is not repeated.
        let problem = "is not the id of an access key: letters and digits only";
        form.faults.push(Fault::new(found.at, problem));
        None
    });
    let secret = match form.secret(&SECRET_KEY, &[SECRET_KEY_VARIABLE]) {
        Secret::Found(secret) => Some(secret),
        Secret::Faulty => None,
        Secret::Absent => {
            let problem = "the secret access key is missing";
            missing(form, SECRET_KEY.variable, problem, SECRET_KEY_VARIABLE);
            None
        }
    };
    // A token in the environment belongs to the keys in the environment and spoils any other.
    let keys_are_written = form.states(&["access_key_id", SECRET_KEY.variable, SECRET_KEY.file]);
    let usual: &[&str] = if keys_are_written {
        &[]
    } else {
        &[SESSION_TOKEN_VARIABLE]
    };
    let session_token = match form.secret(&SESSION_TOKEN, usual) {
        Secret::Found(token) => Some(token),
        Secret::Absent => None,
        Secret::Faulty => return None,
    };
    Some(AwsKeys {
        access_key_id: access_key_id?,
        secret_access_key: secret?,
        session_token,
    })
}

/// The role to assume with the source's keys. Written, that is: the variable AWS_ROLE_ARN belongs to web identity.
fn role(form: &mut Form<'_>) -> Result<Option<AwsRole>, Faulty> {
    let faults_before = form.faults.len();
    let role_arn = role_arn(form, &[]);
    let session_name = session_name(form);
    let external_id = form.plain_text("external_id", &[]).map(|found| found.value);
    if form.faults.len() > faults_before {
        return Err(Faulty);
    }
    Ok(role_arn.zip(session_name).map(|(role_arn, session_name)| AwsRole {
        role_arn,
        external_id,
        session_name,
    }))
}

/// The fault is noted.
struct Faulty;

fn role_arn(form: &mut Form<'_>, usual: &[&'static str]) -> Option<String> {
    let found = form.plain_text("role_arn", usual)?;
    if found.value.starts_with("arn:") && found.value.contains(":role/") {
        return Some(found.value);
    }
    let problem = format!("{} is not the ARN of a role", checks::shown(&found.value));
    let hint = "write one such as arn:aws:iam::123456789012:role/gateway";
    form.faults.push(Fault::new(found.at, problem).hint(hint));
    None
}

fn session_name(form: &mut Form<'_>) -> Option<String> {
    let Some(found) = form.text("role_session_name", &[SESSION_NAME_VARIABLE]) else {
        return Some(SESSION_NAME.to_owned());
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "_=,.@+-".contains(c);
    if (2..=64).contains(&found.value.len()) && found.value.chars().all(good) {
        return Some(found.value);
    }
    let problem = "is not a session name: 2 to 64 letters, digits and _ = , . @ + -";
    form.faults.push(Fault::new(found.at, problem));
    None
}

/// A token's file and its role, and perhaps a further role that is assumed with them.
///
/// The cluster sets both variables. A `role_arn` in the table is then a second role, unless the token's file is
/// written beside it: then the token is for that role.
fn web_identity(form: &mut Form<'_>) -> Option<AwsAuth> {
    let token_file = form.text("web_identity_token_file", &[TOKEN_FILE_VARIABLE]);
    if token_file.is_none() {
        let problem = "the file of the web identity's token is missing";
        missing(form, "web_identity_token_file", problem, TOKEN_FILE_VARIABLE);
    }
    let session = session_name(form);
    let of_cluster = form.peek(&[ROLE_VARIABLE]).map(|(_, role)| role.trim().to_owned());
    let chained = form.states(&["role_arn"]) && !form.states(&["web_identity_token_file"]) && of_cluster.is_some();
    let (first, role) = if chained {
        form.used_variables.push(ROLE_VARIABLE);
        let role = role(form).ok()?;
        let same = role.as_ref().map(|role| &role.role_arn) == of_cluster.as_ref();
        (of_cluster, role.filter(|_| !same))
    } else {
        let faults_before = form.faults.len();
        let first = role_arn(form, &[ROLE_VARIABLE]);
        if first.is_none() && form.faults.len() == faults_before {
            missing(form, "role_arn", "the web identity's role is missing", ROLE_VARIABLE);
        }
        if form.states(&["external_id"]) {
            let problem = "a web identity has no external id";
            form.faults
                .push(Fault::new(form.at("external_id"), problem).hint("remove it"));
            return None;
        }
        (first, None)
    };
    Some(AwsAuth::Signed {
        source: AwsSource::WebIdentity {
            role_arn: first?,
            token_file: PathBuf::from(token_file?.value),
            session_name: session?,
        },
        role,
    })
}

fn container(form: &mut Form<'_>) -> Option<AwsSource> {
    let relative = form.peek(&[CONTAINER_RELATIVE_VARIABLE]);
    let url = match (form.states(&["container_url"]), relative) {
        (false, Some((name, path))) => {
            form.used_variables.push(name);
            let Ok(url) = checks::base_url(&format!("{CONTAINER_HOST}{}", path.trim())) else {
                form.faults.push(Fault::new(name, "is not a path"));
                return None;
            };
            url
        }
        _ => match form.url("container_url", &[CONTAINER_FULL_VARIABLE]).ok()? {
            Some(url) => url,
            None => {
                let problem = "the address of the container's credentials is missing";
                missing(form, "container_url", problem, CONTAINER_FULL_VARIABLE);
                return None;
            }
        },
    };
    if !is_trusted_with_credentials(&url) {
        let at = if form.states(&["container_url"]) {
            form.at("container_url")
        } else {
            CONTAINER_FULL_VARIABLE.to_owned()
        };
        let problem = "credentials may be asked of this host over https only";
        form.faults.push(Fault::new(at, problem));
        return None;
    }
    // The file is not read now but for each question, because its token is renewed.
    let by_variable = form.states(&[CONTAINER_TOKEN.variable]);
    let usual: &[&str] = if by_variable {
        &[]
    } else {
        &[CONTAINER_TOKEN_FILE_VARIABLE]
    };
    let token_file = form.text(CONTAINER_TOKEN.file, usual);
    let authorization = match token_file {
        Some(file) if by_variable => {
            let problem = format!("is written besides {}", form.at(CONTAINER_TOKEN.variable));
            form.faults
                .push(Fault::new(file.at, problem).hint("keep one of the two"));
            return None;
        }
        Some(file) => Some(ContainerToken::File(PathBuf::from(file.value))),
        None => match form.secret(&CONTAINER_TOKEN, &[CONTAINER_TOKEN_VARIABLE]) {
            Secret::Found(token) => Some(ContainerToken::Value(token)),
            Secret::Absent => None,
            Secret::Faulty => return None,
        },
    };
    Some(AwsSource::Container { url, authorization })
}

/// Whether the answer can be believed: it came over TLS, from this machine or from the container's own host.
///
/// The rule is the SDKs'; see "Container credential provider",
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>.
fn is_trusted_with_credentials(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    let known = CONTAINER_HOSTS.iter().any(|known| {
        let known: Result<IpAddr, _> = known.trim_matches(['[', ']']).parse();
        known.is_ok_and(|known| bare.parse() == Ok(known))
    });
    url.scheme_str() == Some("https") || checks::is_here(url) || known
}
