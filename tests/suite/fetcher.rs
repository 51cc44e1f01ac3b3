//! Fetching by URL, against sites on real sockets that do what an attacker's would.
//!
//! Sites listen on loopback addresses, and a test's policy allows the one address its site has. A canary beside it
//! listens on an address that nobody allowed, and must never see a connection.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bonito::chat::media::MediaType;
use bonito::domain::address::{AddressKind, AddressRules};
use bonito::domain::error::GatewayError;
use bonito::telemetry::metrics::Metrics;
use bonito::upstream::fetcher::{FetchError, FetchPolicy, Fetcher, Resolve};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and so on";
const AUTHORITY: &[u8] = include_bytes!("certificates/authority.der");
const CERTIFICATE: &[u8] = include_bytes!("certificates/files.example.der");
const PRIVATE_KEY: &[u8] = include_bytes!("certificates/files.example.key.der");

/// Where sites listen, and where canaries do.
const SITE: [u8; 4] = [127, 0, 0, 2];
const CANARY: [u8; 4] = [127, 0, 0, 1];

/// What a site does with a request.
#[derive(Clone)]
enum Reply {
    /// Sends this and closes.
    Whole(Vec<u8>),
    /// Sends this, and then the second part again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// Sends this, and then one byte every few milliseconds.
    Drip(Vec<u8>),
    /// Never says anything.
    Silence,
}

/// An HTTP server that answers with what it is told, by path.
struct Site {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    /// Hears of each connection's end.
    closed: mpsc::UnboundedReceiver<()>,
    _accepting: AbortOnDropHandle<()>,
}

