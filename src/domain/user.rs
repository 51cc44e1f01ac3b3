//! People who manage the gateway: who they are in an organization, and who may make them what.
//!
//! Rights are `role`'s. Here is that nobody makes of anybody more than they are themselves ([`may_create`],
//! [`may_change`], [`may_delete`]), and that an organization is never left without somebody who may manage it.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::audit::Via;
use super::ids::{OrganizationId, TeamId, UserId};
use super::role::Role;

/// Longest name of a person, in characters.
pub const MAX_NAME_CHARS: usize = 128;
/// Longest address, in bytes: RFC 5321, section 4.5.3.1, allows 64 before the at sign and 255 behind it.
const MAX_EMAIL_BYTES: usize = 254;
/// Fewest characters of a password.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// Longest password, in bytes: hashing takes as long as it is.
pub const MAX_PASSWORD_BYTES: usize = 256;

/// The address somebody signs in with, in lower case: two spellings of it are one person.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Email(String);

impl Email {
    /// Reads an address.
    ///
    /// # Errors
    /// It is none; the text says what one looks like, without its subject.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim().to_lowercase();
        let (local, domain) = text.split_once('@').ok_or("must be an e-mail address")?;
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>()[],;:\\\"".contains(c);
        let whole = !local.is_empty() && !domain.is_empty() && !domain.contains('@');
        let dotted = domain.split('.').all(|label| !label.is_empty());
        if text.len() > MAX_EMAIL_BYTES || local.len() > 64 {
            return Err("is too long for an e-mail address");
        }
        if whole && dotted && text.chars().all(plain) {
            Ok(Self(text))
        } else {
            Err("must be an e-mail address")
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a new password, without its subject; `None`: nothing.
pub fn password_problem(password: &str, email: &Email) -> Option<&'static str> {
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return Some("must have at least 12 characters");
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Some("must have at most 256 bytes");
    }
    let lower = password.to_lowercase();
    let local = email.as_str().split('@').next().unwrap_or_default();
    if lower.contains(email.as_str()) || (lower.starts_with(local) && lower.len() < local.len() + 6) {
        return Some("must not be made of the e-mail address");
    }
    let first = password.chars().next();
    if password.chars().all(|c| Some(c) == first) {
        return Some("must not be one character over and over");
    }
    None
}

/// Somebody who manages the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their organization.
    pub organization: OrganizationId,
    /// Their team in it.
    pub team: Option<TeamId>,
    /// What they sign in with.
    pub email: Email,
    /// Their name for people.
    pub name: String,
    /// What they are.
    pub role: Role,
    /// Whether they may not sign in for the time being.
    pub disabled: bool,
    /// Whether they have a password.
    pub has_password: bool,
    /// Whether they must change it before they do anything else.
    pub must_change_password: bool,
    /// Whether an external issuer vouches for them.
    pub external: bool,
    /// When they last signed in.
    pub last_sign_in_at: Option<DateTime<Utc>>,
    /// When they were created.
    pub created_at: DateTime<Utc>,
    /// When they were last changed.
    pub updated_at: DateTime<Utc>,
    /// The number of that change. A token that was signed before it is not good any more.
    pub revision: i64,
}

/// A user to be created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewUser {
    /// Their id.
    pub id: UserId,
    /// Their organization.
    pub organization: OrganizationId,
    /// Their team in it.
    pub team: Option<TeamId>,
    /// What they sign in with.
    pub email: Email,
    /// Their name for people.
    pub name: String,
    /// What they are.
    pub role: Role,
    /// The hash of their password; `None`: they cannot sign in with one.
    pub password_hash: Option<String>,
    /// Whether they must change it before they do anything else.
    pub must_change_password: bool,
}

/// What is to be changed about a user; `None`: stays as it is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UserChange {
    /// Their name for people.
    pub name: Option<String>,
    /// What they are.
    pub role: Option<Role>,
    /// Their team; `Some(None)`: none any more.
    pub team: Option<Option<TeamId>>,
    /// Whether they may not sign in.
    pub disabled: Option<bool>,
    /// The hash of another password, which they must change; it ends their sessions.
    pub password_hash: Option<String>,
}

