//! The conversations of the scripts as seeds for the fuzz targets: `KEYWAY_WRITE_CORPUS=fuzz/corpus cargo test
//! --test integration differential`.

use std::fs;
use std::path::Path;

use keyway::wire::header;
use sha2::{Digest, Sha256};

use crate::harness::Fallible;
use crate::harness::wire::{Message, message};

/// A fuzzer gets nowhere with long ones.
const SEED_BYTES_MAX: usize = 600;

/// What a client sends at once, and what a server answers behind what it then owes (fuzz/targets.rs).
pub fn write(dir: &Path, sent: &[u8], answer: &[Message]) -> Fallible<()> {
    seed(&dir.join("wire_frontend"), sent)?;
    let mut owed = Vec::new();
    let mut rest = sent;
    while let Ok(Some(head)) = header(rest) {
        let Some((message, after)) = rest.split_at_checked(head.total) else { break };
        if let Some(it) = owes(message[0]) {
            owed.push(it);
        }
        if message[0] == b'Q' {
            seed(&dir.join("sql_scan"), message.get(5..message.len() - 1).unwrap_or_default())?;
        }
        rest = after;
    }
    let stream = answer.iter().flat_map(|it| message(it.tag, &it.body));
    let Ok(count) = u8::try_from(owed.len()) else { return Ok(()) };
    seed(&dir.join("wire_backend"), &[count].into_iter().chain(owed).chain(stream).collect::<Vec<_>>())
}

fn owes(tag: u8) -> Option<u8> {
    b"QPBDECS".iter().position(|it| *it == tag).and_then(|it| u8::try_from(it).ok())
}

fn seed(dir: &Path, bytes: &[u8]) -> Fallible<()> {
    if bytes.is_empty() || bytes.len() > SEED_BYTES_MAX {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let name: String = Sha256::digest(bytes).iter().take(8).map(|it| format!("{it:02x}")).collect();
    Ok(fs::write(dir.join(name), bytes)?)
}
