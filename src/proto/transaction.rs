//! The client's transaction, which is more than the server's: BEGIN is held back until a statement
//! names a shard, it may move to another shard until one binds it, and a refusal of Keyway aborts a
//! transaction as an error of the server would.

use super::channels::ChannelChange;
use super::declared::Declared;
use super::prologue::Prologue;
use super::settings::{Assignment, Settings};
use crate::base::ShardId;
use crate::sql::Isolation;
use crate::wire::TxStatus;

/// ```text
///           BEGIN                    first statement (BEGIN goes in front of it)
///  Idle ───────────▶ Deferred ─────────────────────────────▶ Open ◀──▶ Open, failed (server says 'E')
///   ▲                  │    ▲                                  │ │
///   │ COMMIT, ROLLBACK │    │ SET LOCAL ...: kept in prologue  │ │ refusal by Keyway
///   ├──────────────────┘    └──────────────                    │ ▼
///   │                  │ refusal                               │ Open, refused ── ROLLBACK TO ──▶ Open
///   │                  ▼                                       │
///   └───────────── Refused ◀── (no server holds anything)      └─▶ Idle at ReadyForQuery('I')
/// ```
#[derive(Debug, Default)]
pub struct Transaction {
    state: State,
    bond: Bond,
    /// In most there is nothing.
    done: Option<Box<Done>>,
    /// As far as it is known.
    isolation: Option<Isolation>,
    /// Not all that would begin it again is kept.
    partial: bool,
    /// The shard that it has written on.
    written: Noted,
    /// Where code has run of which is not known what settings it made.
    opaque: Noted,
}

/// A shard or none in two bytes: there is one transaction for each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted(u16);

impl Noted {
    const NONE: Noted = Noted(u16::MAX);

    fn get(self) -> Option<ShardId> {
        (self != Noted::NONE).then_some(ShardId(self.0))
    }
}

impl Default for Noted {
    fn default() -> Noted {
        Noted::NONE
    }
}

/// What ties an open transaction to its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bond {
    /// Statements were parsed or described at most.
    #[default]
    None,
    /// Only what every shard answers alike was read; a snapshot may have been taken.
    Read,
    Bound,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Deferred {
        prologue: Prologue,
        read_only: bool,
    },
    /// Refused before any server was asked.
    Refused,
    Open {
        read_only: bool,
        /// Aborted by Keyway, while the server still says 'T'.
        refused: bool,
        failed: bool,
        /// What would begin it again elsewhere, or on a further server.
        prologue: Prologue,
    },
}

/// What ends with the transaction, and what counts from then on.
#[derive(Debug, Default)]
struct Done {
    pending: Vec<Pending>,
    cursors: Declared,
}

/// What was done to the session inside the transaction; it counts from COMMIT on.
#[derive(Debug)]
enum Pending {
    Set(Assignment),
    Reset(String),
    ResetAll,
    Channel(ChannelChange),
    /// Only until the end of the transaction.
    Local(Assignment),
    Savepoint {
        name: String,
        /// The latest cursor in front of it.
        cursor: u32,
    },
}

/// What BEGIN says, as far as its text fixes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    pub read_only: bool,
    pub isolation: Option<Isolation>,
}

/// How a transaction came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Committed,
    RolledBack,
}

