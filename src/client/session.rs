//! A logged-in client: takes units of work in the order sent, keeps what the session owns, and ends
//! every answer with the status that the client must believe in.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use smallvec::{SmallVec, smallvec};

use super::abandon::{abandon, cancel_closed};
use super::at_work::AtWork;
use super::balance::Reader;
use super::copy::CopyEnd;
use super::copy_split::CopySplit;
use super::encoding;
use super::enlisted::Others;
use super::listening::Listening;
use super::login::{Counted, Entry, LoggedIn, say_goodbye};
use super::pins::Suspicion;
use super::registry::{Activity, Registered};
use super::relay::{Flow, RelayError, step};
use super::reload::sent_away;
use super::request::Copying;
use super::rest::Roused;
use super::statements::Names;
use super::timeouts::{Overdue, Patience, statement_time, transaction_time};
use super::tracks::Tracks;
use super::{Database, Latest, Shared, UserPools};
use crate::base::{Consistency, Reason, Refusal, Role, ServerId, ShardId, SqlState};
use crate::cancel::{self, Detached};
use crate::catalog::Changing;
use crate::config::PoolMode;
use crate::metrics::Limit;
use crate::net::{Buffer, Stream};
use crate::pool::Lease;
use crate::proto::{ChannelChange, Ended, Intake, Replies, Settings, Transaction, Unexpected, Unit, UnitEnd};
use crate::route::{SchemaChange, SessionView};
use crate::wire::{self, Severity, TxStatus};

/// What servers tell at login is about this long, so that it is appended without growing.
const GREETING_BYTES: usize = 600;

/// Why a session is over.
pub(super) enum End {
    /// The client left, or cannot be written to.
    Left,
    /// To be told to the client as FATAL.
    Fatal(Refusal),
    /// By an administrator, in the middle of anything: what the client would make of another word is not known.
    Killed,
}

/// How a request went that got as far as a server, or did not.
pub(super) enum Outcome {
    Done,
    /// COPY FROM STDIN has begun on the held connection.
    CopyIn,
}

pub(super) struct Held {
    pub lease: Lease,
    pub shard: ShardId,
    pub server: ServerId,
    pub role: Role,
    /// Its settings are not the session's yet: they go in front of the next request.
    pub needs_set_up: bool,
    pub reader: Reader,
}

impl Held {
    /// Gives the server back, unless a cancel may hit it still.
    pub fn release(self, detached: Detached, now: Instant) {
        match detached {
            Detached::Clean => self.lease.release(now),
            Detached::Doubtful => drop(self.lease),
        }
    }
}

