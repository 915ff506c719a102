//! The statements that a session has sent last, with their plans: the next one is most often one of them with other
//! literals, and found by comparing bytes. No lock, and nothing that other sessions write to but the count of hits.

use std::sync::Arc;

use crate::route::{Plan, Planned, Router};
use crate::sql::Pattern;

/// As many as a small transaction has.
const KNOWN_MAX: usize = 8;
/// Longer ones are scanned each time.
const TEXT_BYTES_MAX: usize = 1_024;

struct Known {
    pattern: Pattern,
    plan: Arc<Plan>,
}

#[derive(Default)]
pub struct Recent {
    known: Vec<Known>,
    /// The one that makes room next.
    oldest: usize,
}

impl Recent {
    pub fn plan(&mut self, router: &Router, text: &str) -> Planned {
        if text.len() > TEXT_BYTES_MAX {
            return router.plan(text);
        }
        for it in &self.known {
            if let Some(literals) = it.pattern.literals_of(text)
                && router.reuse(&it.plan)
            {
                return Planned { plan: it.plan.clone(), literals, hit: true };
            }
        }
        let planned = router.plan(text);
        // One that was made just now may be of a text that is not sent again, or that has no fingerprint.
        if planned.hit && !planned.plan.looks_at_literals() {
            self.note(text, &planned);
        }
        planned
    }

    fn note(&mut self, text: &str, planned: &Planned) {
        let Some(pattern) = Pattern::new(text, &planned.literals) else { return };
        let known = Known { pattern, plan: planned.plan.clone() };
        // One of an older catalog, or of another fingerprint.
        if self.known.len() < KNOWN_MAX {
            self.known.push(known);
        } else {
            self.known[self.oldest % KNOWN_MAX] = known;
            self.oldest = (self.oldest + 1) % KNOWN_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sql::Parser;

    const SHARDED: &str = "tables.t = { map = \"m\", key = \"id\" }\n[databases.shop.maps.m]\nkind = \"hash\"\ntype = \"bigint\"\n";

    fn router(more: &str) -> Router {
        let text =
            format!("[users.app]\npassword = \"x\"\n[databases.shop]\nservers = [\"127.0.0.1\"]\n{more}");
        let config = Config::parse(&text, std::path::Path::new("."), &|_| None).unwrap();
        Router::new(&config.databases[0], 16, Arc::new(Parser::new()))
    }

    #[test]
    fn a_text_is_known_from_its_second_time_on() {
        let (router, mut recent) = (router(""), Recent::default());
        for (id, known) in [(1, 0), (2, 1), (3, 1)] {
            let text = format!("SELECT a FROM t WHERE id = {id}");
            let (found, want) = (recent.plan(&router, &text), router.plan(&text));
            assert_eq!((&found.literals, recent.known.len()), (&want.literals, known));
            assert!(Arc::ptr_eq(&found.plan, &want.plan));
        }
        assert_eq!(router.plan_cache_counts().hits, 2 + 3, "each is counted");
    }

    #[test]
    fn a_plan_of_another_version_is_not_used() {
        let (old, new, mut recent) = (router(""), router(SHARDED), Recent::default());
        let text = "SELECT a FROM t WHERE id = 1";
        let of_old = (0..3).map(|_| recent.plan(&old, text)).last().unwrap().plan;
        let of_new = (0..3).map(|_| recent.plan(&new, text)).last().unwrap().plan;
        assert!(of_old.version == old.version() && of_new.version == new.version());
        assert_ne!(of_old.version, of_new.version);
    }

    #[test]
    fn where_values_matter_they_are_looked_at() {
        let (router, mut recent) = (router(""), Recent::default());
        let mut plan =
            |value: &str| recent.plan(&router, &format!("SELECT set_config('{value}', '1', false)")).plan;
        let (_, one, other) = (plan("a.b"), plan("a.b"), plan("a.c"));
        assert!(Arc::ptr_eq(&one, &plan("a.b")) || one.looks_at_literals());
        assert!(Arc::ptr_eq(&other, &plan("a.c")) || other.looks_at_literals());
    }

    #[test]
    fn it_is_bounded() {
        let (router, mut recent) = (router(""), Recent::default());
        for round in 0..3 {
            for column in 0..2 * KNOWN_MAX {
                recent.plan(&router, &format!("SELECT a{column} FROM t WHERE id = {round}"));
            }
        }
        assert_eq!(recent.known.len(), KNOWN_MAX);
        let long = format!("SELECT {} 1", "a, ".repeat(TEXT_BYTES_MAX / 3));
        let (mut recent, long) = (Recent::default(), &long[..]);
        (0..3).for_each(|_| drop(recent.plan(&router, long)));
        assert!(recent.known.is_empty());
    }
}
