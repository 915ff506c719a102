//! The SQL console: every table in a situation that is known, every command with what it brings about, through
//! both protocols and with drivers that know nothing of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keyway::demo::postgres::Signal;
use keyway::demo::shop::{self, USER};
use libtest_mimic::Trial;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::drivers;
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, as_db_error,
    assert_error, connect, connect_hearing, error_of, rows, run, until,
};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("console::tables_of_clients_and_servers", clients_and_servers),
        harness.test("console::tables_of_the_configuration", configuration),
        harness.test("console::tables_of_shards_and_replicas", shards_and_replicas),
        harness.test("console::statistics_count_what_was_done", statistics),
        harness.test("console::rights", rights),
        harness.test("console::both_protocols", both_protocols),
        harness.test("console::errors_have_hints", errors),
        harness.test("console::pause_and_resume_under_load", pause),
        harness.test("console::reconnect_and_wait_close", reconnect),
        harness.test("console::kill", kill),
        harness.test("console::disable_and_enable", disable),
        harness.test("console::reload", reload),
        harness.test("console::reachable_when_all_places_are_taken", reserve),
        harness.test("console::shutdown", shutdown),
        harness.test("console::signals", signals),
        harness.test("console::psql", psql),
        harness.test("console::psycopg", |it| async move {
            driver(&it, drivers::PYTHON, &[], "console_psycopg.py").await
        }),
        harness.test("console::asyncpg", |it| async move {
            driver(&it, drivers::PYTHON, &[], "console_asyncpg.py").await
        }),
        harness.test("console::jdbc", |it| async move {
            driver(&it, "java", drivers::JAVA_OPTIONS, "ConsoleJdbc.java").await
        }),
    ]
}

fn config(servers: &[String], limits: &str, pool: &str, listen: &str, admin: &str) -> String {
    let servers = servers.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "listen = \"{listen}\"\nadmin = \"{admin}\"\nadmin_users = [\"{USER}\"]\nstats_users = [\"viewer\"]\n\
         [limits]\n{limits}\n\
         [users.{USER}]\npassword = \"{APP_PASSWORD}\"\n[users.viewer]\npassword = \"looks\"\n\
         [users.stranger]\npassword = \"strange\"\n\
         [databases.{DATABASE}]\nservers = [{servers}]\n[databases.{DATABASE}.pool]\n{pool}\n"
    )
}

/// Only the primary, so that it is clear who serves.
async fn keyway(harness: &Shared, limits: &str, pool: &str) -> Fallible<KeywayProcess> {
    let servers = [harness.single().await?.shard.primary.address()];
    harness.start_keyway(|listen, admin| config(&servers, limits, pool, listen, admin)).await
}

fn url(keyway: &KeywayProcess) -> String {
    keyway.url(USER, APP_PASSWORD, DATABASE)
}

async fn client(keyway: &KeywayProcess) -> Fallible<Client> {
    connect(&url(keyway)).await
}

async fn console(keyway: &KeywayProcess) -> Fallible<Client> {
    connect(&keyway.url(USER, APP_PASSWORD, "keyway")).await
}

type Record = HashMap<String, Option<String>>;

async fn table(console: &Client, sql: &str) -> Fallible<Vec<Record>> {
    let mut records = Vec::new();
    for message in run(console, sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            let names = row.columns().iter().enumerate();
            records
                .push(names.map(|(at, it)| (it.name().to_owned(), row.get(at).map(str::to_owned))).collect());
        }
    }
    Ok(records)
}

/// The only row in which these columns have these values.
async fn record(console: &Client, sql: &str, of: &[(&str, &str)]) -> Fallible<Record> {
    let all = table(console, sql).await?;
    let fits = |it: &&Record| of.iter().all(|(name, value)| get(it, name) == *value);
    match all.iter().filter(fits).collect::<Vec<_>>()[..] {
        [only] => Ok(only.clone()),
        _ => Err(format!("{sql} has not one row with {of:?}: {all:?}").into()),
    }
}

fn get<'a>(record: &'a Record, name: &str) -> &'a str {
    record.get(name).unwrap_or_else(|| panic!("no column {name}")).as_deref().unwrap_or("NULL")
}

#[track_caller]
fn assert_record(record: &Record, expect: &[(&str, &str)]) {
    for (name, value) in expect {
        assert_eq!(get(record, name), *value, "{name} of {record:?}");
    }
}

async fn one(client: &Client, sql: &str) -> Fallible<String> {
    Ok(rows(client, sql).await?.first().ok_or("no row")?.clone())
}

