//! The catalogue as a request and a person see it: names in, deployments in order out.

use super::*;
use crate::config::{Loaded, Origin, Sources, load};

fn settings(file: &str, providers: Vec<ProviderSettings>) -> Settings {
    let sources = Sources {
        file: Some(("bonito.toml".into(), file.to_owned())),
        env: Vec::new(),
        overrides: Vec::new(),
    };
    let Loaded { mut settings, .. } = load(&sources, &[]).unwrap();
    settings.providers.extend(providers);
    settings.providers.sort_by(|a, b| a.id.cmp(&b.id));
    settings
}

/// A provider of that id. How it is called does not matter to the catalogue.
fn provider(id: &str) -> ProviderSettings {
    ProviderSettings {
        id: id.to_owned(),
        enabled: true,
        origin: Origin::File,
        kind: ProviderKind::Echo,
        credentials: Vec::new(),
        unlisted_models: Unlisted::Refuse,
        deployments: Vec::new(),
    }
}

fn own(model: &str, name: &str) -> DeploymentSettings {
    DeploymentSettings {
        model: model.to_owned(),
        name: name.to_owned(),
        aliases: Vec::new(),
        like: None,
        price: None,
        context_tokens: None,
        max_output_tokens: None,
        mode: None,
        capabilities: Capabilities::default(),
    }
}

fn clouds() -> Catalog {
    Catalog::build(&settings("", ["anthropic", "aws", "gcp"].map(provider).to_vec()))
}

fn wire_names(catalog: &Catalog, requested: &str) -> Vec<String> {
    let resolved = catalog.resolve(requested, Operation::Chat);
    let deployments = resolved.map(|resolved| resolved.deployments).unwrap_or_default();
    deployments
        .iter()
        .map(|deployment| format!("{} {}", deployment.provider.as_str(), deployment.wire_name))
        .collect()
}

#[test]
fn a_public_name_leads_to_every_provider_by_its_cheapest_name_there_and_then_to_the_spares() {
    let expected = [
        "anthropic claude-sonnet-4-5",
        "aws global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "gcp claude-sonnet-4-5@20250929",
        "aws us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "aws eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ];
    assert_eq!(wire_names(&clouds(), "claude-sonnet-4-5"), expected);
}

#[test]
fn a_dated_name_is_passed_on_as_it_is_where_the_provider_knows_it() {
    assert_eq!(
        wire_names(&clouds(), "claude-haiku-4-5-20251001"),
        [
            "anthropic claude-haiku-4-5-20251001",
            "aws global.anthropic.claude-haiku-4-5-20251001-v1:0",
            "gcp claude-haiku-4-5@20251001",
            "aws us.anthropic.claude-haiku-4-5-20251001-v1:0",
        ]
    );
    let catalog = clouds();
    let dated = catalog
        .resolve("anthropic/claude-haiku-4-5-20251001", Operation::Chat)
        .unwrap();
    assert_eq!(dated.model.as_str(), "claude-haiku-4-5");
    assert_eq!(
        dated.deployments[0].id.as_str(),
        "anthropic/claude-haiku-4-5/claude-haiku-4-5-20251001"
    );
    assert!(dated.deployments[0].price.is_some());
}

#[test]
fn a_provider_in_front_narrows_the_choice_by_id_or_by_synonym() {
    let at_google = ["gcp claude-sonnet-4-5@20250929"];
    assert_eq!(wire_names(&clouds(), "gcp/claude-sonnet-4-5"), at_google);
    assert_eq!(wire_names(&clouds(), "vertex/claude-sonnet-4-5"), at_google);
    assert_eq!(wire_names(&clouds(), "vertex/claude-sonnet-4-5@20250929"), at_google);
    let one = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
    assert_eq!(wire_names(&clouds(), one), [format!("aws {one}")]);
    assert_eq!(wire_names(&clouds(), &format!("bedrock/{one}")), [format!("aws {one}")]);
}

#[test]
fn every_model_is_shown_once_by_its_public_name() {
    let catalog = clouds();
    let shown: Vec<&str> = catalog.models().map(|(name, _)| name).collect();
    let mut once = shown.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), shown.len());
    assert!(shown.contains(&"claude-sonnet-4-5") && shown.contains(&"nova-pro"));
    assert!(
        !shown
            .iter()
            .any(|name| name.contains("anthropic.") || name.contains('@'))
    );
    for (name, resolved) in catalog.models() {
        assert!(!resolved.deployments.is_empty(), "{name}");
    }
}

#[test]
fn every_name_of_every_row_resolves_to_that_row() {
    for file in catalog_file::all() {
        let catalog = Catalog::build(&settings("", vec![provider(&file.provider)]));
        for row in file.models.iter().filter(|row| row.mode != Mode::Responses) {
            for name in row.names() {
                let found = catalog
                    .listed(name)
                    .unwrap_or_else(|| panic!("{}/{name}", file.provider));
                assert!(
                    found
                        .deployments
                        .iter()
                        .any(|deployment| *deployment.wire_name == *row.name),
                    "{}/{name}",
                    file.provider
                );
            }
            for snapshot in &row.snapshots {
                let found = catalog.listed(snapshot).unwrap();
                assert_eq!(*found.deployments[0].wire_name, **snapshot);
            }
        }
    }
}

