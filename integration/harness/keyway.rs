//! The program under test, as a process.

use std::fs::File;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use keyway::demo::postgres::{Signal, WorkDir, free_port};
use rustix::process::{Pid, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::sleep;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::{Fallible, Outcome, Shared};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const END_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const PORTS_TRIED_MAX: u32 = 5;
const NOTICES_MAX: usize = 64;

/// `keyway run` in a directory of its own. Killed when dropped.
pub struct KeywayProcess {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    _dir: WorkDir,
}

impl Shared {
    /// The program, for one run of its command line. Killed when its future is dropped.
    pub fn keyway_command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::from(self.tied_keyway());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs it with the configuration that `config` writes for the addresses that it is given: to listen on,
    /// and for HTTP. Returns when every shard has a primary.
    pub async fn start_keyway(&self, config: impl Fn(&str, &str) -> String) -> Fallible<KeywayProcess> {
        let mut process = self.start_keyway_unready(config).await?;
        process.wait_for_status("/readyz", 200).await?;
        Ok(process)
    }

    /// As `start_keyway`, but returns when it answers HTTP, with or without servers behind it.
    pub async fn start_keyway_unready(
        &self,
        config: impl Fn(&str, &str) -> String,
    ) -> Fallible<KeywayProcess> {
        let mut tried = 0;
        loop {
            tried += 1;
            let mut process = self.spawn_keyway(&config)?;
            match process.wait_for_status("/healthz", 200).await {
                Err(_) if tried < PORTS_TRIED_MAX && process.log().contains("Address already in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(process),
            }
        }
    }

    fn spawn_keyway(&self, config: &impl Fn(&str, &str) -> String) -> Fallible<KeywayProcess> {
        let port = free_port(&[])?;
        let [listen, admin] = [port, free_port(&[port])?].map(|it| SocketAddr::from(([127, 0, 0, 1], it)));
        let dir = self.fresh_dir()?;
        let path = dir.path().join("keyway.toml");
        std::fs::write(&path, config(&listen.to_string(), &admin.to_string()))?;
        let log = dir.path().join("keyway.log");
        let file = File::create(&log)?;
        let mut command = self.tied_keyway();
        command.args(["run", "--config"]).arg(&path);
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(KeywayProcess { child, listen, admin, config: path, log, _dir: dir })
    }

    /// Ends in order when the harness dies.
    fn tied_keyway(&self) -> std::process::Command {
        self.installation().tied_command(Path::new(env!("CARGO_BIN_EXE_keyway")), "INT")
    }
}

impl KeywayProcess {
    /// Where clients connect to.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where the HTTP side is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Writes its configuration anew, for a reload.
    pub fn write_config(&self, config: impl Fn(&str, &str) -> String) -> Fallible<()> {
        Ok(std::fs::write(&self.config, config(&self.listen.to_string(), &self.admin.to_string()))?)
    }

    /// Writes another configuration and waits until it is served.
    pub async fn reload(&self, config: impl Fn(&str, &str) -> String) -> Fallible<()> {
        let done = || self.log().matches("configuration reloaded").count();
        let before = done();
        self.write_config(config)?;
        self.signal(Signal::HUP)?;
        until("the configuration is reloaded", || async { Ok(done() > before) }).await
    }

    /// All that it wrote to standard output and standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn url(&self, user: &str, password: &str, dbname: &str) -> String {
        format!("postgresql://{user}:{password}@{}/{dbname}", self.listen)
    }

    /// Status and body of a GET on the HTTP side.
    pub async fn http(&self, path: &str) -> Fallible<(u16, String)> {
        http_get(self.admin, path).await
    }

    pub async fn metrics(&self) -> Fallible<String> {
        Ok(self.http("/metrics").await?.1)
    }

    /// Times that a limit was hit, by its label.
    pub async fn limit_hits(&self, limit: &str) -> Fallible<u64> {
        let name = format!("keyway_limit_hits_total{{limit=\"{limit}\"}} ");
        let metrics = self.metrics().await?;
        let value = metrics.lines().find_map(|it| it.strip_prefix(&name)).ok_or("no such limit")?;
        Ok(value.parse()?)
    }

    /// For what depends on it: before that, a statement may leave anything on its server, and which texts are equal on all
    /// shards is not known.
    pub async fn until_catalog_is_known(&self, database: &str) -> Fallible<()> {
        let known = format!("keyway_catalog_known{{database=\"{database}\"}} 1");
        let is_known = async || Ok(self.metrics().await?.lines().any(|it| it == known));
        until("the catalog is known", is_known).await
    }

    /// Until GET `path` answers `status`.
    pub async fn wait_for_status(&mut self, path: &str, status: u16) -> Fallible<()> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            if let Some(ended) = self.child.try_wait()? {
                return Err(format!("keyway ended with {ended}:\n{}", self.log()).into());
            }
            if self.http(path).await.is_ok_and(|it| it.0 == status) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("keyway does not answer {status} to {path}:\n{}", self.log()).into());
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Memory in use, as the kernel counts it.
    pub fn resident_kb(&self) -> Fallible<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    pub fn signal(&self, signal: Signal) -> Fallible<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Until the process has ended by itself or by a signal sent before.
    pub async fn wait_until_ended(&mut self) -> Fallible<ExitStatus> {
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(format!("keyway does not end:\n{}", self.log()).into());
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for KeywayProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- keyway of a test that failed:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `tests/config_files.rs` holds every limit to one of these. A client has its error before the statement is
/// counted, so that the count may be behind for a moment.
pub async fn assert_hits(keyway: &KeywayProcess, limit: &str, count: u64) -> Outcome {
    until_hits(keyway, limit, count).await?;
    assert_eq!(keyway.limit_hits(limit).await?, count, "{limit}");
    Ok(())
}

pub async fn until_hits(keyway: &KeywayProcess, limit: &str, count: u64) -> Fallible<()> {
    until(&format!("{limit} is hit"), async || Ok(keyway.limit_hits(limit).await? >= count)).await
}

/// A client session from a connection string. It ends when the client is dropped.
pub async fn connect(url: &str) -> Fallible<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// As `connect`, with the notices that the session is sent.
pub async fn connect_hearing(url: &str) -> Fallible<(Client, Receiver<DbError>)> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let (heard, notices) = channel(NOTICES_MAX);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = heard.try_send(notice);
            }
        }
    });
    Ok((client, notices))
}

