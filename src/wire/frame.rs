//! The header of a message: one tag byte and a length that counts itself but not the tag.

use thiserror::Error;

/// Tag and length.
pub const HEADER_BYTES: usize = 5;

/// A header and where its message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// Bytes of the whole message, header included.
    pub total: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is less than the four bytes that it counts itself.
    #[error("invalid message length")]
    Length,
}

/// The header at the start of `bytes`; `None` when it is not there in full yet. The length is the
/// peer's word: callers bound it before they make room for it.
#[inline]
pub fn header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]);
    if !(4..=0x7FFF_FFFF).contains(&length) {
        return Err(FrameError::Length);
    }
    Ok(Some(Header { tag, total: length as usize + 1 }))
}

/// How many bytes the messages with this tag take that `bytes` begin with, as far as they are there in full. What is behind
/// them, `header` tells.
#[inline]
pub fn run_bytes(bytes: &[u8], tag: u8) -> usize {
    let mut at = 0;
    while let Ok(Some(head)) = header(&bytes[at..])
        && head.tag == tag
        && head.total <= bytes.len() - at
    {
        at += head.total;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_needs_five_bytes_and_a_length_that_counts_itself() {
        assert_eq!(header(b"Q\0\0\0"), Ok(None));
        assert_eq!(header(b"Q\0\0\0\x06;\0"), Ok(Some(Header { tag: b'Q', total: 7 })));
        assert_eq!(header(b"Q\0\0\0\x03"), Err(FrameError::Length));
        assert_eq!(header(b"Q\xFF\xFF\xFF\xFF"), Err(FrameError::Length));
    }

    #[test]
    fn a_run_ends_at_another_tag_at_a_part_of_a_message_and_at_a_length_that_cannot_be() {
        assert_eq!(run_bytes(b"", b'D'), 0);
        assert_eq!(run_bytes(b"D\0\0\0\x06ab", b'D'), 7);
        assert_eq!(run_bytes(b"D\0\0\0\x06ab", b'd'), 0);
        let rows = b"D\0\0\0\x04D\0\0\0\x05x";
        assert_eq!(run_bytes(rows, b'D'), 11);
        for rest in [&b"C\0\0\0\x04"[..], b"D\0\0\0\x05", b"D\0\0", b"D\0\0\0\x03"] {
            assert_eq!(run_bytes(&[rows, rest].concat(), b'D'), 11);
        }
    }
}
