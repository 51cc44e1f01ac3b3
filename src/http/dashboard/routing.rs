//! `/gateway/routing`: where requests go. The config is edited in the page, as a document and by controls that change the
//! document; what it would do is asked of the API before it is saved.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::audit::changes;
use super::parts::{self, Tone, icon, pill};
use super::{Fault, Group, Handler, Nav, Page, View, Viewer, format};
use crate::domain::config::ConfigVersion;
use crate::domain::difference::differences;
use crate::domain::role::Right;
use crate::http::management::auth::{ReadConfig, ReadProviders};
use crate::http::management::problem::Refusal;
use crate::routing::rules::VARIABLES;

/// The routes.
pub const VIEWS: &[View] = &[
    View {
        path: "/gateway/routing",
        nav: Some(Nav {
            title: "Routing",
            icon: "routing",
            group: Group::Manage,
            right: Right::ReadConfig,
        }),
        handler: Handler::Page(|viewer| Box::pin(editor(viewer))),
    },
    View {
        path: "/gateway/routing/versions",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(versions(viewer))),
    },
    View {
        path: "/gateway/routing/versions/:n",
        nav: None,
        handler: Handler::Page(|viewer| Box::pin(version(viewer))),
    },
];

/// Versions of one page.
const PAGE: u64 = 50;

/// The strategies, with what each is for.
const STRATEGIES: [(&str, &str, &str); 4] = [
    ("balanced", "Balanced", "weighs cost, latency, errors and load"),
    ("cost-optimized", "Cost", "cheapest deployment first"),
    ("latency-optimized", "Latency", "fastest deployment first"),
    ("failover", "Failover", "fixed order, next one on failure"),
];
/// What requests can be sent elsewhere for.
const FALLBACKS: [(&str, &str); 4] = [
    ("generic", "all its deployments fail"),
    ("context_window", "the prompt does not fit"),
    ("content_policy", "a content policy refuses it"),
    ("budget_exhausted", "a budget is used up"),
];

fn tabs(viewer: &Viewer) -> Markup {
    let versions = "/gateway/routing/versions";
    // A version is among the versions.
    let at = if viewer.path().starts_with(versions) {
        versions
    } else {
        viewer.path()
    };
    parts::tabs("Routing", at, &[("/gateway/routing", "Policy"), (versions, "Versions")])
}

fn read(config: &ConfigVersion) -> Result<Value, Fault> {
    let read = serde_json::from_str(&config.document);
    read.map_err(|_| Refusal::conflict("this version of the config can no longer be read").into())
}

async fn models(viewer: &Viewer) -> Result<Vec<String>, Refusal> {
    let Ok(may) = viewer.may::<ReadProviders>() else {
        return Ok(Vec::new());
    };
    super::keys::models(&may).await
}

async fn editor(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadConfig>()?;
    let (config, models) = futures_util::join!(may.config(), models(&viewer));
    let (config, models) = (config?, models?);
    let document = config.as_ref().map(read).transpose()?.unwrap_or_else(|| json!({}));
    let version = config.as_ref().map_or(0, |config| config.version);
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    let writes = viewer.can(Right::WriteConfig);
    let body = html! {
        (tabs(&viewer))
        div.routing data-routing data-version=(version) {
            div.grid.wide-left {
                div {
                    (strategy_card())
                    (parts::card("Rules", html! { span.wide-only { "first match wins" } button.button.small type="button" data-rule-new { (icon("plus")) "Add rule" } }, html! { ol.rules data-rules aria-label="Rules" {} }))
                    (parts::card("Fallbacks", html! { button.button.small type="button" data-opens="fallback" { (icon("plus")) "Add fallback" } }, html! { ul.rules data-fallbacks aria-label="Fallbacks" {} }))
                }
                (document_card(&text, writes))
            }
            div.save-bar data-save-bar role="region" aria-label="Draft" {
                span.grow data-draft-words role="status" { "No changes" }
                button.button type="button" data-check { (icon("check")) "Check" }
                @if writes {
                    button.button type="button" data-discard hidden { "Discard" }
                    button.button.primary type="button" data-save disabled { "Save" }
                }
            }
            div.grid.two {
                (explain_card())
                (simulate_card())
            }
        }
        (rule_dialog())
        (fallback_dialog())
        datalist id="models" { @for model in &models { option value=(model) {} } }
    };
    Ok(Page::new("Routing", body)
        .lead(match &config {
            Some(config) => html! { "Version " (config.version) ", saved by " (config.author) " " (parts::time(config.created_at)) "." },
            None => html! { "Not configured yet: the gateway's default routing applies." },
        })
        .charts()
        .script("routing.js"))
}

