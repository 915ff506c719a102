//! Writes that several shards do together: which of them each can do alone, and how their rows are told apart.

use super::super::super::catalog::Catalog;
use super::super::super::copy::CopyPlan;
use super::super::super::plan::{Class, Keys, Many};
use super::super::super::router::Router;
use super::super::{Splitter, first_write, unsupported};
use super::{Graph, Standing, unlisted};
use crate::base::{Reason, Refusal};
use crate::sql::{InsertSource, InsertedRows, Statement, Write};

/// How COPY FROM STDIN is split; `None` for a table that lives on one shard.
pub(in crate::route::compile) fn copy_in(
    router: &Router,
    it: &Statement,
    standings: &[Vec<Standing>],
    catalog: &Catalog,
) -> Result<Option<CopyPlan>, Refusal> {
    let relation = it.levels.first().and_then(|it| it.relations.first());
    let table = relation.and_then(|it| it.table.as_ref()).ok_or_else(|| unsupported("COPY of this form"))?;
    let copy = it.copy.as_ref().ok_or_else(|| unsupported("COPY of this form"))?;
    let (map, key) = match standings.iter().flatten().next() {
        Some(Standing::Sharded { map, key }) => (Some(*map), &key[..]),
        Some(Standing::Reference) => (None, &[][..]),
        Some(Standing::Unlisted(table)) => return Err(unlisted(table)),
        Some(Standing::Catalog) => return Err(unsupported("a write of a system catalog")),
        _ => return Ok(None),
    };
    if router.reads_path() && table.schema.is_none() {
        let what = format!("COPY FROM STDIN into \"{}\", whose schema depends on search_path,", table.name);
        return Err(unsupported(&what));
    }
    let form = copy.form.clone().map_err(|what| {
        Refusal::unsupported(
            Reason::MultiShardWrite,
            format!("{what} of COPY FROM STDIN into several shards is not supported"),
            "leave it out, or copy into each shard by itself",
        )
    })?;
    let missing = |what: String| {
        Refusal::unsupported(
            Reason::MissingKey,
            format!("COPY FROM STDIN into table \"{}\" {what}", table.name),
            format!("name its columns, \"{}\" among them", key.join(", ")),
        )
    };
    let columns = match &copy.columns {
        Some(columns) => columns.clone(),
        None if key.is_empty() => Vec::new(),
        None => {
            catalog.copied_columns(table).ok_or_else(|| missing("does not name its columns".to_owned()))?
        }
    };
    let fields = key.iter().map(|key| columns.iter().position(|it| it == key));
    let fields = fields.collect::<Option<Vec<usize>>>();
    let fields = fields.ok_or_else(|| missing(format!("lacks its shard key \"{}\"", key.join(", "))))?;
    let (table, column) = (table.name.clone(), key.join(", "));
    let class = Class { map, table, column, keys: Keys::All, writes: true };
    let unnamed = if copy.columns.is_none() { columns } else { Vec::new() };
    Ok(Some(CopyPlan { form, class, fields, unnamed }))
}

/// How several shards do a write.
pub(super) fn written(graph: &Graph<'_>, splitter: &Splitter<'_>) -> Many {
    if graph.router.shard_count() == 1 {
        return Many::Refused(String::new());
    }
    let rows = match first_write(graph.statement) {
        Some(Write::Insert { source: InsertSource::Rows(rows), .. }) => Some(rows.len()),
        _ => None,
    };
    match (graph.written(), rows) {
        (Err(what), _) => Many::Refused(what),
        (Ok(()), None) => Many::Written,
        (Ok(()), Some(count)) => match InsertedRows::find(splitter.text) {
            Some(rows) if rows.count() == count => Many::Split(rows),
            _ => Many::Refused("a list of rows of this form".into()),
        },
    }
}
