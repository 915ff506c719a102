//! The statement that nearly all are: by itself, of a client that has nothing open, reading or writing rows of one shard. Of
//! what `query` and `extended` do for others it needs the place, the request and the end of the answer.

use std::time::Instant;

use super::group::{Bound, Group, Op};
use super::hotspots::subject_of;
use super::protect::Guard;
use super::request::{Payload, Renewable, Request};
use super::session::{End, Outcome, Session};
use super::sql_prepare::SqlNames;
use crate::base::{Access, Refusal};
use crate::proto::UnitEnd;
use crate::route::{Decision, KeySource, Mode, Planned, Subject};

impl<'a> Group<'a> {
    /// Its only statement, where that is bound, described, executed and synced in one go, and is plain.
    pub fn plain(&self) -> Option<Bound<'_, 'a>> {
        let mut only = None;
        for op in &self.ops {
            match op {
                Op::Bind { bind, statement, plan, sql: sql @ SqlNames::None, .. }
                    if only.is_none() && bind.portal().is_empty() && plan.is_plain() =>
                {
                    only = Some(Bound { bind, statement, plan, sql });
                }
                Op::Parse { .. } | Op::DescribePortal { .. } | Op::Execute { .. } | Op::Sync { .. } => {}
                _ => return None,
            }
        }
        only.filter(|_| self.end == UnitEnd::Sync && !self.goes_on)
    }
}

impl Session {
    /// It has no transaction, no server, and nothing that is heeded between statements.
    pub fn is_plain(&self) -> bool {
        self.held.is_none()
            && self.transaction.is_idle()
            && !self.unsynced
            && self.listening.is_none()
            && self.due.is_empty()
            && self.suspected.is_none()
            && self.others.is_none()
    }

    /// A Query, if that is all: else `None`, and nothing has been done.
    pub fn plain_query<'a>(
        &mut self,
        message: &'a [u8],
        text: &'a str,
        planned: &'a Planned,
        started: Instant,
    ) -> Option<Result<Request<'a>, Refusal>> {
        let plan = &planned.plan;
        if !plan.is_plain() || !self.is_plain() {
            return None;
        }
        let keys = KeySource { text, literals: &planned.literals, params: None };
        let view = self.view();
        let mut decision = match self.decide(plan, &keys, &view) {
            Ok(it) if it.mode != Mode::One => return None,
            Ok(it) => it,
            Err(refusal) => return Some(Err(refusal)),
        };
        self.tell_keys(plan, &keys, &decision);
        if let Err(refusal) = self.touch(plan, &keys, &view, &mut decision) {
            return Some(Err(refusal));
        }
        self.suspect(plan, text);
        let payload = Payload::Query(message);
        let guard = self.guard(plan, &decision, &keys, payload);
        Some(Ok(plain(payload, decision, plan.access, started, &plan.subject, guard)))
    }

    /// As `plain_query`, of a group; its place in the counts is `none` where its statement names no table.
    pub fn plain_group<'a>(
        &mut self,
        group: &'a Group<'a>,
        started: Instant,
        none: &'a Subject,
    ) -> Option<Result<Request<'a>, Refusal>> {
        if !self.is_plain() {
            return None;
        }
        let only = group.plain()?;
        let (mut decision, access) = match self.decide_bound(only, &self.view()) {
            Ok((it, _)) if it.mode != Mode::One => return None,
            Ok(it) => it,
            Err(refusal) => return Some(Err(refusal)),
        };
        if let Err(refusal) = self.touch_group(group, &mut decision) {
            return Some(Err(refusal));
        }
        self.suspect(only.plan, only.statement.text());
        self.named = 0;
        let renewable = Renewable { lost: true, outdated: group.describes_all() };
        let subject = subject_of(std::iter::once(only)).unwrap_or(none);
        let guard = self.guard_group(group, &decision);
        let request = plain(Payload::Group(group), decision, access, started, subject, guard);
        Some(Ok(Request { renewable, ..request }))
    }

    /// Behind the answer.
    pub async fn end_plain(&mut self, access: Access) -> Result<Outcome, End> {
        let wrote = access == Access::Write;
        if !self.settle_at_once(wrote) {
            self.settle(wrote).await;
            self.finish().await?;
        }
        Ok(Outcome::Done)
    }
}

fn plain<'a>(
    payload: Payload<'a>,
    decision: Decision,
    access: Access,
    started: Instant,
    subject: &'a Subject,
    guard: Guard,
) -> Request<'a> {
    let renewable = Renewable::default();
    Request {
        payload,
        decision,
        access,
        started,
        renewable,
        ends_blocks: false,
        subject,
        parted: None,
        guard,
    }
}
