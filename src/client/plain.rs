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
use crate::route::{Decision, KeySource, Mode, Planned, Subject};

/// A group as drivers send it for one statement: `[Parse] Bind [Describe] Execute Sync`, in this order. What is to be known of
/// it is seen at its first messages, without a look at each.
pub(super) struct Straight<'g, 'a> {
    pub parses: bool,
    pub only: Bound<'g, 'a>,
    pub describes: bool,
}

impl<'a> Group<'a> {
    #[inline]
    pub fn straight(&self) -> Option<Straight<'_, 'a>> {
        let (parses, rest) = match &self.ops[..] {
            [Op::Parse { .. }, rest @ ..] => (true, rest),
            all => (false, all),
        };
        let [Op::Bind { bind, statement, plan, sql }, rest @ ..] = rest else { return None };
        let describes = match rest {
            [Op::DescribePortal { .. }, Op::Execute { .. }, Op::Sync { .. }] => true,
            [Op::Execute { .. }, Op::Sync { .. }] => false,
            _ => return None,
        };
        Some(Straight { parses, only: Bound { bind, statement, plan, sql }, describes })
    }

    /// As `straight`, of a statement that is plain.
    pub fn plain(&self) -> Option<Straight<'_, 'a>> {
        let plain = |it: &Straight<'_, '_>| {
            let Bound { bind, plan, sql, .. } = it.only;
            matches!(sql, SqlNames::None) && bind.portal().is_empty() && plan.is_plain()
        };
        self.straight().filter(|it| plain(it) && !self.goes_on)
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
        let Straight { only, describes, .. } = group.plain()?;
        let (mut decision, access) = match self.decide_bound(only, &self.view()) {
            Ok((it, _)) if it.mode != Mode::One => return None,
            Ok(it) => it,
            Err(refusal) => return Some(Err(refusal)),
        };
        if let Err(refusal) = self.touch_group(std::iter::once(only), &mut decision) {
            return Some(Err(refusal));
        }
        self.suspect(only.plan, only.statement.text());
        self.named = 0;
        let renewable = Renewable { lost: true, outdated: describes };
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

#[cfg(test)]
mod tests {
    use super::super::statements::Registry;
    use super::*;
    use crate::config::Config;
    use crate::proto::UnitEnd;
    use crate::route::Router;
    use crate::sql::Parser;
    use crate::wire::Bind;

    /// Of an unnamed portal and statement, without values: what its letter says.
    fn group(letters: &str) -> Group<'static> {
        const BIND: &[u8] = b"B\0\0\0\x0c\0\0\0\0\0\0\0\0";
        let text = "[users.app]\npassword = \"x\"\n[databases.shop]\nservers = [\"127.0.0.1\"]\n";
        let config = Config::parse(text, std::path::Path::new("."), &|_| None).unwrap();
        let router = Router::new(&config.databases[0], 16, std::sync::Arc::new(Parser::new()));
        let statement = Registry::default().unnamed("SELECT 1", &[], router.plan("SELECT 1"));
        let plan = statement.plan(&router);
        let (statement, plan) = (|| statement.clone(), || plan.clone());
        let op = |letter| match letter {
            'P' => Op::Parse { name: b"", statement: statement(), raw: b"" },
            'B' => {
                let bind = Bind::read(BIND).unwrap();
                Op::Bind { bind, statement: statement(), plan: plan(), sql: SqlNames::None }
            }
            'S' => Op::DescribeStatement { statement: statement(), sql: SqlNames::None },
            'D' => Op::DescribePortal { portal: b"", raw: b"" },
            'E' => Op::Execute { rows_max: 0, portal: b"", raw: b"" },
            'C' => Op::ClosePortal { portal: b"", raw: b"" },
            '.' => Op::Sync { raw: b"" },
            _ => Op::Flush { raw: b"" },
        };
        let end = if letters.ends_with('.') { UnitEnd::Sync } else { UnitEnd::Flush };
        Group { ops: letters.chars().map(op).collect(), raw: b"", end, ends_early: false, goes_on: false }
    }

    #[test]
    fn a_straight_group_is_what_its_messages_say() {
        for letters in ["PBDE.", "PBE.", "BDE.", "BE."] {
            let group = group(letters);
            let it = group.straight().unwrap();
            let of = |letter| letters.contains(letter);
            assert_eq!((it.parses, it.describes), (of('P'), of('D')), "{letters}");
            assert_eq!(group.bound().count(), 1);
            assert!(std::ptr::eq(it.only.bind, group.bound().next().unwrap().bind), "{letters}");
            assert_eq!(it.describes, group.describes_all(), "{letters}");
            assert!(group.plain().is_some(), "{letters}");
        }
        for letters in
            ["", ".", "P.", "PS.", "PBD.", "PBDE,", "PBDEC.", "PBEBE.", "PBED.", "PPBE.", "SBE.", "CBE."]
        {
            assert!(group(letters).straight().is_none(), "{letters}");
        }
        let behind_others = Group { goes_on: true, ..group("BE.") };
        assert!(behind_others.straight().is_some() && behind_others.plain().is_none());
    }
}
