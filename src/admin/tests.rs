//! The HTTP side over real sockets, with made-up facts behind it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::page::tests::Shop;
use super::*;
use crate::config::{Dashboard, Password};
use crate::metrics::{LimitHits, Registry};

const TOKEN: &str = "0123456789abcdef";
const LONG: Duration = Duration::from_secs(30);

struct Site {
    address: SocketAddr,
    admission: watch::Sender<Admission>,
    registry: Registry,
    /// Dropped: the process stops.
    stop: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
}

fn admission(token: Option<&str>, admin_streams_max: usize) -> Admission {
    let admin_token = token.map(Password::new);
    Admission::new(&Dashboard { admin_token, redact_keys: true, admin_streams_max })
}

impl Site {
    fn start(token: Option<&str>, streams_max: usize) -> Site {
        let registry = Registry::default();
        let hits = LimitHits::register(&registry).unwrap();
        let metrics = AdminMetrics::register(&registry, &hits).unwrap();
        let (admission, admitted) = watch::channel(admission(token, streams_max));
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _: Result<(), _> = stopped.await;
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let (address, serving) = serve(any, Arc::new(Shop), admitted, metrics, stopped).unwrap();
        Site { address, admission, registry, stop: Some(stop), serving: tokio::spawn(serving) }
    }

    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Head and body of the answer.
    async fn ask(&self, line: &str, headers: &[&str], body: &str) -> (String, String) {
        let mut request =
            format!("{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        headers.iter().for_each(|it| request.push_str(&format!("{it}\r\n")));
        if !headers.iter().any(|it| it.to_lowercase().starts_with("host:")) {
            request.push_str("Host: localhost\r\n");
        }
        let mut stream = self.send(&format!("{request}\r\n{body}")).await;
        let mut answer = String::new();
        timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str, headers: &[&str]) -> (String, String) {
        self.ask(&format!("GET {path}"), headers, "").await
    }

    fn counted(&self, series: &str) -> f64 {
        let text = self.registry.text().unwrap();
        let value = text.lines().find_map(|it| it.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Reads until `enough` says so.
async fn read_until(stream: &mut TcpStream, enough: impl Fn(&str) -> bool) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 16_384]);
    while !enough(&text) {
        let count = timeout(LONG, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

#[tokio::test]
async fn everything_of_the_dashboard_has_its_policies() {
    let site = Site::start(None, 1);
    for path in [
        "/",
        "/api/status",
        "/api/hotspots?database=shop",
        "/page.css",
        "/page.js",
        "/api/hotspots?database=x",
    ] {
        let (head, _) = site.get(path, &[]).await;
        for policy in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'\r\n",
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: no-referrer\r\n",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(policy), "{path}: {head}");
        }
        let kept = if path.starts_with("/page.") { "no-cache" } else { "no-store" };
        assert!(head.contains(&format!("cache-control: {kept}\r\n")), "{path}: {head}");
    }
}

#[tokio::test]
async fn scripts_and_styles_are_asked_for_again_and_not_sent_again() {
    let site = Site::start(Some(TOKEN), 1);
    for (path, kind) in
        [("/page.css", "text/css; charset=utf-8"), ("/page.js", "text/javascript; charset=utf-8")]
    {
        let (head, body) = site.get(path, &[]).await;
        assert!(
            status(&head) == 200 && !body.is_empty() && head.contains(&format!("content-type: {kind}")),
            "{head}"
        );
        let tag = head.lines().find_map(|it| it.strip_prefix("etag: ")).unwrap();
        let (head, body) = site.get(path, &[&format!("If-None-Match: W/\"x\", {tag}")]).await;
        assert_eq!((status(&head), body.len()), (304, 0), "{head}");
        assert_eq!(status(&site.get(path, &["If-None-Match: \"x\""]).await.0), 200);
    }
}

#[tokio::test]
async fn without_a_token_other_names_and_other_sites_get_nothing() {
    let site = Site::start(None, 1);
    for path in ["/", "/api/status", "/api/hotspots", "/api/heatmap", "/api/events", "/page/events"] {
        let (head, body) = site.get(path, &["Host: evil.example:9432"]).await;
        assert_eq!(status(&head), 421, "{path}");
        assert!(!body.contains("shop"), "{path}: {body}");
        let of_site = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"];
        assert_eq!(status(&site.get(path, &of_site).await.0), 403, "{path}");
        assert_eq!(status(&site.get(path, &["X-Forwarded-For: 203.0.113.7"]).await.0), 403, "{path}");
    }
    let link = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"];
    assert_eq!(status(&site.get("/", &link).await.0), 200);
    for path in ["/metrics", "/healthz", "/readyz"] {
        let (head, _) = site.get(path, &["Host: keyway.example", "X-Forwarded-For: 203.0.113.7"]).await;
        assert_eq!(status(&head), 200, "{path} is for scrapers and probes");
    }
    assert_eq!(site.counted("keyway_admin_refusals_total{reason=\"host\"}"), 6.0);
    assert_eq!(site.counted("keyway_admin_refusals_total{reason=\"peer\"}"), 6.0);
    assert_eq!(site.counted("keyway_admin_refusals_total{reason=\"site\"}"), 6.0);
}

#[tokio::test]
async fn with_a_token_a_login_opens_the_page() {
    let site = Site::start(Some(TOKEN), 1);
    let (head, body) = site.get("/", &[]).await;
    assert!(status(&head) == 401 && head.contains("www-authenticate: bearer realm=\"keyway\""), "{head}");
    assert!(body.contains("action=\"/login\"") && !body.contains("shop"), "{body}");
    let (head, body) = site.get("/api/hotspots?database=shop", &[]).await;
    assert!(
        status(&head) == 401 && head.contains("www-authenticate") && body.starts_with("{\"error\""),
        "{head}{body}"
    );

    let form = "Content-Type: application/x-www-form-urlencoded";
    let (head, body) = site.ask("POST /login", &[form], "token=0123456789abcdeg").await;
    assert!(status(&head) == 401 && body.contains("that is not the token") && !head.contains("set-cookie"));
    let of_site = [form, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"];
    assert_eq!(status(&site.ask("POST /login", &of_site, &format!("token={TOKEN}")).await.0), 403);
    let (head, _) = site.ask("POST /login", &[form], &format!("token={TOKEN}")).await;
    assert!(status(&head) == 303 && head.contains("location: /\r\n"), "{head}");
    let set = head.lines().find_map(|it| it.strip_prefix("set-cookie: ")).unwrap();
    assert!(set.contains("httponly; samesite=strict"), "{set}");
    let cookie = format!("Cookie: {}", set.split(';').next().unwrap());
    let (head, body) = site.get("/", &[&cookie]).await;
    assert!(status(&head) == 200 && body.contains("Log out") && body.contains("key &amp; 42"));
    let (head, _) = site.ask("POST /logout", &[&cookie], "").await;
    assert!(status(&head) == 303 && head.contains("max-age=0"), "{head}");
    let (head, body) =
        site.get("/api/hotspots?database=shop", &[&format!("Authorization: Bearer {TOKEN}")]).await;
    assert!(
        status(&head) == 200 && body.contains("key & 42") && body.contains("\"keys_are_redacted\":false")
    );
    let (head, _) = site.get("/login", &[]).await;
    assert!(
        status(&head) == 303 && head.contains("location: /\r\n"),
        "what a reload after a wrong one asks for"
    );
    let long = format!("token={}", "x".repeat(10_000));
    assert_eq!(status(&site.ask("POST /login", &[form], &long).await.0), 413);

    // A reload takes effect at once, for those that are logged in as well.
    site.admission.send_replace(admission(Some("fedcba9876543210"), 1));
    assert_eq!(status(&site.get("/", &[&cookie]).await.0), 401);
    site.admission.send_replace(admission(None, 1));
    let (head, body) = site.get("/", &[]).await;
    assert!(status(&head) == 200 && !body.contains("key &amp; 42") && body.contains("#0123456789abcdef"));
}

#[tokio::test]
async fn json_says_what_was_wrong_with_a_question() {
    let site = Site::start(None, 1);
    let heat = "/api/heatmap?database=shop&map=by_user";
    for (path, code, part) in [
        ("/api/hotspots", 404, "database=NAME with one of empty, shop"),
        ("/api/hotspots?database=x", 404, "one of empty, shop"),
        ("/api/heatmap?database=shop&map=x", 404, "has no map x"),
        (&format!("{heat}&metric=heat"), 400, "metric is one of calls, reads"),
        (&format!("{heat}&last=soon"), 400, "last is a duration"),
        (&format!("{heat}&rows=0"), 400, "rows is a whole number from 1 to 512"),
        (&format!("{heat}&columns=1001"), 400, "columns is a whole number from 1 to 1000"),
    ] {
        let (head, body) = site.get(path, &[]).await;
        assert!(status(&head) == code && body.contains(part), "{path}: {head} {body}");
    }
    let (head, body) = site.get(&format!("{heat}&metric=time&last=90m"), &[]).await;
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status(&head), &json["cells"][1][3], &json["cells"][0][0]),
        (200, &91.0.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&json["rows"][2]["shard"], &json["shape"], &json["unit"]),
        (&"s2".into(), &"one line".into(), &"µs/s".into())
    );
    let (_, body) = site.get("/api/status", &[]).await;
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    let replica = &json["databases"][1]["shards"][0]["servers"][1];
    assert_eq!((&replica["role"], &replica["lag_ms"]), (&"replica".into(), &8.into()));
}

#[tokio::test]
async fn a_choice_of_colours_is_kept() {
    let site = Site::start(None, 1);
    let (head, body) = site.get("/?theme=dark", &[]).await;
    assert!(
        head.contains("set-cookie: keyway_theme=dark; path=/; samesite=strict")
            && body.contains("data-theme=\"dark\"")
    );
    let (_, body) = site.get("/", &["Cookie: keyway_theme=light"]).await;
    assert!(body.contains("data-theme=\"light\""));
    let (_, body) = site.get("/", &["Cookie: keyway_theme=\"><script>"]).await;
    assert!(!body.contains("data-theme"));
    let (head, _) = site.get("/?theme=auto", &["Cookie: keyway_theme=light"]).await;
    assert!(head.contains("keyway_theme=; path=/; samesite=strict; max-age=0"), "{head}");
}

#[tokio::test]
async fn streams_tell_what_is_new_and_are_counted() {
    let site = Site::start(None, 1);
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut stream = site.send(&ask("/page/events?text=s1")).await;
    let first = read_until(&mut stream, |it| it.contains("\n\n") && it.contains("event: parts")).await;
    assert!(
        first.contains("content-type: text/event-stream")
            && first.to_lowercase().contains("connection: close")
    );
    assert!(first.contains("retry:1000") || first.contains("retry: 1000"), "{first}");
    assert_eq!(site.counted("keyway_admin_streams"), 1.0);
    let (head, body) = site.get("/api/events", &[]).await;
    assert!(
        status(&head) == 503 && head.contains("retry-after: 5") && body.contains("admin_streams_max"),
        "{head}"
    );
    assert_eq!(site.counted("keyway_limit_hits_total{limit=\"admin_streams_max\"}"), 1.0);
    drop(stream);
    let begun = std::time::Instant::now();
    while site.counted("keyway_admin_streams") > 0.0 {
        assert!(begun.elapsed() < LONG, "its place is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut stream = site.send(&ask("/api/events")).await;
    let twice = read_until(&mut stream, |it| it.matches("event: status").count() > 1).await;
    let data = twice.lines().find_map(|it| it.strip_prefix("data: ")).unwrap();
    let json: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(json["databases"][1]["name"], "shop");
}

#[tokio::test]
async fn a_new_token_ends_streams_and_another_bound_does_not() {
    let site = Site::start(Some(TOKEN), 2);
    let ask = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
    };
    let mut streams = [site.send(&ask("/api/events")).await, site.send(&ask("/page/events")).await];
    for stream in &mut streams {
        read_until(stream, |it| it.contains("\n\n") && it.contains("event: ")).await;
    }
    site.admission.send_replace(admission(Some(TOKEN), 7));
    read_until(&mut streams[0], |it| it.matches("event: ").count() > 1).await;
    site.admission.send_replace(admission(Some("fedcba9876543210"), 7));
    for stream in &mut streams {
        let mut rest = String::new();
        timeout(LONG, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "the last chunk: {rest}");
    }
}

#[tokio::test]
async fn guesses_of_the_token_take_their_time() {
    let site = Site::start(Some(TOKEN), 1);
    for guess in ["0123456789abcdeF", "x"] {
        let begun = std::time::Instant::now();
        let (head, _) = site.get("/api/status", &[&format!("Authorization: Bearer {guess}")]).await;
        assert!(status(&head) == 401 && begun.elapsed() >= Duration::from_millis(500), "{head}");
    }
    let (head, _) = site.get("/api/status", &[&format!("Authorization: Bearer {TOKEN}")]).await;
    assert_eq!(status(&head), 200);
    assert_eq!(site.counted("keyway_admin_refusals_total{reason=\"token\"}"), 2.0);
}

#[tokio::test]
async fn a_stop_ends_streams_in_order() {
    let mut site = Site::start(None, 2);
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut streams = [site.send(&ask("/api/events")).await, site.send(&ask("/page/events")).await];
    for stream in &mut streams {
        read_until(stream, |it| it.contains("\n\n") && it.contains("event: ")).await;
    }
    drop(site.stop.take());
    for stream in &mut streams {
        let mut rest = String::new();
        timeout(LONG, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "the last chunk: {rest}");
    }
    timeout(LONG, site.serving).await.unwrap().unwrap().unwrap();
}
