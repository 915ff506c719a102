//! [databases.NAME.replicas], and a server's entry with more than its address.

use super::document::{Section, Value};
use super::{Address, Preference, Replicas, Share, WhenStale};
use super::{database, settings};

/// Patroni's own default.
const PATRONI_PORT: u16 = 8008;

pub fn replicas(section: &Section<'_>, name: &str) -> Replicas {
    let path = format!("databases.{name}.replicas");
    let it = section.section(settings::REPLICAS_SECTION.key, &path);
    it.check_keys(settings::REPLICAS);
    Replicas {
        zone: zone(&it),
        zone_penalty: it.count(&settings::ZONE_PENALTY),
        slow_start: it.duration(&settings::SLOW_START).unwrap_or_default(),
        when_stale: when_stale(&it),
        primary_read_share: primary_read_share(&it),
    }
}

/// A server as its entry describes it.
pub struct Server<'a> {
    /// `None` where there is none.
    pub address: Option<&'a str>,
    pub preference: Preference,
    pub patroni: Option<Address>,
}

pub fn server<'a>(section: &Section<'a>, entry: Value<'a>) -> Server<'a> {
    let Some(table) = entry.get_ref().as_table() else {
        let preference = Preference { weight: 1, zone: None };
        return Server { address: entry.get_ref().as_str(), preference, patroni: None };
    };
    let it = Section::new(section.path, entry.span().start, Some(table), section.findings);
    it.check_keys(settings::SERVER);
    let weight = u16::try_from(it.count(&settings::SERVER_WEIGHT)).unwrap_or(1);
    Server {
        address: it.text(&settings::SERVER_ADDRESS).map(|it| it.0),
        preference: Preference { weight, zone: zone(&it) },
        patroni: patroni(&it),
    }
}

fn patroni(section: &Section<'_>) -> Option<Address> {
    let (text, offset) = section.text(&settings::SERVER_PATRONI)?;
    let rest = text.strip_prefix("http://").map(|it| it.strip_suffix('/').unwrap_or(it));
    let found = rest.and_then(|it| database::address(it, PATRONI_PORT));
    if found.is_none() {
        let instead = "patroni = \"http://host:port\", without a path";
        section.add(offset, format!("`patroni` is \"{text}\""), instead);
    }
    found
}

fn zone(section: &Section<'_>) -> Option<String> {
    section.text(&settings::ZONE).map(|it| it.0.to_owned())
}

fn when_stale(section: &Section<'_>) -> WhenStale {
    let Some((text, offset)) = section.text(&settings::WHEN_STALE) else { return WhenStale::default() };
    WhenStale::ALL.into_iter().find(|it| it.label() == text).unwrap_or_else(|| {
        let instead = "when_stale = \"primary\", \"least_stale\" or \"error\"";
        section.add(offset, format!("`when_stale` is \"{text}\""), instead);
        WhenStale::default()
    })
}

fn primary_read_share(section: &Section<'_>) -> Share {
    let share = section.number(&settings::PRIMARY_READ_SHARE, 0.0..=1.0);
    share.map_or(Share::WHOLE, Share::new)
}
