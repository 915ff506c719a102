//! Answers that several reads have in common: of one that is under way, and of those that are kept for a while. Decides
//! and nothing else: the clock and what a read must see are arguments.
//!
//! ```text
//!            sent               answered               cache_ttl over, or a write of its rows
//!  waiting ───────▶ under way ───────────▶ (kept) ───────────────────────────────────────────▶ gone
//!     └──────────────────┴──▶ lost: it failed, was too long, or its client has gone
//! ```
//! Who comes while a read is under way that shows all that he must see waits for it; else he asks for himself, and
//! those behind him wait for his. When one is lost each that waited tries again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntCounter;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, Weighter};
use tokio::sync::watch;

use super::floors::Floor;
use crate::base::{Role, ServerId, ShardId};
use crate::metrics::{Limit, LimitHits};
use crate::proto::Settings;

/// How long a read is not shared any more whose answer was too long.
const TOO_LONG: Duration = Duration::from_secs(10);
/// What an entry takes beside its bytes, about.
const ENTRY_BYTES: usize = 256;

/// What reads have in common that get the same answer at one moment. All of it is compared: a hash of a client's
/// choice must not show it another one's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadId {
    /// Whose rights it has on the servers.
    pub user: Arc<str>,
    pub settings: Settings,
    pub shard: ShardId,
    /// The text, its parameters, and in which form the answer comes.
    pub request: Box<[u8]>,
}

impl Hash for ReadId {
    /// Without the settings, which nearly all sessions have alike.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shard.0.hash(state);
        self.request.hash(state);
    }
}

/// A server as a primary: one that comes back has another timeline, one whose name has moved is another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Primary {
    pub server: ServerId,
    pub timeline: Option<u32>,
    pub moved_at: Option<Instant>,
}

#[derive(Debug)]
pub struct Answer {
    /// All but ReadyForQuery.
    pub bytes: Box<[u8]>,
    pub rows: u64,
    pub role: Role,
    /// Every write that had been answered by then is in it.
    pub shown: Option<Instant>,
    /// The primary of the shard at that time: another one may lack what this one had.
    pub primary: Option<Primary>,
}

impl Answer {
    fn shows(&self, from: Option<Instant>) -> bool {
        from.is_none_or(|it| self.shown >= Some(it))
    }
}

/// What a read asks of an answer that it is to have in common with others.
#[derive(Clone, Copy, Debug)]
pub struct Asks {
    /// As of when it must be, at least.
    pub from: Option<Instant>,
    /// Of a kept answer, what has been written of its rows; `None` where none will do.
    pub kept: Option<Floor>,
    /// How long its own answer may be kept.
    pub ttl: Option<Duration>,
    /// Where it goes itself.
    pub role: Role,
    /// Of the shard, now.
    pub primary: Option<Primary>,
}

/// How far a read is that others wait for.
#[derive(Clone, Debug)]
enum Progress {
    Waiting { role: Role },
    UnderWay { shown: Option<Instant> },
    Answered(Arc<Answer>),
}

impl Progress {
    /// Its answer may be what is asked for, as far as is known.
    fn may_show(&self, from: Option<Instant>, now: Instant) -> bool {
        match self {
            // It will be sent from now on; a replica may be older than that.
            Progress::Waiting { role: Role::Primary } => true,
            Progress::Waiting { role: Role::Replica } => from.is_none_or(|it| it < now),
            Progress::UnderWay { shown } => from.is_none_or(|it| *shown >= Some(it)),
            Progress::Answered(answer) => answer.shows(from),
        }
    }
}

#[derive(Clone, Debug)]
enum Kept {
    Answer { answer: Arc<Answer>, until: Instant },
    TooLong { until: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Bytes;

impl Weighter<Arc<ReadId>, Kept> for Bytes {
    fn weight(&self, id: &Arc<ReadId>, kept: &Kept) -> u64 {
        let answer = match kept {
            Kept::Answer { answer, .. } => answer.bytes.len(),
            Kept::TooLong { .. } => 0,
        };
        (ENTRY_BYTES + id.request.len() + answer) as u64
    }
}

/// Counts those that made room.
#[derive(Clone)]
struct Evictions {
    count: IntCounter,
    hits: Option<LimitHits>,
}

impl Lifecycle<Arc<ReadId>, Kept> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _id: Arc<ReadId>, _kept: Kept) {
        self.count.inc();
        if let Some(it) = &self.hits {
            it.hit(Limit::CacheBytes);
        }
    }
}

