//! New certificates under a running Keyway, which drop nobody.

use std::sync::Arc;

use keyway::config::{ServerTls, TlsMode};
use keyway::demo::postgres::Signal;
use keyway::demo::shop::USER;
use keyway::metrics::Registry;
use keyway::net::{Connector, Dialled, Encryption, EndPoint, TlsMetrics, dial};
use libtest_mimic::Trial;

use super::certificates::Authority;
use super::clients::{Files, config, conninfo};
use super::psql;
use super::servers::TlsServer;
use crate::harness::wire::Wire;
use crate::harness::{APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, until};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![harness.test("tls::new_files_hold_for_new_connections", new_files_hold_for_new_connections)]
}

/// What identifies the certificate that clients are shown now.
async fn shown(keyway: &KeywayProcess) -> Fallible<EndPoint> {
    let any = ServerTls { mode: TlsMode::Require, authorities: None, identity: None, is_direct: false };
    let connector = Connector::new(&any, TlsMetrics::register(&Registry::default())?)?;
    let timeout = std::time::Duration::from_secs(30);
    let address = ("127.0.0.1", keyway.listen().port());
    let Dialled { end_point, .. } = dial(address, &connector, Encryption::Required, timeout).await?;
    end_point.ok_or_else(|| "no certificate that can be bound to".into())
}

/// Returns when the files have been read, with what the log says of that.
async fn reload(keyway: &KeywayProcess) -> Fallible<String> {
    let outcomes = || {
        let lines = |it: &String| it.lines().filter(|it| it.contains("reloaded")).count();
        lines(&keyway.log())
    };
    let before = outcomes();
    keyway.signal(Signal::HUP)?;
    until("the reload is done", async || Ok(outcomes() > before)).await?;
    Ok(keyway.log().lines().rfind(|it| it.contains("reloaded")).unwrap_or_default().to_owned())
}

async fn new_files_hold_for_new_connections(harness: Arc<Shared>) -> Outcome {
    let files = Files::new(&harness)?;
    let pair = files.authority.sign(&["127.0.0.1"], "server")?;
    let server = TlsServer::start(&harness, harness.installation(), &pair, &files.authority).await?;
    let ca = files.path("ca.crt");
    let database = format!(
        "server_tls = \"verify-full\"\nserver_ca = \"{ca}\"\n[databases.{DATABASE}.pool]\nsize = 2\n"
    );
    let text = |mode: &str| config(&server.shard, &files.section(mode, ""), "", &database);
    let keyway = harness.start_keyway(text("prefer")).await?;
    let mut before = Wire::log_in(keyway.listen(), USER, APP_PASSWORD, DATABASE, &[]).await?;
    before.rows("BEGIN").await?;
    let pid = before.rows("SELECT pg_backend_pid()").await?;
    let old = shown(&keyway).await?;

    // Files that do not fit: everything stays as it is.
    let key = std::fs::read(files.path("server.key"))?;
    std::fs::write(files.path("server.key"), Authority::new("x")?.sign(&[], "x")?.key)?;
    assert!(reload(&keyway).await?.contains("configuration not reloaded"));
    assert!(keyway.log().contains("`key` is not the key of `cert`"), "{}", keyway.log());
    assert_eq!(shown(&keyway).await?, old);
    std::fs::write(files.path("server.key"), key)?;
    assert!(reload(&keyway).await?.contains("nothing changed"));

    // A new authority on both sides, and certificates by it, in the same files.
    let next = Authority::new("next")?;
    next.write(files.dir.path(), "ca.crt")?;
    next.sign(&["localhost"], "keyway")?.write(files.dir.path(), "server")?;
    server.show(&next.sign(&["127.0.0.1"], "server")?).await?;
    let told = reload(&keyway).await?;
    assert!(told.contains("tls: identity") && told.contains("database plain: server_tls"), "{told}");
    assert_ne!(shown(&keyway).await?, old);
    // The old session goes on, on the connection that it has; the next one needs a new one.
    assert_eq!(before.rows("SELECT pg_backend_pid()").await?, pid);
    let more = format!("sslmode=verify-full sslrootcert={ca}");
    let over_tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let said = psql(&harness, &conninfo(&keyway, &more), &[over_tls]).await?;
    assert_eq!(said.text.trim(), "t");
    assert!(before.rows("COMMIT").await?.is_empty());

    // A mode is a setting like any other.
    keyway.write_config(text("require"))?;
    assert!(reload(&keyway).await?.contains("tls: mode"));
    let said = psql(&harness, &conninfo(&keyway, "sslmode=disable"), &["SELECT 1"]).await?;
    assert!(said.text.contains("connections without TLS are not allowed"), "{}", said.text);
    assert_eq!(before.rows("SELECT 3").await?, ["3"]);
    Ok(())
}
