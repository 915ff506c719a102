//! From facts to a plan. On a database of one shard nothing is refused for sharding; on several, what is
//! not shown to be right on the shards that its keys name is refused here or in `decide`.

mod effects;
mod footprint;
mod predicates;
mod protection;
mod relations;
mod tables;
mod unnamed;

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::base::{Access, Reason, Refusal};
use crate::sql::{
    Assigned, ColumnLists, CursorStatement, Facts, Literal, NotParsed, Parser, SchemaChange, SetStatement,
    Splitting, Statement, Utility, Write,
};

use super::catalog::{Catalog, Effects};
use super::footprint::Footprint;
use super::plan::{Keyed, Kind, Leaves, Many, Plan, Protected, Subject, Target};
use super::router::{Router, not_parsed};
use effects::Calls;
pub(super) use effects::built_in_effects;
use relations::Relations;
use tables::Standing;

/// Takes a SELECT apart when that is asked for.
pub(super) struct Splitter<'a> {
    pub parser: &'a Parser,
    pub text: &'a str,
    pub literals: &'a [Literal],
}

impl Splitter<'_> {
    fn split(&self) -> Splitting {
        self.parser.split(self.text, self.literals)
    }
}

/// The plan lacks its version, which is the caller's to say.
pub(super) fn compile(
    router: &Router,
    catalog: &Catalog,
    parsed: Result<Facts, NotParsed>,
    splitter: &Splitter<'_>,
) -> Plan {
    let facts = match parsed {
        Ok(facts) => facts,
        Err(error) => return unparsed(router, &error),
    };
    let subject = facts.statements.iter().find_map(subject);
    let statements = facts.statements.iter();
    let mut parts: Vec<Plan> = statements.map(|it| statement(router, catalog, it, splitter)).collect();
    let mut plan = match parts.len() {
        0 => part(Kind::Empty, Access::Read, Target::Anywhere),
        1 => parts.remove(0),
        _ => several(router, parts),
    };
    let counts_rows = |it: &Kind| matches!(it, Kind::Cursor(CursorStatement::Fetch { .. }));
    let counts_rows = router.shard_count() > 1
        && match &plan.kind {
            Kind::Several { parts, .. } => parts.iter().any(counts_rows),
            kind => counts_rows(kind),
        };
    match &mut plan.target {
        // The numbers of rows are in the plan.
        _ if counts_rows => plan.fixed_literals = (0..splitter.literals.len() as u32).collect(),
        Target::Keyed(keyed) => plan.fixed_literals = std::mem::take(&mut keyed.fixed_literals),
        // They are its options.
        Target::Copy(_) => plan.fixed_literals = (0..splitter.literals.len() as u32).collect(),
        _ => {}
    }
    plan.subject = subject.unwrap_or_default();
    if let Target::Keyed(keyed) = &plan.target {
        plan.subject.map = keyed.classes.iter().find_map(|it| it.map).and_then(|it| u16::try_from(it).ok());
    }
    plan.params_read = match &plan.target {
        Target::Keyed(keyed) => {
            let keys = keyed.classes.iter().map(|it| it.keys.params_read()).max().unwrap_or(0);
            // All of them, should it be for several shards: they must not tell different times.
            keys.max(u16::from(matches!(keyed.many, Many::Written | Many::Split(_))))
        }
        // All of them: copies must not differ.
        Target::Everywhere => 1,
        Target::Anywhere | Target::First | Target::Copy(_) | Target::InTurn => 0,
    };
    plan
}

/// The first table that it writes, else reads.
fn subject(it: &Statement) -> Option<Subject> {
    let tables = || it.levels.iter().filter_map(|it| Some((it.write.is_some(), it.relations.first()?)));
    let written = tables().find(|(writes, it)| *writes && it.table.is_some());
    let table = written.or_else(|| tables().find(|it| it.1.table.is_some()))?.1.table.as_ref()?;
    let name: Arc<str> = match &table.schema {
        Some(schema) => format!("{schema}.{}", table.name).into(),
        None => table.name.as_str().into(),
    };
    Some(Subject { table_id: xxh3_64(name.as_bytes()), table: Some(name), map: None })
}

