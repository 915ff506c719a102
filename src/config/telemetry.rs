//! [log] and [tracing].

use std::time::Duration;

use super::document::Section;
use super::{Address, database, settings};

/// The port of OTLP over HTTP.
const OTLP_PORT: u16 = 4318;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// What takes longer is told.
    pub slow_statement: Option<Duration>,
    /// In a second.
    pub slow_statements_max: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl LogFormat {
    pub fn label(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    pub otlp_endpoint: Option<Endpoint>,
    /// Of statements that bring no decision of their own.
    pub sample_ratio: Ratio,
    /// That wait for the collector.
    pub spans_max: usize,
}

/// A part of a whole, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ratio(pub u32);

impl Ratio {
    /// With this chance, of a random number.
    pub fn takes(self, dice: u32) -> bool {
        u64::from(dice) * 1_000_000 < u64::from(self.0) << 32
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", f64::from(self.0) / 1e6)
    }
}

/// A collector of OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    /// In front of `/v1/traces`, without a slash at its end.
    pub path: String,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

pub fn log(top: &Section<'_>) -> Log {
    let it = top.section(settings::LOG_SECTION.key, "log");
    it.check_keys(settings::LOG);
    let format = match it.text(&settings::LOG_FORMAT) {
        None | Some(("text", _)) => LogFormat::Text,
        Some(("json", _)) => LogFormat::Json,
        Some((other, offset)) => {
            it.add(offset, format!("`format` is \"{other}\""), "format = \"text\" or \"json\"");
            LogFormat::Text
        }
    };
    Log {
        format,
        slow_statement: it.duration(&settings::SLOW_STATEMENT),
        slow_statements_max: it.count(&settings::SLOW_STATEMENTS_MAX),
    }
}

pub fn tracing(top: &Section<'_>) -> Tracing {
    let it = top.section(settings::TRACING_SECTION.key, "tracing");
    it.check_keys(settings::TRACING);
    Tracing {
        otlp_endpoint: endpoint(&it),
        sample_ratio: sample_ratio(&it),
        spans_max: it.count(&settings::SPANS_MAX),
    }
}

fn endpoint(section: &Section<'_>) -> Option<Endpoint> {
    let (text, offset) = section.text(&settings::OTLP_ENDPOINT)?;
    if text == "off" {
        return None;
    }
    let parsed = text.strip_prefix("http://").and_then(|rest| {
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let path = path.trim_end_matches('/');
        let plain =
            path.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'/' | b'-' | b'_' | b'.'));
        let path = path.strip_suffix("/v1/traces").unwrap_or(path).to_owned();
        Some(Endpoint { address: database::address(host, OTLP_PORT).filter(|_| plain)?, path })
    });
    if parsed.is_none() {
        let instead = "otlp_endpoint = \"http://host:4318\" or \"off\"; for TLS a collector beside keyway that forwards";
        section.add(offset, format!("`otlp_endpoint` is \"{text}\""), instead);
    }
    parsed
}

fn sample_ratio(section: &Section<'_>) -> Ratio {
    let setting = &settings::SAMPLE_RATIO;
    let settings::Kind::Other { default, .. } = setting.kind else { return Ratio::default() };
    let number = section.number(setting, 0.0..=1.0).or_else(|| default.parse().ok());
    Ratio((number.unwrap_or_default() * 1e6).round() as u32)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        let text = format!("{text}\n[users.app]\nauth = \"trust\"\n[databases.shop]\nservers = [\"a\"]\n");
        let problems = |it: Vec<crate::config::Problem>| it[0].to_string();
        Config::parse(&text, Path::new(""), &|_| None).map_err(problems)
    }

    #[test]
    fn nothing_is_traced_and_no_statement_told_by_default() {
        let config = parse("").unwrap();
        assert_eq!(
            config.log,
            Log { format: LogFormat::Text, slow_statement: None, slow_statements_max: 10 }
        );
        let Tracing { otlp_endpoint, sample_ratio, spans_max } = config.tracing;
        assert_eq!((otlp_endpoint, sample_ratio, spans_max), (None, Ratio(10_000), 4_096));
    }

    #[test]
    fn endpoints_are_addresses_over_http() {
        let endpoint = |text: &str| {
            let config = parse(&format!("[tracing]\notlp_endpoint = \"{text}\"\nsample_ratio = 1"));
            config.map(|it| it.tracing.otlp_endpoint.map(|it| it.to_string()))
        };
        let found = |text: &str| endpoint(text).unwrap().unwrap();
        assert_eq!(found("http://collector"), "http://collector:4318");
        assert_eq!(found("http://127.0.0.1:4318/"), "http://127.0.0.1:4318");
        assert_eq!(found("http://[::1]:1/otlp/v1/traces"), "http://[::1]:1/otlp");
        assert_eq!(endpoint("off"), Ok(None));
        for text in ["https://collector:4318", "collector:4318", "http://", "http://a:x", "http://a/b c"] {
            let problem = endpoint(text).unwrap_err();
            assert!(problem.contains("line 2: `otlp_endpoint` is"), "{text}: {problem}");
        }
    }

    #[test]
    fn a_ratio_is_a_chance() {
        let taken = |ratio: u32| (0..1_000_u32).filter(|it| Ratio(ratio).takes(it * 4_294_968)).count();
        assert_eq!([0, 10_000, 500_000, 1_000_000].map(taken), [0, 10, 500, 1_000]);
        assert!(Ratio(1_000_000).takes(u32::MAX) && !Ratio(0).takes(0));
        assert_eq!(Ratio(100).to_string(), "0.0001");
    }

    #[test]
    fn what_is_out_of_bounds_is_told() {
        for (text, part) in [
            ("[log]\nformat = \"xml\"", "line 2: `format` is \"xml\"; write format = \"text\" or \"json\""),
            (
                "[log]\nslow_statement = \"0s\"",
                "slow_statement = a duration from \"1ms\" to \"365d\" or \"off\"",
            ),
            ("[log]\nslow_statements_max = 0", "slow_statements_max = a whole number from 1"),
            ("[tracing]\nsample_ratio = 1.5", "sample_ratio = a number from 0.0 to 1.0"),
            ("[tracing]\nspans_max = 0", "spans_max = a whole number from 1"),
            ("[tracing]\nendpoint = \"x\"", "unknown key `endpoint` in [tracing]"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
