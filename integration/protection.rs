//! What is done for hot keys: reads that have an answer in common, answers that are kept, writes that take turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::harness::wire::{Wire, query};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, as_db_error,
    assert_error, assert_hits, connect, error_of, rows, run, servers_config, until, until_hits,
};
use crate::limits::client;

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("protection::identical_reads_are_asked_once", asked_once),
        harness.test("protection::who_asks_otherwise_asks_for_himself", asked_otherwise),
        harness.test("protection::one_that_leaves_does_not_take_the_answer_along", leader_leaves),
        harness.test("protection::answers_are_kept_until_a_write", kept_until_a_write),
        harness.test("protection::what_is_kept_is_bounded", kept_is_bounded),
        harness.test("protection::long_answers_go_to_one_client_each", long_answers),
        harness.test("protection::writes_of_a_key_take_turns", turns),
        harness.test("protection::lines_are_bounded", lines_are_bounded),
        harness.test("protection::a_pause_is_no_wait_and_ends_what_is_kept", paused),
        harness.test("protection::texts_alike_are_not_enough", same_text),
        harness.test("protection::a_chained_transaction_is_another_one", chained),
        harness.test("protection::a_dry_run_holds_nobody_up", dry_run),
        harness.test("protection::hot_keys_are_protected_by_themselves", hot_keys),
    ]
}

/// A table of one test, `id` and `v`, and a gate that reads can be held up at.
struct Table {
    keyway: KeywayProcess,
    /// To the server itself.
    direct: Client,
    name: &'static str,
}

impl Table {
    /// `says` is of both tables, `settings` stand behind the database's own.
    async fn start(harness: &Shared, name: &'static str, says: &str, settings: &str) -> Fallible<Table> {
        let primary = &harness.single().await?.shard.primary;
        let direct = connect(&primary.url(DATABASE)).await?;
        let sql = format!(
            "DROP TABLE IF EXISTS {name}, {name}_gate; \
             CREATE TABLE {name} (id int PRIMARY KEY, v text); CREATE TABLE {name}_gate (open bool); \
             INSERT INTO {name} SELECT g, 'v' || g FROM generate_series(1, 20) g; \
             INSERT INTO {name}_gate VALUES (true); ALTER TABLE {name} OWNER TO {USER}; ALTER TABLE {name}_gate OWNER TO {USER}"
        );
        run(&direct, &sql).await?;
        let of = |it: &str| format!("[databases.{DATABASE}.tables.{it}]\n{says}\n");
        let tables = of(name) + &of(&format!("{name}_gate"));
        // Only the primary, so that it is clear who serves.
        let address = [primary.address()];
        let config = |listen: &str, admin: &str| {
            let servers = servers_config(&address, listen, admin);
            let wait = if settings.contains(".pool]") {
                ""
            } else {
                "[databases.plain.pool]\nwait_timeout = \"1m\""
            };
            format!("admin_users = [\"{USER}\"]\n{servers}{settings}\n{wait}\n{tables}")
        };
        let keyway = harness.start_keyway(config).await?;
        Ok(Table { keyway, direct, name })
    }

    /// Until the table is in Keyway's catalog, no read of it is shared.
    async fn until_known(&self) -> Fallible<()> {
        let (client, sql) = (self.client().await?, format!("SELECT v FROM {} WHERE id = 20", self.name));
        until("the table is known", async || {
            run(&client, &sql).await?;
            Ok(self.reads("asked").await? > 0)
        })
        .await
    }

    async fn client(&self) -> Fallible<Client> {
        client(&self.keyway).await
    }

