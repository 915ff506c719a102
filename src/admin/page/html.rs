//! Text into HTML, and figures as people read them, with their units.

use std::fmt::{self, Display, Write};

use chrono::DateTime;

use crate::hotspot::{Bounds, Metric};

/// Writing to a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        let _ = write!($out, $($arg)*);
    }};
}
pub(super) use put;

/// Text, between tags or in an attribute in double quotes.
pub struct Text<'a>(pub &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for it in self.0.chars() {
            match it {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // What text cannot have in HTML, or what would turn the direction of what comes behind it.
                it if it.is_control() || matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    f.write_char('\u{fffd}')?;
                }
                it => f.write_char(it)?,
            }
        }
        Ok(())
    }
}

/// As `Text`, in several lines.
pub struct Lines<'a>(pub &'a str);

impl Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.0.lines().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            Text(line).fmt(f)?;
        }
        Ok(())
    }
}

/// In a query string.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            put!(out, "%{byte:02X}");
        }
    }
    out
}

/// `1,234,567`
pub fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Per second: a digit behind the point where there are few.
pub fn rate(per_second: f64) -> String {
    // A sum of nothing is -0.
    let per_second = per_second.max(0.0) + 0.0;
    if per_second < 99.95 { format!("{per_second:.1}") } else { whole(per_second.round() as u64) }
}

/// Of a share from 0 to 1.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `48.1 to 49.3 %`; both are true of what was counted.
pub fn percent_bounds(share: Bounds) -> String {
    let [lower, upper] = [share.lower, share.upper.min(1.0)].map(|it| format!("{:.1}", it * 100.0));
    if lower == upper { format!("{lower} %") } else { format!("{lower} to {upper} %") }
}

pub fn rate_bounds(bounds: Bounds, span_s: u32) -> String {
    let span = f64::from(span_s.max(1));
    let (lower, upper) = (rate(bounds.lower / span), rate(bounds.upper / span));
    if lower == upper { lower } else { format!("{lower} to {upper}") }
}

pub fn micros(us: f64) -> String {
    match us {
        it if it < 999.5 => format!("{it:.0} µs"),
        it if it < 999_500.0 => format!("{:.1} ms", it / 1e3),
        it if it < 120e6 => format!("{:.1} s", it / 1e6),
        it if it < 7_200e6 => format!("{:.1} min", it / 60e6),
        it => format!("{:.1} h", it / 3_600e6),
    }
}

pub fn millis(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { micros(ms as f64 * 1e3) }
}

/// In powers of 1,000.
pub fn bytes(count: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 999.5 && unit + 1 < UNITS.len() {
        (count, unit) = (count / 1_000.0, unit + 1);
    }
    if unit == 0 { format!("{count:.0} {}", UNITS[0]) } else { format!("{count:.1} {}", UNITS[unit]) }
}

/// A cell of a heat map, per second.
pub fn metric_value(metric: Metric, per_second: f64) -> String {
    match metric {
        Metric::Bytes => format!("{}/s", bytes(per_second)),
        Metric::Time => format!("{} per second", micros(per_second)),
        _ => format!("{} {}/s", rate(per_second), metric.label()),
    }
}

/// `<time>` with the time of day, or with the date where that is another one than `now_s`'s. In UTC, as logs have it.
pub fn clock(at_s: u64, now_s: u64) -> String {
    let Some(at) = DateTime::from_timestamp(at_s as i64, 0) else { return String::new() };
    let is_today = at_s / 86_400 == now_s / 86_400;
    let shown = if is_today { at.format("%H:%M:%S") } else { at.format("%b %-d, %H:%M") };
    format!("<time datetime=\"{}\">{shown}</time>", at.format("%Y-%m-%dT%H:%M:%SZ"))
}

pub fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", whole(count), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_wherever_it_stands() {
        let shown = format!("{}", Text("<script>\"a\" & 'b'\u{202e}\n\0"));
        assert_eq!(shown, "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(format!("{}", Lines("a <\nb")), "a &lt;\nb");
        assert_eq!(encoded("a b&c=ü/%"), "a%20b%26c%3D%C3%BC%2F%25");
    }

    #[test]
    fn figures_have_their_units() {
        assert_eq!(
            [whole(7), whole(999), whole(1_000), whole(1_234_567)],
            ["7", "999", "1,000", "1,234,567"]
        );
        assert_eq!(rate(-0.0), "0.0");
        assert_eq!([rate(0.0), rate(99.94), rate(99.96), rate(1234.4)], ["0.0", "99.9", "100", "1,234"]);
        assert_eq!(
            [micros(12.0), micros(1_500.0), micros(2.5e6), micros(3.6e9)],
            ["12 µs", "1.5 ms", "2.5 s", "60.0 min"]
        );
        assert_eq!([millis(8), millis(1_500)], ["8 ms", "1.5 s"]);
        assert_eq!([bytes(12.0), bytes(1_500.0), bytes(2.5e9)], ["12 B", "1.5 kB", "2.5 GB"]);
        assert_eq!(percent(0.4812), "48.1 %");
        assert_eq!(percent_bounds(Bounds { lower: 0.481, upper: 0.4933 }), "48.1 to 49.3 %");
        assert_eq!(percent_bounds(Bounds { lower: 0.9996, upper: 1.2 }), "100.0 %");
        assert_eq!(metric_value(Metric::Time, 2_000.0), "2.0 ms per second");
        assert_eq!(plural(1, "client", "clients"), "1 client");
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let noon = 1_798_286_400;
        assert_eq!(clock(noon, noon + 60), "<time datetime=\"2026-12-26T12:00:00Z\">12:00:00</time>");
        assert!(clock(noon, noon + 86_400).ends_with(">Dec 26, 12:00</time>"));
    }
}
