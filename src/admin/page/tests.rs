use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::admin::api;
use crate::admin::status::{PoolStatus, ServerStatus, ShardStatus};
use crate::base::ShardId;
use crate::hotspot::{
    Advice, AdviceKind, Bounds, Column, Dimension, KeyReport, Load, Mark, MarkKind, Metric, Row, Shape,
    ShardReport, Skew, StatementReport, TableReport,
};

pub const AT_S: u64 = 1_798_286_400;
pub const HASH: u64 = 0x0123_4567_89ab_cdef;
/// What must not be shown to those without the token.
pub const KEY: &str = "'<b>key & 42</b>'";
pub const SNIPPET: &str = "pinned = [{ key = \"<b>key & 42</b>\", shard = \"s2\" }]";

/// A shop with a hot key, a shard without a primary, and a database with nothing in it.
pub struct Shop;

pub fn seeing(may_see_keys: bool) -> Viewer {
    Viewer { may_see_keys, is_logged_in: may_see_keys }
}

fn server(address: &str, role: &'static str) -> ServerStatus {
    let pools = PoolStatus { active: 3, idle: 2, connecting: 0, waiters: 0, size: 20 };
    ServerStatus { address: address.into(), role, breaker: "closed", pools, ..ServerStatus::default() }
}

fn shard(name: &str, reads_per_second: f64, servers: Vec<ServerStatus>) -> ShardStatus {
    ShardStatus {
        name: name.into(),
        reads_per_second,
        writes_per_second: 10.0,
        history: vec![1.0, 2.0, 4.0],
        servers,
        ..ShardStatus::default()
    }
}

pub fn key(rank: u16, share: Bounds, heat: Heat) -> KeyReport {
    KeyReport {
        rank,
        hash: HASH + u64::from(rank) - 1,
        text: Some(KEY.into()),
        table: None,
        shard: ShardId(0),
        part: 17,
        calls: Bounds { lower: share.lower * 6_000.0, upper: share.upper * 6_000.0 },
        reads: Bounds { lower: 30.0, upper: 30.0 },
        writes: Bounds { lower: 10.0, upper: 10.0 },
        time_us: Bounds::default(),
        calls_share: share,
        time_share: share,
        heat,
        hot_since_s: (heat > Heat::Cool).then_some(AT_S - 30),
    }
}

fn map_report() -> MapReport {
    let hot = key(1, Bounds { lower: 0.481, upper: 0.4933 }, Heat::Danger);
    let others = (2..=40).map(|it| key(it, Bounds { lower: 0.001, upper: 0.002 }, Heat::Cool));
    let load = Load { calls: 6_000, rows: 6_000, bytes: 600_000, time_us: 3_000_000, errors: 0 };
    MapReport {
        map: "by_user".into(),
        part_name: "slot",
        parts: 4_096,
        reads: load,
        skews: [Skew { max_over_mean: 1.51, variation: 0.51, gini: 0.26 }; Dimension::COUNT],
        scatter_ratio: 0.031,
        distinct_keys: 2_000.0,
        direction: Some(0.01),
        keys: [hot].into_iter().chain(others).collect(),
        top_shares: [[Bounds { lower: 0.481, upper: 0.4933 }; 3]; 2],
        heat: Heat::Danger,
        ..MapReport::default()
    }
}

impl Source for Shop {
    fn status(&self) -> Status {
        let replica = ServerStatus {
            serves: Some(true),
            lag_ms: Some(8),
            lag_bytes: Some(1_500),
            ..server("10.0.1.2:5432", "replica")
        };
        let dead = ServerStatus {
            problem: Some("<refused>".into()),
            breaker: "open",
            ..server("10.0.2.1:5432", "")
        };
        let shards = vec![
            shard("s1", 90.0, vec![server("10.0.1.1:5432", "primary"), replica]),
            shard("s2", 10.0, vec![dead]),
        ];
        let shop = DatabaseStatus { name: "shop".into(), shards, refusals: vec![("missing_key", 1_234)] };
        let empty = DatabaseStatus { name: "empty".into(), ..DatabaseStatus::default() };
        Status { version: "0.1.0", at_s: AT_S, clients: 24, databases: vec![empty, shop] }
    }

    fn hotspots(&self, database: &str) -> Option<Arc<Report>> {
        if database != "shop" {
            return Some(Arc::default());
        }
        let advice = Advice {
            kind: AdviceKind::SingleKey,
            heat: Heat::Danger,
            map: Some("by_user".into()),
            text: "one key has at least 48.1 % of the calls".into(),
            windows: (3, 5),
            max_over_mean: Some((1.51, 1.02)),
            snippet: Some(SNIPPET.into()),
        };
        let of_shard = |name: &str, heat| ShardReport { shard: name.into(), heat, ..ShardReport::default() };
        let table = TableReport { table: "orders".into(), ..TableReport::default() };
        Some(Arc::new(Report {
            at_s: AT_S - 5,
            span_s: 60,
            shards: vec![of_shard("s1", Heat::Warning), of_shard("s2", Heat::Cool)],
            tables: vec![table],
            maps: vec![map_report()],
            advice: vec![advice],
        }))
    }

