//! What Keyway knows of functions, triggers, views and tables: that it is read when it changes, that
//! statements are judged by it, and that what does no harm costs nothing.

use std::sync::Arc;

use keyway::demo::postgres::Signal;
use keyway::route::{LOCAL_PATH, Part, Schema, SchemaReader};
use libtest_mimic::Trial;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, assert_error, connect, error_of, rows,
    run, until,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("catalog::harmless_code_costs_nothing", harmless_code),
        harness.test("catalog::is_read_after_ddl", read_after_ddl),
        harness.test("catalog::is_read_after_ddl_in_a_transaction", read_after_transactions),
        harness.test("catalog::is_read_on_a_timer", read_on_a_timer),
        harness.test("catalog::settings_by_functions_are_the_clients", settings_by_functions),
        harness.test("catalog::reads_are_told_from_writes", reads_and_writes),
        harness.test("catalog::differences_are_refused", differences),
        harness.test("catalog::is_read_on_postgresql_18", postgresql18),
        harness.test("catalog::lives_over_a_reload", over_a_reload),
        harness.test("catalog::is_read_while_functions_are_dropped", while_functions_are_dropped),
    ]
}

const LOCKS: &str = "BEGIN PERFORM pg_advisory_lock(4711); RETURN 1; END";

/// A database of its own on the single cluster, and Keyway with one connection to its primary.
struct Place {
    keyway: KeywayProcess,
    direct: Client,
    name: &'static str,
    address: String,
}

impl Place {
    async fn start(harness: &Shared, name: &'static str, interval: &str) -> Fallible<Place> {
        let primary = &harness.single().await?.shard.primary;
        primary.create_database(name, name, APP_PASSWORD).await?;
        let address = primary.address();
        let config = |listen: &str, admin: &str| Place::config(name, &address, interval, 1000, listen, admin);
        let keyway = harness.start_keyway(config).await?;
        let direct = connect(&primary.url(name)).await?;
        let place = Place { keyway, direct, name, address };
        place.is_known().await?;
        Ok(place)
    }

    fn config(
        name: &str,
        address: &str,
        interval: &str,
        plans_max: usize,
        listen: &str,
        admin: &str,
    ) -> String {
        format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\n[limits]\nplans_max = {plans_max}\n\
             [users.{name}]\npassword = \"{APP_PASSWORD}\"\n\
             [databases.{name}]\nservers = [\"{address}\"]\ncatalog_interval = \"{interval}\"\n\
             [databases.{name}.pool]\nsize = 1\n"
        )
    }

    async fn reload(&self, interval: &str, plans_max: usize) -> Outcome {
        let done = || self.keyway.log().matches("configuration reloaded").count();
        let before = done();
        self.keyway.write_config(|listen, admin| {
            Place::config(self.name, &self.address, interval, plans_max, listen, admin)
        })?;
        self.keyway.signal(Signal::HUP)?;
        until("the reload is done", async || Ok(done() > before)).await?;
        Ok(())
    }

    async fn client(&self) -> Fallible<Client> {
        connect(&self.keyway.url(self.name, APP_PASSWORD, self.name)).await
    }

    async fn metric(&self, metric: &str) -> Fallible<f64> {
        metric_of(&self.keyway, metric).await
    }

    async fn is_known(&self) -> Fallible<()> {
        until("the catalog is known", || async { Ok(self.metric("keyway_catalog_known{").await? == 1.0) })
            .await
    }

    async fn probes(&self) -> Fallible<f64> {
        self.metric("keyway_state_probes_total{").await
    }

    async fn pins(&self) -> Fallible<f64> {
        self.metric("keyway_pins_total{").await
    }
}

