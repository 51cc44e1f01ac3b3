//! Claims about the models people list themselves.

use super::*;

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
    assert_eq!(llama.input_nanousd, Some(590_000_000));
    assert_eq!(llama.output_nanousd, Some(790_000_000));
    assert_eq!((llama.cache_read_nanousd, llama.cache_write_nanousd), (Some(1), None));
    assert_eq!(
        (llama.context_tokens, llama.max_output_tokens),
        (Some(131_072), Some(32_768))
    );
    assert_eq!(llama.mode, Some(DeploymentMode::Chat));
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
fn a_provider_without_deployments_that_refuses_unlisted_models_is_a_warning() {
    let (_, warnings) = providers("", &[AZURE, AZURE_KEY]);
    assert!(
        warnings[0].contains("no deployments and refuses unlisted models"),
        "{warnings:?}"
    );
    let (_, warnings) = providers("", &[("OPENAI_API_KEY", "k"), ("GROQ_API_KEY", "k")]);
    assert_eq!(warnings, Vec::<String>::new());
}
