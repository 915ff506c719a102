//! From a plan and the values of its keys to shards and a role, or to a refusal.

use std::fmt;

use smallvec::{SmallVec, smallvec};

use crate::base::{Access, Reason, Refusal, Role, ShardId, SqlState};
use crate::shard::Place;
use crate::sql::CursorStatement;

use super::evaluate::{Met, NamedKey, Need};
use super::hint::SessionHint;
use super::keys::KeySource;
use super::plan::{Class, Keyed, Keys, Kind, Many, Plan, Target};
use super::router::Router;

/// Shards in ascending order, each once.
pub type ShardSet = SmallVec<[ShardId; 4]>;

/// What routing must know of the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionView {
    pub in_transaction: bool,
    pub read_only_transaction: bool,
    /// The shard that the open transaction, the pipeline or the pin is on.
    pub enlisted: Option<ShardId>,
    /// The open transaction may take servers of further shards, to read there and to write on one of all.
    pub spreads: bool,
    /// The shard that the open transaction has written on.
    pub written: Option<ShardId>,
    /// TimeZone is UTC.
    pub utc: bool,
    /// Chooses where any shard will do.
    pub entropy: u64,
    /// Read only where the database has schemas that live on one shard.
    pub path: Path,
}

/// What the session's search_path says of a name without schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Path {
    /// The session has not set it, and the server's own value is not known.
    #[default]
    Unknown,
    /// It does not begin with a schema that lives on one shard.
    Elsewhere,
    /// It begins with a schema of this shard.
    Shard(ShardId),
}

/// How the shards of a decision are to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    One,
    /// A read on several shards, whose rows are put after one another.
    Scatter,
    /// A read on several shards, whose answers make one (`Plan::shard_read`).
    Merge,
    /// A write of reference tables: on each shard in a transaction of its own.
    Everywhere,
    /// A write of rows of several shards: each does the statement in a transaction of its own.
    OnePhase,
    /// Likewise, each with a statement for its own rows (`Plan::inserted_rows`).
    Split,
    /// COPY FROM STDIN: each gets its rows, in a transaction of its own (`Plan::copy`).
    Copy,
    /// DDL: one shard after the other.
    InTurn,
}

impl Mode {
    /// A read on several shards.
    pub fn reads_many(self) -> bool {
        matches!(self, Mode::Scatter | Mode::Merge)
    }

    pub fn label(self) -> &'static str {
        match self {
            Mode::One => "one",
            Mode::Scatter => "scatter",
            Mode::Merge => "merge",
            Mode::Everywhere => "everywhere",
            Mode::OnePhase => "one_phase",
            Mode::Split => "split",
            Mode::Copy => "copy",
            Mode::InTurn => "in_turn",
        }
    }
}

/// Keys that a statement names, each once; those past the first [`KEYS_COUNTED_MAX`] are left out.
pub type KeySet = SmallVec<[KeyRef; 1]>;

/// Past so many a statement is no load of single keys.
pub const KEYS_COUNTED_MAX: usize = 32;

/// A key that a statement names, for the counts of hot keys. `map` is an index into the database's maps; behind those
/// stand the maps by which a database of one shard tells its rows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef {
    pub map: u16,
    pub place: Place,
    /// A hash of the table's name, where keys of different tables are different keys: in a database of one shard. Else 0.
    pub table: u64,
}

/// Why these shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The database has one shard.
    OnlyShard,
    /// Keys of the statement name them.
    Keys,
    /// Its tables live on one shard, whatever their rows.
    Table,
    /// No key restricts the read.
    NoKey,
    /// The keys contradict each other or are NULL: no row anywhere, so any shard says so.
    NoRow,
    /// Nothing in it belongs to a shard, so it is no reason to bind a transaction to one.
    Anywhere,
    /// A notification, which is sent on the first shard.
    Notify,
    /// Every shard holds a copy that must change.
    EveryCopy,
    /// The key of each row that is copied.
    EachRow,
    /// Every shard has the schema.
    Ddl,
    /// A hint names it.
    Hint,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::OnlyShard => "the database has one shard",
            Why::Keys => "its shard keys name them",
            Why::Table => "its tables live there",
            Why::NoKey => "no shard key restricts it",
            Why::NoRow => "no row can satisfy its shard keys, so any shard answers",
            Why::Anywhere => "it reads nothing that belongs to a shard, so any shard answers",
            Why::Notify => "notifications of clients are sent on the first shard",
            Why::EveryCopy => "it changes a reference table, which every shard holds",
            Why::EachRow => "each row goes where its shard key says",
            Why::Hint => "a keyway hint names it",
            Why::Ddl => "every shard has the schema",
        })
    }
}

