//! Query levels: what a SELECT, INSERT, UPDATE, DELETE or MERGE reads from, joins and writes.

use std::ops::Range;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    Alias, DeleteStmt, InsertStmt, JoinExpr, JoinType, MergeStmt, Node, OnConflictClause, RangeFunction,
    RangeSubselect, RangeVar, ReturningClause, SelectStmt, SetOperation, UpdateStmt, WithClause,
};

use super::expression::{On, Spot, boolean, column, strings};
use super::facts::{
    Clause, Field, InsertSource, Level, LevelRole, Locks, Merged, OuterJoin, OutputColumn, Relation, SetArms,
    SetKind, SettingCall, Statement, Table, Write,
};
use super::scan::Literal;

/// Reads one statement of a tree into a [`Statement`].
pub(super) struct Reader<'a> {
    pub text: &'a str,
    pub literals: &'a [Literal],
    pub statement: Statement,
    /// The CTEs in sight with their levels, the nearest last. One that reads itself has none.
    ctes: Vec<(String, Option<usize>)>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str, literals: &'a [Literal]) -> Reader<'a> {
        Reader { text, literals, statement: Statement::default(), ctes: Vec::new() }
    }

    pub fn unknown(&mut self, what: &'static str) {
        self.statement.unknown.get_or_insert(what);
    }

    pub fn level_mut(&mut self, level: usize) -> Option<&mut Level> {
        self.statement.levels.get_mut(level)
    }

    pub fn clause(&mut self, level: usize, clause: Clause) {
        if let Some(level) = self.level_mut(level) {
            level.clauses.push(clause);
        }
    }

    fn push_level(&mut self, role: LevelRole, parent: Option<usize>) -> usize {
        self.statement.levels.push(Level::new(role, parent));
        self.statement.levels.len() - 1
    }

    fn parent_of(&self, level: usize) -> Option<usize> {
        self.statement.levels.get(level).and_then(|it| it.parent)
    }

    fn relation_count(&self, level: usize) -> usize {
        self.statement.levels.get(level).map_or(0, |it| it.relations.len())
    }

    /// Reads a statement that can stand inside another one; its level, if it is one.
    pub fn inner_query(
        &mut self,
        node: &Option<Box<Node>>,
        parent: Option<usize>,
        role: LevelRole,
    ) -> Option<usize> {
        match node.as_ref()?.node.as_ref()? {
            NodeEnum::SelectStmt(it) => Some(self.select(it, parent, role)),
            NodeEnum::InsertStmt(it) => Some(self.insert(it, parent, role)),
            NodeEnum::UpdateStmt(it) => Some(self.update(it, parent, role)),
            NodeEnum::DeleteStmt(it) => Some(self.delete(it, parent, role)),
            NodeEnum::MergeStmt(it) => Some(self.merge(it, parent, role)),
            _ => {
                self.unknown("a query of a kind that Keyway does not read");
                None
            }
        }
    }

    /// A CTE sees what surrounds the query that it belongs to, not that query's own FROM list.
    fn with(&mut self, clause: &Option<WithClause>, level: usize) {
        let Some(clause) = clause else { return };
        let parent = self.parent_of(level);
        let names = clause.ctes.iter().filter_map(|it| match it.node.as_ref()? {
            NodeEnum::CommonTableExpr(it) => Some(it),
            _ => None,
        });
        if clause.recursive {
            let all: Vec<_> = names.clone().map(|it| (it.ctename.clone(), None)).collect();
            self.ctes.extend(all);
        }
        for cte in names {
            let level = self.inner_query(&cte.ctequery, parent, LevelRole::Cte);
            let aliases = strings(&cte.aliascolnames);
            if let Some(level) = level.and_then(|it| self.level_mut(it)) {
                let named = level.outputs.iter_mut().zip(aliases.iter());
                named.for_each(|(output, name)| output.name.clone_from(name));
                if !aliases.is_empty() && !level.stars.is_empty() {
                    // Which alias is whose is not known.
                    level.outputs.clear();
                    level.stars.clear();
                }
            }
            self.ctes.push((cte.ctename.clone(), level.filter(|_| !clause.recursive)));
        }
    }

    pub fn select(&mut self, stmt: &SelectStmt, parent: Option<usize>, role: LevelRole) -> usize {
        let in_sight = self.ctes.len();
        let level = self.push_level(role, parent);
        self.with(&stmt.with_clause, level);
        if stmt.op() != SetOperation::SetopNone && stmt.op() != SetOperation::Undefined {
            self.clause(level, Clause::SetOperation);
            let arms = [&stmt.larg, &stmt.rarg].into_iter().flatten();
            let arms: Vec<usize> =
                arms.map(|it| self.select(it, parent, LevelRole::SetOperationArm)).collect();
            let kind = match (stmt.op(), stmt.all) {
                (SetOperation::SetopUnion, true) => SetKind::UnionAll,
                (SetOperation::SetopUnion, false) => SetKind::Union,
                _ => SetKind::Compared,
            };
            if let ([left, right], Some(level)) = (&arms[..], self.level_mut(level)) {
                level.set = Some(SetArms { kind, left: *left, right: *right });
            }
        }
        self.walk_all(&stmt.values_lists, level, Spot::SelectList);
        self.read_items(&stmt.from_clause, level);
        let all = On::everything(self.relation_count(level));
        self.condition(&stmt.where_clause, level, all);
        self.walk_all(&stmt.target_list, level, Spot::SelectList);
        self.outputs(stmt, level);
        self.clauses(stmt, level);
        if role == LevelRole::Root && has_one_row(stmt) {
            self.settings(&stmt.target_list);
        }
        self.ctes.truncate(in_sight);
        level
    }

    fn outputs(&mut self, stmt: &SelectStmt, level: usize) {
        let Some(level) = self.level_mut(level) else { return };
        for target in &stmt.target_list {
            let Some(NodeEnum::ResTarget(target)) = &target.node else { continue };
            let Some(value) = target.val.as_deref() else { continue };
            if let Some(NodeEnum::ColumnRef(it)) = value.node.as_ref().filter(|_| is_star(value)) {
                level.stars.push(strings(&it.fields).pop());
                continue;
            }
            let column = column(value);
            let own = column.as_ref().map(|it| it.name.clone()).unwrap_or_default();
            let name = if target.name.is_empty() { own } else { target.name.clone() };
            level.outputs.push(OutputColumn { name, column });
        }
        level.groups.extend(stmt.group_clause.iter().filter_map(column));
    }

    fn settings(&mut self, targets: &[Node]) {
        for target in targets {
            let Some(NodeEnum::ResTarget(target)) = &target.node else { continue };
            let Some(NodeEnum::FuncCall(call)) = target.val.as_ref().and_then(|it| it.node.as_ref()) else {
                continue;
            };
            let names = strings(&call.funcname);
            let [name, value, local] = &call.args[..] else { continue };
            let is_ours = matches!(&names[..], [name] if name == "set_config")
                || matches!(&names[..], [schema, name] if schema == "pg_catalog" && name == "set_config");
            if let (true, Some(name), Some(value), Some(local)) =
                (is_ours, self.value(name), self.value(value), boolean(local))
            {
                self.statement.settings.push(SettingCall { name, value, local });
            }
        }
    }

    fn clauses(&mut self, stmt: &SelectStmt, level: usize) {
        self.walk_all(&stmt.sort_clause, level, Spot::Elsewhere);
        self.walk_all(&stmt.group_clause, level, Spot::Elsewhere);
        self.walk_some(&stmt.having_clause, level, Spot::Elsewhere);
        self.walk_all(&stmt.window_clause, level, Spot::Elsewhere);
        self.walk_some(&stmt.limit_offset, level, Spot::Elsewhere);
        self.walk_some(&stmt.limit_count, level, Spot::Elsewhere);
        let distinct = stmt.distinct_clause.iter().filter(|it| it.node.is_some());
        distinct.for_each(|it| self.walk(it, level, Spot::Elsewhere));
        let present = [
            (!stmt.group_clause.is_empty(), Clause::GroupBy),
            (stmt.having_clause.is_some(), Clause::Having),
            (!stmt.distinct_clause.is_empty(), Clause::Distinct),
            (!stmt.sort_clause.is_empty(), Clause::OrderBy),
            (stmt.limit_count.is_some() || stmt.limit_offset.is_some(), Clause::Limit),
            (!stmt.locking_clause.is_empty(), Clause::Locking),
        ];
        for (_, clause) in present.into_iter().filter(|(is_there, _)| *is_there) {
            self.clause(level, clause);
        }
        for locking in &stmt.locking_clause {
            let Some(NodeEnum::LockingClause(it)) = &locking.node else { continue };
            let names = it.locked_rels.iter().filter_map(|it| match it.node.as_ref()? {
                NodeEnum::RangeVar(it) => Some(it.relname.clone()),
                _ => None,
            });
            let names: Vec<String> = names.collect();
            let Some(level) = self.level_mut(level) else { continue };
            match &mut level.locks {
                // One clause without OF locks every table, whatever the others name.
                Some(locks) if names.is_empty() || locks.names.is_empty() => locks.names.clear(),
                Some(locks) => locks.names.extend(names),
                none => *none = Some(Locks { names }),
            }
        }
    }

    fn read_items(&mut self, items: &[Node], level: usize) {
        for item in items {
            self.read_item(item, level);
        }
    }

    /// Adds the relations of a FROM item; they follow one another.
    fn read_item(&mut self, node: &Node, level: usize) -> Range<usize> {
        let start = self.relation_count(level);
        match &node.node {
            Some(NodeEnum::RangeVar(it)) => self.table(it, level),
            Some(NodeEnum::JoinExpr(it)) => self.join(it, level),
            Some(NodeEnum::RangeSubselect(it)) => self.subselect(it, level),
            Some(NodeEnum::RangeFunction(it)) => self.function(it, level),
            Some(NodeEnum::RangeTableSample(it)) => {
                if let Some(relation) = &it.relation {
                    self.read_item(relation, level);
                }
                self.walk_all(&it.args, level, Spot::Elsewhere);
                self.walk_some(&it.repeatable, level, Spot::Elsewhere);
                self.clause(level, Clause::TableSample);
            }
            Some(NodeEnum::RangeTableFunc(it)) => {
                self.walk_some(&it.docexpr, level, Spot::Elsewhere);
                self.walk_some(&it.rowexpr, level, Spot::Elsewhere);
                self.unknown("XMLTABLE");
                self.derived(&it.alias, String::new(), level, None);
            }
            _ => self.unknown("a FROM item of a kind that Keyway does not read"),
        }
        start..self.relation_count(level)
    }

    fn relation(&mut self, relation: Relation, level: usize) {
        if let Some(level) = self.level_mut(level) {
            level.relations.push(relation);
        }
    }

    fn table(&mut self, it: &RangeVar, level: usize) {
        let cte = self.ctes.iter().rev().find(|(name, _)| it.schemaname.is_empty() && *name == it.relname);
        if let Some((name, inner)) = cte.cloned() {
            return self.derived(&it.alias, name, level, inner);
        }
        self.relation(table_relation(it), level);
    }

    fn derived(&mut self, alias: &Option<Alias>, name: String, level: usize, inner: Option<usize>) {
        let aliased = alias.is_some();
        let renamed = alias.as_ref().is_some_and(|it| !it.colnames.is_empty());
        let name = alias.as_ref().map_or(name, |it| it.aliasname.clone());
        self.relation(Relation { name, aliased, renamed, table: None, level: inner }, level);
    }

    fn subselect(&mut self, it: &RangeSubselect, level: usize) {
        let parent = if it.lateral { Some(level) } else { self.parent_of(level) };
        let inner = self.inner_query(&it.subquery, parent, LevelRole::FromSubquery);
        self.derived(&it.alias, String::new(), level, inner);
    }

    fn function(&mut self, it: &RangeFunction, level: usize) {
        let mut name = String::new();
        for function in &it.functions {
            // Each is a list of the call and its column definitions.
            let Some(NodeEnum::List(list)) = &function.node else { continue };
            let Some(call) = list.items.first() else { continue };
            if let Some(NodeEnum::FuncCall(call)) = &call.node {
                name = strings(&call.funcname).pop().unwrap_or_default();
            }
            self.walk(call, level, Spot::Elsewhere);
        }
        self.derived(&it.alias, name, level, None);
    }

    fn join(&mut self, it: &JoinExpr, level: usize) {
        let start = self.relation_count(level);
        let side = |reader: &mut Self, node: &Option<Box<Node>>| match node {
            Some(node) => reader.read_item(node, level),
            None => start..start,
        };
        let left = side(self, &it.larg);
        let right = side(self, &it.rarg);
        let whole = left.start..right.end;
        let (covers, kept) = match it.jointype() {
            JoinType::JoinInner => (whole.clone(), vec![]),
            JoinType::JoinLeft => (right.clone(), vec![left.clone()]),
            JoinType::JoinRight => (left.clone(), vec![right.clone()]),
            // FULL keeps both sides, so its condition restricts neither.
            _ => (start..start, vec![left.clone(), right.clone()]),
        };
        let on = On { scope: whole.clone(), covers, kept: kept.clone() };
        self.condition(&it.quals, level, on);
        let renamed = it.alias.as_ref().is_some_and(|it| !it.colnames.is_empty());
        let Some(facts) = self.level_mut(level) else { return };
        let names = [&it.alias, &it.join_using_alias].into_iter().flatten();
        facts.join_names.extend(names.map(|it| it.aliasname.clone()));
        for kept in kept {
            let nullable = if kept == left { right.clone() } else { left.clone() };
            facts.outer_joins.push(OuterJoin { kept, nullable });
        }
        for column in strings(&it.using_clause) {
            facts.merged.push(Merged { left: left.clone(), right: right.clone(), column: Some(column) });
        }
        if it.is_natural {
            facts.merged.push(Merged { left, right, column: None });
        }
        if renamed {
            facts.relations[whole].iter_mut().for_each(|it| it.renamed = true);
        }
    }

    fn target(&mut self, relation: &Option<RangeVar>, level: usize, write: Write) {
        if let Some(it) = relation {
            self.relation(table_relation(it), level);
        }
        if let Some(level) = self.level_mut(level) {
            level.write = Some(write);
        }
    }

    fn returning(&mut self, clause: &Option<ReturningClause>, level: usize) {
        if let Some(clause) = clause {
            self.walk_all(&clause.exprs, level, Spot::Elsewhere);
        }
    }

    fn insert(&mut self, stmt: &InsertStmt, parent: Option<usize>, role: LevelRole) -> usize {
        let in_sight = self.ctes.len();
        let level = self.push_level(role, parent);
        self.with(&stmt.with_clause, level);
        let columns = (!stmt.cols.is_empty()).then(|| assigned(&stmt.cols));
        let source = match stmt.select_stmt.as_ref().and_then(|it| it.node.as_ref()) {
            None => InsertSource::DefaultValues,
            Some(NodeEnum::SelectStmt(select)) => self.insert_source(select, level),
            Some(_) => {
                self.unknown("an INSERT of a kind that Keyway does not read");
                InsertSource::DefaultValues
            }
        };
        let conflict_assigns = self.on_conflict(&stmt.on_conflict_clause, level);
        let at = stmt.relation.as_ref().map_or(0, |it| it.location as usize);
        self.target(&stmt.relation, level, Write::Insert { columns, at, source, conflict_assigns });
        self.returning(&stmt.returning_clause, level);
        self.ctes.truncate(in_sight);
        level
    }

    fn insert_source(&mut self, select: &SelectStmt, level: usize) -> InsertSource {
        if select.values_lists.is_empty() {
            let parent = self.parent_of(level);
            let source = self.select(select, parent, LevelRole::InsertSource);
            let leaf = matches!(select.op(), SetOperation::SetopNone | SetOperation::Undefined);
            let fields = select.target_list.iter().map(|it| match it.node.as_ref()? {
                NodeEnum::ResTarget(it) => it.val.as_deref(),
                _ => None,
            });
            let fields: Option<Vec<Field>> =
                fields.map(|it| it.filter(|it| !is_star(it)).map(|it| self.field(it))).collect();
            return InsertSource::Query { level: source, fields: fields.filter(|_| leaf) };
        }
        self.with(&select.with_clause, level);
        self.walk_all(&select.values_lists, level, Spot::Elsewhere);
        self.clauses(select, level);
        let rows = select.values_lists.iter().map(|row| match &row.node {
            Some(NodeEnum::List(row)) => row.items.iter().map(|it| self.field(it)).collect(),
            _ => Vec::new(),
        });
        InsertSource::Rows(rows.collect())
    }

    fn on_conflict(&mut self, clause: &Option<Box<OnConflictClause>>, level: usize) -> Vec<String> {
        let Some(clause) = clause else { return Vec::new() };
        if let Some(infer) = &clause.infer {
            self.walk_all(&infer.index_elems, level, Spot::Elsewhere);
            self.walk_some(&infer.where_clause, level, Spot::Elsewhere);
        }
        self.walk_all(&clause.target_list, level, Spot::Elsewhere);
        self.walk_some(&clause.where_clause, level, Spot::Elsewhere);
        assigned(&clause.target_list)
    }

    fn update(&mut self, stmt: &UpdateStmt, parent: Option<usize>, role: LevelRole) -> usize {
        let in_sight = self.ctes.len();
        let level = self.push_level(role, parent);
        self.with(&stmt.with_clause, level);
        self.target(&stmt.relation, level, Write::Update { assigns: assigned(&stmt.target_list) });
        self.read_items(&stmt.from_clause, level);
        let all = On::everything(self.relation_count(level));
        self.condition(&stmt.where_clause, level, all);
        self.walk_all(&stmt.target_list, level, Spot::Elsewhere);
        self.returning(&stmt.returning_clause, level);
        self.ctes.truncate(in_sight);
        level
    }

    fn delete(&mut self, stmt: &DeleteStmt, parent: Option<usize>, role: LevelRole) -> usize {
        let in_sight = self.ctes.len();
        let level = self.push_level(role, parent);
        self.with(&stmt.with_clause, level);
        self.target(&stmt.relation, level, Write::Delete);
        self.read_items(&stmt.using_clause, level);
        let all = On::everything(self.relation_count(level));
        self.condition(&stmt.where_clause, level, all);
        self.returning(&stmt.returning_clause, level);
        self.ctes.truncate(in_sight);
        level
    }

    fn merge(&mut self, stmt: &MergeStmt, parent: Option<usize>, role: LevelRole) -> usize {
        let in_sight = self.ctes.len();
        let level = self.push_level(role, parent);
        self.with(&stmt.with_clause, level);
        self.target(&stmt.relation, level, Write::Merge);
        if let Some(source) = &stmt.source_relation {
            self.read_item(source, level);
        }
        self.walk_some(&stmt.join_condition, level, Spot::Elsewhere);
        for clause in &stmt.merge_when_clauses {
            let Some(NodeEnum::MergeWhenClause(it)) = &clause.node else { continue };
            self.walk_some(&it.condition, level, Spot::Elsewhere);
            self.walk_all(&it.target_list, level, Spot::Elsewhere);
            self.walk_all(&it.values, level, Spot::Elsewhere);
        }
        self.returning(&stmt.returning_clause, level);
        self.ctes.truncate(in_sight);
        level
    }
}

