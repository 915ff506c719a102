//! A BEGIN before the same Sync as what follows, as drivers send it: it is as if it had come by itself.

use std::sync::Arc;

use keyway::demo::shop::{DATABASE, USER};
use libtest_mimic::Trial;

use super::Shards;
use super::spread::{count, open_on, until_none_is_open, users};
use crate::harness::wire::{Message, Wire, bind, close, describe, execute, flush, parse, query, sync};
use crate::harness::{APP_PASSWORD, Fallible, Harness, Outcome, Shared};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::begun::further_shards_are_read_and_one_is_written", further_shards),
        harness.test("routing::begun::errors_abort_what_has_begun", errors),
        harness.test("routing::begun::whole_transactions", whole),
    ]
}

fn step(statement: &str, sql: &str) -> Vec<u8> {
    [parse(statement, sql), bind("", statement, &[], false), describe('P', ""), execute("", 0)].concat()
}

/// As pgJDBC begins: BEGIN without Describe.
fn begin(statement: &str, sql: &str) -> Vec<u8> {
    [parse(statement, sql), bind("", statement, &[], false), execute("", 0)].concat()
}

/// Types of messages, errors and the status at the end.
fn told(messages: &[Message]) -> String {
    let mut told = String::new();
    for it in messages {
        match it.tag {
            'E' => told.push_str(&format!("E{} ", it.field('C').unwrap_or_default())),
            'Z' => told.push_str(&format!("Z{} ", char::from(it.body[0]))),
            tag => told.push(tag),
        }
    }
    told.trim_end().to_owned()
}

async fn log_in(shards: &Shards<'_>, name: &str) -> Fallible<Wire> {
    let settings = [("application_name", name)];
    Wire::log_in(shards.keyway.listen(), USER, APP_PASSWORD, DATABASE, &settings).await
}

async fn further_shards(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_430_000, "begun_further").await?;
    let mut wire = log_in(&shards, "begun_further").await?;
    let read = |id: i64| format!("SELECT email FROM users WHERE user_id = {id}");
    let update = |id: i64, to: &str| format!("UPDATE users SET email = '{to}' WHERE user_id = {id}");
    let both = count("begun_further");
    for (round, (first, write)) in
        [(read(a), a), (read(a), b), (read(b), a), (read(b), b), (both.clone(), a), (both.clone(), b)]
            .into_iter()
            .enumerate()
    {
        let mail = format!("round {round}");
        // The statement is named in the end, as drivers name what they repeat.
        let name = if round == 0 { "" } else { "S_1" };
        let begun = if round > 1 {
            [bind("", name, &[], false), execute("", 0)].concat()
        } else {
            begin(name, "BEGIN")
        };
        let answer = wire.ask(&[begun, step("", &first), sync()].concat(), 1).await?;
        let want = if round > 1 { "2C12TDCZT" } else { "12C12TDCZT" };
        assert_eq!(told(&answer).replace(' ', ""), want, "{first}: {answer:?}");
        assert_eq!(wire.rows(&both).await?, ["2"]);
        assert_eq!(open_on(&shards, "begun_further").await?, [1, 1]);
        for id in [a, b] {
            assert_eq!(wire.rows(&read(id)).await?.len(), 1);
        }
        let answer = wire.ask(&[step("", &update(write, &mail)), sync()].concat(), 1).await?;
        assert_eq!(told(&answer), "12nCZT", "{answer:?}");
        let answer = wire.ask(&[step("", "COMMIT"), sync()].concat(), 1).await?;
        assert_eq!(told(&answer), "12nCZI", "{answer:?}");
        assert_eq!(wire.rows(&read(write)).await?, [mail]);
        until_none_is_open(&shards, "begun_further").await?;
    }
    // What is written first decides, also where it came with BEGIN.
    let sent = [begin("", "BEGIN"), step("", &update(a, "lost")), sync()].concat();
    assert_eq!(told(&wire.ask(&sent, 1).await?), "12C12nCZT");
    assert!(wire.error(&update(b, "lost")).await?.starts_with("0A000 transaction would touch two shards"));
    wire.ask(&query("ROLLBACK"), 1).await?;
    // What it says holds on each shard.
    let sent = [begin("", "BEGIN READ ONLY"), step("", &read(b)), sync()].concat();
    assert_eq!(told(&wire.ask(&sent, 1).await?), "12C12TDCZT");
    assert_eq!(wire.rows(&both).await?, ["2"]);
    assert!(wire.error(&update(a, "lost")).await?.starts_with("25006"));
    wire.ask(&query("ROLLBACK"), 1).await?;
    let sent = [begin("", "BEGIN ISOLATION LEVEL SERIALIZABLE"), step("", &read(b)), sync()].concat();
    assert_eq!(told(&wire.ask(&sent, 1).await?), "12C12TDCZT");
    assert!(wire.error(&read(a)).await?.starts_with("0A000"));
    wire.ask(&query("ROLLBACK"), 1).await?;
    until_none_is_open(&shards, "begun_further").await?;
    Ok(())
}

