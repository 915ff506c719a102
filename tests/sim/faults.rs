//! What befalls servers and links, and the operator who promotes, rebuilds and switches over.

use super::{MS, Note, QUIET_AT, Sim, Us, What};

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Kill {
        server: usize,
        for_us: Us,
    },
    Restart {
        server: usize,
    },
    Freeze {
        server: usize,
        for_us: Us,
    },
    Partition {
        server: usize,
        for_us: Us,
    },
    PauseReplay {
        server: usize,
        for_us: Us,
    },
    StallStream {
        server: usize,
        for_us: Us,
    },
    Slow {
        server: usize,
        for_us: Us,
    },
    /// An administrator ends all connections.
    Terminate {
        server: usize,
    },
    Reload {
        max_lag: Us,
    },
    /// Something happens to the primary, and a standby is promoted before it is back.
    FailOver {
        manner: u64,
        after_us: Us,
    },
    Promote {
        old: usize,
    },
    /// A server that was replaced becomes a standby.
    Rebuild {
        server: usize,
    },
    /// Standbys are told of the new primary.
    Repoint {
        server: usize,
    },
    SwitchOver,
    /// The next step of one.
    SwitchStep {
        old: usize,
    },
    /// No more faults; what is broken is repaired.
    Quiet,
}

impl Sim {
    pub fn plan_faults(&mut self) {
        self.at(QUIET_AT, What::Fault(Fault::Quiet));
        if self.is_planned {
            let at = self.dice.within(700 * MS, 1_200 * MS);
            return self.at(at, What::Fault(Fault::SwitchOver));
        }
        for _ in 0..self.dice.within(2, 7) {
            let at = self.dice.within(200 * MS, QUIET_AT);
            let fault = self.any_fault();
            self.at(at, What::Fault(fault));
        }
    }

    fn any_fault(&mut self) -> Fault {
        let server = self.dice.below(self.world.servers.len() as u64) as usize;
        let for_us = self.dice.within(5 * MS, 900 * MS);
        match self.dice.below(14) {
            0 => Fault::Kill { server, for_us },
            1 => Fault::Freeze { server, for_us },
            2 | 3 => Fault::Partition { server, for_us },
            4 | 5 => Fault::PauseReplay { server, for_us },
            6 => Fault::StallStream { server, for_us },
            7 => Fault::Slow { server, for_us },
            8 => Fault::Terminate { server },
            9 => Fault::Reload { max_lag: self.dice.within(2, 9) * 100 * MS },
            10 => Fault::SwitchOver,
            _ => {
                let manner = self.dice.below(4);
                Fault::FailOver { manner, after_us: self.dice.within(5 * MS, 500 * MS) }
            }
        }
    }

    pub fn befall(&mut self, fault: Fault) {
        self.note(Note::Fault(fault));
        let now = self.now;
        let later = |it: &mut Us, for_us: Us| *it = (*it).max(now + for_us);
        let servers = &mut self.world.servers;
        match fault {
            Fault::Kill { server, for_us } => {
                self.kill(server);
                self.after(for_us, What::Fault(Fault::Restart { server }));
            }
            Fault::Restart { server } => {
                if !self.world.servers[server].alive {
                    let lost = self.dice.below(3_000);
                    self.world.restart(server, lost);
                }
            }
            Fault::Freeze { server, for_us } => later(&mut servers[server].frozen_until, for_us),
            Fault::Partition { server, for_us } => later(&mut servers[server].link_down_until, for_us),
            Fault::PauseReplay { server, for_us } => later(&mut servers[server].replay_paused_until, for_us),
            Fault::StallStream { server, for_us } => later(&mut servers[server].stream_down_until, for_us),
            Fault::Slow { server, for_us } => later(&mut servers[server].slow_until, for_us),
            Fault::Terminate { server } => self.terminate(server),
            Fault::Reload { max_lag } => self.reload(max_lag),
            Fault::FailOver { manner, after_us } => self.fail_over(manner, after_us),
            Fault::Promote { old } => self.promote(old),
            Fault::Rebuild { server } => self.rebuild(server),
            Fault::Repoint { server } => {
                if let Some(primary) = self.world.rightful() {
                    self.world.servers[server].upstream = primary;
                }
            }
            Fault::SwitchOver => self.switch_over(),
            Fault::SwitchStep { old } => self.switch_step(old),
            Fault::Quiet => self.repair(),
        }
    }

    fn kill(&mut self, server: usize) {
        self.world.kill(server, self.now);
        self.connections_end(server);
    }

    /// Those that are in use learn of it; what is idle tells when it is looked at.
    fn terminate(&mut self, server: usize) {
        if self.world.servers[server].alive {
            // Statements are undone, connections are of another start; the log stays.
            let it = &mut self.world.servers[server];
            (it.incarnation, it.ended_at) = (it.incarnation + 1, self.now);
            self.connections_end(server);
        }
    }

