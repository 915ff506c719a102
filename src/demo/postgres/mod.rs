//! PostgreSQL clusters of our own: real servers on free ports that vanish with their owner. The demo shows
//! itself on them, and the integration tests run against them.
//!
//! Drop order is what keeps the machine clean: a `Server` kills its processes when it is dropped, so whoever
//! owns servers and their `WorkDir` declares the directory last.

mod installation;
mod server;
mod shard;
mod work_dir;

pub use installation::Installation;
pub use rustix::process::Signal;
pub use server::{Options, Server, StopMode, children};
pub use shard::Shard;
pub use work_dir::WorkDir;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

/// The superuser of every cluster.
pub const SUPERUSER: &str = "postgres";
/// Whom replicas log in as.
pub const REPLICATOR: &str = "replicator";

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "PostgreSQL's server programs were not found: install postgresql (Debian, Ubuntu), postgresql-server \
         (Fedora) or postgresql (Homebrew), or set PG_BINDIR to the directory that holds initdb and postgres"
    )]
    NotInstalled,
    #[error(
        "{0} holds no `{1}`: PG_BINDIR, where it is set, must be the directory of PostgreSQL's server programs"
    )]
    WrongDirectory(PathBuf, &'static str),
    #[error("{0} was not found: install postgresql-client (Debian, Ubuntu) or postgresql (Fedora, Homebrew)")]
    NoClientProgram(String),
    #[error("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")]
    NoAccount,
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{0} must be an empty directory or not exist")]
    NotEmpty(PathBuf),
    #[error("user `{account}` cannot reach {path}: choose a directory below one that everyone may enter")]
    Unreachable { account: String, path: PathBuf },
    #[error("no free port: {0}")]
    NoPort(io::Error),
    #[error("cannot run {0}: {1}")]
    Spawn(String, io::Error),
    #[error("{program} failed: {output}")]
    Program { program: &'static str, output: String },
    #[error("server {name} did not {wanted}: {log}")]
    Server { name: String, wanted: &'static str, log: String },
    #[error("server {name}: {}", reason(error))]
    Sql { name: String, error: tokio_postgres::Error },
}

/// A server's own words where there are any; `Display` of tokio-postgres says only "db error".
pub fn reason(error: &tokio_postgres::Error) -> String {
    let Some(it) = error.as_db_error() else { return error.to_string() };
    let mut text = format!("{} (SQLSTATE {})", it.message(), it.code().code());
    it.detail().iter().for_each(|it| text.push_str(&format!("; detail: {it}")));
    it.hint().iter().for_each(|it| text.push_str(&format!("; hint: {it}")));
    text
}

/// A port of the loopback interface that nobody listens on now. It lies below the range that the kernel
/// takes for outgoing connections, so that a server that is stopped finds it free when it starts again. None of `taken`,
/// which are for listeners that are still to start.
pub fn free_port(taken: &[u16]) -> Result<u16, PostgresError> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    let mut problem = io::Error::other("none tried");
    for _ in 0..100 {
        let entropy = getrandom::u32().map_err(|it| PostgresError::NoPort(it.into()))?;
        let port = (FIRST + entropy % COUNT) as u16;
        if taken.contains(&port) {
            continue;
        }
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => problem = error,
        }
    }
    Err(PostgresError::NoPort(problem))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PostgresError {
    let path = path.to_owned();
    move |error| PostgresError::File(path, error)
}
