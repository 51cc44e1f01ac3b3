//! The messages of a conversation, as a client sends them.

use poem_openapi::Object;

use super::{
    schema::{JsonObject, Optional, any_of, tagged, words},
    tool::{ChatCompletionMessageToolCall, FunctionCall},
};

tagged! {
    /// One message of the conversation. Its `role` says who speaks.
    ChatCompletionRequestMessage by "role" {
        "developer" => ChatCompletionDeveloperMessage,
        "system" => ChatCompletionSystemMessage,
        "user" => ChatCompletionUserMessage,
        "assistant" => ChatCompletionAssistantMessage,
        "tool" => ChatCompletionToolMessage,
        "function" => ChatCompletionFunctionMessage,
    }
}

tagged! {
    /// One part of a message. Which parts a message may have depends on its role and on the model.
    ChatCompletionContentPart by "type" {
        "text" => ChatCompletionContentPartText,
        "image_url" => ChatCompletionContentPartImage,
        "input_audio" => ChatCompletionContentPartInputAudio,
        "file" => ChatCompletionContentPartFile,
        "refusal" => ChatCompletionContentPartRefusal,
    }
}

words! {
    RoleDeveloper = "developer";
    RoleSystem = "system";
    RoleUser = "user";
    RoleAssistant = "assistant";
    RoleTool = "tool";
    RoleFunction = "function";

    PartText = "text";
    PartImage = "image_url";
    PartInputAudio = "input_audio";
    PartFile = "file";
    PartRefusal = "refusal";

    ImageDetail = "auto" | "low" | "high" | "original";
    InputAudioFormat = "wav" | "mp3";
    CacheBreakpointMode = "explicit";
}

any_of! {
    TextContent = String | Vec<ChatCompletionContentPartText>;
    MixedContent = String | Vec<ChatCompletionContentPart>;
}

/// Instructions that come before those of the user. Models before o1 call the role `system`; the two are treated alike.
#[derive(Debug, Object)]
pub struct ChatCompletionDeveloperMessage {
    /// Always `developer`.
    role: RoleDeveloper,
    /// Text, or a list of text parts.
    content: TextContent,
    /// Tells apart participants of the same role.
    name: Option<String>,
}

/// Instructions that come before those of the user.
#[derive(Debug, Object)]
pub struct ChatCompletionSystemMessage {
    /// Always `system`.
    role: RoleSystem,
    /// Text, or a list of text parts.
    content: TextContent,
    /// Tells apart participants of the same role.
    name: Option<String>,
}

/// What the user says, shows or hands over.
#[derive(Debug, Object)]
pub struct ChatCompletionUserMessage {
    /// Always `user`.
    role: RoleUser,
    /// Text, or a list of text, image, audio and file parts.
    content: MixedContent,
    /// Tells apart participants of the same role.
    name: Option<String>,
}

/// What the model said before.
#[derive(Debug, Object)]
pub struct ChatCompletionAssistantMessage {
    /// Always `assistant`.
    role: RoleAssistant,
    /// Text, or a list of text and refusal parts. May be absent or null only beside `tool_calls` or `function_call`.
    content: Optional<MixedContent>,
    /// Why the model refused to answer.
    refusal: Optional<String>,
    /// The tools the model called. A `tool` message must answer each of them before the next message of another role.
    tool_calls: Option<Vec<ChatCompletionMessageToolCall>>,
    /// The function the model called. Use `tool_calls`.
    #[oai(deprecated)]
    function_call: Optional<FunctionCall>,
    /// An earlier spoken answer of the model.
    audio: Optional<ChatCompletionAudioReference>,
    /// The thoughts of an earlier answer, as they came in it.
    thinking_blocks: Option<Vec<JsonObject>>,
    /// Tells apart participants of the same role.
    name: Option<String>,
}

/// The result of one tool call.
#[derive(Debug, Object)]
pub struct ChatCompletionToolMessage {
    /// Always `tool`.
    role: RoleTool,
    /// Text, or a list of text parts. Image parts are passed on to providers that take them.
    content: MixedContent,
    /// The `id` of the call that this answers.
    tool_call_id: String,
}

/// The result of a function call. Use a `tool` message.
#[derive(Debug, Object)]
#[oai(deprecated)]
pub struct ChatCompletionFunctionMessage {
    /// Always `function`.
    role: RoleFunction,
    /// The result.
    content: Optional<String>,
    /// The function that was called.
    name: String,
}

/// An earlier spoken answer of the model.
#[derive(Debug, Object)]
pub struct ChatCompletionAudioReference {
    /// The `audio.id` of that answer.
    id: String,
}

/// Text.
#[derive(Debug, Object)]
pub struct ChatCompletionContentPartText {
    /// Always `text`.
    r#type: PartText,
    /// The text.
    text: String,
    /// Everything up to here should be cached by the provider.
    prompt_cache_breakpoint: Option<PromptCacheBreakpoint>,
}

/// An image.
#[derive(Debug, Object)]
pub struct ChatCompletionContentPartImage {
    /// Always `image_url`.
    r#type: PartImage,
    /// Where the image is.
    image_url: ImageUrl,
    /// Everything up to here should be cached by the provider.
    prompt_cache_breakpoint: Option<PromptCacheBreakpoint>,
}

/// Where an image is, and how closely to look at it.
#[derive(Debug, Object)]
pub struct ImageUrl {
    /// A URL, or the image itself as a data URI (`data:image/png;base64,…`).
    url: String,
    /// How closely to look; more detail costs more tokens. Default `auto`.
    detail: Option<ImageDetail>,
}

/// Recorded sound.
#[derive(Debug, Object)]
pub struct ChatCompletionContentPartInputAudio {
    /// Always `input_audio`.
    r#type: PartInputAudio,
    /// The recording.
    input_audio: InputAudio,
    /// Everything up to here should be cached by the provider.
    prompt_cache_breakpoint: Option<PromptCacheBreakpoint>,
}

/// A recording.
#[derive(Debug, Object)]
pub struct InputAudio {
    /// The recording in base64.
    data: String,
    /// The format of the recording.
    format: InputAudioFormat,
}

/// A document.
#[derive(Debug, Object)]
pub struct ChatCompletionContentPartFile {
    /// Always `file`.
    r#type: PartFile,
    /// The document, either itself or by reference.
    file: InputFile,
    /// Everything up to here should be cached by the provider.
    prompt_cache_breakpoint: Option<PromptCacheBreakpoint>,
}

/// A document: `file_data` with a `filename`, or the `file_id` of an uploaded file.
#[derive(Debug, Object)]
pub struct InputFile {
    /// The name of the file.
    filename: Option<String>,
    /// The file itself as a data URI (`data:application/pdf;base64,…`).
    file_data: Option<String>,
    /// The id of a file that was uploaded before.
    file_id: Option<String>,
}

/// The model's refusal to answer.
#[derive(Debug, Object)]
pub struct ChatCompletionContentPartRefusal {
    /// Always `refusal`.
    r#type: PartRefusal,
    /// What the model said.
    refusal: String,
}

/// The end of a prefix that the provider should cache.
#[derive(Debug, Object)]
pub struct PromptCacheBreakpoint {
    /// Always `explicit`.
    mode: CacheBreakpointMode,
}
