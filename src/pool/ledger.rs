//! Bounds that pools share: connections of a user, of a database, to a server, and logins under way at a
//! server. Asked when a connection is to be made and when one has ended, never for a query.
//!
//! A pool that finds no room stands in a queue. Room goes to the first in it who can use it; it is made by
//! closing an idle connection of a pool without waiters, or, where all are busy, one of a pool that has
//! more than its share, when it is released next.
//!
//! Locks: a pool's state may be held while the ledger is asked, never the other way round.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::Pool;
use super::standing::Standing;
use crate::metrics::{Limit, LimitHits};

/// How long a pool without any connection waits before one of a busy pool is closed for it: much longer
/// than a login takes.
const TURN: Duration = Duration::from_millis(100);

pub struct Ledger {
    books: Mutex<Books>,
    /// As long as the queue: one look, without a lock, says that nobody waits.
    wanting: AtomicUsize,
    entropy: u64,
    hits: LimitHits,
}

struct Books {
    bounds: Bounds,
    accounts: Vec<Account>,
    by_name: HashMap<(Limit, String), usize>,
    standings: HashMap<String, Arc<Standing>>,
    members: HashMap<u64, Member>,
    next_member: u64,
    queue: VecDeque<Waiting>,
}

/// Of each server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub server_connections_max: Option<usize>,
    pub server_logins_max: usize,
}

/// A member that found no room, and since when it waits.
struct Waiting {
    id: u64,
    since: Instant,
}

struct Account {
    max: usize,
    used: usize,
    limit: Limit,
}

struct Member {
    pool: Weak<Pool>,
    terms: Arc<Terms>,
    open: usize,
}

/// What one pool has to keep to.
pub struct Terms {
    /// Accounts: which bounds there are, not how high they are.
    connections: SmallVec<[usize; 3]>,
    logins: usize,
    pub(super) standing: Arc<Standing>,
}

/// A name and how many connections it may have.
pub type Bound<'a> = (&'a str, Option<usize>);

/// A pool's place in the ledger.
pub(super) struct Membership {
    pub ledger: Arc<Ledger>,
    pub terms: Arc<Terms>,
    id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom {
    pub limit: Limit,
    pub newly_queued: bool,
}

impl Ledger {
    /// `entropy` is random, for the jitter of attempts to connect.
    pub fn new(bounds: Bounds, entropy: u64, hits: LimitHits) -> Arc<Ledger> {
        let books = Books {
            bounds,
            accounts: Vec::new(),
            by_name: HashMap::new(),
            standings: HashMap::new(),
            members: HashMap::new(),
            next_member: 0,
            queue: VecDeque::new(),
        };
        Arc::new(Ledger { books: Mutex::new(books), wanting: AtomicUsize::new(0), entropy, hits })
    }

    /// For terms asked for from now on, which are those of all pools once a reload is over.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.books.lock().bounds = bounds;
    }

    /// For a pool of `user` of `database` at `server`, which is a host and a port.
    pub fn terms(&self, server: &str, database: Bound<'_>, user: Bound<'_>) -> Arc<Terms> {
        let mut books = self.books.lock();
        let Bounds { server_connections_max, server_logins_max } = books.bounds;
        let logins = books.account(Limit::ServerLogins, server, server_logins_max);
        let bounds = [
            (Limit::ServerConnections, (server, server_connections_max)),
            (Limit::DatabaseConnections, database),
            (Limit::UserConnections, user),
        ];
        let account = |(limit, (name, max)): (Limit, Bound<'_>)| Some(books.account(limit, name, max?));
        let connections = bounds.into_iter().filter_map(account).collect();
        let seed = self.entropy.wrapping_add(books.standings.len() as u64);
        let new = || Standing::new(seed, Instant::now());
        let standing = books.standings.entry(server.to_owned()).or_insert_with(new).clone();
        Arc::new(Terms { connections, logins, standing })
    }

    /// All pools that live, those that reloads have replaced too.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        // None is dropped here, which would lock the books again.
        self.books.lock().members.values().filter_map(|it| it.pool.upgrade()).collect()
    }

    pub(super) fn join(self: &Arc<Ledger>, pool: Weak<Pool>, terms: Arc<Terms>) -> Membership {
        let mut books = self.books.lock();
        let id = books.next_member;
        books.next_member += 1;
        books.members.insert(id, Member { pool, terms: terms.clone(), open: 0 });
        Membership { ledger: self.clone(), terms, id }
    }

    /// Whether some pool waits for room. May be a moment late in saying so.
    pub fn is_wanted(&self) -> bool {
        self.wanting.load(Ordering::Relaxed) > 0
    }

