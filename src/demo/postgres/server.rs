use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use super::{Installation, PostgresError, REPLICATOR, SUPERUSER, at, free_port};

const HOST: &str = "127.0.0.1";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const CONDITION_TIMEOUT: Duration = Duration::from_secs(30);
/// On the way out: PostgreSQL's own children get five seconds from it (SIGKILL_CHILDREN_AFTER_SECS).
const DROP_TIMEOUT: Duration = Duration::from_secs(7);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const PORTS_TRIED_MAX: u32 = 5;
const LOG_LINES_SHOWN: usize = 12;

/// What a cluster is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of `SUPERUSER` and `REPLICATOR`.
    pub password: String,
    /// Without it a crash of the machine may break the data: right for what is thrown away anyway.
    pub fsync: bool,
    /// More lines of postgresql.conf; they win over ours.
    pub settings: Vec<(String, String)>,
    /// The data directory of a stopped primary with the same password, to be copied in place of making a cluster, which
    /// takes seconds. Copies have its system identifier.
    pub template: Option<PathBuf>,
}

/// How `pg_ctl stop -m` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Rolls back what is open, and sends all log to replicas first.
    Fast,
    /// Like a crash: the next start replays the log.
    Immediate,
}

/// One PostgreSQL server, our child process. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    name: String,
    data_dir: PathBuf,
    port: u16,
    options: Options,
    installation: Arc<Installation>,
    /// `None` is stopped.
    child: Option<Child>,
}

impl Server {
    /// Makes a cluster in `dir`/`name` and starts it.
    pub async fn primary(
        installation: &Arc<Installation>,
        dir: &Path,
        name: &str,
        options: &Options,
    ) -> Result<Server, PostgresError> {
        let mut server = Server::stopped(installation, dir, name, options)?;
        if let Some(template) = &options.template {
            server.copy_of(template).await?;
            server.start_on_free_port().await?;
            return Ok(server);
        }
        server.make(dir).await?;
        server.start_on_free_port().await?;
        let client = server.connect("postgres").await?;
        let password = literal(&options.password);
        let create = format!("CREATE ROLE {REPLICATOR} LOGIN REPLICATION PASSWORD {password}");
        client.batch_execute(&create).await.map_err(server.sql_error())?;
        Ok(server)
    }

    async fn make(&self, dir: &Path) -> Result<(), PostgresError> {
        let installation = &self.installation;
        let password_file = dir.join(format!("{}.password", self.name));
        installation.write_private_file(&password_file, &self.options.password)?;
        let mut initdb = installation.command("initdb");
        initdb
            .args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C", "--no-sync", "--username", SUPERUSER])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(&self.data_dir);
        let made = run("initdb", initdb).await;
        fs::remove_file(&password_file).map_err(at(&password_file))?;
        made?;
        self.include_settings()
    }

    async fn copy_of(&self, template: &Path) -> Result<(), PostgresError> {
        let mut copy = self.installation.account_command(Path::new("cp"));
        copy.arg("-a").arg(template.join(".")).arg(&self.data_dir);
        run("cp", copy).await
    }

    /// Copies this primary to `dir`/`name` and starts the copy as its streaming replica; returns when it
    /// streams and has replayed all that is committed here now.
    pub async fn replica(&self, dir: &Path, name: &str) -> Result<Server, PostgresError> {
        let mut replica = Server::stopped(&self.installation, dir, name, &self.options)?;
        let mut backup = self.installation.command("pg_basebackup");
        backup
            .env("PGPASSWORD", &self.options.password)
            .args(["--host", HOST, "--port", &self.port.to_string(), "--username", REPLICATOR])
            .args(["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"])
            .arg("--no-manifest")
            .arg("--pgdata")
            .arg(&replica.data_dir);
        run("pg_basebackup", backup).await?;
        replica.start_on_free_port().await?;
        replica.wait_until_streaming().await?;
        replica.wait_until_replayed(self).await?;
        Ok(replica)
    }

