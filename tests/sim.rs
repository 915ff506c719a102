//! Lives of a shard, its Keyway and some sessions: one thread, a clock that is a number, no sockets, all chance from a seed.
//!
//! What decides is the product's own: `topology::Estimate` with its membership and pace, `route::Shard::replica`,
//! `least_stale` and the balancing behind it, `pool::Standing` with its breaker, `client::Floors`, `Written` and `Tracks`,
//! `client::Doubt` and `fate`. What does I/O is written down here anew, thinly and by the same rules: probers (`proxy`, as
//! `topology::probe::run`), publishing (`Topology::learn`), connections of a pool without a size, the queue of those who
//! wait for a primary (`Session::wait_out`), `Session::choose`, `try_attach`, `run_on_one`, `lose_server` and `catch_up`
//! (`clients`). Not in it: what several shards have to do with each other, texts, plans and the protocol.
//!
//! `world` knows the truth, `clients` are told some of it, `oracle` compares. A failure prints its seed and the last
//! events; `KEYWAY_SIM_SEED=7 cargo test --test sim` runs one life and shows all of them.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "sim/clients.rs"]
mod clients;
#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/oracle.rs"]
mod oracle;
#[path = "sim/proxy.rs"]
mod proxy;
#[path = "sim/world.rs"]
mod world;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::Write;
use std::time::{Duration, Instant};

use clients::{Clients, Request};
use faults::Fault;
use keyway::topology::Report;
use oracle::Oracle;
use proxy::Proxy;
use world::{State, World};

/// Microseconds since the life began.
type Us = u64;
const MS: Us = 1_000;

const SEEDS: u64 = 10_000;
/// Faults begin before; what is broken then is repaired.
const QUIET_AT: Us = 1_600 * MS;
/// By when all has to be well again.
const WELL_WITHIN: Us = 4_000 * MS;
const NOTES: usize = 120;

/// What a life leaves out.
#[derive(Clone, Copy, Debug, Default)]
struct Without {
    /// Reads ask for no floor.
    floors: bool,
}

/// What is to come, in order of time; of the same time, in the order in which it was made known.
#[derive(Default)]
struct Agenda {
    /// Time, order and place, from the highest bits on: numbers are quick to move and to compare.
    keys: BinaryHeap<Reverse<u128>>,
    places: Vec<Option<What>>,
    free: Vec<usize>,
    order: u64,
}

const PLACE_BITS: u32 = 24;

impl Agenda {
    fn push(&mut self, at: Us, what: What) {
        let place = self.free.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(None);
        }
        self.places[place] = Some(what);
        self.order += 1;
        self.keys.push(Reverse(u128::from(at) << 64 | u128::from(self.order << PLACE_BITS) | place as u128));
    }

    fn pop(&mut self) -> Option<(Us, What)> {
        let Reverse(key) = self.keys.pop()?;
        let place = key as usize & ((1 << PLACE_BITS) - 1);
        self.free.push(place);
        Some(((key >> 64) as Us, self.places[place].take()?))
    }
}

#[derive(Debug)]
enum What {
    Tick {
        server: usize,
    },
    Fault(Fault),
    ProbeStart {
        server: usize,
        generation: u32,
    },
    ProbeArrive {
        server: usize,
        probe: u64,
        logs_in: bool,
    },
    ProbeReady {
        server: usize,
        probe: u64,
        incarnation: u32,
    },
    ProbeAnswer {
        server: usize,
        probe: u64,
        report: Box<Report>,
    },
    ProbeTimeout {
        server: usize,
        probe: u64,
    },
    Publish,
    Look,
    /// The session's next step, unless it has gone on since.
    Next {
        session: usize,
        serial: u64,
    },
    Attach {
        session: usize,
        serial: u64,
    },
    LoginArrive {
        session: usize,
        serial: u64,
        server: usize,
    },
    LoginDone {
        session: usize,
        serial: u64,
        server: usize,
        came_to: Option<proxy::Connection>,
    },
    Arrive(Request),
    Execute(Request, State),
    Answer {
        session: usize,
        serial: u64,
        answer: clients::Answer,
    },
    EndTouching {
        session: usize,
        serial: u64,
    },
}

/// SplitMix64, from which the constants are.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Sim {
    seed: u64,
    base: Instant,
    now: Us,
    dice: Dice,
    agenda: Agenda,
    without: Without,
    world: World,
    proxy: Proxy,
    clients: Clients,
    oracle: Oracle,
    is_planned: bool,
    quiet: bool,
    /// When to see next whether all is well.
    look_at: Us,
    notes: VecDeque<(Us, Note)>,
    traces: bool,
}

