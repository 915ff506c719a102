//! What the relay does for each byte of an answer: headers alone, then with the order of messages.

// A bench whose answer is not understood must stop.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keyway::proto::{Expect, Origin, Pipeline, Replies};
use keyway::wire::{self, TextRows, TxStatus};

const ROWS: usize = 1_000;
/// What the relay reads at once (`limits.buffers_max`).
const BUFFER_BYTES: usize = 16 * 1024;
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

struct Answer {
    name: &'static str,
    requests: &'static [Expect],
    bytes: Vec<u8>,
    messages: usize,
}

/// A Query's answer of so many rows, each as long as one of pgbench_accounts.
fn rows(name: &'static str, count: usize) -> Answer {
    let table = TextRows { columns: &["aid", "bid", "abalance", "filler"] };
    let filler = " ".repeat(84);
    let mut bytes = Vec::new();
    table.describe(&mut bytes);
    for row in 0..count {
        table.row(&mut bytes, &[&row.to_string(), "1", "0", &filler]);
    }
    finish(&mut bytes, count);
    Answer { name, requests: &[Expect::Query(Origin::Client)], bytes, messages: count + 3 }
}

/// What `pgbench -S -M prepared` gets: Bind, Describe, Execute and Sync, one row.
fn prepared() -> Answer {
    let table = TextRows { columns: &["abalance"] };
    let mut bytes = wire::BIND_COMPLETE.to_vec();
    table.describe(&mut bytes);
    table.row(&mut bytes, &["0"]);
    finish(&mut bytes, 1);
    let requests = &[Expect::Bind, Expect::Describe, Expect::Execute, Expect::Sync];
    Answer { name: "prepared", requests, bytes, messages: 5 }
}

fn finish(bytes: &mut Vec<u8>, rows: usize) {
    wire::command_complete(bytes, &format!("SELECT {rows}"));
    wire::ready_for_query(bytes, TxStatus::Idle);
}

fn answers() -> [Answer; 3] {
    [rows("one_row", 1), prepared(), rows("thousand_rows", ROWS)]
}

fn walk(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while let Ok(Some(header)) = wire::header(&bytes[at..]) {
        at += black_box(header).total;
        count += 1;
        if at >= bytes.len() {
            break;
        }
    }
    count
}

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header");
    for answer in answers() {
        assert_eq!(walk(&answer.bytes), answer.messages, "{}", answer.name);
        group.throughput(Throughput::Elements(answer.messages as u64));
        group.bench_function(answer.name, |it| it.iter(|| walk(black_box(&answer.bytes))));
    }
    group.finish();
}

/// One request and its answer as it comes out of a socket: a buffer at a time, a message that is not
/// whole yet given again with more behind it.
fn answer(pipeline: &mut Pipeline, replies: &mut Replies, requests: &[Expect], bytes: &[u8]) -> usize {
    requests.iter().for_each(|it| pipeline.push(*it));
    let (mut at, mut pieces) = (0, 0);
    while at < bytes.len() {
        let end = bytes.len().min(at + BUFFER_BYTES);
        replies.next_buffer();
        let used = pipeline.feed(&bytes[at..end], replies).unwrap();
        assert!(used > 0, "no message is longer than a buffer");
        at += used;
        pieces += replies.pieces.len();
    }
    pieces
}

fn pipelines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    for Answer { name, requests, bytes, messages } in answers() {
        let (mut pipeline, mut replies) = (Pipeline::new(MESSAGE_BYTES_MAX), Replies::default());
        answer(&mut pipeline, &mut replies, requests, &bytes);
        assert!(pipeline.is_free(), "{name}: the whole answer is understood");
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(name, |it| {
            it.iter(|| answer(&mut pipeline, &mut replies, requests, black_box(&bytes)));
        });
    }
    group.finish();
}

fn brief() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = brief(); targets = headers, pipelines }
criterion_main!(benches);
