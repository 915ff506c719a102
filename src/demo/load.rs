//! A steady load on the shop, through Keyway like any application's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_postgres::{Client, NoTls, Statement};

use super::postgres::reason;
use super::shop::{self, HOT_USER, INSERT_EVENT, USERS};

const CONNECTIONS: u32 = 24;
/// Of all connections together: enough to see, little enough for a laptop to stay cool.
pub const STATEMENTS_PER_S: u32 = 400;
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Load {
    None,
    /// Every user alike
    Even,
    /// One user gets a third of it
    Hot,
}

/// A running load. Dropping it ends it.
#[derive(Debug)]
pub struct Generator(#[expect(dead_code, reason = "held to be dropped")] JoinSet<()>);

impl Generator {
    /// Must be called inside the runtime.
    pub fn start(url: &str, load: Load) -> Generator {
        let mut connections = JoinSet::new();
        if load == Load::None {
            return Generator(connections);
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let order_id = Arc::new(AtomicI64::new(since_epoch.as_micros() as i64));
        let period = Duration::from_secs(1) * CONNECTIONS / STATEMENTS_PER_S;
        for index in 0..CONNECTIONS {
            // Spread over the period, so that the load is a stream and not a pulse.
            let first = Instant::now() + period * index / CONNECTIONS;
            connections.spawn(run(url.to_owned(), load, order_id.clone(), first, period));
        }
        Generator(connections)
    }
}

struct Session {
    client: Client,
    read_user: Statement,
    read_orders: Statement,
    insert_order: Statement,
    insert_event: Statement,
}

/// Keeps one connection busy; a server that dies under it, or Keyway, costs it a pause.
async fn run(url: String, load: Load, order_id: Arc<AtomicI64>, first: Instant, period: Duration) {
    let mut ticks = interval_at(first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = None;
    loop {
        ticks.tick().await;
        let outcome = match &session {
            Some(it) => step(it, load, &order_id).await,
            None => Session::open(&url).await.map(|it| session = Some(it)),
        };
        if let Err(error) = outcome {
            tracing::warn!(error = reason(&error), "statement of the demo's load failed");
            session = None;
            sleep(RECONNECT_PAUSE).await;
        }
    }
}

impl Session {
    async fn open(url: &str) -> Result<Session, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let orders = "SELECT u.name, o.order_id, o.amount::text FROM users u JOIN orders o \
             ON o.user_id = u.user_id WHERE u.user_id = $1 ORDER BY o.order_id DESC LIMIT 10";
        let insert = "INSERT INTO orders (user_id, order_id, amount) VALUES ($1, $2, 9.99)";
        Ok(Session {
            read_user: client.prepare("SELECT name, email, country FROM users WHERE user_id = $1").await?,
            read_orders: client.prepare(orders).await?,
            insert_order: client.prepare(insert).await?,
            insert_event: client.prepare(INSERT_EVENT).await?,
            client,
        })
    }
}

/// One statement in five writes.
async fn step(session: &Session, load: Load, order_id: &AtomicI64) -> Result<(), tokio_postgres::Error> {
    // Without randomness to be had the load is merely dull.
    let entropy = getrandom::u64().unwrap_or_default();
    let user = user_of(entropy, load);
    let client = &session.client;
    match entropy % 20 {
        0..9 => client.query(&session.read_user, &[&user]).await.map(drop),
        9..16 => client.query(&session.read_orders, &[&user]).await.map(drop),
        16..19 => {
            let order = order_id.fetch_add(1, Ordering::Relaxed);
            client.execute(&session.insert_order, &[&user, &order]).await.map(drop)
        }
        _ => {
            let (at, kind) = (shop::event_time(entropy >> 24), shop::event_kind(entropy >> 8));
            client.execute(&session.insert_event, &[&at, &user, &kind]).await.map(drop)
        }
    }
}

/// Takes other bits than the kind of statement does, so that both are independent.
fn user_of(entropy: u64, load: Load) -> i64 {
    let hot = load == Load::Hot && (entropy >> 32).is_multiple_of(3);
    if hot { HOT_USER } else { ((entropy >> 16) % USERS as u64) as i64 + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_gets_a_third_of_a_hot_load_and_no_more_of_an_even_one() {
        let spread = |load| {
            let entropies = (0..10_000u64).map(|it| it.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            entropies.filter(|it| user_of(*it, load) == HOT_USER).count()
        };
        assert!((3_000..3_700).contains(&spread(Load::Hot)), "{}", spread(Load::Hot));
        assert!(spread(Load::Even) < 50, "{}", spread(Load::Even));
    }
}
