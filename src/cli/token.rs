//! `bonito token`: a token for the management API, for scripts and for the first steps.
//!
//! It is signed with what derives from the master key, so only whoever has that can make one. That one was made, for whom and
//! until when, is in the organization's audit log.

use std::process::ExitCode;
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use clap::Args;
use serde_json::json;

use super::say;
use crate::config::Settings;
use crate::domain::audit::{Author, Deed};
use crate::domain::error::BoxError;
use crate::domain::role::Role;
use crate::secrets::management_token::{Bearer, ManagementTokens};
use crate::store::organizations::FIRST_SLUG;

/// Longest subject, in characters.
const MAX_SUBJECT_CHARS: usize = 128;

/// What the token is to say.
#[derive(Args)]
pub struct Arguments {
    /// The role: platform_admin, owner, admin, team_admin, member or viewer.
    #[arg(long, default_value = "admin", value_parser = role)]
    role: Role,
    /// The organization, by its short name.
    #[arg(long, default_value = FIRST_SLUG)]
    organization: String,
    /// The team, by its short name, for the role of a team_admin.
    #[arg(long)]
    team: Option<String>,
    /// How long it is good for: 90s, 15m, 8h. At most 24h.
    #[arg(long, default_value = "1h", value_parser = lifetime)]
    ttl: Duration,
    /// Whose it is, for records of what is done with it.
    #[arg(long, default_value = "bonito token")]
    subject: String,
}

/// Makes a token and shows it.
pub async fn run(arguments: Arguments, settings: &Settings) -> Result<ExitCode, BoxError> {
    let subject = arguments.subject.trim();
    if subject.is_empty() || subject.chars().count() > MAX_SUBJECT_CHARS || subject.chars().any(char::is_control) {
        return Err(format!("--subject must have 1 to {MAX_SUBJECT_CHARS} printable characters").into());
    }
    let opened = super::open(settings).await?;
    let slug = &arguments.organization;
    let organization = opened.store.organization_by_slug(slug).await?;
    let organization = organization.ok_or_else(|| format!("there is no organization {slug:?}"))?;
    let team = match &arguments.team {
        None => None,
        Some(slug) => {
            let found = opened.store.team_by_slug(organization, slug).await?;
            Some(found.ok_or_else(|| format!("there is no team {slug:?}"))?)
        }
    };
    let bearer = Bearer {
        subject: subject.to_owned(),
        role: arguments.role,
        organization,
        team,
        user: None,
        session: None,
    };
    let now = Utc::now();
    let token = ManagementTokens::new(&opened.master_key).sign(&bearer, now, arguments.ttl)?;
    let end = now + TimeDelta::from_std(arguments.ttl).unwrap_or_default();
    let deed = Deed::new("token.issue", subject).after(json!({
        "role": bearer.role.as_str(), "team_id": team.map(|team| team.0),
        "expires_at": end.to_rfc3339_opts(SecondsFormat::Secs, true),
    }));
    // Written down before anybody has it.
    let by = Author::system("bonito token");
    opened.store.append_audit(organization, &by, deed).await?;
    say(&token);
    opened.store.close().await;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn role(text: &str) -> Result<Role, String> {
    let names = Role::ALL.map(Role::as_str).join(", ");
    Role::parse(text).ok_or_else(|| format!("must be one of {names}"))
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().map_or(0, |unit| match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => 0,
    });
    let number = text
        .get(..text.len().saturating_sub(1))
        .and_then(|number| number.parse::<u64>().ok());
    match number.and_then(|number| number.checked_mul(unit)) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a time such as 90s, 15m or 8h, at most 24h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_has_a_unit_and_an_end() {
        assert_eq!(lifetime("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(lifetime("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(lifetime("24h"), Ok(Duration::from_secs(86_400)));
        for text in [
            "",
            "5",
            "0s",
            "25h",
            "1d",
            "-1h",
            "h",
            "1.5h",
            "99999999999999999999h",
            "1é",
        ] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