async fn columns(console: &Client, sql: &str) -> Fallible<String> {
    let described = console.prepare(sql).await?;
    Ok(described.columns().iter().map(|it| it.name().to_owned()).collect::<Vec<_>>().join(","))
}

async fn refusal(url: &str) -> Fallible<DbError> {
    match tokio_postgres::connect(url, NoTls).await {
        Ok(_) => Err("logged in".into()),
        Err(error) => as_db_error(error),
    }
}

const SOCKETS: &str = "type,user,database,replication,state,addr,port,local_addr,local_port,connect_time,\
    request_time,wait,wait_us,close_needed,ptr,link,remote_pid,tls,application_name,prepared_statements,id";

/// One client in a transaction, one with a temporary table, one that waits, one idle with a statement.
async fn clients_and_servers(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "size = 2").await?;
    let (busy, pinned, waiting, idle) =
        (client(&keyway).await?, client(&keyway).await?, client(&keyway).await?, client(&keyway).await?);
    let console = console(&keyway).await?;
    let _statement = idle.prepare("SELECT $1::int + 1").await?;
    run(&pinned, "CREATE TEMP TABLE console_pinned AS SELECT 1 AS a").await?;
    let pinned_pid = one(&pinned, "SELECT pg_backend_pid()").await?;
    run(&busy, "BEGIN").await?;
    let busy_pid = one(&busy, "SELECT pg_backend_pid()").await?;
    let waits = tokio::spawn(async move { rows(&waiting, "SELECT 7").await });
    let pool = [("database", DATABASE), ("user", USER)];
    until("a client waits", async || {
        Ok(get(&record(&console, "SHOW POOLS", &pool).await?, "cl_waiting") == "1")
    })
    .await?;
    let pools = record(&console, "SHOW POOLS", &pool).await?;
    assert_record(&pools, &[("cl_active", "3"), ("sv_active", "2"), ("sv_idle", "0"), ("cl_pinned", "1")]);
    assert_record(&pools, &[("size", "2"), ("pool_mode", "transaction")]);
    assert!(get(&pools, "maxwait") != "0" || get(&pools, "maxwait_us") != "0", "{pools:?}");

    let servers = [("remote_pid", busy_pid.as_str())];
    let server = record(&console, "SHOW SERVERS", &servers).await?;
    let port = harness.single().await?.shard.primary.address().rsplit(':').next().unwrap_or("").to_owned();
    assert_record(&server, &[("type", "S"), ("state", "active"), ("user", USER), ("database", DATABASE)]);
    assert_record(&server, &[("addr", "127.0.0.1"), ("port", &port), ("shard", "main"), ("role", "primary")]);
    let of_busy = record(&console, "SHOW CLIENTS", &[("id", get(&server, "client_id"))]).await?;
    assert_record(&of_busy, &[("type", "C"), ("state", "active"), ("user", USER), ("database", DATABASE)]);
    assert_record(&of_busy, &[("link", get(&server, "ptr")), ("ptr", get(&server, "link")), ("pin", "NULL")]);
    assert_record(&of_busy, &[("addr", "127.0.0.1"), ("prepared_statements", "0")]);
    let of_pinned = record(&console, "SHOW CLIENTS", &[("pin", "temporary object")]).await?;
    let pin = record(&console, "SHOW PINS", &[("client_id", get(&of_pinned, "id"))]).await?;
    assert_record(&pin, &[("reason", "temporary object"), ("server_pid", &pinned_pid), ("shard", "main")]);
    record(&console, "SHOW CLIENTS", &[("state", "waiting"), ("link", "NULL")]).await?;
    let of_idle = record(&console, "SHOW CLIENTS", &[("prepared_statements", "1")]).await?;
    assert_record(&of_idle, &[("state", "idle"), ("link", "NULL")]);
    record(&console, "SHOW CLIENTS", &[("database", "keyway")]).await?;
    let prepared = record(&console, "SHOW PREPARED", &[("statement", "SELECT $1::int + 1")]).await?;
    assert_record(&prepared, &[("database", DATABASE), ("clients", "1"), ("protocol", "extended")]);

    for (list, items) in [("databases", "1"), ("users", "3"), ("used_clients", "5"), ("used_servers", "2")] {
        assert_record(&record(&console, "SHOW LISTS", &[("list", list)]).await?, &[("items", items)]);
    }
    assert_record(&record(&console, "SHOW LISTS", &[("list", "pins")]).await?, &[("items", "1")]);
    run(&busy, "COMMIT").await?;
    assert_eq!(waits.await??, ["7"]);
    let pools = record(&console, "SHOW POOLS", &pool).await?;
    assert_record(&pools, &[("cl_waiting", "0"), ("sv_active", "1"), ("sv_idle", "1"), ("maxwait_us", "0")]);
    record(&console, "SHOW SERVERS", &[("remote_pid", &busy_pid), ("state", "idle"), ("link", "NULL")])
        .await?;
    assert_eq!(columns(&console, "SHOW CLIENTS").await?, format!("{SOCKETS},pid,pin"));
    assert_eq!(columns(&console, "SHOW SERVERS").await?, format!("{SOCKETS},shard,role,client_id"));
    assert_eq!(
        columns(&console, "SHOW POOLS").await?,
        "database,user,cl_active,cl_waiting,cl_active_cancel_req,cl_waiting_cancel_req,sv_active,\
         sv_active_cancel,sv_being_canceled,sv_idle,sv_used,sv_tested,sv_login,maxwait,maxwait_us,pool_mode,\
         load_balance_hosts,cl_pinned,size"
    );
    Ok(())
}

