//! Dates and timestamps in the one form whose meaning no setting changes: ISO 8601, as in
//! `2026-01-31 12:00:00.5+02`. What depends on DateStyle or on the session's time zone is refused.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

use crate::base::{Reason, Refusal, SqlState};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// PostgreSQL counts from here.
const EPOCH: NaiveDate = match NaiveDate::from_ymd_opt(2000, 1, 1) {
    Some(it) => it,
    None => NaiveDate::MIN,
};

fn unclear(text: &str) -> Refusal {
    Refusal::unsupported(
        Reason::BadKey,
        format!("cannot tell which shard the date or time \"{text}\" belongs to"),
        "write it as 2026-01-31 or 2026-01-31 12:00:00+00",
    )
}

fn out_of_range(text: &str) -> Refusal {
    Refusal::new(Reason::BadKey, SqlState("22008"), format!("date/time field value out of range: \"{text}\""))
}

/// The infinities, which PostgreSQL keeps as the ends of the type.
fn infinity(text: &str) -> Option<bool> {
    let (positive, word) = match text.strip_prefix('-') {
        Some(rest) => (false, rest),
        None => (true, text),
    };
    word.eq_ignore_ascii_case("infinity").then_some(positive)
}

/// Days since 2000-01-01.
pub fn parse_date(text: &str) -> Result<i32, Refusal> {
    if let Some(positive) = infinity(text.trim()) {
        return Ok(if positive { i32::MAX } else { i32::MIN });
    }
    let (date, rest) = split_date(text.trim(), text)?;
    if rest.is_empty() { Ok(days(date)) } else { Err(unclear(text)) }
}

/// Microseconds since 2000-01-01 00:00. An offset would be ignored by PostgreSQL; here it is refused,
/// because whoever wrote it meant something.
pub fn parse_timestamp(text: &str) -> Result<i64, Refusal> {
    if let Some(positive) = infinity(text.trim()) {
        return Ok(if positive { i64::MAX } else { i64::MIN });
    }
    let (date, rest) = split_date(text.trim(), text)?;
    let (time, rest) = split_time(rest, text)?;
    if rest.is_empty() { Ok(micros(date, time)) } else { Err(unclear(text)) }
}

/// Microseconds since 2000-01-01 00:00 UTC.
pub fn parse_timestamptz(text: &str, utc_session: bool) -> Result<i64, Refusal> {
    if let Some(positive) = infinity(text.trim()) {
        return Ok(if positive { i64::MAX } else { i64::MIN });
    }
    let (date, rest) = split_date(text.trim(), text)?;
    let (time, rest) = split_time(rest, text)?;
    let offset_seconds = match rest.trim_start() {
        "" if utc_session => 0,
        "" => {
            return Err(Refusal::unsupported(
                Reason::BadKey,
                format!("the shard of \"{text}\" depends on the session's time zone"),
                "write the offset: 2026-01-31 12:00:00+00, or SET TimeZone TO 'UTC'",
            ));
        }
        "Z" | "z" | "UTC" | "utc" => 0,
        offset => parse_offset(offset).ok_or_else(|| unclear(text))?,
    };
    Ok(micros(date, time) - offset_seconds * 1_000_000)
}

fn days(date: NaiveDate) -> i32 {
    date.num_days_from_ce() - EPOCH.num_days_from_ce()
}

fn micros(date: NaiveDate, time: i64) -> i64 {
    i64::from(days(date)) * MICROS_PER_DAY + time
}

/// `YYYY-MM-DD` in front.
fn split_date<'a>(text: &'a str, whole: &str) -> Result<(NaiveDate, &'a str), Refusal> {
    let (year, rest) = digits(text, 4).ok_or_else(|| unclear(whole))?;
    let (month, rest) = rest.strip_prefix('-').and_then(|it| digits(it, 2)).ok_or_else(|| unclear(whole))?;
    let (day, rest) = rest.strip_prefix('-').and_then(|it| digits(it, 2)).ok_or_else(|| unclear(whole))?;
    if year == 0 {
        return Err(out_of_range(whole));
    }
    let date = NaiveDate::from_ymd_opt(year as i32, month, day).ok_or_else(|| out_of_range(whole))?;
    Ok((date, rest))
}

/// `[ T]HH:MM[:SS[.f]]` or nothing, in microseconds. PostgreSQL rounds below a microsecond; more
/// digits than six are refused.
fn split_time<'a>(text: &'a str, whole: &str) -> Result<(i64, &'a str), Refusal> {
    let Some(rest) = text.strip_prefix([' ', 'T', 't']) else { return Ok((0, text)) };
    let rest = rest.trim_start();
    let Some((hour, after)) = digits(rest, 2) else { return Ok((0, rest)) };
    let (minute, mut rest) =
        after.strip_prefix(':').and_then(|it| digits(it, 2)).ok_or_else(|| unclear(whole))?;
    let (mut second, mut fraction) = (0, 0);
    if let Some(after) = rest.strip_prefix(':') {
        (second, rest) = digits(after, 2).ok_or_else(|| unclear(whole))?;
        if let Some(after) = rest.strip_prefix('.') {
            let count = after.bytes().take_while(u8::is_ascii_digit).count();
            if count > 6 {
                return Err(unclear(whole));
            }
            let (head, tail) = after.split_at(count);
            fraction = format!("{head:0<6}").parse().map_err(|_| unclear(whole))?;
            rest = tail;
        }
    }
    // Both ends of a day and of a minute have two names (DecodeTime in datetime.c).
    let midnight_at_end = (hour, minute, second, fraction) == (24, 0, 0, 0);
    let minute_at_end = (second, fraction) == (60, 0);
    if !midnight_at_end && (hour > 23 || minute > 59 || second > 59 && !minute_at_end) {
        return Err(out_of_range(whole));
    }
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Ok((seconds * 1_000_000 + fraction, rest))
}

