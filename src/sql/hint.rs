//! Routing hints, which a comment of the statement holds: `/* keyway: shard=s1 */`,
//! `/* keyway: map=by_user key='42' role=primary */`. Items are apart by blanks or commas; a value is a word, or a
//! string in quotes with quotes in it doubled.

use std::borrow::Cow;

use super::lexer::Lexer;

const MARK: &[u8] = b"keyway:";

/// What a text's hint says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextHint<'a> {
    pub shard: Option<Cow<'a, str>>,
    pub map: Option<Cow<'a, str>>,
    pub key: Option<Cow<'a, str>>,
    pub role: Option<Cow<'a, str>>,
    pub consistency: Option<Cow<'a, str>>,
}

/// What is wrong with a hint, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintError(pub String);

/// Whether a block comment, with its marks, is a hint.
pub(super) fn is_hint(comment: &[u8]) -> bool {
    comment.get(2..).is_some_and(|it| it.trim_ascii_start().starts_with(MARK))
}

fn body(comment: &str) -> &str {
    let inside = comment.get(2..comment.len().saturating_sub(2)).unwrap_or_default();
    inside.trim_start().strip_prefix("keyway:").unwrap_or_default()
}

/// The hint of a text.
///
/// # Errors
/// What is no hint, and what is said twice.
pub fn text_hint(text: &str) -> Result<TextHint<'_>, HintError> {
    let mut lexer = Lexer::new(text.as_bytes());
    while let Ok(Some(_)) = lexer.token() {}
    let mut hint = TextHint::default();
    for range in &lexer.hints {
        for item in items(body(text.get(range.clone()).unwrap_or_default())) {
            let (name, value) = item?;
            let place = match name {
                "shard" => &mut hint.shard,
                "map" => &mut hint.map,
                "key" => &mut hint.key,
                "role" => &mut hint.role,
                "consistency" => &mut hint.consistency,
                other => return Err(HintError(format!("unrecognized keyway hint \"{other}\""))),
            };
            if place.replace(value).is_some() {
                return Err(HintError(format!("keyway hint \"{name}\" is given twice")));
            }
        }
    }
    Ok(hint)
}

/// Hands on the hint as it counts for a plan: all but the value of the key, which is read at every statement.
pub(super) fn form_of(comment: &str, mut put: impl FnMut(&[u8])) {
    for item in items(body(comment)) {
        match item {
            Ok(("key", _)) => put(b"key"),
            Ok((name, value)) => {
                put(name.as_bytes());
                put(value.as_bytes());
            }
            // It is refused by its plan, which is that of this text alone.
            Err(_) => put(comment.as_bytes()),
        }
    }
}

fn items(mut rest: &str) -> impl Iterator<Item = Result<(&str, Cow<'_, str>), HintError>> {
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|it: char| it.is_ascii_whitespace() || it == ',');
        if rest.is_empty() {
            return None;
        }
        let item = item(rest);
        rest = item.as_ref().map_or("", |it| it.2);
        Some(item.map(|(name, value, _)| (name, value)))
    })
}

/// The first item: name, value, and what is behind it.
fn item(text: &str) -> Result<(&str, Cow<'_, str>, &str), HintError> {
    let malformed = || HintError(format!("malformed keyway hint \"{}\"", text.trim_end()));
    let (name, value) = text.split_once('=').ok_or_else(malformed)?;
    let (name, value) = (name.trim_end(), value.trim_start());
    let Some(quoted) = value.strip_prefix('\'') else {
        let end = value.find(|it: char| it.is_ascii_whitespace() || it == ',').unwrap_or(value.len());
        return if end == 0 { Err(malformed()) } else { Ok((name, value[..end].into(), &value[end..])) };
    };
    let mut from = 0;
    loop {
        let end = from + quoted[from..].find('\'').ok_or_else(malformed)?;
        if !quoted[end + 1..].starts_with('\'') {
            let value = &quoted[..end];
            let value = if value.contains('\'') { value.replace("''", "'").into() } else { value.into() };
            return Ok((name, value, &quoted[end + 1..]));
        }
        from = end + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::scan;

    #[test]
    fn hints_are_read_wherever_their_comment_stands() {
        let hint =
            text_hint("/* keyway: shard=s1, role = replica */ SELECT '/* keyway: shard=s9 */'").unwrap();
        assert_eq!((hint.shard.as_deref(), hint.role.as_deref()), (Some("s1"), Some("replica")));
        let hint = text_hint("SELECT 1 /*keyway: map=by_name key='o''hara x'*/").unwrap();
        assert_eq!((hint.map.as_deref(), hint.key.as_deref()), (Some("by_name"), Some("o'hara x")));
        assert_eq!(
            text_hint("SELECT 1 /* of keyway: shard=s1 */ -- keyway: shard=s1").unwrap(),
            TextHint::default()
        );
        for (text, told) in [
            ("/* keyway: shard */ SELECT 1", "malformed"),
            ("/* keyway: shard= */ SELECT 1", "malformed"),
            ("/* keyway: key='7 */ SELECT 1", "malformed"),
            ("/* keyway: shards=s1 */ SELECT 1", "unrecognized"),
            ("/* keyway: key=1 */ SELECT 1 /* keyway: key=2 */", "twice"),
        ] {
            assert!(text_hint(text).unwrap_err().0.contains(told), "{text}");
        }
    }

    #[test]
    fn plans_differ_by_all_but_the_value_of_the_key() {
        let print = |text: &str| scan(text).fingerprint;
        assert_eq!(print("/* keyway: key=1 */ SELECT 1"), print("SELECT 2 /*keyway: key='2'*/"));
        let plain = print("SELECT 1");
        assert_eq!(print("/* shard=s1 */ SELECT 1"), plain);
        let mut seen = vec![plain];
        for text in [
            "/* keyway: key=1 */ SELECT 1",
            "/* keyway: shard=s1 */ SELECT 1",
            "/* keyway: shard=s2 */ SELECT 1",
            "/* keyway: role=s1 */ SELECT 1",
            "/* keyway: key */ SELECT 1",
        ] {
            assert!(!seen.contains(&print(text)), "{text}");
            seen.push(print(text));
        }
    }
}
