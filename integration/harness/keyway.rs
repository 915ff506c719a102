//! The program under test, as a process.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use keyway::demo::postgres::{Signal, free_port};
use rustix::process::{Pid, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use super::Fallible;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const END_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const PORTS_TRIED_MAX: u32 = 5;

/// The program, for one run of its command line. Killed when its future is dropped.
pub fn keyway_command() -> tokio::process::Command {
    let mut command = tokio::process::Command::from(std_command());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// In a process group of its own: Ctrl-C reaches the harness, which ends things in order. util-linux's
/// setpriv has the kernel end it when the harness is killed.
fn std_command() -> std::process::Command {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("setpriv");
    command.args(["--pdeathsig", "INT", "--", env!("CARGO_BIN_EXE_keyway")]).process_group(0);
    command
}

/// `keyway run`. Killed when dropped.
pub struct KeywayProcess {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
}

impl KeywayProcess {
    /// Runs it with a file `dir`/`name`.toml that `config` writes for the addresses that it is given: to
    /// listen on, and for HTTP. Returns when every shard has a primary.
    pub async fn start(
        dir: &Path,
        name: &str,
        config: impl Fn(&str, &str) -> String,
    ) -> Fallible<KeywayProcess> {
        let mut process = KeywayProcess::start_unready(dir, name, config).await?;
        process.wait_for_status("/readyz", 200).await?;
        Ok(process)
    }

    /// As `start`, but returns when it answers HTTP, with or without servers behind it.
    pub async fn start_unready(
        dir: &Path,
        name: &str,
        config: impl Fn(&str, &str) -> String,
    ) -> Fallible<KeywayProcess> {
        let mut tried = 0;
        loop {
            tried += 1;
            let mut process = KeywayProcess::spawn(dir, name, &config)?;
            match process.wait_for_status("/healthz", 200).await {
                Err(_) if tried < PORTS_TRIED_MAX && process.log().contains("Address already in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(process),
            }
        }
    }

    fn spawn(dir: &Path, name: &str, config: &impl Fn(&str, &str) -> String) -> Fallible<KeywayProcess> {
        let address = || Fallible::Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?)));
        let (listen, admin) = (address()?, address()?);
        let path = dir.join(name).with_extension("toml");
        std::fs::write(&path, config(&listen.to_string(), &admin.to_string()))?;
        let log = File::create(path.with_extension("log"))?;
        let mut command = std_command();
        command.args(["run", "--config"]).arg(&path);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(KeywayProcess { child, listen, admin, config: path })
    }

    /// Where clients connect to.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// All that it wrote to standard output and standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
    }

    pub fn url(&self, user: &str, password: &str, dbname: &str) -> String {
        format!("postgresql://{user}:{password}@{}/{dbname}", self.listen)
    }

    /// Status and body of a GET on the HTTP side.
    pub async fn http(&self, path: &str) -> Fallible<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: keyway\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no end of the HTTP header")?;
        let status = head.split(' ').nth(1).ok_or("no HTTP status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    pub async fn metrics(&self) -> Fallible<String> {
        Ok(self.http("/metrics").await?.1)
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
            eprintln!("--- keyway of a test that failed, {}:\n{}", self.config.display(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client session from a connection string. It ends when the client is dropped.
pub async fn connect(url: &str) -> Fallible<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
