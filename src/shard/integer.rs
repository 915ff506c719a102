//! Digits as PostgreSQL's integer types read them.

/// Without the blanks around it that `isspace` knows.
pub fn trim(text: &str) -> &str {
    text.trim_matches(|it: char| it.is_ascii_whitespace() || it == '\x0b')
}

/// As `int8in` and its smaller sisters: blanks around, one sign, digits; also 0x, 0o, 0b and underscores
/// between digits, which PostgreSQL takes from version 16 on. An older server refuses those by itself, so
/// that taking them here sends no row astray. What is too large for every type saturates.
pub fn parse(text: &str) -> Option<i128> {
    if let Some(value) = plain(text) {
        return Some(value.into());
    }
    let trimmed = trim(text);
    match trimmed.as_bytes().first() {
        Some(b'-') => magnitude(&trimmed[1..]).map(|it| -it),
        Some(b'+') => magnitude(&trimmed[1..]),
        _ => magnitude(trimmed),
    }
}

/// A few decimal digits and nothing else, as most keys are written.
fn plain(text: &str) -> Option<u64> {
    let mut value = 0u64;
    for digit in text.bytes().map(|it| it.wrapping_sub(b'0')) {
        if digit > 9 {
            return None;
        }
        value = value.wrapping_mul(10).wrapping_add(digit.into());
    }
    (1..=18).contains(&text.len()).then_some(value)
}

/// Digits of any base that `pg_strtoint64_safe` knows, one underscore at most in front of each; what is
/// too large for every type saturates.
pub fn magnitude(text: &str) -> Option<i128> {
    let (radix, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'o' | b'O', ..] => (8, &text[2..]),
        [b'0', b'b' | b'B', ..] => (2, &text[2..]),
        _ => (10, text),
    };
    if digits.is_empty() || radix == 10 && digits.starts_with('_') {
        return None;
    }
    let (mut value, mut after_digit) = (0i128, true);
    for it in digits.chars() {
        match it.to_digit(radix) {
            Some(digit) => {
                value = value.saturating_mul(radix.into()).saturating_add(digit.into());
                after_digit = true;
            }
            None if it == '_' && after_digit => after_digit = false,
            None => return None,
        }
    }
    after_digit.then_some(value)
}
