//! The catalogue of metrics is what the program registers, and every name and label in alerts and dashboards is in it.

// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod large;
mod promql;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyway::app::{LABELS, catalogue, registered};
use keyway::metrics::{Family, FamilyKind};
use serde_json::Value as Json;
use serde_norway::Value as Yaml;

const PAGE: &str = "docs/metrics.md";
const ALERTS: &str = "config/prometheus/alerts.yml";
const DASHBOARDS: &str = "config/grafana/dashboards";

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn families() -> BTreeMap<String, Family> {
    registered().unwrap().into_iter().map(|it| (it.name.clone(), it)).collect()
}

/// After a change of a family `KEYWAY_WRITE_REFERENCE=1 cargo test --test metrics_catalogue` writes the page anew.
#[test]
fn the_page_is_what_the_program_registers() {
    let want = catalogue().unwrap_or_else(|error| panic!("{error}"));
    if std::env::var_os("KEYWAY_WRITE_REFERENCE").is_some() {
        fs::write(PAGE, &want).unwrap();
    }
    let found = read(PAGE);
    for (line, (found, want)) in found.lines().zip(want.lines()).enumerate() {
        assert_eq!(found, want, "{PAGE}, line {}", line + 1);
    }
    assert_eq!(found, want);
    let rows = want.lines().filter(|it| it.starts_with("| `keyway_")).count();
    assert_eq!(rows, families().len(), "each family once");
}

/// A family that was made behind the catalogue's back would be made through another registry: in the source every
/// name in quotes is of a family.
#[test]
fn the_source_names_no_other_metric() {
    let families = families();
    for line in lines_below(Path::new("src")) {
        for name in line.split('"').skip(1).step_by(2).filter(|it| it.starts_with("keyway_")) {
            let is_name = name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
            let ends_in_unit = ["_total", "_seconds", "_bytes"].iter().any(|it| name.ends_with(it));
            assert!(!is_name || !ends_in_unit || families.contains_key(name), "{name}: {line}");
        }
    }
}

/// The part of a file that ships.
fn lines_below(dir: &Path) -> Vec<String> {
    let shipped = |it: PathBuf| {
        let text = read(&it);
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        shipped.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    sources::rust_files(dir).into_iter().flat_map(shipped).collect()
}

/// https://prometheus.io/docs/practices/naming/: base units, counters end in `_total`.
#[test]
fn names_have_their_units() {
    for family in registered().unwrap() {
        let name = &family.name;
        assert!(name.starts_with("keyway_"), "{name}");
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{name}");
        assert_eq!(family.kind == FamilyKind::Counter, name.ends_with("_total"), "{name}");
        if family.kind == FamilyKind::Histogram {
            assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}");
        }
        for unit in ["ms", "us", "millis", "milliseconds", "microseconds", "percent", "kb", "mb", "kilobytes"]
        {
            assert!(!name.split('_').any(|it| it == unit), "{name} is not in a base unit");
        }
        let help = family.help.to_lowercase();
        if help.starts_with("time ") && family.kind != FamilyKind::Counter {
            assert!(name.ends_with("_seconds"), "{name}: {help}");
        }
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        for suffix in ["_bucket", "_sum", "_count", "_info"] {
            assert!(!name.ends_with(suffix), "{name}");
        }
    }
}

#[test]
fn every_label_is_bounded_and_used() {
    let mut left: BTreeSet<&str> = LABELS.iter().map(|it| it.0).collect();
    assert_eq!(left.len(), LABELS.len());
    for family in registered().unwrap() {
        for label in &family.labels {
            left.remove(&**label);
        }
        let once: BTreeSet<_> = family.labels.iter().collect();
        assert_eq!(once.len(), family.labels.len(), "{}", family.name);
    }
    assert!(left.is_empty(), "labels of no family: {left:?}");
}