async fn configuration(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "clients_max = 77", "size = 3\nlifetime = '90m'").await?;
    let (console, _client) = (console(&keyway).await?, client(&keyway).await?);
    let database = record(&console, "SHOW DATABASES", &[("name", DATABASE)]).await?;
    assert_record(&database, &[("host", "127.0.0.1"), ("database", DATABASE), ("pool_size", "3")]);
    assert_record(&database, &[("server_lifetime", "5400"), ("current_client_connections", "1")]);
    assert_record(&database, &[("paused", "0"), ("disabled", "0"), ("shards", "1"), ("servers", "1")]);
    assert_eq!(
        columns(&console, "SHOW DATABASES").await?,
        "name,host,port,database,force_user,pool_size,min_pool_size,reserve_pool_size,server_lifetime,pool_mode,\
         load_balance_hosts,max_connections,current_connections,max_client_connections,\
         current_client_connections,paused,disabled,shards,servers,max_lag_ms"
    );
    let limit = record(&console, "SHOW CONFIG", &[("key", "limits.clients_max")]).await?;
    assert_record(&limit, &[("value", "77"), ("default", "10000"), ("changeable", "yes")]);
    assert_record(&record(&console, "SHOW CONFIG", &[("key", "listen")]).await?, &[("changeable", "no")]);
    let key = format!("users.{USER}.password");
    assert_record(&record(&console, "SHOW CONFIG", &[("key", &key)]).await?, &[("value", "given")]);
    let key = format!("databases.{DATABASE}.pool.lifetime");
    assert_record(&record(&console, "SHOW CONFIG", &[("key", &key)]).await?, &[("value", "1h 30m")]);
    for sql in ["SHOW CONFIG", "SHOW USERS", "SHOW CLIENTS", "SHOW DATABASES"] {
        let shown = format!("{:?}", table(&console, sql).await?);
        assert!(!shown.contains(APP_PASSWORD) && !shown.contains("strange\""), "{sql}: {shown}");
    }
    let user = record(&console, "SHOW USERS", &[("name", "viewer")]).await?;
    assert_record(&user, &[("auth", "scram"), ("console", "stats"), ("current_client_connections", "0")]);
    let user = record(&console, "SHOW USERS", &[("name", USER)]).await?;
    assert_record(&user, &[("console", "admin"), ("current_client_connections", "1")]);
    assert!(one(&console, "SHOW VERSION").await?.starts_with("keyway "));
    assert!(table(&console, "SHOW HELP").await?.iter().any(|it| get(it, "command") == "RELOAD"));
    assert_record(&record(&console, "SHOW STATE", &[("key", "active")]).await?, &[("value", "yes")]);
    Ok(())
}

