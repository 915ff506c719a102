//! The compose file hangs together: what it mounts, builds from, waits for and scrapes is there.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use keyway::config::Config;
use serde_norway::Value;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    let mut value: Value = serde_norway::from_str(&read(path)).unwrap();
    // One pass resolves one level, and a merged mapping may bring a `<<` of its own.
    for _ in 0..3 {
        value.apply_merge().unwrap();
    }
    value
}

fn services(compose: &Value) -> Vec<(&str, &Value)> {
    let all = compose["services"].as_mapping().unwrap();
    all.iter().map(|(name, service)| (name.as_str().unwrap(), service)).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_sequence().into_iter().flatten().map(|it| it.as_str().unwrap()).collect()
}

/// A tag with a number of at least two parts: `17.6-bookworm`, not `17`, not `latest`, not nothing.
fn is_fixed(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap();
    let Some((_, tag)) = name.split_once(':') else { return false };
    let version = tag.trim_start_matches('v').split('-').next().unwrap();
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() >= 2 && parts.iter().all(|it| it.parse::<u32>().is_ok())
}

#[test]
fn a_fixed_tag_is_told_from_a_moving_one() {
    for image in ["postgres:17.6-bookworm", "prom/prometheus:v3.5.0", "host:5000/a/b:1.2"] {
        assert!(is_fixed(image), "{image}");
    }
    for image in ["postgres", "postgres:latest", "postgres:17", "host:5000/a/b", "debian:bookworm-slim"] {
        assert!(!is_fixed(image), "{image}");
    }
}

#[test]
fn it_has_two_shards_with_replicas_and_what_watches_them() {
    let compose = yaml("docker-compose.yml");
    let names: BTreeSet<&str> = services(&compose).into_iter().map(|it| it.0).collect();
    let want = [
        "grafana",
        "keyway",
        "prometheus",
        "shard1-primary",
        "shard1-replica",
        "shard2-primary",
        "shard2-replica",
    ];
    assert_eq!(names, BTreeSet::from(want));
}

#[test]
fn every_image_has_a_fixed_tag() {
    let compose = yaml("docker-compose.yml");
    for (name, service) in services(&compose) {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        assert!(is_fixed(image), "{name}: {image}");
    }
    for line in read("Dockerfile").lines().filter(|it| it.starts_with("FROM ")) {
        let image = line.split_whitespace().nth(1).unwrap();
        assert!(is_fixed(image), "{line}");
    }
}

#[test]
fn every_file_it_mounts_exists() {
    let compose = yaml("docker-compose.yml");
    let volumes = compose["volumes"].as_mapping().unwrap();
    let mut files = 0;
    for (name, service) in services(&compose) {
        for mount in strings(&service["volumes"]) {
            let source = mount.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(Path::new(source).exists(), "{name}: {source} is missing");
                assert!(mount.ends_with(":ro"), "{name}: {mount} could be written to");
                files += 1;
            } else {
                assert!(volumes.contains_key(source), "{name}: volume {source} is not declared");
            }
        }
    }
    assert!(files >= 10, "{files} files mounted");
}

#[test]
fn every_service_waits_for_one_that_can_become_ready() {
    let compose = yaml("docker-compose.yml");
    for (name, service) in services(&compose) {
        let waits = &service["depends_on"];
        for other in strings(waits) {
            assert!(compose["services"].get(other).is_some(), "{name} waits for {other}");
        }
        for (other, how) in waits.as_mapping().into_iter().flatten() {
            let other =
                compose["services"].get(other).unwrap_or_else(|| panic!("{name} waits for {other:?}"));
            if how["condition"].as_str() == Some("service_healthy") {
                assert!(other.get("healthcheck").is_some(), "{name} waits for the health of {other:?}");
            }
        }
    }
}

/// A published port is reached from everywhere unless it names an address, and the passwords are known.
#[test]
fn every_port_is_published_on_loopback() {
    for (name, service) in services(&yaml("docker-compose.yml")) {
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn the_dockerfile_copies_what_is_there_and_drops_root() {
    let text = read("Dockerfile");
    let copies = text.lines().filter(|it| it.starts_with("COPY ") && !it.contains("--from="));
    let mut sources = 0;
    for line in copies {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        for source in &words[..words.len() - 1] {
            assert!(Path::new(source).exists(), "{line}");
            sources += 1;
        }
    }
    assert!(sources >= 2);
    let user = text.lines().rev().find_map(|it| it.strip_prefix("USER ")).unwrap();
    assert_ne!(user, "root");
}

#[test]
fn its_config_loads_and_names_its_servers() {
    let compose = yaml("docker-compose.yml");
    let variables = compose["services"]["keyway"]["environment"].as_mapping().unwrap();
    let env = |name: &str| variables.get(name).and_then(Value::as_str).map(str::to_owned);
    let config = Config::parse(&read("config/docker/keyway.toml"), Path::new("config/docker"), &env)
        .unwrap_or_else(|it| panic!("{it:#?}"));
    let shop = config.database("shop").unwrap();
    assert_eq!(shop.shards.len(), 2);
    for shard in &shop.shards {
        assert_eq!(shard.servers.len(), 2);
        for server in &shard.servers {
            assert!(compose["services"].get(server.host.as_str()).is_some(), "{server}");
        }
    }
    let tables: Vec<String> = shop.tables.keys().map(|it| it.name.clone()).collect();
    assert_eq!(tables, ["countries", "events", "orders", "users"]);
    let schema = read("config/docker/schema.sql");
    for table in tables {
        assert!(schema.contains(&format!("CREATE TABLE {table} (")), "{table}");
    }
    // Published ports must reach the listeners, so neither is on the container's loopback.
    assert!(config.listen.ip().is_unspecified());
}

#[test]
fn prometheus_scrapes_keyway_and_grafana_asks_prometheus() {
    let compose = yaml("docker-compose.yml");
    let target = |it: &str| {
        let (host, port) = it.rsplit_once(':').unwrap();
        let host = host.trim_start_matches("http://");
        assert!(compose["services"].get(host).is_some(), "{it}");
        port.to_owned()
    };
    let scrape = yaml("config/prometheus/prometheus.yml");
    let targets = strings(&scrape["scrape_configs"][0]["static_configs"][0]["targets"]);
    assert_eq!(targets, ["keyway:9432"]);
    assert_eq!(target(targets[0]), "9432");
    let sources = yaml("config/grafana/provisioning/datasources/prometheus.yml");
    let source = &sources["datasources"][0];
    assert_eq!(target(source["url"].as_str().unwrap()), "9090");
    assert_eq!(source["uid"].as_str(), Some("prometheus"));
    let dashboards = yaml("config/grafana/provisioning/dashboards/keyway.yml");
    let path = dashboards["providers"][0]["options"]["path"].as_str().unwrap();
    let mounts = strings(&compose["services"]["grafana"]["volumes"]);
    assert!(mounts.iter().any(|it| it.contains(&format!(":{path}:"))), "{path} is not mounted");
}