/// Everything that an expression names is in the catalogue. `job` and `instance` come with a scrape.
fn check(of: &str, text: &str, families: &BTreeMap<String, Family>, source: &str) -> promql::Expression {
    let expression = promql::parse(text).unwrap_or_else(|error| panic!("{of}: {error}\n{text}"));
    assert!(!expression.selectors.is_empty() || text.starts_with("vector"), "{of}: {text}");
    let mut labels = BTreeSet::from(["job", "instance"]);
    for selector in &expression.selectors {
        let own = labels_of(&selector.metric, families)
            .unwrap_or_else(|| panic!("{of}: no metric {}", selector.metric));
        for (label, operator, value) in &selector.matchers {
            assert!(own.contains(&&**label), "{of}: {} has no label {label}", selector.metric);
            check_value(of, label, operator, value, source);
        }
        let is_counter = selector.metric.ends_with("_total")
            || ["_bucket", "_sum", "_count"].iter().any(|it| selector.metric.ends_with(it));
        assert_eq!(
            selector.is_range, is_counter,
            "{of}: a counter is looked at by its rate, a gauge by itself: {text}"
        );
        labels.extend(own);
    }
    for label in &expression.grouped {
        assert!(labels.contains(&&**label), "{of}: no metric of it has the label {label}: {text}");
    }
    expression
}

fn labels_of<'a>(metric: &str, families: &'a BTreeMap<String, Family>) -> Option<Vec<&'a str>> {
    if metric == "up" {
        return Some(vec!["job", "instance"]);
    }
    let histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|it| {
        let family = families.get(metric.strip_suffix(it)?)?;
        (family.kind == FamilyKind::Histogram).then_some((family, it))
    });
    let (family, suffix) = match histogram {
        Some(it) => it,
        None => (families.get(metric).filter(|it| it.kind != FamilyKind::Histogram)?, ""),
    };
    let labels = family.labels.iter().map(String::as_str);
    Some(labels.chain((suffix == "_bucket").then_some("le")).collect())
}

/// Values that are written out are in the code, or they would match nothing.
fn check_value(of: &str, label: &str, operator: &str, value: &str, source: &str) {
    if value.is_empty() || value.starts_with('$') || label == "job" {
        return;
    }
    let values: Vec<&str> = if operator.ends_with('~') { value.split('|').collect() } else { vec![value] };
    for value in values {
        assert!(source.contains(&format!("\"{value}\"")), "{of}: nothing sets {label} to {value}");
    }
}

fn source() -> String {
    lines_below(Path::new("src")).join("\n")
}

#[test]
fn alerts_say_what_is_wrong_and_what_to_do() {
    let (families, source) = (families(), source());
    let file: Yaml = serde_norway::from_str(&read(ALERTS)).unwrap();
    let mut names = BTreeSet::new();
    for group in file["groups"].as_sequence().unwrap() {
        assert!(group["name"].as_str().is_some_and(|it| it.starts_with("keyway")), "{group:?}");
        for rule in group["rules"].as_sequence().unwrap() {
            let keys: BTreeSet<&str> =
                rule.as_mapping().unwrap().keys().map(|it| it.as_str().unwrap()).collect();
            let name = rule["alert"].as_str().unwrap_or_else(|| panic!("no alert: {rule:?}"));
            assert_eq!(keys, BTreeSet::from(["alert", "annotations", "expr", "for", "labels"]), "{name}");
            assert!(names.insert(name.to_owned()), "twice: {name}");
            let expr = rule["expr"].as_str().unwrap();
            let expression = check(name, expr, &families, &source);
            assert!(promql::is_duration(rule["for"].as_str().unwrap()), "{name}: for");
            let severity = rule["labels"]["severity"].as_str();
            assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: {severity:?}");
            check_annotations(name, &rule["annotations"], &expression, &families);
        }
    }
    let want = [
        "HotShard",
        "HotKey",
        "Skew",
        "ReplicaLag",
        "NoPrimary",
        "PoolSaturated",
        "Refusals",
        "BreakerOpen",
        "LimitHit",
        "ClientErrors",
    ];
    for want in want {
        assert!(names.contains(&format!("Keyway{want}")), "no alert for {want}: {names:?}");
    }
}

