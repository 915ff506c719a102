//! LISTEN and NOTIFY in transaction pooling: one connection to each shard listens for all clients of a database, to
//! the channels that any of them wants, and hands each notification to those who want it.

mod listener;
mod mailbox;
mod metrics;

pub use listener::{Listener, ListenerSpec};
pub use mailbox::{Mailbox, Put};
pub use metrics::{NotifyMetricFamilies, NotifyMetrics};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::backend::Holders;
use crate::metrics::{Limit, LimitHits};
use crate::proto::{ChannelSet, Switchboard, Ticket};

/// What one client may have.
#[derive(Clone, Copy, Debug)]
pub struct NotifyLimits {
    pub channels_max: usize,
    /// Messages that wait for it.
    pub bytes_max: usize,
    /// How long it waits for the connection that listens.
    pub wait_timeout: Duration,
}

/// Of one database.
pub struct Hub {
    board: Mutex<Switchboard<Arc<Mailbox>>>,
    /// The connections have to be told or asked something.
    work: watch::Sender<u64>,
    /// Of each shard's line, by the shard's name.
    progress: watch::Sender<BTreeMap<Arc<str>, Progress>>,
    limits: Mutex<NotifyLimits>,
    /// Whom notifications are from.
    pub holders: Holders,
    pub metrics: NotifyMetrics,
    hits: LimitHits,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    /// Of the shard where NOTIFY goes.
    is_first: bool,
    /// The last ticket that is good.
    good: Ticket,
    connected: bool,
    /// Connections lost so far.
    losses: u64,
    /// Why there is no connection.
    problem: Option<Arc<str>>,
}

impl Progress {
    /// Its shard cannot be reached, and others are not to suffer for it: what it notifies is heard later, and who
    /// listens is told then. Without the first one nothing that clients notify would be heard.
    fn is_out(&self) -> bool {
        !self.is_first && !self.connected && self.problem.is_some()
    }
}

impl Hub {
    pub fn new(limits: NotifyLimits, metrics: NotifyMetrics, hits: LimitHits) -> Arc<Hub> {
        Arc::new(Hub {
            board: Mutex::default(),
            work: watch::Sender::new(0),
            progress: watch::Sender::new(BTreeMap::new()),
            limits: Mutex::new(limits),
            holders: Holders::default(),
            metrics,
            hits,
        })
    }

    fn wake(&self) {
        self.work.send_modify(|it| *it = it.wrapping_add(1));
    }

    fn open(&self, shard: &Arc<str>, is_first: bool) {
        self.board.lock().open(shard);
        self.progress.send_modify(|it| it.entry(shard.clone()).or_default().is_first = is_first);
    }

    /// The shard is no part of the database any more.
    fn close(&self, shard: &str) {
        self.board.lock().close(shard);
        self.progress.send_modify(|it| drop(it.remove(shard)));
    }

    fn note_progress(&self, shard: &str, note: impl FnOnce(&mut Progress)) {
        self.progress.send_if_modified(|it| it.get_mut(shard).map(note).is_some());
    }

    pub fn limits(&self) -> NotifyLimits {
        *self.limits.lock()
    }

    /// By a reload. What waits for a client that listens already is bounded as before.
    pub fn set_limits(&self, limits: NotifyLimits) {
        *self.limits.lock() = limits;
    }

    /// Returns when the servers have been told: what is committed from then on is heard. The error is why not.
    /// Dropped half way, it may be subscribed.
    pub async fn subscribe(&self, mailbox: &Arc<Mailbox>, channels: &ChannelSet) -> Result<(), String> {
        let ticket = {
            let mut board = self.board.lock();
            for channel in channels {
                // One name for all who listen to it.
                let name = board.name(channel).unwrap_or(channel).clone();
                board.subscribe(&name, mailbox.clone());
            }
            self.metrics.channels.set(board.len() as i64);
            board.take_ticket()
        };
        let mut progress = self.progress.subscribe();
        self.wake();
        let good = progress.wait_for(|it| it.values().all(|it| it.good >= ticket || it.is_out()));
        if timeout(self.limits().wait_timeout, good).await.is_ok_and(|it| it.is_ok()) {
            self.note_deaf(mailbox, ticket);
            return Ok(());
        }
        let problem = self.progress.borrow().values().find_map(|it| it.problem.clone());
        Err(problem.map_or_else(|| "the server does not answer".to_owned(), |it| it.to_string()))
    }

    /// What shards that cannot be reached notify until they are, is missed.
    fn note_deaf(&self, mailbox: &Mailbox, ticket: Ticket) {
        let shards: Vec<Arc<str>> = self.progress.borrow().keys().cloned().collect();
        let mut board = self.board.lock();
        for shard in shards.iter().filter(|it| !board.is_good(it, ticket)).collect::<Vec<_>>() {
            mailbox.note_loss(shard);
            board.note_missed(shard);
        }
    }

    pub fn unsubscribe(&self, mailbox: &Arc<Mailbox>, channels: &ChannelSet) {
        if channels.is_empty() {
            return;
        }
        let mut board = self.board.lock();
        for channel in channels {
            board.unsubscribe(channel, |it| Arc::ptr_eq(it, mailbox));
        }
        self.metrics.channels.set(board.len() as i64);
        drop(board);
        self.wake();
    }

    /// Returns when everything committed on the shard until now is with those who listen, or lost with the connection.
    pub async fn catch_up(&self, shard: &str) {
        let mut progress = self.progress.subscribe();
        let losses = match progress.borrow().get(shard) {
            Some(it) if it.connected => it.losses,
            _ => return,
        };
        let ticket = self.board.lock().take_ticket_of(shard);
        self.wake();
        let done =
            progress.wait_for(|it| it.get(shard).is_none_or(|it| it.good >= ticket || it.losses != losses));
        let _ = timeout(self.limits().wait_timeout, done).await;
    }

    /// A notification has come, with the id that clients know its sender by in it.
    fn hand_out(&self, channel: &str, message: &Bytes) {
        let board = self.board.lock();
        let Some(name) = board.name(channel) else { return };
        for mailbox in board.subscribers(channel) {
            self.put(mailbox, Some(name), message);
        }
    }

    fn put(&self, mailbox: &Mailbox, channel: Option<&Arc<str>>, message: &Bytes) {
        if mailbox.put(channel, message) == Put::Overflowed {
            self.hits.hit(Limit::NotificationBytes);
        }
    }
}
