//! The tokens of the management API: JSON Web Tokens (RFC 7519) that this gateway signs and nobody else.
//!
//! They are signed with a key that derives from the master key, so every replica accepts them, and with HS256 alone: a
//! token that names another algorithm, or none, is refused whatever it says. They live for a short time. Those of users belong to a
//! session, and whoever checks one looks at it too; nothing can call a script's back.
//!
//! The dashboard's cookie is such a token as well ([`ManagementTokens::of_dashboard`]), of another key and for another
//! audience: neither can be used as the other. It lives as long as its session may.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hmac::Mac as _;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::master_key::MasterKey;
use crate::domain::audit::Via;
use crate::domain::ids::{OrganizationId, TeamId, UserId};
use crate::domain::role::Role;

/// Who signs.
const ISSUER: &str = "bonito";
/// Whom bearer tokens are for.
const AUDIENCE: &str = "bonito-management";
/// Whom the cookies of browsers are for.
const DASHBOARD_AUDIENCE: &str = "bonito-dashboard";
/// Seconds by which the clocks of replicas may differ.
const LEEWAY_S: u64 = 30;
/// The longest a token may live.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// The longest a cookie may: the longest session the settings allow.
pub const MAX_COOKIE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Longest token that is looked at; ours are a fifth of it.
const MAX_TOKEN_BYTES: usize = 2_048;

/// Whom a token is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bearer {
    /// Who, for records of what was done.
    pub subject: String,
    /// What they are in the organization.
    pub role: Role,
    /// The organization.
    pub organization: OrganizationId,
    /// Their team in it.
    pub team: Option<TeamId>,
    /// The user they are; `None`: a script's.
    pub user: Option<UserId>,
    /// What the token belongs to, besides; `None`: nothing, it is good until it is over.
    pub session: Option<Session>,
}

/// The session of a token, whose end is the token's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// The number of the user's last change when the token was signed.
    pub revision: i64,
    /// How the user signed in.
    pub via: Via,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    role: String,
    org: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionClaims>,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: Uuid,
}

#[derive(Serialize, Deserialize)]
struct SessionClaims {
    id: Uuid,
    revision: i64,
    via: String,
}

/// Signs tokens and checks them.
#[derive(Clone)]
pub struct ManagementTokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    audience: &'static str,
    longest: Duration,
}

impl std::fmt::Debug for ManagementTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ManagementTokens")
    }
}

/// Why a token cannot be signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SigningError {
    /// It would live too long, or not at all.
    #[error("a token lives for at least a second and at most 24 hours, a cookie for a year")]
    Lifetime,
    /// The library refuses.
    #[error("the token cannot be signed")]
    Library,
}

impl ManagementTokens {
    /// The bearer tokens of a master key.
    pub fn new(master_key: &MasterKey) -> Self {
        Self::of(&master_key.management_token_key(), AUDIENCE, MAX_LIFETIME)
    }

    /// The cookies of a master key.
    pub fn of_dashboard(master_key: &MasterKey) -> Self {
        let key = master_key
            .purpose("bonito dashboard session v1")
            .finalize()
            .into_bytes();
        Self::of(&key, DASHBOARD_AUDIENCE, MAX_COOKIE_LIFETIME)
    }

