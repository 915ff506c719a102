//! The servers as they are: logs, timelines, who has replayed what, who is down, cut off or paused.

use super::Us;

/// Keys of the one table; a commit has a bit for each that it writes.
pub const KEYS: u64 = 6;

pub struct Timeline {
    /// The timeline that this one forked off, and where.
    parent: Option<(usize, u64)>,
    pub end: u64,
}

/// Where a server is in the log.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub timeline: usize,
    pub lsn: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub state: State,
    pub at: Us,
    pub keys: u64,
    pub session: usize,
    /// Somebody has read it at a level that must not hide it again.
    pub shown: bool,
}

pub struct Server {
    pub alive: bool,
    /// Counts starts: connections are of one of them.
    pub incarnation: u32,
    /// When the connections of the start before had their end.
    pub ended_at: Us,
    pub frozen_until: Us,
    /// From and to Keyway.
    pub link_down_until: Us,
    pub is_standby: bool,
    /// Of the end of the log that it has; what it has replayed may be of an ancestor.
    pub timeline: usize,
    /// What it says its timeline is: the control file learns late.
    pub told_timeline: usize,
    /// Ends of the log that it has, and that it has replayed, in recovery.
    pub received: u64,
    pub replayed: u64,
    /// From which server it streams.
    pub upstream: usize,
    pub stream_down_until: Us,
    pub replay_paused_until: Us,
    /// Bytes that it replays in a tick.
    pub replay_step: u64,
    pub slow_until: Us,
}

pub struct World {
    pub timelines: Vec<Timeline>,
    pub commits: Vec<Commit>,
    pub servers: Vec<Server>,
}

impl World {
    pub fn new(count: usize, replay_steps: impl Fn(usize) -> u64) -> World {
        let server = |at: usize| Server {
            alive: true,
            incarnation: 0,
            ended_at: 0,
            frozen_until: 0,
            link_down_until: 0,
            is_standby: at != 0,
            timeline: 0,
            told_timeline: 0,
            received: 1_000,
            replayed: 1_000,
            upstream: 0,
            stream_down_until: 0,
            replay_paused_until: 0,
            replay_step: replay_steps(at),
            slow_until: 0,
        };
        World {
            timelines: vec![Timeline { parent: None, end: 1_000 }],
            commits: Vec::new(),
            servers: (0..count).map(server).collect(),
        }
    }

    pub fn newest(&self) -> usize {
        self.timelines.len() - 1
    }

    /// Who writes to the newest timeline, whoever else claims to be primary.
    pub fn rightful(&self) -> Option<usize> {
        let newest = self.newest();
        self.servers.iter().position(|it| !it.is_standby && it.timeline == newest)
    }

    /// Up to where `of` and `timeline` have the same log; `None` where `of` is no ancestor.
    fn shared(&self, of: usize, mut timeline: usize) -> Option<u64> {
        let mut limit = u64::MAX;
        while timeline != of {
            let (parent, fork) = self.timelines[timeline].parent?;
            (timeline, limit) = (parent, limit.min(fork));
        }
        Some(limit)
    }

    pub fn has(&self, state: State, commit: &Commit) -> bool {
        let of = commit.state;
        of.lsn <= state.lsn && self.shared(of.timeline, state.timeline).is_some_and(|it| of.lsn <= it)
    }

    /// It is not of the tail that a promotion has lost.
    pub fn survives(&self, commit: &Commit) -> bool {
        self.has(State { timeline: self.newest(), lsn: u64::MAX }, commit)
    }

    /// What a statement sees that begins now.
    pub fn state(&self, server: usize) -> State {
        let it = &self.servers[server];
        if !it.is_standby {
            return State { timeline: it.timeline, lsn: self.timelines[it.timeline].end };
        }
        let (mut timeline, lsn) = (it.timeline, it.replayed);
        while let Some((parent, _)) = self.timelines[timeline].parent.filter(|it| lsn < it.1) {
            timeline = parent;
        }
        State { timeline, lsn }
    }

