//! INSERTs that leave their columns to the catalog: where a list of them belongs in a text, and the text with it.

use super::lexer::{Lexer, Token, TokenKind};

/// Where the list of an INSERT belongs: behind so many tokens. It holds for every text of the fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ColumnsPlace(usize);

impl ColumnsPlace {
    /// Behind the table whose name begins at byte `at`, and its alias. `None` where they are written with escapes
    /// (`U&"..."`), or the text is not lexically sound.
    pub fn find(text: &str, at: usize) -> Option<ColumnsPlace> {
        let (mut lexer, mut tokens) = (Lexer::new(text.as_bytes()), Vec::new());
        while let Some(token) = lexer.token().ok()? {
            tokens.push(token);
        }
        let name = |at: usize| {
            let is_name = |it: &&Token| matches!(it.kind, TokenKind::Word | TokenKind::QuotedName);
            tokens.get(at).filter(is_name).map(|_| at + 1)
        };
        let is = |at: usize, word: &str| {
            let written = tokens.get(at).filter(|it| it.kind != TokenKind::QuotedName);
            written.and_then(|it| text.get(it.start..it.end)).is_some_and(|it| it.eq_ignore_ascii_case(word))
        };
        let mut next = name(tokens.iter().position(|it| it.start == at)?)?;
        while is(next, ".") {
            next = name(next + 1)?;
        }
        if is(next, "as") {
            next = name(next + 1)?;
        }
        Some(ColumnsPlace(next))
    }
}

/// The columns that the INSERTs of a text mean, as they are to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnLists(Vec<(ColumnsPlace, Box<[String]>)>);

/// A text with lists in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedText {
    pub text: String,
    pub moves: Moves,
}

/// What was put into a text: behind how many characters of the longer one, and how many characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves(Vec<(usize, usize)>);

impl ColumnLists {
    pub fn add(&mut self, place: ColumnsPlace, names: Box<[String]>) {
        let at = self.0.partition_point(|it| it.0 < place);
        self.0.insert(at, (place, names));
    }

    /// Those of another statement of the same text.
    pub fn extend(&mut self, other: &ColumnLists) {
        other.0.iter().for_each(|(place, names)| self.add(*place, names.clone()));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By how many tokens the text becomes longer: names, commas between them, parentheses around them.
    pub fn tokens(&self) -> usize {
        self.0.iter().map(|it| 2 * it.1.len() + 1).sum()
    }

    /// `text` is one of the fingerprint that the places were found for.
    pub fn name(&self, text: &str) -> NamedText {
        let mut named = NamedText { text: String::new(), moves: Moves::default() };
        let (mut lexer, mut seen, mut copied, mut characters) = (Lexer::new(text.as_bytes()), 0, 0, 0);
        let mut lists = self.0.iter().peekable();
        while let (Some((place, names)), Ok(Some(token))) = (lists.peek(), lexer.token()) {
            seen += 1;
            if seen < place.0 {
                continue;
            }
            let before = text.get(copied..token.end).unwrap_or_default();
            let list = format!(" ({})", names.join(", "));
            characters += before.chars().count();
            named.moves.0.push((characters, list.chars().count()));
            characters += list.chars().count();
            named.text.push_str(before);
            named.text.push_str(&list);
            copied = token.end;
            lists.next();
        }
        debug_assert!(lists.peek().is_none(), "a text of another fingerprint");
        named.text.push_str(text.get(copied..).unwrap_or_default());
        named
    }
}

impl Moves {
    /// Where a place of the longer text is in the client's, both counted from 1 as ErrorResponse counts. What
    /// was put there stands for the last character of the name in front of it.
    pub fn original(&self, position: usize) -> usize {
        let put = self.0.iter().map(|(at, count)| position.saturating_sub(*at).min(*count));
        position - put.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(text: &str, tables: &[(&str, &[&str])]) -> ColumnLists {
        let mut lists = ColumnLists::default();
        for (table, columns) in tables {
            let place = ColumnsPlace::find(text, text.find(table).unwrap()).unwrap();
            lists.add(place, columns.iter().map(|it| (*it).to_owned()).collect());
        }
        lists
    }

    #[test]
    fn a_list_stands_behind_the_name_and_its_alias() {
        for (text, table, want) in [
            ("INSERT INTO t VALUES (1)", "t VALUES", "INSERT INTO t (a, b) VALUES (1)"),
            ("insert into t(values (1))", "t(", "insert into t (a, b)(values (1))"),
            ("INSERT INTO s . \"T\"/**/SELECT 1", "s .", "INSERT INTO s . \"T\" (a, b)/**/SELECT 1"),
            ("INSERT INTO t AS \"as\" VALUES (1)", "t AS", "INSERT INTO t AS \"as\" (a, b) VALUES (1)"),
            (
                "WITH x AS (SELECT 'é') INSERT INTO values OVERRIDING USER VALUE VALUES (1)",
                "values",
                "WITH x AS (SELECT 'é') INSERT INTO values (a, b) OVERRIDING USER VALUE VALUES (1)",
            ),
        ] {
            let lists = lists(text, &[(table, &["a", "b"])]);
            assert_eq!(lists.name(text).text, want);
            assert_eq!(lists.tokens(), 5);
        }
        assert_eq!(ColumnsPlace::find("INSERT INTO U&\"t\" VALUES (1)", 12), None);
        assert_eq!(ColumnsPlace::find("INSERT INTO t AS U&\"a\" VALUES (1)", 12), None);
        assert_eq!(ColumnsPlace::find("INSERT INTO t VALUES (1)", 13), None);
    }

    #[test]
    fn a_place_holds_for_other_literals() {
        let (text, other) = (
            "WITH x AS (SELECT 'a') INSERT INTO t VALUES (1); INSERT INTO s.u VALUES ('b', 2)",
            "with x as (select 'a longer one') /* c */ insert into t values (10); insert into s.u values ('', 2)",
        );
        let mut one = lists(text, &[("s.u", &["c", "d"])]);
        one.extend(&lists(text, &[("t VALUES", &["a"])]));
        assert_eq!(
            one.name(other).text,
            "with x as (select 'a longer one') /* c */ insert into t (a) values (10); insert into s.u (c, d) \
             values ('', 2)"
        );
    }

    #[test]
    fn places_of_the_longer_text_are_found_back() {
        let text = "/* é */ INSERT INTO t VALUES (no); INSERT INTO u VALUES (no_more)";
        let lists = lists(text, &[("t VALUES", &["a", "\"é\""]), ("u VALUES", &["b"])]);
        let named = lists.name(text);
        let place = |text: &str, what: &str| text[..text.find(what).unwrap()].chars().count() + 1;
        for what in ["INSERT", "t", "VALUES (no)", "no)", "; INSERT", "u", "VALUES (no_", "no_more", "more)"]
        {
            assert_eq!(named.moves.original(place(&named.text, what)), place(text, what), "{what}");
        }
        for what in ["(a", "\"é", "b"] {
            let table = if what == "b" { "u VALUES" } else { "t VALUES" };
            assert_eq!(named.moves.original(place(&named.text, what)), place(text, table), "{what}");
        }
        assert_eq!(Moves::default().original(7), 7);
    }
}
