//! Several Keyways behind one address: a cancel request that reaches the wrong one finds the right one.

use std::net::SocketAddr;
use std::sync::Arc;

use keyway::demo::postgres::Shard;
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use tokio::net::TcpListener;

use super::gate::{Gate, Mode};
use super::{request, running};
use crate::harness::wire::{Wire, cancel_request, query};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, SingleFixture, assert_hits,
    unsharded_config, until,
};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("cancel::peers_pass_a_foreign_key_on", peers_pass_a_foreign_key_on),
        harness.test("cancel::peers_that_name_each_other_make_no_loop", no_loop),
        harness.test("cancel::a_peer_that_is_no_keyway_is_done_no_harm", no_keyway),
        harness.test("cancel::more_than_cancels_max_are_dropped", more_than_cancels_max),
    ]
}

/// Instance `instance`, with `peers` as (instance, address).
async fn start(
    harness: &Shared,
    shard: &Shard,
    instance: u16,
    peers: &[(u16, SocketAddr)],
    limits: &str,
) -> Fallible<KeywayProcess> {
    let peers: Vec<String> = peers
        .iter()
        .map(|(instance, address)| format!("{{ instance = {instance}, address = \"{address}\" }}"))
        .collect();
    harness
        .start_keyway(|listen, admin| {
            format!(
                "instance = {instance}\npeers = [{}]\n{}[limits]\n{limits}\n",
                peers.join(", "),
                unsharded_config(shard, listen, admin)
            )
        })
        .await
}

/// A client with its BackendKeyData.
pub(super) async fn client(keyway: &KeywayProcess, version: u32) -> Fallible<(Wire, Vec<u8>)> {
    let mut wire = Wire::connect(keyway.listen()).await?;
    let parameters = [("user", USER), ("database", SingleFixture::DATABASE)];
    wire.send(&crate::harness::wire::startup(version, &parameters)).await?;
    wire.prove(APP_PASSWORD).await?;
    let greeting = wire.until('Z').await?;
    let key = greeting.iter().find(|it| it.tag == 'K').ok_or("no key")?.body.clone();
    Ok((wire, key))
}

async fn count(keyway: &KeywayProcess, result: &str) -> Fallible<u64> {
    let name = format!("keyway_cancels_total{{result=\"{result}\"}} ");
    let metrics = keyway.metrics().await?;
    let line = metrics.lines().find_map(|it| it.strip_prefix(&name)).ok_or("no such metric")?;
    Ok(line.parse()?)
}

async fn peers_pass_a_foreign_key_on(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let direct = fixture.shard.primary.connect(SingleFixture::DATABASE).await?;
    // Before the Keyways, which are told of each other at their start.
    let gates = [Gate::start(Mode::Pass).await?, Gate::start(Mode::Pass).await?];
    let peers = [(1, gates[0].address()), (2, gates[1].address())];
    let keyways = [
        start(&harness, &fixture.shard, 1, &peers, "").await?,
        start(&harness, &fixture.shard, 2, &peers, "").await?,
    ];
    gates.iter().zip(&keyways).for_each(|(gate, keyway)| gate.lead_to(keyway.listen()));
    for (round, (own, other)) in [(0, 1), (1, 0)].into_iter().enumerate() {
        for version in [196_608, 196_610] {
            let (mut wire, key) = client(&keyways[own], version).await?;
            let mark = format!("foreign key {round} {version}");
            wire.send(&query(&format!("DO $$ BEGIN PERFORM pg_sleep(600), '{mark}'; END $$"))).await?;
            until("it runs", || async { Ok(running(&direct, &mark).await? == 1) }).await?;
            let mut wrong = key.clone();
            *wrong.last_mut().ok_or("an empty key")? ^= 1;
            request(keyways[other].listen(), &wrong).await?;
            assert_eq!(running(&direct, &mark).await?, 1, "{mark}");
            request(keyways[other].listen(), &key).await?;
            let answer = wire.until('Z').await?;
            assert!(answer.iter().any(|it| it.error().starts_with("57014")), "{mark}: {answer:?}");
        }
    }
    for (gate, keyway) in gates.iter().zip(&keyways) {
        assert_eq!((gate.cancels(), count(keyway, "forwarded").await?), (4, 4));
        assert_eq!((count(keyway, "sent").await?, count(keyway, "unknown").await?), (2, 2));
    }
    Ok(())
}

/// Each takes the other for instance 3, which neither is.
async fn no_loop(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let gates = [Gate::start(Mode::Pass).await?, Gate::start(Mode::Pass).await?];
    let first = start(&harness, shard, 1, &[(3, gates[1].address())], "").await?;
    let second = start(&harness, shard, 2, &[(3, gates[0].address())], "").await?;
    gates[0].lead_to(first.listen());
    gates[1].lead_to(second.listen());
    let key = [(3u32 << 20 | 5).to_be_bytes(), [1, 2, 3, 4]].concat();
    // Returns only when the whole chain has ended.
    request(first.listen(), &key).await?;
    assert_eq!((gates[0].cancels(), gates[1].cancels()), (0, 1));
    assert_eq!((count(&first, "forwarded").await?, count(&first, "unknown").await?), (1, 0));
    assert_eq!((count(&second, "forwarded").await?, count(&second, "unknown").await?), (0, 1));
    Ok(())
}

/// A server at the peer's address takes the request for no cancel of its own, and the client is not kept.
async fn no_keyway(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let direct = shard.primary.connect(SingleFixture::DATABASE).await?;
    let keyway = start(&harness, shard, 1, &[(2, shard.primary.address().parse()?)], "").await?;
    let pid = direct.query_one("SELECT pg_backend_pid()", &[]).await?.get::<_, i32>(0);
    let key = [(2u32 << 20 | pid as u32 & 0xF_FFFF).to_be_bytes(), [0; 4]].concat();
    request(keyway.listen(), &key).await?;
    direct.query_one("SELECT 1", &[]).await?;
    let nobody = start(&harness, shard, 1, &[(2, closed_port().await?)], "").await?;
    request(nobody.listen(), &key).await?;
    assert_eq!(count(&nobody, "failed").await?, 1);
    Ok(())
}

async fn closed_port() -> Fallible<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

async fn more_than_cancels_max(harness: Arc<Shared>) -> Outcome {
    let shard = &harness.single().await?.shard;
    let gate = Gate::start(Mode::Hold).await?;
    let peers = [(2, gate.address())];
    let keyway = start(&harness, shard, 1, &peers, "cancels_max = 1").await?;
    gate.lead_to(keyway.listen());
    let (client, own) = client(&keyway, 196_608).await?;
    let foreign = [(2u32 << 20 | 5).to_be_bytes(), [1, 2, 3, 4]].concat();
    let mut held = Wire::connect(keyway.listen()).await?;
    held.send(&cancel_request(&foreign)).await?;
    until("one is under way", || async { Ok(gate.cancels() == 1) }).await?;
    assert!(keyway.metrics().await?.contains("keyway_cancels_in_flight 1\n"));
    // Closed at once, whoever is meant.
    request(keyway.listen(), &own).await?;
    assert_eq!(count(&keyway, "refused").await?, 1);
    assert_hits(&keyway, "cancels_max", 1).await?;
    assert_eq!(count(&keyway, "forwarded").await?, 0);
    // The canceller's socket closes when the peer has closed.
    gate.set(Mode::Pass);
    assert!(held.rest().await?.is_empty());
    assert_eq!(count(&keyway, "forwarded").await?, 1);
    drop(client);
    Ok(())
}
