//! Black-box tests: the real program in front of real PostgreSQL clusters, which the harness starts and
//! stops. `cargo test --test integration NAME` runs those with NAME in theirs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may")]

mod auth;
mod bad_input;
mod balance;
mod cancel;
mod catalog;
mod cli;
mod consistency;
mod console;
mod copy;
mod deallocate;
mod demo;
mod differential;
mod drain;
mod drivers;
mod failover;
mod harness;
mod hotspots;
mod lag;
mod leaks;
mod limits;
mod listen;
mod listen_shards;
mod merge_values;
mod metrics;
mod names;
mod page;
mod patroni;
mod pins;
mod postgres;
mod protection;
mod protocol;
mod reload;
mod replicas;
mod replication;
mod rest;
mod round_trips;
mod routing;
mod server_limits;
mod session_mode;
mod sessions;
mod shard_keys;
mod shop;
mod single;
mod telemetry;
mod tls;
mod topology;

use std::process::ExitCode;

use harness::Harness;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let harness = match Harness::new() {
        Ok(it) => it,
        Err(error) => {
            eprintln!("integration tests cannot run: {error}");
            return ExitCode::FAILURE;
        }
    };
    let topics = [
        auth::tests,
        bad_input::tests,
        balance::tests,
        cancel::tests,
        catalog::tests,
        cli::tests,
        consistency::tests,
        console::tests,
        copy::tests,
        deallocate::tests,
        demo::tests,
        differential::tests,
        drain::tests,
        drivers::tests,
        failover::tests,
        hotspots::tests,
        lag::tests,
        leaks::tests,
        limits::tests,
        listen::tests,
        listen_shards::tests,
        merge_values::tests,
        metrics::tests,
        names::tests,
        page::tests,
        patroni::tests,
        pins::tests,
        postgres::tests,
        protection::tests,
        protocol::tests,
        reload::tests,
        replicas::tests,
        replication::tests,
        rest::tests,
        round_trips::tests,
        routing::tests,
        server_limits::tests,
        session_mode::tests,
        sessions::tests,
        shard_keys::tests,
        shop::tests,
        single::tests,
        telemetry::tests,
        tls::tests,
        topology::tests,
    ];
    let mut tests: Vec<_> = topics.iter().flat_map(|it| it(&harness)).collect();
    // Last, because what it waits for goes on beside the others from now on.
    tests.extend(hotspots::even_load(&harness, &arguments));
    let conclusion = libtest_mimic::run(&arguments, tests);
    Harness::stop(harness);
    conclusion.exit_code()
}