    /// Gives room to the first in the queue who can use it, and makes room where there is none, as long
    /// as there is something to give. Not with a pool's state locked.
    pub fn serve(&self) {
        while self.is_wanted() {
            match self.next_served() {
                // A pool that needs no more has left the queue by this; one that needs more is its last.
                Some(pool) => {
                    if let Some(pool) = pool.upgrade() {
                        pool.grow_now();
                    }
                }
                None if self.candidates().iter().any(|it| it.give_up_idle()) => {}
                None => return,
            }
        }
    }

    fn next_served(&self) -> Option<Weak<Pool>> {
        let mut books = self.books.lock();
        let position = books.queue.iter().position(|it| match books.members.get(&it.id) {
            Some(it) => books.full(&it.terms).is_none(),
            None => true,
        })?;
        let id = books.queue.remove(position)?.id;
        self.wanting.store(books.queue.len(), Ordering::Relaxed);
        Some(books.members.get(&id).map_or_else(Weak::new, |it| it.pool.clone()))
    }

    /// Pools whose idle connections take room that another waits for, those with the most first.
    fn candidates(&self) -> Vec<Arc<Pool>> {
        let books = self.books.lock();
        let mut found = Vec::new();
        for wanting in &books.queue {
            let Some(terms) = books.members.get(&wanting.id).map(|it| &it.terms) else { continue };
            let Some(full) = terms.connections.iter().find(|it| books.accounts[**it].is_full()) else {
                continue;
            };
            let has_some = |(id, it): &(&u64, &Member)| {
                **id != wanting.id && it.open > 0 && it.terms.connections.contains(full)
            };
            found.extend(books.members.iter().filter(has_some).map(|it| it.1));
        }
        found.sort_by_key(|it| std::cmp::Reverse(it.open));
        found.into_iter().filter_map(|it| it.pool.upgrade()).collect()
    }
}

impl Terms {
    /// Whether both stand in the same accounts, whatever the bounds are now.
    pub(super) fn is_same(&self, other: &Terms) -> bool {
        self.connections == other.connections && self.logins == other.logins
    }
}

impl Books {
    fn account(&mut self, limit: Limit, name: &str, max: usize) -> usize {
        let next = self.accounts.len();
        let index = *self.by_name.entry((limit, name.to_owned())).or_insert(next);
        match self.accounts.get_mut(index) {
            Some(it) => it.max = max,
            None => self.accounts.push(Account { max, used: 0, limit }),
        }
        index
    }

    /// The bound that stands in the way of one more connection.
    fn full(&self, terms: &Terms) -> Option<Limit> {
        let accounts = terms.connections.iter().chain([&terms.logins]);
        accounts.map(|it| &self.accounts[*it]).find(|it| it.is_full()).map(|it| it.limit)
    }

    fn is_queued(&self, id: u64) -> bool {
        self.queue.iter().any(|it| it.id == id)
    }

    /// How many pools have to share this account.
    fn claimants(&self, account: usize) -> usize {
        let claims = |(id, it): &(&u64, &Member)| {
            it.terms.connections.contains(&account) && (it.open > 0 || self.is_queued(**id))
        };
        self.members.iter().filter(claims).count()
    }
}

impl Account {
    fn is_full(&self) -> bool {
        self.used >= self.max
    }
}

impl Membership {
    /// Takes room for one connection and its login; without any the pool stands in the queue, once.
    pub fn open(&self, now: Instant) -> Result<(), NoRoom> {
        let mut books = self.ledger.books.lock();
        if let Some(limit) = books.full(&self.terms) {
            let newly_queued = !books.is_queued(self.id);
            if newly_queued {
                self.ledger.hits.hit(limit);
                books.queue.push_back(Waiting { id: self.id, since: now });
                self.ledger.wanting.store(books.queue.len(), Ordering::Relaxed);
            }
            return Err(NoRoom { limit, newly_queued });
        }
        for account in self.terms.connections.iter().chain([&self.terms.logins]) {
            books.accounts[*account].used += 1;
        }
        if let Some(it) = books.members.get_mut(&self.id) {
            it.open += 1;
        }
        Ok(())
    }

    /// A login has ended, well or not.
    pub fn login_ended(&self) {
        let mut books = self.ledger.books.lock();
        books.accounts[self.terms.logins].used -= 1;
    }

    pub fn closed(&self, count: usize) {
        if count > 0 {
            self.give_back(&mut self.ledger.books.lock(), count);
        }
    }

    fn give_back(&self, books: &mut Books, count: usize) {
        for account in &self.terms.connections {
            books.accounts[*account].used -= count;
        }
        if let Some(it) = books.members.get_mut(&self.id) {
            it.open -= count;
        }
    }

