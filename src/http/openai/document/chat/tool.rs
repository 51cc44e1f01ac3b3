//! Tools: what a client offers, what it asks the model to choose, and what the model calls.

use poem_openapi::Object;

use super::schema::{JsonObject, Optional, any_of, tagged, words};

tagged! {
    /// A tool that the model may call.
    ChatCompletionTool by "type" {
        "function" => ChatCompletionFunctionTool,
        "custom" => ChatCompletionCustomTool,
    }
}

tagged! {
    /// How the input of a custom tool has to look.
    CustomToolFormat by "type" {
        "text" => CustomToolFormatText,
        "grammar" => CustomToolFormatGrammar,
    }
}

tagged! {
    /// A choice of tool that a word cannot express.
    ChatCompletionNamedToolChoice by "type" {
        "function" => ChatCompletionFunctionToolChoice,
        "custom" => ChatCompletionCustomToolChoice,
        "allowed_tools" => ChatCompletionAllowedToolsChoice,
    }
}

tagged! {
    /// A call of a tool by the model.
    ChatCompletionMessageToolCall by "type" {
        "function" => ChatCompletionMessageFunctionToolCall,
        "custom" => ChatCompletionMessageCustomToolCall,
    }
}

words! {
    TypeFunction = "function";
    TypeCustom = "custom";
    TypeAllowedTools = "allowed_tools";
    TypeText = "text";
    TypeGrammar = "grammar";

    GrammarSyntax = "lark" | "regex";
    ToolChoiceMode = "none" | "auto" | "required";
    AllowedToolsMode = "auto" | "required";
    FunctionCallMode = "none" | "auto";
}

any_of! {
    ChatCompletionToolChoiceOption = ToolChoiceMode | ChatCompletionNamedToolChoice;
    FunctionCallOption = FunctionCallMode | FunctionName;
}

/// A function of the client's, described by a JSON Schema.
#[derive(Debug, Object)]
pub struct ChatCompletionFunctionTool {
    /// Always `function`.
    r#type: TypeFunction,
    /// The function.
    function: FunctionDefinition,
}

/// A function that the model may call.
#[derive(Debug, Object)]
pub struct FunctionDefinition {
    /// The name by which the model calls it.
    #[oai(validator(pattern = "^[A-Za-z0-9_-]{1,64}$"))]
    name: String,
    /// What it does and when to call it, for the model to read.
    description: Option<String>,
    /// A JSON Schema object for the arguments. Absent means that there are none.
    parameters: Option<JsonObject>,
    /// Whether the arguments must follow the schema exactly. Only a subset of JSON Schema allows that.
    strict: Optional<bool>,
}

/// A tool whose input is text rather than JSON.
#[derive(Debug, Object)]
pub struct ChatCompletionCustomTool {
    /// Always `custom`.
    r#type: TypeCustom,
    /// The tool.
    custom: CustomToolDefinition,
}

/// A tool whose input is text.
#[derive(Debug, Object)]
pub struct CustomToolDefinition {
    /// The name by which the model calls it.
    #[oai(validator(pattern = "^[A-Za-z0-9_-]{1,64}$"))]
    name: String,
    /// What it does and when to call it, for the model to read.
    description: Option<String>,
    /// How the input has to look. Absent means any text.
    format: Option<CustomToolFormat>,
}

/// Any text.
#[derive(Debug, Object)]
pub struct CustomToolFormatText {
    /// Always `text`.
    r#type: TypeText,
}

/// Text that follows a grammar.
#[derive(Debug, Object)]
pub struct CustomToolFormatGrammar {
    /// Always `grammar`.
    r#type: TypeGrammar,
    /// The grammar.
    grammar: Grammar,
}

/// A grammar.
#[derive(Debug, Object)]
pub struct Grammar {
    /// The language the grammar is written in.
    syntax: GrammarSyntax,
    /// The grammar itself.
    definition: String,
}

/// The model must call this function.
#[derive(Debug, Object)]
pub struct ChatCompletionFunctionToolChoice {
    /// Always `function`.
    r#type: TypeFunction,
    /// The function to call.
    function: FunctionName,
}

/// The model must call this custom tool.
#[derive(Debug, Object)]
pub struct ChatCompletionCustomToolChoice {
    /// Always `custom`.
    r#type: TypeCustom,
    /// The tool to call.
    custom: CustomToolName,
}

/// The model may call only some of the tools of the request.
#[derive(Debug, Object)]
pub struct ChatCompletionAllowedToolsChoice {
    /// Always `allowed_tools`.
    r#type: TypeAllowedTools,
    /// The tools it may call.
    allowed_tools: AllowedTools,
}

/// Some of the tools of the request.
#[derive(Debug, Object)]
pub struct AllowedTools {
    /// `auto`: the model decides whether to call one. `required`: it has to.
    mode: AllowedToolsMode,
    /// Each as in `tool_choice`: `{"type":"function","function":{"name":"get_weather"}}`.
    tools: Vec<JsonObject>,
}

/// A function by its name.
#[derive(Debug, Object)]
pub struct FunctionName {
    /// The name given in `tools` or `functions`.
    name: String,
}

/// A custom tool by its name.
#[derive(Debug, Object)]
pub struct CustomToolName {
    /// The name given in `tools`.
    name: String,
}

/// A call of a function.
#[derive(Debug, Object)]
pub struct ChatCompletionMessageFunctionToolCall {
    /// Names the call; the `tool` message with its result repeats it.
    id: String,
    /// Always `function`.
    r#type: TypeFunction,
    /// What is called.
    function: FunctionCall,
}

/// A function and its arguments.
#[derive(Debug, Object)]
pub struct FunctionCall {
    /// The function.
    name: String,
    /// The arguments: a string that holds JSON. Models err, so it may be empty or not be valid JSON.
    arguments: String,
}

/// A call of a custom tool.
#[derive(Debug, Object)]
pub struct ChatCompletionMessageCustomToolCall {
    /// Names the call; the `tool` message with its result repeats it.
    id: String,
    /// Always `custom`.
    r#type: TypeCustom,
    /// What is called.
    custom: CustomToolCall,
}

/// A custom tool and its input.
#[derive(Debug, Object)]
pub struct CustomToolCall {
    /// The tool.
    name: String,
    /// Its input.
    input: String,
}

/// A piece of a tool call in a stream. The pieces of one `index` belong together: join their strings.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ChatCompletionMessageToolCallChunk {
    /// Which call of the message the piece belongs to, from 0.
    index: i32,
    /// Names the call. Only in the first piece of a call.
    id: Option<String>,
    /// The kind of call. Only in the first piece of a call.
    r#type: Option<ToolCallType>,
    /// The next piece of a function call.
    function: Option<FunctionCallChunk>,
    /// The next piece of a custom tool call.
    custom: Option<CustomToolCallChunk>,
}

words! {
    ToolCallType = "function" | "custom";
}

/// A piece of a function call.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct FunctionCallChunk {
    /// The function. Only in the first piece of a call.
    name: Option<String>,
    /// The next piece of the arguments.
    arguments: Option<String>,
}

/// A piece of a custom tool call.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct CustomToolCallChunk {
    /// The tool. Only in the first piece of a call.
    name: Option<String>,
    /// The next piece of the input.
    input: Option<String>,
}
