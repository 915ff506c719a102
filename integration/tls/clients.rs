//! Towards clients: whether there is TLS, and how it begins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyway::demo::postgres::{Shard, WorkDir};
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::process::Command;

use super::certificates::Authority;
use super::{drivers, metric, psql, python, run};
use crate::harness::wire::{Wire, startup};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, assert_hits, until,
};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("tls::each_mode_meets_each_sslmode", each_mode_meets_each_sslmode),
        harness.test("tls::a_client_that_verifies_sees_who_it_talks_to", a_client_that_verifies),
        harness.test("tls::direct_tls_needs_alpn", direct_tls),
        harness.test("tls::what_is_sent_ahead_of_the_answer_is_refused", what_is_sent_ahead),
        harness.test("tls::rubbish_and_silence_cost_only_themselves", rubbish_and_silence),
        harness.test("tls::the_lowest_version_is_kept", the_lowest_version),
        harness.test("tls::a_driver_notices_nothing", a_driver_notices_nothing),
        harness.test("tls::an_idle_client_holds_no_buffers", an_idle_client_holds_no_buffers),
    ]
}

/// A certificate for `localhost` and 127.0.0.1, by an authority that is in `ca.crt`.
pub struct Files {
    pub dir: WorkDir,
    pub authority: Authority,
}

impl Files {
    pub fn new(harness: &Shared) -> Fallible<Files> {
        let (dir, authority) = (harness.fresh_dir()?, Authority::new("tests")?);
        authority.write(dir.path(), "ca.crt")?;
        authority.sign(&["localhost", "127.0.0.1"], "keyway")?.write(dir.path(), "server")?;
        Ok(Files { dir, authority })
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// The section `[tls]`; `more` is further lines of it.
    pub fn section(&self, mode: &str, more: &str) -> String {
        let (cert, key) = (self.path("server.crt"), self.path("server.key"));
        format!("[tls]\nmode = \"{mode}\"\ncert = \"{cert}\"\nkey = \"{key}\"\n{more}\n")
    }
}

/// Database `plain` on `shard`. `tls` is whole sections, `users` too; `database` is lines of the database's.
pub fn config(
    shard: &Shard,
    tls: &str,
    users: &str,
    database: &str,
) -> impl Fn(&str, &str) -> String + use<> {
    let servers: Vec<String> = shard.servers().map(|it| format!("\"{}\"", it.address())).collect();
    let servers = servers.join(", ");
    let sections = format!(
        "{tls}\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n{users}\n\
         [databases.{DATABASE}]\nservers = [{servers}]\n{database}\n"
    );
    move |listen, admin| format!("listen = \"{listen}\"\nadmin = \"{admin}\"\n{sections}")
}

/// For the application's user, to which `more` is added.
pub fn conninfo(keyway: &KeywayProcess, more: &str) -> String {
    let port = keyway.listen().port();
    format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={USER} password={APP_PASSWORD} dbname={DATABASE} {more}"
    )
}

/// psql's word for TLS in `\conninfo`.
const ENCRYPTED: &str = "SSL connection (protocol: TLSv1.";

async fn each_mode_meets_each_sslmode(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let (plain, tls, refused) = ("connected", ENCRYPTED, "");
    let modes = [
        ("disable", [("disable", plain), ("allow", plain), ("prefer", plain), ("require", refused)]),
        ("allow", [("disable", plain), ("allow", plain), ("prefer", tls), ("require", tls)]),
        ("prefer", [("disable", plain), ("allow", plain), ("prefer", tls), ("require", tls)]),
        ("require", [("disable", refused), ("allow", tls), ("prefer", tls), ("require", tls)]),
    ];
    for (mode, clients) in modes {
        let keyway = harness.start_keyway(config(shard, &files.section(mode, ""), "", "")).await?;
        for (sslmode, want) in clients {
            let conninfo = conninfo(&keyway, &format!("sslmode={sslmode}"));
            let said = psql(&harness, &conninfo, &["\\conninfo", "SELECT 'answer'"]).await?;
            let place = format!("{mode} and {sslmode}: {}", said.text);
            assert_eq!(said.ok, want != refused, "{place}");
            assert_eq!(said.text.contains(ENCRYPTED), want == tls, "{place}");
            assert_eq!(said.text.contains("answer"), want != refused, "{place}");
        }
        if mode == "require" {
            let said = psql(&harness, &conninfo(&keyway, "sslmode=disable"), &[]).await?;
            assert!(said.text.contains("connections without TLS are not allowed"), "{}", said.text);
            let mut wire = Wire::connect(keyway.listen()).await?;
            wire.send(&startup(196_608, &[("user", USER), ("database", DATABASE)])).await?;
            let error = wire.message().await?;
            assert_eq!(error.error(), "28000 connections without TLS are not allowed");
            assert!(error.field('H').is_some_and(|it| it.contains("sslmode=require")));
        }
    }
    Ok(())
}

