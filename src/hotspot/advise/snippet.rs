//! What to put into the configuration, with what to do about the rows before and after. For administrators: it has keys
//! in it.

use std::fmt::Write;

use super::balance::Move;
use crate::base::ShardId;
use crate::shard::{Form, HashFunction, KeyColumn, KeyType, KeyValue, ListEntry, Map, Range};

/// A table whose rows a map places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedTable {
    pub schema: Option<String>,
    pub name: String,
    /// The columns of its key, in the order of the map's.
    pub columns: Vec<String>,
}

/// A map as it should be.
#[derive(Clone, Debug)]
pub struct NewMap {
    pub own: NewForm,
    pub pinned: Vec<(KeyValue, ShardId)>,
}

#[derive(Clone, Debug)]
pub enum NewForm {
    Hash { function: HashFunction, slots: Vec<ShardId> },
    Range(Vec<Range>),
    List { entries: Vec<ListEntry>, default: Option<ShardId> },
}

/// Rows that have to move.
#[derive(Clone, Debug)]
pub struct Rows {
    pub what: RowsOf,
    pub from: ShardId,
    pub to: ShardId,
}

#[derive(Clone, Debug)]
pub enum RowsOf {
    Key(KeyValue),
    Range {
        from: Option<KeyValue>,
        to: Option<KeyValue>,
    },
    Values(Vec<KeyValue>),
    /// Of a map by xxh3, whose slots SQL does not know, or by PostgreSQL's hash, with the modulus.
    Slots {
        slots: Vec<usize>,
        modulus: Option<usize>,
    },
    /// Of a list's default.
    Others,
}

/// What a snippet is written from.
pub struct Names<'a> {
    pub database: &'a str,
    pub map: &'a Map,
    pub shards: &'a [String],
    pub tables: &'a [KeyedTable],
}

impl NewMap {
    pub fn of(map: &Map) -> NewMap {
        let own = match map.form() {
            Form::Hash { function, slots } => NewForm::Hash { function, slots: slots.to_vec() },
            Form::Range(ranges) => NewForm::Range(ranges.to_vec()),
            Form::List { entries, default } => NewForm::List { entries: entries.to_vec(), default },
        };
        NewMap { own, pinned: map.pinned().map(|(key, shard)| (key.clone(), shard)).collect() }
    }

    /// Moves parts, pinned keys among them, and says which rows go with them.
    pub fn apply(&mut self, moves: &[Move], own_parts: usize) -> Vec<Rows> {
        let mut rows: Vec<Rows> = Vec::new();
        for it in moves {
            let what = match it.part.checked_sub(own_parts) {
                Some(pinned) => self.pinned.get_mut(pinned).map(|pinned| {
                    pinned.1 = it.to;
                    RowsOf::Key(pinned.0.clone())
                }),
                None => self.own.move_part(it.part, it.to),
            };
            let same = |rows: &&mut Rows| (rows.from, rows.to) == (it.from, it.to);
            match (what, rows.iter_mut().find(same).map(|it| &mut it.what)) {
                (Some(RowsOf::Slots { slots: more, .. }), Some(RowsOf::Slots { slots, .. })) => {
                    slots.extend(more);
                }
                (Some(what), _) => rows.push(Rows { what, from: it.from, to: it.to }),
                (None, _) => {}
            }
        }
        rows
    }

    pub fn pin(&mut self, key: &KeyValue, shard: ShardId) {
        match self.pinned.iter_mut().find(|it| it.0 == *key) {
            Some(pinned) => pinned.1 = shard,
            None => self.pinned.push((key.clone(), shard)),
        }
    }
}

impl NewForm {
    fn move_part(&mut self, part: usize, to: ShardId) -> Option<RowsOf> {
        match self {
            NewForm::Hash { function, slots } => {
                let modulus = (*function == HashFunction::Postgres).then_some(slots.len());
                *slots.get_mut(part)? = to;
                Some(RowsOf::Slots { slots: vec![part], modulus })
            }
            NewForm::Range(ranges) => {
                let range = ranges.get_mut(part)?;
                range.shard = to;
                Some(RowsOf::Range { from: range.from.clone(), to: range.to.clone() })
            }
            NewForm::List { entries, default } => match entries.get_mut(part) {
                Some(entry) => {
                    entry.shard = to;
                    Some(RowsOf::Values(entry.values.clone()))
                }
                None => {
                    *default = Some(to);
                    Some(RowsOf::Others)
                }
            },
        }
    }
}

