//! Sessions that read and write registers, and what `client` does for each of their statements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway::backend::ConnectError;
use keyway::base::{Consistency, Role, ShardId};
use keyway::client::{Fate, Floors, Must, Tracks};
use keyway::pool::{BreakerState, Busy, Standing, Trial};
use keyway::route::{Choice, Excluded, Freshness, Load, Offer, Server, Touched, TouchedTable, warmth};

use super::proxy::{Connection, server_id};
use super::world::{KEYS, State};
use super::{Counts, Dice, MS, Note, Sim, Us, What};

pub const HOLD: Us = 900 * MS;
const RETRY_PAUSE: Us = 100 * MS;
const LOOK_PAUSE: Us = 5 * MS;
const CONNECT_TIMEOUT: Us = 300 * MS;
const CATCH_UP: Us = 300 * MS;
const SLOW_START: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Read,
    /// A transaction of its own.
    Write,
    /// In a transaction that goes on.
    WriteInBlock,
    Commit,
}

/// On its way to a server.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    session: usize,
    serial: u64,
    server: usize,
    incarnation: u32,
    step: Step,
    keys: u64,
    operation: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Read(State),
    Committed(usize),
    InBlock,
    /// The connection can be used again.
    Refused(&'static str),
    Lost,
}

struct Target {
    server: usize,
    role: Role,
    connection: Connection,
    busy: Option<Reader>,
    /// It is not to be used as the primary any more.
    is_cut: bool,
}

struct Operation {
    id: u64,
    step: Step,
    keys: u64,
    pub level: Consistency,
    begun: Us,
    role: Role,
    excluded: Excluded,
    tries_left: usize,
    /// What had been told, and shown, before it began.
    told: usize,
    shown: usize,
    hold_since: Option<Us>,
    is_queued: bool,
    /// Wakes with a change of roles.
    waits: bool,
    catch_up_by: Option<Us>,
    logs_in_for: Option<Placed>,
    is_under_way: bool,
}

#[derive(Clone, Copy)]
struct Placed {
    server: usize,
    role: Role,
    /// Nobody was within `max_lag`.
    is_stale: bool,
}

struct Block {
    is_read_only: bool,
    left: u64,
    keys: u64,
}

pub struct Session {
    level: Consistency,
    own: Option<Instant>,
    tracks: Tracks,
    entropy: u64,
    serial: u64,
    operation: Option<Operation>,
    block: Option<Block>,
    target: Option<Target>,
    pub seen: [Option<usize>; KEYS as usize],
    pub has_done: bool,
}

pub struct Clients {
    pub sessions: Vec<Session>,
    pub is_paused: bool,
    pub counts: Counts,
    /// Since faults have ended.
    pub writes_since: u64,
    pub reads_since: u64,
    floors: Arc<Floors>,
    least_stale: bool,
    queue: usize,
    operations: u64,
}

const TABLES: [(u64, u64); 2] = [(0x51A7_0000_0001, 0b00_1111), (0x51A7_0000_0002, 0b11_0000)];

fn hash_of(key: u64) -> u64 {
    (key + 1).wrapping_mul(0xA24B_AED4_963E_E407)
}

/// Rows of one key, of some, of a table, of any: what is told of them, and what they are.
fn touched(dice: &mut Dice, writes: bool) -> (Touched, Option<Vec<u64>>, u64) {
    let (table, mask) = TABLES[usize::from(dice.chance(30))];
    let of = |keyed| Touched::Tables([TouchedTable { id: table, keyed }].into());
    let any = |dice: &mut Dice| loop {
        let key = dice.below(KEYS);
        if mask & 1 << key != 0 {
            return key;
        }
    };
    match dice.below(20) {
        0 => (Touched::All, None, 1 << dice.below(KEYS)),
        1 => (of(false), None, if writes { mask } else { 1 << any(dice) }),
        2 if !writes => (of(true), None, mask),
        3 | 4 => {
            let (one, other) = (any(dice), any(dice));
            (of(true), Some(vec![hash_of(one), hash_of(other)]), 1 << one | 1 << other)
        }
        _ => {
            let key = any(dice);
            (of(true), Some(vec![hash_of(key)]), 1 << key)
        }
    }
}

