//! Claims about `[providers.aws]` and AWS's variables.

use super::*;

const REGION: (&str, &str) = ("AWS_REGION", "eu-west-3");
const BEARER: (&str, &str) = ("AWS_BEARER_TOKEN_BEDROCK", "ABSKhunter2");
const KEY_ID: (&str, &str) = ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
const SECRET: (&str, &str) = ("AWS_SECRET_ACCESS_KEY", "aws-hunter2");
const SESSION: (&str, &str) = ("AWS_SESSION_TOKEN", "session-hunter2");
const CLUSTER_ROLE: (&str, &str) = ("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod");
const TOKEN_FILE: (&str, &str) = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token");

fn auth(provider: &ProviderSettings) -> &AwsAuth {
    match &provider.kind {
        ProviderKind::Aws { auth, .. } => auth,
        other => panic!("not AWS: {other:?}"),
    }
}

fn hosts(provider: &ProviderSettings) -> (String, String) {
    match &provider.kind {
        ProviderKind::Aws { base_url, sts_url, .. } => (text(base_url), text(sts_url)),
        other => panic!("not AWS: {other:?}"),
    }
}

/// The source and the role's ARN.
fn signed(provider: &ProviderSettings) -> (&AwsSource, Option<&str>) {
    match auth(provider) {
        AwsAuth::Signed { source, role } => (source, role.as_ref().map(|role| role.role_arn.as_str())),
        AwsAuth::Bearer(_) => panic!("a bearer key: {provider:?}"),
    }
}

#[test]
fn a_machine_that_merely_has_aws_is_no_customer_of_bedrock() {
    for env in [
        &[REGION][..],
        &[KEY_ID, SECRET],
        &[REGION, KEY_ID],
        &[REGION, CLUSTER_ROLE, TOKEN_FILE],
        &[REGION, ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")],
    ] {
        let (found, warnings) = providers("", env);
        assert!(
            found.is_empty() && warnings.is_empty(),
            "{env:?}: {found:?} {warnings:?}"
        );
    }
}

#[test]
fn bedrock_s_own_key_or_access_keys_with_a_region_configure_it_by_themselves() {
    let found = provider("", &[REGION, BEARER]);
    assert!(matches!(auth(&found), AwsAuth::Bearer(token) if token.expose_secret() == BEARER.1));
    assert_eq!(hosts(&found).0, "https://bedrock-runtime.eu-west-3.amazonaws.com");

    for region in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        let found = provider("", &[(region, "us-east-1"), KEY_ID, SECRET, SESSION]);
        let (AwsSource::Keys(keys), None) = signed(&found) else {
            panic!("{found:?}")
        };
        assert_eq!(keys.access_key_id, KEY_ID.1);
        assert_eq!(keys.secret_access_key.expose_secret(), SECRET.1);
        assert_eq!(keys.session_token.as_ref().unwrap().expose_secret(), SESSION.1);
    }
    assert_eq!(
        fault("", &[BEARER]),
        "providers.aws.region: Bedrock's region is missing; write one such as us-east-1, or set AWS_REGION"
    );
}

#[test]
fn the_bearer_key_wins_over_access_keys_with_a_warning() {
    let (found, warnings) = providers("", &[REGION, BEARER, KEY_ID, SECRET]);
    assert!(matches!(auth(&found[0]), AwsAuth::Bearer(_)));
    assert_eq!(
        warnings,
        ["AWS_BEARER_TOKEN_BEDROCK is used for Bedrock; AWS_ACCESS_KEY_ID is set too and ignored"]
    );
}

#[test]
fn a_session_token_in_the_environment_belongs_to_the_keys_in_the_environment() {
    let file = "[providers.aws]\naccess_key_id = \"AKIDTEAM\"\nsecret_access_key_env = \"TEAM_SECRET\"";
    let found = provider(file, &[REGION, SESSION, ("TEAM_SECRET", "team-hunter2")]);
    let (AwsSource::Keys(keys), None) = signed(&found) else {
        panic!("{found:?}")
    };
    assert_eq!(keys.secret_access_key.expose_secret(), "team-hunter2");
    assert!(keys.session_token.is_none());
}

#[test]
fn a_role_is_assumed_with_whatever_keys_there_are() {
    let file = "[providers.aws]\nrole_arn = \"arn:aws:iam::2:role/gw\"\nexternal_id = \"x-1\"";
    let found = provider(file, &[REGION, KEY_ID, SECRET, BEARER]);
    let AwsAuth::Signed {
        source: AwsSource::Keys(_),
        role: Some(role),
    } = auth(&found)
    else {
        panic!("{found:?}")
    };
    assert_eq!(role.role_arn, "arn:aws:iam::2:role/gw");
    assert_eq!(role.external_id.as_deref(), Some("x-1"));
    assert_eq!(role.session_name, "bonito-gateway");
    assert_eq!(hosts(&found).1, "https://sts.eu-west-3.amazonaws.com");

    let lone = fault("[providers.aws]\nexternal_id = \"x\"", &[REGION, KEY_ID, SECRET]);
    assert!(lone.contains("goes with role_arn"), "{lone}");
}