    fn fail_over(&mut self, manner: u64, after_us: Us) {
        let Some(old) = self.world.rightful() else { return };
        let back_us = after_us + self.dice.within(20 * MS, 700 * MS);
        let fault = match manner {
            0 | 1 => Fault::Kill { server: old, for_us: back_us },
            2 => Fault::Freeze { server: old, for_us: back_us },
            _ => Fault::Partition { server: old, for_us: back_us },
        };
        self.befall(fault);
        self.after(after_us, What::Fault(Fault::Promote { old }));
        let rebuilt_us = back_us + self.dice.within(20 * MS, 800 * MS);
        self.after(rebuilt_us, What::Fault(Fault::Rebuild { server: old }));
    }

    fn promote(&mut self, old: usize) {
        if self.quiet || self.world.rightful().is_some_and(|it| it != old) {
            return;
        }
        let now = self.now;
        let can = |it: &usize| {
            let server = &self.world.servers[*it];
            let is_up = server.is_standby && server.alive && now >= server.frozen_until;
            // Nobody brings back what an earlier promotion has lost.
            *it != old && is_up && self.world.can_follow(*it)
        };
        let standbys: Vec<usize> = (0..self.world.servers.len()).filter(can).collect();
        if standbys.is_empty() {
            return;
        }
        let chosen = standbys[self.dice.below(standbys.len() as u64) as usize];
        self.world.promote(chosen);
        self.clients.counts.promotions += 1;
        for server in standbys.into_iter().filter(|it| *it != chosen) {
            let delay = self.dice.below(300 * MS);
            self.after(delay, What::Fault(Fault::Repoint { server }));
        }
    }

    fn rebuild(&mut self, server: usize) {
        let Some(primary) = self.world.rightful().filter(|it| *it != server) else { return };
        if self.world.can_follow(server) && self.world.servers[server].is_standby {
            self.world.servers[server].upstream = primary;
            return;
        }
        self.kill(server);
        let lost = self.dice.below(2_000);
        self.world.rebuild(server, lost);
    }

    /// As docs/replicas.md, "Switching over".
    fn switch_over(&mut self) {
        let Some(old) = self.world.rightful() else { return };
        self.clients.is_paused = true;
        self.befall(Fault::SwitchStep { old });
    }

    fn switch_step(&mut self, old: usize) {
        if self.quiet {
            self.clients.is_paused = false;
            return;
        }
        if self.clients.are_at_work() {
            return self.after(5 * MS, What::Fault(Fault::SwitchStep { old }));
        }
        if self.world.servers[old].alive && self.world.rightful() == Some(old) {
            // It ends when its standbys have been sent everything.
            let now = self.now;
            for server in (0..self.world.servers.len()).filter(|it| *it != old) {
                self.world.tick(server, now, true);
            }
            let end = self.world.state(old).lsn;
            let is_whole = |it: &&super::world::Server| it.is_standby && it.alive && it.received >= end;
            if now < self.world.servers[old].frozen_until
                || !self.world.servers.iter().any(|it| is_whole(&it))
            {
                return self.after(5 * MS, What::Fault(Fault::SwitchStep { old }));
            }
            self.kill(old);
            return self.after(30 * MS, What::Fault(Fault::SwitchStep { old }));
        }
        self.promote_most(old);
        self.clients.is_paused = false;
        let delay = self.dice.within(10 * MS, 400 * MS);
        self.after(delay, What::Fault(Fault::Rebuild { server: old }));
    }

    fn promote_most(&mut self, old: usize) {
        if !self.quiet && self.world.rightful().is_none_or(|it| it == old) {
            let now = self.now;
            let most = (0..self.world.servers.len())
                .filter(|it| {
                    let server = &self.world.servers[*it];
                    let is_up = server.is_standby && server.alive && now >= server.frozen_until;
                    *it != old && is_up && self.world.can_follow(*it)
                })
                .max_by_key(|it| self.world.servers[*it].received);
            let Some(chosen) = most else { return };
            self.world.promote(chosen);
            self.clients.counts.promotions += 1;
            (0..self.world.servers.len()).for_each(|it| self.befall(Fault::Repoint { server: it }));
        }
    }

    fn repair(&mut self) {
        self.quiet = true;
        let clients = &mut self.clients;
        (clients.is_paused, clients.reads_since, clients.writes_since) = (false, 0, 0);
        clients.sessions.iter_mut().for_each(|it| it.has_done = false);
        let now = self.now;
        for server in 0..self.world.servers.len() {
            let it = &mut self.world.servers[server];
            for until in [
                &mut it.frozen_until,
                &mut it.link_down_until,
                &mut it.stream_down_until,
                &mut it.replay_paused_until,
                &mut it.slow_until,
            ] {
                *until = (*until).min(now);
            }
            it.replay_step = it.replay_step.max(1_500);
            if !it.alive {
                self.world.restart(server, 0);
            }
        }
        for server in 0..self.world.servers.len() {
            self.rebuild(server);
        }
    }
}
