//! SIGHUP: what the difference touches changes, what it does not lives on, and an invalid file changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use keyway::demo::postgres::Signal;
use keyway::demo::shop::{self, USER};
use libtest_mimic::Trial;
use tokio::process::Command;
use tokio_postgres::Client;

use crate::harness::wire::{Wire, query};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, connect, error_of, rows,
    run, until,
};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("reload::an_invalid_file_changes_nothing", invalid),
        harness.test("reload::a_replica_is_added_and_removed", replica),
        harness.test("reload::a_pool_gets_another_size", pool_size),
        harness.test("reload::slots_move", slots),
        harness.test("reload::slots_move_under_load", slots_under_load),
        harness.test("reload::a_database_and_a_user_are_removed", removed),
        harness.test("reload::limits_change", limits),
        harness.test("reload::statements_live_on_under_load", load),
        harness.test("reload::a_pinned_session_goes_along", pinned),
        harness.test("reload::who_listens_hears_on", listening),
    ]
}

/// A configuration that tests write anew with other parts.
#[derive(Clone, Default)]
struct Said {
    top: &'static str,
    limits: &'static str,
    more: String,
    servers: Vec<String>,
    pool: &'static str,
}

impl Said {
    fn text(&self, listen: &str, admin: &str) -> String {
        let Said { top, limits, more, servers, pool } = self;
        let servers = servers.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ");
        format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\n{top}\n[limits]\n{limits}\n\
             [users.{USER}]\npassword = \"{APP_PASSWORD}\"\n{more}\n\
             [databases.{DATABASE}]\nservers = [{servers}]\n[databases.{DATABASE}.pool]\n{pool}\n"
        )
    }
}

/// Of the shared servers those with these numbers, the primary being 0.
async fn servers(harness: &Shared, numbers: &[usize]) -> Fallible<Vec<String>> {
    let all: Vec<_> = harness.single().await?.shard.servers().map(|it| it.address()).collect();
    Ok(numbers.iter().map(|it| all[*it].clone()).collect())
}

async fn start(harness: &Shared, said: &Said) -> Fallible<KeywayProcess> {
    harness.start_keyway(|listen, admin| said.text(listen, admin)).await
}

fn outcomes(keyway: &KeywayProcess) -> usize {
    let log = keyway.log();
    log.matches("configuration reloaded").count() + log.matches("configuration not reloaded").count()
}

/// Writes the file and returns when it has been read.
async fn reload(keyway: &KeywayProcess, text: impl Fn(&str, &str) -> String) -> Outcome {
    keyway.write_config(text)?;
    let before = outcomes(keyway);
    keyway.signal(Signal::HUP)?;
    until("the reload is done", async || Ok(outcomes(keyway) > before)).await?;
    Ok(())
}

async fn say(keyway: &KeywayProcess, said: &Said) -> Outcome {
    reload(keyway, |listen, admin| said.text(listen, admin)).await?;
    assert!(!keyway.log().contains("configuration not reloaded"), "{}", keyway.log());
    Ok(())
}

fn url(keyway: &KeywayProcess) -> String {
    keyway.url(USER, APP_PASSWORD, DATABASE)
}

async fn client(keyway: &KeywayProcess) -> Fallible<Client> {
    connect(&url(keyway)).await
}

async fn wire(keyway: &KeywayProcess) -> Fallible<Wire> {
    Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await
}

async fn one(client: &Client, sql: &str) -> Fallible<String> {
    Ok(rows(client, sql).await?.first().ok_or("no row")?.clone())
}

/// The error that ends a session whose client says nothing.
async fn last_words(wire: &mut Wire) -> Fallible<String> {
    let words = wire.until('E').await?;
    let last = words.last().ok_or("no last words")?;
    assert_eq!(last.field('V').as_deref(), Some("FATAL"), "{last:?}");
    assert!(wire.rest().await?.is_empty());
    Ok(format!("{} {}", last.error(), last.field('D').unwrap_or_default()))
}

