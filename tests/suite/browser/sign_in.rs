//! Signing in and out by pages, and what a session may.

use std::time::{Duration, Instant};

use bonito::domain::role::Role;
use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::rig::Browser;
use super::world::{PASSWORD, World, person};
use crate::support::TestGateway;
use crate::support::issuer::Issuer;

#[tokio::test]
async fn the_first_owner_signs_in_chooses_a_password_looks_around_and_leaves() {
    let gateway = TestGateway::builder().start().await;
    let (email, password) = gateway.owner.clone().expect("the first start made somebody");
    let browser = Browser::open(&gateway.api).await;
    // Whoever opens the gateway itself comes to the sign-in, and from there to where they wanted to go.
    browser.open_page("/").await;
    browser.until_at("/login").await;
    browser.assert_accessible("/login").await;
    browser.keep_picture("login-desktop-light").await;
    browser.look(390, 844, true).await;
    browser.assert_accessible("/login").await;
    browser.keep_picture("login-phone-dark").await;
    browser.look(1440, 900, false).await;
    browser.fill("#email", &email).await;
    browser.fill("#password", "not the password").await;
    browser.click("button[type=submit]").await;
    browser.until_reads("the e-mail address or the password is wrong").await;
    let complaints = browser.complaints(&["401"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.fill("#password", &password).await;
    browser.click("button[type=submit]").await;
    browser.until_at("/gateway/password").await;
    browser.until_reads("Choose a password").await;
    // Nothing else can be reached before.
    browser.open_page("/gateway").await;
    browser.until_at("/gateway/password").await;
    browser
        .choose_password(&password, PASSWORD, "something else entirely")
        .await;
    browser.until_reads("is not the same as the new password").await;
    browser.choose_password(&password, PASSWORD, PASSWORD).await;
    browser.until_at("/gateway").await;
    browser.until_reads("Getting started").await;
    browser.until_reads("No requests yet").await;
    browser.assert_accessible("an empty overview").await;
    browser.keep_picture("overview-empty-desktop-light").await;
    // A request arrives while one looks, and its step is ticked off.
    browser.until("document.querySelector('[data-live-dot].on')").await;
    let reply = gateway.chat("echo", "hello").await;
    assert_eq!(reply.status, 200);
    browser
        .until("document.querySelector('[data-live=recent] tbody tr')")
        .await;
    browser.until("[...document.querySelectorAll('.checklist li.done .step')].some(step => step.textContent === 'Send a request')").await;
    let complaints = browser.complaints(&["422"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    // The theme is kept.
    browser.click("[data-theme-toggle]").await;
    assert_eq!(
        browser.value("document.documentElement.dataset.theme").await,
        json!("dark")
    );
    browser.open_page("/gateway").await;
    assert_eq!(
        browser.value("document.documentElement.dataset.theme").await,
        json!("dark")
    );
    browser.click(".user-button").await;
    browser.click("form[action='/logout'] button").await;
    browser.until_at("/login").await;
    browser.open_page("/gateway").await;
    browser.until_at("/login").await;
    browser.assert_quiet("after signing out").await;
    browser.close().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_phone_has_its_navigation_in_a_drawer() {
    let world = World::new().await;
    let viewer = world.person("viewer", None).await;
    let browser = world.browser_of(&viewer).await;
    browser.look(390, 844, false).await;
    browser.open_page("/gateway").await;
    let hidden = "getComputedStyle(document.querySelector('#sidebar')).visibility === 'hidden'";
    assert_eq!(browser.value(hidden).await, json!(true));
    browser.click("[data-menu]").await;
    browser
        .until("document.querySelector('#sidebar').getBoundingClientRect().left === 0")
        .await;
    browser.assert_accessible("the open drawer").await;
    browser.keep_picture("drawer-phone-light").await;
    browser.click("#sidebar a[href='/gateway/keys']").await;
    browser.until_at("/gateway/keys").await;
    // Who only looks is offered nothing else.
    assert_eq!(
        browser.value("document.querySelector('[data-opens=new-key]')").await,
        Value::Null
    );
    browser.assert_quiet("the drawer").await;
    world.finish([browser]).await;
}

/// The value of a cookie that an answer sets.
fn cookie(answer: &reqwest::Response) -> String {
    let lines = answer.headers().get_all("set-cookie").iter();
    let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    let session = lines.iter().find(|line| line.starts_with("bonito_session="));
    let session = session.unwrap_or_else(|| panic!("no session: {lines:?}"));
    for word in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="] {
        assert!(session.contains(word), "{session}");
    }
    session.split(';').next().expect("a line has a beginning").to_owned()
}

#[tokio::test]
async fn a_session_is_good_for_the_api_with_its_pages_proof_alone_and_ends_at_once() {
    let gateway = TestGateway::builder().set("auth.recheck_ms", 50).start().await;
    let (email, password) = gateway.owner.clone().expect("the first start made somebody");
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let post = |path: &str, form: &[(&str, &str)], headers: &[(&'static str, &str)]| {
        let mut request = client.post(format!("{}{path}", gateway.api)).form(form);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    };
    // Another site's page signs nobody in, as themselves or as somebody else.
    let login = [
        ("email", email.as_str()),
        ("password", password.as_str()),
        ("next", "https://evil.example"),
    ];
    let answer = post("/login", &login, &[("sec-fetch-site", "cross-site")])
        .await
        .unwrap();
    assert_eq!(answer.status(), 403);
    let answer = post("/login", &login, &[]).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["location"].to_str().unwrap()),
        (303, "/gateway")
    );
    let session = cookie(&answer);
    let get = |path: &str, session: &str| {
        client
            .get(format!("{}{path}", gateway.api))
            .header("cookie", session)
            .send()
    };
    let page = get("/gateway/password", &session).await.unwrap();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("referrer-policy", "same-origin"),
    ] {
        assert_eq!(page.headers()[name], value);
    }
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let text = page.text().await.unwrap();
    let proof = text
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap()
        .to_owned();
    let change = [
        ("current_password", password.as_str()),
        ("new_password", PASSWORD),
        ("again", PASSWORD),
    ];
    let answer = post("/gateway/password", &change, &[("cookie", &session)])
        .await
        .unwrap();
    assert_eq!(answer.status(), 403, "a form without the page's proof");
    let mut change = change.to_vec();
    change.push(("csrf", &proof));
    let answer = post("/gateway/password", &change, &[("cookie", &session)])
        .await
        .unwrap();
    assert_eq!(answer.status(), 303);
    let changed = cookie(&answer);
    // The cookie from before the change is of somebody with another password.
    assert_eq!(get("/api/auth/me", &session).await.unwrap().status(), 401);
    let me: Value = get("/api/auth/me", &changed).await.unwrap().json().await.unwrap();
    assert_eq!(
        (me["role"].as_str(), me["via"].as_str()),
        (Some("platform_admin"), Some("password"))
    );
    // What changes something needs the proof, and comes from nowhere else.
    let create = |headers: &[(&'static str, &str)]| {
        let mut request = client
            .post(format!("{}/api/gateway/keys", gateway.api))
            .header("cookie", &changed);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.json(&json!({"name": "mine"})).send()
    };
    assert_eq!(create(&[]).await.unwrap().status(), 403);
    assert_eq!(create(&[("x-bonito-csrf", "guessed")]).await.unwrap().status(), 403);
    let from_elsewhere = [("x-bonito-csrf", proof.as_str()), ("origin", "https://evil.example")];
    assert_eq!(create(&from_elsewhere).await.unwrap().status(), 403);
    assert_eq!(create(&[("x-bonito-csrf", &proof)]).await.unwrap().status(), 201);
    // Neither kind of token is the other.
    let token = changed.split_once('=').unwrap().1;
    assert_eq!(gateway.manage("GET", "/api/auth/me", token, None).await.status, 401);
    let bearer = format!("bonito_session={}", gateway.token(Role::Owner));
    assert_eq!(get("/api/auth/me", &bearer).await.unwrap().status(), 401);
    let answer = post("/logout", &[("csrf", &proof)], &[("cookie", &changed)])
        .await
        .unwrap();
    assert_eq!(answer.status(), 303);
    assert_eq!(get("/api/auth/me", &changed).await.unwrap().status(), 401);
    let away = get("/gateway/keys", &changed).await.unwrap();
    assert_eq!(away.headers()["location"], "/login?next=%2Fgateway%2Fkeys");
    gateway.finish().await;
}

/// What an answer says of the session's cookie: its value and its seconds; `None`: nothing.
fn renewed(answer: &reqwest::Response) -> Option<(String, i64)> {
    let lines = answer.headers().get_all("set-cookie").iter();
    let mut lines = lines.filter_map(|line| line.to_str().ok());
    let session = lines.find(|line| line.starts_with("bonito_session="))?;
    let seconds = session.split("Max-Age=").nth(1)?.split(';').next()?.parse().ok()?;
    Some((session.split(';').next()?.to_owned(), seconds))
}

#[tokio::test]
async fn a_session_goes_on_while_pages_are_opened_up_to_its_end_and_never_comes_back() {
    let gateway = TestGateway::builder()
        .set("auth.recheck_ms", 20)
        .set("auth.refresh_token_ms", 3_600_000)
        .set("auth.session_ms", 86_400_000)
        .start()
        .await;
    let email = person(&gateway, "owner", None).await;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let get = |path: &str, session: &str| {
        client
            .get(format!("{}{path}", gateway.api))
            .header("cookie", session)
            .send()
    };
    let login = [("email", email.as_str()), ("password", PASSWORD)];
    let answer = client
        .post(format!("{}/login", gateway.api))
        .form(&login)
        .send()
        .await
        .unwrap();
    let session = cookie(&answer);
    let page = get("/gateway/keys", &session).await.unwrap();
    assert_eq!((page.status().as_u16(), renewed(&page)), (200, None), "it is as new");

    // It has half of its time left: whoever opens a page has all of it again, and nothing else renews it.
    let at = |seconds: i64| {
        format!(
            "'{}'",
            (Utc::now() + TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Micros, true)
        )
    };
    let ends = async |expires: i64, ends: i64| {
        let set = format!(
            "UPDATE refresh_tokens SET expires_at = {}, ends_at = {}",
            at(expires),
            at(ends)
        );
        gateway.sql(&set).await;
    };
    ends(1_800, 80_000).await;
    let began = Instant::now();
    let (next, seconds) = loop {
        let asked = get("/api/auth/me", &session).await.unwrap();
        assert_eq!((asked.status().as_u16(), renewed(&asked)), (200, None));
        let page = get("/gateway/keys", &session).await.unwrap();
        if let Some(found) = renewed(&page) {
            break found;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "it is not renewed");
    };
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    let later = format!(
        "SELECT COUNT(*) AS n FROM refresh_tokens WHERE expires_at > {}",
        at(3_500)
    );
    assert_eq!(gateway.number(&later).await, 1);
    assert_eq!(
        renewed(&get("/gateway/keys", &next).await.unwrap()),
        None,
        "once is enough"
    );
    // A token is no cookie, and does not become one.
    let login_by_api = json!({"email": email, "password": PASSWORD});
    let token = gateway.manage("POST", "/api/auth/login", "", Some(&login_by_api)).await;
    let token = token.json()["access_token"].as_str().unwrap().to_owned();
    ends(1_800, 80_000).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(100) {
        let page = client
            .get(format!("{}/gateway/keys", gateway.api))
            .bearer_auth(&token)
            .send()
            .await
            .unwrap();
        assert_eq!((page.status().as_u16(), renewed(&page)), (200, None));
    }

    // Its end is its end.
    ends(60, 600).await;
    let began = Instant::now();
    let (last, seconds) = loop {
        if let Some(found) = renewed(&get("/gateway/keys", &next).await.unwrap())
            && found.1 <= 600
        {
            break found;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "it is not renewed");
    };
    assert!(seconds > 500, "{seconds}");
    assert_eq!(
        renewed(&get("/gateway/keys", &last).await.unwrap()),
        None,
        "there is no more"
    );

    // Signed out, every cookie of the session is worth nothing, and opening pages brings none back.
    let page = get("/gateway/keys", &last).await.unwrap().text().await.unwrap();
    let proof = page
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap();
    let out = client
        .post(format!("{}/logout", gateway.api))
        .header("cookie", &last)
        .form(&[("csrf", proof)])
        .send();
    assert_eq!(out.await.unwrap().status(), 303);
    for old in [&session, &next, &last] {
        let page = get("/gateway/keys", old).await.unwrap();
        assert_eq!((page.status().as_u16(), renewed(&page)), (303, None));
        assert_eq!(get("/api/auth/me", old).await.unwrap().status(), 401);
    }
    // Nor after a change of the user, whatever the cookie was renewed to.
    let answer = client
        .post(format!("{}/login", gateway.api))
        .form(&login)
        .send()
        .await
        .unwrap();
    let session = cookie(&answer);
    ends(60, 80_000).await;
    let admin = gateway.token(Role::PlatformAdmin);
    let users = gateway.manage("GET", "/api/users", &admin, None).await.json();
    let user = users["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|user| user["email"] == json!(email))
        .unwrap();
    let path = format!("/api/users/{}", user["id"].as_str().unwrap());
    let disabled = gateway
        .manage("PATCH", &path, &admin, Some(&json!({"disabled": true})))
        .await;
    assert_eq!(disabled.status, 200, "{}", disabled.text);
    let began = Instant::now();
    while get("/api/auth/me", &session).await.unwrap().status() != 401 {
        assert!(began.elapsed() < Duration::from_secs(10), "it is still good");
    }
    let page = get("/gateway/keys", &session).await.unwrap();
    assert_eq!((page.status().as_u16(), renewed(&page)), (303, None));
    gateway.finish().await;
}

#[tokio::test]
async fn whom_the_issuer_vouches_for_comes_back_to_the_page_they_wanted() {
    let issuer = Issuer::start().await;
    let gateway = TestGateway::builder().file(&issuer.settings()).start().await;
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let get = |path: String, cookies: String| {
        client
            .get(format!("{}{path}", gateway.api))
            .header("cookie", cookies)
            .send()
    };
    let page = get("/login".into(), String::new()).await.unwrap().text().await.unwrap();
    assert!(page.contains("Sign in with single sign-on"), "{page}");
    let start = get("/login/oidc?next=%2Fgateway%2Fkeys".into(), String::new())
        .await
        .unwrap();
    assert_eq!(start.status(), 303);
    let cookies: Vec<String> = (start.headers().get_all("set-cookie").iter())
        .map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned())
        .collect();
    let location = start.headers()["location"].to_str().unwrap().to_owned();
    let claims =
        json!({"email": "ada@example.com", "email_verified": true, "name": "Ada", "groups": ["gateway-owners"]});
    let back = issuer.authorize(&location, &claims);
    let came = get(back, cookies.join("; ")).await.unwrap();
    assert_eq!(
        (came.status().as_u16(), came.headers()["location"].to_str().unwrap()),
        (303, "/gateway/keys")
    );
    let me = get("/api/auth/me".into(), cookie(&came)).await.unwrap();
    let me: Value = me.json().await.unwrap();
    assert_eq!((me["via"].as_str(), me["role"].as_str()), (Some("oidc"), Some("owner")));
    // What the issuer has not let in is told so on a page, and has no session.
    let refused = get("/api/auth/oidc/callback?error=access_denied".into(), cookies.join("; "))
        .await
        .unwrap();
    assert_eq!(refused.status(), 401);
    assert!(
        refused
            .text()
            .await
            .unwrap()
            .contains("the identity provider did not sign you in")
    );
    gateway.finish().await;
}
