//! Hotspots as metrics: filled from a report when somebody scrapes. Keys are data and are no labels: a series says
//! which rank a key has, and where it is. What the report has no more has no series any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::GaugeVec;

use crate::hotspot::{Bounds, Dimension, Heat, KeyReport, MapReport, Report, Skew};
use crate::metrics::{RegisterError, Registry};

/// Keys by rank, of each map.
const RANKS_MAX: usize = 10;

/// What `MapReport::top_shares` is of.
const TOPS: [&str; 3] = ["1", "10", "100"];

/// The families, made once for all databases.
#[derive(Clone)]
pub struct HotspotMetricFamilies {
    max_over_mean: Family,
    variation: Family,
    gini: Family,
    /// Lower and upper bounds.
    keys: [Family; 2],
    tops: [Family; 2],
    distinct_keys: Family,
    direction: Family,
    scatter_ratio: Family,
    hot: Family,
}

/// One family with what it has series of, by database.
#[derive(Clone)]
struct Family {
    gauges: GaugeVec,
    series: Arc<Mutex<HashMap<String, HashSet<Vec<String>>>>>,
}

/// Label values behind the database, and what is measured.
type Sample = (Vec<String>, f64);

impl HotspotMetricFamilies {
    pub fn register(registry: &Registry) -> Result<HotspotMetricFamilies, RegisterError> {
        let of = |name: &str, help: &str, labels: &[&str]| {
            let gauges = registry.float_gauges(name, help, labels)?;
            Ok::<_, RegisterError>(Family { gauges, series: Arc::default() })
        };
        let skew = ["database", "map", "dimension"];
        let key = ["database", "map", "rank", "shard"];
        let (top, map) = (["database", "map", "top"], ["database", "map"]);
        Ok(HotspotMetricFamilies {
            max_over_mean: of(
                "keyway_skew_max_over_mean",
                "Load of the busiest shard over the mean of those that own a part of the map: 1 is even.",
                &skew,
            )?,
            variation: of(
                "keyway_skew_variation",
                "Standard deviation of the shards' load over its mean: 0 is even.",
                &skew,
            )?,
            gini: of(
                "keyway_skew_gini",
                "Gini coefficient of the shards' load, from 0 (even) to 1 (one shard has all).",
                &skew,
            )?,
            keys: [
                of(
                    "keyway_hot_key_share_lower",
                    "Share of the map's calls that the key of this rank has at least.",
                    &key,
                )?,
                of(
                    "keyway_hot_key_share_upper",
                    "Share of the map's calls that the key of this rank has at most.",
                    &key,
                )?,
            ],
            tops: [
                of(
                    "keyway_top_keys_share_lower",
                    "Share of the map's calls that its hottest 1, 10 or 100 keys have at least.",
                    &top,
                )?,
                of(
                    "keyway_top_keys_share_upper",
                    "Share of the map's calls that its hottest 1, 10 or 100 keys have at most.",
                    &top,
                )?,
            ],
            distinct_keys: of(
                "keyway_distinct_keys",
                "Different keys that statements have named, estimated.",
                &map,
            )?,
            direction: of(
                "keyway_access_direction",
                "From -1 (each key below the one before) to 1 (each above): near 1, keys are handed out in order.",
                &map,
            )?,
            scatter_ratio: of(
                "keyway_scatter_ratio",
                "Share of the map's calls that went to several shards.",
                &map,
            )?,
            hot: of(
                "keyway_hot",
                "0 cool, 1 hot (a shard or a range carries far more than its part), 2 hot by one key; with the shard or the map that it is of.",
                &["database", "map", "shard"],
            )?,
        })
    }

