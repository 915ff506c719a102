//! Hints that say where a statement goes: in a comment of its text, or set for the session as `keyway.shard`,
//! `keyway.key`, `keyway.map`, `keyway.role` and `keyway.consistency`. What is said with the statement comes before what the session says.
//!
//! A hint takes the place of what the text does not tell, and contradicts nothing that it tells: a statement whose
//! own keys belong to another shard, a write on a replica, a copy of a reference table that would change alone
//! are errors. Only the role of a replica is a wish: where none is fresh enough, the primary reads.

use std::borrow::Cow;

use smallvec::smallvec;

use crate::base::{Access, Consistency, Reason, Refusal, Role, ShardId, SqlState};
use crate::shard::{Purpose, Usage};
use crate::sql::{HintError, TextHint, text_hint};

use super::decide::{Decision, KeyRef, Mode, SessionView, Why, two_shards};
use super::evaluate::{Met, Need};
use super::keys::KeySource;
use super::plan::{Kind, Plan, Target};
use super::router::Router;

/// Hints of a session, as it has set them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionHint {
    pub shard: Option<String>,
    pub map: Option<String>,
    pub key: Option<String>,
    pub role: Option<String>,
    pub consistency: Option<String>,
}

impl SessionHint {
    /// The settings that hold hints.
    pub const PREFIX: &str = "keyway.";

    /// The place of a setting's value; `None` where no hint has this name.
    pub fn place(&mut self, setting: &str) -> Option<&mut Option<String>> {
        match setting.strip_prefix(Self::PREFIX)? {
            "shard" => Some(&mut self.shard),
            "map" => Some(&mut self.map),
            "key" => Some(&mut self.key),
            "role" => Some(&mut self.role),
            "consistency" => Some(&mut self.consistency),
            _ => None,
        }
    }
}

/// Both hints of a statement together.
#[derive(Debug, Default)]
struct Hint<'a> {
    shard: Option<Cow<'a, str>>,
    map: Option<Cow<'a, str>>,
    key: Option<Cow<'a, str>>,
    role: Option<Role>,
    /// The statement itself says where it goes.
    own_place: bool,
    own_role: bool,
}

fn wrong(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Hint, SqlState::INVALID_PARAMETER_VALUE, message.into())
}

fn of_role(name: &str) -> Result<Role, Refusal> {
    match name {
        "primary" => Ok(Role::Primary),
        "replica" => Ok(Role::Replica),
        other => {
            Err(wrong(format!("invalid role \"{other}\" in a keyway hint")).hint("use primary or replica"))
        }
    }
}

fn of_consistency(name: &str) -> Result<Consistency, Refusal> {
    let wrong = || {
        wrong(format!("invalid consistency \"{name}\" in a keyway hint"))
            .hint(format!("use {}", Consistency::NAMES))
    };
    Consistency::of_name(name).ok_or_else(wrong)
}

impl<'a> Hint<'a> {
    fn of(text: TextHint<'a>, session: &'a SessionHint) -> Result<Hint<'a>, Refusal> {
        let borrowed = |it: &'a Option<String>| it.as_deref().map(Cow::Borrowed);
        let own_place = text.shard.is_some() || text.key.is_some();
        let (own_map, map) = (text.map.is_some(), text.map.or(borrowed(&session.map)));
        let (shard, key) = match own_place {
            true => (text.shard, text.key),
            false => (borrowed(&session.shard), borrowed(&session.key)),
        };
        if shard.is_some() && key.is_some() {
            return Err(wrong("a keyway hint names both a shard and a key").hint("name one of them"));
        }
        if own_map && key.is_none() {
            return Err(wrong("a keyway hint names a map and no key").hint("write key=... beside map=..."));
        }
        let own_role = text.role.is_some();
        let role = text.role.as_deref().or(session.role.as_deref()).map(of_role).transpose()?;
        Ok(Hint { shard, map, key, role, own_place, own_role })
    }
}