/// What has happened, for whoever looks into a failure.
#[derive(Debug)]
#[allow(dead_code, reason = "read by Debug")]
enum Note {
    Fault(Fault),
    Roles(String),
    Sent { session: usize, server: usize, begun: Us, what: clients::Step },
    Executed { session: usize, server: usize, state: State, commit: Option<usize> },
    Answered { session: usize, answer: clients::Answer },
    Retried { session: usize, server: usize },
    Held { session: usize, count: usize },
    Failed { session: usize, why: &'static str },
}

/// What came about in lives, so that a simulation in which nothing happens does not pass.
#[derive(Debug, Default)]
struct Counts {
    reads_on_replicas: u64,
    reads_on_primary: u64,
    writes: u64,
    unknown: u64,
    retries: u64,
    held: u64,
    refused: u64,
    promotions: u64,
    breakers_opened: u64,
    catch_ups: u64,
    lost: u64,
    floor_misses: u64,
    stale: u64,
}

impl Sim {
    fn new(seed: u64, without: Without, traces: bool) -> Sim {
        let mut dice = Dice(seed.wrapping_mul(0xD134_2543_DE82_EF95));
        let base = Instant::now();
        let count = dice.within(2, 5) as usize;
        let steps: Vec<u64> = (0..count).map(|_| dice.within(300, 4_000)).collect();
        let world = World::new(count, |it| steps[it]);
        let proxy = Proxy::new(count, base, &mut dice);
        let is_planned = dice.chance(12);
        let clients = Clients::new(if is_planned { 100 } else { 4 }, base, &mut dice);
        let mut sim = Sim {
            seed,
            base,
            now: 0,
            is_planned,
            dice,
            agenda: Agenda::default(),
            without,
            world,
            proxy,
            clients,
            oracle: Oracle::default(),
            quiet: false,
            look_at: QUIET_AT,
            notes: VecDeque::new(),
            traces,
        };
        sim.begin(count);
        sim
    }

    fn begin(&mut self, count: usize) {
        for server in 0..count {
            let at = self.dice.below(20 * MS);
            self.at(at, What::Tick { server });
            let at = self.dice.below(30 * MS);
            self.at(at, What::ProbeStart { server, generation: 0 });
        }
        for session in 0..self.clients.sessions.len() {
            let at = self.dice.below(100 * MS);
            self.at(at, What::Next { session, serial: 0 });
        }
        self.plan_faults();
    }

    fn at(&mut self, at: Us, what: What) {
        self.agenda.push(at.max(self.now), what);
    }

    fn after(&mut self, delay: Us, what: What) {
        self.at(self.now + delay, what);
    }

    fn instant(&self, at: Us) -> Instant {
        self.base + Duration::from_micros(at)
    }

    fn clock(&self) -> Instant {
        self.instant(self.now)
    }

    fn note(&mut self, note: Note) {
        if self.traces {
            // Not as `println!`, which tests keep to themselves.
            let mut out = std::io::stderr().lock();
            writeln!(out, "{:>9} us  {note:?}", self.now).unwrap();
        }
        if self.notes.len() == NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back((self.now, note));
    }

    /// When what is sent between Keyway and the server now gets there.
    fn delivery(&mut self, server: usize) -> Us {
        let delay =
            if self.dice.chance(3) { self.dice.within(MS, 20 * MS) } else { self.dice.within(50, 600) };
        let link = self.world.servers[server].link_down_until;
        if link > self.now { link + delay } else { self.now + delay }
    }

    fn run(mut self) -> Result<Counts, String> {
        while let Some((at, what)) = self.agenda.pop() {
            self.now = at;
            self.handle(what);
            if let Some(failure) = self.oracle.failure.take() {
                return Err(self.told(&failure));
            }
            if self.quiet && self.now >= self.look_at {
                self.look_at = self.now + 20 * MS;
                if self.ailment().is_none() {
                    return Ok(self.count());
                }
            }
            if self.now > QUIET_AT + WELL_WITHIN {
                let why = self.ailment().unwrap_or_default();
                return Err(self.told(&format!("not well again: {why}")));
            }
        }
        Err(self.told("nothing is left to happen"))
    }

    fn handle(&mut self, what: What) {
        match what {
            What::Tick { server } => self.tick(server),
            What::Fault(fault) => self.befall(fault),
            What::ProbeStart { server, generation } => self.probe_start(server, generation),
            What::ProbeArrive { server, probe, logs_in } => self.probe_arrive(server, probe, logs_in),
            What::ProbeReady { server, probe, incarnation } => self.probe_ready(server, probe, incarnation),
            What::ProbeAnswer { server, probe, report } => self.probe_answer(server, probe, *report),
            What::ProbeTimeout { server, probe } => self.probe_timeout(server, probe),
            What::Publish => self.publish_due(),
            What::Look => self.look(),
            What::Next { session, serial } => self.next(session, serial),
            What::Attach { session, serial } => self.attach(session, serial),
            What::LoginArrive { session, serial, server } => self.login_arrive(session, serial, server),
            What::LoginDone { session, serial, server, came_to } => {
                self.login_done(session, serial, server, came_to);
            }
            What::Arrive(request) => self.arrive(request),
            What::Execute(request, state) => self.execute(request, state),
            What::Answer { session, serial, answer } => self.answer(session, serial, answer),
            What::EndTouching { session, serial } => self.end_touching(session, serial),
        }
    }