async fn shards_and_replicas(harness: Arc<Shared>) -> Outcome {
    let shop = &harness.shop().await?.shop;
    let config = |listen: &str, admin: &str| {
        shop.config_text(listen, admin).replacen(
            "\n[limits]",
            &format!("admin_users = [\"{USER}\"]\n[limits]"),
            1,
        )
    };
    let keyway = harness.start_keyway(config).await?;
    let client = connect(&keyway.url(USER, APP_PASSWORD, shop::DATABASE)).await?;
    let console = console(&keyway).await?;
    for _ in 0..3 {
        run(&client, "BEGIN; SELECT name FROM users WHERE user_id = 1; COMMIT").await?;
    }
    for shard in &shop.shards {
        let of = [("database", shop::DATABASE), ("shard", shard.name.as_str())];
        let it = record(&console, "SHOW SHARDS", &of).await?;
        assert_record(&it, &[("servers", "2"), ("replicas", "1"), ("errors", "0"), ("in_flight", "0")]);
        assert_eq!(get(&it, "primary"), shard.primary.address());
        let primary = shard.primary.address();
        let it = record(&console, "SHOW REPLICAS", &[("server", primary.as_str())]).await?;
        assert_record(
            &it,
            &[("role", "primary"), ("shard", &shard.name), ("lag_ms", "NULL"), ("timeline", "1")],
        );
        let replica = shard.replicas[0].address();
        until("the replica's lag is known", async || {
            let it = record(&console, "SHOW REPLICAS", &[("server", replica.as_str())]).await?;
            assert_record(&it, &[("role", "replica"), ("shard", &shard.name)]);
            Ok(get(&it, "lag_ms") != "NULL" && get(&it, "lag_bytes") != "NULL")
        })
        .await?;
    }
    let reads: u64 = table(&console, "SHOW SHARDS")
        .await?
        .iter()
        .map(|it| {
            get(it, "reads").parse::<u64>().unwrap_or(0) + get(it, "writes").parse::<u64>().unwrap_or(0)
        })
        .sum();
    assert!(reads >= 3, "{reads}");
    Ok(())
}

async fn statistics(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "").await?;
    let (console, client) = (console(&keyway).await?, client(&keyway).await?);
    run(&client, "SELECT 1").await?;
    let of = [("database", DATABASE)];
    let number = |it: &Record, name: &str| get(it, name).parse::<u64>().unwrap_or_else(|_| panic!("{name}"));
    let before = record(&console, "SHOW STATS", &of).await?;
    for _ in 0..5 {
        run(&client, "SELECT repeat('x', 1000)").await?;
    }
    run(&client, "BEGIN").await?;
    run(&client, "SELECT pg_sleep(0.05)").await?;
    run(&client, "COMMIT").await?;
    client.query("SELECT $1::text", &[&"x"]).await?;
    let after = record(&console, "SHOW STATS", &of).await?;
    let grown = |name: &str| number(&after, name) - number(&before, name);
    // The driver prepares, runs and closes: three groups up to a Sync, the last of which needs no server.
    let transactions = grown("total_xact_count");
    assert!((8..=9).contains(&transactions), "{transactions}");
    assert!(grown("total_query_count") >= 8, "{after:?}");
    assert!(grown("total_sent") > 5_000 && grown("total_received") > 100, "{after:?}");
    assert!(grown("total_query_time") >= 50_000, "{after:?}");
    assert!(grown("total_xact_time") >= 50_000, "{after:?}");
    assert_eq!(grown("total_client_parse_count"), 1);
    assert_eq!(grown("total_bind_count"), 1);
    assert_eq!(grown("total_server_parse_count"), 1);
    assert!(grown("total_server_assignment_count") >= 7, "{after:?}");
    let totals = record(&console, "SHOW STATS_TOTALS", &of).await?;
    // The driver closes its statement when it gets to it.
    assert!(number(&totals, "xact_count") - number(&after, "total_xact_count") <= 1, "{totals:?}");
    let averages = record(&console, "SHOW STATS_AVERAGES", &of).await?;
    assert_eq!(averages.len(), totals.len());
    // What a client did that is gone stays counted.
    drop(client);
    until("the client is gone", async || {
        Ok(table(&console, "SHOW CLIENTS").await?.iter().all(|it| get(it, "database") == "keyway"))
    })
    .await?;
    let last = record(&console, "SHOW STATS", &of).await?;
    assert!(number(&last, "total_xact_count") >= number(&after, "total_xact_count"));
    Ok(())
}

async fn rights(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "").await?;
    for database in ["keyway", "pgbouncer"] {
        let viewer = connect(&keyway.url("viewer", "looks", database)).await?;
        assert!(!table(&viewer, "SHOW POOLS").await?.is_empty());
        for command in ["RELOAD", "PAUSE", "KILL_CLIENT 1", "SHUTDOWN", "DISABLE plain"] {
            assert_error(&error_of(&viewer, command).await?, "42501", "permission denied for ");
        }
        let error = refusal(&keyway.url("stranger", "strange", database)).await?;
        assert_error(&error, "42501", "permission denied for database");
        assert!(error.hint().is_some_and(|it| it.contains("admin_users")));
        let error = refusal(&keyway.url(USER, "wrong", database)).await?;
        assert_error(&error, "28P01", "password authentication failed");
    }
    assert!(!table(&console(&keyway).await?, "SHOW POOLS").await?.is_empty());
    Ok(())
}