/// The sum over all labels.
async fn metric_of(keyway: &KeywayProcess, metric: &str) -> Fallible<f64> {
    let metrics = keyway.metrics().await?;
    let values = metrics.lines().filter(|it| it.starts_with(metric));
    Ok(values.filter_map(|it| it.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

async fn harmless_code(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "catalog_harmless", "1h").await?;
    let one = place.client().await?;
    run(
        &one,
        &format!(
            "CREATE TABLE plain (id serial PRIMARY KEY, a int); \
             CREATE TABLE child (id int REFERENCES plain ON DELETE CASCADE); \
             CREATE TABLE stamped (a int, at timestamptz DEFAULT now()); \
             CREATE TABLE triggered (a int); \
             CREATE VIEW seen AS SELECT a FROM plain WHERE a > 0; \
             CREATE FUNCTION stable() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END'; \
             CREATE FUNCTION stamps() RETURNS trigger LANGUAGE plpgsql \
                 AS 'BEGIN NEW.at := now(); RETURN NEW; END'; \
             CREATE TRIGGER stamp BEFORE INSERT ON stamped FOR EACH ROW EXECUTE FUNCTION stamps(); \
             CREATE FUNCTION inserts(int) RETURNS void LANGUAGE sql AS 'INSERT INTO plain (a) VALUES ($1)'; \
             CREATE FUNCTION locks() RETURNS int LANGUAGE plpgsql AS '{LOCKS}'; \
             CREATE FUNCTION runs(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; END'; \
             CREATE FUNCTION after() RETURNS trigger LANGUAGE plpgsql \
                 AS 'BEGIN PERFORM runs(''SELECT 1''); RETURN NEW; END'; \
             CREATE TRIGGER after AFTER INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION after()"
        ),
    )
    .await?;
    place.is_known().await?;
    let before = place.probes().await?;
    for sql in [
        "SELECT stable(), random(), nextval('plain_id_seq')",
        "INSERT INTO plain (a) VALUES (1), (2)",
        "INSERT INTO stamped VALUES (1)",
        "UPDATE stamped SET a = 2",
        "DELETE FROM plain WHERE id = 1",
        "SELECT inserts(3)",
        "SELECT * FROM seen",
        "EXPLAIN SELECT locks()",
    ] {
        run(&one, sql).await?;
        one.execute(sql, &[]).await?;
        assert_eq!(place.probes().await?, before, "{sql}");
    }
    // The test of the test.
    for (sql, count) in [
        ("SELECT runs('SELECT 1')", 1.0),
        ("INSERT INTO triggered VALUES (1)", 2.0),
        ("BEGIN; SELECT runs('SELECT 1'); SELECT runs('SELECT 2'); COMMIT", 3.0),
        ("SELECT * FROM seen", 3.0),
    ] {
        run(&one, sql).await?;
        until(sql, || async { Ok(place.probes().await? == before + count) }).await?;
    }
    assert_eq!(place.pins().await?, 0.0);
    let metrics = place.keyway.metrics().await?;
    for name in ["keyway_catalog_reads_total", "keyway_catalog_rows", "keyway_catalog_bytes"] {
        assert!(metric_of(&place.keyway, name).await? > 0.0, "{name}");
    }
    assert!(!metrics.contains("keyway_catalog_age_seconds{database=\"catalog_harmless\"} NaN"));
    Ok(())
}

fn function(volatility: &str, body: &str) -> String {
    format!("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE plpgsql {volatility} AS '{body}'")
}

const HARMLESS: &str = "BEGIN RETURN 1; END";

/// The timer does not come in the time of the test.
async fn read_after_ddl(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "catalog_ddl", "1h").await?;
    let (one, other) = (place.client().await?, place.client().await?);
    run(&one, &function("STABLE", HARMLESS)).await?;
    place.is_known().await?;
    let before = place.probes().await?;
    other.execute("SELECT f()", &[]).await?;
    assert_eq!(place.probes().await?, before);
    // At once, before it has been read, and by a prepared statement that was planned before.
    let prepared = other.prepare("SELECT f()").await?;
    other.execute(&prepared, &[]).await?;
    run(&one, &function("VOLATILE", LOCKS)).await?;
    other.execute(&prepared, &[]).await?;
    until("it is pinned", || async { Ok(place.pins().await? == 1.0) }).await?;
    run(&other, "SELECT pg_advisory_unlock_all()").await?;
    // And when it has been.
    place.is_known().await?;
    run(&one, "SELECT 1").await?;
    other.execute(&prepared, &[]).await?;
    until("it is pinned again", || async { Ok(place.pins().await? == 2.0) }).await?;
    run(&other, "SELECT pg_advisory_unlock_all()").await?;
    run(&one, &function("VOLATILE", HARMLESS)).await?;
    place.is_known().await?;
    let before = place.probes().await?;
    other.execute(&prepared, &[]).await?;
    assert_eq!(place.probes().await?, before);
    Ok(())
}

async fn read_after_transactions(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "catalog_transactions", "1h").await?;
    let one = place.client().await?;
    run(&one, &function("STABLE", HARMLESS)).await?;
    place.is_known().await?;
    let rows_before = place.metric("keyway_catalog_rows{").await?;
    for (end, rows) in [("ROLLBACK", 0.0), ("COMMIT", 1.0)] {
        run(&one, "BEGIN").await?;
        run(&one, "CREATE FUNCTION g() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN f(); END'").await?;
        run(&one, "SELECT g()").await?;
        run(&one, end).await?;
        place.is_known().await?;
        until(end, || async { Ok(place.metric("keyway_catalog_rows{").await? == rows_before + rows) })
            .await?;
    }
    // What a transaction makes and calls is found though no catalog has it yet.
    run(&one, "BEGIN").await?;
    run(&one, &function("VOLATILE", LOCKS)).await?;
    run(&one, "SELECT f()").await?;
    run(&one, "COMMIT").await?;
    until("it is pinned", || async { Ok(place.pins().await? == 1.0) }).await?;
    Ok(())
}

