//! What a session tells of its statements for the counts of hot shards and keys.

use std::time::Instant;

use super::group::Bound;
use super::observed::Spent;
use super::relay::Flow;
use super::session::Session;
use crate::base::{Access, Role, ShardId};
use crate::hotspot::{Call, Load};
use crate::route::{Decision, KeyRef, KeySource, Plan, Subject};

/// What is counted of a request, whoever answers it.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a> {
    pub subject: &'a Subject,
    pub access: Access,
    pub shards: &'a [ShardId],
    pub keys: &'a [KeyRef],
    pub started: Instant,
}

impl Session {
    /// At the end of what one shard has answered, which is `now`: for metrics and for hot shards and keys.
    pub fn count_done(
        &self,
        of: &Counted<'_>,
        shard: ShardId,
        role: Role,
        flow: &Flow,
        now: Instant,
    ) -> Spent {
        let took = now.saturating_duration_since(of.started);
        if let Some(it) = self.database.metrics.target(shard, role, of.access) {
            it.done(took, flow.errors, flow.sent_bytes);
        }
        // Nearly always it went out as good as when it came.
        let sent_at = flow.sent_at.filter(|it| *it != of.started);
        let time = sent_at.map_or(took, |it| now.saturating_duration_since(it));
        self.database.hotspots.count(&Call {
            shard,
            role,
            access: of.access,
            shards: of.shards.len(),
            first: of.shards.first().is_none_or(|it| *it == shard),
            keys: of.keys,
            subject: of.subject,
            load: Load {
                calls: 1,
                rows: flow.rows,
                bytes: flow.sent_bytes,
                time_us: time.as_micros() as u64,
                errors: flow.errors,
            },
        });
        Spent { took_us: took.as_micros() as u64, server_us: time.as_micros() as u64 }
    }

    /// Values of keys, where some are wanted: nearly always none are.
    pub fn tell_keys(&self, plan: &Plan, keys: &KeySource<'_>, decision: &Decision) {
        let hotspots = &self.database.hotspots;
        if !hotspots.is_curious() || !hotspots.wants(&decision.keys) {
            return;
        }
        for it in self.database.router.key_values(plan, keys, &self.view()) {
            hotspots.tell(it);
        }
        // What it could not tell, of a hint or too long, is not asked for again before the next report.
        hotspots.want_no_more(&decision.keys);
    }
}

/// What a group is counted under: its first statement that names a table.
pub(super) fn subject_of<'g, 'a: 'g>(bound: impl Iterator<Item = Bound<'g, 'a>>) -> Option<&'g Subject> {
    bound.map(|it| &it.plan.subject).find(|it| it.table.is_some())
}
