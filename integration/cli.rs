//! The command line: `run`, `check` and `route`.

use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;

use keyway::demo::postgres::{Signal, WorkDir};
use libtest_mimic::Trial;

use crate::harness::{Fallible, Harness, KeywayProcess, Outcome, Shared, keyway_command, unsharded_config};

const SHARDED: &str = r#"
[users.app]
password = "secret"
[databases.shop.shards.s1]
servers = ["10.0.0.1"]
[databases.shop.shards.s2]
servers = ["10.0.0.2"]
[databases.shop.maps.by_user]
kind = "hash"
type = "bigint"
assign = [{ slots = "0-2047", shard = "s1" }, { slots = "2048-4095", shard = "s2" }]
[databases.shop.maps.by_time]
kind = "range"
type = "timestamptz"
ranges = [
    { to = "2026-01-01T00:00:00Z", shard = "s1" },
    { from = "2026-01-01T00:00:00Z", shard = "s2" },
]
[databases.shop.tables.users]
map = "by_user"
key = "user_id"
[databases.shop.tables.events]
map = "by_time"
key = "occurred_at"
"#;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("cli::check_tells_every_error_with_its_line", check_tells_every_error_with_its_line),
        harness.test("cli::check_accepts_a_right_file", check_accepts_a_right_file),
        harness.test("cli::a_missing_file_is_an_error", a_missing_file_is_an_error),
        harness.test("cli::route_names_shard_role_key_and_part", route_names_shard_role_key_and_part),
        harness.test("cli::route_tells_a_refusal_and_fails", route_tells_a_refusal_and_fails),
        harness.test("cli::run_refuses_a_wrong_file", run_refuses_a_wrong_file),
        harness.test("cli::run_ends_on_sigterm", run_ends_on_sigterm),
    ]
}

async fn check_tells_every_error_with_its_line(harness: Arc<Shared>) -> Outcome {
    let file = File::new(
        &harness,
        "lisen = \"127.0.0.1:6432\"\n\
         [users.app]\n\
         password = \"secret\"\n\
         [databases.shop]\n\
         servers = [\"10.0.0.1:five\"]\n\
         max_lag = \"soon\"\n",
    )?;
    let output = file.keyway("check", &[]).await?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    for (line, word) in [(1, "lisen"), (5, "10.0.0.1:five"), (6, "soon")] {
        let start = format!("line {line}: ");
        let problem = said.lines().find(|it| it.contains(&start));
        let problem = problem.ok_or_else(|| format!("nothing about line {line}:\n{said}"))?;
        assert!(problem.contains(word) && problem.contains("; write "), "{problem}");
    }
    Ok(())
}

async fn check_accepts_a_right_file(harness: Arc<Shared>) -> Outcome {
    let output = File::new(&harness, SHARDED)?.keyway("check", &[]).await?;
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    Ok(())
}

async fn a_missing_file_is_an_error(_: Arc<Shared>) -> Outcome {
    let output = keyway_command().args(["check", "--config", "/nonexistent/keyway.toml"]).output().await?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("/nonexistent/keyway.toml") && said.contains("No such file"), "{said}");
    Ok(())
}

async fn route_names_shard_role_key_and_part(harness: Arc<Shared>) -> Outcome {
    let file = File::new(&harness, SHARDED)?;
    // Slot 2070 and 3418 of 4096 by the map's hash, so both are on s2.
    for (arguments, wanted) in [
        (&["SELECT * FROM users WHERE user_id = 7"][..], ["s2", "replica", "slot 2070"]),
        (&["UPDATE users SET name = $2 WHERE user_id = $1", "42", "x"], ["s2", "primary", "slot 3418"]),
        (
            &["SELECT * FROM events WHERE occurred_at = '2025-06-01 00:00:00+00'"],
            ["s1", "replica", "by_time"],
        ),
        (&["SELECT name FROM users"], ["s1, s2", "replica", "scatter"]),
    ] {
        let output = file.keyway("route", arguments).await?;
        let said = String::from_utf8(output.stdout)?;
        assert!(output.status.success(), "{said}");
        assert_eq!(value_of(&said, "shards"), Some(wanted[0]), "{said}");
        assert_eq!(value_of(&said, "role"), Some(wanted[1]), "{said}");
        assert!(said.contains(wanted[2]) && value_of(&said, "why").is_some(), "{said}");
    }
    Ok(())
}

async fn route_tells_a_refusal_and_fails(harness: Arc<Shared>) -> Outcome {
    let file = File::new(&harness, SHARDED)?;
    let output = file.keyway("route", &["INSERT INTO users (name) VALUES ('x')"]).await?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout)?;
    assert!(said.contains("SQLSTATE 0A000") && value_of(&said, "hint").is_some(), "{said}");
    Ok(())
}

async fn run_refuses_a_wrong_file(harness: Arc<Shared>) -> Outcome {
    let output = File::new(&harness, "[users.app]\n")?.keyway("run", &[]).await?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("line 1: ") && said.contains("no database"), "{said}");
    Ok(())
}

async fn run_ends_on_sigterm(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let config = |listen: &str, admin: &str| unsharded_config(shard, listen, admin);
    let mut keyway = KeywayProcess::start(harness.dir(), "cli-sigterm", config).await?;
    assert_eq!(keyway.http("/healthz").await?.0, 200);
    keyway.signal(Signal::TERM)?;
    let status = keyway.wait_until_ended().await?;
    assert!(status.success(), "{status}:\n{}", keyway.log());
    Ok(())
}

/// The value of `name: value` of `keyway route`.
fn value_of<'a>(said: &'a str, name: &str) -> Option<&'a str> {
    said.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A configuration file of one test.
struct File {
    path: PathBuf,
    _dir: WorkDir,
}

impl File {
    fn new(harness: &Shared, text: &str) -> Fallible<File> {
        let dir = harness.fresh_dir()?;
        let path = dir.path().join("keyway.toml");
        std::fs::write(&path, text)?;
        Ok(File { path, _dir: dir })
    }

    async fn keyway(&self, command: &str, arguments: &[&str]) -> Fallible<Output> {
        let mut keyway = keyway_command();
        keyway.arg(command).arg("--config").arg(&self.path).args(arguments);
        Ok(keyway.output().await?)
    }
}
