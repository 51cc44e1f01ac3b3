//! `bonito budget …`: budgets from the command line, straight in the database.

use std::fmt::Write as _;
use std::process::ExitCode;

use chrono::{SecondsFormat, Utc};
use chrono_tz::Tz;
use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::key::{find, named};
use super::say;
use crate::config::Settings;
use crate::domain::audit::Author;
use crate::domain::budget::calendar::{Period, Span};
use crate::domain::budget::refusal::dollars;
use crate::domain::budget::{Budget, BudgetId, BudgetScope, BudgetTerms, DEFAULT_THRESHOLDS, Enforcement, Unpriced};
use crate::domain::error::BoxError;
use crate::domain::ids::OrganizationId;
use crate::domain::managed_key::KeyReach;
use crate::domain::managed_limit::Outcome;
use crate::domain::money::NanoUsd;
use crate::store::Store;
use crate::store::budgets::Spent;
use crate::store::organizations::FIRST_SLUG;

/// What can be done with budgets.
#[derive(Subcommand)]
pub enum Command {
    /// Set a budget, in the place of the one for the same and the same period. Running gateways hold it within a second.
    Set {
        /// Whom or what it is for: organization, team=SLUG, key=ID (or the beginning of its prefix), tag=NAME=VALUE (in
        /// keys' metadata), provider=ID or model=NAME.
        #[arg(long = "for", value_name = "WHAT")]
        scope: String,
        /// US dollars: 50 or 0.25.
        #[arg(long, value_parser = amount)]
        amount: NanoUsd,
        /// What the amount is for: daily, weekly (from Monday), monthly or total.
        #[arg(long, value_parser = period)]
        period: Period,
        /// Whose calendar the period follows: Europe/Berlin.
        #[arg(long, default_value = "UTC", value_parser = zone)]
        time_zone: Tz,
        /// Refuse nothing, and only raise events.
        #[arg(long)]
        soft: bool,
        /// A percentage at which an event is raised. Repeatable; none: 50, 80 and 100.
        #[arg(long = "threshold", value_name = "PERCENT")]
        thresholds: Vec<u16>,
        /// Serve models without a price, too; such calls do not count.
        #[arg(long)]
        allow_unpriced: bool,
        /// Tokens of an answer where the caller names no limit; they are written into the call.
        #[arg(long, value_name = "TOKENS")]
        default_output_tokens: Option<u64>,
        /// Count, but neither refuse nor reserve.
        #[arg(long)]
        disabled: bool,
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List the budgets of an organization, and what of them is spent.
    List {
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
        /// Print one JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Delete a budget.
    Delete {
        /// Its id.
        budget: Uuid,
        /// The organization, by its short name.
        #[arg(long, default_value = FIRST_SLUG)]
        organization: String,
    },
}

/// Runs one of them.
pub async fn run(command: Command, settings: &Settings) -> Result<ExitCode, BoxError> {
    let opened = super::open(settings).await?;
    let store = &opened.store;
    match command {
        Command::Set {
            scope,
            amount,
            period,
            time_zone,
            soft,
            thresholds,
            allow_unpriced,
            default_output_tokens,
            disabled,
            organization,
            json,
        } => {
            let organization = find(store, &organization).await?;
            let scope = scope_of(store, organization, &scope).await?;
            let mut thresholds = if thresholds.is_empty() {
                DEFAULT_THRESHOLDS.to_vec()
            } else {
                thresholds
            };
            thresholds.sort_unstable();
            let terms = BudgetTerms {
                amount,
                period,
                zone: time_zone,
                enforcement: if soft { Enforcement::Soft } else { Enforcement::Hard },
                unpriced: if allow_unpriced {
                    Unpriced::Allow
                } else {
                    Unpriced::Refuse
                },
                default_output_tokens,
                thresholds: thresholds.into_iter().collect(),
                enabled: !disabled,
            };
            terms.check().map_err(|(field, problem)| format!("{field} {problem}"))?;
            let by = Author::system("bonito budget set");
            let Some(id) = store.set_budget(organization, &scope, &terms, &by).await? else {
                return Err(format!("the organization has no such {}", scope.kind()).into());
            };
            let span = period.span(time_zone, Utc::now());
            let spent = store.spent_of(id, span.start).await?.spent;
            let (amount, spent) = (dollars(amount), dollars(spent));
            say(&match json {
                true => json!({"id": id.0, "amount_usd": amount, "spent_usd": spent}).to_string(),
                false => format!("{id}: {spent} of {amount} USD are spent {}", period.spoken()),
            });
        }
        Command::List { organization, json } => {
            let budgets = store.budgets_of(find(store, &organization).await?).await?;
            let now = Utc::now();
            let spans = budgets.into_iter().map(|budget| {
                let span = budget.terms.period.span(budget.terms.zone, now);
                (budget, span)
            });
            let spans: Vec<(Budget, Span)> = spans.collect();
            let periods: Vec<_> = spans.iter().map(|(budget, span)| (budget.id, span.start)).collect();
            let spent = store.spent_of_each(&periods).await?;
            let of = |(budget, span): (Budget, Span)| {
                let spent = spent.get(&budget.id).copied().unwrap_or_default();
                (budget, span, spent)
            };
            let rows: Vec<Row> = spans.into_iter().map(of).collect();
            say(&if json { listed_json(&rows) } else { listed(&rows)? });
        }
        Command::Delete { budget, organization } => {
            let organization = find(store, &organization).await?;
            let (reach, by) = (KeyReach::Organization, Author::system("bonito budget delete"));
            let removed = store.remove_budget(organization, reach, BudgetId(budget), &by).await?;
            if removed != Outcome::Done(()) {
                return Err(format!("there is no budget {budget}").into());
            }
            say(&format!("deleted {budget}"));
        }
    }
    opened.store.close().await;
    Ok(ExitCode::SUCCESS)
}

fn amount(text: &str) -> Result<NanoUsd, String> {
    NanoUsd::parse_usd(text).map_err(|error| error.to_string())
}

fn period(text: &str) -> Result<Period, String> {
    let names = Period::ALL.map(Period::as_str).join(", ");
    Period::parse(text).ok_or_else(|| format!("must be one of {names}"))
}

fn zone(text: &str) -> Result<Tz, String> {
    text.parse()
        .map_err(|_| "must be the name of a time zone such as Europe/Berlin".to_owned())
}

/// What a text on the command line means.
async fn scope_of(store: &Store, organization: OrganizationId, text: &str) -> Result<BudgetScope, BoxError> {
    let (kind, name) = text.split_once('=').unwrap_or((text, ""));
    match kind {
        "key" => Ok(BudgetScope::Key(named(&store.keys_of(organization).await?, name)?)),
        "team" => {
            let team = store.team_by_slug(organization, name).await?;
            let team = team.ok_or_else(|| format!("there is no team {name:?}"))?;
            Ok(BudgetScope::Team(team))
        }
        _ => Ok(BudgetScope::parse(kind, name).map_err(|problem| format!("--for {text}: {problem}"))?),
    }
}

type Row = (Budget, Span, Spent);

fn state(budget: &Budget) -> &'static str {
    match budget.terms.enabled {
        true => budget.terms.enforcement.as_str(),
        false => "disabled",
    }
}

fn listed(rows: &[Row]) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "{:<36}  {:<8}  {:<8}  {:>14}  {:>14}  {:<20}  {}",
        "ID", "STATE", "PERIOD", "SPENT USD", "OF USD", "RESETS", "FOR"
    );
    for (budget, span, spent) in rows {
        let resets = span
            .end
            .map_or("never".into(), |end| end.to_rfc3339_opts(SecondsFormat::Secs, true));
        write!(
            text,
            "\n{:<36}  {:<8}  {:<8}  {:>14}  {:>14}  {resets:<20}  {}",
            budget.id,
            state(budget),
            budget.terms.period.as_str(),
            dollars(spent.spent),
            dollars(budget.terms.amount),
            budget.label,
        )?;
    }
    Ok(text)
}

fn listed_json(rows: &[Row]) -> String {
    let row = |(budget, span, spent): &Row| {
        let terms = &budget.terms;
        json!({
            "id": budget.id.0, "scope": budget.scope.kind(), "reference": budget.scope.reference(),
            "amount_usd": dollars(terms.amount), "period": terms.period.as_str(), "time_zone": terms.zone.name(),
            "enforcement": terms.enforcement.as_str(), "unpriced": terms.unpriced.as_str(),
            "default_output_tokens": terms.default_output_tokens, "thresholds": terms.thresholds.as_slice(),
            "enabled": terms.enabled, "spent_usd": dollars(spent.spent), "set_aside_usd": dollars(spent.set_aside),
            "period_start": span.start, "resets_at": span.end,
        })
    };
    serde_json::Value::from(rows.iter().map(row).collect::<Vec<_>>()).to_string()
}
