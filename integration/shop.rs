//! The sample shop behind Keyway: rows are where the maps say.

use std::sync::Arc;

use keyway::demo::shop;
use libtest_mimic::Trial;

use crate::harness::{Harness, Outcome, Shared};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("shop::rows_are_spread_and_none_is_lost", rows_are_spread_and_none_is_lost),
        harness.test("shop::http_serves_metrics_and_a_page", http_serves_metrics_and_a_page),
    ]
}

async fn rows_are_spread_and_none_is_lost(harness: Arc<Shared>) -> Outcome {
    let fixture = harness.shop().await?;
    let mut users = Vec::new();
    for shard in &fixture.shop.shards {
        let client = shard.primary.connect(shop::DATABASE).await?;
        let count: i64 =
            client.query_one("SELECT count(*) FROM users WHERE user_id <= $1", &[&shop::USERS]).await?.get(0);
        assert!(count > shop::USERS / 3, "{} has {count} users of {}", shard.name, shop::USERS);
        users.push(count);
        let countries: i64 = client.query_one("SELECT count(*) FROM countries", &[]).await?.get(0);
        assert_eq!(countries, 6, "a reference table is on {}", shard.name);
    }
    assert_eq!(users.iter().sum::<i64>(), shop::USERS);
    Ok(())
}

async fn http_serves_metrics_and_a_page(harness: Arc<Shared>) -> Outcome {
    let keyway = &harness.shop().await?.keyway;
    let metrics = keyway.metrics().await?;
    assert!(metrics.lines().any(|it| it.starts_with("# TYPE keyway_")), "{metrics}");
    for shard in ["s1", "s2"] {
        assert!(metrics.contains(&format!("shard=\"{shard}\"")), "{metrics}");
    }
    let (status, page) = keyway.http("/").await?;
    assert!(status == 200 && page.contains("<html"), "{page}");
    assert_eq!(keyway.http("/nothing").await?.0, 404);
    Ok(())
}
