//! `/api/gateway/config`: the config in force, its versions, and going back to one.

use chrono::{DateTime, Utc};
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Any;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::Value;

use super::Section;
use super::auth::{May, ReadConfig, WriteConfig};
use super::examples::example;
use super::page::page;
use super::problem::{Read, Refusal, Refused, Replace, Restore};
use super::schema::ConfigDocument;
use crate::domain::config::ConfigVersion;
use crate::domain::difference::differences;

/// Versions of one page.
const PAGE: u64 = 50;

/// The handlers.
pub struct ConfigApi;

/// A config.
#[derive(ApiResponse)]
enum Config {
    /// The document as it was written.
    #[oai(status = 200)]
    Document(
        Json<ConfigDocument>,
        /// Names this version, for `If-Match`: its number in quotes, `"0"` where the organization has no config.
        #[oai(header = "ETag")]
        String,
    ),
}

/// Versions of a config.
#[derive(Object)]
struct Versions {
    /// The versions, newest first.
    data: Vec<Version>,
    /// Where the next page begins, for `cursor`; absent on the last page.
    #[oai(skip_serializing_if_is_none)]
    next_cursor: Option<i64>,
}

/// A version of a config, without its document.
#[derive(Object)]
#[oai(example)]
struct Version {
    /// Its number, from 1.
    version: i64,
    /// Who wrote it: the subject of their token.
    author: String,
    /// When.
    created_at: DateTime<Utc>,
    /// Whether it is in force.
    active: bool,
}

example!(Version, {
    "version": 7, "author": "ada@example.com", "created_at": "2026-11-30T08:15:42Z", "active": true
});

/// What a version of the config changed.
#[derive(Object)]
#[oai(example)]
struct ConfigDiff {
    /// The version.
    version: i64,
    /// The one it is compared with.
    against: i64,
    /// Who wrote it.
    author: String,
    /// When.
    created_at: DateTime<Utc>,
    /// What is different, by its place.
    changes: Vec<ConfigChange>,
}

example!(ConfigDiff, {
    "version": 7, "against": 6, "author": "ada@example.com", "created_at": "2026-11-30T08:15:42Z",
    "changes": [{"pointer": "/strategy", "before": "balanced", "after": "cost-optimized"}]
});

/// Something that is different.
#[derive(Object)]
struct ConfigChange {
    /// Where, as a JSON pointer (RFC 6901).
    pointer: String,
    /// What was there; absent: nothing.
    #[oai(skip_serializing_if_is_none)]
    before: Option<Any<Value>>,
    /// What is there; absent: nothing.
    #[oai(skip_serializing_if_is_none)]
    after: Option<Any<Value>>,
}

#[OpenApi(prefix_path = "/api/gateway/config", tag = "Section::Config")]
impl ConfigApi {
    /// The config in force
    ///
    /// An organization that has written none has an empty one. `ETag` names the version for the next change.
    #[oai(path = "/", method = "get", operation_id = "getConfig")]
    async fn get(&self, may: May<ReadConfig>) -> Result<Config, Refused<Read>> {
        match may.config().await? {
            Some(config) => Ok(shown(&config)?),
            None => Ok(Config::Document(Json(ConfigDocument::empty()), tag(0))),
        }
    }

    /// Replace the config
    ///
    /// The whole document is replaced; what it does not say has its default. It is checked as a whole: unknown members,
    /// conditions that do not compile and names of models or providers that lead nowhere are refused, all faults at
    /// once. Every replica routes by it within a second; requests under way finish by what they began with. The versions
    /// before it are kept.
    #[oai(path = "/", method = "put", operation_id = "putConfig")]
    async fn put(
        &self,
        may: May<WriteConfig>,
        /// The `ETag` of the config that this one replaces, or `*` to replace whatever there is.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        document: Json<ConfigDocument>,
    ) -> Result<Config, Refused<Replace>> {
        let replaces = replaced(if_match.0.as_deref().ok_or_else(Refusal::needs_if_match)?)?;
        Ok(shown(&may.save(&document.0.0, replaces).await?)?)
    }

