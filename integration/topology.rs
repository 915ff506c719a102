//! Roles and lag as real servers show them to the probers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway::base::Role;
use keyway::demo::postgres::Server;
use keyway::route::{Cluster, Excluded, Freshness};
use libtest_mimic::Trial;

use crate::harness::{APP_PASSWORD, Fallible, Harness, Outcome, Shared, Watched};

const TIMEOUT: Duration = Duration::from_secs(30);
const USER: &str = "app";
const DATABASE: &str = "plain";
const FIT: Freshness = Freshness { max_lag: Duration::from_secs(1), floor: None, seen: None, seen_on: None };

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("topology::lag_follows_replay", lag_follows_replay),
        harness.test("topology::a_promotion_moves_the_primary", a_promotion_moves_the_primary),
        harness.test("topology::a_frozen_server_loses_its_role", a_frozen_server_loses_its_role),
        harness
            .test("topology::a_user_without_the_functions_finds_a_primary", a_user_finds_a_primary_at_least),
    ]
}

const PRIMARY: Option<Role> = Some(Role::Primary);
const REPLICA: Option<Role> = Some(Role::Replica);

fn is_fit(cluster: &Cluster) -> bool {
    cluster.shards[0].replica(FIT, Excluded::default(), 0, Instant::now()).is_some()
}

async fn with_database(primary: &Server) -> Fallible<()> {
    Ok(primary.create_database(DATABASE, USER, APP_PASSWORD).await?)
}

async fn lag_follows_replay(harness: Arc<Shared>) -> Outcome {
    let own = harness.fresh_shard(1).await?;
    let (primary, replica) = (&own.shard.primary, &own.shard.replicas[0]);
    with_database(primary).await?;
    let watched = Watched::start(&own.shard).await?;
    watched.until_roles(&[PRIMARY, REPLICA]).await?;
    watched.until("fit while idle", is_fit).await?;

    replica.pause_replay().await?;
    primary.query_text("CREATE TABLE t (a int)").await?;
    replica.wait_until_received(primary).await?;
    let paused_at = Instant::now();
    watched.until("unfit while paused", |it| !is_fit(it)).await?;
    let behind = watched.topology.snapshot().shards[0].servers[1].clone();
    assert_eq!(behind.role, REPLICA);
    assert!(behind.lag(Instant::now()).is_some_and(|it| it > FIT.max_lag), "known, and too much: {behind:?}");
    assert!(behind.fresh_as_of.is_some_and(|it| it < paused_at), "{behind:?}");
    assert!(behind.lag_bytes.is_some_and(|it| it > 0), "{behind:?}");
    let text = watched.registry.text()?;
    let lag = text
        .lines()
        .find(|it| it.starts_with("keyway_replica_lag_seconds") && it.contains(&*replica.address()));
    assert!(lag.is_some_and(|it| !it.ends_with("NaN")), "{text}");

    replica.resume_replay().await?;
    let replayed = |it: &Cluster| it.shards[0].servers[1].fresh_as_of.is_some_and(|it| it > paused_at);
    watched.until("fit again", |it| is_fit(it) && replayed(it)).await?;
    Ok(())
}

async fn a_promotion_moves_the_primary(harness: Arc<Shared>) -> Outcome {
    let mut own = harness.fresh_shard(2).await?;
    with_database(&own.shard.primary).await?;
    own.shard.wait_until_replayed().await?;
    let watched = Watched::start(&own.shard).await?;
    watched.until_roles(&[PRIMARY, REPLICA, REPLICA]).await?;
    let mut changes = watched.topology.changes();

    own.shard.primary.kill().await?;
    watched.until_roles(&[None, REPLICA, REPLICA]).await?;
    tokio::time::timeout(TIMEOUT, changes.changed()).await??;
    own.shard.replicas[0].promote().await?;
    watched.until_roles(&[None, PRIMARY, REPLICA]).await?;
    let orphan = |it: &Cluster| it.shards[0].servers[2].clone();
    watched
        .until("the other replica still follows the old one", |it| {
            orphan(it).fresh_as_of.is_none() && orphan(it).problem.is_some_and(|it| it.contains("timeline 2"))
        })
        .await?;

    own.shard.primary.start().await?;
    watched
        .until("the old primary answers and is fenced", |it| {
            let old = &it.shards[0].servers[0];
            old.role.is_none() && old.problem.as_ref().is_some_and(|it| it.contains("fenced"))
        })
        .await?;
    assert_eq!(watched.topology.snapshot().shards[0].servers[1].role, PRIMARY);
    own.shard.replicas[0].kill().await?;
    watched.until("the new primary is gone", |it| it.shards[0].servers[1].role.is_none()).await?;
    assert_eq!(watched.topology.snapshot().shards[0].servers[0].role, None, "fenced for good");
    Ok(())
}

async fn a_frozen_server_loses_its_role(harness: Arc<Shared>) -> Outcome {
    let own = harness.fresh_shard(1).await?;
    with_database(&own.shard.primary).await?;
    own.shard.wait_until_replayed().await?;
    let watched = Watched::start(&own.shard).await?;
    watched.until_roles(&[PRIMARY, REPLICA]).await?;
    own.shard.primary.freeze()?;
    watched.until_roles(&[None, REPLICA]).await?;
    own.shard.primary.thaw()?;
    watched.until_roles(&[PRIMARY, REPLICA]).await?;
    watched.until("fit again", is_fit).await?;
    Ok(())
}

async fn a_user_finds_a_primary_at_least(harness: Arc<Shared>) -> Outcome {
    let own = harness.fresh_shard(1).await?;
    with_database(&own.shard.primary).await?;
    let admin = own.shard.primary.connect(DATABASE).await?;
    admin.batch_execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC").await?;
    own.shard.wait_until_replayed().await?;
    let watched = Watched::start(&own.shard).await?;
    watched.until_roles(&[PRIMARY, REPLICA]).await?;
    watched
        .until("unfit, and it says why", |it| {
            let replica = &it.shards[0].servers[1];
            replica.problem.as_ref().is_some_and(|it| it.contains("pg_control_checkpoint"))
        })
        .await?;
    assert!(!is_fit(&watched.topology.snapshot()));
    Ok(())
}