/// As PostgreSQL tells it, and where Keyway refuses, as it would tell an error of its own.
async fn errors(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_431_000, "begun_errors").await?;
    let address = shards.shop.shop.shards[0].primary.address().parse()?;
    let mut theirs = Wire::log_in(address, USER, APP_PASSWORD, DATABASE, &[]).await?;
    let mut ours = log_in(&shards, "begun_errors").await?;
    for behind in [
        step("", &format!("SELECT nothing FROM users WHERE user_id = {a}")),
        step("", &format!("SELECT 1 / 0 FROM users WHERE user_id = {a}")),
        step("", &format!("SELECT sum(1 / (user_id - {a})) FROM users WHERE name = 'begun_errors'")),
        [step("", &format!("SELECT 1 FROM users WHERE user_id = {a}")), step("", "SELECT 1 / 0")].concat(),
        [step("", "SELECT 1"), close('S', ""), close('P', "")].concat(),
        [step("", "BEGIN"), step("", "SELECT 1")].concat(),
        parse("", "SELECT 1"),
    ] {
        let sent = [begin("", "BEGIN"), behind, sync()].concat();
        let (ours, theirs) = (&mut ours, &mut theirs);
        assert_eq!(told(&ours.ask(&sent, 1).await?), told(&theirs.ask(&sent, 1).await?), "{sent:?}");
        for sql in ["SELECT 2", "ROLLBACK", "SELECT 3"] {
            let (ours, theirs) = (ours.ask(&query(sql), 1).await?, theirs.ask(&query(sql), 1).await?);
            assert_eq!(told(&ours), told(&theirs), "{sql}");
        }
    }
    let two = [
        step("", &format!("DELETE FROM users WHERE user_id = {a}")),
        step("", &format!("DELETE FROM users WHERE user_id = {b}")),
    ];
    let sent = [begin("", "BEGIN"), two.concat(), sync()].concat();
    assert_eq!(told(&ours.ask(&sent, 1).await?), "12CE0A000 ZE");
    ours.ask(&query("COMMIT"), 1).await?;
    assert_eq!(ours.rows(&count("begun_errors")).await?, ["2"]);
    // The client has a part of the answer before its Sync.
    let sent =
        [begin("", "BEGIN"), step("", &format!("SELECT 1 FROM users WHERE user_id = {b}")), flush()].concat();
    ours.send(&sent).await?;
    let answer = [ours.until('D').await?, ours.until('C').await?].concat();
    assert_eq!(told(&answer), "12C12TDC");
    assert_eq!(told(&ours.ask(&sync(), 1).await?), "ZT");
    ours.ask(&query("ROLLBACK"), 1).await?;
    until_none_is_open(&shards, "begun_errors").await?;
    Ok(())
}

async fn whole(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let ids = users(&shards, 1_432_000, "begun_whole").await?;
    let mut wire = log_in(&shards, "begun_whole").await?;
    let read = |id: i64| format!("SELECT email FROM users WHERE user_id = {id}");
    for (id, end, mail) in ids.iter().flat_map(|it| [(*it, "COMMIT", "kept"), (*it, "ROLLBACK", "kept")]) {
        let update = format!(
            "UPDATE users SET email = '{}' WHERE user_id = {id}",
            end.to_lowercase().replace("commit", "kept")
        );
        let sent = [begin("", "BEGIN"), step("", &update), step("", end), sync()].concat();
        assert_eq!(told(&wire.ask(&sent, 1).await?), "12C12nC12nCZI", "{end}");
        assert_eq!(wire.rows(&read(id)).await?, [mail]);
    }
    // Nothing in between, and a setting.
    let sent = [begin("", "BEGIN"), step("", "COMMIT"), sync()].concat();
    assert_eq!(told(&wire.ask(&sent, 1).await?), "12C12nCZI");
    let sent = [begin("", "BEGIN"), step("", "SET LOCAL work_mem = '1234kB'"), sync()].concat();
    assert_eq!(told(&wire.ask(&sent, 1).await?), "12C12nCZT");
    for id in ids {
        let sql = format!("SELECT current_setting('work_mem') FROM users WHERE user_id = {id}");
        assert_eq!(wire.rows(&sql).await?, ["1234kB"]);
    }
    wire.ask(&query("COMMIT"), 1).await?;
    until_none_is_open(&shards, "begun_whole").await?;
    Ok(())
}
