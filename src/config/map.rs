//! [databases.NAME.maps.NAME]: which shard a key lives on.

use std::collections::HashMap;
use std::sync::Arc;

use super::ShardServers;
use super::document::{Section, Value, shown};
use super::settings::{self, Setting};
use crate::base::ShardId;
use crate::shard::{
    BadType, COLUMNS_MAX, HashFunction, KeyColumn, KeyType, KeyValue, ListEntry, Map, MapError, Range, faults,
};

const KINDS: &str = "kind = \"hash\", kind = \"range\" or kind = \"list\"";

/// A map's section with what every part of it needs.
struct Reading<'a> {
    section: &'a Section<'a>,
    shards: &'a [ShardServers],
    /// `None` where they cannot be read, their problem told.
    columns: Option<Vec<KeyColumn>>,
}

/// Maps by name, in the order of the file. One that is wrong is left out, its problem told.
pub fn maps(section: &Section<'_>, shards: &[ShardServers]) -> Vec<(String, Arc<Map>)> {
    let path = format!("{}.maps", section.path);
    let all = section.section(settings::MAPS_SECTION.key, &path);
    all.entries()
        .into_iter()
        .filter_map(|(name, _)| {
            let path = format!("{}.{name}", all.path);
            let it = all.section(name, &path);
            it.check_keys(settings::MAP);
            let reading = Reading { section: &it, shards, columns: columns(&it) };
            reading.map(name).map(|map| (name.to_owned(), Arc::new(map)))
        })
        .collect()
}