#[test]
fn a_scope_knows_a_model_by_any_of_its_names_and_a_provider_by_its_synonym() {
    let catalog = clouds();
    let resolved = catalog.resolve("claude-sonnet-4-5", Operation::Chat).unwrap();
    let allowed = |entry: &str| {
        let scopes = [Arc::new(Scope::new(vec![entry.to_owned()], Vec::new()))];
        let mut providers: Vec<String> = resolved
            .allowed_by(&scopes)
            .map(|deployment| deployment.provider.as_str().to_owned())
            .collect();
        providers.sort_unstable();
        providers.dedup();
        providers.join(" ")
    };
    assert_eq!(allowed("claude-sonnet-4-5"), "anthropic aws gcp");
    assert_eq!(allowed("claude-*"), "anthropic aws gcp");
    assert_eq!(allowed("aws/claude-sonnet-4-5"), "aws");
    assert_eq!(allowed("bedrock/claude-sonnet-4-5"), "aws");
    assert_eq!(allowed("vertex/*"), "gcp");
    assert_eq!(allowed("claude-sonnet-4-5@20250929"), "gcp");
    assert_eq!(allowed("us.anthropic.claude-sonnet-4-5-20250929-v1:0"), "aws");
    assert_eq!(allowed("claude-opus-5-5"), "");
}

#[test]
fn a_key_for_a_dated_name_is_not_one_for_whatever_the_model_is_today() {
    let catalog = clouds();
    let scopes = [Arc::new(Scope::new(
        vec!["anthropic/claude-sonnet-4-5-20250929".into()],
        vec![],
    ))];
    let undated = catalog.resolve("anthropic/claude-sonnet-4-5", Operation::Chat).unwrap();
    assert_eq!(undated.allowed_by(&scopes).count(), 0);
    let dated = catalog
        .resolve("anthropic/claude-sonnet-4-5-20250929", Operation::Chat)
        .unwrap();
    assert_eq!(dated.allowed_by(&scopes).count(), 1);
}

#[test]
fn an_alias_of_ones_own_stands_for_its_models_in_their_order() {
    let file = "[aliases]\nfast = [\"aws/nova-lite\", \"claude-haiku-4-5\"]";
    let catalog = Catalog::build(&settings(file, ["anthropic", "aws"].map(provider).to_vec()));
    let expected = [
        "aws amazon.nova-lite-v1:0",
        "aws us.amazon.nova-lite-v1:0",
        "anthropic claude-haiku-4-5",
        "aws global.anthropic.claude-haiku-4-5-20251001-v1:0",
        "aws us.anthropic.claude-haiku-4-5-20251001-v1:0",
    ];
    assert_eq!(wire_names(&catalog, "fast"), expected);
    assert!(catalog.models().any(|(name, _)| name == "fast"));

    let resolved = catalog.resolve("fast", Operation::Chat).unwrap();
    let allowed = |entry: &str| {
        let scopes = [Arc::new(Scope::new(vec![entry.to_owned()], Vec::new()))];
        resolved.allowed_by(&scopes).count()
    };
    assert_eq!(allowed("fast"), 5);
    assert_eq!(allowed("nova-lite"), 2, "a key is served by what it may use");
    let by_name = catalog.resolve("nova-lite", Operation::Chat).unwrap();
    let for_alias = [Arc::new(Scope::new(vec!["fast".into()], Vec::new()))];
    assert_eq!(by_name.allowed_by(&for_alias).count(), 0);
}

#[test]
fn a_deployment_of_ones_own_takes_the_place_of_the_rows_for_its_model() {
    let profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc";
    let mut aws = provider("aws");
    aws.unlisted_models = Unlisted::Forward;
    aws.deployments = vec![
        own("claude-sonnet-4-5", profile),
        own("nova-pro", "eu.amazon.nova-pro-v1:0"),
    ];
    let catalog = Catalog::build(&settings("", vec![aws]));
    assert_eq!(wire_names(&catalog, "claude-sonnet-4-5"), [format!("aws {profile}")]);
    assert_eq!(
        wire_names(&catalog, "claude-sonnet-4-5-20250929"),
        [format!("aws {profile}")]
    );

    let of = |name| catalog.resolve(name, Operation::Chat).unwrap().deployments[0].clone();
    let sonnet = of("claude-sonnet-4-5");
    assert_eq!(sonnet.traits.family, Family::Claude);
    assert!(sonnet.traits.bedrock.tools && sonnet.context_tokens == Some(200_000));
    assert!(
        sonnet.price.is_none(),
        "a global and a geographic profile differ in price"
    );
    assert!(of("nova-pro").price.is_some(), "all profiles of Nova Pro cost the same");
    assert!(of("nova-micro").price.is_some(), "the other rows are still there");
}

