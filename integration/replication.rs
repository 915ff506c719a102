//! The replication protocol through Keyway, on a connection of its own to the primary: PostgreSQL's own
//! programs, limits, cancels, and each way in which such a connection ends.

use std::fs;
use std::sync::Arc;

use keyway::demo::postgres::{Shard, Signal};
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::process::Command;

use crate::drivers::run;
use crate::harness::wire::{Wire, message, query};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, assert_hits,
    cluster_options, connect, rows, unsharded_config, until,
};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("replication::pg_basebackup", pg_basebackup),
        harness.test("replication::pg_receivewal", pg_receivewal),
        harness.test("replication::pg_recvlogical", pg_recvlogical),
        harness.test("replication::limits_and_refusals", limits_and_refusals),
        harness.test("replication::which_database_is_meant", which_database),
        harness.test("replication::a_cancel_reaches_it", a_cancel_reaches_it),
        harness.test("replication::idle_time_outs_are_not_for_it", idle_time_outs),
        harness.test("replication::ends_with_its_client", ends_with_its_client),
        harness.test("replication::ends_with_its_server", ends_with_its_server),
        harness.test("replication::ends_at_shutdown", ends_at_shutdown),
        harness.test("replication::ends_when_it_is_killed_or_its_database_removed", killed_or_removed),
    ]
}

/// Keyway ends first, and the servers before their directory.
struct Place {
    keyway: KeywayProcess,
    shard: Shard,
    dir: keyway::demo::postgres::WorkDir,
}

impl Place {
    async fn start(harness: &Shared, database: &str, limits: &str) -> Fallible<Place> {
        let dir = harness.fresh_dir()?;
        let mut options = cluster_options();
        options.settings.push(("wal_level".to_owned(), "logical".to_owned()));
        let shard = Shard::start(harness.installation(), dir.path(), "wal", 0, &options).await?;
        shard.primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
        shard.primary.query_text(&format!("ALTER ROLE {USER} REPLICATION")).await?;
        let keyway = harness
            .start_keyway(|listen, admin| {
                let config = unsharded_config(&shard, listen, admin);
                format!("{config}{database}\n[limits]\n{limits}\n")
            })
            .await?;
        Ok(Place { keyway, shard, dir })
    }

    /// One of PostgreSQL's programs, towards Keyway.
    fn program(&self, harness: &Shared, name: &str) -> Fallible<Command> {
        let mut command = Command::new(harness.installation().client_program(name)?);
        let address = self.keyway.listen();
        command.args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()]).args([
            "--username",
            USER,
            "--no-password",
            "--verbose",
        ]);
        Ok(command)
    }

    async fn wire(&self, replication: &str) -> Fallible<Wire> {
        log_in(&self.keyway, DATABASE, replication).await
    }

    async fn sql(&self, sql: &str) -> Fallible<String> {
        Ok(self.shard.primary.query_text(sql).await?.unwrap_or_default())
    }

    async fn walsenders(&self) -> Fallible<String> {
        self.sql("SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'walsender'").await
    }
}

async fn log_in(keyway: &KeywayProcess, database: &str, replication: &str) -> Fallible<Wire> {
    let settings = [("replication", replication), ("application_name", "a standby")];
    Wire::log_in(keyway.listen(), USER, APP_PASSWORD, database, &settings).await
}

