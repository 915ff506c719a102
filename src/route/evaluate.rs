//! The algebra over key predicates, with the values of one statement: the shards that a class of tables
//! needs (DESIGN D3).

use smallvec::SmallVec;

use crate::base::{Reason, Refusal, ShardId, SqlState};
use crate::proto::CopyField;
use crate::shard::{Bound, KeyColumn, KeyValue, Map, Place, Purpose, Usage};

use super::copy::key_of;
use super::decide::{KEYS_COUNTED_MAX, KeyRef, KeySet, Path, SessionView, ShardSet};
use super::footprint::{KEYS_MAX, table_id};
use super::keys::{Key, KeySource};
use super::plan::{Class, End, Interval, KeyPlace, Keys, Plan, Target};
use super::router::Router;

/// Keys of several columns that one predicate may name; past it, it is taken to name any.
const PRODUCT_MAX: usize = 4_096;

/// The shards that a class of tables needs.
pub(super) enum Need {
    All,
    Some(ShardSet),
}

/// The keys that an evaluation met.
#[derive(Default)]
pub(super) struct Met {
    keys: KeySet,
    /// With their values, if these are asked for.
    caught: Option<Vec<NamedKey>>,
    /// What was met in words, for who wants to read it.
    told: Option<Vec<String>>,
    /// Hashes of all keys, if they are asked for.
    listed: Option<SmallVec<[u64; 4]>>,
}

impl Met {
    pub fn keys(self) -> KeySet {
        self.keys
    }

    pub fn catching() -> Met {
        Met { caught: Some(Vec::new()), ..Met::default() }
    }

    pub fn caught(self) -> Vec<NamedKey> {
        self.caught.unwrap_or_default()
    }

    pub fn telling() -> Met {
        Met { told: Some(Vec::new()), ..Met::default() }
    }

    pub fn listing() -> Met {
        Met { listed: Some(SmallVec::new()), ..Met::default() }
    }

    /// Each key that was met, by its hash; `None` if they are too many.
    pub fn listed(self) -> Option<SmallVec<[u64; 4]>> {
        self.listed.filter(|it| it.len() <= KEYS_MAX)
    }

    pub fn told(&self) -> &[String] {
        self.told.as_deref().unwrap_or_default()
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(what());
        }
    }

    fn add(&mut self, key: KeyRef) {
        if let Some(listed) = &mut self.listed
            && listed.len() <= KEYS_MAX
        {
            listed.push(key.place.key_hash);
        }
        if self.keys.len() < KEYS_COUNTED_MAX && !self.keys.contains(&key) {
            self.keys.push(key);
        }
    }

    fn catch(&mut self, key: KeyRef, value: &KeyValue, table: &str) {
        if let Some(caught) = &mut self.caught
            && caught.len() < KEYS_COUNTED_MAX
            && !is_long(value)
        {
            caught.push(NamedKey { key, value: value.clone(), table: table.to_owned() });
        }
    }
}

/// A key that a statement names, with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    pub key: KeyRef,
    pub value: KeyValue,
    /// Without its schema.
    pub table: String,
}

/// No index of PostgreSQL's holds a longer one (`BTMaxItemSize` in nbtree.h), and values that are caught are kept.
const CAUGHT_BYTES_MAX: usize = 2_704;

fn is_long(value: &KeyValue) -> bool {
    match value {
        KeyValue::Text(it) => it.len() > CAUGHT_BYTES_MAX,
        KeyValue::Bytes(it) => it.len() > CAUGHT_BYTES_MAX,
        KeyValue::Row(columns) => columns.iter().any(is_long),
        _ => false,
    }
}

impl Router {
    pub(super) fn need(
        &self,
        class: &Class,
        keys: &KeySource<'_>,
        session: &SessionView,
        met: &mut Met,
    ) -> Result<Need, Refusal> {
        match (&class.keys, class.map) {
            (Keys::On(shard, _), _) => Ok(only(*shard)),
            (Keys::Path, _) => self.path_shard(class, session),
            (keys_of_class, Some(index)) => match self.any_map(index) {
                Some(map) => {
                    let evaluation = Evaluation { router: self, class, index, map, keys, utc: session.utc };
                    evaluation.need(keys_of_class, met)
                }
                None => Ok(Need::All),
            },
            (_, None) => Ok(Need::All),
        }
    }

