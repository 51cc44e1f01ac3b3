//! HashiCorp Vault: KV engine of both versions; login by token, AppRole or Kubernetes.
//!
//! One session serves all calls. It is renewed at two thirds of its lease, and made anew when its token is refused. A
//! refusal is told from a policy that does not allow a path by looking the token up: a policy would refuse the next
//! token as well, and each login leaves a lease behind in Vault.
//!
//! # Source
//! <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2>, <https://developer.hashicorp.com/vault/api-docs/auth/token>,
//! <https://developer.hashicorp.com/vault/api-docs/auth/approle>, <https://developer.hashicorp.com/vault/api-docs/auth/kubernetes>.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustify::errors::ClientError as RestError;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use vaultrs::api::{self, EndpointMiddleware};
use vaultrs::auth::{approle, kubernetes};
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use vaultrs::{kv1, kv2, token};

use super::{Contents, SourceError};
use crate::config::{CredentialPath, Fields, KvVersion, Settings, VaultAuth, VaultLogin, VaultMount, VaultSettings};

/// After a failed renewal it is tried again after this part of what is left of the lease.
const RETRY_PARTS: u32 = 4;
/// But not sooner than this.
const MIN_RETRY: Duration = Duration::from_millis(500);
/// Under this part of the first lease a renewed one means that the token nears its maximum: better a new one.
const WORN_OUT_PARTS: u32 = 3;
/// The field the master key is in.
const MASTER_KEY_FIELD: &str = "key";
/// Where the way in is checked.
const LOOKUP: &str = "auth/token/lookup-self";

/// Vault, as a source of credentials.
pub struct VaultSource {
    settings: VaultSettings,
    address: String,
    login: VaultLogin,
    http: reqwest::Client,
    session: Mutex<Option<Arc<Session>>>,
}

/// A login and how long it lasts.
struct Session {
    client: VaultClient,
    /// The first lease; `None`: it does not end.
    lease: Option<Duration>,
    renewable: bool,
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
}

/// What a call came to.
enum Answer<T> {
    Here(T),
    Missing,
    Forbidden,
}

/// What is asked of the KV engine.
#[derive(Clone, Copy)]
enum Call {
    List,
    Get,
}

impl Call {
    async fn make(self, client: &VaultClient, mount: &VaultMount, path: &str) -> Result<Value, ClientError> {
        match (self, mount.version) {
            (Self::List, KvVersion::One) => kv1::list(client, &mount.path, path)
                .await
                .map(|answer| answer.data.keys.into()),
            (Self::List, KvVersion::Two) => kv2::list(client, &mount.path, path).await.map(Into::into),
            (Self::Get, KvVersion::One) => kv1::get_raw(client, &mount.path, path).await.map(|answer| answer.data),
            (Self::Get, KvVersion::Two) => kv2::read(client, &mount.path, path).await,
        }
    }
}

