//! Users and their sessions.
//!
//! Every change of a user takes the next number of a counter and holds it to its end. So changes take turns: what a change
//! looked at, such as whether somebody else keeps the organization, is still so when it is written.

use chrono::{DateTime, Utc};
use entity::{gateway_keys, organizations, refresh_tokens, teams, users};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait, Condition, ConnectionTrait, EntityTrait, IntoActiveModel as _,
    PaginatorTrait as _, QueryFilter, QueryOrder, QuerySelect, Set,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::revisions::USERS;
use super::{Store, StoreError, audit, storable, storable_text};
use crate::domain::audit::{Author, Deed, Via};
use crate::domain::ids::{OrganizationId, TeamId, UserId};
use crate::domain::role::Role;
use crate::domain::user::{
    Account, Email, ExternalPerson, ExternalSignIn, NewSession, NewUser, Refresh, Refreshed, SessionState, User,
    UserChange, UserChanged, UserCreated, keeps, may_change, may_delete,
};

/// Sessions of one user; the one that was refreshed the longest time ago ends when there would be more.
const MAX_SESSIONS: u64 = 20;

impl Store {
    /// Whether there is any user, of whichever organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn has_users(&self) -> Result<bool, StoreError> {
        Ok(users::Entity::find().count(&self.db).await? > 0)
    }

    /// Creates the first user, in the oldest organization, unless there is a user already. Says whether it did.
    ///
    /// # Errors
    /// The database fails; then nothing was created.
    pub async fn create_first_user(&self, user: impl FnOnce(OrganizationId) -> NewUser) -> Result<bool, StoreError> {
        let change = self.begin_change(&USERS).await?;
        let db = &change.transaction;
        let oldest = organizations::Entity::find()
            .order_by_asc(organizations::Column::Id)
            .one(db)
            .await?;
        let there = users::Entity::find().count(db).await?;
        let Some(organization) = oldest.filter(|_| there == 0) else {
            return change.finish(0).await;
        };
        let row = new_row(user(OrganizationId(organization.id)), None, change.revision);
        users::Entity::insert(row.clone().into_active_model())
            .exec_without_returning(db)
            .await?;
        if let Some(user) = read(row) {
            let deed = Deed::new("user.create", user.id).after(described(&user));
            audit::record(db, user.organization, &Author::system("first start"), deed).await?;
        }
        change.finish(1).await
    }

    /// Creates a user. Whether their creator may is the caller's to decide; it depends on nothing that is stored.
    ///
    /// # Errors
    /// The database fails; then nothing was created.
    pub async fn create_user(&self, new: NewUser, by: &Author) -> Result<UserCreated, StoreError> {
        let change = self.begin_change(&USERS).await?;
        let db = &change.transaction;
        let refused = if organizations::Entity::find_by_id(new.organization.0).count(db).await? == 0 {
            Some(UserCreated::NoSuchOrganization)
        } else if !has_team(db, new.organization, new.team).await? {
            Some(UserCreated::NoSuchTeam)
        } else if by_email(db, &new.email).await?.is_some() {
            Some(UserCreated::EmailTaken)
        } else {
            None
        };
        if let Some(refused) = refused {
            change.finish(0).await?;
            return Ok(refused);
        }
        let row = new_row(new, None, change.revision);
        users::Entity::insert(row.clone().into_active_model())
            .exec_without_returning(db)
            .await?;
        let Some(user) = read(row) else {
            return Err(StoreError::Type("the user that was just made".into()));
        };
        let deed = Deed::new("user.create", user.id).after(described(&user));
        audit::record(db, user.organization, by, deed).await?;
        change.finish(1).await?;
        Ok(UserCreated::Created(user))
    }

    /// A user of an organization.
    ///
    /// # Errors
    /// The database fails.
    pub async fn user(&self, organization: OrganizationId, id: UserId) -> Result<Option<User>, StoreError> {
        Ok(find(&self.db, organization, id).await?.and_then(read))
    }

    /// Users of an organization, oldest first, after one of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn users(
        &self,
        organization: OrganizationId,
        team: Option<TeamId>,
        after: Option<UserId>,
        limit: u64,
    ) -> Result<Vec<User>, StoreError> {
        let mut query = users::Entity::find()
            .filter(users::Column::OrganizationId.eq(organization.0))
            .order_by_asc(users::Column::Id)
            .limit(limit);
        if let Some(team) = team {
            query = query.filter(users::Column::TeamId.eq(team.0));
        }
        if let Some(after) = after {
            query = query.filter(users::Column::Id.gt(after.0));
        }
        Ok(query.all(&self.db).await?.into_iter().filter_map(read).collect())
    }

    /// The user with an address, of whichever organization: finding out whose it is is the point of signing in.
    ///
    /// # Errors
    /// The database fails.
    pub async fn account(&self, email: &Email) -> Result<Option<Account>, StoreError> {
        let found = by_email(&self.db, email).await?;
        Ok(found.and_then(|row| {
            let password_hash = row.password_hash.clone();
            read(row).map(|user| Account { user, password_hash })
        }))
    }

    /// The user with an id and what their password is compared with, for whoever proved to be them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn account_of(&self, id: UserId) -> Result<Option<Account>, StoreError> {
        let found = users::Entity::find_by_id(id.0).one(&self.db).await?;
        Ok(found.and_then(|row| {
            let password_hash = row.password_hash.clone();
            read(row).map(|user| Account { user, password_hash })
        }))
    }

    /// Changes a user, if `actor` may. What makes their tokens say something else ends those tokens.
    ///
    /// # Errors
    /// The database fails; then nothing changed.
    pub async fn change_user(
        &self,
        organization: OrganizationId,
        id: UserId,
        wanted: &UserChange,
        actor: Role,
        by: &Author,
    ) -> Result<UserChanged, StoreError> {
        let change = self.begin_change(&USERS).await?;
        let db = &change.transaction;
        let found = find(db, organization, id).await?;
        let Some((row, user)) = found.and_then(|row| Some((row.clone(), read(row)?))) else {
            change.finish(0).await?;
            return Ok(UserChanged::NoSuchUser);
        };
        if !has_team(db, organization, wanted.team.flatten()).await? {
            change.finish(0).await?;
            return Ok(UserChanged::NoSuchTeam);
        }
        let others = others_keep(db, organization, id).await?;
        if let Err(denied) = may_change(actor, &user, wanted, others) {
            change.finish(0).await?;
            return Ok(UserChanged::Denied(denied));
        }
        let mut next = row;
        if let Some(name) = &wanted.name {
            next.name = storable_text(name);
        }
        if let Some(role) = wanted.role {
            next.role = role.as_str().to_owned();
        }
        if let Some(team) = wanted.team {
            next.team_id = team.map(|team| team.0);
        }
        if let Some(disabled) = wanted.disabled {
            next.disabled = disabled;
        }
        if let Some(hash) = &wanted.password_hash {
            next.password_hash = Some(hash.clone());
            next.must_change_password = true;
        }
        next.updated_at = storable(Utc::now());
        next.revision = change.revision;
        write(db, &next).await?;
        if next.disabled || wanted.password_hash.is_some() {
            end_sessions(db, id, None).await?;
        }
        let Some(after) = read(next) else {
            return Err(StoreError::Type("the user that was just changed".into()));
        };
        let mut now = described(&after);
        if wanted.password_hash.is_some() {
            now["password_reset"] = true.into();
        }
        let deed = Deed::new("user.update", id).before(described(&user)).after(now);
        audit::record(db, organization, by, deed).await?;
        change.finish(1).await?;
        Ok(UserChanged::Done(after))
    }

    /// Deletes a user with their sessions, if `actor` may.
    ///
    /// # Errors
    /// The database fails; then nothing changed.
    pub async fn delete_user(
        &self,
        organization: OrganizationId,
        id: UserId,
        actor: Role,
        by: &Author,
    ) -> Result<UserChanged, StoreError> {
        let change = self.begin_change(&USERS).await?;
        let db = &change.transaction;
        let Some(user) = find(db, organization, id).await?.and_then(read) else {
            change.finish(0).await?;
            return Ok(UserChanged::NoSuchUser);
        };
        let others = others_keep(db, organization, id).await?;
        if let Err(denied) = may_delete(actor, &user, others) {
            change.finish(0).await?;
            return Ok(UserChanged::Denied(denied));
        }
        let keys = gateway_keys::Entity::find()
            .filter(gateway_keys::Column::OrganizationId.eq(organization.0))
            .filter(gateway_keys::Column::OwnerId.eq(id.0))
            .filter(gateway_keys::Column::RevokedAt.is_null())
            .count(db)
            .await?;
        if keys > 0 {
            change.finish(0).await?;
            return Ok(UserChanged::OwnsKeys(keys));
        }
        users::Entity::delete_by_id(id.0).exec(db).await?;
        let deed = Deed::new("user.delete", id).before(described(&user));
        audit::record(db, organization, by, deed).await?;
        change.finish(1).await?;
        Ok(UserChanged::Done(user))
    }

    /// Gives a user another password. All their sessions end but the one that is kept.
    ///
    /// # Errors
    /// The database fails; then nothing changed.
    pub async fn set_password(
        &self,
        id: UserId,
        hash: &str,
        must_change: bool,
        kept: Option<Uuid>,
        by: &Author,
    ) -> Result<Option<User>, StoreError> {
        let change = self.begin_change(&USERS).await?;
        let db = &change.transaction;
        let Some(mut row) = users::Entity::find_by_id(id.0).one(db).await? else {
            change.finish(0).await?;
            return Ok(None);
        };
        row.password_hash = Some(hash.to_owned());
        row.must_change_password = must_change;
        row.updated_at = storable(Utc::now());
        row.revision = change.revision;
        write(db, &row).await?;
        end_sessions(db, id, kept).await?;
        let organization = OrganizationId(row.organization_id);
        audit::record(db, organization, by, Deed::new("user.set_password", id)).await?;
        change.finish(1).await?;
        Ok(read(row))
    }

    /// Begins a session of a user, unless they were disabled meanwhile. Says who they are by now.
    ///
    /// # Errors
    /// The database fails; then there is no session.
    pub async fn begin_session(&self, session: NewSession, by: &Author) -> Result<Option<User>, StoreError> {
        let change = self.begin_change(&USERS).await?;
        let user = Self::open_session(&change.transaction, session, by).await?;
        change.finish(u64::from(user.is_some())).await?;
        Ok(user)
    }

    async fn open_session(
        db: &impl ConnectionTrait,
        session: NewSession,
        by: &Author,
    ) -> Result<Option<User>, StoreError> {
        use refresh_tokens::Column;
        let found = users::Entity::find_by_id(session.user.0).one(db).await?;
        let Some(row) = found.filter(|row| !row.disabled) else {
            return Ok(None);
        };
        let now = storable(session.now);
        refresh_tokens::Entity::delete_many()
            .filter(Column::UserId.eq(session.user.0))
            .filter(Column::ExpiresAt.lte(now))
            .exec(db)
            .await?;
        let too_many = refresh_tokens::Entity::find()
            .filter(Column::UserId.eq(session.user.0))
            .order_by_desc(Column::RefreshedAt)
            .offset(MAX_SESSIONS - 1)
            .limit(MAX_SESSIONS)
            .all(db)
            .await?;
        if !too_many.is_empty() {
            refresh_tokens::Entity::delete_many()
                .filter(Column::Id.is_in(too_many.into_iter().map(|row| row.id)))
                .exec(db)
                .await?;
        }
        let token = refresh_tokens::ActiveModel {
            id: Set(session.id),
            user_id: Set(session.user.0),
            hash: Set(session.hash),
            generation: Set(0),
            via: Set(session.via.as_str().to_owned()),
            created_at: Set(now),
            refreshed_at: Set(now),
            expires_at: Set(storable(session.expires_at)),
            ends_at: Set(storable(session.ends_at)),
        };
        refresh_tokens::Entity::insert(token).exec_without_returning(db).await?;
        users::Entity::update_many()
            .col_expr(users::Column::LastSignInAt, Expr::value(now))
            .filter(users::Column::Id.eq(session.user.0))
            .exec(db)
            .await?;
        let organization = OrganizationId(row.organization_id);
        let deed = Deed::new("session.begin", session.id).after(json!({"user_id": session.user.0}));
        audit::record(db, organization, by, deed).await?;
        Ok(read(users::Model {
            last_sign_in_at: Some(now),
            ..row
        }))
    }

    /// Exchanges a refresh token for the next one of its session. A token that had been exchanged before ends the session:
    /// either its user or a thief has the newer one, and nobody can tell which.
    ///
    /// # Errors
    /// The database fails; then the token is as good as it was.
    pub async fn refresh(&self, presented: &Refresh, by: &Author) -> Result<Refreshed, StoreError> {
        use refresh_tokens::Column;
        let change = self.begin_change(&USERS).await?;
        let db = &change.transaction;
        let found = refresh_tokens::Entity::find_by_id(presented.session).one(db).await?;
        let Some(session) = found.filter(|session| session.expires_at > presented.now) else {
            change.finish(0).await?;
            return Ok(Refreshed::Unknown);
        };
        let user = users::Entity::find_by_id(session.user_id).one(db).await?;
        let Some((organization, user)) = user
            .filter(|user| !user.disabled)
            .and_then(|row| Some((OrganizationId(row.organization_id), read(row)?)))
        else {
            change.finish(0).await?;
            return Ok(Refreshed::Unknown);
        };
        let generation = i32::try_from(presented.generation).unwrap_or(i32::MAX);
        if session.generation > generation {
            refresh_tokens::Entity::delete_by_id(session.id).exec(db).await?;
            let by = Author {
                subject: user.email.as_str().to_owned(),
                ..by.clone()
            };
            let deed = Deed::new("session.revoke", session.id)
                .before(json!({"user_id": session.user_id, "generation": session.generation}))
                .after(json!({"reason": "a refresh token was used twice", "generation": generation}));
            audit::record(db, organization, &by, deed).await?;
            change.finish(1).await?;
            return Ok(Refreshed::Reused);
        }
        if session.generation != generation || session.hash != presented.hash {
            change.finish(0).await?;
            return Ok(Refreshed::Unknown);
        }
        refresh_tokens::Entity::update_many()
            .col_expr(Column::Hash, Expr::value(presented.next_hash.clone()))
            .col_expr(Column::Generation, Expr::value(generation.saturating_add(1)))
            .col_expr(Column::RefreshedAt, Expr::value(storable(presented.now)))
            .col_expr(
                Column::ExpiresAt,
                Expr::value(storable(presented.expires_at).min(session.ends_at)),
            )
            .filter(Column::Id.eq(session.id))
            .exec(db)
            .await?;
        let via = Via::parse(&session.via).unwrap_or(Via::Password);
        change.finish(1).await?;
        Ok(Refreshed::Good { user, via })
    }

    /// Lets a session go on until a time, which is not beyond its end. Says whether it is there: one that was ended is not,
    /// and nothing brings it back.
    ///
    /// # Errors
    /// The database fails.
    pub async fn renew_session(
        &self,
        user: UserId,
        session: Uuid,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        use refresh_tokens::Column;
        let (now, until) = (storable(now), storable(until));
        let renewed = refresh_tokens::Entity::update_many()
            .col_expr(Column::ExpiresAt, Expr::value(until))
            .col_expr(Column::RefreshedAt, Expr::value(now))
            .filter(Column::Id.eq(session))
            .filter(Column::UserId.eq(user.0))
            .filter(Column::ExpiresAt.gt(now))
            .filter(Column::EndsAt.gte(until))
            .exec(&self.db)
            .await?;
        Ok(renewed.rows_affected > 0)
    }

    /// Ends a session of a user. Says whether there was one.
    ///
    /// # Errors
    /// The database fails.
    pub async fn end_session(&self, user: UserId, session: Uuid, by: &Author) -> Result<bool, StoreError> {
        let change = self.begin_change(&USERS).await?;
        let db = &change.transaction;
        let ended = refresh_tokens::Entity::delete_many()
            .filter(refresh_tokens::Column::UserId.eq(user.0))
            .filter(refresh_tokens::Column::Id.eq(session))
            .exec(db)
            .await?
            .rows_affected;
        if ended > 0
            && let Some(row) = users::Entity::find_by_id(user.0).one(db).await?
        {
            let deed = Deed::new("session.end", session).before(json!({"user_id": user.0}));
            audit::record(db, OrganizationId(row.organization_id), by, deed).await?;
        }
        change.finish(ended).await
    }

    /// How a session stands; `None`: it is over, or its user may not do anything any more.
    ///
    /// # Errors
    /// The database fails.
    pub async fn session_state(
        &self,
        user: UserId,
        session: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Option<SessionState>, StoreError> {
        use refresh_tokens::Column;
        let open = refresh_tokens::Entity::find()
            .filter(Column::Id.eq(session))
            .filter(Column::UserId.eq(user.0))
            .filter(Column::ExpiresAt.gt(storable(now)))
            .one(&self.db)
            .await?;
        let Some(open) = open else { return Ok(None) };
        let found = users::Entity::find_by_id(user.0).one(&self.db).await?;
        Ok(found.filter(|user| !user.disabled).map(|user| SessionState {
            revision: user.revision,
            must_change_password: user.must_change_password,
            expires_at: open.expires_at,
            ends_at: open.ends_at,
        }))
    }

    /// Begins a session of somebody an external issuer vouches for. They are made a user at their first sign-in, and what
    /// the issuer says of them is what they are from then on.
    ///
    /// # Errors
    /// The database fails; then nothing changed.
    pub async fn sign_in_externally(
        &self,
        person: &ExternalPerson,
        session: NewSession,
        by: &Author,
    ) -> Result<ExternalSignIn, StoreError> {
        let change = self.begin_change(&USERS).await?;
        let db = &change.transaction;
        if !has_team(db, person.organization, person.team).await? {
            change.finish(0).await?;
            return Ok(ExternalSignIn::NoSuchTeam);
        }
        let known = users::Entity::find()
            .filter(users::Column::ExternalId.eq(&person.external_id))
            .one(db)
            .await?;
        let row = match known {
            Some(row) => row,
            None => match by_email(db, &person.email).await? {
                // Somebody invited them: they have no other way in.
                Some(row) if row.password_hash.is_none() && row.external_id.is_none() && person.email_verified => row,
                Some(_) => {
                    change.finish(0).await?;
                    return Ok(ExternalSignIn::EmailTaken);
                }
                None => {
                    let new = NewUser {
                        id: UserId(Uuid::now_v7()),
                        organization: person.organization,
                        team: person.team,
                        email: person.email.clone(),
                        name: person.name.clone(),
                        role: person.role,
                        password_hash: None,
                        must_change_password: false,
                    };
                    let row = new_row(new, Some(&person.external_id), change.revision);
                    users::Entity::insert(row.clone().into_active_model())
                        .exec_without_returning(db)
                        .await?;
                    if let Some(user) = read(row.clone()) {
                        let deed = Deed::new("user.create", user.id).after(described(&user));
                        audit::record(db, user.organization, by, deed).await?;
                    }
                    row
                }
            },
        };
        if row.disabled {
            change.finish(0).await?;
            return Ok(ExternalSignIn::Disabled);
        }
        let mut next = row.clone();
        next.external_id = Some(person.external_id.clone());
        next.organization_id = person.organization.0;
        next.team_id = person.team.map(|team| team.0);
        next.role = person.role.as_str().to_owned();
        next.name = storable_text(&person.name);
        if next != row {
            next.updated_at = storable(Utc::now());
            next.revision = change.revision;
            write(db, &next).await?;
            if let (Some(before), Some(after)) = (read(row), read(next.clone())) {
                let deed = Deed::new("user.update", after.id)
                    .before(described(&before))
                    .after(described(&after));
                audit::record(db, after.organization, by, deed).await?;
            }
        }
        let session = NewSession {
            user: UserId(next.id),
            ..session
        };
        match Self::open_session(db, session, by).await? {
            Some(user) => {
                change.finish(1).await?;
                Ok(ExternalSignIn::SignedIn(user))
            }
            None => {
                change.finish(0).await?;
                Ok(ExternalSignIn::Disabled)
            }
        }
    }

    /// The user an external issuer vouches for, if they have signed in here.
    ///
    /// # Errors
    /// The database fails.
    pub async fn external_user(&self, external_id: &str) -> Result<Option<User>, StoreError> {
        let found = users::Entity::find()
            .filter(users::Column::ExternalId.eq(storable_text(external_id)))
            .one(&self.db)
            .await?;
        Ok(found.and_then(read))
    }
}

