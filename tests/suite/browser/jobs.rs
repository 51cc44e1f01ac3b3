//! Jobs by pages: what waits and what was given up, and another try for the latter.

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
    browser.until_reads("Forget what is no longer kept").await;
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
    browser.until_reads("No job is like that").await;
    browser.assert_quiet("jobs").await;
    world.finish([browser, other]).await;
}
