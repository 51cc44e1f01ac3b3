//! What fuzzing begins with: the corpus, and the recorded answers that the adapters' own tests read.

use std::fs;
use std::path::{Path, PathBuf};

/// Ways in which an answer is asked for and cut, as the targets read them from the first byte.
const FLAGS: std::ops::RangeInclusive<u8> = b'0'..=b'7';

/// The seeds of a target, in an order that is always the same. `root` is the repository.
pub fn of(root: &Path, target: &str) -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = files(&root.join("tests/fuzz/corpus").join(target))
        .into_iter()
        .map(|file| fs::read(file).expect("the corpus can be read"))
        .collect();
    let Some(provider) = target.strip_prefix("answer_") else {
        return seeds;
    };
    let folder = match provider {
        "aws" => "bedrock",
        "gcp" => "gemini",
        other => other,
    };
    for file in files(&root.join("src/providers").join(folder).join("fixtures")) {
        let recorded = fs::read(file).expect("fixtures can be read");
        for flags in FLAGS {
            seeds.push([&[flags], &recorded[..]].concat());
        }
    }
    seeds
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).map(|entries| entries.map(|entry| entry.expect("a folder can be read").path()));
    let mut files: Vec<PathBuf> = entries.into_iter().flatten().filter(|path| path.is_file()).collect();
    files.sort();
    files
}
