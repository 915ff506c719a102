//! Pools before servers that are not there, and before one that only lets in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::auth::{Credentials, Derivation};
use crate::config::{ServerAuth, ServerTls, TlsMode};
use crate::metrics::{LimitHits, Registry};
use crate::net::{Connector, Connectors, TlsMetrics};

struct World {
    ledger: Arc<Ledger>,
    families: PoolMetricFamilies,
}

impl World {
    fn new(server_connections_max: Option<usize>) -> World {
        let registry = Registry::default();
        let hits = LimitHits::register(&registry).unwrap();
        let families = PoolMetricFamilies::register(&registry, &hits).unwrap();
        World {
            ledger: Ledger::new(Bounds { server_connections_max, server_logins_max: 8 }, 1, hits),
            families,
        }
    }

    fn pool(&self, server: SocketAddr, user: &str) -> Arc<Pool> {
        self.pool_of(server, user, 4, Duration::from_secs(5))
    }

    fn pool_of(&self, server: SocketAddr, user: &str, size: usize, wait_timeout: Duration) -> Arc<Pool> {
        let tls = ServerTls { mode: TlsMode::Disable, authorities: None, identity: None, is_direct: false };
        let metrics = TlsMetrics::register(&Registry::default()).unwrap();
        let spec = BackendSpec {
            host: server.ip().to_string().into(),
            port: server.port(),
            user: user.into(),
            credentials: Arc::new(Credentials::new(None, [0; 16], Derivation::new(1))),
            server_auth: ServerAuth::default(),
            tls: Arc::new(Connectors::new(Connector::new(&tls, metrics).unwrap())),
            database: "db".into(),
            application_name: None,
            connect_timeout: Duration::from_secs(5),
            message_bytes_max: 65_536,
            holders: Default::default(),
            statements: crate::proto::StatementBounds { count_max: 8, bytes_max: 1 << 20 },
        };
        let limits = PoolLimits {
            size,
            waiters_max: 8,
            wait_timeout,
            idle_timeout: Duration::from_secs(60),
            lifetime: Duration::from_secs(60),
            ramp: 4,
        };
        let terms = self.ledger.terms(&server.to_string(), ("db", None), (user, None));
        let server = server.to_string().into();
        let name = PoolName { database: "db".into(), shard: "main".into(), server, user: user.into() };
        let metrics = self.families.of(&name);
        Pool::new(name, spec, limits, &self.ledger, terms, metrics)
    }
}

/// Lets everyone in; counts logins.
async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, logins) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = logins.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(let_in(stream));
        }
    });
    (address, logins)
}

async fn let_in(mut stream: TcpStream) {
    let mut bytes = [0; 1024];
    let _ = stream.read(&mut bytes).await;
    let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
    while stream.read(&mut bytes).await.is_ok_and(|it| it > 0) {}
}

/// Waits for a connection, as a session does.
async fn served(pool: &Arc<Pool>, admission: Admission) -> Result<Lease, CheckoutError> {
    match pool.checkout(admission)? {
        Checkout::Lease(it) => Ok(it),
        Checkout::Queued(it) => it.served().await,
    }
}

fn queued(pool: &Arc<Pool>) -> Queued<'_> {
    match pool.checkout(Admission::Statement) {
        Ok(Checkout::Queued(it)) => it,
        _ => panic!("it is not queued"),
    }
}