pub(super) struct Session {
    pub stream: Stream,
    pub shared: Arc<Shared>,
    pub latest: Arc<Latest>,
    pub record: Registered,
    pub database: Arc<Database>,
    pub pools: Arc<UserPools>,
    pub cancel: cancel::Registered,
    /// What the startup packet set: RESET goes back to it.
    pub startup: Settings,
    pub settings: Settings,
    pub transaction: Transaction,
    pub names: Names,
    /// The server of an open transaction, of an unfinished pipeline, or of a pin.
    pub held: Option<Held>,
    /// What an open transaction has beside its server: further ones, and cursors on a database of several shards.
    pub others: Others,
    /// In session mode the first server stays until the client leaves.
    pub pool_mode: PoolMode,
    pub pinned: Option<&'static str>,
    /// `None` is as the database says.
    pub user_consistency: Option<Consistency>,
    pub tracks: Option<Box<Tracks>>,
    /// What ran on the held server may have left state there.
    pub suspected: Option<Box<Suspicion>>,
    /// `None` for a client that listens to nothing.
    pub listening: Option<Box<Listening>>,
    /// What LISTEN and UNLISTEN have committed and is not in force yet.
    pub due: Vec<ChannelChange>,
    /// The end of the answer under way is the session's to send, for notifications to come before it.
    pub ends_answer: bool,
    /// What DDL of the transaction under way does to the catalog.
    pub schema_change: SchemaChange,
    /// It is being committed.
    pub changing: Option<Changing>,
    /// What the server of the open transaction was lost to while nothing ran, which is told to the next
    /// statement: a COMMIT that was answered "ROLLBACK" would pass for a success.
    pub untold: Option<Refusal>,
    /// An error of ours before a Sync: everything up to Sync is ignored.
    pub skipping: bool,
    /// When this session's last write on each shard was answered.
    pub floors: SmallVec<[Option<Instant>; 1]>,
    /// TimeZone is UTC, as the server last reported.
    pub utc: bool,
    pub entropy: u64,
    /// The last transaction to end was committed, by its command tag.
    pub committed: bool,
    /// COMMIT is with the server: from here on its loss leaves the outcome unknown.
    pub committing: bool,
    pub copying: Option<Box<Copying>>,
    /// The same of several servers.
    pub split_copy: Option<Box<CopySplit>>,
    /// A write is under way whose end comes with a later unit: the Sync behind a Flush or a COPY.
    pub wrote: bool,
    /// How many Parses and Closes of the last group were done before an error.
    pub named: u32,
    /// Extended messages were sent without a Sync behind them.
    pub unsynced: bool,
    /// When the transaction under way began, or the statement outside of one.
    pub began: Option<Instant>,
    /// When the transaction under way has taken long enough, if there is a limit.
    pub transaction_ends: Option<Instant>,
    /// The same of the statement under way.
    pub overdue: Option<Box<Overdue>>,
    /// SHOW TRANSACTIONS has one of it.
    pub shows_transaction: bool,
    /// `None` at rest.
    pub at_work: Option<Box<AtWork>>,
    /// Until the first unit of the client's.
    entry: Option<Box<Entry>>,
    intake: Intake,
    /// Given back when all else is gone.
    _counted: Counted,
}