    /// Makes the series of `database` what `report` says. One caller at a time and family; cheap: for scrapes.
    pub fn observe(&self, database: &str, report: &Report) {
        let maps = || report.maps.iter();
        self.max_over_mean.set(database, skews(report, |it| it.max_over_mean));
        self.variation.set(database, skews(report, |it| it.variation));
        self.gini.set(database, skews(report, |it| it.gini));
        for (family, bound) in self.keys.iter().zip([lower, upper]) {
            family.set(database, maps().flat_map(|it| keys(it, report, bound)).collect());
        }
        for (family, bound) in self.tops.iter().zip([lower, upper]) {
            family.set(database, maps().flat_map(|it| tops(it, bound)).collect());
        }
        let of = |value: fn(&MapReport) -> f64| maps().map(|it| (vec![it.map.clone()], value(it))).collect();
        self.distinct_keys.set(database, of(|it| it.distinct_keys));
        self.scatter_ratio.set(database, of(|it| it.scatter_ratio));
        let directions = maps().filter_map(|it| Some((vec![it.map.clone()], it.direction?)));
        self.direction.set(database, directions.collect());
        let shards = report.shards.iter().map(|it| (vec![String::new(), it.shard.clone()], degree(it.heat)));
        let hot_maps = maps().map(|it| (vec![it.map.clone(), String::new()], degree(it.heat)));
        self.hot.set(database, shards.chain(hot_maps).collect());
    }

    /// Of a database that is gone.
    pub fn forget(&self, database: &str) {
        self.observe(database, &Report::default());
    }
}

impl Family {
    fn set(&self, database: &str, samples: Vec<Sample>) {
        let mut series = self.series.lock();
        let before = series.remove(database).unwrap_or_default();
        let mut now = HashSet::with_capacity(samples.len());
        for (labels, value) in samples {
            self.gauges.with_label_values(&with_database(database, &labels)).set(value);
            now.insert(labels);
        }
        for gone in before.difference(&now) {
            let _ = self.gauges.remove_label_values(&with_database(database, gone));
        }
        if !now.is_empty() {
            series.insert(database.to_owned(), now);
        }
    }
}

fn with_database<'a>(database: &'a str, labels: &'a [String]) -> Vec<&'a str> {
    std::iter::once(database).chain(labels.iter().map(String::as_str)).collect()
}

fn lower(it: &Bounds) -> f64 {
    it.lower
}

fn upper(it: &Bounds) -> f64 {
    it.upper
}

fn skews(report: &Report, value: fn(&Skew) -> f64) -> Vec<Sample> {
    let of = |map: &MapReport| {
        let name = map.map.clone();
        let skews = Dimension::ALL.into_iter().zip(map.skews);
        skews.map(move |(it, skew)| (vec![name.clone(), it.label().to_owned()], value(&skew)))
    };
    report.maps.iter().flat_map(of).collect()
}

fn keys(map: &MapReport, report: &Report, bound: fn(&Bounds) -> f64) -> Vec<Sample> {
    let shard = |index: u16| report.shards.get(usize::from(index)).map_or("", |it| &it.shard).to_owned();
    let of = |(rank, it): (usize, &KeyReport)| {
        (vec![map.map.clone(), rank.to_string(), shard(it.shard.0)], bound(&it.calls_share))
    };
    (1..).zip(&map.keys).take(RANKS_MAX).map(of).collect()
}

fn tops(map: &MapReport, bound: fn(&Bounds) -> f64) -> Vec<Sample> {
    let shares = &map.top_shares[Dimension::Calls as usize];
    let of = |(top, it): (&str, &Bounds)| (vec![map.map.clone(), top.to_owned()], bound(it));
    TOPS.into_iter().zip(shares).map(of).collect()
}

