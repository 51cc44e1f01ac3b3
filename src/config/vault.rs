//! `[vault]`: where HashiCorp Vault is and how to get in.
//!
//! What is secret about it (a token, a secret id) is no setting: it comes from a variable or a file, as every credential
//! does, and `Debug` shows neither.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::faults::{Fault, Faults};
use super::layers::{Layers, VAULT_VARIABLE};
use super::reader::Reader;
use super::settings::SECOND_MS;
use super::{Environment, Settings, checks};

/// A token for Vault.
const TOKEN_VARIABLE: &str = "VAULT_TOKEN";
/// The secret half of an AppRole.
const SECRET_ID_VARIABLE: &str = "VAULT_SECRET_ID";
/// Time for one call.
const REQUEST_MS: RangeInclusive<u64> = 1..=60 * SECOND_MS;

/// Where Vault is and how to get in.
#[derive(Debug, Clone)]
pub struct VaultSettings {
    /// `https://vault.example.com:8200`, without a path; `None`: there is none.
    pub address: Option<String>,
    /// Vault Enterprise's namespace.
    pub namespace: Option<String>,
    /// Further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// How to log in.
    pub auth: VaultAuth,
    /// Where the login method is mounted; `None`: under its usual name.
    pub auth_mount: Option<String>,
    /// The file with the token.
    pub token_file: Option<PathBuf>,
    /// The AppRole.
    pub role_id: Option<String>,
    /// The file with the AppRole's secret id.
    pub secret_id_file: Option<PathBuf>,
    /// The role of the Kubernetes login.
    pub kubernetes_role: Option<String>,
    /// The file with the service account's token.
    pub kubernetes_jwt_file: PathBuf,
    /// Mounts of the KV engine, first one first. Never empty.
    pub mounts: Vec<VaultMount>,
    /// For one call.
    pub request_timeout: Duration,
    /// Where the gateway's master key is in the first mount.
    pub master_key_path: Option<String>,
}

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultAuth {
    /// By what is set.
    Auto,
    /// With a token that is given.
    Token,
    /// With a role id and a secret id.
    AppRole,
    /// With the token of a Kubernetes service account.
    Kubernetes,
}

/// A mount of the KV engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultMount {
    /// Its path.
    pub path: String,
    /// Its version.
    pub version: KvVersion,
}

/// The versions of the KV engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvVersion {
    /// Without history.
    One,
    /// With versions and metadata.
    Two,
}

/// What of the way into Vault is secret.
#[derive(Clone, Default)]
pub struct VaultLogin {
    /// `VAULT_TOKEN`.
    pub token: Option<SecretString>,
    /// `VAULT_SECRET_ID`.
    pub secret_id: Option<SecretString>,
}

impl fmt::Debug for VaultLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultLogin")
    }
}

impl VaultSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let path = |text: Option<String>| text.map(|text| PathBuf::from(text.trim()));
        Self {
            address: address(reader),
            namespace: plain(reader, "vault.namespace"),
            ca_file: path(reader.optional_text("vault.ca_file")),
            auth: reader.choice(
                "vault.auth",
                &[
                    ("auto", VaultAuth::Auto),
                    ("token", VaultAuth::Token),
                    ("approle", VaultAuth::AppRole),
                    ("kubernetes", VaultAuth::Kubernetes),
                ],
            ),
            auth_mount: plain(reader, "vault.auth_mount"),
            token_file: path(reader.optional_text("vault.token_file")),
            role_id: plain(reader, "vault.role_id"),
            secret_id_file: path(reader.optional_text("vault.secret_id_file")),
            kubernetes_role: plain(reader, "vault.kubernetes_role"),
            kubernetes_jwt_file: reader.filled_text("vault.kubernetes_jwt_file").trim().into(),
            mounts: mounts(reader),
            request_timeout: reader.milliseconds("vault.request_timeout_ms", REQUEST_MS),
            master_key_path: plain(reader, "vault.master_key_path"),
        }
    }

    /// How to log in, decided.
    pub fn method(&self) -> VaultAuth {
        match self.auth {
            VaultAuth::Auto if self.role_id.is_some() => VaultAuth::AppRole,
            VaultAuth::Auto if self.kubernetes_role.is_some() => VaultAuth::Kubernetes,
            VaultAuth::Auto => VaultAuth::Token,
            chosen => chosen,
        }
    }
}

