//! Which host serves a region of AWS or a location of Google Cloud: the one place that knows.
//!
//! # Sources
//! "Amazon Bedrock endpoints and quotas", <https://docs.aws.amazon.com/general/latest/gr/bedrock.html>; "AWS STS
//! endpoints", <https://docs.aws.amazon.com/general/latest/gr/sts.html>; "Deployments and endpoints",
//! <https://docs.cloud.google.com/vertex-ai/generative-ai/docs/learn/locations>.

use http::Uri;

/// Which of a region's hosts are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AwsHosts {
    /// With validated cryptography.
    pub fips: bool,
    /// With IPv6 besides IPv4.
    pub dual_stack: bool,
}

impl AwsHosts {
    /// Bedrock's runtime:
    ///
    /// | | host |
    /// |---|---|
    /// | plain | `bedrock-runtime.{region}.amazonaws.com` |
    /// | FIPS | `bedrock-runtime-fips.{region}.amazonaws.com` |
    /// | dual-stack | `bedrock-runtime.{region}.api.aws` |
    /// | both | `bedrock-runtime-fips.{region}.api.aws` |
    ///
    /// In China the suffixes are `amazonaws.com.cn` and `api.amazonwebservices.com.cn`.
    pub(super) fn bedrock_runtime(self, region: &str) -> Option<Uri> {
        let service = if self.fips {
            "bedrock-runtime-fips"
        } else {
            "bedrock-runtime"
        };
        https(&format!("{service}.{region}.{}", self.suffix(region)))
    }

    /// The region's own token service; the global one is slower and fails with another region.
    ///
    /// The plain hosts of the government's regions are validated, and have no `-fips` besides.
    pub(super) fn sts(self, region: &str) -> Option<Uri> {
        let validated_already = region.starts_with("us-gov-") && !self.dual_stack;
        let service = if self.fips && !validated_already {
            "sts-fips"
        } else {
            "sts"
        };
        https(&format!("{service}.{region}.{}", self.suffix(region)))
    }

    fn suffix(self, region: &str) -> &'static str {
        match (region.starts_with("cn-"), self.dual_stack) {
            (false, false) => "amazonaws.com",
            (false, true) => "api.aws",
            (true, false) => "amazonaws.com.cn",
            (true, true) => "api.amazonwebservices.com.cn",
        }
    }
}

/// Vertex AI:
///
/// | location | host |
/// |---|---|
/// | `global` | `aiplatform.googleapis.com` |
/// | `us`, `eu` | `aiplatform.{location}.rep.googleapis.com` |
/// | a region | `{region}-aiplatform.googleapis.com` |
pub(super) fn vertex(location: &str) -> Option<Uri> {
    match location {
        "global" => https("aiplatform.googleapis.com"),
        "us" | "eu" => https(&format!("aiplatform.{location}.rep.googleapis.com")),
        region => https(&format!("{region}-aiplatform.googleapis.com")),
    }
}

/// Whether `name` can be a region or a location: it becomes part of a host and of a path.
pub(super) fn is_region(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 40 && name.starts_with(plain) && name.ends_with(plain) && name.chars().all(|c| plain(c) || c == '-')
}

/// The URL of a host; none when the region in it was not checked with [`is_region`].
fn https(host: &str) -> Option<Uri> {
    format!("https://{host}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: Option<Uri>) -> String {
        url.unwrap().host().unwrap().to_owned()
    }

    #[test]
    fn bedrock_has_a_host_for_each_region_and_wish() {
        let wish = |fips, dual_stack| AwsHosts { fips, dual_stack };
        for (region, fips, dual_stack, runtime, sts) in [
            (
                "us-east-1",
                false,
                false,
                "bedrock-runtime.us-east-1.amazonaws.com",
                "sts.us-east-1.amazonaws.com",
            ),
            (
                "us-east-1",
                true,
                false,
                "bedrock-runtime-fips.us-east-1.amazonaws.com",
                "sts-fips.us-east-1.amazonaws.com",
            ),
            (
                "eu-west-3",
                false,
                true,
                "bedrock-runtime.eu-west-3.api.aws",
                "sts.eu-west-3.api.aws",
            ),
            (
                "us-east-1",
                true,
                true,
                "bedrock-runtime-fips.us-east-1.api.aws",
                "sts-fips.us-east-1.api.aws",
            ),
            (
                "us-gov-west-1",
                true,
                false,
                "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
                "sts.us-gov-west-1.amazonaws.com",
            ),
            (
                "cn-north-1",
                false,
                false,
                "bedrock-runtime.cn-north-1.amazonaws.com.cn",
                "sts.cn-north-1.amazonaws.com.cn",
            ),
        ] {
            let hosts = wish(fips, dual_stack);
            assert_eq!(host(hosts.bedrock_runtime(region)), runtime);
            assert_eq!(host(hosts.sts(region)), sts);
        }
    }

    #[test]
    fn vertex_has_a_host_for_each_kind_of_location() {
        assert_eq!(host(vertex("global")), "aiplatform.googleapis.com");
        assert_eq!(host(vertex("eu")), "aiplatform.eu.rep.googleapis.com");
        assert_eq!(host(vertex("us-central1")), "us-central1-aiplatform.googleapis.com");
    }

    #[test]
    fn what_would_leave_the_host_is_no_region() {
        for name in ["", "us-east-1.evil.example", "us east", "US-EAST-1", "-x", "x/", "a@b"] {
            assert!(!is_region(name), "{name}");
        }
        assert!(is_region("us-gov-west-1") && is_region("global") && is_region("europe-west4"));
    }
}
