//! The sample shop: users and orders by user, events by time, countries everywhere.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_postgres::Client;

use super::postgres::{Installation, Options, PostgresError, Shard, StopMode};

pub const DATABASE: &str = "shop";
pub const USER: &str = "app";

/// Sent one by one: Keyway runs each on every shard in turn.
pub const SCHEMA: [&str; 5] = [
    "CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, \
     country char(2) NOT NULL)",
    // No sequence counts across shards: the clock is the default, and the key has the user in it.
    "CREATE TABLE orders (user_id bigint NOT NULL, \
     order_id bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
     amount numeric(10, 2) NOT NULL, placed_at timestamptz NOT NULL DEFAULT now(), \
     PRIMARY KEY (user_id, order_id))",
    "CREATE TABLE events (occurred_at timestamptz NOT NULL, user_id bigint NOT NULL, kind text NOT NULL)",
    "CREATE TABLE countries (code char(2) PRIMARY KEY, name text NOT NULL)",
    // Shows which server answers a read.
    "CREATE VIEW users_here AS \
     SELECT current_setting('port') AS server_port, user_id, name, email, country FROM users",
];

/// Table, map, key.
const SHARDED_TABLES: [(&str, &str, &str); 4] = [
    ("users", "by_user", "user_id"),
    ("users_here", "by_user", "user_id"),
    ("orders", "by_user", "user_id"),
    ("events", "by_time", "occurred_at"),
];

const COUNTRIES: [(&str, &str); 6] = [
    ("NL", "Netherlands"),
    ("DE", "Germany"),
    ("FR", "France"),
    ("JP", "Japan"),
    ("BR", "Brazil"),
    ("KE", "Kenya"),
];
/// Few enough to read all of them over every shard.
const DUTCH_EVERY: i64 = 250;
const EVENT_KINDS: [&str; 4] = ["view", "search", "cart", "pay"];

pub const USERS: i64 = 2_000;
/// Whom a hot load is about.
pub const HOT_USER: i64 = 42;
const ORDERS_PER_USER: i64 = 2;
const EVENTS: i64 = 1_000;
const STATEMENTS_IN_FLIGHT: usize = 64;

/// 2026-01-01T00:00:00Z in seconds since 1970: the end of the first shard's range of events.
const FIRST_BOUND_UNIX_S: u64 = 1_767_225_600;
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Clone, Debug)]
pub struct ShopOptions {
    pub shards: usize,
    /// Shards more that own no row yet, each a primary alone.
    pub spares: usize,
    /// Of each shard that owns rows.
    pub replicas: usize,
    pub postgres: Options,
}

/// The shop's servers, with an empty database on each shard that belongs to `USER`.
#[derive(Debug)]
pub struct Shop {
    /// Those that own no row yet are the last.
    pub shards: Vec<Shard>,
    spares: usize,
    password: String,
}

impl Shop {
    /// Starts all shards at once below `dir`.
    pub async fn start(
        installation: &Arc<Installation>,
        dir: &Path,
        options: &ShopOptions,
    ) -> Result<Shop, PostgresError> {
        let (owners, spares) = (options.shards, options.spares);
        let names: Vec<String> = (1..=owners + spares).map(|it| format!("s{it}")).collect();
        let start = |(index, name)| {
            let replicas = if index < owners { options.replicas } else { 0 };
            Shard::start(installation, dir, name, replicas, &options.postgres)
        };
        let shards = try_join_all(names.iter().map(String::as_str).enumerate().map(start)).await?;
        let password = options.postgres.password.clone();
        for shard in &shards {
            shard.primary.create_database(DATABASE, USER, &password).await?;
            shard.wait_until_replayed().await?;
        }
        Ok(Shop { shards, spares, password })
    }

    /// A configuration for Keyway in front of these servers.
    pub fn config_text(&self, listen: &str, admin: &str) -> String {
        let mut text = format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\nredact_keys = false\n\n[limits]\nshutdown_timeout = \"2s\"\n\n\
             [users.{USER}]\npassword = \"{}\"\n",
            self.password
        );
        for shard in &self.shards {
            let servers: Vec<String> = shard.servers().map(|it| format!("\"{}\"", it.address())).collect();
            let servers = servers.join(", ");
            // Writing to a String cannot fail.
            let _ = write!(text, "\n[databases.{DATABASE}.shards.{}]\nservers = [{servers}]\n", shard.name);
        }
        let _ = write!(
            text,
            "\n[databases.{DATABASE}.maps.by_user]\nkind = \"hash\"\ntype = \"bigint\"\n{}\
             \n[databases.{DATABASE}.maps.by_time]\nkind = \"range\"\ntype = \"timestamptz\"\nranges = [\n",
            self.assigned_slots()
        );
        for (index, shard) in self.owners().iter().enumerate() {
            let from = if index > 0 { format!("from = \"{}\", ", bound(index - 1)) } else { String::new() };
            let last = index + 1 == self.owners().len();
            let to = if last { String::new() } else { format!("to = \"{}\", ", bound(index)) };
            let _ = writeln!(text, "    {{ {from}{to}shard = \"{}\" }},", shard.name);
        }
        text.push_str("]\n");
        for (table, map, key) in SHARDED_TABLES {
            let _ =
                write!(text, "\n[databases.{DATABASE}.tables.{table}]\nmap = \"{map}\"\nkey = \"{key}\"\n");
        }
        let _ = write!(text, "\n[databases.{DATABASE}.tables.countries]\nreference = true\n");
        text
    }

    fn owners(&self) -> &[Shard] {
        &self.shards[..self.shards.len() - self.spares]
    }

    /// All of them to those that own rows, which needs no words where all shards do.
    fn assigned_slots(&self) -> String {
        const SLOTS: usize = 4_096;
        if self.spares == 0 {
            return String::new();
        }
        let owners = self.owners();
        let first = |index: usize| index * SLOTS / owners.len();
        let of = |(index, shard): (usize, &Shard)| {
            format!("{{ slots = \"{}-{}\", shard = \"{}\" }}", first(index), first(index + 1) - 1, shard.name)
        };
        let assigned: Vec<String> = owners.iter().enumerate().map(of).collect();
        format!("slots = {SLOTS}\nassign = [{}]\n", assigned.join(", "))
    }

    /// What an application is given.
    pub fn url(&self, address: &str) -> String {
        format!("postgresql://{USER}:{}@{address}/{DATABASE}", self.password)
    }

    /// All shards at once; rolls back what is open.
    pub async fn stop(&mut self) -> Result<(), PostgresError> {
        try_join_all(self.shards.iter_mut().map(|it| it.stop(StopMode::Fast))).await.map(|_| ())
    }

    pub async fn wait_until_replayed(&self) -> Result<(), PostgresError> {
        try_join_all(self.shards.iter().map(Shard::wait_until_replayed)).await.map(|_| ())
    }
}

