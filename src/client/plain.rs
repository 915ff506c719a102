//! The statement that nearly all are: by itself, of a client that has nothing open, reading or writing rows of one shard. Of
//! what `query` and `extended` do for others it needs the place, the request and the end of the answer.

use std::time::Instant;

use super::group::{Bound, Group, Op};
use super::hotspots::subject_of;
use super::protect::Guard;
use super::request::{Payload, Ran, Renewable, Request};
use super::session::{End, Outcome, Session};
use super::sql_prepare::SqlNames;
use crate::base::Access;
use crate::proto::UnitEnd;
use crate::route::{Decision, KeySource, Mode, Planned, Subject};

impl<'a> Group<'a> {
    /// Its only statement, where that is bound, described, executed and synced in one go, and is plain.
    pub fn plain(&self) -> Option<Bound<'_, 'a>> {
        let mut only = None;
        for op in &self.ops {
            match op {
                Op::Bind { bind, statement, plan, sql: sql @ SqlNames::None, .. }
                    if only.is_none() && bind.portal.is_empty() && plan.is_plain() =>
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
    pub async fn plain_query(
        &mut self,
        message: &[u8],
        text: &str,
        planned: &Planned,
        started: Instant,
    ) -> Result<Option<Outcome>, End> {
        let plan = &planned.plan;
        if !plan.is_plain() || !self.is_plain() {
            return Ok(None);
        }
        let keys = KeySource { text, literals: &planned.literals, params: None };
        let view = self.view();
        let placed = match self.decide(plan, &keys, &view) {
            Ok(it) if it.mode != Mode::One => return Ok(None),
            Ok(mut decision) => {
                self.tell_keys(plan, &keys, &decision);
                self.touch(plan, &keys, &view, &mut decision).map(|()| decision)
            }
            Err(refusal) => Err(refusal),
        };
        let decision = match placed {
            Ok(it) => it,
            Err(refusal) => return self.refuse(refusal).await.map(Some),
        };
        self.suspect(plan, text);
        let payload = Payload::Query(message);
        let guard = self.guard(plan, &decision, &keys, payload);
        let request = plain(payload, decision, plan.access, started, &plan.subject, guard);
        let ran = self.perform(&request).await?;
        self.end_query(&plan.kind, text, ran, plan.access).await.map(Some)
    }

    /// As `plain_query`, of a group.
    pub async fn plain_group(&mut self, group: &Group<'_>, started: Instant) -> Result<Option<Outcome>, End> {
        if !self.is_plain() {
            return Ok(None);
        }
        let Some(only) = group.plain() else { return Ok(None) };
        let placed = match self.decide_bound(only, &self.view()) {
            Ok((it, _)) if it.mode != Mode::One => return Ok(None),
            Ok((mut decision, access)) => self.touch_group(group, &mut decision).map(|()| (decision, access)),
            Err(refusal) => Err(refusal),
        };
        let (decision, access) = match placed {
            Ok(it) => it,
            Err(refusal) => return self.refuse_group(refusal, group.end).await.map(Some),
        };
        self.suspect(only.plan, only.statement.text());
        self.named = 0;
        let renewable = Renewable { lost: true, outdated: group.describes_all() };
        let none = Subject::default();
        let subject = subject_of(std::iter::once(only)).unwrap_or(&none);
        let guard = self.guard_group(group, &decision);
        let request = plain(Payload::Group(group), decision, access, started, subject, guard);
        let request = Request { renewable, ..request };
        match self.perform(&request).await? {
            Ran::Done { failed } => {
                self.name_statements(group, if failed { self.named as usize } else { usize::MAX });
                self.settle(access == Access::Write).await;
                self.finish().await?;
                Ok(Some(Outcome::Done))
            }
            ran => self.end_group(group, ran, access).await.map(Some),
        }
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