/// Where a statement goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub shards: ShardSet,
    pub role: Role,
    pub mode: Mode,
    pub keys: KeySet,
    pub why: Why,
}

impl Router {
    /// Decides where the statement of `plan` goes. Pure: all it reads is passed in.
    pub fn decide(
        &self,
        plan: &Plan,
        keys: &KeySource<'_>,
        session: &SessionView,
    ) -> Result<Decision, Refusal> {
        if plan.hinted {
            return self.decide_hinted(plan, keys, session, &SessionHint::default());
        }
        self.decide_plain(plan, keys, session)
    }

    pub(super) fn role(&self, plan: &Plan, session: &SessionView) -> Role {
        let replica = plan.access == Access::Read
            && !plan.primary_only
            && (!session.in_transaction || session.read_only_transaction);
        if replica { Role::Replica } else { Role::Primary }
    }

    /// Without a look at hints.
    pub(super) fn decide_plain(
        &self,
        plan: &Plan,
        keys: &KeySource<'_>,
        session: &SessionView,
    ) -> Result<Decision, Refusal> {
        if let Some(refusal) = &plan.refusal {
            return Err(refusal.clone());
        }
        let role = self.role(plan, session);
        let on = |shards, mode, named, why| Decision { shards, role, mode, keys: named, why };
        if self.shard_count() == 1 {
            let named = self.only_shard_keys(plan, keys, session);
            return Ok(on(smallvec![ShardId(0)], Mode::One, named, Why::OnlyShard));
        }
        match &plan.target {
            Target::Anywhere => {
                Ok(on(self.any_shard(session, plan.access), Mode::One, KeySet::new(), Why::Anywhere))
            }
            Target::First => match self.held_elsewhere(session, Access::Write, ShardId(0)) {
                Some(elsewhere) => Err(notify_elsewhere(self, elsewhere)),
                None => Ok(on(smallvec![ShardId(0)], Mode::One, KeySet::new(), Why::Notify)),
            },
            Target::InTurn if session.in_transaction => Err(Refusal::unsupported(
                Reason::Ddl,
                "a statement for every shard cannot run in a transaction",
                "run it outside of a transaction: it is sent to each shard in turn",
            )),
            Target::InTurn => Ok(on(self.all_shards(), Mode::InTurn, KeySet::new(), Why::Ddl)),
            Target::Everywhere if session.in_transaction => Err(Refusal::unsupported(
                Reason::MultiShardWrite,
                "a reference table cannot be written in a transaction",
                "run the statement outside of a transaction: it is committed on each shard by itself",
            )),
            Target::Everywhere if keys.name_the_clock() => Err(Refusal::unsupported(
                Reason::MultiShardWrite,
                "a date relative to now could give each copy of a reference table other rows",
                "compute the value in the application and pass it as a constant",
            )),
            Target::Everywhere => Ok(on(self.all_shards(), Mode::Everywhere, KeySet::new(), Why::EveryCopy)),
            Target::Copy(plan) if session.in_transaction || session.enlisted.is_some() => {
                Err(Refusal::unsupported(
                    Reason::MultiShardWrite,
                    format!("COPY FROM STDIN into table \"{}\" cannot stand in a transaction", plan.table()),
                    "copy outside of the transaction: all of it is kept, or nothing",
                ))
            }
            Target::Copy(_) => Ok(on(self.all_shards(), Mode::Copy, KeySet::new(), Why::EachRow)),
            Target::Keyed(keyed) => {
                let (shards, named, why) = self.keyed(keyed, keys, session, plan.access)?;
                let mode = match &keyed.many {
                    _ if shards.len() == 1 => Mode::One,
                    many if matches!(plan.kind, Kind::Cursor(_)) => declared(plan, many, session)?,
                    Many::Merged(_) => Mode::Merge,
                    Many::Written => Mode::OnePhase,
                    Many::Split(_) => Mode::Split,
                    _ => Mode::Scatter,
                };
                Ok(on(shards, mode, named, why))
            }
        }
    }

    /// The keys are counted; that one cannot be read is for the server to say.
    fn only_shard_keys(&self, plan: &Plan, keys: &KeySource<'_>, session: &SessionView) -> KeySet {
        let mut met = Met::default();
        for class in plan.counted_classes() {
            if self.need(class, keys, session, &mut met).is_err() {
                return KeySet::new();
            }
        }
        met.keys()
    }

