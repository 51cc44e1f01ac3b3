//! What became of a provider's health lately: a strip of time for each credential, and the changes one by one.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use uuid::Uuid;

use super::parts::{self, Tone, pill};
use super::series::float;
use crate::domain::health::{PastChange, Reason, Word};

/// Hours of a strip.
const HOURS: i64 = 48;
/// Changes that are listed; the others are on the strips and in the API.
const LISTED: usize = 20;
/// No stretch is drawn narrower than this share of its strip: what is there can be seen.
const LEAST_WIDTH: f64 = 0.004;

/// A stretch of time in which a provider did not get all traffic.
#[derive(Clone, PartialEq, Debug)]
struct Stretch {
    word: Word,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

/// Where health is kept: which credential, in which region, and whether for all who have no place of their own.
type Place = (Option<String>, Option<String>, bool);

fn place_of(past: &PastChange) -> Place {
    (past.credential.clone(), past.region.clone(), past.shared)
}

fn place_words((credential, region, shared): &Place) -> String {
    let mut words = credential.clone().unwrap_or_else(|| "default".to_owned());
    if let Some(region) = region {
        words.push_str(&format!(" in {region}"));
    }
    if *shared {
        words.push_str(" (shared)");
    }
    words
}

/// The stretches of each place, the oldest first. Changes come newest first; each replica has a health of its own, and what
/// any of them saw is there.
fn stretches(changes: &[PastChange], now: DateTime<Utc>) -> BTreeMap<Place, Vec<Stretch>> {
    let mut places: BTreeMap<Place, Vec<Stretch>> = BTreeMap::new();
    // What each replica saw after the change that is looked at.
    let mut later: BTreeMap<(Place, Uuid), DateTime<Utc>> = BTreeMap::new();
    for past in changes {
        let place = place_of(past);
        let change = &past.change;
        // A replica that wrote nothing more has ended, or nobody has asked since: it is out until the end that was set.
        let open = change.until.map_or(now, |until| until.min(now));
        let to = later.insert((place.clone(), past.replica), change.at).unwrap_or(open);
        let of_place = places.entry(place).or_default();
        if change.to != Word::Passing && to > change.at {
            of_place.push(Stretch {
                word: change.to,
                from: change.at,
                to,
            });
        }
    }
    for of_place in places.values_mut() {
        of_place.sort_by_key(|stretch| stretch.from);
    }
    places
}

fn reason_words(reason: Reason) -> &'static str {
    match reason {
        Reason::FailuresInARow => "several failures in a row",
        Reason::TooManyFailures => "too many failures",
        Reason::TooSlow => "too many slow answers",
        Reason::ProbeFailed => "a probe failed",
        Reason::ProbeLimited => "a probe was rate limited",
        Reason::TimeOver => "its time out was over",
        Reason::ProbeAnswered => "a probe was answered",
    }
}

fn word_pill(word: Word) -> Markup {
    let tone = match word {
        Word::Passing => Tone::Good,
        Word::Probing => Tone::Warn,
        Word::Ejected => Tone::Bad,
    };
    pill(tone, word.as_str())
}

fn strip(name: &str, stretches: &[Stretch], now: DateTime<Utc>) -> Markup {
    let begin = now - TimeDelta::hours(HOURS);
    let length = float(TimeDelta::hours(HOURS).num_milliseconds());
    let share = |at: DateTime<Utc>| (float((at - begin).num_milliseconds()) / length).clamp(0.0, 1.0);
    let seen: Vec<&Stretch> = stretches.iter().filter(|stretch| stretch.to > begin).collect();
    let out: i64 = seen
        .iter()
        .filter(|stretch| stretch.word == Word::Ejected)
        .map(|stretch| (stretch.to - stretch.from.max(begin)).num_seconds())
        .sum();
    let said = match out {
        0 => format!("{name}: never out of rotation in the last {HOURS} hours"),
        seconds => format!(
            "{name}: out of rotation for {} in the last {HOURS} hours",
            super::format::seconds(u64::try_from(seconds).unwrap_or(0))
        ),
    };
    html! {
        li {
            span.step-name { span.strong { (name) } }
            svg.step-bar role="img" aria-label=(said) {
                rect.health-passing width="100%" height="100%" {}
                @for stretch in seen {
                    @let width = (share(stretch.to) - share(stretch.from)).max(LEAST_WIDTH);
                    @let x = share(stretch.from).min(1.0 - width);
                    rect class=(format!("health-{}", stretch.word.as_str())) x=(format!("{:.2}%", x * 100.0)) y="0" width=(format!("{:.2}%", width * 100.0)) height="100%" {}
                }
            }
            span.step-time { (HOURS) " h" }
        }
    }
}

