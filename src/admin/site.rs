//! The dashboard over HTTP: who asks, what for, and the policies that browsers hold the answers to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Form, FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use xxhash_rust::xxh3::xxh3_64;

use super::access::{Admission, Asking, Denial, Viewer, cookie};
use super::events::{self, PageReader, Rights, Streams, Wanted};
use super::listener::Peer;
use super::metrics::AdminMetrics;
use super::page::{self, Facts, SPANS, View, span_of};
use super::{Source, Status, api};
use crate::client::unix_s;
use crate::hotspot::Metric;
use crate::metrics::Limit;

/// The page runs its own script and style and nothing else, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];
/// More than any token.
const LOGIN_BYTES_MAX: usize = 8_192;
/// Guesses take their time, each a connection's.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(500);
/// A stream ends so long before its connection does.
const STREAM_MARGIN: Duration = Duration::from_secs(2);
const THEME_COOKIE: &str = "keyway_theme";
const THEME_MAX_AGE_S: u64 = 365 * 86_400;
const HEAT_ROWS_MAX: usize = 512;
const HEAT_COLUMNS_MAX: usize = 1_000;

/// What the handlers share.
pub struct Site {
    source: Arc<dyn Source>,
    admission: watch::Receiver<Admission>,
    metrics: AdminMetrics,
    streams: Arc<Streams>,
    /// Where it is bound.
    local: SocketAddr,
    /// The process stops.
    ended: watch::Receiver<bool>,
}

type Pairs = Query<Vec<(String, String)>>;

impl Site {
    pub fn new(
        source: Arc<dyn Source>,
        admission: watch::Receiver<Admission>,
        metrics: AdminMetrics,
        local: SocketAddr,
        ended: watch::Receiver<bool>,
    ) -> Arc<Site> {
        let streams = Streams::new(metrics.streams.clone());
        Arc::new(Site { source, admission, metrics, streams, local, ended })
    }

    pub fn router(self: Arc<Site>) -> Router {
        Router::new()
            .route("/", get(document))
            .route("/page/events", get(page_events))
            .route("/api/status", get(status))
            .route("/api/hotspots", get(hotspots))
            .route("/api/heatmap", get(heat_map))
            .route("/api/events", get(status_events))
            .route("/login", post(log_in).get(|| async { Redirect::to("/") }))
            .route("/logout", post(log_out))
            .route("/page.css", get(|of: HeaderMap| async move { asset(&of, page::STYLE, "text/css") }))
            .route(
                "/page.js",
                get(|of: HeaderMap| async move { asset(&of, page::SCRIPT, "text/javascript") }),
            )
            .layer(DefaultBodyLimit::max(LOGIN_BYTES_MAX))
            .layer(map_response(with_policies))
            .with_state(self)
    }

    fn asking<'a>(&self, peer: Peer, headers: &'a HeaderMap) -> Asking<'a> {
        Asking { peer: peer.address, local: self.local, headers, now_s: unix_s() }
    }

    fn stream(&self, Admitted { peer, by, .. }: Admitted, wanted: Wanted) -> Response {
        let max = self.admission.borrow().streams_max;
        let Some(place) = self.streams.place(max) else {
            self.metrics.limit_hits.hit(Limit::AdminStreams);
            let error =
                json!({ "error": format!("{max} streams are open, as many as admin_streams_max allows") });
            let again = [(header::RETRY_AFTER, "5")];
            return (StatusCode::SERVICE_UNAVAILABLE, again, Json(error)).into_response();
        };
        let end = peer.end.checked_sub(STREAM_MARGIN).unwrap_or(peer.end);
        let rights = Rights { by, now: self.admission.clone() };
        events::stream(self.source.clone(), wanted, place, rights, (self.ended.clone(), end))
    }
}

/// Somebody who may see what was asked for.
struct Admitted {
    viewer: Viewer,
    peer: Peer,
    by: Admission,
}

