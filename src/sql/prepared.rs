//! PREPARE and EXECUTE as texts, so that a name in them can be replaced (manual, "PREPARE", "EXECUTE").

use std::ops::Range;

use super::lexer::{Lexer, Token, TokenKind};

/// PostgreSQL's NAMEDATALEN - 1: longer names are cut.
const NAME_BYTES_MAX: usize = 63;

/// `PREPARE name (types) AS statement`, for a text of this one statement.
#[derive(Debug, PartialEq, Eq)]
pub struct PrepareText<'a> {
    pub name: String,
    /// All behind the name.
    pub body: &'a str,
    /// What is prepared.
    pub statement: &'a str,
}

/// A name behind EXECUTE.
#[derive(Debug, PartialEq, Eq)]
pub struct ExecuteName {
    pub name: String,
    pub place: Range<usize>,
}

pub fn prepare_text(text: &str) -> Option<PrepareText<'_>> {
    let mut lexer = Lexer::new(text.as_bytes());
    let mut next = || lexer.token().ok().flatten();
    if !is_word(text, next()?, "prepare") {
        return None;
    }
    let place = next()?;
    let name = name(text, place)?;
    loop {
        let token = next()?;
        if is_word(text, token, "as") {
            let body = text.get(place.end..)?.trim_end().trim_end_matches(';');
            let statement = text.get(token.end..)?.trim_end().trim_end_matches(';');
            return Some(PrepareText { name, body, statement });
        }
    }
}

pub fn execute_names(text: &str) -> Vec<ExecuteName> {
    let mut lexer = Lexer::new(text.as_bytes());
    let (mut names, mut behind) = (Vec::new(), false);
    while let Ok(Some(token)) = lexer.token() {
        if behind && let Some(name) = name(text, token) {
            names.push(ExecuteName { name, place: token.start..token.end });
        }
        behind = is_word(text, token, "execute");
    }
    names
}

/// Names that a text of several statements gives by PREPARE; some that stand elsewhere may be among them.
pub fn prepare_names(text: &str) -> Vec<String> {
    let mut lexer = Lexer::new(text.as_bytes());
    let (mut names, mut behind) = (Vec::new(), [false; 2]);
    while let Ok(Some(token)) = lexer.token() {
        if behind == [false, true] {
            names.extend(name(text, token));
        }
        // DEALLOCATE PREPARE gives none.
        behind = [is_word(text, token, "deallocate"), !behind[0] && is_word(text, token, "prepare")];
    }
    names
}

fn is_word(text: &str, token: Token, word: &str) -> bool {
    token.kind == TokenKind::Word && text[token.start..token.end].eq_ignore_ascii_case(word)
}

/// Folded as PostgreSQL folds it.
fn name(text: &str, token: Token) -> Option<String> {
    let text = text.get(token.start..token.end)?;
    let mut name = match token.kind {
        TokenKind::Word => text.to_ascii_lowercase(),
        TokenKind::QuotedName => text.strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\""),
        _ => return None,
    };
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|it| name.is_char_boundary(*it))?;
    name.truncate(end);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepare_has_a_name_a_body_and_a_statement() {
        let it = prepare_text("/* x */ Prepare \"P\"\"1\" (int, text[]) AS SELECT $1 AS a;").unwrap();
        assert_eq!((&it.name[..], it.body), ("P\"1", " (int, text[]) AS SELECT $1 AS a"));
        assert_eq!(it.statement, " SELECT $1 AS a");
        assert_eq!(prepare_text("PREPARE Plan AS DELETE FROM t").unwrap().name, "plan");
        assert_eq!(prepare_text("EXECUTE p"), None);
        assert_eq!(prepare_text("PREPARE p"), None);
    }

    #[test]
    fn names_behind_prepare_are_found() {
        let text = "PREPARE A AS SELECT 'prepare x'; DEALLOCATE PREPARE b; /* */ prepare \"C\" AS SELECT 1";
        assert_eq!(prepare_names(text), ["a", "C"]);
    }

    #[test]
    fn names_behind_execute_are_found_where_they_stand() {
        let text = "EXPLAIN EXECUTE P1('execute x', 2) -- execute y\n; EXECUTE \"P 2\"";
        let found = execute_names(text);
        let places: Vec<_> = found.iter().map(|it| (&it.name[..], &text[it.place.clone()])).collect();
        assert_eq!(places, [("p1", "P1"), ("P 2", "\"P 2\"")]);
    }
}
