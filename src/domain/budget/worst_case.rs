//! What a call can cost at most, known before it is made.
//!
//! The bound on what is read is a bound and no estimate: no tokenizer makes more tokens than there are bytes of text, and
//! in JSON a text has no fewer bytes than in itself. The names, quotes and braces around it pay for the framing of
//! messages and tools. What is not text has an allowance of its own ([`Attachments`]).

use super::super::money::NanoUsd;
use super::super::pricing::{Price, Rates};
use super::super::service::Service;

/// Tokens that providers put around a prompt by themselves: the instructions that go with tools are the largest part.
///
/// # Source
/// Anthropic's "Tool use system prompt token count": up to 804 tokens.
const FRAMING_TOKENS: u64 = 1_000;
/// Tokens of a document, a recording or a film where nobody knows the model's context window: the largest there are.
const LARGEST_CONTEXT: u64 = 2_000_000;
/// Tokens of an answer where nobody has set a limit, neither the caller nor the model: no model writes more at once.
const LARGEST_ANSWER: u64 = 131_072;

/// What a request carries besides text.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Attachments {
    /// Bytes of the request that are not text.
    pub encoded_bytes: u64,
    /// Pictures.
    pub images: u64,
    /// Documents, recordings, films: what a model may read more of than there are bytes.
    pub others: u64,
}

/// What of a call decides its price.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CallSize {
    /// Bytes of the whole request.
    pub body_bytes: u64,
    /// What of them is not text.
    pub attachments: Attachments,
    /// The caller's limit on the tokens of one answer.
    pub max_output_tokens: Option<u64>,
    /// Answers that are generated; 0 where nothing is.
    pub generations: u64,
    /// How it asks to be served.
    pub service: Service,
}

/// What of a model decides its price.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ModelSize {
    /// Tokens of its context window.
    pub context_tokens: Option<u64>,
    /// Tokens of its longest answer.
    pub max_output_tokens: Option<u64>,
    /// Tokens of its dearest picture.
    pub image_tokens: u64,
}

/// Tokens a call can have at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Read.
    pub input: u64,
    /// Generated, all answers together.
    pub output: u64,
    /// Answers that are generated.
    generations: u64,
    /// How it asks to be served.
    service: Service,
}

impl Bound {
    /// The bound of a call to a model.
    pub fn of(call: &CallSize, model: &ModelSize) -> Self {
        let Attachments {
            encoded_bytes,
            images,
            others,
        } = call.attachments;
        let text = call.body_bytes.saturating_sub(encoded_bytes);
        let read = match others {
            0 => text
                .saturating_add(images.saturating_mul(model.image_tokens))
                .saturating_add(FRAMING_TOKENS),
            _ => model.context_tokens.unwrap_or(LARGEST_CONTEXT),
        };
        // A longer prompt is refused, and costs nothing.
        let input = read.min(model.context_tokens.unwrap_or(u64::MAX));
        let limits = [call.max_output_tokens, model.max_output_tokens];
        let each = limits.into_iter().flatten().min().unwrap_or(LARGEST_ANSWER);
        Self {
            input,
            output: each.saturating_mul(call.generations),
            generations: call.generations,
            service: call.service,
        }
    }

    /// What so many tokens cost at most: each at the dearest rate it could have.
    pub fn cost(&self, price: &Price) -> NanoUsd {
        let (input, output) = self.dearest(price);
        let per_million = i128::from(self.input) * input + i128::from(self.output) * output;
        NanoUsd(i64::try_from((per_million + 999_999) / 1_000_000).unwrap_or(i64::MAX))
    }

    /// The limit on the tokens of one answer with which the call costs no more than `left`; `None`: there is none.
    pub fn output_that_fits(&self, price: &Price, left: NanoUsd) -> Option<u64> {
        let (input, output) = self.dearest(price);
        let rest = i128::from(left.0) * 1_000_000 - i128::from(self.input) * input;
        let for_each = output * i128::from(self.generations);
        if for_each == 0 || rest < for_each {
            return None;
        }
        u64::try_from(rest / for_each).ok()
    }

