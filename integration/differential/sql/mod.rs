//! The same SQL to one PostgreSQL and through Keyway, on 1, 2 and 4 shards that hold the same rows between
//! them. A refusal is allowed and counted, a difference never.
//!
//! `make differential SEED=7 N=20000` runs more of the random statements than `make test` does.

mod answer;
mod cluster;
mod random;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;

use self::answer::Case;
use self::cluster::{Cluster, Pair};
use self::random::Generator;
use self::report::{Report, Verdict};
use crate::harness::{Fallible, Harness, Outcome, Shared, TEST_TIMEOUT};

const STATEMENTS: &str = "integration/differential/statements";
const FILES: [&str; 5] = ["shop.sql", "pgbench.sql", "tenants.sql", "writes.sql", "repro.sql"];
const WRITTEN_MIN: usize = 400;
/// Of the written statements, in percent.
const REFUSED_MAX: usize = 15;
const RANDOM_DEFAULT: u64 = 600;
const COUNT: &str = "KEYWAY_STATEMENTS";
const SHOWN_MAX: usize = 40;

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("differential::sql_written", written),
        harness.test_within(random_limit(), "differential::sql_random", at_random),
    ]
}

async fn written(harness: Arc<Shared>) -> Outcome {
    let mut cases = Vec::new();
    for file in FILES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(STATEMENTS).join(file);
        cases.extend(answer::read_cases(file, &std::fs::read_to_string(path)?));
    }
    assert!(cases.len() >= WRITTEN_MIN, "{} statements, at least {WRITTEN_MIN} expected", cases.len());
    let cluster = Cluster::start(&harness).await?;
    for pair in &cluster.pairs {
        let report = run(&cluster, pair, &cases).await?;
        println!("{}: {report}", pair.name());
        let differences = report.differences(SHOWN_MAX);
        assert!(differences.is_empty(), "{}: {report}\n{differences}", pair.name());
        let refused = report.refused() * 100 / cases.len();
        assert!(refused < REFUSED_MAX, "{}: {refused} % are refused\n{report}", pair.name());
    }
    Ok(())
}

fn number(name: &str, default: u64) -> Fallible<u64> {
    Ok(std::env::var(name).ok().filter(|it| !it.is_empty()).map_or(Ok(default), |it| it.parse())?)
}

/// A tenth of a second for each statement more than usual, on three databases and as many to compare with.
fn random_limit() -> Duration {
    let count = number(COUNT, RANDOM_DEFAULT).unwrap_or(RANDOM_DEFAULT);
    TEST_TIMEOUT + Duration::from_millis(100 * count.saturating_sub(RANDOM_DEFAULT))
}

async fn at_random(harness: Arc<Shared>) -> Outcome {
    let (seed, count) = (number("KEYWAY_SEED", 1)?, number(COUNT, RANDOM_DEFAULT)?);
    let cluster = Cluster::start(&harness).await?;
    for pair in &cluster.pairs {
        let mut generator = Generator::new(seed);
        let cases: Vec<Case> = (0..count).map(|_| generator.case()).collect();
        let report = run(&cluster, pair, &cases).await?;
        println!("{}, seed {seed}: {report}", pair.name());
        let differences = report.differences(SHOWN_MAX);
        assert!(differences.is_empty(), "{}, seed {seed}: {report}\n{differences}", pair.name());
        assert!(report.answered() > 0, "{}: nothing was answered", pair.name());
    }
    Ok(())
}

async fn run(cluster: &Cluster, pair: &Pair, cases: &[Case]) -> Fallible<Report> {
    let mut sessions = pair.sessions().await?;
    let mut report = Report::default();
    for case in cases {
        let (verdict, lost) = sessions.compare(case).await?;
        let wrote = case.writes() && verdict == Verdict::Answered;
        report.add(case, verdict);
        if lost {
            sessions = pair.sessions().await?;
        }
        if wrote && let Some(difference) = cluster.difference_of_rows(pair).await? {
            report.add(case, Verdict::Different(difference));
            // Nothing after it could be compared.
            break;
        }
    }
    Ok(report)
}
