//! Checks of single values: URLs, what a header can carry, log filters.
//!
//! Each answers what is wrong, in words that never repeat a value which may hold a secret.

use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;

use crate::domain::network;

/// The levels of a log filter.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `value` in quotes for a message: escaped, and cut where nobody would read on. Never for secrets.
pub(super) fn shown(value: &str) -> String {
    const MOST: usize = 60;
    if value.chars().count() <= MOST {
        return format!("{value:?}");
    }
    let start: String = value.chars().take(MOST).collect();
    format!("{start:?}…")
}

/// An `http` or `https` URL to which paths can be appended.
///
/// The problem never quotes the URL: one with user information or a query is the very one that holds a secret.
///
/// # Errors
/// What is wrong with it.
pub fn base_url(text: &str) -> Result<Uri, String> {
    let text = text.trim().trim_end_matches('/');
    let uri: Uri = text
        .parse()
        .map_err(|_| "is not a URL; write one such as https://api.example.com/v1".to_owned())?;
    let Some(scheme) = uri.scheme_str() else {
        return Err("is not a complete URL; it must begin with https:// or http://".to_owned());
    };
    if scheme != "https" && scheme != "http" {
        return Err("must begin with https:// or http://".to_owned());
    }
    let Some(authority) = uri.authority() else {
        return Err("names no host".to_owned());
    };
    if authority.as_str().contains('@') {
        return Err("holds a user name or password; give credentials by their own settings".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("names no host".to_owned());
    }
    // `http::Uri` keeps a port it cannot read as part of the authority.
    let after_host = &authority.as_str()[authority.host().len()..];
    if !after_host.is_empty() && uri.port_u16().is_none_or(|port| port == 0) {
        return Err("names a port that does not exist".to_owned());
    }
    if text.contains(['?', '#']) {
        return Err("must end before any ? or #".to_owned());
    }
    if text.contains('\\') || !text.is_ascii() {
        return Err("holds a character that must be percent-encoded".to_owned());
    }
    Ok(uri)
}

/// [`base_url`] as text, without its last slashes.
pub(super) fn url_text(text: &str) -> Result<String, String> {
    base_url(text).map(|_| text.trim().trim_end_matches('/').to_owned())
}

/// Whether `url`, checked before, would carry a credential unencrypted over a network.
pub(super) fn is_plain_http_elsewhere(url: &Uri) -> bool {
    url.scheme_str() == Some("http") && !is_here(url)
}

/// Whether `url`, checked before, names this machine.
pub(super) fn is_here(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    // An address, not any name that begins so: 127.example.com is somewhere else.
    let bare = host.trim_matches(['[', ']']);
    let loopback = bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    host.eq_ignore_ascii_case("localhost") || loopback
}

/// A network such as `10.0.0.0/8`, or one address. The error says how to write one.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    network::read(text).map_err(|hint| format!("{hint}; commas stand between several"))
}

/// A port that can be connected to. The error says how to write one.
pub(super) fn port(text: &str) -> Result<u16, String> {
    let read = text.parse().ok().filter(|port: &u16| *port != 0);
    read.ok_or_else(|| "write ports from 1 to 65535, with commas between them".to_owned())
}

/// Whether `text` is visible ASCII without spaces: what a header, a query and a path can carry unchanged.
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The first part of a log filter that is neither a level nor `target=level`.
///
/// Parts with brackets (spans and fields) are left to the logger. A bare target is refused although the logger takes
/// it, because it takes a misspelt level the same way and then logs nothing.
pub(super) fn wrong_log_directive(filter: &str) -> Option<&str> {
    if filter.contains(['[', '{']) {
        return None;
    }
    filter.split(',').map(str::trim).find(|part| {
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        let level = level.to_ascii_lowercase();
        part.starts_with('=') || !LOG_LEVELS.contains(&level.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_loses_its_last_slashes() {
        let url = url_text(" https://api.example.com/v1// ");
        assert_eq!(url.unwrap(), "https://api.example.com/v1");
        assert_eq!(base_url("https://api.example.com/v1/").unwrap().path(), "/v1");
        assert_eq!(base_url("http://[::1]:9000").unwrap().port_u16(), Some(9000));
        assert_eq!(base_url("HTTPS://x.example").unwrap().scheme_str(), Some("https"));
    }

    #[test]
    fn what_is_not_a_base_url_is_refused_with_its_reason() {
        for (url, reason) in [
            ("", "not a URL"),
            ("api.example.com", "complete"),
            ("api.example.com/v1", "not a URL"),
            ("localhost:9000", "complete"),
            ("/v1", "complete"),
            ("ftp://example.com", "https://"),
            ("https://", "complete"),
            ("https://:443/v1", "no host"),
            ("https://user:hunter2@example.com", "password"),
            ("https://example.com/v1?key=hunter2", "?"),
            ("https://example.com/#top", "#"),
            ("https://example.com:99999", "port"),
            ("https://example.com:x", "port"),
            ("https://exa mple.com", "not a URL"),
            ("https://example.com/ü", "percent"),
        ] {
            let problem = base_url(url).expect_err(url);
            assert!(problem.contains(reason), "{url}: {problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn plain_http_matters_only_off_this_machine() {
        assert!(is_plain_http_elsewhere(&Uri::from_static("http://models.example")));
        assert!(!is_plain_http_elsewhere(&Uri::from_static("https://models.example")));
        assert!(!is_plain_http_elsewhere(&Uri::from_static("http://localhost:9000")));
        assert!(!is_plain_http_elsewhere(&Uri::from_static("http://127.0.0.1:9000/v1")));
        assert!(!is_plain_http_elsewhere(&Uri::from_static("http://[::1]:9000")));
        assert!(is_plain_http_elsewhere(&Uri::from_static("http://127.example.com")));
    }

    #[test]
    fn a_misspelt_log_level_is_found() {
        assert_eq!(wrong_log_directive("info,bonito=debug"), None);
        assert_eq!(wrong_log_directive("WARN, bonito::http=off"), None);
        assert_eq!(wrong_log_directive("[span]=trace"), None);
        assert_eq!(wrong_log_directive("ingo"), Some("ingo"));
        assert_eq!(wrong_log_directive("info,bonito=debgu"), Some("bonito=debgu"));
        assert_eq!(wrong_log_directive("info,"), Some(""));
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert!(shown(&"x".repeat(200)).chars().count() < 70);
    }
}
