//! The extended protocol: Parse, Bind, Describe, Execute and Close up to Sync or Flush are one group,
//! which goes to one place.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::cursors::{CursorFormats, CursorPlace, Declaring, not_alone};
use super::deallocate;
use super::effects::Answer;
use super::enlisted::PortalHome;
use super::group::{Bound, Group, Op, put_made, recycled};
use super::hotspots::subject_of;
use super::query::{malformed, not_utf8};
use super::request::{Parted, Payload, Ran, Renewable, Request};
use super::session::{End, Outcome, Session};
use super::sql_prepare::SqlNames;
use super::statements::Statement;
use crate::base::{Access, Reason, Refusal, Role, ShardId, SqlState};
use crate::proto::UnitEnd;
use crate::route::{
    Decision, KEYS_COUNTED_MAX, KeySource, Kind, Mode, Params, Plan, SessionView, SettingMade, Subject, Why,
};
use crate::wire::{self, Bind, FrontendTag, Target, TxStatus};

impl Session {
    pub async fn extended(&mut self, unit: &[u8], end: UnitEnd) -> Result<Outcome, End> {
        if self.skipping {
            if end == UnitEnd::Sync {
                self.skipping = false;
                self.say_ready().await?;
            }
            return Ok(Outcome::Done);
        }
        let started = Instant::now();
        self.count_request(started, unit.len());
        let mut group = match self.read_group(unit, end)? {
            Ok(it) => it,
            Err(refusal) => return self.refuse_group(refusal, end).await,
        };
        let outcome = self.run_group(&mut group, end, started).await;
        self.at_work().ops = recycled(group.ops);
        outcome
    }

    async fn run_group(
        &mut self,
        group: &mut Group<'_>,
        end: UnitEnd,
        started: Instant,
    ) -> Result<Outcome, End> {
        self.count_messages(group);
        let none = Subject::default();
        let request = match self.plain_group(group, started, &none) {
            Some(Ok(request)) => request,
            Some(Err(refusal)) => return self.refuse_group(refusal, end).await,
            None => return self.run_any_group(group, started).await,
        };
        let access = request.access;
        match self.perform(&request).await? {
            Ran::Done { failed } => {
                self.name_statements(group, if failed { self.named as usize } else { usize::MAX });
                self.end_plain(access).await
            }
            ran => self.end_group(group, ran, access).await,
        }
    }

    async fn run_any_group(&mut self, group: &mut Group<'_>, started: Instant) -> Result<Outcome, End> {
        let end = group.end;
        self.begin_in_front(group).await?;
        group.ends_early = end == UnitEnd::Flush && !self.unsynced && group.only_prepares();
        if let Some(outcome) = self.answer_group(group).await? {
            return Ok(outcome);
        }
        if self.others.cursors().is_some()
            && let Some(outcome) = Box::pin(self.group_of_cursors(group)).await?
        {
            return Ok(outcome);
        }
        let (decision, access) = match self.place_group(group) {
            Ok(it) => it,
            Err(refusal) => return self.refuse_group(refusal, end).await,
        };
        let made = match self.settings_of_group(group) {
            Ok(it) => it,
            Err(refusal) => return self.refuse_group(refusal, end).await,
        };
        if let Some(refusal) = self.refuse_dropping(group) {
            return self.refuse_group(refusal, end).await;
        }
        let lent = match self.prepare_channels_of_group(group, &decision).await {
            Ok(it) => it,
            Err(refusal) => return self.refuse_group(refusal, end).await,
        };
        for it in group.bound() {
            self.suspect_bound(it);
        }
        let ends_blocks = group.plans().any(|it| it.kind.is_transaction_control());
        let alone = group.is_synced() && !group.goes_on && group.bound().count() == 1;
        self.begin_commit(group.plans().map(|it| &it.kind), alone);
        let alone = group.is_synced() && self.transaction.is_idle() && !self.unsynced;
        let renewable = Renewable { lost: alone, outdated: alone && group.describes_all() };
        let parted = match self.parted_group(group, &decision) {
            Ok(it) => it,
            Err(refusal) => return self.refuse_group(refusal, end).await,
        };
        // Held until Sync, whatever the server says in between. Flush by itself begins nothing, and a portal of
        // several shards leaves nothing unfinished on them.
        let is_open = end != UnitEnd::Sync
            && !group.ends_early
            && parted.as_ref().is_none_or(|it| it.declaring.is_none());
        self.unsynced = is_open && (self.unsynced || group.asks());
        self.named = 0;
        let payload = Payload::Group(group);
        let none = Subject::default();
        let subject = subject_of(group.bound()).unwrap_or(&none);
        let guard = self.guard_group(group, &decision);
        let request =
            Request { payload, decision, access, started, renewable, ends_blocks, subject, parted, guard };
        let ran = self.perform(&request).await?;
        self.take_back_channels(lent).await;
        self.committing = false;
        self.bind_to_group(group, &request.decision);
        if !ran.has_failed() && group.executes() {
            self.take_settings(&made);
        }
        self.end_group(group, ran, access).await
    }

