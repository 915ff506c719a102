//! The state of a database's servers as routing sees it: an immutable snapshot that `topology`
//! fills and swaps. Nothing here asks a server or a clock.

use std::time::{Duration, Instant};

use super::balance::{Choice, Offer, choose};
use crate::base::{Lsn, Role, ServerId, ShardId};

/// Every shard of one database, in the order of the config: `shards[i]` is `ShardId(i)`.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub shards: Vec<Shard>,
}

/// The servers of one shard, in the order of the config.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    pub name: String,
    pub servers: Vec<Server>,
    /// The start of the newest sample of the primary, or of the last one there was.
    pub sampled_at: Option<Instant>,
    /// Nobody has the primary's role, and a later timeline than that of the last to hold it has been seen: what is still
    /// written to that one is on no server that counts, though its successor may not have been seen yet.
    pub is_replaced: bool,
}

/// What the last probes said of one server. `None` is "not known", which is unfit for
/// anything (DESIGN invariant 6).
#[derive(Clone, Debug)]
pub struct Server {
    pub id: ServerId,
    /// `host:port` of the config.
    pub address: String,
    /// The role that Keyway grants it. Of two servers that claim to be primary, `topology` grants
    /// it to the one on the higher timeline and leaves the other `None`: fenced.
    pub role: Option<Role>,
    pub timeline: Option<u32>,
    /// Write position of a primary, replay position of a replica.
    pub position: Option<Lsn>,
    /// The start of the newest primary sample whose position this replica has replayed: all that
    /// was committed before this instant can be read here. Lag is now minus this (DESIGN D5), so
    /// it grows by itself when probes stop, when replay is paused and when the link is dead.
    /// Always `None` for a primary, which is fresh by definition.
    pub fresh_as_of: Option<Instant>,
    /// Since when this replica has been in the set of those that serve reads; `None` is outside. It left at `max_lag` and has
    /// not been near enough since, or has not been seen near enough yet.
    pub joined: Option<Joined>,
    /// It has not started anew from then until `observed_at`: a server that does may show less than before.
    pub up_since: Option<Instant>,
    /// As of when all of this is: a connection that was ready by then sees no less.
    pub observed_at: Option<Instant>,
    /// Connections that were made before then lead to an address that the server's name has no more.
    pub moved_at: Option<Instant>,
    /// Bytes of log that the replica has not replayed, at the last pair of samples.
    pub lag_bytes: Option<u64>,
    /// Why the server is not in use, for people: `connect: connection refused`.
    pub problem: Option<String>,
}

/// A replica's place in the set of those that serve reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    pub at: Instant,
    /// It had left before, or was added to servers that Keyway knew: it has to warm up.
    pub returned: bool,
}

impl Server {
    pub fn unknown(id: ServerId, address: String) -> Server {
        Server {
            id,
            address,
            role: None,
            timeline: None,
            position: None,
            fresh_as_of: None,
            joined: None,
            up_since: None,
            observed_at: None,
            moved_at: None,
            lag_bytes: None,
            problem: None,
        }
    }

    /// How far behind the primary this replica may be at `now`; `None` is unknown.
    pub fn lag(&self, now: Instant) -> Option<Duration> {
        self.fresh_as_of.map(|it| now.saturating_duration_since(it))
    }

    /// A member of the set whose lag has grown since the last report is out without one.
    pub fn may_serve(&self, freshness: Freshness, now: Instant) -> bool {
        self.role == Some(Role::Replica)
            && self.joined.is_some()
            && self.lag(now).is_some_and(|it| it <= freshness.max_lag)
            && self.has(freshness)
    }

    /// All that must be seen, however old the rest is.
    pub fn has(&self, freshness: Freshness) -> bool {
        freshness.floor.is_none_or(|floor| self.fresh_as_of >= Some(floor))
            && (freshness.seen.is_none_or(|seen| self.fresh_as_of >= Some(seen)) || self.has_shown(freshness))
    }

    /// What the session has seen last it has seen here.
    fn has_shown(&self, freshness: Freshness) -> bool {
        freshness
            .seen_on
            .is_some_and(|(server, at)| server == self.id && self.up_since.is_some_and(|it| it <= at))
    }
}

/// How fresh a replica must be for one read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Freshness {
    pub max_lag: Duration,
    /// When the last write was told that a replica must have replayed.
    pub floor: Option<Instant>,
    /// As of when the session may have seen what was written: a replica must not be older, unless it is the one that
    /// showed it.
    pub seen: Option<Instant>,
    pub seen_on: Option<(ServerId, Instant)>,
}

