//! `/v1/files`.

use poem::http::Method;
use poem_openapi::{
    Object,
    registry::{MetaMediaType, MetaOperationParam, MetaParamIn, MetaSchema, MetaSchemaRef},
    types::{Example, Type},
};
use serde_json::json;

use super::{
    errors, headers,
    operation::{self, Answer, Content, Operation, Sample},
    schema::{example, inline, words},
};
use crate::domain::call::Dialect;

/// The section of the documentation.
pub const TAG: &str = "Files";

/// The upload.
pub fn upload() -> Operation {
    Operation {
        method: Method::POST,
        path: "/v1/files",
        id: "uploadFile",
        tag: TAG,
        summary: "Upload a file",
        description: "Uploads the lines of a batch: a form with `purpose` and `file`. A file is for batches and for \
                      nothing else; it is sealed while it arrives, seen by its key alone, and forgotten after thirty days, \
                      unless configured otherwise.",
        parameters: vec![],
        request: Some(form::<FileUpload>()),
        answer: Answer {
            description: "The file.",
            content: vec![operation::json::<File>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::UPLOAD,
        dialect: Dialect::OpenAi,
        samples: UPLOAD_SAMPLES,
    }
}

/// The list.
pub fn list() -> Operation {
    let mut parameters = page("The files of one page, from 1 to 10000. Default: 100.");
    parameters.push(query("purpose", "Only files for this purpose.", String::schema_ref()));
    Operation {
        method: Method::GET,
        path: "/v1/files",
        id: "listFiles",
        tag: TAG,
        summary: "List the files of this key",
        description: "What this key uploaded and what its batches wrote, newest first.",
        parameters,
        request: None,
        answer: Answer {
            description: "A page of files.",
            content: vec![operation::json::<FileList>()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::LISTING,
        dialect: Dialect::OpenAi,
        samples: LIST_SAMPLES,
    }
}

/// One of them.
pub fn retrieve() -> Operation {
    one(
        Method::GET,
        "retrieveFile",
        "Describe a file",
        "A file of this key.",
        operation::json::<File>(),
        RETRIEVE_SAMPLES,
    )
}

/// Its end.
pub fn delete() -> Operation {
    one(
        Method::DELETE,
        "deleteFile",
        "Delete a file",
        "Deletes a file of this key, with everything in it. A batch that reads it fails.",
        operation::json::<DeletedFile>(),
        DELETE_SAMPLES,
    )
}

/// What is in it.
pub fn content() -> Operation {
    Operation {
        method: Method::GET,
        path: "/v1/files/{id}/content",
        id: "downloadFile",
        tag: TAG,
        summary: "Download a file",
        description: "The bytes of a file of this key: lines of JSON, for what a batch wrote.",
        parameters: vec![id("file-0199d0b6c1e27a33b1f2a35f6b8e0c11", "The file's id.")],
        request: None,
        answer: Answer {
            description: "The file, as it was uploaded or written.",
            content: vec![bytes()],
            headers: vec![headers::request_id()],
        },
        refusals: errors::THING_LOOKUP,
        dialect: Dialect::OpenAi,
        samples: CONTENT_SAMPLES,
    }
}

fn one(
    method: Method,
    name: &'static str,
    summary: &'static str,
    description: &'static str,
    content: Content,
    samples: &'static [Sample],
) -> Operation {
    Operation {
        method,
        path: "/v1/files/{id}",
        id: name,
        tag: TAG,
        summary,
        description,
        parameters: vec![id("file-0199d0b6c1e27a33b1f2a35f6b8e0c11", "The file's id.")],
        request: None,
        answer: Answer {
            description: "The file.",
            content: vec![content],
            headers: vec![headers::request_id()],
        },
        refusals: errors::THING_LOOKUP,
        dialect: Dialect::OpenAi,
        samples,
    }
}

/// An id in the path.
pub(super) fn id(shown: &'static str, description: &str) -> MetaOperationParam {
    MetaOperationParam {
        name: "id".to_owned(),
        schema: String::schema_ref().merge(MetaSchema {
            example: Some(shown.into()),
            ..MetaSchema::ANY
        }),
        in_type: MetaParamIn::Path,
        description: Some(description.to_owned()),
        required: true,
        deprecated: false,
        explode: false,
        style: None,
    }
}

/// What every list can be asked for.
pub(super) fn page(limit: &str) -> Vec<MetaOperationParam> {
    vec![
        query("limit", limit, i64::schema_ref()),
        query(
            "after",
            "The id of the last one of the page before.",
            String::schema_ref(),
        ),
    ]
}

/// A parameter in the query, which may be left out.
pub(super) fn query(name: &str, description: &str, schema: MetaSchemaRef) -> MetaOperationParam {
    MetaOperationParam {
        name: name.to_owned(),
        schema,
        in_type: MetaParamIn::Query,
        description: Some(description.to_owned()),
        required: false,
        deprecated: false,
        explode: true,
        style: None,
    }
}

/// A form whose fields are those of `T`.
fn form<T: Type>() -> Content {
    Content {
        media: MetaMediaType {
            content_type: "multipart/form-data",
            schema: T::schema_ref(),
        },
        register: T::register,
    }
}

/// Bytes of any kind.
fn bytes() -> Content {
    Content {
        media: MetaMediaType {
            content_type: "application/octet-stream",
            schema: inline(MetaSchema::new_with_format("string", "binary")),
        },
        register: |_| {},
    }
}

const UPLOAD_SAMPLES: &[Sample] = &[
    Sample::curl(
        r#"curl "$OPENAI_BASE_URL/files" -H "Authorization: Bearer $OPENAI_API_KEY" \
  -F purpose=batch -F file=@lines.jsonl"#,
    ),
    Sample {
        language: "Python",
        label: "Python",
        source: r#"from openai import OpenAI

file = OpenAI().files.create(purpose="batch", file=open("lines.jsonl", "rb"))
print(file.id)"#,
    },
];

const LIST_SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$OPENAI_BASE_URL/files?limit=20" -H "Authorization: Bearer $OPENAI_API_KEY""#,
)];

const RETRIEVE_SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$OPENAI_BASE_URL/files/$FILE" -H "Authorization: Bearer $OPENAI_API_KEY""#,
)];

