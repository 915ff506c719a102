//! Bodies of client messages, borrowed from the receive buffer: nothing here allocates.

use thiserror::Error;

use super::{FrontendTag, HEADER_BYTES};

/// A body that does not hold what its tag promises; PostgreSQL answers 08P01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid message format")]
pub struct BodyError;

/// A reader over a body that never reads past its end.
#[derive(Clone, Copy)]
pub(super) struct Body<'a>(pub &'a [u8]);

impl<'a> Body<'a> {
    /// The body of a whole message, header included.
    pub fn of(message: &'a [u8]) -> Result<Body<'a>, BodyError> {
        message.get(HEADER_BYTES..).map(Body).ok_or(BodyError)
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], BodyError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BodyError)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn u8(&mut self) -> Result<u8, BodyError> {
        self.take(1).map(|it| it[0])
    }

    pub fn u16(&mut self) -> Result<u16, BodyError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn i32(&mut self) -> Result<i32, BodyError> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// The bytes before the next zero byte, which is consumed.
    pub fn cstr(&mut self) -> Result<&'a [u8], BodyError> {
        // Most names are empty, for which a search is not worth its call.
        let end = if self.0.first() == Some(&0) { 0 } else { memchr::memchr(0, self.0).ok_or(BodyError)? };
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    pub fn end(self) -> Result<(), BodyError> {
        if self.0.is_empty() { Ok(()) } else { Err(BodyError) }
    }
}

/// What the client's next bytes are while it copies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyInput<'a> {
    /// The header of a CopyData message, and how many bytes of data are behind it.
    Data(usize),
    Done,
    Fail(&'a [u8]),
    /// Sync and Flush, which say nothing here.
    Skip,
    Terminate,
    Other(u8),
}

/// Reads one message, of CopyData the header alone, and says how long that is. `None`: more has to come, which is little:
/// what may be long is not waited for.
pub fn copy_input(bytes: &[u8]) -> Result<Option<(CopyInput<'_>, usize)>, BodyError> {
    let Some(head) = super::header(bytes).map_err(|_| BodyError)? else { return Ok(None) };
    let tag = FrontendTag(head.tag);
    if tag.is_too_long(head.total) {
        return Err(BodyError);
    }
    let message = bytes.get(..head.total);
    let input = match tag {
        FrontendTag::COPY_DATA => {
            return Ok(Some((CopyInput::Data(head.total - HEADER_BYTES), HEADER_BYTES)));
        }
        FrontendTag::COPY_DONE => CopyInput::Done,
        // One whose text has no end is a failure all the same.
        FrontendTag::COPY_FAIL => {
            CopyInput::Fail(message.and_then(|it| Body::of(it).ok()?.cstr().ok()).unwrap_or_default())
        }
        FrontendTag::SYNC | FrontendTag::FLUSH => CopyInput::Skip,
        FrontendTag::TERMINATE => CopyInput::Terminate,
        FrontendTag(other) => return Ok(Some((CopyInput::Other(other), HEADER_BYTES))),
    };
    Ok(message.map(|it| (input, it.len())))
}

/// How long the CopyData messages are that `bytes` begin with, of which the last may be there in part.
pub fn copy_data_bytes(bytes: &[u8]) -> usize {
    let run = super::run_bytes(bytes, FrontendTag::COPY_DATA.0);
    match super::header(&bytes[run..]) {
        Ok(Some(next)) if FrontendTag(next.tag) == FrontendTag::COPY_DATA => run + next.total,
        _ => run,
    }
}

/// The text of a Query message. Not checked to be UTF-8: that depends on client_encoding.
pub fn query_text(message: &[u8]) -> Result<&[u8], BodyError> {
    let mut body = Body::of(message)?;
    let text = body.cstr()?;
    body.end()?;
    Ok(text)
}

#[derive(Clone, Copy, Debug)]
pub struct Parse<'a> {
    /// Empty is the unnamed statement.
    pub name: &'a [u8],
    pub text: &'a [u8],
    /// Parameter type oids, big-endian, four bytes each; 0 leaves the type to the server.
    pub oids: &'a [u8],
}

impl Parse<'_> {
    pub fn oids(&self) -> impl Iterator<Item = u32> {
        self.oids.as_chunks::<4>().0.iter().map(|it| u32::from_be_bytes(*it))
    }
}

pub fn parse(message: &[u8]) -> Result<Parse<'_>, BodyError> {
    let mut body = Body::of(message)?;
    let (name, text) = (body.cstr()?, body.cstr()?);
    let count = usize::from(body.u16()?);
    let oids = body.take(count * 4)?;
    body.end()?;
    Ok(Parse { name, text, oids })
}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

/// The body of Describe or Close.
pub fn target(message: &[u8]) -> Result<Target<'_>, BodyError> {
    let mut body = Body::of(message)?;
    let kind = body.u8()?;
    let name = body.cstr()?;
    body.end()?;
    match kind {
        b'S' => Ok(Target::Statement(name)),
        b'P' => Ok(Target::Portal(name)),
        _ => Err(BodyError),
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Execute<'a> {
    pub portal: &'a [u8],
    /// Zero or less is "no limit".
    pub rows_max: i32,
}

pub fn execute(message: &[u8]) -> Result<Execute<'_>, BodyError> {
    let mut body = Body::of(message)?;
    let portal = body.cstr()?;
    let rows_max = body.i32()?;
    body.end()?;
    Ok(Execute { portal, rows_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_text_ends_at_its_zero_byte() {
        assert_eq!(query_text(b"Q\0\0\0\x0dSELECT 1\0"), Ok(&b"SELECT 1"[..]));
        assert_eq!(query_text(b"Q\0\0\0\x0cSELECT 1"), Err(BodyError));
        assert_eq!(query_text(b"Q\0\0\0\x0ea\0b\0"), Err(BodyError));
    }

    #[test]
    fn parse_reads_names_and_oids() {
        let message = b"P\0\0\0\x12s1\0SELECT $1\0\0\x01\0\0\0\x17";
        let it = parse(message).unwrap();
        assert_eq!((it.name, it.text), (&b"s1"[..], &b"SELECT $1"[..]));
        assert_eq!(it.oids().collect::<Vec<_>>(), [23]);
        assert!(parse(&message[..message.len() - 1]).is_err());
    }

    #[test]
    fn target_tells_statements_from_portals() {
        assert_eq!(target(b"D\0\0\0\x08Sab\0"), Ok(Target::Statement(b"ab")));
        assert_eq!(target(b"C\0\0\0\x06P\0"), Ok(Target::Portal(b"")));
        assert_eq!(target(b"C\0\0\0\x06Q\0"), Err(BodyError));
    }

    #[test]
    fn execute_reads_the_row_limit() {
        let it = execute(b"E\0\0\0\x09\0\0\0\0\x05").unwrap();
        assert_eq!((it.portal, it.rows_max), (&b""[..], 5));
        assert!(execute(b"E\0\0\0\x08\0\0\0\0").is_err());
    }
}