#[test]
fn a_cluster_s_token_is_for_its_own_role_and_a_written_role_comes_after_it() {
    let found = provider("[providers.aws]", &[REGION, CLUSTER_ROLE, TOKEN_FILE]);
    let (
        AwsSource::WebIdentity {
            role_arn, token_file, ..
        },
        None,
    ) = signed(&found)
    else {
        panic!("{found:?}")
    };
    assert_eq!(role_arn, CLUSTER_ROLE.1);
    assert_eq!(token_file.to_str(), Some(TOKEN_FILE.1));

    let chained = "[providers.aws]\nrole_arn = \"arn:aws:iam::2:role/gw\"";
    let found = provider(chained, &[REGION, CLUSTER_ROLE, TOKEN_FILE]);
    let (AwsSource::WebIdentity { role_arn, .. }, Some("arn:aws:iam::2:role/gw")) = signed(&found) else {
        panic!("{found:?}")
    };
    assert_eq!(role_arn, CLUSTER_ROLE.1);

    let written = "[providers.aws]\nrole_arn = \"arn:aws:iam::3:role/w\"\nweb_identity_token_file = \"/t\"";
    let found = provider(written, &[REGION, CLUSTER_ROLE]);
    let (AwsSource::WebIdentity { role_arn, .. }, None) = signed(&found) else {
        panic!("{found:?}")
    };
    assert_eq!(role_arn, "arn:aws:iam::3:role/w");
}

#[test]
fn containers_are_asked_where_their_platform_says() {
    let container = |env: &[(&str, &str)]| match signed(&provider("[providers.aws]\nregion = \"us-east-1\"", env)) {
        (AwsSource::Container { url, authorization }, None) => (text(url), authorization.clone()),
        other => panic!("{other:?}"),
    };
    let (url, token) = container(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/1")]);
    assert_eq!(url, "http://169.254.170.2/v2/credentials/1");
    assert!(token.is_none());
    let full = "http://169.254.170.23/v1/credentials";
    let (url, token) = container(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", full),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/var/run/eks"),
    ]);
    assert_eq!(url, full);
    assert!(matches!(token, Some(ContainerToken::File(path)) if path.to_str() == Some("/var/run/eks")));

    let elsewhere = [
        REGION,
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://credentials.example/x"),
    ];
    let found = fault("[providers.aws]", &elsewhere);
    assert!(
        found.starts_with("AWS_CONTAINER_CREDENTIALS_FULL_URI: credentials may be asked"),
        "{found}"
    );
}

#[test]
fn the_machine_s_metadata_service_is_asked_only_where_the_table_says_so() {
    let found = provider("[providers.aws]\ncredentials = \"instance\"", &[REGION]);
    assert!(matches!(signed(&found), (AwsSource::Instance { url }, None) if text(url) == "http://169.254.169.254"));
    let found = fault("[providers.aws]", &[REGION]);
    assert!(
        found.starts_with("providers.aws.credentials: this provider has no credential"),
        "{found}"
    );
}

#[test]
fn two_sources_of_credentials_are_a_contradiction() {
    for settings in [
        "access_key_id = \"A\"\nbearer_token_env = \"B\"",
        "credentials = \"instance\"\naccess_key_id = \"A\"",
    ] {
        let found = fault(&format!("[providers.aws]\n{settings}"), &[REGION, ("B", "k")]);
        assert!(found.contains("more than one source"), "{found}");
    }
    let role = "[providers.aws]\nbearer_token_env = \"B\"\nrole_arn = \"arn:aws:iam::2:role/gw\"";
    assert!(fault(role, &[REGION, ("B", "k")]).contains("cannot be assumed with a bearer key"));
}

#[test]
fn what_is_no_region_role_or_key_is_refused_and_secrets_are_not_repeated() {
    for (settings, wanted) in [
        ("region = \"us-east-1.evil.example\"", "is not a region"),
        ("role_arn = \"gateway\"", "is not the ARN of a role"),
        (
            "role_arn = \"arn:aws:iam::2:role/gw\"\nrole_session_name = \"a b\"",
            "is not a session name",
        ),
        ("access_key_id = \"wJal/hunter2\"", "is not the id of an access key"),
        (
            "secret_access_key = \"hunter2\"",
            "is never written into the configuration",
        ),
        ("credentials = \"magic\"", "is no source of credentials"),
    ] {
        let found = faults(&format!("[providers.aws]\n{settings}"), &[REGION, KEY_ID, SECRET]);
        assert!(
            found.iter().any(|fault| fault.contains(wanted)),
            "{settings}: {found:?}"
        );
    }
}

#[test]
fn hosts_follow_the_region_and_the_wishes_and_can_be_written() {
    let fips = provider("[providers.aws]\nfips = true", &[REGION, BEARER]);
    assert_eq!(hosts(&fips).0, "https://bedrock-runtime-fips.eu-west-3.amazonaws.com");
    let dual = provider("", &[REGION, BEARER, ("AWS_USE_DUALSTACK_ENDPOINT", "true")]);
    assert_eq!(hosts(&dual).0, "https://bedrock-runtime.eu-west-3.api.aws");
    let written = "[providers.aws]\nbase_url = \"https://vpce-1.example\"\nsts_url = \"https://sts.example\"";
    let own = provider(written, &[REGION, KEY_ID, SECRET]);
    assert_eq!(
        hosts(&own),
        ("https://vpce-1.example".to_owned(), "https://sts.example".to_owned())
    );
}
