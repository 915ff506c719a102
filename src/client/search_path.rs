//! What the session's search_path is, as far as it is certain: a list that the session has set itself, by its
//! startup packet, SET or set_config, and not within the transaction that is open.

use super::session::Session;
use crate::route::Path;
use crate::sql::{Lexer, TokenKind, scan};

const NAME: &str = "search_path";
/// Stands for the role that the session is at the moment.
const USER: &str = "$user";

impl Session {
    /// Looked for only where schemas are homes of tables.
    pub(super) fn path(&self) -> Path {
        let router = &self.database.router;
        if !router.reads_path() || self.transaction.may_have_set(NAME) {
            return Path::Unknown;
        }
        match self.settings.statement(NAME).and_then(schemas) {
            Some(schemas) if !schemas.iter().any(|it| it == USER) => {
                router.path(&schemas.iter().map(String::as_str).collect::<Vec<_>>())
            }
            _ => Path::Unknown,
        }
    }
}

/// The schemas that a statement sets: `SET search_path TO a, "B"`, `SET SCHEMA 'a'`, or a call of set_config.
fn schemas(statement: &str) -> Option<Vec<String>> {
    let literals = scan(statement).literals;
    let mut values = literals.iter().map(|it| it.value(statement));
    let mut lexer = Lexer::new(statement.as_bytes());
    let mut head = Vec::new();
    while let Some(token) = lexer.token().ok()? {
        let word = statement.get(token.start..token.end)?.to_ascii_lowercase();
        match &word[..] {
            "select" => return split(&values.nth(1)??),
            "set" | "session" | NAME => head.push(word),
            "to" | "=" if head.iter().any(|it| it == NAME) => break,
            "schema" => break,
            _ => return None,
        }
    }
    let mut names = Vec::new();
    while let Some(token) = lexer.token().ok()? {
        let text = statement.get(token.start..token.end)?;
        match (token.kind, text) {
            (TokenKind::Punctuation, "," | ";") => {}
            (TokenKind::Literal(_), _) => names.push(values.next()??.into_owned()),
            (TokenKind::QuotedName, _) => names.extend(split(text)?),
            (TokenKind::Word, _) if !text.eq_ignore_ascii_case("default") => {
                names.push(text.to_ascii_lowercase());
            }
            _ => return None,
        }
    }
    Some(names)
}

/// As `SplitIdentifierString`: names with commas between them, folded unless they are quoted.
fn split(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut lexer = Lexer::new(list.as_bytes());
    while let Some(token) = lexer.token().ok()? {
        let text = list.get(token.start..token.end)?;
        match (token.kind, text) {
            (TokenKind::Punctuation, ",") => {}
            (TokenKind::QuotedName, _) => {
                let inside = text.strip_prefix('"')?.strip_suffix('"')?;
                names.push(inside.replace("\"\"", "\""));
            }
            (TokenKind::Word, _) => names.push(text.to_ascii_lowercase()),
            _ => return None,
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Assignment;

    #[test]
    fn schemas_are_read_from_each_form() {
        let read = |statement: &str| schemas(statement).map(|it| it.join("|"));
        for (statement, want) in [
            ("SET search_path TO tenant_a, public", "tenant_a|public"),
            ("set SESSION Search_Path = Tenant_A", "tenant_a"),
            ("SET search_path TO \"Tenant A\", 'b, c' ; ", "Tenant A|b, c"),
            ("SET SCHEMA 'tenant_a'", "tenant_a"),
            ("SET search_path = \"$user\", public", "$user|public"),
            ("SET search_path = ''", ""),
        ] {
            assert_eq!(read(statement).as_deref(), Some(want), "{statement}");
        }
        for statement in
            ["RESET \"search_path\"", "SET search_path TO DEFAULT", "SET search_path FROM CURRENT", "x"]
        {
            assert_eq!(read(statement), None, "{statement}");
        }
        let of_value = |value| read(&Assignment::of_value(NAME, value).statement);
        assert_eq!(of_value("Tenant_A, \"B\"\"c\"").as_deref(), Some("tenant_a|B\"c"));
        assert_eq!(of_value("a\\b"), None);
        assert_eq!(of_value("").as_deref(), Some(""));
    }
}
