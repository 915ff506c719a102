//! One client's place in the registry: the servers that work for it now, and the cancels on their way there. A client
//! that waits for a server is cancelled without one.
//!
//! ```text
//!            attach                     begin_cancel
//!   nothing ────────▶ servers at work ─────────────────▶ servers at work, cancels in flight
//!      ▲                    │                                        │
//!      └──── detach ◀───────┴──────── detach waits for its end ◀─────┘
//! ```

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::backend::{CancelEnd, CancelTarget};

/// Nearly always one.
pub type Targets = SmallVec<[Arc<CancelTarget>; 1]>;

#[derive(Default, Debug)]
pub struct Slot {
    /// Nearly always of 4 bytes.
    pub(super) secret: SmallVec<[u8; 16]>,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    targets: Targets,
    /// Cancels on their way to the targets.
    in_flight: u32,
    /// One of them may arrive at any time from now on.
    doubtful: bool,
    wait: Wait,
    /// Of the session, which alone waits: for a server, or for cancels to end.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
enum Wait {
    #[default]
    None,
    /// For a server; those that the client has do nothing meanwhile.
    Waiting,
    Cancelled,
}

impl State {
    fn wake_on_change(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(it) => it.clone_from(context.waker()),
            None => self.waker = Some(context.waker().clone()),
        }
    }

    /// As `Slot::try_detach`.
    fn detach(&mut self) -> Option<Detached> {
        self.targets.clear();
        if self.in_flight > 0 {
            return None;
        }
        let doubtful = std::mem::take(&mut self.doubtful);
        Some(if doubtful { Detached::Doubtful } else { Detached::Clean })
    }
}

/// The session, behind a change, without the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    waker.into_iter().for_each(Waker::wake);
}

/// Whether servers that worked for a client may work for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Detached {
    Clean,
    /// A cancel may hit them still: they are to be closed, which makes their keys worthless.
    Doubtful,
}

impl Slot {
    pub(super) fn new(secret: &[u8]) -> Slot {
        Slot { secret: SmallVec::from_slice(secret), ..Slot::default() }
    }

    /// A server begins to work for this client.
    pub fn attach(&self, target: Arc<CancelTarget>) {
        self.state.lock().targets.push(target);
    }

    /// The same server goes on to work for this client, with what `detach` has said of it.
    pub fn attach_again(&self, target: Arc<CancelTarget>, detached: Detached) {
        let mut state = self.state.lock();
        state.targets.push(target);
        state.doubtful |= detached == Detached::Doubtful;
    }

