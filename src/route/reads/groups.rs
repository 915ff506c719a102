//! A grouped read: what each shard computes of each aggregate, and the grouping that puts the parts together.

use std::sync::Arc;

use crate::base::Refusal;
use crate::merge::{
    Aggregate, AggregateFunction, Collation, Distinct, Expression, Grouping, MergeSpec, Output, Partial,
    SortKey, Type, Window, partials,
};
use crate::sql::{Filled, SplitAggregate, SplitGroups, Template};

use super::expressions::Builder;
use super::{Described, ShardQuery, filled, not_merged, sort_key, type_of};
use crate::route::keys::KeySource;

/// Where an argument and the order stand in the text of a partial.
const ARGUMENT: &str = "\u{1}";
const ORDER: &str = "\u{2}";

/// The keys and the arguments, of all rows: nothing is computed of them.
pub(super) fn typing(groups: &SplitGroups, source: &KeySource<'_>) -> Result<Option<Filled>, Refusal> {
    let arguments = groups.aggregates.iter().filter_map(|it| it.argument.as_ref());
    let columns: Vec<&Template> = groups.keys.iter().chain(arguments).collect();
    if columns.is_empty() {
        return Ok(None);
    }
    let mut text = groups.before.clone();
    for (index, column) in columns.iter().enumerate() {
        text.push_str(if index > 0 { ", " } else { "" });
        text.push(column);
    }
    text.push(&groups.after);
    filled(&text, source).map(Some)
}

pub(super) fn query(
    groups: &SplitGroups,
    mut builder: Builder<'_>,
    described: &Described<'_>,
    source: &KeySource<'_>,
    distinct: Distinct,
    window: Window,
) -> Result<ShardQuery, Refusal> {
    let key_count = groups.keys.len();
    let mut columns = Columns { list: groups.keys.clone(), grouped: (1..=key_count).collect() };
    let keys = (0..key_count).map(|it| type_of(described.typing, it)).collect::<Result<Vec<_>, _>>()?;
    let (mut aggregates, mut types, mut at) = (Vec::new(), Vec::new(), key_count);
    for it in &groups.aggregates {
        let argument = match &it.argument {
            None => None,
            Some(_) => {
                at += 1;
                Some(type_of(described.typing, at - 1)?)
            }
        };
        let (aggregate, result) = columns.aggregate(it, argument, &builder)?;
        aggregates.push(aggregate);
        types.push(result);
    }
    builder.over(&keys, &types);
    let (outputs, sort) = outputs(groups, &builder, described)?;
    let grouping = Grouping {
        keys: (0..key_count).collect(),
        aggregates,
        having: groups.having.as_ref().map(|it| builder.expression(it)).transpose()?,
        outputs,
        sort,
    };
    let visible = (0..groups.outputs.len()).collect();
    let collation = builder.collation;
    let spec =
        MergeSpec { sorted: Vec::new(), grouping: Some(grouping), distinct, collation, window, visible };
    let filled = filled(&columns.text(groups), source)?;
    Ok(ShardQuery { filled, columns: columns.list.len(), spec: Arc::new(spec) })
}

/// The outputs that the client sees, then those that are only sorted by.
fn outputs(
    groups: &SplitGroups,
    builder: &Builder<'_>,
    described: &Described<'_>,
) -> Result<(Vec<Output>, Vec<SortKey>), Refusal> {
    let mut outputs = Vec::new();
    for (at, it) in groups.outputs.iter().enumerate() {
        let field = described.outputs.get(at).ok_or_else(|| not_merged("* in a grouped statement"))?;
        let want = Type::from_oid(field.type_oid);
        let mut expression = builder.expression(it)?;
        if builder.type_of(&expression)? != want {
            expression = Expression::Cast(Box::new(expression), want, None);
            builder.type_of(&expression)?;
        }
        let name = String::from_utf8_lossy(field.name).into();
        outputs.push(Output { name, expression, type_mod: field.type_mod });
    }
    let mut sort = Vec::new();
    for (key, it) in &groups.sort {
        let known = groups.outputs.iter().position(|of| of == it);
        let column = match known {
            Some(at) => at,
            None => {
                let expression = builder.expression(it)?;
                outputs.push(Output { name: "".into(), expression, type_mod: -1 });
                outputs.len() - 1
            }
        };
        sort.push(sort_key(key, column, builder.collation));
    }
    Ok((outputs, sort))
}

/// The select list of the shards' statement.
struct Columns {
    list: Vec<Template>,
    /// Positions of GROUP BY, from 1.
    grouped: Vec<usize>,
}

