//! `keyway demo` from the outside: what it promises, and that it leaves nothing.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway::demo::postgres::{Signal, WorkDir};
use libtest_mimic::Trial;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::harness::{Fallible, Harness, Outcome, Shared, connect, until};

/// Servers start in seconds; a busy machine may take longer.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const END_TIMEOUT: Duration = Duration::from_secs(60);

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("demo::once_runs_its_lines_and_ends", once_runs_its_lines_and_ends),
        harness.test("demo::json_names_all_and_sigint_ends_all", json_names_all_and_sigint_ends_all),
        harness.test("demo::sigterm_while_starting_leaves_nothing", sigterm_while_starting_leaves_nothing),
        harness.test("demo::keep_leaves_the_files", keep_leaves_the_files),
        harness.test("demo::a_taken_port_is_one_clear_sentence", a_taken_port_is_one_clear_sentence),
        harness
            .test("demo::without_postgres_it_says_what_to_install", without_postgres_it_says_what_to_install),
    ]
}

async fn once_runs_its_lines_and_ends(harness: Arc<Shared>) -> Outcome {
    let scratch = Scratch::new(&harness)?;
    let output = scratch.demo(&["--once"]).output();
    let output = timeout(READY_TIMEOUT + END_TIMEOUT, output).await??;
    let said = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("connect    postgresql://app:"), "{said}");
    assert_eq!(said.matches(": as routed").count(), 3, "{said}");
    assert!(said.contains("answered by s1-replica1") && said.contains("s2-replica1"), "{said}");
    scratch.assert_nothing_left()
}

async fn json_names_all_and_sigint_ends_all(harness: Arc<Shared>) -> Outcome {
    let scratch = Scratch::new(&harness)?;
    let (mut child, ready) = scratch.ready_demo(&[]).await?;
    let mut pids = Vec::new();
    for (index, shard) in list(&ready["shards"]).iter().enumerate() {
        assert_eq!(shard["name"], format!("s{}", index + 1));
        let roles: Vec<_> = list(&shard["servers"]).iter().map(|it| it["role"].clone()).collect();
        // The third is room for what is hot.
        assert_eq!(roles, ["primary", "replica"][..if index < 2 { 2 } else { 1 }]);
        for server in list(&shard["servers"]) {
            let pid = server["pid"].as_u64().ok_or("no pid")?;
            let pid_file =
                Path::new(server["data_dir"].as_str().ok_or("no data_dir")?).join("postmaster.pid");
            assert!(std::fs::read_to_string(pid_file)?.starts_with(&format!("{pid}\n")));
            pids.push(pid);
        }
    }
    assert_eq!(pids.len(), 5);
    assert!(Path::new(ready["config"].as_str().ok_or("no config")?).is_file());

    let client = connect(ready["url"].as_str().ok_or("no url")?).await?;
    let row = client.query_one("SELECT name FROM users WHERE user_id = 42", &[]).await?;
    assert_eq!(row.get::<_, &str>(0), "user 42");
    // The load writes for the hot user all the time.
    let newest = "SELECT order_id FROM orders WHERE user_id = 42 ORDER BY order_id DESC LIMIT 1";
    let newest = async || Fallible::Ok(client.query_one(newest, &[]).await?.get::<_, i64>(0));
    let (before, deadline) = (newest().await?, Instant::now() + READY_TIMEOUT);
    while newest().await? == before {
        assert!(Instant::now() < deadline, "no load arrives");
        sleep(Duration::from_millis(50)).await;
    }

    interrupt(&child, Signal::INT)?;
    let status = timeout(END_TIMEOUT, child.wait()).await??;
    assert!(status.success(), "{status}");
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
    scratch.assert_nothing_left()
}

async fn sigterm_while_starting_leaves_nothing(harness: Arc<Shared>) -> Outcome {
    let scratch = Scratch::new(&harness)?;
    let mut child = scratch.demo(&[]).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().ok_or("no stderr")?).lines();
    let first = timeout(READY_TIMEOUT, lines.next_line()).await??;
    assert!(first.is_some_and(|it| it.contains("starting 2 shards")));
    // initdb is at work.
    let deadline = Instant::now() + READY_TIMEOUT;
    while !scratch.holds("PG_VERSION") {
        assert!(Instant::now() < deadline, "initdb does not start");
        sleep(Duration::from_millis(5)).await;
    }
    interrupt(&child, Signal::TERM)?;
    timeout(END_TIMEOUT, child.wait()).await??;
    // It has killed initdb, which the system ends in its own time.
    until("what was killed has ended", async || Ok(scratch.programs()?.is_empty())).await?;
    scratch.assert_nothing_left()
}