    /// One that may be gone at any moment.
    async fn wire(&self) -> Fallible<Wire> {
        Wire::log_in(self.keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await
    }

    async fn sample(&self, name: &str) -> Fallible<u64> {
        let metrics = self.keyway.metrics().await?;
        let found = metrics.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
        Ok(found.unwrap_or("0").parse()?)
    }

    async fn reads(&self, result: &str) -> Fallible<u64> {
        self.sample(&format!("keyway_protected_reads_total{{database=\"{DATABASE}\",result=\"{result}\"}}"))
            .await
    }

    async fn writes(&self, result: &str) -> Fallible<u64> {
        self.sample(&format!("keyway_protected_writes_total{{database=\"{DATABASE}\",result=\"{result}\"}}"))
            .await
    }

    async fn waiting(&self) -> Fallible<u64> {
        self.sample(&format!("keyway_writes_waiting{{database=\"{DATABASE}\"}}")).await
    }

    async fn until_waiting(&self, count: u64) -> Fallible<()> {
        until(&format!("{count} wait"), async || Ok(self.waiting().await? == count)).await
    }

    /// Until the table is in Keyway's catalog, keys of it are not known.
    async fn until_writes_are_known(&self) -> Fallible<()> {
        let (client, sql) = (self.client().await?, format!("UPDATE {} SET v = v WHERE id = 20", self.name));
        until("writes of a key are known as such", async || {
            run(&client, &sql).await?;
            Ok(self.writes("at_once").await? > 0)
        })
        .await
    }

    /// In a transaction that has written a row.
    async fn hold(&self, id: i32) -> Fallible<Client> {
        let client = self.client().await?;
        run(&client, "BEGIN").await?;
        run(&client, &format!("UPDATE {} SET v = '' WHERE id = {id}", self.name)).await?;
        Ok(client)
    }

    async fn console(&self) -> Fallible<Client> {
        connect(&self.keyway.url(USER, APP_PASSWORD, "keyway")).await
    }

    /// A read of a row that comes to its end when the gate is open.
    fn gated(&self, id: i32) -> String {
        format!("SELECT v FROM {0}, {0}_gate WHERE id = {id} AND open", self.name)
    }

    async fn close_gate(&self) -> Fallible<()> {
        run(&self.direct, &format!("BEGIN; LOCK TABLE {}_gate", self.name)).await.map(drop)
    }

    async fn open_gate(&self) -> Fallible<()> {
        run(&self.direct, "COMMIT").await.map(drop)
    }

    /// Servers' sessions that stand at the gate, and clients that wait in Keyway.
    async fn until_stands(&self, at_gate: usize, in_keyway: usize) -> Fallible<()> {
        let console = self.console().await?;
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE relation = '{}_gate'::regclass AND NOT granted",
            self.name
        );
        until(&format!("{at_gate} at the gate, {in_keyway} wait"), async || {
            let at = rows(&self.direct, &sql).await?.concat().parse::<usize>()?;
            let mut waiting = 0;
            for message in run(&console, "SHOW CLIENTS").await? {
                if let SimpleQueryMessage::Row(row) = message {
                    waiting += usize::from(row.try_get("state")? == Some("waiting"));
                }
            }
            Ok((at, waiting) == (at_gate, in_keyway))
        })
        .await
    }
}

async fn begin(client: &Client) -> Fallible<()> {
    run(client, "BEGIN").await.map(drop)
}

type Answer = JoinHandle<Fallible<Vec<String>>>;

fn ask(client: Client, sql: String) -> Answer {
    tokio::spawn(async move { rows(&client, &sql).await })
}

async fn asked_once(harness: Arc<Shared>) -> Outcome {
    let table = Table::start(&harness, "asked_once", "share_reads = true", "").await?;
    table.until_known().await?;
    let before = table.reads("asked").await?;
    // By both protocols: to each its own form.
    for extended in [false, true] {
        table.close_gate().await?;
        let mut answers = Vec::new();
        for _ in 0..8 {
            let (client, sql) = (table.client().await?, table.gated(7));
            answers.push(match extended {
                false => ask(client, sql),
                true => tokio::spawn(async move {
                    let rows = client
                        .query_typed(&sql.replace("= 7", "= $1"), &[(&7, tokio_postgres::types::Type::INT4)])
                        .await?;
                    Ok(rows.iter().map(|it| it.get(0)).collect())
                }),
            });
        }
        table.until_stands(1, 7).await?;
        table.open_gate().await?;
        for it in answers {
            assert_eq!(it.await??, ["v7"]);
        }
    }
    assert_eq!(table.reads("asked").await? - before, 2);
    assert_eq!(table.reads("shared").await?, 14);
    Ok(())
}

