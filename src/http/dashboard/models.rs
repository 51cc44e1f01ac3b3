//! Models of the organization's own on `/gateway/providers/catalogue`: added, changed and taken away.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::format;
use super::parts::{self, icon};
use crate::http::management::auth::access::ProviderState;

/// What somebody may say that a model can do: its name in the API, and in words.
const CAPABILITIES: [(&str, &str); 6] = [
    ("vision", "Image input"),
    ("tools", "Tool calls"),
    ("json_schema", "JSON schema"),
    ("reasoning", "Reasoning"),
    ("prompt_cache", "Prompt caching"),
    ("sampling_params", "Temperature and top_p"),
];
/// What a million tokens cost besides input and output: name and words.
const MORE_PRICES: [(&str, &str); 3] = [
    ("cache_read_usd", "Cached input"),
    ("cache_write_usd", "Cache write"),
    ("cache_write_1h_usd", "Cache write (1 hour)"),
];
/// What prompts above a size cost: name and words.
const LONG_PRICES: [(&str, &str); 5] = [
    ("input_usd", "Input"),
    ("output_usd", "Output"),
    ("cache_read_usd", "Cached input"),
    ("cache_write_usd", "Cache write"),
    ("cache_write_1h_usd", "Cache write (1 hour)"),
];

/// The models of the organization's own, as it wrote them; nothing where there is none.
pub fn own_models(models: &BTreeMap<String, Value>, writes: bool) -> Markup {
    html! {
        @if !models.is_empty() {
            (parts::card("Custom models", html! { span { "for this organization only" } }, html! {
                div.table-wrap tabindex="0" role="region" aria-label="Custom models" {
                    table.table id="own-models" {
                        thead { tr {
                            th { "Model" } th.wide { "Aliases" } th.right.wide { "Context" } th.right { "Input" } th.right { "Output" }
                            @if writes { th.right { span.visually-hidden { "Change" } } }
                        } }
                        tbody { @for (id, model) in models { (row(id, model, writes)) } }
                    }
                }
            }))
        }
    }
}

fn row(id: &str, model: &Value, writes: bool) -> Markup {
    let aliases: Vec<String> = texts(&model["aliases"]);
    let price = |name: &str| {
        let price = model[name].as_str().map(|price| format!("${price}"));
        price.unwrap_or_else(|| "—".to_owned())
    };
    let path = url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>();
    html! {
        tr data-model=(id) {
            td.wrap { span.strong { (model["model"].as_str().unwrap_or(id)) } div.sub { code { (id) } } }
            td.wide { div.chips { (parts::names(&aliases, 4, "none")) } }
            td.right.wide.nowrap { (model["context_tokens"].as_i64().map_or_else(|| "—".to_owned(), format::short)) }
            td.right.nowrap { (price("input_usd")) }
            td.right.nowrap { (price("output_usd")) }
            @if writes {
                td.right.nowrap {
                    button.icon-button type="button" data-opens="edit-model" data-id=(id) data-whom=(id) data-values=(flat(model)) aria-label={ "Change " (id) } title="Change" { (icon("edit")) }
                    button.icon-button type="button" data-api={ "DELETE /api/gateway/models/" (path) } data-verb="Remove" data-confirm={ "Requests for " (id) " will be refused. Recorded usage is kept." } aria-label={ "Remove " (id) } title="Remove" { (icon("trash")) }
                }
            }
        }
    }
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// A model as the dialog's fields have it: names with dots, and lists with commas.
fn flat(model: &Value) -> Value {
    fn put(into: &mut Map<String, Value>, name: &str, value: &Value) {
        match value {
            Value::Object(members) => members
                .iter()
                .for_each(|(inner, value)| put(into, &format!("{name}.{inner}"), value)),
            Value::Array(_) => drop(into.insert(name.to_owned(), texts(value).join(",").into())),
            Value::Bool(is) => drop(into.insert(name.to_owned(), is.to_string().into())),
            Value::Null => {}
            other => drop(into.insert(name.to_owned(), other.clone())),
        }
    }
    let mut fields = Map::new();
    for (name, value) in model.as_object().into_iter().flatten() {
        put(&mut fields, name, value);
    }
    json!(fields)
}

/// The dialogs that add a model and change one. `names` are the models that one can be like.
pub fn model_dialogs(providers: &[ProviderState], names: &[String]) -> Markup {
    let foot = |verb: &str| {
        html! {
            footer.dialog-foot {
                button.button type="button" data-closes { "Cancel" }
                button.button.primary type="submit" { (verb) }
            }
        }
    };
    html! {
        (parts::dialog("new-model", "Add a model", html! {
            form data-api="POST /api/gateway/models" data-done="reload" data-whole="model" autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    p.soft { "A model that one of your providers or endpoints serves but the catalogue does not list. Only this organization can use it." }
                    div.columns {
                        (parts::field("model-provider", "Provider", "", html! {
                            select id="model-provider" name="provider" required {
                                @for state in providers { option value=(state.id) { (state.id) } }
                            }
                        }))
                        (parts::field("model-model", "Model", "The name that clients use.", html! { input id="model-model" name="model" required maxlength="256" spellcheck="false" aria-describedby="model-model-hint"; }))
                        (parts::field("model-name", "Name at the provider", "Empty: same as the model name.", html! { input id="model-name" name="name" maxlength="256" spellcheck="false" aria-describedby="model-name-hint"; }))
                    }
                    (fields("model"))
                }
                (foot("Add model"))
            }
        }))
        (parts::dialog("edit-model", "Edit model", html! {
            form data-api="PUT /api/gateway/models/{id}" data-done="reload" data-whole="model" autocomplete="off" data-edits {
                input type="hidden" name="_id";
                div.dialog-body.stack {
                    (parts::form_fault())
                    p.soft { strong data-edits-whom {} " is updated immediately. Its provider and names identify it and cannot be changed." }
                    div.columns {
                        (parts::field("change-model-provider", "Provider", "", html! { input id="change-model-provider" name="provider" readonly; }))
                        (parts::field("change-model-model", "Model", "", html! { input id="change-model-model" name="model" readonly; }))
                        (parts::field("change-model-name", "Name at the provider", "", html! { input id="change-model-name" name="name" readonly placeholder="the same"; }))
                    }
                    (fields("change-model"))
                }
                (foot("Save"))
            }
        }))
        datalist id="model-names" { @for name in names { option value=(name) {} } }
    }
}

