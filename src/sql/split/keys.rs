//! ORDER BY, GROUP BY and DISTINCT: names and positions of the select list resolved as PostgreSQL does
//! (`findTargetlistEntrySQL92` in parse_clause.c), and constants by their places.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, AExpr, AExprKind, Node, ResTarget, SelectStmt, SortBy, SortByDir, SortByNulls, TypeCast,
    TypeName, a_const,
};

use super::super::expression::{column, is_by_bytes, strings};
use super::super::facts::{Column, Value};
use super::{NotSplit, Result, SplitDistinct, Splitter, print_expression, sentinel};

/// One expression of ORDER BY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitKey {
    pub descending: bool,
    pub nulls_first: bool,
    /// COLLATE "C" is written.
    pub by_bytes: bool,
    /// The column of the result that it is, where that is known: of set operations always.
    pub column: Option<usize>,
}

/// A key with its expression.
pub(super) struct Key {
    pub key: SplitKey,
    pub node: Node,
}

/// A constant or parameter; a sentinel says which literal.
pub(super) fn constant(node: &Node) -> Option<Value> {
    match node.node.as_ref()? {
        NodeEnum::AConst(it) => literal(it),
        NodeEnum::ParamRef(it) => Some(Value::Param { number: u16::try_from(it.number).ok()?, cast: None }),
        NodeEnum::TypeCast(it) => {
            let integer = it.type_name.as_ref().and_then(plain_type);
            let is_integer = integer.is_some_and(|it| matches!(it.as_str(), "int2" | "int4" | "int8"));
            constant(it.arg.as_deref()?).filter(|_| is_integer)
        }
        _ => None,
    }
}

/// The grammar's own 1, which no literal of the text stands for.
pub(super) fn is_one(node: &Node) -> bool {
    let Some(NodeEnum::AConst(AConst { val: Some(a_const::Val::Ival(it)), .. })) = &node.node else {
        return false;
    };
    it.ival == 1
}

fn literal(it: &AConst) -> Option<Value> {
    if it.isnull {
        return Some(Value::Null);
    }
    let (index, negative) = literal_index(it)?;
    Some(Value::Literal { index, negative, cast: None })
}

/// Which literal of the text a constant is, and whether the grammar has folded a minus sign into it.
pub(super) fn literal_index(it: &AConst) -> Option<(u32, bool)> {
    match it.val.as_ref()? {
        a_const::Val::Ival(it) => Some((sentinel::of_integer(it.ival.unsigned_abs())?, it.ival < 0)),
        a_const::Val::Fval(it) => {
            let digits = it.fval.strip_prefix('-');
            Some((sentinel::of_float(digits.unwrap_or(&it.fval))?, digits.is_some()))
        }
        a_const::Val::Sval(it) => Some((sentinel::of_string(&it.sval)?, false)),
        _ => None,
    }
}

pub(super) fn plain_type(name: &TypeName) -> Option<String> {
    let mut names = strings(&name.names);
    let last = names.pop()?;
    let built_in = names.is_empty() || names == ["pg_catalog"];
    (built_in && name.array_bounds.is_empty() && !name.setof && !name.pct_type).then_some(last)
}

/// `(a)::bigint + (b)::bigint`
pub(super) fn sum_of_bigints(a: Node, b: Node) -> Node {
    let name =
        |it: &str| Node { node: Some(NodeEnum::String(pg_query::protobuf::String { sval: it.to_owned() })) };
    let bigint = |it: Node| {
        let type_name =
            TypeName { names: vec![name("pg_catalog"), name("int8")], typemod: -1, ..TypeName::default() };
        let cast = TypeCast { arg: Some(Box::new(it)), type_name: Some(type_name), location: 0 };
        Some(Box::new(Node { node: Some(NodeEnum::TypeCast(Box::new(cast))) }))
    };
    let sum = AExpr {
        kind: AExprKind::AexprOp as i32,
        name: vec![name("+")],
        lexpr: bigint(a),
        rexpr: bigint(b),
        ..AExpr::default()
    };
    Node { node: Some(NodeEnum::AExpr(Box::new(sum))) }
}