impl UserChange {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why somebody may not make a change of a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The user is more than who wants to change them.
    AboveYou(Role),
    /// They would be more than who wants to make them that.
    MoreThanYou(Role),
    /// Whoever is a team admin has a team.
    NeedsTeam,
    /// Nobody would be left who may manage the organization.
    LastOwner,
}

/// Whether somebody of a role may create a user.
///
/// # Errors
/// They may not.
pub fn may_create(actor: Role, role: Role, team: Option<TeamId>) -> Result<(), Denied> {
    if !actor.may_make(role) {
        return Err(Denied::MoreThanYou(role));
    }
    consistent(role, team)
}

/// Whether somebody of a role may change a user as they want. `others_keep` says whether somebody else keeps the
/// organization: is not disabled and may manage its members, owners included.
///
/// # Errors
/// They may not.
pub fn may_change(actor: Role, user: &User, change: &UserChange, others_keep: bool) -> Result<(), Denied> {
    if !actor.may_make(user.role) {
        return Err(Denied::AboveYou(user.role));
    }
    let role = change.role.unwrap_or(user.role);
    if !actor.may_make(role) {
        return Err(Denied::MoreThanYou(role));
    }
    consistent(role, change.team.unwrap_or(user.team))?;
    let kept = keeps(role, change.disabled.unwrap_or(user.disabled));
    if keeps(user.role, user.disabled) && !kept && !others_keep {
        return Err(Denied::LastOwner);
    }
    Ok(())
}

/// Whether somebody of a role may delete a user.
///
/// # Errors
/// They may not.
pub fn may_delete(actor: Role, user: &User, others_keep: bool) -> Result<(), Denied> {
    if !actor.may_make(user.role) {
        return Err(Denied::AboveYou(user.role));
    }
    if keeps(user.role, user.disabled) && !others_keep {
        return Err(Denied::LastOwner);
    }
    Ok(())
}

/// Whether somebody can manage their organization's members, owners included.
pub fn keeps(role: Role, disabled: bool) -> bool {
    !disabled && role.may_make(Role::Owner)
}

fn consistent(role: Role, team: Option<TeamId>) -> Result<(), Denied> {
    if role == Role::TeamAdmin && team.is_none() {
        Err(Denied::NeedsTeam)
    } else {
        Ok(())
    }
}

/// What became of creating a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UserCreated {
    /// There they are.
    Created(User),
    /// Somebody of this installation has that address.
    EmailTaken,
    /// The organization has no such team.
    NoSuchTeam,
    /// There is no such organization.
    NoSuchOrganization,
}

/// What became of changing or deleting a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UserChanged {
    /// It was done; this is what they are, or were.
    Done(User),
    /// It may not be done.
    Denied(Denied),
    /// The organization has no such user.
    NoSuchUser,
    /// The organization has no such team.
    NoSuchTeam,
    /// So many keys that are not revoked are theirs.
    OwnsKeys(u64),
}

/// Somebody who signs in, with what their password is compared with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Who.
    pub user: User,
    /// The hash of their password.
    pub password_hash: Option<String>,
}

/// Somebody an external issuer vouches for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalPerson {
    /// The issuer and the subject, in one text.
    pub external_id: String,
    /// Their address.
    pub email: Email,
    /// Whether the issuer has made sure that it is theirs.
    pub email_verified: bool,
    /// Their name for people.
    pub name: String,
    /// Their organization.
    pub organization: OrganizationId,
    /// Their team in it.
    pub team: Option<TeamId>,
    /// What they are.
    pub role: Role,
}

/// What became of their signing in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExternalSignIn {
    /// There is a session.
    SignedIn(User),
    /// They may not sign in.
    Disabled,
    /// Somebody else has that address, or it was not made sure that it is theirs.
    EmailTaken,
    /// The organization has no such team.
    NoSuchTeam,
}

/// A session: from a sign-in to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: uuid::Uuid,
    /// Whose it is.
    pub user: UserId,
    /// How they signed in.
    pub via: Via,
    /// The keyed hash of its first refresh token.
    pub hash: String,
    /// When it began.
    pub now: DateTime<Utc>,
    /// When it ends unless it is refreshed.
    pub expires_at: DateTime<Utc>,
    /// When it ends whatever happens.
    pub ends_at: DateTime<Utc>,
}

