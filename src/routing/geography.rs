//! Where Bedrock's inference profiles run, and from which regions they can be called.
//!
//! # Source
//! AWS, "Supported Regions and models for inference profiles".

/// The front of a profile's id, and the beginnings of the regions that may call it.
const GEOGRAPHIES: [(&str, &[&str]); 8] = [
    ("us", &["us-east-", "us-west-"]),
    ("us-gov", &["us-gov-"]),
    ("eu", &["eu-"]),
    ("apac", &["ap-"]),
    ("jp", &["ap-northeast-"]),
    ("au", &["ap-southeast-2", "ap-southeast-4"]),
    ("ca", &["ca-"]),
    ("in", &["ap-south-"]),
];

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

fn regions_of(model: &str) -> Option<&'static [&'static str]> {
    let (front, _) = model.split_once('.')?;
    GEOGRAPHIES
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
}
