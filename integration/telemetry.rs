//! What Keyway tells of single statements: spans for a collector, and a log of slow ones. Values of statements are in neither.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use futures_util::SinkExt;
use keyway::demo::shop::USER;
use libtest_mimic::Trial;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::{
    APP_PASSWORD, Fallible, Harness, Outcome, Shared, SingleFixture, connect, error_of, rows, run, until,
    until_hits,
};
use crate::routing::{Shards, insert_user};

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("telemetry::each_statement_is_a_span", each_statement_is_a_span),
        harness.test("telemetry::a_collector_that_is_silent_costs_spans_alone", a_silent_collector),
        harness.test("telemetry::a_wait_for_a_connection_is_not_the_servers", a_wait_is_not_the_servers),
        harness.test("telemetry::slow_statements_are_logged_without_values", slow_statements),
    ]
}

/// A collector of OTLP over HTTP, played by the test.
struct Collector {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<String>>>,
    answers: Arc<AtomicBool>,
}

impl Collector {
    async fn start() -> Fallible<Collector> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (bodies, answers) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(true)));
        let (taken, answering) = (bodies.clone(), answers.clone());
        let take = move |body: String| async move {
            if !answering.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            taken.lock().push(body);
            StatusCode::OK
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Collector { address, bodies, answers })
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().clone();
        let of = |body: &String| {
            let whole: Value = serde_json::from_str(body).expect("JSON");
            whole["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default()
        };
        bodies.iter().flat_map(of).map(Span).collect()
    }

    async fn span_of(&self, trace: &str) -> Fallible<Span> {
        let find = || self.spans().into_iter().find(|it| it.0["traceId"] == trace);
        until(&format!("a span of {trace}"), || async { Ok(find().is_some()) }).await?;
        Ok(find().expect("it was there"))
    }
}

#[derive(Debug)]
struct Span(Value);

impl Span {
    /// As text, whatever its type.
    fn get(&self, key: &str) -> Option<String> {
        let attribute = self.0["attributes"].as_array()?.iter().find(|it| it["key"] == key)?;
        let value = attribute["value"].as_object()?.values().next()?;
        Some(value.as_str()?.to_owned())
    }

    fn assert(&self, wanted: &[(&str, &str)]) {
        for (key, value) in wanted {
            assert_eq!(self.get(key).as_deref(), Some(*value), "{key} of {:#}", self.0);
        }
    }
}

const PARENT: &str = "c532cb4098ac3dd2";
/// In no span and no line of a log.
const SECRET: &str = "s3cr3t";

fn trace(number: u32) -> String {
    format!("{:032x}", 0x5bd6_6ef5_0953_69c7_u128 << 64 | u128::from(number))
}

fn traced(sql: &str, number: u32) -> String {
    format!("{sql} /*action='{SECRET}',traceparent='00-{}-{PARENT}-01'*/", trace(number))
}

