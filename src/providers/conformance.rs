//! The conformance kit: what must be true of every adapter, as one line in its tests.
//!
//! ```ignore
//! conformance!(conformance: adapter = v1(), fixtures = "azure/fixtures");
//! conformance!(conformance_of_claude: adapter = adapter(), fixtures = "anthropic/fixtures", models = vec![Model::of(claude_4())]);
//! conformance!(conformance_closing: adapter = perplexity(), fixtures = "openai/fixtures", ends_by_closing = true);
//! ```
//!
//! The name in front becomes a module of tests and the beginning of its snapshots' names. `models` are deployments to try parameters on (the first also answers the
//! fixtures); without them it is a model nobody has described. `ends_by_closing` is for providers whose streams have no
//! end marker.
//!
//! Fixtures are answers of the provider in files of a folder below `src/providers`:
//!
//! | file | what |
//! |---|---|
//! | `NAME.json` | a whole answer |
//! | `NAME.sse` | a stream of server-sent events |
//! | `NAME.frames` | a stream of AWS's event stream in readable form: lines of `event-type {json}`, or `!exception {json}` |
//! | `NAME.eventstream` | the same as recorded |
//! | `NAME.request.json` | the request in OpenAI's dialect, where the plain one will not do |
//! | `NAME.messages.json` | the request in Anthropic's dialect |
//!
//! `NAME.json` and a stream of the same name must say the same thing. With a `request` and no `messages` only OpenAI's
//! dialect is tried, and the other way round. Whether a request streams is decided by the fixture. Files whose names end
//! in `.error.json` are left to the adapter's own tests.

mod fold;
mod grammar;
mod kit;
mod params;

pub(super) use kit::{Kit, Model};

/// The tests of one adapter; see [`self`].
macro_rules! conformance {
    ($name:ident: adapter = $adapter:expr, fixtures = $folder:literal
        $(, models = $models:expr)? $(, ends_by_closing = $closes:literal)? $(,)?) => {
        mod $name {
            use super::*;
            use $crate::providers::conformance::Kit;

            fn kit() -> Kit {
                Kit::new(Box::new($adapter), $folder, module_path!())
                    $(.models($models))?
                    $(.ends_by_closing($closes))?
            }

            #[test]
            fn the_fixtures_mean_what_the_snapshots_say() {
                kit().fixtures_mean_what_the_snapshots_say();
            }

            #[test]
            fn any_cut_of_the_bytes_gives_the_same() {
                kit().any_cut_of_the_bytes_gives_the_same();
            }

            #[test]
            fn a_stream_that_is_cut_before_its_end_is_a_failure() {
                kit().a_stream_that_is_cut_before_its_end_is_a_failure();
            }

            #[test]
            fn whole_answers_and_streams_say_the_same() {
                kit().whole_answers_and_streams_say_the_same();
            }

            #[test]
            fn events_keep_to_their_grammar() {
                kit().events_keep_to_their_grammar();
            }

            #[test]
            fn unknown_fields_and_events_do_no_harm() {
                kit().unknown_fields_and_events_do_no_harm();
            }

            #[test]
            fn no_bytes_make_it_panic_or_hold_much() {
                kit().no_bytes_make_it_panic_or_hold_much();
            }

            #[test]
            fn what_is_said_of_parameters_is_true() {
                kit().what_is_said_of_parameters_is_true();
            }

            #[test]
            fn what_is_said_of_operations_is_true() {
                kit().what_is_said_of_operations_is_true();
            }
        }
    };
}
pub(super) use conformance;
