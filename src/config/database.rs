//! [databases.NAME]: shards, maps, tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::document::{Section, Value, shown};
use super::login;
use super::settings::{self, Setting};
use super::sqlname;
use super::user::{self, check_name};
use super::{Address, Database, Pool, PoolMode, Probe, ShardServers, TableName, TableRule, User};
use crate::base::ShardId;
use crate::shard::{HashFunction, KeyType, KeyValue, Map, MapError, Range, faults};

const POSTGRES_PORT: u16 = 5432;

/// `route::Excluded` has a bit for each.
const SERVERS_MAX: usize = 64;
const SHARDS_MAX: usize = 1024;

/// The servers of a database and where each was named.
type Seen = BTreeMap<Address, usize>;

pub fn databases(top: &Section<'_>, users: &[User]) -> Vec<Database> {
    let section = top.section(settings::DATABASES_SECTION.key, "databases");
    if section.entries().is_empty() {
        section.add(
            section.offset,
            "no database is configured",
            "[databases.NAME] with servers = [\"host:port\"]",
        );
    }
    section
        .entries()
        .into_iter()
        .map(|(name, _)| {
            let path = format!("databases.{name}");
            database(&section.section(name, &path), name, users)
        })
        .collect()
}

fn database(section: &Section<'_>, name: &str, users: &[User]) -> Database {
    section.check_keys(settings::DATABASE);
    check_name(section, section.offset, "database", name);
    let dbname = section.text(&settings::DBNAME);
    if let Some((dbname, offset)) = dbname {
        check_name(section, offset, "database", dbname);
    }
    let probe = probe(section, users);
    let shards = shards(section, name);
    let maps = maps(section, &shards);
    let tables = tables(section, &maps);
    Database {
        name: name.to_owned(),
        dbname: dbname.map_or(name, |it| it.0).to_owned(),
        pool: pool(section, name),
        max_lag: max_lag(section, probe.interval),
        probe,
        server_auth: login::server_auth(section),
        auth_query: login::auth_query(section, users),
        clients_max: section.optional_count(&settings::DATABASE_CLIENTS_MAX),
        server_connections_max: section.optional_count(&settings::DATABASE_CONNECTIONS_MAX),
        pool_mode: pool_mode(section, name, shards.len(), users),
        maps: maps.into_iter().map(|it| it.1).collect(),
        shards,
        tables,
    }
}

/// A session cannot be on several shards.
fn pool_mode(section: &Section<'_>, name: &str, shards: usize, users: &[User]) -> PoolMode {
    let mode = user::pool_mode(section, &settings::POOL_MODE).unwrap_or_default();
    if shards < 2 {
        return mode;
    }
    let instead = "pool_mode = \"session\" in databases of one shard alone";
    let message = format!("database `{name}` has several shards");
    if mode == PoolMode::Session {
        let offset = section.get(settings::POOL_MODE.key).map_or(section.offset, |it| it.span().start);
        section.add(offset, format!("`pool_mode` is \"session\" and {message}"), instead);
    }
    for user in users.iter().filter(|it| it.pool_mode == Some(PoolMode::Session)) {
        let message = format!("`pool_mode` of user `{}` is \"session\" and {message}", user.name);
        section.add(section.offset, message, instead);
    }
    mode
}

fn pool(section: &Section<'_>, name: &str) -> Pool {
    let path = format!("databases.{name}.pool");
    let it = section.section(settings::POOL_SECTION.key, &path);
    it.check_keys(settings::POOL);
    let duration = |setting: &Setting| it.duration(setting).unwrap_or_default();
    Pool {
        size: it.count(&settings::SIZE),
        waiters_max: it.count(&settings::WAITERS_MAX),
        wait_timeout: duration(&settings::WAIT_TIMEOUT),
        connect_timeout: duration(&settings::CONNECT_TIMEOUT),
        idle_timeout: duration(&settings::IDLE_TIMEOUT),
        lifetime: duration(&settings::LIFETIME),
        ramp: it.count(&settings::RAMP),
    }
}

/// Lag includes the age of the samples, so that one below their interval could be met by luck alone.
fn max_lag(section: &Section<'_>, interval: Duration) -> Duration {
    let max_lag = section.duration(&settings::MAX_LAG).unwrap_or_default();
    if max_lag < interval {
        let named = [&settings::MAX_LAG, &settings::PROBE_INTERVAL].iter().find_map(|it| section.get(it.key));
        section.add(
            named.map_or(section.offset, |it| it.span().start),
            "`max_lag` is below `probe_interval`: no replica could show that it meets it",
            "a `max_lag` of at least twice the `probe_interval`",
        );
    }
    max_lag
}