/// A refresh token that was presented, and the one that takes its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refresh {
    /// The session.
    pub session: uuid::Uuid,
    /// How often it had been refreshed before the token was made.
    pub generation: u32,
    /// The keyed hash of the token.
    pub hash: String,
    /// That of the next one.
    pub next_hash: String,
    /// When it is presented.
    pub now: DateTime<Utc>,
    /// When the session ends unless it is refreshed again, or earlier by its own end.
    pub expires_at: DateTime<Utc>,
}

/// What became of a refresh token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refreshed {
    /// It was good, and is not any more.
    Good {
        /// Whose session it is.
        user: User,
        /// How they signed in.
        via: Via,
    },
    /// It had been used before. Somebody has a copy, so the session is over for everybody.
    Reused,
    /// There is no such session any more.
    Unknown,
}

/// A session as every request of it is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionState {
    /// The number of the user's last change.
    pub revision: i64,
    /// Whether they must change their password before they do anything else.
    pub must_change_password: bool,
    /// When it ends unless it is used.
    pub expires_at: DateTime<Utc>,
    /// When it ends whatever happens.
    pub ends_at: DateTime<Utc>,
}

/// A session is renewed when so many-th part of the time that it may go unused has passed: not by every request.
const RENEWED_PARTS: i32 = 100;

