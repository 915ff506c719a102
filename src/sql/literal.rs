//! The value that a literal of `scan` stands for.

use std::borrow::Cow;

use super::lexer::continuation;
use super::scan::{Literal, LiteralKind};

impl Literal {
    /// The literal as it is written.
    pub fn written<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The text that PostgreSQL would hand to a type's input function: a string without quotes and
    /// escapes, a number in plain digits. `None` for what is never a key: bit strings, `U&'...'`
    /// (its escape character may stand elsewhere) and escapes that make no UTF-8.
    pub fn value<'a>(&self, text: &'a str) -> Option<Cow<'a, str>> {
        let written = self.written(text);
        match self.kind {
            LiteralKind::Integer => integer(written),
            LiteralKind::Float if written.contains('_') => Some(Cow::Owned(written.replace('_', ""))),
            LiteralKind::Float => Some(Cow::Borrowed(written)),
            LiteralKind::String => quoted(written),
            LiteralKind::EscapeString => escaped(written.get(1..)?),
            LiteralKind::DollarString => dollar(written),
            LiteralKind::UnicodeString | LiteralKind::Bits | LiteralKind::HexBits => None,
        }
    }
}

fn integer(written: &str) -> Option<Cow<'_, str>> {
    if written.bytes().all(|it| it.is_ascii_digit()) {
        return Some(Cow::Borrowed(written));
    }
    let radix = match written.as_bytes().get(1).map(|it| it | 0x20) {
        Some(b'x') => 16,
        Some(b'o') => 8,
        Some(b'b') => 2,
        _ if !written.contains('_') => return Some(Cow::Borrowed(written)),
        _ => return Some(Cow::Owned(written.replace('_', ""))),
    };
    let digits = written.get(2..)?.replace('_', "");
    // Beyond 128 bits no key type holds the value; its digits would still be an integer out of range.
    let value = u128::from_str_radix(&digits, radix).unwrap_or(u128::MAX);
    Some(Cow::Owned(value.to_string()))
}

fn quoted(written: &str) -> Option<Cow<'_, str>> {
    let inside = written.strip_prefix('\'')?.strip_suffix('\'')?;
    if !inside.contains('\'') {
        return Some(Cow::Borrowed(inside));
    }
    let mut value = String::with_capacity(inside.len());
    pieces(written, false, |piece| value.push_str(piece))?;
    Some(Cow::Owned(value))
}

/// Walks `'...'` with its continuations and hands on each piece of its contents.
fn pieces(written: &str, escapes: bool, mut piece: impl FnMut(&str)) -> Option<()> {
    let bytes = written.as_bytes();
    let (mut from, mut at) = (1, 1);
    loop {
        match bytes.get(at)? {
            b'\\' if escapes => at += 2,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => {
                piece(written.get(from..=at)?);
                at += 2;
                from = at;
            }
            b'\'' => {
                piece(written.get(from..at)?);
                let Some(inside) = continuation(bytes, at + 1) else { return Some(()) };
                (from, at) = (inside, inside);
            }
            _ => at += 1,
        }
    }
}

fn escaped(written: &str) -> Option<Cow<'_, str>> {
    let inside = written.strip_prefix('\'')?.strip_suffix('\'')?;
    if !inside.contains(['\'', '\\']) {
        return Some(Cow::Borrowed(inside));
    }
    let mut value = Vec::with_capacity(inside.len());
    let mut sound = true;
    pieces(written, true, |piece| sound &= unescape(piece.as_bytes(), &mut value).is_some())?;
    if !sound || value.contains(&0) {
        return None;
    }
    String::from_utf8(value).ok().map(Cow::Owned)
}

/// Backslash escapes (PostgreSQL manual, 4.1.2.2).
fn unescape(mut rest: &[u8], value: &mut Vec<u8>) -> Option<()> {
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'\\' {
            value.push(first);
            rest = tail;
            continue;
        }
        let (&escape, tail) = tail.split_first()?;
        rest = tail;
        match escape {
            b'b' => value.push(0x08),
            b'f' => value.push(0x0C),
            b'n' => value.push(b'\n'),
            b'r' => value.push(b'\r'),
            b't' => value.push(b'\t'),
            b'v' => value.push(0x0B),
            b'0'..=b'7' => {
                let (more, tail) = digits(tail, 2, 8);
                rest = tail;
                value.push((u32::from(escape - b'0') * 8u32.pow(more.1) + more.0) as u8);
            }
            b'x' if tail.first().is_some_and(u8::is_ascii_hexdigit) => {
                let (code, tail) = digits(tail, 2, 16);
                rest = tail;
                value.push(code.0 as u8);
            }
            b'u' | b'U' => {
                let (letter, tail) = code_point(tail, escape)?;
                rest = tail;
                value.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => value.push(other),
        }
    }
    Some(())
}

/// Up to `most` digits: their value, their number, and what follows.
fn digits(bytes: &[u8], most: usize, radix: u32) -> ((u32, u32), &[u8]) {
    let (mut value, mut count) = (0, 0);
    for byte in bytes.iter().take(most) {
        let Some(digit) = char::from(*byte).to_digit(radix) else { break };
        value = value * radix + digit;
        count += 1;
    }
    ((value, count), &bytes[count as usize..])
}

/// `\uXXXX` or `\UXXXXXXXX` behind its letter; a surrogate must have its pair.
fn code_point(bytes: &[u8], letter: u8) -> Option<(char, &[u8])> {
    let exact = |bytes, letter| {
        let most = if letter == b'u' { 4 } else { 8 };
        let ((value, count), rest) = digits(bytes, most, 16);
        (count as usize == most).then_some((value, rest))
    };
    let (first, rest) = exact(bytes, letter)?;
    if !(0xD800..0xDC00).contains(&first) {
        return char::from_u32(first).map(|it| (it, rest));
    }
    let [b'\\', letter @ (b'u' | b'U'), rest @ ..] = rest else { return None };
    let (second, rest) = exact(rest, *letter)?;
    if !(0xDC00..0xE000).contains(&second) {
        return None;
    }
    char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)).map(|it| (it, rest))
}

fn dollar(written: &str) -> Option<Cow<'_, str>> {
    let tag = written.get(..written.get(1..)?.find('$')? + 2)?;
    written.strip_prefix(tag)?.strip_suffix(tag).map(Cow::Borrowed)
}
