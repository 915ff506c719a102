//! Places for clients: so many of a database, so many of a user.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub struct Quota {
    taken: AtomicUsize,
    /// `None` is bounded by `limits.clients_max` alone.
    max: Option<usize>,
}

/// A place taken. Dropping it gives it back.
#[derive(Debug)]
pub struct Place(Arc<Quota>);

impl Quota {
    pub fn new(max: Option<usize>) -> Arc<Quota> {
        Arc::new(Quota { taken: AtomicUsize::new(0), max })
    }

    pub fn take(self: &Arc<Quota>) -> Option<Place> {
        let max = self.max.unwrap_or(usize::MAX);
        let room = |taken| (taken < max).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        taken.is_ok().then(|| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let quota = Quota::new(Some(2));
        let places = (quota.take(), quota.take());
        assert!(places.0.is_some() && places.1.is_some() && quota.take().is_none());
        drop(places);
        assert!(quota.take().is_some());
        assert!(Quota::new(None).take().is_some());
    }
}
