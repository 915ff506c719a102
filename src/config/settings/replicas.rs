//! [databases.NAME.replicas], and what a server's entry may say.

use super::{Setting, count, duration, other};

pub const REPLICAS_SECTION: Setting = other(
    "replicas",
    "",
    "",
    "how reads are spread over the replicas of a shard, and what becomes of them without one",
);
pub const ZONE: Setting = other(
    "zone",
    "\"a\"",
    "none",
    "the zone that this keyway is in: servers of another one get reads only where those of this one are busy or slow; a server without a zone is of this one",
);
pub const ZONE_PENALTY: Setting = count(
    "zone_penalty",
    4,
    1,
    1_000,
    "a server of another zone is taken for so many times as slow as it is; 1 is no preference",
);
pub const SLOW_START: Setting = duration(
    "slow_start",
    "5s",
    "0s",
    "1h",
    "a replica that was away or late, and is back, gets its share of reads over this time, since its caches are cold; where it is alone the primary has the rest",
);
pub const WHEN_STALE: Setting = other(
    "when_stale",
    "\"primary\"",
    "primary",
    "a read while no replica is within `max_lag`: \"primary\" (answers it), \"least_stale\" (the replica that is least late, if it has what the level of consistency asks for; else the primary) or \"error\" (57P03)",
);
pub const PRIMARY_READ_SHARE: Setting = other(
    "primary_read_share",
    "1.0",
    "1.0",
    "of `pool.size`, what reads that are a replica's may take of a primary at once, of all users together, so that the loss of replicas is not the end of the primary; the next one waits for `pool.wait_timeout` and then gets 53300. 1.0 is no bound, 0.0 is no such read. From 0.0 to 1.0",
);
pub const REPLICAS: &[&Setting] = &[&ZONE, &ZONE_PENALTY, &SLOW_START, &WHEN_STALE, &PRIMARY_READ_SHARE];

pub const SERVER_ADDRESS: Setting = other("address", "\"10.0.0.1:5432\"", "required", "host and port");
pub const SERVER_WEIGHT: Setting =
    count("weight", 1, 1, 1_000, "of reads a server of weight 2 gets twice as many");
pub const SERVER_ZONE: Setting = other("zone", "\"a\"", "none", "where it is");
pub const SERVER_PATRONI: Setting = other(
    "patroni",
    "\"http://10.0.0.1:8008\"",
    "none",
    "its Patroni's REST API: while it does not answer that this server leads, the server is not the primary, whatever it says itself. http alone; it has `probe_timeout` to answer",
);
pub const SERVER: &[&Setting] = &[&SERVER_ADDRESS, &SERVER_WEIGHT, &SERVER_ZONE, &SERVER_PATRONI];
