//! A plan: all that can be said of a statement before its keys are known. It holds for every text of one
//! fingerprint, so a hit in the cache costs a lookup and a few key decodings (DESIGN D2).

use std::sync::Arc;
use std::time::Duration;

use super::copy::CopyPlan;
use super::footprint::Footprint;
use super::reads::ShardRead;
use crate::base::{Access, Refusal, ShardId};
use crate::sql::{ColumnLists, CursorStatement, InsertedRows, Isolation, SchemaChange, SetStatement};

/// What a text is, for the client task that handles it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No statement at all.
    Empty,
    /// Relayed to the shards of the decision.
    Statement,
    Begin {
        read_only: bool,
        isolation: Option<Isolation>,
    },
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint,
    RollbackTo,
    Release,
    Set(SetStatement),
    /// EXPLAIN (KEYWAY), which Keyway answers.
    ExplainRouting,
    Show(String),
    CopyIn,
    CopyOut,
    /// To every shard, one after the other.
    Ddl,
    /// Leaves state in the session that only its server has; the text is the reason's label.
    SessionState(&'static str),
    DiscardAll,
    DeallocateAll,
    Deallocate(String),
    Listen(String),
    /// Of one channel, or of all.
    Unlisten(Option<String>),
    /// Of cursors that end with their transaction.
    Cursor(CursorStatement),
    /// Several statements in one text, routed as one; what each is, in their order.
    Several {
        parts: Box<[Kind]>,
        transaction_control: bool,
    },
}

impl Kind {
    pub fn is_transaction_control(&self) -> bool {
        match self {
            Kind::Begin { .. }
            | Kind::Commit { .. }
            | Kind::Rollback { .. }
            | Kind::Savepoint
            | Kind::RollbackTo
            | Kind::Release => true,
            Kind::Several { transaction_control, .. } => *transaction_control,
            _ => false,
        }
    }
}

/// What `compile` makes of a text for one database and one version of its maps.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub access: Access,
    /// A read that only the primary answers as the client expects: system catalogs, SHOW.
    pub primary_only: bool,
    /// Run again later or on another shard, a read gives the same rows: it leaves nothing behind and tells
    /// no time. Only what reads no shard's own rows is meant here.
    pub repeatable: bool,
    /// False if the text could not be parsed or holds something that Keyway does not read; then it may
    /// have left anything behind in its session.
    pub understood: bool,
    /// What it may leave in its session by code that the text does not show.
    pub leaves: Option<Leaves>,
    /// It uses a table or function of which the catalog tells what it does.
    pub meets_catalog: bool,
    pub schema_change: SchemaChange,
    /// It may give back what pins a server: CLOSE, DROP, an advisory unlock.
    pub may_release: bool,
    /// It calls pg_listening_channels.
    pub lists_channels: bool,
    /// Literals whose values were looked at: it holds for texts that have these in common.
    pub(super) fixed_literals: Box<[u32]>,
    /// Of the router that made it; a plan of another version is not to be used.
    pub version: u64,
    pub(super) target: Target,
    /// Said whatever the keys are.
    pub(super) refusal: Option<Refusal>,
    /// Its text holds a routing hint.
    pub(super) hinted: bool,
    /// The refusal is of tables alone whose shard is not known, which a hint can name.
    pub(super) answers_to_hints: bool,
    /// What its calls of set_config set.
    pub(super) settings: Box<[SettingPlaces]>,
    /// Which rows it touches.
    pub footprint: Footprint,
    pub subject: Subject,
    pub protected: Protected,
    /// How many parameters a decision reads: the highest number among them.
    pub(super) params_read: u16,
    /// What its INSERTs into sharded tables leave to the catalog.
    pub(super) unnamed: Option<Arc<ColumnLists>>,
}

/// What a statement is counted under: the first table that it writes, else reads, and the map of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// As the text names it, with its schema where it does.
    pub table: Option<Arc<str>>,
    /// A hash of `table`.
    pub table_id: u64,
    pub map: Option<u16>,
}

/// What may be done for a statement while its tables, or keys of them, are hot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// A read that sessions of one user with the same settings may have one answer of.
    pub shareable: bool,
    /// All its tables say that they are to.
    pub shares: bool,
    /// How long its answer may be kept.
    pub cache_ttl: Option<Duration>,
    /// It writes rows.
    pub write: Option<KeyWrite>,
}

/// A write of rows, for those who want to write the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWrite {
    /// A hash of the table's name, without its schema.
    pub table: u64,
    /// How many transactions may begin with a write of one key at once, as the table says.
    pub at_once: Option<usize>,
    /// A key is of one row: two writes of it wait for one another.
    pub of_one_row: bool,
}

