//! What the functions that a statement calls do to its session, its server and its answer.

use crate::base::{Reason, Refusal};
use crate::route::catalog::{Catalog, Effects};
use crate::route::plan::{KeyPlace, SettingPlaces};
use crate::sql::{Call, SettingCall, Statement, Value, Volatility, built_in};

use super::unsupported;

/// What a call means for routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Listed as harmless.
    Known(Volatility),
    /// Leaves state in the session, by this name.
    Session(&'static str),
    /// A set_config that the plan makes again on whatever server comes next.
    Setting,
    /// Reads or changes what one shard alone has, and the text does not show it.
    Hidden,
    /// A function of the user's that changes nothing, and may read any table.
    Reads,
    /// current_setting, which is to a query what SHOW is by itself.
    Shown,
    /// A function of PostgreSQL's own that reads no table of the user's.
    Server,
    /// Anything: a function of the user's or of an extension.
    Unknown,
}

const NOTIFY: &str = "pg_notify";

/// Functions whose arguments or results are rows, objects or locks of one server.
const HIDDEN: &[&str] = &[
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "lo_close",
    "lo_creat",
    "lo_create",
    "lo_export",
    "lo_from_bytea",
    "lo_get",
    "lo_import",
    "lo_lseek",
    "lo_lseek64",
    "lo_open",
    "lo_put",
    "lo_tell",
    "lo_tell64",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "loread",
    "lowrite",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_export_snapshot",
    "pg_notify",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
];

/// Beginnings of names that PostgreSQL keeps to itself, or that only ask the catalog.
const SERVER_PREFIXES: &[&str] = &["pg_", "inet_", "txid_", "has_", "to_reg"];
const SERVER_NAMES: &[&str] =
    &["col_description", "format_type", "obj_description", "row_security_active", "set_config"];

/// Whose answers may go backwards from one server to the next.
const TIME: &[&str] =
    &["age", "clock_timestamp", "now", "statement_timestamp", "timeofday", "transaction_timestamp"];

fn effect(call: &Call) -> Effect {
    match call.schema.as_deref() {
        None => {}
        Some("information_schema") => return Effect::Server,
        Some(_) => return Effect::Unknown,
    }
    let name = &call.name[..];
    match name {
        "pg_advisory_lock"
        | "pg_advisory_lock_shared"
        | "pg_try_advisory_lock"
        | "pg_try_advisory_lock_shared" => Effect::Session("session advisory lock"),
        "set_config" if !call.ends_in_true => Effect::Session("set_config"),
        "current_setting" => Effect::Shown,
        "currval" | "lastval" => Effect::Session("currval"),
        "setseed" => Effect::Session("setseed"),
        "dblink_connect" | "dblink_connect_u" => Effect::Session("dblink connection"),
        "pg_replication_origin_session_setup" => Effect::Session("replication origin"),
        _ => match built_in(name) {
            Some(it) => Effect::Known(it.volatility),
            None if HIDDEN.binary_search(&name).is_ok() => Effect::Hidden,
            None if SERVER_NAMES.contains(&name) => Effect::Server,
            None if SERVER_PREFIXES.iter().any(|it| name.starts_with(it)) => Effect::Server,
            None => Effect::Unknown,
        },
    }
}

/// What a function of PostgreSQL's own does inside of a view, a default or a policy.
pub(in crate::route) fn built_in_effects(name: &str) -> Effects {
    let call = Call { schema: None, name: name.to_owned(), ends_in_true: false };
    match effect(&call) {
        Effect::Known(_) | Effect::Shown => Effects::NONE,
        Effect::Session("currval") => Effects::WRITES,
        Effect::Session(_) => Effects::ANYTHING,
        Effect::Setting | Effect::Hidden | Effect::Server | Effect::Reads | Effect::Unknown => {
            Effects::WRITES
        }
    }
}

fn is_set_config(call: &Call) -> bool {
    call.schema.is_none() && call.name == "set_config"
}

