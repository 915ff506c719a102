//! What the body of a function may leave behind in its session, from its words alone. SQL and PL/pgSQL have
//! the same tokens, and a statement that leaves state, or can run any other text, starts with a word that
//! nothing else needs. Names are collected without asking what they mean: who reads them looks them up among
//! functions and relations, and a variable that is named like one costs a probe, not a leak.

use super::lexer::{Lexer, Token, TokenKind};

/// What a body may leave by itself, and the names through which it may leave more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Temporary objects, locks, prepared statements and the like.
    pub state: bool,
    /// Settings of the session.
    pub settings: bool,
    /// Runs texts that are not in it, so anything; taken into account in the two above.
    pub dynamic: bool,
    /// Each name once, folded as PostgreSQL folds it, in order.
    pub names: Vec<String>,
}

impl Body {
    fn anything() -> Body {
        Body { state: true, settings: true, dynamic: true, names: Vec::new() }
    }
}

/// Runs a text that is made somewhere else, or makes what only the rest of its statement would tell of.
const ANYTHING: &[&str] = &[
    "call",
    "create",
    "deallocate",
    "discard",
    "execute",
    "load",
    "pg_temp",
    "prepare",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "temp",
    "temporary",
    "ts_rewrite",
    "ts_stat",
];

/// Functions that leave a lock with the session.
const SESSION_LOCKS: &[&str] =
    &["pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared"];

/// Words behind which a statement of a body begins.
const STATEMENT_STARTS: &[&str] = &["atomic", "begin", "else", "loop", "then"];

/// Reads the body of a function of LANGUAGE sql or plpgsql.
pub fn body(text: &str) -> Body {
    match Reader::new(text).read() {
        Some(mut body) => {
            body.names.sort_unstable();
            body.names.dedup();
            body
        }
        None => Body::anything(),
    }
}

struct Reader<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    body: Body,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Reader<'a> {
        Reader { text, tokens: Vec::new(), body: Body::default() }
    }

    /// `None` where the text is not lexically PostgreSQL's, or spells a name in a way that is not read.
    fn read(mut self) -> Option<Body> {
        let mut lexer = Lexer::new(self.text.as_bytes());
        while let Some(token) = lexer.token().ok()? {
            self.tokens.push(token);
        }
        for at in 0..self.tokens.len() {
            match self.tokens[at].kind {
                TokenKind::Word => self.word(at),
                TokenKind::QuotedName => {
                    let name = self.spelled(at).trim_matches('"').replace("\"\"", "\"");
                    self.named(name, at);
                }
                TokenKind::UnicodeName => return None,
                _ => {}
            }
        }
        Some(self.body)
    }

    fn spelled(&self, at: usize) -> &'a str {
        self.tokens.get(at).and_then(|it| self.text.get(it.start..it.end)).unwrap_or_default()
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.spelled(at).eq_ignore_ascii_case(word)
    }

    fn word(&mut self, at: usize) {
        let word = self.spelled(at).to_ascii_lowercase();
        match &word[..] {
            // ON CONFLICT DO.
            "do" if !self.is(at + 1, "nothing") && !self.is(at + 1, "update") => self.anything(),
            "set" | "reset" if self.starts_statement(at) => {
                let local = ["local", "constraints", "transaction"].iter().any(|it| self.is(at + 1, it));
                self.body.settings |= !local;
            }
            "listen" | "unlisten" if self.starts_statement(at) => self.body.state = true,
            "hold" => self.body.state = true,
            _ => self.named(word, at),
        }
    }

    fn named(&mut self, name: String, at: usize) {
        if ANYTHING.binary_search(&&name[..]).is_ok() {
            self.anything();
        }
        self.body.state |= SESSION_LOCKS.contains(&&name[..]);
        self.body.settings |= name == "set_config" && !self.last_argument_is_true(at);
        // UPDATE of it is set_config.
        self.body.settings |= name == "pg_settings";
        self.body.names.push(name);
    }

    fn anything(&mut self) {
        (self.body.state, self.body.settings, self.body.dynamic) = (true, true, true);
    }

    fn starts_statement(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else { return true };
        matches!(self.spelled(before), ";" | ">>") || STATEMENT_STARTS.iter().any(|it| self.is(before, it))
    }

    /// Whether the call at `at` ends in the keyword TRUE.
    fn last_argument_is_true(&self, at: usize) -> bool {
        let mut depth = 0u32;
        for next in at + 1..self.tokens.len() {
            match self.spelled(next) {
                "(" => depth += 1,
                ")" if depth == 1 => {
                    return self.is(next - 1, "true") && self.spelled(next - 2) == ",";
                }
                ")" => depth = depth.saturating_sub(1),
                _ if depth == 0 => return false,
                _ => {}
            }
        }
        false
    }
}

