//! One primary and two replicas, unsharded, behind Keyway.

use std::sync::Arc;

use libtest_mimic::Trial;

use crate::harness::{Harness, Outcome, Shared};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![harness.test("single::writes_reach_the_primary", writes_reach_the_primary)]
}

async fn writes_reach_the_primary(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.single().await?;
    let client = fixture.client().await?;
    client.batch_execute("CREATE TABLE single_written (a int)").await?;
    client.execute("INSERT INTO single_written VALUES ($1)", &[&7i32]).await?;
    let primary = fixture.shard.primary.connect("plain").await?;
    let a: i32 = primary.query_one("SELECT a FROM single_written", &[]).await?.get(0);
    assert_eq!(a, 7);
    Ok(())
}
