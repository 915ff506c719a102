//! Clients of other people's making, each with nothing but the connection string. What a script checks is
//! in the script beside; here it is run, and what it says at the end is not taken on trust.

mod dump;
mod native;
mod pgbench;
mod psql;

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{Fallible, Harness, Outcome, Shared};

/// Each takes seconds; a busy machine may take longer.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);
const SETUP: &str = "integration/drivers/install.sh";

/// A script that takes the connection string and ends with the line `checks: N`.
struct Script {
    program: &'static str,
    /// Before the file.
    options: &'static [&'static str],
    file: &'static str,
    /// Fewer mean that a part of it did not run.
    checks_min: Checks,
}

struct Checks {
    plain: u32,
    shop: u32,
}

const PSYCOPG: Script = Script {
    program: ".venv/bin/python",
    options: &[],
    file: "with_psycopg.py",
    checks_min: Checks { plain: 650, shop: 950 },
};

const ASYNCPG: Script = Script {
    program: ".venv/bin/python",
    options: &[],
    file: "with_asyncpg.py",
    checks_min: Checks { plain: 550, shop: 650 },
};

const NODE: Script = Script {
    program: "node",
    options: &[],
    file: "with_node_postgres.js",
    checks_min: Checks { plain: 480, shop: 620 },
};

const SQLALCHEMY: Script = Script {
    program: ".venv/bin/python",
    options: &[],
    file: "with_sqlalchemy.py",
    checks_min: Checks { plain: 80, shop: 60 },
};

/// The source is compiled as it runs. The driver is Debian's libpostgresql-jdbc-java.
const JDBC: Script = Script {
    program: "java",
    options: &["-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/postgresql.jar"],
    file: "WithJdbc.java",
    checks_min: Checks { plain: 1000, shop: 1100 },
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    let mut tests = vec![
        harness.test("drivers::psycopg_unsharded", |it| async move { PSYCOPG.run_on_plain(&it).await }),
        harness.test("drivers::psycopg_sharded", |it| async move { PSYCOPG.run_on_shop(&it).await }),
        harness.test("drivers::asyncpg_unsharded", |it| async move { ASYNCPG.run_on_plain(&it).await }),
        harness.test("drivers::asyncpg_sharded", |it| async move { ASYNCPG.run_on_shop(&it).await }),
        harness.test("drivers::node_postgres_unsharded", |it| async move { NODE.run_on_plain(&it).await }),
        harness.test("drivers::node_postgres_sharded", |it| async move { NODE.run_on_shop(&it).await }),
        harness.test("drivers::sqlalchemy_unsharded", |it| async move { SQLALCHEMY.run_on_plain(&it).await }),
        harness.test("drivers::sqlalchemy_sharded", |it| async move { SQLALCHEMY.run_on_shop(&it).await }),
        harness.test("drivers::jdbc_unsharded", |it| async move { JDBC.run_on_plain(&it).await }),
        harness.test("drivers::jdbc_sharded", |it| async move { JDBC.run_on_shop(&it).await }),
    ];
    tests.extend(dump::tests(harness));
    tests.extend(psql::tests(harness));
    tests.extend(pgbench::tests(harness));
    tests.extend(native::tests(harness));
    tests
}

impl Script {
    async fn run_on_plain(&self, harness: &Shared) -> Outcome {
        self.run(&harness.single().await?.url(), self.checks_min.plain).await
    }

    async fn run_on_shop(&self, harness: &Shared) -> Outcome {
        self.run(&harness.shop().await?.url(), self.checks_min.shop).await
    }

    async fn run(&self, url: &str, checks_min: u32) -> Outcome {
        let said = run(installed(self.program)?.args(self.options).arg(here(self.file)).arg(url)).await?;
        let checks = said.lines().last().and_then(|it| it.strip_prefix("checks: ")?.parse::<u32>().ok());
        match checks {
            Some(checks) if checks >= checks_min => Ok(()),
            _ => Err(format!("{} checks, at least {checks_min} expected:\n{said}", self.file).into()),
        }
    }
}

pub const PYTHON: &str = ".venv/bin/python";
pub const JAVA_OPTIONS: &[&str] = JDBC.options;

/// All that a file of this directory writes, run with a connection string.
pub async fn run_file(program: &str, options: &[&str], file: &str, url: &str) -> Fallible<String> {
    run(installed(program)?.args(options).arg(here(file)).arg(url)).await
}

/// What `install.sh` puts beside this file, or a program of the machine.
fn installed(program: &str) -> Fallible<Command> {
    let path = if program.contains('/') { here(program) } else { PathBuf::from(program) };
    if !here(".venv/.installed-from").is_file() || !here("node_modules/.installed-from").is_file() {
        return Err(format!("the clients are not installed; run {SETUP}").into());
    }
    Ok(Command::new(path))
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/drivers").join(name)
}

/// All that a program writes, to either end; it is the error if the program fails.
pub async fn run(command: &mut Command) -> Fallible<String> {
    match finish(command).await? {
        (status, said) if status.success() => Ok(said),
        (status, said) => Err(format!("{command:?} ended with {status}:\n{said}").into()),
    }
}

async fn finish(command: &mut Command) -> Fallible<(ExitStatus, String)> {
    started(command)?.1.await
}

/// Its process id, and its end with all that it wrote.
fn started(
    command: &mut Command,
) -> Fallible<(i32, impl Future<Output = Fallible<(ExitStatus, String)>> + use<>)> {
    // In a file, so that nothing is lost of a program that does not end.
    let mut said = tempfile::tempfile()?;
    quiet(command).stdout(said.try_clone()?).stderr(said.try_clone()?);
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let pid = child.id().and_then(|it| i32::try_from(it).ok()).ok_or("a process without an id")?;
    let name = format!("{command:?}");
    let end = async move {
        let ended = timeout(RUN_TIMEOUT, child.wait()).await;
        if ended.is_err() {
            child.kill().await?;
        }
        let mut bytes = Vec::new();
        said.rewind()?;
        said.read_to_end(&mut bytes)?;
        let said = String::from_utf8_lossy(&bytes).into_owned();
        match ended {
            Ok(status) => Ok((status?, said)),
            Err(_) => Err(format!("{name} did not end in {RUN_TIMEOUT:?}:\n{said}").into()),
        }
    };
    Ok((pid, end))
}

/// Nothing of the environment may add to the connection string.
fn quiet(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
        .env("LC_ALL", "C.UTF-8")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
}
