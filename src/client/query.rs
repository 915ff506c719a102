//! The simple protocol.

use std::time::Instant;

use smallvec::SmallVec;

use super::bind::mixes;
use super::copy_split::Copied;
use super::cursors::{CursorFormats, Declaring};
use super::declared::declared_query;
use super::effects::Answer;
use super::merged::{Asked, Reading};
use super::named::NamedQuery;
use super::protect::Guard;
use super::request::{Parted, Payload, Ran, Renewable, Request};
use super::session::{End, Outcome, Session};
use super::split::Inserting;
use super::sql_prepare::{Executed, Renamed, Values};
use crate::base::{Access, Reason, Refusal, Role, ShardId, SqlState};
use crate::route::{
    CursorStatement, Decision, KeySet, KeySource, Kind, Mode, Plan, Planned, SettingMade, Subject,
};
use crate::wire;

impl Session {
    pub async fn query(&mut self, message: &[u8]) -> Result<Outcome, End> {
        let started = Instant::now();
        self.count_request(started, message.len());
        let text = match wire::query_text(message).map(std::str::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => return self.refuse(not_utf8()).await,
            Err(error) => return Err(End::Fatal(malformed(&error))),
        };
        let planned = self.plan_of(text);
        let (kind, access) = (&planned.plan.kind, planned.plan.access);
        let request = match self.plain_query(message, text, &planned, started) {
            Some(Ok(request)) => request,
            Some(Err(refusal)) => return self.refuse(refusal).await,
            None => return self.any_query(message, text, &planned, started).await,
        };
        match self.perform(&request).await? {
            Ran::Done { failed } if !self.is_spread() => {
                if !failed {
                    self.take_effect(kind, text);
                }
                self.end_plain(access).await
            }
            ran => self.end_query(kind, text, ran, access).await,
        }
    }