impl Clients {
    /// `queue`: how many may wait for a primary.
    pub fn new(queue: usize, base: Instant, dice: &mut Dice) -> Clients {
        let floors = Floors::new(base);
        let session = |dice: &mut Dice| Session {
            level: match dice.below(10) {
                0..5 => Consistency::Global,
                5..8 => Consistency::Session,
                8 => Consistency::Eventual,
                _ => Consistency::Primary,
            },
            own: None,
            tracks: Tracks::new(floors.clone()),
            entropy: dice.next(),
            serial: 0,
            operation: None,
            block: None,
            target: None,
            seen: Default::default(),
            has_done: false,
        };
        let count = dice.within(3, 8);
        Clients {
            sessions: (0..count).map(|_| session(dice)).collect(),
            is_paused: false,
            counts: Counts::default(),
            writes_since: 0,
            reads_since: 0,
            least_stale: dice.chance(20),
            queue,
            floors,
            operations: 0,
        }
    }

    /// Somebody has a server, or is about to.
    pub fn are_at_work(&self) -> bool {
        let logs_in = |it: &Session| it.operation.as_ref().is_some_and(|it| it.logs_in_for.is_some());
        self.sessions.iter().any(|it| it.target.is_some() || logs_in(it))
    }
}

/// As `client::balance::Reader`.
struct Reader {
    busy: Busy,
    trial: Option<Trial>,
}

impl Reader {
    fn of_replica(standing: &Arc<Standing>, now: Instant) -> Option<Reader> {
        let busy = || Busy::new(standing.clone());
        match standing.breaker.statement_state(now) {
            BreakerState::Closed => Some(Reader { busy: busy(), trial: None }),
            BreakerState::Open => None,
            BreakerState::HalfOpen => {
                standing.breaker.may_try(now).ok()?;
                Some(Reader { busy: busy(), trial: Some(Trial::new(standing.clone())) })
            }
        }
    }

    fn succeeded(&mut self, took: Duration, now: Instant) {
        self.busy.succeeded(took, now);
        self.trial.iter_mut().for_each(Trial::settle);
    }

    fn lost(&mut self, now: Instant) {
        self.busy.lost(now);
        self.trial.iter_mut().for_each(Trial::settle);
    }
}

impl Sim {
    fn session(&mut self, session: usize) -> &mut Session {
        &mut self.clients.sessions[session]
    }

    /// Events of before this are not for it any more.
    fn go_on(&mut self, session: usize) -> u64 {
        let it = self.session(session);
        it.serial += 1;
        it.serial
    }

    fn is_now(&self, session: usize, serial: u64) -> bool {
        self.clients.sessions[session].serial == serial
    }

    fn operation(&mut self, session: usize) -> &mut Operation {
        self.session(session).operation.as_mut().unwrap()
    }

    pub fn next(&mut self, session: usize, serial: u64) {
        if !self.is_now(session, serial) {
            return;
        }
        let serial = self.go_on(session);
        if self.clients.sessions[session].block.is_none() {
            if self.clients.is_paused {
                return self.after(10 * MS, What::Next { session, serial });
            }
            let left = self.dice.within(1, 4);
            self.session(session).block = match self.dice.below(100) {
                0..12 => Some(Block { is_read_only: true, left, keys: 0 }),
                12..22 => Some(Block { is_read_only: false, left, keys: 0 }),
                _ => None,
            };
        }
        let reads = self.dice.chance(65);
        let step = match &mut self.session(session).block {
            Some(it) if it.left > 0 => {
                it.left -= 1;
                if it.is_read_only { Step::Read } else { Step::WriteInBlock }
            }
            Some(_) => Step::Commit,
            None if reads => Step::Read,
            None => Step::Write,
        };
        self.begin_operation(session, step);
        self.attach(session, serial);
    }

