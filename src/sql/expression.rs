//! Expressions: which constants are compared with which columns, which functions are called, which
//! queries stand inside. A node that is not known here makes the whole statement unknown.

use std::ops::Range;

use pg_query::protobuf::{
    AConst, AExpr, AExprKind, BoolExprType, CollateClause, ColumnRef, FuncCall, Node, SubLinkType, TypeCast,
    TypeName, WindowDef, a_const,
};
use pg_query::{NodeEnum, NodeRef};

use super::facts::{Call, Clause, Column, Condition, EndValue, Equality, Field, LevelRole, Predicate, Value};
use super::functions::built_in;
use super::lexer::Lexer;
use super::query::Reader;
use super::scan::LiteralKind;

/// Where an expression stands: only a select list may hold the aggregates of its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    SelectList,
    Elsewhere,
}

/// What a condition can name, what it restricts, and the sides that an outer join keeps where it is
/// false.
pub(super) struct On {
    pub scope: Range<usize>,
    pub covers: Range<usize>,
    pub kept: Vec<Range<usize>>,
}

impl On {
    /// WHERE restricts everything in front of it.
    pub fn everything(relations: usize) -> On {
        On { scope: 0..relations, covers: 0..relations, kept: Vec::new() }
    }
}

impl Reader<'_> {
    pub(super) fn walk_all(&mut self, nodes: &[Node], level: usize, spot: Spot) {
        nodes.iter().for_each(|it| self.walk(it, level, spot));
    }

    pub(super) fn walk_some(&mut self, node: &Option<Box<Node>>, level: usize, spot: Spot) {
        if let Some(node) = node {
            self.walk(node, level, spot);
        }
    }

    /// Notes calls and subqueries of any expression that the grammar makes.
    pub(super) fn walk(&mut self, node: &Node, level: usize, spot: Spot) {
        let Some(node) = &node.node else { return };
        match node {
            NodeEnum::ColumnRef(_)
            | NodeEnum::ParamRef(_)
            | NodeEnum::AConst(_)
            | NodeEnum::AStar(_)
            | NodeEnum::SetToDefault(_)
            | NodeEnum::CurrentOfExpr(_)
            | NodeEnum::MergeSupportFunc(_)
            | NodeEnum::String(_)
            | NodeEnum::Integer(_)
            | NodeEnum::TypeName(_) => {}
            NodeEnum::SqlvalueFunction(_) => self.statement.asks_session_value = true,
            NodeEnum::AExpr(it) => {
                self.walk_some(&it.lexpr, level, spot);
                self.walk_some(&it.rexpr, level, spot);
            }
            NodeEnum::BoolExpr(it) => self.walk_all(&it.args, level, spot),
            NodeEnum::TypeCast(it) => self.walk_some(&it.arg, level, spot),
            NodeEnum::FuncCall(it) => self.call(it, level, spot),
            NodeEnum::SubLink(it) => {
                self.walk_some(&it.testexpr, level, spot);
                let inner = self.inner_query(&it.subselect, Some(level), LevelRole::Sublink);
                let operator = strings(&it.oper_name);
                let is_in = it.sub_link_type() == SubLinkType::AnySublink
                    && (operator.is_empty() || operator == ["="]);
                let member = it.testexpr.as_deref().and_then(column).filter(|_| is_in);
                if let Some(inner) = inner.and_then(|it| self.level_mut(it)) {
                    inner.member = member;
                }
            }
            NodeEnum::List(it) => self.walk_all(&it.items, level, spot),
            NodeEnum::RowExpr(it) => self.walk_all(&it.args, level, spot),
            NodeEnum::AArrayExpr(it) => self.walk_all(&it.elements, level, spot),
            NodeEnum::CoalesceExpr(it) => self.walk_all(&it.args, level, spot),
            NodeEnum::MinMaxExpr(it) => self.walk_all(&it.args, level, spot),
            NodeEnum::NullTest(it) => self.walk_some(&it.arg, level, spot),
            NodeEnum::BooleanTest(it) => self.walk_some(&it.arg, level, spot),
            NodeEnum::CollateClause(it) => {
                self.statement.collates |= !is_by_bytes(it);
                self.walk_some(&it.arg, level, spot);
            }
            NodeEnum::NamedArgExpr(it) => self.walk_some(&it.arg, level, spot),
            other => self.walk_rarer(other, level, spot),
        }
    }

    fn walk_rarer(&mut self, node: &NodeEnum, level: usize, spot: Spot) {
        match node {
            NodeEnum::CaseExpr(it) => {
                self.walk_some(&it.arg, level, spot);
                self.walk_all(&it.args, level, spot);
                self.walk_some(&it.defresult, level, spot);
            }
            NodeEnum::CaseWhen(it) => {
                self.walk_some(&it.expr, level, spot);
                self.walk_some(&it.result, level, spot);
            }
            NodeEnum::AIndirection(it) => {
                self.walk_some(&it.arg, level, spot);
                self.walk_all(&it.indirection, level, spot);
            }
            NodeEnum::AIndices(it) => {
                self.walk_some(&it.lidx, level, spot);
                self.walk_some(&it.uidx, level, spot);
            }
            NodeEnum::ResTarget(it) => {
                self.walk_all(&it.indirection, level, spot);
                self.walk_some(&it.val, level, spot);
            }
            NodeEnum::MultiAssignRef(it) => self.walk_some(&it.source, level, spot),
            NodeEnum::SortBy(it) => self.walk_some(&it.node, level, spot),
            NodeEnum::WindowDef(it) => self.window(it, level, spot),
            NodeEnum::GroupingSet(it) => self.walk_all(&it.content, level, spot),
            NodeEnum::GroupingFunc(it) => self.walk_all(&it.args, level, spot),
            NodeEnum::XmlExpr(it) => {
                self.walk_all(&it.named_args, level, spot);
                self.walk_all(&it.args, level, spot);
            }
            NodeEnum::XmlSerialize(it) => self.walk_some(&it.expr, level, spot),
            NodeEnum::IndexElem(it) => self.walk_some(&it.expr, level, spot),
            NodeEnum::DefElem(it) => self.walk_some(&it.arg, level, spot),
            _ => self.unknown("an expression of a kind that Keyway does not read"),
        }
    }

    fn window(&mut self, window: &WindowDef, level: usize, spot: Spot) {
        self.walk_all(&window.partition_clause, level, spot);
        self.walk_all(&window.order_clause, level, spot);
        self.walk_some(&window.start_offset, level, spot);
        self.walk_some(&window.end_offset, level, spot);
    }

    fn call(&mut self, call: &FuncCall, level: usize, spot: Spot) {
        let mut names = strings(&call.funcname);
        let name = names.pop().unwrap_or_default();
        let schema = names.pop().filter(|it| it != "pg_catalog");
        let known = if schema.is_none() { built_in(&name) } else { None };
        if let Some(window) = &call.over {
            self.clause(level, Clause::WindowFunction);
            let columns = window.partition_clause.iter().filter_map(column).collect();
            if let Some(level) = self.level_mut(level) {
                level.partitions.push(columns);
            }
            self.window(window, level, spot);
        } else if aggregates(call) || known.is_some_and(|it| it.aggregate) {
            self.clause(level, Clause::Aggregate);
        } else if known.is_none() && spot == Spot::SelectList {
            self.clause(level, Clause::UnknownFunction(name.clone()));
        }
        let ends_in_true = call.args.last().is_some_and(|it| boolean(it) == Some(true));
        self.statement.calls.push(Call { schema, name, ends_in_true });
        self.walk_all(&call.args, level, spot);
        self.walk_all(&call.agg_order, level, spot);
        self.walk_some(&call.agg_filter, level, spot);
    }

    /// Takes the conjuncts of WHERE or ON apart: equalities of columns, and a condition for the
    /// relations in `on.covers`.
    pub(super) fn condition(&mut self, node: &Option<Box<Node>>, level: usize, on: On) {
        let Some(node) = node else { return };
        self.walk(node, level, Spot::Elsewhere);
        let mut equalities = Vec::new();
        column_equalities(node, &mut equalities);
        let predicate = self.predicate(node);
        let Some(level) = self.level_mut(level) else { return };
        let On { covers, kept, scope } = on;
        let equality = |columns| Equality { columns, kept: kept.clone(), scope: scope.clone() };
        level.equalities.extend(equalities.into_iter().map(equality));
        if !covers.is_empty() && !matches!(predicate, Predicate::Unknown) {
            level.conditions.push(Condition { predicate, covers, scope });
        }
    }

    fn predicate(&self, node: &Node) -> Predicate {
        match &node.node {
            Some(NodeEnum::BoolExpr(it)) => {
                let parts = || it.args.iter().map(|it| self.predicate(it)).collect();
                match it.boolop() {
                    BoolExprType::AndExpr => Predicate::And(parts()),
                    BoolExprType::OrExpr => Predicate::Or(parts()),
                    _ => Predicate::Unknown,
                }
            }
            Some(NodeEnum::AExpr(it)) => self.comparison(it).unwrap_or(Predicate::Unknown),
            Some(NodeEnum::AConst(_)) if boolean(node) == Some(false) => Predicate::Never,
            _ => Predicate::Unknown,
        }
    }

    fn comparison(&self, it: &AExpr) -> Option<Predicate> {
        let (left, right) = (it.lexpr.as_deref()?, it.rexpr.as_deref()?);
        match it.kind() {
            AExprKind::AexprOp => match operator(it)? {
                "=" => self.equals(left, right),
                other => self.interval(left, other, right),
            },
            AExprKind::AexprIn if operator(it)? == "=" => self.in_list(left, items(right)?),
            AExprKind::AexprOpAny if operator(it)? == "=" => self.any_of(left, right),
            AExprKind::AexprNotDistinct => {
                let (name, constant) = self.sides(left, right)?;
                Some(Predicate::Same(name, self.value(constant)?))
            }
            AExprKind::AexprBetween => {
                let [from, to] = items(right)? else { return None };
                let end = |it| Some(EndValue { value: self.value(it)?, inclusive: true });
                let (from, to) = (end(from), end(to));
                let some = from.is_some() || to.is_some();
                some.then_some(Predicate::Between { column: column(left)?, from, to })
            }
            _ => None,
        }
    }

    fn equals(&self, left: &Node, right: &Node) -> Option<Predicate> {
        match (row(left), row(right)) {
            (Some(columns), Some(values)) if columns.len() == values.len() => {
                let pairs = columns.iter().zip(values);
                let parts = pairs.map(|(a, b)| self.equal(a, b).unwrap_or(Predicate::Unknown));
                Some(Predicate::And(parts.collect()))
            }
            _ => self.equal(left, right),
        }
    }

    /// `column < value`, or the other way round.
    fn interval(&self, left: &Node, operator: &str, right: &Node) -> Option<Predicate> {
        let (column, constant) = self.sides(left, right)?;
        let flipped = std::ptr::eq(constant, left);
        let inclusive = operator.ends_with('=');
        let end = Some(EndValue { value: self.value(constant)?, inclusive });
        match (operator, flipped) {
            ("<" | "<=", false) | (">" | ">=", true) => {
                Some(Predicate::Between { column, from: None, to: end })
            }
            (">" | ">=", false) | ("<" | "<=", true) => {
                Some(Predicate::Between { column, from: end, to: None })
            }
            _ => None,
        }
    }

    fn any_of(&self, left: &Node, right: &Node) -> Option<Predicate> {
        match right.node.as_ref()? {
            NodeEnum::AArrayExpr(array) => self.in_list(left, &array.elements),
            NodeEnum::TypeCast(it) => match (&it.arg.as_ref()?.node, array_type(it.type_name.as_ref()?)) {
                (Some(NodeEnum::AArrayExpr(array)), Some(element)) => {
                    let values = array.elements.iter().map(|it| self.element(it, &element));
                    Some(Predicate::Equal(column(left)?, values.collect::<Option<_>>()?))
                }
                _ => self.array(left, right),
            },
            _ => self.array(left, right),
        }
    }

    fn array(&self, left: &Node, right: &Node) -> Option<Predicate> {
        match self.value(right)? {
            Value::Literal { index, .. } if self.is_number(index) => None,
            Value::Bool(_) | Value::Null => None,
            array => Some(Predicate::EqualAny(column(left)?, array)),
        }
    }

    /// An element of `ARRAY[...]::type[]`, which is cast to the type.
    fn element(&self, node: &Node, to: &str) -> Option<Value> {
        self.cast(self.value(node)?, to.into())
    }

    fn equal(&self, left: &Node, right: &Node) -> Option<Predicate> {
        let (name, constant) = self.sides(left, right)?;
        Some(Predicate::Equal(name, vec![self.value(constant)?]))
    }

    /// The side that is a column, and the one that is not.
    fn sides<'n>(&self, left: &'n Node, right: &'n Node) -> Option<(Column, &'n Node)> {
        match (column(left), column(right)) {
            (Some(name), None) => Some((name, right)),
            (None, Some(name)) => Some((name, left)),
            _ => None,
        }
    }

    fn in_list(&self, left: &Node, list: &[Node]) -> Option<Predicate> {
        if let Some(name) = column(left) {
            let values: Option<Vec<Value>> = list.iter().map(|it| self.value(it)).collect();
            return Some(Predicate::Equal(name, values?));
        }
        // `(a, b) IN ((1, 2), (3, 4))`
        let columns = row(left)?;
        let of_row = |values: &Node| -> Option<Predicate> {
            let values = row(values).filter(|it| it.len() == columns.len())?;
            let pairs = columns.iter().zip(values);
            let parts = pairs.map(|(a, b)| self.equal(a, b).unwrap_or(Predicate::Unknown));
            Some(Predicate::And(parts.collect()))
        };
        list.iter().map(of_row).collect::<Option<_>>().map(Predicate::Or)
    }

    /// A constant that is the same for the whole statement and known before it runs.
    pub(super) fn value(&self, node: &Node) -> Option<Value> {
        match node.node.as_ref()? {
            NodeEnum::AConst(it) => self.constant(it),
            NodeEnum::ParamRef(it) => {
                Some(Value::Param { number: u16::try_from(it.number).ok()?, cast: None })
            }
            NodeEnum::TypeCast(it) => self.cast_value(it),
            NodeEnum::AExpr(it) => {
                let minus =
                    it.kind() == AExprKind::AexprOp && it.lexpr.is_none() && strings(&it.name) == ["-"];
                match (minus, self.value(it.rexpr.as_deref()?)?) {
                    (true, Value::Literal { index, negative, cast }) if self.is_number(index) => {
                        Some(Value::Literal { index, negative: !negative, cast })
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn constant(&self, it: &AConst) -> Option<Value> {
        if it.isnull {
            return Some(Value::Null);
        }
        match it.val.as_ref()? {
            a_const::Val::Ival(_) | a_const::Val::Fval(_) | a_const::Val::Sval(_) => {}
            a_const::Val::Boolval(it) => return Some(Value::Bool(it.boolval)),
            a_const::Val::Bsval(_) => return None,
        }
        let (index, negative) = self.literal_at(it.location)?;
        Some(Value::Literal { index, negative, cast: None })
    }

    /// The literal that a constant of the tree was read from, and its sign. A constant whose place is no
    /// literal's is a keyword. The grammar folds `-7` into one constant that stands where the sign does;
    /// the signs are counted in the text, for a plan made for `-0` must hold for `-7` too.
    fn literal_at(&self, location: i32) -> Option<(u32, bool)> {
        let location = u32::try_from(location).ok()?;
        let index = self.literals.partition_point(|it| it.start < location);
        let literal = self.literals.get(index)?;
        let between = self.text.as_bytes().get(location as usize..literal.start as usize)?;
        let mut lexer = Lexer::new(between);
        let mut negative = false;
        while let Some(token) = lexer.token().ok()? {
            match &between[token.start..token.end] {
                b"-" => negative = !negative,
                b"(" => {}
                _ => return None,
            }
        }
        let number = matches!(literal.kind, LiteralKind::Integer | LiteralKind::Float);
        (number || literal.start == location).then_some((index as u32, negative))
    }

    fn is_number(&self, index: u32) -> bool {
        let kind = self.literals.get(index as usize).map(|it| it.kind);
        matches!(kind, Some(LiteralKind::Integer | LiteralKind::Float))
    }

    fn cast_value(&self, it: &TypeCast) -> Option<Value> {
        let name = it.type_name.as_ref()?;
        let to: Box<str> = match plain_type(name) {
            Some(to) => to.into(),
            None => format!("_{}", array_type(name)?).into(),
        };
        self.cast(self.value(it.arg.as_deref()?)?, to)
    }

    fn cast(&self, value: Value, to: Box<str>) -> Option<Value> {
        match value {
            Value::Literal { index, negative, cast: None } => {
                // `7::text` is a text of other digits for `007`, and `7.6::int` is 8.
                let as_written = match self.literals.get(index as usize)?.kind {
                    LiteralKind::Integer => matches!(&*to, "int2" | "int4" | "int8" | "numeric"),
                    LiteralKind::Float => &*to == "numeric",
                    _ => true,
                };
                as_written.then_some(Value::Literal { index, negative, cast: Some(to) })
            }
            Value::Param { number, cast: None } => Some(Value::Param { number, cast: Some(to) }),
            Value::Bool(it) if &*to == "bool" => Some(Value::Bool(it)),
            Value::Null => Some(Value::Null),
            _ => None,
        }
    }

    pub(super) fn field(&self, node: &Node) -> Field {
        if matches!(node.node, Some(NodeEnum::SetToDefault(_))) {
            return Field::Default;
        }
        match (self.value(node), column(node)) {
            (Some(value), _) => Field::Value(value),
            (None, Some(name)) => Field::Column(name),
            (None, None) => Field::Expression,
        }
    }
}

/// Only an aggregate takes these.
fn aggregates(call: &FuncCall) -> bool {
    call.agg_star
        || call.agg_distinct
        || call.agg_within_group
        || call.agg_filter.is_some()
        || !call.agg_order.is_empty()
}

/// The name of an operator of PostgreSQL's own.
fn operator(it: &AExpr) -> Option<&str> {
    fn name(node: &Node) -> Option<&str> {
        match &node.node {
            Some(NodeEnum::String(it)) => Some(&it.sval),
            _ => None,
        }
    }
    match &it.name[..] {
        [operator] => name(operator),
        [schema, operator] if name(schema) == Some("pg_catalog") => name(operator),
        _ => None,
    }
}

fn is_equals(it: &AExpr) -> bool {
    operator(it) == Some("=")
}

/// `a.x = b.y` among the conjuncts, rows of columns taken apart.
fn column_equalities(node: &Node, found: &mut Vec<(Column, Column)>) {
    match &node.node {
        Some(NodeEnum::BoolExpr(it)) if it.boolop() == BoolExprType::AndExpr => {
            it.args.iter().for_each(|it| column_equalities(it, found));
        }
        Some(NodeEnum::AExpr(it)) if it.kind() == AExprKind::AexprOp && is_equals(it) => {
            let (Some(left), Some(right)) = (it.lexpr.as_deref(), it.rexpr.as_deref()) else { return };
            let pairs = match (row(left), row(right)) {
                (Some(left), Some(right)) if left.len() == right.len() => left.iter().zip(right).collect(),
                _ => vec![(left, right)],
            };
            found.extend(pairs.into_iter().filter_map(|(a, b)| column(a).zip(column(b))));
        }
        _ => {}
    }
}

fn items(node: &Node) -> Option<&[Node]> {
    match node.node.as_ref()? {
        NodeEnum::List(it) => Some(&it.items),
        _ => None,
    }
}

fn row(node: &Node) -> Option<&[Node]> {
    match node.node.as_ref()? {
        NodeEnum::RowExpr(it) => Some(&it.args),
        _ => None,
    }
}

/// A plain column with at most schema and table in front.
pub(super) fn column(node: &Node) -> Option<Column> {
    let NodeEnum::ColumnRef(ColumnRef { fields, .. }) = node.node.as_ref()? else { return None };
    let mut names = strings(fields);
    if names.len() != fields.len() || names.len() > 3 {
        return None;
    }
    let name = names.pop()?;
    Some(Column { qualifiers: names, name })
}

/// TRUE and FALSE, which are keywords and so part of the fingerprint.
pub(super) fn boolean(node: &Node) -> Option<bool> {
    match node.node.as_ref()? {
        NodeEnum::AConst(AConst { val: Some(a_const::Val::Boolval(it)), .. }) => Some(it.boolval),
        NodeEnum::Boolean(it) => Some(it.boolval),
        _ => None,
    }
}

/// A type's name in `pg_catalog`, if it is written without modifiers and array bounds.
fn plain_type(name: &TypeName) -> Option<String> {
    let plain = name.typmods.is_empty() && name.array_bounds.is_empty() && !name.setof && !name.pct_type;
    let mut names = strings(&name.names);
    let last = names.pop()?;
    let built_in = names.is_empty() || names == ["pg_catalog"];
    (plain && built_in).then_some(last)
}

/// The name of the elements' type of a one-dimensional array type without modifiers.
fn array_type(name: &TypeName) -> Option<String> {
    let [_] = &name.array_bounds[..] else { return None };
    plain_type(&TypeName { array_bounds: Vec::new(), ..name.clone() })
}

/// The strings of a list of names; other nodes, such as a star, are left out.
pub(super) fn strings(nodes: &[Node]) -> Vec<String> {
    let text = |node: &Node| match node.node.as_ref()?.to_ref() {
        NodeRef::String(it) => Some(it.sval.clone()),
        _ => None,
    };
    nodes.iter().filter_map(text).collect()
}

/// One of PostgreSQL's own collations that compare bytes.
pub(super) fn is_by_bytes(it: &CollateClause) -> bool {
    let names = strings(&it.collname);
    let (name, schema) = match &names[..] {
        [name] => (name, "pg_catalog"),
        [schema, name] => (name, schema.as_str()),
        _ => return false,
    };
    schema == "pg_catalog" && matches!(name.as_str(), "C" | "POSIX" | "ucs_basic")
}
