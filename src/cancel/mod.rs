//! Cancel keys of clients, and which server connections each stands for at this moment. A lookup is one
//! hash; a cancel reaches exactly what its client runs, or nothing. Keys of clients of other Keyways behind
//! the same address are passed on to those.

mod key;
mod metrics;
mod slot;

pub use key::{Instance, secret_bytes};
pub use metrics::CancelMetrics;
pub use slot::{Detached, Slot, Targets, Waiting};

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use crate::backend::CancelEnd;
use crate::config::Address;
use crate::metrics::{Limit, LimitHits, Live};
use crate::net::{self, Buffer};
use crate::wire::{self, CancelKey};
use metrics::Outcome;

/// How long another Keyway may take: longer than a server may take with it.
const PEER_TIMEOUT: Duration = Duration::from_secs(15);

/// Who sent a cancel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    /// Another Keyway: whatever the key names, the request goes no further, so that two configurations that
    /// name each other wrongly make no loop.
    Peer,
}

/// All clients by key.
#[derive(Clone)]
pub struct Registry(Arc<Clients>);

struct Clients {
    instance: Instance,
    terms: Mutex<Terms>,
    /// Requests under way.
    under_way: AtomicUsize,
    slots: Mutex<HashMap<u32, Arc<Slot>>>,
    hits: LimitHits,
    metrics: CancelMetrics,
}

/// What a reload may change.
#[derive(Default)]
struct Terms {
    peers: HashMap<Instance, Address>,
    /// Bounds the requests under way.
    cancels_max: usize,
}

/// A registered client; dropping it forgets the key.
pub struct Registered {
    registry: Registry,
    pid: u32,
    slot: Arc<Slot>,
}

/// What a key stands for.
enum Found {
    Slot(Arc<Slot>),
    Peer(Address),
    Nobody,
}

impl Registry {
    /// Without peers, and without room for a request, until `set_terms`.
    pub fn new(instance: Instance, hits: LimitHits, metrics: CancelMetrics) -> Registry {
        let (terms, slots, under_way) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        Registry(Arc::new(Clients { instance, terms, under_way, slots, hits, metrics }))
    }

    /// `peers` may have the instance itself; `cancels_max` bounds the requests of clients under way at once.
    pub fn set_terms(&self, peers: HashMap<Instance, Address>, cancels_max: usize) {
        *self.0.terms.lock() = Terms { peers, cancels_max };
    }

    fn begin(&self) -> Option<UnderWay> {
        let max = self.0.terms.lock().cancels_max;
        let room = |count| (count < max).then_some(count + 1);
        let begun = self.0.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        begun.is_ok().then(|| UnderWay(self.clone()))
    }

    /// `number` and `secret` are random; a number that is taken is retried with the next one. There are more
    /// of them than clients.
    pub fn register(&self, mut number: u32, secret: &[u8]) -> Registered {
        let slot = Arc::new(Slot::new(secret));
        let mut slots = self.0.slots.lock();
        let pid = loop {
            let pid = self.0.instance.pid(number);
            if !slots.contains_key(&pid) {
                break pid;
            }
            number = number.wrapping_add(1);
        };
        slots.insert(pid, slot.clone());
        drop(slots);
        Registered { registry: self.clone(), pid, slot }
    }

    /// Cancels what the client with this key runs now. Returns when the servers have closed the cancel
    /// connections: a caller that closes its client's socket after that tells the truth, because clients take
    /// the close for "done". An unknown key does nothing, as in PostgreSQL. Dropped half way the request goes
    /// on.
    pub async fn cancel(&self, key: CancelKey, sender: Sender) {
        let this = self.clone();
        let dealing = tokio::spawn(async move {
            let Some(_under_way) = this.begin() else {
                this.0.hits.hit(Limit::Cancels);
                return this.0.metrics.ended(Outcome::Refused);
            };
            let _live = Live::new(&this.0.metrics.in_flight);
            let outcome = this.deal_with(&key, sender).await;
            this.0.metrics.ended(outcome);
        });
        let _ = dealing.await;
    }

