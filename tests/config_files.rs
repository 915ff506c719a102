//! Every file in `config/` that a user may copy loads, the reference misses nothing, and every limit is counted
//! where it is hit, with an integration test that drives it there and reads the count.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use keyway::config::{Config, TableName, TableRule};
use keyway::metrics::{LimitHits, Registry};

fn load(name: &str) -> Config {
    let text = fs::read_to_string(Path::new("config").join(name)).unwrap();
    let env = |variable: &str| variable.ends_with("_PASSWORD").then(|| "secret".to_owned());
    Config::parse(&text, Path::new("config"), &env).unwrap_or_else(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("config/{name}:\n{}", lines.join("\n"))
    })
}

#[test]
fn every_file_of_the_directory_loads() {
    let mut names = Vec::new();
    for entry in fs::read_dir("config").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".toml") {
            load(&name);
            names.push(name);
        }
    }
    names.sort();
    assert_eq!(names, ["minimal.toml", "reference.toml", "replicas.toml", "sharded.toml"]);
}

#[test]
fn the_smallest_useful_config_fits_in_ten_lines() {
    let text = fs::read_to_string("config/minimal.toml").unwrap();
    assert!(text.lines().count() <= 10, "{text}");
    let config = load("minimal.toml");
    assert_eq!(config.databases.len(), 1);
    assert_eq!(config.databases[0].shards.len(), 1);
    assert_eq!(config.databases[0].shards[0].servers.len(), 2);
    assert!(config.databases[0].maps.is_empty() && config.databases[0].tables.is_empty());
}

#[test]
fn the_sharded_config_has_the_shop() {
    let shop = load("sharded.toml").databases.remove(0);
    assert!(shop.shards.iter().all(|it| it.servers.len() == 2));
    let rule = |name: &str| shop.tables[&TableName { schema: None, name: name.into() }].clone();
    assert_eq!(rule("users"), TableRule::Sharded { map: 0, key: vec!["user_id".into()] });
    assert_eq!(rule("orders"), rule("users"));
    assert_eq!(rule("events"), TableRule::Sharded { map: 1, key: vec!["happened_at".into()] });
    assert_eq!(rule("countries"), TableRule::Reference);
}

/// The file is written from the list of settings, with their defaults, bounds and reasons; after a
/// change there, `KEYWAY_WRITE_REFERENCE=1 cargo test --test config_files` writes it anew.
#[test]
fn the_reference_is_what_the_settings_say() {
    let want = keyway::config::reference();
    if std::env::var_os("KEYWAY_WRITE_REFERENCE").is_some() {
        fs::write("config/reference.toml", &want).unwrap();
    }
    let found = fs::read_to_string("config/reference.toml").unwrap();
    for (line, (found, want)) in found.lines().zip(want.lines()).enumerate() {
        assert_eq!(found, want, "config/reference.toml, line {}", line + 1);
    }
    assert_eq!(found, want);
}

/// Says nothing itself but what must be said, so that everything else is the code's own default.
fn defaults() -> Config {
    let text = "[users.app]\nauth = \"trust\"\n[databases.shop]\nservers = [\"a\"]\n";
    Config::parse(text, Path::new(""), &|_| None).unwrap()
}

#[test]
fn the_reference_states_the_real_defaults() {
    let (stated, real) = (load("reference.toml"), defaults());
    assert_eq!(stated.listen, real.listen);
    assert_eq!(stated.admin, real.admin);
    assert_eq!(stated.workers, real.workers);
    assert_eq!(format!("{:#?}", stated.limits), format!("{:#?}", real.limits));
    let (stated, real) = (stated.database("shop").unwrap(), real.database("shop").unwrap());
    assert_eq!(stated.dbname, real.dbname);
    assert_eq!(stated.max_lag, real.max_lag);
    assert_eq!((stated.failover_hold, stated.failover_queue), (real.failover_hold, real.failover_queue));
    assert_eq!(format!("{:#?}", stated.probe), format!("{:#?}", real.probe));
    assert_eq!(format!("{:#?}", stated.pool), format!("{:#?}", real.pool));
}

