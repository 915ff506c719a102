//! EXPLAIN (KEYWAY): where a statement would go, and why, as rows.

use super::effects::{Answer, aborted};
use super::session::Session;
use crate::route::KeySource;
use crate::sql::Lexer;
use crate::wire::{self, Column, ColumnType, TxStatus, Value};

/// As EXPLAIN names its own.
pub(super) const COLUMNS: &[Column] = &[Column { name: "QUERY PLAN", of: ColumnType::Text }];

impl Session {
    pub fn explain_routing(&self, text: &str) -> Answer {
        if self.transaction.status() == TxStatus::Failed {
            return Answer::Refused(aborted());
        }
        let router = &self.database.router;
        let inside = explained(text);
        let planned = router.plan(inside);
        let keys = KeySource { text: inside, literals: &planned.literals, params: None };
        let view = self.view();
        let decided = self.decide(&planned.plan, &keys, &view);
        let lines = router.explain_decided(&planned.plan, &keys, &view, &decided);
        let mut rows = Vec::new();
        for line in lines.lines() {
            wire::put_row(&mut rows, &[Value::Text(line.to_owned())], |_| false);
        }
        Answer::Made { notices: rows, tag: "EXPLAIN", columns: COLUMNS }
    }
}

/// What stands behind `EXPLAIN (KEYWAY)`.
fn explained(text: &str) -> &str {
    let mut lexer = Lexer::new(text.as_bytes());
    while let Ok(Some(token)) = lexer.token() {
        if &text[token.start..token.end] == ")" {
            return &text[token.end..];
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_begins_behind_the_options() {
        assert_eq!(explained("EXPLAIN (KEYWAY) SELECT (1)").trim(), "SELECT (1)");
        assert_eq!(explained("explain /* ) */ ( keyway true ) SELECT 1").trim(), "SELECT 1");
    }
}
