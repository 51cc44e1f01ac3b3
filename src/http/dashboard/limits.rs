//! Rate limits on `/gateway/budgets`: how much may be asked for at a time.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::budgets::{Names, Whom, buttons, change_buttons, enabled_field, scope_fields};
use super::parts::{self, Tone, pill};
use super::{Viewer, format};
use crate::domain::limit::{LimitKind, LimitRule, WhenApart};
use crate::domain::managed_limit::ManagedLimit;

/// The rate limits there are.
pub fn limit_table(limits: &[ManagedLimit], names: &Names, writes: bool) -> Markup {
    html! {
        div.table-wrap tabindex="0" role="region" aria-label="Rate limits" {
            table.table id="limits" data-sort {
                thead { tr {
                    th data-by="text" { button.sort type="button" { "For" } }
                    th.right data-by="number" { button.sort type="button" { "Requests / min" } }
                    th.right data-by="number" { button.sort type="button" { "Tokens / min" } }
                    th.right.wide data-by="number" { button.sort type="button" { "Concurrent" } }
                    th.wide { "If Redis is down" }
                    th { "State" }
                    @if writes { th.right { span.visually-hidden { "Change" } } }
                } }
                tbody { @for limit in limits { (limit_row(limit, names, writes)) } }
            }
        }
    }
}

fn amount(value: Option<u64>) -> Markup {
    html! {
        @match value {
            Some(value) => (format::count(i64::try_from(value).unwrap_or(i64::MAX))),
            None => span.muted { "—" },
        }
    }
}

fn apart_words(policy: WhenApart) -> &'static str {
    match policy {
        WhenApart::Local => "each replica allows its share",
        WhenApart::Closed => "blocks requests",
        WhenApart::Open => "allows requests",
    }
}

fn limit_row(limit: &ManagedLimit, names: &Names, writes: bool) -> Markup {
    let LimitRule {
        values,
        when_apart,
        enabled,
        ..
    } = &limit.rule;
    let (kind, reference, model) = limit.rule.scope.written();
    let whom = Whom::of(kind, &reference, names);
    html! {
        tr data-id=(limit.rule.id) {
            td.wrap data-value=(whom.words()) { (whom.shown()) @if let Some(model) = model { " " (parts::chip(model)) } }
            td.right data-value=(values.requests.unwrap_or(0)) { (amount(values.requests)) }
            td.right data-value=(values.tokens.or(values.input_tokens).or(values.output_tokens).unwrap_or(0)) {
                @if values.tokens.is_some() || (values.input_tokens.is_none() && values.output_tokens.is_none()) { div { (amount(values.tokens)) } }
                @if values.input_tokens.is_some() { div.nowrap { (amount(values.input_tokens)) " " span.muted { "in" } } }
                @if values.output_tokens.is_some() { div.nowrap { (amount(values.output_tokens)) " " span.muted { "out" } } }
            }
            td.right.wide data-value=(values.concurrency.unwrap_or(0)) { (amount(values.concurrency)) }
            td.wide { (apart_words(*when_apart)) }
            td { @if *enabled { (pill(Tone::Good, "on")) } @else { (pill(Tone::Quiet, "off")) } }
            @if writes { td.right.nowrap { (change_buttons("limit", "rate-limits", limit.rule.id, &whom, &limit_values(limit))) } }
        }
    }
}

/// What a dialog that changes a limit begins with.
fn limit_values(limit: &ManagedLimit) -> Value {
    let mut values = json!({"when_redis_is_away": limit.rule.when_apart.as_str(), "enabled": limit.rule.enabled});
    for kind in LimitKind::ALL {
        let value = limit.rule.values.of(kind).map(|value| value.to_string());
        values[kind.field()] = value.unwrap_or_default().into();
    }
    values
}

fn value_fields(at: &str) -> Markup {
    let fields = [
        (LimitKind::Requests, "Requests per minute"),
        (LimitKind::Concurrency, "Concurrent requests"),
        (LimitKind::Tokens, "Tokens per minute"),
        (LimitKind::InputTokens, "Input tokens per minute"),
        (LimitKind::OutputTokens, "Output tokens per minute"),
    ];
    html! {
        div.columns {
            @for (kind, label) in fields {
                @let id = format!("{at}-{}", kind.as_str().replace('_', "-"));
                (parts::field(&id, label, "", html! { input id=(id) name=(kind.field()) data-type="number" data-empty="null" inputmode="numeric" pattern="[0-9]*" title="A whole number" placeholder="no limit" autocomplete="off"; }))
            }
            (parts::field(&format!("{at}-apart"), "If Redis is unavailable", "", html! {
                select id={ (at) "-apart" } name="when_redis_is_away" {
                    @if at == "limit" { option value="" { "gateway default" } }
                    @for policy in WhenApart::ALL { option value=(policy.as_str()) { (apart_words(policy)) } }
                }
            }))
        }
    }
}

/// The dialog that creates one.
pub fn new_limit(viewer: &Viewer, names: &Names) -> Markup {
    parts::dialog(
        "new-limit",
        "New rate limit",
        html! {
            form data-api="POST /api/gateway/rate-limits" data-done="reload" autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    (scope_fields(viewer, names, "limit", true))
                    div data-scope-for="organization team key each_key" {
                        (parts::field("limit-only", "Only for model", "A name, or a pattern whose matches count together. Empty: all models.", html! {
                            input id="limit-only" name="model" list="models-offered" placeholder="all models" autocomplete="off" spellcheck="false" aria-describedby="limit-only-hint";
                        }))
                    }
                    (value_fields("limit"))
                    (enabled_field("limit"))
                }
                (buttons("Create limit"))
            }
        },
    )
}

/// The dialog that changes one.
pub fn edit_limit() -> Markup {
    parts::dialog(
        "edit-limit",
        "Edit rate limit",
        html! {
            form data-api="PATCH /api/gateway/rate-limits/{id}" data-done="reload" autocomplete="off" data-edits {
                input type="hidden" name="_id";
                div.dialog-body.stack {
                    (parts::form_fault())
                    p.soft { "For the " strong data-edits-whom {} ". Empty fields are not limited." }
                    (value_fields("change-limit"))
                    (enabled_field("change-limit"))
                }
                (buttons("Save"))
            }
        },
    )
}
