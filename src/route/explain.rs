//! `keyway route`: where a statement would go, in words, without a database.

use std::fmt::Write;

use crate::base::{Refusal, Role};

use super::decide::{Decision, Mode, SessionView};
use super::evaluate::Met;
use super::keys::{KeySource, Params};
use super::plan::{Fixed, Keys, Plan, Target};
use super::router::Router;

impl Router {
    /// Says where `text` goes, one `name: value` a line. Parameters are text, `None` is NULL.
    ///
    /// # Errors
    /// The refusal, in the same form.
    pub fn explain(&self, text: &str, params: &[Option<&str>]) -> Result<String, String> {
        let planned = self.plan(text);
        let values: Vec<Option<&[u8]>> = params.iter().map(|it| it.map(str::as_bytes)).collect();
        let params = Params { oids: &[], formats: &[], values: &values };
        let keys = KeySource { text, literals: &planned.literals, params: Some(params) };
        // A session that has not said otherwise: PostgreSQL's TimeZone may be anything.
        let session = SessionView::default();
        let decided = self.decide(&planned.plan, &keys, &session);
        let lines = self.explain_decided(&planned.plan, &keys, &session, &decided);
        if decided.is_ok() { Ok(lines) } else { Err(lines) }
    }

    /// The same of a decision that is made, refusal or not.
    pub fn explain_decided(
        &self,
        plan: &Plan,
        keys: &KeySource<'_>,
        session: &SessionView,
        decided: &Result<Decision, Refusal>,
    ) -> String {
        match decided {
            Ok(decision) => self.describe(plan, keys, session, decision),
            Err(refusal) => refused(refusal),
        }
    }

    fn describe(
        &self,
        plan: &Plan,
        keys: &KeySource<'_>,
        session: &SessionView,
        decision: &Decision,
    ) -> String {
        let names: Vec<&str> = decision.shards.iter().map(|it| self.shard_name(*it)).collect();
        let mut lines = String::new();
        line(&mut lines, "shards", &names.join(", "));
        line(&mut lines, "role", decision.role.label());
        if decision.role == Role::Replica {
            line(&mut lines, "else", "the primary, while no replica is fresh enough");
        }
        line(&mut lines, "mode", decision.mode.label());
        line(&mut lines, "access", plan.access.label());
        if let Target::Keyed(keyed) = &plan.target {
            for class in &keyed.classes {
                let mut met = Met::telling();
                // What cannot be told has been refused by the decision.
                if self.need(class, keys, session, &mut met).is_err() {
                    continue;
                }
                if let Keys::On(shard, fixed) = &class.keys {
                    let why = match fixed {
                        Fixed::Table => "its shard",
                        Fixed::Schema => "its schema's shard",
                        Fixed::Default => "default_shard",
                    };
                    line(
                        &mut lines,
                        "table",
                        &format!("{} ({why}, {})", class.table, self.shard_name(*shard)),
                    );
                }
                for told in met.told() {
                    line(&mut lines, "key", &format!("{}.{} {told}", class.table, class.column));
                }
            }
        }
        if let Some(read) = plan.shard_read().filter(|_| decision.mode == Mode::Merge) {
            for (name, value) in read.described(keys) {
                line(&mut lines, name, &value);
            }
        }
        line(&mut lines, "why", &decision.why.to_string());
        lines
    }
}

fn line(lines: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(lines, "{:8} {value}", format!("{name}:"));
}

fn refused(refusal: &Refusal) -> String {
    let mut lines = String::new();
    line(&mut lines, "refused", &format!("{} (SQLSTATE {})", refusal.message(), refusal.state().0));
    line(&mut lines, "reason", refusal.reason().label());
    if let Some(detail) = refusal.detail_text() {
        line(&mut lines, "detail", detail);
    }
    if let Some(hint) = refusal.hint_text() {
        line(&mut lines, "hint", hint);
    }
    if let Some(position) = refusal.position() {
        line(&mut lines, "at", &format!("character {position}"));
    }
    lines
}
