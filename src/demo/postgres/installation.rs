use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::{PostgresError, at};

/// What a server and its replicas need; `initdb` comes first because client packages lack it.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";

/// PostgreSQL's server programs, and who runs them.
#[derive(Debug)]
pub struct Installation {
    bindir: PathBuf,
    /// Who runs the servers; `None` is ourselves.
    account: Option<Account>,
    /// util-linux's setpriv: has the kernel stop a server whose starter has died, even by SIGKILL.
    setpriv: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Installation {
    /// Looks in `PG_BINDIR`, where `pg_config` points, and where Debian puts versions, newest first.
    pub fn find() -> Result<Installation, PostgresError> {
        let bindir = match env::var_os("PG_BINDIR") {
            Some(set) => {
                let bindir = PathBuf::from(set);
                if let Some(program) = missing_program(&bindir) {
                    return Err(PostgresError::WrongDirectory(bindir, program));
                }
                bindir
            }
            None => pg_config_bindir()
                .into_iter()
                .chain(debian_bindirs())
                .find(|it| missing_program(it).is_none())
                .ok_or(PostgresError::NotInstalled)?,
        };
        Installation::of(bindir)
    }

    /// The server programs in one directory. It may lack those that make a replica.
    pub fn at(bindir: &Path) -> Result<Installation, PostgresError> {
        match missing_program(bindir) {
            Some(program @ ("initdb" | "postgres")) => {
                Err(PostgresError::WrongDirectory(bindir.to_owned(), program))
            }
            _ => Installation::of(bindir.to_owned()),
        }
    }

    fn of(bindir: PathBuf) -> Result<Installation, PostgresError> {
        // postgres refuses to run as root (manual, "The PostgreSQL User Account").
        let account = if rustix::process::geteuid().is_root() { Some(ordinary_account()?) } else { None };
        Ok(Installation { bindir, account, setpriv: setpriv() })
    }

    /// A client program of PostgreSQL, such as psql; of this version if it is there.
    pub fn client_program(&self, name: &str) -> Result<PathBuf, PostgresError> {
        let beside = Some(self.bindir.join(name)).filter(|it| it.is_file());
        beside.or_else(|| on_path(name)).ok_or_else(|| PostgresError::NoClientProgram(name.to_owned()))
    }

    /// A command that is sent `signal` when the thread that spawns it dies, where that can be had. It has a
    /// process group of its own, so that Ctrl-C reaches us alone and we stop things in order.
    pub fn tied_command(&self, program: &Path, signal: &str) -> Command {
        let mut command = match &self.setpriv {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", signal, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.process_group(0);
        command
    }

    /// A server program as the servers' account, without settings from the user's own `PG...` variables.
    pub(super) fn command(&self, program: &str) -> Command {
        self.account_command(&self.bindir.join(program))
    }

    /// Any program, as the servers' account runs it.
    pub(super) fn account_command(&self, program: &Path) -> Command {
        let mut command = self.tied_command(program, "QUIT");
        for (name, _) in env::vars_os().filter(|it| it.0.to_str().is_some_and(|it| it.starts_with("PG"))) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Creates a directory that the servers' account owns and that no other user can read.
    pub(super) fn create_private_dir(&self, path: &Path) -> Result<(), PostgresError> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().mode(0o700).create(path).map_err(at(path))?;
        self.give(path)
    }

    /// For nobody but the servers' account: keys and rules.
    pub fn write_private_file(&self, path: &Path, text: &str) -> Result<(), PostgresError> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(path).map_err(at(path))?;
        file.write_all(text.as_bytes()).map_err(at(path))?;
        self.give(path)
    }

    /// Whether the servers' account can get to `path`: it must be allowed to enter every directory above.
    pub(super) fn check_reach(&self, path: &Path) -> Result<(), PostgresError> {
        let Some(account) = &self.account else { return Ok(()) };
        for dir in path.ancestors().filter(|it| !it.as_os_str().is_empty()) {
            let metadata = fs::metadata(dir).map_err(at(dir))?;
            let enter = match (metadata.uid() == account.uid, metadata.gid() == account.gid) {
                (true, _) => 0o100,
                (_, true) => 0o010,
                _ => 0o001,
            };
            if metadata.mode() & enter == 0 {
                return Err(PostgresError::Unreachable { account: account.name.clone(), path: dir.into() });
            }
        }
        Ok(())
    }

    fn give(&self, path: &Path) -> Result<(), PostgresError> {
        let Some(account) = &self.account else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid)).map_err(at(path))
    }
}

fn missing_program(bindir: &Path) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|it| !bindir.join(it).is_file())
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

fn debian_bindirs() -> Vec<PathBuf> {
    let entries = fs::read_dir(DEBIAN_VERSIONS).into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut versions: Vec<_> =
        entries.map(|it| it.path()).filter_map(|it| Some((version(&it)?, it))).collect();
    versions.sort();
    versions.into_iter().rev().map(|it| it.1.join("bin")).collect()
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|it| it.join(program)).find(|it| it.is_file())
}

/// Other systems' setpriv may not know the option.
fn setpriv() -> Option<PathBuf> {
    let path = on_path("setpriv")?;
    let help = Command::new(&path).arg("--help").output().ok()?;
    String::from_utf8_lossy(&help.stdout).contains("--pdeathsig").then_some(path)
}

/// The standard library looks no user up by name.
fn ordinary_account() -> Result<Account, PostgresError> {
    let path = Path::new("/etc/passwd");
    let users = fs::read_to_string(path).map_err(at(path))?;
    ["postgres", "nobody"].into_iter().find_map(|it| account(&users, it)).ok_or(PostgresError::NoAccount)
}

/// A line of passwd(5): name, password, uid, gid, ...
fn account(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:8::/:\npostgres:x:101:104:a,b:/var:/bin/sh\n";
        let found = account(users, "postgres").unwrap();
        assert_eq!((found.uid, found.gid), (101, 104));
        assert!(account(users, "nobody").is_none());
    }

    #[test]
    fn a_directory_without_the_programs_names_the_missing_one() {
        assert_eq!(missing_program(Path::new("/nonexistent")), Some("initdb"));
        let error = Installation::at(Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(error, PostgresError::WrongDirectory(_, "initdb")), "{error}");
    }
}
