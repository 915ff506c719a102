//! What TLS has to do with who a client is: channel binding and client certificates.

use std::path::Path;
use std::sync::Arc;

use keyway::config::{ServerTls, TlsMode};
use keyway::demo::postgres::SUPERUSER;
use keyway::demo::shop::USER;
use keyway::metrics::Registry;
use keyway::net::{Buffer, Connector, Dialled, Encryption, EndPoint, Stream, TlsMetrics, dial};
use libtest_mimic::Trial;

use super::certificates::{Authority, PairFiles};
use super::clients::{Files, config, conninfo};
use super::psql;
use crate::harness::wire::{message, startup};
use crate::harness::{Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture};

const DATABASE: &str = SingleFixture::DATABASE;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("tls::a_proof_can_be_bound_to_the_channel", a_proof_can_be_bound),
        harness.test("tls::a_binding_that_is_lost_on_the_way_is_noticed", a_binding_that_is_lost),
        harness.test("tls::certificates_of_clients_are_checked", certificates_of_clients),
        harness.test("tls::a_certificate_is_a_login", a_certificate_is_a_login),
        harness.test("tls::verify_full_wants_the_users_name", verify_full),
    ]
}

async fn a_proof_can_be_bound(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let users = "[users.by_md5]\nauth = \"md5\"\npassword = \"x\"\n";
    let keyway = harness.start_keyway(config(shard, &files.section("prefer", ""), users, "")).await?;
    for binding in ["disable", "prefer", "require"] {
        let more = format!("sslmode=require channel_binding={binding}");
        let said = psql(&harness, &conninfo(&keyway, &more), &["SELECT 'in'"]).await?;
        assert!(said.ok && said.text.contains("in"), "{binding}: {}", said.text);
        let wrong = psql(&harness, &conninfo(&keyway, &format!("{more} password=wrong")), &[]).await?;
        assert!(wrong.text.contains("password authentication failed"), "{}", wrong.text);
    }
    // The client itself refuses what cannot be bound.
    for more in
        ["sslmode=disable channel_binding=require", "sslmode=require channel_binding=require user=by_md5"]
    {
        let said = psql(&harness, &conninfo(&keyway, more), &["SELECT 1"]).await?;
        assert!(!said.ok && said.text.contains("channel binding"), "{more}: {}", said.text);
    }
    Ok(())
}

/// A client by hand, on TLS that does not look at the certificate.
struct ByHand {
    stream: Stream,
    buffer: Buffer,
    end_point: EndPoint,
}

impl ByHand {
    async fn connect(keyway: &KeywayProcess) -> Fallible<ByHand> {
        let tls = ServerTls { mode: TlsMode::Require, authorities: None, identity: None, is_direct: false };
        let connector = Connector::new(&tls, TlsMetrics::register(&Registry::default())?)?;
        let timeout = std::time::Duration::from_secs(30);
        let address = ("127.0.0.1", keyway.listen().port());
        let Dialled { mut stream, end_point } =
            dial(address, &connector, Encryption::Required, timeout).await?;
        stream.write_all(&startup(196_608, &[("user", USER), ("database", DATABASE)])).await?;
        let end_point = end_point.ok_or("a certificate that can be bound to")?;
        let mut it = ByHand { stream, buffer: Buffer::default(), end_point };
        let offered = it.message().await?;
        assert_eq!(offered, "R\u{0}\u{0}\u{0}\nSCRAM-SHA-256-PLUS\u{0}SCRAM-SHA-256\u{0}\u{0}");
        Ok(it)
    }

    /// Its tag and its body as text.
    async fn message(&mut self) -> Fallible<String> {
        let (tag, total) = keyway::net::read_message(&mut self.stream, &mut self.buffer, 65_536).await?;
        let body = String::from_utf8_lossy(&self.buffer.filled()[5..total]).into_owned();
        self.buffer.consume(total);
        Ok(format!("{}{body}", char::from(tag)))
    }

