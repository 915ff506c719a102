//! PBKDF2 costs milliseconds by design: it runs beside the threads that serve clients, no more of it at
//! once than the machine has cores for.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::scram::{Key, salted_password};
use crate::config::Password;

/// Shared by all who derive keys.
#[derive(Clone, Debug)]
pub struct Derivation {
    permits: Arc<Semaphore>,
}

impl Derivation {
    pub fn new(at_once: usize) -> Derivation {
        Derivation { permits: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// SaltedPassword of RFC 5802; `None` only when the process is ending. Dropped, it waits for no
    /// turn any more; a derivation that has begun runs to its end.
    pub async fn salted_password(
        &self,
        password: &Password,
        salt: Arc<[u8]>,
        iterations: u32,
    ) -> Option<Key> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        let password = password.clone();
        let deriving = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            salted_password(password.reveal(), &salt, iterations)
        });
        deriving.await.ok()
    }
}