    fn tick(&mut self, server: usize) {
        let learns = self.dice.chance(20);
        self.world.tick(server, self.now, learns);
        if self.dice.chance(10) && !self.world.servers[server].is_standby && self.world.servers[server].alive
        {
            let bytes = self.dice.within(1, 400);
            self.world.write(server, bytes);
        }
        let pause = self.dice.within(5 * MS, 30 * MS);
        self.after(pause, What::Tick { server });
    }

    fn told(&self, failure: &str) -> String {
        let mut told: Vec<String> =
            self.notes.iter().map(|(at, note)| format!("{at:>9} us  {note:?}")).collect();
        told.push(format!("{:>9} us  {failure}", self.now));
        format!("seed {}:\n{}", self.seed, told.join("\n"))
    }
}

impl Counts {
    fn add(&mut self, more: &Counts) {
        self.reads_on_replicas += more.reads_on_replicas;
        self.reads_on_primary += more.reads_on_primary;
        self.writes += more.writes;
        self.unknown += more.unknown;
        self.retries += more.retries;
        self.held += more.held;
        self.refused += more.refused;
        self.promotions += more.promotions;
        self.breakers_opened += more.breakers_opened;
        self.catch_ups += more.catch_ups;
        self.lost += more.lost;
        self.floor_misses += more.floor_misses;
        self.stale += more.stale;
    }
}

fn live(seed: u64, without: Without, traces: bool) -> Result<Counts, String> {
    Sim::new(seed, without, traces).run()
}

/// The seeds are cut into parts, so that they run at once.
const PARTS: u64 = 4;

fn chosen() -> Option<u64> {
    std::env::var("KEYWAY_SIM_SEED").ok().map(|it| it.parse().unwrap())
}

/// All lives of the part, or the one that was chosen, if it is of it.
fn live_part(part: u64) {
    if let Some(seed) = chosen() {
        let of = (seed.saturating_sub(1) * PARTS / SEEDS).min(PARTS - 1);
        return if of == part {
            println!("{:?}", live(seed, Without::default(), true).unwrap())
        };
    }
    let (mut counts, mut failures) = (Counts::default(), Vec::new());
    for seed in SEEDS * part / PARTS + 1..=SEEDS * (part + 1) / PARTS {
        match live(seed, Without::default(), false) {
            Ok(it) => counts.add(&it),
            Err(told) => failures.push(told),
        }
    }
    if let Some(first) = failures.first() {
        let last = |it: &String| it.lines().take(1).chain(it.lines().last()).collect::<Vec<_>>().join(" ");
        let told: Vec<String> = failures.iter().take(20).map(last).collect();
        panic!("{first}\n{} seeds failed:\n{}", failures.len(), told.join("\n"));
    }
    println!("{counts:?}");
    let lives = SEEDS / PARTS;
    let often = [counts.reads_on_replicas, counts.reads_on_primary, counts.writes];
    assert!(often.iter().all(|it| *it > lives * 10), "{counts:?}");
    let rare = [
        counts.held,
        counts.unknown,
        counts.retries,
        counts.promotions,
        counts.breakers_opened,
        counts.catch_ups,
    ];
    assert!(rare.iter().all(|it| *it > lives / 10), "{counts:?}");
    let seldom = [counts.refused, counts.lost, counts.floor_misses, counts.stale];
    assert!(seldom.iter().all(|it| *it > 0), "{counts:?}");
}

#[test]
fn seeds_of_the_first_quarter() {
    live_part(0);
}

#[test]
fn seeds_of_the_second_quarter() {
    live_part(1);
}

#[test]
fn seeds_of_the_third_quarter() {
    live_part(2);
}

#[test]
fn seeds_of_the_last_quarter() {
    live_part(3);
}

/// The test of the test: where reads ask for no floor, that is found.
#[test]
fn without_floors_it_finds_what_is_wrong() {
    if chosen().is_some() {
        return;
    }
    let told = (1..=100).filter_map(|it| live(it, Without { floors: true }, false).err());
    let lacking = told.filter(|it| it.contains("lacks")).count();
    assert!(lacking > 50, "{lacking} of 100");
}
