//! `/gateway/providers/catalogue`: what can be asked for, what it can do, and what it costs.

use maud::{Markup, html};

use super::models::{model_dialogs, own_models};
use super::parts::{self, icon};
use super::providers::{MOST_MODELS, tabs};
use super::{Fault, Handler, Page, View, Viewer, format};
use crate::domain::pricing::Price;
use crate::domain::role::Right;
use crate::http::management::auth::ReadProviders;
use crate::http::management::auth::providers::PricedDeployment;
use crate::routing::catalog_file::Capabilities;

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/providers/catalogue",
    nav: None,
    handler: Handler::Page(|viewer| Box::pin(catalogue(viewer))),
}];

/// Models of one page.
const PAGE: usize = 100;

fn capability_names(capabilities: &Capabilities) -> Vec<String> {
    let all = [
        (capabilities.vision, "vision"),
        (capabilities.tools, "tools"),
        (capabilities.json_schema, "JSON schema"),
        (capabilities.reasoning, "reasoning"),
        (capabilities.prompt_cache, "prompt cache"),
    ];
    all.iter()
        .filter(|(can, _)| *can == Some(true))
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

fn rate(price: Option<&Price>, of: impl Fn(&Price) -> Option<i64>) -> String {
    price.and_then(of).map_or_else(|| "—".to_owned(), format::usd)
}

async fn catalogue(viewer: Viewer) -> Result<Page, Fault> {
    let may = viewer.may::<ReadProviders>()?;
    let mut models = may.prices(None, MOST_MODELS).await?;
    let mut providers: Vec<String> = models.iter().map(|model| model.provider.clone()).collect();
    providers.sort_unstable();
    providers.dedup();
    let all = models.len();
    let mut names: Vec<String> = models.iter().map(|model| model.model.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let provider = viewer.query("provider").unwrap_or_default();
    let search = viewer.query("search").unwrap_or_default().trim().to_lowercase();
    let priced = viewer.query("price").unwrap_or_default();
    models.retain(|model| {
        (provider.is_empty() || model.provider == provider)
            && (search.is_empty()
                || model.id.to_lowercase().contains(&search)
                || model.model.to_lowercase().contains(&search))
            && match priced {
                "own" => model.own,
                "none" => model.price.is_none(),
                _ => true,
            }
    });
    let found = models.len();
    if let Some(after) = viewer.query("cursor") {
        models.retain(|model| model.id.as_str() > after);
    }
    let more = models.len() > PAGE;
    models.truncate(PAGE);
    let next = models
        .last()
        .filter(|_| more)
        .map(|last| viewer.url_with(&[("cursor", Some(&last.id))]));
    let writes = viewer.can(Right::WriteConfig);
    let states = may.providers().await?;
    let body = html! {
        (tabs(&viewer))
        (own_models(&may.own_models().await?, writes))
        form.filters method="get" action="/gateway/providers/catalogue" role="search" data-auto-submit {
            (parts::search("search", "Search models", "Search models", viewer.query("search")))
            label.visually-hidden for="provider" { "Provider" }
            select id="provider" name="provider" {
                option value="" { "Any provider" }
                @for one in &providers { option value=(one) selected[one == provider] { (one) } }
            }
            label.visually-hidden for="priced" { "Price" }
            select id="priced" name="price" {
                @for (value, words) in [("", "Any price"), ("own", "Custom prices"), ("none", "Without a price")] { option value=(value) selected[value == priced] { (words) } }
            }
            button.button.no-js type="submit" { "Filter" }
            span.muted.small { (format::count(i64::try_from(found).unwrap_or(i64::MAX))) " of " (format::count(i64::try_from(all).unwrap_or(i64::MAX))) " deployments" }
        }
        section.card {
            @if models.is_empty() && all > 0 {
                (parts::empty("search", "No matching models", "No model in the catalogue matches your search.", html! { a.button href="/gateway/providers/catalogue" { "Show all" } }))
            } @else if models.is_empty() {
                (parts::empty("provider", "No models yet", "Models appear with the first credential of a provider.", html! { a.button href="/gateway/providers" { "Providers" } }))
            } @else {
                (catalogue_table(&models, writes))
                (parts::more(next))
            }
        }
        @if writes { (price_dialog()) (model_dialogs(&states, &names)) }
    };
    Ok(Page::new("Providers", body)
        .lead(html! { "Available models, their capabilities, and their prices per million tokens." })
        .actions(html! { @if writes { button.button.primary type="button" data-opens="new-model" { (icon("plus")) "Add model" } } })
        .script("providers.js"))
}

fn catalogue_table(models: &[PricedDeployment], writes: bool) -> Markup {
    html! {
        div.table-wrap tabindex="0" role="region" aria-label="Models and prices" {
            table.table id="catalogue" {
                thead { tr {
                    th { "Model" } th.right.wide { "Context" } th.wide { "Can" } th.right { "Input" } th.right { "Output" } th.right.wide { "Cached input" }
                    @if writes { th { span.visually-hidden { "Actions" } } }
                } }
                tbody {
                    @for model in models {
                        @let price = model.price.as_deref();
                        @let usual = model.usual.as_deref();
                        tr {
                            td.wrap {
                                span.strong { (model.model) }
                                div.sub { code { (model.id) } @if let Some(day) = model.retires { " · until " (day) } }
                            }
                            td.right.nowrap.wide {
                                (tokens(model.context_tokens))
                                @if let Some(most) = model.max_output_tokens { div.sub { (tokens(Some(most))) " out" } }
                            }
                            td.wide { div.chips { (parts::names(&capability_names(&model.capabilities), 5, "not specified")) } }
                            td.right.nowrap {
                                (rate(price, |price| Some(price.rates.input.0)))
                                @if model.own { div.sub { @if usual.is_some() { "custom; list " (rate(usual, |price| Some(price.rates.input.0))) } @else { "own" } } }
                            }
                            td.right.nowrap {
                                (rate(price, |price| Some(price.rates.output.0)))
                                @if model.own { div.sub { @if usual.is_some() { "list " (rate(usual, |price| Some(price.rates.output.0))) } } }
                            }
                            td.right.nowrap.wide { (rate(price, |price| price.rates.cache_read.map(|rate| rate.0))) }
                            @if writes {
                                td.right {
                                    button.button.small type="button" data-opens="price" data-deployment=(model.id) data-own[model.own]
                                        data-input=[price.map(|price| price.rates.input.to_string())] data-output=[price.map(|price| price.rates.output.to_string())]
                                        data-cache-read=[price.and_then(|price| price.rates.cache_read).map(|rate| rate.to_string())] data-cache-write=[price.and_then(|price| price.rates.cache_write).map(|rate| rate.to_string())]
                                        data-cache-write-1h=[price.and_then(|price| price.rates.cache_write_1h).map(|rate| rate.to_string())] {
                                        "Price" span.visually-hidden { " of " (model.id) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn tokens(count: Option<u64>) -> String {
    count.map_or_else(
        || "—".to_owned(),
        |count| format::short(i64::try_from(count).unwrap_or(i64::MAX)),
    )
}

/// What prompts above a size cost, where that is not to follow from the list price.
fn long_prompts() -> Markup {
    let above = "long_prompt.above_tokens";
    html! {
        details.more-fields {
            summary { "Long prompts" }
            div.stack {
                p.muted.small { "Where the list price is higher for long prompts, this price grows by the same factors, unless you say otherwise here." }
                div.columns {
                    (parts::field("price-above", "More than this many tokens", "", html! { input id="price-above" name=(above) type="number" min="1" step="1" data-type="number"; }))
                    @for (name, label) in [("input_usd", "Input"), ("output_usd", "Output"), ("cache_read_usd", "Cached input"), ("cache_write_usd", "Cache write"), ("cache_write_1h_usd", "Cache write (1 hour)")] {
                        (parts::field(&format!("price-long-{name}"), label, "", html! { input id={ "price-long-" (name) } name={ "long_prompt." (name) } inputmode="decimal" autocomplete="off" data-with=(above); }))
                    }
                }
            }
        }
    }
}

/// The dialog for prices of one's own; `providers.js` fills it, from the button that opened it and from the config in force.
fn price_dialog() -> Markup {
    let field = |id: &'static str, name: &'static str, label: &'static str, hint: &'static str, needed: bool| {
        parts::field(
            id,
            label,
            hint,
            html! { input id=(id) name=(name) inputmode="decimal" autocomplete="off" required[needed] aria-describedby=[(!hint.is_empty()).then(|| format!("{id}-hint"))]; },
        )
    };
    parts::dialog(
        "price",
        "Custom price",
        html! {
            form data-price autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    p.soft { "What " code data-price-of {} " costs this organization, in US dollars per million tokens. Requests already charged keep their cost until they are " a href="/gateway/providers/repricing" { "re-priced" } "." }
                    div data-price-own hidden {
                        p.small.muted { "Custom prices. If there are several, the most recent one that has taken effect applies." }
                        ul.health data-price-list {}
                    }
                    input type="hidden" name="deployment";
                    div.columns {
                        (field("price-input", "input_usd", "Input", "", true))
                        (field("price-output", "output_usd", "Output", "", true))
                        (field("price-read", "cache_read_usd", "Cached input", "Empty: same as input.", false))
                        (field("price-write", "cache_write_usd", "Cache write", "Empty: same as input.", false))
                        (field("price-write-1h", "cache_write_1h_usd", "Cache write (1 hour)", "Empty: same as cache write.", false))
                        (parts::field("price-from", "Effective from", "Empty: since the beginning.", html! { input id="price-from" name="from" type="datetime-local" data-type="time" aria-describedby="price-from-hint"; }))
                    }
                    (long_prompts())
                }
                footer.dialog-foot {
                    button.button.danger type="button" data-price-reset hidden { "Use the list price" }
                    span.grow {}
                    button.button type="button" data-closes { "Cancel" }
                    button.button.primary type="submit" { "Save" }
                }
            }
        },
    )
}
