//! Every way the credentials of the clouds are had, end to end: from the configuration over the token service to what
//! arrives at the model endpoint.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bonito::cli::known_dialects;
use bonito::config::{self, Sources};
use bonito::domain::address::AddressRules;
use bonito::domain::call::ErrorClass;
use bonito::providers::adapter::{AnswerForm, AuthScheme, Failure, Payload, WireRequest};
use bonito::upstream::Propagated;
use bonito::upstream::Upstream;
use bonito::upstream::answer::Answer;
use bonito::upstream::endpoint::Endpoint;
use bonito::upstream::payload::SentMark;
use serde_json::json;

use crate::support::cloud::{CANARY, Cloud, aws, azure, google};

/// A path as Bedrock has it: what is sent must be what is signed.
const PATH: &str = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aapplication-inference-profile%2Fabc/converse";

/// One provider, called without a gateway around it.
struct Caller {
    endpoint: Endpoint,
    upstream: Upstream,
    scheme: AuthScheme,
}

impl Caller {
    /// The only provider but echo of this configuration; `CLOUD` stands for the cloud's address.
    fn new(cloud: &Cloud, file: &str, env: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let filled = |text: &str| text.replace("CLOUD", cloud.origin());
        let sources = Sources {
            file: Some(("test.toml".into(), filled(file))),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), filled(value)))
                .collect(),
            overrides: Vec::new(),
        };
        let loaded = config::load(&sources, &known_dialects()).unwrap_or_else(|faults| panic!("{faults}"));
        let control = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let mut providers = loaded.settings.providers.iter();
        let provider = providers.find(|provider| provider.id != "echo").unwrap();
        let endpoint = Endpoint::build(&provider.id, &provider.kind, &control).unwrap();
        let scheme = if endpoint.id.as_str() == "aws" {
            AuthScheme::SigV4
        } else {
            AuthScheme::Bearer
        };
        Self {
            endpoint,
            upstream: Upstream::new(
                &loaded.settings.upstream,
                &loaded.settings.timeouts,
                AddressRules::default(),
            ),
            scheme,
        }
    }

    async fn send(&self) -> Result<Answer, Failure> {
        let mut payload = Payload::default();
        for part in ["{\"messages\":", "[", "]}"] {
            payload.push(part);
        }
        let wire = WireRequest {
            path: PATH.parse().unwrap(),
            payload,
            auth: self.scheme.clone(),
            headers: Default::default(),
            answer: AnswerForm::Whole,
        };
        self.upstream
            .send(&self.endpoint, wire, SentMark::default(), &Propagated::default())
            .await
    }

    /// Sends and says with what the request arrived.
    async fn authorization(&self, cloud: &Cloud) -> String {
        let answer = self.send().await.unwrap();
        assert_eq!(answer.status, 200);
        let arrived = cloud.arrived();
        arrived.last().unwrap().header("authorization").to_owned()
    }
}

const AWS: &str = "[providers.aws]\nbase_url = \"CLOUD\"\nregion = \"us-east-1\"\nsts_url = \"CLOUD/sts\"\n";
const GCP: &str = "[providers.gcp]\nbase_url = \"CLOUD\"\nregion = \"europe-west4\"\nproject_id = \"p\"\n";
const AZURE: &str = "[providers.azure]\nbase_url = \"CLOUD\"\n";
const ROLE: &str = "role_arn = \"arn:aws:iam::7:role/gateway\"\nexternal_id = \"customer-7\"\n";

/// A file with `text`, gone with the test.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// A service account's credentials.
fn service_account(cloud: &Cloud) -> String {
    let token_uri = format!("{}/google/token", cloud.origin());
    json!({"type": "service_account", "project_id": "of-file", "private_key_id": "kid-1",
           "private_key": cloud.key().private, "client_email": google::EMAIL, "token_uri": token_uri})
    .to_string()
}

/// Federated credentials that act as a service account; the subject token comes from `source`.
fn federated(cloud: &Cloud, source: &serde_json::Value) -> String {
    let origin = cloud.origin();
    json!({"type": "external_account", "audience": "//iam.googleapis.com/pool",
           "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": format!("{origin}/google/sts"),
           "credential_source": source,
           "service_account_impersonation_url": format!("{origin}/google/account:generateAccessToken"),
           "service_account_impersonation": {"token_lifetime_seconds": 1800}})
    .to_string()
}

