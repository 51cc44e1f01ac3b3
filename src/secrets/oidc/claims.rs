//! What an issuer says of somebody, and what that makes of them here.

use serde_json::{Map, Value};

use super::OidcError;
use crate::config::OidcSettings;
use crate::domain::role::Role;
use crate::domain::user::Email;

/// What a token says.
#[derive(Clone, PartialEq, Debug)]
pub struct Claims(pub Map<String, Value>);

/// What that makes of somebody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// The issuer and the subject, in one text.
    pub external_id: String,
    /// What the issuer calls them.
    pub subject: String,
    /// Their address.
    pub email: Option<Email>,
    /// Whether the issuer has made sure that it is theirs.
    pub email_verified: bool,
    /// Their name for people.
    pub name: Option<String>,
    /// The short name of their organization.
    pub organization: String,
    /// The short name of their team.
    pub team: Option<String>,
    /// What they are.
    pub role: Role,
}

impl Claims {
    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim by its name, or by a path of names with dots between them.
    fn at(&self, path: &str) -> Option<&Value> {
        if let Some(found) = self.0.get(path) {
            return Some(found);
        }
        let mut names = path.split('.');
        let first = self.0.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }

    /// The texts of a claim that is one or a list of them.
    fn texts(&self, path: &str) -> Vec<&str> {
        match self.at(path) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// What they make of somebody.
    pub(super) fn claimed(&self, settings: &OidcSettings) -> Result<Claimed, OidcError> {
        let subject = self
            .text("sub")
            .filter(|subject| !subject.is_empty() && subject.len() <= 255);
        let subject = subject.ok_or(OidcError::Rejected("the issuer's token names nobody"))?;
        let words = self.texts(&settings.role_claim);
        let fitting = settings.roles.iter().find(|(word, _)| words.contains(&word.as_str()));
        let role = fitting.map(|(_, role)| *role).or(settings.default_role);
        let role =
            role.ok_or_else(|| OidcError::NotAllowed("the issuer says nothing of you that is a role here".into()))?;
        let said = settings
            .organization_claim
            .as_deref()
            .and_then(|claim| self.texts(claim).first().copied());
        let organization = said.or(settings.default_organization.as_deref());
        let organization = organization.ok_or_else(|| {
            OidcError::NotAllowed("the issuer says nothing of you that is an organization here".into())
        })?;
        let team = settings
            .team_claim
            .as_deref()
            .and_then(|claim| self.texts(claim).first().copied());
        let name = self.text("name").or_else(|| self.text("preferred_username"));
        let name = name.map(|name| name.chars().filter(|c| !c.is_control()).take(128).collect::<String>());
        Ok(Claimed {
            external_id: format!("{}|{subject}", settings.issuer),
            subject: subject.to_owned(),
            email: self.text("email").and_then(|email| Email::parse(email).ok()),
            // Some issuers write it as a text.
            email_verified: matches!(self.0.get("email_verified"), Some(Value::Bool(true)))
                || self.text("email_verified") == Some("true"),
            name: name.filter(|name| !name.trim().is_empty()),
            organization: organization.to_owned(),
            team: team.map(str::to_owned),
            role,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> OidcSettings {
        OidcSettings {
            issuer: "https://login.example.com".into(),
            client_id: "bonito".into(),
            client_secret: None,
            audience: None,
            scopes: "openid".into(),
            organization_claim: Some("org".into()),
            default_organization: Some("default".into()),
            role_claim: "realm_access.roles".into(),
            roles: vec![("owners".into(), Role::Owner), ("staff".into(), Role::Member)],
            default_role: None,
            team_claim: Some("team".into()),
        }
    }

    fn claimed(claims: Value, settings: &OidcSettings) -> Result<Claimed, OidcError> {
        let Value::Object(claims) = claims else {
            panic!("an object")
        };
        Claims(claims).claimed(settings)
    }

    #[test]
    fn the_first_word_that_fits_says_what_somebody_is() {
        let claims = json!({
            "sub": "7", "email": "Ada@Example.com", "email_verified": "true", "preferred_username": "ada",
            "realm_access": {"roles": ["staff", "owners"]}, "org": "acme", "team": ["red", "blue"]
        });
        let found = claimed(claims, &settings()).unwrap();
        assert_eq!(
            (found.role, found.organization.as_str(), found.team.as_deref()),
            (Role::Owner, "acme", Some("red"))
        );
        assert_eq!(found.external_id, "https://login.example.com|7");
        assert_eq!(
            (
                found.email.unwrap().as_str(),
                found.email_verified,
                found.name.as_deref()
            ),
            ("ada@example.com", true, Some("ada"))
        );
    }

    #[test]
    fn who_is_nothing_here_is_refused_and_a_word_that_is_a_roles_name_means_nothing() {
        let claims = json!({"sub": "7", "realm_access": {"roles": ["platform_admin", "owner"]}});
        assert!(matches!(
            claimed(claims.clone(), &settings()),
            Err(OidcError::NotAllowed(_))
        ));
        let lenient = OidcSettings {
            default_role: Some(Role::Viewer),
            ..settings()
        };
        let found = claimed(claims.clone(), &lenient).unwrap();
        assert_eq!((found.role, found.organization.as_str()), (Role::Viewer, "default"));
        let strict = OidcSettings {
            default_organization: None,
            ..lenient
        };
        assert!(matches!(claimed(claims, &strict), Err(OidcError::NotAllowed(_))));
        assert!(matches!(
            claimed(json!({"sub": ""}), &settings()),
            Err(OidcError::Rejected(_))
        ));
    }

    #[test]
    fn a_name_with_dots_is_a_name_before_it_is_a_path() {
        let named = OidcSettings {
            role_claim: "https://example.com/roles".into(),
            ..settings()
        };
        let claims = json!({"sub": "7", "https://example.com/roles": "owners"});
        assert_eq!(claimed(claims, &named).unwrap().role, Role::Owner);
    }
}
