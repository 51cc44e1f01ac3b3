//! Signing in by an external OpenID Connect issuer, and its bearer tokens on the management API.

use bonito::domain::role::Role;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::audit::rows;
use crate::support::TestGateway;
use crate::support::gateway::{Reply, read};
use crate::support::issuer::{AUDIENCE, CLIENT, Issuer};

const ME: &str = "/api/auth/me";
const USERS: &str = "/api/users";

async fn gateway(issuer: &Issuer) -> TestGateway {
    TestGateway::builder()
        .file(&issuer.settings())
        .set("auth.recheck_ms", 20)
        .start()
        .await
}

/// A browser: it follows no redirect by itself and keeps one cookie.
struct Browser<'g> {
    gateway: &'g TestGateway,
    client: reqwest::Client,
}

impl<'g> Browser<'g> {
    fn new(gateway: &'g TestGateway) -> Self {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self {
            gateway,
            client: client.build().unwrap(),
        }
    }

    async fn get(&self, path: &str, cookie: &str) -> Reply {
        let request = self.client.get(format!("{}{path}", self.gateway.api));
        read(request.header("cookie", cookie).send().await.unwrap()).await
    }

    /// Begins to sign in: where to go, and the cookie to come back with.
    async fn start(&self) -> (String, String) {
        let start = self.get("/api/auth/oidc/start", "a=b").await;
        assert_eq!(start.status, 302, "{}", start.text);
        let cookie = start.header("set-cookie");
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
            "{cookie}"
        );
        let kept = cookie.split(';').next().unwrap();
        (start.header("location").to_owned(), format!("other=1; {kept}"))
    }

    /// Signs in as whom the issuer says.
    async fn sign_in(&self, issuer: &Issuer, claims: &Value) -> Reply {
        let (location, cookie) = self.start().await;
        self.get(&issuer.authorize(&location, claims), &cookie).await
    }
}

