//! Pictures and documents that a request names by address, fetched for a provider that fetches nothing itself.
//!
//! They are fetched once for a request, however many attempts it takes, and only when an attempt needs them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::Pipeline;
use crate::chat::conversation::MediaKind;
use crate::chat::media::MediaType;
use crate::domain::call::ErrorClass;
use crate::providers::adapter::{Failure, Fetched, MediaLibrary, Wanted};
use crate::upstream::fetcher::FetchError;

/// Addresses that one request may have fetched. Providers take about twenty pictures.
const MAX_ADDRESSES: usize = 20;
/// Fetches of one request that are under way at the same time.
const AT_ONCE: usize = 4;

impl Pipeline {
    /// Fetches what an adapter wants into the request's library.
    pub(super) async fn fetch(&self, wanted: Vec<Wanted>, library: &mut MediaLibrary) -> Result<(), Failure> {
        if let Some(one_too_many) = wanted.get(MAX_ADDRESSES) {
            let problem = format!("is one address too many; the gateway fetches {MAX_ADDRESSES} for a request");
            return Err(refused(one_too_many, problem));
        }
        let mut fetched = futures_util::stream::iter(wanted)
            .map(|wanted| async move {
                let kinds: &[MediaType] = match wanted.kind {
                    MediaKind::Image => &MediaType::IMAGES,
                    MediaKind::Document => &MediaType::DOCUMENTS,
                    MediaKind::Audio => return Err(refused(&wanted, "is a recording; send its bytes")),
                };
                match self.fetcher.get(&wanted.url, kinds).await {
                    Ok(medium) => {
                        let fetched = Fetched {
                            media_type: medium.media.as_str().to_owned(),
                            data: STANDARD.encode(&medium.bytes),
                        };
                        Ok((wanted.url, fetched))
                    }
                    Err(FetchError::Busy) => Err(Failure::new(
                        ErrorClass::Shed,
                        "was not asked: the gateway fetches too much at the moment",
                    )),
                    Err(error) => Err(refused(&wanted, error.to_string())),
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some((url, medium)) = fetched.try_next().await? {
            library.insert(url, medium);
        }
        Ok(())
    }
}

/// A fault of the request, unless another provider can fetch the address itself.
fn refused(wanted: &Wanted, problem: impl Into<String>) -> Failure {
    let mut failure = Failure::new(ErrorClass::Unsupported, problem);
    failure.param = Some(wanted.place.to_string());
    failure
}