    /// As `Session::touch_rows` and `begin_commit`.
    fn begin_operation(&mut self, session: usize, step: Step) {
        let (touched, hashes, mut keys) = touched(&mut self.dice, step != Step::Read);
        let floors = self.clients.floors.clone();
        self.clients.operations += 1;
        let id = self.clients.operations;
        let other = self.dice.below(20);
        let it = &mut self.clients.sessions[session];
        let in_block = it.block.is_some();
        let level = match other {
            0 if !in_block => Consistency::Eventual,
            1 if !in_block => Consistency::Global,
            _ => it.level,
        };
        it.tracks.begin_reading();
        let mut role = Role::Primary;
        match step {
            Step::Read => {
                let cells = Floors::read(&touched, hashes.as_deref());
                let reason =
                    it.tracks.must_see(Some(level), &cells, floors.floor(&cells), it.target.is_some());
                let is_free = self.without.floors && level != Consistency::Primary;
                role = if reason.is_none() || is_free { Role::Replica } else { Role::Primary };
            }
            Step::Write => it.tracks.written.add(&Floors::written(&touched, hashes.as_deref()), true),
            Step::WriteInBlock => it.tracks.written.add(&Floors::written(&touched, hashes.as_deref()), false),
            Step::Commit => it.tracks.written.commit(),
        }
        if let Some(block) = it.block.as_mut().filter(|it| !it.is_read_only) {
            if step != Step::Commit {
                block.keys |= keys;
            }
            keys = block.keys;
        }
        it.operation = Some(Operation {
            id,
            step,
            keys,
            level,
            begun: self.now,
            role,
            excluded: Excluded::default(),
            tries_left: if step == Step::Read && !in_block { self.world.servers.len() + 1 } else { 0 },
            told: self.oracle.told.len(),
            shown: self.oracle.shown.len(),
            hold_since: None,
            is_queued: false,
            waits: false,
            catch_up_by: None,
            logs_in_for: None,
            is_under_way: false,
        });
    }

    fn freshness(&self, session: usize) -> Freshness {
        let it = &self.clients.sessions[session];
        let max_lag = Duration::from_micros(self.proxy.max_lag);
        if self.without.floors {
            return Freshness { max_lag, ..Freshness::default() };
        }
        it.tracks.freshness(ShardId(0), Must { max_lag, all: None, own: it.own })
    }

    pub fn attach(&mut self, session: usize, serial: u64) {
        if !self.is_now(session, serial) {
            return;
        }
        let serial = self.go_on(session);
        self.operation(session).waits = false;
        if self.clients.sessions[session].target.is_some() {
            return self.use_held(session, serial);
        }
        if self.clients.is_paused && !self.is_amid(session) {
            self.leave_queue(session);
            self.operation(session).hold_since = None;
            return self.after(10 * MS, What::Attach { session, serial });
        }
        let Some(placed) = self.choose(session) else { return self.hold(session, true) };
        let (server, now) = (placed.server, self.clock());
        let observed_at = self.proxy.shard().servers[server].observed_at;
        if placed.role == Role::Primary && self.proxy.doubts[server].holds(observed_at, now) {
            return self.after(LOOK_PAUSE, What::Attach { session, serial });
        }
        while let Some(connection) = self.proxy.idle[server].pop() {
            let it = &self.world.servers[server];
            let is_gone = !it.alive || it.incarnation != connection.incarnation;
            // What the server has said of its end has come by now, or may have.
            let ended_at = it.ended_at.max(it.link_down_until);
            let has_come = self.now > ended_at + 20 * MS || self.now > ended_at && self.dice.chance(50);
            if is_gone && has_come {
                continue;
            }
            return self.take(session, placed, connection);
        }
        self.log_in(session, serial, placed);
    }