impl Names<'_> {
    /// The map's section, and the rows that move before and after it. `None` where a key has no form that the
    /// configuration reads.
    pub fn snippet(&self, new: &NewMap, rows: &[Rows]) -> Option<String> {
        let section = self.section(new)?;
        let mut text = String::new();
        if !rows.is_empty() {
            text.push_str("# 1. Copy these rows while nobody writes them.\n");
            rows.iter().for_each(|it| self.copy(&mut text, it, new));
        }
        let path = self.path();
        let step = if rows.is_empty() { "" } else { "2. " };
        _ = writeln!(
            text,
            "# {step}Put this in the place of the section [{path}], its [[...pinned]] included, then RELOAD."
        );
        text.push_str(&section);
        if !rows.is_empty() {
            text.push_str("# 3. Delete them where they were; they are no longer read there.\n");
            rows.iter().for_each(|it| self.delete(&mut text, it, new));
        }
        Some(text)
    }

    fn path(&self) -> String {
        format!("databases.{}.maps.{}", toml_key(self.database), toml_key(&self.map.name))
    }

    fn shard(&self, shard: ShardId) -> Option<&str> {
        self.shards.get(usize::from(shard.0)).map(String::as_str)
    }

    fn section(&self, new: &NewMap) -> Option<String> {
        let columns = self.map.columns();
        let types: Vec<String> = columns.iter().map(|it| toml_text(&it.to_string())).collect();
        let types = if types.len() == 1 { types.concat() } else { format!("[{}]", types.join(", ")) };
        let key = |it: &KeyValue| toml_value(it, columns);
        let shard = |it: ShardId| self.shard(it).map(toml_text);
        let mut lines = vec![format!("[{}]", self.path())];
        match &new.own {
            NewForm::Hash { function, slots } => {
                lines.push("kind = \"hash\"".to_owned());
                lines.push(format!("type = {types}"));
                if *function == HashFunction::Postgres {
                    lines.push("hash = \"postgres\"".to_owned());
                }
                lines.push(format!("slots = {}", slots.len()));
                let entry = |(first, last, it): (usize, usize, ShardId)| {
                    Some(format!("{{ slots = \"{first}-{last}\", shard = {} }}", shard(it)?))
                };
                lines.push(list("assign", runs(slots).into_iter().map(entry))?);
            }
            NewForm::Range(ranges) => {
                lines.push("kind = \"range\"".to_owned());
                lines.push(format!("type = {types}"));
                if columns.iter().any(|it| it.key_type.is_collated()) {
                    lines.push("collation = \"C\"".to_owned());
                }
                let entry = |it: &Range| {
                    let bound = |name: &str, bound: &Option<KeyValue>| match bound {
                        Some(it) => Some(format!("{name} = {}, ", key(it)?)),
                        None => Some(String::new()),
                    };
                    let (from, to) = (bound("from", &it.from)?, bound("to", &it.to)?);
                    Some(format!("{{ {from}{to}shard = {} }}", shard(it.shard)?))
                };
                lines.push(list("ranges", ranges.iter().map(entry))?);
            }
            NewForm::List { entries, default } => {
                lines.push("kind = \"list\"".to_owned());
                lines.push(format!("type = {types}"));
                let entry = |it: &ListEntry| {
                    let values: Option<Vec<String>> = it.values.iter().map(key).collect();
                    Some(format!("{{ values = [{}], shard = {} }}", values?.join(", "), shard(it.shard)?))
                };
                lines.push(list("lists", entries.iter().map(entry))?);
                if let Some(default) = default {
                    lines.push(format!("default = {}", shard(*default)?));
                }
            }
        }
        if !new.pinned.is_empty() {
            let entry = |(it, at): &(KeyValue, ShardId)| {
                Some(format!("{{ key = {}, shard = {} }}", key(it)?, shard(*at)?))
            };
            lines.push(list("pinned", new.pinned.iter().map(entry))?);
        }
        Some(lines.join("\n") + "\n")
    }

    fn copy(&self, text: &mut String, rows: &Rows, new: &NewMap) {
        let (from, to) = (self.shard_shown(rows.from), self.shard_shown(rows.to));
        _ = writeln!(text, "#    From {from} to {to}: {}", self.described(&rows.what));
        for table in self.tables {
            let name = table.quoted();
            match self.condition(rows, table, new) {
                Some(condition) => {
                    _ = writeln!(
                        text,
                        "#      on {from}: COPY (SELECT * FROM {name} WHERE {condition}) TO STDOUT"
                    );
                }
                None => _ = writeln!(text, "#      on {from}: COPY these rows of {name} TO STDOUT"),
            }
            _ = writeln!(text, "#      on {to}: COPY {name} FROM STDIN");
        }
    }

    fn delete(&self, text: &mut String, rows: &Rows, new: &NewMap) {
        let from = self.shard_shown(rows.from);
        for table in self.tables {
            let name = table.quoted();
            match self.condition(rows, table, new) {
                Some(condition) => {
                    _ = writeln!(text, "#      on {from}: DELETE FROM {name} WHERE {condition}")
                }
                None => _ = writeln!(text, "#      on {from}: DELETE these rows of {name}"),
            }
        }
    }

    fn shard_shown(&self, shard: ShardId) -> String {
        self.shard(shard).map_or_else(|| shard.0.to_string(), one_line)
    }

    fn described(&self, what: &RowsOf) -> String {
        match what {
            RowsOf::Key(_) => "one key".to_owned(),
            RowsOf::Range { .. } => "one range".to_owned(),
            RowsOf::Values(values) => format!("{} keys", values.len()),
            RowsOf::Others => "keys that stand in no list, but pinned ones".to_owned(),
            RowsOf::Slots { slots, modulus: Some(modulus) } => {
                format!("what has remainder {} by modulus {modulus}, but pinned keys", numbers(slots))
            }
            RowsOf::Slots { slots, modulus: None } => {
                format!(
                    "slots {}, but pinned keys (docs/sharding.md: how a place is computed)",
                    numbers(slots)
                )
            }
        }
    }

    /// `None` where SQL has no words for it.
    fn condition(&self, rows: &Rows, table: &KeyedTable, new: &NewMap) -> Option<String> {
        let columns = table.key();
        let literal = |it: &KeyValue| sql_literal(it, self.map.columns());
        match &rows.what {
            RowsOf::Key(key) => Some(format!("{columns} = {}", literal(key)?)),
            RowsOf::Values(values) => {
                let values: Option<Vec<String>> = values.iter().map(literal).collect();
                Some(format!("{columns} IN ({})", values?.join(", ")))
            }
            RowsOf::Range { from, to } => {
                let mut conditions = Vec::new();
                if let Some(from) = from {
                    conditions.push(format!("{columns} >= {}", literal(from)?));
                }
                if let Some(to) = to {
                    conditions.push(format!("{columns} < {}", literal(to)?));
                }
                for (key, _) in new.pinned.iter().filter(|it| it.1 == rows.from) {
                    conditions.push(format!("{columns} <> {}", literal(key)?));
                }
                let all = conditions.is_empty().then(|| "true".to_owned());
                Some(all.unwrap_or_else(|| conditions.join(" AND ")))
            }
            RowsOf::Slots { .. } | RowsOf::Others => None,
        }
    }
}

