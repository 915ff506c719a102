//! Which client encodings may be. Keyway reads statements and keys as UTF8, and servers are spoken to in
//! UTF8 from login on; under another encoding the same bytes would be another key, and in some a byte of
//! a character looks like a quote or a backslash.

use crate::base::{Reason, Refusal, SqlState};

/// SQL_ASCII means that the server converts nothing, which is what UTF8 to a UTF8 server does too.
pub(super) fn is_served(name: &str) -> bool {
    is_utf8(name) || bare(name) == "sqlascii"
}

pub(super) fn is_utf8(name: &str) -> bool {
    matches!(bare(name).as_str(), "utf8" | "unicode")
}

/// Names of encodings ignore case and punctuation (`clean_encoding_name` in PostgreSQL's encnames.c).
fn bare(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|it| it.to_ascii_lowercase()).collect()
}

/// The value of a SET of client_encoding: its last word or literal. DEFAULT is what the servers were
/// asked for at login.
pub(super) fn is_served_by_set(text: &str) -> bool {
    let text = text.trim().trim_end_matches(';').trim_end();
    let value = match text.strip_suffix(['\'', '"']) {
        Some(rest) => rest.rsplit(['\'', '"']).next(),
        None => text.rsplit(|it: char| it.is_whitespace() || it == '=').next(),
    };
    value.is_some_and(|it| is_served(it) || it.eq_ignore_ascii_case("default"))
}

pub(super) fn refusal(name: &str) -> Refusal {
    let known = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
    Refusal::new(
        Reason::Unsupported,
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("client encoding{known} is not supported"),
    )
    .hint("use client_encoding UTF8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_judged_by_its_value() {
        for text in [
            "SET client_encoding TO 'UTF8'",
            "set client_encoding=utf-8;",
            "SET NAMES 'utf8' ;",
            "SET client_encoding = DEFAULT",
            "SET client_encoding TO \"SQL_ASCII\"",
        ] {
            assert!(is_served_by_set(text), "{text}");
        }
        for text in ["SET client_encoding TO 'LATIN1'", "SET NAMES SJIS", "SET client_encoding = 'utf8' -- '"]
        {
            assert!(!is_served_by_set(text), "{text}");
        }
    }
}
