//! Which shards the tables of a statement need: sharded tables whose keys are equated meet on one shard
//! and form a class; what WHERE and ON say of a class's key is its predicate (DESIGN D3).

use std::ops::Range;
use std::sync::Arc;

use crate::base::{Reason, Refusal, ShardId};
use crate::config::TableRule;
use crate::merge::Collation;
use crate::sql::{
    Clause, Column, Condition, Field, InsertSource, Level, LevelRole, Predicate, Relation, Splitting,
    Statement, Table, Write,
};

mod parts;
mod primary_key;
mod written;

use super::super::catalog::Catalog;
use super::super::plan::{Class, Fixed, KeyPlace, Keyed, Keys, Many, Target};
use super::super::reads::{Manner, ShardRead};
use super::super::router::Router;
use super::Splitter;
use super::predicates::{self, place};
use super::{first_write, unsupported, writes};
use parts::{Answer, Shown, Spread};
pub(super) use primary_key::by_primary_key;
pub(super) use written::copy_in;
use written::written;

/// What the config says of a relation.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    Sharded {
        map: usize,
        key: Vec<String>,
    },
    Fixed {
        shard: ShardId,
        why: Fixed,
    },
    /// Of whichever schema the session's search_path names first.
    Path,
    Reference,
    Catalog,
    /// No table: a subquery, a CTE, a function, VALUES.
    Derived,
    Unlisted(Table),
}

/// The standing of each relation of each level.
pub(super) fn standings(router: &Router, it: &Statement) -> Vec<Vec<Standing>> {
    let of = |relation: &Relation| match &relation.table {
        None => Standing::Derived,
        Some(table) => match router.rule(table) {
            Some(TableRule::Sharded { map, key }) => Standing::Sharded { map: *map, key: key.clone() },
            Some(TableRule::Reference) => Standing::Reference,
            Some(TableRule::Shard(shard)) => Standing::Fixed { shard: *shard, why: Fixed::Table },
            None => of_unlisted(router, table),
        },
    };
    it.levels.iter().map(|level| level.relations.iter().map(of).collect()).collect()
}

fn of_unlisted(router: &Router, table: &Table) -> Standing {
    if is_catalog(table) {
        return Standing::Catalog;
    }
    match &table.schema {
        None if router.reads_path() => return Standing::Path,
        None => {}
        Some(schema) => {
            if let Some(shard) = router.schema_shard(schema) {
                return Standing::Fixed { shard, why: Fixed::Schema };
            }
        }
    }
    match router.default_shard() {
        Some(shard) => Standing::Fixed { shard, why: Fixed::Default },
        None => Standing::Unlisted(table.clone()),
    }
}

pub(super) fn is_catalog(table: &Table) -> bool {
    match table.schema.as_deref() {
        Some(schema) => matches!(schema, "pg_catalog" | "information_schema" | "pg_toast"),
        None => table.name.starts_with("pg_"),
    }
}

pub(super) fn unlisted(table: &Table) -> Refusal {
    let name = match &table.schema {
        Some(schema) => format!("{schema}.{}", table.name),
        None => table.name.clone(),
    };
    Refusal::unsupported(
        Reason::UnlistedTable,
        format!("table \"{name}\" is not listed in the configuration of this sharded database"),
        format!(
            "list it under tables, with its map and key or as a reference table: [databases.*.tables.{name}]"
        ),
    )
}