async fn a_client_that_verifies(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let other = Authority::new("another")?;
    let wrong_ca = other.write(files.dir.path(), "other.crt")?.display().to_string();
    let ca = files.path("ca.crt");
    let expired = files.authority.sign_expired(&["localhost"], "keyway")?;
    let renamed = files.authority.sign(&["db.example.com"], "keyway")?;
    let checks = async |keyway: &KeywayProcess, wants: &[(&str, &str, bool)]| {
        for (sslmode, ca, want) in wants {
            let conninfo = conninfo(keyway, &format!("sslmode={sslmode} sslrootcert={ca}"));
            let said = psql(&harness, &conninfo, &["SELECT 1"]).await?;
            assert_eq!(said.ok, *want, "{sslmode} {ca}: {}", said.text);
        }
        Fallible::Ok(())
    };
    let start = async || harness.start_keyway(config(shard, &files.section("prefer", ""), "", "")).await;
    let keyway = start().await?;
    let good = [("verify-ca", &*ca, true), ("verify-full", &ca, true), ("verify-ca", &wrong_ca, false)];
    checks(&keyway, &good).await?;
    expired.write(files.dir.path(), "server")?;
    checks(&start().await?, &[("verify-ca", &ca, false), ("require", &wrong_ca, false)]).await?;
    renamed.write(files.dir.path(), "server")?;
    checks(&start().await?, &[("verify-ca", &ca, true), ("verify-full", &ca, false)])
        .await
        .map_err(Into::into)
}

/// Without ALPN, by hand; what Keyway has to say comes through TLS.
const DIRECT_BY_HAND: &str = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
if sys.argv[3]:
    context.set_alpn_protocols([sys.argv[3]])
with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as tcp:
    with context.wrap_socket(tcp, server_hostname='localhost') as tls:
        print(tls.selected_alpn_protocol(), tls.recv(1000))
";

const CONNECT: &str = "
import psycopg, sys
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    print(psycopg.pq.version() >= 180000, connection.execute('SELECT 42').fetchone())
";

