//! COPY FROM STDIN into several shards: which fields of a record are its key, and whose the record is.

use std::borrow::Cow;

use super::evaluate::Evaluation;
use super::keys::KeySource;
use super::plan::Class;
use super::router::Router;
use crate::base::{Refusal, ShardId};
use crate::proto::{CopyField, quote_name};
use crate::shard::KeyValue;
use crate::sql::{CopyForm, Lexer, TokenKind};

/// How a COPY's data is split.
#[derive(Clone, Debug)]
pub struct CopyPlan {
    pub(super) form: CopyForm,
    pub(super) class: Class,
    /// Of the key's columns among those of a record, counted from 0; none where every shard gets every record.
    pub(super) fields: Vec<usize>,
    /// All of a record's columns, where the text leaves them to the catalog.
    pub(super) unnamed: Vec<String>,
}

/// Whose a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyOwner {
    Every,
    Shard(ShardId),
    /// Nobody's as far as Keyway can tell: the refusal, should a server not object to the record itself.
    Unknown(Refusal),
}

impl CopyPlan {
    /// Without its schema, as PostgreSQL names it in the context of errors.
    pub fn table(&self) -> &str {
        &self.class.table
    }

    /// Every shard gets every row.
    pub fn is_for_every_shard(&self) -> bool {
        self.class.map.is_none()
    }

    pub fn form(&self) -> &CopyForm {
        &self.form
    }

    /// What a shard is sent. Columns that the text leaves out are named: should the catalog be older than the table, the
    /// shard objects, and no other column is taken for the key.
    pub fn statement<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut lexer = Lexer::new(text.as_bytes());
        let tokens = std::iter::from_fn(|| lexer.token().ok().flatten());
        let mut words = tokens.filter(|it| it.kind == TokenKind::Word).map(|it| it.start..it.end);
        let from = words.find(|it| text[it.clone()].eq_ignore_ascii_case("from")).map(|it| it.start);
        match from {
            Some(at) if !self.unnamed.is_empty() => {
                let names: Vec<String> = self.unnamed.iter().map(|it| quote_name(it)).collect();
                Cow::Owned(format!("{}({}) {}", &text[..at], names.join(", "), &text[at..]))
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// Which fields `Router::copy_owner` has to be given.
    pub fn fields(&self) -> &[usize] {
        &self.fields
    }
}

impl Router {
    pub fn copy_owner(
        &self,
        plan: &CopyPlan,
        fields: &[CopyField<'_>],
        binary: bool,
        utc: bool,
    ) -> CopyOwner {
        let Some(index) = plan.class.map else { return CopyOwner::Every };
        let Some(map) = self.map(index) else { return CopyOwner::Every };
        let keys = KeySource { text: "", literals: &[], params: None };
        let class = &plan.class;
        let evaluation = Evaluation { router: self, class, index, map, keys: &keys, utc };
        match evaluation.copied(fields, binary) {
            Ok(shard) => CopyOwner::Shard(shard),
            Err(refusal) => CopyOwner::Unknown(refusal),
        }
    }
}

/// One key of the values of its columns.
pub(super) fn key_of(mut values: Vec<KeyValue>) -> Option<KeyValue> {
    match values.len() {
        1 => values.pop(),
        _ => Some(KeyValue::Row(values.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::plan::Keys;
    use crate::sql::CopyFormat;

    #[test]
    fn columns_of_the_catalog_are_named() {
        let class =
            Class { map: None, table: "t".into(), column: "id".into(), keys: Keys::All, writes: true };
        let (delimiter, quote) = (b',', b'"');
        let (format, null, default) = (CopyFormat::Csv, String::new(), None);
        let form = CopyForm { format, delimiter, null, default, quote, escape: quote, header: false };
        let mut plan = CopyPlan { form, class, fields: vec![1], unnamed: Vec::new() };
        let text = "copy /* from */ \"from\" from stdin with (format csv)";
        assert_eq!(plan.statement(text), text);
        plan.unnamed = vec!["a b".into(), "id".into()];
        assert_eq!(
            plan.statement(text),
            "copy /* from */ \"from\" (\"a b\", \"id\") from stdin with (format csv)"
        );
    }
}
