//! [databases.NAME.tables.NAME] and [databases.NAME.schemas.NAME].

use super::{Setting, optional_count, optional_duration, other};

pub const TABLE_MAP: Setting =
    other("map", "\"by_user\"", "required, or `reference` or `shard`", "the map that places the rows");
pub const TABLE_KEY: Setting = other(
    "key",
    "\"user_id\"",
    "required with `map`",
    "the column whose value is the key; a list of columns where the map's type is a list",
);
pub const TABLE_REFERENCE: Setting =
    other("reference", "true", "false", "the same rows on every shard: read on any, written on all");
pub const TABLE_SHARD: Setting =
    other("shard", "\"s1\"", "none", "the one shard that has all rows of a table that is not sharded");
pub const TABLE_SHARE_READS: Setting = other(
    "share_reads",
    "true",
    "false",
    "a read that is the same as one under way gets that one's answer, where its level of consistency allows it and every table that it reads says so",
);
pub const TABLE_CACHE_TTL: Setting = optional_duration(
    "cache_ttl",
    "off",
    "1ms",
    "1d",
    "how long answers of reads are kept and given again; a write of their rows through this keyway ends it at once, writes by other ways are not seen. Of several tables the shortest, and every one must say so",
);
pub const TABLE_WRITES_AT_ONCE: Setting = optional_count(
    "writes_at_once",
    1,
    1_000,
    "how many transactions may begin with a write of the same key of the table at once; further ones wait in line, without a server connection",
);
pub const TABLE: &[&Setting] = &[
    &TABLE_MAP,
    &TABLE_KEY,
    &TABLE_REFERENCE,
    &TABLE_SHARD,
    &TABLE_SHARE_READS,
    &TABLE_CACHE_TTL,
    &TABLE_WRITES_AT_ONCE,
];

pub const SCHEMA_SHARD: Setting =
    other("shard", "\"s1\"", "required", "the shard of all tables of the schema that are not listed");
pub const SCHEMA: &[&Setting] = &[&SCHEMA_SHARD];
