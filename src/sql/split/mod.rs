//! A SELECT taken apart for several shards: what each shard runs, and what is left to do with its rows. Nothing
//! here knows a shard: whether the parts make the whole is for `route` to judge.
//!
//! Two ways to split:
//! - **whole**: each shard runs the statement itself, with hidden columns to sort by behind its own, and with
//!   LIMIT and OFFSET added up. Right where no group of rows lies on two shards.
//! - **grouped**: each shard groups its own rows; `route` says what it computes of each aggregate.

mod computed;
mod keys;
mod sentinel;
mod template;

pub use computed::{Computed, SplitAggregate};
pub use keys::SplitKey;
pub use template::{Filled, Template};

use pg_query::NodeEnum;
use pg_query::protobuf::{LimitOption, Node, ParseResult, RawStmt, ResTarget, SelectStmt, SetOperation};

use super::facts::{Column, Value};
use super::scan::Literal;
use computed::Grouper;

/// Why a SELECT cannot be taken apart: what stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSplit(pub String);

impl NotSplit {
    fn new(what: impl Into<String>) -> NotSplit {
        NotSplit(what.into())
    }
}

type Result<T> = std::result::Result<T, NotSplit>;

#[derive(Clone, Debug)]
pub struct Split {
    /// What each shard runs where groups do not span shards.
    pub whole: Template,
    /// Columns of `whole` behind the statement's own.
    pub hidden: usize,
    pub sort: Vec<SplitKey>,
    pub distinct: SplitDistinct,
    pub window: SplitWindow,
    /// Aggregates or GROUP BY, to be computed from the shards' parts.
    pub grouped: Option<Result<SplitGroups>>,
    /// Of a set operation: it and its arms are the statement's levels.
    pub set_operation: Option<SplitSet>,
    /// Plain columns of GROUP BY, by position too.
    pub group_columns: Vec<Column>,
    /// Names of GROUP BY that were taken for outputs, which is right only if no table has such a column.
    pub not_columns: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitDistinct {
    No,
    Rows,
    /// DISTINCT ON: so many leading keys of the order.
    On(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitSet {
    /// UNION ALL throughout.
    UnionAll,
    /// UNION throughout, or UNION at the top.
    Union,
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitWindow {
    pub count: Option<WindowValue>,
    pub offset: Option<WindowValue>,
    pub with_ties: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowValue {
    Place(Value),
    /// Of FETCH FIRST ROW ONLY, which names no number.
    One,
}

/// What a grouped SELECT is made of. The text of each shard's statement is `before`, a list of columns, `after`
/// and a GROUP BY.
#[derive(Clone, Debug)]
pub struct SplitGroups {
    pub before: Template,
    pub after: Template,
    pub keys: Vec<Template>,
    pub aggregates: Vec<SplitAggregate>,
    pub having: Option<Computed>,
    /// Names are empty where PostgreSQL makes one: Describe of the statement tells it.
    pub outputs: Vec<Computed>,
    /// As `Split::sort`, over outputs that follow the visible ones where they are none of these.
    pub sort: Vec<(SplitKey, Computed)>,
}

/// A split, or why there is none.
#[derive(Clone, Debug)]
pub struct Splitting {
    pub split: Result<Split>,
    /// Literals whose values were looked at: what was found holds only for texts that share them.
    pub fixed_literals: Vec<u32>,
}

/// Takes the only statement of `text` apart; of a DECLARE its query.
pub(super) fn split(
    parse: impl Fn(&str) -> Option<ParseResult>,
    text: &str,
    literals: &[Literal],
) -> Splitting {
    let mut splitter = Splitter { text, literals, fixed: Vec::new(), not_columns: Vec::new() };
    let split = splitter.only_statement(parse);
    let mut fixed_literals = splitter.fixed;
    fixed_literals.sort_unstable();
    fixed_literals.dedup();
    Splitting { split, fixed_literals }
}

struct Splitter<'a> {
    text: &'a str,
    literals: &'a [Literal],
    fixed: Vec<u32>,
    not_columns: Vec<String>,
}

impl Splitter<'_> {
    fn only_statement(&mut self, parse: impl Fn(&str) -> Option<ParseResult>) -> Result<Split> {
        let odd = || NotSplit::new("a bit string or U&'...' constant");
        let marked = sentinel::with_sentinels(self.text, self.literals).ok_or_else(odd)?;
        let unread = || NotSplit::new("a statement of this form");
        let tree = parse(&marked).ok_or_else(unread)?;
        let [RawStmt { stmt: Some(stmt), .. }] = &tree.stmts[..] else { return Err(unread()) };
        let node = match &stmt.node {
            Some(NodeEnum::DeclareCursorStmt(it)) => it.query.as_ref().and_then(|it| it.node.as_ref()),
            other => other.as_ref(),
        };
        let Some(NodeEnum::SelectStmt(select)) = node else { return Err(unread()) };
        self.select(select)
    }

    fn select(&mut self, select: &SelectStmt) -> Result<Split> {
        if !select.locking_clause.is_empty() {
            return Err(NotSplit::new("FOR UPDATE or FOR SHARE"));
        }
        let set_operation = set_operation(select);
        let mut whole = select.clone();
        let window = window(select)?;
        widen(&mut whole, &window)?;
        let sort = self.sort_keys(select)?;
        let distinct = self.distinct(select, &sort, &mut whole)?;
        let (sort, hidden) = match (set_operation, distinct) {
            (Some(_), _) => (self.by_position(select, sort)?, 0),
            _ => {
                for (index, key) in sort.iter().enumerate() {
                    whole.target_list.push(target(key.node.clone(), &format!("keyway_{}", index + 1)));
                }
                let count = sort.len();
                (sort.into_iter().map(|it| it.key).collect(), count)
            }
        };
        let grouped =
            if set_operation.is_none() && is_grouped(select) { Some(self.groups(select)) } else { None };
        let group_columns = self.group_columns(select);
        Ok(Split {
            whole: print_select(&whole)?,
            hidden,
            sort,
            distinct,
            window,
            grouped,
            set_operation,
            group_columns,
            not_columns: std::mem::take(&mut self.not_columns),
        })
    }

    fn groups(&mut self, select: &SelectStmt) -> Result<SplitGroups> {
        if !select.window_clause.is_empty() {
            return Err(NotSplit::new("a window function over groups"));
        }
        let mut frame = select.clone();
        frame.target_list = vec![target(column("keyway_list"), "")];
        frame.distinct_clause.clear();
        frame.sort_clause.clear();
        frame.group_clause.clear();
        frame.having_clause = None;
        (frame.limit_count, frame.limit_offset) = (None, None);
        frame.limit_option = LimitOption::Default as i32;
        let printed = print_node(&NodeEnum::SelectStmt(Box::new(frame)))?;
        let unread = || NotSplit::new("a statement of this form");
        let (before, after) = printed.split_once("keyway_list").ok_or_else(unread)?;
        let keys = self.group_keys(select)?;
        let sort = self.sort_keys(select)?;
        let mut grouper = Grouper::new(self.text, self.literals, keys)?;
        let mut outputs = Vec::new();
        for node in &select.target_list {
            let Some(NodeEnum::ResTarget(it)) = &node.node else { return Err(unread()) };
            let value = it.val.as_deref().ok_or_else(unread)?;
            outputs.push(grouper.computed(value)?);
        }
        let having = select.having_clause.as_deref().map(|it| grouper.computed(it)).transpose()?;
        let mut keys = Vec::new();
        for it in &sort {
            keys.push((it.key.clone(), grouper.computed(&it.node)?));
        }
        let (group_keys, aggregates, fixed) = grouper.finish();
        self.fixed.extend(fixed);
        let template = |it: &str| Template::read(it).ok_or_else(unread);
        Ok(SplitGroups {
            before: template(before)?,
            after: template(after)?,
            keys: group_keys,
            aggregates,
            having,
            outputs,
            sort: keys,
        })
    }
}

/// Aggregates anywhere, GROUP BY or HAVING.
fn is_grouped(select: &SelectStmt) -> bool {
    !select.group_clause.is_empty()
        || select.having_clause.is_some()
        || select.target_list.iter().chain(&select.sort_clause).any(computed::has_aggregate)
}

fn set_operation(select: &SelectStmt) -> Option<SplitSet> {
    fn all_alike(select: &SelectStmt, all: bool) -> bool {
        match select.op() {
            SetOperation::SetopUnion => {
                select.all == all
                    && [&select.larg, &select.rarg].into_iter().flatten().all(|it| all_alike(it, all))
            }
            SetOperation::SetopNone | SetOperation::Undefined => true,
            _ => false,
        }
    }
    fn unions(select: &SelectStmt) -> bool {
        match select.op() {
            SetOperation::SetopUnion => {
                [&select.larg, &select.rarg].into_iter().flatten().all(|it| unions(it))
            }
            SetOperation::SetopNone | SetOperation::Undefined => true,
            _ => false,
        }
    }
    match select.op() {
        SetOperation::SetopNone | SetOperation::Undefined => None,
        SetOperation::SetopUnion if all_alike(select, true) => Some(SplitSet::UnionAll),
        // What is below a UNION may be UNION ALL: duplicates go away in the end.
        SetOperation::SetopUnion if !select.all && unions(select) => Some(SplitSet::Union),
        _ => Some(SplitSet::Other),
    }
}

/// LIMIT, OFFSET and FETCH by the places of their values.
fn window(select: &SelectStmt) -> Result<SplitWindow> {
    let with_ties = select.limit_option() == LimitOption::WithTies;
    let value = |node: &Option<Box<Node>>, what: &str| match node.as_deref() {
        None => Ok(None),
        Some(node) if keys::is_one(node) => Ok(Some(WindowValue::One)),
        Some(node) => match keys::constant(node) {
            Some(Value::Null) => Ok(None),
            Some(value) => Ok(Some(WindowValue::Place(value))),
            None => Err(NotSplit::new(format!("{what} with a computed value"))),
        },
    };
    let count = value(&select.limit_count, "LIMIT")?;
    let offset = value(&select.limit_offset, "OFFSET")?;
    Ok(SplitWindow { count, offset, with_ties })
}

/// Each shard may have all of the rows that are wanted, and those that are passed over.
fn widen(whole: &mut SelectStmt, window: &SplitWindow) -> Result<()> {
    let Some(offset) = whole.limit_offset.take() else { return Ok(()) };
    match (whole.limit_count.take(), &window.count, &window.offset) {
        (Some(count), Some(_), Some(_)) => {
            let sum = keys::sum_of_bigints(*count, *offset);
            whole.limit_count = Some(Box::new(sum));
        }
        (Some(count), Some(_), None) => whole.limit_count = Some(count),
        _ => whole.limit_option = LimitOption::Default as i32,
    }
    Ok(())
}

fn print_node(node: &NodeEnum) -> Result<String> {
    let stmt =
        RawStmt { stmt: Some(Box::new(Node { node: Some(node.clone()) })), stmt_location: 0, stmt_len: 0 };
    let tree = ParseResult { version: 0, stmts: vec![stmt] };
    pg_query::deparse(&tree, pg_query::DeparseOptions::default())
        .map_err(|_| NotSplit::new("a statement that cannot be written anew"))
}

fn print_select(select: &SelectStmt) -> Result<Template> {
    let printed = print_node(&NodeEnum::SelectStmt(Box::new(select.clone())))?;
    Template::read(&printed).ok_or_else(|| NotSplit::new("a statement that cannot be written anew"))
}

/// One expression as PostgreSQL's grammar reads it.
fn print_expression(node: &Node) -> Result<Template> {
    let mut select = SelectStmt { limit_option: LimitOption::Default as i32, ..SelectStmt::default() };
    select.op = SetOperation::SetopNone as i32;
    select.target_list = vec![target(node.clone(), "")];
    let printed = print_node(&NodeEnum::SelectStmt(Box::new(select)))?;
    let text = printed.strip_prefix("SELECT ").ok_or_else(|| NotSplit::new("an expression of this form"))?;
    Template::read(text).ok_or_else(|| NotSplit::new("an expression of this form"))
}

fn target(value: Node, name: &str) -> Node {
    let target =
        ResTarget { name: name.to_owned(), indirection: Vec::new(), val: Some(Box::new(value)), location: 0 };
    Node { node: Some(NodeEnum::ResTarget(Box::new(target))) }
}

fn column(name: &str) -> Node {
    let field = Node { node: Some(NodeEnum::String(pg_query::protobuf::String { sval: name.to_owned() })) };
    let column = pg_query::protobuf::ColumnRef { fields: vec![field], location: 0 };
    Node { node: Some(NodeEnum::ColumnRef(column)) }
}

#[cfg(test)]
mod tests;