/// What a statement sets, if that is all that its calls of set_config do.
pub(super) fn settings(statement: &Statement) -> Box<[SettingPlaces]> {
    let calls = statement.calls.iter().filter(|it| is_set_config(it)).count();
    if calls == 0
        || calls != statement.settings.len()
        || statement.utility.is_some()
        || statement.explain.is_some()
    {
        return Box::default();
    }
    let places = |it: &SettingCall| {
        Some(SettingPlaces { name: text_place(&it.name)?, value: text_place(&it.value)?, local: it.local })
    };
    statement.settings.iter().map(places).collect::<Option<_>>().unwrap_or_default()
}

fn text_place(value: &Value) -> Option<KeyPlace> {
    let is_text = |cast: &Option<Box<str>>| cast.as_deref().is_none_or(|it| it == "text");
    match value {
        Value::Literal { index, negative: false, cast } if is_text(cast) => {
            Some(KeyPlace::Literal { index: *index, negative: false, cast_oid: 0 })
        }
        Value::Param { number, cast } if is_text(cast) => {
            Some(KeyPlace::Param { number: *number, cast_oid: 0 })
        }
        Value::Null => Some(KeyPlace::Null),
        _ => None,
    }
}

/// Functions of PostgreSQL's own that run the text of an argument.
const RUN_TEXTS: &[&str] =
    &["query_to_xml", "query_to_xml_and_xmlschema", "query_to_xmlschema", "ts_rewrite", "ts_stat"];

/// What a call means, and what may be left by it, with all that the user's functions of its name may do: the
/// types of its arguments, which choose one of them, are not known here.
fn with_users(call: &Call, own: Effect, catalog: &Catalog) -> (Effect, Effects) {
    let Some(called) = catalog.calling(call.schema.as_deref(), &call.name) else {
        let built_in = call.schema.is_none() && catalog.is_built_in(&call.name);
        let anything = own == Effect::Unknown && !built_in || RUN_TEXTS.contains(&&call.name[..]);
        return (own, if anything { Effects::ANYTHING } else { Effects::NONE });
    };
    let users = match called.volatility {
        _ if called.effects.has(Effects::ANYTHING) => Effect::Unknown,
        Volatility::Stable => Effect::Reads,
        volatility => Effect::Known(volatility),
    };
    let both = match (own, users) {
        (Effect::Known(a), Effect::Known(b)) => Effect::Known(a.max(b)),
        (Effect::Known(_) | Effect::Unknown, users) => users,
        (own, _) => own,
    };
    (both, called.effects)
}

/// The calls of a statement with their effects.
pub(super) struct Calls<'a>(Vec<(&'a Call, Effect, Effects)>);

impl<'a> Calls<'a> {
    /// `settings`: those of the statement, if every set_config in it is among them.
    pub fn of(statement: &'a Statement, settings: &[SettingPlaces], catalog: &Catalog) -> Calls<'a> {
        let kept = !settings.is_empty();
        let effects = |it: &'a Call| {
            let own = match effect(it) {
                Effect::Session("set_config") | Effect::Server if kept && is_set_config(it) => {
                    Effect::Setting
                }
                effect => effect,
            };
            let (effect, left) = with_users(it, own, catalog);
            (it, effect, left)
        };
        Calls(statement.calls.iter().map(effects).collect())
    }

    /// What the user's functions may do.
    pub fn effects(&self) -> Effects {
        self.0.iter().map(|(_, _, it)| *it).fold(Effects::NONE, Effects::and)
    }

    /// A function is among them that may be the user's.
    pub fn meet_users(&self) -> bool {
        self.0.iter().any(|(_, effect, _)| matches!(effect, Effect::Unknown | Effect::Reads))
            || self.0.iter().any(|(call, ..)| built_in(&call.name).is_none())
    }

