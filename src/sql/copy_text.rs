//! Backslash escapes of COPY data, which are not those of string constants.

use std::borrow::Cow;

/// A field of COPY's text format without its backslashes (manual, "COPY", "Text Format").
pub fn copy_unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let (mut value, mut rest) = (Vec::with_capacity(raw.len()), raw);
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        let Some((&escape, tail)) = rest.split_first() else { break };
        rest = tail;
        match escape {
            b'b' => value.push(0x08),
            b'f' => value.push(0x0C),
            b'n' => value.push(b'\n'),
            b'r' => value.push(b'\r'),
            b't' => value.push(b'\t'),
            b'v' => value.push(0x0B),
            b'0'..=b'7' => {
                let (more, tail) = digits(rest, 2, 8);
                rest = tail;
                let first = u32::from(escape - b'0');
                value.push((first * 8u32.pow(more.1) + more.0) as u8);
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                let (code, tail) = digits(rest, 2, 16);
                rest = tail;
                value.push(code.0 as u8);
            }
            other => value.push(other),
        }
    }
    Cow::Owned(value)
}

/// Up to `most` digits: their value, their number, and what follows.
fn digits(bytes: &[u8], most: usize, radix: u32) -> ((u32, u32), &[u8]) {
    let (mut value, mut count) = (0, 0);
    for byte in bytes.iter().take(most) {
        let Some(digit) = char::from(*byte).to_digit(radix) else { break };
        (value, count) = (value * radix + digit, count + 1);
    }
    ((value, count), &bytes[count as usize..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        for (raw, want) in [
            (&b"plain"[..], &b"plain"[..]),
            (b"\\t\\n\\\\\\q", b"\t\n\\q"),
            (b"\\x41\\x4\\xg\\101\\1018\\7", b"A\x04xgAA8\x07"),
            (b"end\\", b"end"),
        ] {
            assert_eq!(&copy_unescaped(raw)[..], want, "{}", String::from_utf8_lossy(raw));
        }
    }
}
