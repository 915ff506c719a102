//! A plan: all that can be said of a statement before its keys are known. It holds for every text of one
//! fingerprint, so a hit in the cache costs a lookup and a few key decodings (DESIGN D2).

use crate::base::{Access, Refusal};
use crate::sql::SetStatement;

/// What a text is, for the client task that handles it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No statement at all.
    Empty,
    /// Relayed to the shards of the decision.
    Statement,
    Begin {
        read_only: bool,
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
    /// It may give back what pins a server: CLOSE, DROP, an advisory unlock.
    pub may_release: bool,
    /// It calls pg_listening_channels.
    pub lists_channels: bool,
    /// Of the router that made it; a plan of another version is not to be used.
    pub version: u64,
    pub(super) target: Target,
    /// Said whatever the keys are.
    pub(super) refusal: Option<Refusal>,
    /// What its calls of set_config set.
    pub(super) settings: Box<[SettingPlaces]>,
    /// How many parameters a decision reads: the highest number among them.
    pub(super) params_read: u16,
}

impl Plan {
    /// What is said whatever the keys are.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
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
    /// The first one: NOTIFY, because that is where Keyway listens.
    First,
    Keyed(Keyed),
    /// A write of reference tables: every shard holds a copy.
    Everywhere,
    /// DDL.
    InTurn,
}

/// Tables that live where their keys say.
#[derive(Clone, Debug, Default)]
pub(super) struct Keyed {
    pub classes: Vec<Class>,
    /// What makes an answer of several shards more than their rows one after another.
    pub merge: Option<String>,
    pub writes: bool,
}

/// Sharded tables whose rows meet on one shard, because their keys are equated.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub map: usize,
    pub table: String,
    pub column: String,
    pub keys: Keys,
    pub writes: bool,
}

/// Algebra over key predicates (DESIGN D3).
#[derive(Clone, Debug)]
pub(super) enum Keys {
    All,
    Never,
    /// One of these values.
    Equal(Box<[KeyPlace]>),
    And(Box<[Keys]>),
    Or(Box<[Keys]>),
    /// The keys of inserted rows, each of which must have a place.
    Rows(Box<[KeyPlace]>),
}

impl Keys {
    pub fn and(parts: impl IntoIterator<Item = Keys>) -> Keys {
        let mut known: Vec<Keys> = parts.into_iter().filter(|it| !matches!(it, Keys::All)).collect();
        match known.len() {
            0 => Keys::All,
            1 => known.remove(0),
            _ => Keys::And(known.into()),
        }
    }

    pub fn or(parts: impl IntoIterator<Item = Keys>) -> Keys {
        let mut parts: Vec<Keys> = parts.into_iter().collect();
        match parts.len() {
            0 => Keys::Never,
            _ if parts.iter().any(|it| matches!(it, Keys::All)) => Keys::All,
            1 => parts.remove(0),
            _ => Keys::Or(parts.into()),
        }
    }

    pub fn params_read(&self) -> u16 {
        let of_places = |places: &[KeyPlace]| {
            let number = |it: &KeyPlace| match it {
                KeyPlace::Param { number, .. } => *number,
                _ => 0,
            };
            places.iter().map(number).max().unwrap_or(0)
        };
        match self {
            Keys::All | Keys::Never => 0,
            Keys::Equal(places) | Keys::Rows(places) => of_places(places),
            Keys::And(parts) | Keys::Or(parts) => parts.iter().map(Keys::params_read).max().unwrap_or(0),
        }
    }
}

/// A call of set_config, its arguments by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SettingPlaces {
    pub name: KeyPlace,
    pub value: KeyPlace,
    pub local: bool,
}

/// Where a key's value is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyPlace {
    Literal {
        index: u32,
        negative: bool,
    },
    /// From 1. `cast_oid` is the type that the text casts it to, 0 for none.
    Param {
        number: u16,
        cast_oid: u32,
    },
    Null,
}
