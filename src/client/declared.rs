//! The query that a DECLARE has a cursor for.

use crate::sql::Lexer;

/// The query of a DECLARE at its place in the text: what stands in front of it is blank.
pub(super) fn declared_query(text: &str) -> Option<String> {
    let mut lexer = Lexer::new(text.as_bytes());
    // DECLARE and the name.
    lexer.token().ok()??;
    lexer.token().ok()??;
    let mut is_cursor = false;
    while let Ok(Some(token)) = lexer.token() {
        let word = text.get(token.start..token.end)?;
        if is_cursor && word.eq_ignore_ascii_case("for") {
            let before = text.get(..token.end)?.chars().map(|it| " ".repeat(it.len_utf8()));
            return Some(before.collect::<String>() + text.get(token.end..)?);
        }
        is_cursor |= word.eq_ignore_ascii_case("cursor");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_query_stands_where_it_stood() {
        for (text, query) in [
            ("DECLARE c CURSOR FOR SELECT 1", "SELECT 1"),
            (
                "declare \"for\" no scroll cursor without hold for select 'for' for update",
                "select 'for' for update",
            ),
            ("DECLARE cursor CURSOR FOR\nVALUES (1)", "VALUES (1)"),
            ("DECLARE é CURSOR /* for */ FOR TABLE t", "TABLE t"),
        ] {
            let found = declared_query(text).unwrap();
            assert_eq!((found.trim(), found.len()), (query, text.len()), "{text}");
            assert!(text.ends_with(query) && found.ends_with(query));
        }
        assert_eq!(declared_query("SELECT 1"), None);
    }
}
