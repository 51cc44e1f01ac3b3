//! `GET /v1/key`: what the caller's own key is and may do. Never another's, and never its secret.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use poem::Response;
use serde_json::{Value, json};

use super::lookup::{Asked, lookup};
use crate::cluster::Look;
use crate::domain::budget::BudgetScope;
use crate::domain::error::GatewayError;
use crate::domain::limit::LimitKind;
use crate::domain::money::NanoUsd;
use crate::gates::budgets::BudgetStanding;
use crate::http::inference::json as answer;

lookup!(
    /// The endpoint.
    Own
);

impl Own {
    async fn answer(&self, asked: Asked<'_>) -> Result<Response, GatewayError> {
        let gate = asked.caller.gate();
        let row = &gate.row;
        let team = row
            .team
            .as_ref()
            .map(|team| json!({"id": team.id.0, "slug": team.slug, "name": team.name}));
        // The rest is worth knowing also while the database is down.
        let spend = match self.state.spend.of_key(row.id).await {
            Ok(spend) => Value::from(spend.to_string()),
            Err(error) => {
                tracing::warn!(key = %row.id, %error, "what a key has spent cannot be found out");
                Value::Null
            }
        };
        let standings = self
            .state
            .pipeline
            .budgets
            .standing(&gate.budgets, asked.arrival.at)
            .await;
        let budgets: Vec<Value> = standings.iter().map(budget).collect();
        let pipeline = &self.state.pipeline;
        let looks = pipeline.limiter.look(&pipeline.all_limits(gate)).await;
        let now = Utc::now();
        let limits: Vec<Value> = looks.iter().map(|look| limit(look, now)).collect();
        Ok(answer(&json!({
            "object": "key",
            "id": row.id.0,
            "name": row.name,
            "prefix": row.prefix,
            "organization": {
                "id": row.organization.id.0, "slug": row.organization.slug, "name": row.organization.name,
            },
            "team": team,
            "allowed_models": {"models": row.scope.models(), "providers": row.scope.providers()},
            "rate_limit": row.rate_limit,
            "parameter_policy": self.state.pipeline.parameters_of(gate).as_str(),
            "cache_seconds": row.cache_ttl.map(|ttl| ttl.as_secs()),
            "max_output_tokens": row.max_output_tokens,
            "limits": limits,
            "spend_usd": spend,
            "budgets": budgets,
            "expires_at": time(row.expires_at),
            "metadata": row.metadata,
            "created_at": time(Some(row.created_at)),
            "last_used_at": time(gate.last_used().or(row.last_used_at)),
        })))
    }
}

fn budget(standing: &BudgetStanding) -> Value {
    let terms = &standing.budget.terms;
    let remaining = standing.spent.map(|spent| {
        let taken = spent.0.saturating_add(standing.reserved.0);
        NanoUsd(terms.amount.0.saturating_sub(taken).max(0))
    });
    let scope = &standing.budget.scope;
    let reference = match scope {
        // The caller's own, which is named above.
        BudgetScope::Organization | BudgetScope::Team(_) | BudgetScope::Key(_) => Value::Null,
        BudgetScope::Tag(_) | BudgetScope::Provider(_) | BudgetScope::Model(_) => scope.reference().into(),
    };
    json!({
        "id": standing.budget.id.0,
        "scope": scope.kind(),
        "name": reference,
        "amount_usd": terms.amount.to_string(),
        "period": terms.period.as_str(),
        "time_zone": terms.zone.name(),
        "enforcement": terms.enforcement.as_str(),
        "enabled": terms.enabled,
        "spent_usd": standing.spent.map(|spent| spent.to_string()),
        "reserved_usd": standing.reserved.to_string(),
        "remaining_usd": remaining.map(|remaining| remaining.to_string()),
        "resets_at": time(standing.span.end),
    })
}

/// One limit and where it stands. Everything is left of it at `resets_at`; requests under way have no such time.
fn limit(look: &Look, now: DateTime<Utc>) -> Value {
    let Look { scope, kind, standing } = look;
    let resets_at = match kind {
        LimitKind::Concurrency => None,
        _ => now.checked_add_signed(TimeDelta::from_std(standing.resets_in).unwrap_or_default()),
    };
    json!({
        "scope": scope.owner.word(),
        "name": scope.owner.name(),
        "model": scope.model,
        "limit": kind.as_str(),
        "value": standing.limit,
        "remaining": standing.remaining,
        "resets_at": time(resets_at),
    })
}

fn time(time: Option<DateTime<Utc>>) -> Value {
    time.map_or(Value::Null, |time| {
        time.to_rfc3339_opts(SecondsFormat::Micros, true).into()
    })
}