impl Session {
    /// Boxed, as a future keeps a place for each value that is moved through it.
    pub fn new(stream: Stream, latest: Arc<Latest>, login: LoggedIn, counted: Counted) -> Box<Session> {
        // The pid is random, and no secret.
        let entropy = u64::from(login.cancel.pid()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Box::new(Session {
            stream,
            shared: login.shared,
            latest,
            record: login.record,
            pools: login.pools,
            cancel: login.cancel,
            settings: login.startup.clone(),
            startup: login.startup,
            transaction: Transaction::default(),
            names: Names::default(),
            held: None,
            others: Others::default(),
            pool_mode: login.pool_mode,
            pinned: None,
            user_consistency: login.consistency,
            tracks: None,
            suspected: None,
            listening: None,
            due: Vec::new(),
            ends_answer: false,
            schema_change: SchemaChange::None,
            changing: None,
            untold: None,
            skipping: false,
            floors: smallvec![login.database.floor; login.database.topology.shard_count()],
            utc: false,
            entropy,
            committed: false,
            committing: false,
            copying: None,
            split_copy: None,
            wrote: false,
            named: 0,
            unsynced: false,
            began: None,
            transaction_ends: None,
            overdue: None,
            shows_transaction: false,
            at_work: None,
            entry: Some(login.entry),
            intake: Intake::default(),
            _counted: counted,
            database: login.database,
        })
    }

    /// This and what it polls are what a client at rest costs beside the session itself.
    #[allow(clippy::manual_async_fn, reason = "an async function holds its arguments twice")]
    pub fn run(mut self: Box<Self>) -> impl Future<Output = ()> + Send {
        async move {
            let end = self.until_killed().await;
            Box::pin(self.part(end)).await;
        }
    }

    async fn part(mut self: Box<Self>, end: End) {
        let end = match end {
            End::Killed if self.record.activity() == Activity::Idle => End::Fatal(sent_away()),
            other => other,
        };
        if let End::Fatal(refusal) = end {
            self.database.metrics.refused(refusal.reason());
            Box::pin(say_goodbye(&mut self.stream, &refusal)).await;
        }
        self.let_go_for_good().await;
    }

    /// What a server tells at login, with the client's own values, then ReadyForQuery.
    async fn greet(&mut self) -> Result<(), End> {
        let is_known = self.pools.parameters.lock().is_some();
        let Some(mut entry) = self.entry.take() else { return Ok(()) };
        let mut out = std::mem::take(&mut entry.greeting);
        wire::authentication_ok(&mut out);
        let looks = self.database.catalog.awaits_first_look(Instant::now());
        if !is_known || entry.unchecked || entry.position.is_some() || looks {
            // What follows may take its time, or fail: also that comes behind AuthenticationOk (`InitPostgres` in postinit.c).
            self.stream.write_all(&out).await.map_err(|_| End::Left)?;
            out.clear();
        }
        if looks {
            let catalog = self.database.catalog.clone();
            if !self.unless_gone(catalog.first_look()).await.map_err(End::Fatal)? {
                self.shared.hits.hit(Limit::CatalogWait);
            }
        }
        if let Some(token) = entry.position.take() {
            self.set_position(&token).map_err(End::Fatal)?;
        }
        // Others may have asked for them meanwhile.
        let known = self.pools.parameters.lock().clone();
        let parameters = match known {
            Some(it) if !entry.unchecked => it,
            _ => self.ask_for_parameters().await.map_err(End::Fatal)?.into(),
        };
        out.reserve(GREETING_BYTES);
        for (name, value) in parameters.iter() {
            let told = match (&name[..], entry.application_name.as_deref()) {
                ("application_name", Some(own)) => own,
                // Whichever server was asked: behind Keyway there is always a primary.
                ("in_hot_standby", _) => "off",
                _ => value,
            };
            wire::parameter_status(&mut out, name, told);
            if name == "TimeZone" {
                self.utc = is_utc(value);
            }
        }
        wire::backend_key_data(&mut out, &self.cancel.key());
        wire::ready_for_query(&mut out, TxStatus::Idle);
        self.entry = Some(entry);
        self.stream.write_all(&out).await.map_err(|_| End::Left)
    }

    /// Greets and works until the session ends, or is killed: then whatever it was doing is dropped.
    #[allow(clippy::manual_async_fn, reason = "an async function holds its arguments twice")]
    fn until_killed(&mut self) -> impl Future<Output = End> + Send {
        async move {
            let record = self.record.record().clone();
            record.wake_this_task().await;
            let mut working = pin!(self.greet_and_serve());
            poll_fn(move |cx| {
                record.takes_time();
                if record.is_killed() { Poll::Ready(End::Killed) } else { working.as_mut().poll(cx) }
            })
            .await
        }
    }

    /// All that a statement may need is a few kilobytes, which are made for a client that speaks and given up
    /// when it has been silent for a while: none is allocated for a statement, and an idle client holds none.
    ///
    /// ```text
    ///  work ──silent, and told by `Sessions::let_rest`──▶ rest ──client or pinned server speaks──▶ work
    /// ```
    #[allow(clippy::manual_async_fn, reason = "an async function holds its arguments twice")]
    fn greet_and_serve(&mut self) -> impl Future<Output = End> + Send {
        async move {
            if let Err(end) = Box::pin(self.greet()).await {
                return end;
            }
            // Since when the client is silent goes on to count where it rests.
            let mut patience = None;
            loop {
                if let Err(end) = Box::pin(self.work(&mut patience)).await {
                    return end;
                }
                self.begin_to_rest();
                loop {
                    match self.wait_for_client(&mut patience).await {
                        Ok(Roused::Client | Roused::Server) => break,
                        // Rare: boxed, so that those at rest do not carry it.
                        Ok(other) => match Box::pin(self.stir(other)).await {
                            Ok(()) => {}
                            Err(end) => return end,
                        },
                        Err(end) => return end,
                    }
                }
                self.record.set_resting(false);
            }
        }
    }

    /// Returns when the session may rest, which holds no buffer.
    async fn work(&mut self, patience: &mut Option<Option<Patience>>) -> Result<(), End> {
        let buffer = &mut self.entry.take().map(|it| it.received).unwrap_or_default();
        loop {
            let Some(unit) = self.next_unit(buffer, patience).await? else { return Ok(()) };
            *patience = None;
            if self.record.is_called() {
                self.heed()?;
            }
            self.record.set_activity(Activity::Active);
            self.record.counts.received_bytes.add(unit.length() as u64);
            self.begin_transaction_time();
            let result = match unit {
                Unit::Query(length) => self.simple(buffer, length).await,
                Unit::Extended(length, end) => self.group(buffer, length, end).await,
                Unit::FunctionCall(length) => self.function_call(buffer, length).await,
                Unit::Stray(length) => {
                    buffer.consume(length);
                    Ok(())
                }
                Unit::Terminate => return Err(End::Left),
            };
            self.end_schema_change();
            result?;
            self.end_touching();
            self.end_turn();
            self.show_transaction();
            if self.began.is_some() {
                self.count_transaction(Instant::now());
            }
            if buffer.is_empty() {
                self.shared.stock.give_back(std::mem::take(buffer));
            }
        }
    }

    /// Whether an error of Keyway's or of the server's has everything up to Sync ignored.
    fn is_skipping(&self) -> bool {
        self.skipping || self.held.as_ref().is_some_and(|it| it.lease.pipeline.is_skipping())
    }

    async fn simple(&mut self, buffer: &mut Buffer, length: usize) -> Result<(), End> {
        if self.is_skipping() {
            // Only Sync ends it (`ignore_till_sync` in postgres.c).
            buffer.consume(length);
            return Ok(());
        }
        let outcome = self.query(&buffer.filled()[..length]).await?;
        self.tell_refused(&buffer.filled()[..length]);
        buffer.consume(length);
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::CopyIn => self.copy(buffer).await,
        }
    }