fn strategy_card() -> Markup {
    parts::card(
        "Strategy",
        html! { span { "how deployments are ordered" } },
        html! {
            div.card-body {
                fieldset.strategies {
                    legend.visually-hidden { "Strategy" }
                    @for (word, title, words) in STRATEGIES {
                        label.strategy { input type="radio" name="strategy" value=(word) data-strategy; span { span.strong { (title) } span.muted.small { (words) } } }
                    }
                }
            }
        },
    )
}

fn document_card(text: &str, writes: bool) -> Markup {
    parts::card(
        "Document",
        html! { span { @if writes { "the complete config, as JSON" } @else { "a draft to try; you cannot save it" } } },
        html! {
            div.card-body.stack {
                label.visually-hidden for="document" { "The config as JSON" }
                textarea.mono.document id="document" spellcheck="false" autocomplete="off" data-document aria-describedby="document-faults" { "\n" (text) }
                ul.faults id="document-faults" data-faults aria-label="Problems" hidden {}
            }
        },
    )
}

fn explain_card() -> Markup {
    parts::card(
        "Explain a request",
        html! { span { "with the draft above" } },
        html! {
            form.card-body.stack data-explain autocomplete="off" {
                (parts::form_fault())
                div.columns {
                    (parts::field("explain-model", "Model", "", html! { input id="explain-model" name="model" list="models" required; }))
                    (parts::field("explain-key", "Key", "", parts::key_picker("explain-key", "key_id", "any key", None)))
                    (parts::field("explain-input", "Input tokens", "", html! { input id="explain-input" name="input_tokens" data-type="number" inputmode="numeric" placeholder="1000"; }))
                    (parts::field("explain-output", "Max. output tokens", "", html! { input id="explain-output" name="max_output_tokens" data-type="number" inputmode="numeric" placeholder="not specified"; }))
                }
                div.row {
                    @for (name, words) in [("stream", "streamed"), ("tools", "with tools"), ("vision", "with images"), ("budget_exhausted", "budget used up")] {
                        label.check { input type="checkbox" name=(name) data-type="bool"; (words) }
                    }
                }
                details.more-fields {
                    summary { "Tags, headers and user" }
                    div.stack {
                        (parts::field("explain-tags", "Tags", "name=value", html! { input id="explain-tags" name="tags" data-type="tags" placeholder="env=production" aria-describedby="explain-tags-hint"; }))
                        (parts::field("explain-headers", "Headers", "name=value. Only headers that rules can use.", html! { input id="explain-headers" name="headers" data-type="tags" placeholder="x-tier=gold" aria-describedby="explain-headers-hint"; }))
                        (parts::field("explain-user", "User", "", html! { input id="explain-user" name="user"; }))
                    }
                }
                div.row { button.button.primary type="submit" { "Explain" } }
                div data-explained role="region" aria-label="Routing result" aria-live="polite" {}
            }
        },
    )
}

fn simulate_card() -> Markup {
    parts::card(
        "Simulate the draft",
        html! { span { "with recorded requests" } },
        html! {
            form.card-body.stack data-simulate autocomplete="off" {
                (parts::form_fault())
                div.test-row {
                    (parts::field("simulate-last", "Requests", "", html! {
                        select id="simulate-last" name="last" data-type="number" {
                            @for (count, words) in [(100, "the last 100"), (1_000, "the last 1,000"), (10_000, "the last 10,000")] { option value=(count) selected[count == 1_000] { (words) } }
                        }
                    }))
                    button.button.primary type="submit" { (icon("play")) "Simulate" }
                }
                p.muted.small { "Routes each request with the current config and with the draft, using current prices and health." }
                div data-simulated role="region" aria-label="Before and after" aria-live="polite" {}
            }
        },
    )
}