/// Moves the clock while nothing happens, and lets sockets go on in real time.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// Every source of AWS: the table's rest and the environment.
fn aws_sources(
    web: &tempfile::NamedTempFile,
    container: &tempfile::NamedTempFile,
) -> Vec<(String, Vec<(String, String)>)> {
    let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let secret = aws::secret_of(aws::WRITTEN_ID);
    let written = [
        ("AWS_ACCESS_KEY_ID", aws::WRITTEN_ID),
        ("AWS_SECRET_ACCESS_KEY", secret.as_str()),
    ];
    let web = [
        ("AWS_ROLE_ARN", "arn:aws:iam::7:role/pod"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", web.path().to_str().unwrap()),
    ];
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "CLOUD/container"),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            container.path().to_str().unwrap(),
        ),
    ];
    let instance = "credentials = \"instance\"\nmetadata_url = \"CLOUD\"\n";
    vec![
        (String::new(), own(&written)),
        (ROLE.to_owned(), own(&written)),
        (String::new(), own(&web)),
        (ROLE.to_owned(), own(&web)),
        (String::new(), own(&container)),
        (instance.to_owned(), own(&[])),
        (format!("{instance}{ROLE}"), own(&[])),
    ]
}

fn borrowed(env: &[(String, String)]) -> Vec<(&str, &str)> {
    env.iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

#[tokio::test]
async fn every_source_of_aws_ends_in_a_signature_that_verifies() {
    let (web, container) = (file(&format!("{}\n", aws::WEB_TOKEN)), file(aws::CONTAINER_TOKEN));
    for (table, env) in aws_sources(&web, &container) {
        let cloud = Cloud::start().await;
        let caller = Caller::new(&cloud, &format!("{AWS}{table}"), &borrowed(&env));
        for _ in 0..3 {
            assert_eq!(caller.send().await.unwrap().status, 200);
        }
        for arrived in cloud.arrived() {
            assert!(
                aws::is_signed(&arrived, "us-east-1", "bedrock"),
                "{table} {env:?}: {arrived:?}"
            );
            assert_eq!(arrived.uri.path(), PATH, "nothing decodes the path on its way");
            let temporary = aws::access_key_of(&arrived).starts_with("ASIA");
            assert_eq!(temporary, arrived.headers.contains_key("x-amz-security-token"));
        }
        // However many requests there are, each service was asked once.
        assert!(cloud.asked() <= 4, "{table}: {} questions", cloud.asked());
    }
}

#[tokio::test]
async fn bedrocks_own_key_is_a_bearer_token() {
    let cloud = Cloud::start().await;
    let caller = Caller::new(&cloud, AWS, &[("AWS_BEARER_TOKEN_BEDROCK", "ABSKhunter2")]);
    assert_eq!(caller.authorization(&cloud).await, "Bearer ABSKhunter2");
    assert!(!cloud.arrived()[0].headers.contains_key("x-amz-date"));
}

#[tokio::test]
async fn every_source_of_google_ends_in_a_token_that_it_issued() {
    let cloud = Cloud::start().await;
    let subject = file(google::SUBJECT_TOKEN);
    let by_url = json!({"url": format!("{}/google/subject", cloud.origin()), "headers": {"X-Subject": CANARY},
                        "format": {"type": "json", "subject_token_field_name": "value"}});
    let user = json!({"type": "authorized_user", "client_id": "app-1", "client_secret": "hunter2-secret",
                      "refresh_token": google::REFRESH_TOKEN, "quota_project_id": "billed",
                      "token_uri": format!("{}/google/token", cloud.origin())});
    let documents = [
        service_account(&cloud),
        federated(&cloud, &json!({"file": subject.path()})),
        federated(&cloud, &by_url),
        user.to_string(),
    ];
    for (place, document) in documents.iter().enumerate() {
        let table = format!("{GCP}service_account_env = \"DOCUMENT\"");
        let caller = Caller::new(&cloud, &table, &[("DOCUMENT", document)]);
        let wanted = format!("Bearer {CANARY}-google-{}", place + 1);
        assert_eq!(caller.authorization(&cloud).await, wanted, "document {place}");
        assert_eq!(
            caller.authorization(&cloud).await,
            wanted,
            "one token serves many requests"
        );
    }
    assert_eq!(cloud.arrived().last().unwrap().header("x-goog-user-project"), "billed");

    let table = format!("{GCP}credentials = \"metadata\"\nmetadata_url = \"CLOUD\"");
    let caller = Caller::new(&cloud, &table, &[]);
    assert_eq!(caller.authorization(&cloud).await, format!("Bearer {CANARY}-google-5"));
}

#[tokio::test]
async fn a_machine_of_awss_gets_a_token_of_googles_by_a_question_it_signed() {
    let cloud = Cloud::start().await;
    let at = |path: &str| format!("{}/latest/{path}", cloud.origin());
    let source = json!({"environment_id": "aws1", "url": at("meta-data/iam/security-credentials"),
                        "region_url": at("meta-data/placement/availability-zone"),
                        "imdsv2_session_token_url": at("api/token"),
                        "regional_cred_verification_url":
                            "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"});
    let mut document: serde_json::Value = serde_json::from_str(&federated(&cloud, &source)).unwrap();
    document["subject_token_type"] = "urn:ietf:params:aws:token-type:aws4_request".into();
    let table = format!("{GCP}service_account_env = \"DOCUMENT\"");
    let caller = Caller::new(&cloud, &table, &[("DOCUMENT", &document.to_string())]);
    // The first thing that was issued is the machine's keys.
    for _ in 0..2 {
        assert_eq!(caller.authorization(&cloud).await, format!("Bearer {CANARY}-google-2"));
    }
}

#[tokio::test]
async fn a_service_at_the_metadata_address_that_is_not_googles_is_not_believed() {
    let cloud = Cloud::start().await;
    let table = format!("{GCP}credentials = \"metadata\"\nmetadata_url = \"CLOUD/imposter\"");
    let failure = Caller::new(&cloud, &table, &[]).send().await.unwrap_err();
    assert_eq!(failure.class, ErrorClass::ProviderAuth);
    assert!(cloud.arrived().is_empty());
}

#[tokio::test]
async fn a_key_that_is_not_the_accounts_gets_no_token() {
    let cloud = Cloud::start().await;
    let document = service_account(&cloud).replace(
        &json!(cloud.key().private).to_string(),
        &json!(google::TestKey::generate().private).to_string(),
    );
    let table = format!("{GCP}service_account_env = \"DOCUMENT\"");
    let failure = Caller::new(&cloud, &table, &[("DOCUMENT", &document)])
        .send()
        .await
        .unwrap_err();
    assert_eq!(failure.class, ErrorClass::ProviderAuth);
}

#[tokio::test]
async fn every_identity_of_azure_ends_in_a_token_that_it_issued() {
    let cloud = Cloud::start().await;
    let token = file(azure::FEDERATED_TOKEN);
    let machine = "managed_identity = true\nmanaged_identity_url = \"CLOUD\"\nclient_id = \"identity-1\"";
    let kubernetes = [
        ("AZURE_TENANT_ID", "contoso"),
        ("AZURE_CLIENT_ID", "app-1"),
        ("AZURE_FEDERATED_TOKEN_FILE", token.path().to_str().unwrap()),
        ("AZURE_AUTHORITY_HOST", "CLOUD"),
    ];
    let app = [
        ("IDENTITY_ENDPOINT", "CLOUD/msi/token"),
        ("IDENTITY_HEADER", azure::IDENTITY_HEADER),
    ];
    let sources = [
        (machine, &[][..]),
        ("managed_identity = true", &app[..]),
        ("", &kubernetes[..]),
    ];
    for (place, (table, env)) in sources.iter().enumerate() {
        let caller = Caller::new(&cloud, &format!("{AZURE}{table}"), env);
        for _ in 0..2 {
            let wanted = format!("Bearer {CANARY}-azure-{}", place + 1);
            assert_eq!(caller.authorization(&cloud).await, wanted);
        }
    }
}

#[tokio::test]
async fn keys_and_tokens_are_replaced_before_their_end_and_nobody_waits_for_it() {
    let cloud = Cloud::start().await;
    let document = service_account(&cloud);
    let google = Caller::new(
        &cloud,
        &format!("{GCP}service_account_env = \"DOCUMENT\""),
        &[("DOCUMENT", &document)],
    );
    let machine = Caller::new(
        &cloud,
        &format!("{AWS}credentials = \"instance\"\nmetadata_url = \"CLOUD\""),
        &[],
    );
    for (caller, refresh_after_s) in [(&google, 3600 - 225), (&machine, 3600 - 900)] {
        let first = caller.authorization(&cloud).await;
        let key = |authorization: &str| authorization.split("/20").next().unwrap().to_owned();
        let asked = cloud.asked();
        pass(refresh_after_s - 60).await;
        assert_eq!(key(&caller.authorization(&cloud).await), key(&first));
        assert_eq!(cloud.asked(), asked, "it is too early");
        pass(70).await;
        assert_eq!(
            key(&caller.authorization(&cloud).await),
            key(&first),
            "the old one still serves"
        );
        let replaced = async {
            while key(&caller.authorization(&cloud).await) == key(&first) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), replaced)
            .await
            .expect("it is replaced");
    }
}

