//! People who manage the gateway: signing in and out, and who may make whom what.

use std::time::Duration;

use bonito::domain::role::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::rows;
use crate::support::TestGateway;
use crate::support::gateway::{Builder, Reply};

const LOGIN: &str = "/api/auth/login";
const REFRESH: &str = "/api/auth/refresh";
const ME: &str = "/api/auth/me";
const USERS: &str = "/api/users";
/// A password nobody has to change.
const PASSWORD: &str = "a long enough password";

/// A gateway that looks at sessions often, so that tests need not wait.
fn quick() -> Builder {
    TestGateway::builder().set("auth.recheck_ms", 20)
}

async fn post(gateway: &TestGateway, path: &str, body: &Value) -> Reply {
    let request = gateway.client.post(format!("{}{path}", gateway.api)).json(body);
    crate::support::gateway::read(request.send().await.expect("the gateway answers")).await
}

async fn login(gateway: &TestGateway, email: &str, password: &str) -> Reply {
    post(gateway, LOGIN, &json!({"email": email, "password": password})).await
}

fn text<'r>(reply: &'r Value, member: &str) -> &'r str {
    reply[member]
        .as_str()
        .unwrap_or_else(|| panic!("no {member} in {reply}"))
}

/// Creates somebody who has signed in and changed their password; their session.
async fn member(gateway: &TestGateway, email: &str, role: Role, more: Value) -> Value {
    let creator = gateway.token(Role::PlatformAdmin);
    let mut body = json!({"email": email, "role": role.as_str(), "password": "to begin with only"});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap_or_default());
    let created = gateway.manage("POST", USERS, &creator, Some(&body)).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let first = login(gateway, email, "to begin with only").await.json();
    let change = json!({"current_password": "to begin with only", "new_password": PASSWORD});
    let token = text(&first, "access_token").to_owned();
    let changed = gateway
        .manage("POST", "/api/auth/password", &token, Some(&change))
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let mut session = changed.json();
    session["refresh_token"] = first["refresh_token"].clone();
    session
}

/// What a token gets, as soon as that is the status.
async fn becomes(gateway: &TestGateway, token: &str, path: &str, status: u16) {
    let found = async {
        while gateway.manage("GET", path, token, None).await.status != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), found)
        .await
        .unwrap_or_else(|_| panic!("{path} never answers {status}"));
}

#[tokio::test]
async fn the_first_start_makes_somebody_who_must_change_their_password_and_then_may_do_everything() {
    let gateway = quick().start().await;
    let (email, password) = gateway.owner.clone().expect("the first start made somebody");
    assert_eq!(email, "owner@localhost");
    let session = login(&gateway, &email, &password).await;
    assert_eq!(session.status, 200, "{}", session.text);
    let session = session.json();
    assert_eq!(
        (
            &session["must_change_password"],
            &session["token_type"],
            &session["expires_in"]
        ),
        (&json!(true), &json!("Bearer"), &json!(900))
    );
    let token = text(&session, "access_token");
    let refused = gateway.manage("GET", USERS, token, None).await;
    assert!(
        refused.status == 403 && refused.text.contains("/api/auth/password"),
        "{}",
        refused.text
    );
    assert_eq!(gateway.manage("GET", ME, token, None).await.status, 200);

    let change = json!({"current_password": password, "new_password": PASSWORD});
    let changed = gateway.manage("POST", "/api/auth/password", token, Some(&change)).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let changed = changed.json();
    let newer = text(&changed, "access_token");
    let me = gateway.manage("GET", ME, newer, None).await.json();
    for (member, expected) in [
        ("subject", json!("owner@localhost")),
        ("role", json!("platform_admin")),
        ("via", json!("password")),
    ] {
        assert_eq!(me[member], expected, "{me}");
    }
    assert_eq!(me["organization"]["slug"], "default");
    assert_eq!(me["user"]["must_change_password"], json!(false));
    assert_eq!(gateway.manage("GET", USERS, newer, None).await.status, 200);
    becomes(&gateway, token, ME, 401).await;
    assert_eq!(login(&gateway, &email, &password).await.status, 401);
    assert_eq!(login(&gateway, "Owner@Localhost", PASSWORD).await.status, 200);

    // A second start makes nobody.
    let again = quick().on_the_database_of(&gateway).start().await;
    assert!(again.owner.is_none());
    again.finish().await;
    gateway.finish().await;
}

