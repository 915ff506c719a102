//! Hot shards and keys.

use super::{Setting, other};

pub const HOTSPOTS: Setting = other(
    "hotspots",
    "true",
    "true",
    "count statements by shard, table, slot or range, and key, for SHOW HOTSPOTS, the dashboard and metrics; docs/hotspots.md says what it costs",
);
pub const HOTSPOT_HISTORY: Setting = other(
    "hotspot_history",
    "\"/var/lib/keyway/hotspots\"",
    "none: load is forgotten when keyway ends",
    "a file that keeps five weeks of load of slots and ranges over a restart, written once a minute and at the end, a few MB for each map; it holds no keys. A damaged one is set aside",
);