    /// The shard of each inserted row, in their order.
    pub fn row_shards(
        &self,
        plan: &Plan,
        keys: &KeySource<'_>,
        session: &SessionView,
    ) -> Result<ShardSet, Refusal> {
        let mut shards = ShardSet::new();
        let Target::Keyed(keyed) = &plan.target else { return Ok(shards) };
        let inserted = keyed.classes.iter().find_map(|class| match (&class.keys, class.map) {
            (Keys::Rows(places), Some(index)) => Some((class, places, index)),
            _ => None,
        });
        if let Some((class, places, index)) = inserted
            && let Some(map) = self.any_map(index)
        {
            let evaluation = Evaluation { router: self, class, index, map, keys, utc: session.utc };
            evaluation.each_row(places, &mut shards, &mut Met::default())?;
        }
        Ok(shards)
    }

    /// Where a name without schema leads. One that the config lists needs nothing if its session's path
    /// begins elsewhere.
    fn path_shard(&self, class: &Class, session: &SessionView) -> Result<Need, Refusal> {
        match session.path {
            Path::Shard(shard) => Ok(only(shard)),
            Path::Elsewhere if self.is_listed(&class.table) => Ok(Need::Some(ShardSet::new())),
            Path::Elsewhere => match self.default_shard() {
                Some(shard) => Ok(only(shard)),
                None => Err(Refusal::unsupported(
                    Reason::UnlistedTable,
                    format!(
                        "table \"{}\" is in no schema that the configuration puts on a shard",
                        class.table
                    ),
                    "name its schema, or begin search_path with one that is listed under schemas",
                )),
            },
            Path::Unknown => Err(Refusal::unsupported(
                Reason::UnlistedTable,
                format!("the shard of table \"{}\" depends on search_path, which is not known", class.table),
                "name the schema of each table, or SET search_path at the start of the session",
            )),
        }
    }
}

fn only(shard: ShardId) -> Need {
    Need::Some(ShardSet::from_slice(&[shard]))
}

pub(super) struct Evaluation<'a> {
    pub router: &'a Router,
    pub class: &'a Class,
    pub index: usize,
    pub map: &'a Map,
    pub keys: &'a KeySource<'a>,
    pub utc: bool,
}