    async fn choose(&mut self, method: &str, first: &str) -> Fallible<String> {
        let mut body = format!("{method}\0").into_bytes();
        body.extend((first.len() as u32).to_be_bytes());
        body.extend(first.as_bytes());
        self.stream.write_all(&message('p', &body)).await?;
        self.message().await
    }
}

async fn a_binding_that_is_lost(harness: Arc<Shared>) -> Outcome {
    use base64::Engine;
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let keyway = harness.start_keyway(config(shard, &files.section("prefer", ""), "", "")).await?;
    let (plain, plus) = ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS");
    let wants = [
        (plain, "y,,n=,r=abc", "C28000", "SCRAM channel binding negotiation error"),
        (plain, "p=tls-server-end-point,,n=,r=abc", "C08P01", "malformed SCRAM message"),
        (plus, "n,,n=,r=abc", "C08P01", "malformed SCRAM message"),
        (plus, "y,,n=,r=abc", "C08P01", "malformed SCRAM message"),
        (plus, "p=tls-unique,,n=,r=abc", "C08P01", "unsupported SCRAM channel-binding type"),
        ("SCRAM-SHA-1", "n,,n=,r=abc", "C08P01", "invalid SASL authentication mechanism"),
    ];
    for (method, first, state, text) in wants {
        let answer = ByHand::connect(&keyway).await?.choose(method, first).await?;
        assert!(answer.starts_with('E') && answer.contains(state) && answer.contains(text), "{answer}");
    }
    // The hash of another certificate, as whoever stands in between would have it.
    for is_other in [true, false] {
        let mut client = ByHand::connect(&keyway).await?;
        let header = "p=tls-server-end-point,,";
        let challenge = client.choose(plus, &format!("{header}n=,r=abc")).await?;
        let nonce = challenge.split("r=").nth(1).and_then(|it| it.split(',').next()).ok_or("no nonce")?;
        let mut bound = [header.as_bytes(), client.end_point.bytes()].concat();
        if is_other {
            *bound.last_mut().ok_or("no hash")? ^= 1;
        }
        let engine = base64::engine::general_purpose::STANDARD;
        let (bound, proof) = (engine.encode(bound), engine.encode([0; 32]));
        let last = format!("c={bound},r={nonce},p={proof}");
        client.stream.write_all(&message('p', last.as_bytes())).await?;
        let answer = client.message().await?;
        let want =
            if is_other { "SCRAM channel binding check failed" } else { "password authentication failed" };
        assert!(answer.contains(want), "{answer}");
    }
    Ok(())
}

/// Certificates of clients, named after what is wrong with them.
struct Clients {
    good: PairFiles,
    other_name: PairFiles,
    foreign: PairFiles,
    expired: PairFiles,
}

impl Clients {
    fn new(files: &Files) -> Fallible<Clients> {
        let foreign = Authority::new("another")?;
        let write = |pair: super::certificates::Pair, name: &str| pair.write(files.dir.path(), name);
        Ok(Clients {
            good: write(files.authority.sign(&[], USER)?, "good")?,
            other_name: write(files.authority.sign(&[], "somebody")?, "other_name")?,
            foreign: write(foreign.sign(&[], USER)?, "foreign")?,
            expired: write(files.authority.sign_expired(&[], USER)?, "expired")?,
        })
    }
}

fn showing(pair: Option<&PairFiles>) -> String {
    let shown = |path: &Path| path.display().to_string();
    match pair {
        Some(it) => format!("sslmode=require sslcert={} sslkey={}", shown(&it.cert), shown(&it.key)),
        None => "sslmode=require".to_owned(),
    }
}

/// Logs in with psql, or is told `want`.
async fn check(harness: &Shared, keyway: &KeywayProcess, more: &str, want: Result<(), &str>) -> Fallible<()> {
    let said = psql(harness, &conninfo(keyway, more), &["SELECT 'in'"]).await?;
    match want {
        Ok(()) => assert!(said.ok, "{more}: {}", said.text),
        Err(part) => assert!(!said.ok && said.text.contains(part), "{more}: {}", said.text),
    }
    Ok(())
}