fn probe(section: &Section<'_>, users: &[User]) -> Probe {
    let user = match login::own_user(section, &settings::PROBE_USER, users) {
        Some(name) => name,
        None => match users.iter().find(|it| login::may_log_in_alone(it)) {
            Some(first) => &first.name,
            None => {
                if !users.is_empty() && !section.has(settings::PROBE_USER.key) {
                    let message = "no user can watch the servers: of none the password itself is known";
                    section.add(section.offset, message, "probe_user = a user with a password");
                }
                ""
            }
        },
    };
    Probe {
        user: user.to_owned(),
        interval: section.duration(&settings::PROBE_INTERVAL).unwrap_or_default(),
        timeout: section.duration(&settings::PROBE_TIMEOUT).unwrap_or_default(),
    }
}

fn shards(section: &Section<'_>, name: &str) -> Vec<ShardServers> {
    let mut seen = Seen::new();
    let shards = match (section.has(settings::SERVERS.key), section.has(settings::SHARDS_SECTION.key)) {
        (true, false) => vec![ShardServers { name: "main".to_owned(), servers: servers(section, &mut seen) }],
        (false, true) => {
            let path = format!("databases.{name}.shards");
            let all = section.section(settings::SHARDS_SECTION.key, &path);
            all.entries()
                .into_iter()
                .map(|(shard, _)| {
                    let path = format!("databases.{name}.shards.{shard}");
                    let it = all.section(shard, &path);
                    it.check_keys(settings::SHARD);
                    ShardServers { name: shard.to_owned(), servers: servers(&it, &mut seen) }
                })
                .collect()
        }
        (true, true) => {
            section.add(
                section.offset,
                format!("database `{name}` has both `servers` and `shards`"),
                "one of them",
            );
            Vec::new()
        }
        (false, false) => Vec::new(),
    };
    if shards.len() > SHARDS_MAX {
        let message = format!("database `{name}` has {} shards", shards.len());
        section.add(section.offset, message, format!("at most {SHARDS_MAX} shards"));
    }
    if shards.is_empty() && !(section.has(settings::SERVERS.key) && section.has(settings::SHARDS_SECTION.key))
    {
        let instead = format!("servers = [\"host:port\"], or [databases.{name}.shards.NAME]");
        section.add(section.offset, format!("database `{name}` has no servers"), instead);
    }
    shards
}

