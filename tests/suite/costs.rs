//! The golden table of costs (`costs.toml`): what a usage costs at the list price of its model, to the nano-dollar.

use std::collections::BTreeSet;

use bonito::domain::money::NanoUsd;
use bonito::domain::pricing::{Price, PricingError, Rates};
use bonito::domain::service::{Service, Surcharges};
use bonito::domain::usage::TokenUsage;
use bonito::providers::anthropic::wire as anthropic_wire;
use bonito::providers::bedrock;
use bonito::providers::gemini::wire as gemini_wire;
use bonito::providers::openai::wire;
use bonito::routing::catalog_file;
use serde::Deserialize;
use serde_json::Value;

const TABLE: &str = include_str!("costs.toml");

#[derive(Deserialize)]
struct Table {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    provider: String,
    model: String,
    /// Dollars per million tokens, for providers whose prices are in no catalogue: an administrator has written them.
    written: Option<Written>,
    /// How the call was served, as it stands behind the version of a price; empty: as usual.
    #[serde(default)]
    served: String,
    reported: String,
    usage: Split,
    sum: String,
    nano_usd: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    input: String,
    output: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Split {
    input: u64,
    cached_input: u64,
    cache_write: u64,
    cache_write_1h: u64,
    output: u64,
    reasoning: u64,
}

impl Case {
    fn usage(&self) -> TokenUsage {
        let split = &self.usage;
        TokenUsage {
            input: split.input,
            cached_input: split.cached_input,
            cache_write: split.cache_write,
            cache_write_1h: split.cache_write_1h,
            output: split.output,
            reasoning: split.reasoning,
            service: (!self.served.is_empty()).then(|| Service::of_version(&self.served)),
            ..TokenUsage::default()
        }
    }

    fn price(&self) -> Price {
        if let Some(written) = &self.written {
            let rates = Rates {
                input: NanoUsd::parse_usd(&written.input).unwrap(),
                output: NanoUsd::parse_usd(&written.output).unwrap(),
                ..Rates::default()
            };
            let price = Price {
                version: "".into(),
                rates,
                long_prompt: None,
                batch: None,
                surcharges: Surcharges::default(),
            };
            return catalog_file::versioned(&self.model, price);
        }
        let file = catalog_file::of_provider(&self.provider).unwrap().unwrap();
        let row = file
            .models
            .iter()
            .find(|row| row.name == self.model)
            .expect("a listed model");
        row.price(&self.provider, 100).unwrap()
    }