/// What functions, triggers, views and the like may leave behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaves {
    /// Settings may be changed too.
    pub settings: bool,
    /// Only because of a table that the catalog does not have, as it has no temporary ones.
    pub unknown_table: bool,
}

impl Leaves {
    pub fn and(self, other: Leaves) -> Leaves {
        Leaves {
            settings: self.settings || other.settings,
            unknown_table: self.unknown_table && other.unknown_table,
        }
    }
}

impl Plan {
    /// What is said whatever the keys are.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// It reads or writes rows, and there is nothing else to it that Keyway answers, keeps in mind or prepares.
    pub fn is_plain(&self) -> bool {
        self.kind == Kind::Statement
            && self.understood
            && !self.lists_channels
            && self.settings.is_empty()
            && self.unnamed.is_none()
    }

    /// Values of literals were looked at: it holds for texts that have these in common.
    pub fn looks_at_literals(&self) -> bool {
        !self.fixed_literals.is_empty()
    }

    /// Its text holds a routing hint.
    pub fn is_hinted(&self) -> bool {
        self.hinted
    }

    /// The shard of a table that lives on one alone: what has to be parsed before its keys are known is parsed
    /// there, for others may lack the table.
    pub fn home(&self) -> Option<ShardId> {
        let Target::Keyed(keyed) = &self.target else { return None };
        keyed.classes.iter().find_map(|it| match it.keys {
            Keys::On(shard, _) => Some(shard),
            _ => None,
        })
    }

    /// How the shards of a decision in `Mode::Merge` answer.
    pub fn shard_read(&self) -> Option<&Arc<ShardRead>> {
        match &self.target {
            Target::Keyed(Keyed { many: Many::Merged(read) | Many::Rows(Some(read)), .. }) => Some(read),
            _ => None,
        }
    }

    /// How the shards of a decision in `Mode::Copy` are given their rows.
    pub fn copy(&self) -> Option<&Arc<CopyPlan>> {
        match &self.target {
            Target::Copy(plan) => Some(plan),
            _ => None,
        }
    }

    /// How the shards of a decision in `Mode::Split` write.
    pub fn inserted_rows(&self) -> Option<InsertedRows> {
        match &self.target {
            Target::Keyed(Keyed { many: Many::Split(rows), .. }) => Some(*rows),
            _ => None,
        }
    }

    /// Columns that servers have to be sent by name, because a catalog that has grown old would take another one
    /// for the key: then the server objects in place of keeping the row.
    pub fn column_lists(&self) -> Option<&Arc<ColumnLists>> {
        self.unnamed.as_ref()
    }

    /// Whose keys are counted: of the maps of its tables, else of its table's primary key, of which a database of one shard
    /// knows.
    pub(super) fn counted_classes(&self) -> &[Class] {
        match &self.target {
            Target::Keyed(keyed) => &keyed.classes,
            _ => self.footprint.class.as_slice(),
        }
    }

    /// Whether counting its keys needs the values of parameters, where deciding does not.
    pub fn counts_params(&self) -> bool {
        !matches!(self.target, Target::Keyed(_)) && self.footprint.params_read() > 0
    }

    /// Whether deciding needs the values of parameters, so that it has to wait for Bind.
    pub fn needs_params(&self) -> bool {
        self.params_read > 0
    }
}

/// Which shards, as far as that is known without keys.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Any one: no table, a reference table, a catalog.
    Anywhere,
    /// The first one: NOTIFY, so that it is told once.
    First,
    Keyed(Keyed),
    /// A write of reference tables: every shard holds a copy.
    Everywhere,
    /// Each shard gets its rows of COPY FROM STDIN.
    Copy(Arc<CopyPlan>),
    /// DDL.
    InTurn,
}

impl Default for Many {
    fn default() -> Many {
        Many::Rows(None)
    }
}

/// Tables that live where their keys say.
#[derive(Clone, Debug, Default)]
pub(super) struct Keyed {
    pub classes: Vec<Class>,
    pub many: Many,
    /// Until the plan has them.
    pub fixed_literals: Box<[u32]>,
    pub writes: bool,
}

/// How several shards answer a read, or do a write.
#[derive(Clone, Debug)]
pub(super) enum Many {
    /// Their rows follow one another; the same as a merge, where that was possible.
    Rows(Option<Arc<ShardRead>>),
    Merged(Arc<ShardRead>),
    /// Each writes those of its rows that the statement means, and reads only what lies beside them.
    Written,
    /// Each inserts the rows whose keys are its own.
    Split(InsertedRows),
    /// They do not, because of this.
    Refused(String),
}

/// Sharded tables whose rows meet on one shard, because their keys are equated or all live on it.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// `None` for tables that live on one shard, whatever their rows.
    pub map: Option<usize>,
    pub table: String,
    /// The key's columns, with commas between them.
    pub column: String,
    pub keys: Keys,
    pub writes: bool,
}