async fn read_on_a_timer(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "catalog_timer", "100ms").await?;
    let one = place.client().await?;
    run(&one, &function("STABLE", HARMLESS)).await?;
    place.is_known().await?;
    run(&place.direct, &function("VOLATILE", LOCKS)).await?;
    until("it is pinned", || async {
        run(&one, "SELECT f()").await?;
        Ok(place.pins().await? == 1.0)
    })
    .await?;
    // What is new to it is suspected without having been read.
    run(&one, "SELECT pg_advisory_unlock_all()").await?;
    run(&place.direct, "CREATE VIEW newer AS SELECT f() AS a; GRANT SELECT ON newer TO public").await?;
    run(&one, "SELECT * FROM newer").await?;
    until("it is pinned again", || async { Ok(place.pins().await? == 2.0) }).await?;
    Ok(())
}

async fn settings_by_functions(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "catalog_settings", "1h").await?;
    let (one, other) = (place.client().await?, place.client().await?);
    run(
        &one,
        "CREATE FUNCTION be(text) RETURNS void LANGUAGE plpgsql \
             AS $$ BEGIN PERFORM set_config('app.tenant', $1, false); END $$; \
         CREATE FUNCTION be_indirectly(text) RETURNS void LANGUAGE sql AS 'SELECT be($1)'; \
         CREATE FUNCTION be_for_now(text) RETURNS void LANGUAGE plpgsql \
             AS $$ BEGIN PERFORM set_config('app.tenant', $1, true); END $$",
    )
    .await?;
    place.is_known().await?;
    let tenant = "SELECT coalesce(current_setting('app.tenant', true), '')";
    run(&one, "SELECT be('one')").await?;
    other.execute("SELECT be_indirectly($1)", &[&"other"]).await?;
    for _ in 0..2 {
        assert_eq!(rows(&one, tenant).await?, ["one"]);
        assert_eq!(rows(&other, tenant).await?, ["other"]);
    }
    let before = place.probes().await?;
    run(&one, "SELECT be_for_now('two')").await?;
    assert_eq!(place.probes().await?, before, "it ends with its transaction");
    assert_eq!(rows(&one, tenant).await?, ["one"]);
    assert_eq!(place.pins().await?, 0.0);
    Ok(())
}

/// Which server answers is what the functions tell.
async fn reads_and_writes(harness: Arc<Shared>) -> Outcome {
    let single = harness.single().await?;
    let one = single.client().await?;
    let told = "LANGUAGE sql AS 'SELECT pg_is_in_recovery()'";
    run(
        &one,
        &format!(
            "CREATE FUNCTION catalog_stable() RETURNS bool STABLE {told}; \
             CREATE FUNCTION catalog_volatile() RETURNS bool VOLATILE {told}; \
             CREATE VIEW catalog_seen AS SELECT catalog_stable() AS a; \
             CREATE VIEW catalog_volatile_seen AS SELECT catalog_volatile() AS a; \
             CREATE SEQUENCE catalog_numbers; \
             CREATE VIEW catalog_counting AS SELECT nextval('catalog_numbers') > 0 AS a; \
             CREATE UNLOGGED TABLE catalog_unlogged AS SELECT true AS a"
        ),
    )
    .await?;
    for sql in ["SELECT catalog_stable()", "SELECT a FROM catalog_seen"] {
        until(sql, || async { Ok(rows(&one, sql).await? == ["t"]) }).await?;
    }
    for _ in 0..10 {
        assert_eq!(rows(&one, "SELECT catalog_volatile()").await?, ["f"]);
        assert_eq!(rows(&one, "SELECT a FROM catalog_volatile_seen").await?, ["f"]);
        // A standby answers these with an error.
        assert_eq!(rows(&one, "SELECT a FROM catalog_counting").await?, ["t"]);
        assert_eq!(rows(&one, "SELECT a FROM catalog_unlogged").await?, ["t"]);
    }
    run(
        &one,
        "DROP VIEW catalog_seen, catalog_volatile_seen, catalog_counting; DROP SEQUENCE catalog_numbers; \
         DROP FUNCTION catalog_stable(), catalog_volatile(); DROP TABLE catalog_unlogged",
    )
    .await?;
    Ok(())
}

