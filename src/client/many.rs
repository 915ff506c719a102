//! One statement on several shards: reads whose rows follow one another, writes of reference tables,
//! and DDL in turn. Connections are taken in the order of the shards, so that two clients that need
//! the same ones cannot wait for each other in a circle.

use std::time::Instant;

use super::abandon::abandon;
use super::relay::{Flow, RelayError, Stop, relay};
use super::request::{Payload, Ran, Request};
use super::session::{End, Held, Session};
use super::timeouts::transaction_time;
use super::waiting::Waited;
use crate::base::{Reason, Refusal, Role, ShardId, SqlState};
use crate::proto::{Expect, Origin, Part, Replies};
use crate::route::{Decision, Mode};
use crate::wire;

/// Servers at work for one statement; dropped half way, each that is not free is closed.
pub(super) type Team = Vec<Held>;

impl Session {
    pub async fn assemble(&mut self, shards: &[ShardId], role: Role) -> Result<Team, Refusal> {
        let mut waited = Waited::default();
        loop {
            let mut team = Team::with_capacity(shards.len());
            let mut missing = None;
            for &shard in shards {
                match self.try_attach_set_up(shard, role, &waited).await {
                    Ok(Ok(held)) => team.push(held),
                    Ok(Err(it)) => {
                        missing = Some((it, shard));
                        break;
                    }
                    Err(refusal) => {
                        self.dismiss(team).await;
                        return Err(refusal);
                    }
                }
            }
            let Some((missing, shard)) = missing else { return Ok(team) };
            // Those that are at hand would be kept from others meanwhile, and a pause waits until nobody has one.
            self.give_back(team).await;
            Box::pin(self.wait_out(missing, shard, &mut waited)).await?;
        }
    }

    /// Servers that nothing of the client's was sent to. Those that the transaction has beside them go on.
    async fn give_back(&mut self, team: Team) {
        let detached = self.cancel.slot().detach().await;
        let now = Instant::now();
        team.into_iter().for_each(|it| it.release(detached, now));
        self.attach_again(detached);
    }

    /// A server with state on it that only this session may meet is closed: of several servers none can be
    /// kept.
    pub async fn dismiss(&mut self, team: Team) {
        // From here on a cancel finds nothing: the client has its answer, and questions are Keyway's own.
        let detached = self.cancel.slot().detach().await;
        let suspicion = self.suspected.take();
        let mut clean = Team::with_capacity(team.len());
        for mut held in team {
            self.record.counts.server_parses.add(held.lease.pipeline.take_parses());
            let found = match &suspicion {
                Some(it) => self.look_at(&mut held, it).await,
                None => Ok(None),
            };
            if let Ok(None) = found {
                clean.push(held);
            }
        }
        let now = Instant::now();
        clean.into_iter().for_each(|it| it.release(detached, now));
    }

    /// A read of several shards is over.
    pub async fn stand_down_or_dismiss(&mut self, team: Team, failed: bool) {
        match self.is_spread() {
            true => self.stand_down(team, failed),
            false => self.dismiss(team).await,
        }
    }

    /// For a read of several shards.
    pub async fn assemble_readers(&mut self, request: &Request<'_>) -> Result<Team, Refusal> {
        let Decision { shards, role, .. } = &request.decision;
        match self.transaction.is_idle() {
            true => {
                let team = self.assemble(shards, *role).await?;
                if *role == Role::Primary {
                    self.hold_each(&team, false).await;
                }
                Ok(team)
            }
            false => {
                let team = self.enlist_team(shards, *role).await?;
                for held in &team {
                    let caught_up = self.catch_up_at(held.server, held.role, held.lease.ready_at).await;
                    if let Err(refusal) = caught_up {
                        self.stand_down(team, false);
                        return Err(refusal);
                    }
                }
                Ok(team)
            }
        }
    }

