//! `keyway route`: where a statement would go, in words, without a database.

use std::fmt::Write;

use crate::base::Refusal;

use super::decide::{Decision, SessionView};
use super::keys::{Key, KeySource, Params, Purpose};
use super::plan::{KeyPlace, Keys, Plan, Target};
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
        match self.decide(&planned.plan, &keys, &session) {
            Ok(decision) => Ok(self.describe(&planned.plan, &keys, &decision)),
            Err(refusal) => Err(refused(&refusal)),
        }
    }

    fn describe(&self, plan: &Plan, keys: &KeySource<'_>, decision: &Decision) -> String {
        let names: Vec<&str> = decision.shards.iter().map(|it| self.shard_name(*it)).collect();
        let mut lines = String::new();
        line(&mut lines, "shards", &names.join(", "));
        line(&mut lines, "role", decision.role.label());
        line(&mut lines, "mode", decision.mode.label());
        line(&mut lines, "access", plan.access.label());
        if let Target::Keyed(keyed) = &plan.target {
            for class in &keyed.classes {
                let Some(map) = self.map(class.map) else { continue };
                let mut places = Vec::new();
                collect(&class.keys, Purpose::Compare, &mut places);
                for (place, purpose) in places {
                    let Ok(key) = keys.key(place, map.key_type, purpose, false) else { continue };
                    let said = match key {
                        Key::Value(value) => match map.locate(&value) {
                            Some(at) => {
                                let shard = self.shard_name(at.shard);
                                let part = map.describe_part(at.part);
                                format!("{value} (map {}, {part}, shard {shard})", map.name)
                            }
                            None => format!("{value} (map {}, in no range)", map.name),
                        },
                        Key::Null => "NULL".into(),
                        Key::Nothing => format!("a constant that is no {}", map.key_type),
                    };
                    line(&mut lines, "key", &format!("{}.{} = {said}", class.table, class.column));
                }
            }
        }
        line(&mut lines, "why", &decision.why.to_string());
        lines
    }
}

/// Every key place of a predicate, in the order of the text.
fn collect(keys: &Keys, purpose: Purpose, found: &mut Vec<(KeyPlace, Purpose)>) {
    match keys {
        Keys::All | Keys::Never => {}
        Keys::Equal(places) => found.extend(places.iter().map(|it| (*it, purpose))),
        Keys::Rows(places) => found.extend(places.iter().map(|it| (*it, Purpose::Store))),
        Keys::And(parts) | Keys::Or(parts) => parts.iter().for_each(|it| collect(it, purpose, found)),
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