    /// The client lets go of its servers. Waits while a cancel is on its way, so that it cannot hit
    /// the query of whoever gets a server next.
    pub async fn detach(&self) -> Detached {
        poll_fn(|context| {
            let mut state = self.state.lock();
            match state.detach() {
                Some(detached) => Poll::Ready(detached),
                None => {
                    state.wake_on_change(context);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// As `detach` where it need not wait. `None` when a cancel is on its way: no further one finds the
    /// servers, and the caller has to wait or to close them.
    pub fn try_detach(&self) -> Option<Detached> {
        self.state.lock().detach()
    }

    /// Gives up the servers that nobody has let go of: they are closed, or about to be, with what they may still run.
    pub fn take_targets(&self) -> Targets {
        std::mem::take(&mut self.state.lock().targets)
    }

    fn begin_cancel(&self) -> Option<(Targets, InFlight<'_>)> {
        let mut state = self.state.lock();
        if state.targets.is_empty() {
            return None;
        }
        state.in_flight += 1;
        // Dropped half way, nobody knows.
        Some((state.targets.clone(), InFlight { slot: self, end: CancelEnd::Unknown }))
    }

    /// The client waits for a server until the guard is dropped.
    pub fn wait(&self) -> Waiting<'_> {
        self.state.lock().wait = Wait::Waiting;
        Waiting(self)
    }

    /// Whether there was a wait to cancel.
    fn cancel_wait(&self) -> bool {
        let mut state = self.state.lock();
        if state.wait == Wait::None {
            return false;
        }
        state.wait = Wait::Cancelled;
        wake(state);
        true
    }

    /// Cancels what the client's servers run now, all at once; `None` is that none works for it. Returns when
    /// they have closed the cancel connections.
    pub async fn cancel(&self) -> Option<CancelEnd> {
        if self.cancel_wait() {
            return Some(CancelEnd::Done);
        }
        let (targets, mut in_flight) = self.begin_cancel()?;
        let ends = join_all(targets.iter().map(|it| it.cancel())).await;
        in_flight.end = ends.into_iter().max().unwrap_or(CancelEnd::NotSent);
        Some(in_flight.end)
    }
}

/// A wait that a cancel ends.
pub struct Waiting<'a>(&'a Slot);

impl Waiting<'_> {
    /// Ready once it is cancelled.
    pub fn poll_cancelled(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.lock();
        if state.wait == Wait::Cancelled {
            return Poll::Ready(());
        }
        state.wake_on_change(context);
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        (state.wait, state.waker) = (Wait::None, None);
    }
}

struct InFlight<'a> {
    slot: &'a Slot,
    end: CancelEnd,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.slot.state.lock();
        state.in_flight -= 1;
        state.doubtful |= self.end == CancelEnd::Unknown;
        wake(state);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::wire::CancelKey;

    fn target(port: u16) -> Arc<CancelTarget> {
        let key = CancelKey { pid: 1, secret: Box::new([0; 4]) };
        Arc::new(CancelTarget { host: "127.0.0.1".into(), port, key, tls: None })
    }

    /// Each client has one (docs/performance.md).
    #[test]
    fn a_place_is_small() {
        let in_an_arc = size_of::<Slot>() + 2 * size_of::<usize>();
        assert!(in_an_arc <= 96, "more than the allocator's class of 96: {in_an_arc}");
    }

    #[test]
    fn a_server_is_let_go_when_the_last_cancel_has_ended() {
        let slot = Slot::default();
        slot.attach(target(1));
        let (_, mut first) = slot.begin_cancel().unwrap();
        let (_, mut second) = slot.begin_cancel().unwrap();
        let mut detaching = pin!(slot.detach());
        let mut context = Context::from_waker(Waker::noop());
        assert!(detaching.as_mut().poll(&mut context).is_pending());
        first.end = CancelEnd::Done;
        drop(first);
        assert!(detaching.as_mut().poll(&mut context).is_pending());
        assert!(slot.begin_cancel().is_none(), "who comes later finds no server");
        second.end = CancelEnd::NotSent;
        drop(second);
        assert_eq!(detaching.as_mut().poll(&mut context), Poll::Ready(Detached::Clean));
    }

    #[test]
    fn an_end_unknown_makes_the_server_doubtful_once() {
        let slot = Slot::default();
        slot.attach(target(1));
        // As when the future of a cancel is dropped.
        drop(slot.begin_cancel());
        assert_eq!(slot.try_detach(), Some(Detached::Doubtful));
        slot.attach_again(target(1), Detached::Doubtful);
        assert_eq!(slot.try_detach(), Some(Detached::Doubtful));
        slot.attach(target(2));
        assert_eq!(slot.try_detach(), Some(Detached::Clean));
    }

    #[tokio::test]
    async fn a_wait_is_cancelled_and_no_server() {
        let slot = Slot::default();
        slot.attach(target(1));
        let waiting = slot.wait();
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.poll_cancelled(&mut context).is_pending());
        assert_eq!(slot.cancel().await, Some(CancelEnd::Done));
        assert!(waiting.poll_cancelled(&mut context).is_ready());
        assert_eq!(slot.cancel().await, Some(CancelEnd::Done), "as often as it is asked for");
        assert_eq!(slot.try_detach(), Some(Detached::Clean), "the server has got none");
        drop(waiting);
        assert_eq!(slot.cancel().await, None, "what comes next is not waited for");
        let waiting = slot.wait();
        assert!(waiting.poll_cancelled(&mut context).is_pending());
    }

    #[tokio::test]
    async fn the_end_of_a_cancel_wakes_who_lets_go() {
        let slot = Slot::default();
        slot.attach(target(1));
        let (_, mut in_flight) = slot.begin_cancel().unwrap();
        let end = async {
            // The other one waits by then.
            tokio::task::yield_now().await;
            in_flight.end = CancelEnd::Done;
            drop(in_flight);
        };
        assert_eq!(tokio::join!(slot.detach(), end).0, Detached::Clean);
    }

    #[tokio::test]
    async fn a_cancel_wakes_who_waits() {
        let slot = Slot::default();
        let waiting = slot.wait();
        let cancelled = std::future::poll_fn(|it| waiting.poll_cancelled(it));
        let ((), end) = tokio::join!(cancelled, slot.cancel());
        assert_eq!(end, Some(CancelEnd::Done));
    }

    #[tokio::test]
    async fn what_nobody_listens_for_is_not_sent() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let slot = Slot::default();
        assert_eq!(slot.cancel().await, None);
        slot.attach(target(port));
        assert_eq!(slot.cancel().await, Some(CancelEnd::NotSent));
        assert_eq!(slot.try_detach(), Some(Detached::Clean));
    }

    /// Read in full and then reset: whether it was dealt with is not known.
    #[tokio::test]
    async fn a_connection_that_breaks_leaves_doubt() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let slot = Slot::default();
        slot.attach(target(listener.local_addr().unwrap().port()));
        let reset = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            // Closing resets.
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        };
        let (end, ()) = tokio::join!(slot.cancel(), reset);
        assert_eq!(end, Some(CancelEnd::Unknown));
        assert_eq!(slot.detach().await, Detached::Doubtful);
    }
}