/// `quiet` takes PGPASSWORD away: what is set behind it stays.
async fn finished(command: &mut Command, dir: &std::path::Path) -> Fallible<String> {
    let file = dir.join("pgpass");
    fs::write(&file, format!("*:*:*:*:{APP_PASSWORD}\n"))?;
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut said = Vec::new();
    let mut child = command
        .env("PGPASSFILE", &file)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = tokio::time::timeout(std::time::Duration::from_secs(120), async {
        use tokio::io::AsyncReadExt;
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let mut words = Vec::new();
        if let (Some(out), Some(err)) = (&mut out, &mut err) {
            let (a, b) = tokio::join!(out.read_to_end(&mut said), err.read_to_end(&mut words));
            a.and(b)?;
        }
        Fallible::Ok((child.wait().await?, words))
    });
    let (status, words) = output.await??;
    if !status.success() {
        return Err(format!("{command:?}: {status}\n{}", String::from_utf8_lossy(&words)).into());
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

async fn pg_basebackup(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "", "").await?;
    place
        .sql("CREATE TABLE backed_up AS SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g")
        .await?;
    let to = place.dir.path().join("backup");
    let mut backup = place.program(&harness, "pg_basebackup")?;
    backup.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync", "--pgdata"]).arg(&to);
    finished(&mut backup, place.dir.path()).await?;
    // Every file against the manifest that the server sent, and the log that a start from it needs.
    let mut verify = Command::new(harness.installation().client_program("pg_verifybackup")?);
    run(verify.arg(&to)).await?;
    let metrics = place.keyway.metrics().await?;
    let bytes = metrics
        .lines()
        .find_map(|it| it.strip_prefix("keyway_replication_bytes_total{database=\"plain\",to=\"client\"} "))
        .ok_or("no metric")?;
    assert!(bytes.parse::<u64>()? > 20_000_000, "{bytes}");
    until("both connections end", || async { Ok(place.walsenders().await? == "0") }).await?;
    assert!(place.keyway.metrics().await?.contains("keyway_replication_connections{database=\"plain\"} 0\n"));
    Ok(())
}

async fn pg_receivewal(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "", "").await?;
    // Made here, so that the log from now on is kept for it.
    place.sql("SELECT slot_name::text FROM pg_create_physical_replication_slot('archive', true)").await?;
    let segment = place.sql("SELECT pg_walfile_name(pg_current_wal_lsn())").await?;
    place.sql("CREATE TABLE logged AS SELECT g, md5(g::text) FROM generate_series(1, 30000) g").await?;
    place.sql("SELECT pg_switch_wal()::text").await?;
    place.sql("CREATE TABLE behind AS SELECT 1").await?;
    let end = place.sql("SELECT pg_current_wal_flush_lsn()::text").await?;
    let to = place.dir.path().join("received");
    fs::create_dir(&to)?;
    let mut receive = place.program(&harness, "pg_receivewal")?;
    receive.args(["--slot", "archive", "--no-loop", "--no-sync", "--endpos", &end, "--directory"]).arg(&to);
    finished(&mut receive, place.dir.path()).await?;
    let (want, got) = (place.shard.primary.data_dir().join("pg_wal").join(&segment), to.join(&segment));
    let bytes =
        |path: &std::path::Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    assert!(bytes(&want)? == bytes(&got)?, "segment {segment} is another one");
    Ok(())
}

async fn pg_recvlogical(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "", "").await?;
    let client = connect(&place.keyway.url(USER, APP_PASSWORD, DATABASE)).await?;
    rows(&client, "CREATE TABLE decoded (a int PRIMARY KEY, b text)").await?;
    let slot = ["--dbname", DATABASE, "--slot", "changes"];
    let mut create = place.program(&harness, "pg_recvlogical")?;
    finished(create.args(slot).args(["--create-slot", "--plugin", "test_decoding"]), place.dir.path())
        .await?;
    rows(&client, "INSERT INTO decoded SELECT g, repeat('b', 1000) FROM generate_series(1, 5000) g").await?;
    rows(&client, "UPDATE decoded SET b = 'last' WHERE a = 4711").await?;
    let end = place.sql("SELECT pg_current_wal_flush_lsn()::text").await?;
    let mut receive = place.program(&harness, "pg_recvlogical")?;
    receive.args(slot).args(["--start", "--no-loop", "--endpos", &end, "--file", "-"]);
    let changes = finished(&mut receive, place.dir.path()).await?;
    assert_eq!(changes.matches("table public.decoded: INSERT: ").count(), 5000);
    assert!(
        changes.contains("UPDATE: a[integer]:4711 b[text]:'last'"),
        "{}",
        &changes[changes.len() - 500..]
    );
    let mut dropping = place.program(&harness, "pg_recvlogical")?;
    finished(dropping.args(slot).arg("--drop-slot"), place.dir.path()).await?;
    Ok(())
}

