//! LISTEN, UNLISTEN and what they bring, of one client. No server connection knows of it: an idle client that
//! listens holds none, and no buffer.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::IntGauge;

use super::attach::run_own;
use super::effects::Answer;
use super::group::Group;
use super::notify::{Hub, Mailbox};
use super::pins;
use super::session::{End, Held, Session};
use crate::base::{Reason, Refusal, Role, ShardId, SqlState};
use crate::metrics::{Limit, Live};
use crate::proto::{ChannelChange, ChannelSet, Origin, quote_name};
use crate::route::{Decision, Excluded, Kind};
use crate::sql::Lexer;
use crate::wire::{HEADER_BYTES, TxStatus, header};

/// How much is handed to the socket at once.
const PIECE_BYTES: usize = 64 * 1024;
/// A client that was given up may take the rest of a message for so long, to read why.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(5);

/// A client's part in the hub; dropped, it is unsubscribed.
pub(super) struct Listening {
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    /// As far as its transactions have committed.
    channels: ChannelSet,
    /// At the hub: `channels`, and before a COMMIT what that will add.
    subscribed: ChannelSet,
    _live: Live<IntGauge>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.hub.unsubscribe(&self.mailbox, &self.subscribed);
    }
}

impl Listening {
    fn new(hub: &Arc<Hub>) -> Listening {
        Listening {
            hub: hub.clone(),
            mailbox: Arc::new(Mailbox::new(hub.limits().bytes_max)),
            channels: ChannelSet::new(),
            subscribed: ChannelSet::new(),
            _live: Live::new(hub.metrics.clients.clone()),
        }
    }

    /// In a transaction, `may_hear` being false, only that too much has come is of interest.
    fn poll_news(&self, cx: &mut Context<'_>, may_hear: bool) -> Poll<()> {
        self.mailbox.poll_news(cx, may_hear)
    }

    /// On an error some may be subscribed, until the next `trim`.
    async fn subscribe(&mut self, wanted: &ChannelSet) -> Result<(), String> {
        let missing: ChannelSet = wanted.difference(&self.subscribed).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.subscribed.extend(missing.iter().cloned());
        self.hub.subscribe(&self.mailbox, &missing).await
    }

    /// Back to what is in force.
    fn trim(&mut self) {
        let surplus: ChannelSet = self.subscribed.difference(&self.channels).cloned().collect();
        if !surplus.is_empty() {
            self.hub.unsubscribe(&self.mailbox, &surplus);
            self.subscribed.retain(|it| !surplus.contains(it));
            self.mailbox.keep(&self.channels);
        }
    }
}

impl Session {
    /// Notifications come between answers, so the session itself ends each answer.
    pub fn ends_answers(&self) -> bool {
        self.listening.is_some() || self.transaction.changes_channels()
    }

    fn channels(&self) -> Option<&ChannelSet> {
        self.listening.as_ref().map(|it| &it.channels).filter(|it| !it.is_empty())
    }

    /// Whether LISTEN and UNLISTEN are answered here: not where the server that the client is tied to may
    /// listen by itself.
    fn listens_here(&self, kind: &Kind) -> bool {
        let tied = match kind {
            // The server is the client's own.
            _ if self.is_session() => true,
            Kind::Listen(_) => self.pinned == Some(pins::LISTEN),
            _ => self.is_tied(),
        };
        !tied && !self.unsynced && self.transaction.status() != TxStatus::Failed
    }

    /// The answer to what concerns channels, if Keyway gives it.
    pub fn answer_channels(&mut self, kind: &Kind, text: &str) -> Option<Answer> {
        match kind {
            Kind::Listen(_) | Kind::Unlisten(_) if self.listens_here(kind) => {
                Some(self.answer_changes(std::slice::from_ref(kind)))
            }
            Kind::Several { parts, .. } if parts.iter().all(|it| change_of(it).is_some()) => {
                parts.iter().all(|it| self.listens_here(it)).then(|| self.answer_changes(parts))
            }
            _ => self.refuse_with_changes(kind, text),
        }
    }

