//! What pages load: style, scripts and Plotly, all from this binary and under names that change with their bytes.
//!
//! Each is compressed when somebody first asks for it, and browsers keep it for good.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use poem::{Request, Response};
use sha2::{Digest as _, Sha256};

use crate::domain::key::hex;

/// Where they are.
const BASE: &str = "/gateway/assets/";
/// Digits of a hash that are part of a name.
const HASH_DIGITS: usize = 16;
/// Plotly's JavaScript.
const PLOTLY: &str = "plotly.js";

/// Every file of ours. A script comes after those it imports, whose names in it are replaced with hashed ones.
pub const ASSETS: &[&str] = &[
    "dashboard.css",
    "icon.svg",
    "theme.js",
    "kit.js",
    "charts.js",
    "keys.js",
    "budgets.js",
    "once.js",
    "providers.js",
    "routing.js",
    "webhooks.js",
    "playground.js",
];

/// Their bytes. A build for development reads them when it starts, so that a change of a style needs no compiler.
#[derive(rust_embed::RustEmbed)]
#[folder = "src/http/dashboard/assets"]
struct Files;

/// A file as it is served.
struct Asset {
    name: String,
    kind: &'static str,
    plain: Bytes,
    packed: LazyLock<Bytes, Box<dyn FnOnce() -> Bytes + Send + Sync>>,
}

impl Asset {
    fn new(name: &str, text: Bytes) -> Self {
        let hash = hex(&Sha256::digest(&text));
        let (stem, kind) = name.rsplit_once('.').unwrap_or((name, "bin"));
        let plain = text.clone();
        Self {
            name: format!("{stem}.{}.{kind}", &hash[..HASH_DIGITS]),
            kind: match kind {
                "css" => "text/css; charset=utf-8",
                "js" => "text/javascript; charset=utf-8",
                "svg" => "image/svg+xml",
                _ => "application/octet-stream",
            },
            plain,
            packed: LazyLock::new(Box::new(move || gzip(&text))),
        }
    }
}

/// All, by their own names.
static SERVED: LazyLock<HashMap<&'static str, Asset>> = LazyLock::new(|| {
    let mut served: HashMap<&'static str, Asset> = HashMap::new();
    for name in ASSETS {
        let file = Files::get(name).map(|file| file.data.into_owned()).unwrap_or_default();
        let mut text = String::from_utf8(file).unwrap_or_default();
        for (own, asset) in &served {
            text = text.replace(&format!("\"./{own}\""), &format!("\"{BASE}{}\"", asset.name));
        }
        served.insert(name, Asset::new(name, text.into()));
    }
    served.insert(PLOTLY, Asset::new(PLOTLY, plotly().into()));
    served
});

/// Plotly's JavaScript, out of the element that its crate has it in. The second element there is MathJax, which draws
/// formulas that we have none of.
fn plotly() -> String {
    let elements = plotly::Plot::offline_js_sources();
    let script = elements.split_once('>').map_or("", |(_, rest)| rest);
    // The library says `</script>` nowhere: it could not be in an element otherwise.
    script.split("</script>").next().unwrap_or_default().to_owned()
}

fn gzip(plain: &Bytes) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 3), Compression::new(6));
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything").into()
}

/// The URL of a file, by its own name.
pub fn url(name: &str) -> String {
    SERVED
        .get(name)
        .map_or_else(|| format!("{BASE}{name}"), |asset| format!("{BASE}{}", asset.name))
}

/// The URL of Plotly, which scripts load where there is a chart.
pub fn plotly_url() -> String {
    url(PLOTLY)
}

/// `/gateway/assets/:name`.
pub async fn serve(request: Request) -> Response {
    let name = request.raw_path_param("name").unwrap_or_default().to_owned();
    let packs = request.headers().get_all(ACCEPT_ENCODING).iter();
    let takes_gzip = packs
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.split(';').next().map(str::trim) == Some("gzip"));
    // Compressing Plotly takes a third of a second, once: too long for a thread that others wait for.
    let served = tokio::task::spawn_blocking(move || answer(&name, takes_gzip)).await;
    served.unwrap_or_else(|_| Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).finish())
}

fn answer(name: &str, takes_gzip: bool) -> Response {
    let Some(asset) = SERVED.values().find(|asset| asset.name == name) else {
        return Response::builder().status(StatusCode::NOT_FOUND).finish();
    };
    let mut response = Response::builder().content_type(asset.kind).finish();
    let headers = response.headers_mut();
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if takes_gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.set_body(LazyLock::force(&asset.packed).clone());
    } else {
        response.set_body(asset.plain.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_import_what_there_is() {
        for name in ASSETS {
            let asset = &SERVED[name];
            assert!(!asset.plain.is_empty(), "{name}");
            let text = std::str::from_utf8(&asset.plain).unwrap();
            assert!(!text.contains("from \"./"), "{name} imports what comes after it");
            assert!(url(name).starts_with("/gateway/assets/") && url(name) != format!("{BASE}{name}"));
        }
    }

    /// A media query and an attribute cannot share one rule, so the dark theme stands twice.
    #[test]
    fn dark_is_the_same_whether_it_is_chosen_or_the_systems() {
        let sheet = std::str::from_utf8(&SERVED["dashboard.css"].plain).unwrap();
        let rule = |selector: &str| {
            let (_, rest) = sheet.split_once(selector).unwrap();
            let (rule, _) = rest.split_once('}').unwrap();
            rule.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n")
        };
        let chosen = rule(":root[data-theme=\"dark\"] {");
        assert!(chosen.contains("--bg:"));
        assert_eq!(chosen, rule(":root:not([data-theme=\"light\"]) {"));
    }

    #[test]
    fn plotly_is_a_script_and_nothing_else() {
        let text = plotly();
        assert!(text.contains("plotly.js v") && text.len() > 1_000_000);
        assert!(!text.contains("MathJax-script") && !text.trim_start().starts_with('<'));
    }
}