    fn heat_map(
        &self,
        database: &str,
        map: &str,
        _metric: Metric,
        _last: Duration,
        _rows: usize,
        _columns: usize,
    ) -> Option<HeatMap> {
        if (database, map) != ("shop", "by_user") {
            return None;
        }
        let column = |it: u64| Column { from_s: AT_S - 40 + 10 * it, to_s: AT_S - 30 + 10 * it };
        let row = |it: u32, shard| Row {
            first_part: it * 1_024,
            last_part: it * 1_024 + 1_023,
            shard: ShardId(shard),
            name: format!("slots {}-{}", it * 1_024, it * 1_024 + 1_023),
        };
        let mark = Mark { at_s: AT_S - 15, kind: MarkKind::Reload, text: "configuration reloaded".into() };
        Some(HeatMap {
            columns: (0..4).map(column).collect(),
            rows: vec![row(0, 0), row(1, 0), row(2, 1), row(3, 1)],
            cells: [
                [None, Some(1.0), Some(1.0), Some(1.0)],
                [None, Some(90.0), Some(90.0), Some(91.0)],
                [None, Some(0.0), Some(1.0), Some(1.0)],
                [None, Some(1.0), Some(1.0), None],
            ]
            .concat(),
            marks: vec![mark],
            shape: Shape::Line,
        })
    }

    fn statements(&self, database: &str) -> Vec<StatementReport> {
        let text = "SELECT name FROM users WHERE user_id = $1 AND name < $2";
        let it = StatementReport {
            fingerprint: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
            text: text.into(),
            calls: 1_200,
            errors: 0,
            rows: 1_200,
            time_us: 1_800_000,
            missed_us: 0,
            max_us: 9_000,
            shard: "s1".into(),
        };
        if database == "shop" { vec![it] } else { Vec::new() }
    }

    fn metrics(&self) -> Result<String, String> {
        Ok("keyway_clients 24\n".into())
    }

    fn missing(&self) -> Vec<String> {
        Vec::new()
    }
}

fn page(query: &[(&str, &str)], may_see_keys: bool) -> String {
    let pairs: Vec<_> = query.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    document(&Facts::gather(&Shop, &View::of_query(&pairs), seeing(may_see_keys), None), None)
}

/// The text of one part, as the page has it.
fn part(query: &[(&str, &str)], id: &str) -> String {
    let pairs: Vec<_> = query.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let facts = Facts::gather(&Shop, &View::of_query(&pairs), seeing(true), None);
    parts(&facts, true).into_iter().find(|it| it.id == id).unwrap().html
}

#[test]
fn the_hottest_database_is_shown_with_all_that_is_known() {
    let html = page(&[], true);
    for (what, times) in [
        ("<option selected>shop</option>", 1),
        ("<b class=\"badge warning\">HOT</b>", 2),
        ("<a href=\"?database=shop&amp;shard=s1#h-keys\">Shard s1</a>", 1),
        ("1 shard without a primary", 2),
        ("lag 8 ms, 1.5 kB behind", 1),
        ("breaker open", 1),
        ("48.1 to 49.3 %", 10),
        ("held in 3 of the last 5 windows; max over mean 1.51, then 1.02", 1),
        ("One line: few parts have much of the load all the time.", 2),
        ("slots 1024-2047", 1),
        ("configuration reloaded", 2),
        ("<td class=n>75.0 %<td class=picture>", 10),
        ("missing_key<td class=n>1,234", 1),
        ("24 clients", 1),
        ("about 2,000 different keys named, 3.1 % of its calls", 1),
        ("name &lt; $2", 1),
        ("<td>s1<td class=n>1,200<td class=n>1.5 ms<td class=n>9.0 ms<td class=n>1.8 s", 1),
    ] {
        assert_eq!(html.matches(what).count(), times, "{what}");
    }
    assert!(html.contains("&lt;refused&gt;") && !html.contains("<refused>"));
}

#[test]
fn keys_and_snippets_are_for_those_who_may_see_them() {
    let (all, some) = (page(&[], true), page(&[], false));
    let shown = format!("{}", Text(KEY));
    assert!(all.contains(&shown) && all.contains(&format!("{}", Text(SNIPPET))));
    assert!(!all.contains(KEY) && !all.contains("<b>key"), "escaped");
    for secret in [KEY, &shown, "key &amp; 42", "pinned ="] {
        assert!(!some.contains(secret), "{secret}");
    }
    assert!(some.contains("#0123456789abcdef") && some.contains("admin_token"));
    // Who may not see a key may not find out about it by looking for it either.
    let found = |may_see_keys| {
        page(&[("text", "key & 42")], may_see_keys).contains("<code title=\"hash 0123456789abcdef\"")
    };
    assert!(found(true) && !found(false));
    let json = |it| {
        let (report, status) = (Shop.hotspots("shop").unwrap(), Shop.status());
        let shards = api::Shards(&status.databases[1].shards);
        api::hotspots("shop", &shards, &report, &Shop.statements("shop"), seeing(it)).to_string()
    };
    assert!(json(true).contains("key & 42") && json(true).contains("pinned ="));
    assert!(!json(false).contains("key & 42") && !json(false).contains("pinned ="));
    assert!(json(false).contains("\"hash\":\"0123456789abcdef\""));
}

