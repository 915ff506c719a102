//! What the admin side shows, gathered from the parts that know.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::watch;

use super::Families;
use super::history::History;
use crate::admin::{
    self, DatabaseStatus, HotspotMetricFamilies, PoolStatus, ServerStatus, ShardStatus, Source, StatTotals,
    Status,
};
use crate::base::{Role, ServerId, ShardId};
use crate::client::{Database, Latest, ProtectionMetricFamilies, ShardTotals, unix_s};
use crate::hotspot::{HeatMap, Metric, Report, StatementReport};
use crate::metrics::{self, Limit, LimitHits, RegisterError, Registry};
use crate::route::{PlanCacheCounts, Router, Server};

/// Rates are taken over this span.
const SPAN: Duration = Duration::from_secs(10);
/// Averages of SHOW STATS are of the last minute, as PgBouncer's.
const STATS_INTERVAL: Duration = Duration::from_secs(5);
const STATS_SAMPLES: usize = 12;

pub struct ProcessSource {
    registry: Registry,
    latest: Arc<Latest>,
    counted: CountedFamilies,
    /// No client is taken any more.
    closed: watch::Receiver<bool>,
    samples: Mutex<VecDeque<TotalsSample>>,
    history: Mutex<History<ShardName>>,
    stats: Mutex<VecDeque<StatsSample>>,
}

/// Families that are brought up to date when somebody looks.
pub struct CountedFamilies {
    plans: PlanMetricFamilies,
    hotspots: HotspotMetricFamilies,
    protection: ProtectionMetricFamilies,
}

impl CountedFamilies {
    pub fn of(families: &Families) -> CountedFamilies {
        CountedFamilies {
            plans: families.plans.clone(),
            hotspots: families.hotspots.clone(),
            protection: families.protection.clone(),
        }
    }
}

/// Totals by database, for the averages of SHOW STATS.
type StatsSample = (Instant, BTreeMap<String, StatTotals>);

struct TotalsSample {
    at: Instant,
    totals: HashMap<ShardName, ShardTotals>,
}

/// Of a database and of its shard: numbers change at a reload.
type ShardName = (String, String);

type Counted = (Weak<Router>, PlanCacheCounts);

/// What plan caches did, of each database.
#[derive(Clone)]
pub struct PlanMetricFamilies {
    hits: IntCounterVec,
    misses: IntCounterVec,
    evictions: IntCounterVec,
    limit_hits: LimitHits,
    /// What the counters have been given already, and by which cache: a reload may have made a new one.
    counted: Arc<Mutex<HashMap<String, Counted>>>,
}

impl PlanMetricFamilies {
    pub fn register(
        registry: &Registry,
        limit_hits: &LimitHits,
    ) -> Result<PlanMetricFamilies, RegisterError> {
        let counters = |name, help| registry.counters(name, help, &["database"]);
        Ok(PlanMetricFamilies {
            hits: counters("keyway_plan_cache_hits_total", "Statements whose plan was in the cache.")?,
            misses: counters("keyway_plan_cache_misses_total", "Statements that had to be parsed.")?,
            evictions: counters("keyway_plan_cache_evictions_total", "Plans that made room for others.")?,
            limit_hits: limit_hits.clone(),
            counted: Arc::default(),
        })
    }

    fn count(&self, database: &Database) {
        let (mut counted, label) = (self.counted.lock(), [database.name.as_str()]);
        let (router, now) = (Arc::downgrade(&database.router), database.router.plan_cache_counts());
        let before = counted.insert(database.name.clone(), (router.clone(), now));
        let before = before.filter(|it| it.0.ptr_eq(&router)).map(|it| it.1).unwrap_or_default();
        self.hits.with_label_values(&label).inc_by(now.hits.saturating_sub(before.hits));
        self.misses.with_label_values(&label).inc_by(now.misses.saturating_sub(before.misses));
        let evictions = now.evictions.saturating_sub(before.evictions);
        self.evictions.with_label_values(&label).inc_by(evictions);
        self.limit_hits.hit_times(Limit::Plans, evictions);
    }

    /// Of a database that is gone.
    pub fn forget(&self, database: &str) {
        self.counted.lock().remove(database);
        metrics::forget(&self.hits, &[("database", database)]);
        metrics::forget(&self.misses, &[("database", database)]);
        metrics::forget(&self.evictions, &[("database", database)]);
    }
}

impl ProcessSource {
    pub fn new(
        registry: &Registry,
        latest: Arc<Latest>,
        counted: CountedFamilies,
        closed: watch::Receiver<bool>,
    ) -> ProcessSource {
        ProcessSource {
            registry: registry.clone(),
            latest,
            counted,
            closed,
            samples: Mutex::default(),
            history: Mutex::default(),
            stats: Mutex::default(),
        }
    }

    /// Takes the counters for the rates of the page.
    pub fn sample(&self, now: Instant) {
        let totals = self.totals();
        let requests = totals.iter().map(|(name, it)| (name.clone(), it.reads + it.writes));
        self.history.lock().take(now, requests);
        let mut samples = self.samples.lock();
        samples.push_back(TotalsSample { at: now, totals });
        while samples.front().is_some_and(|it| now.saturating_duration_since(it.at) > SPAN) {
            samples.pop_front();
        }
        drop(samples);
        let mut stats = self.stats.lock();
        if stats.back().is_none_or(|it| now.saturating_duration_since(it.0) >= STATS_INTERVAL) {
            stats.push_back((now, admin::totals_of(&self.latest.load())));
            while stats.len() > STATS_SAMPLES {
                stats.pop_front();
            }
        }
    }