async fn asked_otherwise(harness: Arc<Shared>) -> Outcome {
    let table = Table::start(&harness, "asked_otherwise", "share_reads = true", "").await?;
    table.until_known().await?;
    let writer = table.client().await?;
    table.close_gate().await?;
    let first = ask(table.client().await?, table.gated(7));
    table.until_stands(1, 0).await?;
    let mut apart = Vec::new();
    // Another row, other settings, a time, a transaction, and a level that asks for what is newest.
    let sql = table.gated(7);
    for (set_up, sql) in [
        ("", table.gated(8)),
        ("SET extra_float_digits = 0", sql.clone()),
        ("", sql.replace("SELECT v", "SELECT v, now() IS NULL")),
        ("", sql.replace("AND open", "AND open AND 'now'::timestamptz > '2000-01-01'")),
        ("BEGIN", sql.clone()),
        ("SET keyway.consistency = 'primary'", sql.clone()),
        ("", sql.replace("AND open", "AND open FOR SHARE OF asked_otherwise")),
    ] {
        let client = table.client().await?;
        if !set_up.is_empty() {
            run(&client, set_up).await?;
        }
        apart.push(ask(client, sql));
    }
    table.until_stands(8, 0).await?;
    // Who comes behind a write asks anew: what is under way may not have it.
    run(&writer, "UPDATE asked_otherwise SET v = 'new' WHERE id = 7").await?;
    let late = ask(table.client().await?, table.gated(7));
    table.until_stands(9, 0).await?;
    let later = ask(table.client().await?, table.gated(7));
    table.until_stands(9, 1).await?;
    table.open_gate().await?;
    assert_eq!((late.await??, later.await??), (vec!["new".into()], vec!["new".into()]));
    first.await??;
    for it in apart {
        assert_eq!(it.await??.len(), 1);
    }
    assert_eq!(table.reads("shared").await?, 1);
    Ok(())
}

async fn leader_leaves(harness: Arc<Shared>) -> Outcome {
    let table = Table::start(&harness, "leader_leaves", "share_reads = true", "").await?;
    table.until_known().await?;
    table.close_gate().await?;
    let leader = table.client().await?;
    let token = leader.cancel_token();
    let lost = ask(leader, table.gated(7));
    table.until_stands(1, 0).await?;
    let follower = table.client().await?;
    let cancel = follower.cancel_token();
    let cancelled = ask(follower, table.gated(7));
    table.until_stands(1, 1).await?;
    let waits = ask(table.client().await?, table.gated(7));
    table.until_stands(1, 2).await?;
    // One that waits may be cancelled, and so may the one that is waited for.
    cancel.cancel_query(tokio_postgres::NoTls).await?;
    assert!(cancelled.await?.unwrap_err().to_string().contains("user request"));
    table.until_stands(1, 1).await?;
    token.cancel_query(tokio_postgres::NoTls).await?;
    assert!(lost.await?.unwrap_err().to_string().contains("user request"));
    table.until_stands(1, 0).await?;
    table.open_gate().await?;
    assert_eq!(waits.await??, ["v7"]);
    // And one whose client goes away.
    table.close_gate().await?;
    let mut leader = table.wire().await?;
    leader.send(&query(&table.gated(8))).await?;
    table.until_stands(1, 0).await?;
    let waits = ask(table.client().await?, table.gated(8));
    table.until_stands(1, 1).await?;
    drop(leader);
    table.until_stands(1, 0).await?;
    table.open_gate().await?;
    assert_eq!(waits.await??, ["v8"]);
    Ok(())
}

