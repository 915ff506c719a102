//! Cancel keys of clients, and which server connection each stands for at this moment. A lookup is
//! one hash; a cancel reaches exactly the query in flight, or nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::net::{self, Connector};
use crate::wire::{self, CancelKey};

/// How long a server may take to deal with a cancel before it is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where to send a cancel for one server connection.
#[derive(Clone, Debug)]
pub struct Target {
    pub host: Arc<str>,
    pub port: u16,
    pub key: CancelKey,
    /// What the connection's TLS was made with, if it has any: the key is as good as the connection.
    pub tls: Option<Arc<Connector>>,
}

/// A client's side of the registry.
#[derive(Default, Debug)]
pub struct Slot {
    state: Mutex<SlotState>,
    done: Notify,
}

#[derive(Default, Debug)]
struct SlotState {
    targets: Vec<Target>,
    /// Cancels on their way to the targets.
    in_flight: u32,
}

/// All clients by key.
#[derive(Clone, Default)]
pub struct Registry {
    slots: Arc<Mutex<HashMap<CancelKey, Arc<Slot>>>>,
}

/// A registered client; dropping it forgets the key.
pub struct Registered {
    registry: Registry,
    key: CancelKey,
    slot: Arc<Slot>,
}

impl Registry {
    /// `secret` is random; a key that is taken is retried with the next one.
    pub fn register(&self, mut key: CancelKey) -> Registered {
        let slot = Arc::new(Slot::default());
        let mut slots = self.slots.lock();
        while slots.contains_key(&key) {
            key.secret = key.secret.wrapping_add(1);
        }
        slots.insert(key, slot.clone());
        drop(slots);
        Registered { registry: self.clone(), key, slot }
    }

    /// Cancels what the client with this key runs now. Returns when the servers have closed the
    /// cancel connections: a caller that closes its client's socket after that tells the truth,
    /// because clients take the close for "done". An unknown key does nothing, as in PostgreSQL.
    pub async fn cancel(&self, key: CancelKey) {
        let Some(slot) = self.slots.lock().get(&key).cloned() else { return };
        let targets = slot.begin_cancel();
        let _ended = EndCancel(&slot);
        for target in targets {
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, send_cancel(&target)).await;
        }
    }
}

/// Sends one CancelRequest and waits until the server has closed the connection.
pub async fn send_cancel(target: &Target) -> std::io::Result<()> {
    let address = (&*target.host, target.port);
    let mut stream = match &target.tls {
        None => net::connect(&target.host, target.port, CANCEL_TIMEOUT).await?,
        Some(tls) => {
            let dialled = net::dial(address, tls, tls.again(), CANCEL_TIMEOUT).await;
            dialled.map_err(std::io::Error::other)?.stream
        }
    };
    stream.write_all(&wire::cancel_request(target.key)).await?;
    let mut buffer = net::Buffer::default();
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

struct EndCancel<'a>(&'a Slot);

impl Drop for EndCancel<'_> {
    fn drop(&mut self) {
        self.0.state.lock().in_flight -= 1;
        self.0.done.notify_waiters();
    }
}

impl Slot {
    fn begin_cancel(&self) -> Vec<Target> {
        let mut state = self.state.lock();
        state.in_flight += 1;
        state.targets.clone()
    }

    /// A query of this client starts on `target`.
    pub fn attach(&self, target: Target) {
        self.state.lock().targets.push(target);
    }

    /// The client lets go of its servers. Waits while a cancel is on its way, so that it cannot hit
    /// the query of whoever gets the server next.
    pub async fn detach(&self) {
        loop {
            let done = self.done.notified();
            {
                let mut state = self.state.lock();
                state.targets.clear();
                if state.in_flight == 0 {
                    return;
                }
            }
            done.await;
        }
    }

    /// As `detach` where it need not wait; `false` when a cancel is on its way.
    pub fn try_detach(&self) -> bool {
        let mut state = self.state.lock();
        state.targets.clear();
        state.in_flight == 0
    }
}

impl Registered {
    pub fn key(&self) -> CancelKey {
        self.key
    }

    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.slots.lock().remove(&self.key);
    }
}