    fn answer_changes(&mut self, kinds: &[Kind]) -> Answer {
        let mut replies = Vec::new();
        for (index, change) in kinds.iter().filter_map(change_of).enumerate() {
            if let Some(refusal) = self.check_channel_count(&change) {
                self.due.clear();
                return Answer::Refused(refusal);
            }
            if index > 0 {
                crate::wire::command_complete(&mut replies, tag_of(&kinds[index - 1]));
            }
            self.change_channel(change);
        }
        let tag = kinds.last().map_or("", tag_of);
        Answer::Made { notices: replies, tag, columns: &[] }
    }

    /// Statements that end a transaction or a savepoint in a way that cannot be followed.
    fn refuse_with_changes(&self, kind: &Kind, text: &str) -> Option<Answer> {
        if !self.ends_answers() {
            return None;
        }
        let changes = self.transaction.changes_channels();
        match kind {
            Kind::Several { transaction_control: true, parts }
                if changes || parts.iter().any(|it| matches!(it, Kind::Unlisten(_))) =>
            {
                Some(Answer::Refused(Refusal::unsupported(
                    Reason::SessionState,
                    "several statements in one text cannot end a transaction that executes LISTEN or UNLISTEN",
                    "send each statement by itself",
                )))
            }
            Kind::Statement if changes && is_prepare_transaction(text) => {
                Some(Answer::Refused(Refusal::unsupported(
                    Reason::SessionState,
                    "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY",
                    "LISTEN outside of the transaction",
                )))
            }
            _ => None,
        }
    }

    fn check_channel_count(&self, change: &ChannelChange) -> Option<Refusal> {
        let ChannelChange::Listen(_) = change else { return None };
        let mut after = self.channels().cloned().unwrap_or_default();
        self.transaction
            .channel_changes()
            .chain(&self.due)
            .chain([change])
            .for_each(|it| it.apply(&mut after));
        let most = self.database.hub.limits().channels_max;
        if after.len() <= most {
            return None;
        }
        self.shared.hits.hit(Limit::Channels);
        let message = format!("a client may listen to {most} channels");
        let refusal = Refusal::new(Reason::Limit, SqlState::PROGRAM_LIMIT_EXCEEDED, message);
        Some(refusal.hint("UNLISTEN, or raise limits.channels_max in the configuration of keyway"))
    }

    /// Takes note of a change; outside of a transaction `put_in_force` is next.
    pub fn change_channel(&mut self, change: ChannelChange) {
        if self.transaction.is_idle() {
            self.due.push(change);
        } else {
            self.transaction.change_channel(change);
        }
    }

    /// Takes note of what a server has done that gives channels back.
    pub fn take_channels(&mut self, kind: &Kind) {
        match kind {
            Kind::Unlisten(_) if self.listening.is_some() || self.transaction.changes_channels() => {
                if let Some(change) = change_of(kind) {
                    self.change_channel(change);
                }
            }
            Kind::DiscardAll if self.listening.is_some() => self.due.push(ChannelChange::UnlistenAll),
            Kind::Several { parts, transaction_control: false } => {
                parts.iter().for_each(|it| self.take_channels(it));
            }
            _ => {}
        }
    }

    /// What a statement needs of channels before it goes to a server. `true` as of `lend_channels`.
    pub async fn prepare_channels(
        &mut self,
        kind: &Kind,
        lists: bool,
        decision: &Decision,
    ) -> Result<bool, Refusal> {
        if matches!(kind, Kind::Listen(_)) && self.floors.len() > 1 {
            return Err(self.refusal_of(listen_alone()));
        }
        self.listen_ahead(matches!(kind, Kind::Commit { .. })).await?;
        self.lend_channels(lists, decision).await
    }

    pub async fn prepare_channels_of_group(
        &mut self,
        group: &Group<'_>,
        decision: &Decision,
    ) -> Result<bool, Refusal> {
        let (mut kinds, mut lists, mut count) = (&Kind::Empty, false, 0);
        for plan in group.plans() {
            (kinds, count) = (&plan.kind, count + 1);
            lists |= plan.lists_channels;
            if matches!(plan.kind, Kind::Listen(_)) && self.floors.len() > 1 {
                return Err(self.refusal_of(listen_alone()));
            }
        }
        let ends = |it: &Kind| it.is_transaction_control();
        if count > 1 && self.transaction.changes_channels() && group.plans().any(|it| ends(&it.kind)) {
            return Err(Refusal::unsupported(
                Reason::SessionState,
                "a pipeline cannot end a transaction that has executed LISTEN or UNLISTEN",
                "send a Sync in front of the end of the transaction",
            ));
        }
        self.prepare_channels(if count == 1 { kinds } else { &Kind::Empty }, lists, decision).await
    }

