//! The operations listener: liveness, readiness, metrics and version. Never on the same port as the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use http::StatusCode;
use poem::endpoint::BoxEndpoint;
use poem::{EndpointExt as _, Response, Route, get, handler, web::Data};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::Limiter;
use crate::gates::health_board::{HealthBoard, Overview, STATES, SpotOverview};
use crate::gates::secrets_board::SecretsBoard;
use crate::journal::Journal;
use crate::routing::plan::Readiness;
use crate::snapshot::{Snapshot, Standing};
use crate::store::{Store, within};
use crate::telemetry::metrics::Metrics;

/// How long the database may take to answer before it counts as down.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// What operations look at.
pub struct Operations {
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The records that wait.
    pub journal: Arc<Journal>,
    /// How providers are doing.
    pub board: Arc<HealthBoard>,
    /// How the secrets are.
    pub secrets: Arc<SecretsBoard>,
    /// Whether replicas count together.
    pub limiter: Arc<Limiter>,
    /// The database.
    pub store: Store,
    /// What is known while the database is away.
    pub snapshot: Arc<Snapshot>,
    /// Whether the process is stopping.
    pub stopping: Arc<AtomicBool>,
}

/// Every route of the operations listener.
pub fn api(operations: Arc<Operations>) -> BoxEndpoint<'static, Response> {
    Route::new()
        .at("/livez", get(livez))
        .at("/readyz", get(readyz))
        .at("/metrics", get(metrics))
        .at("/version", get(version))
        .data(operations)
        .map_to_response()
        .boxed()
}

/// The process runs. Nothing else is looked at: being started again mends no database.
#[handler]
fn livez() -> Response {
    json_answer(StatusCode::OK, &json!({"status": "alive"}))
}

/// Whether requests should be sent here, and what is degraded. A replica that stops is not ready, and neither is one that
/// has not reached its database for so long that it lets no key in; until then it serves the keys it knows.
#[handler]
async fn readyz(Data(operations): Data<&Arc<Operations>>) -> Response {
    let mut degraded = Vec::new();
    // The error's own words may name addresses.
    if within(PING_TIMEOUT, operations.store.ping()).await.is_err() {
        degraded.push(json!({"component": "database", "reason": "it refuses, cannot be reached or does not answer"}));
    }
    let standing = operations.snapshot.standing(Instant::now());
    match standing {
        Standing::InTouch => {}
        Standing::CutOff { age, left } => degraded.push(json!({
            "component": "snapshot",
            "reason": format!(
                "known keys are served by what the database said {} s ago, for {} s more",
                age.as_secs(),
                left.as_secs()
            ),
        })),
        Standing::AgedOut { age } => degraded.push(json!({
            "component": "snapshot",
            "reason": format!(
                "no key is let in: the database last answered {} s ago, longer than snapshot.max_age_ms",
                age.as_secs()
            ),
        })),
    }
    // That an organization's own credential or endpoint is down degrades that organization, and not the replica.
    let mut own_credentials = Vec::new();
    for overview in operations.board.overview().into_values() {
        let (own, shared): (Vec<_>, Vec<_>) = overview.spots.into_iter().partition(|spot| spot.spot.owner.is_some());
        degraded.extend(shared.iter().filter_map(unwell));
        own_credentials.extend(unwell_together(&own));
    }
    for reason in operations.journal.degraded() {
        degraded.push(json!({"component": "journal", "reason": reason}));
    }
    for reason in operations.secrets.degraded(Instant::now()) {
        degraded.push(json!({"component": "secrets", "reason": reason}));
    }
    if operations.limiter.is_apart() {
        degraded.push(json!({
            "component": "redis", "reason": "it is away; each replica allows its share of the rate limits",
        }));
    }
    let unreadable = operations.metrics.configs_unreadable.get();
    if unreadable > 0 {
        degraded.push(json!({
            "component": "configs",
            "reason": "this version cannot read the newest config of some organizations; the last good one holds for them",
            "organizations": unreadable,
        }));
    }
    if operations.metrics.config_file_refused.get() > 0 {
        degraded.push(json!({
            "component": "configuration file", "reason": "it is refused; the last good one is in force, and the log says why",
        }));
    }
    let stopping = operations.stopping.load(Ordering::Acquire);
    let (status, word) = match (standing, degraded.is_empty()) {
        _ if stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (Standing::AgedOut { .. }, _) => (StatusCode::SERVICE_UNAVAILABLE, "cut off"),
        (_, true) => (StatusCode::OK, "ready"),
        (_, false) => (StatusCode::OK, "degraded"),
    };
    let mut said = json!({"status": word, "degraded": degraded});
    if !own_credentials.is_empty() {
        said["own_credentials"] = own_credentials.into();
    }
    json_answer(status, &said)
}

