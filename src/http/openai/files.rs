//! `/v1/files`: what callers upload for batches, and what batches wrote. A key sees its own alone.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method};
use poem::web::Multipart;
use poem::{Body, Endpoint, FromRequest as _, Request, RequestBody, Response};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use uuid::Uuid;

use crate::domain::batch::{Holder, StoredFile};
use crate::domain::error::{BoxError, GatewayError};
use crate::http::HttpState;
use crate::http::auth::CallerKey;
use crate::http::boundary::Arrival;
use crate::http::error;
use crate::http::inference::json as answer;

/// What files may be uploaded for: nothing else here reads any.
const PURPOSES: [&str; 1] = ["batch"];
/// Bytes that are read at a time.
const PIECE: usize = 64 * 1024;
/// How long a caller may send nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a form's field that is not the file.
const MAX_FIELD: u64 = 1_024;
/// Files of one page.
const PAGE: u64 = 100;

macro_rules! endpoint {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name {
            state: Arc<HttpState>,
        }

        impl $name {
            /// The endpoint.
            pub fn new(state: Arc<HttpState>) -> Self {
                Self { state }
            }
        }

        impl Endpoint for $name {
            type Output = Response;

            async fn call(&self, request: Request) -> poem::Result<Response> {
                let arrival = Arrival::of(&request);
                let answer = match CallerKey::check(&self.state, &request, arrival.at).await {
                    Ok(caller) => self.answer(request, holder(&caller)).await,
                    Err(refusal) => Err(refusal),
                };
                Ok(answer.unwrap_or_else(|refusal| error::response(&refusal, arrival.id)))
            }
        }
    };
}

pub(super) use endpoint;

endpoint!(
    /// `POST /v1/files`, and the list.
    Collection
);
endpoint!(
    /// `GET` and `DELETE /v1/files/{id}`.
    One
);
endpoint!(
    /// `GET /v1/files/{id}/content`.
    Content
);

/// Whose files and batches a caller sees.
pub(super) fn holder(caller: &CallerKey) -> Holder {
    let owner = caller.gate().owner();
    Holder {
        organization: owner.organization,
        key: owner.key,
    }
}

/// The database does not do what it should.
pub(super) fn unavailable(error: impl Into<BoxError>) -> GatewayError {
    GatewayError::Internal {
        detail: "a file or a batch could not be read or written".into(),
        source: Some(error.into()),
    }
}

pub(super) fn not_allowed(allowed: &'static str) -> GatewayError {
    GatewayError::MethodNotAllowed { allowed }
}

/// The id in a path, such as `file-…`.
pub(super) fn id_of(request: &Request, prefix: &str, kind: &'static str) -> Result<Uuid, GatewayError> {
    let text = request.raw_path_param("id").unwrap_or_default();
    parse_id(text, prefix).ok_or(GatewayError::NoSuchThing { kind })
}

/// The id of a text such as `file-…`.
pub(super) fn parse_id(text: &str, prefix: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(prefix).filter(|digits| digits.len() == 32)?;
    Uuid::try_parse(digits).ok()
}

/// A file's id as callers see it.
pub(super) fn file_id(id: Uuid) -> String {
    format!("file-{}", id.simple())
}

/// What a list is asked for.
pub(super) struct Page {
    pub(super) limit: u64,
    pub(super) after: Option<Uuid>,
    pub(super) purpose: Option<String>,
}

/// Reads what a list is asked for.
pub(super) fn page(request: &Request, prefix: &str, most: u64) -> Result<Page, GatewayError> {
    let mut page = Page {
        limit: most.min(PAGE),
        after: None,
        purpose: None,
    };
    let query = request.uri().query().unwrap_or_default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
                let problem = || GatewayError::invalid("limit", format!("must be a number from 1 to {most}"));
                page.limit = limit.ok_or_else(problem)?;
            }
            "after" => {
                let problem = || GatewayError::invalid("after", "must be an id of this list");
                page.after = Some(parse_id(&value, prefix).ok_or_else(problem)?);
            }
            "purpose" => page.purpose = Some(value.into_owned()),
            "order" if value != "desc" => {
                return Err(GatewayError::invalid("order", "must be desc: newest first"));
            }
            // As elsewhere under /v1: what is not known is passed over.
            _ => {}
        }
    }
    Ok(page)
}

/// A page in OpenAI's form; `ids` are those of `data`.
pub(super) fn list(data: Vec<Value>, more: bool) -> Response {
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    answer(&json!({
        "object": "list",
        "first_id": id(data.first()),
        "last_id": id(data.last()),
        "has_more": more,
        "data": data,
    }))
}

/// # Source
/// <https://platform.openai.com/docs/api-reference/files/object>
fn shown(file: &StoredFile) -> Value {
    json!({
        "id": file_id(file.id),
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at.timestamp(),
        "expires_at": file.expires_at.timestamp(),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    })
}

impl Collection {
    async fn answer(&self, request: Request, holder: Holder) -> Result<Response, GatewayError> {
        match *request.method() {
            Method::POST => self.upload(request, holder).await,
            Method::GET | Method::HEAD => {
                let page = page(&request, "file-", 10_000)?;
                let store = &self.state.files.store;
                let found = store
                    .files(holder, page.purpose.as_deref(), page.after, page.limit + 1)
                    .await;
                let mut found = found.map_err(unavailable)?;
                let more = found.len() as u64 > page.limit;
                found.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
                Ok(list(found.iter().map(shown).collect(), more))
            }
            _ => Err(not_allowed("GET, POST")),
        }
    }