impl Splitter<'_> {
    pub(super) fn sort_keys(&mut self, select: &SelectStmt) -> Result<Vec<Key>> {
        select.sort_clause.iter().map(|it| self.sort_key(select, it)).collect()
    }

    fn sort_key(&mut self, select: &SelectStmt, node: &Node) -> Result<Key> {
        let unread = || NotSplit::new("ORDER BY of this form");
        let Some(NodeEnum::SortBy(sort)) = &node.node else { return Err(unread()) };
        let SortBy { node: Some(expression), .. } = &**sort else { return Err(unread()) };
        let descending = match sort.sortby_dir() {
            SortByDir::SortbyUsing => return Err(NotSplit::new("ORDER BY ... USING")),
            it => it == SortByDir::SortbyDesc,
        };
        let nulls_first = match sort.sortby_nulls() {
            SortByNulls::SortbyNullsFirst => true,
            SortByNulls::SortbyNullsLast => false,
            _ => descending,
        };
        let (column, node) = self.resolved(select, expression, true)?;
        let by_bytes = collated_by_bytes(&node);
        Ok(Key { key: SplitKey { descending, nulls_first, by_bytes, column }, node })
    }

    pub(super) fn group_keys(&mut self, select: &SelectStmt) -> Result<Vec<Node>> {
        let mut keys = Vec::new();
        for node in &select.group_clause {
            if let Some(NodeEnum::GroupingSet(_)) = &node.node {
                return Err(NotSplit::new("GROUPING SETS, ROLLUP or CUBE"));
            }
            keys.push(self.resolved(select, node, false)?.1);
        }
        Ok(keys)
    }

    /// Not those by an output's name, which may be a column's too.
    pub(super) fn group_columns(&mut self, select: &SelectStmt) -> Vec<Column> {
        let mut columns = Vec::new();
        for node in &select.group_clause {
            let before = self.not_columns.len();
            let resolved = self.resolved(select, node, false);
            if self.not_columns.len() == before {
                columns.extend(resolved.ok().and_then(|it| column(&it.1)));
            }
            self.not_columns.truncate(before);
        }
        columns
    }

    /// What a name or position stands for. In ORDER BY a name is an output's before it is a column's, in
    /// GROUP BY the other way round: which only the catalog tells (`Split::not_columns`).
    fn resolved(&mut self, select: &SelectStmt, node: &Node, sort: bool) -> Result<(Option<usize>, Node)> {
        let clause = if sort { "ORDER BY" } else { "GROUP BY" };
        if let Some(NodeEnum::AConst(it)) = &node.node {
            let position =
                self.position(it).ok_or_else(|| NotSplit::new(format!("a constant in {clause}")))?;
            let index =
                position.checked_sub(1).ok_or_else(|| NotSplit::new(format!("position 0 in {clause}")))?;
            if select.op() != pg_query::protobuf::SetOperation::SetopNone {
                return Ok((Some(index), node.clone()));
            }
            let starred = select.target_list.iter().take(index + 1).any(is_star);
            let found = select.target_list.get(index).and_then(output).filter(|_| !starred);
            let found = found.ok_or_else(|| NotSplit::new(format!("a position behind * in {clause}")))?;
            return Ok((Some(index), found.1));
        }
        let name = column(node).filter(|it| it.qualifiers.is_empty()).map(|it| it.name);
        let Some(name) = name else { return Ok((None, node.clone())) };
        let outputs = leftmost(select);
        let named = |it: &(usize, &Node)| output(it.1).is_some_and(|it| it.0 == name);
        let mut matching = outputs.iter().enumerate().filter(named);
        let Some((index, found)) = matching.next() else { return Ok((None, node.clone())) };
        let Some((_, value)) = output(found) else { return Ok((None, node.clone())) };
        let is_itself = column(&value).is_some_and(|it| it.name == name);
        if is_itself {
            let starred = outputs.iter().take(index + 1).any(is_star);
            return Ok(((!starred).then_some(index), value));
        }
        if !sort {
            self.not_columns.push(name);
            return Ok((Some(index), value));
        }
        if outputs.iter().any(is_star) {
            return Err(NotSplit::new(format!("{clause} of a name that * may have too")));
        }
        Ok((Some(index), value))
    }

    /// Of ORDER BY 2. Its value is looked at.
    fn position(&mut self, it: &AConst) -> Option<usize> {
        let (index, negative) = literal_index(it)?;
        let literal = self.literals.get(index as usize)?;
        self.fixed.push(index);
        let position = literal.value(self.text)?.parse().ok()?;
        (!negative).then_some(position)
    }

    /// Of a set operation, whose ORDER BY names outputs of its first arm.
    pub(super) fn by_position(&mut self, select: &SelectStmt, keys: Vec<Key>) -> Result<Vec<SplitKey>> {
        let starred = leftmost(select).iter().any(is_star);
        let column = |it: Key| match it.key.column {
            Some(_) if !starred => Ok(it.key),
            _ => Err(NotSplit::new("ORDER BY of a set operation by a column that is not listed")),
        };
        keys.into_iter().map(column).collect()
    }

    pub(super) fn distinct(
        &mut self,
        select: &SelectStmt,
        sort: &[Key],
        whole: &mut SelectStmt,
    ) -> Result<SplitDistinct> {
        let mut on = Vec::new();
        for node in select.distinct_clause.iter().filter(|it| it.node.is_some()) {
            on.push(self.resolved(select, node, true)?.1);
        }
        match (select.distinct_clause.is_empty(), on.is_empty()) {
            (true, _) if super::set_operation(select) == Some(super::SplitSet::Union) => {
                return Ok(SplitDistinct::Rows);
            }
            (true, _) => return Ok(SplitDistinct::No),
            (false, true) => return Ok(SplitDistinct::Rows),
            _ => {}
        }
        // Each must lead the order, in any order among themselves.
        let mut wanted = Vec::new();
        for node in &on {
            wanted.push(self.written(node)?);
        }
        wanted.sort();
        wanted.dedup();
        let mut leading = Vec::new();
        for key in sort.iter().take(wanted.len()) {
            leading.push(self.written(&key.node)?);
        }
        leading.sort();
        leading.dedup();
        if leading != wanted {
            return Err(NotSplit::new("DISTINCT ON without ORDER BY of the same expressions"));
        }
        // As written: the shards see the same names.
        whole.distinct_clause.clone_from(&select.distinct_clause);
        Ok(SplitDistinct::On(wanted.len()))
    }

    /// To tell whether two expressions are the same, whose literals are then fixed.
    fn written(&mut self, node: &Node) -> Result<String> {
        let template = print_expression(node)?;
        self.fixed.extend(template.literals());
        Ok(template.written(self.text, self.literals))
    }
}

/// The select list that names the outputs.
fn leftmost(select: &SelectStmt) -> &[Node] {
    match &select.larg {
        Some(left) => leftmost(left),
        None => &select.target_list,
    }
}

/// An output's name as far as it is written, and its expression.
fn output(node: &Node) -> Option<(String, Node)> {
    let Some(NodeEnum::ResTarget(it)) = &node.node else { return None };
    let ResTarget { name, val: Some(value), .. } = &**it else { return None };
    let name =
        if name.is_empty() { column(value).map(|it| it.name).unwrap_or_default() } else { name.clone() };
    Some((name, (**value).clone()))
}

pub(super) fn is_star(node: &Node) -> bool {
    let Some(NodeEnum::ResTarget(it)) = &node.node else { return false };
    match it.val.as_ref().and_then(|it| it.node.as_ref()) {
        Some(NodeEnum::ColumnRef(it)) => {
            it.fields.iter().any(|it| matches!(it.node, Some(NodeEnum::AStar(_))))
        }
        _ => false,
    }
}

fn collated_by_bytes(node: &Node) -> bool {
    let Some(NodeEnum::CollateClause(it)) = &node.node else { return false };
    is_by_bytes(it)
}
