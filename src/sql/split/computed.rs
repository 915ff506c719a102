//! What a grouped SELECT computes of its groups: expressions over group keys and aggregates.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AExpr, AExprKind, BoolExprType, BoolTestType, CaseExpr, FuncCall, MinMaxOp, Node, NullTestType,
    SortByDir, SortByNulls, TypeName, a_const,
};

use super::super::expression::{column, strings};
use super::super::functions::built_in;
use super::super::scan::Literal;
use super::keys::{literal_index, plain_type};
use super::{NotSplit, Result, Template, print_expression};

/// An expression over a row of group keys and aggregates. Types are for `route`, which knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Computed {
    /// The nth group key.
    Key(usize),
    Aggregate(usize),
    Literal {
        index: u32,
        negative: bool,
    },
    Param(u16),
    Null,
    Bool(bool),
    /// Of arithmetic, comparison and `||`; a sign has no left side.
    Operator(String, Option<Box<Computed>>, Box<Computed>),
    And(Vec<Computed>),
    Or(Vec<Computed>),
    Not(Box<Computed>),
    IsNull(Box<Computed>),
    /// IS [NOT] DISTINCT FROM.
    Distinct(bool, Box<Computed>, Box<Computed>),
    /// CASE WHEN; one with an operand is written with `=`.
    Case(Vec<(Computed, Computed)>, Option<Box<Computed>>),
    Coalesce(Vec<Computed>),
    NullIf(Box<Computed>, Box<Computed>),
    Greatest(Vec<Computed>),
    Least(Vec<Computed>),
    /// A type's name in `pg_catalog`, and its modifiers as literals of the text.
    Cast(Box<Computed>, String, Vec<u32>),
    Call(String, Vec<Computed>),
}

/// An aggregate call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitAggregate {
    pub name: String,
    /// `None` for `count(*)`.
    pub argument: Option<Template>,
    pub distinct: bool,
    pub filter: Option<Template>,
    /// ORDER BY inside of it: expression, descending, NULLs first.
    pub order: Vec<(Template, bool, bool)>,
    /// Of string_agg.
    pub delimiter: Option<Computed>,
}

pub(super) struct Grouper<'a> {
    text: &'a str,
    literals: &'a [Literal],
    keys: Vec<Template>,
    /// As written, to find them again in other expressions.
    written: Vec<String>,
    aggregates: Vec<(String, SplitAggregate)>,
    fixed: Vec<u32>,
}