    /// A transaction is open that has a server. Here none is that has lost it.
    fn is_amid(&self, session: usize) -> bool {
        self.clients.sessions[session].target.is_some()
    }

    fn log_in(&mut self, session: usize, serial: u64, placed: Placed) {
        let now = self.clock();
        let breaker = &self.proxy.standings[placed.server].breaker;
        if breaker.problem(now).is_some() {
            return self.login_lost(session, placed);
        }
        if let Err(until) = breaker.may_try(now) {
            let pause = until.saturating_duration_since(now).as_micros() as Us;
            return self.after(pause.max(1), What::Attach { session, serial });
        }
        let server = placed.server;
        self.operation(session).logs_in_for = Some(placed);
        self.after(CONNECT_TIMEOUT, What::LoginDone { session, serial, server, came_to: None });
        let at = self.delivery(server);
        self.at(at, What::LoginArrive { session, serial, server });
    }

    pub fn login_arrive(&mut self, session: usize, serial: u64, server: usize) {
        let it = &self.world.servers[server];
        if it.alive && self.now < it.frozen_until {
            return self.at(it.frozen_until, What::LoginArrive { session, serial, server });
        }
        let of = Connection { ready_at: 0, incarnation: it.incarnation, in_hot_standby: it.is_standby };
        let came_to = it.alive.then_some(of);
        let at = self.delivery(server);
        self.at(at, What::LoginDone { session, serial, server, came_to });
    }

    pub fn login_done(&mut self, session: usize, serial: u64, server: usize, came_to: Option<Connection>) {
        if !self.is_now(session, serial) {
            return;
        }
        self.go_on(session);
        let now = self.clock();
        let Some(placed) = self.operation(session).logs_in_for.take() else { return };
        let breaker = &self.proxy.standings[server].breaker;
        match came_to {
            Some(connection) => {
                breaker.login_succeeded();
                self.take(session, placed, Connection { ready_at: self.now, ..connection });
            }
            None => {
                let error = ConnectError::Timeout(Duration::from_micros(CONNECT_TIMEOUT));
                breaker.login_failed(&Arc::new(error), now);
                self.login_lost(session, placed);
            }
        }
    }

    fn login_lost(&mut self, session: usize, placed: Placed) {
        self.report_failure(placed.server);
        self.operation(session).excluded.add(server_id(placed.server));
        match placed.role {
            Role::Primary => self.hold(session, false),
            Role::Replica => self.attach_again(session),
        }
    }

    fn attach_again(&mut self, session: usize) {
        let serial = self.go_on(session);
        self.after(0, What::Attach { session, serial });
    }

    /// As `Session::choose`.
    fn choose(&mut self, session: usize) -> Option<Placed> {
        let now = self.clock();
        let freshness = self.freshness(session);
        let it = &mut self.clients.sessions[session];
        it.tracks.will_not_read(ShardId(0));
        let operation = it.operation.as_ref()?;
        let shard = self.proxy.shard();
        let at = |it: &Server| usize::from(it.id.index);
        let primary =
            shard.primary().map(|it| Placed { server: at(it), role: Role::Primary, is_stale: false });
        if operation.role == Role::Primary {
            return primary;
        }
        it.entropy = it.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let excluded = operation.excluded;
        let offer = |it: &Server| {
            let standing = &self.proxy.standings[at(it)];
            if excluded.has(it.id) || standing.breaker.state(now) == BreakerState::Open {
                return None;
            }
            let load = Load { outstanding: standing.outstanding(), latency_us: standing.latency_us(now) };
            let since = it.joined.filter(|it| it.returned).map(|it| now.saturating_duration_since(it.at));
            Some(Offer::new(1, load, 1.0, since.map_or(1.0, |it| warmth(it, SLOW_START))))
        };
        let (found, is_stale) = match shard.replica(freshness, now, it.entropy >> 16, offer) {
            Choice::One(it) => (Some(at(it)), false),
            Choice::Cold(_) if primary.is_some() => (None, false),
            Choice::Cold(it) => (Some(at(it)), false),
            Choice::Nobody => {
                let any = Freshness { max_lag: freshness.max_lag, ..Freshness::default() };
                if shard.has_replica(freshness, now) {
                    (None, false)
                } else if shard.has_replica(any, now) {
                    self.clients.counts.floor_misses += 1;
                    (None, false)
                } else if self.clients.least_stale {
                    (shard.least_stale(freshness, |it| offer(it).is_some()).map(at), true)
                } else {
                    (None, false)
                }
            }
        };
        if let Some(server) = found {
            it.tracks.will_read(server_id(server));
            if !is_stale {
                self.check_age(server, self.proxy.max_lag);
            }
        }
        found.map(|server| Placed { server, role: Role::Replica, is_stale }).or(primary)
    }

