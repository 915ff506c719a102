//! Which replica answers a read, and what becomes of reads when replicas are late, back, or failing.

use std::sync::Arc;

use keyway::demo::postgres::Server;
use libtest_mimic::Trial;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::harness::{
    Fallible, Harness, Outcome, OwnDatabase, Shared, SingleFixture, assert_error, assert_hits, error_of,
    own_config, rows, run, until,
};
use crate::replicas::start;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("balance::zones_and_weights_of_servers", zones_and_weights),
        harness.test("balance::what_replicas_turn_down_the_primary_answers", what_replicas_turn_down),
        harness.test("balance::conflicts_with_recovery_cost_a_reader_nothing", conflicts_with_recovery),
        harness.test("balance::an_ended_connection_is_no_dead_server", an_ended_connection),
        harness.test("balance::one_that_is_gone_is_left_alone_until_it_is_back", one_that_is_gone),
        harness.test("balance::late_replicas_are_an_error_where_wanted", late_is_an_error),
        harness.test("balance::the_least_late_has_to_do_where_wanted", the_least_late),
        harness.test("balance::reads_go_on_for_a_while_without_a_primary", reads_go_on),
        harness.test("balance::who_waits_for_a_replica_looks_at_it_again", waited_for),
        harness.test("balance::reads_take_no_more_of_a_primary_than_their_share", a_share_of_the_primary),
    ]
}

async fn is_replica(client: &Client) -> Fallible<bool> {
    Ok(rows(client, "SELECT is_replica FROM here").await? == ["t"])
}

impl OwnDatabase {
    async fn until_read_on_replica(&self, client: &Client) -> Fallible<()> {
        // Where a late replica is an error it may be one at first.
        until("a replica reads", || async { Ok(is_replica(client).await.unwrap_or(false)) }).await
    }

    /// A column of SHOW REPLICAS for a server.
    async fn shown(&self, server: &Server, column: &str) -> Fallible<String> {
        for message in run(&self.console().await?, "SHOW REPLICAS").await? {
            if let SimpleQueryMessage::Row(row) = message
                && row.try_get("server")? == Some(&*server.address())
            {
                return Ok(row.try_get(column)?.unwrap_or("NULL").to_owned());
            }
        }
        Err(format!("no row of {}", server.address()).into())
    }

    /// A sample of `/metrics` by the start of its line.
    async fn sample(&self, name: &str) -> Fallible<f64> {
        let text = self.keyway.metrics().await?;
        let value =
            text.lines().filter_map(|it| it.strip_prefix(name)).filter_map(|it| it.rsplit(' ').next());
        Ok(value.filter_map(|it| it.parse::<f64>().ok()).sum())
    }
}

async fn zones_and_weights(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 2, "max_lag = \"1h\"").await?;
    let client = own.client().await?;
    let (near, far) = (&own.servers.shard.replicas[0], &own.servers.shard.replicas[1]);
    let settings = "max_lag = \"1h\"\n[databases.plain.replicas]\nzone = \"a\"\nzone_penalty = 1000\nslow_start = \"0s\"";
    own.keyway
        .reload(|listen, admin| {
            let text = own_config(&own.servers.shard, listen, admin, settings);
            let plain = |it: &Server| format!("\"{}\"", it.address());
            let with = |it: &Server, more: &str| format!("{{ address = \"{}\", {more} }}", it.address());
            text.replace(&plain(near), &with(near, "weight = 3, zone = \"a\""))
                .replace(&plain(far), &with(far, "zone = \"b\""))
        })
        .await?;
    for (server, weight, zone) in [(near, "3", "a"), (far, "1", "b")] {
        assert_eq!(own.shown(server, "weight").await?, weight);
        assert_eq!(own.shown(server, "zone").await?, zone);
    }
    let count = async |server: &Server| Fallible::Ok(own.shown(server, "reads").await?.parse::<u64>()?);
    let first = count(near).await?;
    until("the near one reads", || async { Ok(is_replica(&client).await? && count(near).await? > first) })
        .await?;
    let before = (count(near).await?, count(far).await?);
    for _ in 0..200 {
        assert!(is_replica(&client).await?);
    }
    let (near_reads, far_reads) = (count(near).await? - before.0, count(far).await? - before.1);
    assert_eq!(near_reads + far_reads, 200);
    let text = format!("{:?}", run(&own.console().await?, "SHOW REPLICAS").await?);
    assert!(near_reads >= 190, "{near_reads} near, {far_reads} far\n{text}");
    let shares = [own.shown(near, "read_share").await?, own.shown(far, "read_share").await?];
    assert!(shares.iter().all(|it| it.ends_with(" %")), "{shares:?}");

    // Where the near one is gone, the far one is better than none.
    near.freeze()?;
    until("its role is unknown", || async { Ok(own.shown(near, "role").await? == "NULL") }).await?;
    own.until_read_on_replica(&client).await?;
    near.thaw()?;
    Ok(())
}