async fn invalid(harness: Arc<Shared>) -> Outcome {
    let said = Said { servers: servers(&harness, &[0]).await?, ..Said::default() };
    let keyway = start(&harness, &said).await?;
    let client = client(&keyway).await?;
    let server = one(&client, "SELECT pg_backend_pid()").await?;
    let broken = Said { pool: "size = 0\nsise = 3", limits: "clients_max = \"many\"", ..said.clone() };
    reload(&keyway, |listen, admin| broken.text(listen, admin)).await?;
    let log = keyway.log();
    assert!(log.contains("configuration not reloaded: everything stays as it was"), "{log}");
    for problem in ["unknown key `sise`", "`size` is 0", "`clients_max`", "has 3 problems"] {
        assert!(log.contains(problem), "no {problem} in {log}");
    }
    assert_eq!(one(&client, "SELECT pg_backend_pid()").await?, server);
    reload(&keyway, |_, _| "listen = ".to_owned()).await?;
    assert_eq!(one(&client, "SELECT pg_backend_pid()").await?, server);
    // What holds from start to end.
    reload(&keyway, |listen, _| Said { top: "workers = 3", ..said.clone() }.text(listen, "127.0.0.1:1"))
        .await?;
    assert!(keyway.log().contains("after a restart: admin, workers"), "{}", keyway.log());
    assert_eq!(keyway.http("/readyz").await?.0, 200);
    assert_eq!(one(&client, "SELECT pg_backend_pid()").await?, server);
    Ok(())
}

/// The client, its settings, its prepared statement and the server connection stay; the replica comes and goes,
/// also when it stands before the primary.
async fn replica(harness: Arc<Shared>) -> Outcome {
    let said = Said {
        servers: servers(&harness, &[0]).await?,
        pool: "size = 1\nlifetime = '1d'",
        ..Said::default()
    };
    let keyway = start(&harness, &said).await?;
    let client = client(&keyway).await?;
    // A function that asks the server where it is would keep the statement from replicas.
    run(
        &client,
        "CREATE OR REPLACE VIEW reload_here AS SELECT current_setting('in_hot_standby')::bool AS is_replica",
    )
    .await?;
    run(&client, "SET application_name = 'stays'").await?;
    let statement = client.prepare("SELECT pg_backend_pid() WHERE $1::int > 0").await?;
    let on_primary = "BEGIN; SELECT pg_backend_pid()::text || current_setting('application_name'); COMMIT";
    let server = one(&client, on_primary).await?;
    assert!(server.ends_with("stays"), "{server}");
    let added = Said { servers: servers(&harness, &[1, 0]).await?, ..said.clone() };
    say(&keyway, &added).await?;
    let read = "SELECT is_replica FROM reload_here";
    until("reads reach the replica", async || Ok(one(&client, read).await? == "t")).await?;
    assert_eq!(client.query(&statement, &[&1i32]).await?.len(), 1);
    assert_eq!(one(&client, on_primary).await?, server);
    let replica = &added.servers[0];
    let metrics = keyway.metrics().await?;
    assert!(metrics.contains(&format!("server=\"{replica}\"")), "{metrics}");
    say(&keyway, &said).await?;
    assert_eq!(one(&client, read).await?, "f");
    assert_eq!(one(&client, on_primary).await?, server);
    assert_eq!(client.query(&statement, &[&1i32]).await?.len(), 1);
    let metrics = keyway.metrics().await?;
    assert!(!metrics.contains(replica.as_str()), "{metrics}");
    Ok(())
}