    /// As the rest of `Session::try_attach`.
    fn take(&mut self, session: usize, placed: Placed, connection: Connection) {
        let (server, now) = (placed.server, self.clock());
        let mut busy = None;
        if placed.role == Role::Replica {
            let observed_at = self.proxy.shard().servers[server].observed_at;
            let ready_at = self.instant(connection.ready_at);
            let is_newer = observed_at.is_none_or(|it| it < ready_at);
            busy = Reader::of_replica(&self.proxy.standings[server], now);
            if busy.is_none() || is_newer {
                self.operation(session).excluded.add(server_id(server));
                self.proxy.idle[server].push(connection);
                return self.attach_again(session);
            }
            self.clients.counts.stale += u64::from(placed.is_stale);
        } else {
            let ready_at = self.instant(connection.ready_at);
            let is_primary = self.proxy.primary() == Some(server);
            let is_contradicted =
                connection.in_hot_standby && self.proxy.shard().servers[server].observed_at < Some(ready_at);
            if !is_primary || is_contradicted {
                self.report_failure(server);
                self.proxy.idle[server].push(connection);
                return self.hold(session, !is_primary);
            }
        }
        let role = placed.role;
        self.session(session).target = Some(Target { server, role, connection, busy, is_cut: false });
        self.send(session);
    }

    /// As `Session::catch_up`.
    fn use_held(&mut self, session: usize, serial: u64) {
        let now = self.clock();
        let it = &self.clients.sessions[session];
        let (Some(target), Some(operation)) = (&it.target, &it.operation) else { return };
        let (server, is_cut) = (target.server, target.is_cut);
        if is_cut {
            return self.lose(session, true);
        }
        if target.role == Role::Primary || operation.step != Step::Read {
            return self.send(session);
        }
        let ready_at = self.instant(target.connection.ready_at);
        let freshness = match self.without.floors {
            true => Some(self.freshness(session)),
            false => it.tracks.freshness_now(self.freshness(session), &self.clients.floors),
        };
        let state = &self.proxy.shard().servers[server];
        let is_known = |of: Freshness| !of.demands() || state.observed_at >= Some(ready_at);
        let has_caught_up = freshness.is_some_and(|it| state.has(it) && is_known(it));
        let by = self.instant(operation.catch_up_by.unwrap_or(self.now + CATCH_UP));
        let is_first = operation.catch_up_by.is_none();
        if is_first {
            let by = self.now + CATCH_UP;
            self.operation(session).catch_up_by = Some(by);
            self.session(session).tracks.will_read(server_id(server));
        }
        if has_caught_up {
            return self.send(session);
        }
        self.clients.counts.catch_ups += u64::from(is_first);
        if now >= by {
            return self.fail(session, "40001");
        }
        self.after(LOOK_PAUSE, What::Attach { session, serial });
    }