    /// List versions
    ///
    /// Every config that was ever in force, newest first.
    #[oai(path = "/versions", method = "get", operation_id = "listConfigVersions")]
    async fn versions(
        &self,
        may: May<ReadConfig>,
        /// Versions of one page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<Option<u64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<i64>>,
    ) -> Result<Json<Versions>, Refused<Read>> {
        let limit = limit.0.unwrap_or(PAGE);
        let (found, next_cursor) = page(may.versions(cursor.0, limit + 1).await?, limit, |last| last.version);
        Ok(Json(Versions {
            next_cursor,
            data: found.into_iter().map(listed).collect(),
        }))
    }

    /// One version
    ///
    /// The document as it was written.
    #[oai(path = "/versions/:version", method = "get", operation_id = "getConfigVersion")]
    async fn version(
        &self,
        may: May<ReadConfig>,
        /// Its number.
        version: Path<i64>,
    ) -> Result<Config, Refused<Read>> {
        Ok(shown(&may.version(version.0).await?)?)
    }

    /// What a version changed
    ///
    /// The difference between a version and an earlier one, place by place.
    #[oai(path = "/versions/:version/diff", method = "get", operation_id = "diffConfigVersion")]
    async fn diff(
        &self,
        may: May<ReadConfig>,
        /// Its number.
        version: Path<i64>,
        /// The version it is compared with; 0 is the empty config before the first. Default: the one before.
        #[oai(validator(minimum(value = "0")))]
        against: Query<Option<i64>>,
    ) -> Result<Json<ConfigDiff>, Refused<Read>> {
        let against = against.0.unwrap_or_else(|| version.0.saturating_sub(1));
        let config = may.version(version.0).await?;
        let before = match against {
            0 => Value::Object(serde_json::Map::new()),
            earlier => read(&may.version(earlier).await?)?,
        };
        let changes = differences(&before, &read(&config)?)
            .into_iter()
            .map(|difference| ConfigChange {
                pointer: difference.pointer,
                before: difference.before.map(Any),
                after: difference.after.map(Any),
            });
        Ok(Json(ConfigDiff {
            version: config.version,
            against,
            author: config.author,
            created_at: config.created_at,
            changes: changes.collect(),
        }))
    }

    /// Go back to a version
    ///
    /// Its document is checked like any other and put into force as a new version, so that nothing is lost.
    #[oai(
        path = "/versions/:version/restore",
        method = "post",
        operation_id = "restoreConfigVersion"
    )]
    async fn restore(
        &self,
        may: May<WriteConfig>,
        /// Its number.
        version: Path<i64>,
        /// The `ETag` of the config that it replaces; without it, whatever there is.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Config, Refused<Restore>> {
        let replaces = if_match.0.as_deref().map(replaced).transpose()?.flatten();
        Ok(shown(&may.restore(version.0, replaces).await?)?)
    }
}

/// The version that `If-Match` names; `None`: any.
pub(super) fn replaced(if_match: &str) -> Result<Option<i64>, Refusal> {
    if if_match.trim() == "*" {
        return Ok(None);
    }
    let quoted = if_match
        .trim()
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let version = quoted
        .and_then(|number| number.parse::<i64>().ok())
        .filter(|version| *version >= 0);
    let detail = "If-Match must be an ETag of the config, such as \"3\", or *";
    version.map(Some).ok_or_else(|| Refusal::bad_request(detail))
}

fn read(config: &ConfigVersion) -> Result<Value, Refusal> {
    serde_json::from_str(&config.document).map_err(|_| Refusal::bad_request("this version cannot be read any more"))
}

fn shown(config: &ConfigVersion) -> Result<Config, Refusal> {
    let document = read(config)?;
    Ok(Config::Document(Json(ConfigDocument(document)), tag(config.version)))
}

pub(super) fn tag(version: i64) -> String {
    format!("\"{version}\"")
}

fn listed(version: ConfigVersion) -> Version {
    Version {
        version: version.version,
        author: version.author,
        created_at: version.created_at,
        active: version.active,
    }
}
