//! What one session has written and seen, and what follows from it for the replica that answers its next read. Decides
//! and nothing else: clock, cluster and the floors of others are arguments, so that `tests/sim.rs` runs it too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::floors::{Cells, Floor, Floors, Written};
use super::freshness::ReadReason;
use super::turns::Turn;
use crate::base::{Consistency, ServerId, ShardId};
use crate::route::{Cluster, Freshness};

/// What this session has to do with floors; made when it first reads or writes what has one, and given up at rest.
pub struct Tracks {
    pub written: Written,
    reading: Reading,
    /// What the session may have seen, as of when, and on which replicas: those need not be fresher.
    pub seen: Option<Instant>,
    seen_on: SmallVec<[(ServerId, Instant); 1]>,
    /// To write a key that others wait to write, until the transaction ends.
    pub turn: Option<Turn>,
    /// COMMIT AND CHAIN is under way, by itself.
    pub(super) chains: bool,
    /// What another session has handed over, by shard (`SET keyway.position`). Of it nobody here knows the rows.
    pub(super) handed: SmallVec<[Option<Instant>; 1]>,
}

/// The statement under way.
#[derive(Default)]
struct Reading {
    /// `None` of no read.
    level: Option<Consistency>,
    cells: Cells,
    floor: Option<Instant>,
    in_flight: bool,
    /// Replicas that answer it.
    servers: SmallVec<[ServerId; 1]>,
}

/// What every read of a session must see of a shard, whatever its rows are.
#[derive(Clone, Copy, Debug)]
pub struct Must {
    pub max_lag: Duration,
    /// Whoever reads.
    pub all: Option<Instant>,
    /// This session.
    pub own: Option<Instant>,
}

impl Tracks {
    pub fn new(floors: Arc<Floors>) -> Tracks {
        Tracks {
            written: Written::new(floors),
            reading: Reading::default(),
            seen: None,
            seen_on: SmallVec::new(),
            turn: None,
            chains: false,
            handed: SmallVec::new(),
        }
    }

    pub(super) fn handed(&self, shard: ShardId) -> Option<Instant> {
        self.handed.get(usize::from(shard.0)).copied().flatten()
    }

    /// Forgets the statement before.
    pub fn begin_reading(&mut self) {
        self.reading = Reading::default();
    }

    /// One more read of these cells, whose floor is `floor`. What several statements of one request must see, one server
    /// has to have. `holds`: the session is on a server, which it does not leave. Says why, where the primary has to
    /// answer it.
    pub fn must_see(
        &mut self,
        level: Option<Consistency>,
        cells: &[u32],
        floor: Floor,
        holds: bool,
    ) -> Option<ReadReason> {
        let reading = &mut self.reading;
        reading.cells.extend_from_slice(cells);
        let level = level?;
        reading.level = Some(level);
        match level {
            Consistency::Primary => Some(ReadReason::Level),
            Consistency::Global | Consistency::Session => {
                reading.floor = reading.floor.max(floor.at);
                reading.in_flight |= floor.in_flight;
                let waits = level == Consistency::Global && floor.in_flight && !holds;
                waits.then_some(ReadReason::InFlight)
            }
            Consistency::Eventual => None,
        }
    }

    /// The statement under way is a read at a level.
    pub(super) fn reads(&self) -> bool {
        self.reading.level.is_some()
    }

    /// `server`, a replica, answers it.
    pub fn will_read(&mut self, server: ServerId) {
        self.reading.servers.push(server);
    }

    /// No replica of the shard answers it, as far as is known now.
    pub fn will_not_read(&mut self, shard: ShardId) {
        self.reading.servers.retain(|it| it.shard != shard);
    }

    /// After a reload servers may stand elsewhere.
    pub(super) fn forget_places(&mut self) {
        self.seen_on.clear();
    }

    /// It has shown something that must not be hidden again.
    pub fn has_read(&self) -> bool {
        let sees = !matches!(self.reading.level, Some(Consistency::Eventual));
        sees && !self.reading.cells.is_empty()
    }

    /// Behind a statement that [`Tracks::has_read`].
    pub fn read_ended(&mut self, floors: &Floors, cluster: &Cluster, now: Instant) {
        let floor = floors.floor(&self.reading.cells);
        let at = if floor.in_flight { Some(now) } else { floor.at };
        // What a replica has shown, no older one may hide. Which of the writes so far it had is not known.
        let before = self.seen;
        self.seen = before.max(at);
        // One that was asked for these rows alone need not have the others that were seen before.
        let has_all = |it: ServerId| cluster.server(it).is_some_and(|it| it.fresh_as_of >= before);
        let known = std::mem::take(&mut self.seen_on);
        for &server in &self.reading.servers {
            let last = known.iter().find(|it| it.0 == server).copied();
            self.seen_on.extend(last.or_else(|| has_all(server).then_some((server, now))));
        }
    }