impl Columns {
    fn aggregate(
        &mut self,
        it: &SplitAggregate,
        argument: Option<Type>,
        builder: &Builder<'_>,
    ) -> Result<(Aggregate, Type), Refusal> {
        let unknown = || not_merged(&format!("aggregate {}()", it.name));
        let function = AggregateFunction::by_name(&it.name).ok_or_else(unknown)?;
        let collation = builder.collation;
        let parts = partials(function, argument, it.distinct, collation)?;
        let (order, keys) = order_of(it, collation);
        let mut columns = Vec::new();
        for part in &parts.columns {
            self.partial(*part, it, it.argument.as_ref(), &order)?;
            columns.push(self.list.len() - 1);
            if *part == Partial::Value {
                self.grouped.push(self.list.len());
            }
        }
        // The values of ORDER BY come along, in the same order.
        let lists = parts.columns.first() == Some(&Partial::List);
        for (index, (key, ..)) in it.order.iter().enumerate() {
            if keys[index].column == 0 {
                continue;
            }
            if !lists {
                return Err(not_merged("DISTINCT with ORDER BY of another expression in an aggregate"));
            }
            self.partial(Partial::List, it, Some(key), &order)?;
            columns.push(self.list.len() - 1);
        }
        let delimiter = it.delimiter.as_ref().map(|it| builder.text(it)).transpose()?.flatten();
        let aggregate = Aggregate {
            function,
            argument,
            distinct: it.distinct,
            columns,
            order: keys,
            delimiter,
            collation,
        };
        Ok((aggregate, parts.result))
    }

    fn partial(
        &mut self,
        part: Partial,
        it: &SplitAggregate,
        argument: Option<&Template>,
        order: &Template,
    ) -> Result<(), Refusal> {
        let marked = part
            .sql(if argument.is_some() { ARGUMENT } else { "*" }, if order.is_empty() { "" } else { ORDER });
        let mut inner = Template::default();
        if let Some(argument) = argument {
            inner.push_str("(");
            inner.push(argument);
            inner.push_str(")");
        }
        let mut column = Template::default();
        for piece in marked.split_inclusive([ARGUMENT, ORDER].map(|it| it.chars().next().unwrap_or_default()))
        {
            let (text, mark) = match (piece.strip_suffix(ARGUMENT), piece.strip_suffix(ORDER)) {
                (Some(text), _) => (text, Some(&inner)),
                (None, Some(text)) => (text, Some(order)),
                (None, None) => (piece, None),
            };
            column.push_str(text);
            if let Some(mark) = mark {
                column.push(mark);
            }
        }
        if let Some(filter) = &it.filter {
            column = filtered(part, it, column, filter)?;
        }
        self.list.push(column);
        Ok(())
    }

    fn text(&self, groups: &SplitGroups) -> Template {
        let mut text = groups.before.clone();
        for (index, column) in self.list.iter().enumerate() {
            text.push_str(if index > 0 { ", " } else { "" });
            text.push(column);
        }
        text.push(&groups.after);
        if !self.grouped.is_empty() {
            let positions: Vec<String> = self.grouped.iter().map(ToString::to_string).collect();
            text.push_str(&format!(" GROUP BY {}", positions.join(", ")));
        }
        text
    }
}

fn filtered(
    part: Partial,
    it: &SplitAggregate,
    column: Template,
    filter: &Template,
) -> Result<Template, Refusal> {
    let mut out = Template::default();
    if part == Partial::Value {
        if it.name == "array_agg" {
            return Err(not_merged("array_agg with DISTINCT and FILTER"));
        }
        // NULL is left out by every other aggregate.
        out.push_str("CASE WHEN ");
        out.push(filter);
        out.push_str(" THEN ");
        out.push(&column);
        out.push_str(" END");
    } else {
        out.push(&column);
        out.push_str(" FILTER (WHERE ");
        out.push(filter);
        out.push_str(")");
    }
    Ok(out)
}

/// `ORDER BY ...` of an aggregate, and its keys by their places among the aggregate's columns: 0 is the argument.
fn order_of(it: &SplitAggregate, collation: Collation) -> (Template, Vec<SortKey>) {
    let (mut text, mut keys, mut next) = (Template::default(), Vec::new(), 1);
    for (index, (key, descending, nulls_first)) in it.order.iter().enumerate() {
        text.push_str(if index > 0 { ", " } else { "ORDER BY " });
        text.push(key);
        text.push_str(if *descending { " DESC" } else { " ASC" });
        text.push_str(if *nulls_first { " NULLS FIRST" } else { " NULLS LAST" });
        let column = if Some(key) == it.argument.as_ref() {
            0
        } else {
            next += 1;
            next - 1
        };
        keys.push(SortKey { column, descending: *descending, nulls_first: *nulls_first, collation });
    }
    (text, keys)
}
