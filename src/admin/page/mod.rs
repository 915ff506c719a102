//! The dashboard: one document that needs nothing from anywhere else. It is written here as a whole, so that it can be
//! read without a script; the script asks for the parts that have changed and puts them in place.

mod draw;
mod heat;
mod hot;
mod html;
mod shards;
mod view;

pub use html::Text;
pub use view::{SPANS, View, span_of};

use std::fmt::Write;
use std::sync::Arc;

use super::Source;
use super::access::Viewer;
use super::status::{DatabaseStatus, Status};
use crate::hotspot::{Heat, HeatMap, MapReport, Report, StatementReport};
use html::{clock, encoded, plural, put};

pub const STYLE: &str = include_str!("page.css");
pub const SCRIPT: &str = include_str!("page.js");
pub const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='4' fill='%233b4a5e'/%3E%3Cpath d='M8 3a2.6 2.6 0 0 1 1.2 4.9L10 13H6l.8-5.1A2.6 2.6 0 0 1 8 3z' fill='%23fff'/%3E%3C/svg%3E";

/// Rows and columns of the heat map, at most.
const HEAT_ROWS: usize = 48;
const HEAT_COLUMNS: usize = 120;

/// What one look at the page is made of.
pub struct Facts {
    pub status: Status,
    pub view: View,
    pub viewer: Viewer,
    /// Which of `Status::databases` is shown; nothing where there is none.
    shown: usize,
    report: Arc<Report>,
    heat: Option<HeatMap>,
    statements: Vec<StatementReport>,
}

/// A part of the page that changes with time, by the id of its element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub id: &'static str,
    pub html: String,
}

impl Facts {
    /// `heat_of` is the report whose heat map the viewer has: the same one is not drawn again.
    pub fn gather(source: &dyn Source, view: &View, viewer: Viewer, heat_of: Option<u64>) -> Facts {
        let status = source.status();
        let report_of = |it: &DatabaseStatus| source.hotspots(&it.name).unwrap_or_default();
        let wanted = view.database.as_deref();
        let named = status.databases.iter().position(|it| Some(it.name.as_str()) == wanted);
        let shown = named
            .unwrap_or_else(|| hottest(status.databases.iter().map(|it| heat_of_report(&report_of(it)))));
        let database = status.databases.get(shown);
        let report = database.map(report_of).unwrap_or_default();
        let statements = database.map(|it| source.statements(&it.name)).unwrap_or_default();
        let mut facts = Facts { status, view: view.clone(), viewer, shown, report, heat: None, statements };
        if heat_of != Some(facts.report.at_s)
            && let (Some(database), Some(map)) = (facts.database(), facts.map())
        {
            let (metric, last) = (view.metric, view.last());
            facts.heat = source.heat_map(&database.name, &map.map, metric, last, HEAT_ROWS, HEAT_COLUMNS);
        }
        facts
    }

    pub fn report_at_s(&self) -> u64 {
        self.report.at_s
    }

    fn database(&self) -> Option<&DatabaseStatus> {
        self.status.databases.get(self.shown)
    }

    /// Whose heat map is shown: the one that is asked for, else the hottest.
    fn map(&self) -> Option<&MapReport> {
        let maps = &self.report.maps;
        let named = maps.iter().find(|it| Some(it.map.as_str()) == self.view.map.as_deref());
        named.or_else(|| maps.get(hottest(maps.iter().map(|it| it.heat))))
    }

    fn shard_name(&self, shard: crate::base::ShardId) -> &str {
        let of = self.database().and_then(|it| it.shards.get(usize::from(shard.0)));
        of.map_or("?", |it| it.name.as_str())
    }

    fn is_hot(&self, shard: usize) -> bool {
        self.report.shards.get(shard).is_some_and(|it| it.heat > Heat::Cool)
    }

    /// The link to the same view of one shard.
    fn link_to_shard(&self, shard: &str) -> String {
        let database = self.database().map(|it| it.name.clone());
        View { database, shard: Some(shard.to_owned()), text: String::new(), ..self.view.clone() }.query()
    }

    /// The link to the same view with another database.
    fn link_to(&self, database: &str) -> String {
        View { database: Some(database.to_owned()), shard: None, map: None, ..self.view.clone() }.query()
    }
}