    /// What a replica of `shard` must have for the statement under way.
    pub fn freshness(&self, shard: ShardId, must: Must) -> Freshness {
        let Must { max_lag, all, own } = must;
        let reading = &self.reading;
        match reading.level {
            Some(Consistency::Eventual) => Freshness { max_lag, ..Freshness::default() },
            Some(Consistency::Global) => {
                let floor = all.max(reading.floor).max(self.handed(shard));
                Freshness { max_lag, floor, ..Freshness::default() }
            }
            level => {
                // Of these rows the session has written and seen no more than there is; of others it may have.
                let known = level.is_some() && !reading.in_flight;
                let of_rows = |it: Option<Instant>| if known { it.min(reading.floor) } else { it };
                let floor = all.max(of_rows(own)).max(self.handed(shard));
                let seen_on = self.seen_on.iter().find(|it| it.0.shard == shard).copied();
                Freshness { max_lag, floor, seen: of_rows(self.seen), seen_on }
            }
        }
    }

    /// A write of which nobody knows whether it was done may be of the rows of the statement under way.
    pub fn doubts(&self, floors: &Floors, now: Instant) -> bool {
        floors.doubts(&self.reading.cells, now)
    }

    /// What the statement under way asks of an answer that another one has been given: as of when that must be, and of a kept
    /// one what has been written of the rows since; `None` where no kept one will do.
    pub fn asks(
        &self,
        shard: ShardId,
        must: Must,
        floors: &Floors,
        now: Instant,
    ) -> (Option<Instant>, Option<Floor>) {
        let written = Some(floors.floor(&self.reading.cells));
        match self.reading.level {
            None | Some(Consistency::Primary) => (Some(now), None),
            Some(Consistency::Eventual) => (None, written),
            // Somebody may have seen already what is being written.
            Some(Consistency::Global) if self.reading.in_flight => (Some(now), None),
            Some(Consistency::Global | Consistency::Session) => {
                let Freshness { floor, seen, .. } = self.freshness(shard, must);
                (floor.max(seen), written)
            }
        }
    }

    /// Since `freshness` was decided a write may have ended, or, `None`, be under way.
    pub fn freshness_now(&self, mut freshness: Freshness, floors: &Floors) -> Option<Freshness> {
        if self.reading.level == Some(Consistency::Global) {
            let floor = floors.floor(&self.reading.cells);
            if floor.in_flight {
                return None;
            }
            freshness.floor = freshness.floor.max(floor.at);
        }
        Some(freshness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Role;
    use crate::route::{Server, Shard, Touched, TouchedTable};

    /// A replica was to answer a read, and the primary did: what that has shown, the replica may lack.
    #[test]
    fn who_did_not_answer_has_shown_nothing() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (shard, server) = (ShardId(0), ServerId { shard: ShardId(0), index: 0 });
        let replica = Server {
            role: Some(Role::Replica),
            fresh_as_of: Some(at(1)),
            up_since: Some(start),
            ..Server::unknown(server, String::new())
        };
        let cluster = Cluster { shards: vec![Shard { servers: vec![replica], ..Shard::default() }] };
        let floors = Floors::new(start);
        let rows = Touched::Tables([TouchedTable { id: 7, keyed: true }].into());
        let cells = Floors::read(&rows, Some(&[1]));
        let seen_on = |answers: bool| {
            let (mut reader, mut writer) = (Tracks::new(floors.clone()), Tracks::new(floors.clone()));
            reader.must_see(Some(Consistency::Session), &cells, floors.floor(&cells), false);
            reader.will_read(server);
            writer.written.add(&Floors::written(&rows, Some(&[1])), true);
            writer.written.send();
            writer.written.end(at(5));
            if !answers {
                reader.will_not_read(shard);
            }
            reader.read_ended(&floors, &cluster, at(6));
            reader.begin_reading();
            reader.must_see(Some(Consistency::Session), &cells, floors.floor(&cells), false);
            let must = Must { max_lag: Duration::from_secs(1), all: None, own: None };
            let freshness = reader.freshness(shard, must);
            assert!(freshness.seen >= Some(at(5)));
            cluster.server(server).unwrap().has(freshness)
        };
        assert!(seen_on(true) && !seen_on(false));
    }
}