async fn kept_until_a_write(harness: Arc<Shared>) -> Outcome {
    let table = Table::start(&harness, "kept", "cache_ttl = \"1h\"", "").await?;
    table.until_known().await?;
    let (reader, writer) = (table.client().await?, table.client().await?);
    let read = async |id: i32| rows(&reader, &format!("SELECT v FROM kept WHERE id = {id}")).await;
    assert_eq!((read(1).await?, read(2).await?), (vec!["v1".to_owned()], vec!["v2".to_owned()]));
    let is_kept = async |id: i32| {
        let before = table.reads("kept").await?;
        read(id).await?;
        Fallible::Ok(table.reads("kept").await? > before)
    };
    assert!(is_kept(1).await? && is_kept(2).await?);
    // Writes by other ways are not seen.
    run(&table.direct, "UPDATE kept SET v = 'direct' WHERE id = 1").await?;
    assert_eq!(read(1).await?, ["v1"]);
    // A write of a row ends what was kept of it, and of nothing else.
    run(&writer, "UPDATE kept SET v = 'a' WHERE id = 1").await?;
    assert_eq!(read(1).await?, ["a"]);
    assert!(is_kept(1).await? && is_kept(2).await?);
    // In a transaction from its commit on; until then nobody else sees it.
    run(&writer, "BEGIN; UPDATE kept SET v = 'b' WHERE id = 1").await?;
    assert_eq!(read(1).await?, ["a"]);
    assert_eq!(rows(&writer, "SELECT v FROM kept WHERE id = 1").await?, ["b"]);
    run(&writer, "COMMIT").await?;
    assert_eq!(read(1).await?, ["b"]);
    // One that is rolled back costs an answer, and no more.
    run(&writer, "BEGIN; UPDATE kept SET v = 'c' WHERE id = 1; ROLLBACK").await?;
    assert_eq!(read(1).await?, ["b"]);
    // A write of rows that no key names ends all.
    run(&writer, "UPDATE kept SET v = v || '!' WHERE v LIKE 'v%'").await?;
    assert_eq!(read(2).await?, ["v2!"]);
    run(&writer, "TRUNCATE kept").await?;
    assert!(read(2).await?.is_empty());
    // Columns that are not there any more are not shown.
    let all = async || rows(&reader, "SELECT * FROM kept WHERE id = 3").await;
    assert!(all().await?.is_empty());
    run(&writer, "INSERT INTO kept VALUES (3, 'x')").await?;
    assert_eq!(all().await?, ["3|x"]);
    run(&writer, "ALTER TABLE kept ADD COLUMN w int DEFAULT 5").await?;
    assert_eq!(all().await?, ["3|x|5"]);
    let text = format!("{:?}", run(&table.console().await?, "SHOW PROTECTION").await?);
    assert!(text.contains("plain"), "{text}");
    Ok(())
}

async fn kept_is_bounded(harness: Arc<Shared>) -> Outcome {
    let bound = "[databases.plain.protection]\ncache_bytes_max = 65536";
    let table = Table::start(&harness, "kept_bounded", "cache_ttl = \"1h\"", bound).await?;
    table.until_known().await?;
    let reader = table.client().await?;
    for number in 0..600 {
        run(&reader, &format!("SELECT v FROM kept_bounded WHERE id = {number}")).await?;
    }
    until_hits(&table.keyway, "cache_bytes_max", 1).await?;
    let bytes = table.sample(&format!("keyway_kept_answer_bytes{{database=\"{DATABASE}\"}}")).await?;
    assert!((1..=65_536).contains(&bytes), "{bytes}");
    let evicted =
        table.sample(&format!("keyway_kept_answer_evictions_total{{database=\"{DATABASE}\"}}")).await?;
    assert!(evicted > 0);
    Ok(())
}

