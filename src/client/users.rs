//! Who may log in, and the pools of each user of a database: those that the config lists from the start,
//! those that `auth_query` finds from their first login until they have been gone for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::{Quota, UserPools};
use crate::auth::Credentials;
use crate::base::Consistency;
use crate::config::{Auth, PoolMode};

/// A user of the config.
pub struct User {
    pub method: Auth,
    pub credentials: Arc<Credentials>,
    pub clients: Arc<Quota>,
    /// `None` is as the database says.
    pub pool_mode: Option<PoolMode>,
    pub consistency: Option<Consistency>,
}

/// What makes the pools of one user of one database, and what takes their metrics away again.
pub trait PoolMaker: Send + Sync {
    /// With the connections of `before` that are still as wanted.
    fn make(&self, user: &str, credentials: &Arc<Credentials>, before: Option<&UserPools>) -> UserPools;
    fn forget(&self, user: &str);
}

/// Looked into once for each login; sessions keep what they found.
pub struct PoolDirectory {
    by_user: RwLock<HashMap<String, Entry>>,
    maker: Box<dyn PoolMaker>,
    /// Users that the config does not list.
    found_max: usize,
    idle_timeout: Duration,
}

struct Entry {
    pools: Arc<UserPools>,
    listed: bool,
    used_at: Mutex<Instant>,
}

impl Entry {
    fn new(pools: UserPools, listed: bool, now: Instant) -> Entry {
        Entry { pools: Arc::new(pools), listed, used_at: Mutex::new(now) }
    }

    /// Nobody is connected as this user: the directory's own reference is the only one.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.pools) == 1
    }
}

impl PoolDirectory {
    pub fn new(maker: Box<dyn PoolMaker>, found_max: usize, idle_timeout: Duration) -> PoolDirectory {
        PoolDirectory { by_user: RwLock::default(), maker, found_max, idle_timeout }
    }

    /// A user of the config.
    pub fn list(&self, user: &str, credentials: &Arc<Credentials>, before: Option<&UserPools>, now: Instant) {
        let entry = Entry::new(self.maker.make(user, credentials, before), true, now);
        self.by_user.write().insert(user.to_owned(), entry);
    }

    /// Users that the config does not list, of the directory that this one replaces.
    pub fn adopt(&self, before: &PoolDirectory) {
        if self.found_max == 0 {
            return;
        }
        let mut by_user = self.by_user.write();
        for (user, it) in before.by_user.read().iter().filter(|(_, it)| !it.listed) {
            let make = || {
                let pools = self.maker.make(user, &it.pools.credentials, Some(&it.pools));
                Entry::new(pools, false, *it.used_at.lock())
            };
            by_user.entry(user.clone()).or_insert_with(make);
        }
    }

    pub fn get(&self, user: &str) -> Option<Arc<UserPools>> {
        self.by_user.read().get(user).map(|it| it.pools.clone())
    }

    /// The pools of a user whose credentials are these; `None` when there are too many users already.
    /// New credentials are a new password: connections that were made with the old one end with their
    /// sessions.
    pub fn found(&self, user: &str, credentials: &Arc<Credentials>, now: Instant) -> Option<Arc<UserPools>> {
        if let Some(entry) = self.by_user.read().get(user)
            && Arc::ptr_eq(&entry.pools.credentials, credentials)
        {
            *entry.used_at.lock() = now;
            return Some(entry.pools.clone());
        }
        let mut by_user = self.by_user.write();
        let others = by_user.iter().filter(|(name, it)| !it.listed && *name != user);
        if others.count() >= self.found_max && !self.evict(&mut by_user) {
            return None;
        }
        let entry = Entry::new(self.maker.make(user, credentials, None), false, now);
        let pools = entry.pools.clone();
        if let Some(old) = by_user.insert(user.to_owned(), entry) {
            old.pools.close_idle();
        }
        Some(pools)
    }