#[tokio::test]
async fn whom_the_issuer_vouches_for_signs_in_and_is_what_it_says() {
    let issuer = Issuer::start().await;
    let gateway = gateway(&issuer).await;
    let browser = Browser::new(&gateway);
    let claims =
        json!({"email": "Ada@Example.com", "email_verified": true, "name": "Ada", "groups": ["x", "gateway-owners"]});
    let signed_in = browser.sign_in(&issuer, &claims).await;
    assert_eq!(signed_in.status, 200, "{}", signed_in.text);
    assert!(signed_in.header("set-cookie").contains("Max-Age=0"));
    let session = signed_in.json();
    for (member, expected) in [
        ("email", json!("ada@example.com")),
        ("name", json!("Ada")),
        ("role", json!("owner")),
        ("external", json!(true)),
        ("has_password", json!(false)),
    ] {
        assert_eq!(session["user"][member], expected, "{session}");
    }
    let token = session["access_token"].as_str().unwrap();
    let me = gateway.manage("GET", ME, token, None).await.json();
    assert_eq!((&me["via"], &me["role"]), (&json!("oidc"), &json!("owner")));
    let created = gateway
        .manage("POST", "/api/teams", token, Some(&json!({"slug": "red"})))
        .await;
    assert_eq!(created.status, 201, "{}", created.text);
    let log = rows(&gateway, gateway.organization).await;
    let team = log.iter().find(|row| row.action == "team.create").unwrap();
    assert_eq!((team.actor.as_str(), team.via.as_str()), ("ada@example.com", "oidc"));

    // Tomorrow the issuer says something else.
    let demoted = json!({"email": "ada@example.com", "groups": ["leads"], "team": "red"});
    let again = browser.sign_in(&issuer, &demoted).await.json();
    assert_eq!(
        (&again["user"]["role"], &again["user"]["id"]),
        (&json!("team_admin"), &session["user"]["id"])
    );
    let refreshed = json!({"refresh_token": again["refresh_token"]});
    let request = gateway
        .client
        .post(format!("{}/api/auth/refresh", gateway.api))
        .json(&refreshed);
    assert_eq!(read(request.send().await.unwrap()).await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn what_the_issuer_does_not_say_as_it_must_lets_nobody_in() {
    let issuer = Issuer::start().await;
    let gateway = gateway(&issuer).await;
    let browser = Browser::new(&gateway);
    let soon = chrono::Utc::now().timestamp() + 300;
    for (claims, status) in [
        (json!({"email": "a@example.com", "nonce": "of another sign-in"}), 401),
        (json!({"email": "a@example.com", "aud": "somebody else"}), 401),
        (json!({"email": "a@example.com", "aud": [CLIENT.0, "other"]}), 401),
        (json!({"email": "a@example.com", "azp": "other"}), 401),
        (json!({"email": "a@example.com", "iss": "https://evil.example"}), 401),
        (json!({"email": "a@example.com", "exp": soon - 1_000}), 401),
        (json!({"email": "a@example.com", "nbf": soon}), 401),
        (json!({"email": "a@example.com", "exp": null}), 401),
        (json!({"email": "a@example.com", "groups": ["nobody", "owner"]}), 403),
        (json!({"email": "a@example.com", "org": "nowhere"}), 403),
        (json!({"email": "a@example.com", "team": "nowhere"}), 403),
        (json!({"email": "a@example.com", "groups": "leads"}), 403),
        (json!({"email": null}), 403),
        // The first start made somebody of that address.
        (json!({"email": "owner@localhost", "email_verified": true}), 409),
    ] {
        let reply = browser.sign_in(&issuer, &claims).await;
        assert_eq!(reply.status, status, "{claims}: {}", reply.text);
    }
    let good = json!({"email": "a@example.com", "aud": [CLIENT.0, "other"], "azp": CLIENT.0});
    assert_eq!(browser.sign_in(&issuer, &good).await.status, 200);

    // Only the browser that began comes back, with what it was given, once, and in time.
    let claims = json!({"email": "a@example.com"});
    let (location, cookie) = browser.start().await;
    let (_, others) = browser.start().await;
    let back = issuer.authorize(&location, &claims);
    for (back, cookie) in [
        (back.clone(), String::new()),
        (back.clone(), others),
        (back.replace("state=", "state=x"), cookie.clone()),
        (back.replace("code=", "code=x"), cookie.clone()),
        ("/api/auth/oidc/callback?error=access_denied".to_owned(), cookie.clone()),
    ] {
        assert_eq!(browser.get(&back, &cookie).await.status, 401, "{back}");
    }
    assert_eq!(browser.get(&back, &cookie).await.status, 200);
    assert_eq!(browser.get(&back, &cookie).await.status, 401, "a code is good once");
    gateway.finish().await;
}

#[tokio::test]
async fn somebody_who_was_invited_is_linked_by_an_address_that_is_verified() {
    let issuer = Issuer::start().await;
    let gateway = gateway(&issuer).await;
    let browser = Browser::new(&gateway);
    let owner = gateway.token(Role::Owner);
    let invited = json!({"email": "eve@example.com", "role": "viewer", "external": true});
    let invited = gateway.manage("POST", USERS, &owner, Some(&invited)).await.json();
    let unverified = json!({"email": "eve@example.com"});
    assert_eq!(browser.sign_in(&issuer, &unverified).await.status, 409);
    let verified = json!({"email": "eve@example.com", "email_verified": true});
    let session = browser.sign_in(&issuer, &verified).await.json();
    assert_eq!(
        (&session["user"]["id"], &session["user"]["role"]),
        (&invited["id"], &json!("member"))
    );
    // Whoever is disabled here stays out, whatever the issuer says.
    let path = format!("{USERS}/{}", invited["id"].as_str().unwrap());
    let disabled = gateway
        .manage("PATCH", &path, &owner, Some(&json!({"disabled": true})))
        .await;
    assert_eq!(disabled.status, 200);
    assert_eq!(browser.sign_in(&issuer, &verified).await.status, 403);
    let token = issuer.token(&json!({}));
    assert_eq!(gateway.manage("GET", ME, &token, None).await.status, 401);
    gateway.finish().await;
}

#[tokio::test]
async fn bearer_tokens_of_the_issuer_open_the_management_api_and_no_others_do() {
    let issuer = Issuer::start().await;
    let gateway = gateway(&issuer).await;
    let status = async |token: &str| gateway.manage("GET", ME, token, None).await.status;
    let token = issuer.token(&json!({"groups": ["gateway-owners"], "email": "ci@example.com"}));
    let me = gateway.manage("GET", ME, &token, None).await.json();
    assert_eq!(
        (&me["subject"], &me["role"], &me["via"]),
        (&json!("ci@example.com"), &json!("owner"), &json!("oidc"))
    );
    let other = Issuer::start().await;
    let now = chrono::Utc::now().timestamp();
    let hidden = json!({"kty": "oct", "kid": "symmetric", "alg": "HS256", "k": "c2VjcmV0"});
    issuer.publish(hidden);
    for (name, token) in [
        ("another audience", issuer.token(&json!({"aud": CLIENT.0}))),
        ("no audience", issuer.token(&json!({"aud": null}))),
        ("over", issuer.token(&json!({"exp": now - 60}))),
        ("without an end", issuer.token(&json!({"exp": null}))),
        ("not yet good", issuer.token(&json!({"nbf": now + 120}))),
        ("nobody", issuer.token(&json!({"sub": null}))),
        ("of a sign-in", issuer.token(&json!({"nonce": "n"}))),
        ("signed by another", other.token(&json!({"iss": issuer.url}))),
        ("of another issuer", other.token(&json!({}))),
        (
            "another key",
            issuer.token_with(&json!({}), |header| header.kid = Some("unknown".into())),
        ),
        ("junk", "a.b.c".to_owned()),
        ("too long", issuer.token(&json!({"filler": "x".repeat(20_000)}))),
    ] {
        assert_eq!(status(&token).await, 401, "{name}");
    }
    // A token that says it is signed symmetrically, with what everybody can read.
    let claims = json!({"iss": issuer.url, "aud": AUDIENCE, "sub": "x", "exp": now + 60, "groups": ["gateway-owners"]});
    let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
    header.kid = Some("symmetric".into());
    let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    let forged = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    assert_eq!(status(&forged).await, 401);
    // And one that is what nothing here is.
    let refused = gateway
        .manage("GET", ME, &issuer.token(&json!({"groups": []})), None)
        .await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert_eq!(
        gateway
            .manage("GET", USERS, &issuer.token(&json!({})), None)
            .await
            .status,
        403,
        "a member"
    );
    gateway.finish().await;
}

/// P30: made-up keys cost the issuer one question, and nobody who has a good token waits for it.
#[tokio::test]
async fn p30_a_flood_of_tokens_with_unknown_keys_asks_the_issuer_once() {
    let issuer = Issuer::start().await;
    let gateway = gateway(&issuer).await;
    let good = issuer.token(&json!({}));
    assert_eq!(gateway.manage("GET", ME, &good, None).await.status, 200);
    let before = issuer.asked("/keys");
    let flood: Vec<String> = (0..200)
        .map(|n| issuer.token_with(&json!({}), |header| header.kid = Some(format!("made-up-{n}"))))
        .collect();
    let flood = flood.iter().map(|token| gateway.manage("GET", ME, token, None));
    let replies = futures_util::future::join_all(flood).await;
    assert!(replies.iter().all(|reply| reply.status == 401));
    let bodies: std::collections::BTreeSet<&str> = replies.iter().map(|reply| reply.text.as_str()).collect();
    assert_eq!(bodies.len(), 1, "they say nothing");
    assert_eq!(issuer.asked("/keys") - before, 0, "it was asked less than 30 s ago");
    assert_eq!(issuer.asked("/.well-known/openid-configuration"), 1);
    assert_eq!(gateway.manage("GET", ME, &good, None).await.status, 200);
    // An issuer that is away does not matter as long as the key is known.
    issuer.set_down(true);
    assert_eq!(gateway.manage("GET", ME, &good, None).await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_or_is_none_is_said_so() {
    let issuer = Issuer::start().await;
    issuer.set_down(true);
    let gateway = gateway(&issuer).await;
    let browser = Browser::new(&gateway);
    assert_eq!(browser.get("/api/auth/oidc/start", "").await.status, 503);
    assert_eq!(
        gateway.manage("GET", ME, &issuer.token(&json!({})), None).await.status,
        401
    );
    let plain = TestGateway::builder().start().await;
    assert_eq!(Browser::new(&plain).get("/api/auth/oidc/start", "").await.status, 404);
    assert_eq!(
        plain.manage("GET", ME, &issuer.token(&json!({})), None).await.status,
        401
    );
    plain.finish().await;
    gateway.finish().await;
}