/// A bit set over the servers of one shard, for those that a retry must not ask again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Excluded(u64);

impl Excluded {
    /// More servers than bits share the last bit: at worst a retry gives up one server early.
    pub fn add(&mut self, server: ServerId) {
        self.0 |= 1 << server.index.min(63);
    }

    pub fn has(self, server: ServerId) -> bool {
        self.0 & (1 << server.index.min(63)) != 0
    }
}

impl Freshness {
    /// There is something that a replica may lack.
    pub fn demands(self) -> bool {
        self.floor.is_some() || self.seen.is_some()
    }
}

impl Cluster {
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.get(usize::from(id.0))
    }

    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.shard(id.shard)?.servers.get(usize::from(id.index))
    }
}

impl Shard {
    pub fn primary(&self) -> Option<&Server> {
        self.servers.iter().find(|it| it.role == Some(Role::Primary))
    }

    pub fn has_replica(&self, freshness: Freshness, now: Instant) -> bool {
        self.servers.iter().any(|it| it.may_serve(freshness, now))
    }

    /// A replica that may serve the read, chosen by `entropy` among those that may and that `offer` does not hold
    /// back.
    pub fn replica(
        &self,
        freshness: Freshness,
        now: Instant,
        entropy: u64,
        offer: impl Fn(&Server) -> Option<Offer> + Copy,
    ) -> Choice<&Server> {
        let fit = self.servers.iter().filter(move |it| it.may_serve(freshness, now));
        choose(fit.filter_map(move |it| Some((it, offer(it)?))), entropy)
    }

    /// While there is no primary: the replica that is least late, where it was not too late when the primary was sampled
    /// last, which was no longer ago than `hold`, and nobody is known to have followed it. Nobody can have been told of a
    /// write by a primary since that is gone.
    pub fn left_behind(
        &self,
        freshness: Freshness,
        hold: Duration,
        now: Instant,
        may: impl Fn(&Server) -> bool,
    ) -> Option<&Server> {
        let sampled_at = self.sampled_at.filter(|_| self.primary().is_none() && !self.is_replaced)?;
        if now.saturating_duration_since(sampled_at) > hold {
            return None;
        }
        let found = self.least_stale(freshness, may)?;
        let lag = sampled_at.saturating_duration_since(found.fresh_as_of?);
        (lag <= freshness.max_lag).then_some(found)
    }