    /// Makes room by dropping who has been gone longest.
    fn evict(&self, by_user: &mut HashMap<String, Entry>) -> bool {
        let gone = by_user.iter().filter(|(_, it)| !it.listed && it.is_unused());
        let Some(user) = gone.min_by_key(|(_, it)| *it.used_at.lock()).map(|(name, _)| name.clone()) else {
            return false;
        };
        self.remove(by_user, &user);
        true
    }

    fn remove(&self, by_user: &mut HashMap<String, Entry>, user: &str) {
        if let Some(entry) = by_user.remove(user) {
            entry.pools.close_idle();
            self.maker.forget(user);
        }
    }

    /// A reference taken out would look like a client.
    pub fn for_each(&self, mut visit: impl FnMut(&UserPools)) {
        self.for_each_user(|_, pools| visit(pools));
    }

    pub fn for_each_user(&self, mut visit: impl FnMut(&str, &UserPools)) {
        self.by_user.read().iter().for_each(|(user, it)| visit(user, &it.pools));
    }

    /// Closes connections that are too old or idle for too long, and forgets users found by
    /// `auth_query` who have been gone for as long.
    pub fn reap(&self, now: Instant) {
        let mut gone = Vec::new();
        for (user, entry) in self.by_user.read().iter() {
            entry.pools.all().for_each(|it| it.reap(now));
            if entry.listed {
                continue;
            }
            let mut used_at = entry.used_at.lock();
            if !entry.is_unused() {
                *used_at = now;
            } else if now.saturating_duration_since(*used_at) > self.idle_timeout {
                gone.push(user.clone());
            }
        }
        if gone.is_empty() {
            return;
        }
        let mut by_user = self.by_user.write();
        for user in gone {
            // It may have come back in between.
            if by_user.get(&user).is_some_and(Entry::is_unused) {
                self.remove(&mut by_user, &user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Derivation;

    struct Maker(Arc<Mutex<Vec<String>>>);

    impl PoolMaker for Maker {
        fn make(&self, _: &str, credentials: &Arc<Credentials>, _: Option<&UserPools>) -> UserPools {
            UserPools::new(Vec::new(), credentials.clone())
        }

        fn forget(&self, user: &str) {
            self.0.lock().push(user.to_owned());
        }
    }

    fn credentials() -> Arc<Credentials> {
        Arc::new(Credentials::new(None, [0; 16], Derivation::new(1)))
    }

    #[test]
    fn users_that_are_gone_make_room_and_listed_ones_stay() {
        let forgotten = Arc::default();
        let directory =
            PoolDirectory::new(Box::new(Maker(Arc::clone(&forgotten))), 2, Duration::from_secs(60));
        let (now, of) = (Instant::now(), credentials());
        let at = |seconds| now + Duration::from_secs(seconds);
        directory.list("listed", &of, None, now);
        let a = directory.found("a", &of, at(1)).unwrap();
        let b = directory.found("b", &of, at(2)).unwrap();
        assert!(Arc::ptr_eq(&b, &directory.found("b", &of, at(3)).unwrap()));
        assert!(directory.found("c", &of, at(3)).is_none(), "both are connected");
        drop(a);
        assert!(directory.found("c", &of, at(4)).is_some());
        assert_eq!(*forgotten.lock(), ["a"]);
        directory.reap(at(100));
        assert_eq!(*forgotten.lock(), ["a", "c"]);
        drop(b);
        directory.reap(at(120));
        directory.reap(at(161));
        let mut left = 0;
        directory.for_each(|_| left += 1);
        assert_eq!((forgotten.lock().len(), left), (3, 1));
        assert!(directory.get("listed").is_some());
    }

    #[test]
    fn a_new_password_gets_new_pools() {
        let directory = PoolDirectory::new(Box::new(Maker(Arc::default())), 1, Duration::from_secs(60));
        let (now, old, new) = (Instant::now(), credentials(), credentials());
        let before = directory.found("a", &old, now).unwrap();
        let after = directory.found("a", &new, now).unwrap();
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(Arc::ptr_eq(&after, &directory.found("a", &new, now).unwrap()));
    }
}