    async fn function_call(&mut self, buffer: &mut Buffer, length: usize) -> Result<(), End> {
        if !self.is_skipping() {
            self.call_function(&buffer.filled()[..length]).await?;
        }
        buffer.consume(length);
        Ok(())
    }

    async fn group(&mut self, buffer: &mut Buffer, length: usize, end: UnitEnd) -> Result<(), End> {
        let outcome = self.extended(&buffer.filled()[..length], end).await?;
        self.tell_refused(&buffer.filled()[..length]);
        buffer.consume(length);
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::CopyIn => self.copy(buffer).await,
        }
    }

    async fn copy(&mut self, buffer: &mut Buffer) -> Result<(), End> {
        match self.copy_in(buffer).await? {
            CopyEnd::Open => {}
            CopyEnd::Drained => {
                self.tell_copied();
                self.settle(true).await;
                self.finish().await?;
            }
        }
        Ok(())
    }

    /// Waits for a whole unit; `None` is that the session may rest. Between units an idle client holds no
    /// buffer, and the process may stop. `patience` is of the whole unit: half a message does not begin the
    /// time anew.
    async fn next_unit(
        &mut self,
        buffer: &mut Buffer,
        patience: &mut Option<Option<Patience>>,
    ) -> Result<Option<Unit>, End> {
        let limits = self.shared.limits.unit;
        loop {
            match self.intake.next(buffer.filled(), limits) {
                Ok(Some(unit)) => return Ok(Some(unit)),
                Ok(None) => {}
                Err(violation) => {
                    let refusal = violation.refusal(limits);
                    if refusal.reason() == Reason::Limit {
                        self.shared.hits.hit(Limit::MessageBytes);
                    }
                    return Err(End::Fatal(refusal));
                }
            }
            let has_waited = buffer.is_empty();
            if has_waited {
                loop {
                    match self.wait_for_client(patience).await? {
                        Roused::Client => break,
                        Roused::Server => self.hear_pinned().await?,
                        Roused::Hub => self.deliver().await?,
                        Roused::Keyway => self.heed()?,
                        Roused::Drowsy => return Ok(None),
                    }
                }
                *buffer = self.shared.stock.take();
            }
            if buffer.is_full() {
                self.shared.stock.widen(buffer);
            }
            let until = patience.get_or_insert_with(|| self.patience());
            let read = match until {
                None if has_waited => self.stream.read_ready(buffer).await,
                None => self.stream.read(buffer).await,
                Some(it) => {
                    match Box::pin(tokio::time::timeout_at(it.until.into(), self.stream.read(buffer))).await {
                        Ok(read) => read,
                        Err(_) => return Err(End::Fatal(self.out_of_patience(*it))),
                    }
                }
            };
            if read.map_err(|_| End::Left)? == 0 {
                return Err(End::Left);
            }
        }
    }

    /// A pinned server speaks unasked: what LISTEN asked for, notices, or its last words.
    async fn hear_pinned(&mut self) -> Result<(), End> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let (mut replies, mut flow, mut buffer) = (Replies::default(), Flow::default(), None);
        let stock = self.shared.stock.clone();
        loop {
            let server = &mut held.lease;
            if let Err(error) =
                step(&mut self.stream, server, &stock, &mut buffer, &mut replies, &mut flow).await
            {
                let refusal = self.lose_server(error, &flow)?;
                self.untold = (!self.transaction.is_idle()).then_some(refusal);
                return Ok(());
            }
            if buffer.is_none() {
                return self.note_parameters(&mut flow);
            }
            // One that never stops must not hold up others.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// More than one.
    pub fn has_shards(&self) -> bool {
        self.floors.len() > 1
    }

    pub fn view(&self) -> SessionView {
        let (held, movable) = (self.home().map(|it| it.0), self.is_movable());
        SessionView {
            in_transaction: !self.transaction.is_idle(),
            read_only_transaction: self.transaction.is_read_only(),
            enlisted: held.filter(|_| !movable),
            spreads: !self.unsynced
                && (self.is_spread() || self.pinned.is_none() && self.transaction.can_begin_again()),
            written: self.transaction.written(),
            utc: self.utc,
            // What may run anywhere runs where the transaction is.
            entropy: held.map_or(self.entropy, |it| u64::from(it.0)),
            path: self.path(),
        }
    }

    /// Ends an answer: follows the server's status, applies what the transaction set, gives the server
    /// back when nothing ties the session to it. `wrote` marks the floor for reads from replicas.
    pub async fn settle(&mut self, wrote: bool) {
        let answered = self.cost().ended.take();
        let Some(held) = &mut self.held else { return };
        let now = answered.unwrap_or_else(Instant::now);
        let status = held.lease.pipeline.status();
        let (shard, was_open) = (held.shard, !self.transaction.is_idle());
        let sets = self.others.main().is_some() && self.transaction.makes_settings();
        self.transaction.follow(status);
        let wrote = std::mem::take(&mut self.wrote) || wrote;
        let written = wrote && status == TxStatus::Idle && held.role == Role::Primary;
        if was_open && status == TxStatus::Idle {
            let ended = if self.committed { Ended::Committed } else { Ended::RolledBack };
            let (session, servers) = (&mut self.settings, &mut [&mut held.lease.settings]);
            self.due.extend(self.transaction.settle(ended, session, servers, &self.startup));
        }
        if written {
            if self.has_written() {
                self.mark_floor(shard, now);
            }
            self.hear_own(shard).await;
        }
        if self.is_spread() {
            Box::pin(self.settle_others(status, sets)).await;
        } else if status == TxStatus::Idle {
            self.others = Others::default();
        }
        if self.suspected.is_some() && status == TxStatus::Idle && !self.unsynced {
            self.look_for_state().await;
        }
        self.let_go_if_free(now).await;
        self.count_transaction(now);
    }

    /// Of the request of so many bytes that begins now.
    pub fn count_request(&mut self, now: Instant, bytes: usize) {
        self.record.requested(now, bytes);
        self.begin_cost(Some(now));
        self.began.get_or_insert(now);
    }

    /// A statement outside of a transaction is one too.
    pub fn count_transaction(&mut self, now: Instant) {
        if self.transaction.is_idle()
            && !self.unsynced
            && let Some(began) = self.began.take()
        {
            let time = now.saturating_duration_since(began);
            self.record.counts.transactions.add(1);
            self.record.counts.transaction_us.add(time.as_micros() as u64);
        }
    }

    /// Behind `settle`: what LISTEN and UNLISTEN have committed is in force before the answer ends.
    pub async fn finish(&mut self) -> Result<(), End> {
        if !self.due.is_empty() || self.listening.is_some() {
            // The transaction is committed: an error could not take that back.
            self.put_in_force().await.map_err(End::Fatal)?;
        }
        if std::mem::take(&mut self.ends_answer) {
            self.say_ready().await?;
        }
        Ok(())
    }

    /// The held server may not go to another client, even when no transaction is open.
    pub fn is_tied(&self) -> bool {
        self.is_session() || self.pinned.is_some() || self.suspected.is_some()
    }

    pub fn is_session(&self) -> bool {
        self.pool_mode == PoolMode::Session
    }

    /// From here on the session reads nothing older than `now` on `shard`.
    pub fn mark_floor(&mut self, shard: ShardId, now: Instant) {
        if let Some(floor) = self.floors.get_mut(usize::from(shard.0)) {
            *floor = Some(now);
        }
    }

    pub async fn let_go_if_free(&mut self, now: Instant) {
        let free = self.held.as_ref().is_some_and(|it| it.lease.pipeline.is_free());
        if !free || self.is_tied() {
            if let Some(held) = self.held.as_mut().filter(|_| free && !self.unsynced) {
                // A pin is no read.
                held.reader = Reader::default();
                // RESET goes back to the startup packet's value, which is the session's, not the server's.
                held.needs_set_up = !held.lease.settings.same(&self.settings);
            }
            return;
        }
        let slot = self.cancel.slot();
        let detached = match slot.try_detach() {
            Some(it) => it,
            None => slot.detach().await,
        };
        if let Some(held) = self.held.take() {
            held.release(detached, now);
        }
    }

    /// The client is gone: a server with anything of its own on it is closed, which ends transactions,
    /// locks and temporary tables; a query that still runs is cancelled first.
    async fn let_go_for_good(mut self: Box<Self>) {
        let Some(held) = self.held.take() else {
            // Of a statement of several servers that was dropped half way.
            return cancel_closed(self.cancel.slot().take_targets());
        };
        let _closed = self.cancel.slot().detach().await;
        if !held.lease.pipeline.is_drained() {
            abandon(held.lease);
        }
    }

    /// An error of ours in answer to a Query or a Sync.
    pub async fn refuse_simple(&mut self, refusal: Refusal) -> Result<(), End> {
        let mut out = Vec::new();
        self.put_refusal(&mut out, &refusal);
        self.put_ready_as(&mut out, self.transaction.status());
        self.stream.write_all(&out).await.map_err(|_| End::Left)
    }

    /// ErrorResponse; an open transaction is aborted by it, as by an error of the server.
    pub fn put_refusal(&mut self, out: &mut Vec<u8>, refusal: &Refusal) {
        self.database.metrics.refused(refusal.reason());
        self.cost().refused(refusal);
        self.transaction.refuse();
        self.ends_answer = false;
        wire::error(out, Severity::Error, refusal);
    }

    /// The held server failed: what it held is lost, and the client is told what that means.
    pub fn lose_server(&mut self, error: RelayError, flow: &Flow) -> Result<Refusal, End> {
        let mut lost = self.held.take();
        // A transaction is lost on all of its shards.
        self.others = Others::default();
        let _closed = self.cancel.slot().try_detach();
        let committing = std::mem::take(&mut self.committing);
        self.unsynced = false;
        if let RelayError::ClientLeft | RelayError::TransactionTime = error {
            let amid_message = lost.as_ref().is_some_and(|it| it.lease.pipeline.is_amid_message());
            self.held = lost;
            let silent = amid_message || matches!(error, RelayError::ClientLeft);
            return Err(if silent { End::Left } else { End::Fatal(transaction_time()) });
        }
        if let Some(held) = &mut lost {
            held.reader.lost(&error, Instant::now());
            // What it was doing may be done for all that: no read may miss it.
            self.mark_floor(held.shard, Instant::now());
            if error.is_end() {
                self.database.failover.doubt(held.server);
            }
            self.database.topology.report_failure(held.server);
            tracing::warn!(server = ?held.server, %error, "server connection lost");
            if matches!(error, RelayError::Unexpected(Unexpected::TooLong(_))) {
                self.shared.hits.hit(Limit::MessageBytes);
            }
        }
        self.lose_written();
        let amid_message = lost.as_ref().is_some_and(|it| it.lease.pipeline.is_amid_message());
        drop(lost);
        // Of an answer that was held back the client has nothing.
        if amid_message && flow.kept.is_none() {
            // Whatever came next would be read as the rest of it.
            return Err(End::Left);
        }
        self.suspected = None;
        if self.unpin().is_some() || self.is_session() {
            // Its temporary tables, locks or cursors are gone: going on would be a lie.
            return Err(End::Fatal(server_refusal(&error)));
        }
        let refusal = if committing {
            Refusal::new(
                Reason::NoServer,
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                "server connection was lost during COMMIT: it is not known whether the transaction was committed",
            )
            .detail(error.to_string())
        } else {
            server_refusal(&error)
        };
        if committing {
            self.transaction.end();
        } else {
            self.transaction.lose();
        }
        if flow.sent_bytes > 0 {
            tracing::debug!(bytes = flow.sent_bytes, "part of the answer had been sent");
        }
        Ok(refusal)
    }

    /// What the server said that its parameters are now. An encoding that no SET announced (a function
    /// did it) ends the session: the next statement would be misread.
    pub fn note_parameters(&mut self, flow: &mut Flow) -> Result<(), End> {
        if std::mem::take(&mut flow.tells_role)
            && !self.transaction.is_read_only()
            && let Some(held) = &self.held
        {
            self.database.topology.report_failure(held.server);
        }
        if let Some(value) = flow.time_zone.take() {
            self.utc = is_utc(&value);
        }
        match flow.foreign_encoding.take() {
            Some(name) => Err(End::Fatal(encoding::refusal(&name))),
            None => Ok(()),
        }
    }
}