/// Beyond this a text is not worth the search.
const NAMED_SETTINGS_MAX: usize = 64;

/// Custom settings (`app.tenant`) that a code names, as in `set_config('app.tenant', ...)` or `SET app.tenant`;
/// PostgreSQL lists none of them. Looks at words, not at syntax: a name too many costs a column of the probe.
pub fn named_settings(text: &str) -> Vec<String> {
    let is_name = |it: char| it.is_alphanumeric() || matches!(it, '_' | '.' | '$');
    let words = text.split(|it: char| !is_name(it)).filter(|it| !it.is_empty());
    let (mut names, mut before) = (Vec::new(), "");
    for word in words {
        let set = ["set", "session", "set_config"].iter().any(|it| before.eq_ignore_ascii_case(it))
            || before.to_ascii_lowercase().ends_with(".set_config");
        if set && word.contains('.') && names.len() < NAMED_SETTINGS_MAX {
            names.push(word.to_ascii_lowercase());
        }
        before = word;
    }
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `state settings`, or `-`.
    fn leaves(text: &str) -> String {
        let it = body(text);
        let told = [(it.state, "state"), (it.settings, "settings")];
        let told: Vec<_> = told.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        if told.is_empty() { "-".to_owned() } else { told.join(" ") }
    }

    #[test]
    fn lists_are_sorted() {
        assert!(ANYTHING.is_sorted() && STATEMENT_STARTS.is_sorted());
    }

    #[test]
    fn bodies_that_leave_nothing() {
        for text in [
            "BEGIN NEW.updated_at := now(); RETURN NEW; END",
            "SELECT a FROM t WHERE b = $1",
            "DECLARE n int; BEGIN UPDATE t SET a = 1 WHERE id = n; RETURN n; END",
            "INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = excluded.a",
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
            "BEGIN SET LOCAL work_mem = '1MB'; PERFORM set_config('a.b', (f(x, 1)), true); END",
            "BEGIN PERFORM pg_advisory_xact_lock(1); RAISE NOTICE 'EXECUTE %', 'SET'; -- SET x\nEND",
            "BEGIN INSERT INTO audit VALUES (TG_OP, row_to_json(NEW)); RETURN NULL; END",
        ] {
            assert_eq!(leaves(text), "-", "{text}");
        }
    }

    #[test]
    fn bodies_that_may_leave_something() {
        for (text, want) in [
            ("BEGIN EXECUTE 'SET ' || x; END", "state settings"),
            ("BEGIN RETURN QUERY EXECUTE q; END", "state settings"),
            ("BEGIN IF a THEN SET work_mem = '1MB'; END IF; END", "settings"),
            ("<<x>> SET ROLE a", "settings"),
            ("SET ROLE a", "settings"),
            ("SELECT 1; RESET ALL", "settings"),
            ("BEGIN PERFORM set_config('a.b', 'c', false); END", "settings"),
            ("BEGIN PERFORM pg_catalog.set_config('a.b', 'true', local); END", "settings"),
            ("BEGIN PERFORM set_config('a.b', 'c', a OR true); END", "settings"),
            ("BEGIN UPDATE pg_settings SET setting = '1' WHERE name = 'x'; END", "settings"),
            ("SELECT pg_advisory_lock(1)", "state"),
            ("SELECT \"pg_try_advisory_lock\"(1)", "state"),
            ("BEGIN CREATE TEMP TABLE x (a int); END", "state settings"),
            ("BEGIN CALL p(); END", "state settings"),
            ("SELECT U&\"\\0061\"()", "state settings"),
            ("SELECT 'open", "state settings"),
            ("SELECT query_to_xml('SELECT pg_advisory_lock(1)', true, true, '')", "state settings"),
        ] {
            assert_eq!(leaves(text), want, "{text}");
        }
    }

    #[test]
    fn names_are_folded_and_unquoted() {
        let names = body("SELECT App.F(x), \"G\"\"1\"() FROM T, t").names;
        assert_eq!(names, ["G\"1", "app", "f", "from", "select", "t", "x"]);
    }

    #[test]
    fn custom_settings_are_found_in_code() {
        let code = "DO $$ BEGIN PERFORM set_config('app.Tenant', '7', false); SET SESSION a.b = 1; \
            PERFORM pg_catalog.set_config('app.user', x.y, false); UPDATE t SET c = d.e; END $$";
        assert_eq!(named_settings(code), ["a.b", "app.tenant", "app.user"]);
        assert!(named_settings("DO $$ BEGIN SET work_mem = 1; END $$").is_empty());
    }
}
