//! A statement that has been sent before allocates nothing, from the client's socket to the server's and back
//! (DESIGN section 1, "Cheap"). Client and Keyway share a thread, of which the allocator counts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may")]

#[path = "../benches/served/mod.rs"]
mod served;

use served::{Served, request};

const SELECT: &str = "SELECT abalance FROM accounts WHERE aid = ";
const WARM_UP: usize = 50;
const COUNTED: usize = 400;

/// How many of so many requests, each of another key, have allocated nothing.
fn without_allocation(served: &mut Served, made: impl Fn(usize) -> Vec<u8>) -> usize {
    let requests: Vec<_> = (0..WARM_UP + COUNTED).map(|it| made(1 + it)).collect();
    let (first, counted) = requests.split_at(WARM_UP);
    for it in first {
        served.ask(it).unwrap();
    }
    let is_free = |it: &&Vec<u8>| {
        let counts = allocation_counter::measure(|| {
            served.ask(it).unwrap();
        });
        counts.count_total == 0
    };
    counted.iter().filter(is_free).count()
}

/// Keyway's own work beside clients, such as probes and what it counts in the background, runs in the same thread and
/// allocates: some requests have that in their time, on a busy machine many. What a statement itself allocates, each does.
fn assert_free(what: &str, free: usize) {
    assert!(free * 2 >= COUNTED, "{what}: {} of {COUNTED} requests allocate", COUNTED - free);
}

fn check(database: &str) {
    let mut served = Served::start(database).unwrap();
    let free = without_allocation(&mut served, |id| request::simple(&format!("{SELECT}{id}")));
    assert_free(&format!("{database}, simple"), free);
    let text = format!("{SELECT}$1");
    let free = without_allocation(&mut served, |id| {
        [request::parse("", &text), request::run("", &id.to_string())].concat()
    });
    assert_free(&format!("{database}, extended"), free);
    served.ask(&[request::parse("s", &text), request::sync()].concat()).unwrap();
    let free = without_allocation(&mut served, |id| request::run("s", &id.to_string()));
    assert_free(&format!("{database}, prepared"), free);
}

#[test]
fn a_warm_statement_of_one_server_allocates_nothing() {
    check("single");
}

#[test]
fn a_warm_statement_of_one_shard_allocates_nothing() {
    check("sharded");
}

#[test]
fn what_allocates_is_counted() {
    let counts = allocation_counter::measure(|| drop(std::hint::black_box(vec![0; 100])));
    assert_eq!(counts.count_total, 1);
}
