//! Routing hints that a session has set (`SET keyway.shard = 's1'`). They are settings like others, servers know them
//! too, and SHOW, RESET, SET LOCAL and savepoints do with them what they do with others.

use super::cursors::{CursorPlace, not_alone};
use super::session::Session;
use crate::base::Refusal;
use crate::route::{Assigned, Decision, KeySource, Kind, Plan, SessionHint, SessionView, SetStatement, Why};
use crate::sql::{Lexer, TokenKind, scan};

const SETTINGS: [&str; 5] = ["keyway.shard", "keyway.map", "keyway.key", "keyway.role", "keyway.consistency"];

impl Session {
    pub fn decide(&self, plan: &Plan, keys: &KeySource<'_>, view: &SessionView) -> Result<Decision, Refusal> {
        let router = &self.database.router;
        let mut decision = match self.hint() {
            None => router.decide(plan, keys, view),
            Some(hint) => router.decide_hinted(plan, keys, view, &hint),
        }?;
        if let Kind::Cursor(cursor) = &plan.kind {
            self.check_cursor_name(&plan.kind, &decision.shards)?;
            match cursor.name().and_then(|it| self.cursor_place(it)) {
                Some(CursorPlace::On(shard)) => {
                    (decision.shards, decision.why) = ([shard].into_iter().collect(), Why::Keys);
                }
                Some(CursorPlace::Merged) => return Err(not_alone(cursor.name().unwrap_or(""))),
                None => {}
            }
        }
        self.check_hidden(plan, &decision)?;
        Ok(decision)
    }

    pub fn hint(&self) -> Option<SessionHint> {
        let in_transaction = self.transaction.sets_any(SessionHint::PREFIX);
        if !in_transaction && !self.settings.has_custom(SessionHint::PREFIX) {
            return None;
        }
        let mut hint = SessionHint::default();
        for name in SETTINGS {
            let statement = match self.transaction.latest(name) {
                Some(made) => made,
                None => self.settings.statement(name),
            };
            let value = statement.and_then(value_of).filter(|it| !it.is_empty());
            if let Some(place) = hint.place(name) {
                *place = value;
            }
        }
        (hint != SessionHint::default()).then_some(hint)
    }

    /// Whether a SET of a hint names something here.
    pub fn check_hint(&self, kind: &Kind, text: &str) -> Result<(), Refusal> {
        match kind {
            Kind::Set(SetStatement::Assign { name, value, .. }) if name.starts_with(SessionHint::PREFIX) => {
                let value = if matches!(value, Assigned::Default) { None } else { value_of(text) };
                self.database.router.check_hint(name, value.as_deref())
            }
            _ => Ok(()),
        }
    }
}

/// The value that a statement sets, SET or a call of set_config; `None` for DEFAULT and what cannot be told.
pub(super) fn value_of(statement: &str) -> Option<String> {
    let literals = scan(statement).literals;
    let mut values = literals.iter().map(|it| it.value(statement));
    let mut lexer = Lexer::new(statement.as_bytes());
    let mut head = true;
    while let Some(token) = lexer.token().ok()? {
        let text = statement.get(token.start..token.end)?;
        match (head, token.kind) {
            (true, TokenKind::Word) if text.eq_ignore_ascii_case("select") => {
                return values.nth(1)?.map(|it| it.into_owned());
            }
            (true, _) => head = !(text == "=" || text.eq_ignore_ascii_case("to")),
            (false, TokenKind::Literal(_)) => return values.next()?.map(|it| it.into_owned()),
            (false, TokenKind::Operator) if text == "-" => {
                return values.next()?.map(|it| format!("-{it}"));
            }
            (false, TokenKind::Word) if text.eq_ignore_ascii_case("default") => return None,
            (false, TokenKind::Word) => return Some(text.to_ascii_lowercase()),
            (false, TokenKind::QuotedName) => {
                return Some(text.strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\""));
            }
            (false, _) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Assignment;

    #[test]
    fn values_are_read_from_each_form() {
        for (statement, want) in [
            ("SET keyway.shard = 's1'", Some("s1")),
            ("set local keyway.shard to S1", Some("s1")),
            ("SET SESSION keyway.shard = \"S 1\"", Some("S 1")),
            ("SET keyway.key = -42;", Some("-42")),
            ("SET keyway.key TO '42'", Some("42")),
            ("SET keyway.key = DEFAULT", None),
        ] {
            assert_eq!(value_of(statement).as_deref(), want, "{statement}");
        }
        let set_config = Assignment::of_value("keyway.shard", "it's").statement;
        assert_eq!(value_of(&set_config).as_deref(), Some("it's"));
    }
}
