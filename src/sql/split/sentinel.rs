//! A text in which each literal is one of its own kind that says which literal it is, so that what is printed
//! from its tree can be turned back into a text for the values of any text of the fingerprint.

use super::super::scan::{Literal, LiteralKind};

/// Integers from here on are literals by their index; below 2^31, so that the grammar takes them for integers.
const INTEGER: u32 = 1_900_000_000;
const INDEX_MAX: usize = 200_000_000;

/// `None` where a kind of literal has no sentinel: bit strings, and `U&'...'`, whose escape stands elsewhere.
pub fn with_sentinels(text: &str, literals: &[Literal]) -> Option<String> {
    let mut out = String::with_capacity(text.len() + literals.len() * 8);
    let mut from = 0;
    for (index, literal) in literals.iter().enumerate().take(INDEX_MAX) {
        out.push_str(text.get(from..literal.start as usize)?);
        match literal.kind {
            LiteralKind::Integer => out.push_str(&(INTEGER + index as u32).to_string()),
            LiteralKind::Float => out.push_str(&format!("{}.5", INTEGER + index as u32)),
            LiteralKind::String | LiteralKind::EscapeString | LiteralKind::DollarString => {
                out.push_str(&format!("'keyway literal {index}'"));
            }
            LiteralKind::UnicodeString | LiteralKind::Bits | LiteralKind::HexBits => return None,
        }
        from = literal.end as usize;
    }
    out.push_str(text.get(from..)?);
    Some(out)
}

/// The literal that a number of the tree stands for.
pub fn of_integer(value: u32) -> Option<u32> {
    value.checked_sub(INTEGER)
}

pub fn of_float(text: &str) -> Option<u32> {
    of_integer(text.strip_suffix(".5")?.parse().ok()?)
}

/// Of a string's contents.
pub fn of_string(text: &str) -> Option<u32> {
    text.strip_prefix("keyway literal ")?.parse().ok()
}

/// Of a token of a printed text, quotes included.
pub fn of_token(kind: LiteralKind, token: &str) -> Option<u32> {
    match kind {
        LiteralKind::Integer => of_integer(token.parse().ok()?),
        LiteralKind::Float => of_float(token),
        LiteralKind::String => of_string(token.strip_prefix('\'')?.strip_suffix('\'')?),
        _ => None,
    }
}
