//! The files in `config/`, which people copy from: all of them load, and `reference.toml` shows every
//! key. `UPDATE=1 cargo test --test config_files` writes `reference.toml` anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use keyway::config::{self, Config};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

/// Once for all tests of this process, which read it at the same time.
static UPDATED: Once = Once::new();

fn read(name: &str) -> String {
    UPDATED.call_once(|| {
        if std::env::var_os("UPDATE").is_some() {
            fs::write(directory().join("reference.toml"), config::reference()).unwrap();
        }
    });
    fs::read_to_string(directory().join(name)).unwrap_or_else(|error| panic!("config/{name}: {error}"))
}

/// As `Config::load` would, with every environment variable set.
fn parse(name: &str) -> Config {
    Config::parse(&read(name), &directory(), &|_| Some("secret".to_owned())).unwrap_or_else(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("config/{name}\n{}", problems.join("\n"))
    })
}

#[test]
fn every_file_loads() {
    let mut names: Vec<String> = fs::read_dir(directory())
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|it| it.ends_with(".toml"))
        .collect();
    names.sort();
    for wanted in ["minimal.toml", "reference.toml", "replicas.toml", "sharded.toml"] {
        assert!(names.iter().any(|it| it == wanted), "config/{wanted} is missing: {names:?}");
    }
    for name in names {
        let config = parse(&name);
        assert!(
            config.databases.iter().all(|it| it.shards.iter().all(|of| !of.servers.is_empty())),
            "{name}"
        );
    }
}

#[test]
fn the_smallest_useful_config_fits_in_ten_lines() {
    let lines = read("minimal.toml").lines().count();
    assert!(lines <= 10, "{lines} lines");
    let config = parse("minimal.toml");
    let shards = &config.databases[0].shards;
    assert_eq!((config.databases.len(), shards.len(), shards[0].servers.len()), (1, 1, 2));
    assert!(config.databases[0].maps.is_empty() && config.databases[0].tables.is_empty());
}

#[test]
fn replicas_are_one_shard_and_shards_have_maps_and_tables() {
    let replicas = parse("replicas.toml");
    assert_eq!(replicas.databases[0].shards.len(), 1);
    assert!(replicas.databases[0].shards[0].servers.len() > 2);
    let sharded = parse("sharded.toml");
    let shop = sharded.database("shop").unwrap();
    assert_eq!((shop.shards.len(), shop.maps.len(), shop.tables.len()), (2, 2, 4));
}

#[test]
fn the_reference_is_what_the_code_says() {
    assert!(
        read("reference.toml") == config::reference(),
        "config/reference.toml is not what the code says: UPDATE=1 cargo test --test config_files"
    );
}

#[test]
fn the_reference_misses_no_key() {
    let reference: toml::Table = read("reference.toml").parse().unwrap();
    let keys = config::keys();
    assert!(keys.len() > 40, "{keys:?}");
    let reference = toml::Value::Table(reference);
    for (path, key) in keys {
        let steps = path.split('.').filter(|it| !it.is_empty());
        let sections = steps.fold(vec![&reference], |found, step| {
            found.into_iter().flat_map(|it| children(it, step)).collect()
        });
        assert!(
            sections.iter().any(|it| it.get(key).is_some()),
            "config/reference.toml has no `{key}` in [{path}]"
        );
    }
}

fn children<'a>(of: &'a toml::Value, step: &str) -> Vec<&'a toml::Value> {
    let table = of.as_table().into_iter().flatten();
    table.filter(|(name, _)| step == "*" || *name == step).map(|(_, value)| value).collect()
}

/// Each setting stands under a comment that tells its bound or default; a section is told once.
#[test]
fn the_reference_explains_every_key_once() {
    let text = read("reference.toml");
    let mut explained = Vec::new();
    let mut comment = String::new();
    for line in text.lines() {
        if let Some(more) = line.strip_prefix('#') {
            comment.push_str(more);
            continue;
        }
        if line.starts_with('[') {
            assert_eq!(text.lines().filter(|it| *it == line).count(), 1, "{line}");
        } else if let Some((key, _)) = line.split_once(" = ")
            && (comment.contains("default") || comment.contains("required"))
        {
            explained.push(key);
        }
        comment.clear();
    }
    let headed = |key: &str| {
        ["limits", "users", "databases", "pool", "shards", "maps", "tables"].contains(&key)
            && text.contains(&format!("# {key}: "))
    };
    for (path, key) in config::keys() {
        assert!(explained.contains(&key) || headed(key), "`{key}` in [{path}] is not explained");
    }
}
