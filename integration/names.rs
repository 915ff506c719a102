//! Servers by name, when the name comes to stand for another server.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use keyway::app::{Drain, Proxy};
use keyway::config::Config;
use keyway::demo::postgres::Server;
use keyway::demo::shop::USER;
use keyway::net::Lookup;
use libtest_mimic::Trial;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::error::DbError;

use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Link, Outcome, Shared, SingleFixture, as_db_error, connect, http_get,
    rows, run, until,
};

const DATABASE: &str = SingleFixture::DATABASE;
/// In place of an address: the lookup fails.
const NO_ANSWER: u8 = 0;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![harness.test("names::a_name_moves_to_the_new_primary", primary_moves)]
}

/// A Keyway in the test's own process, which finds `localhost` behind a link: where new connections lead to, and what a
/// lookup says, is for the test to change.
struct Named {
    proxy: Proxy,
    link: Link,
    /// The last byte of the address.
    answer: Arc<AtomicU8>,
    url: String,
}

impl Named {
    async fn start(server: &Server) -> Fallible<Named> {
        let link = Link::to(server.address().parse()?).await?;
        let text = format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n\
             [databases.{DATABASE}]\nservers = [\"localhost:{}\"]\ndns_interval = \"100ms\"\n",
            link.address().port()
        );
        let config = Config::parse(&text, Path::new("."), &|_| None).map_err(|it| format!("{it:?}"))?;
        let answer = Arc::new(AtomicU8::new(1));
        let asked = answer.clone();
        let lookup = Lookup::by(move |host| {
            let answer = asked.load(Ordering::SeqCst);
            async move {
                assert_eq!(host, "localhost");
                match answer {
                    NO_ANSWER => Err(io::Error::other("the name server is out")),
                    last => Ok(vec![IpAddr::from([127, 0, 0, last])]),
                }
            }
        });
        let proxy = Proxy::start_with(&config, None, lookup)?;
        until("it has a primary", async || Ok(proxy.is_ready())).await?;
        let url = format!("postgres://{USER}:{APP_PASSWORD}@{}/{DATABASE}", proxy.listen_addr());
        Ok(Named { proxy, link, answer, url })
    }

    async fn count(&self, metric: &str) -> Fallible<u64> {
        let text = http_get(self.proxy.admin_addr(), "/metrics").await?.1;
        let line = text.lines().find(|it| it.starts_with(&format!("{metric}{{"))).ok_or("no such metric")?;
        Ok(line.rsplit(' ').next().ok_or("no value")?.parse()?)
    }

    async fn until_counted(&self, metric: &str, least: u64) -> Fallible<()> {
        until(metric, async || Ok(self.count(metric).await? >= least)).await
    }
}

async fn place(client: &Client) -> Fallible<String> {
    Ok(rows(client, "SELECT setting FROM pg_settings WHERE name = 'port'").await?.remove(0))
}

/// What an open transaction is told when it ends, from outside of it.
async fn cut_off(client: &Client) -> Fallible<DbError> {
    loop {
        match client.simple_query("INSERT INTO t VALUES (7)").await {
            Ok(_) => sleep(Duration::from_millis(10)).await,
            Err(error) => return as_db_error(error),
        }
    }
}

/// As with a cluster whose tool points a name at the primary. The old one goes on as if it were one.
async fn primary_moves(harness: Arc<Shared>) -> Outcome {
    let own = harness.fresh_shard(1).await?;
    let (old, new) = (&own.shard.primary, &own.shard.replicas[0]);
    old.create_database(DATABASE, USER, APP_PASSWORD).await?;
    let named = Named::start(old).await?;
    let [idle, busy] = [connect(&named.url).await?, connect(&named.url).await?];
    run(&idle, "CREATE TABLE t (a int)").await?;
    own.shard.wait_until_replayed().await?;
    assert_eq!(place(&idle).await?, old.port().to_string());

    named.answer.store(NO_ANSWER, Ordering::SeqCst);
    named.until_counted("keyway_dns_failures_total", 2).await?;
    assert_eq!(place(&idle).await?, old.port().to_string());
    assert_eq!(named.count("keyway_dns_changes_total").await?, 0);
    named.answer.store(1, Ordering::SeqCst);

    run(&busy, "BEGIN; INSERT INTO t VALUES (1)").await?;
    new.promote().await?;
    named.link.move_to(new.address().parse()?);
    named.answer.store(2, Ordering::SeqCst);
    named.until_counted("keyway_dns_changes_total", 1).await?;
    // From now on no statement begins on the old one, nor ends there as if that counted.
    for value in 2..6 {
        run(&idle, &format!("INSERT INTO t VALUES ({value})")).await?;
        assert_eq!(place(&idle).await?, new.port().to_string());
    }
    let error = cut_off(&busy).await?;
    assert_eq!(error.code().code(), "08006", "{error:?}");
    run(&busy, "ROLLBACK").await?;
    assert_eq!(place(&busy).await?, new.port().to_string());
    assert_eq!(rows(&busy, "SELECT string_agg(a::text, ',' ORDER BY a) FROM t").await?, ["2,3,4,5"]);
    assert_eq!(named.count("keyway_dns_changes_total").await?, 1);
    named.proxy.shutdown(Drain::Timeout).await;
    Ok(())
}