    async fn any_query(
        &mut self,
        message: &[u8],
        text: &str,
        planned: &Planned,
        started: Instant,
    ) -> Result<Outcome, End> {
        let plan = &planned.plan;
        let renamed = match self.answer_in_time(&plan.kind, text).await {
            Answer::Server => match self.rename(plan, text) {
                Ok(it) => it,
                Err(answer) => return self.say(answer).await,
            },
            answer => return self.say(answer).await,
        };
        if let Kind::Cursor(cursor) = &plan.kind
            && self.is_merged_cursor(&plan.kind)
        {
            return Box::pin(self.query_cursor(cursor)).await;
        }
        let executed = renamed.as_ref().and_then(|it| it.executed.as_ref());
        let values = executed.map_or_else(Values::default, Executed::values);
        let (runs, keys) = match executed {
            Some(it) => (&it.plan, it.keys(&values)),
            None => (plan, KeySource { text, literals: &planned.literals, params: None }),
        };
        let decision = match self.place_query(runs, renamed.as_ref(), &keys) {
            Ok(it) => it,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let made = match self.settings_made(runs, &keys) {
            Ok(it) => it,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let lent = match self.prepare_channels(&plan.kind, runs.lists_channels, &decision).await {
            Ok(it) => it,
            Err(refusal) => return self.refuse(refusal).await,
        };
        self.suspect_renamed(plan, text, renamed.as_ref());
        // Rows of a Query are always described.
        let alone = renamed.is_some() && self.transaction.is_idle() && !self.unsynced;
        let renewable = Renewable { lost: alone, outdated: alone };
        self.begin_commit(std::iter::once(&plan.kind), !self.unsynced);
        // The ReadyForQuery of a Query ends what had no Sync.
        self.unsynced = false;
        let ends_blocks = !plan.understood || matches!(plan.kind, Kind::Several { .. });
        let named = plan.column_lists().map(|it| NamedQuery::new(it, text));
        let payload = Payload::of_query(message, renamed.as_ref(), named.as_ref());
        let guard = self.guard(runs, &decision, &keys, payload);
        let (access, subject) = (runs.access, &runs.subject);
        let asked = || match executed {
            Some(it) => Asked::executed(&it.statement, &values),
            None => Asked::simple(text, &planned.literals),
        };
        let parted = match self.parted(runs, &decision, &keys, asked) {
            Ok(it) => it,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let request =
            Request { payload, decision, access, started, renewable, ends_blocks, subject, parted, guard };
        let ran = self.perform(&request).await?;
        self.take_back_channels(lent).await;
        self.committing = false;
        self.bind_to(runs, &request.decision);
        if !ran.has_failed() {
            self.take_settings(&made);
            self.take_prepared(renamed.as_ref());
        }
        self.end_query(&plan.kind, text, ran, access).await
    }

    fn take_prepared(&mut self, renamed: Option<&Renamed>) {
        if let Some((name, statement)) = renamed.and_then(|it| it.prepares.as_ref()) {
            self.name_prepared(name, statement.clone());
        }
    }

    /// Where it goes, and how fresh that must be.
    fn place_query(
        &mut self,
        plan: &Plan,
        renamed: Option<&Renamed>,
        keys: &KeySource<'_>,
    ) -> Result<Decision, Refusal> {
        let mut decision = self.decide_query(plan, renamed, keys)?;
        self.tell_keys(plan, keys, &decision);
        let view = self.view();
        self.touch(plan, keys, &view, &mut decision)?;
        if let Some(it) = renamed.filter(|it| it.executed.is_none()) {
            self.touch_named(&it.needs, &mut decision)?;
        }
        Ok(decision)
    }

    /// On several shards PREPARE goes to one that can judge its text.
    fn decide_query(
        &self,
        plan: &Plan,
        renamed: Option<&Renamed>,
        keys: &KeySource<'_>,
    ) -> Result<Decision, Refusal> {
        match renamed.and_then(|it| it.prepares.as_ref()) {
            Some((_, statement)) if self.has_shards() => {
                Ok(self.decision_to_describe(self.home(), Some(statement)))
            }
            _ => {
                let mut view = self.view();
                view.spreads &= !mixes(&plan.kind);
                self.decide(plan, keys, &view).map_err(|it| self.refusal_of(it))
            }
        }
    }

    /// What of a statement several shards do together.
    pub fn parted<'a>(
        &self,
        plan: &Plan,
        decision: &Decision,
        keys: &KeySource<'_>,
        asked: impl FnOnce() -> Asked<'a>,
    ) -> Result<Option<Box<Parted<'a>>>, Refusal> {
        if decision.mode == Mode::One {
            return Ok(None);
        }
        let mut parted = Box::new(Parted::default());
        match (decision.mode, plan.shard_read(), plan.inserted_rows(), plan.copy()) {
            (Mode::Merge, Some(read), ..) => {
                let mut asked = asked();
                let Kind::Cursor(CursorStatement::Declare { name, binary, .. }) = &plan.kind else {
                    parted.reading = Some(Reading::new(read, plan.version, asked));
                    return Ok(Some(parted));
                };
                asked.text = declared_query(&asked.text).ok_or_else(no_shard)?.into();
                let reading = Reading::new(read, plan.version, asked);
                let formats = if *binary { CursorFormats::Binary } else { CursorFormats::OfFetch };
                parted.declaring = Some(Declaring { reading, name: name.clone(), formats });
            }
            (Mode::Split, _, Some(rows), _) => {
                let owners = self.database.router.row_shards(plan, keys, &self.view())?;
                parted.inserting = Some(Inserting::new(rows, owners, asked(), plan.column_lists()));
            }
            (Mode::Copy, _, _, Some(plan)) => {
                parted.copied = Some(Copied { plan: plan.clone(), asked: asked() });
            }
            _ => {}
        }
        Ok(Some(parted))
    }

    async fn say(&mut self, answer: Answer) -> Result<Outcome, End> {
        match answer {
            Answer::Made { notices, tag, columns } if !columns.is_empty() => {
                let mut out = Vec::new();
                wire::describe_columns(&mut out, columns, |_| false);
                out.extend_from_slice(&notices);
                wire::command_complete(&mut out, tag);
                self.put_ready(&mut out);
                self.stream.write_all(&out).await.map(|()| Outcome::Done).map_err(|_| End::Left)
            }
            Answer::Made { mut notices, tag, .. } => {
                if let Err(refusal) = self.put_in_force().await {
                    return self.refuse(refusal).await;
                }
                wire::command_complete(&mut notices, tag);
                if self.unsynced {
                    return self.end_at_server(&notices).await;
                }
                self.put_ready(&mut notices);
                self.stream.write_all(&notices).await.map(|()| Outcome::Done).map_err(|_| End::Left)
            }
            Answer::Refused(refusal) => self.refuse(refusal).await,
            Answer::Rollback { chain } => self.roll_back(chain).await,
            Answer::Server => Ok(Outcome::Done),
        }
    }

    /// What set_config is about to set, where the session can keep it.
    pub fn settings_made(
        &mut self,
        plan: &Plan,
        keys: &KeySource<'_>,
    ) -> Result<SmallVec<[SettingMade; 1]>, Refusal> {
        if !plan.makes_settings() {
            return Ok(SmallVec::new());
        }
        let made = plan.settings_made(keys)?;
        self.check_settings(&made)?;
        Ok(made)
    }

    pub async fn end_query(
        &mut self,
        kind: &Kind,
        text: &str,
        ran: Ran,
        access: Access,
    ) -> Result<Outcome, End> {
        match ran {
            Ran::Done { failed } => {
                if !failed {
                    self.take_effect(kind, text);
                    if self.is_spread()
                        && let Err(refusal) = Box::pin(self.tell_others()).await
                    {
                        return self.refuse(refusal).await;
                    }
                }
                self.settle(access == Access::Write).await;
                self.finish().await?;
            }
            Ran::CopyIn => return Ok(Outcome::CopyIn),
            Ran::Refused(refusal) => return self.refuse(refusal).await,
            Ran::Unready { failed } => {
                if !failed {
                    self.take_effect(kind, text);
                }
                self.say_ready().await?;
            }
        }
        Ok(Outcome::Done)
    }

    pub async fn say_ready(&mut self) -> Result<(), End> {
        let mut out = Vec::new();
        self.put_ready(&mut out);
        self.stream.write_all(&out).await.map_err(|_| End::Left)?;
        self.check_speed()
    }

    pub async fn refuse(&mut self, refusal: Refusal) -> Result<Outcome, End> {
        self.abandon_unsynced().await;
        self.refuse_simple(refusal).await.map(|()| Outcome::Done)
    }

    /// Ends a transaction at its server that Keyway has aborted.
    async fn roll_back(&mut self, chain: bool) -> Result<Outcome, End> {
        let (text, mut message) = (if chain { "ROLLBACK AND CHAIN" } else { "ROLLBACK" }, Vec::new());
        wire::query(&mut message, text);
        let decision = self.decision_on(self.home_of_end());
        let payload = Payload::Query(&message);
        let started = Instant::now();
        let (access, renewable, ends_blocks) = (Access::Write, Renewable::default(), true);
        let (subject, parted, guard) = (&Subject::default(), None, Guard::None);
        let request =
            Request { payload, decision, access, started, renewable, ends_blocks, subject, parted, guard };
        let ran = self.perform(&request).await?;
        self.end_query(&Kind::Rollback { chain }, text, ran, Access::Write).await
    }

    /// For what names no shard.
    pub fn decision_on(&self, home: Option<(ShardId, Role)>) -> Decision {
        let (shard, role) = home.unwrap_or((ShardId(0), Role::Primary));
        let why = crate::route::Why::Anywhere;
        Decision { shards: [shard].into_iter().collect(), role, mode: Mode::One, keys: KeySet::new(), why }
    }
}

pub(super) fn no_shard() -> Refusal {
    Refusal::new(Reason::Unsupported, SqlState::INTERNAL_ERROR, "no shard")
}

pub(super) fn not_utf8() -> Refusal {
    Refusal::new(
        Reason::Unsupported,
        SqlState("22021"),
        "invalid byte sequence for encoding \"UTF8\" in a statement",
    )
    .hint("send statements in UTF8")
}

pub(super) fn malformed(error: &wire::BodyError) -> Refusal {
    Refusal::new(Reason::Protocol, SqlState::PROTOCOL_VIOLATION, error.to_string())
}