    fn stopped(
        installation: &Arc<Installation>,
        dir: &Path,
        name: &str,
        options: &Options,
    ) -> Result<Server, PostgresError> {
        let data_dir = dir.join(name);
        installation.create_private_dir(&data_dir)?;
        Ok(Server {
            name: name.to_owned(),
            data_dir,
            port: 0,
            options: options.clone(),
            installation: installation.clone(),
            child: None,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn host(&self) -> &'static str {
        HOST
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{HOST}:{}", self.port)
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The postmaster's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// As the superuser.
    pub fn url(&self, dbname: &str) -> String {
        format!("postgresql://{SUPERUSER}:{}@{HOST}:{}/{dbname}", self.options.password, self.port)
    }

    /// A superuser's session. It ends when the client is dropped.
    pub async fn connect(&self, dbname: &str) -> Result<Client, PostgresError> {
        self.try_connect(dbname).await.map_err(self.sql_error())
    }

    async fn try_connect(&self, dbname: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host(HOST).port(self.port).user(SUPERUSER).password(&self.options.password);
        config.dbname(dbname).application_name("keyway clusters").connect_timeout(START_TIMEOUT);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Creates a user with a password and an empty database of theirs.
    pub async fn create_database(
        &self,
        name: &str,
        owner: &str,
        password: &str,
    ) -> Result<(), PostgresError> {
        let client = self.connect("postgres").await?;
        let password = literal(password);
        let statements = [
            format!("CREATE ROLE \"{owner}\" LOGIN PASSWORD {password}"),
            format!("CREATE DATABASE \"{name}\" OWNER \"{owner}\""),
        ];
        for statement in statements {
            client.batch_execute(&statement).await.map_err(self.sql_error())?;
        }
        Ok(())
    }

    /// The first column of the first row of a query in database `postgres`, as text; `None` is NULL or no row.
    pub async fn query_text(&self, sql: &str) -> Result<Option<String>, PostgresError> {
        let client = self.connect("postgres").await?;
        first_text(&client, sql).await.map_err(self.sql_error())
    }

    /// Starts a stopped server, on the port that it had.
    pub async fn start(&mut self) -> Result<(), PostgresError> {
        self.spawn()?;
        self.wait_until_ready().await
    }

    pub async fn stop(&mut self, mode: StopMode) -> Result<ExitStatus, PostgresError> {
        self.signal(match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        })?;
        self.wait_until_ended().await
    }

    pub async fn restart(&mut self, mode: StopMode) -> Result<(), PostgresError> {
        self.stop(mode).await?;
        self.start().await
    }

    /// Kills the postmaster as the kernel's out-of-memory killer would; its children notice and end, and
    /// none of them holds shared memory any more when this returns.
    pub async fn kill(&mut self) -> Result<ExitStatus, PostgresError> {
        let children = self.pid().map_or_else(Vec::new, children);
        self.signal(Signal::KILL)?;
        let status = self.wait_until_ended().await?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while children.iter().any(|it| is_alive(*it)) {
            if Instant::now() > deadline {
                return Err(self.did_not("end with its postmaster"));
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(status)
    }

    /// Sends a signal to the postmaster.
    pub fn signal(&self, signal: Signal) -> Result<(), PostgresError> {
        let Some(child) = &self.child else { return Err(self.did_not("run")) };
        kill_process(Pid::from_child(child), signal).map_err(|_| self.did_not("take a signal"))
    }

    /// Stops every process of the server where it stands: connections stay open and nothing answers, as on
    /// a machine that hangs.
    pub fn freeze(&self) -> Result<(), PostgresError> {
        self.signal(Signal::STOP)?;
        self.signal_children(Signal::STOP);
        Ok(())
    }

    pub fn thaw(&self) -> Result<(), PostgresError> {
        self.signal_children(Signal::CONT);
        self.signal(Signal::CONT)
    }

    pub async fn promote(&self) -> Result<(), PostgresError> {
        match self.query_text("SELECT pg_promote(true, 30)").await?.as_deref() {
            Some("t") => Ok(()),
            _ => Err(self.did_not("promote")),
        }
    }

    /// From here on the replica receives and does not show what it receives.
    pub async fn pause_replay(&self) -> Result<(), PostgresError> {
        self.query_text("SELECT pg_wal_replay_pause()").await?;
        self.wait_until("SELECT pg_get_wal_replay_pause_state() = 'paused'", "pause replay").await
    }

    pub async fn resume_replay(&self) -> Result<(), PostgresError> {
        self.query_text("SELECT pg_wal_replay_resume()").await.map(|_| ())
    }

    /// Makes it a replica of the server that is reached at `port`, once that is: now if it is one already, else at its next
    /// start, for which it must have nothing that the other lacks.
    pub fn follow(&self, port: u16) -> Result<(), PostgresError> {
        self.installation.write_private_file(&self.data_dir.join("standby.signal"), "")?;
        let password = &self.options.password;
        let source = literal(&format!("host={HOST} port={port} user={REPLICATOR} password={password}"));
        // The last line of a name counts; pg_basebackup has left one here.
        let path = self.data_dir.join("postgresql.auto.conf");
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        self.installation.write_private_file(&path, &format!("{text}primary_conninfo = {source}\n"))?;
        if self.child.is_some() { self.signal(Signal::HUP) } else { Ok(()) }
    }

    /// Until it receives from the server at `port`.
    pub async fn wait_until_following(&self, port: u16) -> Result<(), PostgresError> {
        let following = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_port = {port})"
        );
        self.wait_until(&following, "stream from the server that it was given").await
    }

    pub async fn wait_until_streaming(&self) -> Result<(), PostgresError> {
        let streaming = "SELECT pg_is_in_recovery() AND EXISTS \
             (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')";
        self.wait_until(streaming, "stream from its primary").await
    }

    /// Until this replica shows all that is committed on `primary` now.
    pub async fn wait_until_replayed(&self, primary: &Server) -> Result<(), PostgresError> {
        let position = primary.position().await?;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
        self.wait_until(&replayed, "catch up with its primary").await
    }

    /// Until this replica has all that is committed on `primary` now, shown or not.
    pub async fn wait_until_received(&self, primary: &Server) -> Result<(), PostgresError> {
        let position = primary.position().await?;
        let received = format!("SELECT pg_last_wal_receive_lsn() >= '{position}'");
        self.wait_until(&received, "receive what its primary has").await
    }

    /// Where this primary's log ends.
    async fn position(&self) -> Result<String, PostgresError> {
        let position = self.query_text("SELECT pg_current_wal_lsn()").await?;
        position.ok_or_else(|| self.did_not("tell its position"))
    }

    /// The end of the server's log file.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    pub fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    async fn start_on_free_port(&mut self) -> Result<(), PostgresError> {
        for tried in 1.. {
            self.port = free_port(&[])?;
            self.write_settings()?;
            self.spawn()?;
            match self.wait_until_ready().await {
                Err(_) if tried < PORTS_TRIED_MAX && self.log().contains("Address already in use") => {}
                other => return other,
            }
        }
        Ok(())
    }

    fn include_settings(&self) -> Result<(), PostgresError> {
        let path = self.data_dir.join("postgresql.conf");
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        self.installation.write_private_file(&path, &format!("{text}\ninclude 'keyway.conf'\n"))?;
        let path = self.data_dir.join("pg_hba.conf");
        self.installation.write_private_file(
            &path,
            "# Loopback only; every user with a password.\n\
             host all all 127.0.0.1/32 scram-sha-256\n\
             host replication all 127.0.0.1/32 scram-sha-256\n",
        )
    }

    fn write_settings(&self) -> Result<(), PostgresError> {
        let on = |it| if it { "on" } else { "off" }.to_owned();
        let mut settings: Vec<(&str, String)> = vec![
            ("listen_addresses", HOST.to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", String::new()),
            ("cluster_name", self.name.clone()),
            ("password_encryption", "scram-sha-256".to_owned()),
            ("max_connections", "200".to_owned()),
            ("shared_buffers", "32MB".to_owned()),
            ("wal_level", "replica".to_owned()),
            ("max_wal_senders", "10".to_owned()),
            // A replica that a test holds back must still find its log.
            ("wal_keep_size", "256MB".to_owned()),
            ("min_wal_size", "32MB".to_owned()),
            ("hot_standby", "on".to_owned()),
            ("wal_receiver_status_interval", "1s".to_owned()),
            ("wal_retrieve_retry_interval", "200ms".to_owned()),
            ("fsync", on(self.options.fsync)),
            ("full_page_writes", on(self.options.fsync)),
            ("timezone", "UTC".to_owned()),
            ("log_timezone", "UTC".to_owned()),
            ("log_line_prefix", "%m [%p] ".to_owned()),
        ];
        settings.extend(self.options.settings.iter().map(|it| (it.0.as_str(), it.1.clone())));
        let lines: String =
            settings.iter().map(|(name, value)| format!("{name} = {}\n", literal(value))).collect();
        self.installation.write_private_file(&self.data_dir.join("keyway.conf"), &lines)
    }

    fn spawn(&mut self) -> Result<(), PostgresError> {
        let path = self.log_path();
        // Emptied, so that the log that an error shows is this start's.
        let log = fs::File::create(&path).map_err(at(&path))?;
        let copy = log.try_clone().map_err(at(&path))?;
        let mut command = self.installation.command("postgres");
        command.arg("-D").arg(&self.data_dir).stdin(Stdio::null()).stdout(copy).stderr(log);
        let child = command.spawn().map_err(|error| PostgresError::Spawn("postgres".to_owned(), error))?;
        self.child = Some(child);
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<(), PostgresError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if self.has_ended() {
                return Err(self.did_not("start"));
            }
            if self.answers().await {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.did_not("answer"));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Whether it is this server that answers, not another one that was given the port meanwhile.
    async fn answers(&self) -> bool {
        let Ok(client) = self.try_connect("postgres").await else { return false };
        let row = client.query_one("SELECT current_setting('data_directory')", &[]).await;
        row.is_ok_and(|it| it.try_get(0).ok() == self.data_dir.to_str())
    }

    async fn wait_until_ended(&mut self) -> Result<ExitStatus, PostgresError> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        while let Some(child) = &mut self.child {
            if let Ok(Some(status)) = child.try_wait() {
                self.child = None;
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(self.did_not("stop"));
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(ExitStatus::from_raw(0))
    }

    fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_none_or(|it| matches!(it.try_wait(), Ok(Some(_))));
        if ended {
            self.child = None;
        }
        ended
    }

    /// Until `condition` answers true.
    async fn wait_until(&self, condition: &str, wanted: &'static str) -> Result<(), PostgresError> {
        let client = self.connect("postgres").await?;
        let deadline = Instant::now() + CONDITION_TIMEOUT;
        while first_text(&client, condition).await.map_err(self.sql_error())?.as_deref() != Some("t") {
            if Instant::now() > deadline {
                return Err(self.did_not(wanted));
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    fn signal_children(&self, signal: Signal) {
        let Some(parent) = self.pid() else { return };
        for pid in children(parent) {
            // It may have ended since.
            let _ = kill_process(pid, signal);
        }
    }

    fn did_not(&self, wanted: &'static str) -> PostgresError {
        PostgresError::Server { name: self.name.clone(), wanted, log: self.log() }
    }

    fn sql_error(&self) -> impl Fn(tokio_postgres::Error) -> PostgresError + use<> {
        let name = self.name.clone();
        move |error| PostgresError::Sql { name: name.clone(), error }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A frozen server does not hear SIGQUIT.
        let _ = self.thaw();
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process(Pid::from_child(&child), Signal::QUIT);
        let deadline = Instant::now() + DROP_TIMEOUT;
        while let Ok(None) = child.try_wait() {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Runs a program to its end; dropped half way, it is killed.
async fn run(program: &'static str, mut command: std::process::Command) -> Result<(), PostgresError> {
    command.stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|error| PostgresError::Spawn(program.to_owned(), error))?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(PostgresError::Program { program, output })
}

async fn first_text(client: &Client, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages.iter().find_map(|it| match it {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

/// A literal of SQL and of postgresql.conf; both double the quote.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Processes whose parent is `parent` and that have not ended, from proc(5).
pub fn children(parent: u32) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|it| it.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|it| living_child_of(*it) == Some(parent))
        .collect()
}

fn is_alive(pid: Pid) -> bool {
    living_child_of(pid).is_some()
}

/// The parent of a process that has not ended, waited for or not.
fn living_child_of(pid: Pid) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name before the state is in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" { None } else { fields.next()?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_doubles_quotes() {
        assert_eq!(literal("it's"), "'it''s'");
    }
}
