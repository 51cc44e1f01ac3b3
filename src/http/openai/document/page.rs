//! The documentation page: Scalar, from the copy that poem-openapi carries, without a word to the outside.
//!
//! As it comes, Scalar fetches its fonts from its maker's servers, and offers a request proxy and a hosted client
//! there. Three things prevent that, each enough by itself: the configuration switches all of it off, the script no
//! longer knows the addresses, and the content security policy lets the page talk to its own origin only.

use poem_openapi::OpenApiService;
use serde_json::json;

use super::{Inference, SPECIFICATION_PATH, TITLE, security};

/// The hosts that Scalar's script could ask for something (fonts, a proxy, a client, an example), and names in their
/// place that can never resolve (RFC 2606).
const FOREIGN_HOSTS: [(&str, &str); 2] = [("scalar.com", "scalar.invalid"), ("cdn.jsdelivr.net", "cdn.invalid")];

/// Where Scalar has no name for one of several alternatives, it shows the first key of the schema, which is always
/// `type`. Its value says more.
pub const ALTERNATIVE_WITHOUT_NAME: (&str, &str) = (
    "return Object.keys(e)[0] } return null",
    r#"return e.title || e.type || "any" } return null"#,
);

/// Scalar needs inline scripts and styles: all of it is in the page.
const CONTENT_SECURITY_POLICY: &str = "\
    default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'";

/// System fonts in place of the downloaded ones, no link to a page that is out of reach, and names of alternatives that
/// stay inside their column.
const STYLE: &str = "\
    :root { --scalar-font: system-ui, sans-serif; --scalar-font-code: ui-monospace, 'Liberation Mono', monospace; } \
    a[href*='scalar.invalid'] { display: none; } \
    .discriminator-tab-list > div { flex-wrap: wrap; }";

/// The page of the inference API.
pub fn docs_page() -> String {
    page_of(TITLE, SPECIFICATION_PATH)
}

/// The page of a document, which it loads from `path`.
///
/// It is 3 MB long, nearly all of it Scalar, and always the same: build it once, and let it be compressed and cached.
/// Its button to test a request works where the document's server is the page's own origin.
pub fn page_of(title: &str, path: &str) -> String {
    let configuration = json!({
        "withDefaultFonts": false,
        "hideClientButton": true,
        "hideModels": true,
        "authentication": { "preferredSecurityScheme": security::BEARER },
        "defaultHttpClient": { "targetKey": "shell", "clientKey": "curl" },
        "customCss": STYLE,
    });
    // Inside an attribute in double quotes, these are the two characters that need care.
    let configuration = configuration.to_string().replace('&', "&amp;").replace('"', "&quot;");
    let script = FOREIGN_HOSTS
        .into_iter()
        .chain([ALTERNATIVE_WITHOUT_NAME])
        .fold(scalar(), |script, (theirs, ours)| script.replace(theirs, ours));
    format!(
        r#"<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta http-equiv="content-security-policy" content="{CONTENT_SECURITY_POLICY}">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="referrer" content="no-referrer">
    <title>{title}</title>
    <link rel="icon" href="data:,">
    <style>body {{ margin: 0; }}</style>
  </head>
  <body>
    <noscript>This page needs JavaScript. <a href="{path}">The document it shows</a> does not.</noscript>
    <script id="api-reference" data-url="{path}" data-configuration="{configuration}"></script>
    <script>{script}</script>
  </body>
</html>
"#
    )
}

/// Scalar's script. poem-openapi gives it away only inside a page of its own, as the last element of the body.
fn scalar() -> String {
    let page = OpenApiService::new(Inference, TITLE, "").scalar_html();
    page.split_once(r#"<script charset="UTF-8">"#)
        .and_then(|(_, rest)| rest.rsplit_once("</script>"))
        .map(|(script, _)| script.to_owned())
        .expect("poem-openapi's page holds Scalar as its last script")
}
