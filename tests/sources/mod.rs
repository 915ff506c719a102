//! The tree's own Rust files, for tests that read them.

use std::fs;
use std::path::{Path, PathBuf};

/// In order, those of all directories below.
pub fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|it| it.unwrap().path()) {
        if entry.is_dir() {
            files.extend(rust_files(&entry));
        } else if entry.extension().is_some_and(|it| it == "rs") {
            files.push(entry);
        }
    }
    files.sort();
    files
}