/// The row of a user who was not there.
fn new_row(new: NewUser, external_id: Option<&str>, revision: i64) -> users::Model {
    let now = storable(Utc::now());
    users::Model {
        id: new.id.0,
        organization_id: new.organization.0,
        team_id: new.team.map(|team| team.0),
        email: storable_text(new.email.as_str()),
        name: storable_text(&new.name),
        role: new.role.as_str().to_owned(),
        password_hash: new.password_hash,
        must_change_password: new.must_change_password,
        disabled: false,
        external_id: external_id.map(storable_text),
        last_sign_in_at: None,
        created_at: now,
        updated_at: now,
        revision,
    }
}

async fn find(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    id: UserId,
) -> Result<Option<users::Model>, StoreError> {
    users::Entity::find_by_id(id.0)
        .filter(users::Column::OrganizationId.eq(organization.0))
        .one(db)
        .await
}

async fn by_email(db: &impl ConnectionTrait, email: &Email) -> Result<Option<users::Model>, StoreError> {
    users::Entity::find()
        .filter(users::Column::Email.eq(storable_text(email.as_str())))
        .one(db)
        .await
}

/// Whether an organization has a team; it has none that is not asked for.
async fn has_team(
    db: &impl ConnectionTrait,
    organization: OrganizationId,
    team: Option<TeamId>,
) -> Result<bool, StoreError> {
    let Some(team) = team else { return Ok(true) };
    let found = teams::Entity::find_by_id(team.0)
        .filter(teams::Column::OrganizationId.eq(organization.0))
        .count(db)
        .await?;
    Ok(found > 0)
}

