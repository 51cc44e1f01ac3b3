//! `[auth]` and `[oidc]`: how people sign in, and which issuer outside vouches for them.

use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::SecretString;

use super::checks;
use super::reader::Reader;
use super::settings::SECOND_MS;
use crate::domain::role::Role;
use crate::domain::user::Email;

const HOUR_MS: u64 = 3_600 * SECOND_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Lives of access tokens.
const ACCESS_MS: RangeInclusive<u64> = SECOND_MS..=DAY_MS;
/// Lives of sessions.
const SESSION_MS: RangeInclusive<u64> = SECOND_MS..=365 * DAY_MS;

/// How people sign in.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// How long an access token is good for.
    pub access_token: Duration,
    /// How long a session may go without being refreshed.
    pub refresh_token: Duration,
    /// How long a session lasts, however often it is refreshed.
    pub session: Duration,
    /// After how long at most the end of a session, or a change of its user, is noticed everywhere.
    pub recheck: Duration,
    /// Attempts to sign in to one account that may fail at once.
    pub account_attempts: u32,
    /// After which another one is allowed.
    pub account_recovery: Duration,
    /// The same from one address.
    pub address_attempts: u32,
    /// After which another one is allowed.
    pub address_recovery: Duration,
    /// Who the first start creates.
    pub owner_email: Email,
}

/// An issuer outside that vouches for people.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// Its URL, which its tokens name; empty: there is none.
    pub issuer: String,
    /// What we are called there.
    pub client_id: String,
    /// What proves it.
    pub client_secret: Option<SecretString>,
    /// Whom the bearer tokens of scripts must be for; `None`: they are not accepted.
    pub audience: Option<String>,
    /// What is asked for when people sign in.
    pub scopes: String,
    /// Where it says whose people they are, by a short name; `None`: all are of `default_organization`.
    pub organization_claim: Option<String>,
    /// Whose people they are where it does not say.
    pub default_organization: Option<String>,
    /// Where it says what they are.
    pub role_claim: String,
    /// What its words for that mean, the first that fits.
    pub roles: Vec<(String, Role)>,
    /// What they are where it does not say.
    pub default_role: Option<Role>,
    /// Where it says what team they are in, by a short name.
    pub team_claim: Option<String>,
}

impl AuthSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let owner = reader.filled_text("auth.owner_email");
        let owner_email = Email::parse(&owner).unwrap_or_else(|problem| {
            if !owner.trim().is_empty() {
                reader.refuse("auth.owner_email", problem, None);
            }
            Email::parse("owner@localhost").expect("it is an address")
        });
        let settings = Self {
            access_token: reader.milliseconds("auth.access_token_ms", ACCESS_MS),
            refresh_token: reader.milliseconds("auth.refresh_token_ms", SESSION_MS),
            session: reader.milliseconds("auth.session_ms", SESSION_MS),
            recheck: reader.milliseconds("auth.recheck_ms", 1..=60 * SECOND_MS),
            account_attempts: reader.count("auth.account_attempts", 1..=10_000),
            account_recovery: reader.milliseconds("auth.account_recovery_ms", 1..=HOUR_MS),
            address_attempts: reader.count("auth.address_attempts", 1..=1_000_000),
            address_recovery: reader.milliseconds("auth.address_recovery_ms", 1..=HOUR_MS),
            owner_email,
        };
        let lives = ["auth.refresh_token_ms", "auth.session_ms"];
        if reader.sound(&lives) && settings.session < settings.refresh_token {
            reader.refuse(
                "auth.session_ms",
                "must not be shorter than auth.refresh_token_ms",
                None,
            );
        }
        settings
    }
}

impl OidcSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let issuer = reader.optional_text("oidc.issuer");
        let issuer = issuer.map(|text| match checks::base_url(&text) {
            Ok(url) if checks::is_plain_http_elsewhere(&url) => {
                reader.refuse(
                    "oidc.issuer",
                    "must be an https URL: whoever is in between could sign in as anybody",
                    None,
                );
                String::new()
            }
            // An issuer is compared with what its tokens say, byte by byte.
            Ok(_) => text.trim().to_owned(),
            Err(problem) => {
                reader.refuse("oidc.issuer", problem, None);
                String::new()
            }
        });
        let client_id = reader.text("oidc.client_id");
        let settings = Self {
            issuer: issuer.clone().unwrap_or_default(),
            client_secret: reader.optional_text("oidc.client_secret").map(SecretString::from),
            audience: reader.optional_text("oidc.audience"),
            scopes: reader.text("oidc.scopes"),
            organization_claim: reader.optional_text("oidc.organization_claim"),
            default_organization: reader.optional_text("oidc.default_organization"),
            role_claim: reader.text("oidc.role_claim"),
            roles: reader.list("oidc.roles", role_of_word),
            default_role: match reader.optional_text("oidc.default_role") {
                None => None,
                Some(text) => {
                    let role = Role::parse(text.trim());
                    if role.is_none() {
                        reader.refuse("oidc.default_role", one_of_roles(), None);
                    }
                    role
                }
            },
            team_claim: reader.optional_text("oidc.team_claim"),
            client_id,
        };
        if issuer.is_none() {
            return settings;
        }
        if settings.client_id.trim().is_empty() {
            reader.refuse("oidc.client_id", "must not be empty where oidc.issuer is set", None);
        }
        if settings.role_claim.trim().is_empty() && settings.default_role.is_none() {
            reader.refuse(
                "oidc.role_claim",
                "must not be empty, or oidc.default_role must say something",
                None,
            );
        }
        if settings.organization_claim.is_none() && settings.default_organization.is_none() {
            let problem = "must not be empty where oidc.organization_claim is";
            reader.refuse("oidc.default_organization", problem, None);
        }
        if !settings.scopes.split_whitespace().any(|scope| scope == "openid") {
            reader.refuse("oidc.scopes", "must hold openid", None);
        }
        settings
    }

    /// Whether there is an issuer.
    pub fn is_set(&self) -> bool {
        !self.issuer.is_empty()
    }
}

/// A word of an issuer's and the role it stands for: `gateway-admins=admin`.
fn role_of_word(text: &str) -> Result<(String, Role), String> {
    let hint = || format!("write word=role with a role that is {}", one_of_roles());
    let (word, role) = text.rsplit_once('=').ok_or_else(hint)?;
    let role = Role::parse(role.trim()).ok_or_else(hint)?;
    match word.trim() {
        "" => Err(hint()),
        word => Ok((word.to_owned(), role)),
    }
}

fn one_of_roles() -> String {
    format!("one of {}", Role::ALL.map(Role::as_str).join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stands_for_a_role() {
        assert_eq!(role_of_word("ops=admin"), Ok(("ops".to_owned(), Role::Admin)));
        assert_eq!(
            role_of_word("cn=ops,dc=x=viewer"),
            Ok(("cn=ops,dc=x".to_owned(), Role::Viewer))
        );
        for wrong in ["admin", "ops=root", "=admin", ""] {
            assert!(role_of_word(wrong).is_err(), "{wrong}");
        }
    }
}
