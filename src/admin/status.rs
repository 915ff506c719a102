//! What the page and its JSON show of the process, read anew for each look.

#[derive(Clone, Debug, Default)]
pub struct Status {
    pub version: &'static str,
    /// Seconds of Unix time.
    pub at_s: u64,
    pub clients: i64,
    /// By name.
    pub databases: Vec<DatabaseStatus>,
}

#[derive(Clone, Debug, Default)]
pub struct DatabaseStatus {
    pub name: String,
    /// In the order of `ShardId`.
    pub shards: Vec<ShardStatus>,
    /// By reason, since the start.
    pub refusals: Vec<(&'static str, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct ShardStatus {
    pub name: String,
    /// Requests per second over the last ten seconds.
    pub reads_per_second: f64,
    pub writes_per_second: f64,
    pub errors_per_second: f64,
    pub in_flight: i64,
    /// Requests per second over the last minutes, the oldest first.
    pub history: Vec<f32>,
    pub servers: Vec<ServerStatus>,
}

impl ShardStatus {
    pub fn per_second(&self) -> f64 {
        self.reads_per_second + self.writes_per_second
    }
}

/// Between two values of `ShardStatus::history`.
pub const HISTORY_INTERVAL_S: u64 = 5;
/// Five minutes.
pub const HISTORY_LENGTH: usize = 60;

#[derive(Clone, Debug, Default)]
pub struct ServerStatus {
    pub address: String,
    /// `primary`, `replica`, or empty where unknown.
    pub role: &'static str,
    pub lag_ms: Option<u64>,
    pub lag_bytes: Option<u64>,
    pub problem: Option<String>,
    /// Of a replica: whether reads may go there.
    pub serves: Option<bool>,
    /// `closed`, `open`, `half-open`, or empty where no client has used the server.
    pub breaker: &'static str,
    pub pools: PoolStatus,
}

/// The pools of all users on one server.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolStatus {
    pub active: u64,
    pub idle: u64,
    pub connecting: u64,
    pub waiters: u64,
    pub size: u64,
}
