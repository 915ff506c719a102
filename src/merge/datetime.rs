//! Dates and times as servers print them with DateStyle ISO and IntervalStyle postgres, over PostgreSQL's
//! whole range: before Christ, beyond the year 9999, infinity. (`shard::time` reads what people write, and
//! less of it; chrono's calendar ends before PostgreSQL's.) The other styles are told apart by their first
//! characters and are `None`, never misread.

use std::fmt::Write;

pub(super) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(super) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Days from 0000-03-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 730_425;

/// Days since 2000-01-01 of a day in the Gregorian calendar; years before 1 count down from 0.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let from_march = (month + 9) % 12;
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year = year.rem_euclid(400);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - EPOCH_DAYS
}

fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// Reads from the front of a text.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn eat(&mut self, text: &str) -> bool {
        let rest = self.0.strip_prefix(text);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn digits(&mut self) -> Option<&'a str> {
        let count = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        (1..=10).contains(&count).then_some(digits)
    }

    fn number(&mut self) -> Option<i64> {
        self.digits()?.parse().ok()
    }

    fn two(&mut self) -> Option<i64> {
        self.digits().filter(|it| it.len() == 2)?.parse().ok()
    }

    /// `YYYY-MM-DD`, without the era behind.
    fn date(&mut self) -> Option<(i64, i64, i64)> {
        let year = self.digits().filter(|it| it.len() >= 4)?.parse().ok()?;
        let month = self.eat("-").then(|| self.two())??;
        let day = self.eat("-").then(|| self.two())??;
        ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some((year, month, day))
    }

    /// `HH:MM:SS[.ffffff]` in microseconds; an interval may have more than two digits of hours.
    fn time(&mut self) -> Option<i64> {
        let hours = self.digits().filter(|it| it.len() >= 2)?.parse::<i64>().ok()?;
        let minutes = self.eat(":").then(|| self.two())??;
        let seconds = self.eat(":").then(|| self.two())??;
        let mut micros = 0;
        if self.eat(".") {
            let digits = self.digits().filter(|it| it.len() <= 6)?;
            micros = digits.parse::<i64>().ok()? * 10i64.pow(6 - digits.len() as u32);
        }
        let seconds = hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?;
        seconds.checked_mul(MICROS_PER_SECOND)?.checked_add(micros)
    }

    /// `+HH[:MM[:SS]]` in seconds east of Greenwich.
    fn offset(&mut self) -> Option<i32> {
        let west = self.eat("-");
        if !west && !self.eat("+") {
            return None;
        }
        let mut seconds = self.two()? * 3600;
        if self.eat(":") {
            seconds += self.two()? * 60;
            if self.eat(":") {
                seconds += self.two()?;
            }
        }
        i32::try_from(if west { -seconds } else { seconds }).ok()
    }

    /// Days since 2000-01-01, with the era that stands at the end.
    fn days(&mut self, (year, month, day): (i64, i64, i64)) -> Option<i64> {
        let before_christ = self.eat(" BC");
        self.0.is_empty().then(|| days_of(if before_christ { 1 - year } else { year }, month, day))
    }
}

pub(super) fn parse_date(text: &str) -> Option<i32> {
    match text {
        "infinity" => return Some(i32::MAX),
        "-infinity" => return Some(i32::MIN),
        _ => {}
    }
    let mut reader = Reader(text);
    let date = reader.date()?;
    i32::try_from(reader.days(date)?).ok()
}

/// Microseconds since midnight.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let mut reader = Reader(text);
    let time = reader.time()?;
    reader.0.is_empty().then_some(time)
}

/// Microseconds since midnight, and seconds *west* of Greenwich, as PostgreSQL keeps them.
pub(super) fn parse_timetz(text: &str) -> Option<(i64, i32)> {
    let mut reader = Reader(text);
    let (time, east) = (reader.time()?, reader.offset()?);
    reader.0.is_empty().then_some((time, -east))
}

/// Microseconds since 2000-01-01 00:00, and the offset if there is one; UTC if so.
pub(super) fn parse_timestamp(text: &str) -> Option<(i64, Option<i32>)> {
    match text {
        "infinity" => return Some((i64::MAX, None)),
        "-infinity" => return Some((i64::MIN, None)),
        _ => {}
    }
    let mut reader = Reader(text);
    let date = reader.date()?;
    let time = reader.eat(" ").then(|| reader.time())??;
    let east = reader.offset();
    let days = reader.days(date)?;
    let seconds = i64::from(east.unwrap_or(0)) * MICROS_PER_SECOND;
    // The first representable day is one whose own start is not.
    let micros = i128::from(days) * i128::from(MICROS_PER_DAY) + i128::from(time - seconds);
    Some((i64::try_from(micros).ok()?, east))
}

fn put_date(out: &mut String, days: i64) -> &'static str {
    let (year, month, day) = civil(days);
    let (year, era) = if year <= 0 { (1 - year, " BC") } else { (year, "") };
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    era
}

fn put_time(out: &mut String, micros: i64) {
    let (seconds, part) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if part != 0 {
        out.push_str(format!(".{part:06}").trim_end_matches('0'));
    }
}

