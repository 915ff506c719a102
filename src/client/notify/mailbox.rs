//! What a client that listens has still to be told. Bounded: one that does not read is given up, and what
//! waited for it is dropped.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::proto::ChannelSet;

#[derive(Debug)]
pub struct Mailbox {
    state: Mutex<State>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    letters: VecDeque<Letter>,
    bytes: usize,
    /// More came than may wait; nothing is taken any more.
    overflowed: bool,
    /// Shards of which the connection that listens was lost while it was meant to hear.
    missed: Vec<Arc<str>>,
    waker: Option<Waker>,
}

/// A whole message for the client.
#[derive(Clone, Debug)]
struct Letter {
    /// `None` is from Keyway itself.
    channel: Option<Arc<str>>,
    message: Bytes,
}

/// How a message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Kept,
    /// This was the one too many.
    Overflowed,
    Ignored,
}

impl Mailbox {
    pub fn new(bytes_max: usize) -> Mailbox {
        Mailbox { state: Mutex::default(), bytes_max }
    }

    pub fn put(&self, channel: Option<&Arc<str>>, message: &Bytes) -> Put {
        let mut state = self.state.lock();
        if state.overflowed {
            return Put::Ignored;
        }
        if state.bytes + message.len() > self.bytes_max {
            state.overflowed = true;
            state.letters = VecDeque::new();
        } else {
            state.bytes += message.len();
            state.letters.push_back(Letter { channel: channel.cloned(), message: message.clone() });
        }
        let put = if state.overflowed { Put::Overflowed } else { Put::Kept };
        let waker = state.waker.take();
        drop(state);
        if let Some(it) = waker {
            it.wake();
        }
        put
    }

    /// Appends what waits and is of `channels`, whole messages up to about `bytes`. Gives how many of it
    /// were notifications, and how many bytes were taken off the bound.
    pub fn take(&self, channels: &ChannelSet, bytes: usize, out: &mut Vec<u8>) -> u64 {
        let mut state = self.state.lock();
        let (start, mut count) = (out.len(), 0);
        while out.len() - start < bytes {
            let Some(letter) = state.letters.pop_front() else { break };
            state.bytes -= letter.message.len();
            if letter.channel.as_ref().is_none_or(|it| channels.contains(it)) {
                count += u64::from(letter.channel.is_some());
                out.extend_from_slice(&letter.message);
            }
        }
        if state.letters.is_empty() {
            // An idle client holds no memory for it.
            state.letters = VecDeque::new();
        }
        count
    }

    /// Drops what is not of `channels`.
    pub fn keep(&self, channels: &ChannelSet) {
        let mut state = self.state.lock();
        state.letters.retain(|it| it.channel.as_ref().is_none_or(|it| channels.contains(it)));
        state.bytes = state.letters.iter().map(|it| it.message.len()).sum();
    }

    pub fn is_overflowed(&self) -> bool {
        self.state.lock().overflowed
    }

    /// Something waits that may be told, or too much came.
    pub fn poll_news(&self, cx: &mut Context<'_>, may_tell: bool) -> Poll<()> {
        self.poll(cx, |it| it.overflowed || may_tell && !it.letters.is_empty())
    }

    /// Until too much has come. Cancel safe.
    pub async fn overflowed(&self) {
        poll_fn(|cx| self.poll(cx, |it| it.overflowed)).await;
    }

    /// One task alone waits, the client's.
    fn poll(&self, cx: &mut Context<'_>, ready: impl Fn(&State) -> bool) -> Poll<()> {
        let mut state = self.state.lock();
        if ready(&state) {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(it) => it.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    pub fn note_loss(&self, shard: &Arc<str>) {
        let mut state = self.state.lock();
        if !state.missed.contains(shard) {
            state.missed.push(shard.clone());
        }
    }

    /// Whether it missed something of the shard since it was last asked.
    pub fn take_loss(&self, shard: &str) -> bool {
        let mut state = self.state.lock();
        let found = state.missed.iter().position(|it| **it == *shard);
        found.is_some_and(|it| {
            state.missed.swap_remove(it);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_may_wait_is_too_much_for_good() {
        let (channel, message) = (Arc::<str>::from("a"), Bytes::from_static(b"0123456789"));
        let it = Mailbox::new(25);
        assert_eq!(it.put(Some(&channel), &message), Put::Kept);
        assert_eq!(it.put(None, &message), Put::Kept);
        assert!(!it.is_overflowed());
        assert_eq!(it.put(Some(&channel), &message), Put::Overflowed);
        assert_eq!(it.put(Some(&channel), &message), Put::Ignored);
        assert!(it.is_overflowed());
        let mut out = Vec::new();
        assert_eq!((it.take(&ChannelSet::from([channel]), 100, &mut out), out.len()), (0, 0));
    }

    #[test]
    fn only_what_is_listened_to_is_handed_out() {
        let (a, b) = (Arc::<str>::from("a"), Arc::<str>::from("b"));
        let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
        let it = Mailbox::new(12);
        for (channel, message) in [(&a, &one), (&b, &two), (&a, &two)] {
            assert_eq!(it.put(Some(channel), message), Put::Kept);
        }
        it.keep(&ChannelSet::from([a.clone()]));
        assert_eq!(it.put(Some(&a), &one), Put::Kept, "there is room again");
        let mut out = Vec::new();
        assert_eq!(it.take(&ChannelSet::from([a.clone()]), 1, &mut out), 1);
        assert_eq!(it.take(&ChannelSet::from([a.clone()]), 100, &mut out), 2);
        assert_eq!(out, b"onetwoone");
        it.put(Some(&b), &one);
        assert_eq!(it.take(&ChannelSet::from([a]), 100, &mut out), 0);
        assert_eq!(it.put(Some(&b), &Bytes::from_static(b"twelve bytes")), Put::Kept, "all is taken off");
    }
}
