//! Jobs by pages: what waits and what was given up, another try for the latter, and how far batches are.

use std::time::Duration;

use bonito::domain::job::{JobKind, NewJob};
use serde_json::{Value, json};

use super::world::{EVIL, World};

#[tokio::test]
async fn a_dead_job_is_found_and_begun_anew_by_whoever_may() {
    let world = World::new().await;
    let job = NewJob {
        organization: Some(world.gateway.organization),
        after: Duration::from_secs(3_600),
        ..NewJob::new(JobKind::Retention, json!({"note": EVIL}))
    };
    world.gateway.store.enqueue(&job).await.expect("it is enqueued");
    world
        .gateway
        .sql("UPDATE gateway_jobs SET state = 'dead', attempts = 10, last_error = '<b>no</b> more tries' WHERE kind = 'retention' AND organization_id IS NOT NULL")
        .await;
    let viewer = world.person("viewer", None).await;
    let other = world.browser_of(&viewer).await;
    other.open_page("/gateway/jobs?state=dead").await;
    other.until_reads("<b>no</b> more tries").await;
    other.click(".audit summary").await;
    assert_eq!(
        other.value("document.querySelector('main button[data-api]')").await,
        Value::Null
    );

    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/jobs").await;
    browser.until_reads("Delete expired data").await;
    browser.click(".audit summary").await;
    browser.until_reads("<img src=x onerror=alert(1)>").await;
    for (width, height, dark, name) in [(1440, 900, false, "desktop-light"), (390, 844, true, "phone-dark")] {
        browser.look(width, height, dark).await;
        browser.assert_accessible("a dead job").await;
        browser.keep_picture(&format!("jobs-dead-{name}")).await;
    }
    browser.look(1440, 900, false).await;
    // What is open stays open while the list is brought up to date.
    world.gateway.sql("UPDATE gateway_jobs SET last_error = 'something else' WHERE kind = 'retention' AND organization_id IS NOT NULL").await;
    browser.until_reads("something else").await;
    assert_eq!(
        browser.value("document.querySelector('.audit details').open").await,
        json!(true)
    );
    browser.click("[data-api$='/retry']").await;
    browser
        .until(
            "document.querySelector('.audit .pill') && document.querySelector('.audit .pill').textContent !== 'dead'",
        )
        .await;
    browser.open_page("/gateway/jobs?kind=key_expiry&state=dead").await;
    browser.until_reads("No matching jobs").await;
    browser.assert_quiet("jobs").await;
    world.finish([browser, other]).await;
}

#[tokio::test]
async fn batches_are_shown_with_their_progress_as_they_go_on() {
    let world = World::new().await;
    let viewer = world.person("viewer", None).await;
    let browser = world.browser_of(&viewer).await;
    browser.open_page("/gateway/jobs").await;
    browser.click("nav.tabs a[href='/gateway/jobs/batches']").await;
    browser.until_at("/gateway/jobs/batches").await;
    browser
        .until("document.querySelectorAll('#batches tbody tr').length === 5")
        .await;
    browser.until_reads("1,252 of 2,000").await;
    browser.until_reads("12 failed").await;
    browser.until_reads("line 3: method must be POST").await;
    browser.until_reads(&format!("job={EVIL}")).await;
    // It goes on while one looks.
    world
        .gateway
        .sql("UPDATE batches SET completed = 1988, status = 'finalizing' WHERE status = 'in_progress'")
        .await;
    browser.until_reads("2,000 of 2,000").await;
    browser.until_reads("finalizing").await;
    browser.choose("#status", "failed").await;
    browser.until("location.search.includes('status=failed')").await;
    browser
        .until("document.querySelectorAll('#batches tbody tr').length === 1")
        .await;
    let key = world.keys[5].to_string();
    browser.open_page(&format!("/gateway/jobs/batches?key_id={key}")).await;
    browser.until_reads("No matching batches").await;
    browser.assert_quiet("batches").await;
    world.finish([browser]).await;
}