impl SessionState {
    /// Until when the session is good from now on, if it is time to say so: `unused` is how long one may go unused. Never
    /// beyond its end.
    pub fn renewed(&self, now: DateTime<Utc>, unused: Duration) -> Option<DateTime<Utc>> {
        let unused = TimeDelta::from_std(unused).ok()?;
        if now >= self.expires_at || self.expires_at - now > unused - unused / RENEWED_PARTS {
            return None;
        }
        let until = now.checked_add_signed(unused)?.min(self.ends_at);
        (until > self.expires_at).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::role::Right;

    fn user(role: Role) -> User {
        User {
            id: UserId(Uuid::from_u128(1)),
            organization: OrganizationId(Uuid::from_u128(2)),
            team: Some(TeamId(Uuid::from_u128(3))),
            email: Email::parse("a@example.com").unwrap(),
            name: "A".into(),
            role,
            disabled: false,
            has_password: true,
            must_change_password: false,
            external: false,
            last_sign_in_at: None,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            revision: 1,
        }
    }

    #[test]
    fn an_address_is_read_in_one_spelling() {
        for (text, expected) in [
            ("Ada@Example.COM", "ada@example.com"),
            (" ada+ops@localhost ", "ada+ops@localhost"),
            ("ada@mail.example.com", "ada@mail.example.com"),
        ] {
            assert_eq!(Email::parse(text).unwrap().as_str(), expected);
        }
        for text in [
            "",
            "ada",
            "@",
            "ada@",
            "@example.com",
            "a@b@c",
            "a b@example.com",
            "a@example..com",
            "a@.com",
            "<a@example.com>",
            &format!("{}@example.com", "a".repeat(65)),
            &format!("a@{}.com", "b".repeat(260)),
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_long_and_nothing_obvious() {
        let email = Email::parse("ada.lovelace@example.com").unwrap();
        for good in ["correct horse battery", "пароль-длинный", "x1x2x3x4x5x6"] {
            assert_eq!(password_problem(good, &email), None, "{good}");
        }
        for bad in [
            "short",
            "aaaaaaaaaaaaaaaa",
            "Ada.Lovelace12",
            "my ada.lovelace@example.com",
            &"ab".repeat(129),
        ] {
            assert!(password_problem(bad, &email).is_some(), "{bad}");
        }
    }

    #[test]
    fn nobody_makes_of_anybody_more_than_they_are() {
        for actor in Role::ALL {
            for made in Role::ALL.into_iter().filter(|made| actor.may_make(*made)) {
                for &right in Right::ALL {
                    assert!(
                        actor.may(right) || !made.may(right),
                        "{actor} makes {made}, who may {right:?}"
                    );
                }
                assert!(actor.everywhere() || !made.everywhere(), "{actor} makes {made}");
            }
        }
    }

    #[test]
    fn the_last_who_keeps_an_organization_stays() {
        let demote = UserChange {
            role: Some(Role::Admin),
            ..UserChange::default()
        };
        let disable = UserChange {
            disabled: Some(true),
            ..UserChange::default()
        };
        let rename = UserChange {
            name: Some("B".into()),
            ..UserChange::default()
        };
        let owner = user(Role::Owner);
        for change in [&demote, &disable] {
            assert_eq!(may_change(Role::Owner, &owner, change, false), Err(Denied::LastOwner));
            assert_eq!(
                may_change(Role::PlatformAdmin, &owner, change, false),
                Err(Denied::LastOwner)
            );
            assert_eq!(may_change(Role::Owner, &owner, change, true), Ok(()));
        }
        assert_eq!(may_change(Role::Owner, &owner, &rename, false), Ok(()));
        assert_eq!(may_delete(Role::Owner, &owner, false), Err(Denied::LastOwner));
        assert_eq!(may_delete(Role::Owner, &owner, true), Ok(()));
        let disabled = User {
            disabled: true,
            ..owner
        };
        assert_eq!(may_delete(Role::Owner, &disabled, false), Ok(()));
        assert_eq!(may_delete(Role::Owner, &user(Role::Admin), false), Ok(()));
    }

    #[test]
    fn a_team_admin_has_a_team() {
        let team = TeamId(Uuid::from_u128(3));
        assert_eq!(may_create(Role::Owner, Role::TeamAdmin, None), Err(Denied::NeedsTeam));
        assert_eq!(may_create(Role::Owner, Role::TeamAdmin, Some(team)), Ok(()));
        let leave = UserChange {
            team: Some(None),
            ..UserChange::default()
        };
        assert_eq!(
            may_change(Role::Owner, &user(Role::TeamAdmin), &leave, true),
            Err(Denied::NeedsTeam)
        );
    }

    proptest! {
        #[test]
        fn who_is_above_is_neither_changed_nor_deleted(actor in 0..6_usize, target in 0..6_usize, made in 0..6_usize) {
            let (actor, target, made) = (Role::ALL[actor], Role::ALL[target], Role::ALL[made]);
            let change = UserChange { role: Some(made), ..UserChange::default() };
            let allowed = may_change(actor, &user(target), &change, true).is_ok();
            prop_assert_eq!(allowed, actor.may_make(target) && actor.may_make(made));
            prop_assert_eq!(may_delete(actor, &user(target), true).is_ok(), actor.may_make(target));
        }

        #[test]
        fn a_session_is_renewed_now_and_then_and_never_beyond_its_end(
            left in -1_000..900_000_i64, to_end in 0..3_000_000_i64, unused in 1..800_000_u64,
        ) {
            let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
            let state = SessionState {
                revision: 1,
                must_change_password: false,
                expires_at: now + TimeDelta::seconds(left.min(to_end)),
                ends_at: now + TimeDelta::seconds(to_end),
            };
            match state.renewed(now, Duration::from_secs(unused)) {
                Some(until) => {
                    prop_assert!(until > state.expires_at && until <= state.ends_at && state.expires_at > now);
                    prop_assert!(until <= now + TimeDelta::seconds(i64::try_from(unused).unwrap()));
                    // Right afterwards there is nothing to do.
                    let renewed = SessionState { expires_at: until, ..state };
                    prop_assert_eq!(renewed.renewed(now, Duration::from_secs(unused)), None);
                }
                // What is over is not brought back.
                None => prop_assert!(left <= 0 || to_end <= 0 || left.min(to_end) * 100 >= 99 * i64::try_from(unused).unwrap() || left >= to_end),
            }
        }

        #[test]
        fn reading_an_address_never_panics(text in ".{0,300}") {
            if let Ok(email) = Email::parse(&text) {
                prop_assert_eq!(Email::parse(email.as_str()), Ok(email.clone()));
            }
        }
    }
}