pub(super) fn table_relation(it: &RangeVar) -> Relation {
    let schema = (!it.schemaname.is_empty()).then(|| it.schemaname.clone());
    let table = Table { schema, name: it.relname.clone() };
    let renamed = it.alias.as_ref().is_some_and(|it| !it.colnames.is_empty());
    let name = it.alias.as_ref().map_or_else(|| it.relname.clone(), |it| it.aliasname.clone());
    Relation { name, aliased: it.alias.is_some(), renamed, table: Some(table), level: None }
}

/// The columns that a list of targets assigns.
fn assigned(targets: &[Node]) -> Vec<String> {
    let name = |node: &Node| match node.node.as_ref()? {
        NodeEnum::ResTarget(it) => Some(it.name.clone()),
        _ => None,
    };
    targets.iter().filter_map(name).collect()
}

fn is_star(node: &Node) -> bool {
    match &node.node {
        Some(NodeEnum::ColumnRef(it)) => {
            it.fields.iter().any(|it| matches!(it.node, Some(NodeEnum::AStar(_))))
        }
        _ => false,
    }
}

/// No clause by which a column of it would be computed more or less often than once.
fn has_one_row(stmt: &SelectStmt) -> bool {
    matches!(stmt.op(), SetOperation::SetopNone | SetOperation::Undefined)
        && stmt.from_clause.is_empty()
        && stmt.where_clause.is_none()
        && stmt.group_clause.is_empty()
        && stmt.having_clause.is_none()
        && stmt.limit_count.is_none()
        && stmt.limit_offset.is_none()
        && stmt.values_lists.is_empty()
}