fn part(kind: Kind, access: Access, target: Target) -> Plan {
    Plan {
        kind,
        access,
        primary_only: false,
        repeatable: false,
        settings: Box::default(),
        understood: true,
        leaves: None,
        meets_catalog: false,
        schema_change: SchemaChange::None,
        may_release: false,
        lists_channels: false,
        version: 0,
        fixed_literals: Box::default(),
        target,
        refusal: None,
        hinted: false,
        answers_to_hints: false,
        params_read: 0,
        footprint: Footprint::default(),
        subject: Subject::default(),
        protected: Protected::default(),
        unnamed: None,
    }
}

/// One server can say itself what is wrong with the text; of several none can be named.
fn unparsed(router: &Router, error: &NotParsed) -> Plan {
    let refusal = (router.shard_count() > 1).then(|| not_parsed(error));
    let plan = part(Kind::Statement, Access::Write, Target::Anywhere);
    Plan { understood: false, refusal, footprint: Footprint::all(), ..plan }
}

/// Several statements of one text go to the same single shard, or are all DDL.
fn several(router: &Router, parts: Vec<Plan>) -> Plan {
    let all_ddl = parts.iter().all(|it| matches!(it.target, Target::InTurn));
    let mut keyed =
        Keyed { many: Many::Refused("several statements in one text".into()), ..Keyed::default() };
    let mut kinds = Vec::with_capacity(parts.len());
    let (mut first, mut lists) = (false, ColumnLists::default());
    let mut plan = part(Kind::Empty, Access::Read, Target::InTurn);
    for it in parts {
        plan.access = plan.access.and(it.access);
        plan.primary_only |= it.primary_only;
        plan.understood &= it.understood;
        plan.may_release |= it.may_release;
        plan.lists_channels |= it.lists_channels;
        plan.leaves = match (plan.leaves, it.leaves) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (a, b) => a.or(b),
        };
        plan.meets_catalog |= it.meets_catalog;
        plan.footprint = std::mem::take(&mut plan.footprint).and(it.footprint);
        plan.schema_change = plan.schema_change.max(it.schema_change);
        plan.refusal = plan.refusal.or(it.refusal);
        it.unnamed.iter().for_each(|it| lists.extend(it));
        kinds.push(it.kind);
        match it.target {
            Target::Anywhere => {}
            Target::First => first = true,
            Target::Keyed(one) => {
                keyed.writes |= one.writes;
                keyed.classes.extend(one.classes);
            }
            Target::Everywhere | Target::InTurn if all_ddl => {}
            Target::Everywhere | Target::Copy(_) | Target::InTurn => {
                plan.refusal.get_or_insert_with(|| {
                    Refusal::unsupported(
                        Reason::Unsupported,
                        "a statement for every shard cannot share its text with others",
                        "send it by itself",
                    )
                });
            }
        }
    }
    if !all_ddl {
        plan.target = match (first, keyed.classes.is_empty()) {
            (false, true) => Target::Anywhere,
            (true, true) => Target::First,
            (false, false) => Target::Keyed(keyed),
            (true, false) => {
                plan.refusal.get_or_insert_with(|| unsupported("NOTIFY beside statements of another shard"));
                Target::Keyed(keyed)
            }
        };
    }
    let is_channels = |it: &Kind| matches!(it, Kind::Listen(_) | Kind::Unlisten(_));
    if router.shard_count() > 1
        && kinds.iter().any(|it| matches!(it, Kind::Listen(_)))
        && !kinds.iter().all(is_channels)
    {
        // What is not answered by Keyway as a whole goes to one server, which would listen by itself.
        plan.refusal.get_or_insert_with(|| unsupported("LISTEN beside other statements in one text"));
    }
    let transaction_control = kinds.iter().any(Kind::is_transaction_control);
    plan.unnamed = (!lists.is_empty()).then(|| Arc::new(lists));
    plan.kind = Kind::Several { parts: kinds.into(), transaction_control };
    plan
}