    /// COMMIT is about to be sent: what is to be heard from then on is listened to before, so that it fails
    /// here and not when the rest is committed, and so that a NOTIFY of the same transaction is heard
    /// (`PreCommit_Notify` in async.c).
    pub async fn listen_ahead(&mut self, commits: bool) -> Result<(), Refusal> {
        if !commits || !self.transaction.changes_channels() {
            return Ok(());
        }
        let mut wanted = self.channels().cloned().unwrap_or_default();
        self.transaction.channel_changes().for_each(|it| it.apply(&mut wanted));
        self.subscribe(&wanted).await
    }

    async fn subscribe(&mut self, wanted: &ChannelSet) -> Result<(), Refusal> {
        if wanted.is_empty() {
            return Ok(());
        }
        let hub = &self.database.hub;
        let listening = self.listening.get_or_insert_with(|| Box::new(Listening::new(hub)));
        let Err(problem) = listening.subscribe(wanted).await else { return Ok(()) };
        listening.trim();
        self.end_listening_to_nothing();
        let message = "cannot listen: keyway has no connection on which it listens for clients";
        let refusal = Refusal::new(Reason::NoServer, SqlState::CANNOT_CONNECT_NOW, message);
        Err(refusal.detail(problem).hint("try again later"))
    }

    fn end_listening_to_nothing(&mut self) {
        if self.listening.as_ref().is_some_and(|it| it.channels.is_empty() && it.subscribed.is_empty()) {
            self.listening = None;
        }
    }

    /// Makes what has committed so: when this returns, what is committed from then on is heard.
    pub async fn put_in_force(&mut self) -> Result<(), Refusal> {
        let due = std::mem::take(&mut self.due);
        if due.is_empty() && self.listening.is_none() {
            return Ok(());
        }
        let mut wanted = self.channels().cloned().unwrap_or_default();
        due.iter().for_each(|it| it.apply(&mut wanted));
        self.subscribe(&wanted).await?;
        if let Some(listening) = &mut self.listening {
            listening.channels = wanted;
            // Between COMMIT's being sent and its answer it may be subscribed to more.
            if self.transaction.is_idle() {
                listening.trim();
            }
        }
        self.end_listening_to_nothing();
        Ok(())
    }

    /// The session writes on the server that it holds: notifications from there are its own from now on. A
    /// client that listens compares ids with its own, so what others notified there has to be told before.
    pub async fn hold_as_own(&mut self) {
        let pid = self.cancel.pid();
        let Some(held) = &self.held else { return };
        if held.role != Role::Primary || held.lease.holder.is(pid) {
            return;
        }
        let was_copy = held.lease.holder.is_copy();
        self.hear_before(held.shard, was_copy).await;
        if let Some(held) = &self.held {
            held.lease.holder.set(pid);
        }
    }

    /// As `hold_as_own` where nothing has to be told before: else false.
    pub fn hold_as_own_at_once(&self) -> bool {
        let pid = self.cancel.pid();
        let is_others = |it: &&Held| it.role == Role::Primary && !it.lease.holder.is(pid);
        let Some(held) = self.held.as_ref().filter(is_others) else { return true };
        let is_silent = self.listening.is_none() && !held.lease.holder.is_copy();
        if is_silent {
            held.lease.holder.set(pid);
        }
        is_silent
    }

    /// As `hold_as_own`, of each shard of a write. Of `copies`, which each shard makes alike, the first tells of what
    /// their triggers notify.
    pub async fn hold_each(&mut self, team: &[Held], copies: bool) {
        let pid = self.cancel.pid();
        for held in team {
            let holder = &held.lease.holder;
            let is_copy = copies && held.shard != ShardId(0);
            if is_copy || !holder.is(pid) {
                self.hear_before(held.shard, holder.is_copy() != is_copy).await;
            }
            if is_copy {
                holder.set_copy();
            } else {
                holder.set(pid);
            }
        }
    }

