//! Endpoints of the organization's own on the pages of providers: added, changed and taken away.

use maud::{Markup, html};
use serde_json::json;

use super::parts::{self, Tone, icon};
use crate::config::Unlisted;
use crate::http::management::auth::access::ProviderState;
use crate::providers::compatible::DIALECTS;
use crate::routing::own::OwnProvider;

/// Words that stand where a provider's id does in the addresses of pages.
const PAGES: [&str; 3] = ["catalogue", "repricing", "live"];

/// The dialog that adds an endpoint. Whoever asks for an id that is there would change that endpoint instead.
pub fn new_endpoint(states: &[ProviderState]) -> Markup {
    let taken: Vec<&str> = states.iter().map(|state| state.id.as_str()).chain(PAGES).collect();
    parts::dialog(
        "new-endpoint",
        "Add endpoint",
        html! {
            form data-api="PUT /api/gateway/providers/{id}" data-done="go:/gateway/providers/{id}" data-whole="_id" autocomplete="off" {
                div.dialog-body.stack {
                    (parts::form_fault())
                    p.soft { "An OpenAI-compatible server of your own, for this organization's requests only. Add its credential afterwards; it is sent nowhere else." }
                    (parts::field("endpoint-id", "Id", "Its name in routing rules, scopes and logs: lower-case letters, digits, _ and -.", html! {
                        input id="endpoint-id" name="_id" required maxlength="32" pattern="[a-z0-9_\\-]+" data-taken=(taken.join(" ")) placeholder="llm" spellcheck="false" aria-describedby="endpoint-id-hint";
                    }))
                    (fields("endpoint", None))
                }
                (foot("Add endpoint"))
            }
        },
    )
}

fn foot(verb: &str) -> Markup {
    html! {
        footer.dialog-foot {
            button.button type="button" data-closes { "Cancel" }
            button.button.primary type="submit" { (verb) }
        }
    }
}

/// What both dialogs ask for; ids begin with `at`.
fn fields(at: &str, own: Option<&OwnProvider>) -> Markup {
    let dialect = own.map_or("openai", |own| own.dialect.as_str());
    let refuses = own.is_some_and(|own| own.unlisted == Unlisted::Refuse);
    html! {
        (parts::field(&format!("{at}-url"), "Base URL", "API paths are appended to it.", html! {
            input id={ (at) "-url" } name="base_url" type="url" required maxlength="2048" placeholder="https://llm.example.com/v1" value=[own.map(|own| own.base_url.to_string())] aria-describedby={ (at) "-url-hint" };
        }))
        div.columns {
            (parts::field(&format!("{at}-dialect"), "API dialect", "", html! {
                select id={ (at) "-dialect" } name="dialect" {
                    @for row in DIALECTS { option value=(row.name) selected[row.name == dialect] { (if row.name == "openai" { "OpenAI-compatible" } else { row.name }) } }
                }
            }))
            (parts::field(&format!("{at}-unlisted"), "Models that are not listed", "", html! {
                select id={ (at) "-unlisted" } name="unlisted_models" {
                    option value="forward" { "their names are passed on" }
                    option value="refuse" selected[refuses] { "it is not asked for them" }
                }
            }))
            (parts::field(&format!("{at}-most"), "Concurrent requests", "Maximum per credential. Empty: no limit.", html! {
                input id={ (at) "-most" } name="max_concurrent" data-type="number" inputmode="numeric" value=[own.and_then(|own| own.max_concurrent)] aria-describedby={ (at) "-most-hint" };
            }))
        }
        label.check { input type="checkbox" name="keyless" data-type="bool" checked[own.is_some_and(|own| own.keyless)]; "Send requests without a credential while none is stored" }
    }
}

/// Where an endpoint is, and the dialog that changes it for those who may.
pub fn endpoint_card(state: &ProviderState, own: &OwnProvider, writes: bool) -> Markup {
    let path = format!("/api/gateway/providers/{}", state.id);
    let actions = html! {
        @if writes {
            button.button.small type="button" data-opens="edit-endpoint" { (icon("edit")) "Change" }
            button.button.small.danger type="button" data-api={ "DELETE " (path) } data-done="go:/gateway/providers" data-verb="Remove" data-confirm={ "Requests will no longer be sent to " (state.id) ", and its credentials are deleted." } { "Remove" }
        }
    };
    html! {
        @if !state.usable {
            (parts::notice(Tone::Warn, html! { "This endpoint is not used yet: no credential is stored for its current address. Add one, or mark it as needing none." }))
        }
        (parts::card("Endpoint of this organization", actions, html! {
            div.card-body {
                dl.facts {
                    dt { "Base URL" } dd { code { (own.base_url) } }
                    dt { "API dialect" } dd { (own.dialect) }
                    dt { "Models that are not listed" } dd { @match own.unlisted { Unlisted::Forward => "their names are passed on", Unlisted::Refuse => "it is not asked for them" } }
                    dt { "Concurrent requests" } dd { @match own.max_concurrent { Some(most) => { "at most " (most) " per credential" }, None => "unlimited" } }
                    dt { "Without a credential" } dd { @if own.keyless { "requests are sent anyway" } @else { "no requests are sent" } }
                }
            }
        }))
        @if writes {
            (parts::dialog("edit-endpoint", "Edit endpoint", html! {
                form data-api={ "PUT " (path) } data-done="reload" autocomplete="off" {
                    // What is sent is the whole of it, so that it stays switched off if it is.
                    input type="hidden" name="enabled" data-type="json" value=(json!(state.enabled));
                    div.dialog-body.stack {
                        (parts::form_fault())
                        p.soft { "Credentials are bound to the scheme, host and port they were entered for. If you change the address, enter them again." }
                        (fields("change-endpoint", Some(own)))
                    }
                    (foot("Save"))
                }
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::routing::plan::Readiness;

    fn state(usable: bool) -> ProviderState {
        ProviderState {
            id: "llm".into(),
            enabled: true,
            readiness: Readiness::Passing,
            ejected_until: None,
            credentials: Vec::new(),
            deployments: 1,
            measured: BTreeMap::new(),
            usable,
            own: None,
        }
    }

    #[test]
    fn an_endpoint_says_whether_anything_goes_there_and_only_those_who_may_change_it_can() {
        let own = OwnProvider {
            id: "llm".into(),
            base_url: "https://llm.example.com/v1".parse().unwrap(),
            dialect: "mistral".into(),
            unlisted: Unlisted::Refuse,
            keyless: false,
            max_concurrent: Some(7),
        };
        let shown = |usable, writes| endpoint_card(&state(usable), &own, writes).into_string();
        assert!(shown(false, false).contains("not used yet") && !shown(true, false).contains("not used yet"));
        assert!(shown(true, true).contains("DELETE /api") && !shown(true, false).contains("/api/"));
        let edit = shown(true, true);
        for begins in [
            "value=\"7\"",
            "<option value=\"refuse\" selected>",
            "<option value=\"mistral\" selected>",
        ] {
            assert!(edit.contains(begins), "{begins}: {edit}");
        }
        assert!(
            new_endpoint(&[state(true)])
                .into_string()
                .contains("data-taken=\"llm catalogue")
        );
    }
}
