//! How a call is served beside its model, as far as its price depends on that: OpenAI's and Google's service tiers,
//! Anthropic's fast mode and the geography it is asked to stay in.
//!
//! A provider says in its answer how it served a call, and that decides; a caller's wish does only where the answer is
//! silent. The ledger keeps it behind the version of the price (`openai/gpt-5.5@2026-11-12#1a2b3c4d+priority`), so that a
//! re-pricing charges a past call for the same service.

use serde::{Deserialize, Serialize};

/// How a call is served.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Service {
    /// How soon.
    pub tier: Tier,
    /// Whether it stays within the United States, where that was asked for.
    pub in_us: bool,
}

/// How soon a call is served.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Tier {
    /// As usual.
    #[default]
    Standard,
    /// When there is room.
    Flex,
    /// Before others.
    Priority,
    /// By a faster build of the model.
    Fast,
}

/// What services cost, in percent of the ordinary rates of every kind of token. One that is missing costs the same.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Surcharges {
    /// [`Tier::Flex`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flex: Option<u16>,
    /// [`Tier::Priority`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// [`Tier::Fast`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast: Option<u16>,
    /// [`Service::in_us`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us: Option<u16>,
}

const ALL: u32 = 100;

impl Service {
    /// The wish as it is left to a provider that was not told of these parameters.
    #[must_use]
    pub fn without(self, parameters: &[String]) -> Self {
        let told = |name: &str| !parameters.iter().any(|parameter| parameter == name);
        Self {
            tier: if told("service_tier") && told("speed") {
                self.tier
            } else {
                Tier::Standard
            },
            in_us: self.in_us && told("inference_geo"),
        }
    }

    /// The service that the end of a price's version names.
    pub fn of_version(version: &str) -> Self {
        Self::parted(version).1
    }

    /// A price's version without what [`marks`](Self::marks) has put behind it.
    pub fn bare(version: &str) -> &str {
        Self::parted(version).0
    }

    fn parted(mut version: &str) -> (&str, Self) {
        let mut service = Self::default();
        while let Some((rest, mark)) = version.rsplit_once('+') {
            match mark {
                "flex" => service.tier = Tier::Flex,
                "priority" => service.tier = Tier::Priority,
                "fast" => service.tier = Tier::Fast,
                "us" => service.in_us = true,
                // A plus sign in a model's name.
                _ => break,
            }
            version = rest;
        }
        (version, service)
    }

    /// What stands for it behind the version of a price; empty for the usual one.
    pub fn marks(self) -> String {
        let tier = match self.tier {
            Tier::Standard => "",
            Tier::Flex => "+flex",
            Tier::Priority => "+priority",
            Tier::Fast => "+fast",
        };
        format!("{tier}{}", if self.in_us { "+us" } else { "" })
    }
}

impl Surcharges {
    /// The part of a service that changes a price.
    #[must_use]
    pub fn charged(&self, service: Service) -> Service {
        Service {
            tier: if self.of(service.tier).is_some() {
                service.tier
            } else {
                Tier::Standard
            },
            in_us: service.in_us && self.us.is_some(),
        }
    }

    /// What a service costs, in hundredths of a percent of the ordinary rates.
    pub fn per_myriad(&self, service: Service) -> u32 {
        let tier = self.of(service.tier).map_or(ALL, u32::from);
        let place = self.us.filter(|_| service.in_us).map_or(ALL, u32::from);
        tier * place
    }

    fn of(&self, tier: Tier) -> Option<u16> {
        match tier {
            Tier::Standard => None,
            Tier::Flex => self.flex,
            Tier::Priority => self.priority,
            Tier::Fast => self.fast,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_says_of_a_service_is_read_back() {
        for tier in [Tier::Standard, Tier::Flex, Tier::Priority, Tier::Fast] {
            for in_us in [false, true] {
                let service = Service { tier, in_us };
                let version = format!("anthropic/claude-opus-5.5@2026-11-12#0000aaaa{}", service.marks());
                assert_eq!(Service::of_version(&version), service);
                assert_eq!(Service::bare(&version), "anthropic/claude-opus-5.5@2026-11-12#0000aaaa");
            }
        }
        let of_a_name = "organization/own/my+us#0000aaaa";
        assert_eq!(
            (Service::bare(of_a_name), Service::of_version(of_a_name)),
            (of_a_name, Service::default())
        );
    }

    #[test]
    fn a_provider_that_was_not_told_of_a_wish_serves_as_usual() {
        let wish = Service {
            tier: Tier::Fast,
            in_us: true,
        };
        assert_eq!(wish.without(&["seed".to_owned()]), wish);
        assert_eq!(wish.without(&["speed".to_owned()]).tier, Tier::Standard);
        assert!(!wish.without(&["inference_geo".to_owned()]).in_us);
    }

    #[test]
    fn a_service_that_nobody_charges_for_costs_as_usual_and_leaves_no_mark() {
        let surcharges = Surcharges {
            fast: Some(200),
            us: Some(110),
            ..Surcharges::default()
        };
        let service = |tier, in_us| Service { tier, in_us };
        assert_eq!(surcharges.per_myriad(service(Tier::Fast, true)), 22_000);
        assert_eq!(surcharges.per_myriad(service(Tier::Priority, false)), 10_000);
        assert_eq!(
            surcharges.charged(service(Tier::Priority, true)),
            service(Tier::Standard, true)
        );
        assert_eq!(
            Surcharges::default().charged(service(Tier::Fast, true)),
            Service::default()
        );
    }
}