/// The extended protocol has binary numbers, row limits and errors that hold until Sync.
async fn both_protocols(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "size = 6").await?;
    let mut console = console(&keyway).await?;
    let statement = console.prepare("SHOW DATABASES").await?;
    for _ in 0..2 {
        let row = console.query_one(&statement, &[]).await?;
        assert_eq!((row.get::<_, &str>("name"), row.get::<_, i64>("pool_size")), (DATABASE, 6));
        assert_eq!(row.get::<_, Option<&str>>("force_user"), None);
    }
    let lists = table(&console, "SHOW LISTS").await?.len();
    let transaction = console.transaction().await?;
    let portal = transaction.bind("SHOW LISTS", &[]).await?;
    let (first, rest) = (
        transaction.query_portal(&portal, 5).await?.len(),
        transaction.query_portal(&portal, 0).await?.len(),
    );
    assert_eq!((first, first + rest), (5, lists));
    let error = transaction.query("SHOW NOTHING", &[]).await.err().and_then(|it| it.as_db_error().cloned());
    assert_error(&error.ok_or("no error")?, "42601", "SHOW NOTHING");
    let error = transaction.query("SHOW LISTS", &[]).await.err().and_then(|it| it.as_db_error().cloned());
    assert_error(&error.ok_or("no error")?, "25P02", "current transaction is aborted");
    transaction.rollback().await?;
    assert_eq!(console.query("SHOW LISTS", &[]).await?.len(), lists);
    let several = rows(&console, "SHOW VERSION; SHOW STATE;").await?;
    assert_eq!(several.len(), 4, "{several:?}");
    console.batch_execute(" ; -- nothing").await?;
    console.execute("PAUSE", &[]).await?;
    console.execute("RESUME", &[]).await?;
    Ok(())
}

async fn errors(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "").await?;
    let console = console(&keyway).await?;
    for (sql, state, part) in [
        ("SELECT 1", "42601", "the console does not know \"SELECT 1\""),
        ("SHOW KEY", "42601", "does not know \"SHOW KEY\""),
        ("SHOW KEYS nowhere", "42704", "map \"nowhere\" does not exist"),
        ("SHOW HEATMAP", "42601", "a map is required"),
        ("PAUSE nowhere", "3D000", "no such database: nowhere"),
        ("DISABLE", "42601", "a database is required"),
        ("KILL_CLIENT 123456", "42704", "no client with id 123456"),
    ] {
        let error = error_of(&console, sql).await?;
        assert_error(&error, state, part);
        assert!(error.hint().is_some(), "{error:?}");
    }
    assert_error(&error_of(&console, "RESUME plain").await?, "55000", "is not paused");
    assert!(!rows(&console, "SHOW VERSION").await?.is_empty());
    Ok(())
}

/// What of Keyway is connected to the server, its prober left out.
async fn server_connections(direct: &Client) -> Fallible<String> {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND usename = '{USER}' \
         AND application_name = 'console_pause'"
    );
    one(direct, &sql).await
}