/// The first of the hottest; 0 of none.
fn hottest(heats: impl Iterator<Item = Heat>) -> usize {
    let mut best = (0, Heat::Cool);
    for (index, heat) in heats.enumerate() {
        if heat > best.1 {
            best = (index, heat);
        }
    }
    best.0
}

fn heat_of_report(report: &Report) -> Heat {
    let shards = report.shards.iter().map(|it| it.heat);
    shards.chain(report.maps.iter().map(|it| it.heat)).max().unwrap_or_default()
}

fn badge(heat: Heat) -> &'static str {
    match heat {
        Heat::Cool => "",
        Heat::Warning => "<b class=\"badge warning\">WARNING</b>",
        Heat::Danger => "<b class=\"badge danger\">DANGER</b>",
    }
}

/// A section of the page around a part.
struct Frame {
    id: &'static str,
    title: &'static str,
    class: &'static str,
}

/// In their order on the page.
const FRAMES: [Frame; 11] = [
    Frame { id: "figures", title: "Figures", class: "wide bare" },
    Frame { id: "overview", title: "Databases", class: "wide" },
    Frame { id: "topology", title: "Topology", class: "wide" },
    Frame { id: "load", title: "Load per shard", class: "wide" },
    Frame { id: "heat", title: "Heat map", class: "wide" },
    Frame { id: "keys", title: "Hot keys", class: "wide" },
    Frame { id: "advice", title: "Advice", class: "most" },
    Frame { id: "refusals", title: "Refusals", class: "rest" },
    Frame { id: "skew", title: "Skew", class: "wide" },
    Frame { id: "statements", title: "Slow statements", class: "wide" },
    Frame { id: "pools", title: "Pools", class: "wide" },
];

/// All parts but the heat map where the viewer has it already.
pub fn parts(facts: &Facts, with_heat: bool) -> Vec<Part> {
    let mut parts =
        vec![Part { id: "summary", html: summary(facts) }, Part { id: "alert", html: hot::alert(facts) }];
    for frame in &FRAMES {
        let html = match frame.id {
            "figures" => shards::figures(facts),
            "overview" => shards::overview(facts),
            "topology" => shards::topology(facts),
            "load" => shards::load(facts),
            "heat" if with_heat => heat::heat(facts),
            "heat" => continue,
            "keys" => hot::keys(facts),
            "advice" => hot::advice(facts),
            "skew" => hot::skew(facts),
            "statements" => hot::statements(facts),
            "pools" => shards::pools(facts),
            _ => shards::refusals(facts),
        };
        parts.push(Part { id: frame.id, html });
    }
    parts
}

/// `theme` is `light`, `dark`, or nothing for what the browser prefers.
pub fn document(facts: &Facts, theme: Option<&str>) -> String {
    let parts = parts(facts, true);
    let part = |id: &str| parts.iter().find(|it| it.id == id).map_or("", |it| it.html.as_str());
    let mut out = head(theme, "<script src=\"/page.js\" defer></script>");
    put!(out, "<body><a class=skip href=\"#main\">To the content</a><header>");
    put!(
        out,
        "<h1><img src=\"{ICON}\" alt=\"\" width=20 height=20> keyway</h1><div id=summary data-live>{}</div>",
        part("summary")
    );
    put!(out, "<p id=live role=status>as of the last load of the page</p>{}", theme_switch(theme));
    if facts.viewer.is_logged_in {
        out.push_str("<form method=post action=\"/logout\"><button>Log out</button></form>");
    }
    put!(
        out,
        "</header>{}<div id=alert data-live role=status>{}</div><main id=main>",
        filters(facts),
        part("alert")
    );
    for frame in &FRAMES {
        let Frame { id, title, class } = frame;
        if *id == "overview" && facts.status.databases.len() < 2 {
            continue;
        }
        put!(out, "<section class=\"{class}\" aria-labelledby=\"h-{id}\"><h2 id=\"h-{id}\">{title}</h2>");
        if *id == "heat" {
            out.push_str(&heat::controls(facts));
        }
        put!(out, "<div id=\"{id}\" data-live>{}</div></section>", part(id));
    }
    let database = facts.database().map(|it| encoded(&it.name)).unwrap_or_default();
    put!(
        out,
        "</main><footer><a href=\"/metrics\">metrics</a> <a href=\"/readyz\">readiness</a> \
         <a href=\"/api/status\">status as JSON</a> <a href=\"/api/hotspots?database={database}\">hotspots as JSON</a></footer></body></html>",
    );
    out
}