async fn differences(harness: Arc<Shared>) -> Outcome {
    let name = "catalog_differences";
    let shards = &harness.shop().await?.shop.shards;
    let mut config = format!(
        "[users.{name}]\npassword = \"{APP_PASSWORD}\"\n[databases.{name}]\ncatalog_interval = \"100ms\"\n"
    );
    let mut direct = Vec::new();
    for shard in shards {
        shard.primary.create_database(name, name, APP_PASSWORD).await?;
        direct.push(connect(&shard.primary.url(name)).await?);
        config.push_str(&format!(
            "[databases.{name}.shards.{}]\nservers = [\"{}\"]\n",
            shard.name,
            shard.primary.address()
        ));
    }
    config.push_str(&format!(
        "[databases.{name}.maps.by_id]\nkind = \"hash\"\ntype = \"bigint\"\n\
         [databases.{name}.tables.t]\nmap = \"by_id\"\nkey = \"id\"\n\
         [databases.{name}.tables.other]\nreference = true\n"
    ));
    let keyway = harness
        .start_keyway(|listen, admin| format!("listen = \"{listen}\"\nadmin = \"{admin}\"\n{config}"))
        .await?;
    let one = connect(&keyway.url(name, APP_PASSWORD, name)).await?;
    run(&one, "CREATE TABLE t (id bigint PRIMARY KEY, a int)").await?;
    run(&one, "CREATE TABLE other (a int)").await?;
    let count = |want: f64| {
        let keyway = &keyway;
        until("the differences are known", move || async move {
            let known = metric_of(keyway, "keyway_catalog_known{").await? == 1.0;
            Ok(known && metric_of(keyway, "keyway_catalog_differences{").await? == want)
        })
    };
    count(0.0).await?;
    run(&one, "INSERT INTO t (id, a) VALUES (1, 1)").await?;
    run(&direct[1], "ALTER TABLE t ALTER a TYPE bigint").await?;
    count(1.0).await?;
    for sql in ["SELECT a FROM t WHERE id = 1", "INSERT INTO t (id, a) VALUES (2, 1)", "SELECT * FROM t"] {
        let error = error_of(&one, sql).await?;
        assert_error(&error, "55000", "table \"t\" is not the same on every shard");
        let detail = error.detail().unwrap_or_default();
        assert!(detail.contains("column \"a\" is int4 on shard") && detail.contains("int8"), "{detail}");
    }
    run(&one, "INSERT INTO other (a) VALUES (1)").await?;
    // Through Keyway, on both: the first shard follows the second.
    run(&one, "ALTER TABLE t ALTER a TYPE bigint").await?;
    count(0.0).await?;
    assert_eq!(rows(&one, "SELECT a FROM t WHERE id = 1").await?, ["1"]);
    Ok(())
}

async fn postgresql18(harness: Arc<Shared>) -> Outcome {
    let single = harness.single18().await?;
    until("the catalog is known", || async {
        Ok(metric_of(&single.keyway, "keyway_catalog_known{").await? == 1.0)
    })
    .await?;
    let one = single.client().await?;
    run(
        &one,
        "CREATE FUNCTION catalog_atomic() RETURNS bool LANGUAGE sql BEGIN ATOMIC \
             SELECT pg_try_advisory_lock(4712); END; \
         CREATE VIEW catalog_seen AS SELECT catalog_atomic() AS a",
    )
    .await?;
    until("what it did is read", || async {
        Ok(metric_of(&single.keyway, "keyway_catalog_known{").await? == 1.0)
    })
    .await?;
    let pins = metric_of(&single.keyway, "keyway_pins_total{").await?;
    assert_eq!(rows(&one, "SELECT a FROM catalog_seen").await?, ["t"]);
    until("it is pinned", || async { Ok(metric_of(&single.keyway, "keyway_pins_total{").await? > pins) })
        .await?;
    run(&one, "SELECT pg_advisory_unlock_all(); DROP VIEW catalog_seen; DROP FUNCTION catalog_atomic()")
        .await?;
    Ok(())
}

