//! A browser: Debian's Chromium, driven through its chromedriver, that tells of everything it complains about.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use url::Url;

use crate::support::{ports, script};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long axe-core may take to be installed, once on a machine.
const INSTALLING: Duration = Duration::from_secs(420);
/// The sizes that pages are looked at in: width, height, and whether it is a phone.
pub const SIZES: [(u32, u32, &str); 2] = [(1440, 900, "desktop"), (390, 844, "phone")];

/// Keys, as WebDriver has them.
pub const TAB: char = '\u{e004}';
pub const ENTER: char = '\u{e007}';
pub const ESCAPE: char = '\u{e00c}';

/// A browser with one window.
pub struct Browser {
    /// The window.
    pub client: Client,
    origin: String,
    /// How wide the window was asked to be. A phone's grows with a page that is too wide, so it cannot be asked.
    width: AtomicU32,
    /// Where its driver listens.
    port: u16,
    _driver: Child,
    _profile: tempfile::TempDir,
}

/// A command of chromedriver's own.
#[derive(Debug)]
struct Own(&'static str, Value);

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base_url: &Url, session_id: Option<&str>) -> Result<Url, url::ParseError> {
        base_url.join(&format!("session/{}/{}", session_id.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.1.to_string()))
    }
}

impl Browser {
    /// A fresh browser for pages of one origin; whatever else it asks for is a fault.
    pub async fn open(origin: &str) -> Self {
        let profile = tempfile::tempdir().expect("a directory can be made");
        let port = ports::kept_free();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is installed: scripts/test installs chromium and chromium-driver");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities: Capabilities = serde_json::from_value(json!({
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }))
        .expect("it is an object");
        let connector = hyper_util::client::legacy::connect::HttpConnector::new();
        let url = format!("http://127.0.0.1:{port}");
        let since = Instant::now();
        let client = loop {
            let connected = ClientBuilder::new(connector.clone())
                .capabilities(capabilities.clone())
                .connect(&url)
                .await;
            match connected {
                Ok(client) => break client,
                Err(error) => assert!(since.elapsed() < PATIENCE, "no browser: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let browser = Self {
            client,
            origin: origin.to_owned(),
            width: AtomicU32::new(1440),
            port,
            _driver: driver,
            _profile: profile,
        };
        browser.look(1440, 900, false).await;
        browser
    }

    async fn own(&self, path: &'static str, body: Value) -> Value {
        let answer = self.client.issue_cmd(Own(path, body)).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A command of the browser's debugging protocol.
    pub async fn cdp(&self, command: &str, parameters: Value) -> Value {
        self.own("goog/cdp/execute", json!({"cmd": command, "params": parameters}))
            .await
    }

    /// Sets the size of the window and the theme of the system.
    pub async fn look(&self, width: u32, height: u32, dark: bool) {
        self.width.store(width, Ordering::Relaxed);
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        // Without motion, so that nothing is looked at while it still changes from one theme's colour to the other's.
        let media = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.cdp("Emulation.setEmulatedMedia", media).await;
    }

    /// Opens a page of the gateway.
    pub async fn open_page(&self, path: &str) {
        let url = format!("{}{path}", self.origin);
        self.client
            .goto(&url)
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The value of an expression of the page.
    pub async fn value(&self, expression: &str) -> Value {
        let value = self.client.execute(&format!("return ({expression})"), Vec::new()).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Waits until an expression of the page is true.
    pub async fn until(&self, expression: &str) {
        let since = Instant::now();
        loop {
            // While a page is being left there is none to ask.
            let said = self
                .client
                .execute(&format!("return Boolean({expression})"), Vec::new())
                .await;
            if matches!(said, Ok(Value::Bool(true))) {
                return;
            }
            if since.elapsed() > PATIENCE {
                let text = self.client.execute("return document.body?.innerText", Vec::new()).await;
                panic!(
                    "{expression} is not so: {said:?} on a page that says {text:?}; {:?}",
                    self.complaints(&[]).await
                );
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until the page's path is this one.
    pub async fn until_at(&self, path: &str) {
        self.until(&format!("location.pathname === {}", json!(path))).await;
        self.until("document.readyState === 'complete'").await;
    }

    /// Waits until a text can be read.
    pub async fn until_reads(&self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text)))
            .await;
    }

    /// Clicks what a selector finds first, where somebody would have scrolled to: what lies under the bar on top is not clicked.
    pub async fn click(&self, selector: &str) {
        let found = format!("document.querySelector({})", json!(selector));
        self.until(&found).await;
        let seen = self
            .client
            .execute(
                &format!("{found}?.scrollIntoView({{block: 'center', behavior: 'instant'}})"),
                Vec::new(),
            )
            .await;
        seen.unwrap_or_else(|error| panic!("{selector}: {error}"));
        let found = self.client.find(Locator::Css(selector)).await;
        let found = found.unwrap_or_else(|error| panic!("{selector}: {error}"));
        found
            .click()
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Chooses a password on the page for that.
    pub async fn choose_password(&self, current: &str, new: &str, again: &str) {
        self.fill("#current", current).await;
        self.fill("#new", new).await;
        self.fill("#again", again).await;
        self.click("button[type=submit]").await;
    }

    /// Types into a field, in the place of what it has.
    pub async fn fill(&self, selector: &str, text: &str) {
        let found = self.client.find(Locator::Css(selector)).await;
        let found = found.unwrap_or_else(|error| panic!("{selector}: {error}"));
        found
            .clear()
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"));
        found
            .send_keys(text)
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Presses a key, wherever the focus is.
    pub async fn press(&self, key: char) {
        let keys = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value: key })
            .then(KeyAction::Up { value: key });
        let pressed = self.client.perform_actions(keys).await;
        pressed.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }

    /// Goes on with Tab until the focus is on what a selector finds, never leaving what `within` finds. Wherever it comes by,
    /// one sees where it is.
    pub async fn tab_to(&self, selector: &str, within: &str) {
        // A field among chips is outlined together with them. Where the keys leave a dialog they go to the browser's own
        // buttons, of which a page knows nothing but that nothing in it has the focus.
        let seen = format!(
            "(() => {{ const at = document.activeElement; const shown = at.closest('.tokens') ?? at; \
             const style = getComputedStyle(shown); return at === document.body ? 'on the way' : !at.closest({within}) ? 'outside: ' + at.outerHTML.slice(0, 160) : \
             style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 2 ? 'not to be seen: ' + at.outerHTML.slice(0, 160) : \
             at.matches({selector}) ? 'there' : 'on the way'; }})()",
            within = json!(within),
            selector = json!(selector),
        );
        for _ in 0..120 {
            self.press(TAB).await;
            match self.value(&seen).await.as_str() {
                Some("there") => return,
                Some("on the way") => {}
                other => panic!("the focus on its way to {selector} is {other:?}"),
            }
        }
        panic!("the focus does not come to {selector}");
    }

    /// Chooses an option by its value.
    pub async fn choose(&self, selector: &str, value: &str) {
        let script = "const field = document.querySelector(arguments[0]); field.value = arguments[1]; \
                      field.dispatchEvent(new Event('change', {bubbles: true})); return field.value";
        let chosen = self.client.execute(script, vec![json!(selector), json!(value)]).await;
        assert_eq!(
            chosen.unwrap_or_default(),
            json!(value),
            "{selector} has no such option"
        );
    }

    /// Waits until every chart that is in the window is drawn.
    pub async fn until_drawn(&self) {
        self.until(
            "[...document.querySelectorAll('[data-chart]')].every(node => node.querySelector('.main-svg') || \
             node.getBoundingClientRect().top > innerHeight + 100)",
        )
        .await;
    }

    /// What the browser complained about since the last time: messages of the console, breaches of the policy, requests
    /// to anywhere else. Messages with one of these words are meant to be there.
    pub async fn complaints(&self, meant: &[&str]) -> Vec<String> {
        let console = self.own("se/log", json!({"type": "browser"})).await;
        let mut complaints: Vec<String> = (console.as_array().into_iter().flatten())
            .filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG")
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect();
        let performance = self.own("se/log", json!({"type": "performance"})).await;
        for entry in performance.as_array().into_iter().flatten() {
            let message: Value =
                serde_json::from_str(entry["message"].as_str().unwrap_or_default()).unwrap_or_default();
            let message = &message["message"];
            if message["method"] != "Network.requestWillBeSent" {
                continue;
            }
            let url = message["params"]["request"]["url"].as_str().unwrap_or_default();
            let ours = url.starts_with(&self.origin)
                || url.starts_with("data:")
                || url.starts_with("blob:")
                || url.starts_with("chrome:");
            if !ours {
                complaints.push(format!("a request to {url}"));
            }
        }
        complaints.retain(|complaint| !meant.iter().any(|word| complaint.contains(word)));
        complaints
    }

    /// Holds that there are none.
    pub async fn assert_quiet(&self, page: &str) {
        let complaints = self.complaints(&[]).await;
        assert!(complaints.is_empty(), "{page}: {complaints:#?}");
    }

    /// Holds that axe-core finds nothing wrong, and that nothing is wider than the window.
    pub async fn assert_accessible(&self, page: &str) {
        self.assert_axe_finds_nothing(page, json!({})).await;
        let width = self.width.load(Ordering::Relaxed);
        let wide = self
            .value(&format!("document.documentElement.scrollWidth <= {width} ? '' : [...document.querySelectorAll('main *, dialog[open] *')].filter(node => node.getBoundingClientRect().right > {width} + 1).slice(0, 8).map(node => node.outerHTML.slice(0, 160)).join('\\n') || `it is ${{document.documentElement.scrollWidth}}`"))
            .await;
        assert_eq!(wide, json!(""), "{page} is wider than the window");
    }

    /// Holds that what depends on colours is right: all there is to see of a page in another theme.
    pub async fn assert_colours(&self, page: &str) {
        let rules = json!({"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}});
        self.assert_axe_finds_nothing(page, rules).await;
    }

    async fn assert_axe_finds_nothing(&self, page: &str, mut options: Value) {
        static AXE: OnceCell<String> = OnceCell::const_new();
        let axe = AXE
            .get_or_init(|| async {
                let path = script::run("tests/clients/run", INSTALLING, |run| {
                    run.arg("axe");
                })
                .await;
                std::fs::read_to_string(path.trim()).expect("axe-core is installed")
            })
            .await;
        if self.value("typeof axe === 'undefined'").await == json!(true) {
            self.client
                .execute(&format!("{axe};"), Vec::new())
                .await
                .expect("axe-core can be loaded");
        }
        let script = "const done = arguments[arguments.length - 1]; \
            axe.run(document, arguments[0]).then(found => done(found.violations.map(one => \
            `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map(node => node.html.slice(0, 200) + ' ' + \
            (node.any[0]?.message ?? '')).join(' | ')}`)), error => done([String(error)]))";
        options["resultTypes"] = json!(["violations"]);
        let found = self
            .client
            .execute_async(script, vec![options])
            .await
            .expect("axe-core answers");
        assert_eq!(found, json!([]), "{page}");
    }

    /// Keeps a picture of the whole page in `docs/screenshots`, if BONITO_SCREENSHOTS is set.
    pub async fn keep_picture(&self, name: &str) {
        if std::env::var_os("BONITO_SCREENSHOTS").is_none() {
            return;
        }
        // A page that scrolls is taken as a whole, as if the window were that high; a dialog has the window's height.
        let size = self
            .value("document.querySelector('dialog[open], .menu-open') ? innerHeight : Math.max(innerHeight, document.documentElement.scrollHeight)")
            .await;
        let (width, height) = (self.width.load(Ordering::Relaxed), size.as_u64().expect("a height"));
        let metrics =
            |height: u64| json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        let before = self.value("innerHeight").await.as_u64().expect("a height");
        self.cdp("Emulation.setDeviceMetricsOverride", metrics(height)).await;
        self.until_drawn().await;
        let taken = self.cdp("Page.captureScreenshot", json!({"format": "png"})).await;
        self.cdp("Emulation.setDeviceMetricsOverride", metrics(before)).await;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(taken["data"].as_str().unwrap_or_default())
            .expect("a picture is base64");
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/screenshots"));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        std::fs::write(folder.join(format!("{name}.png")), bytes).expect("the picture can be written");
    }

    /// Ends it.
    pub async fn close(self) {
        let _ = self.client.clone().close().await;
    }
}

impl Drop for Browser {
    /// A driver that is killed leaves its browser behind, and that goes on asking whoever has the gateway's port next. Asked
    /// to, it takes the browser with it.
    fn drop(&mut self) {
        let ask = || {
            let mut driver = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            driver.set_read_timeout(Some(PATIENCE))?;
            driver.write_all(b"GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
            driver.read_to_end(&mut Vec::new())
        };
        let _: std::io::Result<usize> = ask();
    }
}