/// Algebra over key predicates (DESIGN D3). A place stands for a column of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    All,
    Never,
    /// The shard itself, and why.
    On(ShardId, Fixed),
    /// The shard of the schema that comes first in the session's search_path.
    Path,
    /// A key of one column has one of these values.
    Equal(Box<[KeyPlace]>),
    /// Each column of a key of several has one of its values.
    Product(Box<[Box<[KeyPlace]>]>),
    /// The first column of the key is between these.
    Between(Interval),
    And(Box<[Keys]>),
    Or(Box<[Keys]>),
    /// The keys of inserted rows, each of which must have a place; a key takes as many places as it has
    /// columns.
    Rows(Box<[KeyPlace]>),
}

/// Why a table lives on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fixed {
    /// Its `shard` says so.
    Table,
    /// The shard of its schema.
    Schema,
    /// `default_shard`.
    Default,
}

/// An interval by the places of its ends; `None` has no end there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub from: Option<End>,
    pub to: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub place: KeyPlace,
    pub inclusive: bool,
}

impl Keys {
    pub fn and(parts: impl IntoIterator<Item = Keys>) -> Keys {
        let mut known: Vec<Keys> = Vec::new();
        for part in parts {
            match (part, known.last_mut()) {
                (Keys::All, _) => {}
                // `k >= 1 AND k < 5` is one interval; as two, each would ask the shards of its half.
                (Keys::Between(next), Some(Keys::Between(last))) if last.is_half_of(&next) => {
                    *last = Interval { from: last.from.or(next.from), to: last.to.or(next.to) };
                }
                (part, _) => known.push(part),
            }
        }
        match known.len() {
            0 => Keys::All,
            1 => known.remove(0),
            _ => Keys::And(known.into()),
        }
    }

    pub fn or(parts: impl IntoIterator<Item = Keys>) -> Keys {
        let mut parts: Vec<Keys> = parts.into_iter().collect();
        if parts.len() > 1 && parts.iter().all(|it| matches!(it, Keys::Equal(_))) {
            let places = parts.iter().flat_map(|it| match it {
                Keys::Equal(places) => &places[..],
                _ => &[],
            });
            return Keys::Equal(places.copied().collect());
        }
        match parts.len() {
            0 => Keys::Never,
            _ if parts.iter().any(|it| matches!(it, Keys::All)) => Keys::All,
            1 => parts.remove(0),
            _ => Keys::Or(parts.into()),
        }
    }

    /// The highest number among the parameters that it reads.
    pub fn params_read(&self) -> u16 {
        let of_places = |places: &[KeyPlace]| places.iter().map(KeyPlace::param).max().unwrap_or(0);
        match self {
            Keys::All | Keys::Never | Keys::On(..) | Keys::Path => 0,
            Keys::Equal(places) | Keys::Rows(places) => of_places(places),
            Keys::Product(columns) => columns.iter().map(|it| of_places(it)).max().unwrap_or(0),
            Keys::Between(it) => {
                let ends = [it.from, it.to].into_iter().flatten();
                ends.map(|it| it.place.param()).max().unwrap_or(0)
            }
            Keys::And(parts) | Keys::Or(parts) => parts.iter().map(Keys::params_read).max().unwrap_or(0),
        }
    }
}

impl Interval {
    fn is_half_of(&self, other: &Interval) -> bool {
        let ends = |it: &Interval| (it.from.is_some(), it.to.is_some());
        matches!((ends(self), ends(other)), ((true, false), (false, true)) | ((false, true), (true, false)))
    }
}

/// A call of set_config, its arguments by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SettingPlaces {
    pub name: KeyPlace,
    pub value: KeyPlace,
    pub local: bool,
}

/// Where a key's value is found. `cast_oid` is the type that the text casts it to, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyPlace {
    Literal {
        index: u32,
        negative: bool,
        cast_oid: u32,
    },
    /// From 1.
    Param {
        number: u16,
        cast_oid: u32,
    },
    /// A parameter of IS NOT DISTINCT FROM, so that NULL is a value.
    Same {
        number: u16,
        cast_oid: u32,
    },
    /// Each element of an array; the cast is the elements'.
    EachParam {
        number: u16,
        cast_oid: u32,
    },
    EachLiteral {
        index: u32,
        cast_oid: u32,
    },
    Bool(bool),
    Null,
}

impl KeyPlace {
    /// 0 if it reads none.
    fn param(&self) -> u16 {
        match self {
            KeyPlace::Param { number, .. }
            | KeyPlace::Same { number, .. }
            | KeyPlace::EachParam { number, .. } => *number,
            _ => 0,
        }
    }
}
