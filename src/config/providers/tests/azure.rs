//! Claims about `[providers.azure]` and Azure's variables.

use super::*;

fn azure(provider: &ProviderSettings) -> (String, &AzureSurface, &AzureAuth) {
    match &provider.kind {
        ProviderKind::Azure {
            base_url,
            surface,
            auth,
        } => (text(base_url), surface, auth),
        other => panic!("not Azure: {other:?}"),
    }
}

#[test]
fn azure_s_variables_configure_it_with_either_credential() {
    let found = provider("", &[AZURE, AZURE_KEY]);
    let (base_url, surface, auth) = azure(&found);
    assert_eq!(base_url, "https://contoso.openai.azure.com");
    assert_eq!(surface, &AzureSurface::V1);
    assert!(matches!(auth, AzureAuth::ApiKey(key) if key.expose_secret() == "az-hunter2"));

    let found = provider("", &[AZURE, TENANT, CLIENT, CLIENT_SECRET]);
    let AzureAuth::ClientCredentials {
        tenant_id,
        client_id,
        client_secret,
        scope,
        authority,
    } = azure(&found).2
    else {
        panic!("{found:?}")
    };
    assert_eq!((tenant_id.as_str(), client_id.as_str()), (TENANT.1, CLIENT.1));
    assert_eq!(client_secret.expose_secret(), "app-hunter2");
    assert_eq!(scope, "https://cognitiveservices.azure.com/.default");
    assert_eq!(text(authority), "https://login.microsoftonline.com");
}

#[test]
fn with_both_credentials_in_the_environment_the_resource_key_wins_with_a_warning() {
    let env = [AZURE, AZURE_KEY, TENANT, CLIENT, CLIENT_SECRET];
    let (found, warnings) = providers("[providers.azure]\nunlisted_models = \"forward\"", &env);
    assert!(matches!(azure(&found[0]).2, AzureAuth::ApiKey(_)));
    assert!(warnings[0].contains("set too and ignored"), "{warnings:?}");
}

#[test]
fn a_half_set_azure_is_a_fault_only_when_the_endpoint_says_it_is_meant() {
    assert_eq!(
        fault("", &[AZURE]),
        "AZURE_OPENAI_ENDPOINT: the Azure resource has no credential; set AZURE_OPENAI_API_KEY, or \
         AZURE_TENANT_ID + AZURE_CLIENT_ID + AZURE_CLIENT_SECRET"
    );
    assert_eq!(
        fault("", &[AZURE, TENANT, CLIENT]),
        "AZURE_OPENAI_ENDPOINT: the Azure resource has no credential; set AZURE_OPENAI_API_KEY, or \
         AZURE_CLIENT_SECRET, which would complete the Entra ID application"
    );
    let (found, warnings) = providers("", &[TENANT, CLIENT, CLIENT_SECRET]);
    assert!(found.is_empty() && warnings.is_empty());
    let (found, warnings) = providers("", &[AZURE_KEY]);
    assert!(found.is_empty());
    assert_eq!(
        warnings,
        ["AZURE_OPENAI_API_KEY is set but AZURE_OPENAI_ENDPOINT is not, so Azure is not used"]
    );
}

#[test]
fn the_file_decides_how_azure_requests_are_signed() {
    let application = "[providers.azure]\ntenant_id = \"contoso.example\"";
    let env = [AZURE, AZURE_KEY, TENANT, CLIENT, CLIENT_SECRET];
    let found = provider(application, &env);
    let AzureAuth::ClientCredentials {
        tenant_id, client_id, ..
    } = azure(&found).2
    else {
        panic!("{found:?}")
    };
    assert_eq!((tenant_id.as_str(), client_id.as_str()), ("contoso.example", CLIENT.1));

    let key = "[providers.azure]\napi_key_env = \"OTHER_KEY\"";
    let found = provider(key, &[AZURE, ("OTHER_KEY", "k"), TENANT, CLIENT, CLIENT_SECRET]);
    assert!(matches!(azure(&found).2, AzureAuth::ApiKey(key) if key.expose_secret() == "k"));

    let both = "[providers.azure]\napi_key_env = \"OTHER_KEY\"\nclient_id = \"a\"";
    let found = fault(both, &[AZURE]);
    assert!(found.starts_with("providers.azure: both an API key and"), "{found}");
}

#[test]
fn an_incomplete_application_names_each_missing_part() {
    let file = "[providers.azure]\nbase_url = \"https://c.openai.azure.com\"\nclient_id = \"a\"";
    let faults = load(file, &[]).unwrap_err();
    let places: Vec<&str> = faults.iter().map(|fault| fault.at.as_str()).collect();
    assert_eq!(
        places,
        ["providers.azure.tenant_id", "providers.azure.client_secret_env"]
    );
}