#[test]
fn filters_leave_what_fits() {
    let text = |text: &str, id: &str| part(&[("database", "shop"), ("text", text)], id);
    assert!(
        text("10.0.1.2", "topology").contains("10.0.1.2")
            && !text("10.0.1.2", "topology").contains("10.0.1.1")
    );
    assert!(
        text("10.0.1.2", "pools").contains("10.0.1.2") && !text("10.0.1.2", "pools").contains("10.0.1.1")
    );
    assert!(text("nothing at all", "topology").contains("Nothing here fits the filter."));
    assert!(
        text("missing", "refusals").contains("missing_key") && !text("x", "refusals").contains("missing")
    );
    assert!(
        text("USERS", "statements").contains("SELECT name")
            && !text("orders", "statements").contains("SELECT")
    );
    assert!(text("0123456789abcdf0", "keys").contains("hash 0123456789abcdf0"));
    assert!(!text("0123456789abcdf0", "keys").contains("#0123456789abcdef"));
    let shard = |shard: &str, id: &str| part(&[("shard", shard)], id);
    assert!(shard("s2", "load").contains("</i>s2") && !shard("s2", "load").contains("</i>s1"));
    assert!(shard("s2", "keys").contains("No key stands out") && shard("s1", "keys").contains("DANGER"));
    let keys = |keys: &str| part(&[("keys", keys)], "keys").matches("<th scope=row>").count();
    assert_eq!((keys(""), keys("all")), (10, 40));
}

#[test]
fn a_page_of_little_says_so() {
    let html = page(&[("database", "empty")], true);
    assert!(html.contains("No map places keys on shards here."));
    assert!(html.contains("Nothing was refused since the start."));
    assert!(html.contains("No statement was timed."));
    let none = Facts {
        status: Status::default(),
        view: View::default(),
        viewer: seeing(false),
        shown: 0,
        report: Arc::default(),
        heat: None,
        statements: Vec::new(),
    };
    assert!(document(&none, Some("dark")).contains("No database is configured."));
    assert!(document(&none, Some("dark")).contains("<html lang=en data-theme=\"dark\">"));
}

#[test]
fn cells_of_one_level_are_drawn_as_runs() {
    let html = part(&[], "heat");
    // Not the first column, in which nothing was recorded; three cells of the hot row, and others.
    assert!(html.contains("class=unknown d=\"M2 3h1v1h-1z\""));
    assert!(html.contains("data-level=11 d=\"M0 1h3v1h-3z\""));
    assert!(html.contains("M0 0h3v1h-3zM1 2h2v1h-2zM0 3h2v1h-2z"));
    assert!(html.contains("class=\"mark reload\" x1=\"1.50\""));
    assert!(
        html.contains("<g class=c0><rect y=\"0.0\" width=56 height=\"167.0\"><title>s1</title>"),
        "{html}"
    );
    let ticks = html.split("<p class=ticks>").nth(1).unwrap().split("</p>").next().unwrap();
    let times: Vec<_> = ticks.split("</time>").filter_map(|it| it.rsplit('>').next()).collect();
    assert_eq!(times, ["11:59:30", "11:59:40", "11:59:50", "12:00:00", ""]);
    assert!(part(&[("brightness", "2")], "heat").contains("class=h13 data-level=11"));
}

/// A policy without inline styles and scripts is worth nothing where the page has some.
#[test]
fn the_page_is_all_its_own() {
    for html in [page(&[], true), refused("no", true, None)] {
        for outside in ["http://", "https://", "//fonts", "style=", "<style", "javascript:", " onclick"] {
            let html = html.replace(ICON, "");
            assert!(!html.contains(outside), "{outside} in {html}");
        }
        assert_eq!(
            html.matches("<script").count(),
            html.matches("<script src=\"/page.js\" defer></script>").count()
        );
    }
    for text in [STYLE, SCRIPT] {
        let text = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://") && !text.contains("@import") && !text.contains("eval("), "{text}");
    }
}

/// As far as text tells: each table has a caption, each field a label, each picture words or nothing to say.
#[test]
fn the_page_can_be_read_without_seeing_it() {
    let html = page(&[], true);
    assert_eq!(html.matches("<table>").count(), html.matches("<caption>").count());
    for element in html.split('<').filter(|it| it.starts_with("svg")) {
        assert!(element.contains("aria-hidden=true") || element.contains("aria-label="), "{element}");
    }
    for element in ["<select", "<input"] {
        for (at, _) in html.match_indices(element) {
            let label = html[..at].rfind("<label>").unwrap();
            assert!(!html[label..at].contains("</label>"), "{}", &html[at..at + 60]);
        }
    }
    let ids: Vec<_> =
        html.split(" id=").skip(1).map(|it| it.split([' ', '>']).next().unwrap().trim_matches('"')).collect();
    let mut once = ids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), ids.len(), "{ids:?}");
    assert!(html.contains("<html lang=en>") && html.contains("class=skip href=\"#main\""));
}