    /// What is about cursors and portals of several shards.
    async fn group_of_cursors(&mut self, group: &Group<'_>) -> Result<Option<Outcome>, End> {
        self.named = 0;
        if let Some(outcome) = self.group_portal(group).await? {
            return Ok(Some(outcome));
        }
        if let Err(refusal) = self.close_leading_portals(group).await? {
            return self.refuse_group(refusal, group.end).await.map(Some);
        }
        self.group_cursor(group).await
    }

    fn count_messages(&self, group: &Group<'_>) {
        let (parses, binds) = match group.straight() {
            Some(it) => (u64::from(it.parses), 1),
            None => {
                let count = |of: fn(&Op<'_>) -> bool| group.ops.iter().filter(|it| of(it)).count() as u64;
                (count(|it| matches!(it, Op::Parse { .. })), count(|it| matches!(it, Op::Bind { .. })))
            }
        };
        self.record.counts.parses.add(parses);
        self.record.counts.binds.add(binds);
    }

    pub async fn end_group(&mut self, group: &Group<'_>, ran: Ran, access: Access) -> Result<Outcome, End> {
        // Where no Sync is answered yet, the one that is will not know of the write.
        self.wrote |= access == Access::Write && (self.unsynced || matches!(ran, Ran::CopyIn));
        let (failed, unready) = match ran {
            Ran::Done { failed } => (failed, false),
            Ran::Unready { failed } => (failed, true),
            Ran::CopyIn => {
                // The Sync sent along with Execute is not answered; the one behind CopyDone is.
                self.unsynced = true;
                self.name_statements(group, usize::MAX);
                return Ok(Outcome::CopyIn);
            }
            Ran::Refused(refusal) => return self.refuse_group(refusal, group.end).await,
        };
        let mixes = self.floors.len() > 1 && group.mixes();
        if mixes {
            self.transaction.forget_beginning();
        }
        self.name_statements(group, if failed { self.named as usize } else { usize::MAX });
        if !failed && group.executes() {
            let dropped = group.has_deallocate_all();
            for it in group.bound().filter(|it| !(dropped && it.plan.kind == Kind::DeallocateAll)) {
                self.take_effect(&it.plan.kind, it.statement.text());
            }
            if mixes {
                // A BEGIN among them kept its own text alone.
                self.transaction.forget_beginning();
            }
            if self.is_spread()
                && let Err(refusal) = Box::pin(self.tell_others()).await
            {
                return self.refuse_group(refusal, group.end).await;
            }
        } else if failed && (group.ends_early || unready && !group.is_synced()) {
            // The server is past its error, the client is not before its Sync.
            self.skipping = true;
        }
        if unready {
            if group.is_synced() {
                self.say_ready().await?;
            }
        } else if !self.unsynced {
            self.settle(access == Access::Write).await;
            self.finish().await?;
        }
        Ok(Outcome::Done)
    }

    /// Takes note of the first `count` Parses, Closes and DEALLOCATEs, which is what was done before an error: drivers
    /// send Parse, Bind and Execute at once and do not send a Parse again that has succeeded.
    pub fn name_statements(&mut self, group: &Group<'_>, count: usize) {
        self.name_each(group, count);
        self.record.set_statements(self.names.len());
    }

    fn name_each(&mut self, group: &Group<'_>, count: usize) {
        let naming = |it: &&Op<'_>| {
            matches!(
                it,
                Op::Parse { .. }
                    | Op::CloseStatement { .. }
                    | Op::ClosePortal { .. }
                    | Op::Deallocate { .. }
                    | Op::Prepare { .. }
            )
        };
        // Behind the Parse of a straight group nothing names anything.
        let names_end = group.straight().map_or(group.ops.len(), |it| usize::from(it.parses));
        for op in group.ops[..names_end].iter().filter(naming).take(count) {
            match op {
                Op::Parse { name, statement, .. } => self.names.insert(name, statement),
                Op::CloseStatement { name, .. } => {
                    self.names.remove(name);
                }
                Op::Deallocate { plan, .. } => deallocate::drop_names(&plan.kind, &mut self.names),
                Op::Prepare { name, statement, .. } => {
                    statement.mark_taken();
                    self.names.insert(name.as_bytes(), statement);
                }
                _ => {}
            }
        }
    }

