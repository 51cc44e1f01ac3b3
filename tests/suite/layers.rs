//! Who may import whom: reads the `use crate::…` lines of the source and refuses what the layers forbid.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first, with the siblings a module may import besides what lies below its layer.
const LAYERS: &[&[(&str, &[&str])]] = &[
    &[("domain", &[])],
    &[("chat", &[]), ("config", &[]), ("telemetry", &["config"])],
    &[("providers", &[]), ("routing", &[])],
    &[
        ("store", &[]),
        ("secrets", &[]),
        ("upstream", &["secrets"]),
        ("cluster", &[]),
        ("journal", &[]),
        ("cache", &["cluster"]),
        ("gates", &["journal"]),
        ("analytics", &["store"]),
        ("queue", &["store"]),
        ("snapshot", &[]),
    ],
    &[("pipeline", &[]), ("actors", &[]), ("jobs", &[])],
    &[("http", &[])],
    &[("app", &[]), ("cli", &["app"])],
];

/// What lies below a module and is nevertheless not its business.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    (
        "pipeline",
        "store",
        "the request path never waits for the database; it meets it in the gates and the journal",
    ),
    (
        "http",
        "store",
        "handlers ask the gates; only operations look whether the database answers",
    ),
];

/// Where a rule is bent, and why that is right.
const ALLOWED: &[(&str, &str)] = &[("http/operations.rs", "store")];

/// Crates a pure module must not know: what needs a clock, a network or a runtime is somebody else's work.
const PURE: &[(&str, &[&str])] = &[
    (
        "domain",
        &["tokio", "reqwest", "hyper", "poem", "sea_orm", "ractor", "rand"],
    ),
    (
        "chat",
        &["tokio", "reqwest", "hyper", "poem", "sea_orm", "ractor", "rand"],
    ),
    (
        "providers",
        &["tokio", "reqwest", "hyper", "poem", "sea_orm", "ractor", "rand"],
    ),
    (
        "routing",
        &["tokio", "reqwest", "hyper", "poem", "sea_orm", "ractor", "rand"],
    ),
    ("pipeline", &["poem", "sea_orm", "ractor", "entity"]),
    ("actors", &["poem", "sea_orm", "entity"]),
    ("cluster", &["poem", "sea_orm", "ractor", "entity"]),
    ("gates", &["poem", "sea_orm", "ractor", "entity"]),
    ("cache", &["poem", "sea_orm", "ractor", "entity"]),
    ("analytics", &["poem", "sea_orm", "ractor", "entity"]),
    ("queue", &["poem", "sea_orm", "ractor", "entity"]),
    ("jobs", &["poem", "sea_orm", "ractor", "entity"]),
    ("snapshot", &["poem", "sea_orm", "ractor", "entity"]),
    ("http", &["sea_orm", "ractor", "entity"]),
];

#[test]
fn a_module_imports_from_lower_layers_only() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let module = module_of(&file);
        let Some(layer) = layer_of(&module) else {
            assert!(
                ["lib", "main"].contains(&module.as_str()),
                "src/{module} is in no layer; add it to this test"
            );
            continue;
        };
        let siblings = LAYERS[layer]
            .iter()
            .find(|(name, _)| *name == module)
            .map(|(_, siblings)| *siblings);
        for used in used_modules(&text) {
            if used == module || ALLOWED.contains(&(file.as_str(), used.as_str())) {
                continue;
            }
            let Some(used_layer) = layer_of(&used) else { continue };
            let sibling = siblings.is_some_and(|siblings| siblings.contains(&used.as_str()));
            if used_layer >= layer && !sibling {
                broken.push(format!("src/{file} imports {used}, which is not below {module}"));
            }
            if let Some((.., why)) = FORBIDDEN.iter().find(|(from, to, _)| *from == module && *to == used) {
                broken.push(format!("src/{file} imports {used}: {why}"));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn pure_modules_know_no_runtime() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let module = module_of(&file);
        for name in PURE
            .iter()
            .filter(|(pure, _)| *pure == module)
            .flat_map(|(_, crates)| *crates)
        {
            let used = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| line.contains(&format!("{name}::")) && !line.contains(&format!("_{name}::")));
            if used {
                broken.push(format!("src/{file} uses {name}, which {module} must not know"));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn sql_entities_stay_in_the_store() {
    for (file, text) in sources() {
        if module_of(&file) != "store" {
            assert!(
                !text.contains("use entity::"),
                "src/{file} uses the tables; only store may"
            );
        }
    }
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS
        .iter()
        .position(|layer| layer.iter().any(|(name, _)| *name == module))
}

/// The module a source file belongs to: its first folder, or its own name.
fn module_of(file: &str) -> String {
    file.split('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs")
        .to_owned()
}

/// The modules of this crate that a text names in paths.
fn used_modules(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut used = Vec::new();
    for line in code {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if !name.is_empty() {
                used.push(name);
            }
        }
    }
    used
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}