    /// The dearest rates for what is read and for what is generated, nano-dollars per million tokens.
    fn dearest(&self, price: &Price) -> (i128, i128) {
        let long = price.long_prompt.as_ref().filter(|long| self.input > long.above_tokens);
        let tiers = [Some(&price.rates), long.map(|long| &long.rates)];
        let dearest = |rate: fn(&Rates) -> i64| tiers.into_iter().flatten().map(rate).max().unwrap_or(0);
        let input = dearest(|rates| {
            let caches = [rates.cache_read, rates.cache_write, rates.cache_write_1h];
            let dearest = caches.into_iter().flatten().max().unwrap_or_default();
            rates.input.max(dearest).0
        });
        // A wish for a cheaper service need not be granted.
        let served = price.surcharges.per_myriad(self.service).max(10_000);
        let served = |rate: i64| (i128::from(rate) * i128::from(served) + 9_999) / 10_000;
        (served(input), served(dearest(|rates| rates.output.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::pricing::LongPrompt;
    use crate::domain::service::{Surcharges, Tier};
    use crate::domain::usage::TokenUsage;

    fn rates(input: i64, output: i64, caches: [Option<i64>; 3]) -> Rates {
        Rates {
            input: NanoUsd(input),
            output: NanoUsd(output),
            cache_read: caches[0].map(NanoUsd),
            cache_write: caches[1].map(NanoUsd),
            cache_write_1h: caches[2].map(NanoUsd),
        }
    }

    fn price(ordinary: Rates, long: Option<(u64, Rates)>) -> Price {
        Price {
            version: "test".into(),
            rates: ordinary,
            long_prompt: long.map(|(above_tokens, rates)| LongPrompt { above_tokens, rates }),
            batch: None,
            surcharges: Surcharges {
                priority: Some(250),
                flex: Some(50),
                us: Some(110),
                ..Surcharges::default()
            },
        }
    }

    const CALL: CallSize = CallSize {
        body_bytes: 500,
        attachments: Attachments {
            encoded_bytes: 0,
            images: 0,
            others: 0,
        },
        max_output_tokens: Some(100),
        generations: 1,
        service: Service {
            tier: Tier::Standard,
            in_us: false,
        },
    };
    const MODEL: ModelSize = ModelSize {
        context_tokens: Some(128_000),
        max_output_tokens: Some(16_384),
        image_tokens: 50_000,
    };

    #[test]
    fn the_smallest_limit_counts_for_each_answer() {
        let output = |wanted, most, generations| {
            let call = CallSize {
                max_output_tokens: wanted,
                generations,
                ..CALL
            };
            let model = ModelSize {
                max_output_tokens: most,
                ..MODEL
            };
            Bound::of(&call, &model).output
        };
        assert_eq!(output(Some(100), Some(16_384), 3), 300);
        assert_eq!(output(Some(20_000), Some(16_384), 1), 16_384);
        assert_eq!(output(None, Some(16_384), 2), 32_768);
        assert_eq!(output(None, None, 1), LARGEST_ANSWER);
        assert_eq!(output(Some(100), None, 0), 0, "embeddings generate nothing");
    }

    #[test]
    fn pictures_have_an_allowance_and_documents_may_fill_the_window() {
        let input = |attachments, context_tokens| {
            let call = CallSize {
                body_bytes: 1_000_500,
                attachments,
                ..CALL
            };
            let model = ModelSize {
                context_tokens,
                ..MODEL
            };
            Bound::of(&call, &model).input
        };
        let picture = Attachments {
            encoded_bytes: 1_000_000,
            images: 1,
            others: 0,
        };
        assert_eq!(input(picture, Some(128_000)), 500 + 50_000 + FRAMING_TOKENS);
        let document = Attachments { others: 1, ..picture };
        assert_eq!(input(document, Some(128_000)), 128_000);
        assert_eq!(input(document, None), LARGEST_CONTEXT);
        assert_eq!(input(Attachments::default(), Some(128_000)), 128_000, "more is refused");
    }

    #[test]
    fn the_limit_that_is_named_fits_and_one_more_does_not() {
        let price = price(rates(2_500_000_000, 10_000_000_000, [None; 3]), None);
        let bound = |tokens| {
            let call = CallSize {
                max_output_tokens: Some(tokens),
                generations: 2,
                ..CALL
            };
            Bound::of(&call, &MODEL)
        };
        let left = NanoUsd(10_000_000);
        let fits = bound(5_000).output_that_fits(&price, left).unwrap();
        assert!(bound(fits).cost(&price) <= left && bound(fits + 1).cost(&price) > left);
        assert_eq!(bound(1).output_that_fits(&price, NanoUsd(1_000)), None);
    }

    fn any_rates() -> impl Strategy<Value = Rates> {
        let cache = || prop::option::of(0..50_000_000_000i64);
        (0..50_000_000_000i64, 0..50_000_000_000i64, cache(), cache(), cache())
            .prop_map(|(input, output, read, write, hour)| rates(input, output, [read, write, hour]))
    }

    proptest! {
        #[test]
        fn no_usage_within_the_bound_costs_more(
            ordinary in any_rates(), long in prop::option::of((0..300_000u64, any_rates())),
            bytes in 0..400_000u64, limit in 0..100_000u64,
            input in 0..=100u64, parts in [0..=100u64, 0..=100, 0..=100], output in 0..=100u64,
            tier in prop::sample::select(vec![Tier::Standard, Tier::Flex, Tier::Priority, Tier::Fast]),
            in_us in any::<bool>(), granted in any::<bool>(),
        ) {
            let price = price(ordinary, long);
            let service = Service { tier, in_us };
            let call = CallSize { body_bytes: bytes, max_output_tokens: Some(limit), service, ..CALL };
            let bound = Bound::of(&call, &ModelSize { context_tokens: None, ..MODEL });
            let input = bound.input * input / 100;
            let usage = TokenUsage {
                input,
                cached_input: input * parts[0] / 100,
                cache_write: input * parts[1] / 100,
                cache_write_1h: input * parts[2] / 100,
                output: bound.output * output / 100,
                service: granted.then_some(service),
                ..TokenUsage::default()
            };
            prop_assert!(price.cost(&usage).unwrap() <= bound.cost(&price));
        }
    }
}