#[test]
fn a_version_selects_the_deployments_surface() {
    let dated = |version: &str| AzureSurface::Deployments {
        api_version: version.to_owned(),
    };
    let with = |settings: &str, env: &[(&str, &str)]| {
        let mut all = vec![AZURE, AZURE_KEY];
        all.extend_from_slice(env);
        let found = provider(&format!("[providers.azure]\n{settings}"), &all);
        azure(&found).1.clone()
    };
    let variable = ("OPENAI_API_VERSION", "2025-04-01-preview");
    assert_eq!(with("", &[]), AzureSurface::V1);
    assert_eq!(with("", &[variable]), dated("2025-04-01-preview"));
    assert_eq!(with("surface = \"deployments\"", &[]), dated("2024-10-21"));
    assert_eq!(
        with("surface = \"deployments\"", &[variable]),
        dated("2025-04-01-preview")
    );
    assert_eq!(with("api_version = \"2024-06-01\"", &[variable]), dated("2024-06-01"));
    assert_eq!(with("surface = \"v1\"", &[variable]), AzureSurface::V1);

    for (settings, wanted) in [
        ("surface = \"v2\"", "neither"),
        ("surface = \"v1\"\napi_version = \"2024-10-21\"", "no dated versions"),
        ("api_version = \"latest\"", "is not a version"),
        ("api_version = \"2024-1-21&x\"", "is not a version"),
    ] {
        let found = fault(&format!("[providers.azure]\n{settings}"), &[AZURE, AZURE_KEY]);
        assert!(found.contains(wanted), "{found}");
    }
}

#[test]
fn an_azure_url_ends_at_the_resource() {
    for written in ["/", "/openai", "/openai/v1/", ""] {
        let url = format!("https://contoso.openai.azure.com{written}");
        let found = provider("", &[("AZURE_OPENAI_ENDPOINT", &url), AZURE_KEY]);
        assert_eq!(azure(&found).0, "https://contoso.openai.azure.com");
    }
    let url = "https://gateway.example/team/v1";
    assert_eq!(
        azure(&provider("", &[("AZURE_OPENAI_ENDPOINT", url), AZURE_KEY])).0,
        url
    );
    let url = "https://c.openai.azure.com/openai/deployments/x";
    let found = fault("", &[("AZURE_OPENAI_ENDPOINT", url), AZURE_KEY]);
    assert!(
        found.starts_with("AZURE_OPENAI_ENDPOINT: goes past the resource"),
        "{found}"
    );
}

#[test]
fn azure_deployments_come_from_a_variable_too() {
    let env = [AZURE, AZURE_KEY, ("AZURE_OPENAI_DEPLOYMENT", "gpt-4o=prod-4o, o3 ,")];
    let found = provider("", &env);
    let names: Vec<(&str, &str)> = found
        .deployments
        .iter()
        .map(|deployment| (deployment.model.as_str(), deployment.name.as_str()))
        .collect();
    assert_eq!(names, [("gpt-4o", "prod-4o"), ("o3", "o3")]);

    let file = "[[providers.azure.deployments]]\nmodel = \"a\"";
    assert_eq!(provider(file, &env).deployments[0].model, "a");
    let wrong = [AZURE, AZURE_KEY, ("AZURE_OPENAI_DEPLOYMENT_NAME", "a=,b b")];
    assert_eq!(faults("", &wrong).len(), 2);
}

#[test]
fn a_managed_identity_is_used_only_where_the_file_says_so() {
    let managed = |settings: &str, env: &[(&str, &str)]| {
        let mut all = vec![AZURE, TENANT, CLIENT];
        all.extend_from_slice(env);
        let found = provider(&format!("[providers.azure]\nmanaged_identity = true\n{settings}"), &all);
        match azure(&found).2 {
            AzureAuth::ManagedIdentity {
                service,
                client_id,
                resource,
            } => (service.clone(), client_id.clone(), resource.clone()),
            other => panic!("{other:?}"),
        }
    };
    let (service, client_id, resource) = managed("", &[]);
    assert!(matches!(service, IdentityService::Machine { url } if text(&url) == "http://169.254.169.254"));
    assert_eq!(
        (client_id, resource.as_str()),
        (None, "https://cognitiveservices.azure.com")
    );

    let app = [
        ("IDENTITY_ENDPOINT", "http://127.0.0.1:41/msi/token"),
        ("IDENTITY_HEADER", "header-hunter2"),
    ];
    let (service, client_id, _) = managed("client_id = \"id-1\"", &app);
    assert!(matches!(service, IdentityService::App { header, .. } if header.expose_secret() == "header-hunter2"));
    assert_eq!(client_id.as_deref(), Some("id-1"));

    let silent = faults("[providers.azure]", &[AZURE, app[0], app[1]]);
    assert!(silent[0].contains("has no credential"), "{silent:?}");
    let both = "[providers.azure]\nmanaged_identity = true\nclient_secret_env = \"S\"";
    assert!(fault(both, &[AZURE]).contains("another credential is written"));
    let lone = "[providers.azure]\nmanaged_identity_url = \"http://127.0.0.1\"";
    assert!(fault(lone, &[AZURE]).contains("goes with managed_identity"));
}

#[test]
fn an_application_in_kubernetes_proves_itself_by_a_token_s_file() {
    let federated = ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/azure/token");
    let found = provider("", &[AZURE, TENANT, CLIENT, federated]);
    let AzureAuth::WorkloadIdentity {
        token_file, client_id, ..
    } = azure(&found).2
    else {
        panic!("{found:?}")
    };
    assert_eq!((token_file.to_str(), client_id.as_str()), (Some(federated.1), CLIENT.1));
    // A secret that is there is the more deliberate proof.
    let found = provider("", &[AZURE, TENANT, CLIENT, CLIENT_SECRET, federated]);
    assert!(matches!(azure(&found).2, AzureAuth::ClientCredentials { .. }));
}