    /// All at once, answered in the order of the shards: rows of a later shard wait in its socket, so
    /// memory stays bounded however large the result is.
    pub async fn run_scattered(&mut self, request: &Request<'_>) -> Result<Ran, End> {
        let mut team = match self.assemble_readers(request).await {
            Ok(it) => it,
            Err(refusal) => return Ok(Ran::Refused(refusal)),
        };
        let _live: Vec<_> = team.iter().map(|it| self.live(it.shard, it.role, request.access)).collect();
        for held in &mut team {
            if let Err(error) = send(held, request.payload, &[]).await {
                return self.lose_team(team, error).await;
            }
        }
        // Answers are read one after another: a later shard's time has that of those before it.
        let (mut replies, mut errors, sent) = (Replies::default(), 0, Flow::sent_now());
        let count = team.len();
        for index in 0..count {
            let mut flow = sent.share(index, count);
            team[index].lease.pipeline.set_part(Part { ready: false, ..Part::of_rows(index, count) });
            let stopped = self.relay_one(&mut team[index], &mut replies, &mut flow).await;
            if let Err(error) = stopped {
                return self.lose_team(team, error).await;
            }
            errors += flow.errors;
            self.count(request, team[index].shard, team[index].role, &flow, Instant::now());
        }
        self.stand_down_or_dismiss(team, errors > 0).await;
        Ok(Ran::Unready { failed: errors > 0 })
    }

    /// In a transaction on each shard, committed only when every shard has done it.
    pub async fn run_everywhere(&mut self, request: &Request<'_>) -> Result<Ran, End> {
        let mut team = match self.assemble(&request.decision.shards, Role::Primary).await {
            Ok(it) => it,
            Err(refusal) => return Ok(Ran::Refused(refusal)),
        };
        self.hold_each(&team, request.decision.mode == Mode::Everywhere).await;
        let _live: Vec<_> = team.iter().map(|it| self.live(it.shard, it.role, request.access)).collect();
        let begin = self.begin_on_each();
        for held in &mut team {
            if let Err(error) = send(held, request.payload, &[&begin]).await {
                return self.lose_team(team, error).await;
            }
        }
        let (mut replies, mut failed, mut tag) = (Replies::default(), Vec::new(), None);
        let sent = Flow::sent_now();
        // Copies are the same everywhere; parts are added up.
        let sums = request.decision.mode == Mode::OnePhase;
        for index in 0..team.len() {
            let part = match index {
                0 => Part { ready: false, ..Part::UNFINISHED },
                _ => Part { rows: sums, ..Part::SILENT },
            };
            let mut flow = sent.share(index, team.len());
            team[index].lease.pipeline.set_part(part);
            if let Err(error) = self.relay_one(&mut team[index], &mut replies, &mut flow).await {
                return self.lose_team(team, error).await;
            }
            if flow.errors > 0 {
                failed.push(team[index].shard);
            }
            if sums || tag.is_none() {
                tag = Some(if sums { replies.summed_tag() } else { replies.shown_tag() });
            }
            self.count(request, team[index].shard, team[index].role, &flow, Instant::now());
        }
        let mut end = Vec::new();
        wire::command_complete(&mut end, &tag.unwrap_or_default());
        self.end_on_each(team, &failed, &end).await
    }

    /// One shard after the other; the first error ends it, and a warning says how far it came.
    pub async fn run_in_turn(&mut self, request: &Request<'_>) -> Result<Ran, End> {
        let shards = request.decision.shards.clone();
        let count = shards.len();
        let suspicion = self.suspected.clone();
        for (index, &shard) in shards.iter().enumerate() {
            self.suspected = suspicion.clone();
            let mut team = match self.assemble(&[shard], Role::Primary).await {
                Ok(it) => it,
                Err(refusal) => {
                    self.warn_in_turn(&shards, index).await?;
                    return Ok(Ran::Refused(refusal));
                }
            };
            self.hold_each(&team, false).await;
            let (mut replies, mut flow) = (Replies::default(), Flow::sent_now());
            let _live = self.live(shard, Role::Primary, request.access);
            if let Err(error) = send(&mut team[0], request.payload, &[]).await {
                self.warn_in_turn(&shards, index).await?;
                return self.lose_team(team, error).await;
            }
            team[0].lease.pipeline.set_part(Part { ready: false, ..Part::of_turns(index, count) });
            if let Err(error) = self.relay_one(&mut team[0], &mut replies, &mut flow).await {
                self.warn_in_turn(&shards, index).await?;
                return self.lose_team(team, error).await;
            }
            self.count(request, shard, Role::Primary, &flow, Instant::now());
            self.mark_written(&team);
            self.dismiss(team).await;
            if flow.errors > 0 {
                self.warn_in_turn(&shards, index).await?;
                return Ok(Ran::Unready { failed: true });
            }
        }
        Ok(Ran::Unready { failed: false })
    }

