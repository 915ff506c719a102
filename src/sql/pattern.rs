//! A statement that has been scanned, for the next one to be held against: clients send the same text over and over, with
//! other literals in it. To compare bytes costs a tenth of a scan.

use super::lexer::{Lexer, TokenKind, ends_token, plain_integer_end};
use super::scan::{Literal, LiteralKind, Literals};

/// A text that scans well, with its literals.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    literals: Literals,
}

impl Pattern {
    /// Of what `scan` has found in `text`; `None` where a literal's place depends on more than the text beside it.
    pub fn new(text: &str, literals: &Literals) -> Option<Pattern> {
        let mut behind = 0;
        for it in literals {
            let gap = text.as_bytes().get(behind..it.start as usize)?;
            // What stands in front of the literal ends there, whichever literal it is: `t.5` is one, `t5` is none.
            if !gap.last().is_some_and(|it| ends_token(*it)) {
                return None;
            }
            behind = it.end as usize;
        }
        Some(Pattern { text: text.to_owned(), literals: literals.clone() })
    }

    /// The literals of `text`, if it is this one but for the values of its literals: then `scan` gives both the same
    /// fingerprint and the same hints.
    pub fn literals_of(&self, text: &str) -> Option<Literals> {
        let (own, other) = (self.text.as_bytes(), text.as_bytes());
        let mut found = Literals::new();
        let (mut at, mut behind) = (0, 0);
        for it in &self.literals {
            let gap = own.get(behind..it.start as usize)?;
            let start = at + gap.len();
            if other.get(at..start)? != gap {
                return None;
            }
            at = literal_end(other, start, it.kind)?;
            found.push(Literal { kind: it.kind, start: start as u32, end: u32::try_from(at).ok()? });
            behind = it.end as usize;
        }
        (own.get(behind..) == other.get(at..)).then_some(found)
    }
}

/// Of a literal of this kind, if one begins at `start`.
fn literal_end(text: &[u8], start: usize, kind: LiteralKind) -> Option<usize> {
    // Most literals of statements that differ in nothing else are keys, and most keys are integers.
    if kind == LiteralKind::Integer
        && let Some(end) = plain_integer_end(text, start)
    {
        return Some(end);
    }
    let token = Lexer::starting_at(text, start).token().ok()??;
    (token.kind == TokenKind::Literal(kind) && token.start == start).then_some(token.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scan;
    use super::*;

    fn pattern(text: &str) -> Option<Pattern> {
        let found = scan(text);
        if found.well_formed { Pattern::new(text, &found.literals) } else { None }
    }

    /// Whether they are one statement to it; then they are to `scan`.
    fn is_same(one: &str, other: &str) -> bool {
        let Some(literals) = pattern(one).and_then(|it| it.literals_of(other)) else { return false };
        let (known, found) = (scan(one), scan(other));
        assert!(found.well_formed, "{one} {other}");
        assert_eq!(known.fingerprint, found.fingerprint, "{one} {other}");
        assert_eq!(known.hinted, found.hinted);
        assert_eq!(literals, found.literals, "{one} {other}");
        true
    }

    #[test]
    fn texts_that_differ_in_literals_alone_are_the_same() {
        for (one, other) in [
            ("SELECT 1", "SELECT 1"),
            ("SELECT a FROM t WHERE id = 7;", "SELECT a FROM t WHERE id = 123456;"),
            ("SELECT 'a', 2 , E'x'", "SELECT 'it''s', 0x1F , E'\\''"),
            ("INSERT INTO t VALUES (1,'a')", "INSERT INTO t VALUES (22,'')"),
            ("SELECT a FROM t", "SELECT a FROM t"),
            ("SELECT -1", "SELECT -2"),
            ("SELECT 1 -- all", "SELECT 2 -- all"),
            ("/* keyway: shard=s1 */ SELECT 1", "/* keyway: shard=s1 */ SELECT 2"),
            ("SELECT 'a' \n 'b', 1", "SELECT 'c' \n 'd', 2"),
        ] {
            assert!(is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn others_are_not() {
        for (one, other) in [
            ("SELECT 1", "SELECT 'a'"),
            ("SELECT 1", "SELECT 1.5"),
            ("SELECT 1", "SELECT 1a"),
            ("SELECT 1", "SELECT 1 "),
            ("SELECT 1", "select 1"),
            ("SELECT 1", "SELECT"),
            ("SELECT 1", "SELECT "),
            ("SELECT 'a' 'b'", "SELECT 'a'\n'b'"),
            ("SELECT 'a' , 1", "SELECT 'a\n , 1"),
            ("SELECT t.5", "SELECT t5.5"),
            ("SELECT 1, 2", "SELECT 1, '2"),
            ("SELECT $a$x$a$", "SELECT $b$x$b"),
        ] {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn plain_integers_end_where_tokens_do(text in "[0-9]{0,3}[0-9a-fxeob._$+*/ ,;)'\\-]{0,3}") {
            let token = Lexer::starting_at(text.as_bytes(), 0).token();
            if let Some(end) = plain_integer_end(text.as_bytes(), 0) {
                let token = token.unwrap().unwrap();
                let found = (token.kind, token.start, token.end);
                prop_assert_eq!(found, (TokenKind::Literal(LiteralKind::Integer), 0, end));
            }
        }

        /// Whatever it takes for the same, `scan` does (`is_same` asserts it).
        #[test]
        fn what_is_the_same_has_the_same_fingerprint(
            head in "[a-z'\\-+/*. ($:=\n]{0,8}",
            one in "[0-9a-e'.$x_\n-]{0,6}",
            other in "[0-9a-e'.$x_\n-]{0,6}",
            tail in "[a-z0-9'\\-/*. )$:\n]{0,8}",
        ) {
            is_same(&format!("{head}{one}{tail}"), &format!("{head}{other}{tail}"));
        }

        #[test]
        fn numbers_and_strings_change_places(a in any::<u32>(), b in any::<u32>(), s in "[a-z ']{0,9}", t in "[a-z ']{0,9}") {
            let text = |number: u32, text: &str| {
                format!("SELECT * FROM t WHERE a = {number} AND b = '{}' LIMIT {number}", text.replace('\'', "''"))
            };
            prop_assert!(is_same(&text(a, &s), &text(b, &t)));
        }
    }
}