impl Reading<'_> {
    fn map(&self, name: &str) -> Option<Map> {
        let section = self.section;
        let made = match section.text(&settings::MAP_KIND) {
            Some(("hash", _)) => {
                self.unfit("hash", &[&settings::MAP_RANGES, &settings::MAP_LISTS, &settings::MAP_DEFAULT]);
                self.hash(name)
            }
            Some(("range", _)) => {
                self.unfit("range", HASH_ONLY);
                self.unfit("range", &[&settings::MAP_LISTS, &settings::MAP_DEFAULT]);
                let ordered = self.is_ordered();
                self.ranges()
                    .zip(self.columns.as_deref())
                    .filter(|_| ordered)
                    .map(|(ranges, columns)| Map::range(name, columns, ranges))
            }
            Some(("list", _)) => {
                self.unfit("list", HASH_ONLY);
                self.unfit("list", &[&settings::MAP_RANGES]);
                self.list(name)
            }
            Some((other, offset)) => {
                section.add(offset, format!("`kind` is \"{other}\""), KINDS);
                None
            }
            None => {
                if !section.has(settings::MAP_KIND.key) {
                    section.add(section.offset, format!("map `{name}` has no `kind`"), KINDS);
                }
                None
            }
        };
        let pinned = self.pinned();
        made?
            .and_then(|map| map.with_pinned(pinned?))
            .map_err(|error| {
                let instead = match error {
                    MapError::EnumHash => "hash = \"xxh3\", or kind = \"list\"",
                    _ => "ranges or slots that cover every key once",
                };
                section.add(section.offset, format!("map `{name}`: {error}"), instead);
            })
            .ok()
    }

    /// Settings that another kind of map has.
    fn unfit(&self, kind: &str, others: &[&Setting]) {
        for setting in others {
            if let Some(value) = self.section.get(setting.key) {
                let instead = match setting.key {
                    "ranges" => "ranges in a map of kind = \"range\"",
                    "lists" | "default" => "lists and default in a map of kind = \"list\"",
                    _ => "slots, assign and hash in a map of kind = \"hash\"",
                };
                let message = format!("a {kind} map has no `{}`", setting.key);
                self.section.add(value.span().start, message, instead);
            }
        }
    }

    /// Text is in the order of its column's collation, of which Keyway knows one.
    fn is_ordered(&self) -> bool {
        let collation = self.section.text(&settings::MAP_COLLATION);
        let columns = self.columns.as_deref().unwrap_or_default();
        if columns.iter().any(|it| it.key_type == KeyType::Enum) {
            let instead = "kind = \"list\", or kind = \"hash\"";
            self.section.add(self.section.offset, MapError::EnumRange.to_string(), instead);
            return false;
        }
        match collation {
            Some(("C" | "POSIX", _)) => true,
            Some((other, offset)) => {
                self.section.add(
                    offset,
                    format!("the order of collation \"{other}\" is known to the servers alone"),
                    "collation = \"C\", if the column is declared so, or kind = \"hash\"",
                );
                false
            }
            None if columns.iter().any(|it| it.key_type.is_collated()) => {
                self.section.add(
                    self.section.offset,
                    "ranges of text are in the order of the column's collation, which is not known",
                    "collation = \"C\", if the column is declared so, or kind = \"hash\"",
                );
                false
            }
            None => true,
        }
    }

    fn hash(&self, name: &str) -> Option<Result<Map, MapError>> {
        let function = match self.section.text(&settings::MAP_HASH) {
            None | Some(("xxh3", _)) => HashFunction::Xxh3,
            Some(("postgres", _)) => HashFunction::Postgres,
            Some((name, offset)) => {
                let instead = "hash = \"xxh3\" or hash = \"postgres\"";
                self.section.add(offset, format!("`hash` is \"{name}\""), instead);
                return None;
            }
        };
        let slots = self.slots(function);
        Some(Map::hash(name, self.columns.as_deref()?, function, slots?))
    }

    fn slots(&self, function: HashFunction) -> Option<Vec<ShardId>> {
        let (section, shards) = (self.section, self.shards);
        let count = section.count(&settings::MAP_SLOTS);
        if function == HashFunction::Xxh3 && !count.is_power_of_two() {
            let offset = section.get(settings::MAP_SLOTS.key).map_or(section.offset, |it| it.span().start);
            let instead = format!("a power of two: slots = {}", count.next_power_of_two());
            section.add(offset, format!("`slots` is {count}"), instead);
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

    fn ranges(&self) -> Option<Vec<Range>> {
        let section = self.section;
        let (value, list) = self.required(&settings::MAP_RANGES, "[{ to = ..., shard = ... }, ...]")?;
        let range = |entry: Value<'_>| {
            check_entry_keys(section, entry, &["from", "to", "shard"]);
            let shard = shard_of(section, entry, self.shards);
            let bound = |key: &str| match entry.get_ref().get(key) {
                None => Some(None),
                Some(it) => self.key(key, it).map(Some),
            };
            let (from, to) = (bound("from"), bound("to"));
            Some(Range { from: from?, to: to?, shard: shard? })
        };
        let found: Vec<_> = list.iter().map(range).collect();
        // With one range unread, gaps and overlaps would be guesses.
        let ranges = found.into_iter().collect::<Option<Vec<_>>>()?;
        let faults = faults(&ranges);
        let offsets: Vec<usize> = list.iter().map(|it| it.span().start).collect();
        faults.iter().for_each(|it| self.tell(it, value.span().start, &offsets));
        faults.is_empty().then_some(ranges)
    }

    /// A fault of ranges that stand at these places.
    fn tell(&self, fault: &MapError, whole: usize, offsets: &[usize]) {
        let section = self.section;
        let offset_of = |number: usize| offsets.get(number - 1).copied().unwrap_or(section.offset);
        let line_of = |number: usize| section.findings.line(offset_of(number));
        let next = "one range's `to` as the next one's `from`";
        let (offset, message, instead) = match *fault {
            MapError::Inverted(at) => {
                (offset_of(at), "`from` is not below `to`".to_owned(), "the lower end as `from`")
            }
            MapError::Overlap(a, b) => {
                (offset_of(b), format!("range {b} overlaps range {a} of line {}", line_of(a)), next)
            }
            MapError::Gap(a, b) => (
                offset_of(b),
                format!("no range covers the keys between range {a} of line {} and range {b}", line_of(a)),
                next,
            ),
            _ => (whole, fault.to_string(), "ranges = [{ to = ..., shard = ... }, ...]"),
        };
        section.add(offset, message, instead);
    }

    fn list(&self, name: &str) -> Option<Result<Map, MapError>> {
        let section = self.section;
        let default = match section.get(settings::MAP_DEFAULT.key) {
            None => Some(None),
            Some(value) => shard_named(section, value, self.shards).map(Some),
        };
        let (_, list) = self.required(&settings::MAP_LISTS, "[{ values = [...], shard = ... }, ...]")?;
        let mut seen = HashMap::new();
        let mut entry = |entry: Value<'_>| {
            check_entry_keys(section, entry, &["values", "shard"]);
            let shard = shard_of(section, entry, self.shards);
            let values = entry.get_ref().get("values").and_then(|it| it.get_ref().as_array());
            let Some(values) = values.filter(|it| !it.is_empty()) else {
                section.add(entry.span().start, "no `values`", "values = [...], one key at least");
                return None;
            };
            let values: Vec<_> = values.iter().map(|it| self.once("value", it, &mut seen)).collect();
            Some(ListEntry { values: values.into_iter().collect::<Option<_>>()?, shard: shard? })
        };
        let entries: Vec<_> = list.iter().map(&mut entry).collect();
        let entries = entries.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Map::list(name, self.columns.as_deref()?, entries, default?))
    }

    fn pinned(&self) -> Result<Vec<(KeyValue, ShardId)>, MapError> {
        let section = self.section;
        let Some(value) = section.get(settings::MAP_PINNED.key) else { return Ok(Vec::new()) };
        let Some(list) = value.get_ref().as_array() else {
            section.wrong_kind(&settings::MAP_PINNED, value, "[{ key = ..., shard = ... }, ...]");
            return Ok(Vec::new());
        };
        let mut seen = HashMap::new();
        let mut pinned = Vec::new();
        for entry in list.iter() {
            check_entry_keys(section, entry, &["key", "shard"]);
            let shard = shard_of(section, entry, self.shards);
            let Some(key) = entry.get_ref().get("key") else {
                section.add(entry.span().start, "no `key`", "key = the key that lives on this shard");
                continue;
            };
            pinned.extend(self.once("key", key, &mut seen).zip(shard));
        }
        Ok(pinned)
    }

    /// A key that no other entry may have.
    fn once(&self, name: &str, value: Value<'_>, seen: &mut HashMap<KeyValue, usize>) -> Option<KeyValue> {
        let key = self.key(name, value)?;
        let offset = value.span().start;
        match seen.insert(key.clone(), offset) {
            None => Some(key),
            Some(first) => {
                let line = self.section.findings.line(first);
                let message = format!("{name} {key} stands twice, first in line {line}");
                self.section.add(offset, message, "each key once");
                None
            }
        }
    }

    /// `None` is a key that cannot be read, its problem told; so it is where the map's type is not known.
    fn key(&self, name: &str, value: Value<'_>) -> Option<KeyValue> {
        let section = self.section;
        let single =
            |column: &KeyColumn, value: Value<'_>| match column.key_type.parse_text(&written(value), false) {
                Ok(it) => Some(it),
                Err(refusal) => {
                    let instead = refusal.hint_text().map_or_else(|| format!("a {column}"), str::to_owned);
                    section.add(value.span().start, format!("`{name}`: {}", refusal.message()), instead);
                    None
                }
            };
        match self.columns.as_deref()? {
            [column] => single(column, value),
            columns => match value.get_ref().as_array().filter(|it| it.len() == columns.len()) {
                Some(values) => {
                    let each: Vec<_> = columns.iter().zip(values.iter()).map(|(a, b)| single(a, b)).collect();
                    Some(KeyValue::Row(each.into_iter().collect::<Option<_>>()?))
                }
                None => {
                    let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
                    let message = format!("`{name}` is {}", shown(value));
                    section.add(value.span().start, message, format!("{name} = [{}]", names.join(", ")));
                    None
                }
            },
        }
    }

    fn required(&self, setting: &Setting, want: &str) -> Option<(Value<'_>, &toml::de::DeArray<'_>)> {
        let Some(value) = self.section.get(setting.key) else {
            let message = format!("the map has no `{}`", setting.key);
            self.section.add(self.section.offset, message, format!("{} = {want}", setting.key));
            return None;
        };
        let list = value.get_ref().as_array();
        if list.is_none() {
            self.section.wrong_kind(setting, value, want);
        }
        Some((value, list?))
    }
}

