//! Transactions on several shards at once that end one after the other. What fails before the first COMMIT
//! leaves nothing anywhere; what fails behind it is told with the shards that have the write and those that do not.

use super::attach::{SetUpError, run_own};
use super::many::{Team, cancelled};
use super::relay::Flow;
use super::request::Ran;
use super::session::{End, Held, Session};
use crate::base::{Reason, Refusal, ShardId, SqlState};
use crate::cancel::Detached;
use crate::proto::{Expect, Origin, Part, Replies};
use crate::wire;

impl Session {
    /// Begins a transaction on one of several shards. No server can see two that wait for each other on
    /// different shards, so that a wait for a lock has an end.
    pub fn begin_on_each(&self) -> String {
        match self.database.cross_shard_lock_timeout {
            Some(it) => format!(
                "BEGIN; SELECT pg_catalog.set_config('lock_timeout', '{}ms', true) \
                 WHERE pg_catalog.current_setting('lock_timeout') = '0'",
                it.as_millis()
            ),
            None => "BEGIN".to_owned(),
        }
    }

    /// Commits on each, or, where some have failed, which the client knows, on none. `end` is what it gets then.
    pub async fn end_on_each(&mut self, mut team: Team, failed: &[ShardId], end: &[u8]) -> Result<Ran, End> {
        if !failed.is_empty() {
            self.roll_back_each(&mut team).await;
            self.dismiss(team).await;
            let message = format!("statement failed on shard {}; no shard keeps it", self.names(failed));
            let mut out = Vec::new();
            wire::notice(&mut out, "01000", &message);
            self.stream.write_all(&out).await.map_err(|_| End::Left)?;
            return Ok(Ran::Unready { failed: true });
        }
        // No cancel may come from here on: one that hit the COMMIT of a single shard would part it from the
        // others.
        if self.cancel.slot().detach().await == Detached::Doubtful {
            drop(team);
            return Ok(Ran::Refused(cancelled()));
        }
        // What a server objects to at its COMMIT, a deferred constraint, is the answer as long as none has one.
        let mut flow = Flow::default();
        if let Some(first) = team.first_mut() {
            let mut out = Vec::new();
            wire::query(&mut out, "COMMIT");
            first.lease.pipeline.set_part(Part::SILENT);
            first.lease.pipeline.push(Expect::Query(Origin::Keyway));
            let sent = first.lease.stream.write_all(&out).await.is_ok();
            let relayed = self.relay_one(first, &mut Replies::default(), &mut flow).await;
            if !sent || relayed.is_err() {
                return self.leave_half_committed(team, 0, None).await;
            }
        }
        if flow.errors > 0 {
            self.roll_back_each(&mut team[1..]).await;
            self.dismiss(team).await;
            return Ok(Ran::Unready { failed: true });
        }
        for done in 1..team.len() {
            if let Err(error) = run_own(&mut team[done].lease, "COMMIT", Origin::Keyway).await {
                return self.leave_half_committed(team, done, Some(error)).await;
            }
        }
        self.mark_written(&team);
        self.hear_each(&team).await;
        self.dismiss(team).await;
        self.stream.write_all(end).await.map_err(|_| End::Left)?;
        Ok(Ran::Unready { failed: false })
    }

    /// One that cannot be told so is closed, which has the same effect.
    pub async fn roll_back_each(&mut self, team: &mut [Held]) {
        for held in team.iter_mut().filter(|it| it.lease.pipeline.is_drained()) {
            let _ = run_own(&mut held.lease, "ROLLBACK", Origin::Keyway).await;
        }
    }

    /// The connections are closed: those that have not committed roll back.
    async fn leave_half_committed(
        &mut self,
        team: Team,
        failed: usize,
        error: Option<SetUpError>,
    ) -> Result<Ran, End> {
        let refusal = self.half_committed(&team, failed, error);
        self.lose_written();
        self.mark_written(&team);
        drop(team);
        Ok(Ran::Refused(refusal))
    }

    fn half_committed(&self, team: &Team, failed: usize, error: Option<SetUpError>) -> Refusal {
        let names = |of: &[Held]| self.names(&of.iter().map(|it| it.shard).collect::<Vec<_>>());
        let (committed, one, rest) = (&team[..failed], &team[failed..=failed], &team[failed + 1..]);
        let detail = match error {
            Some(SetUpError::Refused(it)) => format!(
                "committed on: {}; not committed on: {} ({}); not committed on: {}",
                names(committed),
                names(one),
                it.message(),
                names(rest)
            ),
            _ => format!(
                "committed on: {}; unknown on: {}; not committed on: {}",
                names(committed),
                names(one),
                names(rest)
            ),
        };
        Refusal::new(
            Reason::NoServer,
            SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            "a write was not committed on every shard",
        )
        .detail(detail)
        .hint("look at the table on these shards, and repeat the write where it is missing")
    }
}
