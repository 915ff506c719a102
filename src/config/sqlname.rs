//! Names of tables and columns as SQL writes them.

use super::TableName;

/// `users`, `app.users`, `"App"."Users"`.
pub fn table(text: &str) -> Option<TableName> {
    let (first, rest) = identifier(text)?;
    let Some(rest) = rest.strip_prefix('.') else {
        return rest.is_empty().then_some(TableName { schema: None, name: first });
    };
    let (name, rest) = identifier(rest)?;
    rest.is_empty().then_some(TableName { schema: Some(first), name })
}

pub fn column(text: &str) -> Option<String> {
    identifier(text).filter(|(_, rest)| rest.is_empty()).map(|(name, _)| name)
}

/// One identifier in front (PG manual 4.1.1) and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '$' || !it.is_ascii();
        let end = text.find(|it: char| !part(it)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let starts = name.chars().next().is_some_and(|it| !it.is_ascii_digit() && it != '$');
        return starts.then(|| (name.to_ascii_lowercase(), rest));
    };
    let (mut name, mut rest) = (String::new(), quoted);
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (!name.is_empty()).then_some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<(Option<String>, String)> {
        table(text).map(|it| (it.schema, it.name))
    }

    #[test]
    fn names_fold_as_in_sql_unless_quoted() {
        let both = |schema: &str, name: &str| Some((Some(schema.to_owned()), name.to_owned()));
        assert_eq!(shown("Users"), Some((None, "users".into())));
        assert_eq!(shown("App.Users"), both("app", "users"));
        assert_eq!(shown("\"App\".\"Us\"\"ers\""), both("App", "Us\"ers"));
        assert_eq!(shown("\"a.b\""), Some((None, "a.b".into())));
        for text in ["", "1users", "users ", "a.", ".a", "a.b.c", "a-b", "\"", "\"\"", "\"a"] {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
