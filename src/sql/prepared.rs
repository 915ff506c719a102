//! PREPARE and EXECUTE as texts, so that a name in them can be replaced, and the statement run by Parse and Bind as well
//! (manual, "PREPARE", "EXECUTE").

use std::ops::Range;

use super::lexer::{Lexer, Token, TokenKind};
use super::scan::{Literal, LiteralKind};
use super::type_names::type_oids;

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
    /// As Parse declares them, 0 for none; `None` where a type is not a built-in one by its name.
    pub oids: Option<Vec<u32>>,
}

/// A text that is EXECUTE alone: its name, and the values where all are constants, as text, NULL as `None`.
#[derive(Debug, PartialEq, Eq)]
pub struct ExecuteText {
    pub name: String,
    pub values: Option<Vec<Option<String>>>,
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
    let mut types = Vec::new();
    loop {
        let token = next()?;
        if is_word(text, token, "as") {
            let (body, statement) =
                (without_end(text.get(place.end..)?), without_end(text.get(token.end..)?));
            let oids = match &types[..] {
                [] => Some(Vec::new()),
                [_, types @ .., _] => type_oids(text, types),
                [_] => None,
            };
            return Some(PrepareText { name, body, statement, oids });
        }
        types.push(token);
    }
}

/// PostgreSQL's white space only: others may be the end of a name.
fn without_end(text: &str) -> &str {
    text.trim_end_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c', ';'])
}

pub fn execute_text(text: &str) -> Option<ExecuteText> {
    let mut lexer = Lexer::new(text.as_bytes());
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token().ok()? {
        tokens.push(token);
    }
    while tokens.last().is_some_and(|it| text.get(it.start..it.end) == Some(";")) {
        tokens.pop();
    }
    let [execute, named, rest @ ..] = &tokens[..] else { return None };
    if !is_word(text, *execute, "execute") {
        return None;
    }
    let is = |token: &Token, mark: &str| text.get(token.start..token.end) == Some(mark);
    let values = match rest {
        [] => Some(Vec::new()),
        [open, values @ .., close] if is(open, "(") && is(close, ")") => {
            values.split(|it| is(it, ",")).map(|it| constant(text, it)).collect()
        }
        _ => None,
    };
    Some(ExecuteText { name: name(text, *named)?, values })
}

/// A constant that is the same value as this text is of any type that PostgreSQL assigns it to: not a number with a
/// fraction, which an integer parameter rounds.
fn constant(text: &str, tokens: &[Token]) -> Option<Option<String>> {
    let integer = |token: &Token| {
        let TokenKind::Literal(kind @ LiteralKind::Integer) = token.kind else { return None };
        let literal = Literal { kind, start: token.start as u32, end: token.end as u32 };
        literal.value(text)?.parse::<u128>().ok().filter(|it| *it < u128::MAX)
    };
    Some(Some(match tokens {
        [minus, number] if text.get(minus.start..minus.end)? == "-" => match integer(number)? {
            0 => "0".to_owned(),
            number => format!("-{number}"),
        },
        [only] => match only.kind {
            TokenKind::Word => match &*text.get(only.start..only.end)?.to_ascii_lowercase() {
                "null" => return Some(None),
                word @ ("true" | "false") => word.to_owned(),
                _ => return None,
            },
            TokenKind::Literal(LiteralKind::Integer) => integer(only)?.to_string(),
            TokenKind::Literal(LiteralKind::Float) => return None,
            TokenKind::Literal(kind) => {
                let literal = Literal { kind, start: only.start as u32, end: only.end as u32 };
                literal.value(text)?.into_owned()
            }
            _ => return None,
        },
        _ => return None,
    }))
}

/// The highest number of a parameter in `statement`.
pub fn params_max(statement: &str) -> usize {
    let mut lexer = Lexer::new(statement.as_bytes());
    let mut most = 0;
    while let Ok(Some(token)) = lexer.token() {
        if token.kind == TokenKind::Param {
            let number = statement.get(token.start + 1..token.end).and_then(|it| it.parse().ok());
            most = most.max(number.unwrap_or(0));
        }
    }
    most
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
        assert_eq!(prepare_text("PREPARE p AS SELECT 1 \x0c; ;\n").unwrap().statement, " SELECT 1");
        assert_eq!(prepare_text("PREPARE p AS SELECT 1 a\u{a0}").unwrap().statement, " SELECT 1 a\u{a0}");
        assert_eq!(prepare_text("PREPARE Plan AS DELETE FROM t").unwrap().name, "plan");
        assert_eq!(prepare_text("EXECUTE p"), None);
        assert_eq!(prepare_text("PREPARE p"), None);
    }

    #[test]
    fn declared_types_are_told_by_their_names() {
        let oids = |types: &str| prepare_text(&format!("PREPARE p {types} AS SELECT $1")).unwrap().oids;
        assert_eq!(oids(""), Some(vec![]));
        assert_eq!(oids("(int, TEXT, numeric(10, 2))"), Some(vec![23, 25, 1700]));
        assert_eq!(oids("(double precision, character varying(3), int[])"), Some(vec![701, 1043, 1007]));
        assert_eq!(oids("(timestamp with time zone, pg_catalog.int8)"), Some(vec![1184, 20]));
        assert_eq!(oids("(\"char\", char, \"int4\"[])"), Some(vec![18, 1042, 1007]));
        for unknown in [
            "(mood)",
            "(int, my.text)",
            "(float(4))",
            "(\"int\")",
            "(int[3])",
            "(t%TYPE)",
            "(timestamp(3) with time zone, x)",
        ] {
            assert_eq!(oids(unknown), None, "{unknown}");
        }
        assert_eq!(oids("(timestamp(3) with time zone)"), Some(vec![1184]));
    }

    #[test]
    fn values_of_execute_are_constants_or_not_known() {
        let values = |text: &str| execute_text(text).unwrap().values;
        let some =
            |all: &[Option<&str>]| Some(all.iter().map(|it| it.map(str::to_owned)).collect::<Vec<_>>());
        assert_eq!(values("EXECUTE p"), some(&[]));
        assert_eq!(values("execute p (7, -007, 'it''s', NULL, E'a\\n', true) ; "), {
            some(&[Some("7"), Some("-7"), Some("it's"), None, Some("a\n"), Some("true")])
        });
        assert_eq!(values("EXECUTE p (0x1F, -0, $$a$$)"), some(&[Some("31"), Some("0"), Some("a")]));
        for unknown in [
            "(1 + 1)",
            "('1'::int)",
            "(f(1))",
            "($1)",
            "(1.5)",
            "((1))",
            "(1,)",
            "(N'x')",
            "(B'1')",
            "()",
            "(1) x",
        ] {
            assert_eq!(values(&format!("EXECUTE p {unknown}")), None, "{unknown}");
        }
        assert_eq!(execute_text("EXPLAIN EXECUTE p"), None);
        assert_eq!(execute_text("EXECUTE P").unwrap().name, "p");
        assert_eq!(params_max("SELECT $2, '$9', $1 -- $7"), 2);
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