impl FromRequestParts<Arc<Site>> for Admitted {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Admitted, Response> {
        let Ok(ConnectInfo(peer)) = ConnectInfo::<Peer>::from_request_parts(parts, site).await else {
            return Err(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        };
        let (asking, by) = (site.asking(peer, &parts.headers), site.admission.borrow().clone());
        let denial = match asking.check_same_site(&parts.method).and_then(|()| by.viewer(&asking)) {
            Ok(viewer) => return Ok(Admitted { viewer, peer, by }),
            Err(it) => it,
        };
        site.metrics.refused(denial);
        if denial == Denial::Token && asking.bearer().is_some() {
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
        }
        if parts.uri.path() == "/" {
            return Err(refused_page(denial, denial.text(), &parts.headers));
        }
        let error = Json(json!({ "error": denial.text() }));
        Err((denial.status(), challenge(denial), error).into_response())
    }
}

/// RFC 9110 wants one with each 401; a browser does not ask for this scheme by itself.
fn challenge(denial: Denial) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if denial == Denial::Token {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"keyway\""));
    }
    headers
}

fn refused_page(denial: Denial, text: &str, headers: &HeaderMap) -> Response {
    let html = page::refused(text, denial == Denial::Token, theme_of(headers));
    (denial.status(), challenge(denial), Html(html)).into_response()
}

async fn with_policies(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Kept by browsers and asked for again each time: another version of Keyway may be behind the address.
fn asset(asking: &HeaderMap, text: &'static str, kind: &'static str) -> Response {
    let tag = format!("\"{}-{:016x}\"", env!("CARGO_PKG_VERSION"), xxh3_64(text.as_bytes()));
    let known = asking.get(header::IF_NONE_MATCH).and_then(|it| it.to_str().ok());
    let is_known = known.is_some_and(|it| it.split(',').any(|it| it.trim().trim_start_matches("W/") == tag));
    let kind = format!("{kind}; charset=utf-8");
    let headers =
        [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned()), (header::CONTENT_TYPE, kind)];
    if is_known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, text).into_response()
    }
}

/// `light` or `dark`, where the viewer has chosen.
fn theme_of(headers: &HeaderMap) -> Option<&'static str> {
    cookie(headers, THEME_COOKIE).and_then(theme_named)
}

fn theme_named(name: &str) -> Option<&'static str> {
    ["light", "dark"].into_iter().find(|it| *it == name)
}

async fn document(
    State(site): State<Arc<Site>>,
    admitted: Admitted,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Response {
    let chosen = pairs.iter().rev().find(|it| it.0 == "theme").map(|it| it.1.as_str());
    let theme = chosen.map_or_else(|| theme_of(&headers), theme_named);
    let (source, view) = (site.source.clone(), View::of_query(&pairs));
    let html =
        spawn_blocking(move || page::document(&Facts::gather(&*source, &view, admitted.viewer, None), theme));
    let mut response = match html.await {
        Ok(html) => Html(html).into_response(),
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    if chosen.is_some() {
        let (value, max_age_s) = theme.map_or(("", 0), |it| (it, THEME_MAX_AGE_S));
        let cookie = format!("{THEME_COOKIE}={value}; Path=/; SameSite=Strict; Max-Age={max_age_s}");
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, value);
        }
    }
    response
}

async fn page_events(State(site): State<Arc<Site>>, admitted: Admitted, Query(pairs): Pairs) -> Response {
    let reader = PageReader::new(View::of_query(&pairs), admitted.viewer);
    site.stream(admitted, Wanted::Page(Box::new(reader)))
}

async fn status_events(State(site): State<Arc<Site>>, admitted: Admitted) -> Response {
    site.stream(admitted, Wanted::Status)
}

async fn status(State(site): State<Arc<Site>>, _: Admitted) -> Response {
    Json(api::status(&site.source.status())).into_response()
}

fn of<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
}

fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

