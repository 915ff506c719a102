//! BEGIN in front of other statements before one Sync, as drivers send it: answered as a BEGIN by itself is, so that what
//! follows decides the shard, and the transaction can have further ones.

use super::effects::begin_tag;
use super::group::{Group, Op, put_made};
use super::session::{End, Session};
use crate::proto::TransactionMode;
use crate::route::Kind;
use crate::wire;

impl<'a> Group<'a> {
    /// Takes the messages of a BEGIN off that stands in front of others: it runs once, by the unnamed portal.
    fn take_begin(&mut self) -> Option<Group<'a>> {
        let count = self.ops.iter().position(|it| matches!(it, Op::Execute { .. }))? + 1;
        let (first, rest) = self.ops.split_at(count);
        let begins = first.iter().find_map(|it| match it {
            Op::Bind { statement, plan, .. } => {
                Some(statement.id).filter(|_| matches!(plan.kind, Kind::Begin { .. }))
            }
            _ => None,
        })?;
        let belongs = |it: &Op<'_>| match it {
            Op::Parse { statement, .. } | Op::DescribeStatement { statement, .. } => statement.id == begins,
            Op::Bind { bind, statement, .. } => statement.id == begins && bind.portal().is_empty(),
            Op::DescribePortal { portal, .. } => portal.is_empty(),
            Op::Execute { portal, .. } => portal.is_empty(),
            // pgJDBC gives back in front what it has no use for any more.
            Op::CloseStatement { .. } | Op::ClosePortal { .. } => true,
            _ => false,
        };
        let binds = first.iter().filter(|it| matches!(it, Op::Bind { .. })).count();
        let goes_on = !rest.iter().all(|it| matches!(it, Op::Sync { .. } | Op::Flush { .. }));
        if !first.iter().all(belongs) || binds != 1 || !goes_on {
            return None;
        }
        let mut bytes = 0;
        for _ in 0..count {
            bytes += wire::header(self.raw.get(bytes..)?).ok()??.total;
        }
        let (raw, rest) = self.raw.split_at_checked(bytes)?;
        let behind = self.ops.split_off(count);
        let ops = std::mem::replace(&mut self.ops, behind);
        self.raw = rest;
        Some(Group { ops, raw, end: self.end, ends_early: false, goes_on: false })
    }
}

impl Session {
    /// What of `group` is left behind a BEGIN in front of it, which is answered and waits for that as by itself.
    pub async fn begin_in_front(&mut self, group: &mut Group<'_>) -> Result<(), End> {
        if !self.has_shards() || self.held.is_some() || self.unsynced || !self.transaction.is_idle() {
            return Ok(());
        }
        let Some(begin) = group.take_begin() else { return Ok(()) };
        for it in begin.bound() {
            if let Kind::Begin { read_only, isolation } = it.plan.kind {
                let text = it.statement.text();
                let mut out = Vec::new();
                self.transaction.defer(text, TransactionMode { read_only, isolation }, true);
                put_made(&begin, &[], begin_tag(text), &[], &mut out);
                self.stream.write_all(&out).await.map_err(|_| End::Left)?;
            }
        }
        self.name_statements(&begin, usize::MAX);
        Ok(())
    }
}