async fn pause(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "size = 3\nwait_timeout = '500ms'").await?;
    let (console, client) = (console(&keyway).await?, client(&keyway).await?);
    run(&client, "CREATE TABLE console_pause (n int)").await?;
    let dir = harness.fresh_dir()?;
    let script = dir.path().join("pause.sql");
    let text =
        "BEGIN;\nINSERT INTO console_pause VALUES (1);\nSELECT count(*) FROM pg_class;\nEND;\nSELECT 1;\n";
    std::fs::write(&script, text)?;
    let mut bench = Command::new(harness.installation().client_program("pgbench")?);
    let arguments = ["-M", "prepared", "-n", "-c", "3", "-j", "3", "-t", "300", "-f"];
    bench.args(arguments).arg(&script).arg(format!("{}?application_name=console_pause", url(&keyway)));
    bench.kill_on_drop(true);
    let bench = tokio::spawn(async move { bench.output().await });
    let direct = harness.single().await?.shard.primary.connect(DATABASE).await?;
    let count = async || Ok(one(&direct, "SELECT count(*) FROM console_pause").await?.parse::<u32>()?);
    let mut pauses = 0;
    let mut seen: u32 = 0;
    while !bench.is_finished() && pauses < 4 {
        until("pgbench is at work", async || {
            let now: Fallible<u32> = count().await;
            Ok(bench.is_finished() || now? > seen)
        })
        .await?;
        run(&console, &format!("PAUSE {DATABASE}")).await?;
        let it = record(&console, "SHOW DATABASES", &[("name", DATABASE)]).await?;
        assert_record(&it, &[("paused", "1"), ("current_connections", "0")]);
        until("its server connections close", async || Ok(server_connections(&direct).await? == "0")).await?;
        let now: Fallible<u32> = count().await;
        seen = now?;
        // Longer than a client may wait for a connection otherwise.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let now: Fallible<u32> = count().await;
        assert_eq!(now?, seen, "nothing runs");
        assert_error(&error_of(&console, &format!("PAUSE {DATABASE}")).await?, "55000", "already paused");
        run(&console, &format!("RESUME {DATABASE}")).await?;
        pauses += 1;
    }
    let output = bench.await??;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("actually processed: 900/900\n"), "{said}");
    assert!(!said.contains("aborted") && !said.contains("ERROR"), "{said}");
    assert!(pauses >= 2, "only {pauses} pauses");
    // A transaction that is open is waited for.
    run(&client, "BEGIN; SELECT 1").await?;
    let pausing = console.simple_query("PAUSE");
    tokio::pin!(pausing);
    assert!(timeout(Duration::from_millis(200), &mut pausing).await.is_err(), "a transaction is open");
    run(&client, "COMMIT").await?;
    pausing.await?;
    run(&console, "RESUME").await?;
    run(&client, "DROP TABLE console_pause").await?;
    Ok(())
}

async fn reconnect(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "size = 2").await?;
    let (console, first, second) = (console(&keyway).await?, client(&keyway).await?, client(&keyway).await?);
    run(&first, "BEGIN").await?;
    let (held, idle) =
        (one(&first, "SELECT pg_backend_pid()").await?, one(&second, "SELECT pg_backend_pid()").await?);
    run(&console, &format!("RECONNECT {DATABASE}")).await?;
    assert_eq!(one(&first, "SELECT pg_backend_pid()").await?, held);
    record(&console, "SHOW SERVERS", &[("remote_pid", &held), ("close_needed", "1")]).await?;
    assert_ne!(one(&second, "SELECT pg_backend_pid()").await?, idle);
    let waiting = console.simple_query("WAIT_CLOSE");
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "a transaction is open");
    run(&first, "COMMIT").await?;
    waiting.await?;
    let pids: Vec<_> =
        table(&console, "SHOW SERVERS").await?.iter().map(|it| get(it, "remote_pid").to_owned()).collect();
    assert!(!pids.contains(&held) && !pids.contains(&idle), "{pids:?}");
    Ok(())
}