const DELETE_SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl -X DELETE "$OPENAI_BASE_URL/files/$FILE" -H "Authorization: Bearer $OPENAI_API_KEY""#,
)];

const CONTENT_SAMPLES: &[Sample] = &[Sample::curl(
    r#"curl "$OPENAI_BASE_URL/files/$FILE/content" -H "Authorization: Bearer $OPENAI_API_KEY" -o answers.jsonl"#,
)];

words! {
    FilePurpose = "batch";
    KnownFilePurpose = "batch" | "batch_output";
    ObjectFile = "file";
    FileStatus = "processed";
    ObjectListOfFiles = "list";
}

/// A file to be uploaded, as the fields of a form.
#[derive(Debug, Object)]
pub struct FileUpload {
    /// What it is for.
    purpose: FilePurpose,
    /// The file: lines of JSON, 100 MiB of them at most, unless configured otherwise.
    #[oai(validator(max_length = 104_857_600))]
    file: String,
}

/// A file of this key.
#[derive(Debug, Object)]
#[oai(example)]
pub struct File {
    /// Its id.
    id: String,
    /// Always `file`.
    object: ObjectFile,
    /// How many bytes it has.
    bytes: i64,
    /// When it was made, in seconds since 1970.
    created_at: i64,
    /// When it is forgotten, in seconds since 1970.
    expires_at: i64,
    /// Its name.
    filename: String,
    /// What it is for: `batch` where it was uploaded, `batch_output` where a batch wrote it.
    purpose: KnownFilePurpose,
    /// Always `processed`.
    status: FileStatus,
}

/// A page of files.
#[derive(Debug, Object)]
#[oai(example)]
pub struct FileList {
    /// Always `list`.
    object: ObjectListOfFiles,
    /// The files, newest first.
    data: Vec<File>,
    /// The id of the first one; null where there is none.
    first_id: super::schema::Nullable<String>,
    /// The id of the last one, for `after`; null where there is none.
    last_id: super::schema::Nullable<String>,
    /// Whether there are more.
    has_more: bool,
}

/// A file that is gone.
#[derive(Debug, Object)]
#[oai(example)]
pub struct DeletedFile {
    /// Its id.
    id: String,
    /// Always `file`.
    object: ObjectFile,
    /// Always true.
    deleted: bool,
}

impl Example for File {
    fn example() -> Self {
        example(json!({
            "id": "file-0199d0b6c1e27a33b1f2a35f6b8e0c11",
            "object": "file",
            "bytes": 2_048,
            "created_at": 1_796_000_000,
            "expires_at": 1_798_592_000,
            "filename": "lines.jsonl",
            "purpose": "batch",
            "status": "processed",
        }))
    }
}

impl Example for FileList {
    fn example() -> Self {
        let file = poem_openapi::types::ToJSON::to_json(&File::example()).unwrap_or_default();
        example(json!({
            "object": "list",
            "data": [file],
            "first_id": "file-0199d0b6c1e27a33b1f2a35f6b8e0c11",
            "last_id": "file-0199d0b6c1e27a33b1f2a35f6b8e0c11",
            "has_more": false,
        }))
    }
}

impl Example for DeletedFile {
    fn example() -> Self {
        example(json!({"id": "file-0199d0b6c1e27a33b1f2a35f6b8e0c11", "object": "file", "deleted": true}))
    }
}