#[tokio::test]
async fn an_outage_of_the_token_service_is_not_felt_while_the_old_keys_are_good() {
    let cloud = Cloud::start().await;
    let caller = Caller::new(
        &cloud,
        &format!("{AWS}credentials = \"instance\"\nmetadata_url = \"CLOUD\""),
        &[],
    );
    caller.authorization(&cloud).await;
    cloud.goes_down(true);
    let asked = cloud.asked();
    pass(2800).await;
    for _ in 0..20 {
        assert_eq!(aws::access_key_of(cloud.arrived().last().unwrap()), "ASIA1");
        assert_eq!(caller.send().await.unwrap().status, 200);
    }
    assert!(
        cloud.asked() <= asked + 1,
        "a dead service is not asked once per request"
    );
    pass(900).await;
    for _ in 0..20 {
        let failure = caller.send().await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::ProviderAuth);
    }
    assert!(cloud.asked() <= asked + 2, "nor when there is nothing left");
    cloud.goes_down(false);
    pass(31).await;
    assert_eq!(caller.send().await.unwrap().status, 200);
}

#[tokio::test]
async fn refused_keys_are_fetched_anew_and_a_refused_request_is_not() {
    let cloud = Cloud::start().await;
    let caller = Caller::new(
        &cloud,
        &format!("{AWS}credentials = \"instance\"\nmetadata_url = \"CLOUD\""),
        &[],
    );
    caller.authorization(&cloud).await;
    cloud.refuses_next(403, "ExpiredTokenException:http://internal.amazon.com/coral/");
    let answer = caller.send().await.unwrap();
    assert!(answer.credential_renewed);
    caller.authorization(&cloud).await;
    assert_eq!(aws::access_key_of(cloud.arrived().last().unwrap()), "ASIA2");

    cloud.refuses_next(403, "AccessDeniedException");
    assert!(
        !caller.send().await.unwrap().credential_renewed,
        "other keys of the same role change nothing"
    );
    caller.authorization(&cloud).await;
    assert_eq!(aws::access_key_of(cloud.arrived().last().unwrap()), "ASIA2");

    // Keys that are written down have no others behind them.
    let secret = aws::secret_of(aws::WRITTEN_ID);
    let env = [
        ("AWS_ACCESS_KEY_ID", aws::WRITTEN_ID),
        ("AWS_SECRET_ACCESS_KEY", secret.as_str()),
    ];
    let written = Caller::new(&cloud, AWS, &env);
    cloud.refuses_next(403, "InvalidSignatureException");
    assert!(!written.send().await.unwrap().credential_renewed);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_in_any_log_error_or_debug_form() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut shown = String::new();
    let (web, container) = (file(aws::WEB_TOKEN), file(aws::CONTAINER_TOKEN));
    let (wrong_web, wrong_container) = (file("hunter2-wrong"), file("hunter2-wrong"));
    for down in [false, true] {
        let cloud = Cloud::start().await;
        cloud.goes_down(down);
        let document = service_account(&cloud);
        let mut sources: Vec<(String, Vec<(String, String)>)> = Vec::new();
        for (table, env) in aws_sources(&web, &container)
            .into_iter()
            .chain(aws_sources(&wrong_web, &wrong_container))
        {
            sources.push((format!("{AWS}{table}"), env));
        }
        let subject = file(google::SUBJECT_TOKEN);
        for document in [
            document,
            federated(&cloud, &json!({"file": subject.path()})),
            federated(&cloud, &json!({"file": wrong_web.path()})),
        ] {
            let table = format!("{GCP}service_account_env = \"DOCUMENT\"");
            sources.push((table, vec![("DOCUMENT".to_owned(), document)]));
        }
        let identity = format!("{AZURE}managed_identity = true");
        for header in [azure::IDENTITY_HEADER, "hunter2-wrong"] {
            sources.push((
                identity.clone(),
                vec![
                    ("IDENTITY_ENDPOINT".to_owned(), "CLOUD/msi/token".to_owned()),
                    ("IDENTITY_HEADER".to_owned(), header.to_owned()),
                ],
            ));
        }
        for (table, env) in &sources {
            let caller = Caller::new(&cloud, table, &borrowed(env));
            let outcome = caller.send().await;
            shown += &format!("{:?} {outcome:?}\n", caller.endpoint);
        }
        let key = cloud.key().private.lines().nth(3).unwrap().to_owned();
        let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
        assert!(logged.contains("fetching the"), "the log was kept");
        for secret in [CANARY, &key, "Signature="] {
            for line in logged.lines().chain(shown.lines()) {
                assert!(!line.contains(secret), "{secret} in {line}");
            }
        }
    }
}
