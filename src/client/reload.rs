//! How a session goes from one configuration to the next: between transactions, with all that it owns. Until
//! then it lives on the one it began with, whose pools and topology are kept for it.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use smallvec::smallvec;

use super::session::{End, Held, Session};
use super::{Database, Shared};
use crate::base::{Reason, Refusal, SqlState};

/// The newest of the immutable snapshots that reloads make.
pub struct Latest(ArcSwap<Shared>);

impl Latest {
    pub fn new(shared: Shared) -> Latest {
        Latest(ArcSwap::from_pointee(shared))
    }

    pub fn load(&self) -> Arc<Shared> {
        self.0.load_full()
    }

    /// Sessions take it up when they are called.
    pub fn store(&self, shared: Shared) {
        self.0.store(Arc::new(shared));
    }
}

impl Session {
    /// No transaction is open and nothing is under way. A pinned server may be held.
    pub fn may_heed(&self) -> bool {
        self.transaction.is_idle()
            && !self.skipping
            && !self.unsynced
            && self.held.as_ref().is_none_or(|it| it.lease.pipeline.is_free())
    }

    /// Has the look that it was called for, if this is the time for it.
    pub fn heed(&mut self) -> Result<(), End> {
        if !self.may_heed() {
            return Ok(());
        }
        self.record.answer();
        if *self.shared.stopping.borrow() {
            return Err(End::Fatal(sent_away()));
        }
        let latest = self.latest.load();
        if latest.version == self.shared.version { Ok(()) } else { self.take_up(latest) }
    }

    fn take_up(&mut self, latest: Arc<Shared>) -> Result<(), End> {
        let removed = |what: &str, name: &str| {
            let detail = format!("{what} \"{name}\" was removed from the configuration of keyway");
            End::Fatal(sent_away().detail(detail))
        };
        let Some(database) = latest.databases.get(&self.database.name).cloned() else {
            return Err(removed("database", &self.database.name));
        };
        let Some(pools) = database.pools.get(&self.record.user) else {
            return Err(removed("user", &self.record.user));
        };
        self.user_consistency = latest.users.get(&*self.record.user).and_then(|it| it.consistency);
        if let Some(held) = &mut self.held {
            relocate(held, &database)?;
        }
        if database.router.config_version() != self.database.router.config_version() {
            // Rows may have come from other shards: what replicas had before that will not do.
            self.floors = smallvec![Some(Instant::now()); database.topology.shard_count()];
        }
        self.forget_places();
        (self.database, self.pools, self.shared) = (database, pools, latest);
        Ok(())
    }
}

/// A pinned server keeps its client, at whatever place it stands now.
fn relocate(held: &mut Held, database: &Database) -> Result<(), End> {
    let spec = held.lease.spec();
    let address = crate::config::Address { host: spec.host.to_string(), port: spec.port }.to_string();
    let cluster = database.topology.snapshot();
    let found = cluster.shards.iter().flat_map(|it| &it.servers).find(|it| it.address == address);
    match found.map(|it| it.id).filter(|_| spec.database == database.dbname) {
        Some(server) => {
            (held.shard, held.server) = (server.shard, server);
            Ok(())
        }
        None => {
            let detail = format!(
                "server {address}, which has state of this session, was removed from the configuration of keyway"
            );
            Err(End::Fatal(sent_away().detail(detail)))
        }
    }
}

/// To whom an administrator ends the session, as PostgreSQL says it (`ProcessInterrupts` in postgres.c).
pub fn sent_away() -> Refusal {
    let message = "terminating connection due to administrator command";
    Refusal::new(Reason::Limit, SqlState::ADMIN_SHUTDOWN, message)
}