/// A transaction ends where it has begun; the pool that it was of keeps nothing.
async fn pool_size(harness: Arc<Shared>) -> Outcome {
    let said = Said { servers: servers(&harness, &[0]).await?, pool: "size = 1", ..Said::default() };
    let keyway = start(&harness, &said).await?;
    let (first, second) = (client(&keyway).await?, client(&keyway).await?);
    run(&first, "BEGIN").await?;
    let server = one(&first, "SELECT pg_backend_pid()").await?;
    say(&keyway, &Said { pool: "size = 2\nwait_timeout = '500ms'", ..said }).await?;
    run(&second, "BEGIN").await?;
    let other = one(&second, "SELECT pg_backend_pid()").await?;
    assert_ne!(other, server);
    assert_eq!(one(&first, "SELECT pg_backend_pid()").await?, server);
    run(&first, "COMMIT").await?;
    let direct = harness.single().await?.shard.primary.connect("postgres").await?;
    until("the old connection is closed", async || {
        let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {server}");
        Ok(one(&direct, &alive).await? == "0")
    })
    .await?;
    run(&first, "BEGIN").await?;
    assert_ne!(one(&first, "SELECT pg_backend_pid()").await?, other);
    let third = client(&keyway).await?;
    assert_eq!(error_of(&third, "SELECT 1").await?.code().code(), "53300");
    run(&second, "COMMIT").await?;
    run(&third, "SELECT 1").await?;
    Ok(())
}

fn slots_config(fixture: &[String; 2], places: [&str; 2], listen: &str, admin: &str) -> String {
    let name = shop::DATABASE;
    let [first, second] = fixture;
    let [zero, one] = places;
    format!(
        "listen = \"{listen}\"\nadmin = \"{admin}\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n\
         [databases.{name}.shards.s1]\nservers = [\"{first}\"]\n\
         [databases.{name}.shards.s2]\nservers = [\"{second}\"]\n\
         [databases.{name}.maps.moving]\nkind = \"hash\"\ntype = \"bigint\"\nslots = 2\n\
         assign = [{{ slots = \"0\", shard = \"{zero}\" }}, {{ slots = \"1\", shard = \"{one}\" }}]\n\
         [databases.{name}.tables.reload_moving]\nmap = \"moving\"\nkey = \"id\"\n"
    )
}

/// Statements prepared before, by either protocol, go where their keys are now, and a transaction does not see
/// the change before it has ended.
async fn slots(harness: Arc<Shared>) -> Outcome {
    let shards = &harness.shop().await?.shop.shards;
    let servers = [shards[0].primary.address(), shards[1].primary.address()];
    let config = |places: [&'static str; 2]| {
        let servers = servers.clone();
        move |listen: &str, admin: &str| slots_config(&servers, places, listen, admin)
    };
    let keyway = harness.start_keyway(config(["s1", "s2"])).await?;
    let url = keyway.url(USER, APP_PASSWORD, shop::DATABASE);
    let (client, busy) = (connect(&url).await?, connect(&url).await?);
    run(&client, "CREATE TABLE reload_moving (id bigint, place text)").await?;
    for shard in shards {
        let direct = shard.primary.connect(shop::DATABASE).await?;
        let fill =
            format!("INSERT INTO reload_moving SELECT id, '{}' FROM generate_series(1, 9) id", shard.name);
        run(&direct, &fill).await?;
    }
    let by_text = "SELECT place FROM reload_moving WHERE id = 5";
    let statement = client.prepare("SELECT place FROM reload_moving WHERE id = $1").await?;
    let places = async || {
        let prepared = client.query_one(&statement, &[&5i64]).await?.get::<_, String>(0);
        Fallible::Ok([prepared, one(&client, by_text).await?])
    };
    let before = places().await?;
    let other = if before[0] == "s1" { "s2" } else { "s1" };
    assert!(before.iter().all(|it| *it == before[0]), "{before:?}");
    run(&busy, "BEGIN").await?;
    assert_eq!(one(&busy, by_text).await?, before[0]);
    reload(&keyway, config(["s2", "s1"])).await?;
    assert_eq!(places().await?, [other, other]);
    assert_eq!(one(&busy, by_text).await?, before[0], "in the transaction");
    run(&busy, "COMMIT").await?;
    assert_eq!(one(&busy, by_text).await?, other);
    reload(&keyway, config(["s1", "s2"])).await?;
    assert_eq!(places().await?, before);
    run(&client, "DROP TABLE reload_moving").await?;
    Ok(())
}