/// What is said names labels that the alert has: those of its grouping, or else of its metrics.
fn check_annotations(
    name: &str,
    annotations: &Yaml,
    expression: &promql::Expression,
    families: &BTreeMap<String, Family>,
) {
    let mut labels: BTreeSet<String> = expression.grouped.clone();
    if !expression.groups {
        for it in &expression.selectors {
            labels.extend(labels_of(&it.metric, families).unwrap().into_iter().map(str::to_owned));
        }
    }
    for key in ["summary", "description", "action"] {
        let text = annotations[key].as_str().unwrap_or_else(|| panic!("{name} has no {key}"));
        assert!(text.len() >= 20, "{name}: {key}: {text}");
        assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{name}: {text}");
        for used in text.split("$labels.").skip(1) {
            let label = used.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').next().unwrap();
            assert!(labels.contains(label), "{name}: {key} names {label}, the alert has {labels:?}");
        }
    }
}

/// Where promtool is installed it has the last word, and tries the alerts out.
#[test]
fn promtool_takes_the_rules_where_it_is_installed() {
    for arguments in [["check", "rules", ALERTS], ["test", "rules", "config/prometheus/alerts_test.yml"]] {
        match Command::new("promtool").args(arguments).output() {
            Ok(output) => {
                let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{arguments:?}: {told}");
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
        }
    }
}

#[test]
fn prometheus_is_told_of_the_rules() {
    let file: Yaml = serde_norway::from_str(&read("config/prometheus/prometheus.yml")).unwrap();
    assert_eq!(file["rule_files"][0].as_str(), Some("alerts.yml"));
    let compose = read("docker-compose.yml");
    assert!(compose.contains("./config/prometheus/alerts.yml:/etc/prometheus/alerts.yml:ro"));
}

fn dashboards() -> BTreeMap<String, Json> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(DASHBOARDS).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let board = serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{name}: {error}"));
        found.insert(name, board);
    }
    found
}

fn list<'a>(value: &'a Json, key: &str) -> &'a [Json] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[test]
fn every_metric_and_label_of_the_dashboards_exists() {
    let (families, source) = (families(), source());
    let boards = dashboards();
    let names: Vec<&str> = boards.keys().map(String::as_str).collect();
    assert_eq!(names, ["overview", "pools", "replicas", "shards"]);
    for (name, board) in &boards {
        let variables = variables(name, board, &families);
        assert!(["datasource", "database"].iter().all(|it| variables.contains(*it)), "{name}: {variables:?}");
        let mut expressions = 0;
        for panel in list(board, "panels").iter().filter(|it| it["type"] != "row") {
            let title = format!("{name}: {}", panel["title"].as_str().unwrap());
            for target in list(panel, "targets") {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
                let text = target["expr"].as_str().unwrap();
                let expression = check(&title, text, &families, &source);
                for (_, _, value) in expression.selectors.iter().flat_map(|it| &it.matchers) {
                    let variable = value.strip_prefix('$');
                    assert!(variable.is_none_or(|it| variables.contains(it)), "{title}: no variable {value}");
                }
                check_legend(&title, target["legendFormat"].as_str().unwrap(), &expression, &families);
                expressions += 1;
            }
        }
        assert!(expressions >= 8, "{name}: {expressions}");
    }
}

fn variables(name: &str, board: &Json, families: &BTreeMap<String, Family>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for it in list(&board["templating"], "list") {
        let variable = it["name"].as_str().unwrap();
        assert!(found.insert(variable.to_owned()), "{name}: {variable} twice");
        if it["type"] == "query" {
            let query = it["query"]["query"].as_str().unwrap();
            let inside = query.strip_prefix("label_values(").and_then(|it| it.strip_suffix(')')).unwrap();
            let (selector, label) = inside.rsplit_once(", ").unwrap();
            let parsed =
                promql::parse(selector).unwrap_or_else(|error| panic!("{name}: {variable}: {error}"));
            let labels = labels_of(&parsed.selectors[0].metric, families).unwrap();
            assert!(labels.contains(&label) && label == variable, "{name}: {query}");
        }
    }
    found
}