/// A shared credential in its region, if it is not well for some organization.
fn unwell(spot: &SpotOverview) -> Option<Value> {
    let reason = reason(spot.worst())?;
    let [_, probing, ejected] = spot.counts;
    let mut said = json!({
        "component": format!("provider {}", spot.spot.provider), "reason": reason, "organizations": probing + ejected,
    });
    let more = [("credential", &spot.spot.credential), ("region", &spot.spot.region)];
    for (name, value) in more {
        if let Some(value) = value {
            said[name] = value.as_str().into();
        }
    }
    Some(said)
}

/// Organizations' own credentials at one provider, as far as they are not well. There may be thousands, so they are counted.
fn unwell_together(own: &[SpotOverview]) -> Option<Value> {
    let worst = own.iter().map(SpotOverview::worst).max_by_key(|worst| *worst as u8)?;
    let spot = own.first()?;
    let count = own.iter().filter(|spot| reason(spot.worst()).is_some()).count();
    Some(json!({
        "component": format!("provider {}", spot.spot.provider), "reason": reason(worst)?, "credentials": count,
    }))
}

/// What keeps a provider from requests, if anything does.
fn reason(readiness: Readiness) -> Option<&'static str> {
    matches!(readiness, Readiness::Probing | Readiness::Ejected).then(|| readiness.as_str())
}

/// Shows how providers are doing, those that nobody has asked included.
fn look_at_providers(operations: &Operations) {
    let overview = operations.board.overview();
    for provider in operations.metrics.announced() {
        let of = overview.get(&provider);
        let readiness = of.map_or(Readiness::Passing, Overview::readiness);
        let count = |index: usize| of.map_or(0, |of| of.spots.iter().map(|spot| spot.counts[index]).sum());
        let watched = STATES.iter().enumerate();
        let watched = watched.map(|(index, state)| (state.as_str(), count(index)));
        operations
            .metrics
            .providers_health
            .health(&provider, readiness as i64, watched);
    }
}

#[handler]
fn metrics(Data(operations): Data<&Arc<Operations>>) -> Response {
    let depth = i64::try_from(operations.journal.depth()).unwrap_or(i64::MAX);
    operations.metrics.journal_depth.set(depth);
    let bytes = i64::try_from(operations.journal.bytes()).unwrap_or(i64::MAX);
    operations.metrics.journal_bytes.set(bytes);
    let oldest = operations.journal.oldest(Utc::now()).as_secs();
    operations
        .metrics
        .journal_oldest
        .set(i64::try_from(oldest).unwrap_or(i64::MAX));
    let age = operations.secrets.age(Instant::now());
    let age = age.map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    operations.metrics.secret_age.set(age);
    look_at_providers(operations);
    let now = Instant::now();
    let snapshot = &operations.snapshot;
    let age = snapshot.keeps_keys().then(|| snapshot.age(now).as_secs());
    let age = age.map_or(-1, |age| i64::try_from(age).unwrap_or(i64::MAX));
    operations.metrics.snapshot_age.set(age);
    let keys = i64::try_from(snapshot.known_keys()).unwrap_or(i64::MAX);
    operations.metrics.snapshot_keys.set(keys);
    operations.metrics.look_at_process();
    Response::builder()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(operations.metrics.encode())
}

#[handler]
fn version() -> Response {
    json_answer(
        StatusCode::OK,
        &json!({"name": "bonito", "version": env!("CARGO_PKG_VERSION")}),
    )
}

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Response {
    Response::builder()
        .status(status)
        .content_type("application/json")
        .body(value.to_string())
}