fn degree(heat: Heat) -> f64 {
    match heat {
        Heat::Cool => 0.0,
        Heat::Warning => 1.0,
        Heat::Danger => 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ShardId;
    use crate::hotspot::ShardReport;

    fn key(rank: u16, shard: u16, lower: f64) -> KeyReport {
        KeyReport {
            rank,
            hash: 0xFEED,
            text: Some("alice@example.org".into()),
            table: None,
            shard: ShardId(shard),
            part: 17,
            calls: Bounds { lower: 100.0, upper: 120.0 },
            reads: Bounds { lower: 90.0, upper: 110.0 },
            writes: Bounds { lower: 10.0, upper: 10.0 },
            time_us: Bounds::default(),
            calls_share: Bounds { lower, upper: lower + 0.01 },
            time_share: Bounds::default(),
            heat: Heat::Danger,
            hot_since_s: Some(1),
        }
    }

    fn report() -> Report {
        let shard = |name: &str, heat| ShardReport { shard: name.to_owned(), heat, ..ShardReport::default() };
        let skew = |max_over_mean| Skew { max_over_mean, variation: 0.5, gini: 0.25 };
        let share = |lower: f64| Bounds { lower, upper: lower + 0.05 };
        let map = MapReport {
            map: "by_user".to_owned(),
            skews: [skew(1.5), skew(1.75), skew(2.0)],
            scatter_ratio: 0.125,
            distinct_keys: 1_000.0,
            direction: Some(-0.5),
            keys: (1..=12).map(|it| key(it, it % 2, 0.5 / f64::from(it))).collect(),
            top_shares: [[share(0.5), share(0.75), share(0.875)], [share(0.1); 3]],
            heat: Heat::Danger,
            ..MapReport::default()
        };
        let shards = vec![shard("s1", Heat::Cool), shard("s2", Heat::Warning)];
        Report { shards, maps: vec![map], ..Report::default() }
    }

    fn lines(registry: &Registry) -> Vec<String> {
        let text = registry.text().unwrap();
        text.lines().filter(|it| !it.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_report_becomes_series_and_no_key_among_them() {
        let registry = Registry::default();
        let families = HotspotMetricFamilies::register(&registry).unwrap();
        families.observe("shop", &report());
        let lines = lines(&registry);
        for want in [
            "keyway_skew_max_over_mean{database=\"shop\",dimension=\"time\",map=\"by_user\"} 1.75",
            "keyway_skew_variation{database=\"shop\",dimension=\"calls\",map=\"by_user\"} 0.5",
            "keyway_skew_gini{database=\"shop\",dimension=\"bytes\",map=\"by_user\"} 0.25",
            "keyway_hot_key_share_lower{database=\"shop\",map=\"by_user\",rank=\"1\",shard=\"s2\"} 0.5",
            "keyway_hot_key_share_upper{database=\"shop\",map=\"by_user\",rank=\"2\",shard=\"s1\"} 0.26",
            "keyway_top_keys_share_lower{database=\"shop\",map=\"by_user\",top=\"10\"} 0.75",
            "keyway_top_keys_share_upper{database=\"shop\",map=\"by_user\",top=\"1\"} 0.55",
            "keyway_distinct_keys{database=\"shop\",map=\"by_user\"} 1000",
            "keyway_access_direction{database=\"shop\",map=\"by_user\"} -0.5",
            "keyway_scatter_ratio{database=\"shop\",map=\"by_user\"} 0.125",
            "keyway_hot{database=\"shop\",map=\"\",shard=\"s1\"} 0",
            "keyway_hot{database=\"shop\",map=\"\",shard=\"s2\"} 1",
            "keyway_hot{database=\"shop\",map=\"by_user\",shard=\"\"} 2",
        ] {
            assert!(lines.iter().any(|it| it == want), "{want}\n{lines:#?}");
        }
        assert_eq!(lines.iter().filter(|it| it.contains("_key_share_lower")).count(), RANKS_MAX);
        assert!(
            !lines.iter().any(|it| it.contains("alice") || it.to_lowercase().contains("feed")),
            "{lines:?}"
        );
    }

    #[test]
    fn what_the_report_has_no_more_has_no_series() {
        let registry = Registry::default();
        let families = HotspotMetricFamilies::register(&registry).unwrap();
        families.observe("shop", &report());
        families.observe("other", &report());
        let of_other = lines(&registry).iter().filter(|it| it.contains("\"other\"")).count();
        let mut less = report();
        less.maps[0].keys.truncate(1);
        // The key of the first rank has been moved.
        less.maps[0].keys[0].shard = ShardId(0);
        less.maps[0].direction = None;
        less.shards.pop();
        families.observe("shop", &less);
        let now = lines(&registry);
        let keys: Vec<_> = now
            .iter()
            .filter(|it| it.contains("_share_lower{database=\"shop\"") && it.contains("rank"))
            .collect();
        assert_eq!(
            keys,
            ["keyway_hot_key_share_lower{database=\"shop\",map=\"by_user\",rank=\"1\",shard=\"s1\"} 0.5"]
        );
        assert!(!now.iter().any(|it| it.contains("direction{database=\"shop\"")), "{now:?}");
        assert!(!now.iter().any(|it| it.contains("keyway_hot{database=\"shop\"") && it.contains("\"s2\"")));
        families.forget("shop");
        let now = lines(&registry);
        assert!(now.iter().all(|it| it.contains("\"other\"")), "{now:?}");
        assert_eq!(now.len(), of_other);
    }
}