    /// What was written there before is told as what it was: by clients that listen for their own sake, by all
    /// where it is not to be told at all.
    async fn hear_before(&self, shard: ShardId, must: bool) {
        if must || self.listening.is_some() {
            self.database.hub.catch_up(self.database.router.shard_name(shard)).await;
        }
    }

    /// As `hear_own`, of each shard of a write.
    pub async fn hear_each(&self, team: &[Held]) {
        for held in team {
            self.hear_own(held.shard).await;
        }
    }

    /// What this session has notified comes before the end of its answer, as in PostgreSQL, and before
    /// anybody else writes on the same server.
    pub async fn hear_own(&self, shard: ShardId) {
        if let Some(listening) = &self.listening {
            listening.hub.catch_up(self.database.router.shard_name(shard)).await;
        }
    }

    /// Everything that waits, in front of a ReadyForQuery outside of a transaction.
    pub fn put_notifications(&self, out: &mut Vec<u8>) {
        if let Some(it) = &self.listening {
            it.hub.metrics.delivered.inc_by(it.mailbox.take(&it.channels, usize::MAX, out));
        }
    }

    /// The client is idle: it is told at once. One that does not take what there is in time is given up.
    pub async fn deliver(&mut self) -> Result<(), End> {
        let Some(listening) = &self.listening else { return Ok(()) };
        let mut out = Vec::new();
        loop {
            if listening.mailbox.is_overflowed() {
                return Err(End::Fatal(too_slow()));
            }
            out.clear();
            let count = listening.mailbox.take(&listening.channels, PIECE_BYTES, &mut out);
            if out.is_empty() {
                return Ok(());
            }
            listening.hub.metrics.delivered.inc_by(count);
            let mut sent = 0;
            while sent < out.len() {
                let written = tokio::select! {
                    biased;
                    written = self.stream.write(&out[sent..]) => written,
                    () = listening.mailbox.overflowed() => return Err(self.give_up(&out, sent).await),
                };
                sent += written.map_err(|_| End::Left)?;
            }
        }
    }

    /// What has begun to be sent is sent to the end of its message: the error could not be read otherwise.
    async fn give_up(&mut self, out: &[u8], mut sent: usize) -> End {
        let end = message_end(out, sent);
        let rest = async {
            while sent < end {
                sent += self.stream.write(&out[sent..end]).await.map_err(|_| End::Left)?;
            }
            Ok::<(), End>(())
        };
        match tokio::time::timeout(LAST_WORDS_TIMEOUT, rest).await {
            Ok(Ok(())) => End::Fatal(too_slow()),
            _ => End::Left,
        }
    }

    pub fn poll_notifications(&self, cx: &mut Context<'_>, may_hear: bool) -> bool {
        self.listening.as_ref().is_some_and(|it| it.poll_news(cx, may_hear).is_ready())
    }

    /// One that asks all the time is given up behind an answer.
    pub fn check_speed(&self) -> Result<(), End> {
        match &self.listening {
            Some(it) if it.mailbox.is_overflowed() => Err(End::Fatal(too_slow())),
            _ => Ok(()),
        }
    }

    /// The text asks what the session listens to, which its server does not know: for as long as it runs the
    /// server listens too, unheard. `true` if `take_back_channels` has to follow.
    pub async fn lend_channels(&mut self, lists: bool, decision: &Decision) -> Result<bool, Refusal> {
        let Some(channels) = self.channels().filter(|_| lists).cloned() else { return Ok(false) };
        if !self.transaction.is_idle() || self.unsynced {
            return Err(Refusal::unsupported(
                Reason::SessionState,
                "pg_listening_channels() inside a transaction is not supported",
                "call it outside of the transaction",
            ));
        }
        if self.held.is_none()
            && let Some(&shard) = decision.shards.first()
        {
            let now = std::time::Instant::now();
            self.cost().hold_ends = None;
            self.held = Some(self.attach(shard, Role::Primary, &mut Excluded::default(), now).await?);
        }
        let text = told("LISTEN", &channels);
        if let Some(held) = &mut self.held {
            held.lease.pipeline.mute_notifications(true);
            if run_own(&mut held.lease, &text, Origin::Keyway).await.is_err() {
                self.close_held().await;
                let message = "server connection was lost";
                return Err(Refusal::new(Reason::NoServer, SqlState::CONNECTION_FAILURE, message));
            }
        }
        Ok(true)
    }

