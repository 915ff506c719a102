//! Hot keys of a running demo: found, told with bounds, and mended as the advice says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, TryStreamExt};
use keyway::demo::postgres::Signal;
use keyway::demo::shop::USER;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::demo::{Scratch, interrupt, list};
use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, Shared, SingleFixture, connect, error_of, http_get, rows, run,
    until,
};
use crate::page::{Browser, hot};

/// What the page promises: a key is named within this time of its getting hot.
const FOUND_WITHIN: Duration = Duration::from_secs(30);
/// Of the statements on the map, those for the hot user, as the demo's load is made.
const HOT_SHARE: f64 = 1.0 / 3.0;
/// Samples of a random load are off by so much now and then; the sketch's own bounds are narrower.
const NOISE: f64 = 0.04;
/// Load is random, and windows begin while it does.
const EVEN_WITHIN: Duration = Duration::from_secs(90);
const EVEN_FOR: Duration = Duration::from_secs(300);
/// For pictures alone: a heat map with something to see.
const PICTURES_LOAD: Duration = Duration::from_secs(150);
const HOT_WITHIN: Duration = Duration::from_secs(600);
const END_TIMEOUT: Duration = Duration::from_secs(60);

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test_within(
            HOT_WITHIN,
            "hotspots::a_hot_key_is_found_and_isolated",
            a_hot_key_is_found_and_isolated,
        ),
        harness.test("hotspots::keys_are_for_administrators", keys_are_for_administrators),
    ]
}

const EVEN: &str = "hotspots::even_load_names_none_for_five_minutes";

/// Begins at once, beside all other tests; the trial waits for its end.
pub fn even_load(harness: &Arc<Harness>, arguments: &Arguments) -> Option<Trial> {
    let wanted = arguments.filter.as_ref().is_none_or(|it| EVEN.contains(it.as_str()));
    if !wanted || arguments.list || arguments.skip.iter().any(|it| EVEN.contains(it.as_str())) {
        return None;
    }
    let (told, ended) = oneshot::channel();
    harness.beside(async move |shared| {
        let _ = told.send(even_load_names_none(&shared).await.map_err(|it| format!("{it:?}")));
    });
    Some(harness.test_within(EVEN_FOR + 2 * END_TIMEOUT, EVEN, |_| async move { Ok(ended.await??) }))
}

/// A demo with its console.
struct Demo {
    child: Child,
    ready: Value,
    console: Client,
}

impl Demo {
    async fn start(scratch: &Scratch<'_>, arguments: &[&str]) -> Fallible<Demo> {
        let (child, ready) = scratch.ready_demo(arguments).await?;
        let console = connect(&text(&ready["url"]).replace("/shop", "/keyway")).await?;
        Ok(Demo { child, ready, console })
    }

    async fn show(&self, what: &str) -> Fallible<Vec<SimpleQueryRow>> {
        let answer = self.console.simple_query(&format!("SHOW {what}")).await?;
        let row = |it| match it {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        };
        Ok(answer.into_iter().filter_map(row).collect())
    }

    async fn tell(&self, command: &str) -> Outcome {
        self.console.simple_query(command).await.map(drop).map_err(Into::into)
    }

    /// Of the primary of a shard, without Keyway.
    async fn shard(&self, name: &str) -> Fallible<Client> {
        let shard = list(&self.ready["shards"]).iter().find(|it| it["name"] == name).ok_or("no shard")?;
        let port = shard["servers"][0]["port"].as_u64().ok_or("no port")?;
        let url = text(&self.ready["url"]);
        let (user, _) = url.split_once('@').ok_or("no user")?;
        connect(&format!("{user}@127.0.0.1:{port}/shop")).await
    }

    async fn get(&self, path: &str) -> Fallible<String> {
        let address =
            text(&self.ready["admin"]).trim_start_matches("http://").trim_end_matches('/').parse()?;
        Ok(http_get(address, path).await?.1)
    }

