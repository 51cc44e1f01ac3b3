//! `/gateway/providers`: who answers, how they are doing, and with which credentials. Endpoints of one's own are `endpoints`',
//! models and what they cost `catalogue`'s, and past calls at other prices `repricing`'s.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::chart::{Chart, Kind, Places, Series, Unit};
use super::endpoints::{endpoint_card, new_endpoint};
use super::health::history;
use super::overview::readiness;
use super::parts::{self, Tone, icon, pill};
use super::series::{Timeline, along, float};
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::domain::measurement::Measured;
use crate::domain::report::figures::Figures;
use crate::domain::report::hour::Hour;
use crate::domain::report::usage::{Granularity, UsageFilter, UsageQuestion, UsageReport};
use crate::domain::role::Right;
use crate::http::management::auth::access::ProviderState;
use crate::http::management::auth::providers::PricedDeployment;
use crate::http::management::auth::{Asked, ReadProviders, ReadUsage};
use crate::pipeline::route::WatchedCredential;
use crate::routing::plan::Readiness;
use crate::secrets::source::tenant;
use crate::upstream::endpoints::CredentialState;

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/providers",
        nav: Some(Nav {
            title: "Providers",
            icon: "provider",
            group: Group::Manage,
            right: Right::ReadProviders,
        }),
        handler: Handler::Page(|viewer| Box::pin(list(viewer))),
    },
    View {
        path: "/gateway/providers/live",
        nav: None,
        handler: Handler::Live(|viewer| Box::pin(list_fragments(viewer))),
    },
    View {
        path: "/gateway/providers/:id",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(detail(viewer))),
    },
    View {
        path: "/gateway/providers/:id/live",
        nav: None,
        handler: Handler::Live(|viewer| Box::pin(detail_fragments(viewer))),
    },
];

/// Models that are read.
pub(super) const MOST_MODELS: usize = 5_000;
/// Providers that a credential can be stored for without anything being configured: id and name.
const KINDS: [(&str, &str); 6] = [
    ("openai", "OpenAI"),
    ("anthropic", "Anthropic"),
    ("azure", "Azure OpenAI"),
    ("aws", "AWS Bedrock"),
    ("gcp", "Google Vertex AI"),
    ("gemini", "Google Gemini"),
];
/// The provider that needs no credential.
const BUILT_IN: &str = "echo";

/// The pages of who answers and what that costs.
pub(super) fn tabs(viewer: &Viewer) -> Markup {
    let pages = [
        ("/gateway/providers", "Providers"),
        ("/gateway/providers/catalogue", "Models and prices"),
        ("/gateway/providers/repricing", "Re-pricing"),
    ];
    parts::tabs("Providers", viewer.path(), &pages)
}

fn title_of(id: &str) -> &str {
    KINDS.iter().find(|(own, _)| *own == id).map_or(id, |(_, name)| name)
}

/// The mean of what is known.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn first_token(ms: Option<f64>) -> String {
    ms.map_or_else(|| "—".to_owned(), |ms| format::duration_us(ms * 1e3))
}

fn speed(rate: Option<f64>) -> String {
    rate.map_or_else(|| "—".to_owned(), |rate| format!("{rate:.0} tok/s"))
}

async fn list(viewer: Viewer) -> Result<Page, Fault> {
    let states = viewer.may::<ReadProviders>()?.providers().await?;
    let writes = viewer.can(Right::WriteProviders);
    let connect = html! { @if writes { button.button.primary type="button" data-opens="connect" { (icon("plus")) "Add credential" } } };
    let endpoint = html! { @if viewer.can(Right::WriteConfig) { button.button type="button" data-opens="new-endpoint" { (icon("plus")) "Add endpoint" } } };
    let body = html! {
        (tabs(&viewer))
        section.card data-live="providers" { (table(&states, &connect)) }
        @if writes { (connect_dialogs(&viewer, &states)) }
        @if viewer.can(Right::WriteConfig) { (new_endpoint(&states)) }
    };
    Ok(Page::new("Providers", body)
        .lead(html! { "Model providers and their current health. Requests are routed around failing ones." })
        .actions(html! { (endpoint) (connect) })
        .live("/gateway/providers/live"))
}