/// The card of a provider's page.
pub(super) fn history(changes: &[PastChange], now: DateTime<Utc>) -> Markup {
    let places = stretches(changes, now);
    let body = html! {
        @if changes.is_empty() {
            (parts::empty("check", "No changes", "It has not been out of rotation in the last 30 days.", html! {}))
        } @else {
            ol.waterfall id="health-strips" { @for (place, stretches) in &places { (strip(&place_words(place), stretches, now)) } }
            p.legend { span.key-passing { "in use" } span.key-probing { "being probed" } span.key-failed { "out of rotation" } }
            div.table-wrap tabindex="0" role="region" aria-label="Health history" {
                table.table id="health-history" {
                    thead { tr { th { "When" } th { "Credential" } th { "Health" } th.wide { "Until" } th { "Why" } } }
                    tbody {
                        @for past in changes.iter().take(LISTED) {
                            tr {
                                td.nowrap { (parts::time(past.change.at)) }
                                td.wrap { (place_words(&place_of(past))) }
                                td.nowrap { span.muted { (past.change.from.as_str()) " → " } (word_pill(past.change.to)) }
                                td.wide.nowrap { (parts::time_or(past.change.until, "—")) }
                                td.wrap { (reason_words(past.change.reason)) }
                            }
                        }
                    }
                }
            }
        }
    };
    parts::card("Health history", html! { span { "as each replica saw it" } }, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::HealthChange;

    fn past(replica: u128, at: i64, from: Word, to: Word, until: Option<i64>) -> PastChange {
        let time = |seconds: i64| DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap();
        PastChange {
            shared: false,
            replica: Uuid::from_u128(replica),
            credential: None,
            region: None,
            change: HealthChange {
                from,
                to,
                until: until.map(time),
                reason: Reason::FailuresInARow,
                at: time(at),
            },
        }
    }

    #[test]
    fn a_stretch_lasts_until_the_replica_saw_another_change_and_the_last_one_until_its_end() {
        let now = DateTime::from_timestamp(1_700_000_100, 0).unwrap();
        // Newest first, as they are read. The second replica ended while it was out.
        let changes = [
            past(1, 40, Word::Probing, Word::Passing, None),
            past(2, 35, Word::Passing, Word::Ejected, Some(60)),
            past(1, 30, Word::Ejected, Word::Probing, None),
            past(1, 10, Word::Passing, Word::Ejected, Some(30)),
        ];
        let found = stretches(&changes, now);
        let of_place = found.values().next().unwrap();
        let shown: Vec<(Word, i64, i64)> = of_place
            .iter()
            .map(|stretch| {
                let second = |at: DateTime<Utc>| at.timestamp() - 1_700_000_000;
                (stretch.word, second(stretch.from), second(stretch.to))
            })
            .collect();
        assert_eq!(
            shown,
            [
                (Word::Ejected, 10, 30),
                (Word::Probing, 30, 40),
                (Word::Ejected, 35, 60)
            ]
        );
    }

    #[test]
    fn where_nothing_happened_that_is_said() {
        let page = history(&[], Utc::now()).into_string();
        assert!(page.contains("It has not been out of rotation") && !page.contains("<svg class=\"step-bar\""));
    }
}
