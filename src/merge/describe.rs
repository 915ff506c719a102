//! RowDescription: what the shards say, and what the client is shown.

use super::error;
use super::expression::Expression;
use super::grouped::row_types;
use super::order::missing_column;
use super::row::Column;
use super::spec::{Grouping, MergeSpec, ResultFormats};
use super::types::{Format, Type};
use crate::base::Refusal;
use crate::wire::{RowField, row_description, row_fields};

#[derive(Debug, Default)]
pub(super) struct Described {
    pub columns: Vec<Column>,
    /// Names of the shards' columns.
    names: Vec<Box<[u8]>>,
    /// For the client.
    pub message: Vec<u8>,
}

impl Described {
    /// Table oids may differ between shards; names, types and formats may not.
    pub fn check_same(&self, other: &Described) -> Result<(), Refusal> {
        if self.columns == other.columns && self.names == other.names {
            return Ok(());
        }
        Err(error::unsupported(
            "the shards describe the columns of this result differently",
            "make the tables equal on all shards",
        ))
    }
}

fn format_of(field: &RowField<'_>) -> Format {
    if field.binary { Format::Binary } else { Format::Text }
}

/// The columns of a shard's RowDescription and the RowDescription for the client.
pub(super) fn describe(
    spec: &MergeSpec,
    message: &[u8],
    formats: &ResultFormats,
) -> Result<Described, Refusal> {
    let fields =
        row_fields(message).map_err(|_| error::malformed("a server's RowDescription is malformed"))?;
    let column = |it: &RowField<'_>| Column { of: Type::from_oid(it.type_oid), format: format_of(it) };
    let columns: Vec<Column> = fields.iter().map(column).collect();
    let mut shown = Vec::with_capacity(spec.visible.len());
    match &spec.grouping {
        None => {
            for (at, column) in spec.visible.iter().enumerate() {
                let field = *fields.get(*column).ok_or_else(missing_column)?;
                if format_of(&field) != formats.of(at) {
                    return Err(error::inconsistent(
                        "a shard was asked for another format than the client's",
                    ));
                }
                shown.push(field);
            }
        }
        Some(grouping) => {
            let types = row_types(grouping, &columns)?;
            for (at, output) in spec.visible.iter().enumerate() {
                let field = output_field(grouping, *output, &types, &fields)?;
                shown.push(RowField { binary: formats.of(at) == Format::Binary, ..field });
            }
        }
    }
    let names = fields.iter().map(|it| it.name.into()).collect();
    let mut message = Vec::new();
    row_description(&mut message, &shown);
    Ok(Described { columns, names, message })
}

fn output_field<'a>(
    grouping: &'a Grouping,
    output: usize,
    types: &[Type],
    fields: &[RowField<'a>],
) -> Result<RowField<'a>, Refusal> {
    let output = grouping.outputs.get(output).ok_or_else(missing_column)?;
    let name = output.name.as_bytes();
    // A group key is still its table's column.
    if let Expression::Column(at) = output.expression
        && let Some(field) = grouping.keys.get(at).and_then(|it| fields.get(*it))
    {
        return Ok(RowField { name, ..*field });
    }
    let of = output.expression.resolve(types)?;
    Ok(RowField {
        name,
        table_oid: 0,
        attribute: 0,
        type_oid: of.oid(),
        type_bytes: of.bytes(),
        type_mod: output.type_mod,
        binary: false,
    })
}

impl MergeSpec {
    /// The RowDescription for the client of a shard's, as Describe of a statement shows it: before formats
    /// are known, all are text.
    ///
    /// # Errors
    /// As `Merger::describe`.
    pub fn description(&self, shard_message: &[u8]) -> Result<Vec<u8>, Refusal> {
        describe(self, shard_message, &ResultFormats::default()).map(|it| it.message)
    }
}