/// A setting that the generator forgets would be found by no one: every list of settings is held to
/// the section that shows it.
#[test]
fn the_reference_misses_no_key() {
    let text = fs::read_to_string("config/reference.toml").unwrap();
    let reference = toml::Value::Table(text.parse().unwrap());
    let keys = keyway::config::keys();
    assert!(keys.len() >= 40, "{keys:?}");
    for (path, key) in keys {
        let steps = path.split('.').filter(|it| !it.is_empty());
        let sections = steps.fold(vec![&reference], |found, step| {
            found.into_iter().flat_map(|it| sections_under(it, step)).collect()
        });
        assert!(sections.iter().any(|it| it.get(key).is_some()), "no `{key}` in [{path}]");
    }
}

fn sections_under<'a>(of: &'a toml::Value, step: &str) -> Vec<&'a toml::Value> {
    let entries = of.as_table().into_iter().flatten();
    entries.filter(|(name, _)| step == "*" || *name == step).map(|(_, value)| value).collect()
}

/// A key that the code took without naming it in the reference would be found by no one: each key is
/// renamed in turn and must then be missed or be unknown.
#[test]
fn no_key_of_the_reference_is_ignored() {
    let text = fs::read_to_string("config/reference.toml").unwrap();
    let env = |_: &str| Some("secret".to_owned());
    let mut keys = 0;
    for (number, line) in text.lines().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else { continue };
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[number] = line.replacen(key, "no_such_key", 1);
        let problems = Config::parse(&lines.join("\n"), Path::new("config"), &env).unwrap_err();
        let told =
            problems.iter().any(|it| it.line == Some(number + 1) && it.message.contains("no_such_key"));
        assert!(told, "{line}: {problems:#?}");
        keys += 1;
    }
    assert!(keys >= 36, "{keys} keys");
}

/// Numbers and times that nobody can be over, with what they are.
const NO_LIMITS: &[(&str, &str)] = &[
    ("workers", "threads"),
    ("instance", "a name"),
    ("slots", "a part of a map's definition"),
    ("probe_interval", "how often"),
    ("catalog_interval", "how often"),
    ("dns_interval", "how often"),
    ("auth_query_lifetime", "how long an answer is believed"),
    ("zone_penalty", "a preference"),
    ("slow_start", "a share that grows: keyway_reads_total has its reason"),
    ("max_lag", "what reads ask of a replica: keyway_replica_lag_seconds"),
    ("cache_ttl", "how long an answer is believed"),
    ("writes_at_once", "who waits for it is counted by keyway_protected_writes_total"),
    ("hot_writes_at_once", "likewise"),
    ("slow_statement", "what is told: the log has it"),
];

/// PostgreSQL's MAX_STARTUP_PACKET_LENGTH is not of the configuration, and a share is no measure.
const NO_MEASURES: [&str; 2] = ["startup_packet", "primary_read_share"];

fn labels() -> BTreeSet<String> {
    let registry = Registry::default();
    LimitHits::register(&registry).unwrap();
    let text = registry.text().unwrap();
    let labels = text.lines().filter_map(|it| it.strip_prefix("keyway_limit_hits_total{limit=\""));
    labels.filter_map(|it| Some(it.split_once('"')?.0.to_owned())).collect()
}

#[test]
fn each_limit_has_a_count() {
    let mut left = labels();
    assert!(NO_MEASURES.iter().all(|it| left.remove(*it)));
    let mut exempt: BTreeSet<_> = NO_LIMITS.iter().map(|it| it.0).collect();
    for (path, key) in keyway::config::measures() {
        if exempt.remove(key) {
            continue;
        }
        let section = path.rsplit('.').find(|it| *it != "*").unwrap();
        // A key that is in several sections is counted in each.
        assert!(
            left.remove(&format!("{section}.{key}")) || left.remove(key),
            "{key} of [{path}] has no count"
        );
    }
    assert!(left.is_empty(), "counts of no limit: {left:?}");
    assert!(exempt.is_empty(), "no such setting: {exempt:?}");
}

/// A line of an integration test: `assert_hits(&keyway, "lifetime", 1)`, `keyway.limit_hits("lifetime")`.
#[test]
fn each_count_is_read_by_a_test() {
    let mut unread = labels();
    for line in lines_below(Path::new("integration")) {
        if line.contains("hits(") {
            unread.retain(|it| !line.contains(&format!("\"{it}\"")));
        }
    }
    assert!(unread.is_empty(), "no integration test drives over these and reads their count: {unread:?}");
}

fn lines_below(dir: &Path) -> Vec<String> {
    let lines = |it: PathBuf| fs::read_to_string(it).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    sources::rust_files(dir).into_iter().flat_map(lines).collect()
}