impl<'a> Grouper<'a> {
    pub fn new(text: &'a str, literals: &'a [Literal], nodes: Vec<Node>) -> Result<Grouper<'a>> {
        let mut grouper = Grouper {
            text,
            literals,
            keys: Vec::new(),
            written: Vec::new(),
            aggregates: Vec::new(),
            fixed: Vec::new(),
        };
        for node in nodes {
            grouper.key(&node)?;
        }
        Ok(grouper)
    }

    /// Keys, aggregates, and the literals whose values were looked at.
    pub fn finish(self) -> (Vec<Template>, Vec<SplitAggregate>, Vec<u32>) {
        (self.keys, self.aggregates.into_iter().map(|it| it.1).collect(), self.fixed)
    }

    fn key(&mut self, node: &Node) -> Result<usize> {
        let (template, written) = self.print(node)?;
        if let Some(known) = self.written.iter().position(|it| *it == written) {
            return Ok(known);
        }
        self.keys.push(template);
        self.written.push(written);
        Ok(self.keys.len() - 1)
    }

    fn print(&mut self, node: &Node) -> Result<(Template, String)> {
        let template = print_expression(node)?;
        self.fixed.extend(template.literals());
        let written = template.written(self.text, self.literals);
        Ok((template, written))
    }

    pub fn computed(&mut self, node: &Node) -> Result<Computed> {
        let inner = node.node.as_ref().ok_or_else(|| NotSplit::new("an empty expression"))?;
        match inner {
            NodeEnum::AConst(it) if it.isnull => return Ok(Computed::Null),
            NodeEnum::AConst(it) => {
                if let Some(a_const::Val::Boolval(it)) = &it.val {
                    return Ok(Computed::Bool(it.boolval));
                }
                let (index, negative) =
                    literal_index(it).ok_or_else(|| NotSplit::new("a constant of this form"))?;
                return Ok(Computed::Literal { index, negative });
            }
            NodeEnum::ParamRef(it) => return Ok(Computed::Param(it.number as u16)),
            NodeEnum::FuncCall(it) if is_aggregate(it) => return self.aggregate(it).map(Computed::Aggregate),
            _ => {}
        }
        let (_, written) = self.print(node)?;
        if let Some(known) = self.written.iter().position(|it| *it == written) {
            return Ok(Computed::Key(known));
        }
        // A column that is not grouped by is one that the grouped ones determine: PostgreSQL has checked that.
        if column(node).is_some() {
            return self.key(node).map(Computed::Key);
        }
        self.composed(inner)
    }

    fn all(&mut self, nodes: &[Node]) -> Result<Vec<Computed>> {
        nodes.iter().map(|it| self.computed(it)).collect()
    }

    fn some(&mut self, node: &Option<Box<Node>>) -> Result<Computed> {
        self.computed(node.as_ref().ok_or_else(|| NotSplit::new("an empty expression"))?)
    }

    fn composed(&mut self, node: &NodeEnum) -> Result<Computed> {
        match node {
            NodeEnum::AExpr(it) => self.operator(it),
            NodeEnum::BoolExpr(it) => {
                let mut parts = self.all(&it.args)?;
                Ok(match it.boolop() {
                    BoolExprType::AndExpr => Computed::And(parts),
                    BoolExprType::OrExpr => Computed::Or(parts),
                    _ => Computed::Not(Box::new(parts.pop().unwrap_or(Computed::Null))),
                })
            }
            NodeEnum::NullTest(it) => {
                let test = Computed::IsNull(Box::new(self.some(&it.arg)?));
                let negated = it.nulltesttype() == NullTestType::IsNotNull;
                Ok(if negated { Computed::Not(Box::new(test)) } else { test })
            }
            NodeEnum::BooleanTest(it) => {
                let value = Box::new(self.some(&it.arg)?);
                let is =
                    |not, bool| Ok(Computed::Distinct(not, value.clone(), Box::new(Computed::Bool(bool))));
                match it.booltesttype() {
                    BoolTestType::IsTrue => is(true, true),
                    BoolTestType::IsNotTrue => is(false, true),
                    BoolTestType::IsFalse => is(true, false),
                    BoolTestType::IsNotFalse => is(false, false),
                    BoolTestType::IsUnknown => Ok(Computed::IsNull(value)),
                    _ => Ok(Computed::Not(Box::new(Computed::IsNull(value)))),
                }
            }
            NodeEnum::CoalesceExpr(it) => Ok(Computed::Coalesce(self.all(&it.args)?)),
            NodeEnum::MinMaxExpr(it) => {
                let args = self.all(&it.args)?;
                let greatest = it.op() == MinMaxOp::IsGreatest;
                Ok(if greatest { Computed::Greatest(args) } else { Computed::Least(args) })
            }
            NodeEnum::CaseExpr(it) => self.case(it),
            NodeEnum::TypeCast(it) => {
                let (name, modifiers) =
                    it.type_name.as_ref().and_then(type_of).ok_or_else(|| {
                        NotSplit::new("a cast of an aggregate to a type that is not built in")
                    })?;
                self.fixed.extend(&modifiers);
                Ok(Computed::Cast(Box::new(self.some(&it.arg)?), name, modifiers))
            }
            NodeEnum::FuncCall(it) if it.over.is_some() => {
                Err(NotSplit::new("a window function over groups"))
            }
            NodeEnum::FuncCall(it) => self.call(it),
            NodeEnum::SubLink(_) => Err(NotSplit::new("a subquery over groups")),
            NodeEnum::SqlvalueFunction(_) => Err(NotSplit::new("CURRENT_TIMESTAMP or the like over groups")),
            _ => Err(NotSplit::new("an expression of this form over aggregates")),
        }
    }

    fn operator(&mut self, it: &AExpr) -> Result<Computed> {
        let names = strings(&it.name);
        let name = names.last().cloned().unwrap_or_default();
        match it.kind() {
            AExprKind::AexprOp => {
                let left = it.lexpr.as_ref().map(|it| self.computed(it)).transpose()?.map(Box::new);
                Ok(Computed::Operator(name, left, Box::new(self.some(&it.rexpr)?)))
            }
            AExprKind::AexprDistinct | AExprKind::AexprNotDistinct => {
                let not = it.kind() == AExprKind::AexprNotDistinct;
                let (a, b) = (self.some(&it.lexpr)?, self.some(&it.rexpr)?);
                Ok(Computed::Distinct(not, Box::new(a), Box::new(b)))
            }
            AExprKind::AexprNullif => {
                let (a, b) = (self.some(&it.lexpr)?, self.some(&it.rexpr)?);
                Ok(Computed::NullIf(Box::new(a), Box::new(b)))
            }
            AExprKind::AexprIn | AExprKind::AexprBetween | AExprKind::AexprNotBetween => {
                self.ranged(it, &name)
            }
            _ => Err(NotSplit::new("an operator of this form over aggregates")),
        }
    }

    /// IN and BETWEEN, as comparisons.
    fn ranged(&mut self, it: &AExpr, name: &str) -> Result<Computed> {
        let value = self.some(&it.lexpr)?;
        let Some(NodeEnum::List(list)) = it.rexpr.as_ref().and_then(|it| it.node.as_ref()) else {
            return Err(NotSplit::new("an operator of this form over aggregates"));
        };
        let others = self.all(&list.items)?;
        let compare = |operator: &str, other: &Computed| {
            Computed::Operator(operator.to_owned(), Some(Box::new(value.clone())), Box::new(other.clone()))
        };
        match (it.kind(), &others[..]) {
            (AExprKind::AexprIn, others) => {
                let parts = others.iter().map(|it| compare(name, it)).collect();
                Ok(if name == "=" { Computed::Or(parts) } else { Computed::And(parts) })
            }
            (AExprKind::AexprBetween, [low, high]) => {
                Ok(Computed::And(vec![compare(">=", low), compare("<=", high)]))
            }
            (_, [low, high]) => Ok(Computed::Or(vec![compare("<", low), compare(">", high)])),
            _ => Err(NotSplit::new("BETWEEN of this form over aggregates")),
        }
    }

    fn case(&mut self, it: &CaseExpr) -> Result<Computed> {
        let operand = it.arg.as_ref().map(|it| self.computed(it)).transpose()?;
        let mut branches = Vec::new();
        for when in &it.args {
            let Some(NodeEnum::CaseWhen(when)) = &when.node else {
                return Err(NotSplit::new("CASE of this form over aggregates"));
            };
            let test = self.some(&when.expr)?;
            let test = match &operand {
                None => test,
                Some(operand) => {
                    Computed::Operator("=".into(), Some(Box::new(operand.clone())), Box::new(test))
                }
            };
            branches.push((test, self.some(&when.result)?));
        }
        let otherwise = it.defresult.as_ref().map(|it| self.computed(it)).transpose()?.map(Box::new);
        Ok(Computed::Case(branches, otherwise))
    }

    fn call(&mut self, it: &FuncCall) -> Result<Computed> {
        let mut names = strings(&it.funcname);
        let name = names.pop().unwrap_or_default();
        if !names.is_empty() && names != ["pg_catalog"] || it.func_variadic {
            return Err(NotSplit::new(format!("function {name}() over aggregates")));
        }
        Ok(Computed::Call(name, self.all(&it.args)?))
    }

    fn aggregate(&mut self, it: &FuncCall) -> Result<usize> {
        let name = strings(&it.funcname).pop().unwrap_or_default();
        if it.agg_within_group || it.func_variadic {
            return Err(NotSplit::new(format!("aggregate {name}() WITHIN GROUP")));
        }
        let node = Node { node: Some(NodeEnum::FuncCall(Box::new(it.clone()))) };
        let (_, written) = self.print(&node)?;
        if let Some(known) = self.aggregates.iter().position(|it| it.0 == written) {
            return Ok(known);
        }
        let (argument, delimiter) = match (&it.args[..], &name[..]) {
            ([], _) => (None, None),
            ([argument], _) => (Some(argument), None),
            ([argument, delimiter], "string_agg") => (Some(argument), Some(self.computed(delimiter)?)),
            _ => return Err(NotSplit::new(format!("aggregate {name}() of several arguments"))),
        };
        if argument.is_some_and(has_aggregate) {
            return Err(NotSplit::new("an aggregate within an aggregate"));
        }
        let mut order = Vec::new();
        for node in &it.agg_order {
            let Some(NodeEnum::SortBy(sort)) = &node.node else { continue };
            let expression = sort.node.as_deref().ok_or_else(|| NotSplit::new("an empty expression"))?;
            if sort.sortby_dir() == SortByDir::SortbyUsing {
                return Err(NotSplit::new("ORDER BY ... USING"));
            }
            let descending = sort.sortby_dir() == SortByDir::SortbyDesc;
            let nulls_first = match sort.sortby_nulls() {
                SortByNulls::SortbyNullsFirst => true,
                SortByNulls::SortbyNullsLast => false,
                _ => descending,
            };
            order.push((print_expression(expression)?, descending, nulls_first));
        }
        let aggregate = SplitAggregate {
            name,
            argument: argument.map(print_expression).transpose()?,
            distinct: it.agg_distinct,
            filter: it.agg_filter.as_deref().map(print_expression).transpose()?,
            order,
            delimiter,
        };
        self.aggregates.push((written, aggregate));
        Ok(self.aggregates.len() - 1)
    }
}