    fn send(&mut self, session: usize) {
        self.leave_queue(session);
        let serial = self.go_on(session);
        let now = self.now;
        let it = &mut self.clients.sessions[session];
        it.tracks.written.send();
        let (Some(target), Some(operation)) = (&it.target, &mut it.operation) else { return };
        operation.is_under_way = true;
        let request = Request {
            session,
            serial,
            server: target.server,
            incarnation: target.connection.incarnation,
            step: operation.step,
            keys: operation.keys,
            operation: operation.id,
        };
        let (role, begun, held) = (target.role, operation.begun, operation.hold_since);
        let counts = &mut self.clients.counts;
        match (operation.step, role) {
            (Step::Read, Role::Replica) => counts.reads_on_replicas += 1,
            (Step::Read, Role::Primary) => counts.reads_on_primary += 1,
            _ => {}
        }
        if request.step != Step::Read {
            self.oracle.writes_to(request.server);
        }
        if held.is_some_and(|it| now - it > HOLD + RETRY_PAUSE + CONNECT_TIMEOUT) {
            self.oracle.fail(format!("session {session} was held for {} us", now - begun));
        }
        self.note(Note::Sent { session, server: request.server, begun, what: request.step });
        let at = self.delivery(request.server);
        self.at(at, What::Arrive(request));
    }

    fn is_there(&self, request: &Request) -> bool {
        let it = &self.world.servers[request.server];
        it.alive && it.incarnation == request.incarnation
    }

    pub fn arrive(&mut self, request: Request) {
        let it = &self.world.servers[request.server];
        if it.alive && self.now < it.frozen_until {
            return self.at(it.frozen_until, What::Arrive(request));
        }
        if !self.is_there(&request) {
            return self.reply(&request, Answer::Lost);
        }
        let it = &self.world.servers[request.server];
        let is_standby = it.is_standby;
        if is_standby && request.step != Step::Read {
            return self.reply(&request, Answer::Refused("25006"));
        }
        if is_standby && self.dice.chance(2) {
            return self.reply(&request, Answer::Refused("40001"));
        }
        let is_slow = self.now < self.world.servers[request.server].slow_until;
        let takes = if is_slow { self.dice.within(10 * MS, 60 * MS) } else { self.dice.within(50, 1_500) };
        let state = self.world.state(request.server);
        self.after(takes, What::Execute(request, state));
    }

    pub fn execute(&mut self, request: Request, state: State) {
        let it = &self.world.servers[request.server];
        if it.alive && self.now < it.frozen_until {
            return self.at(it.frozen_until, What::Execute(request, state));
        }
        if !self.is_there(&request) {
            return;
        }
        let answer = match request.step {
            Step::Read => Answer::Read(state),
            Step::WriteInBlock => Answer::InBlock,
            Step::Write | Step::Commit => {
                self.oracle.applied(request.operation);
                let bytes = self.dice.within(40, 300);
                let (server, session) = (request.server, request.session);
                let commit = self.world.commit(server, self.now, request.keys, session, bytes);
                let state = self.world.state(server);
                self.note(Note::Executed { session, server, state, commit: Some(commit) });
                Answer::Committed(commit)
            }
        };
        self.reply(&request, answer);
    }

    fn reply(&mut self, request: &Request, answer: Answer) {
        let (session, serial) = (request.session, request.serial);
        let at = self.delivery(request.server);
        self.at(at, What::Answer { session, serial, answer });
    }

    /// The server closes them: what is under way on them is lost.
    pub fn connections_end(&mut self, server: usize) {
        for session in 0..self.clients.sessions.len() {
            let it = &self.clients.sessions[session];
            let is_on_it = it.target.as_ref().is_some_and(|it| it.server == server);
            if is_on_it && it.operation.as_ref().is_some_and(|it| it.is_under_way) {
                let serial = it.serial;
                let at = self.delivery(server);
                self.at(at, What::Answer { session, serial, answer: Answer::Lost });
            }
        }
    }