async fn long_answers(harness: Arc<Shared>) -> Outcome {
    let bound = "[databases.plain.protection]\nshared_reply_bytes_max = 1024";
    let says = "share_reads = true\ncache_ttl = \"1h\"";
    let table = Table::start(&harness, "long_answers", says, bound).await?;
    table.until_known().await?;
    run(&table.direct, "INSERT INTO long_answers VALUES (100, repeat('x', 3000000))").await?;
    table.close_gate().await?;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(ask(table.client().await?, table.gated(100)));
    }
    table.until_stands(1, 2).await?;
    table.open_gate().await?;
    for it in answers {
        assert_eq!(it.await??.concat().len(), 3_000_000);
    }
    assert_eq!((table.reads("shared").await?, table.reads("kept").await?), (0, 0));
    // From then on nobody waits for such a one.
    let before = table.reads("too_long").await?;
    assert_eq!(rows(&table.client().await?, &table.gated(100)).await?.concat().len(), 3_000_000);
    assert_eq!(table.reads("too_long").await?, before + 1);
    assert_hits(&table.keyway, "shared_reply_bytes_max", 1).await
}

async fn turns(harness: Arc<Shared>) -> Outcome {
    let pool = "[databases.plain.pool]\nsize = 3\nwait_timeout = \"1m\"";
    let table = Table::start(&harness, "turns_taken", "writes_at_once = 1", pool).await?;
    table.until_writes_are_known().await?;
    let holder = table.hold(1).await?;
    // Many wait, and take no server connection: other keys go on, in a pool of three.
    let mut writers: Vec<Answer> = Vec::new();
    for number in 1..=9u64 {
        let sql = format!("UPDATE turns_taken SET v = v || {number} WHERE id = 1 RETURNING v");
        writers.push(ask(table.client().await?, sql));
        table.until_waiting(number).await?;
    }
    let other = table.client().await?;
    run(&other, "UPDATE turns_taken SET v = 'other' WHERE id = 2").await?;
    run(&holder, "COMMIT").await?;
    for (number, it) in writers.into_iter().enumerate() {
        let order: String = (1..=number + 1).map(|it| it.to_string()).collect();
        assert_eq!(it.await??, [order], "in the order in which they came");
    }
    assert_eq!((table.writes("waited").await?, table.waiting().await?), (9, 0));
    // A transaction that has a server waits for nobody: the server sees what it has locked, and circles in it.
    begin(&holder).await?;
    run(&holder, "UPDATE turns_taken SET v = 'h' WHERE id = 1").await?;
    begin(&other).await?;
    run(&other, "UPDATE turns_taken SET v = 'o' WHERE id = 2").await?;
    let crossed = tokio::spawn(async move {
        let ended = run(&other, "UPDATE turns_taken SET v = 'o' WHERE id = 1").await;
        (run(&other, "ROLLBACK").await, ended.is_ok())
    });
    until("it is past the lines", async || Ok(table.writes("bypassed").await? == 1)).await?;
    let ended = run(&holder, "UPDATE turns_taken SET v = 'h' WHERE id = 2").await;
    run(&holder, "ROLLBACK").await?;
    let (rolled_back, other_ended) = crossed.await?;
    rolled_back?;
    assert!(ended.is_ok() != other_ended, "one of them was the victim of a deadlock");
    assert_eq!(
        rows(&holder, "SELECT v FROM turns_taken WHERE id IN (1, 2) ORDER BY id").await?,
        ["123456789", "other"]
    );
    Ok(())
}