/// With the router that a reload makes, and with another reader. A session that is on its way from one
/// configuration to the next changes what both have read.
async fn over_a_reload(harness: Arc<Shared>) -> Outcome {
    let place = Place::start(&harness, "catalog_reload", "1h").await?;
    let one = place.client().await?;
    run(&one, &function("STABLE", HARMLESS)).await?;
    place.is_known().await?;
    let prepared = one.prepare("SELECT f()").await?;
    let (probes, reads) = (place.probes().await?, place.metric("keyway_catalog_reads_total{").await?);
    place.reload("1h", 999).await?;
    place.is_known().await?;
    one.execute(&prepared, &[]).await?;
    run(&one, "SELECT f()").await?;
    assert_eq!(place.probes().await?, probes, "the new router has the catalog");
    assert_eq!(place.metric("keyway_catalog_reads_total{").await?, reads, "it was not read again");
    // Begun under one configuration and committed under it when another one has its own reader.
    run(&one, "BEGIN").await?;
    run(&one, &function("VOLATILE", LOCKS)).await?;
    place.reload("2h", 999).await?;
    place.is_known().await?;
    run(&one, "COMMIT").await?;
    one.execute(&prepared, &[]).await?;
    until("it is pinned", || async { Ok(place.pins().await? == 1.0) }).await?;
    run(&one, "SELECT pg_advisory_unlock_all()").await?;
    run(&one, &function("STABLE", HARMLESS)).await?;
    place.is_known().await?;
    let probes = place.probes().await?;
    one.execute(&prepared, &[]).await?;
    assert_eq!(place.probes().await?, probes);
    Ok(())
}

/// What the reader asks, with `meanwhile` between its snapshot and the rest.
async fn read_with(reading: &Client, meanwhile: impl AsyncFnOnce() -> Fallible<()>) -> Fallible<Schema> {
    run(reading, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut reader = SchemaReader::new(100_000);
    take(reading, &mut reader, Part::Database).await?;
    run(reading, LOCAL_PATH).await?;
    meanwhile().await?;
    for part in Part::ALL.into_iter().filter(|it| *it != Part::Database) {
        take(reading, &mut reader, part).await?;
    }
    run(reading, "ROLLBACK").await?;
    Ok(reader.finish())
}

async fn take(reading: &Client, reader: &mut SchemaReader, part: Part) -> Fallible<()> {
    for message in reading.simple_query(part.sql()).await? {
        if let SimpleQueryMessage::Row(row) = message {
            let values: Vec<Option<&str>> = (0..row.len()).map(|it| row.get(it)).collect();
            reader.take(part, &values)?;
        }
    }
    Ok(())
}

/// The functions that PostgreSQL describes functions with see what the snapshot does not: no row may be lost on it but
/// that of the function which is gone.
async fn while_functions_are_dropped(harness: Arc<Shared>) -> Outcome {
    let primary = &harness.single().await?.shard.primary;
    primary.create_database("dropped", "dropped", APP_PASSWORD).await?;
    let (reading, other) = (connect(&primary.url("dropped")).await?, connect(&primary.url("dropped")).await?);
    run(
        &other,
        "CREATE FUNCTION stays(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
         CREATE FUNCTION goes(int, text) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT $1; END;
         CREATE TABLE t (a int DEFAULT stays(1), b int DEFAULT goes(1, ''), CHECK (goes(a, 'x') > 0));
         CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER fires BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fires()",
    )
    .await?;
    let names = |it: &Schema| it.functions().iter().map(|it| it.name.name.to_string()).collect::<Vec<_>>();
    let before = read_with(&reading, async || Ok(())).await?;
    assert_eq!(names(&before), ["stays", "goes", "fires"]);
    let amid = read_with(&reading, async || {
        run(&other, "DROP FUNCTION goes CASCADE; DROP FUNCTION fires CASCADE").await.map(drop)
    })
    .await?;
    assert_eq!(names(&amid), ["stays"]);
    let after = read_with(&reading, async || Ok(())).await?;
    assert_eq!(names(&after), ["stays"]);
    assert_ne!(amid.version(), after.version(), "it is read again");
    Ok(())
}
