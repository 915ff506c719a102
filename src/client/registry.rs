//! The sessions that live now: what the console shows of each, and how one is called or killed. Entered at login
//! and left at the end, so that no statement pays for it; what changes in between is a store into the session's
//! own record.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::transactions::{OpenTransaction, TransactionRecord};
use crate::net::{Stream, TlsTerms};

/// How long a client is silent before its session rests: long enough that one that works is not made to
/// allocate again and again.
const REST_AFTER: Duration = Duration::from_secs(5);

/// To read a longer request takes many microseconds.
const PROMPT_BYTES_MAX: usize = 4_096;

/// In the order of their logins.
#[derive(Default)]
pub struct Sessions {
    by_id: Mutex<BTreeMap<u64, Arc<SessionRecord>>>,
    last_id: AtomicU64,
    /// Of sessions that have ended, by database.
    ended: Mutex<BTreeMap<Arc<str>, Totals>>,
}

/// What sessions have done, as SHOW STATS sums it up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub transactions: u64,
    pub transaction_us: u64,
    /// Server connections taken.
    pub assignments: u64,
    pub received_bytes: u64,
    pub parses: u64,
    pub server_parses: u64,
    pub binds: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, more: Totals) {
        let Totals {
            transactions,
            transaction_us,
            assignments,
            received_bytes,
            parses,
            server_parses,
            binds,
        } = more;
        self.transactions += transactions;
        self.transaction_us += transaction_us;
        self.assignments += assignments;
        self.received_bytes += received_bytes;
        self.parses += parses;
        self.server_parses += server_parses;
        self.binds += binds;
    }
}