const PARTS: usize = 16;

type UnderWay = HashMap<Arc<ReadId>, watch::Receiver<Progress>>;

/// Of one database.
pub struct Answers {
    /// In parts, so that those who ask for different things seldom meet.
    under_way: [Mutex<UnderWay>; PARTS],
    hasher: RandomState,
    kept: Cache<Arc<ReadId>, Kept, Bytes, RandomState, Evictions>,
}

/// What becomes of a read.
pub enum Turn {
    Kept(Arc<Answer>),
    Follow(Following),
    Lead(Leading),
    /// It is known to have a long answer.
    Alone,
}

/// A read that others may wait for. Dropped before it has an answer, it is lost.
pub struct Leading {
    answers: Arc<Answers>,
    id: Arc<ReadId>,
    ttl: Option<Duration>,
    primary: Option<Primary>,
    progress: watch::Sender<Progress>,
}

/// One that waits for another.
pub struct Following {
    from: Option<Instant>,
    progress: watch::Receiver<Progress>,
}

impl Answers {
    /// `evictions` counts answers that make room for others.
    pub fn new(bytes_max: usize, evictions: IntCounter, hits: Option<LimitHits>) -> Arc<Answers> {
        let evictions = Evictions { count: evictions, hits };
        let kept = Cache::with(1_024, bytes_max as u64, Bytes, RandomState::new(), evictions);
        let (under_way, hasher) = (Default::default(), RandomState::new());
        Arc::new(Answers { under_way, hasher, kept })
    }

    pub fn join(self: &Arc<Answers>, id: &Arc<ReadId>, asks: &Asks, now: Instant) -> Turn {
        match self.kept(id, asks, now) {
            Some(Kept::Answer { answer, .. }) => return Turn::Kept(answer),
            Some(Kept::TooLong { .. }) => return Turn::Alone,
            None => {}
        }
        let mut under_way = self.under_way(id).lock();
        let entry = under_way.entry(id.clone());
        if let Entry::Occupied(it) = &entry
            && it.get().borrow().may_show(asks.from, now)
            // Its sender may be about to take it away.
            && it.get().has_changed().is_ok()
        {
            return Turn::Follow(Following { from: asks.from, progress: it.get().clone() });
        }
        let (progress, followed) = watch::channel(Progress::Waiting { role: asks.role });
        entry.insert_entry(followed);
        let (answers, id) = (self.clone(), id.clone());
        Turn::Lead(Leading { answers, id, ttl: asks.ttl, primary: asks.primary, progress })
    }

    fn under_way(&self, id: &ReadId) -> &Mutex<UnderWay> {
        &self.under_way[self.hasher.hash_one(id) as usize % PARTS]
    }

    /// What is known and of use.
    fn kept(&self, id: &Arc<ReadId>, asks: &Asks, now: Instant) -> Option<Kept> {
        let kept = self.kept.get(id)?;
        let holds = match &kept {
            Kept::TooLong { until } => now < *until,
            Kept::Answer { answer, until } => {
                let floor = asks.kept?;
                now < *until
                    && !floor.in_flight
                    && answer.shows(floor.at.max(asks.from))
                    && answer.primary == asks.primary
            }
        };
        if !holds {
            // For a session that asks for more than others it is one look more; mostly nobody will have it again.
            self.kept.remove(id);
        }
        holds.then_some(kept)
    }

    /// Nothing of what is kept is given again.
    pub fn forget(&self) {
        self.kept.clear();
    }

    /// How many are kept, and their bytes.
    pub fn usage(&self) -> (usize, u64) {
        (self.kept.len(), self.kept.weight())
    }
}

impl Leading {
    /// It goes to a server whose rows are at least as of `shown`.
    pub fn sent(&self, shown: Option<Instant>) {
        self.progress.send_replace(Progress::UnderWay { shown });
    }

    pub fn primary(&self) -> Option<Primary> {
        self.primary
    }

    pub fn answered(self, answer: Answer, now: Instant) {
        let answer = Arc::new(answer);
        // An answer as of an unknown time is none that could be kept.
        if let Some(ttl) = self.ttl.filter(|_| answer.shown.is_some()) {
            let kept = Kept::Answer { answer: answer.clone(), until: now + ttl };
            self.answers.kept.insert(self.id.clone(), kept);
        }
        self.progress.send_replace(Progress::Answered(answer));
    }