    /// The last commit of each of `keys` that is there in `state`.
    pub fn seen(&self, state: State, keys: u64, mut found: impl FnMut(u64, usize)) {
        let mut left = keys;
        for (at, commit) in self.commits.iter().enumerate().rev() {
            if left == 0 {
                return;
            }
            if commit.keys & left != 0 && self.has(state, commit) {
                found(commit.keys & left, at);
                left &= !commit.keys;
            }
        }
    }

    /// Log that commits nothing is written too.
    pub fn write(&mut self, server: usize, bytes: u64) {
        let it = &self.servers[server];
        self.timelines[it.timeline].end += bytes;
    }

    pub fn commit(&mut self, server: usize, at: Us, keys: u64, session: usize, bytes: u64) -> usize {
        self.write(server, bytes);
        let state = self.state(server);
        self.commits.push(Commit { state, at, keys, session, shown: false });
        self.commits.len() - 1
    }

    /// One step of streaming and replay. `learns`: its control file is brought up to date.
    pub fn tick(&mut self, server: usize, now: Us, learns: bool) {
        let it = &self.servers[server];
        if !it.is_standby || !it.alive || now < it.frozen_until {
            return;
        }
        if now >= it.stream_down_until {
            self.stream(server, now);
        }
        let it = &mut self.servers[server];
        if now >= it.replay_paused_until {
            it.replayed = it.received.min(it.replayed + it.replay_step);
        }
        if learns {
            it.told_timeline = it.timeline;
        }
    }

    fn stream(&mut self, server: usize, now: Us) {
        let it = &self.servers[server];
        let from = &self.servers[it.upstream];
        if from.is_standby || !from.alive || now < from.frozen_until {
            return;
        }
        let timeline = from.timeline;
        if it.timeline == timeline || self.is_prefix(it.timeline, it.received, timeline) {
            let end = self.timelines[timeline].end;
            let it = &mut self.servers[server];
            (it.timeline, it.received) = (timeline, end);
        }
    }

    fn is_prefix(&self, of: usize, lsn: u64, timeline: usize) -> bool {
        self.shared(of, timeline).is_some_and(|limit| lsn <= limit)
    }

    /// It could stream from the rightful primary.
    pub fn can_follow(&self, server: usize) -> bool {
        let it = &self.servers[server];
        let lsn = if it.is_standby { it.received } else { self.timelines[it.timeline].end };
        self.is_prefix(it.timeline, lsn, self.newest())
    }

    /// It replays what it has, and writes to a timeline of its own. Others stream from where they did.
    pub fn promote(&mut self, server: usize) {
        let it = &self.servers[server];
        let parent = Some((it.timeline, it.received));
        self.timelines.push(Timeline { parent, end: it.received + 100 });
        let newest = self.newest();
        let it = &mut self.servers[server];
        (it.is_standby, it.timeline, it.told_timeline) = (false, newest, newest);
    }

    pub fn kill(&mut self, server: usize, now: Us) {
        let it = &mut self.servers[server];
        if std::mem::take(&mut it.alive) {
            it.ended_at = now;
        }
    }

    /// As what it was. A standby is back where it was at its last restartpoint, `lost` bytes ago.
    pub fn restart(&mut self, server: usize, lost: u64) {
        let it = &mut self.servers[server];
        it.alive = true;
        it.incarnation += 1;
        (it.frozen_until, it.replay_paused_until) = (0, 0);
        it.replayed = it.replayed.saturating_sub(lost);
    }

    /// Anew, as a standby of the rightful primary.
    pub fn rebuild(&mut self, server: usize, lost: u64) {
        let Some(primary) = self.rightful() else { return };
        let (timeline, end) = (self.newest(), self.timelines[self.newest()].end);
        self.restart(server, 0);
        let it = &mut self.servers[server];
        it.is_standby = true;
        (it.timeline, it.told_timeline, it.upstream) = (timeline, timeline, primary);
        (it.received, it.replayed) = (end, end.saturating_sub(lost));
    }
}