impl KeyedTable {
    fn quoted(&self) -> String {
        let schema = self.schema.as_deref().map(|it| identifier(it) + ".").unwrap_or_default();
        schema + &identifier(&self.name)
    }

    fn key(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|it| identifier(it)).collect();
        if columns.len() == 1 { columns.concat() } else { format!("({})", columns.join(", ")) }
    }
}

/// Runs of slots of one shard: first, last.
fn runs(slots: &[ShardId]) -> Vec<(usize, usize, ShardId)> {
    let mut runs: Vec<(usize, usize, ShardId)> = Vec::new();
    for (slot, shard) in slots.iter().enumerate() {
        match runs.last_mut().filter(|it| it.2 == *shard) {
            Some(run) => run.1 = slot,
            None => runs.push((slot, slot, *shard)),
        }
    }
    runs
}

/// `5, 17-19`.
fn numbers(of: &[usize]) -> String {
    let mut ordered = of.to_vec();
    ordered.sort_unstable();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for it in ordered {
        match runs.last_mut().filter(|run| run.1 + 1 == it) {
            Some(run) => run.1 = it,
            None => runs.push((it, it)),
        }
    }
    let run = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

/// `name = [a, b]`, or an entry a line where that is long.
fn list(name: &str, entries: impl Iterator<Item = Option<String>>) -> Option<String> {
    let entries: Vec<String> = entries.collect::<Option<_>>()?;
    let short = entries.join(", ");
    if short.len() <= 90 {
        return Some(format!("{name} = [{short}]"));
    }
    Some(format!("{name} = [\n    {},\n]", entries.join(",\n    ")))
}

fn toml_key(name: &str) -> String {
    let is_bare = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { toml_text(name) }
}

fn toml_text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for it in text.chars() {
        match it {
            '"' | '\\' => quoted.extend(['\\', it]),
            it if it.is_control() => _ = write!(quoted, "\\u{:04X}", it as u32),
            it => quoted.push(it),
        }
    }
    quoted + "\""
}

