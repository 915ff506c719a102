//! What `benches/gate.py` counts the instructions of: one thing, so many times. Run by hand it says what it can do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "who measures must stop at what is not understood"
)]

mod served;
mod shop;

use std::hint::black_box;

use keyway::proto::{Expect, Origin, Pipeline, Replies};
use keyway::route::{KeySource, SessionView};
use keyway::wire::{self, TextRows, TxStatus};
use served::{Served, request};

const NAMES: [&str; 8] =
    ["scan", "plan", "relay", "relay_1000_rows", "simple", "extended", "prepared", "simple_sharded"];
const TEXT: &str = "SELECT name, email FROM users WHERE user_id = 4711";
const SELECT: &str = "SELECT abalance FROM accounts WHERE aid = ";
/// What the relay reads at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// The answer of a Query of so many rows.
fn answer_of(rows: usize) -> Vec<u8> {
    let table = TextRows { columns: &["aid", "bid", "abalance", "filler"] };
    let (filler, mut bytes) = (" ".repeat(84), Vec::new());
    table.describe(&mut bytes);
    (0..rows).for_each(|row| table.row(&mut bytes, &[&row.to_string(), "1", "0", &filler]));
    wire::command_complete(&mut bytes, &format!("SELECT {rows}"));
    wire::ready_for_query(&mut bytes, TxStatus::Idle);
    bytes
}

fn relay(rows: usize, count: usize) {
    let (bytes, mut pipeline, mut replies) = (answer_of(rows), Pipeline::new(1 << 26), Replies::default());
    for _ in 0..count {
        pipeline.push(Expect::Query(Origin::Client));
        let mut at = 0;
        while at < bytes.len() {
            replies.next_buffer();
            let end = bytes.len().min(at + BUFFER_BYTES);
            at += pipeline.feed(black_box(&bytes[at..end]), &mut replies).unwrap();
        }
        assert!(pipeline.is_free());
    }
}

fn plan(count: usize) {
    let (router, session) = (shop::router(), SessionView::default());
    for _ in 0..count {
        let text = black_box(TEXT);
        let planned = router.plan(text);
        let keys = KeySource { text, literals: &planned.literals, params: None };
        black_box(router.decide(&planned.plan, &keys, &session)).unwrap();
    }
}

/// Whole statements, from the client's socket to the server's and back; the client's own part is in it.
fn statements(database: &str, count: usize, made: impl Fn(usize) -> Vec<u8>) {
    let mut served = Served::start(database).unwrap();
    let text = format!("{SELECT}$1");
    served.ask(&[request::parse("s", &text), request::sync()].concat()).unwrap();
    for it in 0..count {
        served.ask(&made(1 + it % 1_000)).unwrap();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let [name, count] = &arguments[..] else {
        println!("{}", NAMES.join("\n"));
        return;
    };
    let count: usize = count.parse().unwrap();
    let simple = |it: usize| request::simple(&format!("{SELECT}{it}"));
    match &name[..] {
        "scan" => (0..count).for_each(|_| drop(black_box(keyway::sql::scan(black_box(TEXT))))),
        "plan" => plan(count),
        "relay" => relay(1, count),
        "relay_1000_rows" => relay(1_000, count),
        "simple" => statements("single", count, simple),
        "simple_sharded" => statements("sharded", count, simple),
        "extended" => statements("single", count, |it| {
            [request::parse("", &format!("{SELECT}$1")), request::run("", &it.to_string())].concat()
        }),
        "prepared" => statements("single", count, |it| request::run("s", &it.to_string())),
        other => panic!("{other} is none of {}", NAMES.join(", ")),
    }
}
