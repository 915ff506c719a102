//! One-dimensional arrays on the wire (`array_out`, `array_send`): the ordered lists that string_agg and
//! array_agg are made of.

use super::error;
use super::types::{Format, Type};
use super::value::Value;
use crate::base::Refusal;

/// An element as it stands on the wire, out of its quotes; `None` is NULL.
pub(super) type Element = Option<Box<[u8]>>;

fn malformed() -> Refusal {
    error::malformed("a server's array does not have the form of its type")
}

pub(super) fn parse(bytes: &[u8], format: Format) -> Result<Vec<Element>, Refusal> {
    match format {
        Format::Binary => parse_binary(bytes).ok_or_else(malformed),
        Format::Text => parse_text(bytes).ok_or_else(malformed),
    }
}

/// Dimensions, flag of NULLs, oid of the elements; of the dimension count and lower bound; elements with
/// lengths.
fn parse_binary(bytes: &[u8]) -> Option<Vec<Element>> {
    let (head, mut rest) = bytes.split_first_chunk::<12>()?;
    match i32::from_be_bytes([head[0], head[1], head[2], head[3]]) {
        0 => return Some(Vec::new()),
        1 => {}
        _ => return None,
    }
    rest = rest.get(8..)?;
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            elements.push(None);
            rest = after;
            continue;
        }
        let (element, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        elements.push(Some(element.into()));
        rest = after;
    }
    Some(elements)
}

/// `{a,"b c",NULL}`: what holds braces, blanks, quotes, backslashes or commas is quoted.
fn parse_text(bytes: &[u8]) -> Option<Vec<Element>> {
    let mut rest = bytes.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let mut elements = Vec::new();
    if rest.is_empty() {
        return Some(elements);
    }
    loop {
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            let mut element = Vec::new();
            let mut bytes = quoted.iter();
            loop {
                match *bytes.next()? {
                    b'"' => break,
                    b'\\' => element.push(*bytes.next()?),
                    it => element.push(it),
                }
            }
            elements.push(Some(element.into()));
            rest = bytes.as_slice();
        } else {
            let end = rest.iter().position(|it| *it == b',').unwrap_or(rest.len());
            let (element, after) = rest.split_at(end);
            if element.is_empty() || element.iter().any(|it| matches!(it, b'{' | b'}' | b'"')) {
                return None;
            }
            elements.push((element != b"NULL").then(|| element.into()));
            rest = after;
        }
        match rest.split_first() {
            None => return Some(elements),
            Some((b',', after)) => rest = after,
            Some(_) => return None,
        }
    }
}

/// Appends an array of `elements`, which are of type `of` and in `from`, as `format`.
pub(super) fn put<'a>(
    elements: impl ExactSizeIterator<Item = &'a Element>,
    of: Type,
    from: Format,
    format: Format,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let mut converted = Vec::new();
    let mut convert = |bytes: &[u8], out: &mut Vec<u8>, format| {
        converted.clear();
        let bytes = if from == format {
            bytes
        } else {
            Value::decode(of, from, bytes)?.encode(format, &mut converted)?;
            &converted
        };
        match format {
            Format::Text => put_quoted(bytes, out),
            Format::Binary => {
                out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
        Ok(())
    };
    if format == Format::Text {
        out.push(b'{');
        for (at, element) in elements.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match element {
                None => out.extend_from_slice(b"NULL"),
                Some(it) => convert(it, out, format)?,
            }
        }
        out.push(b'}');
        return Ok(());
    }
    let start = out.len();
    for word in [1, 0, of.oid(), elements.len() as u32, 1] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for element in elements {
        match element {
            None => {
                out[start + 7] = 1;
                out.extend_from_slice(&(-1i32).to_be_bytes());
            }
            Some(it) => convert(it, out, format)?,
        }
    }
    Ok(())
}

fn put_quoted(element: &[u8], out: &mut Vec<u8>) {
    let special =
        |it: &u8| matches!(it, b'{' | b'}' | b',' | b'"' | b'\\' | b' ' | b'\t' | b'\n' | b'\r' | 11 | 12);
    if !element.is_empty() && !element.eq_ignore_ascii_case(b"NULL") && !element.iter().any(special) {
        out.extend_from_slice(element);
        return;
    }
    out.push(b'"');
    for it in element {
        if matches!(it, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*it);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_in_both_formats() {
        let text = br#"{a,"b c",NULL,"","NULL","q\"\\","x,{}"}"#;
        let elements = parse(text, Format::Text).unwrap();
        let want = [Some("a"), Some("b c"), None, Some(""), Some("NULL"), Some("q\"\\"), Some("x,{}")];
        let want: Vec<Element> = want.iter().map(|it| it.map(|it| it.as_bytes().into())).collect();
        assert_eq!(elements, want);
        let mut out = Vec::new();
        put(elements.iter(), Type::Text, Format::Text, Format::Text, &mut out).unwrap();
        assert_eq!(out, text);
        out.clear();
        put(elements.iter(), Type::Text, Format::Text, Format::Binary, &mut out).unwrap();
        assert_eq!(parse(&out, Format::Binary).unwrap(), want);
        for bad in [&b"{a"[..], b"{{a}}", b"{a,}", b"{\"a}", b"[2:3]={a,b}"] {
            assert!(parse(bad, Format::Text).is_err());
        }
        assert!(parse(&out[..out.len() - 1], Format::Binary).is_err());
    }
}