    /// Takes a form with `purpose` and `file`, in either order. The file is sealed and written while it arrives.
    async fn upload(&self, mut request: Request, holder: Holder) -> Result<Response, GatewayError> {
        let mut body = RequestBody::new(request.take_body());
        let form = Multipart::from_request(&request, &mut body).await;
        let mut form =
            form.map_err(|_| GatewayError::invalid_body("send a form (multipart/form-data) with purpose and file"))?;
        let (mut purpose, mut file) = (None, None);
        let taken = self.take(&mut form, holder, &mut purpose, &mut file).await;
        let checked = taken.and_then(|()| match purpose.as_deref() {
            None => Err(GatewayError::invalid("purpose", "is missing; it must be batch")),
            Some(purpose) if !PURPOSES.contains(&purpose) => Err(GatewayError::invalid(
                "purpose",
                "must be batch: files are for nothing else here",
            )),
            Some(purpose) => Ok(purpose.to_owned()),
        });
        let purpose = match (checked, file.is_some()) {
            (Ok(purpose), true) => purpose,
            (Ok(_), false) => return Err(GatewayError::invalid("file", "is missing")),
            (Err(refusal), _) => {
                if let Some(file) = file
                    && let Err(error) = crate::jobs::files::Writing::abort(file).await
                {
                    tracing::debug!(%error, "what there is of a file is forgotten later");
                }
                return Err(refusal);
            }
        };
        let Some(file) = file else {
            return Err(GatewayError::invalid("file", "is missing"));
        };
        let mut file = file.finish().await.map_err(unavailable)?;
        file.purpose = purpose;
        self.state.files.store.complete_file(&file).await.map_err(unavailable)?;
        Ok(answer(&shown(&file)))
    }

    async fn take(
        &self,
        form: &mut Multipart,
        holder: Holder,
        purpose: &mut Option<String>,
        file: &mut Option<crate::jobs::files::Writing>,
    ) -> Result<(), GatewayError> {
        let broken = || GatewayError::invalid_body("the form ended before it was complete, or is none");
        loop {
            let next = timeout(PATIENCE, form.next_field())
                .await
                .map_err(|_| GatewayError::TooSlow)?;
            let Some(field) = next.map_err(|_| broken())? else {
                return Ok(());
            };
            let (name, filename) = (
                field.name().unwrap_or_default().to_owned(),
                field.file_name().map(ToOwned::to_owned),
            );
            let mut reader = field.into_async_read();
            if name != "file" {
                // Other fields (expires_after) are OpenAI's and change nothing here.
                let mut text = String::new();
                let read = timeout(PATIENCE, (&mut reader).take(MAX_FIELD).read_to_string(&mut text)).await;
                read.map_err(|_| GatewayError::TooSlow)?.map_err(|_| broken())?;
                if name == "purpose" {
                    *purpose = Some(text);
                }
                continue;
            }
            if file.is_some() {
                return Err(GatewayError::invalid("file", "is there twice"));
            }
            let filename = filename.unwrap_or_else(|| "upload.jsonl".to_owned());
            let filename: String = filename.chars().take(255).collect();
            let begun = self
                .state
                .files
                .begin(holder, "", &filename)
                .await
                .map_err(unavailable)?;
            let writing = file.insert(begun);
            let (mut piece, mut bytes) = (vec![0; PIECE], 0_u64);
            loop {
                let read = timeout(PATIENCE, reader.read(&mut piece)).await;
                let read = read.map_err(|_| GatewayError::TooSlow)?.map_err(|_| broken())?;
                if read == 0 {
                    break;
                }
                bytes += read as u64;
                let most = self.state.settings.batches.max_file_bytes;
                if bytes > most {
                    let limit_bytes = usize::try_from(most).unwrap_or(usize::MAX);
                    return Err(GatewayError::TooLarge { limit_bytes });
                }
                writing.write(&piece[..read]).await.map_err(unavailable)?;
            }
        }
    }
}

impl One {
    async fn answer(&self, request: Request, holder: Holder) -> Result<Response, GatewayError> {
        let id = id_of(&request, "file-", "file")?;
        let store = &self.state.files.store;
        match *request.method() {
            Method::GET | Method::HEAD => {
                let file = store.file(holder, id).await.map_err(unavailable)?;
                let file = file.ok_or(GatewayError::NoSuchThing { kind: "file" })?;
                Ok(answer(&shown(&file)))
            }
            Method::DELETE => match store.delete_file(holder, id).await.map_err(unavailable)? {
                true => Ok(answer(&json!({"id": file_id(id), "object": "file", "deleted": true}))),
                false => Err(GatewayError::NoSuchThing { kind: "file" }),
            },
            _ => Err(not_allowed("GET, DELETE")),
        }
    }
}

impl Content {
    /// The bytes, piece by piece: no more than one is opened at a time.
    async fn answer(&self, request: Request, holder: Holder) -> Result<Response, GatewayError> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(not_allowed("GET"));
        }
        let id = id_of(&request, "file-", "file")?;
        let file = self.state.files.store.file(holder, id).await.map_err(unavailable)?;
        let file = file.ok_or(GatewayError::NoSuchThing { kind: "file" })?;
        let files = self.state.files.clone();
        let pieces = futures_util::stream::try_unfold(0, move |number| {
            let (files, file) = (files.clone(), file.clone());
            async move {
                let piece = files.piece(&file, number).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(piece.map(|piece| (bytes::Bytes::from(piece), number + 1)))
            }
        });
        let mut response = Response::builder().body(Body::from_bytes_stream(pieces));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }
}
