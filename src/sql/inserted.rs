//! The rows of an INSERT ... VALUES by their places in the text, so that each can be sent to where it belongs as
//! it was written.

use std::ops::Range;

use super::lexer::{Lexer, Token, TokenKind};
use super::split::Filled;

/// Where the rows stand, told by tokens: it holds for every text of the fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertedRows {
    /// Of the parenthesis that opens the first row.
    first_token: usize,
    count: usize,
}

/// Places in one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSpans {
    rows: Vec<Range<usize>>,
}

impl InsertedRows {
    /// `None` where the text is not `INSERT INTO name ... VALUES (...), (...)`, with nothing behind the rows but
    /// ON CONFLICT and RETURNING.
    pub fn find(text: &str) -> Option<InsertedRows> {
        let tokens = Tokens::read(text)?;
        let mut at = tokens.after_name()?;
        if tokens.is(at, "as") {
            at += 2;
        }
        let mut depth = 0;
        loop {
            match tokens.depth_after(at, depth)? {
                0 if depth == 0 && tokens.is(at, "values") => break,
                next => depth = next,
            }
            at += 1;
        }
        let first_token = at + 1;
        let (rows, next) = tokens.rows(first_token)?;
        let ends =
            tokens.0.get(next).is_none() || ["on", "returning", ";"].iter().any(|word| tokens.is(next, word));
        ends.then_some(InsertedRows { first_token, count: rows.len() })
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// In a text that has so many tokens more in front of them.
    pub fn behind(self, tokens: usize) -> InsertedRows {
        InsertedRows { first_token: self.first_token + tokens, ..self }
    }

    /// Where they stand in `text`.
    pub fn spans(&self, text: &str) -> Option<RowSpans> {
        let (rows, _) = Tokens::read(text)?.rows(self.first_token)?;
        (rows.len() == self.count).then_some(RowSpans { rows })
    }
}

impl RowSpans {
    /// The statement with these rows alone. Parameters are numbered from 1 in the order in which they come first.
    pub fn statement(&self, text: &str, rows: impl IntoIterator<Item = usize>) -> Option<Filled> {
        let (first, last) = (self.rows.first()?, self.rows.last()?);
        let mut filled = Filled { text: String::new(), params: Vec::new() };
        push(&mut filled, text.get(..first.start)?)?;
        for (index, row) in rows.into_iter().enumerate() {
            filled.text.push_str(if index > 0 { ", " } else { "" });
            push(&mut filled, text.get(self.rows.get(row)?.clone())?)?;
        }
        push(&mut filled, text.get(last.end..)?)?;
        Some(filled)
    }
}

/// Appends a part of a text, its parameters numbered anew.
fn push(filled: &mut Filled, part: &str) -> Option<()> {
    let mut lexer = Lexer::new(part.as_bytes());
    let mut from = 0;
    while let Some(token) = lexer.token().ok()? {
        if token.kind != TokenKind::Param {
            continue;
        }
        let number = part.get(token.start + 1..token.end)?.parse().ok()?;
        let known = filled.params.iter().position(|it| *it == number);
        let at = known.unwrap_or_else(|| {
            filled.params.push(number);
            filled.params.len() - 1
        });
        filled.text.push_str(part.get(from..token.start)?);
        filled.text.push_str(&format!("${}", at + 1));
        from = token.end;
    }
    filled.text.push_str(part.get(from..)?);
    Some(())
}

struct Tokens<'a>(Vec<(Token, &'a str)>);