fn head(theme: Option<&str>, script: &str) -> String {
    let theme = theme.map(|it| format!(" data-theme=\"{}\"", Text(it))).unwrap_or_default();
    format!(
        "<!doctype html><html lang=en{theme}><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><meta name=color-scheme content=\"light dark\">\
         <title>keyway</title><link rel=icon href=\"{ICON}\"><link rel=stylesheet href=\"/page.css\">\
         {script}</head>"
    )
}

fn theme_switch(theme: Option<&str>) -> String {
    let mut out = String::from("<form id=theme method=get role=group aria-label=\"Colours\">");
    for (value, name) in [("auto", "Auto"), ("light", "Light"), ("dark", "Dark")] {
        let is_on = theme.unwrap_or("auto") == value;
        put!(out, "<button name=theme value={value} aria-pressed={is_on}>{name}</button>");
    }
    out + "</form>"
}

fn summary(facts: &Facts) -> String {
    let (status, mut without_primary) = (&facts.status, 0u64);
    for shard in status.databases.iter().flat_map(|it| &it.shards) {
        without_primary += u64::from(!shard.servers.iter().any(|it| it.role == "primary"));
    }
    let state = match without_primary {
        0 => "<span class=\"state ok\">every shard has a primary</span>".to_owned(),
        it => format!("<span class=\"state bad\">{} without a primary</span>", plural(it, "shard", "shards")),
    };
    format!(
        "<span class=muted>{}</span> {state} <span>{}</span> <span class=muted>as of {} UTC</span>",
        Text(status.version),
        plural(status.clients.max(0) as u64, "client", "clients"),
        clock(status.at_s, status.at_s)
    )
}

/// One form for all that can be chosen; the controls of the heat map belong to it too.
fn filters(facts: &Facts) -> String {
    let mut out = String::from("<form id=view method=get role=search aria-label=\"What is shown\">");
    let shown = facts.database();
    let names = facts.status.databases.iter().map(|it| it.name.as_str());
    options(&mut out, "database", "Database", None, names, shown.map(|it| it.name.as_str()));
    let shards = shown.into_iter().flat_map(|it| &it.shards).map(|it| it.name.as_str());
    options(&mut out, "shard", "Shard", Some("all shards"), shards, facts.view.shard.as_deref());
    put!(
        out,
        "<label>Filter <input type=search name=text value=\"{}\" placeholder=\"server, key, statement …\" \
         autocomplete=off spellcheck=false></label><button class=submit>Show</button>",
        Text(&facts.view.text)
    );
    if facts.view.is_filtered() {
        let all = View { shard: None, text: String::new(), ..facts.view.clone() };
        put!(out, "<a href=\"{}\">Show all</a>", Text(&all.query()));
    }
    out + "</form>"
}

fn options<'a>(
    out: &mut String,
    name: &str,
    label: &str,
    all: Option<&str>,
    values: impl Iterator<Item = &'a str>,
    chosen: Option<&str>,
) {
    put!(out, "<label>{label} <select form=view name={name}>");
    if let Some(all) = all {
        put!(out, "<option value=\"\">{all}</option>");
    }
    for value in values {
        let selected = if Some(value) == chosen { " selected" } else { "" };
        put!(out, "<option{selected}>{}</option>", Text(value));
    }
    out.push_str("</select></label>");
}

/// For those who may not see the page yet; `can_log_in` with the token.
pub fn refused(text: &str, can_log_in: bool, theme: Option<&str>) -> String {
    let mut out = head(theme, "");
    put!(
        out,
        "<body class=refused><main><h1><img src=\"{ICON}\" alt=\"\" width=20 height=20> keyway</h1><p role=alert>{}</p>",
        Text(text)
    );
    if can_log_in {
        out.push_str(
            "<form method=post action=\"/login\"><label>Token <input type=password name=token autocomplete=current-password \
             required autofocus></label><button>Log in</button></form>",
        );
    }
    out + "</main></body></html>"
}

#[cfg(test)]
pub(super) mod tests;
