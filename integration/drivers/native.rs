//! tokio-postgres: what most Rust programs use. Every query is a prepared statement with binary values.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{SinkExt, TryStreamExt, pin_mut};
use libtest_mimic::Trial;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::harness::{Harness, Outcome, Shared, connect};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("drivers::tokio_postgres_plain", plain),
        harness.test("drivers::tokio_postgres_sharded", sharded),
        harness.test("drivers::tokio_postgres_pipelines", pipelines),
        harness.test("drivers::tokio_postgres_cancels", cancels),
    ]
}

async fn plain(harness: Arc<Shared>) -> Outcome {
    let mut client = harness.single().await?.client().await?;
    client.batch_execute("CREATE TABLE drv_native (id int PRIMARY KEY, t text, at timestamptz)").await?;
    let insert = client.prepare("INSERT INTO drv_native VALUES ($1, $2, $3)").await?;
    for id in 0..20 {
        client.execute(&insert, &[&id, &Some("x"), &SystemTime::UNIX_EPOCH]).await?;
    }
    let transaction = client.transaction().await?;
    transaction.execute(&insert, &[&100, &None::<&str>, &SystemTime::UNIX_EPOCH]).await?;
    transaction.rollback().await?;
    let count: i64 = client.query_one("SELECT count(*) FROM drv_native", &[]).await?.get(0);
    assert_eq!(count, 20);

    let taken = client.execute(&insert, &[&1, &None::<&str>, &SystemTime::UNIX_EPOCH]).await;
    assert_eq!(taken.unwrap_err().code(), Some(&SqlState::UNIQUE_VIOLATION));

    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT id FROM drv_native ORDER BY id", &[]).await?;
    let (first, rest) =
        (transaction.query_portal(&portal, 15).await?, transaction.query_portal(&portal, 15).await?);
    assert_eq!((first.len(), rest.len()), (15, 5));
    drop(portal);
    transaction.commit().await?;

    let sink = client.copy_in("COPY drv_native (id) FROM STDIN").await?;
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"200\n201\n")).await?;
    assert_eq!(sink.finish().await?, 2);
    let out =
        client.copy_out("COPY (SELECT id FROM drv_native WHERE id >= 200 ORDER BY id) TO STDOUT").await?;
    let chunks: Vec<bytes::Bytes> = out.try_collect().await?;
    assert_eq!(chunks.concat(), b"200\n201\n");
    // A COPY that is given up tells the server so.
    {
        let sink = client.copy_in::<_, bytes::Bytes>("COPY drv_native (id) FROM STDIN").await?;
        drop(sink);
    }
    let last: i32 = client.query_one("SELECT max(id) FROM drv_native", &[]).await?.get(0);
    assert_eq!(last, 201);
    client.batch_execute("DROP TABLE drv_native").await?;
    Ok(())
}

async fn sharded(harness: Arc<Shared>) -> Outcome {
    let client = harness.shop().await?.client().await?;
    let by_key = client.prepare("SELECT name FROM users WHERE user_id = $1").await?;
    for key in 1..200i64 {
        let name: String = client.query_one(&by_key, &[&key]).await?.get(0);
        assert_eq!(name, format!("user {key}"));
    }
    let refused = client.query("SELECT max(user_id) FROM users", &[]).await.unwrap_err();
    let error = refused.as_db_error().ok_or("an error of the server")?;
    assert_eq!(*error.code(), SqlState::FEATURE_NOT_SUPPORTED);
    assert!(error.hint().is_some(), "{error:?}");
    let rows = client.query("SELECT user_id FROM users WHERE user_id <= $1", &[&100i64]).await?;
    assert_eq!(rows.len(), 100);
    Ok(())
}

/// Many requests on their way at once on one connection, an error among them.
async fn pipelines(harness: Arc<Shared>) -> Outcome {
    for url in [harness.single().await?.url(), harness.shop().await?.url()] {
        let client = connect(&url).await?;
        let statement = client.prepare("SELECT 10 / $1::int").await?;
        let divisors: Vec<i32> = (0..100).map(|it| it % 10).collect();
        let requests = divisors.iter().map(|it| {
            let (client, statement) = (&client, &statement);
            async move {
                let value: &(dyn ToSql + Sync) = it;
                client.query_one(statement, &[value]).await.map(|it| it.get::<_, i32>(0))
            }
        });
        let answers = futures_util::future::join_all(requests).await;
        for (divisor, answer) in divisors.iter().zip(answers) {
            match answer {
                Ok(quotient) => assert_eq!(quotient, 10 / divisor),
                Err(error) => {
                    assert_eq!((error.code(), *divisor), (Some(&SqlState::DIVISION_BY_ZERO), 0));
                }
            }
        }
    }
    Ok(())
}

async fn cancels(harness: Arc<Shared>) -> Outcome {
    let client = harness.single().await?.client().await?;
    let token = client.cancel_token();
    let sleeping = client.query("SELECT pg_sleep(60)", &[]);
    let cancel = async {
        // Cancel requests may come before the query has reached the server: repeat until it ends.
        loop {
            token.cancel_query(tokio_postgres::NoTls).await?;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        #[allow(unreachable_code, reason = "gives the block its type")]
        Ok::<(), tokio_postgres::Error>(())
    };
    tokio::select! {
        result = sleeping => {
            assert_eq!(result.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
        }
        it = cancel => it?,
    }
    let one: i32 = client.query_one("SELECT 1", &[]).await?.get(0);
    assert_eq!(one, 1);
    Ok(())
}
