//! Claims about `[providers.gcp]`, Google's variables and its credential documents.

use super::*;

/// A service account's document, with a key that is none.
pub(super) const SERVICE_ACCOUNT: &str = r#"{
  "type": "service_account", "project_id": "proj-of-file", "private_key_id": "kid-1",
  "private_key": "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
  "client_email": "gw@proj.iam.gserviceaccount.com", "client_id": "1",
  "token_uri": "https://oauth2.googleapis.com/token", "universe_domain": "googleapis.com"
}"#;

/// A federated one.
pub(super) const EXTERNAL_ACCOUNT: &str = r#"{
  "type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/x",
  "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": "https://sts.googleapis.com/v1/token",
  "credential_source": {"file": "/var/run/token", "format": {"type": "json", "subject_token_field_name": "t"}},
  "service_account_impersonation_url":
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/gw@p.iam.gserviceaccount.com:generateAccessToken",
  "service_account_impersonation": {"token_lifetime_seconds": 1800}
}"#;

const DOCUMENT: (&str, &str) = ("GOOGLE_APPLICATION_CREDENTIALS", "/run/secrets/google");
const LOCATION: (&str, &str) = ("GOOGLE_CLOUD_LOCATION", "europe-west4");

fn gcp(provider: &ProviderSettings) -> (String, &str, &str, &GcpAuth) {
    match &provider.kind {
        ProviderKind::Gcp {
            base_url,
            project_id,
            location,
            auth,
        } => (text(base_url), project_id, location, auth),
        other => panic!("not GCP: {other:?}"),
    }
}

#[test]
fn a_document_and_a_location_configure_it_by_themselves() {
    let found = provider("", &[DOCUMENT, LOCATION]);
    let (base_url, project, location, auth) = gcp(&found);
    assert_eq!(base_url, "https://europe-west4-aiplatform.googleapis.com");
    assert_eq!((project, location), ("proj-of-file", "europe-west4"));
    let GcpAuth::ServiceAccount(key) = auth else {
        panic!("{found:?}")
    };
    assert_eq!(key.client_email, "gw@proj.iam.gserviceaccount.com");
    assert_eq!(key.private_key_id.as_deref(), Some("kid-1"));

    let project = provider("", &[DOCUMENT, LOCATION, ("GOOGLE_CLOUD_PROJECT", "other")]);
    assert_eq!(gcp(&project).1, "other");
    for env in [DOCUMENT, LOCATION, ("GOOGLE_CLOUD_PROJECT", "p")] {
        assert!(providers("", &[env]).0.is_empty(), "{env:?}");
    }
}

#[test]
fn the_metadata_service_is_asked_only_where_the_table_says_so() {
    let file = "[providers.gcp]\nregion = \"global\"\nproject_id = \"p\"\ncredentials = \"metadata\"";
    let found = provider(file, &[]);
    let (base_url, .., auth) = gcp(&found);
    assert_eq!(base_url, "https://aiplatform.googleapis.com");
    assert!(matches!(auth, GcpAuth::Metadata { url } if text(url) == "http://metadata.google.internal"));
    let elsewhere = provider(file, &[("GCE_METADATA_HOST", "127.0.0.1:8080")]);
    assert!(matches!(gcp(&elsewhere).3, GcpAuth::Metadata { url } if text(url) == "http://127.0.0.1:8080"));

    let silent = fault("[providers.gcp]\nregion = \"global\"\nproject_id = \"p\"", &[]);
    assert_eq!(
        silent,
        "providers.gcp.service_account_file: this provider has no credential; set GOOGLE_APPLICATION_CREDENTIALS, or \
         in Google Cloud write credentials = \"metadata\""
    );
    let without_project = fault("[providers.gcp]\nregion = \"us\"\ncredentials = \"metadata\"", &[]);
    assert!(without_project.starts_with("providers.gcp.project_id: the project is missing"));
    let both = format!("{file}\nservice_account_file = \"/run/secrets/google\"");
    assert!(fault(&both, &[]).contains("keep one of the two"));
}

#[test]
fn a_document_may_lie_in_a_variable_of_one_s_own() {
    let file = "[providers.gcp]\nregion = \"eu\"\nservice_account_env = \"TEAM_GOOGLE\"";
    let found = provider(file, &[("TEAM_GOOGLE", SERVICE_ACCOUNT), DOCUMENT]);
    let (base_url, project, ..) = gcp(&found);
    assert_eq!(
        (base_url.as_str(), project),
        ("https://aiplatform.eu.rep.googleapis.com", "proj-of-file")
    );
}

