//! pgbench in each of its protocols, and what its transactions leave behind.

use std::sync::Arc;

use keyway::demo::shop;
use libtest_mimic::Trial;
use tokio::process::Command;

use super::run;
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, Shared, SingleFixture, connect, unsharded_config,
};

const MODES: [&str; 3] = ["simple", "extended", "prepared"];
const CLIENTS: i64 = 8;
const TRANSACTIONS: i64 = 50;
/// Of orders that only this test makes.
const AMOUNT: &str = "-7.25";

/// One user's business on one shard, in a transaction and out of it.
const SHOPPING: &str = "\\set user random(1, 2000)\n\
    \\set order_id random(1000000, 9000000000000)\n\
    SELECT name FROM users WHERE user_id = :user;\n\
    BEGIN;\n\
    INSERT INTO orders (user_id, order_id, amount) VALUES (:user, :order_id, -7.25);\n\
    UPDATE users SET email = 'by pgbench' WHERE user_id = :user;\n\
    SELECT count(*) FROM orders WHERE user_id = :user;\n\
    END;\n\
    SELECT c.name FROM users u JOIN countries c ON c.code = u.country WHERE u.user_id = :user;\n";

/// Several statements on their way at once, in one transaction and in none, with a result that the next one
/// needs, and twice as many clients as servers.
const PIPELINE: &str = "\\set a random(1, 1000)\n\
    \\startpipeline\n\
    SELECT :a::int AS got;\n\
    INSERT INTO pgbench_piped VALUES (:a);\n\
    SELECT count(*) FROM pgbench_piped WHERE a = :a;\n\
    \\endpipeline\n\
    \\startpipeline\n\
    BEGIN;\n\
    UPDATE pgbench_piped SET a = a + 1 WHERE a = :a;\n\
    UPDATE pgbench_piped SET a = a - 1 WHERE a = :a + 1;\n\
    END;\n\
    SELECT 1;\n\
    \\endpipeline\n";

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("drivers::pgbench_unsharded", unsharded),
        harness.test("drivers::pgbench_sharded", sharded),
        harness.test("drivers::pgbench_pipelines", pipelines),
    ]
}

fn pgbench(harness: &Shared, url: &str, arguments: &[&str]) -> Fallible<Command> {
    let mut command = Command::new(harness.installation().client_program("pgbench")?);
    command.args(arguments).arg(url);
    Ok(command)
}

/// Runs all transactions of `CLIENTS` clients, of which none may fail.
async fn bench(harness: &Shared, url: &str, arguments: &[&str]) -> Outcome {
    let (clients, transactions) = (CLIENTS.to_string(), TRANSACTIONS.to_string());
    let load = ["--client", &clients, "--jobs", "2", "--transactions", &transactions];
    let said = run(&mut pgbench(harness, url, &[&load, arguments].concat())?).await?;
    let all = CLIENTS * TRANSACTIONS;
    assert!(said.contains(&format!("actually processed: {all}/{all}\n")), "{said}");
    assert!(!said.contains("aborted") && !said.contains("ERROR"), "{said}");
    Ok(())
}

async fn unsharded(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let url = fixture.url();
    run(&mut pgbench(&harness, &url, &["--initialize", "--scale", "1", "--quiet"])?).await?;
    // A read of another connection may go to a replica.
    fixture.shard.wait_until_replayed().await?;
    let client = fixture.shard.primary.connect(SingleFixture::DATABASE).await?;
    for mode in MODES {
        bench(&harness, &url, &["-M", mode, "-S"]).await?;
        // Empties the history first; the balances stay.
        bench(&harness, &url, &["-M", mode]).await?;
        let history = client.query_one("SELECT count(*) FROM pgbench_history", &[]).await?;
        assert_eq!(history.get::<_, i64>(0), CLIENTS * TRANSACTIONS, "-M {mode}");
    }
    let balances = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), \
                    (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches)";
    let row = client.query_one(balances, &[]).await?;
    let [accounts, tellers, branches] = [0, 1, 2].map(|it| row.get::<_, i64>(it));
    assert_eq!((accounts, tellers), (branches, branches));
    Ok(())
}

async fn sharded(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.shop().await?;
    let dir = harness.fresh_dir()?;
    let script = dir.path().join("shopping.sql");
    std::fs::write(&script, SHOPPING)?;
    let script = script.to_str().ok_or("a path that is no text")?;
    for mode in MODES {
        bench(&harness, &fixture.url(), &["-M", mode, "--no-vacuum", "--file", script]).await?;
    }
    let mut orders = Vec::new();
    for shard in &fixture.shop.shards {
        let client = shard.primary.connect(shop::DATABASE).await?;
        // Each order lies where its user does.
        let count = format!("SELECT count(*) FROM orders JOIN users USING (user_id) WHERE amount = {AMOUNT}");
        orders.push(client.query_one(&count, &[]).await?.get::<_, i64>(0));
    }
    assert!(orders.iter().all(|it| *it > 0), "{orders:?}");
    assert_eq!(orders.iter().sum::<i64>(), MODES.len() as i64 * CLIENTS * TRANSACTIONS);
    Ok(())
}

async fn pipelines(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let keyway = harness
        .start_keyway(|listen, admin| {
            let config = unsharded_config(shard, listen, admin);
            format!("{config}[databases.{}.pool]\nsize = 4\n", SingleFixture::DATABASE)
        })
        .await?;
    let url = keyway.url(shop::USER, APP_PASSWORD, SingleFixture::DATABASE);
    let client = connect(&url).await?;
    client.batch_execute("CREATE TABLE pgbench_piped (a int)").await?;
    let dir = harness.fresh_dir()?;
    let script = dir.path().join("pipeline.sql");
    std::fs::write(&script, PIPELINE)?;
    let script = script.to_str().ok_or("a path that is no text")?;
    for (turn, mode) in ["extended", "prepared"].into_iter().enumerate() {
        bench(&harness, &url, &["-M", mode, "--no-vacuum", "--file", script]).await?;
        let rows: i64 = client.query_one("SELECT count(*) FROM pgbench_piped", &[]).await?.get(0);
        assert_eq!(rows, (turn as i64 + 1) * CLIENTS * TRANSACTIONS, "-M {mode}");
    }
    client.batch_execute("DROP TABLE pgbench_piped").await?;
    Ok(())
}
