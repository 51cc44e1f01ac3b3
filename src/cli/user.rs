//! `bonito user …`: people who manage the gateway, straight in the database: the first of them, and the one who has lost
//! their password.

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use uuid::Uuid;

use super::key::find;
use super::say;
use crate::config::Settings;
use crate::domain::audit::Author;
use crate::domain::error::BoxError;
use crate::domain::ids::UserId;
use crate::domain::role::Role;
use crate::domain::tenancy::name_problem;
use crate::domain::user::{
    Denied, Email, MAX_PASSWORD_BYTES, NewUser, User, UserChange, UserChanged, UserCreated, may_create,
    password_problem,
};
use crate::secrets::password::{self, Passwords};
use crate::store::Store;
use crate::store::organizations::FIRST_SLUG;

/// Users of one question to the database.
const PAGE: u64 = 500;

/// What can be done with users.
#[derive(Subcommand)]
pub enum Command {
    /// Create a user and show their password, this once.
    Create {
        /// What they sign in with.
        #[arg(long)]
        email: String,
        /// Their name for people; the address unless written.
        #[arg(long)]
        name: Option<String>,
        /// What they are: platform_admin, owner, admin, team_admin, member or viewer.
        #[arg(long, value_parser = super::token::role)]
        role: Role,
        /// Their team, by its short name.
        #[arg(long)]
        team: Option<String>,
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
        /// They sign in by the external issuer alone and have no password.
        #[arg(long)]
        external: bool,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// List an organization's users.
    List {
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
        /// One JSON object for each user instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Keep a user from signing in, and end their sessions.
    Disable {
        /// Their address.
        email: String,
        /// Let them sign in again instead.
        #[arg(long)]
        undo: bool,
    },
    /// Give a user another password, and end their sessions.
    Password {
        /// Their address.
        email: String,
        /// Read the password from standard input instead of making one up. They need not change it.
        #[arg(long)]
        stdin: bool,
    },
}

/// Runs one of them.
pub async fn run(command: Command, settings: &Settings) -> Result<ExitCode, BoxError> {
    let opened = super::open(settings).await?;
    let store = &opened.store;
    match command {
        Command::Create {
            email,
            name,
            role,
            team,
            organization,
            external,
            json,
        } => {
            let email = address(&email)?;
            let organization = find(store, &organization).await?;
            let team = match &team {
                None => None,
                Some(slug) => {
                    let found = store.team_by_slug(organization, slug).await?;
                    Some(found.ok_or_else(|| format!("there is no team {slug:?}"))?)
                }
            };
            if may_create(Role::PlatformAdmin, role, team) == Err(Denied::NeedsTeam) {
                return Err("a team_admin needs a --team".into());
            }
            let name = name.unwrap_or_else(|| email.as_str().chars().take(128).collect());
            if let Some(problem) = name_problem(&name) {
                return Err(format!("--name {problem}").into());
            }
            let password = (!external).then(password::generated);
            let password_hash = match &password {
                None => None,
                Some(password) => Some(Passwords::default().hash(password.clone()).await?),
            };
            let new = NewUser {
                id: UserId(Uuid::now_v7()),
                organization,
                team,
                email,
                name,
                role,
                must_change_password: password.is_some(),
                password_hash,
            };
            let user = match store.create_user(new, &Author::system("bonito user create")).await? {
                UserCreated::Created(user) => user,
                UserCreated::EmailTaken => return Err("somebody of this installation has that address".into()),
                UserCreated::NoSuchTeam | UserCreated::NoSuchOrganization => {
                    return Err("the organization or the team is not there any more".into());
                }
            };
            say(&created(&user, password.as_ref(), json));
        }
        Command::List { organization, json } => {
            let organization = find(store, &organization).await?;
            let (mut users, mut after) = (Vec::new(), None);
            loop {
                let page = store.users(organization, None, after, PAGE).await?;
                after = page.last().map(|user| user.id);
                let more = page.len() as u64 == PAGE;
                users.extend(page);
                if !more {
                    break;
                }
            }
            let lines = users.iter().map(|user| object(user).to_string());
            say(&if json {
                lines.collect::<Vec<_>>().join("\n")
            } else {
                listed(&users)?
            });
        }
        Command::Disable { email, undo } => {
            let user = of(store, &email).await?;
            let change = UserChange {
                disabled: Some(!undo),
                ..UserChange::default()
            };
            let by = Author::system("bonito user disable");
            let changed = store.change_user(user.organization, user.id, &change, Role::PlatformAdmin, &by);
            match changed.await? {
                UserChanged::Done(user) if user.disabled => say(&format!("{} may not sign in", user.email)),
                UserChanged::Done(user) => say(&format!("{} may sign in", user.email)),
                UserChanged::Denied(_) => {
                    return Err(
                        "nobody would be left who may manage the organization; create another owner first".into(),
                    );
                }
                UserChanged::NoSuchUser | UserChanged::NoSuchTeam | UserChanged::OwnsKeys(_) => {
                    return Err("the user is not there any more".into());
                }
            }
        }
        Command::Password { email, stdin } => {
            let user = of(store, &email).await?;
            let password = if stdin {
                read_password(&user.email)?
            } else {
                password::generated()
            };
            let hash = Passwords::default().hash(password.clone()).await?;
            let by = Author::system("bonito user password");
            let changed = store.set_password(user.id, &hash, !stdin, None, &by).await?;
            let user = changed.ok_or("the user is not there any more")?;
            if stdin {
                say(&format!("{} has another password", user.email));
            } else {
                say(&format!(
                    "{}\n\nthe password of {}, shown this once",
                    password.expose_secret(),
                    user.email
                ));
            }
        }
    }
    opened.store.close().await;
    Ok(ExitCode::SUCCESS)
}

fn address(text: &str) -> Result<Email, BoxError> {
    Email::parse(text).map_err(|problem| format!("{text:?} {problem}").into())
}

async fn of(store: &Store, email: &str) -> Result<User, BoxError> {
    let found = store.account(&address(email)?).await?;
    Ok(found.ok_or_else(|| format!("there is no user {email:?}"))?.user)
}

/// The first line of standard input.
fn read_password(email: &Email) -> Result<SecretString, BoxError> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_PASSWORD_BYTES as u64 + 2)
        .read_to_string(&mut text)?;
    let password = text.lines().next().unwrap_or_default();
    match password_problem(password, email) {
        None => Ok(password.into()),
        Some(problem) => Err(format!("the password {problem}").into()),
    }
}