fn connect_error(result: Result<Lease, CheckoutError>) -> Arc<ConnectError> {
    match result {
        Err(CheckoutError::Connect(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("connected"),
    }
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_has_just_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let world = World::new(None);
    let (a, b) = (world.pool(address, "a"), world.pool(address, "b"));
    let first = connect_error(served(&a, Admission::Statement).await);
    // Another user is told the same, without another attempt.
    assert!(Arc::ptr_eq(&first, &connect_error(served(&b, Admission::Statement).await)));
    assert!(Arc::ptr_eq(&first, &connect_error(served(&a, Admission::Statement).await)));
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { let_in(listener.accept().await.unwrap().0).await });
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = served(&b, Admission::Statement).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_another_users() {
    let (address, logins) = server().await;
    let world = World::new(Some(2));
    let (a, b) = (world.pool(address, "a"), world.pool(address, "b"));
    let (first, second) =
        (served(&a, Admission::Statement).await.unwrap(), served(&a, Admission::Statement).await.unwrap());
    first.release(Instant::now());
    let of_b = served(&b, Admission::Statement).await.unwrap();
    assert_eq!((a.usage().active, a.usage().idle, b.usage().active), (1, 0, 1));
    // Busy ones are waited for, and released to the one who waits.
    let third = tokio::spawn({
        let b = b.clone();
        async move { served(&b, Admission::Statement).await }
    });
    while b.usage().waiters == 0 {
        tokio::task::yield_now().await;
    }
    second.release(Instant::now());
    let third = third.await.unwrap().unwrap();
    assert_eq!((a.usage().active, a.usage().idle, b.usage().active), (0, 0, 2));
    assert_eq!(logins.load(Ordering::Relaxed), 4);
    // A connection that is closed makes room too.
    drop(third);
    let again = served(&a, Admission::Statement).await.unwrap();
    drop((again, of_b));
    assert_eq!(a.usage().active + b.usage().active, 0);
    assert!(!world.ledger.is_wanted());
}

#[tokio::test]
async fn a_retired_pool_serves_who_has_come_and_keeps_nothing() {
    let (address, logins) = server().await;
    let world = World::new(Some(1));
    let pool = world.pool(address, "a");
    let lease = served(&pool, Admission::Statement).await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { served(&pool, Admission::Statement).await }
    });
    while pool.usage().waiters == 0 {
        tokio::task::yield_now().await;
    }
    pool.retire();
    assert!(pool.servers()[0].closing);
    lease.release(Instant::now());
    let lease = waiting.await.unwrap().unwrap();
    assert_eq!(logins.load(Ordering::Relaxed), 1);
    lease.release(Instant::now());
    assert_eq!((pool.usage().idle, pool.open_count()), (0, 0));
    // Who is late gets a connection too.
    served(&pool, Admission::Statement).await.unwrap().release(Instant::now());
    assert_eq!((pool.usage().idle, pool.open_count()), (0, 0));
    // They say goodbye first.
    while pool.is_closing() {
        tokio::task::yield_now().await;
    }
    assert!(pool.servers().is_empty() && !world.ledger.is_wanted());
}

#[tokio::test]
async fn a_paused_pool_hands_out_nothing_and_closes_what_comes_back() {
    let (address, _) = server().await;
    let world = World::new(None);
    let pool = world.pool(address, "a");
    let leases = [
        served(&pool, Admission::Statement).await.unwrap(),
        served(&pool, Admission::Statement).await.unwrap(),
    ];
    let [first, second] = leases;
    first.release(Instant::now());
    pool.pause();
    assert_eq!((pool.usage().idle, pool.open_count()), (0, 1));
    assert!(pool.try_checkout().is_none());
    assert!(matches!(served(&pool, Admission::Statement).await, Err(CheckoutError::Paused)));
    second.release(Instant::now());
    assert_eq!(pool.open_count(), 0);
    pool.resume();
    let lease = served(&pool, Admission::Statement).await.unwrap();
    // Who waits is sent away by a pause, to come again.
    let full: Vec<_> =
        futures_util::future::join_all((0..3).map(|_| served(&pool, Admission::Statement))).await;
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { served(&pool, Admission::Statement).await }
    });
    while pool.usage().waiters == 0 {
        tokio::task::yield_now().await;
    }
    pool.pause();
    assert!(matches!(waiting.await.unwrap(), Err(CheckoutError::Paused)));
    drop((lease, full));
}

#[tokio::test]
async fn connections_from_before_are_closed_when_they_come_back() {
    let (address, logins) = server().await;
    let world = World::new(None);
    let pool = world.pool(address, "a");
    let (held, idle) = (
        served(&pool, Admission::Statement).await.unwrap(),
        served(&pool, Admission::Statement).await.unwrap(),
    );
    idle.release(Instant::now());
    pool.renew(Instant::now());
    assert!(pool.is_closing() && pool.open_count() == 1);
    let new = served(&pool, Admission::Statement).await.unwrap();
    held.release(Instant::now());
    while pool.is_closing() {
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.usage().idle, 0);
    new.release(Instant::now());
    assert_eq!((pool.usage().idle, logins.load(Ordering::Relaxed)), (1, 3));
}

#[tokio::test]
async fn a_pause_lets_transactions_take_what_they_need() {
    let (address, _) = server().await;
    let world = World::new(None);
    let pool = world.pool(address, "a");
    pool.pause();
    let lease = served(&pool, Admission::Transaction).await.unwrap();
    assert!(matches!(served(&pool, Admission::Held).await, Err(CheckoutError::Paused)));
    lease.release(Instant::now());
    assert_eq!((pool.open_count(), pool.usage().idle), (0, 0), "it is closed when it comes back");
}