async fn each_statement_is_a_span(harness: Arc<Shared>) -> Outcome {
    let collector = Collector::start().await?;
    let more = format!("\n[tracing]\notlp_endpoint = \"http://{}\"\nsample_ratio = 0\n", collector.address);
    let shards = Shards::start_with(&harness, &more).await?;
    let client = shards.client().await?;
    let users = [shards.user_on(0, 7_700_000), shards.user_on(1, 7_700_000)];
    for (number, user) in (1..).zip(users) {
        run(&client, &traced(&insert_user(user, SECRET), number)).await?;
    }
    let text = "INSERT INTO users (user_id, name, email, country) VALUES (?, ?, ?, ?)";
    let mut fingerprints = Vec::new();
    for (number, shard) in [(1, "s1"), (2, "s2")] {
        let span = collector.span_of(&trace(number)).await?;
        span.assert(&[
            ("db.system.name", "postgresql"),
            ("db.namespace", "shop"),
            ("db.user", USER),
            ("keyway.shard", shard),
            ("keyway.role", "primary"),
            ("keyway.access", "write"),
            ("db.query.text", text),
            ("db.response.returned_rows", "1"),
        ]);
        assert_eq!((&span.0["name"], &span.0["parentSpanId"]), (&"INSERT users".into(), &PARENT.into()));
        assert_eq!(span.get("error.type"), None);
        let times = ["startTimeUnixNano", "endTimeUnixNano"]
            .map(|it| span.0[it].as_str().and_then(|it| it.parse::<u64>().ok()).expect("a time"));
        let server_us: u64 = span.get("keyway.server_us").unwrap_or_default().parse()?;
        assert!(server_us > 0 && server_us * 1_000 <= times[1] - times[0] + 1_000, "{:#}", span.0);
        fingerprints.push(span.get("keyway.fingerprint"));
    }
    assert!(fingerprints[0].as_ref().is_some_and(|it| it.len() == 32));
    assert_eq!(fingerprints[0], fingerprints[1], "values are not in the fingerprint");

    // Prepared, with a value as a parameter; a read may be on a replica.
    let prepared = traced("SELECT name FROM users WHERE user_id = $1", 3);
    client.query(&prepared, &[&users[0]]).await?;
    let span = collector.span_of(&trace(3)).await?;
    span.assert(&[
        ("db.query.text", "SELECT name FROM users WHERE user_id = $1"),
        ("keyway.access", "read"),
        ("keyway.shard", "s1"),
    ]);
    assert!(matches!(span.get("keyway.role").as_deref(), Some("primary" | "replica")), "{:#}", span.0);

    // Several shards, with one span for all of them.
    rows(&client, &traced("SELECT count(*) FROM users", 4)).await?;
    collector.span_of(&trace(4)).await?.assert(&[("keyway.shard", "s1, s2"), ("keyway.access", "read")]);
    assert_eq!(collector.spans().iter().filter(|it| it.0["traceId"] == *trace(4)).count(), 1);

    errors_have_their_state(&shards, &collector, users[0]).await?;
    copies_are_one_span(&shards, &collector, users[0]).await?;

    // The caller does not record its own part, and nobody asked for these.
    let not_sampled = traced("SELECT 1", 9).replace("-01'", "-00'");
    run(&client, &not_sampled).await?;
    run(&client, "SELECT 2").await?;
    run(&client, &traced("SELECT 3", 10)).await?;
    collector.span_of(&trace(10)).await?;
    let known: Vec<String> = (1..=11).filter(|it| *it != 9).map(trace).collect();
    for span in collector.spans() {
        assert!(known.iter().any(|it| span.0["traceId"] == **it), "{:#}", span.0);
    }
    for body in collector.bodies.lock().iter() {
        for value in [SECRET, &users[0].to_string(), &users[1].to_string(), "traceparent"] {
            assert!(!body.contains(value), "{value}: {body}");
        }
    }
    let metrics = shards.keyway.metrics().await?;
    assert!(!metrics.contains("keyway_spans_total{result=\"exported\"} 0\n"), "{metrics}");
    assert!(metrics.contains("keyway_spans_total{result=\"failed\"} 0\n"), "{metrics}");
    Ok(())
}

async fn errors_have_their_state(shards: &Shards<'_>, collector: &Collector, user: i64) -> Outcome {
    let client = shards.client().await?;
    let fails = format!("SELECT 1 / (user_id - {user}) FROM users WHERE user_id = {user}");
    assert_eq!(error_of(&client, &traced(&fails, 5)).await?.code().code(), "22012");
    let span = collector.span_of(&trace(5)).await?;
    span.assert(&[("db.response.status_code", "22012"), ("error.type", "22012"), ("keyway.shard", "s1")]);
    assert_eq!(span.0["status"]["code"], 2);
    // Of several shards.
    let fails = "SELECT count(1 / (user_id - user_id)) FROM users";
    assert_eq!(error_of(&client, &traced(fails, 11)).await?.code().code(), "22012");
    collector.span_of(&trace(11)).await?.assert(&[("error.type", "22012"), ("keyway.shard", "s1, s2")]);
    // Keyway itself refuses it, before any server.
    let refused = format!("UPDATE users SET user_id = {user} + 1 WHERE user_id = {user}");
    let state = error_of(&client, &traced(&refused, 6)).await?.code().code().to_owned();
    let span = collector.span_of(&trace(6)).await?;
    span.assert(&[
        ("error.type", &state),
        ("keyway.shard", "none"),
        ("db.query.text", "UPDATE users SET user_id = ? + ? WHERE user_id = ?"),
    ]);
    assert_eq!(span.get("keyway.role"), None);
    // The same by the extended protocol.
    let failed = client.query(&traced(&refused, 7), &[]).await.expect_err("it is refused");
    assert_eq!(failed.code().map(|it| it.code().to_owned()), Some(state.clone()));
    collector.span_of(&trace(7)).await?.assert(&[("error.type", &state)]);
    Ok(())
}

