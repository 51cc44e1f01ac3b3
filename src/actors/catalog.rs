//! Builds the catalogue and publishes it as one immutable snapshot; once a day it says which models are about to retire.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use chrono::{NaiveDate, TimeDelta, Utc};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::Handled;
use crate::config::Settings;
use crate::routing::catalog::Catalog;

const DAILY: Duration = Duration::from_secs(86_400);
/// How long before its end a model is announced as retiring.
const NOTICE: TimeDelta = TimeDelta::days(30);

/// The actor.
pub struct CatalogActor;

/// What it works with.
#[derive(Clone)]
pub struct CatalogArgs {
    /// What is configured, with the providers there are now.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Where the catalogue is published.
    pub catalog: Arc<ArcSwap<Catalog>>,
}

/// What the actor hears.
pub enum CatalogMsg {
    /// A day has passed.
    DayPassed,
    /// Other providers are configured.
    Rebuild,
}

impl Actor for CatalogActor {
    type Msg = CatalogMsg;
    type State = CatalogArgs;
    type Arguments = CatalogArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<CatalogMsg>,
        args: CatalogArgs,
    ) -> Result<CatalogArgs, ActorProcessingErr> {
        myself.send_interval(DAILY, || CatalogMsg::DayPassed);
        publish(&args);
        Ok(args)
    }

    async fn handle(&self, _myself: ActorRef<CatalogMsg>, message: CatalogMsg, args: &mut CatalogArgs) -> Handled {
        match message {
            CatalogMsg::DayPassed | CatalogMsg::Rebuild => publish(args),
        }
        Ok(())
    }
}

/// A way to the catalogue that survives its being started again.
#[derive(Clone, Default)]
pub struct CatalogHandle(Arc<ArcSwapOption<ActorRef<CatalogMsg>>>);

impl CatalogHandle {
    pub(super) fn points_to(&self, actor: ActorRef<CatalogMsg>) {
        self.0.store(Some(Arc::new(actor)));
    }

    /// Has the catalogue built anew. One that is not up yet is built from what there is then.
    pub fn rebuild(&self) {
        if let Some(actor) = self.0.load_full() {
            let _ = actor.cast(CatalogMsg::Rebuild);
        }
    }
}

fn publish(args: &CatalogArgs) {
    let catalog = Catalog::build(&args.settings.load());
    let today = Utc::now().date_naive();
    let mut retiring: Vec<(&str, NaiveDate)> = catalog
        .deployments()
        .filter_map(|deployment| Some((deployment.id.as_str(), deployment.retires?)))
        .filter(|&(_, date)| date - today <= NOTICE)
        .collect();
    retiring.sort_by_key(|&(_, date)| date);
    if !retiring.is_empty() {
        let list: Vec<String> = retiring.iter().map(|(id, date)| format!("{id} ({date})")).collect();
        tracing::info!(
            models = list.len(),
            "models that retire within 30 days or have retired: {}",
            list.join(", ")
        );
    }
    args.catalog.store(Arc::new(catalog));
}
