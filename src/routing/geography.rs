//! Where models run: regions of clouds, the geographies they lie in, and Bedrock's inference profiles, which cross
//! regions but stay in a geography.
//!
//! # Source
//! AWS, "Supported Regions and models for inference profiles" and "Regions and Zones"; Google Cloud, "Vertex AI
//! locations".

/// The front of a profile's id, and the beginnings of the regions that may call it.
const PROFILES: [(&str, &[&str]); 8] = [
    ("us", &["us-east-", "us-west-"]),
    ("us-gov", &["us-gov-"]),
    ("eu", &["eu-"]),
    ("apac", &["ap-"]),
    ("jp", &["ap-northeast-"]),
    ("au", &["ap-southeast-2", "ap-southeast-4"]),
    ("ca", &["ca-"]),
    ("in", &["ap-south-"]),
];

/// Beginnings of regions' names and the geographies they lie in. The first that fits counts, so that London and Zurich,
/// which are called `eu-…` and `europe-…`, are not taken for the European Union.
const REGIONS: [(&str, &str); 42] = [
    ("eu-west-2", "uk"),
    ("eu-central-2", "ch"),
    ("eu-", "eu"),
    ("us-gov-", "us-gov"),
    ("us-", "us"),
    ("ca-", "ca"),
    ("mx-", "mx"),
    ("sa-", "sa"),
    ("ap-northeast-1", "jp"),
    ("ap-northeast-3", "jp"),
    ("ap-northeast-2", "kr"),
    ("ap-south-", "in"),
    ("ap-southeast-1", "sg"),
    ("ap-southeast-2", "au"),
    ("ap-southeast-4", "au"),
    ("ap-southeast-6", "nz"),
    ("ap-", "apac"),
    ("af-", "af"),
    ("il-", "il"),
    ("me-", "me"),
    ("cn-", "cn"),
    ("europe-west2", "uk"),
    ("europe-west6", "ch"),
    ("europe-", "eu"),
    ("northamerica-northeast", "ca"),
    ("northamerica-", "mx"),
    ("southamerica-", "sa"),
    ("asia-northeast1", "jp"),
    ("asia-northeast2", "jp"),
    ("asia-northeast3", "kr"),
    ("asia-south", "in"),
    ("asia-southeast1", "sg"),
    ("asia-east1", "tw"),
    ("asia-east2", "hk"),
    ("asia-", "apac"),
    ("australia-", "au"),
    ("africa-", "af"),
    ("us", "us"),
    ("eu", "eu"),
    ("uk", "uk"),
    ("global", GLOBAL),
    ("local", LOCAL),
];

/// Wherever there is room.
pub const GLOBAL: &str = "global";
/// In this process; it leaves no geography.
pub const LOCAL: &str = "local";

/// Whether `region` may call the profile. What has no geography in front can be called from wherever it is.
pub fn is_reachable(model: &str, region: &str) -> bool {
    match regions_of(model) {
        Some(regions) => regions.iter().any(|begin| region.starts_with(begin)),
        None => true,
    }
}

/// Whether the profile stays in the geography of `region`.
pub fn is_near(model: &str, region: &str) -> bool {
    regions_of(model).is_some_and(|regions| regions.iter().any(|begin| region.starts_with(begin)))
}

/// Where a deployment works, given its provider's place: a profile with a geography in front leaves its region.
pub fn place_of<'a>(wire_name: &'a str, provider_place: &'a str) -> &'a str {
    match wire_name.split_once('.') {
        Some((GLOBAL, _)) => GLOBAL,
        Some((front, _)) if PROFILES.iter().any(|(profile, _)| *profile == front) => front,
        _ => provider_place,
    }
}

/// Whether a place is one of those allowed, each a region (`eu-central-1`), a geography (`eu`, `us`, `uk`, …) or
/// `global`. What is in this process is everywhere allowed.
pub fn is_allowed(place: &str, allowed: &[String]) -> bool {
    place == LOCAL
        || allowed
            .iter()
            .any(|entry| entry == place || geography(place).is_some_and(|geography| entry == geography))
}