    pub fn too_long(self, now: Instant) {
        self.answers.kept.insert(self.id.clone(), Kept::TooLong { until: now + TOO_LONG });
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        let own = self.progress.subscribe();
        let mut under_way = self.answers.under_way(&self.id).lock();
        if let Entry::Occupied(it) = under_way.entry(self.id.clone())
            && it.get().same_channel(&own)
        {
            it.remove();
        }
    }
}

impl Following {
    /// `None` where it is lost, or will not show what is asked for. Cancel safe.
    pub async fn answer(&mut self) -> Option<Arc<Answer>> {
        loop {
            match &*self.progress.borrow_and_update() {
                Progress::Answered(answer) => return Some(answer.clone()).filter(|it| it.shows(self.from)),
                Progress::UnderWay { shown } if self.from.is_some_and(|it| *shown < Some(it)) => return None,
                Progress::Waiting { .. } | Progress::UnderWay { .. } => {}
            }
            self.progress.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PRIMARY: Option<Primary> =
        Some(Primary { server: ServerId { shard: ShardId(0), index: 0 }, timeline: Some(1), moved_at: None });
    const ASKS: Asks = Asks { from: None, kept: None, ttl: None, role: Role::Primary, primary: PRIMARY };

    fn answers() -> Arc<Answers> {
        Answers::new(1 << 20, IntCounter::new("evictions", "of answers").unwrap(), None)
    }

    fn id(request: &[u8]) -> Arc<ReadId> {
        let (user, settings, shard) = ("app".into(), Settings::default(), ShardId(0));
        Arc::new(ReadId { user, settings, shard, request: request.into() })
    }

    fn answer(shown: Instant) -> Answer {
        let (bytes, rows, role) = ((*b"rows").into(), 1, Role::Primary);
        Answer { bytes, rows, role, shown: Some(shown), primary: PRIMARY }
    }

    fn lead(turn: Turn) -> Leading {
        match turn {
            Turn::Lead(it) => it,
            Turn::Kept(_) => panic!("kept"),
            Turn::Follow(_) => panic!("follows"),
            Turn::Alone => panic!("alone"),
        }
    }

    fn follow(turn: Turn) -> Following {
        match turn {
            Turn::Follow(it) => it,
            _ => panic!("does not follow"),
        }
    }

    #[tokio::test]
    async fn those_who_come_meanwhile_get_the_answer() {
        let (answers, now) = (answers(), Instant::now());
        let leading = lead(answers.join(&id(b"a"), &ASKS, now));
        let mut first = follow(answers.join(&id(b"a"), &ASKS, now));
        let other = lead(answers.join(&id(b"b"), &ASKS, now));
        leading.sent(Some(now));
        let mut second = follow(answers.join(&id(b"a"), &ASKS, now + MS));
        leading.answered(answer(now), now + MS);
        assert_eq!(&*first.answer().await.unwrap().bytes, b"rows");
        assert_eq!(&*second.answer().await.unwrap().bytes, b"rows");
        drop(other);
        let _leads_again = lead(answers.join(&id(b"a"), &ASKS, now + MS));
    }

    #[tokio::test]
    async fn what_was_sent_before_a_write_is_not_for_those_who_know_of_it() {
        let (answers, now) = (answers(), Instant::now());
        let after = |ms: u32| Asks { from: Some(now + MS * ms), ..ASKS };
        let old = lead(answers.join(&id(b"a"), &ASKS, now));
        // It may be sent early or late.
        let mut early = follow(answers.join(&id(b"a"), &after(5), now));
        old.sent(Some(now + MS));
        assert!(early.answer().await.is_none());
        let new = lead(answers.join(&id(b"a"), &after(5), now + MS * 6));
        new.sent(Some(now + MS * 7));
        let mut follower = follow(answers.join(&id(b"a"), &after(5), now + MS * 8));
        // The old one does not take the new one's place away.
        old.answered(answer(now + MS), now + MS * 9);
        let mut late = follow(answers.join(&id(b"a"), &after(6), now + MS * 9));
        new.answered(answer(now + MS * 7), now + MS * 9);
        assert!(follower.answer().await.is_some() && late.answer().await.is_some());
        assert!(answers.under_way.iter().all(|it| it.lock().is_empty()));
    }

    #[tokio::test]
    async fn a_replicas_answer_is_not_for_those_who_ask_for_now() {
        let (answers, now) = (answers(), Instant::now());
        let replica = Asks { role: Role::Replica, ..ASKS };
        let leading = lead(answers.join(&id(b"a"), &replica, now));
        let _older = follow(answers.join(&id(b"a"), &Asks { from: Some(now), ..replica }, now + MS));
        let newest = Asks { from: Some(now + MS), ..replica };
        let _itself = lead(answers.join(&id(b"a"), &newest, now + MS));
        drop(leading);
    }

    #[tokio::test]
    async fn a_lost_one_is_told() {
        let (answers, now) = (answers(), Instant::now());
        let leading = lead(answers.join(&id(b"a"), &ASKS, now));
        let mut follower = follow(answers.join(&id(b"a"), &ASKS, now));
        drop(leading);
        assert!(follower.answer().await.is_none());
        lead(answers.join(&id(b"a"), &ASKS, now)).too_long(now);
        assert!(matches!(answers.join(&id(b"a"), &ASKS, now + TOO_LONG / 2), Turn::Alone));
        let _again = lead(answers.join(&id(b"a"), &ASKS, now + TOO_LONG));
    }

    #[test]
    fn an_answer_is_kept_until_its_time_is_over_or_a_write_comes() {
        let now = Instant::now();
        let (still, ttl) = (Floor::default(), Some(MS * 100));
        let written = |at: u32| Floor { at: Some(now + MS * at), in_flight: false };
        let asks = Asks { kept: Some(still), ttl, ..ASKS };
        let is_kept = |asks: &Asks, at: u32| {
            let answers = answers();
            let leading = lead(answers.join(&id(b"a"), &Asks { primary: PRIMARY, ..*asks }, now));
            leading.sent(Some(now));
            leading.answered(answer(now), now + MS);
            matches!(answers.join(&id(b"a"), asks, now + MS * at), Turn::Kept(_))
        };
        assert!(is_kept(&asks, 100) && !is_kept(&asks, 101));
        assert!(is_kept(&Asks { kept: Some(written(0)), ..asks }, 2));
        assert!(!is_kept(&Asks { kept: Some(written(1)), ..asks }, 2), "written since");
        assert!(!is_kept(&Asks { kept: Some(Floor { at: None, in_flight: true }), ..asks }, 2));
        assert!(!is_kept(&Asks { from: Some(now + MS), ..asks }, 2), "the session has seen more");
        assert!(!is_kept(&Asks { kept: None, ..asks }, 2), "it asks the primary");
        assert!(!is_kept(&Asks { ttl: None, ..asks }, 2));
        let promoted = PRIMARY.map(|it| Primary { timeline: Some(3), ..it });
        assert!(!is_kept(&Asks { primary: promoted, ..asks }, 2), "it was away in between");
    }

    #[test]
    fn who_asks_is_part_of_what_is_asked() {
        let (answers, now) = (answers(), Instant::now());
        let app = id(b"a");
        let other_user = Arc::new(ReadId { user: "other".into(), ..(*app).clone() });
        let mut settings = Settings::default();
        settings.set(crate::proto::Assignment::of_value("search_path", "b"));
        let other_settings = Arc::new(ReadId { settings, ..(*app).clone() });
        let other_shard = Arc::new(ReadId { shard: ShardId(1), ..(*app).clone() });
        let _each_leads =
            [app, other_user, other_settings, other_shard].map(|it| lead(answers.join(&it, &ASKS, now)));
    }

    #[test]
    fn kept_answers_are_bounded() {
        let evictions = IntCounter::new("evictions", "of answers").unwrap();
        let (answers, now) = (Answers::new(100_000, evictions.clone(), None), Instant::now());
        let asks = Asks { kept: Some(Floor::default()), ttl: Some(MS * 1_000), ..ASKS };
        for number in 0..2_000u32 {
            let leading = lead(answers.join(&id(&number.to_be_bytes()), &asks, now));
            leading.answered(answer(now), now);
        }
        let (kept, bytes) = answers.usage();
        assert!(kept > 50 && bytes <= 100_000, "{kept} {bytes}");
        assert_eq!(evictions.get() + kept as u64, 2_000);
    }
}
