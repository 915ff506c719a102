//! From a plan and the values of its keys to shards and a role, or to a refusal.

use std::fmt;

use smallvec::{SmallVec, smallvec};

use crate::base::{Access, Reason, Refusal, Role, ShardId, SqlState};
use crate::shard::{Map, Place};

use super::keys::{Key, KeySource, Purpose};
use super::plan::{Class, Keyed, Keys, Plan, Target};
use super::router::Router;

/// Shards in ascending order, each once.
pub type ShardSet = SmallVec<[ShardId; 4]>;

/// What routing must know of the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionView {
    pub in_transaction: bool,
    pub read_only_transaction: bool,
    /// The shard that the open transaction is on.
    pub enlisted: Option<ShardId>,
    /// TimeZone is UTC.
    pub utc: bool,
    /// Chooses where any shard will do.
    pub entropy: u64,
}

/// How the shards of a decision are to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    One,
    /// A read on several shards, whose rows are put after one another.
    Scatter,
    /// A write of reference tables: on each shard in a transaction of its own.
    Everywhere,
    /// DDL: one shard after the other.
    InTurn,
}

impl Mode {
    pub fn label(self) -> &'static str {
        match self {
            Mode::One => "one",
            Mode::Scatter => "scatter",
            Mode::Everywhere => "everywhere",
            Mode::InTurn => "in_turn",
        }
    }
}

/// A key that a statement names, for the counts of hot keys. `map` is an index into the database's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef {
    pub map: u16,
    pub place: Place,
}

/// Why these shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The database has one shard.
    OnlyShard,
    /// Keys of the statement name them.
    Keys,
    /// No key restricts the read.
    NoKey,
    /// The keys contradict each other or are NULL: no row anywhere, so any shard says so.
    NoRow,
    /// Nothing in it belongs to a shard, so it is no reason to bind a transaction to one.
    Anywhere,
    /// A notification, which is sent where Keyway listens.
    Notify,
    /// Every shard holds a copy that must change.
    EveryCopy,
    /// Every shard has the schema.
    Ddl,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::OnlyShard => "the database has one shard",
            Why::Keys => "its shard keys name them",
            Why::NoKey => "no shard key restricts it",
            Why::NoRow => "no row can satisfy its shard keys, so any shard answers",
            Why::Anywhere => "it reads nothing that belongs to a shard, so any shard answers",
            Why::Notify => "notifications are sent on the first shard, where keyway listens",
            Why::EveryCopy => "it changes a reference table, which every shard holds",
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
    /// Where exactly one key is named.
    pub key: Option<KeyRef>,
    pub why: Why,
}

/// The shards that a class of tables needs.
enum Need {
    All,
    Some(ShardSet),
}

/// The keys that an evaluation met.
#[derive(Default)]
struct Met {
    first: Option<KeyRef>,
    more: bool,
}

impl Router {
    /// Decides where the statement of `plan` goes. Pure: all it reads is passed in.
    pub fn decide(
        &self,
        plan: &Plan,
        keys: &KeySource<'_>,
        session: &SessionView,
    ) -> Result<Decision, Refusal> {
        if let Some(refusal) = &plan.refusal {
            return Err(refusal.clone());
        }
        let replica = plan.access == Access::Read
            && !plan.primary_only
            && (!session.in_transaction || session.read_only_transaction);
        let role = if replica { Role::Replica } else { Role::Primary };
        let on = |shards, mode, key, why| Decision { shards, role, mode, key, why };
        if self.shard_count() == 1 {
            let key = self.only_shard_key(plan, keys, session);
            return Ok(on(smallvec![ShardId(0)], Mode::One, key, Why::OnlyShard));
        }
        match &plan.target {
            Target::Anywhere => Ok(on(self.any_shard(session), Mode::One, None, Why::Anywhere)),
            Target::First => match session.enlisted.filter(|it| *it != ShardId(0)) {
                Some(enlisted) => Err(notify_elsewhere(self, enlisted)),
                None => Ok(on(smallvec![ShardId(0)], Mode::One, None, Why::Notify)),
            },
            Target::InTurn if session.in_transaction => Err(Refusal::unsupported(
                Reason::Ddl,
                "a statement for every shard cannot run in a transaction",
                "run it outside of a transaction: it is sent to each shard in turn",
            )),
            Target::InTurn => Ok(on(self.all_shards(), Mode::InTurn, None, Why::Ddl)),
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
            Target::Everywhere => Ok(on(self.all_shards(), Mode::Everywhere, None, Why::EveryCopy)),
            Target::Keyed(keyed) => {
                let (shards, key, why) = self.keyed(keyed, keys, session)?;
                let mode = if shards.len() == 1 { Mode::One } else { Mode::Scatter };
                Ok(on(shards, mode, key, why))
            }
        }
    }

    /// The key is counted; that it cannot be read is for the server to say.
    fn only_shard_key(&self, plan: &Plan, keys: &KeySource<'_>, session: &SessionView) -> Option<KeyRef> {
        let Target::Keyed(keyed) = &plan.target else { return None };
        let mut met = Met::default();
        for class in &keyed.classes {
            self.need(class, keys, session, &mut met).ok()?;
        }
        met.first.filter(|_| !met.more)
    }

    fn any_shard(&self, session: &SessionView) -> ShardSet {
        let any = (session.entropy % self.shard_count() as u64) as u16;
        smallvec![session.enlisted.unwrap_or(ShardId(any))]
    }

    fn all_shards(&self) -> ShardSet {
        (0..self.shard_count() as u16).map(ShardId).collect()
    }

