//! TLS between clients and Keyway, and between Keyway and servers, with certificates made here.

mod certificates;
mod clients;
mod logins;
mod reload;
mod servers;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{Fallible, Harness, Shared};

const RUN_TIMEOUT: Duration = Duration::from_secs(120);

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    let mut tests = clients::tests(harness);
    tests.extend(logins::tests(harness));
    tests.extend(servers::tests(harness));
    tests.extend(reload::tests(harness));
    tests
}

/// What a program has said, and whether it ended well.
struct Said {
    ok: bool,
    text: String,
}

async fn run(mut command: Command) -> Fallible<Said> {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    // No certificate or key of the account that runs the tests.
    command.env("LC_ALL", "C.UTF-8").env("HOME", "/nonexistent").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(RUN_TIMEOUT, command.output()).await??;
    let text = [output.stdout, output.stderr].concat();
    Ok(Said { ok: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() })
}

/// psql with a connection string of `key=value`.
async fn psql(harness: &Shared, conninfo: &str, sql: &[&str]) -> Fallible<Said> {
    let mut command = Command::new(harness.installation().client_program("psql")?);
    command.args(["--no-psqlrc", "--no-align", "--tuples-only", "-v", "ON_ERROR_STOP=1", conninfo]);
    command.args(sql.iter().flat_map(|it| ["-c", it]));
    run(command).await
}

fn drivers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/drivers")
}

/// Python with psycopg, whose libpq is PostgreSQL 18's.
async fn python(script: &str, arguments: &[&str]) -> Fallible<Said> {
    let mut command = Command::new(drivers().join(".venv/bin/python"));
    command.args(["-c", script]).args(arguments);
    run(command).await
}

/// The value of a metric.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|it| it.parse().ok()).unwrap_or(0.0)
}