    pub async fn take_back_channels(&mut self, lent: bool) {
        if !lent {
            return;
        }
        let Some(channels) = self.channels().cloned() else { return };
        if self.unlisten_at_server(&channels).await.is_err() {
            self.close_held().await;
        } else if let Some(held) = &mut self.held {
            held.lease.pipeline.mute_notifications(false);
        }
    }

    async fn unlisten_at_server(&mut self, channels: &ChannelSet) -> Result<(), ()> {
        if self.held.is_none() {
            return Ok(());
        }
        // The client has its answer: a cancel that comes late must not hit this.
        let detached = self.cancel.slot().detach().await;
        let Some(held) = &mut self.held else { return Ok(()) };
        let text = told("UNLISTEN", channels);
        let done = run_own(&mut held.lease, &text, Origin::Keyway).await;
        self.cancel.slot().attach_again(held.lease.cancel.clone(), detached);
        done.map(drop).map_err(drop)
    }

    /// Code has made the held server listen by itself: not to what Keyway listens to, or it would be told
    /// twice. A server that cannot be asked is left as it is; whoever uses it next finds that it is lost.
    pub async fn listen_once(&mut self) {
        if let Some(channels) = self.channels().cloned() {
            let _ = self.unlisten_at_server(&channels).await;
        }
    }
}

/// Of several shards no server can be told to listen for the client.
fn listen_alone() -> Refusal {
    Refusal::unsupported(
        Reason::SessionState,
        "LISTEN in a pipeline is not supported on a database of several shards",
        "send a Sync behind it and in front of it",
    )
}

fn change_of(kind: &Kind) -> Option<ChannelChange> {
    match kind {
        Kind::Listen(name) => Some(ChannelChange::Listen(name.as_str().into())),
        Kind::Unlisten(Some(name)) => Some(ChannelChange::Unlisten(name.as_str().into())),
        Kind::Unlisten(None) => Some(ChannelChange::UnlistenAll),
        _ => None,
    }
}

fn tag_of(kind: &Kind) -> &'static str {
    if matches!(kind, Kind::Listen(_)) { "LISTEN" } else { "UNLISTEN" }
}

fn told(verb: &str, channels: &ChannelSet) -> String {
    channels.iter().map(|it| format!("{verb} {}", quote_name(it))).collect::<Vec<_>>().join(";")
}

fn is_prepare_transaction(text: &str) -> bool {
    let mut lexer = Lexer::new(text.as_bytes());
    let mut is = |word: &str| {
        let token = lexer.token().ok().flatten();
        token.and_then(|it| text.get(it.start..it.end)).is_some_and(|it| it.eq_ignore_ascii_case(word))
    };
    is("prepare") && is("transaction")
}

fn too_slow() -> Refusal {
    let message = "terminating connection because it does not read its notifications";
    Refusal::new(Reason::Limit, SqlState("53400"), message)
        .detail("more of them waited than limits.notification_bytes_max allows")
        .hint("read notifications in time, keep transactions short, or raise limits.notification_bytes_max in the configuration of keyway")
}

/// The end of the message of which `sent` is a part, or that it begins.
fn message_end(messages: &[u8], sent: usize) -> usize {
    let mut end = 0;
    while end < sent {
        match header(&messages[end..]) {
            Ok(Some(head)) if head.total >= HEADER_BYTES => end += head.total,
            _ => return messages.len(),
        }
    }
    end.min(messages.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_begun_has_an_end() {
        let bytes = [&b"A\0\0\0\x06ab"[..], b"A\0\0\0\x05a"].concat();
        for (sent, end) in [(0, 0), (1, 7), (6, 7), (7, 7), (8, 13), (13, 13)] {
            assert_eq!(message_end(&bytes, sent), end, "{sent}");
        }
    }

    #[test]
    fn prepare_transaction_is_no_prepare() {
        assert!(is_prepare_transaction("/* x */ Prepare TRANSACTION 'x'"));
        assert!(!is_prepare_transaction("PREPARE transaction_1 AS SELECT 1"));
        assert!(!is_prepare_transaction("COMMIT"));
    }
}