    pub fn session_state(&self) -> Option<&'static str> {
        self.0.iter().find_map(|(_, effect, _)| match effect {
            Effect::Session(reason) => Some(*reason),
            _ => None,
        })
    }

    /// An advisory lock or a replication origin may be given back.
    pub fn release(&self) -> bool {
        let gives_back =
            |it: &str| it.starts_with("pg_advisory_unlock") || it == "pg_replication_origin_session_reset";
        self.0.iter().any(|(call, ..)| gives_back(&call.name))
    }

    pub fn only_known(&self) -> bool {
        let reads =
            |it: &Effect| matches!(it, Effect::Known(_) | Effect::Setting | Effect::Shown | Effect::Reads);
        self.0.iter().all(|(_, effect, _)| reads(effect))
    }

    pub fn show_settings(&self) -> bool {
        self.0.iter().any(|(_, effect, _)| *effect == Effect::Shown)
    }

    /// Asked again, they may answer otherwise.
    pub fn tell_time(&self) -> bool {
        self.0.iter().any(|(call, effect, _)| TIME.contains(&&call.name[..]) || *effect == Effect::Reads)
    }

    /// Asked twice at one moment by sessions with the same settings, they answer the same.
    pub fn are_alike(&self) -> bool {
        let of_session =
            |it: &Effect| matches!(it, Effect::Known(Volatility::Immutable | Volatility::Stable));
        !self.tell_time() && self.0.iter().all(|(_, effect, _)| of_session(effect))
    }

    pub fn first_not_immutable(&self) -> Option<&'a str> {
        let differs =
            |(_, effect, _): &&(&'a Call, Effect, Effects)| *effect != Effect::Known(Volatility::Immutable);
        self.0.iter().find(differs).map(|(call, ..)| &call.name[..])
    }

    /// The first that is not known to give each row the same whichever shard has it: a clock, a sequence, a
    /// function of the user's that may read or write.
    pub fn first_of_a_server(&self, catalog: &Catalog) -> Option<&'a str> {
        let alike = |(call, effect, _): &&(&'a Call, Effect, Effects)| match effect {
            Effect::Known(Volatility::Immutable) => true,
            // As random(), anew for each row.
            Effect::Known(_) => {
                let is_built_in = call.schema.is_none() && built_in(&call.name).is_some();
                let tells_start = TIME.contains(&&call.name[..]) && call.name != "clock_timestamp";
                is_built_in && !tells_start && catalog.calling(None, &call.name).is_none()
            }
            _ => false,
        };
        self.0.iter().find(|it| !alike(it)).map(|(call, ..)| &call.name[..])
    }

    /// Whether they may read, and may write, tables that the text does not name.
    pub fn touch_tables(&self, catalog: &Catalog) -> (bool, bool) {
        let of = |(call, effect, _): &(&Call, Effect, Effects)| {
            if let Some(called) = catalog.calling(call.schema.as_deref(), &call.name) {
                return (called.effects.has(Effects::READS), called.effects.has(Effects::TABLES));
            }
            let built_in = call.schema.is_none() && catalog.is_built_in(&call.name);
            match effect {
                Effect::Unknown => (!built_in, !built_in),
                // Large objects are rows of no table with a name; locks and notifications are none.
                Effect::Hidden if call.name.starts_with("pg_") => (false, false),
                Effect::Hidden => (true, call.name.starts_with("lo")),
                _ => (false, false),
            }
        };
        self.0.iter().map(of).fold((false, false), |all, it| (all.0 | it.0, all.1 | it.1))
    }

    pub fn list_channels(&self) -> bool {
        self.0.iter().any(|(call, ..)| call.schema.is_none() && call.name == "pg_listening_channels")
    }

    /// pg_notify, and nothing else that would have to be somewhere.
    pub fn only_notify(&self) -> bool {
        let is_notify = |it: &&Call| it.schema.is_none() && it.name == NOTIFY;
        self.0.iter().any(|(call, ..)| is_notify(call))
            && self.0.iter().all(|(call, effect, _)| is_notify(call) || matches!(effect, Effect::Known(_)))
    }

    /// What reaches past the statement's own tables.
    pub fn refuse_hidden(&self) -> Result<(), Refusal> {
        match self.0.iter().find(|(_, effect, _)| *effect == Effect::Hidden) {
            Some((call, ..)) => Err(unsupported(&format!("function {}()", call.name))),
            None => Ok(()),
        }
    }

    /// Without a table that names a shard, a function that may read tables or sequences would run on
    /// one shard by guess.
    pub fn refuse_unknown(&self) -> Result<(), Refusal> {
        let depends = |it: &Effect| matches!(it, Effect::Unknown | Effect::Reads);
        match self.0.iter().find(|(_, effect, _)| depends(effect)) {
            Some((call, ..)) => Err(Refusal::unsupported(
                Reason::Unsupported,
                format!("function {}() may depend on the shard that runs it", call.name),
                "call it in a statement that names a shard key",
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_are_sorted() {
        assert!(HIDDEN.is_sorted());
    }
}