/// Creates the tables through Keyway.
pub async fn create_schema(client: &Client) -> Result<(), tokio_postgres::Error> {
    for statement in SCHEMA {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

/// Fills the tables through Keyway, one row a statement: each goes to the shard of its key.
pub async fn fill(client: &Client) -> Result<(), tokio_postgres::Error> {
    let country = client.prepare("INSERT INTO countries (code, name) VALUES ($1, $2)").await?;
    for (code, name) in COUNTRIES {
        client.execute(&country, &[&code, &name]).await?;
    }
    let user = "INSERT INTO users (user_id, name, email, country) VALUES ($1, $2, $3, $4)";
    let user = &client.prepare(user).await?;
    in_flight((1..=USERS).map(async |id| {
        let (name, email) = (format!("user {id}"), format!("user{id}@example.com"));
        client.execute(user, &[&id, &name, &email, &country_of(id)]).await
    }))
    .await?;
    let order =
        "INSERT INTO orders (user_id, order_id, amount) VALUES ($1, $2, ($3::bigint / 100.0)::numeric)";
    let order = &client.prepare(order).await?;
    in_flight((0..USERS * ORDERS_PER_USER).map(async |it| {
        let (user_id, order_id, cents) = (it % USERS + 1, it / USERS + 1, it * 37 % 10_000 + 99);
        client.execute(order, &[&user_id, &order_id, &cents]).await
    }))
    .await?;
    let event = &client.prepare(INSERT_EVENT).await?;
    in_flight((0..EVENTS).map(async |it| {
        let user_id = it % USERS + 1;
        client.execute(event, &[&event_time(it as u64), &user_id, &event_kind(it as u64)]).await
    }))
    .await
}

pub const INSERT_EVENT: &str = "INSERT INTO events (occurred_at, user_id, kind) VALUES ($1, $2, $3)";

pub fn country_of(user_id: i64) -> &'static str {
    let others = &COUNTRIES[1..];
    if user_id % DUTCH_EVERY == 0 { COUNTRIES[0].0 } else { others[(user_id as usize) % others.len()].0 }
}

/// How many users `country_of` puts in the Netherlands.
pub fn dutch_users() -> i64 {
    USERS / DUTCH_EVERY
}

pub fn event_kind(entropy: u64) -> &'static str {
    EVENT_KINDS[(entropy % EVENT_KINDS.len() as u64) as usize]
}

/// An hour apart, as many on either side of the first bound between shards.
pub fn event_time(index: u64) -> SystemTime {
    let index = index % EVENTS as u64;
    let first = SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST_BOUND_UNIX_S) - HOUR * (EVENTS as u32 / 2);
    first + HOUR * index as u32
}

/// The end of range `index`: the first of a month, from January 2026 on.
fn bound(index: usize) -> String {
    format!("{}-{:02}-01T00:00:00Z", 2026 + index / 12, index % 12 + 1)
}

async fn in_flight<F>(statements: impl Iterator<Item = F>) -> Result<(), tokio_postgres::Error>
where
    F: Future<Output = Result<u64, tokio_postgres::Error>>,
{
    stream::iter(statements).buffer_unordered(STATEMENTS_IN_FLIGHT).try_for_each(async |_| Ok(())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_firsts_of_months() {
        assert_eq!(bound(0), "2026-01-01T00:00:00Z");
        assert_eq!(bound(13), "2027-02-01T00:00:00Z");
    }

    #[test]
    fn the_count_of_dutch_users_is_right() {
        assert_eq!((1..=USERS).filter(|it| country_of(*it) == "NL").count() as i64, dutch_users());
    }

    #[test]
    fn events_lie_on_both_sides_of_the_first_bound() {
        let bound = SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST_BOUND_UNIX_S);
        assert!(event_time(0) < bound && event_time(EVENTS as u64 - 1) > bound);
    }
}