    /// The values of the keys that `decide` counts, for those who may know them. It evaluates them again: few
    /// statements are asked.
    pub fn key_values(&self, plan: &Plan, keys: &KeySource<'_>, session: &SessionView) -> Vec<NamedKey> {
        let mut met = Met::catching();
        for class in plan.counted_classes() {
            if self.need(class, keys, session, &mut met).is_err() {
                break;
            }
        }
        met.caught()
    }

    /// Where a write may run anywhere, a transaction that has written goes on where it did.
    fn any_shard(&self, session: &SessionView, access: Access) -> ShardSet {
        let any = (session.entropy % self.shard_count() as u64) as u16;
        let written = session.written.filter(|_| access == Access::Write);
        smallvec![written.or(session.enlisted).unwrap_or(ShardId(any))]
    }

    /// The shard that keeps the session from this one, if one does.
    pub(super) fn held_elsewhere(
        &self,
        session: &SessionView,
        access: Access,
        shard: ShardId,
    ) -> Option<ShardId> {
        let enlisted = session.enlisted?;
        let holds = match access {
            _ if !session.spreads => Some(enlisted),
            Access::Read => None,
            Access::Write => session.written,
        };
        holds.filter(|it| *it != shard)
    }

    fn all_shards(&self) -> ShardSet {
        (0..self.shard_count() as u16).map(ShardId).collect()
    }

    fn keyed(
        &self,
        keyed: &Keyed,
        keys: &KeySource<'_>,
        session: &SessionView,
        access: Access,
    ) -> Result<(ShardSet, KeySet, Why), Refusal> {
        let mut met = Met::default();
        let mut needed: Option<(&Class, ShardSet)> = None;
        let (mut unrestricted, mut by_path) = (None, None);
        for class in &keyed.classes {
            let need = self.need(class, keys, session, &mut met)?;
            if let (Keys::Path, Path::Shard(_)) = (&class.keys, session.path) {
                by_path = Some(class);
            }
            match need {
                Need::All => {
                    unrestricted.get_or_insert(class);
                }
                Need::Some(shards) if shards.is_empty() => {}
                Need::Some(shards) => {
                    let (first, mut all) = needed.take().unwrap_or((class, ShardSet::new()));
                    all.extend(shards);
                    all.sort_unstable();
                    all.dedup();
                    needed = Some((first, all));
                }
            }
        }
        let named = met.keys();
        let fixed = keyed.classes.iter().all(|it| it.map.is_none());
        let (class, shards, why) = match (unrestricted, needed) {
            (Some(class), _) => (class, self.all_shards(), Why::NoKey),
            (None, Some((class, shards))) => (class, shards, if fixed { Why::Table } else { Why::Keys }),
            // A name that might have been of a schema on one shard, and is not.
            (None, None) if fixed => {
                return Ok((self.any_shard(session, access), KeySet::new(), Why::Anywhere));
            }
            (None, None) => return Ok((self.any_shard(session, access), named, Why::NoRow)),
        };
        if let (Some(class), 2..) = (by_path, shards.len()) {
            return Err(unclear_schema(class));
        }
        match &shards[..] {
            [only] => match self.held_elsewhere(session, access, *only) {
                Some(elsewhere) => Err(two_shards(self, elsewhere, *only)),
                None => Ok((shards, named, why)),
            },
            _ if keyed.writes => {
                self.several_written(keyed, class, keys, session, why).map(|()| (shards, named, why))
            }
            _ => self.several(keyed, class, session, access).map(|()| (shards, named, why)),
        }
    }

    /// Whether a write may be done by several shards.
    fn several_written(
        &self,
        keyed: &Keyed,
        class: &Class,
        keys: &KeySource<'_>,
        session: &SessionView,
        why: Why,
    ) -> Result<(), Refusal> {
        let refuse = |message, hint| Err(Refusal::unsupported(Reason::MultiShardWrite, message, hint));
        let Class { table, column, .. } = class;
        let restrict = match &class.map {
            Some(_) => {
                format!("restrict it to one shard with \"{column}\" = ..., or write each key by itself")
            }
            None => restrict(class),
        };
        if !self.writes_in_one_phase() {
            let message = match why {
                Why::NoKey => format!("a write of table \"{table}\" must name its shard key \"{column}\""),
                _ => format!("a write of table \"{table}\" would touch several shards"),
            };
            let setting = "; with cross_shard_writes = \"one_phase\" each shard commits by itself";
            return refuse(
                message,
                restrict + if matches!(keyed.many, Many::Refused(_)) { "" } else { setting },
            );
        }
        if let Many::Refused(what) = &keyed.many {
            return refuse(format!("{what} in a write on several shards is not supported"), restrict);
        }
        // A pipeline without its Sync is a transaction too.
        if session.in_transaction || session.enlisted.is_some() {
            return refuse(
                format!("a write of table \"{table}\" on several shards cannot stand in a transaction"),
                format!("{restrict}, or run it outside of the transaction"),
            );
        }
        if keys.name_the_clock() {
            return refuse(
                "a date relative to now could give each shard another time".to_owned(),
                "compute the value in the application and pass it as a constant".to_owned(),
            );
        }
        Ok(())
    }