async fn kill(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "").await?;
    let console = console(&keyway).await?;
    let direct = harness.single().await?.shard.primary.connect(DATABASE).await?;
    // In the middle of a statement, which ends too.
    let busy = client(&keyway).await?;
    let sleeping =
        tokio::spawn(async move { busy.simple_query("SELECT pg_sleep(200), 'console_kill'").await });
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%''console_kill''' AND state = 'active'";
    until("it sleeps", async || Ok(one(&direct, running).await? == "1")).await?;
    let it = record(&console, "SHOW CLIENTS", &[("state", "active"), ("database", DATABASE)]).await?;
    run(&console, &format!("KILL_CLIENT {}", get(&it, "id"))).await?;
    assert!(sleeping.await?.is_err());
    until("its statement has ended", async || Ok(one(&direct, running).await? == "0")).await?;
    // An idle one is told.
    let mut idle =
        crate::harness::wire::Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    let of_idle = [("state", "idle"), ("database", DATABASE)];
    until("it is idle", async || Ok(record(&console, "SHOW CLIENTS", &of_idle).await.is_ok())).await?;
    let it = record(&console, "SHOW CLIENTS", &of_idle).await?;
    run(&console, &format!("KILL_CLIENT {}", get(&it, "id"))).await?;
    let words = idle.until('E').await?;
    assert!(words.last().is_some_and(|it| it.error().contains("57P01")), "{words:?}");
    // All of a database, and nobody comes in before RESUME.
    let (one_more, open) = (client(&keyway).await?, client(&keyway).await?);
    run(&open, "BEGIN; SELECT 1").await?;
    run(&console, &format!("KILL {DATABASE}")).await?;
    until("both are gone", async || Ok(one_more.is_closed() && open.is_closed())).await?;
    until("and their servers", async || {
        Ok(get(&record(&console, "SHOW DATABASES", &[("name", DATABASE)]).await?, "current_connections")
            == "0")
    })
    .await?;
    let url = url(&keyway);
    let coming = tokio::spawn(async move {
        let client = connect(&url).await?;
        rows(&client, "SELECT 'in'").await
    });
    until("somebody waits at the door", async || {
        Ok(table(&console, "SHOW CLIENTS").await?.iter().any(|it| get(it, "database") == DATABASE))
    })
    .await?;
    assert!(!coming.is_finished());
    run(&console, &format!("RESUME {DATABASE}")).await?;
    assert_eq!(coming.await??, ["in"]);
    Ok(())
}

async fn disable(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "").await?;
    let (console, client) = (console(&keyway).await?, client(&keyway).await?);
    run(&console, &format!("DISABLE {DATABASE}")).await?;
    assert_error(&refusal(&url(&keyway)).await?, "55000", "not currently accepting connections");
    assert_eq!(one(&client, "SELECT 1").await?, "1");
    let it = record(&console, "SHOW DATABASES", &[("name", DATABASE)]).await?;
    assert_record(&it, &[("disabled", "1")]);
    run(&console, &format!("ENABLE {DATABASE}")).await?;
    connect(&url(&keyway)).await?;
    Ok(())
}

async fn reload(harness: Arc<Shared>) -> Outcome {
    let servers = [harness.single().await?.shard.primary.address()];
    let config = |pool: &'static str| {
        let servers = servers.clone();
        move |listen: &str, admin: &str| config(&servers, "", pool, listen, admin)
    };
    let keyway = harness.start_keyway(config("size = 3")).await?;
    let (console, mut notices) = connect_hearing(&keyway.url(USER, APP_PASSWORD, "keyway")).await?;
    keyway.write_config(config("size = 0\nsice = 1"))?;
    let error = error_of(&console, "RELOAD").await?;
    assert_error(&error, "F0000", "the configuration file has 2 problems");
    let detail = error.detail().unwrap_or_default();
    assert!(detail.contains("unknown key `sice`") && detail.contains("line "), "{detail}");
    let size = async || {
        Fallible::Ok(
            get(&record(&console, "SHOW DATABASES", &[("name", DATABASE)]).await?, "pool_size").to_owned(),
        )
    };
    assert_eq!(size().await?, "3");
    keyway.write_config(config("size = 4"))?;
    run(&console, "RELOAD").await?;
    assert_eq!(size().await?, "4");
    let told = timeout(Duration::from_secs(30), notices.recv()).await?.ok_or("no notice")?;
    assert!(told.message().contains("database plain: pool.size"), "{told:?}");
    // Who is paused stays so.
    run(&console, "PAUSE").await?;
    keyway.write_config(config("size = 5"))?;
    run(&console, "RELOAD").await?;
    let it = record(&console, "SHOW DATABASES", &[("name", DATABASE)]).await?;
    assert_record(&it, &[("paused", "1"), ("pool_size", "5")]);
    // Who waits goes on, although its pool has been replaced.
    let waiting = client_waiting(&keyway).await?;
    until("a client waits", async || {
        Ok(table(&console, "SHOW POOLS").await?.iter().any(|it| get(it, "cl_waiting") == "1"))
    })
    .await?;
    keyway.write_config(config("size = 6"))?;
    run(&console, "RELOAD").await?;
    run(&console, "RESUME").await?;
    assert_eq!(waiting.await??, ["7"]);
    assert_eq!(one(&client(&keyway).await?, "SELECT 1").await?, "1");
    // Rights are of the newest file.
    let text = config("size = 5");
    keyway
        .write_config(move |listen, admin| text(listen, admin).replacen(&format!("[\"{USER}\"]"), "[]", 1))?;
    run(&console, "RELOAD").await?;
    assert_error(&error_of(&console, "RELOAD").await?, "42501", "permission denied for RELOAD");
    Ok(())
}

/// Its first statement waits.
async fn client_waiting(keyway: &KeywayProcess) -> Fallible<tokio::task::JoinHandle<Fallible<Vec<String>>>> {
    let url = url(keyway);
    Ok(tokio::spawn(async move { rows(&connect(&url).await?, "SELECT 7").await }))
}

async fn reserve(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "clients_max = 1", "").await?;
    let _client = client(&keyway).await?;
    assert_error(&refusal(&url(&keyway)).await?, "53300", "too many clients");
    let console = console(&keyway).await?;
    assert_eq!(table(&console, "SHOW CLIENTS").await?.len(), 2);
    Ok(())
}

async fn shutdown(harness: Arc<Shared>) -> Outcome {
    let mut keyway = keyway(&harness, "shutdown_timeout = '1h'", "").await?;
    let (console, client) = (console(&keyway).await?, client(&keyway).await?);
    run(&console, "SHUTDOWN WAIT_FOR_CLIENTS").await?;
    until("no client is taken", async || Ok(connect(&url(&keyway)).await.is_err())).await?;
    assert_eq!(one(&client, "SELECT 1").await?, "1");
    drop(client);
    keyway.wait_until_ended().await?;

    let mut keyway = self::keyway(&harness, "shutdown_timeout = '1h'", "").await?;
    let (console, client, idle) =
        (self::console(&keyway).await?, self::client(&keyway).await?, self::client(&keyway).await?);
    run(&client, "BEGIN; SELECT 1").await?;
    run(&console, "SHUTDOWN WAIT_FOR_SERVERS").await?;
    until("the idle one is sent away", async || Ok(idle.is_closed())).await?;
    assert_eq!(one(&client, "SELECT 1").await?, "1");
    run(&client, "COMMIT").await?;
    keyway.wait_until_ended().await?;
    Ok(())
}

async fn signals(harness: Arc<Shared>) -> Outcome {
    // SIGINT waits for transactions, whatever shutdown_timeout says.
    let mut keyway = keyway(&harness, "shutdown_timeout = '1ms'", "").await?;
    let (client, idle) = (client(&keyway).await?, client(&keyway).await?);
    run(&client, "BEGIN; SELECT 1").await?;
    keyway.signal(Signal::INT)?;
    until("the idle one is sent away", async || Ok(idle.is_closed())).await?;
    assert_eq!(one(&client, "SELECT 1").await?, "1");
    run(&client, "COMMIT").await?;
    keyway.wait_until_ended().await?;
    // The second signal ends it at once.
    for second in [Signal::TERM, Signal::INT] {
        let mut keyway = self::keyway(&harness, "shutdown_timeout = '1h'", "").await?;
        let client = self::client(&keyway).await?;
        run(&client, "BEGIN; SELECT 1").await?;
        keyway.signal(Signal::TERM)?;
        until("it stops", async || Ok(keyway.log().contains("stopping"))).await?;
        assert_eq!(one(&client, "SELECT 1").await?, "1");
        keyway.signal(second)?;
        keyway.wait_until_ended().await?;
    }
    Ok(())
}

async fn psql(harness: Arc<Shared>) -> Outcome {
    let keyway = keyway(&harness, "", "").await?;
    let url = keyway.url(USER, APP_PASSWORD, "pgbouncer");
    let program = harness.installation().client_program("psql")?;
    let mut command = Command::new(&program);
    command.args(["--no-psqlrc", "--no-align", "--tuples-only", &url]);
    command.args([
        "-c",
        "SHOW VERSION",
        "-c",
        "SHOW DATABASES",
        "-c",
        "PAUSE",
        "-c",
        "RESUME",
        "-c",
        "SHOW X",
    ]);
    let output = command.kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.starts_with("keyway ") && said.contains("\nplain|") && said.contains("PAUSE\nRESUME\n"),
        "{said}"
    );
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("the console does not know \"SHOW X\"") && error.contains("HINT:"), "{error}");
    // \watch goes on until the console ends the session.
    let mut command = Command::new(&program);
    command.args(["--no-psqlrc", "--no-align", "--tuples-only", &url]).kill_on_drop(true);
    let file = harness.fresh_dir()?;
    let (script, out) = (file.path().join("watch.sql"), file.path().join("watch.out"));
    std::fs::write(&script, "SHOW VERSION \\watch 0.05\n")?;
    command
        .arg("--file")
        .arg(&script)
        .stdout(std::fs::File::create(&out)?)
        .stdin(std::process::Stdio::null());
    let mut watching = command.spawn()?;
    until("it is shown three times", async || {
        Ok(std::fs::read_to_string(&out)?.matches("\nkeyway ").count() >= 3)
    })
    .await?;
    watching.kill().await?;
    Ok(())
}

async fn driver(harness: &Shared, program: &str, options: &[&str], file: &str) -> Outcome {
    let keyway = keyway(harness, "", "size = 6").await?;
    let said = drivers::run_file(program, options, file, &keyway.url(USER, APP_PASSWORD, "keyway")).await?;
    assert!(said.trim_end().ends_with("done"), "{said}");
    Ok(())
}
