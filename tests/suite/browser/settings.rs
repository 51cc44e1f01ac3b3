//! Settings by pages: the organization, its members and their first passwords, teams, and what was done by whom.

use serde_json::{Value, json};

use super::world::{EVIL, World};

#[tokio::test]
async fn an_owner_manages_people_and_teams_by_pages_and_finds_it_all_in_the_audit_log() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;

    // The organization gets another name, and keeps what was not touched.
    browser.open_page("/gateway/settings").await;
    browser.fill("#org-name", "Renamed <b>by</b> its owner").await;
    browser.fill("#org-models", "gpt-5*,claude-*,").await;
    browser.choose("#org-policy", "drop").await;
    browser
        .click("form[data-api^='PATCH /api/organizations'] button[type=submit]")
        .await;
    browser.until_reads("Settings of Renamed <b>by</b> its owner").await;
    assert_eq!(
        browser.value("document.querySelector('#org-policy').value").await,
        "drop"
    );
    assert_eq!(
        browser.value("document.querySelectorAll('main .token').length").await,
        json!(2)
    );

    // A name that nobody has is taken, and said to be one.
    browser.fill("#org-models", "no-such-model,").await;
    browser
        .click("form[data-api^='PATCH /api/organizations'] button[type=submit]")
        .await;
    browser
        .until_reads("No model that is configured is called \"no-such-model\"")
        .await;

    // Somebody is added: what is wrong is said at its field, and the password is shown once.
    browser.open_page("/gateway/settings/members").await;
    browser.until_reads(EVIL).await;
    browser.click("main [data-opens='new-member']").await;
    browser.until("document.querySelector('#new-member').open").await;
    browser.fill("#new-email", "new@example.com").await;
    browser.fill("#new-name", EVIL).await;
    browser.choose("#new-role", "team_admin").await;
    browser.assert_accessible("the dialog of a new member").await;
    browser.keep_picture("member-new-desktop-light").await;
    browser.click("#new-member button[type=submit]").await;
    browser
        .until("document.querySelector('#new-team').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.choose("#new-team", &world.team.to_string()).await;
    browser.click("#new-member button[type=submit]").await;
    browser.until("document.querySelector('#once').open").await;
    browser.assert_accessible("the dialog of a first password").await;
    let password = browser.value("document.querySelector('#once-text').textContent").await;
    let login = json!({"email": "new@example.com", "password": password});
    let reply = world.gateway.manage("POST", "/api/auth/login", "", Some(&login)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    browser.click("[data-once-done]").await;
    browser.until_reads("temporary password").await;
    assert_eq!(
        browser
            .value(&format!("document.documentElement.outerHTML.includes({password})"))
            .await,
        json!(false)
    );

    // Changed, with another password, and deleted once it is meant.
    let edit = browser.value("[...document.querySelectorAll('#members tr')].find(row => row.textContent.includes('new@example.com')).querySelector('[data-opens]').dataset.opens").await;
    let edit = edit.as_str().unwrap().to_owned();
    let id = edit.trim_start_matches("edit-").to_owned();
    browser.click(&format!("[data-opens='{edit}']")).await;
    browser.assert_accessible("the dialog of a member").await;
    browser.choose(&format!("[id='role-{id}']"), "viewer").await;
    browser.click(&format!("[id='{edit}'] button[type=submit]")).await;
    browser.until("[...document.querySelectorAll('#members tr')].some(row => row.textContent.includes('new@example.com') && row.textContent.includes('viewer'))").await;
    browser.click(&format!("[data-opens='{edit}']")).await;
    browser
        .click(&format!("[id='{edit}'] [data-body*=reset_password]"))
        .await;
    browser.click("[data-confirm-yes]").await;
    browser.until("document.querySelector('#once').open").await;
    let other = browser.value("document.querySelector('#once-text').textContent").await;
    assert_ne!(other, password);
    browser.click("[data-once-done]").await;
    browser
        .until("!document.querySelector('dialog[open]') && document.readyState === 'complete'")
        .await;
    browser.click(&format!("[data-opens='{edit}']")).await;
    browser.click(&format!("[id='{edit}'] [data-api^=DELETE]")).await;
    browser.click("[data-confirm-yes]").await;
    browser
        .until("document.querySelector('#members') && !document.body.innerText.includes('new@example.com')")
        .await;

    // A team comes, is renamed and goes.
    browser.open_page("/gateway/settings/teams").await;
    browser.until_reads(EVIL).await;
    browser.click(".page-actions [data-opens='new-team']").await;
    browser.fill("#new-name", "Paper & <i>ink</i>").await;
    browser.fill("#new-slug", "Not A Slug").await;
    browser.click("#new-team button[type=submit]").await;
    browser
        .until("document.querySelector('#new-slug').getAttribute('aria-invalid') === 'true'")
        .await;
    browser.fill("#new-slug", "paper").await;
    browser.click("#new-team button[type=submit]").await;
    browser.until_reads("Paper & <i>ink</i>").await;
    let edit = browser.value("[...document.querySelectorAll('#teams tr')].find(row => row.textContent.includes('ink')).querySelector('[data-opens]').dataset.opens").await;
    let edit = edit.as_str().unwrap().to_owned();
    browser.click(&format!("[data-opens='{edit}']")).await;
    browser.fill(&format!("[id='{edit}'] input[name=name]"), "Pens").await;
    browser.click(&format!("[id='{edit}'] button[type=submit]")).await;
    browser.until_reads("Pens").await;
    browser.click(&format!("[data-opens='{edit}']")).await;
    browser.click(&format!("[id='{edit}'] [data-api^=DELETE]")).await;
    browser.click("[data-confirm-yes]").await;
    browser
        .until("document.querySelector('#teams') && !document.querySelector('#teams').innerText.includes('Pens')")
        .await;

    // All of it is in the log, with what changed.
    browser.open_page("/gateway/settings/audit?resource=team").await;
    browser.until_reads("team.delete").await;
    browser.until_reads(&owner).await;
    browser.click(".audit summary").await;
    browser.until("document.querySelector('.audit details').open").await;
    browser.until_reads("Pens").await;
    browser.assert_accessible("an entry of the audit log").await;
    browser.keep_picture("audit-entry-desktop-light").await;
    browser.look(390, 844, true).await;
    browser.assert_accessible("an entry of the audit log on a phone").await;
    browser.keep_picture("audit-entry-phone-dark").await;
    browser.open_page("/gateway/settings/audit?actor=nobody").await;
    browser.until_reads("No matching entries").await;
    let complaints = browser.complaints(&["status of 4"]).await;
    assert!(complaints.is_empty(), "{complaints:?}");
    assert_eq!(
        browser.value("document.querySelectorAll('main img').length").await,
        json!(0)
    );
    world.finish([browser]).await;
}

#[tokio::test]
async fn settings_show_to_each_role_what_it_may_see() {
    let world = World::new().await;
    let (viewer, member) = (
        world.person("viewer", None).await,
        world.person("member", Some(world.team)).await,
    );
    let team_admin = world.person("team_admin", Some(world.team)).await;

    let browser = world.browser_of(&viewer).await;
    for (path, shows) in [
        ("/gateway/settings", "only owners can edit"),
        ("/gateway/settings/members", "team_admin@example.com"),
        ("/gateway/settings/teams", "Research"),
        ("/gateway/settings/audit", "key.create"),
    ] {
        browser.open_page(path).await;
        browser.until_reads(shows).await;
        assert_eq!(
            browser
                .value("document.querySelector('main [data-api], main [data-opens]')")
                .await,
            Value::Null,
            "{path}"
        );
    }

    // A team admin sees their team, and begins there.
    let theirs = world.browser_of(&team_admin).await;
    theirs.open_page("/gateway/settings").await;
    theirs
        .until("document.querySelectorAll('#teams tbody tr').length === 1")
        .await;
    theirs.open_page("/gateway/settings/audit").await;
    theirs.until("document.querySelector('[data-error=\"403\"]')").await;

    let own = world.browser_of(&member).await;
    assert_eq!(
        own.value("document.querySelector('#sidebar a[href=\"/gateway/settings\"]')")
            .await,
        Value::Null
    );
    own.open_page("/gateway/settings").await;
    own.until("document.querySelector('[data-error=\"403\"]')").await;
    own.assert_accessible("a page that is not for a member").await;
    world.finish([browser, theirs, own]).await;
}
