//! Endpoints that speak OpenAI's format, under an id that people choose.

use http::Uri;

use super::ProviderKind;
use super::form::{API_KEY, Form, Secret};
use crate::config::KnownDialect;
use crate::config::checks;
use crate::config::faults::{Fault, did_you_mean, nearest};

pub(super) const KEYS: [&str; 4] = ["base_url", "dialect", "api_key_env", "api_key_file"];

/// OpenAI's format without anything of a vendor: the dialect of a provider that names none and whose id is none.
const PLAIN_DIALECT: &str = "openai";

pub(super) fn read(id: &str, form: &mut Form<'_>) -> Option<ProviderKind> {
    let dialect = dialect(id, form);
    let stated = form.url("base_url", &[]);
    let is_stated = !matches!(stated, Ok(None));

    // Without being told to, a vendor's key goes to that vendor only, not to wherever `base_url` points; an id that is
    // the vendor's name says that whatever is there stands in for the vendor.
    let usual = dialect
        .filter(|dialect| dialect.name == id || !is_stated)
        .and_then(|dialect| dialect.api_key_variable);
    if let Some(variable) = dialect.and_then(|dialect| dialect.api_key_variable)
        && usual.is_none()
        && !form.states(&[API_KEY.variable, API_KEY.file])
        && form.peek(&[variable]).is_some()
    {
        form.warnings.push(format!(
            "{}: {variable} is not sent to a base_url of one's own unless api_key_env names it",
            form.path
        ));
    }
    let api_key = match form.secret(&API_KEY, usual.as_slice()) {
        Secret::Found(key) => Some(Some(key)),
        Secret::Absent => Some(None),
        Secret::Faulty => None,
    };
    let vendor = dialect.and_then(|dialect| dialect.base_url).map(Uri::from_static);
    if let (Ok(None), None, Some(_)) = (&stated, &vendor, dialect) {
        let fault = Fault::new(form.at("base_url"), "the endpoint's URL is missing");
        let write = "write one such as https://api.example.com/v1".to_owned();
        // The table may also be there because a known provider's id is misspelt.
        let known = form.surroundings.dialects.iter().map(|dialect| dialect.name);
        let near = nearest(id, known.chain(super::NATIVE)).filter(|near| *near != id);
        form.missing.push(fault.hint(match near {
            Some(near) => format!("{write}; or did you mean [providers.{near}]?"),
            None => write,
        }));
    }
    // A vendor's own endpoint wants a key; one on this machine or written by hand may have none.
    if let (Some(vendor), Some(None)) = (&vendor, &api_key)
        && let Some(variable) = dialect.and_then(|dialect| dialect.api_key_variable)
        && (!is_stated || stated.as_ref().is_ok_and(|stated| stated.as_ref() == Some(vendor)))
        && !checks::is_here(vendor)
    {
        let fault = Fault::new(form.at("api_key_env"), "this provider has no credential");
        let hint = format!("set {variable}, or write api_key_env or api_key_file");
        form.missing.push(fault.hint(hint));
    }
    let base_url = stated.ok()?.or(vendor);
    if let (Some(base_url), Some(Some(_))) = (&base_url, &api_key) {
        form.warn_if_in_the_clear(base_url);
    }
    Some(ProviderKind::Compatible {
        base_url: base_url?,
        dialect: dialect?.name.to_owned(),
        api_key: api_key?,
        guarded: false,
    })
}

/// The dialect that is written, or else the one with the provider's id, or else the plain one.
fn dialect(id: &str, form: &mut Form<'_>) -> Option<KnownDialect> {
    let dialects = form.surroundings.dialects;
    let known = |name: &str| dialects.iter().find(|dialect| dialect.name == name).copied();
    let names = || dialects.iter().map(|dialect| dialect.name);
    let faults_before = form.faults.len();
    let Some(found) = form.text("dialect", &[]) else {
        if form.faults.len() > faults_before {
            return None;
        }
        let implied = known(id).or_else(|| known(PLAIN_DIALECT));
        if implied.is_none() {
            let fault = Fault::new(form.at("dialect"), "an OpenAI-compatible provider needs one");
            form.faults
                .push(fault.hint(format!("write one of {}", names().collect::<Vec<_>>().join(", "))));
        }
        return implied;
    };
    let dialect = known(&found.value);
    if dialect.is_none() {
        let problem = format!("{} is not a dialect", checks::shown(&found.value));
        let hint = did_you_mean(&found.value, names())
            .unwrap_or_else(|| format!("write one of {}", names().collect::<Vec<_>>().join(", ")));
        form.faults.push(Fault::new(found.at, problem).hint(hint));
    }
    dialect
}