async fn limits_and_refusals(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "replication_connections_max = 1", "").await?;
    let refused = |it: Fallible<Wire>| it.err().map(|it| it.to_string()).unwrap_or_default();
    let first = place.wire("true").await?;
    let second = refused(place.wire("database").await);
    assert!(second.starts_with("53300 too many replication connections"), "{second}");
    assert_hits(&place.keyway, "replication_connections_max", 1).await?;
    drop(first);
    until("the place is free", || async { Ok(place.wire("true").await.is_ok()) }).await?;
    // The server's own error, unchanged; its severity, its SQLSTATE.
    place.sql(&format!("ALTER ROLE {USER} NOREPLICATION")).await?;
    until("it is refused by the server", || async {
        let said = refused(place.wire("true").await);
        Ok(said == "42501 must be superuser or replication role to start walsender")
    })
    .await?;
    let shop = harness.shop().await?;
    let mut wire = Wire::connect(shop.keyway.listen()).await?;
    let parameters = [("user", USER), ("database", "shop"), ("replication", "database")];
    wire.send(&crate::harness::wire::startup(196_608, &parameters)).await?;
    wire.prove(APP_PASSWORD).await?;
    let answer = wire.until('Z').await?;
    let error = answer.iter().find(|it| it.tag == 'E').ok_or("no error")?;
    assert!(error.error().starts_with("0A000") && error.field('H').is_some(), "{}", error.error());
    Ok(())
}

/// pg_basebackup and pg_receivewal name a database "replication", which need not be there.
async fn which_database(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "", "").await?;
    let system = place.sql("SELECT system_identifier::text FROM pg_control_system()").await?;
    let identify = "IDENTIFY_SYSTEM";
    for name in ["replication", DATABASE] {
        assert_eq!(log_in(&place.keyway, name, "true").await?.rows(identify).await?, [&*system]);
    }
    let unknown = log_in(&place.keyway, "nothing", "true").await.err().ok_or("logged in")?.to_string();
    assert_eq!(unknown, "3D000 database \"nothing\" does not exist");
    // With several clusters only a name can say which: the database's own, or one made for it.
    let other = harness.single().await?.shard.primary.address();
    let (own, more) =
        (place.shard.primary.address(), format!("[databases.other]\nservers = [\"{other}\"]\n"));
    let config = |more: String| {
        let shard = &place.shard;
        move |listen: &str, admin: &str| unsharded_config(shard, listen, admin) + &more
    };
    let dbname = "dbname = \"plain\"\n";
    let keyway = harness.start_keyway(config(format!("{more}{dbname}"))).await?;
    let unknown = log_in(&keyway, "replication", "true").await.err().ok_or("logged in")?.to_string();
    assert_eq!(unknown, "3D000 database \"replication\" does not exist");
    assert_eq!(log_in(&keyway, DATABASE, "true").await?.rows(identify).await?, [&*system]);
    let named = format!("{more}{dbname}[databases.replication]\nservers = [\"{own}\"]\n{dbname}");
    let keyway = harness.start_keyway(config(named)).await?;
    assert_eq!(log_in(&keyway, "replication", "true").await?.rows(identify).await?, [&*system]);
    Ok(())
}

async fn a_cancel_reaches_it(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "", "").await?;
    let mut wire = Wire::connect(place.keyway.listen()).await?;
    let parameters = [("user", USER), ("database", DATABASE), ("replication", "database")];
    wire.send(&crate::harness::wire::startup(196_610, &parameters)).await?;
    wire.prove(APP_PASSWORD).await?;
    let greeting = wire.until('Z').await?;
    let key = greeting.iter().find(|it| it.tag == 'K').ok_or("no key")?.body.clone();
    assert_eq!(key.len(), 36);
    wire.send(&query("SELECT pg_sleep(600)")).await?;
    let running = "SELECT count(*)::text FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'";
    until("it runs", || async { Ok(place.sql(running).await? == "1") }).await?;
    let mut canceller = Wire::connect(place.keyway.listen()).await?;
    canceller.send(&crate::harness::wire::cancel_request(&key)).await?;
    assert!(canceller.rest().await?.is_empty());
    let answer = wire.until('Z').await?;
    assert!(answer.iter().any(|it| it.error().starts_with("57014")), "{answer:?}");
    assert_eq!(wire.rows("SELECT current_setting('application_name')").await?, [""]);
    Ok(())
}

async fn idle_time_outs(harness: Arc<Shared>) -> Outcome {
    let limits = "client_idle_timeout = \"1s\"\ntransaction_timeout = \"1s\"";
    let place = Place::start(&harness, "", limits).await?;
    let mut standby = place.wire("true").await?;
    // Silent for as long, from later on.
    let mut client = Wire::log_in(place.keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    assert!(client.message().await?.error().starts_with("57P05"));
    assert_eq!(standby.rows("SHOW application_name").await?, ["a standby"]);
    Ok(())
}

/// Not only its connection: what it runs ends too.
async fn ends_with_its_client(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "", "").await?;
    let mut busy = place.wire("database").await?;
    busy.send(&query("SELECT pg_sleep(600)")).await?;
    let mut streaming = place.wire("true").await?;
    start_streaming(&mut streaming, &place).await?;
    assert_eq!(place.walsenders().await?, "2");
    drop((busy, streaming));
    until("nothing is left", || async { Ok(place.walsenders().await? == "0") }).await?;
    until("no place is taken", || async {
        Ok(place.keyway.metrics().await?.contains("keyway_replication_connections{database=\"plain\"} 0\n"))
    })
    .await
    .map_err(Into::into)
}

