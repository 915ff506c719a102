//! Patroni as a source of roles: its endpoints are played by the test, in front of real servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::net::TcpListener;
use tokio_postgres::Client;

use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, connect, rows, run, until,
};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![harness.test("patroni::who_does_not_lead_is_not_the_primary", who_leads)]
}

const LEADS: u16 = 200;
const FOLLOWS: u16 = 503;
/// It takes the question and never answers.
const SILENT: u16 = 0;

/// The Patroni of one server.
struct Played {
    address: SocketAddr,
    says: Arc<AtomicU16>,
}

impl Played {
    async fn start(says: u16) -> Fallible<Played> {
        let says = Arc::new(AtomicU16::new(says));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let told = says.clone();
        let primary = move || {
            let told = told.clone();
            async move {
                match told.load(Ordering::SeqCst) {
                    SILENT => std::future::pending().await,
                    status => StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                }
            }
        };
        let router = Router::new().route("/primary", get(primary));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Played { address, says })
    }

    fn say(&self, status: u16) {
        self.says.store(status, Ordering::SeqCst);
    }
}

/// The line of a server in SHOW REPLICAS, all columns.
async fn shown(console: &Client, address: &str) -> Fallible<String> {
    let servers = rows(console, "SHOW REPLICAS").await?;
    servers.into_iter().find(|it| it.contains(address)).ok_or_else(|| "no such server".into())
}

async fn until_shown(console: &Client, address: &str, part: &str) -> Fallible<()> {
    until(part, async || Ok(shown(console, address).await?.contains(part))).await
}

/// A write that finds no primary, and what it finds in the end.
async fn held(keyway: &KeywayProcess, client: Client) -> Fallible<tokio::task::JoinHandle<Fallible<Client>>> {
    let write = tokio::spawn(async move {
        run(&client, "INSERT INTO t VALUES (1)").await?;
        Ok(client)
    });
    let waits = format!("keyway_failover_waiting{{database=\"{DATABASE}\"}} 1");
    until("the write waits", async || Ok(keyway.metrics().await?.contains(&waits))).await?;
    Ok(write)
}

async fn who_leads(harness: Arc<Shared>) -> Outcome {
    let own = harness.fresh_shard(1).await?;
    let (first, second) = (&own.shard.primary, &own.shard.replicas[0]);
    first.create_database(DATABASE, USER, APP_PASSWORD).await?;
    own.shard.wait_until_replayed().await?;
    let patroni = [Played::start(LEADS).await?, Played::start(FOLLOWS).await?];
    let server = |of: usize, address: String| {
        format!("{{ address = \"{address}\", patroni = \"http://{}\" }}", patroni[of].address)
    };
    let servers = [server(0, first.address()), server(1, second.address())].join(", ");
    let keyway = harness
        .start_keyway(|listen, admin| {
            format!(
                "listen = \"{listen}\"\nadmin = \"{admin}\"\nstats_users = [\"{USER}\"]\n\
                 [users.{USER}]\npassword = \"{APP_PASSWORD}\"\n[databases.{DATABASE}]\nservers = [{servers}]\n\
                 probe_timeout = \"300ms\"\nfailover_hold = \"2m\"\n"
            )
        })
        .await?;
    let client = connect(&keyway.url(USER, APP_PASSWORD, DATABASE)).await?;
    let console = connect(&keyway.url(USER, APP_PASSWORD, "keyway")).await?;
    run(&client, "CREATE TABLE t (a int)").await?;

    patroni[0].say(FOLLOWS);
    until_shown(&console, &first.address(), "does not call it the primary: status 503").await?;
    let write = held(&keyway, client).await?;
    assert!(shown(&console, &second.address()).await?.contains("replica"), "it needs no Patroni");
    patroni[0].say(LEADS);
    let client = write.await??;

    patroni[0].say(SILENT);
    until_shown(&console, &first.address(), "no answer within 300ms").await?;
    let write = held(&keyway, client).await?;
    // Promoted, but nobody has given it the lock.
    second.promote().await?;
    until_shown(&console, &second.address(), "does not call it the primary: status 503").await?;
    assert!(!write.is_finished());
    patroni[1].say(LEADS);
    let client = write.await??;
    assert_eq!(second.connect(DATABASE).await?.query("SELECT FROM t", &[]).await?.len(), 2);
    // The lock without the later timeline is of no use.
    patroni[0].say(LEADS);
    until_shown(&console, &first.address(), "timeline").await?;
    run(&client, "INSERT INTO t VALUES (2)").await?;
    assert_eq!(second.connect(DATABASE).await?.query("SELECT FROM t", &[]).await?.len(), 3);
    Ok(())
}