impl<'a> Tokens<'a> {
    fn read(text: &'a str) -> Option<Tokens<'a>> {
        let (mut lexer, mut tokens) = (Lexer::new(text.as_bytes()), Vec::new());
        while let Some(token) = lexer.token().ok()? {
            tokens.push((token, text.get(token.start..token.end)?));
        }
        Some(Tokens(tokens))
    }

    /// A keyword or a mark.
    fn is(&self, at: usize, word: &str) -> bool {
        self.0.get(at).is_some_and(|(token, written)| {
            token.kind != TokenKind::QuotedName && written.eq_ignore_ascii_case(word)
        })
    }

    /// Behind INSERT INTO and the table's name, which may be `values`.
    fn after_name(&self) -> Option<usize> {
        if !self.is(0, "insert") || !self.is(1, "into") {
            return None;
        }
        let mut at = 3;
        while self.is(at, ".") {
            at += 2;
        }
        Some(at)
    }

    fn depth_after(&self, at: usize, depth: usize) -> Option<usize> {
        match self.0.get(at)?.1 {
            "(" | "[" => Some(depth + 1),
            ")" | "]" => depth.checked_sub(1),
            _ => Some(depth),
        }
    }

    /// The rows from the token `at` on, and the token behind them.
    fn rows(&self, mut at: usize) -> Option<(Vec<Range<usize>>, usize)> {
        let mut rows = Vec::new();
        loop {
            let start = self.0.get(at).filter(|it| it.1 == "(")?.0.start;
            let mut depth = 0;
            let end = loop {
                depth = self.depth_after(at, depth)?;
                at += 1;
                if depth == 0 {
                    break self.0.get(at - 1)?.0.end;
                }
            };
            rows.push(start..end);
            if !self.is(at, ",") {
                return Some((rows, at));
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statement of the rows that are named, as `text | parameters`.
    fn part(text: &str, rows: &[usize]) -> String {
        let spans = InsertedRows::find(text).unwrap().spans(text).unwrap();
        let filled = spans.statement(text, rows.iter().copied()).unwrap();
        format!("{} | {:?}", filled.text, filled.params)
    }

    #[test]
    fn rows_are_kept_as_they_are_written() {
        let text = "INSERT INTO a.t AS values (id, v[1], \"values\") OVERRIDING USER VALUE VALUES (1, 'a,(b', $2), \
                    ($3::int, DEFAULT, f(g(1), ARRAY[$2, $3])), -- second\n (-2, E'\\')', $1) \
                    ON CONFLICT (id) DO UPDATE SET v = excluded.v || $4 RETURNING id, $4;";
        let (before, after) = (
            "INSERT INTO a.t AS values (id, v[1], \"values\") OVERRIDING USER VALUE VALUES ",
            " ON CONFLICT (id) DO UPDATE SET v = excluded.v || $2 RETURNING id, $2;",
        );
        assert_eq!(part(text, &[0]), format!("{before}(1, 'a,(b', $1){after} | [2, 4]"));
        let after = after.replace("$2", "$3");
        assert_eq!(
            part(text, &[1, 2]).replace("$4", "$3"),
            format!(
                "{before}($1::int, DEFAULT, f(g(1), ARRAY[$2, $1])), (-2, E'\\')', $3){} | [3, 2, 1, 4]",
                after
            )
        );
    }

    #[test]
    fn one_fingerprint_has_its_rows_at_the_same_tokens() {
        let (a, b) =
            ("INSERT INTO t VALUES (1,'x'),(2,'y')", "insert into t /* c */ values (10, '),(') , (3,'')");
        assert_eq!(InsertedRows::find(a), InsertedRows::find(b));
        let spans = InsertedRows::find(a).unwrap().spans(b).unwrap();
        let filled = spans.statement(b, [0]).unwrap();
        assert_eq!(filled.text, "insert into t /* c */ values (10, '),(')");
    }

    #[test]
    fn rows_stand_behind_a_list_that_is_put_in_front() {
        let rows = InsertedRows::find("INSERT INTO t VALUES (1), (2)").unwrap();
        let spans = rows.behind(5).spans("INSERT INTO t (a, b) VALUES (1), (2)").unwrap();
        let filled = spans.statement("INSERT INTO t (a, b) VALUES (1), (2)", [1]).unwrap();
        assert_eq!(filled.text, "INSERT INTO t (a, b) VALUES (2)");
    }

    #[test]
    fn other_forms_are_not_taken_apart() {
        for text in [
            "WITH c AS (SELECT 1) INSERT INTO t VALUES (1), (2)",
            "INSERT INTO t (VALUES (1), (2))",
            "INSERT INTO t VALUES (1), (2) ORDER BY 1",
            "INSERT INTO t VALUES (1), (2) LIMIT 1",
            "INSERT INTO t VALUES (1), (2) UNION ALL VALUES (3)",
            "INSERT INTO t SELECT 1",
            "INSERT INTO t DEFAULT VALUES",
            "UPDATE t SET a = 1",
        ] {
            assert_eq!(InsertedRows::find(text), None, "{text}");
        }
        assert_eq!(InsertedRows::find("INSERT INTO values VALUES (1), (2)").map(|it| it.count()), Some(2));
    }
}
