//! Which statements a change of the schema may concern.

use crate::sql::{Lexer, Token, TokenKind};

/// A change by its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concern {
    All,
    /// Statements that name this table, in lower case: no other table's columns, and those of no view, change with it.
    Table(Box<str>),
}

impl Concern {
    /// `ALTER TABLE` and `CREATE TABLE` change one table, unless what follows gives it another name, or is another statement. Types, collations
    /// and all else may be of any table. Columns that a view or a child takes over cannot change without it ("cannot alter type of a
    /// column used by a view or rule" in tablecmds.c).
    pub fn of(text: &str) -> Concern {
        Concern::table(text).map_or(Concern::All, |it| Concern::Table(it.to_lowercase().into()))
    }

    fn table(text: &str) -> Option<&str> {
        let mut lexer = Lexer::new(text.as_bytes());
        let mut next = || lexer.token().ok()?.map(|it| (it, &text[it.start..it.end]));
        let (_, first) = next()?;
        if !["alter", "create"].iter().any(|it| it.eq_ignore_ascii_case(first)) {
            return None;
        }
        let mut word = next()?;
        if word.1.eq_ignore_ascii_case("unlogged") {
            word = next()?;
        }
        if !word.1.eq_ignore_ascii_case("table") {
            return None;
        }
        let mut name = next()?;
        while is_one_of(name, &["if", "not", "exists", "only"]) {
            name = next()?;
        }
        let mut rest = next();
        while rest.is_some_and(|it| it.1 == ".") {
            (name, rest) = (next()?, next());
        }
        while let Some(it) = rest {
            if it.1 == ";" || is_one_of(it, &["rename", "schema"]) {
                return None;
            }
            rest = next();
        }
        match name.0.kind {
            TokenKind::Word => Some(name.1),
            TokenKind::QuotedName => Some(name.1.trim_matches('"')).filter(|it| !it.contains('"')),
            _ => None,
        }
    }

    /// Whether a statement may be concerned.
    pub fn meets(&self, text: &str) -> bool {
        match self {
            Concern::All => true,
            Concern::Table(name) => {
                let text = text.to_lowercase();
                // Which may spell the name otherwise.
                text.contains(&**name) || text.contains("u&\"")
            }
        }
    }
}

fn is_one_of((token, text): (Token, &str), words: &[&str]) -> bool {
    token.kind == TokenKind::Word && words.iter().any(|it| it.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_table_is_concerned_where_the_text_names_no_more() {
        for (text, table) in [
            ("ALTER TABLE users ADD COLUMN a int", "users"),
            ("alter table if exists only app.\"Users\" validate constraint c", "users"),
            ("/* why */ CREATE UNLOGGED TABLE IF NOT EXISTS t (a text COLLATE folding)", "t"),
            ("CREATE TABLE Ärger AS SELECT 1", "ärger"),
        ] {
            assert_eq!(Concern::of(text), Concern::Table(table.into()), "{text}");
        }
        for text in [
            "",
            "COMMIT",
            "ALTER TABLE a RENAME TO b",
            "ALTER TABLE a SET SCHEMA other",
            "ALTER TABLE a ADD b int; ALTER TABLE c ADD d int",
            "ALTER TABLE U&\"a\" ADD b int",
            "ALTER TABLE \"a\"\"b\" ADD b int",
            "ALTER TYPE mood ADD VALUE 'x'",
            "CREATE COLLATION folding FROM \"C\"",
            "CREATE VIEW v AS SELECT 1",
            "ALTER TABLE",
        ] {
            assert_eq!(Concern::of(text), Concern::All, "{text}");
        }
    }

    #[test]
    fn a_statement_is_met_that_names_the_table() {
        let users = Concern::of("ALTER TABLE users ADD COLUMN a int");
        for text in [
            "SELECT DISTINCT name FROM app.Users",
            "SELECT 1 FROM \"users\"",
            "SELECT 1 FROM U&\"us\\0065rs\"",
        ] {
            assert!(users.meets(text), "{text}");
        }
        assert!(!users.meets("SELECT DISTINCT what FROM tastings"));
        assert!(Concern::All.meets("SELECT DISTINCT what FROM tastings"));
    }
}
