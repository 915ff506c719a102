//! [databases.NAME.protection], and what tables say for themselves.

use std::time::Duration;

use super::document::Section;
use super::{Share, settings};

/// What is done for hot keys of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Of a map's calls, from which a key is protected by itself.
    pub hot_share: Option<Share>,
    pub hot_writes_at_once: usize,
    pub write_queue_max: usize,
    pub dry_run: bool,
    pub shared_reply_bytes_max: usize,
    pub cache_bytes_max: usize,
}

/// What is done for a table, whatever is hot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableProtection {
    pub share_reads: bool,
    pub cache_ttl: Option<Duration>,
    pub writes_at_once: Option<usize>,
}

impl TableProtection {
    pub const NONE: TableProtection =
        TableProtection { share_reads: false, cache_ttl: None, writes_at_once: None };
}

pub fn protection(section: &Section<'_>, name: &str) -> Protection {
    let path = format!("databases.{name}.protection");
    let it = section.section(settings::PROTECTION_SECTION.key, &path);
    it.check_keys(settings::PROTECTION);
    Protection {
        hot_share: hot_share(&it),
        hot_writes_at_once: it.count(&settings::HOT_WRITES_AT_ONCE),
        write_queue_max: it.count(&settings::WRITE_QUEUE_MAX),
        dry_run: it.flag(&settings::DRY_RUN),
        shared_reply_bytes_max: it.count(&settings::SHARED_REPLY_BYTES_MAX),
        cache_bytes_max: it.count(&settings::CACHE_BYTES_MAX),
    }
}

fn hot_share(section: &Section<'_>) -> Option<Share> {
    let setting = &settings::HOT_SHARE;
    match section.get(setting.key)?.get_ref().as_str() {
        Some("off") => None,
        _ => section.number(setting, 0.01..=1.0).map(Share::new),
    }
}

pub fn of_table(section: &Section<'_>) -> TableProtection {
    TableProtection {
        share_reads: section.flag(&settings::TABLE_SHARE_READS),
        cache_ttl: section.duration(&settings::TABLE_CACHE_TTL),
        writes_at_once: section.optional_count(&settings::TABLE_WRITES_AT_ONCE),
    }
}

/// Whether a table's section is about this at all.
pub fn says(section: &Section<'_>) -> bool {
    use settings as s;
    [&s::TABLE_SHARE_READS, &s::TABLE_CACHE_TTL, &s::TABLE_WRITES_AT_ONCE]
        .iter()
        .any(|it| section.has(it.key))
}
