//! Search paths: in which schemas a name without one is looked for (manual, "The Schema Search Path").

use std::collections::HashMap;

/// The schemas of a search path in the order in which they are searched, `pg_catalog` first unless it is
/// named, `$user` replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath(Vec<String>);

impl SearchPath {
    /// `text` as `SHOW search_path` gives it: names in double quotes where they need them.
    pub fn parse(text: &str, user: &str) -> SearchPath {
        let mut schemas: Vec<String> = names(text)
            .into_iter()
            .map(|it| if it == "$user" { user.to_owned() } else { it })
            .filter(|it| !it.is_empty() && it != "pg_temp")
            .collect();
        if !schemas.iter().any(|it| it == "pg_catalog") {
            schemas.insert(0, "pg_catalog".to_owned());
        }
        SearchPath(schemas)
    }

    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Folded and unquoted, as `SplitIdentifierString` of `varlena.c` does it.
fn names(text: &str) -> Vec<String> {
    let (mut names, mut name) = (Vec::new(), String::new());
    let (mut quoted, mut was_quoted) = (false, false);
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                name.push('"');
            }
            '"' => (quoted, was_quoted) = (!quoted, true),
            ',' if !quoted => {
                names.push(std::mem::take(&mut name));
                was_quoted = false;
            }
            it if !quoted && it.is_whitespace() => {}
            it if quoted || was_quoted => name.push(it),
            it => name.push(it.to_ascii_lowercase()),
        }
    }
    names.push(name);
    names
}

/// Which search path a session begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchPaths {
    /// Of the server's own configuration; `None` where what the reader has itself hides it.
    pub(super) server: Option<String>,
    /// ALTER DATABASE, ALTER ROLE and ALTER ROLE IN DATABASE, by whether it is for this database and for
    /// which role (manual, "ALTER ROLE").
    pub(super) by_role: HashMap<(bool, String), String>,
}

impl SearchPaths {
    /// That of a new session of `user`, if it is known.
    pub fn of(&self, user: &str) -> Option<SearchPath> {
        let own = |database: bool, role: &str| self.by_role.get(&(database, role.to_owned()));
        let text = own(true, user)
            .or_else(|| own(false, user))
            .or_else(|| own(true, ""))
            .or_else(|| own(false, ""))
            .or(self.server.as_ref())?;
        Some(SearchPath::parse(text, user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        SearchPath::parse(text, "anna").0
    }

    #[test]
    fn paths_are_read_as_postgresql_reads_them() {
        assert_eq!(path("\"$user\", public"), ["pg_catalog", "anna", "public"]);
        assert_eq!(path("App, \"B c\",\"d\"\"e\""), ["pg_catalog", "app", "B c", "d\"e"]);
        assert_eq!(path("a, pg_catalog"), ["a", "pg_catalog"]);
        assert_eq!(path(""), ["pg_catalog"]);
        assert_eq!(path("\"\""), ["pg_catalog"]);
        assert_eq!(path("pg_temp, a"), ["pg_catalog", "a"]);
    }

    #[test]
    fn what_is_said_closest_counts() {
        let mut paths = SearchPaths { server: Some("public".into()), ..SearchPaths::default() };
        let first = |it: &SearchPaths| it.of("anna").unwrap().0[1].clone();
        assert_eq!(first(&paths), "public");
        for (database, role, text) in
            [(false, "", "e"), (true, "", "d"), (false, "anna", "c"), (true, "bob", "x"), (true, "anna", "b")]
        {
            paths.by_role.insert((database, role.into()), text.into());
            assert_eq!(first(&paths), if role == "bob" { "c" } else { text });
        }
        assert_eq!(SearchPaths::default().of("anna"), None);
    }
}
