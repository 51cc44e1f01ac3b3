//! What the proofs about users are good for.

use secrecy::SecretString;
use uuid::Uuid;

use super::sign_in::busy;
use super::{May, ReadUsers, WriteUsers};
use crate::domain::ids::{TeamId, UserId};
use crate::domain::role::Role;
use crate::domain::user::{Denied, Email, NewUser, User, UserChange, UserChanged, UserCreated, may_create};
use crate::http::management::problem::Refusal;
use crate::secrets::password;

/// A user to be.
pub struct UserToBe {
    /// What they sign in with.
    pub email: Email,
    /// Their name for people.
    pub name: String,
    /// What they are.
    pub role: Role,
    /// Their team.
    pub team: Option<TeamId>,
    /// How they sign in.
    pub way_in: WayIn,
}

/// How somebody who is created signs in.
pub enum WayIn {
    /// By a password that is made up for them.
    Generated,
    /// By a password that was chosen for them.
    Chosen(SecretString),
    /// By the external issuer alone.
    External,
}

impl May<ReadUsers> {
    /// The users the caller may see, oldest first, after one of them.
    pub async fn users(&self, team: Option<TeamId>, after: Option<UserId>, most: u64) -> Result<Vec<User>, Refusal> {
        let team = match self.confined_to()? {
            Some(own) if team.is_some_and(|team| team != own) => return Ok(Vec::new()),
            own => own.or(team),
        };
        let found = self
            .management
            .people
            .users
            .users(self.organization, team, after, most)
            .await;
        found.map_err(|error| Refusal::unavailable(&error))
    }

    /// One of them.
    pub async fn user(&self, id: UserId) -> Result<User, Refusal> {
        let confined = self.confined_to()?;
        let found = self.management.people.users.user(self.organization, id).await;
        let found = found.map_err(|error| Refusal::unavailable(&error))?;
        found
            .filter(|user| confined.is_none_or(|own| user.team == Some(own)))
            .ok_or_else(|| Refusal::not_found("user"))
    }
}

impl May<WriteUsers> {
    /// Creates a user, with the password that was made up for them.
    pub async fn create(&self, user: UserToBe) -> Result<(User, Option<SecretString>), Refusal> {
        may_create(self.bearer.role, user.role, user.team).map_err(|denied| self.denied(denied))?;
        let generated = matches!(user.way_in, WayIn::Generated).then(password::generated);
        let password_hash = match (&user.way_in, &generated) {
            (WayIn::Chosen(chosen), _) => Some(
                self.management
                    .hash_new(&user.email, chosen.clone(), "/password")
                    .await?,
            ),
            (_, Some(generated)) => {
                let hashed = self.management.people.passwords.hash(generated.clone()).await;
                Some(hashed.map_err(busy)?)
            }
            (_, None) => None,
        };
        let new = NewUser {
            id: UserId(Uuid::now_v7()),
            organization: self.organization,
            team: user.team,
            email: user.email,
            name: user.name,
            role: user.role,
            must_change_password: password_hash.is_some(),
            password_hash,
        };
        let created = self.management.people.users.create_user(new, &self.author).await;
        match created.map_err(|error| Refusal::unavailable(&error))? {
            UserCreated::Created(user) => Ok((user, generated)),
            UserCreated::EmailTaken => Err(Refusal::conflict(
                "email: somebody of this installation has this address",
            )),
            UserCreated::NoSuchTeam => Err(Refusal::field("/team_id", "is no team of the organization")),
            UserCreated::NoSuchOrganization => Err(Refusal::not_found("organization")),
        }
    }

    /// Changes a user; with another password, made up for them, if that is asked for.
    pub async fn change(
        &self,
        id: UserId,
        mut change: UserChange,
        reset_password: bool,
    ) -> Result<(User, Option<SecretString>), Refusal> {
        let users = &self.management.people.users;
        // Nobody waits for a hash about somebody who is not there, or learns from the wait that they are.
        let there = users.user(self.organization, id).await;
        let there = there.map_err(|error| Refusal::unavailable(&error))?;
        let there = there.ok_or_else(|| Refusal::not_found("user"))?;
        if !self.bearer.role.may_make(there.role) {
            return Err(self.denied(Denied::AboveYou(there.role)));
        }
        let generated = reset_password.then(password::generated);
        if let Some(generated) = &generated {
            let hashed = self.management.people.passwords.hash(generated.clone()).await;
            change.password_hash = Some(hashed.map_err(busy)?);
        }
        let changed = users
            .change_user(self.organization, id, &change, self.bearer.role, &self.author)
            .await;
        let user = self.done(changed.map_err(|error| Refusal::unavailable(&error))?)?;
        Ok((user, generated))
    }

    /// Deletes a user.
    pub async fn delete(&self, id: UserId) -> Result<(), Refusal> {
        let users = &self.management.people.users;
        let deleted = users
            .delete_user(self.organization, id, self.bearer.role, &self.author)
            .await;
        self.done(deleted.map_err(|error| Refusal::unavailable(&error))?)
            .map(drop)
    }

    fn done(&self, changed: UserChanged) -> Result<User, Refusal> {
        match changed {
            UserChanged::Done(user) => Ok(user),
            UserChanged::Denied(denied) => Err(self.denied(denied)),
            UserChanged::NoSuchUser => Err(Refusal::not_found("user")),
            UserChanged::NoSuchTeam => Err(Refusal::field("/team_id", "is no team of the organization")),
            UserChanged::OwnsKeys(count) => Err(Refusal::conflict(format!(
                "{count} keys that are not revoked are theirs; revoke them or give them to somebody else first"
            ))),
        }
    }

    fn denied(&self, denied: Denied) -> Refusal {
        let own = self.bearer.role;
        match denied {
            Denied::AboveYou(role) => {
                Refusal::forbidden(format!("the role {own} may not change somebody who is {role}"))
            }
            Denied::MoreThanYou(role) => Refusal::forbidden(format!(
                "the role {own} may not make somebody {role}: nobody gives more than they hold"
            )),
            Denied::NeedsTeam => Refusal::field("/team_id", "must name the team of a team_admin"),
            Denied::LastOwner => Refusal::conflict(
                "nobody would be left who may manage the organization: make somebody else its owner first",
            ),
        }
    }
}
