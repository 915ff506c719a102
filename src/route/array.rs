//! The elements of an array parameter, in both forms that PostgreSQL sends and takes (manual 8.15.6,
//! `array_recv`).

use std::borrow::Cow;

/// An element; `None` is NULL.
pub(super) type Element<'a> = Option<Cow<'a, str>>;

/// Reads `{1,2,NULL,"a b"}`. `None` for what is no array of one dimension that starts at 1.
pub(super) fn of_text(text: &str) -> Option<Vec<Element<'_>>> {
    let inside = text.trim_matches(is_blank).strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut rest = inside.trim_start_matches(is_blank);
    if rest.is_empty() {
        return Some(elements);
    }
    loop {
        let (element, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = unquoted(quoted)?;
                (Some(value), after.trim_start_matches(is_blank))
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let bare = rest[..end].trim_end_matches(is_blank);
                // Braces are another dimension; backslashes in a bare element are as good as never written.
                if bare.is_empty() || bare.contains(['{', '}', '"', '\\']) {
                    return None;
                }
                let null = bare.eq_ignore_ascii_case("null");
                ((!null).then_some(Cow::Borrowed(bare)), &rest[end..])
            }
        };
        elements.push(element);
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start_matches(is_blank),
            None => return after.is_empty().then_some(elements),
        };
    }
}

fn is_blank(it: char) -> bool {
    it.is_ascii_whitespace() || it == '\x0b'
}

/// The contents of a quoted element, and what follows its end.
fn unquoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((Cow::Owned(value), &text[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// The elements' type and bytes. `None` for what is no array of one dimension.
pub(super) fn of_binary(bytes: &[u8]) -> Option<(u32, Vec<Option<&[u8]>>)> {
    let mut rest = bytes;
    let dimensions = word(&mut rest)?;
    let _has_nulls = word(&mut rest)?;
    let oid = word(&mut rest)? as u32;
    let count = match dimensions {
        0 => 0,
        1 => {
            let count = word(&mut rest)?;
            let _lower_bound = word(&mut rest)?;
            usize::try_from(count).ok()?
        }
        _ => return None,
    };
    // Each element takes four bytes at least, which bounds what is set aside here.
    if count > rest.len() / 4 {
        return None;
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        elements.push(match usize::try_from(word(&mut rest)?) {
            Err(_) => None,
            Ok(length) => {
                let (element, after) = rest.split_at_checked(length)?;
                rest = after;
                Some(element)
            }
        });
    }
    rest.is_empty().then_some((oid, elements))
}

fn word(rest: &mut &[u8]) -> Option<i32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(i32::from_be_bytes(*head))
}

/// The element's type of an array type of pg_type.dat that can hold keys.
pub(super) fn element_oid(array_oid: u32) -> Option<u32> {
    const ARRAYS: [(u32, u32); 13] = [
        (1000, 16),
        (1001, 17),
        (1005, 21),
        (1007, 23),
        (1009, 25),
        (1014, 1042),
        (1015, 1043),
        (1016, 20),
        (1115, 1114),
        (1182, 1082),
        (1185, 1184),
        (1231, 1700),
        (2951, 2950),
    ];
    ARRAYS.iter().find(|it| it.0 == array_oid).map(|it| it.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Option<Vec<Option<String>>> {
        of_text(text).map(|it| it.into_iter().map(|it| it.map(Cow::into_owned)).collect())
    }

    fn some(values: &[&str]) -> Option<Vec<Option<String>>> {
        Some(values.iter().map(|it| (*it != "NULL").then(|| (*it).to_owned())).collect())
    }

    #[test]
    fn text_arrays_are_read_as_array_in_reads_them() {
        assert_eq!(shown("{}"), some(&[]));
        assert_eq!(shown(" { 1 , 2,NULL,null } "), some(&["1", "2", "NULL", "NULL"]));
        assert_eq!(shown(r#"{"a,b" ,"q\"\\", c d,""}"#), some(&["a,b", "q\"\\", "c d", ""]));
        assert_eq!(shown(r#"{"NULL"}"#), Some(vec![Some("NULL".to_owned())]));
        for text in
            ["", "1", "{1", "{1,}", "{,1}", "{{1}}", "[0:1]={1,2}", "{\"a}", "{\"a\"b}", "{a\"b}", "{a\\,b}"]
        {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn binary_arrays_are_bounded_by_their_bytes() {
        let bytes = |words: &[i32]| words.iter().flat_map(|it| it.to_be_bytes()).collect::<Vec<u8>>();
        assert_eq!(of_binary(&bytes(&[0, 0, 20])), Some((20, vec![])));
        let two = bytes(&[1, 1, 23, 2, 1, 4, 7, -1]);
        assert_eq!(of_binary(&two), Some((23, vec![Some(&[0, 0, 0, 7][..]), None])));
        assert_eq!(of_binary(&bytes(&[1, 0, 23, i32::MAX, 1])), None);
        assert_eq!(of_binary(&bytes(&[2, 0, 23, 1, 1, 1, 1, 4, 7])), None);
        assert_eq!(of_binary(&bytes(&[1, 0, 23, 1, 1, 4, 7, 9])), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "\\PC{0,30}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = of_text(&text);
            let _ = of_binary(&bytes);
        }
    }
}