async fn copies_are_one_span(shards: &Shards<'_>, collector: &Collector, user: i64) -> Outcome {
    let client = shards.client().await?;
    let copy = traced("COPY orders (user_id, order_id, amount) FROM STDIN", 8);
    let sink = client.copy_in::<_, Bytes>(&copy).await?;
    let mut sink = std::pin::pin!(sink);
    let line = format!("{user}\t7700001\t17\n");
    sink.send(Bytes::from(line)).await?;
    let copied = sink.as_mut().finish().await?;
    assert_eq!(copied, 1);
    let span = collector.span_of(&trace(8)).await?;
    span.assert(&[("keyway.access", "write"), ("db.response.returned_rows", "1")]);
    assert_eq!(span.0["name"], "COPY orders");
    Ok(())
}

async fn a_silent_collector(harness: Arc<Shared>) -> Outcome {
    let collector = Collector::start().await?;
    collector.answers.store(false, Ordering::SeqCst);
    let address = harness.single().await?.shard.primary.address();
    let tracing =
        format!("otlp_endpoint = \"http://{}\"\nsample_ratio = 1\nspans_max = 4", collector.address);
    let config = config_with(&address, &format!("[tracing]\n{tracing}"));
    let keyway = harness.start_keyway(config).await?;
    let client = connect(&keyway.url(USER, APP_PASSWORD, SingleFixture::DATABASE)).await?;
    for _ in 0..600 {
        assert_eq!(rows(&client, "SELECT 1").await?, ["1"]);
    }
    until_hits(&keyway, "spans_max", 1).await?;
    let metrics = keyway.metrics().await?;
    assert!(metrics.contains("keyway_spans_total{result=\"exported\"} 0\n"), "{metrics}");
    // The next ones are taken again.
    collector.answers.store(true, Ordering::SeqCst);
    until("spans come again", || async {
        run(&client, "SELECT 2").await?;
        Ok(!collector.spans().is_empty())
    })
    .await?;
    Ok(())
}

async fn a_wait_is_not_the_servers(harness: Arc<Shared>) -> Outcome {
    const WAIT: Duration = Duration::from_millis(300);
    let collector = Collector::start().await?;
    let address = harness.single().await?.shard.primary.address();
    let sections = format!(
        "[tracing]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1\n[databases.{}.pool]\nsize = 1\n",
        collector.address,
        SingleFixture::DATABASE
    );
    let keyway = harness.start_keyway(config_with(&address, &sections)).await?;
    let url = keyway.url(USER, APP_PASSWORD, SingleFixture::DATABASE);
    let (holder, waiter) = (connect(&url).await?, connect(&url).await?);
    let read = waiter.prepare("SELECT $1::int4 AS waits").await?;
    // What is new takes time by itself.
    waiter.query(&read, &[&1]).await?;
    run(&holder, "BEGIN").await?;
    run(&holder, "SELECT 1").await?;
    let waiting = tokio::spawn(async move { waiter.query(&read, &[&2]).await });
    let waits = |it: &str| it.starts_with("keyway_pool_waiters{") && it.ends_with(" 1");
    until("it waits", || async { Ok(keyway.metrics().await?.lines().any(waits)) }).await?;
    tokio::time::sleep(WAIT).await;
    run(&holder, "COMMIT").await?;
    waiting.await??;
    let us = |span: &Span, key: &str| span.get(key).and_then(|it| it.parse::<u64>().ok()).expect("a number");
    let waited = |it: &Span| us(it, "keyway.wait_us") >= WAIT.as_micros() as u64;
    until("its span", || async { Ok(collector.spans().iter().any(waited)) }).await?;
    let span = collector.spans().into_iter().find(waited).expect("it was there");
    let [began, ended] = ["startTimeUnixNano", "endTimeUnixNano"]
        .map(|it| span.0[it].as_str().and_then(|it| it.parse::<u64>().ok()).expect("a time"));
    let both_us = us(&span, "keyway.wait_us") + us(&span, "keyway.server_us");
    assert!(both_us <= (ended - began) / 1_000 + 2, "{:#}", span.0);
    Ok(())
}