fn statement(router: &Router, catalog: &Catalog, it: &Statement, splitter: &Splitter<'_>) -> Plan {
    if it.explains_routing {
        return part(Kind::ExplainRouting, Access::Read, Target::Anywhere);
    }
    let settings = effects::settings(it);
    let calls = Calls::of(it, &settings, catalog);
    let relations = Relations::of(it, catalog);
    let kind = kind(it, &calls, &relations);
    let standings = tables::standings(router, it);
    let mut plan = part(kind, access(it, &calls, &relations), Target::Anywhere);
    plan.primary_only = matches!(it.utility, Some(Utility::Show(_)))
        || calls.show_settings()
        || relations.effects.has(Effects::PRIMARY)
        || standings.iter().flatten().any(|it| matches!(it, Standing::Catalog));
    let query = matches!(it.utility, None | Some(Utility::Show(_)));
    plan.repeatable = query && plan.access == Access::Read && !it.asks_session_value && !calls.tell_time();
    plan.settings = settings;
    plan.understood = it.unknown.is_none();
    plan.leaves = leaves(it, &calls, &relations);
    plan.meets_catalog = it.explain != Some(false) && (relations.any || calls.meet_users());
    plan.schema_change = it.schema_change;
    let gives_back = |it: &Utility| {
        use Utility as U;
        matches!(
            it,
            U::SessionRelease | U::Unlisten(_) | U::Cursor(_) | U::Ddl | U::Deallocate(_) | U::DeallocateAll
        )
    };
    plan.lists_channels = calls.list_channels();
    plan.may_release = it.utility.as_ref().is_some_and(gives_back) || calls.release();
    plan.footprint = footprint::footprint(router, it, &calls, &standings, splitter, catalog);
    plan.protected = protection::protected(router, it, &plan, &calls, catalog);
    plan.refusal = unsafe_setting(it);
    if router.shard_count() == 1 {
        // Only the keys are of interest, to count them.
        plan.target = tables::target(router, it, &standings, splitter, catalog).unwrap_or(Target::Anywhere);
        return plan;
    }
    plan.refusal = plan.refusal.or_else(|| relations::unlike(router, it, &standings, catalog));
    let (it, lists) = unnamed::name_columns(it, &standings, catalog, splitter.text);
    match on_several_shards(router, &it, &standings, &calls, &plan.kind, splitter, catalog) {
        Ok(target) => {
            plan.target = target;
            plan.unnamed = (!lists.is_empty()).then(|| Arc::new(lists));
        }
        Err(refusal) => {
            let placed = |it: &Standing| matches!(it, Standing::Sharded { .. } | Standing::Fixed { .. });
            plan.answers_to_hints = plan.refusal.is_none()
                && refusal.reason() == Reason::UnlistedTable
                && !standings.iter().flatten().any(placed);
            plan.refusal = plan.refusal.or(Some(refusal));
        }
    }
    plan
}

fn leaves(it: &Statement, calls: &Calls<'_>, relations: &Relations) -> Option<Leaves> {
    if it.explain == Some(false) {
        return None;
    }
    let effects = calls.effects().and(relations.effects);
    let known = effects.leaves();
    (known || relations.unknown).then_some(Leaves {
        settings: effects.has(Effects::SETTINGS) || relations.unknown,
        unknown_table: !known,
    })
}