async fn keep_leaves_the_files(harness: Arc<Shared>) -> Outcome {
    let scratch = Scratch::new(&harness)?;
    let keep = scratch.path().join("kept");
    let keep_argument = keep.to_str().ok_or("path")?;
    let arguments = ["--keep", keep_argument, "--shards", "1", "--replicas", "0", "--load", "none"];
    let (mut child, ready) = scratch.ready_demo(&arguments).await?;
    assert_eq!(list(&ready["shards"]).len(), 1);
    assert_eq!(list(&ready["shards"][0]["servers"]).len(), 1);
    interrupt(&child, Signal::HUP)?;
    assert!(timeout(END_TIMEOUT, child.wait()).await??.success());
    assert!(keep.join("keyway.toml").is_file());
    assert!(keep.join("s1-primary/PG_VERSION").is_file());
    assert!(!keep.join("s1-primary/postmaster.pid").exists(), "the server has stopped");

    let again = scratch.demo(&["--keep", keep_argument]).output().await?;
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr)?;
    assert!(said.contains("must be an empty directory"), "{said}");
    Ok(())
}

async fn a_taken_port_is_one_clear_sentence(harness: Arc<Shared>) -> Outcome {
    let scratch = Scratch::new(&harness)?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let mut command = harness.keyway_command();
    command.args(["demo", "--admin-port", "0", "--port", &port]).env("TMPDIR", scratch.path());
    let output = command.output().await?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&port) && said.contains("--port 0"), "{said}");
    scratch.assert_nothing_left()
}

async fn without_postgres_it_says_what_to_install(harness: Arc<Shared>) -> Outcome {
    let scratch = Scratch::new(&harness)?;
    let output = scratch.demo(&[]).env("PG_BINDIR", scratch.path()).output().await?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("PG_BINDIR") && said.contains("initdb"), "{said}");
    scratch.assert_nothing_left()
}

/// A directory for temporary files of one demo alone, to see what it leaves.
pub struct Scratch<'a> {
    harness: &'a Shared,
    dir: WorkDir,
}

impl Scratch<'_> {
    pub fn new(harness: &Shared) -> Fallible<Scratch<'_>> {
        Ok(Scratch { harness, dir: harness.fresh_dir()? })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn demo(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.harness.keyway_command();
        command.args(["demo", "--port", "0", "--admin-port", "0"]).args(arguments);
        command.env("TMPDIR", self.path());
        command
    }

    /// A demo that is ready, and the line that says so.
    pub async fn ready_demo(&self, arguments: &[&str]) -> Fallible<(Child, Value)> {
        let mut command = self.demo(arguments);
        let mut child = command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let mut errors = child.stderr.take().ok_or("no stderr")?;
        // Read on, or a full pipe would stop the demo.
        let errors = tokio::spawn(async move {
            let mut text = String::new();
            errors.read_to_string(&mut text).await.map(|_| text)
        });
        match timeout(READY_TIMEOUT, lines.next_line()).await?? {
            Some(line) => Ok((child, serde_json::from_str(&line)?)),
            None => Err(errors.await??.into()),
        }
    }

    fn holds(&self, name: &str) -> bool {
        let mut dirs = vec![self.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_name() == name {
                    return true;
                }
                if entry.file_type().is_ok_and(|it| it.is_dir()) {
                    dirs.push(entry.path());
                }
            }
        }
        false
    }

    pub fn assert_nothing_left(&self) -> Outcome {
        let left: Vec<_> = std::fs::read_dir(self.path())?.flatten().map(|it| it.path()).collect();
        assert!(left.is_empty(), "still there: {left:?}");
        let running = self.programs()?;
        assert!(running.is_empty(), "still runs: {running:?}");
        Ok(())
    }

    /// Command lines of processes that have to do with it.
    fn programs(&self) -> Fallible<Vec<String>> {
        let path = self.path().to_str().ok_or("path")?;
        let line = |entry: std::fs::DirEntry| {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).replace('\0', " ")
        };
        Ok(std::fs::read_dir("/proc")?.flatten().map(line).filter(|it| it.contains(path)).collect())
    }
}

pub fn interrupt(child: &Child, signal: Signal) -> Fallible<()> {
    let pid = child.id().and_then(|it| Pid::from_raw(it as i32)).ok_or("it has ended")?;
    Ok(kill_process(pid, signal)?)
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
