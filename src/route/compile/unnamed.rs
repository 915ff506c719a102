//! INSERT without a list of columns into a sharded table: the catalog says which column a value is for, and servers
//! are sent the list. Should the catalog be older than the table, they object, and no other column is taken for the key.

use std::borrow::Cow;

use super::tables::Standing;
use crate::proto::quote_name;
use crate::route::catalog::Catalog;
use crate::sql::{ColumnLists, ColumnsPlace, InsertSource, Statement, Write};

/// The statement with the columns named that the catalog has, and the lists for its text.
pub(super) fn name_columns<'s>(
    it: &'s Statement,
    standings: &[Vec<Standing>],
    catalog: &Catalog,
    text: &str,
) -> (Cow<'s, Statement>, ColumnLists) {
    let (mut named, mut lists) = (Cow::Borrowed(it), ColumnLists::default());
    for (index, (level, standings)) in it.levels.iter().zip(standings).enumerate() {
        let Some(Write::Insert { columns: None, at, source, .. }) = &level.write else { continue };
        let table = level.relations.first().and_then(|it| it.table.as_ref());
        let table = table.filter(|_| matches!(standings.first(), Some(Standing::Sharded { .. })));
        let Some(mut found) = table.and_then(|it| catalog.inserted_columns(it)) else { continue };
        if let Some(count) = values(source) {
            let Some(place) = ColumnsPlace::find(text, *at) else { continue };
            // Fewer values fill the first columns; more are the server's to refuse.
            found.truncate(count);
            lists.add(place, found.iter().map(|it| quote_name(it)).collect());
        }
        if let Some(Write::Insert { columns, .. }) = &mut named.to_mut().levels[index].write {
            *columns = Some(found);
        }
    }
    (named, lists)
}

/// How many values a row has. Where that is not known, none is known of the key either, which is refused whatever
/// the columns are.
fn values(source: &InsertSource) -> Option<usize> {
    match source {
        InsertSource::DefaultValues => None,
        InsertSource::Rows(rows) => rows.first().map(Vec::len),
        InsertSource::Query { fields, .. } => fields.as_ref().map(Vec::len),
    }
}