    /// An error of ours: the server, if it has part of this pipeline, must not commit it at Sync.
    pub async fn refuse_group(&mut self, refusal: Refusal, end: UnitEnd) -> Result<Outcome, End> {
        let mut out = Vec::new();
        self.abandon_unsynced().await;
        self.put_refusal(&mut out, &refusal);
        if end == UnitEnd::Sync {
            self.put_ready(&mut out);
        } else {
            self.skipping = true;
        }
        self.stream.write_all(&out).await.map(|()| Outcome::Done).map_err(|_| End::Left)
    }

    /// A server that has part of a pipeline must not commit it at the client's Sync: it is closed.
    pub async fn abandon_unsynced(&mut self) {
        if std::mem::take(&mut self.unsynced) && self.held.is_some() {
            self.close_held().await;
            self.transaction.lose();
        }
    }

    /// Outer error: the connection ends. Inner: the group is refused.
    fn read_group<'a>(&mut self, unit: &'a [u8], end: UnitEnd) -> Result<Result<Group<'a>, Refusal>, End> {
        let mut ops: Vec<Op<'a>> = std::mem::take(&mut self.at_work().ops);
        ops.reserve(6);
        let mut group = Group { ops, raw: unit, end, ends_early: false, goes_on: self.unsynced };
        let mut rest = unit;
        while let Ok(Some(head)) = wire::header(rest) {
            let Some((raw, after)) = rest.split_at_checked(head.total) else { break };
            rest = after;
            let read = self.read_op(FrontendTag(head.tag), raw, &group);
            match read.map_err(|it| End::Fatal(malformed(&it)))? {
                Ok(op) => group.ops.push(op),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        Ok(Ok(group))
    }

    fn read_op<'a>(
        &mut self,
        tag: FrontendTag,
        raw: &'a [u8],
        group: &Group<'a>,
    ) -> Result<Result<Op<'a>, Refusal>, wire::BodyError> {
        Ok(match tag {
            FrontendTag::PARSE => self.read_parse(wire::parse(raw)?, raw, group),
            FrontendTag::BIND => {
                let bind = Bind::read(raw)?;
                self.lookup(bind.statement(), group).and_then(|(statement, plan)| {
                    self.check_sql_names(&plan, group)?;
                    let (statement, sql) = self.rename_bound(statement, &plan, group)?;
                    Ok(Op::Bind { bind, statement, plan, sql })
                })
            }
            FrontendTag::DESCRIBE => match wire::target(raw)? {
                Target::Portal(portal) => Ok(Op::DescribePortal { portal, raw }),
                Target::Statement(name) => {
                    let found = self.lookup(name, group);
                    found.and_then(|(statement, plan)| self.read_describe(statement, &plan, group))
                }
            },
            FrontendTag::EXECUTE => Ok(self.read_execute(wire::execute(raw)?, raw, group)),
            FrontendTag::CLOSE => Ok(match wire::target(raw)? {
                Target::Portal(portal) => Op::ClosePortal { portal, raw },
                Target::Statement(name) => Op::CloseStatement { name, raw },
            }),
            FrontendTag::SYNC => Ok(Op::Sync { raw }),
            _ => Ok(Op::Flush { raw }),
        })
    }

    fn read_describe<'a>(
        &mut self,
        statement: Arc<Statement>,
        plan: &Plan,
        group: &Group<'a>,
    ) -> Result<Op<'a>, Refusal> {
        // PREPARE is not looked into before it is executed.
        let (statement, sql) = match plan.kind {
            Kind::SessionState("EXECUTE") => self.rename_bound(statement, plan, group)?,
            _ => (statement, SqlNames::None),
        };
        Ok(Op::DescribeStatement { statement, sql })
    }

    fn read_parse<'a>(
        &self,
        parse: wire::Parse<'a>,
        raw: &'a [u8],
        group: &Group<'a>,
    ) -> Result<Op<'a>, Refusal> {
        // Drivers that prepare nothing parse the same text over and over: it is the statement that it was.
        let same =
            self.names.get(b"").filter(|it| parse.name.is_empty() && it.is_parse_of(parse.text, parse.oids));
        if let Some(same) = same {
            let is_current = same.is_current(&self.database.router);
            let statement = if is_current { same.clone() } else { self.current(same.clone()).0 };
            return Ok(Op::Parse { name: parse.name, statement, raw });
        }
        let text = std::str::from_utf8(parse.text).map_err(|_| not_utf8())?;
        let registry = &self.database.statements;
        let plan = || {
            self.record.takes_time();
            self.database.router.plan(text)
        };
        let statement = if parse.name.is_empty() {
            registry.unnamed(text, parse.oids, plan())
        } else {
            self.check_name(parse.name, group)?;
            self.current(registry.named(text, parse.oids, plan)).0
        };
        Ok(Op::Parse { name: parse.name, statement, raw })
    }

    pub fn check_name(&self, name: &[u8], group: &Group<'_>) -> Result<(), Refusal> {
        if self.find(name, group).is_some() {
            let name = String::from_utf8_lossy(name);
            return Err(Refusal::new(
                Reason::Protocol,
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        // What the group closes on its way is no name any more.
        match self.names.get(name) {
            Some(_) => Ok(()),
            None => self.check_new_name(name),
        }
    }

    /// The statement behind a name, as it is at this place of the group.
    pub fn find<'g>(&'g self, name: &[u8], group: &'g Group<'_>) -> Option<&'g Arc<Statement>> {
        let in_group = group.ops.iter().rev().find_map(|it| match it {
            Op::Parse { name: of, statement, .. } if *of == name => Some(Some(statement)),
            Op::CloseStatement { name: of, .. } if *of == name => Some(None),
            Op::Prepare { name: of, statement, .. } if of.as_bytes() == name => Some(Some(statement)),
            Op::Deallocate { plan, .. } if deallocate::drops(&plan.kind, name) => Some(None),
            _ => None,
        });
        in_group.unwrap_or_else(|| self.names.get(name))
    }

    /// As `find`, to be bound or described, with its plan.
    fn lookup(&mut self, name: &[u8], group: &Group<'_>) -> Result<(Arc<Statement>, Arc<Plan>), Refusal> {
        let Some(found) = self.find(name, group).cloned() else {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name))
            };
            return Err(Refusal::new(Reason::Protocol, SqlState::INVALID_SQL_STATEMENT_NAME, message));
        };
        if found.is_prepared_alone() {
            self.check_amid_pipeline(std::slice::from_ref(&found))?;
        }
        Ok(self.current_of(name, found))
    }

    /// What needs no server: a lone Sync, and statements that Keyway answers itself.
    async fn answer_group(&mut self, group: &Group<'_>) -> Result<Option<Outcome>, End> {
        if !group.asks() && !self.unsynced {
            if group.is_synced() {
                self.say_ready().await?;
            }
            return Ok(Some(Outcome::Done));
        }
        let refused = self.transaction.is_refused();
        let mut bound = group.bound();
        let answer = match (bound.next(), bound.next()) {
            (Some(_), None)
                if group.is_synced()
                    && !refused
                    && self.transaction.status() != TxStatus::Failed
                    && let Some(tag) = group.only_deallocates() =>
            {
                Answer::Made { notices: Vec::new(), tag, columns: &[] }
            }
            (Some(only), None) if group.executes() && group.is_synced() => {
                self.answer_in_time(&only.plan.kind, only.statement.text()).await
            }
            (None, _)
                if !refused
                    && group.is_synced()
                    && let Some(columns) = group.columns_of_ours(&self.database.router) =>
            {
                Answer::Made { notices: Vec::new(), tag: "", columns }
            }
            (None, _) if !refused => return Ok(None),
            _ if refused && group.only_closes() => {
                Answer::Made { notices: Vec::new(), tag: "", columns: &[] }
            }
            _ if refused => self.answer(&Kind::Statement, ""),
            _ => return Ok(None),
        };
        let mut out = Vec::new();
        match answer {
            Answer::Server => return Ok(None),
            Answer::Refused(refusal) => return self.refuse_group(refusal, group.end).await.map(Some),
            Answer::Rollback { chain } => {
                put_made(group, &[], "ROLLBACK", &[], &mut out);
                if chain {
                    self.chain_silently().await;
                } else {
                    self.roll_back_silently().await?;
                }
            }
            Answer::Made { notices, tag, columns } => {
                if let Err(refusal) = self.put_in_force().await {
                    return self.refuse_group(refusal, group.end).await.map(Some);
                }
                put_made(group, &notices, tag, columns, &mut out);
            }
        }
        self.name_statements(group, usize::MAX);
        if self.unsynced {
            return self.end_at_server(&out).await.map(Some);
        }
        self.put_ready(&mut out);
        self.stream.write_all(&out).await.map_err(|_| End::Left)?;
        Ok(Some(Outcome::Done))
    }

    /// Ends an answer of ours where a server has an unfinished pipeline, which ends there too: what it has done
    /// is committed now, or is not.
    pub async fn end_at_server(&mut self, answer: &[u8]) -> Result<Outcome, End> {
        self.stream.write_all(answer).await.map_err(|_| End::Left)?;
        Box::pin(self.extended(wire::SYNC, UnitEnd::Sync)).await
    }

    /// The server of an aborted transaction is closed, which rolls it back.
    async fn roll_back_silently(&mut self) -> Result<(), End> {
        if self.is_spread() {
            Box::pin(self.end_others(false)).await;
        }
        self.close_held().await;
        self.transaction.end();
        Ok(())
    }

    /// Where it goes, and how fresh that must be.
    fn place_group(&mut self, group: &Group<'_>) -> Result<(Decision, Access), Refusal> {
        let (mut decision, access) = self.decide_group(group).map_err(|it| self.refusal_of(it))?;
        self.touch_group(group.bound(), &mut decision)?;
        Ok((decision, access))
    }

    fn decide_group(&self, group: &Group<'_>) -> Result<(Decision, Access), Refusal> {
        let mut view = self.view();
        if self.floors.len() > 1 && !self.transaction.is_idle() && group.mixes() {
            if self.is_spread() {
                return Err(Refusal::unsupported(
                    Reason::MultiShardRead,
                    "statements before one Sync cannot end, mark or set what several shards have in common",
                    "send a Sync behind each of them",
                ));
            }
            view.spreads = false;
        }
        let (mut chosen, mut access, mut statements): (Option<Decision>, _, _) = (None, Access::Read, 0);
        for it in group.bound() {
            let plan = it.plan;
            if let Kind::Begin { read_only, .. } = plan.kind {
                view.read_only_transaction |= read_only && !view.in_transaction;
                view.in_transaction = true;
                access = access.and(plan.access);
                continue;
            }
            if plan.kind.is_transaction_control() {
                access = access.and(plan.access);
                continue;
            }
            statements += 1;
            let (decision, runs) = self.decide_bound(it, &view)?;
            access = access.and(runs);
            chosen = Some(match chosen.take() {
                None => decision,
                Some(before) => both(before, decision)?,
            });
        }
        let mut decision = match chosen {
            Some(it) => it,
            None => self.decide_unbound(group)?,
        };
        let left = self.portal_left(group, &decision);
        self.check_spread(group, &decision, left)?;
        let limited = group.is_limited() && !(decision.mode.reads_many() && group.reading().is_some());
        let statements = statements.max(if decision.mode == Mode::One { 0 } else { group.bound().count() });
        let is_whole = group.is_synced() || left.is_some() && group.end == UnitEnd::Flush;
        if decision.mode != Mode::One && (statements > 1 || !is_whole || limited) {
            let told = if limited { "without a row limit" } else { "alone before its Sync" };
            return Err(Refusal::unsupported(
                Reason::MultiShardRead,
                format!("a statement on several shards must stand {told}"),
                "send it by itself, or restrict it to one shard with its shard key",
            ));
        }
        // Behind a Flush more may come that a replica cannot do.
        if !group.is_synced() && self.held.is_none() && !view.read_only_transaction {
            decision.role = Role::Primary;
        }
        Ok((decision, access))
    }

    /// What a group asks of a transaction on several shards.
    fn check_spread(
        &self,
        group: &Group<'_>,
        decision: &Decision,
        left: Option<&str>,
    ) -> Result<(), Refusal> {
        if self.transaction.is_idle() {
            return Ok(());
        }
        self.check_portal_names(group, left)?;
        if decision.mode != Mode::One && !group.leaves_nothing() && left.is_none() {
            return Err(Refusal::unsupported(
                Reason::MultiShardRead,
                "a portal of several shards that outlives its Sync must be a read, and stand alone",
                "execute it in the same pipeline, to the end, or declare a cursor",
            ));
        }
        let elsewhere = |home: Option<ShardId>| home.is_some_and(|it| decision.shards[..] != [it]);
        let ends = |it: &Plan| matches!(it.kind, Kind::Commit { .. } | Kind::Rollback { .. });
        let ends_elsewhere = group.plans().any(ends) && elsewhere(self.transaction.written());
        if ends_elsewhere || elsewhere(self.portal_home(group)?) {
            return Err(two_at_once());
        }
        Ok(())
    }

    /// The shard of the portals that a group uses and has not bound, where it is known not to be the main server's.
    fn portal_home(&self, group: &Group<'_>) -> Result<Option<ShardId>, Refusal> {
        if !self.is_spread() {
            return Ok(None);
        }
        let (mut bound, mut homes) = (Vec::new(), SmallVec::<[Option<ShardId>; 2]>::new());
        for op in &group.ops {
            let Some(name) = op.portal() else { continue };
            if matches!(op, Op::Bind { .. }) {
                bound.push(name);
            }
            if bound.contains(&name) {
                continue;
            }
            let cursor = std::str::from_utf8(name).ok().and_then(|it| Some((it, self.cursor_place(it)?)));
            homes.push(match (cursor, self.others.portal(name)) {
                (Some((name, CursorPlace::Merged)), _) => return Err(not_alone(name)),
                (Some((_, CursorPlace::On(shard))), _) | (None, Some(PortalHome::On(shard))) => Some(shard),
                // Which is no error of a portal that is not there.
                (None, Some(PortalHome::Ended)) if matches!(op, Op::ClosePortal { .. }) => continue,
                (None, Some(PortalHome::Ended)) => return Err(portal_ended(name)),
                (None, None) => self.home().map(|it| it.0),
            });
        }
        homes.dedup();
        if homes.len() > 1 { Err(two_at_once()) } else { Ok(homes.pop().flatten()) }
    }

    pub fn decide_bound(&self, it: Bound<'_, '_>, view: &SessionView) -> Result<(Decision, Access), Refusal> {
        let Bound { bind, statement, plan, sql } = it;
        match sql {
            SqlNames::Prepared(_, made) if self.has_shards() => {
                return Ok((self.decision_to_describe(self.home(), Some(made)), plan.access));
            }
            SqlNames::Executed(needs)
                if let Some(executed) = self.routed_bound(statement.text(), needs)? =>
            {
                let values = executed.values();
                let decision = self.decide(&executed.plan, &executed.keys(&values), view)?;
                if decision.mode != Mode::One {
                    return Err(Refusal::unsupported(
                        Reason::SessionState,
                        "EXECUTE by the extended protocol, of a statement on several shards, is not supported",
                        "bind the prepared statement itself, or send EXECUTE by the simple protocol",
                    ));
                }
                return Ok((decision, executed.plan.access));
            }
            _ => {}
        }
        if !plan.needs_params() && (self.has_shards() || !plan.counts_params()) {
            let literals = &statement.literals;
            let keys = KeySource { text: statement.text(), literals, params: None };
            let decision = self.decide(plan, &keys, view)?;
            self.tell_keys(plan, &keys, &decision);
            return Ok((decision, plan.access));
        }
        let decide = |keys: &KeySource<'_>| {
            let decision = self.decide(plan, keys, view)?;
            self.tell_keys(plan, keys, &decision);
            Ok(decision)
        };
        Ok((with_params(bind, statement, decide)?, plan.access))
    }

    fn parted_group<'g>(
        &self,
        group: &'g Group<'_>,
        decision: &Decision,
    ) -> Result<Option<Box<Parted<'g>>>, Refusal> {
        if decision.mode == Mode::One {
            return Ok(None);
        }
        if let Some(name) = self.portal_left(group, decision)
            && let Some(reading) = group.reading()
        {
            let formats = CursorFormats::OfBind(reading.asked().results.clone());
            let declaring = Some(Declaring { reading, name: name.to_owned(), formats });
            return Ok(Some(Box::new(Parted { declaring, ..Parted::default() })));
        }
        if decision.mode == Mode::Scatter {
            return Ok(Some(Box::new(Parted { reading: group.reading(), ..Parted::default() })));
        }
        let only = group.bound().next();
        match (only, only.and_then(|_| group.asked())) {
            (Some(Bound { bind, statement, plan, .. }), Some(asked)) => {
                with_params(bind, statement, |keys| self.parted(plan, decision, keys, || asked))
            }
            _ => Ok(None),
        }
    }

    fn settings_of_group(&mut self, group: &Group<'_>) -> Result<Vec<SettingMade>, Refusal> {
        let mut made = Vec::new();
        for Bound { bind, statement, plan, .. } in group.bound() {
            if plan.makes_settings() {
                made.extend(with_params(bind, statement, |keys| self.settings_made(plan, keys))?);
            }
        }
        Ok(made)
    }

    /// Nothing is bound: the server of the transaction, or any primary, can parse and describe. What a
    /// statement refuses whatever its keys are is refused here already.
    fn decide_unbound(&self, group: &Group<'_>) -> Result<Decision, Refusal> {
        for op in &group.ops {
            let (Op::Parse { statement, .. } | Op::DescribeStatement { statement, .. }) = op else {
                continue;
            };
            let plan = statement.plan(&self.database.router);
            // What PREPARE and EXECUTE name is looked at when they are bound.
            let names = matches!(plan.kind, Kind::SessionState("PREPARE" | "EXECUTE"));
            if let Some(refusal) = plan.refusal().filter(|_| !names) {
                return Err(refusal.clone());
            }
        }
        let ends = |it: &Plan| matches!(it.kind, Kind::Commit { .. } | Kind::Rollback { .. });
        let place = if group.plans().any(ends) { self.home_of_end() } else { self.home() };
        let home = group.ops.iter().find_map(|op| match op {
            Op::Parse { statement, .. } | Op::DescribeStatement { statement, .. } => {
                statement.plan(&self.database.router).home().map(|_| statement)
            }
            _ => None,
        });
        let mut decision = self.decision_to_describe(place, home);
        if let Some(shard) = self.portal_home(group)? {
            decision.shards = [shard].into_iter().collect();
        }
        Ok(decision)
    }
}