/// The text that a column's type reads as this value and nothing else.
fn text_of(value: &KeyValue, column: &KeyColumn) -> Option<String> {
    let mut text = value.to_string();
    let is_infinite = matches!(value, KeyValue::Micros(i64::MIN | i64::MAX));
    if column.key_type == KeyType::Timestamptz && !is_infinite {
        text.push_str("+00");
    }
    column.key_type.parse_text(&text, false).is_ok_and(|it| it == *value).then_some(text)
}

/// As the configuration has it.
fn toml_value(value: &KeyValue, columns: &[KeyColumn]) -> Option<String> {
    match (value, columns) {
        (KeyValue::Row(values), columns) => {
            let each =
                values.iter().zip(columns).map(|(value, it)| toml_value(value, std::slice::from_ref(it)));
            let each: Vec<String> = each.collect::<Option<_>>()?;
            Some(format!("[{}]", each.join(", ")))
        }
        (KeyValue::Int(it), _) => Some(it.to_string()),
        (KeyValue::Bool(it), _) => Some(it.to_string()),
        (value, [column]) => text_of(value, column).map(|it| toml_text(&it)),
        _ => None,
    }
}

/// As SQL has it, on one line.
fn sql_literal(value: &KeyValue, columns: &[KeyColumn]) -> Option<String> {
    match (value, columns) {
        (KeyValue::Row(values), columns) => {
            let each =
                values.iter().zip(columns).map(|(value, it)| sql_literal(value, std::slice::from_ref(it)));
            let each: Vec<String> = each.collect::<Option<_>>()?;
            Some(format!("({})", each.join(", ")))
        }
        (KeyValue::Int(_) | KeyValue::Numeric(_) | KeyValue::Bool(_), _) => Some(value.to_string()),
        (value, [column]) => text_of(value, column).map(|it| sql_text(&it)),
        _ => None,
    }
}

/// Backslashes and control characters need the form with escapes, whatever standard_conforming_strings says; line
/// breaks would end the comment that this stands in.
fn sql_text(text: &str) -> String {
    if !text.chars().any(|it| it == '\\' || it.is_control()) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::from("E'");
    for it in text.chars() {
        match it {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            it if it.is_control() => _ = write!(quoted, "\\u{:04X}", it as u32),
            it => quoted.push(it),
        }
    }
    quoted + "'"
}

/// An identifier with a line break has no form that stays in a comment: it is shown without.
fn identifier(name: &str) -> String {
    format!("\"{}\"", one_line(name).replace('"', "\"\""))
}

fn one_line(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '?' } else { it }).collect()
}
