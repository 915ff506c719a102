//! tokio-postgres: what most Rust programs use. Every query is a prepared statement with binary values.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{SinkExt, TryStreamExt, pin_mut};
use libtest_mimic::Trial;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::harness::{Fallible, Harness, Outcome, Shared, connect};

/// More than a pool has slots.
const CLIENTS: i64 = 40;
const STATEMENTS: i64 = 120;
/// Users of the shop that no other test touches.
const FIRST_USER: i64 = 4_000_000;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("drivers::tokio_postgres_plain", plain),
        harness.test("drivers::tokio_postgres_sharded", sharded),
        harness.test("drivers::tokio_postgres_pipelines", pipelines),
        harness.test("drivers::tokio_postgres_cancels", cancels),
        harness.test("drivers::tokio_postgres_values", values),
        harness.test("drivers::tokio_postgres_statements_change_servers", statements_change_servers),
        harness.test("drivers::tokio_postgres_transactions", transactions),
        harness.test("drivers::tokio_postgres_settings", settings),
        harness.test("drivers::tokio_postgres_more_clients_than_servers", more_clients_than_servers),
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
    let largest = client.query_one("SELECT max(user_id) FROM users WHERE user_id < $1", &[&100i64]).await?;
    assert_eq!(largest.get::<_, i64>(0), 99);
    let refused = client.query("SELECT row_number() OVER () FROM users", &[]).await.unwrap_err();
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

async fn both_urls(harness: &Shared) -> Fallible<[String; 2]> {
    Ok([harness.single().await?.url(), harness.shop().await?.url()])
}

/// In binary both ways.
async fn same<T>(client: &Client, type_name: &str, value: T) -> Fallible<()>
where
    T: ToSql + Sync + PartialEq + std::fmt::Debug + for<'a> FromSql<'a>,
{
    let statement = format!("SELECT $1::{type_name}, NULL::{type_name}");
    let row = client.query_one(&statement, &[&value]).await?;
    assert_eq!(row.get::<_, T>(0), value, "{type_name}");
    assert!(row.get::<_, Option<T>>(1).is_none(), "{type_name}");
    Ok(())
}

async fn values(harness: Arc<Shared>) -> Outcome {
    for url in both_urls(&harness).await? {
        let client = connect(&url).await?;
        same(&client, "int8", i64::MIN).await?;
        same(&client, "int2", i16::MAX).await?;
        same(&client, "bool", true).await?;
        same(&client, "float8", 0.1f64).await?;
        same(&client, "text", "it's a \\ \"key\" \n of na\u{ef}ve 鍵".to_owned()).await?;
        same(&client, "bytea", (0..=255u8).collect::<Vec<_>>()).await?;
        same(&client, "timestamptz", SystemTime::UNIX_EPOCH).await?;
        same(&client, "int8[]", vec![Some(1i64), None, Some(i64::MAX)]).await?;
        same(&client, "text[]", vec!["a".to_owned(), "NULL".to_owned(), String::new()]).await?;
        same(&client, "int4[]", Vec::<i32>::new()).await?;
        // As text, in the simple protocol.
        let said = client.simple_query("SELECT 1.50::numeric, NULL; SELECT 'b'").await?;
        let rows: Vec<_> = said
            .iter()
            .filter_map(|it| match it {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|it| row.get(it)).collect::<Vec<_>>())
                }
                _ => None,
            })
            .collect();
        assert_eq!(rows, [vec![Some("1.50"), None], vec![Some("b")]]);
    }
    Ok(())
}

/// More named statements than a pool has slots, of clients that take turns at the servers.
async fn statements_change_servers(harness: Arc<Shared>) -> Outcome {
    for url in both_urls(&harness).await? {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(connect(&url).await?);
        }
        let mut prepared = Vec::new();
        for index in 0..STATEMENTS {
            let client = (index % 4) as usize;
            let text = format!("SELECT $1::int8 + {index}");
            prepared.push((index, client, clients[client].prepare(&text).await?));
        }
        for turn in 0..3i64 {
            for (index, client, statement) in &prepared {
                let client = &mut clients[*client];
                let sum: i64 = if turn == 1 && index % 10 == 0 {
                    let transaction = client.transaction().await?;
                    let row = transaction.query_one(statement, &[&turn]).await?;
                    transaction.commit().await?;
                    row.get(0)
                } else {
                    client.query_one(statement, &[&turn]).await?.get(0)
                };
                assert_eq!(sum, turn + index);
            }
        }
        // Closes one name of a text that another client goes on with.
        let kept = clients[0].prepare("SELECT 'shared'").await?;
        drop(clients[1].prepare("SELECT 'shared'").await?);
        clients[1].query_one("SELECT 1", &[]).await?;
        assert_eq!(clients[0].query_one(&kept, &[]).await?.get::<_, &str>(0), "shared");
    }
    Ok(())
}

