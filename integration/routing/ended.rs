//! Transactions over several servers that are ended for their clients: every server is free or closed, and nothing is left.

use std::sync::Arc;

use keyway::demo::shop::{DATABASE, USER};
use libtest_mimic::Trial;
use tokio_postgres::Client;

use super::Shards;
use super::spread::{console, count, named, open_on, users};
use crate::harness::wire::{Wire, query};
use crate::harness::{APP_PASSWORD, Fallible, Harness, Outcome, Shared, rows, run, until};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("routing::ended::a_silent_client_is_sent_away", silent),
        harness.test("routing::ended::a_client_is_killed", killed),
        harness.test("routing::ended::all_of_a_database_are_killed", all_killed),
    ]
}

/// No server of the database is in use, none is inside of a transaction of the name, and none is shown.
async fn nothing_is_left(shards: &Shards<'_>, name: &str) -> Outcome {
    let console = console(shards).await?;
    let in_use = async || {
        let pools = rows(&console, "SHOW POOLS").await?;
        let of_shop = pools.iter().filter(|it| it.starts_with(&format!("{DATABASE}|")));
        Fallible::Ok(
            of_shop.map(|it| it.split('|').nth(6).unwrap_or_default().to_owned()).collect::<Vec<_>>(),
        )
    };
    until("no server to be in use", async || {
        let in_use = in_use().await?;
        Ok(!in_use.is_empty() && in_use.iter().all(|it| it == "0"))
    })
    .await?;
    let shown = rows(&console, "SHOW TRANSACTIONS").await?;
    assert!(!shown.iter().any(|it| it.ends_with(&format!("|{name}"))), "{shown:?}");
    until("servers to have ended them", async || Ok(open_on(shards, name).await? == [0, 0])).await?;
    let left = format!("SELECT count(*) FROM users WHERE name = '{name}' AND email = 'left'");
    let other = shards.client().await?;
    assert_eq!(rows(&other, &left).await?, ["0"]);
    run(&other, "BEGIN").await?;
    assert_eq!(rows(&other, &count(name)).await?, ["2"], "servers are there for others");
    run(&other, "COMMIT").await?;
    Ok(())
}

/// A transaction on both shards that has written on the second.
async fn spread(client: &Client, name: &str, id: i64) -> Outcome {
    run(client, "BEGIN").await?;
    assert_eq!(rows(client, &count(name)).await?, ["2"]);
    run(client, &format!("UPDATE users SET email = 'left' WHERE user_id = {id}")).await?;
    Ok(())
}

async fn silent(harness: Arc<Shared>) -> Outcome {
    let limits = "[limits]\nidle_in_transaction_timeout = \"2s\"\naborted_transaction_timeout = \"1s\"\n";
    let shards = Shards::start_edited(&harness, |text| text.replace("[limits]\n", limits)).await?;
    for (number, last) in ["SELECT 1", "SELECT 1 / 0", "SAVEPOINT s"].into_iter().enumerate() {
        let name = format!("ended_silent_{number}");
        let [_, b] = users(&shards, 1_440_000 + 100 * number as i64, &name).await?;
        let settings = [("application_name", &name[..])];
        let mut wire = Wire::log_in(shards.keyway.listen(), USER, APP_PASSWORD, DATABASE, &settings).await?;
        for sql in
            ["BEGIN", &count(&name), &format!("UPDATE users SET email = 'left' WHERE user_id = {b}"), last]
        {
            wire.ask(&query(sql), 1).await?;
        }
        let words = wire.until('E').await?;
        assert!(words.last().is_some_and(|it| it.error().starts_with("25P03")), "{words:?}");
        assert!(wire.rest().await?.is_empty());
        nothing_is_left(&shards, &name).await?;
    }
    let metrics = shards.keyway.metrics().await?;
    for (limit, hits) in [("idle_in_transaction_timeout", 2), ("aborted_transaction_timeout", 1)] {
        let line = format!("keyway_limit_hits_total{{limit=\"{limit}\"}} {hits}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    Ok(())
}

async fn killed(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [_, b] = users(&shards, 1_441_000, "ended_killed").await?;
    let console = console(&shards).await?;
    let running = "SELECT pid FROM pg_stat_activity WHERE application_name = 'ended_killed' \
                   AND state = 'active' AND query LIKE '%generate_series%'";
    for is_busy in [false, true] {
        let client = named(&shards, "ended_killed").await?;
        run(&client, "SET jit = off").await?;
        spread(&client, "ended_killed", b).await?;
        assert_eq!(open_on(&shards, "ended_killed").await?, [1, 1]);
        let client = Arc::new(client);
        let busy = is_busy.then(|| {
            let client = client.clone();
            tokio::spawn(async move {
                let slow = "SELECT user_id FROM users, generate_series(1, 100000) AS a, \
                            generate_series(1, 100000) AS b WHERE name = 'ended_killed' AND a + b < user_id % 1";
                client.simple_query(slow).await.map(drop)
            })
        });
        if is_busy {
            until("both shards to run it", async || {
                Ok(shards.everywhere(running).await?.iter().all(|it| it.len() == 1))
            })
            .await?;
        }
        // type, user, database, ...: by its name.
        let clients = rows(&console, "SHOW CLIENTS").await?;
        let columns = console.prepare("SHOW CLIENTS").await?;
        let at = columns.columns().iter().position(|it| it.name() == "id").ok_or("no id")?;
        let own = clients.iter().find(|it| it.contains("ended_killed")).ok_or("no client")?;
        let id = own.split('|').nth(at).ok_or("no id")?;
        run(&console, &format!("KILL_CLIENT {id}")).await?;
        if let Some(busy) = busy {
            assert!(busy.await?.is_err());
        }
        until("the client to be gone", async || Ok(client.is_closed())).await?;
        nothing_is_left(&shards, "ended_killed").await?;
    }
    Ok(())
}

async fn all_killed(harness: Arc<Shared>) -> Outcome {
    let shards = Shards::start(&harness).await?;
    let [a, b] = users(&shards, 1_442_000, "ended_all").await?;
    let console = console(&shards).await?;
    let (one, other) = (named(&shards, "ended_all").await?, named(&shards, "ended_all").await?);
    spread(&one, "ended_all", a).await?;
    spread(&other, "ended_all", b).await?;
    run(&other, "DECLARE c CURSOR FOR SELECT user_id FROM users ORDER BY user_id").await?;
    assert_eq!(open_on(&shards, "ended_all").await?, [2, 2]);
    run(&console, &format!("KILL {DATABASE}")).await?;
    until("both are gone", async || Ok(one.is_closed() && other.is_closed())).await?;
    until("their servers too", async || Ok(open_on(&shards, "ended_all").await? == [0, 0])).await?;
    run(&console, &format!("RESUME {DATABASE}")).await?;
    nothing_is_left(&shards, "ended_all").await
}