fn put_offset(out: &mut String, east: i32) {
    let seconds = east.abs();
    let _ = write!(out, "{}{:02}", if east < 0 { '-' } else { '+' }, seconds / 3600);
    if seconds % 3600 != 0 {
        let _ = write!(out, ":{:02}", seconds / 60 % 60);
    }
    if seconds % 60 != 0 {
        let _ = write!(out, ":{:02}", seconds % 60);
    }
}

pub(super) fn date_text(days: i32) -> String {
    match days {
        i32::MAX => return "infinity".to_owned(),
        i32::MIN => return "-infinity".to_owned(),
        _ => {}
    }
    let mut out = String::new();
    let era = put_date(&mut out, days.into());
    out + era
}

pub(super) fn time_text(micros: i64) -> String {
    let mut out = String::new();
    put_time(&mut out, micros);
    out
}

pub(super) fn timetz_text(micros: i64, west: i32) -> String {
    let mut out = time_text(micros);
    put_offset(&mut out, -west);
    out
}

/// With an offset, seconds east, in that offset's local time.
pub(super) fn timestamp_text(micros: i64, east: Option<i32>) -> String {
    match micros {
        i64::MAX => return "infinity".to_owned(),
        i64::MIN => return "-infinity".to_owned(),
        _ => {}
    }
    let local = i128::from(micros) + i128::from(east.unwrap_or(0)) * i128::from(MICROS_PER_SECOND);
    let day = i128::from(MICROS_PER_DAY);
    let mut out = String::new();
    let era = put_date(&mut out, local.div_euclid(day) as i64);
    out.push(' ');
    put_time(&mut out, local.rem_euclid(day) as i64);
    if let Some(east) = east {
        put_offset(&mut out, east);
    }
    out + era
}

/// As PostgreSQL keeps it: a month is 30 days and a day 24 hours only where intervals are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

impl Interval {
    /// What `interval_cmp` compares, in microseconds.
    pub fn span_micros(self) -> i128 {
        (i128::from(self.months) * 30 + i128::from(self.days)) * i128::from(MICROS_PER_DAY)
            + i128::from(self.micros)
    }

    /// From version 17 on the extremes of all three fields mean infinity.
    pub(super) fn is_infinite(self) -> bool {
        matches!(
            (self.months, self.days, self.micros),
            (i32::MAX, i32::MAX, i64::MAX) | (i32::MIN, i32::MIN, i64::MIN)
        )
    }

    /// Field by field, as `interval_pl`; `None` where a field overflows.
    pub(super) fn checked_add(self, other: Interval) -> Option<Interval> {
        Some(Interval {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            micros: self.micros.checked_add(other.micros)?,
        })
    }

    /// The form of IntervalStyle postgres: `1 year 2 mons -3 days +04:05:06.7`.
    pub(super) fn parse(text: &str) -> Option<Interval> {
        match text {
            "infinity" => return Some(Interval { months: i32::MAX, days: i32::MAX, micros: i64::MAX }),
            "-infinity" => return Some(Interval { months: i32::MIN, days: i32::MIN, micros: i64::MIN }),
            _ => {}
        }
        let (mut months, mut days, mut micros) = (0i64, 0, 0);
        let mut words = text.split(' ').peekable();
        while let Some(word) = words.next() {
            if word.contains(':') {
                let negative = word.starts_with('-');
                let mut reader = Reader(word.trim_start_matches(['+', '-']));
                let magnitude = reader.time()?;
                micros = if negative { -magnitude } else { magnitude };
                if !reader.0.is_empty() || words.peek().is_some() {
                    return None;
                }
                continue;
            }
            let bare = word.trim_start_matches(['+', '-']);
            let magnitude = Reader(bare).number().filter(|_| bare.bytes().all(|it| it.is_ascii_digit()))?;
            let count = if word.starts_with('-') { -magnitude } else { magnitude };
            match words.next()?.trim_end_matches('s') {
                "year" => months += count * 12,
                "mon" => months += count,
                "day" => days = count,
                _ => return None,
            }
        }
        Some(Interval { months: i32::try_from(months).ok()?, days: i32::try_from(days).ok()?, micros })
    }

    /// As `EncodeInterval` with style postgres.
    pub(super) fn text(self) -> String {
        if self.is_infinite() {
            return if self.months > 0 { "infinity" } else { "-infinity" }.to_owned();
        }
        let (mut out, mut negative_before) = (String::new(), false);
        for (count, unit) in [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")] {
            if count == 0 {
                continue;
            }
            let space = if out.is_empty() { "" } else { " " };
            let plus = if negative_before && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            let _ = write!(out, "{space}{plus}{count} {unit}{plural}");
            negative_before = count < 0;
        }
        if out.is_empty() || self.micros != 0 {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(match self.micros {
                ..0 => "-",
                _ if negative_before => "+",
                _ => "",
            });
            let magnitude = self.micros.unsigned_abs();
            let seconds = magnitude / MICROS_PER_SECOND as u64;
            let part = magnitude % MICROS_PER_SECOND as u64;
            let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            if part != 0 {
                out.push_str(format!(".{part:06}").trim_end_matches('0'));
            }
        }
        out
    }
}
