//! What is not the same on two shards. Oids differ from server to server, so everything is compared by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio_postgres::types::Type as BuiltIn;

use super::{
    Column, ColumnDefault, FIRST_NORMAL_OID, Function, Oid, QualifiedName, Relation, Schema, Unique,
};

/// The first thing that is not the same, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference(String);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Default)]
pub(super) struct Found {
    pub relations: BTreeMap<QualifiedName, Difference>,
    pub functions: Vec<QualifiedName>,
}

struct Side<'a> {
    schema: &'a Schema,
    shard: &'a str,
}

pub(super) fn of(first: &Schema, first_name: &str, other: &Schema, other_name: &str) -> Found {
    let (one, two) = (Side { schema: first, shard: first_name }, Side { schema: other, shard: other_name });
    let mut found = Found::default();
    let mut rest = by_name(other.relations(), |it| &it.name);
    for relation in first.relations() {
        let difference = match rest.remove(&relation.name) {
            Some(same) => relations(&one, relation, &two, same),
            None => Some(missing(&two)),
        };
        found.relations.extend(difference.map(|it| (relation.name.clone(), Difference(it))));
    }
    found.relations.extend(rest.into_keys().map(|it| (it.clone(), Difference(missing(&one)))));
    functions(first, other, &mut found.functions);
    found
}

fn by_name<'a, T>(
    all: &'a [T],
    name: impl Fn(&'a T) -> &'a QualifiedName,
) -> BTreeMap<&'a QualifiedName, &'a T> {
    all.iter().map(|it| (name(it), it)).collect()
}

fn missing(side: &Side<'_>) -> String {
    format!("it does not exist on shard \"{}\"", side.shard)
}

fn relations(one: &Side<'_>, a: &Relation, two: &Side<'_>, b: &Relation) -> Option<String> {
    let told = |what: &str, a: String, b: String| {
        (a != b).then(|| format!("{what} {a} on shard \"{}\", {b} on shard \"{}\"", one.shard, two.shard))
    };
    if let Some(it) = told("it is a", format!("{:?}", a.kind), format!("{:?}", b.kind)) {
        return Some(it.to_ascii_lowercase());
    }
    if let Some(it) = told("its columns are", names(a), names(b)) {
        return Some(it);
    }
    for (a, b) in a.columns.iter().zip(&b.columns) {
        let column = format!("column \"{}\" is", a.name);
        let (a, b) = (describe(one.schema, a), describe(two.schema, b));
        if let Some(it) = told(&column, a, b) {
            return Some(it);
        }
    }
    told("its keys are", keys(one.schema, a), keys(two.schema, b))
        .or_else(|| told("it reads", reads(one.schema, a), reads(two.schema, b)))
}

fn names(relation: &Relation) -> String {
    relation.columns.iter().map(|it| &*it.name).collect::<Vec<_>>().join(", ")
}

fn describe(schema: &Schema, column: &Column) -> String {
    let mut text = type_name(schema, column.type_oid);
    if column.typmod >= 0 {
        text.push_str(&format!(" with modifier {}", column.typmod));
    }
    if let Some(it) = schema.collation(column.collation).filter(|it| it.provider != 'd') {
        text.push_str(&format!(" collate {}", it.name));
    }
    if column.not_null {
        text.push_str(" not null");
    }
    text.push_str(match column.default {
        ColumnDefault::None => "",
        ColumnDefault::Expression => " with a default",
        ColumnDefault::Identity => " as identity",
        ColumnDefault::Generated => " generated",
    });
    text
}

/// PostgreSQL's own oids are the same everywhere. Labels and bases are part of what a type is.
fn type_name(schema: &Schema, oid: Oid) -> String {
    if oid < FIRST_NORMAL_OID {
        return BuiltIn::from_oid(oid).map_or_else(|| format!("type {oid}"), |it| it.name().to_owned());
    }
    let Some(it) = schema.type_of(oid) else { return "a type of its own".to_owned() };
    let mut text = format!("{}.{}", it.schema, it.name);
    if !it.labels.is_empty() {
        text.push_str(&format!(" ({})", it.labels.join(", ")));
    }
    if it.base != 0 {
        text.push_str(&format!(" over {}", type_name(schema, it.base)));
    }
    text
}

fn keys(schema: &Schema, relation: &Relation) -> String {
    let named = |relation: &Relation, numbers: &[i16]| {
        let name = |number: &i16| {
            let found = relation.columns.iter().find(|it| it.number == *number);
            found.map_or_else(String::new, |it| it.name.to_string())
        };
        numbers.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let unique = |it: &Unique| {
        let kind = if it.primary { "primary key" } else { "unique" };
        format!("{kind} ({})", named(relation, &it.columns))
    };
    let mut all: Vec<String> = relation.unique.iter().map(unique).collect();
    all.extend(relation.foreign_keys.iter().map(|it| {
        let to = schema.relation(it.references);
        let (name, columns) = to.map_or((String::new(), String::new()), |to| {
            (to.name.name.to_string(), named(to, &it.referenced_columns))
        });
        format!("foreign key ({}) to {name} ({columns})", named(relation, &it.columns))
    }));
    all.sort_unstable();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// Of a view.
fn reads(schema: &Schema, relation: &Relation) -> String {
    let name = |oid: &Oid| match schema.relation(*oid) {
        Some(it) => format!("{}.{}", it.name.schema, it.name.name),
        None => "a system catalog".to_owned(),
    };
    let mut all: Vec<String> = relation.view_of.iter().map(name).collect();
    all.sort_unstable();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

fn functions(first: &Schema, other: &Schema, found: &mut Vec<QualifiedName>) {
    let key = |it: &Function| (it.name.clone(), it.arguments.clone());
    let mut rest: BTreeMap<(QualifiedName, Arc<str>), &Function> =
        other.functions().iter().map(|it| (key(it), it)).collect();
    for function in first.functions() {
        let same = rest.remove(&key(function)).is_some_and(|it| {
            it.volatility == function.volatility
                && it.body_hash == function.body_hash
                && it.language == function.language
                && it.kind == function.kind
        });
        if !same {
            found.push(function.name.clone());
        }
    }
    found.extend(rest.into_keys().map(|(name, _)| name));
}
