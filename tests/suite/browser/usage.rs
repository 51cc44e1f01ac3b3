//! Usage by pages: any time, any filter, charts that answer, tables that sort, and the same figures as CSV.

use serde_json::{Value, json};

use super::world::{EVIL, World};

/// What the table's last line says of all requests.
const TOTAL: &str = "Number(document.querySelector('#breakdown tfoot tr.total td:nth-child(3)').dataset.value)";

#[tokio::test]
async fn usage_is_looked_at_by_time_filter_and_group_and_exported_as_it_is_shown() {
    let world = World::new().await;
    let owner = world.person("owner", None).await;
    let browser = world.browser_of(&owner).await;
    browser.open_page("/gateway/usage").await;
    browser.until_reads("By model").await;
    browser.until_reads("expected by the end of").await;
    assert_eq!(
        browser.value("document.querySelectorAll('[data-chart]').length").await,
        json!(5)
    );
    browser.until_drawn().await;
    let all = browser.value(TOTAL).await.as_i64().unwrap();
    assert!(all > 2_000, "{all}");

    // A chart can be zoomed, and a series be left out of it.
    let fixed = browser
        .value("document.querySelector('#spend')._fullLayout.xaxis.fixedrange")
        .await;
    assert_eq!(fixed, json!(false));
    browser.click("#spend + .chart-legend button").await;
    browser
        .until("document.querySelector('#spend').data.some(series => series.visible === false)")
        .await;
    // Bars are stacked or stand side by side, which the URL keeps.
    browser.click("nav[aria-label=Bars] a:nth-child(2)").await;
    browser.until("location.search.includes('bars=grouped')").await;
    browser
        .until("document.querySelector('#spend')?._fullLayout?.barmode === 'group'")
        .await;

    // Sorted by what somebody wants to know.
    browser.click("#breakdown th:nth-child(3) button.sort").await;
    let requests = browser
        .value("[...document.querySelectorAll('#breakdown tbody td:nth-child(3)')].map(cell => Number(cell.dataset.value))")
        .await;
    let requests: Vec<i64> = requests.as_array().unwrap().iter().filter_map(Value::as_i64).collect();
    assert!(
        requests.len() >= 5 && requests.is_sorted_by(|a, b| a >= b),
        "{requests:?}"
    );

    // A filter narrows everything, and is in the URL.
    let key = world.keys[2].to_string();
    browser.choose("#key_id", &key).await;
    browser
        .until(&format!("location.search.includes('key_id={key}')"))
        .await;
    browser.until_reads("Clear filters").await;
    // The key that is chosen is told by its name.
    let named = browser.value("document.querySelector('#key_id').value").await;
    assert_eq!(named, json!("support-bot"));
    let of_key = browser.value(TOTAL).await.as_i64().unwrap();
    assert!(of_key > 0 && of_key < all, "{of_key} of {all}");
    let chart = browser
        .value("JSON.parse(document.querySelector('#requests').dataset.chart).series.flatMap(series => series.y).reduce((sum, y) => sum + y, 0)")
        .await;
    assert_eq!(chart.as_f64().unwrap().round() as i64, of_key);
    // And the same values as a table, for those who do not point.
    browser.click("[data-table-of=requests] > summary").await;
    let told = browser
        .value("Array.from(document.querySelectorAll('[data-table-of=requests] td')).reduce((sum, cell) => sum + Number(cell.textContent.replaceAll(',', '')), 0)")
        .await;
    assert_eq!(told.as_f64().unwrap().round() as i64, of_key);
    // The export is of what is shown.
    let sum = "const done = arguments[arguments.length - 1]; \
        fetch(document.querySelector('[data-export=groups]').href).then(async answer => { \
            const [names, ...lines] = (await answer.text()).trim().split(/\\r?\\n/).map(line => line.split(',')); \
            const place = names.indexOf('requests'); \
            done([answer.status, answer.headers.get('content-type'), lines.reduce((sum, line) => sum + Number(line[place]), 0)]); \
        }).catch(error => done(String(error)))";
    let exported = browser.client.execute_async(sum, Vec::new()).await.unwrap();
    assert_eq!(exported, json!([200, "text/csv; charset=utf-8", of_key]));
    // The table as it is shown, line by line, dearest first.
    let rows = "Array.from(document.querySelectorAll('#breakdown tbody tr')).map(row => \
        [row.cells[0].dataset.value, Number(row.cells[1].dataset.value), Number(row.cells[2].dataset.value)])";
    let shown = browser.value(rows).await;
    assert!(!shown.as_array().unwrap().is_empty());
    let told = "const done = arguments[arguments.length - 1]; \
        fetch(document.querySelector('[data-export=breakdown]').href).then(async answer => { \
            const [names, ...lines] = (await answer.text()).trim().split(/\\r?\\n/).map(line => line.split(',')); \
            const place = name => names.indexOf(name); \
            done(lines.map(line => [line[place('group_name')] || 'not served', Number(line[place('cost_nanousd')]), Number(line[place('requests')])])); \
        }).catch(error => done(String(error)))";
    assert_eq!(browser.client.execute_async(told, Vec::new()).await.unwrap(), shown);

    // A group leads to its own usage.
    browser.click("#breakdown tbody a.name").await;
    browser.until("location.search.includes('model=claude-')").await;
    browser
        .until("document.querySelector('#model').value.startsWith('claude-')")
        .await;

    // Names and tags are text, whatever they are.
    browser.open_page("/gateway/usage?by=tag").await;
    browser.until_reads(&format!("env={EVIL}")).await;
    browser.open_page("/gateway/usage?by=key").await;
    browser.until_reads(EVIL).await;
    browser.until_drawn().await;
    assert_eq!(
        browser.value("document.querySelectorAll('main img').length").await,
        json!(0)
    );

    // A time of one's own.
    browser.click(".picker summary").await;
    browser.assert_accessible("the choice of a time").await;
    browser
        .value("[['#from', -6], ['#to', -3]].forEach(([field, days]) => { document.querySelector(field).value = new Date(Date.now() + days * 864e5).toISOString().slice(0, 10); })")
        .await;
    browser.click(".picker button[type=submit]").await;
    browser
        .until("/from=\\d{4}-\\d\\d-\\d\\d&to=\\d{4}/.test(location.search) && location.search.includes('by=key')")
        .await;
    browser.until("document.querySelector('#breakdown')").await;
    let days = browser
        .value("JSON.parse(document.querySelector('#requests').dataset.chart).x.length")
        .await;
    assert_eq!(days, json!(4), "both days are included");
    browser.open_page("/gateway/usage?from=yesterday").await;
    browser.until_reads("is not a date such as").await;

    // Nothing there is said, and what to do about it.
    browser.open_page("/gateway/usage?model=nobody%3Cb%3E").await;
    browser.until_reads("No requests in this period").await;
    browser.assert_accessible("usage without requests").await;
    browser.keep_picture("usage-none-desktop-light").await;
    browser.assert_quiet("usage").await;
    world.finish([browser]).await;
}

#[tokio::test]
async fn a_member_sees_the_usage_of_their_own_keys_alone() {
    let world = World::new().await;
    let member = world.person("member", Some(world.team)).await;
    let browser = world.browser_of(&member).await;
    browser.look(390, 844, true).await;
    browser.open_page("/gateway/usage").await;
    browser.until_reads("Requests made with your own keys.").await;
    browser.until_reads("No requests in this period").await;
    // What the field for a key would find.
    let search = "const done = arguments[arguments.length - 1]; \
        fetch(document.querySelector('[data-picks]').dataset.picks + '?limit=20&search=').then(async answer => \
            done((await answer.json()).data.length)).catch(error => done(String(error)))";
    let offered = browser.client.execute_async(search, Vec::new()).await.unwrap();
    assert_eq!(offered, json!(0), "no key of anybody else is offered");
    browser.assert_accessible("a member's usage").await;
    browser.assert_quiet("a member's usage").await;
    world.finish([browser]).await;
}