/// The same of one session, which alone writes: each is a load and a store in a cache line of its own.
#[derive(Debug, Default)]
pub(super) struct SessionCounts {
    pub transactions: Count,
    pub transaction_us: Count,
    pub assignments: Count,
    pub received_bytes: Count,
    pub parses: Count,
    pub server_parses: Count,
    pub binds: Count,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// By the session itself alone.
    pub fn add(&self, more: u64) {
        self.0.store(self.get() + more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl SessionCounts {
    fn totals(&self) -> Totals {
        Totals {
            transactions: self.transactions.get(),
            transaction_us: self.transaction_us.get(),
            assignments: self.assignments.get(),
            received_bytes: self.received_bytes.get(),
            parses: self.parses.get(),
            server_parses: self.server_parses.get(),
            binds: self.binds.get(),
        }
    }
}

/// What a session is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Waits for its client.
    Idle = 0,
    Active = 1,
    /// Waits for a server connection.
    Waiting = 2,
}

/// One session as seen from outside.
pub struct SessionRecord {
    pub id: u64,
    pub database: Arc<str>,
    pub user: Arc<str>,
    /// What a `SocketAddr` has that a client can be told by, in fewer bytes.
    peer: Option<(IpAddr, u16)>,
    /// What the client knows as its process id.
    pub pid: u32,
    pub application_name: Option<Arc<str>>,
    /// Set with the login.
    tls: OnceLock<TlsTerms>,
    /// Micro seconds of Unix time.
    connected_time_us: u64,
    connected_at: Instant,
    activity: AtomicU8,
    pin: Mutex<Option<&'static str>>,
    pub(super) transaction: TransactionRecord,
    /// Micro seconds from the login to the last request, and to the beginning of a wait.
    requested_us: AtomicU64,
    waiting_us: AtomicU64,
    statements: AtomicU64,
    pub(super) counts: SessionCounts,
    called: AtomicBool,
    killed: AtomicBool,
    /// Told that it may rest, and not heard yet.
    drowsy: AtomicBool,
    /// It has given up what it needs for statements.
    resting: AtomicBool,
    /// Its request goes out, if it does now, as good as when it came.
    prompt: AtomicBool,
    /// Of the session's task.
    waker: Mutex<Option<Waker>>,
}

/// Who a session is.
pub struct Identity {
    pub database: Arc<str>,
    pub user: Arc<str>,
    pub peer: Option<SocketAddr>,
    pub pid: u32,
    pub application_name: Option<Arc<str>>,
}

/// A session's place. Dropping it leaves.
pub struct Registered {
    sessions: Arc<Sessions>,
    record: Arc<SessionRecord>,
}

impl Sessions {
    pub fn register(self: &Arc<Sessions>, identity: Identity) -> Registered {
        let Identity { database, user, peer, pid, application_name } = identity;
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let record = Arc::new(SessionRecord {
            id,
            database,
            user,
            peer: peer.map(|it| (it.ip(), it.port())),
            pid,
            application_name,
            tls: OnceLock::new(),
            connected_time_us: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |it| it.as_micros() as u64),
            connected_at: Instant::now(),
            activity: AtomicU8::new(Activity::Active as u8),
            pin: Mutex::default(),
            transaction: TransactionRecord::default(),
            requested_us: AtomicU64::new(0),
            waiting_us: AtomicU64::new(0),
            statements: AtomicU64::new(0),
            counts: SessionCounts::default(),
            called: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            drowsy: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            prompt: AtomicBool::new(false),
            waker: Mutex::default(),
        });
        self.by_id.lock().insert(id, record.clone());
        Registered { sessions: self.clone(), record }
    }

    pub fn all(&self) -> Vec<Arc<SessionRecord>> {
        self.by_id.lock().values().cloned().collect()
    }

    pub fn get(&self, id: u64) -> Option<Arc<SessionRecord>> {
        self.by_id.lock().get(&id).cloned()
    }

    /// Of all sessions of a database since the start.
    pub fn totals(&self, database: &str) -> Totals {
        // Both locks, so that no session is counted twice or not at all while it ends.
        let (by_id, ended) = (self.by_id.lock(), self.ended.lock());
        let mut totals = ended.get(database).copied().unwrap_or_default();
        by_id.values().filter(|it| &*it.database == database).for_each(|it| totals += it.counts());
        totals
    }

    /// Sessions whose clients have been silent for `REST_AFTER` give up what only statements need. To be called
    /// now and then: no session has to look at a clock for it. Returns how many rest.
    pub fn let_rest(&self, now: Instant) -> usize {
        let mut resting = 0;
        for record in self.all() {
            let is_over = record.silent_time(now) >= REST_AFTER;
            if record.resting.load(Ordering::Relaxed) {
                resting += 1;
            } else if is_over && record.activity() == Activity::Idle {
                record.drowsy.store(true, Ordering::Release);
                record.wake();
            }
        }
        resting
    }

    /// The process stops or the configuration is another: every session has a look when it is between
    /// transactions.
    pub fn call_all(&self) {
        self.all().iter().for_each(|it| it.call());
    }

    pub fn kill_all(&self) {
        self.all().iter().for_each(|it| it.kill());
    }
}

impl SessionRecord {
    pub fn activity(&self) -> Activity {
        match self.activity.load(Ordering::Relaxed) {
            0 => Activity::Idle,
            1 => Activity::Active,
            _ => Activity::Waiting,
        }
    }

    pub(super) fn set_activity(&self, activity: Activity) {
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    pub fn tls(&self) -> Option<TlsTerms> {
        self.tls.get().copied()
    }

    pub(super) fn set_tls(&self, stream: &Stream) {
        if let Some(it) = stream.tls_terms() {
            let _ = self.tls.set(it);
        }
    }

    /// Why its server connection is nobody else's.
    pub fn pin(&self) -> Option<&'static str> {
        *self.pin.lock()
    }

    /// The open transaction, if there is one.
    pub fn transaction(&self) -> Option<OpenTransaction> {
        self.transaction.read()
    }

    pub(super) fn set_pin(&self, reason: Option<&'static str>) {
        *self.pin.lock() = reason;
    }

    /// Waits for a server from now on.
    pub(super) fn waits(&self, now: Instant) {
        self.waiting_us.store(self.micros(now), Ordering::Relaxed);
        self.set_activity(Activity::Waiting);
    }

    /// How long it has waited for a server at `now`, if it does.
    pub fn waited(&self, now: Instant) -> Option<Duration> {
        let since = Duration::from_micros(self.waiting_us.load(Ordering::Relaxed));
        let waited = now.saturating_duration_since(self.connected_at).saturating_sub(since);
        (self.activity() == Activity::Waiting).then_some(waited)
    }

    pub(super) fn requested(&self, now: Instant, bytes: usize) {
        self.requested_us.store(self.micros(now), Ordering::Relaxed);
        self.prompt.store(bytes <= PROMPT_BYTES_MAX, Ordering::Relaxed);
    }