/// The geography of a place; `None`: nobody knows it.
pub fn geography(place: &str) -> Option<&'static str> {
    // Geographies themselves, the short ones among the profiles included, are their own.
    let profile = PROFILES
        .iter()
        .find(|(front, _)| *front == place)
        .map(|(front, _)| *front);
    profile.or_else(|| {
        let region = REGIONS
            .iter()
            .find(|(begin, _)| match begin.ends_with('-') || begin.len() > 6 {
                true => place.starts_with(begin),
                false => place == *begin,
            });
        region.map(|(_, geography)| *geography)
    })
}

/// Whether a text can be a place: a typing mistake must not shut everything out, or let everything in.
pub fn is_known(place: &str) -> bool {
    geography(place).is_some() || REGIONS.iter().any(|(_, geography)| *geography == place)
}

fn regions_of(model: &str) -> Option<&'static [&'static str]> {
    let (front, _) = model.split_once('.')?;
    PROFILES
        .iter()
        .find(|(geography, _)| *geography == front)
        .map(|&(_, regions)| regions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_called_from_its_own_geography_and_a_global_one_from_everywhere() {
        assert!(is_reachable("eu.amazon.nova-pro-v1:0", "eu-central-1"));
        assert!(!is_reachable("us.amazon.nova-pro-v1:0", "eu-central-1"));
        assert!(!is_reachable("us.amazon.nova-pro-v1:0", "us-gov-west-1"));
        assert!(is_reachable("global.amazon.nova-2-lite-v1:0", "eu-central-1"));
        assert!(is_reachable("amazon.nova-pro-v1:0", "us-east-1"));
        assert!(is_near("jp.anthropic.claude-sonnet-5-5", "ap-northeast-1"));
        assert!(!is_near("global.anthropic.claude-sonnet-5-5", "ap-northeast-1"));
    }

    #[test]
    fn a_deployment_is_where_its_region_is_unless_its_profile_leaves_it() {
        assert_eq!(place_of("amazon.nova-pro-v1:0", "eu-central-1"), "eu-central-1");
        assert_eq!(place_of("eu.amazon.nova-pro-v1:0", "eu-central-1"), "eu");
        assert_eq!(place_of("global.amazon.nova-2-lite-v1:0", "eu-central-1"), "global");
        assert_eq!(place_of("gemini-2.5-flash", "europe-west4"), "europe-west4");
        assert_eq!(place_of("gpt-4.1", "us"), "us", "a dot in a version is no profile");
    }

    #[test]
    fn the_union_is_neither_london_nor_zurich_nor_everywhere() {
        let eu = ["eu".to_owned()];
        for place in ["eu", "eu-central-1", "europe-west4", "eu-north-1", LOCAL] {
            assert!(is_allowed(place, &eu), "{place}");
        }
        for place in [
            "eu-west-2",
            "europe-west2",
            "eu-central-2",
            "europe-west6",
            "us-east-1",
            "us",
            GLOBAL,
            "moon",
        ] {
            assert!(!is_allowed(place, &eu), "{place}");
        }
        assert!(is_allowed("eu-west-2", &["uk".to_owned()]));
        assert!(
            is_allowed("us-gov-west-1", &["us-gov".to_owned()]) && !is_allowed("us-gov-west-1", &["us".to_owned()])
        );
        assert!(is_allowed("ap-northeast-1", &["ap-northeast-1".to_owned()]));
        assert!(is_allowed(GLOBAL, &[GLOBAL.to_owned()]));
    }

    #[test]
    fn what_is_no_place_is_found_out() {
        for place in [
            "eu",
            "us",
            "uk",
            "jp",
            "kr",
            "global",
            "eu-central-1",
            "us-central1",
            "apac",
            "sg",
        ] {
            assert!(is_known(place), "{place}");
        }
        for place in ["", "europe", "EU", "moon", "e", "usa"] {
            assert!(!is_known(place), "{place}");
        }
    }
}