fn kind(it: &Statement, calls: &Calls<'_>, relations: &Relations) -> Kind {
    let runs = it.explain != Some(false);
    let session = calls.session_state().or(relations.writes_settings.then_some("set_config"));
    let session = session.filter(|_| runs);
    match &it.utility {
        None => session.map_or(Kind::Statement, Kind::SessionState),
        Some(Utility::Begin { read_only, isolation }) => {
            Kind::Begin { read_only: *read_only, isolation: *isolation }
        }
        Some(Utility::Commit { chain }) => Kind::Commit { chain: *chain },
        Some(Utility::Rollback { chain }) => Kind::Rollback { chain: *chain },
        Some(Utility::Savepoint) => Kind::Savepoint,
        Some(Utility::RollbackTo) => Kind::RollbackTo,
        Some(Utility::Release) => Kind::Release,
        Some(Utility::Cursor(cursor)) if it.explain.is_none() => {
            session.map_or_else(|| Kind::Cursor(cursor.clone()), Kind::SessionState)
        }
        Some(Utility::Set(set)) => Kind::Set(set.clone()),
        Some(Utility::Show(name)) => Kind::Show(name.clone()),
        Some(Utility::Session(reason)) => Kind::SessionState(reason),
        Some(Utility::Listen(name)) => Kind::Listen(name.clone()),
        Some(Utility::Unlisten(name)) => Kind::Unlisten(name.clone()),
        Some(Utility::DiscardAll) => Kind::DiscardAll,
        Some(Utility::DeallocateAll) => Kind::DeallocateAll,
        Some(Utility::Deallocate(name)) => Kind::Deallocate(name.clone()),
        Some(Utility::CopyIn { server_file: false }) => Kind::CopyIn,
        Some(Utility::CopyOut { server_file: false }) => session.map_or(Kind::CopyOut, Kind::SessionState),
        Some(Utility::Ddl | Utility::CreateAs) if runs => session.map_or(Kind::Ddl, Kind::SessionState),
        Some(_) => session.map_or(Kind::Statement, Kind::SessionState),
    }
}

/// A read is what is known to change nothing and to be answered alike by a replica.
fn access(it: &Statement, calls: &Calls<'_>, relations: &Relations) -> Access {
    let reading = match &it.utility {
        None
        | Some(Utility::CopyOut { server_file: false } | Utility::Cursor(_))
        | Some(Utility::Show(_) | Utility::Begin { read_only: true, .. }) => true,
        Some(_) => false,
    };
    let levels_read = it.levels.iter().all(|it| it.write.is_none() && it.locks.is_none());
    let harmless = calls.only_known() && !relations.effects.has(Effects::ANYTHING);
    if reading && levels_read && it.unknown.is_none() && harmless { Access::Read } else { Access::Write }
}

/// Settings under which a text would mean something else than the scanner takes it to mean.
fn unsafe_setting(it: &Statement) -> Option<Refusal> {
    let Some(Utility::Set(SetStatement::Assign { name, value, .. })) = &it.utility else { return None };
    let on = matches!(value, Assigned::Default)
        || matches!(value, Assigned::Word(word) if matches!(&word[..], "on" | "true" | "yes"));
    if name != "standard_conforming_strings" || on {
        return None;
    }
    Some(Refusal::unsupported(
        Reason::Unsupported,
        "standard_conforming_strings must stay on",
        "write SET standard_conforming_strings = on, and E'...' where a string has backslash escapes",
    ))
}

fn on_several_shards(
    router: &Router,
    it: &Statement,
    standings: &[Vec<Standing>],
    calls: &Calls<'_>,
    kind: &Kind,
    splitter: &Splitter<'_>,
    catalog: &Catalog,
) -> Result<Target, Refusal> {
    if let Some(what) = it.unknown {
        return Err(unsupported(what));
    }
    if let Kind::SessionState(reason) = kind {
        return Err(Refusal::unsupported(
            Reason::SessionState,
            format!("{reason} leaves state on one server, which a database of several shards does not keep"),
            "use it on a database of one shard, or connect to the shard itself",
        ));
    }
    match (&it.utility, it.explain) {
        (Some(Utility::Ddl), None) => return Ok(Target::InTurn),
        (Some(Utility::Server), None) => return Ok(Target::InTurn),
        (Some(Utility::Notify), None) => return Ok(Target::First),
        (None, None) if calls.only_notify() && reads_no_table(it) => return Ok(Target::First),
        (Some(Utility::CreateAs), None) => return create_as(standings),
        (Some(Utility::CopyIn { server_file: false }), None) => {
            return match tables::copy_in(router, it, standings, catalog)? {
                Some(plan) => Ok(Target::Copy(Arc::new(plan))),
                None => tables::target(router, it, standings, splitter, catalog),
            };
        }
        (Some(Utility::CreateAs | Utility::Ddl), Some(true)) => {
            return Err(unsupported("EXPLAIN ANALYZE of DDL"));
        }
        (Some(utility), _) => refuse_utility(utility)?,
        (None, _) => {}
    }
    calls.refuse_hidden()?;
    let mut target = tables::target(router, it, standings, splitter, catalog)?;
    match &mut target {
        Target::Keyed(keyed) if keyed.writes => {
            if let Some(what) = differs_by_shard(it, calls, catalog) {
                keyed.many = Many::Refused(what);
            }
            Ok(target)
        }
        Target::Keyed(_) => Ok(target),
        Target::Everywhere if it.explain == Some(false) => Ok(Target::Anywhere),
        Target::Everywhere if it.explain == Some(true) => {
            Err(unsupported("EXPLAIN ANALYZE of a write of a reference table"))
        }
        Target::Everywhere => same_on_every_shard(it, calls).map(|()| target),
        _ => calls.refuse_unknown().map(|()| target),
    }
}