    /// The freshest replica that has what must be seen, however late it is, of those that `may` be asked.
    pub fn least_stale(&self, freshness: Freshness, may: impl Fn(&Server) -> bool) -> Option<&Server> {
        let is_replica = |it: &&Server| it.role == Some(Role::Replica) && it.fresh_as_of.is_some();
        let fit = self.servers.iter().filter(is_replica).filter(|it| it.has(freshness) && may(it));
        fit.max_by_key(|it| it.fresh_as_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::balance::Load;

    fn server(index: u16, role: Option<Role>, fresh_as_of: Option<Instant>) -> Server {
        let id = ServerId { shard: ShardId(0), index };
        let joined = fresh_as_of.map(|at| Joined { at, returned: false });
        Server { role, fresh_as_of, joined, ..Server::unknown(id, format!("db{index}:5432")) }
    }

    fn pick(shard: &Shard, floor: Option<Instant>, excluded: Excluded, now: Instant) -> Option<u16> {
        let freshness = Freshness { max_lag: Duration::from_secs(1), floor, ..Freshness::default() };
        let offer = |it: &Server| (!excluded.has(it.id)).then(|| Offer::new(1, Load::default(), 1.0, 1.0));
        shard.replica(freshness, now, 0, offer).any().map(|it| it.id.index)
    }

    #[test]
    fn unknown_lag_is_unfit_and_lag_grows_without_samples() {
        let start = Instant::now();
        let replica = Some(Role::Replica);
        let servers = vec![server(0, Some(Role::Primary), None), server(1, replica, None)];
        let mut shard = Shard { name: "s1".into(), servers, ..Shard::default() };
        assert_eq!(pick(&shard, None, Excluded::default(), start), None);
        shard.servers[1] = server(1, replica, Some(start));
        assert_eq!(pick(&shard, None, Excluded::default(), start), Some(1));
        let later = start + Duration::from_millis(1_001);
        assert_eq!(pick(&shard, None, Excluded::default(), later), None);
    }

    #[test]
    fn one_that_has_left_serves_nothing_however_near_it_is() {
        let now = Instant::now();
        let mut shard = Shard {
            name: "s1".into(),
            servers: vec![server(0, Some(Role::Replica), Some(now))],
            ..Shard::default()
        };
        shard.servers[0].joined = None;
        assert_eq!(pick(&shard, None, Excluded::default(), now), None);
    }

    #[test]
    fn a_replica_must_have_replayed_the_sessions_last_write() {
        let start = Instant::now();
        let wrote = start + Duration::from_millis(10);
        let mut shard = Shard {
            name: "s1".into(),
            servers: vec![server(0, Some(Role::Replica), Some(start))],
            ..Shard::default()
        };
        assert_eq!(pick(&shard, Some(wrote), Excluded::default(), wrote), None);
        shard.servers[0].fresh_as_of = Some(wrote);
        assert_eq!(pick(&shard, Some(wrote), Excluded::default(), wrote), Some(0));
    }

    #[test]
    fn what_was_seen_is_on_the_server_that_showed_it_or_on_a_fresher_one() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut one = server(0, Some(Role::Replica), Some(at(5)));
        let other = server(1, Some(Role::Replica), Some(at(20)));
        one.up_since = Some(at(2));
        let shard = Shard { name: "s1".into(), servers: vec![one.clone(), other], ..Shard::default() };
        let serve = |seen: u64, seen_on: Option<u64>| {
            let seen_on = seen_on.map(|it| (one.id, at(it)));
            let max_lag = Duration::from_secs(1);
            let freshness = Freshness { max_lag, floor: None, seen: Some(at(seen)), seen_on };
            shard
                .servers
                .iter()
                .filter(|it| it.may_serve(freshness, at(30)))
                .map(|it| it.id.index)
                .collect::<Vec<_>>()
        };
        assert_eq!(serve(4, None), [0, 1]);
        assert_eq!(serve(15, None), [1]);
        assert_eq!(serve(15, Some(9)), [0, 1]);
        assert_eq!(serve(25, Some(9)), [0]);
        assert_eq!(serve(25, Some(1)), [0u16; 0], "it has started anew since");
    }

    #[test]
    fn the_least_stale_has_what_must_be_seen() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let late = |index, ms| server(index, Some(Role::Replica), Some(at(ms)));
        let servers = vec![server(0, Some(Role::Primary), None), late(1, 10), late(2, 20), late(3, 5)];
        let shard = Shard { name: "s1".into(), servers, ..Shard::default() };
        let found = |floor: Option<u64>, barred: u16| {
            let freshness = Freshness { floor: floor.map(at), ..Freshness::default() };
            shard.least_stale(freshness, |it| it.id.index != barred).map(|it| it.id.index)
        };
        assert_eq!(
            (found(None, 9), found(None, 2), found(Some(15), 9), found(Some(25), 9)),
            (Some(2), Some(1), Some(2), None)
        );
    }

    #[test]
    fn reads_go_on_for_a_while_without_a_primary() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let servers =
            vec![server(0, Some(Role::Primary), None), server(1, Some(Role::Replica), Some(at(100)))];
        let mut shard = Shard { name: "s1".into(), servers, sampled_at: Some(at(500)), ..Shard::default() };
        let found = |shard: &Shard, max_lag_ms: u64, floor: Option<u64>, now: u64| {
            let max_lag = Duration::from_millis(max_lag_ms);
            let freshness = Freshness { max_lag, floor: floor.map(at), ..Freshness::default() };
            let hold = Duration::from_secs(10);
            shard.left_behind(freshness, hold, at(now), |_| true).map(|it| it.id.index)
        };
        assert_eq!(found(&shard, 1_000, None, 5_000), None, "there is a primary");
        shard.servers[0].role = None;
        assert_eq!(found(&shard, 1_000, None, 10_500), Some(1));
        assert_eq!(found(&shard, 1_000, None, 10_501), None, "for too long");
        assert_eq!(found(&shard, 399, None, 5_000), None, "it was too late already");
        assert_eq!(found(&shard, 1_000, Some(101), 5_000), None, "it lacks what was written");
    }

    #[test]
    fn an_excluded_server_is_not_asked_again() {
        let now = Instant::now();
        let replica = |index| server(index, Some(Role::Replica), Some(now));
        let shard = Shard { name: "s1".into(), servers: vec![replica(0), replica(1)], ..Shard::default() };
        let mut excluded = Excluded::default();
        excluded.add(shard.servers[0].id);
        assert_eq!(pick(&shard, None, excluded, now), Some(1));
        excluded.add(shard.servers[1].id);
        assert_eq!(pick(&shard, None, excluded, now), None);
    }
}
