//! [databases.NAME.protection].

use super::{Setting, count, other};

pub const PROTECTION_SECTION: Setting = other(
    "protection",
    "",
    "",
    "what is done for keys that are hot, beside what tables say for themselves (`share_reads`, `cache_ttl`, `writes_at_once`)",
);
pub const HOT_SHARE: Setting = other(
    "hot_share",
    "0.2",
    "off",
    "keys that have at least this share of the calls of their map, by the lower bound of what was counted in the last minute, are protected by themselves: their reads are shared as by `share_reads`, their writes wait in line as by `hot_writes_at_once`. From 0.01 to 1.0, or \"off\"; it needs `hotspots`",
);
pub const HOT_WRITES_AT_ONCE: Setting = count(
    "hot_writes_at_once",
    2,
    1,
    1_000,
    "as `writes_at_once`, for keys that are protected by `hot_share`",
);
pub const WRITE_QUEUE_MAX: Setting = count(
    "write_queue_max",
    1_000,
    1,
    100_000,
    "transactions that may wait in line for one key, for `pool.wait_timeout` at most (55P03); the next one gets 53400",
);
pub const DRY_RUN: Setting =
    other("dry_run", "true", "false", "nobody waits in line for a key: who would have is counted alone");
pub const SHARED_REPLY_BYTES_MAX: Setting = count(
    "shared_reply_bytes_max",
    65_536,
    1_024,
    16_777_216,
    "a longer answer is neither shared nor kept: those who waited for it ask for themselves",
);
pub const CACHE_BYTES_MAX: Setting = count(
    "cache_bytes_max",
    16_777_216,
    65_536,
    68_719_476_736,
    "of all answers that are kept; those that have not been asked for make room",
);
pub const PROTECTION: &[&Setting] =
    &[&HOT_SHARE, &HOT_WRITES_AT_ONCE, &WRITE_QUEUE_MAX, &DRY_RUN, &SHARED_REPLY_BYTES_MAX, &CACHE_BYTES_MAX];
