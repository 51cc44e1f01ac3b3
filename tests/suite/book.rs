//! `docs/` as a book: every page is in its contents, every link leads somewhere, and what it shows is true as far as it can
//! be tried. Commands that are marked `run` are run as they stand; the others are read by the binary, and so are settings.
//!
//! A block of commands begins with ```` ```sh run ```` where it can run beside a fresh gateway, and with
//! ```` ```sh norun ```` where it needs a cluster, a container engine, a build or somebody's key.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use bonito::cli::known_dialects;
use bonito::config::{self, Sources};
use bonito::routing::document;
use bonito::routing::strategy::Strategy;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::ports;

/// How long a gateway may take to be up, and a page's commands to run.
const PATIENCE: Duration = Duration::from_secs(60);
/// Stands for credential documents of Google in the examples.
const DOCUMENT: &str = r#"{"type":"authorized_user","client_id":"a","client_secret":"b","refresh_token":"c"}"#;

/// Something between two fences.
struct Block {
    /// The page and the line, for messages.
    at: String,
    page: PathBuf,
    info: String,
    text: String,
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Every page, by its path in `docs/`.
fn pages() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path.strip_prefix(docs()).unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&docs(), &mut found);
    found.sort();
    found
}

fn read(page: &Path) -> String {
    fs::read_to_string(docs().join(page)).unwrap()
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for page in pages() {
        let mut open: Option<Block> = None;
        for (number, line) in read(&page).lines().enumerate() {
            let Some(info) = line.trim_start().strip_prefix("```") else {
                if let Some(block) = &mut open {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                continue;
            };
            match open.take() {
                Some(block) => blocks.push(block),
                None => {
                    open = Some(Block {
                        at: format!("{}:{}", page.display(), number + 1),
                        page: page.clone(),
                        info: info.trim().to_owned(),
                        text: String::new(),
                    });
                }
            }
        }
        assert!(open.is_none(), "{}: a fence is not closed", page.display());
    }
    blocks
}

/// What a page links to.
fn links(text: &str) -> Vec<String> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        let after = line.split("](").skip(1);
        found.extend(
            after
                .filter_map(|rest| rest.split_once(')'))
                .map(|(link, _)| link.to_owned()),
        );
    }
    found
}

/// The anchor that a heading has.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    heading.trim().chars().filter_map(kept).collect()
}

#[test]
fn every_page_is_in_the_contents_once() {
    let listed = links(&read(Path::new("SUMMARY.md")));
    let known: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(known.len(), listed.len(), "a page is listed twice");
    let there = pages().into_iter().map(|page| page.display().to_string());
    let there: BTreeSet<String> = there.filter(|page| page != "SUMMARY.md").collect();
    assert_eq!(known, there);
}

