//! Keeps hotspots going: ends their windows, marks what happens in their heat maps, and keeps their history in a file.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::ShardId;
use crate::client::{Database, Shared, unix_s};
use crate::hotspot::{History, Hotspots, Mark, MarkKind, decode_histories, encode_histories};
use crate::route::Router;

/// How much is lost where the process ends without a chance to write.
const WRITE_INTERVAL_S: u64 = 60;
/// A file that is larger is none of ours, however many databases there are.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// How long the end of the process waits for a file that is being written.
const LAST_WRITE_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct HotspotKeeper {
    /// From the file, for databases that have not been served yet.
    read: Mutex<HashMap<String, History>>,
    /// By database and shard.
    primaries: Mutex<HashMap<(String, String), String>>,
    /// One at a time: a disk that hangs must not gather threads.
    writing: Mutex<()>,
    /// When the file was written last.
    written_s: Mutex<u64>,
}

impl HotspotKeeper {
    /// A damaged file is set aside, and said so; one that cannot be read is left where it is.
    pub fn new(path: Option<&Path>) -> HotspotKeeper {
        let keeper = HotspotKeeper { written_s: Mutex::new(unix_s()), ..HotspotKeeper::default() };
        let Some(path) = path else { return keeper };
        match read(path) {
            Ok(histories) => *keeper.read.lock() = histories,
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(ReadError::Io(error)) => {
                tracing::warn!(path = %path.display(), %error, "history of hotspots cannot be read");
            }
            Err(ReadError::Damaged(why)) => {
                let aside = with_suffix(path, ".damaged");
                let moved = std::fs::rename(path, &aside);
                let aside = aside.display();
                tracing::warn!(path = %path.display(), why, %aside, ?moved, "history of hotspots is set aside");
            }
        }
        keeper
    }

    /// Of a database as it is to be served from now on. `before` are those that a reload replaces.
    pub fn hotspots(
        &self,
        database: &str,
        router: &Router,
        is_on: bool,
        before: Option<&Hotspots>,
    ) -> Arc<Hotspots> {
        // Without randomness to be had, sketches are as good against all but who knows this line.
        let seed = getrandom::u64().unwrap_or_default();
        let now_s = unix_s();
        let history = match before {
            Some(it) => it.history(),
            None => self.read.lock().remove(database).unwrap_or_default(),
        };
        let hotspots = Hotspots::new(database, router, is_on, seed, now_s, history, before);
        if before.is_none() {
            let (kind, text) = (MarkKind::Start, "keyway started".to_owned());
            hotspots.mark(Mark { at_s: now_s, kind, text });
        }
        Arc::new(hotspots)
    }

    pub fn mark_reload(&self, shared: &Shared) {
        let at_s = unix_s();
        for database in shared.databases.values() {
            let (kind, text) = (MarkKind::Reload, "configuration reloaded".to_owned());
            database.hotspots.mark(Mark { at_s, kind, text });
        }
    }

    /// Once a second; what takes longer is done elsewhere.
    pub fn tick(self: &Arc<Self>, shared: &Arc<Shared>, path: Option<PathBuf>) {
        let now_s = unix_s();
        for database in shared.databases.values() {
            self.mark_failovers(database, now_s);
            if let Some(costly) = &database.costly {
                costly.tick();
            }
            let hotspots = database.hotspots.clone();
            if hotspots.is_due(now_s) {
                tokio::task::spawn_blocking(move || hotspots.turn(now_s));
            }
        }
        let Some(path) = path else { return };
        let mut written_s = self.written_s.lock();
        if now_s.abs_diff(*written_s) >= WRITE_INTERVAL_S {
            *written_s = now_s;
            let (keeper, shared) = (self.clone(), shared.clone());
            tokio::task::spawn_blocking(move || keeper.write(&shared, &path));
        }
    }

    fn mark_failovers(&self, database: &Database, now_s: u64) {
        let cluster = database.topology.snapshot();
        let mut primaries = self.primaries.lock();
        for (index, shard) in (0..).zip(&cluster.shards) {
            let Some(primary) = shard.primary() else { continue };
            let name = database.router.shard_name(ShardId(index));
            let key = (database.name.clone(), name.to_owned());
            let before = primaries.get(&key);
            if before == Some(&primary.address) {
                continue;
            }
            if before.is_some() {
                let text = format!("shard {name}: {} is the primary", primary.address);
                database.hotspots.mark(Mark { at_s: now_s, kind: MarkKind::Failover, text });
            }
            primaries.insert(key, primary.address.clone());
        }
    }

    /// Before the process ends: with what was counted since the last window.
    pub fn write_last(&self, shared: &Shared, path: &Path) {
        let now_s = unix_s();
        shared.databases.values().for_each(|it| it.hotspots.end(now_s));
        match self.writing.try_lock_for(LAST_WRITE_WAIT) {
            Some(_writing) => self.write_whole(shared, path),
            None => tracing::warn!(path = %path.display(), "history of hotspots still waits for its disk"),
        }
    }

    fn write(&self, shared: &Shared, path: &Path) {
        if let Some(_writing) = self.writing.try_lock() {
            self.write_whole(shared, path);
        }
    }

    /// Or not at all.
    fn write_whole(&self, shared: &Shared, path: &Path) {
        let unserved = self.read.lock();
        let histories: Vec<(&str, History)> =
            shared.databases.values().map(|it| (it.name.as_str(), it.hotspots.history())).collect();
        let bytes = encode_histories(
            histories
                .iter()
                .map(|(name, it)| (*name, it))
                .chain(unserved.iter().map(|(name, it)| (name.as_str(), it))),
        );
        drop(unserved);
        if let Err(error) = write(path, &bytes) {
            tracing::warn!(path = %path.display(), %error, "history of hotspots cannot be written");
        }
    }
}

enum ReadError {
    Io(io::Error),
    Damaged(String),
}

fn read(path: &Path) -> Result<HashMap<String, History>, ReadError> {
    let length = std::fs::metadata(path).map_err(ReadError::Io)?.len();
    if length > FILE_BYTES_MAX {
        return Err(ReadError::Damaged(format!("it has {length} bytes")));
    }
    let bytes = std::fs::read(path).map_err(ReadError::Io)?;
    let histories = decode_histories(&bytes).map_err(|it| ReadError::Damaged(it.to_string()))?;
    Ok(histories.into_iter().collect())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Beside the file first: a reader, or whoever starts after a crash, finds the old one or the new one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|it| it.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hotspots");
        let history = History::default();
        for _ in 0..2 {
            write(&path, &encode_histories([("shop", &history)])).unwrap();
            let found = read(&path).ok().unwrap();
            assert_eq!(found.keys().collect::<Vec<_>>(), ["shop"]);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hotspots");
        std::fs::write(&path, b"no history").unwrap();
        let keeper = HotspotKeeper::new(Some(&path));
        assert!(keeper.read.lock().is_empty() && !path.exists());
        assert_eq!(std::fs::read(directory.path().join("hotspots.damaged")).unwrap(), b"no history");
        // None at all is nothing to speak of.
        HotspotKeeper::new(Some(&path));
    }
}