    async fn deal_with(&self, key: &CancelKey, sender: Sender) -> Outcome {
        match self.find(key, sender) {
            Found::Nobody => Outcome::Unknown,
            Found::Slot(slot) => match slot.cancel().await {
                None => Outcome::Idle,
                Some(CancelEnd::Done) => Outcome::Sent,
                Some(CancelEnd::NotSent | CancelEnd::Unknown) => Outcome::Failed,
            },
            Found::Peer(address) => match tokio::time::timeout(PEER_TIMEOUT, forward(&address, key)).await {
                Ok(Ok(())) => Outcome::Forwarded,
                failed => {
                    tracing::warn!(%address, ?failed, "cannot pass a cancel request on");
                    Outcome::Failed
                }
            },
        }
    }

    fn find(&self, key: &CancelKey, sender: Sender) -> Found {
        let named = Instance::of(key.pid);
        if named != self.0.instance {
            let terms = self.0.terms.lock();
            let peer = terms.peers.get(&named).filter(|_| sender == Sender::Client);
            return peer.cloned().map_or(Found::Nobody, Found::Peer);
        }
        let slot = self.0.slots.lock().get(&key.pid).cloned();
        // How long it takes tells nothing of the secret.
        match slot.filter(|it| bool::from(it.secret.ct_eq(&key.secret))) {
            Some(slot) => Found::Slot(slot),
            None => Found::Nobody,
        }
    }
}

struct UnderWay(Registry);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Until the other Keyway has closed the connection, as it does when its servers have.
async fn forward(to: &Address, key: &CancelKey) -> std::io::Result<()> {
    let mut stream = net::connect(&to.host, to.port, PEER_TIMEOUT).await?;
    stream.write_all(&wire::forwarded_cancel(key)).await?;
    let mut buffer = Buffer::default();
    while stream.read(&mut buffer).await? > 0 {
        buffer.consume(buffer.filled().len());
    }
    Ok(())
}

impl Registered {
    pub fn key(&self) -> CancelKey {
        CancelKey { pid: self.pid, secret: self.slot.secret.as_slice().into() }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.0.slots.lock().remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    fn registry(instance: u16, peers: &[u16]) -> Registry {
        let metrics = metrics::Registry::default();
        let address = |port: u16| Address { host: "127.0.0.1".to_owned(), port };
        let peers = peers.iter().map(|it| (Instance::new(*it), address(*it))).collect();
        let hits = LimitHits::register(&metrics).unwrap();
        let cancels = CancelMetrics::register(&metrics).unwrap();
        let registry = Registry::new(Instance::new(instance), hits, cancels);
        registry.set_terms(peers, 2);
        registry
    }

    #[test]
    fn a_key_is_known_with_its_secret_and_while_its_client_is_there() {
        let registry = registry(5, &[]);
        let first = registry.register(7, &[1; 4]);
        let second = registry.register(7, &[2; 32]);
        assert_ne!(first.pid(), second.pid());
        for registered in [&first, &second] {
            assert!(matches!(registry.find(&registered.key(), Sender::Client), Found::Slot(_)));
        }
        let swapped = CancelKey { pid: first.pid(), secret: second.key().secret };
        let short = CancelKey { pid: second.pid(), secret: Box::new([2; 4]) };
        for wrong in [swapped, short] {
            assert!(matches!(registry.find(&wrong, Sender::Client), Found::Nobody));
        }
        let key = first.key();
        drop(first);
        assert!(matches!(registry.find(&key, Sender::Client), Found::Nobody));
    }

    #[test]
    fn no_more_are_under_way_than_the_newest_bound_says() {
        let registry = registry(1, &[]);
        let (first, second) = (registry.begin(), registry.begin());
        assert!(first.is_some() && second.is_some() && registry.begin().is_none());
        drop(first);
        registry.set_terms(HashMap::new(), 1);
        assert!(registry.begin().is_none());
        drop(second);
        assert!(registry.begin().is_some());
    }

    #[test]
    fn a_foreign_key_goes_to_its_peer_once() {
        let registry = registry(1, &[1, 2]);
        let key = |instance: u16| CancelKey { pid: Instance::new(instance).pid(9), secret: Box::new([0; 4]) };
        let Found::Peer(address) = registry.find(&key(2), Sender::Client) else { panic!("not passed on") };
        assert_eq!(address.port, 2);
        assert!(matches!(registry.find(&key(2), Sender::Peer), Found::Nobody));
        assert!(matches!(registry.find(&key(3), Sender::Client), Found::Nobody));
        assert!(matches!(registry.find(&key(1), Sender::Client), Found::Nobody));
    }
}
