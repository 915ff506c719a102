//! Whose part a statement is: what sqlcommenter leaves in a comment of its text, as W3C Trace Context writes it.

use memchr::memmem;

use super::lexer::Lexer;

/// https://www.w3.org/TR/trace-context/#traceparent-header
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    pub trace_id: u128,
    pub parent_id: u64,
    /// The caller records its own part.
    pub sampled: bool,
}

const KEY: &[u8] = b"traceparent=";

/// Comments bring one; literals that look like it may be many.
const CANDIDATES_MAX: usize = 8;

/// The first one in a comment of `text`. A text without the word costs one search.
pub fn traceparent(text: &str) -> Option<Traceparent> {
    let bytes = text.as_bytes();
    let mut from = 0;
    // Each is held against the whole text.
    for _ in 0..CANDIDATES_MAX {
        let at = from + memmem::find(&bytes[from..], KEY)?;
        from = at + KEY.len();
        let quoted = bytes.get(from..).unwrap_or_default();
        // `'00-...'`, as sqlcommenter quotes all values; nothing in it is percent-encoded.
        let value = quoted.strip_prefix(b"'").and_then(|it| it.get(..VALUE_LENGTH + 1));
        if let Some((value, b"'")) = value.and_then(|it| it.split_at_checked(VALUE_LENGTH))
            && let Some(found) = parse(value)
            && is_in_comment(text, at)
        {
            return Some(found);
        }
    }
    None
}

/// `00-` 32 digits `-` 16 digits `-` 2 digits.
const VALUE_LENGTH: usize = 55;

fn parse(value: &[u8]) -> Option<Traceparent> {
    let value = std::str::from_utf8(value).ok()?;
    // from_str_radix takes a sign and capitals, which are none.
    if !value.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
        return None;
    }
    let mut parts = value.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || [version.len(), trace.len(), parent.len(), flags.len()] != [2, 32, 16, 2] {
        return None;
    }
    let trace_id = u128::from_str_radix(trace, 16).ok()?;
    let parent_id = u64::from_str_radix(parent, 16).ok()?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let valid = version != "ff" && trace_id != 0 && parent_id != 0;
    valid.then_some(Traceparent { trace_id, parent_id, sampled: flags & 1 == 1 })
}

/// No token covers it: a literal or a name that reads like a comment is none.
fn is_in_comment(text: &str, at: usize) -> bool {
    let mut lexer = Lexer::new(text.as_bytes());
    while let Ok(Some(token)) = lexer.token() {
        if token.start <= at && at < token.end {
            return false;
        }
        if token.start > at {
            return true;
        }
    }
    // Behind the last token, unless the scanner stopped in front of it.
    matches!(lexer.token(), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01";

    fn found() -> Traceparent {
        let trace_id = 0x5bd6_6ef5_0953_69c7_b0d1_f8f4_bd33_716a;
        Traceparent { trace_id, parent_id: 0xc532_cb40_98ac_3dd2, sampled: true }
    }

    #[test]
    fn it_is_found_in_comments() {
        for text in [
            format!("SELECT 1 /*action='x',traceparent='{VALUE}',tracestate='a%3D1'*/"),
            format!("/*traceparent='{VALUE}'*/ SELECT 'traceparent='"),
            format!("SELECT 1 -- traceparent='{VALUE}'"),
            format!("SELECT 1 /*traceparent='zz'*/ /*traceparent='{VALUE}'*/ ;"),
            format!("SELECT 'é' /*traceparent='{VALUE}'*/"),
        ] {
            assert_eq!(traceparent(&text), Some(found()), "{text}");
        }
        let not_sampled = format!("SELECT 1 /*traceparent='{}00'*/", &VALUE[..53]);
        assert_eq!(traceparent(&not_sampled), Some(Traceparent { sampled: false, ..found() }));
    }

    #[test]
    fn what_is_none_is_not_taken() {
        for text in [
            "SELECT 1".to_owned(),
            format!("SELECT 'traceparent=''{VALUE}'''"),
            format!("SELECT $$ /*traceparent='{VALUE}'*/ $$"),
            format!("SELECT \"/*traceparent='{VALUE}'*/\""),
            format!("SELECT traceparent='{VALUE}'"),
            format!("SELECT 1 /*traceparent='{}'*/", VALUE.to_uppercase()),
            format!("SELECT 1 /*traceparent='ff{}'*/", &VALUE[2..]),
            format!("SELECT 1 /*traceparent='{VALUE}"),
            format!("SELECT 1 /*traceparent={VALUE}*/"),
            "SELECT 1 /*traceparent='00-00000000000000000000000000000000-c532cb4098ac3dd2-01'*/".to_owned(),
            "SELECT 1 /*traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-0000000000000000-01'*/".to_owned(),
            "SELECT 1 /*traceparent='".to_owned(),
            format!("SELECT 'open /*traceparent='{VALUE}'*/"),
        ] {
            assert_eq!(traceparent(&text), None, "{text}");
        }
    }
}
