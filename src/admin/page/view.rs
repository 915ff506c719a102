//! What a viewer wants to see, as the query string says it. Values that mean nothing are the defaults: a link may be
//! older than the shard that it names.

use std::time::Duration;

use super::html::{encoded, put};
use crate::hotspot::Metric;

use std::fmt::Write;

/// Spans of the heat map: name in the query string, in words, length.
pub const SPANS: [(&str, &str, Duration); 6] = [
    ("15m", "15 minutes", Duration::from_secs(15 * 60)),
    ("1h", "1 hour", Duration::from_secs(3_600)),
    ("6h", "6 hours", Duration::from_secs(6 * 3_600)),
    ("1d", "1 day", Duration::from_secs(86_400)),
    ("7d", "7 days", Duration::from_secs(7 * 86_400)),
    ("35d", "35 days", Duration::from_secs(35 * 86_400)),
];
pub const BRIGHTNESS_MAX: i8 = 6;
/// Longer ones are nobody's.
const FILTER_CHARS_MAX: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub database: Option<String>,
    pub shard: Option<String>,
    /// In lower case.
    pub text: String,
    /// Of the heat map.
    pub map: Option<String>,
    pub metric: Metric,
    /// Of `SPANS`.
    pub span: usize,
    /// From -6 to 6: how far the colours of the heat map are moved.
    pub brightness: i8,
    pub all_keys: bool,
}

impl Default for View {
    fn default() -> View {
        View {
            database: None,
            shard: None,
            text: String::new(),
            map: None,
            metric: Metric::Calls,
            span: 0,
            brightness: 0,
            all_keys: false,
        }
    }
}

impl View {
    pub fn of_query(pairs: &[(String, String)]) -> View {
        let mut view = View::default();
        for (name, value) in pairs.iter().filter(|it| !it.1.is_empty()) {
            match name.as_str() {
                "database" => view.database = Some(value.clone()),
                "shard" => view.shard = Some(value.clone()),
                "text" => {
                    view.text = value.trim().to_lowercase().chars().take(FILTER_CHARS_MAX).collect();
                }
                "map" => view.map = Some(value.clone()),
                "metric" => view.metric = Metric::of_label(value).unwrap_or(Metric::Calls),
                "last" => view.span = span_of(value).unwrap_or(0),
                "brightness" => {
                    let number = value.parse().unwrap_or(0i8);
                    view.brightness = number.clamp(-BRIGHTNESS_MAX, BRIGHTNESS_MAX);
                }
                "keys" => view.all_keys = value == "all",
                _ => {}
            }
        }
        view
    }

    pub fn last(&self) -> Duration {
        SPANS[self.span.min(SPANS.len() - 1)].2
    }

    pub fn shows_shard(&self, name: &str) -> bool {
        self.shard.as_deref().is_none_or(|it| it == name)
    }

    /// Whether one of these has the text in it that is looked for.
    pub fn shows(&self, texts: &[&str]) -> bool {
        self.text.is_empty() || texts.iter().any(|it| it.to_lowercase().contains(&self.text))
    }

    pub fn is_filtered(&self) -> bool {
        self.shard.is_some() || !self.text.is_empty()
    }

    /// The query string of the same view; nothing where a value is its default.
    pub fn query(&self) -> String {
        let mut out = String::from("?");
        let mut pair = |name: &str, value: &str| {
            let apart = if out.len() > 1 { "&" } else { "" };
            put!(out, "{apart}{name}={}", encoded(value));
        };
        let given = [("database", &self.database), ("shard", &self.shard), ("map", &self.map)];
        for (name, value) in given.iter().filter_map(|(name, value)| Some((name, value.as_deref()?))) {
            pair(name, value);
        }
        if !self.text.is_empty() {
            pair("text", &self.text);
        }
        if self.metric != Metric::Calls {
            pair("metric", self.metric.label());
        }
        if self.span > 0 {
            pair("last", SPANS[self.span.min(SPANS.len() - 1)].0);
        }
        if self.brightness != 0 {
            pair("brightness", &self.brightness.to_string());
        }
        if self.all_keys {
            pair("keys", "all");
        }
        out
    }
}

/// `15m`, by its place in `SPANS`.
pub fn span_of(name: &str) -> Option<usize> {
    SPANS.iter().position(|it| it.0 == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(pairs: &[(&str, &str)]) -> View {
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        View::of_query(&pairs)
    }

    #[test]
    fn a_view_is_its_query_string() {
        assert_eq!(view(&[]).query(), "?");
        let of = [("database", "a&b"), ("shard", "s1"), ("text", " User 42 "), ("metric", "time")];
        let more = [("map", "by_user"), ("last", "7d"), ("brightness", "-3"), ("keys", "all")];
        let view = view(&[&of[..], &more[..]].concat());
        assert_eq!(
            view.query(),
            "?database=a%26b&shard=s1&map=by_user&text=user%2042&metric=time&last=7d&brightness=-3&keys=all"
        );
        assert!(view.shows(&["x", "the User 42"]) && !view.shows(&["user 4"]));
        assert!(view.shows_shard("s1") && !view.shows_shard("s2") && view.is_filtered());
    }

    #[test]
    fn what_means_nothing_is_the_default() {
        let odd = [("metric", "heat"), ("last", "5y"), ("brightness", "x"), ("keys", "few"), ("shard", "")];
        assert_eq!(view(&odd), View::default());
        assert_eq!(view(&[("brightness", "100")]).brightness, BRIGHTNESS_MAX);
        assert!(View::default().shows(&[]) && View::default().shows_shard("any"));
    }
}