/// Until `holds` says yes; `what` names it in the error.
pub async fn until<F: Future<Output = Fallible<bool>>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> Fallible<()> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while !holds().await? {
        if Instant::now() > deadline {
            return Err(format!("not within {ANSWER_TIMEOUT:?}: {what}").into());
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// A simple query; its error says which.
pub async fn run(client: &Client, sql: &str) -> Fallible<Vec<SimpleQueryMessage>> {
    client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{sql}: {} {error}", error.code().code()).into(),
        None => format!("{sql}: {error:?}").into(),
    })
}

/// The rows of a simple query as text, NULL as `NULL`, columns apart by `|`.
pub async fn rows(client: &Client, sql: &str) -> Fallible<Vec<String>> {
    let messages = run(client, sql).await?;
    let row = |it: &SimpleQueryRow| {
        (0..it.len()).map(|of| it.get(of).unwrap_or("NULL")).collect::<Vec<_>>().join("|")
    };
    Ok(messages
        .iter()
        .filter_map(|it| match it {
            SimpleQueryMessage::Row(it) => Some(row(it)),
            _ => None,
        })
        .collect())
}

/// The error that a simple query is answered with.
pub async fn error_of(client: &Client, sql: &str) -> Fallible<DbError> {
    match client.simple_query(sql).await {
        Ok(_) => Err(format!("answered without an error: {sql}").into()),
        Err(error) => as_db_error(error),
    }
}

/// Status and body.
pub async fn http_get(address: SocketAddr, path: &str) -> Fallible<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no end of the HTTP header")?;
    let status = head.split(' ').nth(1).ok_or("no HTTP status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// What a server or Keyway said, where the connection lives on.
pub fn as_db_error(error: tokio_postgres::Error) -> Fallible<DbError> {
    error.as_db_error().cloned().ok_or_else(|| format!("not an error of the server: {error:?}").into())
}

/// Holds an error to its SQLSTATE and a part of its message; a refusal has a hint too.
#[track_caller]
pub fn assert_error(error: &DbError, state: &str, part: &str) {
    assert_eq!(error.code().code(), state, "{error:?}");
    assert!(error.message().contains(part), "no \"{part}\" in {error:?}");
    assert!(state != "0A000" || error.hint().is_some(), "no hint: {error:?}");
}