impl Router {
    /// As `decide`, for a statement with a hint of its own or of its session.
    ///
    /// # Errors
    /// 22023 for a hint that names nothing or contradicts the statement, 25006 for a write on a replica.
    pub fn decide_hinted(
        &self,
        plan: &Plan,
        keys: &KeySource<'_>,
        session: &SessionView,
        settings: &SessionHint,
    ) -> Result<Decision, Refusal> {
        let text = if plan.hinted { text_hint(keys.text) } else { Ok(TextHint::default()) };
        let hint = Hint::of(text.map_err(|HintError(message)| wrong(message))?, settings)?;
        let placed = match (&hint.shard, &hint.key) {
            _ if !decides_place(plan) => None,
            (Some(name), _) => Some((self.shard_named(name)?, None)),
            (None, Some(key)) => {
                let key = self.hinted_key(plan, &hint, key, session)?;
                Some((key.place.shard, Some(key)))
            }
            (None, None) => None,
        };
        let mut decision = match placed {
            Some((shard, key)) => self.on_hinted(plan, keys, session, &hint, shard, key)?,
            None => self.decide_plain(plan, keys, session)?,
        };
        if let Some(role) = hint.role.filter(|_| decides_role(plan)) {
            decision.role = self.hinted_role(plan, session, &hint, role, decision.role)?;
        }
        Ok(decision)
    }

    /// What a statement, or else its session, says of how fresh a read is.
    ///
    /// # Errors
    /// 22023 for a level that is none.
    pub fn hinted_consistency(
        &self,
        plan: &Plan,
        text: &str,
        settings: Option<&SessionHint>,
    ) -> Result<Option<Consistency>, Refusal> {
        let own = if plan.hinted { text_hint(text) } else { Ok(TextHint::default()) };
        let own = own.map_err(|HintError(message)| wrong(message))?.consistency;
        let name = own.as_deref().or_else(|| settings?.consistency.as_deref());
        name.map(of_consistency).transpose()
    }

    /// Whether the value of a setting that holds a hint names something here.
    ///
    /// # Errors
    /// 22023, for names that no hint has too.
    pub fn check_hint(&self, setting: &str, value: Option<&str>) -> Result<(), Refusal> {
        match setting.strip_prefix(SessionHint::PREFIX) {
            None | Some("key") => Ok(()),
            Some(name @ ("shard" | "map" | "role" | "consistency")) => {
                // An empty value is what a custom setting has that was set and is not any more.
                let Some(value) = value.filter(|it| !it.is_empty()) else { return Ok(()) };
                match name {
                    "shard" => self.shard_named(value).map(drop),
                    "map" => self.map_named(value).map(drop),
                    "consistency" => of_consistency(value).map(drop),
                    _ => of_role(value).map(drop),
                }
            }
            Some("position") => Err(wrong("keyway.position can only be set by SET").hint("use SET keyway.position")),
            Some(_) => Err(wrong(format!("unrecognized configuration parameter \"{setting}\""))
                .hint("there are keyway.shard, keyway.key, keyway.map, keyway.role, keyway.consistency and keyway.position")),
        }
    }

    fn shard_named(&self, name: &str) -> Result<ShardId, Refusal> {
        let found = (0..self.shard_count() as u16).map(ShardId).find(|it| self.shard_name(*it) == name);
        found.ok_or_else(|| wrong(format!("shard \"{name}\" of a keyway hint does not exist")))
    }

    fn map_named(&self, name: &str) -> Result<usize, Refusal> {
        let found = (0..).map_while(|it| self.map(it).map(|map| (it, map))).find(|it| *it.1.name == *name);
        found.map(|it| it.0).ok_or_else(|| wrong(format!("map \"{name}\" of a keyway hint does not exist")))
    }

    /// Of the map that is named, of the statement's tables, or of the only map.
    fn hinted_key(
        &self,
        plan: &Plan,
        hint: &Hint<'_>,
        key: &str,
        session: &SessionView,
    ) -> Result<KeyRef, Refusal> {
        let of_tables = || match &plan.target {
            Target::Keyed(keyed) => keyed.classes.iter().find_map(|it| it.map),
            _ => None,
        };
        let index = match &hint.map {
            Some(name) => self.map_named(name)?,
            None => of_tables().or_else(|| (self.map(1).is_none()).then_some(0)).ok_or_else(|| {
                wrong("a key in a keyway hint needs the name of its map").hint("write map=... beside key=...")
            })?,
        };
        let map = self.map(index).ok_or_else(|| wrong("a keyway hint names a key, and there is no map"))?;
        let [column] = map.columns() else {
            return Err(
                wrong(format!("map \"{}\" has keys of several columns", map.name)).hint("name the shard")
            );
        };
        let usage = Usage { purpose: Purpose::Store, utc: session.utc };
        let place = column.of_text(0, key, usage)?.and_then(|it| map.locate(&it));
        let place = place.ok_or_else(|| {
            Refusal::new(
                Reason::UnmappedKey,
                SqlState::CHECK_VIOLATION,
                format!("no shard for key \"{key}\""),
            )
            .detail(format!("it is named by a keyway hint and looked up in map \"{}\"", map.name))
        })?;
        Ok(KeyRef { map: index as u16, place, table: 0 })
    }