    fn keyed(
        &self,
        keyed: &Keyed,
        keys: &KeySource<'_>,
        session: &SessionView,
    ) -> Result<(ShardSet, Option<KeyRef>, Why), Refusal> {
        let mut met = Met::default();
        let mut needed: Option<(&Class, ShardSet)> = None;
        let mut unrestricted = None;
        for class in &keyed.classes {
            match self.need(class, keys, session, &mut met)? {
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
        let key = met.first.filter(|_| !met.more);
        let (class, shards, why) = match (unrestricted, needed) {
            (Some(class), _) => (class, self.all_shards(), Why::NoKey),
            (None, Some((class, shards))) => (class, shards, Why::Keys),
            (None, None) => return Ok((self.any_shard(session), key, Why::NoRow)),
        };
        match &shards[..] {
            [only] => match session.enlisted {
                Some(enlisted) if enlisted != *only => Err(two_shards(self, enlisted, *only)),
                _ => Ok((shards, key, why)),
            },
            _ => self.several(keyed, class, session, why).map(|()| (shards, key, why)),
        }
    }

    /// Whether a statement may run on several shards.
    fn several(&self, keyed: &Keyed, class: &Class, session: &SessionView, why: Why) -> Result<(), Refusal> {
        let Class { table, column, .. } = class;
        if keyed.writes {
            let message = match why {
                Why::NoKey => format!("a write of table \"{table}\" must name its shard key \"{column}\""),
                _ => format!("a write of table \"{table}\" would touch several shards"),
            };
            let hint =
                format!("restrict it to one shard with \"{column}\" = ..., or write each key by itself");
            return Err(Refusal::unsupported(Reason::MultiShardWrite, message, hint));
        }
        if let Some(what) = &keyed.merge {
            return Err(Refusal::unsupported(
                Reason::MultiShardRead,
                format!("{what} over several shards is not supported"),
                format!("restrict table \"{table}\" to one shard with \"{column}\" = ..., or leave it out"),
            ));
        }
        if session.enlisted.is_some() || session.in_transaction && !session.read_only_transaction {
            return Err(Refusal::unsupported(
                Reason::MultiShardRead,
                "a transaction cannot read from several shards",
                format!(
                    "restrict table \"{table}\" to one shard with \"{column}\" = ..., or read outside of it"
                ),
            ));
        }
        Ok(())
    }

    fn need(
        &self,
        class: &Class,
        keys: &KeySource<'_>,
        session: &SessionView,
        met: &mut Met,
    ) -> Result<Need, Refusal> {
        let Some(map) = self.map(class.map) else { return Ok(Need::All) };
        let evaluation = Evaluation { class, map, keys, utc: session.utc };
        evaluation.need(&class.keys, met)
    }
}

struct Evaluation<'a> {
    class: &'a Class,
    map: &'a Map,
    keys: &'a KeySource<'a>,
    utc: bool,
}

impl Evaluation<'_> {
    fn need(&self, keys: &Keys, met: &mut Met) -> Result<Need, Refusal> {
        match keys {
            Keys::All => Ok(Need::All),
            Keys::Never => Ok(Need::Some(ShardSet::new())),
            Keys::Equal(places) => self.places(places, Purpose::Compare, met),
            Keys::Rows(places) => self.places(places, Purpose::Store, met),
            Keys::And(parts) => {
                let mut left = Need::All;
                for part in parts {
                    left = match (left, self.need(part, met)?) {
                        (Need::All, it) | (it, Need::All) => it,
                        (Need::Some(mut a), Need::Some(b)) => {
                            a.retain(|it| b.contains(it));
                            Need::Some(a)
                        }
                    };
                }
                Ok(left)
            }
            Keys::Or(parts) => {
                let mut all = ShardSet::new();
                for part in parts {
                    match self.need(part, met)? {
                        Need::All => return Ok(Need::All),
                        Need::Some(shards) => all.extend(shards),
                    }
                }
                all.sort_unstable();
                all.dedup();
                Ok(Need::Some(all))
            }
        }
    }

    fn places(
        &self,
        places: &[super::plan::KeyPlace],
        purpose: Purpose,
        met: &mut Met,
    ) -> Result<Need, Refusal> {
        let mut shards = ShardSet::new();
        for place in places {
            let value = match self.keys.key(*place, self.map.key_type, purpose, self.utc)? {
                Key::Value(value) => value,
                Key::Null if purpose == Purpose::Store || self.class.writes => return Err(self.null_key()),
                Key::Null | Key::Nothing => continue,
            };
            let Some(place) = self.map.locate(&value) else {
                if purpose == Purpose::Store || self.class.writes {
                    return Err(self.unmapped(&value.to_string()));
                }
                continue;
            };
            let key = KeyRef { map: self.class.map as u16, place };
            met.more |= met.first.is_some_and(|it| it != key);
            met.first.get_or_insert(key);
            shards.push(place.shard);
        }
        if shards.len() > 1 {
            shards.sort_unstable();
            shards.dedup();
        }
        Ok(Need::Some(shards))
    }

    fn null_key(&self) -> Refusal {
        let Class { table, column, .. } = self.class;
        let message = format!("null value in shard key \"{column}\" of table \"{table}\"");
        Refusal::new(Reason::UnmappedKey, SqlState::NOT_NULL_VIOLATION, message)
            .hint("a row needs a shard key to have a place")
    }

    fn unmapped(&self, value: &str) -> Refusal {
        let Class { table, column, .. } = self.class;
        let message = format!("no shard for \"{column}\" of table \"{table}\" of this value");
        Refusal::new(Reason::UnmappedKey, SqlState::CHECK_VIOLATION, message)
            .detail(format!("map \"{}\" has no range that holds {value}", self.map.name))
            .hint("add a range to the map")
    }
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

fn two_shards(router: &Router, enlisted: ShardId, wanted: ShardId) -> Refusal {
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
