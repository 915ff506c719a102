//! Numbers of type numeric, as far as they can be keys: whole ones of up to 38 digits.

use super::integer;

/// A numeric as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal {
    Whole(i128),
    /// Has digits other than 0 behind its point.
    Fraction,
    /// Whole, of more than 38 digits.
    Vast,
    /// NaN and the infinities.
    Special,
}

/// More zeros than numeric has digits on either side of its point (manual 8.1.2).
const EXPONENT_MAX: i64 = 200_000;

/// As `numeric_in`: blanks around, a sign, digits with a point and an exponent, or digits of another base.
pub fn parse(text: &str) -> Option<Decimal> {
    let trimmed = integer::trim(text);
    let (negative, digits) = match trimmed.as_bytes().first()? {
        b'-' => (true, &trimmed[1..]),
        b'+' => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    if ["nan", "infinity", "inf"].iter().any(|it| it.eq_ignore_ascii_case(digits)) {
        return Some(Decimal::Special);
    }
    if matches!(digits.as_bytes(), [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]) {
        return Some(whole(integer::magnitude(digits)?, negative));
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, self::exponent(exponent)?),
        None => (digits, 0),
    };
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if before.is_empty() && behind.is_empty() || !grouped(before) || !grouped(behind) {
        return None;
    }
    let digits = before.bytes().chain(behind.bytes()).filter(|it| *it != b'_').map(|it| it - b'0');
    let behind = behind.bytes().filter(|it| *it != b'_').count() as i64;
    Some(scaled(digits, exponent.saturating_sub(behind), negative))
}

/// Digits with single underscores between them, or nothing.
fn grouped(digits: &str) -> bool {
    digits.is_empty()
        || digits.split('_').all(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()))
}

fn exponent(text: &str) -> Option<i64> {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    if bare.is_empty() || !grouped(bare) {
        return None;
    }
    let size = bare.replace('_', "").parse::<i64>().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Some(if text.starts_with('-') { -size } else { size })
}

fn whole(magnitude: i128, negative: bool) -> Decimal {
    match magnitude {
        i128::MAX => Decimal::Vast,
        it => Decimal::Whole(if negative { -it } else { it }),
    }
}

/// `digits` times ten to the power of `exponent`.
fn scaled(digits: impl Iterator<Item = u8>, exponent: i64, negative: bool) -> Decimal {
    // Zeros are held back until a digit follows them, so that those at the end cost nothing.
    let (mut value, mut zeros) = (0i128, 0i64);
    let times_ten = |value: i128, times: i64| {
        let power = u32::try_from(times).ok().and_then(|it| 10i128.checked_pow(it));
        if value == 0 { Some(0) } else { power.and_then(|it| value.checked_mul(it)) }
    };
    let mut vast = false;
    for digit in digits {
        if digit == 0 {
            zeros += 1;
            continue;
        }
        match times_ten(value, zeros + 1).and_then(|it| it.checked_add(digit.into())) {
            Some(it) => value = it,
            // What follows decides only whether the number is whole.
            None => vast = true,
        }
        zeros = 0;
    }
    if value == 0 && !vast {
        return Decimal::Whole(0);
    }
    match exponent.saturating_add(zeros) {
        it if it < 0 => Decimal::Fraction,
        _ if vast => Decimal::Vast,
        it => times_ten(value, it).map_or(Decimal::Vast, |it| whole(it, negative)),
    }
}

/// As `numeric_recv`: digits of base 10,000, of which the first has this weight, and the number of decimal
/// digits that are shown. `None` for what is no numeric, or hides digits.
pub fn of_binary(bytes: &[u8]) -> Option<Decimal> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (count, weight) = (usize::from(word(0)?), word(2)? as i16);
    let negative = match word(4)? {
        0 => false,
        0x4000 => true,
        0xC000 | 0xD000 | 0xF000 => return Some(Decimal::Special),
        _ => return None,
    };
    let shown = i64::from(word(6)?);
    if bytes.len() != 8 + 2 * count {
        return None;
    }
    let groups: Option<Vec<u16>> = (0..count).map(|it| word(8 + 2 * it).filter(|it| *it < 10_000)).collect();
    let digits = groups?;
    let digits =
        digits.iter().flat_map(|it| [it / 1000, it / 100 % 10, it / 10 % 10, it % 10].map(|it| it as u8));
    let behind = 4 * (count as i64 - 1 - i64::from(weight));
    let last = digits.clone().collect::<Vec<_>>().iter().rposition(|it| *it != 0);
    let used = behind - (4 * count as i64 - 1 - last.map_or(4 * count as i64, |it| it as i64));
    if last.is_some() && used > shown {
        return None;
    }
    Some(scaled(digits, -behind, negative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_found_in_any_notation() {
        for (text, want) in [
            ("7", 7),
            (" +7.000 ", 7),
            ("70e-1", 7),
            ("0.7e1", 7),
            ("-1e3", -1000),
            ("1_000.0_0", 1000),
            ("5.", 5),
            ("0x1F", 31),
            ("-0.000", 0),
            (".0e99999", 0),
            ("000", 0),
            ("100000000000000000000000000000000000000", 10i128.pow(38)),
            ("123000e-3", 123),
        ] {
            assert_eq!(parse(text), Some(Decimal::Whole(want)), "{text}");
        }
        for text in
            ["7.5", ".7", "1e-1", "1e-99999999999999999999", "99999999999999999999999999999999999999999.5"]
        {
            assert_eq!(parse(text), Some(Decimal::Fraction), "{text}");
        }
        for text in ["1e39", "1e99999999999999999999", "999999999999999999999999999999999999999999"] {
            assert_eq!(parse(text), Some(Decimal::Vast), "{text}");
        }
        for text in ["NaN", "-Infinity", "inf"] {
            assert_eq!(parse(text), Some(Decimal::Special), "{text}");
        }
        for text in ["", "-", ".", "1e", "1e+", "--7", "7a", "_7", "7_", "7__7", "1 2", "0x", "e5"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn binary_numbers_are_read_by_their_weight() {
        let bytes = |count: u16, weight: i16, sign: u16, shown: u16, digits: &[u16]| {
            let head = [count, weight as u16, sign, shown];
            head.iter().chain(digits).flat_map(|it| it.to_be_bytes()).collect::<Vec<u8>>()
        };
        let read = |it: Vec<u8>| of_binary(&it);
        assert_eq!(read(bytes(0, 0, 0, 0, &[])), Some(Decimal::Whole(0)));
        assert_eq!(read(bytes(1, 0, 0x4000, 3, &[7])), Some(Decimal::Whole(-7)));
        assert_eq!(read(bytes(1, 2, 0, 0, &[7])), Some(Decimal::Whole(700_000_000)));
        assert_eq!(read(bytes(3, 1, 0, 0, &[1, 2, 0])), Some(Decimal::Whole(10_002)));
        assert_eq!(read(bytes(2, 0, 0, 1, &[7, 5000])), Some(Decimal::Fraction));
        assert_eq!(read(bytes(1, 30, 0, 0, &[1])), Some(Decimal::Vast));
        assert_eq!(read(bytes(0, 0, 0xC000, 0, &[])), Some(Decimal::Special));
        // `numeric_recv` cuts off what is not shown.
        assert_eq!(read(bytes(2, 0, 0, 0, &[7, 5000])), None);
        assert_eq!(read(bytes(1, 0, 0, 0, &[10_000])), None);
        assert_eq!(read(vec![0, 1, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(read(vec![0, 1]), None);
    }
}
