//! Which rows a statement reads and writes, as far as that is known before its keys are: what floors are kept for
//! (DESIGN D5). A table goes by its name alone, whatever its schema is, and a partition by the table that it is part of:
//! two that share a name share their floors, which errs to the fresh side.

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::decide::SessionView;
use super::evaluate::{Evaluation, Met, Need};
use super::keys::KeySource;
use super::plan::{Class, Keys, Plan};
use super::router::Router;

/// Keys that a statement names one by one; past it, it is taken to name any.
pub const KEYS_MAX: usize = 32;

#[derive(Clone, Debug, Default)]
pub struct Footprint {
    pub reads: Touched,
    pub writes: Touched,
    /// By whose keys rows are told apart: the only class of tables that have any.
    pub(super) class: Option<Class>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    Tables(Box<[TouchedTable]>),
    /// Or nobody can tell.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TouchedTable {
    /// A hash of its name.
    pub id: u64,
    /// Its rows are those of the statement's keys ([`Router::touched_keys`]), where these are known.
    pub keyed: bool,
}

impl Default for Touched {
    fn default() -> Touched {
        Touched::Tables(Box::default())
    }
}

impl Touched {
    pub fn is_nothing(&self) -> bool {
        matches!(self, Touched::Tables(it) if it.is_empty())
    }

    pub(super) fn and(self, other: Touched) -> Touched {
        match (self, other) {
            (Touched::Tables(a), Touched::Tables(b)) => Touched::of(a.iter().chain(&b).copied().collect()),
            _ => Touched::All,
        }
    }

    /// Each table once: keyed where it is keyed wherever it stands.
    pub(super) fn of(mut tables: Vec<TouchedTable>) -> Touched {
        tables.sort_unstable_by_key(|it| (it.id, it.keyed));
        tables.dedup_by_key(|it| it.id);
        Touched::Tables(tables.into())
    }
}

impl Footprint {
    /// Of code or text that nobody has read.
    pub(super) fn all() -> Footprint {
        Footprint { reads: Touched::All, writes: Touched::All, class: None }
    }

    /// Of a text with both statements. Keys tell rows apart for one of them alone.
    pub(super) fn and(self, other: Footprint) -> Footprint {
        if other.reads.is_nothing() && other.writes.is_nothing() {
            return self;
        }
        if self.reads.is_nothing() && self.writes.is_nothing() {
            return other;
        }
        Footprint { reads: self.reads.and(other.reads), writes: self.writes.and(other.writes), class: None }
    }

    /// How many parameters have to be known for its keys to be.
    pub fn params_read(&self) -> u16 {
        self.class.as_ref().map_or(0, |it| it.keys.params_read())
    }
}

pub(super) fn table_id(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Rows that satisfy it all have one of the keys that its evaluation meets.
pub(super) fn names_keys(keys: &Keys) -> bool {
    match keys {
        Keys::Equal(_) | Keys::Product(_) | Keys::Rows(_) => true,
        Keys::And(parts) => parts.iter().any(names_keys),
        Keys::All | Keys::Never | Keys::On(..) | Keys::Path | Keys::Between(_) | Keys::Or(_) => false,
    }
}

impl Router {
    /// Hashes of the keys whose rows a statement touches in its keyed tables; `None` where it may be any.
    pub fn touched_keys(
        &self,
        plan: &Plan,
        keys: &KeySource<'_>,
        session: &SessionView,
    ) -> Option<SmallVec<[u64; 4]>> {
        let class = plan.footprint.class.as_ref()?;
        let index = class.map?;
        let map = self.any_map(index)?;
        let evaluation = Evaluation { router: self, class, index, map, keys, utc: session.utc };
        listed_keys(&evaluation, &class.keys)
    }
}

/// Those of one part are enough: rows satisfy all of them.
fn listed_keys(evaluation: &Evaluation<'_>, keys: &Keys) -> Option<SmallVec<[u64; 4]>> {
    match keys {
        Keys::And(parts) => {
            parts.iter().filter(|it| names_keys(it)).find_map(|it| listed_keys(evaluation, it))
        }
        keys if names_keys(keys) => {
            let mut met = Met::listing();
            match evaluation.need(keys, &mut met) {
                Ok(Need::Some(_)) => met.listed().filter(|it| !it.is_empty()),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_keyed_only_where_it_always_is() {
        let table = |name: &str, keyed| TouchedTable { id: table_id(name), keyed };
        let both = Touched::of(vec![table("a", true), table("b", true), table("a", false)]);
        let Touched::Tables(tables) = &both else { panic!() };
        let keyed = |name| tables.iter().find(|it| it.id == table_id(name)).map(|it| it.keyed);
        assert_eq!((keyed("a"), keyed("b"), keyed("c")), (Some(false), Some(true), None));
        assert_eq!(both.clone().and(Touched::All), Touched::All);
        assert_eq!(both.clone().and(Touched::default()), both);
    }
}
