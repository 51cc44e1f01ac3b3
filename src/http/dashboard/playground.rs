//! `/gateway/playground`: models to talk to, one or two side by side, over the same `/v1` as everybody's.
//!
//! Keys are stored hashed, so no page can call by one: the viewer pastes a key, or has the API make one that ends within
//! the hour. Either stays in the page's memory and is sent nowhere but to `/v1`.

use maud::{Markup, html};

use super::parts::{self, Tone, icon};
use super::{Fault, Group, Handler, Nav, Page, View, Viewer};
use crate::domain::role::Right;
use crate::http::management::auth::ReadKeys;

/// The routes.
pub const VIEWS: &[View] = &[View {
    path: "/gateway/playground",
    nav: Some(Nav {
        title: "Playground",
        icon: "play",
        group: Group::Observe,
        right: Right::ReadKeys,
    }),
    handler: Handler::Page(|viewer| Box::pin(page(viewer))),
}];

async fn page(viewer: Viewer) -> Result<Page, Fault> {
    viewer.may::<ReadKeys>()?;
    let creates = viewer.can(Right::WriteKeys);
    let body = html! {
        div.playground data-playground data-sees-logs[viewer.can(Right::ReadLogs)] {
            div.grid.wide-right {
                div { (key_card(creates)) (settings_card()) }
                div {
                    div.panels data-panels { (panel("a", "First model", true)) (panel("b", "Second model", false)) }
                    form.card.ask data-ask {
                        label.visually-hidden for="prompt" { "Message" }
                        textarea id="prompt" name="prompt" rows="3" placeholder="Type a message. Ctrl+Enter sends it." required {}
                        div.ask-foot {
                            span.muted.small.grow data-ask-words role="status" { "Paste a key or create one to start." }
                            button.button type="button" data-clear { "Clear" }
                            button.button type="button" data-stop hidden { "Stop" }
                            button.button.primary type="submit" data-send disabled { (icon("play")) "Send" }
                        }
                    }
                }
            }
            datalist id="served" data-served {}
        }
    };
    Ok(Page::new("Playground", body)
        .lead(html! { "These are real requests with your key: limited, metered and billed as usual." })
        .script("playground.js"))
}

fn key_card(creates: bool) -> Markup {
    parts::card(
        "Key",
        html! {},
        html! {
            div.card-body.stack {
                (parts::field("key", "Key", "It stays on this page and is discarded when you leave.", html! { input id="key" type="password" autocomplete="off" spellcheck="false" placeholder="bn-…" data-key aria-describedby="key-hint"; }))
                @if creates { button.button type="button" data-make-key { (icon("key")) "Make one for an hour" } }
                p.small data-key-words role="status" { }
            }
        },
    )
}

fn settings_card() -> Markup {
    parts::card(
        "Request",
        html! {},
        html! {
            form.card-body.stack data-terms autocomplete="off" {
                (parts::field("system", "System message", "", html! { textarea id="system" name="system" rows="3" {} }))
                div.columns {
                    (parts::field("temperature", "Temperature", "", html! { input id="temperature" name="temperature" inputmode="decimal" placeholder="model default"; }))
                    (parts::field("most", "Max. output tokens", "", html! { input id="most" name="most" inputmode="numeric" placeholder="no limit"; }))
                }
                label.check { input type="checkbox" data-both; "Two models side by side" }
            }
        },
    )
}

fn panel(id: &str, label: &str, shown: bool) -> Markup {
    html! {
        section.card.panel data-panel=(id) hidden[!shown] aria-label=(label) {
            header.card-head {
                div.grow { label.visually-hidden for={ "model-" (id) } { (label) } input id={ "model-" (id) } list="served" placeholder=(label) autocomplete="off" data-model; }
            }
            div.talk data-talk tabindex="0" role="log" aria-label={ "Conversation with the " (label.to_lowercase()) } {
                (parts::empty("play", "No messages yet", "Choose a model and send a message.", html! {}))
            }
            dl.talk-figures data-figures aria-label={ "Figures of the " (label.to_lowercase()) } {
                @for (name, title) in [("cost", "Cost"), ("first", "First token"), ("total", "Total"), ("speed", "Speed"), ("tokens", "Tokens")] {
                    div { dt { (title) } dd data-figure=(name) { "—" } }
                }
            }
            div.panel-fault data-panel-fault role="alert" hidden { (parts::notice(Tone::Bad, html! { span data-fault-words {} })) }
        }
    }
}