    /// Whether a connection that is being released should end for another pool. One with waiters gives up
    /// only what it has over its share, to one that has less than its: so shares settle, and connections
    /// are not made anew for ever. Where there are more pools than connections they take turns.
    pub fn should_yield(&self, has_waiters: bool, now: Instant) -> bool {
        if !self.ledger.is_wanted() {
            return false;
        }
        let books = self.ledger.books.lock();
        let Some(own) = books.members.get(&self.id) else { return false };
        books.queue.iter().filter(|it| it.id != self.id).any(|it| {
            let Some(other) = books.members.get(&it.id) else { return false };
            let shared = |it: &&usize| other.terms.connections.contains(it) && books.accounts[**it].is_full();
            let Some(&account) = self.terms.connections.iter().find(shared) else { return false };
            if !has_waiters {
                return true;
            }
            match books.accounts[account].max / books.claimants(account).max(1) {
                0 => other.open == 0 && now.saturating_duration_since(it.since) >= TURN,
                share => own.open > share && other.open < share,
            }
        })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut books = self.ledger.books.lock();
        let open = books.members.get(&self.id).map_or(0, |it| it.open);
        self.give_back(&mut books, open);
        books.members.remove(&self.id);
        books.queue.retain(|it| it.id != self.id);
        self.ledger.wanting.store(books.queue.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    fn ledger(server_connections_max: Option<usize>, logins: usize) -> Arc<Ledger> {
        let hits = LimitHits::register(&Registry::default()).unwrap();
        Ledger::new(Bounds { server_connections_max, server_logins_max: logins }, 1, hits)
    }

    fn member(ledger: &Arc<Ledger>, server: &str, user: Bound<'_>) -> Membership {
        ledger.join(Weak::new(), ledger.terms(server, ("db", None), user))
    }

    fn queue(ledger: &Ledger) -> Vec<u64> {
        ledger.books.lock().queue.iter().map(|it| it.id).collect()
    }

    fn refused(member: &Membership) -> Option<Limit> {
        member.open(Instant::now()).err().map(|it| it.limit)
    }

    fn open(member: &Membership, count: usize) {
        for _ in 0..count {
            member.open(Instant::now()).unwrap();
            member.login_ended();
        }
    }

    #[test]
    fn each_bound_is_its_own() {
        let ledger = ledger(Some(3), 2);
        let (a, b) = (member(&ledger, "one", ("a", Some(2))), member(&ledger, "one", ("b", None)));
        let elsewhere = member(&ledger, "two", ("a", Some(2)));
        a.open(Instant::now()).unwrap();
        b.open(Instant::now()).unwrap();
        assert_eq!(refused(&b), Some(Limit::ServerLogins));
        a.login_ended();
        b.login_ended();
        b.open(Instant::now()).unwrap();
        b.login_ended();
        assert_eq!(refused(&a), Some(Limit::ServerConnections));
        open(&elsewhere, 1);
        assert_eq!(refused(&elsewhere), Some(Limit::UserConnections));
        a.closed(1);
        assert!(elsewhere.open(Instant::now()).is_ok());
        drop(elsewhere);
        open(&a, 1);
    }

    #[test]
    fn who_waits_longest_is_first_and_stands_there_once() {
        let ledger = ledger(Some(1), 8);
        let (a, b, c) = (
            member(&ledger, "one", ("a", None)),
            member(&ledger, "one", ("b", None)),
            member(&ledger, "one", ("c", None)),
        );
        open(&a, 1);
        for it in [&b, &c, &b] {
            assert!(it.open(Instant::now()).is_err());
        }
        assert_eq!(queue(&ledger), [b.id, c.id]);
        assert!(ledger.next_served().is_none(), "there is no room yet");
        a.closed(1);
        assert!(ledger.next_served().is_some());
        assert_eq!(queue(&ledger), [c.id]);
        drop(c);
        assert!(!ledger.is_wanted());
    }

    #[test]
    fn a_busy_pool_yields_down_to_its_share_and_an_unneeded_connection_at_once() {
        let ledger = ledger(Some(4), 8);
        let (a, b) = (member(&ledger, "one", ("a", None)), member(&ledger, "one", ("b", None)));
        open(&a, 4);
        assert!(!a.should_yield(false, Instant::now()), "nobody wants it");
        assert!(b.open(Instant::now()).is_err());
        assert!(a.should_yield(true, Instant::now()) && a.should_yield(false, Instant::now()));
        for _ in 0..2 {
            a.closed(1);
            ledger.next_served();
            open(&b, 1);
            assert!(b.open(Instant::now()).is_err());
        }
        assert!(!a.should_yield(true, Instant::now()), "both have their share");
        assert!(a.should_yield(false, Instant::now()));
    }

    #[test]
    fn pools_take_turns_where_there_are_more_than_connections() {
        let ledger = ledger(Some(1), 8);
        let (a, b) = (member(&ledger, "one", ("a", None)), member(&ledger, "one", ("b", None)));
        let now = Instant::now();
        open(&a, 1);
        assert!(b.open(now).is_err());
        assert!(!a.should_yield(true, now + TURN / 2));
        assert!(a.should_yield(true, now + TURN));
    }
}
