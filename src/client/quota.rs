//! Places for clients: so many of a database, so many of a user.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub struct Quota {
    taken: AtomicUsize,
    max: AtomicUsize,
}

/// A place taken. Dropping it gives it back.
#[derive(Debug)]
pub struct Place(Arc<Quota>);

impl Quota {
    /// `None` is no bound.
    pub fn new(max: Option<usize>) -> Arc<Quota> {
        Arc::new(Quota { taken: AtomicUsize::new(0), max: AtomicUsize::new(max.unwrap_or(usize::MAX)) })
    }

    /// Those beyond a lower bound keep their places.
    pub fn set_max(&self, max: Option<usize>) {
        self.max.store(max.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn take(self: &Arc<Quota>) -> Option<Place> {
        let max = self.max.load(Ordering::Relaxed);
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
        let first = quota.take();
        quota.set_max(Some(1));
        assert!(first.is_some() && quota.take().is_none());
        quota.set_max(None);
        assert!(quota.take().is_some());
        assert!(Quota::new(None).take().is_some());
    }
}