    pub fn answer(&mut self, session: usize, serial: u64, answer: Answer) {
        if !self.is_now(session, serial) {
            return;
        }
        self.note(Note::Answered { session, answer });
        let now = self.clock();
        let sim_now = self.now;
        let it = self.session(session);
        let Some(operation) = &mut it.operation else { return };
        let (begun, step) = (operation.begun, operation.step);
        operation.is_under_way = false;
        match answer {
            Answer::Lost => return self.lose(session, true),
            Answer::Refused(state) => return self.refused(session, state),
            Answer::Read(state) => {
                if let Some(busy) = it.target.as_mut().and_then(|it| it.busy.as_mut()) {
                    busy.succeeded(Duration::from_micros(sim_now - begun), now);
                }
                let is_on_replica = it.target.as_ref().is_some_and(|it| it.role == Role::Replica);
                self.clients.reads_since += u64::from(is_on_replica);
                self.check(session, state);
            }
            Answer::Committed(commit) => {
                self.clients.counts.writes += 1;
                self.clients.writes_since += 1;
                self.oracle.told.push(commit);
            }
            Answer::InBlock => {}
        }
        let it = self.session(session);
        it.has_done = true;
        let ends = match &it.block {
            Some(block) => step == Step::Commit || block.is_read_only && block.left == 0,
            None => true,
        };
        if ends {
            it.block = None;
            if !it.tracks.written.is_empty() {
                it.own = Some(now);
            }
            self.release(session);
        }
        self.end_soon(session);
    }

    fn check(&mut self, session: usize, state: State) {
        let it = &mut self.clients.sessions[session];
        let Some(operation) = &it.operation else { return };
        let (keys, level) = (operation.keys, operation.level);
        let read = super::oracle::Read { session, state, keys, level };
        self.oracle.check_read(&self.world, &read, &it.seen, operation.told, operation.shown);
        if level == Consistency::Eventual {
            return;
        }
        let (seen, shown) = (&mut it.seen, &mut self.oracle.shown);
        let mut found = Vec::new();
        self.world.seen(state, keys, |of, commit| found.push((of, commit)));
        for (of, commit) in found {
            (0..KEYS).filter(|it| of & 1 << it != 0).for_each(|it| seen[it as usize] = Some(commit));
            if !std::mem::replace(&mut self.world.commits[commit].shown, true) {
                shown.push(commit);
            }
        }
    }

    fn release(&mut self, session: usize) {
        if let Some(it) = self.session(session).target.take()
            && !it.is_cut
        {
            self.proxy.idle[it.server].push(it.connection);
        }
    }

    fn refused(&mut self, session: usize, state: &'static str) {
        let it = self.session(session);
        let server = it.target.as_ref().map_or(0, |it| it.server);
        let operation = it.operation.as_mut().unwrap();
        if state == "40001" && operation.tries_left > 0 {
            operation.excluded.add(server_id(server));
            (operation.role, operation.tries_left) = (Role::Primary, 0);
            self.release(session);
            return self.attach_again(session);
        }
        if state == "25006" {
            self.report_failure(server);
        }
        self.fail(session, state);
    }

    /// As `Session::drop_server` and `lose_server`. `is_end`: the connection has gone, and is not only thought to have.
    fn lose(&mut self, session: usize, is_end: bool) {
        let now = self.clock();
        let it = self.session(session);
        let Some(mut target) = it.target.take() else { return };
        let server = target.server;
        if let Some(busy) = &mut target.busy {
            busy.lost(now);
        }
        drop(target);
        if is_end {
            self.proxy.doubts[server].begin(now);
        }
        self.report_failure(server);
        let operation = self.operation(session);
        operation.is_under_way = false;
        if operation.tries_left > 0 {
            operation.tries_left -= 1;
            operation.excluded.add(server_id(server));
            self.clients.counts.retries += 1;
            self.note(Note::Retried { session, server });
            return self.attach_again(session);
        }
        let wrote = matches!(operation.step, Step::Write | Step::Commit);
        self.clients.counts.unknown += u64::from(wrote);
        self.session(session).own = Some(now);
        self.fail(session, "connection lost");
    }

