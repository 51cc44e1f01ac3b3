//! Response headers, once each.

use poem_openapi::{
    registry::{MetaHeader, MetaSchema},
    types::Type,
};

use super::schema::inline;

/// The header of every answer, whatever its status.
pub fn request_id() -> MetaHeader {
    MetaHeader {
        required: true,
        ..header::<String>("x-request-id", "Identifies the request in logs, traces and errors.")
    }
}

/// The headers of a model's answer.
pub fn inference() -> Vec<MetaHeader> {
    let mut headers = vec![request_id()];
    headers.extend(attempts());
    headers.push(cost());
    headers
}

/// Where the answer came from, and how long it took to get there.
pub fn attempts() -> Vec<MetaHeader> {
    vec![
        header::<String>(
            "x-bonito-provider",
            "The provider that answered, or the last that was asked, such as `azure`.",
        ),
        header::<String>("x-bonito-model", "The model that answered."),
        header::<i32>(
            "x-bonito-attempts",
            "How many attempts were made, failed ones included.",
        ),
        header::<f64>(
            "x-bonito-overhead-ms",
            "Milliseconds the gateway itself added; waiting for providers is left out.",
        ),
    ]
}

/// Whether and when to try again. Official SDKs obey both.
pub fn retry() -> Vec<MetaHeader> {
    vec![
        header::<f64>("retry-after", "Seconds after which a new try can succeed."),
        MetaHeader {
            schema: inline(MetaSchema {
                enum_items: vec!["true".into(), "false".into()],
                ..MetaSchema::new("string")
            }),
            ..header::<String>(
                "x-should-retry",
                "Whether to try again at all; `false` for a budget that is used up.",
            )
        },
    ]
}

fn cost() -> MetaHeader {
    header::<String>(
        "x-bonito-cost-usd",
        "What the request cost in US dollars, as an exact decimal such as `0.000125`. Only on whole answers, since the \
         headers of a stream leave before its cost is known, and only when the price is known.",
    )
}

fn header<T: Type>(name: &str, description: &str) -> MetaHeader {
    MetaHeader {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        required: false,
        deprecated: false,
        schema: T::schema_ref(),
    }
}