impl Site {
    async fn start(replies: &[(&'static str, Reply)]) -> Self {
        Self::serve(replies, None).await
    }

    async fn start_tls(replies: &[(&'static str, Reply)]) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(PRIVATE_KEY));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(CERTIFICATE)], key)
            .unwrap();
        Self::serve(replies, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(replies: &[(&'static str, Reply)], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((SITE, 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (ended, closed) = mpsc::unbounded_channel();
        let (replies, seen) = (replies.to_vec(), requests.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (replies, seen, ended, tls) = (replies.clone(), seen.clone(), ended.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => drop(answer(stream, &replies, &seen).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(answer(stream, &replies, &seen).await);
                            }
                        }
                    }
                    let _heard = ended.send(());
                });
            }
        });
        Self {
            address,
            requests,
            closed,
            _accepting: AbortOnDropHandle::new(accepting),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// A policy that allows this site and nothing else that is not public.
    fn policy(&self) -> FetchPolicy {
        FetchPolicy {
            addresses: AddressRules {
                allowed: vec![self.address.ip().into()],
                blocked: Vec::new(),
            },
            ports: vec![self.address.port()],
            max_bytes: 64 * 1024,
            max_redirects: 3,
            max_concurrent: 4,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }

    fn fetcher(&self) -> Fetcher {
        fetcher(self.policy())
    }

    /// Something that listens on the same port of an address that the policy does not allow.
    async fn canary(&self) -> Canary {
        let listener = TcpListener::bind(SocketAddr::from((CANARY, self.address.port()))).await;
        Canary(listener.expect("the port is free on the other address"))
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    replies: &[(&'static str, Reply)],
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    seen.lock().unwrap().push(head);
    let reply = replies.iter().find(|(known, _)| *known == path);
    match reply.map(|(_, reply)| reply.clone()).expect("the site knows the path") {
        Reply::Whole(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Reply::Endless(head, part) => {
            stream.write_all(&head).await?;
            loop {
                stream.write_all(&part).await?;
                stream.flush().await?;
            }
        }
        Reply::Drip(head) => {
            stream.write_all(&head).await?;
            loop {
                stream.write_all(b"x").await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        // Until the other side closes.
        Reply::Silence => stream.read_u8().await.map(drop),
    }
}

/// Listens and hopes for nobody.
struct Canary(TcpListener);

impl Canary {
    /// Fails if anybody has connected so far: connections are accepted in the order they came, so ours must be first.
    async fn saw_nobody(&self) {
        let ours = TcpStream::connect(self.0.local_addr().unwrap()).await.unwrap();
        let (_, first) = self.0.accept().await.unwrap();
        assert_eq!(first, ours.local_addr().unwrap(), "somebody connected to the canary");
    }
}

/// Names that resolve to what a test says; the last answer of a name stays.
#[derive(Debug, Default)]
struct ScriptedNames {
    answers: Mutex<HashMap<&'static str, VecDeque<Vec<IpAddr>>>>,
    lookups: Mutex<Vec<String>>,
}

impl ScriptedNames {
    fn new(names: &[(&'static str, &[&[&str]])]) -> Arc<Self> {
        let read = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let answers = names
            .iter()
            .map(|(name, answers)| (*name, answers.iter().map(read).collect()));
        Arc::new(Self {
            answers: Mutex::new(answers.collect()),
            lookups: Mutex::default(),
        })
    }
}

#[async_trait]
impl Resolve for ScriptedNames {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.lookups.lock().unwrap().push(name.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let known = answers.get_mut(name);
        let answers = known.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        Ok(answer.unwrap())
    }
}

fn ok(content_type: &str, body: &[u8]) -> Reply {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    Reply::Whole(bytes)
}

fn head(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes()
}

fn redirect(location: &str) -> Reply {
    Reply::Whole(format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(AUTHORITY)).unwrap();
    roots
}

fn fetcher(policy: FetchPolicy) -> Fetcher {
    Fetcher::new(policy, Arc::default())
}

fn with_names(policy: FetchPolicy, names: Arc<ScriptedNames>, roots: RootCertStore) -> Fetcher {
    Fetcher::with(policy, names, roots, Arc::default())
}

async fn image(fetcher: &Fetcher, url: &str) -> Result<Vec<u8>, FetchError> {
    let fetched = fetcher.get(url, &MediaType::IMAGES).await?;
    Ok(fetched.bytes.to_vec())
}

#[tokio::test]
async fn a_picture_is_fetched_with_a_request_that_holds_nothing_but_its_url() {
    let site = Site::start(&[("/a.png?size=2", ok("application/octet-stream", PNG))]).await;
    let fetched = site
        .fetcher()
        .get(&site.url("/a.png?size=2#top"), &MediaType::ALL)
        .await
        .unwrap();
    assert_eq!(
        (fetched.media, &fetched.bytes[..]),
        (MediaType::Png, PNG),
        "the bytes decide, not the header"
    );
    let mut lines: Vec<String> = site.requests()[0].lines().map(str::to_owned).collect();
    lines.sort();
    let expected = format!(
        "\naccept-encoding: identity\n\
         accept: image/png, image/jpeg, image/gif, image/webp, application/pdf, text/plain\n\
         connection: close\n\
         host: {}\n\
         user-agent: bonito-gateway/{}",
        site.address,
        env!("CARGO_PKG_VERSION")
    );
    let mut expected: Vec<&str> = expected.split('\n').collect();
    expected.push("GET /a.png?size=2 HTTP/1.1");
    expected.sort_unstable();
    assert_eq!(lines, expected);
    assert_eq!(
        format!("{fetched:?}"),
        format!("Fetched {{ media: Png, bytes: {} }}", PNG.len())
    );
}

#[tokio::test]
async fn no_spelling_of_an_address_reaches_what_nobody_allowed() {
    let site = Site::start(&[]).await;
    let canary = site.canary().await;
    let port = site.address.port();
    let names = ScriptedNames::new(&[
        ("loopback.example", &[&["127.0.0.1"]]),
        ("mapped.example", &[&["::ffff:127.0.0.1"]]),
        ("unspecified.example", &[&["0.0.0.0"]]),
        ("mixed.example", &[&["127.0.0.2", "127.0.0.1"]]),
        ("private.example", &[&["10.0.0.1"]]),
        ("metadata.example", &[&["169.254.169.254"]]),
    ]);
    let fetcher = with_names(site.policy(), names.clone(), roots());
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "127.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "127。0。0。1",
        "１２７.0.0.1",
        "0",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:808:808::80ff:fffe]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "169.254.169.254",
        "[::ffff:a9fe:a9fe]",
        "loopback.example",
        "LoopBack.Example",
        "mapped.example",
        "unspecified.example",
        "mixed.example",
        "private.example",
        "metadata.example",
    ] {
        let refused = image(&fetcher, &format!("http://{host}:{port}/")).await.unwrap_err();
        assert!(matches!(refused, FetchError::NotPublic(_)), "{host}: {refused:?}");
    }
    canary.saw_nobody().await;
    assert!(
        site.requests().is_empty(),
        "a name with one bad address is refused as a whole"
    );
}

#[tokio::test]
async fn a_private_name_and_a_name_that_does_not_exist_read_the_same() {
    let site = Site::start(&[]).await;
    let names = ScriptedNames::new(&[("vault.corp.example", &[&["10.11.12.13"]]), ("empty.example", &[&[]])]);
    let fetcher = with_names(site.policy(), names, roots());
    let port = site.address.port();
    let mut texts = Vec::new();
    for host in ["vault.corp.example", "nowhere.example", "empty.example", "10.11.12.13"] {
        let error = image(&fetcher, &format!("http://{host}:{port}/")).await.unwrap_err();
        let GatewayError::Invalid(invalid) = error.at("messages[3].content[1].image_url.url") else {
            panic!("{error:?} is the caller's to repair");
        };
        assert_eq!(invalid.field.as_deref(), Some("messages[3].content[1].image_url.url"));
        texts.push(invalid.problem);
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert_eq!(
        texts[0],
        "the address is not public or does not exist; send the content itself, as a data: URL"
    );
}

#[tokio::test]
async fn a_name_that_changes_its_mind_between_two_lookups_changes_nothing() {
    let site = Site::start(&[("/", ok("image/png", PNG)), ("/again", redirect("/"))]).await;
    let canary = site.canary().await;
    let port = site.address.port();
    let names = ScriptedNames::new(&[("rebinding.example", &[&["127.0.0.2"], &["127.0.0.1"]])]);
    let fetcher = with_names(site.policy(), names.clone(), roots());
    assert_eq!(
        image(&fetcher, &format!("http://rebinding.example:{port}/"))
            .await
            .unwrap(),
        PNG
    );
    assert_eq!(
        names.lookups.lock().unwrap().len(),
        1,
        "one lookup for judging and connecting"
    );
    let next = image(&fetcher, &format!("http://rebinding.example:{port}/")).await;
    assert_eq!(next, Err(FetchError::NotPublic(AddressKind::Loopback)));

    // Nor does a redirect to the same name carry the first judgement over.
    let names = ScriptedNames::new(&[("rebinding.example", &[&["127.0.0.2"], &["127.0.0.1"]])]);
    let fetcher = with_names(site.policy(), names, roots());
    let refused = image(&fetcher, &format!("http://rebinding.example:{port}/again")).await;
    let inner = Box::new(FetchError::NotPublic(AddressKind::Loopback));
    assert_eq!(refused, Err(FetchError::Redirected(inner)));
    canary.saw_nobody().await;
}

#[tokio::test]
async fn a_redirect_is_judged_like_a_url_of_its_own() {
    let site = Site::start(&[
        ("/here", redirect("there")),
        ("/there", ok("image/png", PNG)),
        ("/1", redirect("/2")),
        ("/2", redirect("/3")),
        ("/3", redirect("/there")),
        ("/loop", redirect("/loop")),
        ("/file", redirect("file:///etc/passwd")),
        ("/user", redirect("http://user:pass@example.com/")),
        ("/port", redirect("http://example.com:22/")),
        ("/nowhere", Reply::Whole(b"HTTP/1.1 302 Found\r\n\r\n".to_vec())),
    ])
    .await;
    let fetcher = site.fetcher();
    for path in ["/here", "/1"] {
        assert_eq!(image(&fetcher, &site.url(path)).await.unwrap(), PNG, "{path}");
    }
    let redirected = |error| Err(FetchError::Redirected(Box::new(error)));
    for (path, expected) in [
        ("/loop", Err(FetchError::Redirects { limit: 3 })),
        ("/file", redirected(FetchError::Scheme)),
        ("/user", redirected(FetchError::Userinfo)),
        ("/port", redirected(FetchError::Port(22))),
        ("/nowhere", Err(FetchError::Status(302))),
    ] {
        assert_eq!(image(&fetcher, &site.url(path)).await, expected, "{path}");
    }
    let loops = site
        .requests()
        .iter()
        .filter(|request| request.contains("/loop"))
        .count();
    assert_eq!(loops, 4, "the first request and three redirects");
}

#[tokio::test]
async fn a_redirect_to_this_machine_is_not_followed() {
    // The port is known only when the site listens, so a first site gives its port to the second one's redirects.
    let first = Site::start(&[]).await;
    let canary = first.canary().await;
    let port = first.address.port();
    for location in [
        format!("http://127.0.0.1:{port}/"),
        format!("//127.1:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://169.254.169.254:{port}/latest/meta-data/"),
    ] {
        let site = Site::start(&[("/", redirect(&location))]).await;
        let mut policy = site.policy();
        policy.ports.push(port);
        let refused = image(&fetcher(policy), &site.url("/")).await.unwrap_err();
        assert!(
            matches!(&refused, FetchError::Redirected(inner) if matches!(**inner, FetchError::NotPublic(_))),
            "{location}: {refused:?}"
        );
        assert!(!refused.to_string().contains("127."), "{refused}");
    }
    canary.saw_nobody().await;
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_at_the_limit() {
    let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 4096], b"\r\n".to_vec()].concat();
    let start = [b"14\r\n".to_vec(), PNG[..20].to_vec(), b"\r\n".to_vec()].concat();
    let chunked = [head("transfer-encoding: chunked\r\n"), start].concat();
    let until_closed = [head(""), PNG.to_vec()].concat();
    let mut site = Site::start(&[
        ("/chunked", Reply::Endless(chunked, chunk)),
        ("/until-closed", Reply::Endless(until_closed, vec![b'x'; 4096])),
        (
            "/announced",
            Reply::Endless(head("content-length: 65537\r\n"), PNG.to_vec()),
        ),
        (
            "/headers",
            Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-more: and more\r\n".to_vec()),
        ),
    ])
    .await;
    let fetcher = site.fetcher();
    for path in ["/chunked", "/until-closed", "/announced"] {
        let cut = image(&fetcher, &site.url(path)).await;
        assert_eq!(cut, Err(FetchError::TooLarge { limit_bytes: 65_536 }), "{path}");
    }
    assert_eq!(image(&fetcher, &site.url("/headers")).await, Err(FetchError::Cut));
    // Cut, not read on and thrown away: the site's writes fail.
    for _ in 0..4 {
        site.closed.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let mut body = PNG.to_vec();
    body.resize(65_536, 0);
    let until_closed = Reply::Whole([head(""), body.clone()].concat());
    let site = Site::start(&[("/announced", ok("image/png", &body)), ("/until-closed", until_closed)]).await;
    for path in ["/announced", "/until-closed"] {
        assert_eq!(image(&site.fetcher(), &site.url(path)).await.unwrap(), body, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_drips_is_cut_at_the_time_limit() {
    let drip = Reply::Drip([head(""), PNG.to_vec()].concat());
    let slow_head = Reply::Drip(b"HTTP/1.1 200 OK\r\nx-slow: ".to_vec());
    let mut site = Site::start(&[("/body", drip), ("/head", slow_head), ("/silence", Reply::Silence)]).await;
    let limit = Duration::from_millis(200);
    let fetcher = fetcher(FetchPolicy {
        timeout: limit,
        ..site.policy()
    });
    for path in ["/body", "/head", "/silence"] {
        assert_eq!(
            image(&fetcher, &site.url(path)).await,
            Err(FetchError::Timeout { limit }),
            "{path}"
        );
        site.closed.recv().await.unwrap();
    }
}

#[tokio::test]
async fn the_first_bytes_decide_what_is_taken() {
    let site = Site::start(&[
        ("/png", ok("text/html", PNG)),
        ("/pdf", ok("image/png", b"%PDF-1.7\n%and so on")),
        ("/html", ok("image/png", b"<html><body>not a picture</body></html>")),
        ("/short", ok("image/png", b"\x89PNG")),
        ("/text", ok("text/plain; charset=utf-8", "grüße".as_bytes())),
        ("/unsaid", ok("application/octet-stream", b"text nobody calls text")),
        ("/latin", ok("text/plain", b"gr\xfc\xdfe and a few more bytes")),
        (
            "/missing",
            Reply::Whole(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ),
    ])
    .await;
    let fetcher = site.fetcher();
    let kind = async |path: &str, wanted: &[MediaType]| Ok(fetcher.get(&site.url(path), wanted).await?.media);
    let wrong = |found, wanted: &[MediaType]| {
        Err::<MediaType, _>(FetchError::WrongKind {
            found,
            wanted: wanted.to_vec(),
        })
    };
    assert_eq!(kind("/png", &MediaType::IMAGES).await, Ok(MediaType::Png));
    assert_eq!(kind("/pdf", &MediaType::DOCUMENTS).await, Ok(MediaType::Pdf));
    assert_eq!(kind("/text", &MediaType::DOCUMENTS).await, Ok(MediaType::Text));
    let images = &MediaType::IMAGES;
    assert_eq!(kind("/pdf", images).await, wrong(Some(MediaType::Pdf), images));
    for path in ["/html", "/short", "/text"] {
        assert_eq!(kind(path, images).await, wrong(None, images), "{path}");
    }
    for path in ["/unsaid", "/latin"] {
        assert_eq!(
            kind(path, &MediaType::ALL).await,
            wrong(None, &MediaType::ALL),
            "{path}"
        );
    }
    assert_eq!(kind("/missing", images).await, Err(FetchError::Status(404)));
    assert_eq!(
        kind("/pdf", images).await.unwrap_err().to_string(),
        "holds application/pdf; expected image/png or image/jpeg or image/gif or image/webp"
    );
}

#[tokio::test]
async fn what_is_compressed_is_not_decompressed() {
    // The beginning of ten megabytes of zeros, by gzip.
    let bomb = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xed\xc1\x01\r\0\0\0\xc2\xa0\xf7Om\x0e7\xa0\0\0";
    let encoded = |name: &str| Reply::Whole([head(&format!("content-encoding: {name}\r\n")), bomb.to_vec()].concat());
    let plain = Reply::Whole([head("content-encoding: identity\r\n"), PNG.to_vec()].concat());
    let site = Site::start(&[
        ("/gzip", encoded("gzip")),
        ("/two", encoded("identity\r\ncontent-encoding: br")),
        ("/unsaid", ok("text/plain", bomb)),
        ("/identity", plain),
    ])
    .await;
    let fetcher = site.fetcher();
    for path in ["/gzip", "/two"] {
        let refused = fetcher.get(&site.url(path), &MediaType::ALL).await;
        assert_eq!(refused, Err(FetchError::Encoded), "{path}");
    }
    let refused = fetcher.get(&site.url("/unsaid"), &MediaType::ALL).await.unwrap_err();
    assert_eq!(refused.reason(), "wrong_kind");
    assert_eq!(image(&fetcher, &site.url("/identity")).await.unwrap(), PNG);
}

#[tokio::test]
async fn no_more_are_fetched_at_once_than_allowed() {
    let mut site = Site::start(&[("/silence", Reply::Silence), ("/", ok("image/png", PNG))]).await;
    let fetcher = fetcher(FetchPolicy {
        max_concurrent: 1,
        timeout: Duration::from_millis(300),
        ..site.policy()
    });
    let silence = site.url("/silence");
    let mut hanging = Box::pin(image(&fetcher, &silence));
    // Its first poll takes the only turn.
    assert!(futures_util::poll!(&mut hanging).is_pending());
    let clone = fetcher.clone();
    let waiting = image(&clone, &site.url("/")).await;
    assert_eq!(waiting, Err(FetchError::Busy));
    assert!(matches!(waiting.unwrap_err().at("x"), GatewayError::Overloaded { .. }));

    // A fetch that nobody waits for any longer gives its turn back.
    drop(hanging);
    assert_eq!(image(&fetcher, &site.url("/")).await.unwrap(), PNG);
    assert_eq!(site.requests().len(), 1, "the others asked nobody");
    site.closed.recv().await.unwrap();
}

#[tokio::test]
async fn a_host_with_one_dead_address_is_reached_by_the_other() {
    let site = Site::start(&[("/", ok("image/png", PNG))]).await;
    let names = ScriptedNames::new(&[("two.example", &[&["127.0.0.3", "127.0.0.2"]])]);
    let mut policy = site.policy();
    policy.addresses.allowed.push("127.0.0.3/32".parse().unwrap());
    let fetcher = with_names(policy, names, roots());
    let port = site.address.port();
    assert_eq!(
        image(&fetcher, &format!("http://two.example:{port}/")).await.unwrap(),
        PNG
    );
    let dead = image(&fetcher, &format!("http://127.0.0.3:{port}/")).await;
    assert_eq!(dead, Err(FetchError::Unreachable));
}

#[tokio::test]
async fn certificates_are_verified_for_the_name_that_was_asked() {
    let site = Site::start_tls(&[
        ("/", ok("image/png", PNG)),
        ("/down", redirect("http://files.example/")),
    ])
    .await;
    let port = site.address.port();
    let names: &[(&'static str, &[&[&str]])] = &[
        ("files.example", &[&["127.0.0.2"]]),
        ("other.example", &[&["127.0.0.2"]]),
    ];
    let mut policy = site.policy();
    policy.ports.push(80);
    let trusting = with_names(policy.clone(), ScriptedNames::new(names), roots());
    let url = format!("https://files.example:{port}/");
    assert_eq!(image(&trusting, &url).await.unwrap(), PNG);
    assert!(site.requests()[0].contains(&format!("host: files.example:{port}\r\n")));
    for other in ["other.example", "127.0.0.2"] {
        let refused = image(&trusting, &format!("https://{other}:{port}/")).await;
        assert_eq!(refused, Err(FetchError::Tls), "{other}");
    }
    assert_eq!(
        image(&trusting, &format!("{url}down")).await,
        Err(FetchError::Downgrade)
    );

    let public = with_names(
        policy,
        ScriptedNames::new(names),
        bonito::upstream::fetcher::Dialer::public_roots(),
    );
    assert_eq!(
        image(&public, &url).await,
        Err(FetchError::Tls),
        "nobody vouches for it"
    );
    assert_eq!(
        site.requests().len(),
        2,
        "nothing is asked before the certificate is verified"
    );
}

#[tokio::test]
async fn every_fetch_is_counted_and_a_refused_one_is_told_without_its_path() {
    let site = Site::start(&[
        ("/", ok("image/png", PNG)),
        ("/CANARY?CANARY", redirect("http://10.0.0.1/CANARY")),
    ])
    .await;
    let metrics = Arc::new(Metrics::default());
    let mut policy = site.policy();
    policy.ports.push(80);
    let fetcher = Fetcher::new(policy, metrics.clone());
    let written = Written::default();
    let lines = tracing_subscriber::fmt()
        .with_writer(written.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(lines);

    image(&fetcher, &site.url("/")).await.unwrap();
    image(&fetcher, &site.url("/CANARY?CANARY")).await.unwrap_err();
    image(&fetcher, "http://CANARY:CANARY@example.com/").await.unwrap_err();
    image(&fetcher, "not a URL: CANARY").await.unwrap_err();

    let text = metrics.encode();
    for (result, count) in [("ok", 1), ("not_public", 1), ("userinfo", 1), ("malformed", 1)] {
        let line = format!("bonito_fetches_total{{result=\"{result}\"}} {count}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
    let log = written.text();
    let refusal = log
        .lines()
        .find(|line| line.contains("refused to fetch from an address"));
    let refusal = refusal.expect("a refusal is told");
    let told = format!(
        "origin=\"http://{}\" reason=\"not_public\" redirected=true address=\"private\"",
        site.address
    );
    assert!(refusal.contains("WARN") && refusal.contains(&told), "{refusal}");
    assert_eq!(log.lines().count(), 3, "what was fetched needs no line: {log}");
    assert!(!log.contains("CANARY") && !log.contains("10.0.0.1"), "{log}");
}

/// What was logged.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