impl VaultSource {
    /// The configured Vault, if there is one.
    ///
    /// # Errors
    /// Its certificate authorities cannot be read.
    pub fn open(settings: &Settings) -> Result<Option<Self>, SourceError> {
        let vault = settings.vault.clone();
        let Some(address) = vault.address.clone() else {
            return Ok(None);
        };
        // A redirect would carry the token to wherever it points; standby nodes forward requests by themselves.
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(vault.request_timeout);
        if let Some(path) = &vault.ca_file {
            let pem = fs::read(path).map_err(|source| SourceError::File {
                path: format!("vault.ca_file: {}", path.display()),
                source,
            })?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(SourceError::Unreadable {
                    path: format!("vault.ca_file: {}", path.display()),
                    problem: "it has no certificate in PEM format",
                });
            }
            http = http.tls_certs_merge(certificates);
        }
        let http = http.build().map_err(|_| SourceError::Unreadable {
            path: "vault".into(),
            problem: "no client can be made with its settings",
        })?;
        Ok(Some(Self {
            address,
            login: settings.vault_login.clone(),
            settings: vault,
            http,
            session: Mutex::default(),
        }))
    }

    /// Where a credential is, or would be, as people name it to Vault.
    pub fn place(&self, path: &CredentialPath) -> String {
        format!("{}/{path}", self.settings.mounts[0].path)
    }

    /// Every credential in the mounts. Of the same path in several mounts the first one counts.
    ///
    /// # Errors
    /// Vault cannot be reached, fails, or does not let us in.
    pub async fn read(&self, expected: &[String]) -> Result<Contents, SourceError> {
        let mut contents = Contents::default();
        for mount in &self.settings.mounts {
            for path in self.paths(mount, expected, &mut contents).await? {
                if contents.stored.credentials.contains_key(&path) {
                    continue;
                }
                let place = format!("{}/{path}", mount.path);
                match self.get(mount, &path.to_string()).await {
                    Ok(Answer::Here(value)) => match fields_of(&value) {
                        Some(fields) => drop(contents.stored.credentials.insert(path, fields)),
                        None => drop(
                            contents
                                .failed
                                .insert(path, format!("{place} is not an object of values")),
                        ),
                    },
                    Ok(Answer::Missing) => {}
                    Ok(Answer::Forbidden) => {
                        // Where paths are only guessed, a policy names the ones that are meant.
                        let error = SourceError::Forbidden { path: place };
                        contents.failed.insert(path, error.to_string());
                    }
                    Err(error @ SourceError::Unreadable { .. }) => {
                        drop(contents.failed.insert(path, error.to_string()))
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        // What one mount refused and another one has is not missed.
        contents
            .failed
            .retain(|path, _| !contents.stored.credentials.contains_key(path));
        Ok(contents)
    }

    /// The gateway's own master key, with the place it is at.
    ///
    /// # Errors
    /// It is not there, or Vault cannot be asked.
    pub async fn master_key(&self, path: &str) -> Result<(SecretString, String), SourceError> {
        let mount = &self.settings.mounts[0];
        let place = format!("{}/{path} in Vault", mount.path);
        match self.get(mount, path).await? {
            Answer::Here(value) => {
                let found = fields_of(&value).and_then(|fields| fields.get(MASTER_KEY_FIELD).map(SecretString::from));
                found.map(|key| (key, place.clone())).ok_or(SourceError::Unreadable {
                    path: place,
                    problem: "it has no field `key`",
                })
            }
            Answer::Missing => Err(SourceError::Missing { path: place }),
            Answer::Forbidden => Err(SourceError::Forbidden { path: place }),
        }
    }

    /// When the session has to be renewed.
    pub async fn renewal_due(&self) -> Option<Instant> {
        self.session.lock().await.as_ref()?.renew_at
    }

    /// Renews the session if it is time, or makes a new one where it cannot be renewed.
    ///
    /// # Errors
    /// Neither can be had. The session is tried again later, as long as it has not ended.
    pub async fn renew(&self) -> Result<(), SourceError> {
        let now = Instant::now();
        let mut held = self.session.lock().await;
        let Some(session) = held.clone() else { return Ok(()) };
        if session.renew_at.is_none_or(|due| now < due) {
            return Ok(());
        }
        let renewed = if session.renewable {
            match token::renew_self(&session.client, None).await {
                Ok(auth) => Some((Duration::from_secs(auth.lease_duration), auth.renewable)),
                Err(error) if status_of(&error).is_some_and(|status| status < 500) => None,
                Err(error) => {
                    *held = Some(Arc::new(session.later(now)));
                    return Err(self.failed(&error, "auth/token/renew-self"));
                }
            }
        } else {
            None
        };
        let worn_out = session.lease.map(|lease| lease / WORN_OUT_PARTS).unwrap_or_default();
        if let Some((lease, renewable)) = renewed
            && lease > worn_out
        {
            *held = Some(Arc::new(session.renewed(now, lease, renewable)));
            return Ok(());
        }
        match self.log_in().await {
            Ok(session) => {
                *held = Some(Arc::new(session));
                Ok(())
            }
            Err(error) => {
                *held = Some(Arc::new(session.later(now)));
                Err(error)
            }
        }
    }

    /// The credentials that are in a mount; the expected ones where it does not tell.
    async fn paths(
        &self,
        mount: &VaultMount,
        expected: &[String],
        contents: &mut Contents,
    ) -> Result<BTreeSet<CredentialPath>, SourceError> {
        let mut paths = BTreeSet::new();
        match self.list(mount, "providers").await? {
            Answer::Here(entries) => self.beneath(mount, None, entries, &mut paths, contents).await?,
            Answer::Missing => {}
            Answer::Forbidden => paths.extend(expected.iter().map(CredentialPath::shared)),
        }
        let Answer::Here(organizations) = self.list(mount, "organizations").await? else {
            return Ok(paths);
        };
        for organization in organizations.iter().filter_map(|entry| entry.strip_suffix('/')) {
            if !CredentialPath::is_part(organization) {
                contents.warnings.push(odd_name(mount, "organizations"));
                continue;
            }
            let folder = format!("organizations/{organization}/providers");
            if let Answer::Here(entries) = self.list(mount, &folder).await? {
                self.beneath(mount, Some(organization), entries, &mut paths, contents)
                    .await?;
            }
        }
        Ok(paths)
    }

    /// The credentials among the entries of one `providers` folder.
    async fn beneath(
        &self,
        mount: &VaultMount,
        organization: Option<&str>,
        entries: Vec<String>,
        paths: &mut BTreeSet<CredentialPath>,
        contents: &mut Contents,
    ) -> Result<(), SourceError> {
        for entry in entries {
            let path = CredentialPath {
                organization: organization.map(ToOwned::to_owned),
                provider: entry.trim_end_matches('/').to_owned(),
                name: None,
            };
            if !path.is_plain() {
                contents.warnings.push(odd_name(mount, "providers"));
                continue;
            }
            if !entry.ends_with('/') {
                paths.insert(path);
                continue;
            }
            let Answer::Here(names) = self.list(mount, &path.to_string()).await? else {
                continue;
            };
            for name in names.into_iter().filter(|name| !name.ends_with('/')) {
                let named = CredentialPath {
                    name: Some(name),
                    ..path.clone()
                };
                if named.is_plain() {
                    paths.insert(named);
                } else {
                    contents.warnings.push(odd_name(mount, &path.to_string()));
                }
            }
        }
        Ok(())
    }

    async fn list(&self, mount: &VaultMount, path: &str) -> Result<Answer<Vec<String>>, SourceError> {
        Ok(match self.call(Call::List, mount, path).await? {
            Answer::Here(Value::Array(names)) => Answer::Here(
                names
                    .iter()
                    .filter_map(|name| Some(name.as_str()?.to_owned()))
                    .collect(),
            ),
            Answer::Here(_) | Answer::Missing => Answer::Missing,
            Answer::Forbidden => Answer::Forbidden,
        })
    }

    async fn get(&self, mount: &VaultMount, path: &str) -> Result<Answer<Value>, SourceError> {
        self.call(Call::Get, mount, path).await
    }

    /// Makes a call, in a new session if the present one is not let in any more.
    async fn call(&self, call: Call, mount: &VaultMount, path: &str) -> Result<Answer<Value>, SourceError> {
        let place = format!("{}/{path}", mount.path);
        let session = self.session(None).await?;
        let error = match call.make(&session.client, mount, path).await {
            Ok(value) => return Ok(Answer::Here(value)),
            Err(error) => error,
        };
        if status_of(&error) != Some(403) {
            return self.answer(&error, &place);
        }
        match token::lookup_self(&session.client).await {
            Ok(_) => return Ok(Answer::Forbidden),
            Err(error) if status_of(&error) == Some(403) => {}
            Err(error) => return Err(self.failed(&error, LOOKUP)),
        }
        let session = self.session(Some(&session)).await?;
        match call.make(&session.client, mount, path).await {
            Ok(value) => Ok(Answer::Here(value)),
            Err(error) if status_of(&error) == Some(403) => Ok(Answer::Forbidden),
            Err(error) => self.answer(&error, &place),
        }
    }

    fn answer<T>(&self, error: &ClientError, path: &str) -> Result<Answer<T>, SourceError> {
        match status_of(error) {
            Some(404) => Ok(Answer::Missing),
            _ => Err(self.failed(error, path)),
        }
    }

    /// The present session; a new one where there is none, where it has ended, or where it is the `refused` one.
    async fn session(&self, refused: Option<&Arc<Session>>) -> Result<Arc<Session>, SourceError> {
        let mut held = self.session.lock().await;
        if let Some(session) = &*held
            && refused.is_none_or(|refused| !Arc::ptr_eq(refused, session))
            && session.ends_at.is_none_or(|end| Instant::now() < end)
        {
            return Ok(session.clone());
        }
        let session = Arc::new(self.log_in().await?);
        *held = Some(session.clone());
        Ok(session)
    }

    async fn log_in(&self) -> Result<Session, SourceError> {
        let asked_at = Instant::now();
        let mount = |usual: &str| self.settings.auth_mount.clone().unwrap_or_else(|| usual.to_owned());
        let nobody = self.client(None)?;
        let (auth, hint) = match self.settings.method() {
            VaultAuth::Auto | VaultAuth::Token => return self.given_token(asked_at).await,
            VaultAuth::AppRole => {
                let role = self.settings.role_id.as_deref().unwrap_or_default();
                let secret = self.secret(self.settings.secret_id_file.as_deref(), self.login.secret_id.as_ref())?;
                (
                    approle::login(&nobody, &mount("approle"), role, secret.expose_secret()).await,
                    "look at vault.role_id and the secret id",
                )
            }
            VaultAuth::Kubernetes => {
                let role = self.settings.kubernetes_role.as_deref().unwrap_or_default();
                let jwt = self.secret(Some(&self.settings.kubernetes_jwt_file), None)?;
                (
                    kubernetes::login(&nobody, &mount("kubernetes"), role, jwt.expose_secret()).await,
                    "look at vault.kubernetes_role and at the service account the role is bound to",
                )
            }
        };
        match auth {
            Ok(auth) => {
                let client = self.client(Some(&SecretString::from(auth.client_token)))?;
                let lease = Duration::from_secs(auth.lease_duration);
                Ok(Session::new(client, asked_at, lease, auth.renewable))
            }
            Err(error) => match status_of(&error) {
                Some(status @ 400..500) => Err(SourceError::LoginRefused { status, hint }),
                _ => Err(self.failed(&error, "auth")),
            },
        }
    }

    /// A session of the token that was given, with what Vault says about it.
    async fn given_token(&self, asked_at: Instant) -> Result<Session, SourceError> {
        let given = self.secret(self.settings.token_file.as_deref(), self.login.token.as_ref())?;
        let client = self.client(Some(&given))?;
        match token::lookup_self(&client).await {
            Ok(found) => Ok(Session::new(
                client,
                asked_at,
                Duration::from_secs(found.ttl),
                found.renewable.unwrap_or(false),
            )),
            Err(error) => match status_of(&error) {
                Some(status @ 400..500) => Err(SourceError::LoginRefused {
                    status,
                    hint: "the token is unknown, expired or revoked; give another one in VAULT_TOKEN or vault.token_file",
                }),
                _ => Err(self.failed(&error, LOOKUP)),
            },
        }
    }

    /// A client that sends this token.
    fn client(&self, token: Option<&SecretString>) -> Result<VaultClient, SourceError> {
        let unusable = |problem| SourceError::Unreadable {
            path: "vault".into(),
            problem,
        };
        let token = token.map(|token| token.expose_secret()).unwrap_or_default();
        // The library takes what it is given for a header without a check.
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unusable("the token holds characters that cannot be sent"));
        }
        let settings = VaultClientSettingsBuilder::default()
            .address(&self.address)
            .ca_certs(Vec::new())
            .identity(None)
            .token("")
            .verify(true)
            .build()
            .map_err(|_| unusable("its address is not one the client takes"))?;
        Ok(VaultClient {
            http: rustify::clients::reqwest::Client::new(&self.address, self.http.clone()),
            middle: EndpointMiddleware {
                token: token.to_owned(),
                version: "v1".into(),
                wrap: None,
                namespace: self.settings.namespace.clone(),
            },
            settings,
        })
    }

    /// A secret of the login: of its file, read anew because agents replace it, or else as it was given.
    fn secret(&self, file: Option<&Path>, given: Option<&SecretString>) -> Result<SecretString, SourceError> {
        let Some(path) = file else {
            return given.cloned().ok_or(SourceError::LoginRefused {
                status: 0,
                hint: "nothing to log in with was given",
            });
        };
        let text = fs::read_to_string(path).map_err(|source| SourceError::File {
            path: path.display().to_string(),
            source,
        })?;
        Ok(SecretString::from(text.trim()))
    }

    fn failed(&self, error: &ClientError, path: &str) -> SourceError {
        let path = path.to_owned();
        match (status_of(error), error) {
            (Some(403), _) => SourceError::Forbidden { path },
            (Some(status), _) => SourceError::Failing { status, path },
            (
                None,
                ClientError::RestClientError {
                    source: RestError::RequestError { .. } | RestError::ResponseError { .. },
                },
            ) => SourceError::Unreachable(format!("Vault at {}", self.address)),
            (None, _) => SourceError::Unreadable {
                path,
                problem: "the answer is not what Vault documents",
            },
        }
    }
}

impl Session {
    /// A lease of zero does not end, which is so for root tokens.
    fn new(client: VaultClient, now: Instant, lease: Duration, renewable: bool) -> Self {
        let lease = Some(lease).filter(|lease| !lease.is_zero());
        Self {
            client,
            lease,
            renewable,
            renew_at: lease.map(|lease| now + lease * 2 / 3),
            ends_at: lease.map(|lease| now + lease),
        }
    }

    fn renewed(&self, now: Instant, lease: Duration, renewable: bool) -> Self {
        Self {
            lease: self.lease,
            ..Self::new(self.copied(), now, lease, renewable)
        }
    }

    /// The same, to be renewed a little later.
    fn later(&self, now: Instant) -> Self {
        let left = self.ends_at.map_or(MIN_RETRY, |end| end.saturating_duration_since(now));
        Self {
            client: self.copied(),
            lease: self.lease,
            renewable: self.renewable,
            renew_at: Some(now + (left / RETRY_PARTS).max(MIN_RETRY)),
            ends_at: self.ends_at,
        }
    }

    fn copied(&self) -> VaultClient {
        VaultClient {
            http: rustify::clients::reqwest::Client::new(&self.client.http.base, self.client.http.http.clone()),
            middle: api::EndpointMiddleware::clone(&self.client.middle),
            settings: self.client.settings.clone(),
        }
    }
}

/// The status an error stands for, if there was an answer.
fn status_of(error: &ClientError) -> Option<u16> {
    match error {
        ClientError::APIError { code, .. } => Some(*code),
        ClientError::RestClientError {
            source: RestError::ServerResponseError { code, .. },
        } => Some(*code),
        _ => None,
    }
}

/// The fields of a secret. Numbers and truth values become text; an object (a service account's JSON, stored as what it
/// is) becomes its JSON. `None` where it is no object.
pub fn fields_of(value: &Value) -> Option<Fields> {
    let fields = value.as_object()?.iter().filter_map(|(name, value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((name.clone(), text))
    });
    Some(fields.collect())
}

/// What is said about a name that cannot be part of a path. The name itself may be anything.
fn odd_name(mount: &VaultMount, folder: &str) -> String {
    format!(
        "{}/{folder} in Vault has a name that is left out: only lower-case letters, digits, _ and - are read",
        mount.path
    )
}