    async fn warn_in_turn(&mut self, shards: &[ShardId], failed: usize) -> Result<(), End> {
        let message = format!(
            "statement failed on shard {}; done on: {}; not tried on: {}",
            self.names(&shards[failed..=failed]),
            self.names(&shards[..failed]),
            self.names(&shards[failed + 1..])
        );
        let mut out = Vec::new();
        wire::notice(&mut out, "01000", &message);
        self.stream.write_all(&out).await.map_err(|_| End::Left)
    }

    pub fn names(&self, shards: &[ShardId]) -> String {
        let names = shards.iter().map(|it| self.database.router.shard_name(*it)).collect::<Vec<_>>();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    pub async fn relay_one(
        &mut self,
        held: &mut Held,
        replies: &mut Replies,
        flow: &mut Flow,
    ) -> Result<(), RelayError> {
        if self.overdue.is_none() {
            self.overdue = self.overdue();
        }
        let (stock, overdue) = (&self.shared.stock, &mut self.overdue);
        let stop = relay(&mut self.stream, &mut held.lease, stock, replies, flow, overdue).await?;
        // The first server's word counts, which is the one that the client is shown.
        if self.named == 0 {
            self.named = u32::try_from(replies.named).unwrap_or(u32::MAX);
        }
        match stop {
            Stop::Drained | Stop::Retry | Stop::Renew => Ok(()),
            // COPY FROM STDIN is planned for one server only.
            Stop::CopyIn => Err(RelayError::ServerClosed),
        }
    }

    pub fn mark_written(&mut self, team: &Team) {
        let now = std::time::Instant::now();
        team.iter().for_each(|it| self.mark_floor(it.shard, now));
    }

    pub async fn lose_team(&mut self, team: Team, error: RelayError) -> Result<Ran, End> {
        self.mark_written(&team);
        let lost = cancel_all(team, &error);
        let _closed = self.cancel.slot().detach().await;
        match error {
            RelayError::ClientLeft => Err(End::Left),
            RelayError::TransactionTime => Err(End::Fatal(transaction_time())),
            error => {
                self.lose_written();
                if let Some(server) = lost {
                    if error.is_end() {
                        self.database.failover.doubt(server);
                    }
                    self.database.topology.report_failure(server);
                }
                self.lose_others();
                if self.unpin().is_some() {
                    return Err(End::Fatal(super::session::server_refusal(&error)));
                }
                Ok(Ran::Refused(super::session::server_refusal(&error)))
            }
        }
    }
}

/// The servers are closed with their transactions open.
pub(super) fn cancelled() -> Refusal {
    Refusal::new(Reason::NoServer, SqlState::QUERY_CANCELED, "canceling statement due to user request")
        .detail("a server did not say whether it got the cancel request; no shard keeps the statement")
}

/// Nobody wants the answers that are still on their way.
pub(super) fn cancel_all(team: Team, error: &RelayError) -> Option<crate::base::ServerId> {
    let mut lost = None;
    for held in team.into_iter().filter(|it| !it.lease.pipeline.is_drained()) {
        lost.get_or_insert(held.server);
        abandon(held.lease);
    }
    lost.filter(|_| error.is_servers())
}

async fn send(held: &mut Held, payload: Payload<'_>, before: &[&str]) -> Result<(), RelayError> {
    let mut out = Vec::new();
    for text in before {
        wire::query(&mut out, text);
        held.lease.pipeline.push(Expect::Query(Origin::Keyway));
    }
    let server = &mut *held.lease;
    if let Some(raw) = payload.compose(server, &mut out) {
        out.extend_from_slice(raw);
    }
    server.stream.write_all(&out).await.map_err(RelayError::Server)
}