/// The shards that the statement's queries need.
pub(super) fn target(
    router: &Router,
    it: &Statement,
    standings: &[Vec<Standing>],
    splitter: &Splitter<'_>,
    catalog: &Catalog,
) -> Result<Target, Refusal> {
    let unlisted_table = standings.iter().flatten().find_map(|it| match it {
        Standing::Unlisted(table) => Some(unlisted(table)),
        _ => None,
    });
    if let Some(refusal) = unlisted_table {
        return Err(refusal);
    }
    let standings = &with_derived(router, it, standings);
    let graph = Graph::new(router, it, standings);
    let sharded = graph.nodes.len();
    refuse_copies(it, standings)?;
    let path = path_class(router, it, standings);
    if let Some(target) = reference_write(it, standings, sharded)? {
        return match path {
            Some(class) => Err(Refusal::unsupported(
                Reason::MultiShardWrite,
                format!(
                    "table \"{}\" is written on every shard, where search_path may give it other schemas",
                    class.table
                ),
                "name the schema of each table",
            )),
            None => Ok(target),
        };
    }
    if sharded == 0 && path.is_none() {
        return Ok(Target::Anywhere);
    }
    let (many, fixed_literals) = if writes(it) {
        (written(&graph, splitter), Box::default())
    } else {
        many(&graph, splitter, catalog)
    };
    let classes = graph.classes()?.into_iter().chain(path).collect();
    Ok(Target::Keyed(Keyed { classes, many, fixed_literals, writes: writes(it) }))
}

/// How several shards answer a read, and on which literals that depends.
fn many(graph: &Graph<'_>, splitter: &Splitter<'_>, catalog: &Catalog) -> (Many, Box<[u32]>) {
    if graph.router.shard_count() == 1 {
        return (Many::default(), Box::default());
    }
    let Splitting { split, fixed_literals } = splitter.split();
    let read = |split, manner| Arc::new(ShardRead::new(split, manner, collation(graph.statement, catalog)));
    let refused = split.as_ref().err().map(|it| it.0.clone());
    let many = match graph.answer(split.as_ref().ok(), refused.as_deref()) {
        Err(what) => Many::Refused(what),
        Ok(Answer::Rows) => Many::Rows(split.ok().map(|it| read(it, Manner::Whole))),
        Ok(Answer::Merged(manner)) => match split {
            Ok(split)
                if manner == Manner::Grouped
                    && !are_outputs(graph.statement, &split.not_columns, catalog) =>
            {
                Many::Refused("GROUP BY of a result's name, which may be a column's too,".into())
            }
            Ok(split) => Many::Merged(read(split, manner)),
            Err(what) => Many::Refused(what.0),
        },
    };
    (many, fixed_literals.into())
}

/// Of texts in the statement without a COLLATE of their own.
fn collation(it: &Statement, catalog: &Catalog) -> Collation {
    let tables = it.levels.iter().flat_map(|it| &it.relations).filter_map(|it| it.table.as_ref());
    catalog.collation(tables, it.collates)
}

/// A name in GROUP BY is an output's where no relation has a column of it. What a subquery, a function or an
/// alias calls its columns, no catalog tells.
fn are_outputs(it: &Statement, names: &[String], catalog: &Catalog) -> bool {
    let mut relations = it.levels.iter().flat_map(|it| &it.relations);
    let tables = relations.clone().filter_map(|it| it.table.as_ref());
    names.is_empty()
        || relations.all(|it| it.table.is_some() && !it.renamed)
            && names.iter().all(|it| catalog.lacks_column(tables.clone(), it))
}

/// Subqueries and CTEs whose rows lie as those of a sharded table do: each on one shard, by a key that they show.
fn with_derived(router: &Router, it: &Statement, standings: &[Vec<Standing>]) -> Vec<Vec<Standing>> {
    let mut standings = standings.to_vec();
    // What stands inside has the higher number.
    for inner in (0..it.levels.len()).rev() {
        if !matches!(it.levels[inner].role, LevelRole::FromSubquery | LevelRole::Cte) {
            continue;
        }
        let graph = Graph::new(router, it, &standings);
        let Ok(Spread::Parts(Shown { map: Some(map), names, .. })) = graph.spread_of(inner) else { continue };
        for (level, relations) in it.levels.iter().zip(&mut standings) {
            for (relation, standing) in level.relations.iter().zip(relations) {
                if relation.level == Some(inner) && !names.is_empty() {
                    *standing = Standing::Sharded { map, key: names.clone() };
                }
            }
        }
    }
    standings
}