const HASH_ONLY: &[&Setting] = &[&settings::MAP_SLOTS, &settings::MAP_ASSIGN, &settings::MAP_HASH];

/// A value as SQL would write it between quotes; empty for what can be no key.
fn written(value: Value<'_>) -> String {
    let it = value.get_ref();
    if let Some(number) = it.as_integer() {
        let plain = i128::from_str_radix(number.as_str(), number.radix());
        return plain.map_or_else(|_| number.as_str().to_owned(), |it| it.to_string());
    }
    match (it.as_str(), it.as_bool(), it.as_datetime()) {
        (Some(text), _, _) => text.to_owned(),
        (_, Some(truth), _) => truth.to_string(),
        (_, _, Some(time)) => time.to_string(),
        _ => String::new(),
    }
}

fn columns(section: &Section<'_>) -> Option<Vec<KeyColumn>> {
    const INSTEAD: &str = "type = \"bigint\", or smallint, integer, numeric, boolean, text, varchar(N), char(N), enum, \
                           uuid, bytea, date, timestamp, timestamptz, or a list of up to four of these";
    let Some(value) = section.get(settings::MAP_TYPE.key) else {
        section.add(section.offset, "the map has no `type`", INSTEAD);
        return None;
    };
    let names: Vec<Value<'_>> = match value.get_ref().as_array() {
        Some(list) => list.iter().collect(),
        None => vec![value],
    };
    if names.is_empty() || names.len() > COLUMNS_MAX {
        let message = MapError::Columns(names.len()).to_string();
        section.add(value.span().start, message, INSTEAD);
        return None;
    }
    let column = |it: &Value<'_>| {
        let Some(text) = it.get_ref().as_str() else {
            section.wrong_kind(&settings::MAP_TYPE, it, "\"bigint\" or the like");
            return None;
        };
        match text.parse() {
            Ok(column) => Some(column),
            Err(BadType::Unknown) => {
                let message = format!("`type` is \"{text}\", which cannot be a shard key");
                section.add(it.span().start, message, INSTEAD);
                None
            }
            Err(BadType::Modifier) => {
                let message = format!("`type` is \"{text}\", whose length or precision cannot be");
                section.add(it.span().start, message, INSTEAD);
                None
            }
        }
    };
    let all: Vec<Option<KeyColumn>> = names.iter().map(column).collect();
    all.into_iter().collect()
}

/// The shard that a table of `assign`, `ranges`, `lists` or `pinned` names.
fn shard_of(section: &Section<'_>, entry: Value<'_>, shards: &[ShardServers]) -> Option<ShardId> {
    let names = || shards.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(value) = entry.get_ref().get("shard") else {
        section.add(entry.span().start, "no `shard`", format!("shard = one of: {}", names()));
        return None;
    };
    shard_named(section, value, shards)
}

pub fn shard_named(section: &Section<'_>, value: Value<'_>, shards: &[ShardServers]) -> Option<ShardId> {
    let name = value.get_ref().as_str();
    let index = shards.iter().position(|it| Some(it.name.as_str()) == name);
    if index.is_none() {
        let names: Vec<&str> = shards.iter().map(|it| it.name.as_str()).collect();
        section.add(
            value.span().start,
            format!("{} is no shard of this database", shown(value)),
            format!("one of: {}", names.join(", ")),
        );
    }
    index.map(|it| ShardId(it as u16))
}

pub(super) fn check_entry_keys(section: &Section<'_>, entry: Value<'_>, known: &[&str]) {
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