#[tokio::test]
async fn whoever_cannot_sign_in_is_not_told_why() {
    let gateway = quick().start().await;
    member(&gateway, "ada@example.com", Role::Admin, json!({})).await;
    let disabled = member(&gateway, "bob@example.com", Role::Admin, json!({})).await;
    let owner = gateway.token(Role::PlatformAdmin);
    let path = format!("{USERS}/{}", text(&disabled["user"], "id"));
    let reply = gateway
        .manage("PATCH", &path, &owner, Some(&json!({"disabled": true})))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let external = json!({"email": "eve@example.com", "role": "viewer", "external": true});
    assert_eq!(gateway.manage("POST", USERS, &owner, Some(&external)).await.status, 201);
    let mut answers = Vec::new();
    for (email, password) in [
        ("ada@example.com", "another password"),
        ("bob@example.com", PASSWORD),
        ("eve@example.com", PASSWORD),
        ("nobody@example.com", PASSWORD),
    ] {
        let reply = login(&gateway, email, password).await;
        assert_eq!(
            (reply.status, reply.header("www-authenticate")),
            (401, "Bearer realm=\"bonito management\"")
        );
        answers.push(reply.text);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    for (body, status) in [
        (json!({"email": "no address", "password": "x"}), 422),
        (json!({"email": "ada@example.com"}), 400),
        (
            json!({"email": "ada@example.com", "password": "x", "role": "owner"}),
            400,
        ),
        (json!({"email": "ada@example.com", "password": "x".repeat(2_000)}), 400),
    ] {
        assert_eq!(post(&gateway, LOGIN, &body).await.status, status, "{body}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn attempts_are_counted_for_the_account_and_its_owner_comes_back() {
    let gateway = quick()
        .set("auth.account_attempts", 3)
        .set("auth.account_recovery_ms", 300)
        .start()
        .await;
    // The gateway has not seen this account signed in from anywhere.
    let creator = gateway.token(Role::PlatformAdmin);
    let body = json!({"email": "ada@example.com", "role": "viewer", "password": "to begin with only"});
    assert_eq!(gateway.manage("POST", USERS, &creator, Some(&body)).await.status, 201);
    for email in ["ada@example.com", "nobody@example.com"] {
        let mut refused = None;
        for _ in 0..20 {
            let reply = login(&gateway, email, "a guess at random").await;
            if reply.status == 429 {
                refused = Some(reply);
                break;
            }
            assert_eq!(reply.status, 401);
        }
        let refused = refused.expect("nobody may try for ever");
        assert_eq!(refused.header("retry-after"), "1", "{}", refused.text);
    }
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(
        login(&gateway, "ada@example.com", "to begin with only").await.status,
        200
    );
    gateway.finish().await;
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_copy_ends_the_session() {
    let gateway = quick().start().await;
    member(&gateway, "ada@example.com", Role::Admin, json!({})).await;
    let first = login(&gateway, "ada@example.com", PASSWORD).await.json();
    let refresh = async |token: &str| post(&gateway, REFRESH, &json!({"refresh_token": token})).await;
    let second = refresh(text(&first, "refresh_token")).await;
    assert_eq!(second.status, 200, "{}", second.text);
    let second = second.json();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(
        gateway
            .manage("GET", ME, text(&second, "access_token"), None)
            .await
            .status,
        200
    );
    let third = refresh(text(&second, "refresh_token")).await.json();
    // Somebody has kept a copy of the first.
    assert_eq!(refresh(text(&first, "refresh_token")).await.status, 401);
    assert_eq!(
        refresh(text(&third, "refresh_token")).await.status,
        401,
        "the newest is over with its session"
    );
    becomes(&gateway, text(&third, "access_token"), ME, 401).await;
    let log = rows(&gateway, gateway.organization).await;
    assert!(
        log.iter()
            .any(|row| row.action == "session.revoke" && row.actor == "ada@example.com")
    );
    // Other sessions of theirs go on.
    assert_eq!(login(&gateway, "ada@example.com", PASSWORD).await.status, 200);
    for wrong in ["", "bnr_", "bnr_AAAA", text(&first, "access_token")] {
        assert_eq!(refresh(wrong).await.status, 401, "{wrong}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn of_many_who_refresh_with_the_same_token_at_most_one_succeeds() {
    let gateway = quick().start().await;
    let session = member(&gateway, "ada@example.com", Role::Admin, json!({})).await;
    let body = json!({"refresh_token": session["refresh_token"]});
    let replies = futures_util::future::join_all((0..8).map(|_| post(&gateway, REFRESH, &body))).await;
    let good = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(
        (good, replies.iter().filter(|reply| reply.status == 401).count()),
        (1, 7),
        "{replies:?}"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn who_signs_out_is_disabled_deleted_or_demoted_loses_access_on_every_replica() {
    let gateway = quick().start().await;
    let other = quick().on_the_database_of(&gateway).start().await;
    let owner = gateway.token(Role::Owner);
    for end in ["logout", "disable", "delete", "demote", "reset"] {
        let session = member(&gateway, &format!("{end}@example.com"), Role::Admin, json!({})).await;
        let (token, id) = (text(&session, "access_token"), text(&session["user"], "id"));
        for replica in [&gateway, &other] {
            assert_eq!(replica.manage("GET", USERS, token, None).await.status, 200, "{end}");
        }
        let path = format!("{USERS}/{id}");
        let done = match end {
            "logout" => gateway.manage("POST", "/api/auth/logout", token, None).await,
            "disable" => {
                gateway
                    .manage("PATCH", &path, &owner, Some(&json!({"disabled": true})))
                    .await
            }
            "delete" => gateway.manage("DELETE", &path, &owner, None).await,
            "demote" => {
                gateway
                    .manage("PATCH", &path, &owner, Some(&json!({"role": "member"})))
                    .await
            }
            _ => {
                gateway
                    .manage("PATCH", &path, &owner, Some(&json!({"reset_password": true})))
                    .await
            }
        };
        assert!(done.status == 200 || done.status == 204, "{end}: {}", done.text);
        for replica in [&gateway, &other] {
            becomes(replica, token, USERS, 401).await;
        }
        let refreshed = post(&other, REFRESH, &json!({"refresh_token": session["refresh_token"]})).await;
        if end == "demote" {
            // The session goes on with what they are now.
            let refreshed = refreshed.json();
            assert_eq!(refreshed["user"]["role"], "member");
            let refused = gateway
                .manage("GET", USERS, text(&refreshed, "access_token"), None)
                .await;
            assert_eq!(refused.status, 403);
        } else {
            assert_eq!(refreshed.status, 401, "{end}");
        }
        if end == "reset" {
            let password = done.json()["password"].as_str().unwrap().to_owned();
            let again = login(&gateway, "reset@example.com", &password).await.json();
            assert_eq!(again["must_change_password"], json!(true));
        }
    }
    other.finish().await;
    gateway.finish().await;
}

#[tokio::test]
async fn nothing_that_is_secret_about_people_is_in_the_database_or_the_audit_log() {
    let gateway = quick().start().await;
    let session = member(&gateway, "ada@example.com", Role::Admin, json!({})).await;
    let log = format!("{:?}", rows(&gateway, gateway.organization).await);
    for secret in [
        PASSWORD,
        "to begin with only",
        text(&session, "refresh_token"),
        "argon2id",
        text(&session, "access_token"),
    ] {
        assert!(!log.contains(secret), "{secret}");
    }
    let secrets = [
        PASSWORD,
        text(&session, "refresh_token"),
        text(&session, "access_token"),
    ]
    .map(str::to_owned);
    let files = gateway.files();
    for (name, bytes) in files.iter().filter(|(name, _)| name.contains("bonito.db")) {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {name}");
        }
    }
    gateway.finish().await;
}

/// P27: each role, by each way of making somebody something.
#[tokio::test]
async fn p27_nobody_makes_of_anybody_more_than_they_are() {
    let gateway = quick().start().await;
    let creator = gateway.token(Role::PlatformAdmin);
    let team = gateway
        .manage("POST", "/api/teams", &creator, Some(&json!({"slug": "team"})))
        .await
        .json();
    let team = text(&team, "id");
    // Somebody of each role, who is changed and changed back.
    let mut targets = Vec::new();
    for role in Role::ALL {
        let body = json!({"email": format!("target-{role}@example.com"), "role": role.as_str(), "team_id": team});
        let created = gateway.manage("POST", USERS, &creator, Some(&body)).await;
        assert_eq!(created.status, 201, "{}", created.text);
        targets.push((role, text(&created.json(), "id").to_owned()));
    }
    let mut escalations = Vec::new();
    let mut tried = 0;
    for actor in Role::ALL {
        let token = gateway.token(actor);
        let may = actor.may(bonito::domain::role::Right::WriteUsers);
        for made in Role::ALL {
            let body = json!({"email": format!("{actor}-{made}@example.com"), "role": made.as_str(), "team_id": team});
            let reply = gateway.manage("POST", USERS, &token, Some(&body)).await;
            let allowed = may && actor.may_make(made);
            assert_eq!(
                reply.status,
                if allowed { 201 } else { 403 },
                "{actor} creates {made}: {}",
                reply.text
            );
            tried += 1;
            for (target, id) in &targets {
                let path = format!("{USERS}/{id}");
                for change in [
                    json!({"role": made.as_str()}),
                    json!({"role": made.as_str(), "disabled": false, "name": "X"}),
                ] {
                    let reply = gateway.manage("PATCH", &path, &token, Some(&change)).await;
                    let allowed = may && actor.may_make(*target) && actor.may_make(made);
                    assert_eq!(
                        reply.status,
                        if allowed { 200 } else { 403 },
                        "{actor} makes {target} {made}: {}",
                        reply.text
                    );
                    tried += 1;
                    if allowed {
                        let back = json!({"role": target.as_str()});
                        let back = gateway.manage("PATCH", &path, &creator, Some(&back)).await;
                        assert_eq!(back.status, 200, "{}", back.text);
                    }
                }
            }
        }
        for (target, id) in &targets {
            let path = format!("{USERS}/{id}");
            // Taking over somebody who is more is another way of being more.
            let reset = gateway
                .manage("PATCH", &path, &token, Some(&json!({"reset_password": true})))
                .await;
            let allowed = may && actor.may_make(*target);
            assert_eq!(
                reset.status,
                if allowed { 200 } else { 403 },
                "{actor} resets {target}: {}",
                reset.text
            );
            assert_eq!(reset.json().get("password").is_some(), allowed);
            tried += 1;
        }
        // What is not there to be written is refused, wherever somebody may write at all.
        for hidden in [
            "password_hash",
            "must_change_password",
            "organization_id",
            "revision",
            "id",
            "external_id",
        ] {
            let body = json!({"email": format!("h-{actor}@example.com"), "role": "viewer", hidden: "x"});
            for (method, path) in [
                ("POST", USERS.to_owned()),
                ("PATCH", format!("{USERS}/{}", targets[5].1)),
            ] {
                let reply = gateway.manage(method, &path, &token, Some(&body)).await;
                if reply.status < 400 {
                    escalations.push(format!("{actor} {method} {hidden}"));
                }
                tried += 1;
            }
        }
        // What all organizations share is for those to give who are in all of them.
        let organization = format!("/api/organizations/{}", gateway.organization);
        for property in [
            json!({"shared_credentials": true}),
            json!({"rate_limit_ceiling": 20_000}),
            json!({"rate_limit_ceiling": null}),
            json!({"name": "X", "rate_limit_ceiling": 20_000}),
        ] {
            let reply = gateway.manage("PATCH", &organization, &token, Some(&property)).await;
            assert_eq!(
                reply.status,
                if actor.everywhere() { 200 } else { 403 },
                "{actor} {property}: {}",
                reply.text
            );
            tried += 1;
        }
        for hidden in ["slug", "id", "revision"] {
            let reply = gateway
                .manage("PATCH", &organization, &token, Some(&json!({hidden: "x"})))
                .await;
            assert!(reply.status >= 400, "{actor} {hidden}");
            tried += 1;
        }
        let body = json!({"slug": format!("by-{}", actor.as_str().replace('_', "-"))});
        let reply = gateway.manage("POST", "/api/organizations", &token, Some(&body)).await;
        assert_eq!(
            reply.status,
            if actor.everywhere() { 201 } else { 403 },
            "{actor}: {}",
            reply.text
        );
        tried += 1;
    }
    assert_eq!(escalations, [""; 0]);
    assert!(tried > 500, "{tried}");
    let refused = gateway
        .manage(
            "GET",
            &format!("/api/organizations/{}", gateway.organization),
            &creator,
            None,
        )
        .await;
    assert_eq!(refused.json()["name"], "X", "only what was allowed was written");
    gateway.finish().await;
}

#[tokio::test]
async fn the_last_who_may_manage_an_organization_stays() {
    let gateway = quick().start().await;
    let creator = gateway.token(Role::PlatformAdmin);
    let created = gateway
        .manage("POST", "/api/organizations", &creator, Some(&json!({"slug": "acme"})))
        .await;
    let acme = created.json();
    let naming = [("x-bonito-organization", text(&acme, "id"))];
    let create = async |email: &str| {
        let body = json!({"email": email, "role": "owner"});
        let reply = gateway.manage_with("POST", USERS, &creator, Some(&body), &naming).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        text(&reply.json(), "id").to_owned()
    };
    let first = create("first@acme.example").await;
    let path = format!("{USERS}/{first}");
    let change = async |method: &str, path: &str, body: Option<Value>| {
        gateway
            .manage_with(method, path, &creator, body.as_ref(), &naming)
            .await
            .status
    };
    assert_eq!(change("DELETE", &path, None).await, 409);
    assert_eq!(change("PATCH", &path, Some(json!({"role": "admin"}))).await, 409);
    assert_eq!(change("PATCH", &path, Some(json!({"disabled": true}))).await, 409);
    assert_eq!(change("PATCH", &path, Some(json!({"name": "First"}))).await, 200);
    let second = create("second@acme.example").await;
    // Two who demote each other at the same time leave one.
    let (one, other) = (format!("{USERS}/{first}"), format!("{USERS}/{second}"));
    let statuses = tokio::join!(
        change("PATCH", &one, Some(json!({"role": "admin"}))),
        change("PATCH", &other, Some(json!({"role": "admin"})))
    );
    assert!(matches!(statuses, (200, 409) | (409, 200)), "{statuses:?}");
    gateway.finish().await;
}

#[tokio::test]
async fn organizations_and_teams_are_kept_as_long_as_they_are_needed() {
    let gateway = quick().start().await;
    let creator = gateway.token(Role::PlatformAdmin);
    let body = json!({"slug": "acme", "allowed_models": {"models": ["echo"], "providers": ["bedrock"]}});
    let acme = gateway
        .manage("POST", "/api/organizations", &creator, Some(&body))
        .await;
    assert_eq!(acme.status, 201, "{}", acme.text);
    let acme = acme.json();
    assert_eq!(
        acme["allowed_models"],
        json!({"models": ["echo"], "providers": ["aws"]})
    );
    assert_eq!(
        acme["warnings"],
        json!(["no provider that is configured is called \"aws\"; it is taken all the same"])
    );
    assert_eq!(
        (&acme["shared_credentials"], &acme["rate_limit_ceiling"]),
        (&json!(false), &json!(10_000))
    );
    let again = gateway
        .manage("POST", "/api/organizations", &creator, Some(&body))
        .await;
    assert!(again.status == 409 && again.text.contains("slug"), "{}", again.text);
    let id = text(&acme, "id");
    let naming = [("x-bonito-organization", id)];
    let manage = async |method: &str, path: &str, body: Option<Value>| {
        gateway
            .manage_with(method, path, &creator, body.as_ref(), &naming)
            .await
    };
    let team = manage(
        "POST",
        "/api/teams",
        Some(json!({"slug": "ml", "name": "Machine learning"})),
    )
    .await;
    assert_eq!(team.status, 201, "{}", team.text);
    let team = team.json();
    let team_path = format!("/api/teams/{}", text(&team, "id"));
    assert_eq!(
        manage("POST", "/api/teams", Some(json!({"slug": "ml"}))).await.status,
        409
    );
    for wrong in [
        json!({"slug": "M L"}),
        json!({"slug": "x", "name": ""}),
        json!({"slug": "x", "allowed_models": {"models": [""]}}),
    ] {
        assert_eq!(
            manage("POST", "/api/teams", Some(wrong.clone())).await.status,
            422,
            "{wrong}"
        );
    }
    let patched = manage(
        "PATCH",
        &team_path,
        Some(json!({"allowed_models": {"models": ["gpt-*"]}})),
    )
    .await;
    assert_eq!(patched.json()["allowed_models"]["models"], json!(["gpt-*"]));
    let unknown = json!(["no model that is configured is called \"gpt-*\"; it is taken all the same"]);
    assert_eq!(patched.json()["warnings"], unknown);
    let patched = manage("PATCH", &team_path, Some(json!({"allowed_models": null}))).await;
    assert_eq!(patched.json()["allowed_models"]["models"], json!([]));
    assert_eq!(patched.json().get("warnings"), None);
    let body = json!({"slug": "ml-2", "allowed_models": {"models": ["gpt-*", "ech*"]}});
    let second = manage("POST", "/api/teams", Some(body)).await.json();
    assert_eq!(second["warnings"], unknown);
    let second = format!("/api/teams/{}", text(&second, "id"));
    assert_eq!(manage("DELETE", &second, None).await.status, 204);
    let path = format!("/api/organizations/{id}");
    let narrowed = manage(
        "PATCH",
        &path,
        Some(json!({"allowed_models": {"models": ["echo", "gpt-*"]}})),
    )
    .await;
    assert_eq!(narrowed.json()["warnings"], unknown);

    let lead = json!({"email": "lead@acme.example", "role": "team_admin", "team_id": team["id"]});
    let lead = manage("POST", USERS, Some(lead)).await.json();
    let lead_path = format!("{USERS}/{}", text(&lead, "id"));
    let refused = manage("DELETE", &team_path, None).await;
    assert!(
        refused.status == 409 && refused.text.contains("1 users"),
        "{}",
        refused.text
    );
    assert_eq!(
        manage("PATCH", &lead_path, Some(json!({"team_id": null}))).await.status,
        422
    );
    assert_eq!(
        manage("PATCH", &lead_path, Some(json!({"team_id": Uuid::now_v7()})))
            .await
            .status,
        422
    );
    assert_eq!(
        manage("PATCH", &lead_path, Some(json!({"role": "member", "team_id": null})))
            .await
            .status,
        200
    );
    let organization = format!("/api/organizations/{id}");
    let refused = manage("DELETE", &organization, None).await;
    assert!(
        refused.status == 409 && refused.text.contains("1 teams"),
        "{}",
        refused.text
    );
    assert_eq!(manage("DELETE", &team_path, None).await.status, 204);
    assert_eq!(manage("GET", &team_path, None).await.status, 404);
    assert_eq!(manage("DELETE", &organization, None).await.status, 204);
    assert_eq!(manage("GET", &organization, None).await.status, 404);
    assert_eq!(
        login(&gateway, "lead@acme.example", text(&lead, "password"))
            .await
            .status,
        401
    );
    let own = format!("/api/organizations/{}", gateway.organization);
    assert_eq!(gateway.manage("DELETE", &own, &creator, None).await.status, 409);
    let actions: Vec<String> = rows(&gateway, bonito::domain::ids::OrganizationId(id.parse().unwrap()))
        .await
        .into_iter()
        .map(|row| row.action)
        .collect();
    for action in [
        "organization.create",
        "organization.delete",
        "team.create",
        "team.update",
        "team.delete",
        "user.create",
        "user.update",
    ] {
        assert!(actions.iter().any(|done| done == action), "{action} in {actions:?}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_team_admin_sees_their_team_and_nobody_elses() {
    let gateway = quick().start().await;
    let creator = gateway.token(Role::Owner);
    let mut teams = Vec::new();
    for slug in ["red", "blue"] {
        let team = gateway
            .manage("POST", "/api/teams", &creator, Some(&json!({"slug": slug})))
            .await
            .json();
        teams.push(text(&team, "id").to_owned());
    }
    let lead = member(
        &gateway,
        "lead@example.com",
        Role::TeamAdmin,
        json!({"team_id": teams[0]}),
    )
    .await;
    let stranger = member(
        &gateway,
        "stranger@example.com",
        Role::Member,
        json!({"team_id": teams[1]}),
    )
    .await;
    let token = text(&lead, "access_token");
    let listed = gateway.manage("GET", "/api/teams", token, None).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        gateway
            .manage("GET", &format!("/api/teams/{}", teams[0]), token, None)
            .await
            .status,
        200
    );
    assert_eq!(
        gateway
            .manage("GET", &format!("/api/teams/{}", teams[1]), token, None)
            .await
            .status,
        404
    );
    let users = gateway.manage("GET", USERS, token, None).await.json();
    let emails: Vec<&str> = users["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| text(user, "email"))
        .collect();
    assert_eq!(emails, ["lead@example.com"]);
    let theirs = format!("{USERS}?team_id={}", teams[1]);
    assert_eq!(
        gateway.manage("GET", &theirs, token, None).await.json()["data"],
        json!([])
    );
    let path = format!("{USERS}/{}", text(&stranger["user"], "id"));
    assert_eq!(gateway.manage("GET", &path, token, None).await.status, 404);
    let nowhere = gateway.token(Role::TeamAdmin);
    assert_eq!(
        gateway.manage("GET", USERS, &nowhere, None).await.status,
        403,
        "a token without a team"
    );
    gateway.finish().await;
}

#[tokio::test]
async fn lists_of_people_go_page_by_page() {
    let gateway = quick().start().await;
    let creator = gateway.token(Role::Owner);
    for n in 0..4 {
        let body = json!({"email": format!("u{n}@example.com"), "role": "viewer", "external": true});
        assert_eq!(gateway.manage("POST", USERS, &creator, Some(&body)).await.status, 201);
    }
    let (mut emails, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = gateway
            .manage("GET", &format!("{USERS}?{query}"), &creator, None)
            .await
            .json();
        emails.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|user| text(user, "email").to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(emails.len(), 5, "{emails:?}");
    assert_eq!(
        (emails[0].as_str(), emails[4].as_str()),
        ("owner@localhost", "u3@example.com")
    );
    let taken = json!({"email": "U1@example.com", "role": "viewer"});
    let taken = gateway.manage("POST", USERS, &creator, Some(&taken)).await;
    assert!(taken.status == 409 && taken.text.contains("email"), "{}", taken.text);
    gateway.finish().await;
}