fn created(user: &User, password: Option<&SecretString>, json: bool) -> String {
    if json {
        let mut object = object(user);
        if let Some(password) = password {
            object["password"] = password.expose_secret().into();
        }
        return object.to_string();
    }
    let who = format!("{} ({}), {}", user.email, user.id, user.role);
    match password {
        Some(password) => format!(
            "{}\n\nthe password of {who}; it is shown this once",
            password.expose_secret()
        ),
        None => format!("{who}; signs in by the external issuer"),
    }
}

fn object(user: &User) -> Value {
    json!({
        "id": user.id.0, "email": user.email.as_str(), "name": user.name, "role": user.role.as_str(),
        "team_id": user.team.map(|team| team.0), "disabled": user.disabled, "external": user.external,
        "last_sign_in_at": user.last_sign_in_at, "created_at": user.created_at,
    })
}

fn listed(users: &[User]) -> Result<String, std::fmt::Error> {
    let mut table = format!(
        "{:<36}  {:<32}  {:<14}  {:<8}  {}",
        "id", "email", "role", "state", "last sign-in"
    );
    for user in users {
        let state = if user.disabled { "disabled" } else { "active" };
        let last = user.last_sign_in_at.map_or_else(|| "never".to_owned(), shown);
        write!(
            table,
            "\n{:<36}  {:<32}  {:<14}  {state:<8}  {last}",
            user.id.to_string(),
            user.email.as_str(),
            user.role.as_str(),
        )?;
    }
    Ok(table)
}

fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
