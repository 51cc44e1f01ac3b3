//! P14, the part without fuzzing: a panic of our own code costs one request, and nothing of what that held.
//!
//! What breaks is a part of the pipeline that tells others: whom it tells is put in by whoever builds the gateway, so that
//! the test can put in somebody who panics, without a word in the product that is there for tests.

use std::panic::resume_unwind;
use std::time::Duration;

use bonito::domain::budget::calendar::Period;
use serde_json::json;

use super::{figures, size};
use crate::support::gateway::{chat, read};
use crate::support::{Answer, Script, ScriptedProvider, TestGateway};

/// Silence after which a stream's headers go out.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Where it breaks.
#[derive(Clone, Copy, Debug)]
enum Breaks {
    /// Before a whole answer.
    Whole,
    /// Before a stream has begun.
    Opening,
    /// Behind the comment that carried a stream's headers.
    Held,
    /// In the middle of a stream.
    Relaying,
}

/// Unwinds like a panic, without the hook that would print each.
fn break_down<T>() -> T {
    resume_unwind(Box::new("deliberate"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p14_a_panic_costs_one_request_and_nothing_of_what_it_held() {
    let rounds = size("BONITO_PROMISES_ROUNDS", 2, 60);
    let (broken, well) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    let gateway = TestGateway::builder()
        .provider("alpha", &broken.base_url(), &["mock-chat"])
        .provider("beta", &well.base_url(), &["steady"])
        // A place that is not given back would be missed by the next request, and a thread that ends by everybody.
        .set("server.workers", 1)
        .set("overload.max_in_flight", 2)
        .set("overload.max_queued", 0)
        .set("stream.keep_alive_ms", KEEP_ALIVE.as_millis())
        .set("secrets.rest_ms", 1)
        .set("secrets.max_rest_ms", 1)
        .start()
        .await;
    let (key, secret) = gateway.new_key(&[], &[], None).await;
    let budget = bonito::domain::budget::BudgetId(gateway.new_budget(key).await);
    let pipeline = gateway.pipeline();
    // Asked when a provider refuses a credential.
    pipeline.endpoints.read_by(Box::new(|_| break_down()));
    // Told when a provider has failed.
    let gate = gateway.gate_of("alpha", "mock-chat").await;
    gate.report_to(Box::new(|_| break_down()));
    drop((pipeline, gate));

    // Somebody else's stream goes on meanwhile, on the same thread.
    let url = format!("{}/v1/chat/completions", gateway.api);
    let ask = |secret: &str, model: &str, text: &str, stream: bool| {
        let request = gateway.client.post(&url).bearer_auth(secret);
        request.json(&chat(model, text, stream)).send()
    };
    let words = 150 + 40 * rounds;
    let bystander = ask(&gateway.key, "steady", &format!("words:{words} pause_ms:20"), true);
    let bystander = tokio::spawn(read(bystander.await.unwrap()));

    let refused = || Answer::error(401, &json!({"message": "no", "code": "invalid_api_key"}));
    let mut panics = 0;
    for round in 0..rounds {
        for breaks in [Breaks::Whole, Breaks::Opening, Breaks::Relaying, Breaks::Held] {
            if matches!(breaks, Breaks::Held) && round > 1 {
                // It takes a second each time.
                continue;
            }
            broken.script(match breaks {
                Breaks::Whole | Breaks::Opening => Script::from(refused()),
                Breaks::Held => refused().after(KEEP_ALIVE * 3 / 2).into(),
                Breaks::Relaying => Script::cut_after_events(3),
            });
            let stream = !matches!(breaks, Breaks::Whole);
            let reply = read(ask(&secret, "mock-chat", "CANARY", stream).await.unwrap()).await;
            panics += 1;
            let begun = matches!(breaks, Breaks::Held | Breaks::Relaying);
            assert_eq!(
                reply.status,
                if begun { 200 } else { 500 },
                "{breaks:?}: {}",
                reply.text
            );
            let error = if begun {
                let events = reply.events();
                serde_json::from_str(events.last().unwrap()).unwrap()
            } else {
                reply.json()
            };
            assert_eq!(error["error"]["type"], "server_error", "{breaks:?}: {}", reply.text);
            assert!(
                !reply.text.contains("[DONE]") && !reply.text.contains("deliberate"),
                "{}",
                reply.text
            );
            let row = gateway.row(&reply).await;
            assert_eq!(
                (row.status, row.error_class.as_deref()),
                (i32::from(reply.status), Some("internal")),
                "{breaks:?}"
            );
            // What a provider has served is charged whatever breaks behind it.
            let served = matches!(breaks, Breaks::Relaying);
            assert_eq!(row.cost_nanousd.unwrap() > 0, served, "{breaks:?}: {row:?}");
            assert_eq!(gateway.metric("bonito_panics_total").await as u64, panics);
            // Its place is free again, and so is everything else.
            let next = read(ask(&secret, "steady", "hi", false).await.unwrap()).await;
            assert_eq!(next.status, 200, "{breaks:?}: {}", next.text);
        }
    }
    let bystander = bystander.await.unwrap();
    assert!(
        bystander.complete && bystander.text.ends_with("data: [DONE]\n\n"),
        "nobody else notices"
    );
    assert_eq!(gateway.metric("bonito_requests_in_flight").await, 0.0);
    let start = Period::Monthly.span(chrono_tz::UTC, chrono::Utc::now()).start;
    let reserved = gateway.get("/v1/key", &secret).await.json()["budgets"][0]["reserved_usd"].clone();
    assert_eq!(reserved, "0", "nothing stays reserved");
    let settled = async {
        loop {
            let spent = gateway.store.spent_of(budget, start).await.unwrap().spent;
            if spent == gateway.store.spent_by(key, &[]).await.unwrap() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled)
        .await
        .expect("what was spent of the budget is what the ledger says");
    figures(
        "P14",
        format_args!(
            "{panics} panics before answers, behind headers and in the middle of streams, on one thread with two places: each \
             cost its own request, {panics} counted, every place, slot and reservation free; a stream beside them came to its \
             end"
        ),
    );
    // Which sees to it that nothing is left over: permits, slots, tasks.
    gateway.finish().await;
}
