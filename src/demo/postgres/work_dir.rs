use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Installation, PostgresError, at};

const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where clusters live. Removed when dropped, unless its user named it.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    keep: bool,
}

impl WorkDir {
    /// A new directory that every user may enter, so that the servers' account gets to its own below.
    pub fn temporary(installation: &Installation) -> Result<WorkDir, PostgresError> {
        WorkDir::temporary_in(installation, &std::env::temp_dir())
    }

    pub fn temporary_in(installation: &Installation, parent: &Path) -> Result<WorkDir, PostgresError> {
        installation.check_reach(parent)?;
        let made = tempfile::Builder::new()
            .prefix("keyway-")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir_in(parent)
            .map_err(at(parent))?;
        Ok(WorkDir { path: made.keep(), keep: false })
    }

    /// A directory that stays. It must not hold anything yet: a second cluster would not start in it.
    pub fn kept(installation: &Installation, path: &Path) -> Result<WorkDir, PostgresError> {
        fs::create_dir_all(path).map_err(at(path))?;
        let path = path.canonicalize().map_err(at(path))?;
        if fs::read_dir(&path).map_err(at(&path))?.next().is_some() {
            return Err(PostgresError::NotEmpty(path));
        }
        installation.check_reach(&path)?;
        Ok(WorkDir { path, keep: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_kept(&self) -> bool {
        self.keep
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A program that was killed a moment ago may still write its last file.
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        while let Err(error) = fs::remove_dir_all(&self.path) {
            if error.kind() == io::ErrorKind::NotFound {
                return;
            }
            if Instant::now() > deadline {
                eprintln!("keyway: cannot remove {}: {error}", self.path.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