async fn direct_tls(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let ca = files.path("ca.crt");
    let keyway = harness.start_keyway(config(shard, &files.section("prefer", ""), "", "")).await?;
    for sslmode in ["require", "verify-full"] {
        let more =
            format!("sslnegotiation=direct sslmode={sslmode} sslrootcert={ca} channel_binding=require");
        let said = python(CONNECT, &[&conninfo(&keyway, &more)]).await?;
        assert_eq!(said.text.trim(), "True (42,)");
    }
    let port = keyway.listen().port().to_string();
    let said = python(DIRECT_BY_HAND, &[&port, &ca, ""]).await?;
    assert!(said.text.contains("None b'E"), "{}", said.text);
    assert!(said.text.contains("C08P01") && said.text.contains("without ALPN"), "{}", said.text);
    let said = python(DIRECT_BY_HAND, &[&port, &ca, "http/1.1"]).await?;
    assert!(!said.ok && said.text.contains("no application protocol"), "{}", said.text);
    let off = harness.start_keyway(config(shard, "", "", "")).await?;
    let more = "sslnegotiation=direct sslmode=require";
    let said = python(CONNECT, &[&conninfo(&off, more)]).await?;
    assert!(!said.ok, "{}", said.text);
    Ok(())
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

async fn what_is_sent_ahead(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let keyway = harness.start_keyway(config(shard, &files.section("prefer", ""), "", "")).await?;
    let mut wire = Wire::connect(keyway.listen()).await?;
    let ahead = startup(196_608, &[("user", USER), ("database", DATABASE)]);
    wire.send(&[&SSL_REQUEST[..], &ahead].concat()).await?;
    assert_eq!(wire.message().await?.error(), "08P01 received unencrypted data after SSL request");
    assert!(wire.rest().await?.is_empty());
    Ok(())
}

/// Asked for TLS, and told that there is.
async fn asked(address: SocketAddr) -> Fallible<Wire> {
    let mut wire = Wire::connect(address).await?;
    wire.send(&SSL_REQUEST).await?;
    assert_eq!(wire.bytes(1).await?, b"S");
    Ok(wire)
}

async fn rubbish_and_silence(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let limits = "[limits]\nlogin_timeout = \"1s\"\n";
    let section = format!("{limits}{}", files.section("prefer", ""));
    let keyway = harness.start_keyway(config(shard, &section, "", "")).await?;
    // A startup packet in clear text where a handshake has to come is rubbish too.
    let packet = startup(196_608, &[("user", USER), ("database", DATABASE)]);
    for rubbish in [&b"rubbish that goes on for a while"[..], &packet, b"\x16\x03\x01\x00\x04abcd"] {
        let mut wire = asked(keyway.listen()).await?;
        wire.send(rubbish).await?;
        let rest = wire.rest().await?;
        assert!(rest.first().is_none_or(|it| *it == 0x15), "an alert of TLS or nothing: {rest:?}");
    }
    let failed = "keyway_tls_handshakes_total{result=\"failed\",side=\"client\"}";
    assert_eq!(metric(&keyway.metrics().await?, failed), 3.0);
    // Silence after the answer, half a handshake, and half a handshake at once.
    let mut silent = asked(keyway.listen()).await?;
    let mut half = asked(keyway.listen()).await?;
    half.send(b"\x16\x03\x01\x02\x00\x01").await?;
    let mut direct = Wire::connect(keyway.listen()).await?;
    direct.send(b"\x16\x03\x01\x02\x00\x01").await?;
    for wire in [&mut silent, &mut half, &mut direct] {
        let rest = wire.rest().await?;
        assert!(rest.is_empty(), "nothing in clear text on a connection that was to be TLS: {rest:?}");
    }
    let text = keyway.metrics().await?;
    assert_hits(&keyway, "login_timeout", 3).await?;
    assert_eq!(metric(&text, failed), 6.0);
    let said = psql(&harness, &conninfo(&keyway, "sslmode=require"), &["SELECT 'served'"]).await?;
    assert!(said.text.contains("served"), "{}", said.text);
    Ok(())
}

async fn the_lowest_version(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let newest = "ssl_max_protocol_version=TLSv1.2 sslmode=require";
    for (min, want) in [("1.2", true), ("1.3", false)] {
        let section = files.section("require", &format!("min_version = \"{min}\""));
        let keyway = harness.start_keyway(config(shard, &section, "", "")).await?;
        let said = psql(&harness, &conninfo(&keyway, newest), &["\\conninfo"]).await?;
        assert_eq!(said.ok, want, "{}", said.text);
        assert_eq!(said.text.contains("protocol: TLSv1.2"), want, "{}", said.text);
        let said = psql(&harness, &conninfo(&keyway, "sslmode=require"), &["\\conninfo"]).await?;
        assert!(said.text.contains("TLSv1.3"), "{}", said.text);
    }
    Ok(())
}

/// All that psycopg is put through without TLS: COPY, large results, pipelines, cancel.
async fn a_driver_notices_nothing(harness: Arc<Shared>) -> Outcome {
    // The script makes tables under names of its own, which the shared server has from its run without TLS.
    let (files, own) = (Files::new(&harness)?, harness.fresh_shard(0).await?);
    own.shard.primary.create_database(DATABASE, USER, APP_PASSWORD).await?;
    let keyway = harness.start_keyway(config(&own.shard, &files.section("prefer", ""), "", "")).await?;
    let mut command = Command::new(drivers().join(".venv/bin/python"));
    let url = format!("{}?sslmode=require", keyway.url(USER, APP_PASSWORD, DATABASE));
    command.arg(drivers().join("with_psycopg.py")).arg(url);
    let said = run(command).await?;
    let checks = said.text.lines().last().and_then(|it| it.strip_prefix("checks: ")?.parse::<u32>().ok());
    assert!(said.ok && checks >= Some(650), "{}", said.text);
    Ok(())
}

const CLIENTS: u64 = 300;

const IDLE: &str = "
import psycopg, sys
connections = [psycopg.connect(sys.argv[1], autocommit=True) for _ in range(int(sys.argv[2]))]
for connection in connections:
    connection.execute('SELECT repeat(%s, 20000)', ['x']).fetchall()
print('connected', flush=True)
sys.stdin.read()
";

async fn an_idle_client_holds_no_buffers(harness: Arc<Shared>) -> Outcome {
    use tokio::io::AsyncBufReadExt;
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let keyway = harness.start_keyway(config(shard, &files.section("require", ""), "", "")).await?;
    let warm = psql(&harness, &conninfo(&keyway, "sslmode=require"), &["SELECT 1"]).await?;
    assert!(warm.ok, "{}", warm.text);
    let before = keyway.resident_kb()?;
    let mut command = Command::new(drivers().join(".venv/bin/python"));
    command.args(["-c", IDLE, &conninfo(&keyway, "sslmode=require"), &CLIENTS.to_string()]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or("no output")?;
    let mut lines = tokio::io::BufReader::new(stdout).lines();
    let connected = tokio::time::timeout(Duration::from_secs(120), lines.next_line()).await??;
    assert_eq!(connected.as_deref(), Some("connected"));
    until("all are counted", async || {
        let text = keyway.metrics().await?;
        Ok(metric(&text, "keyway_tls_clients") == CLIENTS as f64)
    })
    .await?;
    let each_kb = keyway.resident_kb()?.saturating_sub(before) / CLIENTS;
    // The goal is 20 kB in a release build with thousands; buffers would be 32 kB and more.
    assert!(each_kb < 30, "{each_kb} kB for each idle client");
    drop(child.stdin.take());
    child.wait().await?;
    until("none is left", async || Ok(metric(&keyway.metrics().await?, "keyway_tls_clients") == 0.0))
        .await
        .map_err(Into::into)
}