/// `+HH`, `-HH:MM`, `+HHMM`, `+HH:MM:SS` in seconds east of UTC.
fn parse_offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, rest) = digits(rest, 2)?;
    let mut seconds = i64::from(hours) * 3600;
    let mut rest = rest;
    for unit in [60, 1] {
        if rest.is_empty() {
            break;
        }
        let (value, after) = digits(rest.strip_prefix(':').unwrap_or(rest), 2)?;
        if value > 59 {
            return None;
        }
        seconds += i64::from(value) * unit;
        rest = after;
    }
    (rest.is_empty() && hours <= 15).then_some(sign * seconds)
}

/// Exactly `count` digits in front, not followed by another.
fn digits(text: &str, count: usize) -> Option<(u32, &str)> {
    let (head, rest) = text.split_at_checked(count)?;
    let all = head.bytes().all(|it| it.is_ascii_digit());
    (all && !(count == 4 && rest.starts_with(|it: char| it.is_ascii_digit())))
        .then(|| head.parse().ok().map(|it| (it, rest)))?
}

pub fn print_days(days: i32) -> String {
    match days {
        i32::MIN => return "-infinity".to_owned(),
        i32::MAX => return "infinity".to_owned(),
        _ => {}
    }
    EPOCH
        .checked_add_signed(TimeDelta::days(days.into()))
        .map_or_else(|| format!("{days} days after 2000-01-01"), |it| it.to_string())
}

pub fn print_micros(micros: i64) -> String {
    match micros {
        i64::MIN => return "-infinity".to_owned(),
        i64::MAX => return "infinity".to_owned(),
        _ => {}
    }
    NaiveDateTime::new(EPOCH, NaiveTime::MIN)
        .checked_add_signed(TimeDelta::microseconds(micros))
        .map_or_else(|| format!("{micros} us after 2000-01-01"), |it| it.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(parse_date("2000-01-01").unwrap(), 0);
        assert_eq!(parse_date("1999-12-31").unwrap(), -1);
        assert_eq!(parse_date("2024-02-29").unwrap(), 8825);
        assert_eq!(parse_timestamp("2000-01-01 00:00:01.5").unwrap(), 1_500_000);
        // SELECT extract(epoch from timestamptz '2026-01-31 12:00:00+02') - 946684800
        let want = 823_168_800_000_000;
        for text in [
            "2026-01-31 12:00:00+02",
            "2026-01-31T12:00:00+02:00",
            "2026-01-31 10:00Z",
            "2026-01-31 05:30:00-0430",
        ] {
            assert_eq!(parse_timestamptz(text, false).unwrap(), want, "{text}");
        }
        assert_eq!(parse_timestamptz("2026-01-31 10:00", true).unwrap(), want);
        assert_eq!(print_micros(want), "2026-01-31 10:00:00");
    }

    #[test]
    fn the_calendar_is_postgres_own() {
        // SELECT date '...' - date '2000-01-01'
        for (text, days) in [
            ("0001-01-01", -730_119),
            ("1582-10-15", -152_384),
            ("1900-03-01", -36_465),
            ("2000-02-29", 59),
            ("2100-03-01", 36_584),
            ("9999-12-31", 2_921_939),
        ] {
            assert_eq!(parse_date(text).unwrap(), days, "{text}");
            assert_eq!(print_days(days), text);
        }
        for text in ["1900-02-29", "2100-02-29", "2026-13-01", "2026-00-10", "2026-04-31", "0000-01-01"] {
            assert_eq!(parse_date(text).unwrap_err().state().0, "22008", "{text}");
        }
        let read = |text| parse_timestamp(text).unwrap();
        assert_eq!(read("2026-01-31 24:00:00"), read("2026-02-01 00:00:00"));
        assert_eq!(read("2026-01-31 23:59:60"), read("2026-02-01"));
        assert_eq!(read("1999-12-31 23:59:59.999999"), -1);
        for text in ["2026-01-31 24:00:01", "2026-01-31 12:60", "2026-01-31 12:00:61"] {
            assert_eq!(parse_timestamp(text).unwrap_err().state().0, "22008", "{text}");
        }
    }

    #[test]
    fn the_infinities_are_the_ends_of_the_type() {
        assert_eq!(parse_date("Infinity").unwrap(), i32::MAX);
        assert_eq!(parse_date("-infinity").unwrap(), i32::MIN);
        assert_eq!(parse_timestamp(" infinity ").unwrap(), i64::MAX);
        assert_eq!(parse_timestamptz("-infinity", false).unwrap(), i64::MIN);
        assert_eq!((print_days(i32::MIN), print_micros(i64::MAX)), ("-infinity".into(), "infinity".into()));
    }

    #[test]
    fn what_a_setting_could_change_is_refused() {
        for text in
            ["01/02/2026", "Jan 1 2026", "now", "infinite", "20260131", "2026-1-1", "2026-01-31 12", ""]
        {
            assert!(parse_timestamptz(text, true).is_err(), "{text}");
        }
        assert!(parse_timestamptz("2026-01-31 10:00", false).is_err());
        assert!(parse_timestamptz("2026-01-31 10:00 Europe/Paris", true).is_err());
        assert!(parse_timestamp("2026-01-31 10:00+02").is_err());
        assert_eq!(parse_date("2026-02-30").unwrap_err().state().0, "22008");
    }
}
