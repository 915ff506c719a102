//! A queue in which things are handed to the longest waiter.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

#[derive(Debug)]
pub struct Waiters<T> {
    queue: VecDeque<Place<T>>,
    /// Places whose tickets have left; they are swept out when they are half of all.
    left: usize,
}

#[derive(Debug)]
struct Place<T> {
    /// Of who has come later it is not earlier.
    since: Instant,
    sender: oneshot::Sender<T>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Waiters<T> {
        Waiters { queue: VecDeque::new(), left: 0 }
    }
}

/// A place in the queue. Until something was handed over it is given back by `leave`, as the queue counts who waits.
#[derive(Debug)]
pub struct Ticket<T>(oneshot::Receiver<T>);

impl<T> Waiters<T> {
    /// Those who still wait.
    pub fn len(&self) -> usize {
        self.queue.len().saturating_sub(self.left)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `now` is read where the queue cannot change: `hand_all_since` needs places in the order of their times.
    pub fn join(&mut self, now: Instant) -> Ticket<T> {
        let (sender, receiver) = oneshot::channel();
        self.queue.push_back(Place { since: now, sender });
        Ticket(receiver)
    }

    /// Hands `thing` to the longest waiter; comes back when nobody waits.
    pub fn hand(&mut self, mut thing: T) -> Result<(), T> {
        while let Some(waiter) = self.pop() {
            match waiter.sender.send(thing) {
                Ok(()) => return Ok(()),
                Err(back) => thing = back,
            }
        }
        Err(thing)
    }

    /// Leaves the queue, with what was handed over in the meantime. Of one who leaves a queue of n in the middle, O(1)
    /// amortised: when a server hangs, all clients may leave at once.
    pub fn leave(&mut self, mut ticket: Ticket<T>) -> Option<T> {
        match ticket.0.try_recv() {
            Ok(thing) => return Some(thing),
            // It was sent away.
            Err(TryRecvError::Closed) => return None,
            Err(TryRecvError::Empty) => {}
        }
        drop(ticket);
        self.left += 1;
        if self.left * 2 >= self.queue.len() {
            self.queue.retain(|it| !it.sender.is_closed());
            self.left = 0;
        }
        None
    }

    /// All get nothing, and whoever of them leaves later is not in the queue.
    pub fn send_away(&mut self) {
        self.queue.clear();
        self.left = 0;
    }

    /// Hands `thing` to each who has waited since `moment` or longer; how many there were, and since when the next one
    /// waits.
    pub fn hand_all_since(&mut self, moment: Instant, thing: impl Fn() -> T) -> (usize, Option<Instant>) {
        let mut count = 0;
        while let Some(first) = self.queue.front() {
            let is_gone = first.sender.is_closed();
            if !is_gone && first.since > moment {
                return (count, Some(first.since));
            }
            let sent = self.pop().map(|it| it.sender.send(thing()));
            count += usize::from(matches!(sent, Some(Ok(()))));
        }
        (count, None)
    }

    fn pop(&mut self) -> Option<Place<T>> {
        let place = self.queue.pop_front()?;
        self.left = self.left.saturating_sub(usize::from(place.sender.is_closed()));
        Some(place)
    }
}

impl<T> Ticket<T> {
    /// Waits for the hand-over; `None` where all were sent away. Cancel safe.
    pub async fn handed(&mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn things_go_to_the_longest_waiter_that_still_waits() {
        let (mut waiters, now) = (Waiters::default(), Instant::now());
        let [gone, mut first, mut second] = [(); 3].map(|()| waiters.join(now));
        assert_eq!(waiters.leave(gone), None);
        assert_eq!(waiters.len(), 2);
        assert_eq!(waiters.hand(1), Ok(()));
        assert_eq!(waiters.hand(2), Ok(()));
        assert_eq!(waiters.hand(3), Err(3));
        assert!(waiters.is_empty());
        assert_eq!((first.handed().await, second.handed().await), (Some(1), Some(2)));
    }

    #[test]
    fn one_who_leaves_takes_along_what_was_handed() {
        let (mut waiters, now) = (Waiters::default(), Instant::now());
        let ticket = waiters.join(now);
        waiters.hand(1).unwrap();
        assert_eq!(waiters.leave(ticket), Some(1));
        let ticket = waiters.join(now);
        assert_eq!((waiters.leave(ticket), waiters.len(), waiters.queue.len()), (None, 0, 0));
    }

    #[test]
    fn who_leaves_is_not_counted_and_is_swept_out_at_last() {
        let (mut waiters, now) = (Waiters::<u8>::default(), Instant::now());
        let mut tickets: Vec<_> = (0..100).map(|_| waiters.join(now)).collect();
        let first = tickets.remove(0);
        for (ticket, left) in tickets.into_iter().zip((1..100).rev()) {
            assert_eq!(waiters.leave(ticket), None);
            assert_eq!(waiters.len(), left);
            assert!(waiters.queue.len() <= 2 * left, "{left}");
        }
        assert_eq!((waiters.leave(first), waiters.queue.len()), (None, 0));
    }

    #[tokio::test]
    async fn who_was_sent_away_is_not_counted_among_those_who_come_later() {
        let (mut waiters, now) = (Waiters::default(), Instant::now());
        let (mut first, second) = (waiters.join(now), waiters.join(now));
        let third = waiters.join(now);
        assert_eq!(waiters.leave(third), None);
        waiters.send_away();
        let later = [(); 3].map(|()| waiters.join(now));
        assert_eq!((waiters.leave(second), first.handed().await, waiters.len()), (None, None, 3));
        (0..3).for_each(|it| waiters.hand(it).unwrap());
        assert_eq!((waiters.len(), waiters.hand(3)), (0, Err(3)));
        drop(later);
    }

    #[tokio::test]
    async fn those_who_have_waited_for_long_are_told_so_and_the_next_ones_time_is_known() {
        let (mut waiters, began) = (Waiters::default(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        let [mut first, gone, mut last, gone_too] = [1, 2, 3, 4].map(|it| waiters.join(at(it)));
        assert_eq!(waiters.hand_all_since(at(0), || 9), (0, Some(at(1))));
        assert_eq!(waiters.leave(gone), None);
        assert_eq!(waiters.hand_all_since(at(2), || 9), (1, Some(at(3))));
        assert_eq!((first.handed().await, waiters.len()), (Some(9), 2));
        assert_eq!(waiters.leave(gone_too), None);
        assert_eq!(waiters.hand_all_since(at(3), || 9), (1, None));
        assert_eq!((last.handed().await, waiters.len()), (Some(9), 0));
    }
}