impl Transaction {
    /// What the client is told at ReadyForQuery.
    pub fn status(&self) -> TxStatus {
        match self.state {
            State::Idle => TxStatus::Idle,
            State::Refused | State::Open { refused: true, .. } | State::Open { failed: true, .. } => {
                TxStatus::Failed
            }
            State::Deferred { .. } | State::Open { .. } => TxStatus::Open,
        }
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// BEGIN was answered by Keyway and no server knows of it.
    pub fn is_deferred(&self) -> bool {
        matches!(self.state, State::Deferred { .. })
    }

    /// Aborted by Keyway: everything but the end of the transaction is refused (25P02).
    pub fn is_refused(&self) -> bool {
        matches!(self.state, State::Refused | State::Open { refused: true, .. })
    }

    pub fn is_read_only(&self) -> bool {
        matches!(self.state, State::Deferred { read_only: true, .. } | State::Open { read_only: true, .. })
    }

    /// `several`: there are shards to choose from.
    pub fn defer(&mut self, begin: &str, mode: Mode, several: bool) {
        let Mode { read_only, isolation } = mode;
        self.isolation = isolation;
        self.state = State::Deferred { prologue: Prologue::begin(begin), read_only };
        self.partial = !several;
        self.bond = Bond::None;
        self.forget_servers();
    }

    fn forget_servers(&mut self) {
        (self.written, self.opaque) = (Noted::NONE, Noted::NONE);
    }

    fn prologue_mut(&mut self) -> Option<&mut Prologue> {
        match &mut self.state {
            State::Open { prologue, .. } | State::Deferred { prologue, .. } => Some(prologue),
            State::Idle | State::Refused => None,
        }
    }

    /// Takes note of a setting, to be sent in front of the first statement, or made again where the transaction
    /// begins anew or takes a further server.
    pub fn record(&mut self, statement: &str) {
        self.keep(|it| it.push(statement));
    }

    /// What does not find room binds the transaction.
    fn keep(&mut self, add: impl FnOnce(&mut Prologue) -> bool) {
        if self.partial {
            self.bond = Bond::Bound;
        } else if let Some(prologue) = self.prologue_mut()
            && !add(prologue)
        {
            (self.partial, self.bond) = (true, Bond::Bound);
        }
    }

    /// Something has been done to it of which what is kept tells nothing.
    pub fn forget_beginning(&mut self) {
        if !self.is_idle() {
            (self.partial, self.bond) = (true, Bond::Bound);
        }
    }

    /// A further server can be made to be in this transaction by `prologue`.
    pub fn can_begin_again(&self) -> bool {
        !self.partial
            && matches!(&self.state, State::Open { prologue, .. } | State::Deferred { prologue, .. } if !prologue.is_empty())
    }

    pub fn isolation(&self) -> Option<Isolation> {
        self.isolation
    }

    /// What SET TRANSACTION or a server says.
    pub fn set_isolation(&mut self, isolation: Option<Isolation>) {
        self.isolation = isolation;
    }

    /// A statement that may write has run there. The first one decides: none elsewhere is let through.
    pub fn write_on(&mut self, shard: ShardId) {
        if self.written == Noted::NONE {
            self.written = Noted(shard.0);
        }
    }

    pub fn written(&self) -> Option<ShardId> {
        self.written.get()
    }

    /// Code has run there that may have made settings, of which only that server knows.
    pub fn hide_settings(&mut self, shard: ShardId) {
        if self.opaque == Noted::NONE {
            self.opaque = Noted(shard.0);
        }
    }

    /// The only server that is known to have all settings, if it is one alone.
    pub fn hidden_settings(&self) -> Option<ShardId> {
        self.opaque.get()
    }

    fn pending(&self) -> &[Pending] {
        self.done.as_ref().map_or(&[], |it| &it.pending)
    }

    fn pending_mut(&mut self) -> &mut Vec<Pending> {
        &mut self.done.get_or_insert_default().pending
    }

    fn last_cursor(&self) -> u32 {
        self.done.as_ref().map_or(0, |it| it.cursors.last())
    }

    /// The number of the next cursor.
    pub fn next_cursor(&self) -> u32 {
        self.last_cursor() + 1
    }

    /// A cursor is declared; its number.
    pub fn declare(&mut self) -> u32 {
        self.done.get_or_insert_default().cursors.add()
    }

    /// No ROLLBACK TO has undone its DECLARE, and it is not closed.
    pub fn has_cursor(&self, number: u32) -> bool {
        self.done.as_ref().is_some_and(|it| it.cursors.has(number))
    }

    pub fn close_cursor(&mut self, number: u32) {
        self.done.iter_mut().for_each(|it| it.cursors.close(number));
    }

    pub fn close_cursors(&mut self) {
        self.done.iter_mut().for_each(|it| it.cursors.close_all());
    }

    /// A statement ran that binds the transaction to its server so much.
    pub fn bind(&mut self, bond: Bond) {
        if bond == Bond::Bound || self.bond == Bond::None {
            self.bond = bond;
        }
    }

    pub fn bond(&self) -> Bond {
        self.bond
    }

    /// It is open at a server, and could as well begin on another shard.
    pub fn is_movable(&self) -> bool {
        self.bond != Bond::Bound && matches!(self.state, State::Open { refused: false, failed: false, .. })
    }

    /// Its server has let go of it: as if no statement had been sent yet.
    pub fn defer_again(&mut self) {
        if let State::Open { read_only, prologue, .. } = &mut self.state {
            self.state = State::Deferred { prologue: std::mem::take(prologue), read_only: *read_only };
        }
    }

    /// What goes to the server in front of the first statement. The state stays until the server
    /// has answered, so that a server that dies at once can be replaced.
    pub fn prologue(&self) -> impl Iterator<Item = &str> {
        let deferred = match &self.state {
            State::Deferred { prologue, .. } => Some(prologue),
            _ => None,
        };
        deferred.into_iter().flat_map(Prologue::texts)
    }

    pub fn prologue_len(&self) -> usize {
        if let State::Deferred { prologue, .. } = &self.state { prologue.len() } else { 0 }
    }

    /// What makes a further server one of this transaction.
    pub fn beginning(&self) -> Vec<&str> {
        match &self.state {
            State::Deferred { prologue, .. } | State::Open { prologue, .. } => prologue.texts().collect(),
            State::Idle | State::Refused => Vec::new(),
        }
    }

    /// An error of Keyway's own. `false` outside a transaction.
    pub fn refuse(&mut self) -> bool {
        match &mut self.state {
            State::Idle => return false,
            State::Deferred { .. } | State::Refused => self.state = State::Refused,
            State::Open { refused, .. } => *refused = true,
        }
        true
    }

    /// The server of an open transaction is gone, and the transaction with it. The client has to end it
    /// by ROLLBACK: were it told "idle", the rest of its statements would run one by one.
    pub fn lose(&mut self) {
        self.done = None;
        self.forget_servers();
        if !self.is_idle() {
            self.state = State::Refused;
        }
    }

    /// The server has taken ROLLBACK TO SAVEPOINT, or AND CHAIN: what Keyway refused since is forgotten.
    pub fn unrefuse(&mut self) {
        if let State::Open { refused, .. } = &mut self.state {
            *refused = false;
        }
    }

    /// The server's word at ReadyForQuery.
    pub fn follow(&mut self, status: TxStatus) {
        let failed = status == TxStatus::Failed;
        if status == TxStatus::Idle {
            self.isolation = None;
            self.forget_servers();
        }
        self.state = match (status, std::mem::take(&mut self.state)) {
            (TxStatus::Idle, _) => State::Idle,
            (_, State::Open { read_only, refused, prologue, .. }) => {
                State::Open { read_only, refused, failed, prologue }
            }
            (_, State::Deferred { prologue, read_only }) => {
                State::Open { read_only, refused: false, failed, prologue }
            }
            (_, State::Idle | State::Refused) => {
                // Begun by the client's own bytes: there is nothing to begin it again with.
                self.bond = Bond::Bound;
                State::Open { read_only: false, refused: false, failed, prologue: Prologue::default() }
            }
        };
    }

    /// Ends a transaction that no server knows of, or whose server is gone.
    pub fn end(&mut self) {
        self.state = State::Idle;
        self.done = None;
        self.forget_servers();
    }

    /// AND CHAIN: another one has begun where this one was, with its modes and with what code has set that only one
    /// server knows. What a further one would have to be told is of two transactions.
    pub fn chain(&mut self) {
        self.written = Noted::NONE;
        self.unrefuse();
        self.forget_beginning();
    }

    pub fn set(&mut self, assignment: Assignment) {
        self.pending_mut().push(Pending::Set(assignment));
    }

    pub fn reset(&mut self, name: &str) {
        self.pending_mut().push(Pending::Reset(name.to_owned()));
    }

    pub fn reset_all(&mut self) {
        self.pending_mut().push(Pending::ResetAll);
    }

    /// SET LOCAL, which outside of a transaction does nothing.
    pub fn set_local(&mut self, assignment: Assignment) {
        if !self.is_idle() {
            self.pending_mut().push(Pending::Local(assignment));
        }
    }

    /// Whether the transaction has set, or set back, a setting whose name begins like this.
    pub fn sets_any(&self, prefix: &str) -> bool {
        self.pending().iter().any(|it| match it {
            Pending::Set(it) | Pending::Local(it) => it.name.starts_with(prefix),
            Pending::Reset(of) => of.starts_with(prefix),
            Pending::ResetAll => true,
            Pending::Channel(_) | Pending::Savepoint { .. } => false,
        })
    }

    /// The statement by which the transaction has set it last; `None` within where it was set back.
    pub fn latest(&self, name: &str) -> Option<Option<&str>> {
        self.pending().iter().rev().find_map(|it| match it {
            Pending::Set(it) | Pending::Local(it) => (it.name == name).then_some(Some(&it.statement[..])),
            Pending::Reset(of) => (of == name).then_some(None),
            Pending::ResetAll => Some(None),
            Pending::Channel(_) | Pending::Savepoint { .. } => None,
        })
    }

    /// The transaction has set it to something that the session's settings do not tell.
    pub fn may_have_set(&self, name: &str) -> bool {
        self.pending().iter().any(|it| match it {
            Pending::Set(it) | Pending::Local(it) => it.name == name,
            Pending::Reset(of) => of == name,
            Pending::ResetAll => true,
            Pending::Channel(_) | Pending::Savepoint { .. } => false,
        })
    }

    /// `text` is the statement that made it.
    pub fn savepoint(&mut self, name: &str, text: &str) {
        let cursor = self.last_cursor();
        self.pending_mut().push(Pending::Savepoint { name: name.to_owned(), cursor });
        self.keep(|it| it.savepoint(name, text));
    }

    /// It has set something that outlives it, if it commits.
    pub fn makes_settings(&self) -> bool {
        self.pending().iter().any(|it| matches!(it, Pending::Set(_) | Pending::Reset(_) | Pending::ResetAll))
    }

    pub fn change_channel(&mut self, change: ChannelChange) {
        self.pending_mut().push(Pending::Channel(change));
    }

    /// It has executed LISTEN or UNLISTEN.
    pub fn changes_channels(&self) -> bool {
        self.pending().iter().any(|it| matches!(it, Pending::Channel(_)))
    }

    /// What LISTEN and UNLISTEN would come to if it committed now.
    pub fn channel_changes(&self) -> impl Iterator<Item = &ChannelChange> {
        self.pending().iter().filter_map(|it| match it {
            Pending::Channel(change) => Some(change),
            _ => None,
        })
    }

    /// RELEASE, by `text`: what was done since belongs to the savepoint around it.
    pub fn release(&mut self, name: &str, text: &str) {
        self.keep(|it| it.release(name, text));
        if let Some((at, _)) = self.find_savepoint(name) {
            let mut index = 0;
            self.pending_mut().retain(|it| {
                index += 1;
                index <= at || !matches!(it, Pending::Savepoint { .. })
            });
        }
    }

    /// ROLLBACK TO, by `text`, reverts what was set after the savepoint, and keeps the savepoint.
    pub fn rollback_to(&mut self, name: &str, text: &str) {
        self.keep(|it| it.rollback_to(name, text));
        let (kept, cursor) = self.find_savepoint(name).map_or((0, 0), |(at, cursor)| (at + 1, cursor));
        if let Some(done) = &mut self.done {
            done.pending.truncate(kept);
            done.cursors.undo_behind(cursor);
        }
    }

    /// Its place among what is pending, and the latest cursor in front of it.
    fn find_savepoint(&self, name: &str) -> Option<(usize, u32)> {
        self.pending().iter().enumerate().rev().find_map(|(at, it)| match it {
            Pending::Savepoint { name: of, cursor } if of == name => Some((at, *cursor)),
            _ => None,
        })
    }

    /// Applies what the transaction set, if it committed; what it did to channels is given back. `servers`
    /// follow the same statements.
    pub fn settle(
        &mut self,
        ended: Ended,
        session: &mut Settings,
        servers: &mut [&mut Settings],
        startup: &Settings,
    ) -> Vec<ChannelChange> {
        let pending = self.done.take().map(|it| it.pending).unwrap_or_default();
        let mut channels = Vec::new();
        if ended == Ended::RolledBack {
            return channels;
        }
        for it in pending {
            match it {
                Pending::Set(assignment) => {
                    servers.iter_mut().for_each(|it| it.set(assignment.clone()));
                    session.set(assignment);
                }
                Pending::Reset(name) => {
                    session.reset(&name, startup);
                    servers.iter_mut().for_each(|it| it.reset(&name, &Settings::default()));
                }
                Pending::ResetAll => {
                    session.reset_all(startup);
                    servers.iter_mut().for_each(|it| it.reset_all(&Settings::default()));
                }
                Pending::Channel(change) => channels.push(change),
                Pending::Local(_) | Pending::Savepoint { .. } => {}
            }
        }
        channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Assignment {
        Assignment::of_value(name, value)
    }

    fn settled(it: &mut Transaction, ended: Ended) -> Settings {
        let (mut session, mut server) = (Settings::default(), Settings::default());
        let channels = it.settle(ended, &mut session, &mut [&mut server], &Settings::default());
        assert!(session.same(&server) && channels.is_empty());
        session
    }

    fn listen(name: &str) -> ChannelChange {
        ChannelChange::Listen(name.into())
    }

    #[test]
    fn listen_counts_from_commit_on_and_savepoints_revert_it() {
        let mut it = Transaction::default();
        let settled = |it: &mut Transaction, ended| {
            let (mut session, mut server) = (Settings::default(), Settings::default());
            it.settle(ended, &mut session, &mut [&mut server], &Settings::default())
        };
        it.change_channel(listen("a"));
        it.savepoint("s", "SAVEPOINT s");
        it.change_channel(listen("b"));
        it.change_channel(ChannelChange::UnlistenAll);
        it.rollback_to("s", "ROLLBACK TO s");
        it.change_channel(listen("c"));
        assert!(it.changes_channels());
        assert_eq!(it.channel_changes().count(), 2);
        assert_eq!(settled(&mut it, Ended::Committed), [listen("a"), listen("c")]);
        assert!(!it.changes_channels());
        it.change_channel(listen("d"));
        assert!(settled(&mut it, Ended::RolledBack).is_empty());
        it.change_channel(listen("e"));
        it.lose();
        assert!(!it.changes_channels());
    }

    #[test]
    fn a_released_savepoint_is_no_place_to_go_back_to() {
        let mut it = Transaction::default();
        it.savepoint("s", "SAVEPOINT s");
        it.change_channel(listen("outer"));
        it.savepoint("s", "SAVEPOINT s");
        it.savepoint("t", "SAVEPOINT t");
        it.change_channel(listen("inner"));
        it.release("s", "RELEASE s");
        it.rollback_to("s", "ROLLBACK TO s");
        assert_eq!(it.channel_changes().count(), 0, "back to the outer one");
    }

    #[test]
    fn begin_waits_for_a_statement_and_status_says_open() {
        let mut it = Transaction::default();
        it.defer("BEGIN READ ONLY", Mode { read_only: true, isolation: None }, true);
        it.record("SET LOCAL work_mem = '1MB'");
        assert_eq!((it.status(), it.is_read_only()), (TxStatus::Open, true));
        assert_eq!(it.prologue().collect::<Vec<_>>(), ["BEGIN READ ONLY", "SET LOCAL work_mem = '1MB'"]);
        it.follow(TxStatus::Open);
        assert!(!it.is_deferred() && it.is_read_only());
        it.follow(TxStatus::Idle);
        assert!(it.is_idle());
    }

    #[test]
    fn a_transaction_moves_until_a_statement_binds_it() {
        let mut it = Transaction::default();
        it.defer("BEGIN READ ONLY", Mode { read_only: true, isolation: None }, true);
        it.bind(Bond::Read);
        it.follow(TxStatus::Open);
        it.savepoint("a", "SAVEPOINT a");
        assert!(it.is_movable());
        it.defer_again();
        assert_eq!(it.prologue().collect::<Vec<_>>(), ["BEGIN READ ONLY", "SAVEPOINT a"]);
        assert!(it.is_read_only() && it.bond() == Bond::Read);
        it.bind(Bond::Bound);
        it.bind(Bond::Read);
        it.follow(TxStatus::Open);
        assert!(!it.is_movable());
        it.follow(TxStatus::Idle);
        it.follow(TxStatus::Open);
        assert!(!it.is_movable(), "begun by a text of the client's");
    }

    #[test]
    fn a_transaction_that_failed_does_not_move() {
        let mut it = Transaction::default();
        it.defer("BEGIN", Mode::default(), true);
        it.follow(TxStatus::Failed);
        assert!(!it.is_movable());
        it.follow(TxStatus::Open);
        assert!(it.is_movable(), "after ROLLBACK TO");
    }

    #[test]
    fn a_refusal_aborts_the_transaction_until_it_ends() {
        let mut it = Transaction::default();
        assert!(!it.refuse());
        it.defer("BEGIN", Mode::default(), true);
        assert!(it.refuse());
        assert_eq!(it.status(), TxStatus::Failed);
        it.end();
        it.defer("BEGIN", Mode::default(), true);
        it.follow(TxStatus::Open);
        it.refuse();
        it.follow(TxStatus::Open);
        assert_eq!(it.status(), TxStatus::Failed, "the server's word does not undo a refusal");
        it.unrefuse();
        assert_eq!(it.status(), TxStatus::Open);
    }

    #[test]
    fn settings_count_from_commit_on_and_savepoints_revert_them() {
        let mut it = Transaction::default();
        it.set(set("a", "1"));
        it.savepoint("s", "SAVEPOINT s");
        it.set(set("b", "1"));
        it.rollback_to("s", "ROLLBACK TO s");
        it.set(set("c", "1"));
        let session = settled(&mut it, Ended::Committed);
        let mut want = Settings::default();
        want.set(set("a", "1"));
        want.set(set("c", "1"));
        assert!(session.same(&want));
        it.set(set("d", "1"));
        assert!(settled(&mut it, Ended::RolledBack).is_empty());
    }

    #[test]
    fn a_chained_transaction_is_another_one_on_the_same_servers() {
        let mut it = Transaction::default();
        it.defer("BEGIN", Mode { read_only: false, isolation: Some(Isolation::ReadCommitted) }, true);
        it.follow(TxStatus::Open);
        it.set(set("a", "1"));
        it.write_on(ShardId(1));
        it.hide_settings(ShardId(1));
        let cursor = it.declare();
        let (mut session, mut one, mut other) = Default::default();
        it.refuse();
        let ended = Ended::Committed;
        it.settle(ended, &mut session, &mut [&mut one, &mut other], &Settings::default());
        it.chain();
        assert!(session.same(&one) && session.same(&other) && !session.is_empty());
        assert_eq!((it.status(), it.written()), (TxStatus::Open, None));
        assert_eq!(
            (it.isolation(), it.hidden_settings()),
            (Some(Isolation::ReadCommitted), Some(ShardId(1)))
        );
        assert!(!it.can_begin_again() && !it.is_movable() && !it.has_cursor(cursor) && !it.makes_settings());
    }

    #[test]
    fn a_further_server_begins_as_what_still_stands() {
        let mut it = Transaction::default();
        it.defer("BEGIN", Mode::default(), true);
        it.record("SET LOCAL a = 1");
        it.follow(TxStatus::Open);
        it.bind(Bond::Bound);
        it.savepoint("s", "SAVEPOINT s");
        it.record("SET LOCAL a = 2");
        it.rollback_to("s", "ROLLBACK TO s");
        assert_eq!(it.beginning(), ["BEGIN", "SET LOCAL a = 1", "SAVEPOINT s"]);
        it.write_on(ShardId(1));
        it.follow(TxStatus::Idle);
        assert!(it.written().is_none() && !it.can_begin_again());
    }

    #[test]
    fn cursors_end_with_the_savepoint_that_they_were_declared_behind() {
        let mut it = Transaction::default();
        it.defer("BEGIN", Mode::default(), true);
        let outer = it.declare();
        it.savepoint("s", "SAVEPOINT s");
        let middle = it.declare();
        it.release("s", "RELEASE s");
        it.savepoint("t", "SAVEPOINT t");
        let last = it.declare();
        it.rollback_to("t", "ROLLBACK TO t");
        assert!(it.has_cursor(outer) && it.has_cursor(middle) && !it.has_cursor(last));
        it.close_cursor(outer);
        it.rollback_to("t", "ROLLBACK TO t");
        assert!(!it.has_cursor(outer) && it.has_cursor(middle), "no ROLLBACK TO opens what is closed");
        settled(&mut it, Ended::RolledBack);
        assert!(!it.has_cursor(middle) && it.next_cursor() == 1);
    }

    #[test]
    fn closed_cursors_take_no_room() {
        let mut it = Transaction::default();
        it.defer("BEGIN", Mode::default(), true);
        it.savepoint("s", "SAVEPOINT s");
        let kept = it.declare();
        for _ in 0..300_000 {
            let number = it.declare();
            it.close_cursor(number);
        }
        assert_eq!(it.pending().len(), 1, "the savepoint");
        assert!(it.has_cursor(kept));
        it.close_cursors();
        assert!(!it.has_cursor(kept));
    }
}
