//! Every state that a PostgreSQL session may have and a pooler may leak.

pub struct State {
    pub name: &'static str,
    pub startup: &'static [(&'static str, &'static str)],
    /// Queries; `$name` is the place's own name.
    pub made_by: &'static [&'static str],
    pub probe: Probe,
    pub ends_with_discard: bool,
}

#[derive(Clone, Copy)]
pub enum Probe {
    /// The answer shows the state; an error counts as its SQLSTATE.
    Sql(&'static str),
    /// The protocol's statement of this name can be bound.
    Statement(&'static str),
    /// A NOTIFY of somebody else is heard.
    Notified(&'static str),
}

const fn state(name: &'static str, made_by: &'static [&'static str], probe: &'static str) -> State {
    State { name, startup: &[], made_by, probe: Probe::Sql(probe), ends_with_discard: true }
}

/// Of the startup packet: DISCARD ALL goes back to it.
const fn started(
    name: &'static str,
    startup: &'static [(&'static str, &'static str)],
    made_by: &'static [&'static str],
    probe: &'static str,
) -> State {
    State { name, startup, made_by, probe: Probe::Sql(probe), ends_with_discard: false }
}

const WORK_MEM: &str = "SHOW work_mem";
/// A custom parameter that was set once is an empty string ever after, whatever resets it.
const TENANT: &str = "SELECT coalesce(current_setting('app.tenant', true), '')";
const WHO: &str = "SELECT current_user";
const LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
const TEMP: &str = "SELECT count(*) FROM leak_temp";
const EXECUTE: &str = "EXECUTE leak_p";

pub const SETTINGS: &[State] = &[
    state("SET", &["SET work_mem = '7MB'"], WORK_MEM),
    state("SET SESSION", &["SET SESSION work_mem TO '7MB'"], WORK_MEM),
    state("set_config", &["SELECT set_config('work_mem', '7MB', false)"], WORK_MEM),
    state("SET in a transaction", &["BEGIN", "SET work_mem = '7MB'", "COMMIT"], WORK_MEM),
    state(
        "SET before a savepoint that was undone",
        &["BEGIN", "SET work_mem = '7MB'", "SAVEPOINT a", "SET work_mem = '8MB'", "ROLLBACK TO a", "COMMIT"],
        WORK_MEM,
    ),
    state("SET among others in one text", &["SELECT 1; SET work_mem = '7MB'; SELECT 2"], WORK_MEM),
    state(
        "SET and SET LOCAL",
        &["BEGIN", "SET LOCAL work_mem = '8MB'", "SET work_mem = '7MB'", "COMMIT"],
        WORK_MEM,
    ),
    state(
        "UPDATE pg_settings",
        &["UPDATE pg_settings SET setting = '7MB' WHERE name = 'work_mem'"],
        WORK_MEM,
    ),
    state("SET search_path", &["SET search_path = pg_catalog"], "SELECT to_regclass('leak_t') IS NULL"),
    state("SET of a custom parameter", &["SET app.tenant = 'one'"], TENANT),
    state("set_config of a custom parameter", &["SELECT set_config('app.tenant', 'one', false)"], TENANT),
    state(
        "a value of 20 kB",
        &[LONG],
        "SELECT length(coalesce(current_setting('app.long', true), '')) > 100",
    ),
    state("SET application_name", &["SET application_name = 'mine'"], "SHOW application_name"),
    state("SET TIME ZONE", &["SET TIME ZONE 'Asia/Tokyo'"], "SELECT '2026-01-01 00:00:00Z'::timestamptz"),
    state("SET TIME ZONE with an offset", &["SET TIME ZONE -7"], "SHOW timezone"),
    state("SET DateStyle", &["SET datestyle = 'German'"], "SELECT '2026-02-01'::date"),
    state("SET IntervalStyle", &["SET intervalstyle = 'iso_8601'"], "SELECT '1 day'::interval"),
    state("SET extra_float_digits", &["SET extra_float_digits = -10"], "SELECT 0.1::float8 / 3"),
    state("SET bytea_output", &["SET bytea_output = 'escape'"], "SELECT '\\x41'::bytea"),
    state("SET statement_timeout", &["SET statement_timeout = '77s'"], "SHOW statement_timeout"),
    state(
        "SET SESSION CHARACTERISTICS",
        &["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY"],
        "SELECT current_setting('transaction_isolation') || current_setting('transaction_read_only')",
    ),
    state("SET XML OPTION", &["SET XML OPTION DOCUMENT"], "SHOW xmloption"),
    state("SET row_security", &["SET row_security = off"], "SHOW row_security"),
    state(
        "SET session_replication_role",
        &["SET session_replication_role = 'replica'"],
        "SHOW session_replication_role",
    ),
    state("SET ROLE", &["SET ROLE $name_other"], WHO),
    state("SET ROLE in a transaction", &["BEGIN", "SET ROLE $name_other", "COMMIT"], WHO),
    state("set_config of role", &["SELECT set_config('role', '$name_other', false)"], WHO),
    state("SET SESSION AUTHORIZATION", &["SET SESSION AUTHORIZATION $name_other"], "SELECT session_user"),
    started("a parameter of the startup packet", &[("work_mem", "7MB")], &["SELECT 1"], WORK_MEM),
    started("options of the startup packet", &[("options", "-c work_mem=7MB")], &["SELECT 1"], WORK_MEM),
    started(
        "RESET to the startup packet",
        &[("options", "-c work_mem=7MB")],
        &["SET work_mem = '8MB'", "RESET work_mem"],
        WORK_MEM,
    ),
    started(
        "RESET ALL to the startup packet",
        &[("options", "-c work_mem=7MB")],
        &["SET work_mem = '8MB'", "RESET ALL"],
        WORK_MEM,
    ),
];

/// Longer than a text that some poolers look at.
const LONG: &str = concat!(
    "SELECT set_config('app.long', repeat('0123456789', 2000), false)",
    " /* the text itself is not what is long */"
);

pub const OBJECTS: &[State] = &[
    state("CREATE TEMP TABLE", &["CREATE TEMP TABLE leak_temp (a int)"], TEMP),
    state(
        "CREATE TEMP TABLE in a transaction",
        &["BEGIN", "CREATE TEMP TABLE leak_temp (a int)", "COMMIT"],
        TEMP,
    ),
    state("CREATE TEMP TABLE AS", &["CREATE TEMPORARY TABLE leak_temp AS SELECT 1 AS a"], TEMP),
    state("SELECT INTO TEMP", &["SELECT 1 AS a INTO TEMP leak_temp"], TEMP),
    state("CREATE TABLE in pg_temp", &["CREATE TABLE pg_temp.leak_temp (a int)"], TEMP),
    state("CREATE TEMP VIEW", &["CREATE TEMP VIEW leak_temp AS SELECT 1"], TEMP),
    state(
        "a view of a temporary table",
        &["CREATE TEMP TABLE leak_in (a int)", "CREATE VIEW leak_temp AS TABLE leak_in"],
        TEMP,
    ),
    state("CREATE TEMP SEQUENCE", &["CREATE TEMP SEQUENCE leak_temp"], TEMP),
    state(
        "a function in pg_temp",
        &["CREATE FUNCTION pg_temp.leak_f() RETURNS int LANGUAGE sql AS 'SELECT 7'"],
        "SELECT count(*) FROM pg_proc WHERE proname = 'leak_f' AND pronamespace = pg_my_temp_schema()",
    ),
    state(
        "a type in pg_temp",
        &["CREATE TYPE pg_temp.leak_e AS ENUM ('a')"],
        "SELECT to_regtype('pg_temp.leak_e') IS NULL",
    ),
    state("PREPARE", &["PREPARE leak_p AS SELECT 7"], EXECUTE),
    state(
        "PREPARE in a transaction that was rolled back",
        &["BEGIN", "PREPARE leak_p AS SELECT 7", "ROLLBACK"],
        EXECUTE,
    ),
    State {
        name: "Parse of a name",
        startup: &[],
        made_by: &["SELECT 1"],
        probe: Probe::Statement("leak_s"),
        ends_with_discard: true,
    },
    state(
        "WITH HOLD",
        &["DECLARE leak_c CURSOR WITH HOLD FOR SELECT 7"],
        "SELECT count(*) FROM pg_cursors WHERE name = 'leak_c'",
    ),
    state(
        "WITH HOLD in a transaction",
        &["BEGIN", "DECLARE leak_c CURSOR WITH HOLD FOR SELECT 7", "COMMIT"],
        "SELECT count(*) FROM pg_cursors WHERE name = 'leak_c'",
    ),
    State {
        name: "LISTEN",
        startup: &[],
        made_by: &["LISTEN leak_channel"],
        probe: Probe::Notified("leak_channel"),
        ends_with_discard: true,
    },
    State {
        name: "LISTEN in a transaction",
        startup: &[],
        made_by: &["BEGIN", "LISTEN leak_channel", "COMMIT"],
        probe: Probe::Notified("leak_channel"),
        ends_with_discard: true,
    },
    state("pg_advisory_lock", &["SELECT pg_advisory_lock(1905)"], LOCKS),
    state("pg_advisory_lock_shared", &["SELECT pg_advisory_lock_shared(1, 2)"], LOCKS),
    // A key of its own each time: a server process on its way out may hold the last one for a moment.
    state("pg_try_advisory_lock", &["SELECT pg_catalog.pg_try_advisory_lock((random() * 2e9)::int)"], LOCKS),
    state(
        "an advisory lock taken twice and freed once",
        &["SELECT pg_advisory_lock(1905), pg_advisory_lock(1905)", "SELECT pg_advisory_unlock(1905)"],
        LOCKS,
    ),
    state(
        "an advisory lock in a transaction that was rolled back",
        &["BEGIN", "SELECT pg_advisory_lock(1905)", "ROLLBACK"],
        LOCKS,
    ),
    state(
        "an advisory lock by PERFORM of WITH",
        &[
            "WITH a AS MATERIALIZED (SELECT pg_advisory_lock(1905)) SELECT count(*) FROM a, leak_t RIGHT JOIN a b ON true",
        ],
        LOCKS,
    ),
    state("currval", &["SELECT nextval('leak_seq'), currval('leak_seq')"], "SELECT currval('leak_seq') > 0"),
    state("lastval", &["SELECT nextval('leak_seq'), lastval()"], "SELECT lastval() > 0"),
    // DISCARD ALL leaves it.
    State {
        ends_with_discard: false,
        ..state(
            "a replication origin",
            &["SELECT pg_replication_origin_session_setup('$name')"],
            "SELECT pg_replication_origin_session_is_setup()",
        )
    },
];

/// State that the text of a statement does not show.
pub const CODE: &[State] = &[
    state("DO that sets", &["DO $$ BEGIN PERFORM set_config('work_mem', '7MB', false); END $$"], WORK_MEM),
    state("DO that creates", &["DO $$ BEGIN CREATE TEMP TABLE leak_temp (a int); END $$"], TEMP),
    state("DO that locks", &["DO $$ BEGIN PERFORM pg_advisory_lock(1905); END $$"], LOCKS),
    state("DO that prepares", &["DO $$ BEGIN EXECUTE 'PREPARE leak_p AS SELECT 7'; END $$"], EXECUTE),
    State {
        name: "DO that listens",
        startup: &[],
        made_by: &["DO $$ BEGIN EXECUTE 'LISTEN leak_channel'; END $$"],
        probe: Probe::Notified("leak_channel"),
        ends_with_discard: true,
    },
    state("CALL", &["CALL leak_called()"], LOCKS),
    state("CALL, its settings", &["CALL leak_called()"], WORK_MEM),
    state("a function that sets", &["SELECT leak_sets()"], WORK_MEM),
    state("a function that sets dynamically", &["SELECT leak_sets_dynamically()"], WORK_MEM),
    state("a function that creates", &["SELECT leak_creates()"], TEMP),
    state("a function that locks", &["SELECT leak_locks()"], LOCKS),
    state("a function that prepares", &["SELECT leak_prepares()"], EXECUTE),
    state("a function in FROM", &["SELECT * FROM leak_locks()"], LOCKS),
    state("a function in a view", &["SELECT * FROM leak_view"], LOCKS),
    state("a trigger", &["INSERT INTO leak_triggered VALUES (1)"], LOCKS),
    state("EXPLAIN ANALYZE", &["EXPLAIN ANALYZE SELECT leak_locks()"], LOCKS),
    state(
        "a function in a cursor",
        &["BEGIN", "DECLARE c CURSOR FOR SELECT leak_locks()", "FETCH 1 FROM c", "COMMIT"],
        LOCKS,
    ),
    state("a prepared function", &["PREPARE leak_q AS SELECT leak_locks()", "EXECUTE leak_q"], LOCKS),
];
