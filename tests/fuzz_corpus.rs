//! The corpora of the fuzz targets, as ordinary tests: what a fuzzer has found once stays found.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

/// Fewer files mean that a corpus was lost.
const FILES_MIN: usize = 10;

fn run(name: &str, target: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| target(&bytes)).is_err() {
            panic!("{}", path.display());
        }
        count += 1;
    }
    assert!(count >= FILES_MIN, "{count} files in {}", dir.display());
}

#[test]
fn wire_frontend() {
    run("wire_frontend", targets::wire_frontend);
}

#[test]
fn wire_backend() {
    run("wire_backend", targets::wire_backend);
}

#[test]
fn startup() {
    run("startup", targets::startup);
}

#[test]
fn sql_scan() {
    run("sql_scan", targets::sql_scan);
}

#[test]
fn config() {
    run("config", targets::config);
}
