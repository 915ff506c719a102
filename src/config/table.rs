//! [databases.NAME.tables.NAME], and where whole schemas and all other tables live.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::{Section, Value};
use super::map::shard_named;
use super::protection::{self, TableProtection};
use super::settings;
use super::sqlname;
use super::{ShardServers, TableName, TableRule};
use crate::base::ShardId;
use crate::shard::Map;

/// A database's section with what its tables may name.
struct Reading<'a> {
    database: &'a Section<'a>,
    maps: &'a [(String, Arc<Map>)],
    shards: &'a [ShardServers],
}

pub fn tables(
    section: &Section<'_>,
    maps: &[(String, Arc<Map>)],
    shards: &[ShardServers],
) -> (BTreeMap<TableName, TableRule>, BTreeMap<TableName, TableProtection>) {
    let path = format!("{}.tables", section.path);
    let all = section.section(settings::TABLES_SECTION.key, &path);
    let reading = Reading { database: section, maps, shards };
    let (mut tables, mut protected, mut offsets) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (text, _) in all.entries() {
        let path = format!("{}.{text}", all.path);
        let it = all.section(text, &path);
        it.check_keys(settings::TABLE);
        let protection = protection::of_table(&it);
        let is_protected = protection != TableProtection::NONE;
        let rule = if protection::says(&it) && !is_placed(&it) { None } else { reading.rule(&it, text) };
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
        if is_protected {
            protected.insert(name.clone(), protection);
        }
        tables.extend(rule.map(|rule| (name, rule)));
    }
    (tables, protected)
}

/// A table of a database of one shard need not be.
fn is_placed(section: &Section<'_>) -> bool {
    use settings as s;
    [&s::TABLE_MAP, &s::TABLE_KEY, &s::TABLE_REFERENCE, &s::TABLE_SHARD].iter().any(|it| section.has(it.key))
}

/// Schemas, each with the shard of all its tables.
pub fn schemas(section: &Section<'_>, shards: &[ShardServers]) -> BTreeMap<String, ShardId> {
    let path = format!("{}.schemas", section.path);
    let all = section.section(settings::SCHEMAS_SECTION.key, &path);
    let mut schemas = BTreeMap::new();
    for (text, _) in all.entries() {
        let path = format!("{}.{text}", all.path);
        let it = all.section(text, &path);
        it.check_keys(settings::SCHEMA);
        let name = sqlname::column(text);
        let own = name.as_deref().is_some_and(|it| it.starts_with("pg_") || it == "information_schema");
        let Some(name) = name.filter(|_| !own) else {
            let message = format!("\"{text}\" is no schema of tables");
            it.add(it.offset, message, "it as in SQL: [databases.shop.schemas.tenant_a]");
            continue;
        };
        if schemas.contains_key(&name) {
            let message = format!("schema `{text}` stands twice: SQL folds names to lower case");
            it.add(it.offset, message, "each schema once");
        }
        match it.get(settings::SCHEMA_SHARD.key) {
            Some(shard) => schemas.extend(shard_named(&it, shard, shards).map(|it| (name, it))),
            None => it.add(it.offset, format!("schema `{text}` has no `shard`"), "shard = \"s1\""),
        }
    }
    schemas
}

pub fn default_shard(section: &Section<'_>, shards: &[ShardServers]) -> Option<ShardId> {
    let value = section.get(settings::DEFAULT_SHARD.key)?;
    shard_named(section, value, shards)
}

impl Reading<'_> {
    fn rule(&self, section: &Section<'_>, name: &str) -> Option<TableRule> {
        let reference = section.flag(&settings::TABLE_REFERENCE);
        let shard = section.get(settings::TABLE_SHARD.key);
        let (map, key) = (section.text(&settings::TABLE_MAP), section.get(settings::TABLE_KEY.key));
        match (reference, shard, map, key) {
            (true, None, None, None) => Some(TableRule::Reference),
            (false, Some(shard), None, None) => {
                shard_named(section, shard, self.shards).map(TableRule::Shard)
            }
            (false, None, Some((map, offset)), Some(key)) => self.sharded(section, (map, offset), key),
            (false, None, _, _) => {
                section.add(
                    section.offset,
                    format!("table `{name}` has no map and key"),
                    "map = \"...\" and key = \"column\", or reference = true, or shard = \"...\"",
                );
                None
            }
            _ => {
                section.add(
                    section.offset,
                    format!("table `{name}` is a reference table or one of one shard, and has a map or key"),
                    "one of `reference = true`, `shard`, or `map` and `key`",
                );
                None
            }
        }
    }

    fn sharded(&self, section: &Section<'_>, map: (&str, usize), key: Value<'_>) -> Option<TableRule> {
        let (name, offset) = map;
        let index = self.maps.iter().position(|it| it.0 == name);
        // A map that is there but wrong has been told of already.
        let declared = self.database.get(settings::MAPS_SECTION.key);
        let declared = declared.is_some_and(|it| it.get_ref().get(name).is_some());
        if index.is_none() && !declared {
            let names = self.maps.iter().map(|it| it.0.as_str()).collect::<Vec<_>>().join(", ");
            section.add(offset, format!("there is no map `{name}`"), format!("one of: {names}"));
        }
        let names: Vec<Value<'_>> = match key.get_ref().as_array() {
            Some(list) => list.iter().collect(),
            None => vec![key],
        };
        let column = |it: &Value<'_>| {
            let Some(text) = it.get_ref().as_str() else {
                section.wrong_kind(&settings::TABLE_KEY, it, "\"column\", or [\"column\", ...]");
                return None;
            };
            let column = sqlname::column(text);
            if column.is_none() {
                let message = format!("\"{text}\" is no column name");
                section.add(it.span().start, message, "it as in SQL: key = \"user_id\"");
            }
            column
        };
        let columns: Vec<Option<String>> = names.iter().map(column).collect();
        let key_columns = columns.into_iter().collect::<Option<Vec<String>>>()?;
        let wanted = self.maps.get(index?)?.1.columns().len();
        if key_columns.len() != wanted {
            let message =
                format!("`key` has {} columns, the keys of map `{name}` have {wanted}", key_columns.len());
            section.add(key.span().start, message, "a column for each type of the map, in its order");
            return None;
        }
        Some(TableRule::Sharded { map: index?, key: key_columns })
    }
}
