//! What the admin side shows, gathered from the parts that know.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntCounterVec;

use crate::admin::{DatabaseStatus, PoolStatus, ServerStatus, ShardStatus, Source, Status};
use crate::base::{Role, ServerId, ShardId};
use crate::client::{Database, ShardTotals, Shared};
use crate::metrics::{RegisterError, Registry};
use crate::route::PlanCacheCounts;

/// Rates are taken over this span.
const SPAN: Duration = Duration::from_secs(10);

pub struct ProcessSource {
    registry: Registry,
    shared: Arc<Shared>,
    plan_hits: IntCounterVec,
    plan_misses: IntCounterVec,
    /// Plan cache counts that the counters have been given already.
    counted: Mutex<HashMap<String, PlanCacheCounts>>,
    samples: Mutex<VecDeque<TotalsSample>>,
}

struct TotalsSample {
    at: Instant,
    totals: HashMap<(String, u16), ShardTotals>,
}

impl ProcessSource {
    pub fn new(registry: &Registry, shared: Arc<Shared>) -> Result<ProcessSource, RegisterError> {
        let counters = |name, help| registry.counters(name, help, &["database"]);
        Ok(ProcessSource {
            plan_hits: counters("keyway_plan_cache_hits_total", "Statements whose plan was in the cache.")?,
            plan_misses: counters("keyway_plan_cache_misses_total", "Statements that had to be parsed.")?,
            registry: registry.clone(),
            shared,
            counted: Mutex::default(),
            samples: Mutex::default(),
        })
    }

    /// Takes the counters for the rates of the page.
    pub fn sample(&self, now: Instant) {
        let totals = self.totals();
        let mut samples = self.samples.lock();
        samples.push_back(TotalsSample { at: now, totals });
        while samples.front().is_some_and(|it| now.saturating_duration_since(it.at) > SPAN) {
            samples.pop_front();
        }
    }

    fn totals(&self) -> HashMap<(String, u16), ShardTotals> {
        let of = |database: &Arc<Database>| {
            (0..database.topology.shard_count() as u16)
                .map(|it| ((database.name.clone(), it), database.metrics.totals(ShardId(it))))
                .collect::<Vec<_>>()
        };
        self.shared.databases.values().flat_map(of).collect()
    }

    fn shard(&self, database: &Database, index: u16, now: Instant) -> ShardStatus {
        let current = database.metrics.totals(ShardId(index));
        let samples = self.samples.lock();
        let oldest = samples.front();
        let key = (database.name.clone(), index);
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
            servers: servers
                .iter()
                .map(|it| ServerStatus {
                    address: it.address.clone(),
                    role: it.role.map_or("", Role::label),
                    lag_ms: it.lag(now).map(|it| it.as_millis() as u64),
                    lag_bytes: it.lag_bytes,
                    problem: it.problem.clone(),
                    pools: pools(database, it.id),
                })
                .collect(),
        }
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
        let mut databases: Vec<DatabaseStatus> = self
            .shared
            .databases
            .values()
            .map(|it| DatabaseStatus {
                name: it.name.clone(),
                shards: (0..it.topology.shard_count() as u16).map(|of| self.shard(it, of, now)).collect(),
                refusals: it.metrics.refusals().map(|(reason, count)| (reason.label(), count)).collect(),
            })
            .collect();
        databases.sort_by(|a, b| a.name.cmp(&b.name));
        Status { version: env!("CARGO_PKG_VERSION"), clients: self.shared.metrics.clients.get(), databases }
    }

    fn metrics(&self) -> Result<String, String> {
        let mut counted = self.counted.lock();
        for database in self.shared.databases.values() {
            let now = database.router.plan_cache_counts();
            let before = counted.insert(database.name.clone(), now).unwrap_or_default();
            database.catalog.observe(Instant::now());
            let label = [database.name.as_str()];
            self.plan_hits.with_label_values(&label).inc_by(now.hits.saturating_sub(before.hits));
            self.plan_misses.with_label_values(&label).inc_by(now.misses.saturating_sub(before.misses));
            database.pools.for_each(|user| {
                user.all().for_each(|it| {
                    it.usage();
                });
            });
        }
        drop(counted);
        self.registry.text().map_err(|error| error.to_string())
    }

    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for database in self.shared.databases.values() {
            let cluster = database.topology.snapshot();
            for shard in cluster.shards.iter().filter(|it| it.primary().is_none()) {
                missing.push(format!("database {}: shard {} has no primary", database.name, shard.name));
            }
        }
        missing.sort();
        missing
    }
}
