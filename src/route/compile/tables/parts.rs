//! Whether the answers of several shards, each from its own rows, make the answer: the rows of every query
//! level have to lie on one shard each, with all the rows that they are joined, grouped or compared with.

use std::collections::BTreeSet;

use super::super::super::reads::Manner;
use super::{Graph, Home, KeyOf, Standing};
use crate::sql::{
    Clause, Column, CursorStatement, InsertSource, Level, LevelRole, OuterJoin, SetArms, SetKind, Split,
    Utility, Write,
};

/// How the rows of a level's result lie on the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// The same rows on each.
    Copies,
    /// Each row on one.
    Parts(Shown),
}

/// Under which columns a level's result shows its shard key, if it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub map: Option<usize>,
    /// One for each column of the key, or none.
    pub names: Vec<String>,
    /// The same as places in the select list; none where `*` hides them.
    places: Vec<usize>,
}

/// How the statement is answered by several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Rows follow one another.
    Rows,
    Merged(Manner),
}

type Judged<T> = Result<T, String>;

/// Levels that have been judged: one that nobody asked for would be left out.
#[derive(Default)]
struct Visited(BTreeSet<usize>);

impl Graph<'_> {
    /// How the statement, a read, is answered by several shards, or what stands in the way.
    pub fn answer(&self, split: Option<&Split>, refused: Option<&str>) -> Judged<Answer> {
        let statement = self.statement;
        if statement.explain.is_some() {
            return Err("EXPLAIN".into());
        }
        match statement.utility {
            None | Some(Utility::Cursor(CursorStatement::Declare { .. })) => {}
            Some(Utility::CopyOut { .. }) => return Err("COPY".into()),
            Some(_) => return Err("a statement of this kind".into()),
        }
        let Some(root) = statement.levels.first() else { return Ok(Answer::Rows) };
        let mut visited = Visited::default();
        let answer = match &root.set {
            Some(arms) => self.root_set(0, arms, &mut visited).map(|()| Answer::Merged(Manner::Whole))?,
            None => {
                let class = self.base(0, &mut visited)?;
                self.root(root, class, split, refused)?
            }
        };
        if let Some(node) = self.nodes.iter().find(|it| !visited.0.contains(&it.level)) {
            return Err(self.role_name(node.level).into());
        }
        match (answer, split) {
            (Answer::Merged(_), None) => Err(refused.unwrap_or("a statement of this form").into()),
            (answer, _) => Ok(answer),
        }
    }

    /// Whether several shards may each do their part of the statement, a write, or what stands in the way.
    pub fn written(&self) -> Judged<()> {
        let statement = self.statement;
        if statement.explain.is_some() {
            return Err("EXPLAIN".into());
        }
        let root = statement.levels.first().filter(|_| statement.utility.is_none());
        let root = root.ok_or("a statement of this form")?;
        let mut visited = Visited::default();
        self.base(0, &mut visited)?;
        match &root.write {
            Some(Write::Update { .. } | Write::Delete) => {}
            Some(Write::Insert { source: InsertSource::Query { level, .. }, .. }) => {
                if self.spread(*level, &mut visited)? == Spread::Copies {
                    return Err("an INSERT of rows that every shard has".into());
                }
            }
            Some(Write::Insert { source: InsertSource::Rows(_), .. }) => {
                if statement.levels.iter().any(|it| it.role == LevelRole::Cte) {
                    return Err("WITH".into());
                }
            }
            _ => return Err("a statement of this form".into()),
        }
        if let Some(clause) = root.clauses.first() {
            return Err(super::clause_name(clause));
        }
        match self.nodes.iter().find(|it| !visited.0.contains(&it.level)) {
            Some(node) => Err(self.role_name(node.level).into()),
            None => Ok(()),
        }
    }

    fn root(
        &self,
        root: &Level,
        class: Option<usize>,
        split: Option<&Split>,
        refused: Option<&str>,
    ) -> Judged<Answer> {
        let mut answer = Answer::Rows;
        for clause in &root.clauses {
            let merged = match clause {
                Clause::OrderBy | Clause::Limit | Clause::Distinct => Manner::Whole,
                Clause::WindowFunction => self.windows(root, 0, class).map(|()| Manner::Whole)?,
                Clause::Aggregate | Clause::GroupBy | Clause::Having => {
                    let columns = split.map_or(&[][..], |it| &it.group_columns);
                    if self.covers(columns, 0, class) { Manner::Whole } else { Manner::Grouped }
                }
                other => return Err(super::clause_name(other)),
            };
            answer = match answer {
                Answer::Merged(Manner::Grouped) => answer,
                _ => Answer::Merged(merged),
            };
        }
        if answer == Answer::Merged(Manner::Grouped) {
            if root.clauses.contains(&Clause::WindowFunction) {
                return Err("a window function over groups".into());
            }
            match split.map(|it| &it.grouped) {
                Some(Some(Ok(_))) => {}
                Some(Some(Err(what))) => return Err(what.0.clone()),
                _ => return Err(refused.unwrap_or("an aggregate of this form").into()),
            }
        }
        Ok(answer)
    }

    fn root_set(&self, level: usize, arms: &SetArms, visited: &mut Visited) -> Judged<()> {
        visited.0.insert(level);
        match arms.kind {
            SetKind::Compared => self.spread(level, visited).map(|_| ()),
            kind => {
                for arm in [arms.left, arms.right] {
                    let nested = self.statement.levels.get(arm).and_then(|it| it.set.as_ref());
                    match nested {
                        // Duplicates go away in the end.
                        Some(nested) if nested.kind == SetKind::Union && kind == SetKind::Union => {
                            self.root_set(arm, nested, visited)?;
                        }
                        _ if self.spread(arm, visited)? == Spread::Copies && kind == SetKind::UnionAll => {
                            return Err("UNION ALL with rows that every shard has".into());
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
        }
    }

    /// How the rows of a level that stands inside another one lie.
    pub(super) fn spread_of(&self, level: usize) -> Judged<Spread> {
        self.spread(level, &mut Visited::default())
    }

    fn spread(&self, level: usize, visited: &mut Visited) -> Judged<Spread> {
        visited.0.insert(level);
        let facts = self.statement.levels.get(level).ok_or("a query of this form")?;
        if facts.write.is_some() {
            return Err("a write inside of a query".into());
        }
        if let Some(arms) = &facts.set {
            return self.spread_of_set(facts, arms, visited);
        }
        let class = self.base(level, visited)?;
        let Some(root) = class else { return Ok(Spread::Copies) };
        let shown = self.shown(facts, level, root);
        for clause in &facts.clauses {
            match clause {
                Clause::OrderBy => {}
                Clause::Distinct if !shown.names.is_empty() => {}
                Clause::WindowFunction => self.windows(facts, level, class)?,
                Clause::Aggregate | Clause::GroupBy | Clause::Having
                    if self.covers(&facts.groups, level, class) => {}
                clause => return Err(format!("{} in {}", super::clause_name(clause), self.role_name(level))),
            }
        }
        Ok(Spread::Parts(shown))
    }

    fn spread_of_set(&self, facts: &Level, arms: &SetArms, visited: &mut Visited) -> Judged<Spread> {
        if facts.clauses.contains(&Clause::Limit) {
            return Err("LIMIT, OFFSET or FETCH in a subquery".into());
        }
        match (self.spread(arms.left, visited)?, self.spread(arms.right, visited)?) {
            (Spread::Copies, Spread::Copies) => Ok(Spread::Copies),
            (Spread::Parts(a), Spread::Parts(b)) => {
                let same = a.map == b.map && !a.places.is_empty() && a.places == b.places;
                match (arms.kind, same) {
                    (_, true) => Ok(Spread::Parts(a)),
                    (SetKind::UnionAll, false) => Ok(Spread::Parts(Shown::default())),
                    _ => Err("UNION, INTERSECT or EXCEPT of rows that do not show their shard keys".into()),
                }
            }
            _ => Err("a set operation of rows that every shard has with rows of one".into()),
        }
    }

    /// What a level's FROM and sublinks say: the class of its sharded tables, or none.
    fn base(&self, level: usize, visited: &mut Visited) -> Judged<Option<usize>> {
        visited.0.insert(level);
        let own = self.nodes.iter().enumerate().filter(|(_, it)| it.level == level);
        let mut class = None;
        for (node, _) in own {
            let of_node = self.class_of(node);
            if *class.get_or_insert(of_node) != of_node {
                return Err("a join that does not equate the shard keys of its tables".into());
            }
        }
        if class.is_some_and(|it: usize| !matches!(self.nodes[it].home, Home::Keyed { .. })) {
            return Err("a table that lives on one shard".into());
        }
        let facts = self.statement.levels.get(level).ok_or("a query of this form")?;
        let standings = self.standings.get(level).ok_or("a query of this form")?;
        if standings.iter().any(|it| matches!(it, Standing::Catalog)) {
            return Err("a read of a system catalog".into());
        }
        for (relation, standing) in facts.relations.iter().zip(standings) {
            let Some(inner) = relation.level else { continue };
            if self.parent(inner) == Some(level) && self.role(inner) == Some(LevelRole::FromSubquery) {
                // LATERAL: for each row of this level.
                self.linked(inner, class, visited)?;
                continue;
            }
            match (self.spread(inner, visited)?, standing) {
                (Spread::Parts(_), Standing::Derived) => {
                    return Err(format!("{} that does not show its shard key", self.role_name(inner)));
                }
                _ => continue,
            }
        }
        let sharded = |range: &std::ops::Range<usize>| {
            let of_range = standings.get(range.clone()).unwrap_or_default();
            of_range.iter().any(|it| matches!(it, Standing::Sharded { .. }))
        };
        let keeps_copies = |it: &OuterJoin| sharded(&it.nullable) && !sharded(&it.kept);
        if facts.outer_joins.iter().any(keeps_copies) {
            return Err("an outer join that keeps the rows of a table that is not sharded".into());
        }
        for inner in 0..self.statement.levels.len() {
            if self.parent(inner) == Some(level) && self.role(inner) == Some(LevelRole::Sublink) {
                self.linked(inner, class, visited)?;
            }
        }
        Ok(class)
    }

    /// A level that is evaluated for rows of another one: what it reads of sharded tables is of the same key.
    fn linked(&self, level: usize, class: Option<usize>, visited: &mut Visited) -> Judged<()> {
        visited.0.insert(level);
        let facts = self.statement.levels.get(level).ok_or("a query of this form")?;
        if let Some(arms) = &facts.set {
            self.linked(arms.left, class, visited)?;
            return self.linked(arms.right, class, visited);
        }
        match self.base(level, visited)? {
            None => Ok(()),
            inner if inner == class => Ok(()),
            Some(_) => Err(self.role_name(level).into()),
        }
    }

    fn parent(&self, level: usize) -> Option<usize> {
        self.statement.levels.get(level)?.parent
    }

    fn role(&self, level: usize) -> Option<LevelRole> {
        self.statement.levels.get(level).map(|it| it.role)
    }

    fn role_name(&self, level: usize) -> &'static str {
        self.statement.levels.get(level).map_or("a query", super::role_name)
    }

    fn windows(&self, facts: &Level, level: usize, class: Option<usize>) -> Judged<()> {
        let all = facts.partitions.iter().all(|it| self.covers(it, level, class));
        if all { Ok(()) } else { Err("a window function that is not partitioned by the shard key".into()) }
    }

    /// Rows that are equal in these columns are on one shard.
    fn covers(&self, columns: &[Column], level: usize, class: Option<usize>) -> bool {
        let Some(root) = class else { return false };
        let whole = 0..self.statement.levels.get(level).map_or(0, |it| it.relations.len());
        let found: Vec<usize> = columns
            .iter()
            .filter_map(|it| self.resolve(level, &whole, it))
            .filter(|it| self.nodes[it.node].level == level && !self.may_be_null(it.node))
            .map(|it| self.element_of(it))
            .collect();
        let columns = 0..self.nodes[root].key().len();
        columns.into_iter().all(|column| found.contains(&self.element_of(KeyOf { node: root, column })))
    }

    fn shown(&self, facts: &Level, level: usize, root: usize) -> Shown {
        let whole = 0..facts.relations.len();
        let (mut names, mut places) = (Vec::new(), Vec::new());
        for column in 0..self.nodes[root].key().len() {
            let element = self.element_of(KeyOf { node: root, column });
            let is_key = |it: KeyOf| {
                let node = &self.nodes[it.node];
                node.level == level && !self.may_be_null(it.node) && self.element_of(it) == element
            };
            let listed = facts.outputs.iter().position(|it| {
                let found = it.column.as_ref().and_then(|it| self.resolve(level, &whole, it));
                found.is_some_and(is_key)
            });
            if let Some(at) = listed {
                names.push(facts.outputs[at].name.clone());
                places.push(at);
                continue;
            }
            let starred = self.nodes.iter().enumerate().find_map(|(node, it)| {
                let at = (0..it.key().len()).find(|column| is_key(KeyOf { node, column: *column }))?;
                let relation = self.relation(it).filter(|it| !it.renamed)?;
                let fits = |star: &Option<String>| star.as_ref().is_none_or(|it| *it == relation.name);
                facts.stars.iter().any(fits).then(|| it.key()[at].clone())
            });
            match starred {
                Some(name) => names.push(name),
                None => return Shown::default(),
            }
        }
        if !facts.stars.is_empty() {
            places.clear();
        }
        Shown { map: self.nodes[root].map(), names, places }
    }
}