    /// The task has waited, or does what takes many microseconds.
    pub(super) fn takes_time(&self) {
        self.prompt.store(false, Ordering::Relaxed);
    }

    /// Whether the request goes out, if it does now, as good as when it came.
    pub(super) fn is_prompt(&self) -> bool {
        self.prompt.load(Ordering::Relaxed)
    }

    pub fn connected_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.connected_time_us)
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.map(SocketAddr::from)
    }

    pub fn request_time(&self) -> SystemTime {
        self.connected_time() + Duration::from_micros(self.requested_us.load(Ordering::Relaxed))
    }

    /// Since the last request, or the login.
    fn silent_time(&self, now: Instant) -> Duration {
        let requested = Duration::from_micros(self.requested_us.load(Ordering::Relaxed));
        now.saturating_duration_since(self.connected_at).saturating_sub(requested)
    }

    pub(super) fn take_drowsy(&self) -> bool {
        self.drowsy.load(Ordering::Relaxed) && self.drowsy.swap(false, Ordering::Acquire)
    }

    pub(super) fn set_resting(&self, resting: bool) {
        self.resting.store(resting, Ordering::Relaxed);
    }

    /// Since the login.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.connected_at)
    }

    pub(super) fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.connected_at).as_micros() as u64
    }

    /// Prepared statements of its own names.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    pub(super) fn set_statements(&self, count: usize) {
        self.statements.store(count as u64, Ordering::Relaxed);
    }

    pub fn counts(&self) -> Totals {
        self.counts.totals()
    }

    pub fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.wake();
    }

    pub fn is_called(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }

    /// Before the look that a call asks for, so that none is missed.
    pub fn answer(&self) {
        self.called.swap(false, Ordering::Acquire);
    }

    /// Ends the session wherever it is.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake();
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// A task has one waker from its start to its end. Calls from before are seen by the first look.
    pub async fn wake_this_task(&self) {
        poll_fn(|cx| {
            *self.waker.lock() = Some(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }
}

impl std::ops::Deref for Registered {
    type Target = SessionRecord;

    fn deref(&self) -> &SessionRecord {
        &self.record
    }
}

impl Registered {
    pub fn record(&self) -> &Arc<SessionRecord> {
        &self.record
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut by_id = self.sessions.by_id.lock();
        by_id.remove(&self.record.id);
        let database = self.record.database.clone();
        *self.sessions.ended.lock().entry(database).or_default() += self.record.counts();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { database: "db".into(), user: "app".into(), peer: None, pid: 7, application_name: None }
    }

    #[test]
    fn who_is_silent_is_told_to_rest_once() {
        let sessions = Arc::new(Sessions::default());
        let (silent, busy) = (sessions.register(identity()), sessions.register(identity()));
        silent.set_activity(Activity::Idle);
        let later = Instant::now() + REST_AFTER;
        assert_eq!(sessions.let_rest(Instant::now()), 0);
        assert!(!silent.take_drowsy());
        sessions.let_rest(later);
        assert!(silent.take_drowsy() && !silent.take_drowsy() && !busy.take_drowsy());
        silent.set_resting(true);
        assert_eq!(sessions.let_rest(later), 1);
        assert!(!silent.take_drowsy());
        silent.set_resting(false);
        silent.requested(later, 0);
        sessions.let_rest(later + REST_AFTER / 2);
        assert!(!silent.take_drowsy());
    }

    #[test]
    fn sessions_are_found_until_they_leave() {
        let sessions = Arc::new(Sessions::default());
        let (a, b) = (sessions.register(identity()), sessions.register(identity()));
        let ids = || sessions.all().iter().map(|it| it.id).collect::<Vec<_>>();
        assert_eq!(ids(), [a.id, b.id]);
        sessions.call_all();
        assert!(a.is_called() && b.is_called() && !a.is_killed());
        a.answer();
        assert!(!a.is_called() && b.is_called());
        let id = a.id;
        a.counts.binds.add(2);
        b.counts.binds.add(3);
        drop(a);
        assert_eq!(sessions.totals("db").binds, 5);
        assert_eq!(sessions.totals("other"), Totals::default());
        assert!(sessions.get(id).is_none());
        assert_eq!(ids(), [b.id]);
    }
}