/// The database that is named, or the only one.
fn database_named(status: &Status, pairs: &[(String, String)]) -> Result<usize, String> {
    let names = || status.databases.iter().map(|it| it.name.as_str());
    let found = match of(pairs, "database") {
        Some(wanted) => names().position(|it| it == wanted),
        None if status.databases.len() == 1 => Some(0),
        None => None,
    };
    found.ok_or_else(|| format!("database=NAME with one of {}", names().collect::<Vec<_>>().join(", ")))
}

async fn hotspots(State(site): State<Arc<Site>>, admitted: Admitted, Query(pairs): Pairs) -> Response {
    let source = site.source.clone();
    let written = spawn_blocking(move || {
        let status = source.status();
        let database = match database_named(&status, &pairs) {
            Ok(it) => &status.databases[it],
            Err(text) => return error(StatusCode::NOT_FOUND, &text),
        };
        let report = source.hotspots(&database.name).unwrap_or_default();
        let (statements, shards) = (source.statements(&database.name), api::Shards(&database.shards));
        Json(api::hotspots(&database.name, &shards, &report, &statements, admitted.viewer)).into_response()
    });
    written.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// What is asked of a heat map: metric, span, rows, columns.
fn heat_wanted(pairs: &[(String, String)]) -> Result<(Metric, Duration, usize, usize), String> {
    let metric = of(pairs, "metric").unwrap_or(Metric::Calls.label());
    let metric = Metric::of_label(metric)
        .ok_or_else(|| format!("metric is one of {}", Metric::ALL.map(Metric::label).join(", ")))?;
    let last = of(pairs, "last").unwrap_or(SPANS[0].0);
    let last = match span_of(last) {
        Some(it) => SPANS[it].2,
        None => humantime::parse_duration(last).map_err(|_| "last is a duration such as 90m".to_owned())?,
    };
    let count = |name: &str, default: usize, max: usize| match of(pairs, name) {
        None => Ok(default),
        Some(it) => it
            .parse()
            .ok()
            .filter(|it| (1..=max).contains(it))
            .ok_or_else(|| format!("{name} is a whole number from 1 to {max}")),
    };
    Ok((metric, last, count("rows", 48, HEAT_ROWS_MAX)?, count("columns", 120, HEAT_COLUMNS_MAX)?))
}

async fn heat_map(State(site): State<Arc<Site>>, _: Admitted, Query(pairs): Pairs) -> Response {
    let source = site.source.clone();
    let written = spawn_blocking(move || {
        let (metric, last, rows, columns) = match heat_wanted(&pairs) {
            Ok(it) => it,
            Err(text) => return error(StatusCode::BAD_REQUEST, &text),
        };
        let status = source.status();
        let database = match database_named(&status, &pairs) {
            Ok(it) => &status.databases[it],
            Err(text) => return error(StatusCode::NOT_FOUND, &text),
        };
        let map = of(&pairs, "map").unwrap_or("");
        match source.heat_map(&database.name, map, metric, last, rows, columns) {
            Some(it) => Json(api::heat_map(&it, metric, &api::Shards(&database.shards))).into_response(),
            None => error(StatusCode::NOT_FOUND, &format!("database {} has no map {map}", database.name)),
        }
    });
    written.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn log_in(
    State(site): State<Arc<Site>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Response {
    let given = of(&pairs, "token").unwrap_or("");
    let cookie = site.admission.borrow().log_in(given, &site.asking(peer, &headers));
    match cookie {
        Ok(cookie) => home(&cookie),
        Err(denial) => {
            site.metrics.refused(denial);
            tracing::warn!(peer = %peer.address, reason = denial.label(), "login to the dashboard refused");
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
            let text = if denial == Denial::Token { "that is not the token" } else { denial.text() };
            refused_page(denial, text, &headers)
        }
    }
}

async fn log_out(
    State(site): State<Arc<Site>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
) -> Response {
    let asking = site.asking(peer, &headers);
    match asking.check_same_site(&Method::POST) {
        Ok(()) => home(&asking.log_out()),
        Err(denial) => refused_page(denial, denial.text(), &headers),
    }
}

fn home(cookie: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, "/"), (header::SET_COOKIE, cookie)]).into_response()
}