async fn lines_are_bounded(harness: Arc<Shared>) -> Outcome {
    let bounds = |wait: &str| {
        format!(
            "[databases.plain.pool]\nwait_timeout = \"{wait}\"\n\
             [databases.plain.protection]\nwrite_queue_max = 1"
        )
    };
    let table = Table::start(&harness, "lines", "writes_at_once = 1", &bounds("1m")).await?;
    table.until_writes_are_known().await?;
    let sql = "UPDATE lines SET v = '' WHERE id = 1";
    let fails = async |client: Client| error_of(&client, sql).await;
    let holder = table.hold(1).await?;
    let (waiter, third) = (table.client().await?, table.client().await?);
    let cancel = waiter.cancel_token();
    let waiting = tokio::spawn(async move { error_of(&waiter, sql).await });
    table.until_waiting(1).await?;
    assert_error(&error_of(&third, sql).await?, "53400", "too many transactions write the same key");
    assert_hits(&table.keyway, "write_queue_max", 1).await?;
    // Who leaves, or is cancelled, makes room; a session that dies gives its turn on.
    cancel.cancel_query(tokio_postgres::NoTls).await?;
    assert_error(&waiting.await??, "57014", "user request");
    table.until_waiting(0).await?;
    let mut leaving = table.wire().await?;
    leaving.send(&query(sql)).await?;
    table.until_waiting(1).await?;
    drop(leaving);
    table.until_waiting(0).await?;
    drop(holder);
    until("its turn is another's", async || Ok(run(&third, sql).await.is_ok())).await?;

    let table = Table::start(&harness, "lines", "writes_at_once = 1", &bounds("1s")).await?;
    table.until_writes_are_known().await?;
    let _holder = table.hold(1).await?;
    assert_error(&fails(table.client().await?).await?, "55P03", "due to wait_timeout");
    assert_hits(&table.keyway, "wait_timeout", 1).await
}

/// A pause does not count for those who stand in line, and RESUME ends what is kept.
async fn paused(harness: Arc<Shared>) -> Outcome {
    let says = "writes_at_once = 1\ncache_ttl = \"1h\"";
    let settings = "[databases.plain.pool]\nwait_timeout = \"1s\"";
    let table = Table::start(&harness, "paused", says, settings).await?;
    table.until_writes_are_known().await?;
    table.until_known().await?;
    let reader = table.client().await?;
    let read = async || rows(&reader, "SELECT v FROM paused WHERE id = 5").await;
    assert_eq!(read().await?, ["v5"]);
    let console = table.console().await?;
    run(&console, "PAUSE plain").await?;
    run(&table.direct, "UPDATE paused SET v = 'mended' WHERE id = 5").await?;
    let sql = "UPDATE paused SET v = 'w' WHERE id = 1 RETURNING v";
    let first = ask(table.client().await?, sql.to_owned());
    until("one has a turn and waits", async || Ok(table.writes("at_once").await? > 1)).await?;
    let second = ask(table.client().await?, sql.to_owned());
    table.until_waiting(1).await?;
    // Longer than who is first may take.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(table.waiting().await?, 1);
    run(&console, "RESUME plain").await?;
    assert_eq!((first.await??, second.await??), (vec!["w".into()], vec!["w".into()]));
    assert_eq!(read().await?, ["mended"]);
    Ok(())
}

