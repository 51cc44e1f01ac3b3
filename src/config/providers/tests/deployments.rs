//! Claims about the models people list themselves.

use super::*;
use crate::domain::money::NanoUsd;

#[test]
fn deployments_are_read_with_exact_prices() {
    let file = r#"
        [providers.groq]
        [[providers.groq.deployments]]
        model = "llama-3.3-70b"
        name = "llama-3.3-70b-versatile"
        input_usd = "0.59"
        output_usd = "0.79"
        cache_read_usd = "0.000000001"
        context_tokens = 131072
        max_output_tokens = 32768
        mode = "chat"
        [[providers.groq.deployments]]
        model = "embed"
        input_usd = "1"
        mode = "embedding"
    "#;
    let (found, warnings) = providers(file, &[("GROQ_API_KEY", "k")]);
    assert_eq!(warnings, Vec::<String>::new());
    // Listing models means the list, unless the file says otherwise.
    assert_eq!(found[0].unlisted_models, Unlisted::Refuse);
    let [llama, embed] = &found[0].deployments[..] else {
        panic!()
    };
    let price = llama.price.unwrap();
    assert_eq!(price.rates.input, NanoUsd(590_000_000));
    assert_eq!(price.rates.output, NanoUsd(790_000_000));
    assert_eq!(
        (price.rates.cache_read, price.rates.cache_write),
        (Some(NanoUsd(1)), None)
    );
    assert_eq!(price.long_prompt, None);
    assert_eq!(
        (llama.context_tokens, llama.max_output_tokens),
        (Some(131_072), Some(32_768))
    );
    assert_eq!(llama.mode, Some(DeploymentMode::Chat));
    assert_eq!(embed.price.unwrap().rates.output, NanoUsd::ZERO);
    assert_eq!(
        (embed.name.as_str(), embed.mode),
        ("embed", Some(DeploymentMode::Embedding))
    );
}

#[test]
fn every_fault_of_a_deployment_is_found() {
    let file = r#"
        [providers.openai]
        unlisted_models = "maybe"
        [[providers.openai.deployments]]
        modle = "x"
        input_usd = 0.59
        output_usd = "-1"
        context_tokens = 0
        mode = "chta"
        [[providers.openai.deployments]]
        model = "a b"
        context_tokens = 10
        max_output_tokens = 11
        [[providers.openai.deployments]]
        model = "m"
        name = "n"
        [[providers.openai.deployments]]
        model = "m"
        name = "n2"
        [[providers.openai.deployments]]
        model = "m"
        name = "n"
    "#;
    let found = load(file, &[("OPENAI_API_KEY", "k")]).unwrap_err();
    let mut places: Vec<&str> = found.iter().map(|fault| fault.at.as_str()).collect();
    places.sort_unstable();
    assert_eq!(
        places,
        [
            "providers.openai.deployments[0].context_tokens",
            "providers.openai.deployments[0].input_usd",
            "providers.openai.deployments[0].mode",
            "providers.openai.deployments[0].model",
            "providers.openai.deployments[0].modle",
            "providers.openai.deployments[0].output_usd",
            "providers.openai.deployments[1].max_output_tokens",
            "providers.openai.deployments[1].model",
            "providers.openai.deployments[4]",
            "providers.openai.unlisted_models",
        ]
    );
    let text = found.to_string();
    assert!(text.contains("decimal text in quotes"), "{text}");
    assert!(text.contains("did you mean model?"), "{text}");
    assert!(text.contains("is listed twice"), "{text}");
}

#[test]
fn a_price_is_written_whole_or_not_at_all() {
    let with = |settings: &str| {
        let file = format!("[[providers.openai.deployments]]\nmodel = \"m\"\n{settings}");
        fault(&file, &[("OPENAI_API_KEY", "k")])
    };
    let at = "providers.openai.deployments[0]";
    let no_input = with("output_usd = \"1\"");
    assert!(
        no_input.starts_with(&format!("{at}.input_usd: is missing")),
        "{no_input}"
    );
    let no_output = with("input_usd = \"1\"");
    assert!(
        no_output.starts_with(&format!("{at}.output_usd: is missing")),
        "{no_output}"
    );
    let too_fine = with("input_usd = \"0.0000000001\"\noutput_usd = \"1\"");
    assert!(
        too_fine.starts_with(&format!("{at}.input_usd: must have at most nine")),
        "{too_fine}"
    );
}

#[test]
fn prices_of_long_prompts_and_caches_are_read() {
    let file = r#"
        [[providers.openai.deployments]]
        model = "tuned"
        like = "gpt-5.4"
        input_usd = "3"
        output_usd = "15"
        cache_read_usd = "0.3"
        cache_write_usd = "3.75"
        cache_write_1h_usd = "6"
        [providers.openai.deployments.long_prompt]
        above_tokens = 200000
        input_usd = "6"
        output_usd = "22.5"
        cache_read_usd = "0.6"
        cache_write_usd = "7.5"
    "#;
    let (found, _) = providers(file, &[("OPENAI_API_KEY", "k")]);
    let tuned = &found[0].deployments[0];
    assert_eq!(tuned.like.as_deref(), Some("gpt-5.4"));
    let price = tuned.price.unwrap();
    assert_eq!(price.rates.cache_write_1h, Some(NanoUsd(6_000_000_000)));
    let long = price.long_prompt.unwrap();
    assert_eq!(long.above_tokens, 200_000);
    assert_eq!(long.rates.output, NanoUsd(22_500_000_000));
    assert_eq!(
        long.rates.cache_write_1h,
        Some(NanoUsd(12_000_000_000)),
        "grows with the other writes"
    );
}

#[test]
fn half_of_a_price_for_long_prompts_is_refused() {
    let file = r#"
        [[providers.openai.deployments]]
        model = "a"
        input_usd = "3"
        output_usd = "15"
        long_prompt = { input_usd = "6", abov_tokens = 1 }
        [[providers.openai.deployments]]
        model = "b"
        long_prompt = 5
        cache_write_1h_usd = "1"
    "#;
    let found = load(file, &[("OPENAI_API_KEY", "k")]).unwrap_err();
    let mut faults: Vec<String> = found.iter().map(ToString::to_string).collect();
    faults.sort_unstable();
    assert_eq!(
        faults,
        [
            "providers.openai.deployments[0].long_prompt.abov_tokens: unknown setting of a price for long prompts; \
             did you mean above_tokens?",
            "providers.openai.deployments[0].long_prompt.above_tokens: is missing; write the largest prompt that is \
             still charged at the ordinary price",
            "providers.openai.deployments[0].long_prompt.output_usd: is missing beside above_tokens; write it, or \
             mode = \"embedding\"",
            "providers.openai.deployments[1].input_usd: is missing beside cache_write_1h_usd; write it, \"0\" if \
             input is free",
            "providers.openai.deployments[1].long_prompt: must be a table, not a whole number",
            "providers.openai.deployments[1].output_usd: is missing beside cache_write_1h_usd; write it, or \
             mode = \"embedding\"",
        ]
    );
}

#[test]
fn a_provider_without_deployments_that_refuses_unlisted_models_is_a_warning() {
    let (_, warnings) = providers("", &[AZURE, AZURE_KEY]);
    assert!(
        warnings[0].contains("no deployments and refuses unlisted models"),
        "{warnings:?}"
    );
    let (_, warnings) = providers("", &[("OPENAI_API_KEY", "k"), ("GROQ_API_KEY", "k")]);
    assert_eq!(warnings, Vec::<String>::new());
}
