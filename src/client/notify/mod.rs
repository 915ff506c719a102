//! LISTEN and NOTIFY in transaction pooling: one connection listens for all clients of a database, to the
//! channels that any of them wants, and hands each notification to those who want it.

mod listener;
mod mailbox;
mod metrics;

pub use listener::{Listener, ListenerSpec};
pub use mailbox::{Mailbox, Put};
pub use metrics::{NotifyMetricFamilies, NotifyMetrics};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
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

/// Of one database, on its first shard.
pub struct Hub {
    board: Mutex<Switchboard<Arc<Mailbox>>>,
    /// The connection has to be told or asked something.
    work: Notify,
    progress: watch::Sender<Progress>,
    limits: Mutex<NotifyLimits>,
    /// Whom notifications are from.
    pub holders: Holders,
    pub metrics: NotifyMetrics,
    hits: LimitHits,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    /// The last ticket that is good.
    good: Ticket,
    connected: bool,
    /// Connections lost so far.
    losses: u64,
    /// Why there is no connection.
    problem: Option<Arc<str>>,
}

impl Hub {
    pub fn new(limits: NotifyLimits, metrics: NotifyMetrics, hits: LimitHits) -> Arc<Hub> {
        Arc::new(Hub {
            board: Mutex::default(),
            work: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
            limits: Mutex::new(limits),
            holders: Holders::default(),
            metrics,
            hits,
        })
    }

    pub fn limits(&self) -> NotifyLimits {
        *self.limits.lock()
    }

    /// By a reload. What waits for a client that listens already is bounded as before.
    pub fn set_limits(&self, limits: NotifyLimits) {
        *self.limits.lock() = limits;
    }

    /// Returns when the server has been told: what is committed from then on is heard. The error is why not.
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
        self.work.notify_one();
        let good = progress.wait_for(|it| it.good >= ticket);
        if timeout(self.limits().wait_timeout, good).await.is_ok_and(|it| it.is_ok()) {
            return Ok(());
        }
        let problem = self.progress.borrow().problem.clone();
        Err(problem.map_or_else(|| "the server does not answer".to_owned(), |it| it.to_string()))
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
        self.work.notify_one();
    }

    /// Returns when everything committed until now is with those who listen, or lost with the connection.
    pub async fn catch_up(&self) {
        let mut progress = self.progress.subscribe();
        let losses = {
            let now = progress.borrow();
            if !now.connected {
                return;
            }
            now.losses
        };
        let ticket = self.board.lock().take_ticket();
        self.work.notify_one();
        let done = progress.wait_for(|it| it.good >= ticket || it.losses != losses);
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