/// Where schemas are homes, a listed name without schema may be of the schema that search_path names first.
fn path_class(router: &Router, it: &Statement, standings: &[Vec<Standing>]) -> Option<Class> {
    if !router.reads_path() {
        return None;
    }
    let relations =
        it.levels.iter().zip(standings).flat_map(|(it, standings)| it.relations.iter().zip(standings));
    let mut listed = relations.filter_map(|(relation, standing)| match standing {
        Standing::Sharded { .. } | Standing::Reference | Standing::Fixed { .. } => relation.table.as_ref(),
        _ => None,
    });
    let table = listed.find(|it| it.schema.is_none())?;
    let (column, keys) = (String::new(), Keys::Path);
    Some(Class { map: None, table: table.name.clone(), column, keys, writes: false })
}

/// A lock on one copy of a reference table excludes nobody on another shard.
fn refuse_copies(it: &Statement, standings: &[Vec<Standing>]) -> Result<(), Refusal> {
    for (level, standings) in it.levels.iter().zip(standings) {
        let Some(locks) = &level.locks else { continue };
        let locked = |it: &Relation| locks.names.is_empty() || locks.names.contains(&it.name);
        let copies = level.relations.iter().zip(standings);
        let mut copies =
            copies.filter(|(it, standing)| matches!(standing, Standing::Reference) && locked(it));
        if let Some((relation, _)) = copies.next() {
            return Err(Refusal::unsupported(
                Reason::Unsupported,
                format!("reference table \"{}\" cannot be locked: every shard has a copy", relation.name),
                "name the sharded tables to lock: FOR UPDATE OF ...",
            ));
        }
    }
    Ok(())
}

/// A write of a reference table is for every shard, and may read nothing but reference tables.
fn reference_write(
    it: &Statement,
    standings: &[Vec<Standing>],
    sharded: usize,
) -> Result<Option<Target>, Refusal> {
    let targets = it.levels.iter().zip(standings).filter(|(level, _)| level.write.is_some());
    let mut targets = targets.filter_map(|(level, standings)| Some((level, standings.first()?)));
    if matches!(first_write(it), Some(Write::Merge)) {
        return Err(unsupported("MERGE"));
    }
    if targets.clone().any(|(_, standing)| matches!(standing, Standing::Catalog)) {
        return Err(unsupported("a write of a system catalog"));
    }
    let Some((level, _)) = targets.clone().find(|(_, standing)| matches!(standing, Standing::Reference))
    else {
        return Ok(None);
    };
    let name = level.relations.first().map_or("", |it| &it.name);
    let refuse = |message: String| {
        Err(Refusal::unsupported(
            Reason::MultiShardWrite,
            message,
            "write the reference table by itself, with constants",
        ))
    };
    if sharded > 0 {
        return refuse(format!("a write of reference table \"{name}\" cannot read or write sharded tables"));
    }
    if standings.iter().flatten().any(|it| matches!(it, Standing::Catalog)) {
        return refuse(format!("a write of reference table \"{name}\" cannot read system catalogs"));
    }
    if targets.any(|(level, _)| level.role != LevelRole::Root) {
        return refuse(format!(
            "a write of reference table \"{name}\" cannot stand inside another statement"
        ));
    }
    Ok(Some(Target::Everywhere))
}

/// What decides where the rows of a table are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home<'a> {
    Keyed { map: usize, key: &'a [String] },
    Fixed(ShardId, Fixed),
    Path,
}

/// A table whose rows live somewhere, where it stands in the statement.
struct Node<'a> {
    level: usize,
    relation: usize,
    home: Home<'a>,
    /// Of its key's first column in the graph's elements; one that has no key has one element.
    first: usize,
}

impl<'a> Node<'a> {
    fn key(&self) -> &'a [String] {
        match self.home {
            Home::Keyed { key, .. } => key,
            _ => &[],
        }
    }

    fn elements(&self) -> Range<usize> {
        self.first..self.first + self.key().len().max(1)
    }

    fn map(&self) -> Option<usize> {
        match self.home {
            Home::Keyed { map, .. } => Some(map),
            _ => None,
        }
    }
}