    async fn stop(mut self, scratch: &Scratch<'_>) -> Outcome {
        interrupt(&self.child, Signal::INT)?;
        assert!(timeout(END_TIMEOUT, self.child.wait()).await??.success());
        scratch.assert_nothing_left()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn share(row: &SimpleQueryRow, column: &str) -> f64 {
    let text = row.get(column).unwrap_or_default();
    text.trim_end_matches(" %").parse::<f64>().map_or(f64::NAN, |it| it / 100.0)
}

fn is_for_pictures() -> bool {
    std::env::var_os(hot::SCREENSHOTS).is_some()
}

async fn a_hot_key_is_found_and_isolated(harness: Arc<Shared>) -> Outcome {
    let scratch = Scratch::new(&harness)?;
    let arguments = ["--load", "hot", "--replicas", if is_for_pictures() { "1" } else { "0" }];
    let mut browser = Browser::start(&harness).await?;
    let demo = Demo::start(&scratch, &arguments).await?;
    let begun = Instant::now();
    let root = text(&demo.ready["admin"]).to_owned();
    hot::open(&mut browser, &root).await?;
    is_found(&demo, &mut browser, begun).await?;
    its_bounds_hold(&demo, &mut browser, begun).await?;
    let snippet = is_advised(&demo, &mut browser).await?;
    hot::has_a_line(&mut browser).await?;
    if is_for_pictures() {
        sleep(PICTURES_LOAD).await;
        hot::take_screenshots(&mut browser, &root).await?;
        hot::open(&mut browser, &root).await?;
    }
    apply(&demo, &snippet).await?;
    becomes_even(&demo).await?;
    hot::is_even_again(&mut browser, "s3").await?;
    hot::kept_to_itself(&browser, &root, |_| false)?;
    drop(browser);
    // The rows are where the map says, and the load goes on there.
    let client = connect(text(&demo.ready["url"])).await?;
    let name = client.query_one("SELECT name FROM users WHERE user_id = 42", &[]).await?;
    assert_eq!(name.get::<_, &str>(0), "user 42");
    let map = demo.show("HEATMAP by_user LAST '5m'").await?;
    assert!(map.iter().any(|it| it.get("part").is_some_and(|it| it.starts_with("pinned key"))), "{map:?}");
    demo.stop(&scratch).await
}

/// By the console, the page and the metrics.
async fn is_found(demo: &Demo, browser: &mut Browser, begun: Instant) -> Outcome {
    let danger = |row: &SimpleQueryRow| row.get("heat") == Some("DANGER");
    let found = loop {
        match demo.show("HOTSPOTS").await?.into_iter().find(danger) {
            Some(row) => break row,
            None => assert!(begun.elapsed() < FOUND_WITHIN, "no hot key within {FOUND_WITHIN:?}"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((found.get("kind"), found.get("map")), (Some("key"), Some("by_user")));
    hot::is_in_danger(browser, "s2").await?;
    assert!(begun.elapsed() < FOUND_WITHIN, "the page takes {:?}", begun.elapsed());
    let metrics = demo.get("/metrics").await?;
    assert!(metrics.contains("keyway_hot{database=\"shop\",map=\"by_user\",shard=\"\"} 2"), "{metrics}");
    assert!(!metrics.contains("\"42\""), "a key is no label");
    Ok(())
}

async fn its_bounds_hold(demo: &Demo, browser: &mut Browser, begun: Instant) -> Outcome {
    // The span of a report still has the time in which the shop was filled: a minute later it is of the load alone.
    let deadline = begun + EVEN_WITHIN;
    let key = loop {
        let keys = demo.show("KEYS by_user").await?;
        let key = keys.into_iter().next().ok_or("no key")?;
        let (lower, upper) = (share(&key, "calls_lower"), share(&key, "calls_upper"));
        if key.get("key") == Some("42") && lower - NOISE <= HOT_SHARE && HOT_SHARE <= upper + NOISE {
            assert!(upper - lower < 0.02, "{key:?}");
            break key;
        }
        assert!(Instant::now() < deadline, "bounds are off: {key:?}");
        sleep(Duration::from_millis(500)).await;
    };
    assert_eq!((key.get("rank"), key.get("heat"), key.get("table")), (Some("1"), Some("DANGER"), None));
    hot::has_bounds(browser, HOT_SHARE, NOISE).await?;
    let metrics = demo.get("/metrics").await?;
    let of_key = |bound: &str| {
        let series = format!(
            "keyway_hot_key_share_{bound}{{database=\"shop\",map=\"by_user\",rank=\"1\",shard=\"s2\"}} "
        );
        metrics.lines().find_map(|it| it.strip_prefix(&series)?.parse::<f64>().ok()).unwrap_or(f64::NAN)
    };
    let (lower, upper) = (of_key("lower"), of_key("upper"));
    assert!(lower - NOISE <= HOT_SHARE && HOT_SHARE <= upper + NOISE, "{lower} {upper}");
    let skew = demo.show("SKEW").await?;
    let skew = skew.iter().find(|it| it.get("map") == Some("by_user")).ok_or("no skew")?;
    assert!(skew.get("max_over_mean").ok_or("")?.parse::<f64>()? > 1.2, "{skew:?}");
    Ok(())
}

/// To isolate it: what to paste.
async fn is_advised(demo: &Demo, browser: &mut Browser) -> Result<String, Failed> {
    // As long as the time in which the shop was filled is in the span, slots may be what is uneven.
    let deadline = Instant::now() + EVEN_WITHIN;
    let single = loop {
        let advice = demo.show("ADVICE").await?;
        let isolates = |it: &SimpleQueryRow| {
            let snippet = it.get("snippet").unwrap_or_default();
            it.get("kind") == Some("single_key")
                && snippet.contains("pinned = [{ key = 42, shard = \"s3\" }]")
        };
        if let Some(single) = advice.iter().position(isolates) {
            break advice.into_iter().nth(single).ok_or("no advice")?;
        }
        assert!(Instant::now() < deadline, "{advice:?}");
        sleep(Duration::from_millis(500)).await;
    };
    assert_eq!((single.get("heat"), single.get("map")), (Some("DANGER"), Some("by_user")));
    let predicted = single.get("predicted").ok_or("nothing predicted")?.parse::<f64>()?;
    assert!(predicted < 1.2, "{single:?}");
    let snippet = single.get("snippet").ok_or("no snippet")?;
    hot::is_advised_to_isolate(browser, "s3").await?;
    // Figures in it may be of another window.
    let shown = hot::snippet(browser).await?;
    assert_eq!(shown.lines().count(), snippet.lines().count(), "{shown}\n{snippet}");
    Ok(snippet.to_owned())
}

async fn becomes_even(demo: &Demo) -> Outcome {
    let deadline = Instant::now() + EVEN_WITHIN;
    loop {
        let skew = demo.show("SKEW").await?;
        let of_map = skew.iter().find(|it| it.get("map") == Some("by_user")).ok_or("no skew")?;
        let figure = of_map.get("max_over_mean").ok_or("")?.parse::<f64>()?;
        let span = of_map.get("span_s").ok_or("")?.parse::<u64>()?;
        if span >= 15 && (1.0..1.2).contains(&figure) {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "still uneven: {of_map:?}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// As the snippet's comments say, while the database is paused.
async fn apply(demo: &Demo, snippet: &str) -> Outcome {
    demo.tell("PAUSE shop").await?;
    let steps: Vec<(&str, &str)> = snippet
        .lines()
        .filter_map(|it| it.trim_start_matches('#').trim().strip_prefix("on ")?.split_once(": "))
        // A view has no rows of its own.
        .filter(|it| !it.1.contains("users_here"))
        .collect();
    assert!(steps.iter().filter(|it| it.1.starts_with("COPY")).count() == 4, "{snippet}");
    let mut rows = None;
    for (shard, sql) in &steps {
        let client = demo.shard(shard).await?;
        if sql.ends_with("TO STDOUT") {
            let copied: Vec<bytes::Bytes> = client.copy_out(*sql).await?.try_collect().await?;
            rows = Some(copied);
        } else if sql.ends_with("FROM STDIN") {
            let mut sink = Box::pin(client.copy_in::<_, bytes::Bytes>(*sql).await?);
            for row in rows.take().ok_or("nothing copied")? {
                sink.send(row).await?;
            }
            assert!(sink.as_mut().finish().await? > 0, "{sql}");
        }
    }
    let path = text(&demo.ready["config"]);
    let config = std::fs::read_to_string(path)?;
    let section = "[databases.shop.maps.by_user]\n";
    let (before, after) = config.split_once(section).ok_or("no map")?;
    let behind = after.find("\n[").ok_or("no section behind")?;
    let new = snippet.find(section).ok_or("no section")?;
    let lines = snippet[new..].lines().take_while(|it| !it.is_empty() && !it.starts_with('#'));
    let lines = lines.collect::<Vec<_>>().join("\n");
    std::fs::write(path, format!("{before}{lines}\n{}", &after[behind..]))?;
    demo.tell("RELOAD").await?;
    demo.tell("RESUME shop").await?;
    for (shard, sql) in steps.iter().filter(|it| it.1.starts_with("DELETE")) {
        assert!(demo.shard(shard).await?.execute(*sql, &[]).await? > 0, "{sql}");
    }
    Ok(())
}

/// Of shards and maps, those that are not cool.
async fn hot_series(demo: &Demo) -> Fallible<Vec<String>> {
    let metrics = demo.get("/metrics").await?;
    let series: Vec<&str> = metrics.lines().filter(|it| it.starts_with("keyway_hot{")).collect();
    assert!(series.len() >= 3, "{series:?}");
    Ok(series.into_iter().filter(|it| !it.ends_with(" 0")).map(str::to_owned).collect())
}

async fn even_load_names_none(harness: &Shared) -> Outcome {
    let scratch = Scratch::new(harness)?;
    let demo = Demo::start(&scratch, &["--load", "even", "--replicas", "0"]).await?;
    let begun = Instant::now();
    let mut reports = 0;
    while begun.elapsed() < EVEN_FOR {
        let hot = demo.show("HOTSPOTS").await?;
        assert!(hot.is_empty(), "{hot:?} after {:?}", begun.elapsed());
        let advice = demo.show("ADVICE").await?;
        assert!(advice.iter().all(|it| it.get("kind") == Some("none")), "{advice:?}");
        let skew = demo.show("SKEW").await?;
        assert_eq!(hot_series(&demo).await?, Vec::<String>::new(), "after {:?}", begun.elapsed());
        let page = demo.get("/").await?;
        assert!(page.contains("id=alert") && !page.contains("class=alert"), "{page}");
        reports += usize::from(skew.iter().any(|it| it.get("span_s") == Some("60")));
        sleep(Duration::from_secs(5)).await;
    }
    // It looked at load, and not at nothing.
    assert!(reports > 20, "{reports}");
    demo.stop(&scratch).await
}

const DATABASE: &str = SingleFixture::DATABASE;

/// On one server: keys are those of tables. Users of statistics see hashes; what was recorded outlives the process, a
/// damaged file is set aside.
async fn keys_are_for_administrators(harness: Arc<Shared>) -> Outcome {
    let servers = [harness.single().await?.shard.primary.address()];
    let dir = harness.fresh_dir()?;
    let history = dir.path().join("hotspots");
    let config = |listen: &str, admin: &str| {
        format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\nadmin_users = [\"{USER}\"]\n\
             stats_users = [\"viewer\"]\nhotspot_history = \"{}\"\n\
             [users.{USER}]\npassword = \"{APP_PASSWORD}\"\n[users.viewer]\npassword = \"looks\"\n\
             [databases.{DATABASE}]\nservers = [\"{}\"]\n",
            history.display(),
            servers[0]
        )
    };
    let mut keyway = harness.start_keyway(config).await?;
    let client = connect(&keyway.url(USER, APP_PASSWORD, DATABASE)).await?;
    client.batch_execute("CREATE TABLE IF NOT EXISTS hotspot_items (id text PRIMARY KEY, name text)").await?;
    let administrator = connect(&keyway.url(USER, APP_PASSWORD, "keyway")).await?;
    let viewer = connect(&keyway.url("viewer", "looks", "keyway")).await?;
    let keys = "SHOW KEYS primary_key";
    // The catalog has to say first what the table's key is, and a window to end.
    until("the hot key is known by its name", async || {
        for _ in 0..20 {
            run(&client, "SELECT name FROM hotspot_items WHERE id = 'alice'").await?;
        }
        Ok(rows(&administrator, keys)
            .await?
            .iter()
            .any(|it| it.contains("|alice|") && it.contains("|hotspot_items|")))
    })
    .await?;
    let seen = rows(&viewer, keys).await?;
    assert!(!seen.is_empty() && seen.iter().all(|it| !it.contains("alice")), "{seen:?}");
    for path in ["/", "/metrics"] {
        assert!(!keyway.http(path).await?.1.contains("alice"), "{path}");
    }
    assert!(error_of(&viewer, "SHOW KEYS nothing").await?.message().contains("does not exist"));

    drop((client, administrator, viewer));
    keyway.signal(Signal::TERM)?;
    assert!(keyway.wait_until_ended().await?.success(), "{}", keyway.log());
    let bytes = std::fs::read(&history)?;
    assert!(!bytes.windows(5).any(|it| it == b"alice"), "the file has no keys");

    let keyway = harness.start_keyway(config).await?;
    let administrator = connect(&keyway.url(USER, APP_PASSWORD, "keyway")).await?;
    let drawn = rows(&administrator, "SHOW HEATMAP primary_key reads LAST '10m'").await?;
    assert!(drawn[0].contains('█'), "{drawn:?}");
    drop(keyway);

    std::fs::write(&history, &bytes[..bytes.len() - 1])?;
    let keyway = harness.start_keyway(config).await?;
    assert!(keyway.log().contains("set aside"), "{}", keyway.log());
    assert!(dir.path().join("hotspots.damaged").exists());
    Ok(())
}