/// Texts alike are not enough.
async fn same_text(harness: Arc<Shared>) -> Outcome {
    let says = "share_reads = true\ncache_ttl = \"1h\"";
    // One server connection, which has the older statement.
    let pool = "[databases.plain.pool]\nsize = 1\nwait_timeout = \"1m\"";
    let table = Table::start(&harness, "same_text", says, pool).await?;
    table.until_known().await?;
    let text = "SELECT * FROM same_text WHERE id = $1";
    let (old, new) = (table.client().await?, table.client().await?);
    // Kept for the unnamed statement of each, for the named one of all.
    let statement = old.prepare(text).await?;
    assert_eq!(old.query_one(&statement, &[&3]).await?.len(), 2);
    run(&table.client().await?, "ALTER TABLE same_text ADD COLUMN w int DEFAULT 5").await?;
    let newer = new.prepare(text).await?;
    until("the new one has the column", async || Ok(new.query_one(&newer, &[&3]).await?.len() == 3)).await?;
    // As PostgreSQL says it, and no row of another shape.
    let told = as_db_error(old.query_one(&statement, &[&3]).await.unwrap_err())?;
    assert_eq!(told.message(), "cached plan must not change result type");
    // In text and in binary form, with a limit and without.
    let kept = async || table.reads("kept").await;
    let before = kept().await?;
    for _ in 0..2 {
        assert_eq!(rows(&new, "SELECT id FROM same_text WHERE id = 4").await?, ["4"]);
        let row = new.query_typed("SELECT id FROM same_text WHERE id = 4", &[]).await?;
        assert_eq!(row[0].get::<_, i32>(0), 4);
    }
    assert_eq!(kept().await? - before, 2, "each form of its own");
    // A right that another user has is not this one's.
    run(&table.direct, "CREATE ROLE same_text_reader; GRANT SELECT (v) ON same_text TO same_text_reader")
        .await?;
    run(&table.direct, &format!("GRANT same_text_reader TO {USER}")).await?;
    run(&new, "SET ROLE same_text_reader").await?;
    assert_error(
        &error_of(&new, "SELECT id FROM same_text WHERE id = 4").await?,
        "42501",
        "permission denied",
    );
    run(&table.direct, "DROP OWNED BY same_text_reader; DROP ROLE same_text_reader").await?;
    Ok(())
}

/// AND CHAIN begins another transaction.
async fn chained(harness: Arc<Shared>) -> Outcome {
    let table = Table::start(&harness, "chained", "writes_at_once = 1", "").await?;
    table.until_writes_are_known().await?;
    let holder = table.hold(1).await?;
    let waits = ask(table.client().await?, "UPDATE chained SET v = 'next' WHERE id = 1 RETURNING v".into());
    table.until_waiting(1).await?;
    run(&holder, "COMMIT AND CHAIN").await?;
    assert_eq!(waits.await??, ["next"]);
    run(&holder, "COMMIT").await?;
    Ok(())
}

async fn dry_run(harness: Arc<Shared>) -> Outcome {
    let dry = "[databases.plain.protection]\ndry_run = true";
    let table = Table::start(&harness, "dry_run", "writes_at_once = 1", dry).await?;
    table.until_writes_are_known().await?;
    let holder = table.hold(1).await?;
    let second = ask(table.client().await?, "UPDATE dry_run SET v = v || 1 WHERE id = 1 RETURNING v".into());
    until("it is counted", async || Ok(table.writes("dry_run").await? == 1)).await?;
    // It waits for the lock of the row, at the server.
    let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE dry_run%'";
    until("the server has it", async || Ok(rows(&table.direct, locked).await? == ["1"])).await?;
    run(&holder, "COMMIT").await?;
    assert_eq!(second.await??, ["1"]);
    Ok(())
}

async fn hot_keys(harness: Arc<Shared>) -> Outcome {
    let hot = "[databases.plain.protection]\nhot_share = 0.3";
    let table = Table::start(&harness, "hot_keys", "share_reads = false", hot).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = Vec::new();
    for worker in 0..6 {
        let (client, stop) = (table.client().await?, stop.clone());
        load.push(tokio::spawn(async move {
            let mut number = worker;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let id = if number % 2 == 0 { 7 } else { number % 20 };
                let sql = match number % 5 {
                    0 => format!("UPDATE hot_keys SET v = 'w' WHERE id = {id}"),
                    _ => format!("SELECT v FROM hot_keys WHERE id = {id}"),
                };
                run(&client, &sql).await?;
            }
            Fallible::Ok(())
        }));
    }
    let protected = format!("keyway_protected_keys{{database=\"{DATABASE}\"}}");
    let found = until("the hot key is protected", async || Ok(table.sample(&protected).await? == 1)).await;
    let used = until("its reads are shared and its writes take turns", async || {
        Ok(table.reads("shared").await? > 0 && table.writes("at_once").await? > 0)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for it in load {
        it.await??;
    }
    found?;
    used?;
    Ok(())
}