#[test]
fn federation_and_impersonation_are_read_from_their_documents() {
    let env = [("GOOGLE_APPLICATION_CREDENTIALS", "/run/secrets/federated"), LOCATION];
    let found = provider("[providers.gcp]\nproject_id = \"p\"", &env);
    let GcpAuth::External(account) = gcp(&found).3 else {
        panic!("{found:?}")
    };
    assert!(matches!(&account.subject, SubjectSource::File(path) if path.to_str() == Some("/var/run/token")));
    assert!(matches!(&account.format, SubjectFormat::Json { field } if field == "t"));
    assert_eq!(account.impersonation.as_ref().unwrap().lifetime_s, 1800);

    let nested = r#"{"type": "impersonated_service_account",
      "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/x:generateAccessToken",
      "source_credentials": {"type": "authorized_user", "client_id": "c", "client_secret": "hunter2",
        "refresh_token": "hunter2", "quota_project_id": "q"}}"#;
    let read = GoogleCredentials::from_json(nested, WrittenBy::Operator).unwrap();
    assert_eq!(read.auth.quota_project(), Some("q"));
    assert!(!format!("{read:?}").contains("hunter2"));
}

#[test]
fn what_is_wrong_with_a_document_is_said_without_repeating_it() {
    let document = |text: &str| GoogleCredentials::from_json(text, WrittenBy::Operator).unwrap_err();
    for (text, wanted) in [
        ("hunter2", "is not JSON"),
        (r#"{"type": "hunter2"}"#, "must be service_account"),
        (r#"{"private_key": 7}"#, "wrong type"),
        (
            r#"{"type": "service_account", "client_email": "a"}"#,
            "\"private_key\" is missing",
        ),
        (
            r#"{"type": "service_account", "client_email": "a", "private_key": "hunter2", "token_uri": "http://x.example"}"#,
            "\"token_uri\" must begin with https://",
        ),
        (
            r#"{"type": "external_account", "credential_source": {"environment_id": "aws2"}}"#,
            "\"environment_id\" must be aws1",
        ),
        (
            r#"{"type": "external_account", "credential_source": {"environment_id": "aws1"}}"#,
            "\"url\" is missing",
        ),
        (
            r#"{"type": "external_account", "credential_source":
                {"environment_id": "aws1", "url": "http://hunter2.example/latest"}}"#,
            "\"url\" must be of AWS's metadata service",
        ),
        (
            r#"{"type": "external_account", "credential_source": {"environment_id": "aws1",
                "url": "http://169.254.169.254/latest", "region_url": "http://[fd00:ec2::254]/latest"}}"#,
            "\"region_url\" and its \"url\" must be of the same metadata service",
        ),
        (
            r#"{"type": "external_account", "credential_source": {"environment_id": "aws1",
                "url": "http://169.254.169.254/latest", "regional_cred_verification_url": "https://hunter2.example"}}"#,
            "\"regional_cred_verification_url\" must be https://sts.{region}.amazonaws.com?",
        ),
        (
            r#"{"type": "external_account", "credential_source": {"executable": {"command": "hunter2"}}}"#,
            "starts no programs",
        ),
        (
            r#"{"type": "external_account", "credential_source": {"certificate": {}}}"#,
            "is a certificate",
        ),
    ] {
        let problem = document(text);
        assert!(problem.contains(wanted), "{text}: {problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn a_tenant_s_document_reads_no_file_and_calls_google_alone() {
    let tenant = |text: &str| GoogleCredentials::from_json(text, WrittenBy::Tenant);
    assert!(tenant(SERVICE_ACCOUNT).is_ok());
    assert!(tenant(EXTERNAL_ACCOUNT).unwrap_err().contains("is not accepted here"));
    for elsewhere in [
        "https://oauth2.evil.example/token",
        "http://127.0.0.1/token",
        "https://googleapis.com.evil.example/token",
        "https://oauth2.googleapis.com:8443/token",
    ] {
        let document = SERVICE_ACCOUNT.replace("https://oauth2.googleapis.com/token", elsewhere);
        let problem = tenant(&document).unwrap_err();
        assert!(problem.contains("an address of Google's"), "{elsewhere}: {problem}");
    }
}

#[test]
fn what_would_leave_the_path_or_the_host_is_refused() {
    for (settings, wanted) in [
        ("region = \"us/../x\"\nproject_id = \"p\"", "is not a location"),
        ("region = \"us\"\nproject_id = \"a/b\"", "is not the id of a project"),
        ("region = \"us\"\nproject_id = \"..\"", "is not the id of a project"),
    ] {
        let found = fault(&format!("[providers.gcp]\n{settings}"), &[DOCUMENT]);
        assert!(found.contains(wanted), "{found}");
    }
}