fn refuse_utility(utility: &Utility) -> Result<(), Refusal> {
    match utility {
        Utility::CopyIn { server_file: true } | Utility::CopyOut { server_file: true } => {
            Err(unsupported("COPY of a file or program of the server"))
        }
        Utility::TwoPhase => Err(unsupported("two-phase commit")),
        Utility::SetSnapshot => Err(unsupported("SET TRANSACTION SNAPSHOT")),
        Utility::Lock => Err(unsupported("LOCK TABLE")),
        _ => Ok(()),
    }
}

/// Where `what` is right in PostgreSQL and has no answer on several shards.
fn unsupported(what: &str) -> Refusal {
    Refusal::unsupported(
        Reason::Unsupported,
        format!("{what} is not supported on a database of several shards"),
        "connect to the shard itself, or use a database of one shard",
    )
}

fn create_as(standings: &[Vec<Standing>]) -> Result<Target, Refusal> {
    for standing in standings.iter().flatten() {
        match standing {
            Standing::Sharded { .. } => {
                return Err(Refusal::unsupported(
                    Reason::Ddl,
                    "a table made from a query cannot read a sharded table",
                    "create the table first, then INSERT each key by itself",
                ));
            }
            Standing::Fixed { .. } | Standing::Path => {
                return Err(Refusal::unsupported(
                    Reason::Ddl,
                    "a table made from a query on every shard cannot read a table of one shard",
                    "create the table first, then INSERT its rows",
                ));
            }
            Standing::Unlisted(table) => return Err(tables::unlisted(table)),
            Standing::Catalog => return Err(unsupported("a table made from a system catalog")),
            Standing::Reference | Standing::Derived => {}
        }
    }
    Ok(Target::InTurn)
}

/// The copies of a reference table stay equal only if each shard computes the same rows.
fn same_on_every_shard(it: &Statement, calls: &Calls<'_>) -> Result<(), Refusal> {
    let differs = if it.asks_session_value {
        Some("CURRENT_TIMESTAMP, CURRENT_USER or the like".to_owned())
    } else {
        calls.first_not_immutable().map(|it| format!("function {it}()"))
    };
    let limited = it.levels.iter().any(|it| it.clauses.contains(&crate::sql::Clause::Limit));
    match differs.or_else(|| limited.then(|| "LIMIT".to_owned())) {
        None => Ok(()),
        Some(what) => Err(Refusal::unsupported(
            Reason::MultiShardWrite,
            format!("{what} could give each copy of a reference table other rows"),
            "compute the value in the application and pass it as a constant",
        )),
    }
}

/// What would not give the rows of several shards what it gives the rows of one statement.
fn differs_by_shard(it: &Statement, calls: &Calls<'_>, catalog: &Catalog) -> Option<String> {
    if it.asks_session_value {
        return Some("CURRENT_TIMESTAMP, CURRENT_USER or the like".to_owned());
    }
    calls.first_of_a_server(catalog).map(|it| format!("function {it}()"))
}

/// One row of constants or parameters, as `SELECT pg_notify($1, $2)`.
fn reads_no_table(it: &Statement) -> bool {
    !writes(it) && it.levels.iter().all(|it| it.relations.is_empty())
}

/// Whether any level of the statement changes rows.
fn writes(it: &Statement) -> bool {
    it.levels.iter().any(|it| it.write.is_some())
}

fn first_write(it: &Statement) -> Option<&Write> {
    it.levels.iter().find_map(|it| it.write.as_ref())
}
