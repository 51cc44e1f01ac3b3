//! Who a machine of AWS's is, said to somebody else: a signed question to AWS that is never asked by us.
//!
//! Whoever gets it asks AWS in our place and hears whose keys signed it. It names whom it is meant for in a header that the
//! signature covers, so that nobody else can use it.
//!
//! # Sources
//! AIP-4117, "Determining the subject token in AWS", <https://google.aip.dev/auth/4117>; "Instance metadata categories",
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html>.

use chrono::Utc;
use http::{HeaderMap, Method, Uri};
use serde_json::json;

use super::metadata::Instance;
use super::sigv4::{Signer, TARGET_RESOURCE, Unsigned};
use crate::config::AwsIdentity;
use crate::secrets::cell::TokenSource as _;
use crate::secrets::credential::CredentialError;
use crate::secrets::exchange::sensitive;

/// The question to AWS who we are, signed for `audience` and written as Google takes it for a subject token.
///
/// # Errors
/// The machine has no keys, or no region; the audience is nothing that a header can carry.
pub async fn proof(identity: &AwsIdentity, audience: &str) -> Result<String, CredentialError> {
    let machine = Instance::new(identity.metadata_url.clone())?;
    let region = machine.region().await?;
    let keys = machine.fetch().await?.token;
    let address = identity.verification_url.replace("{region}", &region);
    let uri: Uri = address.parse().map_err(|_| CredentialError::Unreadable)?;
    let mut headers = HeaderMap::new();
    headers.insert(TARGET_RESOURCE, sensitive(audience.to_owned())?);
    let mut request = Unsigned {
        method: &Method::POST,
        uri: &uri,
        headers: &mut headers,
        payload: &[],
    };
    Signer::new(region, "sts").sign(&mut request, &keys, Utc::now())?;
    let mut told = Vec::new();
    for (name, value) in &headers {
        let value = value.to_str().map_err(|_| CredentialError::Unprintable)?;
        told.push(json!({"key": name.as_str(), "value": value}));
    }
    let question = json!({"url": address, "method": "POST", "headers": told}).to_string();
    let encoded: String = url::form_urlencoded::byte_serialize(question.as_bytes()).collect();
    // Spaces as they are written outside of forms, which everybody reads.
    Ok(encoded.replace('+', "%20"))
}