/// A replica that was fit when it was chosen, and is not when it has a connection to spare.
async fn waited_for(harness: Arc<Shared>) -> Outcome {
    let own = OwnDatabase::start(
        &harness,
        1,
        "max_lag = \"1s\"\n[databases.plain.pool]\nsize = 1\nwait_timeout = \"60s\"",
        "CREATE TABLE t (a int); \
         CREATE VIEW here AS SELECT current_setting('in_hot_standby')::bool AS is_replica",
    )
    .await?;
    let replica = &own.servers.shard.replicas[0];
    let (holder, reader, writer) = (own.client().await?, own.client().await?, own.client().await?);
    own.until_read_on_replica(&holder).await?;
    until("a transaction is on the replica", async || {
        run(&holder, "ROLLBACK").await?;
        run(&holder, "BEGIN READ ONLY").await?;
        is_replica(&holder).await
    })
    .await?;
    run(&reader, "SET keyway.consistency = 'eventual'").await?;
    let reading = tokio::spawn(async move {
        rows(&reader, "SELECT is_replica, (SELECT count(*) FROM t) FROM here")
            .await
            .map_err(|it| it.to_string())
    });
    until("it waits for the replica", async || Ok(own.shown(replica, "cl_waiting").await? == "1")).await?;
    replica.pause_replay().await?;
    run(&writer, "INSERT INTO t VALUES (1)").await?;
    until("the replica is late", async || Ok(own.shown(replica, "serves").await? == "no")).await?;
    run(&holder, "COMMIT").await?;
    assert_eq!(reading.await??, ["f|1"]);
    Ok(replica.resume_replay().await?)
}

/// Keyway takes what a function says of itself; one that lies is found out by the replica.
async fn what_replicas_turn_down(harness: Arc<Shared>) -> Outcome {
    let own = OwnDatabase::start(
        &harness,
        1,
        "max_lag = \"1h\"",
        "CREATE TABLE t (a int); \
         CREATE VIEW here AS SELECT current_setting('in_hot_standby')::bool AS is_replica; \
         CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (1); RETURN 7; END'; \
         CREATE FUNCTION liar() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN writes(); END'",
    )
    .await?;
    let client = own.client().await?;
    own.until_read_on_replica(&client).await?;
    assert_eq!(rows(&client, "SELECT liar()").await?, ["7"]);
    let value: i32 = client.query_one("SELECT liar() + $1", &[&1i32]).await?.get(0);
    assert_eq!(value, 8);
    let primary = own.servers.shard.primary.connect(SingleFixture::DATABASE).await?;
    assert_eq!(rows(&primary, "SELECT count(*) FROM t").await?, ["2"], "once each");
    let counted = "keyway_replica_refusals_total{database=\"plain\",sqlstate=\"25006\"}";
    assert_eq!(own.sample(counted).await?, 2.0);
    // In a transaction it has to be told: others of its statements may have been answered.
    run(&client, "BEGIN READ ONLY").await?;
    assert_error(&error_of(&client, "SELECT liar()").await?, "25006", "INSERT");
    run(&client, "ROLLBACK").await?;
    assert_eq!(own.sample(counted).await?, 2.0);
    Ok(())
}

async fn conflicts_with_recovery(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"\nconsistency = \"eventual\"").await?;
    let (primary, replica) = (&own.servers.shard.primary, &own.servers.shard.replicas[0]);
    let on_replica = replica.connect(SingleFixture::DATABASE).await?;
    run(&on_replica, "ALTER SYSTEM SET max_standby_streaming_delay = 0").await?;
    run(&on_replica, "SELECT pg_reload_conf()").await?;
    // Who replays has been told once new sessions have it, and looks before the next record.
    until("the delay is in force", || async {
        let new = replica.connect(SingleFixture::DATABASE).await?;
        Ok(rows(&new, "SHOW max_standby_streaming_delay").await? == ["0"])
    })
    .await?;
    let direct = primary.connect(SingleFixture::DATABASE).await?;
    run(&direct, "INSERT INTO t SELECT generate_series(1, 5000)").await?;
    replica.wait_until_replayed(primary).await?;
    let client = own.client().await?;
    own.until_read_on_replica(&client).await?;
    // Long while there are rows; nothing once they are gone.
    let slow = "SELECT count(*) FROM t x, t y, t z";
    let reading = tokio::spawn(async move { rows(&client, slow).await });
    let active = format!("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{slow}'");
    until("the read runs", || async { Ok(rows(&on_replica, &active).await? == ["1"]) }).await?;
    run(&direct, "DELETE FROM t").await?;
    let counted = "keyway_replica_refusals_total{database=\"plain\",sqlstate=\"40001\"}";
    let given_up = until("the replica gives it up", || async {
        run(&direct, "VACUUM t").await?;
        Ok(own.sample(counted).await? == 1.0)
    });
    if let Err(error) = given_up.await {
        let (count, runs) = (own.sample(counted).await?, rows(&on_replica, &active).await?);
        return Err(format!("{error}; refusals: {count}, still running there: {runs:?}").into());
    }
    assert_eq!(reading.await??, ["0"], "the primary has answered it");
    Ok(())
}