/// A column of a table's key.
#[derive(Clone, Copy)]
struct KeyOf {
    node: usize,
    column: usize,
}

struct Graph<'a> {
    router: &'a Router,
    statement: &'a Statement,
    standings: &'a [Vec<Standing>],
    nodes: Vec<Node<'a>>,
    /// Union-find over the columns of all keys: the element that stands for what is equated. Tables of one
    /// map whose columns are all equated form a class.
    elements: Vec<usize>,
}

impl<'a> Graph<'a> {
    fn new(router: &'a Router, statement: &'a Statement, standings: &'a [Vec<Standing>]) -> Graph<'a> {
        let mut graph = Graph { router, statement, standings, nodes: Vec::new(), elements: Vec::new() };
        for (level, standings) in standings.iter().enumerate() {
            for (relation, standing) in standings.iter().enumerate() {
                let home = match standing {
                    Standing::Sharded { map, key } => Home::Keyed { map: *map, key },
                    Standing::Fixed { shard, why } => Home::Fixed(*shard, *why),
                    Standing::Path => Home::Path,
                    _ => continue,
                };
                let node = Node { level, relation, home, first: graph.elements.len() };
                graph.elements.extend(node.elements());
                graph.nodes.push(node);
            }
        }
        graph.link_homes();
        graph.link();
        graph
    }

    /// Tables of one shard meet there, whatever is equated.
    fn link_homes(&mut self) {
        for at in 0..self.nodes.len() {
            let same = |a: Home<'_>, b: Home<'_>| match (a, b) {
                (Home::Fixed(a, _), Home::Fixed(b, _)) => a == b,
                (Home::Path, Home::Path) => true,
                _ => false,
            };
            let earlier = self.nodes[..at].iter().find(|it| same(it.home, self.nodes[at].home));
            if let Some(first) = earlier.map(|it| it.first) {
                let element = self.nodes[at].first;
                self.elements[element] = first;
            }
        }
    }

    fn element_of(&self, key: KeyOf) -> usize {
        let mut at = self.nodes[key.node].first + key.column;
        while self.elements[at] != at {
            at = self.elements[at];
        }
        at
    }

    /// The first node whose key is equated with this one's column by column.
    fn class_of(&self, node: usize) -> usize {
        let elements = |node: usize| {
            let columns = 0..self.nodes[node].elements().len();
            columns.map(move |column| self.element_of(KeyOf { node, column }))
        };
        (0..node)
            .find(|it| self.nodes[*it].map() == self.nodes[node].map() && elements(*it).eq(elements(node)))
            .unwrap_or(node)
    }

    /// Keys of different maps may be equal and yet live on different shards.
    fn unite(&mut self, a: KeyOf, b: KeyOf) {
        let maps = self.nodes[a.node].map().zip(self.nodes[b.node].map());
        if maps.is_some_and(|(a, b)| a == b) && a.column == b.column {
            let (a, b) = (self.element_of(a), self.element_of(b));
            self.elements[a.max(b)] = a.min(b);
        }
    }

    fn relation(&self, node: &Node<'_>) -> Option<&'a Relation> {
        self.statement.levels.get(node.level)?.relations.get(node.relation)
    }

    /// The nodes of a level that have a key column of this name, within a range of its FROM list.
    fn keyed(&self, level: usize, range: &Range<usize>, name: &str) -> Vec<KeyOf> {
        let all = self.nodes.iter().enumerate();
        let found = all.filter_map(|(node, it)| {
            let renamed = self.relation(it).is_none_or(|it| it.renamed);
            let here = it.level == level && range.contains(&it.relation) && !renamed;
            let column = it.key().iter().position(|it| it == name).filter(|_| here)?;
            Some(KeyOf { node, column })
        });
        found.collect()
    }

    fn link(&mut self) {
        for (index, level) in self.statement.levels.iter().enumerate() {
            for merged in &level.merged {
                let names: Vec<&str> = match &merged.column {
                    Some(name) => vec![name],
                    // NATURAL joins by every name that both sides have, so by a key that both have.
                    None => self.nodes.iter().flat_map(|it| it.key()).map(String::as_str).collect(),
                };
                for name in names {
                    let mut both = self.keyed(index, &merged.left, name);
                    let right = self.keyed(index, &merged.right, name);
                    if both.is_empty() || right.is_empty() {
                        continue;
                    }
                    both.extend(right);
                    both.windows(2).for_each(|pair| self.unite(pair[0], pair[1]));
                }
            }
        }
        self.link_members();
        // Unqualified names of merged columns need the links above.
        for (index, level) in self.statement.levels.iter().enumerate() {
            for equality in &level.equalities {
                let (a, b) = &equality.columns;
                let found =
                    self.resolve(index, &equality.scope, a).zip(self.resolve(index, &equality.scope, b));
                let Some((a, b)) = found else { continue };
                let outside = |key: KeyOf, range: &Range<usize>| {
                    let node = &self.nodes[key.node];
                    node.level == index && !range.contains(&node.relation)
                };
                let holds = |range: &Range<usize>| outside(a, range) || outside(b, range);
                if equality.kept.iter().all(holds) {
                    self.unite(a, b);
                }
            }
        }
    }

    /// `key IN (SELECT key ...)`: whether a key is among them, its own shard knows, unless they are few of many.
    fn link_members(&mut self) {
        for (index, level) in self.statement.levels.iter().enumerate() {
            let (Some(member), Some(parent), [shown]) = (&level.member, level.parent, &level.outputs[..])
            else {
                continue;
            };
            let plain = level.clauses.iter().all(|it| matches!(it, Clause::OrderBy | Clause::Distinct));
            let Some(around) = self.statement.levels.get(parent).filter(|_| plain && level.stars.is_empty())
            else {
                continue;
            };
            let inner =
                shown.column.as_ref().and_then(|it| self.resolve(index, &(0..level.relations.len()), it));
            let outer = self.resolve(parent, &(0..around.relations.len()), member);
            if let (Some(inner), Some(outer)) = (inner, outer)
                && self.nodes[inner.node].level == index
                && !self.may_be_null(inner.node)
            {
                self.unite(inner, outer);
            }
        }
    }

    /// The sharded table whose key a column is. A name that this level does not have is looked for in the
    /// levels around it only if it is qualified: an unqualified one might be any table's column.
    fn resolve(&self, level: usize, scope: &Range<usize>, column: &Column) -> Option<KeyOf> {
        let facts = self.statement.levels.get(level)?;
        let Some((table, schema)) = column.qualifiers.split_last() else {
            let found = self.keyed(level, scope, &column.name);
            let first = *found.first()?;
            let same = found.iter().all(|it| self.element_of(*it) == self.element_of(first));
            return same.then_some(first);
        };
        if facts.join_names.contains(table) {
            return None;
        }
        let named = facts.relations.iter().enumerate().filter(|(_, it)| match schema.first() {
            None => it.name == *table,
            Some(schema) => {
                let own = it.table.as_ref().and_then(|it| it.schema.as_deref()).unwrap_or("public");
                !it.aliased && it.name == *table && own == schema
            }
        });
        let mut named = named.map(|(index, _)| index);
        match (named.next(), named.next()) {
            (Some(relation), None) => {
                self.keyed(level, &(relation..relation + 1), &column.name).first().copied()
            }
            (Some(_), Some(_)) => None,
            (None, _) => {
                let parent = facts.parent?;
                let whole = 0..self.statement.levels.get(parent)?.relations.len();
                self.resolve(parent, &whole, column)
            }
        }
    }

    /// One class per set of linked tables. A table of an inner level that is linked to one around it is
    /// only looked at for rows of that one, so the outer level alone says which shards are needed.
    fn classes(&self) -> Result<Vec<Class>, Refusal> {
        let mut formed = Vec::new();
        for root in (0..self.nodes.len()).filter(|it| self.class_of(*it) == *it) {
            let members = (0..self.nodes.len()).filter(|it| self.class_of(*it) == root);
            let members: Vec<usize> = members.filter(|it| !self.is_absorbed(self.nodes[*it].level)).collect();
            if members.is_empty() {
                // Looked for by their places (`position`).
                formed.push(self.absorbed(root));
                continue;
            }
            let depth = members.iter().map(|it| self.depth(self.nodes[*it].level)).min().unwrap_or(0);
            let own = members.iter().copied().filter(|it| self.depth(self.nodes[*it].level) == depth);
            formed.push(self.class(root, &own.collect::<Vec<_>>())?);
        }
        self.insert_classes(&mut formed)?;
        Ok(formed)
    }

    /// A class that needs no shard of its own.
    fn absorbed(&self, root: usize) -> Class {
        let node = &self.nodes[root];
        let (table, column) = (String::new(), node.key().join(", "));
        Class { map: node.map(), table, column, keys: Keys::Never, writes: false }
    }

    fn depth(&self, level: usize) -> usize {
        let mut depth = 0;
        let mut at = level;
        while let Some(parent) = self.statement.levels.get(at).and_then(|it| it.parent) {
            (at, depth) = (parent, depth + 1);
        }
        depth
    }

    fn class(&self, root: usize, own: &[usize]) -> Result<Class, Refusal> {
        let first = own.first().copied().unwrap_or(root);
        let mut branches: Vec<(Vec<usize>, Keys)> = Vec::new();
        let mut writes = false;
        for member in own {
            let node = &self.nodes[*member];
            let Some(level) = self.statement.levels.get(node.level) else { continue };
            if let (Some(write), 0) = (&level.write, node.relation) {
                writes = true;
                refuse_key_change(write, node.key())?;
                // The rows of an INSERT have a class of their own.
                if matches!(write, Write::Insert { .. }) {
                    continue;
                }
            }
            let valid = level.conditions.iter().enumerate();
            let valid = valid.filter(|(_, it)| it.covers.contains(&node.relation));
            let indexes: Vec<usize> = valid.clone().map(|(index, _)| index).collect();
            let inner = self.keys_inside(node)?;
            if inner.is_none() && branches.iter().any(|(it, _)| *it == indexes) {
                continue;
            }
            let keys = self.keys(node.level, root, &valid.map(|(_, it)| it).collect::<Vec<_>>());
            branches.push((indexes, Keys::and([keys].into_iter().chain(inner))));
        }
        let node = &self.nodes[first];
        let keys = match node.home {
            Home::Keyed { .. } => Keys::or(branches.into_iter().map(|(_, keys)| keys)),
            Home::Fixed(shard, why) => Keys::On(shard, why),
            Home::Path => Keys::Path,
        };
        let table =
            self.relation(node).and_then(|it| it.table.as_ref()).map_or(String::new(), |it| it.name.clone());
        Ok(Class { map: node.map(), table, column: node.key().join(", "), keys, writes })
    }

    /// Of a subquery or CTE: what it says of its key itself.
    fn keys_inside(&self, node: &Node<'_>) -> Result<Option<Keys>, Refusal> {
        let Some(inner) = self.relation(node).and_then(|it| it.level) else { return Ok(None) };
        self.keys_of_level(inner).map(Some)
    }

    fn keys_of_level(&self, level: usize) -> Result<Keys, Refusal> {
        if let Some(arms) = self.statement.levels.get(level).and_then(|it| it.set.as_ref()) {
            return Ok(Keys::or([self.keys_of_level(arms.left)?, self.keys_of_level(arms.right)?]));
        }
        let own: Vec<usize> = (0..self.nodes.len()).filter(|it| self.nodes[*it].level == level).collect();
        match own.first() {
            None => Ok(Keys::All),
            Some(first) => Ok(self.class(self.class_of(*first), &own)?.keys),
        }
    }

    /// The level is looked at as the table that it stands for (`with_derived`).
    fn is_absorbed(&self, level: usize) -> bool {
        let stands = |it: &Node<'_>| self.relation(it).is_some_and(|it| it.level == Some(level));
        if self.nodes.iter().any(stands) {
            return true;
        }
        let arm_of = |it: &Level| it.set.as_ref().is_some_and(|it| it.left == level || it.right == level);
        let set = self.statement.levels.iter().position(arm_of);
        let around = self.statement.levels.get(level).and_then(|it| it.parent);
        set.into_iter().chain(around).any(|it| self.is_absorbed(it))
    }

    /// What conditions say of the key of one class.
    fn keys(&self, level: usize, class: usize, conditions: &[&Condition]) -> Keys {
        let Some(map) = self.nodes[class].map().and_then(|it| self.router.any_map(it)) else {
            return Keys::All;
        };
        let root = &self.nodes[class];
        let find = |scope: &Range<usize>, column: &Column| {
            let element = self.element_of(self.resolve(level, scope, column)?);
            let columns = 0..root.key().len();
            columns.into_iter().find(|it| self.element_of(KeyOf { node: class, column: *it }) == element)
        };
        let finds: Vec<_> =
            conditions.iter().map(|it| move |column: &Column| find(&it.scope, column)).collect();
        let pairs = conditions.iter().zip(&finds);
        let predicates: Vec<(&Predicate, predicates::Find<'_>)> =
            pairs.map(|(it, find)| (&it.predicate, find as predicates::Find<'_>)).collect();
        predicates::keys(map, &predicates)
    }

    /// For each INSERT into a sharded table, the keys of its rows.
    fn insert_classes(&self, formed: &mut [Class]) -> Result<(), Refusal> {
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(level) = self.statement.levels.get(node.level) else { continue };
            let (Some(Write::Insert { columns, source, .. }), 0) = (&level.write, node.relation) else {
                continue;
            };
            if node.map().is_none() {
                continue;
            }
            let keys = self.inserted(formed, node, columns.as_deref(), source)?;
            let class = self.class_of(index);
            if let Some(own) = self.formed_mut(formed, class) {
                own.keys = keys;
                own.writes = true;
            }
        }
        Ok(())
    }

    fn inserted(
        &self,
        formed: &[Class],
        node: &Node<'_>,
        columns: Option<&[String]>,
        source: &InsertSource,
    ) -> Result<Keys, Refusal> {
        let table = self.relation(node).map_or("", |it| &it.name);
        let names = node.key().join(", ");
        let missing = |what: &str| {
            Refusal::unsupported(
                Reason::MissingKey,
                format!("INSERT into table \"{table}\" {what}"),
                format!("name the columns, and give \"{names}\" a constant or a parameter"),
            )
        };
        let Some(columns) = columns else { return Err(missing("does not name its columns")) };
        let at = node.key().iter().map(|key| columns.iter().position(|it| it == key));
        let Some(at) = at.collect::<Option<Vec<usize>>>() else {
            return Err(missing(&format!("lacks its shard key \"{names}\"")));
        };
        let inexact = || missing(&format!("has no constant for its shard key \"{names}\""));
        let map = node.map().and_then(|it| self.router.any_map(it)).ok_or_else(inexact)?;
        let constants = |row: &[Field]| -> Option<Vec<KeyPlace>> {
            let fields = at.iter().zip(map.columns()).map(|(at, column)| match row.get(*at) {
                Some(Field::Value(value)) => place(value, column),
                _ => None,
            });
            fields.collect()
        };
        match source {
            InsertSource::DefaultValues => Err(inexact()),
            InsertSource::Rows(rows) => {
                let rows: Option<Vec<Vec<KeyPlace>>> = rows.iter().map(|it| constants(it)).collect();
                Ok(Keys::Rows(rows.ok_or_else(inexact)?.concat().into()))
            }
            InsertSource::Query { level, fields } => {
                let fields = fields.as_deref().ok_or_else(inexact)?;
                if let Some(places) = constants(fields) {
                    return Ok(Keys::Rows(places.into()));
                }
                let from = self.copied_from(*level, fields, &at).ok_or_else(inexact)?;
                if self.nodes[from].map() != node.map() || self.may_be_null(from) {
                    return Err(inexact());
                }
                // The row keeps the key of the row that it is made from.
                let from = self.class_of(from);
                Ok(self.formed(formed, from).map_or(Keys::All, |it| it.keys.clone()))
            }
        }
    }

    /// The table whose whole key the inserted key is, column by column.
    fn copied_from(&self, level: usize, fields: &[Field], at: &[usize]) -> Option<usize> {
        let whole = 0..self.statement.levels.get(level).map_or(0, |it| it.relations.len());
        let mut found = None;
        for (column, at) in at.iter().enumerate() {
            let Some(Field::Column(name)) = fields.get(*at) else { return None };
            let from = self.resolve(level, &whole, name).filter(|it| it.column == column)?;
            if *found.get_or_insert(from.node) != from.node {
                return None;
            }
        }
        found.filter(|it| self.nodes[*it].key().len() == at.len())
    }

    /// An outer join can put NULL in place of the table's key.
    fn may_be_null(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        let joins = self.statement.levels.get(node.level).map_or(&[][..], |it| &it.outer_joins);
        joins.iter().any(|it| it.nullable.contains(&node.relation))
    }

    /// Classes are formed in the order of their first node.
    fn position(&self, class: usize) -> usize {
        (0..class).filter(|it| self.class_of(*it) == *it).count()
    }

    fn formed<'f>(&self, formed: &'f [Class], class: usize) -> Option<&'f Class> {
        formed.get(self.position(class))
    }

    fn formed_mut<'f>(&self, formed: &'f mut [Class], class: usize) -> Option<&'f mut Class> {
        formed.get_mut(self.position(class))
    }
}

