//! The function call sub-protocol: a function by its oid, as libpq's large objects use it. An oid tells
//! nothing of what the function reads, so the call goes where the transaction is, or to the only shard.

use std::time::Instant;

use super::effects::aborted;
use super::protect::Guard;
use super::request::{Payload, Ran, Renewable, Request};
use super::session::{End, Outcome, Session};
use crate::base::{Access, Reason, Refusal, Role, ShardId};
use crate::proto::Bond;
use crate::route::{Decision, KeySet, Kind, Mode, Subject, Why};

impl Session {
    pub async fn call_function(&mut self, message: &[u8]) -> Result<Outcome, End> {
        if self.transaction.is_refused() {
            return self.refuse(aborted()).await;
        }
        let Some(decision) = self.where_to_call() else {
            return self
                .refuse(Refusal::unsupported(
                    Reason::Unsupported,
                    "a function call by oid cannot be routed to a shard",
                    "call the function with SELECT, or in a transaction behind a statement that names a shard key",
                ))
                .await;
        };
        // As of a SELECT of a function that Keyway does not know.
        self.suspect_function();
        self.touch_unknown();
        self.committing = false;
        self.unsynced = false;
        let started = Instant::now();
        let payload = Payload::Query(message);
        let (access, renewable, ends_blocks) = (Access::Write, Renewable::default(), false);
        let (subject, parted, guard) = (&Subject::default(), None, Guard::None);
        let shard = decision.shards[0];
        let request =
            Request { payload, decision, access, started, renewable, ends_blocks, subject, parted, guard };
        let ran = self.perform(&request).await?;
        if !self.transaction.is_idle() && !matches!(ran, Ran::Refused(_)) {
            self.transaction.write_on(shard);
            self.transaction.hide_settings(shard);
            self.transaction.bind(Bond::Bound);
        }
        self.end_query(&Kind::Statement, "", ran, Access::Write).await
    }

    fn where_to_call(&self) -> Option<Decision> {
        // A transaction that has read nothing of a shard yet is on any of them.
        if self.held.is_some() && (!self.is_movable() || self.floors.len() == 1) {
            return Some(self.decision_on(self.home_of_end()));
        }
        let only = [ShardId(0)].into_iter().collect();
        (self.floors.len() == 1).then_some(Decision {
            shards: only,
            role: Role::Primary,
            mode: Mode::One,
            keys: KeySet::new(),
            why: Why::Anywhere,
        })
    }
}