    /// Whether a read may run on several shards.
    fn several(
        &self,
        keyed: &Keyed,
        class: &Class,
        session: &SessionView,
        access: Access,
    ) -> Result<(), Refusal> {
        let restrict = restrict(class);
        if let Many::Refused(what) = &keyed.many {
            return Err(Refusal::unsupported(
                Reason::MultiShardRead,
                format!("{what} over several shards is not supported"),
                match &class.map {
                    Some(_) => format!("{restrict}, or leave it out"),
                    None => restrict,
                },
            ));
        }
        if session.spreads && access == Access::Write {
            return Err(Refusal::unsupported(
                Reason::MultiShardWrite,
                "a statement that may write cannot run on several shards in a transaction",
                format!("{restrict}, or run it outside of the transaction"),
            ));
        }
        if (session.enlisted.is_some() || session.in_transaction) && !session.spreads {
            return Err(Refusal::unsupported(
                Reason::MultiShardRead,
                "several shards cannot be read in a pipeline, or with a server that keeps state of the session",
                format!("{restrict}, or send it by itself, behind a Sync"),
            ));
        }
        Ok(())
    }
}

/// How several shards open a cursor.
fn declared(plan: &Plan, many: &Many, session: &SessionView) -> Result<Mode, Refusal> {
    let refuse = |what: &str, hint: &'static str| {
        Err(Refusal::unsupported(
            Reason::MultiShardRead,
            format!("{what} over several shards is not supported"),
            hint,
        ))
    };
    match (&plan.kind, many) {
        (Kind::Cursor(CursorStatement::Declare { scroll: true, .. }), _) => {
            refuse("a SCROLL cursor", "declare it NO SCROLL, or restrict it to one shard with its shard key")
        }
        _ if !session.in_transaction => Err(Refusal::new(
            Reason::Protocol,
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            "DECLARE CURSOR can only be used in transaction blocks",
        )),
        (_, Many::Merged(_) | Many::Rows(Some(_))) => Ok(Mode::Merge),
        _ => refuse("a cursor of a statement of this form", "restrict it to one shard with its shard key"),
    }
}

/// Of tables that live on one shard each, none has a key to restrict.
fn restrict(class: &Class) -> String {
    let Class { table, column, .. } = class;
    match &class.map {
        Some(_) => format!("restrict table \"{table}\" to one shard with \"{column}\" = ..."),
        None => format!("leave out table \"{table}\", or what does not live on its shard"),
    }
}

/// On the shard of the schema the name means that schema's table, on others another one.
fn unclear_schema(class: &Class) -> Refusal {
    Refusal::unsupported(
        Reason::MultiShardRead,
        format!(
            "table \"{}\" may be another one on each shard: search_path begins with a schema of one shard",
            class.table
        ),
        "name the schema of each table",
    )
}

fn notify_elsewhere(router: &Router, enlisted: ShardId) -> Refusal {
    let first = router.shard_name(ShardId(0));
    Refusal::unsupported(
        Reason::MultiShardWrite,
        format!("NOTIFY in a transaction of another shard than \"{first}\" is not supported"),
        "send the notification outside of the transaction, when it is committed",
    )
    .detail(format!(
        "notifications of a database of several shards are sent on shard \"{first}\", the transaction is on \
         shard \"{}\"",
        router.shard_name(enlisted)
    ))
}

pub(super) fn two_shards(router: &Router, enlisted: ShardId, wanted: ShardId) -> Refusal {
    Refusal::unsupported(
        Reason::MultiShardWrite,
        "transaction would touch two shards",
        "use one shard key per transaction, or run the statement outside of it",
    )
    .detail(format!(
        "the transaction is on shard \"{}\", the statement belongs to shard \"{}\"",
        router.shard_name(enlisted),
        router.shard_name(wanted)
    ))
}