async fn an_ended_connection(harness: Arc<Shared>) -> Outcome {
    let own = start(&harness, 1, "max_lag = \"1h\"").await?;
    let replica = &own.servers.shard.replicas[0];
    let client = own.client().await?;
    let on_replica = replica.connect(SingleFixture::DATABASE).await?;
    let ended =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT is_replica FROM here'";
    for _ in 0..8 {
        own.until_read_on_replica(&client).await?;
        rows(&on_replica, ended).await?;
    }
    let slow = "SELECT count(*) FROM generate_series(1, 4000) x, generate_series(1, 4000) y";
    let active = format!("FROM pg_stat_activity WHERE state = 'active' AND query = '{slow}'");
    for _ in 0..4 {
        own.until_read_on_replica(&client).await?;
        let reading = rows(&client, slow);
        let ending = until("the read runs and is ended", || async {
            Ok(!rows(&on_replica, &format!("SELECT pg_terminate_backend(pid) {active}")).await?.is_empty())
        });
        let (read, ended) = tokio::join!(reading, ending);
        ended?;
        assert_eq!(read?, ["16000000"], "another connection has answered it");
    }
    assert_eq!(own.shown(replica, "breaker").await?, "closed");
    assert_eq!(own.shown(replica, "breaker_opened").await?, "0");
    Ok(())
}