async fn start_streaming(wire: &mut Wire, place: &Place) -> Fallible<()> {
    let from = place.sql("SELECT pg_current_wal_flush_lsn()::text").await?;
    wire.send(&query(&format!("START_REPLICATION {from}"))).await?;
    assert_eq!(wire.message().await?.tag, 'W');
    Ok(())
}

/// What the server said last comes first.
async fn ends_with_its_server(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "", "").await?;
    let mut wire = place.wire("database").await?;
    assert_eq!(wire.rows("SELECT 1").await?, ["1"]);
    place.sql("SELECT pg_terminate_backend(pid)::text FROM pg_stat_replication").await?;
    place
        .sql("SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE backend_type = 'walsender'")
        .await?;
    assert!(wire.message().await?.error().starts_with("57P01"));
    assert!(wire.rest().await?.is_empty());
    Ok(())
}

async fn ends_at_shutdown(harness: Arc<Shared>) -> Outcome {
    let mut place = Place::start(&harness, "", "shutdown_timeout = \"1h\"").await?;
    let mut wire = place.wire("true").await?;
    start_streaming(&mut wire, &place).await?;
    // A standby's status, so that bytes have gone both ways.
    let status = [&b"r"[..], &[0; 33]].concat();
    wire.send(&message('d', &status)).await?;
    place.keyway.signal(Signal::TERM)?;
    assert!(place.keyway.wait_until_ended().await?.success());
    wire.rest().await?;
    until("nothing is left at the server", || async { Ok(place.walsenders().await? == "0") }).await?;
    Ok(())
}

async fn killed_or_removed(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "", "").await?;
    let config = |databases: &str| {
        let (shard, databases) = (&place.shard, databases.to_owned());
        move |listen: &str, admin: &str| {
            let whole = unsharded_config(shard, listen, admin);
            let head = whole.split("[databases.").next().unwrap_or_default().to_owned();
            format!("admin_users = [\"{USER}\"]\n{head}{databases}")
        }
    };
    let server = place.shard.primary.address();
    let database = |name: &str, max: usize| {
        format!(
            "[databases.{name}]\nservers = [\"{server}\"]\ndbname = \"{DATABASE}\"\n\
             replication_connections_max = {max}\n"
        )
    };
    let both = database("plain", 2) + &database("other", 2);
    let keyway = harness.start_keyway(config(&both)).await?;
    let mut killed = log_in(&keyway, "other", "database").await?;
    assert_eq!(killed.rows("SELECT 1").await?, ["1"]);
    let console = connect(&keyway.url(USER, APP_PASSWORD, "keyway")).await?;
    let shown = console.simple_query("SHOW CLIENTS").await?;
    let ids: Vec<String> = shown
        .iter()
        .filter_map(|it| match it {
            tokio_postgres::SimpleQueryMessage::Row(it) if it.get("database") == Some("other") => {
                it.get("id").map(str::to_owned)
            }
            _ => None,
        })
        .collect();
    let [id] = &ids[..] else { return Err(format!("{ids:?}").into()) };
    rows(&console, &format!("KILL_CLIENT {id}")).await?;
    killed.rest().await?;
    // A lower bound for those that come, and the end of those whose database is no more.
    let mut streaming = log_in(&keyway, "other", "true").await?;
    start_streaming(&mut streaming, &place).await?;
    let mut stays = log_in(&keyway, "plain", "database").await?;
    keyway.write_config(config(&database("plain", 1)))?;
    rows(&console, "RELOAD").await?;
    streaming.rest().await?;
    assert_eq!(stays.rows("SELECT 1").await?, ["1"]);
    let refused = log_in(&keyway, "plain", "true").await.err().map(|it| it.to_string());
    assert!(refused.is_some_and(|it| it.starts_with("53300")));
    until("one is left at the server", || async { Ok(place.walsenders().await? == "1") }).await?;
    Ok(())
}