const MOVING_KEYS: i64 = 32;
const MOVES: usize = 12;
const WRITERS: i32 = 4;

/// A row that a writer was told is written, and the numbers of reloads begun and ended around its statement: even
/// while none is under way.
struct Written {
    key: i64,
    writer: i32,
    number: i32,
    began: usize,
    ended: usize,
}

/// Writes until told to stop: by text, prepared, two rows in one statement, and in a transaction.
async fn write_moving(
    url: String,
    writer: i32,
    phase: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Fallible<Vec<Written>> {
    let client = connect(&url).await?;
    let prepared = client.prepare("INSERT INTO reload_rows (id, writer, number) VALUES ($1, $2, $3)").await?;
    let (mut written, mut number) = (Vec::new(), 0);
    while !stop.load(Ordering::SeqCst) {
        let key = i64::from(number) * 7 % MOVING_KEYS + 1;
        let began = phase.load(Ordering::SeqCst);
        let text = format!("INSERT INTO reload_rows (id, writer, number) VALUES ({key}, {writer}, {number})");
        let next = format!("({key}, {writer}, {})", number + 1);
        let count = match number % 4 {
            0 => client.batch_execute(&text).await.map(|()| 1)?,
            1 => client.execute(&prepared, &[&key, &writer, &number]).await.map(|_| 1)?,
            2 => client.batch_execute(&format!("{text}, {next}")).await.map(|()| 2)?,
            _ => {
                let second = format!("INSERT INTO reload_rows (id, writer, number) VALUES {next}");
                for step in ["BEGIN", &text, &second, "COMMIT"] {
                    client.batch_execute(step).await?;
                }
                2
            }
        };
        let ended = phase.load(Ordering::SeqCst);
        written.extend((number..number + count).map(|number| Written { key, writer, number, began, ended }));
        number += count;
    }
    Ok(written)
}

/// While maps change under load, each row lies once, and on the shard of a map that held while it was written.
async fn slots_under_load(harness: Arc<Shared>) -> Outcome {
    let shards = &harness.shop().await?.shop.shards;
    let servers = [shards[0].primary.address(), shards[1].primary.address()];
    let config = |places: [&'static str; 2]| {
        let (servers, table) = (servers.clone(), shop::DATABASE);
        move |listen: &str, admin: &str| {
            slots_config(&servers, places, listen, admin)
                + &format!("[databases.{table}.tables.reload_rows]\nmap = \"moving\"\nkey = \"id\"\n")
        }
    };
    let keyway = harness.start_keyway(config(["s1", "s2"])).await?;
    let url = keyway.url(USER, APP_PASSWORD, shop::DATABASE);
    let client = connect(&url).await?;
    run(&client, "CREATE TABLE reload_rows (id bigint, writer int, number int)").await?;
    let mut first_places = vec![0; MOVING_KEYS as usize + 1];
    for key in 1..=MOVING_KEYS {
        let plan =
            rows(&client, &format!("EXPLAIN (KEYWAY) SELECT id FROM reload_rows WHERE id = {key}")).await?;
        first_places[key as usize] = usize::from(!plan.iter().any(|it| it.contains("s1")));
    }
    assert!(first_places[1..].contains(&0) && first_places[1..].contains(&1), "{first_places:?}");

    let (phase, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let start = |it| tokio::spawn(write_moving(url.clone(), it, phase.clone(), stop.clone()));
    let writers: Vec<_> = (0..WRITERS).map(start).collect();
    let count =
        async || Fallible::Ok(one(&client, "SELECT count(*) FROM reload_rows").await?.parse::<u64>()?);
    for index in 1..=MOVES {
        // Some work is done under each map.
        let before = count().await?;
        let some = async || Ok(writers.iter().any(|it| it.is_finished()) || count().await? >= before + 40);
        until("rows are written", some).await?;
        phase.fetch_add(1, Ordering::SeqCst);
        reload(&keyway, config(if index % 2 == 0 { ["s1", "s2"] } else { ["s2", "s1"] })).await?;
        phase.fetch_add(1, Ordering::SeqCst);
    }
    stop.store(true, Ordering::SeqCst);
    let mut written = Vec::new();
    for it in writers {
        written.extend(it.await??);
    }

    let mut found = HashMap::new();
    for (place, shard) in shards.iter().enumerate() {
        let direct = shard.primary.connect(shop::DATABASE).await?;
        for row in direct.query("SELECT writer, number, id FROM reload_rows", &[]).await? {
            let (writer, number): (i32, i32) = (row.get(0), row.get(1));
            let twice = found.insert((writer, number), (place, row.get::<_, i64>(2)));
            assert_eq!(twice, None, "row {number} of writer {writer} is there twice");
        }
    }
    assert_eq!(found.len(), written.len());
    let mut steady = 0;
    for Written { key, writer, number, began, ended } in written {
        let (place, of) = found[&(writer, number)];
        assert_eq!(of, key);
        if began == ended && began % 2 == 0 {
            steady += 1;
            let want = (first_places[key as usize] + began / 2) % 2;
            assert_eq!(
                place,
                want,
                "key {key}, row {number} of writer {writer}, behind reload {}",
                began / 2
            );
        }
    }
    assert!(steady > MOVES * 20, "only {steady} rows were written between reloads");
    run(&client, "DROP TABLE reload_rows").await?;
    Ok(())
}

async fn removed(harness: Arc<Shared>) -> Outcome {
    let all = servers(&harness, &[0]).await?;
    let more = format!(
        "[users.guest]\nauth = \"trust\"\n[databases.second]\ndbname = \"{DATABASE}\"\nservers = [\"{}\"]\n",
        all[0]
    );
    let said = Said { servers: all, more, ..Said::default() };
    let keyway = start(&harness, &said).await?;
    let second = keyway.url(USER, APP_PASSWORD, "second");
    let mut idle = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, "second", &[]).await?;
    let (busy, stays) = (connect(&second).await?, client(&keyway).await?);
    run(&busy, "BEGIN").await?;
    let server = one(&busy, "SELECT pg_backend_pid()").await?;
    let stays_on = one(&stays, "SELECT pg_backend_pid()").await?;
    say(&keyway, &Said { more: "[users.guest]\nauth = \"trust\"\n".to_owned(), ..said.clone() }).await?;
    let words = last_words(&mut idle).await?;
    assert!(words.contains("57P01") && words.contains("database \"second\" was removed"), "{words}");
    assert_eq!(one(&busy, "SELECT pg_backend_pid()").await?, server);
    run(&busy, "COMMIT").await?;
    until("the busy one is told when it is done", async || Ok(busy.is_closed())).await?;
    assert_eq!(one(&stays, "SELECT pg_backend_pid()").await?, stays_on);
    let Err(error) = connect(&second).await else { return Err("logged in to nowhere".into()) };
    assert!(format!("{error:?}").contains("database \\\"second\\\" does not exist"), "{error:?}");
    let metrics = keyway.metrics().await?;
    assert!(!metrics.contains("database=\"second\""), "{metrics}");
    assert!(metrics.contains("user=\"guest\""), "{metrics}");

    // A user with another password stays, and needs the new one next time.
    let mut wire = wire(&keyway).await?;
    let text = |listen: &str, admin: &str| {
        Said { more: String::new(), ..said.clone() }.text(listen, admin).replace(APP_PASSWORD, "another")
    };
    reload(&keyway, text).await?;
    assert!(connect(&url(&keyway)).await.is_err());
    assert!(!keyway.metrics().await?.contains("user=\"guest\""));
    reload(&keyway, |listen, admin| text(listen, admin).replace(USER, "somebody")).await?;
    let words = last_words(&mut wire).await?;
    assert!(words.contains("57P01") && words.contains(&format!("user \"{USER}\" was removed")), "{words}");
    Ok(())
}

async fn limits(harness: Arc<Shared>) -> Outcome {
    let said = Said { servers: servers(&harness, &[0]).await?, limits: "clients_max = 1", ..Said::default() };
    let keyway = start(&harness, &said).await?;
    let first = client(&keyway).await?;
    assert!(connect(&url(&keyway)).await.is_err(), "there is room for one");
    let limits = "clients_max = 2\nstatements_max = 1\nclient_idle_timeout = '1s'";
    say(&keyway, &Said { limits, ..said.clone() }).await?;
    let _second = client(&keyway).await?;
    // A session that is there already has them too.
    let _kept = first.prepare("SELECT 1").await?;
    let error = first.prepare("SELECT 2").await.err().ok_or("prepared")?;
    assert_eq!(error.code().map(|it| it.code()), Some("54000"), "{error}");
    until("it has been idle for too long", async || Ok(first.is_closed())).await?;
    Ok(())
}

/// Of pgbench's, by the primary.
async fn transactions(client: &Client) -> Fallible<u32> {
    Ok(one(client, "BEGIN; SELECT sum(n) FROM reload_load; COMMIT").await?.parse()?)
}

/// Every kind of change while pgbench runs, of which no statement may fail.
async fn load(harness: Arc<Shared>) -> Outcome {
    let (few, many) = (servers(&harness, &[0]).await?, servers(&harness, &[2, 0, 1]).await?);
    // pgbench waits for a prepared statement of one client while others of it hold connections: none may wait.
    let base = Said { servers: few, pool: "size = 4", ..Said::default() };
    let keyway = start(&harness, &base).await?;
    let client = client(&keyway).await?;
    run(&client, "CREATE TABLE reload_load (id int PRIMARY KEY, n int)").await?;
    run(&client, "INSERT INTO reload_load SELECT id, 0 FROM generate_series(1, 50) id").await?;
    harness.single().await?.shard.wait_until_replayed().await?;
    let dir = harness.fresh_dir()?;
    let script = dir.path().join("load.sql");
    let text = "\\set id random(1, 50)\nSELECT n FROM reload_load WHERE id = :id;\nBEGIN;\n\
                UPDATE reload_load SET n = n + 1 WHERE id = :id;\nSELECT n FROM reload_load WHERE id = :id;\n\
                END;\n";
    std::fs::write(&script, text)?;
    let mut bench = Command::new(harness.installation().client_program("pgbench")?);
    let arguments = ["-M", "prepared", "-n", "-c", "3", "-j", "3", "-t", "300", "-f"];
    bench.args(arguments).arg(&script).arg(url(&keyway)).kill_on_drop(true);
    let bench = tokio::spawn(async move { bench.output().await });
    let variants = [
        Said { servers: many.clone(), ..base.clone() },
        Said { servers: many, pool: "size = 6", ..base.clone() },
        Said { pool: "size = 5\nlifetime = '2h'", ..base.clone() },
        Said { limits: "server_statements_max = 9\nserver_connections_max = 5", ..base.clone() },
        base,
    ];
    let mut reloads = 0;
    while !bench.is_finished() {
        say(&keyway, &variants[reloads % variants.len()]).await?;
        reloads += 1;
        // Some work is done under each.
        let before = transactions(&client).await.map_err(|it| format!("{it}\n{}", keyway.log()))?;
        let more = async || Ok(bench.is_finished() || transactions(&client).await? >= before + 20);
        until("transactions end", more).await.map_err(|it| format!("{it}\n{}", keyway.log()))?;
    }
    let output = bench.await??;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("actually processed: 900/900\n"), "{said}");
    assert!(!said.contains("aborted") && !said.contains("ERROR"), "{said}");
    assert!(reloads >= variants.len(), "only {reloads} reloads");
    assert_eq!(one(&client, "SELECT sum(n) FROM reload_load").await?, "900");
    run(&client, "DROP TABLE reload_load").await?;
    Ok(())
}