    fn of(key: &[u8], audience: &'static str, longest: Duration) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        Self {
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            validation,
            audience,
            longest,
        }
    }

    /// Signs a token that is good from now on for a time.
    ///
    /// # Errors
    /// The time is too long, or none.
    pub fn sign(&self, bearer: &Bearer, now: DateTime<Utc>, lifetime: Duration) -> Result<String, SigningError> {
        if lifetime < Duration::from_secs(1) || lifetime > self.longest {
            return Err(SigningError::Lifetime);
        }
        let now = now.timestamp();
        let lifetime = i64::try_from(lifetime.as_secs()).map_err(|_| SigningError::Lifetime)?;
        let claims = Claims {
            iss: ISSUER.into(),
            aud: self.audience.into(),
            sub: bearer.subject.clone(),
            role: bearer.role.as_str().into(),
            org: bearer.organization.0,
            team: bearer.team.map(|team| team.0),
            user: bearer.user.map(|user| user.0),
            session: bearer.session.map(|session| SessionClaims {
                id: session.id,
                revision: session.revision,
                via: session.via.as_str().into(),
            }),
            iat: now,
            nbf: now,
            exp: now + lifetime,
            jti: Uuid::now_v7(),
        };
        let header = Header::new(Algorithm::HS256);
        jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(|_| SigningError::Library)
    }

    /// Whom a token is for; `None`: it is not one of ours, or not any more. Whoever sent it is not told which.
    pub fn check(&self, token: &str) -> Option<Bearer> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .ok()?
            .claims;
        // Only what can live so long was ever signed; a longer one would be of another version.
        let longest = i64::try_from(self.longest.as_secs()).ok()?;
        if claims.exp.checked_sub(claims.iat)? > longest {
            return None;
        }
        Some(Bearer {
            subject: claims.sub,
            role: Role::parse(&claims.role)?,
            organization: OrganizationId(claims.org),
            team: claims.team.map(TeamId),
            user: claims.user.map(UserId),
            session: match claims.session {
                None => None,
                Some(session) => Some(Session {
                    id: session.id,
                    revision: session.revision,
                    via: Via::parse(&session.via)?,
                }),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use chrono::TimeDelta;

    use super::*;
    use crate::secrets::master_key::MasterKeySources;

    fn tokens(byte: u8) -> ManagementTokens {
        let value = STANDARD.encode([byte; 32]);
        let sources = MasterKeySources {
            value: Some(&value),
            ..MasterKeySources::default()
        };
        ManagementTokens::new(&MasterKey::find(&sources).unwrap())
    }

    fn bearer() -> Bearer {
        Bearer {
            subject: "a script".into(),
            role: Role::Admin,
            organization: OrganizationId(Uuid::from_u128(7)),
            team: Some(TeamId(Uuid::from_u128(8))),
            user: Some(UserId(Uuid::from_u128(9))),
            session: Some(Session {
                id: Uuid::from_u128(10),
                revision: 11,
                via: Via::Oidc,
            }),
        }
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_cookie_is_no_bearer_token_and_the_other_way_round() {
        let sources = MasterKeySources {
            value: Some(&STANDARD.encode([1; 32])),
            ..MasterKeySources::default()
        };
        let cookies = ManagementTokens::of_dashboard(&MasterKey::find(&sources).unwrap());
        let cookie = cookies.sign(&bearer(), Utc::now(), 48 * HOUR).unwrap();
        assert_eq!(
            cookies.check(&cookie),
            Some(bearer()),
            "it lives longer than bearer tokens may"
        );
        assert_eq!(tokens(1).check(&cookie), None);
        let token = tokens(1).sign(&bearer(), Utc::now(), HOUR).unwrap();
        assert_eq!(cookies.check(&token), None);
    }

    #[test]
    fn a_token_is_for_whom_it_was_signed() {
        let token = tokens(1).sign(&bearer(), Utc::now(), HOUR).unwrap();
        assert_eq!(tokens(1).check(&token), Some(bearer()));
        assert_eq!(tokens(2).check(&token), None, "another master key");
    }

    #[test]
    fn a_token_that_is_over_or_not_yet_good_is_none() {
        let now = Utc::now();
        let over = tokens(1).sign(&bearer(), now - TimeDelta::hours(2), HOUR).unwrap();
        let later = tokens(1).sign(&bearer(), now + TimeDelta::hours(1), HOUR).unwrap();
        assert_eq!((tokens(1).check(&over), tokens(1).check(&later)), (None, None));
    }

    #[test]
    fn no_token_lives_for_ever() {
        for lifetime in [Duration::ZERO, MAX_LIFETIME + Duration::from_secs(1)] {
            assert_eq!(
                tokens(1).sign(&bearer(), Utc::now(), lifetime),
                Err(SigningError::Lifetime)
            );
        }
    }

    /// A token with these claims, signed with the right key by whatever algorithm the header names.
    fn forged(header: &Header, change: impl FnOnce(&mut serde_json::Value)) -> String {
        let now = Utc::now().timestamp();
        let mut claims = serde_json::json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "x", "role": "owner", "org": Uuid::from_u128(7),
            "iat": now, "nbf": now, "exp": now + 60, "jti": Uuid::from_u128(1),
        });
        change(&mut claims);
        jsonwebtoken::encode(header, &claims, &tokens(1).encoding).unwrap()
    }

    #[test]
    fn whatever_is_not_as_we_sign_it_is_refused() {
        let hs256 = Header::new(Algorithm::HS256);
        assert!(tokens(1).check(&forged(&hs256, |_| {})).is_some());
        for (name, token) in [
            ("another issuer", forged(&hs256, |c| c["iss"] = "evil".into())),
            ("another audience", forged(&hs256, |c| c["aud"] = "bonito-other".into())),
            (
                "no audience",
                forged(&hs256, |c| drop(c.as_object_mut().unwrap().remove("aud"))),
            ),
            (
                "no end",
                forged(&hs256, |c| drop(c.as_object_mut().unwrap().remove("exp"))),
            ),
            (
                "no beginning",
                forged(&hs256, |c| drop(c.as_object_mut().unwrap().remove("nbf"))),
            ),
            ("an unknown role", forged(&hs256, |c| c["role"] = "root".into())),
            (
                "too long a life",
                forged(&hs256, |c| c["exp"] = (Utc::now().timestamp() + 1_000_000).into()),
            ),
            ("another algorithm", forged(&Header::new(Algorithm::HS512), |_| {})),
            ("junk", "a.b.c".into()),
            ("nothing", String::new()),
            ("far too much", "x".repeat(100_000)),
        ] {
            assert_eq!(tokens(1).check(&token), None, "{name}");
        }
        // The well-known trick: no algorithm and no signature.
        let token = forged(&hs256, |_| {});
        let claims = token.split('.').nth(1).unwrap();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        assert_eq!(tokens(1).check(&format!("{none}.{claims}.")), None);
    }

    #[test]
    fn a_token_whose_text_was_changed_is_refused() {
        let token = tokens(1).sign(&bearer(), Utc::now(), HOUR).unwrap();
        for place in [5, token.len() / 2, token.len() - 10] {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(tokens(1).check(&String::from_utf8(changed).unwrap()), None, "{place}");
        }
    }
}
