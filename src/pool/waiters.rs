//! A queue in which things are handed to the longest waiter.

use std::collections::VecDeque;

use tokio::sync::oneshot;

#[derive(Debug)]
pub struct Waiters<T> {
    queue: VecDeque<oneshot::Sender<T>>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Waiters<T> {
        Waiters { queue: VecDeque::new() }
    }
}

/// A place in the queue.
#[derive(Debug)]
pub struct Ticket<T>(oneshot::Receiver<T>);

impl<T> Waiters<T> {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn join(&mut self) -> Ticket<T> {
        let (sender, receiver) = oneshot::channel();
        self.queue.push_back(sender);
        Ticket(receiver)
    }

    /// Hands `thing` to the longest waiter; comes back when nobody waits.
    pub fn hand(&mut self, mut thing: T) -> Result<(), T> {
        while let Some(waiter) = self.queue.pop_front() {
            match waiter.send(thing) {
                Ok(()) => return Ok(()),
                Err(back) => thing = back,
            }
        }
        Err(thing)
    }

    /// Drops places whose tickets are gone.
    pub fn forget_gone(&mut self) {
        self.queue.retain(|it| !it.is_closed());
    }
}

impl<T> Ticket<T> {
    /// Waits for the hand-over; `None` when the queue is gone. Cancel safe.
    pub async fn handed(&mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }

    /// Leaves the queue, with what was handed over in the meantime.
    pub fn leave(mut self) -> Option<T> {
        self.0.close();
        self.0.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn things_go_to_the_longest_waiter_that_still_waits() {
        let mut waiters = Waiters::default();
        let (gone, mut first, mut second) = (waiters.join(), waiters.join(), waiters.join());
        drop(gone);
        assert_eq!(waiters.hand(1), Ok(()));
        assert_eq!(waiters.hand(2), Ok(()));
        assert_eq!(waiters.hand(3), Err(3));
        assert_eq!((first.handed().await, second.handed().await), (Some(1), Some(2)));
    }

    #[test]
    fn one_who_leaves_takes_along_what_was_handed() {
        let mut waiters = Waiters::default();
        let ticket = waiters.join();
        waiters.hand(1).unwrap();
        assert_eq!(ticket.leave(), Some(1));
        let ticket = waiters.join();
        assert_eq!(ticket.leave(), None);
        waiters.forget_gone();
        assert_eq!(waiters.len(), 0);
    }
}