/// Whether somebody else can manage the organization's members.
async fn others_keep(db: &impl ConnectionTrait, organization: OrganizationId, but: UserId) -> Result<bool, StoreError> {
    let roles = Role::ALL.into_iter().filter(|role| keeps(*role, false));
    let others = users::Entity::find()
        .filter(users::Column::OrganizationId.eq(organization.0))
        .filter(users::Column::Id.ne(but.0))
        .filter(users::Column::Disabled.eq(false))
        .filter(users::Column::Role.is_in(roles.map(Role::as_str)))
        .count(db)
        .await?;
    Ok(others > 0)
}

async fn end_sessions(db: &impl ConnectionTrait, user: UserId, kept: Option<Uuid>) -> Result<(), StoreError> {
    let mut which = Condition::all().add(refresh_tokens::Column::UserId.eq(user.0));
    if let Some(kept) = kept {
        which = which.add(refresh_tokens::Column::Id.ne(kept));
    }
    refresh_tokens::Entity::delete_many()
        .filter(which)
        .exec(db)
        .await
        .map(drop)
}

async fn write(db: &impl ConnectionTrait, row: &users::Model) -> Result<(), StoreError> {
    let changed = row.clone().into_active_model().reset_all();
    users::Entity::update(changed).exec(db).await.map(drop)
}

/// A user as the audit log has them.
fn described(user: &User) -> Value {
    json!({
        "email": user.email.as_str(),
        "name": user.name,
        "role": user.role.as_str(),
        "team_id": user.team.map(|team| team.0),
        "disabled": user.disabled,
    })
}

/// A row as a user. `None` where a newer version has written something that this one does not know: they may do nothing
/// here.
fn read(row: users::Model) -> Option<User> {
    let (Some(role), Ok(email)) = (Role::parse(&row.role), Email::parse(&row.email)) else {
        tracing::warn!(user = %row.id, role = row.role, "a user is of an unknown kind and may do nothing");
        return None;
    };
    Some(User {
        id: UserId(row.id),
        organization: OrganizationId(row.organization_id),
        team: row.team_id.map(TeamId),
        email,
        name: row.name,
        role,
        disabled: row.disabled,
        has_password: row.password_hash.is_some(),
        must_change_password: row.must_change_password,
        external: row.external_id.is_some(),
        last_sign_in_at: row.last_sign_in_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
        revision: row.revision,
    })
}
