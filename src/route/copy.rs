//! COPY FROM STDIN into several shards: which fields of a record are its key, and whose the record is.

use super::evaluate::Evaluation;
use super::keys::KeySource;
use super::plan::Class;
use super::router::Router;
use crate::base::{Refusal, ShardId};
use crate::proto::CopyField;
use crate::shard::KeyValue;
use crate::sql::CopyForm;

/// How a COPY's data is split.
#[derive(Clone, Debug)]
pub struct CopyPlan {
    pub(super) form: CopyForm,
    pub(super) class: Class,
    /// Of the key's columns among those of a record, counted from 0; none where every shard gets every record.
    pub(super) fields: Vec<usize>,
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