    /// The oldest totals that are kept: up to a minute ago.
    pub fn stats_before(&self) -> Option<StatsSample> {
        self.stats.lock().front().cloned()
    }

    fn totals(&self) -> HashMap<ShardName, ShardTotals> {
        let of = |database: &Arc<Database>| {
            (0..database.topology.shard_count() as u16)
                .map(|it| (name_of(database, it), database.metrics.totals(ShardId(it))))
                .collect::<Vec<_>>()
        };
        self.latest.load().databases.values().flat_map(of).collect()
    }

    fn shard(&self, database: &Database, index: u16, now: Instant) -> ShardStatus {
        let current = database.metrics.totals(ShardId(index));
        let samples = self.samples.lock();
        let oldest = samples.front();
        let key = name_of(database, index);
        let before = oldest.and_then(|it| it.totals.get(&key)).copied().unwrap_or(current);
        let seconds = oldest.map_or(1.0, |it| now.saturating_duration_since(it.at).as_secs_f64()).max(0.1);
        drop(samples);
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let cluster = database.topology.snapshot();
        let servers = cluster.shard(ShardId(index)).map(|it| it.servers.as_slice()).unwrap_or_default();
        ShardStatus {
            name: database.router.shard_name(ShardId(index)).to_owned(),
            reads_per_second: rate(current.reads, before.reads),
            writes_per_second: rate(current.writes, before.writes),
            errors_per_second: rate(current.errors, before.errors),
            in_flight: current.in_flight,
            history: self.history.lock().of(&key),
            servers: servers.iter().map(|it| server(database, it, now)).collect(),
        }
    }
}

fn name_of(database: &Database, shard: u16) -> ShardName {
    (database.name.clone(), database.router.shard_name(ShardId(shard)).to_owned())
}

fn server(database: &Database, it: &Server, now: Instant) -> ServerStatus {
    let is_replica = it.role == Some(Role::Replica);
    let mut breaker = "";
    database.pools.for_each(|user| {
        // All users' pools share what is known of a server.
        if let Some(pool) = user.get(it.id) {
            breaker = pool.standing().breaker.state(now).label();
        }
    });
    ServerStatus {
        address: it.address.clone(),
        role: it.role.map_or("", Role::label),
        lag_ms: it.lag(now).filter(|_| is_replica).map(|it| it.as_millis() as u64),
        lag_bytes: it.lag_bytes.filter(|_| is_replica),
        problem: it.problem.clone(),
        serves: is_replica.then_some(it.joined.is_some()),
        breaker,
        pools: pools(database, it.id),
    }
}

/// Of all users together.
fn pools(database: &Database, server: ServerId) -> PoolStatus {
    let mut sum = PoolStatus::default();
    database.pools.for_each(|user| {
        let Some(usage) = user.get(server).map(|it| it.usage()) else { return };
        sum.active += usage.active as u64;
        sum.idle += usage.idle as u64;
        sum.connecting += usage.connecting as u64;
        sum.waiters += usage.waiters as u64;
        sum.size += usage.size as u64;
    });
    sum
}

impl Source for ProcessSource {
    fn status(&self) -> Status {
        let now = Instant::now();
        let shared = self.latest.load();
        let mut databases: Vec<DatabaseStatus> = shared
            .databases
            .values()
            .map(|it| DatabaseStatus {
                name: it.name.clone(),
                shards: (0..it.topology.shard_count() as u16).map(|of| self.shard(it, of, now)).collect(),
                refusals: it.metrics.refusals().map(|(reason, count)| (reason.label(), count)).collect(),
            })
            .collect();
        databases.sort_by(|a, b| a.name.cmp(&b.name));
        Status {
            version: env!("CARGO_PKG_VERSION"),
            at_s: unix_s(),
            clients: shared.metrics.clients.get(),
            databases,
        }
    }

    fn hotspots(&self, database: &str) -> Option<Arc<Report>> {
        self.latest.load().databases.get(database).map(|it| it.hotspots.report())
    }

    fn heat_map(
        &self,
        database: &str,
        map: &str,
        metric: Metric,
        last: Duration,
        rows_max: usize,
        columns_max: usize,
    ) -> Option<HeatMap> {
        let shared = self.latest.load();
        shared.databases.get(database)?.hotspots.heat_map(map, metric, last, rows_max, columns_max)
    }

    fn statements(&self, database: &str) -> Vec<StatementReport> {
        let shared = self.latest.load();
        let costly = shared.databases.get(database).and_then(|it| it.costly.as_ref());
        costly.map(|it| it.report(unix_s())).unwrap_or_default()
    }

    fn metrics(&self) -> Result<String, String> {
        let shared = self.latest.load();
        shared.metrics.count_pins(&shared.sessions);
        for database in shared.databases.values() {
            self.counted.plans.count(database);
            self.counted.hotspots.observe(&database.name, &database.hotspots.report());
            self.counted.protection.observe(
                &database.name,
                database.protection.as_deref(),
                &database.hotspots,
            );
            database.catalog.observe(Instant::now());
            database.pools.for_each(|user| {
                user.all().for_each(|it| {
                    it.usage();
                });
            });
        }
        self.registry.text().map_err(|error| error.to_string())
    }

    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if *self.closed.borrow() {
            missing.push("keyway is stopping".to_owned());
        }
        for database in self.latest.load().databases.values() {
            let cluster = database.topology.snapshot();
            for shard in cluster.shards.iter().filter(|it| it.primary().is_none()) {
                missing.push(format!("database {}: shard {} has no primary", database.name, shard.name));
            }
        }
        missing.sort();
        missing
    }
}