/// Gives `then` the values of a Bind and of the statement's literals.
pub(super) fn with_params<T>(
    bind: &Bind<'_>,
    statement: &Statement,
    then: impl FnOnce(&KeySource<'_>) -> T,
) -> T {
    // Pushed one by one: a list that is collected is moved once more, with all of its room.
    let mut oids = SmallVec::<[u32; 16]>::new();
    statement.oids().for_each(|it| oids.push(it));
    let mut values = SmallVec::<[Option<&[u8]>; 16]>::new();
    bind.values().iter().for_each(|it| values.push(it));
    // None, one for all, or one each, here as there.
    let mut formats = SmallVec::<[i16; 16]>::new();
    bind.formats().codes().for_each(|it| formats.push(i16::from(it == 1)));
    let params = Params { oids: &oids, formats: &formats, values: &values };
    let literals = &statement.literals;
    then(&KeySource { text: statement.text(), literals, params: Some(params) })
}

/// Two statements before one Sync are one transaction: they must share a shard.
fn both(mut before: Decision, after: Decision) -> Result<Decision, Refusal> {
    let role = if before.role == after.role { before.role } else { Role::Primary };
    if before.mode == Mode::One && after.mode == Mode::One {
        if after.why == Why::Anywhere || before.shards == after.shards {
            let room = KEYS_COUNTED_MAX.saturating_sub(before.keys.len());
            before.keys.extend(after.keys.into_iter().take(room));
            return Ok(Decision { role, ..before });
        }
        if before.why == Why::Anywhere {
            return Ok(Decision { role, ..after });
        }
    }
    Err(two_at_once())
}

fn two_at_once() -> Refusal {
    Refusal::unsupported(
        Reason::MultiShardWrite,
        "statements before one Sync would touch two shards",
        "send a Sync after each statement, or use one shard key",
    )
}

fn portal_ended(name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(name);
    Refusal::new(Reason::MultiShardRead, SqlState("34000"), format!("portal \"{name}\" does not exist"))
        .detail("portals of several shards end with their Sync")
        .hint("fetch from a cursor, made with DECLARE")
}