fn number(id: &str, name: &str, label: &str, hint: &str) -> Markup {
    let described = (!hint.is_empty()).then(|| format!("{id}-hint"));
    parts::field(
        id,
        label,
        hint,
        html! { input id=(id) name=(name) data-type="number" inputmode="numeric" aria-describedby=[described]; },
    )
}

fn price(id: &str, name: &str, label: &str, with: Option<&str>) -> Markup {
    parts::field(
        id,
        label,
        "",
        html! { input id=(id) name=(name) inputmode="decimal" data-with=[with]; },
    )
}

/// What both dialogs ask for; ids begin with `at`.
fn fields(at: &str) -> Markup {
    let long = "long_prompt.above_tokens";
    html! {
        (parts::field(&format!("{at}-aliases"), "Aliases", "Additional names that clients can use.", html! { input id={ (at) "-aliases" } name="aliases" data-type="tokens" aria-describedby={ (at) "-aliases-hint" }; }))
        div.columns {
            (price(&format!("{at}-input"), "input_usd", "Input, USD per million tokens", None))
            (price(&format!("{at}-output"), "output_usd", "Output, USD per million tokens", None))
            (number(&format!("{at}-context"), "context_tokens", "Context window (tokens)", "Prompt and response together."))
            (number(&format!("{at}-most"), "max_output_tokens", "Max. output tokens", ""))
        }
        details.more-fields {
            summary { "Capabilities" }
            div.stack {
                div.columns {
                    (parts::field(&format!("{at}-like"), "Behaves like", "A model of the catalogue. Its prices do not apply.", html! { input id={ (at) "-like" } name="like" list="model-names" maxlength="256" spellcheck="false" aria-describedby={ (at) "-like-hint" }; }))
                    (parts::field(&format!("{at}-mode"), "Used for", "", html! {
                        select id={ (at) "-mode" } name="mode" {
                            option value="" { "as in the catalogue, or anything" }
                            option value="chat" { "chat completions" }
                            option value="completion" { "legacy completions" }
                            option value="embedding" { "embeddings" }
                        }
                    }))
                    @for (name, words) in CAPABILITIES {
                        (parts::field(&format!("{at}-{name}"), words, "", html! {
                            select id={ (at) "-" (name) } name={ "capabilities." (name) } data-type="bool" {
                                option value="" { "unknown" }
                                option value="true" { "yes" }
                                option value="false" { "no" }
                            }
                        }))
                    }
                }
            }
        }
        details.more-fields {
            summary { "More prices" }
            div.stack {
                p.muted.small { "USD per million tokens. Empty fields are charged as input or output." }
                div.columns {
                    @for (name, words) in MORE_PRICES { (price(&format!("{at}-{name}"), name, words, None)) }
                    (number(&format!("{at}-above"), long, "Long prompts: more than this many tokens", ""))
                    @for (name, words) in LONG_PRICES { (price(&format!("{at}-long-{name}"), &format!("long_prompt.{name}"), &format!("Long prompts: {}", words.to_lowercase()), Some(long))) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_can_be_written_of_a_model_has_a_field_and_is_text() {
        let model = json!({
            "provider": "llm", "model": "<b>house</b>", "name": "house-v2", "aliases": ["a", "b"], "like": "gpt-5",
            "context_tokens": 32_000, "max_output_tokens": 4_000, "mode": "chat",
            "capabilities": {"vision": true, "tools": false, "json_schema": true, "reasoning": true, "prompt_cache": true,
                "sampling_params": false},
            "input_usd": "0.5", "output_usd": "1.5", "cache_read_usd": "0.1", "cache_write_usd": "0.2",
            "cache_write_1h_usd": "0.3",
            "long_prompt": {"above_tokens": 200_000, "input_usd": "1", "output_usd": "2", "cache_read_usd": "1",
                "cache_write_usd": "1", "cache_write_1h_usd": "1"},
        });
        let dialogs = model_dialogs(&[], &[]).into_string();
        let (_, edit) = dialogs.split_once("id=\"edit-model\"").expect("there is one");
        for (name, value) in flat(&model).as_object().unwrap() {
            assert!(edit.contains(&format!("name=\"{name}\"")), "{name} has no field");
            assert!(value.is_string() || value.is_number(), "{name}: {value}");
        }
        let shown = row("llm/<b>house</b>", &model, true).into_string();
        assert!(
            !shown.contains("<b>") && shown.contains("llm%2F%3Cb%3Ehouse"),
            "{shown}"
        );
    }
}