fn refuse_key_change(write: &Write, key: &[String]) -> Result<(), Refusal> {
    let assigns = match write {
        Write::Insert { conflict_assigns, .. } => conflict_assigns,
        Write::Update { assigns } => assigns,
        Write::Delete | Write::Merge => return Ok(()),
    };
    match key.iter().find(|it| assigns.contains(it)) {
        None => Ok(()),
        Some(column) => Err(Refusal::unsupported(
            Reason::KeyUpdate,
            format!("shard key \"{column}\" cannot be changed"),
            "delete the row and insert it with its new key",
        )),
    }
}

fn clause_name(clause: &Clause) -> String {
    match clause {
        Clause::Aggregate => "an aggregate".into(),
        Clause::WindowFunction => "a window function".into(),
        Clause::GroupBy => "GROUP BY".into(),
        Clause::Having => "HAVING".into(),
        Clause::Distinct => "DISTINCT".into(),
        Clause::OrderBy => "ORDER BY".into(),
        Clause::Limit => "LIMIT, OFFSET or FETCH".into(),
        Clause::SetOperation => "UNION, INTERSECT or EXCEPT".into(),
        Clause::Locking => "FOR UPDATE or FOR SHARE".into(),
        Clause::TableSample => "TABLESAMPLE".into(),
        Clause::UnknownFunction(name) => format!("function {name}(), which may be an aggregate,"),
    }
}

fn role_name(level: &Level) -> &'static str {
    match level.role {
        LevelRole::Root => "a query",
        LevelRole::SetOperationArm => "UNION, INTERSECT or EXCEPT",
        LevelRole::Sublink => "a subquery on a sharded table",
        LevelRole::FromSubquery => "a subquery in FROM on a sharded table",
        LevelRole::Cte => "WITH on a sharded table",
        LevelRole::InsertSource => "INSERT from a query",
    }
}