    /// The client is told an error, and a transaction is over.
    fn fail(&mut self, session: usize, why: &'static str) {
        self.note(Note::Failed { session, why });
        if self.is_planned && why != "40001" {
            self.oracle.fail(format!("a planned switchover has failed a statement: {why}"));
        }
        self.leave_queue(session);
        self.session(session).block = None;
        self.release(session);
        self.end_soon(session);
    }

    /// As `Session::wait_for_primary`.
    fn hold(&mut self, session: usize, for_role: bool) {
        let serial = self.go_on(session);
        let now = self.now;
        if !self.operation(session).is_queued {
            if self.proxy.held >= self.clients.queue {
                self.clients.counts.refused += 1;
                return self.fail(session, "57P03: queue");
            }
            self.proxy.held += 1;
            self.clients.counts.held += 1;
            self.operation(session).is_queued = true;
            let count = self.proxy.held;
            self.note(Note::Held { session, count });
            self.oracle.held(count, self.clients.queue);
            self.begin_looking();
        }
        let ends = *self.operation(session).hold_since.get_or_insert(now) + HOLD;
        if now >= ends {
            self.clients.counts.refused += 1;
            return self.fail(session, "57P03: hold");
        }
        let has_primary = self.proxy.primary().is_some();
        self.operation(session).waits = true;
        let pause = match for_role {
            true if has_primary => 0,
            true => ends - now,
            false => (ends - now).min(RETRY_PAUSE),
        };
        self.after(pause, What::Attach { session, serial });
    }

    fn leave_queue(&mut self, session: usize) {
        if std::mem::take(&mut self.operation(session).is_queued) {
            self.proxy.held -= 1;
        }
    }

    /// The roles have changed.
    pub fn wake_held(&mut self) {
        for session in 0..self.clients.sessions.len() {
            let it = &self.clients.sessions[session];
            if it.operation.as_ref().is_some_and(|it| it.waits) {
                self.attach_again(session);
            }
        }
    }

    /// As `failover::meet`, for what the relay does then.
    pub fn meet_clients(&mut self, server: usize, fate: Fate) {
        for session in 0..self.clients.sessions.len() {
            let it = &mut self.clients.sessions[session];
            let Some(target) = it.target.as_mut().filter(|it| it.server == server) else { continue };
            let operation = it.operation.as_ref().filter(|it| it.is_under_way);
            if fate.cut && target.role == Role::Primary {
                target.is_cut = true;
                if operation.is_some() {
                    self.go_on(session);
                    self.lose(session, true);
                }
            } else if fate.doubt && operation.is_some_and(|it| it.tries_left > 0) {
                self.go_on(session);
                self.lose(session, false);
            }
        }
    }

    fn end_soon(&mut self, session: usize) {
        let serial = self.go_on(session);
        let delay = self.dice.below(300);
        self.after(delay, What::EndTouching { session, serial });
    }

    /// As `Session::end_touching` and `forget_tracks`. Between what a client is told and this others go on.
    pub fn end_touching(&mut self, session: usize, serial: u64) {
        if !self.is_now(session, serial) {
            return;
        }
        let (now, rests) = (self.clock(), self.dice.chance(30));
        let it = &mut self.clients.sessions[session];
        if it.tracks.has_read() {
            it.tracks.read_ended(&self.clients.floors, &self.proxy.cluster, now);
        }
        it.tracks.begin_reading();
        if it.block.is_none() {
            it.tracks.written.end(now);
            if rests {
                it.own = it.own.max(it.tracks.seen);
                it.tracks = Tracks::new(self.clients.floors.clone());
            }
        }
        it.operation = None;
        let serial = self.go_on(session);
        let think = if self.dice.chance(20) { self.dice.below(200) } else { self.dice.within(MS, 50 * MS) };
        self.after(think, What::Next { session, serial });
    }
}