fn rule_dialog() -> Markup {
    let names: Vec<String> = VARIABLES
        .iter()
        .flat_map(|(name, fields)| match fields {
            [] => vec![(*name).to_owned()],
            fields => fields.iter().map(|field| format!("{name}.{field}")).collect(),
        })
        .collect();
    parts::dialog(
        "rule",
        "Rule",
        html! {
            form data-rule autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    (parts::field("rule-name", "Name", "Shown in explanations and logs.", html! { input id="rule-name" name="name" required maxlength="256" aria-describedby="rule-name-hint"; }))
                    (parts::field("rule-when", "When", "A condition in CEL, such as team == \"search\" && input_tokens > 8000. Empty: always.", html! { textarea.mono id="rule-when" name="when" rows="3" spellcheck="false" aria-describedby="rule-when-hint" {} }))
                    details.more-fields {
                        summary { "Available variables" }
                        div.chips { @for name in &names { (parts::chip(name)) } }
                        p.muted.small.hint-below { "Tags are tags[\"env\"]. Headers are headers[\"x-tier\"], if the document's headers names them." }
                    }
                    (parts::field("rule-action", "Then", "", html! {
                        select id="rule-action" name="_action" data-action {
                            option value="route" { "route to other models" }
                            option value="pin" { "use only these providers or deployments" }
                            option value="deny" { "refuse the request" }
                            option value="strategy" { "use another strategy" }
                        }
                    }))
                    div data-for="route" { (parts::field("rule-route", "Models, in order", "", html! { input id="rule-route" name="route" data-type="tokens" list="models"; })) }
                    div data-for="pin" hidden { (parts::field("rule-pin", "Providers or deployments", "For example anthropic or azure/gpt-5.", html! { input id="rule-pin" name="pin" data-type="tokens" aria-describedby="rule-pin-hint"; })) }
                    div data-for="deny" hidden { (parts::field("rule-deny", "Reason", "Shown to the caller.", html! { input id="rule-deny" name="deny" maxlength="256" aria-describedby="rule-deny-hint"; })) }
                    div data-for="strategy" hidden {
                        (parts::field("rule-strategy", "Strategy", "", html! { select id="rule-strategy" name="strategy" { @for (word, title, _) in STRATEGIES { option value=(word) { (title) } } } }))
                    }
                    div.columns {
                        (parts::field("rule-percent", "Share of requests (%)", "Empty: all.", html! { input id="rule-percent" name="percent" data-type="number" inputmode="decimal" aria-describedby="rule-percent-hint"; }))
                        (parts::field("rule-by", "Assigned by", "", html! { select id="rule-by" name="percent_by" data-with="percent" { option value="request" { "request" } option value="session" { "session" } option value="key" { "key" } } }))
                    }
                    label.check { input type="checkbox" name="enabled" data-type="bool" checked; "Enabled" }
                }
                footer.dialog-foot {
                    button.button type="button" data-closes { "Cancel" }
                    button.button.primary type="submit" { "Add to draft" }
                }
            }
        },
    )
}

fn fallback_dialog() -> Markup {
    parts::dialog(
        "fallback",
        "Fallback",
        html! {
            form data-fallback autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    (parts::field("fallback-kind", "When", "", html! { select id="fallback-kind" name="kind" { @for (kind, words) in FALLBACKS { option value=(kind) { (words) } } } }))
                    (parts::field("fallback-model", "Model", "A model, or * for all.", html! { input id="fallback-model" name="model" list="models" required aria-describedby="fallback-model-hint"; }))
                    (parts::field("fallback-others", "Fallback models, in order", "", html! { input id="fallback-others" name="others" data-type="tokens" list="models"; }))
                }
                footer.dialog-foot {
                    button.button type="button" data-closes { "Cancel" }
                    button.button.primary type="submit" { "Add to draft" }
                }
            }
        },
    )
}