fn type_of(name: &TypeName) -> Option<(String, Vec<u32>)> {
    let plain = plain_type(name)?;
    let modifier = |it: &Node| match it.node.as_ref()? {
        NodeEnum::AConst(it) => literal_index(it).filter(|it| !it.1).map(|it| it.0),
        _ => None,
    };
    let modifiers: Option<Vec<u32>> = name.typmods.iter().map(modifier).collect();
    Some((plain, modifiers?))
}

fn is_aggregate(it: &FuncCall) -> bool {
    let names = strings(&it.funcname);
    let name = names.last().map_or("", String::as_str);
    it.over.is_none() && (it.agg_star || built_in(name).is_some_and(|it| it.aggregate))
}

/// Not one of a subquery, which is its own.
pub(super) fn has_aggregate(node: &Node) -> bool {
    let Some(node) = &node.node else { return false };
    let any = |them: &[Node]| them.iter().any(has_aggregate);
    let some = |it: &Option<Box<Node>>| it.as_deref().is_some_and(has_aggregate);
    match node {
        NodeEnum::FuncCall(it) => is_aggregate(it) || any(&it.args),
        NodeEnum::ResTarget(it) => some(&it.val),
        NodeEnum::SortBy(it) => some(&it.node),
        NodeEnum::AExpr(it) => some(&it.lexpr) || some(&it.rexpr),
        NodeEnum::BoolExpr(it) => any(&it.args),
        NodeEnum::TypeCast(it) => some(&it.arg),
        NodeEnum::CoalesceExpr(it) => any(&it.args),
        NodeEnum::MinMaxExpr(it) => any(&it.args),
        NodeEnum::NullTest(it) => some(&it.arg),
        NodeEnum::BooleanTest(it) => some(&it.arg),
        NodeEnum::CaseExpr(it) => some(&it.arg) || any(&it.args) || some(&it.defresult),
        NodeEnum::CaseWhen(it) => some(&it.expr) || some(&it.result),
        NodeEnum::List(it) => any(&it.items),
        NodeEnum::RowExpr(it) => any(&it.args),
        NodeEnum::AArrayExpr(it) => any(&it.elements),
        NodeEnum::CollateClause(it) => some(&it.arg),
        NodeEnum::AIndirection(it) => some(&it.arg),
        _ => false,
    }
}