    /// What an adapter has read, as the table has it: it says nothing of a call that was served as usual, and at OpenAI the
    /// answer says how a call was served, not its usage.
    fn read(&self, usage: Option<TokenUsage>) -> Option<TokenUsage> {
        let beside = matches!(&*self.provider, "openai" | "azure").then_some(self.usage().service);
        usage.map(|usage| TokenUsage {
            service: beside.unwrap_or(usage.service.filter(|service| *service != Service::default())),
            ..usage
        })
    }
}

fn cases() -> Vec<Case> {
    toml::from_str::<Table>(TABLE).unwrap().case
}

/// `tokens * dollars + …`, each in millionths of a nano-dollar, rounded up at the end: arithmetic of its own, so that
/// the table does not rest on what it tests.
fn by_hand(sum: &str) -> i128 {
    let millionths: i128 = sum
        .split(" + ")
        .map(|term| {
            let (tokens, dollars) = term.split_once(" * ").unwrap();
            let (whole, fraction) = dollars.split_once('.').unwrap_or((dollars, ""));
            let nano: i128 = format!("{whole}{fraction:0<9}").parse().unwrap();
            tokens.parse::<i128>().unwrap() * nano
        })
        .sum();
    millionths / 1_000_000 + i128::from(millionths % 1_000_000 > 0)
}

#[test]
fn every_usage_of_the_table_costs_what_its_sum_says_to_the_nano_dollar() {
    for case in cases() {
        assert_eq!(
            by_hand(&case.sum),
            i128::from(case.nano_usd),
            "the sum of {:?}",
            case.name
        );
        assert_eq!(
            case.price().cost(&case.usage()),
            Ok(NanoUsd(case.nano_usd)),
            "{:?}",
            case.name
        );
    }
}

/// Every token of the prompt and of the answer appears in the sum once, whichever way its provider counts.
#[test]
fn no_token_is_counted_twice_or_left_out() {
    for case in cases() {
        let billed: u64 = case
            .sum
            .split(" + ")
            .map(|term| term.split_once(" * ").unwrap().0.parse::<u64>().unwrap())
            .sum();
        assert_eq!(billed, case.usage().total(), "{:?}", case.name);
    }
}

#[test]
fn what_openai_azure_and_imitators_report_is_read_as_the_table_says() {
    let mut read = 0;
    for case in cases() {
        if matches!(&*case.provider, "openai" | "azure" | "xai" | "vllm") {
            assert_eq!(
                case.read(wire::usage(&case.reported)),
                Some(case.usage()),
                "{:?}",
                case.name
            );
            read += 1;
        }
    }
    assert!(read >= 25, "{read} rows");
}

#[test]
fn what_claude_reports_is_read_as_the_table_says() {
    let mut read = 0;
    for case in cases().iter().filter(|case| case.reported.contains("\"input_tokens\"")) {
        let usage = anthropic_wire::Usage::read(&case.reported).and_then(|usage| usage.tokens());
        assert_eq!(case.read(usage), Some(case.usage()), "{:?}", case.name);
        read += 1;
    }
    assert!(read >= 10, "{read} rows");
}

#[test]
fn what_gemini_reports_is_read_as_the_table_says() {
    let mut read = 0;
    for case in cases().iter().filter(|case| case.reported.contains("promptTokenCount")) {
        let mut usage = gemini_wire::Usage::default();
        assert!(
            usage.read(&serde_json::from_str(&case.reported).unwrap()),
            "{:?}",
            case.name
        );
        assert_eq!(case.read(Some(usage.tokens())), Some(case.usage()), "{:?}", case.name);
        read += 1;
    }
    assert!(read >= 10, "{read} rows");
}

#[test]
fn what_bedrock_reports_is_read_as_the_table_says() {
    let mut read = 0;
    let chats = cases().into_iter().filter(|case| case.reported.contains("inputTokens"));
    for case in chats.filter(|case| case.provider == "aws") {
        assert_eq!(bedrock::usage(&case.reported), Some(case.usage()), "{:?}", case.name);
        read += 1;
    }
    assert!(read >= 15, "{read} rows");
}

/// The rule of each provider about which count includes which, so that `reported` and `usage` of a row belong together.
#[test]
fn every_reported_usage_adds_up_to_its_split() {
    for case in cases() {
        let reported: Value = serde_json::from_str(&case.reported).unwrap();
        let count = |name: &str| reported[name].as_u64().unwrap_or(0);
        let (input, output) = match &*case.provider {
            "openai" | "azure" | "vllm" => (count("prompt_tokens"), count("completion_tokens")),
            // Whatever stands beside the completion, the total holds it.
            "xai" => (count("prompt_tokens"), count("total_tokens") - count("prompt_tokens")),
            "aws" => (
                count("inputTokens")
                    + count("inputTextTokenCount")
                    + count("cacheReadInputTokens")
                    + count("cacheWriteInputTokens"),
                count("outputTokens"),
            ),
            "anthropic" | "gcp" if !reported["input_tokens"].is_null() => (
                count("input_tokens") + count("cache_read_input_tokens") + count("cache_creation_input_tokens"),
                count("output_tokens"),
            ),
            "gcp" | "gemini" => (
                count("promptTokenCount"),
                count("candidatesTokenCount") + count("thoughtsTokenCount"),
            ),
            other => panic!("{other}"),
        };
        assert_eq!(
            (input, output),
            (case.usage.input, case.usage.output),
            "{:?}",
            case.name
        );
    }
}

#[test]
fn the_table_covers_every_provider_and_the_three_sides_of_every_line() {
    let cases = cases();
    assert!(cases.len() >= 60, "{} rows", cases.len());
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "a name is used twice");
    for provider in ["openai", "azure", "anthropic", "aws", "gcp", "gemini"] {
        let rows = cases.iter().filter(|case| case.provider == provider).count();
        assert!(rows >= 8, "{provider} has {rows} rows");
    }
    let lines: Vec<(&Case, u64)> = cases
        .iter()
        .filter_map(|case| Some((case, case.price().long_prompt?.above_tokens)))
        .collect();
    for side in [-1, 0, 1] {
        let there = lines
            .iter()
            .filter(|(case, line)| i128::from(case.usage.input) - i128::from(*line) == side)
            .count();
        assert!(there >= 7, "{there} rows at {side:+} of a line");
    }
}

#[test]
fn a_usage_that_cannot_be_real_is_refused_and_one_that_contradicts_itself_is_never_negative() {
    let case = |name: &str| cases().into_iter().find(|case| case.name == name).unwrap();
    let price = case("a plain question").price();
    let overflow = TokenUsage {
        output: 1 << 60,
        ..TokenUsage::default()
    };
    assert_eq!(price.cost(&overflow), Err(PricingError::Overflow));
    let contradictory = TokenUsage {
        input: 100,
        cached_input: 1_000,
        cache_write: 1_000,
        ..TokenUsage::default()
    };
    // All of the prompt was cached, and no more than all: 100 * 1.25.
    assert_eq!(price.cost(&contradictory), Ok(NanoUsd(125_000)));
}