fn check_legend(
    of: &str,
    legend: &str,
    expression: &promql::Expression,
    families: &BTreeMap<String, Family>,
) {
    for used in legend.split("{{").skip(1) {
        let label = used.split("}}").next().unwrap();
        let known = if expression.groups {
            expression.grouped.contains(label)
        } else {
            expression.selectors.iter().any(|it| labels_of(&it.metric, families).unwrap().contains(&label))
        };
        assert!(known, "{of}: the legend names {label}");
    }
}

/// From a hot shard one click leads to its keys; panels lie side by side and not on each other.
#[test]
fn a_hot_shard_is_one_click_from_its_keys() {
    let boards = dashboards();
    let uids: BTreeSet<&str> = boards.values().map(|it| it["uid"].as_str().unwrap()).collect();
    assert_eq!(uids.len(), boards.len());
    for name in ["overview", "shards"] {
        let mut found = false;
        for panel in list(&boards[name], "panels") {
            let of_shards = list(panel, "targets").iter().any(|it| {
                it["expr"].as_str().is_some_and(|it| it.contains("keyway_hot{") && it.contains("shard!=\"\""))
            });
            let links = list(&panel["fieldConfig"]["defaults"], "links");
            found |= of_shards
                && links.iter().any(|it| {
                    let url = it["url"].as_str().unwrap();
                    url.starts_with("/d/keyway-shards?") && url.contains("var-shard=${__field.labels.shard}")
                });
        }
        assert!(found, "{name}");
    }
    let keys = list(&boards["shards"], "panels").iter().flat_map(|it| list(it, "targets"));
    let by_shard =
        keys.filter_map(|it| it["expr"].as_str()).filter(|it| it.contains("keyway_hot_key_share_lower"));
    assert!(by_shard.clone().count() > 0);
    by_shard.for_each(|it| assert!(it.contains("shard=~\"$shard\""), "{it}"));
    for (name, board) in &boards {
        for it in list(board, "links").iter().map(|it| it["url"].as_str().unwrap()) {
            let uid = it.trim_start_matches("/d/").split('?').next().unwrap();
            assert!(uids.contains(uid), "{name}: {it}");
        }
        let mut taken = BTreeSet::new();
        for panel in list(board, "panels") {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{name}: {}", panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "{name}: {} lies on another panel", panel["title"]);
                }
            }
        }
    }
}

#[test]
fn what_is_no_promql_is_refused() {
    for text in [
        "sum(rate(keyway_queries_total[5m])",
        "sum rate(keyway_queries_total[5m]))",
        "rate(keyway_queries_total[5x])",
        "keyway_clients{shard=s1}",
        "keyway_clients{shard=\"s1\"",
        "keyway_clients keyway_clients",
        "keyway_clients >",
        "> 1",
        "sum by shard (keyway_clients)",
        "ratee(keyway_queries_total[5m])",
        "",
    ] {
        assert!(promql::parse(text).is_err(), "{text}");
    }
    let text = "sum by (le, shard) (rate(a_bucket{x=\"1\", y=~\"$y\"}[5m])) / 2 > 0.5 and on (shard) b == 1";
    let parsed = promql::parse(text).unwrap();
    assert_eq!(parsed.selectors.iter().map(|it| &*it.metric).collect::<Vec<_>>(), ["a_bucket", "b"]);
    assert_eq!(parsed.selectors[0].matchers.len(), 2);
    assert!(parsed.selectors[0].is_range && !parsed.selectors[1].is_range);
    assert_eq!(parsed.grouped, BTreeSet::from(["le".to_owned(), "shard".to_owned()]));
}

/// Of 64 shards with a replica each and 200 tables, of the program itself; how long it takes is benches/metrics.rs' matter.
#[test]
fn a_large_page_is_under_a_megabyte() {
    let text = large::Large::start().scrape();
    let series = text.lines().filter(|it| !it.starts_with('#')).count();
    assert!(series > 5_000, "{series} series");
    for shard in 0..large::SHARDS {
        assert!(text.contains(&format!("shard=\"shard{shard:02}\"")), "{shard}");
    }
    assert!(text.len() < 1_000_000, "{} bytes in {series} series", text.len());
}