async fn certificates_of_clients(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let (clients, ca) = (Clients::new(&files)?, format!("ca = \"{}\"", files.path("ca.crt")));
    let keyway = harness.start_keyway(config(shard, &files.section("verify-ca", &ca), "", "")).await?;
    for pair in [&clients.good, &clients.other_name] {
        check(&harness, &keyway, &showing(Some(pair)), Ok(())).await?;
    }
    check(&harness, &keyway, &showing(None), Err("certificate required")).await?;
    check(&harness, &keyway, &showing(Some(&clients.foreign)), Err("unknown ca")).await?;
    check(&harness, &keyway, &showing(Some(&clients.expired)), Err("certificate expired")).await?;
    let plain = Err("connections without TLS are not allowed");
    check(&harness, &keyway, "sslmode=disable", plain).await?;
    // A certificate is no password.
    let wrong = format!("{} password=wrong", showing(Some(&clients.good)));
    check(&harness, &keyway, &wrong, Err("password authentication failed")).await?;
    // With a lesser mode none is needed, and a bad one is no better for that.
    let keyway = harness.start_keyway(config(shard, &files.section("require", &ca), "", "")).await?;
    check(&harness, &keyway, &showing(None), Ok(())).await?;
    check(&harness, &keyway, &showing(Some(&clients.foreign)), Err("unknown ca")).await?;
    // Nobody asks for one without `ca`.
    let keyway = harness.start_keyway(config(shard, &files.section("require", ""), "", "")).await?;
    check(&harness, &keyway, &showing(Some(&clients.foreign)), Ok(())).await.map_err(Into::into)
}

async fn a_certificate_is_a_login(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let (clients, ca) = (Clients::new(&files)?, format!("ca = \"{}\"", files.path("ca.crt")));
    // Servers want a password of the same user, which the configuration has.
    let users = format!("auth = \"cert\"\n[users.{SUPERUSER}]\nauth = \"cert\"\n");
    let keyway = harness.start_keyway(config(shard, &files.section("prefer", &ca), &users, "")).await?;
    check(&harness, &keyway, &format!("{} password=wrong", showing(Some(&clients.good))), Ok(())).await?;
    let needed = Err("connection requires a valid client certificate");
    check(&harness, &keyway, &showing(None), needed).await?;
    check(&harness, &keyway, "sslmode=disable", needed).await?;
    let of_user = format!("certificate authentication failed for user \"{USER}\"");
    check(&harness, &keyway, &showing(Some(&clients.other_name)), Err(&of_user)).await?;
    let as_other = format!("{} user={SUPERUSER}", showing(Some(&clients.good)));
    let of_other = format!("certificate authentication failed for user \"{SUPERUSER}\"");
    check(&harness, &keyway, &as_other, Err(&of_other)).await?;
    check(&harness, &keyway, &showing(Some(&clients.foreign)), Err("unknown ca")).await.map_err(Into::into)
}

async fn verify_full(harness: Arc<Shared>) -> Outcome {
    let (files, shard) = (Files::new(&harness)?, &harness.single().await?.shard);
    let (clients, ca) = (Clients::new(&files)?, format!("ca = \"{}\"", files.path("ca.crt")));
    let keyway = harness.start_keyway(config(shard, &files.section("verify-full", &ca), "", "")).await?;
    check(&harness, &keyway, &showing(Some(&clients.good)), Ok(())).await?;
    let of_user = format!("certificate authentication failed for user \"{USER}\"");
    check(&harness, &keyway, &showing(Some(&clients.other_name)), Err(&of_user)).await?;
    // Who does not know the password learns nothing of names.
    let wrong = format!("{} password=wrong", showing(Some(&clients.other_name)));
    check(&harness, &keyway, &wrong, Err("password authentication failed")).await.map_err(Into::into)
}
