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
        ..header::<String>(
            "x-request-id",
            "Identifies the request in logs, records and errors: `req_` and 32 hexadecimal digits.",
        )
    }
}

/// The same in the header of Anthropic's dialect.
pub fn own_request_id() -> MetaHeader {
    MetaHeader {
        required: true,
        ..header::<String>(
            "request-id",
            "The same as `x-request-id`, where Anthropic's SDKs look for it.",
        )
    }
}

/// The headers of a model's answer.
pub fn inference() -> Vec<MetaHeader> {
    let own = [
        request_id(),
        provider(),
        model(),
        attempts(),
        overhead(),
        cache(),
        age(),
        cost(),
        dropped(),
    ];
    own.into_iter().chain(rate_limits()).collect()
}

/// Whose count of tokens it is.
pub fn metering() -> MetaHeader {
    header::<String>(
        "x-bonito-metering",
        "`reported` where the provider counted, `estimated` where the gateway did.",
    )
}

/// Who answered.
pub fn provider() -> MetaHeader {
    header::<String>(
        "x-bonito-provider",
        "The provider that answered, or the last that was asked, such as `azure`.",
    )
}

/// With what.
pub fn model() -> MetaHeader {
    header::<String>(
        "x-bonito-model",
        "The model that answered, or the last that was asked, by its name in `GET /v1/models`. Absent where that name \
         has characters that a header cannot hold.",
    )
}

/// After how many attempts.
pub fn attempts() -> MetaHeader {
    header::<i32>(
        "x-bonito-attempts",
        "How many attempts were made, failed ones included.",
    )
}

/// Whether to try again. Official SDKs obey it.
pub fn should_retry() -> MetaHeader {
    MetaHeader {
        schema: inline(MetaSchema {
            enum_items: vec!["true".into(), "false".into()],
            ..MetaSchema::new("string")
        }),
        ..header::<String>(
            "x-should-retry",
            "Whether to try again at all. `false` where only the gateway's administrator can help: the account at the \
             provider has no quota left, or the provider refuses the gateway's credential. Or where the request alone is \
             larger than a limit.",
        )
    }
}

/// When to try again. Official SDKs obey it.
pub fn retry_after() -> MetaHeader {
    header::<i32>(
        "retry-after",
        "Whole seconds after which a new try can succeed. Absent where trying again is of no use.",
    )
}

/// The same to the millisecond. Official SDKs prefer it.
pub fn retry_after_ms() -> MetaHeader {
    header::<i32>(
        "retry-after-ms",
        "Milliseconds after which a new try can succeed, where a limit of the gateway is reached.",
    )
}

/// Where the key's limits stand.
pub fn rate_limits() -> [MetaHeader; 6] {
    [
        header::<i64>(
            "x-ratelimit-limit-requests",
            "Requests per minute: of the limits that apply to the request, the one nearest to refusing. Like its \
             companions also on errors, if the request came as far as its limits.",
        ),
        header::<i64>("x-ratelimit-remaining-requests", "What is left of it."),
        header::<String>(
            "x-ratelimit-reset-requests",
            "When all of it will be, if nothing else is asked for, such as `1m0.5s` or `12ms`.",
        ),
        header::<i64>(
            "x-ratelimit-limit-tokens",
            "Tokens per minute, likewise. Absent where no limit on tokens applies.",
        ),
        header::<i64>("x-ratelimit-remaining-tokens", "What is left of it."),
        header::<String>("x-ratelimit-reset-tokens", "When all of it will be."),
    ]
}

fn overhead() -> MetaHeader {
    header::<f64>(
        "x-bonito-overhead-ms",
        "Milliseconds the gateway itself added; waiting for providers is left out.",
    )
}

fn cache() -> MetaHeader {
    MetaHeader {
        schema: inline(MetaSchema {
            enum_items: vec!["hit".into(), "miss".into(), "bypass".into()],
            ..MetaSchema::new("string")
        }),
        ..header::<String>(
            "x-bonito-cache",
            "Whether the answer came out of the response cache, or was looked for there in vain, or was not looked for.",
        )
    }
}

fn age() -> MetaHeader {
    header::<i32>(
        "age",
        "How many seconds ago the answer was given that came out of the response cache.",
    )
}

fn cost() -> MetaHeader {
    header::<String>(
        "x-bonito-cost-usd",
        "What the request cost in US dollars, as an exact decimal such as `0.000125`. Only on whole answers, since the \
         headers of a stream leave before its cost is known, and only when the price is known.",
    )
}

fn dropped() -> MetaHeader {
    header::<String>(
        "x-bonito-dropped-params",
        "The parameters of the request that the provider cannot express, separated by commas. They were dropped; with the \
         parameter policy `reject` the request would have been refused instead.",
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