async fn list_fragments(viewer: Viewer) -> Result<Vec<(&'static str, Markup)>, Fault> {
    let states = viewer.may::<ReadProviders>()?.providers().await?;
    let connect = html! { @if viewer.can(Right::WriteProviders) { button.button.primary type="button" data-opens="connect" { (icon("plus")) "Add credential" } } };
    Ok(vec![("providers", table(&states, &connect))])
}

fn table(states: &[ProviderState], connect: &Markup) -> Markup {
    html! {
        @if states.is_empty() {
            (parts::empty("provider", "No providers", "No credential is stored yet.", connect.clone()))
        } @else {
            div.table-wrap tabindex="0" role="region" aria-label="Providers" {
                table.table id="providers" {
                    thead { tr {
                        th { "Provider" } th { "State" } th.right { "First token" } th.right.wide { "Speed" } th.right { "Errors" } th.right.wide { "In flight" }
                    } }
                    tbody {
                        @for state in states {
                            tr {
                                td.wrap {
                                    a.name href={ "/gateway/providers/" (state.id) } { (title_of(&state.id)) }
                                    div.sub { code { (state.id) } @if state.own.is_some() { " · custom endpoint" } " · " (state.deployments) @if state.deployments == 1 { " model" } @else { " models" } }
                                }
                                td { @if state.usable { (readiness(state)) } @else { (pill(Tone::Warn, "no credential")) } }
                                td.right.nowrap { (first_token(mean(state.measured.values().filter_map(|one| one.first_token_ms)))) }
                                td.right.nowrap.wide { (speed(mean(state.measured.values().filter_map(|one| one.tokens_per_second)))) }
                                td.right.nowrap { (mean(state.measured.values().map(|one| one.error_rate)).map_or_else(|| "—".to_owned(), format::percent)) }
                                td.right.wide { (state.measured.values().map(|one| u64::from(one.in_flight)).sum::<u64>()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The dialog to choose a provider in, and one for each.
fn connect_dialogs(viewer: &Viewer, states: &[ProviderState]) -> Markup {
    let mut all: BTreeMap<&str, &str> = KINDS.into_iter().collect();
    for state in states.iter().filter(|state| state.id != BUILT_IN) {
        all.entry(&state.id).or_insert(&state.id);
    }
    html! {
        (parts::dialog("connect", "Add credential", html! {
            div.dialog-body.stack {
                p.soft { "Choose a provider. Credentials are encrypted and never shown again." }
                div.choices {
                    @for (id, name) in &all {
                        button.choice type="button" data-opens={ "credential-" (id) } { span.strong { (name) } span.muted.small { (id) } }
                    }
                }
            }
        }))
        @for id in all.keys() { (credential_dialog(viewer, id)) }
    }
}

/// What a value of a credential is called, and what to know of it.
fn value_words(name: &str) -> (&str, &'static str) {
    match name {
        "api_key" => ("API key", ""),
        "organization" => ("Organization", "org-…, if the key belongs to several."),
        "project" => ("Project", "proj_…, if the key belongs to several."),
        "endpoint" => ("Endpoint", "For example https://name.openai.azure.com."),
        "tenant_id" => ("Tenant id", "With client ID and secret, instead of an API key."),
        "client_id" => ("Client id", ""),
        "client_secret" => ("Client secret", ""),
        "api_version" => ("API version", ""),
        "access_key_id" => (
            "Access key id",
            "With a secret access key; or use a Bedrock API key below.",
        ),
        "secret_access_key" => ("Secret access key", ""),
        "session_token" => ("Session token", "For temporary credentials."),
        "region" => ("Region", "Region of the models, such as eu-central-1."),
        "role_arn" => ("Role to assume", "arn:aws:iam::…"),
        "external_id" => ("External id", "If the role requires one."),
        "bearer_token" => ("Bedrock API key", ""),
        "project_id" => ("Project id", "If the service account does not include it."),
        "service_account" => ("Service account", "The contents of the JSON key file."),
        "weight" => ("Weight", "Its share of requests when there are several credentials."),
        "max_concurrent" => ("Concurrent requests", "Maximum for this credential."),
        other => (other, ""),
    }
}

fn is_secret(name: &str) -> bool {
    ["key", "secret", "token"].iter().any(|end| name.ends_with(end)) && name != "access_key_id"
}

fn value_field(provider: &str, name: &str) -> Markup {
    let id = format!("{provider}-{name}");
    let (label, hint) = value_words(name);
    let described = (!hint.is_empty()).then(|| format!("{id}-hint"));
    parts::field(
        &id,
        label,
        hint,
        html! {
            @if name == "service_account" {
                textarea.mono id=(id) name={ "values." (name) } spellcheck="false" autocomplete="off" aria-describedby=[described] {}
            } @else {
                input id=(id) name={ "values." (name) } type=(if is_secret(name) { "password" } else { "text" }) autocomplete=(if is_secret(name) { "new-password" } else { "off" }) spellcheck="false" aria-describedby=[described];
            }
        },
    )
}

fn credential_dialog(viewer: &Viewer, provider: &str) -> Markup {
    let title = format!("Credential for {}", title_of(provider));
    parts::dialog(
        &format!("credential-{provider}"),
        &title,
        html! {
            form data-api={ "PUT /api/gateway/providers/" (provider) "/credentials" } data-done={ "go:/gateway/providers/" (provider) } autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    div.columns { @for name in tenant::values(provider) { (value_field(provider, name)) } }
                    details.more-fields {
                        summary { "Advanced: several credentials" }
                        div.stack {
                            (parts::field(&format!("{provider}-name"), "Name", "Leave empty to replace the default credential.", html! { input id={ (provider) "-name" } name="name" maxlength="64" autocomplete="off" aria-describedby={ (provider) "-name-hint" }; }))
                            div.columns { @for name in tenant::COMMON { (value_field(provider, name)) } }
                        }
                    }
                    @if viewer.caller().bearer().role.everywhere() {
                        label.check { input type="checkbox" name="shared" data-type="bool"; "Share with all organizations that may use shared credentials" }
                    }
                    p.muted.small { "Saving replaces the whole credential: fields left empty are removed." }
                }
                footer.dialog-foot {
                    button.button type="button" data-closes { "Cancel" }
                    button.button.primary type="submit" { "Save" }
                }
            }
        },
    )
}

async fn detail(viewer: Viewer) -> Result<Page, Fault> {
    let id = viewer.param("id").unwrap_or_default().to_owned();
    let may = viewer.may::<ReadProviders>()?;
    let state = may.provider(&id).await?;
    let usage = viewer.may::<ReadUsage>()?;
    let now = Utc::now();
    let to = Hour::at_or_after(now);
    let question = UsageQuestion {
        organization: Some(usage.organization()),
        from: to.plus(-48),
        to,
        granularity: Granularity::Hour,
        group_by: None,
        most_groups: 1,
        filter: UsageFilter {
            provider: Some(state.id.clone()),
            ..UsageFilter::default()
        },
        now,
    };
    let asked = Asked::default();
    let (report, models, failed, changes) = futures_util::join!(
        usage.usage(&asked, question.clone()),
        may.prices(None, MOST_MODELS),
        may.failed_attempts(&state.id, (question.from, question.to)),
        may.health_history(&state),
    );
    let (report, mut models, failed, changes) = (report?, models?, failed?, changes?);
    models.retain(|model| model.provider == state.id);
    let writes = viewer.can(Right::WriteProviders) && state.id != BUILT_IN;
    let body = html! {
        @if let Some(own) = &state.own { (endpoint_card(&state, own, viewer.can(Right::WriteConfig))) }
        div.grid.wide-left {
            div {
                (parts::card("Attempts by result", results_aside(&state.id, &report, &failed), results_chart(&question, &report, &failed)))
                (parts::card("Latency", html! { span { "last 48 hours" } }, latency_chart(&question, &report)))
            }
            (parts::card("Credentials", html! { @if writes { button.button.small type="button" data-opens={ "credential-" (state.id) } { (icon("plus")) "Add" } } }, credential_list(&viewer, &state)))
        }
        (history(&changes, now))
        section.card data-live="measured" { (measured(&state)) }
        @if viewer.can(Right::WriteProviders) { (test(&state, &models)) }
        @if writes { (credential_dialog(&viewer, &state.id)) }
    };
    Ok(Page::new(title_of(&state.id).to_owned(), body)
        .crumb("Providers", "/gateway/providers")
        .lead(html! { span.row { span data-live="state" { (readiness(&state)) } code { (state.id) } a href={ "/gateway/providers/catalogue?provider=" (state.id) } { (state.deployments) " models and their prices" } } })
        .actions(switch(&viewer, &state))
        .live(format!("/gateway/providers/{}/live", state.id))
        .charts()
        .script("providers.js"))
}

async fn detail_fragments(viewer: Viewer) -> Result<Vec<(&'static str, Markup)>, Fault> {
    let id = viewer.param("id").unwrap_or_default().to_owned();
    let state = viewer.may::<ReadProviders>()?.provider(&id).await?;
    Ok(vec![("state", readiness(&state)), ("measured", measured(&state))])
}

fn switch(viewer: &Viewer, state: &ProviderState) -> Markup {
    let path = format!("PATCH /api/gateway/providers/{}", state.id);
    html! {
        @if viewer.can(Right::WriteConfig) {
            @if state.enabled {
                button.button.danger type="button" data-api=(path) data-body=r#"{"enabled": false}"# data-verb="Disable" data-confirm={ "No requests of this organization will be sent to " (title_of(&state.id)) " until you enable it again." } { "Disable" }
            } @else {
                button.button.primary type="button" data-api=(path) data-body=r#"{"enabled": true}"# { "Enable" }
            }
        }
    }
}

/// Attempts that failed, by the hour.
type Failed = BTreeMap<DateTime<Utc>, i64>;

/// How many attempts at a provider failed, and where they are.
fn results_aside(provider: &str, report: &UsageReport, failed: &Failed) -> Markup {
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("attempted_provider", provider)
        .finish();
    let failed: i64 = failed.values().sum();
    let attempts = succeeded(&report.totals).saturating_add(failed);
    html! {
        @if attempts > 0 {
            @if failed > 0 { a href={ "/gateway/logs?" (query) } { (format::percent(float(failed) / float(attempts))) " failed" } } @else { span { "none failed" } }
        }
        span { "last 48 hours" }
    }
}

/// Requests that a provider answered. Each of them had one attempt there that succeeded.
fn succeeded(figures: &Figures) -> i64 {
    figures.requests - figures.failed()
}

/// What came of attempts at a provider, by the hour. Those that failed are counted where they were made, also where another
/// provider answered the request in the end.
fn results_chart(question: &UsageQuestion, report: &UsageReport, failed: &Failed) -> Markup {
    let timeline = Timeline::of(question);
    let series = match report.totals.requests == 0 && failed.is_empty() {
        true => Vec::new(),
        false => vec![
            Series {
                name: "succeeded".to_owned(),
                values: along(&timeline.at, &report.series, &Some(0.0), |figures| {
                    Some(float(succeeded(figures)))
                }),
                color: Some("--series-1"),
            },
            Series {
                name: "failed".to_owned(),
                values: timeline
                    .at
                    .iter()
                    .map(|hour| Some(float(failed.get(hour).copied().unwrap_or(0))))
                    .collect(),
                color: Some("--bad"),
            },
        ],
    };
    Chart {
        id: "provider-results",
        label: "Attempts at the provider, by result".to_owned(),
        unit: Unit::Count,
        kind: Kind::Stacked,
        at: Places::Times(timeline),
        series,
    }
    .render()
}

fn latency_chart(question: &UsageQuestion, report: &UsageReport) -> Markup {
    let timeline = Timeline::of(question);
    let quantile = |share: f64| {
        along(&timeline.at, &report.series, &None, |figures| {
            figures.latency.quantile(share).map(|us| us / 1e3)
        })
    };
    let series = match report.totals.requests {
        0 => Vec::new(),
        _ => [("P50", 0.5), ("P95", 0.95)]
            .map(|(name, share)| Series {
                name: name.to_owned(),
                values: quantile(share),
                color: None,
            })
            .into(),
    };
    Chart {
        id: "provider-latency",
        label: "How long requests took at the provider".to_owned(),
        unit: Unit::Milliseconds,
        kind: Kind::Lines,
        at: Places::Times(timeline),
        series,
    }
    .render()
}

/// How a credential is doing for the organization's requests.
fn health_of(watched: &WatchedCredential) -> Markup {
    match watched.readiness {
        Readiness::Passing | Readiness::Resting => pill(Tone::Good, "in use"),
        Readiness::Probing => pill(Tone::Warn, "probing"),
        Readiness::Ejected => pill(Tone::Bad, "ejected"),
    }
}

fn credential_list(viewer: &Viewer, state: &ProviderState) -> Markup {
    let own = viewer.can(Right::WriteProviders);
    let everywhere = viewer.caller().bearer().role.everywhere();
    let path = |credential: &CredentialState| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some(name) = &credential.name {
            query.append_pair("name", name);
        }
        if credential.shared {
            query.append_pair("shared", "true");
        }
        format!(
            "DELETE /api/gateway/providers/{}/credentials?{}",
            state.id,
            query.finish()
        )
    };
    html! {
        @if state.id == BUILT_IN {
            (parts::empty("check", "None required", "This built-in provider repeats its input and is free.", html! {}))
        } @else if state.credentials.is_empty() {
            (parts::empty("lock", "No credential", "Add a credential to send requests to this provider.", html! {}))
        } @else {
            ul.health {
                @for watched in &state.credentials {
                    @let credential = &watched.credential;
                    li {
                        div.grow {
                            span.strong { (credential.name.as_deref().unwrap_or("default")) }
                            div.muted.small { @if credential.shared { "shared with other organizations" } @else { "this organization only" } @if let Some(region) = credential.spot.as_ref().and_then(|spot| spot.region.as_deref()) { ", in " (region) } @if let Some(most) = credential.max_concurrent { ", " (most) " concurrent requests" } }
                        }
                        @if credential.resting { (pill(Tone::Bad, "recently refused")) } @else { (health_of(watched)) }
                        @if own && (everywhere || !credential.shared) {
                            button.icon-button type="button" data-api=(path(credential)) data-done="go:/gateway/providers" data-verb="Remove" data-confirm="The credential is deleted and no longer used." aria-label={ "Remove the credential " (credential.name.as_deref().unwrap_or("default")) } title="Remove" { (icon("trash")) }
                        }
                    }
                }
            }
        }
    }
}

fn measured(state: &ProviderState) -> Markup {
    let row = |id: &str, one: &Measured| {
        html! {
            tr {
                td.wrap { code { (id) } }
                td.right.nowrap { (first_token(one.first_token_ms)) }
                td.right.nowrap { (speed(one.tokens_per_second)) }
                td.right { (format::percent(one.error_rate)) }
                td.right.wide { (format::percent(one.cached_share)) }
                td.right.wide { (one.in_flight) }
            }
        }
    };
    html! {
        header.card-head { h2 { "Live measurements" } div.card-aside { span { "moving averages since startup" } } }
        @if state.measured.is_empty() {
            (parts::empty("chart", "No requests yet", "No requests have been sent to it since the gateway started.", html! {}))
        } @else {
            div.table-wrap tabindex="0" role="region" aria-label="Live measurements" {
                table.table {
                    thead { tr { th { "Deployment" } th.right { "First token" } th.right { "Speed" } th.right { "Errors" } th.right.wide { "Prompt cache hits" } th.right.wide { "In flight" } } }
                    tbody { @for (id, one) in &state.measured { (row(id, one)) } }
                }
            }
        }
    }
}

fn test(state: &ProviderState, models: &[PricedDeployment]) -> Markup {
    let mut names: Vec<&str> = models.iter().map(|model| model.model.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    parts::card(
        "Test",
        html! { span { "sends one small real request" } },
        html! {
            form.card-body.stack data-api={ "POST /api/gateway/providers/" (state.id) "/test" } data-done="event" data-test {
                (parts::form_fault())
                div.test-row {
                    (parts::field("test-model", "Model", "", html! {
                        select id="test-model" name="model" {
                            option value="" { "the cheapest" }
                            @for name in names { option value=(name) { (name) } }
                        }
                    }))
                    button.button.primary type="submit" { (icon("play")) "Ask" }
                }
                div data-test-result role="status" {}
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_credential_has_a_name_for_people_and_secrets_are_not_shown() {
        for (provider, _) in KINDS {
            for name in tenant::values(provider).iter().chain(&tenant::COMMON) {
                assert_ne!(value_words(name).0, *name, "{provider}: {name}");
            }
        }
        for name in [
            "api_key",
            "client_secret",
            "secret_access_key",
            "session_token",
            "bearer_token",
        ] {
            assert!(
                value_field("x", name).into_string().contains("type=\"password\""),
                "{name}"
            );
        }
        assert!(
            value_field("x", "access_key_id")
                .into_string()
                .contains("type=\"text\"")
        );
    }

    #[test]
    fn nothing_measured_has_no_mean() {
        assert_eq!(mean([].into_iter()), None);
        assert_eq!(mean([1.0, 2.0].into_iter()), Some(1.5));
    }
}