/// mdBook itself is not run here: a book of its own crates would have to be built first. What it refuses, or silently shows
/// as something else, is looked for instead.
///
/// # Source
/// <https://rust-lang.github.io/mdBook/format/summary.html>, <https://rust-lang.github.io/mdBook/format/mdbook.html>.
#[test]
fn what_mdbook_reads_is_what_it_takes() {
    let settings: toml::Table = toml::from_str(&read(Path::new("book.toml"))).unwrap();
    let mut names = Vec::new();
    for (table, members) in &settings {
        for (name, value) in members.as_table().unwrap() {
            match value.as_table() {
                Some(inner) => names.extend(inner.keys().map(|key| format!("{table}.{name}.{key}"))),
                None => names.push(format!("{table}.{name}")),
            }
        }
    }
    let known = [
        "book.language",
        "book.src",
        "book.title",
        "build.build-dir",
        "build.create-missing",
        "output.html.no-section-label",
    ];
    names.retain(|name| !known.contains(&name.as_str()));
    assert!(
        names.is_empty(),
        "new in book.toml, look them up and add them here: {names:?}"
    );
    assert_eq!(settings["book"]["src"].as_str(), Some("."));

    // Titles, chapters before the numbered ones, and these, each at most one level below the one before.
    let (mut numbered, mut depth) = (false, 0);
    for line in read(Path::new("SUMMARY.md")).lines().filter(|line| !line.is_empty()) {
        if line.starts_with("# ") {
            depth = 0;
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let entry = line.trim_start().strip_prefix("- ");
        let link = entry.unwrap_or(line);
        assert!(link.starts_with('[') && link.ends_with(".md)"), "SUMMARY.md: {line}");
        match entry {
            Some(_) => {
                assert!(indent.is_multiple_of(2) && indent / 2 <= depth, "SUMMARY.md: {line}");
                (numbered, depth) = (true, indent / 2 + 1);
            }
            None => assert!(!numbered && indent == 0, "SUMMARY.md: {line}"),
        }
    }

    for page in pages().into_iter().filter(|page| page != Path::new("SUMMARY.md")) {
        let (mut code, mut titles, mut anchors) = (false, 0, BTreeSet::new());
        for (number, line) in read(&page).lines().enumerate() {
            let at = format!("{}:{}", page.display(), number + 1);
            // Also inside of code: a preprocessor looks for these before anybody knows of fences.
            for directive in ["{{#", "{{ #", "\\{{"] {
                assert!(!line.contains(directive), "{at}: mdBook would replace {directive}");
            }
            if line.trim_start().starts_with("```") {
                code = !code;
            } else if let Some(heading) = line.strip_prefix('#').filter(|_| !code) {
                titles += usize::from(heading.starts_with(' '));
                assert!(
                    !heading.contains("{#"),
                    "{at}: say what is linked to by the heading itself"
                );
                // mdBook numbers the second of the same name, and a link would lead to the first.
                let anchor = anchor(heading.trim_start_matches('#'));
                assert!(
                    anchors.insert(anchor),
                    "{at}: a heading of this name is on the page already"
                );
            }
        }
        assert_eq!(titles, 1, "{}: a page has one title", page.display());
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        for link in links(&read(&page)) {
            if link.starts_with("http://") || link.starts_with("https://") {
                continue;
            }
            let (path, wanted) = link.split_once('#').unwrap_or((&link, ""));
            // The book is made of this folder alone.
            let up = path.split('/').filter(|part| *part == "..").count();
            if up >= page.components().count() {
                broken.push(format!("{}: {link} leads out of the book", page.display()));
                continue;
            }
            let target = if path.is_empty() {
                docs().join(&page)
            } else {
                docs().join(&page).parent().unwrap().join(path)
            };
            let Ok(text) = fs::read_to_string(&target) else {
                broken.push(format!("{}: {link}", page.display()));
                continue;
            };
            let headings = text.lines().filter(|line| line.starts_with('#'));
            let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#')));
            if !wanted.is_empty() && !anchors.any(|anchor| anchor == wanted) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn metrics_that_are_named_exist() {
    let names = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/telemetry/names.rs")).unwrap();
    let known: BTreeSet<&str> = names.split('"').filter(|text| text.starts_with("bonito_")).collect();
    // The registry's name of a counter is no series.
    let counters: BTreeSet<&str> = names
        .split("///")
        .filter(|entry| entry.contains("(counter)") || entry.contains("(counter,"))
        .flat_map(|entry| entry.split('"').filter(|text| text.starts_with("bonito_")))
        .collect();
    let mut unknown = Vec::new();
    for page in pages() {
        for word in read(&page).split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let bare = ["_total", "_bucket", "_count", "_sum"]
                .iter()
                .find_map(|ending| word.strip_suffix(ending))
                .unwrap_or(word);
            let named = known.contains(word) && !counters.contains(word) || bare != word && known.contains(bare);
            if word.starts_with("bonito_") && !named {
                unknown.push(format!("{}: {word}", page.display()));
            }
        }
    }
    // Patterns of a search, and names of tests' databases, are none.
    unknown.retain(|found| !found.ends_with(": bonito_"));
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn configurations_are_what_the_gateway_takes() {
    let dir = tempfile::tempdir().unwrap();
    let document_file = dir.path().join("gcp.json");
    fs::write(&document_file, DOCUMENT).unwrap();
    let mut seen = 0;
    for block in blocks() {
        match block.info.as_str() {
            "toml" => {
                let text = block
                    .text
                    .replace("/etc/bonito/gcp.json", &document_file.display().to_string());
                let named = text
                    .lines()
                    .filter_map(|line| line.split_once("_env = \"")?.1.split_once('"'));
                let env = named.map(|(name, _)| (name.to_owned(), "sk-not-a-key".to_owned()));
                let sources = Sources {
                    file: Some((PathBuf::from("bonito.toml"), text.clone())),
                    env: env.collect(),
                    overrides: Vec::new(),
                };
                if let Err(faults) = config::load(&sources, &known_dialects()) {
                    panic!("{}: {faults}", block.at);
                }
            }
            "json config" => {
                let value: Value =
                    serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.at));
                if let Err(faults) = document::read(&value, Strategy::Balanced) {
                    panic!("{}: {faults:?}", block.at);
                }
            }
            "json" => {
                let read = serde_json::from_str::<Value>(&block.text);
                assert!(read.is_ok(), "{}: {read:?}", block.at);
            }
            _ => continue,
        }
        seen += 1;
    }
    assert!(seen > 20, "only {seen} blocks were looked at");
}

/// A line's words, as a shell splits them; enough for what is written in these pages.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '#') if word.is_empty() => break,
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (None, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn bonito() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bonito"));
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn commands_that_are_not_run_are_commands() {
    let mut checked = 0;
    for block in blocks().into_iter().filter(|block| block.info.starts_with("sh")) {
        assert!(
            ["sh run", "sh norun"].contains(&block.info.as_str()),
            "{}: say whether it can run: `sh run` or `sh norun`",
            block.at
        );
        let mut shell = Command::new("bash");
        let read = shell.args(["-n", "-c", &block.text]).output().await.unwrap();
        assert!(read.status.success(), "{}: {}", block.at, said(&read));
        if block.info == "sh run" {
            continue;
        }
        let text = block.text.replace("\\\n", " ");
        for line in text.lines() {
            let mut words = words(line).into_iter().skip_while(|word| word.contains('=')).peekable();
            if words.next_if(|word| word == "bonito").is_none() {
                continue;
            }
            // What comes first is looked at first: a flag or a command that does not exist is an error before help is.
            let id = "0199d3c5-0b7e-7d51-a3f2-6e1c9b8d4a70";
            let words = words.map(|word| if word == "ID" { id.to_owned() } else { word });
            let help = bonito().args(words).arg("--help").output().await.unwrap();
            assert!(help.status.success(), "{}: {line}\n{}", block.at, said(&help));
            checked += 1;
        }
    }
    assert!(checked > 10, "only {checked} commands were looked at");
}

/// A gateway in a directory of its own, as somebody who reads the first page starts it.
struct Beside {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
    key: String,
}

impl Beside {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = ports::kept_free();
        let printed = fs::File::create(dir.path().join("printed")).unwrap();
        let logged = fs::File::create(dir.path().join("logged")).unwrap();
        let mut command = bonito();
        command
            .arg("serve")
            .current_dir(dir.path())
            .envs(Self::environment(port));
        let child = command.stdout(printed).stderr(logged).spawn().unwrap();
        let began = Instant::now();
        let ready = format!("http://127.0.0.2:{port}/readyz");
        let key = loop {
            let printed = fs::read_to_string(dir.path().join("printed")).unwrap();
            let key = printed
                .split_whitespace()
                .find(|word| word.starts_with("bn-") && word.len() == 49);
            let up = reqwest::get(&ready).await.is_ok_and(|answer| answer.status() == 200);
            if let (Some(key), true) = (key, up) {
                break key.to_owned();
            }
            assert!(began.elapsed() < PATIENCE, "it does not come up: {printed}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Self { dir, child, port, key }
    }

    fn environment(port: u16) -> [(&'static str, String); 3] {
        let binary = Path::new(env!("CARGO_BIN_EXE_bonito")).parent().unwrap().display();
        [
            ("BONITO_SERVER_LISTEN", format!("127.0.0.1:{port}")),
            ("BONITO_OPERATIONS_LISTEN", format!("127.0.0.2:{port}")),
            ("PATH", format!("{binary}:/usr/local/bin:/usr/bin:/bin")),
        ]
    }

    /// Runs commands as they stand on a page, but for where the gateway is and for its key.
    async fn run(&self, text: &str) -> Output {
        let script = text
            .replace("127.0.0.1:8001", &format!("127.0.0.1:{}", self.port))
            .replace("127.0.0.1:8002", &format!("127.0.0.2:{}", self.port))
            .replace("bn-…", &self.key);
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(self.dir.path());
        shell
            .env_clear()
            .envs(Self::environment(self.port))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, shell.output()).await;
        output.expect("the commands end").expect("bash runs")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_are_run_do_what_they_say() {
    let all = blocks();
    let mut with_commands: Vec<&PathBuf> = all
        .iter()
        .filter(|block| block.info == "sh run")
        .map(|block| &block.page)
        .collect();
    with_commands.dedup();
    assert!(with_commands.len() > 8, "{with_commands:?}");
    for page in with_commands {
        let mut beside = Beside::start().await;
        // One shell for a page: what was exported further up is there further down.
        let of_page = all.iter().filter(|block| block.info == "sh run" && block.page == *page);
        let script: String = of_page.map(|block| block.text.as_str()).collect();
        let output = beside.run(&script).await;
        assert!(
            output.status.success(),
            "{}: {}\n{script}",
            page.display(),
            said(&output)
        );
        assert!(
            !said(&output).contains("\"error\""),
            "{}: {}",
            page.display(),
            said(&output)
        );
        beside.child.kill().await.unwrap();
    }
}