async fn transactions(harness: Arc<Shared>) -> Outcome {
    let plain = connect(&harness.single().await?.url()).await?;
    let columns =
        "user_id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, country char(2) NOT NULL";
    plain.batch_execute(&format!("CREATE TABLE native_users ({columns})")).await?;
    let tables = ["native_users", "users"];
    for (url, table) in both_urls(&harness).await?.iter().zip(tables) {
        let mut client = connect(url).await?;
        let insert = format!("INSERT INTO {table} (user_id, name, email, country) VALUES ($1, $2, '', 'NL')");
        let name = format!("SELECT name FROM {table} WHERE user_id = $1");
        let change = format!("UPDATE {table} SET name = $2 WHERE user_id = $1");
        // Of either shard.
        for user in FIRST_USER..FIRST_USER + 8 {
            let mut outer = client.transaction().await?;
            // Parse alone, before a key is known.
            let insert = outer.prepare(&insert).await?;
            outer.execute(&insert, &[&user, &"outer"]).await?;
            let inner = outer.transaction().await?;
            inner.execute(&change, &[&user, &"inner"]).await?;
            let error = inner.query("SELECT 1/$1::int4", &[&0i32]).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
            let error = inner.query(&name, &[&user]).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
            inner.rollback().await?;
            assert_eq!(outer.query_one(&name, &[&user]).await?.get::<_, &str>(0), "outer");
            outer.commit().await?;
            let dropped = client.transaction().await?;
            dropped.execute(&change, &[&user, &"lost"]).await?;
            drop(dropped);
            assert_eq!(client.query_one(&name, &[&user]).await?.get::<_, &str>(0), "outer");
            let read_only = client.build_transaction().read_only(true).start().await?;
            let error = read_only.execute(&change, &[&user, &"never"]).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
        }
    }
    Ok(())
}

async fn settings(harness: Arc<Shared>) -> Outcome {
    for url in both_urls(&harness).await? {
        let one =
            connect(&format!("{url}?application_name=native%20one&options=-c%20work_mem%3D3MB")).await?;
        let two = connect(&url).await?;
        one.batch_execute("SET statement_timeout = '11s'").await?;
        two.batch_execute("SET statement_timeout = '12s'; SET work_mem = '4MB'").await?;
        let show = async |client: &Client, name: &str| {
            let row = client.query_one(&format!("SHOW {name}"), &[]).await?;
            Fallible::Ok(row.get::<_, String>(0))
        };
        for _ in 0..3 {
            assert_eq!(show(&one, "application_name").await?, "native one");
            assert_eq!(show(&one, "work_mem").await?, "3MB");
            assert_eq!(show(&one, "statement_timeout").await?, "11s");
            assert_eq!(show(&two, "work_mem").await?, "4MB");
            assert_eq!(show(&two, "statement_timeout").await?, "12s");
        }
        let refused = connect(&format!("{url}?options=-c%20work_mem%3Dmuch")).await.map(drop).unwrap_err();
        assert!(format!("{refused:?}").contains("22023"), "{refused:?}");
    }
    Ok(())
}

async fn more_clients_than_servers(harness: Arc<Shared>) -> Outcome {
    for url in both_urls(&harness).await? {
        let work = |index: i64| {
            let url = &url;
            async move {
                let mut client = connect(url).await?;
                let mut sums = Vec::new();
                for turn in 0..5i64 {
                    let transaction = client.transaction().await?;
                    let row = transaction.query_one("SELECT $1::int8 + $2::int8", &[&index, &turn]).await?;
                    transaction.query("SELECT pg_sleep(0.001)", &[]).await?;
                    transaction.commit().await?;
                    sums.push(row.get::<_, i64>(0) - index);
                }
                Fallible::Ok(sums)
            }
        };
        for sums in futures_util::future::join_all((0..CLIENTS).map(work)).await {
            assert_eq!(sums?, [0, 1, 2, 3, 4]);
        }
    }
    Ok(())
}