#[tokio::test]
async fn who_waits_for_a_server_that_has_lost_its_role_looks_for_another() {
    let (address, logins) = server().await;
    let world = World::new(None);
    let pool = world.pool(address, "a");
    let full: Vec<_> =
        futures_util::future::join_all((0..4).map(|_| served(&pool, Admission::Statement))).await;
    assert_eq!(pool.usage().size, 4);
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { served(&pool, Admission::Statement).await }
    });
    while pool.usage().waiters == 0 {
        tokio::task::yield_now().await;
    }
    pool.evict();
    assert!(matches!(waiting.await.unwrap(), Err(CheckoutError::Paused)));
    assert_eq!((pool.usage().waiters, logins.load(Ordering::Relaxed)), (0, 4));
    for it in full {
        it.unwrap().release(Instant::now());
    }
    drop(served(&pool, Admission::Statement).await.unwrap());
    assert_eq!(logins.load(Ordering::Relaxed), 4, "it goes on as it was");
}

#[tokio::test]
async fn a_login_that_was_under_way_is_renewed_too() {
    let world = World::new(None);
    let (address, logins) = server().await;
    let pool = world.pool(address, "app");
    let mut checkout = std::pin::pin!(served(&pool, Admission::Statement));
    let first = std::future::poll_fn(|context| Poll::Ready(checkout.as_mut().poll(context))).await;
    assert!(first.is_pending());
    // The login begins.
    tokio::task::yield_now().await;
    let renewed_at = Instant::now();
    pool.renew(renewed_at);
    let lease = checkout.await.unwrap();
    assert!(lease.connected_at >= renewed_at);
    assert_eq!(logins.load(Ordering::Relaxed), 2);
    lease.release(Instant::now());
    assert_eq!(pool.usage().idle, 1);
}

#[tokio::test]
async fn who_waits_too_long_is_told_so_whoever_else_has_waited_before() {
    let (address, _) = server().await;
    let (world, timeout) = (World::new(None), Duration::from_millis(20));
    let pool = world.pool_of(address, "app", 1, timeout);
    // Twice: the timer ends where nobody waits.
    for _ in 0..2 {
        let lease = served(&pool, Admission::Held).await.ok();
        let began = Instant::now();
        let both = [(); 2].map(|()| served(&pool, Admission::Statement));
        for it in futures_util::future::join_all(both).await {
            assert!(matches!(it, Err(CheckoutError::WaitTimeout(it)) if it == timeout));
        }
        assert!(began.elapsed() >= timeout);
        assert_eq!(pool.usage().waiters, 0);
        if let Some(it) = lease {
            it.release(Instant::now());
        }
        while pool.state.lock().expiring {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn who_leaves_is_not_waited_for() {
    let (address, _) = server().await;
    let pool = World::new(None).pool_of(address, "app", 1, Duration::from_secs(5));
    let lease = served(&pool, Admission::Statement).await.unwrap();
    let (first, second, third) = (queued(&pool), queued(&pool), queued(&pool));
    drop(second);
    assert_eq!(pool.usage().waiters, 2);
    lease.release(Instant::now());
    // Handed over, and not taken: it is the next one's.
    drop(first);
    let lease = third.served().await.unwrap();
    assert_eq!((pool.usage().waiters, pool.usage().active), (0, 1));
    lease.release(Instant::now());
    assert_eq!(pool.usage().idle, 1);
}

#[tokio::test]
async fn who_comes_after_others_were_sent_away_waits_no_longer_than_they_would_have() {
    let (address, _) = server().await;
    let pool = World::new(None).pool_of(address, "app", 1, Duration::from_millis(20));
    let _lease = served(&pool, Admission::Statement).await.unwrap();
    let (first, second) = (queued(&pool), queued(&pool));
    pool.evict();
    assert!(matches!(first.served().await, Err(CheckoutError::Paused)));
    let (gone, last) = (queued(&pool), queued(&pool));
    drop((second, gone));
    assert_eq!(pool.usage().waiters, 1);
    assert!(matches!(last.served().await, Err(CheckoutError::WaitTimeout(_))));
    assert_eq!(pool.usage().waiters, 0);
}
