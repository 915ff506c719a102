//! A statement's text for people: without the values of literals and without comments, which may hold anything.

use super::lexer::{Lexer, TokenKind};

/// `?` for each literal, one blank for each gap, cut behind `bytes_max` bytes or so; `None` where PostgreSQL's scanner
/// would refuse the text, of which nobody knows what a literal is. Names stay as they are, in quotes if they were.
pub fn normalised(text: &str, bytes_max: usize) -> Option<String> {
    let mut lexer = Lexer::new(text.as_bytes());
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut end = 0;
    while let Some(token) = lexer.token().ok()? {
        if out.len() >= bytes_max {
            // Whether the rest is lexically right is of no matter for what is shown.
            out.push_str(" ...");
            return Some(out);
        }
        if token.start > end && end > 0 {
            out.push(' ');
        }
        match token.kind {
            TokenKind::Literal(_) => out.push('?'),
            // It starts a literal.
            TokenKind::NationalPrefix => {}
            _ => push_cut(&mut out, text.get(token.start..token.end)?, bytes_max),
        }
        end = token.end;
    }
    Some(out)
}

/// A name may be as long as a message.
fn push_cut(out: &mut String, token: &str, bytes_max: usize) {
    let room = bytes_max.saturating_sub(out.len()).max(4);
    if token.len() <= room {
        return out.push_str(token);
    }
    let at = (0..=room).rev().find(|it| token.is_char_boundary(*it)).unwrap_or(0);
    out.push_str(&token[..at]);
    out.push_str("...");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::scan;

    fn check(text: &str, expect: &str) {
        assert_eq!(normalised(text, 1_000).as_deref(), Some(expect), "{text}");
    }

    #[test]
    fn no_literal_is_left() {
        check("SELECT * FROM users WHERE id = 7", "SELECT * FROM users WHERE id = ?");
        check(
            "select 'a', E'b\\'c', U&'d', B'1', X'2', N'e', $$f$$, $x$g$x$",
            "select ?, ?, ?, ?, ?, ?, ?, ?",
        );
        check("SELECT 1.5e3, .5, 0x1F, 1_000, -3", "SELECT ?, ?, ?, ?, -?");
        check("UPDATE t SET a=$1,b='x' WHERE \"My Col\"=$2", "UPDATE t SET a=$1,b=? WHERE \"My Col\"=$2");
        check("ALTER ROLE a PASSWORD 'secret'", "ALTER ROLE a PASSWORD ?");
        check("INSERT INTO t VALUES (1,'a'),(2,'b');", "INSERT INTO t VALUES (?,?),(?,?);");
        check("SELECT 'a'\n  'b'", "SELECT ?");
    }

    #[test]
    fn comments_and_gaps_go() {
        check("  SELECT\n\t1 -- the secret\n", "SELECT ?");
        check("SELECT /* traceparent='00-1' */ a /* b /* c */ */ , b", "SELECT a , b");
        check("/* only */", "");
        check("SELECT a/**/b", "SELECT a b");
    }

    #[test]
    fn what_cannot_be_scanned_is_nothing() {
        for text in ["SELECT 'open", "SELECT \"open", "SELECT 1a", "SELECT /* open", "SELECT $$open"] {
            assert_eq!(normalised(text, 1_000), None, "{text}");
        }
    }

    #[test]
    fn it_is_cut() {
        let list = vec!["12345"; 10_000].join(", ");
        let cut = normalised(&format!("SELECT * FROM t WHERE id IN ({list})"), 200).unwrap();
        assert!(cut.len() <= 210 && cut.ends_with(" ...") && !cut.contains('1'), "{cut}");
        let cut = normalised(&format!("SELECT \"{}\" FROM t", "é".repeat(5_000)), 100).unwrap();
        assert!(cut.len() <= 120, "{cut}");
    }

    proptest! {
        /// It has the fingerprint of the text, whatever the values: so it is the statement, and it is the same for all of it.
        #[test]
        fn values_do_not_change_it(a in "[a-z0-9' ]{0,12}", b in any::<u32>(), c in "[a-z\n]{0,8}") {
            let text = |a: &str, b: u32, c: &str| {
                format!("SELECT a, '{}' FROM t /* {c} */ WHERE b = {b} AND c = $q${c}$q$", a.replace('\'', "''"))
            };
            let (one, other) = (text(&a, b, &c), text("", 0, ""));
            prop_assert_eq!(scan(&one).fingerprint, scan(&other).fingerprint);
            prop_assert_eq!(normalised(&one, 1_000), normalised(&other, 1_000));
        }
    }
}