impl Evaluation<'_> {
    pub fn need(&self, keys: &Keys, met: &mut Met) -> Result<Need, Refusal> {
        match keys {
            Keys::All | Keys::Path => Ok(Need::All),
            Keys::Never => Ok(Need::Some(ShardSet::new())),
            Keys::On(shard, _) => Ok(only(*shard)),
            Keys::Equal(places) => self.equal(places, met),
            Keys::Product(columns) => self.product(columns, met),
            Keys::Between(interval) => Ok(self.between(interval, met)),
            Keys::Rows(places) => self.rows(places, met),
            Keys::And(parts) => {
                let mut left = Need::All;
                for part in parts {
                    left = match (left, self.need(part, met)?) {
                        (Need::All, it) | (it, Need::All) => it,
                        (Need::Some(mut a), Need::Some(b)) => {
                            a.retain(|it| b.contains(it));
                            Need::Some(a)
                        }
                    };
                }
                Ok(left)
            }
            Keys::Or(parts) => {
                let mut all = ShardSet::new();
                for part in parts {
                    match self.need(part, met)? {
                        Need::All => return Ok(Need::All),
                        Need::Some(shards) => all.extend(shards),
                    }
                }
                Ok(Need::Some(sorted(all)))
            }
        }
    }

    /// Of the class, where its keys are those of its table alone.
    fn table_of_keys(&self) -> u64 {
        if self.router.map(self.index).is_some() { 0 } else { table_id(&self.class.table) }
    }

    fn usage(&self, purpose: Purpose) -> Usage {
        Usage { purpose, utc: self.utc }
    }

    fn column(&self, at: usize) -> Result<&KeyColumn, Refusal> {
        self.map.columns().get(at).ok_or_else(|| {
            let message = "plan and map do not belong together";
            Refusal::new(Reason::Protocol, SqlState::INTERNAL_ERROR, message)
        })
    }

    /// Adds the shard of one key. One that has no place is an error where rows are written.
    fn add(
        &self,
        key: &KeyValue,
        purpose: Purpose,
        shards: &mut ShardSet,
        met: &mut Met,
    ) -> Result<(), Refusal> {
        let found = self.map.locate(key);
        met.tell(|| self.described(key, found));
        match found {
            Some(place) => {
                let named = KeyRef { map: self.index as u16, place, table: self.table_of_keys() };
                met.catch(named, key, &self.class.table);
                met.add(named);
                shards.push(place.shard);
                Ok(())
            }
            None if purpose == Purpose::Store || self.class.writes => Err(self.unmapped(key)),
            None => Ok(()),
        }
    }

    fn equal(&self, places: &[KeyPlace], met: &mut Met) -> Result<Need, Refusal> {
        let (column, usage) = (self.column(0)?, self.usage(Purpose::Compare));
        let (mut shards, mut any) = (ShardSet::new(), false);
        for place in places {
            self.keys.each(*place, column, usage, |key| match key {
                Key::Value(value) => self.add(&value, Purpose::Compare, &mut shards, met),
                Key::Null if self.class.writes => Err(self.null_key()),
                Key::Any => {
                    any = true;
                    Ok(())
                }
                Key::Null | Key::Nothing => {
                    met.tell(|| match key {
                        Key::Null => "= NULL".to_owned(),
                        _ => format!("= a constant that is no {column}"),
                    });
                    Ok(())
                }
            })?;
        }
        Ok(if any { Need::All } else { Need::Some(sorted(shards)) })
    }

    /// Every combination of the columns' values.
    fn product(&self, columns: &[Box<[KeyPlace]>], met: &mut Met) -> Result<Need, Refusal> {
        let mut rows: Vec<Vec<KeyValue>> = vec![Vec::new()];
        for (at, places) in columns.iter().enumerate() {
            let (mut values, mut any) = (SmallVec::<[KeyValue; 2]>::new(), false);
            for place in places {
                self.keys.each(*place, self.column(at)?, self.usage(Purpose::Compare), |key| {
                    match key {
                        Key::Value(value) => values.push(value),
                        Key::Null if self.class.writes => return Err(self.null_key()),
                        Key::Any => any = true,
                        Key::Null | Key::Nothing => {}
                    }
                    Ok(())
                })?;
            }
            if any || rows.len() * values.len() > PRODUCT_MAX {
                return Ok(Need::All);
            }
            let with =
                |row: &Vec<KeyValue>, value: &KeyValue| [&row[..], std::slice::from_ref(value)].concat();
            rows = rows.iter().flat_map(|row| values.iter().map(move |it| with(row, it))).collect();
        }
        let mut shards = ShardSet::new();
        for row in rows {
            self.add(&KeyValue::Row(row.into()), Purpose::Compare, &mut shards, met)?;
        }
        Ok(Need::Some(sorted(shards)))
    }

    fn rows(&self, places: &[KeyPlace], met: &mut Met) -> Result<Need, Refusal> {
        let mut shards = ShardSet::new();
        self.each_row(places, &mut shards, met)?;
        Ok(Need::Some(sorted(shards)))
    }

    /// Adds the shard of each row, in their order.
    fn each_row(&self, places: &[KeyPlace], shards: &mut ShardSet, met: &mut Met) -> Result<(), Refusal> {
        let columns = self.map.columns();
        for row in places.chunks(columns.len().max(1)) {
            let value = |(place, column)| match self.keys.key(place, column, self.usage(Purpose::Store))? {
                Key::Value(value) => Ok(value),
                Key::Nothing => Err(self.no_key()),
                Key::Null | Key::Any => Err(self.null_key()),
            };
            let mut values = row.iter().copied().zip(columns).map(value);
            let key = match (columns.len(), values.next()) {
                (1, Some(value)) => value?,
                (_, first) => KeyValue::Row(first.into_iter().chain(values).collect::<Result<_, _>>()?),
            };
            self.add(&key, Purpose::Store, shards, met)?;
        }
        Ok(())
    }

    /// The shard of a record of COPY by the fields of its key.
    pub fn copied(&self, fields: &[CopyField<'_>], binary: bool) -> Result<ShardId, Refusal> {
        let usage = self.usage(Purpose::Store);
        let mut values = Vec::with_capacity(fields.len());
        for (field, column) in fields.iter().zip(self.map.columns()) {
            let value = match field {
                CopyField::Null => return Err(self.null_key()),
                CopyField::Missing | CopyField::Default => return Err(self.no_key()),
                CopyField::Value(bytes) if binary => column.of_binary(0, bytes, usage)?,
                CopyField::Value(bytes) => {
                    let text = std::str::from_utf8(bytes).map_err(|_| self.no_key())?;
                    column.of_text(0, text, usage)?
                }
            };
            values.push(value.ok_or_else(|| self.no_key())?);
        }
        let key = key_of(values).ok_or_else(|| self.no_key())?;
        self.map.locate(&key).map(|it| it.shard).ok_or_else(|| self.unmapped(&key))
    }

    /// An end that cannot be told is no end: the interval grows by that, and loses no row.
    fn between(&self, interval: &Interval, met: &mut Met) -> Need {
        let Some(column) = self.map.columns().first() else { return Need::All };
        let key = |end: Option<End>| {
            let Some(end) = end else { return Some(None) };
            match self.keys.key(end.place, column, self.usage(Purpose::Compare)) {
                Ok(Key::Value(value)) if self.map.columns().len() == 1 => Some(Some((value, end.inclusive))),
                Ok(Key::Value(value)) => Some(Some((KeyValue::Row(Box::new([value])), end.inclusive))),
                // Nothing is above or below NULL.
                Ok(Key::Null) => None,
                _ => Some(None),
            }
        };
        let (Some(from), Some(to)) = (key(interval.from), key(interval.to)) else {
            return Need::Some(ShardSet::new());
        };
        met.tell(|| {
            let sign = |low, inclusive| match (low, inclusive) {
                (true, true) => ">=",
                (true, false) => ">",
                (false, true) => "<=",
                (false, false) => "<",
            };
            let end = |it: &Option<(KeyValue, bool)>, low| {
                it.as_ref().map(|(key, inclusive)| format!("{} {key}", sign(low, *inclusive)))
            };
            let ends: Vec<String> = [end(&from, true), end(&to, false)].into_iter().flatten().collect();
            format!("{} (map {})", ends.join(" and "), self.map.name)
        });
        fn bound(it: &Option<(KeyValue, bool)>) -> Option<Bound<'_>> {
            it.as_ref().map(|(key, inclusive)| Bound { key, inclusive: *inclusive })
        }
        self.map.shards_between(bound(&from), bound(&to)).map_or(Need::All, |it| Need::Some(sorted(it)))
    }

    fn described(&self, key: &KeyValue, found: Option<Place>) -> String {
        let map = &self.map.name;
        match found {
            Some(at) => {
                let (part, shard) = (self.map.describe_part(at.part), self.router.shard_name(at.shard));
                format!("= {key} (map {map}, {part}, shard {shard})")
            }
            None => format!("= {key} (map {map}, in no {})", self.map.part_name()),
        }
    }

    fn null_key(&self) -> Refusal {
        let Class { table, column, .. } = self.class;
        let message = format!("null value in shard key \"{column}\" of table \"{table}\"");
        Refusal::new(Reason::UnmappedKey, SqlState::NOT_NULL_VIOLATION, message)
            .hint("a row needs a shard key to have a place")
    }

    /// There is no such assignment, and no server that could be asked for its error.
    fn no_key(&self) -> Refusal {
        let Class { table, column, .. } = self.class;
        let message =
            format!("the constant for shard key \"{column}\" of table \"{table}\" is of another type");
        let names: Vec<String> = self.map.columns().iter().map(ToString::to_string).collect();
        Refusal::unsupported(Reason::BadKey, message, format!("write it as {}", names.join(", ")))
    }

    fn unmapped(&self, value: &KeyValue) -> Refusal {
        let Class { table, column, .. } = self.class;
        let message = format!("no shard for \"{column}\" of table \"{table}\" of this value");
        let part = self.map.part_name();
        Refusal::new(Reason::UnmappedKey, SqlState::CHECK_VIOLATION, message)
            .detail(format!("map \"{}\" has no {part} that holds {value}", self.map.name))
            .hint(match part {
                "range" => "add a range to the map".to_owned(),
                _ => format!("add a {part} to the map, or give it a default shard"),
            })
    }
}

fn sorted(mut shards: ShardSet) -> ShardSet {
    if shards.len() > 1 {
        shards.sort_unstable();
        shards.dedup();
    }
    shards
}