/// The server that has state of a session stays with it at whatever place it stands now, also in another pool;
/// without that server the session cannot be.
async fn pinned(harness: Arc<Shared>) -> Outcome {
    let said = Said { servers: servers(&harness, &[0]).await?, ..Said::default() };
    let keyway = start(&harness, &said).await?;
    let client = client(&keyway).await?;
    run(&client, "CREATE TEMP TABLE reload_pinned AS SELECT 7 AS a").await?;
    let server = one(&client, "SELECT pg_backend_pid()").await?;
    assert!(
        keyway.metrics().await?.contains("keyway_pins{database=\"plain\",reason=\"temporary object\"} 1")
    );
    let moved = Said { servers: servers(&harness, &[1, 0]).await?, pool: "size = 7", ..said };
    say(&keyway, &moved).await?;
    assert_eq!(one(&client, "SELECT a FROM reload_pinned").await?, "7");
    assert_eq!(one(&client, "SELECT pg_backend_pid()").await?, server);
    run(&client, "DROP TABLE reload_pinned").await?;
    assert_ne!(one(&client, "SELECT pg_backend_pid()").await?, server);
    assert!(!keyway.metrics().await?.contains("reason=\"temporary object\"} 1\nkeyway_pins{"));
    run(&client, "CREATE TEMP TABLE reload_pinned AS SELECT 7 AS a").await?;
    say(&keyway, &Said { servers: servers(&harness, &[1]).await?, ..moved }).await?;
    until("its server is gone, and it too", async || Ok(client.is_closed())).await?;
    Ok(())
}