async fn versions(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadConfig>()?;
    let before = viewer.query("cursor").and_then(|cursor| cursor.parse().ok());
    let mut found = may.versions(before, PAGE + 1).await?;
    let more = found.len() as u64 > PAGE;
    found.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let next = found
        .last()
        .filter(|_| more)
        .map(|last| viewer.url_with(&[("cursor", Some(&last.version.to_string()))]));
    let body = html! {
        (tabs(&viewer))
        section.card {
            @if found.is_empty() {
                (parts::empty("routing", "No versions yet", "Every saved config is kept here and can be restored.", html! { a.button href="/gateway/routing" { "Create the first one" } }))
            } @else {
                div.table-wrap tabindex="0" role="region" aria-label="Versions" {
                    table.table id="versions" {
                        thead { tr { th { "Version" } th { "State" } th { "Saved by" } th.right { "When" } } }
                        tbody {
                            @for one in &found {
                                tr {
                                    td { a.name href={ "/gateway/routing/versions/" (one.version) } { "Version " (one.version) } }
                                    td { @if one.active { (pill(Tone::Good, "active")) } @else { (pill(Tone::Quiet, "previous")) } }
                                    td.wrap { (one.author) }
                                    td.right.nowrap { (parts::time(one.created_at)) }
                                }
                            }
                        }
                    }
                }
                (parts::more(next))
            }
        }
    };
    Ok(Page::new("Routing", body).lead(html! { "All saved configs, newest first." }))
}

async fn version(viewer: Viewer) -> Result<Page, Fault> {
    let number = viewer.param("n").and_then(|number| number.parse::<i64>().ok());
    let number = number.ok_or_else(|| Fault::not_found("version"))?;
    let may = viewer.may::<ReadConfig>()?;
    let asked = viewer.query("against").and_then(|against| against.parse::<i64>().ok());
    let against = asked
        .filter(|against| *against >= 0)
        .unwrap_or_else(|| number.saturating_sub(1));
    let (config, current) = futures_util::join!(may.version(number), may.config());
    let (config, current) = (config?, current?);
    let document = read(&config)?;
    let before = match against {
        0 => json!({}),
        earlier => read(&may.version(earlier).await?)?,
    };
    let found = differences(&before, &document);
    let in_force = current.as_ref().map_or(0, |current| current.version);
    let path = format!("/gateway/routing/versions/{number}");
    let mut choices = vec![("Previous version", path.clone(), against == number.saturating_sub(1))];
    if in_force != number {
        choices.push((
            "Active version",
            format!("{path}?against={in_force}"),
            against == in_force && against != number - 1,
        ));
    }
    let body = html! {
        (tabs(&viewer))
        (parts::card("Differences", html! { span { "to" } (parts::segmented("Compared with", &choices)) }, html! {
            @if found.is_empty() {
                (parts::empty("check", "No differences", "Both versions are identical.", html! {}))
            } @else {
                (changes(&found))
            }
        }))
        (parts::card("Document", html! {}, html! { div.card-body { (parts::code("the config", &serde_json::to_string_pretty(&document).unwrap_or_default())) } }))
    };
    let headers = json!({"if-match": format!("\"{in_force}\"")});
    Ok(Page::new(format!("Version {number}"), body)
        .crumb("Routing", "/gateway/routing")
        .crumb("Versions", "/gateway/routing/versions")
        .lead(html! { span.row { @if config.active { (pill(Tone::Good, "active")) } "saved by " (config.author) ", " (format::stamp(config.created_at)) } })
        .actions(html! {
            @if viewer.can(Right::WriteConfig) && !config.active {
                button.button.primary type="button" data-api={ "POST /api/gateway/config/versions/" (number) "/restore" } data-headers=(headers) data-done="go:/gateway/routing" data-verb="Restore" data-confirm={ "Version " (number) " is restored as a new version." } { (icon("refresh")) "Restore" }
            }
        }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::strategy::Strategy;

    #[test]
    fn the_strategies_of_the_page_are_all_there_are() {
        let policy = |document: Value| crate::routing::document::read(&document, Strategy::Balanced);
        for (word, ..) in STRATEGIES {
            let read = policy(json!({"strategy": word})).expect("it is one");
            assert_eq!(read.strategy.as_str(), word);
        }
        for (kind, _) in FALLBACKS {
            assert!(
                policy(json!({"fallback_models": {kind: {"*": ["x"]}}})).is_ok(),
                "{kind}"
            );
        }
    }
}