    fn on_hinted(
        &self,
        plan: &Plan,
        keys: &KeySource<'_>,
        session: &SessionView,
        hint: &Hint<'_>,
        shard: ShardId,
        key: Option<KeyRef>,
    ) -> Result<Decision, Refusal> {
        match &plan.refusal {
            Some(refusal) if !plan.answers_to_hints => return Err(refusal.clone()),
            _ => {}
        }
        let named = match &plan.target {
            Target::Everywhere => {
                return Err(wrong(
                    "a reference table is written on every shard, not on that of a keyway hint",
                )
                .hint("leave the hint out"));
            }
            Target::Keyed(keyed) => {
                let mut met = Met::default();
                for class in &keyed.classes {
                    match self.need(class, keys, session, &mut met)? {
                        Need::Some(shards) if shards.iter().any(|it| *it != shard) => {
                            return Err(wrong("a keyway hint contradicts the keys of its statement").detail(
                                format!(
                                    "the hint says shard \"{}\", table \"{}\" is asked for rows of another one",
                                    self.shard_name(shard),
                                    class.table
                                ),
                            ));
                        }
                        Need::Some(_) | Need::All => {}
                    }
                }
                match met.keys() {
                    none if none.is_empty() => key.into_iter().collect(),
                    named => named,
                }
            }
            _ => key.into_iter().collect(),
        };
        match (&plan.target, self.held_elsewhere(session, plan.access, shard)) {
            // What may run anywhere runs where the transaction is, whatever the session is set to.
            (Target::Anywhere, _) if session.enlisted.is_some() && !hint.own_place => {
                return self.decide_plain(plan, keys, session);
            }
            (_, Some(elsewhere)) => return Err(two_shards(self, elsewhere, shard)),
            _ => {}
        }
        let role = self.role(plan, session);
        Ok(Decision { shards: smallvec![shard], role, mode: Mode::One, keys: named, why: Why::Hint })
    }

    fn hinted_role(
        &self,
        plan: &Plan,
        session: &SessionView,
        hint: &Hint<'_>,
        wanted: Role,
        decided: Role,
    ) -> Result<Role, Refusal> {
        if session.enlisted.is_some() {
            // Its server is chosen.
            return match hint.own_role {
                true => {
                    Err(wrong("a keyway hint of a role comes too late in a transaction that has a server"))
                }
                false => Ok(decided),
            };
        }
        if wanted == Role::Primary {
            return Ok(Role::Primary);
        }
        let why = match plan.access {
            Access::Write => "it may write",
            _ if plan.primary_only => "a replica would answer it otherwise",
            _ if session.in_transaction && !session.read_only_transaction => "its transaction may write",
            _ => return Ok(Role::Replica),
        };
        Err(Refusal::new(Reason::Hint, SqlState("25006"), format!("statement is not for a replica: {why}"))
            .hint("leave out the keyway hint of the role, or use BEGIN READ ONLY"))
    }
}

/// Whether a place may be named for it: NOTIFY goes to the first shard. SET is of no place, and may be what makes
/// the hints whole.
fn decides_place(plan: &Plan) -> bool {
    !matches!(plan.target, Target::First)
        && !matches!(plan.kind, Kind::Set(_))
        && !plan.kind.is_transaction_control()
}

/// Whether it is about a role which server runs it: of SET and SHOW it is not.
fn decides_role(plan: &Plan) -> bool {
    matches!(
        plan.kind,
        Kind::Statement | Kind::Cursor(_) | Kind::CopyIn | Kind::CopyOut | Kind::Ddl | Kind::Several { .. }
    )
}