fn config_with(server: &str, sections: &str) -> impl Fn(&str, &str) -> String + use<> {
    let rest = format!(
        "{sections}\n[users.{USER}]\npassword = \"{APP_PASSWORD}\"\n[databases.{}]\nservers = [\"{server}\"]\n",
        SingleFixture::DATABASE
    );
    move |listen, admin| format!("listen = \"{listen}\"\nadmin = \"{admin}\"\n{rest}")
}

/// Objects, of the lines that are slow statements.
fn slow_lines(log: &str) -> Vec<Value> {
    let objects = log
        .lines()
        .map(|it| serde_json::from_str::<Value>(it).unwrap_or_else(|error| panic!("{error}: {it}")));
    objects.filter(|it| it["target"] == "keyway::slow_statement").collect()
}

async fn slow_statements(harness: Arc<Shared>) -> Outcome {
    let address = harness.single().await?.shard.primary.address();
    let off = "[log]\nformat = \"json\"\nslow_statements_max = 2";
    let keyway = harness.start_keyway(config_with(&address, off)).await?;
    let client = connect(&keyway.url(USER, APP_PASSWORD, SingleFixture::DATABASE)).await?;
    let slow = format!("SELECT pg_sleep(0.6), '{SECRET}' /* {SECRET} */ AS \"a\nb\"");
    run(&client, &slow).await?;
    assert!(slow_lines(&keyway.log()).is_empty(), "it is off");
    let on = format!("{off}\nslow_statement = \"500ms\"");
    keyway.reload(config_with(&address, &on)).await?;
    run(&client, "SELECT 1").await?;
    run(&client, &slow).await?;
    let prepared = "SELECT pg_sleep($1), 1 / (random() * 0)::integer";
    client.query(prepared, &[&0.6_f64]).await.expect_err("a division by zero");
    until("they are logged", || async { Ok(slow_lines(&keyway.log()).len() >= 2) }).await?;
    let lines = slow_lines(&keyway.log());
    let found = |text: &str| lines.iter().find(|it| it["statement"] == text);
    let first = found("SELECT pg_sleep(?), ? AS \"a\nb\"").unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(
        first["took_ms"].as_f64() >= Some(500.0) && first["server_ms"].as_f64() >= Some(500.0),
        "{first:#}"
    );
    assert!(first["wait_ms"].is_number(), "{first:#}");
    assert_eq!(first["fingerprint"].as_str().map(str::len), Some(32));
    assert_eq!((&first["database"], &first["user"]), (&SingleFixture::DATABASE.into(), &USER.into()));
    assert_eq!((&first["rows"], &first["sqlstate"]), (&1.into(), &"00000".into()));
    let second =
        found("SELECT pg_sleep($1), ? / (random() * ?)::integer").unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!(second["sqlstate"], "22012");
    assert!(!lines.iter().any(|it| it["statement"] == "SELECT ?"), "{lines:#?}");
    // From 100 ms on each is on the page.
    run(&client, &format!("SELECT pg_sleep(0.11), '{SECRET}' AS seen_on_the_page")).await?;
    let (status, page) = keyway.http("/").await?;
    assert_eq!(status, 200);
    assert!(page.contains("SELECT pg_sleep(?), ? AS seen_on_the_page"), "{page}");
    assert!(!page.contains(SECRET), "{page}");
    // No more than two in a second are written, and the others are counted.
    keyway.reload(config_with(&address, &on.replace("500ms", "20ms"))).await?;
    let quicker = slow.replace("0.6", "0.03");
    until("the limit is hit", || async {
        let many = (0..8).map(|_| run(&client, &quicker));
        futures_util::future::try_join_all(many).await?;
        Ok(keyway.limit_hits("slow_statements_max").await? >= 1)
    })
    .await?;
    until_hits(&keyway, "slow_statements_max", 1).await?;
    assert!(!keyway.log().contains(SECRET), "{}", keyway.log());
    Ok(())
}