/// A lost server in PostgreSQL's terms; its own last words where it said any.
pub(super) fn server_refusal(error: &RelayError) -> Refusal {
    match error {
        RelayError::Unexpected(Unexpected::Fatal(state, message)) => {
            let state = match state.as_str() {
                "57P01" => SqlState::ADMIN_SHUTDOWN,
                "57P02" => SqlState("57P02"),
                "57P03" => SqlState::CANNOT_CONNECT_NOW,
                "57P05" => SqlState("57P05"),
                "25P03" => SqlState("25P03"),
                "40001" => SqlState("40001"),
                _ => SqlState::CONNECTION_FAILURE,
            };
            Refusal::new(Reason::NoServer, state, message.clone())
        }
        RelayError::NotCancelled(grace) => statement_time(*grace),
        RelayError::TransactionTime => transaction_time(),
        RelayError::Unexpected(Unexpected::Columns) => Refusal::new(
            Reason::MultiShardRead,
            SqlState::FEATURE_NOT_SUPPORTED,
            "the shards describe the columns of this result differently",
        )
        .hint("make the table's definition the same on every shard"),
        other => Refusal::new(
            Reason::NoServer,
            SqlState::CONNECTION_FAILURE,
            "server connection was lost while it ran the statement",
        )
        .detail(other.to_string()),
    }
}

/// Names under which the IANA database files UTC.
pub(super) fn is_utc(time_zone: &str) -> bool {
    const NAMES: [&str; 9] =
        ["UTC", "Etc/UTC", "GMT", "Etc/GMT", "UCT", "Etc/UCT", "Zulu", "Etc/Zulu", "Universal"];
    NAMES.iter().any(|it| it.eq_ignore_ascii_case(time_zone))
}