/// Takes the secret part of the login from the environment, and checks that there is a whole way in.
pub(super) fn read_login(
    settings: &mut Settings,
    layers: &Layers,
    environment: &Environment<'_>,
    faults: &mut Faults,
    warnings: &mut Vec<String>,
) {
    let mut secret = |name: &str| {
        let value = environment.get(name)?.trim();
        if !checks::is_plain(value) {
            faults.push(Fault::new(name, "holds a space or a character that cannot be sent"));
            return None;
        }
        Some(SecretString::from(value))
    };
    settings.vault_login = VaultLogin {
        token: secret(TOKEN_VARIABLE),
        secret_id: secret(SECRET_ID_VARIABLE),
    };
    let (vault, login) = (&settings.vault, &settings.vault_login);
    if vault.address.is_none() {
        if vault.master_key_path.is_some() {
            let fault = Fault::new("vault.master_key_path", "needs vault.address");
            faults.push(fault.hint("set vault.address, or VAULT_ADDR"));
        }
        return;
    }
    let missing = match vault.method() {
        VaultAuth::Auto | VaultAuth::Token if login.token.is_none() && vault.token_file.is_none() => {
            "set VAULT_TOKEN or vault.token_file, or log in with vault.role_id or vault.kubernetes_role"
        }
        VaultAuth::AppRole if vault.role_id.is_none() => "set vault.role_id, or VAULT_ROLE_ID",
        VaultAuth::AppRole if login.secret_id.is_none() && vault.secret_id_file.is_none() => {
            "set VAULT_SECRET_ID or vault.secret_id_file"
        }
        VaultAuth::Kubernetes if vault.kubernetes_role.is_none() => "set vault.kubernetes_role",
        VaultAuth::Auto | VaultAuth::Token | VaultAuth::AppRole | VaultAuth::Kubernetes => return,
    };
    let by_usual_name = layers
        .leaves
        .get("vault.address")
        .and_then(|leaf| leaf.variable.as_deref())
        == Some(VAULT_VARIABLE);
    if by_usual_name
        && vault.method() == VaultAuth::Token
        && vault.auth == VaultAuth::Auto
        && vault.master_key_path.is_none()
    {
        // Set for other programs on many a machine; nothing else says that this one is meant.
        warnings.push(format!(
            "{VAULT_VARIABLE} is set but there is no way to log in, so Vault is not used: {missing}"
        ));
        settings.vault.address = None;
        return;
    }
    faults.push(Fault::new("vault.auth", "there is no way to log in to Vault").hint(missing));
}

fn address(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.optional_text("vault.address")?;
    match checks::base_url(&text) {
        Ok(url) if url.path().trim_matches('/').is_empty() => checks::url_text(&text).ok(),
        Ok(_) => {
            let hint = "end it at the host and port; paths begin at /v1";
            reader.refuse("vault.address", "has a path", Some(hint.to_owned()));
            None
        }
        Err(problem) => {
            reader.refuse("vault.address", problem, None);
            None
        }
    }
}

/// Text that goes into a header or a path.
fn plain(reader: &mut Reader<'_>, path: &'static str) -> Option<String> {
    let text = reader.optional_text(path)?;
    let text = text.trim().trim_matches('/');
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if !text.is_empty() && text.chars().all(good) && !text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some(text.to_owned());
    }
    reader.refuse(path, "may hold letters, digits, -, _, . and / only", None);
    None
}

fn mounts(reader: &mut Reader<'_>) -> Vec<VaultMount> {
    let text = reader.filled_text("vault.mounts");
    let mut mounts = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (path, version) = part.split_once(':').unwrap_or((part, "2"));
        let path = path.trim().trim_matches('/');
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/');
        let version = match version.trim() {
            "1" => Some(KvVersion::One),
            "2" => Some(KvVersion::Two),
            _ => None,
        };
        let Some(version) = version.filter(|_| !path.is_empty() && path.chars().all(good)) else {
            let hint = "write secret for version 2, or secret:1 for version 1, separated by commas";
            let problem = format!("{} is not a mount", checks::shown(part));
            reader.refuse("vault.mounts", problem, Some(hint.to_owned()));
            continue;
        };
        mounts.push(VaultMount {
            path: path.to_owned(),
            version,
        });
    }
    mounts
}