/// A server named twice would count double, or be the primary of two shards.
fn servers(section: &Section<'_>, seen: &mut Seen) -> Vec<Address> {
    let Some(value) = section.get(settings::SERVERS.key) else {
        section.add(
            section.offset,
            format!("no `servers` in [{}]", section.path),
            "servers = [\"host:port\"]",
        );
        return Vec::new();
    };
    let Some(list) = value.get_ref().as_array() else {
        section.wrong_kind(&settings::SERVERS, value, "[\"host:port\", ...]");
        return Vec::new();
    };
    if list.is_empty() || list.len() > SERVERS_MAX {
        let message = format!("`servers` has {} servers", list.len());
        section.add(value.span().start, message, format!("1 to {SERVERS_MAX} servers"));
    }
    let mut servers = Vec::new();
    for entry in list.iter() {
        let offset = entry.span().start;
        match entry.get_ref().as_str().and_then(address) {
            None => section.add(
                offset,
                format!("{} is no server", shown(entry)),
                "\"host:port\", an IPv6 address in brackets",
            ),
            Some(it) => match seen.get(&it) {
                Some(first) => {
                    let line = section.findings.line(*first);
                    let message = format!("server {it} stands twice in this database, first in line {line}");
                    section.add(offset, message, "each server once");
                }
                None => {
                    seen.insert(it.clone(), offset);
                    servers.push(it);
                }
            },
        }
    }
    servers
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`.
fn address(text: &str) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Some(POSTGRES_PORT), |it| it.parse().ok().filter(|it| *it > 0))?;
    let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_' | ':');
    let valid = !host.is_empty() && host.chars().all(allowed);
    valid.then(|| Address { host: host.to_ascii_lowercase(), port })
}

/// Maps by name, in the order of the file. One that is wrong is left out, its problem told.
fn maps(section: &Section<'_>, shards: &[ShardServers]) -> Vec<(String, Arc<Map>)> {
    let path = format!("{}.maps", section.path);
    let all = section.section(settings::MAPS_SECTION.key, &path);
    all.entries()
        .into_iter()
        .filter_map(|(name, _)| {
            let path = format!("{}.{name}", all.path);
            let it = all.section(name, &path);
            it.check_keys(settings::MAP);
            map(&it, name, shards).map(|map| (name.to_owned(), Arc::new(map)))
        })
        .collect()
}

fn map(section: &Section<'_>, name: &str, shards: &[ShardServers]) -> Option<Map> {
    let key_type = map_type(section);
    let kind = section.text(&settings::MAP_KIND);
    let made = match kind {
        Some(("hash", _)) => hash_slots(section, shards)
            .zip(key_type)
            .map(|(slots, key_type)| Map::hash(name, key_type, HashFunction::Xxh3, slots)),
        Some(("range", _)) => ranges(section, key_type, shards)
            .zip(key_type)
            .map(|(ranges, key_type)| Map::range(name, key_type, ranges)),
        Some((other, offset)) => {
            section.add(offset, format!("`kind` is \"{other}\""), "kind = \"hash\" or kind = \"range\"");
            None
        }
        None => {
            if !section.has(settings::MAP_KIND.key) {
                section.add(
                    section.offset,
                    format!("map `{name}` has no `kind`"),
                    "kind = \"hash\" or kind = \"range\"",
                );
            }
            None
        }
    };
    made?
        .map_err(|error| {
            section.add(
                section.offset,
                format!("map `{name}`: {error}"),
                "ranges or slots that cover every key once",
            )
        })
        .ok()
}

fn map_type(section: &Section<'_>) -> Option<KeyType> {
    const INSTEAD: &str = "type = \"bigint\", or smallint, integer, text, uuid, date, timestamp, timestamptz";
    match section.text(&settings::MAP_TYPE) {
        Some((text, offset)) => {
            let found = text.parse().ok();
            if found.is_none() {
                section.add(offset, format!("`type` is \"{text}\", which cannot be a shard key"), INSTEAD);
            }
            found
        }
        None => {
            if !section.has(settings::MAP_TYPE.key) {
                section.add(section.offset, "the map has no `type`", INSTEAD);
            }
            None
        }
    }
}

/// The shard that a table of `assign` or `ranges` names.
fn shard_of(section: &Section<'_>, entry: Value<'_>, shards: &[ShardServers]) -> Option<ShardId> {
    let names = || shards.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(value) = entry.get_ref().get("shard") else {
        section.add(entry.span().start, "no `shard`", format!("shard = one of: {}", names()));
        return None;
    };
    let name = value.get_ref().as_str();
    let index = shards.iter().position(|it| Some(it.name.as_str()) == name);
    if index.is_none() {
        section.add(
            value.span().start,
            format!("{} is no shard of this database", shown(value)),
            format!("one of: {}", names()),
        );
    }
    index.map(|it| ShardId(it as u16))
}

fn check_entry_keys(section: &Section<'_>, entry: Value<'_>, known: &[&str]) {
    let Some(table) = entry.get_ref().as_table() else {
        section.add(
            entry.span().start,
            format!("{} is no table", shown(entry)),
            format!("{{ {} = ... }}", known.join(" = ..., ")),
        );
        return;
    };
    for (key, _) in table.iter().filter(|(key, _)| !known.contains(&&**key.get_ref())) {
        section.add(
            key.span().start,
            format!("unknown key `{}`", key.get_ref()),
            format!("one of {}", known.join(", ")),
        );
    }
}

fn hash_slots(section: &Section<'_>, shards: &[ShardServers]) -> Option<Vec<ShardId>> {
    if let Some((name, offset)) = section.text(&settings::MAP_HASH)
        && name != "xxh3"
    {
        section.add(offset, format!("`hash` is \"{name}\", which is not built yet"), "hash = \"xxh3\"");
    }
    if let Some(value) = section.get(settings::MAP_RANGES.key) {
        section.add(
            value.span().start,
            "a hash map has no `ranges`",
            "slots and assign, or kind = \"range\"",
        );
    }
    let count = section.count(&settings::MAP_SLOTS);
    if !count.is_power_of_two() {
        let offset = section.get(settings::MAP_SLOTS.key).map_or(section.offset, |it| it.span().start);
        section.add(
            offset,
            format!("`slots` is {count}"),
            format!("a power of two: slots = {}", count.next_power_of_two()),
        );
        return None;
    }
    if count < shards.len() {
        section.add(
            section.offset,
            format!("{count} slots for {} shards", shards.len()),
            "at least one slot for each shard",
        );
        return None;
    }
    match section.get(settings::MAP_ASSIGN.key) {
        None => Some((0..count).map(|it| ShardId((it * shards.len() / count) as u16)).collect()),
        Some(assign) => assigned(section, assign, count, shards),
    }
}

fn assigned(
    section: &Section<'_>,
    assign: Value<'_>,
    count: usize,
    shards: &[ShardServers],
) -> Option<Vec<ShardId>> {
    let Some(list) = assign.get_ref().as_array() else {
        section.wrong_kind(&settings::MAP_ASSIGN, assign, "[{ slots = \"0-2047\", shard = \"s1\" }, ...]");
        return None;
    };
    let mut slots: Vec<Option<ShardId>> = vec![None; count];
    let mut whole = true;
    for entry in list.iter() {
        check_entry_keys(section, entry, &["slots", "shard"]);
        let shard = shard_of(section, entry, shards);
        let text = entry.get_ref().get("slots").and_then(|it| it.get_ref().as_str());
        let Some((first, last)) = text.and_then(slot_span).filter(|it| it.0 <= it.1 && it.1 < count) else {
            section.add(
                entry.span().start,
                "`slots` is no run of slots",
                format!("slots = \"FIRST-LAST\" within 0-{}", count - 1),
            );
            whole = false;
            continue;
        };
        let Some(shard) = shard else {
            whole = false;
            continue;
        };
        if let Some(taken) = (first..=last).find(|it| slots[*it].is_some()) {
            section.add(entry.span().start, format!("slot {taken} is assigned twice"), "each slot once");
            whole = false;
        }
        slots[first..=last].fill(Some(shard));
    }
    if let Some(free) = slots.iter().position(Option::is_none).filter(|_| whole) {
        section.add(
            assign.span().start,
            format!("slot {free} is assigned to no shard"),
            format!("runs that cover 0-{}", count - 1),
        );
    }
    slots.into_iter().collect::<Option<Vec<_>>>().filter(|_| whole)
}

fn slot_span(text: &str) -> Option<(usize, usize)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

fn ranges(section: &Section<'_>, key_type: Option<KeyType>, shards: &[ShardServers]) -> Option<Vec<Range>> {
    for setting in [&settings::MAP_SLOTS, &settings::MAP_ASSIGN, &settings::MAP_HASH] {
        if let Some(value) = section.get(setting.key) {
            section.add(
                value.span().start,
                format!("a range map has no `{}`", setting.key),
                "ranges, or kind = \"hash\"",
            );
        }
    }
    let example = &settings::MAP_RANGES;
    let Some(value) = section.get(example.key) else {
        section.add(
            section.offset,
            "the range map has no `ranges`",
            "ranges = [{ to = ..., shard = ... }, ...]",
        );
        return None;
    };
    let Some(list) = value.get_ref().as_array() else {
        section.wrong_kind(example, value, "[{ to = ..., shard = ... }, ...]");
        return None;
    };
    let range = |entry: Value<'_>| {
        check_entry_keys(section, entry, &["from", "to", "shard"]);
        let shard = shard_of(section, entry, shards);
        let bound = |key| key_type.map(|key_type| bound(section, entry, key, key_type));
        let (from, to) = (bound("from"), bound("to"));
        Some(Range { from: from??, to: to??, shard: shard? })
    };
    let found: Vec<_> = list.iter().map(range).collect();
    // With one range unread, gaps and overlaps would be guesses.
    let ranges = found.into_iter().collect::<Option<Vec<_>>>()?;
    let faults = faults(&ranges);
    for fault in &faults {
        let offset_of = |number: usize| list.get(number - 1).map_or(section.offset, |it| it.span().start);
        let line_of = |number: usize| section.findings.line(offset_of(number));
        let (offset, message, instead) = match *fault {
            MapError::Inverted(at) => {
                (offset_of(at), "`from` is not below `to`".to_owned(), "the lower end as `from`")
            }
            MapError::Overlap(a, b) => (
                offset_of(b),
                format!("range {b} overlaps range {a} of line {}", line_of(a)),
                "one range's `to` as the next one's `from`",
            ),
            MapError::Gap(a, b) => (
                offset_of(b),
                format!("no range covers the keys between range {a} of line {} and range {b}", line_of(a)),
                "one range's `to` as the next one's `from`",
            ),
            MapError::Empty | MapError::Slots(_) => {
                (value.span().start, fault.to_string(), "ranges = [{ to = ..., shard = ... }, ...]")
            }
        };
        section.add(offset, message, instead);
    }
    faults.is_empty().then_some(ranges)
}

/// `Some(None)` is no end; `None` is a bound that cannot be read, its problem told.
fn bound(section: &Section<'_>, entry: Value<'_>, key: &str, key_type: KeyType) -> Option<Option<KeyValue>> {
    let Some(value) = entry.get_ref().get(key) else { return Some(None) };
    let text = match (value.get_ref().as_str(), value.get_ref().as_integer(), value.get_ref().as_datetime()) {
        (Some(it), _, _) => it.to_owned(),
        (_, Some(it), _) => it.as_str().to_owned(),
        (_, _, Some(it)) => it.to_string(),
        _ => String::new(),
    };
    match key_type.parse_text(&text, false) {
        Ok(it) => Some(Some(it)),
        Err(refusal) => {
            let instead = refusal.hint_text().map_or_else(|| format!("a {key_type}"), str::to_owned);
            section.add(value.span().start, format!("`{key}`: {}", refusal.message()), instead);
            None
        }
    }
}

fn tables(section: &Section<'_>, maps: &[(String, Arc<Map>)]) -> BTreeMap<TableName, TableRule> {
    let path = format!("{}.tables", section.path);
    let all = section.section(settings::TABLES_SECTION.key, &path);
    let (mut tables, mut offsets) = (BTreeMap::new(), BTreeMap::new());
    for (text, _) in all.entries() {
        let path = format!("{}.{text}", all.path);
        let it = all.section(text, &path);
        it.check_keys(settings::TABLE);
        let rule = table_rule(&it, text, section, maps);
        let Some(name) = sqlname::table(text) else {
            let instead = "it as in SQL: users, \"app.users\", '\"App\".\"Users\"'";
            it.add(it.offset, format!("\"{text}\" is no table name"), instead);
            continue;
        };
        if let Some(first) = offsets.insert(name.clone(), it.offset) {
            let line = it.findings.line(first);
            let message = format!("table `{text}` is the one of line {line}: SQL folds names to lower case");
            it.add(it.offset, message, "each table once");
        }
        tables.extend(rule.map(|rule| (name, rule)));
    }
    tables
}

fn table_rule(
    section: &Section<'_>,
    name: &str,
    database: &Section<'_>,
    maps: &[(String, Arc<Map>)],
) -> Option<TableRule> {
    let reference = match section.get(settings::TABLE_REFERENCE.key) {
        None => false,
        Some(value) => value.get_ref().as_bool().unwrap_or_else(|| {
            section.wrong_kind(&settings::TABLE_REFERENCE, value, "true or false");
            false
        }),
    };
    let (map, key) = (section.text(&settings::TABLE_MAP), section.text(&settings::TABLE_KEY));
    match (reference, map, key) {
        (true, None, None) => Some(TableRule::Reference),
        (true, _, _) => {
            section.add(
                section.offset,
                format!("table `{name}` is a reference table and has a map or key"),
                "either `reference = true`, or `map` and `key`",
            );
            None
        }
        (false, Some((map, offset)), Some((key, key_offset))) => {
            let index = maps.iter().position(|it| it.0 == map);
            // A map that is there but wrong has been told of already.
            let declared =
                database.get(settings::MAPS_SECTION.key).is_some_and(|it| it.get_ref().get(map).is_some());
            if index.is_none() && !declared {
                let names = maps.iter().map(|it| it.0.as_str()).collect::<Vec<_>>().join(", ");
                section.add(offset, format!("there is no map `{map}`"), format!("one of: {names}"));
            }
            let column = sqlname::column(key);
            if column.is_none() {
                section.add(
                    key_offset,
                    format!("\"{key}\" is no column name"),
                    "it as in SQL: key = \"user_id\"",
                );
            }
            Some(TableRule::Sharded { map: index?, key: column? })
        }
        (false, _, _) => {
            section.add(
                section.offset,
                format!("table `{name}` has no map and key"),
                "map = \"...\" and key = \"column\", or reference = true",
            );
            None
        }
    }
}