async fn one_that_is_gone(harness: Arc<Shared>) -> Outcome {
    let mut own =
        start(&harness, 1, "max_lag = \"1h\"\n[databases.plain.replicas]\nslow_start = \"10s\"").await?;
    let client = own.client().await?;
    own.until_read_on_replica(&client).await?;
    own.servers.shard.replicas[0].kill().await?;
    let opened = "keyway_server_breaker_opened_total{";
    until("its breaker has opened", || async {
        assert!(!is_replica(&client).await?, "no error, and the primary answers");
        Ok(own.sample(opened).await? > 0.0 || own.sample("keyway_server_role{").await? < 2.0)
    })
    .await?;
    for _ in 0..50 {
        assert!(!is_replica(&client).await?);
    }
    own.servers.shard.replicas[0].start().await?;
    own.until_read_on_replica(&client).await?;
    // Its caches are cold: the primary goes on with a part of the reads.
    until("all of it", || async {
        for _ in 0..20 {
            if !is_replica(&client).await? {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    assert_eq!(own.shown(&own.servers.shard.replicas[0], "breaker").await?, "closed");
    assert!(own.sample("keyway_reads_total{database=\"plain\",reason=\"slow_start\"").await? > 0.0);
    Ok(())
}

/// Paused, and a write past Keyway that makes it late.
async fn make_late(own: &OwnDatabase, client: &Client) -> Fallible<()> {
    let (primary, replica) = (&own.servers.shard.primary, &own.servers.shard.replicas[0]);
    own.until_read_on_replica(client).await?;
    replica.pause_replay().await?;
    run(&primary.connect(SingleFixture::DATABASE).await?, "INSERT INTO t VALUES (1)").await?;
    Ok(())
}

async fn late_is_an_error(harness: Arc<Shared>) -> Outcome {
    let settings =
        "max_lag = \"500ms\"\n[databases.plain.replicas]\nwhen_stale = \"error\"\nslow_start = \"0s\"";
    let own = start(&harness, 1, settings).await?;
    let client = own.client().await?;
    make_late(&own, &client).await?;
    let read = "SELECT count FROM here";
    until("reads are refused", || async { Ok(client.simple_query(read).await.is_err()) }).await?;
    let error = error_of(&client, read).await?;
    assert_error(&error, "57P03", "within 500 ms");
    assert!(error.hint().is_some() && error.detail().is_some(), "{error:?}");
    let hinted = format!("/* keyway: consistency=primary */ {read}");
    assert_eq!(rows(&client, &hinted).await?, ["1"]);
    run(&client, "INSERT INTO t VALUES (2)").await?;
    assert_error(&error_of(&client, "BEGIN READ ONLY; SELECT count FROM here").await?, "57P03", "within");
    let client = own.client().await?;
    own.servers.shard.replicas[0].resume_replay().await?;
    // On a busy machine it may be late again at any time.
    until("reads are answered", || async {
        let found = client.simple_query(read).await;
        let is_new =
            |it: &SimpleQueryMessage| matches!(it, SimpleQueryMessage::Row(it) if it.get(0) == Some("2"));
        Ok(found.is_ok_and(|it| it.iter().any(is_new)))
    })
    .await?;
    Ok(())
}

async fn the_least_late(harness: Arc<Shared>) -> Outcome {
    let settings =
        "max_lag = \"500ms\"\n[databases.plain.replicas]\nwhen_stale = \"least_stale\"\nslow_start = \"0s\"";
    let own = start(&harness, 1, settings).await?;
    let client = own.client().await?;
    make_late(&own, &client).await?;
    until("it is known to be late", || async {
        assert_eq!(rows(&client, "SELECT count, is_replica FROM here").await?, ["0|t"]);
        Ok(own.sample("keyway_reads_total{database=\"plain\",reason=\"stale\",target=\"replica\"}").await?
            > 0.0)
    })
    .await?;
    // What is written through Keyway must be seen for all that.
    run(&client, "INSERT INTO t VALUES (2)").await?;
    assert_eq!(rows(&client, "SELECT count, is_replica FROM here").await?, ["2|f"]);
    let other = own.client().await?;
    assert_eq!(rows(&other, "SELECT count, is_replica FROM here").await?, ["2|f"]);
    run(&other, "SET keyway.consistency = 'eventual'").await?;
    assert_eq!(rows(&other, "SELECT count, is_replica FROM here").await?, ["0|t"]);
    own.servers.shard.replicas[0].resume_replay().await?;
    Ok(())
}

async fn reads_go_on(harness: Arc<Shared>) -> Outcome {
    let settings =
        "max_lag = \"500ms\"\nfailover_hold = \"10s\"\n[databases.plain.replicas]\nslow_start = \"0s\"";
    let mut own = start(&harness, 1, settings).await?;
    let client = own.client().await?;
    run(&client, "INSERT INTO t VALUES (1)").await?;
    own.servers.shard.wait_until_replayed().await?;
    own.until_read_on_replica(&client).await?;
    own.servers.shard.primary.kill().await?;
    let counted = "keyway_reads_total{database=\"plain\",reason=\"no_primary\",target=\"replica\"}";
    until("the replica would be too late", || async {
        assert_eq!(rows(&client, "SELECT count, is_replica FROM here").await?, ["1|t"]);
        Ok(own.sample(counted).await? > 0.0)
    })
    .await?;
    until("it has been for too long", || async {
        Ok(client.simple_query("SELECT count FROM here").await.is_err())
    })
    .await?;
    assert_error(&error_of(&client, "SELECT count FROM here").await?, "57P03", "has no primary");
    own.servers.shard.primary.start().await?;
    run(&client, "INSERT INTO t VALUES (2)").await?;
    assert_eq!(rows(&client, "SELECT count FROM here").await?, ["2"]);
    Ok(())
}

async fn a_share_of_the_primary(harness: Arc<Shared>) -> Outcome {
    let settings = "max_lag = \"500ms\"\n[databases.plain.pool]\nwait_timeout = \"300ms\"\nsize = 10\n\
        [databases.plain.replicas]\nprimary_read_share = 0.1\nslow_start = \"0s\"";
    let own = start(&harness, 1, settings).await?;
    let (client, other) = (own.client().await?, own.client().await?);
    make_late(&own, &client).await?;
    until("the primary reads", || async { Ok(!is_replica(&client).await?) }).await?;
    run(&client, "BEGIN READ ONLY").await?;
    assert!(!is_replica(&client).await?);
    let error = error_of(&other, "SELECT is_replica FROM here").await?;
    assert_error(&error, "53300", "its primary takes no more");
    assert!(error.detail().is_some_and(|it| it.ends_with(": 1")) && error.hint().is_some(), "{error:?}");
    assert_hits(&own.keyway, "primary_read_share", 1).await?;
    // What is the primary's own has no bound.
    run(&other, "INSERT INTO t VALUES (5)").await?;
    assert_eq!(rows(&other, "/* keyway: consistency=primary */ SELECT is_replica FROM here").await?, ["f"]);
    // The place is free at the end of the transaction.
    let waiting = tokio::spawn(async move {
        let read = rows(&other, "SELECT is_replica FROM here").await;
        (read, other)
    });
    run(&client, "COMMIT").await?;
    let (read, other) = waiting.await?;
    if read.is_ok() {
        assert_eq!(read?, ["f"]);
    }
    assert!(!is_replica(&other).await?);
    own.servers.shard.replicas[0].resume_replay().await?;
    own.until_read_on_replica(&client).await?;
    Ok(())
}