/// The connection that listens stays where the primary does, at whatever place; senders are known as before, also
/// by new server connections; bounds are those of the new configuration.
async fn listening(harness: Arc<Shared>) -> Outcome {
    let said = Said { servers: servers(&harness, &[0]).await?, pool: "size = 1", ..Said::default() };
    let keyway = start(&harness, &said).await?;
    let (mut listener, sender) = (wire(&keyway).await?, client(&keyway).await?);
    listener.ask(&query("LISTEN reload_news"), 1).await?;
    run(&sender, "NOTIFY reload_news, 'before'").await?;
    let before = listener.until('A').await?.pop().ok_or("nothing heard")?;
    let changed = Said {
        servers: servers(&harness, &[1, 0]).await?,
        pool: "size = 2",
        limits: "channels_max = 1",
        ..said.clone()
    };
    say(&keyway, &changed).await?;
    run(&sender, "NOTIFY reload_news, 'behind'").await?;
    let after = listener.until('A').await?.pop().ok_or("nothing heard")?;
    assert!(after.body.ends_with(b"\0behind\0"), "{after:?}");
    assert_eq!(before.body[..4], after.body[..4], "the sender's pid");
    let answer = listener.ask(&query("LISTEN reload_more"), 1).await?;
    assert!(answer[0].error().starts_with("54000"), "{answer:?}");
    say(&keyway, &said).await?;
    listener.ask(&query("LISTEN reload_more"), 1).await?;
    run(&sender, "NOTIFY reload_more").await?;
    listener.until('A').await?;
    let metrics = keyway.metrics().await?;
    let losses = metrics.lines().find(|it| it.starts_with("keyway_listener_losses_total{"));
    assert!(losses.is_some_and(|it| it.ends_with(" 0")), "{losses:?}");
    Ok(())
}
