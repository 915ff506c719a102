//! Settings that a statement makes by calling set_config, for the session to keep.

use smallvec::SmallVec;

use crate::base::Refusal;

use super::keys::KeySource;
use super::plan::Plan;

/// One setting made by a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingMade {
    /// In lower case.
    pub name: String,
    /// `None` gives the setting back its default.
    pub value: Option<String>,
    /// Until the end of the transaction.
    pub local: bool,
}

impl Plan {
    /// What the statement sets with these arguments. A NULL name is an error of the server's.
    pub fn settings_made(&self, keys: &KeySource<'_>) -> Result<SmallVec<[SettingMade; 1]>, Refusal> {
        let mut made = SmallVec::new();
        for it in &self.settings {
            let Some(name) = keys.text_of(it.name)? else { continue };
            let value = keys.text_of(it.value)?.map(|it| it.into_owned());
            made.push(SettingMade { name: name.to_ascii_lowercase(), value, local: it.local });
        }
        Ok(made)
    }

    pub fn makes_settings(&self) -> bool {
        !self.settings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::route::{Params, Router};

    fn made(text: &str, values: &[Option<&[u8]>]) -> Vec<SettingMade> {
        let router = Router::of_parts(vec!["s1".into()], Vec::new(), BTreeMap::new(), 16, Arc::default());
        let planned = router.plan(text);
        let params = Params { oids: &[], formats: &[], values };
        let keys = KeySource { text, literals: &planned.literals, params: Some(params) };
        planned.plan.settings_made(&keys).unwrap().into_vec()
    }

    fn setting(name: &str, value: Option<&str>, local: bool) -> SettingMade {
        SettingMade { name: name.into(), value: value.map(Into::into), local }
    }

    #[test]
    fn arguments_are_read_from_their_places() {
        let text = "SELECT current_setting('jit'), pg_catalog.set_config('JIT', $1, false), \
                    set_config('a.b', 'it''s', true)";
        let want = [setting("jit", Some("off"), false), setting("a.b", Some("it's"), true)];
        assert_eq!(made(text, &[Some(b"off")]), want);
        assert_eq!(made("SELECT set_config('jit', NULL, false)", &[]), [setting("jit", None, false)]);
        assert_eq!(made("SELECT set_config(lower('jit'), 'off', false)", &[]), []);
    }
}