#[test]
fn a_model_nobody_knows_behaves_like_the_one_it_is_said_to_be_like_and_costs_what_is_written() {
    let mut aws = provider("aws");
    let like = DeploymentSettings {
        like: Some("claude-opus-5".into()),
        ..own(
            "support-bot",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/x",
        )
    };
    aws.deployments = vec![like];
    let catalog = Catalog::build(&settings("", vec![aws]));
    let bot = catalog.resolve("support-bot", Operation::Chat).unwrap().deployments[0].clone();
    assert_eq!(bot.traits.family, Family::Claude);
    assert!(bot.traits.bedrock.cache_points);
    assert_eq!(bot.max_output_tokens, Some(128_000));
    assert!(bot.price.is_none());
    assert!(catalog.resolve("claude-opus-5", Operation::Chat).is_none());
}

#[test]
fn an_azure_deployment_is_what_people_say_it_is_whatever_it_is_called() {
    let mut azure = provider("azure");
    azure.deployments = vec![own("gpt-5.4", "gpt-4o"), own("gpt-4o", "old")];
    let catalog = Catalog::build(&settings("", vec![azure]));
    assert_eq!(wire_names(&catalog, "gpt-5.4"), ["azure gpt-4o"]);
    assert_eq!(wire_names(&catalog, "gpt-4o"), ["azure old"]);
    let newer = catalog.resolve("gpt-5.4", Operation::Chat).unwrap().deployments[0].clone();
    assert!(newer.traits.openai.reasoning);
    assert_eq!(newer.context_tokens, Some(922_000));
}

#[test]
fn a_list_price_keeps_its_date_beside_a_price_of_ones_own() {
    let mut openai = provider("openai");
    let price = crate::config::OwnPrice {
        rates: Rates::default(),
        long_prompt: None,
    };
    openai.deployments = vec![DeploymentSettings {
        price: Some(price),
        ..own("gpt-4o", "gpt-4o")
    }];
    let catalog = Catalog::build(&settings("", vec![openai]));
    let deployment = catalog.resolve("gpt-4o", Operation::Chat).unwrap().deployments[0].clone();
    let list = deployment.list_price.as_ref().unwrap();
    assert!(!same_figures(deployment.price.as_ref().unwrap(), &list.price));
    assert_eq!(list.as_of, NaiveDate::from_ymd_opt(2026, 11, 12));
}

fn in_place(place: &'static str) -> Catalog {
    Catalog::build_at(&settings("", ["aws", "gcp"].map(provider).to_vec()), |_| Some(place))
}

#[test]
fn a_hundred_and_ten_percent_is_charged_outside_googles_global_location() {
    let input = |place| {
        let resolved = in_place(place)
            .resolve("gcp/claude-sonnet-4-5", Operation::Chat)
            .unwrap();
        let price = resolved.deployments[0].price.clone().unwrap();
        let long = price.long_prompt.unwrap().rates.output;
        format!("{} {long}", price.rates.input)
    };
    assert_eq!(input("global"), "3 22.5");
    assert_eq!(input("europe-west1"), "3.3 24.75");
    let gemini = in_place("europe-west1")
        .resolve("gemini-2.5-pro", Operation::Chat)
        .unwrap();
    assert_eq!(
        gemini.deployments[0].price.as_ref().unwrap().rates.input.to_string(),
        "1.25"
    );
}

#[test]
fn profiles_of_another_geography_are_left_to_those_who_name_them() {
    let expected = [
        "aws global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "aws eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ];
    let in_europe = in_place("eu-central-1");
    assert_eq!(wire_names(&in_europe, "aws/claude-sonnet-4-5"), expected);
    assert_eq!(wire_names(&in_europe, "nova-pro"), ["aws amazon.nova-pro-v1:0"]);
    assert_eq!(wire_names(&in_europe, "deepseek-r1"), [""; 0]);
    assert_eq!(
        wire_names(&in_europe, "us.deepseek.r1-v1:0"),
        ["aws us.deepseek.r1-v1:0"]
    );
    assert!(in_europe.models().all(|(name, _)| name != "deepseek-r1"));
}

#[test]
fn at_the_same_price_the_profile_of_ones_own_geography_comes_first() {
    let expected = ["aws us.amazon.nova-pro-v1:0", "aws amazon.nova-pro-v1:0"];
    assert_eq!(wire_names(&in_place("us-east-1"), "nova-pro"), expected);
    let first = &wire_names(&in_place("us-east-1"), "claude-sonnet-5-5")[0];
    assert_eq!(
        first, "aws global.anthropic.claude-sonnet-5-5",
        "cheaper counts for more"
    );
}

#[test]
fn a_model_that_is_only_forwarded_has_traits_and_no_price() {
    let mut anthropic = provider("anthropic");
    anthropic.unlisted_models = Unlisted::Forward;
    let catalog = Catalog::build(&settings("", vec![anthropic]));
    let resolved = catalog.resolve("anthropic/claude-opus-9", Operation::Chat).unwrap();
    assert!(resolved.deployments[0].price.is_none(), "unknown is not free");
    assert_eq!(resolved.deployments[0].traits.family, Family::Claude);
    assert!(catalog.listed("anthropic/claude-opus-9").is_none());
    assert!(catalog.resolve("claude-opus-9", Operation::Chat).is_none());
}
